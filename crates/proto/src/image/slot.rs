//! Reads an image where it lies in flash, in pieces of a kilobyte.
//!
//! A slot is longer than its image, and what follows it may be erased or left over from an older
//! one; the walk stops where the image ends.

use super::app::{APP_DESCRIPTION_OFFSET, AppDescription};
use super::error::ImageError;
use super::header::{HEADER_BYTES, ImageHeader};
use super::reader::{
    CHECKSUM_BLOCK_BYTES, HASH_BYTES, ImageFacts, ImageReader, SEGMENT_BYTES_MAX,
    SEGMENT_HEADER_BYTES,
};
use super::secure_boot::Guard;
use super::tail::{SECTOR_BYTES, SIGNATURE_BYTES, SIGNATURE_MAGIC, SignatureBlock};
use crate::id::{ImageHash, Sha256};

/// Bytes read at once; a buffer of this length lies on the stack.
const CHUNK_BYTES: usize = 1024;
/// What is read of the application description: its magic, and the secure version.
const APP_HEAD_BYTES: usize = 8;

/// Walks the whole image at the start of a slot of `limit_bytes` and checks everything.
///
/// `read` fills the buffer with the slot's bytes from the given offset; it is never asked beyond
/// the limit. The outer error is the flash's, the inner one the image's.
pub fn read_image<E>(
    limit_bytes: u32,
    mut read: impl FnMut(u32, &mut [u8]) -> Result<(), E>,
) -> Result<Result<ImageFacts, ImageError>, E> {
    let mut reader = ImageReader::with_limit(limit_bytes);
    let mut chunk = [0; CHUNK_BYTES];
    while reader.image_end().is_none() {
        // An image is refused as too large before the walk reaches the limit, unless the slot
        // cannot even hold headers.
        let length = reader.step_bytes_max().min(limit_bytes - reader.taken_bytes());
        let piece = piece(&mut chunk, length);
        if piece.is_empty() {
            return Ok(reader.finish());
        }
        read(reader.taken_bytes(), piece)?;
        if let Err(error) = reader.push(piece) {
            return Ok(Err(error));
        }
    }
    let end = if has_signature(limit_bytes, &reader, &mut chunk, &mut read)? {
        reader.taken_bytes().next_multiple_of(SECTOR_BYTES) + SECTOR_BYTES
    } else {
        reader.taken_bytes()
    };
    while reader.taken_bytes() < end {
        let piece = piece(&mut chunk, end - reader.taken_bytes());
        read(reader.taken_bytes(), piece)?;
        if let Err(error) = reader.push(piece) {
            return Ok(Err(error));
        }
    }
    Ok(reader.finish())
}

/// The hash of the image at the start of a slot, for use at boot: only headers are read, and the
/// hash that is appended. Nothing is checked but their sense; without an appended hash the image
/// is walked and checked as a whole.
pub fn quick_hash<E>(
    limit_bytes: u32,
    mut read: impl FnMut(u32, &mut [u8]) -> Result<(), E>,
) -> Result<Result<ImageHash, ImageError>, E> {
    let heads = match walk_heads(limit_bytes, &mut read)? {
        Ok(heads) => heads,
        Err(error) => return Ok(Err(error)),
    };
    if !heads.hash_appended {
        return Ok(read_image(limit_bytes, read)?.map(|facts| facts.image_hash));
    }
    let mut hash = [0; HASH_BYTES as usize];
    read(heads.end - HASH_BYTES, &mut hash)?;
    Ok(Ok(ImageHash(hash)))
}

/// What guards the image at the start of a slot, for use at boot: as [`quick_hash`], without a walk
/// over all of it. That a signature was made for this very image is not checked: whoever wants to
/// know walks it.
pub fn quick_guard<E>(
    limit_bytes: u32,
    mut read: impl FnMut(u32, &mut [u8]) -> Result<(), E>,
) -> Result<Result<Guard, ImageError>, E> {
    let heads = match walk_heads(limit_bytes, &mut read)? {
        Ok(heads) => heads,
        Err(error) => return Ok(Err(error)),
    };
    let mut app = [0; APP_HEAD_BYTES];
    let app_end = APP_DESCRIPTION_OFFSET as usize + app.len();
    if heads.end as usize >= app_end {
        read(APP_DESCRIPTION_OFFSET, &mut app)?;
    }
    let secure_version = AppDescription::secure_version_of(app).unwrap_or_default();
    let is_signed = match signature_sector(limit_bytes, heads.end) {
        Some(sector) => {
            let mut block = SignatureBlock::starting_at(sector, Sha256([0; 32]));
            push_block(&mut block, sector, &mut [0; CHUNK_BYTES], &mut read)?;
            block.kind_fault().is_none()
        }
        None => false,
    };
    Ok(Ok(Guard { secure_version, is_signed }))
}

