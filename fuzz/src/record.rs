//! The record: the log in flash, and every entry that a device keeps in it.
//!
//! The first byte chooses: a flash of the fuzzer's bytes, a flash with entries whose checksums are
//! right, or one entry's payload. For a flash, the next bytes say what is written into it and
//! where the power goes.
//!
//! Promises: any flash opens; an entry that was written is read back, also after a restart, and
//! leaves every other as it was; where the power goes in the middle, it is the old or the new one;
//! payloads that decode encode, and decode to the same; a node starts on any payloads, and keeps
//! within its memory.

use std::collections::BTreeMap;

use crc::{CRC_32_ISO_HDLC, Crc};
use lockstep_agent::layout::RECORD_BYTES;
use lockstep_agent::member::MEMBER_BYTES_MAX;
use lockstep_agent::package::{PACKAGE_SIZE_BYTES_MAX, Package};
use lockstep_agent::record::{KINDS, PAYLOAD_BYTES_MAX};
use lockstep_agent::{Kind, MemberRecord, RecordLog, Region};
use lockstep_device::history::{HISTORY_BYTES_MAX, History};
use lockstep_device::identity::{IMAGES_BYTES_MAX, KnownImages};
use lockstep_device::password::Password;
use lockstep_device::patched::Patched;
use lockstep_proto::manifest::Trust;
use lockstep_rollout::{RECORD_BYTES_MAX, RolloutRecord};
use lockstep_sim::flash::MemFlash;

use crate::memory;
use crate::world::{self, World};

/// First byte of an input: what follows is flash.
pub const FLASH: u8 = 0;
/// First byte of an input: what follows are entries.
pub const ENTRIES: u8 = 1;
/// First byte of an input: what follows is the number of an entry and its payload.
pub const PAYLOAD: u8 = 2;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let _ = world::releases();
    let _ = World::new(0);
    memory::within(MEMORY_BYTES_MAX, || match (choice % 3, bytes) {
        (FLASH, [kind, version, length, low, high, bytes @ ..]) => {
            let write = Write::of(*kind, *version, *length, [*low, *high], bytes);
            check_flash(&flash_of(bytes), &write);
        }
        (ENTRIES, [kind, version, length, low, high, bytes @ ..]) => {
            let write = Write::of(*kind, *version, *length, [*low, *high], bytes);
            check_flash(&entries_of(bytes), &write);
        }
        (PAYLOAD, [number, version, payload @ ..]) => {
            check_payload(*number, *version, payload);
            check_node(*number, *version, payload);
        }
        _ => (),
    });
}

/// What is written into the log.
#[derive(Debug)]
struct Write<'a> {
    kind: Kind,
    version: u8,
    payload: &'a [u8],
    budget: u64,
}

impl<'a> Write<'a> {
    fn of(kind: u8, version: u8, length: u8, budget: [u8; 2], bytes: &'a [u8]) -> Self {
        let length = (usize::from(length) * 16).min(bytes.len());
        Self {
            kind: Kind::new(kind % (KINDS - 1) + 1).expect("below the number of kinds"),
            version,
            payload: &bytes[..length],
            budget: u16::from_le_bytes(budget).into(),
        }
    }
}

/// The first half begins with the fuzzer's bytes, the second with the latter half of them.
fn flash_of(bytes: &[u8]) -> MemFlash {
    let mut flash = MemFlash::new(RECORD_BYTES);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for (at, half) in [(0, first), (HALF_BYTES, second)] {
        let half = &half[..half.len().min(HALF_BYTES)];
        flash.bytes[at..at + half.len()].copy_from_slice(half);
    }
    flash
}

/// Each entry is kind, version, length in words, and so many bytes; what is behind the last one is
/// written behind it as it is. The byte before all says which half.
fn entries_of(bytes: &[u8]) -> MemFlash {
    let mut flash = MemFlash::new(RECORD_BYTES);
    let Some((&half, mut rest)) = bytes.split_first() else { return flash };
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let mut log = b"LSR1\x01\0\0\0\x05\0\0\0".to_vec();
    log.extend(crc.checksum(&log).to_le_bytes());
    while let Some((&[kind, version, words], behind)) = rest.split_first_chunk() {
        let length = usize::from(words) * 4;
        if behind.len() < length || log.len() + length + 8 > HALF_BYTES {
            break;
        }
        let (payload, behind) = behind.split_at(length);
        let start = log.len();
        log.extend([kind, version]);
        log.extend(u16::try_from(length).expect("a short entry").to_le_bytes());
        log.extend(payload);
        log.extend(crc.checksum(&log[start..]).to_le_bytes());
        rest = behind;
    }
    log.extend(&rest[..rest.len().min(HALF_BYTES - log.len())]);
    let at = usize::from(half % 2) * HALF_BYTES;
    flash.bytes[at..at + log.len()].copy_from_slice(&log);
    flash
}

type Entries = BTreeMap<u8, (u8, Vec<u8>)>;

