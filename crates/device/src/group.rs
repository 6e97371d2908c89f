//! Who belongs to the group: the lead's list of members, and how somebody is taken off it.
//!
//! Whoever speaks with the group's key gets onto the list by itself (`conduct`), so that a missing
//! device is missed. One that is gone for good would stop every rollout, and only a person knows
//! that it will not come back.

use alloc::format;
use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;

use crate::journal::Level;
use crate::lead::{MEMBERS_BYTES_MAX, encode_members};
use crate::node::Node;
use crate::setup::Application;

/// Why a device stays on the list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveError {
    /// This device conducts nothing, so it has no list.
    NotTheLead,
    /// It is the lead itself.
    IsTheLead(DeviceId),
    /// It is not on the list.
    NotAMember(DeviceId),
    /// It was heard a moment ago, so it would be back on the list at its next word.
    StillHeard {
        /// The device.
        id: DeviceId,
        /// How long ago, in milliseconds.
        heard_ms_ago: u64,
    },
    /// A rollout is open, and its members are fixed.
    Busy(RolloutId),
    /// The flash failed.
    Storage,
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheLead => write!(f, "this device does not conduct the group's rollouts"),
            Self::IsTheLead(id) => write!(f, "{id} is the lead of the group"),
            Self::NotAMember(id) => write!(f, "{id} is not a member of the group"),
            Self::StillHeard { id, heard_ms_ago } => {
                write!(f, "{id} was heard {heard_ms_ago} ms ago")
            }
            Self::Busy(rollout) => write!(f, "rollout `{rollout}` is still running"),
            Self::Storage => write!(f, "the device could not write its flash"),
        }
    }
}

impl core::error::Error for RemoveError {}

impl<A: Application> Node<A> {
    /// Takes a device that is gone for good off the list of members. What it still owes of a
    /// settled rollout is not waited for any more.
    pub fn remove_member<F: NorFlash>(
        &mut self,
        now: Instant,
        id: DeviceId,
        flash: &mut F,
    ) -> Result<Role, RemoveError> {
        let silence_ms = self.setup.pace.link_fresh_ms;
        let heard_ms_ago = self.peers.get(id).map(|peer| now.ms_since(peer.heard_at));
        let lead = self.lead.as_mut().ok_or(RemoveError::NotTheLead)?;
        if id == self.setup.id {
            return Err(RemoveError::IsTheLead(id));
        }
        let member = lead.members.iter().position(|(member, _)| *member == id);
        let index = member.ok_or(RemoveError::NotAMember(id))?;
        if let Some(rollout) = lead.rollout.as_ref().filter(|rollout| !rollout.is_over()) {
            return Err(RemoveError::Busy(rollout.record().id));
        }
        if let Some(heard_ms_ago) = heard_ms_ago.filter(|&ms| ms < silence_ms) {
            return Err(RemoveError::StillHeard { id, heard_ms_ago });
        }
        let before = lead.members.clone();
        let (_, role) = lead.members.remove(index);
        if !self.store_members(flash) {
            if let Some(lead) = &mut self.lead {
                lead.members = before;
            }
            return Err(RemoveError::Storage);
        }
        let text = format!("`{role}` {id} does not belong to the group any more");
        self.journal.log(now, Level::Notice, text);
        Ok(role)
    }

    /// Makes the list durable. `false` if it could not be.
    pub(crate) fn store_members<F: NorFlash>(&mut self, flash: &mut F) -> bool {
        let Some(lead) = &self.lead else { return false };
        let mut buffer = alloc::vec![0; MEMBERS_BYTES_MAX];
        let len = encode_members(&lead.members, &mut buffer);
        self.write_entry(Entry::GROUP, buffer.get(..len).unwrap_or_default(), flash)
    }
}
