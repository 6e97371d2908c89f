//! What stands at the broker since the connection began: only what differs is told, and what is no
//! more is cleared. Of each message only a hash is kept, so that a hundred thousand groups take
//! some ten megabytes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::topics::{Message, Place, Topics};

/// By group.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<String, Standing>);

#[derive(Debug, Default)]
struct Standing {
    devices: Vec<String>,
    hashes: Vec<u64>,
}

impl Told {
    /// What must be told so that these stand for a group of these devices.
    pub(super) fn news(
        &mut self,
        topics: &Topics,
        group: &str,
        devices: Vec<String>,
        messages: Vec<Message>,
    ) -> Vec<Message> {
        let before = self.0.remove(group).unwrap_or_default();
        let hashes: Vec<_> = messages.iter().map(hash).collect();
        let gone = before.devices.iter().filter(|device| !devices.contains(device));
        let mut news: Vec<_> =
            gone.flat_map(|device| topics.cleared(group, Some(device))).collect();
        let told = |message: &Message| before.hashes.contains(&hash(message));
        news.extend(messages.into_iter().filter(|message| !told(message)));
        self.0.insert(group.to_owned(), Standing { devices, hashes });
        news
    }

    /// What must be told so that nothing stands for a group.
    pub(super) fn farewell(&mut self, topics: &Topics, group: &str) -> Vec<Message> {
        let Some(before) = self.0.remove(group) else { return Vec::new() };
        let of_devices =
            before.devices.iter().flat_map(|device| topics.cleared(group, Some(device)));
        of_devices.chain(topics.cleared(group, None)).collect()
    }

    /// Another may have told otherwise since: nothing counts as told, but that it was.
    pub(super) fn doubt(&mut self) {
        for standing in self.0.values_mut() {
            standing.hashes.clear();
        }
    }

    /// Whether something was told of it.
    pub(super) fn knows(&self, place: &Place) -> bool {
        let Some(standing) = self.0.get(&place.group) else { return false };
        place.device.as_ref().is_none_or(|device| standing.devices.contains(device))
    }

    /// All groups of which something was told.
    pub(super) fn groups(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

fn hash(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &str) -> Message {
        Message { topic: topic.to_owned(), payload: payload.to_owned() }
    }

    fn names(messages: &[Message]) -> Vec<(&str, &str)> {
        messages.iter().map(|it| (it.topic.as_str(), it.payload.as_str())).collect()
    }

    #[test]
    fn what_stands_already_is_not_told_again_and_a_device_that_left_is_cleared() {
        let topics = Topics::new("lockstep", "");
        let mut told = Told::default();
        let both = || vec!["a".to_owned(), "b".to_owned()];
        let state = |text| vec![message("g/state", text), message("g/a/state", "1")];
        assert_eq!(told.news(&topics, "g", both(), state("1")).len(), 2);
        assert_eq!(told.news(&topics, "g", both(), state("1")), []);
        assert_eq!(
            names(&told.news(&topics, "g", both(), state("2"))),
            [("g/state", "2")],
            "only what differs"
        );
        let place = |device: &str| Place { group: "g".into(), device: Some(device.into()) };
        assert!(told.knows(&place("b")));
        told.doubt();
        assert!(told.knows(&place("b")));
        assert_eq!(told.news(&topics, "g", both(), state("2")).len(), 2);
        let news = told.news(&topics, "g", vec!["a".to_owned()], state("2"));
        let cleared = [
            ("homeassistant/update/lockstep_g/b/config", ""),
            ("lockstep/g/b/update", ""),
            ("lockstep/g/b/state", ""),
        ];
        assert_eq!(names(&news), cleared);
        assert!(!told.knows(&place("b")));
    }

    #[test]
    fn of_a_group_that_was_removed_nothing_stands_and_its_own_state_goes_last() {
        let topics = Topics::new("lockstep", "");
        let mut told = Told::default();
        told.news(&topics, "g", vec!["a".to_owned()], vec![message("lockstep/g/state", "1")]);
        let farewell = told.farewell(&topics, "g");
        assert_eq!(farewell.len(), 6);
        assert!(farewell.iter().all(|it| it.payload.is_empty()));
        assert_eq!(farewell.last().unwrap().topic, "lockstep/g/state");
        assert_eq!(told.farewell(&topics, "g"), []);
        assert_eq!(told.groups(), Vec::<String>::new());
    }
}
