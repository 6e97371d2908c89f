//! A whole device but the chip.
//!
//! [`Node`] joins the member's side (`lockstep-agent`), on a lead the conducting side
//! (`lockstep-rollout`), and everything between them and the world: frames in and out, the gate,
//! announces, probes, uploads, logs, history. It is sans-io too: frames, bytes and time in; frames,
//! flash work and actions out. A chip, a desk device and the simulator run this very code.
//!
//! The caller's loop: give it every received frame and every uploaded byte; call [`Node::tick`]
//! when [`Node::next_wake`] has come; after each call drain [`Node::poll_frame`] and
//! [`Node::poll_action`]. An [`Action::Reboot`] is obeyed at once. Until an [`Action::Tune`] was
//! taken no frame is handed out, since it belongs on the new channel: poll again after it.
//!
//! # Not here
//!
//! Executors, chips, sockets: the shells around it. On top of it: the HTTP API ([`http`]), and what
//! a broker is told ([`mqtt`]), and what a server is asked for ([`uplink`]).

#![no_std]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod adopt;
pub mod bare;
pub mod blocks;
mod catch_up;
pub mod channel;
mod conduct;
mod config;
mod cut;
pub mod dial;
mod group;
pub mod heard;
pub mod history;
pub mod http;
pub mod identity;
mod intake;
pub mod journal;
mod lead;
mod messages;
pub mod mqtt;
mod node;
pub mod password;
pub mod patched;
pub mod peers;
pub mod sample;
mod schedule;
#[cfg(feature = "screen")]
pub mod screen;
mod serve;
pub mod settings;
pub mod setup;
mod tell;
pub mod uplink;
mod upload;
mod watch;

pub use adopt::{AdoptError, AdoptFailure, AdoptionView};
pub use group::RemoveError;
pub use lead::{ConductError, Conducting};
pub use lockstep_agent::RebootReason;
pub use node::{Action, Node, NodeError};
pub use schedule::Waits;
pub use upload::{UploadError, UploadStep};
