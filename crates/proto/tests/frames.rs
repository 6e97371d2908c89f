//! The bytes of every frame, as devices in the field already read them.
//!
//! A changed line in a golden file is a broken protocol; a new line is a new frame. After adding
//! one, run `UPDATE_GOLDEN=1 cargo test -p lockstep-proto --test frames` and review the diff.

use std::fmt::Write;
use std::sync::LazyLock;

use lockstep_proto::compat::Announced;
use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::frame::adopt::{
    ADOPT, AdoptError, AdoptFrame, AdoptMessage, ELEMENT_BYTES, NotAdopted, PROOF_BYTES,
};
use lockstep_proto::frame::block::{Ask, Block, BlockFrame, Repair, Session};
use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::control::{ControlError, ControlFrame, Counter, GroupKey, Message};
use lockstep_proto::frame::order::{Detail, Offer, Order, Serve, Source, Stage, Terms, Ticket};
use lockstep_proto::frame::report::{
    Echo, Facts, Lacking, MemberState, Observed, Probe, Readiness, Refusal, Refused, Report,
    Rollback, View, Wants,
};
use lockstep_proto::frame::version::{Announce, VersionFrame, VersionFrameError};
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::image::{ChipId, Guard};
use lockstep_proto::otadata::OtaState;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::Label;
use proptest::prelude::*;

static KEY: LazyLock<GroupKey> = LazyLock::new(|| GroupKey::new([0x5A; 32]));
const LEAD: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
const MEMBER: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);

fn ticket() -> Ticket {
    Ticket {
        rollout: RolloutId(0x0123_4567_89ab_cdef),
        generation: Generation { term: 2, counter: 77 },
        attempt: 3,
    }
}

fn facts() -> Facts {
    Facts {
        role: Label::new("transmitter").unwrap(),
        chip: ChipId(0),
        board: Label::new("esp32-poe-iso").unwrap(),
        slot_size_bytes: 0x1E_0000,
        rollback: Rollback::Bootloader,
        announced: Announced {
            number: 10_203,
            min_compatible: 10_000,
            protocol: ProtocolRange::new(1, 2).unwrap(),
        },
        epoch_floor: 4,
        config_schema: 5,
        free_heap_bytes: 150_000,
        link_loss_percent: 6,
        flash_mode: [2, 0x2F],
        keys: 1,
        generation: Generation { term: 2, counter: 76 },
        running: ImageHash([0x11; 32]),
        other: ImageHash([0x22; 32]),
        guard: Guard { secure_version: 3, is_signed: true },
    }
}

fn report() -> Report {
    Report {
        ticket: ticket(),
        state: MemberState::Activating,
        refused: Some(Refused {
            rollout: 0x89ab_cdef,
            order: 0x11,
            why: Refusal::TooLarge { size_bytes: 2_000_000, slot_bytes: 1_966_080 },
        }),
        running: ImageHash([0x11; 32]),
        other: ImageHash([0x22; 32]),
        ota_state: OtaState::PendingVerify,
        observed: Observed { on_trial: true, healthy: true, ..Observed::default() },
        staged_bytes: 65_536,
        linked: 1,
        view: View([8; 8]),
        trial_left_s: 29,
        reset_reason: 3,
    }
}

