//! Who may do what: no page of another site, nobody without the password, no body of unknown
//! length. Fails closed: what cannot be read is not let in.

use core::cell::Cell;

use base64ct::{Base64, Encoding};
use picoserve::request::RequestParts;
use picoserve::response::StatusCode;

use super::answer::Problem;
use super::connection::{LENGTH_DIGITS_MAX, SPOILT};
use super::{BUNDLE_BYTES_MAX, Shell};

/// How often in a row somebody was wrong, for all connections together.
#[derive(Debug, Default)]
pub(super) struct WrongPasswords {
    in_a_row: Cell<u32>,
    /// When the next one is looked at, in milliseconds since boot.
    next_at_ms: Cell<u64>,
}

/// Refuses requests that a page of another site makes a browser send.
pub(super) fn check_origin(parts: &RequestParts<'_>) -> Result<(), Problem> {
    let Some(origin) = parts.headers().get("origin") else { return Ok(()) };
    let origin = origin.as_str().unwrap_or("?");
    let host = parts.headers().get("host").and_then(|host| host.as_str().ok()).unwrap_or("?");
    let origin_host = origin.split_once("://").map_or("", |(_, host)| host);
    if origin_host.eq_ignore_ascii_case(host) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "cross-origin",
        format_args!("page of `{origin}` may not use the device at `{host}`"),
        "open the device's own page, or use the command `lockstep`",
    ))
}

/// Lets whoever knows the device's password pass. Wrong ones slow down everybody's next.
pub(super) async fn check_password<H: Shell>(
    shell: &H,
    wrong: &WrongPasswords,
    parts: &RequestParts<'_>,
) -> Result<(), Problem> {
    if !shell.with(|_, node, _| node.has_password()) {
        return Err(unauthorized(
            "no-password",
            "device has no password yet, and takes no orders without one",
            "set one on the device: a desk device prints it at its first start",
        ));
    }
    let mut buffer = [0; CREDENTIALS_BYTES_MAX];
    let Some(offered) = offered_password(parts, &mut buffer) else {
        return Err(unauthorized(
            "unauthorized",
            "request carries no password",
            "send it as `Authorization: Bearer PASSWORD`, or by HTTP Basic with any user",
        ));
    };
    let wait_ms = shell.with(|now, _, _| wrong.wait_ms(now.ms));
    if wait_ms > 0 {
        shell.sleep_ms(wait_ms).await;
    }
    if shell.with(|_, node, _| node.is_password(offered)) {
        wrong.in_a_row.set(0);
        wrong.next_at_ms.set(0);
        return Ok(());
    }
    wrong.in_a_row.set(wrong.in_a_row.get().saturating_add(1));
    Err(unauthorized(
        "unauthorized",
        "password is wrong",
        "it was shown at the device's first start, and can be set anew by cable",
    ))
}

impl WrongPasswords {
    /// How long the next password has to wait; passwords of several connections queue up.
    fn wait_ms(&self, now_ms: u64) -> u64 {
        if self.in_a_row.get() < WRONG_FREE {
            return 0;
        }
        let at_ms = self.next_at_ms.get().max(now_ms).saturating_add(WRONG_DELAY_MS);
        self.next_at_ms.set(at_ms);
        at_ms.saturating_sub(now_ms)
    }
}

fn unauthorized(code: &'static str, message: &'static str, hint: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, message, hint)
        .with_header("WWW-Authenticate", "Basic realm=\"lockstep\"")
}

fn offered_password<'b>(
    parts: &RequestParts<'b>,
    buffer: &'b mut [u8; CREDENTIALS_BYTES_MAX],
) -> Option<&'b str> {
    let value = parts.headers().get("authorization")?.as_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Base64::decode(credentials, buffer).ok()?;
    let (_any_user, password) = core::str::from_utf8(decoded).ok()?.split_once(':')?;
    Some(password)
}

/// The length of a bundle, which must be known before its first byte.
pub(super) fn bundle_length(parts: &RequestParts<'_>) -> Result<u32, Problem> {
    let length = body_length(parts)?;
    if length <= BUNDLE_BYTES_MAX {
        return Ok(length);
    }
    Err(Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-large",
        format_args!("bundle has {length} bytes, allowed are {BUNDLE_BYTES_MAX}"),
        "make a bundle with `lockstep release create`",
    ))
}

