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

use super::said::{Rollout, Said, range};
use super::shown::{self, Cause};
use super::{Admitting, Frame, Looking, Moving, Trouble, frame, page, see_other};
use crate::check::{FieldGroup, Finding};
use crate::field::{field_group, fits, foresee};
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
    is_silent: bool,
    group: Group,
    said: Said,
    rows: Vec<Row>,
    campaign: Option<Campaign>,
    choices: Vec<Choice>,
    history: Vec<PastRollout>,
    events: Vec<Event>,
}

/// A release that the group may be brought to, and what would go wrong.
struct Choice {
    release: Release,
    findings: Vec<Finding>,
}

impl Choice {
    /// Whether the group would refuse it.
    fn is_refused(&self) -> bool {
        self.findings.iter().any(Finding::stops)
    }
}

/// One device.
struct Row {
    device: Device,
    heard_at: Option<Timestamp>,
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

    /// What its preflight refused of the offer, in words; the lead's own text says it of the first.
    fn offer_causes(&self) -> Vec<Cause> {
        let answer = self.group.offer_answer.as_deref().unwrap_or_default();
        let codes = self.group.offer_codes.split_whitespace().enumerate();
        let text = |place| if place == 0 { answer } else { "" };
        codes.map(|(place, code)| shown::cause(code, text(place))).collect()
    }

    /// The last rollout, if it came to nothing and none goes on.
    fn given_up(&self) -> Option<&PastRollout> {
        let last = self.history.first().filter(|_| self.group.phase.is_empty());
        last.filter(|it| it.verdict == "revert" && it.kind == "forward")
    }

    /// Whether the last rollout can be taken back.
    fn can_revert(&self) -> bool {
        self.group.phase.is_empty()
            && self.history.first().is_some_and(|it| it.verdict == "keep" && it.kind == "forward")
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
    let devices = store.devices(&id).await?;
    let releases = store.releases().await?;
    let choices = choices(&releases, &field_group(&group, devices.clone()), &group);
    let rows = devices.into_iter().map(|it| row(it, &said, group.seen_at)).collect();
    let campaign = match store.campaign_of(&id).await? {
        Some(campaign) => store.campaign(&campaign).await?,
        None => None,
    };
    page(&GroupPage {
        frame: frame(&caller, "groups", format!("group:{id} campaign: releases")),
        is_silent: group.seen_at.unwrap_or(group.enrolled_at) < server.silent_before(now),
        history: store.past_rollouts(&id).await?,
        events: store.events(&id).await?,
        group,
        said,
        rows,
        campaign,
        choices,
    })
}

fn choices(releases: &[Release], field: &FieldGroup, group: &Group) -> Vec<Choice> {
    let field = std::slice::from_ref(field);
    let choices = releases.iter().filter(|it| fits(it, group)).take(CHOICES_MAX);
    let choice =
        |it: &Release| Choice { release: it.clone(), findings: foresee(it, field, releases) };
    choices.map(choice).collect()
}

pub(super) async fn found(server: &Server, id: &str) -> Result<Group, Problem> {
    server.store.group(id).await?.ok_or_else(|| Problem::not_found("group", id))
}

fn row(device: Device, said: &Said, seen_at: Option<Timestamp>) -> Row {
    let (member, peer) = (said.member(&device.id), said.peer(&device.id));
    let protocol = match peer {
        Some(peer) => peer.protocol_range.as_deref(),
        None if said.version.id == device.id => Some(said.version.protocol_range.as_slice()),
        None => None,
    };
    let misfit = peer
        .filter(|it| it.compatible == Some(false))
        .map(|it| it.why.clone().unwrap_or_else(|| "does not fit the others".to_owned()));
    Row {
        heard_at: member.filter(|_| !device.is_lead).and_then(|it| it.heard_at(seen_at)),
        protocol: protocol.and_then(range).unwrap_or_else(|| "–".to_owned()),
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
    /// `yes`, or nothing: it was read that the group would refuse it.
    #[serde(default)]
    despite_findings: String,
}

/// A campaign of this group alone.
async fn update(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
    Form(Update { release, despite_findings }): Form<Update>,
) -> Result<Response, Trouble> {
    let despite_findings = !despite_findings.is_empty();
    let groups = vec![id.clone()];
    let given = campaigns::Given { release, groups, despite_findings, ..Default::default() };
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

/// Releases that a group is offered to choose from, at most: the newest.
const CHOICES_MAX: usize = 20;
