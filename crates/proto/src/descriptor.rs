//! What an image of ours says about itself, in 128 bytes.
//!
//! It stands at file offset 0x120 when the linker puts it there (ESP-IDF's place for a custom
//! application description), else it is found by its magic. All numbers are little endian.
//!
//! | offset | bytes | field |
//! |-------:|------:|-------|
//! |      0 |     8 | magic `D6 4C 6F 63 6B 53 74 65` (`\xD6LockSte`) |
//! |      8 |     1 | format version, 1 |
//! |      9 |     1 | oldest protocol spoken |
//! |     10 |     1 | newest protocol spoken |
//! |     11 |     1 | reserved, 0 |
//! |     12 |     4 | version number (`MAJOR·10000 + MINOR·100 + PATCH`) |
//! |     16 |     4 | version number of the oldest firmware it talks to |
//! |     20 |     4 | epoch |
//! |     24 |     2 | schema of the application's configuration |
//! |     26 |     2 | reserved, 0 |
//! |     28 |    24 | product, NUL-padded |
//! |     52 |    16 | role, NUL-padded |
//! |     68 |    32 | board, NUL-padded |
//! |    100 |    24 | reserved, 0 |
//! |    124 |     4 | CRC-32 (ISO-HDLC, as in zlib) of bytes 0 to 123 |
//!
//! Every byte defined here is frozen: a later format version gives meaning to reserved bytes only,
//! so that firmware of today reads what it needs from an image of tomorrow. Whether an image may
//! run here is decided where its descriptor is compared, not in this file.

mod constant;

pub use constant::Constant;

use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

use crate::compat::Announced;
use crate::text::Name;
use crate::version::{ProtocolRange, ReleaseVersion};

/// Length of an encoded descriptor.
pub const DESCRIPTOR_BYTES: usize = 128;

/// Where ESP-IDF's linker script puts a custom application description in the file: behind the
/// image header (24), the first segment's header (8) and the ESP application description (256).
pub const OFFSET: u32 = 0x120;

/// Begins every descriptor. Not ASCII throughout, so that no text is mistaken for one.
pub const MAGIC: [u8; 8] = *b"\xD6LockSte";

/// The format version that this code writes.
pub const FORMAT: u8 = 1;

/// The whole system's name, such as `battery-companion`.
pub type Product = Name<23>;
/// What a device is for, such as `receiver`. One byte shorter than the announce frame's field.
pub type Role = Name<15>;
/// The hardware a firmware is built for, such as `lilygo-t-display-s3`.
pub type Board = Name<31>;

/// What the image is, for whom, and with whom it gets along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The system it belongs to.
    pub product: Product,
    /// What the device that runs it is for.
    pub role: Role,
    /// The hardware that it runs on.
    pub board: Board,
    /// The release it was built for: a label, not an identity.
    pub version: ReleaseVersion,
    /// The oldest firmware it exchanges data with.
    pub min_compatible: ReleaseVersion,
    /// The application protocols that it speaks.
    pub protocol: ProtocolRange,
    /// The anti-rollback counter of its release.
    pub epoch: u32,
    /// Which layout of the application's configuration it reads and writes.
    pub config_schema: u16,
}

