//! Adoption frames: how a device that does not know a group's key is given it over the air, by
//! somebody who knows that device's password.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | type `0x60` |
//! | 1 | 1 | lane version |
//! | 2 | 6 | sender |
//! | 8 | 6 | addressee |
//! | 14 | 8 | session: drawn by the lead for one try |
//! | 22 | 1 | kind |
//! | 23 | n | body; later versions append to it |
//!
//! ```text
//! lead                                         device
//!   │ Ask ────────────────────────────────────►  │
//!   │  ◄─── Terms: salt, rounds, element of SPAKE2
//!   │ Key: element, sealed group key, tag ────►  │  right password? store, then answer
//!   │  ◄──────────────────────────── Taken: tag  │
//! ```
//!
//! Nothing here is authenticated by a group key: the two have none in common yet. SPAKE2 proves to
//! each that the other knows the password, and tells nobody who listens anything about it. Who does
//! the sums is `lockstep_device::adopt`.

use core::fmt;

use super::LANE_VERSION;
use crate::id::DeviceId;
use crate::wire::{Full, Reader, TooShort, Writer};

/// Type byte of an adoption frame.
pub const ADOPT: u8 = 0x60;
/// A message of SPAKE2: which side, and a point of edwards25519.
pub const ELEMENT_BYTES: usize = 33;
/// What proves that the sender has come to the same secret.
pub const PROOF_BYTES: usize = 16;

/// One adoption frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptFrame {
    /// Who says it.
    pub from: DeviceId,
    /// To whom.
    pub to: DeviceId,
    /// Which try it belongs to.
    pub session: u64,
    /// What.
    pub message: AdoptMessage,
}

/// What an adoption frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptMessage {
    /// "On what terms may I give you a key?"
    Ask,
    /// How the device keeps its password, and its half of the exchange.
    Terms {
        /// Salt of the password.
        salt: [u8; 16],
        /// Rounds of its hash.
        rounds: u32,
        /// The device's message of SPAKE2.
        element: [u8; ELEMENT_BYTES],
    },
    /// The lead's half, and the group's key for whoever can open it.
    Key {
        /// The lead's message of SPAKE2.
        element: [u8; ELEMENT_BYTES],
        /// The group's key, encrypted by what the exchange came to.
        sealed: [u8; 32],
        /// The lead's proof, over all fields before it.
        proof: [u8; PROOF_BYTES],
    },
    /// The key is stored, durably.
    Taken {
        /// The device's proof.
        proof: [u8; PROOF_BYTES],
    },
    /// It does not come to that.
    Refused(NotAdopted),
}

/// Why a device takes no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdopted {
    /// It has no password, so nobody can prove to be allowed to.
    NoPassword,
    /// The lead does not know its password.
    WrongPassword,
    /// Too many wrong passwords in this boot.
    TooManyTries,
    /// A rollout of its present group is open on it.
    InRollout,
    /// It leads a group itself.
    Leads,
    /// It could not store the key.
    Storage,
    /// A reason of a later version.
    Other(u8),
}

impl NotAdopted {
    const fn number(self) -> u8 {
        match self {
            Self::NoPassword => 1,
            Self::WrongPassword => 2,
            Self::TooManyTries => 3,
            Self::InRollout => 4,
            Self::Leads => 5,
            Self::Storage => 6,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::NoPassword,
            2 => Self::WrongPassword,
            3 => Self::TooManyTries,
            4 => Self::InRollout,
            5 => Self::Leads,
            6 => Self::Storage,
            number => Self::Other(number),
        }
    }
}

impl fmt::Display for NotAdopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPassword => write!(f, "it has no password yet"),
            Self::WrongPassword => write!(f, "the password is not its password"),
            Self::TooManyTries => {
                write!(f, "it has heard too many wrong passwords since it booted")
            }
            Self::InRollout => write!(f, "a rollout of its present group is open on it"),
            Self::Leads => write!(f, "it leads a group itself"),
            Self::Storage => write!(f, "it could not write its flash"),
            Self::Other(number) => write!(f, "it gives reason {number}, of a later version"),
        }
    }
}

impl AdoptMessage {
    const fn kind(&self) -> u8 {
        match self {
            Self::Ask => 1,
            Self::Terms { .. } => 2,
            Self::Key { .. } => 3,
            Self::Taken { .. } => 4,
            Self::Refused(_) => 5,
        }
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Self::Ask => Ok(()),
            Self::Terms { salt, rounds, element } => {
                writer.put(salt)?;
                writer.u32(*rounds)?;
                writer.put(element)
            }
            Self::Key { element, sealed, proof } => {
                writer.put(element)?;
                writer.put(sealed)?;
                writer.put(proof)
            }
            Self::Taken { proof } => writer.put(proof),
            Self::Refused(why) => writer.u8(why.number()),
        }
    }

    fn take(kind: u8, reader: &mut Reader<'_>) -> Result<Self, AdoptError> {
        Ok(match kind {
            1 => Self::Ask,
            2 => Self::Terms {
                salt: reader.array()?,
                rounds: reader.u32()?,
                element: reader.array()?,
            },
            3 => Self::Key {
                element: reader.array()?,
                sealed: reader.array()?,
                proof: reader.array()?,
            },
            4 => Self::Taken { proof: reader.array()? },
            5 => Self::Refused(NotAdopted::from_number(reader.u8()?)),
            found => return Err(AdoptError::Kind { found }),
        })
    }
}

/// Why bytes are not an adoption frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptError {
    /// The frame ends too early.
    TooShort(TooShort),
    /// A lane version from the future.
    LaneVersion {
        /// What the frame says.
        found: u8,
    },
    /// A kind that this firmware does not know.
    Kind {
        /// What the frame says.
        found: u8,
    },
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(_) => write!(f, "adoption frame is cut short"),
            Self::LaneVersion { found } => write!(
                f,
                "adoption frame has lane version {found}, this firmware knows {LANE_VERSION}"
            ),
            Self::Kind { found } => write!(f, "adoption frame has unknown kind {found:#04x}"),
        }
    }
}

impl core::error::Error for AdoptError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::TooShort(cause) => Some(cause),
            Self::LaneVersion { .. } | Self::Kind { .. } => None,
        }
    }
}

impl From<TooShort> for AdoptError {
    fn from(cause: TooShort) -> Self {
        Self::TooShort(cause)
    }
}

impl AdoptFrame {
    /// Writes the frame into `buffer` and returns its length.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(buffer);
        writer.u8(ADOPT)?;
        writer.u8(LANE_VERSION)?;
        writer.put(&self.from.0)?;
        writer.put(&self.to.0)?;
        writer.u64(self.session)?;
        writer.u8(self.message.kind())?;
        self.message.put(&mut writer)?;
        Ok(writer.len_bytes())
    }

    /// Reads a frame whose type byte is [`ADOPT`].
    pub fn decode(frame: &[u8]) -> Result<Self, AdoptError> {
        let mut reader = Reader::new(frame);
        reader.u8()?;
        let found = reader.u8()?;
        if found != LANE_VERSION {
            return Err(AdoptError::LaneVersion { found });
        }
        let from = DeviceId(reader.array()?);
        let to = DeviceId(reader.array()?);
        let session = reader.u64()?;
        let kind = reader.u8()?;
        Ok(Self { from, to, session, message: AdoptMessage::take(kind, &mut reader)? })
    }
}
