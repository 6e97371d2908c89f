//! A group of whole devices in virtual time: real nodes, the bootloader's rules, flash in memory,
//! and an air that the test rules. Everything the tests know about driving nodes is here.

#![allow(dead_code, reason = "each test file uses its own part of the fixture")]

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::LazyLock;

use lockstep_agent::Booted as AgentBooted;
use lockstep_device::bare::BareImage;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::sample::{SampleApplication, Work};
use lockstep_device::setup::{
    Application, ApplicationHealth, Duty, Figures, Firmware, NodeSetup, Pace, RestAnswer,
    StagingPace,
};
use lockstep_device::{Action, Node, UploadError, UploadStep};
use lockstep_proto::bundle::{END, artifact_name, header, padding_bytes};
use lockstep_proto::descriptor::{Board as BoardName, Descriptor, Product, Role as RoleName};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::frame::{FRAME_BYTES_MAX, LARGE_FRAME_BYTES_MAX};
use lockstep_proto::id::{DeviceId, ImageHash, RolloutId};
use lockstep_proto::image::{ChipId, ImageReader};
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::{PartitionTable, TABLE_BYTES, TABLE_OFFSET};
use lockstep_proto::time::Instant;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_proto::wire::Label;
use lockstep_rollout::{Phase, Policy, Verdict};
use lockstep_sim::bootloader::{BootSlot, Bootloader, ResetReason};
use lockstep_sim::firmware::{BEHAVIOUR_BYTES, BEHAVIOUR_OFFSET, Fault, FirmwareSpec};
use lockstep_sim::flash::{MemFlash, write_erased};

pub(crate) const LEAD: usize = 0;
pub(crate) const MEMBER: usize = 1;
/// Small images keep debug builds of the tests quick; what is staged is the same code.
pub(crate) const IMAGE_BYTES: u32 = 24 * 1024;
pub(crate) static KEY: LazyLock<GroupKey> = LazyLock::new(|| GroupKey::new([9; 32]));
const BOOT_MS: u64 = 200;
const WATCHDOG_MS: u64 = 3_000;
const STEP_MS: u64 = 10;
const CHUNK_BYTES: usize = 1_024;
/// An upload of 5 ms for a KiB: slow enough to be cut.
const CHUNKS_PER_STEP: usize = 2;

/// The sample application with the fault of its image.
#[derive(Debug)]
pub(crate) struct FaultyApplication {
    inner: SampleApplication,
    fault: Fault,
    pub(crate) never_rests: bool,
    pub(crate) staging_pace: StagingPace,
    clock: Rc<Cell<Option<u64>>>,
}

impl Application for FaultyApplication {
    fn ask_rest(&mut self, now: Instant) {
        self.inner.ask_rest(now);
    }
    fn poll_rest(&mut self, now: Instant) -> RestAnswer {
        if self.never_rests { RestAnswer::NotNow } else { self.inner.poll_rest(now) }
    }
    fn release(&mut self, now: Instant) {
        self.inner.release(now);
    }
    fn health(&mut self, now: Instant) -> ApplicationHealth {
        match self.fault {
            Fault::NeverHealthy => ApplicationHealth { is_ok: false, detail: "never healthy" },
            _ => self.inner.health(now),
        }
    }
    fn take_data(&mut self, now: Instant, from: DeviceId, frame: &[u8]) {
        self.inner.take_data(now, from, frame);
    }
    fn data_to_send(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        self.inner.data_to_send(now, buffer)
    }
    fn staging_pace(&self, _now: Instant) -> StagingPace {
        self.staging_pace
    }
    fn take_config(&mut self, config: &str) -> Result<(), String> {
        self.inner.take_config(config)
    }

    fn secrets(&self) -> &[&str] {
        self.inner.secrets()
    }

    fn unix_time_s(&self) -> Option<u64> {
        self.clock.get()
    }
    fn free_heap_bytes(&self) -> u32 {
        self.inner.free_heap_bytes()
    }
    fn figures(&self) -> Option<Figures> {
        self.inner.figures()
    }
}

