//! Counts of what came in blocks, by what became of it: a transfer that is slow, or somebody who
//! disturbs one, shows here.

use lockstep_agent::Trace;
use lockstep_agent::receiver::Dropped;
use lockstep_proto::frame::block::BlockError;

/// Frames of the kinds block, repair and question, since this device booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockCounts {
    /// Taken: they brought something, or asked.
    pub taken: u32,
    /// Not taken, by [`Dropped::number`].
    dropped: [u32; Dropped::ALL.len()],
    /// Not tagged with the group's key.
    pub bad_tag: u32,
    /// Of a version of the lane that this firmware does not know.
    pub other_version: u32,
    /// Cut short, too long, or otherwise no such frame.
    pub malformed: u32,
    /// Generations that were whole and came out wrong: a block of each was forged, or garbled and
    /// tagged with the group's key.
    pub poisoned: u32,
}

impl BlockCounts {
    pub(crate) fn note(&mut self, taken: Result<(), Dropped>) {
        match taken {
            Ok(()) => self.taken = self.taken.saturating_add(1),
            Err(why) => self.note_dropped(why),
        }
    }

    pub(crate) fn note_trace(&mut self, trace: &Trace) {
        if matches!(trace, Trace::GenerationPoisoned { .. }) {
            self.poisoned = self.poisoned.saturating_add(1);
        }
    }

    pub(crate) fn note_dropped(&mut self, why: Dropped) {
        if let Some(count) = self.dropped.get_mut(why.number()) {
            *count = count.saturating_add(1);
        }
    }

    pub(crate) fn note_unreadable(&mut self, why: &BlockError) {
        let count = match why {
            BlockError::BadTag => &mut self.bad_tag,
            BlockError::LaneVersion { .. } => &mut self.other_version,
            BlockError::TooShort(_)
            | BlockError::Type { .. }
            | BlockError::PayloadSize { .. }
            | BlockError::Asked { .. }
            | BlockError::Seed { .. }
            | BlockError::Full(_) => &mut self.malformed,
        };
        *count = count.saturating_add(1);
    }

    /// All of them, by the names that programs know them by.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u32)> + Clone {
        let dropped = DROPPED_NAMES.into_iter().zip(self.dropped);
        let unreadable = [
            ("bad_tag", self.bad_tag),
            ("lane_version", self.other_version),
            ("malformed", self.malformed),
            ("poisoned", self.poisoned),
        ];
        [("taken", self.taken)].into_iter().chain(dropped).chain(unreadable)
    }

    /// How many were not taken for each reason.
    pub fn dropped(&self) -> impl Iterator<Item = (Dropped, u32)> {
        Dropped::ALL.into_iter().zip(self.dropped)
    }
}

/// Of [`Dropped::ALL`], in its order.
const DROPPED_NAMES: [&str; Dropped::ALL.len()] =
    ["unwanted", "out_of_range", "length", "known", "busy"];
