//! The C application, as the node sees it: what it said last, and what it is to be told.
//!
//! The node asks and never waits, and a C caller is never called: its answers are kept here until
//! the node asks.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use lockstep_device::setup::{Application, ApplicationHealth, Figures, RestAnswer, StagingPace};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

/// What is to be told to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    AskRest,
    Release,
}

/// What a C application has said, and what it has to be told.
#[derive(Debug)]
pub(crate) struct CApplication {
    /// It has been asked, and not been released since.
    is_asked: bool,
    rest: RestAnswer,
    pub(crate) told: Option<Told>,
    healthy: Option<(Instant, bool)>,
    pub(crate) pace: StagingPace,
    to_send: VecDeque<Vec<u8>>,
    /// The frame that was just handed in has passed the gate.
    pub(crate) has_passed: bool,
    pub(crate) free_heap_bytes: u32,
}

impl CApplication {
    pub(crate) const fn new() -> Self {
        Self {
            is_asked: false,
            rest: RestAnswer::Pending,
            told: None,
            healthy: None,
            pace: StagingPace::Background { ms_between: PAUSE_MS },
            to_send: VecDeque::new(),
            has_passed: false,
            free_heap_bytes: 0,
        }
    }

    /// Answers the last question, if the application has heard it: one that was asked, released,
    /// and is asked again would else be taken to be where it was the first time.
    pub(crate) const fn answer_rest(&mut self, answer: RestAnswer) {
        if self.is_asked && self.told.is_none() {
            self.rest = answer;
        }
    }

    pub(crate) const fn say_healthy(&mut self, now: Instant, is_ok: bool) {
        self.healthy = Some((now, is_ok));
    }

    /// `false` if as many wait as may.
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        let has_room = self.to_send.len() < FRAMES_WAITING_MAX;
        if has_room {
            self.to_send.push_back(frame.to_vec());
        }
        has_room
    }

    pub(crate) fn has_to_send(&self) -> bool {
        !self.to_send.is_empty()
    }
}

impl Application for CApplication {
    fn ask_rest(&mut self, _now: Instant) {
        // Asked once more: it may have said "not now" before, but what is at rest stays there.
        if self.rest != RestAnswer::AtRest {
            self.rest = RestAnswer::Pending;
        }
        self.is_asked = true;
        self.told = Some(Told::AskRest);
    }

    fn poll_rest(&mut self, _now: Instant) -> RestAnswer {
        self.rest
    }

    fn release(&mut self, _now: Instant) {
        self.is_asked = false;
        self.rest = RestAnswer::Pending;
        self.told = Some(Told::Release);
    }

    fn health(&mut self, now: Instant) -> ApplicationHealth {
        let (is_ok, detail) = match self.healthy {
            None => (false, "the application has not said how it is"),
            Some((at, _)) if now.ms_since(at) > HEALTH_FRESH_MS => {
                (false, "the application has not said for a while how it is")
            }
            Some((_, true)) => (true, "the application says that it is healthy"),
            Some((_, false)) => (false, "the application says that it is not healthy"),
        };
        ApplicationHealth { is_ok, detail }
    }

    fn take_data(&mut self, _now: Instant, _from: DeviceId, _frame: &[u8]) {
        self.has_passed = true;
    }

    fn data_to_send(&mut self, _now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let frame = self.to_send.pop_front()?;
        buffer.get_mut(..frame.len())?.copy_from_slice(&frame);
        Some(frame.len())
    }

    fn staging_pace(&self, _now: Instant) -> StagingPace {
        self.pace
    }

    fn free_heap_bytes(&self) -> u32 {
        self.free_heap_bytes
    }

    fn figures(&self) -> Option<Figures> {
        None
    }
}

/// Data frames that wait for the radio.
const FRAMES_WAITING_MAX: usize = 8;
/// What the application said of its health counts for so long: one that hangs says nothing.
pub(crate) const HEALTH_FRESH_MS: u64 = 10_000;
/// Between two flash operations of an application that has not said how busy it is.
const PAUSE_MS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_ms(0);

    /// Contactors that opened for one question are closed again by the time of the next one.
    #[test]
    fn an_answer_counts_for_the_question_that_the_application_has_heard() {
        let mut application = CApplication::new();
        application.answer_rest(RestAnswer::AtRest);
        application.ask_rest(NOW);
        assert_eq!(application.poll_rest(NOW), RestAnswer::Pending, "it was not asked");
        application.answer_rest(RestAnswer::AtRest);
        assert_eq!(application.poll_rest(NOW), RestAnswer::Pending, "it has not heard");
        assert_eq!(application.told.take(), Some(Told::AskRest));
        application.answer_rest(RestAnswer::AtRest);
        assert_eq!(application.poll_rest(NOW), RestAnswer::AtRest);
        application.release(NOW);
        application.answer_rest(RestAnswer::AtRest);
        application.ask_rest(NOW);
        assert_eq!(application.poll_rest(NOW), RestAnswer::Pending, "it was released since");
    }
}
