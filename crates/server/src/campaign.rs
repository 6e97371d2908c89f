//! A campaign: many groups brought to one release, in waves. Decides who may have the release now,
//! and when to stop; does no I/O, and knows no clock but the moment that it is given.
//!
//! ```text
//!            approve            all of a wave kept, and soaked
//!   Running ◄────────── waits ◄───────────────────────────────┐
//!    │  ▲    (a wave that needs it)                           │
//!    │  │ resume                                              │
//!    ▼  │                                       Running ──────┴──────► Done
//!   Paused: by a person, or by too many failures      │
//!                                                     └─ a person ──► Aborted
//! ```
//!
//! A group that has begun goes on by itself, whatever becomes of the campaign: that is its lead's
//! affair. A campaign only offers; what it offered and was not begun it takes back.

use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::hours::Hours;

/// How a group stands in a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its turn has not come.
    Waits,
    /// Its lead may begin whenever it asks.
    Offered,
    /// Its lead has begun a rollout.
    Began,
    /// It runs the release, and has kept it.
    Kept,
    /// Its rollout came to nothing.
    Failed,
    /// It is left out: it runs the release already, or would not take it.
    Skipped,
}

impl Standing {
    /// All, in the order in which they follow each other.
    pub const ALL: [Self; 6] =
        [Self::Waits, Self::Offered, Self::Began, Self::Kept, Self::Failed, Self::Skipped];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Offered => "offered",
            Self::Began => "began",
            Self::Kept => "kept",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl FromStr for Standing {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|it| it.as_str() == text).ok_or(())
    }
}

/// One group of a campaign.
#[derive(Debug, Clone)]
pub struct Member {
    /// Which group.
    pub group: String,
    /// In which wave its turn comes, from 0.
    pub wave: usize,
    /// How it stands.
    pub standing: Standing,
    /// Since when.
    pub since: Timestamp,
    /// When it may be touched, by its own clock.
    pub hours: Hours,
}

/// One step of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wave {
    /// Its share of all groups, in percent.
    pub percent: u8,
    /// Nobody of it is offered anything before a person has said so.
    pub needs_approval: bool,
    /// A person has said so.
    pub is_approved: bool,
    /// So long everybody of it must have kept the release before the next wave begins, in seconds.
    pub soak_s: u32,
    /// The next wave does not wait longer than this for those who have not begun, in seconds; they
    /// may begin later. `None`: it waits.
    pub patience_s: Option<u32>,
}

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = CampaignState)]
pub enum State {
    /// It offers.
    Running,
    /// It offers nothing: a person said so, or it did by itself.
    Paused,
    /// It is over: a person ended it.
    Aborted,
    /// Nobody is left to be offered anything.
    Done,
}

impl State {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Aborted => "aborted",
            Self::Done => "done",
        }
    }

    /// Whether a group of it can be in no other.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Running | Self::Paused => true,
            Self::Aborted | Self::Done => false,
        }
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Running, Self::Paused, Self::Aborted, Self::Done];
        all.into_iter().find(|it| it.as_str() == text).ok_or(())
    }
}

/// What a campaign goes by.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it stands.
    pub state: State,
    /// Its steps.
    pub waves: Vec<Wave>,
    /// More failures than these, in all waves so far, and it pauses.
    pub failures_max: usize,
    /// Nothing is offered before this moment.
    pub not_before: Option<Timestamp>,
}

/// What follows from how things stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Groups that may have the release from now on.
    pub offers: Vec<String>,
    /// Groups that have it offered, and may not have it any more.
    pub withdrawals: Vec<String>,
    /// The campaign's next state and why, if it changes.
    pub state: Option<(State, String)>,
}

/// What a campaign waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// Groups of this wave.
    Groups(usize),
    /// A person's word for this wave.
    Approval(usize),
    /// The moment before which nothing is offered.
    Start,
    /// Groups of this wave have to keep the release for a while.
    Soak(usize),
    /// Nothing: everybody is through.
    Nothing,
}

impl Plan {
    /// What is to be done now. Asked again, nothing new follows from the same.
    pub fn decide(&self, now: Timestamp, members: &[Member]) -> Decision {
        match self.state {
            State::Running => self.decide_running(now, members),
            State::Paused | State::Aborted | State::Done => {
                Decision { withdrawals: offered(members).collect(), ..Decision::default() }
            }
        }
    }

