//! Campaigns in the tables. What is to be done is decided by [`crate::campaign`]; here it is read,
//! and what was decided is written, in one transaction that only one of several servers can win.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::changes::tell;
use super::checkins::{standing_of, state_of};
use super::{
    PAGE_ROWS_MAX, Store, StoreError, audit, moment, moment_maybe, moment_of, new_id, number_of,
};
use crate::campaign::{Decision, Member, Plan, Standing, State, Wave};
use crate::hours::Hours;
use crate::manifests::Facts;
use crate::route::{Stop, next_stop};
use crate::server::Change;
use crate::store::releases::Release;

/// A campaign as it stands in the tables.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Its identity.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The release that it brings.
    pub release: String,
    /// What it goes by.
    pub plan: Plan,
    /// Why it is paused or over; empty: nothing to say.
    pub why: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// By whom.
    pub made_by: String,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Rises with each change.
    pub revision: i64,
}

/// A group of a campaign, for people.
#[derive(Debug, Clone)]
pub struct Participant {
    /// The group's identity.
    pub group: String,
    /// Its name.
    pub name: String,
    /// In which wave its turn comes, from 0.
    pub wave: usize,
    /// How it stands.
    pub standing: Standing,
    /// Since when.
    pub since: Timestamp,
    /// Why it failed or is left out; empty: nothing to say.
    pub cause: String,
    /// The cause's code, if it has one; empty: it has none.
    pub code: String,
    /// Number of its release when the campaign began.
    pub number_before: u32,
    /// Phase of its open rollout; empty: none.
    pub phase: String,
    /// When its lead was heard last.
    pub seen_at: Option<Timestamp>,
    /// What its lead says of the offer, if that is not yes.
    pub offer_answer: Option<String>,
}

/// A campaign that is to be made.
#[derive(Debug, Clone)]
pub struct NewCampaign {
    /// What people call it.
    pub name: String,
    /// The release that it brings.
    pub release: String,
    /// Its steps.
    pub waves: Vec<Wave>,
    /// More failures than these, and it pauses.
    pub failures_max: usize,
    /// Nothing is offered before this moment.
    pub not_before: Option<Timestamp>,
    /// The groups: identity, wave, number of its release now, and why it is left out if it is.
    pub groups: Vec<(String, usize, u32, Option<String>)>,
}

/// What came of making a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// Its identity.
    Campaign(String),
    /// A group is in another campaign that is open: names of the group and of the campaign.
    Taken(String, String),
}

const COLUMNS: &str = "id, name, release, state, why, failures_max, not_before, waves, made_at, \
    made_by, ended_at, revision";

impl Campaign {
    fn of(row: &AnyRow) -> Result<Self, StoreError> {
        let waves: String = row.try_get("waves")?;
        let waves = serde_json::from_str(&waves)
            .map_err(|_| StoreError::Strange { column: "waves", found: waves.clone() })?;
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            release: row.try_get("release")?,
            plan: Plan {
                state: state_of(row)?,
                waves,
                failures_max: number_of(row, "failures_max")?,
                not_before: moment_maybe(row, "not_before")?,
            },
            why: row.try_get("why")?,
            made_at: moment_of(row, "made_at")?,
            made_by: row.try_get("made_by")?,
            ended_at: moment_maybe(row, "ended_at")?,
            revision: row.try_get("revision")?,
        })
    }
}

