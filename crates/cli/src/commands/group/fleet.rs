//! The groups of a fleet, as its server knows them by name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::moment;
use crate::args::ServerUrl;
use crate::error::CommandError;
use crate::fleet::answers::{Device, Group, PastRollout};
use crate::fleet::{Server, ServerArgs};
use crate::ui::{Ui, table, tame};

/// Which groups of a fleet
#[derive(Debug, clap::Args)]
pub(crate) struct FilterArgs {
    /// Of a fleet: groups with these labels alone
    #[arg(long, value_name = "KEY=VALUE,…", help_heading = "Server")]
    labels: Option<String>,

    /// Of a fleet: groups on this version alone
    #[arg(long, value_name = "VERSION", help_heading = "Server")]
    on: Option<String>,

    /// Of a fleet: groups that a person should look at
    #[arg(long, help_heading = "Server")]
    attention: bool,
}

/// Show a group of a fleet: each device and what it runs, and how past rollouts ended
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Make a token that lets a group into a fleet, once
///
/// It is given to the group's lead, which has a credential of its own from then on:
///   lockstep device … --server http://fleet.local:8080 --enroll TOKEN
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct EnrollArgs {
    /// What to call the group; with --replace-lead the group that is there
    #[arg(value_name = "GROUP")]
    group: String,

    /// Its labels
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "", hide_default_value = true)]
    labels: String,

    /// Its time zone, for hours: Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", default_value = "", hide_default_value = true)]
    zone: String,

    /// Let a new lead board into a group that is there
    #[arg(long, conflicts_with_all = ["labels", "zone"])]
    replace_lead: bool,

    /// How long the token is good, if it is not used [default: a week]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Change a group's labels: campaigns choose groups by them
#[derive(Debug, clap::Args)]
pub(crate) struct LabelArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// KEY=VALUE sets a label, KEY- takes it off
    #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
    labels: Vec<String>,
}

/// Say when a group may be touched, by its own clock
#[derive(Debug, clap::Args)]
pub(crate) struct HoursArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Such as `02:00-05:00`, with days before it if not every one; `any` for any time
    #[arg(value_name = "HOURS")]
    hours: String,

    /// Its time zone, such as Europe/Berlin [default: as before]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

/// Say whether a group takes releases by itself, or asks somebody first
#[derive(Debug, clap::Args)]
pub(crate) struct ModeArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Whether it begins by itself
    #[arg(value_name = "MODE", value_parser = ["automatic", "notify"])]
    mode: String,
}

/// Call a group something else
#[derive(Debug, clap::Args)]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// The new name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Order a group's lead to end its open rollout
#[derive(Debug, clap::Args)]
pub(crate) struct AbortArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Order a group's lead to take its last release back
#[derive(Debug, clap::Args)]
pub(crate) struct RevertArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Which group
#[derive(Debug, clap::Args)]
struct WhichArgs {
    /// Name or identity of the group
    #[arg(value_name = "GROUP")]
    group: String,

    #[command(flatten)]
    server: ServerArgs,
}

impl WhichArgs {
    fn open(&self) -> Result<(Server, Group), CommandError> {
        let server = self.server.open()?;
        let group = server.group(&self.group)?;
        Ok((server, group))
    }
}

pub(super) fn list(ui: &Ui, server: &Server, filter: &FilterArgs) -> Result<(), CommandError> {
    let attention = if filter.attention { "true" } else { "" };
    let groups = server.groups(&[
        ("labels", filter.labels.as_deref().unwrap_or_default()),
        ("version", filter.on.as_deref().unwrap_or_default()),
        ("attention", attention),
    ])?;
    if groups.is_empty() {
        ui.line("There is no such group. To let one in: lockstep group enroll NAME")?;
    } else {
        let head = ["GROUP", "LABELS", "ON", "PHASE", "SEEN", "NOTE"].map(String::from).to_vec();
        let rows: Vec<_> = [head].into_iter().chain(groups.iter().map(row)).collect();
        ui.line(table(&rows))?;
    }
    let shown: Vec<_> = groups.iter().map(to_json).collect();
    ui.json(&json!({ "groups": shown }))
}

