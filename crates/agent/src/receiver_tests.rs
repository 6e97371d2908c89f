//! Blocks in any order, repair frames, and pieces of any size.

use std::format;
use std::vec;
use std::vec::Vec;

use lockstep_proto::frame::coding::{Cut, GENERATIONS_OPEN};
use lockstep_proto::frame::report::Readiness;
use lockstep_sim::flash::MemFlash;
use proptest::prelude::*;

use super::*;
use crate::flash::bytes_u32;

const START: u32 = 0x1_0000;
const SHA: Sha256 = Sha256([0xA7; 32]);
const BLOCK: u32 = Shape::Small.block_bytes();
const GENERATION: u32 = Shape::Small.generation_bytes();

fn session() -> Session {
    Session::of(&SHA.0)
}

fn file(length: u32) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index ^ index >> 8) % 251).unwrap()).collect()
}

fn receiver(object: Object, size_bytes: u32) -> Receiver {
    receiver_of(object, size_bytes, false)
}

fn receiver_of(object: Object, size_bytes: u32, takes_large: bool) -> Receiver {
    let mut receiver = Receiver::new(takes_large);
    receiver.start(object, SHA, Region { offset: START, size_bytes }, 0);
    receiver
}

fn block(bytes: &[u8], index: u16) -> Block<'_> {
    let start = usize::from(index) * BLOCK as usize;
    let end = bytes.len().min(start + BLOCK as usize);
    Block { session: session(), shape: Shape::Small, index, payload: &bytes[start..end] }
}

/// The payload of the repair frame with this seed.
fn mixed(bytes: &[u8], generation: u16, seed: u32) -> Vec<u8> {
    let cut = Cut { shape: Shape::Small, size_bytes: bytes_u32(bytes.len()) };
    sum_of(bytes, cut, generation, seed)
}

/// The payload of a repair frame.
fn sum_of(bytes: &[u8], cut: Cut, generation: u16, named: u32) -> Vec<u8> {
    let mix = cut.mix(session(), generation, named);
    let mut sum = vec![0; cut.shape.block_bytes() as usize];
    let base = u32::from(generation) * u32::from(cut.shape.generation_blocks());
    for place in (0..128).filter(|place| mix >> place & 1 == 1) {
        let (at, len) = cut.block(base + place).unwrap();
        let payload = &bytes[at as usize..(at + len) as usize];
        sum.iter_mut().zip(payload).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

/// Numbers below a limit, as random as tests need them.
fn draws(mut random: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % below
    }
}

fn repair(payload: &[u8], generation: u16, seed: u32) -> Repair<'_> {
    Repair { session: session(), shape: Shape::Small, generation, named: seed, payload }
}

fn flush(receiver: &mut Receiver, flash: &mut MemFlash) {
    while receiver.is_flushing() {
        receiver.flush_step(flash, Pace::Fast).unwrap();
    }
}

fn wants(receiver: &Receiver) -> Wants {
    receiver.job().unwrap().wants(Pace::Fast).unwrap()
}

const fn dropped(why: Dropped) -> Taken {
    Taken::Dropped(why)
}

/// A package, erased and ready for its blocks.
fn open(length: u32) -> (Vec<u8>, Receiver, MemFlash) {
    let (mut receiver, mut flash) = (receiver(Object::Package, length), MemFlash::new(0x20_0000));
    assert_eq!(wants(&receiver).readiness, Readiness::Busy);
    flush(&mut receiver, &mut flash);
    assert_eq!(wants(&receiver).readiness, Readiness::Open);
    (file(length), receiver, flash)
}

fn in_flash(flash: &MemFlash, bytes: &[u8]) -> bool {
    flash.bytes[START as usize..START as usize + bytes.len()] == *bytes
}

#[test]
fn the_head_of_an_image_is_held_in_memory_and_touches_no_flash() {
    let bytes = file(20_000);
    let mut receiver = receiver(Object::Artifact, 20_000);
    assert_eq!(wants(&receiver).readiness, Readiness::Head);
    assert_eq!(receiver.take_block(&block(&bytes, 3)), dropped(Dropped::OutOfRange));
    assert_eq!(receiver.take_block(&block(&bytes, 2)), Taken::Stored);
    assert_eq!(receiver.take_block(&block(&bytes, 2)), dropped(Dropped::Known));
    assert_eq!(receiver.take_block(&block(&bytes, 0)), Taken::Stored);
    assert_eq!(receiver.take_block(&block(&bytes, 1)), Taken::Head);
    assert_eq!(receiver.head(), &bytes[..672]);
    assert_eq!((wants(&receiver).readiness, receiver.is_flushing()), (Readiness::Busy, false));
    assert_eq!(receiver.accept_head(), Taken::Window);
    assert!(receiver.is_erasing());
    let mut flash = MemFlash::new(0x10_0000);
    flush(&mut receiver, &mut flash);
    assert!(in_flash(&flash, &bytes[..672]), "the head need not come again");
    let Wants { readiness, first, lacking, .. } = wants(&receiver);
    assert_eq!((readiness, first, lacking.counts()), (Readiness::Open, 0, &[90 - 3][..]));
}

