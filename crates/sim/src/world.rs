//! A world in virtual time: any number of boards with the real node on each, their flash and
//! bootloaders, the air between them, whoever hands over bundles, and everything that goes wrong.
//!
//! One generator with one seed decides everything, so the same seed is the same world, event for
//! event. Time jumps from event to event; nothing here sleeps or reads a clock. After every event
//! the invariants look at what can be observed: see [`Violation`].
//!
//! A test sets up a world by hand with [`World::new`] and [`World::on`]; [`run_seed`] draws one
//! from a seed; [`search`] looks for a seed in which an invariant does not hold.

use std::collections::VecDeque;
use std::rc::Rc;

use fastrand::Rng;
use lockstep_device::Action;
use lockstep_rollout::{Kind, Phase, RolloutRecord, SeatRecord, Verdict};

use crate::bootloader::ResetReason;

mod air;
mod application;
mod board;
mod census;
mod faults;
mod flash;
mod images;
mod invariants;
mod many;
mod radio;
mod search;
mod signing;
mod story;
mod swarm;
mod timeline;
mod upload;

pub use air::{Air, AirCounts, AirWeather};
pub use application::WorldApplication;
pub use board::{Board, BoardSetup, GroupSetup};
pub use census::Census;
pub use faults::{Fault, PhaseName, When};
pub use flash::{ChipFlash, Operation, Place, Residue};
pub use images::{
    Behaviour, Bundle, IMAGE_BYTES, Image, ImageSpec, LEAD_ROLE, Library, Lists, ROLES, Release,
    any_image,
};
pub use invariants::Violation;
pub use many::{Expected, FOUND_MAX, Many, Reached, WORLDS_TO_JUDGE, reached, run_many, shortest};
pub use search::{Found, Outcome, run_scaled, run_seed, search};
pub use signing::{Signing, team_trust};
pub use swarm::{Kinds, Scale, Swarm, draw, draw_scaled};
pub use timeline::{Detail, Timeline};
pub use upload::{Manner, Uploaded};

use board::BootResult;
use faults::Armed;
use invariants::{Observer, Seen};
use upload::Upload;

/// The board that conducts.
pub const LEAD: usize = 0;
/// Boards in a world, at most.
pub const BOARDS_MAX: usize = 16;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct WorldSetup {
    /// The boards, the lead first.
    pub boards: Vec<(BoardSetup, Rc<Image>)>,
    /// What they share.
    pub group: GroupSetup,
    /// What everything else is drawn from.
    pub seed: u64,
    /// What is written down.
    pub detail: Detail,
}

/// A world.
#[derive(Debug)]
pub struct World {
    now: u64,
    boards: Vec<Board>,
    group: GroupSetup,
    air: Air,
    rng: Rng,
    upload: Option<Upload>,
    /// What became of the last upload, once it is over.
    pub uploaded: Option<Uploaded>,
    armed: Vec<Armed>,
    observer: Observer,
    /// Sick firmware is not sick any more.
    is_cured: bool,
    /// Applications come to rest when they are asked.
    rests: bool,
    /// Orders that set out to each board, the latest last.
    heard: Vec<VecDeque<Heard>>,
    /// Journal lines of each board that were told already.
    told: Vec<u32>,
    /// What happened, for people.
    pub timeline: Timeline,
    /// What happened, counted.
    pub census: Census,
}

/// An order on the air: who sent it, its frame, and its number among all frames.
type Heard = (usize, Rc<[u8]>, u64);

impl World {
    /// A world at its beginning: the power comes on.
    ///
    /// # Panics
    ///
    /// When there are more than [`BOARDS_MAX`] boards.
    pub fn new(setup: WorldSetup, library: &mut Library) -> Self {
        let count = setup.boards.len();
        assert!(count <= BOARDS_MAX, "{count} boards, at most {BOARDS_MAX}");
        let mut rng = Rng::with_seed(setup.seed);
        let air = Air::new(count, rng.u64(..));
        let mut observer = Observer::new(count);
        setup.boards.iter().for_each(|(_, image)| observer.allow(image));
        let boards = setup.boards.into_iter().enumerate();
        Self {
            now: 0,
            boards: boards
                .map(|(index, (setup, image))| Board::new(index, setup, library.flash(&image)))
                .collect(),
            group: setup.group,
            air,
            rng,
            upload: None,
            uploaded: None,
            armed: Vec::new(),
            observer,
            is_cured: false,
            rests: false,
            heard: vec![VecDeque::new(); count],
            told: vec![0; count],
            timeline: Timeline::new(setup.detail),
            census: Census::default(),
        }
    }

