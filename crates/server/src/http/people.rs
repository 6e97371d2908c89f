//! Who is let in: people, tokens, and what was done by whom.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use jiff::{Span, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Admin, Viewer, refuse_guesser};
use super::given;
use super::problem::Problem;
use crate::access::{self, Role, check_password, hash_of_nobody, is_password};
use crate::fleet::{excerpt, is_title};
use crate::server::Server;
use crate::store::hash_of;
use crate::store::people::Person;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/setup", post(setup))
        .route("/api/login", post(login))
        .route("/api/me", get(me))
        .route("/api/people", get(people).post(add))
        .route("/api/people/{id}", delete(remove))
        .route("/api/tokens", get(tokens).post(make_token))
        .route("/api/tokens/{id}", delete(revoke_token))
        .route("/api/audit", get(audit))
}

/// The first admin, and the word of the link that the first start has printed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setup {
    pub(super) word: String,
    pub(super) name: String,
    pub(super) password: String,
}

/// `POST /api/setup`: once, while nobody has been let in.
async fn setup(
    State(server): State<Arc<Server>>,
    ConnectInfo(from): ConnectInfo<std::net::SocketAddr>,
    given::Json(setup): given::Json<Setup>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let id = set_up(&server, from.ip(), setup).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

/// Makes the first admin; its identity.
pub(super) async fn set_up(
    server: &Server,
    from: std::net::IpAddr,
    setup: Setup,
) -> Result<String, Problem> {
    refuse_guesser(server, from)?;
    let is_word = server.setup_word.as_ref().is_some_and(|word| {
        // Equal digests say as much, and how long it takes to compare them says nothing.
        hash_of(word) == hash_of(&setup.word)
    });
    if !is_word {
        server.attempts.wrong(from, Instant::now());
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "bad-word",
            "this is not the link that the server has printed at its start",
            "the server prints a new one at each start, as long as nobody has been let in",
        ));
    }
    let name = title(&setup.name)?;
    let hash = hashed(setup.password).await?;
    let added = server.store.add_first_person(name, &hash, Timestamp::now()).await?;
    added.ok_or_else(|| {
        Problem::conflict("set-up", "the first admin has been made already", "sign in")
    })
}

/// Name and password.
#[derive(Debug, Deserialize)]
pub(super) struct Login {
    pub(super) name: String,
    pub(super) password: String,
    /// What the token of a program is to be called.
    #[serde(default)]
    token_name: String,
}

/// `POST /api/login`: a token for a program, in place of a password that it would have to keep.
async fn login(
    State(server): State<Arc<Server>>,
    ConnectInfo(from): ConnectInfo<std::net::SocketAddr>,
    given::Json(login): given::Json<Login>,
) -> Result<Json<Value>, Problem> {
    let person = sign_in(&server, from.ip(), &login.name, login.password).await?;
    let name = match login.token_name.as_str() {
        "" => format!("login of {}", person.name),
        name => title(name)?.to_owned(),
    };
    let now = Timestamp::now();
    let expires_at = after(now, LOGIN_TOKEN_S);
    let (role, who) = (person.role, person.name.as_str());
    let token = server.store.make_token(&name, role, Some(expires_at), who, now).await?;
    Ok(Json(json!({ "token": token, "role": role.as_str(), "expires_at": expires_at })))
}

/// Whoever has this name and this password. Who has not waits longer each time.
pub(super) async fn sign_in(
    server: &Server,
    from: std::net::IpAddr,
    name: &str,
    password: String,
) -> Result<Person, Problem> {
    refuse_guesser(server, from)?;
    let known = server.store.person_named(name).await?;
    let hash = known.as_ref().map_or(hash_of_nobody(), |(_, hash)| hash.as_str()).to_owned();
    let is_right = blocking(move || is_password(&password, &hash)).await?;
    match known {
        Some((person, _)) if is_right => {
            server.attempts.right(from);
            Ok(person)
        }
        Some(_) | None => {
            server.attempts.wrong(from, Instant::now());
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "name or password is wrong",
                "an admin of this server can set a new password",
            ))
        }
    }
}

/// Hashing a password takes its time, and must not hold up others.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server could not do its work",
            "try again; the server's log has the cause",
        )
    })
}

/// `GET /api/me`: who asks.
async fn me(Viewer(caller): Viewer) -> Json<Value> {
    Json(json!({ "name": caller.name, "role": caller.role.as_str() }))
}

