//! The plug is pulled everywhere: after every byte written, and in every phase of an erase.
//!
//! Each test carries out one step with every power budget. After each cut the bootloader must find
//! a whole image, the agent must start, and its record must tell the truth about what runs.

use lockstep_agent::{Effect, RebootReason};
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::report::{MemberState, Report};
use lockstep_proto::id::ImageHash;

use crate::fixture::{Release, Start, TestDevice, firmware, ticket};

const STARTS: [Start; 3] = [Start::Rollback, Start::NoRollback, Start::ConfirmsEarly];

/// Carries out `step` on a copy of `device`, once with each power budget, and starts it again.
/// `look` sees what came of it.
fn with_every_cut(
    device: &TestDevice,
    step: impl Fn(&mut TestDevice),
    mut look: impl FnMut(&mut TestDevice, u64),
) {
    for budget in 0.. {
        let mut device = device.clone();
        device.flash.power_budget_bytes = Some(budget);
        step(&mut device);
        let sufficed = !device.flash.power_lost();
        device.flash.power_on();
        device.power_cycle();
        assert_truthful(&mut device, budget);
        look(&mut device, budget);
        if sufficed {
            return;
        }
    }
}

/// What every report must be true about, after any cut.
#[track_caller]
fn assert_truthful(device: &mut TestDevice, budget: u64) {
    let report = device.report();
    let whole = [device.old.hash, device.new.hash];
    assert!(whole.contains(&report.running), "runs a whole image after {budget}");
    match report.state {
        // The promise of the lead's verdict: kept means that it runs, confirmed.
        MemberState::Kept => assert!(!report.observed.on_trial, "{budget}: {report:?}"),
        MemberState::Activating | MemberState::Confirming => {
            let runs_target = report.running == device.agent().member().target;
            assert_eq!(report.observed.on_trial, runs_target, "{budget}: {report:?}");
        }
        MemberState::Idle | MemberState::Staging | MemberState::Staged | MemberState::Reverted => {
            assert!(!report.observed.on_trial, "{budget}: {report:?}");
        }
    }
}

fn outcome(device: &mut TestDevice) -> (MemberState, u8, ImageHash) {
    let Report { state, ticket, running, .. } = device.report();
    (state, ticket.attempt, running)
}

// Rule: the record is durable before otadata. Else a late `Activate` is obeyed after a revert.
#[test]
fn a_cut_activation_has_not_happened_or_has_spent_its_attempt() {
    for start in STARTS {
        let mut seen = std::collections::BTreeSet::new();
        with_every_cut(
            &TestDevice::ready(start),
            |device| {
                let order = device.activation();
                device.send(&ticket(1, 1), &order);
                let effects = device.take_effects();
                let done = effects.contains(&Effect::Reboot(RebootReason::Activate));
                assert!(!done || !device.flash.power_lost(), "no reboot before it is durable");
            },
            |device, budget| {
                let (state, attempt, running) = outcome(device);
                let new = running == device.new.hash;
                assert!(!new || attempt == 1, "{start:?}, cut after {budget}");
                match state {
                    MemberState::Staged => assert_eq!((attempt, new), (0, false)),
                    MemberState::Activating => assert_eq!(attempt, 1),
                    _ => panic!("{state:?} after {budget}"),
                }
                seen.insert((attempt, new));
            },
        );
        // Untouched, record only, and both: the cuts have reached every stage.
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(0, false), (1, false), (1, true)]);
    }
}

// Confirming is not power-fail atomic: the member may fall back, and must say so.
#[test]
fn a_cut_confirmation_is_kept_or_fell_back_and_never_half() {
    for start in STARTS {
        let mut trial = TestDevice::in_trial(start);
        trial.get_healthy();
        let mut seen = std::collections::BTreeSet::new();
        with_every_cut(
            &trial,
            |device| {
                let order = device.confirmation();
                device.send(&ticket(1, 1), &order);
                let said_kept = device.report().state == MemberState::Kept;
                assert!(!said_kept || !device.flash.power_lost(), "kept is said when it is true");
            },
            |device, budget| {
                let (state, _, running) = outcome(device);
                let new = running == device.new.hash;
                match state {
                    MemberState::Kept => assert!(new, "{start:?}, cut after {budget}"),
                    // Any reset on trial goes back, before the verdict was carried out.
                    MemberState::Activating | MemberState::Confirming => {
                        assert!(!new, "{start:?}, cut after {budget}");
                        reactivate(device);
                    }
                    _ => panic!("{state:?} after {budget}"),
                }
                seen.insert(new);
            },
        );
        assert_eq!(seen.len(), 2, "both outcomes were seen");
    }
}

