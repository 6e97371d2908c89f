//! Control frames: who says what to whom, authenticated by the group key, protected from replay.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | type `0x40` |
//! | 1 | 1 | lane version |
//! | 2 | 4 | group id |
//! | 6 | 6 | sender |
//! | 12 | 6 | addressee; `ff:ff:ff:ff:ff:ff` for all |
//! | 18 | 4 | sender's boot number |
//! | 22 | 4 | number of the frame within that boot |
//! | 26 | 1 | kind |
//! | 27 | n | body, see [`super::order`] and [`super::report`]; later versions append to it |
//! | end − 8 | 8 | HMAC-SHA-256 by the group key over all before it, truncated |
//!
//! The pair of boot and frame number only ever rises, since the boot number is durable. A receiver
//! that has just booted knows no sender's pair: it sends a [`Message::Challenge`] with a nonce and
//! obeys nobody before the answer. What it does with the pairs is in `lockstep-device`.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::order::{Order, Ticket};
use super::report::{Echo, Facts, Probe, Report, Wants};
use super::{FRAME_BYTES_MAX, LANE_VERSION};
use crate::id::{DeviceId, GroupId};
use crate::wire::{Full, Reader, TooShort, Writer};

/// Type byte of a control frame.
pub const CONTROL: u8 = 0x40;
const HEADER_BYTES: usize = 27;
const TAG_BYTES: usize = 8;

/// The secret that the devices of one group share, with what every frame needs of it: working that
/// out once saves three of the eight or so blocks that a frame would have hashed.
#[derive(Clone)]
pub struct GroupKey {
    bytes: [u8; 32],
    group: GroupId,
    mac: Hmac<Sha256>,
}

impl GroupKey {
    /// A key of 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(bytes).into();
        // HMAC pads a shorter key with zeros to one block of its hash, here 64 bytes.
        let mut block = [0; 64];
        block.iter_mut().zip(bytes).for_each(|(byte, key)| *byte = key);
        Self {
            bytes,
            group: GroupId(u32::from_le_bytes([a, b, c, d])),
            mac: <Hmac<Sha256> as KeyInit>::new(&block.into()),
        }
    }

    /// The secret itself, to be stored.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Which group this key opens.
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// The first `N` bytes (at most 32) of the HMAC over `bytes`.
    pub(crate) fn tag<const N: usize>(&self, bytes: &[u8]) -> [u8; N] {
        let full = self.mac(bytes).finalize().into_bytes();
        core::array::from_fn(|index| full.get(index).copied().unwrap_or_default())
    }

    /// Whether `tag` is the front part of the HMAC over `bytes`; takes the same time for any tag.
    pub(crate) fn is_tag_of(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.mac(bytes).verify_truncated_left(tag).is_ok()
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(bytes);
        mac
    }
}

impl PartialEq for GroupKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for GroupKey {}

/// Keys do not end up in logs.
impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupKey({:08x})", self.group().0)
    }
}

/// When a sender said something, by its own count. Rises from frame to frame and over reboots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Counter {
    /// The sender's durable boot number.
    pub boot: u32,
    /// The number of the frame within that boot.
    pub frame: u32,
}

/// What a control frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// "I do not know your counter; repeat this nonce." Accepted from anybody with the key.
    Challenge {
        /// Drawn by the challenger for this one exchange.
        nonce: u64,
    },
    /// The answer to a challenge; its counter becomes the sender's.
    ChallengeAnswer {
        /// The challenger's nonce.
        nonce: u64,
    },
    /// The lead's order to a member.
    Order(Ticket, Order),
    /// What a member is.
    Facts(Facts),
    /// What a member observes of itself.
    Report(Report),
    /// What a member lacks of an object.
    Wants(Wants),
    /// "Do you hear me?"
    Probe(Probe),
    /// "I hear you, and this is what I run."
    Echo(Echo),
    /// "Is the lead on this channel?" Accepted from anybody with the key.
    Seek {
        /// Drawn for this one question on this one channel.
        nonce: u64,
    },
    /// "I lead, and I am." Only a lead says so; the nonce makes it fresh.
    Here {
        /// The question's nonce.
        nonce: u64,
    },
}

