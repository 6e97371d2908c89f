//! What is durable beside the bundles: SQLite in one file by default, PostgreSQL by its URL. One
//! SQL text serves both.
//!
//! Every change is one transaction (`Store::write`): it happens wholly or not at all, and when it
//! is answered it is on disk. SQLite has one writer at a time, so writers queue up here, where
//! nobody is refused for being second.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sha2::Digest as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{AnyConnection, AnyPool, Executor as _, Row as _};
use tokio::sync::Mutex;

pub mod audit;
pub mod campaigns;
pub mod changes;
pub mod checkins;
mod devices;
pub mod groups;
pub mod overview;
pub mod people;
pub mod plots;
pub mod releases;
mod schema;

/// The database.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    kind: Kind,
    /// With its password, which `Debug` does not show.
    url: String,
    /// SQLite's only writer.
    turn: Arc<Mutex<()>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = without_password(&self.url);
        f.debug_struct("Store").field("url", &url).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// Why the database did not do what it should.
#[derive(Debug)]
pub enum StoreError {
    /// Its address is none.
    Url {
        /// What was given.
        found: String,
    },
    /// It was written by a later version of this program.
    TooNew {
        /// Steps that it has.
        found: i64,
        /// Steps that this program knows.
        known: usize,
    },
    /// It is away, full, or refuses.
    Database(sqlx::Error),
    /// What stands in it is not what this program writes.
    Strange {
        /// The column.
        column: &'static str,
        /// What stands there.
        found: String,
    },
    /// The host gives no random numbers.
    Random(getrandom::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { found } => write!(
                f,
                "`{found}` is no database, expected sqlite:FILE or postgres://USER@HOST/NAME"
            ),
            Self::TooNew { found, known } => write!(
                f,
                "database has {found} steps, this program knows {known}: it was written by a later \
                 version"
            ),
            Self::Database(_) => write!(f, "the database cannot be used"),
            Self::Strange { column, found } => {
                write!(f, "`{column}` of the database has `{found}`, which this program writes not")
            }
            Self::Random(_) => write!(f, "the host gives no random numbers"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url { .. } | Self::TooNew { .. } | Self::Strange { .. } => None,
            Self::Database(error) => Some(error),
            Self::Random(error) => Some(error),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl StoreError {
    /// Whether the database is there, and does not take what it was given: another thing it may.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Database(error) => error.as_database_error().is_some(),
            Self::Url { .. } | Self::TooNew { .. } | Self::Random(_) => false,
            Self::Strange { .. } => true,
        }
    }

    /// Whether a row of that name is there already.
    pub fn is_duplicate(&self) -> bool {
        match self {
            Self::Database(error) => error
                .as_database_error()
                .is_some_and(sqlx::error::DatabaseError::is_unique_violation),
            _ => false,
        }
    }
}

impl Store {
    /// Opens the database at `url`, and brings its tables up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let bad = || StoreError::Url { found: without_password(url) };
        let kind = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Kind::Sqlite,
            Some("postgres" | "postgresql") => Kind::Postgres,
            _ => return Err(bad()),
        };
        let options: AnyConnectOptions = url.parse().map_err(|_| bad())?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_MAX)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if kind == Kind::Sqlite {
                        connection.execute(SQLITE_SETTINGS).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await?;
        let store = Self { pool, kind, url: url.to_owned(), turn: Arc::default() };
        store.migrate().await?;
        Ok(store)
    }

    /// The database in a folder, for whoever names no other.
    pub fn url_in(folder: &Path) -> String {
        format!("sqlite:{}?mode=rwc", folder.join(DATABASE_FILE).display())
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let known = schema::STEPS.len();
        self.write(async |tx| {
            if self.kind == Kind::Postgres {
                // Two replicas may start at the same moment.
                tx.execute(POSTGRES_MIGRATION_LOCK).await?;
            }
            tx.execute("CREATE TABLE IF NOT EXISTS step (number BIGINT PRIMARY KEY)").await?;
            let done: i64 = tx.fetch_one("SELECT COUNT(*) FROM step").await?.try_get(0)?;
            let first = usize::try_from(done).unwrap_or(usize::MAX);
            if first > known {
                return Err(StoreError::TooNew { found: done, known });
            }
            for (number, statements) in (0_i64..).zip(schema::STEPS).skip(first) {
                for statement in *statements {
                    tx.execute(*statement).await?;
                }
                let row = sqlx::query("INSERT INTO step (number) VALUES ($1)").bind(number);
                row.execute(&mut *tx).await?;
            }
            Ok(())
        })
        .await
    }

    /// A connection for reads.
    async fn read(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Does all of `work`, or nothing of it.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _turn = match self.kind {
            Kind::Sqlite => Some(self.turn.lock().await),
            Kind::Postgres => None,
        };
        let mut transaction = match self.kind {
            // Else a reader that begins to write would be refused beside another process.
            Kind::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
            Kind::Postgres => self.pool.begin().await?,
        };
        let done = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// A copy of SQLite's file as it is at one moment; others may read and write meanwhile.
    pub(crate) async fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        let file = file.display().to_string();
        let query = sqlx::query("VACUUM INTO $1").bind(file);
        query.execute(&mut *self.read().await?).await?;
        Ok(())
    }

    /// Waits until all connections are closed.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Whether it answers.
    pub async fn is_there(&self) -> Result<(), StoreError> {
        self.read().await?.execute("SELECT 1").await?;
        Ok(())
    }
}

