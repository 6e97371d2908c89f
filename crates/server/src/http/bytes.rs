//! Bytes out of the store of objects: whole, in part (RFC 9110, one range), or not at all if who
//! asks has them already.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use futures_util::stream;
use lockstep_proto::id::Sha256;
use utoipa::IntoResponses;

use super::contract::Octets;
use super::problem::Problem;
use crate::objects::Objects;
use crate::patches::composed::{Composed, Piece};

/// Where in an object something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Its first byte.
    pub(super) first: u64,
    /// How long it is.
    pub(super) size_bytes: u64,
}

/// What is answered with bytes, in the API's document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it stands for what `answer` makes, and is never made itself")]
pub(super) enum Bytes {
    /// The whole.
    #[response(status = 200, content_type = "application/octet-stream")]
    Whole(Octets),
    /// The range that was asked for.
    #[response(status = 206, content_type = "application/octet-stream")]
    Range(Octets),
    /// Who asks has them already.
    #[response(status = 304)]
    Same,
    /// There are no such bytes.
    #[response(status = 416)]
    Nowhere,
}

/// Answers with a part of an object, or with the range of it that is asked for.
pub(super) async fn answer(
    objects: &Objects,
    digest: Sha256,
    part: Part,
    tag: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let whole = Composed::part(part.first, part.size_bytes);
    answer_composed(objects, digest, &whole, tag, headers).await
}

/// The same of an object and what is put into it.
pub(super) async fn answer_composed(
    objects: &Objects,
    digest: Sha256,
    whole: &Composed,
    tag: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let whole_bytes = whole.size_bytes();
    let tag = format!("\"{tag}\"");
    let said = |name: header::HeaderName| headers.get(name).and_then(|it| it.to_str().ok());
    let base = Response::builder()
        .header(header::ETAG, &tag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, "private, max-age=31536000, immutable");
    let matches = |list: &str| list.split(',').any(|it| it.trim() == tag || it.trim() == "*");
    if said(header::IF_NONE_MATCH).is_some_and(matches) {
        return Ok(built(base.status(StatusCode::NOT_MODIFIED).body(Body::empty())));
    }
    // A range of something else than what the client has the beginning of would be nonsense.
    let is_same = said(header::IF_RANGE).is_none_or(|it| it == tag);
    let wanted = said(header::RANGE).filter(|_| is_same);
    let (status, first, size_bytes) = match wanted.map(|text| range(text, whole_bytes)) {
        None | Some(Wanted::All) => (StatusCode::OK, 0, whole_bytes),
        Some(Wanted::Part(part)) => (StatusCode::PARTIAL_CONTENT, part.first, part.size_bytes),
        Some(Wanted::Nowhere) => {
            let whole = format!("bytes */{whole_bytes}");
            let base = base.header(header::CONTENT_RANGE, whole);
            return Ok(built(base.status(StatusCode::RANGE_NOT_SATISFIABLE).body(Body::empty())));
        }
    };
    let mut pieces = Vec::new();
    for piece in whole.range(&(first..first + size_bytes)) {
        pieces.push(match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Bundle(range) => {
                objects.get(digest, range).await?.ok_or_else(|| away(digest))?
            }
        });
    }
    let mut base = base
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, size_bytes);
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + size_bytes - 1;
        let range = format!("bytes {first}-{last}/{whole_bytes}");
        base = base.header(header::CONTENT_RANGE, range);
    }
    let body = match pieces.as_slice() {
        [whole] => Body::from(whole.clone()),
        _ => Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>))),
    };
    Ok(built(base.body(body)))
}

/// A bundle that was there is not any more.
pub(super) fn away(digest: Sha256) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "away",
        format_args!("bundle {digest} is not in the store of objects"),
        "upload the release again",
    )
}

/// The headers are all our own texts.
fn built(response: Result<Response<Body>, axum::http::Error>) -> Response<Body> {
    response.expect("headers are plain")
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Part),
    Nowhere,
}

/// Reads `bytes=A-B`, `bytes=A-` or `bytes=-N`. What is no range, or several, is passed over: the
/// whole is a right answer to it.
fn range(text: &str, size_bytes: u64) -> Wanted {
    let Some(spec) = text.trim().strip_prefix("bytes=") else { return Wanted::All };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::All };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(size_bytes.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, size_bytes.saturating_sub(1)),
        (Err(_), Ok(0)) if first.is_empty() => return Wanted::Nowhere,
        (Err(_), Ok(count)) if first.is_empty() => {
            (size_bytes.saturating_sub(count), size_bytes.saturating_sub(1))
        }
        _ => return Wanted::All,
    };
    if first >= size_bytes {
        return Wanted::Nowhere;
    }
    Wanted::Part(Part { first, size_bytes: last - first + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_http_says() {
        let part = |first, size_bytes| Wanted::Part(Part { first, size_bytes });
        for (text, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=2-", part(2, 8)),
            ("bytes=2-99", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Wanted::Nowhere),
            ("bytes=-0", Wanted::Nowhere),
            ("bytes=5-2", Wanted::All),
            ("bytes=0-1,4-5", Wanted::All),
            ("lines=1-2", Wanted::All),
            ("bytes=", Wanted::All),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Wanted::Nowhere);
    }
}
