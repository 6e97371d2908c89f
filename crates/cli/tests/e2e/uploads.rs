//! Uploads that are cut (L13, L14): the device says where to go on, in bytes that it has.

use serde_json::Value;

use super::desk::{Desk, PASSWORD, Part, Plan, Receiver, Transmitter, firmware};

/// Sends the first `sent` bytes, waits until the lead has all of them, and cuts the connection.
fn cut_upload(desk: &Desk, bundle: &[u8], sent: usize) -> u64 {
    let stream = desk.lead().begin_upload(Part { bundle, from: 0, sent });
    let offset = desk.wait("the lead has what was sent", || {
        let upload = desk.rollout()?["upload"].take();
        let next = upload["next_offset"].as_u64()?;
        (next == sent as u64).then_some(next)
    });
    drop(stream);
    offset
}

fn next_offset(rollout: &Value) -> usize {
    rollout["upload"]["next_offset"].as_u64().map_or(0, |at| at.try_into().unwrap())
}

/// In the same boot it goes on at the very byte; and what is sent from anywhere else is refused.
#[test]
fn l13_a_cut_upload_goes_on_at_the_byte_that_the_device_names() {
    let desk = Desk::new();
    let (images, name) = desk.good_release("1.1.0", "");
    let bundle = desk.read(&name);
    // In the middle of the transmitter's image, and not at a round number.
    let sent = bundle.len() / 3 + 7;
    assert_eq!(cut_upload(&desk, &bundle, sent), sent as u64);
    let wrong = desk.lead().resume(&bundle, sent - 1);
    wrong.refuses(409, "wrong-offset", &format!("the device is at {sent}"));
    assert_eq!(desk.lead().resume(&bundle, sent).status, 202);
    desk.assert_runs(&images);
    assert_eq!(desk.history().len(), 1, "it was one rollout all the time");
}

/// The same in the lead's own image, behind the transmitter's.
#[test]
fn l13_a_cut_upload_goes_on_in_the_leads_own_image() {
    let desk = Desk::new();
    let (images, name) = desk.good_release("1.1.0", "");
    let bundle = desk.read(&name);
    let sent = bundle.len() * 3 / 4;
    cut_upload(&desk, &bundle, sent);
    assert_eq!(desk.lead().resume(&bundle, sent).status, 202);
    desk.assert_runs(&images);
}

/// A power cut of the lead loses less than the artifact that was on its way.
#[test]
fn l13_a_cut_upload_goes_on_after_a_power_cut_of_the_lead() {
    for share in [3, 6] {
        let mut desk = Desk::new();
        let (images, name) = desk.good_release("1.1.0", "");
        let bundle = desk.read(&name);
        let sent = bundle.len() * share / 8;
        cut_upload(&desk, &bundle, sent);
        desk.board_mut(Receiver).kill();
        desk.board_mut(Receiver).switch_on();
        let rollout = desk.wait_phase("staging");
        let next = next_offset(&rollout);
        assert!(next <= sent, "{next} of {sent}");
        // A person simply gives the same command again.
        desk.update(&name).succeeds();
        desk.assert_runs(&images);
        assert_eq!(desk.history().len(), 1, "it was one rollout all the time");
    }
}

/// Whoever killed the command gives it again: it goes on where the device is.
#[test]
fn l13_the_same_command_goes_on_with_its_upload() {
    let mut desk = Desk::new();
    let transmitter = firmware(Transmitter, "1.1.0").size(1_900_000).make();
    let receiver = firmware(Receiver, "1.1.0").size(1 << 20).make();
    let name = desk.release("1.1.0", &[&transmitter, &receiver]);
    // The lead is held up in the middle: the rest of the bundle waits at the command.
    desk.board_mut(Receiver).order("impair loss=70");
    let update = desk.begin_update(&name);
    desk.wait("bytes are in flash", || {
        let rollout = desk.rollout()?;
        let staged = rollout["members"][1]["staged_bytes"].as_u64();
        staged.filter(|&bytes| bytes > 0)
    });
    // Nothing gets through while the command is given again.
    desk.board_mut(Receiver).order("impair down");
    update.kill();
    desk.board_mut(Receiver).order("impair none");
    desk.update(&name).succeeds();
    desk.assert_runs(&[receiver, transmitter]);
    assert_eq!(desk.history().len(), 1, "it was one rollout all the time");
}

/// An upload that nobody goes on with is ended by an abort, and a new one begins.
#[test]
fn an_upload_that_is_left_alone_is_aborted_and_the_next_one_is_taken() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, name) = desk.good_release("1.1.0", "");
    let bundle = desk.read(&name);
    cut_upload(&desk, &bundle, bundle.len() / 2);
    let (images, second) = desk.good_release("1.2.0", "");
    desk.update(&second).fails().says("is still running").says("lockstep abort");
    desk.ask_lead("abort").succeeds();
    desk.assert_untouched(&before);
    desk.update(&second).succeeds();
    desk.assert_runs(&images);
}

/// What goes on must be the same bundle: another of the same length is found out by its hashes, and
/// nobody reboots.
#[test]
fn an_upload_that_goes_on_with_another_bundle_is_refused() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, name) = desk.good_release("1.1.0", "");
    let (_, other) = desk.good_release("1.1.1", "");
    let (bundle, other) = (desk.read(&name), desk.read(&other));
    assert_eq!(bundle.len(), other.len());
    let sent = bundle.len() / 4;
    cut_upload(&desk, &bundle, sent);
    desk.lead().resume(&other, sent).refuses(422, "bad-artifact", "artifact of `transmitter`");
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    desk.assert_untouched(&before);
}

/// What a person with nothing but curl does.
#[test]
fn a_bare_image_that_curl_posts_moves_its_role_and_the_other_stays() {
    let desk = Plan::default().without_keys().start();
    let image = firmware(Transmitter, "1.1.0").make();
    desk.write("transmitter.bin", &image.bytes);
    let path = desk.path("transmitter.bin");
    let curl = |option: &str, data: &str| {
        let url = format!("http://{}/ota_upload", desk.board(Receiver).address());
        let user = format!(":{PASSWORD}");
        let said = std::process::Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30", "--user", &user])
            .args([option, data, &url])
            .output()
            .expect("curl is installed");
        String::from_utf8(said.stdout).unwrap()
    };

    let form = curl("--form", &format!("file=@{}", path.display()));
    assert!(form.contains("wrong-type"), "{form}");
    let posted = curl("--data-binary", &format!("@{}", path.display()));
    assert!(posted.contains("rollout"), "{posted}");

    assert_eq!(desk.wait_settled()["verdict"], "keep");
    desk.assert_runs(&[desk.first[0].clone(), image]);
}
