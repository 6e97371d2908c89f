//! `PUT /api/password`: another password takes the place of the one that let the request in.

use alloc::string::String;

use picoserve::response::StatusCode;
use serde::{Deserialize, Serialize};

use super::Shell;
use super::answer::{Answer, Problem};
use super::body;
use crate::password;

/// The body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    password: String,
}

#[derive(Serialize)]
struct Changed {
    changed: bool,
}

/// Stores it, durably; from the next request on only it counts.
pub(super) fn set<H: Shell>(shell: &H, bytes: &[u8]) -> Result<Answer, Problem> {
    let wish: Wish = body::json(bytes, "`{\"password\":\"…\"}`")?;
    password::check(&wish.password).map_err(|unfit| refused(&unfit))?;
    store(shell, &wish.password)?;
    Ok(Answer::json(&Changed { changed: true }))
}

/// A password that no device takes.
pub(super) fn refused(unfit: &password::Unfit) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-password",
        unfit,
        "several words are easier to keep in mind than signs",
    )
}

/// Makes it the password of the device.
pub(super) fn store<H: Shell>(shell: &H, chosen: &str) -> Result<(), Problem> {
    if shell.with(|now, node, flash| node.change_password(now, chosen, flash)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "storage",
        "could not store the `password`",
        "the old one counts; restart the device, its flash may be worn out",
    ))
}

/// The largest body in bytes: every character escaped.
pub(super) const BODY_BYTES_MAX: usize = 1_024;
