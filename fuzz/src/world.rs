//! A pair of whole devices with little flash and little images: real nodes, the bootloader's
//! rules, and an air that the fuzzer rules. Time goes on in steps as long as nobody has to do
//! anything, so that a whole rollout costs a few hundred of them.

use std::collections::VecDeque;
use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use lockstep_agent::{Booted, Kind, Layout, RecordLog};
use lockstep_device::channel::ChannelPlan;
use lockstep_device::sample::{SampleApplication, Work};
use lockstep_device::setup::{Duty, Firmware, NodeSetup, Pace};
use lockstep_device::{Action, Node, UploadStep};
use lockstep_proto::bundle::{END, artifact_name, header, padding_bytes};
use lockstep_proto::descriptor::{Board as BoardName, Descriptor, Product, Role as RoleName};
use lockstep_proto::frame::control::{ControlFrame, Counter, Message};
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::frame::{FRAME_BYTES_MAX, LARGE_FRAME_BYTES_MAX};
use lockstep_proto::id::{DeviceId, ImageHash, Sha256};
use lockstep_proto::image::{
    AppDescription, ChipId, ImageHeader, ImageReader, ImageSpec, Segment, build_image,
};
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::{
    PartitionEntry, PartitionTable, RECORD_LABEL, SUBTYPE_OTA_0, SUBTYPE_OTADATA,
    SUBTYPE_UNDEFINED, TABLE_BYTES, TABLE_OFFSET, TYPE_APP, TYPE_DATA,
};
use lockstep_proto::text::FixedText;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::Label;
use lockstep_rollout::Policy;
use lockstep_sim::bootloader::{BootSlot, Bootloader, ResetReason};
use lockstep_sim::flash::MemFlash;

use crate::frames::KEY;

/// The password of the devices: stretched in one round, so that a wrong one costs little.
pub(crate) const PASSWORD: &str = "sesame";
pub(crate) const LEAD: usize = 0;
pub(crate) const MEMBER: usize = 1;

/// The nodes of this world run the sample application.
pub(crate) type TestNode = Node<SampleApplication>;

/// A pair and all that is on its way between the two.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) boards: [Board; 2],
    /// Bit n: of eight frames in a row the n-th is lost.
    pub(crate) loss: u8,
    frames: u32,
    air: VecDeque<(usize, DeviceId, Vec<u8>)>,
    /// How often somebody else has spoken with the group's key.
    spoken: u32,
    upload: Option<usize>,
    steps_left: u32,
}

/// One board: its flash outlives everything else.
pub(crate) struct Board {
    pub(crate) id: DeviceId,
    pub(crate) flash: MemFlash,
    pub(crate) node: Option<TestNode>,
    role: &'static str,
    booted_at: u64,
    boots: u64,
    boots_at: Option<u64>,
}

/// The releases that the fuzzer can send around.
pub(crate) struct Releases {
    old: [Image; 2],
    pub(crate) new: [Image; 2],
    pub(crate) package: Vec<u8>,
    pub(crate) package_sha256: Sha256,
    /// The new release as a bundle, the lead's artifact last.
    pub(crate) bundle: Vec<u8>,
}

/// One image and its names.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: ImageHash,
    pub(crate) file_sha256: Sha256,
}

impl World {
    /// A pair on the old release that has talked for a while. At most so many steps are made.
    pub(crate) fn new(steps_max: u32) -> Self {
        let _ = releases();
        let mut world = Self {
            now: 0,
            boards: [Board::new(LEAD), Board::new(MEMBER)],
            loss: 0,
            frames: 0,
            air: VecDeque::new(),
            spoken: 0,
            upload: None,
            steps_left: steps_max,
        };
        world.run_ms(SETTLE_MS);
        world
    }

