//! One boot of a board: from the bootloader to the next reset.
//!
//! The node lives here and only here: what it holds in RAM, its connections and their tasks end
//! with the boot, as they do on a chip. The turn of the loop is bounded, so that neither a flood of
//! frames nor a long transfer keeps the other from its turn.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant as Clock};

use embedded_storage::nor_flash::ReadNorFlash;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::http::{
    self, Api, CONNECTIONS_MAX, FirstStart, HTTP_BUFFER_BYTES, InReach, Platform, Shell,
};
use lockstep_device::journal::Level;
use lockstep_device::setup::{Duty, Firmware, NodeSetup, Pace};
use lockstep_device::{Action, Node, RebootReason};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::{FRAME_BYTES_MAX, LARGE_FRAME_BYTES_MAX};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_rollout::Policy;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::application::DeskApplication;
use super::console::Console;
use super::control::{Control, Order};
use super::link::{self, Link};
use super::{BoardError, BoardOptions, random};
use super::{mqtt, uplink};
use crate::bootloader::{BootEvent, BootSlot, Booted, Bootloader, ResetReason};
use crate::firmware::{BEHAVIOUR_BYTES, BEHAVIOUR_OFFSET, Fault};
use crate::flash::FileFlash;
use crate::line::Line;
use crate::radio::{PAYLOAD_BYTES_MAX, Radio};

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The chip starts again.
    Reset(ResetReason),
    /// The power is off.
    Off,
}

/// What outlives a boot.
#[derive(Debug)]
pub(super) struct Hardware<'a> {
    pub(super) options: &'a BoardOptions,
    pub(super) flash: Rc<RefCell<FileFlash>>,
    pub(super) radio: Rc<Radio>,
    pub(super) line: Option<Line>,
    /// Where the node found its lead last: kept over a reset, as a chip's RTC memory is.
    pub(super) last_good: Option<Channel>,
    /// Whether it waits to be set up.
    pub(super) first_start: bool,
    pub(super) listener: TcpListener,
    pub(super) control: Control,
    pub(super) console: Console,
}

impl Hardware<'_> {
    fn link(&self) -> Link<'_> {
        Link { radio: &self.radio, line: self.line.as_ref() }
    }
}

/// A running node, as the main loop and the HTTP connections share it. Borrowed for one call at a
/// time, never across a wait.
pub(super) struct Running {
    started: Clock,
    node: RefCell<Node<DeskApplication>>,
    flash: Rc<RefCell<FileFlash>>,
    radio: Rc<Radio>,
    changed: Notify,
    /// Whether a broker takes its messages.
    pub(super) mqtt_connected: Cell<bool>,
    first_start: bool,
    /// It starts anew then.
    restart_at: Cell<Option<Clock>>,
}

impl Running {
    fn now(&self) -> Instant {
        now(self.started)
    }
}

impl Shell for Running {
    type App = DeskApplication;
    type Flash = FileFlash;

    fn with<T>(
        &self,
        act: impl FnOnce(Instant, &mut Node<DeskApplication>, &mut FileFlash) -> T,
    ) -> T {
        act(self.now(), &mut self.node.borrow_mut(), &mut self.flash.borrow_mut())
    }

