//! What happens in the world of a seed: the boards meet, several rollouts are asked for while
//! things go wrong, then the weather clears, the group has to settle, and has to take another
//! release.

use std::rc::Rc;

use fastrand::Rng;
use lockstep_proto::manifest::Trust;
use lockstep_rollout::{Kind, Phase, Verdict};

use super::faults::Fault;
use super::images::{Behaviour, Image, ImageSpec, Library, Lists, ROLES, Release};
use super::invariants::Violation;
use super::signing::{Signing, team_trust};
use super::swarm::{Swarm, draw_channel};
use super::timeline::Detail;
use super::upload::{Manner, Uploaded};
use super::{LEAD, World, WorldSetup};

/// A world on its way from its first boot to its last release.
pub(super) struct Story {
    pub(super) world: World,
    swarm: Swarm,
    rng: Rng,
    /// What becomes of the lead's channel is drawn from this.
    channels: Rng,
    /// Whether manifests have the hashes of generations is drawn from this.
    lists: Rng,
    /// What patches there are is drawn from this; `None`: this world has none.
    patches: Option<Rng>,
    /// The minor version that was offered last.
    minor: u16,
    /// The highest epoch that was ever offered.
    epoch_max: u32,
    /// What did not hold of the story as a whole.
    pub(super) violation: Option<Violation>,
}

/// What a release is to be.
#[derive(Debug, Clone, Copy)]
struct Kindred {
    protocol: u8,
    epoch: u32,
    signing: Signing,
}

impl Story {
    pub(super) fn begin(swarm: Swarm, mut rng: Rng, detail: Detail, library: &mut Library) -> Self {
        let trust = if swarm.is_signed { team_trust() } else { Trust::anybody() };
        let mut patches = Rng::with_seed(rng.get_seed() ^ 0x0050_4154_4348);
        let patches = (patches.u8(0..16) == 0).then_some(patches);
        let boards = swarm.boards.iter().map(|setup| {
            let spec = ImageSpec {
                role: setup.role,
                chip: setup.chip,
                version: (1, 0),
                protocol: (1, 1),
                epoch: 0,
                behaviour: Behaviour::Healthy,
                is_akin: patches.is_some(),
            };
            let setup = super::BoardSetup { trust: trust.clone(), ..setup.clone() };
            (setup, library.image(spec))
        });
        let setup = WorldSetup {
            boards: boards.collect(),
            group: swarm.group.clone(),
            seed: rng.u64(..),
            detail,
        };
        let mut world = World::new(setup, library);
        for board in &mut world.boards {
            board.flash.set_residue(swarm.residue, rng.u64(..));
        }
        // Drawn apart, so that it changes nothing else about a seed.
        let mut channels = Rng::with_seed(rng.get_seed() ^ 0x004D_4F56_4553);
        if swarm.kinds.channel_moves {
            world.apply(Fault::ChannelMoves { to: draw_channel(&mut channels) });
        }
        let lists = Rng::with_seed(rng.get_seed() ^ 0x004C_4953_5453);
        let (minor, epoch_max, violation) = (0, 0, None);
        Self { world, swarm, rng, channels, lists, patches, minor, epoch_max, violation }
    }

    pub(super) fn live(&mut self, library: &mut Library) {
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
        if self.swarm.kinds.channel_moves {
            for _ in 0..self.channels.u32(0..=CHANNEL_MOVES_MAX) {
                let now = self.world.now();
                let (when, fault) = self.swarm.draw_channel_move(now, &mut self.channels);
                self.world.on(when, fault);
            }
        }
        let was_kept = self.world.record().is_some_and(|record| {
            record.phase == Phase::Settled(Verdict::Keep) && record.kind != Kind::Repair
        });
        if was_kept && self.rng.u8(0..4) == 0 {
            let is_begun = self.world.revert();
            self.world.census.count("back", if is_begun { "begun" } else { "refused" });
        } else {
            let release = self.draw_release(library);
            let bundle = Rc::new(release.bundle());
            let manner = self.swarm.draw_manner(bundle.size_bytes(), &mut self.rng);
            self.world.upload(bundle, manner);
        }
        self.world.run_until(REQUEST_MS, World::is_idle);
        self.count_upload();
        // It has to be on for a moment before it can be asked again, and time passes anyway.
        let pause_ms = self.rng.u64(0..PAUSE_MS_MAX);
        self.world.run_ms(pause_ms);
    }

