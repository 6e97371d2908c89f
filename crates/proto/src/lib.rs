//! The words both sides speak: whatever crosses a process, a radio or a power cycle is defined
//! here, byte for byte, and frozen by golden files.
//!
//! Bytes come in, meaning goes out: each type is parsed once, at the edge, and a value in hand has
//! passed every check that its bytes alone allow. Nothing here panics on any input, opens a socket,
//! reads a clock or draws a random number; `no_std` makes that a compile error.

#![no_std]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic))]

#[cfg(test)]
extern crate std;

pub mod bundle;
pub mod compat;
pub mod descriptor;
pub mod fmta;
pub mod frame;
pub mod id;
pub mod image;
pub mod line;
pub mod manifest;
pub mod otadata;
pub mod partition;
pub mod planted;
pub mod signature;
pub mod text;
pub mod time;
pub mod version;
pub mod wire;
pub mod words;
