//! The node: one loop for chips and desks. Frames, bytes and time come in; frames, flash work and
//! actions come out. Decides nothing about updates: that is the agent's and the rollout's.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::record::Kind;
use lockstep_agent::{
    Agent, BootError, Booted, Effect, Identity, Layout, RebootReason, RecordLog, Setup,
};
use lockstep_proto::compat::Announced;
use lockstep_proto::frame::control::{GroupKey, Message};
use lockstep_proto::frame::report::MemberState;
use lockstep_proto::frame::version::VersionFrame;
use lockstep_proto::frame::{FRAME_BYTES_MAX, FrameType, LARGE_FRAME_BYTES_MAX, frame_type};
use lockstep_proto::id::DeviceId;
use lockstep_proto::manifest::Trust;
use lockstep_proto::time::Instant;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};

use crate::adopt::candidate::{self, Candidate};
use crate::blocks::BlockCounts;
use crate::catch_up::Served;
use crate::channel::{Channel, Tuner};
use crate::config;
use crate::heard::{ControlCounts, one_more};
use crate::history::{HISTORY_BYTES_MAX, History};
use crate::identity::{ENTRY_IMAGES, IMAGES_BYTES_MAX, KnownImages};
use crate::journal::{Journal, Level};
use crate::lead::Lead;
use crate::password::Password;
use crate::peers::Peers;
use crate::serve::Vouched;
use crate::setup::{Application, Duty, NodeSetup, RestAnswer};

/// What the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Reset the chip, at once.
    Reboot(RebootReason),
    /// Put the radio on this channel, then poll for frames again.
    Tune(Channel),
}

/// Why a node could not start.
#[derive(Debug)]
pub enum NodeError {
    /// The agent could not: partition table, record or flash.
    Boot(BootError),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device cannot start")
    }
}

impl core::error::Error for NodeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Boot(cause) => Some(cause),
        }
    }
}

/// One device of a group.
#[derive(Debug)]
pub struct Node<A> {
    pub(crate) setup: NodeSetup,
    pub(crate) agent: Agent,
    pub(crate) application: A,
    pub(crate) peers: Peers,
    pub(crate) journal: Journal,
    pub(crate) history: History,
    pub(crate) images: KnownImages,
    pub(crate) vouched: Option<Vouched>,
    pub(crate) lead: Option<Lead>,
    pub(crate) announced: Announced,
    password: Option<Password>,
    /// The key of its group: adopted with, given at start, or nobody else's.
    pub(crate) key: GroupKey,
    /// Which key it was given at its start; see [`candidate::adopted_key`].
    pub(crate) given_key: [u8; 8],
    pub(crate) candidate: Candidate,
    /// Who sends orders of the open rollout; blocks are answered to it.
    pub(crate) conductor: Option<DeviceId>,
    /// Who sends the blocks of the image that is staged, if it is not the lead.
    pub(crate) block_sender: Option<DeviceId>,
    /// The running image, on its way to members of the same role.
    pub(crate) served: Option<Served>,
    pub(crate) outbox: VecDeque<OutFrame>,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) tuner: Tuner,
    pub(crate) frames_sent: u32,
    drawn: u64,
    pub(crate) blocks: BlockCounts,
    pub(crate) heard: ControlCounts,
    asks_rest: bool,
    /// The running image is kept, and what follows from that was done.
    pub(crate) is_kept: bool,
    /// Since when, in this boot, everybody is known to have kept it.
    pub(crate) settled_since: Option<Instant>,
    /// That has lasted long enough, and what follows from it was done.
    pub(crate) is_soaked: bool,
    pub(crate) last_state: MemberState,
    pub(crate) timers: Timers,
}

/// One frame on its way out.
#[derive(Debug)]
pub(crate) struct OutFrame {
    pub(crate) to: DeviceId,
    pub(crate) bytes: [u8; FRAME_BYTES_MAX],
    pub(crate) len: usize,
}

