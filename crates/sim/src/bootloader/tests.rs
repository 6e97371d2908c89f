//! Every rule of ESP-IDF's bootloader on otadata, and the power going in the middle of each.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use embedded_storage::nor_flash::ReadNorFlash;
use lockstep_proto::{
    descriptor::{Board, Descriptor, Product, Role},
    partition::{SUBTYPE_OTA_0, TYPE_DATA},
    version::ProtocolRange,
};

use super::*;
use crate::{
    firmware::{BEHAVIOUR_BYTES, BEHAVIOUR_OFFSET, Fault, FirmwareSpec, SIZE_MIN_BYTES},
    flash::{FlashError, MemFlash, write_erased},
};

const OTADATA: u32 = 0xE000;
const SLOTS: [u32; 2] = [0x1_0000, 0x1F_0000];

/// A board with an image in each slot.
struct TestBoard {
    flash: MemFlash,
    bootloader: Bootloader,
    images: [ImageHash; 2],
}

impl TestBoard {
    /// Both entries of otadata are erased, as a flasher leaves them.
    fn new() -> Self {
        Self::with_table(&PartitionTable::desk_table())
    }

    fn with_table(table: &PartitionTable) -> Self {
        let mut flash = MemFlash::new(4 * 1024 * 1024);
        let mut bytes = [0; TABLE_BYTES];
        table.write(&mut bytes);
        write_erased(&mut flash, TABLE_OFFSET, &bytes).unwrap();
        let bootloader = Bootloader { chip: ChipId::ESP32, rollback: true };
        let mut board = Self { flash, bootloader, images: [ImageHash([0; 32]); 2] };
        board.images = [0, 1].map(|slot| board.put_image(SLOTS[slot], ChipId::ESP32, slot as u64));
        board
    }

    /// With these entries, where the states are as in flash.
    fn with_otadata(a: Option<(u32, OtaState)>, b: Option<(u32, OtaState)>) -> Self {
        let mut board = Self::new();
        for (sector, entry) in [(Sector::A, a), (Sector::B, b)] {
            if let Some((seq, state)) = entry {
                board.put_entry(sector, &OtaEntry::new(seq, state).encode());
            }
        }
        board
    }

    fn without_rollback(mut self) -> Self {
        self.bootloader.rollback = false;
        self
    }

    fn put_image(&mut self, offset: u32, chip: ChipId, build: u64) -> ImageHash {
        let image = FirmwareSpec {
            size_bytes: SIZE_MIN_BYTES,
            build,
            ..FirmwareSpec::new(descriptor(), chip)
        }
        .build()
        .unwrap();
        write_erased(&mut self.flash, offset, &image).unwrap();
        ImageHash(*image.last_chunk().unwrap())
    }

    fn put_entry(&mut self, sector: Sector, entry: &[u8; ENTRY_BYTES]) {
        write_erased(&mut self.flash, OTADATA + sector.offset(), entry).unwrap();
    }

    fn boot(&mut self) -> Result<Booted, BootFailure<FlashError>> {
        self.bootloader.boot(&mut self.flash, ResetReason::PowerOn)
    }

    /// Boots and returns the slot, after checking that the image in it is the one that runs.
    fn booted_slot(&mut self) -> u8 {
        let booted = self.boot().unwrap();
        let BootSlot::Ota(slot) = booted.slot else { panic!("{} booted", booted.slot) };
        assert_eq!(booted.image.image_hash, self.images[usize::from(slot)]);
        assert_eq!(booted.partition.offset, SLOTS[usize::from(slot)]);
        slot
    }

    /// Sequence number and state of both entries, as in flash.
    fn otadata(&mut self) -> [Option<(u32, OtaState)>; 2] {
        [Sector::A, Sector::B].map(|sector| {
            let mut entry = [0; ENTRY_BYTES];
            self.flash.read(OTADATA + sector.offset(), &mut entry).unwrap();
            OtaEntry::decode(&entry).map(|entry| (entry.seq, entry.state))
        })
    }
}

