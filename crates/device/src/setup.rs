//! What a node is given at start: who it is, how fast it lives, and the application it serves.

use alloc::string::String;

use lockstep_proto::compat::Announced;
use lockstep_proto::descriptor::Product;
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::{DeviceId, ImageHash};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::Policy;

use crate::channel::ChannelPlan;

pub use lockstep_agent::Pace as StagingPace;

/// What the running firmware says of itself.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// The running image.
    pub image: ImageHash,
    /// From the descriptor; `None` for firmware without one, of which the device remembers what
    /// the manifest said.
    pub announced: Option<Announced>,
    /// From the descriptor: the system that the device belongs to.
    pub product: Option<Product>,
    /// From the descriptor, else 0.
    pub config_schema: u16,
    /// `__DATE__` of the build.
    pub build_date: String,
    /// `__TIME__` of the build.
    pub build_time: String,
}

/// Everything a node is given at start.
#[derive(Debug, Clone)]
pub struct NodeSetup {
    /// This device.
    pub id: DeviceId,
    /// What it is for.
    pub role: Role,
    /// Its chip.
    pub chip: ChipId,
    /// Its board, as artifacts name it.
    pub board: Board,
    /// Its hardware, for people.
    pub hardware: String,
    /// The running firmware.
    pub firmware: Firmware,
    /// The slot it was booted from, 0 or 1.
    pub running_slot: u8,
    /// The number of `esp_reset_reason_t`.
    pub reset_reason: u8,
    /// What is taken to catch a failed trial, until a trial has shown what the bootloader does.
    pub rollback: Rollback,
    /// Which channels its radio may be on; a lead's is [`ChannelPlan::Fixed`] in any case.
    pub channels: ChannelPlan,
    /// Whether its radio takes and sends frames of [`LARGE_FRAME_BYTES_MAX`] bytes, as ESP-NOW
    /// version 2 does (ESP-IDF 5.4 and later), and so large blocks.
    ///
    /// [`LARGE_FRAME_BYTES_MAX`]: lockstep_proto::frame::LARGE_FRAME_BYTES_MAX
    pub takes_large: bool,
    /// The group's secret. `None`: it was given none, as a new board, and waits for adoption; a
    /// lead needs one. What a device was adopted with counts as long as it is started with the
    /// same.
    pub group_key: Option<GroupKey>,
    /// Keys that were given at provisioning; the record's take precedence once there are any.
    pub trust: Trust,
    /// Whether this device conducts the group's rollouts.
    pub duty: Duty,
    /// Limits of the rollouts it conducts.
    pub policy: Policy,
    /// How often it says what.
    pub pace: Pace,
    /// 64 random bits of this boot: rollout ids, nonces and challenges are derived from it.
    pub seed: u64,
}

/// What a device does in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Conducts the group's rollouts, and takes part in them.
    Lead,
    /// Takes part.
    Member,
}

/// How often a node says what, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Version announce.
    pub announce_ms: u64,
    /// A lead is on the air so long after its reset, with its access point found, at most.
    pub lead_boot_ms: u64,
    /// A member that has heard nothing of its lead for so long looks for it on other channels:
    /// longer than two boots of the lead, and than what makes a link count as gone.
    pub lost_ms: u64,
    /// So long a member waits on a channel for the lead's answer: longer than the erase of a
    /// sector.
    pub dwell_ms: u64,
    /// Probe of the links while nothing happens.
    pub probe_ms: u64,
    /// Probe of the links while a rollout is open, on trial, and just after a boot.
    pub probe_busy_ms: u64,
    /// Health sample.
    pub sample_ms: u64,
    /// A link without an echo for so long does not carry data both ways.
    pub link_fresh_ms: u64,
    /// A member says again which blocks it wants.
    pub wants_ms: u64,
    /// An answer of a member about blocks may take so long.
    pub answer_ms: u64,
    /// Whom the repair frames of a generation were too few for says so within this time.
    pub mend_ms: u64,
    /// So long after everybody has kept it a release raises the epoch.
    pub soak_ms: u64,
}

impl Pace {
    /// For chips.
    pub const fn board() -> Self {
        Self {
            announce_ms: 10_000,
            lead_boot_ms: 15_000,
            lost_ms: 32_000,
            dwell_ms: 200,
            probe_ms: 5_000,
            probe_busy_ms: 1_000,
            sample_ms: 500,
            link_fresh_ms: 12_000,
            wants_ms: 1_000,
            answer_ms: 60,
            mend_ms: 6,
            soak_ms: 600_000,
        }
    }

    /// For desk devices.
    pub const fn desk() -> Self {
        Self {
            announce_ms: 10_000,
            lead_boot_ms: 1_500,
            lost_ms: 4_000,
            dwell_ms: 60,
            probe_ms: 1_000,
            probe_busy_ms: 150,
            sample_ms: 100,
            link_fresh_ms: 2_500,
            wants_ms: 300,
            answer_ms: 80,
            mend_ms: 12,
            soak_ms: 5_000,
        }
    }
}

/// How far the application is on its way to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestAnswer {
    /// It is stopping what a reboot would hurt.
    Pending,
    /// A reboot hurts nothing now.
    AtRest,
    /// It cannot stop now; it is asked again.
    NotNow,
}

/// What the application says of its own health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationHealth {
    /// All its required checks pass.
    pub is_ok: bool,
    /// What it found, for people.
    pub detail: &'static str,
}

/// What the sample application measures or shows; for pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Data frames sent or taken.
    pub frames: u32,
    /// Last state of charge, in hundredths of a percent.
    pub soc_centipercent: u16,
    /// Last power in watts.
    pub power_w: i32,
}

/// The application that shares the device. The node asks and tells; it never waits.
pub trait Application {
    /// Begin to stop what a reboot would hurt. Asked again while a rollout waits for it.
    fn ask_rest(&mut self, now: Instant);

    /// How far it is since [`Application::ask_rest`].
    fn poll_rest(&mut self, now: Instant) -> RestAnswer;

    /// No reboot is coming: go on working.
    fn release(&mut self, now: Instant);

    /// Its own required checks.
    fn health(&mut self, now: Instant) -> ApplicationHealth;

    /// A data frame of a compatible peer.
    fn take_data(&mut self, now: Instant, from: DeviceId, frame: &[u8]);

    /// A data frame to send to all, if one is due: writes it and returns its length in bytes.
    fn data_to_send(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize>;

    /// How much of the flash's time staging may take now: an erase stops a chip for tens of
    /// milliseconds, which a control loop feels.
    fn staging_pace(&self, now: Instant) -> StagingPace;

    /// Its configuration is this JSON object from now on: told before anything else when the device
    /// starts, if there is one, and whenever somebody stores another. What it does not take it
    /// refuses with a line for people; then the one before stays in force.
    fn take_config(&mut self, _config: &str) -> Result<(), String> {
        Ok(())
    }

    /// Names of the fields of its configuration, at any depth, that are nobody else's business.
    fn secrets(&self) -> &[&str] {
        &[]
    }

    /// Seconds since 1970 in UTC, if this device knows: it has a clock that runs without it, or the
    /// network has told it since it booted.
    fn unix_time_s(&self) -> Option<u64> {
        None
    }

    /// Free heap in bytes.
    fn free_heap_bytes(&self) -> u32;

    /// What it measures or shows.
    fn figures(&self) -> Option<Figures>;
}
