//! One device of the model: a flash, and while it is on the real [`Agent`], on the lead beside the
//! real [`Rollout`]. What `lockstep_device::Node` does between the two is done here in the same
//! order: decide, store, act, and the lead's own answers are its next inputs.

use std::collections::VecDeque;

use lockstep_agent::{Agent, Booted, Effect, Health, Kind, Reply, package};
use lockstep_proto::frame::block::{Block, BlockFrame, Session};
use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::order::{Detail, Order, Ticket};
use lockstep_proto::frame::report::{Facts, MemberState, Readiness, Report, View};
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;
use lockstep_rollout::{
    Input, Outgoing, Phase, RECORD_BYTES_MAX, RECORD_VERSION, Rollout, RolloutRecord,
};
use lockstep_sim::bootloader::{BootSlot, Bootloader, ResetReason};

use crate::chip::{Chip, Content, Slot, Tape, without_cause};
use crate::key::is_decisive;
use crate::release::{CHIP, DEADLINE_MS, FIRE_LEAD_MS, Group, LEAD, UNREACHABLE_MS, id, setup};

/// A device between two steps.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) index: usize,
    pub(crate) content: Content,
    pub(crate) live: Option<Live>,
}

/// What is lost with the power.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) agent: Agent,
    pub(crate) rollout: Option<Rollout>,
    pub(crate) now: Instant,
}

/// What happens to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// An order arrives, by the number of its frame.
    Order(u16, Sight),
    /// A report of a device arrives at the lead, by the number of its frame.
    Report(usize, u16, Sight),
    /// It reports, since it is asked or has news.
    Say(Sight),
    /// Its checks pass, and its links hold.
    Health(Sight),
    /// Its next lease, limit or countdown ends.
    Timer(Sight, Wait),
    /// It starts, after a reboot of its own or when it is switched on.
    Boot { crashes: bool },
    /// It is off.
    Reset,
    /// The lead says again what is missing.
    Tick(Sight),
    /// Somebody ends the rollout.
    Abort(Sight),
    /// The limits of the lead are over.
    Deadline(Sight),
    /// The lead's countdown ends.
    FireOver(Sight),
    /// Nobody is heard for so long that they count as out of reach.
    Silence(Sight),
}

/// What a device hears while it waits for a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    /// Nothing.
    Silent,
    /// Its lead, all the time: leases are renewed.
    Heard,
}

/// Who runs what, as far as everybody hears everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    AllOld,
    AllNew,
    Mixed,
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Order(Ticket, Order),
    Report(Report),
}

/// What came of a step.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) device: Device,
    /// Frames it sent, and to whom; `None`: to everybody.
    pub(crate) sent: Vec<(Option<usize>, Frame)>,
    pub(crate) seen: Seen,
    /// What each write or erase cost.
    pub(crate) costs: Vec<u64>,
}

/// What was observed while a step was carried out, for the properties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// The bootloader found no image that boots.
    pub(crate) nothing_boots: bool,
    /// It confirmed, and was not healthy in this boot.
    pub(crate) confirmed_unhealthy: bool,
    /// It was healthy while all ran the new image, or the old one.
    pub(crate) healthy_on: Option<Slot>,
    /// The lead said `Confirm` in this generation.
    pub(crate) said_confirm: Option<u32>,
    /// The lead said `Revert` in this generation.
    pub(crate) said_revert: Option<u32>,
    /// The lead gave an order that its record in flash does not know of.
    pub(crate) said_unstored: bool,
}

/// The device while a step is carried out.
struct Run<'a> {
    group: &'a Group,
    index: usize,
    live: Option<Live>,
    tape: Tape<'a>,
    sent: Vec<(Option<usize>, Frame)>,
    seen: Seen,
}

impl Device {
    pub(crate) fn before(chip: &Chip, index: usize) -> Self {
        let content = chip.put_away(&mut chip.before());
        Self { index, content, live: None }
    }

