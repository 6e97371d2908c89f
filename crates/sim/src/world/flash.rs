//! The flash of a simulated board: [`MemFlash`] with a small partition table, and with a memory of
//! what was touched, so that an observer looks only where something has changed.

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use fastrand::Rng;
use lockstep_proto::otadata::{ENTRY_BYTES, OtaEntry, Sector};
use lockstep_proto::partition::{
    PartitionEntry, PartitionTable, RECORD_LABEL, SUBTYPE_OTA_0, SUBTYPE_OTADATA,
    SUBTYPE_UNDEFINED, TABLE_BYTES, TABLE_OFFSET, TYPE_APP, TYPE_DATA,
};
use lockstep_proto::text::FixedText;

use super::images::IMAGE_BYTES;
use crate::flash::{FlashError, MemFlash, write_erased};

/// A part of the flash, as far as it matters where the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The two entries that say which slot boots.
    Otadata,
    /// The record log.
    Record,
    /// The manifest package.
    Package,
    /// A slot.
    Slot,
    /// Anything else.
    Elsewhere,
}

impl Place {
    /// The word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Otadata => "otadata",
            Self::Record => "record",
            Self::Package => "package",
            Self::Slot => "slot",
            Self::Elsewhere => "elsewhere",
        }
    }

    const fn of(offset: u32) -> Self {
        match offset {
            OTADATA..RECORD_END if offset < OTADATA_END => Self::Otadata,
            SLOT_0..RECORD => Self::Slot,
            RECORD..RECORD_END => Self::Record,
            RECORD_END..STORE_END => Self::Package,
            _ => Self::Elsewhere,
        }
    }
}

/// What the flash was doing when its power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A sector was being erased.
    Erase,
    /// Bytes were being written.
    Write,
}

/// A chip's flash.
#[derive(Debug, Clone)]
pub struct ChipFlash {
    memory: MemFlash,
    /// Bit 0 and 1: the slots; bit 2: otadata. Set when something there changes.
    touched: u8,
    cut: Option<(Operation, Place)>,
    /// So many operations at a place, and then so many units, until the power goes.
    aimed: Option<(Place, u32, u64)>,
    /// What a cut leaves of the byte that was being written.
    residue: Residue,
    /// Bits that are neither 0 nor 1 any more, and the byte they are in.
    weak: Option<(u32, u8)>,
    /// The next write into a slot goes wrong without a word.
    spoils_next_write: bool,
    rng: Rng,
}

/// What a cut leaves of the byte that was being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residue {
    /// Nothing of it is written.
    #[default]
    Nothing,
    /// Some of its bits are, the others are not.
    SomeBits,
    /// And the others read as they like until they are written once more, or erased.
    WeakBit,
}

impl ChipFlash {
    /// A flash with its partition table, and `image` in the first slot.
    pub fn with_image(image: &[u8]) -> Self {
        let mut memory = MemFlash::new(CAPACITY_BYTES);
        let mut table = [0xFF; TABLE_BYTES];
        partition_table().write(&mut table);
        write_erased(&mut memory, TABLE_OFFSET, &table).expect("within the flash");
        write_erased(&mut memory, SLOT_0, image).expect("within the flash");
        Self {
            memory,
            touched: TOUCHED_ALL,
            cut: None,
            aimed: None,
            residue: Residue::Nothing,
            weak: None,
            spoils_next_write: false,
            rng: Rng::with_seed(0),
        }
    }

    /// What cuts leave from here on, drawn from `seed`.
    pub fn set_residue(&mut self, residue: Residue, seed: u64) {
        self.residue = residue;
        self.rng = Rng::with_seed(seed);
    }

    /// The next write into a slot goes wrong without a word.
    pub const fn spoil_next_write(&mut self) {
        self.spoils_next_write = true;
    }

    /// Writes go right again, and the power stays.
    pub(crate) fn heal(&mut self) {
        (self.spoils_next_write, self.aimed) = (false, None);
        if self.is_armed() && !self.has_lost_power() {
            self.memory.power_on();
        }
    }

