//! The link over ESP-NOW.
//!
//! ```text
//!  radio ─► its own queue of ten ─► `hear`, above everything else ─► heard ─► the main loop
//!  the main loop ─► to_say ─► `say`: adds whom it does not know, waits until the air took it
//! ```
//!
//! A change of the channel goes through the same queue as frames, so that what was said before it
//! is sent before it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use embassy_executor::{SendSpawner, Spawner};
use embassy_sync::blocking_mutex::raw::{CriticalSectionRawMutex, NoopRawMutex};
use embassy_sync::channel::Channel as Queue;
use esp_radio::esp_now::{
    EspNow, EspNowManager, EspNowReceiver, EspNowSender, EspNowWifiInterface, PeerInfo,
    ReceivedData,
};
use lockstep_device::channel::Channel;
use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;
use lockstep_proto::id::DeviceId;
use static_cell::StaticCell;

use super::Full;

/// A frame that has come.
pub(crate) struct Received {
    pub(crate) from: DeviceId,
    data: ReceivedData,
}

impl Received {
    pub(crate) fn frame(&self) -> &[u8] {
        self.data.data()
    }
}

/// This device's place on the air.
pub(crate) struct Air {
    heard: &'static Heard,
    to_say: &'static ToSay,
    moves: bool,
}

type Heard = Queue<CriticalSectionRawMutex, ReceivedData, HEARD_MAX>;
type ToSay = Queue<NoopRawMutex, Saying, TO_SAY_MAX>;

/// What is to be done next, in order.
enum Saying {
    Frame(DeviceId, Vec<u8>),
    Tune(Channel),
}

impl Air {
    /// Begins to listen. `interface` is the one that the radio runs; `moves` says whether the node
    /// chooses its channel.
    pub(crate) fn start(
        spawner: Spawner,
        urgent: SendSpawner,
        esp_now: EspNow,
        interface: EspNowWifiInterface,
        moves: bool,
    ) -> Self {
        static HEARD: Heard = Queue::new();
        static TO_SAY: StaticCell<ToSay> = StaticCell::new();
        let to_say = TO_SAY.init(Queue::new());
        let (manager, sender, receiver) = esp_now.split();
        // Frames to all go out where this device is.
        let _ = manager.modify_peer(peer(DeviceId::BROADCAST, interface));
        // There is one of each, and each is started once.
        if let (Ok(hear), Ok(say)) =
            (hear(receiver, &HEARD), say(manager, sender, interface, to_say))
        {
            urgent.spawn(hear);
            spawner.spawn(say);
        }
        Self { heard: &HEARD, to_say, moves }
    }

    /// Waits for the next frame for this device.
    pub(crate) async fn recv(&self) -> Received {
        received(self.heard.receive().await)
    }

    /// The next one, if it is there.
    pub(crate) fn try_recv(&self) -> Option<Received> {
        self.heard.try_receive().ok().map(received)
    }

    /// Hands a frame to the radio.
    pub(crate) fn try_send(&self, to: DeviceId, frame: &[u8]) -> Result<(), Full> {
        if self.to_say.is_full() {
            return Err(Full);
        }
        self.to_say.try_send(Saying::Frame(to, frame.to_vec())).map_err(|_| Full)
    }

    /// Goes to another channel once everything was sent on this one.
    pub(crate) async fn tune(&self, channel: Channel) {
        if self.moves {
            self.to_say.send(Saying::Tune(channel)).await;
        }
    }
}

const fn received(data: ReceivedData) -> Received {
    Received { from: DeviceId(data.info.src_address), data }
}

/// Empties the radio's queue at once: it holds 25 ms of a busy air, and a signature takes longer.
#[embassy_executor::task]
async fn hear(mut receiver: EspNowReceiver, heard: &'static Heard) -> ! {
    loop {
        let data = receiver.receive_async().await;
        // A node that is behind loses frames, as it would on any air.
        if data.data().len() <= LARGE_FRAME_BYTES_MAX {
            let _ = heard.try_send(data);
        }
    }
}

#[embassy_executor::task]
async fn say(
    manager: EspNowManager,
    mut sender: EspNowSender,
    interface: EspNowWifiInterface,
    to_say: &'static ToSay,
) -> ! {
    let mut known = VecDeque::new();
    loop {
        match to_say.receive().await {
            Saying::Frame(to, frame) => {
                know(&manager, interface, to, &mut known);
                // What is lost is asked for again by whoever misses it.
                let _ = sender.send_async(&to.0, &frame).await;
            }
            Saying::Tune(channel) => drop(manager.set_channel(channel.number())),
        }
    }
}

/// The radio sends to whom it knows, and knows so many at a time: the oldest makes room.
fn know(
    manager: &EspNowManager,
    interface: EspNowWifiInterface,
    to: DeviceId,
    known: &mut VecDeque<DeviceId>,
) {
    if to == DeviceId::BROADCAST || known.contains(&to) {
        return;
    }
    if known.len() >= PEERS_MAX
        && let Some(oldest) = known.pop_front()
    {
        let _ = manager.remove_peer(&oldest.0);
    }
    if manager.add_peer(peer(to, interface)).is_ok() {
        known.push_back(to);
    }
}

const fn peer(id: DeviceId, interface: EspNowWifiInterface) -> PeerInfo {
    // Frames carry their own authentication, since those to all cannot be encrypted.
    PeerInfo { interface, peer_address: id.0, lmk: None, channel: None, encrypt: false }
}

/// Frames that wait for the node: at most 35 KiB when all are large.
const HEARD_MAX: usize = 24;
/// Frames that wait for the air: so few that a node's pace is the air's.
const TO_SAY_MAX: usize = 4;
/// ESP-NOW knows 20; one of them stands for all.
const PEERS_MAX: usize = 18;
