//! What is staged, and what is refused before the first sector is erased.

use lockstep_agent::receiver::Dropped;
use lockstep_agent::{Pace, Trace};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::block::{Ask, BlockFrame, Repair, Session};
use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::order::{Order, Stage};
use lockstep_proto::frame::report::{MemberState, Readiness, Refusal, Wants};
use lockstep_proto::id::{DeviceId, ImageHash, Sha256};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::{KeySet, Trust};
use lockstep_proto::signature::PublicKey;
use lockstep_proto::text::Name;
use lockstep_sim::firmware::FirmwareSpec;

use crate::fixture::{
    Firmware, ME, Release, SLOT_BYTES, SLOTS, TestDevice, build, descriptor, firmware, pack,
    stage_of, ticket,
};

/// Stages `release`, whose image is refused: the other slot is as it was, erases included.
#[track_caller]
fn assert_refused_untouched(release: &Release, why: Refusal) {
    let mut device = TestDevice::new();
    let slot = SLOTS[1] as usize..(SLOTS[1] + SLOT_BYTES) as usize;
    let sectors = (SLOTS[1] / 4096) as usize..((SLOTS[1] + SLOT_BYTES) / 4096) as usize;
    device.flash.bytes[slot.clone()].fill(0x5A);
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    device.feed(&release.package(), &release.firmware.file);
    assert_eq!(device.refusal(), Some(why));
    assert_eq!(device.state(), MemberState::Staging);
    assert!(device.flash.bytes[slot].iter().all(|&byte| byte == 0x5A), "nothing is written");
    assert!(device.flash.statistics.sector_erases[sectors].iter().all(|&erases| erases == 0));
    // Said again, it is refused again, without another transfer.
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    assert_eq!((device.refusal(), device.wanted()), (Some(why), None));
}

fn with_descriptor(descriptor: Descriptor) -> Firmware {
    let spec = FirmwareSpec::new(descriptor, ChipId::ESP32_S3);
    build(&FirmwareSpec { size_bytes: 10_000, ..spec })
}

#[test]
fn a_staged_image_stands_in_the_slot_and_is_reported() {
    let mut device = TestDevice::new();
    device.stage(1);
    let at = SLOTS[1] as usize;
    assert!(device.flash.bytes[at..at + device.new.file.len()] == device.new.file[..]);
    let report = device.report();
    assert!(report.observed.staged && !report.observed.activated);
    assert_eq!((report.other, report.staged_bytes), (device.new.hash, device.new.size_bytes()));
    assert!(device.saw(Trace::PackageAccepted) && device.saw(Trace::Staged));
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash);
    assert!(device.report().observed.staged, "after a reboot as well");
}

// L8: wrong chip, found after the whole download, or after it was flashed.
#[test]
fn an_image_for_another_chip_is_refused_before_the_first_erase() {
    let (image, device) = (u32::from(ChipId::ESP32.0), u32::from(ChipId::ESP32_S3.0));
    let spec = FirmwareSpec::new(descriptor(), ChipId::ESP32);
    let wrong = build(&FirmwareSpec { size_bytes: 10_000, ..spec });
    // The manifest says so; then only the image does.
    let said = Release { chip: ChipId::ESP32, ..Release::of(wrong.clone()) };
    assert_refused_untouched(&said, Refusal::WrongChip { image, device });
    assert_refused_untouched(&Release::of(wrong), Refusal::WrongChip { image, device });
}

// L9: right chip, wrong role or board, accepted without question.
#[test]
fn an_image_for_another_role_or_board_is_refused_before_the_first_erase() {
    let role = Descriptor { role: Name::new("transmitter").unwrap(), ..descriptor() };
    assert_refused_untouched(&Release::of(with_descriptor(role)), Refusal::WrongRole);
    let board = Descriptor { board: Name::new("other-board").unwrap(), ..descriptor() };
    let release = Release::of(with_descriptor(board));
    assert_refused_untouched(&release, Refusal::WrongBoard);
    let said = Release { board: Some("other-board"), ..Release::of(firmware(1)) };
    assert_refused_untouched(&said, Refusal::WrongBoard);
    let nobody = Release { role: "transmitter", ..Release::of(firmware(1)) };
    assert_refused_untouched(&nobody, Refusal::BadManifest);
}

// L9: the image must say the same as its manifest.
#[test]
fn an_image_that_contradicts_its_manifest_is_refused() {
    let epoch = with_descriptor(Descriptor { epoch: 3, ..descriptor() });
    assert_refused_untouched(&Release::of(epoch), Refusal::BadManifest);
    let other_hash = Release { image: ImageHash([7; 32]), ..Release::of(firmware(1)) };
    assert_refused_untouched(&other_hash, Refusal::BadManifest);
    let other_size = Release { size_bytes: 9_999, ..Release::of(firmware(1)) };
    assert_refused_untouched(&other_size, Refusal::BadManifest);
}

