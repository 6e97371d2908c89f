//! A member: the agent with an image that comes in blocks, conducted by a lead whose power stays.
//! The lead is the real `Rollout`, and the real `Sender` says which block comes next.

use std::collections::VecDeque;
use std::rc::Rc;

use lockstep_agent::package::digest;
use lockstep_agent::{Agent, Booted, Effect, Health, Identity, Reply, Setup};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::coding::BLOCK_BYTES_MAX;
use lockstep_proto::frame::order::{Order, Ticket};
use lockstep_proto::frame::report::{Report, View, Wants};
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::manifest::Trust;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::transfer::{Due, Sender, Timing};
use lockstep_rollout::{Input, Offers, Phase, Policy, Rollout, RolloutRecord, Verdict};
use lockstep_sim::bootloader::ResetReason;

use crate::bench::Bench;
use crate::places::When;
use crate::scene::{BOARD, CHIP, ROLE, Scene, Task};
use crate::world::{
    BOOT_MS, Marks, STARTS_MAX, TURN_MS, TURNS_MAX, World, assert_settled, assert_truthful,
    boot_image, end_without_power, fail,
};

const ME: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);
const LEAD: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
const TIMING: Timing = Timing { slot_ms: 2, answer_ms: 80, mend_ms: 12 };
const WANTS_MS: u64 = 300;
const INPUTS_MAX: u32 = 64;

/// The lead, its clock and what it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    now: Instant,
    task: usize,
    rollout: Option<Rollout>,
    senders: Vec<(usize, Sender)>,
    offers: Option<Offers>,
    last: Option<RolloutRecord>,
}

/// A member and its lead.
#[derive(Debug)]
pub(crate) struct Member {
    scene: Rc<Scene>,
    outside: Outside,
    agent: Agent,
    booted_at: Instant,
    wanted_at: Instant,
}

impl World for Member {
    type Outside = Outside;

    fn outside(_scene: &Scene) -> Outside {
        let now = Instant::from_ms(0);
        Outside { now, task: 0, rollout: None, senders: Vec::new(), offers: None, last: None }
    }

    fn power_on(scene: &Rc<Scene>, mut outside: Outside, bench: &mut Bench) -> Self {
        let agent = boot(scene, &mut outside, bench, ResetReason::PowerOn);
        let now = outside.now;
        Self { scene: Rc::clone(scene), outside, agent, booted_at: now, wanted_at: now }
    }

    fn run(&mut self, bench: &mut Bench, marks: &mut Marks<Outside>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        while let Some(task) = self.scene.tasks.get(self.outside.task).copied() {
            self.begin(task, bench, marks);
            let over = (0..TURNS_MAX).find_map(|_| {
                self.turn(task, bench, marks);
                end_without_power(bench);
                self.settled()
            });
            let verdict = over.expect("the rollout ends");
            let record = self.lead().record().clone();
            assert_settled(&record, verdict, &self.agent.report());
            if self.outside.task == self.scene.cut_task {
                bench.end_journal();
            }
            verdicts.push(verdict);
            self.outside.task += 1;
            self.outside.rollout = None;
            self.outside.last = Some(record);
        }
        verdicts
    }

    fn report(&self) -> Report {
        self.agent.report()
    }
}

/// From reset to a running agent, which may find that it must reset once more.
fn boot(scene: &Scene, outside: &mut Outside, bench: &mut Bench, reset: ResetReason) -> Agent {
    let mut reset = reset;
    for _ in 0..STARTS_MAX {
        outside.now = outside.now + BOOT_MS;
        let (running_slot, booted) = boot_image(scene, bench, reset);
        let descriptor = booted.image.descriptor.as_ref().expect("every image has one");
        let setup = Setup {
            identity: Identity {
                role: Role::new(ROLE).unwrap(),
                chip: CHIP,
                board: Board::new(BOARD).unwrap(),
                announced: Descriptor::announced(descriptor),
                config_schema: 1,
            },
            rollback: scene.rollback,
            running_slot,
            reset_reason: 1,
            trust: Trust::anybody(),
            takes_large: false,
        };
        let started = Agent::boot(Instant::from_ms(0), setup, bench);
        let (mut agent, booted) =
            started.unwrap_or_else(|error| fail(bench, &format!("does not start: {error}")));
        match booted {
            Booted::Run => {
                assert_truthful(&agent.report(), agent.member().target);
                bench.places.note_state(agent.member().state);
                agent.set_pace(scene.pace);
                bench.enter(When::Running);
                return agent;
            }
            Booted::RebootNow(_) => reset = ResetReason::Software,
        }
    }
    panic!("the device starts again and again");
}

