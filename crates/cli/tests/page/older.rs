//! Firmware that is older than the page, and devices in trouble: the page says what cannot be done,
//! and goes on.

use serde_json::json;

use crate::desk::{Desk, Plan, Receiver};
use crate::proxy::Proxy;
use crate::view::View;

/// It has neither configuration nor waiting nor a list of its group.
#[test]
fn firmware_without_the_newer_calls_is_updated_and_the_page_says_what_it_cannot() {
    let desk = Desk::new();
    let proxy = Proxy::before(desk.board(Receiver).address());
    for path in ["/api/config", "/api/password", "/api/rollout/schedule", "/api/group"] {
        proxy.knows_not(path);
    }
    let Some(view) = View::open_address(&desk, proxy.address()) else { return };
    view.wait_text("transmitterStatus", "Online");
    view.browser.click("more");
    view.wait_text("moreWhy", "This firmware cannot do that");
    assert_eq!(["cfg", "pw"].map(|id| view.property(id, "hidden") == true), [true, true]);
    view.browser.click("autoReboot");
    view.wait_text("holdInfo", "This firmware cannot wait");
    assert_eq!(view.property("autoReboot", "checked"), true);
    let (images, bundle) = desk.good_release("1.1.0", "");
    view.update(&bundle);
    desk.assert_runs(&images);
    view.assert_clean();
}

/// The first firmware of all knows its version, and nothing of rollouts.
#[test]
fn firmware_without_rollouts_shows_its_version_and_refuses_in_words() {
    let desk = Plan::default().without_keys().start();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    let proxy = Proxy::before(desk.board(Receiver).address());
    proxy.knows_not("/api/*");
    let version = json!({ "device": "RECEIVER", "hardware": "LilyGo T-Display-S3",
        "version": "1.0.0", "version_number": 10000, "protocol_version": 1,
        "build_date": "Feb  3 2026", "build_time": "12:00:00", "min_compatible": 10000,
        "transmitter_connected": true, "transmitter_version_number": 10000,
        "transmitter_compatible": true, "uptime_seconds": 12, "free_heap": 150_000 });
    proxy.answer("/api/version", 200, &version);
    let Some(view) = View::open_address(&desk, proxy.address()) else { return };
    view.wait_text("who", "LilyGo T-Display-S3");
    view.wait_text("receiverVersion", "1.0.0");
    view.wait_text("transmitterVersion", "1.0.0");
    view.wait_text("transmitterStatus", "Online");
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    view.wait_text("refusals", "there is no such path");
    view.browser.picture("oldest");
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// Too busy to answer is no reason to show anything but that, nor to stay so.
#[test]
fn a_device_that_is_too_busy_to_answer_is_said_so_and_asked_again() {
    let desk = Desk::new();
    let proxy = Proxy::before(desk.board(Receiver).address());
    let Some(view) = View::open_address(&desk, proxy.address()) else { return };
    view.wait_text("conn", "Live");
    let error = json!({ "code": "too-busy", "message": "six connections are open",
        "hint": "close another page" });
    proxy.answer("/api/*", 503, &json!({ "error": error }));
    view.wait_text("conn", "Connection lost");
    let said = view.wait_text("notes", "Six connections are open");
    assert!(said.contains("Close another page"), "{said}");
    view.wait_text("updateBothBtnWhy", "connection is lost");
    proxy.mend();
    view.wait_text("conn", "Live");
    view.wait("the warning is gone", || view.text("notes").is_empty().then_some(()));
    view.assert_clean();
}

/// A router's page, a captive portal: somebody answers, but not the device.
#[test]
fn an_answer_that_is_not_the_devices_is_called_that() {
    let desk = Desk::new();
    let proxy = Proxy::before(desk.board(Receiver).address());
    let Some(view) = View::open_address(&desk, proxy.address()) else { return };
    view.wait_text("conn", "Live");
    proxy.answer("/api/*", 200, &json!("log in to the network"));
    let said = view.wait_text("notes", "is not from Lockstep");
    assert!(said.contains("See what else is at this address"), "{said}");
    proxy.mend();
    view.wait_text("conn", "Live");
    view.assert_clean();
}

/// Two pages have the streams; the third asks instead, and shows the same.
#[test]
fn a_page_without_a_stream_asks_and_shows_the_same() {
    let desk = Desk::new();
    let proxy = Proxy::before(desk.board(Receiver).address());
    let error = json!({ "code": "too-many-streams", "message": "two event streams are open",
        "hint": "close one" });
    proxy.answer("/api/rollout/events", 503, &json!({ "error": error }));
    let Some(view) = View::open_address(&desk, proxy.address()) else { return };
    view.wait_text("transmitterStatus", "Online");
    view.wait_text("conn", "✓ Connected");
    let (images, bundle) = desk.good_release("1.1.0", "");
    view.update(&bundle);
    view.wait_text("history", "keep");
    desk.assert_runs(&images);
    view.assert_clean();
}
