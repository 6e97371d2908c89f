//! The application beside a node: it behaves as its image orders, and counts what the node asked of
//! it and gave to it. What the observer knows of health and of the gate, it knows from here.

use lockstep_device::setup::{Application, ApplicationHealth, Figures, RestAnswer, StagingPace};
use lockstep_proto::frame::data::DATA;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

use super::images::Behaviour;

/// What runs on a simulated board beside its node.
#[derive(Debug)]
pub struct WorldApplication {
    behaviour: Behaviour,
    rest_ms: u64,
    pace: StagingPace,
    /// When it will be at rest; `None` while it works.
    rest_at: Option<Instant>,
    sent_at: Option<Instant>,
    /// Answers in a row, up to now, that it was healthy.
    pub(crate) healthy_answers: u32,
    /// Data frames that the node let through.
    pub(crate) frames_taken: u32,
}

impl WorldApplication {
    /// Its image's behaviour, how long it takes to come to rest, and what it grants to staging.
    pub(crate) const fn new(behaviour: Behaviour, rest_ms: u64, pace: StagingPace) -> Self {
        let (rest_at, sent_at) = (None, None);
        Self { behaviour, rest_ms, pace, rest_at, sent_at, healthy_answers: 0, frames_taken: 0 }
    }

    /// It comes to rest when it is asked, whatever its image orders.
    pub(crate) fn learn_to_rest(&mut self) {
        if self.behaviour == Behaviour::NeverRests {
            self.behaviour = Behaviour::Healthy;
        }
    }

    /// Whether it has stopped its work, or is about to.
    pub(crate) const fn is_resting(&self) -> bool {
        self.rest_at.is_some()
    }
}

impl Application for WorldApplication {
    fn ask_rest(&mut self, now: Instant) {
        self.rest_at.get_or_insert(now + self.rest_ms);
    }

    fn poll_rest(&mut self, now: Instant) -> RestAnswer {
        match self.rest_at {
            _ if self.behaviour == Behaviour::NeverRests => RestAnswer::NotNow,
            Some(at) if now >= at => RestAnswer::AtRest,
            Some(_) | None => RestAnswer::Pending,
        }
    }

    fn release(&mut self, _now: Instant) {
        self.rest_at = None;
    }

    fn health(&mut self, now: Instant) -> ApplicationHealth {
        let is_ok = match self.behaviour {
            Behaviour::NeverHealthy => false,
            Behaviour::FlapsEveryMs(ms) => (now.ms / u64::from(ms)).is_multiple_of(2),
            _ => true,
        };
        self.healthy_answers = if is_ok { self.healthy_answers + 1 } else { 0 };
        ApplicationHealth { is_ok, detail: "" }
    }

    fn take_data(&mut self, _now: Instant, _from: DeviceId, _frame: &[u8]) {
        self.frames_taken += 1;
    }

    fn data_to_send(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let waits = self.sent_at.is_some_and(|at| now.ms_since(at) < SEND_EVERY_MS);
        if waits || self.is_resting() {
            return None;
        }
        self.sent_at = Some(now);
        let frame = buffer.get_mut(..DATA_FRAME_BYTES)?;
        frame.fill(0);
        *frame.first_mut()? = DATA;
        Some(DATA_FRAME_BYTES)
    }

    fn staging_pace(&self, _now: Instant) -> StagingPace {
        self.pace
    }

    fn free_heap_bytes(&self) -> u32 {
        FREE_HEAP_BYTES
    }

    fn figures(&self) -> Option<Figures> {
        None
    }
}

const SEND_EVERY_MS: u64 = 500;
/// As long as a measurement.
const DATA_FRAME_BYTES: usize = 11;
const FREE_HEAP_BYTES: u32 = 150_000;