    /// Lets time pass, as far as steps are left.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end && self.step() {}
    }

    /// One step of time: boots, ticks, frames, reboots. `false` when no more are left.
    pub(crate) fn step(&mut self) -> bool {
        let Some(left) = self.steps_left.checked_sub(1) else { return false };
        self.steps_left = left;
        let wakes = self.boards.iter().map(|board| board.next_wake(self.now));
        let wake = wakes.min().unwrap_or_default();
        self.now = wake.clamp(self.now + STEP_MS_MIN, self.now + STEP_MS_MAX);
        self.push_upload();
        for index in [LEAD, MEMBER] {
            self.boards[index].boot_if_due(self.now);
            self.boards[index].tick(self.now);
            self.collect(index);
        }
        self.deliver();
        true
    }

    /// What is in the air arrives, and so do the answers, a few times over.
    fn deliver(&mut self) {
        for _ in 0..ROUNDS_MAX {
            for _ in 0..self.air.len() {
                let Some((to, from, bytes)) = self.air.pop_front() else { break };
                self.boards[to].receive(self.now, from, &bytes);
            }
            [LEAD, MEMBER].into_iter().for_each(|index| self.collect(index));
        }
    }

    /// A frame arrives at a board, as if `from` had sent it.
    pub(crate) fn inject(&mut self, to: usize, from: DeviceId, bytes: Vec<u8>) {
        self.air.push_back((to, from, bytes));
        self.deliver();
    }

    /// Somebody with the group's key says this, with a count that is higher than any before.
    pub(crate) fn speak(&mut self, to: usize, from: DeviceId, message: Message) {
        self.spoken += 1;
        let counter = Counter { boot: BOOT_OF_OTHERS, frame: self.spoken };
        let frame = ControlFrame { from, to: self.boards[to].id, counter, message };
        let mut buffer = [0; FRAME_BYTES_MAX];
        if let Ok(len) = frame.encode(&KEY, &mut buffer) {
            self.inject(to, from, buffer[..len].to_vec());
        }
    }

    /// The header of a control frame up to its kind, with a count that is higher than any before.
    pub(crate) fn header(&mut self, to: usize, from: DeviceId) -> Vec<u8> {
        self.spoken += 1;
        let mut header = from.0.to_vec();
        header.extend(self.boards[to].id.0);
        header.extend(BOOT_OF_OTHERS.to_le_bytes());
        header.extend(self.spoken.to_le_bytes());
        header
    }

    /// Frames out, reboots. A stranger who is challenged with the group's key answers at once.
    fn collect(&mut self, index: usize) {
        let from = self.boards[index].id;
        for (to, bytes) in self.boards[index].drain(self.now) {
            self.frames = self.frames.wrapping_add(1);
            if self.loss >> (self.frames % 8) & 1 == 1 {
                continue;
            }
            let other = 1 - index;
            if to == DeviceId::BROADCAST || to == self.boards[other].id {
                self.air.push_back((other, from, bytes));
            } else if let Ok(frame) = ControlFrame::decode(&KEY, &bytes)
                && let Message::Challenge { nonce } = frame.message
            {
                let counter = Counter { boot: BOOT_OF_OTHERS, frame: self.spoken };
                let message = Message::ChallengeAnswer { nonce };
                let answer = ControlFrame { from: to, to: from, counter, message };
                let mut buffer = [0; FRAME_BYTES_MAX];
                let len = answer.encode(&KEY, &mut buffer).expect("an answer fits");
                self.air.push_back((index, to, buffer[..len].to_vec()));
            }
        }
    }

    /// Begins to upload the new release's bundle.
    pub(crate) fn begin_upload(&mut self) {
        let size = u32::try_from(releases().bundle.len()).expect("a short bundle");
        let begun = self.boards[LEAD].with(self.now, |_, node, _| node.upload_begin(size));
        if begun.is_some_and(|begun| begun.is_ok()) {
            self.upload = Some(0);
        }
    }

    fn push_upload(&mut self) {
        let Some(mut at) = self.upload.take() else { return };
        let bundle = &releases().bundle;
        let size = u32::try_from(bundle.len()).expect("a short bundle");
        let pushed = self.boards[LEAD].with(self.now, |now, node, flash| {
            for _ in 0..CHUNKS_PER_STEP {
                let chunk = &bundle[at..bundle.len().min(at + CHUNK_BYTES)];
                match node.upload_push(now, chunk, flash) {
                    Ok(UploadStep::Taken(taken)) => {
                        assert!(taken <= chunk.len());
                        at += taken;
                    }
                    Ok(UploadStep::Wait) => break,
                    Ok(UploadStep::Complete(_)) => return None,
                    // After a restart the sender asks where to go on.
                    Err(_) => {
                        let (offset, _) = node.conducting()?.upload?;
                        node.upload_continue(now, offset, size, flash).ok()?;
                        at = offset as usize;
                    }
                }
            }
            Some(at)
        });
        // Without a node the lead is rebooting: it goes on when it is back.
        self.upload = pushed.unwrap_or(Some(at));
    }

    /// Both boards lose their power, and have this as an entry of their record when it is back.
    pub(crate) fn write_entry(&mut self, kind: Kind, version: u8, payload: &[u8]) {
        for board in &mut self.boards {
            board.cut_power(self.now);
            let layout = Layout::find(&mut board.flash).expect("a good table");
            let log = RecordLog::open(&mut board.flash, layout.record());
            // An entry that does not fit is not written.
            let _ = log.expect("in memory").write(&mut board.flash, kind, version, payload);
        }
    }

    /// Whatever the fuzzer did, both boards can be switched on and run a release.
    pub(crate) fn check(&mut self) {
        for board in &mut self.boards {
            board.node = None;
            board.boots_at = Some(self.now);
            board.boot_if_due(self.now);
        }
    }
}

