//! `lockstep group …`: who belongs to a group, and which groups a fleet has.
//!
//! With `--device` one device is asked about its own group (`device`), else the server about all of
//! the fleet's (`fleet`).

mod device;
mod fleet;

use clap::Subcommand;

use crate::error::CommandError;
use crate::fleet::{Place, PlaceArgs};
use crate::ui::Ui;

pub(crate) use device::{ask_password, take_in};

/// See and change groups: the one of a device, or all of a fleet
///
/// With --device (or LOCKSTEP_DEVICE) a device is asked about its own group: who belongs to it, and
/// who is in reach. Else the fleet's server is asked, which knows many groups by name. `adopt` is
/// for a device; `show`, `label`, `hours`, `mode`, `rename`, `enroll`, `abort` and `revert` are for
/// the server.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    List(ListArgs),
    Show(fleet::ShowArgs),
    Adopt(device::AdoptArgs),
    Enroll(fleet::EnrollArgs),
    Label(fleet::LabelArgs),
    Hours(fleet::HoursArgs),
    Mode(fleet::ModeArgs),
    Rename(fleet::RenameArgs),
    Abort(fleet::AbortArgs),
    Revert(fleet::RevertArgs),
    Remove(RemoveArgs),
}

/// List the members of a device's group and other devices in reach, or the groups of a fleet
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: fleet::FilterArgs,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Take a device that is gone for good off its group, or a group off a fleet
///
/// With --device: every rollout asks all members, and begins only when all have answered. A device
/// that was removed, and speaks again with the group's key, is a member again.
///
/// Else: the server forgets the group and its past, and lets its lead in no more. The group itself
/// stays as it is.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RemoveArgs {
    /// The device's address, or the group's name, as `lockstep group list` shows it
    #[arg(value_name = "MAC|GROUP")]
    which: String,

    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn group(ui: &Ui, command: GroupCommand) -> Result<(), CommandError> {
    match command {
        GroupCommand::List(ListArgs { filter, place }) => match place.open()? {
            Place::Device(client) => device::list(ui, &client),
            Place::Server(server) => fleet::list(ui, &server, &filter),
        },
        GroupCommand::Remove(RemoveArgs { which, place }) => match place.open()? {
            Place::Device(client) => device::remove(ui, &client, &which),
            Place::Server(server) => fleet::remove(ui, &server, &which),
        },
        GroupCommand::Adopt(args) => device::adopt(ui, &args),
        GroupCommand::Show(args) => fleet::show(ui, &args),
        GroupCommand::Enroll(args) => fleet::enroll(ui, &args),
        GroupCommand::Label(args) => fleet::label(ui, &args),
        GroupCommand::Hours(args) => fleet::hours(ui, &args),
        GroupCommand::Mode(args) => fleet::mode(ui, &args),
        GroupCommand::Rename(args) => fleet::rename(ui, &args),
        GroupCommand::Abort(args) => fleet::abort(ui, &args),
        GroupCommand::Revert(args) => fleet::revert(ui, &args),
    }
}

/// A moment as a server writes it, to the second.
pub(super) fn moment(text: &str) -> &str {
    text.get(..SECONDS_END).unwrap_or(text)
}

/// So much of `2026-02-03T14:30:00.123Z`.
const SECONDS_END: usize = 19;
