//! Answers: what a member is ([`Facts`]), what it observes of itself ([`Report`]), what it lacks of
//! an object ([`Wants`]), and the probes by which devices know that a link carries data both ways.
//!
//! Answers say what is observed now, never what a record remembers; the record is reported as
//! such ([`Report::ticket`], [`Report::state`]) so that the lead can tell "fell back" from "has not
//! activated yet". Numbers are append-only, later versions append fields.

use super::control::ControlError;
use super::order::Ticket;
pub use super::refusal::{Refusal, Refused};
use crate::compat::Announced;
use crate::id::{Generation, ImageHash};
use crate::image::{ChipId, Guard};
use crate::otadata::OtaState;
use crate::version::ProtocolRange;
use crate::wire::{Board, Full, Label, Reader, Role, Writer};

mod wants;

pub use wants::{Lacking, MAPS_MAX, Readiness, Wants};

/// How a device can go back by itself when a trial image fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rollback {
    /// Not at all: a failed image stays.
    None,
    /// Our own code counts trial boots; it cannot save an image that dies before it runs.
    Agent,
    /// The bootloader marks and aborts a trial: any reset goes back.
    Bootloader,
}

impl Rollback {
    /// The word that pages, the API and messages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Agent => "agent",
            Self::Bootloader => "bootloader",
        }
    }
}

/// What a device is: hardware, limits, and what its firmware says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What it is for.
    pub role: Role,
    /// Its chip.
    pub chip: ChipId,
    /// Its board.
    pub board: Board,
    /// Size of the smaller slot in bytes.
    pub slot_size_bytes: u32,
    /// What catches a failed trial.
    pub rollback: Rollback,
    /// Version, minimum and protocol range of the running firmware.
    pub announced: Announced,
    /// Releases below this epoch are refused.
    pub epoch_floor: u32,
    /// Layout version of the application's configuration.
    pub config_schema: u16,
    /// Free heap in bytes.
    pub free_heap_bytes: u32,
    /// Share of probes without an echo lately, in percent.
    pub link_loss_percent: u8,
    /// Flash mode, speed and size of the running image: bytes 2 and 3 of its header.
    pub flash_mode: [u8; 2],
    /// Whether a release needs a signature here: number of installed keys, 0 for "trusts anybody".
    pub keys: u8,
    /// The highest generation that this device has taken part in.
    pub generation: Generation,
    /// What runs.
    pub running: ImageHash,
    /// What the other slot holds, if it is a whole image; zeros if not.
    pub other: ImageHash,
    /// What guards the running image. Firmware that does not say it has nothing of it.
    pub guard: Guard,
}

/// Where a member's record stands. The record says what was begun, not what is true now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// No rollout has ever asked anything.
    Idle,
    /// Bytes are on their way into the other slot.
    Staging,
    /// The other slot holds the image, read back and verified.
    Staged,
    /// An activation was accepted; from here the boot state decides.
    Activating,
    /// A confirmation was accepted: the running entry is being made VALID.
    Confirming,
    /// Confirmed.
    Kept,
    /// Reverted, or never activated.
    Reverted,
}

impl MemberState {
    /// The number on the wire and in records. Append, never renumber.
    pub const fn code(self) -> u8 {
        match self {
            Self::Idle => 0,
            Self::Staging => 1,
            Self::Staged => 2,
            Self::Activating => 3,
            Self::Confirming => 4,
            Self::Kept => 5,
            Self::Reverted => 6,
        }
    }

    /// The state with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Idle,
            1 => Self::Staging,
            2 => Self::Staged,
            3 => Self::Activating,
            4 => Self::Confirming,
            5 => Self::Kept,
            6 => Self::Reverted,
            _ => return None,
        })
    }

    /// The word that pages, the API and messages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Staging => "staging",
            Self::Staged => "staged",
            Self::Activating => "activating",
            Self::Confirming => "confirming",
            Self::Kept => "kept",
            Self::Reverted => "reverted",
        }
    }
}

/// Yes-or-no observations of a report, packed into 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// Runs an image that is activated and not confirmed.
    pub on_trial: bool,
    /// Own checks pass, and the link to every peer that runs the new release carries data both
    /// ways.
    pub healthy: bool,
    /// The application is at rest now.
    pub at_rest: bool,
    /// Armed for this ticket's attempt.
    pub armed: bool,
    /// The application has answered "not now" to the present request.
    pub not_now: bool,
    /// The other slot holds the image of the record, verified in this boot or before.
    pub staged: bool,
    /// The otadata entry of the other slot would boot next: activated, not booted yet.
    pub activated: bool,
    /// The lead has said that everybody has kept the rollout of the record.
    pub settled: bool,
}

