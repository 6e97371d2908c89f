//! `lockstep adopt`: from the original project's firmware to the first release of ours.
//!
//! Looked at first, then said, then done: nothing is written before every device that was named has
//! answered, the order is known, and somebody has agreed. Where it stands is asked of the devices
//! each time, and kept nowhere: the same command goes on where it, or another one, ended.

mod group;
mod offer;
mod old;
mod plan;
mod survey;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use self::group::GroupArgs;
use self::offer::Offer;
use self::plan::{Plan, Step};
use self::survey::{Found, Part, Range, Survey};
use crate::args;
use crate::error::CommandError;
use crate::ui::{Ui, tame};

/// Bring devices of the original project to Lockstep
///
/// It is their last update of the old kind. Finds out what runs, shows it, and says in which order
/// the two can be updated so that they go on talking; then it posts the images, one device after
/// the other, and goes on only when the first runs the new firmware. At the end the lead has given
/// the other the group's key, and has seen that both run the release.
///
/// The old firmware asks for no password and checks little, so it is done here: that the image is
/// whole, is of Lockstep, for that part, and fits. It may be run again at any time, and goes on
/// from what the devices run then.
///   lockstep adopt new-1.1.0.lockstep --transmitter 192.168.1.30 --receiver 192.168.1.20
///   lockstep adopt --find 192.168.1.0/24
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct AdoptArgs {
    /// The release that both come to; without one devices are only looked at
    #[arg(value_name = "BUNDLE")]
    bundle: Option<PathBuf>,

    /// In place of a bundle: the firmware of the transmitter
    #[arg(long, value_name = "FILE", conflicts_with = "bundle", help_heading = "Images")]
    transmitter_image: Option<PathBuf>,

    /// In place of a bundle: the firmware of the receiver
    #[arg(long, value_name = "FILE", conflicts_with = "bundle", help_heading = "Images")]
    receiver_image: Option<PathBuf>,

    /// The size of the old devices' slots, which they do not tell [default: that of Arduino's
    /// default.csv, 0x140000]
    #[arg(long, value_name = "BYTES", value_parser = args::bytes, help_heading = "Images")]
    slot: Option<u32>,

    /// The transmitter's address, such as 192.168.1.30
    #[arg(long, value_name = "ADDRESS", help_heading = "Devices")]
    transmitter: Option<String>,

    /// The receiver's address
    #[arg(long, value_name = "ADDRESS", help_heading = "Devices")]
    receiver: Option<String>,

    /// Ask every address of this network, 256 at most: 192.168.1.0/24
    #[arg(long, value_name = "NETWORK", help_heading = "Devices")]
    find: Option<Range>,

    /// The port of the devices' pages that --find asks
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 80,
        requires = "find",
        help_heading = "Devices"
    )]
    port: u16,

    #[command(flatten, next_help_heading = "Devices")]
    group: GroupArgs,

    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not ask before anything is written
    #[arg(long)]
    yes: bool,

    /// Go on although the two will not talk to each other until both are updated
    #[arg(long)]
    allow_gap: bool,

    /// How long a device may take to come back with the new firmware
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
}

pub(super) fn adopt(ui: &Ui, args: &AdoptArgs) -> Result<(), CommandError> {
    if args.transmitter.is_none() && args.receiver.is_none() && args.find.is_none() {
        return Err(CommandError::usage("No device is named")
            .hinted("Name them with --transmitter and --receiver, or look around with --find."));
    }
    let slot_bytes = args.slot.unwrap_or(SLOT_BYTES);
    let offer = Offer::open(ui, args)?;
    let named = [(Part::Transmitter, &args.transmitter), (Part::Receiver, &args.receiver)];
    let named = named.into_iter().filter_map(|(part, it)| Some((part, it.clone()?))).collect();
    let survey = Survey::make(ui, named, args.find, args.port)?;
    ui.line(survey.table(offer.as_ref()))?;
    let Some(offer) = offer else { return ui.json(&json!({ "devices": survey.to_json() })) };
    let plan = Plan::make(&survey, &offer, slot_bytes)?;
    for line in plan.lines(&offer, slot_bytes) {
        ui.line(line)?;
    }
    if args.dry_run {
        ui.line("Nothing was changed.")?;
        return ui.json(&json!({
            "devices": survey.to_json(), "plan": plan.to_json(), "dry_run": true,
        }));
    }
    if let (Some(gap), false) = (&plan.gap, args.allow_gap) {
        return Err(CommandError::failed(format!("The two would not talk in between: {gap}"))
            .hinted(
                "Nothing was written. Build a release that talks to what runs now, or accept \
                     the gap with --allow-gap.",
            ));
    }
    if !plan.steps.is_empty() {
        none_on_trial(&survey)?;
        agree(args)?;
    }
    let done = perform(ui, args, &survey, &offer, &plan)?;
    let joined = group::join(ui, &args.group, &survey, &offer)?;
    ui.json(&json!({ "updated": done, "group": joined, "release": offer.version.to_string() }))
}

