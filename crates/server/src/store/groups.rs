//! Groups, their devices, what happened to them, and the tokens by which they come in.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::changes::tell;
use super::{
    PAGE_ROWS_MAX, Store, StoreError, audit, hash_of, moment, moment_maybe, moment_of, new_id,
    new_id_behind, new_secret, number_maybe, number_of, plots, word_of,
};
use crate::fleet::{Labels, Mode};
use crate::server::Change;

/// A group as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its identity here.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is chosen by.
    pub labels: Labels,
    /// Its time zone, such as `Europe/Berlin`.
    pub zone: String,
    /// When it may be touched, as `hours::Window` is written; empty: at any time.
    pub hours: String,
    /// How it takes a release.
    pub mode: Mode,
    /// The address of the board that leads it.
    pub lead: String,
    /// When it came.
    pub enrolled_at: Timestamp,
    /// When its lead checked in last.
    pub seen_at: Option<Timestamp>,
    /// The product that its lead's image belongs to.
    pub system: Option<String>,
    /// Number of the release that all of it runs; 0 if unknown, or if it is not one.
    pub number: u32,
    /// Phase of its open rollout; empty: none is open.
    pub phase: String,
    /// What a person should look at; empty: nothing.
    pub attention: String,
    /// What its lead said last, as JSON.
    pub documents: String,
    /// What its lead said last of what it was offered, if that was no.
    pub offer_answer: Option<String>,
    /// Codes of what its preflight refused of the offer, with blanks between them.
    pub offer_codes: String,
}

const COLUMNS: &str = "id, name, labels, zone, hours, mode, lead, enrolled_at, seen_at, system, \
    number, phase, attention, documents, offer_answer, offer_codes";

impl Group {
    fn of(row: &AnyRow) -> Result<Self, StoreError> {
        let labels: String = row.try_get("labels")?;
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            labels: Labels::of_stored(&labels),
            zone: row.try_get("zone")?,
            hours: row.try_get("hours")?,
            mode: word_of(row, "mode")?,
            lead: row.try_get("lead")?,
            enrolled_at: moment_of(row, "enrolled_at")?,
            seen_at: moment_maybe(row, "seen_at")?,
            system: row.try_get("system")?,
            number: number_of(row, "number")?,
            phase: row.try_get("phase")?,
            attention: row.try_get("attention")?,
            documents: row.try_get("documents")?,
            offer_answer: row.try_get("offer_answer")?,
            offer_codes: row.try_get("offer_codes")?,
        })
    }
}

/// A device of a group, as its lead knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its address.
    pub id: String,
    /// What it is for; empty if it has not said.
    pub role: String,
    /// Whether it leads.
    pub is_lead: bool,
    /// Number of the release that it runs; 0 if unknown.
    pub number: u32,
    /// The beginning of its image's hash, or all of it.
    pub image: String,
    /// Whether its link carries data both ways.
    pub is_linked: bool,
}

impl Device {
    /// Whether it says enough of its image's hash to know the image by.
    pub const fn says_its_image(&self) -> bool {
        self.image.len() >= IMAGE_DIGITS_MIN
    }
}

/// Digits of a hash that are enough to know an image by: eight bytes.
const IMAGE_DIGITS_MIN: usize = 16;

/// A rollout that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRollout {
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
    /// When the server heard that it had begun.
    pub began_at: Option<Timestamp>,
    /// When the server heard of its end.
    pub told_at: Timestamp,
    /// So long its members ran different releases, in seconds, as its lead has it.
    pub disagreed_s: Option<u32>,
}

/// Something that happened in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order of things.
    pub id: String,
    /// When the server heard of it.
    pub at: Timestamp,
    /// `debug`, `info`, `notice`, `warning`, `error`.
    pub level: String,
    /// `log` for a line of the lead's log, else what the server saw.
    pub kind: String,
    /// For people.
    pub said: String,
}

/// Which groups.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// All of these labels.
    pub labels: Labels,
    /// On the release with this number.
    pub number: Option<u32>,
    /// A part of the name.
    pub name: String,
    /// Only those that a person should look at.
    pub attention: Attention,
}

/// Whether a list is of all, or of those that a person should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attention {
    /// All.
    #[default]
    Any,
    /// Only those.
    Needed,
}

/// A token by which one group comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Its identity; not the secret.
    pub id: String,
    /// The name that the group will have.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its time zone.
    pub zone: String,
    /// The group whose lead is replaced; `None`: a new group.
    pub group: Option<String>,
    /// When it was made.
    pub made_at: Timestamp,
    /// By whom.
    pub made_by: String,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// A new group's settings, as a person gives them.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What people call it.
    pub name: String,
    /// What it is chosen by.
    pub labels: Labels,
    /// Its time zone; empty: UTC.
    pub zone: String,
    /// When it may be touched.
    pub hours: String,
    /// How it takes releases.
    pub mode: Mode,
}

