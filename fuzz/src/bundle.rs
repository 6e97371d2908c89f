//! Bundles, pushed in pieces of any length, and read on in the middle.
//!
//! The first byte chooses whether the harness corrects the sums of tar headers, which nobody
//! guesses; the second says how many of the next bytes are lengths of pieces; two more say where
//! an artifact is cut and read on.
//!
//! Promises: however a bundle is cut, the same happens, to the same error at the same place; no
//! byte of an artifact comes before the head was verified; a reader that was resumed hands out the
//! rest as if it had not been; a whole bundle, written again from what was read, reads the same.

use lockstep_proto::bundle::{
    BLOCK_BYTES, BundleError, BundleReader, END, Entry, EntryName, Event, Head, MANIFEST_NAME,
    RESUME_POINT_BYTES, ResumePoint, artifact_name, header, padding_bytes, patch_name,
    signature_name,
};
use lockstep_proto::manifest::{Trust, verify};

use crate::{memory, stream};

/// First byte of an input: headers stay as they are.
pub const AS_IT_IS: u8 = 0;
/// First byte of an input: headers get the right sum.
pub const SUMMED: u8 = 1;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&[choice, count, low, high], rest)) = data.split_first_chunk() else { return };
    let (lengths, bytes) = rest.split_at(usize::from(count % 8).min(rest.len()));
    let mut bundle = bytes.to_vec();
    if choice % 2 == SUMMED {
        correct_sums(&mut bundle);
    }
    let cut = u32::from(u16::from_le_bytes([low, high]));
    memory::within(MEMORY_BYTES_MAX, || check(&bundle, lengths, cut));
}

fn check(bundle: &[u8], lengths: &[u8], cut: u32) {
    let mut story = Story::default();
    let whole = story.read(bundle, &[]);
    let mut pieces = Story::default();
    let cut_up = pieces.read(bundle, lengths);
    assert_eq!(story.entries, pieces.entries, "cut into {lengths:?}");
    assert_eq!(whole, cut_up, "cut into {lengths:?}");
    if let Err(error) = &whole {
        assert!(!error.to_string().is_empty());
    }
    story.check_resumed(bundle, cut, whole.is_ok());
    if whole.is_ok() {
        let mut again = Story::default();
        assert_eq!(again.read(&story.written(), &[]), Ok(()));
        assert_eq!(story.entries, again.entries);
    }
}

/// What a bundle was read to be.
#[derive(Debug, Default)]
struct Story {
    entries: Vec<(EntryName, Vec<u8>)>,
    manifest: Vec<u8>,
    points: Vec<(ResumePoint, usize)>,
}

impl Story {
    fn read(&mut self, bundle: &[u8], lengths: &[u8]) -> Result<(), BundleError> {
        let mut reader = BundleReader::new();
        let mut head = Head::new();
        let mut is_verified = false;
        for piece in stream::pieces(bundle, lengths) {
            let mut rest = piece;
            loop {
                let step = reader.push(rest)?;
                assert!(step.consumed <= rest.len());
                rest = &rest[step.consumed..];
                let Some(event) = step.event else { break };
                head.take(&event)?;
                match event {
                    Event::Begin(entry) => self.begin(&entry, is_verified),
                    Event::Bytes(bytes) => {
                        assert!(!bytes.is_empty());
                        let (_, content) = self.entries.last_mut().expect("inside of an entry");
                        content.extend_from_slice(bytes);
                    }
                    Event::HeadEnd => {
                        // Whoever may not have the release does not push on.
                        let Ok(manifest) = head.verify(&Trust::anybody()) else {
                            return Err(BundleError::NotVerified);
                        };
                        reader.expect(&manifest);
                        self.manifest = head.manifest().to_vec();
                        is_verified = true;
                    }
                    Event::EntryEnd | Event::End => (),
                }
            }
            assert!(rest.is_empty(), "without an event everything is taken");
        }
        assert_eq!(reader.consumed_bytes() as usize, bundle.len());
        reader.finish()
    }

    fn begin(&mut self, entry: &Entry, is_verified: bool) {
        let signatures = self.entries.len().saturating_sub(1);
        let name = match entry {
            Entry::Manifest { .. } => EntryName::try_from(MANIFEST_NAME).expect("it fits"),
            Entry::Signature { .. } => signature_name(signatures),
            Entry::Artifact { role, resume, .. } => {
                assert!(is_verified, "an artifact before the head was verified");
                self.points.push((*resume, self.entries.len()));
                artifact_name(role)
            }
            Entry::Patch { role, tag, resume, .. } => {
                assert!(is_verified, "a patch before the head was verified");
                self.points.push((*resume, self.entries.len()));
                patch_name(role, tag)
            }
        };
        self.entries.push((name, Vec::new()));
    }

    /// Reads on in the middle of each artifact that was there as a whole.
    fn check_resumed(&self, bundle: &[u8], cut: u32, is_whole: bool) {
        let Ok(manifest) = verify(&self.manifest, &[], &Trust::anybody()) else { return };
        for (point, index) in &self.points {
            let (name, content) = &self.entries[*index];
            let offset = cut.min(u32::try_from(content.len()).expect("a short bundle"));
            let point = point.with_offset(offset);
            assert_eq!(ResumePoint::from_bytes(&point.to_bytes()), point);
            let size = u32::try_from(content.len()).expect("a short bundle");
            let reader = BundleReader::resume_at(&manifest, point, size);
            // Of one that was cut, less is there than its artifact has.
            let Ok(mut reader) = reader else {
                assert!(!is_whole, "its own point");
                continue;
            };
            let at = point.bundle_offset().expect("within the bundle") as usize;
            let mut rest = &bundle[at..];
            let mut found = content[..offset as usize].to_vec();
            let mut is_over = false;
            while let Ok(step) = reader.push(rest) {
                rest = &rest[step.consumed..];
                match step.event {
                    Some(Event::Bytes(bytes)) if !is_over => found.extend_from_slice(bytes),
                    Some(Event::EntryEnd) => is_over = true,
                    Some(_) => (),
                    None => break,
                }
            }
            assert_eq!(&found, content, "`{name}` from byte {offset}");
            assert!(!is_whole || reader.finish().is_ok());
        }
        if let Some(bytes) = self.manifest.first_chunk::<RESUME_POINT_BYTES>() {
            let point = ResumePoint::from_bytes(bytes);
            let _ = BundleReader::resume_at(&manifest, point, u32::from(bytes[0]));
        }
    }

    fn written(&self) -> Vec<u8> {
        let mut bundle = Vec::new();
        for (name, content) in &self.entries {
            let size = u32::try_from(content.len()).expect("a short bundle");
            bundle.extend(header(name, size));
            bundle.extend(content);
            bundle.resize(bundle.len() + padding_bytes(size), 0);
        }
        bundle.extend(END);
        bundle
    }
}

/// Walks from header to header as their sizes say.
fn correct_sums(bundle: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = bundle.get_mut(at..at + BLOCK_BYTES) {
        at += BLOCK_BYTES;
        if block.iter().all(|&byte| byte == 0) {
            continue;
        }
        block[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        let text = format!("{sum:06o}\0 ");
        block[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(text.as_bytes());
        let digits = block[SIZE_AT..SIZE_AT + 11].iter();
        let size = digits.fold(0_usize, |size, digit| size * 8 + usize::from(digit & 7));
        at = at.saturating_add(size.next_multiple_of(BLOCK_BYTES));
    }
}

const SIZE_AT: usize = 124;
const CHECKSUM_AT: usize = 148;
const MEMORY_BYTES_MAX: usize = 1024 * 1024;