    fn wake(&self) {
        self.changed.notify_one();
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn platform(&self) -> Platform {
        Platform {
            cpu_freq_mhz: CPU_FREQUENCY_MHZ,
            wifi_connected: true,
            mqtt_connected: self.mqtt_connected.get(),
            channel: Some(self.radio.channel()),
        }
    }

    fn first_start(&self) -> Option<FirstStart> {
        let network =
            |ssid: &str, signal_dbm, open| InReach { ssid: ssid.into(), signal_dbm, open };
        self.first_start.then(|| FirstStart {
            networks: vec![network("Desk", -48, false), network("Café", -71, true)],
            leads: self.with(|_, node, _| node.setup().duty == Duty::Lead),
            is_wired: false,
        })
    }

    fn restart_soon(&self) {
        self.restart_at.set(Some(Clock::now() + RESTART_WAIT));
        self.wake();
    }
}

/// From reset to reset.
pub(super) async fn boot(
    hardware: &mut Hardware<'_>,
    reset: ResetReason,
) -> Result<Ended, BoardError> {
    let delay = Duration::from_millis(hardware.options.boot_ms.into());
    if let Some(ended) = wait_without_firmware(hardware, delay).await {
        return Ok(ended);
    }
    hardware.console.begin_boot();
    let started = Clock::now();
    let booted = run_bootloader(hardware, reset)?;
    let fault = read_fault(&booted, &mut hardware.flash.borrow_mut())?;
    if fault == Fault::CrashAtBoot {
        say_fault(&hardware.console, "crashed at boot, as its image orders");
        return Ok(Ended::Reset(ResetReason::Panic));
    }
    let setup = node_setup(hardware, &booted, reset)?;
    let application =
        DeskApplication::new(hardware.options.role.as_str(), fault, hardware.options.manners);
    let node = Node::boot(now(started), setup, application, &mut *hardware.flash.borrow_mut());
    let (node, first) = node.map_err(BoardError::Node)?;
    hardware.console.set_boot(node.agent().boot_number());
    say_booted(&hardware.console, &node, reset);
    let running = Rc::new(Running {
        started,
        node: RefCell::new(node),
        flash: Rc::clone(&hardware.flash),
        radio: Rc::clone(&hardware.radio),
        changed: Notify::new(),
        mqtt_connected: Cell::new(false),
        first_start: hardware.first_start,
        restart_at: Cell::new(None),
    });
    if let lockstep_agent::Booted::RebootNow(reason) = first {
        hardware.console.print_journal(running.node.borrow().journal());
        say_reboot(&hardware.console, &reason.to_string());
        return Ok(Ended::Reset(ResetReason::Software));
    }
    if fault == Fault::Hang {
        return Ok(hang(hardware, &running).await);
    }
    let mut broker = mqtt::start(hardware.options.broker.as_ref(), &running);
    let ended = run(hardware, &running, fault).await;
    broker.shutdown().await;
    ended
}

fn run_bootloader(hardware: &Hardware<'_>, reset: ResetReason) -> Result<Booted, BoardError> {
    let options = hardware.options;
    let rollback = options.rollback == lockstep_proto::frame::report::Rollback::Bootloader;
    let bootloader = Bootloader { chip: options.chip, rollback };
    let booted = bootloader.boot(&mut *hardware.flash.borrow_mut(), reset);
    let events = match &booted {
        Ok(booted) => &booted.events,
        Err(failure) => &failure.events,
    };
    for event in events {
        let facts = json!({ "event": event_name(event) });
        hardware.console.say(Level::Info, "bootloader", &format!("bootloader: {event}"), facts);
    }
    booted.map_err(BoardError::Bootloader)
}

const fn event_name(event: &BootEvent) -> &'static str {
    match event {
        BootEvent::Started { .. } => "started",
        BootEvent::Aborted { .. } => "aborted",
        BootEvent::Selected { .. } => "selected",
        BootEvent::NothingSelected { .. } => "nothing-selected",
        BootEvent::OnTrial { .. } => "on-trial",
        BootEvent::ImageRefused { .. } => "image-refused",
        BootEvent::Initialised { .. } => "initialised",
        BootEvent::Booting { .. } => "booting",
    }
}

/// What the image orders the board to play.
fn read_fault(booted: &Booted, flash: &mut FileFlash) -> Result<Fault, BoardError> {
    let mut block = [0; BEHAVIOUR_BYTES];
    flash.read(booted.partition.offset + BEHAVIOUR_OFFSET, &mut block)?;
    Fault::decode(&block).map_err(BoardError::Behaviour)
}

