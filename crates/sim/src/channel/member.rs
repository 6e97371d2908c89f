//! A member: the real agent on a flash that takes its time, behind a queue of ten frames.

use std::collections::VecDeque;
use std::rc::Rc;

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use lockstep_agent::package::{self, Package};
use lockstep_agent::{Agent, Booted, Identity, Setup};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::block::BlockFrame;
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::order::{Order, Source, Stage, Terms, Ticket};
use lockstep_proto::frame::report::{MemberState, Rollback, Wants};
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::image::{ChipId, ImageReader};
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::{
    PartitionEntry, PartitionTable, SUBTYPE_OTA_0, SUBTYPE_OTADATA, SUBTYPE_UNDEFINED, TABLE_BYTES,
    TABLE_OFFSET, TYPE_APP, TYPE_DATA,
};
use lockstep_proto::text::{FixedText, Name};
use lockstep_proto::time::Instant;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_proto::wire::{Board, Role};

use crate::firmware::FirmwareSpec;
use crate::flash::{FlashError, MemFlash, write_erased};

/// What the members are to get: an image, and the package that names it.
#[derive(Debug)]
pub(super) struct Cargo {
    pub(super) image: Vec<u8>,
    pub(super) package: Vec<u8>,
    hash: ImageHash,
    descriptor: Descriptor,
    /// Flash of a member before it gets anything.
    flash: MemFlash,
}

impl Cargo {
    pub(super) fn new(size_bytes: u32) -> Self {
        let (old, _) = build(size_bytes.min(OLD_BYTES), 0);
        let (image, descriptor) = build(size_bytes, 1);
        let mut reader = ImageReader::new();
        reader.push(&image).expect("an image");
        let facts = reader.finish().expect("a whole image");
        let manifest = manifest(image.len(), facts.image_hash, facts.file_sha256);
        let mut package = vec![0; 4096];
        let length = Package::write(manifest.as_bytes(), &[], &mut package).expect("it is short");
        package.truncate(length);
        let slot_bytes = (size_bytes + SLOT_SPARE_BYTES).next_multiple_of(0x1_0000);
        Self { image, package, hash: facts.image_hash, descriptor, flash: flash(&old, slot_bytes) }
    }

    fn order(&self) -> (Ticket, Order) {
        let ticket = Ticket {
            rollout: RolloutId(7),
            generation: Generation { term: 0, counter: 1 },
            attempt: 0,
        };
        let stage = Stage {
            image: self.hash,
            size_bytes: u32::try_from(self.image.len()).expect("it fits a slot"),
            package: package::digest(&self.package),
            package_size_bytes: u16::try_from(self.package.len()).expect("it is short"),
            source: Source::Blocks,
            terms: Terms { lease_ms: u32::MAX, trial_limit_ms: 60_000, rest_lease_ms: 60_000 },
            sender: None,
        };
        (ticket, Order::Stage(stage))
    }
}

/// Builds the image that members run, or the one that they are to get.
fn build(size_bytes: u32, minor: u32) -> (Vec<u8>, Descriptor) {
    let descriptor = Descriptor {
        product: Name::new("air").expect("short"),
        role: Name::new(ROLE).expect("short"),
        board: Name::new(BOARD).expect("short"),
        version: ReleaseVersion::from_number(10_000 + 100 * minor),
        min_compatible: ReleaseVersion::from_number(10_000),
        protocol: ProtocolRange::single(1),
        epoch: 0,
        config_schema: 1,
    };
    let spec = FirmwareSpec { size_bytes, ..FirmwareSpec::new(descriptor.clone(), CHIP) };
    (spec.build().expect("an image of a legal size"), descriptor)
}

fn manifest(size_bytes: usize, image: ImageHash, file: Sha256) -> String {
    format!(
        r#"{{"schema":1,"system":"air","system_version":"1.1.0","sequence":1,"epoch":0,
"release_date":"2026-01-01T00:00:00Z","min_compatible_version":"1.0.0","description":"",
"devices":{{"{ROLE}":{{"version":"1.1.0","version_number":10100,"device_type":"{CHIP}",
"hardware":"x","firmware_url":"{ROLE}.bin","firmware_size":{size_bytes},"md5_checksum":"",
"protocol_version":1,"protocol_range":[1,1],"sha256":"{file}","image_sha256":"{image}",
"chip":"{CHIP}","board":"{BOARD}","min_compatible":"1.0.0","config_schema":1,"effect":"none"}}}},
"update_instructions":{{"order":[],"reboot_delay_seconds":0,"health_check_timeout_seconds":5}}}}"#
    )
}

