//! `lockstep group …`: who belongs to a group.

use clap::Subcommand;
use lockstep_proto::id::DeviceId;
use serde_json::{Value, json};

use crate::client::DeviceArgs;
use crate::client::api::{Group, GroupMember};
use crate::error::CommandError;
use crate::ui::{Ui, table, tame};

/// See who belongs to a group, and take off who is gone for good
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    List(ListArgs),
    Remove(RemoveArgs),
}

/// List the members of a group, as its lead knows them
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

/// Take a device that is gone for good off the list of members
///
/// Every rollout asks all members, and begins only when all have answered. A device that was
/// removed, and speaks again with the group's key, is a member again.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// The device's address, as `lockstep group list` shows it
    #[arg(value_name = "MAC")]
    id: DeviceId,

    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn group(ui: &Ui, command: &GroupCommand) -> Result<(), CommandError> {
    match command {
        GroupCommand::List(args) => list(ui, args),
        GroupCommand::Remove(args) => remove(ui, args),
    }
}

fn list(ui: &Ui, args: &ListArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    if ui.is_json() {
        return ui.json(&client.get::<Value>("/api/group")?);
    }
    let Group { members } = client.get("/api/group")?;
    let head = ["DEVICE", "ROLE", "LINK"].map(String::from).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(members.iter().map(row)).collect();
    ui.line(table(&rows))
}

fn row(member: &GroupMember) -> Vec<String> {
    let role = &member.role;
    let link = match (member.lead, member.linked, member.heard_ms_ago) {
        (true, _, _) => "-".to_owned(),
        (false, true, _) => "up".to_owned(),
        (false, false, Some(ms)) => format!("down, heard {} s ago", ms / 1000),
        (false, false, None) => "not heard since the lead's start".to_owned(),
    };
    let role = if member.lead { format!("{role} (lead)") } else { role.clone() };
    vec![tame(&member.id), tame(&role), link]
}

fn remove(ui: &Ui, args: &RemoveArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    let id = args.id.to_string();
    client.post::<Value>(&format!("/api/group/remove/{id}"))?;
    ui.line(format_args!("Removed {id}: rollouts do not wait for it any more"))?;
    ui.json(&json!({ "removed": id }))
}
