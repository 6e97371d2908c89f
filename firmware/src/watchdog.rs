//! What resets a chip that stands still: on a trial that is the way back.

use esp_hal::peripherals::RTC_TIMER;
use esp_hal::rtc_cntl::{Rtc, RwdtStage};
use esp_hal::time::Duration;

/// The RTC's watchdog, which outlives whatever the main clock does.
pub(crate) struct Watchdog(Rtc<'static>);

impl Watchdog {
    /// Armed from here on.
    pub(crate) fn arm(timer: RTC_TIMER<'static>) -> Self {
        let mut rtc = Rtc::new(timer);
        rtc.rwdt.enable();
        rtc.rwdt.set_timeout(RwdtStage::Stage0, LIMIT);
        Self(rtc)
    }

    /// The main loop has come round.
    pub(crate) fn feed(&mut self) {
        self.0.rwdt.feed();
    }
}

/// Longer than the longest that the main loop is away: a slot of 2 MiB is hashed, a signature is
/// verified, 64 KiB are erased. Shorter than a member's lease.
const LIMIT: Duration = Duration::from_secs(15);
