//! Orders are compare-and-set: what each of their conditions prevents.

use lockstep_agent::{Effect, RebootReason, Reply, Trace};
use lockstep_proto::frame::order::{Detail, Order, Source, Stage, Ticket};
use lockstep_proto::frame::report::{MemberState, Refusal};
use lockstep_proto::id::{Generation, ImageHash, RolloutId};

use crate::fixture::{Release, SLOTS, Start, TestDevice, firmware, ticket};

fn first4(hash: ImageHash) -> u32 {
    u32::from_le_bytes(hash.0[..4].try_into().unwrap())
}

// Rule: generation. L26: two leads, the older one must not win.
#[test]
fn an_order_of_an_older_generation_is_refused() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.activation();
    let stale = Refusal::StaleGeneration { offered: 0, known: 1 };
    device.assert_refused(&ticket(0, 1), &order, stale);
    let stage = Order::Stage(Release::of(firmware(2)).stage());
    device.assert_refused(&ticket(0, 0), &stage, stale);
    device.assert_refused(&ticket(0, 0), &Order::Revert, stale);
}

#[test]
fn a_higher_term_beats_any_counter() {
    let mut device = TestDevice::ready(Start::Rollback);
    let taken_over = Ticket {
        rollout: RolloutId(9),
        generation: Generation { term: 1, counter: 0 },
        attempt: 0,
    };
    device.order(&taken_over, &Order::Revert);
    assert_eq!((device.report().ticket, device.state()), (taken_over, MemberState::Reverted));
    let order = device.activation();
    let stale = Refusal::StaleGeneration { offered: 1, known: 0 };
    device.assert_refused(&ticket(1, 1), &order, stale);
}

// Rule: rollout id. A lead that lost its record may draw the same generation again.
#[test]
fn an_order_of_another_rollout_of_the_same_generation_is_refused() {
    let mut device = TestDevice::ready(Start::Rollback);
    let other = Ticket { rollout: RolloutId(0x77), ..ticket(1, 1) };
    let order = device.activation();
    let known = ticket(1, 0).rollout.low();
    device.assert_refused(&other, &order, Refusal::OtherRollout { offered: 0x77, known });
    assert_eq!(device.report().refused.unwrap().rollout, 0x77, "names the refused order's rollout");
}

#[test]
fn a_ticket_without_a_rollout_is_refused() {
    let mut device = TestDevice::new();
    let stage = Order::Stage(Release::of(device.new.clone()).stage());
    let stale = Refusal::StaleGeneration { offered: 0, known: 0 };
    device.assert_refused(&Ticket::default(), &stage, stale);
}

// Invariant 1 seen from here: nobody activates what was not staged in this rollout.
#[test]
fn only_stage_and_revert_open_a_newer_generation() {
    let mut device = TestDevice::ready(Start::Rollback);
    for order in [device.activation(), device.arming(), device.confirmation(), Order::Rest] {
        device.assert_refused(&ticket(2, 1), &order, Refusal::NotStaged);
    }
}

#[test]
fn inspection_answers_any_ticket_and_changes_nothing() {
    let mut device = TestDevice::ready(Start::Rollback);
    let flash = device.flash.bytes.clone();
    let report = device.report();
    assert_eq!(device.send(&ticket(0, 0), &Order::Inspect(Detail::Facts)), Reply::FactsAndReport);
    assert_eq!(device.send(&ticket(7, 0), &Order::Inspect(Detail::Report)), Reply::Report);
    assert!(device.flash.bytes == flash);
    assert_eq!(device.report(), report);
    let facts = device.agent().facts(5, 6);
    assert_eq!((facts.generation, facts.free_heap_bytes), (ticket(1, 0).generation, 5));
    assert_eq!((facts.running, facts.other), (device.old.hash, device.new.hash));
}