/// One board: its flash outlives everything else.
pub(crate) struct TestBoard {
    pub(crate) id: DeviceId,
    pub(crate) role: &'static str,
    pub(crate) chip: ChipId,
    pub(crate) flash: MemFlash,
    pub(crate) node: Option<Node<FaultyApplication>>,
    pub(crate) rollback: Rollback,
    pub(crate) trust: Trust,
    pub(crate) never_rests: bool,
    pub(crate) takes_large: bool,
    pub(crate) channels: ChannelPlan,
    /// Where its radio is.
    pub(crate) channel: Channel,
    /// The group's key that it is given at every start.
    pub(crate) key: Option<GroupKey>,
    pub(crate) duty: Duty,
    pub(crate) staging_pace: StagingPace,
    /// Seconds since 1970, as far as it knows; stands still unless a test moves it.
    pub(crate) clock: Rc<Cell<Option<u64>>>,
    fault: Fault,
    booted_at: u64,
    boots_at: Option<(u64, ResetReason)>,
    pub(crate) boots: u32,
    seed: u64,
}

/// What the air does to a frame.
pub(crate) type Air = Box<dyn FnMut(DeviceId, DeviceId, &[u8]) -> bool>;

/// The group.
pub(crate) struct TestGroup {
    pub(crate) now: u64,
    pub(crate) boards: Vec<TestBoard>,
    /// Says whether a frame from one device to another arrives.
    pub(crate) air: Air,
    in_flight: VecDeque<(u64, DeviceId, usize, Vec<u8>)>,
    /// Log lines of all boards, in order.
    pub(crate) lines: Vec<String>,
    seen: Vec<u32>,
    /// A bundle on its way, and how much of it the lead has taken.
    upload: Option<(Vec<u8>, usize)>,
    /// Whether its sender leaves out what the lead says nobody needs.
    pub(crate) skips: bool,
    /// Bytes of it that were sent; some perhaps twice.
    pub(crate) sent_bytes: usize,
    /// What became of the last upload, once it is over.
    pub(crate) uploaded: Option<Result<(), UploadError>>,
}

/// What an image is made from.
pub(crate) fn spec(role: &str, version: &str) -> FirmwareSpec {
    let (chip, board) = match role {
        "receiver" => (ChipId::ESP32_S3, "t-display-s3"),
        _ => (ChipId::ESP32, "esp32-poe-iso"),
    };
    let descriptor = Descriptor {
        product: Product::new("desk").unwrap(),
        role: RoleName::new(role).unwrap(),
        board: BoardName::new(board).unwrap(),
        version: version.parse().unwrap(),
        min_compatible: "1.0.0".parse().unwrap(),
        protocol: ProtocolRange::single(1),
        epoch: 0,
        config_schema: 1,
    };
    FirmwareSpec { size_bytes: IMAGE_BYTES, ..FirmwareSpec::new(descriptor, chip) }
}

/// The image's identity.
pub(crate) fn image_hash(image: &[u8]) -> ImageHash {
    let mut reader = ImageReader::new();
    reader.push(image).unwrap();
    reader.finish().unwrap().image_hash
}

/// An unsigned bundle of these images, in this order, with extra JSON for the manifest.
pub(crate) fn bundle(version: &str, images: &[(&str, &[u8])], extra: &str) -> Vec<u8> {
    bundle_listing(version, images, extra, |_| String::new())
}

/// The same with more fields for each role's entry, behind a comma, that follow from its image.
pub(crate) fn bundle_listing(
    version: &str,
    images: &[(&str, &[u8])],
    extra: &str,
    list: impl Fn(&[u8]) -> String,
) -> Vec<u8> {
    let devices: Vec<String> =
        images.iter().map(|(role, image)| entry(role, image, &list(image))).collect();
    let manifest = format!(
        r#"{{"schema":1,"system":"desk","system_version":"{version}","sequence":1,"epoch":0,
"release_date":"2026-01-01T00:00:00Z","min_compatible_version":"1.0.0","description":"test",
"devices":{{{}}}{extra}}}"#,
        devices.join(",")
    );
    let mut tar = Vec::new();
    let mut put = |name, bytes: &[u8]| {
        let size = u32::try_from(bytes.len()).unwrap();
        tar.extend(header(&name, size));
        tar.extend(bytes);
        tar.extend(std::iter::repeat_n(0, padding_bytes(size)));
    };
    put("manifest.json".try_into().unwrap(), manifest.as_bytes());
    for (role, image) in images {
        put(artifact_name(role), image);
    }
    tar.extend(END);
    tar
}

