//! The rollout as a machine: one input in, a new phase and what to do about it out.
//!
//! The caller's part, in this order: call [`Rollout::step`]; if [`Step::store`] is set, write
//! [`Rollout::record`]; if that failed, drop the orders and call [`Rollout::note_store_failed`];
//! else send the orders; tell the events. After a restart [`Rollout::resume`] continues from the
//! stored record, and says everything again.

use alloc::vec::Vec;

use lockstep_proto::frame::order::{Order, Ticket};
use lockstep_proto::frame::report::{Facts, Report};
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;

use crate::judge;
use crate::orders::FIRST_ATTEMPT;
use crate::policy::Policy;
use crate::preflight::{Goal, PreflightFault};
use crate::record::{Hold, Kind, Part, Phase, RolloutRecord, SeatRecord, Verdict};
use crate::release::Release;
use crate::seat::{Milestone, SeatView};

/// What happens to a rollout.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A member says what it is.
    Facts(DeviceId, Facts),
    /// A member says what it observes.
    Report(DeviceId, Report),
    /// Bytes of the release arrived somewhere: staging is alive.
    Progress,
    /// Somebody wants it to end.
    Abort,
    /// The uploaded bytes are not what the manifest says.
    BadUpload,
    /// Whether it should wait once all have staged. Too late when it has gone on.
    Hold(Hold),
}

/// What the caller does next, in the order of the fields.
#[derive(Debug, Default)]
pub struct Step {
    /// The record has changed and must be durable before anything else is done.
    pub store: bool,
    /// What to tell the members.
    pub orders: Vec<Outgoing>,
    /// What happened, for logs and pages.
    pub events: Vec<Event>,
}

/// One order on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The member; the lead's own device is addressed like any other.
    pub to: DeviceId,
    /// Which try of which rollout.
    pub ticket: Ticket,
    /// What it is to do.
    pub order: Order,
}

/// What happened. A few, stored by whoever shows them; progress in bytes is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the variants name")]
pub enum Event {
    /// Preflight found faults, or, with none of them, somebody ended it; nobody was touched, and
    /// the rollout is over.
    Refused(Vec<PreflightFault>),
    /// A phase began.
    Entered(Phase),
    Staged(DeviceId),
    AtRest(DeviceId),
    /// A member runs its target.
    OnTarget(DeviceId),
    Healthy(DeviceId),
    FellBack(DeviceId),
    /// A member that fell back after the verdict is activated again.
    Reactivated {
        member: DeviceId,
        times: u8,
    },
    /// Re-activation is given up: all go back. The repair is this rollout from here on.
    RepairOpened {
        repair: RolloutId,
    },
    /// No repair is possible, since this member holds nothing to go back to.
    NoRepair(DeviceId),
    Settled(DeviceId),
    /// It waits once all have staged, or does so no more.
    Held(Hold),
    /// Another lead with a higher term conducts this group now.
    SteppedDown {
        term: u16,
    },
}

/// The simultaneous activation. Volatile: after a restart of the lead members are told one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fire {
    Arming,
    At { at: Instant, said_at: Option<Instant> },
    Done,
}

/// One attempt to bring one group to one release.
#[derive(Debug, Clone)]
pub struct Rollout {
    pub(crate) record: RolloutRecord,
    pub(crate) views: Vec<SeatView>,
    pub(crate) lead: DeviceId,
    pub(crate) policy: Policy,
    pub(crate) entered_at: Instant,
    pub(crate) fire: Fire,
    pub(crate) conducts: bool,
    pub(crate) goal: Option<Goal>,
    pub(crate) last: Option<RolloutRecord>,
    pub(crate) progress_at: Instant,
    /// Since when every member's latest report says that it runs its target.
    pub(crate) all_on_target_since: Option<Instant>,
    pub(crate) is_refused: bool,
    pub(crate) is_dirty: bool,
    pub(crate) events: Vec<Event>,
}

impl Rollout {
    /// Begins a rollout to a release. `members` are all devices of the group, the lead included;
    /// `last` is the record of the group's last rollout, if there is one.
    pub fn forward(
        now: Instant,
        id: RolloutId,
        release: Release,
        members: &[(DeviceId, Role)],
        lead: DeviceId,
        last: Option<RolloutRecord>,
        policy: Policy,
    ) -> Self {
        let record = RolloutRecord {
            number: release.number,
            epoch: release.epoch,
            package: release.package,
            package_size_bytes: release.package_size_bytes,
            trial_limit_ms: match release.trial_limit_ms {
                0 => policy.trial_limit_ms,
                limit_ms => limit_ms,
            },
            reboot_delay_ms: release.reboot_delay_ms,
            order: order_within(&release.order, members),
            ..blank_record(id, Kind::Forward, members, last.as_ref(), policy)
        };
        Self::new(now, record, lead, policy, Some(Goal::Release(release)), last)
    }

