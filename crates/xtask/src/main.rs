//! The project's own checks, test set-up and builds: `cargo xtask`.
//!
//! One command tests everything, here and in CI alike, and says why something was not tested.
//!
//! # Not here
//!
//! The tests themselves: they stand beside the code they are about.

mod bindings;
mod cores;
mod corpus;
mod deltas;
mod firmware;
mod fuzz;
mod machine;
mod page;
mod services;
mod shell;
mod sizes;
mod suites;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use machine::Machine;
use shell::Failure;
use suites::Suite;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [--suite NAME]...   run all suites, or only those named
  test --list              list the suites
  page                     make the page of a device small, after its source was changed
  tidy                     check the rules of STYLE.md that a program can check
  sizes                    build the cores for a chip and say what each costs in flash
  firmware [--board NAME]... [--part NAME]... [--version 1.2.3] [--bench] [--check] [--sizes]
                           build the firmware of all boards and parts, or only those named, with
                           a radio or for the bench; only check it; say what each crate costs
  bindings [--chip NAME]... build Lockstep for C and C++, and pack it for ESP-IDF and Arduino
  deltas [--json] FOLDER   compare patches of the images in a folder, NAME-VERSION.bin, with
                           those of other tools
  soak [--rollouts N] [--seed N]
                           rollouts in a row with power cuts; 500 take about half an hour
  fuzz [OPTION]... [TARGET]...
                           run the fuzz targets, or only those named; see docs/fuzzing.md
    --seconds N            so long each (20)
    --jobs N               so many at once (as many as there are processors)
    --minimize             instead, make the corpora of `fuzz/corpus` as small as can be

CI=true in the environment makes a missing tool a failure instead of a reason to skip.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match parse(&words) {
        Ok(command) => run(&command),
        Err(message) => {
            eprint!("error: {message}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug)]
enum Command {
    Help,
    List,
    Test(Vec<&'static Suite>),
    Page,
    Tidy,
    Sizes,
    Firmware(firmware::Plan),
    Bindings(bindings::Plan),
    Deltas(deltas::Plan),
    Soak { rollouts: u32, seed: u64 },
    Fuzz(fuzz::Plan),
}

fn parse(words: &[&str]) -> Result<Command, String> {
    match words {
        [] | ["help" | "-h" | "--help", ..] => Ok(Command::Help),
        ["test", "--list"] => Ok(Command::List),
        ["test", options @ ..] => parse_suites(options).map(Command::Test),
        ["page"] => Ok(Command::Page),
        ["tidy"] => Ok(Command::Tidy),
        ["sizes"] => Ok(Command::Sizes),
        ["firmware", options @ ..] => firmware::Plan::parse(options).map(Command::Firmware),
        ["bindings", options @ ..] => bindings::Plan::parse(options).map(Command::Bindings),
        ["deltas", options @ ..] => deltas::Plan::parse(options).map(Command::Deltas),
        ["soak", options @ ..] => parse_soak(options),
        ["fuzz", options @ ..] => fuzz::Plan::parse(options).map(Command::Fuzz),
        ["page" | "tidy" | "sizes", extra, ..] => Err(format!("unexpected argument `{extra}`")),
        [other, ..] => Err(format!("unknown command `{other}`")),
    }
}

fn parse_soak(options: &[&str]) -> Result<Command, String> {
    let (mut rollouts, mut seed) = (SOAK_ROLLOUTS_DEFAULT, 1);
    for option in options.chunks(2) {
        let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
        match option {
            ["--rollouts", text] => {
                rollouts =
                    u32::try_from(number(text)?).map_err(|_| format!("`{text}` is large"))?;
            }
            ["--seed", text] => seed = number(text)?,
            [name @ ("--rollouts" | "--seed")] => return Err(format!("`{name}` needs a number")),
            [other, ..] => return Err(format!("unexpected argument `{other}`")),
            [] => (),
        }
    }
    Ok(Command::Soak { rollouts, seed })
}

fn parse_suites(options: &[&str]) -> Result<Vec<&'static Suite>, String> {
    if options.is_empty() {
        return Ok(suites::ALL.iter().collect());
    }
    let mut chosen = Vec::new();
    for option in options.chunks(2) {
        match option {
            ["--suite", name] => chosen.push(suites::find(name)?),
            ["--suite"] => return Err("`--suite` needs a name".into()),
            [other, ..] => return Err(format!("unexpected argument `{other}`")),
            [] => (),
        }
    }
    Ok(chosen)
}

fn run(command: &Command) -> ExitCode {
    let machine = Machine::new(workspace_root());
    let result = match command {
        Command::Help => {
            print!("{USAGE}");
            Ok(())
        }
        Command::List => {
            suites::list();
            Ok(())
        }
        Command::Test(chosen) => suites::run(&machine, chosen),
        Command::Page => page::make(&machine),
        Command::Tidy => tidy::run(&machine.root),
        Command::Sizes => cores::run(&machine),
        Command::Firmware(plan) => firmware::run(&machine, plan),
        Command::Bindings(plan) => bindings::run(&machine, plan),
        Command::Deltas(plan) => deltas::run(&machine, plan),
        Command::Soak { rollouts, seed } => suites::soak(&machine, *rollouts, *seed),
        Command::Fuzz(plan) => fuzz::run(&machine, plan),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::FAILURE
        }
    }
}

/// The failure, and below it what caused it.
fn report(failure: &Failure) {
    eprintln!("error: {failure}");
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

/// Cargo says where this package is when it runs it; what was true when it was compiled may not be
/// any more, if the checkout was moved or the target folder is shared.
fn workspace_root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).unwrap_or(&here).to_path_buf()
}

/// So many a release cycle has, over years.
const SOAK_ROLLOUTS_DEFAULT: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<&'static str> {
        match parse(words) {
            Ok(Command::Test(chosen)) => chosen.iter().map(|suite| suite.name).collect(),
            other => panic!("not a test run: {other:?}"),
        }
    }

    #[test]
    fn test_without_options_runs_every_suite() {
        assert_eq!(names(&["test"]).len(), suites::ALL.len());
    }

    #[test]
    fn only_named_suites_run_in_the_order_named() {
        assert_eq!(names(&["test", "--suite", "unit", "--suite", "fmt"]), ["unit", "fmt"]);
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_ones() {
        let message = parse(&["test", "--suite", "units"]).expect_err("no such suite");
        assert!(message.contains("`units`") && message.contains("unit, "), "{message}");
    }

    #[test]
    fn a_soak_is_as_long_as_asked_for() {
        let soak = |words: &[&str]| match parse(words) {
            Ok(Command::Soak { rollouts, seed }) => Some((rollouts, seed)),
            _ => None,
        };
        assert_eq!(soak(&["soak"]), Some((500, 1)));
        assert_eq!(soak(&["soak", "--seed", "7", "--rollouts", "20"]), Some((20, 7)));
        assert!(soak(&["soak", "--rollouts", "many"]).is_none());
    }

    #[test]
    fn a_stray_argument_is_refused() {
        assert!(parse(&["tidy", "now"]).is_err());
        assert!(parse(&["test", "unit"]).is_err());
        assert!(parse(&["test", "--suite"]).is_err());
    }
}
