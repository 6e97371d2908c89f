//! What a seed draws: the group, the limits it lives by, which kinds of fault there are in its
//! world and how strong each is. Drawing a few kinds at a time reaches more than all of them
//! together, which end every rollout in the same way.

use fastrand::Rng;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::setup::{Duty, Pace, StagingPace};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use lockstep_rollout::Policy;

use super::air::AirWeather;
use super::board::{BoardSetup, GroupSetup};
use super::faults::{Fault, PhaseName, When};
use super::flash::{Place, Residue};
use super::images::{Behaviour, LEAD_ROLE, ROLES};
use super::upload::Manner;
use crate::bootloader::ResetReason;

/// What a seed has drawn.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// The boards, the lead first.
    pub boards: Vec<BoardSetup>,
    /// What they share.
    pub group: GroupSetup,
    /// The air while faults are on.
    pub weather: AirWeather,
    /// How many rollouts are asked for.
    pub requests: u32,
    /// The kinds of fault there are.
    pub kinds: Kinds,
    /// Faults for each rollout, at most.
    pub faults_max: u32,
    /// What a cut leaves of the byte that was being written.
    pub residue: Residue,
    /// Devices demand a signature.
    pub is_signed: bool,
}

/// What is not left to the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scale {
    /// Members beside the lead, below [`super::BOARDS_MAX`]; every kind of fault there is then.
    pub members: Option<usize>,
    /// Frames that arrive nowhere while faults are on, in percent.
    pub loss_percent: Option<u8>,
}

impl Scale {
    /// A lead with ten members, of which several have a role, and a fifth of all frames lost.
    pub const LARGE: Self = Self { members: Some(10), loss_percent: Some(20) };
}

/// Kinds of fault beside those of the air, each there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds {
    /// The power goes between two events.
    pub power_cuts: bool,
    /// The power goes within flash work.
    pub flash_cuts: bool,
    /// Chips reset.
    pub resets: bool,
    /// Links fail one way, or boards are out of reach.
    pub broken_links: bool,
    /// Some stay off, or out of reach, for very long.
    pub long_absence: bool,
    /// Images are sick.
    pub sick_firmware: bool,
    /// Whoever uploads is unreliable.
    pub bad_uploads: bool,
    /// People ask for aborts and for second rollouts.
    pub meddling: bool,
    /// Staged images rot, and writes into slots go wrong.
    pub bad_flash: bool,
    /// Somebody sends again what was heard before.
    pub replays: bool,
    /// The lead's access point changes its channel, and members have to find it.
    pub channel_moves: bool,
}

impl Kinds {
    /// Every kind of fault.
    const ALL: Self = Self {
        power_cuts: true,
        flash_cuts: true,
        resets: true,
        broken_links: true,
        long_absence: true,
        sick_firmware: true,
        bad_uploads: true,
        meddling: true,
        bad_flash: true,
        replays: true,
        channel_moves: true,
    };
}

/// Draws everything that a world begins with.
pub fn draw(rng: &mut Rng) -> Swarm {
    draw_scaled(Scale::default(), rng)
}

/// The same, but for what is not left to the seed.
pub fn draw_scaled(scale: Scale, rng: &mut Rng) -> Swarm {
    let is_calm = rng.u8(0..16) == 0;
    // Drawn apart, so that it changes nothing else about a seed.
    let mut channels = Rng::with_seed(rng.get_seed() ^ 0x4348_414E_4E45_4C53);
    let mut boards = draw_boards(scale, rng);
    let group = draw_group(rng);
    let mut weather = draw_air(rng);
    let mut kinds = Kinds {
        power_cuts: rng.bool(),
        flash_cuts: rng.bool(),
        resets: rng.bool(),
        broken_links: rng.u8(0..3) == 0,
        long_absence: rng.u8(0..4) == 0,
        sick_firmware: rng.u8(0..3) == 0,
        bad_uploads: rng.u8(0..4) == 0,
        meddling: rng.u8(0..3) == 0,
        bad_flash: rng.u8(0..6) == 0,
        replays: rng.u8(0..6) == 0,
        channel_moves: false,
    };
    if is_calm {
        kinds = Kinds::default();
    }
    kinds.channel_moves = !is_calm && channels.u8(0..4) == 0;
    if scale.members.is_some() {
        kinds = Kinds::ALL;
    }
    if kinds.channel_moves {
        let members = boards.iter_mut().filter(|board| board.duty == Duty::Member);
        // Some have the lead's access point themselves.
        members
            .filter(|_| channels.u8(0..5) > 0)
            .for_each(|board| board.channels = ChannelPlan::ALL);
    }
    if is_calm && scale.members.is_none() {
        weather = AirWeather::default();
    }
    if let Some(loss_percent) = scale.loss_percent {
        weather.loss_percent = loss_percent;
    }
    // Drawn aside, so that all else of a seed stays as it is.
    let weak = rng.clone().u8(0..3) != 0;
    let residue = match (rng.bool(), weak) {
        (true, _) => Residue::Nothing,
        (false, true) => Residue::WeakBit,
        (false, false) => Residue::SomeBits,
    };
    Swarm {
        boards,
        group,
        weather,
        requests: rng.u32(2..=4),
        kinds,
        faults_max: rng.u32(1..=4),
        residue,
        is_signed: rng.u8(0..8) == 0,
    }
}