// Rule: attempt. Without it a late `Activate` is obeyed after the member fell back.
#[test]
fn an_attempt_is_accepted_once() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash, "a reset on trial goes back");
    device.rest(1);
    let order = device.activation();
    let spent = Refusal::AttemptSpent { offered: 1, spent: 1 };
    device.assert_refused(&ticket(1, 1), &order, spent);
    let report = device.order(&ticket(1, 2), &order);
    assert_eq!((report.state, report.ticket.attempt), (MemberState::Activating, 2));
}

#[test]
fn the_same_attempt_again_is_answered_again_and_done_once() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.activation();
    device.order(&ticket(1, 1), &order);
    assert_eq!(device.take_effects(), [Effect::Reboot(RebootReason::Activate)]);
    let flash = device.flash.bytes.clone();
    let report = device.order(&ticket(1, 1), &order);
    assert_eq!((report.refused, report.observed.activated), (None, true));
    assert_eq!(device.take_effects(), []);
    assert!(device.flash.bytes == flash);
    device.power_cycle();
    let report = device.order(&ticket(1, 1), &order);
    assert_eq!((report.refused, report.running), (None, device.new.hash));
}

// Found by `anything`: armed while its reboot was pending, a device waited for a past moment.
#[test]
fn an_attempt_that_is_under_way_is_not_overtaken_by_a_later_one() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.activation();
    device.order(&ticket(1, 1), &order);
    for order in [device.arming(), device.activation()] {
        let spent = Refusal::AttemptSpent { offered: 2, spent: 1 };
        device.assert_refused(&ticket(1, 2), &order, spent);
    }
}

// Rule: at rest now. An inverter must not reboot under load.
#[test]
fn nothing_is_activated_unless_the_application_is_at_rest() {
    let mut device = TestDevice::new();
    device.stage(1);
    for order in [device.activation(), device.arming()] {
        device.assert_refused(&ticket(1, 1), &order, Refusal::NotAtRest);
    }
    device.order(&ticket(1, 0), &Order::Rest);
    assert_eq!(device.take_effects(), [Effect::AskRest]);
    let now = device.now;
    device.agent().application_not_now(now);
    assert!(device.report().observed.not_now);
    let order = device.activation();
    device.assert_refused(&ticket(1, 1), &order, Refusal::NotAtRest);
    device.agent().application_at_rest(now);
    assert_eq!(device.order(&ticket(1, 1), &order).state, MemberState::Activating);
}

// Rule: the hash expected to run now.
#[test]
fn nothing_is_activated_over_an_image_that_the_lead_does_not_expect() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = Order::Activate { image: device.new.hash, running: ImageHash([9; 32]) };
    let (running, expected) = (first4(device.old.hash), 0x0909_0909);
    device.assert_refused(&ticket(1, 1), &order, Refusal::OtherRunning { running, expected });
}

#[test]
fn nothing_but_the_staged_image_is_activated() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = Order::Activate { image: ImageHash([9; 32]), running: device.old.hash };
    let (found, expected) = (first4(device.new.hash), 0x0909_0909);
    device.assert_refused(&ticket(1, 1), &order, Refusal::SlotDiffers { found, expected });
}

// Rule: the slot is hashed again at activation. Staged yesterday, spoilt since.
#[test]
fn a_slot_that_was_spoilt_after_staging_is_not_activated() {
    for order in [TestDevice::activation, TestDevice::arming] {
        let mut device = TestDevice::ready(Start::Rollback);
        device.flash.bytes[SLOTS[1] as usize + 5000] ^= 4;
        let order = order(&device);
        let expected = first4(device.new.hash);
        device.assert_refused(&ticket(1, 1), &order, Refusal::SlotDiffers { found: 0, expected });
        assert!(!device.report().observed.staged, "what is observed, not what the record says");
        assert_eq!(device.take_effects(), []);
    }
}

#[test]
fn a_device_on_trial_is_not_activated_again() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    let order = Order::Activate { image: device.old.hash, running: device.new.hash };
    device.assert_refused(&ticket(1, 2), &order, Refusal::OnTrial);
    device.assert_refused(&ticket(1, 2), &Order::Rest, Refusal::OnTrial);
}

