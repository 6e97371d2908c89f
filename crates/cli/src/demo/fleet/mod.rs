//! The fleet's demo: a server, twenty pairs, a campaign that stops at its canary, and one that goes
//! through.
//!
//! Everything is what a user has: devices are `lockstep device`, enrolled by tokens; releases are
//! published and campaigns made over the server's own API. What the last table says was asked of
//! every device, not of the server. Every wait has a limit, and says what did not happen.

mod broker;
mod desk;
mod tale;

use std::path::Path;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use lockstep_proto::version::ReleaseVersion;
use lockstep_sim::firmware::Fault;
use serde_json::{Value, json};

use super::releases::{Key, Release, made};
use super::{Interrupt, ROLES, program};
use crate::commands::device::{FIRST_VERSION, PRODUCT};
use crate::commands::publish::upload;
use crate::error::CommandError;
use crate::fleet::answers::Campaign;
use crate::fleet::paint;
use crate::ui::{Ui, table};
use desk::{ADMIN, FleetDesk, Runs};
use tale::Tale;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// What happens, and the last table.
    Everything,
    /// A line for each campaign.
    Results,
}

/// Whether there is a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mqtt {
    /// There is none.
    Off,
    /// All tell it how they are.
    On,
}

/// What becomes of the fleet when all is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It is cleared away.
    End,
    /// It stays until somebody ends it.
    Stay,
}

/// Shows it all.
pub(crate) fn play(
    ui: &Ui,
    folder: Option<&Path>,
    telling: Telling,
    mqtt: Mqtt,
    after: After,
) -> Result<(), CommandError> {
    let mut desk = FleetDesk::set_up(folder)?;
    let interrupt = Interrupt::watch(desk.temporary_folder());
    if mqtt == Mqtt::On {
        desk.start_broker()?;
    }
    show(ui, &mut desk, telling, after, &interrupt).map_err(|error| {
        desk.keep_folder();
        error.hinted(format!("What the devices said is in {}", desk.folder().display()))
    })
}

fn show(
    ui: &Ui,
    desk: &mut FleetDesk,
    telling: Telling,
    after: After,
    interrupt: &Interrupt,
) -> Result<(), CommandError> {
    // Its lines go nowhere.
    let quiet = Ui::new(true);
    let teller = if telling == Telling::Everything { ui } else { &quiet };
    let begun = Instant::now();
    let key = Key::make(desk.folder())?;
    let version = |minor| ReleaseVersion::new(1, minor, 0).unwrap_or(FIRST_VERSION);
    let releases = Releases {
        first: Release::of_images(FIRST_VERSION, &made(FIRST_VERSION, Fault::None)?),
        good: publishable(&key, desk.folder(), version(1), Fault::None)?,
        sick: publishable(&key, desk.folder(), version(2), Fault::NeverHealthy)?,
    };
    teller.line(format_args!("{BOLD}A server, and {PAIRS} pairs that come to it{BOLD:#}"))?;
    desk.serve(&key.public)?;
    desk.let_in(PAIRS, &key.arguments())?;
    let mut tale = Tale::new(teller, begun);
    tale.say(&format!("all {PAIRS} pairs are enrolled, and on {FIRST_VERSION}"))?;
    for release in [&releases.good, &releases.sick] {
        let bytes = release.bundle.as_ref().map(|it| it.bytes.clone()).unwrap_or_default();
        upload(&quiet, desk.server(), &release.version.to_string(), bytes)?;
        tale.say(&format!("published {}", release.version))?;
    }

    let stopped = canary(teller, desk, &mut tale, &releases)?;
    result(ui, telling, &stopped, "paused by itself, and its canary went back whole")?;
    let done = waves(teller, desk, &mut tale, &releases)?;
    result(ui, telling, &done, "every group runs the release")?;

    let runs = desk.runs()?;
    let rows = rows(&runs, &releases);
    teller.line("")?;
    teller.line(table(&rows))?;
    let seconds = begun.elapsed().as_secs();
    let whole = runs.iter().filter(|it| it.is_whole_on(&releases.good)).count();
    ui.line(format_args!(
        "{GOOD}{whole} of {PAIRS} groups are whole on {}{GOOD:#}, by the hashes of what their \
         devices run; {seconds} s",
        releases.good.version
    ))?;
    ui.json(&to_json(desk, &runs, &releases, &[&stopped, &done]))?;
    if after == After::Stay {
        say_farewell(ui, desk)?;
        interrupt.wait()?;
    }
    Ok(())
}

