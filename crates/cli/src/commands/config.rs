//! `lockstep config`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::DeviceArgs;
use crate::error::CommandError;
use crate::files::{self, Existing, OTHER_FILE, Readers};
use crate::ui::Ui;

/// Save the configuration of a device's application, or put one back
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    Backup(BackupArgs),
    Restore(RestoreArgs),
}

/// Save the configuration into a file, or print it
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The file; without it, the configuration is printed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// With the secrets; needs the password, and only you may read the file
    #[arg(long)]
    secrets: bool,

    /// Write over an existing file
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    device: DeviceArgs,
}

/// Put a saved configuration back; secrets that it lacks stay as they are
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn config(ui: &Ui, command: &ConfigCommand) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Backup(args) => backup(ui, args),
        ConfigCommand::Restore(args) => restore(ui, args),
    }
}

fn backup(ui: &Ui, args: &BackupArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    let config: Value = match args.secrets {
        true => client.get_with_password("/api/config?secrets=true")?,
        false => client.get("/api/config")?,
    };
    let Some(path) = &args.output else {
        ui.line(format_args!("{config:#}"))?;
        return ui.json(&config);
    };
    let text = format!("{config:#}\n");
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let readers = if args.secrets { Readers::Owner } else { Readers::Anybody };
    files::write(path, &[text.as_bytes()], existing, readers)
        .map_err(|error| error.hinted(OTHER_FILE))?;
    ui.line(format_args!("Saved the configuration of {} as {}", client.device(), path.display()))?;
    if !args.secrets {
        ui.note("Secrets are left out; --secrets saves them, too");
    }
    ui.json(&json!({ "file": path.display().to_string(), "secrets": args.secrets }))
}

fn restore(ui: &Ui, args: &RestoreArgs) -> Result<(), CommandError> {
    let bytes = files::read(&args.file, CONFIG_BYTES_MAX)?;
    let config: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let name = args.file.display();
        CommandError::failed(format!("`{name}` is not a configuration")).because(&error)
    })?;
    let client = args.device.client()?;
    let in_force: Value = client.put_json("/api/config", &config)?;
    ui.line(format_args!("Another configuration is in force on {}", client.device()))?;
    ui.json(&in_force)
}

/// A file may be indented, and so longer than what a device keeps.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;