// Rule: Revert reaches members that were never staged, so that late orders find them reverted.
#[test]
fn after_a_revert_every_late_order_of_that_rollout_is_refused() {
    for staged in [false, true] {
        let mut device = TestDevice::new();
        if staged {
            device.stage(1);
        }
        let report = device.order(&ticket(1, 0), &Order::Revert);
        assert_eq!((report.state, report.refused), (MemberState::Reverted, None));
        assert_eq!(report.ticket.generation, ticket(1, 0).generation);
        device.power_cycle();
        let stage = Order::Stage(Release::of(device.new.clone()).stage());
        let stale = Refusal::StaleGeneration { offered: 1, known: 1 };
        device.assert_refused(&ticket(1, 0), &stage, stale);
        let order = device.activation();
        device.assert_refused(&ticket(1, 1), &order, Refusal::NotStaged);
        device.assert_refused(&ticket(1, 0), &Order::Rest, Refusal::NotStaged);
        assert_eq!(device.order(&ticket(1, 0), &Order::Revert).refused, None, "again is fine");
    }
}

// Rule: Revert also cancels what was activated and has not booted.
#[test]
fn a_revert_between_activation_and_reboot_keeps_the_old_image() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.activation();
    device.order(&ticket(1, 1), &order);
    device.take_effects();
    let report = device.order(&ticket(1, 1), &Order::Revert);
    assert_eq!((report.state, report.observed.activated), (MemberState::Reverted, false));
    assert_eq!(device.take_effects(), [Effect::Release]);
    device.pass(5_000);
    assert_eq!(device.take_effects(), [], "the reboot is off");
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash);
}

// Rule: keep is final for the rollout.
#[test]
fn what_is_kept_is_reversed_by_a_new_rollout_only() {
    let mut device = TestDevice::kept(Start::Rollback);
    device.assert_refused(&ticket(1, 1), &Order::Revert, Refusal::AlreadyKept);
    device.power_cycle();
    device.assert_refused(&ticket(1, 1), &Order::Revert, Refusal::AlreadyKept);

    // Back to the image that is still in the other slot, without a download.
    let back = Stage {
        image: device.old.hash,
        size_bytes: 0,
        package_size_bytes: 0,
        source: Source::OtherSlot,
        ..Release::of(device.old.clone()).stage()
    };
    let report = device.order(&ticket(2, 0), &Order::Stage(back));
    assert_eq!((report.state, report.observed.staged), (MemberState::Staged, true));
    device.rest(2);
    let order = Order::Activate { image: device.old.hash, running: device.new.hash };
    device.order(&ticket(2, 1), &order);
    device.power_cycle();
    device.get_healthy();
    let report = device.order(&ticket(2, 1), &Order::Confirm { image: device.old.hash });
    assert_eq!((report.state, report.running), (MemberState::Kept, device.old.hash));
}

#[test]
fn a_newer_rollouts_revert_does_not_touch_what_is_kept() {
    let mut device = TestDevice::kept(Start::Rollback);
    let report = device.order(&ticket(2, 0), &Order::Revert);
    assert_eq!((report.state, report.running), (MemberState::Reverted, device.new.hash));
    for _ in 0..3 {
        device.power_cycle();
        assert_eq!(device.running(), device.new.hash);
        assert!(!device.agent().on_trial());
    }
}

#[test]
fn without_the_image_in_the_other_slot_there_is_no_way_back() {
    let mut device = TestDevice::new();
    let back = Stage {
        image: device.new.hash,
        size_bytes: 0,
        package_size_bytes: 0,
        source: Source::OtherSlot,
        ..Release::of(device.new.clone()).stage()
    };
    let expected = first4(device.new.hash);
    let refused = Refusal::NoWayBack { found: 0, expected };
    device.assert_refused(&ticket(1, 0), &Order::Stage(back), refused);
}

// L25: identity is the hash; the same image again would loop.
#[test]
fn an_image_that_runs_is_not_staged_again() {
    let mut device = TestDevice::new();
    let stage = Release::of(device.old.clone()).stage();
    let hash = first4(device.old.hash);
    let refused = Refusal::OtherRunning { running: hash, expected: hash };
    device.assert_refused(&ticket(1, 0), &Order::Stage(stage), refused);
}

