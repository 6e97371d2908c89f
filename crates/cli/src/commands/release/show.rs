//! `lockstep release show`.

use std::path::PathBuf;

use lockstep_proto::manifest::Trust;

use super::{open_bundle, refuse};
use crate::describe::described_bundle;
use crate::error::CommandError;
use crate::facts::laid_out;
use crate::ui::Ui;

/// Print what is in a bundle
///
/// Signatures are not checked: see `lockstep release verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The bundle
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn show(ui: &Ui, args: &ShowArgs) -> Result<(), CommandError> {
    let bundle = open_bundle(ui, &args.file)?;
    let name = args.file.display().to_string();
    refuse(&format!("`{name}`"), bundle.problems(&Trust::anybody()))?;
    let described = described_bundle(&bundle, None);
    ui.line(format_args!("{name}: {}", described.title))?;
    ui.line(laid_out(&described.lines))?;
    ui.json(&described.to_json(&name))
}
