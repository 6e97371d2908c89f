//! Time since boot. No device has a clock it can trust, so nothing durable ever holds one of these.

use core::ops::Add;

/// Milliseconds since this device booted; only differences within one boot mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant {
    /// Milliseconds since boot.
    pub ms: u64,
}

impl Instant {
    /// The moment `ms` milliseconds after boot.
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// How long ago `earlier` was, in milliseconds; 0 if it is not in the past.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.ms.saturating_sub(earlier.ms)
    }
}

/// Adds milliseconds; saturates, since a deadline beyond the end of time never comes.
impl Add<u64> for Instant {
    type Output = Self;

    fn add(self, ms: u64) -> Self {
        Self { ms: self.ms.saturating_add(ms) }
    }
}