    fn decide_running(&self, now: Timestamp, members: &[Member]) -> Decision {
        let failed = members.iter().filter(|it| it.standing == Standing::Failed).count();
        if failed > self.failures_max {
            let groups = if failed == 1 { "group" } else { "groups" };
            let why = format!("{failed} {groups} failed, allowed are {}", self.failures_max);
            let withdrawals = offered(members).collect();
            let state = Some((State::Paused, why));
            return Decision { state, withdrawals, ..Decision::default() };
        }
        match self.waits_for(now, members) {
            WaitsFor::Start => {
                Decision { withdrawals: offered(members).collect(), ..Decision::default() }
            }
            WaitsFor::Nothing => {
                Decision { state: Some((State::Done, String::new())), ..Decision::default() }
            }
            // Whoever was too late for its own wave may still begin.
            WaitsFor::Groups(wave) => of_open_waves(wave, now, members),
            WaitsFor::Approval(wave) | WaitsFor::Soak(wave) => match wave.checked_sub(1) {
                Some(before) => of_open_waves(before, now, members),
                None => Decision { withdrawals: offered(members).collect(), ..Decision::default() },
            },
        }
    }

    /// What it waits for while it runs.
    pub fn waits_for(&self, now: Timestamp, members: &[Member]) -> WaitsFor {
        if self.not_before.is_some_and(|moment| now < moment) {
            return WaitsFor::Start;
        }
        for (number, wave) in self.waves.iter().enumerate() {
            let mut of_wave = members.iter().filter(|it| it.wave == number).peekable();
            if of_wave.peek().is_none() {
                continue;
            }
            if wave.needs_approval && !wave.is_approved {
                return WaitsFor::Approval(number);
            }
            let (mut waits, mut soaks) = (false, false);
            for member in of_wave {
                match progress(wave, member, now) {
                    Progress::Over => (),
                    Progress::Soaks => soaks = true,
                    Progress::Open => waits = true,
                }
            }
            if waits {
                return WaitsFor::Groups(number);
            }
            if soaks {
                // The next wave's groups are not touched yet; late ones of this one may be.
                return WaitsFor::Soak(number + 1);
            }
        }
        let is_late = |it: &Member| matches!(it.standing, Standing::Waits | Standing::Offered);
        match members.iter().filter(|it| is_late(it)).map(|it| it.wave).max() {
            Some(wave) => WaitsFor::Groups(wave),
            None => WaitsFor::Nothing,
        }
    }
}

/// Offers to those whose turn has come and whose hours are now, and takes back from those whose
/// hours are over.
fn of_open_waves(last: usize, now: Timestamp, members: &[Member]) -> Decision {
    let mut decision = Decision::default();
    for member in members {
        let is_open = member.wave <= last && member.hours.has(now);
        match (member.standing, is_open) {
            (Standing::Waits, true) => decision.offers.push(member.group.clone()),
            (Standing::Offered, false) => decision.withdrawals.push(member.group.clone()),
            _ => (),
        }
    }
    decision
}

fn offered(members: &[Member]) -> impl Iterator<Item = String> {
    let offered = members.iter().filter(|it| it.standing == Standing::Offered);
    offered.map(|member| member.group.clone())
}

enum Progress {
    Open,
    Soaks,
    Over,
}

/// Whether the next wave has to wait for this group.
fn progress(wave: &Wave, member: &Member, now: Timestamp) -> Progress {
    let seconds = now.duration_since(member.since).as_secs();
    match member.standing {
        Standing::Waits | Standing::Began => Progress::Open,
        Standing::Offered => match wave.patience_s {
            Some(patience) if seconds >= i64::from(patience) => Progress::Over,
            _ => Progress::Open,
        },
        Standing::Kept if seconds < i64::from(wave.soak_s) => Progress::Soaks,
        Standing::Kept | Standing::Failed | Standing::Skipped => Progress::Over,
    }
}

/// What a lead's report means for its group's part in a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard<'a> {
    /// Whether every device runs the release that is offered, by hash.
    pub runs_it: bool,
    /// The rollout to that release that goes on.
    pub open: Option<&'a str>,
    /// Rollouts to that release that came to nothing, of which nothing was heard before: each with
    /// its identity and the code of its cause.
    pub reverted: &'a [(String, String)],
    /// Why the group would not take it, if that is for good.
    pub refused: Option<&'a str>,
}