#[test]
fn a_refusal_is_reported_until_an_order_succeeds() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.activation();
    device.order(&ticket(0, 1), &order);
    device.pass(1_000);
    device.send(&ticket(1, 0), &Order::Inspect(Detail::Report));
    assert!(device.report().refused.is_some());
    device.order(&ticket(1, 1), &order);
    assert_eq!(device.report().refused, None);
    let traced = Trace::Refused(Refusal::StaleGeneration { offered: 0, known: 1 });
    assert!(device.saw(traced));
}

#[test]
fn arming_activates_nothing_before_the_countdown_has_run_down() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.arming();
    assert!(device.order(&ticket(1, 1), &order).observed.armed);
    device.order(&ticket(1, 1), &Order::Fire { in_ms: 500 });
    assert_eq!(device.next_wake(), Some(device.now + 500));
    device.pass(499);
    assert_eq!(device.take_effects(), []);
    device.pass(1);
    assert_eq!(device.take_effects(), [Effect::Reboot(RebootReason::Activate)]);
    let report = device.report();
    assert_eq!((report.state, report.ticket.attempt), (MemberState::Activating, 1));
    device.power_cycle();
    assert_eq!(device.running(), device.new.hash);
}

// Members start within 100 ms of each other only if a delayed countdown is corrected.
#[test]
fn a_repeated_countdown_corrects_the_moment() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.arming();
    device.order(&ticket(1, 1), &order);
    device.order(&ticket(1, 1), &Order::Fire { in_ms: 500 });
    device.pass(100);
    device.order(&ticket(1, 1), &Order::Fire { in_ms: 300 });
    device.pass(300);
    assert_eq!(device.take_effects(), [Effect::Reboot(RebootReason::Activate)]);
}

// An activation of its own that comes a moment before the countdown has run down hashes the slot
// once more: what it finds must not be forgotten when the moment comes.
#[test]
fn who_has_found_its_slot_spoilt_does_not_fire() {
    let mut device = TestDevice::ready(Start::Rollback);
    let arming = device.arming();
    device.order(&ticket(1, 1), &arming);
    device.order(&ticket(1, 1), &Order::Fire { in_ms: 500 });
    device.flash.bytes[SLOTS[1] as usize + 5000] ^= 4;
    let activation = device.activation();
    let refused = device.order(&ticket(1, 1), &activation).refused;
    assert!(matches!(refused.unwrap().why, Refusal::SlotDiffers { .. }), "{refused:?}");
    device.pass(500);
    assert_eq!(device.take_effects(), []);
    assert!(!device.report().observed.armed);
}

#[test]
fn who_is_not_armed_for_this_attempt_does_not_fire() {
    let mut device = TestDevice::ready(Start::Rollback);
    device.assert_refused(&ticket(1, 1), &Order::Fire { in_ms: 0 }, Refusal::NotStaged);
    let order = device.arming();
    device.order(&ticket(1, 1), &order);
    device.assert_refused(&ticket(1, 2), &Order::Fire { in_ms: 0 }, Refusal::NotStaged);
    let now = device.now;
    device.agent().application_not_now(now);
    assert!(!device.report().observed.armed, "armed ends with rest");
    device.assert_refused(&ticket(1, 1), &Order::Fire { in_ms: 0 }, Refusal::NotAtRest);
    device.pass(1_000);
    assert_eq!(device.take_effects(), []);
}

