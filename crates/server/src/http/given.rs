//! What comes with a request, or in our own words why it cannot be read.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A body of JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// What stands behind the `?`.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

/// What stands in the path.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(bad_body(&rejection)),
        }
    }
}

fn bad_body(rejection: &JsonRejection) -> Problem {
    let hint = "send JSON as `application/json`; docs/server-api.md has the fields";
    let status = rejection.status();
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too-large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "wrong-type",
        _ => "bad-request",
    };
    let status = if code == "bad-request" { StatusCode::BAD_REQUEST } else { status };
    Problem::new(status, code, rejection.body_text(), hint)
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        let bad = |rejection: QueryRejection| {
            Problem::bad_request(rejection.body_text(), "docs/server-api.md has the fields")
        };
        read.map(|axum::extract::Query(value)| Self(value)).map_err(bad)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        let bad = |_: PathRejection| Problem::not_found("page", parts.uri.path());
        read.map(|axum::extract::Path(value)| Self(value)).map_err(bad)
    }
}
