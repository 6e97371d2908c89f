//! `/audit`: who did what, and the same as a file for spreadsheets.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::shown;
use super::{Frame, Looking, Trouble, frame, page};
use crate::server::Server;
use crate::store::PAGE_ROWS_MAX;
use crate::store::audit::Entry;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/audit", get(show)).route("/audit.csv", get(export))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    before: String,
    about: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    wanted: Wanted,
    entries: Vec<Entry>,
    /// Where the next page begins.
    next: Option<String>,
}

impl AuditPage {
    /// The page of what an entry is about, if there is one.
    fn address(&self, entry: &Entry) -> Option<String> {
        let (kind, _) = entry.did.split_once('.')?;
        match (kind, entry.about.as_str()) {
            (_, "") => None,
            ("group", id) => Some(format!("/groups/{id}")),
            ("campaign", id) => Some(format!("/campaigns/{id}")),
            ("release", id) => Some(format!("/releases/{id}")),
            _ => None,
        }
    }
}

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let entries = server.store.audit(Some(&wanted.about), Some(&wanted.before)).await?;
    let is_full = i64::try_from(entries.len()).is_ok_and(|found| found == PAGE_ROWS_MAX);
    let next = entries.last().filter(|_| is_full).map(|entry| entry.id.clone());
    page(&AuditPage { frame: frame(&caller, "audit", ""), wanted, entries, next })
}

/// `GET /audit.csv`: all of it, newest first, as RFC 4180 has it.
async fn export(
    State(server): State<Arc<Server>>,
    _: Looking,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let mut text = String::from("at,who,did,about,detail\r\n");
    let mut before = String::new();
    for _ in 0..PAGES_MAX {
        let entries = server.store.audit(Some(&wanted.about), Some(&before)).await?;
        let Some(last) = entries.last() else { break };
        before.clone_from(&last.id);
        entries.iter().for_each(|entry| text += &line(entry));
    }
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"lockstep-audit.csv\""),
    ];
    Ok((headers, text).into_response())
}

fn line(entry: &Entry) -> String {
    let at = entry.at.to_string();
    let cells = [&at, &entry.who, &entry.did, &entry.about, &entry.detail].map(|it| cell(it));
    cells.join(",") + "\r\n"
}

/// A spreadsheet computes what begins as a formula, wherever it came from: it is made a text.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quote = if is_formula { "'" } else { "" };
    format!("\"{quote}{}\"", text.replace('"', "\"\""))
}

/// Pages of one file, at most: a hundred thousand entries.
const PAGES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula() {
        assert_eq!(cell("=1+1"), "\"'=1+1\"");
        assert_eq!(cell("@SUM(A1)"), "\"'@SUM(A1)\"");
        assert_eq!(cell("say \"no\", twice"), "\"say \"\"no\"\", twice\"");
        assert_eq!(cell("bench 1"), "\"bench 1\"");
    }
}
