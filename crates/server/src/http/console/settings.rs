//! `/settings`: who is let in. People, tokens of machines, tokens of groups that are to come.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use jiff::Timestamp;
use serde::Deserialize;

use super::group::SecretPage;
use super::shown;
use super::{Admitting, Frame, Trouble, frame, page, see_other};
use crate::http::groups::{NewEnrolment, enrol_command, enrolment};
use crate::http::people::{NewToken, add_person, hashed, token};
use crate::http::problem::Problem;
use crate::server::Server;
use crate::store::groups::Enrolment;
use crate::store::people::{Person, Token};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/settings", get(show))
        .route("/settings/people", post(add))
        .route("/settings/people/{id}/password", post(set_password))
        .route("/settings/people/{id}/remove", post(remove))
        .route("/settings/tokens", post(make_token))
        .route("/settings/tokens/{id}/revoke", post(revoke_token))
        .route("/settings/enrolments", post(make_enrolment))
        .route("/settings/enrolments/{id}/revoke", post(revoke_enrolment))
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    people: Vec<Person>,
    tokens: Vec<Token>,
    enrolments: Vec<Enrolment>,
}

async fn show(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
) -> Result<Response, Trouble> {
    page(&SettingsPage {
        frame: frame(&caller, "settings", "group:"),
        people: server.store.people().await?,
        tokens: server.store.tokens().await?,
        enrolments: server.store.enrolments().await?,
    })
}

#[derive(Debug, Deserialize)]
struct NewPerson {
    name: String,
    password: String,
    role: String,
}

async fn add(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Form(new): Form<NewPerson>,
) -> Result<Response, Trouble> {
    add_person(&server, &new.name, &new.role, new.password, &caller.name).await?;
    Ok(back())
}

#[derive(Debug, Deserialize)]
struct NewPassword {
    password: String,
}

async fn set_password(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Path(id): Path<String>,
    Form(new): Form<NewPassword>,
) -> Result<Response, Trouble> {
    let hash = hashed(new.password).await?;
    if !server.store.set_person_password(&id, &hash, &caller.name, Timestamp::now()).await? {
        return Err(Problem::not_found("person", &id).into());
    }
    Ok(back())
}

async fn remove(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    crate::http::people::let_out(&server, &id, &caller.name).await?;
    Ok(back())
}

#[derive(Debug, Deserialize)]
struct TokenFields {
    name: String,
    role: String,
    #[serde(default)]
    days: String,
}

async fn make_token(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Form(fields): Form<TokenFields>,
) -> Result<Response, Trouble> {
    let expires_in_s = days(&fields.days)?;
    let new = NewToken { name: fields.name, role: fields.role, expires_in_s };
    let (secret, expires_at) = token(&server, &new, &caller.name).await?;
    page(&SecretPage {
        frame: frame(&caller, "settings", ""),
        title: format!("The token {}", new.name),
        about: "Whoever has it may do what its role may.",
        command: format!("curl -H 'Authorization: Bearer {secret}' {}/api/me", server.public_url),
        secret,
        expires_at,
        back: "/settings".to_owned(),
    })
}

/// A field of days, in seconds; empty: for good.
fn days(text: &str) -> Result<Option<u32>, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let days: Option<u32> = text.parse().ok().filter(|days| (1..=DAYS_MAX).contains(days));
    let seconds = days.map(|days| days * 24 * 3600);
    seconds.map(Some).ok_or_else(|| {
        let found = crate::fleet::excerpt(text);
        Problem::bad_request(
            format_args!("days is `{found}`, expected 1 to {DAYS_MAX}"),
            "leave it empty for a token that is good until it is taken back",
        )
    })
}

async fn revoke_token(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    if !server.store.revoke_token(&id, &caller.name, Timestamp::now()).await? {
        return Err(Problem::not_found("token", &id).into());
    }
    Ok(back())
}

#[derive(Debug, Deserialize)]
struct EnrolmentFields {
    name: String,
    #[serde(default)]
    labels: String,
    #[serde(default)]
    zone: String,
}

async fn make_enrolment(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Form(fields): Form<EnrolmentFields>,
) -> Result<Response, Trouble> {
    let EnrolmentFields { name, labels, zone } = fields;
    let new = NewEnrolment { name, labels, zone, group: None, expires_in_s: None };
    let (secret, expires_at) = enrolment(&server, &new, &caller.name).await?;
    page(&SecretPage {
        frame: frame(&caller, "settings", ""),
        title: format!("The group {}", new.name),
        about: "Start the group's lead with it. It is good for one lead.",
        command: enrol_command(&server, &secret),
        secret,
        expires_at: Some(expires_at),
        back: "/settings".to_owned(),
    })
}

async fn revoke_enrolment(
    State(server): State<Arc<Server>>,
    Admitting(caller): Admitting,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    if !server.store.revoke_enrolment(&id, &caller.name, Timestamp::now()).await? {
        return Err(Problem::not_found("enrolment that was not used", &id).into());
    }
    Ok(back())
}

fn back() -> Response {
    see_other("/settings")
}

/// A token with an end is good for so many days, at most: ten years.
const DAYS_MAX: u32 = 3650;
