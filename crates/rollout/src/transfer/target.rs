//! One member that wants an object: what it said last, and what follows from that.

use lockstep_proto::frame::coding::{Cut, REPAIRS_HELD_MAX, Shape};
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
    /// Whether that follows from a round.
    pub(super) is_loss_known: bool,
    /// It was among those who were asked last: of many that are alike, some tell enough.
    pub(super) is_asked: bool,
}

impl Target {
    pub(super) const fn is_served(&self) -> bool {
        self.unanswered < QUESTIONS_MAX
    }

    /// Its answer to the last question is waited for.
    pub(super) const fn is_awaited(&self) -> bool {
        self.is_asked && !self.has_answered
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
        let lacking = u32::from(self.lacks(cut, generation).min(REPAIRS_HELD_MAX));
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

    /// How many of its blocks to send before repair frames are of use to it: 0, if they are.
    pub(super) fn part(&self, cut: Cut, generation: u16) -> u16 {
        let lacking = u32::from(self.lacks(cut, generation));
        if lacking <= REPAIRS_HELD_MAX.into() {
            return 0;
        }
        let lost = u32::from(self.loss_permille.min(LOSS_PERMILLE_MAX));
        let blocks = cut.blocks_of(generation);
        let too_many = lacking - u32::from(REPAIRS_HELD_MAX) + SPARE_PART;
        let needed = too_many * u32::from(blocks) * 1000 / (lacking * (1000 - lost));
        u16::try_from(needed).unwrap_or(blocks).min(blocks)
    }

    /// How many repair frames the one of so many members needs that loses most of so many blocks,
    /// if as much gets lost on the way to them as to this one.
    pub(super) fn foreseen_burst(&self, blocks: u16, targets: usize) -> u16 {
        let lost = u32::from(self.loss_permille.min(LOSS_PERMILLE_MAX));
        let blocks = u32::from(blocks);
        let most = targets.max(1).ilog2() * MOST_PERCENT;
        // Frames until as many have come as there are blocks: mean and deviation, times 1000.
        let deviation = (blocks * lost * 1000).isqrt() * most / 100;
        let more = (blocks * lost + deviation).div_ceil(1000 - lost) + SPARE_REPAIRS;
        u16::try_from(more).unwrap_or(u16::MAX)
    }
}

/// Two random repair frames more than are lacking are too few once in four times.
const SPARE_REPAIRS: u32 = 1;
/// The one that loses most, of twice as many, loses so much of the standard deviation more.
const MOST_PERCENT: u32 = 50;
/// So many fewer blocks are to be lacking than repair frames could mend.
const SPARE_PART: u32 = 4;
/// See where it is used.
const DEVIATION_PERCENT: u32 = 100;
/// A loss beyond this is a member that is hardly there: nobody waits for it with a hundred frames.
const LOSS_PERMILLE_MAX: u16 = 600;
/// A member that leaves so many questions unanswered is not served until it speaks.
pub(super) const QUESTIONS_MAX: u8 = 8;

#[cfg(test)]
mod tests {
    use super::super::tests::{CUT, target};
    use super::*;

    #[test]
    fn as_many_repair_frames_are_sent_as_arrive_in_spite_of_the_loss() {
        let burst = |lacking: u8, loss_permille| {
            let counts = [u32::from(lacking)];
            let target = Target { loss_permille, ..target(0, Shape::Small, &counts) };
            target.burst(CUT, 0)
        };
        assert_eq!(burst(0, 200), 0);
        assert_eq!(burst(10, 0), 11);
        assert_eq!(burst(10, 200), 16, "(10 + √(10 · 0.2)) ÷ 0.8, and one to spare");
        assert_eq!(burst(40, 200), 55);
        assert_eq!(burst(10, 600), 33);
        assert_eq!(burst(10, 900), 33, "hardly there: not a hundred frames");
    }

    #[test]
    fn the_more_members_there_are_the_more_the_one_needs_that_loses_most() {
        let foreseen = |loss_permille, targets| {
            let target = Target { loss_permille, ..target(0, Shape::Small, &[]) };
            target.foreseen_burst(128, targets)
        };
        assert_eq!(foreseen(0, 50), 1);
        assert_eq!(foreseen(200, 1), 33, "128 · 0.2 ÷ 0.8, and one to spare");
        assert_eq!([foreseen(200, 4), foreseen(200, 10), foreseen(200, 50)], [40, 43, 49]);
        assert_eq!(foreseen(900, 50), foreseen(600, 50), "hardly there");
    }

    #[test]
    fn who_lacks_too_much_for_repair_frames_needs_some_blocks_before() {
        let part = |lacking: u8, loss_permille| {
            let target = Target { loss_permille, ..target(0, Shape::Small, &[u32::from(lacking)]) };
            target.part(CUT, 0)
        };
        assert_eq!([part(0, 200), part(56, 200)], [0, 0]);
        assert_eq!(part(57, 0), 5 * 128 / 57);
        assert_eq!(part(57, 500), 5 * 128 * 2 / 57);
        assert_eq!(part(99, 600), 128, "no more than there are");
    }

    #[test]
    fn who_leaves_eight_questions_unanswered_is_not_served() {
        let served = |unanswered| Target { unanswered, ..target(0, Shape::Small, &[]) }.is_served();
        assert!(served(0) && served(7) && !served(8) && !served(9));
    }

    #[test]
    fn what_it_has_in_another_shape_is_of_no_use() {
        let small = target(0, Shape::Small, &[3, 0]);
        assert_eq!((small.lacks(CUT, 0), small.lacks(CUT, 1)), (3, 0));
        let large = Cut { shape: Shape::Large, ..CUT };
        assert_eq!((small.lacks(large, 0), small.lacks(large, 1)), (28, 0));
        assert_eq!(small.misses(CUT, 0), 0, "small blocks are not named");
        assert_eq!(small.misses(large, 0), (1 << 28) - 1);
        assert_eq!(small.misses(large, 1), 0);
        let some = target(0, Shape::Large, &[0b101]);
        assert_eq!((some.misses(large, 0), some.misses(CUT, 0)), (0b101, 0));
    }
}
