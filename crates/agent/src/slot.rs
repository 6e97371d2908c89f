//! Writing a file into a part of the flash, in order, and reading slots back.
//!
//! A `SlotWriter` does one thing to the flash per step, an erase or the write of a page, so that
//! whoever drives it decides how much of that an application has to bear at once. Whose bytes they
//! are, and whether they may be written at all, is decided before.

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::id::Sha256;
use lockstep_proto::image::{ImageError, ImageFacts, ImageReader, read_image};
use sha2::Digest as _;

use crate::flash::{
    self, ERASE_BLOCK_BYTES, FlashFault, PAGE_BYTES, Region, SECTOR_BYTES, bytes_u32,
};

/// How much of the flash's time staging may take, as the application grants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// One sector erase or page write per grant, and so long between two grants.
    Background {
        /// Pause between two operations.
        ms_between: u32,
    },
    /// The application is idle: everything at once, in 64 KiB erases.
    Fast,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Erased what comes next.
    Erased,
    /// Wrote so many bytes.
    Wrote(usize),
}

/// Writes a file from its start, or from where an earlier boot left off.
#[derive(Debug, Clone)]
pub(crate) struct SlotWriter {
    /// Where the file begins in flash.
    start: u32,
    /// Where the next byte goes.
    at: u32,
    /// Where the file ends.
    end: u32,
    /// Everything from the first sector of the file up to here has been erased or written.
    erased_up_to: u32,
}

impl SlotWriter {
    /// Goes on behind the first `done_bytes`, 0 or as many as end at a sector: what an earlier boot
    /// may have written behind them is erased again. Sectors are erased whole, so what stands
    /// before `start` in its sector goes too.
    pub(crate) const fn resume(start: u32, size_bytes: u32, done_bytes: u32) -> Self {
        let at = start.saturating_add(done_bytes);
        Self {
            start,
            at,
            end: start.saturating_add(size_bytes),
            erased_up_to: at - at % SECTOR_BYTES,
        }
    }

    /// Bytes of the file that are in flash.
    pub(crate) const fn written_bytes(&self) -> u32 {
        self.at - self.start
    }

    /// Erases, or writes a part of `bytes`, the next ones of the file. `bytes` must not be empty,
    /// and all but the last of a file are given in whole words.
    pub(crate) fn step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        bytes: &[u8],
        pace: Pace,
    ) -> Result<Step, FlashFault> {
        // Without a limit there is always a next sector.
        Ok(self.step_below(flash, bytes, pace, u32::MAX)?.unwrap_or(Step::Erased))
    }

    /// The same, and nothing at or behind `limit` is erased: somebody still needs it. `None`: the
    /// next sector reaches beyond it.
    pub(crate) fn step_below<F: NorFlash>(
        &mut self,
        flash: &mut F,
        bytes: &[u8],
        pace: Pace,
        limit: u32,
    ) -> Result<Option<Step>, FlashFault> {
        if self.at >= self.erased_up_to {
            let from = self.erased_up_to;
            let to = match pace {
                Pace::Background { .. } => from + SECTOR_BYTES,
                Pace::Fast => (from + 1)
                    .next_multiple_of(ERASE_BLOCK_BYTES)
                    .min(self.end.next_multiple_of(SECTOR_BYTES)),
            };
            let to = to.min(limit - limit % SECTOR_BYTES);
            if to <= from {
                return Ok(None);
            }
            flash::erase(flash, from, to)?;
            self.erased_up_to = to;
            return Ok(Some(Step::Erased));
        }
        let page_end = (self.at + 1).next_multiple_of(PAGE_BYTES);
        let length = bytes.len().min((page_end.min(self.erased_up_to) - self.at) as usize);
        let page = bytes.get(..length).unwrap_or_default();
        flash::write(flash, self.at, page)?;
        self.at += bytes_u32(length);
        Ok(Some(Step::Wrote(length)))
    }
}

/// Walks the image in a slot and checks all of it.
pub(crate) fn read_slot<F: ReadNorFlash>(
    flash: &mut F,
    slot: Region,
) -> Result<Result<ImageFacts, ImageError>, FlashFault> {
    read_image(slot.size_bytes, |offset, bytes| flash::read(flash, slot.offset + offset, bytes))
}

/// Reads a file of `size_bytes` back from the start of a slot and checks it as an image, padding
/// behind the image included.
pub(crate) fn read_file<F: ReadNorFlash>(
    flash: &mut F,
    slot: Region,
    size_bytes: u32,
) -> Result<Result<ImageFacts, ImageError>, FlashFault> {
    let mut reader = ImageReader::with_limit(slot.size_bytes);
    let read = for_each_piece(flash, slot.offset, size_bytes, |piece| reader.push(piece))?;
    Ok(read.and_then(|()| reader.finish()))
}

/// SHA-256 of `size_bytes` bytes from `offset` on.
pub(crate) fn sha256_of<F: ReadNorFlash>(
    flash: &mut F,
    offset: u32,
    size_bytes: u32,
) -> Result<Sha256, FlashFault> {
    let mut hasher = sha2::Sha256::new();
    let hashed = for_each_piece(flash, offset, size_bytes, |piece| {
        hasher.update(piece);
        Ok::<(), core::convert::Infallible>(())
    })?;
    let Ok(()) = hashed;
    Ok(Sha256(hasher.finalize().into()))
}

fn for_each_piece<F: ReadNorFlash, E>(
    flash: &mut F,
    offset: u32,
    size_bytes: u32,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, FlashFault> {
    let mut done = 0;
    while done < size_bytes {
        let mut piece = [0; CHUNK_BYTES as usize];
        let length = (size_bytes - done).min(CHUNK_BYTES);
        let piece = &mut piece[..length as usize];
        flash::read(flash, offset + done, piece)?;
        if let Err(error) = take(piece) {
            return Ok(Err(error));
        }
        done += length;
    }
    Ok(Ok(()))
}

/// Bytes read at once; a buffer of this length lies on the stack.
const CHUNK_BYTES: u32 = 1024;

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
