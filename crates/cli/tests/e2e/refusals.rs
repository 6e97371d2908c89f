//! Bad input, and what it gets: a clear refusal at the earliest point, nobody rebooted, nothing
//! lost.
//!
//! The earliest point is the command, which sends nothing then. Since there are other clients than
//! our command, each is also handed to the lead as it is; and what the lead lets pass, a member has
//! to refuse by itself.

use lockstep_proto::image::ChipId;

use super::desk::{BOTH, Desk, Forgery, Image, PASSWORD, Plan, Receiver, Transmitter, firmware};

/// Nobody listens there: a command that refuses all the same has not asked any device.
const NOBODY: &str = "--device 127.0.0.1:1 --password none";

/// After whatever went wrong, a good release is kept as if nothing had happened.
#[track_caller]
fn assert_can_be_updated(desk: &Desk, version: &str) {
    let (images, bundle) = desk.good_release(version, "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

fn good_images(version: &str) -> [Image; 2] {
    BOTH.map(|role| firmware(role, version).make())
}

/// One flipped bit in an artifact. The command sees it without a device; the lead sees it before
/// anybody else has the artifact, and the rollout that had begun is reverted.
#[test]
fn a_corrupt_image_is_refused_and_nobody_reboots() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, name) = desk.good_release("1.1.0", "");
    let mut bundle = desk.read(&name);
    let middle = bundle.len() / 4;
    bundle[middle] ^= 0x10;
    desk.write("bad.lockstep", &bundle);
    desk.lockstep(&format!("update bad.lockstep {NOBODY}"))
        .fails()
        .says("`bad.lockstep` is not a good bundle")
        .says("`transmitter.bin` has the SHA-256")
        .says("Nothing was sent to the device.");
    desk.post(&bundle).refuses(422, "bad-artifact", "artifact of `transmitter`");
    let settled = desk.wait_settled();
    assert_eq!(settled["verdict"], "revert");
    assert_eq!(settled["cause"]["code"], "bad-upload");
    desk.assert_untouched(&before);
    assert_can_be_updated(&desk, "1.1.1");
}

/// The lead's own artifact comes last, when the transmitter has staged already: nobody activates.
#[test]
fn a_corrupt_image_of_the_lead_is_refused_and_nobody_reboots() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, name) = desk.good_release("1.1.0", "");
    let mut bundle = desk.read(&name);
    let middle = bundle.len() * 3 / 4;
    bundle[middle] ^= 0x10;
    desk.post(&bundle).refuses(422, "bad-artifact", "artifact of `receiver`");
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    desk.assert_untouched(&before);
    assert_can_be_updated(&desk, "1.1.1");
}

/// A file that was cut off. The command sees it without a device; the lead when nothing more comes.
#[test]
fn a_truncated_bundle_is_refused_and_nothing_is_lost() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, name) = desk.good_release("1.1.0", "");
    let bundle = desk.read(&name);
    let half = &bundle[..bundle.len() / 2];
    desk.write("half.lockstep", half);
    desk.lockstep(&format!("update half.lockstep {NOBODY}"))
        .fails()
        .says("`bundle` ends at byte")
        .says("The file was cut off.")
        .says("Nothing was sent to the device.");
    desk.post(half).refuses(400, "bad-bundle", "`bundle` ends at byte");
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    desk.assert_untouched(&before);
    assert_can_be_updated(&desk, "1.1.0");
}

