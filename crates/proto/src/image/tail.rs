//! What follows an image in its file: padding, and perhaps a sector with signatures.
//!
//! Secure boot v2 pads the image with 0xFF to a flash sector and appends a sector with up to three
//! signature blocks of 1216 bytes. The first is recognised by its magic, its CRC, and the SHA-256
//! of what precedes it; whether a signature is good is the chip's business.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

use super::error::ImageError;
use super::secure_boot::{BadSignature, SHA_384, VERSION_ECDSA, VERSION_RSA};
use crate::id::Sha256;

/// Length of a flash sector, and of the sector with signatures.
pub(super) const SECTOR_BYTES: u32 = 4096;
/// First byte of a signature block.
pub(super) const SIGNATURE_MAGIC: u8 = 0xE7;
/// The part of a signature block that its CRC covers.
const SIGNED_BYTES: u32 = 1196;
/// The part that is looked at: everything up to its CRC.
pub(super) const SIGNATURE_BYTES: u32 = 1200;

/// Follows the bytes behind an image.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    start: u32,
    signature: Option<SignatureBlock>,
    /// Something was met that does not belong there.
    stray: bool,
}

impl Tail {
    pub(super) const fn starting_at(start: u32) -> Self {
        Self { start, signature: None, stray: false }
    }

    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    /// Where the sector with signatures begins, if there is one.
    pub(super) fn signature_at(&self) -> Option<u32> {
        self.signature.as_ref().map(|block| block.sector)
    }

    /// Bytes are taken in steps that never cross a sector.
    pub(super) const fn step_bytes_max(at: u32) -> u32 {
        SECTOR_BYTES - at % SECTOR_BYTES
    }

    /// Takes bytes of one sector that begin at `at`; `before` gives the SHA-256 of all before them.
    pub(super) fn push(&mut self, bytes: &[u8], at: u32, before: impl FnOnce() -> Sha256) {
        let sector = at - at % SECTOR_BYTES;
        match &mut self.signature {
            Some(block) if block.sector == sector => block.push(bytes),
            None if at == sector && bytes.first() == Some(&SIGNATURE_MAGIC) => {
                let mut block = SignatureBlock::starting_at(sector, before());
                block.push(bytes);
                self.signature = Some(block);
            }
            _ => self.stray |= bytes.iter().any(|&byte| byte != 0xFF),
        }
    }

    /// Where image and signature end, if nothing else came before `end`.
    pub(super) fn size_bytes(&self, end: u32) -> Result<u32, ImageError> {
        let signature_end = self.signature.as_ref().map(|block| (block, block.sector_end()));
        match signature_end {
            _ if self.stray => {}
            None => return Ok(self.start),
            Some((block, Some(sector_end))) if end >= sector_end => {
                let bad = |why| ImageError::Signature { offset: block.sector, why };
                return block.fault().map_or(Ok(sector_end), |why| Err(bad(why)));
            }
            Some(_) => {}
        }
        Err(ImageError::Trailing { image_bytes: self.start, found_bytes: end })
    }
}

/// Follows one signature block.
#[derive(Debug, Clone)]
pub(super) struct SignatureBlock {
    sector: u32,
    signed: Sha256,
    at: u32,
    crc: u32,
    crc_found: u32,
    kind: [u8; 4],
    signed_matches: bool,
}

impl SignatureBlock {
    /// A block at the start of `sector`; `signed` is the SHA-256 of all before it.
    pub(super) const fn starting_at(sector: u32, signed: Sha256) -> Self {
        let kind = [0; 4];
        Self { sector, signed, at: 0, crc: 0, crc_found: 0, kind, signed_matches: true }
    }

    /// The end of its sector; `None` beyond 4 GiB.
    const fn sector_end(&self) -> Option<u32> {
        self.sector.checked_add(SECTOR_BYTES)
    }

    /// Takes the next bytes; those behind the block are not looked at.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let at = self.at as usize;
            if let Some(kind) = self.kind.get_mut(at) {
                *kind = byte;
            } else if let Some(signed) = self.signed.0.get(at - self.kind.len()) {
                self.signed_matches &= *signed == byte;
            }
            if self.at < SIGNED_BYTES {
                // Continued as in zlib, from its result so far.
                let mut digest = CRC.digest_with_initial((!self.crc).reverse_bits());
                digest.update(&[byte]);
                self.crc = digest.finalize();
            } else if self.at < SIGNATURE_BYTES {
                self.crc_found = self.crc_found >> 8 | u32::from(byte) << 24;
            } else {
                return;
            }
            self.at += 1;
        }
    }

    /// What is wrong with it, once all of it was seen.
    pub(super) const fn fault(&self) -> Option<BadSignature> {
        let [_, version, sha, _] = self.kind;
        // A block for P-384 holds a SHA-384, which is not computed here.
        let is_384 = version == VERSION_ECDSA && sha == SHA_384;
        match self.kind_fault() {
            None if !self.signed_matches && !is_384 => Some(BadSignature::OtherImage),
            fault => fault,
        }
    }

    /// The same, whatever it was made for.
    pub(super) const fn kind_fault(&self) -> Option<BadSignature> {
        let [magic, found, ..] = self.kind;
        if magic != SIGNATURE_MAGIC || !matches!(found, VERSION_RSA | VERSION_ECDSA) {
            return Some(BadSignature::Version { found });
        }
        let is_whole = self.at == SIGNATURE_BYTES && self.crc == self.crc_found;
        if is_whole { None } else { Some(BadSignature::Crc) }
    }
}

const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);
