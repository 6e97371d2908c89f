//! `lockstep inspect`.

use std::path::PathBuf;

use serde_json::Value;

use crate::describe::describe;
use crate::error::CommandError;
use crate::facts::laid_out;
use crate::keys;
use crate::ui::Ui;

/// Say what a file is and what is wrong with it
///
/// Takes firmware images, bundles, manifests, keys, signatures, partition tables, and copies of a
/// whole flash. Exits with 1 if something is wrong with one of them.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// A public key that must have signed the bundles; may be given several times
    #[arg(long = "key", value_name = "FILE.pub")]
    keys: Vec<PathBuf>,

    /// How many of the keys must have signed [default: all]
    #[arg(long, value_name = "K", requires = "keys")]
    threshold: Option<u8>,
}

pub(super) fn inspect(ui: &Ui, args: &InspectArgs) -> Result<(), CommandError> {
    let keys = match args.keys.as_slice() {
        [] => None,
        paths => Some(keys::read_key_set(paths, args.threshold)?),
    };
    let mut is_fine = true;
    let mut all = Vec::new();
    for path in &args.files {
        let file = path.display().to_string();
        let described = describe(ui, path, keys.as_ref())?;
        ui.line(format_args!("{file}: {}", described.title))?;
        if !described.lines.is_empty() {
            ui.line(laid_out(&described.lines))?;
        }
        for problem in &described.problems {
            ui.line(format_args!("  Wrong: {}", problem.text))?;
            if let Some(hint) = problem.hint {
                ui.line(format_args!("  Hint: {hint}"))?;
            }
        }
        is_fine &= described.problems.is_empty();
        all.push(described.to_json(&file));
    }
    ui.json(&Value::from(all))?;
    if is_fine { Ok(()) } else { Err(CommandError::said()) }
}
