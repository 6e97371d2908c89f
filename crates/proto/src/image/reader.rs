//! Reads an image from a stream that comes in pieces of any size.
//!
//! Every check is made as soon as the bytes for it are there, so that a wrong file is refused
//! before much of it is stored. How the stream is cut never changes what comes out.

use sha2::{Digest as _, Sha256 as Hasher};

use super::app::{APP_DESCRIPTION_BYTES, APP_DESCRIPTION_OFFSET, AppDescription};
use super::error::ImageError;
use super::header::{HEADER_BYTES, ImageHeader};
use super::scan::Scan;
use super::secure_boot::Guard;
use super::tail::Tail;
use crate::descriptor::{self, Descriptor};
use crate::fmta::{self, Fmta};
use crate::id::{ImageHash, Sha256};

/// A segment is shorter than this (`esp_image_format.c`).
pub(super) const SEGMENT_BYTES_MAX: u32 = 16 << 20;
/// Length of a segment's header: address and length.
pub(super) const SEGMENT_HEADER_BYTES: u32 = 8;
/// The checksum is the last byte of a block of this length.
pub(super) const CHECKSUM_BLOCK_BYTES: u32 = 16;
/// The checksum of no data.
pub(super) const CHECKSUM_SEED: u8 = 0xEF;
/// Length of the appended hash.
pub(super) const HASH_BYTES: u32 = 32;

/// What a whole image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its header.
    pub header: ImageHeader,
    /// ESP-IDF's description, if it has one.
    pub app: Option<AppDescription>,
    /// Our descriptor: the first one in the file that is whole.
    pub descriptor: Option<Descriptor>,
    /// The original project's block: the first one in the file.
    pub fmta: Option<Fmta>,
    /// Its identity: SHA-256 from the header to the end of the checksum, computed.
    pub image_hash: ImageHash,
    /// Whether the same hash is appended to it.
    pub hash_appended: bool,
    /// Its length, with the appended hash and the signature sector; without padding behind them.
    pub size_bytes: u32,
    /// Where the sector with signatures of secure boot v2 begins, if there is one.
    pub signature_at: Option<u32>,
    /// SHA-256 of all bytes that were read, padding behind the image included. From a slot: of
    /// `size_bytes` bytes.
    pub file_sha256: Sha256,
}

impl ImageFacts {
    /// What a chip's bootloader may demand of it.
    pub fn guard(&self) -> Guard {
        Guard {
            secure_version: self.app.as_ref().map_or(0, |app| app.secure_version),
            is_signed: self.signature_at.is_some(),
        }
    }
}

/// Takes an image piece by piece.
#[derive(Debug, Clone)]
pub struct ImageReader {
    limit_bytes: u32,
    at: u32,
    part: Part,
    /// The part of fixed length that is being collected: a header or the appended hash.
    held: heapless::Vec<u8, { HASH_BYTES as usize }>,
    hasher: Hasher,
    checksum: u8,
    header: Option<ImageHeader>,
    app_bytes: [u8; APP_DESCRIPTION_BYTES],
    app: Option<AppDescription>,
    descriptor: Scan<Descriptor>,
    fmta: Scan<Fmta>,
    image_hash: Option<ImageHash>,
    tail: Tail,
    failed: Option<ImageError>,
}

/// Where in the image the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum Part {
    Header,
    SegmentHeader { index: u8 },
    Data { index: u8, end: u32 },
    Padding { end: u32 },
    Checksum,
    Hash,
    Tail,
}

impl Default for ImageReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageReader {
    /// A reader for an image of any size.
    pub fn new() -> Self {
        Self::with_limit(u32::MAX)
    }

    /// A reader for an image that must fit in `limit_bytes`, such as a slot's size.
    ///
    /// An image that is too large is refused at the first segment header that tells.
    pub fn with_limit(limit_bytes: u32) -> Self {
        Self {
            limit_bytes,
            at: 0,
            part: Part::Header,
            held: heapless::Vec::new(),
            hasher: Hasher::new(),
            checksum: CHECKSUM_SEED,
            header: None,
            app_bytes: [0; APP_DESCRIPTION_BYTES],
            app: None,
            descriptor: Scan::new(&descriptor::MAGIC, |bytes| Descriptor::decode(bytes).ok()),
            fmta: Scan::new(&fmta::MAGIC, Fmta::decode),
            image_hash: None,
            tail: Tail::default(),
            failed: None,
        }
    }

