//! Words of a fleet: labels of groups, what a person may choose groups by, and how a group takes
//! releases.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use utoipa::ToSchema;

/// What a group is called by, `key=value` each: `site=berlin`, `stage=canary`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// In the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// As the tables have it: `,key=value,key=value,`, so that a label can be looked for.
    pub(crate) fn stored(&self) -> String {
        let mut text = String::from(",");
        for (key, value) in self.iter() {
            text += &format!("{key}={value},");
        }
        text
    }

    /// Reads [`Labels::stored`]; what cannot be one is left out.
    pub(crate) fn of_stored(text: &str) -> Self {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// Whether all labels of `selector` are among these.
    pub fn has_all(&self, selector: &Self) -> bool {
        selector.iter().all(|(key, value)| self.0.get(key).is_some_and(|it| it == value))
    }
}

/// `key=value,key=value`; empty: none.
impl FromStr for Labels {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let mut labels = BTreeMap::new();
        for pair in text.split([',', ' ', '\n']).filter(|pair| !pair.is_empty()) {
            let error = || LabelError::NoLabel { found: excerpt(pair) };
            let (key, value) = pair.split_once('=').ok_or_else(error)?;
            if !is_name(key) || !is_name(value) {
                return Err(error());
            }
            labels.insert(key.to_owned(), value.to_owned());
        }
        if labels.len() > LABELS_MAX {
            return Err(LabelError::TooMany { found: labels.len() });
        }
        Ok(Self(labels))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (key, value)) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// Why a text is no list of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelError {
    /// One of them is none.
    NoLabel {
        /// Its beginning.
        found: String,
    },
    /// There are more than a group may have.
    TooMany {
        /// So many.
        found: usize,
    },
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLabel { found } => write!(
                f,
                "`{found}` is no label, expected `key=value` of letters, digits, `.`, `_` and `-`, \
                 at most {NAME_BYTES_MAX} each"
            ),
            Self::TooMany { found } => {
                write!(f, "{found} labels, a group has at most {LABELS_MAX}")
            }
        }
    }
}

impl std::error::Error for LabelError {}

/// Whether a text may be a key or a value of a label.
fn is_name(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_good)
}

/// Whether a text may be what people call a group, a campaign or a token.
pub(crate) fn is_title(text: &str) -> bool {
    let is_trimmed = text.trim() == text;
    is_trimmed
        && !text.is_empty()
        && text.chars().count() <= TITLE_CHARS_MAX
        && !text.contains(char::is_control)
}

/// The beginning of a text that somebody sent, fit to be shown.
pub(crate) fn excerpt(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut excerpt: String = shown.take(EXCERPT_CHARS_MAX).collect();
    if text.chars().count() > EXCERPT_CHARS_MAX {
        excerpt.push('…');
    }
    excerpt
}

/// How a group takes a release that it is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Its lead begins by itself.
    #[default]
    Automatic,
    /// Its lead says that there is one, and waits for a person's word.
    Notify,
}

impl Mode {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Notify => "notify",
        }
    }
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "automatic" => Ok(Self::Automatic),
            "notify" => Ok(Self::Notify),
            _ => Err("expected `automatic` or `notify`"),
        }
    }
}

/// Labels of one group, at most.
pub const LABELS_MAX: usize = 16;
/// Bytes of a label's key or value, at most.
const NAME_BYTES_MAX: usize = 40;
/// Characters of what people call something, at most.
pub const TITLE_CHARS_MAX: usize = 80;
/// Characters of a bad text that are shown again.
const EXCERPT_CHARS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_back_from_the_tables_and_from_what_a_person_writes() {
        let labels: Labels = "stage=canary, site=berlin".parse().unwrap();
        assert_eq!(labels.to_string(), "site=berlin,stage=canary");
        assert_eq!(labels.stored(), ",site=berlin,stage=canary,");
        assert_eq!(Labels::of_stored(&labels.stored()), labels);
        assert_eq!(Labels::default().stored(), ",");
        assert!(labels.has_all(&"site=berlin".parse().unwrap()));
        assert!(!labels.has_all(&"site=ber".parse().unwrap()));
    }

    #[test]
    fn what_could_not_be_looked_for_in_the_tables_is_no_label() {
        for wrong in ["a", "=b", "a=", "a=%", "a=b=c", "a=b'c", "ä=b"] {
            assert!(wrong.parse::<Labels>().is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..17).map(|number| format!("k{number}=v")).collect();
        assert_eq!(many.join(",").parse::<Labels>(), Err(LabelError::TooMany { found: 17 }));
    }
}
