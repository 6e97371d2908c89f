//! What a lead says when it checks in, and what follows from it: no I/O.
//!
//! The documents are those of a device's own HTTP API (`docs/http-api.md`), as it would answer
//! them now. They are kept as they came; here is read what the server goes by. Fields that are not
//! known are passed over, so that an older server understands a newer device.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::contract::Address;
use crate::http::given::{whole, whole_maybe};
use crate::store::groups::{Device, PastRollout};

/// The body of `POST /api/lead/check-in`.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CheckIn {
    /// The board that speaks.
    #[schema(value_type = Address)]
    pub id: String,
    /// How it is.
    pub documents: Documents,
    /// Lines of its log that it has not told before.
    #[serde(default)]
    pub lines: Vec<Line>,
    /// What it makes of what it was offered.
    #[serde(default)]
    pub offer: Option<OfferAnswer>,
    /// Orders that it has carried out, or not.
    #[serde(default)]
    pub orders: Vec<OrderAnswer>,
}

/// Answers of the device's own API.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Documents {
    /// `GET /api/version`.
    #[schema(value_type = Version)]
    pub version: Box<RawValue>,
    /// `GET /api/group`.
    #[schema(value_type = GroupDocument)]
    pub group: Box<RawValue>,
    /// `GET /api/health`.
    #[schema(value_type = Health)]
    pub health: Box<RawValue>,
    /// `GET /api/rollout`.
    #[schema(value_type = RolloutDocument)]
    pub rollout: Box<RawValue>,
    /// `GET /api/history`.
    #[schema(value_type = History)]
    pub history: Box<RawValue>,
}

/// A line of the lead's log.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct Line {
    /// Counts the lines of one boot from 1, so that one that comes again is known; 0: not told.
    #[serde(default, deserialize_with = "whole")]
    pub seq: u32,
    /// `debug`, `info`, `notice`, `warning`, `error`.
    pub level: String,
    /// What happened.
    pub text: String,
}

/// What a lead makes of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct OfferAnswer {
    /// Which offer.
    pub id: String,
    /// How far it is.
    pub state: OfferState,
    /// Codes of what preflight refused.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// For people.
    #[serde(default)]
    pub text: String,
}

/// How far an offer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OfferState {
    /// A person is to say so first.
    Waits,
    /// The bundle is on its way.
    Fetching,
    /// The group does not take it.
    Refused,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct OrderAnswer {
    /// Which order.
    pub id: String,
    /// Empty: it was carried out; else why not.
    #[serde(default)]
    pub refused: String,
}

/// What a device says of itself and of those that it hears.
#[derive(Deserialize, ToSchema)]
#[schema(as = VersionDocument)]
struct Version {
    id: String,
    role: String,
    #[serde(default)]
    product: Option<String>,
    #[serde(deserialize_with = "whole")]
    version_number: u32,
    image: String,
    #[serde(default, deserialize_with = "whole")]
    boot_number: u32,
    #[serde(default)]
    peers: Vec<Peer>,
}

/// A device that the lead hears.
#[derive(Deserialize, ToSchema)]
#[schema(as = PeerOfLead)]
struct Peer {
    id: String,
    role: Option<String>,
    #[serde(default, deserialize_with = "whole_maybe")]
    version_number: Option<u32>,
    image: Option<String>,
    compatible: Option<bool>,
    why: Option<String>,
}

/// Who belongs to the group.
#[derive(Deserialize, ToSchema)]
#[schema(as = GroupDocument)]
struct GroupDocument {
    members: Vec<Member>,
}

/// A device of the group.
#[derive(Deserialize, ToSchema)]
#[schema(as = MemberOfGroup)]
struct Member {
    id: String,
    role: String,
    lead: bool,
    linked: bool,
}

/// What is wrong with the lead.
#[derive(Deserialize, ToSchema)]
#[schema(as = HealthDocument)]
struct Health {
    #[serde(default)]
    errors: Vec<String>,
}

