//! The sample application on a chip: a transmitter measures and sends, a receiver shows.

use alloc::string::String;

use lockstep_device::sample::{SampleApplication, Work};
use lockstep_device::setup::{Application, ApplicationHealth, Figures, RestAnswer, StagingPace};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

use crate::start::Part;

/// What runs on the chip beside the node.
#[derive(Debug)]
pub(crate) struct ChipApplication {
    sample: SampleApplication,
    /// Seconds since 1970 in UTC at the chip's reset, once somebody has told.
    reset_at_unix_s: Option<u64>,
}

impl ChipApplication {
    pub(crate) fn new(part: Part) -> Self {
        let work = match part {
            Part::Receiver => Work::Shows,
            Part::Transmitter => Work::Sends,
        };
        Self { sample: SampleApplication::new(work, 0), reset_at_unix_s: None }
    }

    /// It is so many seconds since 1970 in UTC.
    #[cfg(feature = "radio")]
    pub(crate) fn set_clock(&mut self, now: Instant, unix_s: u64) {
        self.reset_at_unix_s = Some(unix_s.saturating_sub(now.ms / 1000));
    }
}

impl Application for ChipApplication {
    fn ask_rest(&mut self, now: Instant) {
        self.sample.ask_rest(now);
    }

    fn poll_rest(&mut self, now: Instant) -> RestAnswer {
        self.sample.poll_rest(now)
    }

    fn release(&mut self, now: Instant) {
        self.sample.release(now);
    }

    fn health(&mut self, now: Instant) -> ApplicationHealth {
        self.sample.health(now)
    }

    fn take_data(&mut self, now: Instant, from: DeviceId, frame: &[u8]) {
        self.sample.take_data(now, from, frame);
    }

    fn data_to_send(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        self.sample.data_to_send(now, buffer)
    }

    fn staging_pace(&self, now: Instant) -> StagingPace {
        self.sample.staging_pace(now)
    }

    fn take_config(&mut self, config: &str) -> Result<(), String> {
        self.sample.take_config(config)
    }

    fn secrets(&self) -> &[&str] {
        self.sample.secrets()
    }

    fn unix_time_s(&self) -> Option<u64> {
        let up_s = esp_hal::time::Instant::now().duration_since_epoch().as_secs();
        self.reset_at_unix_s.map(|reset_at| reset_at + up_s)
    }

    fn free_heap_bytes(&self) -> u32 {
        u32::try_from(esp_alloc::HEAP.free()).unwrap_or(u32::MAX)
    }

    fn figures(&self) -> Option<Figures> {
        self.sample.figures()
    }
}
