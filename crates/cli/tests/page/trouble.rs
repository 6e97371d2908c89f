//! Connections that end, and devices that are not the lead.

use crate::desk::{Desk, Receiver, Transmitter, firmware};
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
    view.wait("some of it is staged", || {
        let percent = view.text("transmitterProgressText");
        let number = percent.split(" %").next()?.rsplit(' ').next()?.parse::<u32>().ok()?;
        (number > 5).then_some(())
    });
    desk.board_mut(Receiver).kill();
    view.wait_text("notes", "An upload goes on where it was");
    desk.board_mut(Receiver).switch_on();
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&[receiver, transmitter]);
    view.assert_clean();
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
