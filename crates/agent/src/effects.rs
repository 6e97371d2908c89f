//! What the agent wants done, and what it has to tell: it never reboots, asks or logs by itself.

use core::fmt;

use heapless::Deque;
use lockstep_proto::frame::report::Refusal;

use crate::flash::FlashFault;

/// Why a device goes back to its old image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FallBackCause {
    /// No frame of the rollout came for the whole lease.
    LeadSilent,
    /// The device was not healthy within the limit of its trial.
    NotHealthy,
    /// The lead ordered it.
    Reverted,
    /// A newer rollout has begun.
    Superseded,
    /// The device was reset on a trial that its bootloader does not watch.
    Reset,
}

impl fmt::Display for FallBackCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeadSilent => "the lead was silent for the whole lease",
            Self::NotHealthy => "it was not healthy in time",
            Self::Reverted => "the lead ordered it",
            Self::Superseded => "a newer rollout has begun",
            Self::Reset => "it was reset on trial",
        })
    }
}

/// Why a device reboots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RebootReason {
    /// To boot the staged image on trial.
    Activate,
    /// To go back to the old image.
    FallBack(FallBackCause),
}

impl fmt::Display for RebootReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activate => write!(f, "to boot the new image on trial"),
            Self::FallBack(cause) => write!(f, "to go back to the old image: {cause}"),
        }
    }
}

/// What the device is to do. Every effect may come again; doing it twice does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Restart the chip now. What had to be durable is.
    Reboot(RebootReason),
    /// Ask the application to stop what a reboot would hurt; it answers with
    /// `application_at_rest` or `application_not_now`.
    AskRest,
    /// Tell the application that it may go on.
    Release,
    /// Write a log line.
    Trace(Trace),
}

/// What happened, for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// This boot is a trial that the bootloader watches.
    OnTrial,
    /// This boot is a trial that only our record knows of.
    OnTrialByRecord,
    /// The bootloader should have put this boot on trial, but the image is confirmed already.
    ConfirmedEarly,
    /// An image that another tool installed was healthy, and stays.
    FirstKept,
    /// A confirmation that a power cut had interrupted was finished.
    ConfirmationFinished,
    /// The device runs another image than the one it activated.
    FellBack,
    /// A manifest package was verified.
    PackageAccepted,
    /// The other slot's image is given up: staging begins there.
    SlotGivenUp,
    /// Staging goes on where an earlier boot left off.
    Resumed {
        /// Bytes that are in flash already.
        done_bytes: u32,
    },
    /// A part of the image came out wrong, read back from flash: somebody forged a block of it, or
    /// one was garbled. It is fetched again.
    GenerationPoisoned {
        /// Which.
        generation: u16,
    },
    /// All of a patch is there, as it was sent: the image is made from it.
    PatchComplete {
        /// Its size.
        patch_bytes: u32,
    },
    /// Nobody offers the patch any more that was being fetched.
    PatchLost,
    /// The other slot holds the image, read back and verified.
    Staged,
    /// The staged image boots next.
    Activated,
    /// The running image is permanent.
    Confirmed,
    /// The rollout is over for this device, and its image not in force.
    Reverted,
    /// The trial ends.
    TrialEnds(FallBackCause),
    /// The trial should end, but the other slot holds no image to go back to.
    NoWayBack,
    /// The application was released because the lead was silent.
    RestLeaseEnded,
    /// Something was not done.
    Refused(Refusal),
    /// The flash failed.
    FlashFailed(FlashFault),
    /// The stored part in the last rollout cannot be read; this device counts as new.
    MemberRecordLost,
    /// Earlier lines were lost: nobody took them in time.
    Lost {
        /// How many.
        count: u16,
    },
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnTrial => write!(f, "on trial, any reset goes back"),
            Self::OnTrialByRecord => {
                write!(f, "on trial without the bootloader's help, the next boot goes back")
            }
            Self::ConfirmedEarly => write!(
                f,
                "image was confirmed before it was tried: define `verifyRollbackLater` in the \
                 application"
            ),
            Self::FirstKept => {
                write!(f, "image that another tool installed is healthy, and stays")
            }
            Self::ConfirmationFinished => write!(f, "interrupted confirmation finished"),
            Self::FellBack => write!(f, "fell back: the activated image does not run"),
            Self::PackageAccepted => write!(f, "manifest verified"),
            Self::SlotGivenUp => write!(f, "staging begins, the other slot's image is given up"),
            Self::Resumed { done_bytes } => write!(f, "staging goes on behind {done_bytes} bytes"),
            Self::GenerationPoisoned { generation } => {
                write!(f, "generation {generation} came out wrong and is fetched again")
            }
            Self::PatchComplete { patch_bytes } => {
                write!(f, "patch of {patch_bytes} bytes is complete, the image is made from it")
            }
            Self::PatchLost => {
                write!(f, "patch is offered no more, the whole image is fetched")
            }
            Self::Staged => write!(f, "staged, read back and verified"),
            Self::Activated => write!(f, "activated, the new image boots next"),
            Self::Confirmed => write!(f, "confirmed"),
            Self::Reverted => write!(f, "reverted"),
            Self::TrialEnds(cause) => write!(f, "trial ends: {cause}"),
            Self::NoWayBack => write!(f, "trial should end, but there is no image to go back to"),
            Self::RestLeaseEnded => write!(f, "application released: the lead was silent"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::FlashFailed(fault) => write!(f, "{fault}"),
            Self::MemberRecordLost => write!(f, "stored part in the last rollout is unreadable"),
            Self::Lost { count } => write!(f, "{count} lines lost"),
        }
    }
}