/// When each recurring thing was done last.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    pub(crate) announced: Option<Instant>,
    pub(crate) probed: Option<Instant>,
    pub(crate) sampled: Option<Instant>,
    pub(crate) wanted: Option<Instant>,
    pub(crate) looked_around: Option<Instant>,
    pub(crate) caught_up: Option<Instant>,
}

/// Whether a recurring thing is due; takes it down as done if it is.
pub(crate) fn is_due(last: &mut Option<Instant>, now: Instant, every_ms: u64) -> bool {
    let due = last.is_none_or(|at| now.ms_since(at) >= every_ms);
    if due {
        *last = Some(now);
    }
    due
}

fn agent_setup(setup: &NodeSetup, announced: Announced) -> Setup {
    Setup {
        identity: Identity {
            role: setup.role,
            chip: setup.chip,
            board: setup.board,
            announced,
            config_schema: setup.firmware.config_schema,
        },
        rollback: setup.rollback,
        running_slot: setup.running_slot,
        reset_reason: setup.reset_reason,
        trust: setup.trust.clone(),
        takes_large: setup.takes_large,
    }
}

impl<A: Application> Node<A> {
    /// Starts a device. [`Booted::RebootNow`] must be obeyed before anything else.
    pub fn boot<F: NorFlash>(
        now: Instant,
        setup: NodeSetup,
        mut application: A,
        flash: &mut F,
    ) -> Result<(Self, Booted), NodeError> {
        let images = known_images(flash);
        let announced = match (setup.firmware.announced, images.get(setup.firmware.image)) {
            (Some(announced), _) => announced,
            (None, Some(known)) => known.announced,
            (None, None) => UNKNOWN_FIRMWARE,
        };
        let agent_setup = agent_setup(&setup, announced);
        let (mut agent, booted) = Agent::boot(now, agent_setup, flash).map_err(NodeError::Boot)?;
        agent.set_unasked_wait(unasked_wait_ms(setup.id));
        let given_key = candidate::mark_of(setup.group_key.as_ref());
        let key =
            candidate::adopted_key(&agent, &given_key, flash).or_else(|| setup.group_key.clone());
        let tuner = Tuner::of(now, &setup, key.is_some());
        let key = key.unwrap_or_else(|| candidate::own_key(setup.seed, setup.id));
        let history = read_entry::<F, HISTORY_BYTES_MAX>(&agent, flash, Kind::HISTORY)
            .map(|bytes| History::decode(&bytes))
            .unwrap_or_default();
        let password = read_entry::<F, { Password::LEN_BYTES }>(&agent, flash, Kind::PASSWORD)
            .and_then(|bytes| Password::decode(&bytes).ok());
        let lead = match setup.duty {
            Duty::Lead => Some(Lead::resume(now, &setup, &agent, flash)),
            Duty::Member => None,
        };
        let mut journal = Journal::default();
        journal.log(now, Level::Notice, first_line(&announced, &agent, setup.running_slot));
        if let Some(why) = config::begin(&agent, &mut application, flash) {
            let text = format!("the application refuses its configuration: {why}");
            journal.log(now, Level::Warning, text);
        }
        let last_state = agent.member().state;
        let node = Self {
            peers: Peers::new(setup.pace.link_fresh_ms),
            setup,
            agent,
            application,
            journal,
            history,
            images,
            vouched: None,
            lead,
            announced,
            password,
            key,
            given_key,
            candidate: Candidate::default(),
            conductor: None,
            block_sender: None,
            served: None,
            outbox: VecDeque::new(),
            actions: VecDeque::new(),
            tuner,
            frames_sent: 0,
            drawn: 0,
            blocks: BlockCounts::default(),
            heard: ControlCounts::default(),
            asks_rest: false,
            is_kept: false,
            settled_since: None,
            is_soaked: false,
            last_state,
            timers: Timers::default(),
        };
        Ok((node, booted))
    }

