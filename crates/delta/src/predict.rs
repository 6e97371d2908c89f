//! What the bytes of a copy become when what they refer to has moved.
//!
//! Decoder and encoder walk through a copy alike, a unit of one to four bytes at a time. Whether a
//! unit refers to an address is seen from the old image alone; what it then becomes follows from
//! where that address has gone ([`Shifts`]) and where the unit itself has ([`Regions`]).

use crate::{riscv, xtensa};

/// Parts of an image that have an address: an image of ESP-IDF has five to eight.
pub(crate) const REGIONS_MAX: usize = 12;
/// Changes of the shift: as many as there is memory for.
pub(crate) const SHIFTS_MAX: usize = 336;
/// How far ahead of a unit its kind may depend on.
pub(crate) const LOOKAHEAD_BYTES: u32 = 32;

/// Whose instructions an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    Xtensa,
    RiscV,
}

impl Machine {
    #[cfg(feature = "encode")]
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Xtensa => 0,
            Self::RiscV => 1,
        }
    }

    pub(crate) const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Xtensa,
            1 => Self::RiscV,
            _ => return None,
        })
    }
}

/// A part of an image, and where a chip sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// Offset in the image.
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) address: u32,
    pub(crate) is_code: bool,
}

/// At most so many of something.
#[derive(Debug, Clone)]
pub(crate) struct List<T, const MAX: usize> {
    items: [T; MAX],
    len: usize,
}

impl<T: Copy, const MAX: usize> List<T, MAX> {
    const fn new(fill: T) -> Self {
        Self { items: [fill; MAX], len: 0 }
    }

    /// Those there are.
    pub(crate) fn get(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or_default()
    }

    /// `false`: there is no room for one more.
    pub(crate) fn push(&mut self, item: T) -> bool {
        let place = self.items.get_mut(self.len);
        self.len += usize::from(place.is_some());
        place.map(|place| *place = item).is_some()
    }
}

/// The parts of one image.
pub(crate) type Regions = List<Region, REGIONS_MAX>;

impl Regions {
    pub(crate) const EMPTY: Self =
        Self::new(Region { start: 0, end: 0, address: 0, is_code: false });

    /// Where a chip sees a byte, and whether among instructions.
    fn find(&self, offset: u32) -> Option<(u32, bool)> {
        let region = self.get().iter().find(|it| it.start <= offset && offset < it.end)?;
        Some((region.address.wrapping_add(offset - region.start), region.is_code))
    }
}

/// From an address on, up to the next one's: how much further what lay there lies now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shift {
    pub(crate) from: u32,
    /// Added, wrapping.
    pub(crate) by: u32,
}

/// In rising order. What lies before the first or behind the last one's start is no address.
pub(crate) type Shifts = List<Shift, SHIFTS_MAX>;

impl Shifts {
    pub(crate) const EMPTY: Self = Self::new(Shift { from: 0, by: 0 });

    /// Where what was at an address has gone; `None`: that is no address.
    fn find(&self, address: u32) -> Option<u32> {
        let shifts = self.get();
        let behind = shifts.partition_point(|it| it.from <= address);
        if behind == shifts.len() {
            return None;
        }
        let shift = shifts.get(behind.checked_sub(1)?)?;
        Some(address.wrapping_add(shift.by))
    }
}

/// How a unit refers to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is one.
    Word,
    XtensaCall,
    XtensaLiteral,
    RiscVCall,
    /// Upper bits, from zero or from where the instruction is.
    RiscVHigh {
        /// What the register holds after it, in the old image.
        held: u32,
        is_relative: bool,
    },
    /// Low bits, from what a register holds in the new image.
    RiscVLow {
        held: u32,
    },
}

/// A unit that refers to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) kind: Kind,
    /// What to, in the old image.
    pub(crate) target: u32,
    /// What the unit becomes.
    pub(crate) predicted: u32,
    /// Where it lies in the new image.
    pub(crate) at: u32,
}

/// The next bytes of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// At most 4.
    pub(crate) len_bytes: u32,
    pub(crate) reference: Option<Reference>,
}

impl Unit {
    const fn plain(len_bytes: u32) -> Self {
        Self { len_bytes, reference: None }
    }

    /// The new bytes from the old ones and what the patch says, or what it must say from the new.
    ///
    /// A unit that has no reference is taken byte by byte. One that has is a number, and the
    /// difference is that to the prediction; but when what has come is the old unit, which is what
    /// happens most often when a prediction fails, it is 1, so that it always looks the same, and
    /// what would have been 1 takes the place that this leaves.
    pub(crate) fn make(self, old: u32, difference: u32) -> u32 {
        let Some(Reference { predicted, .. }) = self.reference else {
            return bytewise(old, difference, u8::wrapping_add);
        };
        let difference = self.swap(old, predicted, difference);
        predicted.wrapping_add(difference) & self.mask()
    }

