//! Power loss, complete: one device, cut after every byte of every write and in every shape of
//! every erase of a whole rollout.
//!
//! After each cut the bootloader must find a whole image, the firmware must start and tell the
//! truth, the rollout must come to the end that its verdict names, and the next rollout must be
//! kept. `docs/power-loss.md` says what lies in flash when, and shows the tables that these tests
//! print. All of it takes minutes with optimisation: `cargo xtask test --suite power`. Without,
//! only a member's record and otadata are cut.

mod bench;
mod lead;
mod member;
mod places;
mod plug;
mod scene;
mod search;
mod world;

use lockstep_agent::Pace;
use lockstep_proto::frame::report::Rollback;

use lead::Lead;
use member::Member;
use places::{HALF_BYTES, Step, What};
use scene::{From, Scene, Task};
use search::{Cuts, Row, Search, Table};
use world::World;

/// The factory image.
const OLD_BYTES: u32 = 4_096;
/// The images of the rollouts before and after the one that is cut.
const SMALL_BYTES: [u32; 2] = [4_128, 4_144];
/// A sector and a bit; whole sectors and whole windows; beyond a 64 KiB erase and a durable step of
/// the progress, with a short last block.
const SIZES_BYTES: [u32; 3] = [4_816, 28_672, 66_064];
const SMALLEST: u32 = SIZES_BYTES[0];
/// With its patch it does not fit a slot of 64 KiB, and yet is made there.
const TIGHT_BYTES: u32 = 56_000;
const BOOTLOADERS: [Rollback; 2] = [Rollback::Bootloader, Rollback::Agent];

const KEEP: &[Task] = &[Task::Update(1), Task::Update(2)];
const ABORT: &[Task] = &[Task::UpdateAborted(1), Task::Update(2)];
const BACK: &[Task] = &[Task::Update(1), Task::Back, Task::Update(2)];
/// The slot that is written holds the way back of a release that was kept, with its entry.
const AGAIN: &[Task] = &[Task::Update(2), Task::Update(1), Task::Update(3)];

fn scene(rollback: Rollback, size_bytes: u32, tasks: &[Task]) -> Scene {
    let [first, second] = SMALL_BYTES;
    Scene::new(rollback, &[OLD_BYTES, size_bytes, first, second]).with_tasks(tasks)
}

/// All sizes of one history.
fn search<W: World>(who: &str, rollback: Rollback, tasks: &[Task], cuts: Cuts) -> Table {
    let mut all = Table::default();
    for size_bytes in SIZES_BYTES {
        // The bytes of the larger images were cut on their way to being kept: the same bytes.
        let cuts = if size_bytes == SMALLEST { Cuts::Everywhere } else { cuts };
        let mut search = Search::<W>::new(scene(rollback, size_bytes, tasks));
        search.cut_once(cuts);
        let (points, states) = (search.once.cuts(), search.once.states);
        println!(
            "{who}, {rollback:?}, {size_bytes} bytes, {tasks:?}: {points} cuts, {states} states"
        );
        all.add(&search.once);
    }
    all.print(&format!("{who}, rollback by {rollback:?}, {tasks:?}"));
    all
}

fn keep<W: World>(who: &str, rollback: Rollback) {
    let table = search::<W>(who, rollback, KEEP, Cuts::Everywhere);
    assert!(table.sum(|_, what| what == What::RecordHeader).cuts > 0);
    assert_kept(&table, rollback);
}

fn keep_again<W: World>(who: &str, rollback: Rollback) {
    let table = search::<W>(who, rollback, AGAIN, Cuts::BooksOnly);
    let forgotten = table.sum(|step, what| (step, what) == (Step::Stage, What::OtadataErase));
    assert!(forgotten.erases > 0, "the entry of the slot goes before its image");
    assert_kept(&table, rollback);
}

fn assert_kept(table: &Table, rollback: Rollback) {
    assert_staging_is_reached(table);
    assert_activation_is_reached(table, rollback);
    assert_confirmation_is_reached(table);
}

fn abort<W: World>(who: &str, rollback: Rollback) {
    let table = search::<W>(who, rollback, ABORT, Cuts::BooksOnly);
    assert_staging_is_reached(&table);
    assert_activation_is_reached(&table, rollback);
    let revert = |what| table.sum(|step, place| step == Step::Revert && place == what);
    for what in [What::Record(2), What::OtadataErase, What::OtadataWrite] {
        assert!(revert(what).cuts > 0, "{what:?}");
    }
    assert_eq!(table.sum(|_, _| true).kept, 0, "nobody wanted it kept");
}

fn back<W: World>(who: &str, rollback: Rollback) {
    let table = search::<W>(who, rollback, BACK, Cuts::Everywhere);
    assert_activation_is_reached(&table, rollback);
    assert_confirmation_is_reached(&table);
    let slot = |_, what| matches!(what, What::SlotErase | What::SlotWrite | What::Head);
    assert_eq!(table.sum(slot), Row::default(), "the way back is not written anew");
}

