//! A trial, how it ends well, and the many ways in which it ends by itself.

use lockstep_agent::{Effect, FIRST_TRIAL_MS, FallBackCause, RebootReason, Reply, Trace};
use lockstep_proto::frame::order::{Detail, Order};
use lockstep_proto::frame::report::{MemberState, Refusal, Rollback};
use lockstep_proto::otadata::OtaState;

use crate::fixture::{Good, Release, SLOTS, Start, TestDevice, firmware, ticket};

const STARTS: [Start; 3] = [Start::Rollback, Start::NoRollback, Start::ConfirmsEarly];

#[test]
fn a_healthy_trial_is_confirmed_and_stays() {
    for start in STARTS {
        let mut device = TestDevice::kept(start);
        let report = device.report();
        assert_eq!((report.ota_state, report.observed.on_trial), (OtaState::Valid, false));
        for _ in 0..3 {
            device.power_cycle();
            assert_eq!(device.running(), device.new.hash, "{start:?}");
            assert!(!device.agent().on_trial());
        }
        let order = device.confirmation();
        assert_eq!(device.order(&ticket(1, 1), &order).refused, None, "again is fine");
    }
}

// L7: any reset on trial goes back, with a bootloader that helps and without one.
#[test]
fn a_reset_on_trial_goes_back_and_the_report_tells_it() {
    for start in STARTS {
        let mut device = TestDevice::in_trial(start);
        device.power_cycle();
        let report = device.report();
        assert_eq!(report.running, device.old.hash, "{start:?}");
        assert_eq!((report.state, report.ticket.attempt), (MemberState::Activating, 1));
        assert!(!report.observed.activated && !report.observed.on_trial, "it fell back");
        assert!(report.observed.staged, "and can be activated again without a download");
        assert!(device.saw(Trace::FellBack));
    }
}

// L4: the framework confirms before `setup()`, and rollback would never trigger.
#[test]
fn an_image_that_was_confirmed_too_early_is_on_trial_all_the_same() {
    let mut device = TestDevice::in_trial(Start::ConfirmsEarly);
    assert!(device.saw(Trace::ConfirmedEarly));
    let report = device.report();
    assert_eq!((report.ota_state, report.observed.on_trial), (OtaState::Valid, true));
    assert_eq!(device.agent().facts(0, 0).rollback, Rollback::Agent, "and says who watches it");
    device.pass(10_000);
    device.assert_goes_back(FallBackCause::NotHealthy);
}

// L5: an old bootloader leaves NEW as it is.
#[test]
fn without_the_bootloaders_help_the_agent_counts_boots_and_goes_back() {
    let mut device = TestDevice::in_trial(Start::NoRollback);
    assert_eq!(device.report().ota_state, OtaState::New);
    assert!(device.saw(Trace::OnTrialByRecord));
    assert_eq!(device.agent().member().trial_boots, 1);
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash);
    assert!(device.saw(Trace::TrialEnds(FallBackCause::Reset)));
    // Activated again, it gets a trial again.
    device.rest(1);
    let order = device.activation();
    device.order(&ticket(1, 2), &order);
    device.power_cycle();
    assert_eq!((device.running(), device.agent().on_trial()), (device.new.hash, true));
}

/// The last update of the old kind makes a device one of ours; there is no rollout to confirm it.
#[test]
fn an_image_that_another_tool_brought_stays_once_it_has_run_well_for_a_while() {
    let mut device = TestDevice::brought_by_others();
    device.get_healthy();
    assert!(!device.keeps_first(), "not at once");
    device.pass(FIRST_TRIAL_MS);
    device.sample(Good::NoChecks);
    assert!(!device.keeps_first(), "not while it is not healthy");
    device.get_healthy();
    assert!(device.keeps_first());
    assert!(device.saw(Trace::FirstKept) && !device.agent().on_trial());
    device.power_cycle();
    assert_eq!((device.running(), device.report().ota_state), (device.new.hash, OtaState::Valid));
}

#[test]
fn an_image_that_another_tool_brought_goes_back_at_a_reset_or_when_it_does_not_get_healthy() {
    let mut device = TestDevice::brought_by_others();
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash);
    let mut device = TestDevice::brought_by_others();
    while device.take_effects().is_empty() {
        device.pass(10_000);
        assert!(!device.keeps_first());
    }
    // Nobody spoke to it, and it was not healthy: both limits are ten minutes.
    assert!(device.saw(Trace::TrialEnds(FallBackCause::LeadSilent)));
}

