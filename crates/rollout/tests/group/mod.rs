//! A group in virtual time: model members, a radio that loses, repeats and delays, and a lead that
//! stores its record and comes back from it. Checks the invariants at every single order.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of the fixture")]

pub mod member;

use std::collections::BTreeSet;

use lockstep_proto::compat::Announced;
use lockstep_proto::frame::order::{Detail, Order, Ticket};
use lockstep_proto::frame::report::{Facts, MemberState, Report, View};
use lockstep_proto::id::{DeviceId, ImageHash, RolloutId, Sha256};
use lockstep_proto::image::{ChipId, Guard};
use lockstep_proto::time::Instant;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::{
    Artifact, Cause, Event, Fault, Input, Kind, Outgoing, Part, Phase, Policy, RECORD_BYTES_MAX,
    Release, Rollout, RolloutRecord, Step, Verdict,
};

pub use member::{Flaw, Member, NO_IMAGE};

pub const ROLES: [&str; 4] = ["receiver", "transmitter", "display", "relay"];
/// The model's clock advances by so much.
pub const STEP_MS: u64 = 10;

pub fn role(index: usize) -> Role {
    Role::new(ROLES[index]).unwrap()
}

pub fn device(index: usize) -> DeviceId {
    DeviceId([2, 0, 0, 0, 0, u8::try_from(index + 1).unwrap()])
}

/// The image of a role in release 1, 2, ….
pub fn image(index: usize, number: u8) -> ImageHash {
    let mut bytes = [number; 32];
    bytes[0] = u8::try_from(index + 1).unwrap();
    ImageHash(bytes)
}

pub fn release(number: u8, roles: &[usize]) -> Release {
    let artifact = |&index: &usize| Artifact {
        role: role(index),
        image: image(index, number),
        file: Sha256([number; 32]),
        size_bytes: 100_000,
        chip: ChipId(0),
        board: Board::new("desk").unwrap(),
        announced: Announced {
            number: u32::from(number) * 10_000,
            min_compatible: 0,
            protocol: ProtocolRange::single(1),
        },
        config_schema: 0,
        guard: Guard::default(),
        is_reversible: true,
    };
    Release {
        brings_keys: false,
        number: u32::from(number) * 10_000,
        epoch: u32::from(number),
        package: Sha256([number; 32]),
        package_size_bytes: 900,
        artifacts: roles.iter().map(artifact).collect(),
        order: Vec::new(),
        reboot_delay_ms: 0,
        trial_limit_ms: 3_000,
    }
}

/// What the radio does to frames between two devices.
#[derive(Debug, Clone, Copy, Default)]
pub struct Air {
    pub loss_percent: u64,
    pub twice_percent: u64,
    pub delay_ms_max: u64,
}

#[derive(Debug, Clone)]
enum Frame {
    Order(Outgoing, DeviceId),
    Answer { from: DeviceId, number: u64, facts: Option<Facts>, report: Box<Report> },
}

pub struct TestGroup {
    pub now: u64,
    pub members: Vec<Member>,
    pub rollout: Option<Rollout>,
    /// The lead's record as it lies in flash.
    pub stored: Option<Vec<u8>>,
    pub store_fails: bool,
    pub policy: Policy,
    pub air: Air,
    pub sent: Vec<(u64, Outgoing)>,
    pub events: Vec<Event>,
    pub stores: u32,
    wire: Vec<(u64, Frame)>,
    heard: Vec<u64>,
    frames: u64,
    random: u64,
    ids: u64,
    staged_in: BTreeSet<(RolloutId, DeviceId)>,
    healthy_in: BTreeSet<(RolloutId, DeviceId)>,
    activating: BTreeSet<RolloutId>,
    said: BTreeSet<(RolloutId, u8)>,
    last: Option<RolloutRecord>,
}

/// The lead is the first device.
pub const LEAD: usize = 0;

impl TestGroup {
    pub fn new(count: usize) -> Self {
        let member = |index| Member::new(device(index), role(index), image(index, 1));
        Self {
            now: 1_000,
            members: (0..count).map(member).collect(),
            rollout: None,
            stored: None,
            store_fails: false,
            policy: Policy::desk(),
            air: Air::default(),
            sent: Vec::new(),
            events: Vec::new(),
            stores: 0,
            wire: Vec::new(),
            heard: vec![0; count],
            frames: 0,
            random: 0x9E37_79B9_7F4A_7C15,
            ids: 0,
            staged_in: BTreeSet::new(),
            healthy_in: BTreeSet::new(),
            activating: BTreeSet::new(),
            said: BTreeSet::new(),
            last: None,
        }
    }

