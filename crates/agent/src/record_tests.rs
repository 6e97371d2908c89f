//! The record under power cuts, full, torn, and as other versions wrote it.

use core::error::Error as _;
use std::string::ToString;
use std::vec::Vec;
use std::{format, vec};

use lockstep_sim::flash::MemFlash;
use proptest::prelude::*;

use super::*;

const REGION: Region = Region { offset: 0x1000, size_bytes: 2 * HALF_BYTES };
const KINDS_USED: [Kind; 3] = [Kind::BOOT_NUMBER, Kind::MEMBER, Kind(20)];

fn flash() -> MemFlash {
    MemFlash::new(REGION.end() + 0x1000)
}

fn value(flash: &mut MemFlash, kind: Kind) -> Option<(u8, Vec<u8>)> {
    let log = RecordLog::open(flash, REGION).unwrap();
    let mut payload = [0; PAYLOAD_BYTES_MAX];
    let (version, length) = log.read(flash, kind, &mut payload).unwrap()?;
    Some((version, payload[..length].to_vec()))
}

/// The payload of the `n`th write: lengths that need padding and lengths that need none.
fn payload(n: usize) -> Vec<u8> {
    let byte = u8::try_from(n % 251).unwrap();
    vec![byte; 180 + n % 7]
}

fn write(flash: &mut MemFlash, log: &mut RecordLog, n: usize) -> Result<(), RecordError> {
    let version = u8::try_from(n % 5).unwrap();
    log.write(flash, KINDS_USED[n % 3], version, &payload(n))
}

fn expected(n: usize) -> (u8, Vec<u8>) {
    (u8::try_from(n % 5).unwrap(), payload(n))
}

#[test]
fn an_erased_or_strange_region_is_an_empty_log() {
    let mut flash = flash();
    assert_eq!(value(&mut flash, Kind::MEMBER), None);
    flash.bytes.fill(0x5A);
    assert_eq!(value(&mut flash, Kind::MEMBER), None);
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    log.write(&mut flash, Kind::MEMBER, 1, b"first").unwrap();
    assert_eq!(value(&mut flash, Kind::MEMBER), Some((1, b"first".to_vec())));
}

#[test]
fn the_latest_entry_of_a_kind_counts_over_many_compactions() {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    for n in 0..500 {
        write(&mut flash, &mut log, n).unwrap();
        for (index, kind) in KINDS_USED.into_iter().enumerate().take(n + 1) {
            let latest = (0..=n).rev().find(|n| n % 3 == index).unwrap();
            assert_eq!(value(&mut flash, kind), Some(expected(latest)), "{n}");
        }
    }
    let sectors = &flash.statistics.sector_erases[1..5];
    assert!(sectors.iter().all(|&erases| (3..30).contains(&erases)), "{sectors:?}");
}

/// Pulls the plug after every byte of a sequence that fills a half and moves to the other one.
#[test]
fn a_cut_anywhere_leaves_the_old_or_the_new_value_and_never_loses_another() {
    let mut full = flash();
    let mut log = RecordLog::open(&mut full, REGION).unwrap();
    let mut first = 0;
    while log.active.as_ref().is_none_or(|half| half.end + 300 < HALF_BYTES) {
        write(&mut full, &mut log, first).unwrap();
        first += 1;
    }
    let writes = first..first + 4;
    let mut compacted = false;
    for budget in 0.. {
        let mut flash = full.clone();
        flash.power_budget_bytes = Some(budget);
        let mut log = RecordLog::open(&mut flash, REGION).unwrap();
        let offset_before = log.active.as_ref().map(|half| half.offset);
        let done = writes.clone().take_while(|&n| write(&mut flash, &mut log, n).is_ok()).count();
        compacted |= log.active.as_ref().map(|half| half.offset) != offset_before;

        flash.power_on();
        for (index, kind) in KINDS_USED.into_iter().enumerate() {
            let latest = |end: usize| (0..end).rev().find(|n| n % 3 == index).map(expected);
            let found = value(&mut flash, kind);
            let (old, new) = (latest(first + done), latest(first + done + 1));
            assert!(found == old || found == new, "{kind:?}, cut after {budget} units");
        }
        // Whatever was torn, the next boot can write.
        let mut log = RecordLog::open(&mut flash, REGION).unwrap();
        log.write(&mut flash, Kind::EPOCH, 1, b"next").unwrap();
        assert_eq!(value(&mut flash, Kind::EPOCH), Some((1, b"next".to_vec())));
        if done == writes.len() {
            assert!(compacted, "the sequence must reach the other half");
            return;
        }
    }
}

