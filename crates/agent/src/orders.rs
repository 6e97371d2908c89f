//! What the lead says, and whether it is done: every order is compare-and-set.
//!
//! An order that does not fit the record (generation, rollout, attempt, image) or what is observed
//! is refused and changes nothing; the refusal is reported until an order succeeds.
//! An order that comes twice is answered twice and carried out once.

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::order::{Detail, Order, Source, Stage, Ticket};
use lockstep_proto::frame::report::{MemberState, Refusal};
use lockstep_proto::id::{ImageHash, RolloutId, Sha256};
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;

use crate::agent::{Agent, Armed, Leaving, Reply, Rest, first4};
use crate::effects::{FallBackCause, Trace};
use crate::member::{MemberRecord, NO_IMAGE};
use crate::package::PACKAGE_SIZE_BYTES_MAX;
use crate::receiver::FILE_BYTES_MAX;

impl Agent {
    /// Carries out an order, or refuses it.
    pub fn handle_order<F: NorFlash>(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        order: &Order,
        flash: &mut F,
    ) -> Reply {
        self.advance(now);
        self.note_frame_of(now, ticket.rollout);
        match order {
            // Says what is so, whatever the ticket: a lead that lost its record asks first.
            // What runs is sent by whoever holds the radio; nothing of it is this one's business.
            Order::Inspect(Detail::Report) | Order::Serve(_) => return Reply::Report,
            Order::Inspect(Detail::Facts) => return Reply::FactsAndReport,
            _ => {}
        }
        if matches!(order, Order::Fire { .. }) && ticket.rollout != self.member.ticket.rollout {
            // Said to all at once, also to those who are only watched: not an order to them.
            return Reply::Nothing;
        }
        let outcome =
            self.check_ticket(ticket, order).and_then(|()| self.carry_out(ticket, order, flash));
        match outcome {
            Ok(reply) => {
                self.refused = None;
                reply
            }
            Err(refusal) => {
                self.refuse(ticket.rollout, order, refusal);
                Reply::Report
            }
        }
    }

    fn carry_out<F: NorFlash>(
        &mut self,
        ticket: &Ticket,
        order: &Order,
        flash: &mut F,
    ) -> Result<Reply, Refusal> {
        match order {
            Order::Stage(stage) => return self.on_stage(ticket, stage, flash),
            Order::Inspect(_) | Order::Serve(_) => {}
            Order::Rest => self.on_rest()?,
            Order::Arm { image, running } => {
                self.on_arm(ticket.attempt, *image, *running, flash)?;
            }
            Order::Fire { in_ms } => self.on_fire(ticket.attempt, *in_ms)?,
            Order::Activate { image, running } => {
                self.on_activate(ticket.attempt, *image, *running, flash)?;
            }
            Order::Confirm { image } => self.on_confirm(*image, flash)?,
            Order::Revert => self.on_revert(ticket, flash)?,
            Order::Settled => self.on_settled(flash)?,
            Order::Offer(offer) => self.on_offer(offer, flash)?,
        }
        Ok(Reply::Report)
    }

    /// The order belongs to the rollout of the record, or opens a newer one.
    fn check_ticket(&self, ticket: &Ticket, order: &Order) -> Result<(), Refusal> {
        let known = self.member.ticket;
        let (offered_generation, known_generation) = (ticket.generation, known.generation);
        let stale = offered_generation < known_generation && !planted::has(Bug::StaleGeneration);
        if stale || ticket.rollout == RolloutId(0) {
            let (offered, known) = (offered_generation.counter, known_generation.counter);
            return Err(Refusal::StaleGeneration { offered, known });
        }
        if offered_generation == known_generation && ticket.rollout != known.rollout {
            let (offered, known) = (ticket.rollout.low(), known.rollout.low());
            return Err(Refusal::OtherRollout { offered, known });
        }
        let opens = matches!(order, Order::Stage(_) | Order::Revert);
        if offered_generation > known_generation && !opens {
            return Err(Refusal::NotStaged);
        }
        Ok(())
    }

