//! From a group as the tables have it to topics and what stands there: no I/O.
//!
//! A group's identity is its level in a topic, because a name may have any letters and may change;
//! names are in what is told. Whatever a lead has said of its group is cut to a length here, and a
//! device whose address is none has no topic.
//!
//! Home Assistant throws a whole message away that has a field it does not know, or null in the
//! place of a text. So what it reads has a topic of its own, and what is not known is left out.

use lockstep_proto::id::DeviceId;
use lockstep_proto::version::ReleaseVersion;
use serde_json::{Map, Value, json};

use super::facts::Scene;
use crate::store::groups::{Device, Event};

/// What is published: with an empty payload, that there is nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: String,
}

/// A group, or a device of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: String,
    pub(super) device: Option<String>,
}

/// The topics of one fleet.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    prefix: String,
    /// Where people find the server.
    public_url: String,
}

impl Topics {
    pub(super) fn new(prefix: &str, public_url: &str) -> Self {
        Self { prefix: prefix.to_owned(), public_url: public_url.to_owned() }
    }

    /// Whether a server is there; its last will says that it is not.
    pub(super) fn availability(&self) -> String {
        format!("{}/server/availability", self.prefix)
    }

    /// Orders to any group. Two servers share them, so that each is carried out once.
    pub(super) fn orders(&self) -> String {
        format!("$share/lockstep/{}/+/command", self.prefix)
    }

    /// What stands there of any group, and of any device.
    pub(super) fn states(&self) -> [String; 2] {
        [format!("{}/+/state", self.prefix), format!("{}/+/+/state", self.prefix)]
    }

    fn of_group(&self, group: &str, last: &str) -> String {
        format!("{}/{group}/{last}", self.prefix)
    }

    fn of_device(&self, group: &str, device: &str, last: &str) -> String {
        format!("{}/{group}/{device}/{last}", self.prefix)
    }

    /// Everything that stands for a group.
    pub(super) fn retained(&self, scene: &Scene) -> Vec<Message> {
        let id = &scene.group.id;
        let message = |topic, payload: Value| Message { topic, payload: payload.to_string() };
        let mut messages = vec![
            message(self.of_group(id, STATE), group_state(scene)),
            message(self.of_group(id, UPDATE), group_update(scene)),
            message(discovery_of_group(id), self.group_discovery(scene)),
        ];
        for device in scene.devices.iter().filter(|device| has_topic(device)) {
            let topic = |last| self.of_device(id, &device.id, last);
            messages.push(message(topic(STATE), device_state(scene, device)));
            messages.push(message(topic(UPDATE), device_update(scene, device)));
            let discovery = self.device_discovery(scene, device);
            messages.push(message(discovery_of_device(id, &device.id), discovery));
        }
        messages
    }

    /// That nothing stands for it any more. Its state goes last: it shows what is to be cleared to
    /// whoever was stopped half-way.
    pub(super) fn cleared(&self, group: &str, device: Option<&str>) -> [Message; 3] {
        let topics = match device {
            None => [
                discovery_of_group(group),
                self.of_group(group, UPDATE),
                self.of_group(group, STATE),
            ],
            Some(device) => [
                discovery_of_device(group, device),
                self.of_device(group, device, UPDATE),
                self.of_device(group, device, STATE),
            ],
        };
        topics.map(|topic| Message { topic, payload: String::new() })
    }

    /// Whose state stands there; `None`: it is no topic of ours.
    pub(super) fn place(&self, topic: &str) -> Option<Place> {
        let levels: Vec<&str> = self.below(topic)?.split('/').collect();
        let (group, device) = match levels.as_slice() {
            [group, STATE] => (*group, None),
            [group, device, STATE] if is_address(device) => (*group, Some((*device).to_owned())),
            _ => return None,
        };
        is_group(group).then(|| Place { group: group.to_owned(), device })
    }

    /// The group that is ordered something there.
    pub(super) fn ordered<'a>(&self, topic: &'a str) -> Option<&'a str> {
        self.below(topic)?.strip_suffix("/command").filter(|group| is_group(group))
    }

    fn below<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.prefix)?.strip_prefix('/')
    }

    /// Something that happened in a group, as its lead or the server saw it.
    pub(super) fn line(&self, group: &str, lead: &str, event: &Event) -> Message {
        let payload = json!({
            "id": event.id, "at": event.at, "level": event.level, "kind": event.kind,
            "text": cut(&event.said, TEXT_CHARS_MAX),
        });
        Message { topic: self.of_device(group, lead, LOG), payload: payload.to_string() }
    }

    /// What became of an order.
    pub(super) fn answer(&self, group: &str, level: &str, text: &str) -> Message {
        let text = cut(text, TEXT_CHARS_MAX);
        let payload = json!({ "at": jiff::Timestamp::now(), "level": level, "text": text });
        Message { topic: self.of_group(group, LOG), payload: payload.to_string() }
    }

    /// How Home Assistant shows a group: with a button.
    fn group_discovery(&self, scene: &Scene) -> Value {
        let group = &scene.group;
        let name = node_of_group(&group.id);
        let mut device = json!({
            "identifiers": [name], "name": group.name, "manufacturer": MAKER,
            "model": format!("group of {}", scene.devices.len()),
        });
        insert(&mut device, "sw_version", version(group.number));
        // An address that is none makes it throw the message away.
        let is_url = self.public_url.starts_with("http");
        let page = is_url.then(|| format!("{}/groups/{}", self.public_url, group.id));
        insert(&mut device, "configuration_url", page);
        json!({
            "unique_id": name, "name": "Release", "device_class": "firmware",
            "state_topic": self.of_group(&group.id, UPDATE),
            "command_topic": self.of_group(&group.id, "command"), "payload_install": "install",
            "availability_topic": self.availability(), "origin": origin(), "device": device,
        })
    }

    /// How Home Assistant shows a device: it goes with its group, so it has no button.
    fn device_discovery(&self, scene: &Scene, device: &Device) -> Value {
        let group = &scene.group.id;
        let role = cut(&device.role, ROLE_CHARS_MAX);
        let name = match role.as_str() {
            "" => format!("{} {}", scene.group.name, device.id),
            role => format!("{} {role}", scene.group.name),
        };
        let plain = plain(&device.id);
        let mut about = json!({
            "identifiers": [format!("lockstep_{plain}")], "connections": [["mac", device.id]],
            "name": name, "manufacturer": MAKER, "via_device": node_of_group(group),
        });
        insert(&mut about, "model", (!role.is_empty()).then_some(role));
        insert(&mut about, "sw_version", version(device.number));
        json!({
            "unique_id": format!("{}_{plain}", node_of_group(group)), "name": "Firmware",
            "device_class": "firmware", "state_topic": self.of_device(group, &device.id, UPDATE),
            "availability_topic": self.availability(), "origin": origin(), "device": about,
        })
    }
}