#[test]
fn what_does_not_belong_to_the_file_is_dropped_for_a_reason() {
    let (bytes, mut receiver, mut flash) = open(500);
    let other = Block { session: Session(1), ..block(&bytes, 0) };
    assert_eq!(receiver.take_block(&other), dropped(Dropped::Unwanted));
    let large = Block { shape: Shape::Large, ..block(&bytes, 0) };
    assert_eq!(receiver.take_block(&large), dropped(Dropped::Unwanted));
    let short = Block { payload: &bytes[..100], ..block(&bytes, 0) };
    assert_eq!(receiver.take_block(&short), dropped(Dropped::Length));
    let long = Block { payload: &bytes[..224], ..block(&bytes, 2) };
    assert_eq!(receiver.take_block(&long), dropped(Dropped::Length), "the last has 52 bytes");
    let behind = Block { index: 3, ..block(&bytes, 0) };
    assert_eq!(receiver.take_block(&behind), dropped(Dropped::OutOfRange));
    let mut mend = |frame: Repair<'_>| receiver.take_repair(&frame, &mut flash).unwrap();
    let payload = mixed(&bytes, 0, 0);
    let other = Repair { session: Session(1), ..repair(&payload, 0, 0) };
    assert_eq!(mend(other), dropped(Dropped::Unwanted));
    assert_eq!(mend(repair(&payload, 1, 0)), dropped(Dropped::OutOfRange));
    assert_eq!(mend(repair(&payload[1..], 0, 0)), dropped(Dropped::Length));
    assert_eq!(mend(repair(&payload, 0, 0)), Taken::Stored);
    assert_eq!(mend(repair(&payload, 0, 0)), dropped(Dropped::Known), "a second time");
}

#[test]
fn nothing_is_taken_while_the_place_is_erased() {
    let bytes = file(500);
    let mut receiver = receiver(Object::Package, 500);
    assert_eq!(receiver.take_block(&block(&bytes, 0)), dropped(Dropped::Busy));
    let mut flash = MemFlash::new(0x10_0000);
    let frame = mixed(&bytes, 0, 0);
    let taken = receiver.take_repair(&repair(&frame, 0, 0), &mut flash).unwrap();
    assert_eq!(taken, dropped(Dropped::Unwanted));
}

#[test]
fn blocks_too_far_ahead_are_not_taken() {
    let length = (u32::from(GENERATIONS_OPEN) + 2) * GENERATION;
    let (bytes, mut receiver, mut flash) = open(length);
    let far = GENERATIONS_OPEN * 128;
    assert_eq!(receiver.take_block(&block(&bytes, far)), dropped(Dropped::OutOfRange));
    assert_eq!(receiver.take_block(&block(&bytes, far - 1)), Taken::Window);
    for index in 0..128 {
        receiver.take_block(&block(&bytes, index));
        flush(&mut receiver, &mut flash);
    }
    assert_eq!(wants(&receiver).first, 1);
    assert_eq!(receiver.take_block(&block(&bytes, far)), Taken::Window);
    let lacking = wants(&receiver).lacking;
    assert_eq!(lacking.counts()[48..], [127, 127], "of generations 49 and 50");
}

/// The flash lags behind: what waits for it is bounded, and what is refused is asked for again.
#[test]
fn blocks_wait_for_the_flash_as_long_as_there_is_room() {
    let (bytes, mut receiver, mut flash) = open(100 * BLOCK);
    let taken: Vec<_> = (0..100).map(|index| receiver.take_block(&block(&bytes, index))).collect();
    assert!(taken[..58].iter().all(|taken| *taken == Taken::Window));
    assert!(taken[58..].iter().all(|taken| *taken == dropped(Dropped::Busy)));
    assert_eq!(wants(&receiver).lacking.counts(), [42]);
    flush(&mut receiver, &mut flash);
    assert!(in_flash(&flash, &bytes[..58 * 224]));
    assert_eq!(receiver.job().unwrap().flashed_bytes(), 58 * BLOCK);
    assert_eq!(receiver.job().unwrap().in_order_bytes(), 0, "no generation is whole");
}

