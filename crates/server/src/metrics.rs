//! Figures for Prometheus: what this server counts, and how the fleet stands.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_proto::version::ReleaseVersion;

use crate::store::overview::{Count, by_number};

/// What this server has done since its start.
#[derive(Debug, Default)]
pub struct Metrics {
    check_ins: AtomicU64,
    check_ins_refused: AtomicU64,
    check_in_us: AtomicU64,
    polls: AtomicU64,
    bundles: AtomicU64,
}

/// What a check-in came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckIn {
    /// It was written.
    Taken,
    /// It was not.
    Refused,
}

impl Metrics {
    /// A check-in was answered after so many microseconds.
    pub fn check_in(&self, came_to: CheckIn, took_us: u64) {
        let counter = match came_to {
            CheckIn::Taken => &self.check_ins,
            CheckIn::Refused => &self.check_ins_refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.check_in_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// A lead has asked what it should run.
    pub fn poll(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// A lead has asked for a bundle.
    pub fn bundle(&self) {
        self.bundles.fetch_add(1, Ordering::Relaxed);
    }

    /// As Prometheus reads it (text format 0.0.4).
    pub fn text(&self, fleet: &Fleet) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut page = Page::default();
        page.head(
            "lockstep_check_ins_total",
            "counter",
            "Check-ins of leads, by what became of them",
        );
        page.line("lockstep_check_ins_total{result=\"taken\"}", get(&self.check_ins));
        page.line("lockstep_check_ins_total{result=\"refused\"}", get(&self.check_ins_refused));
        let help = "Time until check-ins were answered, all together";
        page.head("lockstep_check_in_seconds_sum", "counter", help);
        page.seconds("lockstep_check_in_seconds_sum", get(&self.check_in_us));
        page.head("lockstep_polls_total", "counter", "Questions of leads what they should run");
        page.line("lockstep_polls_total", get(&self.polls));
        page.head("lockstep_bundle_requests_total", "counter", "Questions of leads for a bundle");
        page.line("lockstep_bundle_requests_total", get(&self.bundles));
        fleet.put(&mut page);
        page.0
    }
}

/// How the fleet stands.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Groups that are alike.
    pub census: Vec<Count>,
    /// Campaigns by their state.
    pub campaigns: Vec<(&'static str, u64)>,
    /// Groups whose lead has not come for three polls.
    pub silent: u64,
    /// When the certificate ends that is shown, in seconds since 1970.
    pub certificate_ends_s: Option<u64>,
}

impl Fleet {
    fn put(&self, page: &mut Page) {
        page.head("lockstep_groups", "gauge", "Groups by the release that all of them run");
        for (number, groups) in by_number(&self.census) {
            let version = match number {
                0 => "unknown".to_owned(),
                number => ReleaseVersion::from_number(number).to_string(),
            };
            page.line(&format!("lockstep_groups{{release=\"{version}\"}}"), groups);
        }
        let sum = |is_it: fn(&Count) -> bool| {
            self.census.iter().filter(|it| is_it(it)).map(|it| it.groups).sum()
        };
        page.head("lockstep_groups_in_rollout", "gauge", "Groups with an open rollout");
        page.line("lockstep_groups_in_rollout", sum(|it| !it.phase.is_empty()));
        page.head("lockstep_groups_attention", "gauge", "Groups that a person should look at");
        page.line("lockstep_groups_attention", sum(|it| !it.attention.is_empty()));
        page.head("lockstep_groups_silent", "gauge", "Groups whose lead did not come for 3 polls");
        page.line("lockstep_groups_silent", self.silent);
        if let Some(at) = self.certificate_ends_s {
            let name = "lockstep_certificate_expires_timestamp_seconds";
            page.head(name, "gauge", "When the server's certificate ends, since 1970");
            page.line(name, at);
        }
        page.head("lockstep_campaigns", "gauge", "Campaigns by their state");
        for (state, campaigns) in &self.campaigns {
            page.line(&format!("lockstep_campaigns{{state=\"{state}\"}}"), *campaigns);
        }
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: u64) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn seconds(&mut self, name: &str, us: u64) {
        let _ = writeln!(self.0, "{name} {}.{:06}", us / 1_000_000, us % 1_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_figure_with_its_kind_and_its_help() {
        let metrics = Metrics::default();
        metrics.check_in(CheckIn::Taken, 1_500_000);
        metrics.check_in(CheckIn::Refused, 1);
        let count = |number, groups| {
            let (phase, attention) = (String::new(), String::new());
            Count { number, phase, attention, groups }
        };
        let census = vec![count(10_100, 3), count(0, 1), count(10_100, 2)];
        let campaigns = vec![("running", 1)];
        let text =
            metrics.text(&Fleet { census, campaigns, silent: 2, certificate_ends_s: Some(7) });
        for line in [
            "lockstep_check_ins_total{result=\"taken\"} 1",
            "lockstep_check_in_seconds_sum 1.500001",
            "lockstep_groups{release=\"1.1.0\"} 5",
            "lockstep_groups{release=\"unknown\"} 1",
            "lockstep_groups_silent 2",
            "lockstep_certificate_expires_timestamp_seconds 7",
            "lockstep_campaigns{state=\"running\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
