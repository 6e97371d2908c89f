//! Orders once more: what they write into the record, field by field, and what they leave alone
//! when they come again.

use lockstep_agent::package::PACKAGE_SIZE_BYTES_MAX;
use lockstep_agent::{CONFIG_BYTES_MAX, Effect, Kind, RebootReason, Trace};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::order::{Order, Source, Stage, Ticket};
use lockstep_proto::frame::report::{MemberState, Readiness, Refusal};
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::image::ChipId;
use lockstep_sim::firmware::FirmwareSpec;

use crate::fixture::{
    Release, SLOT_BYTES, SLOTS, Start, TERMS, TestDevice, build, descriptor, firmware, ticket,
};

const OPEN: Readiness = Readiness::Open;

/// Back to the image that the other slot still holds.
fn back_to(image: ImageHash, release: &Release) -> Stage {
    Stage {
        image,
        size_bytes: 0,
        package_size_bytes: 0,
        source: Source::OtherSlot,
        ..release.stage()
    }
}

/// Takes the order, and its flash is as before.
#[track_caller]
fn assert_changes_nothing(device: &mut TestDevice, ticket: &Ticket, order: &Order) {
    let (flash, record) = (device.flash.bytes.clone(), device.agent().member().clone());
    assert_eq!(device.order(ticket, order).refused, None);
    assert_eq!(*device.agent().member(), record);
    assert!(device.flash.bytes == flash, "an order that is repeated changes nothing");
}

#[test]
fn stage_again_must_say_the_same() {
    let mut device = TestDevice::new();
    device.stage(1);
    let stage = Release::of(device.new.clone()).stage();
    let other_image = Stage { image: ImageHash([9; 32]), ..stage };
    let other_package = Stage { package: Sha256([9; 32]), ..stage };
    let other_source = Stage { source: Source::OtherSlot, ..stage };
    for stage in [other_image, other_package, other_source] {
        device.assert_refused(&ticket(1, 0), &Order::Stage(stage), Refusal::BadManifest);
    }
}

#[test]
fn stage_again_changes_nothing_wherever_the_rollout_stands() {
    let mut staged = TestDevice::new();
    staged.stage(1);
    let mut activated = TestDevice::ready(Start::Rollback);
    let order = activated.activation();
    activated.order(&ticket(1, 1), &order);
    let on_trial = TestDevice::in_trial(Start::Rollback);
    let kept = TestDevice::kept(Start::Rollback);
    for mut device in [staged, activated, on_trial, kept] {
        let stage = Order::Stage(Release::of(device.new.clone()).stage());
        assert_changes_nothing(&mut device, &ticket(1, 0), &stage);
    }
}

#[test]
fn who_leaves_does_not_stage_again_what_it_leaves() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.pass(10_000);
    let stage = Order::Stage(Release::of(device.new.clone()).stage());
    assert_changes_nothing(&mut device, &ticket(1, 0), &stage);
}

#[test]
fn a_new_rollout_begins_with_nothing_of_the_one_before() {
    let mut device = TestDevice::started_as(Start::NoRollback);
    let newer = Descriptor { epoch: 3, ..descriptor() };
    let spec = FirmwareSpec::new(newer, ChipId::ESP32_S3);
    device.new = build(&FirmwareSpec { size_bytes: 10_000, ..spec });
    let release = Release { epoch: 3, ..Release::of(device.new.clone()) };
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let (package, file) = (release.package(), device.new.file.clone());
    device.feed(&package, &file);
    device.rest(1);
    let activation = device.activation();
    device.order(&ticket(1, 1), &activation);
    device.power_cycle();
    device.get_healthy();
    let confirmation = device.confirmation();
    device.order(&ticket(1, 1), &confirmation);
    let kept = device.agent().member().clone();
    assert_eq!((kept.state, kept.epoch, kept.trial_boots), (MemberState::Kept, 3, 1));
    assert_eq!((kept.previous, kept.file_sha256), (device.old.hash, release.sha256));

    let back = back_to(device.old.hash, &Release::of(device.old.clone()));
    device.order(&ticket(2, 7), &Order::Stage(back));
    let mut expected = kept;
    expected.ticket = ticket(2, 0);
    expected.state = MemberState::Staged;
    expected.target = device.old.hash;
    expected.previous = device.new.hash;
    expected.size_bytes = 0;
    expected.package = back.package;
    expected.package_size_bytes = 0;
    expected.file_sha256 = Sha256([0; 32]);
    expected.epoch = 0;
    expected.source = Source::OtherSlot;
    expected.terms = TERMS;
    expected.trial_boots = 0;
    expected.leaves_target = false;
    assert_eq!(*device.agent().member(), expected);
    device.order(&ticket(3, 0), &Order::Stage(Release::of(firmware(2)).stage()));
    assert_eq!(device.agent().member().source, Source::Blocks);
}

#[test]
fn what_was_to_be_left_in_one_rollout_may_stay_in_the_next() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.order(&ticket(1, 1), &Order::Revert);
    device.power_cycle();
    assert!(device.agent().member().leaves_target);
    device.stage(2);
    assert!(!device.agent().member().leaves_target);
}

