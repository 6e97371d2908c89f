//! The receiving side of a transfer: one file on its way into flash.
//!
//! It comes in one of two ways: in order, from an upload (`stream`), or in blocks over the radio,
//! in any order and with losses (`blocks`). Either way the head of an image is judged before
//! anything is erased. What a file must be like is decided by the agent; whose blocks to believe,
//! by whoever decodes frames.

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::block::{Block, Repair, Session};
use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::report::Wants;
use lockstep_proto::id::Sha256;

use crate::flash::{FlashFault, Region};
use crate::package::GenerationList;
use crate::slot::Pace;

mod blocks;
mod mender;
mod stream;

use blocks::Blocks;
pub(crate) use blocks::Poisoned;
use stream::Stream;

/// The largest file that block numbers reach.
pub const FILE_BYTES_MAX: u32 = u16::MAX as u32 * Shape::Small.block_bytes();
/// Progress is durable at multiples of this: whole sectors, windows and generations.
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
    /// A patch that this device's own image is made from, into the end of the other slot.
    Patch,
    /// A patch for others, into the end of the other slot.
    PatchSpool,
}

impl Object {
    /// Whether it lies in the other slot for others, or at least comes as such.
    pub(crate) const fn is_spool(self) -> bool {
        matches!(self, Self::Spool | Self::PatchSpool)
    }

    /// Whether its first bytes are judged before anything is erased.
    const fn has_head(self) -> bool {
        matches!(self, Self::Artifact | Self::Patch)
    }
}

/// One file on its way, and the memory that it needs until it is in flash.
#[derive(Clone)]
pub(crate) struct Receiver {
    job: Option<Job>,
    /// Whether files may come in large blocks.
    takes_large: bool,
    /// Not within the agent: whoever makes one moves it, and a chip's stack would hold it twice.
    memory: Box<[u8]>,
}

/// Without a file on its way nobody looks at the memory, so it is not shown either.
impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.job.as_ref().map(|_| &self.memory[..]);
        f.debug_struct("Receiver").field("job", &self.job).field("memory", &memory).finish()
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
    /// So much of it was made known durably to be in flash.
    pub(crate) durable_bytes: u32,
    /// Generations that came out wrong and were forgotten.
    pub(crate) poisoned: u16,
    place: Region,
    way: Way,
}

/// How it comes.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one of them exists; there is no heap to box it")]
enum Way {
    Stream(Stream),
    Blocks(Blocks),
}

/// What a block, a repair frame or a piece did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing, for this reason.
    Dropped(Dropped),
    /// Stored; more is wanted.
    Stored,
    /// Stored, and with it the head is complete.
    Head,
    /// Stored, and now there is something to be brought into flash.
    Window,
}

/// Why a block, a repair frame or a piece was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It belongs to another object, or nothing is wanted now.
    Unwanted,
    /// There is no such block or generation, or it is too far ahead.
    OutOfRange,
    /// It is not as long as it must be.
    Length,
    /// It brings nothing new.
    Known,
    /// The flash has to catch up first.
    Busy,
}

impl Dropped {
    /// All of them, in the order of [`Dropped::number`].
    pub const ALL: [Self; 5] =
        [Self::Unwanted, Self::OutOfRange, Self::Length, Self::Known, Self::Busy];

    /// Its place in counts.
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The word that pages and messages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unwanted => "unwanted",
            Self::OutOfRange => "out-of-range",
            Self::Length => "length",
            Self::Known => "known",
            Self::Busy => "busy",
        }
    }
}

/// What one step of bringing bytes into flash did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// There is nothing to bring.
    Nothing,
    /// More is left.
    More,
    /// More of the file is in flash without a gap.
    Window,
    /// From now on blocks are taken.
    Open,
    /// A generation is in flash, and is not what it must be: it has to come again.
    Poisoned(Poisoned),
    /// The file is in flash.
    File,
}

impl Receiver {
    pub(crate) fn new(takes_large: bool) -> Self {
        Self { job: None, takes_large, memory: vec![0; MEMORY_BYTES].into_boxed_slice() }
    }

    pub(crate) const fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    pub(crate) fn stop(&mut self) {
        self.job = None;
    }