    fn on_stage<F: NorFlash>(
        &mut self,
        ticket: &Ticket,
        stage: &Stage,
        flash: &mut F,
    ) -> Result<Reply, Refusal> {
        if ticket.generation > self.member.ticket.generation {
            return self.on_new_stage(ticket, stage, flash);
        }
        let member = &self.member;
        if member.state == MemberState::Reverted || member.state == MemberState::Idle {
            let (offered, known) = (ticket.generation.counter, member.ticket.generation.counter);
            return Err(Refusal::StaleGeneration { offered, known });
        }
        if stage.image != member.target
            || stage.source != member.source
            || stage.package != member.package
        {
            return Err(Refusal::BadManifest);
        }
        let is_lost = !self.on_trial() && self.running != stage.image && !self.is_staged();
        if member.state != MemberState::Staging && is_lost && self.leaving.is_none() {
            // Its slot was spoilt after it had been staged: once more, attempts stay spent.
            let staging = MemberRecord { state: MemberState::Staging, ..member.clone() };
            self.store_member(staging, flash)?;
        }
        if self.member.state == MemberState::Staging {
            self.continue_staging(flash)?;
        }
        Ok(Reply::Report)
    }

    /// A newer rollout begins here, and ends whatever is left of the one before.
    fn on_new_stage<F: NorFlash>(
        &mut self,
        ticket: &Ticket,
        stage: &Stage,
        flash: &mut F,
    ) -> Result<Reply, Refusal> {
        if self.on_trial() && !planted::has(Bug::StageKeepsTrial) {
            if !self.can_go_back() {
                return Err(Refusal::OnTrial);
            }
            self.begin_fall_back(FallBackCause::Superseded, flash);
            return Ok(Reply::Nothing);
        }
        self.check_stage(stage)?;
        let state = match stage.source {
            Source::Blocks => MemberState::Staging,
            Source::OtherSlot => {
                self.check_way_back(stage.image, flash)?;
                MemberState::Staged
            }
        };
        self.cancel_activation(flash)?;
        let opened = MemberRecord {
            ticket: Ticket { attempt: 0, ..*ticket },
            state,
            target: stage.image,
            previous: self.running,
            size_bytes: stage.size_bytes,
            package: stage.package,
            package_size_bytes: stage.package_size_bytes,
            file_sha256: Sha256([0; 32]),
            epoch: 0,
            source: stage.source,
            terms: stage.terms,
            trial_boots: 0,
            leaves_target: false,
            ..self.member.clone()
        };
        self.store_member(opened, flash)?;
        self.last_frame = self.now;
        self.release();
        self.stop_old_transfer();
        (self.staging_refusal, self.staging_restarts) = (None, 0);
        if state == MemberState::Staged {
            self.effects.trace(Trace::Staged);
        } else {
            self.continue_staging(flash)?;
        }
        Ok(Reply::Report)
    }

    /// A transfer of an earlier rollout ends. What a lead has begun to spool just now belongs to
    /// the rollout that begins.
    fn stop_old_transfer(&mut self) {
        let held = self.spool_used_at.is_some_and(|at| self.now.ms_since(at) < SPOOL_HOLD_MS);
        if !(held && self.receiver.job().is_some_and(|job| job.object.is_spool())) {
            self.stop_transfer();
        }
        self.offered = None;
    }

    /// What the order itself tells about the image.
    fn check_stage(&self, stage: &Stage) -> Result<(), Refusal> {
        if stage.image == self.running || stage.image == NO_IMAGE {
            let (running, expected) = (first4(&self.running), first4(&stage.image));
            return Err(Refusal::OtherRunning { running, expected });
        }
        if stage.source == Source::OtherSlot {
            return Ok(());
        }
        let (size_bytes, slot_bytes) = (stage.size_bytes, self.other_slot().size_bytes);
        if size_bytes > slot_bytes.min(FILE_BYTES_MAX) {
            let slot_bytes = slot_bytes.min(FILE_BYTES_MAX);
            return Err(Refusal::TooLarge { size_bytes, slot_bytes });
        }
        let package_bytes = usize::from(stage.package_size_bytes);
        if size_bytes == 0 || package_bytes == 0 || package_bytes > PACKAGE_SIZE_BYTES_MAX {
            return Err(Refusal::BadManifest);
        }
        Ok(())
    }

    fn on_rest(&mut self) -> Result<(), Refusal> {
        if self.on_trial() {
            return Err(Refusal::OnTrial);
        }
        if !matches!(
            self.member.state,
            MemberState::Staged
                | MemberState::Activating
                | MemberState::Confirming
                | MemberState::Kept
        ) || !self.is_staged()
        {
            return Err(Refusal::NotStaged);
        }
        if self.leaving.is_none() && self.rest != Rest::Yes {
            let not_now = self.rest == Rest::Asked { not_now: true };
            self.rest = Rest::Asked { not_now };
            self.effects.ask_rest();
        }
        Ok(())
    }

