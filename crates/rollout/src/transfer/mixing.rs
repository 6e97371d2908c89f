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
