//! `/releases`: all of them, and how a bundle comes in.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::shown;
use super::{Frame, Looking, Trouble, frame, page};
use crate::http::auth::Operator;
use crate::http::problem::Problem;
use crate::http::releases::take;
use crate::server::Server;
use crate::store::releases::Release;

pub(super) fn routes() -> Router<Arc<Server>> {
    let upload = post(upload).layer(crate::http::bundle_limit());
    Router::new().route("/releases", get(show)).route("/releases/upload", upload)
}

#[derive(Template)]
#[template(path = "releases.html")]
struct ReleasesPage {
    frame: Frame,
    url: String,
    releases: Vec<Row>,
}

struct Row {
    it: Release,
    groups: u64,
}

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
) -> Result<Response, Trouble> {
    let census = server.store.census().await?;
    let groups = |number| census.iter().filter(|it| it.number == number).map(|it| it.groups).sum();
    let releases = server.store.releases().await?;
    let releases = releases.into_iter().map(|it| Row { groups: groups(it.number), it }).collect();
    let url = server.public_url.clone();
    page(&ReleasesPage { frame: frame(&caller, "releases", "group: releases"), url, releases })
}

/// What the page's script sends: the bundle as it is. The answer is for the script, in the form of
/// the API.
async fn upload(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    body: Body,
) -> Result<axum::Json<serde_json::Value>, Problem> {
    let id = take(&server, &caller.name, body).await?;
    Ok(axum::Json(json!({ "page": format!("/releases/{id}") })))
}
