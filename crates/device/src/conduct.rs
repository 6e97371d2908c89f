//! Between the rollout and the world: one input at a time, the record made durable before anything
//! is done, orders sent, and this device's own answers fed back as the next inputs.

use alloc::collections::VecDeque;
use alloc::format;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::Reply;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::frame::control::Message;
use lockstep_proto::frame::order::{Order, Ticket};
use lockstep_proto::frame::report::{Facts, Report, Wants};
use lockstep_proto::id::DeviceId;
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;
use lockstep_rollout::{Input, Phase, RECORD_BYTES_MAX, RECORD_VERSION};

use crate::journal::Level;
use crate::node::Node;
use crate::setup::Application;

impl<A: Application> Node<A> {
    /// One input for the rollout, all the way through: decide, store, act. What this device
    /// answers to its own orders are the next inputs.
    pub(crate) fn drive<F: NorFlash>(&mut self, now: Instant, input: Input, flash: &mut F) {
        let mut inputs = VecDeque::from([input]);
        for _ in 0..INPUTS_MAX {
            let Some(input) = inputs.pop_front() else { break };
            let Some(rollout) = self.lead.as_mut().and_then(|lead| lead.rollout.as_mut()) else {
                break;
            };
            let step = rollout.step(now, &input);
            let verdict_waits = planted::has(Bug::VerdictBeforeRecord)
                && matches!(rollout.record().phase, Phase::Settling(_));
            let stored = !step.store || verdict_waits || self.store_rollout(flash);
            for event in step.events {
                self.tell(now, &event, flash);
            }
            if !stored {
                // Not durable, so not done: the next tick says everything again.
                break;
            }
            for outgoing in step.orders {
                self.deliver(now, outgoing.to, outgoing.ticket, outgoing.order, flash, &mut inputs);
            }
        }
    }

    /// Makes the record durable. `false` if it could not be: the rollout tries again.
    fn store_rollout<F: NorFlash>(&mut self, flash: &mut F) -> bool {
        let Some(rollout) = self.lead.as_mut().and_then(|lead| lead.rollout.as_mut()) else {
            return true;
        };
        let mut buffer = alloc::vec![0; RECORD_BYTES_MAX];
        let written = rollout.record().encode(&mut buffer).ok().is_some_and(|bytes| {
            let record = self.agent.record_mut();
            record.write(flash, Entry::ROLLOUT, RECORD_VERSION, bytes).is_ok()
        });
        if !written {
            rollout.note_store_failed();
        }
        written
    }

    pub(crate) fn deliver<F: NorFlash>(
        &mut self,
        now: Instant,
        to: DeviceId,
        ticket: Ticket,
        order: Order,
        flash: &mut F,
        inputs: &mut VecDeque<Input>,
    ) {
        let me = self.setup.id;
        if to != me {
            self.send_control(to, Message::Order(ticket, order));
        }
        let stages = matches!(order, Order::Stage(_));
        let may_stage =
            self.lead.as_ref().is_none_or(|lead| lead.may_stage_own(&self.setup.role, me));
        let staged_later = stages && !may_stage && !self.is_staging_own();
        if (to != me && to != DeviceId::BROADCAST) || staged_later {
            return;
        }
        if stages && !self.is_staging_own() {
            self.end_spool();
        }
        self.note_sender(now, &order, flash);
        self.agent.note_frame_of(now, ticket.rollout);
        let reply = self.agent.handle_order(now, &ticket, &order, flash);
        self.drain_effects(now);
        if reply == Reply::FactsAndReport {
            inputs.push_back(Input::Facts(me, self.facts(now)));
        }
        if reply != Reply::Nothing {
            inputs.push_back(Input::Report(me, self.agent.report()));
        }
    }

    pub(crate) fn note_facts<F: NorFlash>(
        &mut self,
        now: Instant,
        from: DeviceId,
        facts: Facts,
        flash: &mut F,
    ) {
        self.drive(now, Input::Facts(from, facts), flash);
    }

    pub(crate) fn note_report<F: NorFlash>(
        &mut self,
        now: Instant,
        from: DeviceId,
        report: Report,
        flash: &mut F,
    ) {
        if let Some(lead) = &mut self.lead {
            lead.note_progress(now, from, report.staged_bytes);
            if report.observed.staged {
                lead.forget_receiver(from);
            }
            let offers = lead.offers.as_mut();
            match offers.and_then(|offers| offers.note_report(from, &report)) {
                Some(Ok(())) => self.note_patched(Ok(()), flash),
                Some(Err(why)) => self.note_declined(now, from, why, flash),
                None => {}
            }
        }
        self.drive(now, Input::Report(from, report), flash);
    }

    pub(crate) fn note_wants<F: NorFlash>(
        &mut self,
        now: Instant,
        from: DeviceId,
        wants: Wants,
        flash: &mut F,
    ) {
        if self.note_wants_of_running(now, from, wants) {
            return;
        }
        let Some(lead) = &mut self.lead else { return };
        let senders = lead.package.iter_mut().chain(lead.artifact.iter_mut().map(|(_, it)| it));
        let mut advanced = false;
        for sender in senders {
            if sender.session() != wants.session {
                // One object at a time: whoever wants this one has the other.
                sender.remove(from);
            }
            advanced |= sender.note_wants(now, from, wants);
        }
        let is_artifact =
            lead.artifact.as_ref().is_some_and(|(_, sender)| sender.session() == wants.session);
        if is_artifact {
            lead.note_progress(now, from, wants.staged_bytes);
            if let Some(offers) = &mut lead.offers {
                offers.note_taken(from);
            }
        }
        if advanced {
            self.drive(now, Input::Progress, flash);
        }
    }

    /// One tick of the conducting half.
    pub(crate) fn conduct<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        if self.lead.is_none() {
            return;
        }
        self.conductor = Some(self.setup.id);
        self.go_if_due(now, flash);
        self.drive(now, Input::Tick, flash);
        self.note_disagreement(flash);
        self.serve_package(flash);
        self.serve_bare(flash);
        self.serve_spooled_after_restart(flash);
        self.offer_patch(now);
        self.end_upload();
        self.step_adoption(now);
        self.catch_up(now, flash);
    }

    /// Whoever has the group's key is a member; the list is durable, so that a missing one is
    /// missed.
    pub(crate) fn note_member<F: NorFlash>(
        &mut self,
        now: Instant,
        id: DeviceId,
        role: Option<Role>,
        flash: &mut F,
    ) {
        self.note_adopted(now, id);
        let (Some(lead), Some(role)) = (&mut self.lead, role) else { return };
        if let Some(rollout) = &mut lead.rollout {
            rollout.note_heard(now, id);
        }
        if !lead.add_member(id, role) {
            return;
        }
        self.store_members(flash);
        self.journal.log(now, Level::Info, format!("`{role}` {id} belongs to the group"));
    }
}

/// Inputs handled in one go: a lead's own answers lead to few more orders to itself.
const INPUTS_MAX: usize = 32;
