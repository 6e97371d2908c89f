//! The set-up of a new board over HTTP: who may, what is kept, and what a phone is shown.

use expect_test::expect;
use lockstep_device::http::{FirstStart, InReach, Shell as _};
use lockstep_device::settings::{Settings, Wifi};

use super::{PASSWORD, Reply, Web};
use crate::group::TestGroup;

/// Runs `test` on a board that is being set up, with a password or without.
fn on_new_board(has_password: bool, test: impl AsyncFnOnce(Web)) {
    Web::run_pair(async |web| {
        if !has_password {
            // Fresh from the factory: its record knows no password.
            *web.group.borrow_mut() = TestGroup::pair();
        }
        let networks = vec![
            InReach { ssid: "Home".into(), signal_dbm: -48, open: false },
            InReach { ssid: "Café".into(), signal_dbm: -70, open: true },
        ];
        let here = FirstStart { networks, leads: true, is_wired: false };
        *web.first_start.borrow_mut() = Some(here);
        test(web).await;
    });
}

async fn set_up(web: &Web, line: &str, wish: &str) -> Reply {
    let len = wish.len();
    let head =
        format!("POST /api/setup HTTP/1.1\r\nHost: 192.168.4.1{line}\r\nContent-Length: {len}");
    web.send(&head, wish.as_bytes()).await
}

fn settings(web: &Web) -> Settings {
    let config = web.with(|_, node, flash| node.config(true, flash));
    Settings::read_value(&serde_json::Value::Object(config)).unwrap()
}

#[test]
fn a_new_board_says_who_it_is_and_which_networks_it_hears() {
    on_new_board(false, async |web| {
        expect![[r#"
            200
            {"role":"receiver",
            "hardware":"desk",
            "id":"02:00:00:00:00:01",
            "has_password":false,
            "leads":true,
            "wired":false,
            "networks":[{"ssid":"Home",
            "signal_dbm":-48,
            "open":false},
            {"ssid":"Café",
            "signal_dbm":-70,
            "open":true}],
            "board":null}"#]]
        .assert_eq(&web.get("/api/setup").await.shown());
        let page = web.get("/setup").await;
        assert_eq!((page.status, page.body.contains("Set up this device")), (200, true));
    });
}

#[test]
fn whatever_a_phone_asks_for_leads_to_the_page() {
    on_new_board(false, async |web| {
        for path in ["/", "/generate_204", "/hotspot-detect.html", "/connecttest.txt"] {
            let reply = web.get(path).await;
            assert!(reply.head.contains("\r\nLocation: /setup\r\n"), "{path}: {}", reply.head);
            assert_eq!(reply.status, 302, "{path}");
        }
        // What programs ask for is answered to programs.
        assert_eq!(web.get("/api/nothing").await.status, 404);
        assert_eq!(web.get("/api/version").await.status, 200);
        assert_eq!(web.get("/ota").await.status, 200);
    });
}

#[test]
fn a_new_board_takes_its_networks_and_its_password_from_whoever_is_there_once() {
    on_new_board(false, async |web| {
        let wish = r#"{"password":"rain on the roof","board":{"lead":false,
            "wifi":{"mode":"station","ssid":"Home","password":"long enough"}}}"#;
        let reply = set_up(&web, "", wish).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"restarts":true}"#));
        assert!(web.restarts.get());
        let password = Some("long enough".into());
        let wifi = Wifi::Station { ssid: "Home".into(), password };
        let expected = Settings { leads: Some(false), wifi, ..Settings::default() };
        assert_eq!(settings(&web), expected);
        assert!(web.with(|_, node, _| node.is_password("rain on the roof")));

        // From here on it has an owner.
        let reply = set_up(&web, "", r#"{"password":"stolen by another"}"#).await;
        assert_eq!(reply.status, 401, "{}", reply.body);
        assert!(web.with(|_, node, _| node.is_password("rain on the roof")));
    });
}

#[test]
fn a_board_with_a_password_is_set_up_anew_by_whoever_knows_it_and_keeps_its_secrets() {
    on_new_board(true, async |web| {
        let line = format!("\r\nAuthorization: Bearer {PASSWORD}");
        let first =
            r#"{"board":{"wifi":{"mode":"station","ssid":"Home","password":"long enough"}}}"#;
        assert_eq!(set_up(&web, &line, first).await.status, 200);
        // The page leaves out a password that nobody typed.
        let next = r#"{"board":{"lead":true,"wifi":{"mode":"station","ssid":"Home"}}}"#;
        assert_eq!(set_up(&web, &line, next).await.status, 200);
        let password = Some("long enough".into());
        assert_eq!(settings(&web).wifi, Wifi::Station { ssid: "Home".into(), password });
        let shown = web.get("/api/setup").await.body;
        assert!(shown.contains(r#""ssid":"Home""#) && !shown.contains("long enough"), "{shown}");
    });
}

#[test]
fn nothing_is_set_of_what_makes_no_sense_and_the_device_goes_on_waiting() {
    on_new_board(false, async |web| {
        for (wish, status, code) in [
            (r#"{"board":{}}"#, 400, "no-password"),
            (r#"{"password":"short","board":{}}"#, 400, "bad-password"),
            (r#"{"password":"rain on the roof","bored":{}}"#, 400, "bad-request"),
            (
                r#"{"password":"rain on the roof","board":{"wifi":{"mode":"own"}}}"#,
                422,
                "bad-config",
            ),
        ] {
            let reply = set_up(&web, "", wish).await;
            assert_eq!(reply.status, status, "{wish}: {}", reply.body);
            assert!(reply.body.contains(code), "{wish}: {}", reply.body);
        }
        assert!(!web.with(|_, node, _| node.has_password()));
        assert_eq!((settings(&web), web.restarts.get()), (Settings::default(), false));
    });
}

#[test]
fn another_sites_page_sets_nothing_up() {
    on_new_board(false, async |web| {
        let line = "\r\nOrigin: http://evil.example";
        let reply = set_up(&web, line, r#"{"password":"rain on the roof"}"#).await;
        assert_eq!(reply.status, 403, "{}", reply.body);
        assert!(!web.with(|_, node, _| node.has_password()));
    });
}

#[test]
fn a_device_that_is_not_being_set_up_has_no_such_page() {
    Web::run_pair(async |web| {
        expect![[r#"
            404
            {"error":{"code":"set-up",
            "message":"this device is not being set up",
            "hint":"`PUT /api/config` changes its settings; by cable `setup` brings its set-up page back"}}"#]].assert_eq(&web.get("/api/setup").await.shown());
        let wish = r#"{"password":"rain on the roof"}"#;
        assert_eq!(set_up(&web, "", wish).await.status, 401);
        assert_eq!(web.post("/api/setup", wish.as_bytes()).await.status, 404);
        assert_eq!(web.get("/generate_204").await.status, 404);
    });
}
