//! Why bytes are not a whole firmware image.

use core::fmt;

use super::header::SEGMENTS_MAX;
use super::reader::SEGMENT_BYTES_MAX;
use super::secure_boot::BadSignature;
use crate::id::ImageHash;

/// Why bytes are not a whole firmware image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageError {
    /// They do not begin like one.
    NotAnImage {
        /// The first byte; an image begins with 0xE9.
        found: u8,
        /// What they seem to be instead.
        looks_like: Option<Foreign>,
    },
    /// They end too early.
    TooShort {
        /// How many there are.
        found_bytes: u32,
        /// How many the headers read so far call for, at least.
        needed_bytes: u32,
    },
    /// The image does not fit where it shall go.
    TooLarge {
        /// How many bytes its headers call for, at least.
        needed_bytes: u64,
        /// How many there is room for.
        limit_bytes: u32,
    },
    /// The header counts no segments, or too many.
    Segments {
        /// How many it counts.
        found: u8,
    },
    /// A segment is longer than the chip's address space for it, or not in whole words.
    SegmentLength {
        /// Which one, counted from 0.
        index: u8,
        /// Its length.
        found_bytes: u32,
    },
    /// The data was damaged, as its checksum says.
    Checksum {
        /// What stands in the image.
        found: u8,
        /// What its data gives.
        computed: u8,
    },
    /// The image was damaged, as its appended hash says.
    Hash {
        /// What is appended.
        found: ImageHash,
        /// What its bytes give.
        computed: ImageHash,
    },
    /// A sector with signatures follows the image, and does not belong to it.
    Signature {
        /// Where it begins.
        offset: u32,
        /// What is wrong with it.
        why: BadSignature,
    },
    /// Something that is neither padding nor a signature follows the image.
    Trailing {
        /// Where the image ends.
        image_bytes: u32,
        /// Where the bytes end.
        found_bytes: u32,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnImage { found, looks_like: None } => {
                write!(f, "the `image` begins with {found:#04x}, expected 0xe9")
            }
            Self::NotAnImage { found, looks_like: Some(other) } => {
                write!(f, "the `image` is {other}: it begins with {found:#04x}, expected 0xe9")
            }
            Self::TooShort { found_bytes, needed_bytes } => write!(
                f,
                "the `image` ends after {found_bytes} bytes, its headers call for {needed_bytes}"
            ),
            Self::TooLarge { needed_bytes, limit_bytes } => write!(
                f,
                "the `image` needs {needed_bytes} bytes or more, there is room for {limit_bytes}"
            ),
            Self::Segments { found } => {
                write!(f, "the `image` counts {found} segments, expected 1 to {SEGMENTS_MAX}")
            }
            Self::SegmentLength { index, found_bytes } => write!(
                f,
                "segment {index} of the `image` has {found_bytes} bytes, expected whole words and \
                 less than {SEGMENT_BYTES_MAX}"
            ),
            Self::Checksum { found, computed } => write!(
                f,
                "the `checksum` of the image is {found:#04x}, its data gives {computed:#04x}"
            ),
            Self::Hash { found, computed } => {
                write!(f, "the `hash` of the image is {found}, its bytes give {computed}")
            }
            Self::Signature { offset, why } => {
                write!(f, "the `signature` at {offset:#x} is not this image's: {why}")
            }
            Self::Trailing { image_bytes, found_bytes } => write!(
                f,
                "the file has {found_bytes} bytes, but the `image` in it ends after {image_bytes} \
                 and neither padding nor a signature follows"
            ),
        }
    }
}

impl core::error::Error for ImageError {}

/// What is often taken for a firmware image by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A page of a server, saved under an image's name.
    Html,
    /// An error message of a server, or a manifest.
    Json,
    /// A file for a debugger, from which images are made.
    Elf,
    /// A compressed file.
    Gzip,
    /// An archive, such as a browser's download of several files.
    Zip,
    /// An archive; bundles are such.
    Tar,
    /// A firmware file for a bootloader with a drive letter.
    Uf2,
    /// Erased flash: also how an image of a whole ESP32 flash begins.
    Erased,
}

impl Foreign {
    /// Looks at how `bytes` begin. A tar archive other than a bundle shows only after 262 bytes.
    pub fn recognise(bytes: &[u8]) -> Option<Self> {
        let begins = |magic: &[u8]| bytes.starts_with(magic);
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start();
        let tag = |name: &[u8]| {
            text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        if begins(b"\x7FELF") {
            Some(Self::Elf)
        } else if begins(b"\x1F\x8B") {
            Some(Self::Gzip)
        } else if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") {
            Some(Self::Zip)
        } else if begins(b"manifest.json\0") || bytes.get(257..262) == Some(b"ustar") {
            Some(Self::Tar)
        } else if begins(b"UF2\n") {
            Some(Self::Uf2)
        } else if tag(b"<!doctype") || tag(b"<html") || tag(b"<head") {
            Some(Self::Html)
        } else if text.first() == Some(&b'{') {
            Some(Self::Json)
        } else if bytes.len() >= 16 && bytes.iter().all(|&byte| byte == 0xFF) {
            Some(Self::Erased)
        } else {
            None
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Html => "a web page (HTML)",
            Self::Json => "JSON text",
            Self::Elf => "an ELF file, not the image made from it",
            Self::Gzip => "a gzip file",
            Self::Zip => "a zip archive",
            Self::Tar => "a tar archive, perhaps a bundle",
            Self::Uf2 => "a UF2 file",
            Self::Erased => "erased flash, or a copy of a whole flash",
        })
    }
}
