//! The sample application on a desk: it works, unless its image orders a fault or a test wants it
//! to refuse to rest.

use lockstep_device::sample::{SampleApplication, Work};
use lockstep_device::setup::{Application, ApplicationHealth, Figures, RestAnswer};
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

/// What runs on a desk board beside the node.
#[derive(Debug)]
pub struct DeskApplication {
    sample: SampleApplication,
    fault: Fault,
    rest: RestManner,
}

impl DeskApplication {
    /// The application of a device of `role` whose image shows `fault`.
    pub(super) fn new(role: &str, fault: Fault, rest: RestManner) -> Self {
        let work = if role == "transmitter" { Work::Sends } else { Work::Shows };
        Self { sample: SampleApplication::new(work, FREE_HEAP_BYTES), fault, rest }
    }
}

impl Application for DeskApplication {
    fn ask_rest(&mut self, now: Instant) {
        self.sample.ask_rest(now);
    }

    fn poll_rest(&mut self, now: Instant) -> RestAnswer {
        match self.rest {
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

    fn free_heap_bytes(&self) -> u32 {
        self.sample.free_heap_bytes()
    }

    fn figures(&self) -> Option<Figures> {
        self.sample.figures()
    }
}

/// What is left on an ESP32 with Wi-Fi, a web server and a screen.
const FREE_HEAP_BYTES: u32 = 150_000;
