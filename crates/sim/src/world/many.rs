//! Many worlds on several cores, what they reached together, and what they should have reached.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::census::Census;
use super::images::Library;
use super::search::{Found, run_scaled};
use super::swarm::Scale;
use super::timeline::Detail;

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Many {
    /// What happened in all of them, counted.
    pub census: Census,
    /// Seeds in which an invariant does not hold, up to [`FOUND_MAX`], the lowest first.
    pub found: Vec<Found>,
    /// Worlds lived through.
    pub worlds: u64,
}

/// Seeds that are remembered, at most; a search that has found so many ends.
pub const FOUND_MAX: usize = 20;

/// Lives through `count` worlds of this scale from seed `first` on. `progress` is told how many are
/// done.
///
/// What is returned depends on the seeds alone, not on the number of jobs, unless the search ends
/// early.
pub fn run_many(
    scale: Scale,
    first: u64,
    count: u64,
    jobs: usize,
    progress: impl Fn(u64) + Sync,
) -> Many {
    let next = AtomicU64::new(0);
    let ends = AtomicBool::new(false);
    let many = Mutex::new(Many::default());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut library = Library::default();
                while !ends.load(Ordering::Relaxed) {
                    let start = next.fetch_add(BATCH, Ordering::Relaxed);
                    if start >= count {
                        break;
                    }
                    let batch = start..count.min(start + BATCH);
                    let done = batch.end - batch.start;
                    let seeds = batch.map(|index| first.wrapping_add(index));
                    let part = run_batch(scale, seeds, &mut library);
                    let mut many = many.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    many.census.merge(&part.census);
                    many.found.extend(part.found);
                    many.worlds += done;
                    if many.found.len() >= FOUND_MAX {
                        ends.store(true, Ordering::Relaxed);
                    }
                    progress(many.worlds);
                }
            });
        }
    });
    let mut many = many.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    many.found.sort_by_key(|found| found.seed);
    many
}

fn run_batch(scale: Scale, seeds: impl Iterator<Item = u64>, library: &mut Library) -> Many {
    let mut many = Many::default();
    for seed in seeds {
        let outcome = run_scaled(scale, seed, Detail::Nothing, library);
        many.census.merge(&outcome.census);
        many.found.extend(outcome.violation.map(|violation| Found { seed, violation }));
    }
    many
}

/// Of seeds in which an invariant does not hold: the one whose timeline is the shortest.
pub fn shortest(scale: Scale, found: &[Found]) -> Option<&Found> {
    let mut library = Library::default();
    found.iter().min_by_key(|found| {
        let outcome = run_scaled(scale, found.seed, Detail::Events, &mut library);
        (outcome.timeline.lines().len(), found.seed)
    })
}

/// Something that should be common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// What it is, for people.
    pub what: &'static str,
    /// The names that are counted: all that begin so.
    pub counted: &'static str,
    /// For every thousand worlds, at least.
    pub per_thousand_min: u64,
}

/// How often something that should be common was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// What should be common.
    pub expected: Expected,
    /// How often it happened.
    pub times: u64,
    /// Whether that is too rarely.
    pub is_rare: bool,
}

/// Below so many worlds nothing is called rare.
pub const WORLDS_TO_JUDGE: u64 = 1_000;

/// Whether what should be common was, as far as that is known for this scale.
pub fn reached(scale: Scale, many: &Many) -> Vec<Reached> {
    let expected = match scale {
        Scale { members: None, loss_percent: None } => EXPECTED,
        Scale::LARGE => EXPECTED_LARGE,
        Scale { .. } => &[],
    };
    let judge = |&expected: &Expected| {
        let times = many.census.of_all(expected.counted);
        let is_rare = many.worlds >= WORLDS_TO_JUDGE
            && times * 1_000 < expected.per_thousand_min * many.worlds;
        Reached { expected, times, is_rare }
    };
    expected.iter().map(judge).collect()
}

const fn expect(what: &'static str, counted: &'static str, per_thousand_min: u64) -> Expected {
    Expected { what, counted, per_thousand_min }
}

