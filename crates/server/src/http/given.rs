//! What comes with a request, or in our own words why it cannot be read.
//!
//! No text that comes in has a NUL in it: PostgreSQL keeps none, and nobody means one.

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

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

/// A body of JSON from a lead: it need not say what it is, and a NUL in it becomes the character
/// that stands for what cannot be shown. A report is worth more than a character of it.
#[derive(Debug)]
pub(super) struct FromLead(pub(super) Vec<u8>);

impl<S: Send + Sync> FromRequest<S> for FromLead {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let mut body = bytes(request, state).await?.to_vec();
        while let Some(at) = nul_in(&body) {
            body.splice(at..at + NUL.len(), *INSTEAD);
        }
        Ok(Self(body))
    }
}

/// Reads JSON; else why not.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if nul_in(body).is_some() {
        return Err("a text in the body has a NUL in it".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Where a text of this JSON has its first NUL: as `\u0000`, for itself it is refused anyway.
fn nul_in(json: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = json.get(from..)?;
        let at = from + rest.iter().position(|&byte| byte == b'\\')?;
        if json.get(at..)?.starts_with(NUL) {
            return Some(at);
        }
        // What is escaped may be a backslash itself.
        from = at + 2;
    }
}

/// A text behind the `?` that is no longer than what it is looked for in.
pub(super) fn at_most(name: &str, text: &str, chars_max: usize) -> Result<(), Problem> {
    let found = text.chars().count();
    if found <= chars_max {
        return Ok(());
    }
    let message = format_args!("`{name}` has {found} characters, expected at most {chars_max}");
    Err(Problem::bad_request(message, QUERY_HINT))
}

/// A whole number, as JSON Schema has it: it may be written `3600.0`.
pub(crate) fn whole<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = serde_json::Number::deserialize(deserializer)?;
    let plain = number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|it| it.fract() == 0.0)?;
        format!("{float:.0}").parse().ok()
    });
    let whole = plain.and_then(|it| T::try_from(it).ok());
    whole.ok_or_else(|| D::Error::custom(format_args!("`{number}` is out of range")))
}

/// The same, or null.
pub(crate) fn whole_maybe<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    #[derive(Deserialize)]
    #[serde(bound = "T: TryFrom<u64>")]
    struct Whole<T>(#[serde(deserialize_with = "whole")] T);
    Ok(Option::<Whole<T>>::deserialize(deserializer)?.map(|Whole(it)| it))
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
/// A NUL in JSON.
const NUL: &[u8] = b"\\u0000";
/// What stands in its place, as long as it.
const INSTEAD: &[u8; 6] = b"\\ufffd";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_as_json_schema_lets_it() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct It {
            #[serde(default, deserialize_with = "whole")]
            a: u32,
            #[serde(default, deserialize_with = "whole_maybe")]
            b: Option<u8>,
        }
        let read = |text: &str| json::<It>(text.as_bytes());
        assert_eq!(read(r#"{"a":3600.0,"b":255.0}"#), Ok(It { a: 3600, b: Some(255) }));
        assert_eq!(read(r#"{"a":3600,"b":null}"#), Ok(It { a: 3600, b: None }));
        assert_eq!(read("{}"), Ok(It { a: 0, b: None }));
        for wrong in
            [r#"{"a":0.5}"#, r#"{"a":-1}"#, r#"{"b":256}"#, r#"{"a":"1"}"#, r#"{"a":1e30}"#]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_nul_is_found_however_it_is_written_and_nothing_else_is() {
        for (text, expected) in [
            (r#""a\u0000b""#, true),
            (r#""\\\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""\n\u0001""#, false),
            (r#""\"#, false),
        ] {
            assert_eq!(nul_in(text.as_bytes()).is_some(), expected, "{text}");
        }
    }
}
