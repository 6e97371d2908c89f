//! Orders: what the lead tells a member to do.
//!
//! Every order is compare-and-set: it names the rollout, its generation, the attempt and the image
//! it is about; a member refuses what does not fit its state. Numbers are append-only, later
//! versions append fields.

use super::control::ControlError;
use crate::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use crate::wire::{Full, Reader, TooShort, Writer};

/// Which try of which rollout an order or an answer belongs to. 15 bytes on the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticket {
    /// The rollout.
    pub rollout: RolloutId,
    /// Its place in the group's sequence of rollouts.
    pub generation: Generation,
    /// The activation this is about, from 1; 0 before any. A member accepts each once.
    pub attempt: u8,
}

impl Ticket {
    /// Bytes of a ticket in frames and records.
    pub const LEN_BYTES: usize = 15;

    /// Writes rollout, term, counter, attempt.
    pub fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.u64(self.rollout.0)?;
        writer.u16(self.generation.term)?;
        writer.u32(self.generation.counter)?;
        writer.u8(self.attempt)
    }

    /// Reads what [`Ticket::put`] wrote.
    pub fn take(reader: &mut Reader<'_>) -> Result<Self, TooShort> {
        Ok(Self {
            rollout: RolloutId(reader.u64()?),
            generation: Generation { term: reader.u16()?, counter: reader.u32()? },
            attempt: reader.u8()?,
        })
    }
}

/// What an `Inspect` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// A report.
    Report,
    /// Facts, then a report.
    Facts,
}

/// Where the image to be staged comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Blocks over the link (or the lead's own upload), described by a manifest that the member
    /// fetches and verifies first.
    Blocks,
    /// The member's other slot already holds it: a return to what it ran before. No manifest.
    OtherSlot,
}

/// How long a member protects itself on its own, in milliseconds of its time since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A trial ends when no frame of this rollout came for so long. Longer than two boots of the
    /// lead and a channel scan.
    pub lease_ms: u32,
    /// A trial ends when the member was not healthy within this, whatever the lead says.
    pub trial_limit_ms: u32,
    /// The application is released from rest when no frame of this rollout came for so long.
    pub rest_lease_ms: u32,
}

/// What to stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The image, by hash.
    pub image: ImageHash,
    /// Size of the artifact file in bytes; 0 with [`Source::OtherSlot`].
    pub size_bytes: u32,
    /// SHA-256 of the manifest package that covers it; zeros with [`Source::OtherSlot`].
    pub package: Sha256,
    /// Size of that package in bytes; 0 with [`Source::OtherSlot`].
    pub package_size_bytes: u16,
    /// Where it comes from.
    pub source: Source,
    /// Leases of this rollout.
    pub terms: Terms,
    /// Who sends the blocks of the image, from its running slot; `None`: the lead. Appended;
    /// whoever does not know it asks the lead in vain.
    pub sender: Option<DeviceId>,
}

/// What a member of the same role is to send to those that lack it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serve {
    /// The image, by hash; the member must run it.
    pub image: ImageHash,
    /// Size of the artifact file in bytes.
    pub size_bytes: u32,
    /// How many members lack it.
    pub receivers: u8,
}

/// A patch that a member may make its image from, so that it need not fetch all of it. 100 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The image that comes out, by hash: what the member was told to stage.
    pub image: ImageHash,
    /// The image that it is applied to; `None`: the whole image, compressed. On the wire zeros.
    pub base: Option<ImageHash>,
    /// SHA-256 of the patch's header, by which the patch is known and travels.
    pub patch: Sha256,
    /// Size of the patch in bytes, its header included.
    pub size_bytes: u32,
}

/// Stands for "applied to nothing"; no image has this hash.
const NO_BASE: ImageHash = ImageHash([0; 32]);

impl Offer {
    /// The number of [`Order::Offer`] on the wire.
    pub const KIND: u8 = 0x1A;
}

/// What the lead tells a member to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Say what you are and what you observe. Renews leases, changes nothing.
    Inspect(Detail),
    /// Bring this image into the other slot and verify it there.
    Stage(Stage),
    /// Ask the application to stop what a reboot would hurt.
    Rest,
    /// Hash the slot again and wait for [`Order::Fire`].
    Arm {
        /// The staged image.
        image: ImageHash,
        /// What must run now.
        running: ImageHash,
    },
    /// Activate in so many milliseconds. Repeated with a falling countdown.
    Fire {
        /// The group's rollout is told apart by the ticket; 0 to 60,000.
        in_ms: u16,
    },
    /// Boot the staged image on trial, now.
    Activate {
        /// The staged image.
        image: ImageHash,
        /// What must run now.
        running: ImageHash,
    },
    /// Make the running trial permanent.
    Confirm {
        /// What must run now.
        image: ImageHash,
    },
    /// Go back, or stay on, what ran before this rollout.
    Revert,
    /// Everybody has kept the release, so that no repair of this rollout can come any more: what
    /// bars the way back may be done.
    Settled,
    /// Send the running image to members that ask for it. Repeated as long as it is needed; changes
    /// nothing else.
    Serve(Serve),
    /// Stage from this patch, if it fits: it is what can be fetched now. Repeated as long as the
    /// lead has it; who does not know it, or cannot use it, gets the whole image.
    Offer(Offer),
}