/// The rollout that goes on, or the last one.
#[derive(Deserialize, ToSchema)]
#[schema(as = RolloutDocument)]
struct RolloutDocument {
    rollout: Option<Rollout>,
}

/// A rollout.
#[derive(Deserialize, ToSchema)]
#[schema(as = OpenRollout)]
struct Rollout {
    id: String,
    kind: String,
    phase: String,
    release: String,
}

/// Rollouts that are over.
#[derive(Deserialize, ToSchema)]
#[schema(as = HistoryDocument)]
struct History {
    history: Vec<Outcome>,
}

/// How a rollout ended.
#[derive(Deserialize, ToSchema)]
#[schema(as = RolloutOutcome)]
struct Outcome {
    rollout: String,
    kind: String,
    verdict: String,
    cause: Option<Cause>,
    release: String,
    release_before: Option<String>,
    #[serde(default, deserialize_with = "whole_maybe")]
    disagreed_s: Option<u32>,
}

/// Why a rollout was reverted.
#[derive(Deserialize, ToSchema)]
#[schema(as = RolloutCause)]
struct Cause {
    code: String,
    text: String,
}

/// What a lead said, as a number: equal ones say the same of everything that the server goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gist(pub i64);

/// What the server goes by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Report {
    /// The product of the lead's image.
    pub system: Option<String>,
    /// The devices, the lead among them.
    pub devices: Vec<Device>,
    /// Number of the release that all of them run; 0 if they differ, or one is unknown.
    pub number: u32,
    /// Counts the lead's boots; 0 if it has not said.
    pub boot: u32,
    /// The open rollout.
    pub open: Option<Open>,
    /// What a person should look at; empty: nothing.
    pub attention: String,
    /// Rollouts that are over, as the lead remembers them; the server's own moments are not set.
    pub past: Vec<Past>,
}

/// A rollout that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Open {
    /// Its identity.
    pub id: String,
    /// `forward`, `back`, `repair`.
    pub kind: String,
    /// Its phase.
    pub phase: String,
    /// Number of the release it leads to.
    pub number: u32,
}

/// A rollout that is over; see [`PastRollout`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Past {
    /// Its identity.
    pub id: String,
    /// `forward`, `back`, `repair`.
    pub kind: String,
    /// `keep` or `revert`.
    pub verdict: String,
    /// The cause's code; empty with `keep`.
    pub cause: String,
    /// The cause, for people.
    pub why: String,
    /// Number of the release it led to.
    pub number: u32,
    /// Number of the one before; 0 if unknown.
    pub number_before: u32,
    /// So long its members ran different releases, in seconds; `None`: its lead does not know.
    pub disagreed_s: Option<u32>,
}

impl Past {
    /// Whether the tables have it so.
    pub fn is(&self, known: &PastRollout) -> bool {
        self.id == known.id && self.verdict == known.verdict
    }
}

/// Why a check-in is not taken.
#[derive(Debug)]
pub struct BadReport {
    /// Which document.
    pub document: &'static str,
    /// What is wrong with it.
    pub cause: serde_json::Error,
}

impl Report {
    /// What must differ for a check-in to be news: what the server goes by, and how far an open
    /// rollout is. Uptime, free heap and the like differ each time, and change nothing.
    pub fn gist(&self, rollout: &RawValue) -> Gist {
        let progress = self.open.as_ref().map(|_| rollout.get());
        // Another build may come to another number: its servers take one report down once more.
        let mut hasher = DefaultHasher::new();
        (self, progress).hash(&mut hasher);
        Gist(hasher.finish().cast_signed())
    }

