//! What the API answers, as it goes over the wire: made from what is in the tables, and described
//! in the API's document by the same types.

mod install;
mod releases;

use std::collections::BTreeMap;

use jiff::Timestamp;
use lockstep_proto::version::ReleaseVersion;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub(super) use install::{Build, Install, Ota, Part};
pub(super) use releases::{CheckedRelease, NewRelease, OneRelease, Releases, Withdrawn};

use super::contract::{Address, Identity, Moment, Version};
use crate::campaign::{Standing, State, Wave};
use crate::check;
use crate::fleet::Mode;
use crate::store;

/// A page of groups.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Groups {
    /// By name.
    pub(super) groups: Vec<Group>,
    /// What `after` of the next page is; null: there is none.
    pub(super) next: Option<String>,
}

/// A group as lists have it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Group {
    #[schema(value_type = Identity)]
    id: String,
    /// What people call it.
    name: String,
    /// What it is chosen by.
    labels: BTreeMap<String, String>,
    /// Its time zone, such as `Europe/Berlin`; empty: UTC.
    zone: String,
    /// When it may be touched, such as `mon-fri 22:00-05:00`; empty: at any time.
    hours: String,
    mode: Mode,
    /// The board that leads it.
    #[schema(value_type = Address)]
    lead: String,
    #[schema(value_type = Moment)]
    enrolled_at: Timestamp,
    /// When its lead checked in last.
    #[schema(value_type = Option<Moment>)]
    seen_at: Option<Timestamp>,
    /// The product of its lead's image.
    system: Option<String>,
    /// The release that all of it runs.
    #[schema(value_type = Option<Version>)]
    version: Option<String>,
    /// The phase of its open rollout.
    phase: Option<String>,
    /// What a person should look at.
    attention: Option<String>,
    /// What its lead said last of what it was offered, if that was no.
    offer_answer: Option<String>,
}

impl From<&store::groups::Group> for Group {
    fn from(group: &store::groups::Group) -> Self {
        let it = group.clone();
        let labels = it.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            labels: labels.collect(),
            id: it.id,
            name: it.name,
            zone: it.zone,
            hours: it.hours,
            mode: it.mode,
            lead: it.lead,
            enrolled_at: it.enrolled_at,
            seen_at: it.seen_at,
            system: it.system,
            version: shown_version(it.number),
            phase: some(it.phase),
            attention: some(it.attention),
            offer_answer: it.offer_answer,
        }
    }
}

/// One group.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneGroup {
    pub(super) group: WholeGroup,
}

/// A group with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WholeGroup {
    #[serde(flatten)]
    pub(super) group: Group,
    /// The lead first.
    pub(super) devices: Vec<Device>,
    /// Rollouts that are over, newest first; at most 200.
    pub(super) history: Vec<PastRollout>,
    /// What happened, newest first; at most 200.
    pub(super) events: Vec<Event>,
    /// The campaign that it is in, or was in last.
    #[schema(value_type = Option<Identity>)]
    pub(super) campaign: Option<String>,
    /// What its lead said last: answers of the device's own API, by their names; empty before it
    /// has come.
    #[schema(value_type = Object)]
    pub(super) documents: Value,
}

/// A device of a group.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Device {
    id: String,
    /// What it is for; empty if it has not said.
    role: String,
    /// Whether it leads.
    lead: bool,
    /// The SHA-256 of its image, or the beginning of it; empty if it is not known.
    image: String,
    #[schema(value_type = Option<Version>)]
    version: Option<String>,
    /// Whether its link carries data both ways.
    linked: bool,
}

impl From<store::groups::Device> for Device {
    fn from(it: store::groups::Device) -> Self {
        let version = shown_version(it.number);
        let (id, role, image) = (it.id, it.role, it.image);
        Self { id, role, lead: it.is_lead, image, version, linked: it.is_linked }
    }
}