// L15: just over the slot, and a reboot loop.
#[test]
fn an_image_larger_than_the_slot_is_refused_with_both_numbers() {
    let mut device = TestDevice::new();
    let size_bytes = SLOT_BYTES + 16;
    let stage = Stage { size_bytes, ..Release::of(device.new.clone()).stage() };
    let refused = Refusal::TooLarge { size_bytes, slot_bytes: SLOT_BYTES };
    device.assert_refused(&ticket(1, 0), &Order::Stage(stage), refused);
}

// L30: an error page saved as firmware.
#[test]
fn a_web_page_is_not_an_image() {
    let mut page = b"<!DOCTYPE html><html>404 not found".to_vec();
    page.resize(9_000, b' ');
    let file = Firmware { hash: firmware(1).hash, file: page };
    let slot_untouched = Release::of(file);
    assert_refused_untouched(&slot_untouched, Refusal::NotAnImage { offset: 24 });
}

// Invariant 7: whatever its version says.
#[test]
fn a_release_below_the_epoch_floor_is_refused() {
    let mut device = TestDevice::new();
    let (agent, flash) = device.parts();
    agent.raise_epoch(2, flash).unwrap();
    let release = Release { epoch: 1, ..Release::of(device.new.clone()) };
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    device.feed(&release.package(), &release.firmware.file);
    assert_eq!(device.refusal(), Some(Refusal::EpochTooLow { offered: 1, floor: 2 }));
}

// Invariant 6, and L29: several trusted keys.
#[test]
fn only_what_enough_trusted_keys_signed_is_staged() {
    let pairs: Vec<_> =
        (0..2).map(|_| minisign::KeyPair::generate_unencrypted_keypair().unwrap()).collect();
    let keys: Vec<PublicKey> =
        pairs.iter().map(|pair| pair.pk.to_base64().parse().unwrap()).collect();
    let release = Release::of(firmware(1));
    let manifest = release.manifest();
    let sign = |pair: &minisign::KeyPair| {
        minisign::sign(Some(&pair.pk), &pair.sk, manifest.as_bytes(), None, None)
            .unwrap()
            .to_string()
            .into_bytes()
    };
    let signatures: Vec<_> = pairs.iter().map(sign).collect();
    let outcome = |signatures: &[&[u8]]| {
        let mut device = TestDevice::new();
        device.trust = Trust::signed_by(KeySet::new(&keys, 2).unwrap());
        device.power_cycle();
        let package = pack(manifest.as_bytes(), signatures);
        let stage = stage_of(&package, release.image, release.size_bytes);
        device.order(&ticket(1, 0), &Order::Stage(stage));
        device.feed(&package, &release.firmware.file);
        (device.state(), device.refusal())
    };
    let untrusted = |good| Some(Refusal::Untrusted { good, needed: 2 });
    let [first, second] = &signatures[..] else { panic!("two signatures") };
    assert_eq!(outcome(&[]), (MemberState::Staging, untrusted(0)));
    assert_eq!(outcome(&[first]), (MemberState::Staging, untrusted(1)));
    assert_eq!(outcome(&[first, first]), (MemberState::Staging, untrusted(1)));
    assert_eq!(outcome(&[first, second]), (MemberState::Staged, None));
}

#[test]
fn keys_that_were_set_outlive_a_reboot_and_the_set_up() {
    let mut device = TestDevice::new();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let key: PublicKey = pair.pk.to_base64().parse().unwrap();
    let trust = Trust::signed_by(KeySet::new(&[key], 1).unwrap());
    let (agent, flash) = device.parts();
    agent.set_trust(trust.clone(), flash).unwrap();
    device.power_cycle();
    assert_eq!(device.trust.keys(), None, "which the device is set up with");
    assert_eq!(device.agent().trust(), &trust);
    assert_eq!(device.agent().facts(0, 0).keys, 1);
}

// What arrives is hashed as a whole: a block that was forged or garbled is found in the end.
#[test]
fn a_slot_that_reads_back_differently_is_not_staged_and_starts_anew() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    let stage = Order::Stage(release.stage());
    let mut spoilt = device.new.file.clone();
    spoilt[5_000] ^= 1;
    for _ in 0..3 {
        device.order(&ticket(1, 0), &stage);
        device.feed(&release.package(), &spoilt);
        assert_eq!(device.state(), MemberState::Staging);
        assert!(device.refusal().is_some());
        assert!(!device.report().observed.staged);
    }
    let good = device.new.file.clone();
    device.order(&ticket(1, 0), &stage);
    device.feed(&release.package(), &good);
    assert_eq!((device.state(), device.refusal()), (MemberState::Staged, None));
}

