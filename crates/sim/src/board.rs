//! A board on a desk: one process that runs the very node of a chip in real time.
//!
//! ```text
//!   power on ─► bootloader ─► node, radio, HTTP ─► reset ─┐
//!                   ▲                                     │   RAM is lost, flash stays
//!                   └─────────────────────────────────────┘
//!   kill -9 is a power cut: the next process begins at "power on"
//! ```
//!
//! The flash is a file that one board holds at a time, the radio is UDP on loopback, and the API is
//! served on a port of the host. While the board restarts nobody answers there. What an image
//! orders (see [`crate::firmware`]) is played here: crashes, hangs, bad health, deafness.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lockstep_device::NodeError;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::journal::Level;
use lockstep_device::mqtt::Broker;
use lockstep_device::setup::Duty;
use lockstep_device::uplink::ServerAtStart;
use lockstep_proto::compat::Rule;
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::DeviceId;
use lockstep_proto::image::ChipId;
use lockstep_proto::wire::{Board as BoardName, Role};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};

use crate::bootloader::{BootFailure, BootSlot, ResetReason};
use crate::firmware::UnknownBehaviour;
use crate::flash::{CAPACITY_DEFAULT_BYTES, FileFlash, FlashError, OpenError, Timing};
use crate::line::{Line, LineError, LinePlace};
use crate::radio::{Impairments, Radio, RadioError};

mod application;
mod boot;
mod console;
mod control;
mod link;
mod mqtt;
mod provision;
mod uplink;

use boot::{Ended, Hardware, boot};
use console::Console;
use control::Control;
use provision::{Provisioned, provision};

pub use application::{BUSY_PAUSE_MS, Clock, DeskApplication, Load, Manners, RestManner};
pub use console::LineForm;
pub use control::ControlOptions;
pub use provision::{
    Given, KeysAtStart, Provision, ProvisionError, give, has_record, make, random_password,
};

/// A board and the desk around it.
#[derive(Debug, Clone)]
pub struct BoardOptions {
    /// The file that holds its flash; made if it is missing.
    pub flash: PathBuf,
    /// How long its flash takes.
    pub timing: Timing,
    /// Where the erases of each sector are counted, over all starts; `None`: nowhere.
    pub wear: Option<PathBuf>,
    /// Its base MAC address.
    pub id: DeviceId,
    /// What it is for.
    pub role: Role,
    /// Whether it leads its group.
    pub duty: Duty,
    /// Its chip.
    pub chip: ChipId,
    /// Its board, as artifacts name it.
    pub board: BoardName,
    /// Its hardware, for people.
    pub hardware: String,
    /// What catches a failed trial. Without [`Rollback::Bootloader`] its bootloader was built
    /// without rollback.
    pub rollback: Rollback,
    /// From reset to the firmware's first instruction.
    pub boot_ms: u32,
    /// Whether its radio takes and sends long frames, as ESP-NOW version 2 does; otherwise it does
    /// not hear them.
    pub takes_large: bool,
    /// Where its radio is when the power comes on: its access point's channel, if it has one.
    pub channel: Channel,
    /// Whether it stays there until its access point moves, or finds its lead itself.
    pub channels: ChannelPlan,
    /// The secret of its group; `None`: it waits for adoption.
    pub group_key: Option<GroupKey>,
    /// The folder of devices that hear each other.
    pub air: PathBuf,
    /// How bad its radio is.
    pub impairments: Impairments,
    /// Where its line goes, behind which other devices are; `None`: it has none.
    pub line: Option<LinePlace>,
    /// Where its API is served; port 0 is any that is free. The address is written beside the
    /// flash file, see [`address_file`].
    pub http: SocketAddr,
    /// Who is told what happens on it; `None`: nobody.
    pub broker: Option<Broker>,
    /// The fleet's server that its lead comes to; `None`: the one that it knows, if any.
    pub server: Option<ServerAtStart>,
    /// How it compares its version with its peers'.
    pub rule: Rule,
    /// How its application gets on with it.
    pub manners: Manners,
    /// What it is given when it is new.
    pub provision: Provision,
    /// It serves its set-up page until it was set up, with networks that are made up.
    pub first_start: bool,
    /// How its console looks.
    pub lines: LineForm,
    /// What its standard input is good for.
    pub control: ControlOptions,
}

/// Where a board on this flash file writes the address of its API: `FLASH.http`.
pub fn address_file(flash: &Path) -> PathBuf {
    let mut name = flash.as_os_str().to_owned();
    name.push(".http");
    name.into()
}

/// Runs a board until it is switched off, or cannot go on.
///
/// Blocks the thread. The process being killed is a power cut: nothing is lost that was durable.
pub fn run(options: &BoardOptions) -> Result<(), BoardError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(BoardError::Runtime)?;
    let tasks = tokio::task::LocalSet::new();
    runtime.block_on(tasks.run_until(power_on(options)))
}

async fn power_on(options: &BoardOptions) -> Result<(), BoardError> {
    let mut flash = FileFlash::open(&options.flash, CAPACITY_DEFAULT_BYTES, Timing::None)
        .map_err(BoardError::Open)?;
    if let Some(path) = &options.wear {
        flash
            .count_wear_in(path)
            .map_err(|source| BoardError::Wear { path: path.clone(), source })?;
    }
    let provisioned = provision(&options.provision, options.first_start, options.chip, &mut flash)
        .map_err(BoardError::Provision)?;
    flash.set_timing(options.timing);
    let radio = Radio::join(&options.air, options.id, options.impairments)?;
    radio.tune(options.channel);
    let open = |place| Line::open(place, &options.air, options.id, options.channel);
    let line = options.line.as_ref().map(open).transpose().map_err(BoardError::Line)?;
    let (listener, address) = listen(options.http)?;
    let file = address_file(&options.flash);
    std::fs::write(&file, format!("{address}\n"))
        .map_err(|source| BoardError::AddressFile { path: file, source })?;
    let console = Console::new(options.lines, options.role.as_str());
    say_power_on(options, address, &provisioned, &console);
    let mut hardware = Hardware {
        options,
        flash: Rc::new(RefCell::new(flash)),
        radio: Rc::new(radio),
        line,
        last_good: None,
        first_start: options.first_start,
        listener,
        control: Control::listen(options.control),
        console,
    };
    let mut reset = ResetReason::PowerOn;
    loop {
        match boot(&mut hardware, reset).await? {
            Ended::Reset(reason) => reset = reason,
            Ended::Off => return Ok(()),
        }
    }
}

