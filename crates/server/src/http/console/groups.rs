//! `/groups`: all of them, a page at a time, chosen by name, labels, release, or need.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;

use super::shown::{self, escaped};
use super::{Frame, Looking, Trouble, frame, page};
use crate::http::groups::{labels, version};
use crate::http::problem::Problem;
use crate::server::Server;
use crate::store::groups::{Attention, Filter, Group};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/groups", get(show))
}

/// What a person looks for.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Wanted {
    name: String,
    labels: String,
    version: String,
    /// `yes`, or nothing.
    attention: String,
    after: String,
}

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    frame: Frame,
    silent_before: Timestamp,
    wanted: Wanted,
    is_filtered: bool,
    groups: Vec<Group>,
    /// The address of the next page.
    next: Option<String>,
    problem: Option<Problem>,
    url: String,
}

impl GroupsPage {
    fn is_silent(&self, group: &Group) -> bool {
        group.seen_at.unwrap_or(group.enrolled_at) < self.silent_before
    }
}

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let (groups, problem) = match filter(&wanted) {
        Ok(filter) => (server.store.groups(&filter, &wanted.after, PAGE_GROUPS).await?, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    let is_full = i64::try_from(groups.len()).is_ok_and(|found| found == PAGE_GROUPS);
    let next = groups.last().filter(|_| is_full).map(|last| address(&wanted, &last.name));
    page(&GroupsPage {
        frame: frame(&caller, "groups", "group:"),
        silent_before: server.silent_before(Timestamp::now()),
        is_filtered: !address(&wanted, "").ends_with("?after="),
        wanted,
        groups,
        next,
        problem,
        url: server.public_url.clone(),
    })
}

fn filter(wanted: &Wanted) -> Result<Filter, Problem> {
    let number = match wanted.version.trim() {
        "" => None,
        text => Some(version(text)?),
    };
    let attention = match wanted.attention.as_str() {
        "" => Attention::Any,
        _ => Attention::Needed,
    };
    Ok(Filter { labels: labels(&wanted.labels)?, number, name: wanted.name.clone(), attention })
}

fn address(wanted: &Wanted, after: &str) -> String {
    let fields = [
        ("name", wanted.name.as_str()),
        ("labels", &wanted.labels),
        ("version", &wanted.version),
        ("attention", &wanted.attention),
    ];
    let mut address = String::from("/groups?");
    for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        address += &format!("{field}={}&", escaped(value));
    }
    address + "after=" + &escaped(after)
}

/// Groups of one page.
const PAGE_GROUPS: i64 = 50;
