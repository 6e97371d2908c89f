//! One board of a world: its flash outlives everything else; node and application live from a boot
//! to the next reset.

use std::collections::BTreeSet;
use std::rc::Rc;

use lockstep_agent::Booted as AgentBooted;
use lockstep_device::Node;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::setup::{Duty, Firmware, NodeSetup, Pace, StagingPace};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::DeviceId;
use lockstep_proto::image::{ChipId, ImageFacts};
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::PartitionEntry;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Label;
use lockstep_rollout::Policy;

use super::application::WorldApplication;
use super::flash::ChipFlash;
use super::images::{Behaviour, Image, board_of};
use crate::bootloader::{BootSlot, Bootloader, ResetReason};

/// What a board is.
#[derive(Debug, Clone)]
pub struct BoardSetup {
    /// What it is for.
    pub role: &'static str,
    /// Its chip.
    pub chip: ChipId,
    /// What catches a failed trial.
    pub rollback: Rollback,
    /// Whether it conducts.
    pub duty: Duty,
    /// Its clock runs faster by so much, in millionths.
    pub drift_ppm: i32,
    /// From reset to the first instruction of its firmware.
    pub boot_ms: u64,
    /// How long its application takes to come to rest.
    pub rest_ms: u64,
    /// How much of the flash's time it grants to staging.
    pub staging: StagingPace,
    /// Whose releases it takes.
    pub trust: Trust,
    /// Whether its radio takes long frames; otherwise it does not hear them.
    pub takes_large: bool,
    /// Whether its access point says on which channel it is, or it finds its lead itself.
    pub channels: ChannelPlan,
}

/// What all boards of a world share.
#[derive(Debug, Clone)]
pub struct GroupSetup {
    /// The group's secret.
    pub key: GroupKey,
    /// Limits of the rollouts.
    pub policy: Policy,
    /// How often nodes say what.
    pub pace: Pace,
}

/// One board.
#[derive(Debug)]
pub struct Board {
    /// Its place in the world, from 0.
    pub index: usize,
    /// Its name on the air.
    pub id: DeviceId,
    /// What it is.
    pub setup: BoardSetup,
    /// Its flash.
    pub flash: ChipFlash,
    /// Its node, while it is on.
    pub node: Option<Box<Node<WorldApplication>>>,
    /// How the running firmware behaves.
    pub behaviour: Behaviour,
    /// How often it has booted.
    pub boots: u32,
    /// Where its radio is.
    pub channel: Channel,
    /// Where it found its lead last, as its memory keeps it over a reset.
    last_good: Option<Channel>,
    /// It looked for its lead when it was looked at last.
    pub(crate) was_seeking: bool,
    /// Whether it made its image from a patch when it was looked at last.
    pub(crate) was_patching: bool,
    /// Poisoned generations of this boot that were counted.
    pub(crate) poisoned: u32,
    /// When its present boot began.
    pub(crate) booted_at: u64,
    /// When it boots next, while it is off.
    pub(crate) boots_at: Option<(u64, ResetReason)>,
    /// When its node is to be woken.
    pub(crate) wakes_at: u64,
    /// When its radio takes the next frame, if the node may have one.
    pub(crate) sends_at: u64,
    /// Numbers of the orders that this boot has heard.
    pub(crate) orders_heard: BTreeSet<u64>,
    /// The body of the last report that it sent.
    pub(crate) last_report: Vec<u8>,
    /// How long it stays off when its flash loses power.
    pub(crate) off_ms: u64,
}

/// What came of a boot.
#[derive(Debug)]
pub(crate) enum BootResult {
    /// The firmware runs.
    Runs,
    /// It reset before it ran; says why.
    Resets(ResetReason, &'static str),
    /// The power went on the way.
    LostPower,
    /// It cannot; says why.
    Fails(String),
}

impl Board {
    pub(crate) fn new(index: usize, setup: BoardSetup, flash: ChipFlash) -> Self {
        let number = u8::try_from(index + 1).expect("a few boards");
        Self {
            index,
            id: DeviceId([2, 0, 0, 0, 0, number]),
            setup,
            flash,
            node: None,
            behaviour: Behaviour::Healthy,
            boots: 0,
            channel: Channel::FIRST,
            last_good: None,
            was_seeking: false,
            was_patching: false,
            poisoned: 0,
            booted_at: 0,
            boots_at: Some((0, ResetReason::PowerOn)),
            wakes_at: u64::MAX,
            sends_at: u64::MAX,
            orders_heard: BTreeSet::new(),
            last_report: Vec::new(),
            off_ms: 0,
        }
    }

    /// Whether it runs.
    pub const fn is_on(&self) -> bool {
        self.node.is_some()
    }

    /// Its own time since boot.
    pub(crate) fn uptime(&self, now: u64) -> Instant {
        // No world lasts for the half million years that this can count.
        Instant::from_ms((now - self.booted_at) * self.rate() / MILLION)
    }

    /// When its clock will show `at`, in the world's time.
    fn world_time(&self, at: Instant) -> u64 {
        self.booted_at.saturating_add(at.ms.saturating_mul(MILLION).div_ceil(self.rate()))
    }

    fn rate(&self) -> u64 {
        MILLION.saturating_add_signed(self.setup.drift_ppm.into())
    }

