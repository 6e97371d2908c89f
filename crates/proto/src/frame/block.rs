//! Image blocks: pieces of a manifest package or an artifact on their way to members.
//!
//! A block is meant for every member that wants its session; its 4-byte tag keeps strangers from
//! spoiling a transfer cheaply, while the hash of the whole decides in the end.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | type `0x50` |
//! | 1 | 1 | lane version |
//! | 2 | 4 | session: the first four bytes of the object's SHA-256 |
//! | 6 | 2 | index: the block begins at `index · 224` |
//! | 8 | 1 | flags: bit 0 asks every receiver of this session to say what it wants |
//! | 9 | 1..224 | payload; only the last block of an object is shorter than 224 |
//! | end − 4 | 4 | tag: HMAC-SHA-256 by the group key over all before it, truncated |

use core::fmt;

use super::control::GroupKey;
use super::{FRAME_BYTES_MAX, LANE_VERSION};
use crate::wire::{Reader, TooShort, Writer};

/// Type byte of a block frame.
pub const BLOCK: u8 = 0x50;
/// Payload bytes of every block but the last. A multiple of the flash's write size.
pub const BLOCK_BYTES: usize = 224;
const HEADER_BYTES: usize = 9;
const TAG_BYTES: usize = 4;
const FLAG_ASK: u8 = 1;

/// Names the object a block belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub u32);

impl Session {
    /// The session in which the object with this SHA-256 travels.
    pub fn of(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = *digest;
        Self(u32::from_le_bytes([a, b, c, d]))
    }
}

/// What a receiver does beyond taking the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing; more follows.
    Continue,
    /// Says what it still wants.
    Answer,
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// The object it belongs to.
    pub session: Session,
    /// It begins at `index · BLOCK_BYTES`.
    pub index: u16,
    /// Whether receivers answer.
    pub then: Then,
    /// 1 to 224 bytes.
    pub payload: &'a [u8],
}

/// Why bytes are not a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// The frame ends too early.
    TooShort(TooShort),
    /// A lane version from the future.
    LaneVersion {
        /// What the frame says.
        found: u8,
    },
    /// The payload is empty or longer than a block.
    PayloadSize {
        /// Its size in bytes.
        found_bytes: usize,
    },
    /// Not tagged by this group's key.
    BadTag,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(_) => write!(f, "block frame is cut short"),
            Self::LaneVersion { found } => {
                write!(f, "block has lane version {found}, this firmware knows {LANE_VERSION}")
            }
            Self::PayloadSize { found_bytes } => {
                write!(f, "block carries {found_bytes} bytes, allowed are 1 to {BLOCK_BYTES}")
            }
            Self::BadTag => write!(f, "block is not tagged by this group's key"),
        }
    }
}

impl core::error::Error for BlockError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::TooShort(cause) => Some(cause),
            Self::LaneVersion { .. } | Self::PayloadSize { .. } | Self::BadTag => None,
        }
    }
}

impl From<TooShort> for BlockError {
    fn from(cause: TooShort) -> Self {
        Self::TooShort(cause)
    }
}

impl<'a> Block<'a> {
    /// Writes the frame into `buffer` and returns its length. A payload of 0 or more than 224
    /// bytes is refused.
    pub fn encode(
        &self,
        key: &GroupKey,
        buffer: &mut [u8; FRAME_BYTES_MAX],
    ) -> Result<usize, BlockError> {
        let found_bytes = self.payload.len();
        if found_bytes == 0 || found_bytes > BLOCK_BYTES {
            return Err(BlockError::PayloadSize { found_bytes });
        }
        let mut writer = Writer::new(buffer);
        self.put(key, &mut writer).map_err(|_| BlockError::PayloadSize { found_bytes })?;
        Ok(writer.len_bytes())
    }

    fn put(&self, key: &GroupKey, writer: &mut Writer<'_>) -> Result<(), crate::wire::Full> {
        writer.u8(BLOCK)?;
        writer.u8(LANE_VERSION)?;
        writer.u32(self.session.0)?;
        writer.u16(self.index)?;
        writer.u8(if self.then == Then::Answer { FLAG_ASK } else { 0 })?;
        writer.put(self.payload)?;
        let tag: [u8; TAG_BYTES] = key.tag(writer.written());
        writer.put(&tag)
    }

    /// Reads and authenticates a frame whose type byte is [`BLOCK`].
    pub fn decode(key: &GroupKey, frame: &'a [u8]) -> Result<Self, BlockError> {
        let wanted_bytes = HEADER_BYTES + TAG_BYTES;
        let error = TooShort { wanted_bytes, left_bytes: frame.len() };
        let (signed, tag) = frame.split_last_chunk::<TAG_BYTES>().ok_or(error)?;
        let mut reader = Reader::new(signed);
        reader.u8()?;
        let found = reader.u8()?;
        if found != LANE_VERSION {
            return Err(BlockError::LaneVersion { found });
        }
        let session = Session(reader.u32()?);
        let index = reader.u16()?;
        let then = if reader.u8()? & FLAG_ASK == 0 { Then::Continue } else { Then::Answer };
        let payload = reader.rest();
        if payload.is_empty() || payload.len() > BLOCK_BYTES {
            return Err(BlockError::PayloadSize { found_bytes: payload.len() });
        }
        if !key.is_tag_of(signed, tag) {
            return Err(BlockError::BadTag);
        }
        Ok(Self { session, index, then, payload })
    }

    /// The session that a frame whose type byte is [`BLOCK`] names, without looking at its tag.
    ///
    /// To be asked first: a tag costs more than everything else about a block, and most devices of
    /// a group do not wait for most blocks that they hear.
    pub fn named_session(frame: &[u8]) -> Option<Session> {
        let [_, _, session @ ..] = frame.first_chunk::<6>()?;
        Some(Session(u32::from_le_bytes(*session)))
    }

    /// Where the block begins in its object, in bytes.
    pub fn offset_bytes(&self) -> u32 {
        u32::from(self.index) * 224
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static KEY: LazyLock<GroupKey> = LazyLock::new(|| GroupKey::new([7; 32]));

    #[test]
    fn a_block_survives_the_air_and_one_flipped_bit_does_not() {
        let block = Block {
            session: Session(0x0102_0304),
            index: 513,
            then: Then::Answer,
            payload: &[0xA5; BLOCK_BYTES],
        };
        let mut buffer = [0; FRAME_BYTES_MAX];
        let len = block.encode(&KEY, &mut buffer).unwrap();
        assert_eq!(Block::decode(&KEY, &buffer[..len]), Ok(block));
        for bit in 16..len * 8 {
            let mut damaged = buffer;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Block::decode(&KEY, &damaged[..len]), Err(BlockError::BadTag), "bit {bit}");
        }
    }

    #[test]
    fn an_empty_block_and_one_of_225_bytes_are_refused() {
        let mut buffer = [0; FRAME_BYTES_MAX];
        for size in [0, BLOCK_BYTES + 1] {
            let payload = &[0; BLOCK_BYTES + 1][..size];
            let block = Block { session: Session(1), index: 0, then: Then::Continue, payload };
            let refused = Err(BlockError::PayloadSize { found_bytes: size });
            assert_eq!(block.encode(&KEY, &mut buffer), refused);
        }
    }
}
