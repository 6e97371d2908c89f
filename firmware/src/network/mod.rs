//! The way to people: a Wi-Fi network that the board joins, or one of its own.
//!
//! ```text
//!  no password, or a lead that was told no network, or somebody asked ─► FirstStart
//!  otherwise, as its settings say ─► Station │ Own │ None
//! ```
//!
//! A board with a cable uses that, and its radio for its group alone. ESP-NOW is on the channel of
//! whatever this is; without it, on the channel of the lead.

mod access_point;
mod clock;
mod dial;
#[cfg(feature = "esp32-poe-iso")]
mod ethernet;
mod serve;
mod station;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use embassy_executor::Spawner;
use embassy_net::{Runner, Stack, StackResources};
use esp_hal::peripherals::WIFI;
use esp_radio::esp_now::{EspNow, EspNowWifiInterface};
use esp_radio::wifi::{
    ControllerConfig, CountryInfo, Interface, PowerSaveMode, WifiController, WifiError,
};
use lockstep_device::http::Shell as _;
use lockstep_device::journal::Level;
use lockstep_device::settings::{Settings, Wifi};
use lockstep_device::setup::Duty;

use crate::board;
use crate::chip;
use crate::running::Running;

/// How people reach this board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// It waits to be told, in a network of its own.
    FirstStart,
    /// It joins a network.
    Station { ssid: String, password: Option<String> },
    /// It is a network of its own.
    Own { password: String },
    /// By no radio.
    None,
}

impl Way {
    /// Which one, for a board that was told this.
    pub(crate) fn of(settings: &Settings, duty: Duty, has_password: bool, is_asked: bool) -> Self {
        let is_untold = duty == Duty::Lead && settings.wifi == Wifi::Unset && !board::IS_WIRED;
        if is_asked || !has_password || is_untold {
            return Self::FirstStart;
        }
        match settings.wifi.clone() {
            Wifi::Station { ssid, password } => Self::Station { ssid, password },
            Wifi::Own { password } => Self::Own { password },
            Wifi::Unset | Wifi::Off => Self::None,
        }
    }

    pub(crate) const fn is_first_start(&self) -> bool {
        matches!(self, Self::FirstStart)
    }

    /// Which interface of the radio ESP-NOW is on.
    const fn interface(&self) -> EspNowWifiInterface {
        match self {
            Self::FirstStart if board::IS_WIRED => EspNowWifiInterface::Station,
            Self::FirstStart | Self::Own { .. } => EspNowWifiInterface::AccessPoint,
            Self::Station { .. } | Self::None => EspNowWifiInterface::Station,
        }
    }
}

/// The radio, switched on; [`join`] goes on from there.
pub(crate) struct Radio {
    controller: WifiController<'static>,
    way: Way,
}

/// Switches the radio on. Frames of other devices can be heard from here on.
pub(crate) async fn switch_on(
    wifi: WIFI<'static>,
    settings: &Settings,
    way: Way,
    running: &'static Running,
) -> Result<(Radio, EspNow, EspNowWifiInterface), WifiError> {
    let country = settings.country.unwrap_or(*WORLD);
    let config = ControllerConfig::default().with_country_info(CountryInfo::from(country));
    let mut controller = WifiController::new(wifi, config)?;
    // A radio that sleeps between the beacons of its access point does not hear other devices.
    controller.set_power_saving(PowerSaveMode::None)?;
    match &way {
        // It waits at the end of its cable.
        Way::FirstStart if board::IS_WIRED => (),
        Way::FirstStart => {
            access_point::look_around(&mut controller, running).await;
            let name = board_name(running);
            let password = chip::random_letters(FIRST_PASSWORD_LETTERS);
            let address = format!("http://{}/setup", access_point::ADDRESS);
            running.set_first_start_words(&name, &password, &address);
            let text = format!(
                "waits to be set up: join the Wi-Fi network `{name}`, password `{password}`, and \
                 open {address}"
            );
            say(running, Level::Notice, text);
            access_point::open(&mut controller, &name, &password)?;
        }
        Way::Own { password } => {
            access_point::open(&mut controller, &board_name(running), password)?;
            running.set_found(Some(format!("http://{}/ota", access_point::ADDRESS)));
        }
        Way::Station { ssid, password } => {
            station::tell(&mut controller, ssid, password.as_deref())?;
        }
        Way::None => (),
    }
    let (esp_now, interface) = (controller.esp_now(), way.interface());
    Ok((Radio { controller, way }, esp_now, interface))
}

/// Serves people over it, and goes to broker, server and clock.
pub(crate) fn join(spawner: Spawner, radio: Radio, settings: Settings, running: &'static Running) {
    let Radio { controller, way } = radio;
    let stack = match way {
        _ if board::IS_WIRED => return keep(controller),
        Way::FirstStart | Way::Own { .. } => {
            let stack = begin(spawner, Interface::access_point(), access_point::config());
            access_point::serve(spawner, stack, way.is_first_start());
            keep(controller);
            stack
        }
        Way::Station { ssid, .. } => {
            let stack = begin(spawner, Interface::station(), station::config(&board_name(running)));
            station::run(spawner, controller, ssid, stack, running);
            stack
        }
        Way::None => return keep(controller),
    };
    serve::begin(spawner, stack, running);
    dial::begin(spawner, stack, settings, running);
}

/// Serves people over the board's cable, once there is one.
#[cfg(feature = "esp32-poe-iso")]
pub(crate) fn plug_in(
    spawner: Spawner,
    parts: board::Ethernet,
    settings: Settings,
    running: &'static Running,
) {
    if let Ok(task) = ethernet::run(spawner, parts, settings, running) {
        spawner.spawn(task);
    }
}

/// The radio stays on for as long as the chip runs.
fn keep(controller: WifiController<'static>) {
    core::mem::forget(controller);
}

/// A network's stack, which runs from here on.
fn begin(spawner: Spawner, interface: Interface, config: embassy_net::Config) -> Stack<'static> {
    // There is one network in a boot.
    let resources = Box::leak(Box::new(StackResources::<SOCKETS_MAX>::new()));
    let (stack, runner) = embassy_net::new(interface, config, resources, chip::seed());
    if let Ok(task) = run(runner) {
        spawner.spawn(task);
    }
    stack
}

#[embassy_executor::task]
async fn run(mut runner: Runner<'static, Interface>) -> ! {
    runner.run().await
}

/// As it is called in a network: `lockstep-receiver-9abc`.
fn board_name(running: &Running) -> String {
    running.with(|_, node, _| {
        let setup = node.setup();
        let [.., a, b] = setup.id.0;
        format!("lockstep-{}-{a:02x}{b:02x}", setup.role.as_str())
    })
}

fn say(running: &Running, level: Level, text: String) {
    running.with(|now, node, _| node.log(now, level, text));
    running.wake();
}

/// Sockets at most: connections to people, to broker and server, DHCP, names, the clock.
const SOCKETS_MAX: usize = lockstep_device::http::CONNECTIONS_MAX + 6;
/// The channels that are allowed everywhere.
const WORLD: &[u8; 2] = b"01";
/// 50 bits, and typed once.
const FIRST_PASSWORD_LETTERS: usize = 10;
