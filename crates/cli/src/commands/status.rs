//! `lockstep status`.

use std::time::Duration;

use lockstep_proto::version::ReleaseVersion;
use serde_json::{Value, json};

use crate::client::api::{Health, Peer, Rollout, Version};
use crate::client::{Client, DeviceArgs};
use crate::error::CommandError;
use crate::follow;
use crate::ui::{Ui, table, tame};

/// Show a group: its devices, what they run, whether they agree
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn status(ui: &Ui, args: &StatusArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    if ui.is_json() {
        return ui.json(&as_json(&client)?);
    }
    let version: Version = client.get("/api/version")?;
    let health: Health = client.get("/api/health")?;
    let rollout = follow::current(&client)?;
    ui.line(table(&rows(&version)))?;
    for warning in warnings(&version, &health) {
        ui.warn(warning);
    }
    match rollout {
        Some(rollout) => ui.line(rollout_line(&rollout)),
        None if version.lead => ui.line("Rollout: none"),
        None => ui.line("Rollout: ask the lead"),
    }
}

/// The device's own answers, unchanged.
fn as_json(client: &Client) -> Result<Value, CommandError> {
    let rollout = match client.get::<Value>("/api/rollout") {
        Ok(answer) => answer.get("rollout").cloned().unwrap_or_default(),
        Err(error) if error.code() == Some("not-the-lead") => Value::Null,
        Err(error) => return Err(error.into()),
    };
    Ok(json!({
        "device": client.device(),
        "version": client.get::<Value>("/api/version")?,
        "health": client.get::<Value>("/api/health")?,
        "rollout": rollout,
    }))
}

fn rows(version: &Version) -> Vec<Vec<String>> {
    let head = ["DEVICE", "ROLE", "VERSION", "IMAGE", "LINK", "COMPATIBLE"].map(String::from);
    let mut rows = vec![head.to_vec()];
    let role = version.role.as_deref().unwrap_or("unknown");
    rows.push(vec![
        tame(version.id.as_deref().unwrap_or("this device")),
        tame(&if version.lead { format!("{role} (lead)") } else { role.to_owned() }),
        tame(&version.version),
        short(&version.image),
        "asked".to_owned(),
        "-".to_owned(),
    ]);
    rows.extend(version.peers.iter().map(peer_row));
    rows
}

fn peer_row(peer: &Peer) -> Vec<String> {
    let version = match peer.version_number {
        Some(number) => ReleaseVersion::from_number(number).to_string(),
        None => "unknown".to_owned(),
    };
    let link = match (peer.linked, peer.heard_ms_ago) {
        (true, Some(ms)) => format!("up, heard {ms} ms ago"),
        (true, None) => "up".to_owned(),
        (false, Some(ms)) => format!("down, heard {} s ago", ms / 1000),
        (false, None) => "never heard".to_owned(),
    };
    let compatible = match peer.compatible {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    vec![
        tame(&peer.id),
        tame(peer.role.as_deref().unwrap_or("unknown")),
        version,
        peer.image.as_deref().map_or_else(|| "unknown".to_owned(), short),
        link,
        compatible.to_owned(),
    ]
}

/// Enough of a hash to tell images apart.
fn short(hash: &str) -> String {
    tame(&hash.chars().take(16).collect::<String>())
}

fn warnings(version: &Version, health: &Health) -> Vec<String> {
    let mut warnings = Vec::new();
    for peer in version.peers.iter().filter(|peer| peer.compatible == Some(false)) {
        let who = peer.role.as_deref().unwrap_or(&peer.id);
        let why = peer.why.as_deref().unwrap_or("it is not compatible");
        warnings.push(tame(&format!("no data is exchanged with {who}: {why}")));
    }
    if version.on_trial {
        warnings.push("the running image is on trial: a reset now takes it back".to_owned());
    }
    if version.trusts_anybody {
        warnings.push("no key is installed: this device takes releases from anybody".to_owned());
    }
    match version.rollback.as_str() {
        "none" => {
            warnings.push("nothing takes this device back from an image that dies".to_owned());
        }
        "agent" => warnings
            .push("the bootloader does not take back: an image that dies at once stays".to_owned()),
        _ => (),
    }
    let errors = health.errors.iter().map(|error| tame(&format!("not healthy: {error}")));
    warnings.extend(errors);
    warnings
}

fn rollout_line(rollout: &Rollout) -> String {
    let (id, release) = (tame(&rollout.id), tame(&rollout.release));
    let end = match (&rollout.verdict, &rollout.cause) {
        (Some(verdict), Some(cause)) => format!(", verdict {verdict}: {}", cause.text),
        (Some(verdict), None) => format!(", verdict {verdict}"),
        (None, _) => String::new(),
    };
    let waits = match (rollout.held, rollout.schedule_lost, rollout.starts_in_s) {
        (false, ..) => String::new(),
        (true, true, _) => ", waits: a restart of the lead has lost its schedule".to_owned(),
        (true, false, None) => ", waits until you say so".to_owned(),
        (true, false, Some(seconds)) => {
            let when = humantime::format_duration(Duration::from_secs(seconds));
            format!(", goes on in {when}")
        }
    };
    tame(&format!("Rollout: {id} to {release}, {}{end}{waits}", rollout.phase))
}
