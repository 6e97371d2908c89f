//! `lockstep abort`.

use crate::client::DeviceArgs;
use crate::error::CommandError;
use crate::follow;
use crate::ui::Ui;
use serde_json::json;

/// Stop the running rollout; the group goes back
///
/// Possible until the verdict is there. A release that was kept is left with `lockstep revert`.
#[derive(Debug, clap::Args)]
pub(crate) struct AbortArgs {
    #[command(flatten)]
    device: DeviceArgs,

    /// Do not wait until every member has gone back
    #[arg(long)]
    detach: bool,
}

pub(super) fn abort(ui: &Ui, args: &AbortArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    let id = client.order("/api/rollout/abort")?.rollout;
    if args.detach {
        ui.line(format_args!("Rollout {id} is being stopped"))?;
        return ui.json(&json!({ "rollout": id }));
    }
    let conclusion = follow::follow(ui, &client, &id)?;
    ui.json(&conclusion.to_json())?;
    if conclusion.is_kept() {
        return Err(CommandError::failed(format!("Too late. {}", conclusion.sentence()))
            .hinted("To go back all the same: lockstep revert"));
    }
    ui.line(format_args!("Stopped: every device runs what it ran before rollout {id}"))
}
