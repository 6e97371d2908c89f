//! The fleet's server as its lead sees it, and the word for what it offers.

use alloc::format;
use alloc::string::String;

use picoserve::response::StatusCode;
use serde::Serialize;

use super::answer::{Answer, Problem};
use crate::uplink::{Offered, Uplink};

#[derive(Serialize)]
struct ServerView {
    url: Option<String>,
    enrolled: bool,
    connected: bool,
    offered: Option<OfferView>,
}

#[derive(Serialize)]
struct OfferView {
    version: String,
    description: String,
    size_bytes: u32,
    /// It waits for a person's word.
    waits: bool,
}

#[derive(Serialize)]
struct Installing {
    installing: String,
}

/// `GET /api/server`; all of it is null or false on a device that has no server.
pub(super) fn present(uplink: &Uplink) -> Answer {
    let Some(view) = uplink.view() else {
        let (url, offered) = (None, None);
        return Answer::json(&ServerView { url, enrolled: false, connected: false, offered });
    };
    let waits = view.waits;
    let offered = view.offered.map(|Offered { version, description, size_bytes, .. }| OfferView {
        version,
        description,
        size_bytes,
        waits,
    });
    Answer::json(&ServerView {
        url: Some(format!("http://{}", view.place)),
        enrolled: view.is_enrolled,
        connected: view.is_connected,
        offered,
    })
}

/// `POST /api/server/install`: begins as soon as it can.
pub(super) fn install(uplink: &Uplink) -> Result<Answer, Problem> {
    let view = uplink.view().ok_or_else(no_server)?;
    match view.offered {
        Some(offered) if uplink.install() => {
            let installing = offered.version;
            Ok(Answer::with_status(StatusCode::ACCEPTED, &Installing { installing }))
        }
        Some(_) | None => Err(Problem::new(
            StatusCode::CONFLICT,
            "nothing-offered",
            "no release of the server waits for a word",
            "`GET /api/server` shows what is offered",
        )),
    }
}

fn no_server() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-server",
        "this device has no server",
        "start the lead with a server and an enrolment token of it",
    )
}
