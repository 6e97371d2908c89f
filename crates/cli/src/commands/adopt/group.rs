//! Behind the updates: one group, and a lead that has seen its release on every device.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lockstep_proto::id::DeviceId;
use serde_json::{Value, json};

use super::offer::Offer;
use super::survey::{Found, Part, Survey, look_patiently};
use crate::client::api::{Group, Version};
use crate::client::{Client, ClientError, Watch};
use crate::commands::group::{ask_password, take_in};
use crate::commands::update::deliver;
use crate::error::CommandError;
use crate::files;
use crate::follow;
use crate::ui::{Ui, tame};

/// What lets the two become a group
#[derive(Debug, clap::Args)]
pub(crate) struct GroupArgs {
    /// A file with the password that the lead has with its new firmware
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,

    /// That password; others on this machine can see it, so better use the environment variable
    /// LOCKSTEP_PASSWORD
    #[arg(long, value_name = "PASSWORD", env = "LOCKSTEP_PASSWORD", hide_env_values = true)]
    password: Option<String>,

    /// A file with the password that the other device has with its new firmware; without it, it is
    /// asked for
    #[arg(long, value_name = "FILE")]
    its_password_file: Option<PathBuf>,
}

/// Makes a group of the two, if both are there, and has the lead see the release on both.
pub(super) fn join(
    ui: &Ui,
    args: &GroupArgs,
    survey: &Survey,
    offer: &Offer,
) -> Result<Value, CommandError> {
    let (Some(receiver), Some(transmitter)) =
        (survey.address(Part::Receiver), survey.address(Part::Transmitter))
    else {
        ui.line("Name both devices, and they become a group: run this again with the other one")?;
        return Ok(Value::Null);
    };
    let mut devices = Vec::new();
    for (part, address) in [(Part::Receiver, receiver), (Part::Transmitter, transmitter)] {
        match look_patiently(address) {
            Found::Ours(version) => devices.push((part, address, version)),
            found => {
                return Err(CommandError::failed(format!(
                    "The {part} at `{address}` does not run Lockstep, but {}",
                    found.runs()
                )));
            }
        }
    }
    let Some((lead_part, lead_at, lead)) = devices.iter().find(|(_, _, version)| version.lead)
    else {
        return Err(CommandError::failed("Neither of the two leads a group").hinted(
            "Give the group's key to the one that is to lead, by cable (docs/adopt.md), \
                     then run the same command again.",
        ));
    };
    let Some((part, _, other)) = devices.iter().find(|(part, ..)| part != lead_part) else {
        return Ok(Value::Null);
    };
    let password = match &args.password_file {
        Some(path) => Some(files::read_password(path)?),
        None => args.password.clone(),
    };
    let client = Client::new(lead_at, password)?;
    let id = id_of(other)?;
    give_key(ui, args, &client, *part, id)?;
    let said = see_release(ui, &client, lead, other, offer)?;
    Ok(json!({ "lead": lead.id, "member": id.to_string(), "release": said }))
}

fn id_of(version: &Version) -> Result<DeviceId, CommandError> {
    let text = version.id.as_deref().unwrap_or_default();
    text.parse().map_err(|error: lockstep_proto::id::DeviceIdError| {
        CommandError::failed(format!("A device calls itself `{}`", tame(text))).because(&error)
    })
}

/// The key, unless it has it, and a link between the two.
fn give_key(
    ui: &Ui,
    args: &GroupArgs,
    client: &Client,
    part: Part,
    id: DeviceId,
) -> Result<(), CommandError> {
    let text = id.to_string();
    let mut end = Instant::now() + IN_REACH_MAX;
    let mut asked = false;
    loop {
        // The lead looks around when it is asked; whoever it hears then is in its next answer.
        let Group { members, in_reach, .. } = client.get("/api/group")?;
        let member = members.iter().find(|member| member.id == text);
        if member.is_some_and(|member| member.linked) {
            return Ok(());
        }
        if member.is_none() && !asked && in_reach.iter().any(|it| it.id == text) {
            let password = match &args.its_password_file {
                Some(path) => files::read_password(path)?,
                None => ask_password(id)?,
            };
            take_in(ui, client, id, &password)?;
            asked = true;
            // What a person took to type is not the link's time.
            end = Instant::now() + IN_REACH_MAX;
            continue;
        }
        if Instant::now() >= end {
            let role = client.device();
            return Err(CommandError::failed(format!(
                "The lead at `{role}` does not hear the {part} {text}"
            ))
            .hinted(
                "Both run Lockstep. Are they in reach of each other, on one channel? Then run \
                     the same command again.",
            ));
        }
        sleep(ASK_EVERY);
    }
}

/// The lead is handed the release: it asks every device, by hash, whether it runs it. If one does
/// not, such as one that was flashed by cable with something else, this is its first rollout.
fn see_release(
    ui: &Ui,
    client: &Client,
    lead: &Version,
    other: &Version,
    offer: &Offer,
) -> Result<&'static str, CommandError> {
    let release = offer.version.to_string();
    let runs = |version: &Version| {
        let part = [Part::Receiver, Part::Transmitter]
            .into_iter()
            .find(|part| version.role.as_deref() == Some(part.name()));
        let new = part.and_then(|part| offer.of(part));
        new.is_none_or(|new| new.image.to_string() == version.image)
    };
    if !(runs(lead) && runs(other)) {
        let id = deliver(ui, client, &Arc::new(offer.bytes.clone()), &release, false)?;
        return kept(ui, client, &id);
    }
    match client.upload(&offer.bytes, None, false, &Arc::new(Watch::default())) {
        Err(ClientError::Refused { refused, .. })
            if refused.error.refusals.iter().any(|it| it.code == NOTHING_TO_DO) =>
        {
            ui.line(format_args!("The lead has asked both: they are on release {release}"))?;
            Ok("seen")
        }
        Err(error) => Err(error.into()),
        Ok(accepted) => kept(ui, client, &accepted.rollout),
    }
}

/// The group's first rollout, to its end.
fn kept(ui: &Ui, client: &Client, rollout: &str) -> Result<&'static str, CommandError> {
    let conclusion = follow::follow(ui, client, rollout)?;
    if !conclusion.is_kept() {
        return Err(CommandError::failed(conclusion.sentence()).hinted(
            "Every device runs what it ran before, and both run Lockstep. What went wrong: \
                 lockstep logs",
        ));
    }
    ui.line(conclusion.sentence())?;
    Ok("kept")
}

/// What a lead says of a release that every device runs.
const NOTHING_TO_DO: &str = "nothing-to-do";
/// Devices announce themselves every ten seconds.
const IN_REACH_MAX: Duration = Duration::from_secs(40);
const ASK_EVERY: Duration = Duration::from_millis(300);
