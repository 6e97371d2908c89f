//! Who is told what, and how often: a member that has done its part is asked, not told again, and
//! who waits for days is asked rarely. Orders that are lost are said again soon.

mod group;

use group::{Flaw, LEAD, TestGroup, device, image, release};
use lockstep_rollout::{Event, Hold, Input, Verdict};

const INSPECT: u8 = 0x10;
const STAGE: u8 = 0x11;
const REST: u8 = 0x12;
const ARM: u8 = 0x13;
const FIRE: u8 = 0x14;
const ACTIVATE: u8 = 0x15;
const REVERT: u8 = 0x17;

fn started(count: usize) -> TestGroup {
    let mut group = TestGroup::new(count);
    let all: Vec<_> = (0..count).collect();
    group.forward(release(2, &all));
    group
}

/// How often an order of this kind goes to this member within so much time.
fn told(group: &mut TestGroup, index: usize, kind: u8, within_ms: u64) -> usize {
    let before = group.orders_to(index, kind);
    group.run_ms(within_ms);
    group.orders_to(index, kind) - before
}

#[test]
fn who_has_answered_preflight_is_not_asked_again_and_who_has_not_is() {
    let mut group = TestGroup::new(3);
    group.members[2].cut_off = true;
    group.forward(release(2, &[0, 1, 2]));
    group.run_ms(2_000);
    assert_eq!(group.orders_to(1, INSPECT), 1);
    assert!(group.orders_to(2, INSPECT) >= 5, "{}", group.orders_to(2, INSPECT));
}

#[test]
fn who_has_staged_is_asked_how_it_is_and_not_told_to_stage() {
    let mut group = started(2);
    group.feed(&Input::Hold(Hold::No));
    group.run_until_phase("staging");
    // The other never gets there.
    group.members[1].cut_off = true;
    group.run_ms(1_000);
    assert_eq!(told(&mut group, LEAD, STAGE, 2_000), 0);
    let asked = told(&mut group, LEAD, INSPECT, 2_000);
    assert!((6..=9).contains(&asked), "asked {asked} times in 2 s");
    let repeated = told(&mut group, 1, STAGE, 2_000);
    assert!((8..=11).contains(&repeated), "told {repeated} times in 2 s");
}

#[test]
fn who_waits_in_a_rollout_that_is_held_is_asked_ten_times_less_often() {
    let mut group = started(2);
    group.run_until_phase("staging");
    group.feed(&Input::Hold(Hold::Held));
    group.run_ms(3_000);
    let asked = told(&mut group, 1, INSPECT, 25_000);
    assert!((9..=11).contains(&asked), "asked {asked} times in 25 s");
}

#[test]
fn who_is_at_rest_is_asked_how_it_is_and_not_told_to_rest() {
    let mut group = TestGroup::new(2);
    group.members[1].not_now = true;
    group.forward(release(2, &[0, 1]));
    group.run_until_phase("rest");
    group.run_ms(500);
    assert!(group.members[LEAD].at_rest);
    assert_eq!(told(&mut group, LEAD, REST, 2_000), 0);
    assert!(told(&mut group, 1, REST, 1_000) >= 4);
}

#[test]
fn who_runs_its_new_image_is_told_nothing_more_on_trial() {
    let mut group = TestGroup::new(2);
    // It takes its time, and the other waits for it on trial.
    group.members[1].flaws = vec![(image(1, 2), Flaw::NeverHealthy)];
    group.forward(release(2, &[0, 1]));
    group.run_until("on target", |group| group.running() == [image(0, 2), image(1, 2)]);
    group.run_ms(1_200);
    for kind in [REST, ARM, FIRE, ACTIVATE] {
        assert_eq!(told(&mut group, LEAD, kind, 200), 0, "{kind:#x}");
        assert_eq!(told(&mut group, 1, kind, 200), 0, "{kind:#x}");
    }
    assert!(told(&mut group, 1, INSPECT, 500) >= 1);
}

/// Sent to all at once, and often: one frame of it has to reach everybody in time.
#[test]
fn a_countdown_is_said_every_few_milliseconds_and_ends() {
    let mut group = started(2);
    group.run_until_phase("trial");
    group.run_until("countdown", |group| group.said(FIRE) > 0);
    group.run_ms(1_000);
    let said = group.said(FIRE);
    // 300 ms at one in 40 ms; the lead itself reboots at the end of it.
    assert!((6..=9).contains(&said), "said {said} times");
}

#[test]
fn nobody_is_armed_again_while_the_countdown_runs() {
    let mut group = started(2);
    group.run_until("countdown", |group| group.said(FIRE) > 0);
    assert_eq!(told(&mut group, 1, ARM, 250), 0);
    assert_eq!(told(&mut group, 1, ACTIVATE, 10), 0);
}

/// Its own way back is a reboot, so the others are told first.
#[test]
fn the_lead_tells_itself_to_go_back_later_than_the_others() {
    let mut group = TestGroup::new(2);
    group.members[1].flaws = vec![(image(1, 2), Flaw::NeverHealthy)];
    group.forward(release(2, &[0, 1]));
    group.run_until("reverting", |group| matches!(group.verdict(), Some(Verdict::Revert(_))));
    group.run_ms(100);
    assert!(group.orders_to(1, REVERT) >= 1);
    assert_eq!(group.orders_to(LEAD, REVERT), 0);
    group.run_ms(300);
    assert_eq!(group.orders_to(LEAD, REVERT), 1);
}

/// What has not come about is not told.
#[test]
fn no_milestone_is_told_of_a_member_that_has_not_reached_it() {
    let mut group = TestGroup::new(2);
    group.members[1].cut_off = true;
    group.members[LEAD].not_now = true;
    group.members[1].cut_off = false;
    group.forward(release(2, &[0, 1]));
    group.run_until_phase("staging");
    group.run_ms(20);
    let staged = |group: &TestGroup| {
        group.events.iter().filter(|event| matches!(event, Event::Staged(_))).count()
    };
    assert_eq!(staged(&group), 0);
    group.run_until_phase("rest");
    assert_eq!(staged(&group), 2);
    group.run_ms(1_000);
    let rests = |group: &TestGroup, index| {
        group.events.iter().any(|event| *event == Event::AtRest(device(index)))
    };
    assert!(rests(&group, 1) && !rests(&group, LEAD));
}

#[test]
fn a_member_that_fell_back_is_told_to_have_fallen_back() {
    let mut group = TestGroup::new(2);
    group.members[1].flaws = vec![(image(1, 2), Flaw::CrashesAfterMs(50))];
    group.forward(release(2, &[0, 1]));
    group.run_until_settled();
    let fell = group.events.iter().filter(|event| matches!(event, Event::FellBack(_)));
    assert_eq!(fell.cloned().collect::<Vec<_>>(), [Event::FellBack(device(1))]);
}