// A second cut, while the remains of the first are being cleared away.
#[test]
fn a_cut_during_the_compaction_after_a_torn_write_loses_nothing_either() {
    let mut torn = flash();
    let mut log = RecordLog::open(&mut torn, REGION).unwrap();
    (0..6).for_each(|n| write(&mut torn, &mut log, n).unwrap());
    torn.power_budget_bytes = Some(90);
    write(&mut torn, &mut log, 6).unwrap_err();
    torn.power_on();
    for budget in 0.. {
        let mut flash = torn.clone();
        flash.power_budget_bytes = Some(budget);
        let mut log = RecordLog::open(&mut flash, REGION).unwrap();
        assert!(log.active.as_ref().unwrap().torn);
        let result = write(&mut flash, &mut log, 7);
        flash.power_on();
        assert_eq!(value(&mut flash, KINDS_USED[0]), Some(expected(3)), "cut after {budget}");
        assert_eq!(value(&mut flash, KINDS_USED[2]), Some(expected(5)), "cut after {budget}");
        let found = value(&mut flash, KINDS_USED[1]);
        assert!(found == Some(expected(4)) || found == Some(expected(7)), "cut after {budget}");
        if result.is_ok() {
            return;
        }
    }
}

#[test]
fn an_entry_that_is_there_already_is_not_written_again() {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    log.write(&mut flash, Kind::EPOCH, 1, &[7; 9]).unwrap();
    let written = flash.statistics.bytes_written;
    log.write(&mut flash, Kind::EPOCH, 1, &[7; 9]).unwrap();
    assert_eq!(flash.statistics.bytes_written, written);
    log.write(&mut flash, Kind::EPOCH, 2, &[7; 9]).unwrap();
    assert!(flash.statistics.bytes_written > written);
}

#[test]
fn a_damaged_entry_does_not_hide_the_one_before_it() {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    log.write(&mut flash, Kind::EPOCH, 1, &[1; 8]).unwrap();
    log.write(&mut flash, Kind::EPOCH, 1, &[2; 8]).unwrap();
    let at = (REGION.offset + HEADER_BYTES + 16 + HEAD_BYTES) as usize;
    assert_eq!(flash.bytes[at], 2);
    flash.bytes[at] = 0;
    assert_eq!(value(&mut flash, Kind::EPOCH), Some((1, vec![1; 8])));
}

// The log of an application must never keep a device from storing its part in a rollout.
#[test]
fn what_is_not_vital_leaves_room_for_what_is() {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    log.write(&mut flash, Kind::HISTORY, 1, &[1; 3600]).unwrap();
    let error = log.write(&mut flash, Kind::SETTINGS, 1, &[1; 3700]).unwrap_err();
    assert!(matches!(error, RecordError::Full { .. }), "{error}");
    log.write(&mut flash, Kind::SETTINGS, 1, &[1; 3400]).unwrap();
    for n in 0..40_u8 {
        log.write(&mut flash, Kind::MEMBER, 1, &[n; 233]).unwrap();
        log.write(&mut flash, Kind::TRUST, 1, &[n; 324]).unwrap();
        log.write(&mut flash, Kind::PROGRESS, 1, &[n; 38]).unwrap();
        log.write(&mut flash, Kind::BOOT_NUMBER, 1, &[n; 4]).unwrap();
        log.write(&mut flash, Kind::EPOCH, 1, &[n; 4]).unwrap();
    }
    assert_eq!(value(&mut flash, Kind::HISTORY), Some((1, vec![1; 3600])));
}