/// The chip stands in the first bytes of an image (L8): known to the command for the lead, which it
/// asks, and to the lead for everybody.
#[test]
fn l8_an_image_for_another_chip_is_refused_before_a_sector_is_erased() {
    let desk = Desk::new();
    let before = desk.seen();
    let receiver = firmware(Receiver, "1.1.0").chip(ChipId::ESP32_C3).make();
    let transmitter = firmware(Transmitter, "1.1.0").chip(ChipId::ESP32_C3).make();
    let [good_receiver, good_transmitter] = good_images("1.1.0");

    let bundle = desk.release("1.1.0", &[&good_transmitter, &receiver]);
    desk.update(&bundle)
        .fails()
        .says("The image for the lead is for chip ESP32-C3")
        .says("is ESP32-S3");
    let answer = desk.post(&desk.read(&bundle));
    answer.refuses(422, "refused", "image for `receiver` is for chip `ESP32-C3`");
    assert_eq!(answer.refusals(), ["wrong-chip"]);

    let bundle = desk.release("1.1.0", &[&transmitter, &good_receiver]);
    desk.update(&bundle)
        .fails()
        .says("image for `transmitter` is for chip `ESP32-C3`, the device has `ESP32`");
    // Preflight refused: there was no rollout.
    assert!(desk.rollout().is_none() && desk.history().is_empty());
    desk.assert_untouched(&before);
}

/// A manifest that says what the devices are, and images that are for something else: whoever
/// stages looks into the image itself.
#[test]
fn l8_a_manifest_that_lies_about_the_chip_does_not_get_past_the_image() {
    let desk = Desk::new();
    let before = desk.seen();
    let [receiver, _] = good_images("1.1.0");
    let transmitter = firmware(Transmitter, "1.1.0").chip(ChipId::ESP32_C3).make();
    let bundle = Forgery::new("1.1.0", &[&transmitter, &receiver])
        .edit("\"ESP32-C3\"", "\"ESP32\"")
        .sign(&desk, "a.key")
        .bytes();
    desk.write("lie.lockstep", &bundle);
    desk.lockstep(&format!("update lie.lockstep {NOBODY}"))
        .fails()
        .says("`transmitter.bin` has the chip ESP32-C3, the manifest says ESP32");
    desk.post(&bundle);
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    desk.assert_untouched(&before);
    assert_can_be_updated(&desk, "1.1.1");
}

/// Right chip, wrong board (L9): a name inside the image decides, not the name of a file.
#[test]
fn l9_an_image_that_says_it_is_for_the_other_role_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let wrong = firmware(Transmitter, "1.1.0").says_it_is(Receiver).make();
    let [receiver, _] = good_images("1.1.0");
    desk.write("wrong.bin", &wrong.bytes);
    let create = "release create --version 1.1.0 --key a.key -o wrong.lockstep";
    desk.lockstep(&format!("{create} --transmitter wrong.bin"))
        .fails()
        .says("`wrong.bin` is firmware for the role `receiver`, given for `transmitter`");
    desk.lockstep(&format!("update --transmitter wrong.bin {NOBODY}"))
        .fails()
        .says("`wrong.bin` is firmware for the role `receiver`, given for `transmitter`");

    let bundle = Forgery::new("1.1.0", &[&wrong, &receiver]).sign(&desk, "a.key").bytes();
    desk.write("wrong.lockstep", &bundle);
    desk.lockstep(&format!("update wrong.lockstep {NOBODY}"))
        .fails()
        .says("`transmitter.bin` has the role `receiver`, the manifest says `transmitter`");
    desk.post(&bundle);
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    desk.assert_untouched(&before);
    assert_can_be_updated(&desk, "1.1.1");
}

/// Just over the slot (L15): refused with both numbers, before anything is written.
#[test]
fn l15_an_image_larger_than_the_slot_is_refused_with_both_numbers() {
    let desk = Desk::new();
    let before = desk.seen();
    let receiver = firmware(Receiver, "1.1.0").size(SLOT_BYTES + 16).make();
    let transmitter = firmware(Transmitter, "1.1.0").size(SLOT_BYTES + 4096).make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    desk.update(&bundle)
        .fails()
        .says("image for `receiver` has 1966096 bytes, its slot 1966080")
        .says("image for `transmitter` has 1970176 bytes, its slot 1966080");
    let answer = desk.post(&desk.read(&bundle));
    answer.refuses(422, "refused", "1966080");
    assert!(answer.refusals().contains(&"too-large"), "{:?}", answer.refusals());
    assert!(desk.rollout().is_none());
    desk.assert_untouched(&before);
}