/// Cuts that a search did not reach prove nothing.
fn assert_staging_is_reached(table: &Table) {
    for what in [
        What::PackageErase,
        What::PackageBody,
        What::PackageHeader,
        What::SlotErase,
        What::Head,
        What::SlotWrite,
        What::Record(10),
        What::Record(2),
    ] {
        let row = table.sum(|_, found| found == what);
        assert!(row.cuts > 0, "{what:?} was not cut");
    }
    let slot = |_, what| matches!(what, What::SlotErase | What::Head | What::SlotWrite);
    assert_eq!(table.sum(slot).new, 0, "what is being written does not boot");
}

fn assert_activation_is_reached(table: &Table, rollback: Rollback) {
    let at = |step, what| table.sum(|found, place| (found, place) == (step, what));
    assert!(at(Step::Activate, What::Record(2)).cuts > 0);
    assert_eq!(at(Step::Activate, What::OtadataErase).cuts % 5, 0);
    // A boot that gave the entry up when it staged does not erase it a second time.
    let erased = table.sum(|step, place| {
        matches!(step, Step::Stage | Step::Activate) && place == What::OtadataErase
    });
    assert!(erased.erases > 0);
    assert!(at(Step::Activate, What::OtadataWrite).cuts >= 32);
    for what in [What::OtadataErase, What::OtadataWrite] {
        assert_eq!(at(Step::Activate, what).new, 0, "what ran keeps its entry: {what:?}");
    }
    if rollback == Rollback::Bootloader {
        let found = at(Step::Bootloader, What::OtadataErase);
        assert!(found.old > 0 && found.new > 0, "NEW is still there, or the entry is gone");
        assert_eq!(table.sum(|step, _| step == Step::Trial).new, 0, "any reset goes back");
    } else {
        assert!(at(Step::Start, What::Record(2)).new > 0, "trial boots are counted");
    }
}

