//! Blocks of a manifest package or an artifact on their way to members, the repair frames that mend
//! what got lost, and the question what is lacking.
//!
//! All three are meant for every member that wants their session; the 4-byte tag keeps strangers
//! from spoiling a transfer cheaply, while the hash of the whole decides in the end. How an object
//! is cut is in [`super::coding`].
//!
//! | offset | size | block `0x50` |
//! |---|---|---|
//! | 0 | 1 | type |
//! | 1 | 1 | lane version |
//! | 2 | 4 | session: the first four bytes of the object's SHA-256 |
//! | 6 | 1 | flags: bit 0, large blocks |
//! | 7 | 2 | index of the block in the object |
//! | 9 | 1..224 or 1..1024 | payload; only the last block of an object is shorter |
//! | end − 4 | 4 | tag: HMAC-SHA-256 by the group key over all before it, truncated |
//!
//! | offset | size | repair `0x51`, where it differs |
//! |---|---|---|
//! | 7 | 2 | generation |
//! | 9 | 2 or 4 | which blocks it is the XOR of: a seed, of large blocks a map |
//! | 11 or 13 | 224 or 1024 | payload, never shorter |
//!
//! | offset | size | ask `0x52`, where it differs |
//! |---|---|---|
//! | 6 | 1 | flags: bit 1, only who lacks something of the generation answers |
//! | 7 | 2 | generation; 0 without bit 1 |
//! | 9 | 1 | milliseconds between two answers |
//! | 10 | 2 n | who answers when: the last two bytes of each address, at most 100 of them |

use core::fmt;

use super::LANE_VERSION;
use super::coding::Shape;
use super::control::GroupKey;
use crate::id::DeviceId;
use crate::wire::{Full, Reader, TooShort, Writer};

/// Type byte of a block frame.
pub const BLOCK: u8 = 0x50;
/// Type byte of a repair frame.
pub const REPAIR: u8 = 0x51;
/// Type byte of the question what is lacking.
pub const ASK: u8 = 0x52;
const TAG_BYTES: usize = 4;
/// Bytes of a frame that are not a block's or a repair frame's payload, at most.
pub const OVERHEAD_BYTES_MAX: usize = 13 + TAG_BYTES;
/// Members that are asked at once.
pub const ASKED_MAX: usize = 100;
const FLAG_LARGE: u8 = 1;
const FLAG_LACKING: u8 = 2;

/// Names the object a block belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub u32);

impl Session {
    /// The session in which the object with this SHA-256 travels.
    pub fn of(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = *digest;
        Self(u32::from_le_bytes([a, b, c, d]))
    }

    /// The session that a frame with one of the types of this module names, without looking at its
    /// tag.
    ///
    /// To be asked first: a tag costs more than everything else about a frame, and most devices of
    /// a group do not wait for most blocks that they hear.
    pub fn named(frame: &[u8]) -> Option<Self> {
        let [_, _, session @ ..] = frame.first_chunk::<6>()?;
        Some(Self(u32::from_le_bytes(*session)))
    }
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// The object it belongs to.
    pub session: Session,
    /// How the object is cut.
    pub shape: Shape,
    /// It begins at `index` times the shape's block size.
    pub index: u16,
    /// 1 byte up to the shape's block size.
    pub payload: &'a [u8],
}

/// The XOR of blocks of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair<'a> {
    /// The object it belongs to.
    pub session: Session,
    /// How the object is cut.
    pub shape: Shape,
    /// Of which generation.
    pub generation: u16,
    /// Which blocks: see [`super::coding::Cut::mix`]. Of small blocks below 65,536.
    pub named: u32,
    /// As long as a block of the shape.
    pub payload: &'a [u8],
}

/// The question what is lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The object.
    pub session: Session,
    /// If set, only who lacks something of this generation answers, whoever lacks most first.
    pub generation: Option<u16>,
    /// Answers are so far apart, in milliseconds.
    pub slot_ms: u8,
    asked: Asked<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Asked<'a> {
    Devices(&'a [DeviceId]),
    Read(&'a [u8]),
}

impl PartialEq for Asked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.tails().eq(other.tails())
    }
}

impl Eq for Asked<'_> {}