    /// Reads what the lead said.
    pub fn of(documents: &Documents) -> Result<Self, BadReport> {
        let version: Version = read("version", &documents.version)?;
        let group: GroupDocument = read("group", &documents.group)?;
        let health: Health = read("health", &documents.health)?;
        let rollout: RolloutDocument = read("rollout", &documents.rollout)?;
        let history: History = read("history", &documents.history)?;
        let devices = devices_of(&version, &group);
        let number = match devices.split_first() {
            Some((first, rest)) if rest.iter().all(|it| it.number == first.number) => first.number,
            _ => 0,
        };
        let open = rollout.rollout.filter(|it| it.phase != "settled").map(|it| Open {
            number: number_of(&it.release),
            id: it.id,
            kind: it.kind,
            phase: it.phase,
        });
        let attention = attention(&version, &health, &devices, open.as_ref());
        // A device has its verdict in the history before all have settled. What is open is not
        // over: it would be heard of once, while it does not count, and never again.
        let is_over = |it: &Past| open.as_ref().is_none_or(|open| open.id != it.id);
        let past = history.history.into_iter().take(PAST_MAX).map(past_of).filter(is_over);
        let past = past.collect();
        let (system, boot) = (version.product, version.boot_number);
        Ok(Self { system, devices, number, boot, open, attention, past })
    }
}

fn read<'a, T: Deserialize<'a>>(
    document: &'static str,
    text: &'a RawValue,
) -> Result<T, BadReport> {
    serde_json::from_str(text.get()).map_err(|cause| BadReport { document, cause })
}

/// Whoever the lead lists, with what it has heard of them.
fn devices_of(version: &Version, group: &GroupDocument) -> Vec<Device> {
    let member = |member: &Member| {
        if member.id == version.id {
            return Device {
                id: member.id.clone(),
                role: version.role.clone(),
                is_lead: member.lead,
                number: version.version_number,
                image: version.image.clone(),
                is_linked: true,
            };
        }
        let peer = version.peers.iter().find(|peer| peer.id == member.id);
        let role = peer.and_then(|peer| peer.role.clone());
        Device {
            id: member.id.clone(),
            role: role.unwrap_or_else(|| member.role.clone()),
            is_lead: member.lead,
            number: peer.and_then(|peer| peer.version_number).unwrap_or(0),
            image: peer.and_then(|peer| peer.image.clone()).unwrap_or_default(),
            is_linked: member.linked,
        }
    };
    group.members.iter().take(DEVICES_MAX).map(member).collect()
}

fn past_of(outcome: Outcome) -> Past {
    let (cause, why) = outcome.cause.map(|cause| (cause.code, cause.text)).unwrap_or_default();
    Past {
        id: outcome.rollout,
        kind: outcome.kind,
        verdict: outcome.verdict,
        cause,
        why,
        number: number_of(&outcome.release),
        number_before: outcome.release_before.map_or(0, |text| number_of(&text)),
        disagreed_s: outcome.disagreed_s,
    }
}

/// A version's number; 0 for what is none.
fn number_of(text: &str) -> u32 {
    let version = text.parse::<lockstep_proto::version::ReleaseVersion>();
    version.map_or(0, lockstep_proto::version::ReleaseVersion::number)
}

/// The first thing that a person should look at. What a rollout that goes on explains is none.
fn attention(
    version: &Version,
    health: &Health,
    devices: &[Device],
    open: Option<&Open>,
) -> String {
    if let Some(open) = open {
        return match open.kind.as_str() {
            "repair" => "a repair brings everybody back to the image before".to_owned(),
            _ => String::new(),
        };
    }
    if let Some(silent) = devices.iter().find(|device| !device.is_linked) {
        return format!("{} {} does not answer", silent.role, silent.id);
    }
    let refused = version.peers.iter().find(|peer| peer.compatible == Some(false));
    if let Some(peer) = refused {
        let why = peer.why.as_deref().unwrap_or("it does not fit the others");
        return format!("{} {}: {why}", peer.role.as_deref().unwrap_or("device"), peer.id);
    }
    let differ = devices.windows(2).any(|pair| matches!(pair, [a, b] if a.number != b.number));
    if differ {
        return "its devices run different releases".to_owned();
    }
    health.errors.first().cloned().unwrap_or_default()
}

