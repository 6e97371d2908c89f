//! `lockstep demo`.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use lockstep_sim::board::random_password;
use serde_json::{Value, json};

use crate::demo::fleet::{After, Mqtt, Telling};
use crate::demo::{self, Desk, Interrupt, Outcome, Plan, ROLES, Step, program};
use crate::error::CommandError;
use crate::ui::Ui;

/// Show what Lockstep does, on two desk devices
///
/// Starts a receiver, which leads, and a transmitter, each a process with a flash and a bootloader
/// of its own, and rolls out three signed releases: a good one, one whose transmitter never gets
/// healthy, one whose transmitter crashes at boot. Afterwards the devices stay up, to be tried.
///
/// With --fleet there are twenty pairs and a server: a campaign whose canary fails and which pauses
/// by itself, then one that brings all pairs to a release in three waves.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Print one line for each rollout, end after the last, and succeed only if all went as
    /// expected
    #[arg(long)]
    headless: bool,

    /// Use the real images be-2can-s3 and be-can485, 12.1.0 and 12.2.0, in this folder: an update,
    /// a revert, and an abort
    #[arg(long, value_name = "DIR")]
    firmware: Option<PathBuf>,

    /// Show a fleet: a server, twenty pairs, and two campaigns
    #[arg(long, conflicts_with = "firmware")]
    fleet: bool,

    /// With a broker on this machine (mosquitto, if it is installed), which all devices and the
    /// server tell how they are
    #[arg(long, requires = "fleet")]
    mqtt: bool,

    /// Leave the fleet running afterwards, with its console, until Ctrl-C
    #[arg(long, requires = "fleet", conflicts_with = "headless")]
    keep: bool,

    /// Where devices and releases are kept, a new or empty folder [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn demo(ui: &Ui, args: &DemoArgs) -> Result<(), CommandError> {
    if args.fleet {
        let telling = if args.headless { Telling::Results } else { Telling::Everything };
        let after = if args.keep { After::Stay } else { After::End };
        let mqtt = if args.mqtt { Mqtt::On } else { Mqtt::Off };
        return demo::fleet::play(ui, args.dir.as_deref(), telling, mqtt, after);
    }
    let password = random_password()
        .map_err(|error| CommandError::failed("Cannot make a password").because(&error))?;
    let mut desk = Desk::set_up(args.dir.as_deref(), password)?;
    play(ui, args, &mut desk).map_err(|error| {
        desk.keep_folder();
        error.hinted(format!("What the devices said is in {}", desk.folder().display()))
    })
}

fn play(ui: &Ui, args: &DemoArgs, desk: &mut Desk) -> Result<(), CommandError> {
    let interrupt = Interrupt::watch(desk.temporary_folder());
    demo::write_secrets(desk.folder(), desk.password())?;
    let plan = match &args.firmware {
        None => demo::generated(desk.folder())?,
        Some(firmware) => demo::real(ui, desk.folder(), firmware)?,
    };
    // Progress is for people who look on: the story of each rollout says more than its remains.
    let quiet = Ui::new(true);
    let progress = if args.headless || !ui.shows_progress() { &quiet } else { ui };
    let begun = start(progress, desk, &plan)?;
    if !args.headless {
        say_devices(ui, desk, begun)?;
    }
    let mut before = begun;
    let mut results = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        if !args.headless {
            say_step(ui, step, index + 1, plan.steps.len())?;
        }
        let outcome = demo::run(progress, desk, &plan, step, before)?;
        match args.headless {
            true => ui.line(headless_line(step, &outcome))?,
            false => say_outcome(ui, step, &outcome)?,
        }
        before = step.ends_on;
        results.push((step, outcome));
    }
    let all_expected = results.iter().all(|(_, outcome)| outcome.is_as_expected());
    ui.json(&to_json(desk, &results, all_expected))?;
    if !args.headless {
        say_farewell(ui, desk, &plan)?;
        interrupt.wait()?;
    }
    match all_expected {
        true => Ok(()),
        false => Err(CommandError::failed("Not every rollout ended as expected")),
    }
}

/// Switches the devices on; returns what they run.
fn start(
    ui: &Ui,
    desk: &mut Desk,
    plan: &Plan,
) -> Result<lockstep_proto::version::ReleaseVersion, CommandError> {
    let spinner = ui.spinner("Starting two devices");
    let started = desk.start(&plan.seats);
    spinner.finish_and_clear();
    started?;
    let first = plan.releases.first();
    Ok(first.map_or(super::device::FIRST_VERSION, |release| release.version))
}

