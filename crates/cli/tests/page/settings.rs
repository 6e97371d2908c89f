//! The configuration, saved and put back.

use std::fs;

use serde_json::{Value, json};

use crate::desk::{Desk, PASSWORD};
use crate::view::View;

#[test]
fn a_configuration_is_saved_with_its_secrets_only_when_somebody_has_the_password() {
    let desk = Desk::new();
    let full = json!({ "send_every_ms": 200, "wifi_password": "s3cret" });
    restore(&desk, &full);
    let Some(view) = View::open(&desk) else { return };
    view.save_downloads();
    view.open_settings();
    view.browser.click("cfgGet");
    view.wait_text("moreSaid", "Downloaded");
    assert_eq!(downloaded(&desk, &view), json!({ "send_every_ms": 200 }));
    view.browser.click("secrets");
    view.browser.click("cfgGet");
    view.give_password(PASSWORD);
    assert_eq!(downloaded(&desk, &view), full);
    view.assert_clean();
}

#[test]
fn a_configuration_is_put_back_and_one_that_the_application_refuses_is_not() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    view.open_settings();
    desk.write("config.json", br#"{"send_every_ms":300}"#);
    choose(&desk, &view, "config.json");
    view.give_password(PASSWORD);
    view.wait_text("moreSaid", "The device has it");
    assert_eq!(in_force(&desk)["send_every_ms"], 300);
    for (file, text, says) in [
        ("other.json", "send_every_ms = 300", "Not a JSON object"),
        ("long.json", &"[1]".repeat(4_000), "at most 8 KiB"),
        ("list.json", "[1]", "not one JSON object"),
        ("bad.json", r#"{"send_every_ms":3}"#, "allowed is a number from 50 to 60000"),
    ] {
        desk.write(file, text.as_bytes());
        choose(&desk, &view, file);
        let said = view.wait_text("moreSaid", says);
        assert!(said.starts_with('✗'), "{said}");
        assert_eq!(in_force(&desk)["send_every_ms"], 300);
    }
    view.assert_clean();
}

/// The field is emptied once the file was read, so there is no name to wait for.
fn choose(desk: &Desk, view: &View, file: &str) {
    view.browser.type_into("cfgFile", desk.path(file).to_str().unwrap());
}

fn restore(desk: &Desk, config: &Value) {
    desk.write("before.json", config.to_string().as_bytes());
    desk.ask_lead("config restore before.json").succeeds();
}

/// What was saved, once it is whole; and it is gone.
fn downloaded(desk: &Desk, view: &View) -> Value {
    let file = desk.path("config-receiver.json");
    let found = view
        .wait("the file was saved", || serde_json::from_str(&fs::read_to_string(&file).ok()?).ok());
    fs::remove_file(file).unwrap();
    found
}

fn in_force(desk: &Desk) -> Value {
    desk.lead().get("/api/config").expect("the lead answers").json
}
