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

    /// Show what became of the frames that the device has heard since it booted: why a transfer is
    /// slow, or an order not obeyed
    #[arg(short, long)]
    verbose: bool,
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
        Some(rollout) => ui.line(rollout_line(&rollout))?,
        None if version.lead => ui.line("Rollout: none")?,
        None => ui.line("Rollout: ask the lead")?,
    }
    if args.verbose {
        ui.line(radio_line(&health))?;
        ui.line(table(&frame_rows(&health)))?;
    }
    Ok(())
}

fn radio_line(health: &Health) -> String {
    let seeks = if health.seeks_lead { ", looks for its lead" } else { "" };
    match health.channel {
        Some(channel) => format!("Radio: on channel {channel}{seeks}"),
        None => format!("Radio: none, or it does not say{seeks}"),
    }
}

/// Of each lane what happened at all.
fn frame_rows(health: &Health) -> Vec<Vec<String>> {
    let mut rows = vec![["FRAMES", "OF", "WHAT BECAME OF THEM"].map(String::from).to_vec()];
    for (lane, counts) in &health.frames {
        for (name, count) in counts.iter().filter(|(_, count)| **count > 0) {
            let meaning = MEANINGS.iter().find(|(of, it, _)| (*of, *it) == (lane, name));
            let text = meaning.map_or_else(|| tame(name), |(.., text)| (*text).to_owned());
            rows.push(vec![count.to_string(), tame(lane), text]);
        }
    }
    rows
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

/// What the names of `GET /api/health` mean, by lane.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("control", "taken", "taken"),
    ("control", "other_group", "dropped: of another group in reach"),
    ("control", "bad_tag", "dropped: of this group by name, and not by its key"),
    ("control", "lane_version", "dropped: newer than this firmware knows"),
    ("control", "unknown_kind", "dropped: of a kind that this firmware does not know"),
    ("control", "malformed", "dropped: cut short, or not what it says"),
    ("control", "replayed", "dropped: heard before, overtaken, or an answer to nothing"),
    ("control", "unproved", "put off: the sender had to show first that it is there"),
    ("control", "strange", "not of Lockstep"),
    ("blocks", "taken", "taken"),
    ("blocks", "unwanted", "dropped: of another file, or nothing is wanted now"),
    ("blocks", "out_of_range", "dropped: no such block, or too far ahead"),
    ("blocks", "length", "dropped: not as long as it must be"),
    ("blocks", "known", "brought nothing new"),
    ("blocks", "busy", "dropped: the flash had to catch up first"),
    ("blocks", "bad_tag", "dropped: not of the group's key"),
    ("blocks", "lane_version", "dropped: newer than this firmware knows"),
    ("blocks", "malformed", "dropped: cut short, or not what it says"),
    ("blocks", "poisoned", "generations that were whole and wrong, fetched again"),
    ("data", "gated", "dropped: of a device that is not compatible, or not known"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_told_with_its_reason_and_what_never_happened_is_not() {
        let health = r#"{"channel":11,"seeks_lead":true,"frames":{
            "blocks":{"taken":600,"known":0,"busy":12},
            "control":{"replayed":3,"new\u001bone":1}}}"#;
        let health: Health = serde_json::from_str(health).unwrap();
        assert_eq!(radio_line(&health), "Radio: on channel 11, looks for its lead");
        let rows = frame_rows(&health);
        let rows: Vec<_> = rows.iter().map(|row| row.join(" | ")).collect();
        assert_eq!(rows[0], "FRAMES | OF | WHAT BECAME OF THEM");
        assert_eq!(rows[1], "12 | blocks | dropped: the flash had to catch up first");
        assert_eq!(rows[2], "600 | blocks | taken");
        assert!(rows[3].starts_with("1 | control | new") && !rows[3].contains('\u{1b}'));
        let replayed = "3 | control | dropped: heard before, overtaken, or an answer to nothing";
        assert_eq!((rows[4].as_str(), rows.len()), (replayed, 5));
    }
}
