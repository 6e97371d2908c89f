//! Trials that fail, each in its own way: the group goes back, and the cause names who it was.

use lockstep_sim::firmware::Fault;
use serde_json::Value;

use super::desk::{Desk, Plan, Receiver, Role, Transmitter, firmware};

/// Rolls out a release in which the image of `who` has this fault; returns the cause of its revert.
fn revert_of(desk: &Desk, who: Role, fault: Fault) -> Value {
    let [receiver, transmitter] = [Receiver, Transmitter].map(|role| {
        let fault = if role == who { fault } else { Fault::None };
        firmware(role, "1.1.0").fault(fault).make()
    });
    let options = "--key a.key --health-timeout 3";
    let bundle = desk.release_with("1.1.0", &[&transmitter, &receiver], options);
    desk.update(&bundle)
        .fails()
        .says("The rollout of 1.1.0 was reverted")
        .says("Every device runs what it ran before.");
    desk.assert_runs(&desk.first);
    let newest = desk.history()[0].clone();
    assert_eq!(newest["verdict"], "revert");
    newest["cause"].clone()
}

fn id(who: Role) -> &'static str {
    match who {
        Receiver => "02:00:00:00:00:01",
        Transmitter => "02:00:00:00:00:02",
    }
}

/// A trial asks more of an image than that it runs (L33).
#[test]
fn l33_an_image_that_never_gets_healthy_takes_both_back() {
    let cause = revert_of(&Desk::new(), Transmitter, Fault::NeverHealthy);
    assert_eq!(
        (&cause["code"], &cause["member"]),
        (&"not-healthy".into(), &id(Transmitter).into())
    );
    // A lead that falls back does not know any more how it felt.
    let cause = revert_of(&Desk::new(), Receiver, Fault::NeverHealthy);
    assert_eq!(cause["member"], id(Receiver));
}

/// It dies before a line of ours runs: only the bootloader can take it back (L4, L5).
#[test]
fn an_image_that_crashes_at_boot_takes_both_back() {
    for who in [Transmitter, Receiver] {
        let cause = revert_of(&Desk::new(), who, Fault::CrashAtBoot);
        assert_eq!((&cause["code"], &cause["member"]), (&"fell-back".into(), &id(who).into()));
    }
}

/// It runs for a while: longer than a boot, shorter than the trial of its peer.
#[test]
fn an_image_that_crashes_after_a_time_takes_both_back() {
    let cause = revert_of(&Desk::new(), Transmitter, Fault::CrashAfterMs(150));
    assert_eq!((&cause["code"], &cause["member"]), (&"fell-back".into(), &id(Transmitter).into()));
}

/// It stands still; the watchdog, armed first thing, ends it.
#[test]
fn an_image_that_hangs_takes_both_back() {
    let cause = revert_of(&Desk::new(), Transmitter, Fault::Hang);
    assert_eq!((&cause["code"], &cause["member"]), (&"fell-back".into(), &id(Transmitter).into()));
}

/// Each is healthy by itself, but nobody hears anybody: the link is a check as well (L33), and "I
/// can still be updated" hangs on it (L12).
#[test]
fn l33_an_image_with_a_deaf_radio_takes_both_back() {
    revert_of(&Desk::new(), Transmitter, Fault::DeafRadio);
}

/// A bootloader without rollback (L5): a group that promises a way back refuses, and says who.
#[test]
fn l5_a_device_that_nobody_takes_back_is_refused() {
    let desk = Plan::default().with(Transmitter, "--rollback none").start();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle)
        .fails()
        .says("`transmitter` cannot go back by itself when an image fails")
        .says("flash a bootloader with app rollback by cable");
    let answer = desk.post(&desk.read(&bundle));
    assert_eq!(answer.refusals(), ["no-rollback"]);
    assert!(desk.rollout().is_none());
    desk.assert_untouched(&before);
}

/// Without rollback in the bootloader our own code counts trial boots and goes back by itself (L5).
#[test]
fn l5_a_device_with_our_own_rollback_goes_back_after_a_crash() {
    let desk = Plan::default().with(Transmitter, "--rollback agent").start();
    let cause = revert_of(&desk, Transmitter, Fault::CrashAfterMs(150));
    assert_eq!(cause["member"], id(Transmitter));
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// A battery system under load does not open its contactors: nobody reboots, and it is told why.
#[test]
fn an_application_that_never_comes_to_rest_ends_the_rollout_before_anybody_reboots() {
    let desk = Plan::default().with(Transmitter, "--not-now").start();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).fails().says("did not come to rest").says(id(Transmitter));
    assert_eq!(desk.wait_settled()["cause"]["code"], "not-now");
    desk.assert_untouched(&before);
}
