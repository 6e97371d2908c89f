//! The way from one release to another: by one that speaks to both, where they do not speak to each
//! other. No I/O.
//!
//! A group that is updated together does not need it while all goes well. It is for when it does
//! not: a member that is late, or a new board with the old release, is then still understood.

use std::collections::{BTreeMap, VecDeque};

use lockstep_proto::compat::{self, Announced, Rule};

use crate::manifests::Facts;

/// What the devices of a release say of themselves, by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The release's identity.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// What each role announces.
    pub announced: BTreeMap<String, Announced>,
}

impl Stop {
    /// From what a manifest says.
    pub fn of(id: &str, facts: &Facts) -> Self {
        let announced = facts.roles.iter().map(|(role, it)| (role.clone(), it.announced));
        Self { id: id.to_owned(), number: facts.number, announced: announced.collect() }
    }

    /// Whether every device on this release exchanges data with every other one on `other`.
    pub fn speaks_to(&self, other: &Self) -> bool {
        let pairs = self.announced.iter().flat_map(|(role, mine)| {
            let others = other.announced.iter().filter(move |(their_role, _)| *their_role != role);
            others.map(move |(_, yours)| (mine, yours))
        });
        pairs.into_iter().all(|(mine, yours)| compat::check(Rule::BothWays, mine, yours).is_ok())
    }
}

/// The release to go to next on the shortest way from `from` to `to`, over releases between them;
/// `None`: straight on, since the two speak to each other, or since there is no way.
pub fn next_stop<'a>(from: &Stop, to: &Stop, known: &'a [Stop]) -> Option<&'a Stop> {
    if from.speaks_to(to) {
        return None;
    }
    let (low, high) = (from.number.min(to.number), from.number.max(to.number));
    let between: Vec<&Stop> =
        known.iter().filter(|it| low < it.number && it.number < high).collect();
    // Each with the first stop of the way to it.
    let mut ways: VecDeque<(&Stop, &Stop)> =
        between.iter().filter(|it| from.speaks_to(it)).map(|it| (*it, *it)).collect();
    let mut seen: Vec<u32> = ways.iter().map(|(stop, _)| stop.number).collect();
    while let Some((stop, first)) = ways.pop_front() {
        if stop.speaks_to(to) {
            return Some(first);
        }
        for next in &between {
            if !seen.contains(&next.number) && stop.speaks_to(next) {
                seen.push(next.number);
                ways.push_back((next, first));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use lockstep_proto::version::ProtocolRange;

    use super::*;

    fn stop(number: u32, min: u8, max: u8) -> Stop {
        let protocol = ProtocolRange::new(min, max).unwrap();
        let announced = Announced { number, min_compatible: 0, protocol };
        let roles = ["receiver", "transmitter"].map(|role| (role.to_owned(), announced));
        Stop { id: number.to_string(), number, announced: roles.into() }
    }

    fn next(from: &Stop, to: &Stop, known: &[Stop]) -> Option<u32> {
        next_stop(from, to, known).map(|stop| stop.number)
    }

    #[test]
    fn two_that_speak_to_each_other_need_no_stop() {
        assert_eq!(next(&stop(1, 1, 1), &stop(3, 1, 3), &[stop(2, 1, 2)]), None);
    }

    #[test]
    fn the_way_goes_by_one_that_speaks_both_and_by_as_few_as_it_can() {
        let (old, new) = (stop(1, 1, 1), stop(9, 3, 4));
        let known = [stop(2, 1, 2), stop(3, 2, 3), stop(4, 1, 3), stop(5, 2, 2)];
        assert_eq!(next(&old, &new, &known), Some(4));
        assert_eq!(next(&old, &new, &known[..2]), Some(2));
        assert_eq!(next(&new, &old, &known), Some(4), "and back");
    }

    #[test]
    fn where_there_is_no_way_it_goes_straight_on() {
        assert_eq!(next(&stop(1, 1, 1), &stop(9, 3, 3), &[stop(2, 1, 2)]), None);
        assert_eq!(next(&stop(1, 1, 1), &stop(3, 2, 2), &[stop(4, 1, 2)]), None, "not beyond it");
    }
}
