//! What is told of a pair.

use super::super::facts::{Offered, Scene};
use super::*;
use crate::fleet::{Labels, Mode};
use crate::store::groups::Group;

fn device(id: &str, role: &str, number: u32) -> Device {
    let (id, role, image) = (id.to_owned(), role.to_owned(), "a4afd3dc".to_owned());
    Device { is_lead: role == "receiver", id, role, number, image, is_linked: true }
}

fn pair() -> Vec<Device> {
    vec![device(LEAD, "receiver", 10_000), device(MEMBER, "transmitter", 10_000)]
}

fn group() -> Group {
    Group {
        id: GROUP.to_owned(),
        name: "Bench/+#".to_owned(),
        labels: Labels::default(),
        zone: String::new(),
        hours: String::new(),
        mode: Mode::Automatic,
        lead: LEAD.to_owned(),
        enrolled_at: jiff::Timestamp::UNIX_EPOCH,
        seen_at: Some(jiff::Timestamp::UNIX_EPOCH),
        system: Some("desk".to_owned()),
        number: 10_000,
        phase: String::new(),
        attention: String::new(),
        documents: "{}".to_owned(),
        offer_answer: None,
        offer_codes: String::new(),
    }
}

fn release(system: &str, number: u32, roles: &[&str]) -> Offered {
    let version = ReleaseVersion::from_number(number).to_string();
    let (id, system) = (version.clone(), system.to_owned());
    let roles = roles.iter().map(|&role| role.to_owned()).collect();
    Offered { id, system, version, number, description: "Faster.".to_owned(), roles }
}

/// What stands there, by topic.
fn told(group: Group, devices: Vec<Device>, offered: &[Offered]) -> Map<String, Value> {
    let topics = Topics::new("lockstep", "http://fleet.local");
    let messages = topics.retained(&Scene::new(group, devices, offered));
    let read = |it: Message| {
        assert!(it.topic.len() + it.payload.len() <= MESSAGE_BYTES_MAX, "{it:?}");
        (it.topic, serde_json::from_str(&it.payload).unwrap())
    };
    messages.into_iter().map(read).collect()
}

fn topic(rest: &str) -> String {
    format!("lockstep/{GROUP}/{rest}")
}

#[test]
fn a_pair_stands_at_nine_topics_and_its_name_in_none_of_them() {
    let told = told(group(), pair(), &[]);
    assert_eq!(told.len(), 9);
    assert!(told.keys().all(|topic| !topic.contains("Bench") && !topic.contains(['+', '#'])));
    let state = &told[&topic("state")];
    assert_eq!(state["name"], "Bench/+#");
    assert_eq!(state["release"], "1.0.0");
    assert_eq!((&state["phase"], &state["progress"]), (&Value::Null, &Value::Null));
    assert_eq!(told[&topic(&format!("{MEMBER}/state"))]["linked"], true);
}

#[test]
fn home_assistant_is_told_only_fields_that_it_knows_and_no_null_for_a_text() {
    let mut mixed = group();
    mixed.number = 0;
    let keys = |it: &Value| it.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let unknown = &told(mixed, pair(), &[])[&topic("update")];
    let known = ["in_progress", "release_summary", "title", "update_percentage"];
    assert_eq!(keys(unknown), known, "no version is known");
    assert_eq!(unknown["in_progress"], Value::Bool(false));

    let newest = release("desk", 10_100, &["receiver", "transmitter"]);
    let update = &told(group(), pair(), &[newest])[&topic("update")];
    let expected = json!({
        "installed_version": "1.0.0", "latest_version": "1.1.0", "title": "desk",
        "release_summary": "Faster.", "in_progress": false, "update_percentage": null,
    });
    assert_eq!(*update, expected);
}

#[test]
fn the_newest_release_is_one_of_the_same_product_with_images_for_nobody_else() {
    let offered = [
        release("other", 20_000, &["receiver", "transmitter"]),
        release("desk", 10_400, &["receiver", "display"]),
        release("desk", 10_300, &["transmitter"]),
        release("desk", 10_200, &["receiver", "transmitter"]),
    ];
    let scene = Scene::new(group(), pair(), &offered);
    let newest = |role| scene.newest_for(role).map(|it| it.version.as_str());
    assert_eq!(newest(None), Some("1.3.0"));
    assert_eq!(newest(Some("transmitter")), Some("1.3.0"));
    assert_eq!(newest(Some("receiver")), Some("1.2.0"), "the newest one that has an image for it");
    assert_eq!(newest(Some("display")), None);
    let told = told(group(), pair(), &offered[..1]);
    assert_eq!(told[&topic("update")]["latest_version"], "1.0.0", "nobody offers a newer one");
}

