//! The group's rollout, the lead's side: brings every device of a group to one release, together
//! or not at all.
//!
//! A [`Rollout`] is a plain value. The lead feeds it one [`Input`] at a time, stores its
//! [`RolloutRecord`] when told so, and then performs the effects. It opens no socket, reads no
//! clock and draws no random number; time arrives as an argument. The same code conducts on a
//! chip, on a desk and in the simulator.
//!
//! ```text
//!            all fit       all staged   all at rest    all healthy      all settled
//!  Preflight ───────► Staging ───────► Rest ───────► Trial ───────► Settling ───────► Settled
//!      │                 │               │             │               ▲ (keep)
//!      ▼                 └───────────────┴─────────────┴───────────────┘ (revert)
//!   refused                     failure, deadline, abort
//! ```
//!
//! # Invariants
//!
//! 1. Nobody is told to activate before everybody has staged.
//! 2. Nobody is told to confirm before everybody was healthy, in this rollout and generation.
//! 3. One rollout never says both `Confirm` and `Revert`.
//!
//! # Not here
//!
//! What a member does with an order: `lockstep-agent`. Frames, uploads, history: `lockstep-device`.

#![no_std]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic))]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod behind;
mod decide;
mod judge;
mod machine;
pub mod offers;
mod orders;
mod policy;
mod preflight;
mod record;
mod release;
mod seat;
mod settling;
pub mod transfer;

pub use behind::{Behind, Latecomers, Present, Turn, behind};
pub use machine::{Event, Input, Outgoing, Rollout, Step};
pub use offers::Offers;
pub use policy::Policy;
pub use preflight::{Fault, PreflightFault};
pub use record::{
    Cause, Hold, Kind, MEMBERS_MAX, Part, Phase, RECORD_BYTES_MAX, RECORD_VERSION, RecordError,
    RolloutRecord, SeatRecord, Verdict,
};
pub use release::{Artifact, Release};
pub use seat::SeatView;
