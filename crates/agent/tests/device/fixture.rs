//! Everything the tests know about driving an agent: change the API, and only this changes.

use lockstep_agent::receiver::Dropped;
use lockstep_agent::{
    Agent, Booted, Effect, FallBackCause, Health, Identity, Package, RebootReason, Reply, Setup,
    Trace, package,
};
use lockstep_proto::compat::Announced;
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::block::{Block, BlockFrame, Session};
use lockstep_proto::frame::coding::{Cut, Shape};
use lockstep_proto::frame::order::{Order, Source, Stage, Terms, Ticket};
use lockstep_proto::frame::report::{
    MemberState, Readiness, Refusal, Report, Rollback, View, Wants,
};
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::image::{ChipId, Guard, ImageReader};
use lockstep_proto::manifest::{
    DeviceEntry, Effect as ReleaseEffect, GENERATION_BYTES, GenerationHash, GenerationHashes,
    Manifest, Text, Trust, UpdateInstructions, write_generations,
};
use lockstep_proto::otadata::{OtaEntry, OtaState};
use lockstep_proto::partition::{
    PartitionEntry, PartitionTable, SUBTYPE_OTA_0, SUBTYPE_OTADATA, SUBTYPE_UNDEFINED, TABLE_BYTES,
    TABLE_OFFSET, TYPE_APP, TYPE_DATA,
};
use lockstep_proto::text::{FixedText, Name};
use lockstep_proto::time::Instant;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_proto::wire::Label;
use lockstep_sim::bootloader::{BootSlot, Bootloader, ResetReason};
use lockstep_sim::firmware::FirmwareSpec;
use lockstep_sim::flash::MemFlash;

pub(crate) const ME: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);
pub(crate) const OTADATA: u32 = 0xE000;
pub(crate) const SLOTS: [u32; 2] = [0x1_0000, 0x3_0000];
pub(crate) const SLOT_BYTES: u32 = 0x2_0000;
pub(crate) const STORE: u32 = 0x5_0000;
pub(crate) const TERMS: Terms =
    Terms { lease_ms: 30_000, trial_limit_ms: 10_000, rest_lease_ms: 20_000 };

/// An image file, and what names it.
#[derive(Debug, Clone)]
pub(crate) struct Firmware {
    pub(crate) file: Vec<u8>,
    pub(crate) hash: ImageHash,
}

impl Firmware {
    pub(crate) fn size_bytes(&self) -> u32 {
        u32::try_from(self.file.len()).unwrap()
    }

    pub(crate) fn sha256(&self) -> Sha256 {
        package::digest(&self.file)
    }
}

/// What an image says about itself, with what most tests leave as it is.
pub(crate) fn descriptor() -> Descriptor {
    Descriptor {
        product: Name::new("companion").unwrap(),
        role: Name::new("receiver").unwrap(),
        board: Name::new("desk-board").unwrap(),
        version: ReleaseVersion::new(1, 0, 0).unwrap(),
        min_compatible: ReleaseVersion::new(1, 0, 0).unwrap(),
        protocol: ProtocolRange::single(1),
        epoch: 0,
        config_schema: 1,
    }
}

pub(crate) fn build(spec: &FirmwareSpec) -> Firmware {
    let file = spec.build().unwrap();
    let mut reader = ImageReader::new();
    reader.push(&file).unwrap();
    let hash = reader.finish().unwrap().image_hash;
    Firmware { file, hash }
}

/// A small image of the release with this minor version.
pub(crate) fn firmware(minor: u8) -> Firmware {
    let version = ReleaseVersion::new(1, minor, 0).unwrap();
    let descriptor = Descriptor { version, ..descriptor() };
    build(&FirmwareSpec {
        size_bytes: 10_000,
        build: u64::from(minor),
        ..FirmwareSpec::new(descriptor, ChipId::ESP32_S3)
    })
}

/// A release for one role, to be changed before it is packed.
pub(crate) struct Release {
    pub(crate) firmware: Firmware,
    pub(crate) role: &'static str,
    pub(crate) chip: ChipId,
    pub(crate) board: Option<&'static str>,
    pub(crate) epoch: u32,
    pub(crate) image: ImageHash,
    pub(crate) sha256: Sha256,
    pub(crate) size_bytes: u32,
    /// The hashes of its generations, as the manifest has them; most releases have none.
    pub(crate) generations: Option<String>,
}

