//! The console: pages for people, made here and read in any browser. What a page changes it changes
//! by the functions of the API, so that both decide alike.
//!
//! A page works without its script, which only keeps it fresh, shows times in the zone of whoever
//! looks, and sends bundles. Nothing comes from elsewhere, and nothing runs that is not a file of
//! ours: the headers of every page say so.

mod api;
mod assets;
mod audit;
mod campaign;
mod campaigns;
mod device;
mod entry;
mod events;
mod group;
mod groups;
mod new_campaign;
mod overview;
mod plot;
mod release;
mod releases;
mod said;
mod settings;
mod shown;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::auth::known_caller;
use super::problem::Problem;
use crate::access::{By, Caller, Role};
use crate::server::Server;
use crate::store::StoreError;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .merge(api::routes())
        .merge(assets::routes())
        .merge(audit::routes())
        .merge(campaign::routes())
        .merge(campaigns::routes())
        .merge(device::routes())
        .merge(entry::routes())
        .merge(events::routes())
        .merge(group::routes())
        .merge(groups::routes())
        .merge(new_campaign::routes())
        .merge(overview::routes())
        .merge(release::routes())
        .merge(releases::routes())
        .merge(settings::routes())
        .layer(axum::middleware::map_response(guarded))
}

/// What every answer of the console forbids the browser.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What a page says is for whoever is signed in, and old a moment later.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What stands around every page.
#[derive(Debug, Default)]
struct Frame {
    /// Who looks; empty: nobody is signed in.
    name: String,
    role: Option<Role>,
    /// What forms carry.
    form: String,
    /// Which entry of the navigation this is.
    here: &'static str,
    /// Which changes concern the page, as `events` names them.
    watch: String,
}

impl Frame {
    fn is_operator(&self) -> bool {
        self.role >= Some(Role::Operator)
    }

    fn is_admin(&self) -> bool {
        self.role >= Some(Role::Admin)
    }

    fn style(&self) -> &'static str {
        assets::style_address()
    }

    fn script(&self) -> &'static str {
        assets::script_address()
    }

    /// When the page was made: the clock of whoever looks may be wrong.
    fn now(&self) -> String {
        format!("{:.0}", jiff::Timestamp::now())
    }

    fn role_name(&self) -> &'static str {
        self.role.map_or("", Role::as_str)
    }

    /// Marks the entry of the navigation that this is.
    fn current(&self, entry: &str) -> &'static str {
        if self.here == entry { "page" } else { "false" }
    }
}

/// Somebody who looks at a page.
#[derive(Debug)]
struct Looking(Caller);

/// Somebody who moves groups from a page.
#[derive(Debug)]
struct Moving(Caller);

/// Somebody who lets others in from a page.
#[derive(Debug)]
struct Admitting(Caller);

fn frame(caller: &Caller, here: &'static str, watch: impl Into<String>) -> Frame {
    let form = match &caller.by {
        By::Session { form_token } => form_token.clone(),
        By::Token { .. } => String::new(),
    };
    let name = caller.name.clone();
    Frame { name, role: Some(caller.role), form, here, watch: watch.into() }
}

impl FromRequestParts<Arc<Server>> for Looking {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Trouble> {
        visitor(parts, server, Role::Viewer).await.map(Self)
    }
}

impl FromRequestParts<Arc<Server>> for Moving {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Trouble> {
        visitor(parts, server, Role::Operator).await.map(Self)
    }
}

impl FromRequestParts<Arc<Server>> for Admitting {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Trouble> {
        visitor(parts, server, Role::Admin).await.map(Self)
    }
}

/// As `auth::caller`, but whoever has no session is shown the way in.
async fn visitor(parts: &Parts, server: &Server, least: Role) -> Result<Caller, Trouble> {
    let Some(caller) = known_caller(parts, server).await? else {
        // A form cannot be sent again after signing in.
        let is_page = parts.method == Method::GET;
        let path = parts.uri.path_and_query().filter(|_| is_page);
        let to = path.map_or("/", axum::http::uri::PathAndQuery::as_str).to_owned();
        return Err(Trouble::SignIn { to });
    };
    if caller.role < least {
        return Err(Trouble::Page(Problem::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format_args!("{} is a {}, this needs the role {least}", caller.name, caller.role),
            "ask an admin of this server",
        )));
    }
    Ok(caller)
}

/// Why a page is not shown.
#[derive(Debug)]
enum Trouble {
    /// Nobody knows who asks.
    SignIn {
        /// Where it wanted to go.
        to: String,
    },
    /// Something is wrong.
    Page(Problem),
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self::Page(problem)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Page(error.into())
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    problem: Problem,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn { to } if to == "/" => see_other("/login"),
            Self::SignIn { to } => see_other(&format!("/login?to={}", shown::escaped(&to))),
            Self::Page(problem) => problem_page(problem),
        }
    }
}

/// A problem as a page.
pub(super) fn problem_page(problem: Problem) -> Response {
    let status = problem.status;
    match (ProblemPage { frame: Frame::default(), problem }).render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(_) => status.into_response(),
    }
}

/// A page, or that it could not be made.
fn page(template: &impl Template) -> Result<Response, Trouble> {
    match template.render() {
        Ok(text) => Ok(Html(text).into_response()),
        Err(cause) => {
            tracing::error!(%cause, "a page could not be made");
            Err(Trouble::Page(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the page could not be made",
                "the server's log has the cause",
            )))
        }
    }
}

/// The same page with what is wrong with what was given.
fn refused(problem: &Problem, template: &impl Template) -> Result<Response, Trouble> {
    let mut response = page(template)?;
    *response.status_mut() = problem.status;
    Ok(response)
}

/// After a form: the browser gets a page that it can reload.
fn see_other(to: &str) -> Response {
    // Ours are plain; one that is not leads home.
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

/// Only our own files, only our own forms, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