    /// What the patch must say so that [`Unit::make`] makes the new bytes.
    #[cfg(feature = "encode")]
    pub(crate) fn difference(self, old: u32, new: u32) -> u32 {
        let Some(Reference { predicted, .. }) = self.reference else {
            return bytewise(new, old, u8::wrapping_sub);
        };
        self.swap(old, predicted, new.wrapping_sub(predicted) & self.mask())
    }

    const fn swap(self, old: u32, predicted: u32, difference: u32) -> u32 {
        let unchanged = old.wrapping_sub(predicted) & self.mask();
        if unchanged == 0 {
            difference
        } else if difference == UNCHANGED {
            unchanged
        } else if difference == unchanged {
            UNCHANGED
        } else {
            difference
        }
    }

    /// The bits that a number of this size has.
    pub(crate) const fn mask(self) -> u32 {
        u32::MAX >> (32 - 8 * self.len_bytes)
    }
}

fn bytewise(left: u32, right: u32, of: impl Fn(u8, u8) -> u8) -> u32 {
    let (mut bytes, right) = (left.to_le_bytes(), right.to_le_bytes());
    bytes.iter_mut().zip(right).for_each(|(left, right)| *left = of(*left, right));
    u32::from_le_bytes(bytes)
}

/// What a register holds in the old image and in the new one.
type Held = Option<(u32, u32)>;

/// All that predictions are made from.
#[derive(Clone)]
pub(crate) struct Predictor {
    pub(crate) machine: Machine,
    pub(crate) old: Regions,
    pub(crate) new: Regions,
    pub(crate) shifts: Shifts,
    /// What RISC-V's `gp` holds all the time.
    pub(crate) global: (u32, u32),
    /// Which registers of RISC-V hold known upper bits, a bit for each; `gp` is not among them.
    known: u32,
    registers: [(u32, u32); 32],
}

impl Predictor {
    pub(crate) const fn new() -> Self {
        Self {
            machine: Machine::Xtensa,
            old: Regions::EMPTY,
            new: Regions::EMPTY,
            shifts: Shifts::EMPTY,
            global: (0, 0),
            known: 0,
            registers: [(0, 0); 32],
        }
    }

    /// A copy begins: what registers hold is not known.
    pub(crate) const fn begin_copy(&mut self) {
        self.known = 0;
    }

    /// The next bytes of a copy, `left` of which are to come. `window` is the old image from
    /// `old_at` on, [`LOOKAHEAD_BYTES`] of it or all there is.
    pub(crate) fn unit(&mut self, window: &[u8], left: u32, old_at: u32, new_at: u32) -> Unit {
        let (Some((from, is_code)), Some((to, _))) = (self.old.find(old_at), self.new.find(new_at))
        else {
            return Unit::plain(1);
        };
        let window = window.get(..LOOKAHEAD_BYTES as usize).unwrap_or(window);
        let unit = match self.machine {
            _ if !is_code => self.word(window, from).unwrap_or(Unit::plain(4 - from % 4)),
            Machine::Xtensa => self.xtensa(window, from, to),
            Machine::RiscV => self.riscv(window, from, to),
        };
        let unit = Unit {
            reference: unit.reference.map(|reference| Reference { at: to, ..reference }),
            ..unit
        };
        if unit.len_bytes <= left { unit } else { Unit::plain(left) }
    }

    /// An aligned word that is an address.
    fn word(&self, window: &[u8], from: u32) -> Option<Unit> {
        if !from.is_multiple_of(4) {
            return None;
        }
        let target = number(window, 4)?;
        let predicted = self.shifts.find(target)?;
        Some(refers(4, Kind::Word, target, predicted))
    }

    /// Literals lie among the instructions, before what loads them.
    fn xtensa(&self, window: &[u8], from: u32, to: u32) -> Unit {
        if let Some(word) = self.word(window, from) {
            return word;
        }
        let len_bytes = xtensa::len_bytes(window.first().copied().unwrap_or_default());
        let aligned = 4 - from % 4;
        let next = window.get(aligned as usize..).unwrap_or_default();
        let begins =
            |next| xtensa::is_entry(next) || self.word(next, from.wrapping_add(aligned)).is_some();
        if aligned < len_bytes && begins(next) {
            // Literals before this were taken for instructions.
            return Unit::plain(aligned);
        }
        let code = number(window, 3).unwrap_or_default();
        let (kind, target) = if xtensa::is_call(code) {
            (Kind::XtensaCall, xtensa::called(code, from))
        } else if xtensa::is_literal_load(code) {
            (Kind::XtensaLiteral, xtensa::literal(code, from))
        } else {
            return Unit::plain(len_bytes);
        };
        let Some(moved) = self.shifts.find(target) else { return Unit::plain(len_bytes) };
        let predicted = if kind == Kind::XtensaCall {
            xtensa::call_of(code, to, moved)
        } else {
            xtensa::literal_load_of(code, to, moved)
        };
        refers(len_bytes, kind, target, predicted)
    }