fn entry(role: &str, image: &[u8], more: &str) -> String {
    let mut reader = ImageReader::new();
    reader.push(image).unwrap();
    let facts = reader.finish().unwrap();
    let descriptor = facts.descriptor.clone().unwrap();
    let version = descriptor.version;
    format!(
        r#""{role}":{{"version":"{version}","version_number":{},"device_type":"{}","hardware":"x",
"firmware_url":"{role}.bin","firmware_size":{},"md5_checksum":"","protocol_version":{},
"protocol_range":[{},{}],"sha256":"{}","image_sha256":"{}","chip":"{}","board":"{}",
"min_compatible":"{}","config_schema":1,"effect":"none"{more}}}"#,
        version.number(),
        facts.header.chip,
        image.len(),
        descriptor.protocol.max(),
        descriptor.protocol.min(),
        descriptor.protocol.max(),
        facts.file_sha256,
        facts.image_hash,
        facts.header.chip,
        descriptor.board.as_str(),
        descriptor.min_compatible,
    )
}

impl TestBoard {
    fn new(id: u8, role: &'static str, image: &[u8]) -> Self {
        let mut flash = MemFlash::new(4 << 20);
        let mut table = [0xFF; TABLE_BYTES];
        PartitionTable::desk_table().write(&mut table);
        write_erased(&mut flash, TABLE_OFFSET, &table).unwrap();
        write_erased(&mut flash, 0x1_0000, image).unwrap();
        let chip = if role == "receiver" { ChipId::ESP32_S3 } else { ChipId::ESP32 };
        Self {
            id: DeviceId([2, 0, 0, 0, 0, id]),
            role,
            chip,
            flash,
            node: None,
            rollback: Rollback::Bootloader,
            trust: Trust::anybody(),
            never_rests: false,
            staging_pace: StagingPace::Fast,
            takes_large: true,
            channels: ChannelPlan::Fixed,
            channel: Channel::FIRST,
            key: Some(KEY.clone()),
            duty: if role == "receiver" { Duty::Lead } else { Duty::Member },
            clock: Rc::default(),
            fault: Fault::None,
            booted_at: 0,
            boots_at: Some((0, ResetReason::PowerOn)),
            boots: 0,
            seed: u64::from(id) << 32,
        }
    }

    /// What runs; zeros while the board is off.
    pub(crate) fn running(&self) -> ImageHash {
        self.node.as_ref().map_or(ImageHash([0; 32]), |node| node.agent().running())
    }

    fn boot(&mut self, now: u64, reset: ResetReason) {
        self.boots += 1;
        self.booted_at = now;
        self.seed += 1;
        self.flash.power_on();
        let bootloader =
            Bootloader { chip: self.chip, rollback: self.rollback == Rollback::Bootloader };
        let booted = bootloader.boot(&mut self.flash, reset).expect("some image boots");
        let BootSlot::Ota(slot) = booted.slot else { panic!("no slot: {:?}", booted.slot) };
        let at = (booted.partition.offset + BEHAVIOUR_OFFSET) as usize;
        let block: [u8; BEHAVIOUR_BYTES] =
            self.flash.bytes[at..at + BEHAVIOUR_BYTES].try_into().unwrap();
        self.fault = Fault::decode(&block).unwrap();
        if self.fault == Fault::CrashAtBoot {
            self.boots_at = Some((now + BOOT_MS, ResetReason::Panic));
            return;
        }
        let descriptor = booted.image.descriptor.clone();
        let setup = NodeSetup {
            id: self.id,
            role: Label::new(self.role).unwrap(),
            chip: self.chip,
            board: Label::new(descriptor.as_ref().map_or("", |it| it.board.as_str())).unwrap(),
            hardware: "desk".into(),
            firmware: Firmware {
                image: booted.image.image_hash,
                announced: descriptor.as_ref().map(Descriptor::announced),
                product: descriptor.as_ref().map(|descriptor| descriptor.product.clone()),
                config_schema: 1,
                build_date: "Jan  1 2026".into(),
                build_time: "12:00:00".into(),
            },
            running_slot: slot,
            reset_reason: 1,
            rollback: self.rollback,
            takes_large: self.takes_large,
            group_key: self.key.clone(),
            trust: self.trust.clone(),
            duty: self.duty,
            policy: Policy::desk(),
            channels: self.channels,
            pace: Pace::desk(),
            seed: self.seed,
        };
        let work = if self.role == "receiver" { Work::Shows } else { Work::Sends };
        let application = FaultyApplication {
            inner: SampleApplication::new(work, 150_000),
            fault: self.fault,
            never_rests: self.never_rests,
            staging_pace: self.staging_pace,
            clock: Rc::clone(&self.clock),
        };
        let (node, then) =
            Node::boot(Instant::default(), setup, application, &mut self.flash).unwrap();
        match then {
            AgentBooted::Run => self.node = Some(node),
            AgentBooted::RebootNow(_) => {
                self.boots_at = Some((now + BOOT_MS, ResetReason::Software));
            }
        }
    }

