//! What a device answers, as far as the command uses it.
//!
//! A field that a device leaves out is empty here, so that devices older and newer than this
//! command can be asked. Fields that nothing here uses are passed over.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `GET /api/version`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Version {
    /// Its role.
    pub role: Option<String>,
    /// Its address.
    pub id: Option<String>,
    /// Whether it conducts the group's rollouts.
    pub lead: bool,
    /// Its board, for people.
    pub hardware: String,
    /// Its chip.
    pub chip: String,
    /// The version it runs.
    pub version: String,
    /// Its number; `None`: it does not say.
    pub version_number: Option<u32>,
    /// The oldest version that it exchanges data with.
    pub min_compatible: Option<u32>,
    /// The protocols that it speaks, the first and the last.
    pub protocol_range: Option<[u8; 2]>,
    /// The hash of the image it runs.
    pub image: String,
    /// The state of the running slot.
    pub ota_state: String,
    /// Whether the running image is not confirmed yet.
    pub on_trial: bool,
    /// Who takes it back from a bad image: `bootloader`, `agent` or `none`.
    pub rollback: String,
    /// Whether it takes releases that nobody signed.
    pub trusts_anybody: bool,
    /// The lowest epoch that it takes.
    pub epoch: u32,
    /// The other devices of the group.
    pub peers: Vec<Peer>,
    /// Seconds since its boot.
    pub uptime_seconds: u64,
}

/// Another device, as one of a group sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its address.
    pub id: String,
    /// Its role, when it has been heard.
    pub role: Option<String>,
    /// The number of the version it runs.
    pub version_number: Option<u32>,
    /// The beginning of the hash of the image it runs.
    pub image: Option<String>,
    /// Whether data is exchanged with it.
    pub compatible: Option<bool>,
    /// Why not.
    pub why: Option<String>,
    /// Whether the link to it carries data.
    pub linked: bool,
    /// Milliseconds since it was heard.
    pub heard_ms_ago: Option<u64>,
}

/// `GET /api/health`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `healthy` or `unhealthy`.
    pub status: String,
    /// What is wrong.
    pub errors: Vec<String>,
    /// Frames heard since boot: by lane, then by what became of them.
    pub frames: BTreeMap<String, BTreeMap<String, u64>>,
    /// The channel that its radio is on.
    pub channel: Option<u8>,
    /// Whether it looks for its lead.
    pub seeks_lead: bool,
}

/// `GET /api/rollout`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RolloutAnswer {
    /// The running rollout, or the last one.
    pub rollout: Option<Rollout>,
}

/// A rollout, as the lead sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// Its id.
    pub id: String,
    /// `forward`, `back` or `repair`.
    pub kind: String,
    /// Where it is.
    pub phase: String,
    /// `keep` or `revert`, once it is known.
    pub verdict: Option<String>,
    /// Why it is reverted.
    pub cause: Option<Cause>,
    /// The release it goes to.
    pub release: String,
    /// The members of the group.
    pub members: Vec<Member>,
    /// How far the bundle has come, while it is taken.
    pub upload: Option<Upload>,
    /// It waits once all have staged.
    pub held: bool,
    /// For so many seconds.
    pub starts_in_s: Option<u64>,
    /// The lead has lost the moment that it waited for.
    pub schedule_lost: bool,
}

impl Rollout {
    /// Whether nothing of it is left to do.
    pub fn is_settled(&self) -> bool {
        self.phase == "settled"
    }
}

/// Why a rollout is reverted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// A word for programs.
    pub code: String,
    /// Whose fault it is.
    pub member: Option<String>,
    /// A line for people.
    pub text: String,
}

/// A member of a rollout.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Its address.
    pub id: String,
    /// Its role.
    pub role: String,
    /// What it is doing.
    pub state: String,
    /// Bytes of its image that are in its flash.
    pub staged_bytes: u64,
    /// Bytes of its image.
    pub size_bytes: u64,
    /// Seconds until all of it is there, as far as anybody can tell.
    pub remaining_s: Option<u64>,
    /// Why it refused.
    pub refused: Option<String>,
}

/// How far a bundle has come.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Upload {
    /// The byte to go on with.
    pub next_offset: u64,
    /// The length of the bundle.
    pub size_bytes: u64,
}

impl Upload {
    /// Whether a bundle of this size can go on with it. A size of 0: the lead restarted within the
    /// head and forgot.
    pub fn is_of(&self, size_bytes: u64) -> bool {
        let known = self.size_bytes == size_bytes || self.size_bytes == 0;
        known && self.next_offset <= size_bytes
    }
}

/// `GET /api/group`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Group {
    /// All devices of the group.
    pub members: Vec<GroupMember>,
    /// Devices in reach that do not have the group's key.
    pub in_reach: Vec<Stranger>,
    /// The adoption that the lead is about, or was about last.
    pub adoption: Option<Adoption>,
}

/// A device in reach that does not have the group's key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Stranger {
    /// Its address.
    pub id: String,
    /// What its firmware calls itself.
    pub device_type: String,
    /// What it announces.
    pub version: Option<String>,
    /// Milliseconds since it was heard.
    pub heard_ms_ago: u64,
}

/// Where an adoption stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Adoption {
    /// Who is adopted.
    pub id: String,
    /// `asking`, `keying`, `adopted` or `failed`.
    pub state: String,
    /// Why it failed.
    pub problem: Option<AdoptionProblem>,
}

/// Why an adoption failed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AdoptionProblem {
    /// A short word for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// What can be done.
    pub hint: String,
}

/// A device of a group, as its lead knows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GroupMember {
    /// Its address.
    pub id: String,
    /// Its role.
    pub role: String,
    /// Whether it is the lead.
    pub lead: bool,
    /// Whether the link to it carries data.
    pub linked: bool,
    /// Milliseconds since it was heard; `None`: not since the lead's start.
    pub heard_ms_ago: Option<u64>,
    /// Whether it came after the last rollout, and does not run its release.
    pub behind: bool,
}

/// `GET /api/history`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct History {
    /// Newest first.
    pub history: Vec<Outcome>,
}

/// A rollout that is over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Its id.
    pub rollout: String,
    /// `forward`, `back` or `repair`.
    pub kind: String,
    /// `keep` or `revert`.
    pub verdict: String,
    /// Why it was reverted.
    pub cause: Option<Cause>,
    /// The release it went to.
    pub release: String,
    /// The release before it.
    pub release_before: Option<String>,
    /// Devices that made their image from a patch; older firmware does not say.
    pub patched: u32,
    /// How often a patch was of no use.
    pub patch_refused: u32,
    /// Why, the last time.
    pub patch_refusal: Option<String>,
}

/// `GET /api/logs`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Logs {
    /// Oldest first.
    pub logs: Vec<LogLine>,
}

/// A line of a log.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// Milliseconds since boot.
    pub uptime_ms: u64,
    /// `info`, `notice`, `warning` or `error`.
    pub level: String,
    /// What happened.
    pub text: String,
}

/// The answer to an accepted order.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Accepted {
    /// The rollout it led to.
    pub rollout: String,
}

/// The answer to what was not accepted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Why.
    pub error: Refusal,
    /// The rollout that stands in the way.
    pub rollout: Option<String>,
}

/// Why something was not accepted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// A word for programs.
    pub code: String,
    /// A line for people.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
    /// Every single reason, if there may be several.
    pub refusals: Vec<SingleRefusal>,
}

/// One of several reasons.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SingleRefusal {
    /// A word for programs.
    pub code: String,
    /// The member that refused.
    pub member: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// A line for people.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}