fn row(group: &Group) -> Vec<String> {
    let none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let seen = group.seen_at.as_deref().map_or("never", moment).to_owned();
    let note = group.attention.clone().unwrap_or_default();
    let cells = [
        group.name.clone(),
        group.labels_text(),
        none(&group.version),
        none(&group.phase),
        seen,
        note,
    ];
    cells.map(|cell| tame(&cell)).to_vec()
}

fn to_json(group: &Group) -> Value {
    json!({
        "id": group.id, "name": group.name, "labels": group.labels, "zone": group.zone,
        "hours": group.hours, "mode": group.mode, "lead": group.lead, "version": group.version,
        "system": group.system, "phase": group.phase, "attention": group.attention,
        "seen_at": group.seen_at, "enrolled_at": group.enrolled_at,
    })
}

pub(super) fn show(ui: &Ui, args: &ShowArgs) -> Result<(), CommandError> {
    let (server, group) = args.which.open()?;
    if ui.is_json() {
        return ui.json(&server.get::<Value>(&format!("/api/groups/{}", group.id))?);
    }
    for (name, value) in facts(&group) {
        ui.line(format_args!("{name:10}{}", tame(&value)))?;
    }
    let head = ["DEVICE", "ROLE", "ON", "LINK", "IMAGE"].map(String::from).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(group.devices.iter().map(device_row)).collect();
    ui.line("")?;
    ui.line(table(&rows))?;
    if group.history.is_empty() {
        return Ok(());
    }
    let head = ["ROLLOUT", "KIND", "FROM", "TO", "VERDICT", "CAUSE"].map(String::from).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(group.history.iter().map(past_row)).collect();
    ui.line("")?;
    ui.line(table(&rows))
}

fn facts(group: &Group) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("group", format!("{} ({})", group.name, group.id)),
        ("labels", group.labels_text()),
        ("lead", group.lead.clone()),
        ("runs", group.version.clone().unwrap_or_else(|| "no one release".to_owned())),
        ("mode", group.mode.clone()),
        ("seen", group.seen_at.as_deref().map_or("never", moment).to_owned()),
    ];
    if !group.hours.is_empty() {
        let zone = if group.zone.is_empty() { "UTC" } else { &group.zone };
        facts.push(("hours", format!("{} {zone}", group.hours)));
    }
    let phase = group.phase.clone().map(|phase| ("phase", phase));
    facts.extend(phase.into_iter().chain(group.attention.clone().map(|it| ("note", it))));
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn device_row(device: &Device) -> Vec<String> {
    let role = if device.lead { format!("{} (lead)", device.role) } else { device.role.clone() };
    let link = match (device.lead, device.linked) {
        (true, _) => "-",
        (false, true) => "up",
        (false, false) => "down",
    };
    let image = device.image.as_deref().unwrap_or("-");
    let image = image.get(..IMAGE_LETTERS).unwrap_or(image).to_owned();
    let version = device.version.clone().unwrap_or_else(|| "-".to_owned());
    [device.id.clone(), role, version, link.to_owned(), image].map(|cell| tame(&cell)).to_vec()
}

fn past_row(past: &PastRollout) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let why = past.why.clone().unwrap_or_default();
    let (from, to) = (or_dash(&past.version_before), or_dash(&past.version));
    [past.rollout.clone(), past.kind.clone(), from, to, past.verdict.clone(), why]
        .map(|cell| tame(&cell))
        .to_vec()
}

pub(super) fn enroll(ui: &Ui, args: &EnrollArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    let mut body = json!({ "name": args.group, "labels": args.labels, "zone": args.zone });
    if args.replace_lead {
        body = json!({ "group": server.group(&args.group)?.id });
    }
    let seconds = args.expires_in.map(|it| u32::try_from(it.as_secs()).unwrap_or(u32::MAX));
    if let (Some(seconds), Some(fields)) = (seconds, body.as_object_mut()) {
        fields.insert("expires_in_s".to_owned(), seconds.into());
    }
    let made: Value = server.post("/api/enrolments", &body)?;
    let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
    ui.line(text("token"))?;
    ui.note(format_args!("Good once, until {}. Give it to the lead:", moment(text("expires_at"))));
    ui.note(format_args!("  lockstep device … --server {} --enroll TOKEN", server.url()));
    if server.url().parse::<ServerUrl>().is_err() {
        ui.warn("devices do not find the server under this name: they speak plain HTTP");
    }
    ui.json(&made)
}

