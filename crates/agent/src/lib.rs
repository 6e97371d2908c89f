//! One device's update: the member's side of every rollout, the lead's own device included.
//!
//! An [`Agent`] is a plain value. It is given the time, the flash and one input at a time (an
//! order, a block, a health sample, the application's answer), changes the flash at once, and says
//! what else is to be done as [`Effect`]s. It opens no socket, reads no clock, draws no random
//! number and writes no log. Flash work is synchronous, so that no suspended future hides a power
//! cut.
//!
//! ```text
//!            Stage              verified            Activate, Fire
//!   idle ───────────► staging ───────────► staged ─────────────────► activating ── reboot ──┐
//!                        ▲                    ▲                                             ▼
//!                        │                    └────────── fell back ◄────── reset, lease,  trial
//!                        │                                                  limit           │
//!                   newer Stage ◄───── reverted ◄── Revert ──── any state        Confirm, healthy
//!                        ▲                                                                  ▼
//!                        └───────────────────────── kept ◄────────────────────────── confirming
//! ```
//!
//! # Promises
//!
//! 1. Whatever happens to the power, the device boots a complete, verified image.
//! 2. Orders are compare-and-set: what does not fit the state is refused, and changes nothing.
//! 3. What is to be done is durable before it is done: first the record, then otadata, then the
//!    reboot.
//! 4. A report says what is observed now; the record is reported as a record.
//! 5. Every wait ends by itself: a silent lead, a trial that never gets healthy, an application at
//!    rest.
//!
//! # Not here
//!
//! Conducting a rollout (`lockstep-rollout`), frames, keys and counters on the air, and asking
//! peers for health (`lockstep-device`).

#![no_std]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod agent;
pub mod boot_state;
pub mod config;
pub mod effects;
pub mod flash;
mod hearing;
pub mod layout;
pub mod member;
pub mod package;
pub mod receiver;
pub mod record;
mod running;
pub mod slot;

mod applying;
mod boot;
mod local;
mod orders;
mod patch;
mod progress;
mod staging;
mod taken_back;
mod trial;

pub use agent::{Agent, Health, Identity, Reply, Setup};
pub use boot::{BootError, Booted};
pub use config::{CONFIG_BYTES_MAX, ConfigError};
pub use effects::{Effect, FallBackCause, RebootReason, Trace};
pub use flash::{FlashFault, Region};
pub use layout::{Layout, LayoutError};
pub use member::MemberRecord;
pub use orders::{FIRE_MS_MAX, SPOOL_HOLD_MS};
pub use package::{PACKAGE_SIZE_BYTES_MAX, Package, PackageError};
pub use patch::{OFFER_LEASE_MS, PATCH_TRIES_MAX};
pub use record::{Kind, RecordError, RecordLog};
pub use slot::Pace;
pub use staging::{POISONED_MAX, STAGING_RESTARTS_MAX};
pub use trial::{FIRST_TRIAL_MS, REBOOT_REPEAT_MS, REST_FALLBACK_MS, TERM_MS_DEFAULT, TERM_MS_MAX};
