//! Two servers on one PostgreSQL and one broker are one fleet: each order is carried out once, both
//! tell the broker the same, and either may go.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cable::Cable;
use super::desk::{BROKER_PASSWORD, Desk, Image, Message, Mosquitto, Plan, Receiver};
use super::server::{Fleet, database};

/// Both servers, and a pair that comes to one of them.
struct Twins {
    desk: Desk,
    one: Fleet,
    other: Fleet,
    broker: Mosquitto,
    /// From the lead to a server.
    cable: Cable,
    /// The group's identity.
    group: String,
}

impl Twins {
    /// None where there is no mosquitto, or no PostgreSQL.
    fn start(name: &str) -> Option<Self> {
        let (broker, database) = (Mosquitto::start()?, database(name)?);
        let mqtt = broker.url(BROKER_PASSWORD);
        let one = Fleet::with(&format!("--database {database} --mqtt {mqtt}"));
        let other = one.beside();
        let cable = Cable::to(one.address());
        let (address, token) = (cable.address(), one.token("bench"));
        let options = format!("--server http://{address} --enroll {token}");
        let desk = Plan::default().with(Receiver, &options).start();
        let group =
            one.wait(&desk, "the group is in", || one.group()["id"].as_str().map(str::to_owned));
        let twins = Self { desk, one, other, broker, cable, group };
        twins.wait_stands(&format!("{MEMBER}/state"), |it| it["release"] == "1.0.0");
        Some(twins)
    }

    fn topic(&self, rest: &str) -> String {
        format!("lockstep/{}/{rest}", self.group)
    }

    fn order(&self, order: &str) {
        self.broker.publish(&self.topic("command"), order);
    }