    pub fn seed(&mut self, seed: u64) {
        self.random = seed | 1;
    }

    /// The lead's time since its boot.
    pub fn lead_now(&self) -> Instant {
        Instant::from_ms(self.now.saturating_sub(self.members[LEAD].up_at))
    }

    pub fn ids_and_roles(&self) -> Vec<(DeviceId, Role)> {
        self.members.iter().map(|member| (member.id, member.facts.role)).collect()
    }

    pub fn forward(&mut self, release: Release) {
        self.last = self.record();
        let (now, id, members) = (self.lead_now(), self.next_id(), self.ids_and_roles());
        let (last, policy) = (self.last.clone(), self.policy);
        self.rollout =
            Some(Rollout::forward(now, id, release, &members, device(LEAD), last, policy));
    }

    pub fn back(&mut self) {
        let last = self.record().expect("something to go back from");
        let (now, id, members) = (self.lead_now(), self.next_id(), self.ids_and_roles());
        self.rollout = Some(Rollout::back(now, id, &members, device(LEAD), last, self.policy));
    }

    /// All roles to release `number`, until it is settled.
    pub fn keep(&mut self, number: u8) {
        let all: Vec<_> = (0..self.members.len()).collect();
        self.forward(release(number, &all));
        self.run_until_settled();
        assert_eq!(self.verdict(), Some(Verdict::Keep));
    }

    fn next_id(&mut self) -> RolloutId {
        self.ids += 1;
        RolloutId(self.ids * 0x0101_0101_0101)
    }

    pub fn record(&self) -> Option<RolloutRecord> {
        self.stored.as_ref().map(|bytes| RolloutRecord::decode(bytes).unwrap())
    }

    pub fn phase(&self) -> Option<Phase> {
        self.rollout.as_ref().map(|rollout| rollout.record().phase)
    }

    pub fn verdict(&self) -> Option<Verdict> {
        self.phase().and_then(|phase| phase.verdict())
    }

    pub fn cause(&self) -> Option<Cause> {
        match self.verdict() {
            Some(Verdict::Revert(cause)) => Some(cause),
            Some(Verdict::Keep) | None => None,
        }
    }

    pub fn kind(&self) -> Option<Kind> {
        self.rollout.as_ref().map(|rollout| rollout.record().kind)
    }

    pub fn faults(&self) -> Vec<(Option<DeviceId>, Fault)> {
        let refused = self.events.iter().rev().find_map(|event| match event {
            Event::Refused(faults) => Some(faults.clone()),
            _ => None,
        });
        refused.unwrap_or_default().into_iter().map(|fault| (fault.member, fault.fault)).collect()
    }

    pub fn running(&self) -> Vec<ImageHash> {
        self.members.iter().map(|member| member.running).collect()
    }

    pub fn all_run(&self, number: u8) -> bool {
        let mut members = self.members.iter().enumerate();
        members.all(|(index, member)| {
            member.running == image(index, number) && !member.trial && !member.activated
        })
    }

    pub fn orders_to(&self, index: usize, kind: u8) -> usize {
        let to = device(index);
        self.sent.iter().filter(|(_, out)| out.to == to && out.order.kind() == kind).count()
    }

    pub fn said(&self, kind: u8) -> usize {
        self.sent.iter().filter(|(_, out)| out.order.kind() == kind).count()
    }

    pub fn abort(&mut self) {
        self.feed(&Input::Abort);
    }

    pub fn reset(&mut self, index: usize, off_ms: u64) {
        self.members[index].reset(self.now, off_ms);
        if index == LEAD {
            self.rollout = None;
        }
    }