impl Message {
    const fn kind(&self) -> u8 {
        match self {
            Self::Challenge { .. } => 0x01,
            Self::ChallengeAnswer { .. } => 0x02,
            Self::Order(_, order) => order.kind(),
            Self::Facts(_) => 0x20,
            Self::Report(_) => 0x21,
            Self::Wants(_) => 0x22,
            Self::Probe(_) => 0x30,
            Self::Echo(_) => 0x31,
            Self::Seek { .. } => 0x32,
            Self::Here { .. } => 0x33,
        }
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Self::Challenge { nonce }
            | Self::ChallengeAnswer { nonce }
            | Self::Seek { nonce }
            | Self::Here { nonce } => writer.u64(*nonce),
            Self::Order(ticket, order) => {
                ticket.put(writer)?;
                order.put(writer)
            }
            Self::Facts(facts) => facts.put(writer),
            Self::Report(report) => report.put(writer),
            Self::Wants(wants) => wants.put(writer),
            Self::Probe(probe) => probe.put(writer),
            Self::Echo(echo) => echo.put(writer),
        }
    }

    fn take(kind: u8, reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        Ok(match kind {
            0x01 => Self::Challenge { nonce: reader.u64()? },
            0x02 => Self::ChallengeAnswer { nonce: reader.u64()? },
            0x10..=0x1F => Self::Order(Ticket::take(reader)?, Order::take(kind, reader)?),
            0x20 => Self::Facts(Facts::take(reader)?),
            0x21 => Self::Report(Report::take(reader)?),
            0x22 => Self::Wants(Wants::take(reader)?),
            0x30 => Self::Probe(Probe::take(reader)?),
            0x31 => Self::Echo(Echo::take(reader)?),
            0x32 => Self::Seek { nonce: reader.u64()? },
            0x33 => Self::Here { nonce: reader.u64()? },
            found => return Err(ControlError::Kind { found }),
        })
    }
}

/// One control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFrame {
    /// Who says it.
    pub from: DeviceId,
    /// To whom; [`DeviceId::BROADCAST`] for all.
    pub to: DeviceId,
    /// When, by the sender's count.
    pub counter: Counter,
    /// What.
    pub message: Message,
}

/// Why bytes are not a control frame of this group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlError {
    /// The frame or a field in it ends too early.
    TooShort(TooShort),
    /// A lane version from the future.
    LaneVersion {
        /// What the frame says.
        found: u8,
    },
    /// Another group's frame: not an error of anybody, only not for us.
    OtherGroup {
        /// The group that the frame names.
        found: GroupId,
    },
    /// Not authenticated by this group's key.
    BadTag,
    /// A kind that this firmware does not know.
    Kind {
        /// What the frame says.
        found: u8,
    },
    /// A field has a value that it cannot have.
    Field {
        /// The field's name.
        field: &'static str,
        /// What the frame says.
        found: u32,
    },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(_) => write!(f, "control frame is cut short"),
            Self::LaneVersion { found } => {
                write!(
                    f,
                    "control frame has lane version {found}, this firmware knows {LANE_VERSION}"
                )
            }
            Self::OtherGroup { found } => write!(f, "control frame is for group {:08x}", found.0),
            Self::BadTag => write!(f, "control frame is not authenticated by this group's key"),
            Self::Kind { found } => write!(f, "control frame has unknown kind {found:#04x}"),
            Self::Field { field, found } => {
                write!(f, "control frame has impossible `{field}` {found}")
            }
        }
    }
}

impl core::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::TooShort(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<TooShort> for ControlError {
    fn from(cause: TooShort) -> Self {
        Self::TooShort(cause)
    }
}

impl ControlFrame {
    /// Writes the frame into `buffer` and returns its length. Fails only if the body does not fit,
    /// which the golden tests exclude for every kind.
    pub fn encode(
        &self,
        key: &GroupKey,
        buffer: &mut [u8; FRAME_BYTES_MAX],
    ) -> Result<usize, Full> {
        let mut writer = Writer::new(buffer);
        writer.u8(CONTROL)?;
        writer.u8(LANE_VERSION)?;
        writer.u32(key.group().0)?;
        writer.put(&self.from.0)?;
        writer.put(&self.to.0)?;
        writer.u32(self.counter.boot)?;
        writer.u32(self.counter.frame)?;
        writer.u8(self.message.kind())?;
        self.message.put(&mut writer)?;
        let tag: [u8; TAG_BYTES] = key.tag(writer.written());
        writer.put(&tag)?;
        Ok(writer.len_bytes())
    }

    /// Reads and authenticates a frame whose type byte is [`CONTROL`]. Nothing of the body is
    /// looked at before the tag has been found right.
    pub fn decode(key: &GroupKey, frame: &[u8]) -> Result<Self, ControlError> {
        let wanted_bytes = HEADER_BYTES + TAG_BYTES;
        let error = TooShort { wanted_bytes, left_bytes: frame.len() };
        let (signed, tag) = frame.split_last_chunk::<TAG_BYTES>().ok_or(error)?;
        let mut reader = Reader::new(signed);
        reader.u8()?;
        let found = reader.u8()?;
        if found != LANE_VERSION {
            return Err(ControlError::LaneVersion { found });
        }
        let found = GroupId(reader.u32()?);
        if found != key.group() {
            return Err(ControlError::OtherGroup { found });
        }
        if !key.is_tag_of(signed, tag) {
            return Err(ControlError::BadTag);
        }
        let from = DeviceId(reader.array()?);
        let to = DeviceId(reader.array()?);
        let counter = Counter { boot: reader.u32()?, frame: reader.u32()? };
        let kind = reader.u8()?;
        Ok(Self { from, to, counter, message: Message::take(kind, &mut reader)? })
    }
}
