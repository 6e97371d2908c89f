//! A patch that the lead has for the members of one role: to whom it is offered, and until when.
//!
//! A member fetches the whole image unless it is told of something shorter, and answers an offer by
//! asking for the patch, or by saying why not. The lead goes on to what comes next in the bundle
//! when everybody has staged or has said that it waits for something else. Who never answers is
//! passed over: it may be firmware that knows no patches.

use alloc::vec::Vec;

use lockstep_proto::frame::order::{Offer, Order, Ticket};
use lockstep_proto::frame::report::{Refusal, Refused, Report};
use lockstep_proto::id::{DeviceId, ImageHash, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;

use crate::machine::Outgoing;
use crate::record::{Part, RolloutRecord, SeatRecord};
use crate::seat::SeatView;

/// The offers of one patch.
#[derive(Debug, Clone)]
pub struct Offers {
    offer: Offer,
    rollout: RolloutId,
    members: Vec<Member>,
}

#[derive(Debug, Clone)]
struct Member {
    device: DeviceId,
    standing: Standing,
    said: u8,
    said_at: Option<Instant>,
    /// What it had refused before this patch was offered, which says nothing of it.
    refused_before: Option<Refused>,
}

/// What a member has made of the offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing has come of it yet.
    Silent,
    /// It fetches the patch, or applies it.
    Takes,
    /// It waits for something else.
    Declined,
    /// It has made its image from it.
    Done,
}

impl Offers {
    /// To those members of `role`, but for the lead `me`, that have not staged and may run what
    /// the patch is for; without a base: whatever they run. What a member runs may be unknown,
    /// after a restart of the lead: then it says itself that the patch is not for it.
    pub fn new(
        offer: Offer,
        role: &Role,
        me: DeviceId,
        record: &RolloutRecord,
        views: &[SeatView],
    ) -> Self {
        let seats = record.seats.iter().zip(views);
        let members = seats.filter(|(seat, view)| {
            let is_asked = seat.role == *role && seat.part == Part::Update && seat.id != me;
            is_asked && !has_staged(record, seat, view) && may_use(offer.base, view)
        });
        let members = members.map(|(seat, view)| Member {
            device: seat.id,
            standing: Standing::Silent,
            said: 0,
            said_at: None,
            refused_before: view.report.and_then(|report| report.refused),
        });
        Self { members: members.collect(), offer, rollout: record.id }
    }

    /// The patch.
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// What is to be said now. Who takes the patch hears now and then that it still can.
    pub fn due(
        &mut self,
        now: Instant,
        record: &RolloutRecord,
        views: &[SeatView],
    ) -> Vec<Outgoing> {
        let (mut due, order) = (Vec::new(), Order::Offer(self.offer));
        for member in &mut self.members {
            let interval_ms = match member.standing {
                Standing::Silent => OFFER_EVERY_MS,
                Standing::Takes => RENEW_EVERY_MS,
                Standing::Declined | Standing::Done => continue,
            };
            let found = record.seats.iter().zip(views).find(|(seat, _)| seat.id == member.device);
            let Some((seat, view)) = found else { continue };
            let waits = member.said_at.is_some_and(|at| now < at + interval_ms);
            if waits || has_staged(record, seat, view) {
                continue;
            }
            if member.standing == Standing::Silent && member.said >= OFFERS_MAX {
                member.standing = Standing::Declined;
                continue;
            }
            (member.said, member.said_at) = (member.said.saturating_add(1), Some(now));
            let ticket =
                Ticket { rollout: record.id, generation: record.generation, attempt: seat.attempt };
            due.push(Outgoing { to: seat.id, ticket, order });
        }
        due
    }

    /// When [`Offers::due`] has something at the latest.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let waiting = self.members.iter().filter_map(|member| match member.standing {
            Standing::Silent => Some(member.said_at.map_or(now, |at| at + OFFER_EVERY_MS)),
            Standing::Takes => Some(member.said_at.map_or(now, |at| at + RENEW_EVERY_MS)),
            Standing::Declined | Standing::Done => None,
        });
        waiting.min()
    }

    /// A member asks for the patch.
    pub fn note_taken(&mut self, device: DeviceId) {
        let silent = |it: &&mut Member| it.device == device && it.standing == Standing::Silent;
        if let Some(member) = self.members.iter_mut().find(silent) {
            member.standing = Standing::Takes;
        }
    }

    /// What a member reports: if that is what has become of the patch, that, once.
    pub fn note_report(
        &mut self,
        device: DeviceId,
        report: &Report,
    ) -> Option<Result<(), Refusal>> {
        let member = self.members.iter_mut().find(|member| member.device == device)?;
        if member.standing == Standing::Takes && report.observed.staged {
            member.standing = Standing::Done;
            return Some(Ok(()));
        }
        let is_ours = |it: &Refused| it.order == Offer::KIND && it.rollout == self.rollout.low();
        let refused = report.refused.filter(is_ours);
        let is_new = refused.is_some() && member.refused_before != refused && member.said > 0;
        if !is_new || matches!(member.standing, Standing::Declined | Standing::Done) {
            return None;
        }
        member.standing = Standing::Declined;
        refused.map(|refused| Err(refused.why))
    }

    /// Whether nobody waits for the patch any more.
    pub fn is_done(&self, record: &RolloutRecord, views: &[SeatView]) -> bool {
        self.members.iter().all(|member| {
            let mut seats = record.seats.iter().zip(views);
            let seat = seats.find(|(seat, _)| seat.id == member.device);
            member.standing == Standing::Declined
                || seat.is_none_or(|(seat, view)| has_staged(record, seat, view))
        })
    }
}

/// Whether a member has staged what this rollout brings it.
pub fn has_staged(record: &RolloutRecord, seat: &SeatRecord, view: &SeatView) -> bool {
    view.report.is_some_and(|report| {
        report.ticket.rollout == record.id && report.observed.staged && report.other == seat.target
    })
}

/// Whether a member may run what a patch is for, as far as it has said.
pub fn may_use(base: Option<ImageHash>, view: &SeatView) -> bool {
    let running = view.report.map(|report| report.running);
    let running = running.or(view.facts.map(|facts| facts.running));
    base.is_none_or(|base| running.is_none_or(|running| running == base))
}

/// Between two offers to a member that has not answered, in milliseconds.
const OFFER_EVERY_MS: u64 = 1_000;
/// Who takes a patch waits for it as long as it is offered: see the agent's `OFFER_LEASE_MS`.
const RENEW_EVERY_MS: u64 = 5_000;
/// Who has not answered so many is passed over.
pub const OFFERS_MAX: u8 = 30;

#[cfg(test)]
#[path = "offers_tests.rs"]
mod tests;
