//! `lockstep password`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::DeviceArgs;
use crate::error::CommandError;
use crate::files;
use crate::ui::Ui;

/// Change a device's password
///
/// The present one is needed, as for every order. A password that is lost is set anew with the
/// device in hand; see `docs/recovery.md`.
#[derive(Debug, clap::Args)]
pub(crate) struct PasswordArgs {
    /// A file with the new password; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,

    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn password(ui: &Ui, args: &PasswordArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    let password = match &args.new_password_file {
        Some(path) => files::read_password(path)?,
        None => ask()?,
    };
    let _changed: Value = client.put_json("/api/password", &json!({ "password": password }))?;
    ui.line(format_args!("{} has another password", client.device()))?;
    ui.json(&json!({ "changed": true }))
}

fn ask() -> Result<String, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::failed("Cannot ask for the new password")
            .because(&error)
            .hinted("Give it in a file: --new-password-file FILE")
    };
    let first = rpassword::prompt_password("New password: ").map_err(failed)?;
    let second = rpassword::prompt_password("Once more: ").map_err(failed)?;
    match first == second {
        true => Ok(first),
        false => Err(CommandError::failed("The two are not the same; nothing was changed")),
    }
}
