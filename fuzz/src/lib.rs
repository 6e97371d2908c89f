//! Fuzz targets: one module for each kind of bytes that comes from strangers, or from a flash that
//! lost power. `run` takes what the fuzzer made up and panics when a promise is broken.
//!
//! The promises that all of them share: nothing panics, nothing takes more memory than its limit
//! says, what decodes encodes, and what was encoded decodes to the same.
//!
//! # Not here
//!
//! How to run them: `docs/fuzzing.md`. The programs around `run`: `src/bin`.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod delta;
pub mod frames;
pub mod http;
pub mod image;
pub mod line;
pub mod manifest;
pub mod node;
pub mod otadata;
pub mod partition;
pub mod record;
pub mod seeds;

mod memory;
mod stream;
mod world;
