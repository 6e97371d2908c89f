//! How the whole fleet stands: what figures and the console's first page are made of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Store, StoreError, moment, moment_maybe, moment_of, number_of};
use crate::fleet::Labels;

/// How many groups are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Number of their release; 0 if unknown.
    pub number: u32,
    /// Phase of their rollout; empty: none is open.
    pub phase: String,
    /// What a person should look at; empty: nothing.
    pub attention: String,
    /// So many.
    pub groups: u64,
}

/// How many groups there are on each release, by its number.
pub fn by_number(census: &[Count]) -> BTreeMap<u32, u64> {
    let mut groups = BTreeMap::new();
    for count in census {
        *groups.entry(count.number).or_default() += count.groups;
    }
    groups
}

/// A group that has not been heard for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When its lead was heard last; `None`: never.
    pub seen_at: Option<Timestamp>,
}

/// A group whose rollout goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InRollout {
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The phase.
    pub phase: String,
    /// What its lead said last, as JSON.
    pub documents: String,
}

/// A group that failed in a campaign that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedGroup {
    /// The campaign.
    pub campaign: String,
    /// Its name.
    pub campaign_name: String,
    /// The group.
    pub group: String,
    /// Its name.
    pub group_name: String,
    /// Why.
    pub cause: String,
    /// The cause's code; empty: it has none.
    pub code: String,
    /// Since when.
    pub since: Timestamp,
}

impl Store {
    /// How many groups there are on each release: number, phase, whether a person should look, and
    /// how many.
    pub async fn census(&self) -> Result<Vec<Count>, StoreError> {
        let sql = "SELECT number, phase, attention, COUNT(*) AS groups_count FROM fleet_group \
            GROUP BY number, phase, attention";
        let rows = sqlx::query(sql).fetch_all(&mut *self.read().await?).await?;
        let count = |row: &AnyRow| {
            Ok(Count {
                number: number_of(row, "number")?,
                phase: row.try_get("phase")?,
                attention: row.try_get("attention")?,
                groups: number_of(row, "groups_count")?,
            })
        };
        rows.iter().map(count).collect()
    }

    /// How many groups' leads have not come since then; who never came counts from its enrolment.
    pub async fn silent_since(&self, since: Timestamp) -> Result<u64, StoreError> {
        let sql = "SELECT COUNT(*) AS groups_count FROM fleet_group \
            WHERE COALESCE(seen_at, enrolled_at) < $1";
        let query = sqlx::query(sql).bind(moment(since));
        let row = query.fetch_one(&mut *self.read().await?).await?;
        number_of(&row, "groups_count")
    }

    /// Groups whose leads were not heard since `before`, those that are silent longest first.
    pub async fn silent_groups(&self, before: Timestamp) -> Result<Vec<Silent>, StoreError> {
        let sql = "SELECT id, name, seen_at FROM fleet_group \
            WHERE COALESCE(seen_at, enrolled_at) < $1 \
            ORDER BY COALESCE(seen_at, enrolled_at), name LIMIT $2";
        let query = sqlx::query(sql).bind(moment(before)).bind(SHOWN_MAX);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let silent = |row: &AnyRow| {
            Ok(Silent {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                seen_at: moment_maybe(row, "seen_at")?,
            })
        };
        rows.iter().map(silent).collect()
    }

    /// Groups whose rollout goes on, by name.
    pub async fn open_rollouts(&self) -> Result<Vec<InRollout>, StoreError> {
        let sql = "SELECT id, name, phase, documents FROM fleet_group \
            WHERE phase <> '' ORDER BY name LIMIT $1";
        let rows = sqlx::query(sql).bind(SHOWN_MAX).fetch_all(&mut *self.read().await?).await?;
        let open = |row: &AnyRow| {
            Ok(InRollout {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                phase: row.try_get("phase")?,
                documents: row.try_get("documents")?,
            })
        };
        rows.iter().map(open).collect()
    }

    /// Groups that failed in campaigns that are not over, the newest failure first.
    pub async fn failed_groups(&self) -> Result<Vec<FailedGroup>, StoreError> {
        let sql = "SELECT g.campaign, c.name AS campaign_name, g.fleet_group, \
            f.name AS group_name, g.cause, g.code, g.since FROM campaign_group g \
            JOIN campaign c ON c.id = g.campaign JOIN fleet_group f ON f.id = g.fleet_group \
            WHERE g.standing = 'failed' AND c.state IN ('running', 'paused') \
            ORDER BY g.since DESC, f.name LIMIT $1";
        let rows = sqlx::query(sql).bind(SHOWN_MAX).fetch_all(&mut *self.read().await?).await?;
        let failed = |row: &AnyRow| {
            Ok(FailedGroup {
                campaign: row.try_get("campaign")?,
                campaign_name: row.try_get("campaign_name")?,
                group: row.try_get("fleet_group")?,
                group_name: row.try_get("group_name")?,
                cause: row.try_get("cause")?,
                code: row.try_get("code")?,
                since: moment_of(row, "since")?,
            })
        };
        rows.iter().map(failed).collect()
    }

    /// How many groups have all of these labels.
    pub async fn count_groups(&self, labels: &Labels) -> Result<u64, StoreError> {
        let mut sql = String::from("SELECT COUNT(*) AS groups_count FROM fleet_group WHERE 1 = 1");
        let mut texts = Vec::new();
        for (key, value) in labels.iter() {
            texts.push(format!("%,{key}={value},%").replace('_', "\\_"));
            sql += &format!(" AND labels LIKE ${} ESCAPE '\\'", texts.len());
        }
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for text in &texts {
            query = query.bind(text);
        }
        number_of(&query.fetch_one(&mut *self.read().await?).await?, "groups_count")
    }
}

/// Rows of each list on the first page, at most.
const SHOWN_MAX: i64 = 50;
