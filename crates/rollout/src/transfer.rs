//! Sending an object (a manifest package or an artifact) to every member that wants it, over a
//! radio that loses frames.
//!
//! ```text
//! Waiting ──everybody takes blocks, or has taken too long──► Sending ──plan done──► Asking
//!    ▲                                                        │   ▲                   │
//!    │                                            repairs sent ▼   │ answer, silence   │
//!    │                                                      Mending                    │
//!    └────────────────────────────all have answered, or long enough────────────────────┘
//! ```
//!
//! A *round* sends, by what members said last, repair frames of the generations of which little is
//! lacking, and whole generations of which nothing has come; then everybody is asked what is
//! lacking. After the repair frames of a generation only those are asked whom they were too few
//! for: they answer with what they lack, whoever lacks most first, and the silence of all the
//! others costs no frame.
//!
//! Large blocks cost less time in the air, but a member can hold few large repair frames. So they
//! are sent to few members, who all have to take them; more members get small ones.
//!
//! Nothing is asked of a member while it erases its flash, and nothing is sent that it could not
//! write: it says how far apart blocks have to be.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use lockstep_proto::frame::block::{ASKED_MAX, Session};
use lockstep_proto::frame::coding::{Cut, REPAIRS_HELD_MAX, Shape};
use lockstep_proto::frame::report::{Readiness, Wants};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

mod due;
mod mixing;
mod planning;
mod target;

pub use due::Due;

use target::{QUESTIONS_MAX, Target};

/// How long the sender waits for what, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between the turns of two members that answer.
    pub slot_ms: u8,
    /// What a question to all, its handling and the first answer may take. Nobody waits for longer
    /// than the answers do.
    pub answer_ms: u64,
    /// What repair frames, their handling and the first answer take: so long is always waited.
    pub mend_ms: u64,
}

/// One object on its way.
#[derive(Debug, Clone)]
pub struct Sender {
    session: Session,
    cut: Cut,
    /// Whether large blocks may be sent.
    sends_large: bool,
    /// Blocks were sent: the shape stays, if everybody takes it.
    has_begun: bool,
    timing: Timing,
    targets: Vec<Target>,
    state: State,
    /// How many times the last question is to be said again.
    repeats: u8,
    /// What is left of this round.
    plan: VecDeque<Step>,
    /// Generations that this round sent whole.
    whole: Vec<u16>,
    /// The last of them and one more.
    sent_up_to: u16,
    ahead: Ahead,
    /// Generations of which somebody lacks too much for repair frames, as it said when they were
    /// mended.
    again: Vec<u16>,
    /// Seed of the next repair frame.
    seed: u16,
    /// Repair frames that were sent of the generation that is mended now, since it was asked about.
    repairs_sent: u16,
    sent_at: Option<Instant>,
    /// When members were asked last whether they are done with their flash.
    asked_busy_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody takes blocks, or others may be about to speak.
    Waiting {
        /// How long to wait for others, once somebody takes blocks.
        until: Option<Instant>,
    },
    /// The plan is sent.
    Sending,
    /// Repair frames of this generation were sent; whoever they are too few for says so.
    Mending {
        generation: u16,
        until: Instant,
        /// How many times they were sent.
        bursts: u8,
        /// So many more are to be sent, after what was said to be lacking.
        more: u16,
    },
    /// Everybody was asked.
    Asking { until: Instant },
}

/// Whether what this round's whole generations lack is mended before everybody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    No,
    /// It was foreseen, and is mended.
    Foreseen,
    /// And once more, where repair frames were of no use to somebody.
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Blocks of the head of an image.
    Head { next: u16 },
    /// All blocks of the generations that this round sends whole: where it is among them.
    Whole { row: u16, place: u16 },
    /// Some blocks of a generation: somebody lacks too many of them for repair frames.
    Part { generation: u16, next: u16, left: u16 },
    /// Repair frames.
    Repair { generation: u16, left: u16, bursts: u8 },
    /// The large blocks that somebody lacks, mixed as far as that helps.
    Mend { generation: u16, has_begun: bool },
}

