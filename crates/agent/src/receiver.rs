//! The receiving side of a transfer: one file on its way into flash, window by window.
//!
//! A window of blocks is collected in memory, in any order; when it is full it is brought into
//! flash, and only then is the next one asked for. So nothing is erased or written while blocks
//! arrive, and everything before a window is in flash. The first window of an image is so short
//! that its header can be judged before anything is erased. What a file must be like is decided by
//! the agent; whose blocks to believe, by whoever decodes frames.

use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::block::{BLOCK_BYTES, Block, Session};
use lockstep_proto::frame::report::Wants;
use lockstep_proto::id::Sha256;

use crate::flash::{FlashFault, Region, bytes_u32};
use crate::slot::{Pace, SlotWriter, Step};

/// Blocks of a window, at most: as many as a bitmap of 32 bits tells apart.
pub const WINDOW_BLOCKS_MAX: u8 = 32;
/// Blocks of an image's first window: enough for its header and our descriptor, 0x1A0 bytes.
pub const HEAD_BLOCKS: u8 = 3;
/// The largest file that block numbers reach.
pub const FILE_BYTES_MAX: u32 = u16::MAX as u32 * BLOCK;
/// Progress is durable at multiples of this: whole sectors and whole windows.
pub const PROGRESS_STEP_BYTES: u32 = 57_344;

/// What is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// A manifest package, into its store.
    Package,
    /// This device's own image, into the other slot.
    Artifact,
    /// Another role's artifact, into the other slot as it is.
    Spool,
}

/// One file on its way, and the memory for a window of it.
#[derive(Clone)]
pub(crate) struct Receiver {
    job: Option<Job>,
    window: [u8; WINDOW_BYTES],
}

/// Without a file on its way nobody looks at the window, so it is not shown either.
impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.job.as_ref().map(|_| &self.window[..]);
        f.debug_struct("Receiver").field("job", &self.job).field("window", &window).finish()
    }
}

/// What is known of the file.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) object: Object,
    pub(crate) sha256: Sha256,
    pub(crate) size_bytes: u32,
    /// The slot's entry was erased and the progress of the file before it forgotten.
    pub(crate) prepared: bool,
    writer: SlotWriter,
    phase: Phase,
    /// Where the window begins in the file.
    base_bytes: u32,
    /// Blocks in the window.
    blocks: u8,
    /// Bit `i` set: block `i` of the window is there.
    have: u32,
    /// Bytes of the window that came in order, from its start: blocks, or pieces of any size.
    in_order_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first blocks of an image.
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

/// What a block or a piece did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Not wanted: another session, a duplicate, outside the window, of a wrong length.
    Ignored,
    /// Stored; more is wanted.
    Stored,
    /// Stored, and with it the head is complete.
    Head,
    /// Stored, and with it the window is complete.
    Window,
}

/// What bringing the window into flash did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// There is nothing to bring.
    Nothing,
    /// More of this window is left.
    More,
    /// The window is in flash; the next one is open.
    Window,
    /// The file is in flash.
    File,
}

impl Receiver {
    pub(crate) const fn new() -> Self {
        Self { job: None, window: [0; WINDOW_BYTES] }
    }

    pub(crate) const fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    pub(crate) const fn stop(&mut self) {
        self.job = None;
    }

    /// Expects a file of `size_bytes`, at least 1, of which `done_bytes` are in flash: 0, or a
    /// multiple of [`PROGRESS_STEP_BYTES`] below the size, or the size.
    pub(crate) fn start(&mut self, object: Object, sha256: Sha256, place: Region, done_bytes: u32) {
        let mut job = Job {
            object,
            sha256,
            size_bytes: place.size_bytes,
            prepared: object == Object::Package,
            writer: SlotWriter::resume(place.offset, place.size_bytes, done_bytes),
            phase: Phase::Filling,
            base_bytes: done_bytes,
            blocks: 0,
            have: 0,
            in_order_bytes: 0,
        };
        if done_bytes >= place.size_bytes {
            job.phase = Phase::Complete;
        } else if done_bytes == 0 && object == Object::Artifact {
            job.open_window(HEAD_BLOCKS);
            job.phase = Phase::Head;
        } else {
            job.open_window(WINDOW_BLOCKS_MAX);
        }
        self.job = Some(job);
    }

    /// Takes a block of a broadcast session.
    pub(crate) fn take_block(&mut self, block: &Block<'_>) -> Taken {
        let Some(job) = &mut self.job else { return Taken::Ignored };
        let offset = block.offset_bytes();
        let in_window = job.is_open()
            && job.object != Object::Spool
            && block.session == job.session()
            && offset >= job.base_bytes
            && offset < job.window_end();
        let left = job.size_bytes.saturating_sub(offset);
        if !in_window || bytes_u32(block.payload.len()) != left.min(BLOCK) {
            return Taken::Ignored;
        }
        let at = offset - job.base_bytes;
        let bit = 1_u32 << (at / BLOCK).min(31);
        if job.have & bit != 0 {
            return Taken::Ignored;
        }
        let start = at as usize;
        if let Some(place) = self.window.get_mut(start..start + block.payload.len()) {
            place.copy_from_slice(block.payload);
        }
        job.have |= bit;
        job.on_progress()
    }

    /// Takes as much of `bytes`, which begin at `offset` of the file, as continues what is there
    /// and fits the window.
    pub(crate) fn take_bytes(&mut self, offset: u32, bytes: &[u8]) -> Taken {
        let Some(job) = &mut self.job else { return Taken::Ignored };
        if !job.is_open() || offset != job.accepted_bytes() {
            return Taken::Ignored;
        }
        let room = job.window_end() - offset;
        let taken = bytes.len().min(room as usize);
        let start = (offset - job.base_bytes) as usize;
        if let (Some(place), Some(bytes)) =
            (self.window.get_mut(start..start + taken), bytes.get(..taken))
        {
            place.copy_from_slice(bytes);
        }
        job.in_order_bytes += bytes_u32(taken);
        let whole = if offset + bytes_u32(taken) == job.size_bytes {
            u32::from(job.blocks)
        } else {
            job.in_order_bytes / BLOCK
        };
        job.have |= low_bits(whole);
        job.on_progress()
    }

