//! Worlds in virtual time: a few of them in every test run, thousands in the suite `sim`, those
//! that once showed something, and one that is set up by hand. Others are `lockstep sim --seeds N`.

use std::rc::Rc;
use std::thread;

use fastrand::Rng;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_rollout::{Phase, Verdict};
use lockstep_sim::bootloader::ResetReason;
use lockstep_sim::world::{
    Behaviour, Detail, Fault, Found, Image, ImageSpec, LEAD, Library, Lists, Manner, PhaseName,
    Reached, Release, Scale, Signing, Uploaded, When, World, WorldSetup, draw, reached, run_many,
    run_seed,
};

/// Optimised, as in the suite `sim`, as many as `lockstep sim --seeds 5000`. The same worlds each
/// time: what they found before is mended, and must stay so.
const WORLDS: u64 = if cfg!(debug_assertions) { 40 } else { 5_000 };

#[test]
fn no_world_breaks_an_invariant() {
    let jobs = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let many = run_many(Scale::default(), 0, WORLDS, jobs, |_| ());
    for (name, number) in many.census.iter() {
        println!("{number:>8} {name}");
    }
    for Found { seed, violation } in &many.found {
        println!("invariant {}, {}: `lockstep sim {seed}`", violation.invariant, violation.text);
    }
    assert_eq!(many.found, []);
    let rare: Vec<_> =
        reached(Scale::default(), &many).into_iter().filter(|it| it.is_rare).collect();
    assert!(rare.is_empty(), "what should be common was rare: {rare:#?}");
    // A search that reaches nothing finds nothing.
    for reached in ["verdict: keep", "verdict: revert", "cut in phase", "cut in flash", "cause: "] {
        assert!(many.census.of_all(reached) > 10, "{reached}: {:?}", many.census);
    }
}

/// Ten members with every kind of fault, a fifth of all frames lost. Fewer worlds in a debug build:
/// each is as long as ten of a pair.
const LARGE_WORLDS: u64 = if cfg!(debug_assertions) { 4 } else { 100 };

#[test]
fn no_world_of_ten_members_with_every_fault_breaks_an_invariant() {
    let jobs = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let many = run_many(Scale::LARGE, 0, LARGE_WORLDS, jobs, |_| ());
    assert_eq!(many.found, []);
    for (name, number) in many.census.iter() {
        println!("{number:>8} {name}");
    }
    if cfg!(debug_assertions) {
        return;
    }
    // What is rarer may be missing in so few.
    let common = |it: &Reached| it.expected.per_thousand_min >= 120;
    for reached in reached(Scale::LARGE, &many).into_iter().filter(common) {
        assert!(reached.times > 0, "{}: {:?}", reached.expected.what, many.census);
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [3, 41] {
        let mut library = Library::default();
        let one = run_seed(seed, Detail::Frames, &mut library);
        // With images and flashes that another world has used.
        let other = run_seed(seed, Detail::Frames, &mut library);
        assert!(one.timeline.lines().len() > 500);
        let lines = one.timeline.lines().iter().zip(other.timeline.lines());
        assert_eq!(lines.clone().find(|(one, other)| one != other), None, "seed {seed}");
        assert_eq!(one.timeline.lines().len(), other.timeline.lines().len());
        assert_eq!(one.census, other.census);
        // Whether anybody looks changes nothing.
        assert_eq!(run_seed(seed, Detail::Nothing, &mut library).census, one.census);
    }
}

/// Seeds that showed a bug, or that reach what few do, with what they must reach. What a seed draws
/// changes with the generator: then others take their places, found with `lockstep sim --seeds`.
const KEPT: &[(u64, &str)] = &[
    // An abort in preflight left the aborted rollout in the place of the one before.
    (375, "upload: refused, aborted"),
    (228, "upload: refused, aborted"),
    // A repair that brings everybody back.
    (32, "verdict: keep of repair"),
    // A member that fell back after keep, and was activated again.
    (186, "recovery: activated again"),
    // The lead falls back on trial and ends its own rollout under the old firmware.
    (615, "recovery: lead goes on under old firmware"),
    // An upload that went on after a restart of the lead.
    (422, "upload: resumed"),
    (676, "cause: too-many-restarts"),
    (1_038, "upload: refused, epoch-too-low"),
    (882, "upload: failed, Untrusted"),
    (107, "cut in flash: erase of otadata"),
    (669, "rot: of a staged image"),
    // Firmware that was healthy once, and never again, was told to confirm for ever.
    (14_870, "verdict: keep of forward"),
];

#[test]
fn kept_seeds_reach_what_they_are_kept_for() {
    let mut library = Library::default();
    for &(seed, reaches) in KEPT {
        let outcome = run_seed(seed, Detail::Nothing, &mut library);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.census.of(reaches) > 0, "seed {seed} does not reach `{reaches}`");
    }
}

/// A pair on 1.0.0, and the bundle of 1.1.0 for it.
struct Pair {
    world: World,
    new: [Rc<Image>; 2],
    library: Library,
}

impl Pair {
    fn new() -> Self {
        Self::with_member(ChannelPlan::Fixed)
    }

