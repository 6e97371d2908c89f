//! `lockstep flash`: a board at a serial port is made, or made anew.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};

use serde_json::{Value, json};

use crate::error::CommandError;
use crate::flashing::bootloader::Net;
use crate::flashing::serial::{Board, ROM_BAUD, Reset, choose_port};
use crate::flashing::{self, Found, PartsArgs, Plan, Wanted};
use crate::ui::{Ui, table};

/// Write all that a board needs over its serial port
///
/// Bootloader, partition table with two slots and a record, firmware, keys, password, group and
/// configuration. What it will write where is shown first. A board that was made before keeps its
/// record, partition table and bootloader, unless others are given.
///
/// A new board, and later another firmware for it:
///   lockstep flash --app transmitter.bin --bootloader bootloader.bin --password-file password
///   lockstep flash --app transmitter-1.1.0.bin
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct FlashArgs {
    #[command(flatten)]
    parts: PartsArgs,

    /// The board's serial port, such as /dev/ttyUSB0 or COM3 [default: the only one on USB]
    #[arg(long, value_name = "PORT", help_heading = "Serial port")]
    port: Option<String>,

    /// How fast to write
    #[arg(long, value_name = "N", default_value_t = FAST_BAUD, help_heading = "Serial port",
          value_parser = clap::value_parser!(u32).range(9600..=4_000_000))]
    baud: u32,

    /// The board is in its bootloader already (BOOT was held at reset), and is restarted by hand
    #[arg(long, help_heading = "Serial port")]
    no_reset: bool,

    /// Erase all of the flash first: record, group, settings and data of the application are gone
    #[arg(long)]
    erase: bool,

    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn flash(ui: &Ui, args: &FlashArgs) -> Result<(), CommandError> {
    let wanted = Wanted::read(&args.parts)?;
    flashing::plan::check_files(&wanted)?;
    let port = choose_port(args.port.as_deref())?;
    let reset = if args.no_reset { Reset::ByHand } else { Reset::Lines };
    let spinner = ui.spinner(format!("Connecting to {port} …"));
    let board = Board::connect(&port, args.baud, reset);
    let board = board.and_then(|board| looked_at(board, &wanted, args.erase));
    spinner.finish_and_clear();
    let (mut board, found, plan) = board?;
    say(ui, &board, &found, &plan, args.erase)?;
    if args.dry_run {
        let answer = answer(&board, &plan);
        board.restart();
        ui.line("Nothing was written.")?;
        return ui.json(&answer);
    }
    if !args.yes && !agreed(&port)? {
        board.restart();
        return Err(CommandError::failed("Nothing was written"));
    }
    if args.erase {
        let spinner = ui.spinner("Erasing the flash …");
        let erased = board.erase();
        spinner.finish_and_clear();
        erased?;
    }
    let mut answer = answer(&board, &plan);
    let written = board.write(ui, &plan)?;
    let regions = answer.get_mut("regions").and_then(Value::as_array_mut);
    for (region, written) in regions.into_iter().flatten().zip(&written) {
        region["written"] = json!(written);
    }
    let count = written.iter().filter(|&&written| written).count();
    let next = if args.no_reset { "Press its RESET button." } else { "It starts now." };
    ui.line(format_args!(
        "The board at {port} has it all: {count} of {} regions written, the others were there. \
         {next}",
        written.len()
    ))?;
    ui.json(&answer)
}

/// The board, what it has, and what is to be done about that.
fn looked_at(
    mut board: Board,
    wanted: &Wanted,
    is_erased: bool,
) -> Result<(Board, Found, Plan), CommandError> {
    let (found, expected) = (board.chip, wanted.chip());
    let looked = if found == expected {
        board.look(is_erased)
    } else {
        let port = &board.port;
        let text =
            format!("`{}` is for {expected}, the board at {port} has an {found}", wanted.app_name);
        Err(CommandError::failed(text)
            .hinted("Give the firmware for that board, or name another one's port: --port PORT"))
    };
    match looked.and_then(|found| Ok((flashing::plan(wanted, &found)?, found))) {
        Ok((plan, found)) => Ok((board, found, plan)),
        Err(error) => {
            board.restart();
            Err(error)
        }
    }
}

