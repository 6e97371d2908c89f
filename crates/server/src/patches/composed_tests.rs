//! A composed bundle is one that devices read, at whichever byte they go on.

use lockstep_proto::bundle::{BundleReader, Entry, Event, Head};
use lockstep_proto::manifest::Trust;

use super::*;
use crate::bundle::Bundle;

const GOLDEN: &[u8] = include_bytes!("../../../proto/tests/golden/release.lockstep");

fn golden_places() -> BTreeMap<String, Place> {
    let bundle = Bundle::read(&mut &GOLDEN[..], &|_| ()).unwrap();
    let place =
        |first, size_bytes| Place { first, size_bytes, flash: String::new(), bases: Vec::new() };
    let artifacts = bundle.artifacts().iter();
    artifacts.map(|it| (it.role.clone(), place(it.first, it.size_bytes))).collect()
}

fn extra(role: &str, old: u8, size_bytes: u32) -> Extra {
    let (old, new) = (format!("{old:02x}").repeat(32), "aa".repeat(32));
    Extra { role: role.into(), old, new, size_bytes }
}

fn with_bytes(extras: &[Extra]) -> Vec<(Extra, Bytes)> {
    let bytes = |extra: &Extra| Bytes::from(vec![7; extra.size_bytes as usize]);
    extras.iter().map(|extra| (extra.clone(), bytes(extra))).collect()
}

fn bytes_of(pieces: Vec<Piece>) -> Vec<u8> {
    let bytes = |piece| match piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::Bundle(range) => {
            let place = |at: u64| usize::try_from(at).unwrap();
            GOLDEN[place(range.start)..place(range.end)].to_vec()
        }
    };
    pieces.into_iter().flat_map(bytes).collect()
}

/// The names of what a device's reader finds behind the head.
fn entries(bundle: &[u8]) -> Vec<String> {
    let (mut reader, mut head, mut rest) = (BundleReader::new(), Head::default(), bundle);
    let mut names = Vec::new();
    loop {
        let step = reader.push(rest).unwrap();
        rest = &rest[step.consumed..];
        let Some(event) = step.event else { break };
        head.take(&event).unwrap();
        match event {
            Event::HeadEnd => reader.expect(&head.verify(&Trust::anybody()).unwrap()),
            Event::Begin(Entry::Patch { role, tag, .. }) => names.push(format!("{role}.{tag}")),
            Event::Begin(Entry::Artifact { role, .. }) => names.push(role.to_string()),
            _ => {}
        }
    }
    reader.finish().unwrap();
    names
}

#[test]
fn each_patch_stands_in_front_of_the_artifact_that_it_makes() {
    let places = golden_places();
    let order = entries(GOLDEN);
    let extras: Vec<Extra> =
        order.iter().flat_map(|role| [extra(role, 1, 100), extra(role, 2, 512)]).collect();
    let size_bytes = size_with(GOLDEN.len() as u64, &extras);
    let composed = Composed::new(GOLDEN.len() as u64, &places, &with_bytes(&extras));
    assert_eq!(composed.size_bytes(), size_bytes, "what the offer says");
    let bytes = bytes_of(composed.range(&(0..size_bytes)));
    assert_eq!(bytes.len() as u64, size_bytes);
    let expected: Vec<String> = order
        .iter()
        .flat_map(|role| [format!("{role}.01010101"), format!("{role}.02020202"), role.clone()])
        .collect();
    assert_eq!(entries(&bytes), expected);
    assert_eq!(
        bytes_of(Composed::new(GOLDEN.len() as u64, &places, &[]).range(&(0..u64::MAX))),
        GOLDEN
    );
}

#[test]
fn any_range_of_it_is_that_range_of_the_whole() {
    let places = golden_places();
    let extras: Vec<Extra> = places.keys().map(|role| extra(role, 1, 700)).collect();
    let composed = Composed::new(GOLDEN.len() as u64, &places, &with_bytes(&extras));
    let whole = bytes_of(composed.range(&(0..composed.size_bytes())));
    for first in (0..whole.len()).step_by(97) {
        for length in [0, 1, 100, 5_000, whole.len()] {
            let end = (first + length).min(whole.len());
            let part = bytes_of(composed.range(&(first as u64..end as u64)));
            assert!(part == whole[first..end], "{first}..{end}");
        }
    }
}

#[test]
fn what_a_bundle_may_not_have_is_left_out() {
    let mut places = golden_places();
    let role = places.keys().next().unwrap().clone();
    places.get_mut(&role).unwrap().bases = vec![String::new(), "05".repeat(32)];
    let many: Vec<Extra> = (0..20).map(|old| extra(&role, old, 600)).collect();
    let some = fitting(GOLDEN.len() as u64, &places, many);
    assert_eq!(some.len(), usize::from(PATCHES_MAX) - 2, "the bundle has two of its own");
    assert!(some.iter().all(|it| it.tag() != "05050505"), "one of these");
    let twice = vec![extra(&role, 1, 600), extra(&role, 1, 600)];
    assert_eq!(fitting(GOLDEN.len() as u64, &places, twice).len(), 1);
    assert_eq!(fitting(GOLDEN.len() as u64, &places, vec![extra("nobody", 1, 600)]), []);
    assert_eq!(fitting(BUNDLE_BYTES_MAX - 600, &places, vec![extra(&role, 1, 600)]), []);
}
