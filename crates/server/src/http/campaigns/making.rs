//! A campaign is made: a release, groups, waves; and what would go wrong with it is said before.

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
use crate::campaign::{Wave, read_waves, waves_of};
use crate::check::{Finding, Weight};
use crate::field::{findings, other_product};
use crate::fleet::{excerpt, is_title};
use crate::http::answers::{Findings, NewCampaign as NewCampaignAnswer};
use crate::http::auth::{Operator, Viewer};
use crate::http::contract::{
    Identity, Labels as LabelsText, MaybeTitle, Moment, ReleaseName, Waves,
};
use crate::http::given;
use crate::http::groups::labels;
use crate::http::problem::Problem;
use crate::server::{Change, Server};
use crate::store::campaigns::{Made, NewCampaign};
use crate::store::groups::{Attention, Filter, Group};
use crate::store::releases::Release;

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new().routes(routes!(make)).routes(routes!(check))
}

/// What a person gives of a new campaign.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CampaignPlan)]
pub(crate) struct Given {
    /// What to call it; empty: after the release.
    #[serde(default)]
    #[schema(value_type = MaybeTitle)]
    pub(crate) name: String,
    #[schema(value_type = ReleaseName)]
    pub(crate) release: String,
    /// All groups with these labels.
    #[serde(default)]
    #[schema(value_type = LabelsText)]
    pub(crate) labels: String,
    /// These groups alone, by identity; takes the place of `labels`.
    #[serde(default)]
    #[schema(value_type = Vec<Identity>)]
    pub(crate) groups: Vec<String>,
    /// Groups with these labels are a first wave of their own.
    #[serde(default)]
    #[schema(value_type = LabelsText)]
    pub(crate) canary: String,
    /// Shares of the others, as `10,40!,50`; empty: all at once.
    #[serde(default)]
    #[schema(value_type = Waves)]
    pub(crate) waves: String,
    /// So long a wave must have kept the release before the next begins, in seconds.
    #[serde(default, deserialize_with = "given::whole")]
    pub(crate) soak_s: u32,
    /// A wave does not wait longer for groups that do not begin, in seconds; 0: it waits.
    #[serde(default, deserialize_with = "given::whole")]
    pub(crate) patience_s: u32,
    /// More failures than these, and it pauses.
    #[serde(default, deserialize_with = "given::whole")]
    pub(crate) failures_max: u32,
    /// Nothing is offered before this moment.
    #[serde(default)]
    #[schema(value_type = Option<Moment>)]
    pub(crate) not_before: Option<Timestamp>,
    /// Somebody has read that some groups would refuse it, and wants it all the same.
    #[serde(default)]
    pub(crate) despite_findings: bool,
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
pub(crate) async fn foresee(server: &Server, given: &Given) -> Result<Vec<Finding>, Problem> {
    let release = find_release(server, &given.release).await?;
    let chosen = choose(server, given).await?;
    plan(given, &release, &chosen)?;
    found(server, &release, &chosen).await
}

/// Groups of another product are left out, so what they would refuse stops nothing.
async fn found(
    server: &Server,
    release: &Release,
    chosen: &[Group],
) -> Result<Vec<Finding>, Problem> {
    let is_for = |it: &&Group| other_product(release, it).is_none();
    let touched: Vec<_> = chosen.iter().filter(is_for).cloned().collect();
    Ok(findings(&server.store, release, &touched).await?)
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
pub(crate) async fn begin(server: &Server, given: &Given, who: &str) -> Result<String, Problem> {
    let release = find_release(server, &given.release).await?;
    let chosen = choose(server, given).await?;
    if !given.despite_findings {
        refuse_stops(&found(server, &release, &chosen).await?)?;
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
    let system = other_product(release, group)?;
    Some(format!("is a group of `{system}`, the release is for `{}`", release.system))
}

/// Groups of one campaign, at most.
const GROUPS_MAX: i64 = 100_000;
