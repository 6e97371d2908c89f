//! What a lead said, taken down: many check-ins in one transaction (group commit). Whatever follows
//! from a report for the group's campaign is part of the same transaction, so that a server that is
//! killed has either not heard it, and is told again, or has drawn every conclusion.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::changes::tell;
use super::groups::note_event;
use super::{Store, StoreError, moment, number_of, plots, word_of};
use crate::campaign::{Heard, PASSING_REFUSALS, Standing, State};
use crate::lead::report::{Gist, Line, OfferAnswer, OfferState, Past, Report};
use crate::patches::Extra;
use crate::server::Change;
use crate::store::groups::Device;

/// A check-in, ready to be taken down.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Whose.
    pub group: String,
    /// When it came.
    pub at: Timestamp,
    /// What the server goes by.
    pub report: Report,
    /// Whether it says the same as the one before.
    pub gist: Gist,
    /// The documents as they came, as one JSON object.
    pub documents: String,
    /// New lines of its log, as far as it knows.
    pub lines: Vec<Line>,
    /// What it makes of its offer.
    pub offer: Option<OfferAnswer>,
    /// Orders that it has answered: which, and why not if not.
    pub orders: Vec<(String, String)>,
}

impl Arrival {
    /// Whether it brings something else than how its group is.
    fn has_more(&self) -> bool {
        self.offer.is_some() || !self.lines.is_empty() || !self.orders.is_empty()
    }
}

/// What a group should do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// The release that it may go to.
    pub offer: Option<Offer>,
    /// What a person has ordered: identity, and `abort` or `revert`.
    pub orders: Vec<(String, String)>,
}

/// A release that a group may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which offer.
    pub id: String,
    /// The release's version.
    pub version: String,
    /// The bundle's identity.
    pub bundle_sha256: String,
    /// The bundle's size.
    pub bundle_bytes: u64,
    /// What is new, for people.
    pub description: String,
    /// What is in the bundle beside what the release has; `None`: that was not chosen yet.
    pub patches: Option<Vec<Extra>>,
}

/// What came of a check-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What the group should do now.
    pub desired: Desired,
    /// Whether it may have changed anything but what the lead said and when.
    pub is_news: bool,
    /// The campaign in which the group stands otherwise now.
    pub campaign: Option<String>,
}

impl Store {
    /// Takes down all of these, or none.
    pub async fn take_arrivals(&self, arrivals: &[Arrival]) -> Result<Vec<Taken>, StoreError> {
        self.write(async |tx| {
            let mut taken = Vec::with_capacity(arrivals.len());
            for arrival in arrivals {
                taken.push(take(tx, arrival).await?);
            }
            Ok(taken)
        })
        .await
    }

    /// What a group should do now.
    pub async fn desired(&self, group: &str) -> Result<Desired, StoreError> {
        let mut connection = self.read().await?;
        desired(&mut connection, group).await
    }

    /// Chooses what is in the bundle of an offer beside what its release has. Whoever is first has
    /// chosen: what that was, is returned.
    pub async fn choose_patches(
        &self,
        offer: &str,
        patches: &[Extra],
    ) -> Result<Vec<Extra>, StoreError> {
        let text = serde_json::to_string(patches).unwrap_or_default();
        self.write(async |tx| {
            let sql = "INSERT INTO offer_patches (offer, patches) VALUES ($1, $2) \
                ON CONFLICT (offer) DO NOTHING";
            sqlx::query(sql).bind(offer).bind(&text).execute(tx).await?;
            Ok(())
        })
        .await?;
        Ok(self.offered_patches(offer).await?.unwrap_or_default())
    }

    /// What is in the bundle of an offer beside what its release has; `None`: nobody has chosen.
    pub async fn offered_patches(&self, offer: &str) -> Result<Option<Vec<Extra>>, StoreError> {
        let query = sqlx::query("SELECT patches FROM offer_patches WHERE offer = $1").bind(offer);
        let row = query.fetch_optional(&mut *self.read().await?).await?;
        row.map(|row| Ok(patches_of(row.try_get("patches")?))).transpose()
    }

    /// One of them is not there any more: it is chosen anew.
    pub async fn forget_patches(&self, offer: &str) -> Result<(), StoreError> {
        self.write(async |tx| {
            let query = sqlx::query("DELETE FROM offer_patches WHERE offer = $1").bind(offer);
            query.execute(tx).await?;
            Ok(())
        })
        .await
    }
}

