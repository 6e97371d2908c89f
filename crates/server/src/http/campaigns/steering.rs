//! A campaign that was made is paused, resumed, ended; a wave is approved or taken back, a group
//! tried again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::find;
use crate::campaign::{Standing, State as CampaignState};
use crate::http::answers::{Aborted, Approved, Paused, Resumed, Retried, Reverting};
use crate::http::auth::Operator;
use crate::http::contract::Identity;
use crate::http::given;
use crate::http::groups::order;
use crate::http::problem::Problem;
use crate::server::{Change, Server};
use crate::store::campaigns::Participant;

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
        .routes(routes!(approve))
        .routes(routes!(revert))
        .routes(routes!(retry))
}

/// Pause a campaign
///
/// What was offered and not begun is taken back.
#[utoipa::path(post, path = "/api/campaigns/{id}/pause", tag = "campaigns",
    operation_id = "pauseCampaign", security(("token" = ["operator"])),
    params(("id" = Identity, Path)),
    responses(
        (status = 200, description = "It offers nothing.", body = Paused),
        (status = 409, description = "`not-now`: it stands so that this cannot be."),
    ))]
async fn pause(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<Json<Paused>, Problem> {
    let why = format!("paused by {}", caller.name);
    steer(&server, &id, CampaignState::Paused, &why, &caller.name).await?;
    Ok(Json(Paused { paused: id }))
}

/// What may change when a campaign goes on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Resume {
    /// So many failures are allowed from now on.
    #[serde(deserialize_with = "given::whole_maybe")]
    failures_max: Option<u32>,
}

/// Let a campaign go on
#[utoipa::path(post, path = "/api/campaigns/{id}/resume", tag = "campaigns",
    operation_id = "resumeCampaign", security(("token" = ["operator"])),
    params(("id" = Identity, Path)), request_body = Option<Resume>,
    responses(
        (status = 200, description = "It goes on.", body = Resumed),
        (status = 409, description = "`not-now`: it is not paused. `too-many-failures`: it would \
            pause again."),
    ))]
async fn resume(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
    given::Body(body): given::Body,
) -> Result<Json<Resumed>, Problem> {
    let resume: Option<Resume> = match body.is_empty() {
        true => None,
        false => given::json(&body).map_err(|error| {
            Problem::bad_request(error, "the body is nothing, or `{\"failures_max\":NUMBER}`")
        })?,
    };
    let failures_max = resume.and_then(|it| it.failures_max);
    let failures_max = failures_max.map(|it| usize::try_from(it).unwrap_or(usize::MAX));
    go_on(&server, &id, failures_max, &caller.name).await?;
    Ok(Json(Resumed { resumed: id }))
}

/// Resumes a campaign. One that paused for its failures would pause at once again, unless more of
/// them are allowed.
pub(crate) async fn go_on(
    server: &Server,
    id: &str,
    failures_max: Option<usize>,
    who: &str,
) -> Result<(), Problem> {
    let campaign = find(server, id).await?;
    let participants = server.store.participants(id).await?;
    let failed = participants.iter().filter(|it| it.standing == Standing::Failed).count();
    let allowed = failures_max.unwrap_or(campaign.plan.failures_max);
    if failed > allowed && campaign.plan.state == CampaignState::Paused {
        return Err(Problem::conflict(
            "too-many-failures",
            format_args!("{failed} groups failed, allowed are {allowed}: it would pause again"),
            format_args!("give the groups another chance, or allow {failed}"),
        ));
    }
    if let Some(failures_max) = failures_max {
        server.store.set_failures_max(id, failures_max, who, Timestamp::now()).await?;
    }
    steer(server, id, CampaignState::Running, "", who).await
}

/// End a campaign
///
/// Groups that have begun go on by themselves.
#[utoipa::path(post, path = "/api/campaigns/{id}/abort", tag = "campaigns",
    operation_id = "abortCampaign", security(("token" = ["operator"])),
    params(("id" = Identity, Path)),
    responses(
        (status = 200, description = "It has ended.", body = Aborted),
        (status = 409, description = "`not-now`: it stands so that this cannot be."),
    ))]
async fn abort(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<Json<Aborted>, Problem> {
    let why = format!("ended by {}", caller.name);
    steer(&server, &id, CampaignState::Aborted, &why, &caller.name).await?;
    Ok(Json(Aborted { aborted: id }))
}

/// Pauses, resumes or ends a campaign, and takes back or offers what follows.
pub(crate) async fn steer(
    server: &Server,
    id: &str,
    state: CampaignState,
    why: &str,
    who: &str,
) -> Result<(), Problem> {
    let now = Timestamp::now();
    match server.store.set_campaign_state(id, state, why, who, now).await? {
        None => return Err(Problem::not_found("campaign", id)),
        Some(false) => {
            let campaign = find(server, id).await?;
            let present = campaign.plan.state.as_str();
            return Err(Problem::conflict(
                "not-now",
                format_args!("campaign is {present}, and cannot become {}", state.as_str()),
                "only one that runs can be paused, and only one that is paused resumed",
            ));
        }
        Some(true) => (),
    }
    server.advance(id, now).await?;
    server.changed(Change::Campaign(id.to_owned()));
    Ok(())
}

/// Let a wave begin
///
/// Waves are counted from 1.
#[utoipa::path(post, path = "/api/campaigns/{id}/waves/{wave}/approve", tag = "campaigns",
    operation_id = "approveWave", security(("token" = ["operator"])),
    params(("id" = Identity, Path), ("wave" = u32, Path, minimum = 1, maximum = 20)),
    responses(
        (status = 200, description = "It may begin.", body = Approved),
        (status = 409, description = "`not-needed`: it needs no approval, or has it."),
    ))]