/// As a chip leaves the factory: a partition table and an image.
fn flash(image: &[u8], slot_bytes: u32) -> MemFlash {
    let store = SLOT_0 + 2 * slot_bytes;
    let row = |kind, subtype, offset, size_bytes, label: &str| PartitionEntry {
        kind,
        subtype,
        offset,
        size_bytes,
        label: FixedText::new(label).expect("short"),
        flags: 0,
    };
    let table = PartitionTable::new(&[
        row(TYPE_DATA, SUBTYPE_OTADATA, 0xE000, 0x2000, "otadata"),
        row(TYPE_APP, SUBTYPE_OTA_0, SLOT_0, slot_bytes, "app0"),
        row(TYPE_APP, SUBTYPE_OTA_0 + 1, SLOT_0 + slot_bytes, slot_bytes, "app1"),
        row(TYPE_DATA, SUBTYPE_UNDEFINED, store, STORE_BYTES, "lockstep"),
    ]);
    let mut flash = MemFlash::new(store + STORE_BYTES);
    let mut bytes = [0xFF; TABLE_BYTES];
    table.expect("a table").write(&mut bytes);
    write_erased(&mut flash, TABLE_OFFSET, &bytes).expect("within the flash");
    write_erased(&mut flash, SLOT_0, image).expect("within the flash");
    flash
}

/// A flash, and how long what was done to it took.
#[derive(Debug)]
struct SlowFlash {
    memory: MemFlash,
    busy_ns: u64,
}

impl ErrorType for SlowFlash {
    type Error = FlashError;
}

impl ReadNorFlash for SlowFlash {
    const READ_SIZE: usize = MemFlash::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.busy_ns += READ_NS + bytes.len() as u64 * READ_BYTE_NS;
        self.memory.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.memory.capacity()
    }
}

impl NorFlash for SlowFlash {
    const WRITE_SIZE: usize = MemFlash::WRITE_SIZE;
    const ERASE_SIZE: usize = MemFlash::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        let bytes = u64::from(to - from);
        let blocks = bytes / u64::from(crate::flash::BLOCK_SIZE_BYTES);
        let sectors = bytes % u64::from(crate::flash::BLOCK_SIZE_BYTES)
            / u64::from(crate::flash::SECTOR_SIZE_BYTES);
        self.busy_ns += (blocks * ERASE_BLOCK_NS).saturating_add(sectors * ERASE_SECTOR_NS);
        self.memory.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let page = u64::from(crate::flash::PAGE_SIZE_BYTES);
        self.busy_ns += (bytes.len() as u64).div_ceil(page) * WRITE_PAGE_NS;
        self.memory.write(offset, bytes)
    }
}

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: DeviceId,
    agent: Agent,
    flash: SlowFlash,
    queue: VecDeque<(u64, Rc<[u8]>)>,
    /// Until when its only core is at work.
    busy_until: u64,
    said_at: u64,
    wait_ms: u64,
    /// What it has to say, and from when on.
    pub(super) says: Option<(u64, Wants)>,
    pub(super) staged_at: Option<u64>,
    /// Frames that found the queue full.
    pub(super) overflowed: u32,
}

impl Member {
    pub(super) fn new(index: usize, cargo: &Cargo, takes_large: bool) -> Self {
        let mut flash = SlowFlash { memory: cargo.flash.clone(), busy_ns: 0 };
        let setup = Setup {
            identity: Identity {
                role: Role::new(ROLE).expect("short"),
                chip: CHIP,
                board: Board::new(BOARD).expect("short"),
                announced: cargo.descriptor.announced(),
                config_schema: 1,
            },
            rollback: Rollback::Bootloader,
            running_slot: 0,
            reset_reason: 1,
            trust: Trust::anybody(),
            takes_large,
        };
        let started = Agent::boot(Instant::from_ms(0), setup, &mut flash);
        let (mut agent, booted) = started.expect("a fresh chip starts");
        assert!(matches!(booted, Booted::Run), "nothing is on trial");
        let (ticket, order) = cargo.order();
        let wait_ms = index as u64 % 32 * 3;
        agent.set_unasked_wait(wait_ms);
        agent.handle_order(Instant::from_ms(0), &ticket, &order, &mut flash);
        flash.busy_ns = 0;
        let number = u8::try_from(index + 1).expect("a few members");
        Self {
            id: DeviceId([2, 0, 0, 0, 1, number]),
            agent,
            flash,
            queue: VecDeque::new(),
            busy_until: 0,
            said_at: 0,
            wait_ms,
            says: None,
            staged_at: None,
            overflowed: 0,
        }
    }

