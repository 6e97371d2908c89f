//! The flash of a device of the model: real bytes while something runs on it, and between two
//! steps no more than what they mean.
//!
//! What is put away and taken out again is not the same bytes: the record is written anew with the
//! latest entry of each kind, a slot that holds no whole image is blank. That the record survives
//! cuts at any byte, and that half an image is none, is shown by the agent's own tests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use lockstep_agent::{Agent, Kind, Layout, MemberRecord, RecordLog, Region};
use lockstep_proto::otadata::{ENTRY_BYTES, OtaEntry, OtaState};
use lockstep_proto::partition::{
    PartitionEntry, PartitionTable, SUBTYPE_OTA_0, SUBTYPE_OTADATA, SUBTYPE_UNDEFINED, TABLE_BYTES,
    TABLE_OFFSET, TYPE_APP, TYPE_DATA,
};
use lockstep_proto::text::FixedText;
use lockstep_proto::time::Instant;
use lockstep_rollout::{Cause, Phase, RECORD_BYTES_MAX, RolloutRecord, Verdict};
use lockstep_sim::flash::{FlashError, MemFlash, SECTOR_SIZE_BYTES};
use sha2::{Digest, Sha256};

use crate::release::{Group, Image, setup};

const OTADATA: usize = 0xE000;
const ENTRIES: [usize; 2] = [OTADATA, OTADATA + 0x1000];
const SLOTS: [usize; 2] = [0x1_0000, 0x2_0000];
/// Room for the smallest image; between the slots is the store, so that the flash is small.
const SLOT_BYTES: u32 = 0x2000;
const STORE: u32 = 0x1_2000;
const STORE_BYTES: u32 = 0x9000;
const FLASH_BYTES: u32 = 0x2_0000 + SLOT_BYTES;
/// The kinds of entries that matter here: member, rollout, epoch, progress. Boots are not counted.
const KINDS: [u8; 4] = [MEMBER, ROLLOUT, EPOCH, 10];
const MEMBER: u8 = 2;
const ROLLOUT: u8 = 3;
const EPOCH: u8 = 6;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    Old,
    New,
    NoImage,
}

/// What a flash means.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) entries: [[u8; ENTRY_BYTES]; 2],
    pub(crate) slots: [Slot; 2],
    has_package: bool,
    record: Arc<Record>,
}

/// The latest entries of a record, and the log that holds just them.
#[derive(Debug)]
struct Record {
    /// Kind, version and payload.
    entries: Entries,
    bytes: Vec<u8>,
    log: RecordLog,
}

type Entries = Vec<(u8, u8, Vec<u8>)>;

/// Makes flash from content and content from flash, for one device.
#[derive(Debug)]
pub(crate) struct Chip {
    blank: MemFlash,
    old: Vec<u8>,
    new: Vec<u8>,
    package: Vec<u8>,
    layout: Layout,
    records: Mutex<HashMap<Entries, Arc<Record>>>,
    /// Where the old image is at first: half of the devices run from the other slot.
    first_slot: u8,
}

impl Chip {
    pub(crate) fn new(group: &Group, index: usize) -> Self {
        let mut blank = MemFlash::new(FLASH_BYTES);
        let mut bytes = [0; TABLE_BYTES];
        table().write(&mut bytes);
        put(&mut blank, TABLE_OFFSET as usize, &bytes);
        let layout = Layout::find(&mut blank).unwrap();
        let file = |images: &[Image]| images[index].file.clone();
        let (old, new) = (file(&group.old), file(&group.new));
        let records = Mutex::default();
        let first_slot = u8::from(index % 2 == 1);
        let package = Vec::new();
        let mut chip = Self { blank, old, new, package, layout, records, first_slot };
        chip.package = chip.package_region(index, &group.package);
        chip
    }

    /// As its owner has it: the old image, confirmed, nothing else. A chip fresh from the factory
    /// would run from the first slot, where the bootloader also looks when it is told nothing.
    pub(crate) fn before(&self) -> MemFlash {
        let mut flash = self.blank.clone();
        put(&mut flash, SLOTS[usize::from(self.first_slot)], &self.old);
        let entry = OtaEntry::new(u32::from(self.first_slot) + 1, OtaState::Valid);
        put(&mut flash, ENTRIES[0], &entry.encode());
        flash
    }