    /// Carries out a step; with a budget the power goes when it is spent.
    pub(crate) fn step(
        &self,
        group: &Group,
        chip: &Chip,
        frames: &dyn Fn(u16) -> Frame,
        step: Step,
        budget: Option<u64>,
    ) -> Ran {
        if step == Step::Reset {
            let device = Self { live: None, ..self.clone() };
            return Ran { device, sent: vec![], seen: Seen::default(), costs: vec![] };
        }
        let tape = Tape::new(chip, &self.content, budget);
        let mut live = self.live.clone();
        if let Some(live) = &mut live {
            live.now = live.now + STEP_MS;
        }
        let index = self.index;
        let mut run = Run { group, index, live, tape, sent: Vec::new(), seen: Seen::default() };
        run.carry_out(step, frames);
        run.end()
    }
}

impl Run<'_> {
    fn carry_out(&mut self, step: Step, frames: &dyn Fn(u16) -> Frame) {
        match step {
            Step::Order(frame, sight) => {
                self.look(sight);
                let Frame::Order(ticket, order) = frames(frame) else { panic!("not an order") };
                self.obey(&ticket, &order);
            }
            Step::Report(from, frame, sight) => {
                self.look(sight);
                let Frame::Report(report) = frames(frame) else { panic!("not a report") };
                self.drive(Input::Report(id(from), report));
            }
            Step::Say(sight) => {
                self.look(sight);
                self.say();
            }
            Step::Health(sight) => {
                self.get_healthy(sight);
                self.tell();
            }
            Step::Timer(sight, wait) => {
                self.look(sight);
                self.timer(wait);
                self.tell();
            }
            Step::Boot { crashes } => self.boot(crashes),
            Step::Reset => self.live = None,
            Step::Tick(sight) => self.conduct(sight, 0, Input::Tick),
            Step::Abort(sight) => self.conduct(sight, 0, Input::Abort),
            Step::Deadline(sight) => self.conduct(sight, DEADLINE_MS, Input::Tick),
            Step::FireOver(sight) => self.conduct(sight, FIRE_LEAD_MS, Input::Tick),
            Step::Silence(sight) => self.conduct(sight, UNREACHABLE_MS, Input::Tick),
        }
    }

    fn end(self) -> Ran {
        let lost = self.tape.power_lost();
        let (content, costs) = self.tape.put_away();
        let mut live = self.live.filter(|_| !lost);
        if let Some(live) = live.as_mut().filter(|_| !costs.is_empty()) {
            // The record was written anew: it stands elsewhere now.
            *live.agent.record_mut() = content.log();
        }
        let device = Device { index: self.index, content, live };
        Ran { device, sent: self.sent, seen: self.seen, costs }
    }

    fn live(&mut self) -> &mut Live {
        self.live.as_mut().expect("the device is on")
    }

    /// A healthy device samples its health all the time: what it reports of the others is fresh.
    fn look(&mut self, sight: Sight) {
        if self.live().agent.report().observed.healthy {
            self.get_healthy(sight);
        }
    }

    fn get_healthy(&mut self, sight: Sight) {
        let view = self.view(sight);
        let live = self.live();
        for _ in 0..lockstep_agent::agent::HEALTHY_SAMPLES {
            let health = Health { checks_ok: true, link_ok: true, linked: 0, view };
            live.agent.observe(live.now, health);
        }
        let is_new = live.agent.running() == self.group.new[self.index].hash;
        match sight {
            Sight::AllNew if is_new => self.seen.healthy_on = Some(Slot::New),
            Sight::AllOld if !is_new => self.seen.healthy_on = Some(Slot::Old),
            Sight::AllNew | Sight::AllOld | Sight::Mixed => (),
        }
    }

    fn view(&self, sight: Sight) -> View {
        let images = match sight {
            Sight::AllOld => &self.group.old,
            Sight::AllNew => &self.group.new,
            Sight::Mixed => return View::default(),
        };
        View::of(images.iter().enumerate().map(|(index, image)| (id(index), image.hash)))
    }

    /// `Node::handle_message`, and `Node::after`.
    fn obey(&mut self, ticket: &Ticket, order: &Order) {
        let reply = self.handle_order(ticket, order);
        if reply != Reply::Nothing {
            self.say();
        }
    }

    fn handle_order(&mut self, ticket: &Ticket, order: &Order) -> Reply {
        let live = self.live.as_mut().expect("the device is on");
        let now = live.now;
        live.agent.note_frame_of(now, ticket.rollout);
        let before = live.agent.report();
        let reply = live.agent.handle_order(now, ticket, order, &mut self.tape);
        let after = live.agent.report();
        let confirmed =
            |report: &Report| matches!(report.state, MemberState::Confirming | MemberState::Kept);
        self.seen.confirmed_unhealthy |=
            confirmed(&after) && !confirmed(&before) && !before.observed.healthy;
        if matches!(order, Order::Stage(_)) {
            self.feed();
        }
        self.soak();
        self.drain();
        reply
    }

    /// `Node::soak`, with no time at all: what a longer one leaves undone, this one has done.
    fn soak(&mut self) {
        let live = self.live.as_mut().expect("the device is on");
        let member = live.agent.member();
        let epoch = member.epoch;
        let unasked = member.state == MemberState::Kept && planted::has(Bug::EpochBeforeSettled);
        if live.agent.has_settled() || unasked {
            // It fails only if the power goes, and is done at the next start then.
            let _ = live.agent.raise_epoch(epoch, &mut self.tape);
        }
    }

    fn say(&mut self) {
        if self.tape.power_lost() {
            return;
        }
        let report = self.report();
        self.sent.push((Some(LEAD), Frame::Report(report)));
    }

    /// Without what nobody decides by.
    fn report(&mut self) -> Report {
        let report = self.live().agent.report();
        let refused = report.refused.filter(is_decisive);
        Report { trial_left_s: 0, staged_bytes: 0, refused, ..report }
    }

    /// The application comes to rest when it is asked.
    fn drain(&mut self) {
        let live = self.live();
        let now = live.now;
        while let Some(effect) = live.agent.poll_effect() {
            match effect {
                Effect::AskRest => live.agent.application_at_rest(now),
                // It goes down when the model says so: `leaving` tells that it wants to.
                Effect::Reboot(_) | Effect::Release | Effect::Trace(_) => (),
            }
        }
    }

    /// News go to the lead at once; its own are the rollout's next input:
    /// `Node::answer_conductor`.
    fn tell(&mut self) {
        self.drain();
        if self.index != LEAD {
            return self.say();
        }
        if !self.tape.power_lost() {
            let report = self.report();
            self.drive(Input::Report(id(LEAD), report));
        }
    }

    fn conduct(&mut self, sight: Sight, ms: u64, input: Input) {
        self.look(sight);
        let live = self.live();
        live.now = live.now + ms;
        self.drive(input);
    }

    /// `Node::drive`: decide, store, act.
    fn drive(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        for _ in 0..INPUTS_MAX {
            let Some(input) = inputs.pop_front() else { break };
            let live = self.live.as_mut().expect("the device is on");
            let Some(rollout) = &mut live.rollout else { break };
            let step = rollout.step(live.now, &input);
            let waits = planted::has(Bug::VerdictBeforeRecord)
                && matches!(rollout.record().phase, Phase::Settling(_));
            if step.store && !waits && !self.store() {
                break;
            }
            for outgoing in step.orders {
                if self.tape.power_lost() {
                    return;
                }
                self.deliver(&outgoing, &mut inputs);
            }
        }
    }

    /// `Node::store_rollout`.
    fn store(&mut self) -> bool {
        let live = self.live.as_mut().expect("the device is on");
        let Some(rollout) = &mut live.rollout else { return true };
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        let bytes = rollout.record().encode(&mut buffer).unwrap();
        let written =
            live.agent.write_record(&mut self.tape, Kind::ROLLOUT, RECORD_VERSION, bytes).is_ok();
        if !written {
            rollout.note_store_failed();
        }
        written
    }

    /// `Node::deliver`. Questions for a report are not sent to the others: `Step::Say` stands for
    /// them.
    fn deliver(&mut self, outgoing: &Outgoing, inputs: &mut VecDeque<Input>) {
        let Outgoing { to, ticket, order } = *outgoing;
        self.note_said(&ticket, &order);
        let order = match order {
            Order::Fire { .. } => Order::Fire { in_ms: FIRE_IN_MS },
            other => other,
        };
        if to != id(LEAD) && order != Order::Inspect(Detail::Report) {
            let to = (to != DeviceId::BROADCAST).then(|| usize::from(to.0[5]) - 1);
            self.sent.push((to, Frame::Order(ticket, order)));
        }
        if to != id(LEAD) && to != DeviceId::BROADCAST {
            return;
        }
        let reply = self.handle_order(&ticket, &order);
        if self.tape.power_lost() {
            return;
        }
        if reply == Reply::FactsAndReport {
            inputs.push_back(Input::Facts(id(LEAD), self.facts()));
        }
        if reply != Reply::Nothing {
            let report = self.report();
            inputs.push_back(Input::Report(id(LEAD), report));
        }
    }

    /// Takes down what the properties ask of the lead's words.
    fn note_said(&mut self, ticket: &Ticket, order: &Order) {
        match order {
            Order::Confirm { .. } => self.seen.said_confirm = Some(ticket.generation.counter),
            Order::Revert => self.seen.said_revert = Some(ticket.generation.counter),
            Order::Inspect(_) => return,
            _ => (),
        }
        let live = self.live.as_mut().expect("the device is on");
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        let read = live.agent.read_record(&mut self.tape, Kind::ROLLOUT, &mut buffer);
        let Ok(read) = read else { return };
        let stored = read.map(|(_, len)| without_cause(&buffer[..len]));
        let known = live.rollout.as_ref().map(|rollout| {
            let mut buffer = vec![0; RECORD_BYTES_MAX];
            without_cause(rollout.record().encode(&mut buffer).unwrap())
        });
        self.seen.said_unstored |= stored != known;
    }

    fn facts(&mut self) -> Facts {
        self.live().agent.facts(FREE_HEAP_BYTES, 0)
    }

    fn timer(&mut self, wait: Wait) {
        let live = self.live.as_mut().expect("the device is on");
        let Some(at) = live.agent.next_wake(live.now) else { return };
        if at.ms_since(live.now) > WAIT_MS_MAX {
            return;
        }
        live.now = at;
        if wait == Wait::Heard {
            let rollout = live.agent.member().ticket.rollout;
            live.agent.note_frame_of(at, rollout);
        }
        live.agent.tick(at, &mut self.tape);
        // What it wants comes without being asked for: see `feed`.
        live.agent.take_wants(at);
    }

    /// Package and image come at once: answers every wish with blocks until none is left.
    fn feed(&mut self) {
        let group = self.group;
        let files = [&group.package, &group.new[self.index].file];
        for _ in 0..FEEDS_MAX {
            let live = self.live.as_mut().expect("the device is on");
            let Some(wants) = live.agent.wants() else { return };
            let now = live.now;
            live.agent.take_wants(now + 1);
            match wants.readiness {
                Readiness::Done => return,
                Readiness::Busy => live.agent.tick(now, &mut self.tape),
                Readiness::Head | Readiness::Open => {
                    let file = files
                        .into_iter()
                        .find(|file| Session::of(&package::digest(file).0) == wants.session);
                    let file = file.expect("it wants what there is");
                    let size = Shape::Small.block_bytes() as usize;
                    for (index, payload) in (0..).zip(file.chunks(size)) {
                        let (session, shape) = (wants.session, Shape::Small);
                        let block = BlockFrame::Block(Block { session, shape, index, payload });
                        let _ =
                            live.agent.handle_block(now, id(self.index), &block, &mut self.tape);
                    }
                }
            }
            if self.tape.power_lost() {
                return;
            }
        }
        panic!("the transfer does not end");
    }

    /// The bootloader's rules, then the real start of the agent; a crash comes before it.
    fn boot(&mut self, crashes: bool) {
        self.live = None;
        for _ in 0..BOOTS_MAX {
            let bootloader = Bootloader { chip: CHIP, rollback: true };
            let Ok(booted) = bootloader.boot(&mut self.tape, ResetReason::PowerOn) else {
                self.seen.nothing_boots = !self.tape.power_lost();
                return;
            };
            let BootSlot::Ota(slot) = booted.slot else { panic!("booted {}", booted.slot) };
            let is_new = booted.image.image_hash == self.group.new[self.index].hash;
            if is_new && crashes {
                return;
            }
            let setup = setup(self.index, slot, u8::from(is_new));
            let now = Instant::from_ms(0);
            let (agent, booted) = match Agent::boot(now, setup, &mut self.tape) {
                Ok(started) => started,
                Err(error) => {
                    assert!(self.tape.power_lost(), "the agent does not start: {error}");
                    return;
                }
            };
            if booted == Booted::Run {
                let rollout = self.resumed(&agent, now);
                let on_trial = agent.on_trial();
                self.live = Some(Live { agent, rollout, now });
                self.soak();
                self.drain();
                if !on_trial {
                    // What is confirmed gets healthy; what is new shows it in a step of its own.
                    self.get_healthy(Sight::Mixed);
                }
                if self.index == LEAD {
                    // A device that has booted has news for its own rollout.
                    self.tell();
                }
                return;
            }
        }
        panic!("the device reboots for ever");
    }

    /// `Lead::resume`.
    fn resumed(&mut self, agent: &Agent, now: Instant) -> Option<Rollout> {
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        let (_, len) = agent.read_record(&mut self.tape, Kind::ROLLOUT, &mut buffer).ok()??;
        let record = RolloutRecord::decode(&buffer[..len]).unwrap();
        Some(Rollout::resume(now, record, id(LEAD), self.group.policy))
    }
}

