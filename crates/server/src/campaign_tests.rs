//! Campaigns, one rule at a time.

use super::*;

/// Moments of one Monday.
fn at(hour: u8, minute: u8) -> Timestamp {
    format!("2026-03-02T{hour:02}:{minute:02}:00Z").parse().unwrap()
}

const WAVE: Wave =
    Wave { percent: 50, needs_approval: false, is_approved: false, soak_s: 0, patience_s: None };

fn plan(waves: &[Wave]) -> Plan {
    Plan { state: State::Running, waves: waves.to_vec(), failures_max: 0, not_before: None }
}

fn member(group: &str, wave: usize, standing: Standing) -> Member {
    Member { group: group.into(), wave, standing, since: at(8, 0), hours: Hours::any() }
}

#[test]
fn the_second_wave_waits_until_the_whole_first_one_has_kept_and_soaked() {
    let plan = plan(&[Wave { soak_s: 3_600, ..WAVE }, WAVE]);
    let decide =
        |first, now| plan.decide(now, &[member("a", 0, first), member("b", 1, Standing::Waits)]);
    assert_eq!(decide(Standing::Waits, at(9, 0)).offers, ["a"]);
    for busy in [Standing::Offered, Standing::Began] {
        assert_eq!(decide(busy, at(9, 0)), Decision::default(), "{busy:?}");
    }
    assert_eq!(decide(Standing::Kept, at(8, 59)), Decision::default(), "it soaks");
    assert_eq!(decide(Standing::Kept, at(9, 0)).offers, ["b"]);
    assert_eq!(decide(Standing::Skipped, at(9, 0)).offers, ["b"]);
}

#[test]
fn too_many_failures_pause_it_and_take_back_what_was_not_begun() {
    let plan = Plan { failures_max: 1, ..plan(&[WAVE]) };
    let mut members = vec![
        member("a", 0, Standing::Failed),
        member("b", 0, Standing::Offered),
        member("c", 0, Standing::Began),
        member("d", 0, Standing::Waits),
    ];
    assert_eq!(plan.decide(at(9, 0), &members).offers, ["d"], "one is allowed");
    members.push(member("e", 0, Standing::Failed));
    let decision = plan.decide(at(9, 0), &members);
    let why = "2 groups failed, allowed are 1".to_owned();
    assert_eq!(decision.state, Some((State::Paused, why)));
    assert!(decision.offers.is_empty());
    assert_eq!(decision.withdrawals, ["b"]);
}

#[test]
fn a_wave_that_needs_a_persons_word_waits_for_it() {
    let asks = Wave { needs_approval: true, ..WAVE };
    let members = [member("a", 0, Standing::Kept), member("b", 1, Standing::Waits)];
    let waits = plan(&[WAVE, asks]);
    assert_eq!(waits.decide(at(9, 0), &members), Decision::default());
    assert_eq!(waits.waits_for(at(9, 0), &members), WaitsFor::Approval(1));
    let approved = Wave { is_approved: true, ..asks };
    assert_eq!(plan(&[WAVE, approved]).decide(at(9, 0), &members).offers, ["b"]);
}

#[test]
fn what_is_paused_or_over_offers_nothing_and_takes_back() {
    let members = [member("a", 0, Standing::Offered), member("b", 0, Standing::Waits)];
    for state in [State::Paused, State::Aborted, State::Done] {
        let plan = Plan { state, ..plan(&[WAVE]) };
        let expected = Decision { withdrawals: vec!["a".into()], ..Decision::default() };
        assert_eq!(plan.decide(at(9, 0), &members), expected, "{state:?}");
    }
}

#[test]
fn it_is_done_when_nobody_is_left() {
    let members = [member("a", 0, Standing::Kept), member("b", 1, Standing::Failed)];
    let plan = Plan { failures_max: 1, ..plan(&[WAVE, WAVE]) };
    assert_eq!(plan.decide(at(9, 0), &members).state, Some((State::Done, String::new())));
}

