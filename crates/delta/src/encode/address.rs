//! The stream of a patch that knows of addresses.

use alloc::vec::Vec;
use core::ops::Range;

use super::EncodeError;
use super::copies::{self, Copy};
use super::esp::Description;
use super::shifts::{self, Sample};
use crate::predict::{Kind, Machine, Predictor, Reference, Regions, Unit};
use crate::{riscv, varint, xtensa};

/// Two images for the same processor.
#[derive(Clone)]
pub(super) struct Pair {
    /// Without shifts.
    predictor: Predictor,
    addresses: Range<u32>,
}

impl Pair {
    /// `None`: the images are not for this format.
    pub(super) fn of(old: &[u8], new: &[u8]) -> Option<Self> {
        let (from, to) = (Description::of(old)?, Description::of(new)?);
        let addresses = addresses(&from.regions);
        let mut predictor = Predictor::new();
        predictor.machine = from.machine;
        predictor.shifts = shifts::none(&addresses);
        predictor.global = (from.global, to.global);
        (predictor.old, predictor.new) = (from.regions, to.regions);
        (from.machine == to.machine).then_some(Self { predictor, addresses })
    }

    /// Copies of what is the same but for the addresses in it.
    pub(super) fn copies(&self, old: &[u8], new: &[u8]) -> Result<Vec<Copy>, EncodeError> {
        let old = masked(old, &self.predictor, Side::Old);
        copies::find(&old, &masked(new, &self.predictor, Side::New))
    }

    /// What a patch must say, before it is compressed.
    pub(super) fn stream(&self, copies: &[Copy], old: &[u8], new: &[u8]) -> Vec<u8> {
        let mut predictor = self.predictor.clone();
        let mut samples = Vec::new();
        for copy in copies {
            walk(&mut predictor, copy, old, new, |unit, _, new| {
                let found = unit.reference.and_then(|it| Some((it.target, target(&it, new)?)));
                let sample =
                    |(old, new): (u32, u32)| Sample { from: old, by: new.wrapping_sub(old) };
                samples.extend(found.map(sample));
            });
        }
        predictor.shifts = shifts::fit(&self.addresses, samples);
        let mut stream = description(&predictor);
        copies::put(&mut stream, copies, new, |stream, copy| {
            walk(&mut predictor, copy, old, new, |unit, old, new| {
                let difference = unit.difference(old, new).to_le_bytes();
                stream.extend(difference.iter().take(unit.len_bytes as usize));
            });
        });
        stream
    }
}

/// What may be an address: what is as far up as the parts of the image, and the memory around them.
/// The slow memory beside the clock is left out: floating point numbers lie before it.
fn addresses(regions: &Regions) -> Range<u32> {
    let near = || regions.get().iter().filter(|region| region.address < SLOW_MEMORY);
    let start = near().map(|it| it.address).min().unwrap_or(0);
    let end = near().map(|it| it.address.saturating_add(it.end - it.start)).max().unwrap_or(0);
    start / AROUND * AROUND..end.saturating_add(AROUND) / AROUND * AROUND
}

/// Goes through a copy as the decoder does, with each unit and its old and new bytes.
fn walk(
    predictor: &mut Predictor,
    copy: &Copy,
    old: &[u8],
    new: &[u8],
    mut each: impl FnMut(Unit, u32, u32),
) {
    predictor.begin_copy();
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let mut done = 0;
    while done < copy.len {
        let (old_at, new_at) = (copy.old_at + done, copy.new_at + done);
        let window = old.get(old_at..).unwrap_or_default();
        let left = offset(copy.len - done);
        let unit = predictor.unit(window, left, offset(old_at), offset(new_at));
        let [was, is] = [(old, old_at), (new, new_at)].map(|(image, at)| number(image, at, unit));
        each(unit, was, is);
        predictor.take(&unit, is);
        done += unit.len_bytes as usize;
    }
}

