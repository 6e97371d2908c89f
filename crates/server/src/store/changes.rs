//! What has changed, told to the other servers on the same PostgreSQL. The word is part of the
//! transaction that it is about (`pg_notify`), so none is told of what did not happen, and none is
//! left out. On SQLite there is nobody else.

use sqlx::AnyConnection;
use sqlx::postgres::PgListener;

use super::{Kind, Store, StoreError};
use crate::server::Change;

/// Tells the other servers, once this transaction is durable.
pub(super) async fn tell(tx: &mut AnyConnection, change: &Change) -> Result<(), StoreError> {
    if tx.backend_name() == POSTGRES {
        let query = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(change.written());
        query.execute(tx).await?;
    }
    Ok(())
}

/// Hears what other servers have changed, and what this one has.
#[derive(Debug)]
pub struct Follower(PgListener);

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// This has changed.
    Change(Change),
    /// The connection was away for a while: anything may have.
    Anything,
}

impl Follower {
    /// Waits for the next word.
    pub async fn next(&mut self) -> Result<Heard, StoreError> {
        loop {
            match self.0.try_recv().await? {
                None => return Ok(Heard::Anything),
                // A later version may tell what this one does not know.
                Some(word) => {
                    if let Some(change) = Change::read(word.payload()) {
                        return Ok(Heard::Change(change));
                    }
                }
            }
        }
    }
}

impl Store {
    /// Begins to listen to other servers; `None`: on this database there are none.
    pub async fn follow(&self) -> Result<Option<Follower>, StoreError> {
        if self.kind == Kind::Sqlite {
            return Ok(None);
        }
        let mut listener = PgListener::connect(&self.url).await?;
        listener.listen(CHANNEL).await?;
        Ok(Some(Follower(listener)))
    }
}

impl Change {
    /// As it is told.
    pub fn written(&self) -> String {
        match self {
            Self::Group(id) => format!("group:{id}"),
            Self::Lead(id) => format!("lead:{id}"),
            Self::Campaign(id) => format!("campaign:{id}"),
            Self::Releases => "releases:".to_owned(),
            // Nobody else's affair, so they are not read.
            Self::Anything => "anything:".to_owned(),
            Self::Ends => "ends:".to_owned(),
        }
    }

    /// Reads [`Change::written`].
    pub fn read(text: &str) -> Option<Self> {
        let (what, id) = text.split_once(':')?;
        Some(match what {
            "group" => Self::Group(id.to_owned()),
            "lead" => Self::Lead(id.to_owned()),
            "campaign" => Self::Campaign(id.to_owned()),
            "releases" => Self::Releases,
            _ => return None,
        })
    }
}

/// As sqlx calls it.
const POSTGRES: &str = "PostgreSQL";
/// The name under which servers hear each other.
const CHANNEL: &str = "lockstep";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_back_and_what_is_none_is_passed_over() {
        let id = || "0123".to_owned();
        for change in
            [Change::Group(id()), Change::Lead(id()), Change::Campaign(id()), Change::Releases]
        {
            assert_eq!(Change::read(&change.written()), Some(change));
        }
        assert_eq!(Change::read("weather:rain"), None);
        assert_eq!(Change::read(""), None);
    }
}