fn say_devices(
    ui: &Ui,
    desk: &Desk,
    version: lockstep_proto::version::ReleaseVersion,
) -> Result<(), CommandError> {
    ui.line(format_args!("{BOLD}Two desk devices, one group{BOLD:#}"))?;
    for device in desk.devices() {
        let (role, address) = (device.role(), device.address());
        let (style, duty) = (style_of(role), if role == ROLES[0] { "lead  " } else { "member" });
        ui.line(format_args!(
            "  {style}{role:11}{style:#}  {duty}  runs {version}  http://{address}/"
        ))?;
    }
    Ok(())
}

fn say_step(ui: &Ui, step: &Step, number: usize, count: usize) -> Result<(), CommandError> {
    ui.line(format_args!("\n{BOLD}{number}/{count}  {}{BOLD:#}", step.title))?;
    ui.line(format_args!("     {DIM}expected{DIM:#}   {}", step.expected))
}

fn say_outcome(ui: &Ui, step: &Step, outcome: &Outcome) -> Result<(), CommandError> {
    ui.line("")?;
    for moment in &outcome.story {
        let style = style_of(&moment.role);
        let (seconds, hundredths) = (moment.at_ms / 1000, moment.at_ms % 1000 / 10);
        ui.line(format_args!(
            "  {DIM}{seconds:3}.{hundredths:02} s{DIM:#}  {style}{:11}{style:#}  {}",
            moment.role, moment.text
        ))?;
    }
    ui.line("")?;
    let cause = outcome.cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
    ui.line(format_args!("     {DIM}verdict{DIM:#}    {}{cause}", outcome.verdict))?;
    ui.line(format_args!("     {DIM}disagreed{DIM:#}  {}", outcome.disagreement()))?;
    if outcome.is_as_expected() {
        return ui.line(format_args!(
            "     {DIM}outcome{DIM:#}    {GOOD}as expected{GOOD:#}: {}",
            step.expected
        ));
    }
    for surprise in &outcome.surprises {
        ui.line(format_args!(
            "     {DIM}outcome{DIM:#}    {BAD}not as expected{BAD:#}: {surprise}"
        ))?;
    }
    Ok(())
}

fn headless_line(step: &Step, outcome: &Outcome) -> String {
    let runs = outcome
        .runs
        .iter()
        .map(|(role, version, image)| format!("{role} {version} ({})", demo::short(image)));
    let runs = runs.collect::<Vec<_>>().join(", ");
    let result = match outcome.is_as_expected() {
        true => format!("{GOOD}ok{GOOD:#}    "),
        false => format!("{BAD}FAILED{BAD:#}"),
    };
    let surprises: String =
        outcome.surprises.iter().map(|surprise| format!("; {surprise}")).collect();
    let (title, verdict, disagreed) = (&step.title, &outcome.verdict, outcome.disagreement());
    format!("{result}  {title}: {verdict}; {runs}; members disagreed for {disagreed}{surprises}")
}

fn say_farewell(ui: &Ui, desk: &Desk, plan: &Plan) -> Result<(), CommandError> {
    ui.line(format_args!("\n{BOLD}The devices stay up until Ctrl-C{BOLD:#}"))?;
    for device in desk.devices() {
        let (role, address) = (device.role(), device.address());
        let style = style_of(role);
        ui.line(format_args!("  {style}{role:11}{style:#}  http://{address}/"))?;
    }
    ui.line(format_args!("  password     {}", desk.password()))?;
    let lead = desk.devices().first().map_or("", |device| device.address());
    let bundles = plan.releases.iter().filter_map(|release| release.bundle.as_ref());
    let bundle = bundles.map(|bundle| bundle.path.display().to_string()).next_back();
    let (program, folder) = (program(), desk.folder().display());
    ui.line("\nTry, in another terminal:")?;
    ui.line(format_args!("  {program} status --device {lead}"))?;
    ui.line(format_args!("  {program} history --device {lead}"))?;
    ui.line(format_args!(
        "  {program} update --device {lead} --password-file {folder}/password \\\n      {}",
        bundle.unwrap_or_default()
    ))
}

fn to_json(desk: &Desk, results: &[(&Step, Outcome)], all_expected: bool) -> Value {
    let devices = desk
        .devices()
        .iter()
        .map(|device| json!({ "role": device.role(), "address": device.address() }));
    let rollouts = results.iter().map(|(step, outcome)| outcome.to_json(step));
    json!({
        "as_expected": all_expected,
        "devices": devices.collect::<Vec<_>>(),
        "password": desk.password(),
        "dir": desk.folder().display().to_string(),
        "rollouts": rollouts.collect::<Vec<_>>(),
    })
}

fn style_of(role: &str) -> Style {
    match role == ROLES[0] {
        true => AnsiColor::Cyan.on_default(),
        false => AnsiColor::Magenta.on_default(),
    }
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