    /// A bit of a slot flips.
    pub fn rot(&mut self, slot: u8) {
        let at = SLOT_0 + u32::from(slot) * IMAGE_BYTES + self.rng.u32(0..IMAGE_BYTES);
        let bit = 1 << self.rng.u8(0..8);
        if let Some(byte) = self.memory.bytes.get_mut(at as usize) {
            *byte ^= bit;
        }
        self.touched |= 1 << slot;
    }

    /// Becomes as `other` is.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.memory.power_on();
        self.memory.bytes.copy_from_slice(&other.memory.bytes);
        (self.touched, self.cut) = (TOUCHED_ALL, None);
        (self.weak, self.spoils_next_write, self.aimed) = (None, false, None);
        self.set_residue(Residue::Nothing, 0);
    }

    /// Which slot a partition is.
    pub(crate) const fn slot_at(offset: u32) -> Option<u8> {
        match offset {
            SLOT_0 => Some(0),
            SLOT_1 => Some(1),
            _ => None,
        }
    }

    /// The bytes of a slot.
    pub fn slot(&self, slot: u8) -> &[u8] {
        let start = (SLOT_0 + u32::from(slot) * IMAGE_BYTES) as usize;
        &self.memory.bytes[start..start + IMAGE_BYTES as usize]
    }

    /// Both entries that say which slot boots.
    pub fn otadata(&self) -> [Option<OtaEntry>; 2] {
        [Sector::A, Sector::B].map(|sector| {
            let start = (OTADATA + sector.offset()) as usize;
            let bytes = self.memory.bytes[start..].first_chunk::<ENTRY_BYTES>();
            OtaEntry::decode(bytes.expect("within the flash"))
        })
    }

    /// What changed since this was last asked: slot 0, slot 1, otadata.
    pub const fn take_touched(&mut self) -> [bool; 3] {
        let touched = core::mem::replace(&mut self.touched, 0);
        [touched & 1 != 0, touched & 2 != 0, touched & TOUCHED_OTADATA != 0]
    }

    /// The power goes after so many units of writing and erasing.
    pub const fn cut_after(&mut self, units: u64) {
        self.memory.power_budget_bytes = Some(units);
    }

    /// The power goes so many units after so many operations at this place.
    pub const fn cut_in(&mut self, place: Place, operations: u32, units: u64) {
        self.aimed = Some((place, operations, units));
    }

    /// Whether the power is to go at some unit of writing.
    pub const fn is_armed(&self) -> bool {
        self.memory.power_budget_bytes.is_some() || self.aimed.is_some()
    }

    /// An operation begins: is it the one?
    fn aim(&mut self, offset: u32) {
        let Some((place, operations, units)) = self.aimed else { return };
        if Place::of(offset) != place {
            return;
        }
        self.aimed = operations.checked_sub(1).map(|left| (place, left, units));
        if operations == 0 {
            self.memory.power_budget_bytes = Some(units);
        }
    }

    /// Whether the power went.
    pub const fn has_lost_power(&self) -> bool {
        self.memory.power_lost()
    }

    /// Power is back, and stays. Says what was cut, if something was.
    pub const fn power_on(&mut self) -> Option<(Operation, Place)> {
        self.aimed = None;
        self.memory.power_on();
        self.cut.take()
    }

    fn note(&mut self, operation: Operation, offset: u32, had_power: bool) {
        let place = Place::of(offset);
        self.touched |= match place {
            Place::Otadata => TOUCHED_OTADATA,
            Place::Slot if offset < SLOT_1 => 1,
            Place::Slot => 2,
            Place::Record | Place::Package | Place::Elsewhere => 0,
        };
        if had_power && self.memory.power_lost() {
            self.cut = Some((operation, place));
        }
    }
}

impl ErrorType for ChipFlash {
    type Error = FlashError;
}

impl ReadNorFlash for ChipFlash {
    const READ_SIZE: usize = MemFlash::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.memory.read(offset, bytes)?;
        if let Some((at, bits)) = self.weak
            && let Some(byte) = at.checked_sub(offset).and_then(|at| bytes.get_mut(at as usize))
            && self.rng.bool()
        {
            *byte &= !bits;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.memory.capacity()
    }
}

