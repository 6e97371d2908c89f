//! A file that comes in blocks over the radio: some get lost, and repair frames mend that.
//!
//! ```text
//! Head ──all of it─► Judging ──found good──► Erasing ──all of it──► Open ──every block──► Complete
//! ```
//!
//! All of the place is erased before the first block is taken, since a chip hears nothing while it
//! erases. From then on every block goes straight to where it belongs, in whatever order they come;
//! writing one takes less time than its frame took in the air. What stays in memory are the repair
//! frames of one generation, until they are enough.
//!
//! A generation that is whole in flash is read back and compared with its hash, if there is one. It
//! counts only if it is right; else it is forgotten: its sectors are erased again when the sender
//! has asked what is lacking, and so sends nothing.

use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::block::{Block, Repair};
use lockstep_proto::frame::coding::{Cut, GENERATIONS_OPEN, REPAIRS_HELD_MAX, Shape};

mod erasing;
mod judging;
mod telling;

pub(crate) use judging::Poisoned;

use super::mender::{Combination, Mender};
use super::{Dropped, Flushed, Taken};
use crate::flash::{self, FlashFault, PAGE_BYTES, Region, bytes_u32};
use crate::package::GenerationList;
use crate::slot::Pace;

/// Room for blocks until the flash is granted, and for repair frames until they are enough.
pub(super) const MEMORY_BYTES: usize = SLOTS * block_len(Shape::Small);
/// As many small repair frames as every member can hold, and some blocks that wait.
const SLOTS: usize = REPAIRS_HELD_MAX as usize + 2;
const OPEN: usize = GENERATIONS_OPEN as usize;

#[derive(Debug, Clone)]
pub(super) struct Blocks {
    cut: Cut,
    place: Region,
    phase: Phase,
    /// The first generation that is not whole in flash.
    first: u16,
    /// Of it and those behind it: which blocks are there, as bits.
    have: [u128; OPEN],
    /// Whether the object may come in large blocks.
    takes_large: bool,
    /// What each slot of the memory is for; of large ones there are fewer.
    slots: [Slot; SLOTS],
    /// Which of them wait for the flash, as bits: asked after every frame.
    waiting: u64,
    mender: Mender,
    /// Everybody was asked since the last repair frame: the next one may be of any generation.
    is_round_over: bool,
    /// Where the hashes of the generations are.
    list: Option<GenerationList>,
    /// Of the first generation and those behind it: which came out wrong and are not erased yet.
    poisoned: u64,
    /// Everybody was asked, and nothing was sent since.
    is_quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first blocks of an image; bit `i`: block `i` is there.
    Head { have: u8 },
    /// The head is there and waits for a judgement.
    Judging,
    /// Everything between these is to be erased, and is up to here.
    Erasing { from: u32, up_to: u32, end: u32 },
    /// Blocks are taken.
    Open,
    /// All of the file is in flash.
    Complete,
}

/// A part of the memory as long as a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// A block that is not in flash yet, but for its first bytes.
    Waits {
        index: u16,
        written_bytes: u16,
    },
    /// A repair frame, combined with others.
    Mends,
}

impl Blocks {
    pub(super) fn new(place: Region, done_bytes: u32, has_head: bool, takes_large: bool) -> Self {
        let cut = Cut { shape: Shape::Small, size_bytes: place.size_bytes };
        let first = done_bytes / cut.shape.generation_bytes();
        let mut blocks = Self {
            cut,
            place,
            phase: Phase::Head { have: 0 },
            first: u16::try_from(first).unwrap_or(u16::MAX),
            have: [0; OPEN],
            takes_large,
            slots: [Slot::Free; SLOTS],
            waiting: 0,
            mender: Mender::new(),
            is_round_over: false,
            list: None,
            poisoned: 0,
            is_quiet: false,
        };
        if done_bytes >= place.size_bytes {
            blocks.phase = Phase::Complete;
            blocks.first = u16::try_from(cut.generations()).unwrap_or(u16::MAX);
        } else if !has_head {
            blocks.phase = blocks.erasing_all();
        }
        blocks
    }

