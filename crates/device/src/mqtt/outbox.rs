//! What the broker is still to be told.
//!
//! There is no second queue beside the journal: its rings hold what waits, and this remembers how
//! far the broker is. What falls out of a ring before its turn is counted, and said once the
//! broker has caught up.

use alloc::format;
use alloc::string::{String, ToString};

use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use serde::Serialize;

use super::Broker;
use crate::http::views;
use crate::journal::{EVENT_LEVEL, EVENTS_MAX, Journal, LINES_MAX, Level};
use crate::node::Node;
use crate::setup::{Application, Duty};

/// How far the broker is with this boot.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    line: u32,
    event: u32,
    lines_dropped: u32,
    events_dropped: u32,
    /// What is retained there, as far as this connection said it.
    device: String,
    rollout: String,
    /// When the rollout was looked at last.
    rollout_at: Option<Instant>,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    /// Behind the device's own prefix.
    pub(super) topic: String,
    /// JSON.
    pub(super) payload: String,
    /// For whom it is.
    pub(super) kept: Kept,
    about: About,
}

/// Who is given a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Whoever listens now or comes later, until there is a newer one.
    Retained,
    /// Whoever listens now.
    Passing,
}

#[derive(Debug)]
enum About {
    Device,
    /// Without what changes by itself.
    Rollout(String),
    Line(u32),
    Event(u32),
}

impl Outbox {
    /// A new connection: who subscribes is to find what is so now.
    pub(super) fn begin(&mut self) {
        self.device.clear();
        self.rollout.clear();
        self.rollout_at = None;
    }

    /// The next message, which stays the next one until it was [`taken`](Self::taken).
    pub(super) fn next<A: Application>(
        &mut self,
        now: Instant,
        node: &mut Node<A>,
        broker: &Broker,
    ) -> Option<Message> {
        let device = device(node);
        if device != self.device {
            let topic = String::from("device");
            return Some(Message {
                topic,
                payload: device,
                kept: Kept::Retained,
                about: About::Device,
            });
        }
        let boot = node.agent().boot_number();
        if let Some(message) = self.next_of(boot, node.journal()) {
            return Some(message);
        }
        if let Some(text) = self.dropped(broker) {
            node.log(now, Level::Warning, text);
            return self.next_of(boot, node.journal());
        }
        self.next_rollout(now, node)
    }

    /// The older of the next line and the next event. An event stands in the log too, before it.
    fn next_of(&mut self, boot: u32, journal: &Journal) -> Option<Message> {
        let line = journal.lines_after(self.line).next();
        let event = journal.events_after(self.event).next();
        if let Some(line) = line {
            self.lines_dropped += line.seq - self.line - 1;
            self.line = line.seq - 1;
        }
        if let Some(event) = event {
            self.events_dropped += event.seq - self.event - 1;
            self.event = event.seq - 1;
        }
        match (line, event) {
            (Some(line), event) if event.is_none_or(|event| line.at <= event.at) => {
                let (uptime_ms, level) = (line.at.ms, line.level.as_str());
                let view = LineView { boot, seq: line.seq, uptime_ms, level, text: &line.text };
                let topic = format!("log/{level}");
                let payload = views::json_text(&view);
                Some(Message { topic, payload, kept: Kept::Passing, about: About::Line(line.seq) })
            }
            (_, Some(event)) => {
                let level = EVENT_LEVEL.as_str();
                let payload = views::json_text(&EventView {
                    boot,
                    level,
                    event: views::EventView::of(event),
                });
                let topic = String::from("event");
                Some(Message {
                    topic,
                    payload,
                    kept: Kept::Passing,
                    about: About::Event(event.seq),
                })
            }
            (_, None) => None,
        }
    }

    /// Only a lead knows of rollouts; progress changes often, and is looked at now and then.
    fn next_rollout<A: Application>(&mut self, now: Instant, node: &Node<A>) -> Option<Message> {
        let is_due = self.rollout_at.is_none_or(|at| now.ms_since(at) >= ROLLOUT_EVERY_MS);
        if node.setup().duty != Duty::Lead || !is_due {
            return None;
        }
        self.rollout_at = Some(now);
        let state = views::rollout(node, None);
        if state == self.rollout {
            return None;
        }
        let payload = views::rollout(node, Some(now));
        let about = About::Rollout(state);
        Some(Message { topic: String::from("rollout"), payload, kept: Kept::Retained, about })
    }

    /// What was dropped and not said yet, said once.
    fn dropped(&mut self, broker: &Broker) -> Option<String> {
        let (lines, events) = (self.lines_dropped, self.events_dropped);
        if (lines, events) == (0, 0) {
            return None;
        }
        (self.lines_dropped, self.events_dropped) = (0, 0);
        Some(format!(
            "broker `{}` has missed {lines} log lines and {events} events, the oldest; not more \
             than {LINES_MAX} and {EVENTS_MAX} wait for it. Outcomes are in the history",
            broker.address()
        ))
    }

