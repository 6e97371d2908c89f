//! What comes over the air: replays, strangers, and data of peers that do not understand each
//! other.

mod group;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::LazyLock;

use group::{LEAD, MEMBER, TestGroup, images, pair_bundle, spec};
use lockstep_device::setup::Application as _;
use lockstep_proto::frame::control::{ControlFrame, Counter, GroupKey, Message};
use lockstep_proto::frame::order::{Order, Ticket};
use lockstep_proto::frame::{FRAME_BYTES_MAX, FrameType, frame_type};
use lockstep_proto::id::{DeviceId, Generation, RolloutId};
use lockstep_proto::version::ProtocolRange;
use lockstep_rollout::Verdict;

type Recording = Rc<RefCell<Vec<(DeviceId, Vec<u8>)>>>;

/// Records every control frame on the air.
fn record(group: &mut TestGroup) -> Recording {
    let recording = Recording::default();
    let heard = Rc::clone(&recording);
    group.air = Box::new(move |from, _, bytes| {
        if frame_type(bytes) == Some(FrameType::Control) {
            heard.borrow_mut().push((from, bytes.to_vec()));
        }
        true
    });
    recording
}

/// Every order of a whole rollout, said again to a member: in the same boot, and after it has
/// rebooted and remembers no counters.
#[test]
fn a_replayed_rollout_moves_nobody() {
    let mut group = TestGroup::pair();
    let recording = record(&mut group);
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep);
    // From here on the recording is only played.
    group.air = Box::new(|_, _, _| true);
    for reboots in [false, true] {
        if reboots {
            group.cut_power(MEMBER, 100);
            group.run_ms(400);
        }
        let member = group.boards[MEMBER].node.as_ref().unwrap();
        let (boots, ticket) = (group.boards[MEMBER].boots, member.agent().member().ticket);
        let lead = group.boards[LEAD].id;
        for (from, bytes) in recording.borrow().iter().filter(|(from, _)| *from == lead) {
            group.inject(MEMBER, *from, bytes);
        }
        group.run_ms(2_000);

        let member = group.boards[MEMBER].node.as_ref().unwrap();
        assert_eq!(group.boards[MEMBER].boots, boots, "{}", group.log());
        assert_eq!(member.agent().member().ticket, ticket);
        assert!(reboots || member.peers().rejected > 10, "{}", member.peers().rejected);
    }
    group.assert_running(&[&receiver, &transmitter]);
}

/// An answer to yesterday's challenge must not set the counter back.
#[test]
fn an_answer_to_another_challenge_opens_nothing() {
    let mut group = TestGroup::pair();
    group.air = Box::new(|_, _, _| false);
    group.cut_power(MEMBER, 100);
    group.run_ms(400);
    let lead = group.boards[LEAD].id;
    let order = Order::Revert;
    let generation = Generation { term: 0, counter: 9 };
    let ticket = Ticket { rollout: RolloutId(7), generation, attempt: 0 };
    for (frame, message) in [
        (1, Message::ChallengeAnswer { nonce: 12_345 }),
        (2, Message::Order(ticket, order)),
        (3, Message::ChallengeAnswer { nonce: 0 }),
        (4, Message::Order(ticket, order)),
    ] {
        let bytes = control(&KEY, lead, group.boards[MEMBER].id, frame, message);
        group.inject(MEMBER, lead, &bytes);
        group.run_ms(100);
    }
    let member = group.boards[MEMBER].node.as_ref().unwrap();
    assert_eq!(member.agent().member().ticket.rollout, RolloutId(0), "{}", group.log());
}

/// A stranger with another key says what he likes.
#[test]
fn orders_of_a_stranger_are_dropped_and_counted() {
    let mut group = TestGroup::pair();
    let (lead, member) = (group.boards[LEAD].id, group.boards[MEMBER].id);
    let rejected = |group: &TestGroup| group.boards[MEMBER].node.as_ref().unwrap().peers().rejected;
    let before = rejected(&group);
    let ticket = Ticket { rollout: RolloutId(7), ..Ticket::default() };
    let own = control(&KEY, lead, member, 1_000_000, Message::Order(ticket, Order::Revert));
    // Right group, wrong tag: somebody who knows the group's name and not its key.
    let mut forged = own.clone();
    *forged.last_mut().unwrap() ^= 1;
    group.inject(MEMBER, lead, &forged);
    group.run_ms(100);
    assert_eq!(rejected(&group), before + 1);
    // Another group's frame is nobody's error.
    let other = control(
        &GroupKey::new([1; 32]),
        lead,
        member,
        1_000_001,
        Message::Order(ticket, Order::Revert),
    );
    group.inject(MEMBER, lead, &other);
    group.run_ms(100);
    assert_eq!(rejected(&group), before + 1);
    let node = group.boards[MEMBER].node.as_ref().unwrap();
    assert_eq!(node.agent().member().ticket.rollout, RolloutId(0));
}

