//! The sample application on a desk: it works, unless its image orders a fault or a test wants it
//! to refuse to rest, or to be busy.

use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_device::sample::{SampleApplication, Work};
use lockstep_device::setup::{Application, ApplicationHealth, Figures, RestAnswer, StagingPace};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

use crate::firmware::Fault;

/// How the application answers when it is asked to come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestManner {
    /// It opens its contactors and is at rest.
    #[default]
    Obliges,
    /// It cannot stop now, whenever it is asked.
    NotNow,
}

/// What the application does while its device stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// It is idle: staging may take the flash.
    #[default]
    Idle,
    /// Its control loop runs: staging gets the flash for one operation every
    /// [`BUSY_PAUSE_MS`] milliseconds.
    Busy,
}

/// Whether the device knows the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// As a chip does that has asked the network.
    #[default]
    Runs,
    /// As a chip without one.
    None,
}

/// What runs on a desk board beside the node.
#[derive(Debug)]
pub struct DeskApplication {
    sample: SampleApplication,
    fault: Fault,
    manners: Manners,
}

/// How the application gets on with its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manners {
    /// How it answers when it is asked to come to rest.
    pub rest: RestManner,
    /// What it does while its device stages.
    pub load: Load,
    /// Whether it knows the time.
    pub clock: Clock,
}

impl DeskApplication {
    /// The application of a device of `role` whose image shows `fault`.
    pub(super) fn new(role: &str, fault: Fault, manners: Manners) -> Self {
        let work = if role == "transmitter" { Work::Sends } else { Work::Shows };
        Self { sample: SampleApplication::new(work, FREE_HEAP_BYTES), fault, manners }
    }
}

impl Application for DeskApplication {
    fn ask_rest(&mut self, now: Instant) {
        self.sample.ask_rest(now);
    }

    fn poll_rest(&mut self, now: Instant) -> RestAnswer {
        match self.manners.rest {
            RestManner::Obliges => self.sample.poll_rest(now),
            RestManner::NotNow => RestAnswer::NotNow,
        }
    }

    fn release(&mut self, now: Instant) {
        self.sample.release(now);
    }

    fn health(&mut self, now: Instant) -> ApplicationHealth {
        match self.fault {
            Fault::NeverHealthy => ApplicationHealth {
                is_ok: false,
                detail: "its image orders it to be never healthy",
            },
            _ => self.sample.health(now),
        }
    }

    fn take_data(&mut self, now: Instant, from: DeviceId, frame: &[u8]) {
        self.sample.take_data(now, from, frame);
    }

    fn data_to_send(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        self.sample.data_to_send(now, buffer)
    }

    fn staging_pace(&self, now: Instant) -> StagingPace {
        match self.manners.load {
            Load::Idle => self.sample.staging_pace(now),
            Load::Busy => StagingPace::Background { ms_between: BUSY_PAUSE_MS },
        }
    }

    fn take_config(&mut self, config: &str) -> Result<(), String> {
        self.sample.take_config(config)
    }

    fn secrets(&self) -> &[&str] {
        self.sample.secrets()
    }

    fn unix_time_s(&self) -> Option<u64> {
        match self.manners.clock {
            Clock::Runs => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
                since_1970.ok().map(|time| time.as_secs())
            }
            Clock::None => None,
        }
    }

    fn free_heap_bytes(&self) -> u32 {
        self.sample.free_heap_bytes()
    }

    fn figures(&self) -> Option<Figures> {
        self.sample.figures()
    }
}

/// Between two operations of staging a busy application has the chip for itself, in milliseconds.
pub const BUSY_PAUSE_MS: u32 = 2;
/// What is left on an ESP32 with Wi-Fi, a web server and a screen.
const FREE_HEAP_BYTES: u32 = 150_000;