/// An address as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
    }
}

/// A new identity: 80 random bits, in letters that are safe in addresses.
pub fn new_id() -> Result<String, StoreError> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(hex(&bytes))
}

/// A new identity that sorts behind those that were drawn before it.
fn new_id_at(now: Timestamp) -> Result<String, StoreError> {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
    // Many are drawn in one millisecond, and may be by several servers.
    let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(format!("{ms:012x}{drawn:08x}{}", hex(&bytes)))
}

/// The same, behind this one, whichever clock that was drawn by.
fn new_id_behind(last: Option<&str>, now: Timestamp) -> Result<String, StoreError> {
    let id = new_id_at(now)?;
    let Some(last) = last.filter(|last| *last >= id.as_str()) else { return Ok(id) };
    let ms = last.get(..12).and_then(|digits| i64::from_str_radix(digits, 16).ok());
    let next = ms.and_then(|ms| Timestamp::from_millisecond(ms + 1).ok());
    next.map_or(Ok(id), new_id_at)
}

/// A new secret: 32 random bytes as text.
pub fn new_secret() -> Result<String, StoreError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(hex(&bytes))
}

/// What of a secret stands in the tables.
pub fn hash_of(secret: &str) -> String {
    hex(&sha2::Sha256::digest(secret.as_bytes()))
}

/// As it stands in the tables, and in addresses.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for half in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]) {
        text.extend(char::from_digit(half.into(), 16));
    }
    text
}

/// A moment as it stands in the tables.
fn moment(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A moment of the tables.
fn moment_of(row: &AnyRow, column: &'static str) -> Result<Timestamp, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Strange { column, found: text })
}

/// A moment of the tables that need not be.
fn moment_maybe(row: &AnyRow, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    let parsed = text
        .map(|text| text.parse().map_err(|_| StoreError::Strange { column, found: text.clone() }));
    parsed.transpose()
}

/// A number of the tables that is never negative and fits.
fn number_of<T: TryFrom<i64>>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let found: i64 = row.try_get(column)?;
    T::try_from(found).map_err(|_| StoreError::Strange { column, found: found.to_string() })
}

/// A number of the tables that need not be.
fn number_maybe<T: TryFrom<i64>>(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let Some(found) = row.try_get::<Option<i64>, _>(column)? else { return Ok(None) };
    let number = T::try_from(found);
    number.map(Some).map_err(|_| StoreError::Strange { column, found: found.to_string() })
}

/// A word of the tables.
fn word_of<T: std::str::FromStr>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Strange { column, found: text })
}

/// SQLite's file in a server's folder.
pub const DATABASE_FILE: &str = "lockstep.sqlite";
/// Waits for the disk where it must, and lets readers read meanwhile.
const SQLITE_SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
    PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON;";
/// The number has no meaning but to be always the same.
const POSTGRES_MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7065732047)";
/// SQLite has one writer at a time anyway; PostgreSQL has a hundred connections by default, which
/// several replicas share.
const CONNECTIONS_MAX: u32 = 16;
/// Whoever waits longer for a connection is told that the database is busy.
const ACQUIRE_MAX: Duration = Duration::from_secs(10);
/// Rows of one page of a list, at most.
pub const PAGE_ROWS_MAX: i64 = 200;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
