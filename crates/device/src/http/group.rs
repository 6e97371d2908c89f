//! The group as its lead knows it, the way off its list of members, and the way in: adoption.

use alloc::string::String;
use alloc::vec::Vec;

use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::wire::{Label, Role};
use picoserve::response::StatusCode;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Problem, Shown};
use super::body;
use super::rollout::{busy, not_the_lead};
use super::{Shell, views};
use crate::adopt::AdoptError;
use crate::group::RemoveError;
use crate::node::Node;
use crate::peers::Peer;
use crate::setup::Application;

#[derive(Serialize)]
struct GroupView {
    members: Vec<MemberView>,
    /// Devices that were heard lately and do not have the group's key.
    in_reach: Vec<StrangerView>,
    /// The adoption that the lead is about, or was about last in this boot.
    adoption: Option<AdoptionJson>,
}

#[derive(Serialize)]
struct StrangerView {
    id: Shown<DeviceId>,
    /// What its firmware calls itself: nobody has proved that.
    device_type: Shown<Label<20>>,
    version: Option<Shown<ReleaseVersion>>,
    heard_ms_ago: u64,
}

#[derive(Serialize)]
struct AdoptionJson {
    id: Shown<DeviceId>,
    state: &'static str,
    problem: Option<ProblemJson>,
}

#[derive(Serialize)]
struct ProblemJson {
    code: &'static str,
    message: String,
    hint: &'static str,
}

/// The body of an adoption.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    password: String,
}

#[derive(Serialize)]
struct Adopting {
    adopting: Shown<DeviceId>,
}

#[derive(Serialize)]
struct MemberView {
    id: Shown<DeviceId>,
    role: Shown<Role>,
    lead: bool,
    linked: bool,
    /// Null if it was not heard in this boot; the lead hears itself.
    heard_ms_ago: Option<u64>,
    /// It came after the last rollout, and does not run its release.
    behind: bool,
}

#[derive(Serialize)]
struct Removed {
    removed: Shown<DeviceId>,
    role: Shown<Role>,
}

/// `GET /api/group`.
pub(super) fn present<H: Shell>(shell: &H) -> Result<Answer, Problem> {
    let answer = shell.with(|now, node, _| {
        if node.members().is_empty() {
            return Err(not_the_lead(node));
        }
        node.look_around(now);
        Ok(Answer::json_text(text(now, node)))
    });
    shell.wake();
    answer
}

/// The same, as text. Nobody is asked anything.
pub(crate) fn text<A: Application>(now: Instant, node: &Node<A>) -> String {
    let fresh_ms = node.setup().pace.link_fresh_ms;
    let behind = node.behind(now);
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
            behind: behind.iter().any(|behind| behind.id == id),
        }
    };
    let stranger = |peer: &Peer| StrangerView {
        id: Shown(peer.id),
        device_type: Shown(peer.device_type),
        version: peer
            .announced
            .map(|announced| Shown(ReleaseVersion::from_number(announced.number))),
        heard_ms_ago: now.ms_since(peer.heard_at),
    };
    views::json_text(&GroupView {
        members: node.members().iter().map(member).collect(),
        in_reach: node.strangers(now).map(stranger).collect(),
        adoption: node.adoption().map(|adoption| AdoptionJson {
            id: Shown(adoption.device),
            state: adoption.stage,
            problem: adoption.failure.map(|why| ProblemJson {
                code: why.code(),
                message: alloc::format!("{} was not adopted: {why}", adoption.device),
                hint: why.hint(),
            }),
        }),
    })
}

/// `POST /api/group/adopt/ID`: begins; how it goes on `GET /api/group` tells.
pub(super) fn adopt<H: Shell>(shell: &H, id: &str, body: &[u8]) -> Result<Answer, Problem> {
    let id = id_of(id)?;
    let wish: Wish = body::json(body, "`{\"password\":\"…\"}`, the device's own")?;
    let begun = shell.with(|now, node, _| {
        node.adopt(now, id, &wish.password).map_err(|error| cannot_adopt(&error, node))
    });
    begun?;
    shell.wake();
    Ok(Answer::with_status(StatusCode::ACCEPTED, &Adopting { adopting: Shown(id) }))
}

fn cannot_adopt<A: Application>(error: &AdoptError, node: &Node<A>) -> Problem {
    let problem = |status, code, hint: &str| Problem::new(status, code, error, hint);
    match error {
        AdoptError::NotTheLead => not_the_lead(node),
        AdoptError::InRollout(id) => busy(error, *id),
        AdoptError::AMember(_) => {
            problem(StatusCode::CONFLICT, "a-member", "nothing is to be done")
        }
        AdoptError::Busy(_) => {
            problem(StatusCode::CONFLICT, "adopting", "it takes seconds; try again then")
        }
        AdoptError::Full { .. } => problem(
            StatusCode::CONFLICT,
            "group-full",
            "take a device that is gone for good off the list, or make a second group",
        ),
    }
}

/// A colon may come as itself or as a browser writes it.
fn id_of(text: &str) -> Result<DeviceId, Problem> {
    let id = text.replace("%3A", ":").replace("%3a", ":");
    id.parse().map_err(|error| {
        let message = alloc::format!("`{id}` is not the address of a device: {error}");
        let hint = "`GET /api/group` has the addresses of all members";
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", message, hint)
    })
}

/// `POST /api/group/remove/ID`.
pub(super) fn remove<H: Shell>(shell: &H, id: &str) -> Result<Answer, Problem> {
    let id = id_of(id)?;
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

/// The largest body of an adoption in bytes: every character of a password escaped.
pub(super) const BODY_BYTES_MAX: usize = 1_024;
