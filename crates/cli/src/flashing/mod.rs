//! What a board's flash shall hold, for `lockstep flash`, which writes it over a serial line, and
//! `lockstep image merge`, which writes it into a file.
//!
//! [`PartsArgs`] is what both are told, [`Wanted`] the same read and checked; [`plan()`] makes the
//! regions of it, together with what the board has already.

pub mod bootloader;
pub mod plan;
pub mod serial;
mod table;

use std::path::PathBuf;

use lockstep_agent::CONFIG_BYTES_MAX;
use lockstep_proto::descriptor::{Board, Descriptor, Role};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::image::{ChipId, ImageFacts};
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::PartitionTable;

use crate::args;
use crate::commands::device::{read_group, read_password};
use crate::error::CommandError;
use crate::facts;
use crate::files;
use crate::keys;

pub use plan::{Found, Plan, Region, plan};

/// What belongs into a board's flash
#[derive(Debug, clap::Args)]
pub struct PartsArgs {
    /// The firmware, an image for the board's chip
    #[arg(long, value_name = "FILE")]
    app: PathBuf,

    /// The second stage bootloader, best one that was built with app rollback [default: espflash's
    /// own, which has none]
    #[arg(long, value_name = "FILE")]
    bootloader: Option<PathBuf>,

    /// Refuse a bootloader that is not known to have rollback
    #[arg(long)]
    require_rollback: bool,

    /// The partition table, as ESP-IDF's CSV or as binary [default: two slots of 0x1E0000 and a
    /// record, on 4 MiB]
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// A public key whose releases the board takes; again for more [default: it takes anybody's]
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,

    /// How many of the keys must sign [default: all]
    #[arg(long, value_name = "K", requires = "keys")]
    threshold: Option<u8>,

    /// A file with the board's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// The file with its group's secret, from `lockstep device --new-group` [default: the board is
    /// adopted later, over the air]
    #[arg(long, value_name = "FILE")]
    group: Option<PathBuf>,

    /// The application's configuration, at most 8 KiB
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The chip, which the firmware must be for
    #[arg(long, value_parser = args::chip)]
    chip: Option<ChipId>,

    /// The board, which the firmware must be for
    #[arg(long)]
    board: Option<Board>,

    /// The role, which the firmware must have
    #[arg(long)]
    role: Option<Role>,
}

/// What was asked for, read and checked.
#[derive(Debug)]
pub struct Wanted {
    /// The firmware's file, as it was named.
    pub app_name: String,
    /// All of it.
    pub app: Vec<u8>,
    /// What it is.
    pub facts: ImageFacts,
    /// The file of a bootloader.
    pub bootloader: Option<PathBuf>,
    /// Whether it must have rollback.
    pub require_rollback: bool,
    /// A partition table.
    pub table: Option<PartitionTable>,
    /// Whose releases are taken.
    pub trust: Option<Trust>,
    /// The board's password.
    pub password: Option<String>,
    /// Its group's key.
    pub group: Option<GroupKey>,
    /// Its application's configuration.
    pub configuration: Option<Vec<u8>>,
}

impl Wanted {
    /// Reads what `args` name.
    pub fn read(args: &PartsArgs) -> Result<Self, CommandError> {
        let app = files::read(&args.app, APP_BYTES_MAX)?;
        let app_name = args.app.display().to_string();
        let facts = facts::read_image(&app).map_err(|error| {
            let refused = CommandError::failed(format!("`{app_name}` is no firmware"));
            refused.because(&error).hinted(
                lockstep_server::bundle::image_hint(&error)
                    .unwrap_or("Make it with `esptool elf2image`, or with your build tool."),
            )
        })?;
        check_labels(args, &app_name, &facts)?;
        let trust = match args.keys.as_slice() {
            [] => None,
            paths => Some(Trust::signed_by(keys::read_key_set(paths, args.threshold)?)),
        };
        Ok(Self {
            app_name,
            app,
            facts,
            bootloader: args.bootloader.clone(),
            require_rollback: args.require_rollback,
            table: args.table.as_deref().map(table::read).transpose()?,
            trust,
            password: args.password_file.as_deref().map(read_password).transpose()?,
            group: args.group.as_deref().map(read_group).transpose()?,
            configuration: match &args.config {
                Some(path) => Some(files::read(path, CONFIG_BYTES_MAX as u64)?),
                None => None,
            },
        })
    }

    /// The chip that all of it is for.
    pub const fn chip(&self) -> ChipId {
        self.facts.header.chip
    }
}

/// What was said of the board, and what the firmware says of itself.
fn check_labels(args: &PartsArgs, name: &str, facts: &ImageFacts) -> Result<(), CommandError> {
    let differs = |what: &str, found: &str, said: &str| {
        CommandError::failed(format!("`{name}` is for {what} `{found}`, the board is `{said}`"))
            .hinted(format!("Give the firmware for it, or leave out --{what} {said}."))
    };
    let found = facts.header.chip;
    if let Some(said) = args.chip.filter(|&said| said != found) {
        return Err(differs("chip", &found.to_string(), &said.to_string()));
    }
    let Some(Descriptor { board, role, .. }) = &facts.descriptor else {
        let option = match (&args.board, &args.role) {
            (None, None) => return Ok(()),
            (Some(_), _) => "--board",
            (None, Some(_)) => "--role",
        };
        return Err(CommandError::failed(format!(
            "`{name}` does not say which board and role it is for"
        ))
        .hinted(format!("Leave out {option}, and make sure by other means.")));
    };
    if let Some(said) = args.board.as_ref().filter(|&said| said != board) {
        return Err(differs("board", board.as_str(), said.as_str()));
    }
    if let Some(said) = args.role.as_ref().filter(|&said| said != role) {
        return Err(differs("role", role.as_str(), said.as_str()));
    }
    Ok(())
}

/// As large as the flash of any board.
const APP_BYTES_MAX: u64 = 16 << 20;
