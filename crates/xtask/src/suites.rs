//! The test suites: what each runs, in which order, and how their results are told.
//!
//! A suite passes, fails, or is skipped with a reason; with `CI=true` a missing tool fails it, so
//! that nothing goes untested without somebody knowing. A failed suite does not stop the others.

use std::time::Instant;

use crate::bindings;
use crate::cores;
use crate::firmware;
use crate::fuzz;
use crate::machine::{Machine, Tool};
use crate::services;
use crate::shell::{self, Failure};
use crate::tidy;

/// One part of the test run that makes sense alone.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    about: &'static str,
    tools: &'static [Tool],
    run: fn(&Machine) -> Result<(), Failure>,
}

#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(Failure),
    Skipped(Failure),
}

/// Every suite, the quickest to fail first.
pub(crate) const ALL: &[Suite] = &[
    Suite::new("fmt", "the layout of the source", fmt),
    Suite::new("tidy", "the rules of STYLE.md that a program can check", |machine| {
        tidy::run(&machine.root)
    }),
    Suite::new("clippy", "compiler and clippy warnings", clippy),
    Suite::new("unit", "unit and property tests", unit),
    Suite::new("power", "one device, cut after every byte of a rollout", power),
    Suite::new("sim", "simulated worlds with faults", sim),
    Suite::new("model", "every state that a small group can get into", model),
    Suite::new("planted", "bugs planted on purpose, which worlds must find", planted),
    Suite::new("doc", "the documentation builds, and its examples run", doc),
    Suite::new("cores", "the cores build for a chip; what each costs in flash", cores::run)
        .with(&[Tool::ChipCompiler]),
    Suite::new(
        "firmware",
        "the firmware, built for a chip and run on an emulated one",
        firmware::suite,
    )
    .with(firmware::SUITE_TOOLS),
    Suite::new("bindings", "Lockstep for C and C++, and its examples in a group", bindings::suite)
        .with(bindings::SUITE_TOOLS),
    Suite::new("e2e", "whole rollouts over real processes", e2e).with(&[
        Tool::Esptool,
        Tool::Minisign,
        Tool::Curl,
        Tool::Mosquitto,
        Tool::MosquittoSub,
        Tool::CppCompiler,
        Tool::PlatformIo,
        Tool::Scons,
        Tool::Cmake,
        Tool::Make,
        Tool::Rom,
        Tool::IdfDefs,
    ]),
    Suite::new("server", "the server on PostgreSQL and an S3 store", server)
        .with(&[Tool::Postgres, Tool::Moto]),
    Suite::new(
        "fleet",
        "a server, its leads, its operators and its API's document over real processes",
        fleet,
    )
    .with(&[
        Tool::Postgres,
        Tool::Faketime,
        Tool::Schemathesis,
        Tool::Mosquitto,
        Tool::MosquittoSub,
    ]),
    Suite::new("page", "the page of a device in a real browser", page).with(&[
        Tool::Chromium,
        Tool::ChromeDriver,
        Tool::AxeCore,
    ]),
    Suite::new("fuzz", "every decoder on bytes that a fuzzer makes up", fuzz::suite)
        .with(fuzz::TOOLS),
    Suite::new("demo", "the demonstrations, without staying", demo).with(&[Tool::Mosquitto]),
    Suite::new("deny", "licences and sources of dependencies", deny).with(&[Tool::CargoDeny]),
];

impl Suite {
    const fn new(
        name: &'static str,
        about: &'static str,
        run: fn(&Machine) -> Result<(), Failure>,
    ) -> Self {
        Self { name, about, tools: &[], run }
    }

    const fn with(self, tools: &'static [Tool]) -> Self {
        Self { tools, ..self }
    }

    fn outcome(&self, machine: &Machine) -> Outcome {
        match self.tools.iter().find_map(|&tool| machine.require(tool).err()) {
            None => (self.run)(machine).map_or_else(Outcome::Failed, |()| Outcome::Passed),
            Some(failure) => missing(failure, machine),
        }
    }
}

/// Whoever watches is told what was skipped; where nobody watches, it would go unnoticed.
fn missing(failure: Failure, machine: &Machine) -> Outcome {
    if machine.ci { Outcome::Failed(failure) } else { Outcome::Skipped(failure) }
}

