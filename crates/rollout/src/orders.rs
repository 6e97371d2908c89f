//! What a phase wants said: the same words on entry, on retry and after a restart.

use alloc::vec::Vec;

use lockstep_proto::frame::order::{Detail, Order, Serve, Source, Stage, Ticket};
use lockstep_proto::frame::report::{MemberState, Report};
use lockstep_proto::id::DeviceId;
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;

use crate::judge;
use crate::machine::{Fire, Outgoing, Rollout};
use crate::record::{Hold, Kind, Part, Phase, SeatRecord, Verdict};
use crate::seat::SeatView;

impl Rollout {
    /// Every order that is due now. Marks the members as told.
    pub(crate) fn due_orders(&mut self, now: Instant) -> Vec<Outgoing> {
        let mut due = Vec::new();
        if !self.conducts {
            return due;
        }
        for index in 0..self.record.seats.len() {
            let (Some(seat), Some(view)) = (self.record.seats.get(index), self.views.get(index))
            else {
                continue;
            };
            let Some((order, interval_ms)) = self.wanted(now, seat, view) else { continue };
            if !view.is_due(now, interval_ms) {
                continue;
            }
            due.push(Outgoing { to: seat.id, ticket: self.ticket(seat), order });
            if let Some(view) = self.views.get_mut(index) {
                view.asked_at = Some(now);
                let says_settled = order == Order::Settled;
                view.settled_said = view.settled_said.saturating_add(u8::from(says_settled));
                if matches!(order, Order::Activate { .. }) {
                    view.activate_said_at = view.activate_said_at.or(Some(now));
                }
            }
        }
        due.extend(self.fire_order(now));
        due
    }

    fn ticket(&self, seat: &SeatRecord) -> Ticket {
        Ticket {
            rollout: self.record.id,
            generation: self.record.generation,
            attempt: seat.attempt,
        }
    }

    /// What this member needs to hear, and how often. `None`: nothing.
    fn wanted(&self, now: Instant, seat: &SeatRecord, view: &SeatView) -> Option<(Order, u64)> {
        let policy = &self.policy;
        let poll = (Order::Inspect(Detail::Report), policy.poll_ms);
        match self.record.phase {
            Phase::Preflight if view.facts.is_none() || view.report.is_none() => {
                Some((Order::Inspect(Detail::Facts), policy.resend_ms))
            }
            Phase::Preflight => None,
            Phase::Staging => match (seat.part, view.report) {
                (Part::Update, Some(report)) if judge::is_staged(&self.record, seat, &report) => {
                    Some(self.poll_while_held())
                }
                (Part::Update, _) => Some((self.stage(now, seat), policy.resend_ms)),
                (Part::Watch, _) => match self.serve(now, seat) {
                    Some(serve) => Some((Order::Serve(serve), policy.resend_ms)),
                    None => Some(poll),
                },
            },
            Phase::Rest => match (seat.part, view.report) {
                (Part::Update, Some(report)) if self.must_stage_again(seat, &report) => {
                    Some((self.stage(now, seat), policy.resend_ms))
                }
                (Part::Update, Some(report)) if report.observed.at_rest => Some(poll),
                (Part::Update, _) => Some((Order::Rest, policy.resend_ms)),
                (Part::Watch, _) => Some(poll),
            },
            Phase::Trial => Some(self.wanted_on_trial(now, seat, view)),
            Phase::Settled(_) if planted::has(Bug::DebtForgotten) => None,
            Phase::Settled(_) if !self.is_in_reach(now, view) => None,
            Phase::Settling(Verdict::Keep) | Phase::Settled(Verdict::Keep) => {
                self.wanted_to_keep(now, seat, view)
            }
            Phase::Settling(Verdict::Revert(_)) | Phase::Settled(Verdict::Revert(_)) => {
                self.wanted_to_revert(now, seat)
            }
        }
    }

    /// Days may pass so, and members need no lease to be staged.
    fn poll_while_held(&self) -> (Order, u64) {
        let slower = if self.record.hold == Hold::No { 1 } else { HELD_POLLS };
        (Order::Inspect(Detail::Report), self.policy.poll_ms * slower)
    }

    /// A repair retries for ever, so a member that could not take it up with the others does so
    /// whenever it can.
    fn must_stage_again(&self, seat: &SeatRecord, report: &Report) -> bool {
        let left_out = !judge::is_ours(&self.record, report)
            || matches!(
                report.state,
                MemberState::Idle | MemberState::Staging | MemberState::Reverted
            );
        self.record.kind == Kind::Repair && seat.part == Part::Update && left_out
    }

