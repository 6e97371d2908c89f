//! What chips with secure boot v2 and anti-rollback look at: signature blocks, and the version that
//! is compared with fuses.
//!
//! A signature itself is never judged here: whether it is good, and by a key that counts, is the
//! chip's business. What is judged is whether a block was made for the image that it follows.

use core::fmt;

use sha2::{Digest as _, Sha256 as Hasher, Sha384};

use super::tail::{SIGNATURE_MAGIC, SignatureBlock};
use crate::id::Sha256;

/// What a chip's bootloader may demand of an image beyond its being whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guard {
    /// Compared with the chip's anti-rollback fuses: an image below them does not boot.
    pub secure_version: u32,
    /// A sector with signatures of secure boot v2 belongs to the image.
    pub is_signed: bool,
}

/// Why a signature sector does not belong to the image before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSignature {
    /// Of a kind that secure boot v2 does not know.
    Version {
        /// The number of its kind; 2 is RSA, 3 is ECDSA.
        found: u8,
    },
    /// It was damaged, as its CRC says.
    Crc,
    /// It was made for another image, or the image was changed afterwards.
    OtherImage,
}

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => write!(f, "it is of kind {found}, expected 2 or 3"),
            Self::Crc => write!(f, "it was damaged, as its CRC says"),
            Self::OtherImage => write!(f, "it was made for other bytes than stand before it"),
        }
    }
}

/// How a block was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// RSA-PSS with 3072 bits.
    Rsa3072,
    /// ECDSA on the curve of 192 bits.
    EcdsaP192,
    /// ECDSA on the curve of 256 bits.
    EcdsaP256,
    /// ECDSA on the curve of 384 bits.
    EcdsaP384,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rsa3072 => "RSA-3072",
            Self::EcdsaP192 => "ECDSA-192",
            Self::EcdsaP256 => "ECDSA-256",
            Self::EcdsaP384 => "ECDSA-384",
        })
    }
}

/// One signature of an image, as its block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// Key and curve; `None`: of a kind that is not known here.
    pub scheme: Option<Scheme>,
    /// SHA-256 of the public key, as `espsecure` prints it and the chip's fuses hold it.
    pub key_digest: Sha256,
    /// What is wrong with the block, if something is.
    pub fault: Option<BadSignature>,
}

/// The blocks of a signature sector, in their order; `signed` is all that stands before it.
pub fn signature_blocks(signed: &[u8], sector: &[u8]) -> heapless::Vec<SignedBy, BLOCKS_MAX> {
    sector
        .chunks_exact(BLOCK_BYTES)
        .take(BLOCKS_MAX)
        .filter_map(|block| block.first_chunk::<BLOCK_BYTES>())
        .take_while(|block| block[0] == SIGNATURE_MAGIC)
        .map(|block| signed_by(signed, block))
        .collect()
}

fn signed_by(signed: &[u8], block: &[u8; BLOCK_BYTES]) -> SignedBy {
    let [_, version, sha, ..] = *block;
    let is_384 = (version, sha) == (VERSION_ECDSA, SHA_384);
    let key = match (version, is_384) {
        (VERSION_RSA, _) => &block[36..812],
        (_, true) => &block[52..149],
        (_, false) => &block[36..101],
    };
    let scheme = match (version, key[0]) {
        (VERSION_RSA, _) => Some(Scheme::Rsa3072),
        (VERSION_ECDSA, 1) if !is_384 => Some(Scheme::EcdsaP192),
        (VERSION_ECDSA, 2) if !is_384 => Some(Scheme::EcdsaP256),
        (VERSION_ECDSA, 3) if is_384 => Some(Scheme::EcdsaP384),
        _ => None,
    };
    let mut checked = SignatureBlock::starting_at(0, Sha256(Hasher::digest(signed).into()));
    checked.push(block);
    let is_of_other = is_384 && Sha384::digest(signed).as_slice() != &block[4..52];
    let fault = checked.fault().or(is_of_other.then_some(BadSignature::OtherImage));
    SignedBy { scheme, key_digest: Sha256(Hasher::digest(key).into()), fault }
}

/// Kinds of blocks.
pub(super) const VERSION_RSA: u8 = 2;
pub(super) const VERSION_ECDSA: u8 = 3;
/// A block of ECDSA that holds a SHA-384.
pub(super) const SHA_384: u8 = 1;
/// Length of a block.
const BLOCK_BYTES: usize = 1216;
/// A sector has room for so many.
pub const BLOCKS_MAX: usize = 3;
