//! `lockstep keygen`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::CommandError;
use crate::keys::{self, PasswordArgs};
use crate::ui::Ui;

/// Make a key pair for signing releases
///
/// NAME.key signs and stays secret; NAME.pub is what devices trust and `release verify` takes. Both
/// are in minisign's format, so `minisign` can use them too. Keep a copy of NAME.key in a safe
/// place: devices that trust only this key take no release without it.
#[derive(Debug, clap::Args)]
pub(crate) struct KeygenArgs {
    /// Names of the two files, without their endings
    #[arg(long, value_name = "NAME", default_value = "lockstep")]
    out: PathBuf,

    /// Leave the secret key without a password: whoever reads the file can sign
    #[arg(long)]
    no_password: bool,

    #[command(flatten)]
    password: PasswordArgs,
}

pub(super) fn keygen(ui: &Ui, args: &KeygenArgs) -> Result<(), CommandError> {
    let (secret, public) = (with_ending(&args.out, "key"), with_ending(&args.out, "pub"));
    for path in [&secret, &public] {
        if path.try_exists().unwrap_or(true) {
            return Err(CommandError::failed(format!("`{}` is there already", path.display()))
                .hinted(
                    "A key that devices trust is worth keeping. Choose another name: --out NAME",
                ));
        }
    }
    let password = match args.no_password {
        true => None,
        false => Some(args.password.new_password()?),
    };
    let id = keys::generate(&secret, &public, password)?;
    let (secret, public) = (secret.display().to_string(), public.display().to_string());
    ui.line(format_args!("Made the key {id}"))?;
    ui.line(format_args!("  {secret}  signs releases: keep it secret, and keep a copy"))?;
    ui.line(format_args!("  {public}  verifies them: give it to every device"))?;
    ui.json(&json!({ "key_id": id.to_string(), "secret_key": secret, "public_key": public }))
}

fn with_ending(name: &Path, ending: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}
