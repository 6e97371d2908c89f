//! The lead's other slot as a store for others, and for images that nobody has named yet.

use lockstep_agent::{Pace, SPOOL_HOLD_MS};
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::report::{MemberState, Refusal};
use lockstep_proto::id::Sha256;

use crate::fixture::{Release, SLOT_BYTES, TestDevice, firmware, ticket};
use crate::lead::{foreign, install, sha256, spool};

const FOREIGN_BYTES: u32 = 100_000;

fn begin(device: &mut TestDevice, file: &[u8]) -> Result<u32, Refusal> {
    let (agent, flash) = device.parts();
    agent.spool_begin(sha256(file), u32::try_from(file.len()).unwrap(), flash)
}

fn push(device: &mut TestDevice, offset: u32, bytes: &[u8]) -> Result<u32, Refusal> {
    let now = device.now;
    let (agent, flash) = device.parts();
    agent.spool_push(now, offset, bytes, flash)
}

/// A device whose other slot holds another role's file.
fn with_spool() -> (TestDevice, Vec<u8>) {
    let (mut device, file) = (TestDevice::new(), foreign());
    begin(&mut device, &file).unwrap();
    spool(&mut device, &file, 0).unwrap();
    (device, file)
}

#[test]
fn the_same_package_again_is_not_written_and_another_one_takes_its_place() {
    let mut device = TestDevice::new();
    let one = Release::of(device.new.clone()).package();
    let other = Release::of(firmware(2)).package();
    install(&mut device, &one);
    let erases = device.flash.statistics.erases_total();
    install(&mut device, &one);
    assert_eq!(device.flash.statistics.erases_total(), erases);
    install(&mut device, &other);
    let (agent, flash) = device.parts();
    assert_eq!(agent.package(flash, &mut [0; 12_288]), Some(&other[..]));
}

#[test]
fn a_package_that_is_installed_does_not_have_to_come_over_the_air() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    assert!(device.wanted().is_some(), "the package");
    install(&mut device, &release.package());
    assert_eq!(device.wanted(), None);
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let artifact = device.wanted();
    assert!(artifact.is_some());
    install(&mut device, &Release::of(firmware(2)).package());
    assert_eq!(device.wanted(), artifact, "another package is no reason to stop this");
}

#[test]
fn what_an_earlier_upload_left_is_forgotten_when_a_file_comes_anew() {
    let (mut device, file) = (TestDevice::new(), foreign());
    begin(&mut device, &file).unwrap();
    spool(&mut device, &file[..70_000], 0).unwrap();
    let (agent, flash) = device.parts();
    agent.forget_transfer(flash).unwrap();
    assert_eq!(push(&mut device, 70_000, &file[70_000..]), Err(Refusal::NotStaged));
    assert_eq!(begin(&mut device, &file), Ok(0));
    device.power_cycle();
    assert_eq!(begin(&mut device, &file), Ok(0), "durably");
}

#[test]
fn a_file_as_long_as_the_slot_is_spooled() {
    let mut device = TestDevice::new();
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_begin(Sha256([1; 32]), SLOT_BYTES, flash), Ok(0));
    let refused = Refusal::TooLarge { size_bytes: 0, slot_bytes: SLOT_BYTES };
    assert_eq!(agent.spool_begin(Sha256([1; 32]), 0, flash), Err(refused));
}

#[test]
fn all_that_has_landed_can_be_read_and_nothing_behind_it() {
    let (mut device, file) = with_spool();
    let (agent, flash) = device.parts();
    let mut read = [0; 500];
    agent.spool_read(FOREIGN_BYTES - 500, &mut read, flash).unwrap();
    assert_eq!(read[..], file[file.len() - 500..]);
    let behind = agent.spool_read(FOREIGN_BYTES - 499, &mut read, flash);
    assert_eq!(behind, Err(Refusal::NotStaged));
}

#[test]
fn a_device_that_takes_its_own_image_has_no_spool() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    install(&mut device, &release.package());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let wants = device.wanted().unwrap();
    device.feed_some(&wants, &release.package(), &release.firmware.file);
    (0..50).for_each(|_| device.pass(1));
    let wants = device.wanted().unwrap();
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_read(0, &mut [0; 0], flash), Err(Refusal::NotStaged));
    assert_eq!(agent.spool_verify(flash), Err(Refusal::NotStaged));
    assert!(!agent.spool_is_landing() && !agent.has_bare());
    agent.spool_end();
    assert_eq!(device.wanted(), Some(wants), "ending a spool does not end that");
}

#[test]
fn with_a_slow_pace_a_file_lands_some_ticks_after_its_last_byte() {
    let mut device = TestDevice::new();
    device.agent().set_pace(Pace::Background { ms_between: 2 });
    let file = foreign();
    assert!(!device.agent().spool_is_landing());
    begin(&mut device, &file).unwrap();
    spool(&mut device, &file, 0).unwrap();
    assert!(device.agent().spool_is_landing());
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_verify(flash), Err(Refusal::NotStaged));
    (0..200).for_each(|_| device.pass(1));
    assert!(!device.agent().spool_is_landing());
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_verify(flash), Ok(()));
}