impl Asked<'_> {
    fn tails(&self) -> impl Iterator<Item = [u8; 2]> {
        let (devices, read): (&[DeviceId], &[u8]) = match self {
            Self::Devices(devices) => (devices, &[]),
            Self::Read(bytes) => (&[], bytes),
        };
        let read = read.as_chunks::<2>().0.iter().copied();
        devices.iter().map(|device| tail(*device)).chain(read)
    }
}

/// One frame of these types, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFrame<'a> {
    /// A block.
    Block(Block<'a>),
    /// A repair frame.
    Repair(Repair<'a>),
    /// A question.
    Ask(Ask<'a>),
}

/// Why bytes are not such a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// The frame ends too early.
    TooShort(TooShort),
    /// A lane version from the future.
    LaneVersion {
        /// What the frame says.
        found: u8,
    },
    /// None of the types of this module.
    Type {
        /// What the frame says.
        found: u8,
    },
    /// The payload is empty, or not as long as it may or must be.
    PayloadSize {
        /// Its size in bytes.
        found_bytes: usize,
        /// The most it may be, and what a repair frame's must be.
        block_bytes: usize,
    },
    /// A seed of small blocks that does not fit its two bytes.
    Seed {
        /// What was to be written.
        found: u32,
    },
    /// A question to more members than there can be, or to half of one.
    Asked {
        /// Bytes of the list.
        found_bytes: usize,
    },
    /// Not tagged by this group's key.
    BadTag,
    /// The buffer is too small for the frame.
    Full(Full),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(_) => write!(f, "block frame is cut short"),
            Self::LaneVersion { found } => {
                write!(
                    f,
                    "block frame has lane version {found}, this firmware knows {LANE_VERSION}"
                )
            }
            Self::Type { found } => write!(f, "block frame has unknown type {found:#04x}"),
            Self::PayloadSize { found_bytes, block_bytes } => {
                write!(f, "block frame carries {found_bytes} bytes of a block of {block_bytes}")
            }
            Self::Seed { found } => {
                write!(f, "repair frame has seed {found}, the largest is {}", u16::MAX)
            }
            Self::Asked { found_bytes } => {
                write!(f, "question names its members in {found_bytes} bytes")
            }
            Self::BadTag => write!(f, "block frame is not tagged by this group's key"),
            Self::Full(_) => write!(f, "block frame does not fit its buffer"),
        }
    }
}

impl core::error::Error for BlockError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::TooShort(cause) => Some(cause),
            Self::Full(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<TooShort> for BlockError {
    fn from(cause: TooShort) -> Self {
        Self::TooShort(cause)
    }
}

impl From<Full> for BlockError {
    fn from(cause: Full) -> Self {
        Self::Full(cause)
    }
}

impl<'a> Ask<'a> {
    /// A question to these members, who answer one after the other; the order is theirs. More than
    /// [`ASKED_MAX`] are refused when it is written.
    pub const fn new(
        session: Session,
        generation: Option<u16>,
        slot_ms: u8,
        devices: &'a [DeviceId],
    ) -> Self {
        Self { session, generation, slot_ms, asked: Asked::Devices(devices) }
    }

    /// After how many slots a device answers, if it is named.
    pub fn turn_of(&self, device: DeviceId) -> Option<usize> {
        let named = tail(device);
        self.asked.tails().position(|tail| tail == named)
    }
}

/// What a question names a device by.
const fn tail(device: DeviceId) -> [u8; 2] {
    let [.., last_but_one, last] = device.0;
    [last_but_one, last]
}

impl BlockFrame<'_> {
    /// Which object it is about.
    pub const fn session(&self) -> Session {
        match self {
            Self::Block(block) => block.session,
            Self::Repair(repair) => repair.session,
            Self::Ask(ask) => ask.session,
        }
    }

    /// Writes the frame into `buffer` and returns its length. What could not be read back is
    /// refused.
    pub fn encode(&self, key: &GroupKey, buffer: &mut [u8]) -> Result<usize, BlockError> {
        let mut writer = Writer::new(buffer);
        match self {
            Self::Block(block) => {
                check_block(block.payload, block.shape)?;
                head(&mut writer, BLOCK, block.session, flag_of(block.shape))?;
                writer.u16(block.index)?;
                writer.put(block.payload)?;
            }
            Self::Repair(repair) => {
                check_repair(repair.payload, repair.shape)?;
                head(&mut writer, REPAIR, repair.session, flag_of(repair.shape))?;
                writer.u16(repair.generation)?;
                match (repair.shape, u16::try_from(repair.named)) {
                    (Shape::Large, _) => writer.u32(repair.named)?,
                    (Shape::Small, Ok(seed)) => writer.u16(seed)?,
                    (Shape::Small, Err(_)) => {
                        return Err(BlockError::Seed { found: repair.named });
                    }
                }
                writer.put(repair.payload)?;
            }
            Self::Ask(ask) => {
                check_asked(ask.asked.tails().count() * 2)?;
                let flags = if ask.generation.is_some() { FLAG_LACKING } else { 0 };
                head(&mut writer, ASK, ask.session, flags)?;
                writer.u16(ask.generation.unwrap_or_default())?;
                writer.u8(ask.slot_ms)?;
                ask.asked.tails().try_for_each(|tail| writer.put(&tail))?;
            }
        }
        let tag: [u8; TAG_BYTES] = key.tag(writer.written());
        writer.put(&tag)?;
        Ok(writer.len_bytes())
    }
}