/// A rollout that is over.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PastRollout {
    rollout: String,
    /// `forward`, `back` or `repair`.
    kind: String,
    /// `keep` or `revert`.
    verdict: String,
    /// The cause's code, if it was reverted.
    cause: Option<String>,
    /// The same for people.
    why: Option<String>,
    /// Where it led.
    #[schema(value_type = Option<Version>)]
    version: Option<String>,
    /// Where it came from.
    #[schema(value_type = Option<Version>)]
    version_before: Option<String>,
    /// When the server heard of its end.
    #[schema(value_type = Moment)]
    told_at: Timestamp,
    /// So long its members ran different releases, in seconds, as its lead has it.
    disagreed_s: Option<u32>,
}

impl From<store::groups::PastRollout> for PastRollout {
    fn from(it: store::groups::PastRollout) -> Self {
        Self {
            rollout: it.id,
            kind: it.kind,
            verdict: it.verdict,
            cause: some(it.cause),
            why: some(it.why),
            version: shown_version(it.number),
            version_before: shown_version(it.number_before),
            told_at: it.told_at,
            disagreed_s: it.disagreed_s,
        }
    }
}

/// Something that happened in a group.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Event {
    /// When the server heard of it.
    #[schema(value_type = Moment)]
    at: Timestamp,
    /// `debug`, `info`, `notice`, `warning` or `error`.
    level: String,
    /// `log` for a line of the lead's log, else what the server saw.
    kind: String,
    /// For people.
    text: String,
}

impl From<store::groups::Event> for Event {
    fn from(it: store::groups::Event) -> Self {
        Self { at: it.at, level: it.level, kind: it.kind, text: it.said }
    }
}

/// Tokens of groups that are to come.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Enrolments {
    /// Newest first; at most 200.
    pub(super) enrolments: Vec<Enrolment>,
}

/// A token that lets a lead in and was not used; not its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Enrolment {
    #[schema(value_type = Identity)]
    id: String,
    /// The name that the group will have.
    name: String,
    /// As `key=value,key=value`.
    labels: String,
    /// Its time zone; empty: UTC.
    zone: String,
    /// The group whose lead is replaced; null: a new group.
    #[schema(value_type = Option<Identity>)]
    group: Option<String>,
    #[schema(value_type = Moment)]
    made_at: Timestamp,
    made_by: String,
    #[schema(value_type = Moment)]
    expires_at: Timestamp,
}

impl From<store::groups::Enrolment> for Enrolment {
    fn from(it: store::groups::Enrolment) -> Self {
        Self {
            id: it.id,
            name: it.name,
            labels: it.labels.to_string(),
            zone: it.zone,
            group: it.group,
            made_at: it.made_at,
            made_by: it.made_by,
            expires_at: it.expires_at,
        }
    }
}

/// A new token for a lead.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewEnrolmentToken {
    /// Its secret, which is told only now.
    pub(super) token: String,
    #[schema(value_type = Moment)]
    pub(super) expires_at: Timestamp,
    /// What to start the lead with.
    pub(super) command: String,
}

/// An order that waits for the lead.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ordered {
    #[schema(value_type = Identity)]
    pub(super) order: String,
}

/// What was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    #[schema(value_type = Identity)]
    pub(super) changed: String,
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Removed {
    #[schema(value_type = Identity)]
    pub(super) removed: String,
}

/// What was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revoked {
    #[schema(value_type = Identity)]
    pub(super) revoked: String,
}

/// All campaigns.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Campaigns {
    /// Newest first; at most 200.
    pub(super) campaigns: Vec<Campaign>,
}

/// A campaign as lists have it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Campaign {
    #[schema(value_type = Identity)]
    id: String,
    /// What people call it.
    name: String,
    /// The identity of the release that it brings.
    #[schema(value_type = Identity)]
    release: String,
    state: State,
    /// Why it is paused or over; empty: nothing to say.
    why: String,
    /// More failures than these, and it pauses.
    failures_max: usize,
    /// Nothing is offered before this moment.
    #[schema(value_type = Option<Moment>)]
    not_before: Option<Timestamp>,
    waves: Vec<Wave>,
    #[schema(value_type = Moment)]
    made_at: Timestamp,
    made_by: String,
    /// When it was over.
    #[schema(value_type = Option<Moment>)]
    ended_at: Option<Timestamp>,
}

