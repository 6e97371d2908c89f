//! A device and everything around it that keeps its power: what a search needs of it.

use std::fmt;
use std::rc::Rc;

use lockstep_proto::frame::report::{MemberState, Report};
use lockstep_proto::id::ImageHash;
use lockstep_proto::otadata::OtaState;
use lockstep_rollout::{RolloutRecord, Verdict};
use lockstep_sim::bootloader::{BootSlot, Booted, ResetReason};

use crate::bench::Bench;
use crate::places::When;
use crate::scene::Scene;

/// A device at work. Its `Debug` must show all that it keeps in memory.
pub(crate) trait World: fmt::Debug + Sized {
    /// Everything that keeps its power: who conducts, who uploads, what is still wanted.
    type Outside: Clone + fmt::Debug;

    /// Before the first task.
    fn outside(scene: &Scene) -> Self::Outside;

    /// Power comes, or comes back: up to where the firmware runs.
    fn power_on(scene: &Rc<Scene>, outside: Self::Outside, bench: &mut Bench) -> Self;

    /// Carries out what is still wanted, and returns how each of these tasks ended. The journal is
    /// open during the task of the scene in which the power is cut.
    fn run(&mut self, bench: &mut Bench, marks: &mut Marks<Self::Outside>) -> Vec<Verdict>;

    fn report(&self) -> Report;
}

/// What the world outside was like when the flash was changed.
#[derive(Debug)]
pub(crate) struct Marks<O> {
    pub(crate) list: Vec<O>,
}

impl<O: Clone> Marks<O> {
    pub(crate) fn new(first: O) -> Self {
        Self { list: vec![first] }
    }

    /// To be called before the device is given anything: it may lose its power while it works.
    pub(crate) fn note(&mut self, bench: &mut Bench, outside: &O) {
        if !bench.is_journaling() {
            return;
        }
        if !bench.has_used_mark() {
            self.list.pop();
        }
        self.list.push(outside.clone());
        bench.set_mark(self.list.len() - 1);
    }
}

/// What the bootloader chooses: always a whole image that was shipped.
pub(crate) fn boot_image(scene: &Scene, bench: &mut Bench, reset: ResetReason) -> (u8, Booted) {
    bench.enter(When::Bootloader);
    let booted = match scene.bootloader().boot(bench, reset) {
        Ok(booted) => booted,
        Err(failure) => fail(bench, &format!("nothing boots: {failure}")),
    };
    let BootSlot::Ota(slot) = booted.slot else { panic!("booted {}", booted.slot) };
    scene.assert_whole(bench, slot, booted.image.image_hash);
    bench.enter(When::Start);
    (slot, booted)
}

/// Something that must not be, unless the plug was pulled.
pub(crate) fn fail(bench: &Bench, why: &str) -> ! {
    end_without_power(bench);
    panic!("{why}")
}

/// A device whose power is gone does nothing more, and says nothing either.
pub(crate) fn end_without_power(bench: &Bench) {
    if bench.flash.power_lost() {
        std::panic::resume_unwind(Box::new("the power is gone"));
    }
}

/// What a report may say at a start, whatever was cut before.
pub(crate) fn assert_truthful(report: &Report, target: ImageHash) {
    let on_trial = report.observed.on_trial;
    let runs_target = report.running == target;
    match report.state {
        MemberState::Kept => assert!(!on_trial, "kept, and on trial: {report:?}"),
        MemberState::Activating | MemberState::Confirming => {
            assert_eq!(on_trial, runs_target, "what was tried and runs is on trial: {report:?}");
        }
        MemberState::Idle | MemberState::Staging | MemberState::Staged => {
            assert!(!on_trial, "on trial without an activation: {report:?}");
            assert!(!runs_target, "runs what is only staged: {report:?}");
        }
        MemberState::Reverted => assert!(!on_trial, "reverted, and on trial: {report:?}"),
    }
}

/// How a device must be found when its rollout is over.
pub(crate) fn assert_settled(record: &RolloutRecord, verdict: Verdict, report: &Report) {
    let seat = &record.seats[0];
    let expected = match verdict {
        Verdict::Keep => seat.target,
        Verdict::Revert(_) => seat.before,
    };
    assert_eq!(report.running, expected, "{verdict:?}, and another image runs");
    assert!(!report.observed.on_trial && !report.observed.activated, "{verdict:?}: {report:?}");
    let permanent = matches!(report.ota_state, OtaState::Valid | OtaState::Undefined);
    assert!(permanent, "{verdict:?}, and a reset would change what runs: {report:?}");
}

/// Virtual time between two turns of a device's loop, in milliseconds.
pub(crate) const TURN_MS: u64 = 10;
/// From reset to the firmware's first moment.
pub(crate) const BOOT_MS: u64 = 50;
/// A task that takes longer than this, an hour, does not end.
pub(crate) const TURNS_MAX: u32 = 360_000;
/// So often a device may reset before its firmware runs.
pub(crate) const STARTS_MAX: u32 = 4;
