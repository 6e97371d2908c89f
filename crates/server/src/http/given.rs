//! What comes with a request, or in our own words why it cannot be read.
//!
//! No text that comes in has a NUL in it: PostgreSQL keeps none, and nobody means one.

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::BODY_BYTES_MAX;
use super::problem::Problem;
use crate::fleet::excerpt;

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
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        if !kind.is_some_and(|it| it.to_ascii_lowercase().starts_with("application/json")) {
            let kind = kind.map_or_else(|| "nothing".to_owned(), |it| format!("`{}`", excerpt(it)));
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "wrong-type",
                format_args!("the body is said to be {kind}, expected `application/json`"),
                BODY_HINT,
            ));
        }
        json(&bytes(request, state).await?)
            .map(Self)
            .map_err(|why| Problem::bad_request(why, BODY_HINT))
    }
}

/// A body as it came.
async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format_args!("the body is larger than {BODY_BYTES_MAX} bytes, which none may be"),
            BODY_HINT,
        ),
        _ => Problem::bad_request(rejection.body_text(), "send it again"),
    })
}

/// A body that need not say what it is.
#[derive(Debug)]
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        bytes(request, state).await.map(Self)
    }
}

/// Reads JSON; else why not.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if has_nul(body) {
        return Err("a text in the body has a NUL in it".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Whether a text of this JSON has a NUL in it: as `\u0000`, for itself it is refused anyway.
fn has_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let escape = rest.get(at + 1..).unwrap_or_default();
        if escape.starts_with(b"u0000") {
            return true;
        }
        // What is escaped may be a backslash itself.
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        let bad =
            |rejection: QueryRejection| Problem::bad_request(rejection.body_text(), QUERY_HINT);
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Problem::bad_request("a text in the query has a NUL in it", QUERY_HINT));
        }
        read.map(|axum::extract::Query(value)| Self(value)).map_err(bad)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        if parts.uri.path().contains("%00") {
            return Err(Problem::not_found("page", parts.uri.path()));
        }
        let bad = |_: PathRejection| Problem::not_found("page", parts.uri.path());
        read.map(|axum::extract::Path(value)| Self(value)).map_err(bad)
    }
}

const BODY_HINT: &str = "send JSON as `application/json`; /api/docs on this server has the fields";
const QUERY_HINT: &str = "/api/docs on this server has the fields";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_found_however_it_is_written_and_nothing_else_is() {
        for (text, expected) in [
            (r#""a\u0000b""#, true),
            (r#""\\\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""\n\u0001""#, false),
            (r#""\"#, false),
        ] {
            assert_eq!(has_nul(text.as_bytes()), expected, "{text}");
        }
    }
}
