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
//! Nothing is asked of a member while it erases its flash, and nothing is sent that it could not
//! write: it says how far apart blocks have to be.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use lockstep_proto::frame::block::{ASKED_MAX, Ask, Block, BlockFrame, Repair, Session};
use lockstep_proto::frame::coding::{
    BLOCK_BYTES_MAX, Cut, GENERATIONS_OPEN, REPAIRS_HELD_MAX, Shape,
};
use lockstep_proto::frame::report::{HEAD_BLOCKS, Readiness, Wants};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

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
    timing: Timing,
    targets: Vec<Target>,
    state: State,
    /// What is left of this round.
    plan: VecDeque<Step>,
    /// Generations that this round sent whole.
    whole: Vec<u16>,
    /// Seed of the next repair frame.
    seed: u16,
    /// Share of the whole generations that got lost on the way to the worst member, per thousand.
    loss_permille: u32,
    sent_at: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Target {
    device: DeviceId,
    wants: Wants,
    /// It has spoken since the last question to all.
    has_answered: bool,
    /// Questions since it spoke last.
    unanswered: u8,
    /// Since when it has been saying that its flash is busy.
    busy_since: Option<Instant>,
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
        /// The most that was said to be lacking.
        lacking: u8,
    },
    /// Everybody was asked.
    Asking { until: Instant },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Blocks of the head of an image.
    Head { next: u16 },
    /// All blocks of a generation.
    Whole { generation: u16, next: u16 },
    /// Repair frames.
    Repair { generation: u16, left: u16, bursts: u8 },
}

/// A frame to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A block.
    Block {
        /// How the object is cut.
        shape: Shape,
        /// Which block.
        index: u16,
        /// Where it begins in the object, in bytes.
        offset_bytes: u32,
        /// Its length in bytes.
        len_bytes: u32,
    },
    /// The XOR of several blocks of one generation.
    Repair {
        /// How the object is cut.
        shape: Shape,
        /// Which generation.
        generation: u16,
        /// What the members know the mix by.
        seed: u16,
    },
    /// A question.
    Ask {
        /// If set, only those are asked who lack something of this generation.
        generation: Option<u16>,
        /// Time between two answers, in milliseconds.
        slot_ms: u8,
        /// Who is to answer when.
        devices: Vec<DeviceId>,
    },
}

impl Due {
    /// The frame itself. `read` fills its second argument with bytes of the object from an offset
    /// on, and `payload` keeps what goes into the frame. `None`: not all of it could be read.
    pub fn frame<'a>(
        &'a self,
        session: Session,
        cut: Cut,
        payload: &'a mut [u8; BLOCK_BYTES_MAX],
        mut read: impl FnMut(u32, &mut [u8]) -> Option<()>,
    ) -> Option<BlockFrame<'a>> {
        Some(match *self {
            Self::Block { shape, index, offset_bytes, len_bytes } => {
                let payload = payload.get_mut(..usize::try_from(len_bytes).ok()?)?;
                read(offset_bytes, payload)?;
                BlockFrame::Block(Block { session, shape, index, payload })
            }
            Self::Repair { shape, generation, seed } => {
                let sum = payload.get_mut(..usize::try_from(shape.block_bytes()).ok()?)?;
                sum.fill(0);
                let mix = cut.mix(session, generation, seed);
                let base = u32::from(generation) * u32::from(shape.generation_blocks());
                for place in (0..u128::BITS).filter(|place| mix >> place & 1 == 1) {
                    let (offset, len_bytes) = cut.block(base + place)?;
                    let mut block = [0; BLOCK_BYTES_MAX];
                    let block = block.get_mut(..usize::try_from(len_bytes).ok()?)?;
                    read(offset, block)?;
                    sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= *byte);
                }
                BlockFrame::Repair(Repair { session, shape, generation, seed, payload: sum })
            }
            Self::Ask { generation, slot_ms, ref devices } => {
                BlockFrame::Ask(Ask::new(session, generation, slot_ms, devices))
            }
        })
    }
}

