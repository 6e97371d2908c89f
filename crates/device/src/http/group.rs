//! The group as its lead knows it, and the way off its list of members.

use alloc::string::String;
use alloc::vec::Vec;

use lockstep_proto::id::DeviceId;
use lockstep_proto::wire::Role;
use picoserve::response::StatusCode;
use serde::Serialize;

use super::Shell;
use super::answer::{Answer, Problem, Shown};
use super::rollout::{busy, not_the_lead};
use crate::group::RemoveError;
use crate::node::Node;
use crate::setup::Application;

#[derive(Serialize)]
struct GroupView {
    members: Vec<MemberView>,
}

#[derive(Serialize)]
struct MemberView {
    id: Shown<DeviceId>,
    role: Shown<Role>,
    lead: bool,
    linked: bool,
    /// Null if it was not heard in this boot; the lead hears itself.
    heard_ms_ago: Option<u64>,
}

#[derive(Serialize)]
struct Removed {
    removed: Shown<DeviceId>,
    role: Shown<Role>,
}

/// `GET /api/group`.
pub(super) fn present<H: Shell>(shell: &H) -> Result<Answer, Problem> {
    shell.with(|now, node, _| {
        if node.members().is_empty() {
            return Err(not_the_lead(node));
        }
        let fresh_ms = node.setup().pace.link_fresh_ms;
        let member = |&(id, role): &(DeviceId, Role)| {
            let lead = id == node.setup().id;
            let peer = node.peers().get(id);
            MemberView {
                id: Shown(id),
                role: Shown(role),
                lead,
                linked: lead || peer.is_some_and(|peer| peer.is_linked(now, fresh_ms)),
                heard_ms_ago: match lead {
                    true => Some(0),
                    false => peer.map(|peer| now.ms_since(peer.heard_at)),
                },
            }
        };
        Ok(Answer::json(&GroupView { members: node.members().iter().map(member).collect() }))
    })
}

/// `POST /api/group/remove/ID`.
pub(super) fn remove<H: Shell>(shell: &H, id: &str) -> Result<Answer, Problem> {
    // A colon may come as itself or as a browser writes it.
    let id = id.replace("%3A", ":").replace("%3a", ":");
    let id: DeviceId = id.parse().map_err(|error| {
        let message = alloc::format!("`{id}` is not the address of a device: {error}");
        let hint = "`GET /api/group` has the addresses of all members";
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", message, hint)
    })?;
    shell.with(|now, node, flash| match node.remove_member(now, id, flash) {
        Ok(role) => Ok(Answer::json(&Removed { removed: Shown(id), role: Shown(role) })),
        Err(error) => Err(cannot_remove(&error, node)),
    })
}

fn cannot_remove<A: Application>(error: &RemoveError, node: &Node<A>) -> Problem {
    let problem = |status, code, hint: &str| Problem::new(status, code, error, hint);
    match error {
        RemoveError::NotTheLead => not_the_lead(node),
        RemoveError::Busy(id) => busy(error, *id),
        RemoveError::IsTheLead(_) => {
            let hint = "another device takes over when it is started as the lead";
            problem(StatusCode::CONFLICT, "is-the-lead", hint)
        }
        RemoveError::NotAMember(_) => {
            let hint = "`GET /api/group` has the addresses of all members";
            problem(StatusCode::NOT_FOUND, "not-a-member", hint)
        }
        RemoveError::StillHeard { .. } => {
            let hint: String = alloc::format!(
                "switch it off, or give it another group's key, and wait {} s",
                node.setup().pace.link_fresh_ms.div_ceil(1000)
            );
            problem(StatusCode::CONFLICT, "still-heard", &hint)
        }
        RemoveError::Storage => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "storage",
            "restart the device; if it happens again, its flash is worn out",
        ),
    }
}