    /// Begins a rollout that brings members which came later to the release of the last rollout:
    /// whoever runs it already sends it, and is only watched otherwise.
    pub fn catch_up(
        now: Instant,
        id: RolloutId,
        release: Release,
        members: &[(DeviceId, Role)],
        lead: DeviceId,
        last: RolloutRecord,
        policy: Policy,
    ) -> Self {
        let mut rollout = Self::forward(now, id, release, members, lead, Some(last), policy);
        rollout.record.catches_up = true;
        rollout
    }

    /// Begins a rollout back to what the members ran before the rollout `last`.
    pub fn back(
        now: Instant,
        id: RolloutId,
        members: &[(DeviceId, Role)],
        lead: DeviceId,
        last: RolloutRecord,
        policy: Policy,
    ) -> Self {
        let goal = Goal::Back(last.seats.iter().map(|seat| (seat.id, seat.before)).collect());
        let record = RolloutRecord {
            number: last.number_before,
            ..blank_record(id, Kind::Back, members, Some(&last), policy)
        };
        Self::new(now, record, lead, policy, Some(goal), Some(last))
    }

    /// Continues after a restart of the lead. The first step's `store` must be honoured: it counts
    /// this restart.
    pub fn resume(now: Instant, record: RolloutRecord, lead: DeviceId, policy: Policy) -> Self {
        let mut rollout = Self::new(now, record, lead, policy, None, None);
        rollout.fire = Fire::Done;
        if rollout.record.phase.verdict().is_none() {
            rollout.record.restarts = rollout.record.restarts.saturating_add(1);
            rollout.is_dirty = true;
        }
        rollout
    }

    fn new(
        now: Instant,
        record: RolloutRecord,
        lead: DeviceId,
        policy: Policy,
        goal: Option<Goal>,
        last: Option<RolloutRecord>,
    ) -> Self {
        Self {
            views: record.seats.iter().map(|_| SeatView::default()).collect(),
            record,
            lead,
            policy,
            entered_at: now,
            fire: Fire::Done,
            conducts: true,
            goal,
            last,
            progress_at: now,
            all_on_target_since: None,
            is_refused: false,
            is_dirty: false,
            events: Vec::new(),
        }
    }

    /// What must survive power loss.
    pub const fn record(&self) -> &RolloutRecord {
        &self.record
    }

    /// What was heard of each seat in this boot, in the order of the record's seats.
    pub fn views(&self) -> &[SeatView] {
        &self.views
    }

    /// Preflight found faults: nothing of it is durable, and it can be dropped.
    pub const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Nothing is open here, so that another rollout may begin: refused, settled, or taken over by
    /// another lead. Debts of a settled rollout are served as long as this value is stepped.
    pub const fn is_over(&self) -> bool {
        let settled = matches!(self.record.phase, Phase::Settled(_)) && !self.is_dirty;
        self.is_refused || !self.conducts || settled
    }

    /// Whether an abort still changes anything; a repair has one direction.
    pub fn can_abort(&self) -> bool {
        let open = self.record.phase.verdict().is_none() && !self.is_refused;
        open && !self.has_one_direction()
    }

    /// Whether it can still be made to wait, or to go on: nobody has been asked to rest yet.
    pub fn can_hold(&self) -> bool {
        let begins = matches!(self.record.phase, Phase::Preflight | Phase::Staging);
        begins && self.can_abort()
    }

    /// Something authentic of this member was heard: a debt may be served now.
    pub fn note_heard(&mut self, now: Instant, from: DeviceId) {
        if let Some((_, view)) = self.seat_mut(from) {
            view.heard_at = Some(now);
        }
    }

    /// The record could not be written: the next step asks for it again, and whatever was to be
    /// said then is said after that.
    pub fn note_store_failed(&mut self) {
        self.is_dirty = true;
        for view in &mut self.views {
            view.asked_at = None;
        }
        if let Fire::At { said_at, .. } = &mut self.fire {
            *said_at = None;
        }
    }

    /// When the next step is due at the latest.
    pub fn next_wake(&self, now: Instant) -> Instant {
        match self.fire {
            Fire::At { at, .. } => (now + self.policy.fire_every_ms).min(at.max(now)),
            Fire::Arming | Fire::Done => now + self.policy.poll_ms.min(self.policy.resend_ms),
        }
    }