#[test]
fn a_transfer_that_keeps_coming_out_wrong_ends() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    let mut spoilt = device.new.file.clone();
    spoilt[5_000] ^= 1;
    let mut transfers = 0;
    for _ in 0..10 {
        device.order(&ticket(1, 0), &Order::Stage(release.stage()));
        transfers += u32::from(device.wanted().is_some());
        device.feed(&release.package(), &spoilt);
    }
    assert_eq!(transfers, 4, "once, and three times anew");
    assert!(matches!(device.refusal(), Some(Refusal::NotAnImage { .. })));
}

// The manifest's file hash covers what the image's own hash does not.
#[test]
fn an_image_with_another_file_hash_is_not_staged() {
    let mut device = TestDevice::new();
    let release = Release { sha256: Sha256([3; 32]), ..Release::of(device.new.clone()) };
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    device.feed(&release.package(), &release.firmware.file);
    let found = u32::from_le_bytes(device.new.sha256().0[..4].try_into().unwrap());
    let refused = Refusal::SlotDiffers { found, expected: 0x0303_0303 };
    assert_eq!((device.state(), device.refusal()), (MemberState::Staging, Some(refused)));
}

// As ESP-IDF does: from the first erased sector on, the old image must not boot.
#[test]
fn the_slots_entry_is_erased_before_its_first_sector() {
    let mut device = TestDevice::kept(crate::fixture::Start::Rollback);
    let release = Release::of(firmware(2));
    device.order(&ticket(2, 0), &Order::Stage(release.stage()));
    // The old image in slot 0 is there until blocks of the new one are.
    assert_eq!(device.agent().other(), Some(device.old.hash));
    let package = release.package();
    let file = &release.firmware.file;
    let begins = |device: &mut TestDevice| {
        device.wanted().is_some_and(|it| it.session == Session::of(&release.sha256.0))
    };
    while !begins(&mut device) {
        let wants = device.wanted().unwrap();
        device.feed_some(&wants, &package, file);
    }
    let session = Session::of(&release.sha256.0);
    device.feed_block(session, 0, file).unwrap();
    device.feed_block(session, 1, file).unwrap();
    assert_eq!(device.agent().other(), Some(device.old.hash), "the head is not whole");
    device.feed_block(session, 2, file).unwrap();
    assert_eq!(device.agent().other(), None);
    assert!(device.flash.bytes[0xE000..0xE020].iter().all(|&byte| byte == 0xFF));
    assert!(device.saw(Trace::SlotGivenUp));
}

// L13 in small: a transfer goes on where it was.
#[test]
fn staging_goes_on_after_a_reboot_behind_what_is_durable() {
    let mut device = TestDevice::new();
    let big = build(&FirmwareSpec {
        size_bytes: 100_000,
        ..FirmwareSpec::new(descriptor(), ChipId::ESP32_S3)
    });
    let release = Release::of(big);
    let (stage, package) = (Order::Stage(release.stage()), release.package());
    device.order(&ticket(1, 0), &stage);
    loop {
        let wants = device.wanted().unwrap();
        if wants.session == Session::of(&release.sha256.0) && wants.first >= 3 {
            break;
        }
        device.feed_some(&wants, &package, &release.firmware.file);
    }
    device.power_cycle();
    assert_eq!(device.wanted(), None, "it waits until it is told again");
    device.order(&ticket(1, 0), &stage);
    device.pass(1);
    let now = device.now;
    let wants = device.agent().take_wants(now).unwrap();
    assert_eq!((wants.readiness, wants.first, wants.staged_bytes), (Readiness::Head, 2, 57_344));
    assert!(device.saw(Trace::Resumed { done_bytes: 57_344 }));
    device.feed(&package, &release.firmware.file);
    assert_eq!((device.state(), device.running()), (MemberState::Staged, device.old.hash));
}

