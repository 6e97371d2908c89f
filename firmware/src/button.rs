//! The button of a board: held for some seconds while it runs, it brings the set-up page back, for
//! whoever has no cable and lost their network.

use embassy_time::{Duration, Timer};
use esp_hal::gpio::{AnyPin, Input, InputConfig, Pull};

use crate::memory;
use crate::running::Running;

/// Waits for that.
#[embassy_executor::task]
pub(crate) async fn watch(pin: AnyPin<'static>, running: &'static Running) -> ! {
    let pin = Input::new(pin, InputConfig::default().with_pull(Pull::Up));
    let mut held = Duration::from_ticks(0);
    loop {
        Timer::after(LOOK_EVERY).await;
        held = if pin.is_low() { held + LOOK_EVERY } else { Duration::from_ticks(0) };
        if held >= HELD {
            memory::ask_for_setup();
            running.restart_for("to be set up, as its button was held");
            // Once is enough.
            held = Duration::from_ticks(0);
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longer than anybody presses a button by mistake.
const HELD: Duration = Duration::from_secs(4);
