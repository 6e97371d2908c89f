//! Fuzzing: builds the targets of `fuzz/` and runs each for a while.
//!
//! The flags are those of `cargo fuzz` without a sanitizer, which any stable toolchain takes: all
//! of our code forbids `unsafe`, so there is nothing for an address sanitizer to find, while debug
//! assertions and overflow checks are on. What the fuzzer finds on its way goes into
//! `target/fuzz/corpus`; what stands in `fuzz/corpus` is only read, and replaced by `--minimize`.
//!
//! # Not here
//!
//! The targets, and what each promises: `fuzz/src`.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{fmt, thread};

use crate::corpus;
use crate::machine::{Machine, Tool};
use crate::shell::{self, Failure};

/// One program of `fuzz/src/bin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    name: &'static str,
    /// Longer inputs than this find nothing that shorter ones do not.
    input_bytes_max: u32,
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "frames", input_bytes_max: 256 },
    Target { name: "line", input_bytes_max: 4096 },
    Target { name: "manifest", input_bytes_max: 4096 },
    Target { name: "bundle", input_bytes_max: 16_384 },
    Target { name: "delta", input_bytes_max: 4096 },
    Target { name: "image", input_bytes_max: 4096 },
    Target { name: "partition", input_bytes_max: 3073 },
    Target { name: "otadata", input_bytes_max: 128 },
    Target { name: "record", input_bytes_max: 4096 },
    Target { name: "http", input_bytes_max: 8192 },
    Target { name: "node", input_bytes_max: 512 },
];

/// What to do with which targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    pub(crate) goal: Goal,
    /// How many fuzz at once.
    pub(crate) jobs: usize,
}

/// What to do with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Look for inputs that break a promise, for so long.
    Search { seconds: u32 },
    /// Replace its corpus in `fuzz/corpus` by few inputs that reach most of what all that were
    /// found reach.
    Minimize,
}

impl Plan {
    /// Every target, as the test run has it.
    pub(crate) fn of_suite() -> Self {
        Self {
            targets: TARGETS.to_vec(),
            goal: Goal::Search { seconds: SECONDS_DEFAULT },
            jobs: thread::available_parallelism().map_or(1, NonZero::get),
        }
    }

    /// Reads `[--seconds N | --minimize] [--jobs N] [TARGET]...`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut plan = Self { targets: Vec::new(), ..Self::of_suite() };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut number = || match words.next().map(|text| text.parse::<u32>()) {
                Some(Ok(number)) if number > 0 => Ok(number),
                _ => Err(format!("`{word}` needs a number above 0")),
            };
            match word {
                "--seconds" => plan.goal = Goal::Search { seconds: number()? },
                "--jobs" => plan.jobs = usize::try_from(number()?).unwrap_or(usize::MAX),
                "--minimize" => plan.goal = Goal::Minimize,
                name => plan.targets.push(find(name)?),
            }
        }
        if plan.targets.is_empty() {
            plan.targets = TARGETS.to_vec();
        }
        Ok(plan)
    }
}

fn find(name: &str) -> Result<Target, String> {
    TARGETS.iter().find(|target| target.name == name).copied().ok_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("unknown target `{name}`; there are {}", known.join(", "))
    })
}

/// What the test run does: warnings and tests of the targets themselves, which show that they
/// reach what they are for, then each of them for a while.
pub(crate) fn suite(machine: &Machine) -> Result<(), Failure> {
    let folder = machine.target.join("fuzz");
    let cargo = |words: &[&str]| {
        let mut cargo = machine.cargo();
        cargo.args(words).args(["--manifest-path", MANIFEST, "--target-dir"]).arg(&folder);
        if machine.ci {
            cargo.arg("--locked");
        }
        cargo
    };
    let mut clippy = cargo(&["clippy", "--lib", "--examples", "--tests"]);
    shell::run(clippy.args(["--", "-D", "warnings"]))?;
    shell::run(&mut cargo(&["test", "--lib"]))?;
    run(machine, &Plan::of_suite())
}

