//! Firmware images of ESP chips: read from any stream or from a slot, and written.
//!
//! `ImageFacts` in hand mean that the image is whole: its segments, its checksum and its appended
//! hash were walked and fit. Whether it belongs on a device (chip, role, board, release) is decided
//! where facts are compared. Nothing here keeps more of an image than a few hundred bytes.
//!
//! The format is ESP-IDF's (`esp_app_format.h`, `esp_image_format.c`): a header of 24 bytes, up to
//! 16 segments with a header of 8 bytes each, padding whose last byte is a checksum, a SHA-256 of
//! all that, and perhaps a sector with signatures.

mod app;
mod error;
mod header;
mod reader;
mod scan;
mod secure_boot;
mod slot;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use app::{APP_DESCRIPTION_BYTES, AppDescription};
pub use error::{Foreign, ImageError};
pub use header::{ChipId, FlashConfig, HEADER_BYTES, ImageHeader, SEGMENTS_MAX, SpiMode};
pub use reader::{ImageFacts, ImageReader};
pub use secure_boot::{BLOCKS_MAX, BadSignature, Guard, Scheme, SignedBy, signature_blocks};
pub use slot::{quick_guard, quick_hash, read_image};
pub use writer::{BuildError, BuiltImage, ImageSpec, Segment, build_image};