/// Shares are less than half of what is measured, so that only a real change of reach is called
/// rare.
const EXPECTED: &[Expected] = &[
    expect("rollouts kept", "verdict: keep of forward", 1_200),
    expect("rollouts back that are kept", "verdict: keep of back", 80),
    expect("rollouts reverted", "verdict: revert", 400),
    expect("reverts after an abort", "cause: aborted", 40),
    expect("reverts after a bad upload", "cause: bad-upload", 60),
    expect("reverts since a member fell back", "cause: fell-back", 160),
    expect("reverts since a member was not healthy", "cause: not-healthy", 60),
    expect("reverts since an application did not rest", "cause: not-now", 4),
    expect("reverts since a member refused", "cause: refused", 15),
    expect("reverts since nothing more came", "cause: staging-deadline", 40),
    expect("power cuts while staging", "cut in phase: staging", 140),
    expect("power cuts at rest", "cut in phase: rest", 15),
    expect("power cuts on trial", "cut in phase: trial", 110),
    expect("power cuts while settling", "cut in phase: settling", 50),
    expect("power cuts after settling", "cut in phase: settled", 30),
    expect("cuts in a write of otadata", "cut in flash: write of otadata", 7),
    expect("cuts in a write of the record", "cut in flash: write of record", 70),
    expect("cuts in a write of the package", "cut in flash: write of package", 15),
    expect("cuts in a write of a slot", "cut in flash: write of slot", 50),
    expect("torn erases of otadata", "cut in flash: erase of otadata", 4),
    expect("torn erases", "cut in flash: erase", 15),
    expect("activated again after keep", "recovery: activated again", 80),
    expect("repairs", "recovery: repair opened", 12),
    expect("repairs that end", "verdict: keep of repair", 10),
    expect("leads that go on under old firmware", "recovery: lead goes on", 250),
    expect("generations that come out wrong", "generation: poisoned", 1),
    expect("images made from patches", "patch: made", 120),
    expect("damaged patches", "patch: damaged", 20),
    expect("uploads resumed after a restart", "upload: resumed", 60),
    expect("uploads that vanish", "upload: vanished", 30),
    expect("second rollouts refused", "second rollout: refused", 50),
    expect("forged releases refused", "upload: failed, Untrusted", 25),
    expect("releases below the epoch refused", "upload: refused, epoch-too-low", 1),
    expect("incompatible releases refused", "upload: refused, incompatible", 40),
    expect("channels that move while staging", "channel moves in phase: staging", 50),
    expect("channels that move at rest", "channel moves in phase: rest", 15),
    expect("channels that move on trial", "channel moves in phase: trial", 110),
    expect("channels that move while settling", "channel moves in phase: settling", 30),
    expect("leads found on a channel", "channel: lead found", 900),
    expect("orders heard twice", "replay: heard twice", 1_500),
];

/// The same of [`Scale::LARGE`].
const EXPECTED_LARGE: &[Expected] = &[
    expect("rollouts kept", "verdict: keep of forward", 500),
    expect("rollouts reverted", "verdict: revert", 900),
    expect("reverts after an abort", "cause: aborted", 40),
    expect("reverts after a bad upload", "cause: bad-upload", 250),
    expect("reverts since a member fell back", "cause: fell-back", 250),
    expect("reverts since a member was not healthy", "cause: not-healthy", 250),
    expect("power cuts while staging", "cut in phase: staging", 120),
    expect("power cuts on trial", "cut in phase: trial", 60),
    expect("power cuts while settling", "cut in phase: settling", 40),
    expect("cuts in flash work", "cut in flash", 150),
    expect("generations that come out wrong", "generation: poisoned", 10),
    expect("images made from patches", "patch: made", 700),
    expect("resets", "reset", 1_000),
    expect("channels that move while staging", "channel moves in phase: staging", 250),
    expect("channels that move on trial", "channel moves in phase: trial", 250),
    expect("leads found on a channel", "channel: lead found", 15_000),
    expect("activated again after keep", "recovery: activated again", 35),
    expect("leads that go on under old firmware", "recovery: lead goes on", 350),
    expect("uploads that vanish", "upload: vanished", 120),
    expect("second rollouts refused", "second rollout: refused", 60),
    expect("orders heard twice", "replay: heard twice", 15_000),
];

/// Seeds that one job takes at a time.
const BATCH: u64 = 8;
