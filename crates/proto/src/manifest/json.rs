//! A strict JSON reader that hands out what it passes, without allocating.
//!
//! Written here because a manifest comes from strangers: `serde-json-core` recurses without a limit
//! into fields that nobody asked for (8 KiB of `[` overflow a chip's stack), takes broken JSON
//! there, cannot read a field that is a string in one manifest and a number in the next, and drops
//! what its errors know; `serde_json` needs an allocator. What this reader takes, `serde_json`
//! takes too and understands the same: a property test compares them.

use core::fmt;

use super::text::Text;

/// Where in the bytes we are. Every method leaves it behind what it has read.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, SyntaxError> {
        match core::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0 }),
            Err(error) => {
                let at = error.valid_up_to();
                Err(SyntaxError { at, found: bytes.get(at).copied(), expected: "UTF-8" })
            }
        }
    }

    /// Reads an object; `member` must read, or skip, the value that belongs to the key.
    ///
    /// A key with escapes is refused: to other readers it might be one that we know.
    pub(super) fn object<E: From<SyntaxError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{', "an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            member(self, key)?;
            if !self.take(b',') {
                return Ok(self.expect(b'}', "`,` or `}`")?);
            }
        }
    }

    /// Reads a list; `element` must read one element.
    pub(super) fn array<E: From<SyntaxError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[', "a list")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if !self.take(b',') {
                return Ok(self.expect(b']', "`,` or `]`")?);
            }
        }
    }

    pub(super) fn string(&mut self) -> Result<Text<'a>, SyntaxError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        loop {
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(0x20..) => self.at += 1,
                _ => return Err(self.error("a string without control characters")),
            }
        }
        let raw = self.text.get(start..self.at).ok_or_else(|| self.error("a string"))?;
        self.at += 1;
        Text::from_json(raw).ok_or(SyntaxError {
            at: start,
            found: Some(b'\\'),
            expected: "the escapes of JSON only",
        })
    }

    /// Reads a whole number without sign, fraction or exponent.
    pub(super) fn number(&mut self) -> Result<u64, SyntaxError> {
        self.skip_space();
        let start = self.at;
        let whole = "a whole number";
        let mut number = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.byte() {
            number = number
                .checked_mul(10)
                .and_then(|number| number.checked_add(u64::from(digit - b'0')))
                .ok_or_else(|| self.error("a number of 64 bits"))?;
            self.at += 1;
        }
        let leading_zero = number != 0 || self.at > start + 1;
        if self.at == start || matches!(self.byte(), Some(b'.' | b'e' | b'E')) {
            return Err(self.error(whole));
        }
        if leading_zero && self.text.as_bytes().get(start) == Some(&b'0') {
            return Err(SyntaxError { at: start, found: Some(b'0'), expected: whole });
        }
        Ok(number)
    }

    /// Takes a `null`, if that is what stands here.
    pub(super) fn take_null(&mut self) -> bool {
        self.skip_space();
        let is_null =
            self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(b"null"));
        self.at += if is_null { 4 } else { 0 };
        is_null
    }

    /// Whether a string stands here.
    pub(super) fn at_string(&mut self) -> bool {
        self.skip_space();
        self.byte() == Some(b'"')
    }

    /// Passes over one value of any kind: strict about its syntax, and without recursion.
    pub(super) fn skip(&mut self) -> Result<(), SyntaxError> {
        let (mut depth, mut is_object) = (0_u32, 0_u32);
        loop {
            let opened = self.skip_scalar_or_open()?;
            if let Some(kind) = opened {
                if depth == DEPTH_MAX {
                    return Err(self.error("less nesting: at most 32 levels"));
                }
                depth += 1;
                is_object = is_object << 1 | u32::from(kind == b'{');
                let end = if kind == b'{' { b'}' } else { b']' };
                if !self.take(end) {
                    if kind == b'{' {
                        self.any_key()?;
                    }
                    continue;
                }
                depth -= 1;
                is_object >>= 1;
            }
            // Behind a value: close what ends here, then go on to the next one.
            while depth > 0 {
                let in_object = is_object & 1 == 1;
                if self.take(b',') {
                    if in_object {
                        self.any_key()?;
                    }
                    break;
                }
                let (end, expected) =
                    if in_object { (b'}', "`,` or `}`") } else { (b']', "`,` or `]`") };
                self.expect(end, expected)?;
                depth -= 1;
                is_object >>= 1;
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.error("the end")) }
    }

    /// An error about the byte that stands here.
    pub(super) fn error(&self, expected: &'static str) -> SyntaxError {
        SyntaxError { at: self.at, found: self.byte(), expected }
    }

    fn key(&mut self) -> Result<&'a str, SyntaxError> {
        let at = self.at;
        let key = self.string()?;
        self.expect(b':', "`:`")?;
        let found = Some(b'\\');
        key.as_plain().ok_or(SyntaxError { at, found, expected: "a key without escapes" })
    }

    fn any_key(&mut self) -> Result<(), SyntaxError> {
        self.string()?;
        self.expect(b':', "`:`")
    }

    /// Passes over a value without inside; of a list or an object only the bracket, returned.
    fn skip_scalar_or_open(&mut self) -> Result<Option<u8>, SyntaxError> {
        self.skip_space();
        match self.byte() {
            Some(kind @ (b'{' | b'[')) => {
                self.at += 1;
                return Ok(Some(kind));
            }
            Some(b'"') => {
                self.string()?;
            }
            Some(b'-' | b'0'..=b'9') => self.skip_number()?,
            _ => {
                let rest = self.text.as_bytes().get(self.at..).unwrap_or(&[]);
                let literal = ["null", "true", "false"];
                let literal = literal.iter().find(|literal| rest.starts_with(literal.as_bytes()));
                self.at += literal.ok_or_else(|| self.error("a value"))?.len();
            }
        }
        Ok(None)
    }

    /// Passes over a number of any kind that JSON has.
    fn skip_number(&mut self) -> Result<(), SyntaxError> {
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { Err(self.error("a digit")) } else { Ok(()) }
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), SyntaxError> {
        if self.take(byte) { Ok(()) } else { Err(self.error(expected)) }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_here = self.byte() == Some(byte);
        self.at += usize::from(is_here);
        is_here
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// The bytes are not the JSON that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntaxError {
    /// Offset in the manifest, in bytes.
    pub at: usize,
    /// The byte that stands there; `None` at the end.
    pub found: Option<u8>,
    /// What belongs there.
    pub expected: &'static str,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, found, expected } = self;
        match found {
            Some(byte @ b' '..=b'~') => write!(f, "`{}` at byte {at}", char::from(*byte))?,
            Some(byte) => write!(f, "`{}` at byte {at}", byte.escape_ascii())?,
            None => write!(f, "ends at byte {at}")?,
        }
        write!(f, ", expected {expected}")
    }
}

impl core::error::Error for SyntaxError {}

/// As deep as the bits of `skip` reach; manifests are nested three levels deep.
const DEPTH_MAX: u32 = u32::BITS;
