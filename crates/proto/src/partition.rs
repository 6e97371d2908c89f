//! The partition table of an ESP chip's flash, read and written as `gen_esp32part.py` does.
//!
//! A table in hand has been checked: its MD5 row fits, nothing overlaps, applications are aligned.
//! Whether it fits the flash chip is not known here; `end` says how much it needs.

use core::fmt;

use md5::{Digest as _, Md5};

use crate::text::FixedText;

/// Where the table stands in flash, unless a project moved it.
pub const TABLE_OFFSET: u32 = 0x8000;

/// Length of the table in flash.
pub const TABLE_BYTES: usize = 0xC00;

/// How many partitions a table in hand can have. The format allows 95; no board comes near.
pub const ENTRIES_MAX: usize = 32;

/// Type of application partitions.
pub const TYPE_APP: u8 = 0x00;
/// Type of data partitions.
pub const TYPE_DATA: u8 = 0x01;

/// Application that boots when otadata selects none.
pub const SUBTYPE_FACTORY: u8 = 0x00;
/// The first slot; fifteen more follow.
pub const SUBTYPE_OTA_0: u8 = 0x10;
/// Data: which slot boots.
pub const SUBTYPE_OTADATA: u8 = 0x00;
/// Data: non-volatile storage.
pub const SUBTYPE_NVS: u8 = 0x02;
/// Data: what a crash leaves behind.
pub const SUBTYPE_COREDUMP: u8 = 0x03;
/// Data: of nobody's in particular. Ours has this subtype and is told by its label, since ESP-IDF
/// reserves every other number (and tools refuse them).
pub const SUBTYPE_UNDEFINED: u8 = 0x06;
/// Data: SPIFFS, and LittleFS under Arduino.
pub const SUBTYPE_SPIFFS: u8 = 0x82;

/// Label of the data partition that holds the durable record.
pub const RECORD_LABEL: &str = "lockstep";

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionEntry {
    /// [`TYPE_APP`], [`TYPE_DATA`], or another.
    pub kind: u8,
    /// Its meaning depends on `kind`.
    pub subtype: u8,
    /// Where it begins in flash.
    pub offset: u32,
    /// Its length in bytes.
    pub size_bytes: u32,
    /// Its name.
    pub label: FixedText<16>,
    /// Bit 0: encrypted; bit 1: read-only.
    pub flags: u32,
}

impl PartitionEntry {
    /// The first byte behind it. A table in hand has no partition that ends beyond 4 GiB.
    pub const fn end(&self) -> u32 {
        self.offset.saturating_add(self.size_bytes)
    }

    /// Which slot it is, 0 to 15, if it is one.
    pub const fn ota_slot(&self) -> Option<u8> {
        match self.subtype {
            SUBTYPE_OTA_0..=0x1F if self.kind == TYPE_APP => Some(self.subtype - SUBTYPE_OTA_0),
            _ => None,
        }
    }

    fn encode(&self) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        row[..2].copy_from_slice(&MAGIC);
        row[2] = self.kind;
        row[3] = self.subtype;
        row[4..8].copy_from_slice(&self.offset.to_le_bytes());
        row[8..12].copy_from_slice(&self.size_bytes.to_le_bytes());
        row[12..28].copy_from_slice(self.label.bytes());
        row[28..].copy_from_slice(&self.flags.to_le_bytes());
        row
    }

    fn decode(row: &[u8; ROW_BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        let mut label = [0; 16];
        label.copy_from_slice(&row[12..28]);
        Self {
            kind: row[2],
            subtype: row[3],
            offset: word(4),
            size_bytes: word(8),
            label: FixedText::from_bytes(label),
            flags: word(28),
        }
    }
}

/// A checked table, in the order of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    entries: heapless::Vec<PartitionEntry, ENTRIES_MAX>,
}

impl PartitionTable {
    /// Checks and takes `entries`.
    pub fn new(entries: &[PartitionEntry]) -> Result<Self, PartitionError> {
        let mut table = Self { entries: heapless::Vec::new() };
        entries.iter().try_for_each(|entry| table.add(*entry))?;
        Ok(table)
    }

