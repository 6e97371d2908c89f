//! How an object is cut for the air, and what a repair frame is made of.
//!
//! An object is cut into *blocks*, blocks into *generations*. Every block is sent once; what gets
//! lost is mended by *repair frames*, each the XOR of several blocks of one generation, so that one
//! frame mends different losses at different members.
//!
//! Of small blocks a repair frame mixes half of the generation at random, and a seed of two bytes
//! names them. A member that lacks `n` blocks needs any `n` frames that are independent of each
//! other, whichever blocks it lacks: all that it has to say is a number, which suits any number of
//! members.
//!
//! Of large blocks a member could hold few such frames, and each is long. So members say which
//! blocks they lack, and a repair frame mixes, by a map of four bytes, one block that one member
//! lacks with those that others lack: each of them finds its block in it at once. That suits a few
//! members.

use super::block::Session;

/// How an object is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Blocks of 224 bytes, 128 to a generation: for frames of ESP-NOW version 1.
    #[default]
    Small,
    /// Blocks of 1,024 bytes, 28 to a generation: for frames of ESP-NOW version 2.
    Large,
}

impl Shape {
    /// Bytes of every block but the last of an object. A multiple of what any flash writes at once.
    pub const fn block_bytes(self) -> u32 {
        match self {
            Self::Small => 224,
            Self::Large => 1024,
        }
    }

    /// Blocks of every generation but the last of an object; at most [`GENERATION_BLOCKS_MAX`].
    pub const fn generation_blocks(self) -> u16 {
        match self {
            Self::Small => 128,
            Self::Large => 28,
        }
    }

    /// Bytes of every generation but the last of an object: whole sectors, and the same for every
    /// shape, so that a transfer goes on in another one where it was.
    pub const fn generation_bytes(self) -> u32 {
        self.block_bytes() * self.generation_blocks() as u32
    }

    /// The first blocks of an image, which are judged before anything is erased: they hold its
    /// header and what it says of itself.
    pub const fn head_blocks(self) -> u16 {
        match self {
            Self::Small => 3,
            Self::Large => 1,
        }
    }
}

/// An object of a known size, cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How it is cut.
    pub shape: Shape,
    /// Its size in bytes.
    pub size_bytes: u32,
}

impl Cut {
    /// How many blocks it has.
    pub const fn blocks(&self) -> u32 {
        self.size_bytes.div_ceil(self.shape.block_bytes())
    }

    /// How many generations it has.
    pub const fn generations(&self) -> u32 {
        self.size_bytes.div_ceil(self.shape.generation_bytes())
    }

    /// Where a block begins and how long it is, in bytes; `None` if there is no such block.
    pub fn block(&self, index: u32) -> Option<(u32, u32)> {
        let offset = index.checked_mul(self.shape.block_bytes())?;
        let left = self.size_bytes.checked_sub(offset).filter(|&left| left > 0)?;
        Some((offset, left.min(self.shape.block_bytes())))
    }

    /// How many blocks a generation has: 0 if there is no such generation.
    pub fn blocks_of(&self, generation: u16) -> u16 {
        let whole = self.shape.generation_blocks();
        let left = self.blocks().saturating_sub(u32::from(generation) * u32::from(whole));
        u16::try_from(left).unwrap_or(whole).min(whole)
    }

    /// A bit for each block of a generation.
    pub fn all_of(&self, generation: u16) -> u128 {
        low_bits(self.blocks_of(generation))
    }

    /// Which blocks of a generation the repair frame that says `named` is the XOR of: bit `i` is
    /// its `i`-th block. Shorter blocks count as filled up with zeros.
    ///
    /// Large blocks: `named` has those bits. Small ones: it is a seed of 16 bits, for half of them
    /// at random, but all of them for seed 0.
    pub fn mix(&self, session: Session, generation: u16, named: u32) -> u128 {
        let all = self.all_of(generation);
        let seed = match self.shape {
            Shape::Large => return u128::from(named) & all,
            Shape::Small if named == 0 => return all,
            Shape::Small => named & 0xFFFF,
        };
        let name = u64::from(session.0) << 32 | u64::from(generation) << 16 | u64::from(seed);
        let drawn = u128::from(scramble(name)) << 64 | u128::from(scramble(!name));
        match drawn & all {
            0 => all,
            mix => mix,
        }
    }
}

/// The lowest `count` bits, at most all of them.
const fn low_bits(count: u16) -> u128 {
    if count >= GENERATION_BLOCKS_MAX { u128::MAX } else { (1 << count) - 1 }
}

/// The finalizer of `splitmix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014): every bit of the result depends on every bit of `name`. Part of the format.
const fn scramble(name: u64) -> u64 {
    let mut bits = name.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

/// As many blocks as a mix tells apart.
pub const GENERATION_BLOCKS_MAX: u16 = 128;
/// Repair frames of one generation of small blocks that every member can hold until they are
/// enough. Whoever lacks more is sent the blocks themselves.
pub const REPAIRS_HELD_MAX: u8 = 56;
/// Generations, from its first incomplete one on, of which a member takes blocks.
pub const GENERATIONS_OPEN: u16 = 50;
/// The longest block of any shape, in bytes.
pub const BLOCK_BYTES_MAX: usize = Shape::Large.block_bytes() as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_whole_sectors_and_tell_all_their_blocks_apart() {
        for shape in [Shape::Small, Shape::Large] {
            assert!(shape.generation_bytes().is_multiple_of(4096), "{shape:?}");
            assert!(shape.generation_blocks() <= GENERATION_BLOCKS_MAX);
            assert!(shape.block_bytes().is_multiple_of(32), "encrypted flash writes 32 bytes");
            assert_eq!(shape.generation_bytes(), 28_672, "a transfer may change its shape");
            assert!(u32::from(shape.head_blocks()) * shape.block_bytes() >= 672);
        }
    }

    #[test]
    fn the_last_generation_and_the_last_block_are_as_long_as_what_is_left() {
        let cut = Cut { shape: Shape::Small, size_bytes: 28_672 + 225 };
        assert_eq!((cut.generations(), cut.blocks()), (2, 130));
        assert_eq!([cut.blocks_of(0), cut.blocks_of(1), cut.blocks_of(2)], [128, 2, 0]);
        assert_eq!(cut.block(129), Some((28_896, 1)));
        assert_eq!(cut.block(130), None);
        assert_eq!(cut.all_of(1), 0b11);
        assert_eq!(cut.all_of(0), u128::MAX);
    }

    /// Members and leads of any version must agree on these.
    #[test]
    fn which_blocks_a_seed_mixes_is_frozen() {
        let cut = Cut { shape: Shape::Small, size_bytes: 100_000 };
        let mix = |generation, seed| cut.mix(Session(0x0102_0304), generation, seed);
        assert_eq!(mix(0, 0), u128::MAX);
        // The first number of `splitmix64` with seed 0, in every implementation.
        assert_eq!(scramble(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0, 1), 0x21dd_1b4f_516b_4a18_195a_3d54_8104_3397);
        assert_eq!(mix(3, 1), 0x592c_b802_e8b3_fd4f);
    }

    #[test]
    fn a_mix_has_about_half_of_the_blocks_and_only_blocks_that_exist() {
        let cut = Cut { shape: Shape::Small, size_bytes: 28_672 + 224 * 40 };
        let mut ones = 0;
        for seed in 1..=200 {
            let mix = cut.mix(Session(9), 1, seed);
            assert_eq!(mix & !cut.all_of(1), 0);
            ones += mix.count_ones();
        }
        assert!((3_600..4_400).contains(&ones), "{ones} of 8000");
    }
}
