//! One test for each rule of the rollout that is the lead's: its name says the rule, and each
//! shows what would happen without it. The fixture checks the three invariants at every order.

mod group;

use group::{Flaw, LEAD, NO_IMAGE, TestGroup, device, image, release, role, ticket};
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::report::{MemberState, Refusal, Refused, View};
use lockstep_proto::id::Generation;
use lockstep_rollout::{
    Cause, Event, Fault, Hold, Input, Kind, Part, Phase, Policy, Rollout, Verdict,
};

const STAGE: u8 = 0x11;
const REST: u8 = 0x12;
const ARM: u8 = 0x13;
const FIRE: u8 = 0x14;
const ACTIVATE: u8 = 0x15;
const CONFIRM: u8 = 0x16;
const REVERT: u8 = 0x17;
const SETTLED: u8 = 0x18;

fn started(count: usize) -> TestGroup {
    let mut group = TestGroup::new(count);
    let all: Vec<_> = (0..count).collect();
    group.forward(release(2, &all));
    group
}

fn repairs(group: &TestGroup) -> usize {
    group.events.iter().filter(|event| matches!(event, Event::RepairOpened { .. })).count()
}

fn reactivated(group: &TestGroup) -> usize {
    group.events.iter().filter(|event| matches!(event, Event::Reactivated { .. })).count()
}

// --- The plain way ---

#[test]
fn all_keep_the_release_when_nothing_fails() {
    for count in 1..=4 {
        let mut group = started(count);
        group.run_until_settled();
        assert_eq!(group.phase(), Some(Phase::Settled(Verdict::Keep)));
        assert!(group.all_run(2));
        assert!(group.members.iter().all(|member| member.durable.state == MemberState::Kept));
    }
}

