//! What a person does to a rollout, during it and afterwards: abort, revert, look back.

use super::desk::{Desk, Http, Receiver, Transmitter, firmware};

/// Both still hold the former images in their other slots: nothing is sent.
#[test]
fn a_kept_release_is_reverted_without_a_download() {
    let desk = Desk::new();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    let kept = desk.wait_settled()["id"].clone();
    desk.ask_lead("revert").succeeds().says("Back on 1.0.0");
    desk.assert_runs(&desk.first);
    let settled = desk.wait_settled();
    assert_ne!(settled["id"], kept, "a revert is a rollout of its own");
    assert_eq!((&settled["kind"], &settled["verdict"]), (&"back".into(), &"keep".into()));
    for member in settled["members"].as_array().unwrap() {
        assert_eq!(member["size_bytes"], 0, "nothing is to be sent: {member}");
    }
}

/// Where there is nothing to go back to, it is said so.
#[test]
fn a_group_that_kept_nothing_has_nothing_to_revert() {
    let desk = Desk::new();
    let before = desk.seen();
    desk.ask_lead("revert").fails().says("there is no kept release to go back from");
    desk.ask_lead("abort").fails().says("no rollout is running");
    desk.assert_untouched(&before);
}

#[test]
fn an_abort_in_staging_leaves_everybody_where_they_are() {
    let mut desk = Desk::new();
    let before = desk.seen();
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    // The transfer takes a while.
    desk.board_mut(Receiver).order("impair loss=60");
    let mark = desk.board(Receiver).mark();
    let update = desk.begin_update(&bundle);
    desk.board(Receiver).wait_entered(mark, "staging");
    desk.ask_lead("abort").succeeds().says("Stopped: every device runs what it ran before");
    update.end().fails().says("aborted on request");
    assert_eq!(desk.wait_settled()["cause"]["code"], "aborted");
    desk.assert_untouched(&before);
    desk.board_mut(Receiver).order("impair none");
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// A member that is gone for good stops every rollout, until a person takes it off the list.
#[test]
fn a_member_that_is_gone_for_good_is_removed_and_comes_back_when_it_speaks() {
    let mut desk = Desk::new();
    desk.ask_lead("group list").succeeds().says("receiver (lead)").says("transmitter");
    let id = "02:00:00:00:00:02";
    desk.ask_lead(&format!("group remove {id}")).fails().says("was heard").says("switch it off");
    desk.board_mut(Transmitter).kill();
    let images = [firmware(Receiver, "1.1.0").make(), desk.first[1].clone()];
    let bundle = desk.release("1.1.0", &[&images[0]]);
    desk.update(&bundle).fails().says("did not answer").says("lockstep group remove");
    desk.wait("the lead lets go of it", || {
        (desk.ask_lead(&format!("group remove {id}")).code == Some(0)).then_some(())
    });
    desk.update(&bundle).succeeds();
    desk.board_mut(Transmitter).switch_on();
    desk.wait_until_linked();
    desk.assert_runs(&images);
    desk.wait("it is a member again", || {
        desk.ask_lead("group list").text.contains("transmitter").then_some(())
    });
}

/// A new board is taken in by whoever knows its password, and stays in over a power cut.
#[test]
fn a_new_device_is_adopted_and_updated_with_the_others() {
    let desk = Desk::new();
    let mut new = desk.new_board_without_key("02:00:00:00:00:03", "its own four words");
    new.switch_on();
    let id = "02:00:00:00:00:03";
    desk.wait("it is seen", || {
        desk.ask_lead("group list").text.contains("without this group's key").then_some(())
    });
    desk.write("wrong", b"something else");
    let adopt = format!("group adopt {id} --its-password-file");
    desk.ask_lead(&format!("{adopt} wrong"))
        .fails()
        .says("the password is not its password")
        .says("of that device, not of the lead");
    desk.ask_lead(&format!("{adopt} its-password")).succeeds().says("`transmitter` belongs to");
    desk.ask_lead(&format!("{adopt} its-password")).fails().says("belongs to the group already");

    new.kill();
    new.switch_on();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.wait("it is heard again", || {
        let text = desk.ask_lead("group list").text;
        text.lines().any(|line| line.contains(id) && line.ends_with("up")).then_some(())
    });
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    let running = Http::new(new.address(), "").get("/api/version").unwrap().json;
    let others = desk.http(Transmitter).get("/api/version").unwrap().json;
    assert_eq!(running["image"], others["image"]);
}

/// On trial an abort reboots: back to the images of before.
#[test]
fn an_abort_in_trial_takes_both_back() {
    let desk = Desk::new();
    let receiver = firmware(Receiver, "1.1.0").make();
    let fault = lockstep_sim::firmware::Fault::NeverHealthy;
    let transmitter = firmware(Transmitter, "1.1.0").fault(fault).make();
    let options = "--key a.key --health-timeout 60";
    let bundle = desk.release_with("1.1.0", &[&transmitter, &receiver], options);
    let update = desk.begin_update(&bundle);
    desk.wait("both are on trial", || {
        desk.seen().iter().all(|seen| seen.is_on_trial).then_some(())
    });
    desk.ask_lead("abort").succeeds().says("Stopped: every device runs what it ran before");
    update.end().fails().says("aborted on request");
    desk.assert_runs(&desk.first);
}

/// A verdict is final: an abort that comes later is refused, and offers the way that there is.
#[test]
fn an_abort_after_the_verdict_is_refused_and_offers_a_revert() {
    let mut desk = Desk::new();
    let (images, bundle) = desk.good_release("1.1.0", "");
    let mark = desk.board(Receiver).mark();
    let update = desk.begin_update(&bundle);
    // With a slow radio settling takes long enough to be met.
    desk.board(Receiver).wait_entered(mark, "trial");
    desk.board_mut(Transmitter).order("impair delay=400");
    desk.board(Receiver).wait_entered(mark, "settling");
    let answer = desk.lead().post("/api/rollout/abort", &[]);
    answer.refuses(409, "verdict-is-final", "is final");
    let (_, _, hint) = answer.error();
    assert!(hint.contains("lockstep revert"), "{hint}");
    update.end().succeeds();
    desk.assert_runs(&images);
    desk.board_mut(Transmitter).order("impair none");
    desk.ask_lead("abort").fails().says("no rollout is running");
}

/// Every rollout that began is in the history, the newest first, with its verdict and its cause;
/// and the history survives a power cut.
#[test]
fn the_history_lists_all_rollouts_with_their_causes() {
    let mut desk = Desk::new();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    let fault = lockstep_sim::firmware::Fault::CrashAtBoot;
    let crashing = firmware(Transmitter, "1.2.0").fault(fault).make();
    let receiver = firmware(Receiver, "1.2.0").make();
    let bundle = desk.release("1.2.0", &[&crashing, &receiver]);
    desk.update(&bundle).fails();
    let (images, bundle) = desk.good_release("1.3.0", "");
    desk.update(&bundle).succeeds();
    desk.board_mut(Receiver).kill();
    desk.board_mut(Receiver).switch_on();
    desk.assert_runs(&images);
    let history = desk.history();
    let told: Vec<_> = history
        .iter()
        .map(|past| {
            let text = |name: &str| past[name].as_str().unwrap_or_default().to_owned();
            (text("release"), text("verdict"), past["cause"]["code"].clone())
        })
        .collect();
    let entry = |release: &str, verdict: &str, cause: serde_json::Value| {
        (release.to_owned(), verdict.to_owned(), cause)
    };
    assert_eq!(
        told,
        [
            entry("1.3.0", "keep", serde_json::Value::Null),
            entry("1.2.0", "revert", "fell-back".into()),
            entry("1.1.0", "keep", serde_json::Value::Null),
        ]
    );
    desk.ask_lead("history")
        .succeeds()
        .says("02:00:00:00:00:02 fell back to its old image")
        .says("revert");
}

/// After a revert by verdict the images of the failed release lie in the other slots: they are no
/// way back, and nobody gets there by `revert`.
#[test]
fn a_release_that_was_reverted_cannot_be_reverted_to() {
    let desk = Desk::new();
    let fault = lockstep_sim::firmware::Fault::CrashAtBoot;
    let crashing = firmware(Transmitter, "1.1.0").fault(fault).make();
    let bundle = desk.release("1.1.0", &[&crashing]);
    desk.update(&bundle).fails();
    let before = desk.seen();
    desk.ask_lead("revert").fails().says("there is no kept release to go back from");
    desk.assert_untouched(&before);
}