/// What came of an attempt to enrol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    /// The group is in; the credential is told only now.
    Welcome {
        /// The group.
        group: String,
        /// Its lead's credential from now on.
        credential: String,
    },
    /// No such token, or it has expired.
    Unknown,
    /// Another board has used it.
    Used,
}

impl Filter {
    /// What is behind a `WHERE`, and the texts that it is about, the first of them at `$first`.
    pub(super) fn conditions(&self, first: usize) -> (String, Vec<String>) {
        let (mut sql, mut texts) = (String::new(), Vec::new());
        for (key, value) in self.labels.iter() {
            sql += &format!(" AND labels LIKE ${} ESCAPE '\\'", first + texts.len());
            texts.push(format!("%,{key}={value},%").replace('_', "\\_"));
        }
        if !self.name.is_empty() {
            let plain = self.name.to_lowercase().replace(['%', '_', '\\'], "");
            sql += &format!(" AND LOWER(name) LIKE ${}", first + texts.len());
            texts.push(format!("%{plain}%"));
        }
        if self.attention == Attention::Needed {
            sql += " AND attention <> ''";
        }
        if let Some(number) = self.number {
            sql += &format!(" AND number = {number}");
        }
        (sql, texts)
    }
}

impl Store {
    /// A token for a group that is to come, or for a new lead of `group`.
    pub async fn make_enrolment(
        &self,
        settings: &Settings,
        group: Option<&str>,
        who: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<String, StoreError> {
        let (id, token) = (new_id()?, new_secret()?);
        self.write(async |tx| {
            let sql = "INSERT INTO enrolment (token_hash, id, name, labels, zone, fleet_group, \
                made_at, made_by, expires_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)";
            let query = sqlx::query(sql).bind(hash_of(&token)).bind(&id).bind(&settings.name);
            let query = query.bind(settings.labels.stored()).bind(&settings.zone);
            let query = query.bind(group.map(str::to_owned)).bind(moment(now)).bind(who);
            query.bind(moment(expires_at)).execute(&mut *tx).await?;
            audit::note(tx, now, who, "enrolment.make", group.unwrap_or(&id), &settings.name).await
        })
        .await?;
        Ok(token)
    }

    /// Tokens that were not used, newest first.
    pub async fn enrolments(&self) -> Result<Vec<Enrolment>, StoreError> {
        let sql = "SELECT id, name, labels, zone, fleet_group, made_at, made_by, expires_at, \
            used_at FROM enrolment WHERE used_at IS NULL ORDER BY made_at DESC LIMIT $1";
        let query = sqlx::query(sql).bind(PAGE_ROWS_MAX);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(enrolment_of).collect()
    }

    /// Takes a token back.
    pub async fn revoke_enrolment(
        &self,
        id: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let sql = "DELETE FROM enrolment WHERE id = $1 AND used_at IS NULL";
            let done = sqlx::query(sql).bind(id).execute(&mut *tx).await?;
            if done.rows_affected() > 0 {
                audit::note(tx, now, who, "enrolment.revoke", id, "").await?;
            }
            Ok(done.rows_affected() > 0)
        })
        .await
    }

    /// A lead comes with a token. The answer may get lost on its way: the same board may come again
    /// with the same token, until it has used its credential; each time it gets a new one.
    pub async fn enrol(
        &self,
        token: &str,
        lead: &str,
        now: Timestamp,
    ) -> Result<Enrolled, StoreError> {
        self.write(async |tx| {
            let sql = "SELECT id, name, labels, zone, fleet_group, made_at, made_by, expires_at, \
                used_at, used_by FROM enrolment WHERE token_hash = $1";
            let row = sqlx::query(sql).bind(hash_of(token)).fetch_optional(&mut *tx).await?;
            let Some(row) = row else { return Ok(Enrolled::Unknown) };
            let enrolment = enrolment_of(&row)?;
            let used_by: Option<String> = row.try_get("used_by")?;
            if now >= enrolment.expires_at && enrolment.used_at.is_none() {
                return Ok(Enrolled::Unknown);
            }
            let comes_again = match &used_by {
                None => false,
                Some(other) if other != lead => return Ok(Enrolled::Used),
                Some(_) => true,
            };
            if comes_again && !is_fresh(tx, enrolment.group.as_deref()).await? {
                return Ok(Enrolled::Used);
            }
            let credential = new_secret()?;
            let group = match &enrolment.group {
                Some(group) => {
                    replace_lead(tx, group, lead, &credential).await?;
                    group.clone()
                }
                None => add_group(tx, &enrolment, lead, &credential, now).await?,
            };
            let sql = "UPDATE enrolment SET used_at = $1, used_by = $2, fleet_group = $3 \
                WHERE id = $4";
            let query = sqlx::query(sql).bind(moment(now)).bind(lead).bind(&group);
            query.bind(&enrolment.id).execute(&mut *tx).await?;
            tell(tx, &Change::Lead(group.clone())).await?;
            tell(tx, &Change::Group(group.clone())).await?;
            audit::note(tx, now, lead, "group.enrol", &group, &enrolment.name).await?;
            Ok(Enrolled::Welcome { group, credential })
        })
        .await
    }

    /// The group of a lead's credential, and the lead that it was given to.
    pub async fn group_of_credential(
        &self,
        hash: &str,
    ) -> Result<Option<(String, String)>, StoreError> {
        let query = sqlx::query("SELECT id, lead FROM fleet_group WHERE credential_hash = $1");
        let row = query.bind(hash).fetch_optional(&mut *self.read().await?).await?;
        row.map(|row| Ok((row.try_get("id")?, row.try_get("lead")?))).transpose()
    }

    /// One group.
    pub async fn group(&self, id: &str) -> Result<Option<Group>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM fleet_group WHERE id = $1");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id);
        let row = query.fetch_optional(&mut *self.read().await?).await?;
        row.as_ref().map(Group::of).transpose()
    }

    /// Groups in the order of their names, behind the one named `after`; at most `limit`.
    pub async fn groups(
        &self,
        filter: &Filter,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Group>, StoreError> {
        let (such, texts) = filter.conditions(2);
        let sql = format!(
            "SELECT {COLUMNS} FROM fleet_group WHERE name > $1{such} ORDER BY name LIMIT {limit}"
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after);
        for text in &texts {
            query = query.bind(text);
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(Group::of).collect()
    }

    /// Rollouts of a group that are over, newest first.
    pub async fn past_rollouts(&self, group: &str) -> Result<Vec<PastRollout>, StoreError> {
        let sql = "SELECT id, kind, verdict, cause, why, number, number_before, began_at, told_at, \
            disagreed_s FROM past_rollout WHERE fleet_group = $1 \
            ORDER BY told_at DESC, id LIMIT $2";
        let query = sqlx::query(sql).bind(group).bind(PAGE_ROWS_MAX);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let past = |row: &AnyRow| {
            Ok(PastRollout {
                id: row.try_get("id")?,
                kind: row.try_get("kind")?,
                verdict: row.try_get("verdict")?,
                cause: row.try_get("cause")?,
                why: row.try_get("why")?,
                number: number_of(row, "number")?,
                number_before: number_of(row, "number_before")?,
                began_at: moment_maybe(row, "began_at")?,
                told_at: moment_of(row, "told_at")?,
                disagreed_s: number_maybe(row, "disagreed_s")?,
            })
        };
        rows.iter().map(past).collect()
    }

    /// What happened in a group, newest first.
    pub async fn events(&self, group: &str) -> Result<Vec<Event>, StoreError> {
        let sql = "SELECT id, at, level, kind, said FROM group_event WHERE fleet_group = $1 \
            ORDER BY id DESC LIMIT $2";
        let query = sqlx::query(sql).bind(group).bind(PAGE_ROWS_MAX);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let event = |row: &AnyRow| {
            Ok(Event {
                id: row.try_get("id")?,
                at: moment_of(row, "at")?,
                level: row.try_get("level")?,
                kind: row.try_get("kind")?,
                said: row.try_get("said")?,
            })
        };
        rows.iter().map(event).collect()
    }

    /// Gives a group other settings. `false`: there is no such group.
    pub async fn change_group(
        &self,
        id: &str,
        settings: &Settings,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let sql = "UPDATE fleet_group SET name = $1, labels = $2, zone = $3, hours = $4, \
                mode = $5 WHERE id = $6";
            let query = sqlx::query(sql).bind(&settings.name).bind(settings.labels.stored());
            let query = query.bind(&settings.zone).bind(&settings.hours);
            let query = query.bind(settings.mode.as_str()).bind(id);
            if query.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            tell(tx, &Change::Group(id.to_owned())).await?;
            let Settings { name, labels, zone, hours, mode } = settings;
            let mode = mode.as_str();
            let detail = format!("{name}; labels {labels}; zone {zone}; hours {hours}; {mode}");
            audit::note(tx, now, who, "group.change", id, &detail).await?;
            Ok(true)
        })
        .await
    }

    /// Forgets a group: its lead is let in no more. What it did stays in the audit.
    pub async fn remove_group(
        &self,
        id: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let row = sqlx::query("SELECT name FROM fleet_group WHERE id = $1").bind(id);
            let Some(row) = row.fetch_optional(&mut *tx).await? else { return Ok(false) };
            let name: String = row.try_get("name")?;
            plots::note_gone(tx, id, now).await?;
            for sql in [
                "DELETE FROM device WHERE fleet_group = $1",
                "DELETE FROM past_rollout WHERE fleet_group = $1",
                "DELETE FROM campaign_group WHERE fleet_group = $1",
                "DELETE FROM group_order WHERE fleet_group = $1",
                "DELETE FROM group_event WHERE fleet_group = $1",
                "DELETE FROM fleet_group WHERE id = $1",
            ] {
                sqlx::query(sql).bind(id).execute(&mut *tx).await?;
            }
            tell(tx, &Change::Lead(id.to_owned())).await?;
            tell(tx, &Change::Group(id.to_owned())).await?;
            audit::note(tx, now, who, "group.remove", id, &name).await?;
            Ok(true)
        })
        .await
    }
}