    /// Reads a table from the flash at [`TABLE_OFFSET`]; what follows its end row is not looked at.
    ///
    /// A table without MD5 row is taken, as ESP-IDF can be told to write none.
    pub fn parse(bytes: &[u8]) -> Result<Self, PartitionError> {
        let (rows, _) = bytes.get(..TABLE_BYTES).unwrap_or(bytes).as_chunks::<ROW_BYTES>();
        let mut table = Self { entries: heapless::Vec::new() };
        // Damage is told from a bad table first: a flipped bit may look like any mistake.
        for row in partition_rows(rows)? {
            table.add(PartitionEntry::decode(row))?;
        }
        Ok(table)
    }

    /// Fills `out` with the table: rows, MD5 row, and 0xFF to the end, as it stands in flash.
    pub fn write(&self, out: &mut [u8; TABLE_BYTES]) {
        out.fill(0xFF);
        // `ENTRIES_MAX` is far from the number of rows, so there are always rows left.
        let (rows, rest) = out.as_chunks_mut::<ROW_BYTES>().0.split_at_mut(self.entries.len());
        let mut digest = Md5::new();
        for (row, entry) in rows.iter_mut().zip(&self.entries) {
            *row = entry.encode();
            digest.update(*row);
        }
        if let Some(row) = rest.first_mut() {
            row[..2].copy_from_slice(&MD5_MAGIC);
            row[16..].copy_from_slice(&digest.finalize());
        }
    }

    /// The table of a desk device with 4 MiB of flash: two slots of 0x1E0000 bytes, since real
    /// images need them, and a partition for the record.
    pub fn desk_table() -> Self {
        let row = |kind, subtype, offset, size_bytes, label: &str| PartitionEntry {
            kind,
            subtype,
            offset,
            size_bytes,
            label: FixedText::new(label).unwrap_or_default(),
            flags: 0,
        };
        Self {
            entries: heapless::Vec::from_iter([
                row(TYPE_DATA, SUBTYPE_NVS, 0x9000, 0x5000, "nvs"),
                row(TYPE_DATA, SUBTYPE_OTADATA, 0xE000, 0x2000, "otadata"),
                row(TYPE_APP, SUBTYPE_OTA_0, 0x1_0000, 0x1E_0000, "app0"),
                row(TYPE_APP, SUBTYPE_OTA_0 + 1, 0x1F_0000, 0x1E_0000, "app1"),
                row(TYPE_DATA, SUBTYPE_SPIFFS, 0x3D_0000, 0x1_0000, "spiffs"),
                row(TYPE_DATA, SUBTYPE_UNDEFINED, 0x3E_0000, 0x1_0000, RECORD_LABEL),
                row(TYPE_DATA, SUBTYPE_COREDUMP, 0x3F_0000, 0x1_0000, "coredump"),
            ]),
        }
    }

    /// All partitions, in the order of the rows.
    pub fn entries(&self) -> &[PartitionEntry] {
        &self.entries
    }

    /// The first partition of this type and subtype.
    pub fn find(&self, kind: u8, subtype: u8) -> Option<&PartitionEntry> {
        self.entries.iter().find(|entry| entry.kind == kind && entry.subtype == subtype)
    }

    /// The first partition of this name.
    pub fn by_label(&self, label: &str) -> Option<&PartitionEntry> {
        self.entries.iter().find(|entry| entry.label.as_str() == label)
    }

    /// The data partition for the durable record; `None` on boards that were not made for us.
    pub fn record(&self) -> Option<&PartitionEntry> {
        self.by_label(RECORD_LABEL).filter(|entry| entry.kind == TYPE_DATA)
    }

    /// `ota_0`, `ota_1` and so on, up to the first that is missing: the slots that a sequence
    /// number in otadata counts through.
    pub fn ota_slots(&self) -> impl Iterator<Item = &PartitionEntry> {
        (SUBTYPE_OTA_0..=0x1F).map_while(|subtype| self.find(TYPE_APP, subtype))
    }

    /// How many bytes of flash the table needs.
    pub fn end(&self) -> u32 {
        self.entries.iter().map(PartitionEntry::end).max().unwrap_or(0)
    }

