//! What a group's lead said last, as far as pages show it. Fields that an older or a newer device
//! does not have are empty: a page shows what there is.

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
    pub(super) protocol_range: Vec<u32>,
    pub(super) trusts_anybody: bool,
    pub(super) peers: Vec<Peer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) id: String,
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

    pub(super) const fn rollout(&self) -> Option<&Rollout> {
        self.rollout.rollout.as_ref()
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
    fn the_steps_before_the_present_one_are_done() {
        let rollout = Rollout { phase: "trial".to_owned(), ..Rollout::default() };
        let looks: Vec<_> = rollout.steps().into_iter().map(|(_, look)| look).collect();
        assert_eq!(looks, ["done", "done", "done", "now", "", ""]);
    }
}
