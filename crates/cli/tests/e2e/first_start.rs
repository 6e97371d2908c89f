//! A new device is set up, and is its owner's from then on.

use serde_json::json;

use crate::desk::{Board, Desk, Http, Transmitter};

#[test]
fn a_new_device_is_set_up_by_whoever_is_there_and_then_only_by_its_owner() {
    let desk = Desk::new();
    let mut board = Board::to_set_up(&desk.path(""), Transmitter);
    board.give("--id 02:4c:53:00:00:77");
    board.switch_on();
    let anybody = Http::new(board.address(), "a guess of mine");
    let seen = desk.wait("it answers", || anybody.get("/api/setup")).json;
    assert_eq!(
        (&seen["has_password"], &seen["networks"][0]["ssid"]),
        (&json!(false), &json!("Desk"))
    );

    let wish = json!({ "password": "rain on the roof", "board": { "wifi": { "mode": "off" } } });
    assert_eq!(anybody.post_json("/api/setup", &wish).status, 200);

    let owner = Http::new(board.address(), "rain on the roof");
    let config = desk.wait("it is back, and set up", || {
        let setup = owner.get("/api/setup")?;
        (setup.status == 404).then(|| owner.get("/api/config"))?
    });
    assert_eq!(config.json, json!({ "board": { "wifi": { "mode": "off" } } }));
    assert_eq!(anybody.post_json("/api/setup", &wish).status, 401);
}
