//! `/releases/ID`: what is in a release, who runs it, and where it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Deserialize;

use super::plot::Strips;
use super::said::range;
use super::shown;
use super::{Frame, Looking, Moving, Trouble, frame, page, see_other};
use crate::field::Foreseen;
use crate::fleet::Labels;
use crate::http::problem::Problem;
use crate::http::releases::withdraw_release;
use crate::manifests::places;
use crate::server::Server;
use crate::store::campaigns::Campaign;
use crate::store::groups::{Filter, Group};
use crate::store::releases::Release;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/releases/{id}", get(show))
        .route("/releases/{id}/withdraw", post(withdraw))
}

#[derive(Template)]
#[template(path = "release.html")]
struct ReleasePage {
    frame: Frame,
    release: Release,
    manifest: Manifest,
    groups: Vec<Group>,
    is_more: bool,
    campaigns: Vec<Campaign>,
    foreseen: Arc<Foreseen>,
    took: Option<Strips>,
    disagreement: Option<Strips>,
}

/// What a manifest says, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    release_date: String,
    min_compatible_version: String,
    devices: BTreeMap<String, Device>,
    update_instructions: Instructions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    version: String,
    chip: Option<String>,
    board: Option<String>,
    firmware_size: u64,
    protocol_range: Vec<u32>,
    min_compatible: Option<String>,
    effect: Option<String>,
    config_schema: Option<u32>,
    image_sha256: Option<String>,
    /// What the bundle has of it beside the image itself: for which images there are patches.
    #[serde(skip)]
    bases: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Instructions {
    order: Vec<String>,
    reboot_delay_seconds: u32,
}

impl Manifest {
    /// When it was made, if it says so.
    fn made(&self) -> Option<Timestamp> {
        self.release_date.parse().ok()
    }
}

impl Device {
    fn protocol(&self) -> String {
        range(&self.protocol_range).unwrap_or_else(|| "–".to_owned())
    }

    /// In which other forms the image is in the bundle. One that needs no other image is called
    /// compressed.
    fn forms(&self) -> Option<String> {
        let patches = self.bases.iter().filter(|base| !base.is_empty()).count();
        let named = if patches == 1 { "patch" } else { "patches" };
        match (patches < self.bases.len(), patches) {
            (false, 0) => None,
            (true, 0) => Some("also compressed".to_owned()),
            (false, _) => Some(format!("also as {patches} {named}")),
            (true, _) => Some(format!("also compressed, and as {patches} {named}")),
        }
    }
}

/// What a release's manifest says, and where the bundle says more.
fn manifest_of(release: &Release) -> Manifest {
    let mut manifest: Manifest = serde_json::from_str(&release.manifest).unwrap_or_default();
    for (role, place) in places(release) {
        if let Some(device) = manifest.devices.get_mut(&role) {
            device.bases = place.bases;
        }
    }
    manifest
}

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let release = server.store.release(&id).await?;
    let release = release.ok_or_else(|| Problem::not_found("release", &id))?;
    let runs_it = Filter { number: Some(release.number), ..Filter::default() };
    let mut groups = server.store.groups(&runs_it, "", GROUPS_MAX + 1).await?;
    let shown = usize::try_from(GROUPS_MAX).unwrap_or(usize::MAX);
    let is_more = groups.len() > shown;
    groups.truncate(shown);
    let campaigns = server.store.campaigns().await?;
    let took = server.store.rollouts_took(Some(release.number)).await?;
    page(&ReleasePage {
        frame: frame(&caller, "releases", "releases campaign: group:"),
        manifest: manifest_of(&release),
        campaigns: campaigns.into_iter().filter(|it| it.release == id).collect(),
        foreseen: server.foresight.of(&server.store, &release, &Labels::default()).await?,
        took: Strips::of_rollouts(&took),
        disagreement: Strips::of_disagreement(&took),
        release,
        groups,
        is_more,
    })
}

async fn withdraw(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    withdraw_release(&server, &id, &caller.name).await?;
    Ok(see_other(&format!("/releases/{}", shown::escaped(&id))))
}

/// Groups that run it, shown at most.
const GROUPS_MAX: i64 = 50;
