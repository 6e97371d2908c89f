//! What goes wrong, and when: ordered by hand, or drawn.

use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_rollout::Phase;

use super::flash::Place;
use super::{LEAD, World, name};
use crate::bootloader::ResetReason;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power goes, and comes back.
    PowerCut {
        /// Whose.
        board: usize,
        /// For how long, in milliseconds.
        off_ms: u64,
    },
    /// The power goes in the middle of flash work.
    FlashCut {
        /// Whose.
        board: usize,
        /// After so many units: see [`crate::flash::MemFlash`].
        units: u64,
        /// For how long, in milliseconds.
        off_ms: u64,
    },
    /// The power goes in the middle of flash work at one place.
    AimedCut {
        /// Whose.
        board: usize,
        /// Where.
        place: Place,
        /// After so many operations there.
        operations: u32,
        /// And so many units.
        units: u64,
        /// For how long, in milliseconds.
        off_ms: u64,
    },
    /// The chip resets now, and in each of its next trials.
    Plague {
        /// Which.
        board: usize,
        /// In how many trials.
        trials: u32,
    },
    /// The chip resets.
    Reset {
        /// Which.
        board: usize,
        /// Why.
        reason: ResetReason,
    },
    /// Nothing gets from one board to another.
    OneWay {
        /// Who is not heard.
        from: usize,
        /// By whom.
        to: usize,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// Nothing gets to a board or from it.
    Isolated {
        /// Which.
        board: usize,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// A bit of what lies in a board's other slot flips, as long as it does not boot next.
    Rot {
        /// Whose.
        board: usize,
    },
    /// The next write into a slot goes wrong without a word.
    BadWrite {
        /// Whose.
        board: usize,
    },
    /// An order that a board has heard before arrives once more.
    Replay {
        /// Who hears it.
        board: usize,
    },
    /// The lead's access point goes to another channel, and with it whoever it serves.
    ChannelMoves {
        /// To which.
        to: Channel,
    },
    /// Somebody asks the lead to end the rollout.
    Abort,
    /// Somebody else hands over another bundle.
    SecondUpload,
}

/// When it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this time of the world.
    At(u64),
    /// So long after the lead enters a phase next.
    Phase(PhaseName, u64),
    /// So long after this board boots on trial next.
    OnTrial(usize, u64),
}

/// A phase without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the phases of a rollout")]
pub enum PhaseName {
    Staging,
    Rest,
    Trial,
    Settling,
    Settled,
}

impl PhaseName {
    const fn of(phase: &Phase) -> Option<Self> {
        Some(match phase {
            Phase::Preflight => return None,
            Phase::Staging => Self::Staging,
            Phase::Rest => Self::Rest,
            Phase::Trial => Self::Trial,
            Phase::Settling(_) => Self::Settling,
            Phase::Settled(_) => Self::Settled,
        })
    }
}

/// A fault that waits for its moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Armed {
    when: When,
    pub(super) fault: Fault,
}

impl Armed {
    /// When it is due, as far as that is known.
    pub(super) const fn at(&self) -> u64 {
        match self.when {
            When::At(at) => at,
            When::Phase(..) | When::OnTrial(..) => u64::MAX,
        }
    }
}

impl World {
    /// Orders a fault.
    pub fn on(&mut self, when: When, fault: Fault) {
        self.armed.push(Armed { when, fault });
    }

    /// The lead has entered a phase: what waited for it has a time now.
    pub(super) fn arm_phase(&mut self, phase: Phase) {
        let Some(entered) = PhaseName::of(&phase) else { return };
        for armed in &mut self.armed {
            if let When::Phase(awaited, delay_ms) = armed.when
                && awaited == entered
            {
                armed.when = When::At(self.now + delay_ms);
            }
        }
    }

    /// A board has booted on trial: what waited for it has a time now.
    pub(super) fn arm_trial(&mut self, board: usize) {
        // One for each trial, so that several wait for several.
        let waits = |armed: &&mut Armed| matches!(armed.when, When::OnTrial(it, _) if it == board);
        if let Some(armed) = self.armed.iter_mut().find(waits)
            && let When::OnTrial(_, delay_ms) = armed.when
        {
            armed.when = When::At(self.now + delay_ms);
        }
    }

