//! Frames of the air: version, control, block and data frames.
//!
//! The fuzzer cannot guess a tag, so the first byte chooses what the harness does: frames of the
//! control lane are completed with this group's header and tag, the others come as they are.
//!
//! Promises: an authentic frame is read or refused, never with "bad tag"; one flipped bit makes any
//! authentic frame a refused one; what was read encodes into one frame and reads back the same, and
//! to the same bytes, but for those that mean nothing and for what later versions append.

use std::ops::Range;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use lockstep_proto::frame::adopt::AdoptFrame;
use lockstep_proto::frame::block::{ASKED_MAX, BLOCK, BlockError, BlockFrame, OVERHEAD_BYTES_MAX};
use lockstep_proto::frame::coding::BLOCK_BYTES_MAX;
use lockstep_proto::frame::control::{CONTROL, ControlError, ControlFrame, GroupKey, Message};
use lockstep_proto::frame::data::Measurement;
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::report::Report;
use lockstep_proto::frame::version::VersionFrame;
use lockstep_proto::frame::{FRAME_BYTES_MAX, LANE_VERSION, frame_type};
use lockstep_proto::id::DeviceId;
use sha2::Sha256;

use crate::memory;

/// The group's key.
pub static KEY: LazyLock<GroupKey> = LazyLock::new(|| GroupKey::new([0x5A; 32]));
/// Bytes of a control frame's tag.
pub const CONTROL_TAG_BYTES: usize = 8;
/// Bytes of a block's tag.
pub const BLOCK_TAG_BYTES: usize = 4;

/// First byte of an input: what follows is a version frame.
pub const VERSION: u8 = 0;
/// First byte of an input: what follows is a control frame without header and tag.
pub const SIGNED: u8 = 1;
/// First byte of an input: what follows is a block without header and tag.
pub const TAGGED: u8 = 2;
/// First byte of an input: what follows is any frame.
pub const ANY: u8 = 3;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    memory::within(MEMORY_BYTES_MAX, || match choice % 4 {
        VERSION => check_version(bytes),
        SIGNED => check_control(bytes),
        TAGGED => check_block(bytes),
        _ => check_any(bytes),
    });
}

/// Appends the first `tag_bytes` of the HMAC, by a library and not by the code that is tested.
pub fn sign(key: &GroupKey, mut frame: Vec<u8>, tag_bytes: usize) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("a key of any length");
    mac.update(&frame);
    frame.extend_from_slice(&mac.finalize().into_bytes()[..tag_bytes]);
    frame
}

