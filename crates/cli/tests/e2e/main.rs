//! Whole rollouts over real processes: a pair of desk devices, the command that updates them, and
//! `kill -9` for a power cut.
//!
//! Nothing here measures time: a wait has an end, and what is asserted is what the devices run
//! afterwards. A test that needs a certain moment makes the moment long, with a slow radio or with
//! an application that does not come to rest.

mod adopt;
mod builds;
mod c;
mod chip;
mod crashes;
mod desk;
mod fielded;
mod first_start;
mod flash;
mod fleet_mqtt;
mod held;
mod keys;
mod line;
mod links;
mod mqtt;
mod operations;
mod patches;
mod real;
mod refusals;
mod secure_boot;
mod soak;
mod trials;
mod update;
mod uploads;
mod watching;
