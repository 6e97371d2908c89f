//! The running node, as the main loop and everything beside it share it.

use core::cell::{Cell, RefCell};

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::Timer;
use esp_storage::FlashStorage;
use lockstep_device::Node;
use lockstep_device::channel::Channel;
use lockstep_device::http::{Platform, Shell};
use lockstep_proto::time::Instant;

use crate::application::ChipApplication;
use crate::board;

/// Borrowed for one call at a time, never across a wait.
pub(crate) struct Running {
    node: RefCell<Node<ChipApplication>>,
    flash: RefCell<FlashStorage<'static>>,
    pub(crate) changed: Signal<NoopRawMutex, ()>,
    pub(crate) channel: Cell<Option<Channel>>,
}

impl Running {
    pub(crate) fn new(node: Node<ChipApplication>, flash: FlashStorage<'static>) -> Self {
        Self {
            node: RefCell::new(node),
            flash: RefCell::new(flash),
            changed: Signal::new(),
            channel: Cell::new(None),
        }
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
            wifi_connected: false,
            mqtt_connected: false,
            channel: self.channel.get(),
        }
    }
}