#[test]
fn an_image_as_long_as_the_slot_is_staged_and_one_byte_more_is_not() {
    let mut device = TestDevice::new();
    let fits = Stage { size_bytes: SLOT_BYTES, ..Release::of(device.new.clone()).stage() };
    let too_large = Stage { size_bytes: SLOT_BYTES + 1, ..fits };
    let refused = Refusal::TooLarge { size_bytes: SLOT_BYTES + 1, slot_bytes: SLOT_BYTES };
    device.assert_refused(&ticket(1, 0), &Order::Stage(too_large), refused);
    assert_eq!(device.order(&ticket(1, 0), &Order::Stage(fits)).refused, None);
}

#[test]
fn a_package_as_long_as_its_store_is_fetched_and_an_empty_or_longer_one_is_not() {
    let mut device = TestDevice::new();
    let longest = u16::try_from(PACKAGE_SIZE_BYTES_MAX).unwrap();
    let stage = Release::of(device.new.clone()).stage();
    for (size_bytes, package_size_bytes) in [(0, 500), (10_000, 0), (10_000, longest + 1)] {
        let bad = Stage { size_bytes, package_size_bytes, ..stage };
        device.assert_refused(&ticket(1, 0), &Order::Stage(bad), Refusal::BadManifest);
    }
    let good = Stage { package_size_bytes: longest, ..stage };
    assert_eq!(device.order(&ticket(1, 0), &Order::Stage(good)).refused, None);
}

#[test]
fn who_has_kept_is_not_brought_to_rest() {
    let mut device = TestDevice::kept(Start::Rollback);
    device.assert_refused(&ticket(1, 1), &Order::Rest, Refusal::NotStaged);
}

#[test]
fn an_application_at_rest_is_not_asked_again() {
    let mut device = TestDevice::ready(Start::Rollback);
    device.order(&ticket(1, 0), &Order::Rest);
    assert_eq!(device.take_effects(), []);
    let order = device.activation();
    device.order(&ticket(1, 1), &order);
    assert_eq!(device.take_effects(), [Effect::Reboot(RebootReason::Activate)]);
    device.order(&ticket(1, 1), &Order::Rest);
    assert_eq!(device.take_effects(), []);
}

#[test]
fn that_an_application_cannot_rest_now_is_said_until_it_can() {
    let mut device = TestDevice::new();
    device.stage(1);
    assert!(!device.order(&ticket(1, 0), &Order::Rest).observed.not_now);
    let now = device.now;
    device.agent().application_not_now(now);
    assert!(device.order(&ticket(1, 0), &Order::Rest).observed.not_now);
    assert_eq!(device.take_effects(), [Effect::AskRest, Effect::AskRest], "asked by each order");
    device.agent().application_at_rest(now);
    assert!(!device.report().observed.not_now);
}

#[test]
fn an_arming_that_is_repeated_leaves_the_countdown_running() {
    let mut device = TestDevice::ready(Start::Rollback);
    let arming = device.arming();
    device.order(&ticket(1, 1), &arming);
    device.order(&ticket(1, 1), &Order::Fire { in_ms: 500 });
    device.order(&ticket(1, 1), &arming);
    device.pass(500);
    assert_eq!(device.take_effects(), [Effect::Reboot(RebootReason::Activate)]);
}

#[test]
fn an_arming_for_the_next_attempt_replaces_the_one_before() {
    let mut device = TestDevice::ready(Start::Rollback);
    let arming = device.arming();
    device.order(&ticket(1, 1), &arming);
    device.order(&ticket(1, 2), &arming);
    assert_eq!(device.order(&ticket(1, 2), &Order::Fire { in_ms: 0 }).refused, None);
    device.tick();
    assert_eq!(device.report().ticket.attempt, 2);
}

#[test]
fn a_countdown_for_an_attempt_that_was_made_says_which_was_the_last() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.power_cycle();
    device.rest(1);
    let spent = Refusal::AttemptSpent { offered: 1, spent: 1 };
    device.assert_refused(&ticket(1, 1), &Order::Fire { in_ms: 0 }, spent);
    device.assert_refused(&ticket(1, 2), &Order::Fire { in_ms: 0 }, Refusal::NotStaged);
}

#[test]
fn a_revert_is_told_once_for_each_rollout() {
    let mut device = TestDevice::new();
    device.stage(1);
    let told = |device: &TestDevice| {
        device.traces.iter().filter(|&&trace| trace == Trace::Reverted).count()
    };
    device.order(&ticket(1, 0), &Order::Revert);
    assert_eq!(told(&device), 1);
    device.order(&ticket(1, 0), &Order::Revert);
    assert_eq!(told(&device), 1);
    device.order(&ticket(2, 0), &Order::Revert);
    assert_eq!(told(&device), 2);
}

#[test]
fn a_revert_does_not_change_which_attempt_was_the_last() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    assert_eq!(device.order(&ticket(1, 5), &Order::Revert).ticket.attempt, 1);
    device.power_cycle();
    assert_eq!(device.order(&ticket(2, 5), &Order::Revert).ticket.attempt, 0);
}

