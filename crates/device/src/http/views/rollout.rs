//! The last or present rollout, and its events, as JSON.

use alloc::string::String;
use alloc::vec::Vec;

use lockstep_proto::frame::report::Refusal;
use lockstep_proto::frame::report::Report;
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::wire::Role;
use lockstep_rollout::{Part, RolloutRecord, SeatRecord, SeatView};
use serde::Serialize;

use super::{CauseView, release};
use crate::http::answer::{Shown, json_text};
use crate::journal::RolloutEvent;
use crate::lead::Conducting;
use crate::node::Node;
use crate::schedule::Waits;
use crate::setup::Application;

#[derive(Serialize)]
struct Envelope {
    rollout: Option<RolloutView>,
}

#[derive(Serialize)]
struct RolloutView {
    id: Shown<RolloutId>,
    generation: Shown<Generation>,
    kind: &'static str,
    phase: &'static str,
    verdict: Option<&'static str>,
    cause: Option<CauseView>,
    release: Shown<ReleaseVersion>,
    release_before: Option<Shown<ReleaseVersion>>,
    can_abort: bool,
    /// It waits once all have staged.
    held: bool,
    /// It goes on then; null if it waits for a word, or does not wait.
    starts_in_s: Option<u64>,
    /// It waited for a moment that a restart of the lead has lost.
    schedule_lost: bool,
    members: Vec<MemberView>,
    upload: Option<UploadView>,
}

#[derive(Serialize)]
struct MemberView {
    id: Shown<DeviceId>,
    role: Shown<Role>,
    part: &'static str,
    state: &'static str,
    running: Option<Shown<ImageHash>>,
    target: Shown<ImageHash>,
    /// What takes it back from a failed trial, as it said in preflight; null if it has not said it
    /// in this boot of the lead.
    rollback: Option<&'static str>,
    staged_bytes: u32,
    size_bytes: u32,
    rate_bytes_s: u32,
    remaining_s: Option<u32>,
    at_rest: bool,
    on_trial: bool,
    healthy: bool,
    settled: bool,
    heard_ms_ago: Option<u64>,
    refused: Option<Shown<Refusal>>,
}

#[derive(Serialize)]
struct UploadView {
    next_offset: u32,
    size_bytes: u32,
}

#[derive(Serialize)]
pub(crate) struct EventView<'a> {
    seq: u32,
    uptime_ms: u64,
    kind: &'static str,
    phase: Option<&'static str>,
    member: Option<Shown<DeviceId>>,
    role: Option<Shown<Role>>,
    text: &'a str,
}

/// `{"rollout":…}`. Without `now` nothing in it changes by itself, so that two can be compared.
pub(crate) fn rollout<A: Application>(node: &Node<A>, now: Option<Instant>) -> String {
    let rollout = node.conducting().map(|conducting| view(node, &conducting, now));
    json_text(&Envelope { rollout })
}

/// One event of a stream.
pub(in crate::http) fn event(event: &RolloutEvent) -> String {
    json_text(&EventView::of(event))
}

impl<'a> EventView<'a> {
    pub(crate) fn of(event: &'a RolloutEvent) -> Self {
        Self {
            seq: event.seq,
            uptime_ms: event.at.ms,
            kind: event.kind,
            phase: event.phase,
            member: event.member.map(|(id, _)| Shown(id)),
            role: event.member.map(|(_, role)| Shown(role)),
            text: &event.text,
        }
    }
}

fn view<A: Application>(
    node: &Node<A>,
    conducting: &Conducting<'_>,
    now: Option<Instant>,
) -> RolloutView {
    let record = conducting.record;
    let verdict = record.phase.verdict();
    let seats = record.seats.iter().zip(conducting.views);
    let waits = node.waits(now.unwrap_or_default());
    RolloutView {
        id: Shown(record.id),
        generation: Shown(record.generation),
        kind: record.kind.as_str(),
        phase: record.phase.as_str(),
        verdict: verdict.map(|verdict| verdict.as_str()),
        cause: CauseView::of(verdict),
        release: Shown(ReleaseVersion::from_number(record.number)),
        release_before: release(record.number_before),
        can_abort: conducting.can_abort,
        held: waits != Waits::No,
        // Without the time it counts from the start: the same until another moment is named.
        starts_in_s: match waits {
            Waits::ForMs(ms) => Some(ms.div_ceil(1000)),
            _ => None,
        },
        schedule_lost: waits == Waits::Lost,
        members: seats.map(|(seat, heard)| member(node, record, seat, heard, now)).collect(),
        upload: conducting
            .upload
            .map(|(next_offset, size_bytes)| UploadView { next_offset, size_bytes }),
    }
}

fn member<A: Application>(
    node: &Node<A>,
    record: &RolloutRecord,
    seat: &SeatRecord,
    heard: &SeatView,
    now: Option<Instant>,
) -> MemberView {
    // What a member says of another rollout is no part of this one.
    let mine = heard.report.filter(|report| report.ticket.rollout == record.id);
    let observed = heard.report.map(|report| report.observed).unwrap_or_default();
    let staged_bytes = mine.map_or(0, |report| staged_bytes(seat, &report));
    let rate_bytes_s = node.staging_rate(seat.id);
    let missing = seat.size_bytes.saturating_sub(staged_bytes);
    MemberView {
        id: Shown(seat.id),
        role: Shown(seat.role),
        part: match seat.part {
            Part::Update => "update",
            Part::Watch => "watch",
        },
        state: mine.map_or("idle", |report| report.state.as_str()),
        running: heard
            .report
            .map(|report| report.running)
            .or(heard.facts.map(|facts| facts.running))
            .map(Shown),
        target: Shown(seat.target),
        rollback: heard.facts.map(|facts| facts.rollback.as_str()),
        staged_bytes,
        size_bytes: seat.size_bytes,
        rate_bytes_s,
        remaining_s: missing.checked_div(rate_bytes_s).filter(|_| missing > 0),
        at_rest: observed.at_rest,
        on_trial: observed.on_trial,
        healthy: observed.healthy,
        settled: seat.settled,
        heard_ms_ago: now.and_then(|now| heard.heard_at.map(|at| now.ms_since(at))),
        refused: heard
            .report
            .and_then(|report| report.refused)
            .filter(|refused| refused.rollout == record.id.low())
            .map(|refused| Shown(refused.why)),
    }
}

/// The manifest package, which comes first, counts as nothing of the image.
pub(crate) fn staged_bytes(seat: &SeatRecord, report: &Report) -> u32 {
    let runs_it = report.running == seat.target;
    let holds_it = report.observed.staged && report.other == seat.target;
    if runs_it || holds_it { seat.size_bytes } else { report.staged_bytes.min(seat.size_bytes) }
}
