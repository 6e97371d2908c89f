//! Groups for people and programs: listed, changed, let in, ordered.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use jiff::{Span, Timestamp};
use lockstep_proto::version::ReleaseVersion;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Admin, Operator, Viewer};
use super::given;
use super::problem::Problem;
use crate::fleet::{Labels, Mode, is_title};
use crate::hours::Hours;
use crate::server::{Change, Server};
use crate::store::groups::{Attention, Filter, Group, Settings};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/groups", get(list))
        .route("/api/groups/{id}", get(show).put(change).delete(remove))
        .route("/api/groups/{id}/abort", post(abort))
        .route("/api/groups/{id}/revert", post(revert))
        .route("/api/enrolments", get(enrolments).post(make_enrolment))
        .route("/api/enrolments/{id}", delete(revoke_enrolment))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    labels: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    attention: bool,
}

/// `GET /api/groups`: a page of them, by name; `next` is where the one behind it begins.
async fn list(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Query(wanted): given::Query<Wanted>,
) -> Result<Json<Value>, Problem> {
    let number = match wanted.version.as_str() {
        "" => None,
        text => Some(version(text)?),
    };
    let attention = if wanted.attention { Attention::Needed } else { Attention::Any };
    let filter = Filter { labels: labels(&wanted.labels)?, number, name: wanted.name, attention };
    let groups = server.store.groups(&filter, &wanted.after, PAGE_GROUPS).await?;
    let is_full = i64::try_from(groups.len()).is_ok_and(|found| found == PAGE_GROUPS);
    let next = groups.last().filter(|_| is_full).map(|group| group.name.clone());
    let groups: Vec<_> = groups.iter().map(group_json).collect();
    Ok(Json(json!({ "groups": groups, "next": next })))
}

pub(super) fn group_json(group: &Group) -> Value {
    let labels: serde_json::Map<_, _> =
        group.labels.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({
        "id": group.id,
        "name": group.name,
        "labels": labels,
        "zone": group.zone,
        "hours": group.hours,
        "mode": group.mode.as_str(),
        "lead": group.lead,
        "enrolled_at": group.enrolled_at,
        "seen_at": group.seen_at,
        "system": group.system,
        "version": shown_version(group.number),
        "phase": some(&group.phase),
        "attention": some(&group.attention),
        "offer_answer": group.offer_answer,
    })
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn shown_version(number: u32) -> Option<String> {
    (number > 0).then(|| ReleaseVersion::from_number(number).to_string())
}

/// `GET /api/groups/ID`: with devices, history, events, and what its lead said last.
async fn show(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Path(id): given::Path<String>,
) -> Result<Json<Value>, Problem> {
    let group = server.store.group(&id).await?;
    let group = group.ok_or_else(|| Problem::not_found("group", &id))?;
    let devices = server.store.devices(&id).await?;
    let devices: Vec<_> = devices
        .iter()
        .map(|it| {
            json!({
                "id": it.id, "role": it.role, "lead": it.is_lead, "image": it.image,
                "version": shown_version(it.number), "linked": it.is_linked,
            })
        })
        .collect();
    let history = server.store.past_rollouts(&id).await?;
    let history: Vec<_> = history
        .iter()
        .map(|it| {
            json!({
                "rollout": it.id, "kind": it.kind, "verdict": it.verdict, "cause": some(&it.cause),
                "why": some(&it.why), "version": shown_version(it.number),
                "version_before": shown_version(it.number_before), "told_at": it.told_at,
            })
        })
        .collect();
    let events = server.store.events(&id).await?;
    let events: Vec<_> = events
        .iter()
        .map(|it| json!({ "at": it.at, "level": it.level, "kind": it.kind, "text": it.said }))
        .collect();
    let documents: Value = serde_json::from_str(&group.documents).unwrap_or_default();
    let campaign = server.store.campaign_of(&id).await?;
    let mut shown = group_json(&group);
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("devices".into(), devices.into());
        shown.insert("history".into(), history.into());
        shown.insert("events".into(), events.into());
        shown.insert("campaign".into(), campaign.into());
        shown.insert("documents".into(), documents);
    }
    Ok(Json(json!({ "group": shown })))
}

/// What a person gives of a group's settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenSettings {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: String,
    #[serde(default)]
    pub(super) zone: String,
    #[serde(default)]
    pub(super) hours: String,
    #[serde(default)]
    pub(super) mode: String,
}

impl GivenSettings {
    pub(super) fn read(&self) -> Result<Settings, Problem> {
        if !is_title(&self.name) {
            return Err(Problem::bad_request(
                format_args!("`{}` is no name of a group", crate::fleet::excerpt(&self.name)),
                "give it 1 to 80 bytes of text, without a blank at either end",
            ));
        }
        let mode = match self.mode.as_str() {
            "" => Mode::default(),
            text => text.parse().map_err(|expected| {
                let text = crate::fleet::excerpt(text);
                Problem::bad_request(format_args!("mode is `{text}`"), expected)
            })?,
        };
        let hours = Hours::new(&self.hours, &self.zone);
        hours
            .map_err(|error| Problem::bad_request(error, "leave it empty for any time, and UTC"))?;
        Ok(Settings {
            name: self.name.clone(),
            labels: labels(&self.labels)?,
            zone: self.zone.clone(),
            hours: self.hours.clone(),
            mode,
        })
    }
}

pub(super) fn labels(text: &str) -> Result<Labels, Problem> {
    text.parse().map_err(|error| Problem::bad_request(error, "such as `site=berlin,stage=canary`"))
}

pub(super) fn version(text: &str) -> Result<u32, Problem> {
    let version = text.parse::<ReleaseVersion>();
    let version = version.map_err(|error| Problem::bad_request(error, "such as `1.2.0`"))?;
    Ok(version.number())
}

