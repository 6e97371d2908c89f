//! Patches that know of addresses: what each prediction saves, and what a bad patch does.

mod common;
mod programs;

use std::sync::LazyLock;

use common::{Watched, assert_fits_its_room};
use lockstep_delta::encode::{self, ApplyFault, Image};
use lockstep_delta::{Apply, ApplyError, Format, HEADER_BYTES, Header, ID_BYTES};
use programs::{FIRST, Release, SECOND, WAYS, Way, image, program};
use proptest::prelude::*;

const NEW_ID: [u8; ID_BYTES] = [2; ID_BYTES];

fn as_image(bytes: &[u8]) -> Image<'_> {
    Image { bytes, id: NEW_ID }
}

fn aware(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    encode::address_aware(&as_image(old), &as_image(new)).unwrap()
}

fn plain(old: &[u8], new: &[u8]) -> Vec<u8> {
    encode::plain(&as_image(old), &as_image(new)).unwrap()
}

/// Two releases, and the patch between them.
type Releases = (Vec<u8>, Vec<u8>, Vec<u8>);

fn releases(way: Way) -> Releases {
    let (old, new) = (program(way, FIRST), program(way, SECOND));
    let patch = aware(&old, &new).unwrap();
    (old, new, patch)
}

/// Everything has moved, and the patch is little more than what is new.
#[test]
fn what_refers_to_something_that_moved_is_predicted() {
    for way in WAYS {
        let (old, new, patch) = releases(way);
        assert_eq!(Header::decode(&patch).unwrap().format, Format::AddressAware);
        assert_eq!(encode::apply(&patch, &old).as_ref(), Ok(&new), "{way:?}");
        let (aware, plain) = (patch.len() - HEADER_BYTES, plain(&old, &new).len() - HEADER_BYTES);
        // The same is new for both, and a description is added.
        assert!(aware * 5 < plain * 4, "{way:?}: {aware} instead of {plain}");
    }
}

/// Devices in the field read these.
#[test]
fn patches_of_long_ago_still_apply() {
    let golden = [
        (
            &include_bytes!("golden/xtensa-old.bin")[..],
            &include_bytes!("golden/xtensa-new.bin")[..],
            &include_bytes!("golden/xtensa.patch")[..],
        ),
        (
            &include_bytes!("golden/riscv-old.bin")[..],
            &include_bytes!("golden/riscv-new.bin")[..],
            &include_bytes!("golden/riscv.patch")[..],
        ),
    ];
    for (old, new, patch) in golden {
        assert_eq!(Header::decode(patch).unwrap().format, Format::AddressAware);
        assert!(encode::apply(patch, old).as_deref() == Ok(new));
    }
}

/// What the images are not, the encoder does not take them for.
#[test]
fn images_that_nothing_is_known_of_are_given_another_format() {
    let program = program(Way::Words, FIRST);
    let is_given = |old: &[u8], new: &[u8]| aware(old, new).is_some();
    assert!(is_given(&program, &program));
    assert!(!is_given(&program, b"something else"));
    assert!(!is_given(&program[1..], &program));
    assert!(!is_given(b"", &program) && !is_given(&program, b""));
    // Another processor, one that nobody knows, a part that is cut, more parts than a device
    // has room for.
    let with = |at: usize, byte: u8| {
        let mut image = program.clone();
        image[at] = byte;
        image
    };
    assert!(!is_given(&program, &with(12, 5)));
    assert!(!is_given(&with(12, 77), &with(12, 77)));
    assert!(!is_given(&program, &program[..program.len() - 1]));
    let parts = |count: usize| image(9, &vec![(0x3FC9_0000, &[7; 40][..]); count]);
    assert!(is_given(&parts(12), &parts(12)) && !is_given(&parts(13), &parts(13)));
}

/// The three that there are, each where it is the smallest.
#[test]
fn the_smallest_patch_is_chosen() {
    let smallest = |old: &[u8], new: &[u8]| {
        let patch = encode::smallest(&as_image(old), &as_image(new)).unwrap();
        assert_eq!(encode::apply(&patch, if is_full(&patch) { &[] } else { old }).unwrap(), new);
        Header::decode(&patch).unwrap().format
    };
    let (old, new, _) = releases(Way::XtensaCalls);
    assert_eq!(smallest(&old, &new), Format::AddressAware);
    assert_eq!(smallest(&old[1..], &new), Format::Plain);
    assert_eq!(smallest(b"of no use", b"something else"), Format::Full);
}

fn is_full(patch: &[u8]) -> bool {
    Header::decode(patch).unwrap().format == Format::Full
}

