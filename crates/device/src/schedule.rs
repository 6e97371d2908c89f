//! A rollout that waits: until somebody says go, or for a moment that somebody named.
//!
//! The moment is a delay from now, since nobody here has a clock; whoever asks turns a time of day
//! into one. That there is a moment is durable, when it is, is not: after a restart the lead waits
//! until it is told again, and says so.

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::id::RolloutId;
use lockstep_proto::time::Instant;
use lockstep_rollout::{Hold, Input};

use crate::lead::{ConductError, Lead};
use crate::node::Node;
use crate::setup::Application;

/// What a rollout waits for once all have staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Nothing.
    No,
    /// Somebody who says go.
    ForWord,
    /// So many milliseconds from now.
    ForMs(u64),
    /// It waited for a moment, and a restart of the lead has lost it.
    Lost,
}

impl Lead {
    /// What the open rollout waits for.
    pub(crate) fn waits(&self, now: Instant) -> Waits {
        let open = self.rollout.as_ref().filter(|rollout| rollout.can_hold());
        match (open.map(|rollout| rollout.record().hold), self.goes_at) {
            (None | Some(Hold::No), _) => Waits::No,
            (Some(Hold::Held), _) => Waits::ForWord,
            (Some(Hold::Scheduled), Some(at)) => Waits::ForMs(at.ms_since(now)),
            (Some(Hold::Scheduled), None) => Waits::Lost,
        }
    }
}

impl<A: Application> Node<A> {
    /// The rollout of the upload that has just begun is to wait once all have staged.
    pub const fn hold_upload(&mut self) {
        if let Some(lead) = &mut self.lead {
            lead.holds_upload = true;
        }
    }

    /// What the open rollout waits for once all have staged.
    pub fn waits(&self, now: Instant) -> Waits {
        self.lead.as_ref().map_or(Waits::No, |lead| lead.waits(now))
    }

    /// Lets the open rollout go on in `in_ms` milliseconds, once all have staged; `None`: not until
    /// somebody says so.
    pub fn schedule<F: NorFlash>(
        &mut self,
        now: Instant,
        in_ms: Option<u64>,
        flash: &mut F,
    ) -> Result<RolloutId, ConductError> {
        let lead = self.lead.as_mut().ok_or(ConductError::NotTheLead)?;
        let rollout = lead.rollout.as_ref().filter(|rollout| !rollout.is_over());
        let rollout = rollout.ok_or(ConductError::NothingToSchedule)?;
        let id = rollout.record().id;
        if !rollout.can_hold() {
            return Err(ConductError::TooLateToSchedule(id));
        }
        let limit_ms = self.setup.policy.hold_limit_ms;
        if in_ms.is_some_and(|in_ms| in_ms >= limit_ms) {
            return Err(ConductError::TooFarAhead { limit_ms });
        }
        lead.goes_at = in_ms.filter(|in_ms| *in_ms > 0).map(|in_ms| now + in_ms);
        let hold = match in_ms {
            None => Hold::Held,
            Some(0) => Hold::No,
            Some(_) => Hold::Scheduled,
        };
        self.drive(now, Input::Hold(hold), flash);
        self.after(now, flash);
        Ok(id)
    }

    /// Once the moment has come.
    pub(crate) fn go_if_due<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        let Some(lead) = &mut self.lead else { return };
        if lead.goes_at.is_some_and(|at| at <= now) {
            lead.goes_at = None;
            self.drive(now, Input::Hold(Hold::No), flash);
        }
    }
}
