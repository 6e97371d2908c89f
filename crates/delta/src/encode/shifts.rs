//! From what references have become to the few shifts that a device has room for.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use crate::predict::{SHIFTS_MAX, Shift, Shifts};

/// A reference: what to in the old image, and by how much more in the new one.
pub(super) type Sample = Shift;

/// Addresses, none of which moves.
pub(super) fn none(addresses: &Range<u32>) -> Shifts {
    bounded(addresses, &[])
}

/// The shifts by which most references come out right.
///
/// A change of the shift costs bytes in the patch, and must bring more right references than that.
/// If this is still more than there is room for, it must bring more and more of them.
pub(super) fn fit(addresses: &Range<u32>, mut samples: Vec<Sample>) -> Shifts {
    samples.retain(|sample| addresses.contains(&sample.from));
    samples.sort_unstable_by_key(|sample| (sample.from, sample.by));
    let mut price = PRICE_MIN;
    loop {
        let changes = best(&samples, price);
        // The first and the last one say what an address is.
        if changes.len() + 2 <= SHIFTS_MAX {
            return bounded(addresses, &changes);
        }
        price += 1 + price / 8;
    }
}

fn bounded(addresses: &Range<u32>, changes: &[Shift]) -> Shifts {
    let unmoved = |from| Shift { from, by: 0 };
    let mut shifts = Shifts::EMPTY;
    let ends = (unmoved(addresses.start), unmoved(addresses.end));
    for shift in [ends.0].iter().chain(changes).chain([&ends.1]) {
        shifts.push(*shift);
    }
    shifts
}

/// The best way to a sample that ends with a certain shift.
#[derive(Clone, Copy)]
struct Way {
    score: i64,
    /// Its last change.
    change: usize,
}

/// The changes that bring the most right references, less their price: from sample to sample, the
/// best way that ends with each shift either goes on, or begins behind the best way of all.
fn best(samples: &[Sample], price: i64) -> Vec<Shift> {
    let mut changes: Vec<(Shift, Option<usize>)> = Vec::new();
    let mut ways: BTreeMap<u32, Way> = BTreeMap::new();
    let mut best: Option<Way> = None;
    for same_address in samples.chunk_by(|a, b| a.from == b.from) {
        let before = best;
        for same in same_address.chunk_by(|a, b| a.by == b.by) {
            let Some(&sample) = same.first() else { continue };
            let count = i64::try_from(same.len()).unwrap_or(i64::MAX);
            let score_before = before.map_or(0, |way| way.score) - price;
            let way = match ways.get(&sample.by) {
                Some(&way) if way.score >= score_before => way,
                _ => {
                    changes.push((sample, before.map(|way| way.change)));
                    Way { score: score_before, change: changes.len() - 1 }
                }
            };
            let way = Way { score: way.score + count, ..way };
            ways.insert(sample.by, way);
            if best.is_none_or(|best| way.score > best.score) {
                best = Some(way);
            }
        }
    }
    let mut way = Vec::new();
    let mut next = best.filter(|best| best.score > 0).map(|best| best.change);
    while let Some(&(shift, before)) = next.and_then(|change| changes.get(change)) {
        way.push(shift);
        next = before;
    }
    way.reverse();
    way
}

/// About what a change costs, in failed predictions.
const PRICE_MIN: i64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: Range<u32> = 0x1000..0x9_0000;

    fn samples(of: impl Iterator<Item = (u32, u32)>) -> Vec<Sample> {
        of.map(|(from, by)| Shift { from, by }).collect()
    }

    #[test]
    fn what_moves_together_needs_one_shift_and_single_ones_that_differ_none() {
        let moved = |at| if at < 0x4000 { 16 } else { 0xFFFF_FFF8 };
        let mut samples = samples((0x2000..0x6000).step_by(64).map(|at| (at, moved(at))));
        samples.push(Shift { from: 0x3001, by: 777 });
        let shifts = fit(&ADDRESSES, samples);
        let expected = [(0x1000, 0), (0x2000, 16), (0x4000, 0xFFFF_FFF8), (0x9_0000, 0)];
        assert_eq!(shifts.get(), expected.map(|(from, by)| Shift { from, by }));
    }

    #[test]
    fn more_than_there_is_room_for_leaves_those_that_bring_most() {
        // A thousand places; every tenth is referred to twenty times as often.
        let count = |place| if place % 10 == 0 { 100 } else { 5 };
        let all = (0..1000)
            .flat_map(|place| (0..count(place)).map(move |_| (0x2000 + place * 16, place + 1)));
        let shifts = fit(&ADDRESSES, samples(all));
        assert!(shifts.get().len() <= SHIFTS_MAX);
        for place in (0..1000).step_by(10) {
            let shift = Shift { from: 0x2000 + place * 16, by: place + 1 };
            assert!(shifts.get().contains(&shift), "{shift:?}");
        }
    }

    #[test]
    fn without_references_nothing_moves() {
        assert_eq!(fit(&ADDRESSES, Vec::new()).get(), none(&ADDRESSES).get());
    }
}