fn listen(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), BoardError> {
    let bind = || {
        let socket = match wanted {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A board that was killed is started again at the same port.
        socket.set_reuseaddr(true)?;
        // Else the host takes a whole bundle before the board has looked at its first byte.
        socket.set_recv_buffer_size(TCP_RECEIVE_BYTES)?;
        socket.bind(wanted)?;
        let listener = socket.listen(CONNECTIONS_WAITING_MAX)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|source| BoardError::Listen { address: wanted, source })
}

fn say_power_on(
    options: &BoardOptions,
    address: SocketAddr,
    provisioned: &Provisioned,
    console: &Console,
) {
    let (id, hardware, chip) = (options.id, &options.hardware, options.chip);
    let duty = match options.duty {
        Duty::Lead => "lead",
        Duty::Member => "member",
    };
    let text = format!("power on: {hardware} ({chip}), {id}, {duty}, http://{address}/");
    let facts =
        json!({ "address": address.to_string(), "id": id.to_string(), "lead": duty == "lead" });
    console.say(Level::Notice, "power-on", &text, facts);
    if let Provisioned::Made { password: Some(password) } = provisioned {
        let text = format!("password of this new device, shown only now: {password}");
        console.say(Level::Notice, "password", &text, json!({ "password": password }));
    }
}

/// What a board has received and not looked at, at most; a host doubles it for its own books.
const TCP_RECEIVE_BYTES: u32 = 16 * 1024;
/// Connections that wait while a board is busy.
const CONNECTIONS_WAITING_MAX: u32 = 16;

/// Random bytes of the host, fit for secrets.
fn random(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(bytes)
}

/// A new secret for a group.
pub fn new_group_key() -> Result<GroupKey, BoardError> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(GroupKey::new(bytes))
}

/// Why a board does not run, or not any more.
#[derive(Debug)]
pub enum BoardError {
    /// Its flash cannot be opened.
    Open(OpenError),
    /// It could not be made.
    Provision(ProvisionError),
    /// It has no radio.
    Radio(RadioError),
    /// It has no line.
    Line(LineError),
    /// Its API cannot be served.
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the host says.
        source: io::Error,
    },
    /// The address of its API could not be written down.
    AddressFile {
        /// Where.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// The erases of its flash cannot be counted.
    Wear {
        /// Where.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Nothing boots.
    Bootloader(BootFailure<FlashError>),
    /// It booted from a slot that the node does not know.
    Slot {
        /// From which.
        found: BootSlot,
    },
    /// Its image orders a fault that is not known.
    Behaviour(UnknownBehaviour),
    /// The node does not start.
    Node(NodeError),
    /// Its flash failed.
    Flash(FlashError),
    /// The host gives no random numbers.
    Random(getrandom::Error),
    /// The host gives no executor.
    Runtime(io::Error),
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("could not open the flash of the board"),
            Self::Provision(_) => f.write_str("could not make the board"),
            Self::Radio(_) => f.write_str("board has no radio"),
            Self::Line(_) => f.write_str("board has no line"),
            Self::Listen { address, .. } => write!(f, "could not serve the API at `{address}`"),
            Self::AddressFile { path, .. } => {
                write!(f, "could not write the address of the API to `{}`", path.display())
            }
            Self::Wear { path, .. } => {
                write!(f, "could not count the erases of the flash in `{}`", path.display())
            }
            Self::Bootloader(_) => f.write_str("board does not boot"),
            Self::Slot { found } => {
                write!(f, "board booted from `{found}`; a node runs in `ota_0` or `ota_1`")
            }
            Self::Behaviour(_) => f.write_str("board cannot play what its image orders"),
            Self::Node(_) => f.write_str("firmware of the board does not start"),
            Self::Flash(_) => f.write_str("flash of the board failed"),
            Self::Random(_) => f.write_str("host gives no random numbers"),
            Self::Runtime(_) => f.write_str("host gives no executor"),
        }
    }
}

impl std::error::Error for BoardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) => Some(error),
            Self::Provision(error) => Some(error),
            Self::Radio(error) => Some(error),
            Self::Line(error) => Some(error),
            Self::Listen { source, .. }
            | Self::AddressFile { source, .. }
            | Self::Wear { source, .. } => Some(source),
            Self::Bootloader(error) => Some(error),
            Self::Slot { .. } => None,
            Self::Behaviour(error) => Some(error),
            Self::Node(error) => Some(error),
            Self::Flash(error) => Some(error),
            Self::Random(error) => Some(error),
            Self::Runtime(error) => Some(error),
        }
    }
}

impl From<RadioError> for BoardError {
    fn from(error: RadioError) -> Self {
        Self::Radio(error)
    }
}

impl From<FlashError> for BoardError {
    fn from(error: FlashError) -> Self {
        Self::Flash(error)
    }
}

impl From<getrandom::Error> for BoardError {
    fn from(error: getrandom::Error) -> Self {
        Self::Random(error)
    }
}
