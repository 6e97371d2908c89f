//! The console of a server, with real pairs and with leads that only speak like some.

mod fleet;
mod looks;
mod person;
mod walk;