#[test]
fn a_payload_beyond_the_limit_is_refused_with_both_lengths() {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    let error = log.write(&mut flash, Kind::HISTORY, 1, &[0; 4001]).unwrap_err();
    assert_eq!(format!("{error}"), "`record` entry has 4001 bytes, the limit is 4000");
}

#[test]
fn the_latest_entries_may_fill_a_half_but_for_what_is_kept_free() {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    log.write(&mut flash, Kind::HISTORY, 1, &[1; 4000]).unwrap();
    // With heads and checksums, and 1024 bytes for what is vital.
    let full = RecordError::Full { needed_bytes: 8180, limit_bytes: 8176 };
    assert_eq!(log.write(&mut flash, Kind::SETTINGS, 1, &[1; 3137]), Err(full));
    log.write(&mut flash, Kind::SETTINGS, 1, &[1; 3136]).unwrap();
    assert_eq!(value(&mut flash, Kind::HISTORY), Some((1, vec![1; 4000])));
    assert_eq!(value(&mut flash, Kind::SETTINGS), Some((1, vec![1; 3136])));
}

#[test]
fn an_error_names_the_record_and_leaves_the_cause_to_its_source() {
    let fault = FlashFault { operation: Operation::Erase, offset: 0x3000 };
    let failed = RecordError::from(fault);
    assert_eq!(failed.to_string(), "could not write the `record`");
    assert_eq!(failed.source().unwrap().to_string(), fault.to_string());
    let full = RecordError::Full { needed_bytes: 8180, limit_bytes: 8176 };
    assert_eq!(full.to_string(), "`record` would need 8180 bytes, it has 8176");
    assert!(full.source().is_none());
}

#[test]
fn a_header_with_one_wrong_bit_or_of_another_kind_is_none() {
    let header = Header::new(FORMAT, 5).0;
    for bit in 0..128 {
        let mut spoilt = header;
        spoilt[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(spoilt).is_none(), "bit {bit}");
    }
    let mut other = header;
    other[..4].copy_from_slice(b"LSR2");
    let crc = CRC.checksum(&other[..12]);
    other[12..].copy_from_slice(&crc.to_le_bytes());
    assert!(Header::decode(other).is_none());
    assert_eq!(Header::decode(header).unwrap().sequence(), 5);
}

/// A flash with `count` writes, and its log as the next boot finds it.
fn written(count: usize) -> (MemFlash, RecordLog, Half) {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    (0..count).for_each(|n| write(&mut flash, &mut log, n).unwrap());
    let log = RecordLog::open(&mut flash, REGION).unwrap();
    let half = log.active.clone().unwrap();
    (flash, log, half)
}

/// How many writes leave the first half in force, and how many the second one.
const COUNTS: [usize; 2] = [20, 60];

// What reads as written in this boot may read as erased in the next one.
#[test]
fn the_first_write_of_a_boot_programs_header_and_last_checksum_once_more() {
    for count in COUNTS {
        let (mut flash, mut log, half) = written(count);
        let (at, head) = half.last.unwrap();
        let header = half.offset as usize..(half.offset + HEADER_BYTES) as usize;
        let end = (half.offset + at + head.entry_bytes()) as usize;
        let crc = end - CRC_BYTES as usize..end;
        let before = flash.bytes.clone();
        flash.bytes[header.clone()].fill(0xFF);
        flash.bytes[crc.clone()].fill(0xFF);
        log.write(&mut flash, Kind::EPOCH, 1, b"next").unwrap();
        assert_eq!(flash.bytes[header.clone()], before[header]);
        assert_eq!(flash.bytes[crc.clone()], before[crc]);
    }
}

