//! Fleets: releases for many groups, and a console to watch them.
//!
//! A server offers; a group's own lead decides when, and conducts. Whatever happens here, a group
//! that has begun ends whole, and one that was never asked runs on.
//!
//! ```text
//! bundle ─► releases ─┐
//!                     ├─ campaign: who may have it now ─► desired ─► leads
//! groups, labels ─────┘        ▲                                      │
//!                              └──────────── check-ins ◄──────────────┘
//! ```

pub mod access;
pub mod backup;
pub mod bundle;
pub mod campaign;
pub mod check;
pub mod field;
pub mod fleet;
pub mod hours;
pub mod http;
pub mod lead;
pub mod manifests;
pub mod metrics;
pub mod mqtt;
pub mod objects;
pub mod patches;
pub mod publish;
pub mod route;
pub mod run;
pub mod server;
pub mod store;
pub mod tls;
pub mod words;