impl Release {
    pub(crate) fn of(firmware: Firmware) -> Self {
        Self {
            role: "receiver",
            chip: ChipId::ESP32_S3,
            board: Some("desk-board"),
            epoch: 0,
            image: firmware.hash,
            sha256: firmware.sha256(),
            size_bytes: firmware.size_bytes(),
            generations: None,
            firmware,
        }
    }

    /// With the hashes of its generations, so that a forged block is found within one.
    pub(crate) fn listed(firmware: Firmware) -> Self {
        let file = firmware.file.clone();
        Self { generations: Some(list_of(&file)), ..Self::of(firmware) }
    }

    pub(crate) fn manifest(&self) -> String {
        let version = ReleaseVersion::new(1, 1, 0).unwrap();
        let text = Text::new;
        let entry = DeviceEntry {
            role: self.role,
            version,
            device_type: text("ESP32-S3"),
            hardware: text("a desk"),
            firmware_url: text("receiver.bin"),
            firmware_size: self.size_bytes,
            md5_checksum: text(""),
            protocol_version: 1,
            protocol_range: None,
            sha256: Some(self.sha256),
            image_sha256: Some(self.image),
            generations_sha256: self.generations.as_deref().and_then(GenerationHashes::from_text),
            elf_sha256: None,
            chip: Some(self.chip),
            board: self.board.map(Text::new),
            min_compatible: None,
            config_schema: 1,
            effect: ReleaseEffect::None,
            guard: Guard::default(),
        };
        let manifest = Manifest {
            schema: 1,
            system: Some(text("companion")),
            system_version: version,
            sequence: 1,
            epoch: self.epoch,
            release_date: text("2026-01-01"),
            min_compatible_version: version,
            description: text(""),
            devices: [entry].into_iter().collect(),
            update_instructions: UpdateInstructions::default(),
            rollback: None,
            keys: None,
        };
        manifest.to_json().to_string()
    }

    pub(crate) fn package(&self) -> Vec<u8> {
        pack(self.manifest().as_bytes(), &[])
    }

    pub(crate) fn stage(&self) -> Stage {
        stage_of(&self.package(), self.firmware.hash, self.firmware.size_bytes())
    }
}

/// The hashes of a file's generations, as a manifest has them.
pub(crate) fn list_of(file: &[u8]) -> String {
    let mut text = String::new();
    let hashes = file.chunks(GENERATION_BYTES as usize).map(GenerationHash::of);
    write_generations(hashes, &mut text).unwrap();
    text
}

