//! Preflight: each fault is found before anybody is touched, and says what to do about it. The
//! texts are in a golden file; after a change run
//! `UPDATE_GOLDEN=1 cargo test -p lockstep-rollout --test preflight` and review the diff.

mod group;

use std::fmt::Write;

use group::{LEAD, NO_IMAGE, TestGroup, device, image, release, role};
use lockstep_proto::compat::{Announced, Incompatible, Rule};
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::{DeviceId, Generation};
use lockstep_proto::image::ChipId;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::Board;
use lockstep_rollout::{Fault, MEMBERS_MAX, Phase, Release, RolloutRecord, Verdict};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/preflight-faults.txt");

type Faults = Vec<(Option<DeviceId>, Fault)>;

/// The faults of a rollout to release 2 of a receiver and a transmitter, with one thing changed.
fn faults(change: impl Fn(&mut TestGroup, &mut Release)) -> Faults {
    let mut group = TestGroup::new(2);
    let mut release = release(2, &[0, 1]);
    change(&mut group, &mut release);
    group.forward(release);
    refused(&mut group)
}

/// Lets preflight run; whoever is refused there was not touched.
fn refused(group: &mut TestGroup) -> Faults {
    group.events.clear();
    let (stored, sent) = (group.stored.clone(), group.sent.len());
    group.run_ms(6_000);
    let faults = group.faults();
    let is_refused = group.rollout.as_ref().is_some_and(lockstep_rollout::Rollout::is_refused);
    assert_eq!(is_refused, !faults.is_empty());
    if is_refused {
        assert_eq!(group.stored, stored, "nothing is durable");
        assert!(group.sent[sent..].iter().all(|(_, out)| out.order.kind() == 0x10));
    }
    faults
}

fn of(member: usize, fault: Fault) -> Faults {
    vec![(Some(device(member)), fault)]
}

#[test]
fn a_group_that_fits_is_not_refused() {
    assert_eq!(faults(|_, _| ()), []);
}

// L22: before one is touched, all are asked.
#[test]
fn l22_a_member_that_does_not_answer_is_named() {
    let found = faults(|group, _| group.members[1].cut_off = true);
    assert_eq!(found, of(1, Fault::Unreachable { role: role(1), waited_ms: 3_000 }));
}

#[test]
fn a_role_that_the_group_lacks_is_named() {
    let found = faults(|_, release| *release = group::release(2, &[0, 1, 2]));
    assert_eq!(found, [(None, Fault::NoDeviceForRole { role: role(2) })]);
}

#[test]
fn l8_an_image_for_another_chip_or_board_is_refused() {
    let (chip, board) = (ChipId(9), Board::new("t-display-s3").unwrap());
    let found = faults(|_, release| release.artifacts[1].chip = chip);
    assert_eq!(found, of(1, Fault::WrongChip { role: role(1), image: chip, device: ChipId(0) }));
    let found = faults(|_, release| release.artifacts[1].board = board);
    let desk = Board::new("desk").unwrap();
    assert_eq!(found, of(1, Fault::WrongBoard { role: role(1), image: board, device: desk }));
    assert_eq!(faults(|_, release| release.artifacts[1].board = Board::EMPTY), []);
}

#[test]
fn l15_an_image_that_is_too_large_is_refused_with_both_numbers() {
    let slot = 0x1E_0000;
    let found = faults(|_, release| release.artifacts[0].size_bytes = slot + 1);
    let expected = Fault::TooLarge { role: role(0), size_bytes: slot + 1, slot_bytes: slot };
    assert_eq!(found, of(0, expected));
    assert_eq!(faults(|_, release| release.artifacts[0].size_bytes = slot), []);
}

#[test]
fn every_artifact_must_fit_the_slot_of_the_lead() {
    let found = faults(|group, release| {
        group.members[LEAD].facts.slot_size_bytes = 150_000;
        release.artifacts[1].size_bytes = 150_001;
    });
    let fault = Fault::TooLargeToSpool { role: role(1), size_bytes: 150_001, slot_bytes: 150_000 };
    assert_eq!(found, [(None, fault)]);
}

#[test]
fn a_release_below_the_epoch_of_a_device_is_refused() {
    let found = faults(|group, _| group.members[1].facts.epoch_floor = 3);
    assert_eq!(found, of(1, Fault::EpochTooLow { role: role(1), offered: 2, floor: 3 }));
}

// Its bootloader would pass over the image, and the group would reboot twice for nothing.
#[test]
fn an_image_below_the_secure_version_that_runs_is_refused() {
    let found = faults(|group, release| {
        group.members[1].facts.guard.secure_version = 3;
        release.artifacts[1].guard.secure_version = 2;
    });
    assert_eq!(found, of(1, Fault::SecureVersionTooLow { role: role(1), offered: 2, running: 3 }));
}