    /// One input, all the way through: note it, decide, say what is missing.
    pub fn step(&mut self, now: Instant, input: &Input) -> Step {
        self.note(now, input);
        if let Some(phase) = self.next_phase(now, input) {
            self.enter(now, phase);
        }
        let orders = if self.is_refused { Vec::new() } else { self.due_orders(now) };
        let store = self.is_dirty && self.record.phase != Phase::Preflight;
        self.is_dirty = false;
        Step { store, orders, events: core::mem::take(&mut self.events) }
    }

    pub(crate) fn seat_mut(&mut self, id: DeviceId) -> Option<(&mut SeatRecord, &mut SeatView)> {
        let index = self.record.seats.iter().position(|seat| seat.id == id)?;
        Some((self.record.seats.get_mut(index)?, self.views.get_mut(index)?))
    }

    pub(crate) fn enter(&mut self, now: Instant, phase: Phase) {
        self.record.phase = phase;
        self.record.restarts = 0;
        self.entered_at = now;
        self.progress_at = now;
        for view in &mut self.views {
            view.asked_at = None;
            view.milestone = Milestone::None;
        }
        match phase {
            Phase::Trial => {
                let together = self.record.order.is_empty()
                    && self.record.kind != Kind::Repair
                    && !planted::has(Bug::TrialBeforeAllStaged);
                self.fire = if together { Fire::Arming } else { Fire::Done };
                for seat in &mut self.record.seats {
                    seat.attempt = seat.attempt.max(FIRST_ATTEMPT);
                }
            }
            // A watched member was never told anything, so it has nothing to undo.
            Phase::Settling(Verdict::Revert(_)) => {
                for seat in &mut self.record.seats {
                    seat.settled = seat.part == Part::Watch;
                }
            }
            Phase::Preflight
            | Phase::Staging
            | Phase::Rest
            | Phase::Settling(Verdict::Keep)
            | Phase::Settled(_) => (),
        }
        self.is_dirty = true;
        self.events.push(Event::Entered(phase));
    }

    /// Takes down what a member said. Decides nothing.
    fn note(&mut self, now: Instant, input: &Input) {
        match input {
            Input::Facts(from, facts) => {
                if let Some((_, view)) = self.seat_mut(*from) {
                    view.heard_at = Some(now);
                    view.facts = Some(*facts);
                }
                self.note_term(facts.generation.term);
            }
            Input::Report(from, report) => {
                self.note_term(report.ticket.generation.term);
                self.note_report(now, *from, report);
            }
            Input::Progress => self.progress_at = now,
            Input::Hold(hold) if self.can_hold() && self.record.hold != *hold => {
                self.record.hold = *hold;
                self.is_dirty = true;
                self.events.push(Event::Held(*hold));
            }
            Input::Tick | Input::Abort | Input::BadUpload | Input::Hold(_) => (),
        }
    }

    /// A lead that hears a higher term is not the lead any more.
    fn note_term(&mut self, term: u16) {
        let is_known = self.record.phase != Phase::Preflight;
        if is_known && term > self.record.generation.term && self.conducts {
            self.conducts = false;
            self.events.push(Event::SteppedDown { term });
        }
    }

    fn note_report(&mut self, now: Instant, from: DeviceId, report: &Report) {
        let Some(index) = self.record.seats.iter().position(|seat| seat.id == from) else { return };
        let (Some(seat), Some(view)) = (self.record.seats.get(index), self.views.get_mut(index))
        else {
            return;
        };
        view.heard_at = Some(now);
        // No answer is on its way for as long as this: whoever says nothing else has lost the last
        // entry of its record, and would wait for ever.
        let patience_ms = self.policy.unreachable_ms;
        let may_be_late = view.reported_at.is_some_and(|at| now.ms_since(at) < patience_ms);
        if may_be_late && judge::is_outdated(view.report.as_ref(), report) {
            return;
        }
        let on_target = judge::is_on_target(seat, report);
        let changed = view.report.is_none_or(|known| {
            known.observed != report.observed
                || known.running != report.running
                || known.state != report.state
                || known.ticket != report.ticket
        });
        let advanced = view.report.is_some_and(|known| report.staged_bytes > known.staged_bytes);
        view.report = Some(*report);
        view.reported_at = Some(now);
        if changed {
            // What it needs to hear now may be something else: do not wait for the next turn.
            view.asked_at = None;
        }
        view.healthy_since = match (on_target && report.observed.healthy, view.healthy_since) {
            (true, since) => since.or(Some(now)),
            (false, _) => None,
        };
        if on_target {
            view.is_ailing = !report.observed.healthy;
        }
        if changed || advanced {
            self.progress_at = now;
        }
        let all = self.record.seats.iter().zip(&self.views).all(|(seat, view)| {
            view.report.is_some_and(|report| judge::is_on_target(seat, &report))
        });
        self.all_on_target_since = if all { self.all_on_target_since.or(Some(now)) } else { None };
        self.note_part(index);
        self.tell_milestone(index);
    }

