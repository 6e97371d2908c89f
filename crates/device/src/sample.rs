//! The sample application: a transmitter measures and sends, a receiver shows. It exists so that a
//! pair out of the box has something to gate, and something that must come to rest.

use alloc::format;
use alloc::string::{String, ToString};
use core::ops::RangeInclusive;

use lockstep_proto::frame::data::Measurement;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

use crate::settings::{SECRETS, Settings};
use crate::setup::{Application, ApplicationHealth, Figures, RestAnswer, StagingPace};

/// What a sample application does with measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Measures and sends: a transmitter.
    Sends,
    /// Takes and shows: a receiver.
    Shows,
}

/// A battery's monitor, in small.
#[derive(Debug)]
pub struct SampleApplication {
    work: Work,
    figures: Figures,
    sent_at: Option<Instant>,
    /// When the contactors will be open; `None` while working.
    rest_at: Option<Instant>,
    free_heap_bytes: u32,
    send_every_ms: u64,
}

impl SampleApplication {
    /// `free_heap_bytes` is what the platform reports at start.
    pub fn new(work: Work, free_heap_bytes: u32) -> Self {
        Self {
            work,
            figures: Figures::default(),
            sent_at: None,
            rest_at: None,
            free_heap_bytes,
            send_every_ms: SEND_EVERY_MS,
        }
    }
}

impl Application for SampleApplication {
    fn ask_rest(&mut self, now: Instant) {
        self.rest_at.get_or_insert(now + CONTACTORS_MS);
    }

    fn poll_rest(&mut self, now: Instant) -> RestAnswer {
        match self.rest_at {
            Some(at) if now >= at => RestAnswer::AtRest,
            Some(_) | None => RestAnswer::Pending,
        }
    }

    fn release(&mut self, _now: Instant) {
        self.rest_at = None;
    }

    fn health(&mut self, _now: Instant) -> ApplicationHealth {
        ApplicationHealth { is_ok: true, detail: "sample application works" }
    }

    fn take_data(&mut self, _now: Instant, _from: DeviceId, frame: &[u8]) {
        let Ok(measurement) = Measurement::decode(frame) else { return };
        if self.work == Work::Shows {
            self.figures = Figures {
                frames: self.figures.frames.wrapping_add(1),
                soc_centipercent: measurement.soc_centipercent,
                power_w: measurement.power_w,
            };
        }
    }

    /// A slow, visible wave: a discharge from 80 % to 20 % and back within ten minutes.
    fn data_to_send(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let waits = self.sent_at.is_some_and(|at| now.ms_since(at) < self.send_every_ms);
        if self.work == Work::Shows || self.rest_at.is_some() || waits {
            return None;
        }
        self.sent_at = Some(now);
        let phase = u16::try_from(now.ms / 100 % WAVE_STEPS).ok()?;
        let falling = phase < WAVE_HALF;
        let climb = if falling { WAVE_HALF - phase } else { phase - WAVE_HALF };
        let sequence = self.figures.frames.wrapping_add(1);
        let measurement = Measurement {
            sequence,
            soc_centipercent: 2_000 + climb * 2,
            power_w: if falling { -1_200 } else { 800 },
        };
        self.figures = Figures {
            frames: sequence,
            soc_centipercent: measurement.soc_centipercent,
            power_w: measurement.power_w,
        };
        let bytes = measurement.encode().ok()?;
        buffer.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(bytes.len())
    }

    /// It has no control loop: between two measurements the flash may be busy as long as it likes.
    fn staging_pace(&self, _now: Instant) -> StagingPace {
        StagingPace::Fast
    }

    /// It knows one field, `send_every_ms`; others are kept for whoever does.
    fn take_config(&mut self, config: &str) -> Result<(), String> {
        let config: serde_json::Value =
            serde_json::from_str(config).map_err(|error| error.to_string())?;
        let send_every_ms = match config.get("send_every_ms") {
            None => SEND_EVERY_MS,
            Some(value) => {
                let allowed = value.as_u64().filter(|ms| SEND_EVERY_MS_ALLOWED.contains(ms));
                let (min, max) = (SEND_EVERY_MS_ALLOWED.start(), SEND_EVERY_MS_ALLOWED.end());
                allowed.ok_or_else(|| {
                    format!("`send_every_ms` is {value}, allowed is a number from {min} to {max}")
                })?
            }
        };
        // A board carries out what stands in its own field; it must make sense before it is kept.
        Settings::read_value(&config)?;
        self.send_every_ms = send_every_ms;
        Ok(())
    }

    fn secrets(&self) -> &[&str] {
        SECRETS
    }

    fn free_heap_bytes(&self) -> u32 {
        self.free_heap_bytes
    }

    fn figures(&self) -> Option<Figures> {
        Some(self.figures)
    }
}

/// How long the contactors take to open.
const CONTACTORS_MS: u64 = 50;
const SEND_EVERY_MS: u64 = 500;
const SEND_EVERY_MS_ALLOWED: RangeInclusive<u64> = 50..=60_000;
const WAVE_STEPS: u64 = 6_000;
const WAVE_HALF: u16 = 3_000;
