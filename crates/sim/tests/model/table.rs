//! Every device state and every frame has a number here, and what a step makes of a state is worked
//! out once: so a state of the whole group is a few numbers, although real code on real flash
//! stands behind them.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use lockstep_proto::frame::report::MemberState;
use lockstep_rollout::{Kind, Part, Phase, Verdict};
use lockstep_sim::flash::MemFlash;
use sha2::{Digest, Sha256};

use crate::chip::{Chip, Slot};
use crate::device::{Device, Frame, Ran, Seen, Sight, Step, after_preflight};
use crate::release::{DEVICES_MAX, Group};

/// The number of a device state.
pub(crate) type Id = u32;

/// What may come of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    pub(crate) next: Id,
    /// Frames by number, and to whom; `None`: to everybody.
    pub(crate) sent: Vec<(Option<usize>, u16)>,
    pub(crate) seen: Seen,
}

/// A device state, and what properties and actions ask about it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) device: Device,
    pub(crate) look: Look,
    pub(crate) lead: Option<LeadLook>,
}

/// What can be seen of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) is_up: bool,
    /// What runs, while it is up.
    pub(crate) running: Slot,
    pub(crate) on_trial: bool,
    pub(crate) healthy: bool,
    pub(crate) at_rest: bool,
    pub(crate) activated: bool,
    /// It wants to reboot.
    pub(crate) leaves: bool,
    /// A countdown runs.
    pub(crate) fires: bool,
    // From its durable record.
    pub(crate) state: MemberState,
    pub(crate) generation: u32,
    pub(crate) attempt: u8,
}

/// What can be seen of the conducting half. From the durable record, but for the last two.
#[derive(Debug, Clone)]
pub(crate) struct LeadLook {
    pub(crate) phase: Phase,
    pub(crate) kind: Kind,
    pub(crate) generation: u32,
    pub(crate) settled: [bool; DEVICES_MAX],
    pub(crate) watched: [bool; DEVICES_MAX],
    pub(crate) reactivations: u8,
    pub(crate) can_abort: bool,
    pub(crate) counts_down: bool,
}

/// A lock of its own for each part of the numbers.
#[derive(Debug)]
struct Shards<K, V> {
    shards: Vec<RwLock<HashMap<K, V, Quickly>>>,
}

/// Numbers that are given one after the other need no hash that withstands anybody.
#[derive(Debug, Default)]
struct QuickHash(u64);

type Quickly = BuildHasherDefault<QuickHash>;

impl Hasher for QuickHash {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

impl<K: Hash + Eq, V: Clone> Shards<K, V> {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect() }
    }

    fn get_or(&self, key: K, make: impl FnOnce(&K) -> V) -> V {
        let hash = Quickly::default().hash_one(&key) >> 40;
        let shard = &self.shards[usize::try_from(hash).unwrap() % SHARDS];
        if let Some(known) = shard.read().unwrap().get(&key) {
            return known.clone();
        }
        let made = make(&key);
        shard.write().unwrap().entry(key).or_insert(made).clone()
    }
}

impl Shards<(Id, Step), Arc<Outcome>> {
    /// Every step of a device state that is known.
    fn of(&self, id: Id) -> Vec<(Step, Arc<Outcome>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap();
            let mine = shard.iter().filter(|((other, _), _)| *other == id);
            found.extend(mine.map(|((_, step), outcome)| (*step, Arc::clone(outcome))));
        }
        found
    }
}

/// Numbers things by their keys; what has a number is read without a lock.
#[derive(Debug)]
struct Numbers<T> {
    numbers: RwLock<HashMap<[u8; 16], u32>>,
    pages: Vec<OnceLock<Box<[OnceLock<T>]>>>,
}

impl<T> Numbers<T> {
    fn new() -> Self {
        let pages = (0..PAGES_MAX).map(|_| OnceLock::new()).collect();
        Self { numbers: RwLock::default(), pages }
    }

    fn number(&self, key: &str, make: impl FnOnce() -> T) -> u32 {
        let digest = Sha256::digest(key.as_bytes());
        let key: [u8; 16] = digest[..16].try_into().unwrap();
        if let Some(known) = self.numbers.read().unwrap().get(&key) {
            return *known;
        }
        let made = make();
        let mut numbers = self.numbers.write().unwrap();
        let next = u32::try_from(numbers.len()).unwrap();
        *numbers.entry(key).or_insert_with(|| {
            let (page, place) = place_of(next);
            let page = self.pages[page].get_or_init(|| {
                (0..PAGE).map(|_| OnceLock::new()).collect::<Vec<_>>().into_boxed_slice()
            });
            assert!(page[place].set(made).is_ok(), "each number is given once");
            next
        })
    }

    fn get(&self, number: u32) -> &T {
        let (page, place) = place_of(number);
        self.pages[page].get().and_then(|page| page[place].get()).expect("it has this number")
    }

