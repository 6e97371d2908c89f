//! `lockstep release verify`.

use std::path::PathBuf;

use lockstep_proto::manifest::Trust;
use serde_json::json;

use super::{open_bundle, refuse};
use crate::error::CommandError;
use crate::keys;
use crate::ui::Ui;

/// Check the signatures of a bundle and everything in it
///
/// A bundle passes if enough of the given keys signed its manifest, and every image in it is whole
/// and is what the manifest says. What passes here passes the same checks on a device that trusts
/// these keys.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The bundle
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// A public key that must have signed; may be given several times
    #[arg(long = "key", value_name = "FILE.pub", required = true)]
    keys: Vec<PathBuf>,

    /// How many of the keys must have signed [default: all]
    #[arg(long, value_name = "K")]
    threshold: Option<u8>,
}

pub(super) fn verify(ui: &Ui, args: &VerifyArgs) -> Result<(), CommandError> {
    let trust = Trust::signed_by(keys::read_key_set(&args.keys, args.threshold)?);
    let bundle = open_bundle(ui, &args.file)?;
    let name = args.file.display().to_string();
    refuse(&format!("`{name}`"), bundle.problems(&trust))?;
    let manifest = bundle.verify(&trust).map_err(|error| {
        CommandError::failed(format!("`{name}` does not verify")).because(&error)
    })?;
    let system = manifest.system.map_or_else(String::new, |system| format!("{system} "));
    let (version, signed) = (manifest.system_version, manifest.signed());
    ui.line(format_args!("`{name}` is good: {system}{version}, {signed}"))?;
    ui.json(&json!({
        "file": name,
        "system": manifest.system.map(|system| system.to_string()),
        "version": version.to_string(),
        "signed": signed.to_string(),
        "manifest_sha256": manifest.digest().to_string(),
    }))
}