#[test]
fn repair_frames_bring_whatever_is_lacking() {
    let (bytes, mut receiver, mut flash) = open(GENERATION + 1_000);
    for index in (0..133).filter(|index| index % 3 != 0 && *index != 131) {
        receiver.take_block(&block(&bytes, index));
        flush(&mut receiver, &mut flash);
    }
    assert_eq!(wants(&receiver).lacking.counts(), [43, 3]);
    for generation in 0..2 {
        let mut seed = 0;
        while wants(&receiver).first == generation && !receiver.job().unwrap().is_complete() {
            assert!(seed < 60, "{:?}", wants(&receiver));
            let payload = mixed(&bytes, generation, seed);
            receiver.take_repair(&repair(&payload, generation, seed), &mut flash).unwrap();
            seed += 1;
            flush(&mut receiver, &mut flash);
        }
    }
    assert!(receiver.job().unwrap().is_complete());
    assert!(in_flash(&flash, &bytes));
}

/// Blocks that wait for the flash count as known when a repair frame comes.
#[test]
fn a_repair_frame_counts_on_what_is_only_in_memory_yet() {
    let (bytes, mut receiver, mut flash) = open(20 * BLOCK);
    for index in 1..20 {
        receiver.take_block(&block(&bytes, index));
    }
    let payload = mixed(&bytes, 0, 0);
    let taken = receiver.take_repair(&repair(&payload, 0, 0), &mut flash).unwrap();
    assert_eq!(taken, Taken::Window);
    flush(&mut receiver, &mut flash);
    assert!(in_flash(&flash, &bytes));
}

#[test]
fn a_frame_that_was_overtaken_does_not_undo_what_came_since() {
    let (bytes, mut receiver, mut flash) = open(2 * GENERATION);
    for index in (0..256).filter(|index| index % 128 >= 20) {
        receiver.take_block(&block(&bytes, index));
        flush(&mut receiver, &mut flash);
    }
    let (first, second) = (mixed(&bytes, 0, 1), mixed(&bytes, 1, 1));
    let mut mend = |receiver: &mut Receiver, frame| receiver.take_repair(&frame, &mut flash);
    assert_eq!(mend(&mut receiver, repair(&second, 1, 1)), Ok(Taken::Stored));
    assert_eq!(mend(&mut receiver, repair(&first, 0, 1)), Ok(dropped(Dropped::Known)));
    assert_eq!(wants(&receiver).lacking.counts(), [20, 19]);
    // A new round begins with the first generation again.
    receiver.note_round_over();
    assert_eq!(wants(&receiver).lacking.counts(), [20, 19], "as was said");
    assert_eq!(mend(&mut receiver, repair(&first, 0, 1)), Ok(Taken::Stored));
    assert_eq!(wants(&receiver).lacking.counts(), [19, 20]);
}

/// So many frames could not be held until they are enough: asking for them would never end.
#[test]
fn of_whoever_lacks_too_much_no_repair_frame_is_kept() {
    let (bytes, mut receiver, mut flash) = open(GENERATION);
    for index in 0..128 - 57 {
        receiver.take_block(&block(&bytes, index));
        flush(&mut receiver, &mut flash);
    }
    let payload = mixed(&bytes, 0, 1);
    let mut mend = |receiver: &mut Receiver| {
        receiver.take_repair(&repair(&payload, 0, 1), &mut flash).unwrap()
    };
    assert_eq!(mend(&mut receiver), dropped(Dropped::Busy));
    assert_eq!(wants(&receiver).lacking.counts(), [57]);
    receiver.take_block(&block(&bytes, 127));
    assert_eq!(mend(&mut receiver), Taken::Stored);
    assert_eq!(wants(&receiver).lacking.counts(), [55]);
}

#[test]
fn a_spool_takes_no_blocks_from_the_air() {
    let bytes = file(500);
    let mut receiver = receiver(Object::Spool, 500);
    assert_eq!(receiver.take_block(&block(&bytes, 0)), dropped(Dropped::Unwanted));
}

/// A lead's own image comes from its upload, whatever the radio says.
#[test]
fn a_file_comes_one_way_or_the_other() {
    let bytes = file(5_000);
    let mut by_air = receiver(Object::Artifact, 5_000);
    assert_eq!(by_air.take_block(&block(&bytes, 1)), Taken::Stored);
    assert_eq!(by_air.take_bytes(0, &bytes), dropped(Dropped::Unwanted));
    assert!(by_air.job().unwrap().comes_in_blocks());
    let mut by_upload = receiver(Object::Artifact, 5_000);
    assert_eq!(by_upload.take_bytes(0, &bytes[..100]), Taken::Stored);
    assert_eq!(by_upload.take_block(&block(&bytes, 1)), dropped(Dropped::Unwanted));
    assert_eq!(by_upload.job().unwrap().wants(Pace::Fast), None);
    assert!(!by_upload.job().unwrap().comes_in_blocks());
}

