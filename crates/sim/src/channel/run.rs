//! One transfer: package, head and image, from the lead to every member.

use std::rc::Rc;

use lockstep_proto::frame::block::{OVERHEAD_BYTES_MAX, Session};
use lockstep_proto::frame::coding::{BLOCK_BYTES_MAX, Shape};
use lockstep_proto::frame::control::{ControlFrame, Counter, GroupKey, Message};
use lockstep_proto::frame::report::Wants;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_rollout::transfer::{Due, Sender, Timing};

use super::member::{Cargo, MS, Member};
use super::{
    AIFS_NS, CONTENTION_MAX, CONTENTION_MIN, Ether, RETRIES_MAX, SLOT_NS, Setup, frame_bytes,
    seconds,
};

/// What a transfer took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// From the first block of the image behind its head until the last member had all of it, read
    /// back and verified, in seconds.
    pub transfer_s: f64,
    /// Before that: the package, the head of the image, and the slots erased, in seconds.
    pub prepare_s: f64,
    /// How the image was cut in the end.
    pub shape: Shape,
    /// Blocks and repair frames that were sent.
    pub frames: u32,
    /// Of them, repair frames.
    pub repairs: u32,
    /// Questions and answers that were sent.
    pub control_frames: u32,
    /// Frames that were in the air at the same time.
    pub collisions: u32,
    /// Frames that found a member's queue full.
    pub overflowed: u32,
    /// Application data: frames that were to be sent, and those of them that were heard, by all
    /// that could.
    pub data: (u32, u32),
}

/// Runs one transfer to its end.
///
/// # Panics
///
/// When it does not end within a simulated hour: then the protocol is broken.
pub fn run(setup: &Setup) -> Outcome {
    let cargo = Cargo::new(setup.size_bytes);
    let mut channel = Channel::new(*setup, &cargo);
    while channel.members.iter().any(|member| member.staged_at.is_none()) {
        assert!(channel.now < LIMIT_NS, "the transfer does not end: {:?}", channel.lead.image);
        channel.step(&cargo);
    }
    channel.outcome()
}

struct Channel {
    setup: Setup,
    now: u64,
    key: GroupKey,
    lead: Lead,
    members: Vec<Member>,
    talkers: Vec<Talker>,
    ethers: Vec<Ether>,
    to_lead: Ether,
    rng: fastrand::Rng,
    counts: Counts,
    /// When the first block of the image behind its head was sent.
    began: Option<u64>,
}

#[derive(Default)]
struct Counts {
    frames: u32,
    repairs: u32,
    control: u32,
    collisions: u32,
    data_due: u32,
    data_heard: u32,
    said: u32,
}

struct Lead {
    package: Sender,
    image: Sender,
    /// The next frame, ready to be sent.
    ready: Option<(u64, Rc<[u8]>)>,
    /// When the one after it can be made.
    free_at: u64,
}

/// The radio of one device: the lead's is the last.
#[derive(Debug, Clone)]
struct Talker {
    /// An answer on its way, with its tries.
    answer: Option<(u64, Wants, u8)>,
    data: u32,
    /// When the next frame of application data is due.
    next_data: u64,
    /// Slots to wait yet; drawn anew for every frame.
    backoff: u64,
}

/// What the winner of the channel sends.
enum Sent {
    Blocks(Rc<[u8]>),
    Answer(usize, Wants),
    Data(usize),
}