#[test]
fn pieces_of_any_size_make_the_same_image() {
    for way in [Way::XtensaLiterals, Way::RiscVAccesses] {
        let (old, new, patch) = releases(way);
        let header = Header::decode(&patch).unwrap();
        for size in [1, 2, 3, 7, 256, 4096, 1 << 20] {
            let mut apply = Apply::new(header);
            let mut input = Watched { body: &patch[HEADER_BYTES..], old: &old };
            let (mut made, mut piece) = (Vec::<u8>::new(), vec![0; size]);
            while let len @ 1.. = apply.pull(&mut input, &mut piece).unwrap() {
                made.extend(&piece[..len]);
                assert_eq!(made.len(), apply.made_bytes() as usize);
            }
            assert!(made == new, "{way:?} in pieces of {size}");
        }
    }
}

#[test]
fn a_patch_at_the_end_of_the_slot_is_never_overwritten_before_it_is_read() {
    let (old, new, patch) = releases(Way::RiscVCalls);
    assert_fits_its_room(&old, &new, &patch);
}

#[test]
fn a_patch_that_is_cut_anywhere_is_refused() {
    let (old, _, patch) = releases(Way::XtensaLiterals);
    for len in HEADER_BYTES..patch.len() {
        let mut cut = patch[..len].to_vec();
        let body_bytes = u32::try_from(len - HEADER_BYTES).unwrap();
        cut[20..24].copy_from_slice(&body_bytes.to_le_bytes());
        let expected = Err(ApplyFault::Apply(ApplyError::Ends { body_bytes }));
        assert_eq!(encode::apply(&cut, &old), expected, "cut after {len} bytes");
    }
}

/// A format's number is all that tells them apart.
#[test]
fn a_patch_of_one_format_is_none_of_another() {
    for way in [Way::XtensaCalls, Way::RiscVCalls] {
        let (old, new, aware) = releases(way);
        let plain = plain(&old, &new);
        for (patch, claimed) in [(aware, 1), (plain, 2)] {
            let mut forged = patch;
            forged[4] = claimed;
            assert!(matches!(encode::apply(&forged, &old), Err(ApplyFault::Apply(_))), "{way:?}");
        }
    }
}

/// A patch by hand: what an encoder would never say.
fn forged(stream: &[u8], old: &[u8], new_bytes: u32) -> Result<Vec<u8>, ApplyFault> {
    let image = Image { bytes: stream, id: NEW_ID };
    let body = encode::full(&image).unwrap()[HEADER_BYTES..].to_vec();
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let header = Header {
        format: Format::AddressAware,
        old_bytes: size(old),
        new_bytes,
        stream_bytes: size(stream),
        body_bytes: size(&body),
        room_bytes: 1 << 20,
        old: [1; ID_BYTES],
        new: NEW_ID,
        body_sha256: [0; ID_BYTES],
    };
    encode::apply(&[&header.encode()[..], &body].concat(), old)
}

#[test]
fn a_description_that_cannot_be_is_refused() {
    let apply = |front: &[u8]| {
        let mut stream = front.to_vec();
        stream.resize(64, 0);
        forged(&stream, &[7; 20], 40)
    };
    let fault = |error| Err(ApplyFault::Apply(error));
    assert_eq!(apply(&[2]), fault(ApplyError::Machine { found: 2 }));
    let many = |what, found, max| fault(ApplyError::TooMany { what, found, max });
    assert_eq!(apply(&[0, 13]), many("parts", 13, 12));
    assert_eq!(apply(&[0, 0, 13]), many("parts", 13, 12));
    assert_eq!(apply(&[0, 0, 0, 0xD1, 2]), many("shifts", 337, 336));
    let corrupt =
        |front: &[u8]| matches!(apply(front), Err(ApplyFault::Apply(ApplyError::Corrupt { .. })));
    // Parts and shifts that reach beyond what 32 bits can say, and a number that does.
    let max = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    let parts = [&[0, 2][..], &max, &[2, 0], &max].concat();
    assert!(corrupt(&parts) && corrupt(&[&[0, 0][..], &parts[1..]].concat()));
    assert!(corrupt(&[&[0, 0, 0, 2][..], &max, &[0], &max].concat()));
    assert!(corrupt(&[0, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F]));
    // Nothing described, and a copy from outside.
    let outside = ApplyError::OutsideOld { at: 0, len_bytes: 21, old_bytes: 20 };
    assert_eq!(apply(&[0, 0, 0, 0, 21]), fault(outside));
}

