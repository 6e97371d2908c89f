//! The boards: one file for each, with its pins and parts. A build is for exactly one.

#[cfg(feature = "c3-devkit")]
mod c3_devkit;
#[cfg(feature = "c6-devkit")]
mod c6_devkit;

#[cfg(feature = "c3-devkit")]
pub use c3_devkit::*;
#[cfg(feature = "c6-devkit")]
pub use c6_devkit::*;

#[cfg(not(any(feature = "c3-devkit", feature = "c6-devkit")))]
compile_error!("choose a board: `cargo xtask firmware --board c3-devkit`");

use esp_hal::gpio::AnyPin;
use esp_hal::peripherals::{FLASH, FROM_CPU_INTR0, RTC_TIMER, TIMG0, UART0, UART1};

/// What of a board the firmware uses.
pub struct Parts {
    /// The flash with slots, otadata and record.
    pub flash: FLASH<'static>,
    /// What the scheduler counts time with.
    pub scheduler_timer: TIMG0<'static>,
    /// What the scheduler switches tasks with.
    pub scheduler_interrupt: FROM_CPU_INTR0<'static>,
    /// What the watchdog counts with.
    pub rtc_timer: RTC_TIMER<'static>,
    /// The serial line to people, over which the chip is flashed, too.
    pub console: UART0<'static>,
    /// Where it listens to people.
    pub console_rx: AnyPin<'static>,
    /// The serial line to other devices.
    pub wire: UART1<'static>,
    /// Where it says something to them.
    pub wire_tx: AnyPin<'static>,
    /// Where it listens to them.
    pub wire_rx: AnyPin<'static>,
}
