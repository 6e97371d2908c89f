//! After the verdict: who has carried it out, who is activated again, when a repair begins, and
//! when a rollout is over.

use lockstep_proto::frame::report::{Refusal, Report};
use lockstep_proto::id::{DeviceId, ImageHash, RolloutId, Sha256};
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;

use crate::decide::is_final;
use crate::judge;
use crate::machine::{Event, Rollout};
use crate::record::{Kind, Part, Phase, Verdict};
use crate::seat::SeatView;

impl Rollout {
    /// Takes down who has carried out the verdict, and who must be activated again.
    pub(crate) fn settle(&mut self, now: Instant, verdict: Verdict) {
        for index in 0..self.record.seats.len() {
            let (Some(seat), Some(view)) = (self.record.seats.get(index), self.views.get(index))
            else {
                continue;
            };
            let Some(report) = view.report.filter(|_| view.reported_since(self.entered_at)) else {
                continue;
            };
            let done = match verdict {
                Verdict::Keep => judge::is_kept(&self.record, seat, &report),
                Verdict::Revert(_) => judge::is_reverted(&self.record, seat, &report),
            };
            let id = seat.id;
            if done && !seat.settled {
                if let Some(seat) = self.record.seats.get_mut(index) {
                    seat.settled = true;
                }
                self.is_dirty = true;
                self.events.push(Event::Settled(id));
            }
        }
        if verdict == Verdict::Keep {
            self.try_fallen_again(now);
        }
    }

    /// Members that fell back although the verdict is `keep` (or in a repair, which can only go
    /// forward) are activated again from their slot; the count is durable before the order.
    pub(crate) fn try_fallen_again(&mut self, now: Instant) {
        for index in 0..self.record.seats.len() {
            let (Some(seat), Some(view)) = (self.record.seats.get(index), self.views.get(index))
            else {
                continue;
            };
            let failed = view.report.is_some_and(|report| {
                judge::fell_back(&self.record, seat, &report) || self.cannot_activate(view, &report)
            });
            if !failed {
                continue;
            }
            let spent = seat.reactivations >= self.policy.reactivations_max;
            let first_time = seat.reactivations == self.policy.reactivations_max;
            if spent && self.record.kind != Kind::Repair {
                match self.member_without_way_back() {
                    None => return self.open_repair(now),
                    // A lead that fell back itself has just booted: it asks the others first.
                    Some(_) if self.hears_who_is_there(now) => continue,
                    Some(member) if first_time => self.events.push(Event::NoRepair(member)),
                    Some(_) => (),
                }
            }
            // An attempt that cannot be told from the one before it would not be obeyed.
            if self.record.seats.get(index).is_some_and(|seat| seat.attempt < u8::MAX) {
                self.reactivate(now, index);
            }
        }
    }

    /// Once all have kept a release that raises the epoch there is no way back from it: that is
    /// durable before anybody is told, and holds whatever happens later.
    pub(crate) fn note_final(&mut self, verdict: Verdict) {
        let all_kept =
            verdict == Verdict::Keep && self.record.seats.iter().all(|seat| seat.settled);
        if all_kept && self.record.raises_epoch && !self.record.is_final {
            self.record.is_final = true;
            self.is_dirty = true;
        }
    }

    /// Whether it has refused the present attempt for a reason that lasts: its slot is spoilt.
    fn cannot_activate(&self, view: &SeatView, report: &Report) -> bool {
        let Some(refused) = report.refused else { return false };
        refused.rollout == self.record.id.low()
            && refused.order == ACTIVATE
            && (is_final(refused.why) || refused.why == Refusal::NotStaged)
            && view.activate_said_at.is_some_and(|at| view.reported_after(at))
    }