    /// Milliseconds since the beginning.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// The boards.
    pub fn boards(&self) -> &[Board] {
        &self.boards
    }

    /// The air.
    pub const fn air_mut(&mut self) -> &mut Air {
        &mut self.air
    }

    /// The invariant that did not hold, if one did not.
    pub const fn violation(&self) -> Option<&Violation> {
        self.observer.violation.as_ref()
    }

    /// The lead's record of its last rollout, while it is on.
    pub fn record(&self) -> Option<&RolloutRecord> {
        let node = self.boards.get(LEAD)?.node.as_ref()?;
        Some(node.conducting()?.record)
    }

    /// What a board runs.
    pub fn running(&self, board: usize) -> Option<&Rc<Image>> {
        self.observer.running(board)
    }

    /// Lets time pass until this holds, an invariant does not, or the limit is reached. Returns
    /// whether it holds.
    pub fn run_until(&mut self, limit_ms: u64, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit_ms;
        let mut asks_at = 0;
        loop {
            if self.now >= asks_at {
                if holds(self) {
                    return true;
                }
                asks_at = self.now + ASK_EVERY_MS;
            }
            if self.observer.violation.is_some() || self.next_at() > end {
                self.now = end;
                return false;
            }
            self.step();
        }
    }

    /// The world ends; what it was made of is used again.
    pub fn retire(self, library: &mut Library) {
        self.boards.into_iter().for_each(|board| library.take_back(board.flash));
    }

