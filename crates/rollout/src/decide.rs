//! The decision table of a rollout: which phase follows, and why. One function per phase; all of
//! them look only at the record and at what members reported.

use alloc::vec::Vec;

use lockstep_proto::frame::report::{Refusal, Report, View};
use lockstep_proto::id::{DeviceId, Generation};
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;

use crate::judge;
use crate::machine::{Event, Fire, Input, Rollout};
use crate::preflight::Preflight;
use crate::record::{Cause, Hold, Kind, Part, Phase, RolloutRecord, SeatRecord, Verdict};

impl Rollout {
    /// The decision table: the phase that `input` leads to, if it completes or ends the present
    /// one.
    pub(crate) fn next_phase(&mut self, now: Instant, input: &Input) -> Option<Phase> {
        let revert = |cause| Some(Phase::Settling(Verdict::Revert(cause)));
        if !self.conducts || self.is_refused {
            return None;
        }
        if self.can_abort() {
            match input {
                Input::Abort | Input::BadUpload if self.record.phase == Phase::Preflight => {
                    self.is_refused = true;
                    self.events.push(Event::Refused(Vec::new()));
                    return None;
                }
                Input::Abort => return revert(Cause::Aborted),
                Input::BadUpload => return revert(Cause::BadUpload),
                _ if self.record.restarts > self.policy.restarts_max => {
                    return revert(Cause::TooManyRestarts);
                }
                _ => (),
            }
        }
        match self.record.phase {
            Phase::Preflight => self.after_preflight(now),
            Phase::Staging => self.after_staging(now),
            Phase::Rest => self.after_rest(now),
            Phase::Trial => self.after_trial(now),
            Phase::Settling(verdict) => {
                self.settle(now, verdict);
                self.all_reachable_are_settled(now).then_some(Phase::Settled(verdict))
            }
            Phase::Settled(verdict) => {
                self.settle(now, verdict);
                self.note_final(verdict);
                None
            }
        }
    }

    fn after_preflight(&mut self, now: Instant) -> Option<Phase> {
        let answered = self.views.iter().all(|view| view.facts.is_some() && view.report.is_some());
        if !answered && now.ms_since(self.entered_at) < self.policy.preflight_ms {
            return None;
        }
        let goal = self.goal.as_ref()?;
        let (lead, policy, last) = (self.lead, &self.policy, self.last.as_ref());
        let preflight = Preflight { goal, lead, policy, last };
        match preflight.evaluate(&mut self.record.seats, &self.views) {
            Ok(()) => {
                self.record.generation = self.next_generation();
                self.record.raises_epoch = self.will_raise_epoch();
                if self.record.number_before == 0 {
                    self.record.number_before = self.number_of_lead();
                }
                Some(Phase::Staging)
            }
            Err(faults) => {
                self.is_refused = true;
                self.events.push(Event::Refused(faults));
                None
            }
        }
    }

    /// Whether a member that takes part would raise its epoch once the release is kept.
    fn will_raise_epoch(&self) -> bool {
        let epoch = self.record.epoch;
        self.record.seats.iter().zip(&self.views).any(|(seat, view)| {
            seat.part == Part::Update && view.facts.is_some_and(|facts| facts.epoch_floor < epoch)
        })
    }

    /// Before the first rollout no release is known; what the lead's firmware calls itself is the
    /// best name that people have for what the group runs.
    fn number_of_lead(&self) -> u32 {
        let mut seats = self.record.seats.iter().zip(&self.views);
        let lead = seats.find(|(seat, _)| seat.id == self.lead);
        lead.and_then(|(_, view)| view.facts).map_or(0, |facts| facts.announced.number)
    }

    /// One more than anybody has seen. Members that know more than this lead's own record mean
    /// that the record was lost, or that this board is new: the term rises.
    fn next_generation(&self) -> Generation {
        let known = self.last.as_ref().map(|last| last.generation).unwrap_or_default();
        let seen = self.views.iter().filter_map(|view| view.facts).map(|facts| facts.generation);
        let highest = seen.fold(known, Ord::max);
        let counter = self
            .views
            .iter()
            .filter_map(|view| view.facts)
            .map(|facts| facts.generation.counter)
            .fold(known.counter, Ord::max);
        let takes_over = u16::from(highest > known);
        Generation {
            term: highest.term.saturating_add(takes_over),
            counter: counter.saturating_add(1),
        }
    }

