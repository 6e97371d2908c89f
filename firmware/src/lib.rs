//! Firmware for real chips: the thin shell around `lockstep-device`.
//!
//! ```text
//!   reset ─► watchdog ─► node (counts a trial's boots, before anything that could crash)
//!                          │
//!   link ◄────────────► main loop ◄──── console, timer
//! ```
//!
//! Every decision is the node's. Here is what only a chip has: which slot it was booted from, where
//! frames come from and go to, how it resets, and what catches it when it stands still. What
//! differs from board to board stands in one file for each of them, in [`board`].

#![no_std]

extern crate alloc;
// Prints what a panic says; what comes then is in `chip`.
use esp_backtrace as _;

mod application;
pub mod board;
mod chip;
mod console;
mod fault;
mod link;
mod running;
mod start;
mod watchdog;

pub use start::{Part, describe, run};
