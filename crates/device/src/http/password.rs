//! `PUT /api/password`: another password takes the place of the one that let the request in.

use alloc::string::String;

use picoserve::response::StatusCode;
use serde::{Deserialize, Serialize};

use super::Shell;
use super::answer::{Answer, Problem};
use super::body;

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
    let length = wish.password.chars().count();
    if !(PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&length)
        || wish.password.chars().any(char::is_control)
        || wish.password.trim() != wish.password
    {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-password",
            format_args!(
                "password has {length} characters, allowed are {PASSWORD_CHARS_MIN} to \
                 {PASSWORD_CHARS_MAX}, with no space at either end"
            ),
            "several words are easier to keep in mind than signs",
        ));
    }
    match shell.with(|now, node, flash| node.change_password(now, &wish.password, flash)) {
        true => Ok(Answer::json(&Changed { changed: true })),
        false => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "storage",
            "could not store the `password`",
            "the old one counts; restart the device, its flash may be worn out",
        )),
    }
}

/// The largest body in bytes: every character escaped.
pub(super) const BODY_BYTES_MAX: usize = 1_024;
const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_CHARS_MAX: usize = 64;