impl Sender {
    /// A sender for one object of `size_bytes`. Nobody wants it yet. `seed` should differ from that
    /// of another sender of the same object: repair frames that members have already are of no use.
    pub const fn new(session: Session, size_bytes: u32, timing: Timing, seed: u16) -> Self {
        Self {
            session,
            cut: Cut { shape: Shape::Small, size_bytes },
            timing,
            targets: Vec::new(),
            state: State::Waiting { until: None },
            plan: VecDeque::new(),
            whole: Vec::new(),
            seed,
            loss_permille: 0,
            sent_at: None,
        }
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
        self.note_mending(&wants);
        let mut target = Target {
            device,
            wants,
            has_answered: true,
            unanswered: 0,
            busy_since: (wants.readiness == Readiness::Busy).then_some(now),
        };
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
                        return None;
                    }
                    self.begin_round();
                }
                State::Sending => return self.next_of_plan(now),
                State::Mending { generation, until, bursts, lacking } => {
                    if lacking == 0 && now < until {
                        return None;
                    }
                    self.state = State::Sending;
                    if lacking > 0 && bursts < BURSTS_MAX {
                        let left = self.burst(lacking);
                        self.plan.push_front(Step::Repair { generation, left, bursts });
                    }
                }
                State::Asking { until } => {
                    if self.served().any(|target| !target.has_answered) {
                        return if now < until { None } else { self.ask(now) };
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
            State::Waiting { until: Some(until) } if self.served().all(Target::takes) => {
                Some(until)
            }
            State::Waiting { until: Some(until) } => {
                Some(self.busy_limit().map_or(until, |limit| limit.max(until)))
            }
            State::Sending => Some(self.may_send_at(now)),
            State::Mending { lacking: 1.., .. } => Some(now),
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
        now >= until && (all_take || is_late)
    }

    fn begin_round(&mut self) {
        self.plan.clear();
        self.whole.clear();
        self.state = State::Sending;
        let open = || self.targets.iter().filter(|it| it.is_served() && it.takes());
        if open().any(|target| target.wants.readiness == Readiness::Head) {
            self.plan.push_back(Step::Head { next: 0 });
            return;
        }
        let Some(base) = open().map(|target| target.wants.first).min() else { return };
        let mut whole_left = self.whole_generations_max();
        for generation in base..base.saturating_add(2 * GENERATIONS_OPEN) {
            let lacking = open().map(|target| target.lacks(generation)).max().unwrap_or(0);
            let blocks = self.cut.blocks_of(generation);
            if lacking == 0 || blocks == 0 {
                continue;
            }
            if u16::from(lacking) < blocks && lacking <= REPAIRS_HELD_MAX {
                let left = self.burst(lacking);
                self.plan.push_back(Step::Repair { generation, left, bursts: 0 });
                continue;
            }
            if whole_left == 0 {
                break;
            }
            whole_left -= 1;
            self.whole.push(generation);
            self.plan.push_back(Step::Whole { generation, next: 0 });
        }
    }

    /// As many as keep a round short enough for its answers to tell of progress.
    fn whole_generations_max(&self) -> u16 {
        let blocks = u64::from(self.cut.shape.generation_blocks());
        let generation_ms = blocks * u64::from(self.interval_ms());
        let fit = ROUND_MS_MAX.checked_div(generation_ms).unwrap_or(u64::MAX);
        let bytes = ROUND_BYTES_MAX / self.cut.shape.generation_bytes();
        u16::try_from(fit).unwrap_or(u16::MAX).clamp(1, u16::try_from(bytes).unwrap_or(1))
    }

    /// How far apart the slowest member wants its blocks.
    fn interval_ms(&self) -> u16 {
        self.served().filter(|it| it.takes()).map(|it| it.wants.interval_ms).max().unwrap_or(0)
    }

    fn may_send_at(&self, now: Instant) -> Instant {
        let wait_ms = u64::from(self.interval_ms().min(INTERVAL_MS_MAX));
        self.sent_at.map_or(now, |at| (at + wait_ms).max(now))
    }

    /// How many repair frames to send, so that `lacking` of them arrive and are independent.
    fn burst(&self, lacking: u8) -> u16 {
        let arrives = 1000 - self.loss_permille.min(LOSS_PERMILLE_MAX);
        let needed = (u32::from(lacking) * 1000).div_ceil(arrives) + SPARE_REPAIRS;
        u16::try_from(needed).unwrap_or(u16::MAX)
    }

    fn next_of_plan(&mut self, now: Instant) -> Option<Due> {
        if self.may_send_at(now) > now {
            return None;
        }
        self.sent_at = Some(now);
        let Some(step) = self.plan.front_mut() else { return self.ask_all(now) };
        let whole = self.cut.shape.generation_blocks();
        let index = match step {
            Step::Head { next } => {
                let index = *next;
                *next += 1;
                if *next >= HEAD_BLOCKS || self.cut.block((*next).into()).is_none() {
                    self.plan.pop_front();
                }
                index
            }
            Step::Whole { generation, next } => {
                let (generation, place) = (*generation, *next);
                *next += 1;
                if *next >= self.cut.blocks_of(generation) {
                    self.plan.pop_front();
                }
                generation.saturating_mul(whole).saturating_add(place)
            }
            Step::Repair { generation, left: 0, bursts } => {
                let (generation, bursts) = (*generation, *bursts + 1);
                self.plan.pop_front();
                return Some(self.ask_lacking(now, generation, bursts));
            }
            Step::Repair { generation, left, .. } => {
                *left -= 1;
                let generation = *generation;
                let seed = self.seed;
                self.seed = self.seed.wrapping_add(1);
                return Some(Due::Repair { shape: self.cut.shape, generation, seed });
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
        let slot_ms = self.timing.slot_ms;
        let until = now + (LACKING_SLOTS * u64::from(slot_ms) + self.timing.mend_ms);
        self.state = State::Mending { generation, until, bursts, lacking: 0 };
        Due::Ask { generation: Some(generation), slot_ms, devices: Vec::new() }
    }

    /// A question to everybody who could answer now.
    fn ask_all(&mut self, now: Instant) -> Option<Due> {
        for target in &mut self.targets {
            target.has_answered = target.wants.readiness == Readiness::Busy;
        }
        self.ask(now)
    }

    /// Asks those who have not answered yet. Who leaves too many questions unanswered is not waited
    /// for any more.
    fn ask(&mut self, now: Instant) -> Option<Due> {
        let mut devices = Vec::new();
        let silent = self.targets.iter_mut().filter(|it| it.is_served() && !it.has_answered);
        for target in silent.take(ASKED_MAX) {
            target.unanswered += 1;
            devices.push(target.device);
        }
        if devices.is_empty() {
            self.state = State::Waiting { until: Some(now) };
            return None;
        }
        let slot_ms = self.timing.slot_ms;
        let turns_ms = u64::from(slot_ms) * devices.len() as u64;
        self.state = State::Asking { until: now + (turns_ms + self.timing.answer_ms) };
        Some(Due::Ask { generation: None, slot_ms, devices })
    }

    fn note_mending(&mut self, wants: &Wants) {
        if let State::Mending { generation, lacking, .. } = &mut self.state {
            *lacking = (*lacking).max(lacks(wants, *generation));
        }
    }

    fn note_loss(&mut self) {
        let sent: u32 = self.whole.iter().map(|&it| u32::from(self.cut.blocks_of(it))).sum();
        if sent < LOSS_BLOCKS_MIN {
            return;
        }
        let lost = |target: &Target| -> u32 {
            self.whole.iter().map(|&it| u32::from(target.lacks(it))).sum()
        };
        let heard = self.served().filter(|target| target.has_answered && target.takes());
        if let Some(lost) = heard.map(lost).max() {
            self.loss_permille = (lost.min(sent) * 1000) / sent;
        }
    }
}

impl Target {
    const fn is_served(&self) -> bool {
        self.unanswered < QUESTIONS_MAX
    }

    /// Whether it takes blocks now.
    fn takes(&self) -> bool {
        matches!(self.wants.readiness, Readiness::Head | Readiness::Open)
    }

    fn lacks(&self, generation: u16) -> u8 {
        lacks(&self.wants, generation)
    }
}

fn lacks(wants: &Wants, generation: u16) -> u8 {
    let place = generation.checked_sub(wants.first).map(usize::from);
    place.and_then(|place| wants.lacking.counts().get(place)).copied().unwrap_or(0)
}

/// Members served at once, at most.
pub const TARGETS_MAX: usize = 64;
/// Bytes sent whole in one round, at most: half of what members take from their first incomplete
/// generation on, so that one that is a round behind loses nothing.
const ROUND_BYTES_MAX: u32 = 16 * 28_672;
/// How long the whole generations of one round take at most, unless it is just one.
const ROUND_MS_MAX: u64 = 10_000;
/// What a member may ask for between two blocks, in milliseconds.
const INTERVAL_MS_MAX: u16 = 2_000;
/// How long a member's flash may be busy before the others go on without it, in milliseconds.
const BUSY_MS_MAX: u64 = 30_000;
/// A member that leaves so many questions unanswered is not served until it speaks.
const QUESTIONS_MAX: u8 = 4;
/// So many times in one round repair frames of one generation are sent.
const BURSTS_MAX: u8 = 6;
/// Two random repair frames more than are lacking are too few once in four times.
const SPARE_REPAIRS: u32 = 2;
/// Slots in which those answer whom repair frames were too few for.
pub const LACKING_SLOTS: u64 = 4;
/// A loss beyond this is a member that is hardly there: nobody waits for it with a hundred frames.
const LOSS_PERMILLE_MAX: u32 = 600;
/// Fewer blocks than this tell nothing of the loss.
const LOSS_BLOCKS_MIN: u32 = 16;
const TURNS_MAX: usize = 8;