// What is durable of one file says nothing about another that was written over it since.
#[test]
fn the_progress_of_a_file_ends_when_another_one_takes_its_place() {
    let mut device = TestDevice::new();
    let big = |build| {
        let spec = FirmwareSpec::new(descriptor(), ChipId::ESP32_S3);
        Release::of(crate::fixture::build(&FirmwareSpec { size_bytes: 100_000, build, ..spec }))
    };
    let (first, second) = (big(1), big(2));
    for (counter, release, generations) in [(1, &first, 3), (2, &second, 1)] {
        device.order(&ticket(counter, 0), &Order::Stage(release.stage()));
        let session = Session::of(&release.sha256.0);
        let comes = |wants: &Wants| wants.session == session && wants.first >= generations;
        while !device.wanted().is_some_and(|wants| comes(&wants)) {
            let wants = device.wanted().unwrap();
            device.feed_some(&wants, &release.package(), &release.firmware.file);
        }
    }
    device.power_cycle();
    device.order(&ticket(3, 0), &Order::Stage(first.stage()));
    while device.wanted().unwrap().session != Session::of(&first.sha256.0) {
        let wants = device.wanted().unwrap();
        device.feed_some(&wants, &first.package(), &first.firmware.file);
    }
    assert_eq!(device.wanted().unwrap().first, 0);
    device.feed(&first.package(), &first.firmware.file);
    assert_eq!(device.state(), MemberState::Staged, "{:?}", device.refusal());
}

// Rolled out, reverted, rolled out again: the image is still there.
#[test]
fn an_image_that_is_in_the_slot_already_is_not_sent_again() {
    let mut device = TestDevice::new();
    device.stage(1);
    device.order(&ticket(1, 0), &Order::Revert);
    let erases = device.flash.statistics.sector_erases[SLOTS[1] as usize / 4096];
    device.order(&ticket(2, 0), &Order::Stage(Release::of(device.new.clone()).stage()));
    assert_eq!((device.state(), device.wanted()), (MemberState::Staged, None));
    assert_eq!(device.flash.statistics.sector_erases[SLOTS[1] as usize / 4096], erases);
}

#[test]
fn a_slot_that_was_spoilt_after_staging_is_filled_again_in_the_same_rollout() {
    let mut device = TestDevice::ready(crate::fixture::Start::Rollback);
    device.flash.bytes[SLOTS[1] as usize + 5000] ^= 4;
    let order = device.activation();
    device.order(&ticket(1, 1), &order);
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    device.feed(&release.package(), &release.firmware.file);
    assert_eq!(device.state(), MemberState::Staged);
    assert_eq!(device.order(&ticket(1, 1), &order).state, MemberState::Activating);
}

fn asked(session: Session, generation: Option<u16>) -> BlockFrame<'static> {
    const ASKED: [DeviceId; 2] = [DeviceId([9; 6]), ME];
    BlockFrame::Ask(Ask::new(session, generation, 2, &ASKED))
}

#[test]
fn a_question_is_answered_once_and_when_it_is_this_devices_turn() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let take = |device: &mut TestDevice| {
        let now = device.now;
        device.agent().take_wants(now)
    };
    assert_eq!(take(&mut device), None, "it erases the store of the package, and hears nothing");
    device.agent().set_unasked_wait(9);
    device.pass(1);
    assert_eq!(take(&mut device), None, "the wait begins behind that");
    device.pass(1);
    assert_eq!(take(&mut device), None);
    assert_eq!(device.next_wake(), Some(device.now + 9));
    device.pass(9);
    let first = take(&mut device).unwrap();
    assert_eq!((first.readiness, take(&mut device)), (Readiness::Open, None), "once");
    device.feed_block(first.session, 1, &release.package()).unwrap();
    assert_eq!(take(&mut device), None, "a block is no question");
    device.hear(&asked(first.session, None)).unwrap();
    assert_eq!(take(&mut device), None, "another's turn");
    assert_eq!(device.next_wake(), Some(device.now + 2));
    device.pass(2);
    let answer = take(&mut device).unwrap();
    let blocks = u8::try_from(release.package().len().div_ceil(224)).unwrap();
    assert_eq!(answer.lacking.counts(), [blocks - 1]);
    assert_eq!(take(&mut device), None, "once");
    assert_eq!(device.hear(&asked(Session(77), None)), Err(Dropped::Unwanted));
}

/// It was deaf when it was its turn, and so were others: all of them would speak now.
#[test]
fn a_turn_that_was_missed_is_over_and_the_device_speaks_as_if_it_was_not_asked() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    device.agent().set_unasked_wait(9);
    let take = |device: &mut TestDevice| {
        let now = device.now;
        device.agent().take_wants(now)
    };
    for ms in [1, 1, 9] {
        assert_eq!(take(&mut device), None);
        device.pass(ms);
    }
    let session = take(&mut device).unwrap().session;
    device.hear(&asked(session, None)).unwrap();
    device.pass(2 + 10);
    assert!(take(&mut device).is_some(), "a little late");
    device.hear(&asked(session, None)).unwrap();
    device.pass(2 + 11);
    assert_eq!(take(&mut device), None, "another's turn");
    device.pass(8);
    assert_eq!(take(&mut device), None);
    device.pass(1);
    assert!(take(&mut device).is_some());
}