impl Sender {
    /// A sender for one object of `size_bytes`. Nobody wants it yet. `seed` should differ from that
    /// of another sender of the same object: repair frames that members have already are of no use.
    pub const fn new(session: Session, size_bytes: u32, timing: Timing, seed: u16) -> Self {
        Self {
            session,
            cut: Cut { shape: Shape::Small, size_bytes },
            sends_large: false,
            has_begun: false,
            timing,
            targets: Vec::new(),
            state: State::Waiting { until: None },
            repeats: 0,
            plan: VecDeque::new(),
            whole: Vec::new(),
            sent_up_to: 0,
            ahead: Ahead::No,
            again: Vec::new(),
            seed,
            repairs_sent: 0,
            sent_at: None,
            asked_busy_at: None,
        }
    }

    /// In large blocks, if this device sends them, at most [`LARGE_TARGETS_MAX`] members are to get
    /// the object, and all of them who want it take them.
    pub const fn with_large(mut self, sends_large: bool, members: usize) -> Self {
        self.sends_large = sends_large && members <= LARGE_TARGETS_MAX;
        self
    }

    /// The object's session.
    pub const fn session(&self) -> Session {
        self.session
    }

    /// How the object is cut at present.
    pub const fn cut(&self) -> Cut {
        self.cut
    }

    /// A member says what it lacks. Another session's wants are ignored. Returns whether it has
    /// come any further since it last spoke: a repeated question is no progress.
    pub fn note_wants(&mut self, now: Instant, device: DeviceId, wants: Wants) -> bool {
        if wants.session != self.session || wants.readiness == Readiness::Done {
            let known = self.targets.len();
            self.remove(device);
            return self.targets.len() < known;
        }
        let known = self.targets.iter().find(|target| target.device == device);
        let loss_permille = known.map_or(0, |known| known.loss_permille);
        let is_loss_known = known.is_some_and(|known| known.is_loss_known);
        let mut target = Target {
            device,
            wants,
            has_answered: true,
            unanswered: 0,
            busy_since: (wants.readiness == Readiness::Busy).then_some(now),
            due: 0,
            loss_permille,
            is_loss_known,
            is_asked: true,
        };
        if let Some(estimate) = known.and_then(|known| self.loss_of_repairs(known, &target)) {
            target.loss_permille = u16::midpoint(loss_permille, estimate);
        }
        self.note_mending(&target);
        let has_room = self.targets.len() < TARGETS_MAX;
        match self.targets.iter_mut().find(|target| target.device == device) {
            Some(known) => {
                let advanced = known.wants != wants;
                target.busy_since = target.busy_since.map(|at| known.busy_since.unwrap_or(at));
                *known = target;
                advanced
            }
            None if has_room => {
                self.targets.push(target);
                true
            }
            // More than there can be members: an impostor with the key, or a bug. Not served.
            None => false,
        }
    }

    /// Forgets a member that has everything, or has gone.
    pub fn remove(&mut self, device: DeviceId) {
        self.targets.retain(|target| target.device != device);
    }

    /// The next frame to send, if one is due.
    pub fn next_frame(&mut self, now: Instant) -> Option<Due> {
        if self.targets.is_empty() {
            self.state = State::Waiting { until: None };
            self.plan.clear();
            return None;
        }
        // From an answer to the frame that follows from it there are three states at most.
        for _ in 0..TURNS_MAX {
            match self.state {
                State::Waiting { .. } => {
                    if !self.may_begin(now) {
                        return self.ask_busy(now);
                    }
                    self.state = State::Sending;
                    self.begin_round();
                }
                State::Sending => return self.next_of_plan(now),
                State::Mending { generation, bursts, more: 0, .. } if self.repeats > 0 => {
                    self.repeats -= 1;
                    return Some(self.ask_lacking(now, generation, bursts));
                }
                State::Mending { generation, until, bursts, more: left } => {
                    if left == 0 && now < until {
                        return None;
                    }
                    self.state = State::Sending;
                    self.repairs_sent = 0;
                    if left > 0 && bursts < BURSTS_MAX {
                        self.plan.push_front(Step::Repair { generation, left, bursts });
                    }
                }
                State::Asking { .. } if self.repeats > 0 => {
                    self.repeats -= 1;
                    return Some(self.ask_unanswered(now));
                }
                State::Asking { until } => {
                    if self.served().any(Target::is_awaited) {
                        if now < until {
                            return None;
                        }
                        self.presume_busy(now);
                        let silent = self.served().filter(|target| target.is_awaited()).count();
                        let asked = self.served().filter(|target| target.is_asked).count();
                        let goes_on =
                            silent <= asked / SILENT_SHARE && self.answered_lack_something();
                        if silent > 0 && !goes_on {
                            return self.ask(now);
                        }
                    }
                    self.note_loss();
                    self.state = State::Waiting { until: Some(now) };
                }
            }
        }
        None
    }