/// Takes down that something happened in a group, behind what happened before: whoever reads on
/// from there must find it, though servers' clocks differ and one may go back.
pub(super) async fn note_event(
    tx: &mut AnyConnection,
    group: &str,
    now: Timestamp,
    level: &str,
    kind: &str,
    said: &str,
) -> Result<(), StoreError> {
    let sql = "SELECT MAX(id) AS last FROM group_event WHERE fleet_group = $1";
    let row = sqlx::query(sql).bind(group).fetch_one(&mut *tx).await?;
    let last: Option<String> = row.try_get("last")?;
    let sql = "INSERT INTO group_event (id, fleet_group, at, level, kind, said) \
        VALUES ($1,$2,$3,$4,$5,$6)";
    let id = new_id_behind(last.as_deref(), now)?;
    let query = sqlx::query(sql).bind(id).bind(group).bind(moment(now));
    query.bind(level).bind(kind).bind(said).execute(tx).await?;
    Ok(())
}

fn enrolment_of(row: &AnyRow) -> Result<Enrolment, StoreError> {
    let labels: String = row.try_get("labels")?;
    Ok(Enrolment {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        labels: Labels::of_stored(&labels),
        zone: row.try_get("zone")?,
        group: row.try_get("fleet_group")?,
        made_at: moment_of(row, "made_at")?,
        made_by: row.try_get("made_by")?,
        expires_at: moment_of(row, "expires_at")?,
        used_at: moment_maybe(row, "used_at")?,
    })
}

