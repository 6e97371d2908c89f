//! The page and the calls by which a board is told its networks, its password and whether it leads,
//! while it has nobody's yet. A board serves them on an access point of its own, at its first start
//! or when somebody with the board in their hands asks for it.
//!
//! Whoever is on that access point may set up a device without a password; one that has a password
//! wants it first, as for any order. What was set is durable before it is answered; then the device
//! starts anew.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use lockstep_agent::CONFIG_BYTES_MAX;
use picoserve::response::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::{Answer, Problem, Shown};
use super::{Shell, body, config};
use crate::password;
use crate::settings::FIELD;

/// What a board that is being set up knows of its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstStart {
    /// The networks in reach, the strongest first.
    pub networks: Vec<InReach>,
    /// Whether it leads its group unless somebody says otherwise.
    pub leads: bool,
    /// It has a cable to a network, and needs none by radio.
    pub is_wired: bool,
}

/// A network in reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InReach {
    /// Its name.
    pub ssid: String,
    /// How strong it is here, in dBm.
    pub signal_dbm: i8,
    /// It asks for no password.
    pub open: bool,
}

#[derive(Serialize)]
struct View<'a> {
    role: &'a str,
    hardware: &'a str,
    id: Shown<lockstep_proto::id::DeviceId>,
    has_password: bool,
    leads: bool,
    wired: bool,
    networks: &'a [InReach],
    /// What it was told already, its secrets left out.
    board: Option<Value>,
}

/// The body of [`set`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    password: Option<String>,
    board: Option<Value>,
}

#[derive(Serialize)]
struct Done {
    restarts: bool,
}

/// `GET /api/setup`.
pub(super) fn present<H: Shell>(shell: &H) -> Result<Answer, Problem> {
    let FirstStart { networks, leads, is_wired } = shell.first_start().ok_or_else(over)?;
    Ok(shell.with(|_, node, flash| {
        let board = node.config(false, flash).remove(FIELD);
        let setup = node.setup();
        Answer::json(&View {
            role: setup.role.as_str(),
            hardware: &setup.hardware,
            id: Shown(setup.id),
            has_password: node.has_password(),
            leads,
            wired: is_wired,
            networks: &networks,
            board,
        })
    }))
}

/// `POST /api/setup`: the networks first and the password last, so that a set-up that was cut off
/// is still open to whoever began it.
pub(super) fn set<H: Shell>(shell: &H, bytes: &[u8]) -> Result<Answer, Problem> {
    shell.first_start().ok_or_else(over)?;
    let wish: Wish = body::json(bytes, "`{\"password\":\"…\",\"board\":{…}}`")?;
    let has_password = shell.with(|_, node, _| node.has_password());
    match &wish.password {
        Some(chosen) => {
            password::check(chosen).map_err(|unfit| super::password::refused(&unfit))?;
        }
        None if has_password => (),
        None => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "no-password",
                "device has no `password` yet, and the request sets none",
                "choose one: without it nobody could update the device",
            ));
        }
    }
    if let Some(board) = wish.board {
        store(shell, board)?;
    }
    if let Some(chosen) = &wish.password {
        super::password::store(shell, chosen)?;
    }
    shell.restart_soon();
    Ok(Answer::json(&Done { restarts: true }))
}

/// The application's own fields stay as they are.
fn store<H: Shell>(shell: &H, board: Value) -> Result<(), Problem> {
    let text = shell.with(|_, node, flash| {
        let mut object: Map<String, Value> = node.config(true, flash);
        object.insert(FIELD.into(), board);
        Value::Object(object).to_string()
    });
    config::set(shell, text.as_bytes()).map(|_| ())
}

/// Whether somebody may set the device up without its password.
pub(super) fn is_open<H: Shell>(shell: &H) -> bool {
    shell.first_start().is_some() && !shell.with(|_, node, _| node.has_password())
}

fn over() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "set-up",
        "this device is not being set up",
        "`PUT /api/config` changes its settings; by cable `setup` brings its set-up page back",
    )
}

/// The largest body in bytes: a configuration, and a password of which every character is escaped.
pub(super) const BODY_BYTES_MAX: usize = CONFIG_BYTES_MAX + super::password::BODY_BYTES_MAX;
