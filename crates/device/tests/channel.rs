//! Members without an access point find their lead on another channel, whatever is going on, and
//! nobody else keeps them on a wrong one.

mod group;

use std::cell::RefCell;
use std::rc::Rc;

use group::{KEY, LEAD, MEMBER, TestGroup, images, pair_bundle};
use lockstep_device::Node;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_proto::compat::Announced;
use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::frame::control::{ControlFrame, Counter, GroupKey, Message};
use lockstep_proto::frame::version::{Announce, VersionFrame};
use lockstep_proto::id::DeviceId;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::Label;
use lockstep_rollout::{Phase, Verdict};

const STRANGER: DeviceId = DeviceId([2, 0, 0, 0, 0, 9]);

fn channel(number: u8) -> Channel {
    Channel::new(number).unwrap()
}

/// A group whose members scan, with its lead on a channel.
fn group_on(lead: u8, roles: &[&'static str]) -> TestGroup {
    let mut group = TestGroup::of(roles);
    group.boards[LEAD].channel = channel(lead);
    for board in &mut group.boards[MEMBER..] {
        board.channels = ChannelPlan::ALL;
    }
    group
}

fn seeks(group: &TestGroup, board: usize) -> bool {
    group.boards[board].node.as_ref().is_none_or(Node::seeks_lead)
}

/// All members are where the lead is.
fn is_together(group: &TestGroup) -> bool {
    let lead = group.boards[LEAD].channel;
    (MEMBER..group.boards.len())
        .all(|index| !seeks(group, index) && group.boards[index].channel == lead)
}

#[test]
fn a_member_finds_its_lead_on_whatever_channel_it_is() {
    for number in [1, 6, 13] {
        let mut group = group_on(number, &["receiver", "transmitter"]);
        assert!(group.run_until(2_000, is_together), "{number}: {}", group.log());
        group.run_ms(500);
        assert_eq!(group.lead().members().len(), 2, "its lead knows it");
    }
}

#[test]
fn a_rollout_is_kept_though_the_channel_changes_in_it() {
    type Begun = fn(&Phase) -> bool;
    let moments: [(u8, Begun); 3] = [
        (11, |phase| matches!(phase, Phase::Staging)),
        (4, |phase| matches!(phase, Phase::Trial)),
        (9, |phase| matches!(phase, Phase::Settling(Verdict::Keep))),
    ];
    for (number, begun) in moments {
        let mut group = group_on(6, &["receiver", "transmitter"]);
        assert!(group.run_until(3_000, is_together));
        group.run_ms(1_000);
        let (receiver, transmitter) = images("1.1.0");
        group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
        let begun = |group: &TestGroup| group.phase().as_ref().is_some_and(begun);
        assert!(group.run_until(60_000, begun), "{}", group.log());
        group.boards[LEAD].channel = channel(number);
        assert_eq!(group.settle(), Verdict::Keep, "{number}: {}", group.log());
        assert!(group.run_until(10_000, is_together), "{number}: {}", group.log());
        group.assert_running(&[&receiver, &transmitter]);
    }
}

/// Three that hear each other would wait for ever where their lead has been.
#[test]
fn members_do_not_keep_each_other_where_the_lead_is_not() {
    let mut group = group_on(6, &["receiver", "transmitter", "transmitter", "transmitter"]);
    assert!(group.run_until(5_000, is_together));
    group.run_ms(2_000);
    group.boards[LEAD].channel = channel(12);
    assert!(group.run_until(10_000, is_together), "{}", group.log());
}

/// A third of all frames is lost for ten minutes.
#[test]
fn a_member_stays_as_long_as_some_frames_come_through() {
    let mut group = group_on(6, &["receiver", "transmitter"]);
    assert!(group.run_until(3_000, is_together));
    let mut drawn = 7_u64;
    group.air = Box::new(move |_, _, _| {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        !(drawn >> 33).is_multiple_of(3)
    });
    for _ in 0..6_000 {
        group.run_ms(100);
        assert_eq!(group.boards[MEMBER].channel, channel(6), "{}", group.log());
    }
}

fn announce() -> Vec<u8> {
    let number = 10_000;
    let announced = Announced { number, min_compatible: 0, protocol: ProtocolRange::single(1) };
    let announce = Announce {
        announced,
        device_type: Label::new("RECEIVER").unwrap(),
        build_date: Label::EMPTY,
        build_time: Label::EMPTY,
        uptime_s: Some(1),
        image: None,
    };
    let mut bytes = [0; FRAME_BYTES_MAX];
    let len = VersionFrame::Announce(announce).encode(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

/// What some device says with some key to whoever asks.
fn control(key: &GroupKey, from: DeviceId, message: Message) -> Vec<u8> {
    let counter = Counter { boot: 99, frame: 1 };
    let frame = ControlFrame { from, to: DeviceId::BROADCAST, counter, message };
    let mut bytes = [0; FRAME_BYTES_MAX];
    let len = frame.encode(key, &mut bytes).unwrap();
    bytes[..len].to_vec()
}

#[test]
fn neither_strangers_nor_version_frames_nor_what_the_lead_once_said_are_the_lead() {
    let mut group = group_on(6, &["receiver", "transmitter"]);
    let recording: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let lead = group.boards[LEAD].id;
    let heard = Rc::clone(&recording);
    group.air = Box::new(move |from, _, bytes| {
        if from == lead {
            heard.borrow_mut().push(bytes.to_vec());
        }
        true
    });
    assert!(group.run_until(3_000, is_together));
    group.run_ms(2_000);
    let here = |frame: &Vec<u8>| {
        let frame = ControlFrame::decode(&KEY, frame);
        frame.is_ok_and(|frame| matches!(frame.message, Message::Here { .. }))
    };
    assert!(recording.borrow().iter().any(here), "an answer was recorded");

    group.air = Box::new(|_, _, _| false);
    let member_lost = |group: &TestGroup| seeks(group, MEMBER);
    assert!(group.run_until(10_000, member_lost));
    let mut visited = std::collections::BTreeSet::new();
    for round in 0..400_usize {
        let frames = [
            announce(),
            control(&GroupKey::new([8; 32]), STRANGER, Message::Here { nonce: 0 }),
            // Of the group, but no answer to what this member asked.
            control(&KEY, STRANGER, Message::Here { nonce: 1 }),
            recording.borrow()[round % recording.borrow().len()].clone(),
        ];
        for frame in &frames {
            group.inject(MEMBER, STRANGER, frame);
        }
        group.run_ms(10);
        assert!(seeks(&group, MEMBER), "{}", group.log());
        visited.insert(group.boards[MEMBER].channel);
    }
    assert_eq!(visited.len(), 13, "{visited:?}");
}

/// It has no group that it could look for, and is adopted where devices are.
#[test]
fn a_new_device_stays_where_devices_are_until_it_is_adopted() {
    let mut group = group_on(9, &["receiver", "transmitter", "transmitter"]);
    group.boards[2].key = None;
    group.run_ms(100);
    let board = &mut group.boards[2];
    let node = board.node.as_mut().unwrap();
    assert!(node.set_password("correct horse battery", [3; 16], &mut board.flash));
    let stays = |group: &TestGroup| group.boards[2].channel == channel(9);
    assert!(group.run_until(5_000, stays));
    group.run_ms(500);
    assert!(stays(&group));
    let (now, id) = (group.boards[LEAD].uptime(group.now), group.boards[2].id);
    assert_eq!(group.lead().strangers(now).map(|peer| peer.id).collect::<Vec<_>>(), [id]);
    group.lead().adopt(now, id, "correct horse battery").unwrap();
    assert!(group.run_until(10_000, is_together), "{}", group.log());
    group.run_ms(1_000);
    assert!(group.lead().members().iter().any(|(member, _)| *member == id));
}