/// What there is to be rolled out.
struct Releases {
    first: Release,
    good: Release,
    sick: Release,
}

fn publishable(
    key: &Key,
    folder: &Path,
    version: ReleaseVersion,
    fault: Fault,
) -> Result<Release, CommandError> {
    key.release(folder, PRODUCT, version, made(version, fault)?)
}

/// The campaign of the release that never gets healthy: its canary fails, and nobody else is asked.
fn canary(
    ui: &Ui,
    desk: &mut FleetDesk,
    tale: &mut Tale<'_>,
    releases: &Releases,
) -> Result<Campaign, CommandError> {
    let version = releases.sick.version;
    ui.line("")?;
    ui.line(format_args!("{BOLD}1/2  A campaign of {version}, with a canary{BOLD:#}"))?;
    ui.line("     The transmitter's image never gets healthy.")?;
    let body = json!({
        "name": format!("{version} with a canary"), "release": version.to_string(),
        "canary": "stage=canary", "waves": "10,40,50",
    });
    let id = begin(desk, &body)?;
    let is_paused = |it: &Campaign| it.state == "paused" && it.count("began") == 0;
    let campaign = tale.follow(desk, &id, CANARY_MAX, "paused by itself", is_paused)?;
    say_picture(ui, &campaign)?;
    expect(&campaign, &[("failed", 1), ("waits", PAIRS - 1)])?;
    wait_whole(desk, &releases.first, "went back")?;
    let first = releases.first.version;
    tale.say(&format!("all {PAIRS} groups are whole on {first}: nobody else was asked"))?;
    // A group is in one open campaign at a time.
    desk.server().order::<Value>(&format!("/api/campaigns/{id}/abort"))?;
    tale.say("the campaign is aborted by its operator")?;
    Ok(campaign)
}

/// The campaign of the good release, in three waves.
fn waves(
    ui: &Ui,
    desk: &mut FleetDesk,
    tale: &mut Tale<'_>,
    releases: &Releases,
) -> Result<Campaign, CommandError> {
    let version = releases.good.version;
    ui.line("")?;
    ui.line(format_args!("{BOLD}2/2  A campaign of {version}, in waves of 10, 40, 50 %{BOLD:#}"))?;
    let body = json!({
        "name": format!("{version} in waves"), "release": version.to_string(), "waves": "10,40,50",
    });
    let id = begin(desk, &body)?;
    let is_done = |it: &Campaign| it.state == "done";
    let campaign = tale.follow(desk, &id, WAVES_MAX, "done", is_done)?;
    say_picture(ui, &campaign)?;
    expect(&campaign, &[("kept", PAIRS)])?;
    wait_whole(desk, &releases.good, "is whole on the release")?;
    Ok(campaign)
}

fn begin(desk: &FleetDesk, body: &Value) -> Result<String, CommandError> {
    let made: Value = desk.server().post("/api/campaigns", body)?;
    let id = made.pointer("/campaign/id").and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| CommandError::failed("The new campaign has no identity"))
}

fn say_picture(ui: &Ui, campaign: &Campaign) -> Result<(), CommandError> {
    ui.line("")?;
    ui.line(paint::campaign(campaign).join("\n"))
}

fn expect(campaign: &Campaign, standings: &[(&str, usize)]) -> Result<(), CommandError> {
    for &(standing, expected) in standings {
        let found = campaign.count(standing);
        if found != expected {
            return Err(CommandError::failed(format!(
                "In the campaign `{}` {found} groups stand as {standing}, expected {expected}",
                campaign.name
            )));
        }
    }
    Ok(())
}