impl Descriptor {
    /// The bytes for the image.
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let mut put = |offset: usize, field: &[u8]| {
            // Every field's type keeps it within its place in the table above.
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, &MAGIC);
        put(8, &[FORMAT, self.protocol.min(), self.protocol.max()]);
        put(12, &self.version.number().to_le_bytes());
        put(16, &self.min_compatible.number().to_le_bytes());
        put(20, &self.epoch.to_le_bytes());
        put(24, &self.config_schema.to_le_bytes());
        put(28, self.product.as_str().as_bytes());
        put(52, self.role.as_str().as_bytes());
        put(68, self.board.as_str().as_bytes());
        let crc = CRC.checksum(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the descriptor at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let Some(bytes) = bytes.first_chunk::<DESCRIPTOR_BYTES>() else {
            return Err(DescriptorError::TooShort { found_bytes: bytes.len() });
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(DescriptorError::NoMagic);
        }
        let (found, expected) = (u32_at(bytes, CRC_OFFSET), CRC.checksum(&bytes[..CRC_OFFSET]));
        if found != expected {
            return Err(DescriptorError::Crc { found, expected });
        }
        if bytes[8] == 0 {
            return Err(DescriptorError::Format { found: bytes[8] });
        }
        let protocol = ProtocolRange::new(bytes[9], bytes[10])
            .map_err(|range| DescriptorError::Protocol { min: range.min, max: range.max })?;
        Ok(Self {
            product: name(&bytes[28..52]).ok_or(DescriptorError::Text { field: "product" })?,
            role: name(&bytes[52..68]).ok_or(DescriptorError::Text { field: "role" })?,
            board: name(&bytes[68..100]).ok_or(DescriptorError::Text { field: "board" })?,
            version: ReleaseVersion::from_number(u32_at(bytes, 12)),
            min_compatible: ReleaseVersion::from_number(u32_at(bytes, 16)),
            protocol,
            epoch: u32_at(bytes, 20),
            config_schema: u16::from_le_bytes([bytes[24], bytes[25]]),
        })
    }

    /// What a device that runs this image announces to its peers.
    pub const fn announced(&self) -> Announced {
        Announced {
            number: self.version.number(),
            min_compatible: self.min_compatible.number(),
            protocol: self.protocol,
        }
    }
}

/// Why bytes are not a [`Descriptor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptorError {
    /// There are too few.
    TooShort {
        /// How many there are.
        found_bytes: usize,
    },
    /// They do not begin with the magic.
    NoMagic,
    /// They were damaged.
    Crc {
        /// What stands at their end.
        found: u32,
        /// What would fit them.
        expected: u32,
    },
    /// There never was such a format version.
    Format {
        /// What stands there.
        found: u8,
    },
    /// The oldest protocol is above the newest.
    Protocol {
        /// The oldest, as it stands there.
        min: u8,
        /// The newest, as it stands there.
        max: u8,
    },
    /// A text is empty, not printable ASCII, or not NUL-padded.
    Text {
        /// Which one.
        field: &'static str,
    },
}

impl fmt::Display for DescriptorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { found_bytes } => write!(
                f,
                "the `descriptor` ends after {found_bytes} bytes, expected {DESCRIPTOR_BYTES}"
            ),
            Self::NoMagic => write!(f, "the `descriptor` does not begin with its magic"),
            Self::Crc { found, expected } => write!(
                f,
                "the `crc` of the descriptor is {found:08x}, its bytes give {expected:08x}"
            ),
            Self::Format { found } => {
                write!(f, "the `format` of the descriptor is {found}, expected {FORMAT} or higher")
            }
            Self::Protocol { min, max } => write!(
                f,
                "the `protocol` range of the descriptor begins at {min}, above its end {max}"
            ),
            Self::Text { field } => write!(
                f,
                "the `{field}` of the descriptor is not a NUL-padded name in printable ascii"
            ),
        }
    }
}

impl core::error::Error for DescriptorError {}

/// A name in a field that is filled up with NUL, of which there is at least one.
fn name<const MAX: usize>(field: &[u8]) -> Option<Name<MAX>> {
    let length = field.iter().position(|&byte| byte == 0)?;
    let (text, padding) = field.split_at(length);
    if padding.iter().any(|&byte| byte != 0) {
        return None;
    }
    Name::new(core::str::from_utf8(text).ok()?).ok()
}

