//! Rules about Rust code, read as tokens: comments, strings and macros mislead nobody here.
//!
//! Tokens rather than a syntax tree, because functions inside macro calls count as well.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Finding;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Macros that stand where work is missing. (In clippy's list too; here also for code that is
/// compiled for no target of this machine.)
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// One Rust file, as the rules need it.
#[derive(Debug)]
pub(super) struct RustFile {
    pub(super) path: String,
    /// Names declared by `mod name;`.
    pub(super) modules: Vec<String>,
    /// Text of every string literal, with the line where it stands.
    pub(super) strings: Vec<(usize, String)>,
    /// Whether `#![no_std]` stands at the top, without a condition.
    pub(super) is_no_std: bool,
    /// Lines outside tests that reach for the standard library.
    pub(super) std_uses: Vec<usize>,
    functions: Vec<Function>,
    unfinished: Vec<(usize, String)>,
    /// Lines above the tests at the end.
    lines: usize,
}

#[derive(Debug)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

impl RustFile {
    /// Reads a file; the error says where the text stops being Rust.
    pub(super) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let stream: TokenStream = text.parse().map_err(|error| format!("not Rust: {error}"))?;
        let mut file = Self {
            path: path.into(),
            modules: Vec::new(),
            strings: Vec::new(),
            is_no_std: false,
            std_uses: Vec::new(),
            functions: Vec::new(),
            unfinished: Vec::new(),
            lines: text.lines().count(),
        };
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        file.is_no_std = has_no_std(&tokens);
        if let Some(line) = trailing_tests(&tokens) {
            file.lines = line - 1;
        }
        file.walk(&tokens, is_test_path(path));
        Ok(file)
    }

    pub(super) fn check(&self, findings: &mut Vec<Finding>) {
        for function in self.functions.iter().filter(|found| found.lines > FUNCTION_LINES_MAX) {
            let Function { name, line, lines } = function;
            let text = format!("`{name}` has {lines} lines, limit {FUNCTION_LINES_MAX}");
            findings.push(Finding::at(&self.path, *line, "function length", text));
        }
        if self.lines > FILE_LINES_MAX && !is_test_path(&self.path) {
            let text = format!("{} lines without tests, limit {FILE_LINES_MAX}", self.lines);
            findings.push(Finding::whole(&self.path, "file length", text));
        }
        for (line, name) in &self.unfinished {
            let text = format!("`{name}!`: write what belongs there");
            findings.push(Finding::at(&self.path, *line, "words", text));
        }
    }

    /// Collects from one level of nesting and all below it.
    fn walk(&mut self, tokens: &[TokenTree], in_tests: bool) {
        let mut tests_until = 0;
        for (index, token) in tokens.iter().enumerate() {
            let rest = tokens.get(index + 1..).unwrap_or_default();
            if is_test_attribute(token, rest) {
                tests_until = tests_until.max(index + 1 + item_length(rest));
            }
            let in_tests = in_tests || index < tests_until;
            match token {
                TokenTree::Ident(word) => {
                    self.see_word(&word.to_string(), line_of(token), rest, in_tests);
                }
                TokenTree::Literal(literal) => {
                    self.strings.push((line_of(token), literal.to_string()));
                }
                TokenTree::Group(group) => self.walk(&level(group), in_tests),
                TokenTree::Punct(_) => (),
            }
        }
    }

    fn see_word(&mut self, word: &str, line: usize, rest: &[TokenTree], in_tests: bool) {
        match (word, rest) {
            ("fn", [TokenTree::Ident(name), after @ ..]) => {
                if let Some(lines) = body_end(after).map(|end| end + 1 - line) {
                    self.functions.push(Function { name: name.to_string(), line, lines });
                }
            }
            ("mod", [TokenTree::Ident(name), TokenTree::Punct(end), ..])
                if end.as_char() == ';' =>
            {
                self.modules.push(name.to_string());
            }
            ("std", [TokenTree::Punct(colon), ..]) if colon.as_char() == ':' && !in_tests => {
                self.std_uses.push(line);
            }
            ("crate", [TokenTree::Ident(name), ..]) if *name == "std" && !in_tests => {
                self.std_uses.push(line);
            }
            (name, [TokenTree::Punct(bang), TokenTree::Group(_), ..])
                if bang.as_char() == '!' && UNFINISHED.contains(&name) =>
            {
                self.unfinished.push((line, name.into()));
            }
            // Any other word is no rule's business.
            _ => (),
        }
    }
}

/// Tests may be as long as they have cases; their functions may not.
fn is_test_path(path: &str) -> bool {
    let is_test = |part: &str| {
        matches!(part, "tests" | "benches" | "tests.rs") || part.ends_with("_tests.rs")
    };
    path.split('/').any(is_test)
}

/// The line on which a function's body ends; `None` when it has no body.
fn body_end(after: &[TokenTree]) -> Option<usize> {
    for token in after {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                return Some(group.span_close().end().line);
            }
            TokenTree::Punct(end) if end.as_char() == ';' => return None,
            _ => (),
        }
    }
    None
}

/// The line of `#[cfg(test)]`, if what it stands on is a module and nothing follows.
fn trailing_tests(tokens: &[TokenTree]) -> Option<usize> {
    let start = (0..tokens.len()).rev().find(|&index| {
        let rest = tokens.get(index + 1..).unwrap_or_default();
        tokens.get(index).is_some_and(|token| is_test_attribute(token, rest))
    })?;
    let rest = tokens.get(start + 1..)?;
    let has_module =
        rest.iter().any(|token| matches!(token, TokenTree::Ident(word) if *word == "mod"));
    let is_last = item_length(rest) == rest.len();
    tokens.get(start).filter(|_| has_module && is_last).map(line_of)
}

/// Whether `#` begins an attribute that keeps what follows for tests.
fn is_test_attribute(token: &TokenTree, rest: &[TokenTree]) -> bool {
    let (TokenTree::Punct(hash), [TokenTree::Group(group), ..]) = (token, rest) else {
        return false;
    };
    let words = group.stream().to_string().replace(' ', "");
    hash.as_char() == '#'
        && group.delimiter() == Delimiter::Bracket
        && (words == "cfg(test)" || words == "test" || words.starts_with("cfg(all(test,"))
}

/// How many tokens an item takes, from its attribute's bracket to its body or semicolon.
fn item_length(rest: &[TokenTree]) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    rest.iter().position(is_end).map_or(rest.len(), |end| end + 1)
}

fn has_no_std(tokens: &[TokenTree]) -> bool {
    tokens.windows(3).any(|window| match window {
        [TokenTree::Punct(hash), TokenTree::Punct(bang), TokenTree::Group(group)] => {
            hash.as_char() == '#' && bang.as_char() == '!' && group.stream().to_string() == "no_std"
        }
        _ => false,
    })
}

fn level(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

fn line_of(token: &TokenTree) -> usize {
    token.span().start().line
}
