//! Why a member did not do what an order said: numbers that devices in the field already say, each
//! with its two values and its text.

use core::fmt;

use super::order::Order;
use crate::id::RolloutId;
use crate::image::ChipId;

/// Why a member did not do what an order said. `a` and `b` of the wire form hold both values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are the two values that the text names")]
pub enum Refusal {
    /// The order is of an older generation than this member has seen.
    StaleGeneration { offered: u32, known: u32 },
    /// The order is of another rollout than the one in this member's record.
    OtherRollout { offered: u32, known: u32 },
    /// Nothing verified is in the other slot.
    NotStaged,
    /// The application is not at rest now.
    NotAtRest,
    /// Another image runs than the order expects (first four bytes of each hash).
    OtherRunning { running: u32, expected: u32 },
    /// This device is on trial.
    OnTrial,
    /// The image is for another chip.
    WrongChip { image: u32, device: u32 },
    /// The manifest or the image names another role.
    WrongRole,
    /// The manifest or the image names another board.
    WrongBoard,
    /// The image does not fit the slot.
    TooLarge { size_bytes: u32, slot_bytes: u32 },
    /// The manifest's signatures do not satisfy this device's keys.
    Untrusted { good: u32, needed: u32 },
    /// The release's epoch is below the device's floor.
    EpochTooLow { offered: u32, floor: u32 },
    /// What was read back from the slot is not what the manifest names (first four bytes of each).
    SlotDiffers { found: u32, expected: u32 },
    /// This attempt, or a later one, was accepted before.
    AttemptSpent { offered: u32, spent: u32 },
    /// Not healthy in this boot.
    NotHealthy,
    /// The manifest cannot be read, or does not name this role's image.
    BadManifest,
    /// The application does not come to rest.
    NotNow,
    /// The flash did not do what it was told (operation, offset).
    FlashFailed { operation: u32, offset: u32 },
    /// The other slot does not hold the image to return to.
    NoWayBack { found: u32, expected: u32 },
    /// The bytes are not an image for this device (offset at which that was seen).
    NotAnImage { offset: u32 },
    /// Confirmed for good: only a new rollout can reverse it.
    AlreadyKept,
    /// The patch is for another image than the one that runs (first four bytes of each).
    OtherBase { running: u32, base: u32 },
    /// The patch needs a larger slot than this device has.
    PatchNoRoom { needed_bytes: u32, slot_bytes: u32 },
    /// Less of the image is missing than the patch has bytes.
    PatchNotNeeded { patch_bytes: u32, missing_bytes: u32 },
    /// The patch is not one that this firmware can apply, or is broken (about where).
    PatchBroken { offset: u32 },
    /// What came of the patch is not what was to come (first four bytes of each).
    PatchDiffers { found: u32, expected: u32 },
    /// The patch was tried so often, and never to its end.
    PatchSpent { tries: u32 },
    /// A reason that only a later version knows. It still is a refusal.
    Unlisted { number: u16 },
}

impl Refusal {
    /// The number on the wire and its two values. Append, never renumber.
    pub const fn to_wire(self) -> (u16, u32, u32) {
        match self {
            Self::StaleGeneration { offered, known } => (1, offered, known),
            Self::OtherRollout { offered, known } => (2, offered, known),
            Self::NotStaged => (3, 0, 0),
            Self::NotAtRest => (4, 0, 0),
            Self::OtherRunning { running, expected } => (5, running, expected),
            Self::OnTrial => (6, 0, 0),
            Self::WrongChip { image, device } => (7, image, device),
            Self::WrongRole => (8, 0, 0),
            Self::WrongBoard => (9, 0, 0),
            Self::TooLarge { size_bytes, slot_bytes } => (10, size_bytes, slot_bytes),
            Self::Untrusted { good, needed } => (11, good, needed),
            Self::EpochTooLow { offered, floor } => (12, offered, floor),
            Self::SlotDiffers { found, expected } => (13, found, expected),
            Self::AttemptSpent { offered, spent } => (14, offered, spent),
            Self::NotHealthy => (15, 0, 0),
            Self::BadManifest => (16, 0, 0),
            Self::NotNow => (17, 0, 0),
            Self::FlashFailed { operation, offset } => (18, operation, offset),
            Self::NoWayBack { found, expected } => (19, found, expected),
            Self::NotAnImage { offset } => (20, offset, 0),
            Self::AlreadyKept => (21, 0, 0),
            Self::OtherBase { running, base } => (22, running, base),
            Self::PatchNoRoom { needed_bytes, slot_bytes } => (23, needed_bytes, slot_bytes),
            Self::PatchNotNeeded { patch_bytes, missing_bytes } => (24, patch_bytes, missing_bytes),
            Self::PatchBroken { offset } => (25, offset, 0),
            Self::PatchDiffers { found, expected } => (26, found, expected),
            Self::PatchSpent { tries } => (27, tries, 0),
            Self::Unlisted { number } => (number, 0, 0),
        }
    }