    fn add(&mut self, entry: PartitionEntry) -> Result<(), PartitionError> {
        let label = entry.label;
        let (offset, size_bytes) = (entry.offset, entry.size_bytes);
        let alignment = if entry.kind == TYPE_APP { APP_ALIGNMENT } else { SECTOR_BYTES };
        if !offset.is_multiple_of(alignment) {
            return Err(PartitionError::Offset { label, offset, alignment });
        }
        let whole_sectors = entry.kind != TYPE_APP || size_bytes.is_multiple_of(SECTOR_BYTES);
        if size_bytes == 0 || !whole_sectors || offset.checked_add(size_bytes).is_none() {
            return Err(PartitionError::Size { label, size_bytes });
        }
        let overlapped =
            |other: &&PartitionEntry| other.offset < entry.end() && offset < other.end();
        if let Some(other) = self.entries.iter().find(overlapped) {
            let (first, second) =
                if other.offset <= offset { (other, &entry) } else { (&entry, other) };
            return Err(PartitionError::Overlap {
                first: first.label,
                end: first.end(),
                second: second.label,
                offset: second.offset,
            });
        }
        self.entries.push(entry).map_err(|_| PartitionError::TooMany)
    }
}

/// The rows before the MD5 row and the end row, once the MD5 fits.
fn partition_rows(rows: &[[u8; ROW_BYTES]]) -> Result<&[[u8; ROW_BYTES]], PartitionError> {
    let mut digest = Md5::new();
    let mut md5_row = None;
    for (index, row) in rows.iter().enumerate() {
        match [row[0], row[1]] {
            _ if row == &END_ROW => return Ok(&rows[..md5_row.unwrap_or(index)]),
            _ if md5_row.is_some() => return Err(PartitionError::BehindMd5 { row: index }),
            MAGIC => digest.update(row),
            MD5_MAGIC => {
                let expected: [u8; 16] = digest.clone().finalize().into();
                let mut found = [0; 16];
                found.copy_from_slice(&row[16..]);
                if found != expected {
                    return Err(PartitionError::Md5 { found, expected });
                }
                md5_row = Some(index);
            }
            found => return Err(PartitionError::Magic { row: index, found }),
        }
    }
    Err(PartitionError::NoEnd { rows: rows.len() })
}

/// Why bytes are not a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionError {
    /// A row is neither a partition, nor the MD5 row, nor the end.
    Magic {
        /// Counted from 0.
        row: usize,
        /// Its first two bytes.
        found: [u8; 2],
    },
    /// The rows were damaged.
    Md5 {
        /// What stands in the MD5 row.
        found: [u8; 16],
        /// What would fit the rows before it.
        expected: [u8; 16],
    },
    /// Something follows the MD5 row, which could not protect it.
    BehindMd5 {
        /// Counted from 0.
        row: usize,
    },
    /// The end row is missing.
    NoEnd {
        /// How many rows there are.
        rows: usize,
    },
    /// There are more than [`ENTRIES_MAX`] partitions.
    TooMany,
    /// A partition begins where it must not.
    Offset {
        /// Its name.
        label: FixedText<16>,
        /// Where it begins.
        offset: u32,
        /// What its offset must be a multiple of.
        alignment: u32,
    },
    /// A partition is empty, ends beyond 4 GiB, or is an application in broken sectors.
    Size {
        /// Its name.
        label: FixedText<16>,
        /// Its size.
        size_bytes: u32,
    },
    /// Two partitions share bytes.
    Overlap {
        /// The one that begins first.
        first: FixedText<16>,
        /// Where it ends.
        end: u32,
        /// The other.
        second: FixedText<16>,
        /// Where that begins.
        offset: u32,
    },
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { row, found: [a, b] } => write!(
                f,
                "row {row} of the `partition table` begins with {a:02x} {b:02x}, expected aa 50"
            ),
            Self::Md5 { found, expected } => write!(
                f,
                "the `md5` of the partition table is {:032x}, its rows give {:032x}",
                u128::from_be_bytes(*found),
                u128::from_be_bytes(*expected)
            ),
            Self::BehindMd5 { row } => {
                write!(
                    f,
                    "row {row} of the `partition table` follows its md5 row, expected the end"
                )
            }
            Self::NoEnd { rows } => {
                write!(f, "the `partition table` has no end row within its {rows} rows")
            }
            Self::TooMany => write!(
                f,
                "the `partition table` has more partitions than the limit of {ENTRIES_MAX}"
            ),
            Self::Offset { label, offset, alignment } => write!(
                f,
                "partition `{label}` begins at {offset:#x}, not at a multiple of {alignment:#x}"
            ),
            Self::Size { label, size_bytes } => write!(
                f,
                "partition `{label}` has {size_bytes:#x} bytes, expected whole flash sectors of \
                 {SECTOR_BYTES:#x} within 4 GiB"
            ),
            Self::Overlap { first, end, second, offset } => write!(
                f,
                "partition `{second}` begins at {offset:#x}, before `{first}` ends at {end:#x}"
            ),
        }
    }
}