/// Each step of each member, once, in the order in which it happens.
#[test]
fn what_happens_is_told_once_for_each_member_and_phase() {
    let mut group = started(2);
    group.run_until_settled();
    let names: Vec<String> = group
        .events
        .iter()
        .map(|event| match event {
            Event::Entered(phase) => phase.as_str().to_owned(),
            Event::Staged(_) => "staged".to_owned(),
            Event::AtRest(_) => "at rest".to_owned(),
            Event::OnTarget(_) => "on target".to_owned(),
            Event::Healthy(_) => "healthy".to_owned(),
            Event::Settled(_) => "has settled".to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    let expected = [
        "staging",
        "staged",
        "staged",
        "rest",
        "at rest",
        "at rest",
        "trial",
        "on target",
        "on target",
        "healthy",
        "healthy",
        "settling",
        "has settled",
        "has settled",
        "settled",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_record_of_a_rollout_holds_what_its_release_says() {
    let mut group = TestGroup::new(2);
    let release = release(2, &[0, 1]);
    group.forward(release.clone());
    group.run_until_phase("staging");
    let record = group.record().unwrap();
    assert_eq!((record.package, record.package_size_bytes), (release.package, 900));
    assert_eq!((record.trial_limit_ms, record.reboot_delay_ms), (3_000, 0));
    assert_eq!((record.number, record.epoch), (20_000, 2));
    // No release was known before: the lead's firmware has a name for what the group runs.
    assert_eq!(record.number_before, 10_000);
}

#[test]
fn a_rollout_wants_to_be_stepped_soon_but_not_at_once() {
    let mut group = started(2);
    group.run_until_phase("staging");
    let rollout = group.rollout.as_ref().unwrap();
    let now = lockstep_proto::time::Instant::from_ms(5_000);
    let wake = rollout.next_wake(now);
    assert_eq!(wake.ms_since(now), group.policy.poll_ms.min(group.policy.resend_ms));
}

// --- Decide, store, act ---

// A lead that acts first forgets in a power cut what it has set going.
#[test]
fn a_step_whose_store_fails_sends_nothing_and_is_asked_for_again() {
    for phase in ["preflight", "staging", "rest", "trial"] {
        let mut group = started(2);
        group.run_until_phase(phase);
        if phase == "trial" {
            group.run_until("lead on trial", |group| {
                group.members.iter().all(|member| member.trial) && group.rollout.is_some()
            });
        }
        group.store_fails = true;
        let stored = group.stored.clone();
        let before = group.sent.len();
        group.run_ms(1_500);
        assert_ne!(group.phase().unwrap().as_str(), phase, "must have decided something");
        assert_eq!(group.stored, stored);
        let acted = group.sent[before..].iter().any(|(_, out)| match phase {
            "preflight" => out.order.kind() == STAGE,
            "staging" => out.order.kind() == REST,
            "rest" => [ARM, ACTIVATE].contains(&out.order.kind()),
            _ => [CONFIRM, REVERT].contains(&out.order.kind()),
        });
        assert!(!acted, "{phase}");
        group.store_fails = false;
        group.run_until_settled();
        assert!(group.all_run(1) || group.all_run(2), "{phase}");
    }
}

// The next rollout begins over the stored record, not over the one that could not be written.
#[test]
fn a_rollout_is_not_over_before_that_is_stored() {
    let mut group = started(2);
    let kept = |group: &TestGroup| {
        group.members.iter().all(|member| member.durable.state == MemberState::Kept)
    };
    group.run_until("kept", kept);
    group.store_fails = true;
    group.run_ms(3_000);
    assert_eq!(group.phase(), Some(Phase::Settled(Verdict::Keep)));
    assert!(!group.rollout.as_ref().unwrap().is_over());
    group.store_fails = false;
    group.run_ms(3_000);
    assert!(group.rollout.as_ref().unwrap().is_over());
}

// --- Staging ---

#[test]
fn nobody_activates_before_everybody_has_staged() {
    let mut group = started(3);
    group.run_until_phase("staging");
    group.members[2].cut_off = true;
    group.run_ms(10_000);
    assert_eq!(group.phase(), Some(Phase::Staging));
    assert_eq!(group.said(REST) + group.said(ARM) + group.said(ACTIVATE), 0);
    group.members[2].cut_off = false;
    group.run_until_settled();
    assert!(group.all_run(2));
}

#[test]
fn l24_staging_that_stands_still_ends_in_a_revert() {
    let mut group = started(2);
    group.run_until_phase("staging");
    group.members[1].cut_off = true;
    group.run_until_phase("settling");
    assert_eq!(group.cause(), Some(Cause::StagingDeadline));
    group.members[1].cut_off = false;
    group.run_until_settled();
    assert!(group.all_run(1));
}

#[test]
fn staging_that_goes_on_arriving_is_alive_until_its_limit() {
    let mut group = started(2);
    group.policy.staging_limit_ms = 150_000;
    group.rollout = None;
    group.forward(release(2, &[0, 1]));
    group.run_until_phase("staging");
    group.members[1].cut_off = true;
    for _ in 0..4 {
        group.run_ms(30_000);
        assert_eq!(group.phase(), Some(Phase::Staging));
        group.feed(&Input::Progress);
    }
    group.run_until_phase("settling");
    assert_eq!(group.cause(), Some(Cause::StagingDeadline));
}

#[test]
fn a_refusal_that_lasts_ends_staging_at_once_and_a_passing_one_does_not() {
    let lasting = Refusal::Untrusted { good: 0, needed: 1 };
    for (why, ends) in [(lasting, true), (Refusal::OnTrial, false)] {
        let mut group = started(2);
        group.members[1].refuses_stage = Some(why);
        group.run_until_phase("staging");
        group.run_ms(2_000);
        let expected = ends.then_some(Cause::Refused(device(1), why));
        assert_eq!(group.cause(), expected);
    }
}

// A member repeats its last refusal in every report; that of another rollout is no news.
#[test]
fn l26_a_refusal_of_another_rollout_ends_nothing() {
    let mut group = started(2);
    group.run_until_phase("staging");
    let mut report = group.report(1);
    let why = Refusal::Untrusted { good: 0, needed: 1 };
    report.refused = Some(Refused { rollout: 77, order: STAGE, why });
    group.run_ms(10);
    group.feed(&Input::Report(device(1), report));
    assert_eq!(group.cause(), None);
    group.run_until_settled();
    assert!(group.all_run(2));
}

#[test]
fn an_upload_that_is_not_what_its_manifest_says_ends_in_a_revert() {
    let mut group = started(2);
    group.run_until_phase("staging");
    group.feed(&Input::BadUpload);
    assert_eq!(group.cause(), Some(Cause::BadUpload));
    group.run_until_settled();
    assert!(group.all_run(1));
}

#[test]
fn l34_what_ends_in_preflight_touches_nobody() {
    for input in [Input::Abort, Input::BadUpload] {
        let mut group = started(2);
        group.feed(&input);
        assert!(group.rollout.as_ref().unwrap().is_refused());
        group.run_ms(5_000);
        assert_eq!(group.stored, None);
        assert_eq!(group.said(STAGE) + group.said(REVERT), 0);
    }
}

// --- Rest ---

#[test]
fn not_now_beyond_the_limit_ends_the_rollout_before_anybody_rebooted() {
    let mut group = started(3);
    group.members[1].not_now = true;
    group.run_until_settled();
    assert_eq!(group.cause(), Some(Cause::NotNow(device(1))));
    assert!(group.members.iter().all(|member| member.reboots == 0 && !member.at_rest));
    assert!(group.all_run(1));
}

#[test]
fn not_now_for_a_while_only_delays() {
    let mut group = started(2);
    group.members[1].not_now = true;
    group.run_until_phase("rest");
    group.run_ms(2_000);
    group.members[1].not_now = false;
    group.run_until_settled();
    assert!(group.all_run(2));
}

#[test]
fn a_member_that_vanished_before_the_trial_is_named_as_silent_not_as_unwilling() {
    let mut group = started(2);
    group.members[1].not_now = true;
    group.run_until_phase("rest");
    group.members[1].cut_off = true;
    group.clear_air();
    group.run_until_phase("settling");
    assert_eq!(group.cause(), Some(Cause::NotHealthy(device(1))));
}

// What was true in preflight need not be true when the trial begins.
#[test]
fn stale_views_are_looked_at_again_before_the_trial_begins() {
    let changes: [fn(&mut TestGroup); 2] = [
        |group| group.members[1].other = NO_IMAGE,
        // A watched member, flashed by cable meanwhile.
        |group| group.members[2].running = image(2, 9),
    ];
    for change in changes {
        let mut group = TestGroup::new(3);
        group.members[0].not_now = true;
        group.forward(release(2, &[0, 1]));
        group.run_until_phase("rest");
        change(&mut group);
        group.members[0].not_now = false;
        group.run_until("verdict", |group| {
            group.phase().is_some_and(|phase| phase.verdict().is_some())
        });
        assert!(group.cause().is_some());
        assert_eq!(group.said(ARM) + group.said(ACTIVATE), 0);
        assert!(group.members.iter().all(|member| member.reboots == 0));
    }
}

// --- Activation ---

#[test]
fn all_together_means_arm_then_fire_with_a_falling_countdown() {
    let mut group = started(3);
    group.run_until_settled();
    let first = |kind| group.sent.iter().position(|(_, out)| out.order.kind() == kind).unwrap();
    let last_arm = group.sent.iter().rposition(|(_, out)| out.order.kind() == ARM).unwrap();
    assert!(last_arm < first(FIRE));
    let countdown: Vec<_> = group
        .sent
        .iter()
        .filter_map(|(_, out)| match out.order {
            Order::Fire { in_ms } => Some(in_ms),
            _ => None,
        })
        .collect();
    assert!(countdown.len() > 3, "{countdown:?}");
    assert!(countdown.is_sorted_by(|a, b| a > b), "{countdown:?}");
    let times: Vec<_> = group.members.iter().map(|member| member.activated_at.unwrap()).collect();
    let (min, max) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(max - min <= 20, "{times:?}");
    assert_eq!(group.said(ACTIVATE), 0);
}

#[test]
fn nothing_fires_before_all_are_armed() {
    let mut group = started(3);
    group.run_until_phase("trial");
    group.members[2].cut_off = true;
    group.clear_air();
    group.run_ms(1_000);
    assert!(group.members[0].armed && group.members[1].armed);
    assert_eq!(group.said(FIRE), 0);
    group.members[2].cut_off = false;
    group.run_until_settled();
    assert!(group.all_run(2));
    assert_eq!(group.said(ACTIVATE), 0);
}

#[test]
fn a_trial_that_never_fired_names_the_one_that_was_not_armed() {
    let mut group = started(2);
    group.run_until_phase("trial");
    (group.members[1].at_rest, group.members[1].not_now) = (false, true);
    group.run_until_phase("settling");
    assert_eq!(group.cause(), Some(Cause::NotHealthy(device(1))));
    assert!(group.members.iter().all(|member| member.reboots == 0));
}

#[test]
fn who_missed_the_fire_is_told_again_when_the_lead_is_back() {
    let mut group = started(3);
    group.run_until("first fire", |group| group.said(FIRE) > 0);
    group.members[2].cut_off = true;
    group.clear_air();
    group.run_until("fired", |group| group.members[0].activated_at.is_some());
    assert_eq!(group.members[2].activated_at, None);
    group.members[2].cut_off = false;
    group.run_until_settled();
    assert!(group.all_run(2));
    assert!(group.orders_to(2, ACTIVATE) > 0);
}

#[test]
fn in_an_order_each_waits_until_those_before_are_healthy_and_the_delay_has_passed() {
    let mut group = TestGroup::new(3);
    let order = vec![role(1), role(2), role(0)];
    group.forward(lockstep_rollout::Release {
        order,
        reboot_delay_ms: 2_000,
        ..release(2, &[0, 1, 2])
    });
    group.run_until_settled();
    assert!(group.all_run(2));
    let at = |index: usize| group.members[index].activated_at.unwrap();
    // A boot and the first healthy sample take the model 700 ms.
    assert!(at(2) >= at(1) + 2_700, "{} {}", at(1), at(2));
    assert!(at(0) >= at(2) + 2_700, "{} {}", at(2), at(0));
    assert_eq!(group.said(FIRE), 0);
}

#[test]
fn a_role_that_the_order_leaves_out_comes_after_those_it_names() {
    let mut group = TestGroup::new(3);
    let order = vec![role(1)];
    group.forward(lockstep_rollout::Release { order, ..release(2, &[0, 1, 2]) });
    group.run_until_settled();
    assert!(group.all_run(2));
    let at = |index: usize| group.members[index].activated_at.unwrap();
    assert!(at(0) >= at(1) + 700 && at(2) >= at(1) + 700);
}

// Whoever comes after a broken one in the order keeps the old image all the time.
#[test]
fn in_an_order_nobody_follows_one_that_fails() {
    for order in [vec![role(1), role(0)], vec![role(1)]] {
        let mut group = TestGroup::new(2);
        group.members[1].flaws.push((image(1, 2), Flaw::NeverHealthy));
        group.forward(lockstep_rollout::Release { order, ..release(2, &[0, 1]) });
        group.run_until_settled();
        assert_eq!(group.cause(), Some(Cause::NotHealthy(device(1))));
        assert_eq!(group.members[0].reboots, 0);
        assert!(group.all_run(1));
    }
}

#[test]
fn an_order_may_name_roles_that_the_group_lacks_or_that_do_not_change() {
    let mut group = TestGroup::new(3);
    let order = vec![role(3), role(2), role(1), role(1), role(0)];
    group.forward(lockstep_rollout::Release {
        order,
        reboot_delay_ms: 1_000,
        ..release(2, &[0, 1])
    });
    group.run_until_settled();
    assert_eq!(group.verdict(), Some(Verdict::Keep));
    assert_eq!(group.record().unwrap().order, [role(2), role(1), role(0)]);
}

#[test]
fn a_watched_member_does_not_hold_the_order_up() {
    let mut group = TestGroup::new(3);
    group.members[2].ill = true;
    let order = vec![role(2), role(1), role(0)];
    group.forward(lockstep_rollout::Release { order, ..release(2, &[0, 1]) });
    group.run_until_settled();
    assert!(group.members[1].activated_at.is_some());
    assert_eq!(group.cause(), Some(Cause::NotHealthy(device(2))));
}

// --- Trial and verdict ---

#[test]
fn l23_the_first_healthy_member_is_not_enough_to_keep() {
    let mut group = started(2);
    group.members[1].flaws.push((image(1, 2), Flaw::NeverHealthy));
    group.run_until_settled();
    assert_eq!(group.cause(), Some(Cause::NotHealthy(device(1))));
    assert!(group.events.contains(&Event::Healthy(device(0))));
    assert_eq!(group.said(CONFIRM), 0);
    assert!(group.all_run(1));
}

// L33: each believes itself well, but they do not hear each other under the new release.
#[test]
fn l33_keep_needs_reports_that_name_the_images_of_all_peers() {
    let mut group = started(2);
    group.members[1].flaws.push((image(1, 2), Flaw::Deaf));
    group.run_until("healthy", |group| group.events.contains(&Event::Healthy(device(1))));
    group.run_until_settled();
    assert!(matches!(group.cause(), Some(Cause::NotHealthy(_))), "{:?}", group.cause());
    assert!(group.all_run(1));
}

// The first in an order has nobody to talk to: what it said then proves nothing.
#[test]
fn keep_needs_reports_made_after_all_run_the_new_release() {
    let mut group = started(2);
    group.run_until_phase("trial");
    let record = group.record().unwrap();
    let view = View::of(record.seats.iter().map(|seat| (seat.id, seat.target)));
    let report = |index: usize| {
        let mut report = group.members[index].report(view);
        report.ticket = ticket(&record, 1);
        report.state = MemberState::Activating;
        (report.running, report.other) = (image(index, 2), image(index, 1));
        report.observed.healthy = true;
        report.observed.on_trial = true;
        Input::Report(device(index), report)
    };
    let (first, second) = (report(0), report(1));
    let mut now = group.lead_now();
    let rollout = group.rollout.as_mut().unwrap();
    let mut phase_after = |input| {
        now = now + 10;
        rollout.step(now, input);
        rollout.record().phase
    };
    assert_eq!(phase_after(&first), Phase::Trial);
    assert_eq!(phase_after(&second), Phase::Trial, "the first spoke before the second ran it");
    assert_eq!(phase_after(&second), Phase::Trial, "the first has not spoken again");
    assert_eq!(phase_after(&first), Phase::Settling(Verdict::Keep));
}

#[test]
fn an_image_that_crashes_is_told_apart_from_one_that_never_gets_healthy() {
    let causes = [
        (Flaw::CrashesAtBoot, Cause::FellBack(device(1))),
        (Flaw::CrashesAfterMs(600), Cause::FellBack(device(1))),
        (Flaw::NeverHealthy, Cause::NotHealthy(device(1))),
    ];
    for (flaw, cause) in causes {
        let mut group = started(2);
        // The lead is late, so that the verdict does not come before the crash.
        group.members[LEAD].ill = flaw == Flaw::CrashesAfterMs(600);
        group.members[1].flaws.push((image(1, 2), flaw));
        group.run_until_settled();
        assert_eq!(group.cause(), Some(cause), "{flaw:?}");
        assert!(group.all_run(1));
    }
}

#[test]
fn l24_a_trial_that_nobody_hears_of_ends_at_its_deadline() {
    let mut group = started(2);
    group.run_until_phase("trial");
    group.members[1].cut_off = true;
    group.run_until_phase("settling");
    assert_eq!(group.cause(), Some(Cause::NotHealthy(device(1))));
    group.run_until_settled();
    assert!(!group.record().unwrap().seats[1].settled);
    group.members[1].cut_off = false;
    group.announce(1);
    group.run_until("debt", |group| group.record().unwrap().seats[1].settled);
    assert!(group.all_run(1));
}

#[test]
fn l26_a_member_that_gave_the_rollout_up_by_itself_ends_the_trial() {
    let mut group = started(2);
    group.run_until_phase("trial");
    let record = group.record().unwrap();
    let mut report = group.report(1);
    (report.state, report.ticket) = (MemberState::Reverted, ticket(&record, 1));
    group.feed(&Input::Report(device(1), report));
    assert_eq!(group.cause(), Some(Cause::FellBack(device(1))));
}

// --- Abort ---

#[test]
fn l34_an_abort_before_the_verdict_brings_everybody_back() {
    for phase in ["staging", "rest", "trial"] {
        let mut group = started(3);
        group.run_until_phase(phase);
        if phase == "trial" {
            group.run_until("new image", |group| {
                group.members[1].running == image(1, 2) && group.rollout.is_some()
            });
        }
        assert!(group.rollout.as_ref().unwrap().can_abort());
        group.abort();
        group.run_until_settled();
        assert_eq!(group.cause(), Some(Cause::Aborted), "{phase}");
        assert!(group.all_run(1), "{phase}");
        assert_eq!(group.said(CONFIRM), 0);
        let (now, spent) = (group.now, ticket(&group.record().unwrap(), 1));
        let order = Order::Activate { image: image(1, 2), running: image(1, 1) };
        let late = group.members[1].handle(now, &spent, &order);
        assert!(late.is_some() && group.members[1].refused.is_some(), "late orders are refused");
    }
}

#[test]
fn an_abort_after_keep_changes_nothing() {
    let mut group = started(2);
    group.run_until_phase("settling");
    assert_eq!(group.verdict(), Some(Verdict::Keep));
    assert!(!group.rollout.as_ref().unwrap().can_abort());
    group.abort();
    group.run_until_settled();
    assert_eq!(group.verdict(), Some(Verdict::Keep));
    assert!(group.all_run(2));
}

// --- Settling ---

// A lead that fell back behind confirmed members could only bring them down again.
#[test]
fn the_lead_confirms_itself_before_it_lets_others_confirm() {
    let mut group = started(3);
    group.members[LEAD].torn_confirms = 2;
    group.run_until("first confirm to another", |group| {
        group.orders_to(1, CONFIRM) + group.orders_to(2, CONFIRM) > 0
    });
    assert_eq!(group.members[LEAD].durable.state, MemberState::Kept);
    group.run_until_settled();
    assert!(group.all_run(2));
}

#[test]
fn who_cannot_be_reached_is_a_debt_that_is_served_at_its_next_sign_of_life() {
    let mut group = started(3);
    group.run_until_phase("settling");
    group.members[2].cut_off = true;
    group.clear_air();
    group.run_until_settled();
    let record = group.record().unwrap();
    assert_eq!(record.phase, Phase::Settled(Verdict::Keep));
    assert_eq!(
        record.seats.iter().map(|seat| seat.settled).collect::<Vec<_>>(),
        [true, true, false]
    );
    let quiet = group.sent.len();
    group.run_ms(60_000);
    assert_eq!(group.sent.len(), quiet, "nobody is called who does not hear");
    // Its trial has ended by its own lease meanwhile.
    assert_eq!(group.members[2].running, image(2, 1));
    group.reset(LEAD, 0);
    group.members[2].cut_off = false;
    group.run_ms(1_000);
    group.announce(2);
    group.run_until("debt", |group| group.record().unwrap().seats[2].settled);
    assert!(group.all_run(2));
}

#[test]
fn settling_stays_open_while_a_member_in_reach_has_not_settled() {
    let mut group = started(2);
    group.members[1].torn_confirms = 2;
    group.run_until_phase("settling");
    group.run_until("kept", |group| group.members[1].durable.state == MemberState::Kept);
    assert_eq!(group.phase(), Some(Phase::Settling(Verdict::Keep)));
    group.run_until_settled();
    assert!(group.all_run(2));
    assert_eq!(reactivated(&group), 2);
}

// --- Re-activation ---

#[test]
fn who_fell_back_after_keep_is_activated_again_without_a_download() {
    let mut group = started(2);
    group.members[1].torn_confirms = 1;
    group.run_until_phase("settling");
    let staged = group.said(STAGE);
    group.run_until_settled();
    assert!(group.all_run(2));
    assert_eq!((group.said(STAGE), reactivated(&group)), (staged, 1));
    assert_eq!(group.record().unwrap().seats[1].attempt, 2);
}

// Counted after the order, a lead that crashes at the right moment would count for ever from one.
#[test]
fn the_count_of_reactivations_is_durable_before_the_order() {
    let mut group = started(2);
    group.members[1].torn_confirms = 1;
    group.run_until("fell back", |group| group.members[1].torn_confirms == 0);
    group.store_fails = true;
    group.run_ms(10_000);
    let again = |group: &TestGroup| {
        group.sent.iter().any(|(_, out)| out.order.kind() == ACTIVATE && out.ticket.attempt == 2)
    };
    assert!(!again(&group));
    assert_eq!(group.record().unwrap().seats[1].reactivations, 0);
    group.store_fails = false;
    group.run_until("again", again);
    assert_eq!(group.record().unwrap().seats[1].reactivations, 1);
    group.run_until_settled();
    assert!(group.all_run(2));
}

#[test]
fn answers_of_an_older_attempt_are_ignored() {
    let mut group = started(2);
    group.members[1].torn_confirms = 1;
    group.run_until("second attempt", |group| {
        group.record().is_some_and(|record| record.seats[1].attempt == 2)
    });
    let record = group.record().unwrap();
    let mut old = group.report(1);
    (old.state, old.ticket) = (MemberState::Activating, ticket(&record, 1));
    (old.running, old.observed.activated) = (image(1, 1), false);
    for _ in 0..5 {
        group.feed(&Input::Report(device(1), old));
    }
    assert_eq!(group.record().unwrap().seats[1].reactivations, 1);
    group.run_until("on trial again", |group| {
        let views = group.rollout.as_ref().map(Rollout::views);
        views.is_some_and(|views| views[1].report.is_some_and(|it| it.ticket.attempt == 2))
    });
    group.feed(&Input::Report(device(1), old));
    let known = group.rollout.as_ref().unwrap().views()[1].report.unwrap();
    assert_eq!(known.ticket.attempt, 2);
}

// A bit that was left between 0 and 1 by a power cut can take the last entry of a member's record
// with it, long after that entry was read back. Its answers are of an older attempt for ever then.
#[test]
fn who_has_lost_its_last_attempt_is_believed_after_a_while() {
    let mut group = started(2);
    group.members[1].torn_confirms = 1;
    group.run_until("on trial again", |group| {
        let views = group.rollout.as_ref().map(Rollout::views);
        views.is_some_and(|views| views[1].report.is_some_and(|it| it.ticket.attempt == 2))
    });
    group.members[1].durable.ticket.attempt = 1;
    group.run_until_settled();
    assert!(group.all_run(2));
    assert!(group.record().unwrap().seats[1].settled);
}

#[test]
fn reactivations_back_off() {
    let mut group = started(2);
    group.members[1].torn_confirms = 3;
    group.run_until_settled();
    let mut times = Vec::new();
    for attempt in 2..=4 {
        let said = group
            .sent
            .iter()
            .find(|(_, out)| out.order.kind() == ACTIVATE && out.ticket.attempt == attempt);
        times.push(said.unwrap().0);
    }
    assert!(times[2] - times[1] > times[1] - times[0], "{times:?}");
}

// --- Repair ---

#[test]
fn after_reactivations_max_failures_a_repair_brings_everybody_back() {
    let mut group = started(3);
    group.members[2].torn_confirms = 200;
    group.run_until("repair", |group| repairs(group) == 1);
    group.members[2].torn_confirms = 0;
    group.run_until_settled();
    assert_eq!(group.kind(), Some(Kind::Repair));
    assert_eq!(group.phase(), Some(Phase::Settled(Verdict::Keep)));
    assert_eq!(reactivated(&group), 3);
    assert!(group.all_run(1));
    let record = group.record().unwrap();
    assert_eq!((record.number, record.number_before, record.epoch), (10_000, 20_000, 0));
}

#[test]
fn a_repair_never_alternates() {
    let mut group = started(3);
    group.members[2].torn_confirms = 200;
    group.run_until("repair", |group| repairs(group) == 1);
    group.members[1].torn_confirms = 6;
    group.run_until_settled();
    assert_eq!((repairs(&group), group.kind()), (1, Some(Kind::Repair)));
    assert!(reactivated(&group) >= 3 + 6);
    assert!(group.all_run(1));
}

#[test]
fn a_repair_has_no_abort_no_revert_and_no_deadline() {
    let mut group = started(3);
    group.members[2].torn_confirms = 200;
    group.run_until("repair", |group| repairs(group) == 1);
    group.members[2].torn_confirms = 0;
    group.members[1].not_now = true;
    for _ in 0..8 {
        group.run_ms(100_000);
        group.abort();
        group.feed(&Input::BadUpload);
        assert!(!group.rollout.as_ref().unwrap().can_abort());
        group.reset(LEAD, 0);
    }
    group.members[1].not_now = false;
    group.members[1].ill = true;
    group.run_ms(300_000);
    assert_eq!((group.cause(), group.kind()), (None, Some(Kind::Repair)));
    group.members[1].ill = false;
    group.run_until_settled();
    assert_eq!(group.phase(), Some(Phase::Settled(Verdict::Keep)));
    assert!(group.all_run(1));
}

#[test]
fn no_repair_when_a_way_back_is_missing_then_it_is_activated_again_and_again() {
    let mut group = started(2);
    group.members[1].torn_confirms = 6;
    group.run_until("lead kept", |group| group.members[LEAD].durable.state == MemberState::Kept);
    group.members[LEAD].other = NO_IMAGE;
    group.run_until_settled();
    assert_eq!((repairs(&group), reactivated(&group)), (0, 6));
    let told = group.events.iter().filter(|event| **event == Event::NoRepair(device(LEAD)));
    assert_eq!(told.count(), 1);
    assert!(group.all_run(2));
}

// --- Held: all have staged, and wait ---

fn held(count: usize) -> TestGroup {
    let mut group = started(count);
    group.feed(&Input::Hold(Hold::Held));
    group.run_ms(20_000);
    assert!(group.members.iter().all(|member| member.durable.state == MemberState::Staged));
    group
}

#[test]
fn a_rollout_that_is_held_is_staged_and_asks_nobody_to_rest() {
    let mut group = held(3);
    (group.policy.staging_limit_ms, group.policy.staging_idle_ms) = (60_000, 30_000);
    group.reset(LEAD, 0);
    run_announcing(&mut group, 600_000);
    assert_eq!(group.phase(), Some(Phase::Staging));
    assert!(group.sent.iter().all(|(_, out)| out.order.kind() != REST));
    group.feed(&Input::Hold(Hold::No));
    group.run_until_settled();
    assert!(group.all_run(2));
}

#[test]
fn a_rollout_that_is_held_waits_for_a_week_and_then_goes_back() {
    let mut group = held(2);
    group.policy.hold_limit_ms = 60_000;
    group.reset(LEAD, 0);
    run_announcing(&mut group, 50_000);
    assert_eq!(group.phase(), Some(Phase::Staging));
    run_announcing(&mut group, 30_000);
    assert_eq!(group.cause(), Some(Cause::StagingDeadline));
    group.run_until_settled();
    assert!(group.all_run(1));
}

// The lead does not know any more when it should go on: it must not do so by itself.
#[test]
fn a_rollout_that_is_held_is_held_after_a_restart_of_the_lead() {
    for hold in [Hold::Held, Hold::Scheduled] {
        let mut group = held(2);
        group.feed(&Input::Hold(hold));
        group.reset(LEAD, 0);
        run_announcing(&mut group, 600_000);
        assert_eq!(group.record().unwrap().hold, hold);
        assert_eq!(group.phase(), Some(Phase::Staging));
        group.feed(&Input::Hold(Hold::No));
        group.run_until_settled();
        assert!(group.all_run(2));
    }
}

#[test]
fn whoever_waits_can_be_told_to_go_back() {
    let mut group = held(2);
    group.abort();
    group.run_until_settled();
    assert_eq!(group.cause(), Some(Cause::Aborted));
    assert!(group.all_run(1));
}

#[test]
fn nothing_is_held_any_more_once_somebody_was_asked_to_rest() {
    let mut group = started(2);
    group.run_until_phase("rest");
    group.feed(&Input::Hold(Hold::Held));
    assert!(!group.rollout.as_ref().unwrap().can_hold());
    assert_eq!(group.record().unwrap().hold, Hold::No);
    group.run_until_settled();
    assert!(group.all_run(2));
}

// --- The epoch, which bars the way back ---

fn told_settled(group: &TestGroup) -> Vec<usize> {
    let told = group.sent.iter().filter(|(_, out)| out.order.kind() == SETTLED);
    let member = |out: &lockstep_rollout::Outgoing| {
        (0..group.members.len()).find(|&index| device(index) == out.to).unwrap()
    };
    told.map(|(_, out)| member(out)).collect()
}

/// Time in which everybody who can be reached announces itself, as devices do.
fn run_announcing(group: &mut TestGroup, ms: u64) {
    for _ in 0..ms / 10_000 {
        group.run_ms(10_000);
        for index in 0..group.members.len() {
            if !group.members[index].cut_off {
                group.announce(index);
            }
        }
    }
}

// A member that had raised its epoch by itself would refuse this repair for ever.
#[test]
fn nobody_raises_its_epoch_while_a_repair_may_still_come() {
    let mut group = started(3);
    group.members.iter_mut().for_each(|member| member.raises_epoch = true);
    group.members[2].torn_confirms = 200;
    group.run_until("repair", |group| repairs(group) == 1);
    assert_eq!(told_settled(&group), []);
    group.members[2].torn_confirms = 0;
    group.run_until_settled();
    run_announcing(&mut group, 300_000);
    assert!(group.all_run(1));
    assert_eq!(told_settled(&group), [], "a repair raises nothing");
}

#[test]
fn everybody_is_told_once_all_have_kept_a_release_that_raises_the_epoch() {
    let mut group = started(3);
    group.run_until_settled();
    run_announcing(&mut group, 300_000);
    let mut told = told_settled(&group);
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2], "once each: they answer");
    assert!(group.record().unwrap().is_final);
}

#[test]
fn nobody_is_told_before_a_debt_is_paid() {
    let mut group = started(3);
    group.run_until("verdict", |group| {
        group.record().is_some_and(|record| record.phase == Phase::Settling(Verdict::Keep))
    });
    group.members[2].cut_off = true;
    run_announcing(&mut group, 300_000);
    assert_eq!(group.phase(), Some(Phase::Settled(Verdict::Keep)));
    assert_eq!(told_settled(&group), []);
    group.members[2].cut_off = false;
    run_announcing(&mut group, 30_000);
    assert!(group.all_run(2));
    assert_eq!(told_settled(&group).len(), 3);
}

#[test]
fn a_release_that_raises_no_epoch_is_never_called_final() {
    let mut group = TestGroup::new(2);
    group.members.iter_mut().for_each(|member| member.facts.epoch_floor = 2);
    group.forward(release(2, &[0, 1]));
    group.run_until_settled();
    run_announcing(&mut group, 300_000);
    assert_eq!(told_settled(&group), []);
    assert!(!group.record().unwrap().is_final);
}

// Its lead goes on saying it after a restart, since the member may have missed it.
#[test]
fn who_missed_that_all_have_settled_is_told_when_it_is_heard_again() {
    let mut group = started(2);
    group.run_until("final", |group| group.record().is_some_and(|record| record.is_final));
    group.members[1].cut_off = true;
    group.run_ms(1_000);
    group.members[1].durable.settled = Generation::default();
    run_announcing(&mut group, 300_000);
    group.reset(LEAD, 0);
    run_announcing(&mut group, 300_000);
    assert_eq!(group.members[1].durable.settled, Generation::default());
    group.members[1].cut_off = false;
    run_announcing(&mut group, 20_000);
    assert_eq!(group.members[1].durable.settled, group.record().unwrap().generation);
}

// The others may have raised their epoch: they could not go back with it.
#[test]
fn behind_a_final_release_there_is_no_repair() {
    let mut group = started(2);
    group.run_until("final", |group| group.record().is_some_and(|record| record.is_final));
    group.run_ms(10_000);
    // Its image does not boot any more, and its bootloader takes the other one.
    let fallen = &mut group.members[1];
    core::mem::swap(&mut fallen.running, &mut fallen.other);
    fallen.torn_confirms = 8;
    let report = fallen.report(View::default());
    group.feed(&Input::Report(device(1), report));
    run_announcing(&mut group, 300_000);
    assert_eq!(repairs(&group), 0);
    assert!(group.events.contains(&Event::NoRepair(device(LEAD))));
    assert!(group.all_run(2), "it is activated until it holds");
}

#[test]
fn firmware_that_does_not_know_the_order_hears_it_less_and_less_often() {
    let mut group = started(2);
    group.members[1].knows_settled = false;
    group.run_until_settled();
    run_announcing(&mut group, 3_600_000);
    let told = told_settled(&group).iter().filter(|&&index| index == 1).count();
    assert!((16..=30).contains(&told), "{told} times in an hour");
}

// A lead tries again for as long as a member is off, and its attempts come to an end before that.
#[test]
fn attempts_that_are_used_up_do_not_keep_a_repair_from_being_opened() {
    let mut group = TestGroup::new(2);
    (group.policy.backoff_ms, group.policy.unreachable_ms) = (1, 500);
    group.forward(release(2, &[0, 1]));
    group.members[LEAD].torn_confirms = 1;
    group.run_until("torn", |group| group.members[LEAD].torn_confirms == 0);
    let target = group.record().unwrap().seats[LEAD].target;
    group.members[LEAD].flaws.push((target, Flaw::CrashesAtBoot));
    group.members[1].cut_off = true;
    group.run_until("used up", |group| group.record().unwrap().seats[LEAD].attempt == u8::MAX);
    group.run_ms(10_000);
    assert_eq!(repairs(&group), 0);
    group.members[1].cut_off = false;
    group.run_until_settled();
    assert_eq!((group.kind(), group.verdict()), (Some(Kind::Repair), Some(Verdict::Keep)));
    assert!(group.all_run(1));
}

// The lead itself cannot hold the release: nobody is confirmed, all fall back, nobody is to move.
#[test]
fn a_repair_with_nobody_to_update_settles() {
    let mut group = started(3);
    group.members[LEAD].torn_confirms = 200;
    group.run_until_settled();
    assert_eq!((group.kind(), group.verdict()), (Some(Kind::Repair), Some(Verdict::Keep)));
    assert!(group.all_run(1));
    let record = group.record().unwrap();
    assert!(record.seats.iter().all(|seat| seat.part == Part::Watch));
}

// L24: activating from a slot that is spoilt would otherwise be tried for ever without a count.
#[test]
fn l24_a_spoilt_slot_after_keep_leads_to_a_repair_as_well() {
    let mut group = started(2);
    group.members[1].torn_confirms = 1;
    group.members[1].slot_spoilt = false;
    group.run_until("fell back", |group| group.members[1].torn_confirms == 0);
    group.members[1].slot_spoilt = true;
    group.run_until("repair", |group| repairs(group) == 1);
    assert_eq!(reactivated(&group), 3);
    group.members[1].slot_spoilt = false;
    group.run_until_settled();
    assert!(group.all_run(1));
}

// A last order of the rollout before may arrive after the repair has begun.
#[test]
fn a_member_that_leaves_its_way_back_during_a_repair_is_brought_along() {
    for phase in ["staging", "rest", "trial"] {
        let mut group = started(3);
        group.members[1].torn_confirms = 200;
        group.run_until("repair", |group| repairs(group) == 1);
        let old = group.members[1].durable.ticket;
        group.members[2].not_now = phase == "rest";
        group.run_until_phase(phase);
        group.run_ms(50);
        group.members[1].torn_confirms = 0;
        let order = Order::Activate { image: image(1, 2), running: image(1, 1) };
        group.members[1].at_rest = true;
        let late = lockstep_proto::frame::order::Ticket { attempt: old.attempt + 1, ..old };
        let now = group.now;
        group.members[1].handle(now, &late, &order);
        assert!(group.members[1].activated, "{phase}");
        group.run_ms(1_500);
        // It does not wait for its lease to end what nobody wants any more.
        let repair = group.record().unwrap().id;
        let called = group.sent.iter().any(|(_, out)| {
            out.to == device(1) && out.ticket.rollout == repair && out.order.kind() == STAGE
        });
        assert!(called, "{phase}");
        group.members[2].not_now = false;
        group.run_until_settled();
        assert_eq!(group.kind(), Some(Kind::Repair), "{phase}");
        assert!(group.all_run(1), "{phase}");
    }
}

// --- Restarts of the lead ---

#[test]
fn whatever_phase_the_lead_restarts_in_the_group_ends_whole() {
    for phase in ["preflight", "staging", "rest", "trial", "settling", "settled"] {
        for count in 2..=4 {
            let mut group = started(count);
            group.run_until_phase(phase);
            group.reset(LEAD, 0);
            group.run_ms(2_000);
            if phase == "preflight" {
                assert_eq!(group.stored, None, "nothing durable, so nothing happened");
                continue;
            }
            group.run_until_settled();
            assert!(group.all_run(1) || group.all_run(2), "{phase}");
            assert!(group.verdict() != Some(Verdict::Keep) || group.all_run(2), "{phase}");
        }
    }
}

#[test]
fn l24_restarts_are_counted_durably_and_too_many_end_the_phase() {
    let mut group = started(2);
    group.run_until_phase("staging");
    group.members[1].cut_off = true;
    for restarts in 1..=group.policy.restarts_max {
        group.reset(LEAD, 0);
        group.run_ms(2_000);
        assert_eq!(group.record().unwrap().restarts, restarts);
        assert_eq!(group.phase(), Some(Phase::Staging));
    }
    group.reset(LEAD, 0);
    group.run_ms(2_000);
    assert_eq!(group.cause(), Some(Cause::TooManyRestarts));
    group.members[1].cut_off = false;
    group.run_until_settled();
    assert!(group.all_run(1));
}

#[test]
fn a_restart_count_belongs_to_its_phase() {
    let mut group = started(2);
    group.run_until_phase("staging");
    group.reset(LEAD, 0);
    group.run_until_phase("rest");
    assert_eq!(group.record().unwrap().restarts, 0);
}

// --- Leads that are replaced ---

#[test]
fn the_term_rises_when_the_lead_has_lost_its_record() {
    let mut group = TestGroup::new(2);
    group.keep(2);
    assert_eq!(group.record().unwrap().generation, Generation { term: 0, counter: 1 });
    group.keep(3);
    assert_eq!(group.record().unwrap().generation, Generation { term: 0, counter: 2 });
    (group.stored, group.rollout) = (None, None);
    group.keep(4);
    assert_eq!(group.record().unwrap().generation, Generation { term: 1, counter: 3 });
}

#[test]
fn l26_a_lead_that_hears_a_higher_term_steps_down() {
    let mut group = started(2);
    group.run_until_phase("staging");
    let mut report = group.report(1);
    report.ticket.generation.term = 1;
    group.feed(&Input::Report(device(1), report));
    assert!(group.events.contains(&Event::SteppedDown { term: 1 }));
    let said = group.sent.len();
    group.run_ms(100_000);
    assert_eq!(group.sent.len(), said);
    assert!(group.rollout.as_ref().unwrap().is_over(), "the way is free for another");
}

// --- Parts ---

#[test]
fn the_lead_may_be_the_one_that_is_only_watched() {
    let mut group = TestGroup::new(2);
    group.forward(release(2, &[1]));
    group.run_until_settled();
    assert_eq!(group.verdict(), Some(Verdict::Keep));
    assert_eq!(group.running(), [image(0, 1), image(1, 2)]);
    let told = group.sent.iter().filter(|(_, out)| out.to == device(LEAD));
    assert!(told.clone().count() > 0);
    assert!(told.clone().all(|(_, out)| matches!(out.order, Order::Inspect(_))));
}

#[test]
fn a_watched_member_must_be_healthy_too() {
    let mut group = TestGroup::new(3);
    group.members[2].ill = true;
    group.forward(release(2, &[0, 1]));
    group.run_until_settled();
    assert_eq!(group.cause(), Some(Cause::NotHealthy(device(2))));
    assert_eq!(group.running(), [image(0, 1), image(1, 1), image(2, 1)]);
    assert_eq!(group.orders_to(2, REVERT), 0, "it was told nothing, so it has nothing to undo");
}

// L5: it was told nothing, so nobody has made its entry permanent.
#[test]
fn l5_a_watched_member_whose_entry_is_still_new_has_settled() {
    let mut group = TestGroup::new(2);
    group.members[LEAD].leaves_new = true;
    group.forward(release(2, &[1]));
    group.run_until_settled();
    assert_eq!(group.verdict(), Some(Verdict::Keep));
    assert!(group.record().unwrap().seats.iter().all(|seat| seat.settled));
}

// --- Back ---

#[test]
fn going_back_after_keep_is_a_rollout_of_its_own() {
    let mut group = TestGroup::new(3);
    group.keep(2);
    group.back();
    group.run_until_settled();
    assert_eq!((group.kind(), group.verdict()), (Some(Kind::Back), Some(Verdict::Keep)));
    assert!(group.all_run(1));
    let record = group.record().unwrap();
    assert_eq!((record.number, record.number_before), (10_000, 20_000));
    assert_eq!(record.generation.counter, 2);
}

// What lies in the other slots is what has just failed.
#[test]
fn going_back_after_a_revert_never_returns_to_what_failed() {
    let mut group = started(2);
    group.members[1].flaws.push((image(1, 2), Flaw::NeverHealthy));
    group.run_until_settled();
    assert!(group.cause().is_some());
    group.back();
    group.run_ms(5_000);
    assert_eq!(group.faults(), [(None, Fault::NothingToDo)]);
    assert!(group.all_run(1));
}

// --- Policy ---

// A shorter lease would end the trial of every member whenever the lead reboots as planned.
#[test]
fn the_lease_outlasts_two_boots_of_the_lead() {
    for policy in [Policy::board(), Policy::desk()] {
        assert!(u64::from(policy.lease_ms) > 2 * policy.boot_limit_ms);
        assert!(u64::from(policy.rest_lease_ms) > 2 * policy.poll_ms);
    }
}
