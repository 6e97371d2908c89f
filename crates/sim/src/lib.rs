//! The simulator: boards on a desk, in files and processes of a host, and worlds in virtual time.
//!
//! `kill -9` is a power cut and starting the process again is power on, so everything durable is
//! written when it is said to be, and everything a chip would tear can be torn here. The parts
//! below keep the rules of flash, boot ROM and radio; they know nothing of releases and rollouts.
//! `board` puts them together with the node of a chip, and `world` has many of those; both come
//! with the feature `boards`.

#[cfg(feature = "boards")]
pub mod board;
pub mod bootloader;
#[cfg(feature = "boards")]
pub mod channel;
pub mod firmware;
pub mod flash;
#[cfg(feature = "boards")]
pub mod line;
pub mod patches;
#[cfg(feature = "boards")]
pub mod radio;
#[cfg(feature = "boards")]
pub mod world;