    /// Lets time pass.
    pub fn run_ms(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    /// Hands a bundle to the lead, from now on.
    pub fn upload(&mut self, bundle: Rc<Bundle>, manner: Manner) {
        for image in &bundle.images {
            match bundle.is_forged {
                true => self.observer.forbid(image),
                false => self.observer.allow(image),
            }
        }
        self.say(|| format!("hands over a bundle of {} bytes", bundle.size_bytes()));
        self.upload = Some(Upload::new(self.now, bundle, manner));
        self.uploaded = None;
    }

    /// Asks the lead to go back. `false`: it refused, or is off.
    pub fn revert(&mut self) -> bool {
        let uptime = self.boards[LEAD].uptime(self.now);
        let board = &mut self.boards[LEAD];
        let Some(node) = &mut board.node else { return false };
        let begun = node.revert(uptime, &mut board.flash);
        self.say(|| format!("asks to go back: {begun:?}"));
        self.after(LEAD);
        begun.is_ok()
    }

    /// Sick firmware gets well: it does as it should from its next boot on, and health from now on.
    pub fn cure(&mut self) {
        self.is_cured = true;
        for index in 0..self.boards.len() {
            if self.boards[index].is_on() && self.boards[index].behaviour != Behaviour::Healthy {
                self.apply(Fault::Reset { board: index, reason: ResetReason::PowerOn });
            }
        }
    }

    /// Faults stop: the air is clear, nothing more is armed, whoever is off is switched on, and
    /// applications come to rest, without which nobody may be rebooted. Sick firmware stays sick.
    pub fn clear(&mut self) {
        self.say(|| "the weather clears".into());
        self.air.clear();
        self.armed.clear();
        self.rests = true;
        for index in 0..self.boards.len() {
            let board = &mut self.boards[index];
            board.flash.heal();
            if let Some(node) = &mut board.node {
                node.application_mut().learn_to_rest();
            }
            if let Some((at, _)) = &mut board.boots_at {
                *at = (*at).min(self.now + board.setup.boot_ms);
            }
        }
    }

    /// What the group still lacks to be settled; `None`: it is settled.
    pub fn unsettled(&self) -> Option<String> {
        self.observer.unsettled(&self.boards, self.record())
    }

    /// Where the lead's rollout stands, seat by seat, for the end of a timeline.
    pub fn tell_seats(&mut self) {
        let Some(conducting) = self.boards[LEAD].node.as_ref().and_then(|it| it.conducting())
        else {
            return;
        };
        let seats = conducting.record.seats.iter().zip(conducting.views);
        let lines = seats.map(|(seat, view)| {
            let report = view.report.map(|it| (it.ticket.attempt, it.state, it.observed));
            let SeatRecord { id, part, target, before, attempt, settled, .. } = seat;
            format!(
                "{id}: {part:?} from {before:?} to {target:?}, attempt {attempt}, \
                 settled {settled}; reports {report:?}"
            )
        });
        let lines: Vec<String> = lines.collect();
        lines.into_iter().for_each(|line| self.say(|| line));
    }

    /// Whether nothing is under way: no upload, and the lead's last rollout is over.
    pub fn is_idle(&self) -> bool {
        let is_over = |record: &RolloutRecord| matches!(record.phase, Phase::Settled(_));
        self.upload.is_none() && self.boards[LEAD].is_on() && self.record().is_none_or(is_over)
    }

    fn next_at(&self) -> u64 {
        let boards = self
            .boards
            .iter()
            .map(|board| board.boots_at.map_or(board.wakes_at.min(board.sends_at), |(at, _)| at));
        let upload = self.upload.as_ref().map_or(u64::MAX, |upload| upload.next_at);
        let armed = self.armed.iter().map(Armed::at).min().unwrap_or(u64::MAX);
        boards.chain([self.air.next_at(), upload, armed]).min().unwrap_or(u64::MAX)
    }

    /// One event.
    fn step(&mut self) {
        self.now = self.next_at().max(self.now);
        let now = self.now;
        if let Some(index) = self.armed.iter().position(|armed| armed.at() <= now) {
            let fault = self.armed.swap_remove(index).fault;
            return self.apply(fault);
        }
        let boots = |board: &Board| board.boots_at.is_some_and(|(at, _)| at <= now);
        if let Some(index) = self.boards.iter().position(boots) {
            return self.boot(index);
        }
        if let Some(flight) = self.air.arrive(now) {
            return self.deliver(&flight);
        }
        if self.upload.as_ref().is_some_and(|upload| upload.next_at <= now) {
            return self.step_upload();
        }
        if let Some(index) = self.boards.iter().position(|board| board.sends_at <= now) {
            return self.send(index);
        }
        if let Some(index) = self.boards.iter().position(|board| board.wakes_at <= now) {
            self.wake(index);
        }
    }

    fn boot(&mut self, index: usize) {
        let now = self.now;
        let seed = self.rng.u64(..);
        let board = &mut self.boards[index];
        let Some((_, reset)) = board.boots_at else { return };
        self.observer.look(now, board, &self.group);
        let (observer, is_cured, rests) = (&self.observer, self.is_cured, self.rests);
        let knows = |slot: u8| {
            let image = Rc::clone(observer.in_slot(index, slot)?);
            let behaviour = match image.spec.behaviour {
                _ if is_cured => Behaviour::Healthy,
                Behaviour::NeverRests if rests => Behaviour::Healthy,
                behaviour => behaviour,
            };
            Some((image, behaviour))
        };
        let result = board.boot(now, reset, &self.group, seed, knows);
        self.told[index] = 0;
        let boot_ms = board.setup.boot_ms;
        match result {
            BootResult::Runs => {
                self.observer.note_boot(now, &self.boards[index]);
                self.observer.look(now, &mut self.boards[index], &self.group);
                self.note_trial(index);
                self.after(index);
            }
            BootResult::Resets(reset, why) => {
                board.stop(now + boot_ms, reset);
                self.timeline.say(now, &name(&self.boards[index]), || why.into());
                self.observer.look(now, &mut self.boards[index], &self.group);
            }
            BootResult::LostPower => self.lose_power(index),
            BootResult::Fails(why) => {
                let text = format!("{} does not boot: {why}", board.id);
                let violation = Violation { invariant: 4, at_ms: now, text };
                self.observer.violation.get_or_insert(violation);
                board.stop(now + boot_ms, reset);
            }
        }
    }

    fn note_trial(&mut self, index: usize) {
        let board = &mut self.boards[index];
        board.orders_heard.clear();
        let on_trial = board.node.as_ref().is_some_and(|node| node.agent().on_trial());
        let last = self.observer.last;
        if on_trial {
            self.census.count("boots", "on trial");
            self.arm_trial(index);
        } else if index == LEAD
            && let Some(Seen { phase: Phase::Trial | Phase::Settling(_), .. }) = last
        {
            self.census.count("recovery", "lead goes on under old firmware");
        }
    }

    fn step_upload(&mut self) {
        let now = self.now;
        let Some(upload) = &mut self.upload else { return };
        let board = &mut self.boards[LEAD];
        let uptime = board.uptime(now);
        let hangs = board.hangs(now);
        let over = match &mut board.node {
            Some(node) if !hangs => {
                let resumed = upload.resumed;
                let over = upload.step(now, uptime, node, &mut board.flash);
                // A lead without power answers nothing.
                let over = over.filter(|_| !board.flash.has_lost_power());
                if upload.resumed != resumed {
                    self.census.count("upload", "resumed");
                }
                over
            }
            _ => upload.wait(now),
        };
        if let Some(uploaded) = over {
            self.upload = None;
            self.say(|| format!("upload: {uploaded:?}"));
            self.uploaded = Some(uploaded);
        }
        self.after(LEAD);
    }

    fn wake(&mut self, index: usize) {
        let now = self.now;
        let board = &mut self.boards[index];
        if board.fault_at().is_some_and(|at| at <= now) {
            let hangs = board.hangs(now);
            let reason = if hangs { ResetReason::Watchdog } else { ResetReason::Panic };
            return self.apply(Fault::Reset { board: index, reason });
        }
        let uptime = board.uptime(now);
        let hangs = board.hangs(now);
        board.wakes_at = u64::MAX;
        if let Some(node) = &mut board.node
            && !hangs
        {
            node.tick(uptime, &mut board.flash);
        }
        self.after(index);
    }

    /// What every event of a board ends with.
    fn after(&mut self, index: usize) {
        let now = self.now;
        self.tell_journal(index);
        if self.boards[index].flash.has_lost_power() {
            return self.lose_power(index);
        }
        self.send(index);
        let reboots = self.act(index);
        if !self.boards[index].is_on() {
            return;
        }
        self.observer.look(now, &mut self.boards[index], &self.group);
        if index == LEAD {
            self.look_at_record();
        }
        let board = &mut self.boards[index];
        if reboots {
            board.stop(now + board.setup.boot_ms, ResetReason::Software);
        } else {
            board.plan_wake(now);
        }
    }

    /// What the node asks its board to do. Returns whether it reboots.
    fn act(&mut self, index: usize) -> bool {
        loop {
            let board = &mut self.boards[index];
            let Some(node) = &mut board.node else { return false };
            match node.poll_action() {
                Some(Action::Reboot(_)) => return true,
                Some(Action::Tune(channel)) => {
                    board.channel = channel;
                    self.send(index);
                }
                None => break,
            }
        }
        let board = &mut self.boards[index];
        let seeks = board.node.as_ref().is_some_and(|node| node.seeks_lead());
        match (core::mem::replace(&mut board.was_seeking, seeks), seeks) {
            (true, false) => self.census.count("channel", "lead found"),
            (false, true) => self.census.count("channel", "lead sought"),
            (true, true) | (false, false) => (),
        }
        let patches = board.node.as_ref().is_some_and(|node| node.agent().is_patching());
        match (core::mem::replace(&mut board.was_patching, patches), patches) {
            (false, true) => self.census.count("patch", "begun"),
            (true, false) => {
                let made =
                    board.node.as_ref().is_some_and(|it| it.agent().report().observed.staged);
                self.census.count("patch", if made { "made" } else { "came to nothing" });
            }
            (true, true) | (false, false) => (),
        }
        let poisoned = board.node.as_ref().map_or(0, |node| node.block_counts().poisoned);
        if poisoned > board.poisoned {
            self.census.add("generation", "poisoned", u64::from(poisoned - board.poisoned));
            board.poisoned = poisoned;
        }
        false
    }

    fn lose_power(&mut self, index: usize) {
        let now = self.now;
        let board = &mut self.boards[index];
        let off_ms = board.off_ms.max(board.setup.boot_ms);
        let cut = board.flash.power_on();
        board.stop(now + off_ms, ResetReason::PowerOn);
        let phase = self.observer.last.map_or("idle", |seen| seen.phase.as_str());
        if let Some((operation, place)) = cut {
            let operation = match operation {
                Operation::Erase => "erase",
                Operation::Write => "write",
            };
            self.census.count("cut in flash", &format!("{operation} of {}", place.as_str()));
            self.timeline.say(now, &name(&self.boards[index]), || {
                format!("loses power in an {operation} of {}, for {off_ms} ms", place.as_str())
            });
        }
        self.census.count("cut in phase", phase);
        self.observer.look(now, &mut self.boards[index], &self.group);
    }

    /// What the lead's record tells: phases, verdicts, and what is to happen because of them.
    fn look_at_record(&mut self) {
        let Some(record) = self.boards[LEAD]
            .node
            .as_ref()
            .and_then(|node| node.conducting())
            .map(|conducting| conducting.record)
        else {
            return;
        };
        let Some(before) = self.observer.look_at_record(self.now, record) else { return };
        let Some(seen) = self.observer.last else { return };
        self.count_record(before, seen);
        if before.is_none_or(|before| (before.id, before.phase) != (seen.id, seen.phase)) {
            self.arm_phase(seen.phase);
        }
    }

    fn count_record(&mut self, before: Option<Seen>, seen: Seen) {
        let is_new = before.is_none_or(|before| before.id != seen.id);
        if is_new {
            self.census.count("begun", seen.kind.as_str());
        }
        if let Some(before) = before.filter(|_| !is_new) {
            let again = seen.reactivations.saturating_sub(before.reactivations);
            if again > 0 {
                self.census.add("recovery", "activated again", again.into());
            }
            if seen.restarts > before.restarts {
                self.census
                    .count("recovery", &format!("lead restarted in {}", seen.phase.as_str()));
            }
        }
        let phase_before = before.filter(|_| !is_new).map(|before| before.phase);
        match (phase_before.and_then(|phase| phase.verdict()), seen.phase.verdict()) {
            (None, Some(Verdict::Keep)) => {
                self.census.count("verdict", &format!("keep of {}", seen.kind.as_str()));
            }
            (None, Some(Verdict::Revert(cause))) => {
                self.census.count("verdict", &format!("revert of {}", seen.kind.as_str()));
                self.census.count("cause", cause.code());
            }
            _ => (),
        }
        if seen.kind == Kind::Repair && is_new {
            self.census.count("recovery", "repair opened");
        }
        if matches!(seen.phase, Phase::Settled(_)) && phase_before != Some(seen.phase) {
            self.census.count("rollouts", "settled");
        }
    }

    fn tell_journal(&mut self, index: usize) {
        if !self.timeline.is_kept() {
            return;
        }
        let board = &self.boards[index];
        let Some(node) = &board.node else { return };
        let who = name(board);
        for line in node.journal().lines_after(self.told[index]) {
            self.told[index] = line.seq;
            self.timeline.say(self.now, &who, || line.text.clone());
        }
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        self.timeline.say(self.now, "", text);
    }
}

/// How a board is called in timelines.
fn name(board: &Board) -> String {
    format!("{} {}", board.index, board.setup.role)
}

/// How often it is asked whether something holds: some things are not cheap to tell.
const ASK_EVERY_MS: u64 = 5;