    pub(super) fn take_block(&mut self, block: &Block<'_>, memory: &mut [u8]) -> Taken {
        self.is_quiet = false;
        if !self.may_take(block.shape) {
            return Taken::Dropped(Dropped::Unwanted);
        }
        let index = u32::from(block.index);
        let cut = Cut { shape: block.shape, ..self.cut };
        let Some((_, len_bytes)) = cut.block(index) else {
            return Taken::Dropped(Dropped::OutOfRange);
        };
        if bytes_u32(block.payload.len()) != len_bytes {
            return Taken::Dropped(Dropped::Length);
        }
        self.adopt(block.shape);
        match self.phase {
            Phase::Head { have } => self.take_head(have, block, memory),
            Phase::Open => {
                let whole = self.cut.shape.generation_blocks();
                match self.missing_of(block.index / whole) {
                    Some(_) if self.is_poisoned(block.index / whole) => {
                        Taken::Dropped(Dropped::Busy)
                    }
                    None => Taken::Dropped(Dropped::OutOfRange),
                    Some(missing) if missing >> (block.index % whole) & 1 == 0 => {
                        Taken::Dropped(Dropped::Known)
                    }
                    Some(_) => self.wait(block.index, block.payload, memory),
                }
            }
            Phase::Judging | Phase::Erasing { .. } => Taken::Dropped(Dropped::Busy),
            Phase::Complete => Taken::Dropped(Dropped::Known),
        }
    }

    /// Whether blocks of this shape could be taken now.
    fn may_take(&self, shape: Shape) -> bool {
        let may_change = matches!(self.phase, Phase::Head { .. } | Phase::Open);
        let takes = shape == Shape::Small || self.takes_large;
        shape == self.cut.shape || (takes && may_change)
    }

    /// The sender says how the object is cut. What is whole stays so in every shape; all else is
    /// begun anew, since that it came in the other shape is not worth remembering.
    fn adopt(&mut self, shape: Shape) {
        if shape == self.cut.shape {
            return;
        }
        self.cut.shape = shape;
        self.have = [0; OPEN];
        self.slots = [Slot::Free; SLOTS];
        self.waiting = 0;
        self.mender.clear();
        if let Phase::Head { have } = &mut self.phase {
            *have = 0;
        }
    }

    fn take_head(&mut self, have: u8, block: &Block<'_>, memory: &mut [u8]) -> Taken {
        if block.index >= self.cut.shape.head_blocks() {
            return Taken::Dropped(Dropped::OutOfRange);
        }
        if have >> block.index & 1 == 1 {
            return Taken::Dropped(Dropped::Known);
        }
        self.store(memory, block.index.into(), block.payload);
        let have = have | 1 << block.index;
        let wanted = self.blocks_of_head();
        if u32::from(have).trailing_ones() < u32::from(wanted) {
            self.phase = Phase::Head { have };
            return Taken::Stored;
        }
        self.phase = Phase::Judging;
        Taken::Head
    }

    /// A block that is lacking: it waits for the flash.
    fn wait(&mut self, index: u16, payload: &[u8], memory: &mut [u8]) -> Taken {
        let Some(at) = self.free_slot() else { return Taken::Dropped(Dropped::Busy) };
        self.store(memory, at, payload);
        self.set_slot(at, Slot::Waits { index, written_bytes: 0 });
        self.note_have(index);
        Taken::Window
    }

    pub(super) fn take_repair<F: NorFlash>(
        &mut self,
        repair: &Repair<'_>,
        flash: &mut F,
        memory: &mut [u8],
    ) -> Result<Taken, FlashFault> {
        self.is_quiet = false;
        let generation = repair.generation;
        let dropped = |why| Ok(Taken::Dropped(why));
        if self.phase != Phase::Open || repair.shape != self.cut.shape {
            return dropped(Dropped::Unwanted);
        }
        let missing = match self.missing_of(generation) {
            None => return dropped(Dropped::OutOfRange),
            Some(0) => return dropped(Dropped::Known),
            Some(_) if self.is_poisoned(generation) => return dropped(Dropped::Busy),
            // So many could not be held until they are enough: the blocks themselves will come.
            Some(missing)
                if self.cut.shape == Shape::Small
                    && missing.count_ones() > u32::from(REPAIRS_HELD_MAX) =>
            {
                return dropped(Dropped::Busy);
            }
            Some(missing) => missing,
        };
        if repair.payload.len() != self.block_len() {
            return dropped(Dropped::Length);
        }
        let mix = self.cut.mix(repair.session, generation, repair.named);
        if self.cut.shape == Shape::Large {
            return self.find_in(generation, missing, mix, repair.payload, flash, memory);
        }
        if self.mender.is_for_another(generation, missing) {
            if self.mender.is_behind(generation) && !self.is_round_over {
                // It was overtaken by those of the generation behind it, which are kept.
                return dropped(Dropped::Known);
            }
            let slots = self.mender.clear();
            bits(slots.into()).for_each(|at| self.set_slot(at, Slot::Free));
        }
        self.is_round_over = false;
        let Some(at) = self.free_slot() else { return dropped(Dropped::Busy) };
        let taken = self.mender.take(generation, missing, mix, u8::try_from(at).unwrap_or(0));
        let Some(Combination { add, add_to }) = taken else { return dropped(Dropped::Known) };
        self.store(memory, at, repair.payload);
        self.set_slot(at, Slot::Mends);
        self.add_known(generation, mix & !missing, at, flash, memory)?;
        bits(add.into()).for_each(|from| self.add_slot(memory, from, at));
        bits(add_to.into()).for_each(|to| self.add_slot(memory, at, to));
        Ok(self.after_mending(generation))
    }

