//! Where things are in this device's flash, as its partition table says.
//!
//! A [`Layout`] in hand has two slots, an otadata partition and a store for our records, all
//! within the chip. Boards in the field have no partition of ours: there the store lies in the last
//! sectors of `spiffs`, else of `coredump`, and a device with neither is refused with the reason.
//! The place follows from the table alone, so every firmware finds the same one. Nothing is
//! written here.

use core::fmt;

use embedded_storage::nor_flash::ReadNorFlash;
use lockstep_proto::otadata::OTADATA_BYTES;
use lockstep_proto::partition::{
    PartitionEntry, PartitionError, PartitionTable, RECORD_LABEL, SUBTYPE_COREDUMP,
    SUBTYPE_OTADATA, SUBTYPE_SPIFFS, TABLE_BYTES, TABLE_OFFSET, TYPE_DATA,
};

use crate::config::CONFIG_STORE_BYTES;
use crate::flash::{self, FlashFault, Region, SECTOR_BYTES};

/// Length of the record log: two halves of 8 KiB.
pub const RECORD_BYTES: u32 = 0x4000;
/// Length of the package store.
pub const PACKAGE_STORE_BYTES: u32 = 0x3000;
/// Where the application's configuration begins, in a store that has room for it.
pub const CONFIG_OFFSET: u32 = RECORD_BYTES + PACKAGE_STORE_BYTES;
/// The least that the store needs.
pub const STORE_BYTES_MIN: u32 = 0x9000;
/// What the store takes of a partition that is not its own.
pub const STORE_BYTES_BORROWED: u32 = 0x1_0000;

/// Whose partition the store lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreHome {
    /// In a partition of its own.
    Lockstep,
    /// In the last sectors of `spiffs`.
    Spiffs,
    /// In the last sectors of `coredump`.
    Coredump,
}

/// Where things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The two entries that say which slot boots.
    pub otadata: Region,
    /// `ota_0` and `ota_1`. Further slots are not used.
    pub slots: [Region; 2],
    /// How many slots the table has: sequence numbers count through all of them.
    pub ota_count: u8,
    /// Whose partition the store lies in.
    pub home: StoreHome,
    store: Region,
}

impl Layout {
    /// Reads the partition table at its usual place.
    pub fn find<F: ReadNorFlash>(flash: &mut F) -> Result<Self, LayoutError> {
        let mut bytes = [0; TABLE_BYTES];
        flash::read(flash, TABLE_OFFSET, &mut bytes).map_err(LayoutError::Flash)?;
        let table = PartitionTable::parse(&bytes).map_err(LayoutError::Table)?;
        let chip_bytes = flash::bytes_u32(flash.capacity());
        if table.end() > chip_bytes {
            return Err(LayoutError::BeyondChip { end: table.end(), chip_bytes });
        }
        Self::of(&table)
    }

    /// Takes what it needs from a table.
    pub fn of(table: &PartitionTable) -> Result<Self, LayoutError> {
        let otadata = table
            .find(TYPE_DATA, SUBTYPE_OTADATA)
            .filter(|entry| entry.size_bytes >= OTADATA_BYTES)
            .ok_or(LayoutError::NoOtadata)?;
        let ota_count = u8::try_from(table.ota_slots().count()).unwrap_or(u8::MAX);
        let mut slots = table.ota_slots().map(region);
        let (Some(first), Some(second)) = (slots.next(), slots.next()) else {
            return Err(LayoutError::TooFewSlots { found: ota_count });
        };
        let (home, store) = find_store(table)?;
        let otadata = Region { offset: otadata.offset, size_bytes: OTADATA_BYTES };
        Ok(Self { otadata, slots: [first, second], ota_count, home, store })
    }

    /// The record log.
    pub const fn record(&self) -> Region {
        Region { offset: self.store.offset, size_bytes: RECORD_BYTES }
    }

    /// The package store.
    pub const fn package(&self) -> Region {
        Region { offset: self.store.offset + RECORD_BYTES, size_bytes: PACKAGE_STORE_BYTES }
    }

