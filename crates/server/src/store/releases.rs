//! Releases in the tables; their bundles are in the store of objects.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::changes::tell;
use super::{Store, StoreError, audit, moment, moment_maybe, moment_of, number_of};
use crate::server::Change;

/// A release that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its identity here.
    pub id: String,
    /// The product; empty for one that names none.
    pub system: String,
    /// Its version.
    pub version: String,
    /// The version's number.
    pub number: u32,
    /// Rises with every release of the product; 0 where nobody counts.
    pub sequence: u32,
    /// The anti-rollback counter.
    pub epoch: u32,
    /// The bundle's identity.
    pub bundle_sha256: String,
    /// The bundle's size.
    pub bundle_bytes: u64,
    /// The bytes of `manifest.json`.
    pub manifest: String,
    /// So many signatures are in the bundle.
    pub signatures: u32,
    /// Who made them, as far as could be seen when it came.
    pub signers: Vec<Signer>,
    /// Where each artifact is in the bundle: JSON, see [`crate::manifests::places`].
    pub places: String,
    /// What is new, for people.
    pub description: String,
    /// When it came.
    pub uploaded_at: Timestamp,
    /// From whom.
    pub uploaded_by: String,
    /// Since when it is not offered any more.
    pub withdrawn_at: Option<Timestamp>,
}

/// Who made one signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The key's name, as `minisign` prints it.
    pub key: String,
    /// Whether this server has the key, and has verified the signature with it. Else nobody here
    /// knows whether the key and the comment are what they say; devices verify for themselves.
    pub is_verified: bool,
    /// What the signer wrote beside it (the trusted comment).
    pub comment: String,
}

const COLUMNS: &str = "id, system, version, number, sequence, epoch, bundle_sha256, bundle_bytes, \
    manifest, signatures, signers, places, description, uploaded_at, uploaded_by, withdrawn_at";

impl Release {
    fn of(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.try_get("id")?,
            system: row.try_get("system")?,
            version: row.try_get("version")?,
            number: number_of(row, "number")?,
            sequence: number_of(row, "sequence")?,
            epoch: number_of(row, "epoch")?,
            bundle_sha256: row.try_get("bundle_sha256")?,
            bundle_bytes: number_of(row, "bundle_bytes")?,
            manifest: row.try_get("manifest")?,
            signatures: number_of(row, "signatures")?,
            signers: serde_json::from_str(row.try_get("signers")?).unwrap_or_default(),
            places: row.try_get("places")?,
            description: row.try_get("description")?,
            uploaded_at: moment_of(row, "uploaded_at")?,
            uploaded_by: row.try_get("uploaded_by")?,
            withdrawn_at: moment_maybe(row, "withdrawn_at")?,
        })
    }
}

impl Store {
    /// Takes a release in. The same bundle a second time is the same release: its identity is
    /// returned, and nothing is changed.
    pub async fn add_release(&self, release: &Release) -> Result<String, StoreError> {
        self.write(async |tx| {
            let known = sqlx::query("SELECT id FROM release WHERE bundle_sha256 = $1")
                .bind(&release.bundle_sha256)
                .fetch_optional(&mut *tx)
                .await?;
            if let Some(row) = known {
                return Ok(row.try_get("id")?);
            }
            let sql = INSERT;
            let query = sqlx::query(sql).bind(&release.id).bind(&release.system);
            let query = query.bind(&release.version).bind(i64::from(release.number));
            let query = query.bind(i64::from(release.sequence)).bind(i64::from(release.epoch));
            let bytes = i64::try_from(release.bundle_bytes).unwrap_or(i64::MAX);
            let query = query.bind(&release.bundle_sha256).bind(bytes).bind(&release.manifest);
            let query = query.bind(i64::from(release.signatures)).bind(&release.places);
            let query = query.bind(&release.description).bind(moment(release.uploaded_at));
            let signers = serde_json::to_string(&release.signers).unwrap_or_default();
            query.bind(&release.uploaded_by).bind(signers).execute(&mut *tx).await?;
            tell(tx, &Change::Releases).await?;
            let (at, who) = (release.uploaded_at, release.uploaded_by.as_str());
            let detail = format!("{} {}", release.system, release.version);
            audit::note(tx, at, who, "release.upload", &release.id, &detail).await?;
            Ok(release.id.clone())
        })
        .await
    }

    /// All releases, newest version first.
    pub async fn releases(&self) -> Result<Vec<Release>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM release \
             ORDER BY system, number DESC, uploaded_at DESC LIMIT {RELEASES_MAX}"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(Release::of).collect()
    }

    /// Every release, for whoever must leave none out.
    pub async fn all_releases(&self) -> Result<Vec<Release>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM release ORDER BY id");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(Release::of).collect()
    }

    /// One release.
    pub async fn release(&self, id: &str) -> Result<Option<Release>, StoreError> {
        self.release_where("id", id).await
    }

    /// The release of a bundle.
    pub async fn release_of_bundle(&self, sha256: &str) -> Result<Option<Release>, StoreError> {
        self.release_where("bundle_sha256", sha256).await
    }

    async fn release_where(
        &self,
        column: &'static str,
        value: &str,
    ) -> Result<Option<Release>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM release WHERE {column} = $1");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(value);
        let row = query.fetch_optional(&mut *self.read().await?).await?;
        row.as_ref().map(Release::of).transpose()
    }

    /// From now on nobody is offered it; who has it keeps it. `false`: there is no such release,
    /// or it was withdrawn before.
    pub async fn withdraw_release(
        &self,
        id: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let sql = "UPDATE release SET withdrawn_at = $1 WHERE id = $2 AND withdrawn_at IS NULL";
            let done = sqlx::query(sql).bind(moment(now)).bind(id).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            tell(tx, &Change::Releases).await?;
            audit::note(tx, now, who, "release.withdraw", id, "").await?;
            Ok(true)
        })
        .await
    }
}

/// Releases of the same product as this one that are offered; it is among them, even if it is not.
pub(super) async fn of_same_system(
    tx: &mut AnyConnection,
    id: &str,
) -> Result<Vec<Release>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM release WHERE (withdrawn_at IS NULL OR id = $1) AND system = \
         (SELECT system FROM release WHERE id = $1) ORDER BY number, uploaded_at"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_all(tx).await?;
    rows.iter().map(Release::of).collect()
}

const INSERT: &str = "INSERT INTO release (id, system, version, number, sequence, epoch, \
    bundle_sha256, bundle_bytes, manifest, signatures, places, description, uploaded_at, \
    uploaded_by, signers) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15)";

/// Releases that are listed, at most.
const RELEASES_MAX: usize = 1000;
