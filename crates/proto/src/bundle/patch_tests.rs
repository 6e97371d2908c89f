//! Patches in bundles: where they may stand, how large they may be, and going on within one.

use std::string::ToString;
use std::vec::Vec;

use super::tests::{Said, changed, manifest, read, read_on, refusal};
use super::*;
use crate::manifest::Trust;

/// The golden bundle with two patches before the transmitter's artifact and one before the other's.
fn patched() -> Vec<u8> {
    changed(|entries| {
        entries.insert(4, ("receiver.full.patch", [3; 513].to_vec()));
        entries.insert(3, ("transmitter.full.patch", [2; 700].to_vec()));
        entries.insert(3, ("transmitter.0a1b2c3d.patch", [1; 200].to_vec()));
    })
}

#[test]
fn patches_are_read_before_the_artifact_that_they_make() {
    let said = read(&patched()).unwrap();
    let begun: Vec<_> = said
        .iter()
        .filter_map(|said| match said {
            Said::Begin(Entry::Patch { role, size_bytes, .. }) => Some(("patch", role, size_bytes)),
            Said::Begin(Entry::Artifact { role, size_bytes, .. }) => Some(("", role, size_bytes)),
            _ => None,
        })
        .map(|(what, role, size_bytes)| std::format!("{what} {role} {size_bytes}"))
        .collect();
    let expected = [
        "patch transmitter 200",
        "patch transmitter 700",
        " transmitter 1024",
        "patch receiver 513",
        " receiver 700",
    ];
    assert_eq!(begun, expected);
    assert!(said.contains(&Said::Bytes([1; 200].to_vec())));
}

#[test]
fn a_bundle_is_read_on_from_any_byte_of_a_patch() {
    let (bundle, whole) = (patched(), read(&patched()).unwrap());
    let mut points = 0;
    for (at, said) in whole.iter().enumerate() {
        let Said::Begin(Entry::Patch { size_bytes, resume, .. }) = said else { continue };
        for offset in 0..=*size_bytes {
            let point = ResumePoint::from_bytes(&resume.with_offset(offset).to_bytes());
            assert!(point.is_patch());
            let reader = BundleReader::resume_at(&manifest(), point, *size_bytes).unwrap();
            let from = point.bundle_offset().unwrap() as usize;
            let said = read_on(reader, core::iter::once(bundle[from..].to_vec())).unwrap();
            let rest = &said[usize::from(offset < *size_bytes)..];
            assert!(rest == &whole[at + 2..], "{point:?}");
        }
        // As large as its artifact at most, and not behind its own end.
        assert!(BundleReader::resume_at(&manifest(), *resume, 1025).is_err());
        let behind = resume.with_offset(size_bytes + 1);
        assert!(BundleReader::resume_at(&manifest(), behind, *size_bytes).is_err());
        points += 1;
    }
    assert_eq!(points, 3);
}

/// As a lead does it that leaves out what nobody needs, after any number of its bytes.
#[test]
fn what_is_left_out_of_an_entry_is_as_if_it_had_come() {
    let (bundle, whole) = (patched(), read(&patched()).unwrap());
    let names = |said: &[Said]| {
        let other = |it: &&Said| !matches!(it, Said::Bytes(_));
        said.iter().filter(other).cloned().collect::<Vec<_>>()
    };
    let mut left_out = 0;
    for taken in [0, 1, 100, 199, 200, 600, 1024] {
        let (mut reader, mut head, mut at) = (BundleReader::new(), Head::new(), 0);
        let (mut said, mut of_entry) = (Vec::new(), None);
        while at < bundle.len() {
            let step = reader.push(&bundle[at..bundle.len().min(at + 1)]).unwrap();
            at += step.consumed;
            match step.event {
                None => {}
                Some(event) => {
                    head.take(&event).unwrap();
                    match event {
                        Event::Begin(entry) => {
                            let is_head =
                                matches!(entry, Entry::Manifest { .. } | Entry::Signature { .. });
                            of_entry = (!is_head).then_some(0);
                            said.push(Said::Begin(entry));
                        }
                        Event::Bytes(bytes) => of_entry = of_entry.map(|of| of + bytes.len()),
                        Event::EntryEnd => {
                            of_entry = None;
                            said.push(Said::EntryEnd);
                        }
                        Event::HeadEnd => {
                            reader.expect(&head.verify(&Trust::anybody()).unwrap());
                            said.push(Said::HeadEnd);
                        }
                        Event::End => said.push(Said::End),
                    }
                }
            }
            if of_entry == Some(taken) {
                let left = reader.left_bytes();
                assert_eq!(reader.skip(), left);
                assert_eq!(reader.left_bytes(), 0);
                (at, left_out) = (at + left as usize, left_out + left);
                assert_eq!(reader.consumed_bytes() as usize, at);
            }
        }
        reader.finish().unwrap();
        assert!(said == names(&whole), "{taken} taken: {said:?}");
    }
    assert!(left_out > 6_000, "{left_out}");
    assert_eq!(BundleReader::new().skip(), 0, "between entries there is nothing");
}

#[test]
fn a_patch_has_its_place_its_size_and_its_name() {
    let with = |at: usize, name: &'static str, len: usize| {
        refusal(&changed(|entries| entries.insert(at, (name, [7; 2000][..len].to_vec()))))
    };
    let behind = with(5, "transmitter.full.patch", 10);
    assert!(behind.contains("at most 8 patches stand before an artifact"), "{behind}");
    let large = with(3, "transmitter.full.patch", 1025);
    assert!(large.contains("1025 bytes, the limit is 1024"), "{large}");
    let unknown = with(3, "display.full.patch", 10);
    assert!(unknown.contains("a role that the manifest does not name"), "{unknown}");
    for name in ["transmitter.patch", "transmitter..patch", "transmitter.a.b.patch", ".full.patch"]
    {
        assert!(with(3, name, 10).contains("has no place in a bundle"), "{name}");
    }
    let nine = changed(|entries| {
        let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let nine = nine.map(|tag| patch_name("receiver", tag).to_string().leak() as &'static str);
        nine.iter().for_each(|name| entries.insert(3, (name, [7; 10].to_vec())));
    });
    assert!(refusal(&nine).contains("at most 8 patches"));
}

#[test]
fn a_patch_takes_no_artifacts_place() {
    let without = changed(|entries| {
        entries[3] = ("transmitter.full.patch", [2; 700].to_vec());
    });
    assert!(refusal(&without).contains("`transmitter.bin` is missing"));
}