impl Standing {
    /// How the group stands from now on, and the cause; `None`: as before.
    pub fn after(self, heard: &Heard<'_>) -> Option<(Self, String)> {
        let plain = |standing| Some((standing, String::new()));
        match (self, heard) {
            (Self::Waits, Heard { runs_it: true, .. }) => {
                Some((Self::Skipped, "runs it already".to_owned()))
            }
            (Self::Waits | Self::Skipped | Self::Kept, _) => None,
            // A person has brought it there.
            (Self::Failed, Heard { runs_it: true, open: None, .. }) => plain(Self::Kept),
            (Self::Failed, _) => None,
            // It runs everywhere on trial, too: then its rollout is still open.
            (Self::Offered | Self::Began, Heard { runs_it: true, open: None, .. }) => {
                plain(Self::Kept)
            }
            (Self::Offered, Heard { open: Some(_), .. }) => plain(Self::Began),
            (Self::Began, Heard { open: Some(_), .. }) => None,
            (Self::Offered | Self::Began, Heard { reverted: [.., (_, cause)], .. }) => {
                Some((Self::Failed, cause.clone()))
            }
            (Self::Offered, Heard { refused: Some(why), .. }) => {
                Some((Self::Failed, (*why).to_owned()))
            }
            (Self::Offered | Self::Began, _) => None,
        }
    }
}

/// What preflight says no to today and may say yes to tomorrow: the offer stands.
pub const PASSING_REFUSALS: [&str; 6] =
    ["unreachable", "on-trial", "low-heap", "bad-link", "mixed-group", "busy"];

/// Divides so many groups into waves: each wave has as many groups as its share of all, in percent
/// and counted from the first group on, asks for; at least one, and the last one has the rest.
pub fn waves_of(groups: usize, percents: &[u8]) -> Vec<usize> {
    let mut wave_of = Vec::with_capacity(groups);
    let mut total = 0_usize;
    for (number, &percent) in percents.iter().enumerate() {
        total += usize::from(percent);
        let is_last = number + 1 == percents.len();
        let least = (wave_of.len() + 1).min(groups);
        let until = if is_last { groups } else { (groups * total.min(100) / 100).max(least) };
        wave_of.resize(until.max(wave_of.len()), number);
    }
    wave_of
}

/// Reads how a campaign goes on in steps: `10,40,50` are three waves of so many percent. Behind a
/// percentage may stand `!` (needs approval).
pub fn read_waves(
    text: &str,
    soak_s: u32,
    patience_s: Option<u32>,
) -> Result<Vec<Wave>, WaveError> {
    let mut waves = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let (digits, needs_approval) = match part.strip_suffix('!') {
            Some(digits) => (digits, true),
            None => (part, false),
        };
        let percent = digits.trim_end_matches('%').parse().ok().filter(|it| (1..=100).contains(it));
        let percent =
            percent.ok_or_else(|| WaveError::NoShare { found: crate::fleet::excerpt(part) })?;
        waves.push(Wave { percent, needs_approval, is_approved: false, soak_s, patience_s });
    }
    let total: u32 = waves.iter().map(|wave| u32::from(wave.percent)).sum();
    if total != 100 {
        return Err(WaveError::Total { found: total });
    }
    if waves.len() > WAVES_MAX {
        return Err(WaveError::TooMany { found: waves.len() });
    }
    Ok(waves)
}

/// Why a text is no list of waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaveError {
    /// One is no share.
    NoShare {
        /// Its beginning.
        found: String,
    },
    /// Together they are not all.
    Total {
        /// In percent.
        found: u32,
    },
    /// More than a campaign has.
    TooMany {
        /// So many.
        found: usize,
    },
}

impl std::fmt::Display for WaveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoShare { found } => write!(
                f,
                "`{found}` is no wave, expected its share in percent from 1 to 100, with `!` \
                 behind it if a person is to approve it first"
            ),
            Self::Total { found } => {
                write!(f, "the waves are {found} percent together, expected 100")
            }
            Self::TooMany { found } => {
                write!(f, "{found} waves, a campaign has at most {WAVES_MAX}")
            }
        }
    }
}

impl std::error::Error for WaveError {}

/// Waves of one campaign, at most.
pub const WAVES_MAX: usize = 20;

#[cfg(test)]
#[path = "campaign_tests.rs"]
mod tests;
