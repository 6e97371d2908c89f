//! What waits to go out on a line, and when it may.
//!
//! A line has a speed, and a device has none: it hands over a whole image in a moment. So its own
//! frames are taken one at a time, when the line is about to be idle; until then the device holds
//! them, as it does while a radio is full. Whatever it says next then leaves next, and a question
//! is never behind blocks. Frames of others cannot be held: a few wait, further ones are dropped.
//!
//! Times are handed in, so that tests have their own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lockstep_proto::id::DeviceId;
use lockstep_proto::line::{Before, LINE_BYTES_MAX, Packet};

/// Frames of others that wait, in bytes of payload; 0.36 s at 115,200 baud. More are dropped.
pub const OTHERS_BYTES_MAX: usize = 4096;
/// Frames of the device itself that wait, where the line takes more than one at once.
pub const OWN_FRAMES_MAX: usize = 8;
/// A frame is handed to the port so long before the one ahead of it is out, so that the line has
/// no gaps. Whoever has a say waits no longer than this.
pub const AHEAD: Duration = Duration::from_millis(5);
/// So long a turn is kept for the device itself, once it was told to wait and others did not.
pub const OWN_TURN: Duration = Duration::from_millis(10);

/// A frame on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) source: DeviceId,
    pub(super) destination: DeviceId,
    pub(super) payload: Vec<u8>,
}

/// The line has no room: send again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Write these bytes now.
    Write(Vec<u8>),
    /// Ask again at that moment, or when something was offered.
    At(Instant),
    /// Ask again when something was offered.
    Nothing,
}

/// Whose frame went last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Own,
    Other,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    baud: Option<u32>,
    /// Without a port nothing waits: what is said is lost, as on the air with nobody there.
    is_open: bool,
    own: VecDeque<Frame>,
    others: VecDeque<Frame>,
    others_bytes: usize,
    /// When all that was handed to the port is out; `None`: nothing was.
    busy_until: Option<Instant>,
    last: Turn,
    own_refused_at: Option<Instant>,
    /// Frames that were written.
    pub(super) sent: u64,
    /// Frames of others for which there was no room.
    pub(super) dropped: u64,
}

impl Outgoing {
    pub(super) const fn new(baud: Option<u32>) -> Self {
        Self {
            baud,
            is_open: false,
            own: VecDeque::new(),
            others: VecDeque::new(),
            others_bytes: 0,
            busy_until: None,
            last: Turn::Other,
            own_refused_at: None,
            sent: 0,
            dropped: 0,
        }
    }

    /// A port is there, or is there no more: what waited was for somebody who has gone.
    pub(super) fn set_open(&mut self, is_open: bool) {
        let (sent, dropped) = (self.sent, self.dropped);
        *self = Self { is_open, sent, dropped, ..Self::new(self.baud) };
    }

