//! What the desk's flash promises, shown on both kinds where both promise it.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use embedded_storage::nor_flash::ReadNorFlash;

use super::*;

/// A flash file in a folder of its own, gone with the value.
struct TestFile {
    folder: PathBuf,
}

impl TestFile {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lockstep-flash-{}-{name}", process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("flash.bin")
    }

    fn open(&self) -> FileFlash {
        FileFlash::open(&self.path(), 16 * SECTOR_SIZE_BYTES, Timing::None).unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn read<F: NorFlash>(flash: &mut F, offset: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    flash.read(offset, &mut bytes).unwrap_or_else(|error| panic!("{error:?}"));
    bytes
}

fn check_writing_only_clears_bits<F: NorFlash>(flash: &mut F) -> Result<(), F::Error> {
    assert_eq!(read(flash, 0x1000, 4), [0xFF; 4]);
    flash.write(0x1000, &[0b1010_1010, 0, 0xFF, 0x0F])?;
    flash.write(0x1000, &[0b1100_1100, 0xFF, 0xF0, 0xFF])?;
    assert_eq!(read(flash, 0x1000, 4), [0b1000_1000, 0, 0xF0, 0x0F]);

    flash.erase(0x1000, 0x2000)?;
    assert_eq!(read(flash, 0x1000, 4), [0xFF; 4]);
    Ok(())
}

#[test]
fn writing_only_clears_bits_and_erasing_sets_them() {
    check_writing_only_clears_bits(&mut TestFile::new("bits").open()).unwrap();
    check_writing_only_clears_bits(&mut MemFlash::new(16 * SECTOR_SIZE_BYTES)).unwrap();
}

/// A write across pages must not skip or double a byte at a page's edge.
#[test]
fn a_write_across_pages_is_whole() {
    let file = TestFile::new("pages");
    let bytes: Vec<u8> = (0..1000u32).map(|index| index.to_le_bytes()[0]).collect();
    let mut flash = file.open();
    flash.write(0x10F8, &bytes).unwrap();
    assert_eq!(read(&mut flash, 0x10F8, 1000), bytes);
    assert_eq!(read(&mut flash, 0x10F8 - 4, 4), [0xFF; 4]);
    assert_eq!(read(&mut flash, 0x10F8 + 1000, 4), [0xFF; 4]);
}

/// A sector wears out by all erases of its life, not by those since the last power cut.
#[test]
fn wear_is_counted_over_all_starts() {
    let file = TestFile::new("wear");
    let path = file.folder.join("flash.wear");
    for erases in 1..=3 {
        let mut flash = file.open();
        flash.count_wear_in(&path).unwrap();
        flash.erase(0x1000, 0x3000).unwrap();
        let wear = Wear::read(&path).unwrap();
        assert_eq!(wear, [0, erases, erases]);
    }
}

#[test]
fn an_erase_touches_only_its_sectors() {
    let file = TestFile::new("sectors");
    let mut flash = file.open();
    flash.write(0, &[0; 4 * SECTOR_SIZE_BYTES as usize]).unwrap();
    flash.erase(0x1000, 0x3000).unwrap();
    assert_eq!(read(&mut flash, 0xFFC, 8), [0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert_eq!(read(&mut flash, 0x2FFC, 8), [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
    assert_eq!(flash.statistics().sector_erases[..5], [0, 1, 1, 0, 0]);
    assert_eq!(flash.statistics().erases_total(), 2);
    assert_eq!(flash.statistics().bytes_written, 4 * 4096);
}

fn check_refusals<F: NorFlash<Error = FlashError>>(flash: &mut F) {
    let text = |result: Result<(), FlashError>| result.unwrap_err().to_string();
    assert_eq!(
        text(flash.write(2, &[0; 4])),
        "cannot write flash from 0x2 to 0x6: both must be multiples of 4"
    );
    assert_eq!(
        text(flash.write(0, &[0; 3])),
        "cannot write flash from 0x0 to 0x3: both must be multiples of 4"
    );
    assert_eq!(
        text(flash.erase(0x800, 0x1000)),
        "cannot erase flash from 0x800 to 0x1000: both must be multiples of 4096"
    );
    assert_eq!(
        text(flash.erase(0x2000, 0x1000)),
        "cannot erase flash from 0x2000 to 0x1000: it ends at 0x10000"
    );
    assert_eq!(
        text(flash.write(0xFFFC, &[0; 8])),
        "cannot write flash from 0xfffc to 0x10004: it ends at 0x10000"
    );
    assert_eq!(
        text(flash.read(u32::MAX, &mut [0; 2])),
        "cannot read flash from 0xffffffff to 0x100000001: it ends at 0x10000"
    );
    assert_eq!(read(flash, 0, 0x10000), vec![0xFF; 0x10000], "a refused access changes nothing");
}

#[test]
fn a_refused_access_names_both_values_and_changes_nothing() {
    check_refusals(&mut TestFile::new("refusals").open());
    check_refusals(&mut MemFlash::new(16 * SECTOR_SIZE_BYTES));
}

#[test]
fn what_was_written_is_there_when_the_file_is_opened_again() {
    let file = TestFile::new("again");
    file.open().write(0x2000, b"four").unwrap();
    assert_eq!(read(&mut file.open(), 0x2000, 4), b"four");
}

/// Two processes on one flash would be two boards with one chip.
#[test]
fn a_flash_file_has_one_holder_and_the_refusal_names_it() {
    let file = TestFile::new("lock");
    let holder = file.open();
    let refusal = FileFlash::open(&file.path(), 16 * SECTOR_SIZE_BYTES, Timing::None).unwrap_err();
    let OpenError::Locked { path, holder: pid } = &refusal else { panic!("{refusal}") };
    assert_eq!(*path, file.path());
    assert!(pid.is_none_or(|pid| pid == process::id()), "{refusal}");
    assert!(refusal.to_string().contains("flash.bin` is in use by "), "{refusal}");

    drop(holder);
    file.open();
}

/// The desk's power cut. This test is also the process that is killed: it counts upwards in flash
/// until that happens.
#[test]
fn what_was_written_before_kill_9_is_there_in_order() {
    const CHILD: &str = "LOCKSTEP_TEST_FLASH_TO_COUNT_IN";
    let words = 16 * SECTOR_SIZE_BYTES / WORD_SIZE_BYTES;
    let open = |path: &Path| FileFlash::open(path, 16 * SECTOR_SIZE_BYTES, Timing::None).unwrap();
    if let Some(path) = std::env::var_os(CHILD) {
        let mut flash = open(path.as_ref());
        for word in 0..words {
            flash.write(word * WORD_SIZE_BYTES, &word.to_le_bytes()).unwrap();
        }
        loop {
            std::thread::park();
        }
    }

    let file = TestFile::new("kill");
    let mut counter = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "flash::tests::what_was_written_before_kill_9_is_there_in_order"])
        .env(CHILD, file.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let has_begun =
        |path: PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(&[0; 4]));
    while !has_begun(file.path()) {
        assert!(counter.try_wait().unwrap().is_none(), "the counting process ended by itself");
        std::thread::yield_now();
    }
    counter.kill().unwrap();
    counter.wait().unwrap();

    let bytes = read(&mut open(&file.path()), 0, 16 * SECTOR_SIZE_BYTES as usize);
    let (stored, _) = bytes.as_chunks();
    let counted = stored.iter().take_while(|&&word| word != [0xFF; 4]).count();
    assert!(counted > 0);
    for (number, word) in (0u32..).zip(stored) {
        let expected = if (number as usize) < counted { number.to_le_bytes() } else { [0xFF; 4] };
        assert_eq!(*word, expected, "word {number} of {counted}");
    }
}

#[test]
fn a_file_of_another_size_is_refused_with_both_sizes() {
    let file = TestFile::new("size");
    std::fs::write(file.path(), b"not a flash").unwrap();
    let refusal = FileFlash::open(&file.path(), 16 * SECTOR_SIZE_BYTES, Timing::None).unwrap_err();
    assert!(refusal.to_string().ends_with("has 11 bytes; this chip has 65536"), "{refusal}");
    assert_eq!(std::fs::read(file.path()).unwrap(), b"not a flash");
}

/// The process may die while it makes the file; the next start completes it.
#[test]
fn a_half_made_flash_is_completed() {
    let file = TestFile::new("half");
    std::fs::write(file.path(), [0xFF; 5000]).unwrap();
    assert_eq!(read(&mut file.open(), 0, 0x10000), vec![0xFF; 0x10000]);
}

#[test]
fn a_capacity_that_no_chip_has_is_refused() {
    for capacity in [0, 1, 4097, CAPACITY_MAX_BYTES + SECTOR_SIZE_BYTES] {
        let file = TestFile::new("capacity");
        let refusal = FileFlash::open(&file.path(), capacity, Timing::None).unwrap_err();
        assert!(matches!(refusal, OpenError::Capacity { found_bytes } if found_bytes == capacity));
        assert!(refusal.source().is_none());
    }
}

/// The sum is what matters: 64 KiB in one block, the rest by sectors and pages.
#[test]
fn chip_timing_charges_blocks_sectors_and_pages() {
    let file = TestFile::new("timing");
    let mut flash = FileFlash::open(&file.path(), 48 * SECTOR_SIZE_BYTES, Timing::chip()).unwrap();
    flash.erase(15 * SECTOR_SIZE_BYTES, 32 * SECTOR_SIZE_BYTES).unwrap();
    assert_eq!(flash.statistics().busy, Duration::from_millis(45 + 150));
    flash.erase(32 * SECTOR_SIZE_BYTES, 34 * SECTOR_SIZE_BYTES).unwrap();
    assert_eq!(flash.statistics().busy, Duration::from_millis(3 * 45 + 150));
    flash.write(0x80, &[0; 512]).unwrap();
    assert_eq!(flash.statistics().busy, Duration::from_micros(3 * 45_000 + 150_000 + 3 * 400));
}

#[test]
fn a_cut_write_keeps_what_was_written_before_the_cut() {
    let mut flash = MemFlash::new(SECTOR_SIZE_BYTES);
    flash.power_budget_bytes = Some(5);
    assert!(matches!(flash.write(0, &[0; 8]), Err(FlashError::PowerLost)));
    assert!(matches!(flash.read(0, &mut [0; 4]), Err(FlashError::PowerLost)));
    assert!(matches!(flash.erase(0, 4096), Err(FlashError::PowerLost)));

    flash.power_on();
    assert_eq!(read(&mut flash, 0, 8), [0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF]);
}

#[test]
fn a_cut_erase_leaves_each_shape_of_torn_sector() {
    let old = [0x5A; SECTOR_SIZE_BYTES as usize];
    let torn = |budget| {
        let mut flash = MemFlash::new(SECTOR_SIZE_BYTES);
        flash.bytes.copy_from_slice(&old);
        flash.power_budget_bytes = Some(budget);
        let result = flash.erase(0, SECTOR_SIZE_BYTES);
        assert_eq!(result.is_ok(), budget == MemFlash::ERASE_COST);
        assert_eq!(flash.power_lost(), result.is_err());
        flash.bytes
    };
    assert_eq!(torn(0), old);
    assert_eq!((torn(1)[0], torn(1)[4095]), (0xFF, 0x5A));
    assert_eq!((torn(2)[0], torn(2)[4095]), (0x5A, 0xFF));
    assert_eq!(torn(3), [0; 4096]);
    let noise = torn(4);
    assert!(noise != old && noise.iter().all(|byte| byte & 0x5A == 0x5A), "only sets bits");
    assert!(noise.iter().any(|&byte| byte != 0xFF));
    assert_eq!(torn(5), [0xFF; 4096]);
}

#[test]
fn a_flasher_writes_over_what_was_there_and_fills_the_last_word() {
    let mut flash = MemFlash::new(4 * SECTOR_SIZE_BYTES);
    flash.bytes.fill(0);
    write_erased(&mut flash, 0x1000, b"seven..").unwrap();
    assert_eq!(read(&mut flash, 0x1000, 9), *b"seven..\xFF\xFF");
    assert_eq!(read(&mut flash, 0x0FFF, 1), [0]);
    assert_eq!(read(&mut flash, 0x2000, 1), [0]);
    assert!(write_erased(&mut flash, 0x3000, &[0; 4097]).is_err());
}