impl Store {
    /// Makes a campaign with its groups.
    pub async fn make_campaign(
        &self,
        new: &NewCampaign,
        who: &str,
        now: Timestamp,
    ) -> Result<Made, StoreError> {
        let id = new_id()?;
        self.write(async |tx| {
            for (group, _, _, left_out) in &new.groups {
                if left_out.is_none()
                    && let Some(taken) = open_campaign_of(tx, group).await?
                {
                    return Ok(taken);
                }
            }
            let sql = "INSERT INTO campaign (id, name, release, state, why, failures_max, \
                not_before, waves, made_at, made_by, revision) \
                VALUES ($1,$2,$3,'running','',$4,$5,$6,$7,$8,0)";
            let waves = serde_json::to_string(&new.waves).unwrap_or_default();
            let query = sqlx::query(sql).bind(&id).bind(&new.name).bind(&new.release);
            let query = query.bind(i64::try_from(new.failures_max).unwrap_or(i64::MAX));
            let query = query.bind(new.not_before.map(moment)).bind(waves).bind(moment(now));
            query.bind(who).execute(&mut *tx).await?;
            for (group, wave, number, left_out) in &new.groups {
                let standing = left_out.as_ref().map_or(Standing::Waits, |_| Standing::Skipped);
                let sql = "INSERT INTO campaign_group (campaign, fleet_group, wave, standing, \
                    since, cause, number_before) VALUES ($1,$2,$3,$4,$5,$6,$7)";
                let query = sqlx::query(sql).bind(&id).bind(group);
                let query = query.bind(i64::try_from(*wave).unwrap_or(i64::MAX));
                let query = query.bind(standing.as_str()).bind(moment(now));
                let query = query.bind(left_out.as_deref().unwrap_or_default());
                query.bind(i64::from(*number)).execute(&mut *tx).await?;
            }
            tell(tx, &Change::Campaign(id.clone())).await?;
            let detail = format!("{}: {} groups", new.name, new.groups.len());
            audit::note(tx, now, who, "campaign.make", &id, &detail).await?;
            Ok(Made::Campaign(id.clone()))
        })
        .await
    }

