//! The demo: what Lockstep is for, shown on two desk devices that are processes of their own; and
//! on a fleet of such pairs (`fleet`).
//!
//! It uses what everybody has: the devices are `lockstep device`, the releases are bundles, and
//! they are rolled out over HTTP as `lockstep update` does. What it says at the end of a rollout
//! was asked of both devices, not concluded. Every wait has a limit.

mod desk;
pub(crate) mod fleet;
mod interrupt;
mod releases;
mod script;
mod timeline;

pub(crate) use desk::{Desk, Seat};
pub(crate) use interrupt::{Interrupt, program};
pub(crate) use releases::{Plan, ROLES, Step, generated, real, write_secrets};
pub(crate) use script::{Outcome, run, short};
