//! Names for places in flash and for the steps of a rollout: the rows of the tables.
//!
//! The step follows from the state that the device's own record was given last.

use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::report::MemberState;
use lockstep_sim::flash::SECTOR_SIZE_BYTES;

/// One row: during which step, and where.
pub(crate) type Place = (Step, What);

/// What the device was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    Before,
    Stage,
    Rest,
    Activate,
    Bootloader,
    Start,
    Trial,
    Confirm,
    Revert,
    Kept,
}

impl Step {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Stage => "stage",
            Self::Rest => "rest",
            Self::Activate => "activate",
            Self::Bootloader => "bootloader",
            Self::Start => "start",
            Self::Trial => "trial",
            Self::Confirm => "confirm",
            Self::Revert => "revert",
            Self::Kept => "kept",
        }
    }
}

/// Where it was changing its flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    PackageErase,
    PackageBody,
    PackageHeader,
    SlotErase,
    Head,
    SlotWrite,
    RecordErase,
    RecordHeader,
    /// The half that is not in force loses its magic.
    RecordCleared,
    Record(u8),
    /// What is there already is programmed once more.
    Repeat,
    OtadataErase,
    OtadataWrite,
    Elsewhere,
}

impl What {
    pub(crate) fn name(self) -> String {
        match self {
            Self::PackageErase => "package, erase".into(),
            Self::PackageBody => "package, bytes".into(),
            Self::PackageHeader => "package, header".into(),
            Self::SlotErase => "slot, erase".into(),
            Self::Head => "slot, head".into(),
            Self::SlotWrite => "slot, bytes".into(),
            Self::RecordErase => "record, erase".into(),
            Self::RecordHeader => "record, header".into(),
            Self::RecordCleared => "record, other half".into(),
            Self::Repeat => "record, once more".into(),
            Self::Record(kind) => {
                let names: [&str; 14] = [
                    "nothing",
                    "boot number",
                    "member",
                    "rollout",
                    "group",
                    "trust",
                    "epoch",
                    "current",
                    "password",
                    "history",
                    "progress",
                    "settings",
                    "images",
                    "cut upload",
                ];
                format!("record, {}", names.get(usize::from(kind)).unwrap_or(&"?"))
            }
            Self::OtadataErase => "otadata, erase".into(),
            Self::OtadataWrite => "otadata, write".into(),
            Self::Elsewhere => "elsewhere".into(),
        }
    }

    /// Long runs of bytes that all mean the same: of no image and no package the end.
    pub(crate) const fn is_bulk(self) -> bool {
        matches!(self, Self::PackageBody | Self::Head | Self::SlotWrite)
    }
}

/// Who is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Bootloader,
    /// The firmware's first moments, until it runs.
    Start,
    Running,
}

/// Where things lie on the chip, and how far the device has come.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) slots: [u32; 2],
    pub(crate) slot_bytes: u32,
    pub(crate) store: u32,
    when: When,
    step: Step,
    /// The record's entry that is being written: kind, begin, end.
    entry: (u8, u32, u32),
}

/// Where otadata lies.
pub(crate) const OTADATA: u32 = 0xE000;
const RECORD_BYTES: u32 = 0x4000;
/// A half of the record's log.
pub(crate) const HALF_BYTES: u32 = 0x2000;
const PACKAGE_BYTES: u32 = 0x3000;
const PACKAGE_HEADER_BYTES: u32 = 32;
const MEMBER: u8 = 2;
/// Offset of the state in a member's entry, behind the ticket.
const STATE_AT: usize = 15;
/// Three blocks: what is judged before anything is erased.
const HEAD_BYTES: u32 = Shape::Small.head_blocks() as u32 * Shape::Small.block_bytes();

impl Places {
    pub(crate) const fn new(slots: [u32; 2], slot_bytes: u32, store: u32) -> Self {
        let (when, step, entry) = (When::Running, Step::Before, (0, 0, 0));
        Self { slots, slot_bytes, store, when, step, entry }
    }

    pub(crate) fn enter(&mut self, when: When) {
        self.when = when;
        if when == When::Running && self.step == Step::Activate {
            self.step = Step::Trial;
        }
    }

    /// A rollout is over: what comes is before the next one.
    pub(crate) fn begin_rollout(&mut self) {
        self.step = Step::Before;
    }

