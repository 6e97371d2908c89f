//! The sender of blocks against model receivers over a bad radio: always completes, stays within
//! the windows, and sends a bounded number of blocks.

use lockstep_proto::frame::block::{BLOCK_BYTES, Session, Then};
use lockstep_proto::frame::report::Wants;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_rollout::transfer::{Due, Sender, TARGETS_MAX};
use proptest::prelude::*;

const SESSION: Session = Session(7);
const ANSWER_MS: u64 = 100;
/// A member repeats by itself what it wants, this often.
const REPEAT_MS: u64 = 400;

fn device(index: usize) -> DeviceId {
    DeviceId([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])
}

/// A member that takes blocks into a window and erases flash before it opens the next.
#[derive(Debug)]
struct Receiver {
    blocks: u16,
    window: u8,
    index: u16,
    have: u32,
    busy_until: u64,
    said_at: u64,
    reached: u32,
}

impl Receiver {
    fn new(blocks: u16, window: u8) -> Self {
        Self { blocks, window, index: 0, have: 0, busy_until: 0, said_at: 0, reached: 0 }
    }

    fn is_complete(&self) -> bool {
        self.index >= self.blocks
    }

    fn open(&self) -> u16 {
        u16::from(self.window).min(self.blocks - self.index)
    }

    fn wants(&self, now: u64) -> Wants {
        let window = if now < self.busy_until { 0 } else { self.window };
        Wants { session: SESSION, index: self.index, have: self.have, window }
    }

    fn accept(&mut self, now: u64, due: &Due) -> bool {
        let bit = due.index.checked_sub(self.index).filter(|bit| *bit < self.open());
        if let Some(bit) = bit.filter(|_| now >= self.busy_until) {
            self.reached += u32::from(self.have & (1 << bit) == 0);
            self.have |= 1 << bit;
            if self.have.count_ones() == u32::from(self.open()) {
                self.index += self.open();
                self.have = 0;
                self.busy_until = now + 50;
                return true;
            }
        }
        due.then == Then::Answer
    }
}

struct World {
    now: u64,
    sender: Sender,
    receivers: Vec<Receiver>,
    air: Vec<(u64, Frame)>,
    random: u64,
    loss_percent: u64,
    twice_percent: u64,
    delay_ms: u64,
    sent: u32,
}

enum Frame {
    Block(usize, Due),
    Wants(usize, Wants),
}

impl World {
    fn new(size_bytes: u32, windows: &[u8]) -> Self {
        let blocks = u16::try_from(size_bytes.div_ceil(224)).unwrap();
        let mut world = Self {
            now: 1_000,
            sender: Sender::new(SESSION, size_bytes, ANSWER_MS),
            receivers: windows.iter().map(|&window| Receiver::new(blocks, window)).collect(),
            air: Vec::new(),
            random: 0x9E37_79B9_7F4A_7C15,
            loss_percent: 0,
            twice_percent: 0,
            delay_ms: 0,
            sent: 0,
        };
        (0..windows.len()).for_each(|index| world.say(index));
        world
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end.max(1)
    }

    fn send(&mut self, frame: impl Fn() -> Frame) {
        if self.below(100) < self.loss_percent {
            return;
        }
        let copies = if self.below(100) < self.twice_percent { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + 1 + self.below(self.delay_ms + 1);
            self.air.push((at, frame()));
        }
    }

    fn say(&mut self, index: usize) {
        let wants = self.receivers[index].wants(self.now);
        self.receivers[index].said_at = self.now;
        self.send(|| Frame::Wants(index, wants));
    }

