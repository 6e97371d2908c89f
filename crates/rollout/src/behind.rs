//! Who came later than the release that the group runs, whether the group can bring them to it by
//! itself, and how often it tries.
//!
//! Every latecomer is tried a few times in a boot of the lead, with longer and longer pauses. One
//! that nobody can send to when it is first seen is named once, for a person.

use alloc::vec::Vec;

use lockstep_proto::id::{DeviceId, ImageHash};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;

use crate::record::{MEMBERS_MAX, Phase, RolloutRecord, Verdict};

/// One device of the group as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub id: DeviceId,
    /// What it is for.
    pub role: Role,
    /// What it runs.
    pub running: ImageHash,
}

/// A device that came after the last rollout, and runs something else than its role does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Who.
    pub id: DeviceId,
    /// What it is for.
    pub role: Role,
    /// Whether somebody of its role runs the release and is there to send it.
    pub has_sender: bool,
}

/// Who of `present` is behind the group's last rollout `last`. Only devices that had no part in it:
/// what became of those that had one is that rollout's business, and who was flashed by cable since
/// then was so on purpose.
pub fn behind(last: &RolloutRecord, present: &[Present]) -> Vec<Behind> {
    if last.phase != Phase::Settled(Verdict::Keep) {
        return Vec::new();
    }
    let target_of = |role: &Role| {
        let seat = last.seats.iter().find(|seat| seat.role == *role);
        seat.map(|seat| seat.target)
    };
    let late = present.iter().filter(|it| !last.seats.iter().any(|seat| seat.id == it.id));
    late.filter_map(|it| {
        let target = target_of(&it.role).filter(|target| *target != it.running)?;
        let has_sender =
            present.iter().any(|other| other.role == it.role && other.running == target);
        Some(Behind { id: it.id, role: it.role, has_sender })
    })
    .collect()
}

/// What is to be done about a device that is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is its turn: a rollout for those who came later is to be begun.
    Bring(Behind),
    /// Nobody can send to it: a person is to be told.
    AskForBundle(Behind),
}

/// How often a lead has tried to bring each latecomer along, in this boot.
#[derive(Debug, Clone, Default)]
pub struct Latecomers {
    tried: Vec<Tried>,
}

#[derive(Debug, Clone, Copy)]
struct Tried {
    device: DeviceId,
    times: u8,
    next_at: Instant,
}

impl Latecomers {
    /// What to do now about `late`, who are behind while no rollout is open. Whoever's turn has
    /// come is counted as tried; one rollout is for all of them.
    pub fn turns(&mut self, now: Instant, late: &[Behind]) -> Vec<Turn> {
        late.iter().filter_map(|behind| self.turn_of(now, *behind, late)).collect()
    }

    fn turn_of(&mut self, now: Instant, behind: Behind, late: &[Behind]) -> Option<Turn> {
        let known = self.tried.iter_mut().find(|tried| tried.device == behind.id);
        let Some(tried) = known else {
            let first = Tried { device: behind.id, times: 0, next_at: now };
            let noted = if behind.has_sender { first.again(now) } else { first };
            let turn = if behind.has_sender { Turn::Bring } else { Turn::AskForBundle };
            return self.note(noted, late).then(|| turn(behind));
        };
        if !behind.has_sender || tried.times >= TRIES_MAX || now < tried.next_at {
            return None;
        }
        *tried = tried.again(now);
        Some(Turn::Bring(behind))
    }

    /// Whether there was room for one more. The longest known of those that are not behind any
    /// more, or gone, makes room: what cannot be counted is not begun.
    fn note(&mut self, tried: Tried, late: &[Behind]) -> bool {
        if self.tried.len() >= LATECOMERS_MAX {
            let is_late = |known: &Tried| late.iter().any(|it| it.id == known.device);
            match self.tried.iter().position(|known| !is_late(known)) {
                Some(index) => drop(self.tried.remove(index)),
                None => return false,
            }
        }
        self.tried.push(tried);
        true
    }
}

impl Tried {
    fn again(self, now: Instant) -> Self {
        let next_at = now + (RETRY_MS << self.times);
        Self { times: self.times + 1, next_at, ..self }
    }
}

