//! `lockstep history`.

use serde_json::Value;

use crate::client::DeviceArgs;
use crate::client::api::{History, Outcome};
use crate::error::CommandError;
use crate::ui::{Ui, table, tame};

/// List past rollouts and how they ended
///
/// The newest comes first.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn history(ui: &Ui, args: &HistoryArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    if ui.is_json() {
        return ui.json(&client.get::<Value>("/api/history")?);
    }
    let History { history } = client.get("/api/history")?;
    if history.is_empty() {
        return ui.line("No rollout has ended yet");
    }
    let head =
        ["ROLLOUT", "KIND", "FROM", "TO", "VERDICT", "PATCHED", "CAUSE"].map(String::from).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(history.iter().map(row)).collect();
    ui.line(table(&rows))
}

fn row(outcome: &Outcome) -> Vec<String> {
    let cause = outcome.cause.as_ref().map_or("", |cause| &cause.text);
    let before = outcome.release_before.as_deref().unwrap_or("-");
    let patched = patched(outcome);
    let (rollout, kind, release) = (&outcome.rollout, &outcome.kind, &outcome.release);
    let cells = [rollout, kind, before, release, &outcome.verdict, &patched, cause];
    cells.map(tame).to_vec()
}

/// How many devices took patches, and why one did not.
fn patched(outcome: &Outcome) -> String {
    match (outcome.patched, &outcome.patch_refusal) {
        (0, None) => "-".to_owned(),
        (patched, None) => patched.to_string(),
        (patched, Some(why)) => format!("{patched}, {} refused: {why}", outcome.patch_refused),
    }
}