    /// Expects a file of `size_bytes`, at least 1, of which `done_bytes` are in flash: 0, or a
    /// multiple of [`PROGRESS_STEP_BYTES`] below the size, or the size.
    pub(crate) fn start(&mut self, object: Object, sha256: Sha256, place: Region, done_bytes: u32) {
        let way = match object {
            Object::Spool | Object::PatchSpool => {
                Way::Stream(Stream::new(place, done_bytes, false))
            }
            Object::Artifact | Object::Patch | Object::Package => {
                Way::Blocks(Blocks::new(place, done_bytes, object.has_head(), self.takes_large))
            }
        };
        self.job = Some(Job {
            object,
            sha256,
            size_bytes: place.size_bytes,
            prepared: object == Object::Package,
            durable_bytes: done_bytes,
            poisoned: 0,
            place,
            way,
        });
    }

    /// What comes in blocks is judged generation by generation, by this list.
    pub(crate) const fn judge_by(&mut self, list: GenerationList) {
        if let Some(Job { way: Way::Blocks(blocks), .. }) = &mut self.job {
            blocks.judge_by(list);
        }
    }

    /// A generation of the file came out wrong. Returns how many have.
    pub(crate) fn count_poisoned(&mut self) -> u16 {
        self.job.as_mut().map_or(0, |job| {
            job.poisoned = job.poisoned.saturating_add(1);
            job.poisoned
        })
    }

    /// Takes a block of a broadcast session.
    pub(crate) fn take_block(&mut self, block: &Block<'_>) -> Taken {
        match &mut self.job {
            Some(job) if block.session == job.session() => match &mut job.way {
                Way::Blocks(blocks) => blocks.take_block(block, &mut self.memory),
                Way::Stream(_) => Taken::Dropped(Dropped::Unwanted),
            },
            _ => Taken::Dropped(Dropped::Unwanted),
        }
    }

    /// Takes a repair frame of a broadcast session.
    pub(crate) fn take_repair<F: NorFlash>(
        &mut self,
        repair: &Repair<'_>,
        flash: &mut F,
    ) -> Result<Taken, FlashFault> {
        match &mut self.job {
            Some(job) if repair.session == job.session() => match &mut job.way {
                Way::Blocks(blocks) => blocks.take_repair(repair, flash, &mut self.memory),
                Way::Stream(_) => Ok(Taken::Dropped(Dropped::Unwanted)),
            },
            _ => Ok(Taken::Dropped(Dropped::Unwanted)),
        }
    }

    /// Everybody is asked: a round of the sender is over.
    pub(crate) const fn note_round_over(&mut self) {
        if let Some(Job { way: Way::Blocks(blocks), .. }) = &mut self.job {
            blocks.note_round_over();
        }
    }

    /// What is wanted was said, and also that the flash is busy, if it is about to be.
    pub(crate) fn note_said(&mut self) {
        if let Some(Job { way: Way::Blocks(blocks), .. }) = &mut self.job {
            blocks.note_said();
        }
    }

    /// Takes as much of `bytes`, which begin at `offset` of the file, as continues what is there
    /// and fits the window. A file of which no block has come may come this way instead.
    pub(crate) fn take_bytes(&mut self, offset: u32, bytes: &[u8]) -> Taken {
        let Some(job) = &mut self.job else { return Taken::Dropped(Dropped::Unwanted) };
        if let Way::Blocks(blocks) = &job.way
            && blocks.is_untouched()
        {
            let done_bytes = blocks.in_order_bytes();
            job.way = Way::Stream(Stream::new(job.place, done_bytes, job.object.has_head()));
        }
        match &mut job.way {
            Way::Stream(stream) => stream.take(offset, bytes, &mut self.memory),
            Way::Blocks(_) => Taken::Dropped(Dropped::Unwanted),
        }
    }

    /// The head of the image, once it is there.
    pub(crate) fn head(&self) -> &[u8] {
        let length = match self.job.as_ref().map(|job| &job.way) {
            Some(Way::Stream(stream)) => stream.head_bytes(),
            Some(Way::Blocks(blocks)) => blocks.head_bytes(),
            None => 0,
        };
        self.memory.get(..length).unwrap_or_default()
    }

    /// The head was judged and found good: from now on the flash may be used.
    pub(crate) fn accept_head(&mut self) -> Taken {
        match self.job.as_mut().map(|job| &mut job.way) {
            Some(Way::Stream(stream)) => stream.accept_head(),
            Some(Way::Blocks(blocks)) => blocks.accept_head(),
            None => Taken::Dropped(Dropped::Unwanted),
        }
    }

