//! `/campaigns/ID`: how far a campaign is, what it waits for, who failed and why; and what a person
//! can do about it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use jiff::Timestamp;
use serde::Deserialize;

use super::plot::{Bar, Steps};
use super::shown::{self, standing_look};
use super::{Frame, Looking, Moving, Trouble, frame, page, see_other};
use crate::campaign::{Member, Standing, State as CampaignState, WaitsFor, Wave};
use crate::hours::Hours;
use crate::http::campaigns::{approve_wave, find, go_on, retry_group, revert_wave, steer};
use crate::http::problem::Problem;
use crate::server::Server;
use crate::store::campaigns::{Campaign, Participant};
use crate::store::releases::Release;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/campaigns/{id}", get(show))
        .route("/campaigns/{id}/pause", post(pause))
        .route("/campaigns/{id}/resume", post(resume))
        .route("/campaigns/{id}/abort", post(abort))
        .route("/campaigns/{id}/waves/{wave}/approve", post(approve))
        .route("/campaigns/{id}/waves/{wave}/revert", post(revert))
        .route("/campaigns/{id}/groups/{group}/retry", post(retry))
}

#[derive(Template)]
#[template(path = "campaign.html")]
struct CampaignPage {
    frame: Frame,
    campaign: Campaign,
    release: Option<Release>,
    waves: Vec<WaveRow>,
    counts: Vec<(Standing, usize)>,
    /// What it waits for, while it runs.
    waits: String,
    groups: Vec<Participant>,
    left_out: usize,
    plot: Steps,
}

struct WaveRow {
    /// As people count, from 1.
    number: usize,
    wave: Wave,
    groups: usize,
    kept: usize,
    bar: Bar,
    /// It waits for a person's word.
    is_asked: bool,
}

impl WaveRow {
    /// Whether there is something to do, or to say of its approval.
    const fn has_more(&self, is_operator: bool) -> bool {
        self.wave.needs_approval || (is_operator && self.kept > 0)
    }

    fn soak(&self) -> String {
        shown::seconds(i64::from(self.wave.soak_s))
    }
}

impl CampaignPage {
    fn is_running(&self) -> bool {
        self.campaign.plan.state == CampaignState::Running
    }

    fn is_paused(&self) -> bool {
        self.campaign.plan.state == CampaignState::Paused
    }

    fn failed(&self) -> usize {
        let failed = self.counts.iter().find(|(standing, _)| *standing == Standing::Failed);
        failed.map_or(0, |(_, count)| *count)
    }
}

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let campaign = find(&server, &id).await?;
    let mut groups = server.store.participants(&id).await?;
    let (now, members) = (Timestamp::now(), members(&groups));
    let waits_for = campaign.plan.waits_for(now, &members);
    let (waves, counts) = (waves(&campaign, &groups, waits_for), counts(&groups));
    let plot = adoption(&campaign, &groups, now);
    // Those that a person may want to do something about are on the page in any case.
    groups.sort_by_key(|it| it.standing != Standing::Failed);
    let left_out = groups.len().saturating_sub(GROUPS_MAX);
    groups.truncate(GROUPS_MAX);
    page(&CampaignPage {
        frame: frame(&caller, "campaigns", format!("campaign:{id} group:")),
        release: server.store.release(&campaign.release).await?,
        waits: words(waits_for, &campaign, &members, now),
        campaign,
        waves,
        counts,
        groups,
        left_out,
        plot,
    })
}

/// As far as it matters for what it waits for: hours do not.
fn members(groups: &[Participant]) -> Vec<Member> {
    let member = |it: &Participant| Member {
        group: it.group.clone(),
        wave: it.wave,
        standing: it.standing,
        since: it.since,
        hours: Hours::any(),
    };
    groups.iter().map(member).collect()
}