impl core::error::Error for PartitionError {}

const ROW_BYTES: usize = 32;
const MAGIC: [u8; 2] = [0xAA, 0x50];
const MD5_MAGIC: [u8; 2] = [0xEB, 0xEB];
const END_ROW: [u8; ROW_BYTES] = [0xFF; ROW_BYTES];
/// A flash sector, the unit of erasing.
const SECTOR_BYTES: u32 = 0x1000;
/// The chip maps applications in pages of 64 KiB.
const APP_ALIGNMENT: u32 = 0x1_0000;

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &[u8; TABLE_BYTES] = include_bytes!("../tests/golden/partition-table-desk.bin");

    fn entry(kind: u8, offset: u32, size_bytes: u32, label: &str) -> PartitionEntry {
        let label = FixedText::new(label).unwrap();
        PartitionEntry { kind, subtype: 0x41, offset, size_bytes, label, flags: 0 }
    }

    #[test]
    fn the_desk_table_is_frozen() {
        let mut bytes = [0; TABLE_BYTES];
        PartitionTable::desk_table().write(&mut bytes);
        assert_eq!(bytes, *GOLDEN);
        assert_eq!(PartitionTable::parse(GOLDEN), Ok(PartitionTable::desk_table()));
    }

    #[test]
    fn the_desk_table_passes_its_own_checks_and_fills_four_mebibytes() {
        let table = PartitionTable::desk_table();
        assert_eq!(PartitionTable::new(table.entries()), Ok(table.clone()));
        assert_eq!(table.end(), 4 << 20);
        assert!(table.entries().iter().all(|entry| !entry.label.as_str().is_empty()));
    }

    #[test]
    fn partitions_are_found_by_what_they_are_for() {
        let table = PartitionTable::desk_table();
        let slots: Vec<_> = table.ota_slots().map(|slot| slot.label.as_str()).collect();
        assert_eq!(slots, ["app0", "app1"]);
        assert_eq!(table.by_label("app1").unwrap().ota_slot(), Some(1));
        assert_eq!(table.record().unwrap().offset, 0x3E_0000);
        assert_eq!(table.find(TYPE_DATA, SUBTYPE_OTADATA).unwrap().offset, 0xE000);
        assert_eq!(table.find(TYPE_APP, SUBTYPE_FACTORY), None);
    }

    #[test]
    fn an_application_named_like_the_record_is_not_taken_for_it() {
        let app = PartitionTable::new(&[entry(TYPE_APP, 0x1_0000, 0x1000, RECORD_LABEL)]).unwrap();
        assert_eq!(app.record(), None);
        let other = PartitionTable::new(&[entry(TYPE_DATA, 0x9000, 0x1000, "config")]).unwrap();
        assert_eq!(other.record(), None);
    }

    #[test]
    fn any_damaged_byte_is_noticed_and_told_from_a_bad_table() {
        for index in 0..8 * ROW_BYTES {
            let mut damaged = *GOLDEN;
            damaged[index] ^= 0x10;
            let error = match PartitionTable::parse(&damaged) {
                // The filling of the MD5 row has no meaning.
                Ok(_) if (7 * ROW_BYTES + 2..7 * ROW_BYTES + 16).contains(&index) => continue,
                Ok(_) => panic!("byte {index}"),
                Err(error) => error,
            };
            let told = matches!(error, PartitionError::Md5 { .. } | PartitionError::Magic { .. });
            assert!(told, "byte {index}: {error}");
        }
    }

    #[test]
    fn a_row_that_the_md5_does_not_cover_is_refused() {
        let mut longer = *GOLDEN;
        longer.copy_within(..ROW_BYTES, 8 * ROW_BYTES);
        assert_eq!(PartitionTable::parse(&longer), Err(PartitionError::BehindMd5 { row: 8 }));
    }

    #[test]
    fn a_table_may_lack_the_md5_row_but_not_the_end() {
        let mut plain = *GOLDEN;
        plain[7 * 32..8 * 32].fill(0xFF);
        assert_eq!(PartitionTable::parse(&plain), Ok(PartitionTable::desk_table()));
        assert_eq!(
            PartitionTable::parse(&GOLDEN[..8 * 32]),
            Err(PartitionError::NoEnd { rows: 8 })
        );
        assert_eq!(
            PartitionTable::parse(&[0; 64]).unwrap_err().to_string(),
            "row 0 of the `partition table` begins with 00 00, expected aa 50"
        );
    }

    #[test]
    fn each_bad_place_is_refused_with_its_numbers() {
        let refusal =
            |entries: &[PartitionEntry]| PartitionTable::new(entries).unwrap_err().to_string();
        assert_eq!(
            refusal(&[entry(TYPE_APP, 0x1_1000, 0x1000, "app")]),
            "partition `app` begins at 0x11000, not at a multiple of 0x10000"
        );
        assert_eq!(
            refusal(&[entry(TYPE_DATA, 0x9800, 0x1000, "nvs")]),
            "partition `nvs` begins at 0x9800, not at a multiple of 0x1000"
        );
        assert_eq!(
            refusal(&[entry(TYPE_APP, 0x1_0000, 0x1001, "app")]),
            "partition `app` has 0x1001 bytes, expected whole flash sectors of 0x1000 within 4 GiB"
        );
        let low = entry(TYPE_DATA, 0x9000, 0x2000, "low");
        let high = entry(TYPE_DATA, 0xA000, 0x1000, "high");
        for both in [[low, high], [high, low]] {
            assert_eq!(
                refusal(&both),
                "partition `high` begins at 0xa000, before `low` ends at 0xb000"
            );
        }
        assert!(PartitionTable::new(&[entry(TYPE_DATA, 0xFFFF_F000, 0x2000, "x")]).is_err());
        assert!(PartitionTable::new(&[entry(TYPE_DATA, 0x9000, 0, "x")]).is_err());
    }

    #[test]
    fn more_partitions_than_the_limit_are_refused() {
        let many: Vec<_> =
            (0..=32).map(|index| entry(TYPE_DATA, 0x9000 + index * 0x1000, 0x1000, "x")).collect();
        assert!(PartitionTable::new(&many[..32]).is_ok());
        assert_eq!(PartitionTable::new(&many), Err(PartitionError::TooMany));
    }

    fn any_table() -> impl Strategy<Value = PartitionTable> {
        let row = (any::<[u8; 2]>(), 1..4_u32, any::<[u8; 16]>(), any::<u32>());
        proptest::collection::vec(row, 0..=ENTRIES_MAX).prop_map(|rows| {
            let mut offset = 0;
            let mut entries = Vec::new();
            for ([kind, subtype], pages, label, flags) in rows {
                let (size_bytes, label) = (pages * 0x1_0000, FixedText::from_bytes(label));
                entries.push(PartitionEntry { kind, subtype, offset, size_bytes, label, flags });
                offset += size_bytes;
            }
            PartitionTable::new(&entries).unwrap()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(table in any_table()) {
            let mut bytes = [0; TABLE_BYTES];
            table.write(&mut bytes);
            prop_assert_eq!(PartitionTable::parse(&bytes), Ok(table));
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = PartitionTable::parse(&bytes);
            for row in bytes.chunks_mut(32).filter(|row| row.len() == 32) {
                row[..2].copy_from_slice(&MAGIC);
            }
            let _ = PartitionTable::parse(&bytes);
        }
    }
}
