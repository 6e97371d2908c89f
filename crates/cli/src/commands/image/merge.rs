//! `lockstep image merge`: what a new board's flash holds, as one file.

use std::path::{Path, PathBuf};

use lockstep_proto::image::{ChipId, ImageHeader};
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::{PartitionTable, TABLE_OFFSET};
use lockstep_sim::board::{self, KeysAtStart, Provision};
use lockstep_sim::flash::{CAPACITY_DEFAULT_BYTES, MemFlash, write_erased};
use serde_json::json;

use crate::commands::device::read_password;
use crate::error::CommandError;
use crate::facts;
use crate::files::{self, Existing, Readers};
use crate::keys;
use crate::ui::Ui;

/// Make one file of all that a new board's flash holds
///
/// Bootloader, partition table with two slots and a record, firmware, keys and password, as they
/// lie in a flash of 4 MiB: for an emulator, or for `esptool write-flash 0 FILE`. Without a
/// password nobody is let in until one is set over the board's serial line.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// The firmware, an image for the board's chip
    #[arg(long, value_name = "FILE")]
    app: PathBuf,

    /// The second stage bootloader of ESP-IDF for the same chip; best one that was built with
    /// rollback
    #[arg(long, value_name = "FILE")]
    bootloader: Option<PathBuf>,

    /// A public key whose releases the board takes; again for more [default: it takes anybody's]
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,

    /// How many of the keys must sign [default: all]
    #[arg(long, value_name = "K", requires = "keys")]
    threshold: Option<u8>,

    /// A file with the board's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Where to write the flash
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn merge(ui: &Ui, args: &MergeArgs) -> Result<(), CommandError> {
    let app = files::read(&args.app, CAPACITY_DEFAULT_BYTES.into())?;
    let image = facts::read_image(&app).map_err(|error| {
        CommandError::failed(format!("`{}` is no firmware", args.app.display()))
            .because(&error)
            .hinted("Make it with `esptool elf2image`, or with your build tool.")
    })?;
    let chip = image.header.chip;
    let trust = match args.keys.as_slice() {
        [] => Trust::anybody(),
        paths => Trust::signed_by(keys::read_key_set(paths, args.threshold)?),
    };
    let password = args.password_file.as_deref().map(read_password).transpose()?;
    let provision = Provision {
        firmware: app,
        announced: None,
        password: None,
        trust,
        keys: KeysAtStart::Stay,
    };
    let mut flash = MemFlash::new(CAPACITY_DEFAULT_BYTES);
    board::make(&provision, password.as_deref(), chip, &mut flash)
        .map_err(|error| CommandError::failed("Cannot make the flash").because(&error))?;
    if let Some(path) = &args.bootloader {
        let bootloader = read_bootloader(path, chip)?;
        write_erased(&mut flash, bootloader_offset(chip), &bootloader)
            .map_err(|error| CommandError::failed("Cannot make the flash").because(&error))?;
    }
    files::write(&args.output, &[&flash.bytes], Existing::Replace, Readers::Owner)?;
    say(ui, args, chip)
}

fn say(ui: &Ui, args: &MergeArgs, chip: ChipId) -> Result<(), CommandError> {
    let name = args.output.display().to_string();
    ui.line(format_args!("Wrote {name}: a flash of 4 MiB for {chip}"))?;
    if args.bootloader.is_none() {
        let at = bootloader_offset(chip);
        ui.line(format_args!(
            "It has no bootloader yet: one belongs at {at:#x}, best one built with rollback"
        ))?;
    }
    if args.password_file.is_none() {
        ui.line("It has no password yet: set one over the board's serial line, `password NEW`")?;
    }
    let partitions: Vec<_> = PartitionTable::desk_table()
        .entries()
        .iter()
        .map(|it| json!({ "label": it.label.as_str(), "offset": it.offset, "size": it.size_bytes }))
        .collect();
    ui.json(&json!({
        "file": name,
        "chip": chip.to_string(),
        "bootloader": args.bootloader.is_some(),
        "password": args.password_file.is_some(),
        "partitions": partitions,
    }))
}

/// A bootloader is an image, too; one for another chip would leave the board dead.
fn read_bootloader(path: &Path, chip: ChipId) -> Result<Vec<u8>, CommandError> {
    let room = u64::from(TABLE_OFFSET - bootloader_offset(chip));
    let bytes = files::read(path, room)?;
    let name = path.display();
    let header = ImageHeader::parse(&bytes).map_err(|error| {
        CommandError::failed(format!("`{name}` is no bootloader")).because(&error)
    })?;
    let found = header.chip;
    if found == chip {
        return Ok(bytes);
    }
    let text = format!("`{name}` is a bootloader for {found}, the firmware is for {chip}");
    Err(CommandError::failed(text).hinted("Take the one from your build for this chip."))
}

/// Where the ROM of the chip looks for it: the `bootloader_offset` of ESP-IDF's `soc` component.
const fn bootloader_offset(chip: ChipId) -> u32 {
    match chip {
        ChipId::ESP32 | ChipId::ESP32_S2 => 0x1000,
        ChipId::ESP32_P4 | ChipId::ESP32_C5 => 0x2000,
        _ => 0,
    }
}