/// Whether the client waits to be asked for its body.
pub(super) fn asks_first(parts: &RequestParts<'_>) -> Result<bool, Problem> {
    match parts.headers().get("expect") {
        None => Ok(false),
        Some(expectation) if expectation == "100-continue" => Ok(true),
        Some(_) => Err(Problem::new(
            StatusCode::EXPECTATION_FAILED,
            "bad-request",
            "`Expect` is something else than `100-continue`",
            "leave it out",
        )),
    }
}

/// The length of any body; one of more digits than a `u32` has counts as the largest.
pub(super) fn body_length(parts: &RequestParts<'_>) -> Result<u32, Problem> {
    let headers = parts.headers();
    let is_chunked = headers.get("transfer-encoding").is_some();
    let length = headers.get("content-length").filter(|_| !is_chunked);
    let Some(length) = length else {
        return Err(Problem::new(
            StatusCode::LENGTH_REQUIRED,
            "length-required",
            "body comes without `Content-Length`",
            "send the file as it is, not in chunks",
        ));
    };
    let digits = length.as_raw();
    let is_long = digits.len() > LENGTH_DIGITS_MAX && digits.ends_with(&[SPOILT]);
    let found = length.as_str().ok().and_then(|text| text.parse::<u32>().ok());
    match found {
        Some(found) => Ok(found),
        None if is_long => Ok(u32::MAX),
        None => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "`Content-Length` is not a number",
            "send the size of the file in bytes",
        )),
    }
}

/// The part of a bundle that a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its first byte's place in the bundle.
    pub(crate) offset: u32,
    /// Size of the whole bundle in bytes.
    pub(crate) size_bytes: u32,
}

/// Which part of a bundle comes, from `Content-Range: bytes A-B/T`; without it, all of it.
pub(super) fn bundle_part(parts: &RequestParts<'_>, length: u32) -> Result<Option<Part>, Problem> {
    let Some(range) = parts.headers().get("content-range") else { return Ok(None) };
    let range = range.as_str().unwrap_or_default();
    let bad = |wanted: &str| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            format_args!("`Content-Range` is `{range}`, wanted is {wanted}"),
            "go on at `rollout.upload.next_offset` and send everything from there",
        )
    };
    let Some((first, last, size_bytes)) = read_range(range) else {
        return Err(bad("`bytes FIRST-LAST/SIZE`"));
    };
    let ends = last.checked_add(1);
    let carried = ends.and_then(|end| end.checked_sub(first));
    if ends != Some(size_bytes) || carried != Some(length) || size_bytes > BUNDLE_BYTES_MAX {
        return Err(bad("the rest of the bundle, as many bytes as `Content-Length` says"));
    }
    Ok(Some(Part { offset: first, size_bytes }))
}

fn read_range(text: &str) -> Option<(u32, u32, u32)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}

/// Decoded `user:password`, at most.
const CREDENTIALS_BYTES_MAX: usize = 192;
/// So many wrong passwords in a row cost nothing: people mistype.
const WRONG_FREE: u32 = 5;
/// After that each one costs everybody so long, in milliseconds.
const WRONG_DELAY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_queue_up_behind_each_other_once_five_were_wrong() {
        let wrong = WrongPasswords::default();
        wrong.in_a_row.set(WRONG_FREE - 1);
        assert_eq!(wrong.wait_ms(10), 0);
        wrong.in_a_row.set(WRONG_FREE);
        assert_eq!([wrong.wait_ms(10), wrong.wait_ms(10), wrong.wait_ms(510)], [1000, 2000, 2500]);
        assert_eq!(wrong.wait_ms(60_000), 1000);
    }

    #[test]
    fn a_range_has_three_numbers_and_nothing_else() {
        assert_eq!(read_range("bytes 0-9/10"), Some((0, 9, 10)));
        for text in ["", "bytes", "bytes 0-9", "bytes 0/10", "bytes */10", "bytes 0-9/4294967296"] {
            assert_eq!(read_range(text), None, "{text}");
        }
    }
}
