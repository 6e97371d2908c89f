//! Groups for people and programs: listed, changed, let in, ordered.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{Span, Timestamp};
use lockstep_proto::version::ReleaseVersion;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{
    Changed, Enrolments, Groups, NewEnrolmentToken, OneGroup, Ordered, Removed, Revoked, WholeGroup,
};
use super::auth::{Admin, Operator, Viewer};
use super::contract::{
    Identity, Labels as LabelsText, MaybeTitle, MaybeVersion, Title, Window, Zone,
};
use super::given;
use super::problem::Problem;
use crate::fleet::{Labels, Mode, TITLE_CHARS_MAX, is_title};
use crate::hours::Hours;
use crate::server::{Change, Server};
use crate::store::groups::{Attention, Filter, Settings};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, change, remove))
        .routes(routes!(abort))
        .routes(routes!(revert))
        .routes(routes!(enrolments, make_enrolment))
        .routes(routes!(revoke_enrolment))
}

/// Which groups.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// All of these labels.
    #[serde(default)]
    #[param(value_type = LabelsText)]
    labels: String,
    /// A part of the name.
    #[serde(default)]
    #[param(max_length = 80, pattern = "^[^\\u0000]*$")]
    name: String,
    /// On this release; empty: on any.
    #[serde(default)]
    #[param(value_type = MaybeVersion)]
    version: String,
    /// Behind this name: `next` of the page before.
    #[serde(default)]
    #[param(max_length = 200, pattern = "^[^\\u0000]*$")]
    after: String,
    /// Those that a person should look at.
    #[serde(default)]
    attention: bool,
}

/// A page of groups
///
/// By name, 100 at a time; `next` is where the page behind it begins.
#[utoipa::path(get, path = "/api/groups", tag = "groups", operation_id = "listGroups",
    security(("token" = ["viewer"])), params(Wanted),
    responses((status = 200, description = "A page.", body = Groups)))]
async fn list(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Query(wanted): given::Query<Wanted>,
) -> Result<Json<Groups>, Problem> {
    given::at_most("name", &wanted.name, TITLE_CHARS_MAX)?;
    given::at_most("after", &wanted.after, AFTER_CHARS_MAX)?;
    let number = match wanted.version.as_str() {
        "" => None,
        text => Some(version(text)?),
    };
    let attention = if wanted.attention { Attention::Needed } else { Attention::Any };
    let filter = Filter { labels: labels(&wanted.labels)?, number, name: wanted.name, attention };
    let groups = server.store.groups(&filter, &wanted.after, PAGE_GROUPS).await?;
    let is_full = i64::try_from(groups.len()).is_ok_and(|found| found == PAGE_GROUPS);
    let next = groups.last().filter(|_| is_full).map(|group| group.name.clone());
    Ok(Json(Groups { groups: groups.iter().map(Into::into).collect(), next }))
}

/// One group
///
/// With devices, history, events, and what its lead said last.
#[utoipa::path(get, path = "/api/groups/{id}", tag = "groups", operation_id = "showGroup",
    security(("token" = ["viewer"])), params(("id" = Identity, Path)),
    responses((status = 200, description = "It.", body = OneGroup)))]
async fn show(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Path(id): given::Path<String>,
) -> Result<Json<OneGroup>, Problem> {
    let store = &server.store;
    let group = store.group(&id).await?;
    let group = group.ok_or_else(|| Problem::not_found("group", &id))?;
    let documents: Value = serde_json::from_str(&group.documents).unwrap_or_else(|_| json!({}));
    let group = WholeGroup {
        group: (&group).into(),
        devices: store.devices(&id).await?.into_iter().map(Into::into).collect(),
        history: store.past_rollouts(&id).await?.into_iter().map(Into::into).collect(),
        events: store.events(&id).await?.into_iter().map(Into::into).collect(),
        campaign: store.campaign_of(&id).await?,
        documents,
    };
    Ok(Json(OneGroup { group }))
}

