//! A lead alone: the whole node, which conducts itself, stores the rollout's record in the flash
//! that is cut, and takes its image from an upload. Who uploads keeps its power: it goes on where
//! the device says, and begins anew when the device knows of nothing.

use std::rc::Rc;

use lockstep_agent::Booted;
use lockstep_device::channel::ChannelPlan;
use lockstep_device::sample::{SampleApplication, Work};
use lockstep_device::setup::{Duty, Firmware, NodeSetup, Pace};
use lockstep_device::{Action, Node, UploadStep};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Report;
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::manifest::Trust;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::{Phase, Policy, RolloutRecord, Verdict};
use lockstep_sim::bootloader::ResetReason;

use crate::bench::Bench;
use crate::places::When;
use crate::scene::{BOARD, CHIP, ROLE, Scene, Task};
use crate::world::{
    Marks, STARTS_MAX, TURN_MS, TURNS_MAX, World, assert_settled, assert_truthful, boot_image,
    end_without_power, fail,
};

const ME: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
/// What a socket gives at once, and how often within a turn.
const CHUNK_BYTES: usize = 1_460;
const CHUNKS_PER_TURN: usize = 6;

/// Who wants something of the device.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    task: usize,
    /// The rollout that the device told of before the task was begun.
    before: Option<Option<RolloutId>>,
    /// How often it was started: what seeds its random numbers.
    starts: u64,
}

/// A lead alone.
#[derive(Debug)]
pub(crate) struct Lead {
    scene: Rc<Scene>,
    outside: Outside,
    node: Node<SampleApplication>,
    uptime: Instant,
    /// Bytes of the bundle that this boot has taken; `None`: no upload is on.
    sent_bytes: Option<usize>,
}

impl World for Lead {
    type Outside = Outside;

    fn outside(_scene: &Scene) -> Outside {
        Outside { task: 0, before: None, starts: 0 }
    }

    fn power_on(scene: &Rc<Scene>, mut outside: Outside, bench: &mut Bench) -> Self {
        let node = boot(scene, &mut outside, bench, ResetReason::PowerOn);
        let uptime = Instant::from_ms(0);
        Self { scene: Rc::clone(scene), outside, node, uptime, sent_bytes: None }
    }

    fn run(&mut self, bench: &mut Bench, marks: &mut Marks<Outside>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        while let Some(task) = self.scene.tasks.get(self.outside.task).copied() {
            self.begin(bench, marks);
            let over = (0..TURNS_MAX).find_map(|_| {
                self.turn(task, bench, marks);
                end_without_power(bench);
                self.settled()
            });
            let (record, verdict) = over.expect("the rollout ends");
            assert_settled(&record, verdict, &self.report());
            if self.outside.task == self.scene.cut_task {
                bench.end_journal();
            }
            verdicts.push(verdict);
            self.outside.task += 1;
            (self.outside.before, self.sent_bytes) = (None, None);
        }
        verdicts
    }

    fn report(&self) -> Report {
        self.node.agent().report()
    }
}

fn boot(
    scene: &Scene,
    outside: &mut Outside,
    bench: &mut Bench,
    reset: ResetReason,
) -> Node<SampleApplication> {
    let mut reset = reset;
    for _ in 0..STARTS_MAX {
        outside.starts += 1;
        let (running_slot, booted) = boot_image(scene, bench, reset);
        let descriptor = booted.image.descriptor.as_ref();
        let setup = NodeSetup {
            id: ME,
            role: Role::new(ROLE).unwrap(),
            chip: CHIP,
            board: Board::new(BOARD).unwrap(),
            hardware: String::new(),
            firmware: Firmware {
                image: booted.image.image_hash,
                announced: descriptor.map(Descriptor::announced),
                product: descriptor.map(|descriptor| descriptor.product.clone()),
                config_schema: 1,
                build_date: String::new(),
                build_time: String::new(),
            },
            running_slot,
            reset_reason: 1,
            rollback: scene.rollback,
            takes_large: false,
            group_key: Some(GroupKey::new([9; 32])),
            trust: Trust::anybody(),
            duty: Duty::Lead,
            policy: Policy::desk(),
            channels: ChannelPlan::Fixed,
            pace: Pace::desk(),
            seed: outside.starts,
        };
        let application = SampleApplication::new(Work::Shows, 150_000);
        let started = Node::boot(Instant::from_ms(0), setup, application, bench);
        let (node, booted) =
            started.unwrap_or_else(|error| fail(bench, &format!("does not start: {error}")));
        match booted {
            Booted::Run => {
                let report = node.agent().report();
                assert_truthful(&report, node.agent().member().target);
                bench.places.note_state(report.state);
                bench.enter(When::Running);
                return node;
            }
            Booted::RebootNow(_) => reset = ResetReason::Software,
        }
    }
    panic!("the device starts again and again");
}

