//! Short texts inside fixed fields: what others wrote (any bytes) and what we write (checked
//! names).
//!
//! A `FixedText` gives back exactly the bytes it was read from; a `Name` in hand is printable ASCII
//! of at least one letter. What a text means is said where the field is defined.

use core::fmt;
use core::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A NUL-padded text field of `N` bytes, as C structures hold it.
///
/// The field may hold anything, invalid UTF-8 included, and keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FixedText<const N: usize>([u8; N]);

impl<const N: usize> FixedText<N> {
    /// The field's bytes, kept as they are.
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// A field that holds `text`; `None` if it does not fit, or holds a NUL that would cut it.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; N];
        if text.as_bytes().contains(&0) {
            return None;
        }
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }

    /// The text up to the first NUL or the first byte that is not UTF-8, whichever comes first.
    pub fn as_str(&self) -> &str {
        self.text().utf8_chunks().next().map_or("", |chunk| chunk.valid())
    }

    /// The whole field.
    pub const fn bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// What stands before the first NUL.
    fn text(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl<const N: usize> Default for FixedText<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

/// Prints `U+FFFD` for what is not UTF-8, and for control characters: a field read from a file must
/// not move the cursor of a terminal.
impl<const N: usize> fmt::Display for FixedText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        for chunk in self.text().utf8_chunks() {
            for letter in chunk.valid().chars() {
                f.write_char(if letter.is_control() { '\u{FFFD}' } else { letter })?;
            }
            if !chunk.invalid().is_empty() {
                f.write_char('\u{FFFD}')?;
            }
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for FixedText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// A name of ours: 1 to `MAX` letters of printable ASCII, no blank at either end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<const MAX: usize>(heapless::String<MAX>);

impl<const MAX: usize> Name<MAX> {
    /// Checks and takes `text`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if text.is_empty() {
            Err(NameError::Empty)
        } else if !printable || text.trim() != text {
            Err(NameError::NotPlain)
        } else {
            heapless::String::try_from(text)
                .map(Self)
                .map_err(|_| NameError::TooLong { found_bytes: text.len(), limit_bytes: MAX })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> FromStr for Name<MAX> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<const MAX: usize> AsRef<str> for Name<MAX> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> PartialEq<str> for Name<MAX> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl<const MAX: usize> PartialEq<&str> for Name<MAX> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl<const MAX: usize> fmt::Display for Name<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for Name<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl<const MAX: usize> Serialize for Name<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Name<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const MAX: usize>;

        impl<const MAX: usize> Visitor<'_> for Text<MAX> {
            type Value = Name<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a name of 1 to {MAX} bytes in printable ascii")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name<MAX>, E> {
                Name::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// There is nothing.
    Empty,
    /// It holds a byte outside printable ASCII, or begins or ends with a blank.
    NotPlain,
    /// It does not fit its field.
    TooLong {
        /// Its length.
        found_bytes: usize,
        /// The field's.
        limit_bytes: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name is empty"),
            Self::NotPlain => {
                f.write_str("the name is not plain printable ascii without blanks at its ends")
            }
            Self::TooLong { found_bytes, limit_bytes } => {
                write!(f, "the name has {found_bytes} bytes, the limit is {limit_bytes}")
            }
        }
    }
}

impl core::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_with_foreign_bytes_is_printed_without_them_and_kept_with_them() {
        let field = FixedText::from_bytes(*b"ab\xFFc\x1B[2\0");
        assert_eq!(field.to_string(), "ab\u{FFFD}c\u{FFFD}[2");
        assert_eq!(field.as_str(), "ab");
        assert_eq!(field.bytes(), b"ab\xFFc\x1B[2\0");
    }

    #[test]
    fn a_field_may_be_full_without_a_nul() {
        assert_eq!(FixedText::<4>::new("abcd").unwrap().as_str(), "abcd");
        assert_eq!(FixedText::<4>::new("abcde"), None);
        assert_eq!(FixedText::<4>::new("a\0b"), None);
    }

    #[test]
    fn a_name_is_plain_and_fits() {
        assert_eq!(Name::<8>::new("receiver").unwrap(), "receiver");
        assert_eq!(Name::<8>::new(""), Err(NameError::Empty));
        assert_eq!(Name::<8>::new(" a"), Err(NameError::NotPlain));
        assert_eq!(Name::<8>::new("ä"), Err(NameError::NotPlain));
        assert_eq!(Name::<8>::new("a\nb"), Err(NameError::NotPlain));
        assert_eq!(
            Name::<8>::new("receivers").unwrap_err().to_string(),
            "the name has 9 bytes, the limit is 8"
        );
        assert!(serde_json_core::from_str::<Name<4>>("\"toolong\"").is_err());
        assert!(serde_json_core::from_str::<Name<4>>("\"fits\"").is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: [u8; 16]) {
            let field = FixedText::from_bytes(bytes);
            prop_assert!(field.to_string().starts_with(field.as_str())
                || field.as_str().chars().any(char::is_control));
        }

        #[test]
        fn no_text_panics(text: String) {
            if let Ok(name) = Name::<15>::new(&text) {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
        }
    }
}
