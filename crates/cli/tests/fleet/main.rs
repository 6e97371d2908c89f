//! A fleet's server, leads that come to it, and operators at their terminals: real processes, real
//! HTTP, `kill -9` for whatever may end.
//!
//! A server that is away, wrong or restarted delays releases and nothing else: what is asserted is
//! what the devices run, by hash, and what the server knows of it. Every wait has an end, and
//! nothing here measures time.

mod access;
mod cable;
mod campaigns;
mod contract;
#[expect(dead_code, unused_imports, reason = "the end-to-end tests use more of it")]
#[path = "../e2e/desk/mod.rs"]
mod desk;
mod faults;
mod install;
mod leads;
mod orders;
mod patches;
mod releases;
mod server;
mod tls;
mod twins;