/// Any of those that members look at.
pub(super) fn draw_channel(rng: &mut Rng) -> Channel {
    let number = rng.u8(Channel::FIRST.number()..=Channel::LAST.number());
    Channel::new(number).expect("a channel between two")
}

fn draw_boards(scale: Scale, rng: &mut Rng) -> Vec<BoardSetup> {
    let drawn = [2, 2, 2, 2, 3, 3, 4, 5][rng.usize(0..8)];
    let count = scale.members.map_or(drawn, |members| members + 1);
    let one_chip = rng.u8(0..4) == 0;
    let drifts = rng.u8(0..4) == 0;
    let boot_ms = rng.u64(50..=300);
    // Drawn apart, so that it changes nothing else about a seed.
    let mut radios = Rng::with_seed(rng.get_seed() ^ 0x5241_4449_4F53);
    let large_of_four = [0, 3, 4, 4][radios.usize(0..4)];
    (0..count)
        .map(|index| {
            let role = match index {
                0 => LEAD_ROLE,
                1 => ROLES[1],
                _ => ROLES[rng.usize(1..ROLES.len())],
            };
            let chip = match role {
                _ if one_chip => ChipId::ESP32,
                LEAD_ROLE => ChipId::ESP32_S3,
                "transmitter" => ChipId::ESP32,
                _ => ChipId::ESP32_C3,
            };
            let by_agent = rng.u8(0..4) == 0;
            BoardSetup {
                role,
                chip,
                rollback: if by_agent { Rollback::Agent } else { Rollback::Bootloader },
                duty: if index == 0 { Duty::Lead } else { Duty::Member },
                drift_ppm: if drifts { rng.i32(-DRIFT_PPM_MAX..=DRIFT_PPM_MAX) } else { 0 },
                boot_ms: boot_ms + rng.u64(0..100),
                rest_ms: rng.u64(0..=80),
                staging: match rng.u8(0..8) {
                    0 => StagingPace::Background { ms_between: rng.u32(1..=3) },
                    _ => StagingPace::Fast,
                },
                trust: Trust::anybody(),
                takes_large: radios.u8(0..4) < large_of_four,
                channels: ChannelPlan::Fixed,
            }
        })
        .collect()
}

fn draw_group(rng: &mut Rng) -> GroupSetup {
    let policy = Policy {
        preflight_ms: 2_000,
        resend_ms: rng.u64(80..=250),
        poll_ms: rng.u64(150..=400),
        staging_idle_ms: 4_000,
        staging_limit_ms: 40_000,
        rest_limit_ms: 3_000,
        fire_lead_ms: rng.u64(100..=400),
        fire_every_ms: 40,
        boot_limit_ms: 2_000,
        unreachable_ms: 4_000,
        backoff_ms: 300,
        trial_limit_ms: 4_000,
        lease_ms: rng.u32(5_000..=8_000),
        rest_lease_ms: rng.u32(3_500..=6_000),
        ..Policy::desk()
    };
    let pace = Pace {
        announce_ms: 3_000,
        lead_boot_ms: 400,
        lost_ms: 2_600,
        dwell_ms: 30,
        probe_ms: 1_000,
        probe_busy_ms: rng.u64(150..=300),
        sample_ms: 100,
        link_fresh_ms: 2_500,
        wants_ms: 250,
        answer_ms: 60,
        mend_ms: 12,
        soak_ms: 2_000,
    };
    GroupSetup { key: GroupKey::new([9; 32]), policy, pace }
}

fn draw_air(rng: &mut Rng) -> AirWeather {
    let mut some = |chance: u8, most: u8| {
        let percent = rng.u8(1..=most);
        if rng.u8(0..100) < chance { percent } else { 0 }
    };
    let loss_percent = some(60, 35);
    let duplicate_percent = some(30, 20);
    let corrupt_percent = some(20, 10);
    let late_percent = some(30, 30);
    AirWeather {
        loss_percent,
        duplicate_percent,
        corrupt_percent,
        delay_ms: rng.u64(1..=4),
        late_ms_max: rng.u64(10..=600),
        late_percent,
    }
}