/// In a rollout only the lead's word counts, whatever the device thinks of itself.
#[test]
fn a_trial_of_a_rollout_is_not_kept_by_the_device_alone() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.get_healthy();
    device.pass(FIRST_TRIAL_MS);
    device.get_healthy();
    assert!(!device.keeps_first() && device.agent().on_trial());
}

// L5: firmware that cannot know its bootloader reports the weaker way back, until a trial has shown
// more; what it has shown outlives the trial.
#[test]
fn what_a_trial_shows_of_the_bootloader_is_remembered_and_beats_what_is_assumed() {
    for (start, assumed, seen) in [
        (Start::Rollback, Rollback::Agent, Rollback::Bootloader),
        (Start::NoRollback, Rollback::Bootloader, Rollback::Agent),
    ] {
        let mut device = TestDevice::started_as(start);
        device.assumed = assumed;
        device.power_cycle();
        assert_eq!(device.agent().rollback(), assumed, "nothing was seen yet");
        device.stage(1);
        device.rest(1);
        let order = device.activation();
        device.order(&ticket(1, 1), &order);
        device.power_cycle();
        assert_eq!(device.agent().rollback(), seen, "on trial");
        device.power_cycle();
        assert_eq!((device.running(), device.agent().rollback()), (device.old.hash, seen));
        for _ in 0..3 {
            device.power_cycle();
        }
        assert_eq!(device.agent().facts(0, 0).rollback, seen, "for good");
    }
}

#[test]
fn a_bootloader_that_was_replaced_is_seen_at_the_next_trial() {
    for (first, then, seen) in [
        (Start::Rollback, Start::NoRollback, Rollback::Agent),
        (Start::NoRollback, Start::Rollback, Rollback::Bootloader),
    ] {
        let mut device = TestDevice::in_trial(first);
        device.power_cycle();
        let before = device.agent().rollback();
        device.replace_bootloader(then);
        device.rest(1);
        let order = device.activation();
        device.order(&ticket(1, 2), &order);
        assert_eq!(device.agent().rollback(), before);
        device.power_cycle();
        assert_eq!((device.agent().on_trial(), device.agent().rollback()), (true, seen));
    }
}

// It takes back what it watches; the framework has just told it not to.
#[test]
fn a_trial_that_was_confirmed_too_early_does_not_change_what_is_remembered() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.power_cycle();
    device.replace_bootloader(Start::ConfirmsEarly);
    device.rest(1);
    let order = device.activation();
    device.order(&ticket(1, 2), &order);
    device.power_cycle();
    assert_eq!(device.agent().rollback(), Rollback::Agent, "this trial is ours to watch");
    device.power_cycle();
    assert_eq!(device.agent().rollback(), Rollback::Bootloader);
}

// Rule: trial limit, whatever the lead says. L6: the report says how long the trial still lasts.
#[test]
fn a_trial_that_never_gets_healthy_ends_although_the_lead_keeps_talking() {
    for start in STARTS {
        let mut device = TestDevice::in_trial(start);
        for _ in 0..99 {
            device.pass(100);
            device.sample(Good::NoLink);
            device.send(&ticket(1, 1), &Order::Inspect(Detail::Report));
            assert_eq!(device.take_effects(), []);
        }
        assert_eq!(device.report().trial_left_s, 1);
        device.pass(100);
        assert_eq!(device.take_effects(), [Effect::AskRest]);
        device.assert_goes_back(FallBackCause::NotHealthy);
    }
}

// Rule: lease. The group must come back whole even if the lead is gone for good. L12: an image that
// cannot be reached any more, since it hears nobody, ends in the same way. L24: no wait is endless.
#[test]
fn a_healthy_trial_ends_when_the_lead_is_silent_for_the_lease() {
    for start in STARTS {
        let mut device = TestDevice::in_trial(start);
        device.get_healthy();
        device.pass(29_999);
        assert_eq!(device.take_effects(), []);
        device.send(&ticket(1, 1), &Order::Inspect(Detail::Report));
        device.pass(29_999);
        assert_eq!(device.take_effects(), [], "a frame of this rollout renews it");
        assert_eq!(device.next_wake(), Some(device.now + 1));
        device.pass(1);
        device.assert_goes_back(FallBackCause::LeadSilent);
    }
}

// L33: several samples in a row, own checks and the link.
#[test]
fn health_takes_three_good_samples_in_a_row_and_one_bad_one_ends_it() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    for bad in [Good::NoLink, Good::NoChecks] {
        device.sample(Good::All);
        device.sample(Good::All);
        assert!(!device.report().observed.healthy);
        device.sample(bad);
        device.sample(Good::All);
        device.sample(Good::All);
        assert!(!device.report().observed.healthy);
        device.sample(Good::All);
        assert!(device.report().observed.healthy);
        device.sample(bad);
        assert!(!device.report().observed.healthy);
    }
}

