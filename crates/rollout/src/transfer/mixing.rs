//! Which large blocks go into one frame.
//!
//! Members say which ones they lack. A frame with the XOR of several is of use to a member that
//! lacks one of them: it has the others, and takes them out. So a frame brings each of several
//! members another block, if it has no two that one of them lacks.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::target::Target;
use super::{Sender, Step};

impl Sender {
    /// Steps of which nothing is left to be sent are over.
    pub(super) fn begin_mending(&mut self) {
        while let Some(Step::Mend { generation, has_begun }) = self.plan.front_mut() {
            let (cut, generation) = (self.cut, *generation);
            if !core::mem::replace(has_begun, true) {
                // Whoever is busy takes none, and is sent what it lacks in a later round.
                for target in &mut self.targets {
                    let takes = target.is_served() && target.takes();
                    target.due = if takes { target.misses(cut, generation) } else { 0 };
                }
            }
            if self.served().any(|target| target.due != 0) {
                return;
            }
            self.plan.pop_front();
        }
    }

    /// Large blocks to be mixed in the next frame, so that each member finds at most one in it that
    /// it lacks, and as many as possible find one that they were not sent yet. Not none, while
    /// anybody is due one.
    pub(super) fn next_mix(&mut self, generation: u16) -> u32 {
        let cut = self.cut;
        let mut order: Vec<&mut Target> =
            self.targets.iter_mut().filter(|it| it.is_served() && it.takes()).collect();
        order.sort_by_key(|target| Reverse(target.due.count_ones()));
        let lacking: Vec<u32> = order.iter().map(|it| it.misses(cut, generation)).collect();
        // What those lack who find one in the mix: a second one would spoil it for them.
        let (mut mix, mut taken) = (0_u32, 0_u32);
        for (target, missing) in order.iter().zip(&lacking) {
            if mix & missing == 0 {
                let free = target.due & !taken;
                let wanted_by =
                    |place: &u32| lacking.iter().filter(|it| *it >> place & 1 == 1).count();
                let choice =
                    (0..u32::BITS).filter(|place| free >> place & 1 == 1).max_by_key(wanted_by);
                mix |= choice.map_or(0, |place| 1 << place);
            }
            if mix & missing != 0 {
                taken |= missing;
            }
        }
        for (target, missing) in order.iter_mut().zip(&lacking) {
            if (mix & missing).count_ones() == 1 {
                target.due &= !mix;
            }
        }
        mix
    }
}

#[cfg(test)]
mod tests {
    use lockstep_proto::frame::coding::Shape;
    use lockstep_proto::frame::report::Readiness;
    use proptest::prelude::*;
    use std::vec;

    use super::super::tests::{sender_of_large, target};
    use super::*;

    /// Members that take blocks and lack these of the first generation.
    fn mending(missing: &[u32]) -> Sender {
        let mut sender = sender_of_large();
        for (index, &missing) in missing.iter().enumerate() {
            let mut target = target(u8::try_from(index).unwrap(), Shape::Large, &[missing]);
            target.due = target.misses(sender.cut, 0);
            sender.targets.push(target);
        }
        sender
    }

    fn due(sender: &Sender) -> Vec<u32> {
        sender.targets.iter().map(|target| target.due).collect()
    }

    #[test]
    fn members_that_lack_different_blocks_all_find_theirs_in_one_frame() {
        let mut sender = mending(&[0b001, 0b010, 0b100]);
        assert_eq!(sender.next_mix(0), 0b111);
        assert_eq!(due(&sender), [0, 0, 0]);
    }

    #[test]
    fn the_block_that_most_of_them_lack_goes_first() {
        let mut sender = mending(&[0b00011, 0b00101, 0b01000]);
        assert_eq!(sender.next_mix(0), 0b01001);
        assert_eq!(due(&sender), [0b00010, 0b00100, 0]);
        assert_eq!(sender.next_mix(0), 0b00110);
        assert_eq!(due(&sender), [0, 0, 0]);
    }

    /// It would find two that it lacks, and could take out neither.
    #[test]
    fn a_block_that_would_spoil_the_mix_for_another_stays_out() {
        let mut sender = mending(&[0b011, 0b010]);
        assert_eq!(sender.next_mix(0), 0b010);
        assert_eq!(due(&sender), [0b001, 0]);
        assert_eq!(sender.next_mix(0), 0b001);
        assert_eq!(due(&sender), [0, 0]);
    }

    #[test]
    fn nothing_is_mixed_for_whoever_is_busy_or_silent() {
        let mut sender = mending(&[0b001, 0b010, 0b100]);
        sender.targets[0].wants.readiness = Readiness::Busy;
        sender.targets[1].unanswered = u8::MAX;
        assert_eq!(sender.next_mix(0), 0b100);
    }

    proptest! {
        /// Nobody is left out, and no frame is of no use to anybody.
        #[test]
        fn everybody_finds_all_that_it_lacks(
            missing in prop::collection::vec(0_u32..1 << 28, 1..8),
        ) {
            let mut sender = mending(&missing);
            let mut left = missing.clone();
            while due(&sender).iter().any(|&due| due != 0) {
                let mix = sender.next_mix(0);
                let found: Vec<u32> = missing.iter().map(|missing| mix & missing).collect();
                let helped = left.iter_mut().zip(found).filter(|(_, it)| it.count_ones() == 1);
                let count = helped.map(|(left, found)| *left &= !found).count();
                prop_assert!(count > 0, "{mix:b} helps nobody");
            }
            prop_assert_eq!(left, vec![0; missing.len()]);
        }
    }
}
