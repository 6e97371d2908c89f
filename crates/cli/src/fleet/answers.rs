//! What a server answers, as far as the command uses it. What it leaves out is empty here, and
//! what nothing here uses is passed over, so that servers older and newer than this command can be
//! asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A list of groups.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Groups {
    /// By name.
    pub groups: Vec<Group>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// A group.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Group {
    /// Its identity.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its time zone; empty: UTC.
    pub zone: String,
    /// When it may be touched; empty: at any time.
    pub hours: String,
    /// `automatic` or `notify`.
    pub mode: String,
    /// Its lead's address.
    pub lead: String,
    /// When it was let in.
    pub enrolled_at: Option<String>,
    /// When its lead came last.
    pub seen_at: Option<String>,
    /// Which product it is.
    pub system: Option<String>,
    /// What all of it runs.
    pub version: Option<String>,
    /// The phase of its rollout.
    pub phase: Option<String>,
    /// What a person should look at.
    pub attention: Option<String>,
    /// What its lead makes of an offer.
    pub offer_answer: Option<serde_json::Value>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Its past rollouts.
    pub history: Vec<PastRollout>,
    /// The campaign that it is in.
    pub campaign: Option<serde_json::Value>,
}

impl Group {
    /// As a person writes them.
    pub fn labels_text(&self) -> String {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        labels.collect::<Vec<_>>().join(",")
    }
}

/// A device of a group.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its address.
    pub id: String,
    /// Its role.
    pub role: String,
    /// Whether it leads.
    pub lead: bool,
    /// The hash of what it runs, or its beginning.
    pub image: Option<String>,
    /// The version of that.
    pub version: Option<String>,
    /// Whether the lead hears it.
    pub linked: bool,
}

/// A rollout that is over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PastRollout {
    /// Its identity.
    pub rollout: String,
    /// `forward`, `back` or `repair`.
    pub kind: String,
    /// `keep` or `revert`.
    pub verdict: String,
    /// Why it was reverted, for people.
    pub why: Option<String>,
    /// Where it went.
    pub version: Option<String>,
    /// Where it came from.
    pub version_before: Option<String>,
}

/// A list of campaigns.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Campaigns {
    /// Newest first.
    pub campaigns: Vec<Campaign>,
}

/// A campaign.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Campaign {
    /// Its identity.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The release's identity.
    pub release: String,
    /// `running`, `paused`, `aborted` or `done`.
    pub state: String,
    /// Why it is paused.
    pub why: String,
    /// So many failures are allowed.
    pub failures_max: usize,
    /// Its steps.
    pub waves: Vec<Wave>,
    /// When it was made.
    pub made_at: String,
    /// By whom.
    pub made_by: String,
    /// When it was over.
    pub ended_at: Option<String>,
    /// How many groups stand how.
    pub counts: BTreeMap<String, usize>,
    /// All its groups.
    pub groups: Vec<Participant>,
}

impl Campaign {
    /// Whether it will offer nothing any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "aborted")
    }

    /// So many groups stand like this.
    pub fn count(&self, standing: &str) -> usize {
        self.groups.iter().filter(|group| group.standing == standing).count()
    }
}

/// A step of a campaign.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Wave {
    /// Its share in percent; 0: a canary.
    pub percent: u8,
    /// Whether a person has to approve it.
    pub needs_approval: bool,
    /// Whether one has.
    pub is_approved: bool,
}

/// A group in a campaign.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Participant {
    /// Its identity.
    pub group: String,
    /// What people call it.
    pub name: String,
    /// Its wave, from 0.
    pub wave: usize,
    /// How it stands.
    pub standing: String,
    /// Why.
    pub cause: Option<String>,
    /// What it ran before.
    pub version_before: Option<String>,
    /// The phase of its rollout.
    pub phase: Option<String>,
}

/// The answer to an upload.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Release {
    /// Its identity.
    pub id: String,
    /// The product.
    pub system: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of its bundle.
    pub bundle_sha256: String,
    /// The size of its bundle.
    pub size_bytes: u64,
    /// How many have signed it.
    pub signatures: u32,
}

/// What would go wrong if all groups got a release.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Foreseen {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// So many groups were looked at.
    pub checked: usize,
    /// Whether there are more than were looked at.
    pub more: bool,
}

impl Foreseen {
    /// Whether some groups would refuse it.
    pub fn stops(&self) -> bool {
        self.findings.iter().any(|it| it.weight == "stops")
    }
}

/// Something that would go wrong, and where.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// `stops` or `warns`.
    pub weight: String,
    /// For programs.
    pub code: String,
    /// For people.
    pub text: String,
    /// In so many groups.
    pub groups: usize,
    /// The names of the first of them.
    pub names: Vec<String>,
}

/// A list of releases.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Releases {
    /// Newest first.
    pub releases: Vec<Release>,
}
