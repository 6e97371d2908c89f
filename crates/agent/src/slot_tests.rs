//! Pages, sectors and paces.

use std::vec::Vec;

use lockstep_sim::flash::MemFlash;

use super::*;

const START: u32 = 0x1_0000;

fn file(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 253).unwrap()).collect()
}

fn write_all(flash: &mut MemFlash, writer: &mut SlotWriter, bytes: &[u8], pace: Pace) -> usize {
    let (mut rest, mut steps) = (bytes, 0);
    while !rest.is_empty() {
        steps += 1;
        if let Step::Wrote(length) = writer.step(flash, rest, pace).unwrap() {
            rest = &rest[length..];
        }
    }
    steps
}

#[test]
fn what_is_written_stands_there_whatever_the_length() {
    for length in [1, 3, 4, 255, 256, 257, 4095, 4096, 4097, 70_001] {
        for pace in [Pace::Fast, Pace::Background { ms_between: 1 }] {
            let mut flash = MemFlash::new(0x4_0000);
            flash.bytes.fill(0);
            let mut writer = SlotWriter::resume(START, bytes_u32(length), 0);
            write_all(&mut flash, &mut writer, &file(length), pace);
            let at = START as usize;
            assert!(flash.bytes[at..at + length] == file(length)[..], "{length} bytes, {pace:?}");
            assert!(flash.bytes[..at].iter().all(|&byte| byte == 0), "nothing before it is erased");
            let end = (at + length).next_multiple_of(4096);
            assert!(flash.bytes[end..].iter().all(|&byte| byte == 0), "nor behind its last sector");
        }
    }
}

// L31: one erase of a whole slot starves the watchdog.
#[test]
fn in_the_background_a_step_is_one_sector_or_one_page() {
    let mut flash = MemFlash::new(0x4_0000);
    let mut writer = SlotWriter::resume(START, 12_288, 0);
    let background = Pace::Background { ms_between: 1 };
    let bytes = file(12_288);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (erases, written) = (flash.statistics.erases_total(), flash.statistics.bytes_written);
        let step = writer.step(&mut flash, rest, background).unwrap();
        let erased = flash.statistics.erases_total() - erases;
        let wrote = flash.statistics.bytes_written - written;
        assert!((erased, wrote) == (1, 0) || (erased == 0 && wrote <= 256), "{step:?}");
        if let Step::Wrote(length) = step {
            rest = &rest[length..];
        }
    }
    let mut flash = MemFlash::new(0x4_0000);
    let mut writer = SlotWriter::resume(START, 0x1_8000, 0);
    writer.step(&mut flash, &bytes, Pace::Fast).unwrap();
    assert_eq!(flash.statistics.erases_total(), 16, "one erase of 64 KiB");
}

#[test]
fn resuming_erases_again_what_may_have_been_torn_and_nothing_before() {
    let mut flash = MemFlash::new(0x4_0000);
    let bytes = file(12_288);
    let mut writer = SlotWriter::resume(START, 12_288, 0);
    write_all(&mut flash, &mut writer, &bytes[..9000], Pace::Background { ms_between: 1 });
    let mut writer = SlotWriter::resume(START, 12_288, 4096);
    assert_eq!(writer.written_bytes(), 4096);
    write_all(&mut flash, &mut writer, &bytes[4096..], Pace::Background { ms_between: 1 });
    let at = START as usize;
    assert!(flash.bytes[at..at + 12_288] == bytes[..]);
    assert_eq!(flash.statistics.sector_erases[16..19], [1, 2, 2]);
}

// The body of a package stands behind its header, in the same sector.
#[test]
fn a_file_that_begins_within_a_sector_is_written_where_all_of_it_was_erased() {
    let mut flash = MemFlash::new(0x4_0000);
    flash.bytes.fill(0);
    let start = START + 32;
    let mut writer = SlotWriter::resume(start, 5000, 0);
    write_all(&mut flash, &mut writer, &file(5000), Pace::Fast);
    let at = start as usize;
    assert!(flash.bytes[at..at + 5000] == file(5000)[..]);
    assert_eq!(flash.bytes[START as usize..at], [0xFF; 32]);
    assert_eq!(flash.statistics.sector_erases[15..19], [0, 1, 1, 0]);
}
