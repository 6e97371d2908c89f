//! The version of a release and the range of application protocols a firmware speaks.
//!
//! A `ReleaseVersion` in hand has exactly one number and exactly one spelling, so text, number and
//! order can never disagree. Whether two versions may talk to each other is decided in `compat`.

use core::fmt::{self, Write as _};
use core::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `MAJOR.MINOR.PATCH`, with the number `MAJOR·10000 + MINOR·100 + PATCH` of the original plan.
///
/// A label, ordered; the identity of what runs is its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseVersion {
    major: u32,
    minor: u8,
    patch: u8,
}

impl ReleaseVersion {
    /// Refuses what has no number of its own: a minor or patch above 99, or a number beyond `u32`.
    pub const fn new(major: u32, minor: u8, patch: u8) -> Result<Self, VersionError> {
        if minor > PART_MAX {
            return Err(VersionError::MinorTooLarge { minor: minor as u32 });
        }
        if patch > PART_MAX {
            return Err(VersionError::PatchTooLarge { patch: patch as u32 });
        }
        let low = minor as u32 * MINOR_WEIGHT + patch as u32;
        if major > (u32::MAX - low) / MAJOR_WEIGHT {
            return Err(VersionError::MajorTooLarge { major });
        }
        Ok(Self { major, minor, patch })
    }

    /// Every number is the number of one version.
    pub const fn from_number(number: u32) -> Self {
        Self {
            major: number / MAJOR_WEIGHT,
            minor: (number / MINOR_WEIGHT % 100) as u8,
            patch: (number % 100) as u8,
        }
    }

    /// `MAJOR·10000 + MINOR·100 + PATCH`, as announced on the wire.
    pub const fn number(self) -> u32 {
        self.major * MAJOR_WEIGHT + self.minor as u32 * MINOR_WEIGHT + self.patch as u32
    }

    /// The first part, 0 to 429496.
    pub const fn major(self) -> u32 {
        self.major
    }

    /// The second part, 0 to 99.
    pub const fn minor(self) -> u8 {
        self.minor
    }

    /// The third part, 0 to 99.
    pub const fn patch(self) -> u8 {
        self.patch
    }
}

impl fmt::Display for ReleaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Takes one spelling only, the one that `Display` prints: no `v`, no sign, no leading zero.
impl FromStr for ReleaseVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.split('.').map(plain_decimal);
        let (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(VersionError::Malformed { found: excerpt(text) });
        };
        let minor_byte = u8::try_from(minor).map_err(|_| VersionError::MinorTooLarge { minor })?;
        let patch_byte = u8::try_from(patch).map_err(|_| VersionError::PatchTooLarge { patch })?;
        Self::new(major, minor_byte, patch_byte)
    }
}

impl Serialize for ReleaseVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = heapless::String::<VERSION_TEXT_MAX>::new();
        write!(text, "{self}").map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for ReleaseVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = ReleaseVersion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version such as `1.2.0`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ReleaseVersion, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Why something is not a [`ReleaseVersion`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionError {
    /// The text is not three plain decimal numbers.
    Malformed {
        /// What stood there, at most its first 24 bytes.
        found: heapless::String<EXCERPT_MAX>,
    },
    /// The number could not tell this minor from a higher major.
    MinorTooLarge {
        /// What stood there.
        minor: u32,
    },
    /// The number could not tell this patch from a higher minor.
    PatchTooLarge {
        /// What stood there.
        patch: u32,
    },
    /// The version's number does not fit in 32 bits.
    MajorTooLarge {
        /// What stood there.
        major: u32,
    },
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { found } => {
                write!(f, "`version` is `{found}`, expected `MAJOR.MINOR.PATCH` in plain decimal")
            }
            Self::MinorTooLarge { minor } => {
                write!(f, "`minor` of the version is {minor}, the limit is {PART_MAX}")
            }
            Self::PatchTooLarge { patch } => {
                write!(f, "`patch` of the version is {patch}, the limit is {PART_MAX}")
            }
            Self::MajorTooLarge { major } => {
                let limit = u32::MAX;
                write!(f, "`major` of the version is {major}, its number would exceed {limit}")
            }
        }
    }
}

impl core::error::Error for VersionError {}

/// The application protocols that a firmware speaks, both ends included.
///
/// Written `[min, max]` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProtocolRange {
    min: u8,
    max: u8,
}

impl ProtocolRange {
    /// Refuses a range without a member.
    pub const fn new(min: u8, max: u8) -> Result<Self, EmptyRange> {
        if min > max { Err(EmptyRange { min, max }) } else { Ok(Self { min, max }) }
    }

    /// One protocol only: what a peer that announces no range speaks.
    pub const fn single(protocol: u8) -> Self {
        Self { min: protocol, max: protocol }
    }

    /// The oldest protocol that is still spoken.
    pub const fn min(self) -> u8 {
        self.min
    }

    /// The newest protocol that is spoken.
    pub const fn max(self) -> u8 {
        self.max
    }

    /// Whether there is a protocol that both speak.
    pub const fn overlaps(self, other: Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    /// Whether `protocol` is one of them.
    pub const fn contains(self, protocol: u8) -> bool {
        self.min <= protocol && protocol <= self.max
    }
}

impl fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

impl Serialize for ProtocolRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.min, self.max].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ProtocolRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [min, max] = <[u8; 2]>::deserialize(deserializer)?;
        Self::new(min, max).map_err(D::Error::custom)
    }
}

