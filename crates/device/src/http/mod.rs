//! A device's HTTP API: the same on a chip and on a desk, over any socket that picoserve can serve.
//!
//! Reads are open on the local network. Writes need the device's password, come from no other
//! site's page, and fail closed. One request per connection; an upload may take one connection and
//! event streams two of [`CONNECTIONS_MAX`], so that an abort always finds a free one.
//!
//! ```text
//! socket ─► connection ─► routes ─┬─ gate: cross-origin, password, lengths
//!  100-continue,                  ├─ views: node ─► JSON
//!  lingering close                ├─ rollout: upload, abort, revert
//!                                 ├─ schedule: when it goes on
//!                                 ├─ config: the application's own
//!                                 ├─ group: who belongs to it
//!                                 ├─ server: what a fleet's server offers
//!                                 ├─ first_start: a board is told its networks
//!                                 ├─ page: /ota, for browsers
//!                                 └─ events: server-sent events
//! ```
//!
//! # Not here
//!
//! Executors, listening, TLS. What a rollout does with an upload: [`Node`].

pub(crate) mod answer;
mod bare;
mod body;
mod config;
mod connection;
mod events;
mod first_start;
pub(crate) mod gate;
pub(crate) mod group;
mod page;
mod password;
pub(crate) mod rollout;
mod routes;
mod schedule;
mod server;
pub(crate) mod views;

use alloc::rc::Rc;
use core::cell::Cell;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::time::Instant;
use picoserve::io::Socket;
use picoserve::time::{Duration, Timer};
use picoserve::{Config, Router, Server, Timeouts};

use crate::channel::Channel;
use crate::node::Node;
use crate::setup::Application;
use crate::uplink::Uplink;
use connection::{Connection, Control};
use routes::Routes;

pub use first_start::{FirstStart, InReach};

/// How the API reaches its device: implemented by whatever runs the node's loop.
pub trait Shell {
    /// The application beside the node.
    type App: Application;
    /// The whole chip's flash.
    type Flash: NorFlash;

    /// Runs `act` on the device, now. Never called from within itself.
    fn with<T>(&self, act: impl FnOnce(Instant, &mut Node<Self::App>, &mut Self::Flash) -> T) -> T;

    /// The main loop should drain frames and actions now.
    fn wake(&self);

    /// Waits `ms` milliseconds of real time.
    fn sleep_ms(&self, ms: u64) -> impl Future<Output = ()>;

    /// What only the board knows.
    fn platform(&self) -> Platform;

    /// What a board that is being set up knows of its place; `None`: it is not.
    fn first_start(&self) -> Option<FirstStart> {
        None
    }

    /// The device starts anew once the present answer had time to go out.
    fn restart_soon(&self) {}
}

/// What only the board knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Platform {
    /// Clock of the processor, in MHz.
    pub cpu_freq_mhz: u32,
    /// Whether it has an address in the local network.
    pub wifi_connected: bool,
    /// Whether a broker takes its messages.
    pub mqtt_connected: bool,
    /// The channel that its radio is on; `None`: it has none.
    pub channel: Option<Channel>,
}

/// What all connections of one device share: who uploads, how many streams there are, how many
/// wrong passwords came in a row. One per device.
#[derive(Debug, Default)]
pub struct Api {
    streams: Cell<usize>,
    pub(crate) upload: rollout::Turn,
    passwords: gate::WrongPasswords,
    pub(crate) uplink: Uplink,
}

impl Api {
    /// Nobody is connected.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Serves one connection until it ends, with `buffer` for the head of its request, best of
/// [`HTTP_BUFFER_BYTES`]. What goes wrong on a connection is of no interest to any other.
pub async fn serve<Runtime, H: Shell, S: Socket<Runtime>>(
    shell: &H,
    api: &Api,
    socket: S,
    buffer: &mut [u8],
) {
    let control = Rc::new(Control::default());
    let router = Router::from_service(Routes { shell, api, control: &control });
    let config = Config::new(Timeouts {
        start_read_request: Duration::from_millis(HEAD_LIMIT_MS),
        persistent_start_read_request: Duration::from_millis(HEAD_LIMIT_MS),
        read_request: Duration::from_millis(HEAD_LIMIT_MS),
        write: Duration::from_millis(WRITE_LIMIT_MS),
    });
    let server = Server::custom(&router, ShellTimer(shell), &config, buffer);
    // A client that went away, or never spoke HTTP, is its own affair.
    let _ended = server.serve(Connection::new(socket, Rc::clone(&control))).await;
}

/// The shell's clock, as picoserve wants it.
struct ShellTimer<'a, H>(&'a H);

impl<Runtime, H: Shell> Timer<Runtime> for ShellTimer<'_, H> {
    fn delay(&self, duration: Duration) -> impl Future<Output = ()> {
        self.0.sleep_ms(duration.as_millis())
    }
}

/// What `work` comes to within `ms`; `None` if it takes longer.
pub(crate) async fn within<H: Shell, T>(
    shell: &H,
    ms: u64,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let mut limit = pin!(shell.sleep_ms(ms));
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => limit.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// Connections served at once, at most. One upload and [`STREAMS_MAX`] streams leave three for
/// short requests, an abort among them.
pub const CONNECTIONS_MAX: usize = 6;
/// Bytes of the buffer for a request's head: longer heads are refused.
pub const HTTP_BUFFER_BYTES: usize = 4096;
/// Event streams served at once, at most.
pub const STREAMS_MAX: usize = 2;
/// Largest bundle in bytes: two images for the largest chips fit many times.
pub const BUNDLE_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// A request's head must have come by then, in milliseconds.
const HEAD_LIMIT_MS: u64 = 5_000;
/// A client that takes nothing for so long is gone, in milliseconds.
const WRITE_LIMIT_MS: u64 = 5_000;
