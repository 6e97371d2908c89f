//! `/groups/ID/devices/DEVICE`: one device, as far as the server knows it. A lead tells much of
//! itself; of a member the server knows what its lead has heard, and the page says so.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;

use super::group::found;
use super::said::{Member, Part, Peer, Said, before, range};
use super::shown;
use super::{Frame, Looking, Trouble, frame, page};
use crate::check::{Finding, check_device};
use crate::field::{field_group, fits, others};
use crate::http::problem::Problem;
use crate::manifests::{Facts, RoleFacts};
use crate::server::Server;
use crate::store::groups::{Device, Event, Group, PastRollout};
use crate::store::releases::Release;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/groups/{id}/devices/{device}", get(show))
}

#[derive(Template)]
#[template(path = "device.html")]
struct DevicePage {
    frame: Frame,
    is_silent: bool,
    group: Group,
    said: Said,
    device: Device,
    /// The other devices of its group.
    others: Vec<Device>,
    /// The release whose image it runs, by the image's hash.
    runs: Option<Made>,
    newest: Option<Newest>,
    history: Vec<PastRollout>,
    lines: Vec<Event>,
}

/// What a release says of the image that a device runs.
struct Made {
    release: Release,
    role: RoleFacts,
}

/// The newest release for its group, and what would go wrong on this device.
struct Newest {
    release: Release,
    runs_it: bool,
    findings: Vec<Finding>,
}

impl DevicePage {
    /// Whether its own words are known: it is the lead that spoke.
    fn speaks(&self) -> bool {
        !self.device.id.is_empty() && self.said.version.id == self.device.id
    }

    fn name(&self) -> &str {
        if self.device.role.is_empty() { "device" } else { &self.device.role }
    }

    fn member(&self) -> Option<&Member> {
        self.said.member(&self.device.id)
    }

    fn peer(&self) -> Option<&Peer> {
        self.said.peer(&self.device.id)
    }

    /// Why it does not fit the others, if it does not.
    fn misfit(&self) -> Option<&str> {
        let peer = self.peer().filter(|it| it.compatible == Some(false))?;
        Some(peer.why.as_deref().unwrap_or("it does not fit the others"))
    }

    fn heard_at(&self) -> Option<Timestamp> {
        self.member().and_then(|it| it.heard_at(self.group.seen_at))
    }

    /// When another member was heard.
    fn heard_member(&self, member: &Member) -> Option<Timestamp> {
        member.heard_at(self.group.seen_at)
    }

    /// When it booted.
    fn up_since(&self) -> Option<Timestamp> {
        let uptime_s = u64::from(self.said.version.uptime_seconds?);
        before(self.group.seen_at?, uptime_s * 1000).filter(|_| self.speaks())
    }

    fn protocol(&self) -> Option<String> {
        match self.speaks() {
            true => range(&self.said.version.protocol_range),
            false => range(self.peer()?.protocol_range.as_deref()?),
        }
    }

    /// Number of the oldest release that it understands.
    fn understands(&self) -> Option<u32> {
        let found = match self.speaks() {
            true => self.said.version.min_compatible,
            false => self.peer()?.min_compatible,
        };
        found.filter(|number| *number > 0)
    }

    /// Its part in the rollout that goes on, or in the last one.
    fn part(&self) -> Option<&Part> {
        self.said.rollout()?.members.iter().find(|it| it.id == self.device.id)
    }

    /// What catches an image that fails, in words.
    fn net(&self) -> &str {
        match self.said.version.rollback.as_str() {
            "bootloader" => "the bootloader: any reset on trial goes back",
            "agent" => {
                "the firmware itself: it counts trial boots, and cannot save an image that \
                dies before it runs"
            }
            "none" => "none: a failed image stays",
            "" => "it has not said",
            other => other,
        }
    }

    /// How its link to another member looks from the lead; members do not tell of each other.
    fn link(&self, other: &Device) -> Option<bool> {
        let asked = if self.speaks() { other } else { &self.device };
        let knows = self.speaks() || other.is_lead;
        self.said.member(&asked.id).map(|it| it.linked).filter(|_| knows)
    }
}

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
    Path((id, device)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let (store, now) = (&server.store, Timestamp::now());
    let group = found(&server, &id).await?;
    let all = store.devices(&id).await?;
    let missing = || Problem::not_found("device", &device);
    let device = all.iter().find(|it| it.id == device).cloned().ok_or_else(missing)?;
    let releases = store.releases().await?;
    let events = store.events(&id).await?;
    let said = Said::read(&group.documents);
    let is_of_it = |it: &Event| {
        let is_named =
            it.said.contains(&device.id) || it.said.contains(&format!("`{}`", device.role));
        it.kind == "log" && (device.id == said.version.id || is_named)
    };
    page(&DevicePage {
        frame: frame(&caller, "groups", format!("group:{id} releases")),
        is_silent: group.seen_at.unwrap_or(group.enrolled_at) < server.silent_before(now),
        runs: made(&releases, &device),
        newest: newest(&releases, &group, &all, &device),
        history: store.past_rollouts(&id).await?.into_iter().take(ROLLOUTS_MAX).collect(),
        lines: events.into_iter().filter(is_of_it).take(LINES_MAX).collect(),
        others: all.iter().filter(|it| it.id != device.id).cloned().collect(),
        device,
        group,
        said,
    })
}

/// The release that the image came with; of a peer's hash the first half is known.
fn made(releases: &[Release], device: &Device) -> Option<Made> {
    if !device.says_its_image() {
        return None;
    }
    releases.iter().find_map(|release| {
        let role = Facts::of(release)?.roles.remove(&device.role)?;
        let is_it = role.image_sha256.starts_with(&device.image);
        is_it.then(|| Made { release: release.clone(), role })
    })
}

fn newest(releases: &[Release], group: &Group, all: &[Device], device: &Device) -> Option<Newest> {
    let fitting = releases.iter().filter(|it| fits(it, group));
    let release = fitting.max_by_key(|it| (it.number, it.uploaded_at))?;
    let facts = Facts::of(release)?;
    let image = facts.roles.get(&device.role).map(|it| it.image_sha256.as_str());
    let is_known = device.says_its_image();
    let field = field_group(group, all.to_vec());
    let known = others(release, &facts, releases);
    let findings = check_device(&facts, release.signatures, &field, device, &known);
    let runs_it = is_known && image.is_some_and(|image| image.starts_with(&device.image));
    Some(Newest { release: release.clone(), runs_it, findings })
}

/// Rollouts that are shown; the group's page has all.
const ROLLOUTS_MAX: usize = 10;
/// Lines of the log that are shown; the group's page has all.
const LINES_MAX: usize = 50;
