//! On the air: ESP-NOW to other devices, Wi-Fi to people.

use alloc::format;
use alloc::string::String;

use embassy_executor::Spawner;
use esp_hal::interrupt::Priority;
use esp_rtos::embassy::InterruptExecutor;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::http::Shell as _;
use lockstep_device::settings::{Settings, Wifi};
use lockstep_device::setup::Duty;
use lockstep_proto::frame::control::GroupKey;
use static_cell::StaticCell;

use crate::board::{self, Place};
use crate::chip;
use crate::link::Link;
use crate::memory;
use crate::network::{self, Way};
use crate::running::Running;
use crate::start::Part;

/// The driver's ESP-NOW is version 2.
pub(crate) const TAKES_LARGE: bool = true;

/// A board without an access point is where its lead is.
pub(crate) fn channels(settings: &Settings) -> ChannelPlan {
    match settings.wifi {
        Wifi::Station { .. } | Wifi::Own { .. } if !board::IS_WIRED => ChannelPlan::Fixed,
        _ => ChannelPlan::Scan {
            first: Channel::FIRST,
            last: Channel::LAST,
            last_good: memory::last_good_channel(),
        },
    }
}

/// The one with the screen leads, unless somebody has said otherwise.
pub(crate) fn duty(part: Part, settings: &Settings) -> Duty {
    match (settings.leads, part) {
        (Some(true), _) | (None, Part::Receiver) => Duty::Lead,
        (Some(false), _) | (None, Part::Transmitter) => Duty::Member,
    }
}

/// Switches the radio on, and joins the network.
pub(crate) async fn begin(
    spawner: Spawner,
    place: Place,
    settings: Settings,
    running: &'static Running,
) -> Result<Link, String> {
    static URGENT: StaticCell<InterruptExecutor<1>> = StaticCell::new();
    let urgent = URGENT.init(InterruptExecutor::new(place.urgent_interrupt));
    let urgent = urgent.start(Priority::Priority3);
    let (duty, has_password) = running.with(|_, node, _| (node.setup().duty, node.has_password()));
    let way = Way::of(&settings, duty, has_password, memory::take_setup_wish());
    let is_first_start = way.is_first_start();
    if is_first_start {
        running.begin_first_start();
    }
    let switched = network::switch_on(place.wifi, &settings, way, running).await;
    let (radio, esp_now, interface) =
        switched.map_err(|error| format!("radio does not start: {error}"))?;
    let moves = !is_first_start || board::IS_WIRED;
    let link = Link::start(spawner, urgent, esp_now, interface, moves);
    if duty == Duty::Lead && !is_first_start {
        // Only the running radio makes bits that are fit for a key.
        let key = GroupKey::new(chip::secret());
        running.with(|now, node, flash| node.found_group(now, key, flash));
    }
    #[cfg(feature = "esp32-poe-iso")]
    network::plug_in(spawner, place.ethernet, settings.clone(), running);
    network::join(spawner, radio, settings, running);
    Ok(link)
}
