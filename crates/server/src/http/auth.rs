//! Who asks: a person by its session, a machine by its token, a lead by its credential.
//!
//! A session's cookie is `HttpOnly` and `SameSite=Lax`, and whatever a session changes must carry
//! the session's own form token as well, which no page of another site can know. A token comes in
//! a header that no browser sends by itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;

use super::problem::Problem;
use crate::access::{By, Caller, Role};
use crate::lead::roster::Seat;
use crate::server::Server;
use crate::store::hash_of;

/// The cookie of a session.
pub(super) const COOKIE: &str = "lockstep_session";
/// The header in which a script of our pages carries the form token; forms have it as a field.
pub(super) const FORM_TOKEN_HEADER: &str = "x-form-token";

/// Somebody who may look.
#[derive(Debug, Clone)]
pub(super) struct Viewer(pub(super) Caller);

/// Somebody who may move groups.
#[derive(Debug, Clone)]
pub(super) struct Operator(pub(super) Caller);

/// Somebody who may let others in.
#[derive(Debug, Clone)]
pub(super) struct Admin(pub(super) Caller);

/// A group's lead.
#[derive(Debug, Clone)]
pub(super) struct Lead(pub(super) Arc<Seat>);

impl FromRequestParts<Arc<Server>> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        caller(parts, server, Role::Viewer).await.map(Self)
    }
}

impl FromRequestParts<Arc<Server>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        caller(parts, server, Role::Operator).await.map(Self)
    }
}

impl FromRequestParts<Arc<Server>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        caller(parts, server, Role::Admin).await.map(Self)
    }
}

impl FromRequestParts<Arc<Server>> for Lead {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        let Some(credential) = bearer(&parts.headers) else {
            return Err(unauthorized("request carries no credential", ENROLL));
        };
        let (hash, now) = (hash_of(credential), Timestamp::now());
        if let Some(seat) = server.roster.seat(&hash, now) {
            return Ok(Self(seat));
        }
        match server.store.group_of_credential(&hash).await? {
            Some((group, lead)) => {
                let seat = server.roster.sit(hash, group, lead, now);
                Ok(Self(seat))
            }
            None => {
                server.roster.forget(&hash);
                wrong_secret(parts, server)?;
                Err(unauthorized("credential is of no group here", ENROLL))
            }
        }
    }
}

/// Whoever asks, if it may do as much as `least`.
pub(super) async fn caller(parts: &Parts, server: &Server, least: Role) -> Result<Caller, Problem> {
    let caller = known_caller(parts, server).await?;
    let Some(caller) = caller else {
        return Err(unauthorized(
            "request carries no token, and no session",
            "sign in, or send `Authorization: Bearer TOKEN`; `lockstep login` does that",
        ));
    };
    if caller.role < least {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format_args!("{} is a {}, this needs the role {least}", caller.name, caller.role),
            "ask an admin of this server",
        ));
    }
    Ok(caller)
}

/// Whoever asks; `None` for somebody without session and token.
pub(super) async fn known_caller(
    parts: &Parts,
    server: &Server,
) -> Result<Option<Caller>, Problem> {
    let now = Timestamp::now();
    if let Some(token) = bearer(&parts.headers) {
        let caller = server.store.caller_of_token(token, now).await?;
        if caller.is_none() {
            wrong_secret(parts, server)?;
            return Err(unauthorized("token is not known, or has expired", "make another one"));
        }
        return Ok(caller);
    }
    let Some(secret) = session_secret(&parts.headers) else { return Ok(None) };
    let caller = server.store.caller_of_session(secret, now).await?;
    if let Some(Caller { by: By::Session { form_token }, .. }) = &caller {
        check_form(parts, form_token)?;
    }
    Ok(caller)
}

/// Forms of our own pages carry the token in their address, so that the body stays the form's, and
/// may be a file.
fn check_form(parts: &Parts, form_token: &str) -> Result<(), Problem> {
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let of_header = parts.headers.get(FORM_TOKEN_HEADER).and_then(|it| it.to_str().ok());
    let query = parts.uri.query().unwrap_or_default();
    let of_query = query.split('&').find_map(|pair| pair.strip_prefix("form="));
    if of_header.or(of_query) == Some(form_token) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "cross-origin",
        "request has not come from a page of this server",
        "open the page again, and try again from there",
    ))
}

/// Nobody guesses 32 random bytes, so whoever has them is let in whatever others at its address
/// did: behind a proxy or a router all have one. Whoever has not waits longer each time.
fn wrong_secret(parts: &Parts, server: &Server) -> Result<(), Problem> {
    let from = address(parts);
    refuse_guesser(server, from)?;
    server.attempts.wrong(from, Instant::now());
    Ok(())
}

/// Whoever was wrong too often has to wait.
pub(super) fn refuse_guesser(server: &Server, from: IpAddr) -> Result<(), Problem> {
    let Some(wait) = server.attempts.wait(from, Instant::now()) else { return Ok(()) };
    let seconds = wait.as_secs().max(1);
    Err(Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-attempts",
        format_args!("{from} was wrong too often, and has to wait for {seconds} s"),
        "wait, then try again",
    )
    .later(seconds))
}

/// Where a request comes from.
pub(super) fn address(parts: &Parts) -> IpAddr {
    let info = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>();
    info.map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip())
}

/// The secret of a session, from its cookie.
pub(super) fn session_secret(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

fn unauthorized(message: &str, hint: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message, hint)
}

const ENROLL: &str = "enrol the lead with a token of this server";