/// What is to be done, until somebody takes it. Traces come first, so that a log is complete
/// before the reboot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effects {
    traces: Deque<Trace, TRACES_MAX>,
    lost: u16,
    release: bool,
    ask_rest: bool,
    reboot: Option<RebootReason>,
}

impl Effects {
    pub(crate) fn trace(&mut self, trace: Trace) {
        if self.traces.is_full() {
            self.traces.pop_front();
            self.lost = self.lost.saturating_add(1);
        }
        // There is room now.
        let _ = self.traces.push_back(trace);
    }

    /// Whoever is asked is not released, and the other way round: the last word counts.
    pub(crate) const fn ask_rest(&mut self) {
        (self.ask_rest, self.release) = (true, false);
    }

    pub(crate) const fn release(&mut self) {
        (self.ask_rest, self.release) = (false, true);
    }

    pub(crate) const fn reboot(&mut self, reason: RebootReason) {
        self.reboot = Some(reason);
    }

    pub(crate) const fn cancel_reboot(&mut self) {
        self.reboot = None;
    }

    pub(crate) fn poll(&mut self) -> Option<Effect> {
        if self.lost > 0 {
            let count = core::mem::take(&mut self.lost);
            return Some(Effect::Trace(Trace::Lost { count }));
        }
        if let Some(trace) = self.traces.pop_front() {
            return Some(Effect::Trace(trace));
        }
        if core::mem::take(&mut self.release) {
            return Some(Effect::Release);
        }
        if core::mem::take(&mut self.ask_rest) {
            return Some(Effect::AskRest);
        }
        self.reboot.take().map(Effect::Reboot)
    }
}

/// Traces that wait; beyond it the oldest are dropped and counted.
pub const TRACES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::flash::Operation;

    #[test]
    fn a_full_queue_drops_the_oldest_lines_and_never_the_reboot() {
        let mut effects = Effects::default();
        effects.reboot(RebootReason::Activate);
        for done_bytes in 0..20 {
            effects.trace(Trace::Resumed { done_bytes });
        }
        assert_eq!(effects.poll(), Some(Effect::Trace(Trace::Lost { count: 4 })));
        assert_eq!(effects.poll(), Some(Effect::Trace(Trace::Resumed { done_bytes: 4 })));
        let last = std::iter::from_fn(|| effects.poll()).last();
        assert_eq!(last, Some(Effect::Reboot(RebootReason::Activate)));
    }

    #[test]
    fn a_reboot_that_was_taken_back_does_not_come() {
        let mut effects = Effects::default();
        effects.reboot(RebootReason::Activate);
        effects.trace(Trace::Reverted);
        effects.cancel_reboot();
        assert_eq!(effects.poll(), Some(Effect::Trace(Trace::Reverted)));
        assert_eq!(effects.poll(), None);
    }

    #[test]
    fn a_line_of_the_log_says_why_and_how_much() {
        let ends = Trace::TrialEnds(FallBackCause::NotHealthy);
        assert_eq!(ends.to_string(), "trial ends: it was not healthy in time");
        let resumed = Trace::Resumed { done_bytes: 57_344 };
        assert_eq!(resumed.to_string(), "staging goes on behind 57344 bytes");
        let fault = FlashFault { operation: Operation::Erase, offset: 0x1000 };
        assert_eq!(Trace::FlashFailed(fault).to_string(), fault.to_string());
        let refused = Trace::Refused(Refusal::from(fault)).to_string();
        assert_eq!(refused, std::format!("refused: {}", Refusal::from(fault)));
        assert_eq!(Trace::Lost { count: 4 }.to_string(), "4 lines lost");
    }

    #[test]
    fn a_reboot_says_where_it_leads_and_why() {
        assert_eq!(RebootReason::Activate.to_string(), "to boot the new image on trial");
        let causes = [
            (FallBackCause::LeadSilent, "the lead was silent for the whole lease"),
            (FallBackCause::NotHealthy, "it was not healthy in time"),
            (FallBackCause::Reverted, "the lead ordered it"),
            (FallBackCause::Superseded, "a newer rollout has begun"),
            (FallBackCause::Reset, "it was reset on trial"),
        ];
        for (cause, why) in causes {
            let back = RebootReason::FallBack(cause).to_string();
            assert_eq!(back, std::format!("to go back to the old image: {why}"));
        }
    }
}
