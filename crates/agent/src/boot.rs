//! First thing at start: where does this device stand, and may it stay there?
//!
//! What runs is compared with what the record says was begun. A trial that the bootloader does not
//! watch is counted durably before anything else, so that an image that resets goes back at its
//! second boot. Otadata and the record decide; nothing that was said before the boot does.

use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::report::{MemberState, Refusal, Rollback};
use lockstep_proto::image::{ImageError, quick_guard, quick_hash};
use lockstep_proto::manifest::{TRUST_BYTES_MAX, Trust};
use lockstep_proto::otadata::OtaState;
use lockstep_proto::time::Instant;

use crate::agent::{Agent, Leaving, RECORD_VERSION, Rest, Setup, Trial};
use crate::boot_state::BootState;
use crate::effects::{Effects, FallBackCause, RebootReason, Trace};
use crate::flash::{self, FlashFault};
use crate::layout::{Layout, LayoutError};
use crate::member::{MEMBER_BYTES_MAX, MemberRecord, NO_IMAGE};
use crate::receiver::Receiver;
use crate::record::{Kind, RecordError, RecordLog};
use crate::slot::Pace;
use crate::taken_back::Seen;
use crate::trial::Wellness;

/// How the device goes on after it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booted {
    /// Start the application.
    Run,
    /// Restart the chip before the application starts: the old image boots.
    RebootNow(RebootReason),
}

/// What the boot has found out about the running image.
enum Standing {
    /// Nothing to settle.
    Settled,
    /// It is on trial.
    OnTrial(Trial),
    /// It must not stay.
    MustLeave(FallBackCause),
}

impl Agent {
    /// Finds out where the device stands. Must come first thing at start, once.
    ///
    /// Writes the boot number, on a trial without the bootloader's help the count of trial boots
    /// before it, and otadata if the running image must not stay.
    pub fn boot<F: NorFlash>(
        now: Instant,
        setup: Setup,
        flash: &mut F,
    ) -> Result<(Self, Booted), BootError> {
        let mut agent = Self::load(now, setup, flash)?;
        let standing = agent.standing_at_boot(flash)?;
        agent.count_boot(flash)?;
        agent.other = agent.own_image_in_other_slot(flash)?;
        let trial = match &standing {
            Standing::OnTrial(trial) => Some(trial),
            Standing::Settled | Standing::MustLeave(_) => None,
        };
        if let Some(seen) = Seen::of_boot(agent.boot.running_state(), trial) {
            agent.note_bootloader(seen, flash);
        }
        let booted = match standing {
            Standing::Settled => Booted::Run,
            Standing::OnTrial(trial) => {
                agent.trial = Some(trial);
                Booted::Run
            }
            Standing::MustLeave(cause) => agent.leave_at_once(cause, flash),
        };
        Ok((agent, booted))
    }

    fn load<F: NorFlash>(now: Instant, setup: Setup, flash: &mut F) -> Result<Self, BootError> {
        let layout = Layout::find(flash).map_err(BootError::Layout)?;
        let running_slot = setup.running_slot;
        let Some(slot) = layout.slots.get(usize::from(running_slot)).copied() else {
            return Err(BootError::RunningSlot { found: running_slot });
        };
        let record = RecordLog::open(flash, layout.record())?;
        let boot = BootState::read(flash, layout.otadata, layout.ota_count, running_slot)?;
        let mut read =
            |offset: u32, bytes: &mut [u8]| flash::read(flash, slot.offset + offset, bytes);
        let running = quick_hash(slot.size_bytes, &mut read)?.map_err(BootError::Running)?;
        let guard = quick_guard(slot.size_bytes, &mut read)?.map_err(BootError::Running)?;
        let mut flash_mode = [0; 2];
        read(2, &mut flash_mode)?;
        let mut effects = Effects::default();
        let member = load_member(&record, flash, &mut effects)?;
        let (epoch_floor, trust) = (load_u32(&record, flash, Kind::EPOCH)?, setup.trust);
        let seen = Seen::load(&record, flash)?;
        Ok(Self {
            identity: setup.identity,
            rollback: seen.map_or(setup.rollback, |seen| seen.over(setup.rollback)),
            running_slot,
            reset_reason: setup.reset_reason,
            trust: load_trust(&record, flash)?.unwrap_or(trust),
            layout,
            boot_number: load_u32(&record, flash, Kind::BOOT_NUMBER)?,
            record,
            boot,
            member,
            epoch_floor,
            flash_mode,
            guard,
            running,
            other: None,
            trial: None,
            leaving: None,
            rest: Rest::No,
            armed: None,
            wellness: Wellness::default(),
            refused: None,
            receiver: Receiver::new(setup.takes_large),
            offered: None,
            applying: None,
            staging_refusal: None,
            staging_restarts: 0,
            pace: Pace::Fast,
            flash_used_at: None,
            spool_used_at: None,
            wants_due: None,
            unasked_wait_ms: 0,
            unasked_at: None,
            answer_at: None,
            answer_lacking_at: None,
            unnamed: 0,
            session_heard: None,
            report_due: true,
            booted_at: now,
            last_frame: now,
            now,
            effects,
        })
    }

