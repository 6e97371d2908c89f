//! Random worlds: whatever is lost, repeated, late, crashed, aborted or ill, the invariants hold at
//! every order (the fixture checks them), and once the faults stop the group is whole.

mod group;

use group::{Air, Flaw, LEAD, TestGroup, device, release, role};
use lockstep_proto::frame::report::MemberState;
use lockstep_rollout::{Kind, Phase, Rollout, Verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

#[derive(Debug, Clone)]
enum Action {
    Wait {
        ms: u64,
    },
    Reset {
        member: usize,
        off_ms: u64,
    },
    Air(Air),
    CutOff {
        member: usize,
    },
    Reach {
        member: usize,
    },
    Ill {
        member: usize,
    },
    Well {
        member: usize,
    },
    NotNow {
        member: usize,
    },
    Now {
        member: usize,
    },
    Flawed {
        member: usize,
        flaw: Flaw,
    },
    TearConfirms {
        member: usize,
        times: u8,
    },
    SpoilSlot {
        member: usize,
    },
    Abort,
    FailStores,
    Store,
    /// Another rollout, if the one before is over.
    Next {
        back: bool,
    },
}

#[derive(Debug, Clone)]
struct World {
    members: usize,
    seed: u64,
    ordered: bool,
    actions: Vec<Action>,
}

fn any_world() -> impl Strategy<Value = World> {
    (2..=4_usize).prop_flat_map(|members| {
        let actions = proptest::collection::vec(any_action(members), 0..32);
        (any::<u64>(), any::<bool>(), actions).prop_map(move |(seed, ordered, actions)| World {
            members,
            seed,
            ordered,
            actions,
        })
    })
}

fn any_action(members: usize) -> impl Strategy<Value = Action> {
    let member = move || 0..members;
    let flaw = prop_oneof![
        Just(Flaw::CrashesAtBoot),
        (100..3_000_u64).prop_map(Flaw::CrashesAfterMs),
        Just(Flaw::NeverHealthy),
        Just(Flaw::Deaf),
    ];
    prop_oneof![
        12 => (10..3_000_u64).prop_map(|ms| Action::Wait { ms }),
        3 => (member(), 0..3_000_u64).prop_map(|(member, off_ms)| Action::Reset { member, off_ms }),
        2 => (0..40_u64, 0..20_u64, 0..300_u64)
            .prop_map(|(loss_percent, twice_percent, delay_ms_max)| {
            Action::Air(Air { loss_percent, twice_percent, delay_ms_max })
        }),
        1 => member().prop_map(|member| Action::CutOff { member }),
        1 => member().prop_map(|member| Action::Reach { member }),
        1 => member().prop_map(|member| Action::Ill { member }),
        1 => member().prop_map(|member| Action::Well { member }),
        1 => member().prop_map(|member| Action::NotNow { member }),
        1 => member().prop_map(|member| Action::Now { member }),
        1 => (member(), flaw).prop_map(|(member, flaw)| Action::Flawed { member, flaw }),
        6 => (member(), 1..30_u8)
            .prop_map(|(member, times)| Action::TearConfirms { member, times }),
        1 => member().prop_map(|member| Action::SpoilSlot { member }),
        1 => Just(Action::Abort),
        1 => Just(Action::FailStores),
        1 => Just(Action::Store),
        2 => any::<bool>().prop_map(|back| Action::Next { back }),
    ]
}

/// How a world ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Keep,
    Back,
    Revert,
    Repair,
}

fn run(world: &World) -> Outcome {
    let mut group = TestGroup::new(world.members);
    group.seed(world.seed);
    // A raised epoch bars the way back: nobody may need it any more by then.
    group.members.iter_mut().for_each(|member| member.raises_epoch = world.seed % 2 == 1);
    begin(&mut group, world, 2);
    let mut number = 2;
    for action in &world.actions {
        if let Action::Next { back } = action {
            let over = group.rollout.as_ref().is_some_and(Rollout::is_over);
            let settled = group.record().is_some_and(|record| record.phase.verdict().is_some());
            match back {
                true if over && settled => group.back(),
                false if over => {
                    number += 1;
                    begin(&mut group, world, number);
                }
                _ => (),
            }
        }
        act(&mut group, action);
    }
    stop_faults(&mut group);
    ensure_liveness(&mut group)
}

fn begin(group: &mut TestGroup, world: &World, number: u8) {
    let all: Vec<_> = (0..world.members).collect();
    let order = if world.ordered {
        all.iter().rev().map(|&index| role(index)).collect()
    } else {
        Vec::new()
    };
    group.forward(lockstep_rollout::Release { order, ..release(number, &all) });
}

