//! The server's HTTP: what leads ask for, what people and programs ask for, and the console.
//!
//! Bodies have a limit, a request that does not come to its end has one too, and an answer to
//! anything that is not understood says what is wrong and what to do.

mod auth;
mod bytes;
mod campaigns;
mod console;
mod given;
mod groups;
mod leads;
pub mod limits;
pub mod listen;
pub(crate) mod ordered;
mod people;
mod problem;
mod releases;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jiff::Timestamp;

use problem::Problem;

use crate::publish::BUNDLE_BYTES_MAX;
use crate::server::Server;

/// Everything that this server answers.
pub fn router(server: Arc<Server>) -> Router {
    let upload = post(releases::upload).layer(bundle_limit());
    Router::new()
        .route("/api/lead/enroll", post(leads::enroll))
        .route("/api/lead/check-in", post(leads::check_in))
        .route("/api/lead/desired", get(leads::desired))
        .route("/api/lead/bundles/{sha256}", get(leads::bundle))
        .route("/manifest", get(releases::newest_manifest))
        .route("/firmware/{device}/{version}", get(releases::firmware))
        .route("/api/releases", get(releases::list).merge(upload))
        .route("/api/releases/{id}", get(releases::show))
        .route("/api/releases/{id}/bundle", get(releases::bundle))
        .route("/api/releases/{id}/withdraw", post(releases::withdraw))
        .merge(groups::routes())
        .merge(campaigns::routes())
        .merge(people::routes())
        .merge(console::routes())
        .route("/ca.pem", get(authority))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "this address is not asked in this way",
                "see docs/server-api.md",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(server)
}

/// What an upload may have.
fn bundle_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(usize::try_from(BUNDLE_BYTES_MAX).unwrap_or(usize::MAX))
}

/// People get a page, programs what they can read.
async fn nothing(uri: axum::http::Uri, headers: HeaderMap) -> Response {
    let problem = Problem::not_found("page", uri.path());
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    match accept.contains("text/html") && !uri.path().starts_with("/api/") {
        true => console::problem_page(problem),
        false => problem.into_response(),
    }
}

/// `GET /readyz`: whether the database and the store of objects answer.
async fn ready(State(server): State<Arc<Server>>) -> Result<&'static str, Problem> {
    server.store.is_there().await?;
    server.objects.is_there().await?;
    Ok("ready\n")
}

/// `GET /metrics`: for whoever may look, with a token.
async fn metrics(
    State(server): State<Arc<Server>>,
    _: auth::Viewer,
) -> Result<impl axum::response::IntoResponse, Problem> {
    let fleet = server.fleet(Timestamp::now()).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, server.metrics.text(&fleet)))
}

/// `GET /ca.pem`: whom to trust, for people and phones; open to everybody.
async fn authority(
    State(server): State<Arc<Server>>,
) -> Result<impl axum::response::IntoResponse, Problem> {
    let Some(authority) = server.tls.as_ref().and_then(|tls| tls.authority()) else {
        return Err(Problem::not_found("authority", "ca.pem"));
    };
    // With this type phones offer to trust it.
    let kind = [(header::CONTENT_TYPE, "application/x-x509-ca-cert")];
    Ok((kind, authority.pem().to_owned()))
}

/// A body other than a bundle, at most: a check-in of a group of 32 with all its documents.
const BODY_BYTES_MAX: usize = 256 * 1024;