    /// The store's bytes when the package is in it, as the agent writes them.
    fn package_region(&self, index: usize, package: &[u8]) -> Vec<u8> {
        let mut flash = self.before();
        let now = Instant::from_ms(0);
        let (mut agent, _) =
            Agent::boot(now, setup(index, self.first_slot, 0), &mut flash).unwrap();
        agent.install_package(now, package, &mut flash).unwrap();
        let at = self.layout.package().offset as usize;
        let end = flash.bytes[at..].iter().rposition(|byte| *byte != 0xFF);
        let record = self.layout.record().offset as usize;
        assert!(record < at, "the package is the last thing in the store");
        flash.bytes[at..=at + end.unwrap()].to_vec()
    }

    pub(crate) fn take_out(&self, content: &Content) -> MemFlash {
        let mut flash = self.blank.clone();
        for (at, entry) in ENTRIES.into_iter().zip(&content.entries) {
            put(&mut flash, at, entry);
        }
        for (at, slot) in SLOTS.into_iter().zip(content.slots) {
            match slot {
                Slot::Old => put(&mut flash, at, &self.old),
                Slot::New => put(&mut flash, at, &self.new),
                Slot::NoImage => (),
            }
        }
        if content.has_package {
            put(&mut flash, self.layout.package().offset as usize, &self.package);
        }
        put(&mut flash, self.layout.record().offset as usize, &content.record.bytes);
        flash
    }

    /// A log with just these entries.
    fn record(&self, entries: Entries) -> Arc<Record> {
        let mut records = self.records.lock().unwrap();
        let made = records.entry(entries).or_insert_with_key(|entries| {
            let mut flash = self.blank.clone();
            let region = self.layout.record();
            let mut log = RecordLog::open(&mut flash, region).unwrap();
            for (kind, version, payload) in entries {
                let kind = Kind::new(*kind).unwrap();
                log.write(&mut flash, kind, *version, payload).unwrap();
            }
            let log = RecordLog::open(&mut flash, region).unwrap();
            let bytes = &flash.bytes[region.offset as usize..];
            let bytes = bytes[..region.size_bytes as usize].to_vec();
            Arc::new(Record { entries: entries.clone(), bytes, log })
        });
        Arc::clone(made)
    }

    pub(crate) fn put_away(&self, flash: &mut MemFlash) -> Content {
        let entry = |at: usize| {
            let mut bytes = [0; ENTRY_BYTES];
            bytes.copy_from_slice(&flash.bytes[at..at + ENTRY_BYTES]);
            bytes
        };
        let slot = |at: usize| {
            let holds = |file: &[u8]| flash.bytes[at..].starts_with(file);
            match (holds(&self.old), holds(&self.new)) {
                (true, _) => Slot::Old,
                (_, true) => Slot::New,
                _ => Slot::NoImage,
            }
        };
        let at = self.layout.package().offset as usize;
        let entries = ENTRIES.map(entry);
        let slots = SLOTS.map(slot);
        let has_package = flash.bytes[at..].starts_with(&self.package);
        let record = self.record(entries_of(flash, self.layout.record()));
        Content { entries, slots, has_package, record }
    }
}

impl Content {
    /// The log of the record, as it stands in the flash that is taken out.
    pub(crate) fn log(&self) -> RecordLog {
        self.record.log.clone()
    }

    fn entry(&self, number: u8) -> Option<(u8, &[u8])> {
        let found = self.record.entries.iter().find(|(kind, ..)| *kind == number);
        found.map(|(_, version, payload)| (*version, payload.as_slice()))
    }

    /// The device's part in its last rollout.
    pub(crate) fn member(&self) -> MemberRecord {
        self.entry(MEMBER).map_or(MemberRecord::idle(), |(version, payload)| {
            MemberRecord::decode(version, payload).unwrap()
        })
    }

    /// What the device conducts.
    pub(crate) fn rollout(&self) -> Option<RolloutRecord> {
        self.entry(ROLLOUT).map(|(_, payload)| RolloutRecord::decode(payload).unwrap())
    }

    /// What the key tells of it: the numbers of otadata only as which is larger.
    pub(crate) fn key(&self, out: &mut String) {
        use std::fmt::Write;
        let [a, b] = self.entries.map(|bytes| OtaEntry::decode(&bytes));
        for (entry, bytes) in [a, b].iter().zip(&self.entries) {
            let blank = bytes.iter().all(|byte| *byte == 0xFF);
            match entry {
                Some(entry) => write!(out, "{}{:?}", entry.seq % 2, entry.state).unwrap(),
                None => out.push(if blank { '_' } else { '#' }),
            }
        }
        let larger = a.map(|entry| entry.seq) > b.map(|entry| entry.seq);
        write!(out, "{larger}{:?}{}", self.slots, self.has_package).unwrap();
        for (kind, version, payload) in &self.record.entries {
            let digest = Sha256::digest(payload);
            write!(out, ";{kind}.{version}.{:?}", digest.first_chunk::<16>()).unwrap();
        }
    }
}