    /// Where the application's configurations are; `None` if there is no room for them.
    pub fn config(&self) -> Option<Region> {
        let has_room = self.store.size_bytes >= CONFIG_OFFSET + CONFIG_STORE_BYTES;
        has_room.then_some(Region {
            offset: self.store.offset + CONFIG_OFFSET,
            size_bytes: CONFIG_STORE_BYTES,
        })
    }

    /// The size of the smaller slot.
    pub fn slot_size_bytes(&self) -> u32 {
        let [first, second] = self.slots;
        first.size_bytes.min(second.size_bytes)
    }
}

fn region(entry: &PartitionEntry) -> Region {
    Region { offset: entry.offset, size_bytes: entry.size_bytes }
}

fn find_store(table: &PartitionTable) -> Result<(StoreHome, Region), LayoutError> {
    // Whatever it is called: what says which slot boots is not written over.
    let is_free =
        |entry: &&PartitionEntry| entry.kind == TYPE_DATA && entry.subtype != SUBTYPE_OTADATA;
    let own = table.by_label(RECORD_LABEL).filter(is_free);
    let candidates = [
        (StoreHome::Lockstep, own),
        (StoreHome::Spiffs, table.find(TYPE_DATA, SUBTYPE_SPIFFS)),
        (StoreHome::Coredump, table.find(TYPE_DATA, SUBTYPE_COREDUMP)),
    ];
    let mut largest_bytes = 0;
    for (home, entry) in candidates {
        let Some(entry) = entry else { continue };
        let whole_bytes = entry.size_bytes - entry.size_bytes % SECTOR_BYTES;
        largest_bytes = largest_bytes.max(whole_bytes);
        if whole_bytes < STORE_BYTES_MIN {
            continue;
        }
        let store = match home {
            StoreHome::Lockstep => Region { offset: entry.offset, size_bytes: whole_bytes },
            StoreHome::Spiffs | StoreHome::Coredump => {
                let size_bytes = whole_bytes.min(STORE_BYTES_BORROWED);
                Region { offset: entry.offset + (whole_bytes - size_bytes), size_bytes }
            }
        };
        return Ok((home, store));
    }
    Err(LayoutError::NoStore { largest_bytes })
}

/// Why this device's flash cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutError {
    /// The table could not be read.
    Flash(FlashFault),
    /// What stands there is no partition table.
    Table(PartitionError),
    /// The table is for a larger chip.
    BeyondChip {
        /// Where its last partition ends.
        end: u32,
        /// How large the chip is.
        chip_bytes: u32,
    },
    /// There is no otadata partition of two sectors.
    NoOtadata,
    /// A device that cannot hold two images cannot go back.
    TooFewSlots {
        /// How many slots there are.
        found: u8,
    },
    /// None of the partitions in which the record could live is large enough.
    NoStore {
        /// The largest of `lockstep`, `spiffs` and `coredump`.
        largest_bytes: u32,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(_) => write!(f, "could not read the `partition table`"),
            Self::Table(_) => write!(f, "could not understand the `partition table`"),
            Self::BeyondChip { end, chip_bytes } => write!(
                f,
                "the `partition table` ends at {end:#x}, the flash chip at {chip_bytes:#x}"
            ),
            Self::NoOtadata => write!(
                f,
                "the `partition table` has no otadata partition of {OTADATA_BYTES:#x} bytes"
            ),
            Self::TooFewSlots { found } => {
                write!(f, "the `partition table` has {found} ota slots, an update needs 2")
            }
            Self::NoStore { largest_bytes } => write!(
                f,
                "none of the partitions `lockstep`, `spiffs` and `coredump` has room for the \
                 record: the largest has {largest_bytes:#x} bytes, needed are {STORE_BYTES_MIN:#x}"
            ),
        }
    }
}