#[test]
fn nothing_is_offered_before_its_moment() {
    let plan = Plan { not_before: Some(at(9, 0)), ..plan(&[WAVE]) };
    let members = [member("a", 0, Standing::Waits)];
    assert_eq!(plan.decide(at(8, 59), &members), Decision::default());
    assert_eq!(plan.decide(at(9, 0), &members).offers, ["a"]);
}

#[test]
fn a_group_is_offered_something_in_its_hours_only() {
    let hours = Hours::new("01:00-03:00", "UTC").unwrap();
    let member = |standing| Member { hours: hours.clone(), ..member("a", 0, standing) };
    let decide = |standing, now| plan(&[WAVE]).decide(now, &[member(standing)]);
    assert!(decide(Standing::Waits, at(0, 59)).offers.is_empty());
    assert_eq!(decide(Standing::Waits, at(1, 0)).offers, ["a"]);
    assert!(decide(Standing::Offered, at(2, 59)).withdrawals.is_empty());
    assert_eq!(decide(Standing::Offered, at(3, 0)).withdrawals, ["a"]);
}

/// One group that is switched off for a month must not hold up all others, and gets the release
/// when it is back.
#[test]
fn a_wave_with_patience_goes_on_without_who_is_away_and_who_is_back_gets_it_later() {
    let patient = Wave { patience_s: Some(3_600), ..WAVE };
    let plan = plan(&[patient, WAVE]);
    let decide =
        |first, second, now| plan.decide(now, &[member("a", 0, first), member("b", 1, second)]);
    assert_eq!(decide(Standing::Offered, Standing::Waits, at(8, 59)), Decision::default());
    assert_eq!(decide(Standing::Offered, Standing::Waits, at(9, 0)).offers, ["b"]);
    let all_but_it = decide(Standing::Offered, Standing::Kept, at(10, 0));
    assert_eq!(all_but_it, Decision::default(), "neither done nor taken back");
    assert_eq!(decide(Standing::Began, Standing::Waits, at(23, 0)), Decision::default());
}

#[test]
fn groups_are_divided_by_shares_of_all_of_them() {
    assert_eq!(waves_of(10, &[10, 40, 50]), [0, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
    assert_eq!(waves_of(3, &[1, 99]), [0, 1, 1], "a canary is one group at least");
    assert_eq!(waves_of(1, &[10, 90]), [0]);
    assert_eq!(waves_of(0, &[10, 90]), Vec::<usize>::new());
}

#[test]
fn waves_are_shares_that_are_all_together() {
    let waves = read_waves("10, 40!, 50%", 60, None).unwrap();
    let shown: Vec<_> = waves.iter().map(|it| (it.percent, it.needs_approval)).collect();
    assert_eq!(shown, [(10, false), (40, true), (50, false)]);
    for wrong in ["", "0,100", "50,60", "a", "10,,90"] {
        assert!(read_waves(wrong, 0, None).is_err(), "{wrong}");
    }
}

const NOTHING: Heard<'_> = Heard { runs_it: false, open: None, reverted: &[], refused: None };

#[test]
fn a_group_has_kept_a_release_only_when_its_devices_run_it_and_its_rollout_is_over() {
    let on_trial = Heard { runs_it: true, open: Some("17"), ..NOTHING };
    assert_eq!(Standing::Offered.after(&on_trial), Some((Standing::Began, String::new())));
    assert_eq!(Standing::Began.after(&on_trial), None);
    let over = Heard { runs_it: true, ..NOTHING };
    for standing in [Standing::Offered, Standing::Began, Standing::Failed] {
        assert_eq!(standing.after(&over), Some((Standing::Kept, String::new())), "{standing:?}");
    }
    assert_eq!(Standing::Began.after(&NOTHING), None, "nothing heard is no failure");
}

#[test]
fn a_rollout_that_came_to_nothing_is_a_failure_even_if_its_beginning_was_never_heard_of() {
    let reverted = [("17".to_owned(), "fell-back".to_owned())];
    let heard = Heard { reverted: &reverted, ..NOTHING };
    for standing in [Standing::Offered, Standing::Began] {
        assert_eq!(standing.after(&heard), Some((Standing::Failed, "fell-back".into())));
    }
    assert_eq!(Standing::Waits.after(&heard), None, "it was of no offer");
}