    pub(crate) fn uptime(&self, now: u64) -> Instant {
        Instant::from_ms(now - self.booted_at)
    }
}

impl TestGroup {
    /// A receiver that leads and a transmitter, both on 1.0.0, an hour of talking behind them.
    pub(crate) fn pair() -> Self {
        let mut group = Self::of(&["receiver", "transmitter"]);
        group.run_ms(3_000);
        group
    }

    /// Boards of these roles on 1.0.0, the first one leading.
    pub(crate) fn of(roles: &[&'static str]) -> Self {
        let images: Vec<_> =
            roles.iter().map(|role| (*role, spec(role, "1.0.0").build().unwrap())).collect();
        Self::running(&images)
    }

    /// Boards that run these images, the first one leading.
    pub(crate) fn running(images: &[(&'static str, Vec<u8>)]) -> Self {
        let board = |(index, (role, image)): (usize, &(&'static str, Vec<u8>))| {
            let board = TestBoard::new(u8::try_from(index).unwrap() + 1, role, image);
            let duty = if index == LEAD { board.duty } else { Duty::Member };
            TestBoard { duty, ..board }
        };
        Self {
            now: 0,
            boards: images.iter().enumerate().map(board).collect(),
            air: Box::new(|_, _, _| true),
            in_flight: VecDeque::new(),
            lines: Vec::new(),
            seen: vec![0; images.len()],
            upload: None,
            skips: false,
            sent_bytes: 0,
            uploaded: None,
        }
    }

    /// A frame arrives at a board, as if `from` had sent it.
    pub(crate) fn inject(&mut self, board: usize, from: DeviceId, bytes: &[u8]) {
        self.in_flight.push_back((self.now, from, board, bytes.to_vec()));
    }

    /// Bytes that a board's flash was given to write so far.
    pub(crate) fn written_bytes(&self, board: usize) -> u64 {
        self.boards[board].flash.statistics.bytes_written
    }

    pub(crate) fn lead(&mut self) -> &mut Node<FaultyApplication> {
        self.boards[LEAD].node.as_mut().expect("the lead is on")
    }

    /// Lets time pass.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    /// Lets time pass until this holds, or a limit is reached. Returns whether it holds.
    pub(crate) fn run_until(
        &mut self,
        limit_ms: u64,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now + limit_ms;
        while self.now < end {
            if holds(self) {
                return true;
            }
            self.step();
        }
        holds(self)
    }

    /// Cuts the power of a board and restores it after a while.
    pub(crate) fn cut_power(&mut self, board: usize, off_ms: u64) {
        self.boards[board].node = None;
        self.boards[board].boots_at = Some((self.now + off_ms, ResetReason::PowerOn));
        self.seen[board] = 0;
    }

    /// Switches a board off for good.
    pub(crate) fn switch_off(&mut self, board: usize) {
        self.cut_power(board, u64::MAX / 2);
    }

    /// Another image, in both slots, as somebody with a cable puts it there.
    pub(crate) fn flash_by_cable(&mut self, board: usize, image: &[u8]) {
        self.cut_power(board, 500);
        for offset in [0x1_0000, 0x1F_0000] {
            write_erased(&mut self.boards[board].flash, offset, image).unwrap();
        }
    }

    pub(crate) fn is_on(&self, board: usize) -> bool {
        self.boards[board].node.is_some()
    }

    /// One step of time: boots, frames, ticks, frames out, reboots.
    pub(crate) fn step(&mut self) {
        self.now += STEP_MS;
        self.step_upload();
        for index in 0..self.boards.len() {
            self.step_board(index);
        }
    }

    fn step_board(&mut self, index: usize) {
        let now = self.now;
        let board = &mut self.boards[index];
        if let Some((at, reset)) = board.boots_at
            && now >= at
        {
            board.boots_at = None;
            self.seen[index] = 0;
            board.boot(now, reset);
        }
        self.deliver(index);
        let board = &mut self.boards[index];
        let uptime = board.uptime(now);
        let hangs = board.fault == Fault::Hang && uptime.ms > 0;
        let crashes = matches!(board.fault, Fault::CrashAfterMs(ms) if uptime.ms >= u64::from(ms));
        if board.node.is_some() && (crashes || (hangs && uptime.ms >= WATCHDOG_MS)) {
            let reset = if hangs { ResetReason::Watchdog } else { ResetReason::Panic };
            board.node = None;
            board.boots_at = Some((now + BOOT_MS, reset));
        }
        if let (Some(node), false) = (&mut board.node, hangs) {
            node.tick(uptime, &mut board.flash);
        }
        self.collect(index);
    }

    fn deliver(&mut self, index: usize) {
        for _ in 0..self.in_flight.len() {
            let Some((at, from, to, bytes)) = self.in_flight.pop_front() else { break };
            if to != index || at > self.now {
                self.in_flight.push_back((at, from, to, bytes));
                continue;
            }
            let board = &mut self.boards[index];
            let uptime = board.uptime(self.now);
            let hears = !matches!(board.fault, Fault::DeafRadio | Fault::Hang);
            if let (Some(node), true) = (&mut board.node, hears) {
                node.handle_frame(uptime, from, &bytes, &mut board.flash);
            }
        }
    }

    /// Frames out, log lines, reboots.
    fn collect(&mut self, index: usize) {
        let ids: Vec<DeviceId> = self.boards.iter().map(|board| board.id).collect();
        let board = &mut self.boards[index];
        let uptime = board.uptime(self.now);
        let Some(node) = &mut board.node else { return };
        let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
        let mut frames = Vec::new();
        let mut reboots = false;
        loop {
            while let Some((to, len)) = node.poll_frame(uptime, &mut buffer, &mut board.flash) {
                frames.push((to, board.channel, buffer[..len].to_vec()));
                assert!(frames.len() < 1_000, "a node never stops sending");
            }
            match node.poll_action() {
                Some(Action::Tune(channel)) => board.channel = channel,
                Some(Action::Reboot(_)) => reboots = true,
                None => break,
            }
        }
        for line in node.journal().lines_after(self.seen[index]) {
            self.seen[index] = line.seq;
            self.lines.push(format!("{:>7} {:11} {}", self.now, board.role, line.text));
        }
        let from = board.id;
        if reboots || board.flash.power_lost() {
            board.node = None;
            let reset = if reboots { ResetReason::Software } else { ResetReason::PowerOn };
            board.boots_at = Some((self.now + BOOT_MS, reset));
        }
        for (to, channel, bytes) in frames {
            for (target, id) in ids.iter().enumerate() {
                let addressed = to == DeviceId::BROADCAST || to == *id;
                let addressed = addressed && self.boards[target].channel == channel;
                let is_heard = bytes.len() <= FRAME_BYTES_MAX || self.boards[target].takes_large;
                if target != index && addressed && is_heard && (self.air)(from, *id, &bytes) {
                    self.in_flight.push_back((self.now + 1, from, target, bytes.clone()));
                }
            }
        }
    }

    /// Uploads a bundle to the lead and waits until it has been taken, or refused.
    pub(crate) fn upload(&mut self, bundle: &[u8]) -> Result<(), UploadError> {
        self.begin_upload(bundle)?;
        let over = self.run_until(60_000, |group| group.uploaded.is_some());
        assert!(over, "the upload made no progress for a minute:\n{}", self.log());
        self.uploaded.take().unwrap()
    }

    /// Brings a bare image to the lead, all of it.
    pub(crate) fn upload_bare(&mut self, image: &[u8]) -> Result<BareImage, UploadError> {
        self.lead().bare_begin(u32::try_from(image.len()).unwrap())?;
        let mut at = 0;
        for _ in 0..60_000 {
            let now = self.boards[LEAD].uptime(self.now);
            let board = &mut self.boards[LEAD];
            let node = board.node.as_mut().expect("the lead is on");
            if at < image.len() {
                let chunk = &image[at..image.len().min(at + CHUNK_BYTES)];
                at += node.bare_push(now, chunk, &mut board.flash)?;
            } else if let Some(image) = node.bare_end(now, &mut board.flash)? {
                return Ok(image);
            }
            self.step();
        }
        panic!("the image does not get through:\n{}", self.log());
    }

    /// Begins a rollout with the bare image that the lead has.
    pub(crate) fn install_bare(&mut self) -> Result<RolloutId, UploadError> {
        let now = self.boards[LEAD].uptime(self.now);
        let board = &mut self.boards[LEAD];
        board.node.as_mut().expect("the lead is on").bare_install(now, &mut board.flash)
    }

    /// Begins to upload a bundle; it goes on with every step, also over restarts of the lead.
    pub(crate) fn begin_upload(&mut self, bundle: &[u8]) -> Result<(), UploadError> {
        let size = u32::try_from(bundle.len()).unwrap();
        self.lead().upload_begin(size)?;
        self.upload = Some((bundle.to_vec(), 0));
        self.sent_bytes = 0;
        self.uploaded = None;
        Ok(())
    }

    /// The sender vanishes.
    pub(crate) fn forget_upload(&mut self) {
        self.upload = None;
    }

    /// Whether the lead has taken every byte of the upload.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.upload.as_ref().is_none_or(|(bundle, at)| *at == bundle.len())
    }

    /// The sender says that there is no more.
    pub(crate) fn end_upload(&mut self) {
        self.upload = None;
        let now = self.boards[LEAD].uptime(self.now);
        let board = &mut self.boards[LEAD];
        if let Some(node) = &mut board.node {
            node.upload_end(now, &mut board.flash);
        }
    }

    fn step_upload(&mut self) {
        let Some((bundle, mut at)) = self.upload.take() else { return };
        let now = self.boards[LEAD].uptime(self.now);
        let board = &mut self.boards[LEAD];
        let Some(node) = &mut board.node else {
            self.upload = Some((bundle, at));
            return;
        };
        for _ in 0..CHUNKS_PER_STEP {
            let chunk = &bundle[at..bundle.len().min(at + CHUNK_BYTES)];
            match node.upload_push(now, chunk, &mut board.flash) {
                Ok(UploadStep::Taken(taken)) => {
                    at += taken;
                    self.sent_bytes += taken;
                    if let Some((_, offset)) = self.skips.then(|| node.upload_skip()).flatten() {
                        at = offset as usize;
                    }
                }
                Ok(UploadStep::Wait) => break,
                Ok(UploadStep::Complete(_)) => {
                    self.uploaded = Some(Ok(()));
                    return;
                }
                // After a restart the sender asks where to go on.
                Err(UploadError::NotBegun) => {
                    let upload = node.conducting().and_then(|conducting| conducting.upload);
                    let size = u32::try_from(bundle.len()).unwrap();
                    let again = match upload {
                        Some((offset, _)) => {
                            at = offset as usize;
                            node.upload_continue(now, offset, size, &mut board.flash)
                        }
                        None => Err(UploadError::NothingToContinue),
                    };
                    if let Err(error) = again {
                        self.uploaded = Some(Err(error));
                        return;
                    }
                }
                Err(error) => {
                    self.uploaded = Some(Err(error));
                    return;
                }
            }
        }
        self.upload = Some((bundle, at));
    }

    /// Runs until the rollout has settled; panics with the log if it does not.
    pub(crate) fn settle(&mut self) -> Verdict {
        let settled = self.run_until(120_000, |group| group.settled().is_some());
        assert!(settled, "no verdict:\n{}", self.log());
        // Members settle before the lead knows; let the last reboots pass.
        self.run_ms(1_500);
        self.settled().unwrap()
    }

    pub(crate) fn settled(&self) -> Option<Verdict> {
        let node = self.boards[LEAD].node.as_ref()?;
        match node.conducting()?.record.phase {
            Phase::Settled(verdict) => Some(verdict),
            _ => None,
        }
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        Some(self.boards[LEAD].node.as_ref()?.conducting()?.record.phase)
    }

    pub(crate) fn log(&self) -> String {
        self.lines.join("\n")
    }

    /// Every board runs the image of this list, in the order of the boards.
    #[track_caller]
    pub(crate) fn assert_running(&self, images: &[&[u8]]) {
        for (board, image) in self.boards.iter().zip(images) {
            let (found, expected) = (board.running(), image_hash(image));
            assert!(
                found == expected,
                "{} runs {found:?}, not {expected:?}:\n{}",
                board.role,
                self.log()
            );
        }
    }
}

/// The pair's images of one version.
pub(crate) fn images(version: &str) -> (Vec<u8>, Vec<u8>) {
    (spec("receiver", version).build().unwrap(), spec("transmitter", version).build().unwrap())
}

/// Their bundle: the lead's artifact last.
pub(crate) fn pair_bundle(version: &str, receiver: &[u8], transmitter: &[u8]) -> Vec<u8> {
    bundle(version, &[("transmitter", transmitter), ("receiver", receiver)], INSTRUCTIONS)
}

/// All together, healthy within five seconds.
pub(crate) const INSTRUCTIONS: &str = r#","update_instructions":{"order":[],"reboot_delay_seconds":0,"health_check_timeout_seconds":5}"#;

/// A version from text.
pub(crate) fn version(text: &str) -> ReleaseVersion {
    text.parse().unwrap()
}