/// A protocol range whose lower end is above its upper end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyRange {
    /// The lower end as given.
    pub min: u8,
    /// The upper end as given.
    pub max: u8,
}

impl fmt::Display for EmptyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = self;
        write!(f, "`protocol_range` begins at {min}, above its end {max}")
    }
}

impl core::error::Error for EmptyRange {}

/// A number without sign, leading zero or overflow.
fn plain_decimal(text: &str) -> Option<u32> {
    let canonical =
        text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

fn excerpt(text: &str) -> heapless::String<EXCERPT_MAX> {
    let mut found = heapless::String::new();
    for letter in text.chars() {
        if found.push(letter).is_err() {
            break;
        }
    }
    found
}

/// Above it the number of the original plan is ambiguous.
const PART_MAX: u8 = 99;
const MAJOR_WEIGHT: u32 = 10_000;
const MINOR_WEIGHT: u32 = 100;
/// `429496.99.99` and room to spare.
const VERSION_TEXT_MAX: usize = 16;
/// How much of a malformed version an error quotes, in bytes.
pub const EXCERPT_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> ReleaseVersion {
        text.parse().expect(text)
    }

    #[test]
    fn the_number_is_that_of_the_original_plan() {
        assert_eq!(version("1.2.3").number(), 10_203);
        assert_eq!(version("0.0.0").number(), 0);
        assert_eq!(version("429496.72.95").number(), u32::MAX);
    }

    // The plan's number would be the same for 1.100.0 and 2.0.0.
    #[test]
    fn a_part_above_99_is_refused_because_its_number_is_ambiguous() {
        assert_eq!(
            "1.100.0".parse::<ReleaseVersion>().unwrap_err().to_string(),
            "`minor` of the version is 100, the limit is 99"
        );
        assert_eq!(
            "1.0.300".parse::<ReleaseVersion>().unwrap_err().to_string(),
            "`patch` of the version is 300, the limit is 99"
        );
        assert_eq!(
            ReleaseVersion::new(429_496, 72, 96),
            Err(VersionError::MajorTooLarge { major: 429_496 })
        );
    }

    #[test]
    fn only_one_spelling_is_taken() {
        for other in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "01.2.3",
            "1.02.3",
            "1.2.00",
            "+1.2.3",
            "1.2.3 ",
            "1..3",
            "-0.0.1",
            "1.2.3-rc1",
            "4294967296.0.0",
            "٣.0.0",
        ] {
            let error = other.parse::<ReleaseVersion>().unwrap_err();
            assert!(matches!(error, VersionError::Malformed { .. }), "{other}: {error}");
        }
    }

    #[test]
    fn an_error_quotes_no_more_than_its_limit() {
        let long = "x".repeat(500);
        let VersionError::Malformed { found } = long.parse::<ReleaseVersion>().unwrap_err() else {
            panic!("a long text is malformed");
        };
        assert_eq!(found.len(), EXCERPT_MAX);
    }

    #[test]
    fn json_holds_a_version_as_text_and_a_range_as_a_pair() {
        let pair = (version("1.2.0"), ProtocolRange::new(2, 3).unwrap());
        let mut buffer = [0; 64];
        let length = serde_json_core::to_slice(&pair, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], br#"["1.2.0",[2,3]]"#);
        let (back, _) =
            serde_json_core::from_slice::<(ReleaseVersion, ProtocolRange)>(&buffer[..length])
                .unwrap();
        assert_eq!(back, pair);
    }

    #[test]
    fn json_with_a_turned_range_or_a_bad_version_is_refused() {
        assert!(serde_json_core::from_str::<ProtocolRange>("[3,2]").is_err());
        assert!(serde_json_core::from_str::<ProtocolRange>("[3]").is_err());
        assert!(serde_json_core::from_str::<ReleaseVersion>("\"1.100.0\"").is_err());
        assert!(serde_json_core::from_str::<ReleaseVersion>("10200").is_err());
    }

    proptest! {
        #[test]
        fn number_text_and_order_agree(a: u32, b: u32) {
            let (first, second) = (ReleaseVersion::from_number(a), ReleaseVersion::from_number(b));
            prop_assert_eq!(first.number(), a);
            prop_assert_eq!(version(&first.to_string()), first);
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        }

        #[test]
        fn whatever_parses_prints_itself(text in "[0-9.v+]{0,12}") {
            if let Ok(parsed) = text.parse::<ReleaseVersion>() {
                prop_assert_eq!(parsed.to_string(), text);
            }
        }

        #[test]
        fn ranges_overlap_when_a_protocol_is_in_both(a: u8, b: u8, c: u8, d: u8) {
            let one = ProtocolRange::new(a.min(b), a.max(b)).unwrap();
            let two = ProtocolRange::new(c.min(d), c.max(d)).unwrap();
            let shared = (0..=u8::MAX).any(|p| one.contains(p) && two.contains(p));
            prop_assert_eq!(one.overlaps(two), shared);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<ReleaseVersion>();
        }
    }
}