impl Observed {
    fn bits(self) -> u16 {
        [
            self.on_trial,
            self.healthy,
            self.at_rest,
            self.armed,
            self.not_now,
            self.staged,
            self.activated,
            self.settled,
        ]
        .iter()
        .enumerate()
        .fold(0, |bits, (index, &flag)| bits | u16::from(flag) << index)
    }

    const fn from_bits(bits: u16) -> Self {
        Self {
            on_trial: bits & 1 != 0,
            healthy: bits & 2 != 0,
            at_rest: bits & 4 != 0,
            armed: bits & 8 != 0,
            not_now: bits & 16 != 0,
            staged: bits & 32 != 0,
            activated: bits & 64 != 0,
            settled: bits & 128 != 0,
        }
    }
}

/// What a member observes of itself, and where its record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The ticket in the member's record: rollout, generation, last accepted attempt.
    pub ticket: Ticket,
    /// Where the record stands.
    pub state: MemberState,
    /// What was refused last, if the last order (other than `Inspect`) was: an order that succeeds
    /// clears it, and work that fails later (a slot that reads back wrong) sets it as well.
    pub refused: Option<Refused>,
    /// What runs.
    pub running: ImageHash,
    /// What the other slot holds, if it is a whole image; zeros if not.
    pub other: ImageHash,
    /// State of the running slot's otadata entry.
    pub ota_state: OtaState,
    /// The observations.
    pub observed: Observed,
    /// Bytes of the present object that are in flash.
    pub staged_bytes: u32,
    /// Peers to which the link carries data both ways now.
    pub linked: u8,
    /// Which image each of them runs, this device included: see [`View`].
    pub view: View,
    /// Seconds until this trial ends by itself; 0 when not on trial.
    pub trial_left_s: u16,
    /// Why this device booted last: the number of `esp_reset_reason_t`.
    pub reset_reason: u8,
}

/// A short digest of "who runs what", by which a lead sees that a report names the images of all
/// its peers, for any number of them: SHA-256, truncated, over the sorted pairs of device id (6)
/// and image hash (32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View(pub [u8; 8]);

impl View {
    /// The view of these pairs, which must be sorted by device id.
    pub fn of(pairs: impl IntoIterator<Item = (crate::id::DeviceId, ImageHash)>) -> Self {
        use sha2::Digest;
        let mut digest = sha2::Sha256::new();
        for (device, image) in pairs {
            digest.update(device.0);
            digest.update(image.0);
        }
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = digest.finalize().into();
        Self([a, b, c, d, e, f, g, h])
    }
}

/// "Do you hear me?" Sent to all, answered by [`Echo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Repeated by the echo.
    pub nonce: u32,
    /// The sender's role.
    pub role: Role,
    /// What the sender runs.
    pub running: ImageHash,
}

/// "I hear you, and this is what I run."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The probe's nonce.
    pub nonce: u32,
    /// The sender's role.
    pub role: Role,
    /// What the sender runs.
    pub running: ImageHash,
}

fn take_label<const N: usize>(
    field: &'static str,
    reader: &mut Reader<'_>,
) -> Result<Label<N>, ControlError> {
    Label::from_bytes(reader.array()?).ok_or(ControlError::Field { field, found: 0 })
}