/// What is there, what will be written, and what the board will be worth.
fn say(
    ui: &Ui,
    board: &Board,
    found: &Found,
    plan: &Plan,
    is_erased: bool,
) -> Result<(), CommandError> {
    let size = found.flash_bytes.map_or(0, |bytes| bytes >> 20);
    let mac = board.mac.as_deref().map_or_else(String::new, |mac| format!(", {mac}"));
    ui.line(format_args!("{}{mac}, {size} MiB of flash, at {}", board.chip, board.port))?;
    if is_erased {
        ui.line("All of its flash is erased first.")?;
    }
    ui.line(regions(plan))?;
    if !plan.stays.is_empty() {
        ui.line(format_args!("What stays: {}.", crate::ui::listed(&plan.stays)))?;
    }
    say_net(ui, plan);
    if plan.lacks_password {
        ui.note(NO_PASSWORD);
    }
    Ok(())
}

/// The regions in the order of their places, as a table.
pub(super) fn regions(plan: &Plan) -> String {
    let mut regions: Vec<_> = plan.regions.iter().collect();
    regions.sort_by_key(|region| region.offset);
    let head = ["OFFSET", "BYTES", "WHAT", ""].map(String::from).to_vec();
    let rows = regions.iter().map(|region| {
        let (offset, size) = (format!("{:#x}", region.offset), region.size_bytes.to_string());
        vec![offset, size, region.what.to_owned(), region.text.clone()]
    });
    table(&[head].into_iter().chain(rows).collect::<Vec<_>>())
}

/// Which net the board will have, and how to get a better one.
pub(super) fn say_net(ui: &Ui, plan: &Plan) {
    let Plan { bootloader, net_known_by, .. } = plan;
    match plan.net {
        Net::Bootloader => ui.note(format_args!(
            "Net: the bootloader goes back from an image that is not confirmed ({net_known_by})"
        )),
        Net::Agent => ui.warn(format_args!(
            "The bootloader ({bootloader}) has no rollback: {net_known_by}. It does not take the \
             board back from an image that dies before it runs. Better give one that does: \
             --bootloader FILE, see docs/boards.md"
        )),
        Net::NotKnown => ui.warn(format_args!(
            "Whether the bootloader ({bootloader}) has rollback does not show in its bytes. The \
             device reports it after its first trial; one whose build says so is known before: \
             see docs/boards.md"
        )),
    }
}

fn answer(board: &Board, plan: &Plan) -> Value {
    json!({
        "port": board.port,
        "mac": board.mac,
        "chip": plan.chip.to_string(),
        "bootloader": bootloader_json(plan),
        "regions": plan.regions.iter().map(flashing::Region::to_json).collect::<Vec<_>>(),
        "stays": plan.stays,
        "lacks_password": plan.lacks_password,
    })
}

/// What is known of the bootloader, for programs.
pub(super) fn bootloader_json(plan: &Plan) -> Value {
    json!({
        "from": plan.bootloader,
        "rollback": plan.net.has_rollback(),
        "known_by": plan.net_known_by,
    })
}

/// Where nobody can be asked, whoever wrote the command has decided.
fn agreed(port: &str) -> Result<bool, CommandError> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Ok(true);
    }
    anstream::eprint!("Write this to the board at {port}? [y/N] ");
    stderr().flush()?;
    let mut said = String::new();
    stdin().lock().read_line(&mut said)?;
    Ok(matches!(said.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Said of a board without one.
pub(super) const NO_PASSWORD: &str =
    "It has no password yet: set one over the board's serial line, `password NEW`";
/// What nearly all serial adapters can do.
const FAST_BAUD: u32 = 460_800;
const _: () = assert!(FAST_BAUD > ROM_BAUD);
