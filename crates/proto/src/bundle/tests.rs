//! Bundles whole, cut into every kind of pieces, cut off, and wrong in every way we know.

use std::borrow::ToOwned;
use std::format;
use std::process::Command;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::manifest::tests::{GOLDEN as MANIFEST, SIGNATURE_1, SIGNATURE_2, artifact};
use crate::manifest::{Trust, VerifiedManifest, verify};

/// The golden release: both signatures, the transmitter first.
const GOLDEN: &[u8] = include_bytes!("../../tests/golden/release.lockstep");
const GOLDEN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/release.lockstep");

/// Tar entries by name, header and padding made as every host does.
fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, contents) in entries {
        let size = u32::try_from(contents.len()).unwrap();
        bytes.extend(header(&EntryName::try_from(*name).unwrap(), size));
        bytes.extend(*contents);
        bytes.resize(bytes.len() + padding_bytes(size), 0);
    }
    bytes.extend(END);
    bytes
}

fn golden_entries() -> Vec<(&'static str, Vec<u8>)> {
    [
        ("manifest.json", MANIFEST.to_vec()),
        ("manifest.json.minisig", SIGNATURE_1.to_vec()),
        ("manifest.json.2.minisig", SIGNATURE_2.to_vec()),
        ("transmitter.bin", artifact("transmitter")),
        ("receiver.bin", artifact("receiver")),
    ]
    .into()
}

/// The golden bundle after `change` has been at its entries.
pub(super) fn changed(change: impl FnOnce(&mut Vec<(&'static str, Vec<u8>)>)) -> Vec<u8> {
    let mut entries = golden_entries();
    change(&mut entries);
    tar(&entries.iter().map(|(name, bytes)| (*name, &bytes[..])).collect::<Vec<_>>())
}

pub(super) fn manifest() -> VerifiedManifest<'static> {
    verify(MANIFEST, &[], &Trust::anybody()).unwrap()
}

/// What a reader said, pieces joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Begin(Entry),
    Bytes(Vec<u8>),
    EntryEnd,
    HeadEnd,
    End,
}

/// Reads as a lead does: verifies at the end of the head, then goes on.
pub(super) fn read_on(
    mut reader: BundleReader,
    pieces: impl Iterator<Item = Vec<u8>>,
) -> Result<Vec<Said>, BundleError> {
    let (mut said, mut head) = (Vec::new(), Head::new());
    for piece in pieces {
        let mut rest = &piece[..];
        loop {
            let step = reader.push(rest)?;
            rest = &rest[step.consumed..];
            let Some(event) = step.event else { break };
            head.take(&event)?;
            match event {
                Event::Begin(entry) => said.push(Said::Begin(entry)),
                Event::Bytes(bytes) => match said.last_mut() {
                    Some(Said::Bytes(before)) => before.extend(bytes),
                    _ => said.push(Said::Bytes(bytes.to_vec())),
                },
                Event::EntryEnd => said.push(Said::EntryEnd),
                Event::HeadEnd => {
                    reader.expect(&head.verify(&Trust::anybody()).unwrap());
                    said.push(Said::HeadEnd);
                }
                Event::End => said.push(Said::End),
            }
        }
        assert!(rest.is_empty(), "without an event, everything is taken");
    }
    reader.finish()?;
    Ok(said)
}

pub(super) fn read(bytes: &[u8]) -> Result<Vec<Said>, BundleError> {
    read_on(BundleReader::new(), core::iter::once(bytes.to_vec()))
}

