//! Groups beyond the plain pair: several devices of one role, an order, one role only, strangers.

mod group;

use group::{INSTRUCTIONS, LEAD, MEMBER, TestGroup, bundle, images, pair_bundle, spec};
use lockstep_device::UploadError;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::version::ProtocolRange;
use lockstep_rollout::{Cause, Fault as PreflightFault, Phase, Verdict};
use lockstep_sim::firmware::{Fault, FirmwareSpec};

const IN_ORDER: &str = r#","update_instructions":{"order":["transmitter","receiver"],"reboot_delay_seconds":1,"health_check_timeout_seconds":5}"#;
const SLOWLY: &str = r#","update_instructions":{"order":["transmitter","receiver"],"reboot_delay_seconds":6,"health_check_timeout_seconds":5}"#;
const LEAD_FIRST: &str = r#","update_instructions":{"order":["receiver","transmitter"],"reboot_delay_seconds":1,"health_check_timeout_seconds":5}"#;

fn refusals(error: &UploadError) -> Vec<&'static str> {
    match error {
        UploadError::Refused(faults) => faults.iter().map(|it| it.fault.code()).collect(),
        other => panic!("not refused by preflight: {other:?}"),
    }
}

#[test]
fn two_transmitters_and_their_lead_move_together() {
    let mut group = TestGroup::of(&["receiver", "transmitter", "transmitter"]);
    group.run_ms(3_000);
    let (receiver, transmitter) = images("1.1.0");

    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &transmitter, &transmitter]);
}

/// L22: whoever is missing is missed before anybody is touched.
#[test]
fn a_member_that_is_switched_off_is_missed_by_preflight() {
    let mut group = TestGroup::of(&["receiver", "transmitter", "transmitter"]);
    group.run_ms(3_000);
    let (receiver, transmitter) = images("1.1.0");
    group.cut_power(2, 1_000_000);
    group.run_ms(100);

    let error = group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap_err();

    assert_eq!(refusals(&error), ["unreachable"]);
    assert_eq!(group.boards[MEMBER].boots, 1);
}

#[test]
fn with_an_order_one_role_after_the_other_reboots() {
    for (instructions, first) in [(IN_ORDER, "transmitter"), (LEAD_FIRST, "receiver")] {
        let mut group = TestGroup::pair();
        let (receiver, transmitter) = images("1.1.0");
        let bundle = bundle(
            "1.1.0",
            &[("transmitter", &transmitter), ("receiver", &receiver)],
            instructions,
        );
        group.upload(&bundle).unwrap();

        assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
        group.assert_running(&[&receiver, &transmitter]);
        let reboot = group.lines.iter().find(|line| line.contains("reboots")).unwrap();
        assert!(reboot.contains(first), "{}", group.log());
    }
}

/// Nobody has a clock, and in an order the lead reboots between the others.
#[test]
fn the_history_has_how_long_members_ran_different_releases() {
    for (instructions, expected_s) in [(INSTRUCTIONS, 0..=1), (SLOWLY, 5..=8)] {
        let mut group = TestGroup::pair();
        let (receiver, transmitter) = images("1.1.0");
        let images = [("transmitter", transmitter.as_slice()), ("receiver", receiver.as_slice())];
        group.upload(&bundle("1.1.0", &images, instructions)).unwrap();

        assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
        // What was announced while the lead was booting, too, it hears the next time.
        group.run_ms(11_000);
        let outcome = group.lead().history().outcomes().next().unwrap().clone();
        let found_s = outcome.disagreed_s.expect("both have announced themselves");
        assert!(expected_s.contains(&found_s), "{found_s} s, expected {expected_s:?}");
        // The lead of the next boot reads it back.
        group.cut_power(LEAD, 200);
        group.run_ms(2_000);
        assert_eq!(group.lead().history().outcomes().next(), Some(&outcome));
    }
}

