//! A network of the board's own: for its first start, and for whoever has none.

use core::net::Ipv4Addr;

use alloc::vec::Vec;

use edge_dhcp::server::{Server, ServerOptions};
use edge_dhcp::{Options, Packet};
use embassy_executor::Spawner;
use embassy_net::udp::{PacketMetadata, UdpSocket};
use embassy_net::{Config, Ipv4Cidr, Stack, StaticConfigV4};
use esp_radio::wifi::ap::AccessPointConfig;
use esp_radio::wifi::scan::ScanConfig;
use esp_radio::wifi::{
    AuthenticationMethod, AuthenticationMethodConfig, Config as RadioConfig, WifiController,
    WifiError,
};
use lockstep_device::channel::Channel;
use lockstep_device::http::InReach;

use crate::running::Running;

/// Where the board is found in its own network.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 4, 1);

/// Which networks are in reach: the set-up page offers them. What cannot be heard can be typed.
pub(super) async fn look_around(
    controller: &mut WifiController<'static>,
    running: &'static Running,
) {
    let found = controller.scan_async(&ScanConfig::default()).await.unwrap_or_default();
    let mut networks: Vec<InReach> = Vec::new();
    let mut heard: Vec<_> = found.iter().collect();
    heard.sort_by_key(|network| core::cmp::Reverse(network.signal_strength));
    for network in heard {
        let ssid = network.ssid.as_str();
        let is_new = !ssid.is_empty() && networks.iter().all(|known| known.ssid != ssid);
        if is_new && networks.len() < NETWORKS_MAX {
            networks.push(InReach {
                ssid: ssid.into(),
                signal_dbm: network.signal_strength,
                open: matches!(network.auth_method, Some(AuthenticationMethod::None)),
            });
        }
    }
    running.set_networks(networks);
}

/// Opens it.
pub(super) fn open(
    controller: &mut WifiController<'static>,
    name: &str,
    password: &str,
) -> Result<(), WifiError> {
    let config = AccessPointConfig::default()
        .with_ssid(name.try_into()?)
        .with_channel(Channel::FIRST.number())
        .with_authentication(AuthenticationMethodConfig::Wpa2Personal(password.try_into()?))
        .with_max_connections(GUESTS_MAX);
    controller.set_config(&RadioConfig::AccessPoint(config))
}

/// The board's address in it.
pub(super) fn config() -> Config {
    Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(ADDRESS, 24),
        gateway: None,
        dns_servers: Default::default(),
    })
}

/// Gives guests their addresses, and leads them to the page if there is only that.
pub(super) fn serve(spawner: Spawner, stack: Stack<'static>, is_first_start: bool) {
    if let Ok(task) = give_addresses(stack) {
        spawner.spawn(task);
    }
    if is_first_start && let Ok(task) = answer_names(stack) {
        spawner.spawn(task);
    }
}

#[embassy_executor::task]
async fn give_addresses(stack: Stack<'static>) -> ! {
    let mut space = Space::new();
    let mut socket = space.socket(stack);
    // The port is free: this is the only one.
    let _ = socket.bind(DHCP_SERVER_PORT);
    let now = || embassy_time::Instant::now().as_secs();
    let mut server: Server<_, LEASES_MAX> = Server::new(now, ADDRESS);
    let mut request = [0; DATAGRAM_BYTES_MAX];
    let mut answer = [0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut request).await else { continue };
        let Ok(packet) = Packet::decode(request.get(..length).unwrap_or_default()) else {
            continue;
        };
        let mut gateway = [Ipv4Addr::UNSPECIFIED];
        let mut options = ServerOptions::new(ADDRESS, Some(&mut gateway));
        let names = [ADDRESS];
        options.dns = &names;
        let mut buffer = Options::buf();
        let Some(reply) = server.handle_request(&mut buffer, &options, &packet) else { continue };
        if let Ok(bytes) = reply.encode(&mut answer) {
            // Whoever asks has no address yet.
            let _ = socket.send_to(bytes, (Ipv4Addr::BROADCAST, DHCP_CLIENT_PORT)).await;
        }
    }
}

/// Every name is this board: so phones find the page by themselves.
#[embassy_executor::task]
async fn answer_names(stack: Stack<'static>) -> ! {
    let mut space = Space::new();
    let mut socket = space.socket(stack);
    let _ = socket.bind(DNS_PORT);
    let mut request = [0; DATAGRAM_BYTES_MAX];
    let mut answer = [0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut request).await else { continue };
        let request = request.get(..length).unwrap_or_default();
        let octets = ADDRESS.octets();
        if let Ok(length) = edge_captive::reply(request, &octets, NAME_LIFE, &mut answer) {
            let _ = socket.send_to(answer.get(..length).unwrap_or_default(), from).await;
        }
    }
}

/// What a socket for datagrams keeps.
struct Space {
    rx_meta: [PacketMetadata; DATAGRAMS_MAX],
    tx_meta: [PacketMetadata; DATAGRAMS_MAX],
    rx: Vec<u8>,
    tx: Vec<u8>,
}

impl Space {
    fn new() -> Self {
        Self {
            rx_meta: [PacketMetadata::EMPTY; DATAGRAMS_MAX],
            tx_meta: [PacketMetadata::EMPTY; DATAGRAMS_MAX],
            rx: alloc::vec![0; 2 * DATAGRAM_BYTES_MAX],
            tx: alloc::vec![0; 2 * DATAGRAM_BYTES_MAX],
        }
    }

    fn socket<'a>(&'a mut self, stack: Stack<'a>) -> UdpSocket<'a> {
        let Self { rx_meta, tx_meta, rx, tx } = self;
        UdpSocket::new(stack, rx_meta, rx, tx_meta, tx)
    }
}

/// Networks that the page offers.
const NETWORKS_MAX: usize = 16;
/// Phones and computers at once.
const GUESTS_MAX: u16 = 4;
/// One for each guest, and for those that were here before.
const LEASES_MAX: usize = 16;
const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;
const DNS_PORT: u16 = 53;
/// RFC 2131: what a DHCP client must take; names need less.
const DATAGRAM_BYTES_MAX: usize = 576;
const DATAGRAMS_MAX: usize = 4;
/// A phone should ask again soon once it is in another network.
const NAME_LIFE: core::time::Duration = core::time::Duration::from_secs(30);