// In an order of activation the link goes down while the next member reboots.
#[test]
fn a_trial_that_was_healthy_in_time_outlives_the_limit() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.get_healthy();
    device.sample(Good::NoLink);
    device.pass(15_000);
    assert_eq!(device.take_effects(), []);
}

// Rule: Confirm only while healthy in this very boot.
#[test]
fn a_trial_that_is_not_healthy_now_is_not_confirmed() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    let order = device.confirmation();
    device.assert_refused(&ticket(1, 1), &order, Refusal::NotHealthy);
    device.get_healthy();
    device.sample(Good::NoChecks);
    device.assert_refused(&ticket(1, 1), &order, Refusal::NotHealthy);
    device.get_healthy();
    assert_eq!(device.order(&ticket(1, 1), &order).state, MemberState::Kept);
}

// Rule: a member is never busy for ever. Found by a world: firmware that was healthy once, and from
// the verdict on never for long enough, was told to confirm for ever, which renewed its lease.
#[test]
fn a_trial_that_does_not_get_well_enough_to_be_confirmed_ends_although_the_lead_keeps_talking() {
    for start in STARTS {
        let mut device = TestDevice::in_trial(start);
        device.get_healthy();
        device.pass(60_000 / 4);
        let order = device.confirmation();
        device.sample(Good::NoChecks);
        for _ in 0..99 {
            device.assert_refused(&ticket(1, 1), &order, Refusal::NotHealthy);
            device.pass(100);
            device.sample(Good::NoChecks);
        }
        assert_eq!(device.take_effects(), []);
        device.pass(100);
        assert_eq!(device.take_effects(), [Effect::AskRest]);
        device.assert_goes_back(FallBackCause::NotHealthy);
    }
}

// A moment of bad health is none: the limit begins anew.
#[test]
fn a_trial_that_gets_well_again_before_the_limit_is_confirmed() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.get_healthy();
    let order = device.confirmation();
    for _ in 0..3 {
        device.sample(Good::NoChecks);
        device.assert_refused(&ticket(1, 1), &order, Refusal::NotHealthy);
        device.pass(8_000);
        device.get_healthy();
    }
    assert_eq!(device.order(&ticket(1, 1), &order).state, MemberState::Kept);
}

// L23: false success, "in sync" while the old image runs.
#[test]
fn a_member_that_fell_back_does_not_confirm_and_says_what_runs() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.power_cycle();
    device.get_healthy();
    let order = device.confirmation();
    let report = device.order(&ticket(1, 1), &order);
    assert_eq!((report.state, report.running), (MemberState::Activating, device.old.hash));
    assert!(matches!(report.refused.unwrap().why, Refusal::OtherRunning { .. }));
}

#[test]
fn a_revert_on_trial_goes_back_for_good() {
    for start in STARTS {
        let mut device = TestDevice::in_trial(start);
        device.get_healthy();
        let report = device.order(&ticket(1, 1), &Order::Revert);
        assert_eq!((report.state, report.running), (MemberState::Reverted, device.new.hash));
        assert!(report.observed.on_trial, "it says that it is not back yet");
        assert_eq!(device.take_effects(), [Effect::AskRest]);
        device.assert_goes_back(FallBackCause::Reverted);
        let report = device.report();
        assert_eq!((report.state, report.observed.on_trial), (MemberState::Reverted, false));
        device.power_cycle();
        assert_eq!(device.running(), device.old.hash, "{start:?}");
    }
}

// A fall back asks the application, but does not wait beyond its limit.
#[test]
fn a_fall_back_does_not_wait_for_an_application_that_never_rests() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.order(&ticket(1, 1), &Order::Revert);
    let now = device.now;
    device.agent().application_not_now(now);
    device.pass(1_999);
    assert_eq!(device.take_effects(), [Effect::AskRest]);
    device.pass(1);
    let back = Effect::Reboot(RebootReason::FallBack(FallBackCause::Reverted));
    assert_eq!(device.take_effects(), [back]);
    device.pass(1_000);
    assert_eq!(device.take_effects(), [back], "it is asked for until it comes");
}

