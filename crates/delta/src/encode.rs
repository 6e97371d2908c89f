//! Making patches, on a host.

extern crate std;

use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt;
use std::io::{self, Write as _};

use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};
use sha2::Digest as _;

use crate::apply::{Apply, ApplyError, Input};
use crate::header::{Format, HEADER_BYTES, Header, ID_BYTES};
use crate::lzma::DICTIONARY_BYTES;
use crate::varint;

/// An image, and by what devices know it.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// Its identity.
    pub id: [u8; ID_BYTES],
}

/// Why there is no patch.
#[derive(Debug)]
pub enum EncodeError {
    /// An image is larger than a patch can say.
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// An encoder failed.
    Encoder(io::Error),
    /// What was made does not make the new image: a bug, found before it does harm.
    DoesNotApply(ApplyError<Infallible>),
    /// The same: it makes another image.
    MakesAnother,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size_bytes } => {
                write!(f, "image has {size_bytes} bytes, a patch reaches {IMAGE_BYTES_MAX}")
            }
            Self::Encoder(_) => write!(f, "image cannot be compressed"),
            Self::DoesNotApply(_) => write!(f, "patch does not apply; this is a bug"),
            Self::MakesAnother => write!(f, "patch makes another image; this is a bug"),
        }
    }
}

impl core::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Encoder(error) => Some(error),
            Self::DoesNotApply(error) => Some(error),
            Self::TooLarge { .. } | Self::MakesAnother => None,
        }
    }
}

/// An image, compressed: for whoever does not run what a patch is for.
pub fn full(new: &Image<'_>) -> Result<Vec<u8>, EncodeError> {
    let nothing = Image { bytes: &[], id: [0; ID_BYTES] };
    let body = compress(new.bytes).map_err(EncodeError::Encoder)?;
    finish(Format::Full, &nothing, new, new.bytes.len(), body)
}

/// The smallest of what there is that makes `new` from `old`.
pub fn smallest(old: &Image<'_>, new: &Image<'_>) -> Result<Vec<u8>, EncodeError> {
    plain(old, new)
}

/// What makes `new` from `old`. It has been applied once, and is right.
pub fn plain(old: &Image<'_>, new: &Image<'_>) -> Result<Vec<u8>, EncodeError> {
    for image in [old, new] {
        if u32::try_from(image.bytes.len()).is_ok_and(|size| size <= IMAGE_BYTES_MAX) {
            continue;
        }
        return Err(EncodeError::TooLarge { size_bytes: image.bytes.len() });
    }
    let mut controls = Vec::new();
    bsdiff::diff(old.bytes, new.bytes, &mut controls).map_err(EncodeError::Encoder)?;
    let stream = sequence(&controls, new.bytes.len()).map_err(EncodeError::Encoder)?;
    let body = compress(&stream).map_err(EncodeError::Encoder)?;
    finish(Format::Plain, old, new, stream.len(), body)
}

/// From bsdiff's own words, 24 bytes before each copy, to ours.
fn sequence(controls: &[u8], new_bytes: usize) -> io::Result<Vec<u8>> {
    let bad = || io::Error::other("bsdiff wrote what it does not write");
    let mut rest = controls;
    let mut take = |len: usize| -> io::Result<&[u8]> {
        let (front, back) = rest.split_at_checked(len).ok_or_else(bad)?;
        rest = back;
        Ok(front)
    };
    let mut stream = Vec::with_capacity(controls.len());
    let mut made = 0;
    while made < new_bytes {
        let numbers = take(24)?;
        let number = |index: usize| {
            let bytes = numbers.get(index * 8..).and_then(<[u8]>::first_chunk);
            sign_and_size(bytes.copied().unwrap_or_default())
        };
        let length = |index| number(index).and_then(|it| u32::try_from(it).ok()).ok_or_else(bad);
        let (copy, extra) = (length(0)?, length(1)?);
        let step = number(2).and_then(|it| i32::try_from(it).ok()).ok_or_else(bad)?;
        varint::put(&mut stream, copy);
        stream.extend(take(copy as usize)?);
        made += copy as usize;
        if made == new_bytes {
            break;
        }
        varint::put(&mut stream, extra);
        stream.extend(take(extra as usize)?);
        made += extra as usize;
        if made < new_bytes {
            varint::put(&mut stream, varint::from_signed(step));
        }
    }
    Ok(stream)
}

/// A number as bsdiff writes it: its size, and its sign in the highest bit.
fn sign_and_size(bytes: [u8; 8]) -> Option<i64> {
    let number = u64::from_le_bytes(bytes);
    let size = i64::try_from(number & (u64::MAX >> 1)).ok()?;
    Some(if number >> 63 == 0 { size } else { -size })
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let options = LzmaOptions {
        dict_size: u32::try_from(DICTIONARY_BYTES).unwrap_or(u32::MAX),
        lc: 0,
        lp: 0,
        pb: 0,
        mode: EncodeMode::Normal,
        nice_len: 273,
        mf: MfType::Bt4,
        depth_limit: 512,
        preset_dict: None,
    };
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
    writer.write_all(bytes)?;
    writer.finish()
}

