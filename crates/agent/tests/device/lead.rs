//! The lead's own device: uploads instead of blocks, and other roles' artifacts in its other slot.

use lockstep_agent::{PACKAGE_SIZE_BYTES_MAX, Pace};
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::report::{MemberState, Refusal};
use lockstep_proto::id::Sha256;

use crate::fixture::{Release, SLOT_BYTES, Start, TestDevice, descriptor, ticket};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::image::ChipId;
use lockstep_proto::text::Name;
use lockstep_sim::firmware::FirmwareSpec;

/// Uploads `file` in pieces as sockets give them; returns what it ended with.
fn push_local(device: &mut TestDevice, file: &[u8]) -> Result<u32, Refusal> {
    let mut at = 0_usize;
    for _ in 0..10_000 {
        let piece = &file[at..file.len().min(at + 1460)];
        let now = device.now;
        let (agent, flash) = device.parts();
        let accepted = agent.push_local(now, u32::try_from(at).unwrap(), piece, flash)? as usize;
        if accepted == file.len() {
            return Ok(u32::try_from(accepted).unwrap());
        }
        at = accepted;
        device.pass(1);
    }
    panic!("the upload does not end");
}

pub(crate) fn spool(device: &mut TestDevice, file: &[u8], from: u32) -> Result<u32, Refusal> {
    let mut at = from as usize;
    while at < file.len() {
        let piece = &file[at..file.len().min(at + 1000)];
        let now = device.now;
        let (agent, flash) = device.parts();
        at = agent.spool_push(now, u32::try_from(at).unwrap(), piece, flash)? as usize;
        device.pass(1);
    }
    Ok(u32::try_from(at).unwrap())
}

pub(crate) fn install(device: &mut TestDevice, package: &[u8]) {
    let now = device.now;
    let (agent, flash) = device.parts();
    agent.install_package(now, package, flash).unwrap();
}

/// Another role's image, which this device must never run.
pub(crate) fn foreign() -> Vec<u8> {
    let transmitter = Descriptor { role: Name::new("transmitter").unwrap(), ..descriptor() };
    FirmwareSpec { size_bytes: 100_000, ..FirmwareSpec::new(transmitter, ChipId::ESP32_S3) }
        .build()
        .unwrap()
}

pub(crate) fn sha256(file: &[u8]) -> Sha256 {
    lockstep_agent::package::digest(file)
}

#[test]
fn an_upload_is_staged_by_the_same_path_as_blocks() {
    for pace in [Pace::Fast, Pace::Background { ms_between: 1 }] {
        let mut device = TestDevice::new();
        device.agent().set_pace(pace);
        let release = Release::of(device.new.clone());
        install(&mut device, &release.package());
        let report = device.order(&ticket(1, 0), &Order::Stage(release.stage()));
        assert_eq!((report.state, report.refused), (MemberState::Staging, None));
        let file = device.new.file.clone();
        assert_eq!(push_local(&mut device, &file), Ok(device.new.size_bytes()));
        (0..100).for_each(|_| device.pass(1));
        assert_eq!(device.state(), MemberState::Staged, "{pace:?}");
    }
}

#[test]
fn an_upload_is_refused_at_its_head_like_a_transfer() {
    let mut device = TestDevice::new();
    let file = foreign();
    let firmware = crate::fixture::Firmware { hash: device.new.hash, file: file.clone() };
    let release = Release::of(firmware);
    install(&mut device, &release.package());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let erases = device.flash.statistics.erases_total();
    assert_eq!(push_local(&mut device, &file), Err(Refusal::WrongRole));
    assert_eq!(device.refusal(), Some(Refusal::WrongRole));
    assert_eq!(device.flash.statistics.erases_total(), erases);
}

