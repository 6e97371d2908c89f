//! Why an upload ended: what its sender is told.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::RolloutId;
use lockstep_proto::wire::Role;
use lockstep_rollout::PreflightFault;

/// Why an upload ended.
#[derive(Debug, Clone, PartialEq)]
pub enum UploadError {
    /// This device conducts nothing.
    NotTheLead,
    /// Another rollout is open.
    Busy(RolloutId),
    /// The bytes are not a bundle, or not one for these devices; says why.
    BadBundle(String),
    /// The signatures are not what this device's keys demand; says why.
    Untrusted(String),
    /// Preflight refused it, for all of these reasons.
    Refused(Vec<PreflightFault>),
    /// The rollout ended while bytes were still coming; says why.
    Ended(RolloutId, String),
    /// An artifact is not what the manifest says; says why.
    BadArtifact(Role, String),
    /// A bare image is none, or not one for this group; says why.
    BadImage(String),
    /// No bare image is there that could be installed.
    NothingToInstall,
    /// A continued upload must begin at this byte of the bundle.
    WrongOffset {
        /// Where the sender wanted to begin.
        found: u32,
        /// Where it must.
        expected: u32,
    },
    /// There is no cut upload to go on with.
    NothingToContinue,
    /// No upload was begun.
    NotBegun,
    /// The flash failed.
    Storage,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheLead => write!(f, "this device does not conduct the group's rollouts"),
            Self::Busy(rollout) => write!(f, "rollout `{rollout}` is still running"),
            Self::BadBundle(why) | Self::Untrusted(why) => f.write_str(why),
            Self::Refused(faults) => match faults.first() {
                Some(fault) => write!(f, "{}", fault.fault),
                None => write!(f, "the rollout was aborted before it began"),
            },
            Self::Ended(rollout, why) => write!(f, "rollout `{rollout}` has ended: {why}"),
            Self::BadArtifact(role, why) => write!(f, "artifact of `{role}`: {why}"),
            Self::BadImage(why) => write!(f, "image is refused: {why}"),
            Self::NothingToInstall => write!(f, "no image was uploaded that could be installed"),
            Self::WrongOffset { found, expected } => {
                write!(f, "upload goes on at byte {found}, the device is at {expected}")
            }
            Self::NothingToContinue => write!(f, "there is no cut upload to go on with"),
            Self::NotBegun => write!(f, "no upload was begun"),
            Self::Storage => write!(f, "the device could not write its flash"),
        }
    }
}

impl core::error::Error for UploadError {}

/// What the agent says of bytes, as whoever sent them is told.
pub(super) fn bad_artifact(role: Role, why: Refusal) -> UploadError {
    match why {
        Refusal::FlashFailed { .. } => UploadError::Storage,
        why => UploadError::BadArtifact(role, format!("{why}")),
    }
}