/// In an order, the first member has nobody to talk to on the new release; its health proves
/// nothing about the link, and a sick second one still takes it back.
#[test]
fn with_an_order_a_sick_second_takes_the_healthy_first_back() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (_, transmitter) = images("1.1.0");
    let sick = FirmwareSpec { fault: Fault::NeverHealthy, ..spec("receiver", "1.1.0") };
    let sick = sick.build().unwrap();
    let bundle = bundle("1.1.0", &[("transmitter", &transmitter), ("receiver", &sick)], IN_ORDER);

    group.upload(&bundle).unwrap();

    assert!(matches!(group.settle(), Verdict::Revert(_)), "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

#[test]
fn one_role_alone_is_updated_when_the_result_is_compatible() {
    let mut group = TestGroup::pair();
    let (old_receiver, _) = images("1.0.0");
    let (_, transmitter) = images("1.1.0");

    group.upload(&bundle("1.1.0", &[("transmitter", &transmitter)], INSTRUCTIONS)).unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&old_receiver, &transmitter]);
    assert_eq!(group.boards[LEAD].boots, 1, "the receiver was not to be rebooted");
}

#[test]
fn the_lead_alone_is_updated_and_its_member_keeps_running() {
    let mut group = TestGroup::pair();
    let (_, old_transmitter) = images("1.0.0");
    let (receiver, _) = images("1.1.0");

    group.upload(&bundle("1.1.0", &[("receiver", &receiver)], INSTRUCTIONS)).unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &old_transmitter]);
    assert_eq!(group.boards[MEMBER].boots, 1, "the transmitter was not to be rebooted");
}

/// L1: the update of one role that would leave the pair deaf to each other is not begun.
#[test]
fn one_role_alone_is_refused_when_the_result_is_incompatible() {
    let mut group = TestGroup::pair();
    let mut newer = spec("transmitter", "2.0.0");
    newer.descriptor.protocol = ProtocolRange::single(2);
    let image = newer.build().unwrap();

    let error =
        group.upload(&bundle("2.0.0", &[("transmitter", &image)], INSTRUCTIONS)).unwrap_err();

    assert_eq!(refusals(&error), ["incompatible"]);
    assert_eq!((group.boards[LEAD].boots, group.boards[MEMBER].boots), (1, 1));
}

/// L25: the same label on another image is a mistake, not an update.
#[test]
fn the_same_version_with_another_image_is_refused() {
    let mut group = TestGroup::pair();
    let rebuilt = |role| FirmwareSpec { build: 7, ..spec(role, "1.0.0") }.build().unwrap();
    let (receiver, transmitter) = (rebuilt("receiver"), rebuilt("transmitter"));

    let error = group.upload(&pair_bundle("1.0.0", &receiver, &transmitter)).unwrap_err();

    let expected = ["same-version-other-image", "same-version-other-image"];
    assert_eq!(refusals(&error), expected);
}

/// L5: no way back, no guarantee, no rollout.
#[test]
fn a_member_without_any_rollback_is_refused() {
    let mut group = TestGroup::pair();
    group.boards[MEMBER].rollback = Rollback::None;
    group.cut_power(MEMBER, 100);
    group.run_ms(3_000);
    let (receiver, transmitter) = images("1.1.0");

    let error = group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap_err();

    assert_eq!(refusals(&error), ["no-rollback"]);
}

