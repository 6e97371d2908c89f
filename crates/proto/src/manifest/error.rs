//! Why a manifest was refused: which field, what stands there, and what would be right.

use core::fmt;

use super::json::SyntaxError;
use super::trust::KeySetError;
use super::{
    FIRMWARE_SIZE_BYTES_MAX, MANIFEST_SIZE_BYTES_MAX, ROLE_BYTES_MAX, ROLES_MAX, SCHEMA_NEWEST,
};
use crate::signature::KeyError;
use crate::version::{EmptyRange, ReleaseVersion, VersionError};

/// A field of the manifest, printed as its path: `devices.receiver.sha256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    role: Option<Excerpt>,
    name: &'static str,
}

impl Field {
    /// A field outside of `devices`, by its whole path.
    pub const fn top(name: &'static str) -> Self {
        Self { role: None, name }
    }

    /// The entry of a role.
    pub fn role(role: &str) -> Self {
        Self::of(role, "")
    }

    /// A field of a role's entry.
    pub fn of(role: &str, name: &'static str) -> Self {
        Self { role: Some(Excerpt::new(role)), name }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Some(role) if self.name.is_empty() => write!(f, "devices.{role}"),
            Some(role) => write!(f, "devices.{role}.{}", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// The beginning of something that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt(heapless::String<EXCERPT_BYTES_MAX>);

impl Excerpt {
    /// As much of `text` as fits.
    pub fn new(text: &str) -> Self {
        Self::of(text.chars())
    }

    pub(super) fn of(text: impl Iterator<Item = char>) -> Self {
        let mut excerpt = heapless::String::new();
        for letter in text {
            if excerpt.push(letter).is_err() {
                break;
            }
        }
        Self(excerpt)
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a manifest was refused, or why nothing can be installed from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// More bytes than a device holds.
    TooLarge {
        /// Bytes in it.
        size: usize,
    },
    /// Not JSON, or not the JSON that belongs there.
    Syntax {
        /// The field that was being read.
        field: Field,
        /// What stands there instead.
        error: SyntaxError,
    },
    /// Made for newer readers.
    SchemaTooNew {
        /// What stands there.
        found: u64,
    },
    /// A field that must be there is not, or is `null`.
    Missing {
        /// Which.
        field: Field,
    },
    /// A field stands there twice.
    Twice {
        /// Which.
        field: Field,
    },
    /// A number outside its range.
    OutOfRange {
        /// Which.
        field: Field,
        /// What stands there.
        found: u64,
        /// The least that is right.
        min: u64,
        /// The most that is right.
        max: u64,
    },
    /// A text of another form than the field has.
    BadText {
        /// Which.
        field: Field,
        /// What stands there, or its beginning.
        found: Excerpt,
        /// What would be right.
        expected: &'static str,
    },
    /// A text longer than the field may be.
    TooLong {
        /// Which.
        field: Field,
        /// Its length in bytes.
        length: usize,
        /// The most that is right.
        max: usize,
    },
    /// Not a version.
    Version {
        /// Which field.
        field: Field,
        /// Why not.
        error: VersionError,
    },
    /// Version and number of one device disagree.
    NumberMismatch {
        /// The number.
        field: Field,
        /// What stands there.
        found: u64,
        /// What the number would have to belong to.
        version: ReleaseVersion,
    },
    /// A protocol range without a member.
    Range {
        /// Which field.
        field: Field,
        /// Its ends.
        error: EmptyRange,
    },
    /// The device's own protocol lies outside of the range that it speaks.
    ProtocolOutside {
        /// The protocol's field.
        field: Field,
        /// The protocol.
        protocol: u8,
        /// The range.
        range: crate::version::ProtocolRange,
    },
    /// More or fewer hashes of generations than the artifact has generations.
    Generations {
        /// The list's field.
        field: Field,
        /// How many hashes there are.
        found: usize,
        /// How many generations.
        expected: usize,
        /// Size of the artifact in bytes.
        size_bytes: u32,
    },
    /// More of something than fits.
    TooMany {
        /// The list's field.
        field: Field,
        /// How many fit.
        max: usize,
    },
    /// Nothing is released.
    NoDevices,
    /// The order of activation names a role that the release does not have.
    UnknownRole {
        /// What stands there.
        found: Excerpt,
    },
    /// The order of activation names some roles and leaves others to chance.
    OrderIncomplete {
        /// How many it names.
        found: usize,
        /// How many there are.
        expected: usize,
        /// The first that it does not name.
        missing: Excerpt,
    },
    /// A key of the next key set is none.
    Key {
        /// Why not.
        error: KeyError,
    },
    /// The next keys are no set that could be trusted.
    KeySet {
        /// Why not.
        error: KeySetError,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size } => {
                write!(f, "`manifest` is {size} bytes, the limit is {MANIFEST_SIZE_BYTES_MAX}")
            }
            Self::Syntax { field, error } => write!(f, "`{field}` has {error}"),
            Self::SchemaTooNew { found } => {
                write!(f, "`schema` is {found}, this reader knows up to {SCHEMA_NEWEST}")
            }
            Self::Missing { field } => write!(f, "`{field}` is missing"),
            Self::Twice { field } => write!(f, "`{field}` stands there twice, expected once"),
            Self::OutOfRange { field, found, min, max } => {
                write!(f, "`{field}` is {found}, expected {min} to {max}")
            }
            Self::BadText { field, found, expected } => {
                write!(f, "`{field}` is `{found}`, expected {expected}")
            }
            Self::TooLong { field, length, max } => {
                write!(f, "`{field}` is {length} bytes long, the limit is {max}")
            }
            Self::Version { field, error } => write!(f, "`{field}` is refused: {error}"),
            Self::NumberMismatch { field, found, version } => {
                let number = version.number();
                write!(f, "`{field}` is {found}, version {version} has the number {number}")
            }
            Self::Range { field, error } => {
                write!(f, "`{field}` begins at {}, above its end {}", error.min, error.max)
            }
            Self::ProtocolOutside { field, protocol, range } => {
                write!(f, "`{field}` is {protocol}, outside of the protocol range {range}")
            }
            Self::Generations { field, found, expected, size_bytes } => write!(
                f,
                "`{field}` has {found} hashes, expected {expected} for {size_bytes} bytes"
            ),
            Self::TooMany { field, max } => write!(f, "`{field}` has more than {max} entries"),
            Self::NoDevices => write!(f, "`devices` has 0 entries, expected 1 to {ROLES_MAX}"),
            Self::UnknownRole { found } => {
                write!(f, "`update_instructions.order` names `{found}`, which `devices` does not")
            }
            Self::OrderIncomplete { found, expected, missing } => write!(
                f,
                "`update_instructions.order` names {found} of {expected} roles, `{missing}` not"
            ),
            Self::Key { error } => write!(f, "`keys.keys` is refused: {error}"),
            Self::KeySet { error } => write!(f, "`keys` is refused: {error}"),
        }
    }
}

impl core::error::Error for ManifestError {}

impl ManifestError {
    /// Says which field was being read, where a syntax error does not know it yet.
    pub(super) fn in_field(self, field: &Field) -> Self {
        match self {
            Self::Syntax { field: known, error } if known == WHOLE => {
                Self::Syntax { field: field.clone(), error }
            }
            other => other,
        }
    }
}

impl From<SyntaxError> for ManifestError {
    fn from(error: SyntaxError) -> Self {
        Self::Syntax { field: WHOLE, error }
    }
}

/// What a role's name is made of, in the words of an error.
pub(super) const ROLE_EXPECTED: &str =
    "a role of 1 to 16 letters, digits, `-` and `_`, beginning with a letter or digit";
const _: () = assert!(ROLE_BYTES_MAX == 16, "the text above says 16");
const _: () = assert!(FIRMWARE_SIZE_BYTES_MAX < u32::MAX);
const WHOLE: Field = Field::top("manifest");
const EXCERPT_BYTES_MAX: usize = 32;
