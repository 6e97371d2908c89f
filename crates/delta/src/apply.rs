//! Making the new image: pulled front to back, a piece at a time.
//!
//! ```text
//! body, decompressed:  ( copy length, that many differences,
//!                        extra length, that many bytes,
//!                        signed step in the old image )*
//! ```
//!
//! What would follow the last byte of the new image is left out. A difference is added to the byte
//! of the old image that lies at the place reached there.

use core::fmt;

use crate::header::{Format, Header};
use crate::lzma::{Lzma, LzmaError};
use crate::varint::{self, Varint};

/// Where the bytes are.
pub trait Input {
    /// Why some cannot be had.
    type Error;

    /// Bytes of the patch's body, from `offset` behind its header on.
    fn body(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Bytes of the old image.
    fn old(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// A patch that is being applied.
#[derive(Clone)]
pub struct Apply {
    header: Header,
    lzma: Lzma,
    state: State,
    /// Bytes of the new image that have been made.
    made_bytes: u32,
    /// Where in the old image the next difference belongs.
    old_at: u32,
    /// Bytes that came out of the body.
    stream_bytes: u32,
    body: Buffer,
}

/// What comes next out of the body.
#[derive(Debug, Clone, Copy)]
enum State {
    Number(Number, Varint),
    Copy { left: u32 },
    Extra { left: u32 },
}

/// What a number says.
#[derive(Debug, Clone, Copy)]
enum Number {
    CopyLength,
    ExtraLength,
    Step,
}

impl State {
    const fn begin(number: Number) -> Self {
        Self::Number(number, Varint::new())
    }
}

impl Apply {
    /// Begins with the first byte of the new image.
    pub const fn new(header: Header) -> Self {
        let state = match header.format {
            Format::Full => State::Extra { left: header.new_bytes },
            Format::Plain => State::begin(Number::CopyLength),
        };
        Self {
            header,
            lzma: Lzma::new(),
            state,
            made_bytes: 0,
            old_at: 0,
            stream_bytes: 0,
            body: Buffer { bytes: [0; BUFFER_BYTES], at: 0, left_bytes: 0, offset: 0 },
        }
    }

    /// Bytes of the new image that have been made.
    pub const fn made_bytes(&self) -> u32 {
        self.made_bytes
    }

    /// Bytes of the patch's body that are not needed any more.
    pub const fn taken_bytes(&self) -> u32 {
        self.body.offset - self.body.left_bytes
    }

    /// Makes the next bytes of the new image. Returns how many: fewer than `out` has room for only
    /// at its end, and 0 behind it. After an error there is no more.
    pub fn pull<I: Input>(
        &mut self,
        input: &mut I,
        out: &mut [u8],
    ) -> Result<usize, ApplyError<I::Error>> {
        let mut at = 0;
        while at < out.len() && self.made_bytes < self.header.new_bytes {
            let room = out.get_mut(at..).unwrap_or_default();
            at += self.step(input, room)?;
        }
        if self.made_bytes == self.header.new_bytes {
            self.check_end()?;
        }
        Ok(at)
    }

    /// Reads a number of the body, or makes some bytes. Returns how many.
    fn step<I: Input>(
        &mut self,
        input: &mut I,
        room: &mut [u8],
    ) -> Result<usize, ApplyError<I::Error>> {
        match self.state {
            State::Number(which, mut varint) => {
                let byte = self.next(input)?;
                self.state = match varint.push(byte) {
                    Ok(Some(number)) => self.take_number(which, number)?,
                    Ok(None) => State::Number(which, varint),
                    Err(()) => {
                        return Err(ApplyError::Corrupt { body_offset: self.taken_bytes() });
                    }
                };
                Ok(0)
            }
            State::Copy { left: 0 } => {
                self.state = State::begin(Number::ExtraLength);
                Ok(0)
            }
            State::Extra { left: 0 } => {
                self.state = State::begin(Number::Step);
                Ok(0)
            }
            State::Copy { left } => self.copy(left, input, room),
            State::Extra { left } => self.extra(left, input, room),
        }
    }

    fn copy<I: Input>(
        &mut self,
        left: u32,
        input: &mut I,
        room: &mut [u8],
    ) -> Result<usize, ApplyError<I::Error>> {
        let (room, len_bytes) = front(room, left);
        input.old(self.old_at, room).map_err(ApplyError::Input)?;
        for byte in room.iter_mut() {
            *byte = byte.wrapping_add(self.next(input)?);
        }
        self.old_at += len_bytes;
        self.made_bytes += len_bytes;
        self.state = State::Copy { left: left - len_bytes };
        Ok(room.len())
    }

    fn extra<I: Input>(
        &mut self,
        left: u32,
        input: &mut I,
        room: &mut [u8],
    ) -> Result<usize, ApplyError<I::Error>> {
        let (room, len_bytes) = front(room, left);
        for byte in room.iter_mut() {
            *byte = self.next(input)?;
        }
        self.made_bytes += len_bytes;
        self.state = State::Extra { left: left - len_bytes };
        Ok(room.len())
    }

    /// The next byte of the body. Which, there are no more of than the header says: this is what
    /// bounds the time that a patch may take.
    fn next<I: Input>(&mut self, input: &mut I) -> Result<u8, ApplyError<I::Error>> {
        if self.stream_bytes == self.header.stream_bytes {
            return Err(ApplyError::LongerThanSaid { stream_bytes: self.header.stream_bytes });
        }
        let (body, body_bytes) = (&mut self.body, self.header.body_bytes);
        let byte = self.lzma.next(&mut || body.next(input, body_bytes));
        self.stream_bytes += 1;
        byte.map_err(|error| match error {
            LzmaError::Input(error) => error,
            LzmaError::Corrupt => ApplyError::Corrupt { body_offset: self.taken_bytes() },
        })
    }

    /// What a number says is checked before anything is done by it.
    fn take_number<E>(&mut self, which: Number, number: u32) -> Result<State, ApplyError<E>> {
        match which {
            Number::CopyLength => {
                self.check_copy(number)?;
                Ok(State::Copy { left: number })
            }
            Number::ExtraLength => {
                self.check_new(number)?;
                Ok(State::Extra { left: number })
            }
            Number::Step => {
                self.go(varint::to_signed(number))?;
                Ok(State::begin(Number::CopyLength))
            }
        }
    }

    const fn check_new<E>(&self, len_bytes: u32) -> Result<(), ApplyError<E>> {
        let (at, new_bytes) = (self.made_bytes, self.header.new_bytes);
        if len_bytes <= new_bytes - at {
            Ok(())
        } else {
            Err(ApplyError::OutsideNew { at, len_bytes, new_bytes })
        }
    }

    fn check_copy<E>(&self, len_bytes: u32) -> Result<(), ApplyError<E>> {
        self.check_new(len_bytes)?;
        let (at, old_bytes) = (self.old_at, self.header.old_bytes);
        if len_bytes <= old_bytes - at {
            Ok(())
        } else {
            Err(ApplyError::OutsideOld { at: at.into(), len_bytes, old_bytes })
        }
    }

    fn go<E>(&mut self, step: i32) -> Result<(), ApplyError<E>> {
        let (to, old_bytes) = (i64::from(self.old_at) + i64::from(step), self.header.old_bytes);
        match u32::try_from(to).ok().filter(|&to| to <= old_bytes) {
            Some(to) => {
                self.old_at = to;
                Ok(())
            }
            None => Err(ApplyError::OutsideOld { at: to, len_bytes: 0, old_bytes }),
        }
    }

    const fn check_end<E>(&self) -> Result<(), ApplyError<E>> {
        let (found, said) = (self.stream_bytes, self.header.stream_bytes);
        if found == said { Ok(()) } else { Err(ApplyError::ShorterThanSaid { found, said }) }
    }
}

/// The front of `room`, at most `left` bytes of it, and how many these are.
fn front(room: &mut [u8], left: u32) -> (&mut [u8], u32) {
    let len_bytes = u32::try_from(room.len()).unwrap_or(u32::MAX).min(left);
    (room.get_mut(..len_bytes as usize).unwrap_or_default(), len_bytes)
}

/// A piece of the body.
#[derive(Clone)]
struct Buffer {
    bytes: [u8; BUFFER_BYTES],
    /// The next one.
    at: usize,
    /// So many are here.
    left_bytes: u32,
    /// Of the body's first byte that is not here yet.
    offset: u32,
}

impl Buffer {
    fn next<I: Input>(
        &mut self,
        input: &mut I,
        body_bytes: u32,
    ) -> Result<u8, ApplyError<I::Error>> {
        if self.left_bytes == 0 {
            let (piece, len_bytes) = front(&mut self.bytes, body_bytes - self.offset);
            if piece.is_empty() {
                return Err(ApplyError::Ends { body_bytes });
            }
            input.body(self.offset, piece).map_err(ApplyError::Input)?;
            (self.at, self.left_bytes) = (0, len_bytes);
            self.offset += len_bytes;
        }
        let byte = self.bytes.get(self.at).copied().unwrap_or_default();
        (self.at, self.left_bytes) = (self.at + 1, self.left_bytes - 1);
        Ok(byte)
    }
}

/// Why a patch makes no image. Whoever applies it takes the whole image instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyError<E> {
    /// Bytes could not be had.
    Input(E),
    /// The body ends before the image does.
    Ends {
        /// Its size.
        body_bytes: u32,
    },
    /// The body is not what an encoder writes.
    Corrupt {
        /// About here.
        body_offset: u32,
    },
    /// It would copy from outside the old image.
    OutsideOld {
        /// From where.
        at: i64,
        /// How much.
        len_bytes: u32,
        /// The old image's size.
        old_bytes: u32,
    },
    /// It would write behind the new image's end.
    OutsideNew {
        /// From where.
        at: u32,
        /// How much.
        len_bytes: u32,
        /// The new image's size.
        new_bytes: u32,
    },
    /// The body decompresses to more than the header says.
    LongerThanSaid {
        /// What it says.
        stream_bytes: u32,
    },
    /// The image is made, and the body is not at its end.
    ShorterThanSaid {
        /// Bytes that came out of it.
        found: u32,
        /// What the header says.
        said: u32,
    },
}

impl<E: fmt::Display> fmt::Display for ApplyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(_) => write!(f, "patch or old image cannot be read"),
            Self::Ends { body_bytes } => {
                write!(f, "patch ends after {body_bytes} bytes, before the image does")
            }
            Self::Corrupt { body_offset } => write!(f, "patch is corrupt near byte {body_offset}"),
            Self::OutsideOld { at, len_bytes, old_bytes } => {
                write!(f, "patch copies {len_bytes} bytes from {at} of an image of {old_bytes}")
            }
            Self::OutsideNew { at, len_bytes, new_bytes } => {
                write!(f, "patch writes {len_bytes} bytes at {at} of an image of {new_bytes}")
            }
            Self::LongerThanSaid { stream_bytes } => {
                write!(f, "patch decompresses to more than the {stream_bytes} bytes that it says")
            }
            Self::ShorterThanSaid { found, said } => {
                write!(f, "patch decompresses to {found} bytes, it says {said}")
            }
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for ApplyError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Input(error) => Some(error),
            _ => None,
        }
    }
}

/// Read from flash at once: a few pages' worth of calls instead of one for each byte.
const BUFFER_BYTES: usize = 256;
