//! A rollout that waits: until somebody says go, or for a moment that somebody named.
//!
//! The moment is a delay from now, since not every device has a clock; whoever asks turns a time
//! of day into one. That there is a moment is durable. When it is, is so too on a device that knows
//! the time: after a restart it is kept as soon as the time is known again. Otherwise, or when the
//! device slept through it, the lead waits until it is told again, and says so.

use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::id::RolloutId;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Reader;
use lockstep_rollout::{Hold, Input};

use crate::lead::{ConductError, Lead};
use crate::node::{Node, read_entry};
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
    /// It waited for a moment, which a restart of the lead has lost: the device does not know the
    /// time, or the moment went by while it was off.
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
        // Else the moment that was named before would come back with the next restart.
        let at_unix_s = match (lead.goes_at, in_ms, self.application.unix_time_s()) {
            (Some(_), Some(in_ms), Some(unix_s)) => unix_s.saturating_add(in_ms.div_ceil(1000)),
            _ => UNKNOWN,
        };
        self.write_entry(ENTRY_SCHEDULE, &encode(id, at_unix_s), flash);
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
        self.find_schedule(now, flash);
        let Some(lead) = &mut self.lead else { return };
        if lead.goes_at.is_some_and(|at| at <= now) {
            lead.goes_at = None;
            self.drive(now, Input::Hold(Hold::No), flash);
        }
    }
    /// After a restart: once the time is known, the moment is as well.
    fn find_schedule<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        let Some(lead) = &mut self.lead else { return };
        if lead.waits(now) != Waits::Lost || lead.has_looked_for_schedule {
            return;
        }
        let Some(unix_s) = self.application.unix_time_s() else { return };
        lead.has_looked_for_schedule = true;
        let open = lead.rollout.as_ref().map(|rollout| rollout.record().id);
        let stored = read_entry::<F, SCHEDULE_BYTES>(&self.agent, flash, ENTRY_SCHEDULE)
            .and_then(|bytes| decode(&bytes))
            .filter(|(rollout, at_unix_s)| Some(*rollout) == open && *at_unix_s != UNKNOWN);
        let Some((_, at_unix_s)) = stored else { return };
        let limit_s = self.setup.policy.hold_limit_ms / 1000;
        // Nobody wants at noon what was meant for the night; and a clock may be far out.
        let is_near = at_unix_s.saturating_add(LATE_S_MAX) >= unix_s
            && at_unix_s.saturating_sub(unix_s) < limit_s;
        if let Some(lead) = self.lead.as_mut().filter(|_| is_near) {
            lead.goes_at = Some(now + at_unix_s.saturating_sub(unix_s) * 1000);
        }
    }
}

fn encode(rollout: RolloutId, at_unix_s: u64) -> Vec<u8> {
    [rollout.0.to_le_bytes(), at_unix_s.to_le_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Option<(RolloutId, u64)> {
    let mut reader = Reader::new(bytes);
    let rollout = RolloutId(u64::from_le_bytes(reader.array().ok()?));
    Some((rollout, u64::from_le_bytes(reader.array().ok()?)))
}

/// When the open rollout goes on: its id u64, seconds since 1970 u64, 0 where the device does not
/// know the time; little endian.
const ENTRY_SCHEDULE: Entry = Entry::SCHEDULE;
const SCHEDULE_BYTES: usize = 8 + 8;
const UNKNOWN: u64 = 0;
/// A moment that went by while the device was off is kept this much later, in seconds.
const LATE_S_MAX: u64 = 600;