/// L4, L5: the bootloader knows no rollback; our own counter of trial boots goes back.
#[test]
fn without_a_bootloader_that_rolls_back_the_agent_does() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    group.boards[MEMBER].rollback = Rollback::Agent;
    group.cut_power(MEMBER, 100);
    group.run_ms(3_000);
    let (receiver, _) = images("1.1.0");
    let sick = FirmwareSpec { fault: Fault::CrashAfterMs(100), ..spec("transmitter", "1.1.0") };

    group.upload(&pair_bundle("1.1.0", &receiver, &sick.build().unwrap())).unwrap();

    let verdict = group.settle();
    assert!(matches!(verdict, Verdict::Revert(_)), "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

/// An application that cannot stop what a reboot would hurt is not rebooted, and neither is its
/// peer.
#[test]
fn an_application_that_never_rests_ends_the_rollout_before_anybody_reboots() {
    let mut group = TestGroup::pair();
    group.boards[MEMBER].never_rests = true;
    group.cut_power(MEMBER, 100);
    group.run_ms(3_000);
    let boots = (group.boards[LEAD].boots, group.boards[MEMBER].boots);
    let (receiver, transmitter) = images("1.1.0");

    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();

    let member = group.boards[MEMBER].id;
    assert_eq!(group.settle(), Verdict::Revert(Cause::NotNow(member)), "{}", group.log());
    assert_eq!((group.boards[LEAD].boots, group.boards[MEMBER].boots), boots);
}

/// L35: the link is gone for good in the middle of the trial. Each half goes back on its own.
#[test]
fn without_a_link_both_halves_of_a_trial_go_back_by_themselves() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    let fired =
        group.run_until(10_000, |group| group.lines.iter().any(|line| line.contains("reboots")));
    assert!(fired, "{}", group.log());
    group.air = Box::new(|_, _, _| false);

    group.run_ms(60_000);

    group.assert_running(&[&old_receiver, &old_transmitter]);
}

/// A second release while one is on its way is refused, and the first goes on.
#[test]
fn a_second_release_is_refused_while_one_is_on_its_way() {
    let mut group = TestGroup::pair();
    let (receiver, transmitter) = images("1.1.0");
    group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    group.run_ms(150);

    let second = group.lead().upload_begin(1_000);

    assert!(matches!(second, Err(UploadError::Busy(_))), "{second:?}");
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
}

/// L8, L9: chip and role are judged before anybody is touched.
#[test]
fn an_image_for_another_chip_is_refused_by_preflight() {
    let mut group = TestGroup::pair();
    let wrong = FirmwareSpec {
        chip: lockstep_proto::image::ChipId::ESP32_C3,
        ..spec("transmitter", "1.1.0")
    };
    let image = wrong.build().unwrap();

    let error =
        group.upload(&bundle("1.1.0", &[("transmitter", &image)], INSTRUCTIONS)).unwrap_err();

    let UploadError::Refused(faults) = &error else { panic!("{error:?}") };
    assert!(matches!(faults[0].fault, PreflightFault::WrongChip { .. }), "{faults:?}");
}

/// L8, L9, L30: the manifest lies about an artifact of another role. The lead sees it in the first
/// bytes, before it gives up its own other slot for them.
#[test]
fn an_artifact_that_is_not_what_the_manifest_says_costs_the_lead_nothing() {
    let honest = spec("transmitter", "1.1.0").build().unwrap();
    let other_chip = FirmwareSpec {
        chip: lockstep_proto::image::ChipId::ESP32_C3,
        ..spec("transmitter", "1.1.0")
    };
    let other_role = spec("receiver", "1.1.0");
    let mut page = honest.clone();
    page[..15].copy_from_slice(b"<!DOCTYPE html>");
    for lie in [other_chip.build().unwrap(), other_role.build().unwrap(), page] {
        let mut group = TestGroup::pair();
        let slot = group.boards[LEAD].flash.bytes[0x1F_0000..0x1F_1000].to_vec();
        let true_bundle = bundle("1.1.0", &[("transmitter", &honest)], INSTRUCTIONS);
        // The manifest is about the honest image; the bytes behind it are not.
        let at = true_bundle.windows(64).position(|bytes| bytes == &honest[..64]).unwrap();
        let mut lying = true_bundle[..at].to_vec();
        lying.extend(&lie);
        lying.extend(&true_bundle[at + honest.len()..]);

        let error = group.upload(&lying).unwrap_err();

        assert!(matches!(error, UploadError::BadArtifact(..)), "{error:?}");
        assert_eq!(group.settle(), Verdict::Revert(Cause::BadUpload), "{}", group.log());
        assert_eq!(group.boards[LEAD].flash.bytes[0x1F_0000..0x1F_1000], slot, "untouched");
        assert_eq!((group.boards[LEAD].boots, group.boards[MEMBER].boots), (1, 1));
    }
}

