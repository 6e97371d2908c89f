//! What others do, in the same channel: as simple as they can be told, and so never slower than
//! the real ones. None of them erases flash, checks a tag or loses a question.

use super::{Ether, RETRIES_MAX, Setup, broadcast_cycle_ns, seconds, unicast_cycle_ns};

/// A way to bring an image to members over ESP-NOW.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// To one member after the other, each block answered before the next is sent.
    StopAndWait,
    /// To one member after the other, unicast; what got lost in spite of the radio's own repeats
    /// comes once more.
    SelectiveRepeat,
    /// Broadcast to all; then every member sends a bitmap, and what anybody lacks is sent again.
    Bitmap,
    /// Espressif's `espnow_ota`: every frame broadcast twice, then rounds in which each member
    /// names what it lacks of its first incomplete 1,600 packets.
    EspnowOta,
}

impl Rival {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::StopAndWait, Self::SelectiveRepeat, Self::Bitmap, Self::EspnowOta];

    /// What it is called in a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StopAndWait => "stop-and-wait",
            Self::SelectiveRepeat => "unicast",
            Self::Bitmap => "bitmaps",
            Self::EspnowOta => "espnow_ota",
        }
    }

    /// Espressif's keeps to the frames of version 1, whatever the radio speaks.
    const fn block_bytes(self, takes_large: bool) -> u32 {
        match self {
            Self::EspnowOta => 224,
            Self::StopAndWait | Self::SelectiveRepeat | Self::Bitmap if takes_large => 1_460,
            Self::StopAndWait | Self::SelectiveRepeat | Self::Bitmap => 240,
        }
    }
}

/// How long it takes, in seconds.
pub fn run_rival(rival: Rival, setup: &Setup) -> f64 {
    let blocks = setup.size_bytes.div_ceil(rival.block_bytes(setup.takes_large)) as usize;
    let mut air = Air::new(setup);
    match rival {
        Rival::StopAndWait => (0..setup.members).for_each(|member| {
            (0..blocks).for_each(|_| air.stop_and_wait(member));
        }),
        Rival::SelectiveRepeat => (0..setup.members).for_each(|member| {
            (0..blocks).for_each(|_| {
                let bytes = air.frame_bytes;
                while !air.unicast(member, bytes) {}
            });
        }),
        Rival::Bitmap => air.bitmaps(blocks),
        Rival::EspnowOta => air.espnow_ota(blocks),
    }
    seconds(air.now)
}

struct Air {
    setup: Setup,
    frame_bytes: u64,
    now: u64,
    ethers: Vec<Ether>,
    to_lead: Ether,
}

impl Air {
    fn new(setup: &Setup) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let mut ether = || Ether::new(setup.loss, rng.u64(..));
        let ethers = (0..setup.members).map(|_| ether()).collect();
        let frame_bytes = if setup.takes_large { 1_470 } else { FRAME_BYTES };
        Self { setup: *setup, frame_bytes, now: 0, ethers, to_lead: ether() }
    }

    /// With the radio's own acknowledgements and repeats. `true`: it arrived.
    fn unicast(&mut self, member: usize, bytes: u64) -> bool {
        let mut arrived = false;
        for _ in 0..=RETRIES_MAX {
            self.now += unicast_cycle_ns(self.setup.rate, bytes);
            let heard = !self.ethers[member].loses();
            arrived |= heard;
            if heard && !self.to_lead.loses() {
                break;
            }
        }
        arrived
    }

    fn stop_and_wait(&mut self, member: usize) {
        loop {
            let arrived = self.unicast(member, self.frame_bytes);
            self.now += TURN_NS;
            let answered = arrived && self.unicast(member, ANSWER_BYTES);
            if answered {
                return;
            }
            self.now += TIMEOUT_NS;
        }
    }

    /// Broadcasts these blocks, `copies` times each.
    fn broadcast(&mut self, blocks: &[usize], copies: u32, bytes: u64, missing: &mut [Vec<bool>]) {
        for &block in blocks {
            for _ in 0..copies {
                self.now += broadcast_cycle_ns(self.setup.rate, bytes);
                for (ether, missing) in self.ethers.iter_mut().zip(&mut *missing) {
                    missing[block] &= ether.loses();
                }
            }
        }
    }

    fn bitmaps(&mut self, blocks: usize) {
        let mut missing = vec![vec![true; blocks]; self.setup.members];
        loop {
            let wanted: Vec<_> =
                (0..blocks).filter(|&it| missing.iter().any(|member| member[it])).collect();
            if wanted.is_empty() {
                return;
            }
            self.broadcast(&wanted, 1, self.frame_bytes, &mut missing);
            for (member, missing) in missing.iter().enumerate() {
                let lacks = missing.iter().filter(|missing| **missing).count();
                let bytes = (blocks / 8).min(2 * lacks) + 8;
                for _ in 0..bytes.div_ceil(230) {
                    while !self.unicast(member, 240) {}
                }
            }
        }
    }

    fn espnow_ota(&mut self, blocks: usize) {
        let mut missing = vec![vec![true; blocks]; self.setup.members];
        let mut wanted: Vec<usize> = (0..blocks).collect();
        for _ in 0..ROUNDS_MAX {
            self.broadcast(&wanted, 2, FRAME_BYTES, &mut missing);
            self.now += STATUS_NS;
            let lacks = |member: &[bool]| {
                let first = member.iter().position(|missing| *missing)? / CHUNK_PACKETS;
                let chunk = first * CHUNK_PACKETS..member.len().min((first + 1) * CHUNK_PACKETS);
                Some(chunk.filter(|&it| member[it]).collect::<Vec<_>>())
            };
            let all: Vec<Vec<usize>> = missing.iter().filter_map(|member| lacks(member)).collect();
            if all.is_empty() {
                return;
            }
            self.now += all.len() as u64 * unicast_cycle_ns(self.setup.rate, FRAME_BYTES);
            wanted = all.concat();
            wanted.sort_unstable();
            wanted.dedup();
        }
    }
}

const FRAME_BYTES: u64 = 250;
const ANSWER_BYTES: u64 = 20;
/// From a frame to the answer of the application.
const TURN_NS: u64 = 2_000_000;
const TIMEOUT_NS: u64 = 20_000_000;
/// Source: `espnow_ota.c` of Espressif's component `esp-now`.
const CHUNK_PACKETS: usize = 1_600;
const ROUNDS_MAX: usize = 50;
/// It waits 1 s once, then twice 0.5 s in every round: the least of it.
const STATUS_NS: u64 = 500_000_000;
