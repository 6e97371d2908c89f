//! Every condition alone: a report in which one thing is not so is judged otherwise.

use std::vec;
use std::vec::Vec;

use lockstep_proto::frame::order::Ticket;
use lockstep_proto::frame::report::{MemberState, Observed, Report, View};
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::otadata::OtaState;
use lockstep_proto::wire::Role;

use super::*;
use crate::record::{Hold, Kind, Phase};

const OLD: ImageHash = ImageHash([1; 32]);
const NEW: ImageHash = ImageHash([2; 32]);
const GENERATION: Generation = Generation { term: 1, counter: 7 };

fn seat(part: Part) -> SeatRecord {
    SeatRecord {
        id: DeviceId([2; 6]),
        role: Role::new("receiver").unwrap(),
        part,
        target: NEW,
        before: OLD,
        size_bytes: 1,
        attempt: 2,
        reactivations: 0,
        settled: false,
    }
}

pub(crate) fn record() -> RolloutRecord {
    RolloutRecord {
        id: RolloutId(9),
        generation: GENERATION,
        kind: Kind::Forward,
        phase: Phase::Trial,
        restarts: 0,
        number: 2,
        number_before: 1,
        epoch: 0,
        package: Sha256([0; 32]),
        package_size_bytes: 0,
        trial_limit_ms: 0,
        reboot_delay_ms: 0,
        order: Vec::new(),
        seats: vec![seat(Part::Update)],
        raises_epoch: false,
        is_final: false,
        catches_up: false,
        hold: Hold::No,
        appended: Vec::new(),
    }
}

fn report(state: MemberState, running: ImageHash, observed: Observed) -> Report {
    Report {
        ticket: Ticket { rollout: RolloutId(9), generation: GENERATION, attempt: 2 },
        state,
        refused: None,
        running,
        other: if running == OLD { NEW } else { OLD },
        ota_state: OtaState::Valid,
        observed,
        staged_bytes: 0,
        linked: 0,
        view: View::default(),
        trial_left_s: 0,
        reset_reason: 1,
    }
}

type Change = fn(&mut Report);

const OTHER_ROLLOUT: Change = |report| report.ticket.rollout = RolloutId(10);
const OTHER_GENERATION: Change = |report| report.ticket.generation.counter = 8;

/// The report holds, and does not with any one of the changes.
fn assert_needs(holds: impl Fn(&Report) -> bool, good: Report, changes: &[Change]) {
    assert!(holds(&good), "{good:?}");
    for (index, change) in changes.iter().enumerate() {
        let mut changed = good;
        change(&mut changed);
        assert_ne!(changed, good, "change {index} changes nothing");
        assert!(!holds(&changed), "change {index}: {changed:?}");
    }
}

#[test]
fn a_report_is_ours_by_rollout_and_generation() {
    let good = report(MemberState::Staged, OLD, Observed::default());
    assert_needs(|it| is_ours(&record(), it), good, &[OTHER_ROLLOUT, OTHER_GENERATION]);
}

#[test]
fn only_an_older_attempt_of_the_same_rollout_is_outdated() {
    let known = report(MemberState::Activating, NEW, Observed::default());
    let mut late = known;
    late.ticket.attempt = 1;
    let outdated = |it: &Report| is_outdated(Some(&known), it);
    let again: Change = |report| report.ticket.attempt = 2;
    assert_needs(outdated, late, &[OTHER_ROLLOUT, OTHER_GENERATION, again]);
    assert!(!is_outdated(None, &late));
}

#[test]
fn staged_is_who_holds_the_target_in_the_other_slot_and_runs_the_way_back() {
    let observed = Observed { staged: true, ..Observed::default() };
    let good = report(MemberState::Staged, OLD, observed);
    let seat = seat(Part::Update);
    assert_needs(
        |it| is_staged(&record(), &seat, it),
        good,
        &[
            OTHER_ROLLOUT,
            OTHER_GENERATION,
            |it| it.observed.staged = false,
            |it| it.other = OLD,
            |it| it.running = NEW,
            |it| it.observed.on_trial = true,
        ],
    );
}

#[test]
fn at_rest_is_who_has_staged_and_whose_application_says_so() {
    let observed = Observed { staged: true, at_rest: true, ..Observed::default() };
    let good = report(MemberState::Staged, OLD, observed);
    let update = seat(Part::Update);
    let changes: &[Change] = &[|it| it.observed.at_rest = false, |it| it.observed.staged = false];
    assert_needs(|it| is_at_rest(&record(), &update, it), good, changes);
    // A watched member was asked nothing.
    let watched = SeatRecord { target: OLD, ..seat(Part::Watch) };
    let idle = report(MemberState::Idle, OLD, Observed::default());
    assert_needs(|it| is_at_rest(&record(), &watched, it), idle, &[|it| it.running = NEW]);
}

#[test]
fn fallen_back_is_who_has_spent_the_attempt_and_does_not_run_the_target() {
    let seat = seat(Part::Update);
    for state in
        [MemberState::Activating, MemberState::Confirming, MemberState::Kept, MemberState::Reverted]
    {
        assert_needs(
            |it| fell_back(&record(), &seat, it),
            report(state, OLD, Observed::default()),
            &[
                OTHER_ROLLOUT,
                OTHER_GENERATION,
                |it| it.state = MemberState::Staged,
                |it| it.ticket.attempt = 1,
                |it| it.running = NEW,
                |it| it.observed.activated = true,
            ],
        );
    }
    let watched = SeatRecord { part: Part::Watch, ..seat };
    let report = report(MemberState::Activating, OLD, Observed::default());
    assert!(!fell_back(&record(), &watched, &report));
}

#[test]
fn kept_is_who_runs_the_target_for_good_and_says_so_of_this_rollout() {
    let seat = seat(Part::Update);
    let good = report(MemberState::Kept, NEW, Observed::default());
    assert_needs(
        |it| is_kept(&record(), &seat, it),
        good,
        &[
            OTHER_ROLLOUT,
            OTHER_GENERATION,
            |it| it.running = OLD,
            |it| it.state = MemberState::Confirming,
            |it| it.ota_state = OtaState::PendingVerify,
            |it| it.observed.on_trial = true,
        ],
    );
    let watched = SeatRecord { part: Part::Watch, ..seat };
    assert_needs(
        |it| is_kept(&record(), &watched, it),
        report(MemberState::Idle, NEW, Observed::default()),
        &[
            |it| it.running = OLD,
            |it| it.observed.activated = true,
            |it| it.observed.on_trial = true,
        ],
    );
}

#[test]
fn reverted_is_who_runs_the_way_back_for_good_and_refuses_what_comes_late() {
    let seat = seat(Part::Update);
    assert_needs(
        |it| is_reverted(&record(), &seat, it),
        report(MemberState::Reverted, OLD, Observed::default()),
        &[
            OTHER_GENERATION,
            |it| it.running = NEW,
            |it| it.observed.on_trial = true,
            |it| it.observed.activated = true,
            |it| it.state = MemberState::Activating,
        ],
    );
}
