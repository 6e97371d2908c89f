//! Repair frames of one generation, until there are enough of them to have every block that is
//! lacking.
//!
//! A repair frame is the XOR of many blocks. Those that are known drop out, and an equation for the
//! lacking ones remains. The equations are kept solved as far as they go (Gauss-Jordan over bits),
//! so that with the last one that is needed every equation is one block. Here is only which
//! equation is to be combined with which; the bytes are combined by whoever keeps them.

use lockstep_proto::frame::coding::REPAIRS_HELD_MAX;

/// Equations that are held, at most.
const HELD: usize = REPAIRS_HELD_MAX as usize;

#[derive(Debug, Clone)]
pub(super) struct Mender {
    generation: u16,
    /// The blocks that are lacking.
    missing: u128,
    rows: [Row; HELD],
    count: u8,
}

/// One equation.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// The lacking blocks in it: once there are enough equations, `pivot` alone.
    blocks: u128,
    /// A block that is in no other equation.
    pivot: u8,
    /// Where its bytes are.
    slot: u8,
}

/// What is to be done with the bytes of a new equation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Combination {
    /// First, the bytes in these slots are to be added to the new ones, as bits.
    pub(super) add: u64,
    /// Then the new ones are to be added to these.
    pub(super) add_to: u64,
}

impl Mender {
    pub(super) const fn new() -> Self {
        let none = Row { blocks: 0, pivot: 0, slot: 0 };
        Self { generation: 0, missing: 0, rows: [none; HELD], count: 0 }
    }

    /// Whether equations are held that are of no use for this generation while these blocks are
    /// lacking: they are of another one, or one of their blocks has come since.
    pub(super) const fn is_for_another(&self, generation: u16, missing: u128) -> bool {
        self.count > 0 && (self.generation != generation || self.missing != missing)
    }

    /// Whether a generation comes before the one of which equations are held.
    pub(super) const fn is_behind(&self, generation: u16) -> bool {
        self.count > 0 && generation < self.generation
    }

    /// Takes an equation over `mix` of which `missing` is lacking, whose bytes are to be kept in
    /// `slot`. `None`: it says nothing new, or there is no room.
    pub(super) fn take(
        &mut self,
        generation: u16,
        missing: u128,
        mix: u128,
        slot: u8,
    ) -> Option<Combination> {
        if self.count == 0 {
            (self.generation, self.missing) = (generation, missing);
        }
        let number = usize::from(self.count);
        let (held, free) = self.rows.split_at_mut_checked(number)?;
        let mut combination = Combination::default();
        let mut blocks = mix & missing;
        for row in held.iter().filter(|row| blocks_has(mix & missing, row.pivot)) {
            blocks ^= row.blocks;
            combination.add |= 1 << row.slot;
        }
        if blocks == 0 {
            return None;
        }
        let pivot = u8::try_from(blocks.trailing_zeros()).ok()?;
        *free.first_mut()? = Row { blocks, pivot, slot };
        for row in held.iter_mut().filter(|row| blocks_has(row.blocks, pivot)) {
            row.blocks ^= blocks;
            combination.add_to |= 1 << row.slot;
        }
        self.count += 1;
        Some(combination)
    }

    /// How many equations of this generation are held.
    pub(super) const fn held_of(&self, generation: u16) -> u8 {
        if self.generation == generation { self.count } else { 0 }
    }

    /// Once there are enough: the blocks of the generation and the slots that their bytes are in.
    /// Nothing is held afterwards.
    pub(super) fn take_solved(&mut self) -> Option<impl Iterator<Item = (u8, u8)> + use<>> {
        if self.count == 0 || self.missing.count_ones() != u32::from(self.count) {
            return None;
        }
        let count = usize::from(core::mem::take(&mut self.count));
        Some(self.rows.into_iter().take(count).map(|row| (row.pivot, row.slot)))
    }

    /// Gives up what is held, and says where that was, as bits.
    pub(super) fn clear(&mut self) -> u64 {
        let count = usize::from(core::mem::take(&mut self.count));
        self.rows.iter().take(count).fold(0, |slots, row| slots | 1 << row.slot)
    }
}

const fn blocks_has(blocks: u128, block: u8) -> bool {
    blocks >> block & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use lockstep_proto::frame::block::Session;
    use lockstep_proto::frame::coding::{Cut, Shape};

    use super::*;

    /// As many frames as are lacking and a few more bring every block, whichever are lacking.
    #[test]
    fn whatever_is_lacking_comes_out_of_hardly_more_frames_than_that() {
        let cut = Cut { shape: Shape::Small, size_bytes: 28_672 };
        let content: Vec<u64> = (0..128_u64).map(|block| block.wrapping_mul(0x9E37_79B9)).collect();
        let mut spare = 0;
        for (turn, lacking) in [1, 2, 7, 13, 40, 56].into_iter().enumerate() {
            let missing = (0..lacking).fold(0, |set, i| set | 1_u128 << (i * 37 % 128));
            let mut mender = Mender::new();
            let mut slots = vec![0_u64; HELD];
            let mut taken = 0;
            let seeds = (0..).map(|seed| seed + u32::try_from(turn).unwrap() * 1000);
            for seed in seeds.take(lacking + 20) {
                let mix = cut.mix(Session(5), 0, seed);
                let slot = mender.count;
                let Some(combination) = mender.take(0, missing, mix, slot) else {
                    spare += 1;
                    continue;
                };
                let known = mix & !missing;
                let mixed = |set: u128| {
                    (0..128).filter(|i| set >> i & 1 == 1).fold(0, |sum, i| sum ^ content[i])
                };
                let new = mixed(mix) ^ mixed(known);
                let of = |set: u64| (0..HELD).filter(move |i| set >> i & 1 == 1);
                let new = of(combination.add).fold(new, |sum, i| sum ^ slots[i]);
                slots[usize::from(slot)] = new;
                of(combination.add_to).for_each(|i| slots[i] ^= new);
                taken += 1;
                if taken == lacking {
                    break;
                }
            }
            let solved: Vec<_> = mender.take_solved().unwrap().collect();
            assert_eq!(solved.len(), lacking);
            for (block, slot) in solved {
                assert!(missing >> block & 1 == 1, "{block} was not lacking");
                assert_eq!(slots[usize::from(slot)], content[usize::from(block)]);
            }
            assert_eq!(mender.held_of(0), 0);
        }
        assert!(spare <= 12, "{spare} frames said nothing new");
    }

    #[test]
    fn a_frame_that_comes_twice_says_nothing_new() {
        let mut mender = Mender::new();
        assert!(mender.take(3, 0b1111, 0b0110, 0).is_some());
        assert_eq!(mender.take(3, 0b1111, 0b0110, 1), None);
        assert_eq!(mender.take(3, 0b1111, 0b1_0000, 1), None, "a block that is known");
        assert_eq!(mender.held_of(3), 1);
        assert_eq!(mender.held_of(4), 0);
        assert!(mender.is_for_another(4, 0b1111));
        assert!(mender.is_for_another(3, 0b0111), "a block has come since");
        assert!(!mender.is_for_another(3, 0b1111));
        assert_eq!(mender.clear(), 0b1);
        assert!(!mender.is_for_another(4, 1));
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let mut mender = Mender::new();
        for block in 0..REPAIRS_HELD_MAX {
            assert!(mender.take(0, u128::MAX, 1 << block, block).is_some());
        }
        assert_eq!(mender.take(0, u128::MAX, 1 << 100, 60), None);
    }
}
