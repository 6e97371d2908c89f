//! The running node, as the main loop and everything beside it share it.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::Timer;
use esp_storage::FlashStorage;
use lockstep_device::Node;
use lockstep_device::channel::Channel;
#[cfg(feature = "radio")]
use lockstep_device::http::Api;
use lockstep_device::http::{FirstStart, InReach, Platform, Shell};
use lockstep_device::setup::Duty;
use lockstep_proto::time::Instant;

use crate::application::ChipApplication;
use crate::board;

/// Borrowed for one call at a time, never across a wait.
pub(crate) struct Running {
    node: RefCell<Node<ChipApplication>>,
    flash: RefCell<FlashStorage<'static>>,
    pub(crate) changed: Signal<NoopRawMutex, ()>,
    channel: Cell<Option<Channel>>,
    /// What its API's connections share.
    #[cfg(feature = "radio")]
    pub(crate) api: Api,
    /// Whether it has an address in a network.
    pub(crate) wifi_connected: Cell<bool>,
    /// Whether a broker takes its messages.
    pub(crate) mqtt_connected: Cell<bool>,
    /// It serves its set-up page.
    is_first_start: Cell<bool>,
    networks: RefCell<Vec<InReach>>,
    restart: RefCell<Option<(Instant, String)>>,
    /// Where people find it.
    #[cfg(feature = "radio")]
    found: RefCell<Option<String>>,
    /// Network, password and address of its first start.
    #[cfg(feature = "radio")]
    first_start_words: RefCell<Option<(String, String, String)>>,
}

impl Running {
    pub(crate) fn new(node: Node<ChipApplication>, flash: FlashStorage<'static>) -> Self {
        Self {
            node: RefCell::new(node),
            flash: RefCell::new(flash),
            changed: Signal::new(),
            channel: Cell::new(None),
            #[cfg(feature = "radio")]
            api: Api::new(),
            wifi_connected: Cell::new(false),
            mqtt_connected: Cell::new(false),
            is_first_start: Cell::new(false),
            networks: RefCell::new(Vec::new()),
            restart: RefCell::new(None),
            #[cfg(feature = "radio")]
            found: RefCell::new(None),
            #[cfg(feature = "radio")]
            first_start_words: RefCell::new(None),
        }
    }

    /// From here on it serves its set-up page.
    #[cfg(feature = "radio")]
    pub(crate) fn begin_first_start(&self) {
        self.is_first_start.set(true);
    }

    /// The radio is on this channel.
    #[cfg(feature = "radio")]
    pub(crate) fn set_channel(&self, channel: Option<Channel>) {
        self.channel.set(channel);
    }

    /// The radio was put on this channel for the group's sake.
    pub(crate) fn note_channel(&self, channel: Channel) {
        if !self.is_first_start.get() {
            self.channel.set(Some(channel));
        }
    }

    /// The networks that the set-up page offers.
    #[cfg(feature = "radio")]
    pub(crate) fn set_networks(&self, networks: Vec<InReach>) {
        *self.networks.borrow_mut() = networks;
    }

    /// Where people find it now.
    #[cfg(feature = "radio")]
    pub(crate) fn set_found(&self, address: Option<String>) {
        self.wifi_connected.set(address.is_some());
        *self.found.borrow_mut() = address;
    }

    /// See [`Running::set_found`].
    #[cfg(feature = "radio")]
    pub(crate) fn found(&self) -> Option<String> {
        self.found.borrow().clone()
    }

    /// What people need to set it up: network, password, address.
    #[cfg(feature = "radio")]
    pub(crate) fn set_first_start_words(&self, network: &str, password: &str, address: &str) {
        let words = (network.to_string(), password.to_string(), address.to_string());
        *self.first_start_words.borrow_mut() = Some(words);
    }

    /// See [`Running::set_first_start_words`].
    #[cfg(feature = "radio")]
    pub(crate) fn first_start_words(&self) -> Option<(String, String, String)> {
        self.first_start_words.borrow().clone()
    }

    /// The chip starts again, as soon as what is being said has gone out.
    pub(crate) fn restart_for(&self, reason: &str) {
        let at = Self::now() + RESTART_WAIT_MS;
        self.restart.borrow_mut().get_or_insert((at, reason.to_string()));
        self.wake();
    }

    /// When the chip starts again, and why, if it is to.
    pub(crate) fn restart(&self) -> Option<(Instant, String)> {
        self.restart.borrow().clone()
    }

    /// Since the chip's reset.
    pub(crate) fn now() -> Instant {
        Instant::from_ms(esp_hal::time::Instant::now().duration_since_epoch().as_millis())
    }
}

impl Shell for Running {
    type App = ChipApplication;
    type Flash = FlashStorage<'static>;

    fn with<T>(
        &self,
        act: impl FnOnce(Instant, &mut Node<ChipApplication>, &mut FlashStorage<'static>) -> T,
    ) -> T {
        act(Self::now(), &mut self.node.borrow_mut(), &mut self.flash.borrow_mut())
    }

    fn wake(&self) {
        self.changed.signal(());
    }

    async fn sleep_ms(&self, ms: u64) {
        Timer::after_millis(ms).await;
    }

    fn platform(&self) -> Platform {
        Platform {
            cpu_freq_mhz: board::CPU_MHZ,
            wifi_connected: self.wifi_connected.get(),
            mqtt_connected: self.mqtt_connected.get(),
            channel: self.channel.get(),
        }
    }

    fn first_start(&self) -> Option<FirstStart> {
        self.is_first_start.get().then(|| FirstStart {
            networks: self.networks.borrow().clone(),
            leads: self.with(|_, node, _| node.setup().duty == Duty::Lead),
            is_wired: board::IS_WIRED,
        })
    }

    fn restart_soon(&self) {
        self.restart_for("to do as it was told");
    }
}

/// Longer than a slow phone takes an answer.
const RESTART_WAIT_MS: u64 = 1_500;
