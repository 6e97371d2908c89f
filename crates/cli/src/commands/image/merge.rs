//! `lockstep image merge`: what a new board's flash holds, as one file.

use std::path::PathBuf;

use serde_json::json;

use crate::commands::flash::{NO_PASSWORD, bootloader_json, regions, say_net};
use crate::error::CommandError;
use crate::files::{self, Existing, Readers};
use crate::flashing::{self, Found, PartsArgs, Plan, Region, Wanted};
use crate::ui::Ui;

/// Make one file of all that a new board's flash holds
///
/// Bootloader, partition table with two slots and a record, firmware, keys, password, group and
/// configuration, as they lie in flash: for an emulator, for many boards, or for
/// `esptool write-flash 0 FILE`. `lockstep flash` writes the same to a board. Without a password
/// nobody is let in until one is set over the board's serial line.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    #[command(flatten)]
    parts: PartsArgs,

    /// Where to write the flash
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn merge(ui: &Ui, args: &MergeArgs) -> Result<(), CommandError> {
    let wanted = Wanted::read(&args.parts)?;
    let plan = flashing::plan(&wanted, &Found::default())?;
    let flash = merged(&plan);
    files::write(&args.output, &[&flash], Existing::Replace, Readers::Owner)?;
    say(ui, args, &plan, flash.len() >> 20)
}

/// All regions in their places, and nothing between them.
fn merged(plan: &Plan) -> Vec<u8> {
    let mut flash = vec![0xFF; plan.table.end().next_power_of_two() as usize];
    for Region { offset, bytes, .. } in &plan.regions {
        let place = flash.get_mut(*offset as usize..).unwrap_or_default();
        place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }
    flash
}

fn say(ui: &Ui, args: &MergeArgs, plan: &Plan, mebibytes: usize) -> Result<(), CommandError> {
    let name = args.output.display().to_string();
    ui.line(format_args!("Wrote {name}: a flash of {mebibytes} MiB for {}", plan.chip))?;
    ui.line(regions(plan))?;
    say_net(ui, plan);
    if plan.lacks_password {
        ui.note(NO_PASSWORD);
    }
    let partitions: Vec<_> = plan
        .table
        .entries()
        .iter()
        .map(|it| json!({ "label": it.label.as_str(), "offset": it.offset, "size": it.size_bytes }))
        .collect();
    ui.json(&json!({
        "file": name,
        "chip": plan.chip.to_string(),
        "bootloader": bootloader_json(plan),
        "regions": plan.regions.iter().map(Region::to_json).collect::<Vec<_>>(),
        "password": !plan.lacks_password,
        "partitions": partitions,
    }))
}