impl Board {
    fn new(index: usize) -> Self {
        let role = ROLES[index];
        let mut flash = template(index).clone();
        flash.power_on();
        Self {
            id: id_of(index),
            flash,
            node: None,
            role,
            booted_at: 0,
            boots: 0,
            boots_at: Some(0),
        }
    }

    /// Acts on the node, if the board is on.
    pub(crate) fn with<T>(
        &mut self,
        now: u64,
        act: impl FnOnce(Instant, &mut TestNode, &mut MemFlash) -> T,
    ) -> Option<T> {
        let now = Instant::from_ms(now - self.booted_at);
        Some(act(now, self.node.as_mut()?, &mut self.flash))
    }

    /// Cuts the power now; it comes back at once.
    pub(crate) fn cut_power(&mut self, now: u64) {
        self.node = None;
        self.boots_at = Some(now);
    }

    fn next_wake(&self, now: u64) -> u64 {
        let uptime = Instant::from_ms(now - self.booted_at);
        match (&self.node, self.boots_at) {
            (Some(node), _) => {
                let wake = node.next_wake(uptime);
                assert!(wake >= uptime, "a node never wakes in the past");
                self.booted_at.saturating_add(wake.ms)
            }
            (None, at) => at.unwrap_or(u64::MAX),
        }
    }

    fn tick(&mut self, now: u64) {
        self.with(now, |now, node, flash| node.tick(now, flash));
    }

    fn receive(&mut self, now: u64, from: DeviceId, bytes: &[u8]) {
        self.with(now, |now, node, flash| node.handle_frame(now, from, bytes, flash));
    }

    /// Takes the node's frames; a node that asks for a reboot, or lost its power, is switched off.
    fn drain(&mut self, now: u64) -> Vec<(DeviceId, Vec<u8>)> {
        let frames = self.with(now, |now, node, flash| {
            let mut frames = Vec::new();
            let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
            while let Some((to, len)) = node.poll_frame(now, &mut buffer, flash) {
                frames.push((to, buffer[..len].to_vec()));
                assert!(frames.len() <= FRAMES_MAX, "a node never stops sending");
            }
            let reboots = std::iter::from_fn(|| node.poll_action());
            let reboots = reboots.filter(|action| matches!(action, Action::Reboot(_))).count();
            (frames, reboots > 0)
        });
        let Some((frames, reboots)) = frames else { return Vec::new() };
        if reboots || self.flash.power_lost() {
            self.node = None;
            self.boots_at = Some(now + BOOT_MS);
        }
        frames
    }

    fn boot_if_due(&mut self, now: u64) {
        if self.node.is_some() || self.boots_at.is_none_or(|at| now < at) {
            return;
        }
        self.boots_at = None;
        for _ in 0..BOOTS_MAX {
            if self.boot(now) {
                return;
            }
        }
        panic!("{} restarts over and over", self.role);
    }

    /// `false`: it must be started again at once.
    fn boot(&mut self, now: u64) -> bool {
        self.boots += 1;
        self.booted_at = now;
        self.flash.power_on();
        let index = usize::from(self.role != ROLES[LEAD]);
        let bootloader = Bootloader { chip: CHIPS[index], rollback: true };
        let booted = bootloader.boot(&mut self.flash, ResetReason::PowerOn);
        let booted = booted.expect("a complete image boots, whatever happened");
        let BootSlot::Ota(slot) = booted.slot else { panic!("no slot: {:?}", booted.slot) };
        let image = booted.image.image_hash;
        let all = releases();
        let known = [all.old[index].hash, all.new[index].hash];
        assert!(known.contains(&image), "{image:?} was never released");
        let setup = self.setup(slot, image);
        let work = if index == LEAD { Work::Shows } else { Work::Sends };
        let application = SampleApplication::new(work, 150_000);
        let (node, then) = Node::boot(Instant::default(), setup, application, &mut self.flash)
            .expect("a device starts, whatever happened");
        self.node = Some(node).filter(|_| then == Booted::Run);
        self.node.is_some()
    }

