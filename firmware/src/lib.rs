//! Firmware for real chips: the thin shell around `lockstep-device`.
//!
//! ```text
//!   reset ─► watchdog ─► node (counts a trial's boots, before anything that could crash)
//!                          │
//!   link ◄────────────► main loop ◄──── console, timer, button
//!                          ▲
//!   network ───────────────┘  pages and API, broker, server, clock (none on a bench)
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
mod button;
mod chip;
mod console;
mod fault;
mod halt;
mod heap;
mod link;
mod main_loop;
mod memory;
#[cfg(feature = "radio")]
mod network;
mod place;
mod running;
#[cfg(feature = "t-display-s3")]
mod screen;
mod start;
mod told;
mod watchdog;

pub use start::{Part, describe, run};