    /// When [`Sender::next_frame`] has something at the latest; `None` if nobody wants anything.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        self.served().next()?;
        match self.state {
            State::Waiting { until: None } if self.served().any(Target::takes) => Some(now),
            State::Waiting { until: None } => self.busy_limit(),
            State::Waiting { until: Some(until) } => {
                let wants_head = self.served().any(|it| it.wants.readiness == Readiness::Head);
                let waits = !wants_head && !self.served().all(Target::takes);
                let limit = self.busy_limit().filter(|_| waits);
                Some(limit.map_or(until, |limit| limit.max(until)))
            }
            State::Sending => Some(self.may_send_at(now)),
            State::Mending { more: 1.., .. } => Some(now),
            State::Mending { until, .. } => Some(until),
            State::Asking { until } => Some(until),
        }
    }

    /// Members that are not given up for silence.
    fn served(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(|target| target.unanswered < QUESTIONS_MAX)
    }

    /// Whoever takes blocks does not wait for ever for those that erase.
    fn busy_limit(&self) -> Option<Instant> {
        if !self.served().any(Target::takes) {
            return None;
        }
        self.served().filter_map(|target| target.busy_since).map(|at| at + BUSY_MS_MAX).max()
    }

    fn may_begin(&mut self, now: Instant) -> bool {
        // A head is judged, and then flash is erased, by all of them at the same time.
        let wants_head = self.served().any(|it| it.wants.readiness == Readiness::Head);
        let takes = self.served().filter(|target| target.takes()).count();
        if takes == 0 {
            self.state = State::Waiting { until: None };
            return false;
        }
        let State::Waiting { until } = &mut self.state else { return false };
        // Others may speak a moment later.
        let until = *until.get_or_insert(now + self.timing.answer_ms);
        let is_late = self.busy_limit().is_none_or(|limit| now >= limit);
        let all_take = self.served().count() == takes;
        now >= until && (all_take || is_late || wants_head)
    }

    fn answered_lack_something(&self) -> bool {
        let answered = self.served().filter(|target| target.has_answered && target.takes());
        answered.flat_map(|target| target.wants.lacking.counts()).any(|&count| count > 0)
    }

    /// How far apart the slowest member wants its blocks.
    fn interval_ms(&self) -> u16 {
        self.served().filter(|it| it.takes()).map(|it| it.wants.interval_ms).max().unwrap_or(0)
    }

    fn may_send_at(&self, now: Instant) -> Instant {
        let wait_ms = u64::from(self.interval_ms().min(INTERVAL_MS_MAX));
        self.sent_at.map_or(now, |at| (at + wait_ms).max(now))
    }

    fn next_of_plan(&mut self, now: Instant) -> Option<Due> {
        if self.may_send_at(now) > now {
            return None;
        }
        self.sent_at = Some(now);
        self.begin_mending();
        if self.plan.is_empty() {
            self.plan_again();
        }
        let Some(step) = self.plan.front_mut() else { return self.ask_all(now) };
        let whole = self.cut.shape.generation_blocks();
        let index = match step {
            Step::Head { next } => {
                let index = *next;
                *next += 1;
                if *next >= self.cut.shape.head_blocks() || self.cut.block((*next).into()).is_none()
                {
                    self.plan.pop_front();
                }
                index
            }
            Step::Whole { row, place } => {
                let (row, place) = (*row, *place);
                self.take_of_whole(row, place)
            }
            Step::Part { generation, next, left } => {
                let index = generation.saturating_mul(whole).saturating_add(*next);
                *next = (*next + 1) % self.cut.blocks_of(*generation).max(1);
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.plan.pop_front();
                }
                index
            }
            Step::Repair { generation, left: 0, bursts } => {
                let (generation, bursts) = (*generation, *bursts + 1);
                self.plan.pop_front();
                self.repeats = self.copies() - 1;
                return Some(self.ask_lacking(now, generation, bursts));
            }
            Step::Repair { generation, left, .. } => {
                *left -= 1;
                let generation = *generation;
                let named = self.seed.into();
                self.seed = self.seed.wrapping_add(1);
                self.repairs_sent = self.repairs_sent.saturating_add(1);
                return Some(Due::Repair { shape: self.cut.shape, generation, named });
            }
            Step::Mend { generation, .. } => {
                let generation = *generation;
                let named = self.next_mix(generation);
                if named.count_ones() > 1 {
                    return Some(Due::Repair { shape: self.cut.shape, generation, named });
                }
                let place = u16::try_from(named.trailing_zeros()).unwrap_or(0);
                generation.saturating_mul(whole).saturating_add(place)
            }
        };
        let Some((offset_bytes, len_bytes)) = self.cut.block(index.into()) else {
            self.plan.pop_front();
            return None;
        };
        Some(Due::Block { shape: self.cut.shape, index, offset_bytes, len_bytes })
    }

    /// Asks those whom the repair frames of a generation were too few for.
    fn ask_lacking(&mut self, now: Instant, generation: u16, bursts: u8) -> Due {
        let slot_ms = LACKING_SLOT_MS;
        let until = now + (LACKING_SLOTS * u64::from(slot_ms) + self.timing.mend_ms);
        self.state = State::Mending { generation, until, bursts, more: 0 };
        Due::Ask { generation: Some(generation), slot_ms, devices: Vec::new() }
    }

    /// A question to everybody who could answer now.
    fn ask_all(&mut self, now: Instant) -> Option<Due> {
        self.choose_asked();
        self.ask(now)
    }

    /// Asks those who have not answered yet. Who leaves too many questions unanswered is not waited
    /// for any more.
    fn ask(&mut self, now: Instant) -> Option<Due> {
        let silent = self.targets.iter_mut().filter(|it| it.is_served() && it.is_awaited());
        let mut count = 0;
        silent.for_each(|target| {
            target.unanswered += 1;
            count += 1;
        });
        if count == 0 {
            self.state = State::Waiting { until: Some(now) };
            return None;
        }
        self.repeats = self.copies() - 1;
        Some(self.ask_unanswered(now))
    }

    /// How many times a question is said, so that few miss it.
    fn copies(&self) -> u8 {
        let worst = self.served().map(|target| target.loss_permille).max().unwrap_or(0);
        match worst {
            0..30 => 1,
            30..150 => 2,
            _ => 3,
        }
    }

    fn ask_unanswered(&mut self, now: Instant) -> Due {
        let silent = self.targets.iter().filter(|it| it.is_awaited());
        let devices: Vec<_> = silent.map(|it| it.device).take(ASKED_MAX).collect();
        let slot_ms = self.timing.slot_ms;
        let turns_ms = u64::from(slot_ms) * devices.len() as u64;
        self.state = State::Asking { until: now + (turns_ms + self.timing.answer_ms) };
        Due::Ask { generation: None, slot_ms, devices }
    }

    /// Who does not answer after the head of an image has got all of it, most likely: it erases its
    /// flash, hears nothing meanwhile, and says when it takes blocks.
    fn presume_busy(&mut self, now: Instant) {
        let silent = self.targets.iter_mut().filter(|it| !it.has_answered);
        let asked_enough = |it: &&mut Target| it.unanswered >= HEAD_QUESTIONS;
        for target in silent.filter(|it| it.wants.readiness == Readiness::Head).filter(asked_enough)
        {
            target.wants.readiness = Readiness::Busy;
            target.busy_since = Some(now);
            (target.has_answered, target.unanswered) = (true, 0);
        }
    }

    fn note_mending(&mut self, target: &Target) {
        let State::Mending { generation, more, .. } = &mut self.state else { return };
        if target.lacks(self.cut, *generation) <= REPAIRS_HELD_MAX {
            *more = (*more).max(target.burst(self.cut, *generation));
        } else if !self.again.contains(generation) {
            self.again.push(*generation);
        }
    }

    /// Share of the repair frames that got lost, per thousand, if a member still lacks blocks after
    /// them. Without this, one that was once thought to hear everything would get too few of them
    /// for ever: what it has of a generation is lost when the next one is mended.
    fn loss_of_repairs(&self, before: &Target, after: &Target) -> Option<u16> {
        let State::Mending { generation, .. } = self.state else { return None };
        let (lacked, lacks) =
            (before.lacks(self.cut, generation), after.lacks(self.cut, generation));
        let sent = u32::from(self.repairs_sent);
        if lacks == 0 || lacks > REPAIRS_HELD_MAX || sent < LOSS_FRAMES_MIN {
            return None;
        }
        let gained = u32::from(lacked.saturating_sub(lacks)).min(sent);
        u16::try_from((sent - gained) * 1000 / sent).ok()
    }

    /// Once somebody takes blocks the others are most likely about to: whoever still says that its
    /// flash is busy may have said otherwise since, and was not heard.
    fn ask_busy(&mut self, now: Instant) -> Option<Due> {
        let waits = self.asked_busy_at.is_some_and(|at| now < at + ASK_BUSY_MS);
        if waits || !self.served().any(Target::takes) {
            return None;
        }
        let is_busy = |target: &&Target| !target.takes();
        let devices: Vec<_> =
            self.served().filter(is_busy).map(|it| it.device).take(ASKED_MAX).collect();
        if devices.is_empty() {
            return None;
        }
        self.asked_busy_at = Some(now);
        Some(Due::Ask { generation: None, slot_ms: self.timing.slot_ms, devices })
    }

    fn note_loss(&mut self) {
        let sent: u32 = self.whole.iter().map(|&it| u32::from(self.cut.blocks_of(it))).sum();
        if self.ahead != Ahead::No || sent < LOSS_FRAMES_MIN {
            return;
        }
        for target in self.targets.iter_mut().filter(|it| it.has_answered && it.takes()) {
            let lost: u32 =
                self.whole.iter().map(|&it| u32::from(target.lacks(self.cut, it))).sum();
            target.loss_permille = u16::try_from(lost.min(sent) * 1000 / sent).unwrap_or(1000);
            target.is_loss_known = true;
        }
    }
}