#[test]
fn a_spool_that_has_ended_takes_and_gives_nothing() {
    let (mut device, _) = with_spool();
    device.agent().spool_end();
    assert_eq!(push(&mut device, FOREIGN_BYTES, &[]), Err(Refusal::NotStaged));
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_read(0, &mut [0; 1], flash), Err(Refusal::NotStaged));
}

#[test]
fn all_that_is_pushed_at_once_is_taken_at_once() {
    let (mut device, file) = (TestDevice::new(), foreign());
    begin(&mut device, &file).unwrap();
    assert_eq!(push(&mut device, 0, &file[..1_000]), Ok(1_000));
    assert_eq!(push(&mut device, 1_000, &file[1_000..12_000]), Ok(12_000));
}

#[test]
fn a_push_without_a_transfer_says_whether_all_has_come() {
    let mut device = TestDevice::new();
    let now = device.now;
    let (agent, flash) = device.parts();
    assert_eq!(agent.push_local(now, 0, &[1], flash), Err(Refusal::NotStaged));
    device.stage(1);
    let (now, size_bytes) = (device.now, device.new.size_bytes());
    let (agent, flash) = device.parts();
    assert_eq!(agent.push_local(now, 0, &[1], flash), Ok(size_bytes));
    assert_eq!(agent.spool_push(now, 0, &[1], flash), Err(Refusal::NotStaged));
}

// A lead spools the first artifact before it has told itself to stage.
#[test]
fn a_spool_that_was_just_used_goes_on_in_the_rollout_that_begins() {
    for (waits_ms, goes_on) in [(SPOOL_HOLD_MS - 1, true), (SPOOL_HOLD_MS, false)] {
        let (mut device, file) = (TestDevice::new(), foreign());
        begin(&mut device, &file).unwrap();
        assert_eq!(push(&mut device, 0, &file[..1_000]), Ok(1_000));
        device.pass(waits_ms);
        let release = Release::of(device.new.clone());
        device.order(&ticket(1, 0), &Order::Stage(release.stage()));
        let pushed = push(&mut device, 1_000, &file[1_000..2_000]);
        assert_eq!(pushed.is_ok(), goes_on, "{waits_ms} ms later: {pushed:?}");
    }
}

#[test]
fn the_transfer_of_an_earlier_rollout_ends_though_a_spool_was_used() {
    let mut device = TestDevice::new();
    let one = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(one.stage()));
    let old = device.wanted().unwrap().session;
    let (agent, flash) = device.parts();
    let refused = agent.spool_begin(Sha256([1; 32]), SLOT_BYTES + 1, flash);
    assert!(refused.is_err(), "too large, but used all the same");
    device.order(&ticket(2, 0), &Order::Stage(Release::of(firmware(2)).stage()));
    assert_ne!(device.wanted().unwrap().session, old);
}

fn with_bare(file: &[u8]) -> TestDevice {
    let mut device = TestDevice::new();
    let (agent, flash) = device.parts();
    agent.bare_begin(u32::try_from(file.len()).unwrap(), flash).unwrap();
    assert!(!agent.has_bare(), "not whole yet");
    assert_eq!(agent.bare_end(flash), Err(Refusal::NotStaged));
    spool(&mut device, file, 0).unwrap();
    device
}

#[test]
fn a_bare_image_is_known_once_it_is_whole() {
    let new = firmware(1);
    let mut device = with_bare(&new.file);
    let (agent, flash) = device.parts();
    assert!(agent.has_bare());
    let facts = agent.bare_end(flash).unwrap();
    assert_eq!((facts.image_hash, facts.file_sha256), (new.hash, new.sha256()));
    assert!(agent.has_bare(), "and stays");
    agent.bare_begin(20_000, flash).unwrap();
    assert!(!agent.has_bare(), "another one comes");
}

#[test]
fn a_named_spool_is_no_bare_image() {
    let (mut device, _) = with_spool();
    let (agent, flash) = device.parts();
    assert!(!agent.has_bare());
    assert_eq!(agent.bare_adopt(Sha256([1; 32]), flash), Err(Refusal::NotStaged));
}

#[test]
fn what_is_no_image_is_given_up() {
    let mut device = with_bare(&[0x55; 20_000]);
    let (agent, flash) = device.parts();
    assert!(matches!(agent.bare_end(flash), Err(Refusal::NotAnImage { .. })));
    assert!(!agent.has_bare());
}

#[test]
fn a_bare_image_with_a_name_is_spooled_for_members() {
    let new = firmware(1);
    let mut device = with_bare(&new.file);
    let (agent, flash) = device.parts();
    agent.bare_adopt(new.sha256(), flash).unwrap();
    assert!(!agent.has_bare());
    device.power_cycle();
    assert_eq!(begin(&mut device, &new.file), Ok(new.size_bytes()));
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_verify(flash), Ok(()));
}

#[test]
fn a_bare_image_of_its_own_only_has_to_be_read_back() {
    let new = firmware(1);
    let mut device = with_bare(&new.file);
    let release = Release::of(new.clone());
    install(&mut device, &release.package());
    let (agent, flash) = device.parts();
    agent.bare_adopt(new.sha256(), flash).unwrap();
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    (0..50).for_each(|_| device.pass(1));
    assert_eq!((device.state(), device.refusal()), (MemberState::Staged, None));
}
