//! One step of the demo: a rollout from its beginning to what both devices run afterwards.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lockstep_proto::descriptor::Role;
use lockstep_proto::version::ReleaseVersion;
use serde_json::{Value, json};

use super::Desk;
use super::desk::LOOK_EVERY;
use super::releases::{Act, Bundle, Plan, ROLES, Step};
use super::timeline::{self, ConsoleLine, Moment};
use crate::client::api::{Rollout, Version};
use crate::client::{Client, ClientError, Watch};
use crate::commands::device::Kind;
use crate::commands::update::deliver;
use crate::error::CommandError;
use crate::follow::{self, Progress};
use crate::ui::{Ui, tame};

/// How one step ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `keep` or `revert`.
    pub(crate) verdict: String,
    /// Why it was reverted.
    pub(crate) cause: Option<String>,
    /// What each device runs: role, version, hash of the image.
    pub(crate) runs: Vec<(&'static str, String, String)>,
    /// What is not as it was expected to be.
    pub(crate) surprises: Vec<String>,
    /// Who did what when.
    pub(crate) story: Vec<Moment>,
    /// Intervals in which the devices did not run the same release.
    pub(crate) disagreed_ms: Vec<u64>,
}

impl Outcome {
    pub(crate) const fn is_as_expected(&self) -> bool {
        self.surprises.is_empty()
    }

    /// How long the devices disagreed, in words.
    pub(crate) fn disagreement(&self) -> String {
        let seconds = |ms: u64| format!("{}.{:02} s", ms / 1000, ms % 1000 / 10);
        let total = self.disagreed_ms.iter().sum();
        match self.disagreed_ms.as_slice() {
            [] => "0 s".to_owned(),
            [_] => seconds(total),
            parts => {
                let parts: Vec<String> = parts.iter().map(|&part| seconds(part)).collect();
                format!("{} ({})", seconds(total), parts.join(" + "))
            }
        }
    }

    pub(crate) fn to_json(&self, step: &Step) -> Value {
        let runs = self.runs.iter().map(
            |(role, version, image)| json!({ "role": role, "version": version, "image": image }),
        );
        json!({
            "title": step.title,
            "expected": step.expected,
            "as_expected": self.is_as_expected(),
            "surprises": self.surprises,
            "verdict": self.verdict,
            "cause": self.cause,
            "runs": runs.collect::<Vec<_>>(),
            "disagreed_ms": self.disagreed_ms,
            "timeline": self.story.iter().map(Moment::to_json).collect::<Vec<_>>(),
        })
    }
}

/// Does what the step says; `ui` shows the progress. `before` is what the devices run.
pub(crate) fn run(
    ui: &Ui,
    desk: &mut Desk,
    plan: &Plan,
    step: &Step,
    before: ReleaseVersion,
) -> Result<Outcome, CommandError> {
    let (lines, from_ms) = (desk.lines_printed(), unix_ms());
    let lead = desk.client(ROLES[0])?;
    let id = match step.act {
        Act::Update(version) => {
            let bytes = Arc::new(bundle(plan, version)?.bytes.clone());
            deliver(ui, &lead, &bytes, &version.to_string(), false)?
        }
        Act::Revert => lead.order("/api/rollout/revert")?.rollout,
        Act::AbortWhileStaging(version) => abort_while_staging(&lead, bundle(plan, version)?)?,
    };
    let rollout = wait_until_settled(ui, desk, &lead, &id)?;
    let mut surprises = Vec::new();
    let verdict = rollout.verdict.unwrap_or_default();
    if verdict != step.verdict {
        surprises.push(format!("the verdict is `{}`, expected `{}`", tame(&verdict), step.verdict));
    }
    let runs = check_images(desk, plan, step.ends_on, &mut surprises)?;
    // The last lines are on their way from the consoles.
    thread::sleep(LOOK_EVERY * 2);
    let lines = desk.lines_since(lines);
    let restarted = lines.iter().find(|line| line.kind.as_deref() == Some("reset"));
    if let (Act::AbortWhileStaging(_), Some(line)) = (step.act, restarted) {
        surprises.push(format!("the {} was restarted before the abort", line.role));
    }
    let release_of = |image: &str| plan.release_of(image);
    Ok(Outcome {
        verdict,
        cause: rollout.cause.map(|cause| with_roles(&tame(&cause.text))),
        runs,
        surprises,
        story: story(&lines, from_ms),
        disagreed_ms: timeline::disagreements_ms(&lines, &ROLES, release_of, &before.to_string()),
    })
}

fn story(lines: &[ConsoleLine], from_ms: u64) -> Vec<Moment> {
    let named = |moment: Moment| Moment { text: with_roles(&moment.text), ..moment };
    timeline::story(lines, from_ms).into_iter().map(named).collect()
}

