//! The screen of the T-Display-S3: an ST7789 behind an 8-bit parallel bus.
//!
//! What it shows is `lockstep_device::screen`'s. Here it is drawn: only rows that changed, and one
//! at a time, since the processor moves every byte itself and the radio waits meanwhile.

use alloc::string::String;

use embassy_time::{Duration, Timer};
use esp_hal::delay::Delay;
use esp_hal::gpio::{AnyPin, Level, Output, OutputConfig};
use lockstep_device::http::Shell as _;
use lockstep_device::screen::{HEIGHT, Picture, WIDTH};
use mipidsi::interface::{Generic8BitBus, ParallelInterface};
use mipidsi::models::ST7789;
use mipidsi::options::{ColorInversion, Orientation, Rotation};
use mipidsi::{Builder, Display};

use crate::board::ScreenParts;
use crate::running::Running;

type Pin = Output<'static>;
type Bus = Generic8BitBus<Pin, Pin, Pin, Pin, Pin, Pin, Pin, Pin>;
type Screen = Display<ParallelInterface<Bus, Pin, Pin>, ST7789, Pin>;

/// Shows what there is to show, for as long as the board runs. A screen that does not answer is
/// none: the board works without it.
#[embassy_executor::task]
pub(crate) async fn show(parts: ScreenParts, running: &'static Running) {
    let Some((mut screen, light)) = begin(parts) else { return };
    let mut shown: Option<Picture> = None;
    let mut light = Some(light);
    loop {
        let picture = picture(running);
        for row in picture.changes(shown.as_ref()) {
            // A bus without an answer has no errors to give.
            let _ = picture.draw_row(row, &mut screen);
            embassy_futures::yield_now().await;
        }
        shown = Some(picture);
        // What it showed before the first picture is noise.
        if let Some(mut light) = light.take() {
            light.set_high();
            core::mem::forget(light);
        }
        Timer::after(EVERY).await;
    }
}

fn picture(running: &Running) -> Picture {
    if let Some((network, password, address)) = running.first_start_words() {
        return Picture::first_start(&network, &password, &address);
    }
    let platform = running.platform();
    let found: Option<String> = running.found();
    running.with(|now, node, _| Picture::of(node, now, &platform, found.as_deref()))
}

fn begin(parts: ScreenParts) -> Option<(Screen, Pin)> {
    let out = |pin: AnyPin<'static>, level| Output::new(pin, level, OutputConfig::default());
    // Held for as long as the board runs.
    for (pin, level) in
        [(parts.power, Level::High), (parts.select, Level::Low), (parts.read, Level::High)]
    {
        core::mem::forget(out(pin, level));
    }
    let light = out(parts.light, Level::Low);
    let bus: Bus = Generic8BitBus::new(parts.bus.map(|pin| out(pin, Level::Low)).into());
    let data_or_order = out(parts.data_or_order, Level::High);
    let interface = ParallelInterface::new(bus, data_or_order, out(parts.write, Level::High));
    let screen = Builder::new(ST7789, interface)
        .reset_pin(out(parts.reset, Level::High))
        .display_size(SHORT_SIDE, LONG_SIDE)
        .display_offset(COLUMN_FIRST, 0)
        .orientation(Orientation::new().rotate(Rotation::Deg90))
        .invert_colors(ColorInversion::Inverted)
        .init(&mut Delay::new());
    Some((screen.ok()?, light))
}

/// As the screen stands, upright.
const SHORT_SIDE: u16 = 170;
const LONG_SIDE: u16 = 320;
/// The controller could show 240 columns; the glass begins here.
const COLUMN_FIRST: u16 = 35;
const EVERY: Duration = Duration::from_millis(500);
const _: () = assert!(WIDTH == LONG_SIDE as u32 && HEIGHT == SHORT_SIDE as u32);
