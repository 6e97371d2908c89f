//! Patches as devices apply them, and what a bad one does.

mod common;

use std::sync::LazyLock;

use common::{Watched, assert_fits_its_room};
use lockstep_delta::encode::{self, ApplyFault, Image};
use lockstep_delta::{Apply, ApplyError, Format, HEADER_BYTES, Header, ID_BYTES};
use proptest::prelude::*;

const OLD_ID: [u8; ID_BYTES] = [1; ID_BYTES];
const NEW_ID: [u8; ID_BYTES] = [2; ID_BYTES];

fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
    let (old, new) = (Image { bytes: old, id: OLD_ID }, Image { bytes: new, id: NEW_ID });
    encode::plain(&old, &new).unwrap()
}

/// An image and the one after it: words moved, a few changed, some new ones.
fn releases() -> (Vec<u8>, Vec<u8>) {
    let word = |at: u32, shift: u32| (at.wrapping_mul(0x9E37_79B9) ^ at >> 3).wrapping_add(shift);
    let old: Vec<u8> = (0..8_000).flat_map(|at| word(at % 1_700, 0).to_le_bytes()).collect();
    let mut new = old[..9_000].to_vec();
    new.extend(b"something that was not there before");
    new.extend(old[8_000..].iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % 900 == 0)));
    (old, new)
}

#[test]
fn a_patch_makes_the_new_image_and_is_small() {
    let (old, new) = releases();
    let patch = patch(&old, &new);
    let header = Header::decode(&patch).unwrap();
    assert_eq!((header.format, header.old, header.new), (Format::Plain, OLD_ID, NEW_ID));
    assert_eq!(header.body_bytes as usize, patch.len() - HEADER_BYTES);
    assert!(patch.len() < new.len() / 20, "{} of {}", patch.len(), new.len());
    assert_eq!(encode::apply(&patch, &old), Ok(new));
}

#[test]
fn an_image_without_an_old_one_is_compressed_and_made_whole() {
    // Words of a vocabulary that fits the dictionary.
    let new: Vec<u8> =
        (0..9_000_u32).flat_map(|at| (at * at % 701 * 0x0001_0107).to_le_bytes()).collect();
    let patch = encode::full(&Image { bytes: &new, id: NEW_ID }).unwrap();
    let header = Header::decode(&patch).unwrap();
    assert_eq!((header.format, header.old_bytes, header.old), (Format::Full, 0, [0; ID_BYTES]));
    assert!(patch.len() < new.len() / 2, "{} of {}", patch.len(), new.len());
    assert_eq!(encode::apply(&patch, &[]), Ok(new));
}

/// xz's encoder is another one than ours: both write the same format.
#[test]
fn what_xz_has_compressed_is_read() {
    let (body, image) = (include_bytes!("golden/by-xz.lzma"), include_bytes!("golden/by-xz.bin"));
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let header = Header {
        format: Format::Full,
        old_bytes: 0,
        new_bytes: size(image),
        stream_bytes: size(image),
        body_bytes: size(body),
        room_bytes: size(image) + size(body),
        old: [0; ID_BYTES],
        new: NEW_ID,
        body_sha256: [0; ID_BYTES],
    };
    let patch = [&header.encode()[..], body].concat();
    assert_eq!(encode::apply(&patch, &[]).as_deref(), Ok(&image[..]));
}

#[test]
fn a_patch_at_the_end_of_the_slot_is_never_overwritten_before_it_is_read() {
    let (old, new) = releases();
    assert_fits_its_room(&old, &new, &patch(&old, &new));
}

#[test]
fn pieces_of_any_size_make_the_same_image() {
    let (old, new) = releases();
    let patch = patch(&old, &new);
    let header = Header::decode(&patch).unwrap();
    for size in [1, 7, 4096, 1 << 20] {
        let mut apply = Apply::new(header);
        let mut input = Watched { body: &patch[HEADER_BYTES..], old: &old };
        let (mut made, mut piece) = (Vec::<u8>::new(), vec![0; size]);
        while let len @ 1.. = apply.pull(&mut input, &mut piece).unwrap() {
            made.extend(&piece[..len]);
        }
        assert!(made == new, "in pieces of {size}");
    }
}

#[test]
fn a_patch_that_is_cut_anywhere_is_refused() {
    let (old, new) = releases();
    let patch = patch(&old, &new);
    for len in 0..patch.len() {
        let mut cut = patch[..len].to_vec();
        assert!(encode::apply(&cut, &old).is_err(), "cut after {len} bytes");
        // And if its header knows of it.
        if let Some(body) = len.checked_sub(HEADER_BYTES) {
            cut[20..24].copy_from_slice(&u32::try_from(body).unwrap().to_le_bytes());
            let body_bytes = u32::try_from(body).unwrap();
            let expected = Err(ApplyFault::Apply(ApplyError::Ends { body_bytes }));
            assert_eq!(encode::apply(&cut, &old), expected);
        }
    }
}

