//! HTTP as a lead asks a server: one request for each connection, an answer of known length.
//!
//! Heads are read with `httparse`. What a server may not do to a device has a limit: how long a
//! head is, how long it is silent. What is no answer of known length (chunks) is refused.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use embedded_io_async::{Read, Write};

use super::account::Place;
use crate::dial::Dial;
use crate::http::{Shell, within};

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    pub(super) path: &'a str,
    pub(super) secret: Option<&'a str>,
    /// Names and values of more headers.
    pub(super) headers: &'a [(&'static str, String)],
    /// JSON, or nothing.
    pub(super) body: &'a str,
    /// So long the server may take for the head of its answer.
    pub(super) limit_ms: u64,
}

/// The head of an answer, and the connection from which its body is read.
#[derive(Debug)]
pub(super) struct Answer<L> {
    pub(super) status: u16,
    pub(super) tag: Option<String>,
    /// First byte and whole size, of `Content-Range`.
    pub(super) range: Option<(u32, u32)>,
    /// Bytes of the body that are still to come.
    pub(super) left: u32,
    link: L,
    /// Bytes of the body that came with the head.
    early: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    Unreachable(String),
    Silent,
    Closed,
    NotSpoken,
}

impl Trouble {
    /// With a way out.
    pub(super) fn text(&self, place: &Place) -> String {
        match self {
            Self::Unreachable(why) => {
                format!("server `{place}` cannot be reached: {why}; it is tried again")
            }
            Self::Silent => format!("server `{place}` does not answer; it is tried again"),
            Self::Closed => {
                format!("server `{place}` has closed the connection; it is tried again")
            }
            Self::NotSpoken => {
                format!(
                    "server `{place}` does not answer as a Lockstep server: is it the right port?"
                )
            }
        }
    }
}

/// Asks, and reads the head of the answer.
pub(super) async fn ask<H: Shell, D: Dial>(
    shell: &H,
    dialer: &D,
    place: &Place,
    request: &Request<'_>,
) -> Result<Answer<D::Link>, Trouble> {
    let dial = within(shell, DIAL_LIMIT_MS, dialer.dial(&place.host, place.port)).await;
    let dialled = dial.ok_or(Trouble::Silent)?;
    let mut link = dialled.map_err(|error| Trouble::Unreachable(error.to_string()))?;
    let head = head_of(place, request);
    let send = async {
        link.write_all(head.as_bytes()).await.map_err(|_| Trouble::Closed)?;
        link.write_all(request.body.as_bytes()).await.map_err(|_| Trouble::Closed)?;
        link.flush().await.map_err(|_| Trouble::Closed)
    };
    within(shell, SILENCE_LIMIT_MS, send).await.ok_or(Trouble::Silent)??;
    let read = read_head(&mut link);
    let (head, early) = within(shell, request.limit_ms, read).await.ok_or(Trouble::Silent)??;
    let Head { status, tag, range, length } = head;
    let left = length.saturating_sub(u32::try_from(early.len()).unwrap_or(u32::MAX));
    Ok(Answer { status, tag, range, left, link, early })
}

fn head_of(place: &Place, request: &Request<'_>) -> String {
    let Request { method, path, secret, headers, body, .. } = request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n");
    if let Some(secret) = secret {
        head += &format!("Authorization: Bearer {secret}\r\n");
    }
    for (name, value) in *headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let length = body.len();
        head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    head += "\r\n";
    head
}

struct Head {
    status: u16,
    tag: Option<String>,
    range: Option<(u32, u32)>,
    length: u32,
}

async fn read_head<L: Read>(link: &mut L) -> Result<(Head, Vec<u8>), Trouble> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 512];
    while bytes.len() < HEAD_BYTES_MAX {
        let count = link.read(&mut buffer).await.map_err(|_| Trouble::Closed)?;
        if count == 0 {
            return Err(Trouble::Closed);
        }
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if let Some((head, len)) = parse_head(&bytes)? {
            let early = bytes.split_off(len);
            return Ok((head, early));
        }
    }
    Err(Trouble::NotSpoken)
}

/// The head and its length, once it is whole.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Trouble> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|_| Trouble::NotSpoken)?;
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    let status = response.code.ok_or(Trouble::NotSpoken)?;
    let value = |name: &str| {
        let found = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
        found.and_then(|it| core::str::from_utf8(it.value).ok())
    };
    if value("transfer-encoding").is_some() {
        return Err(Trouble::NotSpoken);
    }
    let length = match (status, value("content-length")) {
        (204 | 304, _) => 0,
        (_, Some(text)) => text.trim().parse().map_err(|_| Trouble::NotSpoken)?,
        (_, None) => return Err(Trouble::NotSpoken),
    };
    let tag = value("etag").map(String::from);
    let range = value("content-range").and_then(read_range);
    Ok(Some((Head { status, tag, range, length }, len)))
}

/// `bytes FIRST-LAST/SIZE`: first and size.
fn read_range(text: &str) -> Option<(u32, u32)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}

impl<L: Read> Answer<L> {
    /// The next bytes of the body; empty at its end.
    pub(super) async fn next<H: Shell>(&mut self, shell: &H) -> Result<Vec<u8>, Trouble> {
        if !self.early.is_empty() {
            return Ok(core::mem::take(&mut self.early));
        }
        if self.left == 0 {
            return Ok(Vec::new());
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut buffer = alloc::vec![0; wanted];
        let read = within(shell, SILENCE_LIMIT_MS, self.link.read(&mut buffer)).await;
        let count = read.ok_or(Trouble::Silent)?.map_err(|_| Trouble::Closed)?;
        if count == 0 {
            return Err(Trouble::Closed);
        }
        buffer.truncate(count);
        self.left = self.left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        Ok(buffer)
    }

    /// The whole body, if it is a short one.
    pub(super) async fn text<H: Shell>(mut self, shell: &H) -> Result<String, Trouble> {
        let mut bytes = Vec::new();
        loop {
            let piece = self.next(shell).await?;
            if piece.is_empty() {
                return String::from_utf8(bytes).map_err(|_| Trouble::NotSpoken);
            }
            bytes.extend_from_slice(&piece);
            if bytes.len() > TEXT_BYTES_MAX {
                return Err(Trouble::NotSpoken);
            }
        }
    }
}

/// A connection must be there by then, in milliseconds.
const DIAL_LIMIT_MS: u64 = 10_000;
/// A server that takes or gives nothing for so long is gone, in milliseconds.
const SILENCE_LIMIT_MS: u64 = 15_000;
/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 4096;
/// Headers of an answer, at most.
const HEADERS_MAX: usize = 32;
/// The longest answer that is read as a whole.
const TEXT_BYTES_MAX: usize = 8192;
/// Bytes of a bundle that are taken at once.
const CHUNK_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole_and_what_is_of_unknown_length_is_refused() {
        let text = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: \"a\"\r\n\
            Content-Range: bytes 10-14/15\r\n\r\nhello";
        for cut in 1..text.len() - 5 {
            assert!(matches!(parse_head(&text[..cut]), Ok(None)), "{cut}");
        }
        let (head, len) = parse_head(text).unwrap().unwrap();
        assert_eq!((head.status, head.length, head.range), (206, 5, Some((10, 15))));
        assert_eq!((head.tag.as_deref(), &text[len..]), (Some("\"a\""), &b"hello"[..]));
        for bad in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert!(parse_head(bad).is_err());
        }
    }
}
