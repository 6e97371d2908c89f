//! A fleet on a broker: a real server, a real mosquitto, and a pair that its lead has enrolled.

use serde_json::Value;

use crate::desk::{
    BROKER_PASSWORD, Desk, Fleet, Image, Mosquitto, Plan, Receiver, Transmitter, firmware,
};

/// A pair that a server looks after, and the broker that the server tells of it.
struct Bench {
    desk: Desk,
    fleet: Fleet,
    broker: Mosquitto,
    /// The group's identity.
    group: String,
}

impl Bench {
    /// None where there is no mosquitto.
    fn start() -> Option<Self> {
        let broker = Mosquitto::start()?;
        let fleet = Fleet::start(&format!("--mqtt {}", broker.url(BROKER_PASSWORD)));
        let desk = Plan::default().with(Receiver, &fleet.enrolment("bench")).start();
        let group = desk.wait("the group is in", || fleet.group("bench"));
        let bench = Self { desk, fleet, broker, group };
        let topic = format!("{MEMBER}/update");
        bench.wait_stands(&topic, "both are known", |it| it["installed_version"] == "1.0.0");
        Some(bench)
    }

    /// A topic of the group.
    fn topic(&self, rest: &str) -> String {
        format!("lockstep/{}/{rest}", self.group)
    }

    fn discovery(&self, object: &str) -> String {
        format!("homeassistant/update/lockstep_{}/{object}/config", self.group)
    }

    /// What was told last at a topic.
    fn last(&self, topic: &str) -> Option<Value> {
        Some(self.broker.heard(topic).last()?.json())
    }

    #[track_caller]
    fn wait_stands(&self, rest: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let topic = self.topic(rest);
        self.desk.wait(&format!("{topic}: {what}\n{}", self.fleet.log()), || {
            self.last(&topic).filter(&is_it)
        })
    }

    /// Waits until nothing is kept at a topic of the group.
    #[track_caller]
    fn wait_cleared(&self, topic: &str) {
        self.desk.wait(&format!("{topic} is cleared\n{}", self.broker.story()), || {
            (self.broker.heard(topic).last()?.payload == CLEARED).then_some(())
        });
    }

    /// Waits for a text in a log of the group.
    #[track_caller]
    fn wait_log(&self, rest: &str, text: &str) -> Value {
        let topic = self.topic(rest);
        self.desk.wait(&format!("{topic}: {text}\n{}", self.broker.story()), || {
            let lines = self.broker.heard(&topic).into_iter().map(|line| line.json());
            lines.into_iter().find(|it| it["text"].as_str().is_some_and(|it| it.contains(text)))
        })
    }

    fn order(&self, order: &str) {
        self.broker.publish(&self.topic("command"), order);
    }

    /// A release for both in the server.
    fn publish(&self, version: &str) -> [Image; 2] {
        let (images, bundle) = self.desk.good_release(version, "--system desk");
        self.publish_bundle(&bundle);
        images
    }

    fn publish_bundle(&self, bundle: &str) {
        let answer = self.fleet.admin().post("/api/releases", &self.desk.read(bundle));
        assert_eq!(answer.status, 201, "{}", answer.json);
    }

    /// What an admin is answered.
    fn ask(&self, path: &str) -> Value {
        self.fleet.admin().get(path).expect("the server answers").json
    }
}