// It was not in force in this boot, but its bits might read differently in another.
#[test]
fn the_first_write_of_a_boot_spoils_the_other_half_and_nothing_around_the_record() {
    let [first, second] = [REGION.offset, REGION.offset + HALF_BYTES];
    for (count, offset, other) in [(COUNTS[0], first, second), (COUNTS[1], second, first)] {
        let (mut flash, mut log, half) = written(count);
        assert_eq!(half.offset, offset, "{count}");
        log.write(&mut flash, Kind::EPOCH, 1, b"next").unwrap();
        assert_eq!(flash.bytes[other as usize..][..4], CLEARED);
        assert_eq!(flash.bytes[offset as usize..][..4], MAGIC);
        let around = [&flash.bytes[..first as usize], &flash.bytes[REGION.end() as usize..]];
        assert!(around.concat().iter().all(|&byte| byte == 0xFF), "{count}");
    }
}

#[test]
fn the_first_write_of_a_boot_goes_behind_an_entry_that_says_nothing() {
    for count in COUNTS {
        let (mut flash, mut log, half) = written(count);
        let erases = flash.statistics.erases_total();
        log.write(&mut flash, Kind::EPOCH, 1, b"next").unwrap();
        log.write(&mut flash, Kind::EPOCH, 1, b"last").unwrap();
        let mut expected = vec![0; 4];
        expected.extend(CRC.checksum(&[0; 4]).to_le_bytes());
        for payload in [b"next", b"last"] {
            let entry = [&[Kind::EPOCH.0, 1, 4, 0], &payload[..]].concat();
            expected.extend(&entry);
            expected.extend(CRC.checksum(&entry).to_le_bytes());
        }
        let end = (half.offset + half.end) as usize;
        assert_eq!(flash.bytes[end..end + expected.len()], expected);
        assert_eq!(flash.statistics.erases_total(), erases, "there is room in the half");
    }
}

#[test]
fn behind_a_torn_entry_nothing_is_written() {
    for count in COUNTS {
        let (mut flash, _, half) = written(count);
        let end = (half.offset + half.end) as usize;
        flash.bytes[end + 100] = 0;
        let before = flash.bytes[end..end + 200].to_vec();
        let mut log = RecordLog::open(&mut flash, REGION).unwrap();
        log.write(&mut flash, Kind::EPOCH, 1, b"next").unwrap();
        assert_eq!(flash.bytes[end..end + 200], before);
        assert_ne!(log.active.unwrap().offset, half.offset);
        assert_eq!(value(&mut flash, Kind::EPOCH), Some((1, b"next".to_vec())));
    }
}

/// A log whose second half is in force, with an empty password as its last entry, which ends at
/// `end`.
fn filled(flash: &mut MemFlash, end: u32) {
    let mut log = RecordLog::open(flash, REGION).unwrap();
    for n in 0..=255 {
        let half = log.active.as_ref().filter(|half| half.offset != REGION.offset);
        let left = half.map_or(u32::MAX, |half| end - half.end - NOTHING.entry_bytes());
        if left == 0 {
            return log.write(flash, Kind::PASSWORD, 1, b"").unwrap();
        }
        let length = if left > 2000 { 1000 } else { left - HEAD_BYTES - CRC_BYTES };
        log.write(flash, Kind::MEMBER, 1, &vec![n; length as usize]).unwrap();
    }
    unreachable!("a half holds fewer entries");
}

// On some boards nothing but the end of the chip follows.
#[test]
fn a_half_may_be_full_to_its_last_byte_whatever_follows_it() {
    for end in [HALF_BYTES - 8, HALF_BYTES - 4, HALF_BYTES] {
        for capacity in [REGION.end(), REGION.end() + 0x1000] {
            let mut flash = MemFlash::new(capacity);
            filled(&mut flash, end);
            let mut log = RecordLog::open(&mut flash, REGION).unwrap();
            assert_eq!(log.active.as_ref().unwrap().end, end);
            assert_eq!(value(&mut flash, Kind::PASSWORD), Some((1, vec![])));
            log.write(&mut flash, Kind::EPOCH, 1, b"next").unwrap();
            assert_eq!(log.active.as_ref().unwrap().offset, REGION.offset);
            assert_eq!(value(&mut flash, Kind::EPOCH), Some((1, b"next".to_vec())));
            assert_eq!(value(&mut flash, Kind::PASSWORD), Some((1, vec![])));
            let behind = &flash.bytes[REGION.end() as usize..];
            assert!(behind.iter().all(|&byte| byte == 0xFF), "{end:#x}");
        }
    }
}