    fn len(&self) -> usize {
        self.numbers.read().unwrap().len()
    }
}

fn place_of(number: u32) -> (usize, usize) {
    let number = number as usize;
    (number / PAGE, number % PAGE)
}

/// Locks of one table.
const SHARDS: usize = 64;
/// Things on a page.
const PAGE: usize = 4096;
/// Beyond this the memory would not do either.
const PAGES_MAX: usize = 1024;

/// The group, its devices' states and frames.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) group: Group,
    chips: Vec<Chip>,
    entries: Numbers<Entry>,
    frames: Numbers<Frame>,
    done: Shards<(Id, Step), Arc<Outcome>>,
    cut: Shards<(Id, Step), Arc<Vec<Outcome>>>,
    /// Device states that had a number already, so that they can be compared with its first.
    twins: Mutex<Vec<(Id, Device)>>,
    twins_max: usize,
    met: AtomicUsize,
}

impl Table {
    pub(crate) fn new(group: Group, twins_max: usize) -> Self {
        let chips = (0..group.devices).map(|index| Chip::new(&group, index)).collect();
        Self {
            group,
            chips,
            entries: Numbers::new(),
            frames: Numbers::new(),
            done: Shards::new(),
            cut: Shards::new(),
            twins: Mutex::default(),
            twins_max,
            met: AtomicUsize::new(0),
        }
    }

    /// Where every path begins: each device, and the frames that are on their way.
    pub(crate) fn start(&self) -> Vec<Outcome> {
        let ran = after_preflight(&self.group, &self.chips);
        ran.into_iter().map(|ran| self.take_down(ran)).collect()
    }

    pub(crate) fn entry(&self, id: Id) -> &Entry {
        self.entries.get(id)
    }

    pub(crate) fn frame(&self, number: u16) -> &Frame {
        self.frames.get(number.into())
    }

    /// How many device states and frames there are.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.entries.len(), self.frames.len())
    }

    /// What a step makes of a device.
    pub(crate) fn step(&self, id: Id, step: Step) -> Arc<Outcome> {
        self.done.get_or((id, self.without_sight(id, step)), |(id, step)| {
            Arc::new(self.take_down(self.run(*id, *step, None)))
        })
    }

    /// What the step leaves behind when the power goes in the middle of it.
    pub(crate) fn cuts(&self, id: Id, step: Step) -> Arc<Vec<Outcome>> {
        self.cut.get_or((id, self.without_sight(id, step)), |(id, step)| {
            let costs = self.run(*id, *step, None).costs;
            let mut found: Vec<Outcome> = Vec::new();
            for budget in cut_points(&costs) {
                let outcome = self.take_down(self.run(*id, *step, Some(budget)));
                if !found.contains(&outcome) {
                    found.push(outcome);
                }
            }
            Arc::new(found)
        })
    }

    fn run(&self, id: Id, step: Step, budget: Option<u64>) -> Ran {
        let entry = self.entry(id);
        let frames = |number: u16| self.frame(number).clone();
        let chip = &self.chips[entry.device.index];
        entry.device.step(&self.group, chip, &frames, step, budget)
    }

    /// Who is not healthy has nothing to say of the others.
    fn without_sight(&self, id: Id, step: Step) -> Step {
        if self.entry(id).look.healthy {
            return step;
        }
        let none = Sight::Mixed;
        match step {
            Step::Order(frame, _) => Step::Order(frame, none),
            Step::Report(from, frame, _) => Step::Report(from, frame, none),
            Step::Say(_) => Step::Say(none),
            Step::Timer(_, wait) => Step::Timer(none, wait),
            Step::Tick(_) => Step::Tick(none),
            Step::Abort(_) => Step::Abort(none),
            Step::Deadline(_) => Step::Deadline(none),
            Step::FireOver(_) => Step::FireOver(none),
            Step::Silence(_) => Step::Silence(none),
            Step::Health(_) | Step::Boot { .. } | Step::Reset => step,
        }
    }

    fn take_down(&self, ran: Ran) -> Outcome {
        let Ran { device, sent, seen, .. } = ran;
        let sent = sent.into_iter().map(|(to, frame)| {
            let number = self.frames.number(&format!("{frame:?}"), || frame);
            (to, u16::try_from(number).expect("few kinds of frames"))
        });
        let sent = sent.collect();
        let mut device = Some(device);
        let key = device.as_ref().map(Device::key).unwrap_or_default();
        let next = self.entries.number(&key, || {
            let device = device.take().expect("it is numbered once");
            let (look, lead) = (look(&device), lead_look(&device));
            Entry { device, look, lead }
        });
        if let Some(twin) = device.filter(|device| device.live.is_some()) {
            self.note_twin(next, twin);
        }
        Outcome { next, sent, seen }
    }

    /// Keeps one in so many, as long as there is room.
    fn note_twin(&self, id: Id, twin: Device) {
        let nth = self.met.fetch_add(1, Ordering::Relaxed);
        let mut twins = self.twins.lock().unwrap();
        if nth.is_multiple_of(TWINS_EVERY) && twins.len() < self.twins_max {
            twins.push((id, twin));
        }
    }

    /// Carries out with each twin every step that its first has carried out: the same must come of
    /// it. Says how many were compared.
    pub(crate) fn compare_twins(&self) -> usize {
        let twins = std::mem::take(&mut *self.twins.lock().unwrap());
        for (id, twin) in &twins {
            let first = self.entry(*id);
            for (step, known) in self.done.of(*id) {
                let frames = |number: u16| self.frame(number).clone();
                let chip = &self.chips[twin.index];
                let ran = twin.step(&self.group, chip, &frames, step, None);
                let outcome = self.take_down(ran);
                assert_eq!(outcome, *known, "{step:?} of {twin:#?}\nis not that of {first:#?}");
            }
        }
        twins.len()
    }
}

