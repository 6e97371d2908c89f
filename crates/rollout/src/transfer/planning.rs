//! What a round sends: repair frames by what members said last, then whole generations of which
//! nothing has come, and, once it is known how much gets lost, the repair frames that those will
//! need.
//!
//! Generations that are sent whole are *interleaved*: several are on their way at a time, a block
//! of each in turn. So a burst of losses takes little of each of them. They begin one after the
//! other, and so become whole one after the other: each is read back then, which takes a member
//! longer than a frame is in the air.

use lockstep_proto::frame::coding::{GENERATIONS_OPEN, Shape};
use lockstep_proto::frame::report::{MAPS_MAX, Readiness};

use super::target::Target;
use super::{Ahead, ROUND_BYTES_MAX, ROUND_MS_MAX, Sender, Step};

impl Sender {
    pub(super) fn begin_round(&mut self) {
        self.plan.clear();
        let sent_up_to = core::mem::take(&mut self.sent_up_to);
        self.whole.clear();
        self.again.clear();
        self.ahead = Ahead::No;
        self.repairs_sent = 0;
        self.choose_shape();
        let cut = self.cut;
        if self.open().any(|target| target.wants.readiness == Readiness::Head) {
            self.plan.push_back(Step::Head { next: 0 });
            return;
        }
        let Some(base) = self.open().map(|target| target.wants.first).min() else { return };
        let mut whole_left = self.whole_generations_max();
        for generation in base..base.saturating_add(2 * GENERATIONS_OPEN) {
            let blocks = cut.blocks_of(generation);
            let was_sent = generation < sent_up_to;
            // Nothing is known of what got lost on the way to those who have not answered; they
            // speak up if repair frames are too few for them.
            let open = self.open().filter(|it| it.has_answered || !was_sent);
            let lacking = open.map(|target| target.lacks(cut, generation)).max().unwrap_or(0);
            let foreseen = if was_sent { self.foreseen_of_unasked(generation) } else { 0 };
            if blocks == 0 || (lacking == 0 && foreseen == 0) {
                continue;
            }
            if u16::from(lacking) < blocks && cut.shape == Shape::Large {
                self.plan.push_back(Step::Mend { generation, has_begun: false });
                continue;
            }
            if u16::from(lacking) < blocks && lacking < WHOLE_MIN {
                self.plan_mending(generation, sent_up_to, foreseen);
                continue;
            }
            // What the slowest does not take yet would have to come again for it.
            let too_far = generation >= base.saturating_add(GENERATIONS_OPEN);
            if whole_left == 0 || too_far {
                break;
            }
            whole_left -= 1;
            self.whole.push(generation);
        }
        let Some(last) = self.whole.last() else { return };
        self.sent_up_to = last + 1;
        self.plan.push_back(Step::Whole { row: 0, place: 0 });
        self.plan_ahead();
    }

    /// Those who take blocks, and are not given up for silence.
    fn open(&self) -> impl Iterator<Item = &Target> {
        self.served().filter(|target| target.takes())
    }

    /// Repair frames for the one that lacks most, and first some blocks, if it lacks too many for
    /// those. At least so many repair frames as are foreseen.
    fn plan_mending(&mut self, generation: u16, sent_up_to: u16, foreseen: u16) {
        let cut = self.cut;
        let all = cut.blocks_of(generation);
        // Whoever was sent nothing of it yet, or has not said what it lacks, is not known.
        let known = || {
            let answered = self.open().filter(|it| it.has_answered || generation >= sent_up_to);
            answered.filter(|it| u16::from(it.lacks(cut, generation)) < all)
        };
        let part = known().map(|it| it.part(cut, generation)).max().unwrap_or(0);
        let left = known().map(|it| it.burst(cut, generation)).max().unwrap_or(0).max(foreseen);
        if part > 0 {
            // Not the same ones every time: it may have those.
            let next = self.seed % all.max(1);
            self.plan.push_back(Step::Part { generation, next, left: part });
        }
        self.plan.push_back(Step::Repair { generation, left, bursts: 0 });
    }

    /// How many repair frames those need who were not asked, by what got lost on the way to those
    /// who were.
    fn foreseen_of_unasked(&self, generation: u16) -> u16 {
        let (blocks, count) = (self.cut.blocks_of(generation), self.open().count());
        if self.open().all(|target| target.is_asked) {
            return 0;
        }
        let known = self.open().filter(|it| it.is_loss_known && it.loss_permille > 0);
        known.map(|it| it.foreseen_burst(blocks, count)).max().unwrap_or(0)
    }