/// What a lead does after `keep` with a member that fell back: activates it again, confirms it.
fn reactivate(device: &mut TestDevice) {
    assert!(device.report().observed.staged);
    device.rest(1);
    let order = device.activation();
    let attempt = device.report().ticket.attempt + 1;
    assert_eq!(device.order(&ticket(1, attempt), &order).refused, None);
    device.power_cycle();
    device.get_healthy();
    let order = device.confirmation();
    assert_eq!(device.order(&ticket(1, attempt), &order).state, MemberState::Kept);
}

#[test]
fn a_cut_revert_of_a_trial_goes_back_all_the_same() {
    for start in STARTS {
        let mut seen = std::collections::BTreeSet::new();
        with_every_cut(
            &TestDevice::in_trial(start),
            |device| {
                device.send(&ticket(1, 1), &Order::Revert);
            },
            |device, budget| {
                let (state, _, running) = outcome(device);
                assert_eq!(running, device.old.hash, "{start:?}, cut after {budget}");
                let reverted = state == MemberState::Reverted;
                assert!(reverted || state == MemberState::Activating, "{state:?}");
                let report = device.order(&ticket(1, 1), &Order::Revert);
                assert_eq!((report.state, report.refused), (MemberState::Reverted, None));
                device.power_cycle();
                assert_eq!(device.running(), device.old.hash);
                seen.insert(reverted);
            },
        );
        assert_eq!(seen.len(), 2, "both outcomes were seen");
    }
}

#[test]
fn a_cut_cancellation_never_leaves_a_reverted_image_running() {
    for start in STARTS {
        let mut activated = TestDevice::ready(start);
        let order = activated.activation();
        activated.send(&ticket(1, 1), &order);
        with_every_cut(
            &activated,
            |device| {
                device.send(&ticket(1, 1), &Order::Revert);
            },
            |device, budget| {
                let (state, _, running) = outcome(device);
                match state {
                    MemberState::Reverted => assert_eq!(running, device.old.hash, "{budget}"),
                    // The revert has not arrived, as it were: the trial has begun.
                    MemberState::Activating => assert_eq!(running, device.new.hash, "{budget}"),
                    _ => panic!("{state:?} after {budget}"),
                }
            },
        );
    }
}

// The fall backs that nobody ordered.
#[test]
fn a_cut_fall_back_goes_back_all_the_same() {
    for start in STARTS {
        with_every_cut(
            &TestDevice::in_trial(start),
            |device| device.pass(10_000),
            |device, budget| {
                let (state, attempt, running) = outcome(device);
                assert_eq!(running, device.old.hash, "{start:?}, cut after {budget}");
                assert_eq!((state, attempt), (MemberState::Activating, 1));
                reactivate(device);
            },
        );
    }
}

// The count of trial boots is what saves a device whose bootloader does not help.
#[test]
fn a_cut_in_the_first_moments_of_a_trial_goes_back_sooner_or_later() {
    for start in STARTS {
        let mut trial = TestDevice::ready(start);
        let order = trial.activation();
        trial.send(&ticket(1, 1), &order);
        for budget in 0.. {
            let mut device = trial.clone();
            device.flash.power_budget_bytes = Some(budget);
            let sufficed = device.try_power_cycle().is_some();
            for _ in 0..3 {
                device.flash.power_on();
                device.power_cycle();
                assert_truthful(&mut device, budget);
            }
            assert_eq!(device.running(), device.old.hash, "{start:?}, cut after {budget}");
            if sufficed {
                break;
            }
        }
    }
}

// Staging touches the slot, its entry, the record and the package store.
#[test]
fn a_cut_staging_leaves_the_old_image_running_and_can_be_resumed() {
    let kept = TestDevice::kept(Start::Rollback);
    let release = Release::of(firmware(2));
    let (package, stage) = (release.package(), Order::Stage(release.stage()));
    let mut budget = 0;
    loop {
        let mut device = kept.clone();
        device.flash.power_budget_bytes = Some(budget);
        device.send(&ticket(2, 0), &stage);
        feed_while_powered(&mut device, &package, &release.firmware.file);
        let sufficed = !device.flash.power_lost();
        device.flash.power_on();
        device.power_cycle();
        assert_eq!(device.running(), device.new.hash, "cut after {budget}");
        assert_truthful(&mut device, budget);
        let staged = device.report().observed.staged && device.state() == MemberState::Staged;
        assert!(!staged || device.agent().other() == Some(release.image), "cut after {budget}");
        device.order(&ticket(2, 0), &stage);
        device.feed(&package, &release.firmware.file);
        assert_eq!(device.state(), MemberState::Staged, "{budget}: {:?}", device.refusal());
        if sufficed {
            return;
        }
        // Every byte of the record, then many places in package store and slot.
        budget += if budget < 300 { 1 } else { 23 };
    }
}

fn feed_while_powered(device: &mut TestDevice, package: &[u8], file: &[u8]) {
    for _ in 0..200 {
        let Some(wants) = device.wanted() else { return };
        if device.flash.power_lost() {
            return;
        }
        device.feed_some(&wants, package, file);
        device.pass(1);
    }
}