/// The suite of that name, or which names there are.
pub(crate) fn find(name: &str) -> Result<&'static Suite, String> {
    ALL.iter().find(|suite| suite.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|suite| suite.name).collect();
        format!("unknown suite `{name}`; there are {}", known.join(", "))
    })
}

/// Prints every suite with what it is for.
pub(crate) fn list() {
    for suite in ALL {
        println!("{:8} {}", suite.name, suite.about);
    }
}

/// Installs what the chosen suites need, runs them in order, and prints what came of each.
pub(crate) fn run(machine: &Machine, chosen: &[&Suite]) -> Result<(), Failure> {
    let tools: Vec<Tool> = chosen.iter().flat_map(|suite| suite.tools).copied().collect();
    machine.provide(&tools);
    let mut rows = Vec::new();
    for suite in chosen {
        println!("\n== {}: {}", suite.name, suite.about);
        let start = Instant::now();
        let outcome = suite.outcome(machine);
        match &outcome {
            Outcome::Passed => (),
            Outcome::Failed(failure) => crate::report(failure),
            Outcome::Skipped(failure) => println!("skipped: {failure}"),
        }
        rows.push((suite.name, outcome, start.elapsed().as_secs_f32()));
    }
    summarize(&rows)
}

fn summarize(rows: &[(&str, Outcome, f32)]) -> Result<(), Failure> {
    println!("\n{:8} {:8} {:>8}", "suite", "result", "seconds");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome, seconds) in rows {
        let (count, result, reason) = match outcome {
            Outcome::Passed => (&mut passed, "passed", String::new()),
            Outcome::Failed(failure) => (&mut failed, "failed", failure.to_string()),
            Outcome::Skipped(failure) => (&mut skipped, "skipped", failure.to_string()),
        };
        *count += 1;
        println!("{}", format!("{name:8} {result:8} {seconds:8.1}  {reason}").trim_end());
    }
    println!("\nsuites: {passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { Ok(()) } else { Err(Failure::Suites { count: failed }) }
}

fn fmt(machine: &Machine) -> Result<(), Failure> {
    shell::run(machine.cargo().args(["fmt", "--all", "--check"]))?;
    shell::run(machine.cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    // Not a member of any workspace, so cargo does not know of it.
    let mut rustfmt = std::process::Command::new("rustfmt");
    rustfmt.current_dir(&machine.root).args(["--check", "--edition", "2024"]);
    shell::run(rustfmt.arg(cores::PROGRAM))
}

fn clippy(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["clippy", "--workspace", "--all-targets"]).args(locked(machine));
    shell::run(cargo.args(["--", "-D", "warnings"]))
}

fn unit(machine: &Machine) -> Result<(), Failure> {
    if has_nextest() {
        let mut cargo = nextest(machine);
        cargo.args(["--workspace", "-E", "not (package(=lockstep) & kind(test))"]);
        return shell::run(&mut cargo);
    }
    let mut cargo = machine.cargo();
    cargo.args(["test", "--workspace", "--exclude", "lockstep", "--tests"]).args(locked(machine));
    shell::run(&mut cargo)?;
    let mut cargo = machine.cargo();
    shell::run(
        cargo.args(["test", "--package", "lockstep", "--lib", "--bins"]).args(locked(machine)),
    )
}

/// What `unit` has tried on SQLite and a folder, once more on what carries more than one server.
fn server(machine: &Machine) -> Result<(), Failure> {
    let postgres = services::postgres(machine)?;
    let objects = services::object_store(machine)?;
    let mut cargo = if has_nextest() {
        let mut cargo = nextest(machine);
        cargo.args(["--workspace", "-E", "package(=lockstep-server)"]);
        cargo
    } else {
        let mut cargo = machine.cargo();
        cargo.args(["test", "--package", "lockstep-server"]).args(locked(machine));
        cargo
    };
    cargo.env("LOCKSTEP_TEST_DATABASE", &postgres.url);
    cargo.env("LOCKSTEP_TEST_OBJECTS", "s3://lockstep");
    cargo.env("AWS_ENDPOINT", &objects.url).env("AWS_ALLOW_HTTP", "true");
    cargo.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    cargo.env("AWS_REGION", "us-east-1");
    shell::run(&mut cargo)
}

/// Optimised, and with the tables that it is about.
fn power(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["test", "--release", "--package", "lockstep-sim", "--test", "power_loss"]);
    cargo.args(locked(machine));
    shell::run(cargo.args(["--", "--nocapture"]))
}

