//! Campaigns for people and programs: made, watched, steered.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{
    Aborted, Approved, Campaigns, Counts, Findings, NewCampaign as NewCampaignAnswer, OneCampaign,
    Paused, Resumed, Retried, Reverting, WholeCampaign,
};
use super::auth::{Operator, Viewer};
use super::contract::{Identity, Labels as LabelsText, MaybeTitle, Moment, ReleaseName, Waves};
use super::given;
use super::groups::labels;
use super::problem::Problem;
use crate::campaign::{Standing, State as CampaignState, Wave, read_waves, waves_of};
use crate::check::{Finding, Weight};
use crate::field::findings;
use crate::fleet::{excerpt, is_title};
use crate::server::{Change, Server};
use crate::store::campaigns::{Campaign, Made, NewCampaign, Participant};
use crate::store::groups::{Attention, Filter, Group};
use crate::store::releases::Release;

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(list, make))
        .routes(routes!(check))
        .routes(routes!(show))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
        .routes(routes!(approve))
        .routes(routes!(revert))
        .routes(routes!(retry))
}

/// All campaigns
///
/// Newest first.
#[utoipa::path(get, path = "/api/campaigns", tag = "campaigns", operation_id = "listCampaigns",
    security(("token" = ["viewer"])),
    responses((status = 200, description = "All.", body = Campaigns)))]
async fn list(State(server): State<Arc<Server>>, _: Viewer) -> Result<Json<Campaigns>, Problem> {
    let campaigns = server.store.campaigns().await?.iter().map(Into::into).collect();
    Ok(Json(Campaigns { campaigns }))
}

/// One campaign
///
/// With its groups.
#[utoipa::path(get, path = "/api/campaigns/{id}", tag = "campaigns", operation_id = "showCampaign",
    security(("token" = ["viewer"])), params(("id" = Identity, Path)),
    responses((status = 200, description = "It.", body = OneCampaign)))]
async fn show(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Path(id): given::Path<String>,
) -> Result<Json<OneCampaign>, Problem> {
    let campaign = find(&server, &id).await?;
    let participants = server.store.participants(&id).await?;
    let campaign = WholeCampaign {
        campaign: (&campaign).into(),
        counts: Counts::of(&participants),
        groups: participants.into_iter().map(Into::into).collect(),
    };
    Ok(Json(OneCampaign { campaign }))
}

pub(super) async fn find(server: &Server, id: &str) -> Result<Campaign, Problem> {
    server.store.campaign(id).await?.ok_or_else(|| Problem::not_found("campaign", id))
}

/// What a person gives of a new campaign.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CampaignPlan)]
pub(super) struct Given {
    /// What to call it; empty: after the release.
    #[serde(default)]
    #[schema(value_type = MaybeTitle)]
    pub(super) name: String,
    #[schema(value_type = ReleaseName)]
    pub(super) release: String,
    /// All groups with these labels.
    #[serde(default)]
    #[schema(value_type = LabelsText)]
    pub(super) labels: String,
    /// These groups alone, by identity; takes the place of `labels`.
    #[serde(default)]
    #[schema(value_type = Vec<Identity>)]
    pub(super) groups: Vec<String>,
    /// Groups with these labels are a first wave of their own.
    #[serde(default)]
    #[schema(value_type = LabelsText)]
    pub(super) canary: String,
    /// Shares of the others, as `10,40!,50`; empty: all at once.
    #[serde(default)]
    #[schema(value_type = Waves)]
    pub(super) waves: String,
    /// So long a wave must have kept the release before the next begins, in seconds.
    #[serde(default, deserialize_with = "given::whole")]
    pub(super) soak_s: u32,
    /// A wave does not wait longer for groups that do not begin, in seconds; 0: it waits.
    #[serde(default, deserialize_with = "given::whole")]
    pub(super) patience_s: u32,
    /// More failures than these, and it pauses.
    #[serde(default, deserialize_with = "given::whole")]
    pub(super) failures_max: u32,
    /// Nothing is offered before this moment.
    #[serde(default)]
    #[schema(value_type = Option<Moment>)]
    pub(super) not_before: Option<Timestamp>,
    /// Somebody has read that some groups would refuse it, and wants it all the same.
    #[serde(default)]
    pub(super) despite_findings: bool,
}

