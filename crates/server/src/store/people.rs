//! Who is let in: people with passwords, their sessions, and tokens for machines. Of every secret
//! the tables have only a hash.

use jiff::{Span, Timestamp};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{
    PAGE_ROWS_MAX, Store, StoreError, audit, hash_of, moment, moment_maybe, moment_of, new_id,
    new_secret, word_of,
};
use crate::access::{By, Caller, Role};

/// Somebody with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Its identity.
    pub id: String,
    /// How it signs in.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was let in.
    pub made_at: Timestamp,
}

/// A token of a machine; not its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its identity.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub made_at: Timestamp,
    /// By whom.
    pub made_by: String,
    /// Until when it is good; `None`: until it is taken back.
    pub expires_at: Option<Timestamp>,
    /// When it was used last, to the hour.
    pub used_at: Option<Timestamp>,
}

impl Store {
    /// Whether nobody has been let in yet.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        let row =
            sqlx::query("SELECT COUNT(*) FROM person").fetch_one(&mut *self.read().await?).await?;
        Ok(row.try_get::<i64, _>(0)? == 0)
    }

    /// Makes the first person, an admin. `None`: there is one already.
    pub async fn add_first_person(
        &self,
        name: &str,
        password_hash: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        self.write(async |tx| {
            let row = sqlx::query("SELECT COUNT(*) FROM person").fetch_one(&mut *tx).await?;
            if row.try_get::<i64, _>(0)? > 0 {
                return Ok(None);
            }
            let id = insert_person(tx, name, Role::Admin, password_hash, now).await?;
            audit::note(tx, now, name, "person.add", &id, "the first one, an admin").await?;
            Ok(Some(id))
        })
        .await
    }

    /// Lets somebody in. A name that is taken is a duplicate ([`StoreError::is_duplicate`]).
    pub async fn add_person(
        &self,
        name: &str,
        role: Role,
        password_hash: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        self.write(async |tx| {
            let id = insert_person(tx, name, role, password_hash, now).await?;
            audit::note(tx, now, who, "person.add", &id, &format!("{name}, {role}")).await?;
            Ok(id)
        })
        .await
    }

    /// Everybody.
    pub async fn people(&self) -> Result<Vec<Person>, StoreError> {
        let sql = "SELECT id, name, role, made_at FROM person ORDER BY name LIMIT $1";
        let query = sqlx::query(sql).bind(PAGE_ROWS_MAX);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(person_of).collect()
    }

    /// Somebody and the hash of its password.
    pub async fn person_named(&self, name: &str) -> Result<Option<(Person, String)>, StoreError> {
        let sql = "SELECT id, name, role, made_at, password FROM person WHERE name = $1";
        let query = sqlx::query(sql).bind(name);
        let row = query.fetch_optional(&mut *self.read().await?).await?;
        row.map(|row| Ok((person_of(&row)?, row.try_get("password")?))).transpose()
    }

    /// Gives somebody another password; all its sessions end.
    pub async fn set_person_password(
        &self,
        id: &str,
        password_hash: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let query = sqlx::query("UPDATE person SET password = $1 WHERE id = $2");
            let query = query.bind(password_hash).bind(id);
            if query.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query("DELETE FROM session WHERE person = $1").bind(id).execute(&mut *tx).await?;
            audit::note(tx, now, who, "person.password", id, "").await?;
            Ok(true)
        })
        .await
    }

    /// Lets somebody in no more. The last admin stays: `Some(false)`; `None`: there is nobody of
    /// that identity.
    pub async fn remove_person(
        &self,
        id: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError> {
        self.write(async |tx| {
            let known = sqlx::query("SELECT id FROM person WHERE id = $1").bind(id);
            if known.fetch_optional(&mut *tx).await?.is_none() {
                return Ok(None);
            }
            let sql = "DELETE FROM person WHERE id = $1 AND (role <> 'admin' OR EXISTS \
                (SELECT 1 FROM person other WHERE other.role = 'admin' AND other.id <> $1))";
            if sqlx::query(sql).bind(id).execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(Some(false));
            }
            sqlx::query("DELETE FROM session WHERE person = $1").bind(id).execute(&mut *tx).await?;
            audit::note(tx, now, who, "person.remove", id, "").await?;
            Ok(Some(true))
        })
        .await
    }

    /// Begins a session; what the browser gets.
    pub async fn begin_session(
        &self,
        person: &Person,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let secret = new_secret()?;
        self.write(async |tx| {
            let gone = sqlx::query("DELETE FROM session WHERE expires_at < $1").bind(moment(now));
            gone.execute(&mut *tx).await?;
            let sql = "INSERT INTO session (token_hash, person, made_at, expires_at) \
                VALUES ($1,$2,$3,$4)";
            let query = sqlx::query(sql).bind(hash_of(&secret)).bind(&person.id);
            let expires_at = moment(later(now, SESSION_HOURS));
            query.bind(moment(now)).bind(expires_at).execute(&mut *tx).await?;
            audit::note(tx, now, &person.name, "session.begin", &person.id, "").await
        })
        .await?;
        Ok(secret)
    }

    /// Ends a session.
    pub async fn end_session(&self, secret: &str) -> Result<(), StoreError> {
        self.write(async |tx| {
            let query = sqlx::query("DELETE FROM session WHERE token_hash = $1");
            query.bind(hash_of(secret)).execute(&mut *tx).await?;
            Ok(())
        })
        .await
    }

    /// Whose session this is.
    pub async fn caller_of_session(
        &self,
        secret: &str,
        now: Timestamp,
    ) -> Result<Option<Caller>, StoreError> {
        let sql = "SELECT p.name, p.role FROM session s JOIN person p ON p.id = s.person \
            WHERE s.token_hash = $1 AND s.expires_at > $2";
        let query = sqlx::query(sql).bind(hash_of(secret)).bind(moment(now));
        let row = query.fetch_optional(&mut *self.read().await?).await?;
        let caller = |row: AnyRow| {
            // Whoever can read a form of the session knows the session's secret anyway.
            let form_token = hash_of(&format!("form {secret}"));
            let (name, role) = (row.try_get("name")?, word_of(&row, "role")?);
            Ok(Caller { name, role, by: By::Session { form_token } })
        };
        row.map(caller).transpose()
    }

    /// A token for a machine; its secret, which is told only now.
    pub async fn make_token(
        &self,
        name: &str,
        role: Role,
        expires_at: Option<Timestamp>,
        who: &str,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let (id, secret) = (new_id()?, format!("lst_{}", new_secret()?));
        self.write(async |tx| {
            let sql = "INSERT INTO access_token (id, token_hash, name, role, made_at, made_by, \
                expires_at) VALUES ($1,$2,$3,$4,$5,$6,$7)";
            let query = sqlx::query(sql).bind(&id).bind(hash_of(&secret)).bind(name);
            let query = query.bind(role.as_str()).bind(moment(now)).bind(who);
            query.bind(expires_at.map(moment)).execute(&mut *tx).await?;
            audit::note(tx, now, who, "token.make", &id, &format!("{name}, {role}")).await
        })
        .await?;
        Ok(secret)
    }

    /// All tokens.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let sql = "SELECT id, name, role, made_at, made_by, expires_at, used_at FROM access_token \
            ORDER BY made_at DESC LIMIT $1";
        let query = sqlx::query(sql).bind(PAGE_ROWS_MAX);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let token = |row: &AnyRow| {
            Ok(Token {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                role: word_of(row, "role")?,
                made_at: moment_of(row, "made_at")?,
                made_by: row.try_get("made_by")?,
                expires_at: moment_maybe(row, "expires_at")?,
                used_at: moment_maybe(row, "used_at")?,
            })
        };
        rows.iter().map(token).collect()
    }

    /// Takes a token back.
    pub async fn revoke_token(
        &self,
        id: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let query = sqlx::query("DELETE FROM access_token WHERE id = $1").bind(id);
            if query.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            audit::note(tx, now, who, "token.revoke", id, "").await?;
            Ok(true)
        })
        .await
    }

    /// Whose token this is.
    pub async fn caller_of_token(
        &self,
        secret: &str,
        now: Timestamp,
    ) -> Result<Option<Caller>, StoreError> {
        let sql = "SELECT id, name, role, used_at FROM access_token WHERE token_hash = $1 \
            AND (expires_at IS NULL OR expires_at > $2)";
        let query = sqlx::query(sql).bind(hash_of(secret)).bind(moment(now));
        let row = query.fetch_optional(&mut *self.read().await?).await?;
        let Some(row) = row else { return Ok(None) };
        let id: String = row.try_get("id")?;
        let used_at = moment_maybe(&row, "used_at")?;
        if used_at.is_none_or(|at| now.duration_since(at).as_hours() >= 1) {
            self.write(async |tx| {
                let query = sqlx::query("UPDATE access_token SET used_at = $1 WHERE id = $2");
                query.bind(moment(now)).bind(&id).execute(tx).await?;
                Ok(())
            })
            .await?;
        }
        let name: String = row.try_get("name")?;
        let role = word_of(&row, "role")?;
        Ok(Some(Caller { name: format!("token {name}"), role, by: By::Token { id } }))
    }
}

async fn insert_person(
    tx: &mut sqlx::AnyConnection,
    name: &str,
    role: Role,
    password_hash: &str,
    now: Timestamp,
) -> Result<String, StoreError> {
    let id = new_id()?;
    let sql = "INSERT INTO person (id, name, role, password, made_at) VALUES ($1,$2,$3,$4,$5)";
    let query = sqlx::query(sql).bind(&id).bind(name).bind(role.as_str()).bind(password_hash);
    query.bind(moment(now)).execute(tx).await?;
    Ok(id)
}

fn person_of(row: &AnyRow) -> Result<Person, StoreError> {
    Ok(Person {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: word_of(row, "role")?,
        made_at: moment_of(row, "made_at")?,
    })
}

/// So many hours after a moment.
fn later(now: Timestamp, hours: i64) -> Timestamp {
    now.checked_add(Span::new().hours(hours)).unwrap_or(Timestamp::MAX)
}

/// A session ends by itself after so long.
const SESSION_HOURS: i64 = 12;