/// Devices of a group that are taken down, at most: as many as a group can have.
const DEVICES_MAX: usize = 32;
/// Past rollouts of one report, at most; a device keeps fewer.
const PAST_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair as its lead reports it, with what `edit` makes of the documents.
    fn report(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Report, BadReport> {
        let mut documents = golden();
        edit(&mut documents);
        Report::of(&serde_json::from_value::<Documents>(documents).unwrap())
    }

    #[test]
    fn a_pair_is_read_from_what_its_lead_says() {
        let report = report(|_| ()).unwrap();
        assert_eq!(report.number, 10_000);
        assert_eq!(report.attention, "");
        assert_eq!(report.open, None);
        let devices: Vec<_> =
            report.devices.iter().map(|it| (it.role.as_str(), it.is_lead)).collect();
        assert_eq!(devices, [("receiver", true), ("transmitter", false)]);
        assert_eq!(report.past.len(), 1);
        assert_eq!(report.past[0].cause, "not-healthy");
    }

    #[test]
    fn different_releases_are_no_release_and_call_a_person_unless_a_rollout_explains_them() {
        let mixed = |it: &mut serde_json::Value| {
            it["version"]["peers"][0]["version_number"] = 10_100.into();
        };
        let report_mixed = report(mixed).unwrap();
        assert_eq!(report_mixed.number, 0);
        assert_eq!(report_mixed.attention, "its devices run different releases");
        let open = report(|it| {
            mixed(it);
            it["rollout"]["rollout"]["phase"] = "trial".into();
        });
        assert_eq!(open.unwrap().attention, "");
    }

    #[test]
    fn a_member_that_does_not_answer_calls_a_person() {
        let report = report(|it| it["group"]["members"][1]["linked"] = false.into()).unwrap();
        assert_eq!(report.attention, "transmitter 02:00:00:00:00:02 does not answer");
    }

    /// Else a campaign that saw it open would never learn that it came to nothing.
    #[test]
    fn a_rollout_that_has_its_verdict_and_goes_on_is_not_over() {
        let settling = |it: &mut serde_json::Value| {
            it["rollout"]["rollout"]["phase"] = "settling".into();
        };
        let report = report(settling).unwrap();
        assert!(report.open.is_some() && report.past.is_empty(), "{report:?}");
    }

    #[test]
    fn uptime_is_no_news_and_how_far_a_rollout_is_is() {
        let gist = |edit: fn(&mut serde_json::Value)| {
            let mut documents = golden();
            edit(&mut documents);
            let documents: Documents = serde_json::from_value(documents).unwrap();
            Report::of(&documents).unwrap().gist(&documents.rollout)
        };
        let plain = gist(|_| ());
        assert_eq!(gist(|it| it["version"]["uptime_seconds"] = 9.into()), plain);
        assert_eq!(gist(|it| it["rollout"]["rollout"]["heard_ms_ago"] = 9.into()), plain);
        assert_ne!(gist(|it| it["group"]["members"][1]["linked"] = false.into()), plain);
        let open = gist(|it| it["rollout"]["rollout"]["phase"] = "staging".into());
        let further = gist(|it| {
            it["rollout"]["rollout"]["phase"] = "staging".into();
            it["rollout"]["rollout"]["staged_bytes"] = 9.into();
        });
        assert_ne!(open, plain);
        assert_ne!(open, further);
    }

    #[test]
    fn a_document_that_is_none_is_named() {
        let error = report(|it| it["health"] = 3.into()).unwrap_err();
        assert_eq!(error.document, "health");
    }

    /// What a lead says, as leads in the field do.
    const GOLDEN: &str = include_str!("../../../proto/tests/golden/lead-check-in.json");

    fn golden() -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(GOLDEN).unwrap()["documents"].take()
    }

    #[test]
    fn what_leads_in_the_field_say_is_read_whole() {
        let read: CheckIn = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!((read.lines[0].seq, read.orders.len()), (13, 1));
        assert_eq!(read.lines[0].level, "notice");
        let offer = read.offer.unwrap();
        assert_eq!((offer.id.as_str(), offer.refusals[0].as_str()), ("1f02c5", "unreachable"));
        assert_eq!((read.orders[0].id.as_str(), read.orders[0].refused.as_str()), ("96cc01", ""));
        assert_eq!(Report::of(&read.documents).unwrap().devices.len(), 2);
    }
}