/// Every device of every pair is asked what it runs.
fn wait_whole(desk: &mut FleetDesk, release: &Release, what: &str) -> Result<(), CommandError> {
    let begun = Instant::now();
    loop {
        let runs = desk.runs();
        let odd = match &runs {
            Ok(runs) => runs.iter().find(|it| !it.is_whole_on(release)).map(|it| it.name.clone()),
            Err(error) => Some(error.message().to_owned()),
        };
        let Some(odd) = odd else { return Ok(()) };
        if begun.elapsed() > WHOLE_MAX {
            let seconds = WHOLE_MAX.as_secs();
            return Err(CommandError::failed(format!(
                "Not every group {what} within {seconds} s: {odd}"
            )));
        }
        desk.check_alive()?;
        std::thread::sleep(desk::LOOK_EVERY);
    }
}

fn result(ui: &Ui, telling: Telling, campaign: &Campaign, words: &str) -> Result<(), CommandError> {
    match telling {
        Telling::Everything => Ok(()),
        Telling::Results => ui.line(format_args!("{GOOD}ok{GOOD:#}  {}: {words}", campaign.name)),
    }
}

fn rows(runs: &[Runs], releases: &Releases) -> Vec<Vec<String>> {
    let mut rows = vec![["GROUP", "RECEIVER", "TRANSMITTER", "WHOLE"].map(String::from).to_vec()];
    for run in runs {
        let mut row = vec![run.name.clone()];
        for device in &run.devices {
            row.push(format!("{} ({})", device.version, super::short(&device.image)));
        }
        row.push(if run.is_whole_on(&releases.good) { "yes" } else { "NO" }.to_owned());
        rows.push(row);
    }
    rows
}

fn to_json(desk: &FleetDesk, runs: &[Runs], releases: &Releases, campaigns: &[&Campaign]) -> Value {
    let groups = runs.iter().map(|run| {
        let devices = run.devices.iter().zip(ROLES).map(|(device, role)| {
            json!({ "role": role, "version": device.version, "image": device.image })
        });
        json!({
            "name": run.name, "whole": run.is_whole_on(&releases.good),
            "devices": devices.collect::<Vec<_>>(),
        })
    });
    let campaigns = campaigns.iter().map(|it| {
        let counts: Vec<_> = ["kept", "failed", "waits"].map(|of| (of, it.count(of))).to_vec();
        let counts: std::collections::BTreeMap<_, _> = counts.into_iter().collect();
        json!({ "name": it.name, "state": it.state, "why": it.why, "counts": counts })
    });
    json!({
        "server": desk.server().url(),
        "release": releases.good.version.to_string(),
        "groups": groups.collect::<Vec<_>>(),
        "campaigns": campaigns.collect::<Vec<_>>(),
    })
}

fn say_farewell(ui: &Ui, desk: &FleetDesk) -> Result<(), CommandError> {
    let (url, program, folder) = (desk.server().url(), program(), desk.folder().display());
    ui.line(format_args!("\n{BOLD}The fleet stays until Ctrl-C{BOLD:#}"))?;
    ui.line(format_args!("  console    {url}/"))?;
    ui.line(format_args!("  name       {ADMIN}"))?;
    ui.line(format_args!("  password   {}", desk.password()))?;
    if let Some(broker) = desk.broker() {
        ui.line(format_args!("  broker     {}", broker.url()))?;
    }
    ui.line("\nTry, in another terminal:")?;
    ui.line(format_args!(
        "  {program} login {url} --name {ADMIN} --password-file {folder}/password"
    ))?;
    ui.line(format_args!("  {program} group list"))?;
    ui.line(format_args!("  {program} campaign show '1.1.0 in waves'"))?;
    match desk.broker() {
        Some(broker) => {
            let port = broker.port;
            ui.line(format_args!("  mosquitto_sub -h 127.0.0.1 -p {port} -t 'lockstep/#' -v"))
        }
        None => Ok(()),
    }
}

/// So many groups.
const PAIRS: usize = 20;
/// A rollout that fails: staging, the limit of a trial, the way back.
const CANARY_MAX: Duration = Duration::from_secs(60);
/// Three waves of rollouts beside each other, on a machine that has other things to do.
const WAVES_MAX: Duration = Duration::from_secs(100);
/// From what the server knows to what all devices say of themselves.
const WHOLE_MAX: Duration = Duration::from_secs(20);
const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