fn assert_confirmation_is_reached(table: &Table) {
    let confirm = table.sum(|step, _| step == Step::Confirm);
    assert!(confirm.old > 0 && confirm.new > 0, "fell back, and stayed");
    assert!(table.sum(|step, what| (step, what) == (Step::Confirm, What::OtadataErase)).erases > 0);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_member_with_rollback_is_whole_after_every_cut() {
    keep::<Member>("member", Rollback::Bootloader);
    keep_again::<Member>("member", Rollback::Bootloader);
    abort::<Member>("member", Rollback::Bootloader);
    back::<Member>("member", Rollback::Bootloader);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_member_without_rollback_is_whole_after_every_cut() {
    keep::<Member>("member", Rollback::Agent);
    keep_again::<Member>("member", Rollback::Agent);
    abort::<Member>("member", Rollback::Agent);
    back::<Member>("member", Rollback::Agent);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_lead_with_rollback_is_whole_after_every_cut() {
    keep::<Lead>("lead", Rollback::Bootloader);
    keep_again::<Lead>("lead", Rollback::Bootloader);
    abort::<Lead>("lead", Rollback::Bootloader);
    back::<Lead>("lead", Rollback::Bootloader);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_lead_without_rollback_is_whole_after_every_cut() {
    keep::<Lead>("lead", Rollback::Agent);
    keep_again::<Lead>("lead", Rollback::Agent);
    abort::<Lead>("lead", Rollback::Agent);
    back::<Lead>("lead", Rollback::Agent);
}

/// The part that is quick enough to be searched whenever tests run.
#[test]
fn the_books_of_a_member_survive_every_cut() {
    for rollback in BOOTLOADERS {
        let mut all = Table::default();
        for tasks in [KEEP, AGAIN, ABORT, BACK] {
            let mut search = Search::<Member>::new(scene(rollback, SMALLEST, tasks));
            search.cut_once(Cuts::BooksOnly);
            all.add(&search.once);
        }
        assert_activation_is_reached(&all, rollback);
        assert_confirmation_is_reached(&all);
    }
}

/// At the application's pace sectors are erased one by one, between pages that are written.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_member_that_stages_slowly_is_whole_after_every_cut() {
    let scene = scene(Rollback::Bootloader, SIZES_BYTES[1], KEEP);
    let pace = Pace::Background { ms_between: 10 };
    let mut search = Search::<Member>::new(Scene { pace, ..scene });
    search.cut_once(Cuts::Everywhere);
    search.once.print("member, rollback by Bootloader, background");
    assert_staging_is_reached(&search.once);
}

/// Every byte of a patch on its way into the slot's end, and of the image that grows towards it and
/// over it: the slot is as tight as a patch may find it.
fn patched<W: World>(who: &str, size_bytes: u32, from: From) {
    let scene = scene(Rollback::Bootloader, size_bytes, KEEP).patched(from);
    let (patch, _) = scene.releases[1].patch.as_ref().expect("it was made");
    let (patch_bytes, image_bytes) = (patch.len(), scene.releases[1].file.len());
    let slot_bytes = scene.slot_bytes as usize;
    assert_eq!(patch_bytes + image_bytes > slot_bytes, from == From::Nothing);
    let mut search = Search::<W>::new(scene);
    search.cut_once(Cuts::Everywhere);
    search
        .once
        .print(&format!("{who}, a patch of {patch_bytes} bytes for {image_bytes}, {from:?}"));
    assert_staging_is_reached(&search.once);
    assert_activation_is_reached(&search.once, Rollback::Bootloader);
    // A lead takes the patch before it is told to stage.
    let staged = search.once.sum(|_, what| matches!(what, What::Head | What::SlotWrite));
    // All bytes of both were written, and none of these cuts cost more than time.
    assert!(staged.cuts >= (patch_bytes + image_bytes) as u64, "{staged:?}");
    assert_eq!((staged.new, staged.reverted), (0, 0));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_member_that_makes_its_image_from_a_patch_is_whole_after_every_cut() {
    patched::<Member>("member", SIZES_BYTES[1], From::Before);
    patched::<Member>("member", TIGHT_BYTES, From::Nothing);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_lead_that_makes_its_image_from_a_patch_is_whole_after_every_cut() {
    patched::<Lead>("lead", SIZES_BYTES[1], From::Before);
}

/// The record's log is full at every entry of the rollout in turn, so that this very entry moves
/// all others into the other half.
fn full_record<W: World>(who: &str, rollback: Rollback) {
    let mut first = Search::<W>::new(scene(rollback, SMALLEST, KEEP));
    let (journal, _) = first.run();
    let store = scene(rollback, SMALLEST, KEEP).store();
    let mut all = Table::default();
    for (begin, end) in journal.entries {
        let room_bytes = HALF_BYTES - (begin - store);
        let idle_starts = room_bytes / BOOT_NUMBER_BYTES;
        if room_bytes % BOOT_NUMBER_BYTES >= end - begin {
            // It is so short that it still fits: the one behind it moves the others.
            continue;
        }
        let scene = Scene { idle_starts, ..scene(rollback, SMALLEST, KEEP) };
        let mut search = Search::<W>::new(scene);
        search.cut_once(Cuts::BooksOnly);
        let moved = search.once.sum(|_, what| what == What::RecordHeader);
        assert!(moved.cuts > 0, "no entry moved the others after {idle_starts} starts");
        all.add(&search.once);
    }
    all.print(&format!("{who}, rollback by {rollback:?}, record full"));
    for step in [Step::Stage, Step::Activate, Step::Start, Step::Confirm] {
        let moved = all.sum(|found, what| (found, what) == (step, What::RecordHeader));
        assert!(moved.cuts > 0, "{step:?}");
    }
}

/// The record's entries of a start: one that says nothing and the boot number, each with its first
/// word and checksum.
const BOOT_NUMBER_BYTES: u32 = 8 + 12;

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_member_is_whole_after_every_cut_wherever_its_record_is_full() {
    BOOTLOADERS.iter().for_each(|&rollback| full_record::<Member>("member", rollback));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_lead_is_whole_after_every_cut_wherever_its_record_is_full() {
    BOOTLOADERS.iter().for_each(|&rollback| full_record::<Lead>("lead", rollback));
}

/// A cut, and another one on the way out of it.
fn twice<W: World>(who: &str) {
    for rollback in BOOTLOADERS {
        let mut all = Table::default();
        for tasks in [KEEP, AGAIN, ABORT, BACK] {
            let mut search = Search::<W>::new(scene(rollback, SMALLEST, tasks));
            search.cut_once(Cuts::Everywhere);
            search.cut_twice(Cuts::BooksOnly);
            all.add(&search.twice);
        }
        all.print(&format!("{who}, rollback by {rollback:?}, second cuts"));
        assert_activation_is_reached(&all, rollback);
        assert_confirmation_is_reached(&all);
        assert!(all.sum(|step, _| step == Step::Revert).cuts > 0);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_member_is_whole_after_two_cuts() {
    twice::<Member>("member");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes: `cargo xtask test --suite power`")]
fn a_lead_is_whole_after_two_cuts() {
    twice::<Lead>("lead");
}

/// What the searches take for granted: they never pull the plug, they write down changes.
#[test]
fn a_flash_by_the_journal_is_what_a_pulled_plug_leaves() {
    for rollback in BOOTLOADERS {
        let member = plug::compare::<Member>(|| scene(rollback, SMALLEST, KEEP));
        let lead = plug::compare::<Lead>(|| scene(rollback, SMALLEST, KEEP));
        println!("{member} and {lead} plugs pulled");
        assert!(member > 200 && lead > 200);
    }
}
