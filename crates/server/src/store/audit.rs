//! Who did what, and when. Written in the same transaction as what was done, so that neither is
//! there without the other; never changed, and never taken out.

use jiff::Timestamp;
use sqlx::{AnyConnection, Row as _};

use super::{PAGE_ROWS_MAX, Store, StoreError, moment, moment_of, new_id_at};

/// One thing that somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order of things; the next page begins before it.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Who: a person, or a token's name.
    pub who: String,
    /// What, as in `campaign.pause`.
    pub did: String,
    /// To what: the identity of a group, a release, a campaign.
    pub about: String,
    /// For people.
    pub detail: String,
}

/// Takes down what `who` does in this transaction.
pub(super) async fn note(
    tx: &mut AnyConnection,
    now: Timestamp,
    who: &str,
    did: &str,
    about: &str,
    detail: &str,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit (id, at, who, did, about, detail) VALUES ($1,$2,$3,$4,$5,$6)";
    let row = sqlx::query(sql).bind(new_id_at(now)?).bind(moment(now)).bind(who);
    row.bind(did).bind(about).bind(detail).execute(tx).await?;
    Ok(())
}

impl Store {
    /// Takes down something that changes nothing else in the tables.
    pub async fn note(
        &self,
        now: Timestamp,
        who: &str,
        did: &str,
        about: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        self.write(async |tx| note(tx, now, who, did, about, detail).await).await
    }

    /// What was done, newest first, before the entry `before`; of `about` alone if one is named.
    pub async fn audit(
        &self,
        about: Option<&str>,
        before: Option<&str>,
    ) -> Result<Vec<Entry>, StoreError> {
        let sql = "SELECT id, at, who, did, about, detail FROM audit \
            WHERE ($1 = '' OR about = $1) AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3";
        let query = sqlx::query(sql).bind(about.unwrap_or_default());
        let query = query.bind(before.unwrap_or_default()).bind(PAGE_ROWS_MAX);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let entry = |row: &sqlx::any::AnyRow| {
            Ok(Entry {
                id: row.try_get("id")?,
                at: moment_of(row, "at")?,
                who: row.try_get("who")?,
                did: row.try_get("did")?,
                about: row.try_get("about")?,
                detail: row.try_get("detail")?,
            })
        };
        rows.iter().map(entry).collect()
    }
}
