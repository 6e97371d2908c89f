//! `lockstep image`: images for desk devices, and flashes for boards.

mod merge;

use std::path::PathBuf;

use clap::Subcommand;
use lockstep_proto::descriptor::{Board, Descriptor, Product, Role};
use lockstep_proto::image::ChipId;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_sim::firmware::{Fault, FirmwareSpec};
use serde_json::json;

use crate::args;
use crate::commands::device::Kind;
use crate::error::CommandError;
use crate::facts;
use crate::files::{self, Existing, Readers};
use crate::ui::Ui;

/// Make firmware images for desk devices, and whole flashes for boards
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    Make(Box<MakeArgs>),
    Merge(Box<merge::MergeArgs>),
}

/// Make one firmware image
///
/// The image is a valid one for its chip, with a descriptor, but without a program: a desk device
/// runs the sample application for it, and shows the fault that the image orders. The same
/// arguments always give the same bytes.
#[derive(Debug, clap::Args)]
pub(crate) struct MakeArgs {
    /// What the device is for
    #[arg(long, value_name = "ROLE")]
    role: Role,

    /// The chip, for example esp32 or esp32s3 [default: esp32s3 for a receiver, else esp32]
    #[arg(long, value_parser = args::chip)]
    chip: Option<ChipId>,

    /// The version of the firmware
    #[arg(long, value_name = "VERSION")]
    version: ReleaseVersion,

    /// Where to write the image
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The hardware [default: that of a desk device of the role; with --chip the chip's name
    /// with `desk-` before it]
    #[arg(long)]
    board: Option<Board>,

    /// The system that it belongs to
    #[arg(long, value_name = "NAME", default_value = "desk")]
    product: Product,

    /// The protocols that it speaks, both ends included
    #[arg(long, value_name = "A..B", default_value = "1", value_parser = args::protocol)]
    protocol: ProtocolRange,

    /// The oldest version that it talks to
    #[arg(long, value_name = "VERSION", default_value = "0.0.0")]
    min_compatible: ReleaseVersion,

    /// The anti-rollback counter
    #[arg(long, value_name = "N", default_value_t = 0)]
    epoch: u32,

    /// The version of the configuration that it reads and writes
    #[arg(long, value_name = "N", default_value_t = 0)]
    config_schema: u16,

    /// The size of the file, rounded up to 16 bytes; 0x140000 and 1280K are the same
    #[arg(long, value_name = "BYTES", default_value = "256K", value_parser = args::bytes)]
    size: u32,

    /// What is wrong with it: none, crash-at-boot, crash-after=MS, never-healthy, deaf-radio, hang
    #[arg(long, default_value = "none")]
    fault: Fault,

    /// Another number gives another image that says the same about itself
    #[arg(long, value_name = "N", default_value_t = 0)]
    build: u64,

    /// Images of the same number and size share most of their bytes, as releases of one program
    /// do: to try patches [default: 0, which shares none]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    stock: u64,
}

pub(super) fn image(ui: &Ui, command: ImageCommand) -> Result<(), CommandError> {
    match command {
        ImageCommand::Make(args) => make(ui, *args),
        ImageCommand::Merge(args) => merge::merge(ui, &args),
    }
}

fn make(ui: &Ui, args: MakeArgs) -> Result<(), CommandError> {
    let usual = Kind::of(&args.role);
    let chip = args.chip.unwrap_or(usual.chip);
    let board = match (args.board, args.chip) {
        (Some(board), _) => board,
        // Another chip than that of a desk device: then the image is not for its board either.
        (None, Some(chip)) if chip != usual.chip => desk_board(chip)?,
        (None, _) => Board::new(usual.board).map_err(|error| {
            CommandError::failed(format!("`{}` is no board", usual.board)).because(&error)
        })?,
    };
    let descriptor = Descriptor {
        product: args.product,
        role: args.role,
        board,
        version: args.version,
        min_compatible: args.min_compatible,
        protocol: args.protocol,
        epoch: args.epoch,
        config_schema: args.config_schema,
    };
    let spec = FirmwareSpec {
        size_bytes: args.size,
        fault: args.fault,
        build: args.build,
        stock: args.stock,
        ..FirmwareSpec::new(descriptor, chip)
    };
    let bytes = spec.build().map_err(|error| {
        CommandError::failed("Cannot make the image")
            .because(&error)
            .hinted("Give another `--size`, for example `--size 256K`.")
    })?;
    let name = args.output.display().to_string();
    let image = facts::read_image(&bytes)
        .map_err(|error| CommandError::failed("Made an image that is none").because(&error))?;
    files::write(&args.output, &[&bytes], Existing::Replace, Readers::Anybody)?;
    let Descriptor { role, version, .. } = &spec.descriptor;
    ui.line(format_args!(
        "Wrote {name}: {role} {version} for {}, {} bytes, image {}",
        chip, image.size_bytes, image.image_hash
    ))?;
    ui.json(&json!({ "file": name, "image": facts::image_json(&image) }))
}

fn desk_board(chip: ChipId) -> Result<Board, CommandError> {
    let name = format!("desk-{chip}").to_lowercase().replace(' ', "-");
    Board::new(&name)
        .map_err(|error| CommandError::failed(format!("`{name}` is no board")).because(&error))
}
