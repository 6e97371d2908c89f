//! Follows a rollout from outside until it is settled.
//!
//! The lead reboots in the middle of its own rollouts, so silence is expected, and has a limit.
//! What is shown is what the devices say of themselves: bytes in their flash, not bytes sent.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::client::api::{Cause, History, Rollout, RolloutAnswer};
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::ui::{Ui, listed, tame};

/// How a rollout ended.
#[derive(Debug, Clone)]
pub struct Conclusion {
    /// Its id.
    pub id: String,
    /// `forward`, `back` or `repair`.
    pub kind: String,
    /// `keep` or `revert`.
    pub verdict: String,
    /// Why it was reverted.
    pub cause: Option<Cause>,
    /// The release it went to.
    pub release: String,
    /// The roles that took part, if they are known.
    pub roles: Vec<String>,
}

impl Conclusion {
    /// Whether the group is on the release that it was to go to.
    pub fn is_kept(&self) -> bool {
        self.verdict == "keep"
    }

    /// In one sentence without its full stop.
    pub fn sentence(&self) -> String {
        let Self { release, roles, .. } = self;
        let (who, runs) = match roles.as_slice() {
            [] => ("all devices".to_owned(), "run"),
            [one] => (one.clone(), "runs"),
            many => (listed(many), "run"),
        };
        match (self.is_kept(), self.kind.as_str(), &self.cause) {
            (true, "back", _) => format!("Back on {release}: {who} {runs} it"),
            (true, "repair", _) => format!("Repaired: {who} {runs} {release}"),
            (true, _, _) => format!("Kept: {who} {runs} {release}"),
            (false, _, Some(cause)) => {
                let who = cause.member.as_ref().map_or_else(String::new, |id| format!(" ({id})"));
                format!("The rollout of {release} was reverted: {}{who}", tame(&cause.text))
            }
            (false, _, None) => format!("The rollout of {release} was reverted"),
        }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let cause = self.cause.as_ref();
        json!({
            "rollout": self.id,
            "kind": self.kind,
            "verdict": self.verdict,
            "release": self.release,
            "cause": cause.map(|cause| {
                json!({ "code": cause.code, "member": cause.member, "text": cause.text })
            }),
        })
    }
}

/// Waits until rollout `id` is settled.
pub fn follow(ui: &Ui, client: &Client, id: &str) -> Result<Conclusion, CommandError> {
    let mut progress = Progress::new(ui);
    let mut heard = Instant::now();
    // Once our rollout was seen, its members are known even if the lead forgets it.
    let mut roles = Vec::new();
    loop {
        match client.get::<RolloutAnswer>("/api/rollout") {
            Ok(RolloutAnswer { rollout: Some(rollout) }) if rollout.id == id => {
                heard = Instant::now();
                progress.show(&rollout);
                roles = taking_part(&rollout);
                if rollout.is_settled() {
                    return Ok(conclusion(rollout));
                }
            }
            // Settled and gone, or not taken up again after a reboot: the history knows.
            Ok(_) => {
                if let Some(conclusion) = from_history(client, id, &roles)? {
                    return Ok(conclusion);
                }
            }
            Err(error) if error.is_passing() => progress.silent(client.device()),
            Err(error) => return Err(error.into()),
        }
        if heard.elapsed() > SILENCE_MAX {
            let seconds = SILENCE_MAX.as_secs();
            return Err(CommandError::failed(format!(
                "Device `{}` has told nothing of rollout {id} for {seconds} s",
                client.device()
            ))
            .hinted("The group ends the rollout by itself. Look again later: lockstep status"));
        }
        thread::sleep(POLL_EVERY);
    }
}

fn taking_part(rollout: &Rollout) -> Vec<String> {
    rollout.members.iter().map(|member| tame(&member.role)).collect()
}

fn conclusion(rollout: Rollout) -> Conclusion {
    Conclusion {
        roles: taking_part(&rollout),
        id: rollout.id,
        kind: rollout.kind,
        verdict: rollout.verdict.unwrap_or_default(),
        cause: rollout.cause,
        release: tame(&rollout.release),
    }
}

