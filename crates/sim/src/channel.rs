//! ESP-NOW in a channel of its own: how long every frame is in the air, who may send when, what
//! gets lost, and what a chip's flash and queues make of it. The members run the real agent, the
//! lead's side is the real sender.
//!
//! Formulas, sources and what others have measured: `docs/air.md`.

use std::fmt;

use lockstep_proto::frame::coding::Shape;

mod member;
mod rivals;
mod run;
mod table;

pub use rivals::{Rival, run_rival};
pub use run::{Outcome, run};
pub use table::{Cell, Row, Table, svg};

/// How the bits of a frame are sent. The numbers are those of IEEE 802.11 at 2.4 GHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// 1 Mbit/s, what ESP-NOW sends at unless told otherwise; short preamble.
    Dsss1,
    /// 2 Mbit/s.
    Dsss2,
    /// 11 Mbit/s.
    Dsss11,
    /// 6 Mbit/s.
    Ofdm6,
    /// 24 Mbit/s.
    Ofdm24,
    /// 54 Mbit/s.
    Ofdm54,
    /// 6.5 Mbit/s, 20 MHz.
    Mcs0,
    /// Espressif's long range at 250 kbit/s.
    LongRange250,
}

impl Rate {
    /// All of them, by name.
    pub const ALL: [Self; 8] = [
        Self::Dsss1,
        Self::Dsss2,
        Self::Dsss11,
        Self::Ofdm6,
        Self::Ofdm24,
        Self::Ofdm54,
        Self::Mcs0,
        Self::LongRange250,
    ];

    /// What it is called on a command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dsss1 => "1M",
            Self::Dsss2 => "2M",
            Self::Dsss11 => "11M",
            Self::Ofdm6 => "6M",
            Self::Ofdm24 => "24M",
            Self::Ofdm54 => "54M",
            Self::Mcs0 => "MCS0",
            Self::LongRange250 => "LR250K",
        }
    }

    /// How long so many bytes of a frame, header and checksum included, are in the air, in
    /// nanoseconds.
    pub const fn frame_ns(self, bytes: u64) -> u64 {
        match self {
            Self::Dsss1 => SHORT_PREAMBLE_NS + bytes * 8_000,
            Self::Dsss2 => SHORT_PREAMBLE_NS + bytes * 4_000,
            Self::Dsss11 => SHORT_PREAMBLE_NS + bytes * 8_000 / 11,
            Self::Ofdm6 => ofdm_ns(bytes, 24, OFDM_PREAMBLE_NS),
            Self::Ofdm24 => ofdm_ns(bytes, 96, OFDM_PREAMBLE_NS),
            Self::Ofdm54 => ofdm_ns(bytes, 216, OFDM_PREAMBLE_NS),
            Self::Mcs0 => ofdm_ns(bytes, 26, HT_PREAMBLE_NS),
            Self::LongRange250 => LONG_RANGE_PREAMBLE_NS + bytes * 32_000,
        }
    }

    /// How long the acknowledgement of a unicast frame takes, with the gap before it.
    pub const fn ack_ns(self) -> u64 {
        let basic = match self {
            Self::Mcs0 => Self::Ofdm6,
            Self::Ofdm54 => Self::Ofdm24,
            rate => rate,
        };
        SIFS_NS + basic.frame_ns(ACK_BYTES)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Symbols of 4 µs, each with so many bits; 22 bits of service and tail, 6 µs of extension.
const fn ofdm_ns(bytes: u64, bits_per_symbol: u64, preamble_ns: u64) -> u64 {
    preamble_ns + (22 + bytes * 8).div_ceil(bits_per_symbol) * 4_000 + 6_000
}

/// Bytes of a frame with so many bytes of payload: MAC header 24, category 1, organization 3,
/// random 4, a vendor element of 7 for each 250 bytes, checksum 4.
pub const fn frame_bytes(payload_bytes: u64) -> u64 {
    24 + 1 + 3 + 4 + 7 * payload_bytes.div_ceil(250) + payload_bytes + 4
}

/// What is between two frames if nobody else wants to send: the gap of the voice queue, and the
/// mean of its random wait.
pub const fn mean_gap_ns() -> u64 {
    AIFS_NS + SLOT_NS * CONTENTION_MIN / 2
}

/// From the start of one broadcast frame to the start of the next, in nanoseconds.
pub const fn broadcast_cycle_ns(rate: Rate, payload_bytes: u64) -> u64 {
    mean_gap_ns() + rate.frame_ns(frame_bytes(payload_bytes))
}

/// The same for a unicast frame that is acknowledged at once.
pub const fn unicast_cycle_ns(rate: Rate, payload_bytes: u64) -> u64 {
    broadcast_cycle_ns(rate, payload_bytes) + rate.ack_ns()
}

/// How frames get lost, at each receiver for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each with the same probability.
    Independent {
        /// Share of the frames, 0 to 1.
        share: f64,
    },
    /// In bursts (Gilbert and Elliott): in a bad time all of them.
    Bursts {
        /// Share of the frames, 0 to 1.
        share: f64,
        /// Frames in a burst, on average.
        mean_frames: f64,
    },
}

impl Loss {
    /// Share of the frames that get lost.
    pub const fn share(self) -> f64 {
        match self {
            Self::Independent { share } | Self::Bursts { share, .. } => share,
        }
    }
}

