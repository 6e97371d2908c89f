//! What is no frame of this group, this rollout or this version of the lane is dropped, counted
//! with its reason, and changes nothing: not a byte of flash, and not how a transfer goes on.

mod group;

use std::cell::RefCell;
use std::rc::Rc;

use group::{KEY, LEAD, MEMBER, TestGroup, images, pair_bundle};
use hmac::{Hmac, KeyInit, Mac};
use lockstep_proto::frame::block::{BLOCK, Block, BlockFrame, Repair, Session};
use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::control::{ControlFrame, Counter, GroupKey, Message};
use lockstep_proto::frame::report::{Lacking, Readiness, Wants};
use lockstep_proto::frame::{FRAME_BYTES_MAX, LARGE_FRAME_BYTES_MAX};
use lockstep_proto::id::DeviceId;
use lockstep_rollout::{Phase, Verdict};

const STRANGER: DeviceId = DeviceId([2, 0, 0, 0, 0, 9]);
const CONTROL_TAG_BYTES: usize = 8;
const BLOCK_TAG_BYTES: usize = 4;
/// Where a control frame has its version, its kind, and a `Wants` the length of its list.
const VERSION_AT: usize = 1;
const KIND_AT: usize = 26;
const LACKING_LEN_AT: usize = KIND_AT + 1 + 18;

/// Signs bytes that no encoder would write.
fn sign(mut frame: Vec<u8>, tag_bytes: usize) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.bytes()).unwrap();
    mac.update(&frame);
    frame.extend_from_slice(&mac.finalize().into_bytes()[..tag_bytes]);
    frame
}

/// The same frame with one byte changed, and a tag that fits.
fn changed(frame: &[u8], at: usize, byte: u8, tag_bytes: usize) -> Vec<u8> {
    let mut signed = frame[..frame.len() - tag_bytes].to_vec();
    signed[at] = byte;
    sign(signed, tag_bytes)
}