/// `GET /api/people`.
async fn people(State(server): State<Arc<Server>>, _: Admin) -> Result<Json<Value>, Problem> {
    let people = server.store.people().await?;
    let people: Vec<_> = people
        .iter()
        .map(|it| {
            json!({ "id": it.id, "name": it.name, "role": it.role.as_str(), "made_at": it.made_at })
        })
        .collect();
    Ok(Json(json!({ "people": people })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPerson {
    name: String,
    password: String,
    role: String,
}

/// `POST /api/people`.
async fn add(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Json(new): given::Json<NewPerson>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let id = add_person(&server, &new.name, &new.role, new.password, &caller.name).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

pub(super) async fn add_person(
    server: &Server,
    name: &str,
    role: &str,
    password: String,
    who: &str,
) -> Result<String, Problem> {
    let (name, role) = (title(name)?, read_role(role)?);
    let hash = hashed(password).await?;
    match server.store.add_person(name, role, &hash, who, Timestamp::now()).await {
        Ok(id) => Ok(id),
        Err(error) if error.is_duplicate() => Err(Problem::conflict(
            "name-taken",
            format_args!("somebody is called `{name}` already"),
            "choose another name",
        )),
        Err(error) => Err(error.into()),
    }
}

/// What stands in the tables of a password that may be one.
pub(super) async fn hashed(password: String) -> Result<String, Problem> {
    check_password(&password).map_err(|weak| Problem::bad_request(weak, "choose another one"))?;
    let hash = blocking(move || access::hash_password(&password)).await?;
    hash.map_err(|error| Problem::bad_request(error, "choose another password"))
}

/// `DELETE /api/people/ID`.
async fn remove(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Value>, Problem> {
    let_out(&server, &id, &caller.name).await?;
    Ok(Json(json!({ "removed": id })))
}

/// Lets somebody in no more.
pub(super) async fn let_out(server: &Server, id: &str, who: &str) -> Result<(), Problem> {
    if server.store.remove_person(id, who, Timestamp::now()).await? {
        return Ok(());
    }
    Err(Problem::conflict(
        "not-removed",
        "there is nobody of that identity, or it is the last admin",
        "make another admin first",
    ))
}

/// `GET /api/tokens`: not their secrets.
async fn tokens(State(server): State<Arc<Server>>, _: Admin) -> Result<Json<Value>, Problem> {
    let tokens = server.store.tokens().await?;
    let tokens: Vec<_> = tokens
        .iter()
        .map(|it| {
            json!({
                "id": it.id, "name": it.name, "role": it.role.as_str(), "made_at": it.made_at,
                "made_by": it.made_by, "expires_at": it.expires_at, "used_at": it.used_at,
            })
        })
        .collect();
    Ok(Json(json!({ "tokens": tokens })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    pub(super) name: String,
    pub(super) role: String,
    /// `None`: until it is taken back.
    pub(super) expires_in_s: Option<u32>,
}

/// `POST /api/tokens`: the secret is told only in this answer.
async fn make_token(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Json(new): given::Json<NewToken>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (token, expires_at) = token(&server, &new, &caller.name).await?;
    Ok((StatusCode::CREATED, Json(json!({ "token": token, "expires_at": expires_at }))))
}

/// Makes a token; its secret, and until when it is good.
pub(super) async fn token(
    server: &Server,
    new: &NewToken,
    who: &str,
) -> Result<(String, Option<Timestamp>), Problem> {
    let (name, role) = (title(&new.name)?, read_role(&new.role)?);
    let now = Timestamp::now();
    let expires_at = new.expires_in_s.map(|seconds| after(now, seconds));
    let token = server.store.make_token(name, role, expires_at, who, now).await?;
    Ok((token, expires_at))
}

/// `DELETE /api/tokens/ID`.
async fn revoke_token(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Value>, Problem> {
    if !server.store.revoke_token(&id, &caller.name, Timestamp::now()).await? {
        return Err(Problem::not_found("token", &id));
    }
    Ok(Json(json!({ "revoked": id })))
}

#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    about: Option<String>,
    #[serde(default)]
    before: Option<String>,
}

/// `GET /api/audit`, newest first; `before` is the identity of the last entry of the page before.
async fn audit(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Query(page): given::Query<Page>,
) -> Result<Json<Value>, Problem> {
    let entries = server.store.audit(page.about.as_deref(), page.before.as_deref()).await?;
    let entries: Vec<_> = entries
        .iter()
        .map(|it| {
            json!({
                "id": it.id, "at": it.at, "who": it.who, "did": it.did, "about": it.about,
                "detail": it.detail,
            })
        })
        .collect();
    Ok(Json(json!({ "audit": entries })))
}

fn read_role(text: &str) -> Result<Role, Problem> {
    text.parse().map_err(|expected| {
        Problem::bad_request(format_args!("role is `{}`", excerpt(text)), expected)
    })
}

fn title(text: &str) -> Result<&str, Problem> {
    if is_title(text) {
        return Ok(text);
    }
    Err(Problem::bad_request(
        format_args!("`{}` is no name", excerpt(text)),
        "give it 1 to 80 bytes of text, without a blank at either end",
    ))
}

fn after(now: Timestamp, seconds: u32) -> Timestamp {
    now.checked_add(Span::new().seconds(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

/// A token that `lockstep login` gets is good for so long, in seconds: a month.
const LOGIN_TOKEN_S: u32 = 30 * 24 * 3600;
