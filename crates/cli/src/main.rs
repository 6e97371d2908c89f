//! The command `lockstep`: nothing but its start and its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockstep_cli::run()
}
