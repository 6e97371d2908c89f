//! `lockstep demo`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use anstyle::{AnsiColor, Style};
use lockstep_sim::board::random_password;
use serde_json::{Value, json};

use crate::demo::{self, Desk, Outcome, Plan, ROLES, Step};
use crate::error::CommandError;
use crate::ui::Ui;

/// Show what Lockstep does, on two desk devices
///
/// Starts a receiver, which leads, and a transmitter, each a process with a flash and a bootloader
/// of its own, and rolls out three signed releases: a good one, one whose transmitter never gets
/// healthy, one whose transmitter crashes at boot. Afterwards the devices stay up, to be tried.
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

    /// Where devices and releases are kept, a new or empty folder [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn demo(ui: &Ui, args: &DemoArgs) -> Result<(), CommandError> {
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

/// How this command is called from here.
fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("lockstep"));
    let here = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(here).unwrap_or(&program).display().to_string()
}

/// Ctrl-C, or a request to end.
///
/// While rollouts run it ends the demo at once, and the temporary folder with it; the devices end
/// when their input does. Afterwards it ends the stay.
struct Interrupt {
    stays: Arc<AtomicBool>,
    came: mpsc::Receiver<Result<(), CommandError>>,
}

impl Interrupt {
    fn watch(folder: Option<PathBuf>) -> Self {
        let (sender, came) = mpsc::channel();
        let stays = Arc::new(AtomicBool::new(false));
        let is_staying = Arc::clone(&stays);
        thread::spawn(move || {
            let ended = wait_for_interrupt();
            if ended.is_ok() && !is_staying.load(Ordering::SeqCst) {
                if let Some(folder) = folder {
                    // Whatever is left of it harms nobody.
                    let _ = std::fs::remove_dir_all(folder);
                }
                std::process::exit(EXIT_INTERRUPTED);
            }
            // Without a receiver the demo is over already.
            let _ = sender.send(ended);
        });
        Self { stays, came }
    }

    /// Until somebody ends it; the devices end with it.
    fn wait(&self) -> Result<(), CommandError> {
        self.stays.store(true, Ordering::SeqCst);
        // Without a sender its thread has panicked: then there is nothing to wait for.
        self.came.recv().unwrap_or(Ok(()))
    }
}

/// What a shell expects of a command that Ctrl-C ended: 128 and the signal's number.
const EXIT_INTERRUPTED: i32 = 130;

fn wait_for_interrupt() -> Result<(), CommandError> {
    let failed =
        |error: &std::io::Error| CommandError::failed("Cannot wait for Ctrl-C").because(error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| failed(&error))?;
    runtime
        .block_on(async {
            #[cfg(unix)]
            {
                use tokio::signal::unix::{SignalKind, signal};
                let mut ended = signal(SignalKind::terminate())?;
                tokio::select! {
                    done = tokio::signal::ctrl_c() => done,
                    _ = ended.recv() => Ok(()),
                }
            }
            #[cfg(not(unix))]
            tokio::signal::ctrl_c().await
        })
        .map_err(|error| failed(&error))
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
