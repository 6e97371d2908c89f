//! The way in and out: the first admin, signing in, signing out.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Frame, Looking, Trouble, page, refused, see_other, shown};
use crate::http::auth::{COOKIE, address, session_secret};
use crate::http::people::{Setup, set_up, sign_in};
use crate::http::problem::Problem;
use crate::server::Server;
use crate::store::people::Person;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/setup", get(show_setup).post(make_first))
        .route("/login", get(show_login).post(login))
        .route("/logout", post(logout))
}

/// A form that came from a page of ours, and from which address. Nobody is signed in yet, so there
/// is no form token; browsers say by themselves from whose page a form comes.
struct Own(IpAddr);

impl FromRequestParts<Arc<Server>> for Own {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Server>) -> Result<Self, Trouble> {
        let site = parts.headers.get("sec-fetch-site").and_then(|it| it.to_str().ok());
        match site {
            None | Some("same-origin" | "none") => Ok(Self(address(parts))),
            Some(_) => Err(Trouble::Page(Problem::new(
                StatusCode::FORBIDDEN,
                "cross-origin",
                "request has not come from a page of this server",
                "open the page again, and try again from there",
            ))),
        }
    }
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    frame: Frame,
    word: String,
    name: String,
    problem: Option<Problem>,
}

#[derive(Debug, Deserialize)]
struct Word {
    #[serde(default)]
    word: String,
}

async fn show_setup(
    State(server): State<Arc<Server>>,
    Query(Word { word }): Query<Word>,
) -> Result<Response, Trouble> {
    if !server.store.is_new().await? {
        return Ok(see_other("/login"));
    }
    page(&SetupPage { frame: Frame::default(), word, name: String::new(), problem: None })
}

async fn make_first(
    State(server): State<Arc<Server>>,
    Own(from): Own,
    Form(setup): Form<Setup>,
) -> Result<Response, Trouble> {
    let (word, name, password) = (setup.word.clone(), setup.name.clone(), setup.password.clone());
    if let Err(problem) = set_up(&server, from, setup).await {
        let frame = Frame::default();
        let again = SetupPage { frame, word, name, problem: None };
        return refused_setup(problem, again);
    }
    let person = sign_in(&server, from, &name, password).await?;
    begin(&server, &person, "/").await
}

fn refused_setup(problem: Problem, again: SetupPage) -> Result<Response, Trouble> {
    let status = problem.status;
    let mut response = page(&SetupPage { problem: Some(problem), ..again })?;
    *response.status_mut() = status;
    Ok(response)
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    frame: Frame,
    to: &'a str,
    name: &'a str,
    problem: Option<&'a Problem>,
}

#[derive(Debug, Deserialize)]
struct To {
    #[serde(default)]
    to: String,
}

async fn show_login(
    State(server): State<Arc<Server>>,
    Query(To { to }): Query<To>,
) -> Result<Response, Trouble> {
    if server.store.is_new().await? {
        return Ok(see_other("/"));
    }
    page(&LoginPage { frame: Frame::default(), to: local(&to), name: "", problem: None })
}

#[derive(Debug, Deserialize)]
struct Given {
    name: String,
    password: String,
    #[serde(default)]
    to: String,
}

async fn login(
    State(server): State<Arc<Server>>,
    Own(from): Own,
    Form(given): Form<Given>,
) -> Result<Response, Trouble> {
    let to = local(&given.to);
    match sign_in(&server, from, &given.name, given.password).await {
        Ok(person) => begin(&server, &person, to).await,
        Err(problem) => {
            let (frame, name) = (Frame::default(), given.name.as_str());
            refused(&problem, &LoginPage { frame, to, name, problem: Some(&problem) })
        }
    }
}

async fn begin(server: &Server, person: &Person, to: &str) -> Result<Response, Trouble> {
    let secret = server.store.begin_session(person, Timestamp::now()).await?;
    let mut response = see_other(to);
    set_cookie(&mut response, server, &secret, "");
    Ok(response)
}

async fn logout(
    State(server): State<Arc<Server>>,
    _: Looking,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    if let Some(secret) = session_secret(&headers) {
        server.store.end_session(secret).await?;
    }
    let mut response = see_other("/login");
    set_cookie(&mut response, &server, "", "; Max-Age=0");
    Ok(response)
}

fn set_cookie(response: &mut Response, server: &Server, secret: &str, until: &str) {
    let secure = if server.public_url.starts_with("https:") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Lax{secure}{until}");
    // Digits of a hash and our own words.
    let cookie = HeaderValue::from_str(&cookie).expect("is plain");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
}

/// A place on this server; whatever is none leads to the first page.
fn local(to: &str) -> &str {
    let is_path = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\r', '\n']);
    if is_path && to.is_ascii() { to } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_nowhere_else() {
        assert_eq!(local("/groups?name=a"), "/groups?name=a");
        for elsewhere in ["", "https://evil.example", "//evil.example", "/\\evil.example", "x"] {
            assert_eq!(local(elsewhere), "/", "{elsewhere}");
        }
        assert_eq!(local("/a\r\nset-cookie: b"), "/");
    }
}