fn messages() -> Vec<Message> {
    let (image, running) = (ImageHash([0xAA; 32]), ImageHash([0xBB; 32]));
    let terms = Terms { lease_ms: 30_000, trial_limit_ms: 60_000, rest_lease_ms: 20_000 };
    let stage = Stage {
        image,
        size_bytes: 1_892_352,
        package: Sha256([0xCC; 32]),
        package_size_bytes: 1_500,
        source: Source::Blocks,
        terms,
        sender: None,
    };
    let back = Stage { source: Source::OtherSlot, ..stage };
    let from_member = Stage { sender: Some(MEMBER), ..stage };
    let serve = Serve { image: stage.image, size_bytes: stage.size_bytes, receivers: 3 };
    let offer = Offer { image, base: Some(running), patch: Sha256([0xDD; 32]), size_bytes: 79_000 };
    let orders = [
        Order::Inspect(Detail::Report),
        Order::Inspect(Detail::Facts),
        Order::Stage(stage),
        Order::Stage(back),
        Order::Rest,
        Order::Arm { image, running },
        Order::Fire { in_ms: 400 },
        Order::Activate { image, running },
        Order::Confirm { image },
        Order::Revert,
        Order::Settled,
        Order::Stage(from_member),
        Order::Serve(serve),
        Order::Offer(offer),
        Order::Offer(Offer { base: None, ..offer }),
    ];
    let role = Label::new("receiver").unwrap();
    let mut messages: Vec<_> =
        orders.into_iter().map(|order| Message::Order(ticket(), order)).collect();
    messages.extend([
        Message::Challenge { nonce: 0x1122_3344_5566_7788 },
        Message::ChallengeAnswer { nonce: 0x1122_3344_5566_7788 },
        Message::Facts(facts()),
        Message::Report(report()),
        Message::Wants(Wants {
            session: Session(9),
            readiness: Readiness::Open,
            shape: Shape::Small,
            takes_large: true,
            interval_ms: 400,
            staged_bytes: 90_000,
            erased_bytes: 65_536,
            first: 300,
            lacking: Lacking::of([128, 0, 7]),
        }),
        Message::Wants(Wants {
            session: Session(9),
            readiness: Readiness::Open,
            shape: Shape::Large,
            takes_large: true,
            interval_ms: 0,
            staged_bytes: 90_000,
            erased_bytes: 0,
            first: 3,
            lacking: Lacking::of_large([0x0FFF_FFFF, 0, 0x0800_0001, 0x0000_0100]),
        }),
        Message::Probe(Probe { nonce: 1, role, running }),
        Message::Echo(Echo { nonce: 1, role, running }),
        Message::Seek { nonce: 0x1122_3344_5566_7788 },
        Message::Here { nonce: 0x1122_3344_5566_7788 },
    ]);
    messages
}

