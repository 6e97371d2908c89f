//! The air of a world: which frame arrives where and when. Decides by its own seeded generator, so
//! that the frames of one world are lost alike however it is watched.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;

use fastrand::Rng;
use lockstep_device::channel::Channel;

/// How bad the air is. The default is a perfect one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AirWeather {
    /// Frames that arrive nowhere, in percent.
    pub loss_percent: u8,
    /// Frames that arrive twice, in percent.
    pub duplicate_percent: u8,
    /// Frames in which bits are flipped, in percent.
    pub corrupt_percent: u8,
    /// What every frame takes, in milliseconds.
    pub delay_ms: u64,
    /// Some frames take up to so much longer, and so are overtaken.
    pub late_ms_max: u64,
    /// How many of them, in percent.
    pub late_percent: u8,
}

impl Default for AirWeather {
    fn default() -> Self {
        Self {
            loss_percent: 0,
            duplicate_percent: 0,
            corrupt_percent: 0,
            delay_ms: 1,
            late_ms_max: 0,
            late_percent: 0,
        }
    }
}

/// What happened to frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AirCounts {
    /// Copies that set out.
    pub sent: u64,
    /// Copies that were lost.
    pub lost: u64,
    /// Copies that arrived twice.
    pub duplicated: u64,
    /// Copies in which bits were flipped.
    pub corrupted: u64,
    /// Copies that were late, and perhaps overtaken.
    pub delayed: u64,
    /// Copies that arrived where nobody was on their channel.
    pub off_channel: u64,
}

/// One frame at its addressee.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) at: u64,
    seq: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) frame: Rc<[u8]>,
    /// On which it was sent.
    pub(crate) channel: Channel,
    /// The same for every copy of a frame.
    pub(crate) number: u64,
    /// Nothing was flipped on the way.
    pub(crate) is_intact: bool,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// The air.
#[derive(Debug)]
pub struct Air {
    rng: Rng,
    /// How bad it is.
    pub weather: AirWeather,
    /// For each pair of boards: until when nothing gets from the first to the second.
    blocked_until: Vec<u64>,
    boards: usize,
    flights: BinaryHeap<Reverse<Flight>>,
    seq: u64,
    /// What happened so far.
    pub counts: AirCounts,
}

impl Air {
    pub(crate) fn new(boards: usize, seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            weather: AirWeather::default(),
            blocked_until: vec![0; boards * boards],
            boards,
            flights: BinaryHeap::new(),
            seq: 0,
            counts: AirCounts::default(),
        }
    }

    /// Nothing gets from one board to another until `until`.
    pub fn block(&mut self, from: usize, to: usize, until: u64) {
        if let Some(blocked) = self.blocked_until.get_mut(from * self.boards + to) {
            *blocked = until.max(*blocked);
        }
    }

    /// The weather clears: what is on its way still arrives.
    pub fn clear(&mut self) {
        self.weather = AirWeather { delay_ms: self.weather.delay_ms, ..AirWeather::default() };
        self.blocked_until.fill(0);
    }

    /// A frame sets out. Its number, for whoever wants to send it again one day.
    pub(crate) fn send(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        channel: Channel,
        frame: &Rc<[u8]>,
    ) -> u64 {
        self.counts.sent += 1;
        let number = self.counts.sent;
        let blocked = self.blocked_until.get(from * self.boards + to).is_some_and(|&at| at > now);
        if blocked || self.draws(self.weather.loss_percent) {
            self.counts.lost += 1;
            return number;
        }
        self.fly(now, (from, to), channel, frame, number);
        if self.draws(self.weather.duplicate_percent) {
            self.counts.duplicated += 1;
            self.fly(now, (from, to), channel, frame, number);
        }
        number
    }

    /// A copy of a frame sets out, perhaps of one that arrived long ago.
    pub(crate) fn fly(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        channel: Channel,
        frame: &Rc<[u8]>,
        number: u64,
    ) {
        let mut at = now + self.weather.delay_ms;
        if self.draws(self.weather.late_percent) {
            self.counts.delayed += 1;
            at += self.rng.u64(0..=self.weather.late_ms_max);
        }
        let (mut frame, mut is_intact) = (Rc::clone(frame), true);
        if self.draws(self.weather.corrupt_percent) {
            self.counts.corrupted += 1;
            is_intact = false;
            let mut bytes = frame.to_vec();
            for _ in 0..self.rng.usize(1..=BITS_FLIPPED_MAX) {
                let at = self.rng.usize(0..bytes.len());
                bytes[at] ^= 1 << self.rng.u8(0..8);
            }
            frame = bytes.into();
        }
        self.seq += 1;
        let seq = self.seq;
        self.flights.push(Reverse(Flight { at, seq, from, to, frame, channel, number, is_intact }));
    }

    fn draws(&mut self, percent: u8) -> bool {
        percent > 0 && self.rng.u8(0..100) < percent
    }

    pub(crate) fn next_at(&self) -> u64 {
        self.flights.peek().map_or(u64::MAX, |Reverse(flight)| flight.at)
    }

    pub(crate) fn arrive(&mut self, now: u64) -> Option<Flight> {
        if self.next_at() > now {
            return None;
        }
        self.flights.pop().map(|Reverse(flight)| flight)
    }
}

const BITS_FLIPPED_MAX: usize = 3;
