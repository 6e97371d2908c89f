//! Leads: what they say when they check in, how it is taken down, and what they are told.

pub mod report;
pub mod roster;
pub mod writer;
