//! A file that comes in order, from an upload: window by window.
//!
//! A window is collected in memory; when it is full it is brought into flash, and only then is the
//! next one taken. So everything before a window is in flash, and whoever sends is held up exactly
//! as long as the flash takes.

use embedded_storage::nor_flash::NorFlash;

use super::{Dropped, Flushed, HEAD_BYTES, Taken};
use crate::flash::{FlashFault, Region, bytes_u32};
use crate::slot::{Pace, SlotWriter, Step};

/// The longest window.
pub(super) const WINDOW_BYTES: u32 = 7_168;

#[derive(Debug, Clone)]
pub(super) struct Stream {
    size_bytes: u32,
    writer: SlotWriter,
    phase: Phase,
    /// Where the window begins in the file.
    base_bytes: u32,
    /// How long it is.
    window_bytes: u32,
    /// So much of it is there.
    filled_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first bytes of an image.
    Head,
    /// The head is there and waits for a judgement.
    Judging,
    /// A window.
    Filling,
    /// The window is full; so many of its bytes are in flash.
    Flushing { done_bytes: u32 },
    /// All of the file is in flash.
    Complete,
}

impl Stream {
    pub(super) fn new(place: Region, done_bytes: u32, has_head: bool) -> Self {
        let mut stream = Self {
            size_bytes: place.size_bytes,
            writer: SlotWriter::resume(place.offset, place.size_bytes, done_bytes),
            phase: Phase::Filling,
            base_bytes: done_bytes,
            window_bytes: 0,
            filled_bytes: 0,
        };
        if done_bytes >= place.size_bytes {
            stream.phase = Phase::Complete;
        } else if done_bytes == 0 && has_head {
            stream.open_window(HEAD_BYTES);
            stream.phase = Phase::Head;
        } else {
            stream.open_window(WINDOW_BYTES);
        }
        stream
    }

    pub(super) fn take(&mut self, offset: u32, bytes: &[u8], memory: &mut [u8]) -> Taken {
        match self.phase {
            Phase::Head | Phase::Filling if offset == self.accepted_bytes() => {}
            Phase::Judging | Phase::Flushing { .. } => return Taken::Dropped(Dropped::Busy),
            _ => return Taken::Dropped(Dropped::OutOfRange),
        }
        let start = self.filled_bytes as usize;
        let room = (self.window_bytes - self.filled_bytes) as usize;
        let taken = bytes.len().min(room);
        if let (Some(place), Some(bytes)) =
            (memory.get_mut(start..start + taken), bytes.get(..taken))
        {
            place.copy_from_slice(bytes);
        }
        self.filled_bytes += bytes_u32(taken);
        self.on_filled()
    }

    /// Length of the head, while it waits for a judgement.
    pub(super) fn head_bytes(&self) -> usize {
        if self.phase == Phase::Judging { self.window_bytes as usize } else { 0 }
    }

    /// The window grows to its full size.
    pub(super) fn accept_head(&mut self) -> Taken {
        if self.phase != Phase::Judging {
            return Taken::Dropped(Dropped::Unwanted);
        }
        let filled_bytes = self.filled_bytes;
        self.open_window(WINDOW_BYTES);
        self.filled_bytes = filled_bytes;
        self.on_filled()
    }

    pub(super) const fn is_flushing(&self) -> bool {
        matches!(self.phase, Phase::Flushing { .. })
    }

    pub(super) fn flush_step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        pace: Pace,
        memory: &[u8],
    ) -> Result<Flushed, FlashFault> {
        let Phase::Flushing { done_bytes } = self.phase else { return Ok(Flushed::Nothing) };
        let window = memory.get(done_bytes as usize..self.window_bytes as usize);
        let done_bytes = match self.writer.step(flash, window.unwrap_or_default(), pace)? {
            Step::Erased => done_bytes,
            Step::Wrote(length) => done_bytes + bytes_u32(length),
        };
        if done_bytes < self.window_bytes {
            self.phase = Phase::Flushing { done_bytes };
            return Ok(Flushed::More);
        }
        self.base_bytes += self.window_bytes;
        if self.base_bytes >= self.size_bytes {
            (self.phase, self.window_bytes, self.filled_bytes) = (Phase::Complete, 0, 0);
            return Ok(Flushed::File);
        }
        self.open_window(WINDOW_BYTES);
        Ok(Flushed::Window)
    }

    pub(super) const fn flashed_bytes(&self) -> u32 {
        self.writer.written_bytes()
    }

    pub(super) const fn accepted_bytes(&self) -> u32 {
        self.base_bytes + self.filled_bytes
    }

    pub(super) fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    fn open_window(&mut self, bytes_max: u32) {
        self.window_bytes = (self.size_bytes - self.base_bytes).min(bytes_max);
        self.phase = Phase::Filling;
        self.filled_bytes = 0;
    }

    fn on_filled(&mut self) -> Taken {
        if self.filled_bytes < self.window_bytes {
            return Taken::Stored;
        }
        if self.phase == Phase::Head {
            self.phase = Phase::Judging;
            Taken::Head
        } else {
            self.phase = Phase::Flushing { done_bytes: 0 };
            Taken::Window
        }
    }
}
