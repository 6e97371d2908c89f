//! What is said when something is not done: the same form as a device's own API has.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use crate::lead::writer::NotTaken;
use crate::objects::ObjectError;
use crate::store::StoreError;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: String,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// `code` is for programs, `message` names what was found, `hint` what to do.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Display,
        hint: impl Display,
    ) -> Self {
        let (message, hint) = (message.to_string(), hint.to_string());
        Self { status, code, message, hint, retry_after_s: None }
    }

    /// Something that was sent is not what it should be.
    pub(super) fn bad_request(message: impl Display, hint: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message, hint)
    }

    /// There is no such thing.
    pub(super) fn not_found(what: &str, id: &str) -> Self {
        let id = crate::fleet::excerpt(id);
        let hint = "see the list of them: it may have been removed";
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format_args!("there is no {what} `{id}`"),
            hint,
        )
    }

    /// It stands so that this cannot be done.
    pub(super) fn conflict(code: &'static str, message: impl Display, hint: impl Display) -> Self {
        Self::new(StatusCode::CONFLICT, code, message, hint)
    }

    /// Come again after so many seconds.
    pub(super) fn later(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

/// What is answered when something is not done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorAnswer {
    #[schema(inline)]
    error: ErrorBody,
}

/// Why, and what to do.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorBody {
    /// For programs.
    #[schema(value_type = String)]
    code: &'static str,
    /// Names what was found.
    message: String,
    /// What to do.
    hint: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, message, hint, retry_after_s } = self;
        let error = ErrorBody { code, message, hint };
        let mut response = (status, Json(ErrorAnswer { error })).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert("www-authenticate", "Bearer".parse().expect("is plain"));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert("retry-after", seconds.into());
        }
        response
    }
}

/// Logged here, where it is handled: whoever asked can do nothing about it.
impl From<StoreError> for Problem {
    fn from(trouble: StoreError) -> Self {
        away("database", &trouble)
    }
}

impl From<ObjectError> for Problem {
    fn from(trouble: ObjectError) -> Self {
        away("object store", &trouble)
    }
}

impl From<NotTaken> for Problem {
    fn from(trouble: NotTaken) -> Self {
        match trouble {
            NotTaken::Busy => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "busy", trouble, "come again a little later").later(BUSY_S)
            }
            NotTaken::Store(_) => away("database", &trouble),
        }
    }
}

fn away(what: &'static str, trouble: &dyn std::error::Error) -> Problem {
    if let Some(unsaid) = turn_to_say(Instant::now()) {
        let cause = trouble.source().map(ToString::to_string).unwrap_or_default();
        error!(%trouble, cause, unsaid, "the {what} did not do what it should");
    }
    let message = format_args!("{what} of this server cannot be used now");
    let hint =
        "nothing was changed, and groups go on by themselves; the server's log has the cause";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "away", message, hint).later(AWAY_S)
}

/// Whether the log is told of a trouble, and of how many before it was not: while a database is
/// away, each of hundreds of requests a second has the same.
fn turn_to_say(now: Instant) -> Option<u64> {
    static SAID: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *said {
        Some((at, unsaid)) if now.duration_since(*at) < SAY_EVERY => {
            *unsaid += 1;
            None
        }
        _ => said.replace((now, 0)).map_or(Some(0), |(_, unsaid)| Some(unsaid)),
    }
}

/// So often the log is told of the same trouble.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// After how long a lead that found the server busy comes again, in seconds.
const BUSY_S: u64 = 5;
/// The same for a database that is away.
const AWAY_S: u64 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_once_in_ten_seconds_and_how_often_it_was_not() {
        let start = Instant::now();
        assert_eq!(turn_to_say(start), Some(0));
        for _ in 0..3 {
            assert_eq!(turn_to_say(start + Duration::from_secs(9)), None);
        }
        assert_eq!(turn_to_say(start + Duration::from_secs(10)), Some(3));
        assert_eq!(turn_to_say(start + Duration::from_secs(11)), None);
    }
}