    fn standing_at_boot<F: NorFlash>(&mut self, flash: &mut F) -> Result<Standing, BootError> {
        let runs_target = self.running == self.member.target && self.running != NO_IMAGE;
        let entry = self.boot.running_state();
        let tried = matches!(self.member.state, MemberState::Activating | MemberState::Confirming);
        if runs_target && self.member.leaves_target {
            return Ok(Standing::MustLeave(FallBackCause::Reverted));
        }
        if runs_target && self.member.state == MemberState::Confirming && entry == OtaState::Valid {
            let kept = MemberRecord { state: MemberState::Kept, ..self.member.clone() };
            self.store_member(kept, flash).map_err(BootError::Member)?;
            self.effects.trace(Trace::ConfirmationFinished);
            return Ok(Standing::Settled);
        }
        if entry == OtaState::PendingVerify {
            self.effects.trace(Trace::OnTrial);
            return Ok(Standing::OnTrial(Trial::ByBootloader));
        }
        if runs_target && tried {
            return self.count_trial_boot(entry, flash);
        }
        if tried && !runs_target {
            self.effects.trace(Trace::FellBack);
            if self.boot.other_is_next() {
                // The bootloader was told to boot the other slot and did not: it refused the image.
                self.boot.cancel_activation(flash)?;
            }
        }
        Ok(Standing::Settled)
    }

    fn count_trial_boot<F: NorFlash>(
        &mut self,
        entry: OtaState,
        flash: &mut F,
    ) -> Result<Standing, BootError> {
        let trial_boots = self.member.trial_boots.saturating_add(1);
        let counted = MemberRecord { trial_boots, ..self.member.clone() };
        self.store_member(counted, flash).map_err(BootError::Member)?;
        if self.rollback == Rollback::Bootloader {
            if entry == OtaState::Valid {
                self.effects.trace(Trace::ConfirmedEarly);
            }
            // Whatever it was believed to do: this trial it does not watch.
            self.rollback = Rollback::Agent;
        }
        if trial_boots >= TRIAL_BOOTS_MAX {
            return Ok(Standing::MustLeave(FallBackCause::Reset));
        }
        self.effects.trace(Trace::OnTrialByRecord);
        Ok(Standing::OnTrial(Trial::ByRecord))
    }

    fn count_boot<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), BootError> {
        let boot_number = self.boot_number.saturating_add(1);
        let payload = boot_number.to_le_bytes();
        self.record
            .write(flash, Kind::BOOT_NUMBER, RECORD_VERSION, &payload)
            .map_err(BootError::Record)?;
        self.boot_number = boot_number;
        Ok(())
    }

    /// Goes back now, if there is anything to go back to; else the trial goes on.
    fn leave_at_once<F: NorFlash>(&mut self, cause: FallBackCause, flash: &mut F) -> Booted {
        self.trial = Some(match self.boot.running_state() {
            OtaState::PendingVerify => Trial::ByBootloader,
            _ => Trial::ByRecord,
        });
        self.effects.trace(Trace::TrialEnds(cause));
        if !self.has_way_back() {
            self.effects.trace(Trace::NoWayBack);
            return Booted::Run;
        }
        match self.boot.fall_back(flash) {
            Ok(()) => {
                let reason = RebootReason::FallBack(cause);
                self.leaving =
                    Some(Leaving::Back { cause, since: self.now, asked_at: Some(self.now) });
                self.effects.reboot(reason);
                Booted::RebootNow(reason)
            }
            Err(fault) => {
                // Rebooting would end here again, and again: better to run and be reachable.
                self.trace_fault(fault);
                Booted::Run
            }
        }
    }

    /// The other slot holds the image that ran before the one that runs on trial.
    pub(crate) fn has_way_back(&self) -> bool {
        let is_trial_of_record = self.running == self.member.target;
        match self.other {
            Some(other) => !is_trial_of_record || other == self.member.previous,
            None => false,
        }
    }
}

