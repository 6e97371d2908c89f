//! What takes this device back from a failed trial: what its shell assumes, and what trials have
//! shown. What was seen beats what is assumed, and outlives the boot, since nothing but a trial
//! shows it.

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::otadata::OtaState;

use crate::agent::{Agent, RECORD_VERSION, Trial};
use crate::flash::FlashFault;
use crate::record::{Kind, RecordError, RecordLog};

/// What the last trial has shown of the bootloader. Numbers are in flash: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It marked the trial: any reset goes back.
    Watches,
    /// It left the entry as it was written: our own count must do.
    LooksAway,
}

impl Seen {
    /// What a boot shows, where `entry` is that of the running image.
    pub(crate) fn of_boot(entry: OtaState, trial: Option<&Trial>) -> Option<Self> {
        match (entry, trial) {
            // Nothing but a bootloader writes this.
            (OtaState::PendingVerify, _) => Some(Self::Watches),
            (OtaState::New, Some(Trial::ByRecord)) => Some(Self::LooksAway),
            // What the framework has confirmed already says nothing of the bootloader.
            _ => None,
        }
    }

    pub(crate) fn load<F: ReadNorFlash>(
        record: &RecordLog,
        flash: &mut F,
    ) -> Result<Option<Self>, FlashFault> {
        let mut payload = [0];
        let is_there = record.read(flash, Kind::BOOTLOADER, &mut payload)?.is_some();
        Ok(match payload {
            [1] if is_there => Some(Self::Watches),
            [2] if is_there => Some(Self::LooksAway),
            _ => None,
        })
    }

    const fn code(self) -> u8 {
        match self {
            Self::Watches => 1,
            Self::LooksAway => 2,
        }
    }

    /// What takes the device back, where its shell assumes something.
    pub(crate) fn over(self, assumed: Rollback) -> Rollback {
        match self {
            Self::Watches => Rollback::Bootloader,
            // The agent counts, if the shell has said that it can.
            Self::LooksAway => assumed.min(Rollback::Agent),
        }
    }
}

impl Agent {
    /// What takes this device back from a failed trial.
    pub const fn rollback(&self) -> Rollback {
        self.rollback
    }

    /// Remembers what this boot shows of the bootloader. Where that cannot be stored, the next
    /// trial shows it again.
    pub(crate) fn note_bootloader<F: NorFlash>(&mut self, seen: Seen, flash: &mut F) {
        self.rollback = seen.over(self.rollback);
        let stored = self.record.write(flash, Kind::BOOTLOADER, RECORD_VERSION, &[seen.code()]);
        if let Err(RecordError::Flash(fault)) = stored {
            self.trace_fault(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_beats_what_is_assumed() {
        let assumed = [Rollback::None, Rollback::Agent, Rollback::Bootloader];
        assert_eq!(assumed.map(|it| Seen::Watches.over(it)), [Rollback::Bootloader; 3]);
        let agent = Rollback::Agent;
        assert_eq!(assumed.map(|it| Seen::LooksAway.over(it)), [Rollback::None, agent, agent]);
    }

    #[test]
    fn an_entry_that_was_confirmed_says_nothing_of_the_bootloader() {
        let trial = Trial::ByRecord;
        assert_eq!(Seen::of_boot(OtaState::Valid, Some(&trial)), None);
        assert_eq!(Seen::of_boot(OtaState::New, None), None);
        assert_eq!(Seen::of_boot(OtaState::New, Some(&trial)), Some(Seen::LooksAway));
        assert_eq!(Seen::of_boot(OtaState::PendingVerify, None), Some(Seen::Watches));
    }
}
