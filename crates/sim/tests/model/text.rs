//! What a value says of itself (`{:?}`), read back as a tree: so a state's key holds every private
//! field of the real `Agent` and `Rollout` unless a rule leaves it out by name.
//!
//! Times are never compared as numbers. Each field that holds one needs a rule, by name; a new one
//! panics here until somebody has decided what it means for the model.

/// One value of a debug text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Node<'t> {
    Atom(&'t str),
    Fields(&'t str, Vec<(&'t str, Node<'t>)>),
    Items(&'t str, Vec<Node<'t>>),
}

impl<'t> Node<'t> {
    /// Reads a whole debug text.
    pub(crate) fn read(text: &'t str) -> Self {
        let mut reader = Reader { text, at: 0 };
        let node = reader.value();
        assert_eq!(reader.at, text.len(), "all of `{text}` is one value");
        node
    }

    /// The value of a field, which must be there.
    pub(crate) fn field(&self, name: &str) -> &Self {
        let Self::Fields(_, fields) = self else { panic!("`{name}` of something else: {self:?}") };
        let found = fields.iter().find(|(field, _)| *field == name);
        &found.unwrap_or_else(|| panic!("no field `{name}` any more in {self:?}")).1
    }

    /// The milliseconds of an `Instant`, or of `Some(Instant)`.
    pub(crate) fn ms(&self) -> Option<u64> {
        match self {
            Self::Fields("Instant", fields) => match fields.as_slice() {
                [("ms", Self::Atom(ms))] => ms.parse().ok(),
                _ => None,
            },
            Self::Items("Some", items) => items.first().and_then(Self::ms),
            _ => None,
        }
    }

    /// Appends the canonical text; `rule` says what becomes of a field.
    pub(crate) fn put(&self, out: &mut String, rule: &dyn Fn(&str) -> Rule) {
        match self {
            Self::Atom(text) => out.push_str(text),
            Self::Items(name, _) if !name.is_empty() && rule(name) == Rule::Leave => {
                out.push_str(name);
            }
            Self::Items(name, items) => {
                out.push_str(name);
                out.push('(');
                items.iter().for_each(|item| {
                    item.put(out, rule);
                    out.push(',');
                });
                out.push(')');
            }
            Self::Fields(name, fields) => {
                out.push_str(name);
                out.push('{');
                fields.iter().for_each(|(field, value)| value.put_field(field, out, rule));
                out.push('}');
            }
        }
    }

    fn put_field(&self, field: &str, out: &mut String, rule: &dyn Fn(&str) -> Rule) {
        match rule(field) {
            Rule::Leave => return,
            Rule::Presence => out.push(if *self == Self::Atom("None") { '-' } else { '+' }),
            Rule::Keep => {
                assert!(self.ms().is_none(), "what does the time `{field}` mean for the model?");
                self.put(out, rule);
            }
        }
        out.push(';');
    }
}

/// What becomes of a field in a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is told as it is.
    Keep,
    /// It does not matter here.
    Leave,
    /// It only matters whether there is one.
    Presence,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn value(&mut self) -> Node<'t> {
        let name = self.until(|byte| b"{([,)]}".contains(&byte));
        match self.peek() {
            Some(b'{') => Node::Fields(name.trim(), self.fields()),
            Some(b'(') => Node::Items(name, self.items(b')')),
            Some(b'[') => Node::Items(name, self.items(b']')),
            _ => Node::Atom(name.trim()),
        }
    }

    fn fields(&mut self) -> Vec<(&'t str, Node<'t>)> {
        let mut fields = Vec::new();
        self.at += 1;
        loop {
            self.blanks();
            if self.peek() == Some(b'}') {
                self.at += 1;
                return fields;
            }
            let name = self.until(|byte| byte == b':' || byte == b'}');
            if self.peek() == Some(b':') {
                self.at += 2;
                fields.push((name, self.value()));
            }
        }
    }

    fn items(&mut self, end: u8) -> Vec<Node<'t>> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.blanks();
            if self.peek() == Some(end) {
                self.at += 1;
                return items;
            }
            items.push(self.value());
        }
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b',')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn until(&mut self, ends: impl Fn(u8) -> bool) -> &'t str {
        let rest = &self.text[self.at..];
        let len = rest.bytes().position(ends).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }
}

#[test]
fn a_key_keeps_what_no_rule_leaves_out() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "only its debug form is read")]
    struct Inner {
        kept: Vec<Option<u8>>,
        left: (u8, &'static str),
        maybe: Option<u8>,
    }
    let text =
        format!("{:?}", Some(Inner { kept: vec![Some(1), None], left: (2, "x"), maybe: None }));
    let mut key = String::new();
    Node::read(&text).put(&mut key, &|field| match field {
        "left" => Rule::Leave,
        "maybe" => Rule::Presence,
        _ => Rule::Keep,
    });
    assert_eq!(key, "Some(Inner{(Some(1,),None,);-;},)");
}