// A confirmation that arrives while the device is on its way back must not keep the image.
#[test]
fn nothing_stops_a_fall_back_that_has_begun() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.get_healthy();
    device.order(&ticket(1, 1), &Order::Revert);
    let order = device.confirmation();
    let refused = device.order(&ticket(1, 1), &order).refused.unwrap().why;
    assert!(matches!(refused, Refusal::NotHealthy | Refusal::NotStaged), "{refused}");
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash);
}

// The trial has ended by itself; a verdict that comes too late must not make it half permanent.
#[test]
fn a_confirmation_does_not_stop_a_fall_back_that_waits_for_the_application() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.get_healthy();
    device.pass(30_000);
    assert_eq!(device.take_effects(), [Effect::AskRest]);
    let order = device.confirmation();
    device.assert_refused(&ticket(1, 1), &order, Refusal::NotHealthy);
    device.assert_goes_back(FallBackCause::LeadSilent);
}

// The bootloader finds the image damaged and boots the old one: the lead must not wait for a boot
// that will never come.
#[test]
fn an_activation_that_the_bootloader_refuses_is_over_at_the_next_boot() {
    for start in STARTS {
        let mut device = TestDevice::ready(start);
        let order = device.activation();
        device.order(&ticket(1, 1), &order);
        device.flash.bytes[SLOTS[1] as usize + 5_000] ^= 1;
        device.power_cycle();
        let report = device.report();
        assert_eq!((report.running, report.state), (device.old.hash, MemberState::Activating));
        assert!(!report.observed.activated && !report.observed.staged, "{start:?}");
        device.power_cycle();
        assert_eq!(device.running(), device.old.hash);
    }
}

// Rule: a newer generation ends a trial of an older one; the answer comes after the reboot.
#[test]
fn a_newer_rollout_ends_the_trial_of_an_older_one() {
    for start in STARTS {
        let mut device = TestDevice::in_trial(start);
        device.get_healthy();
        let release = Release::of(firmware(2));
        let stage = Order::Stage(release.stage());
        assert_eq!(device.send(&ticket(2, 0), &stage), Reply::Nothing);
        device.take_effects();
        device.assert_goes_back(FallBackCause::Superseded);
        device.order(&ticket(2, 0), &stage);
        device.feed(&release.package(), &release.firmware.file);
        assert_eq!(device.state(), MemberState::Staged, "{start:?}");
    }
}

// The record was lost, or another tool installed the image: nobody will ever confirm it.
#[test]
fn a_trial_that_the_record_does_not_know_ends_as_well() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    let (store, end) = (crate::fixture::STORE as usize, crate::fixture::STORE as usize + 0x4000);
    device.flash.bytes[store..end].fill(0xFF);
    let mut lost = device.clone();
    // The same boot, as it were: the bootloader is not asked again.
    lost.flash.bytes[0xF000..0xF020]
        .copy_from_slice(&lockstep_proto::otadata::OtaEntry::new(2, OtaState::New).encode());
    lost.power_cycle();
    let report = lost.report();
    assert_eq!((report.state, report.observed.on_trial), (MemberState::Idle, true));
    lost.get_healthy();
    let order = lost.confirmation();
    lost.assert_refused(&ticket(1, 1), &order, Refusal::NotStaged);
    lost.pass(600_000);
    lost.assert_goes_back(FallBackCause::LeadSilent);
}

#[test]
fn without_a_way_back_a_trial_by_record_stays_where_it_is() {
    let mut device = TestDevice::in_trial(Start::NoRollback);
    device.flash.bytes[SLOTS[0] as usize + 4000] ^= 1;
    device.power_cycle();
    assert_eq!(device.running(), device.new.hash, "half an image is worse than an unconfirmed one");
    assert!(device.saw(Trace::NoWayBack));
    let refused = device.order(&ticket(1, 1), &Order::Revert).refused.unwrap().why;
    assert!(matches!(refused, Refusal::NoWayBack { .. }));
    device.pass(1_000_000);
    assert_eq!(device.take_effects(), []);
}

// A reboot that the node does not carry out is asked for again.
#[test]
fn an_activation_asks_for_its_reboot_until_it_comes() {
    let mut device = TestDevice::ready(Start::Rollback);
    let order = device.activation();
    device.order(&ticket(1, 1), &order);
    device.take_effects();
    assert_eq!(device.next_wake(), Some(device.now + 1_000));
    device.pass(1_000);
    assert_eq!(device.take_effects(), [Effect::Reboot(RebootReason::Activate)]);
}

#[test]
fn the_boot_number_rises_with_every_boot() {
    let mut device = TestDevice::new();
    let first = device.agent().boot_number();
    device.power_cycle();
    device.power_cycle();
    assert_eq!(device.agent().boot_number(), first + 2);
}
