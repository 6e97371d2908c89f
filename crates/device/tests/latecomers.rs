//! Devices that come to a group after its last rollout: brought to the release by those of their
//! role that run it, without anybody handing over a bundle.

mod group;

use group::{LEAD, TestGroup, image_hash, images, pair_bundle, spec};
use lockstep_device::setup::Duty;
use lockstep_proto::frame::block::{BLOCK, REPAIR};
use lockstep_rollout::{Phase, Verdict};

const NEW: usize = 3;

/// A pair and a second transmitter on 1.1.0, kept; the last board, of this role, is still off.
fn kept_group(role: &'static str) -> (TestGroup, [Vec<u8>; 2]) {
    let mut group = TestGroup::of(&["receiver", "transmitter", "transmitter", role]);
    group.boards[NEW].duty = Duty::Member;
    group.switch_off(NEW);
    group.run_ms(3_000);
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    (group, [receiver, transmitter])
}

fn runs(group: &TestGroup, board: usize, image: &[u8]) -> bool {
    group.boards[board].running() == image_hash(image)
}

#[test]
fn a_new_transmitter_gets_the_release_from_another_one() {
    let (mut group, [receiver, transmitter]) = kept_group("transmitter");
    let senders = count_blocks(&mut group);
    group.cut_power(NEW, 100);

    let done = group.run_until(60_000, |group| {
        runs(group, NEW, &transmitter) && group.settled() == Some(Verdict::Keep)
    });
    assert!(done, "{}", group.log());
    group.run_ms(5_000);
    group.assert_running(&[&receiver, &transmitter, &transmitter, &transmitter]);
    for board in 0..NEW {
        assert_eq!(group.boards[board].boots, 2, "only the new one was to be rebooted");
    }
    let senders = senders.take();
    let lead = group.boards[LEAD].id;
    assert!(senders.iter().any(|(id, count)| *id != lead && *count > 20), "{senders:?}");
}

/// The lead is of its role, and sends what it runs itself.
#[test]
fn a_new_receiver_gets_the_release_from_the_lead() {
    let (mut group, [receiver, transmitter]) = kept_group("receiver");
    group.cut_power(NEW, 100);
    let done = group.run_until(60_000, |group| {
        runs(group, NEW, &receiver) && group.settled() == Some(Verdict::Keep)
    });
    assert!(done, "{}", group.log());
    group.run_ms(5_000);
    group.assert_running(&[&receiver, &transmitter, &transmitter, &receiver]);
}

/// Another of its role takes over; and the lead goes on from its record.
#[test]
fn a_sender_that_is_switched_off_is_replaced_and_a_lead_that_restarts_goes_on() {
    let (mut group, [_, transmitter]) = kept_group("transmitter");
    // Slow enough to be disturbed.
    let mut frames = 0;
    group.air = Box::new(move |_, _, bytes| {
        frames += u32::from(bytes.first() == Some(&BLOCK));
        bytes.first() != Some(&BLOCK) || frames % 3 == 0
    });
    group.cut_power(NEW, 100);
    assert!(group.run_until(30_000, |group| group.phase() == Some(Phase::Staging)));
    group.run_ms(300);
    assert!(!runs(&group, NEW, &transmitter));
    group.cut_power(1, 100_000);
    group.run_ms(200);
    group.cut_power(LEAD, 100);
    let done = group.run_until(60_000, |group| runs(group, NEW, &transmitter));
    assert!(done, "{}", group.log());
}

/// Nobody in the group has what it needs: a person is told, once, and a bundle does it.
#[test]
fn without_anybody_of_its_role_the_bundle_is_asked_for() {
    let old = spec("transmitter", "1.0.0").build().unwrap();
    let mut group = TestGroup::of(&["receiver", "transmitter", "transmitter"]);
    group.switch_off(2);
    group.run_ms(3_000);
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    // The one transmitter is gone for good, and a new board stands in its place.
    group.switch_off(1);
    group.run_ms(5_000);
    let gone = group.boards[1].id;
    let now = group.boards[LEAD].uptime(group.now);
    let board = &mut group.boards[LEAD];
    let removed = board.node.as_mut().unwrap().remove_member(now, gone, &mut board.flash);
    assert!(removed.is_ok(), "{removed:?}");
    group.cut_power(2, 100);
    group.run_ms(20_000);
    assert!(runs(&group, 2, &old));
    let told = group.lines.iter().filter(|line| line.contains("hand over the bundle")).count();
    assert_eq!(told, 1, "{}", group.log());

    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    assert!(runs(&group, 2, &transmitter));
}

/// The refused release's manifest took the place of the kept one's: nobody is brought to what the
/// group has refused.
#[test]
fn after_a_refused_release_a_latecomer_waits_for_the_bundle() {
    let (mut group, [receiver, transmitter]) = kept_group("transmitter");
    let mut newer = spec("transmitter", "2.0.0");
    newer.descriptor.protocol = lockstep_proto::version::ProtocolRange::single(2);
    let newer = newer.build().unwrap();
    let refused = group.upload(&pair_bundle("2.0.0", &receiver, &newer));
    assert!(refused.is_err(), "it would not understand the receiver");
    group.cut_power(NEW, 100);
    group.run_ms(20_000);
    let old = spec("transmitter", "1.0.0").build().unwrap();
    assert!(runs(&group, NEW, &old), "{}", group.log());
    assert_eq!(group.settled(), Some(Verdict::Keep), "nothing was begun: {}", group.log());
    assert!(group.log().contains("hand over the bundle"), "{}", group.log());

    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    assert!(runs(&group, NEW, &transmitter));
}

/// What was flashed by cable since the last rollout was so on purpose.
#[test]
fn a_member_that_was_flashed_by_cable_is_left_alone() {
    let mut group = TestGroup::of(&["receiver", "transmitter", "transmitter"]);
    group.run_ms(3_000);
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep);
    let other = spec("transmitter", "1.0.5").build().unwrap();
    group.flash_by_cable(2, &other);
    group.run_ms(20_000);
    assert!(runs(&group, 2, &other), "{}", group.log());
}

/// Counts frames of blocks by who sent them.
fn count_blocks(group: &mut TestGroup) -> std::rc::Rc<std::cell::RefCell<Counts>> {
    let counts = std::rc::Rc::<std::cell::RefCell<Counts>>::default();
    let ears = std::rc::Rc::clone(&counts);
    group.air = Box::new(move |from, _, bytes| {
        if matches!(bytes.first(), Some(&(BLOCK | REPAIR))) {
            *ears.borrow_mut().entry(from).or_default() += 1;
        }
        true
    });
    counts
}

type Counts = std::collections::BTreeMap<lockstep_proto::id::DeviceId, u32>;
