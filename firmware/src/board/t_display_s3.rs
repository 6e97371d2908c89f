//! LilyGo T-Display-S3: a screen of 170 by 320 pixels, two buttons, and the chip's own USB.
//!
//! Pins as LilyGo's pin map has them. The screen's rows begin at column 35 of what its controller
//! could show.

use esp_hal::Async;
use esp_hal::gpio::AnyPin;
use esp_hal::peripherals::Peripherals;
use esp_hal::uart::ConfigError;
use esp_hal::usb::usb_serial_jtag::{UsbSerialJtag, UsbSerialJtagRx};
use lockstep_proto::image::ChipId;

use super::{Common, Parts, Place};

/// Where it listens to people: the chip's own USB.
pub type ConsoleRx = UsbSerialJtagRx<'static, Async>;

/// As artifacts name it.
pub const NAME: &str = "t-display-s3";
/// For people.
pub const HARDWARE: &str = "LilyGo T-Display-S3";
/// What images for it say.
pub const CHIP: ChipId = ChipId::ESP32_S3;
/// Clock of its processor, in MHz.
pub const CPU_MHZ: u32 = 160;
/// It is reached by radio, or by its cables.
pub const IS_WIRED: bool = false;

/// The screen's pins, an ST7789 behind an 8-bit parallel bus.
pub struct ScreenParts {
    /// Its power and that of its light; they must be on for anything to be seen on battery.
    pub power: AnyPin<'static>,
    /// Its light.
    pub light: AnyPin<'static>,
    /// Selects it.
    pub select: AnyPin<'static>,
    /// Tells orders from data.
    pub data_or_order: AnyPin<'static>,
    /// Resets it.
    pub reset: AnyPin<'static>,
    /// Its rising edge is a byte.
    pub write: AnyPin<'static>,
    /// Never used here, and held high.
    pub read: AnyPin<'static>,
    /// The bus, lowest bit first.
    pub bus: [AnyPin<'static>; 8],
}

/// Which pin and which part is for what.
pub fn parts(peripherals: Peripherals) -> Parts {
    let screen = ScreenParts {
        power: peripherals.GPIO15.into(),
        light: peripherals.GPIO38.into(),
        select: peripherals.GPIO6.into(),
        data_or_order: peripherals.GPIO7.into(),
        reset: peripherals.GPIO5.into(),
        write: peripherals.GPIO8.into(),
        read: peripherals.GPIO9.into(),
        bus: [
            peripherals.GPIO39.into(),
            peripherals.GPIO40.into(),
            peripherals.GPIO41.into(),
            peripherals.GPIO42.into(),
            peripherals.GPIO45.into(),
            peripherals.GPIO46.into(),
            peripherals.GPIO47.into(),
            peripherals.GPIO48.into(),
        ],
    };
    let common = Common {
        flash: peripherals.FLASH,
        scheduler_timer: peripherals.TIMG0,
        scheduler_interrupt: peripherals.FROM_CPU_INTR0,
        rtc_timer: peripherals.RTC_TIMER,
        console: usb_console(peripherals.USB_DEVICE),
        // The one called BOOT.
        button: peripherals.GPIO0.into(),
        screen,
    };

    let place = Place {
        wifi: peripherals.WIFI,
        urgent_interrupt: peripherals.FROM_CPU_INTR1,
        wire: peripherals.UART1,
        wire_tx: peripherals.GPIO43.into(),
        wire_rx: peripherals.GPIO44.into(),
    };
    Parts { common, place }
}

#[expect(clippy::unnecessary_wraps, reason = "other boards have consoles that may not start")]
fn usb_console(usb: esp_hal::peripherals::USB_DEVICE<'static>) -> Result<ConsoleRx, ConfigError> {
    let (rx, _) = UsbSerialJtag::new(usb).into_async().split();
    Ok(rx)
}