/// Builds the targets and runs those of the plan; fails if one of them broke a promise.
pub(crate) fn run(machine: &Machine, plan: &Plan) -> Result<(), Failure> {
    machine.provide(TOOLS);
    TOOLS.iter().try_for_each(|&tool| machine.require(tool))?;
    let host = shell::read(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let folder = machine.target.join("fuzz");
    shell::run(&mut build(machine, &folder, host.trim()))?;
    let programs = folder.join(host.trim()).join("release");
    let work = Work { root: &machine.root, folder, programs };
    match plan.goal {
        Goal::Search { seconds } => work.search(plan, seconds),
        Goal::Minimize => plan.targets.iter().try_for_each(|target| work.minimize(target)),
    }
}

fn build(machine: &Machine, folder: &Path, host: &str) -> Command {
    let mut cargo = machine.cargo();
    // With a target, the flags do not reach build scripts.
    cargo.args(["build", "--manifest-path", MANIFEST, "--release", "--bins"]);
    cargo.args(["--target", host, "--target-dir"]).arg(folder);
    if machine.ci {
        cargo.arg("--locked");
    }
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", FLAGS.join(" "));
    cargo
}

/// Where things are.
struct Work<'a> {
    root: &'a Path,
    folder: PathBuf,
    programs: PathBuf,
}

impl Work<'_> {
    fn search(&self, plan: &Plan, seconds: u32) -> Result<(), Failure> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::new());
        let fuzz = || {
            while let Some(target) = plan.targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = self.fuzz(target, seconds);
                let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                outcomes.push((target.name, outcome));
            }
        };
        thread::scope(|scope| {
            (0..plan.jobs.min(plan.targets.len())).for_each(|_| {
                scope.spawn(fuzz);
            });
        });
        let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let logs = self.folder.join("logs");
        println!(
            "\n{:9} {:>10} {:>8} {:>8} {:>6}",
            "target", "inputs", "a second", "reached", "MiB"
        );
        let mut failed = None;
        for (name, outcome) in outcomes {
            match outcome {
                Ok(figures) => println!("{name:9} {figures}"),
                Err(failure) => {
                    println!("{name:9} {failure}: see `{}/{name}.log`", logs.display());
                    failed = Some(failure);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Runs one target, its talk into a log file.
    fn fuzz(&self, target: &Target, seconds: u32) -> Result<Figures, Failure> {
        let found = self.found(target)?;
        let path = self.folder.join("logs").join(format!("{}.log", target.name));
        shell::write(&path, b"")?;
        let failed = |source| Failure::File { path: path.clone(), source };
        let log = File::create(&path).map_err(failed)?;
        let mut program = self.program(target);
        program.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        program.arg(&found).arg(self.kept(target));
        program.stdout(Stdio::null()).stderr(log);
        let ended = shell::run(&mut program);
        let text = fs::read(&path).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        if ended.is_err() {
            println!("{}", what_broke(&text));
        }
        ended.map(|()| Figures::read(&text))
    }

    /// Counts which code is reached, not how often: far fewer inputs, as good to begin with.
    fn minimize(&self, target: &Target) -> Result<(), Failure> {
        let (found, kept) = (self.found(target)?, self.kept(target));
        let control = self.folder.join("logs").join(format!("{}.merge", target.name));
        // Written anew: what stands there would be gone on with.
        shell::write(&control, b"")?;
        let empty = self.folder.join("merged").join(target.name);
        remake(&empty)?;
        let mut program = self.program(target);
        program.args(["-set_cover_merge=1", "-use_counters=0"]);
        program.arg(format!("-merge_control_file={}", control.display()));
        program.arg(empty).arg(&kept).arg(found).stderr(Stdio::null());
        shell::run(&mut program)?;
        let text = fs::read_to_string(&control);
        let text = text.map_err(|source| Failure::File { path: control, source })?;
        let inputs = corpus::read(&text);
        let chosen = corpus::choose(&inputs);
        let share = corpus::share_percent(&chosen, &inputs);
        println!("{}: {} of {} inputs, {share} %", target.name, chosen.len(), inputs.len());
        let small = self.folder.join("small").join(target.name);
        remake(&small)?;
        for input in chosen {
            copy_into(&small, &input.path)?;
        }
        remake(&kept)?;
        let failed = |source| Failure::File { path: small.clone(), source };
        for file in fs::read_dir(&small).map_err(failed)? {
            copy_into(&kept, &file.map_err(failed)?.path())?;
        }
        Ok(())
    }

    fn program(&self, target: &Target) -> Command {
        let mut program = Command::new(self.programs.join(target.name));
        program.arg(format!("-max_len={}", target.input_bytes_max));
        program.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        program.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        let artifacts = self.root.join("fuzz/artifacts").join(target.name);
        // Where `cargo fuzz` puts them, too.
        let _ = fs::create_dir_all(&artifacts);
        program.arg(format!("-artifact_prefix={}/", artifacts.display()));
        program
    }

    fn found(&self, target: &Target) -> Result<PathBuf, Failure> {
        let path = self.folder.join("corpus").join(target.name);
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(Failure::File { path, source }),
        }
    }

    fn kept(&self, target: &Target) -> PathBuf {
        self.root.join("fuzz/corpus").join(target.name)
    }
}

fn remake(folder: &Path) -> Result<(), Failure> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(|source| Failure::File { path: folder.into(), source })
}

