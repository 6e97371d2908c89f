//! The groups of the field, read from the tables for a check: what is known of each.

use std::collections::BTreeMap;

use crate::check::{FieldGroup, Finding, LeadFacts, check};
use crate::manifests::Facts;
use crate::store::groups::{Device, Group};
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
