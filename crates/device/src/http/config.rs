//! `GET /api/config`, `PUT /api/config`: the application's configuration, backed up and put back.

use lockstep_agent::ConfigError;
use picoserve::response::StatusCode;
use serde_json::Value;

use super::Shell;
use super::answer::{Answer, Problem};
use crate::config::ConfigFault;

/// The object in force.
pub(super) fn present<H: Shell>(shell: &H, with_secrets: bool) -> Answer {
    let object = shell.with(|_, node, flash| node.config(with_secrets, flash));
    Answer::json(&Value::Object(object))
}

/// Puts another one in force, and answers with it, its secrets left out.
pub(super) fn set<H: Shell>(shell: &H, bytes: &[u8]) -> Result<Answer, Problem> {
    let result = shell.with(|now, node, flash| node.set_config(now, bytes, flash));
    result.map(|()| present(shell, false)).map_err(|fault| refused(&fault))
}

fn refused(fault: &ConfigFault) -> Problem {
    let problem = |status, code, hint: &str| Problem::new(status, code, fault, hint);
    match fault {
        ConfigFault::NotAnObject(_) => problem(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "send what `GET /api/config` answered, or another object",
        ),
        ConfigFault::Refused(_) => problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-config",
            "mend what it names; the configuration before is still in force",
        ),
        ConfigFault::Storage(ConfigError::TooLarge { .. }) => {
            problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "make it shorter")
        }
        ConfigFault::Storage(ConfigError::NoRoom) => problem(
            StatusCode::NOT_IMPLEMENTED,
            "no-room",
            "give the board a partition `lockstep` of 0x10000 bytes",
        ),
        ConfigFault::Storage(ConfigError::Flash(_)) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "storage",
            "restart the device; if it happens again, its flash is worn out",
        ),
    }
}