    /// Something goes wrong, now.
    pub fn apply(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::PowerCut { board, off_ms } => self.cut_power(board, off_ms),
            Fault::FlashCut { board, units, off_ms } => {
                let board = &mut self.boards[board];
                if board.is_on() && !board.flash.is_armed() {
                    board.off_ms = off_ms;
                    board.flash.cut_after(units);
                }
            }
            Fault::AimedCut { board, place, operations, units, off_ms } => {
                let board = &mut self.boards[board];
                if board.is_on() && !board.flash.is_armed() {
                    board.off_ms = off_ms;
                    board.flash.cut_in(place, operations, units);
                }
            }
            Fault::Plague { board, trials } => {
                let reset = Fault::Reset { board, reason: ResetReason::BrownOut };
                for _ in 0..trials {
                    let delay_ms = self.rng.u64(0..PLAGUE_MS_MAX);
                    self.on(When::OnTrial(board, delay_ms), reset);
                }
                self.apply(reset);
            }
            Fault::Reset { board, reason } => {
                let board = &mut self.boards[board];
                if board.is_on() {
                    board.stop(now + board.setup.boot_ms, reason);
                    self.census.count("reset", &reason.to_string());
                    self.timeline.say(now, &name(board), || format!("resets: {reason}"));
                }
            }
            Fault::OneWay { from, to, ms } => {
                self.air.block(from, to, now + ms);
                self.say(|| format!("{to} does not hear {from} for {ms} ms"));
            }
            Fault::Isolated { board, ms } => {
                for other in 0..self.boards.len() {
                    self.air.block(board, other, now + ms);
                    self.air.block(other, board, now + ms);
                }
                self.say(|| format!("{board} is out of reach for {ms} ms"));
            }
            Fault::Rot { board } => self.rot(board),
            Fault::BadWrite { board } => self.boards[board].flash.spoil_next_write(),
            Fault::Replay { board } => self.replay(board),
            Fault::ChannelMoves { to } => self.move_channel(to),
            Fault::Abort => self.abort(),
            Fault::SecondUpload => self.try_second_upload(),
        }
    }

    fn cut_power(&mut self, index: usize, off_ms: u64) {
        let now = self.now;
        let board = &mut self.boards[index];
        if !board.is_on() {
            return;
        }
        let phase = self.observer.last.map_or("idle", |seen| seen.phase.as_str());
        board.flash.power_on();
        board.stop(now + off_ms.max(board.setup.boot_ms), ResetReason::PowerOn);
        self.census.count("cut in phase", phase);
        self.timeline.say(now, &name(board), || format!("loses power for {off_ms} ms"));
    }

    /// Only what is staged rots here: a device whose only image rots is lost, whoever updates it.
    fn rot(&mut self, index: usize) {
        let now = self.now;
        let board = &mut self.boards[index];
        let Some(node) = &board.node else { return };
        let observed = node.agent().report().observed;
        // Once it is armed it has been hashed for the last time.
        if !observed.staged || observed.armed || observed.activated || observed.on_trial {
            return;
        }
        board.flash.rot(1 - node.setup().running_slot);
        self.census.count("rot", "of a staged image");
        self.timeline.say(now, &name(board), || "a bit of its other slot flips".into());
    }

    fn replay(&mut self, index: usize) {
        let heard = &self.heard[index];
        if heard.is_empty() {
            return;
        }
        let (from, frame, number) = heard[self.rng.usize(0..heard.len())].clone();
        let channel = self.boards[index].channel;
        self.air.fly(self.now, (from, index), channel, &frame, number);
        self.census.count("replay", "of an order");
    }

    /// The lead need not do anything about it.
    fn move_channel(&mut self, to: Channel) {
        if self.boards[LEAD].channel == to {
            return;
        }
        for board in &mut self.boards {
            if board.setup.channels == ChannelPlan::Fixed {
                board.channel = to;
            }
        }
        let phase = self.observer.last.map_or("idle", |seen| seen.phase.as_str());
        self.census.count("channel moves in phase", phase);
        self.say(|| format!("the access point goes to channel {to}"));
    }

    fn abort(&mut self) {
        let uptime = self.boards[LEAD].uptime(self.now);
        let board = &mut self.boards[LEAD];
        let Some(node) = &mut board.node else { return };
        let aborted = node.abort(uptime, &mut board.flash);
        self.census.count("abort", if aborted.is_ok() { "taken" } else { "refused" });
        self.say(|| format!("asks to abort: {aborted:?}"));
        self.after(LEAD);
    }

    fn try_second_upload(&mut self) {
        let Some(node) = &mut self.boards[LEAD].node else { return };
        let is_open = node.conducting().is_some_and(|conducting| {
            conducting.record.phase != Phase::Preflight
                && !matches!(conducting.record.phase, Phase::Settled(_))
        });
        if !is_open {
            return;
        }
        let refused = node.upload_begin(SECOND_UPLOAD_BYTES).is_err();
        self.census.count("second rollout", if refused { "refused" } else { "taken" });
        if !refused {
            let text = "a second rollout was taken while one was open".into();
            let violation = super::Violation { invariant: 0, at_ms: self.now, text };
            self.observer.violation.get_or_insert(violation);
        }
    }
}

const SECOND_UPLOAD_BYTES: u32 = 100_000;
/// How long a trial lasts in a plague, at most: too short to be confirmed, mostly.
const PLAGUE_MS_MAX: u64 = 400;