impl Channel {
    fn new(setup: Setup, cargo: &Cargo) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let members: Vec<_> =
            (0..setup.members).map(|index| Member::new(index, cargo, setup.takes_large)).collect();
        let every = u64::from(setup.data_every_ms) * MS;
        let talker = |index: usize| {
            let first = every * index as u64 / (setup.members as u64 + 1);
            let next_data = if every == 0 { u64::MAX } else { first };
            Talker { answer: None, data: 0, next_data, backoff: 0 }
        };
        let mut ether = || Ether::new(setup.loss, rng.u64(..));
        let sender = |bytes: &[u8]| {
            let size = u32::try_from(bytes.len()).expect("it fits a slot");
            let session = Session::of(&lockstep_agent::package::digest(bytes).0);
            Sender::new(session, size, TIMING, 1).with_large(setup.takes_large, setup.members)
        };
        Self {
            setup,
            now: 0,
            key: GroupKey::new([3; 32]),
            lead: Lead {
                package: sender(&cargo.package),
                image: sender(&cargo.image),
                ready: None,
                free_at: 0,
            },
            talkers: (0..=setup.members).map(talker).collect(),
            ethers: (0..=setup.members).map(|_| ether()).collect(),
            to_lead: ether(),
            members,
            rng,
            counts: Counts::default(),
            began: None,
        }
    }

    /// Up to the end of the next frame, or to the next moment at which anybody does anything.
    fn step(&mut self, cargo: &Cargo) {
        self.note_data();
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            member.run_until(self.now, &self.key);
            member.repeat(self.now);
            if let Some((at, wants)) = member.says.take() {
                self.talkers[index].answer = Some((at, wants, 0));
                self.talkers[index].backoff = self.rng.u64(0..=CONTENTION_MIN);
            }
        }
        self.prepare(cargo);
        let contenders: Vec<usize> =
            (0..self.talkers.len()).filter(|&index| self.has_frame(index)).collect();
        if contenders.is_empty() {
            let next = self.next_at();
            self.now = next.max(self.now + 1);
            return;
        }
        self.contend(&contenders);
    }

    /// Application data falls due, at each device at another moment.
    fn note_data(&mut self) {
        for talker in &mut self.talkers {
            while self.now >= talker.next_data {
                talker.data = (talker.data + 1).min(DATA_WAITING_MAX);
                self.counts.data_due += u32::try_from(self.setup.members).unwrap_or(u32::MAX);
                talker.next_data += u64::from(self.setup.data_every_ms) * MS;
            }
        }
    }

    /// The lead makes its next frame as soon as the one before it has left.
    fn prepare(&mut self, cargo: &Cargo) {
        if self.lead.ready.is_some() || self.now < self.lead.free_at {
            return;
        }
        let now = Instant::from_ms(self.now / MS);
        let lead = &mut self.lead;
        let (due, sender, bytes) = match lead.package.next_frame(now) {
            Some(due) => (due, &lead.package, &cargo.package),
            None => match lead.image.next_frame(now) {
                Some(due) => (due, &lead.image, &cargo.image),
                None => return,
            },
        };
        let mut payload = [0; BLOCK_BYTES_MAX];
        let frame = due.frame(sender.session(), sender.cut(), &mut payload, |offset, into| {
            let start = offset as usize;
            into.copy_from_slice(&bytes[start..start + into.len()]);
            Some(())
        });
        let mut buffer = [0; BLOCK_BYTES_MAX + OVERHEAD_BYTES_MAX];
        let frame = frame.expect("all of it is there");
        let len = frame.encode(&self.key, &mut buffer).expect("it fits");
        match due {
            Due::Ask { .. } => self.counts.control += 1,
            Due::Block { shape, index, .. } => {
                let is_image = sender.session() == lead.image.session();
                if is_image && index >= shape.head_blocks() && self.began.is_none() {
                    self.began = Some(self.now);
                }
                self.counts.frames += 1;
            }
            Due::Repair { .. } => {
                self.counts.frames += 1;
                self.counts.repairs += 1;
            }
        }
        lead.ready = Some((self.now, buffer[..len].into()));
        self.talkers[self.setup.members].backoff = self.rng.u64(0..=CONTENTION_MIN);
    }

    fn has_frame(&self, index: usize) -> bool {
        let talker = &self.talkers[index];
        let says = talker.answer.as_ref().is_some_and(|(at, ..)| *at <= self.now);
        let is_lead = index == self.setup.members;
        says || talker.data > 0 || (is_lead && self.lead.ready.is_some())
    }

    fn next_at(&self) -> u64 {
        let answers = self.talkers.iter().filter_map(|talker| talker.answer.as_ref());
        let answers = answers.map(|(at, ..)| *at);
        let members = self.members.iter().map(Member::next_at);
        let now = Instant::from_ms(self.now / MS);
        let senders = [&self.lead.package, &self.lead.image];
        let wakes = senders.into_iter().filter_map(|it| it.next_wake(now)).map(|at| at.ms * MS);
        // Members that hear nothing look at their clock now and then.
        let look = self.now + LOOK_NS;
        let data = self.talkers.iter().map(|talker| talker.next_data);
        let all = answers.chain(members).chain(wakes).chain(data).chain([look]);
        all.filter(|at| *at > self.now).min().unwrap_or(look)
    }

    /// Everybody who has a frame waits a random number of slots; who waits least sends, and if they
    /// are several, nobody hears any of them.
    fn contend(&mut self, contenders: &[usize]) {
        let least = contenders.iter().map(|&index| self.talkers[index].backoff).min().unwrap_or(0);
        let start = self.now + AIFS_NS + least * SLOT_NS;
        let (winners, losers): (Vec<usize>, Vec<usize>) =
            contenders.iter().partition(|&&index| self.talkers[index].backoff == least);
        for index in losers {
            self.talkers[index].backoff -= least;
        }
        let collides = winners.len() > 1;
        self.counts.collisions += u32::from(collides);
        let mut end = start;
        for &index in &winners {
            let air_ns = self.send(index, start, collides);
            end = end.max(start + air_ns);
        }
        self.now = end;
        for index in winners {
            self.talkers[index].backoff = self.rng.u64(0..=CONTENTION_MIN);
        }
    }

    /// Sends a device's frame; returns how long it is in the air.
    fn send(&mut self, index: usize, start: u64, collides: bool) -> u64 {
        let rate = self.setup.rate;
        let sent = self.take_frame(index);
        let payload_bytes = match &sent {
            Sent::Blocks(bytes) => bytes.len() as u64,
            Sent::Answer(_, wants) => self.answer_bytes(index, *wants),
            Sent::Data(_) => DATA_BYTES,
        };
        let mut air_ns = rate.frame_ns(frame_bytes(payload_bytes));
        match sent {
            Sent::Blocks(bytes) => {
                self.lead.free_at = start;
                for (member, ether) in self.members.iter_mut().zip(&mut self.ethers) {
                    if !ether.loses() && !collides {
                        member.hear(start + air_ns, &bytes);
                    }
                }
            }
            Sent::Answer(from, wants) => {
                self.counts.control += 1;
                air_ns += rate.ack_ns();
                self.hear_answer(from, wants, start + air_ns, collides);
            }
            Sent::Data(from) => {
                let heard = (0..=self.setup.members).filter(|&to| to != from);
                for to in heard {
                    let lost = self.ethers[to].loses();
                    self.counts.data_heard += u32::from(!lost && !collides);
                }
            }
        }
        air_ns
    }

    fn take_frame(&mut self, index: usize) -> Sent {
        let talker = &mut self.talkers[index];
        if let Some((_, wants, _)) = talker.answer.as_ref().filter(|(at, ..)| *at <= self.now) {
            return Sent::Answer(index, *wants);
        }
        if index == self.setup.members
            && let Some((_, bytes)) = self.lead.ready.take()
        {
            return Sent::Blocks(bytes);
        }
        talker.data -= 1;
        Sent::Data(index)
    }

    /// An answer is acknowledged, or sent again.
    fn hear_answer(&mut self, from: usize, wants: Wants, at: u64, collides: bool) {
        let is_lost = self.to_lead.loses() || collides;
        let is_acknowledged = !is_lost && !self.ethers[from].loses();
        if !is_lost {
            let now = Instant::from_ms(at / MS);
            let id = self.members[from].id;
            let lead = &mut self.lead;
            for sender in [&mut lead.package, &mut lead.image] {
                sender.note_wants(now, id, wants);
            }
        }
        let talker = &mut self.talkers[from];
        talker.answer = match talker.answer.take() {
            Some((since, wants, tries)) if !is_acknowledged && tries < RETRIES_MAX => {
                Some((since, wants, tries + 1))
            }
            _ => None,
        };
        let window = if talker.answer.is_some() { CONTENTION_MAX } else { CONTENTION_MIN };
        talker.backoff = self.rng.u64(0..=window);
    }

    fn answer_bytes(&mut self, from: usize, wants: Wants) -> u64 {
        self.counts.said += 1;
        let counter = Counter { boot: 1, frame: self.counts.said };
        let (me, lead) = (self.members[from].id, DeviceId([2, 0, 0, 0, 0, 1]));
        let frame = ControlFrame { from: me, to: lead, counter, message: Message::Wants(wants) };
        let mut buffer = [0; 250];
        frame.encode(&self.key, &mut buffer).expect("it fits") as u64
    }

    fn outcome(&self) -> Outcome {
        let staged = self.members.iter().filter_map(|member| member.staged_at);
        let first = self.began.unwrap_or(0);
        Outcome {
            transfer_s: seconds(staged.max().unwrap_or(0) - first),
            prepare_s: seconds(first),
            shape: self.lead.image.cut().shape,
            frames: self.counts.frames,
            repairs: self.counts.repairs,
            control_frames: self.counts.control,
            collisions: self.counts.collisions,
            overflowed: self.members.iter().map(|member| member.overflowed).sum(),
            data: (self.counts.data_due, self.counts.data_heard),
        }
    }
}

/// As on chips: see `lockstep_device::setup::Pace::board`.
const TIMING: Timing = Timing { slot_ms: 3, answer_ms: 20, mend_ms: 4 };
/// A simulated hour.
const LIMIT_NS: u64 = 3_600_000 * MS;
const LOOK_NS: u64 = 100 * MS;
const DATA_BYTES: u64 = 50;
/// Data that waits; what is older is overwritten.
const DATA_WAITING_MAX: u32 = 2;