#[test]
fn an_upload_at_a_wrong_offset_is_told_the_right_one() {
    let mut device = TestDevice::new();
    let release = Release::of(device.new.clone());
    install(&mut device, &release.package());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let (now, file) = (device.now, device.new.file.clone());
    let (agent, flash) = device.parts();
    assert_eq!(agent.push_local(now, 0, &file[..1000], flash), Ok(1000));
    assert_eq!(agent.push_local(now, 5000, &file[5000..], flash), Ok(1000));
    assert_eq!(agent.push_local(now, 0, &file[..1000], flash), Ok(1000));
}

#[test]
fn a_package_that_is_not_trusted_is_not_installed() {
    let mut device = TestDevice::new();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let key = pair.pk.to_base64().parse().unwrap();
    let keys = lockstep_proto::manifest::KeySet::new(&[key], 1).unwrap();
    device.trust = lockstep_proto::manifest::Trust::signed_by(keys);
    device.power_cycle();
    let package = Release::of(device.new.clone()).package();
    let now = device.now;
    let (agent, flash) = device.parts();
    let refused = agent.install_package(now, &package, flash);
    assert_eq!(refused, Err(Refusal::Untrusted { good: 0, needed: 1 }));
    assert_eq!(agent.package(flash, &mut [0; 12_288]), None);
}

#[test]
fn an_installed_package_is_read_back_whole_or_not_at_all() {
    let mut device = TestDevice::new();
    let package = Release::of(device.new.clone()).package();
    install(&mut device, &package);
    device.power_cycle();
    let (agent, flash) = device.parts();
    let mut buffer = [0; 12_288];
    assert_eq!(agent.package(flash, &mut buffer), Some(&package[..]));
    assert_eq!(agent.package(flash, &mut buffer[..100]), None);
    let mut part = [0; 100];
    agent.package_part(200, &mut part, flash).unwrap();
    assert_eq!(part[..], package[200..300]);
    let end = u32::try_from(PACKAGE_SIZE_BYTES_MAX).unwrap();
    assert_eq!(agent.package_part(end - 100, &mut part, flash), Some(()));
    assert_eq!(agent.package_part(end - 99, &mut part, flash), None);
    flash.bytes[crate::fixture::STORE as usize + 0x4000 + 100] ^= 1;
    assert_eq!(agent.package(flash, &mut buffer), None);
}

// The lead is the store: it serves others from its other slot, and stages itself over it last.
#[test]
fn a_lead_spools_for_others_and_then_stages_itself_over_it() {
    let mut device = TestDevice::new();
    let (release, file) = (Release::of(device.new.clone()), foreign());
    install(&mut device, &release.package());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let (agent, flash) = device.parts();
    let begun = agent.spool_begin(sha256(&file), u32::try_from(file.len()).unwrap(), flash);
    assert_eq!(begun, Ok(0));
    spool(&mut device, &file, 0).unwrap();
    let (agent, flash) = device.parts();
    agent.spool_verify(flash).unwrap();
    // It is told to stage itself again and again meanwhile: that must not end the spool.
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let mut read = [0; 500];
    let (agent, flash) = device.parts();
    agent.spool_read(99_000, &mut read, flash).unwrap();
    assert_eq!(read[..], file[99_000..99_500]);
    assert_eq!(agent.spool_read(99_900, &mut read, flash), Err(Refusal::NotStaged));
    assert_eq!(agent.wants(), None, "a spool asks nobody for blocks");

    let own = device.new.file.clone();
    assert_eq!(push_local(&mut device, &own), Ok(device.new.size_bytes()));
    assert_eq!(device.state(), MemberState::Staged);
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_read(0, &mut read, flash), Err(Refusal::NotStaged));
}

// Another role's whole image lies in the other slot: it must never be a way back.
#[test]
fn a_spooled_image_is_nothing_to_go_back_to() {
    let mut device = TestDevice::kept(Start::Rollback);
    assert_eq!(device.agent().other(), Some(device.old.hash));
    // Of the same role even, so that only the spool tells.
    let spec = FirmwareSpec::new(descriptor(), ChipId::ESP32_S3);
    let file = FirmwareSpec { size_bytes: 20_000, ..spec }.build().unwrap();
    let (agent, flash) = device.parts();
    agent.spool_begin(sha256(&file), 20_000, flash).unwrap();
    spool(&mut device, &file, 0).unwrap();
    assert_eq!(device.agent().other(), None);
    device.power_cycle();
    assert_eq!((device.agent().other(), device.running()), (None, device.new.hash));
}