    /// Takes the next bytes. An error is final: every later call repeats it.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), ImageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while !bytes.is_empty() {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.step_bytes_max());
            let (taken, rest) = bytes.split_at(length as usize);
            bytes = rest;
            if let Err(error) = self.step(taken, length) {
                self.failed = Some(error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The header, as soon as it is there.
    pub const fn header(&self) -> Option<&ImageHeader> {
        self.header.as_ref()
    }

    /// ESP-IDF's description, as soon as it is there: after 0x120 bytes.
    pub const fn app_description(&self) -> Option<&AppDescription> {
        self.app.as_ref()
    }

    /// Our descriptor, as soon as one is found: after 0x1A0 bytes where the linker placed it.
    pub const fn descriptor(&self) -> Option<&Descriptor> {
        self.descriptor.found()
    }

    /// The original project's block, as soon as one is found.
    pub const fn fmta(&self) -> Option<&Fmta> {
        self.fmta.found()
    }

    /// How many bytes were taken.
    pub const fn taken_bytes(&self) -> u32 {
        self.at
    }

    /// No more bytes come: the image must be whole.
    pub fn finish(mut self) -> Result<ImageFacts, ImageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let at_end = matches!(self.part, Part::Tail);
        let (Some(header), Some(image_hash), true) = (self.header, self.image_hash, at_end) else {
            if matches!(self.part, Part::Header) {
                // A file shorter than a header may still be recognised for what it is.
                ImageHeader::parse(&self.held)?;
            }
            return Err(ImageError::TooShort {
                found_bytes: self.at,
                needed_bytes: u32::try_from(self.needed_bytes()).unwrap_or(u32::MAX),
            });
        };
        let size_bytes = self.tail.size_bytes(self.at)?;
        Ok(ImageFacts {
            header,
            app: self.app,
            descriptor: self.descriptor.into_found(),
            fmta: self.fmta.into_found(),
            image_hash,
            hash_appended: header.hash_appended,
            size_bytes,
            signature_at: self.tail.signature_at(),
            file_sha256: Sha256(self.hasher.finalize_reset().into()),
        })
    }

    /// Where the image ends, without a signature; `None` before it has ended.
    pub(super) const fn image_end(&self) -> Option<u32> {
        match self.part {
            Part::Tail => Some(self.tail.start()),
            _ => None,
        }
    }

    /// How many bytes there surely are before [`Self::image_end`] can be known, at least 1.
    pub(super) fn step_bytes_max(&self) -> u32 {
        match self.part {
            Part::Header => HEADER_BYTES - self.held_bytes(),
            Part::SegmentHeader { .. } => SEGMENT_HEADER_BYTES - self.held_bytes(),
            Part::Data { end, .. } | Part::Padding { end } => end - self.at,
            Part::Checksum => 1,
            Part::Hash => HASH_BYTES - self.held_bytes(),
            Part::Tail => Tail::step_bytes_max(self.at),
        }
    }

    /// SHA-256 of everything so far.
    pub(super) fn sha256_so_far(&self) -> Sha256 {
        Sha256(self.hasher.clone().finalize().into())
    }

    #[expect(clippy::cast_possible_truncation, reason = "it holds 32 bytes at most")]
    fn held_bytes(&self) -> u32 {
        self.held.len() as u32
    }

    /// Takes bytes that belong to one part.
    fn step(&mut self, taken: &[u8], length: u32) -> Result<(), ImageError> {
        let end = match self.at.checked_add(length) {
            Some(end) if end <= self.limit_bytes => end,
            _ => return Err(self.too_large(u64::from(self.at) + u64::from(length))),
        };
        if matches!(self.part, Part::Tail) {
            let hasher = &self.hasher;
            self.tail.push(taken, self.at, || Sha256(hasher.clone().finalize().into()));
        } else {
            self.keep_app_bytes(taken);
            self.descriptor.push(taken);
            self.fmta.push(taken);
        }
        self.hasher.update(taken);
        self.at = end;
        match self.part {
            Part::Header => self.on_header(taken),
            Part::SegmentHeader { index } => self.on_segment_header(taken, index),
            Part::Data { index, end } => {
                self.checksum = taken.iter().fold(self.checksum, |sum, byte| sum ^ byte);
                if self.at == end { self.next_segment(index) } else { Ok(()) }
            }
            Part::Padding { end } => {
                if self.at == end {
                    self.part = Part::Checksum;
                }
                Ok(())
            }
            Part::Checksum => self.on_checksum(taken),
            Part::Hash => self.on_hash(taken),
            Part::Tail => Ok(()),
        }
    }

    fn on_header(&mut self, taken: &[u8]) -> Result<(), ImageError> {
        self.hold(taken);
        if self.held_bytes() < HEADER_BYTES {
            return Ok(());
        }
        self.header = Some(ImageHeader::parse(&self.held)?);
        self.held.clear();
        self.part = Part::SegmentHeader { index: 0 };
        self.check_limit()
    }

    fn on_segment_header(&mut self, taken: &[u8], index: u8) -> Result<(), ImageError> {
        self.hold(taken);
        let Some(&[_, _, _, _, a, b, c, d]) = self.held.first_chunk::<8>() else { return Ok(()) };
        self.held.clear();
        let found_bytes = u32::from_le_bytes([a, b, c, d]);
        if found_bytes >= SEGMENT_BYTES_MAX || !found_bytes.is_multiple_of(4) {
            return Err(ImageError::SegmentLength { index, found_bytes });
        }
        let Some(end) = self.at.checked_add(found_bytes) else {
            return Err(self.too_large(u64::from(self.at) + u64::from(found_bytes)));
        };
        self.part = Part::Data { index, end };
        self.check_limit()?;
        if found_bytes == 0 { self.next_segment(index) } else { Ok(()) }
    }

    fn next_segment(&mut self, index: u8) -> Result<(), ImageError> {
        if index + 1 < self.segment_count() {
            self.part = Part::SegmentHeader { index: index + 1 };
            return Ok(());
        }
        let padding = CHECKSUM_BLOCK_BYTES - 1 - self.at % CHECKSUM_BLOCK_BYTES;
        let Some(end) = self.at.checked_add(padding) else {
            return Err(self.too_large(self.needed_bytes()));
        };
        // Never empty, since everything before it comes in whole words.
        self.part = Part::Padding { end };
        Ok(())
    }

    fn on_checksum(&mut self, taken: &[u8]) -> Result<(), ImageError> {
        let computed = self.checksum;
        if let Some(&found) = taken.first()
            && found != computed
        {
            return Err(ImageError::Checksum { found, computed });
        }
        self.image_hash = Some(ImageHash(self.hasher.clone().finalize().into()));
        if self.header.is_some_and(|header| header.hash_appended) {
            self.part = Part::Hash;
        } else {
            self.end_image();
        }
        Ok(())
    }

    fn on_hash(&mut self, taken: &[u8]) -> Result<(), ImageError> {
        self.hold(taken);
        let Some(found) = self.held.first_chunk::<{ HASH_BYTES as usize }>() else { return Ok(()) };
        let found = ImageHash(*found);
        match self.image_hash {
            Some(computed) if computed != found => Err(ImageError::Hash { found, computed }),
            _ => {
                self.end_image();
                Ok(())
            }
        }
    }

    fn end_image(&mut self) {
        self.tail = Tail::starting_at(self.at);
        self.part = Part::Tail;
    }

    fn hold(&mut self, taken: &[u8]) {
        // `step_bytes_max` keeps it within the part, and no part is longer than the room for it.
        let held = self.held.extend_from_slice(taken);
        debug_assert!(held.is_ok(), "a part is longer than its buffer");
    }

    /// Collects the application description; a first segment too short for it never fills it.
    fn keep_app_bytes(&mut self, taken: &[u8]) {
        const START: usize = APP_DESCRIPTION_OFFSET as usize;
        let Part::Data { index: 0, .. } = self.part else { return };
        let at = self.at as usize - START;
        if at >= APP_DESCRIPTION_BYTES {
            return;
        }
        for (kept, byte) in self.app_bytes[at..].iter_mut().zip(taken) {
            *kept = *byte;
        }
        if at + taken.len() >= APP_DESCRIPTION_BYTES {
            self.app = AppDescription::decode(&self.app_bytes);
        }
    }

    fn segment_count(&self) -> u8 {
        self.header.map_or(1, |header| header.segment_count)
    }

    /// How long the image is at least, as far as its headers are known.
    fn needed_bytes(&self) -> u64 {
        let segment_headers =
            |count: u8| u64::from(count).saturating_mul(u64::from(SEGMENT_HEADER_BYTES));
        let data_end = match self.part {
            Part::Header => u64::from(HEADER_BYTES) + segment_headers(1),
            Part::SegmentHeader { index } => {
                let missing = self.segment_count().saturating_sub(index);
                u64::from(self.at - self.held_bytes()) + segment_headers(missing)
            }
            Part::Data { index, end } => {
                let missing = self.segment_count().saturating_sub(index + 1);
                u64::from(end) + segment_headers(missing)
            }
            Part::Padding { end } => u64::from(end),
            Part::Checksum => u64::from(self.at),
            Part::Hash => return u64::from(self.at - self.held_bytes() + HASH_BYTES),
            Part::Tail => return u64::from(self.tail.start()),
        };
        let hashed = self.header.is_some_and(|header| header.hash_appended);
        let hash = if hashed { u64::from(HASH_BYTES) } else { 0 };
        (data_end + 1).next_multiple_of(u64::from(CHECKSUM_BLOCK_BYTES)) + hash
    }

    fn check_limit(&self) -> Result<(), ImageError> {
        let needed_bytes = self.needed_bytes();
        if needed_bytes > u64::from(self.limit_bytes) {
            Err(self.too_large(needed_bytes))
        } else {
            Ok(())
        }
    }

    const fn too_large(&self, needed_bytes: u64) -> ImageError {
        ImageError::TooLarge { needed_bytes, limit_bytes: self.limit_bytes }
    }
}