    /// A repair begins over a mixed group, where a last order of the rollout before may still be
    /// on its way: whoever has not taken up the repair takes part if it does not run its target.
    fn note_part(&mut self, index: usize) {
        let (Some(seat), Some(view)) = (self.record.seats.get(index), self.views.get(index)) else {
            return;
        };
        let Some(report) = view.report.filter(|_| self.record.kind == Kind::Repair) else { return };
        let is_there = judge::is_on_target(seat, &report)
            && !report.observed.activated
            && !report.observed.on_trial
            && !judge::is_ours(&self.record, &report);
        let part = if is_there { Part::Watch } else { Part::Update };
        if let Some(seat) = self.record.seats.get_mut(index).filter(|seat| seat.part != part) {
            seat.part = part;
            seat.settled = false;
            self.is_dirty = true;
        }
    }

    /// Tells a member's milestone of this phase once.
    fn tell_milestone(&mut self, index: usize) {
        let (Some(seat), Some(view)) = (self.record.seats.get(index), self.views.get_mut(index))
        else {
            return;
        };
        let (Some(report), Part::Update) = (view.report, seat.part) else { return };
        let record = &self.record;
        let milestone = match record.phase {
            Phase::Staging if judge::is_staged(record, seat, &report) => Milestone::Staged,
            Phase::Rest if report.observed.at_rest => Milestone::AtRest,
            Phase::Trial if judge::fell_back(record, seat, &report) => Milestone::FellBack,
            Phase::Trial if view.healthy_since.is_some() => Milestone::Healthy,
            Phase::Trial if judge::is_on_target(seat, &report) => Milestone::OnTarget,
            _ => return,
        };
        if view.milestone == milestone {
            return;
        }
        view.milestone = milestone;
        let id = seat.id;
        self.events.push(match milestone {
            Milestone::Staged => Event::Staged(id),
            Milestone::AtRest => Event::AtRest(id),
            Milestone::OnTarget => Event::OnTarget(id),
            Milestone::Healthy => Event::Healthy(id),
            Milestone::FellBack => Event::FellBack(id),
            Milestone::None => return,
        });
    }
}

/// The roles of an order that this group has, each once: the others would only make it wait.
fn order_within(order: &[Role], members: &[(DeviceId, Role)]) -> Vec<Role> {
    let mut known: Vec<Role> = Vec::new();
    for role in order {
        if members.iter().any(|(_, owned)| owned == role) && !known.contains(role) {
            known.push(*role);
        }
    }
    known
}

fn blank_record(
    id: RolloutId,
    kind: Kind,
    members: &[(DeviceId, Role)],
    last: Option<&RolloutRecord>,
    policy: Policy,
) -> RolloutRecord {
    let mut seats: Vec<_> = members
        .iter()
        .map(|&(id, role)| SeatRecord {
            id,
            role,
            part: Part::Watch,
            target: ImageHash([0; 32]),
            before: ImageHash([0; 32]),
            size_bytes: 0,
            attempt: 0,
            reactivations: 0,
            settled: false,
        })
        .collect();
    seats.sort_by_key(|seat| seat.id);
    seats.dedup_by_key(|seat| seat.id);
    let number_before = last.map_or(0, |last| match last.phase.verdict() {
        Some(Verdict::Keep) => last.number,
        Some(Verdict::Revert(_)) | None => last.number_before,
    });
    RolloutRecord {
        id,
        generation: Generation::default(),
        kind,
        phase: Phase::Preflight,
        restarts: 0,
        number: 0,
        number_before,
        epoch: 0,
        package: Sha256([0; 32]),
        package_size_bytes: 0,
        trial_limit_ms: policy.trial_limit_ms,
        reboot_delay_ms: 0,
        order: Vec::new(),
        seats,
        raises_epoch: false,
        is_final: false,
        catches_up: false,
        hold: Hold::No,
        appended: Vec::new(),
    }
}