fn node_setup(
    hardware: &Hardware<'_>,
    booted: &Booted,
    reset: ResetReason,
) -> Result<NodeSetup, BoardError> {
    let options = hardware.options;
    let BootSlot::Ota(running_slot) = booted.slot else {
        return Err(BoardError::Slot { found: booted.slot });
    };
    let mut seed = [0; 8];
    random(&mut seed)?;
    let descriptor = booted.image.descriptor.as_ref();
    let app = booted.image.app.as_ref();
    Ok(NodeSetup {
        id: options.id,
        role: options.role,
        chip: options.chip,
        board: options.board,
        hardware: options.hardware.clone(),
        firmware: Firmware {
            image: booted.image.image_hash,
            announced: descriptor.map(Descriptor::announced),
            product: descriptor.map(|descriptor| descriptor.product.clone()),
            config_schema: descriptor.map_or(0, |descriptor| descriptor.config_schema),
            build_date: app.map(|app| app.date.to_string()).unwrap_or_default(),
            build_time: app.map(|app| app.time.to_string()).unwrap_or_default(),
        },
        running_slot,
        reset_reason: esp_reset_reason(reset),
        rollback: options.rollback,
        takes_large: options.takes_large,
        channels: match options.channels {
            ChannelPlan::Scan { first, last, .. } => {
                ChannelPlan::Scan { first, last, last_good: hardware.last_good }
            }
            ChannelPlan::Fixed => ChannelPlan::Fixed,
        },
        group_key: options.group_key.clone(),
        // The record's keys come first; without a record these are better than none.
        trust: options.provision.trust.clone(),
        duty: options.duty,
        policy: Policy { rule: options.rule, ..Policy::desk() },
        pace: Pace::desk(),
        seed: u64::from_le_bytes(seed),
    })
}

/// Numbers of `esp_reset_reason_t`.
const fn esp_reset_reason(reset: ResetReason) -> u8 {
    match reset {
        ResetReason::PowerOn => 1,
        ResetReason::Software => 3,
        ResetReason::Panic => 4,
        ResetReason::Watchdog => 6,
        ResetReason::BrownOut => 9,
    }
}

/// The main loop of the firmware.
async fn run(
    hardware: &mut Hardware<'_>,
    running: &Rc<Running>,
    fault: Fault,
) -> Result<Ended, BoardError> {
    let api = Rc::new(Api::default());
    let mut connections = JoinSet::new();
    let mut uplink = uplink::start(hardware.options.server.as_ref(), running, &api);
    let crash_at = crash_at(running, fault);
    let mut held = None;
    let mut payload = [0; PAYLOAD_BYTES_MAX];
    let mut wake_at = running.now();
    let ended = loop {
        let sleep_ms = wake_at.ms_since(running.now());
        let has_room = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            biased;
            order = hardware.control.next() => {
                if let Some(ended) = obey(hardware, order) {
                    break ended;
                }
            }
            accepted = hardware.listener.accept(), if has_room => {
                serve(&mut connections, running, &api, accepted);
            }
            Some(_) = connections.join_next() => (),
            received = hardware.radio.recv(&mut payload) => {
                let received = received?;
                let frame = payload.get(..received.length_bytes).unwrap_or_default();
                hear(running, fault, received.source, frame);
                hear_what_waits(&hardware.radio, running, fault);
            }
            news = link::news(&mut hardware.line) => {
                running.with(|now, node, _| node.log(now, news.level, news.text));
            }
            () = running.changed.notified() => (),
            () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => (),
        }
        if running.now() >= wake_at {
            running.with(|now, node, flash| node.tick(now, flash));
            wake_at = Instant::from_ms(u64::MAX);
        }
        // Connections get their turn, however much the radio has to say.
        tokio::task::yield_now().await;
        let reboot = running.with(|now, node, flash| {
            let reboot = act(now, node, flash, hardware.link(), &mut held);
            hardware.console.print_journal(node.journal());
            hardware.last_good = node.last_good_channel();
            reboot
        });
        let is_told = running.restart_at.get().is_some_and(|at| Clock::now() >= at);
        hardware.first_start &= !is_told;
        let told = is_told.then(|| "to do as it was told".to_owned());
        if let Some(reason) = reboot.map(|reason| reason.to_string()).or(told) {
            say_reboot(&hardware.console, &reason);
            break Ended::Reset(ResetReason::Software);
        }
        if crash_at.is_some_and(|at| Clock::now() >= at) {
            say_fault(&hardware.console, "crashed after a time, as its image orders");
            break Ended::Reset(ResetReason::Panic);
        }
        // Frames bring the next tick forward, and never put it off.
        wake_at = wake_at.min(next_wake(running, &held, crash_at));
    };
    // A chip that restarts leaves its connections without a word.
    connections.shutdown().await;
    uplink.shutdown().await;
    Ok(ended)
}