impl Lead {
    fn begin(&mut self, bench: &mut Bench, marks: &mut Marks<Outside>) {
        if self.outside.before.is_some() {
            return;
        }
        self.outside.before = Some(self.node.conducting().map(|conducting| conducting.record.id));
        bench.places.begin_rollout();
        if self.outside.task == self.scene.cut_task && !bench.is_journaling() {
            bench.begin_journal();
            *marks = Marks::new(self.outside.clone());
        }
    }

    /// The rollout of the task, if the device knows of it.
    fn record(&self) -> Option<&RolloutRecord> {
        let record = self.node.conducting()?.record;
        (self.outside.before.flatten() != Some(record.id)).then_some(record)
    }

    fn settled(&self) -> Option<(RolloutRecord, Verdict)> {
        let record = self.record()?;
        match record.phase {
            Phase::Settled(verdict) if record.seats.iter().all(|seat| seat.settled) => {
                Some((record.clone(), verdict))
            }
            _ => None,
        }
    }

    fn turn(&mut self, task: Task, bench: &mut Bench, marks: &mut Marks<Outside>) {
        self.uptime = self.uptime + TURN_MS;
        marks.note(bench, &self.outside);
        self.node.tick(self.uptime, bench);
        if self.obey_actions(bench, marks) {
            return;
        }
        match task {
            Task::Update(index) => self.upload(index, bench),
            Task::UpdateAborted(index) => {
                self.upload(index, bench);
                let in_trial = self.record().is_some_and(|record| record.phase == Phase::Trial);
                if in_trial && self.node.agent().on_trial() {
                    self.node.abort(self.uptime, bench).expect("there is no verdict yet");
                }
            }
            Task::Back if self.record().is_none() => {
                self.node.revert(self.uptime, bench).expect("something was kept");
            }
            Task::Back => {}
        }
        self.obey_actions(bench, marks);
    }

    /// `true`: the device was reset.
    fn obey_actions(&mut self, bench: &mut Bench, marks: &mut Marks<Outside>) -> bool {
        let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
        while self.node.poll_frame(self.uptime, &mut buffer, bench).is_some() {}
        let resets = std::iter::from_fn(|| self.node.poll_action())
            .any(|action| matches!(action, Action::Reboot(_)));
        if resets {
            marks.note(bench, &self.outside);
            self.node = boot(&self.scene, &mut self.outside, bench, ResetReason::Software);
            (self.uptime, self.sent_bytes) = (Instant::from_ms(0), None);
        }
        resets
    }

    /// What `lockstep update` does with the device's answers.
    fn upload(&mut self, index: usize, bench: &mut Bench) {
        let scene = Rc::clone(&self.scene);
        let bundle = &scene.releases[index].bundle;
        let size = u32::try_from(bundle.len()).unwrap();
        let at = match (self.sent_bytes, self.record()) {
            (Some(at), _) => at,
            (None, None) => {
                self.node.upload_begin(size).expect("nothing else is open");
                0
            }
            (None, Some(_)) => {
                let upload = self.node.conducting().and_then(|conducting| conducting.upload);
                let Some((offset, _)) = upload else { return };
                self.node.upload_continue(self.uptime, offset, size, bench).expect("it says where");
                offset as usize
            }
        };
        self.sent_bytes = self.push(bundle, at, bench);
    }

    fn push(&mut self, bundle: &[u8], at: usize, bench: &mut Bench) -> Option<usize> {
        let mut at = at;
        for _ in 0..CHUNKS_PER_TURN {
            let chunk = &bundle[at..bundle.len().min(at + CHUNK_BYTES)];
            match self.node.upload_push(self.uptime, chunk, bench) {
                Ok(UploadStep::Taken(taken)) => at += taken,
                Ok(UploadStep::Wait) => break,
                Ok(UploadStep::Complete(_)) => return None,
                Err(error) => fail(bench, &format!("refused at byte {at}: {error}")),
            }
        }
        Some(at)
    }
}
