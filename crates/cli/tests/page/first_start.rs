//! A new board is set up from a phone.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::desk::{Board, Desk, Transmitter};
use crate::view::View;

/// A phone that has found the page, and the board.
fn open(desk: &Desk) -> Option<(View, Board)> {
    let mut board = Board::to_set_up(&desk.path(""), Transmitter);
    board.give("--id 02:4c:53:00:00:77");
    board.switch_on();
    let view = View::open_address(desk, board.address())?;
    view.emulate_scheme("light");
    view.emulate_size(390, 900);
    view.wait_text("who", "Transmitter");
    Some((view, board))
}

fn fill(view: &View) {
    view.browser.type_into("key", "a long enough one");
    view.browser.type_into("pass", "rain on the roof");
}

#[test]
fn a_new_board_is_told_its_network_and_its_password() {
    let desk = Desk::new();
    let Some((view, board)) = open(&desk) else { return };
    assert_eq!(view.property("net", "value"), "Desk", "the strongest is chosen");
    assert_eq!(view.property("lead", "checked"), false, "a transmitter does not lead");
    fill(&view);
    view.browser.cdp("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
    view.emulate_size(390, 1010);
    let picture = view.browser.picture_of_window("setup");
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some_and(|value| value == "1") {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/images/setup.png");
        fs::copy(picture, docs).unwrap();
    }
    view.browser.click("save");
    view.wait_text("said", "joins Desk");
    view.assert_clean();
    // It starts anew, keeps what it was told, and is not open any more.
    let http = crate::desk::Http::new(board.address(), "rain on the roof");
    let config = desk.wait("the board is back, and set up", || {
        let setup = http.get("/api/setup")?;
        (setup.status == 404).then(|| http.get("/api/config?secrets=true"))?
    });
    let expected = json!({ "board": { "lead": false, "wifi":
        { "mode": "station", "ssid": "Desk", "password": "a long enough one" } } });
    assert_eq!(config.json, expected);
}

#[test]
fn what_the_device_refuses_is_said_and_can_be_mended() {
    let desk = Desk::new();
    let Some((view, _board)) = open(&desk) else { return };
    fill(&view);
    view.click("own");
    view.browser
        .run("document.getElementById('key').value = 'umlaut \u{e4}\u{f6}\u{fc}'", Vec::new());
    view.browser.click("save");
    view.wait_text("said", "without accents");
    view.browser.run("document.getElementById('key').value = 'a long enough one'", Vec::new());
    view.browser.click("save");
    view.wait_text("said", "opens its own network");
}

#[test]
fn only_what_applies_is_asked_for() {
    let desk = Desk::new();
    let Some((view, _board)) = open(&desk) else { return };
    let shown = |id: &str| view.property(id, "offsetParent") != serde_json::Value::Null;
    assert!(shown("key") && !shown("ssid"));
    view.browser.run(
        "const n = document.getElementById('net'); n.value = 'Café';
        n.dispatchEvent(new Event('change', { bubbles: true }))",
        Vec::new(),
    );
    assert!(!shown("key"), "an open network has no password");
    view.browser.run(
        "const n = document.getElementById('net'); n.value = '';
        n.dispatchEvent(new Event('change', { bubbles: true }))",
        Vec::new(),
    );
    assert!(shown("key") && shown("ssid"));
    view.click("off");
    assert!(!shown("key") && !shown("ssid") && !shown("net"));
}

#[test]
fn the_set_up_page_is_for_everybody() {
    let desk = Desk::new();
    let Some((view, _board)) = open(&desk) else { return };
    for (scheme, width) in [("light", 360), ("dark", 1280)] {
        view.emulate_scheme(scheme);
        view.emulate_width(width);
        let script = "const r = document.documentElement; return r.scrollWidth - r.clientWidth";
        assert_eq!(view.browser.run(script, Vec::new()), 0, "{width} pixels");
        view.browser.picture(&format!("setup-{scheme}"));
        let Some(found) = view.violations() else { return };
        assert!(found.is_empty(), "{scheme}: {found:#?}");
    }
}
