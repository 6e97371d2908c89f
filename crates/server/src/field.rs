//! The groups of the field, read from the tables for a check: what is known of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::check::{FieldGroup, Finding, LeadFacts, check};
use crate::fleet::Labels;
use crate::manifests::Facts;
use crate::store::groups::{Device, Filter, Group};
use crate::store::releases::Release;
use crate::store::{Store, StoreError};

/// What will go wrong if these groups are brought to a release.
pub async fn findings(
    store: &Store,
    release: &Release,
    groups: &[Group],
) -> Result<Vec<Finding>, StoreError> {
    let releases = store.releases().await?;
    let mut field = Vec::with_capacity(groups.len());
    for group in groups {
        field.push(field_group(group, store.devices(&group.id).await?));
    }
    Ok(foresee(release, &field, &releases))
}

/// What will go wrong if such groups get a release that do not run it yet.
#[derive(Debug, Default)]
pub struct Foreseen {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// So many groups were looked at.
    pub checked: usize,
    /// Whether there are more than are looked at: the first of them by name.
    pub is_more: bool,
}

impl Foreseen {
    /// Looks at the groups; a release that was withdrawn will go nowhere.
    pub async fn of(store: &Store, release: &Release, filter: &Filter) -> Result<Self, StoreError> {
        if release.withdrawn_at.is_some() {
            return Ok(Self::default());
        }
        let groups = store.groups(filter, "", CHECKED_MAX + 1).await?;
        let is_more = i64::try_from(groups.len()).is_ok_and(|found| found > CHECKED_MAX);
        let shown = groups.into_iter().take(usize::try_from(CHECKED_MAX).unwrap_or(usize::MAX));
        let is_for = |it: &Group| fits(release, it) && it.number != release.number;
        let groups: Vec<Group> = shown.filter(is_for).collect();
        let field = field_of(&groups, store.devices_of_first(filter, CHECKED_MAX).await?);
        let findings = foresee(release, &field, &store.releases().await?);
        Ok(Self { findings, checked: groups.len(), is_more })
    }

    /// Whether some of the groups would refuse it.
    pub fn stops(&self) -> bool {
        self.findings.iter().any(Finding::stops)
    }
}

/// What was foreseen since something changed last, so that a page that many look at, or one looks
/// at again, does not read the whole field each time. What a lead says of itself without news (see
/// `lead::report`) is seen with the next change; a campaign that begins reads everything anew.
#[derive(Debug, Default)]
pub struct Foresight {
    changes: AtomicU64,
    seen: Mutex<Seen>,
}

/// By release and labels.
#[derive(Debug, Default)]
struct Seen {
    after_changes: u64,
    foreseen: BTreeMap<(String, String), Arc<Foreseen>>,
}

impl Foresight {
    /// Something has changed: nothing of before counts.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What will go wrong if all groups with these labels get a release.
    pub async fn of(
        &self,
        store: &Store,
        release: &Release,
        labels: &Labels,
    ) -> Result<Arc<Foreseen>, StoreError> {
        // Before anything is read: what changes meanwhile makes it old.
        let changes = self.changes.load(Ordering::SeqCst);
        let key = (release.id.clone(), labels.stored());
        if let Some(known) = self.seen(changes).foreseen.get(&key) {
            return Ok(Arc::clone(known));
        }
        let filter = Filter { labels: labels.clone(), ..Filter::default() };
        let foreseen = Arc::new(Foreseen::of(store, release, &filter).await?);
        let mut seen = self.seen(changes);
        if seen.after_changes == changes && seen.foreseen.len() < SEEN_MAX {
            seen.foreseen.insert(key, Arc::clone(&foreseen));
        }
        Ok(foreseen)
    }

    /// What was seen after so many changes, or more.
    fn seen(&self, changes: u64) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.after_changes < changes {
            *seen = Seen { after_changes: changes, foreseen: BTreeMap::new() };
        }
        seen
    }
}

/// Whether a release can be offered to a group at all.
pub fn fits(release: &Release, group: &Group) -> bool {
    release.withdrawn_at.is_none() && other_product(release, group).is_none()
}

/// The product of a group that a release is not for; `None`: it is for this group, or the group has
/// not said what it is.
pub fn other_product<'a>(release: &Release, group: &'a Group) -> Option<&'a str> {
    let system = group.system.as_deref()?;
    (!release.system.is_empty() && system != release.system).then_some(system)
}

/// The same of what was read before.
pub fn foresee(release: &Release, field: &[FieldGroup], releases: &[Release]) -> Vec<Finding> {
    let Some(facts) = Facts::of(release) else { return Vec::new() };
    check(&facts, release.signatures, field, &others(release, &facts, releases))
}

/// What is known of the other releases of the product.
pub fn others(release: &Release, facts: &Facts, releases: &[Release]) -> Vec<Facts> {
    let same = releases.iter().filter(|it| it.system == release.system);
    same.filter_map(Facts::of).filter(|it| it != facts).collect()
}

/// These groups with their devices.
pub fn field_of(groups: &[Group], mut devices: BTreeMap<String, Vec<Device>>) -> Vec<FieldGroup> {
    let field = groups.iter().map(|it| field_group(it, devices.remove(&it.id).unwrap_or_default()));
    field.collect()
}

/// A group as far as a release concerns it.
pub fn field_group(group: &Group, devices: Vec<Device>) -> FieldGroup {
    FieldGroup { name: group.name.clone(), devices, lead: lead_of(group) }
}

/// What its lead has said of itself; `None`: nothing yet.
fn lead_of(group: &Group) -> Option<LeadFacts> {
    #[derive(serde::Deserialize)]
    struct Documents {
        version: LeadFacts,
    }
    let documents: Documents = serde_json::from_str(&group.documents).ok()?;
    Some(documents.version)
}

/// Releases and labels of which is known what is foreseen, at most.
const SEEN_MAX: usize = 64;
/// Groups that a release is checked against, at most: it is done for a look at a page.
const CHECKED_MAX: i64 = 1000;
