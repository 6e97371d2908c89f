//! The style and the script of all pages. Their addresses change with their bytes, so a browser
//! keeps them for good and never shows an old one.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::server::Server;
use crate::store::hash_of;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/console/app.css", get(async || file(STYLE, "text/css; charset=utf-8")))
        .route("/console/app.js", get(async || file(SCRIPT, "text/javascript; charset=utf-8")))
}

fn file(text: &'static str, kind: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, text)
}

pub(super) fn style_address() -> &'static str {
    static ADDRESS: LazyLock<String> = LazyLock::new(|| address("app.css", STYLE));
    &ADDRESS
}

pub(super) fn script_address() -> &'static str {
    static ADDRESS: LazyLock<String> = LazyLock::new(|| address("app.js", SCRIPT));
    &ADDRESS
}

fn address(name: &str, text: &str) -> String {
    let hash = hash_of(text);
    format!("/console/{name}?v={}", hash.get(..16).unwrap_or_default())
}

const STYLE: &str = include_str!("app.css");
const SCRIPT: &str = include_str!("app.js");