    /// Whether a frame of the device itself is taken now.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        if !self.is_open {
            return true;
        }
        let waiting_bytes: usize = self.own.iter().map(|frame| line_bytes(&frame.payload)).sum();
        let free_at = self.free_at(now) + self.time_of(waiting_bytes);
        let has_room = self.own.len() < OWN_FRAMES_MAX && free_at <= now + AHEAD;
        self.own_refused_at = (!has_room).then_some(now);
        has_room
    }

    /// Takes a frame of the device itself; whether there is room was asked before.
    pub(super) fn offer_own(&mut self, frame: Frame) {
        if self.is_open {
            self.own.push_back(frame);
        }
    }

    /// Takes a frame of somebody else, or drops it.
    pub(super) fn offer(&mut self, frame: Frame) {
        if !self.is_open {
            return;
        }
        if self.others_bytes + frame.payload.len() > OTHERS_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.others_bytes += frame.payload.len();
        self.others.push_back(frame);
    }

    /// What is to be done now. What is returned to be written counts as handed to the port.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.own.is_empty() && self.others.is_empty() {
            return Next::Nothing;
        }
        let free_at = self.free_at(now);
        if free_at > now + AHEAD {
            return Next::At(free_at.checked_sub(AHEAD).unwrap_or(free_at));
        }
        let own_turn = self.own_refused_at.filter(|_| self.last == Turn::Other);
        let own_until = own_turn.map(|refused| refused + OWN_TURN).filter(|&until| until > now);
        let frame = match (self.own.pop_front(), own_until) {
            (Some(frame), _) if self.last == Turn::Other || self.others.is_empty() => {
                self.last = Turn::Own;
                frame
            }
            (None, Some(until)) => return Next::At(until),
            (own, _) => {
                // Both have one: they take turns.
                if let Some(frame) = own {
                    self.own.push_front(frame);
                }
                let Some(frame) = self.others.pop_front() else { return Next::Nothing };
                self.others_bytes = self.others_bytes.saturating_sub(frame.payload.len());
                self.last = Turn::Other;
                frame
            }
        };
        self.write(now, &frame)
    }

    fn write(&mut self, now: Instant, frame: &Frame) -> Next {
        let Frame { source, destination, ref payload } = *frame;
        let before = match self.busy_until.is_some_and(|until| until >= now) {
            true => Before::Packet,
            false => Before::Silence,
        };
        let mut bytes = vec![0; LINE_BYTES_MAX];
        let packet = Packet { source, destination, payload };
        // A radio takes no longer frame than a packet does.
        let length = packet.encode(before, &mut bytes).unwrap_or(0);
        bytes.truncate(length);
        self.busy_until = Some(self.free_at(now) + self.time_of(length));
        self.sent += 1;
        Next::Write(bytes)
    }

    fn free_at(&self, now: Instant) -> Instant {
        self.busy_until.map_or(now, |until| until.max(now))
    }

    fn time_of(&self, bytes: usize) -> Duration {
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(BITS_A_BYTE * 1_000_000);
        self.baud.map_or(Duration::ZERO, |baud| Duration::from_micros(bits / u64::from(baud)))
    }
}

/// About what a frame takes on the line.
const fn line_bytes(payload: &[u8]) -> usize {
    LINE_BYTES_MAX - lockstep_proto::line::PAYLOAD_BYTES_MAX + payload.len()
}

/// A start bit, eight of the byte, a stop bit.
const BITS_A_BYTE: u64 = 10;

#[cfg(test)]
mod tests {
    use lockstep_proto::line::Reader;

    use super::*;

    const HOST: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
    const OTHER: DeviceId = DeviceId([2, 0, 0, 0, 0, 3]);

    fn frame(source: DeviceId, length: usize) -> Frame {
        Frame { source, destination: DeviceId::BROADCAST, payload: vec![0xAA; length] }
    }

    /// A line, its time, and what was written when.
    struct Bench {
        outgoing: Outgoing,
        now: Instant,
        began: Instant,
        written: Vec<(Duration, DeviceId)>,
    }

    impl Bench {
        fn new(baud: Option<u32>) -> Self {
            let now = Instant::now();
            let mut outgoing = Outgoing::new(baud);
            outgoing.set_open(true);
            Self { outgoing, now, began: now, written: Vec::new() }
        }

        fn own(&mut self, length: usize) -> bool {
            let has_room = self.outgoing.has_room(self.now);
            if has_room {
                self.outgoing.offer_own(frame(HOST, length));
            }
            has_room
        }

        /// Lets time go by, a millisecond at a time, with whatever `each` does in it.
        fn run(&mut self, ms: u64, mut each: impl FnMut(&mut Self)) {
            for _ in 0..ms {
                each(self);
                while let Next::Write(bytes) = self.outgoing.next(self.now) {
                    let mut reader = Reader::new();
                    let source = reader.read(&mut &bytes[..]).expect("a packet").source;
                    self.written.push((self.now - self.began, source));
                }
                self.now += Duration::from_millis(1);
            }
        }
    }