    fn stage(&self, now: Instant, seat: &SeatRecord) -> Order {
        let blocks = self.record.kind == Kind::Forward;
        Order::Stage(Stage {
            image: seat.target,
            size_bytes: seat.size_bytes,
            package: self.record.package,
            package_size_bytes: self.record.package_size_bytes,
            source: if blocks { Source::Blocks } else { Source::OtherSlot },
            terms: self.policy.terms(self.record.trial_limit_ms),
            sender: self.sender_for(now, seat).filter(|&sender| sender != self.lead),
        })
    }

    /// Who sends the image to this member, where members do: one of its role that runs it already
    /// and is in reach, the lead before all others. `None`: the lead has it from an upload, or
    /// nobody is there.
    fn sender_for(&self, now: Instant, seat: &SeatRecord) -> Option<DeviceId> {
        if !self.record.catches_up {
            return None;
        }
        let has_it = |(other, view): &(&SeatRecord, &SeatView)| {
            let runs_it = view.report.is_some_and(|report| report.running == seat.target);
            let is_there = other.id == self.lead || self.is_in_reach(now, view);
            other.role == seat.role && other.part == Part::Watch && runs_it && is_there
        };
        let senders = || self.record.seats.iter().zip(&self.views).filter(has_it);
        let lead = senders().find(|(other, _)| other.id == self.lead);
        lead.or_else(|| senders().next()).map(|(other, _)| other.id)
    }

    /// What this member is to send to others, if it is to send anything.
    fn serve(&self, now: Instant, seat: &SeatRecord) -> Option<Serve> {
        if !self.record.catches_up {
            return None;
        }
        let mut served = self.record.seats.iter().zip(&self.views).filter(|(other, view)| {
            let staged = view.report.is_some_and(|it| judge::is_staged(&self.record, other, &it));
            other.part == Part::Update && !staged && self.sender_for(now, other) == Some(seat.id)
        });
        let (first, _) = served.next()?;
        let receivers = u8::try_from(served.count() + 1).unwrap_or(u8::MAX);
        Some(Serve { image: first.target, size_bytes: first.size_bytes, receivers })
    }

    fn wanted_on_trial(&self, now: Instant, seat: &SeatRecord, view: &SeatView) -> (Order, u64) {
        let poll = (Order::Inspect(Detail::Report), self.policy.poll_ms);
        if seat.part == Part::Watch || !self.has_turn(now, seat) {
            return poll;
        }
        let on_target = view.report.is_some_and(|report| judge::is_on_target(seat, &report));
        match self.fire {
            _ if on_target => poll,
            Fire::Arming => match view.report {
                Some(report) if report.observed.armed => poll,
                Some(report) if !report.observed.at_rest => (Order::Rest, self.policy.resend_ms),
                _ => {
                    let (image, running) = (seat.target, seat.before);
                    (Order::Arm { image, running }, self.policy.resend_ms)
                }
            },
            // The countdown itself is sent to all at once; nobody is told anything else meanwhile.
            Fire::At { at, .. } if now < at => poll,
            Fire::At { .. } | Fire::Done => self.activate(now, seat, view),
        }
    }

    /// Rest first if the application is not at rest any more, then activate.
    fn activate(&self, now: Instant, seat: &SeatRecord, view: &SeatView) -> (Order, u64) {
        if view.backoff_until.is_some_and(|until| now < until) {
            return (Order::Inspect(Detail::Report), self.policy.poll_ms);
        }
        let resend_ms = self.policy.resend_ms;
        match view.report {
            None => (Order::Inspect(Detail::Report), resend_ms),
            Some(report) if self.must_stage_again(seat, &report) => {
                (self.stage(now, seat), resend_ms)
            }
            Some(report) if report.observed.activated => {
                (Order::Inspect(Detail::Report), self.policy.poll_ms)
            }
            Some(report) if !report.observed.at_rest => (Order::Rest, resend_ms),
            Some(_) => {
                let (image, running) = (seat.target, seat.before);
                (Order::Activate { image, running }, resend_ms)
            }
        }
    }