/// Of the device states that are met again, every so many-th is a twin to be compared.
const TWINS_EVERY: usize = 37;

/// Before each change of the flash, and in the middle of it: half written; half erased, and noise.
fn cut_points(costs: &[u64]) -> Vec<u64> {
    let mut points = Vec::new();
    let mut at = 0;
    for &cost in costs {
        let middle = if cost == MemFlash::ERASE_COST { [1, cost - 1] } else { [cost / 2; 2] };
        points.extend([at, at + middle[0], at + middle[1]]);
        at += cost;
    }
    points.dedup();
    points
}

fn look(device: &Device) -> Look {
    let member = device.content.member();
    let none = Look {
        is_up: false,
        running: Slot::NoImage,
        on_trial: false,
        healthy: false,
        at_rest: false,
        activated: false,
        leaves: false,
        fires: false,
        state: member.state,
        generation: member.ticket.generation.counter,
        attempt: member.ticket.attempt,
    };
    let Some(live) = &device.live else { return none };
    let report = live.agent.report();
    let text = format!("{:?}", live.agent);
    let slot = usize::from(text.contains("running_slot: 1"));
    Look {
        is_up: true,
        running: device.content.slots[slot],
        on_trial: report.observed.on_trial,
        healthy: report.observed.healthy,
        at_rest: report.observed.at_rest,
        activated: report.observed.activated,
        leaves: text.contains("leaving: Some"),
        fires: text.contains("fire_at: Some"),
        ..none
    }
}

fn lead_look(device: &Device) -> Option<LeadLook> {
    let record = device.content.rollout()?;
    let rollout = device.live.as_ref().and_then(|live| live.rollout.as_ref());
    let mut look = LeadLook {
        phase: record.phase,
        kind: record.kind,
        generation: record.generation.counter,
        settled: [true; DEVICES_MAX],
        watched: [true; DEVICES_MAX],
        reactivations: record.seats.iter().map(|seat| seat.reactivations).max().unwrap_or(0),
        can_abort: rollout.is_some_and(lockstep_rollout::Rollout::can_abort),
        counts_down: rollout.is_some_and(|rollout| format!("{rollout:?}").contains("fire: At")),
    };
    for (index, seat) in record.seats.iter().enumerate() {
        look.settled[index] = seat.settled;
        look.watched[index] = seat.part == Part::Watch;
    }
    Some(look)
}

impl LeadLook {
    /// The verdict, and whether all have carried it out.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.phase.verdict()
    }

    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled(_)) && self.settled.iter().all(|settled| *settled)
    }

    /// What everybody runs in the end.
    pub(crate) fn image(&self) -> Option<Slot> {
        Some(match (self.verdict()?, self.kind) {
            (Verdict::Keep, Kind::Forward) | (Verdict::Revert(_), Kind::Repair | Kind::Back) => {
                Slot::New
            }
            (Verdict::Keep, Kind::Repair | Kind::Back) | (Verdict::Revert(_), Kind::Forward) => {
                Slot::Old
            }
        })
    }
}

impl Frame {
    /// A short name for paths.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Order(ticket, order) => {
                let text = format!("{order:?}");
                let word = text.split([' ', '(']).next().unwrap_or_default();
                format!("{word} g{} a{}", ticket.generation.counter, ticket.attempt)
            }
            Self::Report(report) => {
                let ticket = report.ticket;
                let (generation, attempt) = (ticket.generation.counter, ticket.attempt);
                format!("{:?} g{generation} a{attempt} {:?}", report.state, report.observed)
            }
        }
    }

    pub(crate) const fn is_order(&self) -> bool {
        matches!(self, Self::Order(..))
    }
}