    /// All campaigns, newest first.
    pub async fn campaigns(&self) -> Result<Vec<Campaign>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM campaign ORDER BY made_at DESC LIMIT {PAGE_ROWS_MAX}");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(Campaign::of).collect()
    }

    /// How many campaigns there are in each state.
    pub async fn campaign_states(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let sql = "SELECT state, COUNT(*) AS campaigns FROM campaign GROUP BY state ORDER BY state";
        let rows = sqlx::query(sql).fetch_all(&mut *self.read().await?).await?;
        let count = |row: &AnyRow| Ok((state_of(row)?.as_str(), number_of(row, "campaigns")?));
        rows.iter().map(count).collect()
    }

    /// One campaign.
    pub async fn campaign(&self, id: &str) -> Result<Option<Campaign>, StoreError> {
        let mut connection = self.read().await?;
        read_campaign(&mut connection, id).await
    }

    /// Campaigns about which something may have to be decided.
    pub async fn lively_campaigns(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT id FROM campaign c WHERE state = 'running' OR EXISTS \
            (SELECT 1 FROM campaign_group g WHERE g.campaign = c.id AND g.standing = 'offered')";
        let rows = sqlx::query(sql).fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// The groups of a campaign, in the order of waves and names.
    pub async fn participants(&self, campaign: &str) -> Result<Vec<Participant>, StoreError> {
        let sql = "SELECT g.fleet_group, f.name, g.wave, g.standing, g.since, g.cause, \
            g.code, g.number_before, f.phase, f.seen_at, f.offer_answer FROM campaign_group g \
            JOIN fleet_group f ON f.id = g.fleet_group WHERE g.campaign = $1 \
            ORDER BY g.wave, f.name";
        let rows = sqlx::query(sql).bind(campaign).fetch_all(&mut *self.read().await?).await?;
        let participant = |row: &AnyRow| {
            Ok(Participant {
                group: row.try_get("fleet_group")?,
                name: row.try_get("name")?,
                wave: number_of(row, "wave")?,
                standing: standing_of(row)?,
                since: moment_of(row, "since")?,
                cause: row.try_get("cause")?,
                code: row.try_get("code")?,
                number_before: number_of(row, "number_before")?,
                phase: row.try_get("phase")?,
                seen_at: moment_maybe(row, "seen_at")?,
                offer_answer: row.try_get("offer_answer")?,
            })
        };
        rows.iter().map(participant).collect()
    }

    /// The campaign that a group is in, or was in last.
    pub async fn campaign_of(&self, group: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT g.campaign FROM campaign_group g JOIN campaign c ON c.id = g.campaign \
            WHERE g.fleet_group = $1 ORDER BY c.made_at DESC LIMIT 1";
        let query = sqlx::query(sql).bind(group);
        let row = query.fetch_optional(&mut *self.read().await?).await?;
        row.map(|row| Ok(row.try_get("campaign")?)).transpose()
    }

    /// Decides what follows from how a campaign stands and writes it, in one transaction. Returns
    /// the groups for which something has changed, and whether the campaign itself has.
    pub async fn advance_campaign(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<(Vec<String>, bool), StoreError> {
        {
            // Mostly there is nothing to write.
            let mut connection = self.read().await?;
            let Some(campaign) = read_campaign(&mut connection, id).await? else {
                return Ok((Vec::new(), false));
            };
            let members = read_members(&mut connection, id).await?;
            if campaign.plan.decide(now, &members) == Decision::default() {
                return Ok((Vec::new(), false));
            }
        }
        self.write(async |tx| {
            // Another server may be about the same: the second one waits here for the first.
            let sql = "UPDATE campaign SET revision = revision + 1 WHERE id = $1";
            if sqlx::query(sql).bind(id).execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok((Vec::new(), false));
            }
            let Some(campaign) = read_campaign(tx, id).await? else {
                return Ok((Vec::new(), false));
            };
            let members = read_members(tx, id).await?;
            let decision = campaign.plan.decide(now, &members);
            let changed = write_decision(tx, &campaign, &decision, now).await?;
            Ok((changed, decision.state.is_some()))
        })
        .await
    }

    /// A person pauses, resumes, or aborts a campaign. `None`: there is no such campaign;
    /// `Some(false)`: it stands so that this changes nothing.
    pub async fn set_campaign_state(
        &self,
        id: &str,
        state: State,
        why: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError> {
        self.write(async |tx| {
            let Some(campaign) = read_campaign(tx, id).await? else { return Ok(None) };
            let is_change = match (campaign.plan.state, state) {
                (State::Running, State::Paused | State::Aborted) => true,
                (State::Paused, State::Running | State::Aborted) => true,
                (State::Running | State::Paused, _) | (State::Aborted | State::Done, _) => false,
            };
            if !is_change {
                return Ok(Some(false));
            }
            write_state(tx, id, state, why, now).await?;
            let did = match state {
                State::Running => "campaign.resume",
                State::Paused => "campaign.pause",
                State::Aborted | State::Done => "campaign.abort",
            };
            audit::note(tx, now, who, did, id, why).await?;
            Ok(Some(true))
        })
        .await
    }

    /// A person allows so many failures from now on, so that a campaign that paused can go on.
    pub async fn set_failures_max(
        &self,
        id: &str,
        failures_max: usize,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let sql = "UPDATE campaign SET failures_max = $1, revision = revision + 1 \
                WHERE id = $2 AND state IN ('running', 'paused')";
            let query = sqlx::query(sql).bind(i64::try_from(failures_max).unwrap_or(i64::MAX));
            if query.bind(id).execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            let detail = failures_max.to_string();
            audit::note(tx, now, who, "campaign.allow", id, &detail).await?;
            Ok(true)
        })
        .await
    }

    /// A person says that a wave may begin. `None`: no such campaign or wave; `Some(false)`: that
    /// was said before, or it need not be said.
    pub async fn approve_wave(
        &self,
        id: &str,
        wave: usize,
        who: &str,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError> {
        self.write(async |tx| {
            let Some(mut campaign) = read_campaign(tx, id).await? else { return Ok(None) };
            let Some(it) = campaign.plan.waves.get_mut(wave) else { return Ok(None) };
            if !it.needs_approval || it.is_approved {
                return Ok(Some(false));
            }
            it.is_approved = true;
            let waves = serde_json::to_string(&campaign.plan.waves).unwrap_or_default();
            let sql = "UPDATE campaign SET waves = $1, revision = revision + 1 WHERE id = $2";
            sqlx::query(sql).bind(waves).bind(id).execute(&mut *tx).await?;
            tell(tx, &Change::Campaign(id.to_owned())).await?;
            let detail = format!("wave {}", wave + 1);
            audit::note(tx, now, who, "campaign.approve", id, &detail).await?;
            Ok(Some(true))
        })
        .await
    }

    /// Gives a group that failed another chance. `false`: it has not failed in this campaign.
    pub async fn retry_group(
        &self,
        id: &str,
        group: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let sql = "UPDATE campaign_group SET standing = 'waits', since = $1, cause = '', \
                code = '', offer = NULL WHERE campaign = $2 AND fleet_group = $3 \
                AND standing = 'failed'";
            let query = sqlx::query(sql).bind(moment(now)).bind(id).bind(group);
            if query.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            tell(tx, &Change::Campaign(id.to_owned())).await?;
            audit::note(tx, now, who, "campaign.retry", id, group).await?;
            Ok(true)
        })
        .await
    }

    /// Orders a group's lead to do something: `abort` its open rollout, or `revert` its last one.
    pub async fn order(
        &self,
        group: &str,
        what: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let id = new_id()?;
        self.write(async |tx| {
            let sql = "INSERT INTO group_order (id, fleet_group, what, made_at, made_by, answer) \
                VALUES ($1,$2,$3,$4,$5,'')";
            let query = sqlx::query(sql).bind(&id).bind(group).bind(what).bind(moment(now));
            query.bind(who).execute(&mut *tx).await?;
            tell(tx, &Change::Group(group.to_owned())).await?;
            audit::note(tx, now, who, &format!("group.{what}"), group, "").await?;
            Ok(id.clone())
        })
        .await
    }
}