#[test]
fn a_button_of_home_assistant_updates_a_pair_and_the_broker_hears_how() {
    let Some(bench) = Bench::start() else { return };
    let first = bench.desk.first.clone();
    let config: Value =
        serde_json::from_str(&bench.broker.retained(&bench.discovery("update"))).unwrap();
    let of_member = bench.broker.retained(&bench.discovery("020000000002"));
    let of_member: Value = serde_json::from_str(&of_member).unwrap();
    assert_eq!(of_member["device"]["via_device"], config["device"]["identifiers"][0]);
    let state_topic = config["state_topic"].as_str().unwrap();
    assert_eq!(state_topic, bench.topic("update"));
    assert_eq!(bench.last(state_topic).unwrap()["latest_version"], "1.0.0");

    let images = bench.publish("1.1.0");
    bench.wait_stands("update", "1.1.0 is offered", |it| it["latest_version"] == "1.1.0");
    let payload = config["payload_install"].as_str().unwrap();
    bench.broker.publish(config["command_topic"].as_str().unwrap(), payload);
    bench.wait_log("log", "1.1.0 is offered to the group");
    bench.desk.assert_runs(&images);

    let is_done = |it: &Value| it["installed_version"] == "1.1.0" && it["in_progress"] == false;
    bench.wait_stands("update", "both run it", is_done);
    bench.wait_stands(&format!("{MEMBER}/update"), "the member runs it", is_done);
    bench.wait_stands(&format!("{MEMBER}/state"), "it runs it", |it| it["release"] == "1.1.0");
    let told = bench.broker.heard(state_topic);
    assert!(told.iter().any(|it| it.json()["in_progress"] == true), "{}", bench.broker.story());
    let kept = bench.wait_log(&format!("{LEAD}/log"), "1.1.0 was kept by all");
    assert_eq!((&kept["kind"], &kept["level"]), (&"rollout".into(), &"notice".into()));
    // What a lead had not reported before it restarted is lost; this it says behind that.
    let booted = bench.wait_log(&format!("{LEAD}/log"), "booted 1.1.0");
    assert_eq!((&booted["kind"], &booted["level"]), (&"log".into(), &"notice".into()));

    // What cannot be done is said where it was ordered.
    bench.order("install");
    let refused = bench.wait_log("log", "order refused: the group runs 1.1.0 already");
    assert_eq!(refused["level"], "warning");
    bench.order("dance");
    bench.wait_log("log", "`dance` is no order");

    bench.order("revert");
    bench.desk.assert_runs(&first);
    bench.wait_stands("state", "it is taken back", |it| it["release"] == "1.0.0");
}

#[test]
fn an_abort_at_the_broker_ends_a_rollout_and_the_group_stays_whole_on_what_it_ran() {
    let Some(mut bench) = Bench::start() else { return };
    let before = bench.desk.seen();
    let transmitter = firmware(Transmitter, "1.1.0").size(1 << 20).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let images = [&transmitter, &receiver];
    let bundle = bench.desk.release_with("1.1.0", &images, "--key a.key --system desk");
    bench.publish_bundle(&bundle);
    // The transfer takes a while.
    bench.desk.board_mut(Receiver).order("impair loss=60");
    bench.order("install");
    bench.wait_stands("state", "it is under way", |it| it["phase"] == "staging");
    bench.order("abort");
    bench.wait_log("log", "abort was ordered");

    let settled = bench.desk.wait_settled();
    assert_eq!(settled["cause"]["code"], "aborted", "{}", bench.broker.story());
    bench.desk.assert_untouched(&before);
    let line = bench.wait_log(&format!("{LEAD}/log"), "1.1.0 was given up by all");
    assert_eq!((&line["kind"], &line["level"]), (&"rollout".into(), &"warning".into()));
    let text = line["text"].as_str().unwrap();
    assert!(text.contains("aborted on request"), "{text}");
    let is_whole = |it: &Value| it["phase"].is_null() && it["release"] == "1.0.0";
    bench.wait_stands("state", "it is whole on what it ran", is_whole);

    let group = bench.ask(&format!("/api/groups/{}", bench.group))["group"].take();
    let history = group["history"].as_array().unwrap();
    assert_eq!(history.len(), 1, "it is not tried again: {group}");
    assert_eq!(
        (&history[0]["verdict"], &history[0]["cause"]),
        (&"revert".into(), &"aborted".into())
    );
    let campaign = bench.ask(&format!("/api/campaigns/{}", group["campaign"].as_str().unwrap()));
    assert_eq!(campaign["campaign"]["groups"][0]["standing"], "failed", "{campaign}");
    let audit = bench.ask("/api/audit")["audit"].take();
    let orders = audit.as_array().unwrap().iter().filter(|it| it["did"] == "group.abort");
    let orders: Vec<_> = orders.map(|it| (&it["who"], &it["about"])).collect();
    assert_eq!(orders, [(&"mqtt".into(), &bench.group.as_str().into())]);
}

