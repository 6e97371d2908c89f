//! Bugs planted on purpose, to see whether the searches find them.
//!
//! Each stands for a rule that somebody could forget, and is switched on by name, one at a time for
//! a whole process, only in builds with the feature `planted`. Without it [`has`] is always
//! `false`, and nothing of this is left in the code. No firmware and no command is built with it.

/// A rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Bug {
    /// The lead tells its verdict before it is durable.
    VerdictBeforeRecord = 1,
    /// The lead lets all rest, and then boot, as soon as one of them has staged.
    TrialBeforeAllStaged,
    /// The lead keeps a release when the first member is healthy.
    KeepOnFirstHealthy,
    /// The lead keeps a release on reports that are older than the last boot of a peer.
    KeepOnOldReports,
    /// A repair is judged like any rollout, and so may be reverted itself.
    RepairReverses,
    /// A rollout counts as settled as soon as its verdict is there.
    SettledAtOnce,
    /// Whoever could not be reached is never told the verdict.
    DebtForgotten,
    /// A trial has no deadline on the lead.
    TrialWithoutDeadline,
    /// A member's attempt is not in its record when its otadata is changed.
    AttemptNotDurable,
    /// A member carries out an attempt a second time.
    AttemptTwice,
    /// A member obeys orders of an older generation.
    StaleGeneration,
    /// A member confirms without being healthy in this boot.
    ConfirmUnhealthy,
    /// A member's trial does not end when its lead is silent.
    NoLease,
    /// A member's trial does not end when the member never gets healthy.
    NoTrialLimit,
    /// A newer rollout is staged while an older one is on trial.
    StageKeepsTrial,
    /// A member reports what its record remembers, not what it observes.
    AnswersFromRecord,
    /// A staged image is not read back.
    NoReadBack,
    /// A slot is not hashed again when it is activated.
    NoSlotCheck,
    /// The slot boots next as soon as its last byte has come.
    FlipInTransfer,
    /// Activation erases both entries of otadata before it writes one.
    EraseBothEntries,
    /// What a power cut left in the record is built upon as it was read.
    WeakBitsBelieved,
    /// Progress is durable before the bytes are.
    ProgressBeforeBytes,
    /// Releases below the device's epoch are taken.
    EpochIgnored,
    /// A member raises its epoch although others may still have to go back.
    EpochBeforeSettled,
    /// Application data passes the gate unasked.
    GateOpen,
    /// An old frame with a good tag is taken again.
    ReplayTaken,
    /// A member stays on a channel on which it hears only other members.
    StaysWithMembers,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::VerdictBeforeRecord,
        Self::TrialBeforeAllStaged,
        Self::KeepOnFirstHealthy,
        Self::KeepOnOldReports,
        Self::RepairReverses,
        Self::SettledAtOnce,
        Self::DebtForgotten,
        Self::TrialWithoutDeadline,
        Self::AttemptNotDurable,
        Self::AttemptTwice,
        Self::StaleGeneration,
        Self::ConfirmUnhealthy,
        Self::NoLease,
        Self::NoTrialLimit,
        Self::StageKeepsTrial,
        Self::AnswersFromRecord,
        Self::NoReadBack,
        Self::NoSlotCheck,
        Self::FlipInTransfer,
        Self::EraseBothEntries,
        Self::WeakBitsBelieved,
        Self::ProgressBeforeBytes,
        Self::EpochIgnored,
        Self::EpochBeforeSettled,
        Self::GateOpen,
        Self::ReplayTaken,
        Self::StaysWithMembers,
    ];
}

/// Whether this bug is planted.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn has(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use switch::{has, plant};

#[cfg(feature = "planted")]
mod switch {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Whether this bug is planted.
    pub fn has(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    /// Plants one bug for the whole process, in place of the one before; `None`: none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_number_of_its_own_and_is_listed() {
        for (index, bug) in Bug::ALL.iter().enumerate() {
            assert_eq!(usize::from(*bug as u8), index + 1, "{bug:?}");
        }
    }

    #[cfg(not(feature = "planted"))]
    #[test]
    fn without_the_feature_there_are_none() {
        assert!(Bug::ALL.iter().all(|bug| !has(*bug)));
    }
}