fn golden(name: &str, actual: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{path} differs; frozen bytes:\n{expected}\nnow:\n{actual}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn encoded(message: Message) -> Vec<u8> {
    let counter = Counter { boot: 7, frame: 1_000 };
    let frame = ControlFrame { from: LEAD, to: MEMBER, counter, message };
    let mut buffer = [0; FRAME_BYTES_MAX];
    let len = frame.encode(&KEY, &mut buffer).unwrap();
    assert_eq!(ControlFrame::decode(&KEY, &buffer[..len]), Ok(frame));
    buffer[..len].to_vec()
}

#[test]
fn the_bytes_of_every_control_frame_are_frozen() {
    let mut text = String::new();
    for message in messages() {
        let shown = format!("{message:?}");
        let name = shown.split_inclusive(['(', '{', ' ']).take(3).collect::<String>();
        writeln!(text, "{}  {}", hex(&encoded(message)), name.trim()).unwrap();
    }
    golden("control-frames.txt", &text);
}

#[test]
fn the_bytes_of_blocks_and_what_belongs_to_them_are_frozen() {
    let session = Session(0x0403_0201);
    let shape = Shape::Small;
    let (short, whole) = ([0xA5; 20], [0x5A; 224]);
    let block = Block { session, shape, index: 300, payload: &short };
    let repair = Repair { session, shape, generation: 4, named: 0x0605, payload: &whole };
    let mut text = String::new();
    for frame in [
        BlockFrame::Block(block),
        BlockFrame::Block(Block { shape: Shape::Large, ..block }),
        BlockFrame::Repair(repair),
        BlockFrame::Ask(Ask::new(session, None, 2, &[LEAD, MEMBER])),
        BlockFrame::Ask(Ask::new(session, Some(4), 2, &[])),
    ] {
        let mut buffer = [0; FRAME_BYTES_MAX];
        let len = frame.encode(&KEY, &mut buffer).unwrap();
        assert_eq!(BlockFrame::decode(&KEY, &buffer[..len]), Ok(frame));
        writeln!(text, "{}", hex(&buffer[..len])).unwrap();
    }
    golden("block-frames.txt", &text);
}

#[test]
fn the_bytes_of_adoption_are_frozen() {
    let element = [0xE1; ELEMENT_BYTES];
    let mut text = String::new();
    for message in [
        AdoptMessage::Ask,
        AdoptMessage::Terms { salt: [0x5A; 16], rounds: 2_000, element },
        AdoptMessage::Key { element, sealed: [0x5E; 32], proof: [0xF0; PROOF_BYTES] },
        AdoptMessage::Taken { proof: [0xF0; PROOF_BYTES] },
        AdoptMessage::Refused(NotAdopted::WrongPassword),
    ] {
        let frame = AdoptFrame { from: LEAD, to: MEMBER, session: 0x0807_0605_0403_0201, message };
        let mut buffer = [0; FRAME_BYTES_MAX];
        let len = frame.encode(&mut buffer).unwrap();
        assert_eq!(AdoptFrame::decode(&buffer[..len]).as_ref(), Ok(&frame));
        // What a later version appends is passed over, what is cut is refused.
        assert_eq!(AdoptFrame::decode(&buffer[..=len]), Ok(frame));
        let cut = AdoptFrame::decode(&buffer[..len - 1]);
        assert!(matches!(cut, Err(AdoptError::TooShort(_))), "{cut:?}");
        writeln!(text, "{}", hex(&buffer[..len])).unwrap();
    }
    golden("adoption-frames.txt", &text);
    let later = AdoptFrame::decode(&[ADOPT, 2, 0, 0]);
    assert_eq!(later, Err(AdoptError::LaneVersion { found: 2 }));
}

/// A report must stay readable for a lead that is older than its member.
#[test]
fn a_refusal_for_a_reason_of_a_later_version_is_still_a_refusal() {
    let why = Refusal::Unlisted { number: 999 };
    let refused = Some(Refused { rollout: 7, order: 0x15, why });
    let sent = Message::Report(Report { refused, ..report() });
    encoded(sent);
}

#[test]
fn the_numbers_and_texts_of_refusals_are_frozen() {
    let mut text = String::new();
    for code in 1..=u16::MAX {
        let Some(refusal) = Refusal::from_wire(code, 9, 5) else { continue };
        let (number, a, b) = refusal.to_wire();
        assert_eq!(number, code);
        assert_eq!(Refusal::from_wire(code, a, b), Some(refusal));
        writeln!(text, "{code} {refusal}").unwrap();
    }
    golden("refusals.txt", &text);
}

#[test]
fn fields_that_a_later_version_appends_are_skipped() {
    for message in messages() {
        let frame = encoded(message.clone());
        let mut longer = frame[..frame.len() - 8].to_vec();
        longer.extend([1, 2, 3]);
        longer.extend(tag(&longer));
        assert_eq!(ControlFrame::decode(&KEY, &longer).map(|frame| frame.message), Ok(message));
    }
}

/// Older firmware says nothing of what guards its image.
#[test]
fn facts_that_end_where_they_once_did_are_understood() {
    let frame = encoded(Message::Facts(facts()));
    // Cut within what was appended, half of it is none: never a mixture of both.
    for cut_bytes in 1..=5 {
        let mut shorter = frame[..frame.len() - 8 - cut_bytes].to_vec();
        shorter.extend(tag(&shorter));
        let read = ControlFrame::decode(&KEY, &shorter).map(|frame| frame.message);
        let expected = Message::Facts(Facts { guard: Guard::default(), ..facts() });
        assert_eq!(read, Ok(expected), "{cut_bytes}");
    }
}

fn tag(bytes: &[u8]) -> [u8; 8] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(KEY.bytes()).unwrap();
    mac.update(bytes);
    *mac.finalize().into_bytes().first_chunk().unwrap()
}

#[test]
fn a_frame_with_any_bit_flipped_or_of_another_group_is_not_obeyed() {
    let frame = encoded(Message::Order(ticket(), Order::Revert));
    for bit in 8..frame.len() * 8 {
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(ControlFrame::decode(&KEY, &damaged).is_err(), "bit {bit}");
    }
    let stranger = GroupKey::new([1; 32]);
    let found = KEY.group();
    assert_eq!(ControlFrame::decode(&stranger, &frame), Err(ControlError::OtherGroup { found }));
}

