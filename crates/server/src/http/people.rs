//! Who is let in: people, tokens, and what was done by whom.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Removed, Revoked};
use super::auth::{Admin, Viewer, refuse_guesser, session_secret};
use super::contract::{Identity, MaybeTitle, Moment, Secret, Title};
use super::given;
use super::problem::Problem;
use crate::access::{self, By, Role, check_password, hash_of_nobody, is_password};
use crate::fleet::{excerpt, is_title};
use crate::server::Server;
use crate::store::people::Person;
use crate::store::{self, hash_of};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(setup))
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(people, add))
        .routes(routes!(remove))
        .routes(routes!(tokens, make_token))
        .routes(routes!(revoke_token))
        .routes(routes!(audit))
}

/// The first admin, and the word of the link that the first start has printed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Setup {
    pub(super) word: String,
    #[schema(value_type = Title)]
    pub(super) name: String,
    #[schema(value_type = Secret)]
    pub(super) password: String,
}

/// Somebody who was let in.
#[derive(Debug, Serialize, ToSchema)]
struct LetIn {
    #[schema(value_type = Identity)]
    id: String,
}

/// Make the first admin
///
/// Once, while nobody has been let in, with the word of the link that the first start has printed.
#[utoipa::path(post, path = "/api/setup", tag = "people", operation_id = "setUp",
    request_body = Setup,
    responses(
        (status = 201, description = "It is let in, and signs in.", body = LetIn),
        (status = 403, description = "`bad-word`: not the link that the server has printed."),
        (status = 409, description = "`set-up`: the first admin has been made already."),
        (status = 429, description = "`too-many-attempts`: wrong too often."),
    ))]
async fn setup(
    State(server): State<Arc<Server>>,
    ConnectInfo(from): ConnectInfo<std::net::SocketAddr>,
    given::Json(setup): given::Json<Setup>,
) -> Result<(StatusCode, Json<LetIn>), Problem> {
    let id = set_up(&server, from.ip(), setup).await?;
    Ok((StatusCode::CREATED, Json(LetIn { id })))
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
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    pub(super) name: String,
    pub(super) password: String,
    /// What the token is to be called; empty: after the person.
    #[serde(default)]
    #[schema(value_type = MaybeTitle)]
    token_name: String,
}

/// A token in place of a password.
#[derive(Debug, Serialize, ToSchema)]
struct Welcome {
    /// Its secret, which is told only now.
    token: String,
    role: Role,
    #[schema(value_type = Moment)]
    expires_at: Timestamp,
}

/// Sign in
///
/// A token for a program, in place of a password that it would have to keep. Good for 30 days.
#[utoipa::path(post, path = "/api/login", tag = "people", operation_id = "logIn",
    request_body = Login,
    responses(
        (status = 200, description = "Signed in.", body = Welcome),
        (status = 401, description = "`unauthorized`: name or password is wrong."),
        (status = 429, description = "`too-many-attempts`: wrong too often."),
    ))]
async fn login(
    State(server): State<Arc<Server>>,
    ConnectInfo(from): ConnectInfo<std::net::SocketAddr>,
    given::Json(login): given::Json<Login>,
) -> Result<Json<Welcome>, Problem> {
    let person = sign_in(&server, from.ip(), &login.name, login.password).await?;
    let name = match login.token_name.as_str() {
        "" => format!("login of {}", person.name),
        name => title(name)?.to_owned(),
    };
    let now = Timestamp::now();
    let expires_at = after(now, LOGIN_TOKEN_S);
    let (role, who) = (person.role, person.name.as_str());
    let token = server.store.make_token(&name, role, Some(expires_at), who, now).await?;
    Ok(Json(Welcome { token, role, expires_at }))
}

/// Sign out
///
/// The token, or the session, that asks is good no more.
#[utoipa::path(post, path = "/api/logout", tag = "people", operation_id = "logOut",
    security(("token" = ["viewer"])), responses((status = 204, description = "It has ended.")))]
async fn logout(
    State(server): State<Arc<Server>>,
    Viewer(caller): Viewer,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    match (&caller.by, session_secret(&headers)) {
        (By::Token { id }, _) => {
            // Somebody else may have taken it back meanwhile: it has ended all the same.
            server.store.revoke_token(id, &caller.name, Timestamp::now()).await?;
        }
        (By::Session { .. }, Some(secret)) => server.store.end_session(secret).await?,
        (By::Session { .. }, None) => (),
    }
    Ok(StatusCode::NO_CONTENT)
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

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// A person's name, or `token NAME`.
    name: String,
    role: Role,
}

