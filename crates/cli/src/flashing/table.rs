//! Partition tables as people have them: ESP-IDF's CSV, or the binary that is made of it.

use std::path::Path;

use lockstep_agent::layout::Layout;
use lockstep_proto::partition::{PartitionTable, TABLE_BYTES, TABLE_OFFSET};

use crate::error::CommandError;
use crate::files;

/// Reads a table that a board can be updated with.
pub(super) fn read(path: &Path) -> Result<PartitionTable, CommandError> {
    let name = path.display();
    let bytes = files::read(path, TABLE_FILE_BYTES_MAX)?;
    let refused = |error: &dyn std::error::Error| {
        CommandError::failed(format!("`{name}` is no partition table that a board can have"))
            .because(error)
            .hinted(HINT)
    };
    // It takes either, fills in what a CSV leaves open, and checks by ESP-IDF's rules.
    let bytes = esp_idf_part::PartitionTable::try_from(bytes)
        .and_then(|table| table.to_bin())
        .map_err(|error| refused(&error))?;
    let table = PartitionTable::parse(&bytes).map_err(|error| refused(&error))?;
    check(&table).map_err(|error| {
        CommandError::failed(format!("A board with the partition table `{name}` cannot be updated"))
            .detailed(error, None)
            .hinted(HINT)
    })?;
    Ok(table)
}

/// What is wrong with a table for a board that shall be updated.
pub(super) fn check(table: &PartitionTable) -> Result<Layout, String> {
    let first = TABLE_OFFSET + TABLE_SECTOR_BYTES;
    if let Some(low) = table.entries().iter().find(|entry| entry.offset < first) {
        return Err(format!(
            "partition `{}` begins at {:#x}, where bootloader and table are, before {first:#x}",
            low.label, low.offset
        ));
    }
    Layout::of(table).map_err(|error| error.to_string())
}

/// A table as it stands in flash.
pub(super) fn bytes_of(table: &PartitionTable) -> Vec<u8> {
    let mut bytes = [0; TABLE_BYTES];
    table.write(&mut bytes);
    bytes.to_vec()
}

const HINT: &str = "It needs `ota_0` and `ota_1`, `otadata` of 0x2000 bytes, and for the record a \
                    data partition `lockstep` of 0x10000; without --table the usual one is taken, \
                    see docs/boards.md.";
/// The table has a sector to itself.
const TABLE_SECTOR_BYTES: u32 = 0x1000;
/// Far more than a CSV with all its comments has.
const TABLE_FILE_BYTES_MAX: u64 = 64 * 1024;
