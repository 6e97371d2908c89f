//! What a member lacks of an object that comes in blocks.
//!
//! As many generations as every version tells of are in one list; a later version has a second
//! one behind everything else, which an earlier one does not look at.

use super::ControlError;
use crate::frame::block::Session;
use crate::frame::coding::{GENERATIONS_OPEN, Shape};
use crate::wire::{Full, Reader, Writer};

/// How far a member is with the object of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Its flash is busy: it takes nothing now, and says when it does.
    Busy,
    /// It wants the first blocks of an image ([`Shape::head_blocks`]), to judge them before
    /// anything is erased.
    Head,
    /// It takes blocks.
    Open,
    /// It has all of it, verified.
    Done,
}

impl Readiness {
    const fn code(self) -> u8 {
        match self {
            Self::Busy => 0,
            Self::Head => 1,
            Self::Open => 2,
            Self::Done => 3,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Head,
            2 => Self::Open,
            3 => Self::Done,
            // A later version's state is at least none in which blocks are of use.
            _ => Self::Busy,
        }
    }
}

/// How many blocks are lacking of each generation from [`Wants::first`] on, or as many repair
/// frames; behind the last one nothing is taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    len: u8,
    counts: [u8; GENERATIONS_OPEN as usize],
    /// Of generations of large blocks of which only some are lacking, which ones.
    maps: [u32; MAPS_MAX],
}

impl Default for Lacking {
    fn default() -> Self {
        Self { len: 0, counts: [0; GENERATIONS_OPEN as usize], maps: [0; MAPS_MAX] }
    }
}

impl Lacking {
    /// From the numbers, of which those beyond [`GENERATIONS_OPEN`] do not count.
    pub fn of(counts: impl IntoIterator<Item = u8>) -> Self {
        let mut lacking = Self::default();
        for (place, count) in lacking.counts.iter_mut().zip(counts) {
            *place = count;
            lacking.len += 1;
        }
        lacking
    }

    /// From which large blocks are lacking of each generation, bit `i` its `i`-th block. Those
    /// beyond [`GENERATIONS_OPEN`] do not count.
    pub fn of_large(missing: impl IntoIterator<Item = u32>) -> Self {
        let mut lacking = Self::default();
        let mut maps = lacking.maps.iter_mut();
        for (place, missing) in lacking.counts.iter_mut().zip(missing) {
            *place = u8::try_from(missing.count_ones()).unwrap_or(u8::MAX);
            lacking.len += 1;
            if is_partial(*place)
                && let Some(map) = maps.next()
            {
                *map = missing;
            }
        }
        lacking
    }

    /// Which large blocks of the generation at this place are lacking; `None` if that was not said,
    /// since all of them are, or too many generations lack some.
    pub fn map(&self, place: usize) -> Option<u32> {
        let counts = self.counts();
        let count = counts.get(place).filter(|&&count| is_partial(count))?;
        let before = counts.get(..place)?.iter().filter(|&&count| is_partial(count)).count();
        let map = self.maps.get(before).copied()?;
        (map.count_ones() == u32::from(*count)).then_some(map)
    }

    /// The numbers that every version reads, and those behind them.
    fn split(&self) -> (&[u8], &[u8]) {
        let counts = self.counts();
        counts.split_at_checked(FRONT_GENERATIONS).unwrap_or((counts, &[]))
    }

    /// The numbers.
    pub fn counts(&self) -> &[u8] {
        self.counts.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// What a member lacks of the object of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// The object.
    pub session: Session,
    /// Whether it takes anything now.
    pub readiness: Readiness,
    /// How the object is cut here.
    pub shape: Shape,
    /// Whether it could be cut into large blocks: the radio takes their frames.
    pub takes_large: bool,
    /// Blocks should be so far apart, in milliseconds, because the application grants the flash no
    /// more; 0: as fast as the air carries them.
    pub interval_ms: u16,
    /// Bytes of the object that are in flash.
    pub staged_bytes: u32,
    /// Bytes that were erased for it in this boot.
    pub erased_bytes: u32,
    /// The first generation that is not whole.
    pub first: u16,
    /// What is lacking from there on.
    pub lacking: Lacking,
}

/// Whether some of a generation of large blocks are lacking, and not all.
const fn is_partial(count: u8) -> bool {
    count > 0 && (count as u16) < Shape::Large.generation_blocks()
}

/// How many maps belong to these numbers.
fn maps_len(counts: &[u8]) -> usize {
    counts.iter().filter(|&&count| is_partial(count)).count().min(MAPS_MAX)
}

fn put_counts(writer: &mut Writer<'_>, counts: &[u8]) -> Result<(), Full> {
    writer.u8(u8::try_from(counts.len()).unwrap_or(u8::MAX))?;
    writer.put(counts)
}

/// Numbers with how many they are before them; returns how many.
fn take_counts(reader: &mut Reader<'_>, counts: &mut [u8]) -> Result<usize, ControlError> {
    let found = reader.u8()?;
    let place = counts.get_mut(..usize::from(found));
    let place = place.ok_or(ControlError::Field { field: "lacking", found: found.into() })?;
    place.copy_from_slice(reader.take(found.into())?);
    Ok(found.into())
}

/// Generations of which a member says which large blocks it lacks.
pub const MAPS_MAX: usize = 16;
/// Generations of which every version tells in one list; a second one has those behind them.
const FRONT_GENERATIONS: usize = 32;

impl Wants {
    pub(in crate::frame) fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let shape = if self.shape == Shape::Large { WANTS_LARGE } else { 0 };
        let takes = if self.takes_large { WANTS_TAKES_LARGE } else { 0 };
        writer.u32(self.session.0)?;
        writer.u8(self.readiness.code())?;
        writer.u8(shape | takes)?;
        writer.u16(self.interval_ms)?;
        writer.u32(self.staged_bytes)?;
        writer.u32(self.erased_bytes)?;
        writer.u16(self.first)?;
        let (front, more) = self.lacking.split();
        put_counts(writer, front)?;
        let maps_len = if self.shape == Shape::Large { maps_len(front) } else { 0 };
        self.lacking.maps.iter().take(maps_len).try_for_each(|map| writer.u32(*map))?;
        // Earlier versions refuse more numbers than these, and read no further.
        if more.is_empty() { Ok(()) } else { put_counts(writer, more) }
    }

