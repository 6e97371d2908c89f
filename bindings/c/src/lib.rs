//! Lockstep for firmware in C and C++: bytes, time and answers in, bytes and effects out.
//!
//! This is a C dress of `lockstep_device::Node`, and nothing else: every decision is the one that a
//! chip in Rust, a desk device and the simulator take. Written over `agent` and `rollout` alone it
//! would need another gate, another replay guard, another adoption, and these would drift.
//!
//! # Memory
//!
//! A node needs a heap. The caller hands in one piece of memory at the start; what the node
//! allocates lies in there, and nothing is ever asked of the system. So the need is bounded by what
//! was handed in, and measured ([`LockstepMemory`]). The only global state is one word: which
//! instance is being called, and so whose memory serves (see `memory`). A second call meanwhile,
//! from a callback or another task, is refused with [`LockstepResult::ErrorBusy`].
//!
//! # What a caller can do wrong
//!
//! Null pointers, lengths, numbers out of range, memory that is no instance, calls out of order:
//! each has its error, and changes nothing. Memory that is too small for the node to *start* is an
//! error; memory that runs out later is a panic, which ends in `lockstep_panic`, and so in a reset:
//! a device comes back from its record, and a trial goes back.

#![no_std]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod api;
mod application;
mod callbacks;
mod device;
mod lead;
mod memory;
#[cfg(not(feature = "std"))]
mod panic;
mod result;
mod setup;
mod shown;

pub use api::*;
pub use callbacks::LockstepCallbacks;
pub use lead::*;
pub use result::{LockstepResult, lockstep_error_text};
pub use setup::{LockstepDuty, LockstepRollback, LockstepSetup, LockstepTempo};
pub use shown::{
    LOCKSTEP_FRAME_BYTES_MAX, LOCKSTEP_TEXT_BYTES, LockstepEffect, LockstepEffectKind,
    LockstepFrame, LockstepGate, LockstepLevel, LockstepMemory, LockstepPeer, LockstepRest,
    LockstepState, LockstepStep,
};