/// Puts the header before the body, once it is known how much room it needs, and that it is right.
fn finish(
    format: Format,
    old: &Image<'_>,
    new: &Image<'_>,
    stream_bytes: usize,
    mut body: Vec<u8>,
) -> Result<Vec<u8>, EncodeError> {
    let size = |bytes: usize| {
        u32::try_from(bytes).map_err(|_| EncodeError::TooLarge { size_bytes: bytes })
    };
    let header = Header {
        format,
        old_bytes: size(old.bytes.len())?,
        new_bytes: size(new.bytes.len())?,
        stream_bytes: size(stream_bytes)?,
        body_bytes: size(body.len())?,
        room_bytes: u32::MAX,
        old: old.id,
        new: new.id,
        body_sha256: [0; ID_BYTES],
    };
    let (room_bytes, taken_bytes) = try_out(&header, &body, old.bytes, new.bytes)?;
    // What the encoder flushes at the end is never read.
    body.truncate(taken_bytes as usize);
    let body_sha256 = sha2::Sha256::digest(&body).into();
    let header = Header { body_bytes: taken_bytes, room_bytes, body_sha256, ..header };
    let mut patch = header.encode().to_vec();
    patch.extend(body);
    Ok(patch)
}

/// Applies the patch. Returns how much room that needs, and how much of the body.
fn try_out(
    header: &Header,
    body: &[u8],
    old: &[u8],
    new: &[u8],
) -> Result<(u32, u32), EncodeError> {
    let mut apply = Apply::new(*header);
    let mut input = Slices { body, old };
    let mut unread_at_most = Vec::new();
    let mut piece = [0; PIECE_BYTES];
    loop {
        let from = apply.made_bytes() as usize;
        let made = apply.pull(&mut input, &mut piece).map_err(EncodeError::DoesNotApply)?;
        if piece.get(..made) != new.get(from..from + made) {
            return Err(EncodeError::MakesAnother);
        }
        if made == 0 {
            break;
        }
        unread_at_most.push((apply.made_bytes(), apply.taken_bytes()));
    }
    let body_bytes = apply.taken_bytes();
    // A piece is written when it is made: what is not taken by then must lie behind it.
    let room = unread_at_most.iter().map(|(made, taken)| made + (body_bytes - taken)).max();
    let whole = u32::try_from(HEADER_BYTES).unwrap_or(0) + body_bytes;
    Ok((room.unwrap_or(0).max(header.new_bytes).max(whole), body_bytes))
}

/// Old image and body in memory.
pub(crate) struct Slices<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) old: &'a [u8],
}

impl Input for Slices<'_> {
    type Error = Infallible;

    fn body(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Infallible> {
        copy(self.body, offset, into);
        Ok(())
    }

    fn old(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Infallible> {
        copy(self.old, offset, into);
        Ok(())
    }
}

/// What is asked for has been checked: it is there.
fn copy(from: &[u8], offset: u32, into: &mut [u8]) {
    let part = from.get(offset as usize..).unwrap_or_default();
    into.iter_mut().zip(part).for_each(|(place, byte)| *place = *byte);
}

/// Makes the image that a patch says from the old one: what a device does, in memory.
pub fn apply(patch: &[u8], old: &[u8]) -> Result<Vec<u8>, ApplyFault> {
    let header = Header::decode(patch).map_err(ApplyFault::Header)?;
    let body = patch.get(HEADER_BYTES..).unwrap_or_default();
    if body.len() != header.body_bytes as usize {
        return Err(ApplyFault::Body { found: body.len(), said: header.body_bytes });
    }
    if old.len() != header.old_bytes as usize {
        return Err(ApplyFault::Old { found: old.len(), said: header.old_bytes });
    }
    let mut apply = Apply::new(header);
    let (mut new, mut piece) = (Vec::new(), [0; PIECE_BYTES]);
    loop {
        let made = apply.pull(&mut Slices { body, old }, &mut piece).map_err(ApplyFault::Apply)?;
        if made == 0 {
            return Ok(new);
        }
        new.extend(piece.get(..made).unwrap_or_default());
    }
}

/// Why a patch in memory makes no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyFault {
    /// Its header says so.
    Header(crate::HeaderError),
    /// Its body is of another size.
    Body {
        /// What there is.
        found: usize,
        /// What the header says.
        said: u32,
    },
    /// It is for an image of another size.
    Old {
        /// What there is.
        found: usize,
        /// What the header says.
        said: u32,
    },
    /// Its body says so.
    Apply(ApplyError<Infallible>),
}

impl fmt::Display for ApplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => write!(f, "{error}"),
            Self::Body { found, said } => write!(f, "patch has {found} bytes, it says {said}"),
            Self::Old { found, said } => {
                write!(f, "old image has {found} bytes, the patch is for one of {said}")
            }
            Self::Apply(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for ApplyFault {}

/// More than the flash of any board, and less than what a step in it can say.
const IMAGE_BYTES_MAX: u32 = 1 << 30;
/// A page of flash.
const PIECE_BYTES: usize = 256;