    fn setup(&self, running_slot: u8, image: ImageHash) -> NodeSetup {
        let index = usize::from(self.role != ROLES[LEAD]);
        let number = if image == releases().old[index].hash { OLD } else { NEW };
        NodeSetup {
            id: self.id,
            role: Label::new(self.role).expect("a short role"),
            chip: CHIPS[index],
            board: Label::new(BOARD).expect("a short name"),
            hardware: "desk".into(),
            firmware: Firmware {
                image,
                announced: Some(descriptor(self.role, number).announced()),
                product: Some(descriptor(self.role, number).product),
                config_schema: 1,
                build_date: "Jan  1 2026".into(),
                build_time: "12:00:00".into(),
            },
            running_slot,
            reset_reason: 1,
            rollback: Rollback::Bootloader,
            takes_large: true,
            group_key: Some(KEY.clone()),
            trust: Trust::anybody(),
            duty: if index == LEAD { Duty::Lead } else { Duty::Member },
            policy: Policy::desk(),
            channels: ChannelPlan::Fixed,
            pace: Pace::desk(),
            seed: self.boots,
        }
    }
}

/// The id of the lead, the member, or a stranger.
pub(crate) fn id_of(index: usize) -> DeviceId {
    DeviceId([2, 0, 0, 0, 0, u8::try_from(index).unwrap_or(u8::MAX)])
}

/// Built once.
pub(crate) fn releases() -> &'static Releases {
    static RELEASES: OnceLock<Releases> = OnceLock::new();
    RELEASES.get_or_init(|| {
        let pair = |version| [LEAD, MEMBER].map(|index| Image::build(index, version));
        let (old, new) = (pair(OLD), pair(NEW));
        let manifest = manifest(&new);
        let mut package = u16::try_from(manifest.len()).expect("short").to_le_bytes().to_vec();
        package.extend(manifest.as_bytes());
        package.push(0);
        let mut bundle = Vec::new();
        let mut put = |name, bytes: &[u8]| {
            let size = u32::try_from(bytes.len()).expect("a short file");
            bundle.extend(header(&name, size));
            bundle.extend(bytes);
            bundle.extend(vec![0; padding_bytes(size)]);
        };
        put("manifest.json".try_into().expect("a short name"), manifest.as_bytes());
        put(artifact_name(ROLES[MEMBER]), &new[MEMBER].bytes);
        put(artifact_name(ROLES[LEAD]), &new[LEAD].bytes);
        bundle.extend(END);
        let package_sha256 = sha256(&package);
        Releases { old, new, package, package_sha256, bundle }
    })
}

/// The flash of a board that was just made, with its password. Built once.
fn template(index: usize) -> &'static MemFlash {
    static TEMPLATES: OnceLock<[MemFlash; 2]> = OnceLock::new();
    let build = |index: usize| {
        let mut flash = MemFlash::new(FLASH_BYTES);
        let mut bytes = [0; TABLE_BYTES];
        let table = PartitionTable::new(&partitions()).expect("a good table");
        table.write(&mut bytes);
        flash.bytes[TABLE_OFFSET as usize..][..TABLE_BYTES].copy_from_slice(&bytes);
        let image = &releases().old[index].bytes;
        flash.bytes[SLOT_0 as usize..][..image.len()].copy_from_slice(image);
        let layout = Layout::of(&table).expect("a good table");
        let mut log = RecordLog::open(&mut flash, layout.record()).expect("flash in memory");
        log.write(&mut flash, Kind::PASSWORD, 1, &password()).expect("flash in memory");
        flash
    };
    &TEMPLATES.get_or_init(|| [build(LEAD), build(MEMBER)])[index]
}

fn partitions() -> [PartitionEntry; 4] {
    let row = |kind, subtype, offset, size_bytes, label| PartitionEntry {
        kind,
        subtype,
        offset,
        size_bytes,
        label: FixedText::new(label).expect("a short label"),
        flags: 0,
    };
    [
        row(TYPE_DATA, SUBTYPE_OTADATA, 0xE000, 0x2000, "otadata"),
        row(TYPE_APP, SUBTYPE_OTA_0, SLOT_0, SLOT_BYTES, "app0"),
        row(TYPE_DATA, SUBTYPE_UNDEFINED, 0x1_4000, 0x9000, RECORD_LABEL),
        row(TYPE_APP, SUBTYPE_OTA_0 + 1, 0x2_0000, SLOT_BYTES, "app1"),
    ]
}

