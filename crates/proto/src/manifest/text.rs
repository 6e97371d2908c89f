//! A string of the manifest, still as it stands between its quotes.
//!
//! Without an allocator there is nowhere to put an unescaped copy, and most strings need none:
//! a [`Text`] borrows the manifest's bytes and undoes escapes while it is read. Two texts are equal
//! if they mean the same, however they are written.

use core::fmt;

/// A string, borrowed from where it stands.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    /// Whether `raw` is the inside of a JSON string that has escapes, all of them checked.
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The text itself, nothing in it escaped.
    pub const fn new(text: &'a str) -> Self {
        Self { raw: text, escaped: false }
    }

    /// The inside of a JSON string; `None` if an escape in it is none of JSON's.
    pub(super) fn from_json(raw: &'a str) -> Option<Self> {
        let escaped = raw.contains('\\');
        let mut rest = raw;
        while escaped && !rest.is_empty() {
            rest = next_letter(rest)?.1;
        }
        Some(Self { raw, escaped })
    }

    /// The text as it stands in the manifest, if nothing in it is escaped.
    pub const fn as_plain(&self) -> Option<&'a str> {
        if self.escaped { None } else { Some(self.raw) }
    }

    /// Its letters, escapes undone.
    pub fn chars(&self) -> impl Iterator<Item = char> + use<'a> {
        let (mut rest, escaped) = (self.raw, self.escaped);
        core::iter::from_fn(move || {
            let (letter, after) = if escaped {
                next_letter(rest)?
            } else {
                let letter = rest.chars().next()?;
                (letter, rest.get(letter.len_utf8()..)?)
            };
            rest = after;
            Some(letter)
        })
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Its length in bytes, escapes undone.
    pub fn len(&self) -> usize {
        self.chars().map(char::len_utf8).sum()
    }
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self::new("")
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.chars().eq(other.chars())
    }
}

impl Eq for Text<'_> {}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.chars().eq(other.chars())
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        match self.as_plain() {
            Some(text) => f.pad(text),
            None => self.chars().try_for_each(|letter| f.write_char(letter)),
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The first letter of a JSON string's inside, and what follows it.
fn next_letter(raw: &str) -> Option<(char, &str)> {
    let first = raw.chars().next()?;
    let rest = raw.get(first.len_utf8()..)?;
    if first != '\\' {
        return Some((first, rest));
    }
    let kind = rest.chars().next()?;
    let after = rest.get(kind.len_utf8()..)?;
    let letter = match kind {
        '"' | '\\' | '/' => kind,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return code_point(after),
        _ => return None,
    };
    Some((letter, after))
}

/// What follows `\u`: four digits, or a surrogate pair.
fn code_point(raw: &str) -> Option<(char, &str)> {
    let (high, rest) = four_digits(raw)?;
    if let Some(letter) = char::from_u32(high) {
        return Some((letter, rest));
    }
    let (low, rest) = four_digits(rest.strip_prefix("\\u")?)?;
    if !(0xD800..0xDC00).contains(&high) || !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    let letter = char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))?;
    Some((letter, rest))
}

fn four_digits(raw: &str) -> Option<(u32, &str)> {
    let digits = raw.get(..4).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()))?;
    Some((u32::from_str_radix(digits, 16).ok()?, raw.get(4..)?))
}