fn group_state(scene: &Scene) -> Value {
    let group = &scene.group;
    json!({
        "name": group.name,
        "release": version(group.number),
        "phase": some(&group.phase),
        "progress": scene.percent(None),
        "attention": some(&cut(&group.attention, TEXT_CHARS_MAX)),
        "offer_answer": group.offer_answer.as_ref().map(|text| cut(text, TEXT_CHARS_MAX)),
        "seen_at": group.seen_at,
    })
}

fn device_state(scene: &Scene, device: &Device) -> Value {
    json!({
        "role": some(&cut(&device.role, ROLE_CHARS_MAX)),
        "lead": device.is_lead,
        "linked": device.is_linked,
        "release": version(device.number),
        "image": some(&cut(&device.image, IMAGE_CHARS_MAX)),
        "progress": scene.percent(Some(&device.id)),
    })
}

fn group_update(scene: &Scene) -> Value {
    update(scene, scene.group.number, None)
}

fn device_update(scene: &Scene, device: &Device) -> Value {
    update(scene, device.number, Some(device))
}

/// What Home Assistant's `update` reads; what nobody offers a newer one for is up to date.
fn update(scene: &Scene, number: u32, device: Option<&Device>) -> Value {
    let newest = scene.newest_for(device.map(|device| device.role.as_str()));
    let installed = version(number);
    let title = scene.group.system.as_deref().filter(|system| !system.is_empty());
    let mut state = json!({
        "title": cut(title.unwrap_or(&scene.group.name), ROLE_CHARS_MAX),
        "release_summary": cut(newest.map_or("", |it| &it.description), SUMMARY_CHARS_MAX),
        "in_progress": !scene.group.phase.is_empty(),
        "update_percentage": scene.percent(device.map(|device| device.id.as_str())),
    });
    let latest = newest.map(|it| it.version.clone()).or_else(|| installed.clone());
    insert(&mut state, "installed_version", installed);
    insert(&mut state, "latest_version", latest);
    state
}

fn insert(object: &mut Value, key: &str, value: Option<String>) {
    let object: Option<&mut Map<_, _>> = object.as_object_mut();
    if let (Some(object), Some(value)) = (object, value) {
        object.insert(key.to_owned(), value.into());
    }
}

fn origin() -> Value {
    json!({ "name": MAKER, "sw_version": env!("CARGO_PKG_VERSION") })
}

fn node_of_group(group: &str) -> String {
    format!("lockstep_{group}")
}

fn discovery_of_group(group: &str) -> String {
    format!("{DISCOVERY}/{}/update/config", node_of_group(group))
}

fn discovery_of_device(group: &str, device: &str) -> String {
    format!("{DISCOVERY}/{}/{}/config", node_of_group(group), plain(device))
}

/// An address without colons, which Home Assistant takes in no topic.
fn plain(device: &str) -> String {
    device.replace(':', "")
}

/// Whether a device may have topics: a lead names its members as it likes.
pub(super) fn has_topic(device: &Device) -> bool {
    is_address(&device.id)
}

/// In the one spelling that the tables have.
pub(super) fn is_address(text: &str) -> bool {
    text.parse::<DeviceId>().is_ok_and(|id| id.to_string() == text)
}

/// Whether it could be an identity that this program draws.
fn is_group(text: &str) -> bool {
    text.len() == GROUP_DIGITS && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

fn version(number: u32) -> Option<String> {
    (number > 0).then(|| ReleaseVersion::from_number(number).to_string())
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max - 1).collect();
    kept + "…"
}

const STATE: &str = "state";
const UPDATE: &str = "update";
const LOG: &str = "log";
const MAKER: &str = "Lockstep";
/// Where Home Assistant looks for `update` entities.
const DISCOVERY: &str = "homeassistant/update";
/// See `store::new_id`.
const GROUP_DIGITS: usize = 20;
/// Characters of a text for people.
const TEXT_CHARS_MAX: usize = 400;
/// Characters of a role, and of a title.
const ROLE_CHARS_MAX: usize = 80;
/// Characters of an image's hash.
const IMAGE_CHARS_MAX: usize = 64;
/// Home Assistant cuts a summary there.
const SUMMARY_CHARS_MAX: usize = 255;
/// Bytes of a message, at most: every text in it is cut. A character has at most 4 bytes, JSON
/// makes at most 6 of one.
pub(super) const MESSAGE_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
