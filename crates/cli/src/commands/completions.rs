//! `lockstep completions`.

use clap::CommandFactory as _;

use crate::args;
use crate::commands::Cli;
use crate::error::CommandError;
use crate::ui::Ui;

/// Print a script that completes commands in a shell
///
/// For bash: `lockstep completions bash > ~/.local/share/bash-completion/completions/lockstep`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = args::shell())]
    shell: clap_complete::Shell,
}

pub(super) fn completions(ui: &Ui, args: &CompletionsArgs) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lockstep", &mut script);
    ui.raw(&script)
}