    /// One received frame. `radio_from` is who the radio says sent it.
    pub fn handle_frame<F: NorFlash>(
        &mut self,
        now: Instant,
        radio_from: DeviceId,
        frame: &[u8],
        flash: &mut F,
    ) {
        match frame_type(frame) {
            Some(FrameType::Version) => self.handle_version(now, radio_from, frame),
            Some(FrameType::Control) => self.handle_control(now, frame, flash),
            Some(FrameType::Block) => self.handle_block(now, frame, flash),
            Some(FrameType::Adopt) => self.handle_adopt(now, frame, flash),
            Some(FrameType::Data) => {
                if self.peers.passes_gate(radio_from) {
                    self.application.take_data(now, radio_from, frame);
                }
            }
            // Frames of other protocols on the same channel are none of our business.
            Some(FrameType::Other(_)) | None => one_more(&mut self.heard.strange),
        }
        self.after(now, flash);
    }

    /// Time has passed.
    pub fn tick<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        self.agent.set_pace(self.staging_pace(now));
        self.agent.tick(now, flash);
        if is_due(&mut self.timers.announced, now, self.setup.pace.announce_ms) {
            let announce = VersionFrame::Announce(self.announce(now));
            self.send_version(DeviceId::BROADCAST, &announce);
        }
        self.probe(now);
        self.sample_health(now);
        self.repeat_wants(now);
        let mut buffer = [0; FRAME_BYTES_MAX];
        if let Some(len) = self.application.data_to_send(now, &mut buffer) {
            self.push_frame(DeviceId::BROADCAST, buffer, len);
        }
        if !self.has_group() {
            self.agent.keep_first(now, flash);
        }
        self.conduct(now, flash);
        self.end_serving(now);
        self.after_keep(now, flash);
        self.after(now, flash);
        self.tune(now);
    }

    /// When [`Node::tick`] is due at the latest, as seen from now. Asked after each frame, it only
    /// ever brings the next tick forward: of two answers since the last tick the earlier counts.
    pub fn next_wake(&self, now: Instant) -> Instant {
        let mut wake = now + self.setup.pace.sample_ms.min(TICK_MS_MAX);
        if let Some(at) = self.agent.next_wake(now) {
            wake = wake.min(at);
        }
        if let Some(at) = self.lead.as_ref().and_then(|lead| lead.next_wake(now)) {
            wake = wake.min(at);
        }
        if let Some(at) = self.next_served_wake(now) {
            wake = wake.min(at);
        }
        if let Some(at) = self.tunes_at() {
            wake = wake.min(at);
        }
        if self.asks_rest {
            wake = wake.min(now + REST_POLL_MS);
        }
        wake.max(now)
    }

    /// The next frame to send: its addressee and length. Blocks are read from flash only now.
    pub fn poll_frame<F: NorFlash>(
        &mut self,
        now: Instant,
        buffer: &mut [u8; LARGE_FRAME_BYTES_MAX],
        flash: &mut F,
    ) -> Option<(DeviceId, usize)> {
        if self.actions.iter().any(|action| matches!(action, Action::Tune(_))) {
            return None;
        }
        if let Some(frame) = self.outbox.pop_front() {
            buffer.iter_mut().zip(frame.bytes).for_each(|(into, byte)| *into = byte);
            return Some((frame.to, frame.len));
        }
        let len = self.next_block(now, buffer, flash)?;
        Some((DeviceId::BROADCAST, len))
    }

    /// What the caller must do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether this is the device's password. Without one nobody is let in.
    pub fn is_password(&self, offered: &str) -> bool {
        self.password.as_ref().is_some_and(|password| password.is(offered))
    }

    pub(crate) const fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// Whether a password was ever set.
    pub const fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Sets the password, durably. `salt` is 16 random bytes. `false` if the flash failed.
    pub fn set_password<F: NorFlash>(
        &mut self,
        password: &str,
        salt: [u8; 16],
        flash: &mut F,
    ) -> bool {
        let password = Password::new(password, salt);
        let stored = self.write_entry(Kind::PASSWORD, &password.encode(), flash);
        if stored {
            self.password = Some(password);
        }
        stored
    }

    /// Sets another password, with a salt that nobody can guess. `false` if the flash failed.
    pub fn change_password<F: NorFlash>(
        &mut self,
        now: Instant,
        password: &str,
        flash: &mut F,
    ) -> bool {
        let mut salt = [0; 16];
        let (first, second) = salt.split_at_mut(8);
        first.copy_from_slice(&self.draw().to_le_bytes());
        second.copy_from_slice(&self.draw().to_le_bytes());
        let stored = self.set_password(password, salt, flash);
        if stored {
            self.journal.log(now, Level::Notice, String::from("the password was changed"));
        }
        stored
    }

    /// How this device was set up.
    pub const fn setup(&self) -> &NodeSetup {
        &self.setup
    }

    /// The member's side.
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The others.
    pub const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// What became of the blocks that this device has heard.
    pub const fn block_counts(&self) -> &BlockCounts {
        &self.blocks
    }

    /// The key of its group.
    pub const fn group_key(&self) -> &GroupKey {
        &self.key
    }

    /// Logs and events.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Past rollouts, as far as this device conducted them.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The application.
    pub const fn application(&self) -> &A {
        &self.application
    }

    /// The application, to ask it for its health.
    pub const fn application_mut(&mut self) -> &mut A {
        &mut self.application
    }

    /// Version, minimum and protocol range of the running firmware.
    pub const fn announced(&self) -> &Announced {
        &self.announced
    }

    /// The lead of the open rollout, as far as this device has heard of one.
    pub const fn conductor(&self) -> Option<DeviceId> {
        self.conductor
    }

    /// A line for the log from the shell around the node.
    pub fn log(&mut self, now: Instant, level: Level, text: String) {
        self.journal.log(now, level, text);
    }

    /// Lets go of the lines of the log up to `seq`: for a shell that hands them on at once, and has
    /// no API to show them. The numbers go on.
    pub fn forget_lines(&mut self, seq: u32) {
        self.journal.forget_lines(seq);
    }

    /// 64 bits that nobody can guess who does not know the seed.
    pub(crate) fn draw(&mut self) -> u64 {
        use sha2::Digest;
        self.drawn = self.drawn.wrapping_add(1);
        let mut digest = sha2::Sha256::new();
        digest.update(self.setup.seed.to_le_bytes());
        digest.update(self.drawn.to_le_bytes());
        digest.update(self.key.bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = digest.finalize().into();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Writes one entry of the record; a failure is logged. `false` if it failed.
    pub(crate) fn write_entry<F: NorFlash>(
        &mut self,
        kind: Kind,
        payload: &[u8],
        flash: &mut F,
    ) -> bool {
        let written = self.agent.record_mut().write(flash, kind, ENTRY_VERSION, payload);
        if let Err(error) = &written {
            let text = format!("cannot write {kind:?} of the record: {error}");
            self.journal.log(Instant::default(), Level::Error, text);
        }
        written.is_ok()
    }

    pub(crate) fn facts(&self, now: Instant) -> lockstep_proto::frame::report::Facts {
        self.agent.facts(self.application.free_heap_bytes(), self.peers.loss_percent(now))
    }

    /// What every input ends with: effects of the agent, and the application's way to rest.
    pub(crate) fn after<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        self.drain_effects(now);
        if self.asks_rest {
            match self.application.poll_rest(now) {
                RestAnswer::Pending => (),
                RestAnswer::AtRest => {
                    self.asks_rest = false;
                    self.agent.application_at_rest(now);
                }
                RestAnswer::NotNow => {
                    self.asks_rest = false;
                    self.agent.application_not_now(now);
                }
            }
        }
        if self.agent.take_report_due() {
            self.answer_conductor(now, flash);
        }
        // Taken in any case: what is due stays due until then.
        if let Some(wants) = self.agent.take_wants(now)
            && let Some(sender) = self.sender_of_session(wants.session)
            && sender != self.setup.id
        {
            self.timers.wanted = Some(now);
            self.send_control(sender, Message::Wants(wants));
        }
        self.drain_effects(now);
    }

    /// News that the lead waits for goes out at once, not with its next question.
    fn answer_conductor<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        let report = self.agent.report();
        match (self.conductor, &self.lead) {
            (_, Some(_)) => {
                let me = self.setup.id;
                self.note_report(now, me, report, flash);
            }
            (Some(lead), None) => self.send_control(lead, Message::Report(report)),
            (None, None) => (),
        }
    }

    pub(crate) fn drain_effects(&mut self, now: Instant) {
        while let Some(effect) = self.agent.poll_effect() {
            match effect {
                Effect::Reboot(reason) => {
                    self.journal.log(now, Level::Notice, format!("reboots: {reason}"));
                    self.actions.push_back(Action::Reboot(reason));
                }
                Effect::AskRest => {
                    self.asks_rest = true;
                    self.application.ask_rest(now);
                }
                Effect::Release => {
                    self.asks_rest = false;
                    self.application.release(now);
                }
                Effect::Trace(trace) => {
                    self.blocks.note_trace(&trace);
                    self.journal.log(now, Level::Info, format!("{trace}"));
                }
            }
        }
    }

    /// The keys that a release needs here.
    pub fn trust(&self) -> &Trust {
        self.agent.trust()
    }
}