/// Devices are known by their roles here, not by their addresses.
fn with_roles(text: &str) -> String {
    let mut text = text.replace('`', "");
    for role in ROLES {
        if let Ok(name) = Role::new(role) {
            text = text.replace(&Kind::of(&name).id.to_string(), role);
        }
    }
    text
}

fn bundle(plan: &Plan, version: ReleaseVersion) -> Result<&Bundle, CommandError> {
    plan.release(version)
        .and_then(|release| release.bundle.as_ref())
        .ok_or_else(|| CommandError::failed(format!("There is no bundle of release {version}")))
}

/// Hands the bundle over and takes it back as soon as bytes of it are in flash.
fn abort_while_staging(lead: &Client, bundle: &Bundle) -> Result<String, CommandError> {
    let before = follow::current(lead)?.map(|rollout| rollout.id);
    let (sender, upload) = mpsc::channel();
    let (uploader, bytes) = (lead.clone(), bundle.bytes.clone());
    thread::spawn(move || {
        // How it ends is of no interest: it is cut off.
        let _ = sender.send(uploader.upload(&bytes, None, false, &Arc::new(Watch::default())));
    });
    let since = Instant::now();
    let id = loop {
        if let Ok(Err(error)) = upload.try_recv() {
            return Err(error.into());
        }
        let now = follow::current(lead)?.filter(|rollout| Some(&rollout.id) != before.as_ref());
        if let Some(rollout) = now.filter(|it| it.members.iter().any(|it| it.staged_bytes > 0)) {
            break rollout.id;
        }
        if since.elapsed() > STAGING_MAX {
            let seconds = STAGING_MAX.as_secs();
            return Err(CommandError::failed(format!("Nothing was staged within {seconds} s")));
        }
        thread::sleep(ABORT_LOOK_EVERY);
    };
    lead.order("/api/rollout/abort")?;
    // The upload ends with the rollout; whatever it says, it must not outlive this step.
    let _ = upload.recv_timeout(STAGING_MAX);
    Ok(id)
}

fn wait_until_settled(
    ui: &Ui,
    desk: &mut Desk,
    lead: &Client,
    id: &str,
) -> Result<Rollout, CommandError> {
    let mut progress = Progress::new(ui);
    let since = Instant::now();
    loop {
        match follow::current(lead) {
            Ok(Some(rollout)) if rollout.id == id => {
                progress.show(&rollout);
                if rollout.is_settled() {
                    return Ok(rollout);
                }
            }
            Ok(_) => (),
            Err(error) if error.is_passing() => progress.silent(lead.device()),
            Err(error) => return Err(error.into()),
        }
        desk.check_alive()?;
        if since.elapsed() > ROLLOUT_MAX {
            let seconds = ROLLOUT_MAX.as_secs();
            return Err(CommandError::failed(format!(
                "Rollout {id} is not over after {seconds} s"
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Asks every device what it runs, until it is what is expected or time is up.
fn check_images(
    desk: &Desk,
    plan: &Plan,
    expected: ReleaseVersion,
    surprises: &mut Vec<String>,
) -> Result<Vec<(&'static str, String, String)>, CommandError> {
    let images = plan.release(expected).map(|release| release.images.as_slice());
    let mut runs = Vec::new();
    for (role, image) in images.unwrap_or_default() {
        let client = desk.client(role)?;
        let since = Instant::now();
        let is_right = |found: &Version| found.image == *image && !found.on_trial;
        let found = loop {
            match client.get::<Version>("/api/version") {
                Ok(found) if is_right(&found) => break Ok(found),
                other if since.elapsed() > ANSWER_MAX => break other,
                Ok(_) | Err(_) => thread::sleep(LOOK_EVERY),
            }
        };
        match found {
            Ok(found) => {
                if !is_right(&found) {
                    let trial = if found.on_trial { ", on trial" } else { "" };
                    surprises.push(format!(
                        "the {role} runs {} (image {}){trial}, expected {expected} (image {})",
                        tame(&found.version),
                        short(&found.image),
                        short(image)
                    ));
                }
                runs.push((*role, tame(&found.version), tame(&found.image)));
            }
            Err(error) => surprises.push(silent(role, &error)),
        }
    }
    Ok(runs)
}

fn silent(role: &str, error: &ClientError) -> String {
    format!("the {role} does not say what it runs: {error}")
}

/// Enough of a hash to tell images apart.
pub(crate) fn short(hash: &str) -> String {
    tame(hash).chars().take(8).collect()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A whole rollout on a desk takes a few seconds, two trials that fail included.
const ROLLOUT_MAX: Duration = Duration::from_secs(60);
/// From handing over a bundle to its first bytes in flash.
const STAGING_MAX: Duration = Duration::from_secs(30);
/// Staging on a desk is fast: look often.
const ABORT_LOOK_EVERY: Duration = Duration::from_millis(10);
/// A device that settled says at once what it runs, unless it is restarting.
const ANSWER_MAX: Duration = Duration::from_secs(10);
