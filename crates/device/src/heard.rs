//! Counts of what came beside blocks, by what became of it: whoever wonders why an order is not
//! obeyed, or who disturbs a group, looks here.

use lockstep_proto::frame::control::ControlError;

use crate::node::Node;
use crate::setup::Application;

/// Frames since this device booted that are no blocks and no application data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlCounts {
    /// Control frames of the group for this device, fresh.
    pub taken: u32,
    /// Of another group in reach: nobody's error.
    pub other_group: u32,
    /// Of this group by name, and not by its key.
    pub bad_tag: u32,
    /// Of a version of the lane that this firmware does not know.
    pub lane_version: u32,
    /// Of a kind that this firmware does not know.
    pub unknown_kind: u32,
    /// Cut short, or with a field that cannot be.
    pub malformed: u32,
    /// Not newer than what this sender has said before, or an answer to nothing.
    pub replayed: u32,
    /// Of a sender that had not answered a challenge yet: it says it again.
    pub unproved: u32,
    /// Of none of our frame types.
    pub strange: u32,
}

impl ControlCounts {
    pub(crate) fn note_unreadable(&mut self, why: &ControlError) {
        let count = match why {
            ControlError::OtherGroup { .. } => &mut self.other_group,
            ControlError::BadTag => &mut self.bad_tag,
            ControlError::LaneVersion { .. } => &mut self.lane_version,
            ControlError::Kind { .. } => &mut self.unknown_kind,
            ControlError::TooShort(_) | ControlError::Field { .. } => &mut self.malformed,
        };
        one_more(count);
    }

    /// All of them, by the names that programs know them by.
    pub fn named(&self) -> [(&'static str, u32); 9] {
        [
            ("taken", self.taken),
            ("other_group", self.other_group),
            ("bad_tag", self.bad_tag),
            ("lane_version", self.lane_version),
            ("unknown_kind", self.unknown_kind),
            ("malformed", self.malformed),
            ("replayed", self.replayed),
            ("unproved", self.unproved),
            ("strange", self.strange),
        ]
    }
}

impl<A: Application> Node<A> {
    /// What became of the frames that this device has heard, but for blocks and data.
    pub const fn control_counts(&self) -> &ControlCounts {
        &self.heard
    }
}

pub(crate) const fn one_more(count: &mut u32) {
    *count = count.saturating_add(1);
}
