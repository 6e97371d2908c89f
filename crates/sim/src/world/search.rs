//! One seed, one world, from the first boot to a settled group; and the search through many.

use fastrand::Rng;

use super::census::Census;
use super::images::Library;
use super::invariants::Violation;
use super::story::Story;
use super::swarm::{Scale, draw_scaled};
use super::timeline::{Detail, Timeline};

/// What a seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What happened, counted.
    pub census: Census,
    /// What happened, as far as it was to be kept.
    pub timeline: Timeline,
    /// The invariant that did not hold, if one did not.
    pub violation: Option<Violation>,
}

/// A seed in whose world an invariant does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// What was seen.
    pub violation: Violation,
}

/// Looks for a seed in which an invariant does not hold; the first is taken.
pub fn search(seeds: impl IntoIterator<Item = u64>) -> Option<Found> {
    let mut library = Library::default();
    seeds.into_iter().find_map(|seed| {
        let outcome = run_seed(seed, Detail::Nothing, &mut library);
        outcome.violation.map(|violation| Found { seed, violation })
    })
}

/// Lives through the world of a seed.
pub fn run_seed(seed: u64, detail: Detail, library: &mut Library) -> Outcome {
    run_scaled(Scale::default(), seed, detail, library)
}

/// The same, but for what is not left to the seed.
pub fn run_scaled(scale: Scale, seed: u64, detail: Detail, library: &mut Library) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let swarm = draw_scaled(scale, &mut rng);
    let mut story = Story::begin(swarm, rng, detail, library);
    story.live(library);
    let Story { mut world, violation, .. } = story;
    // What was seen comes before what did not come about because of it.
    let violation = world.observer.violation.take().or(violation);
    let mut census = core::mem::take(&mut world.census);
    census.count("worlds", "lived through");
    let timeline = core::mem::take(&mut world.timeline);
    world.retire(library);
    Outcome { seed, census, timeline, violation }
}