    /// The lead confirms itself first; then the others may.
    fn wanted_to_keep(
        &self,
        now: Instant,
        seat: &SeatRecord,
        view: &SeatView,
    ) -> Option<(Order, u64)> {
        if seat.settled {
            // A repair may be near: then it must be known who still holds a way back.
            let troubled =
                self.record.seats.iter().any(|seat| seat.reactivations > 0 && !seat.settled);
            let poll = (Order::Inspect(Detail::Report), self.policy.poll_ms);
            return if troubled { Some(poll) } else { self.wanted_when_final(seat, view) };
        }
        let on_target = view.report.is_some_and(|report| judge::is_on_target(seat, &report));
        let waits_for_lead = seat.id != self.lead && !self.lead_is_settled();
        Some(match view.report {
            _ if waits_for_lead => (Order::Inspect(Detail::Report), self.policy.poll_ms),
            None => (Order::Inspect(Detail::Report), self.policy.resend_ms),
            Some(_) if seat.part == Part::Watch => {
                (Order::Inspect(Detail::Report), self.policy.poll_ms)
            }
            Some(_) if on_target => (Order::Confirm { image: seat.target }, self.policy.resend_ms),
            Some(_) => self.activate(now, seat, view),
        })
    }

    /// Said until it is known, less and less often: firmware that does not know this order never
    /// says that it does.
    fn wanted_when_final(&self, seat: &SeatRecord, view: &SeatView) -> Option<(Order, u64)> {
        let knows =
            view.report.is_some_and(|it| judge::is_ours(&self.record, &it) && it.observed.settled);
        let is_due = self.record.is_final && seat.part == Part::Update && !knows;
        let doublings = view.settled_said.min(SETTLED_DOUBLINGS_MAX);
        is_due.then_some((Order::Settled, self.policy.poll_ms << doublings))
    }

    /// The others first: the lead's own way back is a reboot, and they should have heard by then.
    fn wanted_to_revert(&self, now: Instant, seat: &SeatRecord) -> Option<(Order, u64)> {
        let resend_ms = self.policy.resend_ms;
        let heard = seat.id != self.lead || now.ms_since(self.entered_at) >= resend_ms;
        (!seat.settled && heard).then_some((Order::Revert, resend_ms))
    }

    fn lead_is_settled(&self) -> bool {
        self.record.seats.iter().all(|seat| seat.id != self.lead || seat.settled)
    }

    /// Without an order all have their turn at once. With one, a role's turn comes when all roles
    /// before it are healthy on the new release, and the delay has passed since.
    pub(crate) fn has_turn(&self, now: Instant, seat: &SeatRecord) -> bool {
        if self.record.order.is_empty() {
            return true;
        }
        let rank = |role: &Role| self.record.order.iter().position(|listed| listed == role);
        let Some(mine) = rank(&seat.role) else {
            // A role that the order leaves out comes after those it names.
            return self.delay_has_passed(now, |_| true);
        };
        self.delay_has_passed(now, |role| rank(role).is_some_and(|other| other < mine))
    }

    /// Whether every updated member of the order whose role is `earlier` has been healthy on the
    /// new release for the delay. Whoever has nobody before it waits for nothing.
    fn delay_has_passed(&self, now: Instant, earlier: impl Fn(&Role) -> bool) -> bool {
        let delay_ms = u64::from(self.record.reboot_delay_ms);
        self.record.seats.iter().zip(&self.views).all(|(seat, view)| {
            let counts = seat.part == Part::Update
                && self.record.order.contains(&seat.role)
                && earlier(&seat.role);
            !counts || view.healthy_since.is_some_and(|since| now.ms_since(since) >= delay_ms)
        })
    }

    /// The countdown, to all at once, so that they start within a frame of each other.
    fn fire_order(&mut self, now: Instant) -> Option<Outgoing> {
        let Fire::At { at, said_at } = self.fire else { return None };
        if self.record.phase != Phase::Trial || now >= at {
            self.fire = Fire::Done;
            return None;
        }
        if said_at.is_some_and(|said| now.ms_since(said) < self.policy.fire_every_ms) {
            return None;
        }
        self.fire = Fire::At { at, said_at: Some(now) };
        let in_ms = u16::try_from(at.ms_since(now)).unwrap_or(FIRE_MS_MAX).min(FIRE_MS_MAX);
        let ticket = Ticket {
            rollout: self.record.id,
            generation: self.record.generation,
            attempt: FIRST_ATTEMPT,
        };
        Some(Outgoing { to: DeviceId::BROADCAST, ticket, order: Order::Fire { in_ms } })
    }
}

/// The attempt that arming and firing are about: whoever misses it is activated on its own.
pub(crate) const FIRST_ATTEMPT: u8 = 1;
/// `Settled` is said half as often each time, and at last every 17 minutes on a board.
const SETTLED_DOUBLINGS_MAX: u8 = 10;
/// Who waits in a rollout that is held is asked so many times less often.
const HELD_POLLS: u64 = 10;
/// The longest countdown that `Fire` can say.
const FIRE_MS_MAX: u16 = 60_000;
