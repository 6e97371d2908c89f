//! Who came later than the release that the group runs, and whether the group can bring them to it
//! by itself.

use alloc::vec::Vec;

use lockstep_proto::id::{DeviceId, ImageHash};
use lockstep_proto::wire::Role;

use crate::record::{Phase, RolloutRecord, Verdict};

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
}
