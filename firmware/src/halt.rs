//! The two ends of the firmware: the chip starts again, or stands still until something resets it.

use alloc::format;
use alloc::string::{String, ToString as _};

use lockstep_device::journal::Level;

use crate::chip;
use crate::console;
use crate::running::Running;

/// Starts the chip again, and says why.
pub(crate) fn restart(reason: &str) -> ! {
    console::say(Running::now().ms, Level::Notice, &format!("restarts {reason}"));
    chip::reset()
}

/// The firmware cannot go on. It does not reset at once: on a trial the watchdog does, which is the
/// way back, and otherwise somebody can read why.
pub(crate) fn stop(why: &str) -> ! {
    console::say(Running::now().ms, Level::Error, why);
    loop {
        core::hint::spin_loop();
    }
}

/// An error with all its causes.
pub(crate) fn describe(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