    /// The slot was given up for this file.
    pub(crate) const fn mark_prepared(&mut self) {
        if let Some(job) = &mut self.job {
            job.prepared = true;
        }
    }

    /// So much of the file was made known durably.
    pub(crate) const fn mark_durable(&mut self, bytes: u32) {
        if let Some(job) = &mut self.job {
            job.durable_bytes = bytes;
        }
    }

    /// Whether there is something to be done to the flash.
    pub(crate) fn is_flushing(&self) -> bool {
        self.job.as_ref().is_some_and(|job| match &job.way {
            Way::Stream(stream) => stream.is_flushing(),
            Way::Blocks(blocks) => blocks.is_flushing(),
        })
    }

    /// Whether what is to be done next is an erase, in which a chip hears nothing.
    pub(crate) fn is_erasing(&self) -> bool {
        self.job.as_ref().is_some_and(|job| match &job.way {
            Way::Stream(_) => false,
            Way::Blocks(blocks) => blocks.is_erasing(),
        })
    }

    /// Does one thing to the flash.
    pub(crate) fn flush_step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        pace: Pace,
    ) -> Result<Flushed, FlashFault> {
        let Some(job) = &mut self.job else { return Ok(Flushed::Nothing) };
        match &mut job.way {
            Way::Stream(stream) => stream.flush_step(flash, pace, &self.memory),
            Way::Blocks(blocks) => blocks.flush_step(flash, pace, &self.memory),
        }
    }
}

impl Job {
    pub(crate) fn session(&self) -> Session {
        Session::of(&self.sha256.0)
    }

    /// Where it goes.
    pub(crate) const fn place(&self) -> Region {
        self.place
    }

    /// Bytes of the file that are in flash, wherever in it.
    pub(crate) fn flashed_bytes(&self) -> u32 {
        match &self.way {
            Way::Stream(stream) => stream.flashed_bytes(),
            Way::Blocks(blocks) => blocks.flashed_bytes(),
        }
    }

    /// Bytes of the file that are in flash without a gap from its start.
    pub(crate) fn in_order_bytes(&self) -> u32 {
        match &self.way {
            Way::Stream(stream) => stream.flashed_bytes(),
            Way::Blocks(blocks) => blocks.in_order_bytes(),
        }
    }

    /// Bytes of the file that came in order and need not come again in this boot.
    pub(crate) fn accepted_bytes(&self) -> u32 {
        match &self.way {
            Way::Stream(stream) => stream.accepted_bytes(),
            Way::Blocks(blocks) => blocks.in_order_bytes(),
        }
    }

    /// Whether all of the file is in flash.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.way {
            Way::Stream(stream) => stream.is_complete(),
            Way::Blocks(blocks) => blocks.is_complete(),
        }
    }

    /// Whether it comes in blocks, and so can be asked for.
    pub(crate) const fn comes_in_blocks(&self) -> bool {
        matches!(self.way, Way::Blocks(_))
    }

    /// What it lacks. Blocks should be as far apart as the pace allows.
    pub(crate) fn wants(&self, pace: Pace) -> Option<Wants> {
        match &self.way {
            Way::Blocks(blocks) => Some(blocks.wants(self.session(), pace)),
            Way::Stream(_) => None,
        }
    }

    /// How many blocks of a generation it lacks, less the repair frames that it holds.
    pub(crate) fn lacks(&self, generation: u16) -> u8 {
        match &self.way {
            Way::Blocks(blocks) => blocks.lacks(generation),
            Way::Stream(_) => 0,
        }
    }
}

/// Bytes of an image's head.
pub(crate) const HEAD_BYTES: u32 = Shape::Small.head_blocks() as u32 * Shape::Small.block_bytes();
/// What is held until it is in flash: blocks that came and repair frames, or a window of a stream.
const MEMORY_BYTES: usize = blocks::MEMORY_BYTES;

const _: () = assert!(PROGRESS_STEP_BYTES.is_multiple_of(crate::flash::SECTOR_BYTES));
const _: () = assert!(PROGRESS_STEP_BYTES.is_multiple_of(stream::WINDOW_BYTES));
const _: () = assert!(PROGRESS_STEP_BYTES.is_multiple_of(Shape::Small.generation_bytes()));
const _: () = assert!(stream::WINDOW_BYTES as usize <= MEMORY_BYTES);
// What the radio costs a device in memory: see `docs/air.md`.
const _: () = assert!(size_of::<Receiver>() + MEMORY_BYTES <= 16 * 1024);

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
