//! Frames of blocks through the air, whole and damaged.

use std::sync::LazyLock;
use std::vec;

use super::*;
use crate::frame::{FRAME_BYTES_MAX, LARGE_FRAME_BYTES_MAX};

static KEY: LazyLock<GroupKey> = LazyLock::new(|| GroupKey::new([7; 32]));
const SESSION: Session = Session(0x0102_0304);
const MEMBERS: [DeviceId; 2] =
    [DeviceId([2, 0, 0, 0, 0, 1]), DeviceId([0x24, 0xA1, 0x60, 0, 3, 9])];

fn block(payload: &[u8]) -> BlockFrame<'_> {
    BlockFrame::Block(Block { session: SESSION, shape: Shape::Small, index: 513, payload })
}

fn repair(payload: &[u8]) -> BlockFrame<'_> {
    let shape = if payload.len() > 224 { Shape::Large } else { Shape::Small };
    BlockFrame::Repair(Repair { session: SESSION, shape, generation: 4, named: 0xABCD, payload })
}

#[test]
fn each_survives_the_air_and_one_flipped_bit_it_does_not() {
    let ask = BlockFrame::Ask(Ask::new(SESSION, Some(3), 2, &MEMBERS));
    for frame in [block(&[0xA5; 224]), block(&[1]), repair(&[0x5A; 224]), ask] {
        let mut buffer = [0; FRAME_BYTES_MAX];
        let len = frame.encode(&KEY, &mut buffer).unwrap();
        assert_eq!(BlockFrame::decode(&KEY, &buffer[..len]), Ok(frame));
        assert_eq!(Session::named(&buffer), Some(SESSION));
        for bit in 0..len * 8 {
            let mut damaged = buffer;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockFrame::decode(&KEY, &damaged[..len]).is_err(), "{frame:?}, bit {bit}");
        }
        for cut in 0..len {
            assert!(BlockFrame::decode(&KEY, &buffer[..cut]).is_err(), "{frame:?} cut at {cut}");
        }
    }
}

#[test]
fn large_blocks_have_frames_of_their_own() {
    let mut buffer = vec![0; 1024 + OVERHEAD_BYTES_MAX];
    let bytes = [0x33; 1024];
    let large = Block { session: SESSION, shape: Shape::Large, index: 1, payload: &bytes };
    let BlockFrame::Repair(repair) = repair(&bytes) else { panic!() };
    let mixed = Repair { named: 0x0FFF_0001, ..repair };
    for frame in [BlockFrame::Block(large), BlockFrame::Repair(mixed)] {
        let len = frame.encode(&KEY, &mut buffer).unwrap();
        assert!(len <= LARGE_FRAME_BYTES_MAX);
        assert_eq!(BlockFrame::decode(&KEY, &buffer[..len]), Ok(frame));
    }
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let mut buffer = [0; 512];
    let refused = |found_bytes| Err(BlockError::PayloadSize { found_bytes, block_bytes: 224 });
    assert_eq!(block(&[]).encode(&KEY, &mut buffer), refused(0));
    assert_eq!(block(&[0; 225]).encode(&KEY, &mut buffer), refused(225));
    assert_eq!(repair(&[0; 223]).encode(&KEY, &mut buffer), refused(223));
    let BlockFrame::Repair(small) = repair(&[0; 224]) else { panic!() };
    let far = BlockFrame::Repair(Repair { named: 0x1_0000, ..small });
    assert_eq!(far.encode(&KEY, &mut buffer), Err(BlockError::Seed { found: 0x1_0000 }));
    let many = vec![DeviceId::BROADCAST; ASKED_MAX + 1];
    let ask = BlockFrame::Ask(Ask::new(SESSION, None, 2, &many));
    assert_eq!(ask.encode(&KEY, &mut buffer), Err(BlockError::Asked { found_bytes: 202 }));
    let full = BlockFrame::Ask(Ask::new(SESSION, None, 2, &many[1..]));
    assert!(full.encode(&KEY, &mut buffer).unwrap() <= FRAME_BYTES_MAX);
}

#[test]
fn members_answer_in_the_order_of_the_question() {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let asked = Ask::new(SESSION, None, 2, &MEMBERS);
    let len = BlockFrame::Ask(asked).encode(&KEY, &mut buffer).unwrap();
    let Ok(BlockFrame::Ask(read)) = BlockFrame::decode(&KEY, &buffer[..len]) else { panic!() };
    for ask in [asked, read] {
        assert_eq!(ask.turn_of(MEMBERS[0]), Some(0));
        assert_eq!(ask.turn_of(MEMBERS[1]), Some(1));
        assert_eq!(ask.turn_of(DeviceId([2, 0, 0, 0, 0, 7])), None);
    }
}
