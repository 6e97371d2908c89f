//! What is erased of a file that comes in blocks: all of its place before the first block is taken,
//! and again a generation that came out wrong.

use embedded_storage::nor_flash::NorFlash;

use super::{Blocks, Phase};
use crate::flash::{self, ERASE_BLOCK_BYTES, FlashFault, SECTOR_BYTES};
use crate::receiver::Flushed;
use crate::slot::Pace;

impl Blocks {
    /// Everything that is not whole: what an earlier boot may have written behind whole
    /// generations is erased again.
    pub(super) fn erasing_all(&self) -> Phase {
        let at = self.place.offset + self.in_order_bytes();
        let from = at - at % SECTOR_BYTES;
        Phase::Erasing { from, up_to: from, end: self.place.end().next_multiple_of(SECTOR_BYTES) }
    }

    /// The first generation that came out wrong is to be erased.
    pub(super) fn erasing_poisoned(&self) -> Option<Phase> {
        let place = (self.poisoned != 0).then(|| self.poisoned.trailing_zeros())?;
        let (from, end) = self.bounds_of(self.first.saturating_add(u16::try_from(place).ok()?));
        Some(Phase::Erasing { from, up_to: from, end: end.next_multiple_of(SECTOR_BYTES) })
    }

    /// What begins here is erased: if a generation was wrong there, it can come again.
    fn note_erased(&mut self, from: u32) {
        let at = from.saturating_sub(self.place.offset) / self.cut.shape.generation_bytes();
        let place = at.checked_sub(u32::from(self.first));
        self.poisoned &= !place.and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0);
    }

    pub(super) fn after_erasing(&mut self, from: u32, up_to: u32, end: u32) -> Flushed {
        if up_to < end {
            self.phase = Phase::Erasing { from, up_to, end };
            return Flushed::More;
        }
        self.note_erased(from);
        match self.erasing_poisoned() {
            Some(next) => {
                self.phase = next;
                Flushed::More
            }
            None => {
                self.phase = Phase::Open;
                Flushed::Open
            }
        }
    }
}

/// Erases the next part of what ends at `end`, and returns how far it is erased now.
pub(super) fn erase_step<F: NorFlash>(
    up_to: u32,
    end: u32,
    flash: &mut F,
    pace: Pace,
) -> Result<u32, FlashFault> {
    let next = match pace {
        Pace::Background { .. } => up_to + SECTOR_BYTES,
        Pace::Fast => (up_to + 1).next_multiple_of(ERASE_BLOCK_BYTES),
    };
    let next = next.min(end);
    flash::erase(flash, up_to, next)?;
    Ok(next)
}