    fn on_arm<F: NorFlash>(
        &mut self,
        attempt: u8,
        image: ImageHash,
        running: ImageHash,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let is_repeated = |armed: Armed| (armed.attempt, armed.image) == (attempt, image);
        if self.is_accepted(attempt) || self.armed.is_some_and(is_repeated) {
            return Ok(());
        }
        self.check_activation(attempt, image, running)?;
        self.check_slot(flash)?;
        self.armed = Some(Armed { attempt, image, running, fire_at: None });
        Ok(())
    }

    fn on_fire(&mut self, attempt: u8, in_ms: u16) -> Result<(), Refusal> {
        if self.is_accepted(attempt) {
            return Ok(());
        }
        let fire_at = self.now + u64::from(in_ms.min(FIRE_MS_MAX));
        match &mut self.armed {
            Some(armed) if armed.attempt == attempt => {
                // The latest countdown is the one that was delayed least since.
                armed.fire_at = Some(fire_at);
                Ok(())
            }
            _ if attempt <= self.member.ticket.attempt => {
                let spent = u32::from(self.member.ticket.attempt);
                Err(Refusal::AttemptSpent { offered: u32::from(attempt), spent })
            }
            _ if self.rest != Rest::Yes => Err(Refusal::NotAtRest),
            _ => Err(Refusal::NotStaged),
        }
    }

    fn on_activate<F: NorFlash>(
        &mut self,
        attempt: u8,
        image: ImageHash,
        running: ImageHash,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        if self.is_accepted(attempt) {
            return Ok(());
        }
        self.check_activation(attempt, image, running)?;
        self.check_slot(flash)?;
        self.activate(attempt, flash)
    }

    fn on_confirm<F: NorFlash>(&mut self, image: ImageHash, flash: &mut F) -> Result<(), Refusal> {
        if self.running != image {
            let (running, expected) = (first4(&self.running), first4(&image));
            return Err(Refusal::OtherRunning { running, expected });
        }
        // Confirmed already, or a watcher that runs the image for other reasons: the report tells.
        if self.on_trial() { self.confirm(flash) } else { Ok(()) }
    }

    /// Durable, since the lead stops saying it when it was answered.
    fn on_settled<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        if self.member.state != MemberState::Kept {
            return Err(Refusal::NotStaged);
        }
        let settled = self.member.ticket.generation;
        if self.member.settled != settled {
            self.store_member(MemberRecord { settled, ..self.member.clone() }, flash)?;
        }
        Ok(())
    }

    fn on_revert<F: NorFlash>(&mut self, ticket: &Ticket, flash: &mut F) -> Result<(), Refusal> {
        let is_newer = ticket.generation > self.member.ticket.generation;
        let state = self.member.state;
        if !is_newer && matches!(state, MemberState::Kept | MemberState::Confirming) {
            return Err(Refusal::AlreadyKept);
        }
        if self.on_trial() && !self.can_go_back() {
            let (found, expected) = (self.other.as_ref().map_or(0, first4), self.member.previous);
            return Err(Refusal::NoWayBack { found, expected: first4(&expected) });
        }
        self.store_member(self.reverted(ticket, is_newer), flash)?;
        self.stop_transfer();
        self.staging_refusal = None;
        if state != MemberState::Reverted || is_newer {
            self.effects.trace(Trace::Reverted);
        }
        if self.on_trial() {
            self.begin_fall_back(FallBackCause::Reverted, flash);
            return Ok(());
        }
        self.cancel_activation(flash)?;
        self.release();
        Ok(())
    }

    /// The record after a revert: late orders of that rollout are refused by it, and a target that
    /// runs, or is about to, is left at the next boot whatever happens until then.
    fn reverted(&self, ticket: &Ticket, is_newer: bool) -> MemberRecord {
        let runs = self.on_trial() || matches!(self.leaving, Some(Leaving::Back { .. }));
        let target = match (runs, self.boot.other_is_next()) {
            (true, _) => self.running,
            (false, true) => self.other.unwrap_or(self.member.target),
            (false, false) => self.member.target,
        };
        let attempt = if is_newer { 0 } else { self.member.ticket.attempt };
        MemberRecord {
            ticket: Ticket { attempt, ..*ticket },
            state: MemberState::Reverted,
            target,
            leaves_target: runs
                || self.boot.other_is_next()
                || (!is_newer && self.member.leaves_target),
            ..self.member.clone()
        }
    }
}

/// A spool that was used within this time belongs to the rollout that begins, in milliseconds.
pub const SPOOL_HOLD_MS: u64 = 10_000;
/// The longest countdown, in milliseconds.
pub const FIRE_MS_MAX: u16 = 60_000;
