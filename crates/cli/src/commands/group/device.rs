//! The group of one device: who belongs to it, and who is in reach.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lockstep_proto::id::DeviceId;
use serde_json::{Value, json};

use crate::client::api::{Group, GroupMember, Stranger};
use crate::client::{Client, DeviceArgs};
use crate::error::CommandError;
use crate::files;
use crate::ui::{Ui, table, tame};

/// Give a new device the group's key, over the air (with --device)
///
/// The lead must be in its reach, and you must know its password: a desk device prints it at its
/// first start, a board shows it. Nobody who listens learns anything of password or key. The device
/// is a member from then on, and the next rollout brings it along.
#[derive(Debug, clap::Args)]
pub(crate) struct AdoptArgs {
    /// The new device's address, as `lockstep group list` shows it
    #[arg(value_name = "MAC")]
    id: DeviceId,

    /// A file with the new device's password; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    its_password_file: Option<PathBuf>,

    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn list(ui: &Ui, client: &Client) -> Result<(), CommandError> {
    // The lead looks around when it is asked; whoever it hears then is in its next answer.
    let _first: Value = client.get("/api/group")?;
    sleep(LOOK_AROUND);
    if ui.is_json() {
        return ui.json(&client.get::<Value>("/api/group")?);
    }
    let Group { members, in_reach, .. } = client.get("/api/group")?;
    let head = ["DEVICE", "ROLE", "LINK"].map(String::from).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(members.iter().map(row)).collect();
    ui.line(table(&rows))?;
    if in_reach.is_empty() {
        return Ok(());
    }
    ui.line("")?;
    ui.line("In reach, without this group's key (`lockstep group adopt MAC` takes one in):")?;
    let head = ["DEVICE", "CALLS ITSELF", "VERSION", "HEARD"].map(String::from).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(in_reach.iter().map(stranger_row)).collect();
    ui.line(table(&rows))
}

fn stranger_row(stranger: &Stranger) -> Vec<String> {
    vec![
        tame(&stranger.id),
        tame(&stranger.device_type),
        tame(stranger.version.as_deref().unwrap_or("-")),
        format!("{} s ago", stranger.heard_ms_ago / 1000),
    ]
}

pub(super) fn adopt(ui: &Ui, args: &AdoptArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    let password = match &args.its_password_file {
        Some(path) => files::read_password(path)?,
        None => ask_password(args.id)?,
    };
    let role = take_in(ui, &client, args.id, &password)?;
    ui.json(&json!({ "adopted": args.id.to_string(), "role": role }))
}

/// Has the lead give a device in reach the group's key, and waits until it is a member; returns its
/// role.
pub(crate) fn take_in(
    ui: &Ui,
    client: &Client,
    id: DeviceId,
    password: &str,
) -> Result<String, CommandError> {
    let id = id.to_string();
    let _begun: Value =
        client.post_json(&format!("/api/group/adopt/{id}"), &json!({ "password": password }))?;
    ui.note(format_args!("Asking {id} …"));
    let end = Instant::now() + ADOPTION_MAX;
    loop {
        let Group { members, adoption, .. } = client.get("/api/group")?;
        let adoption = adoption.filter(|adoption| adoption.id == id).unwrap_or_default();
        if let Some(problem) = adoption.problem {
            return Err(CommandError::failed(problem.message).hinted(problem.hint));
        }
        // Its first words with the key come a moment after it has taken it.
        let member = members.iter().find(|member| member.id == id);
        if let (Some(member), "adopted") = (member, adoption.state.as_str()) {
            let role = tame(&member.role);
            ui.line(format_args!("Adopted {id}: `{role}` belongs to the group"))?;
            return Ok(member.role.clone());
        }
        if Instant::now() >= end {
            return Err(CommandError::failed(format!(
                "{id} was given the key, and has not spoken with it since"
            ))
            .hinted("Is it still on? `lockstep group list` shows it when it does."));
        }
        sleep(ASK_EVERY);
    }
}

/// Asks for a device's password on the terminal.
pub(crate) fn ask_password(id: DeviceId) -> Result<String, CommandError> {
    rpassword::prompt_password(format!("Password of {id}: ")).map_err(|error| {
        CommandError::failed(format!("Cannot ask for the password of {id}"))
            .because(&error)
            .hinted("Give it in a file: --its-password-file FILE")
    })
}

/// An adoption takes 10 s at most, as the lead sees it, and the device's first words a few more.
const ADOPTION_MAX: Duration = Duration::from_secs(20);
/// Devices answer a lead that looks around at once.
const LOOK_AROUND: Duration = Duration::from_millis(300);
const ASK_EVERY: Duration = Duration::from_millis(200);

fn row(member: &GroupMember) -> Vec<String> {
    let role = &member.role;
    let link = match (member.lead, member.linked, member.heard_ms_ago) {
        (true, _, _) => "-".to_owned(),
        (false, true, _) if member.behind => "up, behind the group's release".to_owned(),
        (false, true, _) => "up".to_owned(),
        (false, false, Some(ms)) => format!("down, heard {} s ago", ms / 1000),
        (false, false, None) => "not heard since the lead's start".to_owned(),
    };
    let role = if member.lead { format!("{role} (lead)") } else { role.clone() };
    vec![tame(&member.id), tame(&role), link]
}

pub(super) fn remove(ui: &Ui, client: &Client, id: &str) -> Result<(), CommandError> {
    let id: DeviceId = id.parse().map_err(|error: lockstep_proto::id::DeviceIdError| {
        CommandError::usage(format!("`{id}` is no device's address"))
            .because(&error)
            .hinted("Such as 02:00:00:00:00:02; for a group of a fleet leave out --device.")
    })?;
    let id = id.to_string();
    client.post::<Value>(&format!("/api/group/remove/{id}"))?;
    ui.line(format_args!("Removed {id}: rollouts do not wait for it any more"))?;
    ui.json(&json!({ "removed": id }))
}