/// A download that failed leaves a web page under the firmware's name (L30).
#[test]
fn l30_a_web_page_saved_as_firmware_is_refused_by_name() {
    let desk = Desk::new();
    let before = desk.seen();
    let page = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>".repeat(400);
    desk.write("firmware.bin", &page);
    desk.write("release.lockstep", &page);
    desk.lockstep(&format!("update --receiver firmware.bin {NOBODY}"))
        .fails()
        .says("is a web page (HTML)")
        .says("A download that failed often leaves a web page");
    desk.lockstep(&format!("update release.lockstep {NOBODY}"))
        .fails()
        .says("`release.lockstep` is not a good bundle")
        .says("no tar header");
    desk.post(&page).refuses(400, "bad-bundle", "no tar header");
    assert!(desk.rollout().is_none());

    // As an artifact of a bundle whose manifest is good.
    let images = good_images("1.1.0");
    let page = &page[..page.len() / 16 * 16];
    let mut padded = page.to_vec();
    padded.resize(images[1].bytes.len(), b' ');
    let bundle = Forgery::new("1.1.0", &[&images[1], &images[0]])
        .artifact(Transmitter, &padded)
        .sign(&desk, "a.key")
        .bytes();
    desk.post(&bundle).refuses(422, "bad-artifact", "artifact of `transmitter`");
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    desk.assert_untouched(&before);
}

/// A manifest that was changed after it was signed.
#[test]
fn a_bad_signature_is_refused_before_anything_is_asked_of_a_member() {
    let desk = Desk::new();
    let before = desk.seen();
    let [receiver, transmitter] = good_images("1.1.0");
    let bundle = Forgery::new("1.1.0", &[&transmitter, &receiver])
        .sign(&desk, "a.key")
        .edit("\"sequence\": 0", "\"sequence\": 9")
        .bytes();
    desk.write("changed.lockstep", &bundle);
    desk.lockstep("release verify changed.lockstep --key a.pub").fails();
    desk.update("changed.lockstep").fails().says("signature");
    desk.post(&bundle).refuses(403, "untrusted", "signature");
    assert!(desk.rollout().is_none() && desk.history().is_empty());
    desk.assert_untouched(&before);
}

/// A release that nobody signed, for devices that have a key; a bare image is one of that kind.
#[test]
fn a_missing_signature_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let [receiver, transmitter] = good_images("1.1.0");
    let bundle = desk.release_with("1.1.0", &[&transmitter, &receiver], "--unsigned");
    desk.update(&bundle).fails().says("`manifest` is not signed");
    desk.post(&desk.read(&bundle)).refuses(403, "untrusted", "`manifest` is not signed");
    desk.write("receiver.bin", &receiver.bytes);
    desk.update("--receiver receiver.bin").fails().says("`manifest` is not signed");
    assert!(desk.rollout().is_none());
    desk.assert_untouched(&before);
}

/// Signed well, by somebody else: both keys are named.
#[test]
fn an_unknown_key_is_refused_with_both_ids() {
    let desk = Desk::new();
    let before = desk.seen();
    desk.lockstep("keygen --no-password --out stranger").succeeds();
    let [receiver, transmitter] = good_images("1.1.0");
    let bundle = desk.release_with("1.1.0", &[&transmitter, &receiver], "--key stranger.key");
    let answer = desk.post(&desk.read(&bundle));
    answer.refuses(403, "untrusted", "`manifest` is signed by key");
    let (_, message, _) = answer.error();
    for key in ["a.pub", "stranger.pub"] {
        let text = String::from_utf8(desk.read(key)).unwrap();
        let id = text.split_whitespace().find(|word| word.len() == 16).unwrap().to_owned();
        assert!(message.contains(&id), "`{id}` is not in `{message}`");
    }
    desk.update(&bundle).fails().says("is signed by key");
    desk.assert_untouched(&before);
}

