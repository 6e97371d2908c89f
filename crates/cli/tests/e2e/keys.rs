//! Keys over time: a lost or stolen key must not be the end of updates.

use super::desk::{BOTH, Desk, Plan, Transmitter, firmware};

/// A release signed by the present key carries the next one (L29): from then on the next one
/// counts, and the old one does not.
#[test]
fn l29_a_signed_release_replaces_the_keys() {
    let desk = Desk::new();
    desk.lockstep("keygen --no-password --out b").succeeds();
    let (images, bundle) = desk.good_release("1.1.0", "--next-keys b.pub");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);

    let before = desk.seen();
    let next = BOTH.map(|role| firmware(role, "1.2.0").make());
    let by_a = desk.release_with("1.2.0", &[&next[1], &next[0]], "--key a.key");
    desk.update(&by_a).fails().says("is signed by key");
    desk.post(&desk.read(&by_a)).refuses(403, "untrusted", "is signed by key");
    desk.assert_untouched(&before);

    // The members have changed their keys as well, or one of them would refuse.
    let by_b = desk.release_with("1.2.0", &[&next[1], &next[0]], "--key b.key");
    desk.update(&by_b).succeeds();
    desk.assert_runs(&next);
}

/// A release that is reverted changes no keys: they belong to what was kept.
#[test]
fn keys_of_a_reverted_release_are_not_taken() {
    let desk = Desk::new();
    desk.lockstep("keygen --no-password --out b").succeeds();
    let fault = lockstep_sim::firmware::Fault::CrashAtBoot;
    let bad = firmware(Transmitter, "1.1.0").fault(fault).make();
    let bundle = desk.release_with("1.1.0", &[&bad], "--key a.key --next-keys b.pub");
    desk.update(&bundle).fails();
    desk.assert_runs(&desk.first);
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// Two of two: one signature is not enough, two are.
#[test]
fn a_device_with_two_keys_wants_both_signatures() {
    let other = Desk::new();
    let second = other.path("a").display().to_string();
    let keys = format!("--key a.pub --key {second}.pub");
    let plan = BOTH.iter().fold(Plan::default(), |plan, &role| plan.with(role, &keys));
    let desk = plan.start();
    let before = desk.seen();
    let images = BOTH.map(|role| firmware(role, "1.1.0").make());
    let pair = [&images[1], &images[0]];
    let bundle = desk.release("1.1.0", &pair);
    desk.update(&bundle).fails().says("is signed by 1 trusted keys, expected 2");
    desk.assert_untouched(&before);
    let options = format!("--key a.key --key {second}.key");
    let bundle = desk.release_with("1.1.0", &pair, &options);
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// A device that has a key and was told to take unsigned releases takes both kinds.
#[test]
fn a_device_that_allows_unsigned_releases_takes_a_bare_image() {
    let plan = BOTH.iter().fold(Plan::default(), |plan, &role| plan.with(role, "--allow-unsigned"));
    let desk = plan.start();
    let images = BOTH.map(|role| firmware(role, "1.1.0").make());
    desk.write("receiver.bin", &images[0].bytes);
    desk.write("transmitter.bin", &images[1].bytes);
    desk.update("--receiver receiver.bin --transmitter transmitter.bin").succeeds();
    desk.assert_runs(&images);
}