fn descriptor() -> Descriptor {
    Descriptor {
        product: Product::new("desk").unwrap(),
        role: Role::new("transmitter").unwrap(),
        board: Board::new("desk-esp32").unwrap(),
        version: "1.0.0".parse().unwrap(),
        min_compatible: "1.0.0".parse().unwrap(),
        protocol: ProtocolRange::single(1),
        epoch: 0,
        config_schema: 0,
    }
}

#[test]
fn the_first_start_boots_ota_0_and_notes_it_as_valid() {
    let mut board = TestBoard::new();
    let booted = board.boot().unwrap();
    assert_eq!((booted.slot, booted.state), (BootSlot::Ota(0), Some(OtaState::Valid)));
    assert_eq!(booted.found, [None, None]);
    assert_eq!(board.otadata(), [Some((1, OtaState::Valid)), None]);
    assert_eq!(board.booted_slot(), 0);
    assert_eq!(board.otadata(), [Some((1, OtaState::Valid)), None]);
}

/// The note is about what boots, not about what was tried first.
#[test]
fn the_first_start_with_a_damaged_ota_0_notes_ota_1() {
    let mut board = TestBoard::new();
    board.flash.bytes[SLOTS[0] as usize + 0x800] ^= 1;
    assert_eq!(board.booted_slot(), 1);
    assert_eq!(board.otadata(), [Some((2, OtaState::Valid)), None]);
}

#[test]
fn the_larger_usable_number_boots_whatever_else_its_state() {
    for state in [OtaState::Valid, OtaState::Undefined, OtaState::Other(77)] {
        let older = Some((1, OtaState::Valid));
        assert_eq!(TestBoard::with_otadata(older, Some((2, state))).booted_slot(), 1);
        assert_eq!(TestBoard::with_otadata(Some((3, state)), Some((2, state))).booted_slot(), 0);
    }
    for state in [OtaState::Invalid, OtaState::Aborted] {
        let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, state)));
        assert_eq!(board.booted_slot(), 0);
        assert_eq!(board.otadata(), [Some((1, OtaState::Valid)), Some((2, state))]);
    }
}

/// L7: any reset on trial is a rollback, a power cut as well as a crash.
#[test]
fn a_new_image_gets_exactly_one_boot() {
    let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, OtaState::New)));
    let booted = board.boot().unwrap();
    assert_eq!((booted.slot, booted.state), (BootSlot::Ota(1), Some(OtaState::PendingVerify)));
    assert_eq!(booted.found[1].map(|entry| entry.state), Some(OtaState::New));
    assert_eq!(board.otadata()[1], Some((2, OtaState::PendingVerify)));

    assert_eq!(board.booted_slot(), 0);
    assert_eq!(board.otadata(), [Some((1, OtaState::Valid)), Some((2, OtaState::Aborted))]);
    assert_eq!(board.booted_slot(), 0);
}

#[test]
fn a_confirmed_image_stays() {
    let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, OtaState::New)));
    board.booted_slot();
    board.put_entry(Sector::B, &OtaEntry::new(2, OtaState::Valid).encode());
    assert_eq!((board.booted_slot(), board.booted_slot()), (1, 1));
}

/// An aborted image can be tried again without another download.
#[test]
fn an_aborted_image_that_is_made_new_again_gets_another_boot() {
    let mut board =
        TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, OtaState::Aborted)));
    assert_eq!(board.booted_slot(), 0);
    board.put_entry(Sector::B, &OtaEntry::new(2, OtaState::New).encode());
    assert_eq!((board.booted_slot(), board.booted_slot()), (1, 0));
}

/// L5: fielded boards with such a bootloader never go back by themselves. L4 looks the same to
/// whoever only asks for the state.
#[test]
fn without_rollback_new_stays_new_and_boots_for_ever() {
    let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, OtaState::New)))
        .without_rollback();
    for _ in 0..3 {
        let booted = board.boot().unwrap();
        assert_eq!((booted.slot, booted.state), (BootSlot::Ota(1), Some(OtaState::New)));
    }
    assert_eq!(board.otadata()[1], Some((2, OtaState::New)));
}

/// The trial was begun under a bootloader with rollback, which was replaced.
#[test]
fn without_rollback_a_pending_image_is_not_taken_back() {
    let mut board =
        TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, OtaState::PendingVerify)))
            .without_rollback();
    assert_eq!(board.booted_slot(), 1);
    assert_eq!(board.otadata()[1], Some((2, OtaState::PendingVerify)));
}

