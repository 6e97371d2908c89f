//! What stands in front of a patch: what it is for, what comes out, and what it needs on the way.
//!
//! | Offset | Bytes | |
//! |---|---|---|
//! | 0 | 4 | `LSD1` |
//! | 4 | 1 | format: 0 compressed image, 1 patch, 2 patch that knows of addresses |
//! | 5 | 3 | zeros; what a later version puts there makes it another format |
//! | 8 | 4 | size of the old image |
//! | 12 | 4 | size of the new image |
//! | 16 | 4 | size of the body when it is decompressed |
//! | 20 | 4 | size of the body, which follows |
//! | 24 | 4 | room: the smallest slot in which it can be applied from the slot's end |
//! | 28 | 32 | identity of the old image |
//! | 60 | 32 | identity of the new image |
//! | 92 | 32 | SHA-256 of the body |
//!
//! Numbers are little endian. What an identity is, whoever makes and applies patches agrees on. The
//! hash of a header names its patch, since it covers that of the body.

use core::fmt;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 124;
/// Bytes of an image's identity.
pub const ID_BYTES: usize = 32;

/// What a patch consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The new image itself, compressed.
    Full,
    /// What bsdiff says of old and new, compressed.
    Plain,
    /// The same, of what the old image becomes when addresses in it are put right; compressed.
    AddressAware,
}

impl Format {
    const fn code(self) -> u8 {
        match self {
            Self::Full => 0,
            Self::Plain => 1,
            Self::AddressAware => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Full,
            1 => Self::Plain,
            2 => Self::AddressAware,
            _ => return None,
        })
    }
}

/// The front of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub format: Format,
    /// Size of the image that it is applied to, in bytes; 0 for [`Format::Full`].
    pub old_bytes: u32,
    /// Size of the image that comes out, in bytes.
    pub new_bytes: u32,
    /// Size of the body when it is decompressed, in bytes: what applying it costs in time.
    pub stream_bytes: u32,
    /// Size of the body, in bytes.
    pub body_bytes: u32,
    /// The smallest slot, in bytes, in which a patch at the slot's end makes the new image from the
    /// slot's start without overwriting what it still needs.
    pub room_bytes: u32,
    /// Identity of the image that it is applied to; zeros for [`Format::Full`].
    pub old: [u8; ID_BYTES],
    /// Identity of the image that comes out.
    pub new: [u8; ID_BYTES],
    /// SHA-256 of the body: whether it has come as it was sent. Nothing is believed because of it.
    pub body_sha256: [u8; ID_BYTES],
}

impl Header {
    /// Reads the front of a patch.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (bytes, _) =
            bytes.split_first_chunk().ok_or(HeaderError::TooShort { size_bytes: bytes.len() })?;
        Self::decode_whole(bytes)
    }

    fn decode_whole(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let [m0, m1, m2, m3, code, z0, z1, z2, numbers @ ..] = bytes;
        if [*m0, *m1, *m2, *m3] != MAGIC {
            return Err(HeaderError::NotAPatch { found: [*m0, *m1, *m2, *m3] });
        }
        let format = Format::from_code(*code).filter(|_| [*z0, *z1, *z2] == [0; 3]);
        let format = format.ok_or(HeaderError::Format { found: *code })?;
        let number = |index: usize| {
            let bytes = numbers.get(index * 4..).and_then(<[u8]>::first_chunk);
            u32::from_le_bytes(*bytes.unwrap_or(&[0; 4]))
        };
        let identity =
            |at: usize| *numbers.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; ID_BYTES]);
        let header = Self {
            format,
            old_bytes: number(0),
            new_bytes: number(1),
            stream_bytes: number(2),
            body_bytes: number(3),
            room_bytes: number(4),
            old: identity(5 * 4),
            new: identity(5 * 4 + ID_BYTES),
            body_sha256: identity(5 * 4 + 2 * ID_BYTES),
        };
        header.check().map(|()| header)
    }

    /// What no encoder writes.
    fn check(&self) -> Result<(), HeaderError> {
        let Self { old_bytes, new_bytes, stream_bytes, body_bytes, room_bytes, .. } = *self;
        let field = |field, found: u32| Err(HeaderError::Field { field, found });
        if self.format == Format::Full && (old_bytes != 0 || self.old != [0; ID_BYTES]) {
            return field("old image", old_bytes);
        }
        // Each byte of the new image is one of the stream, and so is little beside it.
        if stream_bytes < new_bytes || stream_bytes > stream_bytes_max(new_bytes) {
            return field("decompressed size", stream_bytes);
        }
        if room_bytes < new_bytes || u64::from(room_bytes) < body_bytes.into() {
            return field("room", room_bytes);
        }
        Ok(())
    }

    /// The front of a patch.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let numbers =
            [self.old_bytes, self.new_bytes, self.stream_bytes, self.body_bytes, self.room_bytes];
        let front = MAGIC.into_iter().chain([self.format.code(), 0, 0, 0]);
        let all = front
            .chain(numbers.into_iter().flat_map(u32::to_le_bytes))
            .chain(self.old)
            .chain(self.new)
            .chain(self.body_sha256);
        bytes.iter_mut().zip(all).for_each(|(place, byte)| *place = byte);
        bytes
    }
}