/// A member is provisioned with another key than the lead: it refuses by itself, and the lead takes
/// everybody back, itself too.
#[test]
fn a_member_that_does_not_trust_the_release_stops_it_for_all() {
    // Both keys exist before the devices do: the fixture's key is `a`, this one is from elsewhere.
    let other = Desk::new();
    let key = other.path("a.pub").display().to_string();
    let desk = Plan::default().with(Transmitter, &format!("--key {key}")).start();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle)
        .fails()
        .says("release has 0 good signatures, this device needs 1")
        .says("02:00:00:00:00:02");
    let settled = desk.wait_settled();
    assert_eq!(settled["verdict"], "revert");
    assert_eq!(settled["cause"]["code"], "refused");
    assert_eq!(settled["cause"]["member"], "02:00:00:00:00:02");
    desk.assert_untouched(&before);
}

/// Once a release of a higher epoch has been kept for a while, an older epoch is refused for ever,
/// however new its version looks.
#[test]
fn a_lower_epoch_is_refused_after_a_higher_one_was_kept() {
    let desk = Desk::new();
    let images = BOTH.map(|role| firmware(role, "1.1.0").epoch(3).make());
    let bundle = desk.release("1.1.0", &[&images[1], &images[0]]);
    desk.update(&bundle).succeeds();
    desk.wait("the epoch is raised on both", || {
        let is_raised = |role| desk.http(role).get("/api/version")?.json["epoch"].as_u64();
        BOTH.iter().all(|&role| is_raised(role) == Some(3)).then_some(())
    });
    desk.assert_runs(&images);
    let before = desk.seen();
    let (_, bundle) = desk.good_release("9.0.0", "");
    desk.update(&bundle).fails().says("The release is of epoch 0").says("takes none below 3");
    let answer = desk.post(&desk.read(&bundle));
    answer.refuses(422, "refused", "release has epoch 0, `receiver` needs at least 3");
    desk.assert_untouched(&before);
}

/// Identity is the hash; a version is a label (L25). The same label on other bytes is refused, and
/// what runs already is not installed again.
#[test]
fn l25_the_same_version_with_another_hash_is_refused() {
    let desk = Desk::new();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    let before = desk.seen();
    desk.update(&bundle).fails().says("no device would change");

    let again = BOTH.map(|role| firmware(role, "1.1.0").build(2).make());
    let bundle = desk.release("1.1.0", &[&again[1], &again[0]]);
    let said = desk.update(&bundle);
    said.fails().says("give the new build a new version");
    for (old, new) in images.iter().zip(&again) {
        said.says(&old.hash[..8]).says(&new.hash[..8]);
    }
    let answer = desk.post(&desk.read(&bundle));
    answer.refuses(422, "refused", "runs version 1.1.0 as image");
    assert_eq!(answer.refusals(), ["same-version-other-image"; 2]);
    desk.assert_untouched(&before);
}

/// Two images that would not talk to each other (L1) never become a release; a bundle that was made
/// by other means is refused by the lead.
#[test]
fn l1_an_incompatible_pair_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let receiver = firmware(Receiver, "2.0.0").protocol(2, 2).make();
    let transmitter = firmware(Transmitter, "2.0.0").protocol(1, 1).make();
    desk.write("receiver.bin", &receiver.bytes);
    desk.write("transmitter.bin", &transmitter.bytes);
    let pair = "--receiver receiver.bin --transmitter transmitter.bin";
    let refusal = "transmitter speaks protocol 1, receiver 2: none that both speak";
    desk.lockstep(&format!("release create --version 2.0.0 --key a.key -o x.lockstep {pair}"))
        .fails()
        .says(refusal);
    desk.lockstep(&format!("update {pair} {NOBODY}")).fails().says(refusal);

    let compatible = firmware(Transmitter, "2.0.0").protocol(2, 2).make();
    let bundle = Forgery::new("2.0.0", &[&compatible, &receiver])
        .edit_entry(Transmitter, "\"protocol_version\": 2", "\"protocol_version\": 1")
        .edit_entry(Transmitter, "[2, 2]", "[1, 1]")
        .sign(&desk, "a.key")
        .bytes();
    let answer = desk.post(&bundle);
    answer.refuses(422, "refused", "would not understand each other");
    assert_eq!(answer.refusals(), ["incompatible"]);
    assert!(desk.rollout().is_none());
    desk.assert_untouched(&before);
}

