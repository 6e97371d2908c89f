//! ESP-NOW on a desk: frames of at most 1,470 bytes to one device or to all, as UDP on loopback.
//!
//! Devices that share a folder, the *air*, hear each other. As over a real radio nothing is
//! promised to arrive, and [`Impairments`] make it as bad as ordered, the same way for the same
//! seed. Nothing is queued for a device that is not there, and nothing is heard that was sent on
//! another channel than the radio is on.
//!
//! ```text
//! AIR/24a160000001.addr   127.0.0.1:40001      who is there, and where; one file per device
//! datagram                air u32 | channel u8 | source 6 | destination 6 | payload 0..=1470
//! ```
//!
//! # Not here
//!
//! What the frames say, who may say it, and the air's time: see `lockstep_proto::frame`, the
//! gate, and the channel model.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use lockstep_device::channel::Channel;
use lockstep_proto::id::DeviceId;

mod impair;

pub use impair::{DELAY_MAX_MS, Impairments, ParseImpairmentsError};
use impair::{Fate, Link};

/// The most an ESP-NOW v2 frame carries.
pub const PAYLOAD_BYTES_MAX: usize = 1470;
/// Frames that wait to leave late; more are refused, as a chip does without free buffers.
pub const WAITING_FRAMES_MAX: usize = 256;
/// Devices on one air; those with higher addresses are not heard of.
pub const PEERS_MAX: usize = 64;
/// How old the view of who is there may get.
pub const PEERS_REFRESH: Duration = Duration::from_millis(500);
/// A frame that is to be overtaken leaves after this time even if no other follows.
pub const OVERTAKE_LIMIT: Duration = Duration::from_millis(20);

const HEADER_BYTES: usize = 4 + 1 + 6 + 6;
/// One byte more than the longest frame, so that a longer one shows.
const DATAGRAM_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX + 1;

/// A frame that arrived; its payload is at the start of the buffer that was passed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Who says that it sent it. Nothing here proves it.
    pub source: DeviceId,
    /// This device or [`DeviceId::BROADCAST`].
    pub destination: DeviceId,
    /// Bytes of payload.
    pub length_bytes: usize,
}

/// What a radio has done since it joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RadioCounters {
    /// Frames taken for sending, a broadcast once.
    pub sent: u64,
    /// Frames that were handed out.
    pub received: u64,
    /// Frames lost to order, for each receiver.
    pub dropped_by_loss: u64,
    /// Frames sent twice to order, for each receiver.
    pub duplicated: u64,
    /// Frames held back to be overtaken, for each receiver.
    pub overtaken: u64,
    /// Frames not sent or not heard because the radio was ordered down.
    pub dropped_while_down: u64,
    /// Frames not heard because the radio was ordered deaf.
    pub dropped_while_deaf: u64,
    /// Frames that were sent on another channel.
    pub off_channel: u64,
    /// Frames to a device that is not on the air.
    pub nobody_there: u64,
    /// Datagrams of another air, for another device, or no frames at all.
    pub strange: u64,
    /// Datagrams that the host did not send or receive.
    pub failed_on_host: u64,
}

/// Why a frame was not taken. (That it was taken does not mean that it arrives.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Longer than a frame can be.
    PayloadTooLong {
        /// Its length.
        found_bytes: usize,
    },
    /// Too many frames wait already: send again later.
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PayloadTooLong { found_bytes } => write!(
                f,
                "frame payload has {found_bytes} bytes; a frame carries at most {PAYLOAD_BYTES_MAX}"
            ),
            Self::QueueFull { waiting } => write!(
                f,
                "radio has {waiting} frames waiting; it holds at most {WAITING_FRAMES_MAX}"
            ),
        }
    }
}

impl std::error::Error for SendError {}

/// Why a device has no radio.
#[derive(Debug)]
pub struct RadioError {
    /// What was tried, after "could not".
    pub action: &'static str,
    /// The air.
    pub air: PathBuf,
    /// What the host says.
    pub source: io::Error,
}

impl fmt::Display for RadioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} of air `{}`", self.action, self.air.display())
    }
}

