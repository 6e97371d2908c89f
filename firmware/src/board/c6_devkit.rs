//! ESP32-C6 development kits (ESP32-C6-DevKitC-1, DevKitM-1 and the like): no screen, 4 MiB.

use esp_hal::Async;
use esp_hal::peripherals::Peripherals;
use esp_hal::uart::UartRx;
use lockstep_proto::image::ChipId;

use super::{Common, Parts, Place, uart_console};

/// Where it listens to people: a UART, behind a chip with USB.
pub type ConsoleRx = UartRx<'static, Async>;

/// As artifacts name it.
pub const NAME: &str = "c6-devkit";
/// For people.
pub const HARDWARE: &str = "ESP32-C6 development kit";
/// What images for it say.
pub const CHIP: ChipId = ChipId::ESP32_C6;
/// Clock of its processor, in MHz.
pub const CPU_MHZ: u32 = 160;

/// It is reached by radio, or by its cables.
pub const IS_WIRED: bool = false;

/// Which pin and which part is for what.
pub fn parts(peripherals: Peripherals) -> Parts {
    let common = Common {
        flash: peripherals.FLASH,
        scheduler_timer: peripherals.TIMG0,
        scheduler_interrupt: peripherals.FROM_CPU_INTR0,
        rtc_timer: peripherals.RTC_TIMER,
        // The console's transmitter is the ROM's and the bootloader's.
        console: uart_console(peripherals.UART0, peripherals.GPIO17.into()),
        // The one called BOOT.
        button: peripherals.GPIO9.into(),
    };
    let place = Place {
        wifi: peripherals.WIFI,
        urgent_interrupt: peripherals.FROM_CPU_INTR1,
        wire: peripherals.UART1,
        wire_tx: peripherals.GPIO4.into(),
        wire_rx: peripherals.GPIO5.into(),
    };
    Parts { common, place }
}
