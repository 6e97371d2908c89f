//! `lockstep bench`.

use std::path::PathBuf;

use lockstep_sim::channel::{Loss, Rate, Rival, Row, Setup, Table, svg};
use serde_json::{Value, json};

use crate::error::CommandError;
use crate::ui::{Ui, table};

/// Measure what this program can do
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BenchCommand {
    Air(AirArgs),
}

/// How long an image takes over ESP-NOW, in a model of the channel
///
/// Real members and the real lead send real frames, in virtual time, through a channel that takes
/// as long as a radio does and loses what a radio loses. Beside it: the least time that is
/// possible, and what other ways of doing it take in the same channel. Without --members and
/// --loss it is a table of both, and of both versions of ESP-NOW, which takes some ten seconds.
#[derive(Debug, clap::Args)]
pub(crate) struct AirArgs {
    /// Members that get the image
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    members: Option<u16>,

    /// Share of the frames that each member loses, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=60))]
    loss: Option<u8>,

    /// Lose them in bursts of so many frames on average
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u16).range(1..=1000))]
    bursts: Option<u16>,

    /// Size of the image in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1_400_000,
        value_parser = clap::value_parser!(u32).range(20_000..=8_000_000))]
    size: u32,

    /// How bits are sent: 1M, 2M, 11M, 6M, 24M, 54M, MCS0, LR250K
    #[arg(long, value_name = "RATE", default_value = "1M", value_parser = rate)]
    rate: Rate,

    /// The version of ESP-NOW that all radios speak: 1 carries 250 bytes in a frame, 2 up to 1,470
    /// [default: first one, then the other]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(1..=2))]
    esp_now: Option<u8>,

    /// Each device sends 50 bytes of application data so often, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=60_000))]
    data_every: u32,

    /// Another seed is another run of bad luck
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,

    /// Leave out what others take
    #[arg(long)]
    alone: bool,

    /// Draw a picture of the table into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn rate(text: &str) -> Result<Rate, String> {
    let found = Rate::ALL.into_iter().find(|rate| rate.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let names = Rate::ALL.map(Rate::as_str).join(", ");
        format!("there is no rate `{text}`; there are {names}")
    })
}

pub(super) fn bench(ui: &Ui, command: &BenchCommand) -> Result<(), CommandError> {
    match command {
        BenchCommand::Air(args) => air(ui, args),
    }
}

fn air(ui: &Ui, args: &AirArgs) -> Result<(), CommandError> {
    let setups = setups(args);
    let bar = ui.spinner(String::from("Transfers run"));
    let rows = setups.iter().map(|setup| {
        let share = setup.loss.share() * 100.0;
        bar.set_message(format!("{} members, {share:.0} % lost", setup.members));
        Row::run(*setup, !args.alone)
    });
    let table_of = Table { rows: rows.collect() };
    bar.finish_and_clear();
    ui.line(table(&lines(&table_of)))?;
    ui.line(format_args!(
        "{} bytes at {}; × is how many times the least possible for blocks of that size it took",
        args.size, args.rate
    ))?;
    if args.data_every > 0 {
        let (due, heard) = table_of
            .rows
            .iter()
            .fold((0, 0), |(due, heard), row| (due + row.ours.data.0, heard + row.ours.data.1));
        ui.line(format_args!("Application data meanwhile: {heard} of {due} frames heard"))?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, svg(&table_of)).map_err(|error| {
            CommandError::failed(format!("Could not write `{}`: {error}", path.display()))
        })?;
        ui.line(format_args!("Picture: {}", path.display()))?;
    }
    ui.json(&json!({ "rows": table_of.rows.iter().map(row_json).collect::<Vec<_>>() }))
}

fn setups(args: &AirArgs) -> Vec<Setup> {
    let versions = [1, 2].into_iter().filter(|it| args.esp_now.is_none_or(|only| only == *it));
    let mut setups: Vec<Setup> = versions
        .flat_map(|version| {
            let mut setups = Table::setups(args.size, args.rate, version > 1, args.seed);
            if args.members.is_some() || args.loss.is_some() {
                setups.truncate(1);
            }
            setups
        })
        .collect();
    for setup in &mut setups {
        setup.members = args.members.map_or(setup.members, usize::from);
        let share = args.loss.map_or(setup.loss.share(), |percent| f64::from(percent) / 100.0);
        setup.loss = match args.bursts {
            Some(frames) => Loss::Bursts { share, mean_frames: frames.into() },
            None => Loss::Independent { share },
        };
        setup.data_every_ms = args.data_every;
    }
    setups
}

fn lines(table: &Table) -> Vec<Vec<String>> {
    let mut head: Vec<String> =
        ["ESP-NOW", "MEMBERS", "LOST", "BLOCKS", "LEAST", "LOCKSTEP", "×", "kB/s"]
            .map(String::from)
            .to_vec();
    if table.rows.iter().any(|row| !row.rivals.is_empty()) {
        head.extend(Rival::ALL.map(|rival| rival.as_str().to_owned()));
    }
    let row = |row: &Row| {
        let mut cells = vec![
            if row.setup.takes_large { "v2" } else { "v1" }.to_owned(),
            row.setup.members.to_string(),
            format!("{:.0} %", row.setup.loss.share() * 100.0),
            format!("{} B", row.ours.shape.block_bytes()),
            format!("{:.1} s", row.bound_s),
            format!("{:.1} s", row.ours.transfer_s),
            format!("{:.2}", row.ratio()),
            format!("{:.1}", row.bytes_per_s() / 1000.0),
        ];
        cells.extend(row.rivals.iter().map(|cell| format!("{:.1} s", cell.seconds)));
        cells
    };
    [head].into_iter().chain(table.rows.iter().map(row)).collect()
}

fn row_json(row: &Row) -> Value {
    let rivals: serde_json::Map<String, Value> = row
        .rivals
        .iter()
        .map(|cell| (cell.rival.as_str().to_owned(), json!(cell.seconds)))
        .collect();
    json!({
        "esp_now": if row.setup.takes_large { 2 } else { 1 },
        "block_bytes": row.ours.shape.block_bytes(),
        "members": row.setup.members,
        "loss": row.setup.loss.share(),
        "least_s": row.bound_s,
        "transfer_s": row.ours.transfer_s,
        "ratio": row.ratio(),
        "prepare_s": row.ours.prepare_s,
        "frames": row.ours.frames,
        "repair_frames": row.ours.repairs,
        "control_frames": row.ours.control_frames,
        "collisions": row.ours.collisions,
        "data_due": row.ours.data.0,
        "data_heard": row.ours.data.1,
        "others_s": rivals,
    })
}