/// What a body may decompress to.
pub(crate) const fn stream_bytes_max(new_bytes: u32) -> u32 {
    let bytes = new_bytes.saturating_mul(4);
    if bytes > STREAM_BYTES_MAX_LEAST { bytes } else { STREAM_BYTES_MAX_LEAST }
}

/// Why bytes are not the front of a patch that can be applied here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The front is cut off.
    TooShort {
        /// What there is.
        size_bytes: usize,
    },
    /// It begins otherwise.
    NotAPatch {
        /// How.
        found: [u8; 4],
    },
    /// Of a format that this version does not know.
    Format {
        /// Its number.
        found: u8,
    },
    /// A field says what cannot be.
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        found: u32,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { size_bytes } => {
                write!(f, "patch has {size_bytes} bytes, its header {HEADER_BYTES}")
            }
            Self::NotAPatch { found } => {
                write!(f, "begins with `{}`, a patch with `LSD1`", found.escape_ascii())
            }
            Self::Format { found } => {
                write!(f, "patch is of format {found}, known are 0 to 2")
            }
            Self::Field { field, found } => write!(f, "patch has {found} as its {field}"),
        }
    }
}

impl core::error::Error for HeaderError {}

/// For images of a few bytes.
const STREAM_BYTES_MAX_LEAST: u32 = 64;
const MAGIC: [u8; 4] = *b"LSD1";

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            format: Format::Plain,
            old_bytes: 0x0102_0304,
            new_bytes: 0x0506_0708,
            stream_bytes: 0x0607_0809,
            body_bytes: 0x0001_0203,
            room_bytes: 0x0708_090A,
            old: [0xAA; ID_BYTES],
            new: [0xBB; ID_BYTES],
            body_sha256: [0xCC; ID_BYTES],
        }
    }

    /// Devices in the field read this.
    #[test]
    fn the_bytes_of_a_header_are_frozen() {
        let mut frozen = b"LSD1\x01\0\0\0".to_vec();
        frozen.extend([4, 3, 2, 1, 8, 7, 6, 5, 9, 8, 7, 6, 3, 2, 1, 0, 10, 9, 8, 7]);
        frozen.extend([0xAA; 32]);
        frozen.extend([0xBB; 32]);
        frozen.extend([0xCC; 32]);
        assert_eq!(header().encode(), frozen[..]);
        assert_eq!(Header::decode(&frozen), Ok(header()));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let bytes = header().encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes;
            bytes[at] = byte;
            Header::decode(&bytes)
        };
        assert_eq!(Header::decode(&bytes[..123]), Err(HeaderError::TooShort { size_bytes: 123 }));
        assert_eq!(with(0, b'X'), Err(HeaderError::NotAPatch { found: *b"XSD1" }));
        assert_eq!(with(4, 7), Err(HeaderError::Format { found: 7 }));
        assert_eq!(with(6, 1), Err(HeaderError::Format { found: 1 }));
        // A compressed image has nothing that it would be applied to.
        assert!(matches!(with(4, 0), Err(HeaderError::Field { field: "old image", .. })));
        let decompressed = |byte| with(19, byte);
        assert!(matches!(decompressed(0), Err(HeaderError::Field { .. })));
        assert!(matches!(decompressed(0xFF), Err(HeaderError::Field { .. })));
        assert!(matches!(with(27, 0), Err(HeaderError::Field { field: "room", .. })));
    }
}
