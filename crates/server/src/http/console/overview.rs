//! `/`: what needs a person first, then how the fleet stands.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};

use super::plot::{Adoption, Bar, Looks, Strips};
use super::said::Said;
use super::shown;
use super::{Frame, Looking, Trouble, frame, page};
use crate::campaign::State as CampaignState;
use crate::server::Server;
use crate::store::campaigns::Campaign;
use crate::store::groups::{Attention, Filter, Group};
use crate::store::overview::{Count, FailedGroup, InRollout, Silent, by_number};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/", get(show))
}

#[derive(Template)]
#[template(path = "fresh.html")]
struct FreshPage {
    frame: Frame,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    url: String,
    has_releases: bool,
    groups: u64,
    attention: Vec<Group>,
    silent: Vec<Silent>,
    failed: Vec<FailedGroup>,
    paused: Vec<Campaign>,
    by_release: Bar,
    adoption: Option<Adoption>,
    took: Option<Strips>,
    disagreement: Option<Strips>,
    rollouts: Vec<Progress>,
    campaigns: Vec<Campaign>,
}

/// A rollout that goes on, in one line.
struct Progress {
    it: InRollout,
    release: String,
    staged: u64,
    size: u64,
}

async fn show(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Trouble> {
    if server.store.is_new().await? {
        return page(&FreshPage { frame: Frame::default() });
    }
    let (mut parts, _) = request.into_parts();
    let found = <Looking as axum::extract::FromRequestParts<_>>::from_request_parts;
    let Looking(caller) = found(&mut parts, &server).await?;
    let frame = frame(&caller, "overview", "group: campaign: releases");
    page(&overview(&server, frame).await?)
}

async fn overview(server: &Server, frame: Frame) -> Result<OverviewPage, Trouble> {
    let (store, now) = (&server.store, Timestamp::now());
    let wanted = Filter { attention: Attention::Needed, ..Filter::default() };
    let census = store.census().await?;
    let campaigns = store.campaigns().await?;
    let since = now.checked_sub(SignedDuration::from_hours(ADOPTION_HOURS)).unwrap_or(now);
    let (settled, moves) = (store.settled_census().await?, store.moves(since).await?);
    let been = moves.iter().flat_map(|it| [it.from, it.to]).flatten();
    let numbers = census.iter().map(|it| it.number).chain(settled.iter().map(|it| it.0));
    let looks = Looks::of(numbers.chain(been));
    let took = store.rollouts_took(None).await?;
    let is_paused = |it: &&Campaign| it.plan.state == CampaignState::Paused;
    Ok(OverviewPage {
        frame,
        url: server.public_url.clone(),
        has_releases: !store.releases().await?.is_empty(),
        groups: census.iter().map(|it| it.groups).sum(),
        attention: store.groups(&wanted, "", ATTENTION_MAX).await?,
        silent: store.silent_groups(server.silent_before(now)).await?,
        failed: store.failed_groups().await?,
        paused: campaigns.iter().filter(is_paused).cloned().collect(),
        by_release: by_release(&census, &looks),
        adoption: Adoption::of(&settled, &moves, &looks, since, now),
        took: Strips::of_rollouts(&took),
        disagreement: Strips::of_disagreement(&took),
        rollouts: store.open_rollouts().await?.into_iter().map(progress).collect(),
        campaigns: campaigns.into_iter().take(CAMPAIGNS_MAX).collect(),
    })
}

/// Groups by their release, the newest first; a group that is on none is last.
fn by_release(census: &[Count], looks: &Looks) -> Bar {
    let releases = by_number(census).into_iter().rev().map(|(number, groups)| {
        let (name, look) = looks.name(number);
        (name, look, groups)
    });
    Bar::of("Groups by release", releases)
}

fn progress(it: InRollout) -> Progress {
    let said = Said::read(&it.documents);
    let (staged, size) = said.rollout().map_or((0, 0), super::said::Rollout::progress);
    let release = said.rollout().map(|rollout| rollout.release.clone()).unwrap_or_default();
    Progress { it, release, staged, size }
}

/// Groups that a person should look at, shown at most.
const ATTENTION_MAX: i64 = 50;
/// Recent campaigns that are shown.
const CAMPAIGNS_MAX: usize = 5;
/// So far back groups by release are shown: two weeks.
const ADOPTION_HOURS: i64 = 14 * 24;