impl Swarm {
    /// A fault for a rollout that is asked for at `now`, if there are any in this world.
    pub fn draw_fault(&self, now: u64, rng: &mut Rng) -> Option<(When, Fault)> {
        let board = rng.usize(0..self.boards.len());
        let off_ms = self.draw_off(rng);
        let kinds = self.kinds;
        let mut faults: Vec<Fault> = Vec::new();
        if kinds.power_cuts {
            faults.push(Fault::PowerCut { board, off_ms });
        }
        if kinds.flash_cuts {
            let units = match rng.u8(0..3) {
                0 => rng.u64(0..200),
                1 => rng.u64(0..4_000),
                _ => rng.u64(0..80_000),
            };
            faults.push(Fault::FlashCut { board, units, off_ms });
            let place =
                [Place::Otadata, Place::Record, Place::Package, Place::Slot][rng.usize(0..4)];
            let units = if rng.bool() { rng.u64(0..=6) } else { rng.u64(0..=256) };
            let operations = rng.u32(0..24) * rng.u32(0..=1);
            faults.push(Fault::AimedCut { board, place, operations, units, off_ms });
        }
        if kinds.resets {
            let reasons = [
                ResetReason::Software,
                ResetReason::Panic,
                ResetReason::Watchdog,
                ResetReason::BrownOut,
            ];
            faults.push(Fault::Reset { board, reason: reasons[rng.usize(0..reasons.len())] });
        }
        if kinds.broken_links {
            let other = rng.usize(0..self.boards.len());
            faults.push(match other == board {
                true => Fault::Isolated { board, ms: off_ms },
                false => Fault::OneWay { from: board, to: other, ms: off_ms },
            });
        }
        if kinds.meddling {
            faults.push(if rng.bool() { Fault::Abort } else { Fault::SecondUpload });
        }
        if kinds.bad_flash {
            faults.push(if rng.bool() { Fault::Rot { board } } else { Fault::BadWrite { board } });
        }
        if kinds.replays {
            faults.push(Fault::Replay { board });
        }
        if faults.is_empty() {
            return None;
        }
        if kinds.resets && rng.u8(0..8) == 0 {
            let plague = Fault::Plague { board, trials: rng.u32(1..=6) };
            return Some((When::Phase(PhaseName::Settling, rng.u64(0..150)), plague));
        }
        let fault = faults[rng.usize(0..faults.len())];
        let phases = [PhaseName::Staging, PhaseName::Rest, PhaseName::Trial, PhaseName::Settling];
        let when = match rng.u8(0..3) {
            0 if rng.bool() => When::OnTrial(board, rng.u64(0..1_500)),
            0 => When::At(now + rng.u64(0..3_000)),
            _ => When::Phase(phases[rng.usize(0..phases.len())], rng.u64(0..800)),
        };
        Some((when, fault))
    }

    /// When the lead's access point changes its channel next, and to which. From a generator of
    /// its own.
    pub fn draw_channel_move(&self, now: u64, rng: &mut Rng) -> (When, Fault) {
        let phases = [PhaseName::Staging, PhaseName::Rest, PhaseName::Trial, PhaseName::Settling];
        let when = match rng.u8(0..5) {
            0 => When::At(now + rng.u64(0..4_000)),
            1 => When::OnTrial(rng.usize(0..self.boards.len()), rng.u64(0..1_500)),
            _ => When::Phase(phases[rng.usize(0..phases.len())], rng.u64(0..800)),
        };
        (when, Fault::ChannelMoves { to: draw_channel(rng) })
    }

    /// From a flicker to an hour; mostly short.
    fn draw_off(&self, rng: &mut Rng) -> u64 {
        let most: u32 = match rng.u8(0..20) {
            0 if self.kinds.long_absence => 22,
            0..4 => 14,
            _ => 11,
        };
        let order = rng.u32(5..most);
        rng.u64(1 << order..2 << order)
    }

    /// How an image of a release behaves.
    pub fn draw_behaviour(&self, rollback: Rollback, rng: &mut Rng) -> Behaviour {
        if !self.kinds.sick_firmware || rng.u8(0..3) > 0 {
            return Behaviour::Healthy;
        }
        // A few moments each, so that images are made once.
        let early_ms = [5, 150, 400, 700][rng.usize(0..4)];
        let late_ms = [900, 1_300, 2_000, 4_000][rng.usize(0..4)];
        match rng.u8(0..9) {
            // Nothing but a bootloader saves a device from this.
            0 if rollback == Rollback::Bootloader => Behaviour::CrashesAtBoot,
            0 | 1 => Behaviour::CrashesAfterMs(early_ms),
            2 => Behaviour::HangsAfterMs(early_ms),
            3 => Behaviour::Deaf,
            4 => Behaviour::Mute,
            5 => Behaviour::NeverHealthy,
            6 => Behaviour::FlapsEveryMs([150, 250, 600][rng.usize(0..3)]),
            7 => Behaviour::NeverRests,
            _ => Behaviour::LiesUntilMs(late_ms),
        }
    }

    /// How a bundle is handed over.
    pub fn draw_manner(&self, size_bytes: u32, rng: &mut Rng) -> Manner {
        let manner =
            Manner { chunk_bytes: 16 * 1024, every_ms: rng.u64(1..=40), ..Manner::default() };
        if !self.kinds.bad_uploads || rng.bool() {
            return manner;
        }
        let at = Some(rng.u32(0..size_bytes));
        match rng.u8(0..4) {
            0 => Manner { silent_at: at, ..manner },
            1 => Manner { silent_at: at, silent_ms: Some(rng.u64(10..8_000)), ..manner },
            2 => Manner { spoilt_at: at, ..manner },
            _ => Manner { ends_at: at, ..manner },
        }
    }
}

/// Five percent: more than any crystal, and what an RC oscillator may have.
const DRIFT_PPM_MAX: i32 = 50_000;
