//! What the device says of itself, as JSON: a look at the node, and nothing else. The fields that
//! the original plan names keep its names.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use lockstep_proto::descriptor::Product;
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::{DeviceId, Generation, RolloutId};
use lockstep_proto::otadata::OtaState;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::{Cause, Verdict};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::answer::{Answer, Shown};
use super::{Platform, Shell};
use crate::channel::Channel;
use crate::node::Node;
use crate::peers::Peer;
use crate::setup::{Application, Duty};

pub(crate) mod rollout;

pub(crate) use super::answer::json_text;
pub(super) use rollout::event;
pub(crate) use rollout::{EventView, rollout};

#[derive(Serialize)]
struct VersionView<'a> {
    device: String,
    role: Shown<Role>,
    product: Option<&'a str>,
    id: Shown<DeviceId>,
    lead: bool,
    hardware: &'a str,
    board: Shown<Board>,
    chip: String,
    version: Shown<ReleaseVersion>,
    version_number: u32,
    protocol_version: u8,
    protocol_range: [u8; 2],
    min_compatible: u32,
    build_date: &'a str,
    build_time: &'a str,
    image: String,
    slot: u8,
    slot_bytes: u32,
    ota_state: &'static str,
    on_trial: bool,
    trial_left_s: u16,
    rollback: &'static str,
    keys: usize,
    trusts_anybody: bool,
    epoch: u32,
    #[serde(flatten)]
    counterpart: Counterpart,
    peers: Vec<PeerView>,
    data: Option<DataView>,
    uptime_seconds: u64,
    free_heap: u32,
    boot_number: u32,
    reset_reason: &'static str,
}

/// The other half of a pair, in the original plan's three fields.
struct Counterpart {
    name: &'static str,
    connected: bool,
    version_number: Option<u32>,
    compatible: Option<bool>,
}

impl Serialize for Counterpart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(&format!("{}_connected", self.name), &self.connected)?;
        map.serialize_entry(&format!("{}_version_number", self.name), &self.version_number)?;
        map.serialize_entry(&format!("{}_compatible", self.name), &self.compatible)?;
        map.end()
    }
}

#[derive(Serialize)]
struct PeerView {
    id: Shown<DeviceId>,
    role: Option<Shown<Role>>,
    version_number: Option<u32>,
    min_compatible: Option<u32>,
    protocol_range: Option<[u8; 2]>,
    image: Option<String>,
    compatible: Option<bool>,
    why: Option<String>,
    linked: bool,
    heard_ms_ago: u64,
}

#[derive(Serialize)]
struct DataView {
    received: u32,
    dropped: u32,
    soc_percent: f64,
    power_w: i32,
}

#[derive(Serialize)]
struct HealthView {
    status: &'static str,
    version: Shown<ReleaseVersion>,
    uptime_seconds: u64,
    espnow_connected: bool,
    wifi_connected: bool,
    mqtt_connected: bool,
    channel: Option<u8>,
    seeks_lead: bool,
    free_heap: u32,
    cpu_freq_mhz: u32,
    errors: Vec<String>,
    checks: [Check; 3],
    frames: FramesView,
}

