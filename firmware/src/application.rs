//! The sample application on a chip: a transmitter measures and sends, a receiver shows.

use alloc::string::String;

use lockstep_device::sample::{SampleApplication, Work};
use lockstep_device::setup::{Application, ApplicationHealth, Figures, RestAnswer, StagingPace};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

use crate::start::Part;

/// What runs on the chip beside the node.
#[derive(Debug)]
pub(crate) struct ChipApplication(SampleApplication);

impl ChipApplication {
    pub(crate) fn new(part: Part) -> Self {
        let work = match part {
            Part::Receiver => Work::Shows,
            Part::Transmitter => Work::Sends,
        };
        Self(SampleApplication::new(work, 0))
    }
}

impl Application for ChipApplication {
    fn ask_rest(&mut self, now: Instant) {
        self.0.ask_rest(now);
    }

    fn poll_rest(&mut self, now: Instant) -> RestAnswer {
        self.0.poll_rest(now)
    }

    fn release(&mut self, now: Instant) {
        self.0.release(now);
    }

    fn health(&mut self, now: Instant) -> ApplicationHealth {
        self.0.health(now)
    }

    fn take_data(&mut self, now: Instant, from: DeviceId, frame: &[u8]) {
        self.0.take_data(now, from, frame);
    }

    fn data_to_send(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        self.0.data_to_send(now, buffer)
    }

    fn staging_pace(&self, now: Instant) -> StagingPace {
        self.0.staging_pace(now)
    }

    fn take_config(&mut self, config: &str) -> Result<(), String> {
        self.0.take_config(config)
    }

    fn secrets(&self) -> &[&str] {
        self.0.secrets()
    }

    fn free_heap_bytes(&self) -> u32 {
        u32::try_from(esp_alloc::HEAP.free()).unwrap_or(u32::MAX)
    }

    fn figures(&self) -> Option<Figures> {
        self.0.figures()
    }
}
