//! `lockstep revert`.

use serde_json::json;

use crate::client::DeviceArgs;
use crate::error::CommandError;
use crate::follow;
use crate::ui::Ui;

/// Go back to the release before this one
///
/// A rollout like any other: all devices go back together, or none does. Possible until something
/// else is staged, since staging needs the room in which the former release lies.
#[derive(Debug, clap::Args)]
pub(crate) struct RevertArgs {
    #[command(flatten)]
    device: DeviceArgs,

    /// Do not wait until the group is back
    #[arg(long)]
    detach: bool,
}

pub(super) fn revert(ui: &Ui, args: &RevertArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    let id = client.order("/api/rollout/revert")?.rollout;
    if args.detach {
        ui.line(format_args!("Rollout {id} takes the group back"))?;
        return ui.json(&json!({ "rollout": id }));
    }
    let conclusion = follow::follow(ui, &client, &id)?;
    ui.json(&conclusion.to_json())?;
    if conclusion.is_kept() {
        return ui.line(conclusion.sentence());
    }
    Err(CommandError::failed(conclusion.sentence())
        .hinted("Every device runs what it ran before. What went wrong: lockstep logs"))
}