impl Facts {
    pub(super) fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put(self.role.bytes())?;
        writer.u16(self.chip.0)?;
        writer.put(self.board.bytes())?;
        writer.u32(self.slot_size_bytes)?;
        writer.u8(match self.rollback {
            Rollback::None => 0,
            Rollback::Agent => 1,
            Rollback::Bootloader => 2,
        })?;
        writer.u32(self.announced.number)?;
        writer.u32(self.announced.min_compatible)?;
        writer.u8(self.announced.protocol.min())?;
        writer.u8(self.announced.protocol.max())?;
        writer.u32(self.epoch_floor)?;
        writer.u16(self.config_schema)?;
        writer.u32(self.free_heap_bytes)?;
        writer.u8(self.link_loss_percent)?;
        writer.put(&self.flash_mode)?;
        writer.u8(self.keys)?;
        writer.u16(self.generation.term)?;
        writer.u32(self.generation.counter)?;
        writer.put(&self.running.0)?;
        writer.put(&self.other.0)?;
        writer.u32(self.guard.secure_version)?;
        writer.u8(u8::from(self.guard.is_signed))
    }

    pub(super) fn take(reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        Ok(Self {
            role: take_label("role", reader)?,
            chip: ChipId(reader.u16()?),
            board: take_label("board", reader)?,
            slot_size_bytes: reader.u32()?,
            rollback: match reader.u8()? {
                1 => Rollback::Agent,
                2 => Rollback::Bootloader,
                // A later version's kind is not one that this lead can rely on.
                _ => Rollback::None,
            },
            announced: Announced {
                number: reader.u32()?,
                min_compatible: reader.u32()?,
                protocol: take_range(reader)?,
            },
            epoch_floor: reader.u32()?,
            config_schema: reader.u16()?,
            free_heap_bytes: reader.u32()?,
            link_loss_percent: reader.u8()?,
            flash_mode: reader.array()?,
            keys: reader.u8()?,
            generation: Generation { term: reader.u16()?, counter: reader.u32()? },
            running: ImageHash(reader.array()?),
            other: ImageHash(reader.array()?),
            guard: take_guard(reader).unwrap_or_default(),
        })
    }
}

/// Appended later: older firmware ends before it. Half of it is none, never a mixture.
fn take_guard(reader: &mut Reader<'_>) -> Option<Guard> {
    let (secure_version, is_signed) = (reader.u32().ok()?, reader.u8().ok()?);
    Some(Guard { secure_version, is_signed: is_signed != 0 })
}

fn take_range(reader: &mut Reader<'_>) -> Result<ProtocolRange, ControlError> {
    let (min, max) = (reader.u8()?, reader.u8()?);
    ProtocolRange::new(min, max)
        .map_err(|_| ControlError::Field { field: "protocol_range", found: min.into() })
}

impl Report {
    pub(super) fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        self.ticket.put(writer)?;
        writer.u8(self.state.code())?;
        let (code, a, b) = self.refused.map_or((0, 0, 0), |refused| refused.why.to_wire());
        let (rollout, order) =
            self.refused.map_or((0, 0), |refused| (refused.rollout, refused.order));
        writer.u32(rollout)?;
        writer.u8(order)?;
        writer.u16(code)?;
        writer.u32(a)?;
        writer.u32(b)?;
        writer.put(&self.running.0)?;
        writer.put(&self.other.0)?;
        writer.u32(self.ota_state.number())?;
        writer.u16(self.observed.bits())?;
        writer.u32(self.staged_bytes)?;
        writer.u8(self.linked)?;
        writer.put(&self.view.0)?;
        writer.u16(self.trial_left_s)?;
        writer.u8(self.reset_reason)
    }

    pub(super) fn take(reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        let ticket = Ticket::take(reader)?;
        let found = reader.u8()?;
        let state = MemberState::from_code(found)
            .ok_or(ControlError::Field { field: "state", found: found.into() })?;
        let (rollout, order) = (reader.u32()?, reader.u8()?);
        let (code, a, b) = (reader.u16()?, reader.u32()?, reader.u32()?);
        // A later version's reason is a reason too: the rest of the report must not be lost for it.
        let why = Refusal::from_wire(code, a, b).unwrap_or(Refusal::Unlisted { number: code });
        let refused = (code != 0).then_some(Refused { rollout, order, why });
        Ok(Self {
            ticket,
            state,
            refused,
            running: ImageHash(reader.array()?),
            other: ImageHash(reader.array()?),
            ota_state: OtaState::from_number(reader.u32()?),
            observed: Observed::from_bits(reader.u16()?),
            staged_bytes: reader.u32()?,
            linked: reader.u8()?,
            view: View(reader.array()?),
            trial_left_s: reader.u16()?,
            reset_reason: reader.u8()?,
        })
    }
}

impl Probe {
    pub(super) fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.u32(self.nonce)?;
        writer.put(self.role.bytes())?;
        writer.put(&self.running.0)
    }

    pub(super) fn take(reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        Ok(Self {
            nonce: reader.u32()?,
            role: take_label("role", reader)?,
            running: ImageHash(reader.array()?),
        })
    }
}

impl Echo {
    pub(super) fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let Self { nonce, role, running } = *self;
        Probe { nonce, role, running }.put(writer)
    }

    pub(super) fn take(reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        let Probe { nonce, role, running } = Probe::take(reader)?;
        Ok(Self { nonce, role, running })
    }
}
