//! The good update: what both devices run afterwards is what was released.

use super::desk::{BOTH, Desk, Forgery, Plan, Receiver, Transmitter, firmware};

/// The whole point. Done is what the rebooted devices say of themselves, not what was sent (L23).
#[test]
fn l23_a_signed_release_is_kept_when_both_devices_say_that_they_run_it() {
    let desk = Desk::new();
    desk.assert_runs(&desk.first);
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds().says("Kept: receiver and transmitter run 1.1.0");
    desk.assert_runs(&images);
    let settled = desk.wait_settled();
    assert_eq!((&settled["verdict"], &settled["kind"]), (&"keep".into(), &"forward".into()));
    let members = settled["members"].as_array().unwrap();
    for (member, image) in members.iter().zip(&images) {
        assert_eq!(member["running"], image.hash.as_str());
        assert_eq!(member["settled"], true);
    }
    // One boot at the factory, one for the trial; confirming needs none.
    assert_eq!(desk.seen().map(|seen| seen.boot_number), [2, 2]);
}

/// A lead that reboots before the others must go on from its record; and between two of an order
/// there is a pause.
#[test]
fn an_order_from_the_receiver_to_the_transmitter_is_kept() {
    let desk = Desk::new();
    let order = "--order receiver,transmitter --reboot-delay 1";
    let (images, bundle) = desk.good_release("1.1.0", order);
    let mark = desk.board(Receiver).mark();
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    let lines = desk.board(Receiver).lines_since(mark);
    let on_target: Vec<_> = lines
        .iter()
        .filter(|line| line["kind"] == "on-target")
        .map(|line| line["member_role"].as_str().unwrap().to_owned())
        .collect();
    let first = on_target.iter().position(|role| role == "receiver");
    let second = on_target.iter().position(|role| role == "transmitter");
    assert!(first.is_some() && first < second, "{on_target:?}");
}

/// The other way round, where the lead is the last to leave.
#[test]
fn an_order_from_the_transmitter_to_the_receiver_is_kept() {
    let desk = Desk::new();
    let order = "--order transmitter,receiver --reboot-delay 1";
    let (images, bundle) = desk.good_release("1.1.0", order);
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// Erasing and writing take a chip a while, in which it still has to answer.
#[test]
fn flash_as_slow_as_a_chips_is_kept() {
    let slow = Plan::default().with(Receiver, "--timing chip").with(Transmitter, "--timing chip");
    let desk = slow.start();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// One release after the other: each begins where the last one ended.
#[test]
fn a_second_release_follows_the_first() {
    let desk = Desk::new();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    let history = desk.history();
    let releases: Vec<_> =
        history.iter().map(|past| (&past["release_before"], &past["release"])).collect();
    assert_eq!(releases, [(&"1.1.0".into(), &"1.2.0".into()), (&"1.0.0".into(), &"1.1.0".into())]);
}

/// The command may vanish: the group updates itself.
#[test]
fn a_rollout_goes_on_when_nobody_watches() {
    let desk = Desk::new();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&format!("{bundle} --detach")).succeeds().says("has begun");
    desk.assert_runs(&images);
    assert_eq!(desk.history()[0]["verdict"], "keep");
}

/// What is checked and not done must leave no trace.
#[test]
fn a_dry_run_touches_nobody() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&format!("{bundle} --dry-run")).succeeds().says("Nothing was changed");
    desk.assert_untouched(&before);
    assert!(desk.rollout().is_none());
}

/// A device without a key takes bare images, and says on every occasion that it trusts anybody.
#[test]
fn bare_images_are_taken_by_devices_without_a_key() {
    let desk = Plan::default().without_keys().start();
    let images = BOTH.map(|role| firmware(role, "1.1.0").make());
    desk.write("receiver.bin", &images[0].bytes);
    desk.write("transmitter.bin", &images[1].bytes);
    desk.update("--receiver receiver.bin --transmitter transmitter.bin").succeeds();
    desk.assert_runs(&images);
    desk.ask_lead("status").succeeds().says("takes releases from anybody");
}

/// A release for the transmitter alone: the receiver is watched, and never reboots.
#[test]
fn a_release_of_one_role_leaves_the_other_alone() {
    let desk = Desk::new();
    let before = desk.seen();
    let transmitter = firmware(Transmitter, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter]);
    desk.update(&bundle).succeeds();
    let [receiver, _] = desk.first.clone();
    desk.assert_runs(&[receiver, transmitter]);
    let after = desk.seen();
    assert_eq!((after[0].boot_number, after[1].boot_number), (1, before[1].boot_number + 1));
}

/// The lead alone: it conducts a rollout whose only member to change is itself.
#[test]
fn a_release_of_the_leads_role_alone_is_kept() {
    let desk = Desk::new();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&receiver]);
    desk.update(&bundle).succeeds();
    let [_, transmitter] = desk.first.clone();
    desk.assert_runs(&[receiver, transmitter]);
    assert_eq!(desk.seen()[1].boot_number, 1);
}

/// One role alone may change only to what the other understands (L1): the pair that would result is
/// judged, not the release by itself.
#[test]
fn l1_a_release_of_one_role_that_the_other_would_not_understand_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let transmitter = firmware(Transmitter, "2.0.0").protocol(2, 3).make();
    let bundle = desk.release("2.0.0", &[&transmitter]);
    desk.update(&bundle)
        .fails()
        .says("`receiver` and `transmitter` would not understand each other")
        .says("update both together");
    desk.assert_untouched(&before);
    // Both together may take the same step.
    let receiver = firmware(Receiver, "2.0.0").protocol(2, 3).make();
    let bundle = desk.release("2.0.0", &[&transmitter, &receiver]);
    desk.update(&bundle).succeeds();
    desk.assert_runs(&[receiver, transmitter]);
}

/// The same by the oldest version that an image talks to.
#[test]
fn l1_a_release_of_one_role_that_wants_a_newer_peer_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let receiver = firmware(Receiver, "1.2.0").talks_to("1.1.0").make();
    let bundle = Forgery::new("1.2.0", &[&receiver]).sign(&desk, "a.key").bytes();
    let answer = desk.post(&bundle);
    answer.refuses(422, "refused", "1.1.0");
    assert_eq!(answer.refusals(), ["incompatible"]);
    desk.assert_untouched(&before);
}