impl std::error::Error for RadioError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// One device's radio. All methods take `&self`: one task may wait in [`Radio::recv`] while
/// another sends.
#[derive(Debug)]
pub struct Radio {
    id: DeviceId,
    air: PathBuf,
    air_tag: u32,
    address: SocketAddr,
    socket: UdpSocket,
    /// The same socket for the executor, made by the first [`Radio::recv`].
    waiting_socket: OnceLock<tokio::net::UdpSocket>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    channel: Channel,
    impairments: Impairments,
    links: HashMap<DeviceId, Link>,
    peers: Vec<(DeviceId, SocketAddr)>,
    peers_read_at: Option<Instant>,
    /// By the time at which they leave, then in the order in which they were sent.
    waiting: BTreeMap<(Instant, u64), Waiting>,
    sequence: u64,
    counters: RadioCounters,
}

#[derive(Debug)]
struct Waiting {
    to: DeviceId,
    address: SocketAddr,
    datagram: Vec<u8>,
    /// Leaves with the next frame to the same receiver at the latest.
    overtaken: bool,
}

impl Radio {
    /// Joins the air in the folder `air`, which is made if need be. A device that joins again,
    /// after a power cut, is found at its new address within [`PEERS_REFRESH`].
    pub fn join(air: &Path, id: DeviceId, impairments: Impairments) -> Result<Self, RadioError> {
        let error = |action| move |source| RadioError { action, air: air.to_owned(), source };
        fs::create_dir_all(air).map_err(error("make the folder"))?;
        let air = &fs::canonicalize(air).map_err(error("find the folder"))?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(error("open a socket for a device"))?;
        socket.set_nonblocking(true).map_err(error("set up the socket for a device"))?;
        let address = socket.local_addr().map_err(error("set up the socket for a device"))?;

        // Written aside and renamed, so that nobody reads half an address.
        let entry = entry_path(air, id);
        let aside = entry.with_extension(format!("{}.new", address.port()));
        fs::write(&aside, format!("{address}\n")).map_err(error("write the entry for a device"))?;
        fs::rename(&aside, &entry).map_err(error("write the entry for a device"))?;

        let state = State {
            channel: Channel::FIRST,
            impairments,
            links: HashMap::new(),
            peers: Vec::new(),
            peers_read_at: None,
            waiting: BTreeMap::new(),
            sequence: 0,
            counters: RadioCounters::default(),
        };
        Ok(Self {
            id,
            air: air.clone(),
            air_tag: air_tag(air),
            address,
            socket,
            waiting_socket: OnceLock::new(),
            state: Mutex::new(state),
        })
    }

    /// Whose radio this is.
    pub const fn id(&self) -> DeviceId {
        self.id
    }

    /// Makes the radio as bad as ordered from here on; the generators start anew. Frames that
    /// wait keep their time.
    pub fn impair(&self, impairments: Impairments) {
        let mut state = self.state();
        state.impairments = impairments;
        state.links.clear();
    }

    /// Goes to a channel: from here on it sends and hears there only.
    pub fn tune(&self, channel: Channel) {
        self.state().channel = channel;
    }

    /// Where it is.
    pub fn channel(&self) -> Channel {
        self.state().channel
    }

    /// How bad the radio is by order.
    pub fn impairments(&self) -> Impairments {
        self.state().impairments
    }

    /// What happened so far.
    pub fn counters(&self) -> RadioCounters {
        self.state().counters
    }