/// A dump of the log as version 1 writes it: devices in the field hold these bytes.
const GOLDEN: &[u8] = include_bytes!("../tests/golden/record-v1.bin");

/// What stands in the golden dump; enough to have been compacted once.
fn golden_log() -> MemFlash {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    log.write(&mut flash, Kind::BOOT_NUMBER, 1, &7_u32.to_le_bytes()).unwrap();
    log.write(&mut flash, Kind::SETTINGS, 3, b"of an odd length").unwrap();
    log.write(&mut flash, Kind::PASSWORD, 1, b"").unwrap();
    for n in 0..50 {
        log.write(&mut flash, Kind::MEMBER, 1, &payload(n)).unwrap();
    }
    log.write(&mut flash, Kind::BOOT_NUMBER, 1, &8_u32.to_le_bytes()).unwrap();
    flash
}

fn holds_golden(flash: &mut MemFlash) {
    assert_eq!(value(flash, Kind::BOOT_NUMBER), Some((1, vec![8, 0, 0, 0])));
    assert_eq!(value(flash, Kind::SETTINGS), Some((3, b"of an odd length".to_vec())));
    assert_eq!(value(flash, Kind::PASSWORD), Some((1, vec![])));
    assert_eq!(value(flash, Kind::MEMBER), Some((1, payload(49))));
    assert_eq!(value(flash, Kind::EPOCH), None);
}

// Run with `UPDATE_GOLDEN=1` after adding a kind, and review what changed.
#[test]
fn the_golden_dump_is_what_is_written_and_stays_readable() {
    let written = golden_log();
    let region = REGION.offset as usize..REGION.end() as usize;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/record-v1.bin");
        std::fs::write(path, &written.bytes[region.clone()]).unwrap();
    }
    let mut read = flash();
    read.bytes[region.clone()].copy_from_slice(GOLDEN);
    holds_golden(&mut read);
    assert!(written.bytes[region] == *GOLDEN, "the format has changed");
}

// A lead or a member reboots into older firmware in the middle of a rollout.
#[test]
fn an_old_binary_reads_what_a_newer_one_wrote_and_carries_it_along() {
    let mut flash = flash();
    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    let future = Kind::new(31).unwrap();
    log.write(&mut flash, future, 9, b"of a kind to come").unwrap();
    log.write(&mut flash, Kind::EPOCH, 9, b"abcd and trailing bytes").unwrap();
    // Of a later format, whose header says more.
    let header = Header::new(7, 1).0;
    let start = REGION.offset as usize;
    flash.bytes[start..start + header.len()].copy_from_slice(&header);

    let mut log = RecordLog::open(&mut flash, REGION).unwrap();
    let mut known = [0; 4];
    let found = log.read(&mut flash, Kind::EPOCH, &mut known).unwrap();
    assert_eq!((found, &known), (Some((9, 23)), b"abcd"));
    for n in 0..100 {
        write(&mut flash, &mut log, n).unwrap();
    }
    assert_eq!(value(&mut flash, future), Some((9, b"of a kind to come".to_vec())));
    assert_eq!(value(&mut flash, Kind::EPOCH), Some((9, b"abcd and trailing bytes".to_vec())));
    let header = RecordLog::open(&mut flash, REGION).unwrap().active.unwrap().header;
    assert_eq!(header.0[4..6], [7, 0]);
}