    /// A mix of large blocks is of use if one of them is lacking, and only one.
    fn find_in<F: NorFlash>(
        &mut self,
        generation: u16,
        missing: u128,
        mix: u128,
        payload: &[u8],
        flash: &mut F,
        memory: &mut [u8],
    ) -> Result<Taken, FlashFault> {
        let lacking = mix & missing;
        if lacking.count_ones() != 1 {
            return Ok(Taken::Dropped(Dropped::Known));
        }
        let Some(at) = self.free_slot() else { return Ok(Taken::Dropped(Dropped::Busy)) };
        self.store(memory, at, payload);
        self.add_known(generation, mix & !missing, at, flash, memory)?;
        let place = u16::try_from(lacking.trailing_zeros()).unwrap_or(0);
        let index = generation.saturating_mul(self.cut.shape.generation_blocks()) + place;
        self.set_slot(at, Slot::Waits { index, written_bytes: 0 });
        self.note_have(index);
        Ok(Taken::Window)
    }

    /// The sender begins anew with the first generation that anybody lacks something of.
    pub(super) const fn note_round_over(&mut self) {
        (self.is_round_over, self.is_quiet) = (true, true);
    }

    /// Adds blocks that are there to a repair frame, so that they drop out of it.
    fn add_known<F: NorFlash>(
        &self,
        generation: u16,
        known: u128,
        slot: usize,
        flash: &mut F,
        memory: &mut [u8],
    ) -> Result<(), FlashFault> {
        let base = generation.saturating_mul(self.cut.shape.generation_blocks());
        // Which slot holds a block that is not in flash yet, by its place in the generation.
        let mut slot_of = [None; u128::BITS as usize];
        for (at, held) in self.slots.iter().enumerate() {
            if let Slot::Waits { index, .. } = *held
                && let Some(slot) = slot_of.get_mut(usize::from(index.wrapping_sub(base)))
            {
                *slot = Some(at);
            }
        }
        for place in bits(known) {
            let index = base + u16::try_from(place).unwrap_or(0);
            let Some((offset, len_bytes)) = self.cut.block(index.into()) else { continue };
            match slot_of.get(place).copied().flatten() {
                Some(at) => self.add_slot(memory, at, slot),
                None => self.add_flash(offset, len_bytes, slot, flash, memory)?,
            }
        }
        Ok(())
    }

    /// Adds bytes of the object that are in flash to those in a slot.
    fn add_flash<F: NorFlash>(
        &self,
        offset: u32,
        len_bytes: u32,
        slot: usize,
        flash: &mut F,
        memory: &mut [u8],
    ) -> Result<(), FlashFault> {
        let frame = memory.get_mut(self.bytes_of(slot)).unwrap_or_default();
        let frame = frame.get_mut(..len_bytes as usize).unwrap_or_default();
        let mut at = self.place.offset + offset;
        // A whole large block would be much for a stack.
        for frame in frame.chunks_mut(PIECE_BYTES) {
            let mut piece = [0; PIECE_BYTES];
            let piece = piece.get_mut(..frame.len()).unwrap_or_default();
            flash::read(flash, at, piece)?;
            frame.iter_mut().zip(piece).for_each(|(into, byte)| *into ^= *byte);
            at += bytes_u32(frame.len());
        }
        Ok(())
    }