    /// What the sender knows of each member's window: whatever it said last that arrived.
    fn tick(&mut self, known: &mut [Option<Wants>]) {
        self.now += 1;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.air).into_iter().partition(|(at, _)| *at <= self.now);
        self.air = later;
        for (_, frame) in due {
            match frame {
                Frame::Wants(index, wants) => {
                    known[index] = Some(wants);
                    self.sender.note_wants(device(index), wants);
                }
                Frame::Block(index, due) => {
                    if self.receivers[index].accept(self.now, &due) {
                        self.say(index);
                    }
                }
            }
        }
        for index in 0..self.receivers.len() {
            if self.now - self.receivers[index].said_at >= REPEAT_MS {
                self.say(index);
            }
        }
        if let Some(due) = self.sender.next_block(Instant::from_ms(self.now)) {
            self.sent += 1;
            let open = |wants: &Wants| {
                let bit = due.index.checked_sub(wants.index);
                bit.is_some_and(|bit| bit < u16::from(wants.window) && wants.have >> bit & 1 == 0)
            };
            assert!(known.iter().flatten().any(open), "nobody can take {due:?}: {known:?}");
            (0..self.receivers.len()).for_each(|index| self.send(|| Frame::Block(index, due)));
        }
    }

    fn run(&mut self) {
        let mut known = vec![None; self.receivers.len()];
        while !self.receivers.iter().all(Receiver::is_complete) {
            assert!(self.now < 10_000_000, "never completes: {:?}", self.receivers);
            self.tick(&mut known);
        }
    }
}

#[test]
fn without_loss_every_block_is_sent_once_for_all_members_of_a_role() {
    let mut world = World::new(224 * 100 + 17, &[32, 32, 32]);
    world.run();
    assert_eq!(world.sent, 101);
}

#[test]
fn the_last_block_is_as_long_as_what_is_left() {
    for (size_bytes, blocks, last_bytes) in [(1, 1, 1), (224, 1, 224), (225, 2, 1), (448, 2, 224)] {
        let mut sender = Sender::new(SESSION, size_bytes, ANSWER_MS);
        let wants = Wants { session: SESSION, index: 0, have: 0, window: 32 };
        sender.note_wants(device(0), wants);
        let now = Instant::from_ms(5);
        let sent: Vec<_> = std::iter::from_fn(|| sender.next_block(now)).take(40).collect();
        assert_eq!(sent.len(), blocks);
        let last = sent.last().unwrap();
        assert_eq!((last.len_bytes, last.then), (last_bytes, Then::Answer));
        assert!(sent[..blocks - 1].iter().all(|due| due.then == Then::Continue));
    }
}

#[test]
fn a_busy_member_and_one_that_has_all_are_sent_nothing() {
    let mut sender = Sender::new(SESSION, 1_000, ANSWER_MS);
    for (index, window) in [(0, 0), (5, 32)] {
        sender.note_wants(device(0), Wants { session: SESSION, index, have: 0, window });
        assert_eq!(sender.next_block(Instant::from_ms(9_999)), None);
        assert_eq!(sender.next_wake(Instant::from_ms(9_999)), None);
    }
}

#[test]
fn wants_of_another_session_are_ignored() {
    let mut sender = Sender::new(SESSION, 1_000, ANSWER_MS);
    sender.note_wants(device(0), Wants { session: Session(8), index: 0, have: 0, window: 9 });
    assert_eq!(sender.next_block(Instant::from_ms(1)), None);
}

#[test]
fn a_lost_answer_is_asked_for_with_one_block_and_not_sooner_than_said() {
    let mut sender = Sender::new(SESSION, 224 * 10, ANSWER_MS);
    sender.note_wants(device(0), Wants { session: SESSION, index: 0, have: 0, window: 4 });
    let start = Instant::from_ms(1_000);
    while sender.next_block(start).is_some() {}
    assert_eq!(sender.next_wake(start), Some(start + ANSWER_MS));
    assert_eq!(sender.next_block(start + (ANSWER_MS - 1)), None);
    let again = sender.next_block(start + ANSWER_MS).unwrap();
    assert_eq!((again.index, again.then), (3, Then::Answer));
    assert_eq!(sender.next_block(start + ANSWER_MS), None);
}