// The framework has confirmed it: nobody but the record remembers that it must not stay.
#[test]
fn what_was_reverted_on_trial_does_not_stay_though_the_power_goes_at_once() {
    let mut device = TestDevice::in_trial(Start::ConfirmsEarly);
    device.order(&ticket(1, 1), &Order::Revert);
    device.power_cycle();
    assert_eq!(device.running(), device.old.hash);
}

#[test]
fn a_revert_leaves_the_target_only_if_it_ran_or_was_about_to() {
    let leaves = |device: &mut TestDevice| device.agent().member().leaves_target;
    let mut staged = TestDevice::ready(Start::Rollback);
    staged.order(&ticket(1, 0), &Order::Revert);
    assert!(!leaves(&mut staged));

    let mut activated = TestDevice::ready(Start::Rollback);
    let order = activated.activation();
    activated.order(&ticket(1, 1), &order);
    activated.order(&ticket(1, 1), &Order::Revert);
    assert!(leaves(&mut activated));

    let mut tried = TestDevice::in_trial(Start::Rollback);
    tried.order(&ticket(1, 1), &Order::Revert);
    assert!(leaves(&mut tried));
    tried.power_cycle();
    tried.order(&ticket(1, 1), &Order::Revert);
    assert!(leaves(&mut tried), "said again after it fell back");
    tried.order(&ticket(2, 0), &Order::Revert);
    assert!(!leaves(&mut tried), "that was another rollout");
}

#[test]
fn a_slot_that_is_spoilt_after_staging_is_staged_once_more_by_stage() {
    let mut device = TestDevice::ready(Start::Rollback);
    device.flash.bytes[SLOTS[1] as usize + 5000] ^= 4;
    device.power_cycle();
    assert!(!device.report().observed.staged);
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    assert_eq!(device.state(), MemberState::Staging);
    device.feed(&release.package(), &release.firmware.file);
    assert_eq!(device.state(), MemberState::Staged);
}

#[test]
fn what_is_stored_beside_the_agents_record_is_there_after_a_reboot() {
    let mut device = TestDevice::new();
    let (agent, flash) = device.parts();
    assert_eq!(agent.read_record(flash, Kind::GROUP, &mut [0; 8]), Ok(None));
    agent.write_record(flash, Kind::GROUP, 3, b"group").unwrap();
    device.power_cycle();
    let (agent, flash) = device.parts();
    let mut found = [0; 8];
    assert_eq!(agent.read_record(flash, Kind::GROUP, &mut found), Ok(Some((3, 5))));
    assert_eq!(&found[..5], b"group");
}

#[test]
fn a_configuration_is_there_for_the_image_that_it_was_stored_for() {
    let mut device = TestDevice::new();
    let mut found = [0; CONFIG_BYTES_MAX];
    let (agent, flash) = device.parts();
    assert_eq!(agent.load_config(flash, &mut found), Ok(None));
    agent.store_config(b"limits", flash).unwrap();
    device.power_cycle();
    let (agent, flash) = device.parts();
    assert_eq!(agent.load_config(flash, &mut found), Ok(Some(6)));
    assert_eq!(&found[..6], b"limits");
}

#[test]
fn a_change_that_the_lead_waits_for_is_said_once() {
    let mut device = TestDevice::new();
    device.agent().take_report_due();
    assert!(!device.agent().take_report_due());
    device.stage(1);
    assert!(device.agent().take_report_due(), "it has staged");
    assert!(!device.agent().take_report_due());
}

#[test]
fn a_flash_that_fails_is_told() {
    let mut device = TestDevice::in_trial(Start::Rollback);
    device.flash.power_budget_bytes = Some(0);
    device.pass(10_000);
    assert!(device.traces.iter().any(|trace| matches!(trace, Trace::FlashFailed(_))));
}

#[test]
fn a_device_that_has_staged_nothing_wants_nothing_and_reports_no_bytes() {
    let mut device = TestDevice::new();
    assert_eq!(device.agent().wants(), None);
    device.stage(1);
    device.order(&ticket(1, 0), &Order::Revert);
    assert_eq!(device.agent().wants(), None);
    assert_eq!((device.agent().member().size_bytes, device.report().staged_bytes), (10_000, 0));
}

#[test]
fn blocks_are_missed_when_the_silence_is_longer_than_the_devices_own_wait_on_top() {
    let mut device = TestDevice::new();
    device.agent().set_unasked_wait(50);
    let release = Release::of(device.new.clone());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let (package, file) = (release.package(), &release.firmware.file);
    let artifact = Session::of(&release.sha256.0);
    while device.wanted().is_none_or(|it| (it.session, it.readiness) != (artifact, OPEN)) {
        let wants = device.wanted().unwrap();
        device.feed_some(&wants, &package, file);
    }
    device.feed_block(artifact, 5, file).unwrap();
    device.now = device.now + 349;
    assert!(!device.misses_blocks());
    device.now = device.now + 1;
    assert!(device.misses_blocks());
}