impl<'a> BlockFrame<'a> {
    /// Reads and authenticates a frame.
    pub fn decode(key: &GroupKey, frame: &'a [u8]) -> Result<Self, BlockError> {
        let error = TooShort { wanted_bytes: TAG_BYTES, left_bytes: frame.len() };
        let (signed, tag) = frame.split_last_chunk::<TAG_BYTES>().ok_or(error)?;
        let mut reader = Reader::new(signed);
        let kind = reader.u8()?;
        let found = reader.u8()?;
        if found != LANE_VERSION {
            return Err(BlockError::LaneVersion { found });
        }
        let session = Session(reader.u32()?);
        let flags = reader.u8()?;
        let shape = if flags & FLAG_LARGE == 0 { Shape::Small } else { Shape::Large };
        let place = reader.u16()?;
        let read = match kind {
            BLOCK => {
                let payload = reader.rest();
                check_block(payload, shape)?;
                Self::Block(Block { session, shape, index: place, payload })
            }
            REPAIR => {
                let named = match shape {
                    Shape::Small => reader.u16()?.into(),
                    Shape::Large => reader.u32()?,
                };
                let payload = reader.rest();
                check_repair(payload, shape)?;
                Self::Repair(Repair { session, shape, generation: place, named, payload })
            }
            ASK => {
                let slot_ms = reader.u8()?;
                let bytes = reader.rest();
                check_asked(bytes.len())?;
                let generation = (flags & FLAG_LACKING != 0).then_some(place);
                Self::Ask(Ask { session, generation, slot_ms, asked: Asked::Read(bytes) })
            }
            found => return Err(BlockError::Type { found }),
        };
        if key.is_tag_of(signed, tag) { Ok(read) } else { Err(BlockError::BadTag) }
    }
}

fn head(writer: &mut Writer<'_>, kind: u8, session: Session, flags: u8) -> Result<(), Full> {
    writer.u8(kind)?;
    writer.u8(LANE_VERSION)?;
    writer.u32(session.0)?;
    writer.u8(flags)
}

const fn flag_of(shape: Shape) -> u8 {
    match shape {
        Shape::Small => 0,
        Shape::Large => FLAG_LARGE,
    }
}

const fn check_block(payload: &[u8], shape: Shape) -> Result<(), BlockError> {
    let (found_bytes, block_bytes) = (payload.len(), shape.block_bytes() as usize);
    if found_bytes == 0 || found_bytes > block_bytes {
        return Err(BlockError::PayloadSize { found_bytes, block_bytes });
    }
    Ok(())
}

const fn check_repair(payload: &[u8], shape: Shape) -> Result<(), BlockError> {
    let (found_bytes, block_bytes) = (payload.len(), shape.block_bytes() as usize);
    if found_bytes != block_bytes {
        return Err(BlockError::PayloadSize { found_bytes, block_bytes });
    }
    Ok(())
}

const fn check_asked(found_bytes: usize) -> Result<(), BlockError> {
    if found_bytes > ASKED_MAX * 2 || !found_bytes.is_multiple_of(2) {
        return Err(BlockError::Asked { found_bytes });
    }
    Ok(())
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