    /// When it wants to be woken, or what its firmware's fault orders, whichever is first.
    pub(crate) fn plan_wake(&mut self, now: u64) {
        let uptime = self.uptime(now);
        let Some(node) = &self.node else {
            self.wakes_at = u64::MAX;
            return;
        };
        let node_wakes = self.world_time(node.next_wake(uptime));
        let fault = self.fault_at().unwrap_or(u64::MAX);
        // A loop that is busy sending has little time for anything else.
        let sends = self.sends_at != u64::MAX;
        let soonest = if sends { now + BUSY_TICK_MS } else { now + 1 };
        // Frames bring the next tick forward, and never put it off.
        self.wakes_at = node_wakes.max(soonest).min(fault.max(now)).min(self.wakes_at);
    }

    /// When the running firmware does what it should not.
    pub(crate) fn fault_at(&self) -> Option<u64> {
        match self.behaviour {
            Behaviour::CrashesAfterMs(ms) | Behaviour::LiesUntilMs(ms) => {
                Some(self.booted_at + u64::from(ms))
            }
            Behaviour::HangsAfterMs(ms) => Some(self.booted_at + u64::from(ms) + WATCHDOG_MS),
            _ => None,
        }
    }

    /// Whether its firmware has hung.
    pub(crate) fn hangs(&self, now: u64) -> bool {
        matches!(self.behaviour, Behaviour::HangsAfterMs(ms)
            if now >= self.booted_at + u64::from(ms))
    }

    /// It stops, and boots again at `at`.
    pub(crate) fn stop(&mut self, at: u64, reset: ResetReason) {
        let last_good = self.node.as_ref().and_then(|node| node.last_good_channel());
        self.last_good = last_good.filter(|_| reset != ResetReason::PowerOn);
        self.was_seeking = false;
        self.was_patching = false;
        self.poisoned = 0;
        self.node = None;
        self.wakes_at = u64::MAX;
        self.sends_at = u64::MAX;
        self.boots_at = Some((at, reset));
    }

    /// From the bootloader to the running firmware. `knows` says which image a slot holds, if it is
    /// a known one, and how it behaves.
    pub(crate) fn boot(
        &mut self,
        now: u64,
        reset: ResetReason,
        group: &GroupSetup,
        seed: u64,
        knows: impl Fn(u8) -> Option<(Rc<Image>, Behaviour)>,
    ) -> BootResult {
        self.boots += 1;
        self.boots_at = None;
        self.booted_at = now;
        let has_rollback = self.setup.rollback == Rollback::Bootloader;
        let bootloader = Bootloader { chip: self.setup.chip, rollback: has_rollback };
        let mut load = |flash: &mut ChipFlash, partition: &PartitionEntry| {
            let known = ChipFlash::slot_at(partition.offset).and_then(&knows);
            match known.filter(|(image, _)| image.spec.chip == bootloader.chip) {
                Some((image, _)) => Ok(Ok(image.facts.clone())),
                None => bootloader.load(flash, partition),
            }
        };
        let booted = match bootloader.boot_by(&mut self.flash, reset, &mut load) {
            Ok(booted) => booted,
            Err(_) if self.flash.has_lost_power() => return BootResult::LostPower,
            Err(failure) => return BootResult::Fails(failure.to_string()),
        };
        let BootSlot::Ota(slot) = booted.slot else {
            return BootResult::Fails(format!("boots from {}", booted.slot));
        };
        self.behaviour = knows(slot).map_or(Behaviour::Healthy, |(_, behaviour)| behaviour);
        if self.behaviour == Behaviour::CrashesAtBoot {
            return BootResult::Resets(ResetReason::Panic, "crashes at boot");
        }
        let setup = self.node_setup(slot, &booted.image, group, seed);
        let application =
            WorldApplication::new(self.behaviour, self.setup.rest_ms, self.setup.staging);
        match Node::boot(Instant::default(), setup, application, &mut self.flash) {
            _ if self.flash.has_lost_power() => BootResult::LostPower,
            Ok((node, AgentBooted::Run)) => {
                self.node = Some(Box::new(node));
                self.wakes_at = now;
                BootResult::Runs
            }
            Ok((_, AgentBooted::RebootNow(_))) => {
                BootResult::Resets(ResetReason::Software, "goes back before it starts")
            }
            Err(error) => BootResult::Fails(format!("{error}: {error:?}")),
        }
    }

    /// What the node is given in this boot.
    fn node_setup(&self, slot: u8, image: &ImageFacts, group: &GroupSetup, seed: u64) -> NodeSetup {
        let descriptor = image.descriptor.as_ref();
        NodeSetup {
            id: self.id,
            role: Label::new(self.setup.role).expect("a short name"),
            chip: self.setup.chip,
            board: Label::new(board_of(self.setup.role)).expect("a short name"),
            hardware: String::new(),
            firmware: Firmware {
                image: image.image_hash,
                announced: descriptor.map(lockstep_proto::descriptor::Descriptor::announced),
                product: descriptor.map(|descriptor| descriptor.product.clone()),
                config_schema: 1,
                build_date: String::new(),
                build_time: String::new(),
            },
            running_slot: slot,
            reset_reason: 1,
            rollback: self.setup.rollback,
            takes_large: self.setup.takes_large,
            channels: match self.setup.channels {
                ChannelPlan::Scan { first, last, .. } => {
                    ChannelPlan::Scan { first, last, last_good: self.last_good }
                }
                ChannelPlan::Fixed => ChannelPlan::Fixed,
            },
            group_key: Some(group.key.clone()),
            trust: self.setup.trust.clone(),
            duty: self.setup.duty,
            policy: group.policy,
            pace: group.pace,
            seed,
        }
    }
}

const MILLION: u64 = 1_000_000;
/// Between two ticks while there is something to send.
const BUSY_TICK_MS: u64 = 10;
/// When the watchdog bites a firmware that hangs.
pub(crate) const WATCHDOG_MS: u64 = 2_000;
