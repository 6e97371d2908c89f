//! Making the new image: pulled front to back, a piece at a time.
//!
//! ```text
//! body, decompressed:  ( copy length, that many differences,
//!                        extra length, that many bytes,
//!                        signed step in the old image )*
//! ```
//!
//! What would follow the last byte of the new image is left out. A difference is added to the byte
//! of the old image that lies at the place reached there; in a body that knows of addresses, to
//! what that is predicted to become ([`crate::predict`]). Such a one begins with what predictions
//! are made from:
//!
//! ```text
//! machine (0 Xtensa, 1 RISC-V),
//! parts of the old image: how many, ( bytes since the part before, its bytes * 2 + 1 if code,
//!                                     its address )*
//! parts of the new image: likewise
//! on RISC-V: `gp` in the old image, in the new one
//! shifts: how many, ( how far from the one before, signed: how much more or less )*
//! ```

use core::fmt;

use crate::header::{Format, Header};
use crate::lzma::{Lzma, LzmaError};
use crate::predict::{
    LOOKAHEAD_BYTES, Machine, Predictor, REGIONS_MAX, Region, Regions, SHIFTS_MAX, Shift,
};
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
    predictor: Predictor,
    window: Window,
    ready: Ready,
}

/// What comes next out of the body.
#[derive(Debug, Clone, Copy)]
enum State {
    /// What predictions are made from.
    Description,
    Number(Number),
    Copy {
        left: u32,
    },
    Extra {
        left: u32,
    },
}

/// What a number says.
#[derive(Debug, Clone, Copy)]
enum Number {
    CopyLength,
    ExtraLength,
    Step,
}