impl NorFlash for ChipFlash {
    const WRITE_SIZE: usize = MemFlash::WRITE_SIZE;
    const ERASE_SIZE: usize = MemFlash::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        self.aim(from);
        let had_power = !self.memory.power_lost();
        let erased = self.memory.erase(from, to);
        self.weak = self.weak.filter(|(at, _)| !(from..to).contains(at));
        self.note(Operation::Erase, from, had_power);
        erased
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.aim(offset);
        let had_power = !self.memory.power_lost();
        let budget = self.memory.power_budget_bytes;
        let written = self.memory.write(offset, bytes);
        self.make_firm(offset, bytes);
        self.note(Operation::Write, offset, had_power);
        if had_power && self.memory.power_lost() {
            self.leave_residue(offset, bytes, budget.unwrap_or_default());
        } else if self.spoils_next_write && Place::of(offset) == Place::Slot {
            self.spoils_next_write = false;
            let at = offset as usize + self.rng.usize(0..bytes.len().max(1));
            let bit = 1 << self.rng.u8(0..8);
            if let Some(byte) = self.memory.bytes.get_mut(at) {
                *byte &= !bit;
            }
        }
        written
    }
}

impl ChipFlash {
    /// Bits that are programmed once more are 0 from then on.
    fn make_firm(&mut self, offset: u32, bytes: &[u8]) {
        let Some((at, bits)) = self.weak.filter(|_| !self.memory.power_lost()) else { return };
        let written = at.checked_sub(offset).and_then(|index| bytes.get(index as usize));
        let left = bits & written.copied().unwrap_or(u8::MAX);
        self.weak = (left != 0).then_some((at, left));
    }

    /// The power went before byte `done` of `bytes` was written: what is left of that byte?
    fn leave_residue(&mut self, offset: u32, bytes: &[u8], done: u64) {
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        let Some(wanted) = bytes.get(done).filter(|_| self.residue != Residue::Nothing) else {
            return;
        };
        let at = offset as usize + done;
        let Some(stored) = self.memory.bytes.get_mut(at) else { return };
        *stored &= wanted | self.rng.u8(..);
        let between = *stored & !wanted;
        if self.residue == Residue::WeakBit && between != 0 {
            self.weak = u32::try_from(at).ok().map(|at| (at, between));
        }
    }
}

fn partition_table() -> PartitionTable {
    let row = |kind, subtype, offset, size_bytes, label: &str| PartitionEntry {
        kind,
        subtype,
        offset,
        size_bytes,
        label: FixedText::new(label).expect("a short name"),
        flags: 0,
    };
    let rows = [
        row(TYPE_DATA, SUBTYPE_OTADATA, OTADATA, OTADATA_END - OTADATA, "otadata"),
        row(TYPE_APP, SUBTYPE_OTA_0, SLOT_0, IMAGE_BYTES, "app0"),
        row(TYPE_APP, SUBTYPE_OTA_0 + 1, SLOT_1, IMAGE_BYTES, "app1"),
        row(TYPE_DATA, SUBTYPE_UNDEFINED, RECORD, CAPACITY_BYTES - RECORD, RECORD_LABEL),
    ];
    PartitionTable::new(&rows).expect("a table that holds together")
}

const OTADATA: u32 = 0xE000;
const OTADATA_END: u32 = 0x1_0000;
const SLOT_0: u32 = 0x1_0000;
const SLOT_1: u32 = SLOT_0 + IMAGE_BYTES;
const RECORD: u32 = SLOT_1 + IMAGE_BYTES;
const RECORD_END: u32 = RECORD + lockstep_agent::layout::RECORD_BYTES;
const STORE_END: u32 = RECORD_END + lockstep_agent::layout::PACKAGE_STORE_BYTES;
/// The store needs no more: a board has 272 KiB, so that a world is made quickly.
const CAPACITY_BYTES: u32 = RECORD + 0xA000;
const TOUCHED_OTADATA: u8 = 4;
const TOUCHED_ALL: u8 = 7;
