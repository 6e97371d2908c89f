//! `/groups/ID`: one group, its devices, the rollout that goes on, what happened; and what a person
//! can do with it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use jiff::Timestamp;
use serde::Deserialize;

use super::said::{Member, Peer, Rollout, Said};
use super::shown;
use super::{Admitting, Frame, Looking, Moving, Trouble, frame, page, see_other};
use crate::fleet::Mode;
use crate::http::campaigns::{self, begin};
use crate::http::groups::{
    GivenSettings, NewEnrolment, change_to, enrol_command, enrolment, forget, order,
};
use crate::http::problem::Problem;
use crate::server::Server;
use crate::store::campaigns::Campaign;
use crate::store::groups::{Device, Event, Group, PastRollout};
use crate::store::releases::Release;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/groups/{id}", get(show))
        .route("/groups/{id}/settings", post(change))
        .route("/groups/{id}/update", post(update))
        .route("/groups/{id}/abort", post(abort))
        .route("/groups/{id}/revert", post(revert))
        .route("/groups/{id}/remove", post(remove))
        .route("/groups/{id}/replace-lead", post(replace_lead))
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    frame: Frame,
    now: Timestamp,
    is_silent: bool,
    group: Group,
    said: Said,
    rows: Vec<Row>,
    campaign: Option<Campaign>,
    releases: Vec<Release>,
    history: Vec<PastRollout>,
    events: Vec<Event>,
}

/// One device.
struct Row {
    device: Device,
    heard: Option<String>,
    protocol: String,
    /// Why it does not fit the others; `None`: it does, or nobody has said.
    misfit: Option<String>,
    is_behind: bool,
}

impl GroupPage {
    /// The rollout to show: one that goes on.
    fn open(&self) -> Option<&Rollout> {
        self.said.rollout().filter(|_| !self.group.phase.is_empty())
    }

    /// Whether the last rollout can be taken back.
    fn can_revert(&self) -> bool {
        self.group.phase.is_empty()
            && self.history.first().is_some_and(|it| it.verdict == "keep" && it.kind == "forward")
    }

    /// Frames that were dropped, by lane and why.
    fn dropped(&self) -> Vec<String> {
        let frames = &self.said.health.frames;
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

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let (store, now) = (&server.store, Timestamp::now());
    let group = found(&server, &id).await?;
    let said = Said::read(&group.documents);
    let rows = store.devices(&id).await?.into_iter().map(|it| row(it, &said)).collect();
    let campaign = match store.campaign_of(&id).await? {
        Some(campaign) => store.campaign(&campaign).await?,
        None => None,
    };
    let releases = store.releases().await?.into_iter().filter(|it| fits(it, &group)).collect();
    page(&GroupPage {
        frame: frame(&caller, "groups", format!("group:{id} campaign: releases")),
        now,
        is_silent: group.seen_at.unwrap_or(group.enrolled_at) < server.silent_before(now),
        history: store.past_rollouts(&id).await?,
        events: store.events(&id).await?,
        group,
        said,
        rows,
        campaign,
        releases,
    })
}

async fn found(server: &Server, id: &str) -> Result<Group, Problem> {
    server.store.group(id).await?.ok_or_else(|| Problem::not_found("group", id))
}

/// Whether a release can be offered to a group at all.
fn fits(release: &Release, group: &Group) -> bool {
    let is_same = |system: &String| release.system.is_empty() || *system == release.system;
    release.withdrawn_at.is_none() && group.system.as_ref().is_none_or(is_same)
}

fn row(device: Device, said: &Said) -> Row {
    let member = said.group.members.iter().find(|it: &&Member| it.id == device.id);
    let peer = said.version.peers.iter().find(|it: &&Peer| it.id == device.id);
    let range = match peer {
        Some(peer) => peer.protocol_range.as_deref(),
        None if said.version.id == device.id => Some(said.version.protocol_range.as_slice()),
        None => None,
    };
    let misfit = peer
        .filter(|it| it.compatible == Some(false))
        .map(|it| it.why.clone().unwrap_or_else(|| "does not fit the others".to_owned()));
    Row {
        heard: member.and_then(|it| it.heard_ms_ago).map(|ms| match ms / 1000 {
            0 => "just now".to_owned(),
            s => format!("{} ago", shown::seconds(i64::try_from(s).unwrap_or(i64::MAX))),
        }),
        protocol: match range {
            Some([from, to]) if from == to => from.to_string(),
            Some([from, to]) => format!("{from} to {to}"),
            _ => "–".to_owned(),
        },
        misfit,
        is_behind: member.is_some_and(|it| it.behind),
        device,
    }
}

async fn change(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
    Form(given): Form<GivenSettings>,
) -> Result<Response, Trouble> {
    change_to(&server, &id, &given.read()?, &caller.name).await?;
    Ok(back_to(&id))
}

#[derive(Debug, Deserialize)]
struct Update {
    release: String,
}

/// A campaign of this group alone.
async fn update(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
    Form(Update { release }): Form<Update>,
) -> Result<Response, Trouble> {
    let given = campaigns::Given { release, groups: vec![id.clone()], ..Default::default() };
    begin(&server, &given, &caller.name).await?;
    Ok(back_to(&id))
}

async fn abort(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    order(&server, &id, "abort", &caller.name).await?;
    Ok(back_to(&id))
}

async fn revert(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    order(&server, &id, "revert", &caller.name).await?;
    Ok(back_to(&id))
}

async fn remove(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    forget(&server, &id, &caller.name).await?;
    Ok(see_other("/groups"))
}

#[derive(Template)]
#[template(path = "secret.html")]
pub(super) struct SecretPage {
    pub(super) frame: Frame,
    pub(super) title: String,
    pub(super) about: &'static str,
    pub(super) secret: String,
    /// What to do with it, as a command; empty: nothing to say.
    pub(super) command: String,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) back: String,
}

async fn replace_lead(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let group = found(&server, &id).await?;
    let (labels, zone) = (group.labels.to_string(), group.zone);
    let name = String::new();
    let new = NewEnrolment { name, labels, zone, group: Some(id.clone()), expires_in_s: None };
    let (secret, expires_at) = enrolment(&server, &new, &caller.name).await?;
    page(&SecretPage {
        frame: frame(&caller, "groups", ""),
        title: format!("A new lead for {}", group.name),
        about: "Start the new board with it. The old one is let in no more once the new one has \
            come.",
        command: enrol_command(&server, &secret),
        secret,
        expires_at: Some(expires_at),
        back: format!("/groups/{id}"),
    })
}

fn back_to(id: &str) -> Response {
    see_other(&format!("/groups/{}", shown::escaped(id)))
}