fn patches_of(text: &str) -> Vec<Extra> {
    serde_json::from_str(text).unwrap_or_default()
}

async fn take(tx: &mut AnyConnection, arrival: &Arrival) -> Result<Taken, StoreError> {
    let Arrival { group, report, .. } = arrival;
    let mut campaign = None;
    let is_news = arrival.has_more() || !says_the_same(tx, arrival).await?;
    if is_news {
        let began = note_open(tx, arrival).await?;
        plots::note_settled(tx, arrival).await?;
        update_group(tx, arrival).await?;
        replace_devices(tx, group, &report.devices).await?;
        let mut reverted = Vec::new();
        for past in report.past.iter().rev() {
            let began_at = began.as_ref().filter(|(id, _)| *id == past.id).map(|(_, at)| at);
            if take_past(tx, arrival, past, began_at).await? && past.verdict == "revert" {
                reverted.push(past);
            }
        }
        note_disagreement(tx, arrival).await?;
        note_lines(tx, arrival).await?;
        answer_orders(tx, arrival).await?;
        campaign = stand(tx, arrival, &reverted).await?;
        tell(tx, &Change::Group(group.clone())).await?;
    }
    Ok(Taken { desired: desired(tx, group).await?, is_news, campaign })
}

/// Takes down when it came, if there is nothing to conclude from it. Whether there is, the tables
/// know and no server does: a lead may have said otherwise to another one meanwhile.
async fn says_the_same(tx: &mut AnyConnection, arrival: &Arrival) -> Result<bool, StoreError> {
    let sql = "UPDATE fleet_group SET seen_at = $1, documents = $2, offer_answer = NULL, \
        offer_codes = '' WHERE id = $3 AND gist = $4";
    let query = sqlx::query(sql).bind(moment(arrival.at)).bind(&arrival.documents);
    let query = query.bind(&arrival.group).bind(arrival.gist.0);
    Ok(query.execute(tx).await?.rows_affected() > 0)
}

/// Takes down which rollout is open, and since when the server knows; returns the one that was
/// open before, and since when.
async fn note_open(
    tx: &mut AnyConnection,
    arrival: &Arrival,
) -> Result<Option<(String, String)>, StoreError> {
    let sql = "SELECT open_rollout, open_since FROM fleet_group WHERE id = $1";
    let query = sqlx::query(sql).bind(&arrival.group);
    let Some(row) = query.fetch_optional(&mut *tx).await? else { return Ok(None) };
    let (id, since) = (row.try_get("open_rollout")?, row.try_get("open_since")?);
    let before: Option<(String, String)> = Option::zip(id, since);
    let open = arrival.report.open.as_ref().map(|open| open.id.as_str());
    if before.as_ref().map(|(id, _)| id.as_str()) != open {
        let sql = "UPDATE fleet_group SET open_rollout = $1, open_since = $2 WHERE id = $3";
        let query = sqlx::query(sql).bind(open.map(str::to_owned));
        let query = query.bind(open.map(|_| moment(arrival.at))).bind(&arrival.group);
        query.execute(&mut *tx).await?;
    }
    Ok(before)
}

async fn update_group(tx: &mut AnyConnection, arrival: &Arrival) -> Result<(), StoreError> {
    let report = &arrival.report;
    let answer = match &arrival.offer {
        Some(OfferAnswer { state: OfferState::Refused, text, .. }) => Some(text.clone()),
        Some(OfferAnswer { state: OfferState::Waits, .. }) => {
            Some("waits for a person to begin it on its own page".to_owned())
        }
        Some(OfferAnswer { state: OfferState::Fetching, .. }) | None => None,
    };
    let codes = arrival.offer.as_ref().map(|answer| answer.refusals.join(" ")).unwrap_or_default();
    let sql = "UPDATE fleet_group SET seen_at = $1, system = $2, number = $3, phase = $4, \
        attention = $5, documents = $6, offer_answer = $7, offer_codes = $8, gist = $9 \
        WHERE id = $10";
    let query = sqlx::query(sql).bind(moment(arrival.at)).bind(report.system.clone());
    let query = query.bind(i64::from(report.number));
    let query = query.bind(report.open.as_ref().map_or("", |open| open.phase.as_str()));
    let query = query.bind(&report.attention).bind(&arrival.documents).bind(answer);
    let query = query.bind(codes).bind(arrival.gist.0).bind(&arrival.group);
    query.execute(tx).await?;
    Ok(())
}

