//! What a caller takes out: frames, effects, and how things stand.

use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;

/// The longest frame, in bytes. Without `takes_large` none is longer than 250.
pub const LOCKSTEP_FRAME_BYTES_MAX: usize = 1041;
const _: () = assert!(LOCKSTEP_FRAME_BYTES_MAX == LARGE_FRAME_BYTES_MAX);

/// Room for a text with the NUL at its end; a longer one is cut.
pub const LOCKSTEP_TEXT_BYTES: usize = 96;

/// A frame to send.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LockstepFrame {
    /// To whom: six times 0xFF is everybody.
    pub to: [u8; 6],
    /// How many of `bytes` it has.
    pub length: u16,
    /// The frame.
    pub bytes: [u8; LOCKSTEP_FRAME_BYTES_MAX],
}

/// What the caller is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepEffectKind {
    /// Reset the chip, at once. Nothing else is done until then.
    Reboot = 1,
    /// Put the radio on `channel`, then poll for frames again: none is handed out before.
    Tune = 2,
    /// Stop what a reboot would hurt, and answer with `lockstep_answer_rest`. May come again.
    AskRest = 3,
    /// No reboot is coming: go on working.
    Release = 4,
}

/// What the caller is to do, and with what.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LockstepEffect {
    /// What.
    pub kind: LockstepEffectKind,
    /// The channel, 1 to 14; else 0.
    pub channel: u8,
    /// Why, for people; ends with NUL.
    pub reason: [u8; LOCKSTEP_TEXT_BYTES],
}

/// How far the application is on its way to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepRest {
    /// It is stopping what a reboot would hurt.
    Pending = 0,
    /// A reboot hurts nothing now.
    AtRest = 1,
    /// It cannot stop now; it is asked again.
    NotNow = 2,
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepLevel {
    /// Detail.
    Info = 0,
    /// A step of an update.
    Notice = 1,
    /// Something to look at.
    Warning = 2,
    /// Somebody must act.
    Error = 3,
}

/// Whose a frame is that came over the radio, and whether its data may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepGate {
    /// It was for Lockstep, which has taken it.
    Ours = 0,
    /// The application's, from a compatible peer: use it.
    Passes = 1,
    /// The application's, from a peer that is unknown, incompatible, or not yet heard: drop it.
    Dropped = 2,
}

/// Where a device stands in its last rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepStep {
    /// No rollout has ever asked anything.
    Idle = 0,
    /// The new image is on its way into the other slot.
    Staging = 1,
    /// The other slot holds it, read back and verified.
    Staged = 2,
    /// It is booted next, or runs on trial.
    Activating = 3,
    /// It is being made permanent.
    Confirming = 4,
    /// It is permanent.
    Kept = 5,
    /// The device went back, or never activated it.
    Reverted = 6,
}

/// How this device stands.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LockstepState {
    /// Where it stands in its last rollout.
    pub step: LockstepStep,
    /// Bytes of the new image that are in flash, while it stages.
    pub staged_bytes: u32,
    /// The version that it announces: `MAJOR * 10000 + MINOR * 100 + PATCH`.
    pub version: u32,
    /// Counts its boots.
    pub boot_number: u32,
    /// Seconds until this trial ends by itself; 0 when not on trial.
    pub trial_left_s: u16,
    /// The channel on which it found its lead last, to be given to the setup after a reset; else 0.
    pub channel_good: u8,
    /// Whether it runs an image that is not confirmed.
    pub on_trial: bool,
    /// Whether data goes both ways between it and its lead, and everybody who was heard lately.
    pub linked: bool,
    /// Whether a password was ever set.
    pub has_password: bool,
    /// The hash of the running image.
    pub image: [u8; 32],
}

/// Another device in reach.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LockstepPeer {
    /// Its address.
    pub id: [u8; 6],
    /// Its role, once it said so with the group's key; else empty. Ends with NUL.
    pub role: [u8; 16],
    /// The version that it announces, 0 before it did.
    pub version: u32,
    /// Whether data goes both ways.
    pub linked: bool,
    /// Whether it has announced anything.
    pub is_known: bool,
    /// Whether its data passes the gate.
    pub is_compatible: bool,
    /// Which device needs what, for a screen, if it does not; else empty. Ends with NUL.
    pub warning: [u8; LOCKSTEP_TEXT_BYTES],
}

/// What became of the memory that was handed in, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct LockstepMemory {
    /// What there is for the node.
    pub size_bytes: usize,
    /// What it uses now.
    pub used_bytes: usize,
    /// The most that it has used since it was started.
    pub peak_bytes: usize,
}

/// Writes a text as a C string; what does not fit is cut between two characters.
pub(crate) fn c_text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut length = text.len().min(N.saturating_sub(1));
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    let (whole, _) = text.as_bytes().split_at(length);
    bytes.iter_mut().zip(whole).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters_and_ends_with_nul() {
        assert_eq!(c_text::<4>("abcdef"), *b"abc\0");
        assert_eq!(c_text::<4>("ab\u{e9}"), *b"ab\0\0");
        assert_eq!(c_text::<4>(""), [0; 4]);
    }
}