// Once the fuse is burnt nobody goes back, whatever the group has promised.
#[test]
fn a_secure_version_rises_only_in_a_release_that_says_that_there_is_no_way_back() {
    let rises = |group: &mut TestGroup, release: &mut Release| {
        group.members[1].facts.guard.secure_version = 3;
        release.artifacts[1].guard.secure_version = 4;
    };
    let fault = Fault::SecureVersionRises { role: role(1), offered: 4, running: 3 };
    assert_eq!(faults(rises), of(1, fault));
    let found = faults(|group, release| {
        rises(group, release);
        release.artifacts[1].is_reversible = false;
    });
    assert_eq!(found, []);
}

#[test]
fn a_plain_image_is_refused_where_a_signed_one_runs() {
    let found = faults(|group, _| group.members[1].facts.guard.is_signed = true);
    assert_eq!(found, of(1, Fault::NotSigned { role: role(1) }));
    let both = |group: &mut TestGroup, release: &mut Release| {
        group.members[1].facts.guard.is_signed = true;
        release.artifacts[1].guard.is_signed = true;
    };
    assert_eq!(faults(both), []);
    // From plain to signed is how secure boot begins.
    assert_eq!(faults(|_, release| release.artifacts[1].guard.is_signed = true), []);
}

#[test]
fn l5_a_member_without_rollback_is_refused() {
    let found = faults(|group, _| group.members[1].facts.rollback = Rollback::None);
    assert_eq!(found, of(1, Fault::NoRollback { role: role(1) }));
    assert_eq!(faults(|group, _| group.members[1].facts.rollback = Rollback::Agent), []);
}

#[test]
fn a_member_on_trial_is_refused() {
    let found = faults(|group, _| {
        let member = &mut group.members[1];
        member.trial = true;
        // Its own lease and limit do not end it meanwhile.
        (member.terms.lease_ms, member.terms.trial_limit_ms) = (60_000, 60_000);
    });
    assert_eq!(found, of(1, Fault::OnTrial { role: role(1) }));
}

#[test]
fn l20_too_little_heap_and_a_bad_link_are_refused() {
    let found = faults(|group, _| group.members[1].facts.free_heap_bytes = 16_383);
    let expected = Fault::LowHeap { role: role(1), free_bytes: 16_383, needed_bytes: 16_384 };
    assert_eq!(found, of(1, expected));
    let found = faults(|group, _| group.members[1].facts.link_loss_percent = 61);
    let expected = Fault::BadLink { role: role(1), loss_percent: 61, allowed_percent: 60 };
    assert_eq!(found, of(1, expected));
}

// A version is a label: two images under one version would be an endless update.
/// The limits themselves are still good enough.
#[test]
fn exactly_as_much_heap_loss_and_size_as_is_allowed_is_allowed() {
    let found = faults(|group, release| {
        let policy = group.policy;
        for member in &mut group.members {
            member.facts.free_heap_bytes = policy.free_heap_bytes_min;
            member.facts.link_loss_percent = policy.link_loss_percent_max;
        }
        for artifact in &mut release.artifacts {
            artifact.size_bytes = group.members[0].facts.slot_size_bytes;
        }
    });
    assert_eq!(found, []);
}

#[test]
fn a_member_is_told_the_size_of_its_own_image() {
    let mut group = TestGroup::new(2);
    let mut release = release(2, &[0, 1]);
    release.artifacts[1].size_bytes = 54_321;
    group.forward(release);
    group.run_until_phase("staging");
    let sizes: Vec<u32> = group.record().unwrap().seats.iter().map(|it| it.size_bytes).collect();
    assert_eq!(sizes, [100_000, 54_321]);
}

#[test]
fn l25_another_image_under_the_same_version_is_refused() {
    let found = faults(|_, release| release.artifacts[1].announced.number = 10_000);
    let (running, offered) = (image(1, 1), image(1, 2));
    let expected = Fault::SameVersionOtherImage { role: role(1), number: 10_000, running, offered };
    assert_eq!(found, of(1, expected));
}

#[test]
fn l25_a_release_that_runs_everywhere_is_nothing_to_do() {
    let found = faults(|_, release| *release = group::release(1, &[0, 1]));
    assert_eq!(found, [(None, Fault::NothingToDo)]);
}

