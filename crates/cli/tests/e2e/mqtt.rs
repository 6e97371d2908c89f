//! What a broker is told: a real mosquitto beside a pair.

use serde_json::Value;

use crate::desk::{
    BOTH, BROKER_PASSWORD, Desk, Mark, Message, Mosquitto, Plan, Receiver, Transmitter,
};

fn desk_at(broker: &Mosquitto, password: &str) -> Desk {
    let option = format!("--mqtt {}", broker.url(password));
    BOTH.iter().fold(Plan::default(), |plan, &role| plan.with(role, &option)).start()
}

/// What tells an event from another.
fn gist(event: &Value) -> (Value, Value, Value) {
    (event["kind"].clone(), event["phase"].clone(), event["text"].clone())
}

/// The lead's events, as the broker heard them.
fn events(broker: &Mosquitto) -> Vec<Value> {
    broker.heard(&format!("{LEAD}/event")).iter().map(Message::json).collect()
}

fn wait_event(desk: &Desk, broker: &Mosquitto, text: &str) {
    desk.wait(&format!("the broker hears: {text}\n{}", broker.story()), || {
        events(broker).iter().any(|event| event["text"] == text).then_some(())
    });
}

/// What the lead printed is what the broker heard.
#[track_caller]
fn assert_heard_all(desk: &Desk, broker: &Mosquitto, mark: Mark) {
    let printed = desk.board(Receiver).lines_since(mark);
    let printed = printed.iter().filter(|line| line.get("member_role").is_some());
    let heard = events(broker);
    assert_eq!(heard.iter().map(gist).collect::<Vec<_>>(), printed.map(gist).collect::<Vec<_>>());
}

#[test]
fn a_broker_hears_a_whole_rollout_in_order() {
    let Some(broker) = Mosquitto::start() else { return };
    let desk = desk_at(&broker, BROKER_PASSWORD);
    let mark = desk.board(Receiver).mark();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    wait_event(&desk, &broker, "settled: keep 1.1.0");

    assert_heard_all(&desk, &broker, mark);
    assert!(events(&broker).iter().all(|event| event["level"] == "notice"));

    // Every line under its level.
    for level in ["info", "notice"] {
        let lines = broker.heard(&format!("{LEAD}/log/{level}"));
        assert!(!lines.is_empty() && lines.iter().all(|line| line.json()["level"] == level));
    }
    let member = broker.heard(&format!("{MEMBER}/log/notice"));
    assert!(member.iter().any(|line| line.payload.contains("1.1.0")), "{}", broker.story());

    // Who comes late finds how it is now.
    for id in [LEAD, MEMBER] {
        desk.wait("the broker knows what runs", || {
            let device = broker.heard(&format!("{id}/device")).last()?.json();
            (device["version"] == "1.1.0" && device["on_trial"] == false).then_some(())
        });
        assert_eq!(broker.retained(&format!("lockstep/{id}/availability")), "online");
    }
    desk.wait("the broker knows how the rollout ended", || {
        let rollout = broker.heard(&format!("{LEAD}/rollout")).last()?.json();
        let ended = &rollout["rollout"];
        (ended["phase"] == "settled" && ended["verdict"] == "keep").then_some(())
    });
}

#[test]
fn a_broker_that_is_down_stops_no_rollout_and_hears_the_rest_later() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let desk = desk_at(&broker, BROKER_PASSWORD);
    desk.wait("the broker hears both", || {
        let availability = broker.heard("/availability");
        (availability.iter().filter(|it| it.payload == "online").count() == 2).then_some(())
    });
    broker.stop();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    assert!(!broker.story().contains("settled"), "{}", broker.story());
    broker.restart();
    wait_event(&desk, &broker, "settled: keep 1.1.0");
}

/// In the middle of a boot, too: what happened meanwhile is told afterwards, in its place.
#[test]
fn a_broker_that_restarts_in_the_middle_misses_no_event() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let desk = desk_at(&broker, BROKER_PASSWORD);
    let mark = desk.board(Receiver).mark();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&format!("{bundle} --hold")).succeeds();
    wait_event(&desk, &broker, "`receiver` has staged");
    broker.stop();
    desk.ask_lead("schedule --in 1h").succeeds();
    desk.board(Receiver).wait_line(mark, "it says that the broker went", |line| {
        line["level"] == "warning" && line["text"].as_str().is_some_and(|it| it.contains("broker"))
    });
    broker.restart();
    wait_event(&desk, &broker, "waits, once all have staged, for the moment that was named");
    desk.ask_lead("schedule --now").succeeds();
    wait_event(&desk, &broker, "settled: keep 1.1.0");
    assert_heard_all(&desk, &broker, mark);
}

#[test]
fn a_wrong_password_is_said_with_a_way_out_and_never_printed() {
    let Some(broker) = Mosquitto::start() else { return };
    let desk = desk_at(&broker, "wrong-password");
    let board = desk.board(Transmitter);
    let line = board.wait_line(Mark::START, "a refusal", |line| line["level"] == "error");
    let text = line["text"].as_str().unwrap();
    assert!(text.contains("refuses user `desk`: give the device a user and a password"), "{text}");
    assert!(!desk.consoles().contains("wrong-password"));
    let health = desk.http(Transmitter).get("/api/health").unwrap().json;
    assert_eq!((&health["mqtt_connected"], &health["status"]), (&false.into(), &"healthy".into()));
}

#[test]
fn a_device_that_lost_its_power_is_offline_at_the_broker() {
    let Some(broker) = Mosquitto::start() else { return };
    let mut desk = desk_at(&broker, BROKER_PASSWORD);
    let availability = || {
        let heard = broker.heard(&format!("{MEMBER}/availability"));
        heard.into_iter().map(|message| message.payload).collect::<Vec<_>>()
    };
    desk.wait("the member is online", || (availability() == ["online"]).then_some(()));
    let health = desk.http(Transmitter).get("/api/health").unwrap().json;
    assert_eq!(health["mqtt_connected"], true);
    desk.board_mut(Transmitter).kill();
    desk.wait("the member is offline", || (availability() == ["online", "offline"]).then_some(()));
    assert_eq!(broker.retained(&format!("lockstep/{MEMBER}/availability")), "offline");
}

const LEAD: &str = "02:00:00:00:00:01";
const MEMBER: &str = "02:00:00:00:00:02";
