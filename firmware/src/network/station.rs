//! The network that a board joins, and joins again.

use alloc::format;
use alloc::string::{String, ToString as _};

use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::{Config, DhcpConfig, Stack};
use embassy_time::{Duration, Timer, with_timeout};
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{
    AuthenticationMethodConfig, Config as RadioConfig, ConnectionError, WifiController, WifiError,
};
use lockstep_device::channel::Channel;
use lockstep_device::journal::Level;

use super::say;
use crate::running::Running;

/// Tells the radio which network.
pub(super) fn tell(
    controller: &mut WifiController<'static>,
    ssid: &str,
    password: Option<&str>,
) -> Result<(), WifiError> {
    let authentication = match password {
        Some(password) => AuthenticationMethodConfig::Wpa2Personal(password.try_into()?),
        None => AuthenticationMethodConfig::Open,
    };
    let config =
        StationConfig::default().with_ssid(ssid.try_into()?).with_authentication(authentication);
    controller.set_config(&RadioConfig::Station(config))
}

/// Its address is given to it.
pub(super) fn config(name: &str) -> Config {
    let mut dhcp = DhcpConfig::default();
    // The name has fewer letters than a network takes.
    dhcp.hostname = name.try_into().ok();
    Config::dhcpv4(dhcp)
}

/// Begins to join, and to say where the board is found.
pub(super) fn run(
    spawner: Spawner,
    controller: WifiController<'static>,
    ssid: String,
    stack: Stack<'static>,
    running: &'static Running,
) {
    if let (Ok(join), Ok(watch)) = (join(controller, ssid, running), watch(stack, running)) {
        spawner.spawn(join);
        spawner.spawn(watch);
    }
}

/// Joins for ever. Between two tries the radio stays where it is, so that the group hears the board
/// while its access point is away.
#[embassy_executor::task]
async fn join(
    mut controller: WifiController<'static>,
    ssid: String,
    running: &'static Running,
) -> ! {
    let mut pause = PAUSE_MIN;
    let mut said = String::new();
    loop {
        let channel = controller.channel().map_or(0, |(channel, _)| channel);
        let trouble = match with_timeout(JOIN_LIMIT, controller.connect_async()).await {
            Ok(Ok(joined)) => {
                pause = PAUSE_MIN;
                said.clear();
                let text = format!("joined `{ssid}` on channel {}", joined.channel);
                say(running, Level::Notice, text);
                until_left(&controller, running).await
            }
            Ok(Err(ConnectionError::Failed(left))) => format!("{:?}", left.reason),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nobody answers".to_string(),
        };
        // Once for each kind of trouble: a router that is down for a week is one line.
        if said != trouble {
            say(running, Level::Warning, format!("not in `{ssid}`: {trouble}"));
            said = trouble;
        }
        // A try leaves the radio wherever it has looked last.
        running.set_channel(Channel::new(channel));
        if let Some(channel) = Channel::new(channel) {
            let none = esp_radio::wifi::SecondaryChannel::None;
            let _ = controller.set_channel(channel.number(), none);
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// While it is in the network: the access point may take it along to another channel.
async fn until_left(controller: &WifiController<'static>, running: &'static Running) -> String {
    loop {
        let channel = controller.channel().ok().and_then(|(channel, _)| Channel::new(channel));
        running.set_channel(channel);
        match select(controller.wait_for_disconnect_async(), Timer::after(LOOK_EVERY)).await {
            Either::First(Ok(left)) => return format!("{:?}", left.reason),
            Either::First(Err(_)) => return "left".to_string(),
            Either::Second(()) => (),
        }
    }
}

/// Says the board's address whenever it is given one.
#[embassy_executor::task]
pub(super) async fn watch(stack: Stack<'static>, running: &'static Running) -> ! {
    loop {
        stack.wait_config_up().await;
        if let Some(config) = stack.config_v4() {
            let address = format!("http://{}/ota", config.address.address());
            say(running, Level::Notice, format!("is found at {address}"));
            running.set_found(Some(address));
        }
        stack.wait_config_down().await;
        running.set_found(None);
    }
}

/// Longer than a look at all channels, and a slow access point.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
/// A try takes the radio off its channel for some seconds: the group comes first.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);