fn load_member<F: NorFlash>(
    record: &RecordLog,
    flash: &mut F,
    effects: &mut Effects,
) -> Result<MemberRecord, FlashFault> {
    let mut payload = [0; MEMBER_BYTES_MAX];
    let Some((version, length)) = record.read(flash, Kind::MEMBER, &mut payload)? else {
        return Ok(MemberRecord::idle());
    };
    let payload = payload.get(..length).unwrap_or(&payload);
    Ok(MemberRecord::decode(version, payload).unwrap_or_else(|_| {
        effects.trace(Trace::MemberRecordLost);
        MemberRecord::idle()
    }))
}

fn load_trust<F: NorFlash>(record: &RecordLog, flash: &mut F) -> Result<Option<Trust>, BootError> {
    let mut payload = [0; TRUST_BYTES_MAX];
    let Some((_, length)) = record.read(flash, Kind::TRUST, &mut payload)? else {
        return Ok(None);
    };
    let payload = payload.get(..length).unwrap_or(&payload);
    // Fails closed: whoever damages the keys must not get a device that trusts anybody.
    Trust::decode(payload).map(Some).map_err(|_| BootError::Trust)
}

fn load_u32<F: NorFlash>(record: &RecordLog, flash: &mut F, kind: Kind) -> Result<u32, FlashFault> {
    let mut payload = [0; 4];
    Ok(match record.read(flash, kind, &mut payload)? {
        Some(_) => u32::from_le_bytes(payload),
        None => 0,
    })
}

/// Why the agent cannot work on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootError {
    /// The flash is not laid out for updates.
    Layout(LayoutError),
    /// The application names a slot that is not used.
    RunningSlot {
        /// The slot it names.
        found: u8,
    },
    /// What runs cannot be found in its slot.
    Running(ImageError),
    /// The flash failed.
    Flash(FlashFault),
    /// The boot number could not be stored.
    Record(RecordError),
    /// The device's part in its rollout could not be stored.
    Member(Refusal),
    /// The stored keys cannot be read.
    Trust,
}

impl From<FlashFault> for BootError {
    fn from(fault: FlashFault) -> Self {
        Self::Flash(fault)
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(_) => write!(f, "this device's flash cannot be used for updates"),
            Self::RunningSlot { found } => write!(f, "`running slot` is {found}, expected 0 or 1"),
            Self::Running(_) => write!(f, "could not read the running image in its slot"),
            Self::Flash(_) => write!(f, "could not read or change the boot state"),
            Self::Record(_) => write!(f, "could not store the `boot number`"),
            Self::Member(_) => write!(f, "could not store the `member` record"),
            Self::Trust => write!(f, "stored `trust` is damaged"),
        }
    }
}

impl core::error::Error for BootError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Layout(error) => Some(error),
            Self::Running(error) => Some(error),
            Self::Flash(error) => Some(error),
            Self::Record(error) => Some(error),
            Self::Member(error) => Some(error),
            Self::RunningSlot { .. } | Self::Trust => None,
        }
    }
}

/// At the second boot on a trial that only our record knows of, the device has been reset on trial.
const TRIAL_BOOTS_MAX: u8 = 2;

#[cfg(test)]
mod tests {
    use core::error::Error as _;
    use std::string::ToString as _;

    use super::*;
    use crate::flash::Operation;

    #[test]
    fn a_start_that_fails_says_what_could_not_be_done_and_why() {
        let fault = FlashFault { operation: Operation::Read, offset: 0x9000 };
        let flash = BootError::Flash(fault);
        assert_eq!(flash.to_string(), "could not read or change the boot state");
        let cause = flash.source().expect("the flash").to_string();
        assert_eq!(cause, "flash did not `read` at offset 0x9000");
        let slot = BootError::RunningSlot { found: 2 };
        assert_eq!(slot.to_string(), "`running slot` is 2, expected 0 or 1");
        assert!(slot.source().is_none());
    }
}