    fn after_staging(&mut self, now: Instant) -> Option<Phase> {
        let revert = |cause| Some(Phase::Settling(Verdict::Revert(cause)));
        let is_repair = self.has_one_direction();
        if let Some(cause) = self.refusal_since_entry().filter(|_| !is_repair) {
            return revert(cause);
        }
        if self.all_updates(judge::is_staged) || self.one_has_staged_and_that_is_enough() {
            if self.record.hold == Hold::No || is_repair {
                return Some(Phase::Rest);
            }
            self.progress_at = now;
            let late = now.ms_since(self.entered_at) >= self.policy.hold_limit_ms;
            return if late { revert(Cause::StagingDeadline) } else { None };
        }
        let idle = now.ms_since(self.progress_at) >= self.policy.staging_idle_ms;
        let late = now.ms_since(self.entered_at) >= self.policy.staging_limit_ms;
        if (idle || late) && !is_repair { revert(Cause::StagingDeadline) } else { None }
    }

    /// What [`Bug::TrialBeforeAllStaged`] does.
    fn one_has_staged_and_that_is_enough(&self) -> bool {
        planted::has(Bug::TrialBeforeAllStaged)
            && self.record.seats.iter().zip(&self.views).any(|(seat, view)| {
                let staged =
                    view.report.is_some_and(|it| judge::is_staged(&self.record, seat, &it));
                seat.part == Part::Update && staged
            })
    }

    /// Views can be stale, so everybody is looked at again, watched members too, in reports that
    /// are younger than this phase.
    fn after_rest(&self, now: Instant) -> Option<Phase> {
        let revert = |cause| Some(Phase::Settling(Verdict::Revert(cause)));
        let is_repair = self.has_one_direction();
        if let Some(cause) = self.refusal_since_entry().filter(|_| !is_repair) {
            return revert(cause);
        }
        let missing = self.record.seats.iter().zip(&self.views).find(|(seat, view)| {
            let fresh = view.report.filter(|_| view.reported_after(self.entered_at));
            if planted::has(Bug::TrialBeforeAllStaged)
                && fresh.is_some_and(|report| !judge::is_staged(&self.record, seat, &report))
            {
                return false;
            }
            !fresh.is_some_and(|report| judge::is_at_rest(&self.record, seat, &report))
        });
        let Some((seat, view)) = missing else { return Some(Phase::Trial) };
        let late = now.ms_since(self.entered_at) >= self.policy.rest_limit_ms;
        if !late || is_repair {
            return None;
        }
        let asked = seat.part == Part::Update && view.reported_after(self.entered_at);
        revert(if asked { Cause::NotNow(seat.id) } else { Cause::NotHealthy(seat.id) })
    }

    fn after_trial(&mut self, now: Instant) -> Option<Phase> {
        let revert = |cause| Some(Phase::Settling(Verdict::Revert(cause)));
        let is_repair = self.has_one_direction();
        if is_repair {
            self.try_fallen_again(now);
        } else if let Some(cause) = self.trial_failure() {
            return revert(cause);
        }
        if self.fire == Fire::Arming && self.is_all_armed() {
            self.fire = Fire::At { at: now + self.policy.fire_lead_ms, said_at: None };
        }
        if self.all_are_healthy_together() {
            return Some(Phase::Settling(Verdict::Keep));
        }
        let late = now.ms_since(self.entered_at) >= self.trial_deadline_ms()
            && !planted::has(Bug::TrialWithoutDeadline);
        if !late || is_repair {
            return None;
        }
        revert(Cause::NotHealthy(self.last_straw()))
    }

    /// A repair is never turned round, whatever happens in it.
    pub(crate) fn has_one_direction(&self) -> bool {
        self.record.kind == Kind::Repair && !planted::has(Bug::RepairReverses)
    }

    /// Whom a trial has waited for: of those that are not there yet, the one that has been silent
    /// longest.
    fn last_straw(&self) -> DeviceId {
        let seats = self.record.seats.iter().zip(&self.views);
        let missing = seats.filter(|(seat, view)| {
            !view.report.is_some_and(|report| match self.fire {
                Fire::Arming => seat.part == Part::Watch || report.observed.armed,
                Fire::At { .. } | Fire::Done => {
                    judge::is_on_target(seat, &report) && report.observed.healthy
                }
            })
        });
        let (seat, _) = missing.min_by_key(|(_, view)| view.reported_at).unzip();
        seat.map_or(self.lead, |seat| seat.id)
    }

    fn trial_failure(&self) -> Option<Cause> {
        let fallen = self.record.seats.iter().zip(&self.views).find(|(seat, view)| {
            view.report.is_some_and(|report| judge::fell_back(&self.record, seat, &report))
        });
        match fallen {
            Some((seat, view)) if view.is_ailing => Some(Cause::NotHealthy(seat.id)),
            Some((seat, _)) => Some(Cause::FellBack(seat.id)),
            None => self.refusal_since_entry(),
        }
    }

