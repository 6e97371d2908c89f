//! A rollout that waits for a moment, and a lead that restarts meanwhile.

mod group;

use group::{LEAD, TestGroup, images, pair_bundle};
use lockstep_device::Waits;
use lockstep_rollout::{Phase, Verdict};

const NIGHT: u64 = 1_800_000_000;

/// A pair that has staged and waits for `in_s`, whose lead knows the time if there is one.
fn waiting(clock: Option<u64>, in_s: u64) -> TestGroup {
    let mut group = TestGroup::pair();
    group.boards[LEAD].clock.set(clock);
    let (receiver, transmitter) = images("1.1.0");
    group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    group.lead().hold_upload();
    assert!(group.run_until(60_000, |group| group.uploaded.is_some()), "{}", group.log());
    schedule(&mut group, in_s);
    group
}

fn schedule(group: &mut TestGroup, in_s: u64) {
    let now = group.boards[LEAD].uptime(group.now);
    let board = &mut group.boards[LEAD];
    let node = board.node.as_mut().expect("the lead is on");
    node.schedule(now, Some(in_s * 1000), &mut board.flash).unwrap();
}

fn waits(group: &mut TestGroup) -> Waits {
    let now = group.boards[LEAD].uptime(group.now);
    group.lead().waits(now)
}

/// The power of the lead goes for a moment; its clock shows `clock` when it is back.
fn restart(group: &mut TestGroup, clock: Option<u64>) {
    group.boards[LEAD].clock.set(clock);
    group.cut_power(LEAD, 100);
    group.run_ms(1_500);
}

#[test]
fn a_lead_that_knows_the_time_keeps_the_moment_over_a_restart() {
    let mut group = waiting(Some(NIGHT), 100);
    restart(&mut group, Some(NIGHT + 90));
    let Waits::ForMs(left) = waits(&mut group) else { panic!("{}", group.log()) };
    assert!((8_000..=10_000).contains(&left), "{left} ms are left of 10 s");
    assert_eq!(group.phase(), Some(Phase::Staging));
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
}

#[test]
fn the_moment_is_lost_on_a_lead_that_does_not_know_the_time_before_or_after() {
    for (before, after) in [(None, None), (None, Some(NIGHT)), (Some(NIGHT), None)] {
        let mut group = waiting(before, 5);
        restart(&mut group, after);
        assert_eq!(waits(&mut group), Waits::Lost, "{before:?} {after:?}");
        group.run_ms(20_000);
        assert_eq!(group.phase(), Some(Phase::Staging), "{before:?} {after:?}");
    }
}

/// The network tells the time some seconds after a boot.
#[test]
fn a_lead_that_learns_the_time_later_finds_the_moment_then() {
    let mut group = waiting(Some(NIGHT), 60);
    restart(&mut group, None);
    assert_eq!(waits(&mut group), Waits::Lost);
    group.boards[LEAD].clock.set(Some(NIGHT + 30));
    group.run_ms(500);
    assert!(matches!(waits(&mut group), Waits::ForMs(29_000..=30_000)), "{}", group.log());
}

/// Nobody wants at noon what was meant for the night.
#[test]
fn a_moment_that_went_by_is_kept_for_ten_minutes_and_lost_after_that() {
    let mut group = waiting(Some(NIGHT), 100);
    restart(&mut group, Some(NIGHT + 100 + 590));
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());

    let mut group = waiting(Some(NIGHT), 100);
    restart(&mut group, Some(NIGHT + 100 + 610));
    assert_eq!(waits(&mut group), Waits::Lost);
}

#[test]
fn a_clock_that_is_far_out_moves_nobody() {
    let mut group = waiting(Some(NIGHT), 100);
    restart(&mut group, Some(NIGHT - 30 * 24 * 3_600));
    assert_eq!(waits(&mut group), Waits::Lost);
}

#[test]
fn the_last_moment_that_was_named_counts_and_not_the_one_before() {
    let mut group = waiting(Some(NIGHT), 5);
    group.boards[LEAD].clock.set(None);
    schedule(&mut group, 60);
    restart(&mut group, Some(NIGHT));
    assert_eq!(waits(&mut group), Waits::Lost);
}
