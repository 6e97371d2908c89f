//! What the lead has heard of one member in this boot. Volatile: after a restart everybody is
//! asked again, so first try, retry and restart are one path.

use lockstep_proto::frame::report::{Facts, Report};
use lockstep_proto::time::Instant;

/// The lead's view of one member.
#[derive(Debug, Clone, Copy, Default)]
pub struct SeatView {
    /// What it is, once it said so.
    pub facts: Option<Facts>,
    /// Its last report that was not older than the one before.
    pub report: Option<Report>,
    /// When that report came.
    pub reported_at: Option<Instant>,
    /// When anything authentic of it came.
    pub heard_at: Option<Instant>,
    /// When it was last told or asked something.
    pub(crate) asked_at: Option<Instant>,
    /// Since when its reports say that it runs its target and is healthy.
    pub(crate) healthy_since: Option<Instant>,
    /// When last seen on its target it was not healthy: tells "unhealthy" from "crashed".
    pub(crate) is_ailing: bool,
    /// When it was told to activate the present attempt.
    pub(crate) activate_said_at: Option<Instant>,
    /// When it may be activated again after a fall back.
    pub(crate) backoff_until: Option<Instant>,
    /// How often it was told that everybody has kept the release.
    pub(crate) settled_said: u8,
    /// The last milestone that was told as an event.
    pub(crate) milestone: Milestone,
}

/// How far a member has come in the present phase, for events only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Milestone {
    #[default]
    None,
    Staged,
    AtRest,
    OnTarget,
    Healthy,
    FellBack,
}

impl SeatView {
    /// Whether a report came at or after `since`.
    pub(crate) fn reported_since(&self, since: Instant) -> bool {
        self.reported_at.is_some_and(|at| at >= since)
    }

    /// Whether a report came later than `moment`.
    pub(crate) fn reported_after(&self, moment: Instant) -> bool {
        self.reported_at.is_some_and(|at| at > moment)
    }

    /// Whether it is time to say something again.
    pub(crate) fn is_due(&self, now: Instant, interval_ms: u64) -> bool {
        self.asked_at.is_none_or(|at| now.ms_since(at) >= interval_ms)
    }
}