    /// The device's own record says this from here on.
    pub(crate) fn note_state(&mut self, state: MemberState) {
        self.step = match state {
            MemberState::Idle => Step::Before,
            MemberState::Staging => Step::Stage,
            MemberState::Staged => Step::Rest,
            MemberState::Activating if self.step == Step::Trial => Step::Trial,
            MemberState::Activating => Step::Activate,
            MemberState::Confirming => Step::Confirm,
            MemberState::Kept => Step::Kept,
            MemberState::Reverted => Step::Revert,
        };
    }

    fn step(&self) -> Step {
        match self.when {
            When::Bootloader => Step::Bootloader,
            When::Start => Step::Start,
            When::Running => self.step,
        }
    }

    pub(crate) fn of_erase(&mut self, at: u32) -> Place {
        let what = match at {
            _ if self.is_slot(at) => What::SlotErase,
            _ if self.is_record(at) => What::RecordErase,
            _ if self.is_package(at) => What::PackageErase,
            OTADATA..0x1_0000 => What::OtadataErase,
            _ => What::Elsewhere,
        };
        self.entry = (0, 0, 0);
        (self.step(), what)
    }

    /// A write that changes nothing.
    pub(crate) fn of_repeat(&self) -> Place {
        (self.step(), What::Repeat)
    }

    pub(crate) fn of_write(&mut self, at: u32, bytes: &[u8]) -> Place {
        let is_header = at < self.store + RECORD_BYTES + PACKAGE_HEADER_BYTES;
        let what = match at {
            _ if self.is_slot(at) => {
                let is_head =
                    self.slots.iter().any(|&slot| (slot..slot + HEAD_BYTES).contains(&at));
                if is_head { What::Head } else { What::SlotWrite }
            }
            _ if self.is_record(at) => return self.of_record(at, bytes),
            _ if self.is_package(at) && is_header => What::PackageHeader,
            _ if self.is_package(at) => What::PackageBody,
            OTADATA..0x1_0000 => What::OtadataWrite,
            _ => What::Elsewhere,
        };
        (self.step(), what)
    }

    /// Where the entry ends that begins here, if one does.
    pub(crate) fn end_of_entry_at(&self, at: u32) -> Option<u32> {
        let (_, begin, end) = self.entry;
        (end > 0 && at == begin).then_some(end)
    }

    /// Whether this is right behind the first word of the entry that is being written.
    pub(crate) const fn is_payload(&self, at: u32) -> bool {
        let (_, begin, end) = self.entry;
        end > 0 && at == begin + 4
    }

    /// Entries begin with kind, version and length; what follows up to their end is theirs.
    fn of_record(&mut self, at: u32, bytes: &[u8]) -> Place {
        if (at - self.store).is_multiple_of(HALF_BYTES) {
            let is_magic = bytes.iter().any(|byte| *byte != 0);
            let what = if is_magic { What::RecordHeader } else { What::RecordCleared };
            return (self.step(), what);
        }
        let (_, _, end) = self.entry;
        let mut payload = bytes;
        if at >= end || at <= self.entry.1 {
            let length = u32::from(u16::from_le_bytes([bytes[2], bytes[3]]));
            self.entry = (bytes[0], at, at + 4 + length.next_multiple_of(4) + 4);
            payload = &bytes[4..];
        } else if at != self.entry.1 + 4 {
            payload = &[];
        }
        let kind = self.entry.0;
        let mut step = self.step();
        if let (MEMBER, Some(&code)) = (kind, payload.get(STATE_AT)) {
            let state = MemberState::from_code(code).expect("a state that this firmware knows");
            self.note_state(state);
            // What begins a step belongs to it, what ends one to the one before.
            if !matches!(self.step, Step::Rest | Step::Kept) {
                step = self.step();
            }
        }
        (step, What::Record(kind))
    }

    fn is_slot(&self, at: u32) -> bool {
        self.slots.iter().any(|&slot| (slot..slot + self.slot_bytes).contains(&at))
    }

    fn is_record(&self, at: u32) -> bool {
        (self.store..self.store + RECORD_BYTES).contains(&at)
    }

    fn is_package(&self, at: u32) -> bool {
        let start = self.store + RECORD_BYTES;
        (start..start + PACKAGE_BYTES).contains(&at)
    }
}

const _: () = assert!(HALF_BYTES.is_multiple_of(SECTOR_SIZE_BYTES));