impl From<&store::campaigns::Campaign> for Campaign {
    fn from(campaign: &store::campaigns::Campaign) -> Self {
        let it = campaign.clone();
        Self {
            id: it.id,
            name: it.name,
            release: it.release,
            state: it.plan.state,
            why: it.why,
            failures_max: it.plan.failures_max,
            not_before: it.plan.not_before,
            waves: it.plan.waves,
            made_at: it.made_at,
            made_by: it.made_by,
            ended_at: it.ended_at,
        }
    }
}

/// A campaign that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewCampaign {
    pub(super) campaign: Campaign,
}

/// One campaign.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneCampaign {
    pub(super) campaign: WholeCampaign,
}

/// A campaign with its groups.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WholeCampaign {
    #[serde(flatten)]
    pub(super) campaign: Campaign,
    pub(super) counts: Counts,
    /// In the order of waves and names.
    pub(super) groups: Vec<Participant>,
}

/// How many groups of a campaign stand how.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Counts {
    waits: usize,
    offered: usize,
    began: usize,
    kept: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    pub(super) fn of(groups: &[store::campaigns::Participant]) -> Self {
        let count = |standing| groups.iter().filter(|it| it.standing == standing).count();
        Self {
            waits: count(Standing::Waits),
            offered: count(Standing::Offered),
            began: count(Standing::Began),
            kept: count(Standing::Kept),
            failed: count(Standing::Failed),
            skipped: count(Standing::Skipped),
        }
    }
}

/// A group in a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Participant {
    /// Its identity.
    #[schema(value_type = Identity)]
    group: String,
    name: String,
    /// In which wave its turn comes, from 0.
    wave: usize,
    standing: Standing,
    /// Since when it stands so.
    #[schema(value_type = Moment)]
    since: Timestamp,
    /// Why it failed or is left out; empty: nothing to say.
    cause: String,
    /// The cause's code; empty: it has none.
    code: String,
    /// What it ran when the campaign began.
    #[schema(value_type = Option<Version>)]
    version_before: Option<String>,
    /// The phase of its open rollout; empty: none.
    phase: String,
    /// When its lead was heard last.
    #[schema(value_type = Option<Moment>)]
    seen_at: Option<Timestamp>,
    /// What its lead says of the offer, if that is not yes.
    offer_answer: Option<String>,
}

impl From<store::campaigns::Participant> for Participant {
    fn from(it: store::campaigns::Participant) -> Self {
        Self {
            group: it.group,
            name: it.name,
            wave: it.wave,
            standing: it.standing,
            since: it.since,
            cause: it.cause,
            code: it.code,
            version_before: shown_version(it.number_before),
            phase: it.phase,
            seen_at: it.seen_at,
            offer_answer: it.offer_answer,
        }
    }
}

/// What would go wrong with a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Findings {
    /// The worst first.
    pub(super) findings: Vec<check::Finding>,
}

/// The campaign that pauses.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Paused {
    #[schema(value_type = Identity)]
    pub(super) paused: String,
}

/// The campaign that goes on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Resumed {
    #[schema(value_type = Identity)]
    pub(super) resumed: String,
}

/// The campaign that was ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Aborted {
    #[schema(value_type = Identity)]
    pub(super) aborted: String,
}

/// The wave that may begin.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Approved {
    /// From 1.
    pub(super) approved: usize,
}

/// The groups that go back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reverting {
    #[schema(value_type = Vec<Identity>)]
    pub(super) reverting: Vec<String>,
}

/// The group that gets another chance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Retried {
    #[schema(value_type = Identity)]
    pub(super) retried: String,
}

/// A version for people; null: it is not known.
fn shown_version(number: u32) -> Option<String> {
    (number > 0).then(|| ReleaseVersion::from_number(number).to_string())
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
