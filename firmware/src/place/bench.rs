//! On a bench: the link is a UART, and there is no network.

use alloc::format;
use alloc::string::String;

use embassy_executor::Spawner;
use lockstep_device::channel::ChannelPlan;
use lockstep_device::settings::Settings;
use lockstep_device::setup::Duty;

use crate::board::Place;
use crate::chip;
use crate::link::Link;
use crate::running::Running;
use crate::start::Part;

/// Frames on the wire are short ones.
pub(crate) const TAKES_LARGE: bool = false;

/// A wire has none.
pub(crate) const fn channels(_: &Settings) -> ChannelPlan {
    ChannelPlan::Fixed
}

/// A lead takes releases over a network, which a bench has not.
pub(crate) const fn duty(_: Part, _: &Settings) -> Duty {
    Duty::Member
}

/// Begins to listen.
pub(crate) async fn begin(
    spawner: Spawner,
    place: Place,
    _settings: Settings,
    _running: &'static Running,
) -> Result<Link, String> {
    Link::start(spawner, chip::id(), place.wire, place.wire_tx, place.wire_rx)
        .map_err(|error| format!("link does not start: {error}"))
}