impl Order {
    /// The number on the wire. Append, never renumber.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Inspect(_) => 0x10,
            Self::Stage(_) => 0x11,
            Self::Rest => 0x12,
            Self::Arm { .. } => 0x13,
            Self::Fire { .. } => 0x14,
            Self::Activate { .. } => 0x15,
            Self::Confirm { .. } => 0x16,
            Self::Revert => 0x17,
            Self::Settled => 0x18,
            Self::Serve(_) => 0x19,
            Self::Offer(_) => Offer::KIND,
        }
    }

    pub(super) fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Self::Inspect(detail) => writer.u8(u8::from(*detail == Detail::Facts)),
            Self::Stage(stage) => stage.put(writer),
            Self::Rest | Self::Revert | Self::Settled => Ok(()),
            Self::Arm { image, running } | Self::Activate { image, running } => {
                writer.put(&image.0)?;
                writer.put(&running.0)
            }
            Self::Fire { in_ms } => writer.u16(*in_ms),
            Self::Confirm { image } => writer.put(&image.0),
            Self::Serve(serve) => {
                writer.put(&serve.image.0)?;
                writer.u32(serve.size_bytes)?;
                writer.u8(serve.receivers)
            }
            Self::Offer(offer) => {
                writer.put(&offer.image.0)?;
                writer.put(&offer.base.unwrap_or(NO_BASE).0)?;
                writer.put(&offer.patch.0)?;
                writer.u32(offer.size_bytes)
            }
        }
    }

    pub(super) fn take(kind: u8, reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        Ok(match kind {
            0x10 => Self::Inspect(match reader.u8()? {
                0 => Detail::Report,
                _ => Detail::Facts,
            }),
            0x11 => Self::Stage(Stage::take(reader)?),
            0x12 => Self::Rest,
            0x13 => {
                Self::Arm { image: ImageHash(reader.array()?), running: ImageHash(reader.array()?) }
            }
            0x14 => Self::Fire { in_ms: reader.u16()? },
            0x15 => Self::Activate {
                image: ImageHash(reader.array()?),
                running: ImageHash(reader.array()?),
            },
            0x16 => Self::Confirm { image: ImageHash(reader.array()?) },
            0x17 => Self::Revert,
            0x18 => Self::Settled,
            0x19 => Self::Serve(Serve {
                image: ImageHash(reader.array()?),
                size_bytes: reader.u32()?,
                receivers: reader.u8()?,
            }),
            0x1A => Self::Offer(Offer {
                image: ImageHash(reader.array()?),
                base: Some(ImageHash(reader.array()?)).filter(|base| *base != NO_BASE),
                patch: Sha256(reader.array()?),
                size_bytes: reader.u32()?,
            }),
            found => return Err(ControlError::Kind { found }),
        })
    }
}

impl Stage {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put(&self.image.0)?;
        writer.u32(self.size_bytes)?;
        writer.put(&self.package.0)?;
        writer.u16(self.package_size_bytes)?;
        writer.u8(match self.source {
            Source::Blocks => 0,
            Source::OtherSlot => 1,
        })?;
        self.terms.put(writer)?;
        self.sender.map_or(Ok(()), |sender| writer.put(&sender.0))
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        Ok(Self {
            image: ImageHash(reader.array()?),
            size_bytes: reader.u32()?,
            package: Sha256(reader.array()?),
            package_size_bytes: reader.u16()?,
            source: match reader.u8()? {
                0 => Source::Blocks,
                1 => Source::OtherSlot,
                found => {
                    return Err(ControlError::Field { field: "source", found: found.into() });
                }
            },
            terms: Terms::take(reader)?,
            sender: reader.array().ok().map(DeviceId),
        })
    }
}

impl Terms {
    /// Writes 12 bytes: lease, trial limit, rest lease.
    pub fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.u32(self.lease_ms)?;
        writer.u32(self.trial_limit_ms)?;
        writer.u32(self.rest_lease_ms)
    }

    /// Reads what [`Terms::put`] wrote.
    pub fn take(reader: &mut Reader<'_>) -> Result<Self, TooShort> {
        Ok(Self {
            lease_ms: reader.u32()?,
            trial_limit_ms: reader.u32()?,
            rest_lease_ms: reader.u32()?,
        })
    }
}