#[test]
fn every_fault_is_named_not_only_the_first() {
    let found = faults(|group, release| {
        group.members[0].facts.free_heap_bytes = 1;
        group.members[1].facts.link_loss_percent = 99;
        release.artifacts[1].chip = ChipId(9);
    });
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn what_a_device_is_for_it_knows_better_than_the_list() {
    let mut group = TestGroup::new(2);
    let mut members = group.ids_and_roles();
    members[1].1 = role(3);
    let id = lockstep_proto::id::RolloutId(5);
    let (now, policy) = (group.lead_now(), group.policy);
    let release = release(2, &[0, 1]);
    let rollout =
        lockstep_rollout::Rollout::forward(now, id, release, &members, device(LEAD), None, policy);
    group.rollout = Some(rollout);
    group.run_until_settled();
    assert!(group.all_run(2));
}

#[test]
fn a_group_beyond_the_limit_is_refused_not_cut_short() {
    let group = TestGroup::new(2);
    let mut members = group.ids_and_roles();
    for number in 10..40 {
        members.push((DeviceId([2, 0, 0, 0, 0, number]), role(1)));
    }
    let mut members_plus = members.clone();
    members_plus.push((DeviceId([2, 0, 0, 0, 0, 99]), role(1)));
    for (members, too_many) in [(members, false), (members_plus, true)] {
        let mut group = TestGroup::new(2);
        let (now, policy) = (group.lead_now(), group.policy);
        let id = lockstep_proto::id::RolloutId(5);
        let release = release(2, &[0, 1]);
        let lead = device(LEAD);
        group.rollout = Some(lockstep_rollout::Rollout::forward(
            now, id, release, &members, lead, None, policy,
        ));
        let found = refused(&mut group);
        let expected = Fault::TooManyMembers { found: members.len(), allowed: MEMBERS_MAX };
        assert_eq!(found.contains(&(None, expected)), too_many);
    }
}

// --- Some roles only ---

fn announced(number: u32, min_compatible: u32) -> Announced {
    Announced { number, min_compatible, protocol: ProtocolRange::single(1) }
}

#[test]
fn an_update_of_one_role_is_allowed_if_the_others_understand_it() {
    let mut group = TestGroup::new(2);
    group.forward(release(2, &[1]));
    group.run_until_settled();
    assert_eq!(group.phase(), Some(Phase::Settled(Verdict::Keep)));
    assert_eq!(group.running(), [image(0, 1), image(1, 2)]);
}

#[test]
fn l1_an_update_of_one_role_is_refused_if_the_others_would_not_understand_it() {
    let change = |group: &mut TestGroup, release: &mut Release| {
        *release = group::release(2, &[1]);
        release.artifacts[0].announced = announced(20_000, 20_000);
        group.members[0].facts.announced = announced(10_000, 0);
    };
    let why = Incompatible::WeAreTooOld { mine: 10_000, their_minimum: 20_000 };
    let expected = Fault::Incompatible { role: role(0), other: role(1), why };
    assert_eq!(faults(change), [(None, expected)]);
    // Both together understand each other.
    let both = |_: &mut TestGroup, release: &mut Release| {
        for artifact in &mut release.artifacts {
            artifact.announced = announced(20_000, 20_000);
        }
    };
    assert_eq!(faults(both), []);
}

// Under the one-sided rule each gate asks for itself, so both must be asked here.
#[test]
fn the_one_sided_rule_is_asked_from_both_sides() {
    let change = |group: &mut TestGroup, release: &mut Release| {
        group.policy.rule = Rule::OneSided;
        *release = group::release(2, &[1]);
        release.artifacts[0].announced = announced(20_000, 20_000);
    };
    let why = Incompatible::TheyAreTooOld { theirs: 10_000, my_minimum: 20_000 };
    let expected = Fault::Incompatible { role: role(1), other: role(0), why };
    assert_eq!(faults(change), [(None, expected)]);
}

#[test]
fn a_member_that_does_not_change_needs_no_heap_and_no_rollback() {
    let found = faults(|group, release| {
        *release = group::release(2, &[1]);
        group.members[0].facts.free_heap_bytes = 1;
        group.members[0].facts.rollback = Rollback::None;
    });
    assert_eq!(found, []);
}

// --- Mixed groups ---

/// Release 2 is kept, but the transmitter was out of reach and fell back by itself.
fn mixed() -> TestGroup {
    let mut group = TestGroup::new(2);
    group.keep(2);
    let member = &mut group.members[1];
    std::mem::swap(&mut member.running, &mut member.other);
    group
}

#[test]
fn l2_a_mixed_group_begins_nothing_new() {
    let mut group = mixed();
    group.forward(release(3, &[0, 1]));
    let (running, expected) = (image(1, 1), image(1, 2));
    let fault = Fault::Mixed { role: role(1), running, expected };
    assert_eq!(refused(&mut group), of(1, fault));
}

#[test]
fn l2_a_mixed_group_may_be_finished() {
    let mut group = mixed();
    group.forward(release(2, &[0, 1]));
    group.run_until_settled();
    assert_eq!(group.verdict(), Some(Verdict::Keep));
    assert!(group.all_run(2));
}

#[test]
fn l2_a_mixed_group_may_be_undone() {
    let mut group = mixed();
    group.back();
    group.run_until_settled();
    assert_eq!(group.verdict(), Some(Verdict::Keep));
    assert!(group.all_run(1));
}

/// L2: whoever does not know how the last rollout ended cannot see that the group is mixed. A
/// release for one role would leave it so; the one of before, or another for all, makes it whole.
#[test]
fn l2_a_lead_that_lost_its_record_begins_with_a_release_for_all_roles() {
    for whole in [2, 4] {
        let mut group = mixed();
        (group.stored, group.rollout) = (None, None);
        group.forward(release(3, &[0]));
        let fault = Fault::UnknownPast {
            role: role(1),
            seen: Generation { term: 0, counter: 1 },
            known: Generation::default(),
        };
        assert_eq!(refused(&mut group), [(None, fault)]);

        group.forward(release(whole, &[0, 1]));
        group.run_until_settled();
        assert!(group.all_run(whole));

        group.forward(release(5, &[0]));
        group.run_until_settled();
        assert_eq!(group.verdict(), Some(Verdict::Keep));
    }
}

/// A member that does not change would go on trusting the old keys only, and refuse every release
/// after this one.
#[test]
fn new_keys_come_with_a_release_that_changes_everybody() {
    let found = faults(|_, asked| {
        *asked = Release { brings_keys: true, ..release(2, &[0]) };
    });
    assert_eq!(found, [(None, Fault::KeysLeftOut { role: role(1) })]);
    assert_eq!(faults(|_, asked| asked.brings_keys = true), []);
}

#[test]
fn a_device_flashed_by_cable_is_its_owners_business() {
    let mut group = mixed();
    group.members[1].running = image(1, 9);
    group.forward(release(3, &[0, 1]));
    group.run_until_settled();
    assert!(group.all_run(3));
}

#[test]
fn going_back_is_refused_when_a_way_back_is_gone() {
    let mut group = TestGroup::new(2);
    group.keep(2);
    group.members[1].other = NO_IMAGE;
    group.back();
    let fault = Fault::NoWayBack { role: role(1), other: NO_IMAGE, wanted: image(1, 1) };
    assert_eq!(refused(&mut group), of(1, fault));
    let record: RolloutRecord = group.record().unwrap();
    assert_eq!(record.phase, Phase::Settled(Verdict::Keep));
}

// --- Texts ---

fn one_of_each() -> Vec<Fault> {
    let (receiver, transmitter) = (role(0), role(1));
    let (running, offered) = (image(1, 1), image(1, 2));
    let board = |name| Board::new(name).unwrap();
    vec![
        Fault::Unreachable { role: transmitter, waited_ms: 5_000 },
        Fault::NoDeviceForRole { role: transmitter },
        Fault::WrongChip { role: receiver, image: ChipId(0), device: ChipId(9) },
        Fault::WrongBoard {
            role: receiver,
            image: board("esp32-poe-iso"),
            device: board("t-display-s3"),
        },
        Fault::TooLarge { role: receiver, size_bytes: 1_966_081, slot_bytes: 1_966_080 },
        Fault::TooLargeToSpool { role: transmitter, size_bytes: 1_966_081, slot_bytes: 1_310_720 },
        Fault::EpochTooLow { role: receiver, offered: 1, floor: 2 },
        Fault::NoRollback { role: receiver },
        Fault::OnTrial { role: receiver },
        Fault::LowHeap { role: receiver, free_bytes: 9_000, needed_bytes: 16_384 },
        Fault::BadLink { role: transmitter, loss_percent: 70, allowed_percent: 60 },
        Fault::Mixed { role: transmitter, running, expected: offered },
        Fault::SameVersionOtherImage { role: transmitter, number: 10_203, running, offered },
        Fault::NoWayBack { role: transmitter, other: NO_IMAGE, wanted: running },
        Fault::Incompatible {
            role: receiver,
            other: transmitter,
            why: Incompatible::WeAreTooOld { mine: 10_000, their_minimum: 20_000 },
        },
        Fault::TooManyMembers { found: 33, allowed: 32 },
        Fault::UnknownPast {
            role: transmitter,
            seen: Generation { term: 1, counter: 8 },
            known: Generation { term: 0, counter: 0 },
        },
        Fault::KeysLeftOut { role: transmitter },
        Fault::SecureVersionTooLow { role: transmitter, offered: 1, running: 2 },
        Fault::SecureVersionRises { role: transmitter, offered: 3, running: 2 },
        Fault::NotSigned { role: transmitter },
        Fault::NothingToDo,
    ]
}

#[test]
fn every_fault_says_what_is_wrong_and_what_to_do() {
    let text = one_of_each().iter().fold(String::new(), |mut text, fault| {
        writeln!(text, "{}: {fault}\n    hint: {}", fault.code(), fault.hint()).unwrap();
        text
    });
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(GOLDEN).unwrap());
}