/// Optimised, and without the command around it, which takes longer to build than this to run.
fn sim(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["test", "--release", "--package", "lockstep-sim", "--test", "worlds"]);
    cargo.args(locked(machine));
    shell::run(cargo.args(["--", "--nocapture", "--test-threads=1"]))
}

/// What takes a minute or two when optimised; `docs/model.md` has the command for the rest. One
/// test after the other: each uses two processors.
fn model(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["test", "--release", "--package", "lockstep-sim", "--test", "model"]);
    cargo.args(locked(machine));
    cargo.args(["--", "--ignored", "--nocapture", "--test-threads=1"]);
    shell::run(cargo.args(["a_pair_with_two_faults", "two_members_with_one_fault"]))
}

fn planted(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["test", "--release", "--package", "lockstep-sim", "--features", "planted"]);
    cargo.args(["--test", "planted"]).args(locked(machine));
    shell::run(cargo.args(["--", "--nocapture"]))
}

fn doc(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["doc", "--workspace", "--no-deps"]).args(locked(machine));
    shell::run(cargo.env("RUSTDOCFLAGS", "-D warnings"))?;
    shell::run(machine.cargo().args(["test", "--workspace", "--doc"]).args(locked(machine)))
}

fn e2e(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = if has_nextest() {
        nextest(machine)
    } else {
        let mut cargo = machine.cargo();
        cargo.arg("test").args(locked(machine));
        cargo
    };
    // With the features that the unit tests were built with, so that nothing is built twice.
    if has_nextest() {
        let ours = "package(=lockstep) & kind(test) - binary(=page) - binary(=fleet)";
        cargo.args(["--workspace", "-E", ours]).args(at_once(WAITING_PER_CORE));
    } else {
        cargo.args(["--package", "lockstep", "--test", "e2e", "--test", "offline"]);
        cargo.args(["--test", "scripted"]);
    }
    for (name, tool) in [
        ("LOCKSTEP_ESPTOOL", Tool::Esptool),
        ("LOCKSTEP_MINISIGN", Tool::Minisign),
        ("LOCKSTEP_PLATFORMIO", Tool::PlatformIo),
        ("LOCKSTEP_CMAKE", Tool::Cmake),
    ] {
        if let Some(path) = machine.path_of(tool) {
            cargo.env(name, path);
        }
    }
    shell::run(cargo.env("LOCKSTEP_PYTHON", machine.venv().join("bin/python")))
}

fn fleet(machine: &Machine) -> Result<(), Failure> {
    let postgres = services::postgres(machine)?;
    let mut cargo = if has_nextest() {
        let mut cargo = nextest(machine);
        cargo.args(["--workspace", "-E", "package(=lockstep) & binary(=fleet)"]);
        cargo.args(at_once(SERVERS_PER_CORE));
        cargo
    } else {
        let mut cargo = machine.cargo();
        cargo.args(["test", "--package", "lockstep", "--test", "fleet"]).args(locked(machine));
        cargo.args(["--", "--test-threads=2"]);
        cargo
    };
    let schemathesis = machine.path_of(Tool::Schemathesis).unwrap_or_default();
    cargo.env("LOCKSTEP_SCHEMATHESIS", schemathesis);
    shell::run(cargo.env("LOCKSTEP_TEST_DATABASE", &postgres.url))
}

/// Few at once: each has a browser and two devices.
fn page(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = if has_nextest() {
        let mut cargo = nextest(machine);
        cargo.args(["--workspace", "-E", "package(=lockstep) & binary(=page)"]);
        cargo.args(at_once(BROWSERS_PER_CORE));
        cargo
    } else {
        let mut cargo = machine.cargo();
        cargo.args(["test", "--package", "lockstep", "--test", "page"]).args(locked(machine));
        cargo.args(["--", "--test-threads=1"]);
        cargo
    };
    for (name, tool) in [
        ("LOCKSTEP_CHROMIUM", Tool::Chromium),
        ("LOCKSTEP_CHROMEDRIVER", Tool::ChromeDriver),
        ("LOCKSTEP_AXE", Tool::AxeCore),
    ] {
        if let Some(path) = machine.path_of(tool) {
            cargo.env(name, path);
        }
    }
    shell::run(&mut cargo)
}

