//! The flash of the device that is searched: it takes down every change, byte by byte, and says
//! which bytes a run depended on.
//!
//! A device that loses power forgets everything but its flash. So the flash after a cut is the
//! flash before the run with the changes up to the cut applied, and nothing has to be run again to
//! know it. That this is what pulling the plug of [`MemFlash`] leaves is a test of its own.

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use lockstep_sim::flash::{FlashError, MemFlash, SECTOR_SIZE_BYTES};

use crate::places::{Place, Places, When};

const SECTOR: usize = SECTOR_SIZE_BYTES as usize;

/// One change of the flash.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) at: u32,
    pub(crate) what: What,
    pub(crate) place: Place,
    /// Which mark of the world outside it belongs to.
    pub(crate) mark: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The sector that begins there is erased.
    Erase,
    Write(Vec<u8>),
}

/// The chip.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) flash: MemFlash,
    pub(crate) places: Places,
    /// Sectors that may differ from what they were when this was last cleared.
    pub(crate) touched: Vec<bool>,
    journal: Option<Journal>,
    needs: Option<Watch>,
}

/// What has happened since it was begun.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The flash at the beginning.
    pub(crate) start: Vec<u8>,
    pub(crate) changes: Vec<Change>,
    /// Where the entries of the record that were written begin and end.
    pub(crate) entries: Vec<(u32, u32)>,
    is_open: bool,
    mark: usize,
}

/// The bytes that a run has depended on so far.
#[derive(Debug)]
struct Watch {
    start: Vec<u8>,
    needed: Vec<bool>,
    /// Sectors erased since: what is read there is the run's own doing.
    is_fresh: Vec<bool>,
}

/// Parts of a flash: where each begins, and its bytes.
#[derive(Debug)]
pub(crate) struct Needs(Vec<(usize, Vec<u8>)>);

impl Needs {
    /// Whether a run from this flash would read the very same.
    pub(crate) fn are_met_by(&self, flash: &[u8]) -> bool {
        self.0.iter().all(|(at, bytes)| flash[*at..at + bytes.len()] == bytes[..])
    }
}

impl Bench {
    pub(crate) fn new(bytes: Vec<u8>, places: Places) -> Self {
        let mut flash = MemFlash::new(0);
        let sectors = bytes.len() / SECTOR;
        flash.statistics.sector_erases = vec![0; sectors];
        flash.bytes = bytes;
        Self { flash, places, touched: vec![false; sectors], journal: None, needs: None }
    }

    /// From here on changes are taken down. A journal that is open or was closed stays.
    pub(crate) fn begin_journal(&mut self) {
        if self.journal.is_none() {
            let start = self.flash.bytes.clone();
            let (changes, entries) = (Vec::new(), Vec::new());
            self.journal = Some(Journal { start, changes, entries, is_open: true, mark: 0 });
        }
    }

    pub(crate) fn end_journal(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.is_open = false;
        }
    }

    pub(crate) fn take_journal(&mut self) -> Option<Journal> {
        self.journal.take()
    }

    pub(crate) fn is_journaling(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_open)
    }

    /// Whether something has changed since the last mark.
    pub(crate) fn has_used_mark(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_some_and(|it| it.changes.last().is_some_and(|last| last.mark == it.mark))
    }

    pub(crate) fn set_mark(&mut self, mark: usize) {
        if let Some(journal) = &mut self.journal {
            journal.mark = mark;
        }
    }

    /// From here on it is watched which bytes matter.
    pub(crate) fn watch_needs(&mut self) {
        let (bytes, sectors) = (self.flash.bytes.len(), self.touched.len());
        self.needs = Some(Watch {
            start: self.flash.bytes.clone(),
            needed: vec![false; bytes],
            is_fresh: vec![false; sectors],
        });
    }

    pub(crate) fn take_needs(&mut self) -> Needs {
        let Some(watch) = self.needs.take() else { return Needs(Vec::new()) };
        let mut parts = Vec::new();
        let mut at = 0;
        while at < watch.needed.len() {
            let length = watch.needed[at..].iter().take_while(|&&needed| needed).count();
            if length > 0 {
                parts.push((at, watch.start[at..at + length].to_vec()));
            }
            at += length.max(1);
        }
        Needs(parts)
    }

    fn change(&mut self, at: u32, what: What) {
        self.touched[at as usize / SECTOR] = true;
        let place = match &what {
            What::Erase => self.places.of_erase(at),
            What::Write(bytes) => {
                let last = at as usize + bytes.len().saturating_sub(1);
                self.touched[at as usize / SECTOR..=last / SECTOR].fill(true);
                let is_there = self.flash.bytes[at as usize..].starts_with(bytes);
                if is_there { self.places.of_repeat() } else { self.places.of_write(at, bytes) }
            }
        };
        if let Some(watch) = &mut self.needs {
            match &what {
                What::Erase => watch.is_fresh[at as usize / SECTOR] = true,
                // A write leaves what was 0 as it was.
                What::Write(bytes) => watch.need(at, bytes.len()),
            }
        }
        if let Some(journal) = self.journal.as_mut().filter(|journal| journal.is_open) {
            // Only the payload of a record's entry tells to which step its first word belongs.
            if let (Some(last), true) = (journal.changes.last_mut(), self.places.is_payload(at)) {
                last.place = place;
            }
            if let Some(end) = self.places.end_of_entry_at(at) {
                journal.entries.push((at, end));
            }
            journal.changes.push(Change { at, what, place, mark: journal.mark });
        }
    }
}