#[test]
fn a_rollout_has_one_share_for_the_group_and_one_for_each_device() {
    let mut staging = group();
    staging.phase = "staging".to_owned();
    let member = |id, staged_bytes| {
        let part = "update";
        json!({ "id": id, "part": part, "staged_bytes": staged_bytes, "size_bytes": 1000 })
    };
    let members = json!([member(LEAD, 1000), member(MEMBER, 500)]);
    staging.documents = json!({ "rollout": { "rollout": { "members": members } } }).to_string();
    let of = |it: &Map<String, Value>, rest: &str| it[&topic(rest)]["update_percentage"].clone();
    let shown = told(staging.clone(), pair(), &[]);
    assert_eq!(shown[&topic("update")]["in_progress"], Value::Bool(true));
    assert_eq!(of(&shown, "update"), 75);
    assert_eq!(of(&shown, &format!("{MEMBER}/update")), 50);
    assert_eq!(shown[&topic("state")]["progress"], 75);

    staging.phase = "trial".to_owned();
    let shown = told(staging, pair(), &[]);
    assert_eq!(shown[&topic("update")]["in_progress"], Value::Bool(true));
    assert_eq!(of(&shown, "update"), Value::Null, "nothing is brought any more");
}

#[test]
fn a_device_belongs_to_its_group_and_only_the_group_has_a_button() {
    let told = told(group(), pair(), &[]);
    let of_group = &told[&format!("homeassistant/update/lockstep_{GROUP}/update/config")];
    assert_eq!(of_group["command_topic"], topic("command"));
    assert_eq!(of_group["payload_install"], "install");
    assert_eq!(of_group["state_topic"], topic("update"));
    assert_eq!(of_group["availability_topic"], "lockstep/server/availability");
    assert_eq!(
        of_group["device"]["configuration_url"],
        format!("http://fleet.local/groups/{GROUP}")
    );
    let of_member = &told[&format!("homeassistant/update/lockstep_{GROUP}/020000000002/config")];
    assert_eq!(of_member["device"]["via_device"], of_group["device"]["identifiers"][0]);
    assert_eq!(of_member["command_topic"], Value::Null);
    assert_ne!(of_member["unique_id"], of_group["unique_id"]);
}

#[test]
fn whatever_a_lead_says_makes_no_other_topic_and_no_long_message() {
    let mut strange = group();
    let long = "\u{1}".repeat(10_000);
    (strange.attention, strange.offer_answer) = (long.clone(), Some(long.clone()));
    strange.system = Some(long.clone());
    let devices = vec![
        device("../#", "receiver", 1),
        device("02:00:00:00:00:02/state", "receiver", 1),
        device(MEMBER, &long, 1),
    ];
    let told = told(strange, devices, &[]);
    assert_eq!(told.len(), 6, "{:?}", told.keys());
    let at = jiff::Timestamp::UNIX_EPOCH;
    let text = String::new;
    let event = Event { id: text(), at, level: text(), kind: text(), said: long };
    let line = Topics::new("lockstep", "").line(GROUP, LEAD, &event);
    assert!(line.payload.len() <= MESSAGE_BYTES_MAX);
}

#[test]
fn a_topic_is_read_back_and_those_of_others_are_passed_over() {
    let topics = Topics::new("home/battery", "");
    let cleared = topics.cleared(GROUP, Some(MEMBER));
    let place = Place { group: GROUP.to_owned(), device: Some(MEMBER.to_owned()) };
    assert_eq!(topics.place(&cleared[2].topic), Some(place));
    let place = Place { group: GROUP.to_owned(), device: None };
    assert_eq!(topics.place(&format!("home/battery/{GROUP}/state")), Some(place));
    for other in
        ["home/battery/x/state", "home/battery/state", "home/batterystate", "lockstep/x/state"]
    {
        assert_eq!(topics.place(other), None, "{other}");
    }
    assert_eq!(topics.ordered(&format!("home/battery/{GROUP}/command")), Some(GROUP));
    assert_eq!(topics.ordered("home/battery/02:00:00:00:00:02/command"), None);
}

const GROUP: &str = "0123456789abcdef0123";
const LEAD: &str = "02:00:00:00:00:01";
const MEMBER: &str = "02:00:00:00:00:02";
