//! Who is offered a patch, how often, and when nobody waits for it any more.

use std::vec;

use lockstep_proto::frame::report::{MemberState, Observed, View};
use lockstep_proto::id::Sha256;
use lockstep_proto::otadata::OtaState;

use super::*;
use crate::judge::tests;

const OLD: ImageHash = ImageHash([1; 32]);
const NEW: ImageHash = ImageHash([2; 32]);
const OTHER: ImageHash = ImageHash([3; 32]);
const LEAD: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
const ONE: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);
const TWO: DeviceId = DeviceId([2, 0, 0, 0, 0, 3]);

/// The lead and two members, all of one role.
fn record() -> RolloutRecord {
    let record = tests::record();
    let seats = [LEAD, ONE, TWO].map(|id| SeatRecord { id, ..record.seats[0].clone() });
    RolloutRecord { seats: seats.to_vec(), ..record }
}

fn report(running: ImageHash) -> Report {
    let record = record();
    Report {
        ticket: Ticket { rollout: record.id, generation: record.generation, attempt: 0 },
        state: MemberState::Staging,
        refused: None,
        running,
        other: NEW,
        ota_state: OtaState::Valid,
        observed: Observed::default(),
        staged_bytes: 0,
        linked: 0,
        view: View::default(),
        trial_left_s: 0,
        reset_reason: 1,
    }
}

fn view(running: ImageHash) -> SeatView {
    SeatView { report: Some(report(running)), ..SeatView::default() }
}

fn staged(running: ImageHash) -> SeatView {
    let mut report = report(running);
    report.observed.staged = true;
    SeatView { report: Some(report), ..SeatView::default() }
}

fn offers(base: Option<ImageHash>, views: &[SeatView; 3]) -> Offers {
    let record = record();
    let offer = Offer { image: NEW, base, patch: Sha256([7; 32]), size_bytes: 5_000 };
    Offers::new(offer, &record.seats[0].role, LEAD, &record, views)
}

/// To whom something is said now.
fn said(offers: &mut Offers, ms: u64, views: &[SeatView; 3]) -> Vec<DeviceId> {
    let due = offers.due(Instant::from_ms(ms), &record(), views);
    assert!(due.iter().all(|it| it.order == Order::Offer(offers.offer)));
    due.into_iter().map(|it| it.to).collect()
}

fn refused(offers: &Offers, why: Refusal) -> Report {
    let order = Order::Offer(offers.offer);
    Report { refused: Some(Refused::new(record().id, &order, why)), ..report(OLD) }
}

#[test]
fn a_patch_is_offered_to_those_that_run_what_it_is_for_and_have_not_staged() {
    let views = [view(OLD), view(OLD), view(OTHER)];
    assert_eq!(said(&mut offers(Some(OLD), &views), 0, &views), [ONE]);
    let views = [view(OLD), staged(OLD), view(OLD)];
    assert_eq!(said(&mut offers(Some(OLD), &views), 0, &views), [TWO]);
    // What is the whole image is for all.
    let views = [view(OLD), view(OLD), view(OTHER)];
    assert_eq!(said(&mut offers(None, &views), 0, &views), [ONE, TWO]);
    // After a restart the lead has heard of nobody: they know themselves.
    let views = [SeatView::default(), SeatView::default(), SeatView::default()];
    assert_eq!(said(&mut offers(Some(OLD), &views), 0, &views), [ONE, TWO]);
}

#[test]
fn nobody_to_offer_it_to_is_done_at_once() {
    let views = [view(OLD), view(OTHER), staged(OLD)];
    let mut offers = offers(Some(OLD), &views);
    assert!(offers.is_done(&record(), &views));
    assert_eq!(
        (said(&mut offers, 0, &views), offers.next_wake(Instant::default())),
        (vec![], None)
    );
}

#[test]
fn who_has_not_answered_is_asked_each_second_and_passed_over_in_the_end() {
    let views = [view(OLD), view(OLD), staged(OLD)];
    let mut offers = offers(Some(OLD), &views);
    let mut asked = 0;
    for ms in (0..60_000).step_by(100) {
        asked += said(&mut offers, ms, &views).len();
    }
    assert_eq!(asked, usize::from(OFFERS_MAX));
    assert!(offers.is_done(&record(), &views));
}

/// Who takes it is never passed over: it is waited for like any member that stages.
#[test]
fn who_takes_it_hears_now_and_then_that_it_still_can_until_it_has_staged() {
    let mut views = [view(OLD), view(OLD), staged(OLD)];
    let mut offers = offers(Some(OLD), &views);
    assert_eq!(said(&mut offers, 0, &views), [ONE]);
    offers.note_taken(ONE);
    offers.note_taken(TWO);
    let asked = (0..600).map(|s| said(&mut offers, s * 1_000, &views).len()).sum::<usize>();
    assert_eq!(asked, 119, "every five seconds");
    assert!(!offers.is_done(&record(), &views));
    views[1] = staged(OLD);
    assert_eq!(offers.note_report(ONE, &views[1].report.unwrap()), Some(Ok(())));
    assert_eq!(offers.note_report(ONE, &views[1].report.unwrap()), None);
    assert!(offers.is_done(&record(), &views));
    assert_eq!(said(&mut offers, 700_000, &views), []);
}

#[test]
fn a_refusal_counts_once_and_one_from_before_the_offer_not_at_all() {
    let why = Refusal::PatchBroken { offset: 5 };
    let mut views = [view(OLD), view(OLD), staged(OLD)];
    views[1].report = Some(refused(&offers(Some(OLD), &views), why));
    let mut offers = offers(Some(OLD), &views);
    let stale = refused(&offers, why);
    said(&mut offers, 0, &views);
    assert_eq!(offers.note_report(ONE, &stale), None);
    assert_eq!(offers.note_report(LEAD, &stale), None);
    let other_order = Report {
        refused: Some(Refused::new(record().id, &Order::Rest, Refusal::NotStaged)),
        ..report(OLD)
    };
    assert_eq!(offers.note_report(ONE, &other_order), None);
    let why = Refusal::PatchSpent { tries: 2 };
    let mut other_rollout = refused(&offers, why);
    other_rollout.refused = other_rollout.refused.map(|it| Refused { rollout: 5, ..it });
    assert_eq!(offers.note_report(ONE, &other_rollout), None);
    assert!(!offers.is_done(&record(), &views));

    let fresh = refused(&offers, Refusal::PatchSpent { tries: 3 });
    assert_eq!(offers.note_report(ONE, &fresh), Some(Err(Refusal::PatchSpent { tries: 3 })));
    assert_eq!(offers.note_report(ONE, &fresh), None);
    assert!(offers.is_done(&record(), &views));
}

/// It took the patch, and it came to nothing.
#[test]
fn who_took_it_may_still_refuse_it() {
    let views = [view(OLD), view(OLD), staged(OLD)];
    let mut offers = offers(Some(OLD), &views);
    said(&mut offers, 0, &views);
    offers.note_taken(ONE);
    let report = refused(&offers, Refusal::PatchDiffers { found: 1, expected: 2 });
    assert!(offers.note_report(ONE, &report).is_some());
    assert!(offers.is_done(&record(), &views));
}