/// Another one for each device of a group, most likely.
const fn unasked_wait_ms(id: DeviceId) -> u64 {
    let [.., low] = id.0;
    low as u64 % UNASKED_TURNS * UNASKED_TURN_MS
}

/// What a boot begins its log with.
fn first_line(announced: &Announced, agent: &Agent, slot: u8) -> String {
    let version = ReleaseVersion::from_number(announced.number);
    let image = agent.running();
    let trial = if agent.on_trial() { ", on trial" } else { "" };
    format!("booted {version}, image {image:?}, slot {slot}{trial}")
}

/// Reads one entry of the record into a buffer of its largest size.
pub(crate) fn read_entry<F: NorFlash, const N: usize>(
    agent: &Agent,
    flash: &mut F,
    kind: Kind,
) -> Option<Vec<u8>> {
    read_log(agent.record(), flash, kind, N)
}

fn read_log<F: NorFlash>(
    log: &RecordLog,
    flash: &mut F,
    kind: Kind,
    size_bytes: usize,
) -> Option<Vec<u8>> {
    let mut buffer = alloc::vec![0; size_bytes];
    let (_, len) = log.read(flash, kind, &mut buffer).ok()??;
    buffer.truncate(len);
    Some(buffer)
}

/// What manifests said of the images in the slots: needed before the agent starts, which is told
/// what its firmware announces.
fn known_images<F: NorFlash>(flash: &mut F) -> KnownImages {
    let bytes = Layout::find(flash)
        .ok()
        .and_then(|layout| RecordLog::open(flash, layout.record()).ok())
        .and_then(|log| read_log(&log, flash, ENTRY_IMAGES, IMAGES_BYTES_MAX));
    bytes.map(|bytes| KnownImages::decode(&bytes)).unwrap_or_default()
}

/// Firmware without a descriptor that no manifest ever described.
const UNKNOWN_FIRMWARE: Announced =
    Announced { number: 0, min_compatible: 0, protocol: ProtocolRange::single(1) };
/// Version of the node's own entries in the record.
pub(crate) const ENTRY_VERSION: u8 = 1;
/// Members that speak unasked at the same moment are spread over so many turns.
const UNASKED_TURNS: u64 = 32;
const UNASKED_TURN_MS: u64 = 3;
const TICK_MS_MAX: u64 = 100;
const REST_POLL_MS: u64 = 10;