/// What one receiver loses.
#[derive(Debug)]
struct Ether {
    loss: Loss,
    is_bad: bool,
    rng: fastrand::Rng,
}

impl Ether {
    fn new(loss: Loss, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let is_bad = rng.f64() < loss.share();
        Self { loss, is_bad, rng }
    }

    /// Whether the next frame is lost.
    fn loses(&mut self) -> bool {
        match self.loss {
            Loss::Independent { share } => self.rng.f64() < share,
            Loss::Bursts { share, mean_frames } => {
                let is_lost = self.is_bad;
                let ends = 1.0 / mean_frames;
                let change = if is_lost { ends } else { ends * share / (1.0 - share) };
                self.is_bad ^= self.rng.f64() < change;
                is_lost
            }
        }
    }
}

/// What is to be run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// Members, all of one role.
    pub members: usize,
    /// Size of the image in bytes.
    pub size_bytes: u32,
    /// How bits are sent.
    pub rate: Rate,
    /// What gets lost.
    pub loss: Loss,
    /// Whether all radios speak ESP-NOW version 2: frames of up to 1,470 bytes of payload.
    pub takes_large: bool,
    /// Each device sends 50 bytes of application data so often; 0: none does.
    pub data_every_ms: u32,
    /// Everything that is drawn follows from it.
    pub seed: u64,
}

impl Setup {
    /// The least time that the blocks of the image take if it is cut so: every member has to hear
    /// as many frames as there are blocks, in seconds.
    pub fn bound_s(&self, shape: Shape) -> f64 {
        let blocks = f64::from(self.size_bytes.div_ceil(shape.block_bytes()));
        let payload_bytes = u64::from(shape.block_bytes()) + BLOCK_OVERHEAD_BYTES;
        let cycle_ns = broadcast_cycle_ns(self.rate, payload_bytes);
        blocks * seconds(cycle_ns) / (1.0 - self.loss.share())
    }
}

#[expect(clippy::cast_precision_loss, reason = "hours of nanoseconds fit a double exactly")]
const fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What a block's frame carries beside the block.
const BLOCK_OVERHEAD_BYTES: u64 = 13;
const SHORT_PREAMBLE_NS: u64 = 96_000;
const OFDM_PREAMBLE_NS: u64 = 20_000;
const HT_PREAMBLE_NS: u64 = 36_000;
const LONG_RANGE_PREAMBLE_NS: u64 = 400_000;
const SIFS_NS: u64 = 10_000;
const SLOT_NS: u64 = 9_000;
const AIFS_NS: u64 = 28_000;
const CONTENTION_MIN: u64 = 3;
const CONTENTION_MAX: u64 = 7;
const ACK_BYTES: u64 = 14;
/// How often a unicast frame is repeated that nobody acknowledges; not settable in ESP-NOW.
const RETRIES_MAX: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn us(ns: u64) -> f64 {
        seconds(ns) * 1e6
    }

    /// `docs/air.md` has the sources of these.
    #[test]
    fn airtimes_are_those_that_others_have_measured() {
        // 250 bytes at 1 Mbit/s, one metre: 404 broadcast and 357 unicast frames a second.
        let broadcast = 1.0 / seconds(broadcast_cycle_ns(Rate::Dsss1, 250));
        let unicast = 1.0 / seconds(unicast_cycle_ns(Rate::Dsss1, 250));
        assert!((broadcast / 404.0 - 1.0).abs() < 0.01, "{broadcast}");
        assert!((unicast / 357.0 - 1.0).abs() < 0.06, "{unicast}");
        assert!((us(broadcast_cycle_ns(Rate::Dsss1, 250)) - 2_481.5).abs() < 0.1);
        assert!((us(unicast_cycle_ns(Rate::Dsss1, 250)) - 2_699.5).abs() < 0.1);
    }

    #[test]
    fn airtimes_of_every_rate_are_those_of_the_standard() {
        let frame = |rate: Rate| us(rate.frame_ns(frame_bytes(250))).round();
        assert_eq!(Rate::ALL.map(frame), [2440., 1268., 309., 422., 126., 70., 406., 9776.]);
        assert_eq!(frame_bytes(1470), 1470 + 36 + 42);
    }

    #[test]
    fn what_gets_lost_is_the_share_that_was_ordered() {
        for (loss, longest) in [
            (Loss::Independent { share: 0.2 }, 14),
            (Loss::Bursts { share: 0.2, mean_frames: 8.0 }, 90),
        ] {
            let mut ether = Ether::new(loss, 3);
            let lost: Vec<bool> = (0..100_000).map(|_| ether.loses()).collect();
            let count = lost.iter().filter(|lost| **lost).count();
            assert!((18_500..21_500).contains(&count), "{loss:?}: {count}");
            let runs = lost.split(|lost| !lost).map(<[bool]>::len);
            let (bursts, most) = runs
                .filter(|run| *run > 0)
                .fold((0, 0), |(bursts, most), run| (bursts + 1, run.max(most)));
            assert!(most <= longest, "{loss:?}: {most} in a row");
            let mean = count / bursts;
            assert_eq!(mean, if longest == 14 { 1 } else { 8 }, "{loss:?}");
        }
    }
}