async fn approve(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path((id, wave)): given::Path<(String, usize)>,
) -> Result<Json<Approved>, Problem> {
    approve_wave(&server, &id, wave, &caller.name).await?;
    Ok(Json(Approved { approved: wave }))
}

pub(crate) async fn approve_wave(
    server: &Server,
    id: &str,
    wave: usize,
    who: &str,
) -> Result<(), Problem> {
    let now = Timestamp::now();
    let missing = || Problem::not_found("wave", &wave.to_string());
    let index = wave.checked_sub(1).ok_or_else(missing)?;
    match server.store.approve_wave(id, index, who, now).await? {
        None => return Err(missing()),
        Some(false) => {
            return Err(Problem::conflict(
                "not-needed",
                format_args!("wave {wave} needs no approval, or has it"),
                "see the campaign",
            ));
        }
        Some(true) => (),
    }
    server.advance(id, now).await?;
    server.changed(Change::Campaign(id.to_owned()));
    Ok(())
}

/// Take a wave back
///
/// Every group of it that kept the release goes back, and the campaign pauses.
#[utoipa::path(post, path = "/api/campaigns/{id}/waves/{wave}/revert", tag = "campaigns",
    operation_id = "revertWave", security(("token" = ["operator"])),
    params(("id" = Identity, Path), ("wave" = u32, Path, minimum = 1, maximum = 20)),
    responses(
        (status = 202, description = "Ordered.", body = Reverting),
        (status = 409, description = "`nothing-to-revert`: no group of it has kept the release."),
    ))]
async fn revert(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path((id, wave)): given::Path<(String, usize)>,
) -> Result<(StatusCode, Json<Reverting>), Problem> {
    let reverting = revert_wave(&server, &id, wave, &caller.name).await?;
    Ok((StatusCode::ACCEPTED, Json(Reverting { reverting })))
}

/// The campaign pauses first: else it would go on with what is being taken back.
pub(crate) async fn revert_wave(
    server: &Server,
    id: &str,
    wave: usize,
    who: &str,
) -> Result<Vec<String>, Problem> {
    let campaign = find(server, id).await?;
    let missing = || Problem::not_found("wave", &wave.to_string());
    let index = wave.checked_sub(1).filter(|it| *it < campaign.plan.waves.len());
    let index = index.ok_or_else(missing)?;
    let participants = server.store.participants(id).await?;
    let kept = |it: &&Participant| it.wave == index && it.standing == Standing::Kept;
    let groups: Vec<_> = participants.iter().filter(kept).map(|it| it.group.clone()).collect();
    if groups.is_empty() {
        return Err(Problem::conflict(
            "nothing-to-revert",
            format_args!("no group of wave {wave} has kept the release"),
            "a rollout that goes on is ended at its group",
        ));
    }
    if campaign.plan.state == CampaignState::Running {
        let why = format!("wave {wave} is taken back by {who}");
        steer(server, id, CampaignState::Paused, &why, who).await?;
    }
    for group in &groups {
        order(server, group, "revert", who).await?;
    }
    Ok(groups)
}

/// Give a group another chance
///
/// It has failed in this campaign.
#[utoipa::path(post, path = "/api/campaigns/{id}/groups/{group}/retry", tag = "campaigns",
    operation_id = "retryGroup", security(("token" = ["operator"])),
    params(("id" = Identity, Path), ("group" = Identity, Path)),
    responses(
        (status = 200, description = "Its turn comes again.", body = Retried),
        (status = 409, description = "`has-not-failed`: it has not."),
    ))]
async fn retry(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path((id, group)): given::Path<(String, String)>,
) -> Result<Json<Retried>, Problem> {
    retry_group(&server, &id, &group, &caller.name).await?;
    Ok(Json(Retried { retried: group }))
}

pub(crate) async fn retry_group(
    server: &Server,
    id: &str,
    group: &str,
    who: &str,
) -> Result<(), Problem> {
    find(server, id).await?;
    let now = Timestamp::now();
    if !server.store.retry_group(id, group, who, now).await? {
        return Err(Problem::conflict(
            "has-not-failed",
            "group has not failed in this campaign",
            "see the campaign",
        ));
    }
    server.advance(id, now).await?;
    server.changed(Change::Campaign(id.to_owned()));
    Ok(())
}