    /// The head of the image, once it is there.
    pub(crate) fn head(&self) -> &[u8] {
        let length = match &self.job {
            Some(job) if job.phase == Phase::Judging => job.window_end() as usize,
            _ => 0,
        };
        self.window.get(..length).unwrap_or_default()
    }

    /// The head was judged and found good: the window grows to its full size.
    pub(crate) fn accept_head(&mut self) -> Taken {
        let Some(job) = &mut self.job else { return Taken::Ignored };
        if job.phase != Phase::Judging {
            return Taken::Ignored;
        }
        let (have, in_order_bytes) = (job.have, job.in_order_bytes);
        job.open_window(WINDOW_BLOCKS_MAX);
        (job.have, job.in_order_bytes) = (have, in_order_bytes);
        job.on_progress()
    }

    /// The slot was given up for this file.
    pub(crate) const fn mark_prepared(&mut self) {
        if let Some(job) = &mut self.job {
            job.prepared = true;
        }
    }

    /// Whether a full window waits to be brought into flash.
    pub(crate) fn is_flushing(&self) -> bool {
        self.job.as_ref().is_some_and(|job| matches!(job.phase, Phase::Flushing { .. }))
    }

    /// Does one thing to the flash.
    pub(crate) fn flush_step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        pace: Pace,
    ) -> Result<Flushed, FlashFault> {
        let Some(job) = &mut self.job else { return Ok(Flushed::Nothing) };
        let Phase::Flushing { done_bytes } = job.phase else { return Ok(Flushed::Nothing) };
        let length_bytes = job.window_end() - job.base_bytes;
        let window = self.window.get(done_bytes as usize..length_bytes as usize);
        let done_bytes = match job.writer.step(flash, window.unwrap_or_default(), pace)? {
            Step::Erased => done_bytes,
            Step::Wrote(length) => done_bytes + bytes_u32(length),
        };
        if done_bytes < length_bytes {
            job.phase = Phase::Flushing { done_bytes };
            return Ok(Flushed::More);
        }
        job.base_bytes += length_bytes;
        if job.base_bytes >= job.size_bytes {
            (job.phase, job.blocks, job.have, job.in_order_bytes) = (Phase::Complete, 0, 0, 0);
            return Ok(Flushed::File);
        }
        job.open_window(WINDOW_BLOCKS_MAX);
        Ok(Flushed::Window)
    }
}

impl Job {
    pub(crate) fn session(&self) -> Session {
        Session::of(&self.sha256.0)
    }

    /// Bytes of the file that are in flash.
    pub(crate) const fn flashed_bytes(&self) -> u32 {
        self.writer.written_bytes()
    }

    /// Bytes of the file that came in order and need not come again in this boot.
    pub(crate) const fn accepted_bytes(&self) -> u32 {
        match self.phase {
            Phase::Flushing { .. } | Phase::Judging => self.window_end(),
            Phase::Head | Phase::Filling | Phase::Complete => self.base_bytes + self.in_order_bytes,
        }
    }

    /// Whether all of the file is in flash.
    pub(crate) fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    /// What it wants next. A window of 0: nothing now, it is busy with its flash or done.
    pub(crate) fn wants(&self) -> Wants {
        let window = if self.is_open() { self.blocks } else { 0 };
        let have = if self.is_open() { self.have } else { 0 };
        // Rounded up: the last block may be a short one.
        let index = u16::try_from(self.base_bytes.div_ceil(BLOCK)).unwrap_or(u16::MAX);
        Wants { session: self.session(), index, have, window }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Head | Phase::Filling)
    }

    const fn window_end(&self) -> u32 {
        let end = self.base_bytes + self.blocks as u32 * BLOCK;
        if end < self.size_bytes { end } else { self.size_bytes }
    }

    fn open_window(&mut self, blocks_max: u8) {
        let left = (self.size_bytes - self.base_bytes).div_ceil(BLOCK);
        self.blocks = u8::try_from(left).unwrap_or(u8::MAX).min(blocks_max);
        self.phase = Phase::Filling;
        (self.have, self.in_order_bytes) = (0, 0);
    }

    fn on_progress(&mut self) -> Taken {
        let in_order = (!self.have).trailing_zeros().min(u32::from(self.blocks)) * BLOCK;
        let length_bytes = self.window_end() - self.base_bytes;
        self.in_order_bytes = self.in_order_bytes.max(in_order).min(length_bytes);
        if self.have != low_bits(u32::from(self.blocks)) {
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

fn low_bits(count: u32) -> u32 {
    1_u32.checked_shl(count).map_or(u32::MAX, |bit| bit - 1)
}

/// `BLOCK_BYTES`, as file offsets are counted.
#[expect(clippy::cast_possible_truncation, reason = "224")]
pub(crate) const BLOCK_BYTES_U32: u32 = BLOCK_BYTES as u32;
const BLOCK: u32 = BLOCK_BYTES_U32;
const WINDOW_BYTES: usize = WINDOW_BLOCKS_MAX as usize * BLOCK_BYTES;

const _: () = assert!(PROGRESS_STEP_BYTES.is_multiple_of(crate::flash::SECTOR_BYTES));
const _: () = assert!(PROGRESS_STEP_BYTES.is_multiple_of(WINDOW_BLOCKS_MAX as u32 * BLOCK));

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