/// One rollout at a time: the second one is told which one runs, and the first one is not
/// disturbed.
#[test]
fn a_second_rollout_is_refused_with_the_id_of_the_first() {
    let desk = Plan::default().with(Transmitter, "--not-now").start();
    let before = desk.seen();
    let (_, first) = desk.good_release("1.1.0", "");
    let (_, second) = desk.good_release("1.2.0", "");
    let running = desk.begin_update(&first);
    let id = desk.wait_phase("rest")["id"].as_str().unwrap().to_owned();
    let answer = desk.post(&desk.read(&second));
    answer.refuses(409, "busy", &id);
    assert_eq!(answer.json["rollout"], id.as_str());
    desk.update(&second).fails().says(&id).says("is still running");
    assert_eq!(desk.wait_settled()["id"], id.as_str());
    assert_eq!(running.end().code, Some(1));
    desk.assert_untouched(&before);
}

/// Orders need the password; the answer says how to give it, and nothing was begun (L27).
#[test]
fn l27_a_wrong_password_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    let device = desk.board(Receiver).address().to_owned();
    desk.lockstep(&format!("update {bundle} --device {device} --password wrong"))
        .fails()
        .says("does not take this password")
        .says("LOCKSTEP_PASSWORD");
    desk.lockstep(&format!("update {bundle} --device {device}")).fails().says("needs a password");
    let wrong = desk.lead().with_password("wrong");
    for path in ["/api/rollout", "/api/rollout/abort", "/api/rollout/revert"] {
        let answer = wrong.post(path, &[]);
        answer.refuses(401, "unauthorized", "password");
        assert!(answer.head.contains("WWW-Authenticate: Basic realm=\"lockstep\""));
    }
    assert!(desk.rollout().is_none());
    desk.assert_untouched(&before);
    assert!(!desk.consoles().contains(PASSWORD), "a password belongs on no console");
}

/// A bundle handed to a member: it names the lead.
#[test]
fn a_device_that_does_not_lead_refuses_and_names_the_lead() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    let device = desk.board(Transmitter).address().to_owned();
    desk.lockstep(&format!("update {bundle} --device {device} --password-file password"))
        .fails()
        .says("is not the lead of its group");
    desk.http(Transmitter).post("/api/rollout", &desk.read(&bundle)).refuses(
        404,
        "not-the-lead",
        "does not conduct",
    );
    desk.assert_untouched(&before);
}

/// The artifacts of others pass through the lead's slot, so its own comes last.
#[test]
fn a_bundle_with_the_leads_artifact_first_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let [receiver, transmitter] = good_images("1.1.0");
    let bundle = Forgery::new("1.1.0", &[&receiver, &transmitter]).sign(&desk, "a.key").bytes();
    desk.post(&bundle).refuses(400, "bad-bundle", "comes before that of `transmitter`");
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    desk.assert_untouched(&before);
}

/// A member without power is found before anybody is touched (L22).
#[test]
fn l22_a_member_that_is_off_is_found_before_anybody_is_touched() {
    let mut desk = Desk::new();
    let before = desk.seen();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.board_mut(Transmitter).kill();
    desk.update(&bundle)
        .fails()
        .says("`transmitter` did not answer within 3000 ms")
        .says("switch the device on");
    assert!(desk.rollout().is_none());
    assert_eq!(desk.seen_of(Receiver), before[0]);
    desk.board_mut(Transmitter).switch_on();
    desk.wait_until_linked();
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// The slots of a desk device.
const SLOT_BYTES: u32 = 0x1E_0000;