fn counts(groups: &[Participant]) -> Vec<(Standing, usize)> {
    let count = |standing| groups.iter().filter(|it| it.standing == standing).count();
    let counts = Standing::ALL.into_iter().map(|standing| (standing, count(standing)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn waves(campaign: &Campaign, groups: &[Participant], waits_for: WaitsFor) -> Vec<WaveRow> {
    let row = |(index, wave): (usize, &Wave)| {
        let of_wave: Vec<_> = groups.iter().filter(|it| it.wave == index).cloned().collect();
        let bar = SHOWN.into_iter().map(|standing| {
            let count = of_wave.iter().filter(|it| it.standing == standing).count();
            (standing.as_str().to_owned(), standing_look(standing), count as u64)
        });
        WaveRow {
            number: index + 1,
            wave: *wave,
            groups: of_wave.len(),
            kept: of_wave.iter().filter(|it| it.standing == Standing::Kept).count(),
            bar: Bar::of(format!("Wave {}", index + 1), bar),
            is_asked: campaign.plan.state.is_open() && waits_for == WaitsFor::Approval(index),
        }
    };
    campaign.plan.waves.iter().enumerate().map(row).collect()
}

/// What a running campaign waits for, in a sentence.
fn words(waits_for: WaitsFor, campaign: &Campaign, members: &[Member], now: Timestamp) -> String {
    match waits_for {
        WaitsFor::Start => "It waits for its moment.".to_owned(),
        WaitsFor::Approval(wave) => format!("It waits for somebody to approve wave {}.", wave + 1),
        WaitsFor::Groups(wave) => {
            let is_open = |it: &&Member| {
                let standing = it.standing;
                it.wave == wave
                    && matches!(standing, Standing::Waits | Standing::Offered | Standing::Began)
            };
            let open = members.iter().filter(is_open).count() as u64;
            format!("It waits for {} of wave {}.", shown::counted(open, "group"), wave + 1)
        }
        WaitsFor::Soak(next) => {
            // The wave before `next` soaks; the last of it to keep the release decides.
            let wave = next.saturating_sub(1);
            let since = members.iter().filter(|it| it.wave == wave).map(|it| it.since).max();
            let soak_s = campaign.plan.waves.get(wave).map_or(0, |wave| i64::from(wave.soak_s));
            let gone_s = since.map_or(0, |since| now.duration_since(since).as_secs());
            let left = shown::seconds(soak_s - gone_s);
            format!("Wave {} has to keep the release for {left} more.", wave + 1)
        }
        WaitsFor::Nothing => "Everybody is through.".to_owned(),
    }
}

/// How many groups had kept the release, and when.
fn adoption(campaign: &Campaign, groups: &[Participant], now: Timestamp) -> Steps {
    let (from, to) = (campaign.made_at, campaign.ended_at.unwrap_or(now));
    let total = groups.iter().filter(|it| it.standing != Standing::Skipped).count();
    let kept = groups.iter().filter(|it| it.standing == Standing::Kept);
    Steps::of(kept.map(|it| it.since).collect(), total, from, to)
}

async fn pause(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let why = format!("paused by {}", caller.name);
    steer(&server, &id, CampaignState::Paused, &why, &caller.name).await?;
    Ok(back_to(&id))
}

#[derive(Debug, Deserialize)]
struct Resume {
    /// So many failures are allowed from now on; empty: as before.
    #[serde(default)]
    failures_max: String,
}

async fn resume(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
    Form(resume): Form<Resume>,
) -> Result<Response, Trouble> {
    let failures_max = match resume.failures_max.trim() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            let found = crate::fleet::excerpt(text);
            Problem::bad_request(format_args!("failures is `{found}`"), "expected a number")
        })?),
    };
    go_on(&server, &id, failures_max, &caller.name).await?;
    Ok(back_to(&id))
}

async fn abort(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let why = format!("ended by {}", caller.name);
    steer(&server, &id, CampaignState::Aborted, &why, &caller.name).await?;
    Ok(back_to(&id))
}

async fn approve(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path((id, wave)): Path<(String, usize)>,
) -> Result<Response, Trouble> {
    approve_wave(&server, &id, wave, &caller.name).await?;
    Ok(back_to(&id))
}

async fn revert(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path((id, wave)): Path<(String, usize)>,
) -> Result<Response, Trouble> {
    revert_wave(&server, &id, wave, &caller.name).await?;
    Ok(back_to(&id))
}

async fn retry(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Path((id, group)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    retry_group(&server, &id, &group, &caller.name).await?;
    Ok(back_to(&id))
}

fn back_to(id: &str) -> Response {
    see_other(&format!("/campaigns/{}", shown::escaped(id)))
}

/// The order of a wave's bar: what is done first, what waits last.
const SHOWN: [Standing; 6] = [
    Standing::Kept,
    Standing::Failed,
    Standing::Began,
    Standing::Offered,
    Standing::Waits,
    Standing::Skipped,
];
/// Groups that are shown, at most.
const GROUPS_MAX: usize = 500;