impl Member {
    fn lead(&mut self) -> &mut Rollout {
        self.outside.rollout.as_mut().expect("a rollout is open")
    }

    fn device_now(&self) -> Instant {
        Instant::from_ms(self.outside.now.ms_since(self.booted_at))
    }

    /// The lead opens the rollout, unless it is open already.
    fn begin(&mut self, task: Task, bench: &mut Bench, marks: &mut Marks<Outside>) {
        let outside = &mut self.outside;
        if outside.rollout.is_some() {
            return;
        }
        bench.places.begin_rollout();
        let id = RolloutId(0x4C53_0000 + outside.task as u64 + 1);
        let members = [(ME, Role::new(ROLE).unwrap())];
        let (now, policy, last) = (outside.now, Policy::desk(), outside.last.clone());
        outside.senders.clear();
        outside.offers = None;
        let rollout = match task {
            Task::Update(index) | Task::UpdateAborted(index) => {
                let shipped = &self.scene.releases[index];
                let patch = shipped.patch.as_ref().map(|(patch, offer)| (patch, offer.patch));
                let files = [&shipped.package, &shipped.file].map(|file| (file, digest(file)));
                for (bytes, name) in files.into_iter().chain(patch) {
                    let session = Session::of(&name.0);
                    let size = u32::try_from(bytes.len()).unwrap();
                    outside.senders.push((index, Sender::new(session, size, TIMING, 1)));
                }
                let release = shipped.release.clone();
                Rollout::forward(now, id, release, &members, LEAD, last, policy)
            }
            Task::Back => {
                let last = last.expect("only what was kept is reverted");
                Rollout::back(now, id, &members, LEAD, last, policy)
            }
        };
        outside.rollout = Some(rollout);
        if outside.task == self.scene.cut_task && !bench.is_journaling() {
            bench.begin_journal();
            *marks = Marks::new(self.outside.clone());
        }
    }

    fn settled(&self) -> Option<Verdict> {
        let record = self.outside.rollout.as_ref()?.record();
        match record.phase {
            Phase::Settled(verdict) if record.seats.iter().all(|seat| seat.settled) => {
                Some(verdict)
            }
            _ => None,
        }
    }

    fn turn(&mut self, task: Task, bench: &mut Bench, marks: &mut Marks<Outside>) {
        self.outside.now = self.outside.now + TURN_MS;
        self.drive(Input::Tick, bench, marks);
        self.offer(task, bench, marks);
        let now = self.device_now();
        let view = View::of([(ME, self.agent.running())]);
        self.agent.observe(now, Health { checks_ok: true, link_ok: true, linked: 1, view });
        marks.note(bench, &self.outside);
        self.agent.tick(now, bench);
        if self.obey_effects(bench, marks) {
            return;
        }
        if self.agent.take_report_due() {
            self.drive(Input::Report(ME, self.agent.report()), bench, marks);
        }
        self.transfer(bench, marks);
        let on_trial = self.agent.on_trial() && self.lead().record().phase == Phase::Trial;
        if on_trial && matches!(task, Task::UpdateAborted(_)) {
            self.drive(Input::Abort, bench, marks);
        }
        self.obey_effects(bench, marks);
    }

    /// The lead has a patch for it, all of it, for as long as it stages.
    fn offer(&mut self, task: Task, bench: &mut Bench, marks: &mut Marks<Outside>) {
        let (Task::Update(index) | Task::UpdateAborted(index)) = task else { return };
        let scene = Rc::clone(&self.scene);
        let Some((_, offer)) = &scene.releases[index].patch else { return };
        let Outside { now, rollout, offers, .. } = &mut self.outside;
        let Some(rollout) = rollout.as_ref().filter(|it| it.record().phase == Phase::Staging)
        else {
            return;
        };
        let (record, views) = (rollout.record(), rollout.views());
        let role = Role::new(ROLE).unwrap();
        let offers = offers.get_or_insert_with(|| Offers::new(*offer, &role, LEAD, record, views));
        for outgoing in offers.due(*now, record, views) {
            let mut inputs = VecDeque::new();
            self.deliver(&outgoing.ticket, &outgoing.order, bench, marks, &mut inputs);
            for input in inputs {
                self.drive(input, bench, marks);
            }
        }
    }

