//! One member that wants an object: what it said last, and what follows from that.

use lockstep_proto::frame::coding::{Cut, Shape};
use lockstep_proto::frame::report::{Readiness, Wants};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) device: DeviceId,
    pub(super) wants: Wants,
    /// It has spoken since the last question to all.
    pub(super) has_answered: bool,
    /// Questions since it spoke last.
    pub(super) unanswered: u8,
    /// Since when it has been saying that its flash is busy.
    pub(super) busy_since: Option<Instant>,
    /// Large blocks of the generation that is mended now which it was not sent yet.
    pub(super) due: u32,
    /// Share of the whole generations that got lost on the way to it, per thousand.
    pub(super) loss_permille: u16,
}

impl Target {
    pub(super) const fn is_served(&self) -> bool {
        self.unanswered < QUESTIONS_MAX
    }

    /// Whether it takes blocks now.
    pub(super) fn takes(&self) -> bool {
        matches!(self.wants.readiness, Readiness::Head | Readiness::Open)
    }

    /// How many blocks it lacks of a generation. What it has of one that came in another shape is
    /// of no use.
    pub(super) fn lacks(&self, cut: Cut, generation: u16) -> u8 {
        let place = generation.checked_sub(self.wants.first).map(usize::from);
        match place.and_then(|place| self.wants.lacking.counts().get(place)) {
            Some(1..) if self.wants.shape != cut.shape => {
                u8::try_from(cut.blocks_of(generation)).unwrap_or(u8::MAX)
            }
            lacking => lacking.copied().unwrap_or(0),
        }
    }

    /// Which large blocks of a generation it lacks, as far as that is known.
    pub(super) fn misses(&self, cut: Cut, generation: u16) -> u32 {
        let lacking = self.lacks(cut, generation);
        if cut.shape != Shape::Large || lacking == 0 {
            return 0;
        }
        if u16::from(lacking) >= cut.blocks_of(generation) {
            return u32::try_from(cut.all_of(generation)).unwrap_or(u32::MAX);
        }
        let place = usize::from(generation.saturating_sub(self.wants.first));
        self.wants.lacking.map(place).unwrap_or_default()
    }

    /// How many repair frames to send, so that as many as it lacks of a generation arrive, and are
    /// independent of each other.
    pub(super) fn burst(&self, cut: Cut, generation: u16) -> u16 {
        let lacking = u32::from(self.lacks(cut, generation));
        if lacking == 0 {
            return 0;
        }
        let lost = u32::from(self.loss_permille.min(LOSS_PERMILLE_MAX));
        // A part of the standard deviation more than gets lost on average: asking once more takes
        // as long as some frames.
        let deviation = (lacking * lost * 1000).isqrt() * DEVIATION_PERCENT / 100;
        let needed = (lacking * 1000 + deviation).div_ceil(1000 - lost) + SPARE_REPAIRS;
        u16::try_from(needed).unwrap_or(u16::MAX)
    }
}

/// Two random repair frames more than are lacking are too few once in four times.
const SPARE_REPAIRS: u32 = 1;
/// See where it is used.
const DEVIATION_PERCENT: u32 = 100;
/// A loss beyond this is a member that is hardly there: nobody waits for it with a hundred frames.
const LOSS_PERMILLE_MAX: u16 = 600;
/// A member that leaves so many questions unanswered is not served until it speaks.
pub(super) const QUESTIONS_MAX: u8 = 8;