    fn reactivate(&mut self, now: Instant, index: usize) {
        let (Some(seat), Some(view)) =
            (self.record.seats.get_mut(index), self.views.get_mut(index))
        else {
            return;
        };
        seat.reactivations = seat.reactivations.saturating_add(1);
        seat.attempt = seat.attempt.saturating_add(1);
        seat.settled = false;
        let doublings = u32::from(seat.reactivations - 1).min(BACKOFF_DOUBLINGS_MAX);
        view.backoff_until = Some(now + (self.policy.backoff_ms << doublings));
        view.activate_said_at = None;
        self.is_dirty = true;
        self.events.push(Event::Reactivated { member: seat.id, times: seat.reactivations });
    }

    /// A repair exists only if every member that would go back is known to have something to go
    /// back to, and that it may go back to it.
    fn member_without_way_back(&self) -> Option<DeviceId> {
        let mut seats = self.record.seats.iter().zip(&self.views);
        let lost = seats.find(|(seat, view)| {
            let holds = view
                .report
                .is_some_and(|report| report.running == seat.before || report.other == seat.before);
            let is_barred = self.record.is_final && seat.part == Part::Update;
            seat.before == ImageHash([0; 32]) || !holds || is_barred
        });
        lost.map(|(seat, _)| seat.id)
    }

    /// Whether members that did not report since this lead booted may still do so.
    fn hears_who_is_there(&self, now: Instant) -> bool {
        now.ms_since(self.entered_at) < self.policy.unreachable_ms
            && self.views.iter().any(|view| view.report.is_none())
    }

    /// The rollout that brings everybody back: one generation later, in one direction only.
    fn open_repair(&mut self, now: Instant) {
        let repair = RolloutId(self.record.id.0.rotate_left(17) ^ REPAIR_MARK);
        self.record.id = repair;
        self.record.generation.counter = self.record.generation.counter.saturating_add(1);
        self.record.kind = Kind::Repair;
        core::mem::swap(&mut self.record.number, &mut self.record.number_before);
        self.record.package = Sha256([0; 32]);
        self.record.package_size_bytes = 0;
        // Whatever the devices' floor is, a repair must not raise it.
        self.record.epoch = 0;
        self.record.raises_epoch = false;
        self.record.order.clear();
        for (seat, view) in self.record.seats.iter_mut().zip(&mut self.views) {
            core::mem::swap(&mut seat.target, &mut seat.before);
            let runs_target = view.report.is_some_and(|report| report.running == seat.target);
            let never_left = seat.target == seat.before;
            seat.part = if runs_target || never_left { Part::Watch } else { Part::Update };
            seat.size_bytes = 0;
            seat.attempt = 0;
            seat.reactivations = 0;
            seat.settled = false;
            view.backoff_until = None;
            view.activate_said_at = None;
            view.is_ailing = false;
            view.healthy_since = None;
        }
        self.all_on_target_since = None;
        self.events.push(Event::RepairOpened { repair });
        self.enter(now, Phase::Staging);
    }

    /// Who cannot be reached is a debt: it stays unsettled in the record and is served at its next
    /// sign of life. The lead itself can always be reached.
    pub(crate) fn all_reachable_are_settled(&self, now: Instant) -> bool {
        let patience_over = now.ms_since(self.entered_at) >= self.policy.unreachable_ms;
        self.record.seats.iter().zip(&self.views).all(|(seat, view)| {
            let silent = !self.is_in_reach(now, view);
            seat.settled
                || (seat.id != self.lead && patience_over && silent)
                || planted::has(Bug::SettledAtOnce)
        })
    }

    /// Whether it was heard of lately.
    pub(crate) fn is_in_reach(&self, now: Instant, view: &SeatView) -> bool {
        view.heard_at.is_some_and(|at| now.ms_since(at) < self.policy.unreachable_ms)
    }
}

/// [`Order::kind`](lockstep_proto::frame::order::Order::kind) of `Activate`.
const ACTIVATE: u8 = 0x15;
/// Makes a repair's id from its rollout's: another number, yet the same after every restart.
const REPAIR_MARK: u64 = 0x5250_4149_5245_5031;
/// The wait before another activation doubles so often, then stays.
const BACKOFF_DOUBLINGS_MAX: u32 = 4;
