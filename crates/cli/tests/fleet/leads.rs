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

/// What the server goes by, with the values of a pair that went back from a release.
const GOLDEN: &str = include_str!("../../../proto/tests/golden/lead-check-in.json");

/// Everything that is in `golden` is in `found`, and of the same kind; of lists the first element.
fn assert_has(found: &Value, golden: &Value, place: &str) {
    match (golden, found) {
        (Value::Null, _) | (_, Value::Null) => (),
        (Value::Object(golden), Value::Object(found)) => {
            for (name, golden) in golden {
                let place = format!("{place}.{name}");
                let found = found.get(name).unwrap_or_else(|| panic!("{place} is missing"));
                assert_has(found, golden, &place);
            }
        }
        (Value::Array(golden), Value::Array(found)) => match (golden.first(), found.first()) {
            (Some(golden), Some(found)) => assert_has(found, golden, &format!("{place}[0]")),
            (Some(_), None) => panic!("{place} is empty"),
            (None, _) => (),
        },
        _ => {
            let is_same = std::mem::discriminant(golden) == std::mem::discriminant(found);
            assert!(is_same, "{place}: expected such as {golden}, found {found}");
        }
    }
}

#[test]
fn a_real_lead_says_all_that_servers_in_the_field_go_by() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    fleet.publish(&desk, "1.1.0");
    let campaign = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &campaign, "kept");
    fleet.operator("group revert bench").succeeds();
    fleet
        .wait(&desk, "the group went back", || (fleet.group()["version"] == "1.0.0").then_some(()));
    let golden: Value = serde_json::from_str::<Value>(GOLDEN).unwrap()["documents"].take();
    let mut said = fleet.json("group show bench")["group"]["documents"].take();
    // The one document that is not kept as it came.
    said["history"] = json!({ "history": desk.history() });
    assert_has(&said, &golden, "documents");
}