pub(crate) fn pack(manifest: &[u8], signatures: &[&[u8]]) -> Vec<u8> {
    let mut buffer = [0; 12_000];
    let length = Package::write(manifest, signatures, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

pub(crate) fn stage_of(package_bytes: &[u8], image: ImageHash, size_bytes: u32) -> Stage {
    Stage {
        image,
        size_bytes,
        package: package::digest(package_bytes),
        package_size_bytes: u16::try_from(package_bytes.len()).unwrap(),
        source: Source::Blocks,
        terms: TERMS,
        sender: None,
    }
}

pub(crate) fn ticket(counter: u32, attempt: u8) -> Ticket {
    Ticket {
        rollout: RolloutId(0x1111_0000_0000_0000 + u64::from(counter)),
        generation: Generation { term: 0, counter },
        attempt,
    }
}

/// How the device's bootloader and framework behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// ESP-IDF with rollback.
    Rollback,
    /// An old bootloader, without.
    NoRollback,
    /// With rollback, but the framework confirms before `setup()`, as Arduino does.
    ConfirmsEarly,
}

/// A device on the test bench: its old image in slot 0, nothing in slot 1.
#[derive(Debug, Clone)]
pub(crate) struct TestDevice {
    pub(crate) flash: MemFlash,
    pub(crate) now: Instant,
    pub(crate) traces: Vec<Trace>,
    pub(crate) old: Firmware,
    pub(crate) new: Firmware,
    pub(crate) trust: Trust,
    pub(crate) takes_large: bool,
    /// What its shell says of the bootloader.
    pub(crate) assumed: Rollback,
    start: Start,
    agent: Option<Agent>,
    booted_slot: u8,
    effects: Vec<Effect>,
}

impl TestDevice {
    pub(crate) fn new() -> Self {
        Self::started_as(Start::Rollback)
    }

    pub(crate) fn started_as(start: Start) -> Self {
        Self::with_images(start, firmware(0), firmware(1))
    }

    /// It runs the old one.
    pub(crate) fn with_images(start: Start, old: Firmware, new: Firmware) -> Self {
        let mut device = Self {
            flash: MemFlash::new(0x6_0000),
            now: Instant::from_ms(0),
            traces: Vec::new(),
            old,
            new,
            trust: Trust::anybody(),
            takes_large: false,
            assumed: match start {
                Start::NoRollback => Rollback::Agent,
                Start::Rollback | Start::ConfirmsEarly => Rollback::Bootloader,
            },
            start,
            agent: None,
            booted_slot: 0,
            effects: Vec::new(),
        };
        let mut bytes = [0; TABLE_BYTES];
        table().write(&mut bytes);
        device.put(TABLE_OFFSET, &bytes);
        let old = device.old.file.clone();
        device.put(SLOTS[0], &old);
        device.power_cycle();
        device
    }

    /// Another tool has put the new image beside the old one, and activated it: nothing of ours ran
    /// here before.
    pub(crate) fn brought_by_others() -> Self {
        let mut device = Self::started_as(Start::Rollback);
        let (old, new) = (device.old.file.clone(), device.new.file.clone());
        let mut table_bytes = [0; TABLE_BYTES];
        table().write(&mut table_bytes);
        device.flash = MemFlash::new(0x6_0000);
        device.put(TABLE_OFFSET, &table_bytes);
        device.put(SLOTS[0], &old);
        device.put(SLOTS[1], &new);
        device.put(OTADATA, &OtaEntry::new(1, OtaState::Valid).encode());
        device.put(OTADATA + 0x1000, &OtaEntry::new(2, OtaState::New).encode());
        device.traces.clear();
        device.power_cycle();
        assert_eq!((device.running(), device.agent().on_trial()), (device.new.hash, true));
        device
    }

    /// What a node does that has no group.
    pub(crate) fn keeps_first(&mut self) -> bool {
        let (now, agent) = (self.now, self.agent.as_mut().expect("the device is on"));
        let kept = agent.keep_first(now, &mut self.flash);
        self.drain();
        kept
    }

    pub(crate) fn put(&mut self, offset: u32, bytes: &[u8]) {
        let at = offset as usize;
        self.flash.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Power off, power on: the bootloader chooses, the agent starts, perhaps more than once.
    pub(crate) fn power_cycle(&mut self) {
        self.try_power_cycle().expect("the device starts");
    }

    /// As [`Self::power_cycle`]; `None`: the power went again before the agent was up.
    pub(crate) fn try_power_cycle(&mut self) -> Option<()> {
        self.agent = None;
        self.effects.clear();
        for _ in 0..4 {
            self.boot_image()?;
            match self.boot_agent()? {
                Booted::Run => return Some(()),
                Booted::RebootNow(_) => {}
            }
        }
        panic!("the device reboots for ever");
    }

    /// Another bootloader is flashed by cable; nothing else changes.
    pub(crate) fn replace_bootloader(&mut self, start: Start) {
        self.start = start;
    }

    fn boot_image(&mut self) -> Option<()> {
        let rollback = self.start != Start::NoRollback;
        let bootloader = Bootloader { chip: ChipId::ESP32_S3, rollback };
        let booted = match bootloader.boot(&mut self.flash, ResetReason::PowerOn) {
            Ok(booted) => booted,
            Err(_) if self.flash.power_lost() => return None,
            Err(failure) => panic!("the bootloader finds nothing to boot: {failure}"),
        };
        let BootSlot::Ota(slot) = booted.slot else { panic!("booted {}", booted.slot) };
        self.booted_slot = slot;
        let [a, b] = booted.found;
        if self.start == Start::ConfirmsEarly && booted.state == Some(OtaState::PendingVerify) {
            // What `initArduino()` does.
            let selected = a.into_iter().chain(b).map(|entry| entry.seq).max().unwrap();
            let at =
                OTADATA as usize + if a.is_some_and(|a| a.seq == selected) { 0 } else { 0x1000 };
            let entry = OtaEntry::new(selected, OtaState::Valid).encode();
            self.flash.bytes[at..at + entry.len()].copy_from_slice(&entry);
        }
        Some(())
    }

    fn boot_agent(&mut self) -> Option<Booted> {
        let setup = Setup {
            identity: Identity {
                role: Label::new("receiver").unwrap(),
                chip: ChipId::ESP32_S3,
                board: Label::new("desk-board").unwrap(),
                announced: Announced {
                    number: 10_000,
                    min_compatible: 10_000,
                    protocol: ProtocolRange::single(1),
                },
                config_schema: 1,
            },
            rollback: self.assumed,
            running_slot: self.booted_slot,
            reset_reason: 1,
            trust: self.trust.clone(),
            takes_large: self.takes_large,
        };
        match Agent::boot(self.now, setup, &mut self.flash) {
            Ok((agent, booted)) => {
                self.agent = Some(agent);
                self.drain();
                Some(booted)
            }
            Err(_) if self.flash.power_lost() => None,
            Err(error) => panic!("the agent does not start: {error}"),
        }
    }

    pub(crate) fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("the device is on")
    }

    /// Flash and agent together, for what the fixture has no word for.
    pub(crate) fn parts(&mut self) -> (&mut Agent, &mut MemFlash) {
        (self.agent.as_mut().expect("the device is on"), &mut self.flash)
    }

    pub(crate) fn running(&mut self) -> ImageHash {
        self.agent().running()
    }

    pub(crate) fn report(&mut self) -> Report {
        self.agent().report()
    }

    pub(crate) fn state(&mut self) -> MemberState {
        self.report().state
    }

    pub(crate) fn refusal(&mut self) -> Option<Refusal> {
        self.report().refused.map(|refused| refused.why)
    }

    pub(crate) fn order(&mut self, ticket: &Ticket, order: &Order) -> Report {
        let reply = self.send(ticket, order);
        assert_eq!(reply, Reply::Report);
        self.report()
    }

    pub(crate) fn send(&mut self, ticket: &Ticket, order: &Order) -> Reply {
        let now = self.now;
        let (agent, flash) = self.parts();
        let reply = agent.handle_order(now, ticket, order, flash);
        self.drain();
        reply
    }

    /// The order is refused with `why`, and nothing in flash has changed.
    #[track_caller]
    pub(crate) fn assert_refused(&mut self, ticket: &Ticket, order: &Order, why: Refusal) {
        let (flash, state) = (self.flash.bytes.clone(), self.state());
        let ticket_before = self.report().ticket;
        self.order(ticket, order);
        assert_eq!(self.refusal(), Some(why));
        assert!(self.flash.bytes == flash, "a refused order changes nothing");
        assert_eq!((self.state(), self.report().ticket), (state, ticket_before));
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
        self.tick();
    }

    pub(crate) fn misses_blocks(&mut self) -> bool {
        let now = self.now;
        self.agent().misses_blocks(now, 300)
    }

    pub(crate) fn next_wake(&mut self) -> Option<Instant> {
        let now = self.now;
        self.agent().next_wake(now)
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now;
        let (agent, flash) = self.parts();
        agent.tick(now, flash);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.agent.as_mut().and_then(Agent::poll_effect) {
            match effect {
                Effect::Trace(trace) => self.traces.push(trace),
                other => self.effects.push(other),
            }
        }
    }

    /// What was to be done since the last call, traces aside.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn saw(&self, trace: Trace) -> bool {
        self.traces.contains(&trace)
    }

    /// What the device lacks of an object, unless it has all of it.
    pub(crate) fn wanted(&mut self) -> Option<Wants> {
        self.agent().wants().filter(|wants| wants.readiness != Readiness::Done)
    }

    /// Sends what it wants of `package` and `file` until that is nothing.
    pub(crate) fn feed(&mut self, package: &[u8], file: &[u8]) {
        for _ in 0..10_000 {
            let Some(wants) = self.wanted() else { return };
            self.feed_some(&wants, package, file);
        }
        panic!("the transfer does not end");
    }

    /// Sends what can be taken now: a head, or the first generation of which something is lacking.
    pub(crate) fn feed_some(&mut self, wants: &Wants, package: &[u8], file: &[u8]) {
        let is_package = wants.session == Session::of(&package::digest(package).0);
        let bytes = if is_package { package } else { file };
        let size_bytes = u32::try_from(bytes.len()).unwrap();
        let cut = Cut { shape: wants.shape, size_bytes };
        let blocks = match wants.readiness {
            Readiness::Busy | Readiness::Done => return self.pass(1),
            Readiness::Head => 0..cut.shape.head_blocks(),
            Readiness::Open => {
                let lacking = wants.lacking.counts().iter().position(|&lacking| lacking > 0);
                let Some(at) = lacking else { return self.pass(1) };
                let generation = wants.first + u16::try_from(at).unwrap();
                let start = generation * 128;
                start..start + cut.blocks_of(generation)
            }
        };
        for index in blocks {
            let _ = self.feed_block(wants.session, index, bytes);
        }
    }

    pub(crate) fn feed_block(
        &mut self,
        session: Session,
        index: u16,
        bytes: &[u8],
    ) -> Result<(), Dropped> {
        let at = usize::from(index) * 224;
        let Some(left) = bytes.get(at..).filter(|left| !left.is_empty()) else { return Ok(()) };
        let payload = &left[..left.len().min(224)];
        let shape = Shape::Small;
        self.hear(&BlockFrame::Block(Block { session, shape, index, payload }))
    }

    /// A frame of a transfer arrives.
    pub(crate) fn hear(&mut self, frame: &BlockFrame<'_>) -> Result<(), Dropped> {
        let now = self.now;
        let (agent, flash) = self.parts();
        let taken = agent.handle_block(now, ME, frame, flash);
        self.drain();
        taken
    }

    /// Stages the new image in the rollout with this number.
    pub(crate) fn stage(&mut self, counter: u32) {
        let release = Release::of(self.new.clone());
        self.order(&ticket(counter, 0), &Order::Stage(release.stage()));
        let (package, file) = (release.package(), self.new.file.clone());
        self.feed(&package, &file);
        assert_eq!(self.state(), MemberState::Staged, "{:?}", self.refusal());
    }

    pub(crate) fn rest(&mut self, counter: u32) {
        self.order(&ticket(counter, 0), &Order::Rest);
        let now = self.now;
        self.agent().application_at_rest(now);
        assert!(self.report().observed.at_rest);
    }

    /// The order that activates the new image over the old one.
    pub(crate) fn activation(&self) -> Order {
        Order::Activate { image: self.new.hash, running: self.old.hash }
    }

    pub(crate) fn arming(&self) -> Order {
        Order::Arm { image: self.new.hash, running: self.old.hash }
    }

    pub(crate) fn confirmation(&self) -> Order {
        Order::Confirm { image: self.new.hash }
    }

    /// Staged and at rest.
    pub(crate) fn ready(start: Start) -> Self {
        let mut device = Self::started_as(start);
        device.stage(1);
        device.rest(1);
        device.take_effects();
        device
    }

    /// On the first trial of the new image, not healthy yet.
    pub(crate) fn in_trial(start: Start) -> Self {
        let mut device = Self::ready(start);
        let order = device.activation();
        device.order(&ticket(1, 1), &order);
        assert_eq!(device.take_effects(), [Effect::Reboot(RebootReason::Activate)]);
        device.power_cycle();
        assert!(device.agent().on_trial());
        device
    }

    /// Running the new image, confirmed.
    pub(crate) fn kept(start: Start) -> Self {
        let mut device = Self::in_trial(start);
        device.get_healthy();
        let order = device.confirmation();
        let report = device.order(&ticket(1, 1), &order);
        assert_eq!(report.state, MemberState::Kept, "{:?}", report.refused);
        device
    }

    pub(crate) fn sample(&mut self, good: Good) {
        let now = self.now;
        let health = Health {
            checks_ok: good != Good::NoChecks,
            link_ok: good != Good::NoLink,
            linked: 1,
            view: View::default(),
        };
        self.agent().observe(now, health);
    }

    pub(crate) fn get_healthy(&mut self) {
        (0..3).for_each(|_| self.sample(Good::All));
        assert!(self.report().observed.healthy);
    }

    /// The agent wants to go back for this reason; does it, application at rest first.
    #[track_caller]
    pub(crate) fn assert_goes_back(&mut self, cause: FallBackCause) {
        let now = self.now;
        self.agent().application_at_rest(now);
        self.tick();
        let effects = self.take_effects();
        assert!(effects.contains(&Effect::Reboot(RebootReason::FallBack(cause))), "{effects:?}");
        self.power_cycle();
        assert_eq!(self.running(), self.old.hash);
    }
}

/// What is good about a health sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Good {
    All,
    NoChecks,
    NoLink,
}

fn table() -> PartitionTable {
    let row = |kind, subtype, offset, size_bytes, label: &str| PartitionEntry {
        kind,
        subtype,
        offset,
        size_bytes,
        label: FixedText::new(label).unwrap(),
        flags: 0,
    };
    PartitionTable::new(&[
        row(TYPE_DATA, SUBTYPE_OTADATA, OTADATA, 0x2000, "otadata"),
        row(TYPE_APP, SUBTYPE_OTA_0, SLOTS[0], SLOT_BYTES, "app0"),
        row(TYPE_APP, SUBTYPE_OTA_0 + 1, SLOTS[1], SLOT_BYTES, "app1"),
        row(TYPE_DATA, SUBTYPE_UNDEFINED, STORE, 0x1_0000, "lockstep"),
    ])
    .unwrap()
}