    /// When [`Radio::send_waiting`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.state().waiting.keys().next().map(|&(due, _)| due)
    }

    /// Sends a frame to one device, or to all on the air with [`DeviceId::BROADCAST`].
    pub fn try_send(&self, destination: DeviceId, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(SendError::PayloadTooLong { found_bytes: payload.len() });
        }
        let now = Instant::now();
        let mut state = self.state();
        let waiting = state.waiting.len();
        if waiting >= WAITING_FRAMES_MAX {
            return Err(SendError::QueueFull { waiting });
        }
        state.counters.sent += 1;
        if state.impairments.down {
            state.counters.dropped_while_down += 1;
            return Ok(());
        }
        state.refresh_peers(now, &self.air, self.id);
        let targets: Vec<_> = state
            .peers
            .iter()
            .filter(|(id, _)| destination == DeviceId::BROADCAST || destination == *id)
            .copied()
            .collect();
        if targets.is_empty() {
            state.counters.nobody_there += 1;
        }
        let datagram = self.datagram(state.channel, destination, payload);
        for target in targets {
            state.send_impaired(now, self.id, target, &datagram);
        }
        state.send_due(now, &self.socket);
        Ok(())
    }

    /// Sends what was held back and is due. Every other call does this too; only a device that
    /// neither sends nor listens for a while needs to.
    pub fn send_waiting(&self) {
        self.state().send_due(Instant::now(), &self.socket);
    }

    /// The next frame for this device, if one is there.
    pub fn try_recv(&self, payload: &mut [u8; PAYLOAD_BYTES_MAX]) -> Option<Received> {
        self.receive(payload, |datagram| self.socket.recv_from(datagram)).ok()
    }

    /// Waits for the next frame for this device. Nothing is lost if the future is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with `net` and `time` enabled.
    pub async fn recv(
        &self,
        payload: &mut [u8; PAYLOAD_BYTES_MAX],
    ) -> Result<Received, RadioError> {
        /// Whoever sends from another task does not wake us, and an order may come meanwhile.
        const LOOK_AGAIN_WHILE_HOLDING: Duration = Duration::from_millis(2);
        const LOOK_AGAIN: Duration = Duration::from_millis(250);

        let error =
            |source| RadioError { action: "wait for a frame", air: self.air.clone(), source };
        let socket = self.waiting_socket().map_err(error)?;
        loop {
            match self.receive(payload, |datagram| socket.try_recv_from(datagram)) {
                Ok(received) => return Ok(received),
                Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => (),
                Err(failure) => return Err(error(failure)),
            }
            let look_again = if self.impairments().hold_frames_back() {
                LOOK_AGAIN_WHILE_HOLDING
            } else {
                LOOK_AGAIN
            };
            let wait = self.next_due().map_or(look_again, |due| {
                due.saturating_duration_since(Instant::now()).min(look_again)
            });
            tokio::select! {
                ready = socket.readable() => ready.map_err(error)?,
                () = tokio::time::sleep(wait) => (),
            }
        }
    }

    /// Reads datagrams until one is a frame for this device; `WouldBlock` when none is left.
    fn receive(
        &self,
        payload: &mut [u8; PAYLOAD_BYTES_MAX],
        read: impl Fn(&mut [u8]) -> io::Result<(usize, SocketAddr)>,
    ) -> io::Result<Received> {
        let mut state = self.state();
        state.send_due(Instant::now(), &self.socket);
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        loop {
            let length = match read(&mut datagram) {
                Ok((length, _)) => length,
                Err(failure) => {
                    let failed = failure.kind() != io::ErrorKind::WouldBlock;
                    state.counters.failed_on_host += u64::from(failed);
                    return Err(failure);
                }
            };
            let frame = datagram.get(..length).and_then(|bytes| self.frame_for_us(bytes));
            let State { channel, counters, impairments, .. } = &mut *state;
            match frame {
                None => counters.strange += 1,
                Some((sent_on, ..)) if sent_on != channel.number() => counters.off_channel += 1,
                Some(_) if impairments.down => counters.dropped_while_down += 1,
                Some(_) if impairments.deaf => counters.dropped_while_deaf += 1,
                Some((_, received, bytes)) => {
                    payload.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                    counters.received += 1;
                    return Ok(received);
                }
            }
        }
    }

    /// The channel it was sent on, from whom, and what.
    fn frame_for_us<'a>(&self, datagram: &'a [u8]) -> Option<(u8, Received, &'a [u8])> {
        let (tag, rest) = datagram.split_first_chunk()?;
        let (channel, rest) = rest.split_first()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (destination, bytes) = rest.split_first_chunk()?;
        let (source, destination) = (DeviceId(*source), DeviceId(*destination));
        let for_us = destination == self.id || destination == DeviceId::BROADCAST;
        if u32::from_le_bytes(*tag) != self.air_tag || !for_us || source == self.id {
            return None;
        }
        let received = Received { source, destination, length_bytes: bytes.len() };
        (bytes.len() <= PAYLOAD_BYTES_MAX).then_some((*channel, received, bytes))
    }

    fn datagram(&self, channel: Channel, destination: DeviceId, payload: &[u8]) -> Vec<u8> {
        let (tag, channel) = (self.air_tag.to_le_bytes(), [channel.number()]);
        [&tag[..], &channel, &self.id.0, &destination.0, payload].concat()
    }

    fn waiting_socket(&self) -> io::Result<&tokio::net::UdpSocket> {
        if let Some(socket) = self.waiting_socket.get() {
            return Ok(socket);
        }
        let socket = tokio::net::UdpSocket::from_std(self.socket.try_clone()?)?;
        Ok(self.waiting_socket.get_or_init(|| socket))
    }

    /// A thread that panicked in here left no half-made state worth fearing: go on with it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves the air, unless the device has joined again meanwhile.