proptest! {
    /// Any writes with any cut between them: what a write that succeeded has stored is there, and
    /// what a failed one was about has its old or its new value.
    #[test]
    fn no_sequence_of_writes_and_cuts_loses_a_stored_value(
        steps in prop::collection::vec(
            (0..4_u8, 0..900_usize, prop::option::of(0..2000_u64)), 1..60
        )
    ) {
        let mut flash = flash();
        let mut log = RecordLog::open(&mut flash, REGION).unwrap();
        let mut known: [Vec<Option<Vec<u8>>>; 4] = [const { Vec::new() }; 4];
        known.iter_mut().for_each(|values| values.push(None));
        for (n, (kind, length, budget)) in steps.into_iter().enumerate() {
            let payload = vec![u8::try_from(n).unwrap(); length];
            flash.power_budget_bytes = budget;
            let values = &mut known[usize::from(kind)];
            match log.write(&mut flash, Kind(kind + 1), 1, &payload) {
                Ok(()) => *values = vec![Some(payload)],
                Err(RecordError::Flash(_)) => values.push(Some(payload)),
                Err(_) => {}
            }
            if flash.power_lost() {
                flash.power_on();
                log = RecordLog::open(&mut flash, REGION).unwrap();
            }
            flash.power_budget_bytes = None;
            for (kind, values) in (0..).zip(&mut known) {
                let found = value(&mut flash, Kind(kind + 1)).map(|(_, payload)| payload);
                prop_assert!(values.contains(&found), "kind {}", kind);
                *values = vec![found];
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut flash = flash();
        let start = REGION.offset as usize;
        let header = Header::new(1, 1).0;
        flash.bytes[start..start + header.len()].copy_from_slice(&header);
        let start = start + header.len();
        flash.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
        let mut log = RecordLog::open(&mut flash, REGION).unwrap();
        log.write(&mut flash, Kind::MEMBER, 1, b"still").unwrap();
        prop_assert_eq!(value(&mut flash, Kind::MEMBER), Some((1, b"still".to_vec())));
    }
}

/// A flash in which a cut leaves the rest of its byte's bits between 0 and 1: they read as
/// `reads_written` says until they are written once more, or erased.
#[derive(Debug, Clone)]
struct WeakFlash {
    memory: MemFlash,
    weak: Option<(u32, u8)>,
    reads_written: bool,
}

impl embedded_storage::nor_flash::ErrorType for WeakFlash {
    type Error = <MemFlash as embedded_storage::nor_flash::ErrorType>::Error;
}

impl ReadNorFlash for WeakFlash {
    const READ_SIZE: usize = MemFlash::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.memory.read(offset, bytes)?;
        if let Some((at, bits)) = self.weak.filter(|_| self.reads_written)
            && let Some(byte) = at.checked_sub(offset).and_then(|at| bytes.get_mut(at as usize))
        {
            *byte &= !bits;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.memory.capacity()
    }
}

impl NorFlash for WeakFlash {
    const WRITE_SIZE: usize = MemFlash::WRITE_SIZE;
    const ERASE_SIZE: usize = MemFlash::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.weak = self.weak.filter(|(at, _)| !(from..to).contains(at));
        self.memory.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        let budget = self.memory.power_budget_bytes;
        let had_power = !self.memory.power_lost();
        let written = self.memory.write(offset, bytes);
        let index_of = |at: u32| at.checked_sub(offset).map(|index| index as usize);
        if let (true, true, Some(done)) = (had_power, self.memory.power_lost(), budget) {
            let done = usize::try_from(done).unwrap();
            let at = offset + u32::try_from(done).unwrap();
            let wanted = bytes.get(done).copied().unwrap_or(0xFF);
            let between = self.memory.bytes[at as usize] & !wanted;
            self.weak = (between != 0).then_some((at, between));
        } else if let Some((at, bits)) = self.weak {
            let firm = index_of(at).and_then(|index| bytes.get(index)).map_or(0, |byte| !byte);
            self.weak = Some((at, bits & !firm)).filter(|(_, bits)| *bits != 0);
        }
        written
    }
}

fn value_of(log: &RecordLog, flash: &mut WeakFlash, kind: Kind) -> Option<(u8, Vec<u8>)> {
    let mut payload = [0; PAYLOAD_BYTES_MAX];
    let (version, length) = log.read(flash, kind, &mut payload).unwrap()?;
    Some((version, payload[..length].to_vec()))
}

// What was built upon such a byte would be gone when it reads differently.
#[test]
fn bits_that_a_cut_left_in_between_lose_nothing_however_they_read_in_each_boot() {
    // Short of a full half, and with a compaction among the writes that are cut.
    for first in [6, 40] {
        let mut full = WeakFlash { memory: flash(), weak: None, reads_written: false };
        let mut log = RecordLog::open(&mut full, REGION).unwrap();
        for n in 0..first {
            log.write(&mut full, KINDS_USED[n % 3], expected(n).0, &payload(n)).unwrap();
        }
        let mut is_over = false;
        let mut seen_weak = 0;
        for budget in 0.. {
            if is_over {
                break;
            }
            let mut patterns = 0..8_u8;
            while let Some(pattern) = patterns.next() {
                let mut flash = full.clone();
                flash.memory.power_budget_bytes = Some(budget);
                let mut log = RecordLog::open(&mut flash, REGION).unwrap();
                let done = (first..first + 3)
                    .take_while(|&n| {
                        let (version, payload) = expected(n);
                        log.write(&mut flash, KINDS_USED[n % 3], version, &payload).is_ok()
                    })
                    .count();
                is_over = done == 3;
                flash.memory.power_on();
                seen_weak += u32::from(flash.weak.is_some());
                if flash.weak.is_none() {
                    patterns = 0..0;
                }
                live_on(&mut flash, pattern, first + done, budget);
            }
        }
        assert!(seen_weak > 1_000, "{seen_weak}");
    }
}

/// Three boots in which the cut byte reads by `pattern`, each with an entry of its own.
fn live_on(flash: &mut WeakFlash, pattern: u8, done: usize, budget: u64) {
    let latest = |index, end: usize| (0..end).rev().find(|n| n % 3 == index).map(expected);
    let mut known: Option<[_; 3]> = None;
    for boot in 0..3_u8 {
        flash.reads_written = pattern >> boot & 1 == 1;
        let mut log = RecordLog::open(flash, REGION).unwrap();
        let found = [0, 1, 2].map(|index| value_of(&log, flash, KINDS_USED[index]));
        for (index, found) in found.iter().enumerate() {
            let is_old = *found == latest(index, done);
            let is_new = *found == latest(index, done + 1);
            assert!(is_old || is_new, "kind {index}, cut after {budget}, {pattern:03b}, {boot}");
        }
        if let Some(known) = &known {
            assert_eq!(known, &found, "cut after {budget}, {pattern:03b}, boot {boot}");
        }
        if boot > 0 {
            let before = Some((1, vec![boot - 1]));
            assert_eq!(
                value_of(&log, flash, Kind::EPOCH),
                before,
                "cut after {budget}, {pattern:03b}"
            );
        }
        log.write(flash, Kind::EPOCH, 1, &[boot]).unwrap();
        known = Some(found);
    }
}

/// They were numbered in two crates once, and two of them alike.
#[test]
fn every_kind_has_a_number_of_its_own() {
    let kinds = [
        Kind::BOOT_NUMBER,
        Kind::MEMBER,
        Kind::ROLLOUT,
        Kind::GROUP,
        Kind::TRUST,
        Kind::EPOCH,
        Kind::CURRENT,
        Kind::PASSWORD,
        Kind::HISTORY,
        Kind::PROGRESS,
        Kind::SETTINGS,
        Kind::IMAGES,
        Kind::CUT,
        Kind::SCHEDULE,
        Kind::KEY,
        Kind::SERVER,
        Kind::BOOTLOADER,
    ];
    for (number, kind) in (1..).zip(kinds) {
        assert_eq!(Kind::new(number), Some(kind));
    }
}