/// When there is something to do, whatever comes.
fn next_wake(running: &Running, held: &Held, crash_at: Option<Clock>) -> Instant {
    let tick_at = running.with(|now, node, _| node.next_wake(now));
    let send_at = held.is_some().then(|| running.now() + RADIO_FULL_MS);
    let end_at = crash_at.map(|at| running.now() + millis_until(at));
    let restart_at = running.restart_at.get().map(|at| running.now() + millis_until(at));
    [send_at, end_at, restart_at].into_iter().flatten().fold(tick_at, Instant::min)
}

/// When the firmware crashes, as its image orders.
fn crash_at(running: &Running, fault: Fault) -> Option<Clock> {
    match fault {
        Fault::CrashAfterMs(ms) => Some(running.started + Duration::from_millis(ms.into())),
        _ => None,
    }
}

fn hear(running: &Running, fault: Fault, from: DeviceId, frame: &[u8]) {
    if fault == Fault::DeafRadio {
        return;
    }
    running.with(|now, node, flash| {
        if frame.len() <= FRAME_BYTES_MAX || node.setup().takes_large {
            node.handle_frame(now, from, frame, flash);
        }
    });
}

/// Frames come in bursts: the others of this one, up to the limit of a turn.
fn hear_what_waits(radio: &Radio, running: &Running, fault: Fault) {
    let mut payload = [0; PAYLOAD_BYTES_MAX];
    for _ in 1..FRAMES_PER_TURN_MAX {
        let Some(received) = radio.try_recv(&mut payload) else { return };
        let frame = payload.get(..received.length_bytes).unwrap_or_default();
        hear(running, fault, received.source, frame);
    }
}

/// A frame that the radio or the line had no room for yet.
type Held = Option<(DeviceId, [u8; LARGE_FRAME_BYTES_MAX], usize)>;

/// Sends what there is, and does what the node asks for but a reboot, which is returned.
fn act(
    now: Instant,
    node: &mut Node<DeskApplication>,
    flash: &mut FileFlash,
    link: Link<'_>,
    held: &mut Held,
) -> Option<RebootReason> {
    loop {
        send(now, node, flash, link, held);
        match node.poll_action()? {
            Action::Reboot(reason) => return Some(reason),
            Action::Tune(channel) => link.tune(channel),
        }
    }
}

/// Hands frames to the radio and the line until there are none or one of these is full.
fn send(
    now: Instant,
    node: &mut Node<DeskApplication>,
    flash: &mut FileFlash,
    link: Link<'_>,
    held: &mut Held,
) {
    for _ in 0..FRAMES_PER_TURN_MAX {
        let next = held.take().or_else(|| {
            let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
            let (to, len) = node.poll_frame(now, &mut buffer, flash)?;
            Some((to, buffer, len))
        });
        let Some((to, buffer, len)) = next else { return };
        if link.try_send(to, buffer.get(..len).unwrap_or_default()).is_err() {
            *held = Some((to, buffer, len));
            return;
        }
    }
}

fn serve(
    connections: &mut JoinSet<()>,
    running: &Rc<Running>,
    api: &Rc<Api>,
    accepted: io::Result<(tokio::net::TcpStream, std::net::SocketAddr)>,
) {
    // Whoever gave up before being accepted is not missed.
    let Ok((stream, _)) = accepted else { return };
    let (running, api) = (Rc::clone(running), Rc::clone(api));
    connections.spawn_local(async move {
        let mut buffer = vec![0; HTTP_BUFFER_BYTES];
        http::serve(&*running, &api, stream, &mut buffer).await;
    });
}

