//! How often somebody may be wrong: passwords and enrolment tokens are guessed at a pace that leads
//! nowhere, and nobody but the guesser waits for that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong attempts, by the address that they came from.
#[derive(Debug, Default)]
pub struct Attempts {
    wrong: Mutex<HashMap<IpAddr, Wrong>>,
}

#[derive(Debug, Clone, Copy)]
struct Wrong {
    in_a_row: u32,
    last: Instant,
}

impl Attempts {
    /// How long this address has to wait before it may try again; `None`: it may now.
    pub fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let Wrong { in_a_row, last } = wrong.get(&key(from)).copied()?;
        let excess = in_a_row.checked_sub(FREE)?;
        let pause = PAUSE.saturating_mul(1 << excess.min(DOUBLINGS_MAX));
        pause.checked_sub(now.duration_since(last)).filter(|left| !left.is_zero())
    }

    /// It was wrong.
    pub fn wrong(&self, from: IpAddr, now: Instant) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= ADDRESSES_MAX {
            wrong.retain(|_, it| now.duration_since(it.last) < FORGET_AFTER);
        }
        if wrong.len() >= ADDRESSES_MAX {
            wrong.clear();
        }
        let entry = wrong.entry(key(from)).or_insert(Wrong { in_a_row: 0, last: now });
        if now.duration_since(entry.last) >= FORGET_AFTER {
            entry.in_a_row = 0;
        }
        *entry = Wrong { in_a_row: entry.in_a_row.saturating_add(1), last: now };
    }

    /// It was right.
    pub fn right(&self, from: IpAddr) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(from));
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn key(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        },
    }
}

/// So many wrong ones in a row cost nothing: people mistype.
const FREE: u32 = 5;
/// The next one has to wait so long; doubled with each one after it.
const PAUSE: Duration = Duration::from_secs(2);
/// So often, that is to more than half an hour.
const DOUBLINGS_MAX: u32 = 10;
/// After so long without another one all is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Addresses that are remembered, at most.
const ADDRESSES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_wrong_too_often_waits_twice_as_long_each_time_and_nobody_else_does() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let (guesser, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..FREE {
            assert_eq!(attempts.wait(guesser, start), None);
            attempts.wrong(guesser, start);
        }
        assert_eq!(attempts.wait(guesser, start), Some(PAUSE));
        assert_eq!(attempts.wait(other, start), None);
        attempts.wrong(guesser, start);
        assert_eq!(attempts.wait(guesser, start), Some(2 * PAUSE));
        assert_eq!(attempts.wait(guesser, start + 2 * PAUSE), None);
        attempts.right(guesser);
        assert_eq!(attempts.wait(guesser, start), None);
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_are_one_guesser() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for host in 0..=FREE {
            attempts.wrong(format!("2001:db8::{host:x}").parse().unwrap(), start);
        }
        assert!(attempts.wait("2001:db8::ffff".parse().unwrap(), start).is_some());
        assert!(attempts.wait("2001:db8:0:1::1".parse().unwrap(), start).is_none());
    }
}
