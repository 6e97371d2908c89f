//! `/`: what needs a person first, then how the fleet stands.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;

use super::said::Said;
use super::shown::{self, Part};
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
    now: Timestamp,
    url: String,
    has_releases: bool,
    groups: u64,
    attention: Vec<Group>,
    silent: Vec<Silent>,
    failed: Vec<FailedGroup>,
    paused: Vec<Campaign>,
    by_release: Vec<Part>,
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
    let is_paused = |it: &&Campaign| it.plan.state == CampaignState::Paused;
    Ok(OverviewPage {
        frame,
        now,
        url: server.public_url.clone(),
        has_releases: !store.releases().await?.is_empty(),
        groups: census.iter().map(|it| it.groups).sum(),
        attention: store.groups(&wanted, "", ATTENTION_MAX).await?,
        silent: store.silent_groups(server.silent_before(now)).await?,
        failed: store.failed_groups().await?,
        paused: campaigns.iter().filter(is_paused).cloned().collect(),
        by_release: by_release(&census),
        rollouts: store.open_rollouts().await?.into_iter().map(progress).collect(),
        campaigns: campaigns.into_iter().take(CAMPAIGNS_MAX).collect(),
    })
}

/// Groups by their release, the newest first; a group that is on none is last.
fn by_release(census: &[Count]) -> Vec<Part> {
    let releases =
        by_number(census).into_iter().rev().enumerate().map(|(place, (number, groups))| {
            let (name, look) = match number {
                0 => ("no one release".to_owned(), "none"),
                _ => (shown::version(number), LOOKS.get(place).copied().unwrap_or("older")),
            };
            (name, look, groups)
        });
    shown::parts(releases)
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
/// How the newest releases of a bar look.
const LOOKS: [&str; 4] = ["first", "second", "third", "fourth"];
