//! Activation, trial, confirmation and the way back: everything that changes what boots.
//!
//! Decide, store, act: each function here first checks, then makes the record durable, then changes
//! otadata, and asks for a reboot last. A trial ends by itself when the lead is silent or health
//! does not come.

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::order::{Order, Ticket};
use lockstep_proto::frame::report::{MemberState, Refusal, View};
use lockstep_proto::id::ImageHash;
use lockstep_proto::otadata::OtaState;
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;

use crate::agent::{Agent, Armed, HEALTHY_SAMPLES, Health, Leaving, Rest, Trial, first4};
use crate::effects::{FallBackCause, RebootReason, Trace};
use crate::flash::{FlashFault, Operation};
use crate::member::{MemberRecord, NO_IMAGE};
use crate::slot::Pace;

/// Health in this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wellness {
    pub(crate) good_samples: u8,
    pub(crate) was_healthy: bool,
    /// Since when it has not been well enough to be confirmed, although the lead wants that.
    pub(crate) unconfirmed_since: Option<Instant>,
    pub(crate) linked: u8,
    pub(crate) view: View,
}

impl Agent {
    /// Takes a health sample, every few hundred milliseconds. Several good ones in a row make the
    /// device healthy, one bad one ends it.
    pub fn observe(&mut self, now: Instant, health: Health) {
        self.advance(now);
        let was_healthy = self.is_healthy();
        let Health { checks_ok, link_ok, linked, view } = health;
        let good = if checks_ok && link_ok { self.wellness.good_samples + 1 } else { 0 };
        self.wellness.good_samples = good.min(HEALTHY_SAMPLES);
        (self.wellness.linked, self.wellness.view) = (linked, view);
        if self.is_healthy() {
            (self.wellness.was_healthy, self.wellness.unconfirmed_since) = (true, None);
        }
        self.report_due |= was_healthy != self.is_healthy();
    }

    /// The application has come to rest.
    pub fn application_at_rest(&mut self, now: Instant) {
        self.advance(now);
        if let Rest::Asked { .. } = self.rest {
            self.rest = Rest::Yes;
            self.report_due = true;
        }
    }

    /// The application does not come to rest, or has left it.
    pub fn application_not_now(&mut self, now: Instant) {
        self.advance(now);
        if self.rest != Rest::No {
            self.rest = Rest::Asked { not_now: true };
            self.armed = None;
            self.report_due = true;
        }
    }