// Counts of them are kept by number, and pages show them by word.
#[test]
fn numbers_and_words_of_what_is_dropped_are_frozen() {
    let words = Dropped::ALL.map(Dropped::as_str);
    assert_eq!(words, ["unwanted", "out-of-range", "length", "known", "busy"]);
    assert_eq!(Dropped::ALL.map(Dropped::number), [0, 1, 2, 3, 4]);
}

#[test]
fn what_was_made_known_of_a_file_is_remembered_until_the_next_one() {
    let mut receiver = receiver(Object::Artifact, 100_000);
    receiver.mark_durable(PROGRESS_STEP_BYTES);
    assert_eq!(receiver.job().unwrap().durable_bytes, PROGRESS_STEP_BYTES);
    receiver.start(Object::Artifact, SHA, Region { offset: START, size_bytes: 5_000 }, 0);
    assert_eq!(receiver.job().unwrap().durable_bytes, 0);
}

// What an earlier file has left there says nothing about the device.
#[test]
fn the_memory_is_shown_only_while_a_file_is_on_its_way() {
    let bytes = file(5_000);
    let mut receiver = receiver(Object::Artifact, 5_000);
    let waits = format!("{receiver:?}");
    receiver.take_block(&block(&bytes, 1));
    assert_ne!(format!("{receiver:?}"), waits);
    receiver.stop();
    assert_eq!(format!("{receiver:?}"), "Receiver { job: None, memory: None }");
}

#[test]
fn a_file_goes_on_behind_what_is_durable_once_its_head_was_judged_again() {
    let bytes = file(100_000);
    let mut flash = MemFlash::new(0x10_0000);
    let place = Region { offset: START, size_bytes: 100_000 };
    let done = PROGRESS_STEP_BYTES as usize;
    flash.bytes[START as usize..START as usize + done].copy_from_slice(&bytes[..done]);
    flash.bytes[START as usize + done..START as usize + 99_000].fill(0x5A);
    let mut receiver = Receiver::new(false);
    receiver.start(Object::Artifact, SHA, place, PROGRESS_STEP_BYTES);
    assert_eq!(wants(&receiver).readiness, Readiness::Head);
    for index in 0..3 {
        receiver.take_block(&block(&bytes, index));
    }
    receiver.accept_head();
    flush(&mut receiver, &mut flash);
    assert_eq!((wants(&receiver).first, wants(&receiver).staged_bytes), (2, PROGRESS_STEP_BYTES));
    for index in 256..447 {
        receiver.take_block(&block(&bytes, index));
        flush(&mut receiver, &mut flash);
    }
    assert!(receiver.job().unwrap().is_complete() && in_flash(&flash, &bytes));
}

