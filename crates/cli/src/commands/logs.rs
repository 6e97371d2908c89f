//! `lockstep logs`.

use serde_json::Value;

use crate::client::DeviceArgs;
use crate::client::api::Logs;
use crate::error::CommandError;
use crate::ui::{Ui, tame};

/// Print the recent log of a device
///
/// Times are seconds since the device's boot: it has no clock.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn logs(ui: &Ui, args: &LogsArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    if ui.is_json() {
        return ui.json(&client.get::<Value>("/api/logs")?);
    }
    let Logs { logs } = client.get("/api/logs")?;
    for line in &logs {
        let (seconds, ms) = (line.uptime_ms / 1000, line.uptime_ms % 1000);
        let text = tame(&line.text);
        ui.line(format_args!("{seconds:6}.{ms:03}  {:8} {text}", tame(&line.level)))?;
    }
    Ok(())
}