/// Who asks
#[utoipa::path(get, path = "/api/me", tag = "people", operation_id = "whoAmI",
    security(("token" = ["viewer"])), responses((status = 200, description = "You.", body = Me)))]
async fn me(Viewer(caller): Viewer) -> Json<Me> {
    Json(Me { name: caller.name, role: caller.role })
}

/// Everybody who was let in.
#[derive(Debug, Serialize, ToSchema)]
struct People {
    /// By name; at most 200.
    people: Vec<OnePerson>,
}

/// Somebody with a password.
#[derive(Debug, Serialize, ToSchema)]
struct OnePerson {
    #[schema(value_type = Identity)]
    id: String,
    name: String,
    role: Role,
    #[schema(value_type = Moment)]
    made_at: Timestamp,
}

/// All people
#[utoipa::path(get, path = "/api/people", tag = "people", operation_id = "listPeople",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All.", body = People)))]
async fn people(State(server): State<Arc<Server>>, _: Admin) -> Result<Json<People>, Problem> {
    let person = |it: Person| {
        let Person { id, name, role, made_at } = it;
        OnePerson { id, name, role, made_at }
    };
    let people = server.store.people().await?.into_iter().map(person).collect();
    Ok(Json(People { people }))
}

/// Somebody who is to be let in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPerson {
    #[schema(value_type = Title)]
    name: String,
    #[schema(value_type = Secret)]
    password: String,
    #[schema(value_type = Role)]
    role: String,
}

/// Let somebody in
#[utoipa::path(post, path = "/api/people", tag = "people", operation_id = "addPerson",
    request_body = NewPerson,
    security(("token" = ["admin"])),
    responses(
        (status = 201, description = "Let in.", body = LetIn),
        (status = 409, description = "`name-taken`: somebody is called so already."),
    ))]
async fn add(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Json(new): given::Json<NewPerson>,
) -> Result<(StatusCode, Json<LetIn>), Problem> {
    let id = add_person(&server, &new.name, &new.role, new.password, &caller.name).await?;
    Ok((StatusCode::CREATED, Json(LetIn { id })))
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

/// Let somebody in no more
#[utoipa::path(delete, path = "/api/people/{id}", tag = "people", operation_id = "removePerson",
    security(("token" = ["admin"])), params(("id" = Identity, Path)),
    responses(
        (status = 200, description = "Let in no more.", body = Removed),
        (status = 409, description = "`last-admin`: the last admin stays."),
    ))]
async fn remove(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Removed>, Problem> {
    let_out(&server, &id, &caller.name).await?;
    Ok(Json(Removed { removed: id }))
}

/// Lets somebody in no more.
pub(super) async fn let_out(server: &Server, id: &str, who: &str) -> Result<(), Problem> {
    match server.store.remove_person(id, who, Timestamp::now()).await? {
        Some(true) => Ok(()),
        Some(false) => Err(Problem::conflict(
            "last-admin",
            "this is the last admin, without whom nobody could be let in",
            "make another admin first",
        )),
        None => Err(Problem::not_found("person", id)),
    }
}

/// All tokens.
#[derive(Debug, Serialize, ToSchema)]
struct Tokens {
    /// Newest first; at most 200.
    tokens: Vec<Token>,
}

/// A token of a program; not its secret.
#[derive(Debug, Serialize, ToSchema)]
struct Token {
    #[schema(value_type = Identity)]
    id: String,
    /// What it is for.
    name: String,
    role: Role,
    #[schema(value_type = Moment)]
    made_at: Timestamp,
    made_by: String,
    /// Until when it is good; null: until it is taken back.
    #[schema(value_type = Option<Moment>)]
    expires_at: Option<Timestamp>,
    /// When it was used last, to the hour.
    #[schema(value_type = Option<Moment>)]
    used_at: Option<Timestamp>,
}

impl From<store::people::Token> for Token {
    fn from(it: store::people::Token) -> Self {
        let store::people::Token { id, name, role, made_at, made_by, expires_at, used_at } = it;
        Self { id, name, role, made_at, made_by, expires_at, used_at }
    }
}

/// All tokens
///
/// Not their secrets.
#[utoipa::path(get, path = "/api/tokens", tag = "people", operation_id = "listTokens",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All.", body = Tokens)))]
async fn tokens(State(server): State<Arc<Server>>, _: Admin) -> Result<Json<Tokens>, Problem> {
    let tokens = server.store.tokens().await?.into_iter().map(Token::from).collect();
    Ok(Json(Tokens { tokens }))
}

/// A token that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    #[schema(value_type = Title)]
    pub(super) name: String,
    #[schema(value_type = Role)]
    pub(super) role: String,
    /// Null: until it is taken back.
    #[serde(default, deserialize_with = "given::whole_maybe")]
    pub(super) expires_in_s: Option<u32>,
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
struct NewTokenSecret {
    /// Its secret, which is told only now.
    token: String,
    #[schema(value_type = Option<Moment>)]
    expires_at: Option<Timestamp>,
}

/// Make a token
///
/// The secret is told only in this answer.
#[utoipa::path(post, path = "/api/tokens", tag = "people", operation_id = "makeToken",
    request_body = NewToken,
    security(("token" = ["admin"])),
    responses((status = 201, description = "Made.", body = NewTokenSecret)))]
