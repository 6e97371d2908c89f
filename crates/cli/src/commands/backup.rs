//! `lockstep backup` and `lockstep restore`.

use std::path::PathBuf;

use lockstep_server::backup::{self, BackupError, Summary};
use serde_json::json;

use crate::error::CommandError;
use crate::ui::Ui;

/// Back up a server's folder into one file
///
/// The server may run meanwhile. The file holds the database and every release's bundle, and with
/// them the secrets of nobody: of passwords and tokens there are only hashes. With PostgreSQL or S3
/// use their own tools (`pg_dump`, a copy of the bucket).
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The server's folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The file to write, which must not be there yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Put a backup back into an empty folder
///
/// Everything is read and looked at first; a file that was cut off or damaged changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The folder, which must not be there yet, or be empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) fn backup(ui: &Ui, args: &BackupArgs) -> Result<(), CommandError> {
    let made = run(backup::back_up(&args.data, &args.file), "Nothing was backed up")?;
    let file = args.file.display().to_string();
    ui.line(format_args!("Wrote {file}: {}", described(&made)))?;
    ui.json(&json!({
        "file": file, "groups": made.groups, "releases": made.releases,
        "size_bytes": made.size_bytes,
    }))
}

pub(super) fn restore(ui: &Ui, args: &RestoreArgs) -> Result<(), CommandError> {
    let restored = run(backup::restore(&args.file, &args.data), "Nothing was restored")?;
    let data = args.data.display().to_string();
    ui.line(format_args!("Restored {data}: {}", described(&restored)))?;
    ui.line(format_args!("Start it: lockstep serve --data {data}"))?;
    ui.json(&json!({ "data": data, "groups": restored.groups, "releases": restored.releases }))
}

fn described(summary: &Summary) -> String {
    let Summary { groups, releases, size_bytes } = summary;
    format!("{groups} groups, {releases} releases, {size_bytes} bytes")
}

fn run<T>(
    work: impl Future<Output = Result<T, BackupError>>,
    what: &str,
) -> Result<T, CommandError> {
    let failed = |error: &dyn std::error::Error| CommandError::failed(what).because(error);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(&error))?;
    runtime.block_on(work).map_err(|error| {
        let refused = failed(&error);
        match &error {
            BackupError::NoData(_) => refused.hinted("Name the folder of `lockstep serve --data`."),
            BackupError::Exists(_) => refused.hinted("Name another one, or take it away first."),
            BackupError::Bundle { .. } => {
                refused.hinted("Upload that release again, or take an older backup.")
            }
            BackupError::Strange(_) => refused.hinted("Was it made by `lockstep backup`?"),
            BackupError::File { .. } | BackupError::Store(_) => refused,
        }
    })
}
