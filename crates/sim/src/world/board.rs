//! One board of a world: its flash outlives everything else; node and application live from a boot
//! to the next reset.

use lockstep_agent::Booted as AgentBooted;
use lockstep_device::Node;
use lockstep_device::setup::{Duty, Firmware, NodeSetup, Pace};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::DeviceId;
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
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
    /// Whose releases it takes.
    pub trust: Trust,
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
    /// When its present boot began.
    pub(crate) booted_at: u64,
    /// When it boots next, while it is off.
    pub(crate) boots_at: Option<(u64, ResetReason)>,
    /// When its node is to be woken.
    pub(crate) wakes_at: u64,
    /// When its radio takes the next frame, if the node may have one.
    pub(crate) sends_at: u64,
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
    pub(crate) fn new(index: usize, setup: BoardSetup, image: &Image) -> Self {
        let number = u8::try_from(index + 1).expect("a few boards");
        Self {
            index,
            id: DeviceId([2, 0, 0, 0, 0, number]),
            setup,
            flash: ChipFlash::with_image(&image.bytes),
            node: None,
            behaviour: Behaviour::Healthy,
            boots: 0,
            booted_at: 0,
            boots_at: Some((0, ResetReason::PowerOn)),
            wakes_at: u64::MAX,
            sends_at: u64::MAX,
            off_ms: 0,
        }
    }

    /// Whether it runs.
    pub const fn is_on(&self) -> bool {
        self.node.is_some()
    }

    /// Its own time since boot.
    pub(crate) fn uptime(&self, now: u64) -> Instant {
        let since = u128::from(now - self.booted_at);
        let ms = since * u128::from(self.rate()) / u128::from(MILLION);
        Instant::from_ms(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// When its clock will show `at`, in the world's time.
    fn world_time(&self, at: Instant) -> u64 {
        let ms = (u128::from(at.ms) * u128::from(MILLION)).div_ceil(u128::from(self.rate()));
        self.booted_at.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX))
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
        // Frames bring the next tick forward, and never put it off.
        self.wakes_at = node_wakes.max(now + 1).min(fault.max(now)).min(self.wakes_at);
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
        self.node = None;
        self.wakes_at = u64::MAX;
        self.sends_at = u64::MAX;
        self.boots_at = Some((at, reset));
    }

    /// From the bootloader to the running firmware. `behaves` says what an image does.
    pub(crate) fn boot(
        &mut self,
        now: u64,
        reset: ResetReason,
        group: &GroupSetup,
        seed: u64,
        behaves: impl FnOnce(&lockstep_proto::id::ImageHash) -> Behaviour,
    ) -> BootResult {
        self.boots += 1;
        self.boots_at = None;
        self.booted_at = now;
        let has_rollback = self.setup.rollback == Rollback::Bootloader;
        let bootloader = Bootloader { chip: self.setup.chip, rollback: has_rollback };
        let booted = match bootloader.boot(&mut self.flash, reset) {
            Ok(booted) => booted,
            Err(_) if self.flash.has_lost_power() => return BootResult::LostPower,
            Err(failure) => return BootResult::Fails(failure.to_string()),
        };
        let BootSlot::Ota(slot) = booted.slot else {
            return BootResult::Fails(format!("boots from {}", booted.slot));
        };
        self.behaviour = behaves(&booted.image.image_hash);
        if self.behaviour == Behaviour::CrashesAtBoot {
            return BootResult::Resets(ResetReason::Panic, "crashes at boot");
        }
        let descriptor = booted.image.descriptor.as_ref();
        let setup = NodeSetup {
            id: self.id,
            role: Label::new(self.setup.role).expect("a short name"),
            chip: self.setup.chip,
            board: Label::new(board_of(self.setup.role)).expect("a short name"),
            hardware: String::new(),
            firmware: Firmware {
                image: booted.image.image_hash,
                announced: descriptor.map(lockstep_proto::descriptor::Descriptor::announced),
                config_schema: 1,
                build_date: String::new(),
                build_time: String::new(),
            },
            running_slot: slot,
            reset_reason: 1,
            rollback: self.setup.rollback,
            group_key: group.key.clone(),
            trust: self.setup.trust.clone(),
            duty: self.setup.duty,
            policy: group.policy,
            pace: group.pace,
            seed,
        };
        let application = WorldApplication::new(self.behaviour, self.setup.rest_ms);
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
}

const MILLION: u64 = 1_000_000;
/// When the watchdog bites a firmware that hangs.
pub(crate) const WATCHDOG_MS: u64 = 2_000;