fn check_version(bytes: &[u8]) {
    let frame = match VersionFrame::decode(bytes) {
        Ok(frame) => frame,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // A fielded variant is written as ours, which has more fields: the second time nothing changes.
    let mut buffer = [0; FRAME_BYTES_MAX];
    let len = frame.encode(&mut buffer).expect("a version frame fits");
    let again = VersionFrame::decode(&buffer[..len]).expect("what we send can be read");
    let mut twice = [0; FRAME_BYTES_MAX];
    let len_twice = again.encode(&mut twice).expect("a version frame fits");
    assert_eq!(buffer[..len], twice[..len_twice]);
    match (&frame, &again) {
        (VersionFrame::Request { request_id: a }, VersionFrame::Request { request_id: b }) => {
            assert_eq!(a, b);
        }
        (VersionFrame::Announce(a), VersionFrame::Announce(b)) => {
            assert_eq!(a.announced, b.announced);
            assert_eq!(a.build_date, b.build_date);
        }
        (
            VersionFrame::Response { request_id: a, announce: from },
            VersionFrame::Response { request_id: b, announce: to },
        ) => assert_eq!((a, from.announced), (b, to.announced)),
        _ => panic!("{frame:?} became {again:?}"),
    }
}

fn check_control(bytes: &[u8]) {
    let mut frame = vec![CONTROL, LANE_VERSION];
    frame.extend(KEY.group().0.to_le_bytes());
    let room = FRAME_BYTES_MAX - frame.len() - CONTROL_TAG_BYTES;
    frame.extend(&bytes[..bytes.len().min(room)]);
    let frame = sign(&KEY, frame, CONTROL_TAG_BYTES);
    check_flipped(bytes, &frame, |damaged| ControlFrame::decode(&KEY, damaged).is_err());
    let decoded = match ControlFrame::decode(&KEY, &frame) {
        Ok(decoded) => decoded,
        Err(ControlError::BadTag | ControlError::OtherGroup { .. }) => panic!("authentic"),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut buffer = [0; FRAME_BYTES_MAX];
    let len = decoded.encode(&KEY, &mut buffer).expect("what was read fits into a frame");
    let again = ControlFrame::decode(&KEY, &buffer[..len]);
    assert_eq!(again.as_ref(), Ok(&decoded));
    // What earlier versions end before: left out, or cut, it reads as a device without a guard.
    let appended = if matches!(decoded.message, Message::Facts(_)) { GUARD_BYTES } else { 0 };
    let common = (len - CONTROL_TAG_BYTES).min(frame.len() - CONTROL_TAG_BYTES);
    let whole = len - CONTROL_TAG_BYTES;
    assert!(whole - common <= appended, "later versions append, and never leave out");
    let compared = if common < whole { whole - appended } else { whole };
    let inexact = inexact(&decoded.message);
    for (at, byte) in buffer[..compared].iter().enumerate() {
        let is_exact = !inexact.iter().any(|part| part.contains(&at));
        assert!(!is_exact || *byte == frame[at], "byte {at} of {frame:02x?}");
    }
    if let Message::Report(Report { refused: Some(refused), .. }) = decoded.message {
        assert!(!refused.why.to_string().is_empty());
    }
}

/// Where a message may say the same in other bytes: a flag that is any number but zero, bits and
/// numbers of later versions, values of a refusal that has none.
fn inexact(message: &Message) -> [Range<usize>; 2] {
    match message {
        Message::Order(_, Order::Inspect(_)) => [BODY_AT + 15..BODY_AT + 16, 0..0],
        Message::Facts(_) => {
            [BODY_AT + 54..BODY_AT + 55, BODY_AT + FACTS_BYTES - 1..BODY_AT + FACTS_BYTES]
        }
        Message::Wants(_) => [BODY_AT + 4..BODY_AT + 6, 0..0],
        Message::Report(_) => [BODY_AT + 16..BODY_AT + 31, BODY_AT + 99..BODY_AT + 101],
        Message::Challenge { .. }
        | Message::ChallengeAnswer { .. }
        | Message::Order(..)
        | Message::Probe(_)
        | Message::Echo(_)
        | Message::Seek { .. }
        | Message::Here { .. } => [0..0, 0..0],
    }
}

fn check_block(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut frame = vec![BLOCK + kind % 4, LANE_VERSION];
    let room = BLOCK_BYTES_MAX + OVERHEAD_BYTES_MAX - frame.len() - BLOCK_TAG_BYTES;
    frame.extend(&bytes[..bytes.len().min(room)]);
    let frame = sign(&KEY, frame, BLOCK_TAG_BYTES);
    check_flipped(bytes, &frame, |damaged| BlockFrame::decode(&KEY, damaged).is_err());
    let decoded = match BlockFrame::decode(&KEY, &frame) {
        Ok(decoded) => decoded,
        Err(BlockError::BadTag) => panic!("authentic"),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if let BlockFrame::Ask(ask) = decoded {
        assert!(ask.turn_of(DeviceId([9; 6])).is_none_or(|turn| turn < ASKED_MAX));
    }
    let mut buffer = [0; BLOCK_BYTES_MAX + OVERHEAD_BYTES_MAX];
    let len = decoded.encode(&KEY, &mut buffer).expect("what was read fits into a frame");
    assert_eq!(BlockFrame::decode(&KEY, &buffer[..len]), Ok(decoded));
    // Flags that mean nothing, and the generation of a question to all, are not kept.
    if let BlockFrame::Block(_) | BlockFrame::Repair(_) = decoded
        && frame.get(FLAGS_AT).is_some_and(|flags| flags & !1 == 0)
    {
        assert_eq!(buffer[..len], frame);
    }
}

/// The input also says which bit flips. The type byte is looked at by others.
fn check_flipped(bytes: &[u8], frame: &[u8], is_refused: impl Fn(&[u8]) -> bool) {
    let Some(&[low, high]) = bytes.last_chunk() else { return };
    let bit = 8 + usize::from(u16::from_le_bytes([low, high])) % (frame.len() * 8 - 8);
    let mut damaged = frame.to_vec();
    damaged[bit / 8] ^= 1 << (bit % 8);
    assert!(is_refused(&damaged), "bit {bit} of {frame:02x?} does not count");
}

fn check_any(bytes: &[u8]) {
    let _ = frame_type(bytes);
    let _ = VersionFrame::decode(bytes);
    let _ = ControlFrame::decode(&KEY, bytes);
    let _ = BlockFrame::decode(&KEY, bytes);
    check_adopt(bytes);
    if let Ok(measurement) = Measurement::decode(bytes) {
        let written = measurement.encode().expect("it fits");
        assert_eq!(written[1..], bytes[1..Measurement::LEN_BYTES]);
    }
}

fn check_adopt(bytes: &[u8]) {
    let Ok(frame) = AdoptFrame::decode(bytes) else { return };
    let mut written = [0; FRAME_BYTES_MAX];
    let len = frame.encode(&mut written).expect("it fits");
    // The type byte was looked at before, and later versions append.
    assert_eq!(written[1..len], bytes[1..len]);
}

/// Of a block.
const FLAGS_AT: usize = 6;
/// Of a control frame.
const BODY_AT: usize = 27;
/// Of a device's facts, without what later versions append to them.
const FACTS_BYTES: usize = 154;
/// The end of a device's facts, which the first versions do not have.
const GUARD_BYTES: usize = 5;
const MEMORY_BYTES_MAX: usize = 64 * 1024;