/// What the headers of an image tell.
struct Heads {
    hash_appended: bool,
    /// Where the image ends, its appended hash included.
    end: u32,
}

fn walk_heads<E>(
    limit_bytes: u32,
    read: &mut impl FnMut(u32, &mut [u8]) -> Result<(), E>,
) -> Result<Result<Heads, ImageError>, E> {
    let too_large = |needed_bytes: u64| ImageError::TooLarge { needed_bytes, limit_bytes };
    let mut head = [0; HEADER_BYTES as usize];
    if limit_bytes < HEADER_BYTES {
        return Ok(Err(too_large(u64::from(HEADER_BYTES))));
    }
    read(0, &mut head)?;
    let header = match ImageHeader::parse(&head) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let mut at = u64::from(HEADER_BYTES);
    for index in 0..header.segment_count {
        let data = at + u64::from(SEGMENT_HEADER_BYTES);
        let offset = match u32::try_from(at) {
            Ok(offset) if data <= u64::from(limit_bytes) => offset,
            _ => return Ok(Err(too_large(data))),
        };
        let mut segment = [0; SEGMENT_HEADER_BYTES as usize];
        read(offset, &mut segment)?;
        let [_, _, _, _, length @ ..] = segment;
        let found_bytes = u32::from_le_bytes(length);
        if found_bytes >= SEGMENT_BYTES_MAX || !found_bytes.is_multiple_of(4) {
            return Ok(Err(ImageError::SegmentLength { index, found_bytes }));
        }
        at = data + u64::from(found_bytes);
    }
    let hash_bytes = if header.hash_appended { u64::from(HASH_BYTES) } else { 0 };
    let end = (at + 1).next_multiple_of(u64::from(CHECKSUM_BLOCK_BYTES)) + hash_bytes;
    Ok(match u32::try_from(end) {
        Ok(end) if end <= limit_bytes => Ok(Heads { hash_appended: header.hash_appended, end }),
        _ => Err(too_large(end)),
    })
}

/// Where a sector with signatures would begin, if there is room for one.
fn signature_sector(limit_bytes: u32, image_end: u32) -> Option<u32> {
    let sector = image_end.checked_next_multiple_of(SECTOR_BYTES)?;
    sector.checked_add(SECTOR_BYTES).filter(|&end| end <= limit_bytes).map(|_| sector)
}

fn push_block<E>(
    block: &mut SignatureBlock,
    sector: u32,
    chunk: &mut [u8; CHUNK_BYTES],
    read: &mut impl FnMut(u32, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = 0;
    while at < SIGNATURE_BYTES {
        let piece = piece(chunk, SIGNATURE_BYTES - at);
        read(sector + at, piece)?;
        block.push(piece);
        at += u32::try_from(piece.len()).unwrap_or(u32::MAX);
    }
    Ok(())
}

/// Whether the image that `reader` has just finished is followed by a sector with signatures for
/// it. Looks ahead, since what follows may as well be left over from an older image.
fn has_signature<E>(
    limit_bytes: u32,
    reader: &ImageReader,
    chunk: &mut [u8; CHUNK_BYTES],
    read: &mut impl FnMut(u32, &mut [u8]) -> Result<(), E>,
) -> Result<bool, E> {
    let image_end = reader.taken_bytes();
    let Some(sector) = signature_sector(limit_bytes, image_end) else { return Ok(false) };
    let mut first = [0];
    read(sector, &mut first)?;
    if first != [SIGNATURE_MAGIC] {
        return Ok(false);
    }
    let mut padded = reader.clone();
    while padded.taken_bytes() < sector {
        let piece = piece(chunk, sector - padded.taken_bytes());
        read(padded.taken_bytes(), piece)?;
        if padded.push(piece).is_err() || piece.iter().any(|&byte| byte != 0xFF) {
            return Ok(false);
        }
    }
    let mut block = SignatureBlock::starting_at(sector, padded.sha256_so_far());
    push_block(&mut block, sector, chunk, read)?;
    Ok(block.fault().is_none())
}

/// The start of `chunk`, `length` bytes or as many as it has.
fn piece(chunk: &mut [u8; CHUNK_BYTES], length: u32) -> &mut [u8] {
    let length = (length as usize).min(CHUNK_BYTES);
    &mut chunk[..length]
}