/// `PUT /api/groups/ID`.
async fn change(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
    given::Json(given): given::Json<GivenSettings>,
) -> Result<Json<Value>, Problem> {
    let settings = given.read()?;
    change_to(&server, &id, &settings, &caller.name).await?;
    Ok(Json(json!({ "changed": id })))
}

pub(super) async fn change_to(
    server: &Server,
    id: &str,
    settings: &Settings,
    who: &str,
) -> Result<(), Problem> {
    let changed = server.store.change_group(id, settings, who, Timestamp::now()).await;
    match changed {
        Ok(true) => {
            server.refresh(id).await?;
            server.changed(Change::Group(id.to_owned()));
            Ok(())
        }
        Ok(false) => Err(Problem::not_found("group", id)),
        Err(error) if error.is_duplicate() => Err(Problem::conflict(
            "name-taken",
            format_args!("another group is called `{}`", settings.name),
            "give it another name",
        )),
        Err(error) => Err(error.into()),
    }
}

/// `DELETE /api/groups/ID`.
async fn remove(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Value>, Problem> {
    forget(&server, &id, &caller.name).await?;
    Ok(Json(json!({ "removed": id })))
}

/// Forgets a group; its lead is let in no more.
pub(super) async fn forget(server: &Server, id: &str, who: &str) -> Result<(), Problem> {
    if !server.store.remove_group(id, who, Timestamp::now()).await? {
        return Err(Problem::not_found("group", id));
    }
    server.roster.forget_group(id);
    server.changed(Change::Group(id.to_owned()));
    Ok(())
}

/// `POST /api/groups/ID/abort`: its open rollout.
async fn abort(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let order = order(&server, &id, "abort", &caller.name).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "order": order }))))
}

/// `POST /api/groups/ID/revert`: its last rollout.
async fn revert(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let order = order(&server, &id, "revert", &caller.name).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "order": order }))))
}

/// Orders something of a group's lead, which carries it out when it comes.
pub(super) async fn order(
    server: &Server,
    group: &str,
    what: &str,
    who: &str,
) -> Result<String, Problem> {
    if server.store.group(group).await?.is_none() {
        return Err(Problem::not_found("group", group));
    }
    let order = server.store.order(group, what, who, Timestamp::now()).await?;
    server.refresh(group).await?;
    server.changed(Change::Group(group.to_owned()));
    Ok(order)
}

/// `GET /api/enrolments`: tokens that were not used; not their secrets.
async fn enrolments(State(server): State<Arc<Server>>, _: Admin) -> Result<Json<Value>, Problem> {
    let enrolments = server.store.enrolments().await?;
    let enrolments: Vec<_> = enrolments
        .iter()
        .map(|it| {
            json!({
                "id": it.id, "name": it.name, "labels": it.labels.to_string(), "zone": it.zone,
                "group": it.group, "made_at": it.made_at, "made_by": it.made_by,
                "expires_at": it.expires_at,
            })
        })
        .collect();
    Ok(Json(json!({ "enrolments": enrolments })))
}

/// The body of a new token for a group that is to come, or for a new lead of one that is here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEnrolment {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: String,
    #[serde(default)]
    pub(super) zone: String,
    pub(super) group: Option<String>,
    pub(super) expires_in_s: Option<u32>,
}

/// `POST /api/enrolments`: the token is told only in this answer.
async fn make_enrolment(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Json(new): given::Json<NewEnrolment>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (token, expires_at) = enrolment(&server, &new, &caller.name).await?;
    let command = enrol_command(&server, &token);
    let made = json!({ "token": token, "expires_at": expires_at, "command": command });
    Ok((StatusCode::CREATED, Json(made)))
}

/// What to start a lead with.
pub(super) fn enrol_command(server: &Server, token: &str) -> String {
    format!("lockstep device … --server {} --enroll {token}", server.lead_url)
}

/// Makes a token; its secret, and until when it is good.
pub(super) async fn enrolment(
    server: &Server,
    new: &NewEnrolment,
    who: &str,
) -> Result<(String, Timestamp), Problem> {
    let name = match (&new.group, new.name.as_str()) {
        (Some(id), _) => {
            let group = server.store.group(id).await?;
            group.ok_or_else(|| Problem::not_found("group", id))?.name
        }
        (None, name) => name.to_owned(),
    };
    let (labels, zone) = (new.labels.clone(), new.zone.clone());
    let given = GivenSettings { name, labels, zone, hours: String::new(), mode: String::new() };
    let seconds = i64::from(new.expires_in_s.unwrap_or(EXPIRES_S).clamp(60, EXPIRES_S_MAX));
    let now = Timestamp::now();
    let expires_at = now.checked_add(Span::new().seconds(seconds)).unwrap_or(Timestamp::MAX);
    let (settings, group) = (given.read()?, new.group.as_deref());
    let token = server.store.make_enrolment(&settings, group, who, now, expires_at).await?;
    Ok((token, expires_at))
}

/// `DELETE /api/enrolments/ID`.
async fn revoke_enrolment(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Value>, Problem> {
    if !server.store.revoke_enrolment(&id, &caller.name, Timestamp::now()).await? {
        return Err(Problem::not_found("enrolment that was not used", &id));
    }
    Ok(Json(json!({ "revoked": id })))
}

/// Groups of one page.
const PAGE_GROUPS: i64 = 100;
/// An enrolment token is good for so long unless somebody says otherwise, in seconds: a week.
const EXPIRES_S: u32 = 7 * 24 * 3600;
/// And at most: three months.
const EXPIRES_S_MAX: u32 = 92 * 24 * 3600;
