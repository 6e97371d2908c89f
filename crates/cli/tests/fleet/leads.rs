//! Who is a lead, and who only says so.

use serde_json::{Value, json};

use super::desk::{Receiver, Transmitter, firmware};
use super::server::Fleet;

/// What a lead would say, as far as it matters who says it.
fn check_in(id: &str) -> Value {
    let documents =
        json!({ "version": {}, "group": {}, "health": {}, "rollout": {}, "history": {} });
    json!({ "id": id, "documents": documents })
}

const OURS: &str = "02:00:00:00:00:01";
const OTHER: &str = "02:00:00:00:00:07";

#[test]
fn a_wrong_credential_is_let_in_nowhere() {
    let fleet = Fleet::new();
    let stranger = fleet.ask("not a credential");
    for path in ["/api/lead/desired", "/api/lead/bundles/00"] {
        let error = stranger.get::<Value>(path).unwrap_err();
        assert_eq!(error.code(), Some("unauthorized"), "{path}: {error}");
    }
    let error = stranger.post::<Value>("/api/lead/check-in", &check_in(OURS)).unwrap_err();
    assert_eq!(error.code(), Some("unauthorized"), "{error}");
    let operator = fleet.operator("group list --token wrong");
    operator.fails().says("token is not known").says("lockstep login");
}

#[test]
fn a_credential_that_another_lead_brings_is_refused_and_changes_nothing() {
    let fleet = Fleet::new();
    let lead = fleet.lead_by_hand("bench", OURS);
    let before = fleet.group();
    let error = lead.post::<Value>("/api/lead/check-in", &check_in(OTHER)).unwrap_err();
    assert_eq!(error.code(), Some("other-lead"), "{error}");
    assert!(error.to_string().contains(OTHER), "{error}");
    assert_eq!(fleet.group(), before);
}

/// The same lead may say it again: it has not heard the answer, perhaps.
#[test]
fn an_enrolment_token_lets_one_lead_in() {
    let fleet = Fleet::new();
    let token = fleet.token("bench");
    let enrol = |id: &str| {
        let body = json!({ "token": token, "id": id });
        fleet.ask("").post::<Value>("/api/lead/enroll", &body)
    };
    let first = enrol(OURS).unwrap();
    let again = enrol(OURS).unwrap();
    assert_eq!(first["group"], again["group"]);
    let error = enrol(OTHER).unwrap_err();
    assert_eq!(error.code(), Some("used-token"), "{error}");
}

/// The group is whole without a server, and takes releases by hand.
#[test]
fn a_group_that_was_removed_is_let_in_no_more_and_goes_on_by_itself() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    let mark = desk.board(Receiver).mark();
    fleet.operator("group remove bench").succeeds().says("let in no more");
    desk.board(Receiver).wait_line(mark, "the server says no", |line| {
        line["text"].as_str().is_some_and(|text| text.contains("says no"))
    });
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    assert_eq!(fleet.json("group list")["groups"], json!([]));
}

/// What the server takes in is not what a device takes: that has keys of its own.
#[test]
fn a_release_that_the_devices_do_not_trust_fails_in_words_and_touches_nobody() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    let before = desk.seen();
    let images = [firmware(Receiver, "1.1.0").make(), firmware(Transmitter, "1.1.0").make()];
    let bundle = desk.release_with("1.1.0", &[&images[1], &images[0]], "--unsigned");
    fleet.publish_bundle(&desk, &bundle);
    let id = fleet.campaign("1.1.0 --despite-findings");
    fleet.wait_standing(&desk, &id, "failed");
    fleet.operator(&format!("campaign show {id}")).succeeds().says("not signed");
    desk.assert_untouched(&before);
}