#[test]
fn a_member_that_is_gone_does_not_hold_the_others_up() {
    let mut sender = Sender::new(SESSION, 224 * 64, ANSWER_MS);
    sender.note_wants(device(9), Wants { session: SESSION, index: 0, have: 0, window: 4 });
    let now = Instant::from_ms(1);
    while sender.next_block(now).is_some() {}
    sender.note_wants(device(1), Wants { session: SESSION, index: 32, have: 0, window: 32 });
    let sent: Vec<_> = std::iter::from_fn(|| sender.next_block(now)).take(99).collect();
    assert_eq!(sent.len(), 32);
    sender.remove(device(9));
    sender.remove(device(1));
    assert_eq!(sender.next_wake(now), None);
}

#[test]
fn more_devices_than_a_group_can_have_are_not_served() {
    let mut sender = Sender::new(SESSION, 224 * 64, ANSWER_MS);
    for index in 0..=TARGETS_MAX {
        let first = u16::try_from(index).unwrap();
        let wants = Wants { session: SESSION, index: first, have: 0, window: 1 };
        sender.note_wants(device(index), wants);
    }
    let now = Instant::from_ms(1);
    let sent: Vec<_> = std::iter::from_fn(|| sender.next_block(now)).take(99).collect();
    assert_eq!(sent.len(), TARGETS_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn it_completes_over_any_radio_within_the_windows_and_a_bounded_number_of_blocks(
        seed in any::<u64>(),
        size_bytes in 1..30_000_u32,
        windows in proptest::collection::vec(1..=32_u8, 1..4),
        loss_percent in 0..50_u64,
        twice_percent in 0..20_u64,
        delay_ms in 0..50_u64,
    ) {
        let mut world = World::new(size_bytes, &windows);
        world.random = seed | 1;
        (world.loss_percent, world.twice_percent) = (loss_percent, twice_percent);
        world.delay_ms = delay_ms;
        world.run();
        let blocks = u32::from(world.receivers[0].blocks);
        for receiver in &world.receivers {
            prop_assert_eq!(receiver.reached, blocks, "each block counts once");
        }
        // Half of the frames may be lost both ways and every answer may come twice: the factor
        // bounds waste, it is no measure of speed.
        let members = u32::try_from(windows.len()).unwrap();
        prop_assert!(world.sent <= 40 * members * (blocks + 4), "{} of {blocks}", world.sent);
    }

    #[test]
    fn no_wants_do_harm(
        size_bytes in any::<u32>(),
        wants in proptest::collection::vec((any::<u16>(), any::<u32>(), any::<u8>()), 1..8),
    ) {
        let mut sender = Sender::new(SESSION, size_bytes, ANSWER_MS);
        for (member, (index, have, window)) in wants.into_iter().enumerate() {
            sender.note_wants(device(member), Wants { session: SESSION, index, have, window });
        }
        for ms in 0..300 {
            if let Some(due) = sender.next_block(Instant::from_ms(ms)) {
                prop_assert!(due.len_bytes >= 1 && due.len_bytes <= BLOCK_BYTES);
                let end = u64::from(due.offset_bytes) + due.len_bytes as u64;
                prop_assert!(end <= u64::from(size_bytes));
            }
        }
    }
}

#[test]
fn a_member_that_is_gone_is_the_only_one_to_be_forgotten() {
    let mut sender = Sender::new(SESSION, 10 * 224, ANSWER_MS);
    let wants = Wants { session: SESSION, index: 0, have: 0, window: 4 };
    sender.note_wants(device(1), wants);
    sender.note_wants(device(2), Wants { index: 4, ..wants });
    sender.remove(device(1));
    let due = sender.next_block(Instant::from_ms(0)).unwrap();
    assert_eq!(due.index, 4, "what the second still lacks");
    sender.remove(device(2));
    assert_eq!(sender.next_block(Instant::from_ms(0)), None);
}

#[test]
fn a_question_that_is_repeated_is_no_progress_and_one_that_goes_on_is() {
    let mut sender = Sender::new(SESSION, 10 * 224, ANSWER_MS);
    let wants = Wants { session: SESSION, index: 0, have: 0, window: 4 };
    assert!(sender.note_wants(device(1), wants));
    assert!(!sender.note_wants(device(1), wants));
    assert!(sender.note_wants(device(1), Wants { have: 1, ..wants }));
    assert!(sender.note_wants(device(1), Wants { index: 4, ..wants }));
}