/// Whether a group's lead has not yet used the credential that it was given.
async fn is_fresh(tx: &mut AnyConnection, group: Option<&str>) -> Result<bool, StoreError> {
    let query = sqlx::query("SELECT seen_at FROM fleet_group WHERE id = $1").bind(group);
    let row = query.fetch_optional(tx).await?;
    let Some(row) = row else { return Ok(false) };
    Ok(moment_maybe(&row, "seen_at")?.is_none())
}

async fn replace_lead(
    tx: &mut AnyConnection,
    group: &str,
    lead: &str,
    credential: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE fleet_group SET lead = $1, credential_hash = $2, seen_at = NULL, \
        gist = NULL, line_boot = 0, line_seq = 0 WHERE id = $3";
    let query = sqlx::query(sql).bind(lead).bind(hash_of(credential)).bind(group);
    query.execute(tx).await?;
    Ok(())
}

/// Two groups cannot have one name: the second gets a number behind it.
async fn add_group(
    tx: &mut AnyConnection,
    enrolment: &Enrolment,
    lead: &str,
    credential: &str,
    now: Timestamp,
) -> Result<String, StoreError> {
    let id = new_id()?;
    let mut name = enrolment.name.clone();
    for number in 2..NAMES_TRIED_MAX {
        let query = sqlx::query("SELECT id FROM fleet_group WHERE name = $1").bind(&name);
        if query.fetch_optional(&mut *tx).await?.is_none() {
            break;
        }
        name = format!("{} {number}", enrolment.name);
    }
    let sql = "INSERT INTO fleet_group (id, name, labels, zone, hours, mode, lead, \
        credential_hash, enrolled_at, number, phase, attention, documents) \
        VALUES ($1,$2,$3,$4,'',$5,$6,$7,$8,0,'','','{}')";
    let query = sqlx::query(sql).bind(&id).bind(name).bind(enrolment.labels.stored());
    let query = query.bind(&enrolment.zone).bind(Mode::default().as_str()).bind(lead);
    query.bind(hash_of(credential)).bind(moment(now)).execute(tx).await?;
    Ok(id)
}

/// Numbers that are tried behind a name that is taken.
const NAMES_TRIED_MAX: u32 = 10_000;