impl core::error::Error for LayoutError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Flash(fault) => Some(fault),
            Self::Table(error) => Some(error),
            Self::BeyondChip { .. }
            | Self::NoOtadata
            | Self::TooFewSlots { .. }
            | Self::NoStore { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::error::Error as _;
    use std::string::ToString;

    use lockstep_proto::partition::{SUBTYPE_NVS, SUBTYPE_OTA_0, SUBTYPE_UNDEFINED, TYPE_APP};
    use lockstep_proto::text::FixedText;
    use lockstep_sim::flash::MemFlash;

    use super::*;

    fn row(kind: u8, subtype: u8, offset: u32, size_bytes: u32, label: &str) -> PartitionEntry {
        let label = FixedText::new(label).unwrap();
        PartitionEntry { kind, subtype, offset, size_bytes, label, flags: 0 }
    }

    /// Arduino's `min_spiffs.csv`, as on fielded boards, and what stands behind its slots.
    fn fielded(data: &[PartitionEntry]) -> Result<Layout, LayoutError> {
        let mut rows = std::vec![
            row(TYPE_DATA, SUBTYPE_NVS, 0x9000, 0x5000, "nvs"),
            row(TYPE_DATA, SUBTYPE_OTADATA, 0xE000, 0x2000, "otadata"),
            row(TYPE_APP, SUBTYPE_OTA_0, 0x1_0000, 0x1E_0000, "app0"),
            row(TYPE_APP, SUBTYPE_OTA_0 + 1, 0x1F_0000, 0x1E_0000, "app1"),
        ];
        rows.extend(data);
        Layout::of(&PartitionTable::new(&rows).unwrap())
    }

    #[test]
    fn a_partition_of_its_own_is_the_stores_home() {
        let layout = Layout::of(&PartitionTable::desk_table()).unwrap();
        assert_eq!(layout.home, StoreHome::Lockstep);
        assert_eq!(layout.record(), Region { offset: 0x3E_0000, size_bytes: 0x4000 });
        assert_eq!(layout.package(), Region { offset: 0x3E_4000, size_bytes: 0x3000 });
        let config = Region { offset: 0x3E_7000, size_bytes: 0x9000 };
        assert_eq!(layout.config(), Some(config));
        assert_eq!(config.end(), 0x3F_0000);
        assert_eq!((layout.ota_count, layout.slot_size_bytes()), (2, 0x1E_0000));
    }

    #[test]
    fn a_fielded_board_gives_the_last_sectors_of_spiffs_else_of_coredump() {
        let spiffs = row(TYPE_DATA, SUBTYPE_SPIFFS, 0x3D_0000, 0x2_0000, "spiffs");
        let coredump = row(TYPE_DATA, SUBTYPE_COREDUMP, 0x3F_0000, 0x1_0000, "coredump");
        let layout = fielded(&[spiffs, coredump]).unwrap();
        assert_eq!((layout.home, layout.record().offset), (StoreHome::Spiffs, 0x3E_0000));
        let layout = fielded(&[coredump]).unwrap();
        assert_eq!((layout.home, layout.record().offset), (StoreHome::Coredump, 0x3F_0000));
    }

    #[test]
    fn a_board_without_room_for_the_record_is_refused_with_both_sizes() {
        let small = row(TYPE_DATA, SUBTYPE_UNDEFINED, 0x3D_0000, 0x8000, "lockstep");
        assert_eq!(
            fielded(&[small]).unwrap_err().to_string(),
            "none of the partitions `lockstep`, `spiffs` and `coredump` has room for the record: \
             the largest has 0x8000 bytes, needed are 0x9000"
        );
    }

    #[test]
    fn the_least_that_a_partition_must_have_is_enough_for_all_but_configurations() {
        let small = row(TYPE_DATA, SUBTYPE_UNDEFINED, 0x3D_0000, 0x9000, "lockstep");
        let spiffs = row(TYPE_DATA, SUBTYPE_SPIFFS, 0x3E_0000, 0x2_0000, "spiffs");
        let layout = fielded(&[small, spiffs]).unwrap();
        assert_eq!((layout.home, layout.record().offset), (StoreHome::Lockstep, 0x3D_0000));
        assert_eq!(layout.package().end(), 0x3D_7000);
        assert_eq!(layout.config(), None);
    }

    #[test]
    fn a_broken_sector_at_the_end_of_a_partition_is_not_used() {
        let spiffs = row(TYPE_DATA, SUBTYPE_SPIFFS, 0x3D_0000, 0x1_8800, "spiffs");
        let layout = fielded(&[spiffs]).unwrap();
        assert_eq!(layout.record().offset, 0x3D_8000);
        assert_eq!(layout.config().unwrap().end(), 0x3E_8000);
        let almost = row(TYPE_DATA, SUBTYPE_SPIFFS, 0x3D_0000, 0x8FFF, "spiffs");
        assert_eq!(fielded(&[almost]), Err(LayoutError::NoStore { largest_bytes: 0x8000 }));
    }

    #[test]
    fn a_table_for_a_larger_chip_is_refused_and_for_a_smaller_one_taken() {
        let on_chip = |capacity_bytes| {
            let mut flash = MemFlash::new(capacity_bytes);
            let mut table = [0; TABLE_BYTES];
            PartitionTable::desk_table().write(&mut table);
            let start = TABLE_OFFSET as usize;
            flash.bytes[start..start + TABLE_BYTES].copy_from_slice(&table);
            Layout::find(&mut flash)
        };
        let beyond = LayoutError::BeyondChip { end: 0x40_0000, chip_bytes: 0x3F_F000 };
        assert_eq!(on_chip(0x3F_F000), Err(beyond));
        let layout = Layout::of(&PartitionTable::desk_table());
        assert_eq!(on_chip(0x40_0000), layout);
        assert_eq!(on_chip(0x80_0000), layout);
    }

    #[test]
    fn an_error_leaves_the_cause_to_its_source() {
        let mut erased = MemFlash::new(0x40_0000);
        erased.bytes.fill(0);
        let error = Layout::find(&mut erased).unwrap_err();
        assert_eq!(error.to_string(), "could not understand the `partition table`");
        assert_eq!(
            error.source().unwrap().to_string(),
            "row 0 of the `partition table` begins with 00 00, expected aa 50"
        );
        let error = Layout::find(&mut MemFlash::new(TABLE_OFFSET)).unwrap_err();
        assert_eq!(error.to_string(), "could not read the `partition table`");
        let fault = "flash did not `read` at offset 0x8000";
        assert_eq!(error.source().unwrap().to_string(), fault);
        assert!(LayoutError::NoOtadata.source().is_none());
    }

    // Found by fuzzing: the record would have been written over the entries that say what boots.
    #[test]
    fn otadata_by_the_name_of_the_record_is_not_its_home() {
        let rows = [
            row(TYPE_DATA, SUBTYPE_OTADATA, 0x3D_0000, 0x1_0000, "lockstep"),
            row(TYPE_APP, SUBTYPE_OTA_0, 0x1_0000, 0x1E_0000, "app0"),
            row(TYPE_APP, SUBTYPE_OTA_0 + 1, 0x1F_0000, 0x1E_0000, "app1"),
            row(TYPE_DATA, SUBTYPE_COREDUMP, 0x3F_0000, 0x1_0000, "coredump"),
        ];
        let layout = Layout::of(&PartitionTable::new(&rows).unwrap()).unwrap();
        assert_eq!((layout.home, layout.record().offset), (StoreHome::Coredump, 0x3F_0000));
        let refused = Layout::of(&PartitionTable::new(&rows[..3]).unwrap());
        assert_eq!(refused, Err(LayoutError::NoStore { largest_bytes: 0 }));
    }

    #[test]
    fn a_board_with_one_slot_cannot_go_back_and_is_refused() {
        let rows = [
            row(TYPE_DATA, SUBTYPE_OTADATA, 0xE000, 0x2000, "otadata"),
            row(TYPE_APP, SUBTYPE_OTA_0, 0x1_0000, 0x1E_0000, "app0"),
        ];
        let refused = Layout::of(&PartitionTable::new(&rows).unwrap());
        assert_eq!(refused, Err(LayoutError::TooFewSlots { found: 1 }));
    }
}