/// The latest entry of each kind; of the rollout without what it never decides by.
fn entries_of(flash: &mut MemFlash, region: Region) -> Entries {
    let log = RecordLog::open(flash, region).unwrap();
    let mut buffer = [0; RECORD_BYTES_MAX];
    let mut found = Vec::new();
    for number in KINDS {
        let kind = Kind::new(number).unwrap();
        if let Some((version, len)) = log.read(flash, kind, &mut buffer).unwrap() {
            let mut payload = buffer[..len].to_vec();
            if number == ROLLOUT {
                payload = without_cause(&payload);
            }
            found.push((number, version, payload));
        }
    }
    found
}

/// A verdict's cause and the number of restarts are for people and for a limit that is not here.
pub(crate) fn without_cause(payload: &[u8]) -> Vec<u8> {
    let mut record = RolloutRecord::decode(payload).unwrap();
    record.restarts = 0;
    let revert = Verdict::Revert(Cause::Aborted);
    record.phase = match record.phase {
        Phase::Settling(Verdict::Revert(_)) => Phase::Settling(revert),
        Phase::Settled(Verdict::Revert(_)) => Phase::Settled(revert),
        other => other,
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    record.encode(&mut buffer).unwrap().to_vec()
}

/// A device's flash, taken out when it is needed; takes down what changes cost, so that the places
/// where the power can go are known.
pub(crate) struct Tape<'a> {
    chip: &'a Chip,
    content: &'a Content,
    budget: Option<u64>,
    flash: Option<MemFlash>,
    pub(crate) costs: Vec<u64>,
}

impl<'a> Tape<'a> {
    pub(crate) fn new(chip: &'a Chip, content: &'a Content, budget: Option<u64>) -> Self {
        Self { chip, content, budget, flash: None, costs: Vec::new() }
    }

    pub(crate) fn power_lost(&self) -> bool {
        self.flash.as_ref().is_some_and(MemFlash::power_lost)
    }

    /// What it means now.
    pub(crate) fn put_away(mut self) -> (Content, Vec<u64>) {
        match &mut self.flash {
            Some(flash) if !self.costs.is_empty() => {
                flash.power_on();
                (self.chip.put_away(flash), self.costs)
            }
            _ => (self.content.clone(), self.costs),
        }
    }

    fn flash(&mut self) -> &mut MemFlash {
        self.flash.get_or_insert_with(|| {
            let mut flash = self.chip.take_out(self.content);
            flash.power_budget_bytes = self.budget;
            flash
        })
    }
}

impl ErrorType for Tape<'_> {
    type Error = FlashError;
}

impl ReadNorFlash for Tape<'_> {
    const READ_SIZE: usize = MemFlash::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.flash().read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.chip.blank.capacity()
    }
}

impl NorFlash for Tape<'_> {
    const WRITE_SIZE: usize = MemFlash::WRITE_SIZE;
    const ERASE_SIZE: usize = MemFlash::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        let sectors = (to - from).div_ceil(SECTOR_SIZE_BYTES);
        self.costs.extend((0..sectors).map(|_| MemFlash::ERASE_COST));
        self.flash().erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.costs.push(bytes.len() as u64);
        self.flash().write(offset, bytes)
    }
}

fn put(flash: &mut MemFlash, at: usize, bytes: &[u8]) {
    flash.bytes[at..at + bytes.len()].copy_from_slice(bytes);
}

fn table() -> PartitionTable {
    let row = |kind, subtype, offset, size_bytes, label: &str| PartitionEntry {
        kind,
        subtype,
        offset,
        size_bytes,
        label: FixedText::new(label).unwrap(),
        flags: 0,
    };
    PartitionTable::new(&[
        row(TYPE_DATA, SUBTYPE_OTADATA, 0xE000, 0x2000, "otadata"),
        row(TYPE_APP, SUBTYPE_OTA_0, 0x1_0000, SLOT_BYTES, "app0"),
        row(TYPE_DATA, SUBTYPE_UNDEFINED, STORE, STORE_BYTES, "lockstep"),
        row(TYPE_APP, SUBTYPE_OTA_0 + 1, 0x2_0000, SLOT_BYTES, "app1"),
    ])
    .unwrap()
}