/// An abort before anybody was touched leaves everything as it was: the rollout before is the last
/// one again, with what it still owes, and it can be gone back from.
#[test]
fn an_abort_in_preflight_gives_the_place_back_to_the_rollout_before() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    // Nobody answers, so that preflight lasts.
    group.air = Box::new(|_, _, _| false);
    let (newer_receiver, newer_transmitter) = images("1.2.0");
    group.begin_upload(&pair_bundle("1.2.0", &newer_receiver, &newer_transmitter)).unwrap();
    assert!(group.run_until(1_000, |group| group.phase() == Some(Phase::Preflight)));

    let now = group.boards[LEAD].uptime(group.now);
    let board = &mut group.boards[LEAD];
    board.node.as_mut().unwrap().abort(now, &mut board.flash).unwrap();

    assert_eq!(group.phase(), Some(Phase::Settled(Verdict::Keep)), "{}", group.log());
    group.run_ms(100);
    assert_eq!(group.uploaded, Some(Err(UploadError::Refused(Vec::new()))), "{}", group.log());
    group.air = Box::new(|_, _, _| true);
    group.run_ms(3_000);
    let now = group.boards[LEAD].uptime(group.now);
    let board = &mut group.boards[LEAD];
    board.node.as_mut().unwrap().revert(now, &mut board.flash).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

/// The lead's own image is served like any other before the lead takes it for itself.
#[test]
fn devices_of_the_leads_own_role_fetch_its_image_from_it() {
    for roles in [&["receiver", "receiver", "transmitter"][..], &["receiver", "receiver"]] {
        let mut group = TestGroup::of(roles);
        group.run_ms(3_000);
        let (receiver, transmitter) = images("1.1.0");
        let both = [("transmitter", transmitter.as_slice()), ("receiver", receiver.as_slice())];
        let artifacts = if roles.contains(&"transmitter") { &both[..] } else { &both[1..] };

        group.upload(&bundle("1.1.0", artifacts, INSTRUCTIONS)).unwrap();

        assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
        // The list is in the order of the boards, and ends where they do.
        group.assert_running(&[&receiver, &receiver, &transmitter]);
    }
}

#[test]
fn a_bare_image_of_the_leads_role_reaches_the_others_of_it() {
    let mut group = TestGroup::of(&["receiver", "receiver", "transmitter"]);
    group.run_ms(3_000);
    let (receiver, _) = images("1.1.0");
    let (_, old_transmitter) = images("1.0.0");

    group.upload_bare(&receiver).unwrap();
    group.install_bare().unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &receiver, &old_transmitter]);
}

/// What the lead has spooled is another's until all others have it, over a restart, too: were it
/// taken for the lead's own at once, the others would wait for ever.
#[test]
fn a_lead_that_restarts_while_its_own_role_fetches_goes_on_serving() {
    let (mut kept, mut restarts_while_served) = (0, 0);
    for cut_ms in (0..3_000).step_by(60) {
        let mut group = TestGroup::of(&["receiver", "receiver", "transmitter"]);
        group.run_ms(3_000);
        let (receiver, transmitter) = images("1.1.0");
        group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
        group.run_ms(cut_ms);
        let staging = group.phase() == Some(Phase::Staging);
        group.cut_power(LEAD, 300);
        group.run_ms(500);
        let over = group.run_until(200_000, |group| {
            let settled = matches!(group.phase(), Some(Phase::Settled(_)) | None);
            group.uploaded.is_some() && group.is_on(LEAD) && settled
        });
        assert!(over, "cut at {cut_ms}: no end, {:?}\n{}", group.phase(), group.log());
        group.run_ms(2_000);
        let is_kept = group.settled() == Some(Verdict::Keep);
        assert!(is_kept || !staging, "cut at {cut_ms} while staging: {}", group.log());
        if is_kept {
            group.assert_running(&[&receiver, &receiver, &transmitter]);
        }
        kept += u32::from(is_kept);
        restarts_while_served += u32::from(is_kept && staging);
    }
    assert!(kept > 5 && restarts_while_served > 3, "{kept}, {restarts_while_served}");
}