#[track_caller]
pub(super) fn refusal(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

#[test]
fn the_bytes_of_a_bundle_are_frozen() {
    assert!(changed(|_| ()) == GOLDEN);
}

#[test]
fn a_bundle_is_read_in_the_order_it_was_written() {
    let said = read(GOLDEN).unwrap();
    let names: Vec<_> = said
        .iter()
        .filter_map(|said| match said {
            Said::Begin(Entry::Manifest { size_bytes }) => Some(format!("manifest {size_bytes}")),
            Said::Begin(Entry::Signature { .. }) => Some("signature".to_owned()),
            Said::Begin(Entry::Artifact { role, size_bytes, .. }) => {
                Some(format!("{role} {size_bytes}"))
            }
            Said::Begin(Entry::Patch { role, tag, .. }) => Some(format!("{role}, {tag}")),
            Said::HeadEnd => Some("verify".to_owned()),
            Said::End => Some("end".to_owned()),
            Said::Bytes(_) | Said::EntryEnd => None,
        })
        .collect();
    let manifest = format!("manifest {}", MANIFEST.len());
    let (transmitter, receiver) = ("transmitter 1024", "receiver 700");
    assert_eq!(
        names,
        [&manifest, "signature", "signature", "verify", transmitter, receiver, "end"]
    );
    let bytes: Vec<_> = golden_entries().into_iter().map(|(_, bytes)| Said::Bytes(bytes)).collect();
    assert!(bytes.iter().all(|bytes| said.contains(bytes)));
}

#[test]
fn the_head_gathers_what_is_verified_and_nothing_else() {
    let (mut reader, mut head, mut rest) = (BundleReader::new(), Head::new(), GOLDEN);
    loop {
        let step = reader.push(rest).unwrap();
        rest = &rest[step.consumed..];
        let event = step.event.unwrap();
        head.take(&event).unwrap();
        match event {
            Event::HeadEnd => reader.expect(&head.verify(&Trust::anybody()).unwrap()),
            Event::End => break,
            _ => (),
        }
    }
    assert_eq!(head.manifest(), MANIFEST);
    assert!(head.signatures().eq([SIGNATURE_1, SIGNATURE_2]));
    assert_eq!(head.verify(&Trust::anybody()).unwrap(), manifest());
}

// Verify first, then write: a lead that forgets cannot get at a byte of an artifact.
#[test]
fn no_artifact_is_handed_out_before_a_verified_manifest() {
    let (mut reader, mut rest) = (BundleReader::new(), GOLDEN);
    let error = loop {
        match reader.push(rest) {
            Ok(step) => {
                let event = step.event.expect("an event, or a refusal");
                assert!(!matches!(event, Event::Begin(Entry::Artifact { .. })));
                rest = &rest[step.consumed..];
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, BundleError::NotVerified);
    assert_eq!(reader.push(rest), Err(BundleError::Stopped));
}

#[test]
fn tar_lists_a_bundle_without_us() {
    let Ok(listing) = Command::new("tar").args(["tvf", GOLDEN_PATH]).output() else {
        std::println!("skipped: no `tar` here");
        return;
    };
    assert!(listing.status.success(), "{listing:?}");
    let listing = String::from_utf8(listing.stdout).unwrap();
    let lines: Vec<_> = listing.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let names: Vec<_> = golden_entries().iter().map(|(name, _)| *name).collect();
    assert_eq!(lines, names);
    assert!(listing.starts_with("-rw-r--r-- 0/0 "), "{listing}");
}

// The promise of the format: a release can be checked by a person who does not have our tools.
#[test]
fn tar_and_minisign_verify_a_bundle_without_us() {
    let folder = std::env::temp_dir().join(format!("lockstep-untar-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let run = |tool: &str, arguments: &[&str]| {
        let output = Command::new(tool).args(arguments).current_dir(&folder).output();
        output.is_ok_and(|output| output.status.success())
    };
    let key = crate::manifest::tests::key(1).to_string();
    if run("tar", &["xf", GOLDEN_PATH]) && run("minisign", &["-v"]) {
        assert!(run("minisign", &["-Vm", "manifest.json", "-P", &key]));
        std::fs::write(folder.join("manifest.json"), "changed").unwrap();
        assert!(!run("minisign", &["-Vm", "manifest.json", "-P", &key]));
    } else {
        std::println!("skipped: no `tar` or no `minisign` here");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_bundle_made_by_the_systems_tar_is_read() {
    let folder = std::env::temp_dir().join(format!("lockstep-bundle-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in golden_entries() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    for dialect in ["ustar", "gnu"] {
        let names = golden_entries().into_iter().map(|(name, _)| name);
        let made = Command::new("tar")
            .current_dir(&folder)
            .args(["--format", dialect, "-cf", "bundle"])
            .args(names)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            std::println!("skipped: no `tar` here that knows `--format {dialect}`");
            continue;
        }
        let bytes = std::fs::read(folder.join("bundle")).unwrap();
        assert!(read(&bytes) == read(GOLDEN), "{dialect}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_bundle_cut_off_anywhere_is_refused() {
    for length in 0..GOLDEN.len() {
        let at = u32::try_from(length).unwrap();
        assert_eq!(read(&GOLDEN[..length]), Err(BundleError::Truncated { at }));
    }
}

#[test]
fn what_does_not_belong_into_a_bundle_is_refused_by_name() {
    let add = |at: usize, name: &'static str| {
        refusal(&changed(|entries| entries.insert(at, (name, b"x".to_vec()))))
    };
    assert_eq!(add(0, "receiver.bin"), "`receiver.bin` stands where `manifest.json` belongs");
    assert_eq!(
        add(1, "manifest.json.2.minisig"),
        "`manifest.json.2.minisig` stands where `manifest.json.minisig` belongs"
    );
    let late = "stands where `ROLE.bin` belongs";
    assert_eq!(add(4, "manifest.json.3.minisig"), format!("`manifest.json.3.minisig` {late}"));
    assert_eq!(add(1, "manifest.json"), format!("`manifest.json` {late}"));
    assert_eq!(add(5, "sender.bin"), "`sender.bin` is for a role that the manifest does not name");
    for name in [
        "../receiver.bin",
        "/receiver.bin",
        "./manifest.json.minisig",
        "a/b.bin",
        "a..bin",
        "receiver",
        ".bin",
        "-x.bin",
        "manifest.json.9.minisig",
        "manifest.json.1.minisig",
    ] {
        let expected = "has no place in a bundle, expected a manifest, signatures and `ROLE.bin`";
        assert_eq!(add(3, name), format!("`{name}` {expected}"));
    }
}

#[test]
fn artifacts_that_do_not_fit_the_manifest_are_refused() {
    let twice = changed(|entries| entries.push(("receiver.bin", artifact("receiver"))));
    assert_eq!(refusal(&twice), "`receiver.bin` is in the bundle twice, expected once");
    let short = changed(|entries| entries[4].1.truncate(699));
    assert_eq!(refusal(&short), "`receiver.bin` is 699 bytes, the manifest says 700");
    let missing = changed(|entries| entries.truncate(4));
    assert_eq!(
        refusal(&missing),
        "`receiver.bin` is missing from the bundle, the manifest names it"
    );
    let none = changed(|entries| entries.truncate(3));
    assert_eq!(refusal(&none), "`bundle` has 0 artifacts, expected at least 1");
}

#[test]
fn heads_beyond_their_limits_are_refused_before_they_are_read() {
    let large = changed(|entries| entries[0].1 = [b' '; 8193].to_vec());
    assert_eq!(refusal(&large[..512]), "`manifest.json` is 8193 bytes, the limit is 8192");
    let large = changed(|entries| entries[1].1 = [b' '; 1025].to_vec());
    assert_eq!(refusal(&large), "`manifest.json.minisig` is 1025 bytes, the limit is 1024");
}

/// A bundle whose first header was changed, its checksum put right.
fn with_header(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = GOLDEN.to_vec();
    change(&mut bytes[..512]);
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|&byte| u32::from(byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

#[test]
fn a_header_that_is_none_is_refused() {
    assert_eq!(
        refusal(b"<!DOCTYPE html>".repeat(50).as_slice()),
        "`bundle` has no tar header at byte 0, expected `ustar` in it"
    );
    assert_eq!(refusal(&END), "`bundle` has no tar header at byte 0, expected `ustar` in it");
    let mut bytes = GOLDEN.to_vec();
    bytes[0] ^= 1;
    assert!(refusal(&bytes).starts_with("`bundle` header at byte 0 has the checksum "));
    for kind in *b"1257xgL" {
        let link = with_header(|header| header[156] = kind);
        let kind = char::from(kind);
        assert_eq!(
            refusal(&link),
            format!("`manifest.json` is of tar type `{kind}`, expected `0`, a plain file")
        );
    }
    for size in
        [&b"-0000000001\0"[..], b"\x80\0\0\0\0\0\0\0\0\0\0\x01", b"            ", b"00000000009\0"]
    {
        let bytes = with_header(|header| header[124..136].copy_from_slice(size));
        let expected = "`size` of the header at byte 0 is no octal number within limits";
        assert_eq!(refusal(&bytes), expected);
    }
    let prefixed = with_header(|header| header[345..348].copy_from_slice(b"../"));
    assert_eq!(refusal(&prefixed), "`../manifest.json` stands where `manifest.json` belongs");
    let long = with_header(|header| header[..100].fill(b'a'));
    assert!(refusal(&long).contains("has no place in a bundle"));
    let huge = with_header(|header| header[124..136].copy_from_slice(b"77777777777\0"));
    assert_eq!(refusal(&huge), "`manifest.json` is 8589934591 bytes, the limit is 8192");
}

#[test]
fn only_zeros_may_stand_between_entries_and_behind_the_end() {
    let mut bytes = GOLDEN.to_vec();
    let padding = 512 + MANIFEST.len();
    bytes[padding] = 1;
    assert_eq!(
        refusal(&bytes),
        format!("`bundle` has something at byte {padding}, expected nothing but zeros")
    );
    let mut bytes = GOLDEN.to_vec();
    let last = bytes.len() - 1;
    bytes[last] = 1;
    assert!(refusal(&bytes).contains("expected nothing but zeros"));
    bytes[last] = 0;
    bytes.resize(GOLDEN.len() + TRAILING_ZEROS_MAX, 0);
    assert!(read(&bytes) == read(GOLDEN));
    bytes.push(0);
    assert_eq!(refusal(&bytes), "`bundle` has more than 10240 zeros behind its end");
    bytes.truncate(GOLDEN.len());
    bytes.push(b'!');
    assert!(refusal(&bytes).contains("expected nothing but zeros"));
}

/// Every point that a lead may have stored while it read the golden bundle.
fn resume_points() -> Vec<(u32, ResumePoint)> {
    let begins = read(GOLDEN).unwrap().into_iter().filter_map(|said| match said {
        Said::Begin(Entry::Artifact { size_bytes, resume, .. }) => Some((size_bytes, resume)),
        _ => None,
    });
    begins.collect()
}

#[test]
fn a_bundle_is_read_on_from_any_byte_of_an_artifact() {
    let whole = read(GOLDEN).unwrap();
    for (size, begin) in resume_points() {
        let at = whole.iter().position(
            |said| matches!(said, Said::Begin(Entry::Artifact { resume, .. }) if *resume == begin),
        );
        let after = &whole[at.unwrap() + 2..];
        for offset in 0..=size {
            let point = begin.with_offset(offset);
            let reader = BundleReader::resume_at(&manifest(), point, size).unwrap();
            let from = point.bundle_offset().unwrap() as usize;
            let said = read_on(reader, core::iter::once(GOLDEN[from..].to_vec())).unwrap();
            let rest = match &said[0] {
                Said::Bytes(bytes) => {
                    assert_eq!(bytes.len(), (size - offset) as usize);
                    &said[1..]
                }
                _ => &said[..],
            };
            assert!(rest == after, "{point:?}");
        }
    }
}

#[test]
fn a_resume_point_that_does_not_fit_the_release_is_refused() {
    let (size, point) = resume_points().pop().unwrap();
    let bytes = point.to_bytes();
    let refused = |at: usize, byte: u8| {
        let mut bytes = bytes;
        bytes[at] = byte;
        let point = ResumePoint::from_bytes(&bytes);
        let expected = Err(BundleError::BadResumePoint { point });
        assert_eq!(BundleReader::resume_at(&manifest(), point, size).map(|_| ()), expected);
    };
    refused(0, 0b110); // a third artifact, of two
    refused(0, 0b11); // its own artifact is done
    refused(1, 2); // a third artifact, of two
    refused(2, 1); // not where an entry can begin
    refused(8, 1); // behind the end of the artifact
    assert!(BundleReader::resume_at(&manifest(), point.with_offset(size + 1), size).is_err());
    assert!(BundleReader::resume_at(&manifest(), point.with_offset(u32::MAX), size).is_err());
    assert!(BundleReader::resume_at(&manifest(), point, size - 1).is_err());
}

// A lead may resume under new firmware what it began under the old.
#[test]
fn the_stored_form_of_a_resume_point_is_frozen() {
    let (_, point) = resume_points().pop().unwrap();
    let point = point.with_offset(0x123);
    let at = u32::try_from(GOLDEN.len() - END.len() - 1024).unwrap().to_le_bytes();
    let golden = [0b10, 0, at[0], at[1], at[2], at[3], 0x23, 0x01, 0, 0];
    assert_eq!(point.to_bytes(), golden);
    assert_eq!(ResumePoint::from_bytes(&golden), point);
}

proptest! {
    #[test]
    fn any_cutting_into_pieces_gives_the_same_events(
        lengths in prop::collection::vec(prop_oneof![0..4_usize, 0..1500_usize], 1..40),
    ) {
        let mut rest = GOLDEN;
        let mut lengths = lengths.into_iter().cycle();
        let mut is_stuck = 0;
        let pieces = core::iter::from_fn(|| {
            // Empty pieces are cuts too, but a list of nothing else would never end.
            let length = lengths.next()?.max(usize::from(is_stuck > 50)).min(rest.len());
            is_stuck = if length == 0 { is_stuck + 1 } else { 0 };
            let (piece, after) = rest.split_at(length);
            let is_end = rest.is_empty();
            rest = after;
            (!is_end).then(|| piece.to_vec())
        });
        prop_assert!(read_on(BundleReader::new(), pieces) == read(GOLDEN));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read(&bytes);
        if let Some((point, rest)) = bytes.split_first_chunk() {
            let point = ResumePoint::from_bytes(point);
            let size = resume_points()[0].0;
            if let Ok(reader) = BundleReader::resume_at(&manifest(), point, size) {
                let _ = read_on(reader, core::iter::once(rest.to_vec()));
            }
        }
    }

    // A header has a checksum, padding is zeros, contents are hashed: nothing is left unseen but
    // the space that ends the field of the checksum, which means nothing.
    #[test]
    fn one_changed_byte_is_seen(at in 0..GOLDEN.len(), change in 1_u8..) {
        let mut damaged = GOLDEN.to_vec();
        damaged[at] ^= change;
        let mut reader = BundleReader::new();
        let (mut rest, mut contents) = (&damaged[..], Vec::<u8>::new());
        let result = loop {
            match reader.push(rest) {
                Ok(Step { consumed, event }) => {
                    rest = &rest[consumed..];
                    match event {
                        Some(Event::Bytes(bytes)) => contents.extend(bytes),
                        Some(Event::HeadEnd) => reader.expect(&manifest()),
                        Some(_) => (),
                        None => break reader.finish(),
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let expected: Vec<u8> = golden_entries().into_iter().flat_map(|(_, bytes)| bytes).collect();
        let is_space = at % 512 == 155 && GOLDEN[at - 1..=at] == *b"\0 ";
        prop_assert!(result.is_err() || contents != expected || is_space, "byte {}", at);
    }
}