/// Rollouts in a row with power cuts, far more than the ordinary run has time for.
pub(crate) fn soak(machine: &Machine, rollouts: u32, seed: u64) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["test", "--release", "--package", "lockstep", "--test", "e2e"]);
    cargo.args(locked(machine)).args(["--", "soak::", "--nocapture"]);
    cargo.env("LOCKSTEP_SOAK_ROLLOUTS", rollouts.to_string());
    cargo.env("LOCKSTEP_SOAK_SEED", seed.to_string());
    shell::run(&mut cargo)
}

/// By the program that the end-to-end tests use: an optimised one takes many times as long to build
/// as both demonstrations take to run.
fn demo(machine: &Machine) -> Result<(), Failure> {
    let mut cargo = machine.cargo();
    cargo.args(["test", "--no-run", "--workspace", "--test", "e2e"]).args(locked(machine));
    shell::run(&mut cargo)?;
    let program = machine.target.join("debug/lockstep");
    for which in [&["--headless"][..], &["--headless", "--fleet", "--mqtt"]] {
        shell::run(std::process::Command::new(&program).arg("demo").args(which))?;
    }
    Ok(())
}

fn deny(machine: &Machine) -> Result<(), Failure> {
    let program = machine.path_of(Tool::CargoDeny).unwrap_or_else(|| Tool::CargoDeny.name().into());
    let mut cargo_deny = std::process::Command::new(program);
    // Known vulnerabilities are in a database on the internet: `cargo deny check advisories`.
    cargo_deny.args(["--log-level", "error", "check", "bans", "licenses", "sources"]);
    shell::run(cargo_deny.current_dir(&machine.root))
}

/// The end-to-end tests of one module, such as `chip::`, so many at once for each core.
pub(crate) fn e2e_tests(machine: &Machine, module: &str, per_core: usize) -> std::process::Command {
    if has_nextest() {
        let mut cargo = nextest(machine);
        let filter = format!("package(=lockstep) & binary(=e2e) & test(/^{module}/)");
        cargo.args(["--workspace", "-E", &filter]).args(at_once(per_core));
        return cargo;
    }
    let mut cargo = machine.cargo();
    cargo.args(["test", "--package", "lockstep", "--test", "e2e"]).args(locked(machine));
    cargo.args(["--", module]);
    cargo
}

fn nextest(machine: &Machine) -> std::process::Command {
    let mut cargo = machine.cargo();
    cargo.args(["nextest", "run"]).args(locked(machine));
    if machine.ci {
        cargo.args(["--profile", "ci"]);
    }
    cargo
}

/// So many tests at once for each core.
fn at_once(per_core: usize) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    vec![format!("--test-threads={}", per_core * cores)]
}

/// End-to-end tests wait most of the time: for a reboot, a deadline, each other.
pub(crate) const WAITING_PER_CORE: usize = 3;
/// A server and its leads work more than they wait.
const SERVERS_PER_CORE: usize = 2;
/// A browser does all the more.
const BROWSERS_PER_CORE: usize = 1;

fn has_nextest() -> bool {
    shell::on_path("cargo-nextest").is_some()
}

/// In CI a lock file that does not fit the manifests is an error, not something to mend in passing.
fn locked(machine: &Machine) -> Option<&'static str> {
    machine.ci.then_some("--locked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lack() -> Failure {
        Failure::Missing { tool: "minisign", reason: "not here".into() }
    }

    #[test]
    fn a_missing_tool_fails_its_suite_where_nobody_watches() {
        let machine = |ci| Machine { root: ".".into(), target: "target".into(), ci };
        assert!(matches!(missing(lack(), &machine(true)), Outcome::Failed(_)));
        assert!(matches!(missing(lack(), &machine(false)), Outcome::Skipped(_)));
    }

    #[test]
    fn one_failed_suite_fails_the_run() {
        let rows = [
            ("fmt", Outcome::Passed, 0.1),
            ("e2e", Outcome::Failed(lack()), 0.2),
            ("unit", Outcome::Passed, 0.3),
        ];
        assert!(matches!(summarize(&rows), Err(Failure::Suites { count: 1 })));
    }

    #[test]
    fn a_skipped_suite_does_not_fail_the_run() {
        assert!(summarize(&[("deny", Outcome::Skipped(lack()), 0.0)]).is_ok());
    }

    #[test]
    fn suites_have_names_of_their_own() {
        for (index, suite) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(index + 1).all(|other| other.name != suite.name));
        }
    }
}