    /// With enough repair frames each of them is a block that waits for the flash.
    fn after_mending(&mut self, generation: u16) -> Taken {
        let base = generation.saturating_mul(self.cut.shape.generation_blocks());
        let Some(solved) = self.mender.take_solved() else { return Taken::Stored };
        for (block, slot) in solved {
            let index = base + u16::from(block);
            self.note_have(index);
            self.set_slot(slot.into(), Slot::Waits { index, written_bytes: 0 });
        }
        Taken::Window
    }

    fn free_slot(&self) -> Option<usize> {
        let count = MEMORY_BYTES / self.block_len();
        self.slots.iter().take(count).position(|slot| *slot == Slot::Free)
    }

    const fn block_len(&self) -> usize {
        block_len(self.cut.shape)
    }

    /// Where a slot's bytes are in the memory.
    const fn bytes_of(&self, slot: usize) -> Range<usize> {
        let start = slot * self.block_len();
        start..start + self.block_len()
    }

    /// The last block of an object is shorter, and counts as filled up with zeros.
    fn store(&self, memory: &mut [u8], slot: usize, payload: &[u8]) {
        let place = memory.get_mut(self.bytes_of(slot)).unwrap_or_default();
        let bytes = payload.iter().copied().chain(core::iter::repeat(0));
        place.iter_mut().zip(bytes).for_each(|(into, byte)| *into = byte);
    }

    /// Adds the bytes in one slot to those in another.
    fn add_slot(&self, memory: &mut [u8], from: usize, to: usize) {
        let (from, to) = (self.bytes_of(from), self.bytes_of(to));
        for (from, to) in from.zip(to) {
            let added = memory.get(from).copied().unwrap_or_default();
            if let Some(byte) = memory.get_mut(to) {
                *byte ^= added;
            }
        }
    }

    /// How many blocks the head has.
    fn blocks_of_head(&self) -> u16 {
        let blocks = u16::try_from(self.cut.blocks()).unwrap_or(u16::MAX);
        blocks.min(self.cut.shape.head_blocks())
    }

    fn set_slot(&mut self, at: usize, slot: Slot) {
        let Some(place) = self.slots.get_mut(at) else { return };
        *place = slot;
        match slot {
            Slot::Waits { .. } => self.waiting |= 1 << at,
            Slot::Free | Slot::Mends => self.waiting &= !(1 << at),
        }
    }

    /// Whether none of it has come this way, and the flash is as it was.
    pub(super) const fn is_untouched(&self) -> bool {
        matches!(self.phase, Phase::Head { have: 0 } | Phase::Complete)
    }

    /// Length of the head, while it waits for a judgement.
    pub(super) fn head_bytes(&self) -> usize {
        let head_bytes = u32::from(self.cut.shape.head_blocks()) * self.cut.shape.block_bytes();
        let length = self.cut.size_bytes.min(head_bytes) as usize;
        if self.phase == Phase::Judging { length } else { 0 }
    }

    /// The place is erased next, and what is there of the file waits for that.
    pub(super) fn accept_head(&mut self) -> Taken {
        if self.phase != Phase::Judging {
            return Taken::Dropped(Dropped::Unwanted);
        }
        self.phase = self.erasing_all();
        if self.first > 0 {
            // It was in flash already, and was only judged once more.
            return Taken::Window;
        }
        for index in 0..self.blocks_of_head() {
            self.note_have(index);
            self.set_slot(index.into(), Slot::Waits { index, written_bytes: 0 });
        }
        Taken::Window
    }

    pub(super) fn is_flushing(&self) -> bool {
        match self.phase {
            Phase::Erasing { .. } => true,
            Phase::Open => self.waiting != 0,
            Phase::Head { .. } | Phase::Judging | Phase::Complete => false,
        }
    }

    pub(super) const fn is_erasing(&self) -> bool {
        matches!(self.phase, Phase::Erasing { .. })
    }

    fn first_waiting(&self) -> Option<(usize, u16, u16)> {
        let at = self.waiting.trailing_zeros() as usize;
        match *self.slots.get(at)? {
            Slot::Waits { index, written_bytes } => Some((at, index, written_bytes)),
            Slot::Free | Slot::Mends => None,
        }
    }

