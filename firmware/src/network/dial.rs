//! The connections that a board opens itself: to its broker, to the fleet's server, to the clock.

use alloc::boxed::Box;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use embassy_executor::Spawner;
use embassy_net::dns::{DnsQueryType, Error as DnsError};
use embassy_net::tcp::client::{TcpClient, TcpClientState, TcpConnection};
use embassy_net::{IpAddress, Stack};
use embassy_time::Duration;
use embedded_nal_async::TcpConnect as _;
use lockstep_device::dial::Dial;
use lockstep_device::mqtt::{self, Broker};
use lockstep_device::settings::Settings;
use lockstep_device::uplink::{self, ServerAtStart};

use super::clock;
use crate::running::Running;

/// Makes connections in this network.
pub(super) struct Tcp {
    stack: Stack<'static>,
    client: Client,
}

type Client = TcpClient<'static, LINKS_MAX, BUFFER_BYTES, BUFFER_BYTES>;

/// Begins everything that the settings ask for.
pub(super) fn begin(
    spawner: Spawner,
    stack: Stack<'static>,
    settings: Settings,
    running: &'static Running,
) {
    let state = Box::leak(Box::new(TcpClientState::new()));
    let mut client = TcpClient::new(stack, state);
    client.set_timeout(Some(SILENCE_MAX));
    let tcp: &'static Tcp = Box::leak(Box::new(Tcp { stack, client }));
    let Settings { broker, server, time_server, .. } = settings;
    if let Some(broker) = broker
        && let Ok(task) = tell(tcp, broker, running)
    {
        spawner.spawn(task);
    }
    if let Ok(task) = ask(tcp, server, running) {
        spawner.spawn(task);
    }
    if let Some(host) = time_server
        && let Ok(task) = clock::follow(stack, host, running)
    {
        spawner.spawn(task);
    }
}

#[embassy_executor::task]
async fn tell(tcp: &'static Tcp, broker: Broker, running: &'static Running) -> ! {
    match mqtt::run(running, &tcp, &broker, &running.mqtt_connected).await {}
}

/// Without a server in the settings, the one that the record knows, if any.
#[embassy_executor::task]
async fn ask(tcp: &'static Tcp, server: Option<ServerAtStart>, running: &'static Running) {
    uplink::run(running, &tcp, &running.api, server.as_ref()).await;
}

impl Dial for &'static Tcp {
    type Link = TcpConnection<'static, LINKS_MAX, BUFFER_BYTES, BUFFER_BYTES>;
    type Error = DialError;

    async fn dial(&self, host: &str, port: u16) -> Result<Self::Link, DialError> {
        let tcp: &'static Tcp = self;
        let address = find(tcp.stack, host).await?;
        tcp.client.connect(SocketAddr::new(address, port)).await.map_err(DialError::Tcp)
    }
}

/// The address of a host, by its name if need be.
pub(super) async fn find(stack: Stack<'static>, host: &str) -> Result<IpAddr, DialError> {
    stack.wait_config_up().await;
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let found = stack.dns_query(host, DnsQueryType::A).await.map_err(DialError::Name)?;
    match found.first() {
        Some(IpAddress::Ipv4(address)) => Ok(IpAddr::V4(*address)),
        _ => Err(DialError::Unknown),
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// The name could not be looked up.
    Name(DnsError),
    /// The name has no address.
    Unknown,
    /// Nobody is there.
    Tcp(embassy_net::tcp::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "its name cannot be looked up ({error:?})"),
            Self::Unknown => f.write_str("its name has no address"),
            Self::Tcp(error) => write!(f, "no connection ({error:?})"),
        }
    }
}

/// To the broker and to the server.
const LINKS_MAX: usize = 3;
const BUFFER_BYTES: usize = 2 * 1024;
/// Longer than the server holds a question back, and than a broker is silent.
const SILENCE_MAX: Duration = Duration::from_secs(120);