    /// What became of orders so far.
    fn answers(&self) -> Vec<String> {
        let heard = self.broker.heard(&self.topic("log")).into_iter();
        heard.map(|it| it.json()["text"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn wait_answers(&self, count: usize) {
        let what = format!("{count} answers\n{}", self.broker.story());
        self.one.wait(&self.desk, &what, || (self.answers().len() >= count).then_some(()));
    }

    #[track_caller]
    fn wait_stands(&self, rest: &str, is_it: impl Fn(&Value) -> bool) {
        let topic = self.topic(rest);
        self.one.wait(&self.desk, &format!("{topic}\n{}", self.broker.story()), || {
            self.broker.heard(&topic).last().filter(|it| is_it(&it.json())).map(drop)
        });
    }

    fn publish(&self, version: &str) -> [Image; 2] {
        let (images, bundle) = self.desk.good_release(version, "--system desk");
        self.one.publish_bundle(&self.desk, &bundle);
        self.wait_stands("update", |it| it["latest_version"] == version);
        images
    }

    /// What `mqtt` did, the oldest first.
    fn ordered(&self) -> Vec<String> {
        let audit = self.one.json("audit")["audit"].take();
        let entries = audit.as_array().unwrap().iter().filter(|it| it["who"] == "mqtt");
        let mut did: Vec<_> = entries.map(|it| it["did"].as_str().unwrap().to_owned()).collect();
        did.reverse();
        did
    }

    /// No line of the lead's log stands there more often than the lead said it.
    #[track_caller]
    fn assert_each_line_stands_once(&self) {
        let shown = self.one.json("group show bench");
        let events = shown["group"]["events"].as_array().unwrap();
        let lines = events.iter().filter(|it| it["kind"] == "log");
        let lines: Vec<_> = lines.map(|it| it["text"].as_str().unwrap()).collect();
        let said = self.desk.board(Receiver).console();
        assert!(lines.iter().any(|line| line.contains("settled")), "{lines:#?}");
        for line in &lines {
            let stands = lines.iter().filter(|it| it == &line).count();
            let said = said.lines().filter(|it| it.ends_with(&format!(" {line}"))).count();
            assert!(stands <= said, "`{line}` stands {stands} times, was said {said} times");
        }
    }

    /// Both tell each line, and the same of it.
    #[track_caller]
    fn assert_lines_are_told_alike(&self) {
        let mut told: BTreeMap<String, Vec<Message>> = BTreeMap::new();
        for line in self.broker.heard(&self.topic(&format!("{LEAD}/log"))) {
            told.entry(line.json()["id"].to_string()).or_default().push(line);
        }
        assert!(!told.is_empty());
        for (id, lines) in told {
            assert!(lines.len() <= 2 && lines.iter().all(|it| *it == lines[0]), "{id}: {lines:?}");
        }
    }

    /// Whoever finds the group through the broker is led to one place, and told how it is now.
    #[track_caller]
    fn assert_discovery_is_told_alike(&self) {
        let topic = format!("homeassistant/update/lockstep_{}/update/config", self.group);
        let told: Vec<_> = self.broker.heard(&topic).iter().map(Message::json).collect();
        let place = |it: &Value| it["device"]["configuration_url"].clone();
        assert!(told.iter().all(|it| place(it) == place(&told[0])), "{told:#?}");
        assert_eq!(told.last().unwrap()["device"]["sw_version"], "1.0.0", "{told:#?}");
    }
}

#[test]
fn of_two_servers_one_carries_an_order_out_and_both_tell_the_same() {
    let Some(twins) = Twins::start("twins") else { return };
    let images = twins.publish("1.1.0");
    for _ in 0..ORDERS {
        twins.order("dance");
    }
    twins.wait_answers(ORDERS);
    twins.order("install");
    twins.desk.assert_runs(&images);
    twins.wait_stands("state", |it| it["release"] == "1.1.0" && it["phase"].is_null());

    // The lead comes to the other one, wherever the order comes in.
    twins.cable.plug_into(twins.other.address());
    twins.order("revert");
    twins.desk.assert_runs(&twins.desk.first);
    twins.wait_stands("state", |it| it["release"] == "1.0.0" && it["phase"].is_null());
    twins.wait_stands("update", |it| it["in_progress"] == false);
    let kinds: Vec<_> = twins.desk.history().iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, ["back", "forward"], "{}", twins.desk.consoles());
    assert_eq!(twins.ordered(), ["campaign.make", "group.revert"]);
    assert_eq!(twins.answers().len(), ORDERS + 2, "{:#?}", twins.answers());
    twins.assert_each_line_stands_once();
    twins.assert_lines_are_told_alike();
    twins.assert_discovery_is_told_alike();
}

#[test]
fn when_one_of_two_servers_is_killed_the_other_takes_all_orders_and_says_that_it_is_there() {
    let Some(mut twins) = Twins::start("twins_killed") else { return };
    twins.cable.plug_into(twins.other.address());
    let images = twins.publish("1.1.0");
    twins.other.kill();
    let what = format!("the one that is left says so\n{}", twins.broker.story());
    twins.one.wait(&twins.desk, &what, || {
        let heard = twins.broker.heard(ONLINE_AT);
        let (last, before) = heard.split_last()?;
        let was_offline = before.iter().any(|it| it.payload == "offline");
        (was_offline && last.payload == "online").then_some(())
    });
    twins.cable.plug_into(twins.one.address());
    for _ in 0..ORDERS {
        twins.order("dance");
    }
    twins.wait_answers(ORDERS);
    twins.order("install");
    twins.desk.assert_runs(&images);
    twins.wait_stands("state", |it| it["release"] == "1.1.0" && it["phase"].is_null());
    assert_eq!(twins.ordered(), ["campaign.make"]);
    twins.assert_each_line_stands_once();
}

/// Only one of them is at the broker, and it does not hear what the other does meanwhile. The lead
/// says nothing by itself: nothing but the database's return makes that one look.
#[test]
fn what_another_server_did_while_one_had_no_database_the_broker_is_told_when_it_is_back() {
    let (Some(broker), Some(database)) = (Mosquitto::start(), database("twins_apart")) else {
        return;
    };
    let (before, after) = database.split_once('@').expect("somebody at a server");
    let (address, name) = after.split_once('/').expect("a database");
    let cable = Cable::to(address);
    let by_cable = format!("{before}@{}/{name}", cable.address());
    let one = Fleet::with(&format!("--database {database}"));
    let mqtt = broker.url(BROKER_PASSWORD);
    let _other = one.beside_with(&format!("--database {by_cable} --mqtt {mqtt}"));
    let lead = one.lead_by_hand("bench", LEAD);
    let says = |number: u32| {
        let _: Value = lead.post("/api/lead/check-in", &check_in(number)).unwrap();
    };
    let wait_told = |version: &str| {
        let what = format!("{version} is told");
        one.wait_alone(
            &what,
            || broker.story(),
            || {
                let heard = broker.heard(&format!("{LEAD}/state"));
                (heard.last()?.json()["release"] == version).then_some(())
            },
        );
    };
    says(10_000);
    wait_told("1.0.0");
    cable.cut();
    says(10_100);
    cable.mend();
    wait_told("1.1.0");
}

/// What a lead says that is alone in its group.
fn check_in(number: u32) -> Value {
    json!({ "id": LEAD, "documents": {
        "version": { "id": LEAD, "role": "receiver", "version_number": number, "image": "a4" },
        "group": { "members": [{ "id": LEAD, "role": "receiver", "lead": true, "linked": true }] },
        "health": { "errors": [] }, "rollout": { "rollout": null }, "history": { "history": [] },
    } })
}

const LEAD: &str = "02:00:00:00:00:01";
const MEMBER: &str = "02:00:00:00:00:02";
const ONLINE_AT: &str = "lockstep/server/availability";
/// Enough for both servers to be given some.
const ORDERS: usize = 8;