async fn replace_devices(
    tx: &mut AnyConnection,
    group: &str,
    devices: &[Device],
) -> Result<(), StoreError> {
    let ran_before = if devices.iter().all(Device::says_its_image) {
        BTreeMap::new()
    } else {
        last_heard(tx, group).await?
    };
    let query = sqlx::query("DELETE FROM device WHERE fleet_group = $1");
    query.bind(group).execute(&mut *tx).await?;
    for device in devices {
        let ran = if device.says_its_image() {
            &device.image
        } else {
            ran_before.get(&device.id).unwrap_or(&device.image)
        };
        let sql = "INSERT INTO device (fleet_group, id, role, is_lead, number, image, is_linked, \
            ran) VALUES ($1,$2,$3,$4,$5,$6,$7,$8) ON CONFLICT (fleet_group, id) DO NOTHING";
        let query = sqlx::query(sql).bind(group).bind(&device.id).bind(&device.role);
        let query = query.bind(i64::from(device.is_lead)).bind(i64::from(device.number));
        let query = query.bind(&device.image).bind(i64::from(device.is_linked)).bind(ran);
        query.execute(&mut *tx).await?;
    }
    Ok(())
}

/// The image that each device was last heard to run, by the device's address.
async fn last_heard(
    tx: &mut AnyConnection,
    group: &str,
) -> Result<BTreeMap<String, String>, StoreError> {
    let query = sqlx::query("SELECT id, ran FROM device WHERE fleet_group = $1");
    let rows = query.bind(group).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("ran")?))).collect()
}

/// Whether it was not known, or ended otherwise than was known.
async fn take_past(
    tx: &mut AnyConnection,
    arrival: &Arrival,
    past: &Past,
    began_at: Option<&String>,
) -> Result<bool, StoreError> {
    let (group, at) = (arrival.group.as_str(), arrival.at);
    let sql = "INSERT INTO past_rollout (fleet_group, id, kind, verdict, cause, why, number, \
        number_before, told_at, began_at, disagreed_s) \
        VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11) \
        ON CONFLICT (fleet_group, id) DO NOTHING";
    let query = sqlx::query(sql).bind(group).bind(&past.id).bind(&past.kind);
    let query = query.bind(&past.verdict).bind(&past.cause).bind(&past.why);
    let query = query.bind(i64::from(past.number)).bind(i64::from(past.number_before));
    let query = query.bind(moment(at)).bind(began_at.cloned());
    let query = query.bind(past.disagreed_s.map(i64::from));
    let done = query.execute(&mut *tx).await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    let version = lockstep_proto::version::ReleaseVersion::from_number(past.number);
    let (level, said) = match past.verdict.as_str() {
        "keep" => ("notice", format!("{version} was kept by all")),
        _ => ("warning", format!("{version} was given up by all: {}", past.why)),
    };
    note_event(tx, group, at, level, "rollout", &said).await?;
    Ok(true)
}

/// How long members ran different releases a lead may know only some seconds after the end, and so
/// of the newest rollout alone.
async fn note_disagreement(tx: &mut AnyConnection, arrival: &Arrival) -> Result<(), StoreError> {
    let newest = arrival.report.past.first().and_then(|it| Some((&it.id, it.disagreed_s?)));
    let Some((id, disagreed_s)) = newest else { return Ok(()) };
    let sql = "UPDATE past_rollout SET disagreed_s = $1 WHERE fleet_group = $2 AND id = $3 \
        AND disagreed_s IS NULL";
    let query = sqlx::query(sql).bind(i64::from(disagreed_s)).bind(&arrival.group);
    query.bind(id).execute(tx).await?;
    Ok(())
}

