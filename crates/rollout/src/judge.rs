//! What a member's report means for its seat. Pure questions, asked by every phase alike; all of
//! them go by what is observed, and use the record only to tell "fell back" from "not yet".

use lockstep_proto::frame::report::{MemberState, Report};
use lockstep_proto::otadata::OtaState;

use crate::record::{Part, RolloutRecord, SeatRecord};

/// Whether the report speaks of this rollout: the member has taken up an order of it.
pub(crate) fn is_ours(record: &RolloutRecord, report: &Report) -> bool {
    report.ticket.rollout == record.id && report.ticket.generation == record.generation
}

/// A late answer of an attempt before the one that is known: no news.
pub(crate) fn is_outdated(known: Option<&Report>, report: &Report) -> bool {
    known.is_some_and(|known| {
        known.ticket.rollout == report.ticket.rollout
            && known.ticket.generation == report.ticket.generation
            && known.ticket.attempt > report.ticket.attempt
    })
}

/// The other slot holds the target, verified, and the way back runs.
pub(crate) fn is_staged(record: &RolloutRecord, seat: &SeatRecord, report: &Report) -> bool {
    match seat.part {
        Part::Watch => report.running == seat.target,
        Part::Update => {
            is_ours(record, report)
                && report.observed.staged
                && report.other == seat.target
                && report.running == seat.before
                && !report.observed.on_trial
        }
    }
}

/// It may be activated now; a watched member must only be where it was.
pub(crate) fn is_at_rest(record: &RolloutRecord, seat: &SeatRecord, report: &Report) -> bool {
    is_staged(record, seat, report) && (seat.part == Part::Watch || report.observed.at_rest)
}

/// The member runs its target.
pub(crate) fn is_on_target(seat: &SeatRecord, report: &Report) -> bool {
    report.running == seat.target
}

/// The last ordered attempt is spent, and the member does not run its target: it fell back.
///
/// An answer of an older attempt is no news, and a member whose other entry is about to boot has
/// not fallen back but not yet left. A member that has given the rollout up by itself will not
/// go on with it either.
pub(crate) fn fell_back(record: &RolloutRecord, seat: &SeatRecord, report: &Report) -> bool {
    let tried = matches!(
        report.state,
        MemberState::Activating
            | MemberState::Confirming
            | MemberState::Kept
            | MemberState::Reverted
    );
    seat.part == Part::Update
        && is_ours(record, report)
        && tried
        && report.ticket.attempt >= seat.attempt
        && report.running != seat.target
        && !report.observed.activated
}

/// The member has carried out `keep`. A watched one was told nothing: its entry is as it was.
pub(crate) fn is_kept(record: &RolloutRecord, seat: &SeatRecord, report: &Report) -> bool {
    let permanent = matches!(report.ota_state, OtaState::Valid | OtaState::Undefined);
    let told = match seat.part {
        Part::Watch => !report.observed.activated,
        Part::Update => permanent && is_ours(record, report) && report.state == MemberState::Kept,
    };
    report.running == seat.target && !report.observed.on_trial && told
}

/// The member has carried out `revert`, and refuses whatever of this rollout comes late.
pub(crate) fn is_reverted(record: &RolloutRecord, seat: &SeatRecord, report: &Report) -> bool {
    report.running == seat.before
        && !report.observed.on_trial
        && !report.observed.activated
        && report.ticket.generation == record.generation
        && report.state == MemberState::Reverted
}

#[cfg(test)]
#[path = "judge_tests.rs"]
pub(crate) mod tests;