fn u32_at(bytes: &[u8; DESCRIPTOR_BYTES], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

const CRC_OFFSET: usize = 124;
/// Without a table: 128 bytes are not worth a kilobyte of flash.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/descriptor-v1.bin");

    fn sample() -> Descriptor {
        Descriptor {
            product: Name::new("battery-companion").unwrap(),
            role: Name::new("transmitter").unwrap(),
            board: Name::new("olimex-esp32-poe-iso").unwrap(),
            version: ReleaseVersion::from_number(10_203),
            min_compatible: ReleaseVersion::from_number(10_100),
            protocol: ProtocolRange::new(2, 3).unwrap(),
            epoch: 7,
            config_schema: 4,
        }
    }

    /// Puts the right CRC behind changed bytes.
    fn sealed(mut bytes: [u8; DESCRIPTOR_BYTES]) -> [u8; DESCRIPTOR_BYTES] {
        let crc = CRC.checksum(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_layout_is_frozen() {
        assert_eq!(sample().encode(), GOLDEN);
        assert_eq!(Descriptor::decode(GOLDEN), Ok(sample()));
    }

    #[test]
    fn a_later_format_is_read_by_its_frozen_part() {
        let mut later = sample().encode();
        later[8] = 200;
        later[11] = 9;
        later[100..124].fill(0xAB);
        assert_eq!(Descriptor::decode(&sealed(later)), Ok(sample()));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        for index in 0..DESCRIPTOR_BYTES {
            let mut damaged = sample().encode();
            damaged[index] ^= 0x20;
            assert!(Descriptor::decode(&damaged).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_sealed_but_senseless_descriptor_is_refused_by_name() {
        let refusal = |change: fn(&mut [u8; DESCRIPTOR_BYTES])| {
            let mut bytes = sample().encode();
            change(&mut bytes);
            Descriptor::decode(&sealed(bytes)).unwrap_err()
        };
        assert_eq!(refusal(|bytes| bytes[8] = 0), DescriptorError::Format { found: 0 });
        assert_eq!(refusal(|bytes| bytes[9] = 4), DescriptorError::Protocol { min: 4, max: 3 });
        let role = DescriptorError::Text { field: "role" };
        assert_eq!(refusal(|bytes| bytes[52] = 0), role);
        assert_eq!(refusal(|bytes| bytes[52..68].fill(b'x')), role);
        assert_eq!(refusal(|bytes| bytes[66] = b'x'), role);
        assert_eq!(
            Descriptor::decode(&GOLDEN[..127]).unwrap_err().to_string(),
            "the `descriptor` ends after 127 bytes, expected 128"
        );
    }

    fn any_descriptor() -> impl Strategy<Value = Descriptor> {
        let names = ("[!-~]{1,23}", "[!-~]([ -~]{0,13}[!-~])?", "[!-~]{1,31}");
        (names, any::<[u32; 3]>(), any::<[u8; 2]>(), any::<u16>()).prop_map(
            |((product, role, board), [version, minimum, epoch], [a, b], config_schema)| {
                Descriptor {
                    product: Name::new(&product).unwrap(),
                    role: Name::new(&role).unwrap(),
                    board: Name::new(&board).unwrap(),
                    version: ReleaseVersion::from_number(version),
                    min_compatible: ReleaseVersion::from_number(minimum),
                    protocol: ProtocolRange::new(a.min(b), a.max(b)).unwrap(),
                    epoch,
                    config_schema,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(descriptor in any_descriptor()) {
            prop_assert_eq!(Descriptor::decode(&descriptor.encode()), Ok(descriptor));
        }

        #[test]
        fn no_bytes_panic(
            tail in proptest::collection::vec(any::<u8>(), 0..200),
            body: [u8; 32],
        ) {
            let _ = Descriptor::decode(&tail);
            // Behind a right magic and CRC, so that the fields are reached.
            let mut bytes = [0; DESCRIPTOR_BYTES];
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = body[index % body.len()];
            }
            bytes[..8].copy_from_slice(&MAGIC);
            let _ = Descriptor::decode(&sealed(bytes));
        }
    }
}