#[test]
fn whoever_lacks_nothing_of_a_generation_keeps_silent_and_whoever_lacks_most_speaks_first() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    device.pass(1);
    let session = device.wanted().unwrap().session;
    let blocks = u16::try_from(release.package().len().div_ceil(224)).unwrap();
    assert!(blocks > 4, "the test needs a package of several blocks");
    device.pass(1);
    let take = |device: &mut TestDevice| {
        let now = device.now;
        device.agent().take_wants(now)
    };
    take(&mut device);
    device.hear(&asked(session, Some(1))).unwrap();
    device.pass(100);
    assert_eq!(take(&mut device), None, "there is no such generation");
    // Its address and the generation say where among those it speaks who lack as much.
    device.hear(&asked(session, Some(0))).unwrap();
    assert_eq!(device.next_wake(), Some(device.now + 2 * 2), "it lacks more than three: first");
    device.pass(2 * 2);
    assert!(take(&mut device).is_some());
    (2..blocks).for_each(|index| device.feed_block(session, index, &release.package()).unwrap());
    device.hear(&asked(session, Some(0))).unwrap();
    assert_eq!(device.next_wake(), Some(device.now + 2 * 3), "two: a slot later");
    // A repair frame that comes meanwhile says that somebody else was heard.
    let payload = [0; 224];
    let (shape, generation) = (Shape::Small, 0);
    let repair = Repair { session, shape, generation, named: 0, payload: &payload };
    device.hear(&BlockFrame::Repair(repair)).unwrap();
    device.pass(100);
    assert_eq!(take(&mut device), None);
}

#[test]
fn a_device_that_has_all_of_it_says_so_when_it_is_asked() {
    let mut device = TestDevice::new();
    device.stage(1);
    let now = device.now;
    device.agent().take_wants(now);
    let session = Session::of(&device.new.sha256().0);
    device.hear(&asked(session, None)).unwrap();
    device.pass(2);
    let now = device.now;
    let answer = device.agent().take_wants(now).unwrap();
    assert_eq!((answer.readiness, answer.session), (Readiness::Done, session));
    assert!(device.agent().take_report_due(), "staged: worth a report unasked");
}

/// A lead that restarted knows nobody: whoever waits for blocks speaks up.
#[test]
fn a_device_that_hears_nothing_of_what_it_lacks_speaks_up() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    assert!(!device.misses_blocks(), "nothing is on its way");
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    device.pass(1);
    assert!(device.misses_blocks());
    let session = device.wanted().unwrap().session;
    device.feed_block(session, 1, &release.package()).unwrap();
    assert!(!device.misses_blocks());
    device.pass(300);
    assert!(device.misses_blocks());
    device.feed(&release.package(), &release.firmware.file);
    device.pass(300);
    assert!(!device.misses_blocks(), "it has all of it");
}

// L16 in small: the application sets the pace, and nothing is erased while blocks arrive.
#[test]
fn in_the_background_the_flash_is_used_once_per_grant() {
    let mut device = TestDevice::new();
    device.agent().set_pace(Pace::Background { ms_between: 20 });
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let package = release.package();
    let used = |device: &TestDevice| {
        let statistics = &device.flash.statistics;
        (statistics.erases_total(), statistics.bytes_written)
    };
    let mut grants = 0;
    while device.state() != MemberState::Staged {
        let Some(wants) = device.wanted() else { break };
        let now = device.now;
        device.agent().take_wants(now + 1);
        let waits = device.next_wake().is_some_and(|at| at <= device.now + 20);
        if wants.readiness != Readiness::Busy && !waits {
            device.feed_some(&wants, &package, &release.firmware.file);
            continue;
        }
        let before = used(&device);
        let wake = device.next_wake().unwrap();
        assert!(wake <= device.now + 20);
        if wake > device.now {
            device.pass(wake.ms_since(device.now) - 1);
            assert_eq!(used(&device), before, "not before the grant");
        }
        device.pass(1);
        let after = used(&device);
        assert!(after.0 - before.0 <= 1 && after.1 - before.1 <= 512, "{before:?} {after:?}");
        grants += 1;
    }
    assert_eq!(device.state(), MemberState::Staged, "{:?}", device.refusal());
    assert!(grants > 40, "{grants} grants for 10,000 bytes");
}