pub(super) fn label(ui: &Ui, args: &LabelArgs) -> Result<(), CommandError> {
    change(ui, &args.which, |group| {
        for text in &args.labels {
            relabel(&mut group.labels, text)?;
        }
        Ok(())
    })
}

fn relabel(labels: &mut BTreeMap<String, String>, text: &str) -> Result<(), CommandError> {
    let known = crate::ui::listed(labels.keys());
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => drop(labels.insert(key.to_owned(), value.to_owned())),
        (None, Some(key)) => {
            labels.remove(key).ok_or_else(|| {
                CommandError::failed(format!("The group has no label `{key}`, it has {known}"))
                    .hinted("See its labels: lockstep group show")
            })?;
        }
        (None, None) => {
            return Err(CommandError::usage(format!("`{text}` is no label"))
                .hinted("KEY=VALUE sets one, KEY- takes it off: site=berlin, stage-"));
        }
    }
    Ok(())
}

pub(super) fn hours(ui: &Ui, args: &HoursArgs) -> Result<(), CommandError> {
    change(ui, &args.which, |group| {
        group.hours = if args.hours == "any" { String::new() } else { args.hours.clone() };
        if let Some(zone) = &args.zone {
            group.zone.clone_from(zone);
        }
        Ok(())
    })
}

pub(super) fn mode(ui: &Ui, args: &ModeArgs) -> Result<(), CommandError> {
    change(ui, &args.which, |group| {
        group.mode.clone_from(&args.mode);
        Ok(())
    })
}

pub(super) fn rename(ui: &Ui, args: &RenameArgs) -> Result<(), CommandError> {
    change(ui, &args.which, |group| {
        group.name.clone_from(&args.name);
        Ok(())
    })
}

/// What is not changed stays: the server takes a group's settings as a whole.
fn change(
    ui: &Ui,
    which: &WhichArgs,
    edit: impl FnOnce(&mut Group) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (server, mut group) = which.open()?;
    edit(&mut group)?;
    let settings = json!({
        "name": group.name, "labels": group.labels_text(), "zone": group.zone,
        "hours": group.hours, "mode": group.mode,
    });
    server.put::<Value>(&format!("/api/groups/{}", group.id), &settings)?;
    for (name, value) in facts(&group) {
        if matches!(name, "group" | "labels" | "mode" | "hours") {
            ui.line(format_args!("{name:10}{}", tame(&value)))?;
        }
    }
    ui.json(&json!({ "id": group.id, "settings": settings }))
}

pub(super) fn abort(ui: &Ui, args: &AbortArgs) -> Result<(), CommandError> {
    order(ui, &args.which, "abort", "end its rollout")
}

pub(super) fn revert(ui: &Ui, args: &RevertArgs) -> Result<(), CommandError> {
    order(ui, &args.which, "revert", "take its last release back")
}

fn order(ui: &Ui, which: &WhichArgs, what: &str, words: &str) -> Result<(), CommandError> {
    let (server, group) = which.open()?;
    let ordered: Value = server.order(&format!("/api/groups/{}/{what}", group.id))?;
    ui.line(format_args!("{} is to {words}, when its lead comes", tame(&group.name)))?;
    ui.json(&ordered)
}

pub(super) fn remove(ui: &Ui, server: &Server, which: &str) -> Result<(), CommandError> {
    let group = server.group(which)?;
    let removed: Value = server.delete(&format!("/api/groups/{}", group.id))?;
    ui.line(format_args!("Removed {}: its lead is let in no more", tame(&group.name)))?;
    ui.json(&removed)
}

/// Enough of a hash to tell two images apart.
const IMAGE_LETTERS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_set_replaced_and_taken_off() {
        let mut labels = BTreeMap::new();
        for text in ["site=berlin", "stage=canary", "site=bonn", "stage-"] {
            relabel(&mut labels, text).unwrap();
        }
        assert_eq!(labels, [("site".to_owned(), "bonn".to_owned())].into());
        for wrong in ["site", "stage-"] {
            assert!(relabel(&mut labels, wrong).is_err(), "{wrong}");
        }
    }
}