/// The broker forgets everything, as one without a disk does, and the pair is updated meanwhile.
#[test]
fn a_broker_that_was_away_is_told_everything_anew_and_the_log_of_meanwhile() {
    let Some(mut bench) = Bench::start() else { return };
    bench.broker.stop();
    bench.broker.forget();
    let images = bench.publish("1.1.0");
    let campaign = serde_json::json!({ "release": "1.1.0", "groups": [bench.group] });
    bench.fleet.post("/api/campaigns", &campaign);
    bench.desk.assert_runs(&images);
    bench.desk.wait("the server knows", || {
        let group = bench.fleet.admin().get(&format!("/api/groups/{}", bench.group))?.json;
        let group = &group["group"];
        (group["version"] == "1.1.0" && group["history"][0]["verdict"] == "keep").then_some(())
    });
    // Nothing changes any more: what is told then is told because the broker has come.
    bench.desk.board_mut(Receiver).kill();
    bench.broker.restart();
    bench.wait_stands("update", "both run it", |it| it["installed_version"] == "1.1.0");
    for topic in [bench.topic("state"), bench.discovery("update"), ONLINE_AT.to_owned()] {
        assert_ne!(bench.broker.retained(&topic), "", "{topic}");
    }
    bench.wait_log(&format!("{LEAD}/log"), "1.1.0 was kept by all");
}

#[test]
fn a_server_that_is_killed_is_offline_and_on_again_it_is_online() {
    let Some(mut bench) = Bench::start() else { return };
    assert_eq!(bench.broker.retained(ONLINE_AT), "online");
    bench.fleet.kill();
    let wait = |bench: &Bench, wanted: &str| {
        bench.desk.wait(&format!("the server is {wanted}"), || {
            (bench.broker.heard(ONLINE_AT).last()?.payload == wanted).then_some(())
        });
    };
    wait(&bench, "offline");
    bench.fleet.switch_on();
    wait(&bench, "online");
    // Of two servers at one broker one has left, and what it told last was old by then.
    let is_so_now = |it: &Value| it["installed_version"] == "1.0.0";
    bench.wait_stands("update", "what is so now", is_so_now);
    bench.broker.keep(&bench.topic("update"), "{}");
    bench.wait_stands("update", "what is old", |it| *it == serde_json::json!({}));
    bench.broker.keep(ONLINE_AT, "offline");
    wait(&bench, "offline");
    wait(&bench, "online");
    bench.wait_stands("update", "what is so now", is_so_now);
}

#[test]
fn nothing_stands_of_a_group_that_was_removed_whether_or_not_the_server_was_there() {
    let Some(mut bench) = Bench::start() else { return };
    // A group of long ago, and an order of then.
    bench.fleet.kill();
    let (old, other) = ("00000000000000000000", "lockstep/sensors/state");
    bench.broker.keep(&format!("lockstep/{old}/state"), "{}");
    bench.broker.keep(&format!("homeassistant/update/lockstep_{old}/update/config"), "{}");
    bench.broker.keep(&format!("lockstep/{old}/{MEMBER}/state"), "{}");
    bench.broker.keep(other, "{}");
    bench.broker.keep(&bench.topic("command"), "revert");
    bench.fleet.switch_on();
    bench.wait_cleared(&format!("lockstep/{old}/state"));
    bench.wait_cleared(&format!("homeassistant/update/lockstep_{old}/update/config"));
    bench.wait_cleared(&format!("lockstep/{old}/{MEMBER}/state"));
    assert_eq!(bench.broker.retained(other), "{}", "it is somebody else's");
    // An order that comes now is carried out, so one of before would have been.
    bench.order("dance");
    bench.wait_log("log", "`dance` is no order");
    let answers = bench.broker.heard(&bench.topic("log"));
    assert_eq!(answers.len(), 1, "the order was one of before: {answers:?}");

    let removed = bench.fleet.admin().delete(&format!("/api/groups/{}", bench.group));
    assert_eq!(removed.status, 200);
    for rest in ["state", "update", &format!("{LEAD}/state"), &format!("{MEMBER}/update")] {
        bench.wait_cleared(&bench.topic(rest));
    }
    for object in ["update", "020000000001", "020000000002"] {
        bench.wait_cleared(&bench.discovery(object));
    }
}

#[test]
fn a_wrong_password_of_the_broker_is_said_with_a_way_out_and_the_server_serves() {
    let Some(broker) = Mosquitto::start() else { return };
    let fleet = Fleet::start(&format!("--mqtt {}", broker.url("wrong-password")));
    let desk = Plan::default().with(Receiver, &fleet.enrolment("bench")).start();
    desk.wait("the group is in", || fleet.group("bench"));
    desk.wait("a refusal", || fleet.log().contains("refuses user `desk`").then_some(()));
    assert!(!fleet.log().contains("wrong-password"));
}

const LEAD: &str = "02:00:00:00:00:01";
const MEMBER: &str = "02:00:00:00:00:02";
const ONLINE_AT: &str = "lockstep/server/availability";
/// How the listener shows a message without anything in it.
const CLEARED: &str = "(null)";