async fn read_campaign(
    connection: &mut AnyConnection,
    id: &str,
) -> Result<Option<Campaign>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM campaign WHERE id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(Campaign::of).transpose()
}

async fn read_members(
    connection: &mut AnyConnection,
    campaign: &str,
) -> Result<Vec<Member>, StoreError> {
    let sql = "SELECT g.fleet_group, g.wave, g.standing, g.since, f.hours, f.zone \
        FROM campaign_group g JOIN fleet_group f ON f.id = g.fleet_group WHERE g.campaign = $1 \
        ORDER BY g.wave, f.name";
    let rows = sqlx::query(sql).bind(campaign).fetch_all(connection).await?;
    // Thousands of groups have the same hours.
    let mut known: BTreeMap<(String, String), Hours> = BTreeMap::new();
    let mut members = Vec::with_capacity(rows.len());
    for row in &rows {
        let key: (String, String) = (row.try_get("hours")?, row.try_get("zone")?);
        let hours = match known.get(&key) {
            Some(hours) => hours.clone(),
            None => {
                let hours = Hours::new(&key.0, &key.1)
                    .map_err(|_| StoreError::Strange { column: "hours", found: key.0.clone() })?;
                known.insert(key, hours.clone());
                hours
            }
        };
        members.push(Member {
            group: row.try_get("fleet_group")?,
            wave: number_of(row, "wave")?,
            standing: standing_of(row)?,
            since: moment_of(row, "since")?,
            hours,
        });
    }
    Ok(members)
}