fn copy_into(folder: &Path, file: &Path) -> Result<(), Failure> {
    let copied = fs::copy(file, folder.join(file.file_name().unwrap_or_default()));
    copied.map(|_| ()).map_err(|source| Failure::File { path: file.into(), source })
}

/// From the panic on, or the last lines.
fn what_broke(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let start = panic.unwrap_or(lines.len().saturating_sub(LINES_SHOWN));
    lines.iter().skip(start).take(LINES_SHOWN).map(|line| format!("  {line}\n")).collect()
}

/// What libFuzzer counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    inputs: u64,
    inputs_per_s: u64,
    /// Edges of the program, as far as they are instrumented.
    reached: u64,
    memory_mib: u64,
}

impl Figures {
    fn read(log: &str) -> Self {
        let number = |name: &str| {
            let line = log.lines().rev().find_map(|line| line.strip_prefix(name));
            line.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
        };
        let reached = log.lines().rev().find_map(|line| {
            let (_, text) = line.split_once(" cov: ")?;
            text.split(' ').next()?.parse().ok()
        });
        Self {
            inputs: number("stat::number_of_executed_units:"),
            inputs_per_s: number("stat::average_exec_per_sec:"),
            reached: reached.unwrap_or_default(),
            memory_mib: number("stat::peak_rss_mb:"),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, inputs_per_s, reached, memory_mib } = self;
        write!(f, "{inputs:>10} {inputs_per_s:>8} {reached:>8} {memory_mib:>6}")
    }
}

/// A workspace of its own, since it is built with other flags.
const MANIFEST: &str = "fuzz/Cargo.toml";
/// What the targets are built with besides cargo: libFuzzer is C++.
pub(crate) const TOOLS: &[Tool] = &[Tool::CppCompiler];
/// As in cargo-fuzz 0.13, `Project::cargo`.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg fuzzing",
];
/// How long each target runs unless told otherwise.
const SECONDS_DEFAULT: u32 = 20;
/// One input that takes so long is a bug.
const INPUT_SECONDS_MAX: u32 = 10;
/// A limit for the whole program; the targets have stricter ones for one input.
const MEMORY_MIB_MAX: u32 = 512;
const LINES_SHOWN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_names_every_target_runs() {
        let plan = Plan::parse(&["--seconds", "600", "--jobs", "1"]).expect("a plan");
        assert_eq!(plan.targets, TARGETS);
        assert_eq!((plan.goal, plan.jobs), (Goal::Search { seconds: 600 }, 1));
        assert_eq!(Plan::parse(&["node"]).expect("a plan").targets.len(), 1);
    }

    #[test]
    fn an_unknown_target_and_a_missing_number_are_refused() {
        let message = Plan::parse(&["nodes"]).expect_err("no such target");
        assert!(message.contains("`nodes`") && message.contains("frames, "), "{message}");
        for words in [&["--seconds"][..], &["--seconds", "0"], &["--jobs", "many"]] {
            assert!(Plan::parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn every_target_of_the_folder_is_known_here() {
        let manifest = include_str!("../../../fuzz/Cargo.toml");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let programs = manifest["bin"].as_array().expect("programs").iter();
        let names: Vec<&str> = programs.filter_map(|program| program["name"].as_str()).collect();
        assert_eq!(names, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
    }

    #[test]
    fn figures_are_those_at_the_end_of_the_log() {
        let log = "#2\tINITED cov: 7 ft: 8\n#9\tDONE   cov: 630 ft: 987 corp: 425/30Kb\n\
                   stat::number_of_executed_units: 664378\nstat::average_exec_per_sec:     73819\n\
                   stat::peak_rss_mb:              28\n";
        let figures =
            Figures { inputs: 664_378, inputs_per_s: 73_819, reached: 630, memory_mib: 28 };
        assert_eq!(Figures::read(log), figures);
    }
}
