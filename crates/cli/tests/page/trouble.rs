//! Connections that end, and devices that are not the lead.

use crate::desk::{Desk, PASSWORD, Receiver, Transmitter, firmware};
use crate::proxy::Proxy;
use crate::view::View;

#[test]
fn a_lost_connection_is_said_and_recovered_from() {
    let mut desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    desk.board_mut(Receiver).kill();
    view.wait_text("conn", "Connection lost");
    view.wait_text("notes", "trying again");
    view.browser.picture("lost");
    desk.board_mut(Receiver).switch_on();
    view.wait_text("conn", "Live");
    view.wait_text("updateLog", "The connection is back");
    view.assert_clean();
}

/// The lead dies while the bundle is on its way: the page goes on by itself where the lead is.
#[test]
fn an_upload_that_is_cut_goes_on_by_itself() {
    let mut desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    desk.board_mut(Receiver).order("impair loss=40");
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    view.wait_staged(5);
    desk.board_mut(Receiver).kill();
    view.wait_text("notes", "An upload goes on where it was");
    desk.board_mut(Receiver).switch_on();
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&[receiver, transmitter]);
    view.assert_clean();
}

/// A connection that is cut again and again is tried five times; then a person decides.
#[test]
fn an_upload_that_gets_nowhere_waits_for_a_click_and_goes_on_where_the_device_is() {
    let desk = Desk::new();
    let proxy = Proxy::before(desk.board(Receiver).address());
    let Some(view) = View::open_address(&desk, proxy.address()) else { return };
    let bundle = big_release(&desk);
    proxy.cut_uploads_after(400_000);
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    view.wait_text("uploadText", "stopped after 5 attempts");
    view.wait("the button is there", || {
        (view.property("resumeBtn", "hidden") == false).then_some(())
    });
    view.browser.picture("paused");
    assert!(offset(&desk) > 100_000, "what came before the cut is kept");
    proxy.mend();
    view.browser.click("resumeBtn");
    view.wait_text("verdict", "run 1.1.0");
    view.assert_clean();
}

/// Whoever closed the page in the middle opens it again, and is told which file is wanted.
#[test]
fn an_upload_of_a_page_that_was_closed_is_resumed_with_the_same_file() {
    let desk = Desk::new();
    let proxy = Proxy::before(desk.board(Receiver).address());
    let Some(view) = View::open_address(&desk, proxy.address()) else { return };
    let bundle = big_release(&desk);
    let (_, other) = desk.good_release("1.2.0", "");
    proxy.cut_uploads_after(400_000);
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    view.wait_text("uploadText", "cut");
    view.reload();
    proxy.mend();
    view.wait_text("uploadText", "choose the same file to go on");
    view.choose("bundleFile", &other);
    view.browser.click("resumeBtn");
    view.wait_text("refusals", "Choose the same file again");
    view.choose("bundleFile", &bundle);
    let from = offset(&desk);
    view.browser.click("resumeBtn");
    view.give_password(PASSWORD);
    view.wait_text("verdict", "run 1.1.0");
    assert!(from > 100_000, "it went on at {from}");
    view.assert_clean();
}

fn big_release(desk: &Desk) -> String {
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    desk.release("1.1.0", &[&transmitter, &receiver])
}

/// Where the upload goes on.
fn offset(desk: &Desk) -> u64 {
    let rollout = desk.rollout().expect("it is open");
    rollout["upload"]["next_offset"].as_u64().expect("bytes are missing")
}

#[test]
fn a_device_that_does_not_lead_says_so_and_names_the_lead() {
    let desk = Desk::new();
    // It knows its lead once that has given an order.
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    let Some(view) = View::open_at(&desk, Transmitter) else { return };
    view.wait_text("notes", "does not lead its group");
    view.wait_text("notes", "receiver 02:00:00:00:00:01");
    view.wait_text("transmitterVersion", "1.1.0");
    view.wait_text("updateBothBtnWhy", "Only the lead begins rollouts");
    view.wait_text("updateLog", "booted");
    view.browser.picture("member");
    view.assert_clean();
}