/// What is on trial may go back: the next step would be decided from what is not true then.
fn none_on_trial(survey: &Survey) -> Result<(), CommandError> {
    let on_trial = survey.parts().find_map(|(part, address)| match survey.found(part) {
        Some(Found::Ours(version)) if version.on_trial => Some((part, address, version)),
        _ => None,
    });
    let Some((part, address, version)) = on_trial else { return Ok(()) };
    Err(CommandError::failed(format!(
        "The {part} at `{address}` runs {} on trial",
        shown(&version.version)
    ))
    .hinted(
        "Nothing was written. `/api/health` on it says what it lacks; within ten minutes it keeps \
             its firmware or goes back. Then run the same command again.",
    ))
}

/// Somebody has seen what will happen.
fn agree(args: &AdoptArgs) -> Result<(), CommandError> {
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::failed("Nobody is there to agree")
            .hinted("Nothing was written. Look at it with --dry-run, then say --yes."));
    }
    eprint!("Go on? [y/N] ");
    // If it cannot be shown, it can be answered all the same.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CommandError::failed("Nothing was written")),
    }
}

/// One step after the other; returns the parts that were updated.
fn perform(
    ui: &Ui,
    args: &AdoptArgs,
    survey: &Survey,
    offer: &Offer,
    plan: &Plan,
) -> Result<Vec<Value>, CommandError> {
    let mut done = Vec::new();
    for step in &plan.steps {
        let part = step.part();
        let (Some(new), Some(address)) = (offer.of(part), survey.address(part)) else { continue };
        match step {
            Step::Cable(_) => {
                return Err(stopped(
                    survey,
                    CommandError::failed(format!(
                        "The {part} at `{address}` cannot take an image over the network"
                    ))
                    .hinted(format!(
                        "Flash `{}` by cable once (docs/adopt.md), then run the same command \
                         again.",
                        new.name
                    )),
                ));
            }
            Step::Network(_, way) => {
                let _one_at_a_time = lock(address)?;
                let limit = Duration::from_secs(args.wait);
                old::update(ui, address, part, *way, new, limit)
                    .map_err(|error| stopped(survey, error))?;
                ui.line(format_args!("The {part} runs {}", new.version))?;
                done.push(json!({ "part": part.name(), "address": address }));
            }
        }
    }
    Ok(done)
}

/// An error in the middle, with what each device runs now.
fn stopped(survey: &Survey, error: CommandError) -> CommandError {
    survey.parts().fold(error, |error, (part, address)| {
        let text = match survey::look_patiently(address) {
            Found::Nobody(_) => format!("the {part} at `{address}` does not answer"),
            found => format!("the {part} at `{address}` runs {}", found.runs()),
        };
        error.detailed(text, None)
    })
}

/// Two runs on this machine do not send to one device at once; the system frees it with the
/// process.
fn lock(address: &str) -> Result<File, CommandError> {
    let host = address.trim_start_matches("http://").trim_end_matches('/');
    let host = host.strip_suffix(":80").unwrap_or(host);
    let plain: String =
        host.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
    // A file that another person has left may not be opened by this one.
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    let user: String = user.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = std::env::temp_dir().join(format!("lockstep-adopt-{user}-{plain}.lock"));
    let failed = |error: &dyn std::error::Error| {
        CommandError::failed(format!("Cannot use `{}`", path.display())).because(error)
    };
    let file = File::options().read(true).append(true).create(true).open(&path);
    let file = file.map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(CommandError::failed(format!("Another `lockstep adopt` is about `{address}`"))
                .hinted("Nothing was written. Wait for its end."))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// What a device calls itself, for people.
fn shown(text: &str) -> String {
    let text = tame(text);
    if text.trim().is_empty() { "-".to_owned() } else { text }
}

/// A slot of Arduino's default.csv, which both boards of the original project were built with.
const SLOT_BYTES: u32 = 0x14_0000;