/// More members than these get small blocks: of so many one seldom finds a mix that helps all of
/// them. `docs/air.md` has the figures.
pub const LARGE_TARGETS_MAX: usize = 8;
/// Members served at once, at most.
pub const TARGETS_MAX: usize = 64;
/// Bytes sent whole in one round, at most: half of what members take from their first incomplete
/// generation on, so that one that is a round behind loses nothing.
const ROUND_BYTES_MAX: u32 = 25 * 28_672;
/// How long the whole generations of one round take at most, unless it is just one.
const ROUND_MS_MAX: u64 = 10_000;
/// What a member may ask for between two blocks, in milliseconds.
const INTERVAL_MS_MAX: u16 = 2_000;
/// The round goes on without the answers of one member in so many.
const SILENT_SHARE: usize = 12;
/// Whoever leaves so many questions unanswered after the head of an image is erasing.
const HEAD_QUESTIONS: u8 = 3;
/// So often those are asked who say that their flash is busy, in milliseconds.
const ASK_BUSY_MS: u64 = 150;
/// How long a member's flash may be busy before the others go on without it, in milliseconds.
const BUSY_MS_MAX: u64 = 30_000;
/// So many times in one round repair frames of one generation are sent.
const BURSTS_MAX: u8 = 12;
/// Slots in which those answer whom repair frames were too few for.
pub const LACKING_SLOTS: u64 = 6;
/// How long one of these is: those behind it hear who speaks, and most wait no further.
const LACKING_SLOT_MS: u8 = 1;
/// Fewer blocks or repair frames than this tell nothing of the loss.
const LOSS_FRAMES_MIN: u32 = 16;
const TURNS_MAX: usize = 8;

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