fn act(group: &mut TestGroup, action: &Action) {
    match *action {
        Action::Wait { ms } => group.run_ms(ms),
        Action::Reset { member, off_ms } => group.reset(member, off_ms),
        Action::Air(air) => group.air = air,
        Action::CutOff { member } => group.members[member].cut_off = member != LEAD,
        Action::Reach { member } => group.members[member].cut_off = false,
        Action::Ill { member } => group.members[member].ill = true,
        Action::Well { member } => group.members[member].ill = false,
        Action::NotNow { member } => group.members[member].not_now = true,
        Action::Now { member } => group.members[member].not_now = false,
        Action::Flawed { member, flaw } => {
            // What ran before runs well: a way back that does not is nothing to go back to.
            let fresh = group.record().filter(|record| record.kind == Kind::Forward);
            let target = fresh.map(|record| record.seats[member].target);
            let target = target.filter(|image| *image != group.members[member].running);
            group.members[member].flaws.extend(target.map(|image| (image, flaw)));
        }
        Action::TearConfirms { member, times } => group.members[member].torn_confirms = times,
        Action::SpoilSlot { member } => group.members[member].slot_spoilt = true,
        Action::Abort => group.abort(),
        Action::FailStores => group.store_fails = true,
        Action::Store => group.store_fails = false,
        Action::Next { .. } => (),
    }
    group.run_ms(50);
}

fn stop_faults(group: &mut TestGroup) {
    if group.rollout.as_ref().is_some_and(Rollout::is_refused) {
        // A device goes back to the rollout before: it may have debts.
        group.rollout = None;
    }
    group.air = Air::default();
    group.store_fails = false;
    for member in &mut group.members {
        (member.cut_off, member.ill, member.not_now) = (false, false, false);
        (member.torn_confirms, member.slot_spoilt) = (0, false);
        // What an image does wrong it goes on doing while it is on trial: that is no passing
        // fault. A release that nobody can run is left by a revert or a repair.
        let kept = !member.trial && member.durable.state == MemberState::Kept;
        member.flaws.retain(|(image, _)| !(kept && *image == member.running));
    }
}

fn ensure_liveness(group: &mut TestGroup) -> Outcome {
    let count = group.members.len();
    // Announces, every ten seconds.
    for _ in 0..60 {
        group.run_ms(10_000);
        (0..count).for_each(|index| group.announce(index));
        let settled = group.record().is_none_or(|record| {
            matches!(record.phase, Phase::Settled(_))
                && record.seats.iter().all(|seat| seat.settled)
        });
        let over = group.rollout.as_ref().is_none_or(Rollout::is_over);
        if settled && over {
            return invariant_whole(group);
        }
    }
    panic!("never settled: {:?} {:#?}", group.record(), group.members);
}

fn invariant_whole(group: &TestGroup) -> Outcome {
    for member in &group.members {
        assert!(!member.trial && !member.activated, "{member:#?}");
    }
    let Some(record) = group.record() else {
        assert!(group.all_run(1), "nothing durable, yet something changed");
        return Outcome::Refused;
    };
    for (member, seat) in group.members.iter().zip(&record.seats) {
        let expected = match record.phase.verdict() {
            Some(Verdict::Keep) => seat.target,
            Some(Verdict::Revert(_)) | None => seat.before,
        };
        assert_eq!(member.running, expected, "{:?} {record:#?} {:#?}", device(LEAD), group.members);
    }
    let numbers: Vec<_> = group.members.iter().map(|member| member.running.0[1]).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "mixed: {numbers:?}");
    match (record.kind, record.phase.verdict()) {
        (Kind::Repair, _) => Outcome::Repair,
        (_, Some(Verdict::Revert(_))) => Outcome::Revert,
        (Kind::Back, _) => Outcome::Back,
        (Kind::Forward, _) => Outcome::Keep,
    }
}

proptest! {
    #![proptest_config(Config { cases: 128, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_the_group_ends_whole(world in any_world()) {
        run(&world);
    }
}

// A generator that never gets anywhere proves nothing.
#[test]
fn the_random_worlds_reach_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..300 {
        let world = any_world().new_tree(&mut runner).unwrap().current();
        *counts.entry(run(&world)).or_insert(0_u32) += 1;
    }
    println!("300 worlds: {counts:?}");
    for (outcome, at_least) in [(Outcome::Keep, 30), (Outcome::Revert, 30), (Outcome::Repair, 10)] {
        assert!(counts.get(&outcome).is_some_and(|&count| count >= at_least), "{counts:?}");
    }
}