    /// The broker has it.
    pub(super) fn taken(&mut self, message: Message) {
        match message.about {
            About::Device => self.device = message.payload,
            About::Rollout(state) => self.rollout = state,
            About::Line(seq) => self.line = seq,
            About::Event(seq) => self.event = seq,
        }
    }

    /// The broker takes no message of this size, now or later.
    pub(super) fn too_large(&mut self, message: Message) {
        match message.about {
            About::Line(_) => self.lines_dropped += 1,
            About::Event(_) => self.events_dropped += 1,
            About::Device | About::Rollout(_) => (),
        }
        self.taken(message);
    }
}

#[derive(Serialize)]
struct LineView<'a> {
    boot: u32,
    seq: u32,
    uptime_ms: u64,
    level: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct EventView<'a> {
    boot: u32,
    level: &'static str,
    #[serde(flatten)]
    event: views::EventView<'a>,
}

#[derive(Serialize)]
struct DeviceView<'a> {
    id: String,
    role: String,
    lead: bool,
    hardware: &'a str,
    version: String,
    version_number: u32,
    image: String,
    on_trial: bool,
    boot: u32,
}

/// What the device is and runs.
fn device<A: Application>(node: &Node<A>) -> String {
    let (setup, agent) = (node.setup(), node.agent());
    let number = node.announced().number;
    views::json_text(&DeviceView {
        id: setup.id.to_string(),
        role: setup.role.to_string(),
        lead: setup.duty == Duty::Lead,
        hardware: &setup.hardware,
        version: ReleaseVersion::from_number(number).to_string(),
        version_number: number,
        image: agent.running().to_string(),
        on_trial: agent.on_trial(),
        boot: agent.boot_number(),
    })
}

/// Between two looks at a rollout, and so between two messages about its progress.
const ROLLOUT_EVERY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use std::vec;

    use super::super::Prefix;
    use super::*;

    const BOOT: u32 = 3;

    fn broker() -> Broker {
        let prefix = Prefix::new("lockstep").unwrap();
        Broker { host: "10.0.0.9".into(), port: 1883, login: None, prefix }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    /// Everything that waits, by topic and text.
    fn drain(outbox: &mut Outbox, journal: &Journal) -> Vec<(String, String)> {
        let mut all = Vec::new();
        while let Some(message) = outbox.next_of(BOOT, journal) {
            let payload: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
            assert_eq!(payload["boot"], BOOT);
            all.push((message.topic.clone(), payload["text"].as_str().unwrap().into()));
            outbox.taken(message);
        }
        all
    }

    #[test]
    fn lines_and_events_go_in_the_order_in_which_they_happened() {
        let (mut outbox, mut journal) = (Outbox::default(), Journal::default());
        journal.log(at(1), Level::Info, "first");
        journal.tell(at(2), "entered", Some("staging"), None, "staging".into());
        journal.log(at(3), Level::Error, "last");
        let expected = [
            ("log/info", "first"),
            ("log/notice", "staging"),
            ("event", "staging"),
            ("log/error", "last"),
        ];
        let expected = expected.map(|(topic, text)| (topic.to_string(), text.to_string()));
        assert_eq!(drain(&mut outbox, &journal), expected);
        assert_eq!(drain(&mut outbox, &journal), vec![]);
    }

    #[test]
    fn a_message_that_was_not_taken_is_the_next_one_again() {
        let (mut outbox, mut journal) = (Outbox::default(), Journal::default());
        journal.log(at(1), Level::Info, "first");
        journal.log(at(2), Level::Info, "second");
        for _ in 0..2 {
            assert!(outbox.next_of(BOOT, &journal).unwrap().payload.contains("first"));
        }
    }

    #[test]
    fn what_a_broker_missed_is_counted_and_said_once_it_has_caught_up() {
        let (mut outbox, mut journal) = (Outbox::default(), Journal::default());
        for number in 0..LINES_MAX + 7 {
            journal.log(at(number as u64), Level::Info, "line");
        }
        assert_eq!(drain(&mut outbox, &journal).len(), LINES_MAX);
        let text = outbox.dropped(&broker()).unwrap();
        assert!(text.starts_with("broker `10.0.0.9:1883` has missed 7 log lines and 0 events"));
        assert_eq!(outbox.dropped(&broker()), None);
    }

    #[test]
    fn a_message_that_is_too_large_for_the_broker_counts_as_dropped() {
        let (mut outbox, mut journal) = (Outbox::default(), Journal::default());
        journal.log(at(1), Level::Info, "long");
        let message = outbox.next_of(BOOT, &journal).unwrap();
        outbox.too_large(message);
        assert!(outbox.next_of(BOOT, &journal).is_none());
        assert!(outbox.dropped(&broker()).unwrap().contains("missed 1 log lines"));
    }
}
