//! The groups of the field, read from the tables for a check: what is known of each.

use crate::check::{FieldGroup, Finding, LeadFacts, check};
use crate::manifests::Facts;
use crate::store::groups::Group;
use crate::store::releases::Release;
use crate::store::{Store, StoreError};

/// What will go wrong if these groups are brought to a release.
pub async fn findings(
    store: &Store,
    release: &Release,
    groups: &[Group],
) -> Result<Vec<Finding>, StoreError> {
    let known: Vec<Facts> = known(store, &release.system).await?;
    let Some(facts) = Facts::of(release) else { return Ok(Vec::new()) };
    let mut field = Vec::with_capacity(groups.len());
    for group in groups {
        field.push(FieldGroup {
            name: group.name.clone(),
            devices: store.devices(&group.id).await?,
            lead: lead_of(group),
        });
    }
    let others: Vec<Facts> = known.into_iter().filter(|it| *it != facts).collect();
    Ok(check(&facts, release.signatures, &field, &others))
}

/// All releases of a product.
async fn known(store: &Store, system: &str) -> Result<Vec<Facts>, StoreError> {
    let releases = store.releases().await?;
    Ok(releases.iter().filter(|it| it.system == system).filter_map(Facts::of).collect())
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
