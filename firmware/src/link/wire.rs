//! The link over a UART: 115,200 baud, 8N1, packets as `lockstep_proto::line` has them.

use embassy_executor::Spawner;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::pipe::Pipe;
use embassy_time::{Duration, Timer};
use esp_hal::Async;
use esp_hal::gpio::AnyPin;
use esp_hal::peripherals::UART1;
use esp_hal::uart::{Config, ConfigError, Uart, UartRx, UartTx};
use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::id::DeviceId;
use lockstep_proto::line::{Before, LINE_BYTES_MAX, Packet, Reader};
use static_cell::StaticCell;

use super::Full;

/// A frame that has come.
pub(crate) struct Received {
    pub(crate) from: DeviceId,
    bytes: [u8; FRAME_BYTES_MAX],
    length: usize,
}

impl Received {
    /// `None` for what is longer than a frame may be.
    fn new(from: DeviceId, frame: &[u8]) -> Option<Self> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(Self { from, bytes, length: frame.len() })
    }

    pub(crate) fn frame(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// One end of a serial line.
pub(crate) struct Wire {
    id: DeviceId,
    queues: &'static Queues,
}

struct Queues {
    heard: Channel<NoopRawMutex, Received, HEARD_MAX>,
    to_say: Pipe<NoopRawMutex, TO_SAY_BYTES>,
}

impl Wire {
    /// Begins to listen.
    pub(crate) fn start(
        spawner: Spawner,
        id: DeviceId,
        uart: UART1<'static>,
        tx: AnyPin<'static>,
        rx: AnyPin<'static>,
    ) -> Result<Self, ConfigError> {
        static QUEUES: StaticCell<Queues> = StaticCell::new();
        let queues = QUEUES.init(Queues { heard: Channel::new(), to_say: Pipe::new() });
        let config = Config::default().with_baudrate(BAUD);
        let uart = Uart::new(uart, config)?.with_tx(tx).with_rx(rx).into_async();
        let (rx, tx) = uart.split();
        // There is one of each, and each is started once.
        if let (Ok(hear), Ok(say)) = (hear(rx, id, queues), say(tx, queues)) {
            spawner.spawn(hear);
            spawner.spawn(say);
        }
        Ok(Self { id, queues })
    }

    /// Waits for the next frame for this device.
    pub(crate) async fn recv(&self) -> Received {
        self.queues.heard.receive().await
    }

    /// The next one, if it is there.
    pub(crate) fn try_recv(&self) -> Option<Received> {
        self.queues.heard.try_receive().ok()
    }

    /// Sends a frame, if all of it has room.
    pub(crate) fn try_send(&self, destination: DeviceId, frame: &[u8]) -> Result<(), Full> {
        let mut buffer = [0; LINE_BYTES_MAX];
        let packet = Packet { source: self.id, destination, payload: frame };
        let idle = self.queues.to_say.len() == 0;
        let before = if idle { Before::Silence } else { Before::Packet };
        // A frame is shorter than what a packet holds.
        let length = packet.encode(before, &mut buffer).unwrap_or_default();
        if self.queues.to_say.free_capacity() < length {
            return Err(Full);
        }
        // There is room for all of it, as was just seen.
        let _ = self.queues.to_say.try_write(buffer.get(..length).unwrap_or_default());
        Ok(())
    }

    /// A wire has no channels.
    pub(crate) async fn tune(&self, _channel: lockstep_device::channel::Channel) {}
}

#[embassy_executor::task]
async fn hear(mut rx: UartRx<'static, Async>, id: DeviceId, queues: &'static Queues) -> ! {
    let mut reader = Reader::new();
    let mut bytes = [0; FRAME_BYTES_MAX];
    loop {
        let Ok(length) = rx.read_async(&mut bytes).await else {
            // What was lost, a packet lacks; the reader sees that at its end.
            Timer::after(PAUSE).await;
            continue;
        };
        let mut rest = bytes.get(..length).unwrap_or_default();
        while let Some(packet) = reader.read(&mut rest) {
            let is_for_us = packet.destination == id || packet.destination == DeviceId::BROADCAST;
            if let Some(received) = Received::new(packet.source, packet.payload)
                && is_for_us
                && packet.source != id
            {
                // A node that is behind loses frames, as from a radio.
                let _ = queues.heard.try_send(received);
            }
        }
    }
}

#[embassy_executor::task]
async fn say(mut tx: UartTx<'static, Async>, queues: &'static Queues) -> ! {
    let mut bytes = [0; 64];
    loop {
        let length = queues.to_say.read(&mut bytes).await;
        let mut rest = bytes.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            // A UART takes bytes or waits; it has no errors to give.
            let written = tx.write_async(rest).await.unwrap_or_default();
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

const BAUD: u32 = 115_200;
/// Frames that wait for the node.
const HEARD_MAX: usize = 24;
/// Three of the longest frames: 70 ms of the line. What is asked for next waits no longer.
const TO_SAY_BYTES: usize = 3 * (FRAME_BYTES_MAX + 24);
const PAUSE: Duration = Duration::from_millis(1);
