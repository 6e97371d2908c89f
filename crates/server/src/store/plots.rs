//! What plots are made of: when groups went to which release, and how long rollouts took.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::checkins::Arrival;
use super::{Store, StoreError, moment, moment_maybe, moment_of, number_maybe, number_of};

/// Groups that went from one release to another within the same ten seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Where the ten seconds begin.
    pub at: Timestamp,
    /// Number of the release that they were on; 0: on no one release. `None`: they had not come.
    pub from: Option<u32>,
    /// Number of the release that they went to; `None`: they were removed.
    pub to: Option<u32>,
    /// So many.
    pub groups: u64,
}

/// How long one rollout took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Took {
    /// Number of the release that it led to.
    pub number: u32,
    /// `keep` or `revert`.
    pub verdict: String,
    /// From when the server heard of its begin until it heard of its end, in milliseconds; `None`:
    /// it did not hear of the begin.
    pub took_ms: Option<u64>,
    /// So long its members ran different releases, in seconds.
    pub disagreed_s: Option<u32>,
}

impl Store {
    /// Who went from which release to which since `since`, oldest first.
    pub async fn moves(&self, since: Timestamp) -> Result<Vec<Moved>, StoreError> {
        let sql = "SELECT SUBSTR(at, 1, 18) AS ten_s, number_before, number, \
            COUNT(*) AS groups_count FROM adoption WHERE at >= $1 \
            GROUP BY SUBSTR(at, 1, 18), number_before, number ORDER BY ten_s";
        let query = sqlx::query(sql).bind(moment(since));
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let moved = |row: &AnyRow| {
            let begin: String = row.try_get("ten_s")?;
            let at = format!("{begin}0Z").parse();
            Ok(Moved {
                at: at.map_err(|_| StoreError::Strange { column: "at", found: begin })?,
                from: number_maybe(row, "number_before")?,
                to: number_maybe(row, "number")?,
                groups: number_of(row, "groups_count")?,
            })
        };
        rows.iter().map(moved).collect()
    }

    /// How many groups were on each release when no rollout was open last: number and groups.
    pub async fn settled_census(&self) -> Result<Vec<(u32, u64)>, StoreError> {
        let sql = "SELECT settled_number, COUNT(*) AS groups_count FROM fleet_group \
            WHERE settled_number IS NOT NULL GROUP BY settled_number";
        let rows = sqlx::query(sql).fetch_all(&mut *self.read().await?).await?;
        let count =
            |row: &AnyRow| Ok((number_of(row, "settled_number")?, number_of(row, "groups_count")?));
        rows.iter().map(count).collect()
    }

    /// The last rollouts forward, newest first; of all releases, or of the one with this number.
    pub async fn rollouts_took(&self, number: Option<u32>) -> Result<Vec<Took>, StoreError> {
        let only = match number {
            Some(number) => format!("AND number = {number}"),
            None => String::new(),
        };
        let sql = format!(
            "SELECT number, verdict, began_at, told_at, disagreed_s FROM past_rollout \
             WHERE kind = 'forward' AND (began_at IS NOT NULL OR disagreed_s IS NOT NULL) {only} \
             ORDER BY told_at DESC LIMIT {TOOK_MAX}"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(took_of).collect()
    }
}

fn took_of(row: &AnyRow) -> Result<Took, StoreError> {
    let told_at = moment_of(row, "told_at")?;
    let began_at = moment_maybe(row, "began_at")?;
    let took = |began: Timestamp| u64::try_from(told_at.duration_since(began).as_millis()).ok();
    Ok(Took {
        number: number_of(row, "number")?,
        verdict: row.try_get("verdict")?,
        took_ms: began_at.and_then(took),
        disagreed_s: number_maybe(row, "disagreed_s")?,
    })
}

/// Takes down that a group is on another release than it was when no rollout was open last. What it
/// runs while one is open is on trial, or half of it.
pub(super) async fn note_settled(
    tx: &mut AnyConnection,
    arrival: &Arrival,
) -> Result<(), StoreError> {
    let report = &arrival.report;
    // A lead that has just booted has not heard of all its members yet: that is no mixed group.
    let is_unknown = report.number == 0 && report.devices.iter().any(|it| it.number == 0);
    if report.open.is_some() || is_unknown {
        return Ok(());
    }
    let sql = "SELECT settled_number FROM fleet_group WHERE id = $1";
    let row = sqlx::query(sql).bind(&arrival.group).fetch_optional(&mut *tx).await?;
    let Some(row) = row else { return Ok(()) };
    let (before, number) = (number_maybe(&row, "settled_number")?, report.number);
    if before == Some(number) {
        return Ok(());
    }
    note_move(tx, &arrival.group, arrival.at, before, Some(number)).await?;
    let sql = "UPDATE fleet_group SET settled_number = $1 WHERE id = $2";
    let query = sqlx::query(sql).bind(i64::from(number)).bind(&arrival.group);
    query.execute(tx).await?;
    Ok(())
}

/// Takes down that a group is removed; what it did before stays in the plots.
pub(super) async fn note_gone(
    tx: &mut AnyConnection,
    group: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let query = sqlx::query("SELECT settled_number FROM fleet_group WHERE id = $1").bind(group);
    let Some(row) = query.fetch_optional(&mut *tx).await? else { return Ok(()) };
    match number_maybe(&row, "settled_number")? {
        Some(before) => note_move(tx, group, now, Some(before), None).await,
        None => Ok(()),
    }
}

async fn note_move(
    tx: &mut AnyConnection,
    group: &str,
    at: Timestamp,
    from: Option<u32>,
    to: Option<u32>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO adoption (fleet_group, at, number_before, number) VALUES ($1,$2,$3,$4)";
    let query = sqlx::query(sql).bind(group).bind(moment(at)).bind(from.map(i64::from));
    query.bind(to.map(i64::from)).execute(tx).await?;
    Ok(())
}

/// Rollouts that one plot shows, at most.
const TOOK_MAX: usize = 2000;
