//! The boards: one file for each, with its pins and parts. A build is for exactly one.

#[cfg(feature = "c3-devkit")]
mod c3_devkit;
#[cfg(feature = "c6-devkit")]
mod c6_devkit;
#[cfg(feature = "esp32-poe-iso")]
mod esp32_poe_iso;
#[cfg(feature = "t-display-s3")]
mod t_display_s3;

#[cfg(feature = "c3-devkit")]
pub use c3_devkit::*;
#[cfg(feature = "c6-devkit")]
pub use c6_devkit::*;
#[cfg(feature = "esp32-poe-iso")]
pub use esp32_poe_iso::*;
#[cfg(feature = "t-display-s3")]
pub use t_display_s3::*;

#[cfg(not(any(
    feature = "c3-devkit",
    feature = "c6-devkit",
    feature = "esp32-poe-iso",
    feature = "t-display-s3"
)))]
compile_error!("choose a board: `cargo xtask firmware --board c3-devkit`");

use esp_hal::gpio::AnyPin;
use esp_hal::peripherals::{FLASH, FROM_CPU_INTR0, FROM_CPU_INTR1, RTC_TIMER, TIMG0, UART1, WIFI};
use esp_hal::uart::ConfigError;

/// What of a board the firmware uses.
pub struct Parts {
    /// Whatever its place is.
    pub common: Common,
    /// What it reaches others with.
    pub place: Place,
}

/// What every build uses.
pub struct Common {
    /// The flash with slots, otadata and record.
    pub flash: FLASH<'static>,
    /// What the scheduler counts time with.
    pub scheduler_timer: TIMG0<'static>,
    /// What the scheduler switches tasks with.
    pub scheduler_interrupt: FROM_CPU_INTR0<'static>,
    /// What the watchdog counts with.
    pub rtc_timer: RTC_TIMER<'static>,
    /// Where it listens to people: the line over which the chip is flashed, too.
    pub console: Result<ConsoleRx, ConfigError>,
    /// The button for people.
    pub button: AnyPin<'static>,
    /// The screen.
    #[cfg(feature = "t-display-s3")]
    pub screen: ScreenParts,
}

/// What one build or the other uses.
pub struct Place {
    /// The cable to a network.
    #[cfg(feature = "esp32-poe-iso")]
    pub ethernet: Ethernet,
    /// The radio.
    pub wifi: WIFI<'static>,
    /// What runs before everything else: the radio's frames are taken over at once.
    pub urgent_interrupt: FROM_CPU_INTR1<'static>,
    /// The serial line to other devices.
    pub wire: UART1<'static>,
    /// Where it says something to them.
    pub wire_tx: AnyPin<'static>,
    /// Where it listens to them.
    pub wire_rx: AnyPin<'static>,
}

/// A console on a UART, of which the ROM and the bootloader have the other direction.
#[cfg(not(feature = "t-display-s3"))]
fn uart_console(
    uart: esp_hal::peripherals::UART0<'static>,
    rx: AnyPin<'static>,
) -> Result<ConsoleRx, ConfigError> {
    let config = esp_hal::uart::Config::default();
    Ok(esp_hal::uart::UartRx::new(uart, config)?.with_rx(rx).into_async())
}