    pub(super) fn flush_step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        pace: Pace,
        memory: &[u8],
    ) -> Result<Flushed, FlashFault> {
        match self.phase {
            Phase::Erasing { from, up_to, end } => {
                let up_to = erasing::erase_step(up_to, end, flash, pace)?;
                Ok(self.after_erasing(from, up_to, end))
            }
            Phase::Open => self.write_step(flash, memory),
            Phase::Head { .. } | Phase::Judging | Phase::Complete => Ok(Flushed::Nothing),
        }
    }

    /// Writes what is left of a block in memory, as far as it lies in one page.
    fn write_step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        memory: &[u8],
    ) -> Result<Flushed, FlashFault> {
        let Some((slot, index, written_bytes)) = self.first_waiting() else {
            return Ok(Flushed::Nothing);
        };
        let (offset, len_bytes) = self.cut.block(index.into()).unwrap_or_default();
        let at = self.place.offset + offset + u32::from(written_bytes);
        let left_bytes = len_bytes.saturating_sub(written_bytes.into());
        let length = left_bytes.min((at + 1).next_multiple_of(PAGE_BYTES) - at);
        let bytes = memory.get(self.bytes_of(slot)).unwrap_or_default();
        let bytes = bytes.get(usize::from(written_bytes)..).unwrap_or_default();
        let bytes = bytes.get(..length as usize).unwrap_or_default();
        flash::write(flash, at, bytes)?;
        if length < left_bytes {
            let written_bytes = written_bytes + u16::try_from(length).unwrap_or(0);
            self.set_slot(slot, Slot::Waits { index, written_bytes });
            return Ok(Flushed::More);
        }
        self.set_slot(slot, Slot::Free);
        let generation = index / self.cut.shape.generation_blocks();
        if self.is_whole(generation)
            && let Some(poisoned) = self.judge(generation, flash)?
        {
            self.forget(generation);
            return Ok(Flushed::Poisoned(poisoned));
        }
        Ok(self.advance())
    }

    /// Goes on behind the generations that are whole in flash.
    fn advance(&mut self) -> Flushed {
        let before = self.first;
        while self.is_whole(self.first) {
            self.first += 1;
            self.poisoned >>= 1;
            self.have.rotate_left(1);
            if let Some(last) = self.have.last_mut() {
                *last = 0;
            }
        }
        if u32::from(self.first) >= self.cut.generations() {
            self.phase = Phase::Complete;
            return Flushed::File;
        }
        if self.first > before { Flushed::Window } else { Flushed::More }
    }

    fn is_whole(&self, generation: u16) -> bool {
        let whole = self.cut.shape.generation_blocks();
        let waits = |slot: &Slot| match *slot {
            Slot::Waits { index, .. } => index / whole == generation,
            Slot::Free | Slot::Mends => false,
        };
        self.missing_of(generation) == Some(0) && !self.slots.iter().any(waits)
    }

    /// Which blocks of a generation are lacking, as bits; `None` if it is not open.
    fn missing_of(&self, generation: u16) -> Option<u128> {
        if self.cut.blocks_of(generation) == 0 {
            return None;
        }
        let place = generation.checked_sub(self.first)?;
        let have = self.have.get(usize::from(place))?;
        Some(self.cut.all_of(generation) & !have)
    }

    fn note_have(&mut self, index: u16) {
        let whole = self.cut.shape.generation_blocks();
        let place = (index / whole).checked_sub(self.first).map(usize::from);
        if let Some(have) = place.and_then(|place| self.have.get_mut(place)) {
            *have |= 1 << (index % whole);
        }
    }

    /// Bytes that are in flash without a gap.
    pub(super) fn in_order_bytes(&self) -> u32 {
        let whole = u32::from(self.first).saturating_mul(self.cut.shape.generation_bytes());
        whole.min(self.cut.size_bytes)
    }
}

const fn block_len(shape: Shape) -> usize {
    shape.block_bytes() as usize
}

/// The numbers of the bits that are set.
fn bits(mut set: u128) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}

/// Blocks are read from flash in such pieces.
const PIECE_BYTES: usize = 256;

const _: () = assert!(SLOTS <= u64::BITS as usize);
const _: () = assert!(OPEN <= u64::BITS as usize);
// Large blocks are written in the time that the next one takes in the air: a few may wait.
const _: () = assert!(MEMORY_BYTES / block_len(Shape::Large) >= 4);
