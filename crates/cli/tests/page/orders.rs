//! What a person orders besides an update: go back, stop.

use lockstep_sim::firmware::Fault;

use crate::desk::{Desk, PASSWORD, Plan, Receiver, Transmitter, firmware};
use crate::view::View;

#[test]
fn a_kept_release_is_reverted_after_it_was_asked_whether_that_is_meant() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    view.wait_text("revertWhy", "no kept rollout");
    let (_, bundle) = desk.good_release("1.1.0", "");
    view.update(&bundle);
    view.click("revertBtn");
    view.wait_dialog("ask");
    view.browser.picture("ask");
    view.browser.click("askOk");
    // The password is known by now.
    view.wait_text("verdict", "Back: receiver and transmitter run 1.0.0");
    desk.assert_runs(&desk.first);
    view.wait_text("receiverVersion", "1.0.0");
    view.wait("both stand in the history", || {
        let text = view.text("history");
        (text.contains("back") && text.contains("forward")).then_some(())
    });
    view.assert_clean();
}

/// Why it failed stands there in words, with the role and not the address.
#[test]
fn a_release_that_crashes_is_shown_as_reverted_with_its_cause() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let crashing = firmware(Transmitter, "1.1.0").fault(Fault::CrashAtBoot).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&crashing, &receiver]);
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    let said = view.wait_text("verdict", "every device runs 1.0.0");
    assert!(said.contains("Reverted") && said.contains("transmitter fell back"), "{said}");
    desk.assert_runs(&desk.first);
    view.wait_text("history", "revert");
    view.browser.picture("reverted");
    view.assert_clean();
}

#[test]
fn a_rollout_is_aborted_after_it_was_asked_whether_that_is_meant() {
    let mut desk = Desk::new();
    desk.board_mut(Receiver).order("impair loss=60");
    let before = desk.seen();
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    let Some(view) = View::open_at(&desk, Receiver) else { return };
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    view.wait("it is staging", || {
        let script = "return document.querySelector('[aria-current]')?.textContent";
        (view.browser.run(script, Vec::new()) == "Staging").then_some(())
    });
    view.browser.click("abortBtn");
    view.wait_dialog("ask");
    view.browser.click("askOk");
    let said = view.wait_text("verdict", "every device runs 1.0.0");
    assert!(said.contains("aborted on request"), "{said}");
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// Uploads a bundle whose rollout waits, and names a time for it once all have staged.
fn stage_for_later(view: &View, bundle: &str) {
    view.choose("bundleFile", bundle);
    view.browser.click("autoReboot");
    view.wait_text("holdInfo", "wait until you say when");
    view.press("updateBothBtn");
    view.wait_text("transmitterProgressText", "staged");
    view.wait_text("holdText", "Nobody restarts until you say so");
    set_a_time(view);
    view.wait_text("holdText", "Starts at");
}

/// Staged everywhere, and nobody restarts: until the time that was set, or until somebody says so.
#[test]
fn a_rollout_that_waits_goes_on_when_somebody_says_so() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    stage_for_later(&view, &bundle);
    view.browser.picture("scheduled");
    view.browser.click("unschedBtn");
    view.wait_text("holdText", "Nobody restarts until you say so");
    assert_eq!(desk.seen().map(|seen| seen.boot_number), [1, 1]);
    view.browser.click("startBtn");
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&images);
    view.assert_clean();
}

/// A lead without the time that lost power does not know how much of the hour is left.
#[test]
fn a_time_that_the_lead_has_lost_is_said_and_can_be_set_anew() {
    let mut desk = Plan::default().with(Receiver, "--no-clock").start();
    let Some(view) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    stage_for_later(&view, &bundle);
    desk.board_mut(Receiver).kill();
    view.wait_text("conn", "Connection lost");
    desk.board_mut(Receiver).switch_on();
    view.wait_text("holdText", "The lead lost power and the time that was set");
    view.browser.picture("schedule-lost");
    set_a_time(&view);
    view.wait_text("holdText", "Starts at");
    view.browser.click("startBtn");
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&images);
    view.assert_clean();
}

/// In an hour, by the browser's clock.
fn set_a_time(view: &View) {
    let script = "const t = new Date(Date.now() + 36e5 - new Date().getTimezoneOffset() * 6e4);
        document.getElementById('when').value = t.toISOString().slice(0, 16);
        document.querySelector('#schedForm button').click()";
    view.browser.run(script, Vec::new());
}

#[test]
fn the_password_is_changed_with_the_present_one() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    view.open_settings();
    let other = "four quite other words";
    view.browser.type_into("newPass", other);
    view.browser.type_into("newPass2", other);
    view.browser.press_keys("\u{e007}");
    view.give_password(PASSWORD);
    view.wait_text("moreSaid", "Changed");
    view.browser.picture("settings");
    assert_eq!(desk.lead().post("/api/rollout/abort", &[]).status, 401);
    let status = desk.lead().with_password(other).post("/api/rollout/abort", &[]).status;
    assert_eq!(status, 409);
    view.assert_clean();
}