/// By hand, so that every byte of it can be checked against the format's description.
#[test]
fn a_difference_is_to_the_prediction_and_1_says_that_nothing_has_changed() {
    // Old: 4 bytes, then a word. New: the same, 4 bytes further on.
    let parts = [1, 0, 16, 0x80, 0x20];
    let shifts = [2, 0x80, 0x20, 8, 0x80, 0x01, 0];
    let front = [&[0][..], &parts, &parts, &shifts].concat();
    let old = [9, 9, 9, 9, 0x04, 0x10, 0, 0];
    let made = |copy: &[u8]| {
        let stream = [&front[..], &[8], copy].concat();
        forged(&stream, &old, 8)
    };
    let front = [9, 10, 9, 9];
    let with = |word: u32| Ok([&front[..], &word.to_le_bytes()].concat());
    assert_eq!(made(&[0, 1, 0, 0, 0, 0, 0, 0]), with(0x1008));
    assert_eq!(made(&[0, 1, 0, 0, 5, 0, 0, 0]), with(0x100D));
    assert_eq!(made(&[0, 1, 0, 0, 1, 0, 0, 0]), with(0x1004));
    assert_eq!(made(&[0, 1, 0, 0, 0xFC, 0xFF, 0xFF, 0xFF]), with(0x1009));
}

/// An image of ESP-IDF, or not quite, of anything.
fn any_image() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![Just(0x3FC9_0000), Just(0x4200_0020), any::<u32>()];
    // Instructions and words that refer to something are likely.
    let byte = prop_oneof![0_u8..4, Just(0x25), Just(0x21), Just(0xEF), Just(0x97), any::<u8>()];
    let bytes = proptest::collection::vec(byte, 0..160);
    let returns = prop_oneof![Just(0), 1_usize..4];
    let part = (address, bytes, returns).prop_map(|(address, mut bytes, returns)| {
        for _ in 0..returns {
            bytes.resize(bytes.len().next_multiple_of(2), 0);
            bytes.extend([0x1D, 0xF0, 0x82, 0x80]);
        }
        (address, bytes)
    });
    let chip = prop_oneof![Just(0), Just(9), Just(5), Just(13), any::<u8>()];
    (chip, proptest::collection::vec(part, 0..6)).prop_map(|(chip, parts)| {
        let parts: Vec<_> = parts.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
        image(chip, &parts)
    })
}

fn check_all(old: &[u8], new: &[u8]) -> Result<(), TestCaseError> {
    let smallest = encode::smallest(&as_image(old), &as_image(new)).unwrap();
    for patch in [Some(plain(old, new)), aware(old, new)].iter().flatten() {
        prop_assert_eq!(encode::apply(patch, old), Ok(new.to_vec()));
        prop_assert!(smallest.len() <= patch.len());
    }
    let old = if is_full(&smallest) { &[] } else { old };
    prop_assert_eq!(encode::apply(&smallest, old), Ok(new.to_vec()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_image_is_made_from_any_other(old in any_image(), new in any_image()) {
        check_all(&old, &new)?;
    }

    /// Whatever comes out, nothing panics, and nothing outside is touched: [`Watched`] would tell.
    #[test]
    fn a_patch_with_any_byte_changed_ends(
        which in 0_usize..2,
        at in 0_usize..10_000,
        flip in 1_u8..,
    ) {
        static MADE: LazyLock<[Releases; 2]> =
            LazyLock::new(|| [Way::XtensaLiterals, Way::RiscVAccesses].map(releases));
        let (old, new, patch) = &MADE[which];
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

    /// The same of what decompresses well and says anything.
    #[test]
    fn a_stream_that_says_anything_ends(
        machine in 0_u8..2,
        stream in proptest::collection::vec(prop_oneof![0_u8..20, any::<u8>()], 60..300),
        old in any_image(),
    ) {
        let stream = [&[machine][..], &stream].concat();
        for new_bytes in [16, 64, 250] {
            if (new_bytes as usize) <= stream.len() && stream.len() <= new_bytes as usize * 4 {
                let _ = forged(&stream, &old, new_bytes);
            }
        }
    }
}

proptest! {
    // Larger images, which take a while.
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn an_edited_program_is_made_from_the_one_before(
        way in proptest::sample::select(&WAYS[..]),
        data in 0_u32..200,
        code in 0_u32..3000,
        edits in proptest::collection::vec((24_usize..9000, any::<u8>()), 0..40),
    ) {
        let old = program(way, FIRST);
        let mut new = program(way, Release { data_grew: data & !3, code_grew: code & !3, ..FIRST });
        for (at, byte) in edits {
            let at = at % new.len();
            new[at] = byte;
        }
        check_all(&old, &new)?;
    }
}
