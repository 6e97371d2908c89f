//! The metadata block `FMTA` of the original C++ project's firmware.
//!
//! 128 bytes somewhere in the image, between two magics; little endian. Read only: images of ours
//! carry a descriptor instead. A block in hand had both magics; its texts are whatever stood there.
//!
//! | offset | bytes | field |
//! |-------:|------:|-------|
//! |      0 |     4 | magic 0x464D5441 |
//! |      4 |    32 | `env_name`, the PlatformIO environment |
//! |     36 |    16 | `device_type`, the role |
//! |     52 |     3 | major, minor, patch |
//! |     55 |     1 | reserved |
//! |     56 |    48 | `build_date` |
//! |    104 |    20 | reserved |
//! |    124 |     4 | end magic 0x454E4446 |

use crate::text::FixedText;
use crate::version::{ReleaseVersion, VersionError};

/// Length of the block.
pub const FMTA_BYTES: usize = 128;

/// Begins the block, as it stands in the file.
pub const MAGIC: [u8; 4] = 0x464D_5441_u32.to_le_bytes();

/// Ends the block, as it stands in the file.
pub const END_MAGIC: [u8; 4] = 0x454E_4446_u32.to_le_bytes();

/// What the original project's firmware says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fmta {
    /// The PlatformIO environment that it was built in.
    pub env_name: FixedText<32>,
    /// What the device is for: `RECEIVER` or `TRANSMITTER`, in the project's own spelling.
    pub device_type: FixedText<16>,
    /// First part of the version.
    pub major: u8,
    /// Second part; may be above 99.
    pub minor: u8,
    /// Third part; may be above 99.
    pub patch: u8,
    /// When it was built, as text.
    pub build_date: FixedText<48>,
}

impl Fmta {
    /// Reads the block at the start of `bytes`; `None` unless both magics stand in their places.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<FMTA_BYTES>()?;
        if !bytes.starts_with(&MAGIC) || !bytes.ends_with(&END_MAGIC) {
            return None;
        }
        Some(Self {
            env_name: text(bytes, 4),
            device_type: text(bytes, 36),
            major: bytes[52],
            minor: bytes[53],
            patch: bytes[54],
            build_date: text(bytes, 56),
        })
    }

    /// The version, unless a part is too large for the version number.
    pub const fn version(&self) -> Result<ReleaseVersion, VersionError> {
        ReleaseVersion::new(self.major as u32, self.minor, self.patch)
    }
}

/// The text field of `N` bytes at `offset`, which is a constant of the table above.
fn text<const N: usize>(bytes: &[u8; FMTA_BYTES], offset: usize) -> FixedText<N> {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    FixedText::from_bytes(field)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn block() -> [u8; FMTA_BYTES] {
        let mut bytes = [0; FMTA_BYTES];
        bytes[..4].copy_from_slice(b"ATMF");
        bytes[4..13].copy_from_slice(b"olimex_v2");
        bytes[36..47].copy_from_slice(b"TRANSMITTER");
        bytes[52..55].copy_from_slice(&[2, 0, 17]);
        bytes[56..67].copy_from_slice(b"Feb 14 2026");
        bytes[124..].copy_from_slice(b"FDNE");
        bytes
    }

    #[test]
    fn a_block_between_both_magics_is_read() {
        let block = Fmta::decode(&block()).unwrap();
        assert_eq!(block.env_name.as_str(), "olimex_v2");
        assert_eq!(block.device_type.as_str(), "TRANSMITTER");
        assert_eq!(block.version().unwrap().to_string(), "2.0.17");
        assert_eq!(block.build_date.as_str(), "Feb 14 2026");
    }

    #[test]
    fn one_magic_is_not_enough() {
        for index in [0, 3, 124, 127] {
            let mut damaged = block();
            damaged[index] ^= 1;
            assert_eq!(Fmta::decode(&damaged), None, "byte {index}");
        }
        assert_eq!(Fmta::decode(&block()[..127]), None);
    }

    #[test]
    fn a_version_beyond_the_number_is_told_apart_from_a_missing_block() {
        let mut bytes = block();
        bytes[53] = 100;
        let read = Fmta::decode(&bytes).unwrap();
        assert_eq!(read.version(), Err(VersionError::MinorTooLarge { minor: 100 }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Fmta::decode(&bytes);
        }

        #[test]
        fn no_field_panics(mut bytes in proptest::collection::vec(any::<u8>(), 128..=128)) {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[124..].copy_from_slice(&END_MAGIC);
            let block = Fmta::decode(&bytes).unwrap();
            let _ = (block.env_name.to_string(), block.version());
        }
    }
}