#[test]
fn both_entries_on_trial_are_both_taken_back() {
    let pending = OtaState::PendingVerify;
    let mut board = TestBoard::with_otadata(Some((1, pending)), Some((2, pending)));
    assert_eq!(board.booted_slot(), 0);
    let aborted = OtaState::Aborted;
    assert_eq!(board.otadata(), [Some((1, aborted)), Some((2, aborted))]);
}

/// Not a first start: the entries say something, so they are left alone.
#[test]
fn with_both_entries_taken_back_ota_0_boots_and_nothing_is_noted() {
    let entries = [Some((2, OtaState::Aborted)), Some((1, OtaState::Invalid))];
    let mut board = TestBoard::with_otadata(entries[0], entries[1]);
    let booted = board.boot().unwrap();
    assert_eq!((booted.slot, booted.state), (BootSlot::Ota(0), None));
    assert_eq!(board.otadata(), entries);
}

/// The power went between erase and write of an entry: the other one decides, and no trace is left.
#[test]
fn a_torn_entry_leaves_the_other_one_in_force() {
    let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), None);
    let mut torn = OtaEntry::new(2, OtaState::Valid).encode();
    torn[28..].fill(0xFF);
    board.put_entry(Sector::B, &torn);
    assert_eq!(board.booted_slot(), 0);
    assert_eq!(board.otadata(), [Some((1, OtaState::Valid)), None]);
}

/// ESP-IDF takes an entry with a wrong CRC for neither usable nor unusable here.
#[test]
fn a_wrong_crc_alone_is_no_first_start() {
    let mut board = TestBoard::new();
    let mut wrong = OtaEntry::new(2, OtaState::Valid).encode();
    wrong[28] ^= 1;
    board.put_entry(Sector::A, &wrong);
    let booted = board.boot().unwrap();
    assert_eq!((booted.slot, booted.state), (BootSlot::Ota(0), None));
    assert_eq!(board.otadata(), [None, None]);
    assert!(booted.events.contains(&BootEvent::NothingSelected { slot: BootSlot::Factory }));
}

#[test]
fn a_rewritten_entry_keeps_its_label() {
    let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), None);
    let entry = OtaEntry { label: *b"twenty bytes, kept..", ..OtaEntry::new(2, OtaState::New) };
    board.put_entry(Sector::B, &entry.encode());
    board.boot().unwrap();
    let mut bytes = [0; ENTRY_BYTES];
    board.flash.read(OTADATA + Sector::B.offset(), &mut bytes).unwrap();
    assert_eq!(bytes, entry.with_state(OtaState::PendingVerify).encode());
}

/// L7: the plug is pulled after every byte of the boots of a trial. What boots is whole, and it is
/// the old image, or the new one in a boot that counts as its trial.
#[test]
fn power_loss_anywhere_in_a_boot_leaves_a_board_that_boots() {
    let states = [OtaState::New, OtaState::PendingVerify];
    let (mut trials, mut silent_returns) = (0, 0);
    for state in states {
        for power_budget_bytes in 0.. {
            let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, state)));
            board.flash.power_budget_bytes = Some(power_budget_bytes);
            let uncut = board.boot().is_ok();
            board.flash.power_on();

            let slot = board.booted_slot();
            let [old, new] = board.otadata();
            assert_eq!(old, Some((1, OtaState::Valid)), "the entry of the old image is untouched");
            trials += u32::from(slot == 1);
            silent_returns += u32::from(slot == 0 && new.is_none());
            if slot == 1 {
                assert_eq!(new, Some((2, OtaState::PendingVerify)), "no second boot without note");
            }
            assert_eq!(
                board.booted_slot(),
                0,
                "one boot at most, after {power_budget_bytes} bytes"
            );
            if uncut {
                break;
            }
        }
    }
    assert!(trials > 0 && silent_returns > 0, "{trials} trials, {silent_returns} silent returns");
}

#[test]
fn power_loss_anywhere_in_the_first_start_only_delays_it() {
    for power_budget_bytes in 0.. {
        let mut board = TestBoard::new();
        board.flash.power_budget_bytes = Some(power_budget_bytes);
        let uncut = board.boot().is_ok();
        board.flash.power_on();
        assert_eq!(board.booted_slot(), 0);
        if uncut {
            return;
        }
    }
}