fn control(key: &GroupKey, from: DeviceId, to: DeviceId, message: Message) -> Vec<u8> {
    let counter = Counter { boot: 1_000, frame: 1 };
    let mut buffer = [0; FRAME_BYTES_MAX];
    let len = ControlFrame { from, to, counter, message }.encode(key, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn block(frame: BlockFrame<'_>) -> Vec<u8> {
    let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
    let len = frame.encode(&KEY, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// A pair in the middle of a transfer, cut off from each other.
struct Scene {
    group: TestGroup,
    /// What the lead sent, in order.
    recording: Rc<RefCell<Vec<Vec<u8>>>>,
    session: Session,
}

impl Scene {
    fn new() -> Self {
        let mut group = TestGroup::pair();
        let recording: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        let (heard, lead) = (Rc::clone(&recording), group.boards[LEAD].id);
        group.air = Box::new(move |from, _, bytes| {
            if from == lead {
                heard.borrow_mut().push(bytes.to_vec());
            }
            true
        });
        let (receiver, transmitter) = images("1.1.0");
        group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
        let sessions = Rc::clone(&recording);
        let is_block = |bytes: &&Vec<u8>| bytes.first() == Some(&BLOCK);
        // The manifest package has come, and some of the image.
        let goes = |group: &TestGroup| {
            let member = group.boards[MEMBER].node.as_ref();
            let wants = member.and_then(|node| node.agent().wants());
            group.phase() == Some(Phase::Staging) && wants.is_some_and(|it| it.staged_bytes > 0)
        };
        assert!(group.run_until(60_000, goes), "{}", group.log());
        group.air = Box::new(|_, _, _| false);
        group.run_ms(500);
        let session = sessions.borrow().iter().rfind(is_block).map(|it| Session::named(it));
        Self { group, recording, session: session.flatten().unwrap() }
    }

    /// All counts of a board by their names: control first, then blocks.
    fn counts(&self, board: usize) -> Vec<(String, u32)> {
        let node = self.group.boards[board].node.as_ref().unwrap();
        let control = node.control_counts().named().map(|(name, it)| (format!("c {name}"), it));
        let blocks = node.block_counts().named().map(|(name, it)| (format!("b {name}"), it));
        control.into_iter().chain(blocks).collect()
    }

    /// A frame arrives at a board, and is counted in one place only; nothing is written.
    fn is_dropped_as(&mut self, board: usize, frame: &[u8], name: &str) {
        let (before, written) = (self.counts(board), self.group.written_bytes(board));
        let lead = self.group.boards[LEAD].id;
        let from = if board == LEAD { STRANGER } else { lead };
        self.group.inject(board, from, frame);
        self.group.run_ms(20);
        let changed = self.counts(board).into_iter().zip(before).filter(|(now, then)| now != then);
        let changed: Vec<_> = changed.map(|((name, now), (_, then))| (name, now - then)).collect();
        assert_eq!(changed, [(name.to_owned(), 1)], "{:02x?}", &frame[..frame.len().min(32)]);
        assert_eq!(self.group.written_bytes(board), written, "{name}");
    }

    /// What was dropped has spoilt nothing.
    fn settles(mut self) {
        self.group.air = Box::new(|_, _, _| true);
        assert_eq!(self.group.settle(), Verdict::Keep, "{}", self.group.log());
    }
}

#[test]
fn blocks_that_are_not_of_this_transfer_are_dropped_with_their_reason() {
    let mut scene = Scene::new();
    let session = scene.session;
    let payload = [0x55; LARGE_FRAME_BYTES_MAX];
    let shape = scene.group.boards[MEMBER].node.as_ref().unwrap().agent().wants().unwrap().shape;
    let payload = &payload[..if shape == Shape::Large { 1_024 } else { 224 }];
    let of = |session, index| BlockFrame::Block(Block { session, shape, index, payload });

    let other = Session(!session.0);
    scene.is_dropped_as(MEMBER, &block(of(other, 0)), "b unwanted");
    scene.is_dropped_as(MEMBER, &block(of(session, u16::MAX)), "b out_of_range");
    for generation in [600, u16::MAX] {
        let repair = Repair { session, shape, generation, named: 3, payload };
        scene.is_dropped_as(MEMBER, &block(BlockFrame::Repair(repair)), "b out_of_range");
    }
    let good = block(of(session, 0));
    let newer = changed(&good, VERSION_AT, 2, BLOCK_TAG_BYTES);
    scene.is_dropped_as(MEMBER, &newer, "b lane_version");
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    scene.is_dropped_as(MEMBER, &forged, "b bad_tag");
    let cut = sign(good[..8].to_vec(), BLOCK_TAG_BYTES);
    scene.is_dropped_as(MEMBER, &cut, "b malformed");
    scene.settles();
}

#[test]
fn control_frames_that_nobody_of_the_group_has_just_sent_are_dropped_with_their_reason() {
    let mut scene = Scene::new();
    let (lead, member) = (scene.group.boards[LEAD].id, scene.group.boards[MEMBER].id);
    let good = control(&KEY, lead, member, Message::Seek { nonce: 7 });
    let other = control(&GroupKey::new([1; 32]), lead, member, Message::Seek { nonce: 7 });
    scene.is_dropped_as(MEMBER, &other, "c other_group");
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    scene.is_dropped_as(MEMBER, &forged, "c bad_tag");
    let newer = changed(&good, VERSION_AT, 2, CONTROL_TAG_BYTES);
    scene.is_dropped_as(MEMBER, &newer, "c lane_version");
    let unknown = changed(&good, KIND_AT, 0x7F, CONTROL_TAG_BYTES);
    scene.is_dropped_as(MEMBER, &unknown, "c unknown_kind");
    let cut = sign(good[..KIND_AT + 3].to_vec(), CONTROL_TAG_BYTES);
    scene.is_dropped_as(MEMBER, &cut, "c malformed");
    scene.is_dropped_as(MEMBER, &[0x99, 1, 2, 3], "c strange");
    let answer = control(&KEY, lead, member, Message::ChallengeAnswer { nonce: 7 });
    scene.is_dropped_as(MEMBER, &answer, "c replayed");
    let order = |bytes: &&Vec<u8>| {
        let frame = ControlFrame::decode(&KEY, bytes);
        frame.is_ok_and(|frame| matches!(frame.message, Message::Order(..)))
    };
    let heard = scene.recording.borrow().iter().find(order).cloned().unwrap();
    scene.is_dropped_as(MEMBER, &heard, "c replayed");
    scene.settles();
}

/// What a member lacks decides what the lead sends: a list that is no list must not.
#[test]
fn a_list_of_what_is_lacking_of_the_wrong_length_is_dropped() {
    let mut scene = Scene::new();
    let (lead, member) = (scene.group.boards[LEAD].id, scene.group.boards[MEMBER].id);
    let wants = Wants {
        session: scene.session,
        readiness: Readiness::Open,
        shape: Shape::Small,
        takes_large: false,
        interval_ms: 0,
        staged_bytes: 0,
        erased_bytes: 0,
        first: 0,
        lacking: Lacking::of([3, 2, 1]),
    };
    let good = control(&KEY, member, lead, Message::Wants(wants));
    assert_eq!(good[LACKING_LEN_AT], 3);
    // More generations than a list may have, and more than this one has.
    for len in [33, 200, 4, 16] {
        let wrong = changed(&good, LACKING_LEN_AT, len, CONTROL_TAG_BYTES);
        scene.is_dropped_as(LEAD, &wrong, "c malformed");
    }
    scene.settles();
}
