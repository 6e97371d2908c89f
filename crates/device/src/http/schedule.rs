//! `POST /api/rollout/schedule`: when a rollout that waits goes on.

use serde::Deserialize;

use super::Shell;
use super::answer::{Answer, Problem};
use super::body;
use super::rollout::cannot_conduct;

/// The body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Seconds from now; 0: as soon as all have staged. Null: not before somebody says so.
    #[serde(deserialize_with = "said")]
    in_s: Option<u32>,
}

/// Null is something else than nothing: it has to be said.
fn said<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Option::deserialize(deserializer)
}

/// Lets the open rollout go on now, later, or not yet.
pub(super) fn set<H: Shell>(shell: &H, bytes: &[u8]) -> Result<Answer, Problem> {
    let wish: Wish = body::json(bytes, WANTED)?;
    let answer = shell.with(|now, node, flash| {
        let in_ms = wish.in_s.map(|seconds| u64::from(seconds) * 1000);
        let result = node.schedule(now, in_ms, flash);
        result.map(Answer::accepted).map_err(|error| cannot_conduct(&error, node))
    });
    shell.wake();
    answer
}

/// The largest body in bytes.
pub(super) const BODY_BYTES_MAX: usize = 256;
const WANTED: &str = "`{\"in_s\":SECONDS}`, 0 for at once, null for not yet";
