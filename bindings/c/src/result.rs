//! What a call comes back with, and what that means in words.

use core::ffi::{CStr, c_char};

/// What came of a call. Below 0: an error, and nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepResult {
    /// Done.
    Ok = 0,
    /// There is nothing to take.
    None = 1,
    /// A pointer is null that must not be.
    ErrorNull = -1,
    /// This is no running instance: it was never started, or has ended.
    ErrorHandle = -2,
    /// Another call is running, from another task or below this one.
    ErrorBusy = -3,
    /// The memory that was handed in is too small to start.
    ErrorMemory = -4,
    /// A field of the setup is not as the header says it must be; the log says which.
    ErrorSetup = -5,
    /// The bytes of the descriptor are none.
    ErrorDescriptor = -6,
    /// The device cannot start from its flash; the log says why.
    ErrorBoot = -7,
    /// Too long, too short, or more than fits.
    ErrorLength = -8,
    /// A number that stands for nothing here.
    ErrorValue = -9,
    /// A reboot was ordered and must come first.
    ErrorReboot = -10,
    /// A text is not UTF-8, or not fit to be a password.
    ErrorText = -11,
    /// The flash failed.
    ErrorFlash = -12,
    /// Only the lead of a group can do this.
    ErrorNotLead = -13,
    /// The release or the rollout was refused; the log says why.
    ErrorRefused = -14,
}

impl LockstepResult {
    const ALL: [(Self, &CStr); 16] = [
        (Self::Ok, c"done"),
        (Self::None, c"there is nothing to take"),
        (Self::ErrorNull, c"a pointer is null: give one that is not"),
        (
            Self::ErrorHandle,
            c"no running instance: call lockstep_init first, and look at its result",
        ),
        (
            Self::ErrorBusy,
            c"another call is running: call from one task only, and not from a callback",
        ),
        (
            Self::ErrorMemory,
            c"too little memory: hand in LOCKSTEP_MEMORY_BYTES or LOCKSTEP_LEAD_MEMORY_BYTES",
        ),
        (Self::ErrorSetup, c"a field of the setup is wrong: the log names it"),
        (Self::ErrorDescriptor, c"not a descriptor: make it with LOCKSTEP_DESCRIPTOR"),
        (
            Self::ErrorBoot,
            c"the device cannot start from its flash: the log says why, see docs/boards.md",
        ),
        (
            Self::ErrorLength,
            c"too long, too short, or more than fits: see the limits in lockstep.h",
        ),
        (Self::ErrorValue, c"a number that stands for nothing here: use the names in lockstep.h"),
        (Self::ErrorReboot, c"a reboot was ordered: poll for effects, and obey"),
        (Self::ErrorText, c"a text is not UTF-8, or not 8 to 64 characters for a password"),
        (Self::ErrorFlash, c"the flash failed: the log says where"),
        (Self::ErrorNotLead, c"only the lead can do this: give it the duty of one"),
        (Self::ErrorRefused, c"refused: the log says why, and what would be right"),
    ];

    fn text(code: i32) -> &'static CStr {
        let found = Self::ALL.iter().find(|(result, _)| *result as i32 == code);
        found.map_or(c"a number that no call comes back with", |(_, text)| *text)
    }
}

/// What a result means and what to do about it, in English; never null, whatever the number.
#[unsafe(no_mangle)]
pub extern "C" fn lockstep_error_text(result: i32) -> *const c_char {
    LockstepResult::text(result).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_text() {
        let strange = LockstepResult::text(99);
        for code in -14..=1 {
            assert_ne!(LockstepResult::text(code), strange, "{code}");
        }
        assert_eq!(LockstepResult::text(-15), strange);
    }
}
