//! The devices behind a line, each a guest on the air with a radio of its own.
//!
//! Who speaks over the line is learned from what it says. A guest is heard on the air as if it was
//! there, and what the air says to it, or to all, goes out on the line: once for all of them, and
//! never what one of them has said.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lockstep_device::channel::Channel;
use lockstep_proto::id::DeviceId;
use lockstep_proto::line::Packet;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::outgoing::{Frame, Outgoing};
use crate::radio::{Impairments, PAYLOAD_BYTES_MAX, PEERS_MAX, Radio, Received};

/// Devices behind one line.
pub const GUESTS_MAX: usize = 8;
/// A guest that was silent for so long has gone, or has moved: its place is free. Devices announce
/// themselves every ten seconds.
pub const GUEST_SILENT: Duration = Duration::from_secs(35);
/// Who was heard on the air within this time is there, and not behind the line: what comes back
/// from a line that echoes, or around a ring of lines, is not taken.
pub const NEAR: Duration = Duration::from_secs(5);

/// What a bridge did not pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BridgeCounters {
    /// Packets that came over the line.
    pub received: u64,
    /// Packets of devices that are on the air, of this one itself, or of no device.
    pub echoed: u64,
    /// Packets of devices for which there was no place, or no radio.
    pub no_place: u64,
}

/// Both sides of a line.
#[derive(Debug)]
pub(super) struct Bridge {
    host: DeviceId,
    air: PathBuf,
    channel: Cell<Channel>,
    guests: RefCell<Vec<Guest>>,
    /// Who was heard on the air, and when.
    near: RefCell<HashMap<DeviceId, Instant>>,
    counters: Cell<BridgeCounters>,
    pub(super) outgoing: RefCell<Outgoing>,
    /// Something waits to go out.
    pub(super) offered: Notify,
}

/// A device behind the line.
#[derive(Debug)]
struct Guest {
    radio: Rc<Radio>,
    heard_at: Instant,
    /// Listens on its radio.
    ear: AbortHandle,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.ear.abort();
    }
}

impl Bridge {
    pub(super) fn new(host: DeviceId, air: PathBuf, channel: Channel, baud: Option<u32>) -> Self {
        Self {
            host,
            air,
            channel: Cell::new(channel),
            guests: RefCell::default(),
            near: RefCell::default(),
            counters: Cell::default(),
            outgoing: RefCell::new(Outgoing::new(baud)),
            offered: Notify::new(),
        }
    }

    pub(super) const fn host(&self) -> DeviceId {
        self.host
    }

    pub(super) fn counters(&self) -> BridgeCounters {
        self.counters.get()
    }

    pub(super) fn tune(&self, channel: Channel) {
        self.channel.set(channel);
        self.guests.borrow().iter().for_each(|guest| guest.radio.tune(channel));
    }

    /// Whether a frame of the device itself goes out on the line, too.
    pub(super) fn reaches(&self, destination: DeviceId) -> bool {
        destination == DeviceId::BROADCAST || self.is_guest(destination)
    }

    fn is_guest(&self, id: DeviceId) -> bool {
        self.guests.borrow().iter().any(|guest| guest.radio.id() == id)
    }

    /// A packet came over the line: its source says it on the air.
    pub(super) fn take(self: &Rc<Self>, now: Instant, packet: &Packet<'_>) {
        let Packet { source, destination, payload } = *packet;
        self.count(|counters| counters.received += 1);
        if source == self.host || !is_one_device(source) || self.is_near(now, source) {
            return self.count(|counters| counters.echoed += 1);
        }
        match self.radio_of(now, source) {
            // Its peers hear it or not, as ever: nobody holds a frame for a guest.
            Some(radio) => drop(radio.try_send(destination, payload)),
            None => self.count(|counters| counters.no_place += 1),
        }
    }

    /// A guest's radio heard something: whether it goes out on the line.
    fn hear(&self, now: Instant, guest: DeviceId, received: Received, payload: &[u8]) {
        let Received { source, destination, .. } = received;
        // The device hands its own over itself.
        if source == self.host || self.is_guest(source) {
            return;
        }
        self.note_near(now, source);
        let is_first = self.guests.borrow().first().is_some_and(|it| it.radio.id() == guest);
        if destination == DeviceId::BROADCAST && !is_first {
            return;
        }
        self.outgoing.borrow_mut().offer(Frame { source, destination, payload: payload.to_vec() });
        self.offered.notify_one();
    }

    /// The radio of the guest that has just spoken; a new guest gets one, if there is a place.
    fn radio_of(self: &Rc<Self>, now: Instant, id: DeviceId) -> Option<Rc<Radio>> {
        let mut guests = self.guests.borrow_mut();
        guests.retain(|guest| {
            guest.radio.id() == id || now.duration_since(guest.heard_at) < GUEST_SILENT
        });
        if let Some(guest) = guests.iter_mut().find(|guest| guest.radio.id() == id) {
            guest.heard_at = now;
            return Some(Rc::clone(&guest.radio));
        }
        if guests.len() >= GUESTS_MAX {
            return None;
        }
        let radio = Rc::new(Radio::join(&self.air, id, Impairments::default()).ok()?);
        radio.tune(self.channel.get());
        let (bridge, its) = (Rc::downgrade(self), Rc::clone(&radio));
        let ear = tokio::task::spawn_local(async move {
            let mut payload = [0; PAYLOAD_BYTES_MAX];
            while let Ok(received) = its.recv(&mut payload).await {
                let Some(bridge) = bridge.upgrade() else { return };
                let heard = payload.get(..received.length_bytes).unwrap_or_default();
                bridge.hear(Instant::now(), id, received, heard);
            }
        });
        guests.push(Guest { radio: Rc::clone(&radio), heard_at: now, ear: ear.abort_handle() });
        Some(radio)
    }

    fn is_near(&self, now: Instant, id: DeviceId) -> bool {
        let near = self.near.borrow();
        near.get(&id).is_some_and(|&heard_at| now.duration_since(heard_at) < NEAR)
    }

    fn note_near(&self, now: Instant, id: DeviceId) {
        let mut near = self.near.borrow_mut();
        if near.len() >= PEERS_MAX {
            near.retain(|_, heard_at| now.duration_since(*heard_at) < NEAR);
        }
        if near.len() < PEERS_MAX || near.contains_key(&id) {
            near.insert(id, now);
        }
    }

    fn count(&self, count: impl FnOnce(&mut BridgeCounters)) {
        let mut counters = self.counters.get();
        count(&mut counters);
        self.counters.set(counters);
    }
}

/// The lowest bit of the first byte says "to many".
const fn is_one_device(id: DeviceId) -> bool {
    id.0[0] & 1 == 0
}