    fn count_upload(&mut self) {
        let Some(uploaded) = self.world.uploaded.take() else { return };
        let what = match uploaded {
            Uploaded::Complete => "complete".to_owned(),
            Uploaded::Vanished => "vanished".to_owned(),
            Uploaded::Failed(lockstep_device::UploadError::Refused(faults)) => {
                let code = faults.first().map_or("aborted", |fault| fault.fault.code());
                format!("refused, {code}")
            }
            Uploaded::Failed(error) => {
                let debug = format!("{error:?}");
                let name = debug.split(|letter: char| !letter.is_alphanumeric()).next();
                format!("failed, {}", name.unwrap_or_default())
            }
        };
        self.world.census.count("upload", &what);
    }

    fn draw_release(&mut self, library: &mut Library) -> Release {
        let everybody = self.rng.u8(0..4) > 0;
        let mut roles = self.roles();
        let alone = roles[self.rng.usize(0..roles.len())];
        roles.retain(|role| everybody || *role == alone);
        let kindred = self.draw_kindred();
        let images = self.images(&roles, kindred, library);
        let order = match self.rng.u8(0..3) {
            0 => {
                self.rng.shuffle(&mut roles);
                roles
            }
            _ => Vec::new(),
        };
        let reboot_delay_s = u32::from(self.rng.u8(0..4) == 0);
        let lists = if self.lists.u8(0..3) == 0 { Lists::LeftOut } else { Lists::Written };
        let patches = self.draw_patches(&images, library);
        Release { order, reboot_delay_s, lists, patches, ..release(images, kindred) }
    }

    /// What makes these images of those that run, some of it damaged or for something else; and
    /// some images under compression.
    fn draw_patches(
        &mut self,
        images: &[Rc<Image>],
        library: &mut Library,
    ) -> Vec<(&'static str, Rc<Vec<u8>>)> {
        let Some(rng) = &mut self.patches else { return Vec::new() };
        let boards = 0..self.world.boards().len();
        let running: Vec<_> = boards.filter_map(|it| self.world.running(it).cloned()).collect();
        let mut patches = Vec::new();
        for image in images {
            let role = image.spec.role;
            let of_role = running.iter().filter(|old| old.spec.role == role);
            let mut bases: Vec<_> = of_role.filter(|old| old.hash != image.hash).collect();
            bases.sort_by_key(|old| old.hash);
            bases.dedup_by_key(|old| old.hash);
            for old in bases.into_iter().take(BASES_MAX) {
                let mut patch = library.patch(Some(old), image);
                if rng.u8(0..6) == 0 {
                    let at = rng.usize(0..patch.len());
                    Rc::make_mut(&mut patch)[at] ^= 1 << rng.u8(0..8);
                    self.world.census.count("patch", "damaged");
                }
                patches.push((role, patch));
            }
            if rng.bool() {
                patches.push((role, library.patch(None, image)));
            }
        }
        patches
    }

    fn draw_kindred(&mut self) -> Kindred {
        let protocol = self.protocol() + u8::from(self.rng.u8(0..6) == 0);
        let epoch = match self.rng.u8(0..8) {
            0 => self.epoch_max + 1,
            1 => self.rng.u32(0..=self.epoch_max),
            _ => self.epoch_max,
        };
        let signing = match self.rng.u8(0..6) {
            _ if !self.swarm.is_signed => Signing::Nobody,
            0 => Signing::Forger,
            _ => Signing::Team,
        };
        if signing != Signing::Forger {
            self.epoch_max = self.epoch_max.max(epoch);
        }
        Kindred { protocol, epoch, signing }
    }

