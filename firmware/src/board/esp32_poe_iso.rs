//! Olimex ESP32-POE-ISO with the WROVER module: Ethernet by the chip's own MAC and a LAN8710A.
//!
//! Pins as Olimex' schematic has them. On the WROVER module GPIO16 and GPIO17 belong to its RAM, so
//! the Ethernet's clock of 50 MHz leaves the chip at GPIO0.

use esp_hal::Async;
use esp_hal::gpio::AnyPin;
use esp_hal::peripherals::Peripherals;
use esp_hal::uart::UartRx;
use lockstep_proto::image::ChipId;

use super::{Common, Parts, Place, uart_console};

/// Where it listens to people: a UART, behind a chip with USB.
pub type ConsoleRx = UartRx<'static, Async>;

/// As artifacts name it.
pub const NAME: &str = "esp32-poe-iso";
/// For people.
pub const HARDWARE: &str = "Olimex ESP32-POE-ISO";
/// What images for it say.
pub const CHIP: ChipId = ChipId::ESP32;
/// Clock of its processor, in MHz.
pub const CPU_MHZ: u32 = 160;
/// It has a cable to a network.
pub const IS_WIRED: bool = true;

/// What its Ethernet is made of, beside the pins that the chip gives it once for all.
pub struct Ethernet {
    /// The power of the LAN8710A.
    pub power: AnyPin<'static>,
}
/// Where the LAN8710A answers.
pub const PHY_ADDRESS: u8 = 0;
/// Its management lines.
pub const MDC_GPIO: u8 = 23;
/// See [`MDC_GPIO`].
pub const MDIO_GPIO: u8 = 18;

/// Which pin and which part is for what.
pub fn parts(peripherals: Peripherals) -> Parts {
    let common = Common {
        flash: peripherals.FLASH,
        scheduler_timer: peripherals.TIMG0,
        scheduler_interrupt: peripherals.FROM_CPU_INTR0,
        rtc_timer: peripherals.RTC_TIMER,
        console: uart_console(peripherals.UART0, peripherals.GPIO3.into()),
        // The one called BUT1.
        button: peripherals.GPIO34.into(),
    };
    let place = Place {
        ethernet: Ethernet { power: peripherals.GPIO12.into() },
        wifi: peripherals.WIFI,
        urgent_interrupt: peripherals.FROM_CPU_INTR1,
        wire: peripherals.UART1,
        // Of the connector UEXT.
        wire_tx: peripherals.GPIO4.into(),
        wire_rx: peripherals.GPIO36.into(),
    };
    Parts { common, place }
}