/// A lead says its lines again when it has not heard that they were taken down: the server was
/// killed just then, perhaps, and the lead is at another one now.
async fn note_lines(tx: &mut AnyConnection, arrival: &Arrival) -> Result<(), StoreError> {
    let (group, boot) = (&arrival.group, arrival.report.boot);
    let Some(last) = arrival.lines.last() else { return Ok(()) };
    let query = sqlx::query("SELECT line_boot, line_seq FROM fleet_group WHERE id = $1");
    let row = query.bind(group).fetch_one(&mut *tx).await?;
    let (boot_before, seq_before): (u32, u32) =
        (number_of(&row, "line_boot")?, number_of(&row, "line_seq")?);
    let is_same_boot = boot > 0 && boot == boot_before;
    let stands = |line: &&Line| is_same_boot && (1..=seq_before).contains(&line.seq);
    for line in arrival.lines.iter().take(LINES_MAX).filter(|line| !stands(line)) {
        note_event(tx, group, arrival.at, &line.level, "log", &line.text).await?;
    }
    if !stands(&last) {
        let sql = "UPDATE fleet_group SET line_boot = $1, line_seq = $2 WHERE id = $3";
        let query = sqlx::query(sql).bind(i64::from(boot)).bind(i64::from(last.seq)).bind(group);
        query.execute(&mut *tx).await?;
    }
    let sql = "DELETE FROM group_event WHERE fleet_group = $1 AND id NOT IN \
        (SELECT id FROM group_event WHERE fleet_group = $1 ORDER BY id DESC LIMIT $2)";
    sqlx::query(sql).bind(group).bind(EVENTS_MAX).execute(tx).await?;
    Ok(())
}

async fn answer_orders(tx: &mut AnyConnection, arrival: &Arrival) -> Result<(), StoreError> {
    for (id, refused) in &arrival.orders {
        let sql = "UPDATE group_order SET answered_at = $1, answer = $2 \
            WHERE id = $3 AND fleet_group = $4 AND answered_at IS NULL";
        let query = sqlx::query(sql).bind(moment(arrival.at)).bind(refused).bind(id);
        query.bind(&arrival.group).execute(&mut *tx).await?;
    }
    Ok(())
}

/// A group's part in its campaign.
struct Part {
    campaign: String,
    standing: Standing,
    offer: Option<String>,
    is_step: bool,
    number: u32,
    manifest: String,
}

impl Part {
    fn of(row: &AnyRow) -> Result<Self, StoreError> {
        let step: Option<String> = row.try_get("step_release")?;
        let last: String = row.try_get("release")?;
        Ok(Self {
            campaign: row.try_get("campaign")?,
            standing: standing_of(row)?,
            offer: row.try_get("offer")?,
            is_step: step.is_some_and(|step| step != last),
            number: number_of(row, "number")?,
            manifest: row.try_get("manifest")?,
        })
    }
}

pub(super) fn standing_of(row: &AnyRow) -> Result<Standing, StoreError> {
    let word: Word<Standing> = word_of(row, "standing")?;
    Ok(word.0)
}

pub(super) fn state_of(row: &AnyRow) -> Result<State, StoreError> {
    let word: Word<State> = word_of(row, "state")?;
    Ok(word.0)
}

struct Word<T>(T);

impl<T: std::str::FromStr> std::str::FromStr for Word<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

/// How the group stands in its campaign now; the campaign, if it stands otherwise.
async fn stand(
    tx: &mut AnyConnection,
    arrival: &Arrival,
    reverted: &[&Past],
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT g.campaign, g.standing, g.offer, g.step_release, c.release, r.number, \
        r.manifest FROM campaign_group g JOIN campaign c ON c.id = g.campaign \
        JOIN release r ON r.id = COALESCE(g.step_release, c.release) \
        WHERE g.fleet_group = $1 AND (g.standing IN ('offered', 'began') OR \
        (c.state IN ('running', 'paused') AND g.standing IN ('waits', 'failed'))) \
        ORDER BY c.made_at DESC LIMIT 1";
    let row = sqlx::query(sql).bind(&arrival.group).fetch_optional(&mut *tx).await?;
    let Some(row) = row else { return Ok(None) };
    let part = Part::of(&row)?;
    let report = &arrival.report;
    let open = report.open.as_ref();
    let refused = arrival.offer.as_ref().and_then(|answer| refused_for_good(answer, &part));
    let reverted: Vec<_> = reverted
        .iter()
        .filter(|past| past.number == part.number)
        .map(|past| (past.id.clone(), past.cause.clone()))
        .collect();
    let heard = Heard {
        runs_it: runs(&part.manifest, &report.devices),
        open: open.filter(|it| it.number == part.number).map(|open| open.id.as_str()),
        reverted: &reverted,
        refused: refused.as_deref(),
    };
    let Some((standing, cause)) = part.standing.after(&heard) else { return Ok(None) };
    let code = match (standing, &arrival.offer) {
        (Standing::Failed, Some(answer)) if heard.reverted.is_empty() => {
            answer.refusals.first().cloned().unwrap_or_default()
        }
        (Standing::Failed, _) => cause.clone(),
        _ => String::new(),
    };
    // A release on the way is a step; the next one follows from where the group is then.
    let standing = match standing {
        Standing::Kept | Standing::Skipped if part.is_step => Standing::Waits,
        other => other,
    };
    let sql = "UPDATE campaign_group SET standing = $1, since = $2, cause = $3, \
        rollout = COALESCE($4, rollout), code = $5, \
        step_release = CASE WHEN $1 = 'waits' THEN NULL ELSE step_release END \
        WHERE campaign = $6 AND fleet_group = $7";
    let query = sqlx::query(sql).bind(standing.as_str()).bind(moment(arrival.at)).bind(&cause);
    let query = query.bind(heard.open.map(str::to_owned)).bind(code).bind(&part.campaign);
    query.bind(&arrival.group).execute(&mut *tx).await?;
    Ok(Some(part.campaign))
}