    /// The device is slowed down to the line, which has no gaps, and nothing of its is lost.
    #[test]
    fn own_frames_are_taken_at_the_pace_of_the_line() {
        let mut bench = Bench::new(Some(115_200));
        let mut taken = 0_u64;
        bench.run(1_000, |bench| taken += u64::from(bench.own(1_041)));
        // 1,065 bytes or so each: 92 ms.
        assert!((10..=12).contains(&taken), "{taken} frames in a second");
        assert_eq!(bench.outgoing.sent, taken);
        assert_eq!(bench.outgoing.dropped, 0);
        let small = bench.outgoing.sent;
        bench.run(1_000, |bench| taken += u64::from(bench.own(250)));
        assert!((40..=45).contains(&(bench.outgoing.sent - small)));
    }

    /// What is said behind a block leaves right behind it, whatever there is still to send.
    #[test]
    fn a_question_waits_for_no_more_than_the_frame_on_the_line() {
        let mut bench = Bench::new(Some(115_200));
        assert!(bench.own(1_041));
        bench.run(1, |_| ());
        assert!(!bench.own(1_041), "a second block waits with the device");
        bench.run(200, |bench| {
            if bench.written.len() == 1 {
                bench.own(30);
            }
        });
        let behind = bench.written[1].0;
        let block = Duration::from_millis(93);
        assert!(
            behind <= block && behind + AHEAD >= block - Duration::from_millis(2),
            "{behind:?}"
        );
    }

    #[test]
    fn frames_of_others_wait_up_to_a_limit_and_are_dropped_beyond_it() {
        let mut bench = Bench::new(Some(115_200));
        (0..10).for_each(|_| bench.outgoing.offer(frame(OTHER, 1_041)));
        assert_eq!(bench.outgoing.dropped, 7);
        bench.run(400, |_| ());
        assert_eq!(bench.outgoing.sent, 3);
        // There is room again.
        bench.outgoing.offer(frame(OTHER, 1_041));
        assert_eq!(bench.outgoing.dropped, 7);
    }

    /// Neither those who fill the queue nor the device that is held keep the line to themselves.
    #[test]
    fn the_device_and_the_others_take_turns() {
        let mut bench = Bench::new(Some(115_200));
        bench.run(2_000, |bench| {
            bench.outgoing.offer(frame(OTHER, 250));
            if (bench.now - bench.began).as_millis().is_multiple_of(2) {
                bench.own(250);
            }
        });
        let own = bench.written.iter().filter(|(_, source)| *source == HOST).count();
        let others = bench.written.len() - own;
        assert!(own.abs_diff(others) <= 2, "{own} own, {others} of others");
        assert!(own > 35, "{own} own");
    }

    #[test]
    fn a_line_without_a_speed_takes_frames_as_they_come() {
        let mut bench = Bench::new(None);
        let taken = (0..20).filter(|_| bench.own(1_041)).count();
        assert_eq!(taken, OWN_FRAMES_MAX);
        bench.run(1, |_| ());
        assert_eq!(bench.outgoing.sent, 8);
        assert!(bench.own(1_041));
    }

    /// Nobody waits for a board that is not plugged in, and what it missed is not said to another.
    #[test]
    fn without_a_port_nothing_waits() {
        let mut bench = Bench::new(Some(115_200));
        assert!(bench.own(1_041));
        bench.outgoing.offer(frame(OTHER, 100));
        bench.outgoing.set_open(false);
        assert!((0..50).all(|_| bench.own(1_041)));
        bench.outgoing.set_open(true);
        bench.run(100, |_| ());
        assert_eq!(bench.written, []);
    }

    /// What was noise for the other end is cut off from what follows.
    #[test]
    fn the_first_packet_after_silence_begins_with_a_zero() {
        let mut bench = Bench::new(Some(115_200));
        let first_byte = |bench: &mut Bench| match bench.outgoing.next(bench.now) {
            Next::Write(bytes) => bytes[0],
            other => panic!("{other:?}"),
        };
        bench.own(20);
        assert_eq!(first_byte(&mut bench), 0);
        bench.own(20);
        assert_ne!(first_byte(&mut bench), 0, "right behind it");
        bench.now += Duration::from_secs(1);
        bench.own(20);
        assert_eq!(first_byte(&mut bench), 0, "after a second");
    }
}
