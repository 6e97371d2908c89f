//! otadata: which slot boots. Two entries of any content, changed by the agent's rules, with the
//! power going anywhere.
//!
//! The fuzzer rarely guesses a CRC, so the first byte says which entries get the right one.
//!
//! Promises: what is read as an entry encodes to the very same bytes; the agent's changes do what
//! they are called, seen by the bootloader's rules; wherever the power goes, a device that had a
//! usable entry still has one. (A confirmation erases the entry it writes again: there both have to
//! be usable before, as they are on every trial that the agent began.)

use lockstep_agent::Region;
use lockstep_agent::boot_state::BootState;
use lockstep_proto::otadata::{
    ENTRY_BYTES, OTADATA_BYTES, OtaEntry, OtaState, active, crc, next_seq, slot_of, usable,
};
use lockstep_sim::flash::MemFlash;

use crate::memory;

/// Bytes of an input: choices, slots, running slot, two operations, budget, then two entries.
pub const INPUT_BYTES: usize = 5 + 2 * ENTRY_BYTES;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&[choices, slots, running, operation, budget], entries)) = data.split_first_chunk()
    else {
        return;
    };
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    let &[mut a, mut b, ..] = entries else { return };
    for (bit, entry) in [(1, &mut a), (2, &mut b)] {
        if choices & bit != 0 {
            complete(entry);
        }
    }
    let world = World { a, b, ota_count: 2 + slots % 15, running: running % 2 };
    memory::within(MEMORY_BYTES_MAX, || {
        check_entry(&a);
        check_entry(&b);
        check_numbers(a, running, slots);
        world.check([operation & 15, operation >> 4], u64::from(budget));
    });
}

fn complete(entry: &mut [u8; ENTRY_BYTES]) {
    let seq = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
    entry[28..].copy_from_slice(&crc(seq).to_le_bytes());
}

fn check_entry(bytes: &[u8; ENTRY_BYTES]) {
    if let Some(entry) = OtaEntry::decode(bytes) {
        assert_eq!(entry.encode(), *bytes);
    }
}

fn check_numbers(bytes: [u8; ENTRY_BYTES], wanted: u8, count: u8) {
    let current = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let _ = slot_of(current, count);
    let Some(seq) = next_seq(Some(current), wanted, count) else { return };
    assert!(seq >= current && seq != u32::MAX, "{seq} after {current}");
    assert!(seq - current <= u32::from(count), "{seq} is not the next after {current}");
    assert_eq!(slot_of(seq, count), Some(wanted));
}

#[derive(Debug)]
struct World {
    a: [u8; ENTRY_BYTES],
    b: [u8; ENTRY_BYTES],
    ota_count: u8,
    running: u8,
}

impl World {
    /// One operation after the other on the same state, first with all the power that they need.
    fn check(&self, operations: [u8; 2], budget: u64) {
        let mut flash = self.flash();
        let mut state = self.state(&mut flash);
        for operation in operations {
            let done = act(&mut state, operation, &mut flash);
            let reread = self.state(&mut flash);
            assert_eq!(reread.running_state(), state.running_state());
            assert_eq!(reread.other_is_next(), state.other_is_next());
            // Only numbers that are used up keep it from its work.
            if done.is_some() {
                self.check_effect(operation, &flash);
            }
        }

        let mut torn = self.flash();
        let mut state = self.state(&mut torn);
        torn.power_budget_bytes = Some(budget % BUDGET_MAX);
        for operation in operations {
            let is_safe = is_safe(&torn, operation);
            let _ = act(&mut state, operation, &mut torn);
            if torn.power_lost() {
                assert!(!is_safe || self.boots(&torn).is_some(), "{self:?} lost both entries");
                break;
            }
        }
    }

    fn check_effect(&self, operation: u8, flash: &MemFlash) {
        let (slot, state) = self.boots(flash).expect("the running image has an entry now");
        let other = 1 - self.running;
        match operation % OPERATIONS {
            ACTIVATE => assert_eq!((slot, state), (other, OtaState::New)),
            FALL_BACK => {
                assert_eq!(slot, other);
                assert!(!matches!(state, OtaState::New | OtaState::PendingVerify));
            }
            CONFIRM => assert!(slot != self.running || state == OtaState::Valid, "{state:?}"),
            _ => assert_eq!(slot, self.running),
        }
    }

    fn flash(&self) -> MemFlash {
        let mut flash = MemFlash::new(OTADATA_BYTES);
        flash.bytes[..ENTRY_BYTES].copy_from_slice(&self.a);
        flash.bytes[SECTOR_BYTES..][..ENTRY_BYTES].copy_from_slice(&self.b);
        flash
    }

    fn state(&self, flash: &mut MemFlash) -> BootState {
        let region = Region { offset: 0, size_bytes: OTADATA_BYTES };
        BootState::read(flash, region, self.ota_count, self.running).expect("flash in memory")
    }

    /// What the bootloader would start.
    fn boots(&self, flash: &MemFlash) -> Option<(u8, OtaState)> {
        let [a, b] = entries(flash);
        let (_, entry) = active(a, b)?;
        Some((slot_of(entry.seq, self.ota_count)?, entry.state))
    }
}

fn entries(flash: &MemFlash) -> [Option<OtaEntry>; 2] {
    [0, SECTOR_BYTES].map(|at| OtaEntry::decode(flash.bytes[at..].first_chunk()?))
}

/// Whether a usable entry is left while one is written.
fn is_safe(flash: &MemFlash, operation: u8) -> bool {
    let usable = entries(flash).iter().flatten().filter(|entry| usable(entry)).count();
    usable >= if operation % OPERATIONS == CONFIRM { 2 } else { 1 }
}

fn act(state: &mut BootState, operation: u8, flash: &mut MemFlash) -> Option<()> {
    match operation % OPERATIONS {
        ACTIVATE => state.activate(flash),
        CONFIRM => state.confirm(flash),
        FALL_BACK => state.fall_back(flash),
        _ => state.forget_other(flash),
    }
    .ok()
}

const ACTIVATE: u8 = 0;
const CONFIRM: u8 = 1;
const FALL_BACK: u8 = 2;
const OPERATIONS: u8 = 4;
const SECTOR_BYTES: usize = 4096;
/// Four erases and four entries, and a bit more.
const BUDGET_MAX: u64 = 160;
const MEMORY_BYTES_MAX: usize = 256 * 1024;
