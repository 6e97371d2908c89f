//! What a group's lead said last, as far as pages show it. Fields that an older or a newer device
//! does not have are empty: a page shows what there is.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// The documents of a check-in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    pub(super) version: Version,
    pub(super) group: Group,
    pub(super) health: Health,
    rollout: RolloutDocument,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) hardware: String,
    pub(super) board: String,
    pub(super) chip: String,
    pub(super) build_date: String,
    pub(super) build_time: String,
    pub(super) protocol_range: Vec<u32>,
    pub(super) min_compatible: Option<u32>,
    pub(super) slot: Option<u8>,
    pub(super) slot_bytes: u64,
    pub(super) ota_state: String,
    pub(super) on_trial: bool,
    pub(super) rollback: String,
    pub(super) keys: Option<u32>,
    pub(super) trusts_anybody: bool,
    pub(super) epoch: u32,
    pub(super) uptime_seconds: Option<u32>,
    pub(super) free_heap: Option<u64>,
    pub(super) boot_number: Option<u32>,
    pub(super) reset_reason: String,
    pub(super) peers: Vec<Peer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) min_compatible: Option<u32>,
    pub(super) protocol_range: Option<Vec<u32>>,
    pub(super) compatible: Option<bool>,
    pub(super) why: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Group {
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) role: String,
    pub(super) linked: bool,
    pub(super) heard_ms_ago: Option<u64>,
    pub(super) behind: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    pub(super) status: String,
    pub(super) checks: Vec<Check>,
    pub(super) channel: Option<u32>,
    pub(super) uptime_seconds: u64,
    pub(super) free_heap: Option<u64>,
    pub(super) frames: Frames,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) ok: bool,
    pub(super) detail: String,
}

/// Frames since boot, by what became of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Frames {
    pub(super) control: serde_json::Map<String, serde_json::Value>,
    pub(super) blocks: serde_json::Map<String, serde_json::Value>,
    pub(super) data: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RolloutDocument {
    rollout: Option<Rollout>,
}

/// The rollout that goes on, or the last one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rollout {
    pub(super) kind: String,
    pub(super) phase: String,
    pub(super) verdict: Option<String>,
    pub(super) cause: Option<Cause>,
    pub(super) release: String,
    pub(super) release_before: Option<String>,
    pub(super) can_abort: bool,
    pub(super) held: bool,
    pub(super) members: Vec<Part>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cause {
    pub(super) code: String,
    pub(super) text: String,
}

/// One member's part in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) role: String,
    pub(super) part: String,
    pub(super) state: String,
    pub(super) staged_bytes: u64,
    pub(super) size_bytes: u64,
    pub(super) remaining_s: Option<i64>,
    pub(super) at_rest: bool,
    pub(super) on_trial: bool,
    pub(super) healthy: bool,
    pub(super) settled: bool,
    pub(super) refused: Option<String>,
}

impl Said {
    /// Reads them; what cannot be read is as if it had not been said.
    pub(super) fn read(documents: &str) -> Self {
        serde_json::from_str(documents).unwrap_or_default()
    }

    /// A text of a device with its members' addresses as people call them.
    pub(super) fn named(&self, text: &str) -> String {
        let members = self.group.members.iter().filter(|it| !it.id.is_empty());
        let name = |text: String, it: &Member| match it.role.as_str() {
            "" => text,
            role => text.replace(&it.id, &format!("the {role} {}", it.id)),
        };
        let is_named = |it: &&Member| !text.contains(&format!("{} {}", it.role, it.id));
        members.filter(is_named).fold(text.to_owned(), name)
    }

    /// What is known of a device's link, and when it was heard, before the lead spoke.
    pub(super) fn member(&self, id: &str) -> Option<&Member> {
        self.group.members.iter().find(|it| it.id == id)
    }

    pub(super) fn peer(&self, id: &str) -> Option<&Peer> {
        self.version.peers.iter().find(|it| it.id == id)
    }

    pub(super) const fn rollout(&self) -> Option<&Rollout> {
        self.rollout.rollout.as_ref()
    }
}

