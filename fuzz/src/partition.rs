//! Partition tables, and what a device makes of one: where its slots and its record are.
//!
//! The first byte chooses whether the harness closes the table behind the fuzzer's rows.
//!
//! Promises: a table that was read is written and reads back the same; no two partitions of it
//! overlap; a layout taken from it stays within its partitions and does not overlap itself.

use lockstep_agent::{Layout, Region};
use lockstep_proto::partition::{PartitionTable, TABLE_BYTES, TABLE_OFFSET};
use lockstep_sim::flash::MemFlash;

use crate::memory;

/// First byte of an input: what follows is a table as it stands in flash.
pub const WHOLE: u8 = 0;
/// First byte of an input: what follows are rows without the one that ends a table.
pub const ROWS: u8 = 1;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let mut table = bytes[..bytes.len().min(TABLE_BYTES)].to_vec();
    if choice % 2 == ROWS {
        table.truncate(bytes.len().min(TABLE_BYTES - ROW_BYTES) / ROW_BYTES * ROW_BYTES);
        table.resize(TABLE_BYTES, 0xFF);
    }
    memory::within(MEMORY_BYTES_MAX, || check(&table));
}

fn check(bytes: &[u8]) {
    let table = match PartitionTable::parse(bytes) {
        Ok(table) => table,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut written = [0; TABLE_BYTES];
    table.write(&mut written);
    assert_eq!(PartitionTable::parse(&written).as_ref(), Ok(&table));
    assert_eq!(PartitionTable::new(table.entries()).as_ref(), Ok(&table));
    let places: Vec<Region> = table
        .entries()
        .iter()
        .map(|entry| Region { offset: entry.offset, size_bytes: entry.size_bytes })
        .collect();
    check_apart(&places);
    for entry in table.entries() {
        assert!(entry.end() <= table.end());
        let _ = (entry.label.as_str(), entry.label.to_string(), entry.ota_slot());
    }
    check_layout(&table, &places, &written);
}

fn check_layout(table: &PartitionTable, places: &[Region], written: &[u8]) {
    let layout = match Layout::of(table) {
        Ok(layout) => layout,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let [first, second] = layout.slots;
    let mut parts = vec![first, second, layout.otadata, layout.record(), layout.package()];
    parts.extend(layout.config());
    for part in &parts {
        let is_within = |place: &Region| place.offset <= part.offset && part.end() <= place.end();
        assert!(places.iter().any(is_within), "{part:?} is outside of {places:?}");
    }
    check_apart(&parts);
    let mut flash = MemFlash::new(TABLE_OFFSET + 0x1000);
    flash.bytes[TABLE_OFFSET as usize..][..TABLE_BYTES].copy_from_slice(written);
    let fits = table.end() as usize <= flash.bytes.len();
    assert_eq!(Layout::find(&mut flash).ok(), fits.then_some(layout));
}

fn check_apart(places: &[Region]) {
    for (index, one) in places.iter().enumerate() {
        for other in &places[index + 1..] {
            let are_apart = one.end() <= other.offset || other.end() <= one.offset;
            assert!(are_apart || one.size_bytes == 0 || other.size_bytes == 0, "{places:?}");
        }
    }
}

const ROW_BYTES: usize = 32;
const MEMORY_BYTES_MAX: usize = 256 * 1024;