impl Apply {
    /// Begins with the first byte of the new image.
    pub const fn new(header: Header) -> Self {
        let state = match header.format {
            Format::Full => State::Extra { left: header.new_bytes },
            Format::Plain => State::Number(Number::CopyLength),
            Format::AddressAware => State::Description,
        };
        Self {
            header,
            lzma: Lzma::new(),
            state,
            made_bytes: 0,
            old_at: 0,
            stream_bytes: 0,
            body: Buffer { bytes: [0; BUFFER_BYTES], at: 0, left_bytes: 0, offset: 0 },
            predictor: Predictor::new(),
            window: Window { bytes: [0; WINDOW_BYTES], offset: 0, len_bytes: 0 },
            ready: Ready { bytes: [0; 4], at: 0, end: 0 },
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
        if !self.ready.is_empty() {
            let len_bytes = self.ready.hand_out(room);
            self.made_bytes += len_bytes;
            return Ok(len_bytes as usize);
        }
        self.state = match self.state {
            State::Description => self.describe(input)?,
            State::Number(which) => {
                let number = self.number(input)?;
                self.take_number(which, number)?
            }
            State::Copy { left: 0 } => State::Number(Number::ExtraLength),
            State::Extra { left: 0 } => State::Number(Number::Step),
            State::Copy { left } if self.header.format == Format::AddressAware => {
                self.unit(left, input)?
            }
            State::Copy { left } => return self.copy(left, input, room),
            State::Extra { left } => return self.extra(left, input, room),
        };
        Ok(0)
    }

    fn number<I: Input>(&mut self, input: &mut I) -> Result<u32, ApplyError<I::Error>> {
        let mut varint = Varint::new();
        loop {
            let byte = self.next(input)?;
            if let Some(number) = varint.push(byte).map_err(|()| self.corrupt())? {
                return Ok(number);
            }
        }
    }

    const fn corrupt<E>(&self) -> ApplyError<E> {
        ApplyError::Corrupt { body_offset: self.taken_bytes() }
    }

    /// Reads what predictions are made from.
    fn describe<I: Input>(&mut self, input: &mut I) -> Result<State, ApplyError<I::Error>> {
        let found = self.number(input)?;
        let machine = Machine::from_code(found).ok_or(ApplyError::Machine { found })?;
        self.predictor.machine = machine;
        self.predictor.old = self.regions(input)?;
        self.predictor.new = self.regions(input)?;
        if machine == Machine::RiscV {
            self.predictor.global = (self.number(input)?, self.number(input)?);
        }
        let count = self.count("shifts", SHIFTS_MAX, input)?;
        let mut shift = Shift { from: 0, by: 0 };
        for _ in 0..count {
            let further = self.number(input)?;
            shift.from = shift.from.checked_add(further).ok_or_else(|| self.corrupt())?;
            let more = varint::to_signed(self.number(input)?);
            shift.by = shift.by.wrapping_add_signed(more);
            self.predictor.shifts.push(shift);
        }
        Ok(State::Number(Number::CopyLength))
    }

    fn regions<I: Input>(&mut self, input: &mut I) -> Result<Regions, ApplyError<I::Error>> {
        let mut regions = Regions::EMPTY;
        let mut end = 0_u32;
        for _ in 0..self.count("parts", REGIONS_MAX, input)? {
            let gap = self.number(input)?;
            let size = self.number(input)?;
            let start = end.checked_add(gap).ok_or_else(|| self.corrupt())?;
            end = start.checked_add(size >> 1).ok_or_else(|| self.corrupt())?;
            let address = self.number(input)?;
            regions.push(Region { start, end, address, is_code: size & 1 == 1 });
        }
        Ok(regions)
    }

    fn count<I: Input>(
        &mut self,
        what: &'static str,
        max: usize,
        input: &mut I,
    ) -> Result<u32, ApplyError<I::Error>> {
        let found = self.number(input)?;
        if found as usize <= max {
            Ok(found)
        } else {
            Err(ApplyError::TooMany { what, found, max })
        }
    }

    /// Makes the next bytes of a copy, to be handed out.
    fn unit<I: Input>(&mut self, left: u32, input: &mut I) -> Result<State, ApplyError<I::Error>> {
        let window = self.window.from(self.old_at, self.header.old_bytes, input)?;
        let old = window.first_chunk().copied().unwrap_or_else(|| padded(window));
        let unit = self.predictor.unit(window, left, self.old_at, self.made_bytes);
        let mut difference = [0; 4];
        for place in difference.iter_mut().take(unit.len_bytes as usize) {
            *place = self.next(input)?;
        }
        let old = u32::from_le_bytes(old) & unit.mask();
        let made = unit.make(old, u32::from_le_bytes(difference));
        self.predictor.take(&unit, made);
        self.ready = Ready { bytes: made.to_le_bytes(), at: 0, end: unit.len_bytes };
        self.old_at += unit.len_bytes;
        Ok(State::Copy { left: left - unit.len_bytes })
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
            LzmaError::Corrupt => self.corrupt(),
        })
    }

    /// What a number says is checked before anything is done by it.
    fn take_number<E>(&mut self, which: Number, number: u32) -> Result<State, ApplyError<E>> {
        match which {
            Number::CopyLength => {
                self.check_copy(number)?;
                self.predictor.begin_copy();
                Ok(State::Copy { left: number })
            }
            Number::ExtraLength => {
                self.check_new(number)?;
                Ok(State::Extra { left: number })
            }
            Number::Step => {
                self.go(varint::to_signed(number))?;
                Ok(State::Number(Number::CopyLength))
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

/// A piece of the old image, about where a copy is.
#[derive(Clone)]
struct Window {
    bytes: [u8; WINDOW_BYTES],
    /// Of the first byte in the old image.
    offset: u32,
    len_bytes: u32,
}

impl Window {
    /// The old image from an offset on: what a unit may depend on, or all there is.
    fn from<I: Input>(
        &mut self,
        offset: u32,
        old_bytes: u32,
        input: &mut I,
    ) -> Result<&[u8], ApplyError<I::Error>> {
        let left = old_bytes - offset;
        let end = self.offset + self.len_bytes;
        let is_here =
            offset >= self.offset && offset <= end && end - offset >= left.min(LOOKAHEAD_BYTES);
        if !is_here {
            // Nothing is here if this fails.
            self.len_bytes = 0;
            let (piece, len_bytes) = front(&mut self.bytes, left);
            input.old(offset, piece).map_err(ApplyError::Input)?;
            (self.offset, self.len_bytes) = (offset, len_bytes);
        }
        let from = (offset - self.offset) as usize;
        Ok(self.bytes.get(from..self.len_bytes as usize).unwrap_or_default())
    }
}

/// The last bytes of an image, with nothing behind them.
fn padded(bytes: &[u8]) -> [u8; 4] {
    let mut padded = [0; 4];
    padded.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    padded
}

/// Bytes of a unit that are made and were not asked for yet.
#[derive(Debug, Clone, Copy)]
struct Ready {
    bytes: [u8; 4],
    at: u32,
    end: u32,
}

impl Ready {
    const fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// As many as there is room for, and how many these are.
    fn hand_out(&mut self, room: &mut [u8]) -> u32 {
        let (room, len_bytes) = front(room, self.end - self.at);
        let bytes = self.bytes.get(self.at as usize..).unwrap_or_default();
        room.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.at += len_bytes;
        len_bytes
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
    /// It is for a processor that this version does not know.
    Machine {
        /// Its number.
        found: u32,
    },
    /// It describes more than there is memory for.
    TooMany {
        /// Of what.
        what: &'static str,
        /// So many.
        found: u32,
        /// At most so many.
        max: usize,
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
            Self::Machine { found } => {
                write!(f, "patch is for processor {found}, known are 0 and 1")
            }
            Self::TooMany { what, found, max } => {
                write!(f, "patch has {found} {what}, at most {max} are possible")
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

/// What a device must have left for an update.
const APPLY_BYTES_MAX: usize = 12 * 1024;
const _: () = assert!(size_of::<Apply>() <= APPLY_BYTES_MAX);
/// Read from flash at once, so that each byte is read little more than once.
const WINDOW_BYTES: usize = 4 * LOOKAHEAD_BYTES as usize;
/// Read from flash at once: a few pages' worth of calls instead of one for each byte.
const BUFFER_BYTES: usize = 256;
