//! The search, searched: bugs are planted one at a time, and worlds must find them.
//!
//! Each line of the output names a bug, the invariant that caught it, and the seed whose timeline
//! is the shortest of those that did. The feature `planted` is needed:
//! `cargo test --release -p lockstep-sim --features planted --test planted -- --nocapture`.

#![cfg(feature = "planted")]

use std::thread;

use lockstep_proto::planted::{Bug, plant};
use lockstep_sim::world::{Scale, run_many, shortest};

#[test]
fn planted_bugs_are_found() {
    let jobs = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        plant(Some(bug));
        let limit = if elsewhere(bug) { WORLDS_ELSEWHERE_MAX } else { WORLDS_MAX };
        let mut worlds = 0;
        let found = loop {
            let many = run_many(Scale::default(), worlds, BATCH_WORLDS, jobs, |_| ());
            worlds += BATCH_WORLDS;
            if !many.found.is_empty() || worlds >= limit {
                break many.found;
            }
        };
        match shortest(Scale::default(), &found) {
            Some(best) => println!(
                "{bug:?}: {} of {worlds} worlds, seed {}, invariant {}: {}",
                found.len(),
                best.seed,
                best.violation.invariant,
                best.violation.text
            ),
            None => {
                println!("{bug:?}: not found in {worlds} worlds");
                missed.push(bug);
            }
        }
    }
    plant(None);
    missed.retain(|bug| !elsewhere(*bug));
    assert!(missed.is_empty(), "not found any more: {missed:?}");
}

/// Whether another search than this one is known to find `bug`.
fn elsewhere(bug: Bug) -> bool {
    [MODEL_FINDS, RECORD_FINDS, HARMLESS].iter().any(|known| known.contains(&bug))
}

/// Too rare for worlds; `tests/model` finds them, with paths of some twenty steps.
const MODEL_FINDS: &[Bug] = &[Bug::AttemptTwice, Bug::StageKeepsTrial];
/// One byte in thousands, which must then read differently: tests of the record cut every one.
const RECORD_FINDS: &[Bug] = &[Bug::WeakBitsBelieved];
/// Another rule stands behind them, so that nothing breaks: late frames are dropped by their
/// counter before the generation is asked, and what was believed to be in flash is found out when
/// the slot is read back. Tests of the agent show each rule alone.
const HARMLESS: &[Bug] = &[Bug::StaleGeneration, Bug::ProgressBeforeBytes];
const BATCH_WORLDS: u64 = 64;
/// What the rarest bug takes, more than twice over.
const WORLDS_MAX: u64 = 4_096;
/// Worlds for a bug that others find: enough to notice that worlds find it too.
const WORLDS_ELSEWHERE_MAX: u64 = 512;