    /// One input for the lead, all the way through: what the member answers is the next one.
    fn drive(&mut self, input: Input, bench: &mut Bench, marks: &mut Marks<Outside>) {
        let mut inputs = VecDeque::from([input]);
        for _ in 0..INPUTS_MAX {
            let Some(input) = inputs.pop_front() else { return };
            let now = self.outside.now;
            if let (Input::Report(_, report), Some(offers)) = (&input, &mut self.outside.offers) {
                offers.note_report(ME, report);
            }
            let step = self.lead().step(now, &input);
            for outgoing in step.orders {
                self.deliver(&outgoing.ticket, &outgoing.order, bench, marks, &mut inputs);
            }
        }
    }

    fn deliver(
        &mut self,
        ticket: &Ticket,
        order: &Order,
        bench: &mut Bench,
        marks: &mut Marks<Outside>,
        inputs: &mut VecDeque<Input>,
    ) {
        marks.note(bench, &self.outside);
        let reply = self.agent.handle_order(self.device_now(), ticket, order, bench);
        if reply == Reply::FactsAndReport {
            inputs.push_back(Input::Facts(ME, self.agent.facts(150_000, 0)));
        }
        if reply != Reply::Nothing {
            inputs.push_back(Input::Report(ME, self.agent.report()));
        }
    }

    /// `true`: the device was reset.
    fn obey_effects(&mut self, bench: &mut Bench, marks: &mut Marks<Outside>) -> bool {
        while let Some(effect) = self.agent.poll_effect() {
            match effect {
                Effect::AskRest => self.agent.application_at_rest(self.device_now()),
                Effect::Reboot(_) => {
                    marks.note(bench, &self.outside);
                    let reset = ResetReason::Software;
                    self.agent = boot(&self.scene, &mut self.outside, bench, reset);
                    self.booted_at = self.outside.now;
                    self.wanted_at = self.outside.now;
                    return true;
                }
                Effect::Release | Effect::Trace(_) => {}
            }
        }
        false
    }

    /// What the member wants, as far as it can take it now. Some blocks get lost, so that there is
    /// something to mend.
    fn transfer(&mut self, bench: &mut Bench, marks: &mut Marks<Outside>) {
        let now = self.outside.now;
        self.say_wants();
        let repeats = now.ms_since(self.wanted_at) >= WANTS_MS;
        if repeats
            && self.agent.misses_blocks(self.device_now(), WANTS_MS)
            && let Some(wants) = self.agent.wants()
        {
            self.note_wants(wants);
        }
        let scene = Rc::clone(&self.scene);
        let waits = self.waits_for_patch();
        for part in 0..self.outside.senders.len() {
            if part == 1 && waits {
                continue;
            }
            let mut payload = [0; BLOCK_BYTES_MAX];
            loop {
                let (index, sender) = &mut self.outside.senders[part];
                let Some(due) = sender.next_frame(now) else { break };
                let shipped = &scene.releases[*index];
                let bytes = match (part, &shipped.patch) {
                    (0, _) => &shipped.package,
                    (2, Some((patch, _))) => patch,
                    _ => &shipped.file,
                };
                let (session, cut) = (sender.session(), sender.cut());
                let frame = due.frame(session, cut, &mut payload, |offset, into| {
                    let start = offset as usize;
                    into.copy_from_slice(&bytes[start..start + into.len()]);
                    Some(())
                });
                let is_lost = matches!(due, Due::Block { index, .. } if index % 19 == 7);
                if is_lost {
                    continue;
                }
                marks.note(bench, &self.outside);
                let frame = frame.expect("all of it is there");
                let _ = self.agent.handle_block(self.device_now(), ME, &frame, bench);
                self.say_wants();
            }
        }
    }

    /// The image itself comes behind its patch: the lead has one object at a time.
    fn waits_for_patch(&self) -> bool {
        let Outside { rollout, offers, .. } = &self.outside;
        let record = rollout.as_ref().map(|rollout| (rollout.record(), rollout.views()));
        let is_done = |offers: &Offers| record.is_some_and(|(it, views)| offers.is_done(it, views));
        offers.as_ref().is_some_and(|offers| !is_done(offers))
    }

    fn say_wants(&mut self) {
        if let Some(wants) = self.agent.take_wants(self.device_now()) {
            self.note_wants(wants);
        }
    }

    fn note_wants(&mut self, wants: Wants) {
        let now = self.outside.now;
        self.wanted_at = now;
        for (_, sender) in &mut self.outside.senders {
            sender.note_wants(now, ME, wants);
        }
        if let Some(offers) = &mut self.outside.offers
            && Session::of(&offers.offer().patch.0) == wants.session
        {
            offers.note_taken(ME);
        }
    }
}