// Rule: every lease ends. L35: a coordinator that lost its state leaves members busy for ever.
#[test]
fn rest_ends_when_the_lead_falls_silent_and_arming_with_it() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.arming();
    device.order(&ticket(1, 1), &order);
    device.pass(19_999);
    assert!(device.report().observed.armed);
    let (now, rollout) = (device.now, ticket(1, 0).rollout);
    device.agent().note_frame_of(now, RolloutId(5));
    assert_eq!(device.next_wake(), Some(now + 1), "frames of others do not count");
    device.agent().note_frame_of(now, rollout);
    device.pass(19_999);
    assert!(device.report().observed.at_rest, "a frame of this rollout renews it");
    device.pass(1);
    assert_eq!(device.take_effects(), [Effect::Release]);
    let observed = device.report().observed;
    assert_eq!((observed.at_rest, observed.armed), (false, false));
    assert!(device.saw(Trace::RestLeaseEnded));
}

#[test]
fn a_newer_rollout_takes_over_from_one_that_is_activated_but_not_booted() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.activation();
    device.order(&ticket(1, 1), &order);
    device.take_effects();
    let release = Release::of(firmware(2));
    let report = device.order(&ticket(2, 0), &Order::Stage(release.stage()));
    assert_eq!((report.state, report.observed.activated), (MemberState::Staging, false));
    assert_eq!(device.take_effects(), [Effect::Release]);
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash);
}

// Rule: the epoch is raised only once all have kept; until then a repair may come.
#[test]
fn only_who_has_kept_can_be_told_that_all_have() {
    for in_trial in [false, true] {
        let mut device = match in_trial {
            true => TestDevice::in_trial(Start::Rollback),
            false => TestDevice::ready(Start::Rollback),
        };
        let attempt = u8::from(in_trial);
        device.assert_refused(&ticket(1, attempt), &Order::Settled, Refusal::NotStaged);
        assert!(!device.agent().has_settled());
    }
    let mut device = TestDevice::kept(Start::Rollback);
    assert!(!device.report().observed.settled, "it does not conclude that by itself");
    let stale = Refusal::StaleGeneration { offered: 0, known: 1 };
    device.assert_refused(&ticket(0, 1), &Order::Settled, stale);
    assert!(device.order(&ticket(1, 1), &Order::Settled).observed.settled);
    assert!(device.order(&ticket(1, 1), &Order::Settled).observed.settled, "again is fine");
}

// The lead stops saying it when it was answered.
#[test]
fn that_all_have_settled_is_known_after_a_reboot_and_only_of_that_rollout() {
    let mut device = TestDevice::kept(Start::Rollback);
    device.order(&ticket(1, 1), &Order::Settled);
    device.power_cycle();
    assert!(device.agent().has_settled());
    device.order(&ticket(2, 0), &Order::Stage(Release::of(firmware(3)).stage()));
    assert!(!device.agent().has_settled());
    device.assert_refused(&ticket(2, 0), &Order::Settled, Refusal::NotStaged);
    device.power_cycle();
    assert!(!device.report().observed.settled);
}

#[test]
fn that_all_have_settled_is_not_believed_before_it_is_durable() {
    let mut device = TestDevice::kept(Start::Rollback);
    device.flash.power_budget_bytes = Some(3);
    device.send(&ticket(1, 1), &Order::Settled);
    assert!(!device.report().observed.settled);
    device.flash.power_on();
    device.power_cycle();
    assert!(!device.agent().has_settled());
    assert!(device.order(&ticket(1, 1), &Order::Settled).observed.settled);
}

#[test]
fn the_epoch_floor_rises_only_when_it_is_raised_and_never_sinks() {
    let mut device = TestDevice::kept(Start::Rollback);
    assert_eq!(device.agent().epoch_floor(), 0);
    let (agent, flash) = device.parts();
    agent.raise_epoch(4, flash).unwrap();
    agent.raise_epoch(2, flash).unwrap();
    device.power_cycle();
    assert_eq!(device.agent().epoch_floor(), 4);
    // The way back is refused from here on: that is why it is raised only after a soak.
    let back = Stage {
        image: device.old.hash,
        size_bytes: 0,
        package_size_bytes: 0,
        source: Source::OtherSlot,
        ..Release::of(device.old.clone()).stage()
    };
    let low = Refusal::EpochTooLow { offered: 0, floor: 4 };
    device.assert_refused(&ticket(2, 0), &Order::Stage(back), low);
}