    fn riscv(&mut self, window: &[u8], from: u32, to: u32) -> Unit {
        if !from.is_multiple_of(2) {
            // A copy may begin anywhere, an instruction not.
            return Unit::plain(1);
        }
        let len_bytes = riscv::len_bytes(window.first().copied().unwrap_or_default());
        let Some(code) = number(window, len_bytes as usize) else { return Unit::plain(1) };
        if len_bytes == 2 {
            self.forget(riscv::short_overwrites(code));
            return Unit::plain(len_bytes);
        }
        let unit = self.riscv_long(window, code, from, to);
        self.forget(riscv::overwrites(code));
        unit
    }

    fn riscv_long(&self, window: &[u8], code: u32, from: u32, to: u32) -> Unit {
        let found = if riscv::is_call(code) {
            let target = riscv::called(code, from);
            self.shifts
                .find(target)
                .map(|moved| refers(4, Kind::RiscVCall, target, riscv::call_of(code, to, moved)))
        } else if riscv::is_lui(code) || riscv::is_auipc(code) {
            Some(self.riscv_high(window, code, from, to))
        } else if riscv::has_low(code) {
            self.held(riscv::base(code)).and_then(|(held_old, held)| {
                let target = held_old.wrapping_add(riscv::low(code));
                let moved = self.shifts.find(target)?;
                let predicted = riscv::with_low(code, moved.wrapping_sub(held));
                Some(refers(4, Kind::RiscVLow { held }, target, predicted))
            })
        } else {
            None
        };
        found.unwrap_or(Unit::plain(4))
    }

    /// Upper bits: what they are of, whoever adds the low bits says, a little further on.
    fn riscv_high(&self, window: &[u8], code: u32, from: u32, to: u32) -> Unit {
        let is_relative = riscv::is_auipc(code);
        let (from, to) = if is_relative { (from, to) } else { (0, 0) };
        let held = (code & riscv::HIGH).wrapping_add(from);
        let kind = Kind::RiscVHigh { held, is_relative };
        let target =
            low_behind(window, riscv::destination(code)).map_or(held, |low| held.wrapping_add(low));
        let predicted = self
            .shifts
            .find(target)
            .map_or(code, |moved| riscv::high_of(moved.wrapping_sub(to)) | code & !riscv::HIGH);
        refers(4, kind, target, predicted)
    }

    const fn forget(&mut self, register: Option<usize>) {
        if let Some(register) = register {
            self.known &= !(1 << (register % 32));
        }
    }

    fn held(&self, register: usize) -> Held {
        if register == GLOBAL {
            return Some(self.global);
        }
        self.registers.get(register).copied().filter(|_| self.known >> register & 1 != 0)
    }

    /// A unit has become this: what it leaves in a register is known now.
    pub(crate) fn take(&mut self, unit: &Unit, made: u32) {
        let Some(Reference { kind, predicted, at, .. }) = unit.reference else { return };
        let Kind::RiscVHigh { held, is_relative } = kind else { return };
        let register = riscv::destination(predicted);
        if (made ^ predicted) & !riscv::HIGH != 0 {
            return;
        }
        let made = (made & riscv::HIGH).wrapping_add(if is_relative { at } else { 0 });
        if let Some(place) = self.registers.get_mut(register) {
            *place = (held, made);
            self.known |= 1 << register;
        }
    }
}

const fn refers(len_bytes: u32, kind: Kind, target: u32, predicted: u32) -> Unit {
    Unit { len_bytes, reference: Some(Reference { kind, target, predicted, at: 0 }) }
}

/// The low bits that are added to a register next, behind the first instruction of the window.
fn low_behind(window: &[u8], register: usize) -> Option<u32> {
    let mut rest = window.get(4..)?;
    while let [first, ..] = rest {
        let len_bytes = riscv::len_bytes(*first) as usize;
        let code = number(rest, len_bytes)?;
        if len_bytes == 4 && riscv::has_low(code) && riscv::base(code) == register {
            return Some(riscv::low(code));
        }
        rest = rest.get(len_bytes..)?;
    }
    None
}

/// The first bytes, as a number; `None`: there are not so many.
fn number(bytes: &[u8], len: usize) -> Option<u32> {
    Some(bytes.get(..len)?.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)))
}

/// The register that holds the same all the time.
const GLOBAL: usize = 3;
/// What is said when a prediction fails because nothing has changed.
const UNCHANGED: u32 = 1;