/// Invariant 5, L1, L3: data of a peer that speaks another protocol is dropped, counted and told
/// once; the control lane between the same two goes on.
#[test]
fn data_of_an_incompatible_peer_is_dropped_and_its_control_frames_are_not() {
    let mut newer = spec("transmitter", "2.0.0");
    newer.descriptor.protocol = ProtocolRange::single(2);
    let receiver = spec("receiver", "1.0.0").build().unwrap();
    let transmitter = newer.build().unwrap();
    let mut group = TestGroup::running(&[("receiver", receiver), ("transmitter", transmitter)]);

    group.run_ms(30_000);

    let node = group.boards[LEAD].node.as_ref().unwrap();
    assert_eq!(node.application().figures().unwrap().frames, 0, "no measurement was shown");
    assert!(node.peers().dropped > 20, "{}", node.peers().dropped);
    let warnings = group.lines.iter().filter(|line| line.contains("data is dropped"));
    let told: Vec<_> = warnings.filter(|line| line.contains(" receiver ")).collect();
    assert_eq!(told.len(), 1, "one line per change: {told:?}");
    let now = lockstep_proto::time::Instant::from_ms(group.now);
    assert_eq!(node.peers().linked(now, 5_000).count(), 1, "the control lane is never gated");
}

/// A peer that has not announced anything yet may be anything.
#[test]
fn data_of_a_peer_that_was_not_heard_yet_is_dropped() {
    let mut group = TestGroup::pair();
    let stranger = DeviceId([2, 9, 9, 9, 9, 9]);
    let dropped = group.lead().peers().dropped;
    let frame = lockstep_proto::frame::data::Measurement {
        sequence: 1,
        soc_centipercent: 9_999,
        power_w: 1,
    };
    group.inject(LEAD, stranger, &frame.encode().unwrap());
    group.run_ms(50);
    assert_eq!(group.lead().peers().dropped, dropped + 1);
    assert_ne!(group.lead().application().figures().unwrap().soc_centipercent, 9_999);
}

static KEY: LazyLock<GroupKey> = LazyLock::new(|| GroupKey::new([9; 32]));

/// Lengths of the longest frame that the lead sends in a rollout of a pair.
fn longest_frame(takes_large: [bool; 2]) -> usize {
    let mut group = TestGroup::pair();
    let longest = Rc::new(RefCell::new(0));
    let seen = Rc::clone(&longest);
    group.air = Box::new(move |_, _, bytes| {
        let mut seen = seen.borrow_mut();
        *seen = bytes.len().max(*seen);
        true
    });
    for (index, takes) in [LEAD, MEMBER].into_iter().zip(takes_large) {
        group.boards[index].takes_large = takes;
        group.cut_power(index, 10);
    }
    group.run_ms(1_000);
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    longest.take()
}

#[test]
fn a_pair_whose_radios_both_take_long_frames_moves_in_large_blocks() {
    assert_eq!(longest_frame([true, true]), 1024 + 13);
}

#[test]
fn no_frame_is_longer_than_the_radio_of_either_takes() {
    for takes_large in [[true, false], [false, true], [false, false]] {
        let longest = longest_frame(takes_large);
        assert!(longest <= FRAME_BYTES_MAX, "{takes_large:?}: {longest}");
    }
}

fn control(key: &GroupKey, from: DeviceId, to: DeviceId, frame: u32, message: Message) -> Vec<u8> {
    let counter = Counter { boot: 1_000, frame };
    let mut buffer = [0; FRAME_BYTES_MAX];
    let len = ControlFrame { from, to, counter, message }.encode(key, &mut buffer).unwrap();
    buffer[..len].to_vec()
}
