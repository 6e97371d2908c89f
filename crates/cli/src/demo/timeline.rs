//! Who did what when: the consoles of all devices as one story, and how long the devices disagreed.

use serde::Deserialize;
use serde_json::{Value, json};

/// One line of a device's console (`lockstep device --json-log`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsoleLine {
    /// When, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// Which device.
    pub(crate) role: String,
    /// What kind of thing, for programs.
    pub(crate) kind: Option<String>,
    /// What, for people.
    pub(crate) text: String,
    /// The image that runs now, with `boot`.
    pub(crate) image: Option<String>,
    /// The phase that began, with `entered`.
    pub(crate) phase: Option<String>,
    /// What the bootloader did, with `bootloader`.
    pub(crate) event: Option<String>,
    /// Where the API is served, with `power-on`.
    pub(crate) address: Option<String>,
}

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since the rollout was asked for.
    pub(crate) at_ms: u64,
    /// Which device says so.
    pub(crate) role: String,
    /// What.
    pub(crate) text: String,
}

impl Moment {
    pub(crate) fn to_json(&self) -> Value {
        json!({ "at_ms": self.at_ms, "role": self.role, "text": self.text })
    }
}

/// What matters of `lines`, in the order in which it happened. `from_ms` is when it began.
pub(crate) fn story(lines: &[ConsoleLine], from_ms: u64) -> Vec<Moment> {
    let moment = |line: &ConsoleLine| {
        let text = telling(line)?;
        let at_ms = line.unix_ms.saturating_sub(from_ms);
        Some(Moment { at_ms, role: line.role.clone(), text })
    };
    let mut story: Vec<Moment> = Vec::new();
    for moment in in_order(lines).into_iter().filter_map(moment) {
        // A lead that was restarted finds out once more what it had told already.
        let told = story.iter().any(|it| (&it.role, &it.text) == (&moment.role, &moment.text));
        if !told {
            story.push(moment);
        }
    }
    story
}

/// The line in the words of the story; `None` if it does not matter there.
fn telling(line: &ConsoleLine) -> Option<String> {
    let text = &line.text;
    Some(match (line.kind.as_deref()?, line.phase.as_deref()) {
        ("entered", Some("preflight")) => "asks every member whether it can take it".to_owned(),
        ("entered", Some("staging")) => "every member can take it: staging begins".to_owned(),
        ("entered", Some("rest")) => "all have staged: asks every application to rest".to_owned(),
        ("entered", Some("trial")) => "all are at rest: the trial begins".to_owned(),
        ("reset", _) => format!("restarts {}", text.strip_prefix("restarts ").unwrap_or(text)),
        ("bootloader", _) if line.event.as_deref() == Some("aborted") => {
            "bootloader: this image had its one boot, back to the old one".to_owned()
        }
        ("bootloader" | "power-on" | "password" | "radio", _) => return None,
        _ => text.replace('`', ""),
    })
}

/// Intervals, in milliseconds, in which the devices did not all run the same release. `releases`
/// tells the release of an image.
pub(crate) fn disagreements_ms(
    lines: &[ConsoleLine],
    roles: &[&str],
    release_of: impl Fn(&str) -> Option<String>,
    at_first: &str,
) -> Vec<u64> {
    let mut running: Vec<(&str, Option<String>)> =
        roles.iter().map(|role| (*role, Some(at_first.to_owned()))).collect();
    let mut since = None;
    let mut intervals = Vec::new();
    for line in in_order(lines) {
        let now = match line.kind.as_deref() {
            Some("boot") => line.image.as_deref().and_then(&release_of),
            Some("reset" | "fault") => None,
            _ => continue,
        };
        let Some(entry) = running.iter_mut().find(|(role, _)| *role == line.role) else { continue };
        entry.1 = now;
        let first = running.first().and_then(|(_, release)| release.clone());
        let agree = first.is_some() && running.iter().all(|(_, release)| *release == first);
        match (agree, since) {
            (false, None) => since = Some(line.unix_ms),
            (true, Some(from)) => {
                intervals.push(line.unix_ms.saturating_sub(from));
                since = None;
            }
            (true, None) | (false, Some(_)) => (),
        }
    }
    intervals
}

/// Devices print their lines in order; between devices only the clock of the machine decides.
fn in_order(lines: &[ConsoleLine]) -> Vec<&ConsoleLine> {
    let mut lines: Vec<&ConsoleLine> = lines.iter().collect();
    lines.sort_by_key(|line| line.unix_ms);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(unix_ms: u64, role: &str, kind: &str, image: &str) -> ConsoleLine {
        ConsoleLine {
            unix_ms,
            role: role.to_owned(),
            kind: Some(kind.to_owned()),
            image: Some(image.to_owned()),
            ..ConsoleLine::default()
        }
    }

    fn release_of(image: &str) -> Option<String> {
        image.get(1..).map(str::to_owned)
    }

    #[test]
    fn disagreement_counts_from_the_first_that_leaves_to_the_last_that_arrives() {
        let lines = [
            line(130, "b", "reset", ""),
            line(100, "a", "reset", ""),
            line(310, "a", "boot", "a2"),
            line(350, "b", "boot", "b2"),
            line(900, "b", "fault", ""),
            line(1100, "b", "boot", "b1"),
            line(1200, "a", "reset", ""),
            line(1400, "a", "boot", "a1"),
        ];
        let intervals = disagreements_ms(&lines, &["a", "b"], release_of, "1");
        assert_eq!(intervals, [250, 500]);
    }

    #[test]
    fn the_story_is_told_in_the_order_of_the_clock_and_without_noise() {
        let lines = [
            ConsoleLine { text: "`b` has staged".into(), ..line(120, "a", "staged", "") },
            line(110, "b", "radio", ""),
            ConsoleLine { phase: Some("rest".into()), ..line(90, "a", "entered", "") },
        ];
        let story = story(&lines, 80);
        let told: Vec<_> = story.iter().map(|it| (it.at_ms, it.text.as_str())).collect();
        assert_eq!(
            told,
            [(10, "all have staged: asks every application to rest"), (40, "b has staged")]
        );
    }
}