impl Drop for Radio {
    fn drop(&mut self) {
        let entry = entry_path(&self.air, self.id);
        if read_entry(&entry) == Some(self.address) {
            // A stale entry is harmless: frames to it go nowhere.
            let _ = fs::remove_file(entry);
        }
    }
}

impl State {
    fn refresh_peers(&mut self, now: Instant, air: &Path, own_id: DeviceId) {
        if self.peers_read_at.is_some_and(|at| now.duration_since(at) < PEERS_REFRESH) {
            return;
        }
        self.peers_read_at = Some(now);
        // In order of their addresses: the order of a folder is no order.
        let mut peers: BTreeMap<DeviceId, SocketAddr> = BTreeMap::new();
        for entry in fs::read_dir(air).into_iter().flatten().flatten() {
            let path = entry.path();
            let found = entry_id(&path).zip(read_entry(&path));
            peers.extend(found.filter(|(id, _)| *id != own_id));
        }
        self.peers = peers.into_iter().take(PEERS_MAX).collect();
    }

    /// Puts a frame, or two of it, or none, among those that wait.
    fn send_impaired(
        &mut self,
        now: Instant,
        from: DeviceId,
        (to, address): (DeviceId, SocketAddr),
        datagram: &[u8],
    ) {
        let impairments = self.impairments;
        let link = self.links.entry(to).or_insert_with(|| Link::new(impairments.seed, from, to));
        let (delay_ms, overtaken, again_after_ms) = match link.fate(&impairments) {
            Fate::Lost => {
                self.counters.dropped_by_loss += 1;
                return;
            }
            Fate::Arrives { delay_ms, overtaken, again_after_ms } => {
                (delay_ms, overtaken, again_after_ms)
            }
        };
        let due = now + Duration::from_millis(delay_ms.into());
        let held = if overtaken { OVERTAKE_LIMIT } else { Duration::ZERO };
        self.counters.overtaken += u64::from(overtaken);
        self.wait(due + held, Waiting { to, address, datagram: datagram.to_vec(), overtaken });
        if !overtaken {
            self.release_overtaken(now, to, due);
        }
        if let Some(again_after_ms) = again_after_ms {
            self.counters.duplicated += 1;
            let due = now + Duration::from_millis(again_after_ms.into());
            let datagram = datagram.to_vec();
            self.wait(due, Waiting { to, address, datagram, overtaken: false });
        }
    }

    fn wait(&mut self, due: Instant, frame: Waiting) {
        self.sequence += 1;
        self.waiting.insert((due, self.sequence), frame);
    }

    /// A frame that leaves at `due` overtakes those that are held back for it, however late the
    /// host is with them.
    fn release_overtaken(&mut self, now: Instant, to: DeviceId, due: Instant) {
        let held = self.waiting.extract_if(.., |_, frame| frame.to == to && frame.overtaken);
        let held: Vec<_> = held.collect();
        for ((held_until, _), frame) in held {
            self.wait(due.min(held_until.max(now)), Waiting { overtaken: false, ..frame });
        }
    }

    fn send_due(&mut self, now: Instant, socket: &UdpSocket) {
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let frame = first.remove();
            if socket.send_to(&frame.datagram, frame.address).is_err() {
                self.counters.failed_on_host += 1;
            }
        }
    }
}

fn entry_path(air: &Path, id: DeviceId) -> PathBuf {
    air.join(id.to_string().replace(':', "")).with_extension("addr")
}

fn entry_id(path: &Path) -> Option<DeviceId> {
    let name = path.file_name()?.to_str()?.strip_suffix(".addr")?;
    let number = u64::from_str_radix(name, 16).ok()?;
    let [0, 0, id @ ..] = number.to_be_bytes() else { return None };
    (entry_path(Path::new(""), DeviceId(id)) == Path::new(path.file_name()?))
        .then_some(DeviceId(id))
}

/// Frames never leave the host, whatever the folder says.
fn read_entry(path: &Path) -> Option<SocketAddr> {
    let address: SocketAddr = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    address.ip().is_loopback().then_some(address)
}

/// Tells airs apart (FNV-1a of the folder's path): the port of a device that is gone may belong to
/// a device of another air by now.
fn air_tag(air: &Path) -> u32 {
    air.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811C_9DC5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests;
