//! What the command `lockstep` is made of: one file for each command, and below them what they
//! share: keys, images, bundles, the way to a device, what people read.
//!
//! Every command either does what it says and exits with 0, or says what is wrong and how to go on
//! and exits with 1 (the operation failed), 2 (the command line is wrong) or 255 (a bug). Results
//! go to standard output, everything else to standard error; with `--json` the result is JSON.
//!
//! No rule of a rollout is decided here: devices decide.

pub mod args;
mod broker;
pub mod builds;
pub mod client;
mod commands;
mod demo;
pub mod describe;
pub mod error;
pub mod facts;
pub mod files;
pub mod flashing;
pub mod fleet;
pub mod follow;
pub mod keys;
mod line;
pub mod patches;
pub mod release;
pub mod ui;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

/// Runs the command line of this process.
///
/// A panic below is a bug of ours; its own message has been printed by then.
pub fn run() -> ExitCode {
    let run = || {
        let cli = commands::Cli::parse();
        let ui = ui::Ui::new(cli.json);
        match commands::run(&ui, cli.command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                ui.report(&error);
                error.exit_code()
            }
        }
    };
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        anstream::eprintln!("This is a bug in lockstep. Please report it with the lines above.");
        ExitCode::from(error::EXIT_BUG)
    })
}