/// By hand: what an encoder would never say.
#[test]
fn a_patch_that_reaches_outside_either_image_is_refused() {
    let apply = |stream: &[u8], stream_bytes: u32| {
        let image = Image { bytes: stream, id: NEW_ID };
        let body = encode::full(&image).unwrap()[HEADER_BYTES..].to_vec();
        let header = Header {
            format: Format::Plain,
            old_bytes: 10,
            new_bytes: 20,
            stream_bytes,
            body_bytes: u32::try_from(body.len()).unwrap(),
            room_bytes: 1000,
            old: OLD_ID,
            new: NEW_ID,
            body_sha256: [0; ID_BYTES],
        };
        encode::apply(&[&header.encode()[..], &body].concat(), &[7; 10])
    };
    let fault = |error| Err(ApplyFault::Apply(error));
    // A copy of 11 bytes from an image of 10.
    let outside = ApplyError::OutsideOld { at: 0, len_bytes: 11, old_bytes: 10 };
    assert_eq!(apply(&[11; 24], 24), fault(outside));
    // A copy of 1, nothing new, and a step to before the front, or behind the end.
    let outside = |at| fault(ApplyError::OutsideOld { at, len_bytes: 0, old_bytes: 10 });
    assert_eq!(apply(&[1, 0, 0, 3, 0, 0, 0, 0], 24), outside(-1));
    assert_eq!(apply(&[1, 0, 0, 20, 0, 0, 0, 0], 24), outside(11));
    // 21 new bytes for an image of 20.
    let outside = ApplyError::OutsideNew { at: 0, len_bytes: 21, new_bytes: 20 };
    assert_eq!(apply(&[0, 21, 1, 1, 1, 1, 1, 1], 24), fault(outside));
    // A length of more than 32 bits.
    assert!(matches!(apply(&[0xFF; 24], 24), Err(ApplyFault::Apply(ApplyError::Corrupt { .. }))));
    // Nothing again and again: it ends where it said that it would.
    let endless = ApplyError::LongerThanSaid { stream_bytes: 24 };
    assert_eq!(apply(&[0; 100], 24), fault(endless));
    // And a whole image before what it said is used up.
    let mut short = vec![0, 20];
    short.extend([5; 22]);
    let early = ApplyError::ShorterThanSaid { found: 22, said: 24 };
    assert_eq!(apply(&short, 24), fault(early));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_image_is_made_from_any_other(
        old in proptest::collection::vec(0_u8..4, 0..600),
        new in proptest::collection::vec(0_u8..4, 0..600),
    ) {
        prop_assert_eq!(encode::apply(&patch(&old, &new), &old), Ok(new.clone()));
        let full = encode::full(&Image { bytes: &new, id: NEW_ID }).unwrap();
        prop_assert_eq!(encode::apply(&full, &[]), Ok(new));
    }

    #[test]
    fn an_edited_image_is_made_from_the_one_before(
        seed in any::<u64>(),
        edits in proptest::collection::vec((0_usize..3, 0_usize..5000, 1_usize..200), 0..12),
    ) {
        let mut dice = seed | 1;
        let mut roll = || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            dice.to_le_bytes()[7]
        };
        let old: Vec<u8> = (0..5000).map(|_| roll()).collect();
        let mut new = old.clone();
        for (kind, at, len) in edits {
            let at = at.min(new.len());
            let end = (at + len).min(new.len());
            match kind {
                0 => drop(new.drain(at..end)),
                1 => drop(new.splice(at..at, (0..len).map(|_| roll()).collect::<Vec<_>>())),
                _ => new[at..end].iter_mut().for_each(|byte| *byte = byte.wrapping_add(3)),
            }
        }
        let patch = patch(&old, &new);
        prop_assert_eq!(encode::apply(&patch, &old), Ok(new));
    }

    /// Whatever comes out, nothing panics, and nothing outside is touched: [`Watched`] would tell.
    #[test]
    fn a_patch_with_any_byte_changed_ends(at in 0_usize..10_000, flip in 1_u8..) {
        static MADE: LazyLock<(Vec<u8>, Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
            let (old, new) = releases();
            let patch = patch(&old, &new);
            (old, new, patch)
        });
        let (old, new, patch) = &*MADE;
        let mut patch = patch.clone();
        let at = HEADER_BYTES + at % (patch.len() - HEADER_BYTES);
        patch[at] ^= flip;
        let header = Header::decode(&patch).unwrap();
        let mut apply = Apply::new(header);
        let mut input = Watched { body: &patch[HEADER_BYTES..], old };
        let (mut made, mut piece) = (0, [0; 512]);
        while let Ok(len @ 1..) = apply.pull(&mut input, &mut piece) {
            made += len;
        }
        prop_assert!(made <= new.len());
    }
}