fn number(image: &[u8], at: usize, unit: Unit) -> u32 {
    let bytes = image.get(at..).unwrap_or_default().iter().take(unit.len_bytes as usize);
    bytes.rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// What a unit refers to in the new image, if it is the one that was expected.
fn target(reference: &Reference, new: u32) -> Option<u32> {
    let Reference { kind, predicted, at, .. } = *reference;
    let is_same = |mask| (new ^ predicted) & mask == 0;
    match kind {
        Kind::Word => Some(new),
        Kind::XtensaCall => is_same(0x3F).then(|| xtensa::called(new, at)),
        Kind::XtensaLiteral => is_same(0xFF).then(|| xtensa::literal(new, at)),
        Kind::RiscVCall => is_same(!riscv::HIGH).then(|| riscv::called(new, at)),
        // Half of an address.
        Kind::RiscVHigh { .. } => None,
        Kind::RiscVLow { held } => {
            let is_same = riscv::with_low(new, 0) == riscv::with_low(predicted, 0);
            is_same.then(|| held.wrapping_add(riscv::low(new)))
        }
    }
}

/// Whose bytes are masked.
#[derive(Clone, Copy)]
enum Side {
    Old,
    New,
}

/// An image in which everything that refers to an address looks the same, whatever it refers to:
/// what has the same code around it is found to be the same.
fn masked(image: &[u8], predictor: &Predictor, side: Side) -> Vec<u8> {
    let (regions, global) = match side {
        Side::Old => (&predictor.old, predictor.global.0),
        Side::New => (&predictor.new, predictor.global.1),
    };
    let mut itself = predictor.clone();
    itself.global = (global, global);
    (itself.old, itself.new) = (regions.clone(), regions.clone());
    let mut masked = image.to_vec();
    for region in regions.get() {
        let (at, len) = (region.start as usize, (region.end - region.start) as usize);
        let whole = Copy { old_at: at, new_at: at, len, extra: 0 };
        let mut at = at;
        walk(&mut itself, &whole, image, image, |unit, code, _| {
            let kept = unit.reference.map_or(code, |reference| without_target(&reference, code));
            let places = masked.get_mut(at..).unwrap_or_default().iter_mut();
            places.take(unit.len_bytes as usize).zip(kept.to_le_bytes()).for_each(
                |(place, byte)| {
                    *place = byte;
                },
            );
            at += unit.len_bytes as usize;
        });
    }
    masked
}

const fn without_target(reference: &Reference, code: u32) -> u32 {
    match reference.kind {
        Kind::Word => code & 0xFF00_0000,
        Kind::XtensaCall => code & 0x3F,
        Kind::XtensaLiteral => code & 0xFF,
        Kind::RiscVCall | Kind::RiscVHigh { .. } => code & !riscv::HIGH,
        Kind::RiscVLow { .. } => riscv::with_low(code, 0),
    }
}

/// What the decoder makes its predictions from.
fn description(predictor: &Predictor) -> Vec<u8> {
    let mut stream = Vec::new();
    let count = |stream: &mut Vec<u8>, count: usize| {
        varint::put(stream, u32::try_from(count).unwrap_or(u32::MAX));
    };
    let regions = |stream: &mut Vec<u8>, regions: &Regions| {
        count(stream, regions.get().len());
        let mut end = 0;
        for region in regions.get() {
            varint::put(stream, region.start - end);
            varint::put(stream, (region.end - region.start) << 1 | u32::from(region.is_code));
            varint::put(stream, region.address);
            end = region.end;
        }
    };
    varint::put(&mut stream, predictor.machine.code());
    regions(&mut stream, &predictor.old);
    regions(&mut stream, &predictor.new);
    if predictor.machine == Machine::RiscV {
        varint::put(&mut stream, predictor.global.0);
        varint::put(&mut stream, predictor.global.1);
    }
    count(&mut stream, predictor.shifts.get().len());
    let (mut from, mut by) = (0, 0);
    for shift in predictor.shifts.get() {
        varint::put(&mut stream, shift.from - from);
        varint::put(&mut stream, varint::from_signed(shift.by.wrapping_sub(by).cast_signed()));
        (from, by) = (shift.from, shift.by);
    }
    stream
}

/// RTC memory of all chips that have it.
const SLOW_MEMORY: u32 = 0x5000_0000;
/// More than any of a chip's memories.
const AROUND: u32 = 1 << 20;
