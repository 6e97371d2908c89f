//! One bare image, for one role: it moves the group like any release, or nobody.

mod group;

use group::{LEAD, MEMBER, TestGroup, images, spec};
use lockstep_device::UploadError;
use lockstep_device::setup::StagingPace;
use lockstep_proto::manifest::{GENERATION_BYTES, GenerationHash, write_generations};
use lockstep_proto::version::ProtocolRange;
use lockstep_rollout::{Cause, Phase, Verdict};
use lockstep_sim::firmware::{Fault, FirmwareSpec};
use lockstep_sim::world::team_trust;

#[test]
fn a_bare_image_of_the_members_role_moves_the_member_and_the_lead_watches() {
    let mut group = TestGroup::pair();
    let (old_receiver, _) = images("1.0.0");
    let (_, transmitter) = images("1.1.0");

    let image = group.upload_bare(&transmitter).unwrap();
    group.install_bare().unwrap();

    assert_eq!(image.role.as_str(), "transmitter");
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&old_receiver, &transmitter]);
}

/// The device knows the hashes once the image is whole in its slot, before anybody is told of it.
#[test]
fn the_manifest_of_a_bare_image_lists_its_generations_as_a_host_would() {
    let mut group = TestGroup::pair();
    for (role, told) in [("receiver", &[LEAD][..]), ("transmitter", &[LEAD, MEMBER])] {
        // Two whole generations, and a part of one.
        let file = FirmwareSpec { size_bytes: 60_000, ..spec(role, "1.1.0") }.build().unwrap();
        let image = group.upload_bare(&file).unwrap();
        let mut list = String::new();
        let hashes = file.chunks(GENERATION_BYTES as usize).map(GenerationHash::of);
        write_generations(hashes, &mut list).unwrap();
        assert_eq!(image.generations, list);

        group.install_bare().unwrap();
        assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
        let field = format!(r#""generations_sha256": "{list}""#);
        for board in told {
            let flash = &group.boards[*board].flash.bytes;
            let is_stored = flash.windows(field.len()).any(|part| part == field.as_bytes());
            assert!(is_stored, "board {board} has no {field}");
        }
    }
}

#[test]
fn a_bare_image_of_the_leads_own_role_is_staged_where_it_lies() {
    let mut group = TestGroup::pair();
    let (_, old_transmitter) = images("1.0.0");
    let (receiver, _) = images("1.1.0");

    group.upload_bare(&receiver).unwrap();
    group.install_bare().unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &old_transmitter]);
}

#[test]
fn a_bare_image_takes_as_long_as_a_busy_application_grants() {
    let mut group = TestGroup::pair();
    for board in &mut group.boards {
        board.staging_pace = StagingPace::Background { ms_between: 20 };
    }
    let (old_receiver, _) = images("1.0.0");
    let (_, transmitter) = images("1.1.0");

    group.upload_bare(&transmitter).unwrap();
    group.install_bare().unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&old_receiver, &transmitter]);
}

/// The reason why single devices are not flipped alone.
#[test]
fn a_bare_image_that_the_others_would_not_understand_moves_nobody_and_may_be_tried_again() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let mut foreign = spec("transmitter", "2.0.0");
    foreign.descriptor.protocol = ProtocolRange::single(2);

    group.upload_bare(&foreign.build().unwrap()).unwrap();
    group.install_bare().unwrap();
    group.run_ms(5_000);

    let codes: Vec<_> = group.lead().refusals().iter().map(|it| it.fault.code()).collect();
    assert_eq!(codes, ["incompatible"]);
    group.assert_running(&[&old_receiver, &old_transmitter]);
    // It is still there.
    group.install_bare().unwrap();
}

#[test]
fn a_bare_image_that_is_sick_is_taken_back() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let sick = FirmwareSpec { fault: Fault::NeverHealthy, ..spec("transmitter", "1.1.0") };

    group.upload_bare(&sick.build().unwrap()).unwrap();
    group.install_bare().unwrap();

    let member = group.boards[MEMBER].id;
    assert_eq!(group.settle(), Verdict::Revert(Cause::NotHealthy(member)), "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

#[test]
fn a_lead_that_restarts_while_its_member_fetches_a_bare_image_goes_on() {
    let pair = &["receiver", "transmitter"][..];
    let shared = &["receiver", "receiver"];
    for (all, roles, is_own) in
        [(pair, "transmitter", false), (pair, "receiver", true), (shared, "receiver", true)]
    {
        let mut group = TestGroup::of(all);
        group.run_ms(3_000);
        group.boards[MEMBER].staging_pace = StagingPace::Background { ms_between: 20 };
        let image = spec(roles, "1.1.0").build().unwrap();
        group.upload_bare(&image).unwrap();
        group.install_bare().unwrap();
        let staging = |group: &TestGroup| group.phase() == Some(Phase::Staging);
        assert!(group.run_until(10_000, staging), "{}", group.log());
        group.run_ms(20);

        group.cut_power(LEAD, 300);

        assert_eq!(group.settle(), Verdict::Keep, "own: {is_own}\n{}", group.log());
    }
}

#[test]
fn what_is_no_image_for_this_group_is_refused_before_a_sector_is_touched() {
    let lamp = spec("lamp", "1.1.0").build().unwrap();
    let mut other_chip = images("1.1.0").0;
    // ESP32-C6, in the image's header.
    other_chip[12] = 13;
    let text = b"#!/bin/sh\n".repeat(100);
    let cases: [(&[u8], &str); 3] = [
        (&text, "image is refused: "),
        (&lamp, "image is refused: it is for role `lamp`, and no device of this group has that"),
        (&other_chip, "image is refused: it is for chip `ESP32-C6`"),
    ];
    for (image, expected) in cases {
        let mut group = TestGroup::pair();
        let before = group.boards[LEAD].flash.clone();

        let error = group.upload_bare(image).unwrap_err().to_string();

        assert!(error.starts_with(expected), "{error}");
        assert!(before.bytes == group.boards[LEAD].flash.bytes, "`{expected}` wrote");
    }
}

#[test]
fn an_image_that_was_damaged_on_its_way_is_refused_and_there_is_nothing_to_install() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (_, mut transmitter) = images("1.1.0");
    let middle = transmitter.len() / 2;
    transmitter[middle] ^= 1;

    let error = group.upload_bare(&transmitter).unwrap_err();

    assert!(matches!(error, UploadError::BadImage(_)), "{error:?}");
    assert_eq!(group.install_bare(), Err(UploadError::NothingToInstall));
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

#[test]
fn a_group_that_takes_signed_releases_only_takes_no_bare_image() {
    let mut group = TestGroup::pair();
    group.boards.iter_mut().for_each(|board| board.trust = team_trust());
    group.cut_power(LEAD, 100);
    group.run_ms(3_000);

    let error = group.upload_bare(&images("1.1.0").1).unwrap_err();

    assert!(matches!(error, UploadError::Untrusted(_)), "{error:?}");
}

#[test]
fn a_bundle_takes_the_place_of_a_bare_image() {
    let mut group = TestGroup::pair();
    let (receiver, transmitter) = images("1.1.0");
    group.upload_bare(&images("1.2.0").1).unwrap();

    group.upload(&group::pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &transmitter]);
    assert_eq!(group.install_bare(), Err(UploadError::NothingToInstall));
}
