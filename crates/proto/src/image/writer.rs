//! Writes an image as build tools do, piece by piece, into whatever takes bytes.
//!
//! For desk devices and tests: a chip's own images come from its tool chain. What is written here
//! is read by `esptool image-info` and by this module's reader alike.

use core::fmt;

use sha2::{Digest as _, Sha256 as Hasher};

use super::app::AppDescription;
use super::header::{HEADER_BYTES, ImageHeader, SEGMENTS_MAX};
use super::reader::{
    CHECKSUM_BLOCK_BYTES, CHECKSUM_SEED, HASH_BYTES, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES,
};
use crate::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use crate::id::ImageHash;
use crate::image::APP_DESCRIPTION_BYTES;

/// What goes into memory at one address.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Where the chip sees it.
    pub load_address: u32,
    /// Its bytes; filled up with zero to whole words.
    pub data: &'a [u8],
}

/// An image to be written.
#[derive(Debug, Clone, Copy)]
pub struct ImageSpec<'a> {
    /// Its header. The number of segments is filled in.
    pub header: ImageHeader,
    /// Put at the start of the first segment.
    pub app: &'a AppDescription,
    /// Put behind it, where ESP-IDF's linker script would: at [`crate::descriptor::OFFSET`].
    pub descriptor: Option<&'a Descriptor>,
    /// 1 to 16 segments. The first one's data follows the two descriptions.
    pub segments: &'a [Segment<'a>],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image's identity.
    pub image_hash: ImageHash,
    /// Its length, with the appended hash.
    pub size_bytes: u32,
}

/// Writes the image that `spec` describes, in order, into `sink`.
///
/// The specification is checked before the first byte is written.
pub fn build_image(
    spec: &ImageSpec<'_>,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<BuiltImage, BuildError> {
    let segment_count = spec.check()?;
    let mut out = Output { sink, hasher: Hasher::new(), checksum: CHECKSUM_SEED, size_bytes: 0 };
    out.put(&ImageHeader { segment_count, ..spec.header }.encode());
    for (index, segment) in spec.segments.iter().enumerate() {
        let length = spec.segment_bytes(index, segment).next_multiple_of(4);
        out.put(&segment.load_address.to_le_bytes());
        out.put(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        if index == 0 {
            out.put_data(&spec.app.encode());
            if let Some(descriptor) = spec.descriptor {
                out.put_data(&descriptor.encode());
            }
        }
        out.put_data(segment.data);
        out.put_data(&[0; 3][..segment.data.len().next_multiple_of(4) - segment.data.len()]);
    }
    let padding = CHECKSUM_BLOCK_BYTES - 1 - out.size_bytes % CHECKSUM_BLOCK_BYTES;
    out.put(&[0; CHECKSUM_BLOCK_BYTES as usize][..padding as usize]);
    let checksum = out.checksum;
    out.put(&[checksum]);
    let image_hash = ImageHash(out.hasher.clone().finalize().into());
    if spec.header.hash_appended {
        out.put(&image_hash.0);
    }
    Ok(BuiltImage { image_hash, size_bytes: out.size_bytes })
}

impl ImageSpec<'_> {
    /// How long the image becomes.
    pub fn size_bytes(&self) -> Result<u32, BuildError> {
        self.check()?;
        let segments: u64 = self
            .segments
            .iter()
            .enumerate()
            .map(|(index, segment)| {
                let data = self.segment_bytes(index, segment).next_multiple_of(4);
                data as u64 + u64::from(SEGMENT_HEADER_BYTES)
            })
            .sum();
        let data_end = u64::from(HEADER_BYTES) + segments;
        let checked = (data_end + 1).next_multiple_of(u64::from(CHECKSUM_BLOCK_BYTES));
        let hash = if self.header.hash_appended { u64::from(HASH_BYTES) } else { 0 };
        // 16 segments of 16 MiB are far from the limit.
        Ok(u32::try_from(checked + hash).unwrap_or(u32::MAX))
    }

    /// The number of segments, if all is in order.
    fn check(&self) -> Result<u8, BuildError> {
        let found = self.segments.len();
        let Ok(segment_count @ 1..=SEGMENTS_MAX) = u8::try_from(found) else {
            return Err(BuildError::Segments { found });
        };
        for (index, segment) in self.segments.iter().enumerate() {
            let found_bytes = self.segment_bytes(index, segment).next_multiple_of(4);
            if found_bytes >= SEGMENT_BYTES_MAX as usize {
                return Err(BuildError::SegmentTooLong { index, found_bytes });
            }
        }
        Ok(segment_count)
    }

    /// Length of a segment with what is put before its data, before it is filled up.
    fn segment_bytes(&self, index: usize, segment: &Segment<'_>) -> usize {
        let descriptor = if self.descriptor.is_some() { DESCRIPTOR_BYTES } else { 0 };
        let descriptions = if index == 0 { APP_DESCRIPTION_BYTES + descriptor } else { 0 };
        // Saturating: a segment near the end of the address space is refused, not wrapped.
        segment.data.len().saturating_add(descriptions).min(usize::MAX - 3)
    }
}

/// Why an image cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// There are none, or too many.
    Segments {
        /// How many there are.
        found: usize,
    },
    /// A segment is longer than the format allows.
    SegmentTooLong {
        /// Which one, counted from 0.
        index: usize,
        /// Its length.
        found_bytes: usize,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segments { found } => {
                write!(f, "the `image` would have {found} segments, expected 1 to {SEGMENTS_MAX}")
            }
            Self::SegmentTooLong { index, found_bytes } => write!(
                f,
                "segment {index} of the `image` would have {found_bytes} bytes, expected less than \
                 {SEGMENT_BYTES_MAX}"
            ),
        }
    }
}

impl core::error::Error for BuildError {}

struct Output<'a> {
    sink: &'a mut dyn FnMut(&[u8]),
    hasher: Hasher,
    checksum: u8,
    size_bytes: u32,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) {
        (self.sink)(bytes);
        self.hasher.update(bytes);
        // `check` keeps the whole image far below 4 GiB.
        self.size_bytes += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    }

    fn put_data(&mut self, bytes: &[u8]) {
        self.checksum = bytes.iter().fold(self.checksum, |sum, byte| sum ^ byte);
        self.put(bytes);
    }
}