/// Make a campaign
///
/// Whoever may have the release now is offered it.
#[utoipa::path(post, path = "/api/campaigns", tag = "campaigns", operation_id = "makeCampaign",
    request_body = Given,
    security(("token" = ["operator"])),
    responses(
        (status = 201, description = "Made.", body = NewCampaignAnswer),
        (status = 404, description = "`not-found`: there is no such release, or no such group."),
        (status = 409, description = "`withdrawn`: the release is. `in-another-campaign`: a group \
            is, which is not over."),
        (status = 422, description = "`no-groups`: none was chosen. `no-canary`: none for it. \
            `would-be-refused`: by some, as a check says."),
    ))]
async fn make(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Json(given): given::Json<Given>,
) -> Result<(StatusCode, Json<NewCampaignAnswer>), Problem> {
    let id = begin(&server, &given, &caller.name).await?;
    let campaign = (&find(&server, &id).await?).into();
    Ok((StatusCode::CREATED, Json(NewCampaignAnswer { campaign })))
}

/// What would go wrong with a campaign
///
/// Nothing is made.
#[utoipa::path(post, path = "/api/campaigns/check", tag = "campaigns",
    operation_id = "checkCampaign", request_body = Given, security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "What was found.", body = Findings),
        (status = 404, description = "`not-found`: there is no such release, or no such group."),
        (status = 409, description = "`withdrawn`: the release is."),
        (status = 422, description = "`no-groups`: none was chosen. `no-canary`: none for it."),
    ))]
async fn check(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Json(given): given::Json<Given>,
) -> Result<Json<Findings>, Problem> {
    let findings = foresee(&server, &given).await?;
    Ok(Json(Findings { findings }))
}

/// What would go wrong with such a campaign.
pub(super) async fn foresee(server: &Server, given: &Given) -> Result<Vec<Finding>, Problem> {
    let release = find_release(server, &given.release).await?;
    let chosen = choose(server, given).await?;
    plan(given, &release, &chosen)?;
    Ok(findings(&server.store, &release, &chosen).await?)
}

/// That a group would refuse it is said before anything is made.
fn refuse_stops(found: &[Finding]) -> Result<(), Problem> {
    let mut stops = found.iter().filter(|it| it.weight == Weight::Stops).peekable();
    if stops.peek().is_none() {
        return Ok(());
    }
    let text = |it: &Finding| match it.names.as_slice() {
        [] => it.text.clone(),
        [name] => format!("`{name}` {}", it.text),
        [name, ..] => format!("`{name}` and {} more: {}", it.groups - 1, it.text),
    };
    let texts: Vec<_> = stops.map(text).collect();
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "would-be-refused",
        texts.join("; "),
        "leave these groups out, mend the release, or go on despite the findings \
         (`despite_findings`; `--despite-findings`)",
    ))
}

/// Makes a campaign, and offers to whoever may have it now; its identity.
pub(super) async fn begin(server: &Server, given: &Given, who: &str) -> Result<String, Problem> {
    let release = find_release(server, &given.release).await?;
    let chosen = choose(server, given).await?;
    if !given.despite_findings {
        refuse_stops(&findings(&server.store, &release, &chosen).await?)?;
    }
    let new = plan(given, &release, &chosen)?;
    let now = Timestamp::now();
    match server.store.make_campaign(&new, who, now).await? {
        Made::Campaign(id) => {
            server.advance(&id, now).await?;
            server.changed(Change::Campaign(id.clone()));
            Ok(id)
        }
        Made::Taken(group, campaign) => Err(Problem::conflict(
            "in-another-campaign",
            format_args!("group `{group}` is in the campaign `{campaign}`, which is not over"),
            "abort that one first, or choose other groups",
        )),
    }
}

/// A release by its identity, or the newest one of that version.
async fn find_release(server: &Server, wanted: &str) -> Result<Release, Problem> {
    let missing = || Problem::not_found("release", wanted);
    let release = match server.store.release(wanted).await? {
        Some(release) => release,
        None => {
            let releases = server.store.releases().await?;
            let mut of_version = releases.into_iter().filter(|it| it.version == wanted);
            of_version.next().ok_or_else(missing)?
        }
    };
    match release.withdrawn_at {
        None => Ok(release),
        Some(at) => Err(Problem::conflict(
            "withdrawn",
            format_args!("release {} was withdrawn at {at:.0}", release.version),
            "choose another one",
        )),
    }
}

