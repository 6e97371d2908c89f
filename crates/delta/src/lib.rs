//! Patches of firmware images: what a release changes, instead of all of it.
//!
//! A patch is what bsdiff says of two images, in the order in which it is applied, under LZMA with
//! a dictionary of 4 KiB. A device makes the new image from it and from the one that runs, front to
//! back, with 12 KiB of memory ([`Apply`]); nothing is allocated. Without an old image the same
//! makes a compressed image whole again.
//!
//! Most of what differs between two releases is addresses of what has moved. Where an image is one
//! of ESP-IDF, a patch says what has moved, once, and the decoder puts right what refers to it
//! ([`Format::AddressAware`]).
//!
//! A patch may lie at the end of the very slot that the new image is written to from its start:
//! [`Header::room_bytes`] says how large that slot must be, and [`Apply::taken_bytes`] which part
//! of the patch is not needed any more.
//!
//! # Not here
//!
//! Reading and writing flash, and the hashes that say whether a patch is for an image and whether
//! what came out is what was meant: the header carries them, whoever applies it compares them.
//! Nothing here believes a patch: a bad one is an error, never more work or memory than its header
//! says, and never a byte outside of what it may touch.

#![no_std]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic))]

#[cfg(any(test, feature = "encode"))]
extern crate alloc;

mod apply;
#[cfg(feature = "encode")]
pub mod encode;
mod header;
mod lzma;
mod predict;
mod riscv;
mod varint;
mod xtensa;

pub use apply::{Apply, ApplyError, Input};
pub use header::{Format, HEADER_BYTES, Header, HeaderError, ID_BYTES};
pub use lzma::DICTIONARY_BYTES;
