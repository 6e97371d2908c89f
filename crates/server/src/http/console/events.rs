//! `GET /console/events`: what has changed, as server-sent events. An open page that shows it asks
//! for itself again; the event has no more than the name of the thing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::BroadcastStream;

use super::Looking;
use crate::server::{Change, Server};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/console/events", get(events))
}

async fn events(
    State(server): State<Arc<Server>>,
    _: Looking,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = BroadcastStream::new(server.changes.subscribe());
    let told = changes
        .take_while(|change| std::future::ready(!matches!(change, Ok(Change::Ends))))
        // Who could not keep up looks at everything again.
        .map(|change| Ok(Event::default().data(change.map_or_else(|_| ALL.to_owned(), name))))
        // Whoever is not signed in any more does not look on for ever; browsers come again.
        .take_until(tokio::time::sleep(STREAM_MAX));
    Sse::new(told).keep_alive(KeepAlive::new().interval(PING_EVERY))
}

fn name(change: Change) -> String {
    match change {
        Change::Group(id) | Change::Lead(id) => format!("group:{id}"),
        Change::Campaign(id) => format!("campaign:{id}"),
        Change::Releases => "releases".to_owned(),
        // The last was taken out above.
        Change::Anything | Change::Ends => ALL.to_owned(),
    }
}

/// Everything may have changed.
const ALL: &str = "all";
/// So often a line comes, that routers on the way keep the connection.
const PING_EVERY: Duration = Duration::from_secs(15);
/// A stream ends after so long.
const STREAM_MAX: Duration = Duration::from_secs(15 * 60);