/// Nothing runs that could answer: connections are refused as far as a host can.
async fn wait_without_firmware(hardware: &mut Hardware<'_>, time: Duration) -> Option<Ended> {
    let until = tokio::time::Instant::now() + time;
    let mut payload = [0; PAYLOAD_BYTES_MAX];
    loop {
        tokio::select! {
            biased;
            order = hardware.control.next() => {
                let ended = obey(hardware, order);
                if ended.is_some() {
                    return ended;
                }
            }
            () = tokio::time::sleep_until(until) => return None,
            _ = hardware.listener.accept() => (),
            _ = hardware.radio.recv(&mut payload) => (),
        }
    }
}

/// The firmware stands still until its watchdog bites.
async fn hang(hardware: &mut Hardware<'_>, running: &Running) -> Ended {
    hardware.console.print_journal(running.node.borrow().journal());
    say_fault(&hardware.console, "hangs, as its image orders");
    let ended = wait_without_firmware(hardware, WATCHDOG).await;
    ended.unwrap_or_else(|| {
        say_fault(&hardware.console, "watchdog resets the chip");
        Ended::Reset(ResetReason::Watchdog)
    })
}

fn obey(hardware: &Hardware<'_>, order: Order) -> Option<Ended> {
    let (radio, console) = (&hardware.radio, &hardware.console);
    match order {
        Order::Channel(channel) if hardware.options.channels == ChannelPlan::Fixed => {
            hardware.link().tune(channel);
            let text = format!("access point is on channel {channel} now");
            console.say(Level::Info, "radio", &text, json!({ "channel": channel.number() }));
            None
        }
        Order::Channel(_) => {
            let why = "this device has no access point: it finds its lead's channel itself";
            console.say(Level::Warning, "radio", why, json!({}));
            None
        }
        Order::Impair(impairments) => {
            radio.impair(impairments);
            let text = format!("radio is ordered to be: {impairments}");
            console.say(
                Level::Info,
                "radio",
                &text,
                json!({ "impairments": impairments.to_string() }),
            );
            None
        }
        Order::Strange(why) => {
            console.say(Level::Warning, "radio", &why, json!({}));
            None
        }
        Order::Off => Some(Ended::Off),
    }
}

fn say_booted(console: &Console, node: &Node<DeskApplication>, reset: ResetReason) {
    let version = ReleaseVersion::from_number(node.announced().number);
    let agent = node.agent();
    let trial = if agent.on_trial() { ", on trial" } else { "" };
    let image = agent.running();
    let after = match reset {
        ResetReason::Software => String::new(),
        _ => format!(", after {reset}"),
    };
    let text = format!("runs {version}, image {image:?}{trial}{after}");
    let facts = json!({
        "image": image.to_string(),
        "version": version.to_string(),
        "slot": node.setup().running_slot,
        "on_trial": agent.on_trial(),
        "reset": reset.to_string(),
    });
    console.note("boot", &text, facts);
}

fn say_reboot(console: &Console, reason: &str) {
    let text = format!("restarts {reason}");
    console.note("reset", &text, json!({ "reason": reason }));
}

fn say_fault(console: &Console, text: &str) {
    console.say(Level::Error, "fault", text, json!({}));
}

fn now(started: Clock) -> Instant {
    Instant::from_ms(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
}

fn millis_until(at: Clock) -> u64 {
    let left = at.saturating_duration_since(Clock::now());
    // A started millisecond counts whole, or the loop would turn without waiting.
    u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Frames that are taken, and sent, before others get their turn.
const FRAMES_PER_TURN_MAX: usize = 64;
/// How long the radio and the line get to send what they hold before they are tried again.
const RADIO_FULL_MS: u64 = 2;
/// After this time a firmware that hangs is reset. The node arms its watchdog first thing.
const WATCHDOG: Duration = Duration::from_secs(3);
/// What an ESP32 runs at.
const CPU_FREQUENCY_MHZ: u32 = 240;
const _: () = assert!(PAYLOAD_BYTES_MAX >= LARGE_FRAME_BYTES_MAX);
/// An answer goes out before the board starts anew.
const RESTART_WAIT: Duration = Duration::from_millis(300);