#[test]
fn a_damaged_image_falls_to_the_other_slot_and_says_so() {
    for (seq, damaged, other) in [(1, 0, 1), (2, 1, 0)] {
        let mut board = TestBoard::with_otadata(Some((seq, OtaState::Valid)), None);
        board.flash.bytes[SLOTS[damaged] as usize + 0x800] ^= 1;
        let booted = board.boot().unwrap();
        assert_eq!(booted.slot, BootSlot::Ota(other));
        let log: Vec<String> = booted.events.iter().map(ToString::to_string).collect();
        let said = format!("ota_{damaged} is not bootable: ");
        assert!(log.iter().any(|line| line.starts_with(&said)), "{log:?}");
        // Otadata goes on to name the damaged one: the application can see that.
        assert_eq!(booted.state, Some(OtaState::Valid));
        assert_eq!(board.otadata(), [Some((seq, OtaState::Valid)), None]);
    }
}

/// L8: an image for another chip does not even start.
#[test]
fn an_image_for_another_chip_does_not_boot() {
    let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), None);
    board.put_image(SLOTS[0], ChipId::ESP32_S3, 0);
    let booted = board.boot().unwrap();
    let why = ImageRefusal::Chip { found: ChipId::ESP32_S3, expected: ChipId::ESP32 };
    assert_eq!(why.to_string(), "image is for `ESP32-S3`, this board has `ESP32`");
    assert!(booted.events.contains(&BootEvent::ImageRefused { slot: BootSlot::Ota(0), why }));
    assert_eq!(booted.slot, BootSlot::Ota(1));
}

#[test]
fn without_any_bootable_image_the_failure_names_each() {
    let mut board = TestBoard::new();
    for slot in SLOTS {
        board.flash.erase(slot, slot + 0x1000).unwrap();
    }
    let failure = board.boot().unwrap_err();
    assert!(matches!(failure.cause, BootFailureCause::NoBootableImage), "{failure:?}");
    let text = failure.to_string();
    assert!(text.contains("ota_0 is not bootable: ") && text.contains("; ota_1 is not"), "{text}");
}

#[test]
fn without_a_partition_table_nothing_boots() {
    let mut board = TestBoard::new();
    board.flash.bytes[TABLE_OFFSET as usize + 12] ^= 1; // A label.
    let failure = board.boot().unwrap_err();
    assert_eq!(failure.to_string(), "no partition table at 0x8000");
    assert!(failure.source().is_some_and(|source| source.to_string().contains("md5")));
}

#[test]
fn an_otadata_partition_without_room_for_two_entries_stops_the_boot() {
    let mut board = TestBoard::with_table(&changed_table(|entry| {
        if entry.kind == TYPE_DATA && entry.subtype == SUBTYPE_OTADATA {
            entry.size_bytes = 0x1000;
        }
    }));
    let failure = board.boot().unwrap_err();
    assert_eq!(failure.to_string(), "partition `otadata` has 4096 bytes; it needs 8192");
}

/// What users flash: images of the field boot on the board they are for, with no fault to show.
#[test]
fn real_images_boot_and_are_healthy() {
    let folder = std::env::var_os("LOCKSTEP_FIRMWARE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/firmware"),
        PathBuf::from,
    );
    let Ok(files) = folder.read_dir() else {
        println!("skipped: no firmware in `{}`", folder.display());
        return;
    };
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let images = paths.filter(|path| path.extension().is_some_and(|extension| extension == "bin"));
    for path in images {
        let image = std::fs::read(&path).unwrap();
        let mut board = TestBoard::with_otadata(None, Some((2, OtaState::New)));
        board.bootloader.chip = ChipId(u16::from_le_bytes([image[12], image[13]]));
        write_erased(&mut board.flash, SLOTS[1], &image).unwrap();
        let booted = board.boot().unwrap();
        assert_eq!(booted.slot, BootSlot::Ota(1), "{}: {:?}", path.display(), booted.events);
        assert_eq!(booted.image.size_bytes as usize, image.len(), "{}", path.display());

        let mut block = [0; BEHAVIOUR_BYTES];
        board.flash.read(SLOTS[1] + BEHAVIOUR_OFFSET, &mut block).unwrap();
        assert_eq!(Fault::decode(&block), Ok(Fault::None), "{}", path.display());
    }
}