/// What it lacks of large blocks is said by name, so that a mix can be made that helps at once.
#[test]
fn a_mix_of_large_blocks_helps_who_lacks_one_of_them() {
    let bytes = file(60_000);
    let mut receiver = receiver_of(Object::Package, 60_000, true);
    let mut flash = MemFlash::new(0x10_0000);
    flush(&mut receiver, &mut flash);
    let cut = Cut { shape: Shape::Large, size_bytes: 60_000 };
    let large = |index: u16| Block {
        session: session(),
        shape: Shape::Large,
        index,
        payload: &bytes[usize::from(index) * 1024..usize::from(index + 1) * 1024],
    };
    for index in (0..28).filter(|index| ![3, 4, 27].contains(index)) {
        assert_eq!(receiver.take_block(&large(index)), Taken::Window);
        flush(&mut receiver, &mut flash);
    }
    let Wants { shape, lacking, staged_bytes, .. } = wants(&receiver);
    assert_eq!((shape, lacking.counts(), staged_bytes), (Shape::Large, &[3, 28, 3][..], 25_600));
    assert_eq!(lacking.map(0), Some(1 << 3 | 1 << 4 | 1 << 27));
    assert_eq!((lacking.map(1), lacking.map(3)), (None, None), "all of it; there is none");
    let mut mend = |named: u32| {
        let payload = sum_of(&bytes, cut, 0, named);
        let (session, shape) = (session(), Shape::Large);
        let frame = Repair { session, shape, generation: 0, named, payload: &payload };
        receiver.take_repair(&frame, &mut flash).unwrap()
    };
    assert_eq!(mend(0b11000), dropped(Dropped::Known), "two that are lacking are no help");
    assert_eq!(mend(0b00111), dropped(Dropped::Known), "nor is none");
    assert_eq!(mend(0b01111), Taken::Window);
    assert_eq!(mend(0b11000), Taken::Window, "one of them waits for the flash now");
    assert_eq!(mend(1 << 27 | 0b11000), Taken::Window);
    flush(&mut receiver, &mut flash);
    assert!(in_flash(&flash, &bytes[..28_672]));
    assert_eq!(wants(&receiver).first, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any order, any duplicates, repair frames in between: what comes out is the file.
    #[test]
    fn blocks_and_repair_frames_in_any_order_make_the_file(
        length in 1..90_000_u32,
        seed in 1..u64::MAX,
        loses in 0..60_usize,
    ) {
        let bytes = file(length);
        let cut = Cut { shape: Shape::Small, size_bytes: length };
        let mut receiver = receiver(Object::Artifact, length);
        let mut flash = MemFlash::new(0x4_0000);
        let mut draw = draws(seed);
        for round in 0_u32.. {
            prop_assert!(round < 60_000, "it must come to an end");
            if receiver.job().unwrap().is_complete() {
                break;
            }
            let Wants { readiness, first, lacking, .. } = wants(&receiver);
            let at = draw(lacking.counts().len());
            let generation = first + u16::try_from(at).unwrap();
            if readiness == Readiness::Open && draw(100) < loses {
                let payload = mixed(&bytes, generation, round);
                receiver.take_repair(&repair(&payload, generation, round), &mut flash).unwrap();
            } else {
                let blocks = usize::from(cut.blocks_of(generation));
                let place = u16::try_from(draw(blocks)).unwrap();
                if receiver.take_block(&block(&bytes, generation * 128 + place)) == Taken::Head {
                    receiver.accept_head();
                }
            }
            if draw(3) == 0 {
                flush(&mut receiver, &mut flash);
            }
        }
        prop_assert!(in_flash(&flash, &bytes));
    }

    /// The sender may change its mind about how an object is cut, at any moment.
    #[test]
    fn blocks_of_both_shapes_and_mixes_in_any_order_make_the_file(
        length in 1..90_000_u32,
        seed in 1..u64::MAX,
        mixes in 0..60_usize,
        changes in 0..4_usize,
    ) {
        let bytes = file(length);
        let mut receiver = receiver_of(Object::Artifact, length, true);
        let mut flash = MemFlash::new(0x4_0000);
        let mut draw = draws(seed);
        let mut shape = Shape::Large;
        for round in 0.. {
            prop_assert!(round < 60_000, "it must come to an end");
            if receiver.job().unwrap().is_complete() {
                break;
            }
            if round < 300 && draw(100) < changes {
                shape = if shape == Shape::Large { Shape::Small } else { Shape::Large };
            }
            let cut = Cut { shape, size_bytes: length };
            let Wants { readiness, first, lacking, .. } = wants(&receiver);
            let generation = first + u16::try_from(draw(lacking.counts().len())).unwrap();
            let place = u16::try_from(draw(cut.blocks_of(generation).into())).unwrap();
            let index = generation * shape.generation_blocks() + place;
            let is_mix = readiness == Readiness::Open && draw(100) < mixes;
            if is_mix && shape == Shape::Large {
                let named = 1 << draw(28) | 1 << draw(28) | 1 << draw(28);
                let payload = sum_of(&bytes, cut, generation, named);
                let frame = Repair {
                    session: session(), shape, generation, named, payload: &payload,
                };
                receiver.take_repair(&frame, &mut flash).unwrap();
            } else {
                let (at, len) = cut.block(index.into()).unwrap();
                let payload = &bytes[at as usize..(at + len) as usize];
                let block = Block { session: session(), shape, index, payload };
                if receiver.take_block(&block) == Taken::Head {
                    receiver.accept_head();
                }
            }
            if draw(3) == 0 {
                flush(&mut receiver, &mut flash);
            }
        }
        prop_assert!(in_flash(&flash, &bytes));
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
            prop_assert_eq!(elsewhere, dropped(Dropped::OutOfRange));
            if receiver.take_bytes(bytes_u32(at), &bytes[at..end]) == Taken::Head {
                receiver.accept_head();
            }
            flush(&mut receiver, &mut flash);
        }
        prop_assert!(in_flash(&flash, &bytes));
    }
}