    /// Repair frames for what will be lacking of the whole generations, if many members would have
    /// to be asked and it can be foreseen.
    fn plan_ahead(&mut self) {
        let count = self.open().count();
        let known = self.open().filter(|it| it.is_loss_known).count();
        let is_known = known >= (count / 2).min(SAMPLE_TARGETS / 2);
        if self.cut.shape != Shape::Small || !is_known || count < FORESEEN_TARGETS_MIN {
            return;
        }
        self.ahead = Ahead::Foreseen;
        for &generation in &self.whole {
            let blocks = self.cut.blocks_of(generation);
            let left = self.open().map(|it| it.foreseen_burst(blocks, count)).max().unwrap_or(0);
            self.plan.push_back(Step::Repair { generation, left, bursts: 0 });
        }
    }

    /// Generations that were mended ahead, and somebody lacked too much for repair frames, are
    /// mended once more. That needs no question: whoever did not speak has them.
    pub(super) fn plan_again(&mut self) {
        if self.ahead != Ahead::Foreseen {
            return;
        }
        self.ahead = Ahead::Again;
        for generation in core::mem::take(&mut self.again) {
            self.plan_mending(generation, 0, 0);
        }
    }

    /// Who is to be asked what is lacking: everybody; at first only some of many members, since it
    /// is about to be learnt how much gets lost, and that is alike most likely.
    pub(super) fn choose_asked(&mut self) {
        let is_new = |it: &Target| !it.is_loss_known && it.wants.readiness == Readiness::Open;
        let is_first = self.open().all(is_new);
        let has_whole = self.whole.len() > 1 && self.cut.shape == Shape::Small;
        let max = if is_first && has_whole { SAMPLE_TARGETS } else { usize::MAX };
        let mut asked = 0;
        for target in &mut self.targets {
            let is_busy = target.wants.readiness == Readiness::Busy;
            target.is_asked = asked < max;
            target.has_answered = is_busy;
            asked += usize::from(target.is_served() && !is_busy);
        }
    }

    /// The next block of the whole generations. With the last one the step is over.
    pub(super) fn take_of_whole(&mut self, row: u16, place: u16) -> u16 {
        let next = self.next_of_whole(row, place);
        let next_but_one = next.and_then(|(_, row, place)| self.next_of_whole(row, place));
        match (next_but_one, next, self.plan.front_mut()) {
            (Some(_), Some((_, row, place)), Some(step)) => *step = Step::Whole { row, place },
            _ => drop(self.plan.pop_front()),
        }
        next.map_or(0, |(index, ..)| index)
    }

    /// The next block of the whole generations, and the place after it: `row` counts the blocks of
    /// the first of them, and each of the others begins some later than the one before it.
    /// `None`: all were sent.
    fn next_of_whole(&self, row: u16, place: u16) -> Option<(u16, u16, u16)> {
        let count = u16::try_from(self.whole.len()).unwrap_or(u16::MAX);
        let whole = self.cut.shape.generation_blocks();
        let stagger = whole.div_ceil(INTERLEAVED);
        let rows = whole + stagger * count.saturating_sub(1);
        let (mut row, mut place) = (row, place);
        while row < rows {
            if place >= count {
                (row, place) = (row + 1, 0);
                continue;
            }
            let generation = self.whole.get(usize::from(place)).copied().unwrap_or(0);
            place += 1;
            let Some(block) = row.checked_sub(stagger * (place - 1)) else { continue };
            if block < self.cut.blocks_of(generation) {
                return Some((generation.saturating_mul(whole).saturating_add(block), row, place));
            }
        }
        None
    }

    /// Everybody is sent the same blocks, so everybody must take them. Once some were sent, a
    /// change costs what members have of open generations: only for somebody who takes no large
    /// ones.
    fn choose_shape(&mut self) {
        let all_take = self.sends_large && self.served().all(|it| it.wants.takes_large);
        self.cut.shape = match (self.cut.shape, self.has_begun) {
            (Shape::Small, true) => Shape::Small,
            _ if all_take => Shape::Large,
            _ => Shape::Small,
        };
        self.has_begun = true;
    }

    /// As many as keep a round short enough for its answers to tell of progress.
    fn whole_generations_max(&self) -> u16 {
        let blocks = u64::from(self.cut.shape.generation_blocks());
        let generation_ms = blocks * u64::from(self.interval_ms());
        let fit = ROUND_MS_MAX.checked_div(generation_ms).unwrap_or(u64::MAX);
        let most = match self.cut.shape {
            Shape::Small => ROUND_BYTES_MAX / self.cut.shape.generation_bytes(),
            // Of more than these a member does not say which blocks it lacks.
            Shape::Large => u32::try_from(MAPS_MAX).unwrap_or(1),
        };
        u16::try_from(fit).unwrap_or(u16::MAX).clamp(1, u16::try_from(most).unwrap_or(1))
    }
}

/// So many generations are on their way at a time, at most.
const INTERLEAVED: u16 = 8;
/// With fewer members than these an answer of each costs less than repair frames that nobody needs.
const FORESEEN_TARGETS_MIN: usize = 4;
/// So many members tell enough of what gets lost on the way to all.
const SAMPLE_TARGETS: usize = 16;
/// Whoever lacks so many blocks of a generation is sent all of them.
const WHOLE_MIN: u8 = 100;