    /// A frame arrives.
    pub(super) fn hear(&mut self, at: u64, frame: &Rc<[u8]>) {
        if self.queue.len() >= QUEUE_FRAMES {
            self.overflowed += 1;
            return;
        }
        self.queue.push_back((at, Rc::clone(frame)));
    }

    /// When it does something next by itself.
    pub(super) fn next_at(&self) -> u64 {
        self.next_act().min(self.next_repeat().max(self.busy_until))
    }

    fn next_repeat(&self) -> u64 {
        let is_silent = self.staged_at.is_none();
        if is_silent { self.said_at + (REPEAT_MS + self.wait_ms) * MS } else { u64::MAX }
    }

    fn next_act(&self) -> u64 {
        let heard = self.queue.front().map(|(at, _)| *at);
        let now = Instant::from_ms(self.busy_until / MS);
        let wakes = self.agent.next_wake(now).map(|at| at.ms * MS);
        let next = [heard, wakes].into_iter().flatten().min().unwrap_or(u64::MAX);
        next.max(self.busy_until)
    }

    /// Does all that it does until then.
    pub(super) fn run_until(&mut self, until: u64, key: &GroupKey) {
        // Whoever has all of it still answers.
        loop {
            let at = self.next_act();
            if at > until {
                return;
            }
            self.act(at, key);
        }
    }

    fn act(&mut self, at: u64, key: &GroupKey) {
        // The clock of a chip counts whole milliseconds that have passed.
        let now = Instant::from_ms(at / MS);
        match self.queue.front() {
            Some((arrived, _)) if *arrived <= at => {
                let (_, bytes) = self.queue.pop_front().expect("it is there");
                let frame = BlockFrame::decode(key, &bytes).expect("frames are lost whole");
                let _ = self.agent.handle_block(now, self.id, &frame, &mut self.flash);
                self.flash.busy_ns += HANDLE_NS;
            }
            _ => self.agent.tick(now, &mut self.flash),
        }
        while self.agent.poll_effect().is_some() {}
        self.busy_until = at + std::mem::take(&mut self.flash.busy_ns);
        if self.busy_until == at {
            // Nothing was due yet: the clock has to go on first.
            self.busy_until = (at / MS + 1) * MS;
        }
        if self.agent.member().state == MemberState::Staged && self.staged_at.is_none() {
            self.staged_at = Some(self.busy_until);
        }
        if let Some(wants) = self.agent.take_wants(now) {
            self.says = Some((self.busy_until, wants));
            self.said_at = self.busy_until;
        }
    }

    /// It has heard nothing for long: it says once more what it lacks.
    pub(super) fn repeat(&mut self, at: u64) {
        let misses = self.agent.misses_blocks(Instant::from_ms(at / MS), REPEAT_MS);
        let is_due = at >= self.next_repeat();
        if is_due {
            self.said_at = at;
        }
        if misses && is_due && self.says.is_none() && at >= self.busy_until {
            self.says = self.agent.wants().map(|wants| (at, wants));
        }
    }
}

/// A millisecond, in the nanoseconds that this model counts.
pub(super) const MS: u64 = 1_000_000;
const ROLE: &str = "transmitter";
const BOARD: &str = "esp32-poe-iso";
const CHIP: ChipId = ChipId::ESP32;
const SLOT_0: u32 = 0x1_0000;
const STORE_BYTES: u32 = 0x9000;
/// The image that runs meanwhile does not matter, and is short.
const OLD_BYTES: u32 = 8_192;
const SLOT_SPARE_BYTES: u32 = 0x1_0000;
/// What the Rust driver for the radio holds; it drops what comes beyond.
const QUEUE_FRAMES: usize = 10;
/// Handling a frame, its tag checked, at 160 MHz.
const HANDLE_NS: u64 = 200_000;
/// Typical times of the flash chips on ESP32 modules.
const WRITE_PAGE_NS: u64 = 400_000;
const ERASE_SECTOR_NS: u64 = 45_000_000;
const ERASE_BLOCK_NS: u64 = 150_000_000;
/// 20 MB/s, and what a call takes.
const READ_BYTE_NS: u64 = 50;
const READ_NS: u64 = 5_000;
const REPEAT_MS: u64 = 1_000;