fn announce() -> Announce {
    Announce {
        announced: Announced {
            number: 10_203,
            min_compatible: 10_000,
            protocol: ProtocolRange::new(1, 3).unwrap(),
        },
        device_type: Label::new("TRANSMITTER").unwrap(),
        build_date: Label::new("Feb  3 2026").unwrap(),
        build_time: Label::new("14:30:22").unwrap(),
        uptime_s: Some(61),
        image: Some([1, 2, 3, 4, 5, 6, 7, 8]),
    }
}

fn version_bytes(frame: VersionFrame) -> Vec<u8> {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let len = frame.encode(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn the_bytes_of_our_version_frames_are_frozen() {
    let mut text = String::new();
    for frame in [
        VersionFrame::Announce(announce()),
        VersionFrame::Request { request_id: 0xAABB_CCDD },
        VersionFrame::Response { request_id: 0xAABB_CCDD, announce: announce() },
    ] {
        let bytes = version_bytes(frame);
        assert_eq!(VersionFrame::decode(&bytes), Ok(frame));
        writeln!(text, "{}", hex(&bytes)).unwrap();
    }
    golden("version-frames.txt", &text);
}

/// L1: a peer's version must be readable whatever it runs.
#[test]
fn every_fielded_announce_is_understood_and_one_without_a_range_has_its_one_protocol() {
    let ours = version_bytes(VersionFrame::Announce(announce()));
    for (len, uptime_s) in [(47, None), (51, Some(61))] {
        let VersionFrame::Announce(read) = VersionFrame::decode(&ours[..len]).unwrap() else {
            panic!("not an announce")
        };
        assert_eq!(read.announced.protocol, ProtocolRange::single(3), "{len} bytes");
        assert_eq!((read.uptime_s, read.device_type.as_str()), (uptime_s, "TRANSMITTER"));
    }
}

#[test]
fn responses_with_and_without_uptime_are_understood() {
    let ours = version_bytes(VersionFrame::Response { request_id: 5, announce: announce() });
    for len in [51, 55] {
        let read = VersionFrame::decode(&ours[..len]).unwrap();
        assert!(matches!(read, VersionFrame::Response { request_id: 5, .. }), "{read:?}");
    }
}

#[test]
fn the_summary_documents_announce_is_understood() {
    let mut frame = [0; 68];
    frame[0] = 17;
    frame[4..8].copy_from_slice(&20_100_u32.to_le_bytes());
    frame[8..10].copy_from_slice(&2_u16.to_le_bytes());
    frame[10..18].copy_from_slice(b"RECEIVER");
    let VersionFrame::Announce(read) = VersionFrame::decode(&frame).unwrap() else {
        panic!("not an announce")
    };
    assert_eq!((read.announced.number, read.announced.min_compatible), (20_100, 0));
    assert_eq!(read.device_type.as_str(), "RECEIVER");
}

#[test]
fn a_length_that_nobody_sends_is_refused_with_type_and_length() {
    let error = VersionFrameError::Shape { kind: 0x10, len_bytes: 48 };
    assert_eq!(VersionFrame::decode(&[0x10; 48]), Err(error));
    assert_eq!(error.to_string(), "no version frame has type 0x10 and 48 bytes");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..260)) {
        let _ = VersionFrame::decode(&bytes);
        let _ = ControlFrame::decode(&KEY, &bytes);
        let _ = BlockFrame::decode(&KEY, &bytes);
        let _ = AdoptFrame::decode(&bytes);
        let _ = lockstep_proto::frame::data::Measurement::decode(&bytes);
    }

    /// Even authenticated bodies are not trusted to be well formed.
    #[test]
    fn no_authenticated_body_panics(
        kind in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut frame = encoded(Message::Order(ticket(), Order::Revert))[..26].to_vec();
        frame.push(kind);
        frame.extend(body);
        frame.extend(tag(&frame));
        let _ = ControlFrame::decode(&KEY, &frame);
    }
}