    /// A refusal of this rollout, told in this phase, that trying again would not mend.
    fn refusal_since_entry(&self) -> Option<Cause> {
        self.record.seats.iter().zip(&self.views).find_map(|(seat, view)| {
            let refused = view.report?.refused?;
            let ours = refused.rollout == self.record.id.low();
            let fresh = view.reported_since(self.entered_at);
            (ours && fresh && is_final(refused.why)).then_some(Cause::Refused(seat.id, refused.why))
        })
    }

    fn is_all_armed(&self) -> bool {
        self.all_updates(|_, _, report| report.observed.armed)
    }

    /// Keep needs, of every member, a report made after all run the new release, healthy, and
    /// naming the images of all its peers: an earlier one proves nothing about the link.
    fn all_are_healthy_together(&self) -> bool {
        if planted::has(Bug::KeepOnFirstHealthy) {
            return self.views.iter().any(|view| view.healthy_since.is_some());
        }
        let Some(since) = self.all_on_target_since else { return false };
        let seats = &self.record.seats;
        let expected = View::of(seats.iter().map(|seat| (seat.id, seat.target)));
        seats.iter().zip(&self.views).all(|(seat, view)| {
            let Some(report) = view.report else { return false };
            let current = seat.part == Part::Watch || judge::is_ours(&self.record, &report);
            let proves_the_link = (view.reported_after(since) && report.view == expected)
                || planted::has(Bug::KeepOnOldReports);
            proves_the_link && current && report.running == seat.target && report.observed.healthy
        })
    }

    fn trial_deadline_ms(&self) -> u64 {
        let policy = &self.policy;
        let once = policy.boot_limit_ms + u64::from(self.record.trial_limit_ms);
        // Roles that the order leaves out have a turn of their own, after the others.
        let turns = 1 + self.record.order.len() as u64;
        let in_order = turns * (once + u64::from(self.record.reboot_delay_ms));
        once.max(in_order) + policy.rest_limit_ms
    }

    fn all_updates(&self, holds: impl Fn(&RolloutRecord, &SeatRecord, &Report) -> bool) -> bool {
        self.record.seats.iter().zip(&self.views).all(|(seat, view)| {
            seat.part == Part::Watch
                || view.report.is_some_and(|report| holds(&self.record, seat, &report))
        })
    }
}

/// Refusals that saying the same again would not mend; the others pass.
pub(crate) const fn is_final(why: Refusal) -> bool {
    match why {
        Refusal::StaleGeneration { .. }
        | Refusal::WrongChip { .. }
        | Refusal::WrongRole
        | Refusal::WrongBoard
        | Refusal::TooLarge { .. }
        | Refusal::Untrusted { .. }
        | Refusal::EpochTooLow { .. }
        | Refusal::SlotDiffers { .. }
        | Refusal::BadManifest
        | Refusal::FlashFailed { .. }
        | Refusal::NoWayBack { .. }
        | Refusal::NotAnImage { .. } => true,
        // Passing states, answers to repeats, and numbers of later versions.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use lockstep_proto::id::{RolloutId, Sha256};
    use lockstep_proto::wire::Role;

    use super::*;
    use crate::policy::Policy;
    use crate::release::Release;

    fn deadline_ms(policy: Policy, order: &[&str]) -> u64 {
        let release = Release {
            number: 2,
            epoch: 0,
            package: Sha256([0; 32]),
            package_size_bytes: 0,
            artifacts: vec![],
            brings_keys: false,
            order: order.iter().map(|role| Role::new(role).unwrap()).collect(),
            reboot_delay_ms: 2_000,
            trial_limit_ms: 30_000,
        };
        let ids = [1, 2].map(|id| DeviceId([id; 6]));
        let members = [(ids[0], Role::new("a").unwrap()), (ids[1], Role::new("b").unwrap())];
        let (now, id) = (Instant::from_ms(0), RolloutId(1));
        Rollout::forward(now, id, release, &members, ids[0], None, policy).trial_deadline_ms()
    }

    /// The figures that `docs/rollout.md` gives, without the pause.
    #[test]
    fn a_trial_has_time_for_a_boot_and_its_limit_for_each_turn_and_for_rest() {
        assert_eq!(deadline_ms(Policy::desk(), &[]), 5_000 + 30_000 + 2_000 + 5_000);
        assert_eq!(deadline_ms(Policy::board(), &[]), 30_000 + 30_000 + 2_000 + 60_000);
        let turn_ms = 5_000 + 30_000 + 2_000;
        assert_eq!(deadline_ms(Policy::desk(), &["a", "b"]), 3 * turn_ms + 5_000);
    }
}
