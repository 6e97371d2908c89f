//! The link between the two: bad, down for good, down for a while. Control frames get through what
//! loses a fifth of them; without a link each device protects itself.

use super::desk::{Desk, Plan, Receiver, Transmitter, firmware};

/// A radio as bad as it gets (L17): what is lost is said again, what comes twice is taken once.
#[test]
fn l17_a_link_that_loses_doubles_and_reorders_is_enough() {
    let bad = "--impair loss=20,duplicate=10,reorder=10,delay=0-15,seed=";
    let desk = Plan::default()
        .with(Receiver, &format!("{bad}1"))
        .with(Transmitter, &format!("{bad}2"))
        .start();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// Every state has an exit (L24): with the link down for good in staging, an abort ends it.
#[test]
fn l24_a_link_that_is_down_in_staging_is_left_by_an_abort() {
    let mut desk = Desk::new();
    let before = desk.seen();
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    let mark = desk.board(Receiver).mark();
    let update = desk.begin_update(&bundle);
    desk.board(Receiver).wait_entered(mark, "staging");
    desk.board_mut(Transmitter).order("impair down");
    desk.ask_lead("abort").succeeds().says("Stopped");
    update.end().fails().says("aborted on request");
    assert_eq!(desk.wait_settled()["verdict"], "revert");
    // The member is a debt, which is served when it is heard again.
    desk.board_mut(Transmitter).order("impair none");
    desk.wait_until_linked();
    desk.assert_untouched(&before);
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// With the link down for good in staging and nobody there to abort, the deadline ends it (L24).
#[test]
fn l24_a_link_that_stays_down_in_staging_ends_with_the_deadline() {
    let mut desk = Desk::new();
    let before = desk.seen();
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    let mark = desk.board(Receiver).mark();
    let update = desk.begin_update(&bundle);
    desk.board(Receiver).wait_entered(mark, "staging");
    desk.board_mut(Transmitter).order("impair down");
    update.end().fails().says("staging made no progress in time");
    desk.assert_untouched(&before);
}

/// A member whose lead has gone silent is not busy for ever (L35): its lease ends its trial, and
/// the lead's own trial ends as well. Both are back without having heard of each other.
#[test]
fn l35_a_link_that_is_down_in_trial_takes_both_back() {
    let mut desk = Desk::new();
    let (_, bundle) = desk.good_release("1.1.0", "--order receiver,transmitter --health-timeout 4");
    let mark = desk.board(Transmitter).mark();
    let lead = desk.board(Receiver).mark();
    let update = desk.begin_update(&bundle);
    desk.board(Receiver).wait_entered(lead, "trial");
    // On trial, and nothing comes any more.
    desk.board(Transmitter).wait_line(mark, "a boot on trial", |line| {
        line["kind"] == "boot" && line["on_trial"] == true
    });
    desk.board_mut(Transmitter).order("impair down");
    update.end().fails();
    desk.assert_runs(&desk.first);
    assert_eq!(desk.history()[0]["verdict"], "revert");
    // Once they hear each other again nothing is left to do.
    desk.board_mut(Transmitter).order("impair none");
    desk.wait_until_linked();
    desk.assert_runs(&desk.first);
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// A link that breaks off for a moment in the middle of staging costs that moment, no more.
#[test]
fn a_link_that_comes_back_in_staging_goes_on() {
    let mut desk = Desk::new();
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    let mark = desk.board(Receiver).mark();
    let update = desk.begin_update(&bundle);
    desk.board(Receiver).wait_entered(mark, "staging");
    desk.board_mut(Transmitter).order("impair down");
    desk.wait("the lead misses it", || {
        let version = desk.lead().get("/api/version")?.json;
        (version["peers"][0]["linked"] == false).then_some(())
    });
    desk.board_mut(Transmitter).order("impair none");
    update.end().succeeds();
    desk.assert_runs(&[receiver, transmitter]);
}