/// What a person gives of a group's settings.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GroupSettings)]
pub(super) struct GivenSettings {
    #[schema(value_type = Title)]
    pub(super) name: String,
    #[serde(default)]
    #[schema(value_type = LabelsText)]
    pub(super) labels: String,
    #[serde(default)]
    #[schema(value_type = Zone)]
    pub(super) zone: String,
    #[serde(default)]
    #[schema(value_type = Window)]
    pub(super) hours: String,
    /// `notify`: a person begins each release at the device. Empty: `automatic`.
    #[serde(default)]
    #[schema(pattern = "^(automatic|notify)?$")]
    pub(super) mode: String,
}

impl GivenSettings {
    pub(super) fn read(&self) -> Result<Settings, Problem> {
        if !is_title(&self.name) {
            return Err(Problem::bad_request(
                format_args!("`{}` is no name of a group", crate::fleet::excerpt(&self.name)),
                "give it 1 to 80 characters, without a blank at either end",
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

/// Change a group's settings
///
/// All of them: what is left out is empty.
#[utoipa::path(put, path = "/api/groups/{id}", tag = "groups", operation_id = "changeGroup",
    request_body = GivenSettings,
    security(("token" = ["operator"])), params(("id" = Identity, Path)),
    responses(
        (status = 200, description = "Changed.", body = Changed),
        (status = 409, description = "`name-taken`: another group is called so."),
    ))]
async fn change(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
    given::Json(given): given::Json<GivenSettings>,
) -> Result<Json<Changed>, Problem> {
    let settings = given.read()?;
    change_to(&server, &id, &settings, &caller.name).await?;
    Ok(Json(Changed { changed: id }))
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

/// Forget a group
///
/// Its lead is let in no more.
#[utoipa::path(delete, path = "/api/groups/{id}", tag = "groups", operation_id = "removeGroup",
    security(("token" = ["admin"])), params(("id" = Identity, Path)),
    responses((status = 200, description = "Forgotten.", body = Removed)))]
async fn remove(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Removed>, Problem> {
    forget(&server, &id, &caller.name).await?;
    Ok(Json(Removed { removed: id }))
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

/// Abort a group's open rollout
///
/// An order, which its lead carries out when it comes.
#[utoipa::path(post, path = "/api/groups/{id}/abort", tag = "groups",
    operation_id = "abortGroup", security(("token" = ["operator"])),
    params(("id" = Identity, Path)),
    responses((status = 202, description = "Ordered.", body = Ordered)))]
async fn abort(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<(StatusCode, Json<Ordered>), Problem> {
    let order = order(&server, &id, "abort", &caller.name).await?;
    Ok((StatusCode::ACCEPTED, Json(Ordered { order })))
}

/// Take a group's last rollout back
///
/// An order, which its lead carries out when it comes.
#[utoipa::path(post, path = "/api/groups/{id}/revert", tag = "groups",
    operation_id = "revertGroup", security(("token" = ["operator"])),
    params(("id" = Identity, Path)),
    responses((status = 202, description = "Ordered.", body = Ordered)))]
async fn revert(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<(StatusCode, Json<Ordered>), Problem> {
    let order = order(&server, &id, "revert", &caller.name).await?;
    Ok((StatusCode::ACCEPTED, Json(Ordered { order })))
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

/// Tokens of groups that are to come
///
/// Those that were not used; not their secrets.
#[utoipa::path(get, path = "/api/enrolments", tag = "groups", operation_id = "listEnrolments",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All.", body = Enrolments)))]
async fn enrolments(
    State(server): State<Arc<Server>>,
    _: Admin,
) -> Result<Json<Enrolments>, Problem> {
    let enrolments = server.store.enrolments().await?.into_iter().map(Into::into).collect();
    Ok(Json(Enrolments { enrolments }))
}

/// The body of a new token for a group that is to come, or for a new lead of one that is here.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEnrolment {
    /// What the group is to be called.
    #[serde(default)]
    #[schema(value_type = MaybeTitle)]
    pub(super) name: String,
    #[serde(default)]
    #[schema(value_type = LabelsText)]
    pub(super) labels: String,
    #[serde(default)]
    #[schema(value_type = Zone)]
    pub(super) zone: String,
    /// A group that is to have a new lead; it keeps its name, labels and zone.
    #[schema(value_type = Option<Identity>)]
    pub(super) group: Option<String>,
    /// The token is good for so long; null: a week.
    #[serde(default, deserialize_with = "given::whole_maybe")]
    #[schema(minimum = 60, maximum = 7_948_800)]
    pub(super) expires_in_s: Option<u32>,
}

/// Make a token that lets a lead in
///
/// For a new group, or for a new lead of one that is here. It is told only in this answer.
#[utoipa::path(post, path = "/api/enrolments", tag = "groups", operation_id = "makeEnrolment",
    request_body = NewEnrolment,
    security(("token" = ["admin"])),
    responses(
        (status = 201, description = "Made.", body = NewEnrolmentToken),
        (status = 404, description = "`not-found`: there is no such group."),
        (status = 422, description = "`no-name`: neither a name nor a group."),
    ))]
