//! A patch at the end of a slot that becomes an image from its start.

use core::fmt;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_delta::{Apply, ApplyError, Header, Input};
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::Sha256;

use crate::flash::{self, FlashFault, PAGE_BYTES, Region};
use crate::slot::{Pace, SlotWriter, Step};

/// What is applied, and the memory for it.
#[derive(Clone)]
pub(crate) struct Applying {
    patch: Sha256,
    apply: Apply,
    body: Region,
    old: Region,
    writer: SlotWriter,
    slot_bytes: u32,
    page: [u8; PAGE_BYTES as usize],
    /// What of the page is made and not written.
    left: core::ops::Range<usize>,
}

impl fmt::Debug for Applying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applying")
            .field("patch", &self.patch)
            .field("made_bytes", &self.made_bytes())
            .finish_non_exhaustive()
    }
}

/// What a step led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    More,
    All,
}

/// Why there is no next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Flash(FlashFault),
    Patch(Refusal),
}

impl From<FlashFault> for Fault {
    fn from(fault: FlashFault) -> Self {
        Self::Flash(fault)
    }
}

impl Applying {
    /// Makes what `header` says from `body`, somewhere in `new`, and from what `old` holds.
    pub(crate) const fn new(
        patch: Sha256,
        header: Header,
        body: Region,
        old: Region,
        new: Region,
    ) -> Self {
        Self {
            patch,
            writer: SlotWriter::resume(new.offset, header.new_bytes, 0),
            apply: Apply::new(header),
            body,
            old,
            slot_bytes: new.size_bytes,
            page: [0; PAGE_BYTES as usize],
            left: 0..0,
        }
    }

    /// By which the patch is known.
    pub(crate) const fn patch(&self) -> Sha256 {
        self.patch
    }

    /// Size of the patch in bytes, but for its header.
    pub(crate) const fn patch_bytes(&self) -> u32 {
        self.body.size_bytes
    }

    /// Bytes of the image that are in flash.
    pub(crate) const fn made_bytes(&self) -> u32 {
        self.writer.written_bytes()
    }

    /// Does one thing to the flash: erases, or writes what is made.
    pub(crate) fn step<F: NorFlash>(&mut self, flash: &mut F, pace: Pace) -> Result<Made, Fault> {
        if self.left.is_empty() {
            let mut sources = Sources { flash, body: self.body, old: self.old };
            let made = self.apply.pull(&mut sources, &mut self.page).map_err(|error| {
                let offset = self.apply.taken_bytes();
                match error {
                    ApplyError::Input(fault) => Fault::Flash(fault),
                    _ => Fault::Patch(Refusal::PatchBroken { offset }),
                }
            })?;
            if made == 0 {
                return Ok(Made::All);
            }
            self.left = 0..made;
        }
        let page = self.page.get(self.left.clone()).unwrap_or_default();
        match self.writer.step_below(flash, page, pace, self.first_needed())? {
            Some(Step::Erased) => {}
            Some(Step::Wrote(length)) => self.left.start += length,
            None => {
                // The header said that this cannot happen.
                let slot_bytes = self.slot_bytes;
                let needed_bytes = self.made_bytes() + self.body.size_bytes;
                return Err(Fault::Patch(Refusal::PatchNoRoom { needed_bytes, slot_bytes }));
            }
        }
        Ok(Made::More)
    }

    /// Where in flash the patch begins that is still to be read.
    const fn first_needed(&self) -> u32 {
        let taken = self.apply.taken_bytes();
        if taken < self.body.size_bytes { self.body.offset + taken } else { u32::MAX }
    }
}

/// What making an image from a patch costs a member in heap: see `docs/rollout.md`.
const _: () = assert!(size_of::<Applying>() <= 12_800);

/// Where the bytes come from.
struct Sources<'a, F> {
    flash: &'a mut F,
    body: Region,
    old: Region,
}

impl<F: ReadNorFlash> Input for Sources<'_, F> {
    type Error = FlashFault;

    fn body(&mut self, offset: u32, into: &mut [u8]) -> Result<(), FlashFault> {
        flash::read(self.flash, self.body.offset + offset, into)
    }

    fn old(&mut self, offset: u32, into: &mut [u8]) -> Result<(), FlashFault> {
        flash::read(self.flash, self.old.offset + offset, into)
    }
}