/// A rollout for them that came to nothing is tried again after so long, then twice as long.
const RETRY_MS: u64 = 30_000;
/// How often one device is tried, in a boot of the lead.
const TRIES_MAX: u8 = 5;
/// Of so many it is known how often they were tried: twice what a group can have, since devices
/// come and go.
const LATECOMERS_MAX: usize = 2 * MEMBERS_MAX;

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::judge::tests::record;
    use crate::record::Cause;

    fn present(id: u8, role: Role, running: u8) -> Present {
        Present { id: DeviceId([id; 6]), role, running: ImageHash([running; 32]) }
    }

    fn record_in(phase: Phase) -> RolloutRecord {
        RolloutRecord { phase, ..record() }
    }

    #[test]
    fn who_came_after_a_kept_release_is_behind_and_who_had_a_part_in_it_is_not() {
        let record = record_in(Phase::Settled(Verdict::Keep));
        let seat = &record.seats[0];
        let (role, target) = (seat.role, seat.target);
        let old = Present { id: seat.id, role, running: ImageHash([0xAA; 32]) };
        let new = present(77, role, 0xBB);
        let other_role = present(78, Role::new("display").unwrap(), 0xBB);
        let there = Present { id: DeviceId([79; 6]), role, running: target };

        let alone = behind(&record, &[old, new, other_role]);
        assert_eq!(alone, vec![Behind { id: new.id, role, has_sender: false }]);
        let with_sender = behind(&record, &[old, new, other_role, there]);
        assert_eq!(with_sender, vec![Behind { id: new.id, role, has_sender: true }]);
    }

    #[test]
    fn nobody_is_behind_a_rollout_that_is_open_or_was_reverted() {
        for phase in [
            Phase::Staging,
            Phase::Settling(Verdict::Keep),
            Phase::Settled(Verdict::Revert(Cause::Aborted)),
        ] {
            let record = record_in(phase);
            let new = present(77, record.seats[0].role, 0xBB);
            assert_eq!(behind(&record, &[new]), vec![], "{phase:?}");
        }
    }

    fn late(id: u8) -> Behind {
        let role = Role::new("transmitter").unwrap();
        Behind { id: DeviceId([id; 6]), role, has_sender: true }
    }

    fn without_sender(id: u8) -> Behind {
        Behind { has_sender: false, ..late(id) }
    }

    /// When this one device is tried, looked at every second for a day.
    fn tries_s(latecomers: &mut Latecomers, behind: Behind) -> Vec<u64> {
        let seconds = 0..24 * 3_600;
        let is_turn = |s: &u64| {
            let turns = latecomers.turns(Instant::from_ms(s * 1_000), &[behind]);
            assert!(turns.is_empty() || turns == [Turn::Bring(behind)], "{turns:?}");
            !turns.is_empty()
        };
        seconds.filter(is_turn).collect()
    }

    #[test]
    fn a_latecomer_is_tried_at_once_and_then_four_times_with_doubled_pauses() {
        let mut latecomers = Latecomers::default();
        assert_eq!(tries_s(&mut latecomers, late(1)), vec![0, 30, 90, 210, 450]);
    }

    #[test]
    fn each_latecomer_has_tries_of_its_own() {
        let mut latecomers = Latecomers::default();
        let at = Instant::from_ms;
        assert_eq!(latecomers.turns(at(0), &[late(1)]), vec![Turn::Bring(late(1))]);
        let both = [late(1), late(2)];
        assert_eq!(latecomers.turns(at(1_000), &both), vec![Turn::Bring(late(2))]);
        assert_eq!(latecomers.turns(at(30_000), &both), vec![Turn::Bring(late(1))]);
        assert_eq!(latecomers.turns(at(31_000), &both), vec![Turn::Bring(late(2))]);
    }

    #[test]
    fn whoever_nobody_can_send_to_is_named_once_and_tried_when_a_sender_comes() {
        let mut latecomers = Latecomers::default();
        let (alone, sent) = (without_sender(1), late(1));
        let at = Instant::from_ms;
        assert_eq!(latecomers.turns(at(0), &[alone]), vec![Turn::AskForBundle(alone)]);
        assert_eq!(latecomers.turns(at(1_000), &[alone]), vec![]);
        assert_eq!(latecomers.turns(at(90_000_000), &[alone]), vec![]);
        assert_eq!(latecomers.turns(at(90_001_000), &[sent]), vec![Turn::Bring(sent)]);
    }

    #[test]
    fn a_sender_that_is_gone_for_a_while_costs_no_try() {
        let mut latecomers = Latecomers::default();
        let at = Instant::from_ms;
        assert_eq!(latecomers.turns(at(0), &[late(1)]), vec![Turn::Bring(late(1))]);
        for s in 1..100 {
            assert_eq!(latecomers.turns(at(s * 1_000), &[without_sender(1)]), vec![]);
        }
        assert_eq!(latecomers.turns(at(100_000), &[late(1)]), vec![Turn::Bring(late(1))]);
        assert_eq!(latecomers.turns(at(159_999), &[late(1)]), vec![]);
        assert_eq!(latecomers.turns(at(160_000), &[late(1)]), vec![Turn::Bring(late(1))]);
    }

    /// Whoever flickers in and out is not tried more often for that.
    #[test]
    fn a_latecomer_that_goes_and_comes_back_is_still_known() {
        let mut latecomers = Latecomers::default();
        let at = Instant::from_ms;
        assert_eq!(latecomers.turns(at(0), &[late(1)]).len(), 1);
        assert_eq!(latecomers.turns(at(1_000), &[]), vec![]);
        assert_eq!(latecomers.turns(at(2_000), &[late(1)]), vec![]);
    }

    #[test]
    fn no_more_are_known_than_the_limit_and_those_that_are_gone_make_room() {
        let mut latecomers = Latecomers::default();
        let ids = 0..u8::try_from(LATECOMERS_MAX).unwrap();
        let many: Vec<Behind> = ids.map(late).collect();
        let at = Instant::from_ms;
        assert_eq!(latecomers.turns(at(0), &many).len(), LATECOMERS_MAX);
        let mut all = many.clone();
        all.push(late(200));
        assert_eq!(latecomers.turns(at(1_000), &all), vec![], "nobody is gone");
        all.remove(0);
        assert_eq!(latecomers.turns(at(2_000), &all), vec![Turn::Bring(late(200))]);
        assert_eq!(latecomers.tried.len(), LATECOMERS_MAX);
        assert_eq!(latecomers.turns(at(3_000), &all), vec![], "they are still known");
    }
}