impl Member {
    /// When it was heard last, if its lead spoke at `seen_at`.
    pub(super) fn heard_at(&self, seen_at: Option<Timestamp>) -> Option<Timestamp> {
        before(seen_at?, self.heard_ms_ago?)
    }
}

/// The moment so long before another.
pub(super) fn before(at: Timestamp, ms: u64) -> Option<Timestamp> {
    at.checked_sub(SignedDuration::from_millis(i64::try_from(ms).ok()?)).ok()
}

/// A range of protocol versions.
pub(super) fn range(range: &[u32]) -> Option<String> {
    match range {
        [from, to] if from == to => Some(from.to_string()),
        [from, to] => Some(format!("{from} to {to}")),
        _ => None,
    }
}

impl Health {
    /// Frames that were dropped, by lane and why.
    pub(super) fn dropped(&self) -> Vec<String> {
        let frames = &self.frames;
        let lanes =
            [("control", &frames.control), ("blocks", &frames.blocks), ("data", &frames.data)];
        let fields = lanes.into_iter().flat_map(|(lane, counts)| {
            counts.iter().map(move |(name, count)| (lane, name, count.as_u64().unwrap_or(0)))
        });
        fields
            .filter(|(_, name, count)| *count > 0 && !matches!(name.as_str(), "taken" | "known"))
            .map(|(lane, name, count)| format!("{count} {lane}: {}", name.replace('_', " ")))
            .collect()
    }
}

impl Part {
    /// How the member stands in the rollout, for people.
    pub(super) fn standing(&self) -> &str {
        match self {
            Self { settled: true, .. } => "settled",
            Self { healthy: true, on_trial: true, .. } => "healthy on trial",
            Self { on_trial: true, .. } => "on trial",
            Self { at_rest: true, .. } => "at rest",
            _ if self.part == "watch" => "not changed, watched",
            _ => &self.state,
        }
    }
}

impl Rollout {
    /// Bytes that are staged, of all that have to be.
    pub(super) fn progress(&self) -> (u64, u64) {
        let staged = self.members.iter().map(|it| it.staged_bytes.min(it.size_bytes)).sum();
        (staged, self.members.iter().map(|it| it.size_bytes).sum())
    }

    /// The phases, each with how it stands: `done`, `now`, `keep`, `revert`, or nothing yet.
    pub(super) fn steps(&self) -> Vec<(&'static str, &'static str)> {
        let at = PHASES.iter().position(|phase| *phase == self.phase).unwrap_or(0);
        let step = |(number, phase): (usize, &&'static str)| {
            let look = match (number.cmp(&at), self.verdict.as_deref()) {
                (std::cmp::Ordering::Less, _) => "done",
                (std::cmp::Ordering::Greater, _) => "",
                (std::cmp::Ordering::Equal, Some("keep")) => "keep",
                (std::cmp::Ordering::Equal, Some(_)) => "revert",
                (std::cmp::Ordering::Equal, None) => "now",
            };
            (*phase, look)
        };
        PHASES.iter().enumerate().map(step).collect()
    }
}

/// In the order in which they follow each other.
const PHASES: [&str; 6] = ["preflight", "staging", "rest", "trial", "settling", "settled"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_does_not_say_is_empty_and_no_error() {
        assert!(Said::read("{}").rollout().is_none());
        assert!(Said::read("not even JSON").version.peers.is_empty());
    }

    #[test]
    fn an_address_in_a_text_gets_the_name_of_its_role_once() {
        let member = |id: &str, role: &str| Member {
            id: id.to_owned(),
            role: role.to_owned(),
            ..Member::default()
        };
        let members = vec![member("02:01", "receiver"), member("02:02", "transmitter")];
        let said = Said { group: Group { members }, ..Said::default() };
        assert_eq!(said.named("02:02 fell back"), "the transmitter 02:02 fell back");
        assert_eq!(said.named("receiver 02:01 is silent"), "receiver 02:01 is silent");
    }

    #[test]
    fn the_steps_before_the_present_one_are_done() {
        let rollout = Rollout { phase: "trial".to_owned(), ..Rollout::default() };
        let looks: Vec<_> = rollout.steps().into_iter().map(|(_, look)| look).collect();
        assert_eq!(looks, ["done", "done", "done", "now", "", ""]);
    }
}