    /// Lets time pass: leases, limits, the moment to fire, staging at its pace.
    pub fn tick<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        self.advance(now);
        if self.leaving.is_some() {
            self.keep_leaving();
            return;
        }
        if let Some(cause) = self.trial_ends() {
            self.begin_fall_back(cause, flash);
            return;
        }
        self.fire_if_due(flash);
        self.end_rest_lease();
        self.advance_staging(flash);
    }

    /// When to call [`Agent::tick`] next, if nothing else happens before. `None`: nothing waits.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let leaving = self.leaving.map(|leaving| match leaving {
            Leaving::ToTrial { asked_at } => asked_at + REBOOT_REPEAT_MS,
            Leaving::Back { asked_at: Some(asked_at), .. } => asked_at + REBOOT_REPEAT_MS,
            Leaving::Back { .. } if self.rest == Rest::Yes => now,
            Leaving::Back { since, .. } => since + REST_FALLBACK_MS,
        });
        let fire = self.armed.filter(|_| self.leaving.is_none()).and_then(|armed| armed.fire_at);
        let flush = self.uses_flash().then(|| self.next_grant().unwrap_or(now));
        // A trial without a way back has nothing to wait for.
        let trial = self.trial_end().filter(|&at| at > now || self.can_go_back());
        let answer = self.speaks_at();
        let offer = self.offer_ends();
        [leaving, trial, fire, self.rest_lease_end(), flush, answer, offer]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now))
    }

    /// Checks everything about an activation but the slot's bytes.
    pub(crate) fn check_activation(
        &self,
        attempt: u8,
        image: ImageHash,
        running: ImageHash,
    ) -> Result<(), Refusal> {
        let member = &self.member;
        match member.state {
            _ if self.on_trial() => return Err(Refusal::OnTrial),
            // What was tried or kept and does not run fell back, and may be activated again.
            MemberState::Staged
            | MemberState::Activating
            | MemberState::Confirming
            | MemberState::Kept => {}
            MemberState::Idle | MemberState::Staging | MemberState::Reverted => {
                return Err(Refusal::NotStaged);
            }
        }
        if image != member.target || image == NO_IMAGE {
            let (found, expected) = (first4(&member.target), first4(&image));
            return Err(Refusal::SlotDiffers { found, expected });
        }
        if self.running != running || self.running == image {
            let (running, expected) = (first4(&self.running), first4(&running));
            return Err(Refusal::OtherRunning { running, expected });
        }
        // One that is under way is not overtaken by a later one either.
        let spent = attempt <= member.ticket.attempt && !planted::has(Bug::AttemptTwice);
        if spent || self.leaving.is_some() {
            let (offered, spent) = (u32::from(attempt), u32::from(member.ticket.attempt));
            return Err(Refusal::AttemptSpent { offered, spent });
        }
        if self.rest != Rest::Yes { Err(Refusal::NotAtRest) } else { Ok(()) }
    }

    /// Whether this attempt was accepted and nothing has come of it yet, or it runs.
    pub(crate) fn is_accepted(&self, attempt: u8) -> bool {
        if planted::has(Bug::AttemptTwice) {
            return false;
        }
        let under_way = matches!(self.leaving, Some(Leaving::ToTrial { .. }));
        attempt == self.member.ticket.attempt
            && self.member.state == MemberState::Activating
            && (under_way || self.running == self.member.target)
    }

    /// Hashes the other slot again: what was staged long ago may have been spoilt since.
    pub(crate) fn check_slot<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        if !planted::has(Bug::NoSlotCheck) {
            self.other = self.own_image_in_other_slot(flash)?;
        }
        if self.other == Some(self.member.target) {
            return Ok(());
        }
        // It may have been armed while the slot was whole; that counts no more.
        self.armed = None;
        let found = self.other.as_ref().map_or(0, first4);
        Err(Refusal::SlotDiffers { found, expected: first4(&self.member.target) })
    }

    /// Makes the other slot boot next and asks for the reboot.
    pub(crate) fn activate<F: NorFlash>(
        &mut self,
        attempt: u8,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let activating = MemberRecord {
            ticket: Ticket { attempt, ..self.member.ticket },
            state: MemberState::Activating,
            previous: self.running,
            trial_boots: 0,
            leaves_target: false,
            ..self.member.clone()
        };
        if planted::has(Bug::AttemptNotDurable) {
            self.member = activating;
        } else {
            self.store_member(activating, flash)?;
        }
        let written = self.boot.activate(flash);
        if !self.boot.other_is_next() {
            // What stands in flash counts, not what the flash said about it.
            let offset = self.layout.otadata.offset;
            let unseen = FlashFault { operation: Operation::Verify, offset };
            return Err(written.err().unwrap_or(unseen).into());
        }
        self.armed = None;
        self.leaving = Some(Leaving::ToTrial { asked_at: self.now });
        self.effects.trace(Trace::Activated);
        self.effects.reboot(RebootReason::Activate);
        Ok(())
    }

    /// Makes the running trial permanent: intent, VALID, read back, record.
    pub(crate) fn confirm<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        let tried = matches!(self.member.state, MemberState::Activating | MemberState::Confirming);
        if !tried || self.running != self.member.target {
            return Err(Refusal::NotStaged);
        }
        let healthy = self.is_healthy() || planted::has(Bug::ConfirmUnhealthy);
        if self.leaving.is_some() || !healthy {
            self.wellness.unconfirmed_since.get_or_insert(self.now);
            return Err(Refusal::NotHealthy);
        }
        let confirming = MemberRecord { state: MemberState::Confirming, ..self.member.clone() };
        self.store_member(confirming, flash)?;
        self.boot.confirm(flash)?;
        if self.boot.running_state() != OtaState::Valid || self.boot.other_is_next() {
            let offset = self.layout.otadata.offset;
            return Err(FlashFault { operation: Operation::Verify, offset }.into());
        }
        let kept = MemberRecord { state: MemberState::Kept, ..self.member.clone() };
        self.store_member(kept, flash)?;
        self.trial = None;
        self.effects.trace(Trace::Confirmed);
        Ok(())
    }

    /// Keeps an image that no rollout brought: the update by other means that made this device one
    /// of ours, in the first boot that the record knows, with the bootloader's trial still open.
    /// For whoever has no group, and so no lead that could confirm it; elsewhere a trial is a
    /// rollout's.
    ///
    /// It stays only after it was healthy, and some time without a reset. `true`: it stays.
    pub fn keep_first<F: NorFlash>(&mut self, now: Instant, flash: &mut F) -> bool {
        self.advance(now);
        let is_first = self.boot_number == 1 && self.member.state == MemberState::Idle;
        let is_tried = self.trial == Some(Trial::ByBootloader) && self.leaving.is_none();
        let was_long_enough = self.now.ms_since(self.booted_at) >= FIRST_TRIAL_MS;
        if !is_first || !is_tried || !was_long_enough || !self.is_healthy() {
            return false;
        }
        if let Err(fault) = self.boot.confirm(flash) {
            self.trace_fault(fault);
            return false;
        }
        self.trial = None;
        self.report_due = true;
        self.effects.trace(Trace::FirstKept);
        true
    }

    /// Ends the trial: otadata first, so that nothing can bring the image back; then the
    /// application is asked, and after its answer or the limit comes the reboot.
    pub(crate) fn begin_fall_back<F: NorFlash>(&mut self, cause: FallBackCause, flash: &mut F) {
        if self.leaving.is_some() || !self.can_go_back() {
            return;
        }
        self.effects.trace(Trace::TrialEnds(cause));
        if let Err(fault) = self.boot.fall_back(flash) {
            // The reboot helps all the same: any reset on trial goes back.
            self.trace_fault(fault);
        }
        self.armed = None;
        self.receiver.stop();
        self.leaving = Some(Leaving::Back { cause, since: self.now, asked_at: None });
        if self.rest != Rest::Yes {
            self.rest = Rest::Asked { not_now: false };
            self.effects.ask_rest();
        }
        self.report_due = true;
        self.keep_leaving();
    }

    /// A trial that the bootloader watches can always end; one of ours only with a way back.
    pub(crate) fn can_go_back(&self) -> bool {
        self.trial == Some(Trial::ByBootloader) || (self.on_trial() && self.has_way_back())
    }

    /// Takes back an activation that has not booted, reboot and all.
    pub(crate) fn cancel_activation<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<(), FlashFault> {
        self.boot.cancel_activation(flash)?;
        self.leaving = None;
        self.effects.cancel_reboot();
        Ok(())
    }

    /// The application may go on, and what needed its rest is off.
    pub(crate) fn release(&mut self) {
        self.armed = None;
        if self.rest != Rest::No {
            self.rest = Rest::No;
            self.effects.release();
        }
    }

    /// When the next operation on the flash is granted; `None`: now.
    pub(crate) fn next_grant(&self) -> Option<Instant> {
        match (self.pace, self.flash_used_at) {
            (Pace::Background { ms_between }, Some(used_at)) => {
                Some(used_at + u64::from(ms_between)).filter(|&at| at > self.now)
            }
            _ => None,
        }
    }

    /// Seconds until the trial ends by itself; 0 when not on trial.
    pub(crate) fn trial_left_s(&self) -> u16 {
        let left_ms = self.trial_end().map_or(0, |end| end.ms_since(self.now));
        u16::try_from(left_ms.div_ceil(1000)).unwrap_or(u16::MAX)
    }

    fn trial_end(&self) -> Option<Instant> {
        if !self.on_trial() || self.leaving.is_some() {
            return None;
        }
        let never_ms = u64::from(TERM_MS_MAX) * 1_000;
        let lease = match planted::has(Bug::NoLease) {
            true => self.booted_at + never_ms,
            false => self.last_frame + self.lease_ms(),
        };
        let limit_ms = match planted::has(Bug::NoTrialLimit) {
            true => never_ms,
            false => self.trial_limit_ms(),
        };
        // The lead's word that all have kept it renews the lease, and would do so for ever while
        // this device, healthy once, gets well enough no more.
        let Wellness { was_healthy, unconfirmed_since, .. } = self.wellness;
        let unwell_since = if was_healthy { unconfirmed_since } else { Some(self.booted_at) };
        Some(unwell_since.map_or(lease, |since| lease.min(since + limit_ms)))
    }

    fn trial_ends(&self) -> Option<FallBackCause> {
        let end = self.trial_end().filter(|&end| end <= self.now && self.can_go_back())?;
        let silent = self.last_frame + self.lease_ms() <= end;
        Some(if silent { FallBackCause::LeadSilent } else { FallBackCause::NotHealthy })
    }

    fn lease_ms(&self) -> u64 {
        bounded(if self.is_trial_of_record() { self.member.terms.lease_ms } else { 0 })
    }

    fn trial_limit_ms(&self) -> u64 {
        bounded(if self.is_trial_of_record() { self.member.terms.trial_limit_ms } else { 0 })
    }

    /// Else a trial of which the record knows nothing: the record was lost, or another tool
    /// installed the image.
    fn is_trial_of_record(&self) -> bool {
        self.running == self.member.target
    }

    fn rest_lease_end(&self) -> Option<Instant> {
        let waits = self.rest != Rest::No && self.leaving.is_none();
        waits.then(|| self.last_frame + bounded(self.member.terms.rest_lease_ms))
    }

    fn end_rest_lease(&mut self) {
        if self.leaving.is_none() && self.rest_lease_end().is_some_and(|end| end <= self.now) {
            self.release();
            self.effects.trace(Trace::RestLeaseEnded);
            self.report_due = true;
        }
    }

    fn fire_if_due<F: NorFlash>(&mut self, flash: &mut F) {
        let Some(Armed { attempt, image, running, fire_at: Some(fire_at) }) = self.armed else {
            return;
        };
        if fire_at > self.now {
            return;
        }
        self.armed = None;
        // The slot was hashed when it was armed; the other conditions are asked once more.
        let fired = self
            .check_activation(attempt, image, running)
            .and_then(|()| self.activate(attempt, flash));
        if let Err(refusal) = fired {
            let order = Order::Activate { image, running };
            self.refuse(self.member.ticket.rollout, &order, refusal);
        }
    }

    fn keep_leaving(&mut self) {
        match &mut self.leaving {
            Some(Leaving::ToTrial { asked_at })
                if self.now.ms_since(*asked_at) >= REBOOT_REPEAT_MS =>
            {
                *asked_at = self.now;
                self.effects.reboot(RebootReason::Activate);
            }
            Some(Leaving::Back { cause, since, asked_at }) => {
                let due = match asked_at {
                    Some(asked_at) => self.now.ms_since(*asked_at) >= REBOOT_REPEAT_MS,
                    None => self.rest == Rest::Yes || self.now.ms_since(*since) >= REST_FALLBACK_MS,
                };
                if due {
                    *asked_at = Some(self.now);
                    self.effects.reboot(RebootReason::FallBack(*cause));
                }
            }
            Some(Leaving::ToTrial { .. }) | None => {}
        }
    }
}

/// A term as the lead gave it, within reason; 0 stands for "not given".
fn bounded(term_ms: u32) -> u64 {
    u64::from(if term_ms == 0 { TERM_MS_DEFAULT } else { term_ms.min(TERM_MS_MAX) })
}

/// A fall back asks the application to rest, but does not wait longer than this.
pub const REST_FALLBACK_MS: u64 = 2_000;
/// An image that no rollout brought runs so long before it is kept, in milliseconds: what crashes
/// soon has crashed by then.
pub const FIRST_TRIAL_MS: u64 = 30_000;
/// A reboot that was asked for and did not come is asked for again after this.
pub const REBOOT_REPEAT_MS: u64 = 1_000;
/// The longest lease or limit, a day: no trial and no rest lasts longer without a frame.
pub const TERM_MS_MAX: u32 = 24 * 60 * 60 * 1000;
/// Applies where no term was given: ten minutes.
pub const TERM_MS_DEFAULT: u32 = 10 * 60 * 1000;