/// What came over the air since boot, and what became of it.
#[derive(Serialize)]
struct FramesView {
    control: Named<[(&'static str, u32); 9]>,
    blocks: Named<Vec<(&'static str, u32)>>,
    data: Named<[(&'static str, u32); 1]>,
}

/// Numbers by their names.
struct Named<I>(I);

impl<I: Clone + IntoIterator<Item = (&'static str, u32)>> Serialize for Named<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    required: bool,
    ok: bool,
    detail: String,
}

#[derive(Serialize)]
struct FirmwareInfo<'a> {
    valid: bool,
    env: Shown<Board>,
    device: String,
    version: Shown<ReleaseVersion>,
    build_date: &'a str,
}

#[derive(Serialize)]
struct HistoryView {
    history: Vec<OutcomeView>,
}

#[derive(Serialize)]
struct OutcomeView {
    rollout: Shown<RolloutId>,
    generation: Shown<Generation>,
    kind: &'static str,
    verdict: &'static str,
    cause: Option<CauseView>,
    release: Shown<ReleaseVersion>,
    release_before: Option<Shown<ReleaseVersion>>,
    disagreed_s: Option<u16>,
    patched: u8,
    patch_refused: u8,
    patch_refusal: Option<Shown<Refusal>>,
}

#[derive(Serialize)]
struct CauseView {
    code: &'static str,
    member: Option<Shown<DeviceId>>,
    text: Shown<Cause>,
}

#[derive(Serialize)]
struct LogsView<'a> {
    logs: Vec<LineView<'a>>,
}

#[derive(Serialize)]
struct LineView<'a> {
    seq: u32,
    uptime_ms: u64,
    level: &'static str,
    text: &'a str,
}

/// `GET /api/version`.
pub(super) fn version<H: Shell>(shell: &H) -> Answer {
    shell.with(|now, node, _| Answer::json_text(version_text(now, node)))
}

/// The same, as text.
pub(crate) fn version_text<A: Application>(now: Instant, node: &Node<A>) -> String {
    json_text(&version_view(now, node))
}

/// `GET /api/health`.
pub(super) fn health<H: Shell>(shell: &H) -> Answer {
    let platform = shell.platform();
    shell.with(|now, node, _| Answer::json_text(health_text(now, node, platform)))
}

/// The same, as text.
pub(crate) fn health_text<A: Application>(
    now: Instant,
    node: &mut Node<A>,
    platform: Platform,
) -> String {
    let checks = checks(now, node);
    let failed = checks.iter().filter(|check| check.required && !check.ok);
    let errors: Vec<_> = failed.map(|it| format!("{}: {}", it.name, it.detail)).collect();
    json_text(&HealthView {
        status: if errors.is_empty() { "healthy" } else { "unhealthy" },
        version: Shown(ReleaseVersion::from_number(node.announced().number)),
        uptime_seconds: now.ms / 1000,
        espnow_connected: is_anybody_linked(now, node),
        wifi_connected: platform.wifi_connected,
        mqtt_connected: platform.mqtt_connected,
        channel: platform.channel.map(Channel::number),
        seeks_lead: node.seeks_lead(),
        free_heap: node.application().free_heap_bytes(),
        cpu_freq_mhz: platform.cpu_freq_mhz,
        errors,
        checks,
        frames: FramesView {
            control: Named(node.control_counts().named()),
            blocks: Named(node.block_counts().named().collect()),
            data: Named([("gated", node.peers().dropped)]),
        },
    })
}

/// `GET /api/firmware_info`.
pub(super) fn firmware_info<H: Shell>(shell: &H) -> Answer {
    shell.with(|_, node, _| {
        let setup = node.setup();
        Answer::json(&FirmwareInfo {
            valid: true,
            env: Shown(setup.board),
            device: setup.role.as_str().to_ascii_uppercase(),
            version: Shown(ReleaseVersion::from_number(node.announced().number)),
            build_date: &setup.firmware.build_date,
        })
    })
}

/// `GET /api/history`.
pub(super) fn history<H: Shell>(shell: &H) -> Answer {
    shell.with(|_, node, _| Answer::json_text(history_text(node)))
}

/// The same, as text.
pub(crate) fn history_text<A: Application>(node: &Node<A>) -> String {
    let outcomes = node.history().outcomes().map(|outcome| OutcomeView {
        rollout: Shown(outcome.rollout),
        generation: Shown(outcome.generation),
        kind: outcome.kind.as_str(),
        verdict: outcome.verdict.as_str(),
        cause: CauseView::of(Some(outcome.verdict)),
        release: Shown(ReleaseVersion::from_number(outcome.number)),
        release_before: release(outcome.number_before),
        disagreed_s: outcome.disagreed_s,
        patched: outcome.patched.members,
        patch_refused: outcome.patched.refused,
        patch_refusal: outcome.patched.why.map(Shown),
    });
    json_text(&HistoryView { history: outcomes.collect() })
}

/// `GET /api/logs`.
pub(super) fn logs<H: Shell>(shell: &H) -> Answer {
    shell.with(|_, node, _| {
        let lines = node.journal().lines_after(0).map(|line| LineView {
            seq: line.seq,
            uptime_ms: line.at.ms,
            level: line.level.as_str(),
            text: &line.text,
        });
        Answer::json(&LogsView { logs: lines.collect() })
    })
}

fn version_view<A: Application>(now: Instant, node: &Node<A>) -> VersionView<'_> {
    let (setup, agent, announced) = (node.setup(), node.agent(), node.announced());
    let report = agent.report();
    let fresh_ms = setup.pace.link_fresh_ms;
    VersionView {
        device: setup.role.as_str().to_ascii_uppercase(),
        role: Shown(setup.role),
        product: setup.firmware.product.as_ref().map(Product::as_str),
        id: Shown(setup.id),
        lead: setup.duty == Duty::Lead,
        hardware: &setup.hardware,
        board: Shown(setup.board),
        chip: setup.chip.to_string(),
        version: Shown(ReleaseVersion::from_number(announced.number)),
        version_number: announced.number,
        protocol_version: announced.protocol.max(),
        protocol_range: [announced.protocol.min(), announced.protocol.max()],
        min_compatible: announced.min_compatible,
        build_date: &setup.firmware.build_date,
        build_time: &setup.firmware.build_time,
        image: agent.running().to_string(),
        slot: setup.running_slot,
        slot_bytes: agent.slot_bytes(),
        ota_state: ota_state(report.ota_state),
        on_trial: agent.on_trial(),
        trial_left_s: report.trial_left_s,
        rollback: agent.rollback().as_str(),
        keys: node.trust().keys().map_or(0, |keys| keys.keys().len()),
        trusts_anybody: node.trust().keys().is_none(),
        epoch: agent.epoch_floor(),
        counterpart: Counterpart::of(now, node),
        peers: node.peers().all().iter().map(|it| PeerView::new(now, it, fresh_ms)).collect(),
        data: node.application().figures().map(|figures| DataView {
            received: figures.frames,
            dropped: node.peers().dropped,
            soc_percent: f64::from(figures.soc_centipercent) / 100.0,
            power_w: figures.power_w,
        }),
        uptime_seconds: now.ms / 1000,
        free_heap: node.application().free_heap_bytes(),
        boot_number: agent.boot_number(),
        reset_reason: reset_reason(setup.reset_reason),
    }
}

impl Counterpart {
    fn of<A: Application>(now: Instant, node: &Node<A>) -> Self {
        let mine = node.setup().role;
        let name = if mine.as_str() == TRANSMITTER { RECEIVER } else { TRANSMITTER };
        // Firmware without the group's key says only in its announce what it is.
        let is_counterpart = |peer: &&Peer| match peer.role {
            Some(role) => role.as_str() == name,
            None => peer.device_type.as_str().eq_ignore_ascii_case(name),
        };
        let peer = node.peers().all().iter().find(is_counterpart);
        let fresh_ms = node.setup().pace.link_fresh_ms;
        let is_heard = |peer: &Peer| {
            let announces_only = peer.role.is_none() && now.ms_since(peer.heard_at) < SILENT_MS;
            announces_only || peer.is_linked(now, fresh_ms)
        };
        Self {
            name,
            connected: peer.is_some_and(is_heard),
            version_number: peer.and_then(|peer| peer.announced).map(|it| it.number),
            compatible: peer.and_then(|peer| peer.gate).map(|gate| gate.is_ok()),
        }
    }
}

impl PeerView {
    fn new(now: Instant, peer: &Peer, fresh_ms: u64) -> Self {
        let running = peer.running.and_then(|image| image.0.first_chunk().copied());
        let protocol = peer.announced.map(|it| [it.protocol.min(), it.protocol.max()]);
        Self {
            id: Shown(peer.id),
            role: peer.role.map(Shown),
            version_number: peer.announced.map(|it| it.number),
            min_compatible: peer.announced.map(|it| it.min_compatible),
            protocol_range: protocol,
            image: running.or(peer.announced_image).map(|image: [u8; 8]| hex(&image)),
            compatible: peer.gate.map(|gate| gate.is_ok()),
            why: peer.gate.and_then(Result::err).map(|why| why.to_string()),
            linked: peer.is_linked(now, fresh_ms),
            heard_ms_ago: now.ms_since(peer.heard_at),
        }
    }
}

impl CauseView {
    fn of(verdict: Option<Verdict>) -> Option<Self> {
        match verdict? {
            Verdict::Keep => None,
            Verdict::Revert(cause) => Some(Self {
                code: cause.code(),
                member: cause.member().map(Shown),
                text: Shown(cause),
            }),
        }
    }
}

/// What the device checks of itself. A trial looks at the same things.
fn checks<A: Application>(now: Instant, node: &mut Node<A>) -> [Check; 3] {
    let application = node.application_mut().health(now);
    let fresh_ms = node.setup().pace.link_fresh_ms;
    let linked = node.peers().linked(now, fresh_ms).count();
    let is_lead = node.setup().duty == Duty::Lead;
    // Nobody has given an order yet: then whoever is linked may be the lead.
    let is_link_ok = match node.conductor() {
        None if !is_lead => linked > 0 && node.peers().links_hold(now, fresh_ms),
        None | Some(_) => node.link_holds(now),
    };
    let (can_be_updated, how) = match node.conductor() {
        _ if is_lead => (true, String::from("conducts the group's rollouts itself")),
        Some(lead) => {
            let peer = node.peers().get(lead);
            let hears = peer.is_some_and(|peer| peer.is_linked(now, fresh_ms));
            let word = if hears { "hears" } else { "does not hear" };
            (hears, format!("{word} its lead {lead}"))
        }
        None if linked > 0 => (true, String::from("no lead has spoken yet, the group is in reach")),
        None => (false, String::from("hears nobody who could update it")),
    };
    [
        Check {
            name: "application",
            required: true,
            ok: application.is_ok,
            detail: String::from(application.detail),
        },
        Check {
            name: "link",
            required: true,
            ok: is_link_ok,
            detail: format!(
                "{linked} of {} peers answer, {} % of frames are lost",
                node.peers().all().len(),
                node.peers().loss_percent(now)
            ),
        },
        Check { name: "update", required: true, ok: can_be_updated, detail: how },
    ]
}

fn is_anybody_linked<A: Application>(now: Instant, node: &Node<A>) -> bool {
    node.peers().linked(now, node.setup().pace.link_fresh_ms).next().is_some()
}

/// A release's number as its version; `None` for an unknown one.
fn release(number: u32) -> Option<Shown<ReleaseVersion>> {
    (number > 0).then(|| Shown(ReleaseVersion::from_number(number)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const fn ota_state(state: OtaState) -> &'static str {
    match state {
        OtaState::New => "new",
        OtaState::PendingVerify => "pending-verify",
        OtaState::Valid => "valid",
        OtaState::Invalid => "invalid",
        OtaState::Aborted => "aborted",
        OtaState::Undefined => "undefined",
        OtaState::Other(_) => "unknown",
    }
}

/// The names of `esp_reset_reason_t`.
const fn reset_reason(number: u8) -> &'static str {
    match number {
        1 => "power-on",
        2 => "external-pin",
        3 => "software",
        4 => "panic",
        5 => "interrupt-watchdog",
        6 => "task-watchdog",
        7 => "watchdog",
        8 => "deep-sleep",
        9 => "brownout",
        10 => "sdio",
        11 => "usb",
        12 => "jtag",
        13 => "efuse",
        14 => "power-glitch",
        15 => "cpu-lockup",
        _ => "unknown",
    }
}

const TRANSMITTER: &str = "transmitter";
const RECEIVER: &str = "receiver";
/// Firmware that only announces, every 10 s, is gone after three of them, in milliseconds.
const SILENT_MS: u64 = 30_000;
