//! The server's HTTP: what leads ask for, what people and programs ask for, and the console.
//!
//! Bodies have a limit, a request that does not come to its end has one too, and an answer to
//! anything that is not understood says what is wrong and what to do.

mod answers;
mod auth;
mod bytes;
mod campaigns;
mod console;
pub mod contract;
pub(crate) mod given;
mod groups;
mod install;
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
use jiff::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use problem::Problem;

use crate::publish::BUNDLE_BYTES_MAX;
use crate::server::Server;

/// Everything that this server answers. What every request goes through before, as the size of its
/// body, stands in [`listen`].
pub fn router(server: Arc<Server>) -> Router {
    let (api, _) = api().split_for_parts();
    api.merge(console::routes())
        .fallback(nothing)
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "this address is not asked in this way",
                "see /api/docs on this server",
            )
        })
        .with_state(server)
}

/// What programs ask for; each route with what the API's document says of it.
fn api() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::with_openapi(contract::base())
        .merge(leads::routes())
        .merge(releases::routes())
        .merge(install::routes())
        .merge(groups::routes())
        .merge(campaigns::routes())
        .merge(people::routes())
        .merge(contract::routes())
        .routes(routes!(alive))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .routes(routes!(authority))
}

/// What an upload may have.
fn bundle_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(usize::try_from(BUNDLE_BYTES_MAX).unwrap_or(usize::MAX))
}

/// People get a page, programs what they can read.
async fn nothing(uri: axum::http::Uri, headers: HeaderMap) -> Response {
    let problem = Problem::not_found("page", uri.path());
    match wants_page(&headers) && !uri.path().starts_with("/api/") {
        true => console::problem_page(problem),
        false => problem.into_response(),
    }
}

/// Whether it is a browser that asks, for somebody to read.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    accept.contains("text/html")
}

/// Whether the server runs
#[utoipa::path(get, path = "/healthz", tag = "watching", operation_id = "isAlive",
    responses((status = 200, description = "`ok`", body = String, content_type = "text/plain")))]
async fn alive() -> &'static str {
    "ok\n"
}

/// Whether the server can do its work
///
/// Its database and its store of objects answer.
#[utoipa::path(get, path = "/readyz", tag = "watching", operation_id = "isReady",
    responses((status = 200, description = "`ready`", body = String, content_type = "text/plain")))]
async fn ready(State(server): State<Arc<Server>>) -> Result<&'static str, Problem> {
    server.store.is_there().await?;
    server.objects.is_there().await?;
    Ok("ready\n")
}

/// Figures for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "watching", operation_id = "getMetrics",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "As text.", body = String, content_type = "text/plain"),
    ))]
async fn metrics(
    State(server): State<Arc<Server>>,
    _: auth::Viewer,
) -> Result<impl axum::response::IntoResponse, Problem> {
    let fleet = server.fleet(Timestamp::now()).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, server.metrics.text(&fleet)))
}

/// The certificate of the server's own authority
///
/// For people and phones, which trust it once; 404 where the server shows a certificate of another.
#[utoipa::path(get, path = "/ca.pem", tag = "watching", operation_id = "getAuthority",
    responses(
        (status = 200, description = "In PEM form.", body = String,
            content_type = "application/x-x509-ca-cert"),
        (status = 404, description = "`not-found`: it has none."),
    ))]
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
