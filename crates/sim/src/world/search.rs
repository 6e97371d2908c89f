//! One seed, one world, from the first boot to a settled group; and the search through many.

use std::rc::Rc;

use fastrand::Rng;
use lockstep_rollout::{Kind, Phase, Verdict};

use super::census::Census;
use super::images::{Behaviour, Image, ImageSpec, Library, ROLES, Release};
use super::invariants::Violation;
use super::swarm::{Swarm, draw};
use super::timeline::{Detail, Timeline};
use super::upload::{Manner, Uploaded};
use super::{LEAD, World, WorldSetup};

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
    let mut rng = Rng::with_seed(seed);
    let swarm = draw(&mut rng);
    let mut story = Story::begin(swarm, rng, detail, library);
    story.live(library);
    let Story { mut world, violation, .. } = story;
    let violation = violation.or_else(|| world.observer.violation.take());
    let mut census = core::mem::take(&mut world.census);
    census.count("worlds", "lived through");
    let timeline = core::mem::take(&mut world.timeline);
    world.retire(library);
    Outcome { seed, census, timeline, violation }
}

struct Story {
    world: World,
    swarm: Swarm,
    rng: Rng,
    /// The version that was offered last.
    version: (u16, u16),
    violation: Option<Violation>,
}

impl Story {
    fn begin(swarm: Swarm, mut rng: Rng, detail: Detail, library: &mut Library) -> Self {
        let version = (1, 0);
        let boards = swarm.boards.iter().map(|setup| {
            let spec = ImageSpec {
                role: setup.role,
                chip: setup.chip,
                version,
                protocol: (1, 1),
                epoch: 0,
                behaviour: Behaviour::Healthy,
            };
            (setup.clone(), library.image(spec))
        });
        let setup = WorldSetup {
            boards: boards.collect(),
            group: swarm.group.clone(),
            seed: rng.u64(..),
            detail,
        };
        Self { world: World::new(setup, library), swarm, rng, version, violation: None }
    }

    fn live(&mut self, library: &mut Library) {
        let count = self.world.boards().len();
        let knows_all = move |world: &World| {
            let lead = world.boards()[LEAD].node.as_ref();
            lead.is_some_and(|lead| lead.members().len() == count)
        };
        if !self.world.run_until(MEETING_MS, knows_all) {
            return self.fail(8, "the boards of a clear world do not meet".into());
        }
        self.world.air_mut().weather = self.swarm.weather;
        for _ in 0..self.swarm.requests {
            self.request(library);
            if self.world.violation().is_some() {
                return;
            }
        }
        self.settle();
        if self.violation.is_none() && self.world.violation().is_none() {
            self.update_once_more(library);
        }
    }

    fn fail(&mut self, invariant: u8, text: String) {
        let at_ms = self.world.now();
        self.violation.get_or_insert(Violation { invariant, at_ms, text });
    }

    /// One rollout is asked for, with what goes wrong in it.
    fn request(&mut self, library: &mut Library) {
        for _ in 0..self.rng.u32(0..=self.swarm.faults_max) {
            let now = self.world.now();
            if let Some((when, fault)) = self.swarm.draw_fault(now, &mut self.rng) {
                self.world.on(when, fault);
            }
        }
        let was_kept = self.world.record().is_some_and(|record| {
            record.phase == Phase::Settled(Verdict::Keep) && record.kind != Kind::Repair
        });
        if was_kept && self.rng.u8(0..4) == 0 {
            self.world.revert();
        } else {
            let release = self.draw_release(library);
            let bundle = Rc::new(release.bundle());
            let manner = self.swarm.draw_manner(bundle.size_bytes(), &mut self.rng);
            self.world.upload(bundle, manner);
        }
        self.world.run_until(REQUEST_MS, World::is_idle);
        self.count_upload();
    }

