//! Short bodies: JSON that is read as a whole before anything is done.

use alloc::format;
use alloc::vec::Vec;

use picoserve::io::Read;
use picoserve::request::{RequestBodyConnection, RequestParts};
use picoserve::response::StatusCode;
use serde::de::DeserializeOwned;

use super::answer::Problem;
use super::connection::Control;
use super::{Shell, gate, within};

/// Reads all of a body of at most `limit_bytes`.
pub(super) async fn read<H: Shell, R: Read>(
    shell: &H,
    control: &Control,
    parts: &RequestParts<'_>,
    body: &mut RequestBodyConnection<'_, R>,
    limit_bytes: usize,
) -> Result<Vec<u8>, Problem> {
    let length = usize::try_from(gate::body_length(parts)?).unwrap_or(usize::MAX);
    if length > limit_bytes {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format_args!("body has {length} bytes, allowed are {limit_bytes}"),
            "send less",
        ));
    }
    if gate::asks_first(parts)? {
        control.ask_for_body();
    }
    let mut reader = body.body().reader();
    let mut bytes = Vec::new();
    let mut buffer = [0; 256];
    while bytes.len() < length {
        let read = within(shell, IDLE_LIMIT_MS, reader.read(&mut buffer)).await;
        match read {
            Some(Ok(read)) if read > 0 => {
                bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
            }
            _ => return Err(cut()),
        }
    }
    Ok(bytes)
}

/// What the JSON says.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8], wanted: &str) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format_args!("body is not what this call takes: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", message, format!("send {wanted}"))
    })
}

fn cut() -> Problem {
    let message = "the connection ended before the body did";
    Problem::new(StatusCode::BAD_REQUEST, "cut", message, "send it again")
}

/// A client that is silent for so long is gone, in milliseconds.
const IDLE_LIMIT_MS: u64 = 10_000;
