//! What is told of a group, read from the tables once.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::manifests::Facts;
use crate::store::groups::{Device, Group};
use crate::store::{Store, StoreError};

/// A release that groups may be brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) id: String,
    /// The product; empty for one that names none.
    pub(super) system: String,
    pub(super) version: String,
    pub(super) number: u32,
    /// What is new, for people.
    pub(super) description: String,
    pub(super) roles: BTreeSet<String>,
}

/// All that were not withdrawn, the newest first.
pub(super) async fn offered(store: &Store) -> Result<Vec<Offered>, StoreError> {
    let releases = store.releases().await?;
    let mut offered: Vec<_> = releases
        .into_iter()
        .filter(|it| it.withdrawn_at.is_none())
        .filter_map(|it| {
            let roles = Facts::of(&it)?.roles.into_keys().collect();
            let (id, system, version) = (it.id, it.system, it.version);
            let (number, description) = (it.number, it.description);
            Some(Offered { id, system, version, number, description, roles })
        })
        .collect();
    offered.sort_by_key(|it| std::cmp::Reverse(it.number));
    Ok(offered)
}

/// A group and what belongs to it.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) group: Group,
    pub(super) devices: Vec<Device>,
    /// Releases for it, the newest first.
    fitting: Vec<Offered>,
    /// Its rollout, while one is open.
    members: Vec<Member>,
}

/// A device in the lead's account of a rollout.
#[derive(Debug, Clone, Deserialize)]
struct Member {
    id: String,
    part: String,
    staged_bytes: u64,
    size_bytes: u64,
}

impl Scene {
    pub(super) fn new(group: Group, devices: Vec<Device>, offered: &[Offered]) -> Self {
        let roles: BTreeSet<_> = devices.iter().map(|device| device.role.as_str()).collect();
        let system = group.system.as_deref().unwrap_or_default();
        // A release with an image for nobody is refused by the group.
        let fits = |it: &&Offered| {
            it.system == system && it.roles.iter().all(|role| roles.contains(role.as_str()))
        };
        let fitting = offered.iter().filter(fits).cloned().collect();
        let is_staging = STAGING.contains(&group.phase.as_str());
        let members = if is_staging { members(&group.documents) } else { Vec::new() };
        Self { group, devices, fitting, members }
    }

    /// The newest release for the group; with a role, the newest that has an image for it.
    pub(super) fn newest_for(&self, role: Option<&str>) -> Option<&Offered> {
        let has_it = |it: &&Offered| match role {
            None => !it.roles.is_empty(),
            Some(role) => it.roles.contains(role),
        };
        self.fitting.iter().find(has_it)
    }

    /// How much of what a rollout brings is there, of all or of one device; `None` when nothing is
    /// brought.
    pub(super) fn percent(&self, device: Option<&str>) -> Option<u64> {
        let is_wanted = |it: &&Member| device.is_none_or(|id| id == it.id) && it.part == "update";
        let wanted: Vec<_> = self.members.iter().filter(is_wanted).collect();
        // A lead may say anything: sums must not overflow.
        let sum = |of: fn(&Member) -> u64| {
            wanted.iter().fold(0_u64, |sum, member| sum.saturating_add(of(member)))
        };
        let all = sum(|it| it.size_bytes);
        let there = sum(|it| it.staged_bytes.min(it.size_bytes));
        (all > 0).then(|| there.saturating_mul(100).checked_div(all).unwrap_or(0).min(100))
    }
}

/// What is in the lead's account of its rollout; nothing, if it is told otherwise.
fn members(documents: &str) -> Vec<Member> {
    #[derive(Deserialize)]
    struct Documents {
        rollout: Document,
    }
    #[derive(Deserialize)]
    struct Document {
        rollout: Option<Rollout>,
    }
    #[derive(Deserialize)]
    struct Rollout {
        members: Vec<Member>,
    }
    let documents = serde_json::from_str::<Documents>(documents);
    let rollout = documents.ok().and_then(|it| it.rollout.rollout);
    rollout.map(|it| it.members).unwrap_or_default()
}

/// Phases in which images are on their way.
const STAGING: [&str; 2] = ["preflight", "staging"];
