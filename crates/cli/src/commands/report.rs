//! `lockstep report`.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::client::{Client, DeviceArgs};
use crate::error::CommandError;
use crate::files::{self, Existing, OTHER_FILE, Readers};
use crate::ui::Ui;

/// Save all that a device says of itself in one file, for a bug report
///
/// Versions, health, the rollout and past ones, members, log lines, configuration. Secrets are
/// left out, and no password is needed. What a device does not answer stands in the file with the
/// reason.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// The file
    #[arg(short, long, value_name = "FILE", default_value = "lockstep-report.json")]
    output: PathBuf,

    /// Write over an existing file
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn report(ui: &Ui, args: &ReportArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    // Without this one it is no device of ours, and there is nothing to save.
    let version: Value = client.get("/api/version")?;
    let mut answers = Map::from_iter([("version".to_owned(), version)]);
    let mut missing = Vec::new();
    for name in PARTS {
        let answer = ask(&client, name);
        if let Some(error) = answer.get("error") {
            missing.push(format!("{name}: {}", error.as_str().unwrap_or("not answered")));
        }
        answers.insert((*name).to_owned(), answer);
    }
    let file = json!({
        "report": 1,
        "made_by": concat!("lockstep ", env!("CARGO_PKG_VERSION")),
        "made_at": Timestamp::now().to_string(),
        "device": client.device(),
        "answers": answers,
    });
    let text = format!("{file:#}\n");
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    files::write(&args.output, &[text.as_bytes()], existing, Readers::Anybody)
        .map_err(|error| error.hinted(OTHER_FILE))?;
    let path = args.output.display();
    ui.line(format_args!("Saved what {} says of itself as {path}", client.device()))?;
    for line in &missing {
        ui.note(format_args!("Not in it: {line}"));
    }
    ui.json(&json!({ "file": path.to_string(), "missing": missing }))
}

/// The answer, or why there is none: half a report is better than none.
fn ask(client: &Client, name: &str) -> Value {
    match client.get(&format!("/api/{name}")) {
        Ok(answer) => answer,
        Err(error) if error.code() == Some("not-the-lead") => Value::Null,
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Calls that anybody may make.
const PARTS: &[&str] = &["health", "rollout", "group", "history", "logs", "config"];