fn from_history(
    client: &Client,
    id: &str,
    roles: &[String],
) -> Result<Option<Conclusion>, CommandError> {
    let history = match client.get::<History>("/api/history") {
        Ok(History { history }) => history,
        Err(error) if error.is_passing() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = history.into_iter().find(|outcome| outcome.rollout == id);
    Ok(found.map(|outcome| Conclusion {
        id: outcome.rollout,
        kind: outcome.kind,
        verdict: outcome.verdict,
        cause: outcome.cause,
        release: tame(&outcome.release),
        roles: roles.to_vec(),
    }))
}

/// The rollout that is running or was the last, if there is one and the device tells.
pub fn current(client: &Client) -> Result<Option<Rollout>, ClientError> {
    match client.get::<RolloutAnswer>("/api/rollout") {
        Ok(answer) => Ok(answer.rollout),
        Err(error) if error.code() == Some("not-the-lead") => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a person sees of a rollout: a bar for each member that is staged, and the phase.
pub struct Progress<'u> {
    ui: &'u Ui,
    phase: String,
    spinner: Option<ProgressBar>,
    bars: BTreeMap<String, ProgressBar>,
    is_silent: bool,
}

impl<'u> Progress<'u> {
    /// Nothing yet.
    pub fn new(ui: &'u Ui) -> Self {
        let (phase, spinner, bars) = (String::new(), None, BTreeMap::new());
        Self { ui, phase, spinner, bars, is_silent: false }
    }

    /// The device answers, this.
    pub fn show(&mut self, rollout: &Rollout) {
        if self.is_silent || self.phase != rollout.phase {
            self.is_silent = false;
            self.phase.clone_from(&rollout.phase);
            self.say(&phase_text(rollout));
        }
        for member in rollout.members.iter().filter(|member| member.size_bytes > 0) {
            let ui = self.ui;
            let bar = self.bars.entry(member.id.clone()).or_insert_with(|| {
                ui.bytes_bar(format!("{} in flash", tame(&member.role)), member.size_bytes)
            });
            bar.set_position(member.staged_bytes);
            bar.set_message(tame(&member.state));
        }
    }

    /// The device does not answer.
    pub fn silent(&mut self, device: &str) {
        if !self.is_silent {
            self.is_silent = true;
            self.say(&format!("Device `{device}` does not answer; it is rebooting, perhaps"));
        }
    }

    fn say(&mut self, text: &str) {
        if !self.ui.shows_progress() {
            return self.ui.note(text);
        }
        let ui = self.ui;
        let spinner = self.spinner.get_or_insert_with(|| ui.spinner(""));
        spinner.set_message(text.to_owned());
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bars.values().chain(&self.spinner).for_each(ProgressBar::finish_and_clear);
    }
}

/// What a phase means to somebody who waits.
fn phase_text(rollout: &Rollout) -> String {
    let release = tame(&rollout.release);
    match rollout.phase.as_str() {
        "preflight" => "Asking every member whether it can take the release".to_owned(),
        "staging" if rollout.kind != "forward" => {
            format!("Looking whether every member still has {release} in its other slot")
        }
        "staging" if rollout.held => format!("Every member gets {release}, and waits with it"),
        "staging" => format!("Bringing {release} into the other slot of every member"),
        "rest" => "Waiting until every application is at rest".to_owned(),
        "trial" => format!("Running {release} on trial"),
        "settling" if rollout.verdict.as_deref() == Some("keep") => {
            "Making it permanent".to_owned()
        }
        "settling" => "Going back".to_owned(),
        "settled" => "Settled".to_owned(),
        other => format!("Phase {}", tame(other)),
    }
}

/// How long a lead may be silent: two boots and a scan for its peers.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often a device is asked how far it is.
pub const POLL_EVERY: Duration = Duration::from_millis(300);