/// The desk's table with the last slot turned into a factory partition.
fn factory_table() -> PartitionTable {
    changed_table(|entry| {
        if entry.ota_slot() == Some(1) {
            entry.subtype = SUBTYPE_FACTORY;
        }
    })
}

#[test]
fn with_both_entries_unusable_the_factory_image_boots_and_nothing_is_noted() {
    let mut board = TestBoard::with_table(&factory_table());
    let booted = board.boot().unwrap();
    assert_eq!((booted.slot, booted.image.image_hash), (BootSlot::Factory, board.images[1]));
    assert_eq!(board.otadata(), [None, None]);
}

#[test]
fn a_damaged_image_falls_to_the_factory_image_first() {
    let mut board = TestBoard::with_table(&factory_table());
    board.put_entry(Sector::A, &OtaEntry::new(1, OtaState::Valid).encode());
    assert_eq!(board.boot().unwrap().slot, BootSlot::Ota(0));
    board.flash.bytes[SLOTS[0] as usize + 0x800] ^= 1;
    assert_eq!(board.boot().unwrap().slot, BootSlot::Factory);
}

#[test]
fn a_test_image_boots_when_nothing_else_does() {
    let mut board = TestBoard::with_table(&changed_table(|entry| {
        if entry.ota_slot() == Some(1) {
            entry.subtype = SUBTYPE_TEST;
        }
    }));
    assert_eq!(board.boot().unwrap().slot, BootSlot::Ota(0));
    board.flash.bytes[SLOTS[0] as usize + 0x800] ^= 1;
    assert_eq!(board.boot().unwrap().slot, BootSlot::Test);
}

/// Down from the selected slot to the factory image, then up, then the test image.
#[test]
fn slots_are_tried_downwards_first() {
    let table = PartitionTable::desk_table();
    let mut entries = table.entries().to_vec();
    for (slot, entry) in (0..).zip(&mut entries) {
        (entry.kind, entry.subtype) = (TYPE_APP, SUBTYPE_OTA_0 + slot);
        entry.offset = (u32::from(slot) + 1) * 0x1_0000;
        entry.size_bytes = 0x1000;
    }
    let table = PartitionTable::new(&entries[..4]).unwrap();
    let ota = BootSlot::Ota;
    assert_eq!(
        candidates(&table, ota(2)),
        [ota(2), ota(1), ota(0), BootSlot::Factory, ota(3), BootSlot::Test]
    );
    assert_eq!(
        candidates(&table, BootSlot::Factory),
        [BootSlot::Factory, ota(0), ota(1), ota(2), ota(3), BootSlot::Test]
    );
}

#[test]
fn the_log_of_a_trial_reads_like_its_story() {
    let mut board = TestBoard::with_otadata(Some((1, OtaState::Valid)), Some((2, OtaState::New)));
    let mut log = |reset| -> Vec<String> {
        let booted = board.bootloader.boot(&mut board.flash, reset).unwrap();
        booted.events.iter().map(ToString::to_string).collect()
    };
    let (trial, after) = (log(ResetReason::Software), log(ResetReason::Panic));
    let [old, new] = board.images;
    assert_eq!(
        trial,
        [
            "reset by software",
            "otadata entry B (sequence 2, New) selects ota_1",
            "otadata entry B (sequence 2) gets its one boot: PENDING_VERIFY",
            &format!("booting image {new:?} from ota_1"),
        ]
    );
    assert_eq!(
        after,
        [
            "reset by panic",
            "otadata entry B (sequence 2) was on trial at the reset: ABORTED",
            "otadata entry A (sequence 1, Valid) selects ota_0",
            &format!("booting image {old:?} from ota_0"),
        ]
    );
}

fn changed_table(change: impl Fn(&mut PartitionEntry)) -> PartitionTable {
    let mut entries = PartitionTable::desk_table().entries().to_vec();
    entries.iter_mut().for_each(change);
    PartitionTable::new(&entries).unwrap()
}