async fn choose(server: &Server, given: &Given) -> Result<Vec<Group>, Problem> {
    let mut chosen = Vec::new();
    for id in &given.groups {
        let group = server.store.group(id).await?;
        chosen.push(group.ok_or_else(|| Problem::not_found("group", id))?);
    }
    if given.groups.is_empty() {
        let filter = Filter {
            labels: labels(&given.labels)?,
            number: None,
            name: String::new(),
            attention: Attention::Any,
        };
        chosen = server.store.groups(&filter, "", GROUPS_MAX + 1).await?;
    }
    if chosen.is_empty() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no-groups",
            format_args!("no group has the labels `{}`", excerpt(&given.labels)),
            "see which there are: `lockstep group list --server URL`",
        ));
    }
    if i64::try_from(chosen.len()).is_ok_and(|found| found > GROUPS_MAX) {
        return Err(Problem::bad_request(
            format_args!("more than {GROUPS_MAX} groups, which one campaign has at most"),
            "choose by more labels",
        ));
    }
    Ok(chosen)
}

/// Which group's turn comes when.
fn plan(given: &Given, release: &Release, chosen: &[Group]) -> Result<NewCampaign, Problem> {
    let name = match given.name.as_str() {
        "" => format!("{} {}", release.system, release.version).trim().to_owned(),
        name if is_title(name) => name.to_owned(),
        name => {
            return Err(Problem::bad_request(
                format_args!("`{}` is no name of a campaign", excerpt(name)),
                "give it 1 to 80 characters, without a blank at either end",
            ));
        }
    };
    let patience_s = (given.patience_s > 0).then_some(given.patience_s);
    let shares = if given.waves.is_empty() { "100" } else { &given.waves };
    let mut waves = read_waves(shares, given.soak_s, patience_s)
        .map_err(|error| Problem::bad_request(error, "such as `10,40,50`, or `10,90!`"))?;
    let canary = labels(&given.canary)?;
    let has_canary = canary.iter().next().is_some();
    let is_canary = |group: &&Group| has_canary && group.labels.has_all(&canary);
    let (first, rest): (Vec<&Group>, Vec<&Group>) = chosen.iter().partition(is_canary);
    if has_canary && first.is_empty() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no-canary",
            format_args!("no group among the chosen ones has the labels `{canary}` of the canary"),
            "choose other labels, or none",
        ));
    }
    let percents: Vec<u8> = waves.iter().map(|wave| wave.percent).collect();
    let offset = usize::from(has_canary);
    let of_rest = waves_of(rest.len(), &percents).into_iter().map(|wave| wave + offset);
    if has_canary {
        let (needs_approval, is_approved) = (false, false);
        waves.insert(
            0,
            Wave { percent: 0, needs_approval, is_approved, soak_s: given.soak_s, patience_s },
        );
    }
    let turns = first.iter().map(|_| 0).chain(of_rest);
    let groups = first
        .iter()
        .chain(&rest)
        .zip(turns)
        .map(|(group, wave)| (group.id.clone(), wave, group.number, left_out(group, release)));
    Ok(NewCampaign {
        name,
        release: release.id.clone(),
        waves,
        failures_max: usize::try_from(given.failures_max).unwrap_or(usize::MAX),
        not_before: given.not_before,
        groups: groups.collect(),
    })
}

/// Why a group is not touched; `None`: it is.
fn left_out(group: &Group, release: &Release) -> Option<String> {
    let is_other = |system: &&String| !release.system.is_empty() && **system != release.system;
    if let Some(system) = group.system.as_ref().filter(is_other) {
        return Some(format!("is a group of `{system}`, the release is for `{}`", release.system));
    }
    None
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
pub(super) async fn go_on(
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
pub(super) async fn steer(
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

pub(super) async fn approve_wave(
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
pub(super) async fn revert_wave(
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
        super::groups::order(server, group, "revert", who).await?;
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

pub(super) async fn retry_group(
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

/// Groups of one campaign, at most.
const GROUPS_MAX: i64 = 100_000;