    /// A device says that it is there.
    pub fn announce(&mut self, index: usize) {
        let now = self.lead_now();
        if let Some(rollout) = &mut self.rollout {
            rollout.note_heard(now, device(index));
        }
    }

    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.tick();
        }
    }

    /// Until `done`, or a virtual half hour is over.
    pub fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + 1_800_000;
        while !done(self) {
            assert!(self.now < end, "never came: {what}; {:?} {:#?}", self.phase(), self.members);
            self.tick();
        }
    }

    pub fn run_until_settled(&mut self) {
        self.run_until("settled", |group| {
            group.rollout.as_ref().is_some_and(Rollout::is_over)
                && group.members.iter().all(|member| member.is_up(group.now))
        });
    }

    pub fn run_until_phase(&mut self, name: &str) {
        self.run_until(name, |group| group.phase().is_some_and(|phase| phase.as_str() == name));
    }

    pub fn tick(&mut self) {
        self.now += STEP_MS;
        let lead_was_up = self.members[LEAD].reboots;
        self.deliver();
        let now = self.now;
        for member in &mut self.members {
            member.tick(now);
        }
        self.observe();
        if self.members[LEAD].reboots != lead_was_up {
            self.rollout = None;
        }
        if self.members[LEAD].is_up(now) {
            self.resume();
            self.feed(&Input::Tick);
        }
    }

    fn resume(&mut self) {
        if self.rollout.is_none() {
            let now = self.lead_now();
            let record = self.record();
            self.rollout =
                record.map(|record| Rollout::resume(now, record, device(LEAD), self.policy));
        }
    }

    pub fn feed(&mut self, input: &Input) {
        let now = self.lead_now();
        let Some(rollout) = &mut self.rollout else { return };
        let step = rollout.step(now, input);
        self.act(step);
    }

    /// The caller's part: store, then send.
    fn act(&mut self, step: Step) {
        let Some(rollout) = &mut self.rollout else { return };
        self.events.extend(step.events);
        if step.store {
            if self.store_fails {
                rollout.note_store_failed();
                return;
            }
            let mut buffer = [0; RECORD_BYTES_MAX];
            self.stored = Some(rollout.record().encode(&mut buffer).unwrap().to_vec());
            self.stores += 1;
        }
        let record = rollout.record().clone();
        for out in step.orders {
            self.invariant_what_is_said_is_stored(&record, &out);
            self.invariant_nobody_activates_before_all_staged(&record, &out);
            self.invariant_nobody_confirms_before_all_were_healthy(&record, &out);
            self.invariant_never_confirm_and_revert(&out);
            self.sent.push((self.now, out.clone()));
            let to: Vec<_> = self.members.iter().map(|member| member.id).collect();
            for to in to.into_iter().filter(|to| [*to, DeviceId::BROADCAST].contains(&out.to)) {
                self.send(to, &Frame::Order(out.clone(), to));
            }
        }
    }

    fn invariant_what_is_said_is_stored(&self, record: &RolloutRecord, out: &Outgoing) {
        let inspects = matches!(out.order, Order::Inspect(_));
        if record.phase != Phase::Preflight || !inspects {
            assert_eq!(self.record().as_ref(), Some(record), "acted before storing: {out:?}");
        }
    }

    fn invariant_nobody_activates_before_all_staged(
        &mut self,
        record: &RolloutRecord,
        out: &Outgoing,
    ) {
        if !matches!(out.order, Order::Activate { .. } | Order::Arm { .. } | Order::Fire { .. }) {
            return;
        }
        let first = self.activating.insert(record.id);
        for seat in &record.seats {
            let counts = seat.part == Part::Update && (first || seat.id == out.to);
            let staged = self.staged_in.contains(&(record.id, seat.id));
            assert!(!counts || staged, "activation before {:?} staged: {out:?}", seat.id);
        }
    }

    fn invariant_nobody_confirms_before_all_were_healthy(
        &self,
        record: &RolloutRecord,
        out: &Outgoing,
    ) {
        if !matches!(out.order, Order::Confirm { .. }) {
            return;
        }
        for seat in &record.seats {
            let healthy = self.healthy_in.contains(&(record.id, seat.id));
            assert!(healthy, "confirmed before {:?} was healthy: {out:?}", seat.id);
        }
    }

    fn invariant_never_confirm_and_revert(&mut self, out: &Outgoing) {
        let opposite = match out.order {
            Order::Confirm { .. } => Order::Revert.kind(),
            Order::Revert => Order::Confirm { image: NO_IMAGE }.kind(),
            _ => return,
        };
        let id = out.ticket.rollout;
        self.said.insert((id, out.order.kind()));
        assert!(!self.said.contains(&(id, opposite)), "both confirm and revert: {out:?}");
    }

    /// Takes down the truth that the invariants compare with.
    fn observe(&mut self) {
        let Some(record) = self.record() else { return };
        for (member, seat) in self.members.iter().zip(&record.seats) {
            let ours = member.durable.ticket.rollout == record.id;
            if ours && member.durable.state == MemberState::Staged && member.other == seat.target {
                self.staged_in.insert((record.id, member.id));
            }
            let at_home = member.is_up(self.now) && member.running == seat.target;
            if record.phase == Phase::Trial && at_home && member.healthy {
                self.healthy_in.insert((record.id, member.id));
            }
        }
    }

    fn deliver(&mut self) {
        let mut index = 0;
        while index < self.wire.len() {
            if self.wire[index].0 > self.now {
                index += 1;
                continue;
            }
            match self.wire.remove(index).1 {
                Frame::Order(out, to) => self.deliver_order(&out, to),
                Frame::Answer { from, number, facts, report } => {
                    self.deliver_answer(from, number, facts, *report);
                }
            }
        }
    }

    fn deliver_order(&mut self, out: &Outgoing, to: DeviceId) {
        let now = self.now;
        let Some(index) = self.members.iter().position(|member| member.id == to) else { return };
        if !self.members[index].is_up(now) {
            return;
        }
        let answer = self.members[index].handle(now, &out.ticket, &out.order);
        if let Some(detail) = answer {
            self.answer(index, detail);
        }
    }

    /// Lets a member answer as it is now.
    pub fn answer(&mut self, index: usize, detail: Detail) {
        let report = Box::new(self.report(index));
        let facts = (detail == Detail::Facts).then(|| self.members[index].facts());
        self.frames += 1;
        let (from, number) = (device(index), self.frames);
        self.send(from, &Frame::Answer { from, number, facts, report });
    }

    pub fn report(&self, index: usize) -> Report {
        let me = &self.members[index];
        let linked = |other: &Member| {
            other.id == me.id
                || (other.is_up(self.now)
                    && !other.cut_off
                    && !me.cut_off
                    && me.flaw() != Some(Flaw::Deaf)
                    && other.flaw() != Some(Flaw::Deaf))
        };
        let pairs = self.members.iter().filter(|member| linked(member));
        me.report(View::of(pairs.map(|member| (member.id, member.running))))
    }

    fn deliver_answer(
        &mut self,
        from: DeviceId,
        number: u64,
        facts: Option<Facts>,
        report: Report,
    ) {
        let Some(index) = self.members.iter().position(|member| member.id == from) else { return };
        // The control lane drops what is older than what came.
        if !self.members[LEAD].is_up(self.now) || number <= self.heard[index] {
            return;
        }
        self.heard[index] = number;
        if let Some(facts) = facts {
            self.feed(&Input::Facts(from, facts));
        }
        self.feed(&Input::Report(from, report));
    }

    /// `partner` is the end that is not the lead; the lead's own device hears itself.
    fn send(&mut self, partner: DeviceId, frame: &Frame) {
        let index = self.members.iter().position(|member| member.id == partner);
        let local = index == Some(LEAD);
        let cut_off = index.is_some_and(|index| self.members[index].cut_off);
        let air = if local { Air::default() } else { self.air };
        if !local && (cut_off || self.chance(air.loss_percent)) {
            return;
        }
        let copies = if self.chance(air.twice_percent) { 2 } else { 1 };
        for _ in 0..copies {
            let delay_ms = 1 + self.below(air.delay_ms_max + 1);
            self.wire.push((self.now + delay_ms, frame.clone()));
        }
    }

    /// Whatever was on its way is lost.
    pub fn clear_air(&mut self) {
        self.wire.clear();
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.below(100) < percent
    }

    pub fn below(&mut self, end: u64) -> u64 {
        // xorshift64*: good enough to scatter faults.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end.max(1)
    }
}

/// A ticket of the rollout that the lead conducts, as a member would hold it.
pub fn ticket(record: &RolloutRecord, attempt: u8) -> Ticket {
    Ticket { rollout: record.id, generation: record.generation, attempt }
}