    fn count_upload(&mut self) {
        let Some(uploaded) = self.world.uploaded.take() else { return };
        let what = match uploaded {
            Uploaded::Complete => "complete".to_owned(),
            Uploaded::Vanished => "vanished".to_owned(),
            Uploaded::Failed(error) => {
                let debug = format!("{error:?}");
                let name = debug.split(|letter: char| !letter.is_alphanumeric()).next();
                format!("failed, {}", name.unwrap_or_default())
            }
        };
        self.world.census.count("upload", &what);
    }

    fn draw_release(&mut self, library: &mut Library) -> Release {
        self.version.1 += 1;
        let everybody = self.rng.u8(0..4) > 0;
        let mut roles: Vec<&'static str> = ROLES.to_vec();
        roles.retain(|role| self.swarm.boards.iter().any(|board| board.role == *role));
        let alone = roles[self.rng.usize(0..roles.len())];
        roles.retain(|role| everybody || *role == alone);
        let images = self.images(&roles, library);
        let order = match self.rng.u8(0..3) {
            0 => {
                self.rng.shuffle(&mut roles);
                roles
            }
            _ => Vec::new(),
        };
        let reboot_delay_s = u32::from(self.rng.u8(0..4) == 0);
        let version = self.version;
        Release { version, epoch: 0, images, order, reboot_delay_s, health_timeout_s: 4 }
    }

    /// An image for each role, the lead's last.
    fn images(&mut self, roles: &[&'static str], library: &mut Library) -> Vec<Rc<Image>> {
        let mut images = Vec::new();
        for role in roles.iter().rev() {
            let mut boards = self.swarm.boards.iter().filter(|board| board.role == *role);
            let Some(board) = boards.next() else { continue };
            let weakest = boards.map(|board| board.rollback).fold(board.rollback, Ord::min);
            let behaviour = self.swarm.draw_behaviour(weakest, &mut self.rng);
            images.push(library.image(ImageSpec {
                role,
                chip: board.chip,
                version: self.version,
                protocol: (1, 1),
                epoch: 0,
                behaviour,
            }));
        }
        images
    }

    /// 8. Faults stop, and the group settles whole.
    fn settle(&mut self) {
        self.world.clear();
        let is_settled = |world: &World| world.upload.is_none() && world.unsettled().is_none();
        if !self.world.run_until(SETTLE_MS, is_settled) {
            let why = self.world.unsettled().unwrap_or_else(|| "an upload never ends".into());
            self.fail(8, format!("the group does not settle: {why}"));
        }
    }

    /// Whatever it has been through, a whole group takes the next good release.
    fn update_once_more(&mut self, library: &mut Library) {
        self.world.cure();
        self.world.run_ms(REST_MS);
        self.version.1 += 1;
        let mut roles: Vec<&'static str> = ROLES.to_vec();
        roles.retain(|role| self.swarm.boards.iter().any(|board| board.role == *role));
        self.swarm.kinds.sick_firmware = false;
        let images = self.images(&roles, library);
        let targets: Vec<_> = images.iter().map(|image| image.hash).collect();
        let (version, order) = (self.version, Vec::new());
        let release =
            Release { version, epoch: 0, images, order, reboot_delay_s: 0, health_timeout_s: 4 };
        self.world.upload(Rc::new(release.bundle()), Manner::default());
        let runs_it = |world: &World| {
            world.uploaded == Some(Uploaded::Complete)
                && world.unsettled().is_none()
                && (0..world.boards().len()).all(|board| {
                    world.running(board).is_some_and(|image| targets.contains(&image.hash))
                })
        };
        if !self.world.run_until(SETTLE_MS, runs_it) {
            let (uploaded, lacks) = (&self.world.uploaded, self.world.unsettled());
            let text = format!("the next good release is not taken: {uploaded:?}, {lacks:?}");
            self.fail(8, text);
        }
    }
}

/// The boards of a world have met by then.
const MEETING_MS: u64 = 10_000;
/// What was asked for is over by then, or the next thing is asked for.
const REQUEST_MS: u64 = 90_000;
/// A group without faults has settled by then.
const SETTLE_MS: u64 = 400_000;
/// Between the settled group and its next release: probes that were lost are forgotten.
const REST_MS: u64 = 4_000;