/// Writes what was decided; the groups that it is about.
async fn write_decision(
    tx: &mut AnyConnection,
    campaign: &Campaign,
    decision: &Decision,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let (waits, offered) = (Standing::Waits, Standing::Offered);
    let there = decision.offers.iter().map(|group| (group, waits, offered));
    let back = decision.withdrawals.iter().map(|group| (group, offered, waits));
    let (mut changed, mut ways) = (Vec::new(), Ways::default());
    for (group, from, to) in there.chain(back) {
        let (offer, step) = match to == offered {
            true => (Some(new_id()?), ways.step(tx, campaign, group).await?),
            false => (None, None),
        };
        // A report may have moved the group on since it was looked at.
        let sql = "UPDATE campaign_group SET standing = $1, since = $2, offer = $3, \
            step_release = $4 WHERE campaign = $5 AND fleet_group = $6 AND standing = $7";
        let query = sqlx::query(sql).bind(to.as_str()).bind(moment(now)).bind(offer).bind(step);
        let query = query.bind(&campaign.id).bind(group).bind(from.as_str());
        if query.execute(&mut *tx).await?.rows_affected() > 0 {
            tell(tx, &Change::Group(group.clone())).await?;
            changed.push(group.clone());
        }
    }
    if !changed.is_empty() {
        tell(tx, &Change::Campaign(campaign.id.clone())).await?;
    }
    if let Some((state, why)) = &decision.state {
        write_state(tx, &campaign.id, *state, why, now).await?;
        let did = match state {
            State::Paused => "campaign.pause",
            State::Running | State::Aborted | State::Done => "campaign.done",
        };
        audit::note(tx, now, "lockstep", did, &campaign.id, why).await?;
    }
    Ok(changed)
}

/// Where groups go next that do not speak to the release. Read once for each decision.
#[derive(Default)]
struct Ways {
    known: Option<Vec<Stop>>,
    /// By the number of the release that a group is on.
    steps: BTreeMap<u32, Option<String>>,
}

impl Ways {
    /// The release on the way to the campaign's, for this group; `None`: straight to it.
    async fn step(
        &mut self,
        tx: &mut AnyConnection,
        campaign: &Campaign,
        group: &str,
    ) -> Result<Option<String>, StoreError> {
        let query = sqlx::query("SELECT number FROM fleet_group WHERE id = $1").bind(group);
        let Some(row) = query.fetch_optional(&mut *tx).await? else { return Ok(None) };
        let from: u32 = number_of(&row, "number")?;
        if let Some(step) = self.steps.get(&from) {
            return Ok(step.clone());
        }
        let known = match self.known.take() {
            Some(known) => known,
            None => read_stops(tx, &campaign.release).await?,
        };
        let to = known.iter().find(|stop| stop.id == campaign.release);
        let from_stop = known.iter().find(|stop| stop.number == from);
        let step = match (from_stop, to) {
            (Some(from), Some(to)) => next_stop(from, to, &known).map(|stop| stop.id.clone()),
            _ => None,
        };
        self.known = Some(known);
        self.steps.insert(from, step.clone());
        Ok(step)
    }
}

/// The releases of a product that were not withdrawn, by one of them.
async fn read_stops(tx: &mut AnyConnection, release: &str) -> Result<Vec<Stop>, StoreError> {
    let releases = super::releases::of_same_system(tx, release).await?;
    let stop = |it: &Release| Facts::of(it).map(|facts| Stop::of(&it.id, &facts));
    Ok(releases.iter().filter_map(stop).collect())
}

async fn write_state(
    tx: &mut AnyConnection,
    id: &str,
    state: State,
    why: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let ended = (!state.is_open()).then(|| moment(now));
    let sql = "UPDATE campaign SET state = $1, why = $2, ended_at = $3, revision = revision + 1 \
        WHERE id = $4";
    let query = sqlx::query(sql).bind(state.as_str()).bind(why).bind(ended).bind(id);
    query.execute(&mut *tx).await?;
    tell(tx, &Change::Campaign(id.to_owned())).await
}

async fn open_campaign_of(tx: &mut AnyConnection, group: &str) -> Result<Option<Made>, StoreError> {
    let sql = "SELECT f.name AS group_name, c.name FROM campaign_group g \
        JOIN campaign c ON c.id = g.campaign JOIN fleet_group f ON f.id = g.fleet_group \
        WHERE g.fleet_group = $1 AND c.state IN ('running', 'paused') \
        AND g.standing NOT IN ('skipped', 'kept') LIMIT 1";
    let row = sqlx::query(sql).bind(group).fetch_optional(tx).await?;
    row.map(|row| Ok(Made::Taken(row.try_get("group_name")?, row.try_get("name")?))).transpose()
}