    /// What the lead speaks.
    fn protocol(&self) -> u8 {
        self.world.running(LEAD).map_or(1, |image| image.spec.protocol.1)
    }

    /// The roles of this group.
    fn roles(&self) -> Vec<&'static str> {
        let owned = |role: &&str| self.swarm.boards.iter().any(|board| board.role == *role);
        ROLES.into_iter().filter(owned).collect()
    }

    /// An image for each role, the lead's last.
    fn images(
        &mut self,
        roles: &[&'static str],
        kindred: Kindred,
        library: &mut Library,
    ) -> Vec<Rc<Image>> {
        self.minor += 1;
        let mut images = Vec::new();
        for role in roles.iter().rev() {
            let mut boards = self.swarm.boards.iter().filter(|board| board.role == *role);
            let Some(board) = boards.next() else { continue };
            let weakest = boards.map(|board| board.rollback).fold(board.rollback, Ord::min);
            let behaviour = self.swarm.draw_behaviour(weakest, &mut self.rng);
            images.push(library.image(ImageSpec {
                role,
                chip: board.chip,
                version: (u16::from(kindred.protocol), self.minor),
                protocol: (kindred.protocol, kindred.protocol),
                epoch: kindred.epoch,
                behaviour,
                is_akin: self.patches.is_some(),
            }));
        }
        images
    }

    /// 8. Faults stop, and the group settles whole.
    fn settle(&mut self) {
        self.world.clear();
        if self.settles() {
            return;
        }
        if self.world.record().is_some_and(|record| record.kind == Kind::Repair) {
            // It goes back to what there was, and has to wait until that is well.
            self.world.cure();
            self.world.census.count("known", "repair to firmware that is not well");
            if self.settles() {
                return;
            }
        }
        let why = self.world.unsettled().unwrap_or_else(|| "an upload never ends".into());
        self.world.tell_seats();
        self.fail(8, format!("the group does not settle: {why}"));
    }

    fn settles(&mut self) -> bool {
        let is_settled = |world: &World| world.upload.is_none() && world.unsettled().is_none();
        self.world.run_until(SETTLE_MS, is_settled)
    }

    /// Whatever it has been through, a whole group takes the next good release.
    fn update_once_more(&mut self, library: &mut Library) {
        self.world.cure();
        self.world.run_ms(REST_MS);
        self.swarm.kinds.sick_firmware = false;
        let signing = if self.swarm.is_signed { Signing::Team } else { Signing::Nobody };
        let kindred = Kindred { protocol: self.protocol(), epoch: self.epoch_max, signing };
        let images = self.images(&self.roles(), kindred, library);
        let targets: Vec<_> = images.iter().map(|image| image.hash).collect();
        let bundle = Rc::new(release(images, kindred).bundle());
        self.world.upload(bundle, Manner::default());
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
            self.world.tell_seats();
            self.fail(8, text);
        }
    }
}

/// All together, everybody healthy within four seconds.
fn release(images: Vec<Rc<Image>>, kindred: Kindred) -> Release {
    let version = images.first().map_or((1, 0), |image| image.spec.version);
    Release {
        version,
        epoch: kindred.epoch,
        images,
        order: Vec::new(),
        reboot_delay_s: 0,
        health_timeout_s: 4,
        signing: kindred.signing,
        lists: Lists::Written,
        patches: Vec::new(),
    }
}

/// The boards of a world have met by then.
const MEETING_MS: u64 = 10_000;
/// So often the lead's access point changes its channel in a rollout, at most.
const CHANNEL_MOVES_MAX: u32 = 2;
/// Images of a role from which there are patches, at most: one patch is left for the whole image.
const BASES_MAX: usize = 7;
/// What was asked for is over by then, or the next thing is asked for.
const REQUEST_MS: u64 = 90_000;
/// Between two requests, at most: sometimes long enough for a soak.
const PAUSE_MS_MAX: u64 = 3_000;
/// A group without faults has settled by then.
const SETTLE_MS: u64 = 150_000;
/// Between the settled group and its next release: probes that were lost are forgotten.
const REST_MS: u64 = 4_000;
