//! The timeline of a fleet: who did what when, as the server's campaign tells it.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anstyle::Style;

use super::desk::{FleetDesk, LOOK_EVERY};
use crate::error::CommandError;
use crate::fleet::Page;
use crate::fleet::answers::Campaign;
use crate::ui::{Ui, listed, tame};

/// What has been told so far.
pub(super) struct Tale<'u> {
    ui: &'u Ui,
    begun: Instant,
    state: String,
    standings: BTreeMap<String, String>,
}

impl<'u> Tale<'u> {
    pub(super) fn new(ui: &'u Ui, begun: Instant) -> Self {
        Self { ui, begun, state: String::new(), standings: BTreeMap::new() }
    }

    /// A line of the timeline.
    pub(super) fn say(&self, text: &str) -> Result<(), CommandError> {
        let ms = self.begun.elapsed().as_millis();
        let (seconds, tenths, dim) = (ms / 1000, ms % 1000 / 100, Style::new().dimmed());
        self.ui.line(format_args!("  {dim}{seconds:3}.{tenths} s{dim:#}  {text}"))
    }

    /// Tells a campaign until it is as it should be; `what` says so in an error.
    pub(super) fn follow(
        &mut self,
        desk: &mut FleetDesk,
        id: &str,
        limit: Duration,
        what: &str,
        is_there: impl Fn(&Campaign) -> bool,
    ) -> Result<Campaign, CommandError> {
        self.state.clear();
        self.standings.clear();
        let (path, begun) = (format!("/api/campaigns/{id}"), Instant::now());
        loop {
            let campaign = desk.server().get::<Page<Campaign>>(&path)?.shown;
            self.tell(&campaign)?;
            if is_there(&campaign) {
                return Ok(campaign);
            }
            if begun.elapsed() > limit {
                let (seconds, state) = (limit.as_secs(), &campaign.state);
                let standings =
                    campaign.groups.iter().map(|it| format!("{} {}", it.name, it.standing));
                return Err(CommandError::failed(format!(
                    "The campaign `{}` was not {what} within {seconds} s; it is {state}",
                    campaign.name
                ))
                .detailed(listed(standings), None));
            }
            desk.check_alive()?;
            sleep(LOOK_EVERY);
        }
    }

    /// What is new: one line for each standing.
    fn tell(&mut self, campaign: &Campaign) -> Result<(), CommandError> {
        let mut news: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
        for group in &campaign.groups {
            let before = self.standings.insert(group.group.clone(), group.standing.clone());
            if before.as_ref() != Some(&group.standing) && group.standing != "waits" {
                let cause = group.cause.as_deref().filter(|cause| !cause.is_empty());
                let cause = cause.map(|cause| format!(" ({})", tame(cause))).unwrap_or_default();
                let key = (group.wave + 1, group.standing.clone());
                news.entry(key).or_default().push(format!("{}{cause}", group.name));
            }
        }
        for ((wave, standing), names) in news {
            self.say(&format!("wave {wave}  {standing:7}  {}", listed(names)))?;
        }
        if self.state != campaign.state {
            self.state.clone_from(&campaign.state);
            let why = if campaign.why.is_empty() { "" } else { ": " };
            self.say(&format!("campaign {}{why}{}", campaign.state, tame(&campaign.why)))?;
        }
        Ok(())
    }
}
