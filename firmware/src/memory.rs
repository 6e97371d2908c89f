//! What a reset does not take: a few bytes of the RTC's memory, gone when the power is.
//!
//! It is only ever believed for what a mistake costs little: where the lead was found last is
//! looked at first, and whoever asked for the set-up page finds it.

use core::sync::atomic::Ordering;

use esp_hal::ram;
use lockstep_device::channel::Channel;
use portable_atomic::AtomicU32;

/// Mark u16, whether the set-up page was asked for u8, channel u8.
#[ram(unstable(rtc_fast, persistent))]
static KEPT: AtomicU32 = AtomicU32::new(0);

/// Where the lead was found last.
#[cfg(feature = "radio")]
pub(crate) fn last_good_channel() -> Option<Channel> {
    let [channel, ..] = kept().to_le_bytes();
    Channel::new(channel)
}

/// Remembers that.
pub(crate) fn keep_channel(channel: Channel) {
    let [_, asked, low, high] = kept().to_le_bytes();
    keep([channel.number(), asked, low, high]);
}

/// Somebody wants the set-up page; it is there after the next reset.
pub(crate) fn ask_for_setup() {
    let [channel, _, low, high] = kept().to_le_bytes();
    keep([channel, 1, low, high]);
}

/// Whether somebody does; once.
#[cfg(feature = "radio")]
pub(crate) fn take_setup_wish() -> bool {
    let [channel, asked, low, high] = kept().to_le_bytes();
    keep([channel, 0, low, high]);
    asked == 1
}

/// What is there, or nothing if it is what a power-on left.
fn kept() -> u32 {
    let value = KEPT.load(Ordering::Relaxed);
    if value >> 16 == MARK { value } else { MARK << 16 }
}

fn keep(bytes: [u8; 4]) {
    KEPT.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
}

const MARK: u32 = 0x4C53;