    fn with_member(channels: ChannelPlan) -> Self {
        let mut library = Library::default();
        // Any seed with a pair says what a pair is; everything else here is set by hand.
        let pair = (0..).map(|seed| draw(&mut Rng::with_seed(seed)));
        let mut swarm = pair.into_iter().find(|swarm| swarm.boards.len() == 2).expect("a pair");
        swarm.boards[1].channels = channels;
        let mut image = |index: usize, minor| {
            library.image(ImageSpec {
                role: swarm.boards[index].role,
                chip: swarm.boards[index].chip,
                version: (1, minor),
                protocol: (1, 1),
                epoch: 0,
                behaviour: Behaviour::Healthy,
                is_akin: false,
            })
        };
        let old = [image(0, 0), image(1, 0)];
        let new = [image(0, 1), image(1, 1)];
        let setup = WorldSetup {
            boards: swarm.boards.iter().cloned().zip(old).collect(),
            group: swarm.group,
            seed: 1,
            detail: Detail::Events,
        };
        let mut world = World::new(setup, &mut library);
        let met = |world: &World| {
            world.boards()[LEAD].node.as_ref().is_some_and(|lead| lead.members().len() == 2)
        };
        assert!(world.run_until(5_000, met));
        Self { world, new, library }
    }

    /// Its member has no access point, and the lead's goes elsewhere.
    fn scanning(to: Channel) -> Self {
        let mut pair = Self::with_member(ChannelPlan::ALL);
        pair.world.apply(Fault::ChannelMoves { to });
        let found = |world: &World| {
            let member = &world.boards()[1];
            member.channel == to && member.node.as_ref().is_some_and(|it| !it.seeks_lead())
        };
        assert!(pair.world.run_until(20_000, found), "{:#?}", pair.world.timeline.lines());
        pair
    }

    fn upload(&mut self) {
        self.upload_with(Lists::Written);
    }

    fn upload_with(&mut self, lists: Lists) {
        let [receiver, transmitter] = &self.new;
        let release = Release {
            version: (1, 1),
            epoch: 0,
            images: vec![Rc::clone(transmitter), Rc::clone(receiver)],
            order: Vec::new(),
            reboot_delay_s: 0,
            health_timeout_s: 4,
            signing: Signing::Nobody,
            lists,
            patches: Vec::new(),
        };
        self.world.upload(Rc::new(release.bundle()), Manner::default());
    }

    fn settle(&mut self) -> Verdict {
        let settled = self.world.run_until(60_000, |world| {
            world.uploaded.is_some() && world.is_idle() && world.unsettled().is_none()
        });
        assert!(settled, "{:#?}", self.world.timeline.lines());
        assert_eq!(self.world.violation(), None);
        match self.world.record().map(|record| record.phase) {
            Some(Phase::Settled(verdict)) => verdict,
            phase => panic!("{phase:?}"),
        }
    }

    fn runs_new(&self) -> [bool; 2] {
        [0, 1].map(|index| {
            self.world.running(index).is_some_and(|image| image.hash == self.new[index].hash)
        })
    }
}

#[test]
fn a_world_by_hand_without_faults_keeps_the_release() {
    let mut pair = Pair::new();
    pair.upload();
    assert_eq!(pair.settle(), Verdict::Keep);
    assert_eq!(pair.world.uploaded, Some(Uploaded::Complete));
    assert_eq!(pair.runs_new(), [true, true]);
    pair.world.retire(&mut pair.library);
}

#[test]
fn a_world_by_hand_with_a_brown_out_on_trial_goes_back() {
    let mut pair = Pair::new();
    let brown_out = Fault::Reset { board: 1, reason: ResetReason::BrownOut };
    pair.world.on(When::OnTrial(1, 50), brown_out);
    pair.upload();
    assert!(matches!(pair.settle(), Verdict::Revert(_)));
    assert_eq!(pair.runs_new(), [false, false]);
}

#[test]
fn a_world_by_hand_with_a_cut_after_the_verdict_is_mended() {
    let mut pair = Pair::new();
    let cut = Fault::PowerCut { board: 1, off_ms: 300 };
    pair.world.on(When::Phase(PhaseName::Settling, 0), cut);
    pair.upload();
    assert_eq!(pair.settle(), Verdict::Keep);
    assert_eq!(pair.runs_new(), [true, true]);
    assert!(pair.world.census.of("recovery: activated again") > 0);
}

/// What a list of generations is for, and what a release without one pays.
#[test]
fn a_write_that_goes_wrong_costs_a_generation_with_lists_and_the_rollout_without() {
    for (lists, is_kept) in [(Lists::Written, true), (Lists::LeftOut, false)] {
        let mut pair = Pair::new();
        pair.world.on(When::Phase(PhaseName::Staging, 200), Fault::BadWrite { board: 1 });
        pair.upload_with(lists);
        let verdict = pair.settle();
        let lines = pair.world.timeline.lines();
        assert_eq!(verdict == Verdict::Keep, is_kept, "{lists:?}: {lines:#?}");
        assert_eq!(pair.runs_new(), [is_kept; 2]);
        assert_eq!(pair.world.census.of("cause: refused"), u64::from(!is_kept));
        assert_eq!(pair.world.census.of("generation: poisoned"), u64::from(is_kept));
    }
}

#[test]
fn a_world_by_hand_whose_lead_goes_to_another_channel_keeps_the_release() {
    let phases = [PhaseName::Staging, PhaseName::Rest, PhaseName::Trial, PhaseName::Settling];
    for (phase, number) in phases.into_iter().zip([3, 13, 6, 1]) {
        let mut pair = Pair::scanning(Channel::new(9).unwrap());
        let to = Channel::new(number).unwrap();
        pair.world.on(When::Phase(phase, 20), Fault::ChannelMoves { to });
        pair.upload();
        assert_eq!(pair.settle(), Verdict::Keep, "{phase:?}");
        assert_eq!(pair.runs_new(), [true, true], "{phase:?}");
        assert_eq!(pair.world.boards()[1].channel, to, "{phase:?}");
    }
}