// Flashed by hand, or by another tool: the image itself says that it is for somebody else.
#[test]
fn another_roles_image_is_nothing_to_go_back_to() {
    for chip in [ChipId::ESP32_S3, ChipId::ESP32] {
        let mut device = TestDevice::new();
        let role = if chip == ChipId::ESP32 { "receiver" } else { "transmitter" };
        let named = Descriptor { role: Name::new(role).unwrap(), ..descriptor() };
        let spec = FirmwareSpec { size_bytes: 20_000, ..FirmwareSpec::new(named, chip) };
        device.put(crate::fixture::SLOTS[1], &spec.build().unwrap());
        device.power_cycle();
        assert_eq!(device.agent().other(), None, "{chip}");
    }
}

#[test]
fn a_spool_goes_on_after_a_reboot() {
    let mut device = TestDevice::new();
    let file = foreign();
    let size_bytes = u32::try_from(file.len()).unwrap();
    let (agent, flash) = device.parts();
    agent.spool_begin(sha256(&file), size_bytes, flash).unwrap();
    spool(&mut device, &file[..70_000], 0).unwrap();
    device.power_cycle();
    let (agent, flash) = device.parts();
    let resumed = agent.spool_begin(sha256(&file), size_bytes, flash).unwrap();
    assert_eq!(resumed, 57_344);
    spool(&mut device, &file, resumed).unwrap();
    let (agent, flash) = device.parts();
    agent.spool_verify(flash).unwrap();
    device.power_cycle();
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_begin(sha256(&file), size_bytes, flash), Ok(size_bytes));
    agent.spool_verify(flash).unwrap();
    // Another file begins at its start.
    assert_eq!(agent.spool_begin(Sha256([1; 32]), size_bytes, flash), Ok(0));
}

#[test]
fn a_spool_that_reads_back_differently_has_to_come_again() {
    let mut device = TestDevice::new();
    let file = foreign();
    let size_bytes = u32::try_from(file.len()).unwrap();
    let (agent, flash) = device.parts();
    agent.spool_begin(Sha256([1; 32]), size_bytes, flash).unwrap();
    spool(&mut device, &file, 0).unwrap();
    let (agent, flash) = device.parts();
    assert!(matches!(agent.spool_verify(flash), Err(Refusal::SlotDiffers { .. })));
    assert_eq!(agent.spool_begin(Sha256([1; 32]), size_bytes, flash), Ok(0));
}

#[test]
fn nothing_is_spooled_over_the_way_back_of_a_trial() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    let (agent, flash) = device.parts();
    assert_eq!(agent.spool_begin(Sha256([1; 32]), 5_000, flash), Err(Refusal::OnTrial));
    let mut device = TestDevice::new();
    let (agent, flash) = device.parts();
    let refused = Refusal::TooLarge { size_bytes: SLOT_BYTES + 1, slot_bytes: SLOT_BYTES };
    assert_eq!(agent.spool_begin(Sha256([1; 32]), SLOT_BYTES + 1, flash), Err(refused));
}

// The record must not claim what was overwritten.
#[test]
fn spooling_over_a_staged_image_takes_back_that_it_is_staged() {
    let mut device = TestDevice::ready(Start::Rollback);
    let file = foreign();
    let (agent, flash) = device.parts();
    agent.spool_begin(sha256(&file), u32::try_from(file.len()).unwrap(), flash).unwrap();
    assert_eq!(device.state(), MemberState::Staging);
    spool(&mut device, &file, 0).unwrap();
    let order = device.activation();
    device.assert_refused(&ticket(1, 1), &order, Refusal::NotStaged);
}