/// Why the group would not take what it was offered, unless another try may end otherwise.
fn refused_for_good(answer: &OfferAnswer, part: &Part) -> Option<String> {
    let is_of_it = answer.state == OfferState::Refused && part.offer.as_ref() == Some(&answer.id);
    let passes = !answer.refusals.is_empty()
        && answer.refusals.iter().all(|code| PASSING_REFUSALS.contains(&code.as_str()));
    (is_of_it && !passes).then(|| answer.text.clone())
}

/// Whether every device whose role the release is for runs it, by the hash of its image. A lead
/// knows of its peers' hashes the first eight bytes.
pub(super) fn runs(manifest: &str, devices: &[Device]) -> bool {
    let Ok(manifest) = serde_json::from_str::<ManifestImages>(manifest) else { return false };
    let mut is_for_any = false;
    for device in devices {
        let Some(entry) = manifest.devices.get(&device.role) else { continue };
        is_for_any = true;
        if !device.says_its_image() || !entry.image_sha256.starts_with(&device.image) {
            return false;
        }
    }
    is_for_any
}

#[derive(serde::Deserialize)]
struct ManifestImages {
    devices: std::collections::BTreeMap<String, ManifestImage>,
}

#[derive(serde::Deserialize)]
struct ManifestImage {
    #[serde(default)]
    image_sha256: String,
}

async fn desired(connection: &mut AnyConnection, group: &str) -> Result<Desired, StoreError> {
    let sql = "SELECT g.offer, r.version, r.bundle_sha256, r.bundle_bytes, r.description, \
        p.patches FROM campaign_group g JOIN campaign c ON c.id = g.campaign \
        JOIN release r ON r.id = COALESCE(g.step_release, c.release) \
        LEFT JOIN offer_patches p ON p.offer = g.offer \
        WHERE g.fleet_group = $1 AND (g.standing = 'began' OR \
        (g.standing = 'offered' AND c.state = 'running')) ORDER BY c.made_at DESC LIMIT 1";
    let row = sqlx::query(sql).bind(group).fetch_optional(&mut *connection).await?;
    let offer = match row {
        None => None,
        Some(row) => Some(Offer {
            id: row.try_get::<Option<String>, _>("offer")?.unwrap_or_default(),
            version: row.try_get("version")?,
            bundle_sha256: row.try_get("bundle_sha256")?,
            bundle_bytes: number_of(&row, "bundle_bytes")?,
            description: row.try_get("description")?,
            patches: row.try_get::<Option<String>, _>("patches")?.map(|text| patches_of(&text)),
        }),
    };
    let sql = "SELECT id, what FROM group_order WHERE fleet_group = $1 AND answered_at IS NULL \
        ORDER BY made_at";
    let rows = sqlx::query(sql).bind(group).fetch_all(&mut *connection).await?;
    let order = |row: &AnyRow| Ok((row.try_get("id")?, row.try_get("what")?));
    let orders = rows.iter().map(order).collect::<Result<_, StoreError>>()?;
    Ok(Desired { offer, orders })
}

/// Lines of a log that one check-in may bring.
pub const LINES_MAX: usize = 64;
/// Events that are kept of each group.
const EVENTS_MAX: i64 = 500;
