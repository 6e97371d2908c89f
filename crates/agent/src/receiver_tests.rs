//! Windows, blocks in any order, and pieces of any size.

use std::vec::Vec;

use lockstep_proto::frame::block::Then;
use lockstep_sim::flash::MemFlash;
use proptest::prelude::*;

use super::*;

const START: u32 = 0x1_0000;
const SHA: Sha256 = Sha256([0xA7; 32]);

fn file(length: u32) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

fn receiver(object: Object, size_bytes: u32) -> Receiver {
    let mut receiver = Receiver::new();
    receiver.start(object, SHA, Region { offset: START, size_bytes }, 0);
    receiver
}

fn block(bytes: &[u8], index: u16) -> Block<'_> {
    let start = usize::from(index) * BLOCK_BYTES;
    let end = bytes.len().min(start + BLOCK_BYTES);
    let session = Session::of(&SHA.0);
    Block { session, index, then: Then::Continue, payload: &bytes[start..end] }
}

fn flush(receiver: &mut Receiver, flash: &mut MemFlash) {
    while receiver.is_flushing() {
        receiver.flush_step(flash, Pace::Fast).unwrap();
    }
}

fn wants(receiver: &Receiver) -> Wants {
    receiver.job().unwrap().wants()
}

#[test]
fn the_first_window_of_an_image_holds_its_head_and_touches_no_flash() {
    let bytes = file(20_000);
    let mut receiver = receiver(Object::Artifact, 20_000);
    assert_eq!(wants(&receiver).window, HEAD_BLOCKS);
    assert_eq!(receiver.take_block(&block(&bytes, 3)), Taken::Ignored, "outside the window");
    assert_eq!(receiver.take_block(&block(&bytes, 2)), Taken::Stored);
    assert_eq!(receiver.take_block(&block(&bytes, 2)), Taken::Ignored, "a duplicate");
    assert_eq!(wants(&receiver).have, 0b100);
    assert_eq!(receiver.take_block(&block(&bytes, 0)), Taken::Stored);
    assert_eq!(receiver.take_block(&block(&bytes, 1)), Taken::Head);
    assert_eq!(receiver.head(), &bytes[..672]);
    assert_eq!((wants(&receiver).window, receiver.is_flushing()), (0, false));
    assert_eq!(receiver.accept_head(), Taken::Stored);
    let Wants { index, have, window, .. } = wants(&receiver);
    assert_eq!((index, have, window), (0, 0b111, WINDOW_BLOCKS_MAX));
}

#[test]
fn a_block_of_another_session_or_a_wrong_length_is_ignored() {
    let bytes = file(500);
    let mut receiver = receiver(Object::Package, 500);
    let other = Block { session: Session(1), ..block(&bytes, 0) };
    assert_eq!(receiver.take_block(&other), Taken::Ignored);
    let short = Block { payload: &bytes[..100], ..block(&bytes, 0) };
    assert_eq!(receiver.take_block(&short), Taken::Ignored);
    let long = Block { payload: &bytes[..224], ..block(&bytes, 2) };
    assert_eq!(receiver.take_block(&long), Taken::Ignored, "the last block has 52 bytes");
    assert_eq!(receiver.take_block(&block(&bytes, 2)), Taken::Stored);
}

#[test]
fn blocks_are_not_taken_while_the_flash_is_busy() {
    let bytes = file(20_000);
    let mut receiver = receiver(Object::Package, 20_000);
    (0..32).for_each(|index| {
        receiver.take_block(&block(&bytes, index));
    });
    assert!(receiver.is_flushing());
    assert_eq!((wants(&receiver).index, wants(&receiver).window), (0, 0));
    assert_eq!(receiver.take_block(&block(&bytes, 32)), Taken::Ignored);
    let mut flash = MemFlash::new(0x4_0000);
    flush(&mut receiver, &mut flash);
    assert_eq!((wants(&receiver).index, wants(&receiver).window), (32, 32));
}

#[test]
fn a_spool_takes_no_blocks_from_the_air() {
    let bytes = file(500);
    let mut receiver = receiver(Object::Spool, 500);
    assert_eq!(receiver.take_block(&block(&bytes, 0)), Taken::Ignored);
}

proptest! {
    /// Any order, any duplicates: what comes out is the file.
    #[test]
    fn blocks_in_any_order_make_the_file(
        length in 1..30_000_u32, seed in prop::collection::vec(any::<prop::sample::Index>(), 200)
    ) {
        let bytes = file(length);
        let blocks = u16::try_from(length.div_ceil(BLOCK)).unwrap();
        let mut receiver = receiver(Object::Artifact, length);
        let mut flash = MemFlash::new(0x4_0000);
        let mut random = seed.iter().cycle();
        for round in 0.. {
            prop_assert!(round < 100_000, "it must come to an end");
            if receiver.job().unwrap().is_complete() {
                break;
            }
            let Wants { index, window, have, .. } = wants(&receiver);
            // Mostly wanted blocks, now and then any.
            let wanted = random.next().unwrap().index(usize::from(window.max(1)));
            let chosen = if round % 3 == 0 {
                u16::try_from(random.next().unwrap().index(usize::from(blocks))).unwrap()
            } else {
                let first = have.trailing_ones();
                let offset = if round % 2 == 0 { u32::try_from(wanted).unwrap() } else { first };
                (index + u16::try_from(offset).unwrap()).min(blocks - 1)
            };
            if receiver.take_block(&block(&bytes, chosen)) == Taken::Head {
                receiver.accept_head();
            }
            flush(&mut receiver, &mut flash);
        }
        let at = START as usize;
        prop_assert!(flash.bytes[at..at + bytes.len()] == bytes[..]);
    }

    #[test]
    fn pieces_of_any_size_make_the_file(
        length in 1..30_000_u32, sizes in prop::collection::vec(1..5000_usize, 1..50)
    ) {
        let bytes = file(length);
        let mut receiver = receiver(Object::Artifact, length);
        let mut flash = MemFlash::new(0x4_0000);
        for &size in sizes.iter().cycle() {
            let job = receiver.job().unwrap();
            if job.is_complete() {
                break;
            }
            let at = job.accepted_bytes() as usize;
            let end = bytes.len().min(at + size);
            let elsewhere = receiver.take_bytes(bytes_u32(at) + 1, &bytes[at..end]);
            prop_assert_eq!(elsewhere, Taken::Ignored);
            if receiver.take_bytes(bytes_u32(at), &bytes[at..end]) == Taken::Head {
                receiver.accept_head();
            }
            flush(&mut receiver, &mut flash);
        }
        let at = START as usize;
        prop_assert!(flash.bytes[at..at + bytes.len()] == bytes[..]);
    }
}
