//! Generations of a file that comes in blocks, judged one by one as they become whole in flash.
//!
//! So a wrong block costs its generation, and nothing that was not judged counts as being there.
//! Without a list of hashes every generation counts that is whole, and the file is judged in the
//! end.

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::manifest::GenerationHash;

use super::{Blocks, Phase, Slot, bits};
use crate::flash::FlashFault;
use crate::package::GenerationList;
use crate::slot::sha256_of;

/// A generation that is in flash and is not what the manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Poisoned {
    pub(crate) generation: u16,
    pub(crate) found: GenerationHash,
    /// `None`: the list cannot be read any more.
    pub(crate) expected: Option<GenerationHash>,
}

impl Blocks {
    pub(in crate::receiver) const fn judge_by(&mut self, list: GenerationList) {
        self.list = Some(list);
    }

    /// Reads a whole generation back.
    pub(super) fn judge<F: NorFlash>(
        &self,
        generation: u16,
        flash: &mut F,
    ) -> Result<Option<Poisoned>, FlashFault> {
        let Some(list) = self.list else { return Ok(None) };
        let expected = list.read(generation, flash)?;
        let (from, end) = self.bounds_of(generation);
        let found = GenerationHash::front_of(&sha256_of(flash, from, end - from)?);
        Ok((expected != Some(found)).then_some(Poisoned { generation, found, expected }))
    }

    /// Nothing of a generation counts any more. Its blocks are refused, and not asked for, until
    /// its sectors are erased.
    pub(super) fn forget(&mut self, generation: u16) {
        let Some(place) = generation.checked_sub(self.first) else { return };
        if let Some(have) = self.have.get_mut(usize::from(place)) {
            *have = 0;
            self.poisoned |= 1 << place;
        }
        if self.mender.held_of(generation) > 0 {
            // They were made of what was wrong.
            let slots = self.mender.clear();
            bits(slots.into()).for_each(|at| self.set_slot(at, Slot::Free));
        }
    }

    pub(super) fn is_poisoned(&self, generation: u16) -> bool {
        let place = generation.checked_sub(self.first).map(u32::from);
        place.and_then(|place| self.poisoned.checked_shr(place)).is_some_and(|bits| bits & 1 == 1)
    }

    /// Something is to be erased, and now is the time: the sender waits for answers.
    pub(super) const fn may_erase(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.poisoned != 0 && self.is_quiet
    }

    /// Whoever asked knows that nothing is taken until it is told otherwise.
    pub(in crate::receiver) fn note_said(&mut self) {
        if self.may_erase()
            && let Some(erasing) = self.erasing_poisoned()
        {
            self.phase = erasing;
        }
    }

    /// Where a generation begins and ends in flash.
    pub(super) fn bounds_of(&self, generation: u16) -> (u32, u32) {
        let whole = self.cut.shape.generation_bytes();
        let from = u32::from(generation).saturating_mul(whole).min(self.cut.size_bytes);
        let end = from.saturating_add(whole).min(self.cut.size_bytes);
        (self.place.offset + from, self.place.offset + end)
    }
}