async fn make_token(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Json(new): given::Json<NewToken>,
) -> Result<(StatusCode, Json<NewTokenSecret>), Problem> {
    let (token, expires_at) = token(&server, &new, &caller.name).await?;
    Ok((StatusCode::CREATED, Json(NewTokenSecret { token, expires_at })))
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

/// Take a token back
#[utoipa::path(delete, path = "/api/tokens/{id}", tag = "people", operation_id = "revokeToken",
    security(("token" = ["admin"])), params(("id" = Identity, Path)),
    responses((status = 200, description = "It is good no more.", body = Revoked)))]
async fn revoke_token(
    State(server): State<Arc<Server>>,
    Admin(caller): Admin,
    given::Path(id): given::Path<String>,
) -> Result<Json<Revoked>, Problem> {
    if !server.store.revoke_token(&id, &caller.name, Timestamp::now()).await? {
        return Err(Problem::not_found("token", &id));
    }
    Ok(Json(Revoked { revoked: id }))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// What was done to this alone: the identity of a group, a release, a campaign.
    #[serde(default)]
    #[param(max_length = 200, pattern = "^[^\\u0000]*$")]
    about: Option<String>,
    /// The identity of the last entry of the page before.
    #[serde(default)]
    #[param(pattern = "^[0-9a-f]{0,28}$")]
    before: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
struct Audit {
    /// Newest first; at most 200.
    audit: Vec<Entry>,
}

/// One thing that somebody did.
#[derive(Debug, Serialize, ToSchema)]
struct Entry {
    /// The next page begins before it.
    id: String,
    #[schema(value_type = Moment)]
    at: Timestamp,
    /// A person, or a token's name.
    who: String,
    /// What, as in `campaign.pause`.
    did: String,
    /// To what.
    about: String,
    /// For people.
    detail: String,
}

impl From<store::audit::Entry> for Entry {
    fn from(it: store::audit::Entry) -> Self {
        let store::audit::Entry { id, at, who, did, about, detail } = it;
        Self { id, at, who, did, about, detail }
    }
}

/// Who did what
///
/// Newest first; `before` is the identity of the last entry of the page before.
#[utoipa::path(get, path = "/api/audit", tag = "people", operation_id = "listAudit",
    security(("token" = ["viewer"])), params(Page),
    responses((status = 200, description = "A page.", body = Audit)))]
async fn audit(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Query(page): given::Query<Page>,
) -> Result<Json<Audit>, Problem> {
    given::at_most("about", page.about.as_deref().unwrap_or_default(), ABOUT_CHARS_MAX)?;
    let is_entry = |text: &str| text.len() <= ENTRY_CHARS && text.bytes().all(is_digit);
    if let Some(before) = page.before.as_deref().filter(|it| !is_entry(it)) {
        return Err(Problem::bad_request(
            format_args!("`before` is `{}`, which is no entry", excerpt(before)),
            "it is the `id` of the last entry of the page before",
        ));
    }
    let entries = server.store.audit(page.about.as_deref(), page.before.as_deref()).await?;
    Ok(Json(Audit { audit: entries.into_iter().map(Entry::from).collect() }))
}

/// A digit of an identity.
fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
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
        "give it 1 to 80 characters, without a blank at either end",
    ))
}

fn after(now: Timestamp, seconds: u32) -> Timestamp {
    now.checked_add(Span::new().seconds(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

/// A token that `lockstep login` gets is good for so long, in seconds: a month.
const LOGIN_TOKEN_S: u32 = 30 * 24 * 3600;
/// Characters of an identity, and more: what is looked for in the audit.
const ABOUT_CHARS_MAX: usize = 200;
/// Digits of the identity of an entry of the audit.
const ENTRY_CHARS: usize = 28;