/// The group as the release finds it: preflight is over, and staging has begun.
///
/// Preflight touches nobody and ends as it began when anything goes wrong, so nothing goes wrong in
/// it here.
pub(crate) fn after_preflight(group: &Group, chips: &[Chip]) -> Vec<Ran> {
    let none = |_: u16| panic!("no frame is on its way");
    let mut ran: Vec<Ran> = (0..group.devices)
        .map(|index| {
            let off = Device::before(&chips[index], index);
            off.step(group, &chips[index], &none, Step::Boot { crashes: false }, None)
        })
        .collect();
    let answers: Vec<_> = ran
        .iter()
        .map(|ran| {
            let agent = &ran.device.live.as_ref().unwrap().agent;
            (agent.facts(FREE_HEAP_BYTES, 0), agent.report())
        })
        .collect();
    let lead = &mut ran[LEAD];
    let live = lead.device.live.as_mut().unwrap();
    let (members, id_lead) = (group.ids_and_roles(), id(LEAD));
    let rollout = RolloutId(0x1111_2222_3333_4444);
    live.rollout = Some(Rollout::forward(
        live.now,
        rollout,
        group.release(),
        &members,
        id_lead,
        None,
        group.policy,
    ));
    let device = lead.device.clone();
    let tape = Tape::new(&chips[LEAD], &device.content, None);
    let (live, seen) = (device.live, Seen::default());
    let mut run = Run { group, index: LEAD, live, tape, sent: Vec::new(), seen };
    for (index, (facts, report)) in answers.into_iter().enumerate().skip(1) {
        run.drive(Input::Facts(id(index), facts));
        run.drive(Input::Report(id(index), report));
    }
    run.drive(Input::Tick);
    let phase = run.live().rollout.as_ref().unwrap().record().phase;
    assert!(phase != Phase::Preflight, "preflight refused: {:?}", run.live().rollout);
    run.sent.retain(|(_, frame)| !matches!(frame, Frame::Order(_, Order::Inspect(_))));
    *lead = run.end();
    ran
}

/// Inputs handled in one go, as in the node.
const INPUTS_MAX: usize = 32;
/// Between two steps: whatever the lead repeats is due again.
const STEP_MS: u64 = 2_000;
/// Windows of one transfer.
const FEEDS_MAX: usize = 100;
/// Whoever waits longer waits for ever.
const WAIT_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Boots of which each ends in another one.
const BOOTS_MAX: usize = 4;
/// The countdown that members are told: it ends when the model says so.
const FIRE_IN_MS: u16 = 100;
const FREE_HEAP_BYTES: u32 = 150_000;