async fn make_enrolment(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Json(new): given::Json<NewEnrolment>,
) -> Result<(StatusCode, Json<NewEnrolmentToken>), Problem> {
    let (token, expires_at) = enrolment(&server, &new, &caller.name).await?;
    let command = enrol_command(&server, &token);
    Ok((StatusCode::CREATED, Json(NewEnrolmentToken { token, expires_at, command })))
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
        (None, "") => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "no-name",
                "neither the name of a new group nor a group that is here",
                "give it a `name`, or name a `group`",
            ));
        }
        (None, name) => name.to_owned(),
    };
    let seconds = new.expires_in_s.unwrap_or(EXPIRES_S);
    if !(EXPIRES_S_MIN..=EXPIRES_S_MAX).contains(&seconds) {
        return Err(Problem::bad_request(
            format_args!(
                "`expires_in_s` is {seconds}, expected {EXPIRES_S_MIN} to {EXPIRES_S_MAX}"
            ),
            "leave it out for a week",
        ));
    }
    let (labels, zone) = (new.labels.clone(), new.zone.clone());
    let given = GivenSettings { name, labels, zone, hours: String::new(), mode: String::new() };
    let now = Timestamp::now();
    let expires_at =
        now.checked_add(Span::new().seconds(i64::from(seconds))).unwrap_or(Timestamp::MAX);
    let (settings, group) = (given.read()?, new.group.as_deref());
    let token = server.store.make_enrolment(&settings, group, who, now, expires_at).await?;
    Ok((token, expires_at))
}

/// Take a token back that was not used
#[utoipa::path(delete, path = "/api/enrolments/{id}", tag = "groups",
    operation_id = "revokeEnrolment", security(("token" = ["admin"])),
    params(("id" = Identity, Path)),
    responses((status = 200, description = "It is good no more.", body = Revoked)))]
async fn revoke_enrolment(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Revoked>, Problem> {
    if !server.store.revoke_enrolment(&id, &caller.name, Timestamp::now()).await? {
        return Err(Problem::not_found("enrolment that was not used", &id));
    }
    Ok(Json(Revoked { revoked: id }))
}

/// Characters of a group's name that has a number behind it, and more.
const AFTER_CHARS_MAX: usize = 200;
/// Groups of one page.
const PAGE_GROUPS: i64 = 100;
/// An enrolment token is good for so long unless somebody says otherwise, in seconds: a week.
const EXPIRES_S: u32 = 7 * 24 * 3600;
/// At least: a minute.
const EXPIRES_S_MIN: u32 = 60;
/// And at most: three months.
const EXPIRES_S_MAX: u32 = 92 * 24 * 3600;