    pub(in crate::frame) fn take(reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        let session = Session(reader.u32()?);
        let readiness = Readiness::from_code(reader.u8()?);
        let flags = reader.u8()?;
        let interval_ms = reader.u16()?;
        let (staged_bytes, erased_bytes) = (reader.u32()?, reader.u32()?);
        let first = reader.u16()?;
        let mut counts = [0; GENERATIONS_OPEN as usize];
        let (front, more) = counts.split_at_mut(FRONT_GENERATIONS);
        let front_len = take_counts(reader, front)?;
        let shape = if flags & WANTS_LARGE == 0 { Shape::Small } else { Shape::Large };
        let mut maps = [0; MAPS_MAX];
        if shape == Shape::Large {
            let maps_len = maps_len(front.get(..front_len).unwrap_or_default());
            for map in maps.iter_mut().take(maps_len) {
                *map = reader.u32()?;
            }
        }
        let is_full = front_len == FRONT_GENERATIONS && !reader.rest().is_empty();
        let len = front_len + if is_full { take_counts(reader, more)? } else { 0 };
        let lacking = Lacking { maps, ..Lacking::of(counts.into_iter().take(len)) };
        Ok(Self {
            session,
            readiness,
            shape,
            takes_large: flags & WANTS_TAKES_LARGE != 0,
            interval_ms,
            staged_bytes,
            erased_bytes,
            first,
            lacking,
        })
    }
}

const WANTS_LARGE: u8 = 1;
const WANTS_TAKES_LARGE: u8 = 2;

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn wants(shape: Shape, lacking: Lacking) -> Wants {
        Wants {
            session: Session(7),
            readiness: Readiness::Open,
            shape,
            takes_large: false,
            interval_ms: 0,
            staged_bytes: 0,
            erased_bytes: 0,
            first: 3,
            lacking,
        }
    }

    fn written(wants: &Wants) -> Vec<u8> {
        let mut buffer = [0; 250];
        let mut writer = Writer::new(&mut buffer);
        wants.put(&mut writer).unwrap();
        writer.written().to_vec()
    }

    /// A lead of an earlier version refuses a longer list, and ignores what is behind the list.
    #[test]
    fn numbers_that_earlier_versions_do_not_know_are_behind_all_that_they_read() {
        let counts = |len| Lacking::of(1..=len);
        let front = written(&wants(Shape::Small, counts(32)));
        let all = written(&wants(Shape::Small, counts(40)));
        assert_eq!(all[..front.len()], front[..]);
        assert_eq!(all[front.len()..], [8, 33, 34, 35, 36, 37, 38, 39, 40]);
        let maps = |len| Lacking::of_large((0..len).map(|place| 1 << (place % 28)));
        let front = written(&wants(Shape::Large, maps(32)));
        assert_eq!(written(&wants(Shape::Large, maps(50)))[..front.len()], front[..]);
    }

    #[test]
    fn any_number_of_generations_is_read_back() {
        for len in 0..=u8::try_from(GENERATIONS_OPEN).unwrap() {
            for (shape, lacking) in [
                (Shape::Small, Lacking::of((0..len).rev())),
                (Shape::Large, Lacking::of_large((0..len).map(|place| 3 << (place % 27)))),
            ] {
                let wants = wants(shape, lacking);
                let bytes = written(&wants);
                assert_eq!(Wants::take(&mut Reader::new(&bytes)), Ok(wants));
            }
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let mut bytes = written(&wants(Shape::Small, Lacking::default()));
        *bytes.last_mut().unwrap() = 33;
        bytes.extend([0; 60]);
        let refused = Err(ControlError::Field { field: "lacking", found: 33 });
        assert_eq!(Wants::take(&mut Reader::new(&bytes)), refused);
    }
}