fn check_flash(start: &MemFlash, write: &Write<'_>) {
    let mut flash = start.clone();
    let mut log = open(&mut flash);
    let before = read(&log, &mut flash);
    assert_eq!(flash.bytes, start.bytes, "opening writes nothing");
    let mut after = before.clone();
    let written = log.write(&mut flash, write.kind, write.version, write.payload);
    match &written {
        Ok(()) => {
            let new = (write.version, write.payload.to_vec());
            after.insert(number_of(write.kind), new);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert_eq!(read(&log, &mut flash), after, "{written:?}");
    let reopened = open(&mut flash);
    assert_eq!(read(&reopened, &mut flash), after, "after a restart");

    let mut torn = start.clone();
    torn.power_budget_bytes = Some(write.budget);
    let mut log = open(&mut torn);
    let cut = log.write(&mut torn, write.kind, write.version, write.payload);
    torn.power_on();
    let mut log = open(&mut torn);
    let found = read(&log, &mut torn);
    assert!(found == after || cut.is_err() && found == before, "{cut:?} after {write:?}");
    // And a log that the power cut short can be written on, with something else than before.
    if written.is_ok() {
        let version = write.version.wrapping_add(1);
        log.write(&mut torn, write.kind, version, write.payload).expect("as before");
        after.insert(number_of(write.kind), (version, write.payload.to_vec()));
        assert_eq!(read(&log, &mut torn), after);
    }
}

fn open(flash: &mut MemFlash) -> RecordLog {
    let region = Region { offset: 0, size_bytes: RECORD_BYTES };
    RecordLog::open(flash, region).expect("flash in memory")
}

fn read(log: &RecordLog, flash: &mut MemFlash) -> Entries {
    let mut entries = Entries::new();
    for number in 1..KINDS {
        let kind = Kind::new(number).expect("below the number of kinds");
        let mut payload = vec![0; HALF_BYTES];
        if let Some((version, length)) = log.read(flash, kind, &mut payload).expect("in memory") {
            payload.truncate(length);
            entries.insert(number, (version, payload));
        }
    }
    entries
}

fn number_of(kind: Kind) -> u8 {
    (1..KINDS).find(|&number| Kind::new(number) == Some(kind)).expect("it was made from one")
}

fn check_payload(number: u8, version: u8, payload: &[u8]) {
    match number % 6 {
        0 => check_member(version, payload),
        1 => check_rollout(payload),
        2 => check_history(payload),
        3 => check_images(payload),
        4 => check_password(payload),
        _ => check_package(payload),
    }
}

fn check_member(version: u8, payload: &[u8]) {
    let Ok(member) = MemberRecord::decode(version, payload) else { return };
    let mut buffer = [0; MEMBER_BYTES_MAX];
    let length = member.encode(&mut buffer).expect("what was read fits");
    assert_eq!(MemberRecord::decode(member.version(), &buffer[..length]), Ok(member));
}

fn check_rollout(payload: &[u8]) {
    let payload = &payload[..payload.len().min(RECORD_BYTES_MAX)];
    let record = match RolloutRecord::decode(payload) {
        Ok(record) => record,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    let written = record.encode(&mut buffer).expect("what was read fits");
    // A record of version 1 ends before its flags.
    let added = written.len().checked_sub(payload.len());
    assert!(matches!(added, Some(0 | 1)), "nothing is left out");
    assert_eq!(RolloutRecord::decode(written).as_ref(), Ok(&record));
    let mut history = History::default();
    assert_eq!(
        history.note(&record, Patched::default()).is_some(),
        record.phase.verdict().is_some()
    );
}

fn check_history(payload: &[u8]) {
    let history = History::decode(payload);
    let mut buffer = [0; HISTORY_BYTES_MAX];
    let length = history.encode(&mut buffer).expect("what was read fits");
    assert_eq!(History::decode(&buffer[..length]), history);
}

fn check_images(payload: &[u8]) {
    let images = KnownImages::decode(payload);
    let mut buffer = [0; IMAGES_BYTES_MAX];
    let length = images.encode(&mut buffer).expect("what was read fits");
    assert_eq!(KnownImages::decode(&buffer[..length]), images);
}

fn check_password(payload: &[u8]) {
    let Ok(password) = Password::decode(payload) else { return };
    assert_eq!(password.encode(), payload[..Password::LEN_BYTES]);
}

fn check_package(payload: &[u8]) {
    match Package::parse(payload) {
        Ok(package) => {
            let mut buffer = vec![0; PACKAGE_SIZE_BYTES_MAX];
            let length = Package::write(package.manifest, &package.signatures, &mut buffer);
            let length = length.expect("what was read fits");
            assert_eq!(&buffer[..length], payload);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A lead and a member start with this as one of their entries, and live on for a while.
fn check_node(number: u8, version: u8, payload: &[u8]) {
    let payload = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
    let kind = Kind::new(number % (KINDS - 1) + 1).expect("below the number of kinds");
    // Whoever damages the keys must not get a device that trusts anybody: it does not start.
    if kind == Kind::TRUST && Trust::decode(payload).is_err() {
        return;
    }
    let mut world = World::new(STEPS_MAX);
    world.write_entry(kind, version, payload);
    world.run_ms(LIFE_MS);
    world.check();
}

const HALF_BYTES: usize = 0x2000;
const STEPS_MAX: u32 = 40;
const LIFE_MS: u64 = 2_000;
const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;
