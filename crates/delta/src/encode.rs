//! Making patches, on a host.

extern crate std;

mod address;
mod copies;
mod esp;
mod shifts;

use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt;
use std::io::{self, Write as _};

use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};
use sha2::Digest as _;

use copies::Copy;

use crate::apply::{Apply, ApplyError, Input};
use crate::header::{Format, HEADER_BYTES, Header, ID_BYTES, stream_bytes_max};
use crate::lzma::DICTIONARY_BYTES;

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

impl EncodeError {
    /// bsdiff wrote what it does not write.
    fn not_bsdiff() -> Self {
        Self::Encoder(io::Error::other("control stream makes no sense"))
    }
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

/// The smallest of what there is that makes `new` from `old`. It has been applied once, and is
/// right. What cannot be the smallest, by a wide margin, is not compressed to find out.
pub fn smallest(old: &Image<'_>, new: &Image<'_>) -> Result<Vec<u8>, EncodeError> {
    check_sizes(old, new)?;
    let copies = Candidates::find(old.bytes, new.bytes)?;
    let plain = copies::plain_stream(&copies.plain, old.bytes, new.bytes);
    let patch = match aware_stream(&copies, old, new) {
        None => close(Format::Plain, &plain, old, new)?,
        Some(aware) if cost(&plain) > CLEARLY_MORE * cost(&aware) / 2 => {
            close(Format::AddressAware, &aware, old, new)?
        }
        Some(aware) => {
            let (plain, aware) = std::thread::scope(|scope| {
                let aware = scope.spawn(|| close(Format::AddressAware, &aware, old, new));
                (close(Format::Plain, &plain, old, new), joined(aware.join()))
            });
            let (plain, aware) = (plain?, aware?);
            if aware.len() < plain.len() { aware } else { plain }
        }
    };
    if patch.len() < new.bytes.len() / FULL_IS_TRIED_FROM {
        return Ok(patch);
    }
    let whole = full(new)?;
    Ok(if whole.len() < patch.len() { whole } else { patch })
}

/// What a thread has come to; if it panicked, so does this one.
fn joined<T>(result: std::thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What makes `new` from `old`, byte by byte. It has been applied once, and is right.
pub fn plain(old: &Image<'_>, new: &Image<'_>) -> Result<Vec<u8>, EncodeError> {
    check_sizes(old, new)?;
    let copies = copies::find(old.bytes, new.bytes)?;
    let stream = copies::plain_stream(&copies, old.bytes, new.bytes);
    close(Format::Plain, &stream, old, new)
}

/// The same, with what has moved predicted from the old image. `None`: one of them is no image of
/// ESP-IDF, they are for different processors, or one is so small that describing it costs more.
pub fn address_aware(old: &Image<'_>, new: &Image<'_>) -> Result<Option<Vec<u8>>, EncodeError> {
    check_sizes(old, new)?;
    let stream = aware_stream(&Candidates::find(old.bytes, new.bytes)?, old, new);
    stream.map(|stream| close(Format::AddressAware, &stream, old, new)).transpose()
}

/// Copies of the images as they are, and as they look without what refers to addresses.
struct Candidates {
    plain: Vec<Copy>,
    pair: Option<(address::Pair, Vec<Copy>)>,
}

impl Candidates {
    fn find(old: &[u8], new: &[u8]) -> Result<Self, EncodeError> {
        let (plain, pair) = std::thread::scope(|scope| {
            let plain = scope.spawn(|| copies::find(old, new));
            let pair = address::Pair::of(old, new).map(|pair| {
                let copies = pair.copies(old, new);
                copies.map(|copies| (pair, copies))
            });
            (joined(plain.join()), pair.transpose())
        });
        Ok(Self { plain: plain?, pair: pair? })
    }
}

/// The better of the streams that know of addresses, if the images are for it.
fn aware_stream(copies: &Candidates, old: &Image<'_>, new: &Image<'_>) -> Option<Vec<u8>> {
    let (pair, masked) = copies.pair.as_ref()?;
    let streams = [&copies.plain, masked].map(|copies| pair.stream(copies, old.bytes, new.bytes));
    let new_bytes = u32::try_from(new.bytes.len()).unwrap_or(u32::MAX);
    let stream = streams.into_iter().min_by_key(|stream| cost(stream))?;
    Some(stream).filter(|it| it.len() <= stream_bytes_max(new_bytes) as usize)
}

/// A patch of a stream.
fn close(
    format: Format,
    stream: &[u8],
    old: &Image<'_>,
    new: &Image<'_>,
) -> Result<Vec<u8>, EncodeError> {
    let body = compress(stream).map_err(EncodeError::Encoder)?;
    finish(format, old, new, stream.len(), body)
}

/// About what a stream costs when it is compressed: zeros nothing, what interrupts them the more.
fn cost(stream: &[u8]) -> usize {
    let bytes = stream.iter().filter(|&&byte| byte != 0).count();
    let interruptions =
        stream.windows(2).filter(|it| matches!(it, [0, next] if *next != 0)).count();
    bytes + INTERRUPTION_BYTES * interruptions
}

fn check_sizes(old: &Image<'_>, new: &Image<'_>) -> Result<(), EncodeError> {
    let mut sizes = [old, new].into_iter().map(|image| image.bytes.len());
    match sizes.find(|&size| size > IMAGE_BYTES_MAX as usize) {
        Some(size_bytes) => Err(EncodeError::TooLarge { size_bytes }),
        None => Ok(()),
    }
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let options = LzmaOptions {
        dict_size: u32::try_from(DICTIONARY_BYTES).unwrap_or(u32::MAX),
        lc: 0,
        lp: 0,
        pb: 0,
        mode: EncodeMode::Normal,
        nice_len: NICE_BYTES,
        mf: MfType::Bt4,
        depth_limit: 128,
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
/// A patch below this part of the new image is smaller than any compressed one.
const FULL_IS_TRIED_FROM: usize = 8;
/// Halves of a cost beyond which the other one is not compressed: half as much again.
const CLEARLY_MORE: usize = 3;
/// Matches as long as this are taken without a look for longer ones. The longest that LZMA knows
/// (273) would save 1.5 % of a patch, and cost half as much time again: a patch is mostly zeros.
const NICE_BYTES: u32 = 160;
/// What ends a run of zeros and begins another takes about so much.
const INTERRUPTION_BYTES: usize = 2;
/// A page of flash.
const PIECE_BYTES: usize = 256;