/// The durable form of [`PASSWORD`]: salt, one round, and its hash, which is one HMAC.
pub(crate) fn password() -> Vec<u8> {
    let salt = [7; 16];
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(PASSWORD.as_bytes()).expect("any length");
    mac.update(&salt);
    mac.update(&1_u32.to_be_bytes());
    let mut entry = salt.to_vec();
    entry.extend(1_u32.to_le_bytes());
    entry.extend(mac.finalize().into_bytes());
    entry
}

impl Image {
    fn build(index: usize, version: &str) -> Self {
        let descriptor = descriptor(ROLES[index], version);
        let text = |text| FixedText::new(text).expect("a short text");
        let app = AppDescription::named(text("desk"), text(version));
        let data = [u8::try_from(index).unwrap_or_default(); DATA_BYTES];
        let spec = ImageSpec {
            header: ImageHeader::for_chip(CHIPS[index], 0x4000_0000),
            app: &app,
            descriptor: Some(&descriptor),
            segments: &[Segment { load_address: 0x3F40_0020, data: &data }],
        };
        let mut bytes = Vec::new();
        let built =
            build_image(&spec, &mut |part| bytes.extend_from_slice(part)).expect("an image");
        let file_sha256 = sha256(&bytes);
        Self { bytes, hash: built.image_hash, file_sha256 }
    }
}

fn descriptor(role: &str, version: &str) -> Descriptor {
    Descriptor {
        product: Product::new("desk").expect("a short name"),
        role: RoleName::new(role).expect("a short name"),
        board: BoardName::new(BOARD).expect("a short name"),
        version: version.parse().expect("a version"),
        min_compatible: OLD.parse().expect("a version"),
        protocol: ProtocolRange::single(1),
        epoch: 0,
        config_schema: 1,
    }
}

fn manifest(images: &[Image; 2]) -> String {
    let entry = |index: usize| {
        let image = &images[index];
        let mut reader = ImageReader::new();
        reader.push(&image.bytes).expect("an image");
        let chip = reader.finish().expect("an image").header.chip;
        let (size, file, hash) = (image.bytes.len(), image.file_sha256, image.hash);
        format!(
            r#""{}":{{"version":"{NEW}","firmware_size":{size},"protocol_version":1,
"sha256":"{file}","image_sha256":"{hash}","chip":"{chip}","board":"{BOARD}",
"min_compatible":"{OLD}","config_schema":1}}"#,
            ROLES[index],
        )
    };
    format!(
        r#"{{"schema":1,"system":"desk","system_version":"{NEW}","sequence":1,
"min_compatible_version":"{OLD}","devices":{{{},{}}},
"update_instructions":{{"order":[],"reboot_delay_seconds":0,"health_check_timeout_seconds":5}}}}"#,
        entry(LEAD),
        entry(MEMBER),
    )
}

fn sha256(bytes: &[u8]) -> Sha256 {
    use sha2::Digest;
    Sha256(sha2::Sha256::digest(bytes).into())
}

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";
const BOARD: &str = "desk";
const ROLES: [&str; 2] = ["receiver", "transmitter"];
const CHIPS: [ChipId; 2] = [ChipId::ESP32_S3, ChipId::ESP32];
const SLOT_0: u32 = 0x1_0000;
const SLOT_BYTES: u32 = 0x4000;
const FLASH_BYTES: u32 = 0x2_4000;
/// An image of a few blocks.
const DATA_BYTES: usize = 200;
/// Above every boot number that the boards reach.
const BOOT_OF_OTHERS: u32 = 1 << 30;
/// After this both know each other.
const SETTLE_MS: u64 = 1_000;
const BOOT_MS: u64 = 50;
const BOOTS_MAX: u32 = 4;
const STEP_MS_MIN: u64 = 5;
const STEP_MS_MAX: u64 = 100;
const CHUNK_BYTES: usize = 512;
const CHUNKS_PER_STEP: usize = 4;
/// How often an answer is answered within one step.
const ROUNDS_MAX: usize = 4;
/// The outbox of a node, and the blocks that a step can bring.
const FRAMES_MAX: usize = 1_000;
