//! `lockstep release …`: releases made and looked into.

mod create;
mod show;
mod verify;

use std::fs::File;
use std::path::Path;

use clap::Subcommand;
use lockstep_proto::manifest::{MANIFEST_SIZE_BYTES_MAX, Manifest};
use lockstep_server::bundle::{Bundle, Problem};

use crate::error::CommandError;
use crate::ui::{Ui, listed};

/// Make releases, and look into them
#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    Create(Box<create::CreateArgs>),
    Verify(verify::VerifyArgs),
    Show(show::ShowArgs),
}

pub(super) fn release(ui: &Ui, command: &ReleaseCommand) -> Result<(), CommandError> {
    match command {
        ReleaseCommand::Create(args) => create::create(ui, args),
        ReleaseCommand::Verify(args) => verify::verify(ui, args),
        ReleaseCommand::Show(args) => show::show(ui, args),
    }
}

/// Reads a bundle file from front to back.
pub(super) fn open_bundle(ui: &Ui, path: &Path) -> Result<Bundle, CommandError> {
    let name = path.display();
    let failed = |error: &std::io::Error| {
        CommandError::failed(format!("Cannot read `{name}`")).because(error)
    };
    let mut file = File::open(path).map_err(|error| failed(&error))?;
    let total_bytes = file.metadata().map_err(|error| failed(&error))?.len();
    let bar = ui.bytes_bar(format!("Checking {name}"), total_bytes);
    let bundle = Bundle::read(&mut file, &|count| bar.inc(count));
    bar.finish_and_clear();
    bundle.map_err(|error| failed(&error))
}

/// Refuses a bundle for everything that is wrong with it; `name` begins the sentence.
pub(crate) fn refuse(name: &str, problems: Vec<Problem>) -> Result<(), CommandError> {
    if problems.is_empty() {
        return Ok(());
    }
    let refused = CommandError::failed(format!("{name} is not a good bundle"));
    Err(problems.into_iter().fold(refused, |refused, problem| {
        refused.detailed(problem.text, problem.hint.map(str::to_owned))
    }))
}

/// Says whose hashes of generations were left out of a manifest that was just made. Every list has
/// its place in a manifest of two roles; of many roles not all have.
pub(crate) fn warn_unlisted(ui: &Ui, manifest: &Manifest<'_>) {
    let unlisted = manifest.devices.iter().filter(|entry| entry.generations_sha256.is_none());
    let roles: Vec<_> = unlisted.map(|entry| format!("`{}`", entry.role)).collect();
    if !roles.is_empty() {
        ui.warn(format_args!(
            "a manifest of {MANIFEST_SIZE_BYTES_MAX} bytes has no room for the hashes of \
             generations of {}: over the air, a forged block costs them the whole image",
            listed(roles)
        ));
    }
}