    /// The refusal with this number; `None` for a number of a later version.
    pub const fn from_wire(code: u16, a: u32, b: u32) -> Option<Self> {
        Some(match code {
            1 => Self::StaleGeneration { offered: a, known: b },
            2 => Self::OtherRollout { offered: a, known: b },
            3 => Self::NotStaged,
            4 => Self::NotAtRest,
            5 => Self::OtherRunning { running: a, expected: b },
            6 => Self::OnTrial,
            7 => Self::WrongChip { image: a, device: b },
            8 => Self::WrongRole,
            9 => Self::WrongBoard,
            10 => Self::TooLarge { size_bytes: a, slot_bytes: b },
            11 => Self::Untrusted { good: a, needed: b },
            12 => Self::EpochTooLow { offered: a, floor: b },
            13 => Self::SlotDiffers { found: a, expected: b },
            14 => Self::AttemptSpent { offered: a, spent: b },
            15 => Self::NotHealthy,
            16 => Self::BadManifest,
            17 => Self::NotNow,
            18 => Self::FlashFailed { operation: a, offset: b },
            19 => Self::NoWayBack { found: a, expected: b },
            20 => Self::NotAnImage { offset: a },
            21 => Self::AlreadyKept,
            22 => Self::OtherBase { running: a, base: b },
            23 => Self::PatchNoRoom { needed_bytes: a, slot_bytes: b },
            24 => Self::PatchNotNeeded { patch_bytes: a, missing_bytes: b },
            25 => Self::PatchBroken { offset: a },
            26 => Self::PatchDiffers { found: a, expected: b },
            27 => Self::PatchSpent { tries: a },
            _ => return None,
        })
    }
}

impl Refusal {
    /// Why a patch is not taken.
    fn fmt_of_patch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OtherBase { running, base } => {
                let (running, base) = (running.swap_bytes(), base.swap_bytes());
                write!(f, "image {running:08x} runs, the patch is for {base:08x}")
            }
            Self::PatchNoRoom { needed_bytes, slot_bytes } => {
                write!(f, "patch needs a slot of {needed_bytes} bytes, this one has {slot_bytes}")
            }
            Self::PatchNotNeeded { patch_bytes, missing_bytes } => {
                write!(f, "{missing_bytes} bytes are missing, the patch has {patch_bytes}")
            }
            Self::PatchBroken { offset } => {
                write!(f, "patch cannot be applied, seen near byte {offset}")
            }
            Self::PatchDiffers { found, expected } => {
                let (found, expected) = (found.swap_bytes(), expected.swap_bytes());
                write!(f, "patch made {found:08x}, the manifest names {expected:08x}")
            }
            Self::PatchSpent { tries } => {
                write!(f, "patch was tried {tries} times and never applied to its end")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::StaleGeneration { offered, known } => {
                write!(f, "order is of generation {offered}, this device has seen {known}")
            }
            Self::OtherRollout { offered, known } => {
                write!(
                    f,
                    "order is of rollout {offered:08x}, this device takes part in {known:08x}"
                )
            }
            Self::NotStaged => write!(f, "nothing verified is in the other slot"),
            Self::NotAtRest => write!(f, "the application is not at rest"),
            Self::OtherRunning { running, expected } => {
                let (running, expected) = (running.swap_bytes(), expected.swap_bytes());
                write!(f, "image {running:08x} runs, the order expects {expected:08x}")
            }
            Self::OnTrial => write!(f, "this device is on trial"),
            Self::WrongChip { image, device } => {
                let chip = |id: u32| ChipId(u16::try_from(id).unwrap_or(u16::MAX));
                write!(f, "image is for chip `{}`, this is `{}`", chip(image), chip(device))
            }
            Self::WrongRole => write!(f, "image is for another role"),
            Self::WrongBoard => write!(f, "image is for another board"),
            Self::TooLarge { size_bytes, slot_bytes } => {
                write!(f, "image has {size_bytes} bytes, the slot has {slot_bytes}")
            }
            Self::Untrusted { good, needed } => {
                write!(f, "release has {good} good signatures, this device needs {needed}")
            }
            Self::EpochTooLow { offered, floor } => {
                write!(f, "release has epoch {offered}, this device needs at least {floor}")
            }
            Self::SlotDiffers { found, expected } => {
                let (found, expected) = (found.swap_bytes(), expected.swap_bytes());
                write!(f, "slot holds {found:08x}, the manifest names {expected:08x}")
            }
            Self::AttemptSpent { offered, spent } => {
                write!(f, "attempt {offered} comes after attempt {spent} was accepted")
            }
            Self::NotHealthy => write!(f, "this device is not healthy in this boot"),
            Self::BadManifest => write!(f, "manifest does not describe an image for this role"),
            Self::NotNow => write!(f, "the application does not come to rest"),
            Self::FlashFailed { operation, offset } => {
                write!(f, "flash failed in operation {operation} at offset {offset:#x}")
            }
            Self::NoWayBack { found, expected } => {
                let (found, expected) = (found.swap_bytes(), expected.swap_bytes());
                write!(f, "other slot holds {found:08x}, not {expected:08x} to return to")
            }
            Self::NotAnImage { offset } => {
                write!(f, "bytes are not an image for this device, seen at offset {offset}")
            }
            Self::OtherBase { .. }
            | Self::PatchNoRoom { .. }
            | Self::PatchNotNeeded { .. }
            | Self::PatchBroken { .. }
            | Self::PatchDiffers { .. }
            | Self::PatchSpent { .. } => self.fmt_of_patch(f),
            Self::Unlisted { number } => {
                write!(f, "refused for reason {number} of a later version")
            }
            Self::AlreadyKept => {
                write!(f, "the release is confirmed; reversing it is a new rollout")
            }
        }
    }
}

impl core::error::Error for Refusal {}

/// A refusal with the order it answers, so that a lead never takes an old one for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The low 32 bits of the rollout id of the refused order.
    pub rollout: u32,
    /// The refused order: [`Order::kind`].
    pub order: u8,
    /// Why.
    pub why: Refusal,
}

impl Refused {
    /// The refusal of an order of this rollout.
    pub fn new(rollout: RolloutId, order: &Order, why: Refusal) -> Self {
        Self { rollout: rollout.low(), order: order.kind(), why }
    }
}