impl Watch {
    fn need(&mut self, at: u32, length: usize) {
        let (mut at, end) = (at as usize, at as usize + length);
        while at < end {
            let sector_end = (at / SECTOR + 1) * SECTOR;
            let to = sector_end.min(end);
            if !self.is_fresh[at / SECTOR] {
                self.needed[at..to].fill(true);
            }
            at = to;
        }
    }
}

impl ErrorType for Bench {
    type Error = FlashError;
}

impl ReadNorFlash for Bench {
    const READ_SIZE: usize = MemFlash::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        if let Some(watch) = &mut self.needs {
            watch.need(offset, bytes.len());
        }
        self.flash.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl NorFlash for Bench {
    const WRITE_SIZE: usize = MemFlash::WRITE_SIZE;
    const ERASE_SIZE: usize = MemFlash::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        for sector in (from..to).step_by(SECTOR) {
            self.change(sector, What::Erase);
        }
        self.flash.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.change(offset, What::Write(bytes.to_vec()));
        self.flash.write(offset, bytes)
    }
}

/// A flash on its way through a journal, cut by cut, with a hash of all of it.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) bytes: Vec<u8>,
    /// Equal for equal contents; unequal contents collide with a chance of 2⁻¹²⁸.
    pub(crate) hash: u128,
    /// Sectors that have changed since this was last cleared.
    pub(crate) touched: Vec<bool>,
}

impl Cursor {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let hash = bytes.iter().enumerate().fold(0, |hash, (at, byte)| hash ^ mixed(at, *byte));
        let touched = vec![true; bytes.len() / SECTOR];
        Self { bytes, hash, touched }
    }

    fn set(&mut self, at: usize, byte: u8) {
        let old = std::mem::replace(&mut self.bytes[at], byte);
        if old != byte {
            self.hash ^= mixed(at, old) ^ mixed(at, byte);
            self.touched[at / SECTOR] = true;
        }
    }

    /// Calls `visit` with what the flash is after each unit of power from 0 on, short of the last
    /// one, which is what the next change begins with.
    pub(crate) fn pass(&mut self, change: &Change, mut visit: impl FnMut(&mut Self)) {
        let start = change.at as usize;
        match &change.what {
            What::Write(bytes) => {
                for (at, byte) in (start..).zip(bytes) {
                    visit(self);
                    self.set(at, self.bytes[at] & byte);
                }
            }
            What::Erase => {
                let before = self.bytes[start..start + SECTOR].to_vec();
                for units in 0..=MemFlash::ERASE_COST {
                    let torn = torn_sector(&before, units);
                    (start..).zip(torn).for_each(|(at, byte)| self.set(at, byte));
                    if units < MemFlash::ERASE_COST {
                        visit(self);
                    }
                }
            }
        }
    }

    /// As [`Self::pass`], without looking.
    pub(crate) fn skip(&mut self, change: &Change) {
        match &change.what {
            What::Write(bytes) => (change.at as usize..)
                .zip(bytes)
                .for_each(|(at, byte)| self.set(at, self.bytes[at] & byte)),
            What::Erase => {
                let start = change.at as usize;
                (start..start + SECTOR).for_each(|at| self.set(at, 0xFF));
            }
        }
    }
}

/// What an erase leaves that had so many units of power: the sector as [`MemFlash`] tears it.
fn torn_sector(before: &[u8], units: u64) -> Vec<u8> {
    let mut flash = MemFlash::new(SECTOR_SIZE_BYTES);
    flash.bytes.copy_from_slice(before);
    flash.power_budget_bytes = Some(units);
    let _ = flash.erase(0, SECTOR_SIZE_BYTES);
    flash.bytes
}

/// A number for "this byte stands here".
fn mixed(at: usize, byte: u8) -> u128 {
    let seed = (at as u64) << 8 | u64::from(byte);
    u128::from(mix(seed)) << 64 | u128::from(mix(seed ^ 0x5851_F42D_4C95_7F2D))
}

/// The finalizer of SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl Bench {
    /// Makes this flash what `cursor` is, sector by sector, where either was changed.
    pub(crate) fn follow(&mut self, cursor: &mut Cursor) {
        for (sector, touched) in self.touched.iter_mut().enumerate() {
            if std::mem::take(touched) | std::mem::take(&mut cursor.touched[sector]) {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                self.flash.bytes[range.clone()].copy_from_slice(&cursor.bytes[range]);
            }
        }
    }

    /// The firmware or its bootloader begins to work.
    pub(crate) fn enter(&mut self, when: When) {
        self.places.enter(when);
    }
}
