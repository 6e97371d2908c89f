//! A line of a device: a serial port, or what stands for one, behind which other devices are.
//!
//! ```text
//!   air ◄─── radio of guest A ◄──┐                    ┌── packets ── board A
//!       ◄─── radio of guest B ◄──┤ bridge ◄── line ◄──┤
//!       ───► both ──────────────►┘        ──► queue ──►
//!   device ─────────────────────► queue, at the pace of the line
//! ```
//!
//! A line is part of the desk, as the air is: it goes on while its device restarts. Its port may go
//! away and come back at any time; meanwhile whoever is behind it is out of reach, that is all.
//! Bytes on the line: `lockstep_proto::line`.
//!
//! # Not here
//!
//! A line between two devices of two airs makes one group of them. What goes around in a ring of
//! lines is stopped, and nothing is done to find the best way.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lockstep_device::channel::Channel;
use lockstep_device::journal::Level;
use lockstep_proto::id::DeviceId;
use lockstep_proto::line::{Reader, Strays};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::AbortHandle;

mod guests;
mod outgoing;
mod place;
mod port;

pub use guests::{BridgeCounters, GUEST_SILENT, GUESTS_MAX, NEAR};
pub use outgoing::{AHEAD, NoRoom, OTHERS_BYTES_MAX, OWN_FRAMES_MAX, OWN_TURN};
pub use place::{LineEnd, LinePlace, ParseLinePlaceError, SERIAL_BAUD};
pub use port::serial_ports;

use guests::Bridge;
use outgoing::{Frame, Next};
use port::Port;

/// A port that does not open is tried again after this time, then after twice of it, and so on.
pub const AGAIN_FIRST: Duration = Duration::from_millis(250);
/// It is never waited for longer than this.
pub const AGAIN_MAX: Duration = Duration::from_secs(4);
/// An end that takes nothing for so long is not there: whoever waits for it would wait for ever.
pub const STALLED: Duration = Duration::from_secs(3);

/// Something about the line has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// How much it matters.
    pub level: Level,
    /// What, with a way out.
    pub text: String,
}

/// What a line has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineCounters {
    /// Frames that went out.
    pub sent: u64,
    /// Frames of others on the air that found no room.
    pub dropped: u64,
    /// What came.
    pub bridge: BridgeCounters,
    /// What came and was no packet.
    pub strays: Strays,
}

/// Why a device has no line.
#[derive(Debug)]
pub enum LineError {
    /// The serial port does not open.
    Serial {
        /// Which.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Nobody can connect.
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the host says.
        source: io::Error,
    },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { path, .. } => {
                write!(f, "could not open the serial port `{}`", path.display())
            }
            Self::Listen { address, .. } => write!(f, "could not wait for a peer at `{address}`"),
        }
    }
}

impl std::error::Error for LineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Serial { source, .. } | Self::Listen { source, .. } => Some(source),
        }
    }
}

/// A line that is looked after until it is dropped.
#[derive(Debug)]
pub struct Line {
    bridge: Rc<Bridge>,
    strays: Rc<Cell<Strays>>,
    news: Receiver<News>,
    keeper: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Line {
    /// Opens the line of the device `host` on this air. What can only be wrong is an error; an end
    /// that may come later is waited for.
    ///
    /// # Panics
    ///
    /// Outside of a `LocalSet` on a tokio runtime with `net` and `time` enabled.
    pub fn open(
        place: &LinePlace,
        air: &Path,
        host: DeviceId,
        channel_now: Channel,
    ) -> Result<Self, LineError> {
        let end = Opener::new(place)?;
        let bridge = Rc::new(Bridge::new(host, air.to_owned(), channel_now, place.baud));
        let strays = Rc::default();
        let (sender, news) = channel(NEWS_WAITING_MAX);
        let keeper = Keeper {
            name: place.end.to_string(),
            end,
            bridge: Rc::clone(&bridge),
            strays: Rc::clone(&strays),
            news: sender,
            said: None,
        };
        let keeper = tokio::task::spawn_local(keeper.keep()).abort_handle();
        Ok(Self { bridge, strays, news, keeper })
    }

    /// Whether a frame of the device itself can be sent now, as far as the line has to carry it.
    pub fn has_room(&self, destination: DeviceId) -> bool {
        !self.bridge.reaches(destination)
            || self.bridge.outgoing.borrow_mut().has_room(Instant::now())
    }

    /// Sends a frame of the device itself, if it is for somebody behind the line; there is room.
    pub fn send(&self, destination: DeviceId, payload: &[u8]) {
        if self.bridge.reaches(destination) {
            let source = self.bridge.host();
            let frame = Frame { source, destination, payload: payload.to_vec() };
            self.bridge.outgoing.borrow_mut().offer_own(frame);
            self.bridge.offered.notify_one();
        }
    }

    /// The device's radio goes to a channel: those of its guests go with it.
    pub fn tune(&self, channel: Channel) {
        self.bridge.tune(channel);
    }

    /// The next change; waits for ever if there will be none.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> LineCounters {
        counters(&self.bridge, self.strays.get())
    }
}

fn counters(bridge: &Bridge, strays: Strays) -> LineCounters {
    let outgoing = bridge.outgoing.borrow();
    let (sent, dropped) = (outgoing.sent, outgoing.dropped);
    LineCounters { sent, dropped, bridge: bridge.counters(), strays }
}

/// Opens the port, again and again.
#[derive(Debug)]
enum Opener {
    Serial { path: PathBuf, baud: u32, first: Option<Port> },
    Dial { host: String, port: u16 },
    Listen { listener: TcpListener },
}

impl Opener {
    fn new(place: &LinePlace) -> Result<Self, LineError> {
        match &place.end {
            LineEnd::Serial(path) => {
                let baud = place.baud.unwrap_or(SERIAL_BAUD);
                let first = Port::serial(path, baud)
                    .map_err(|source| LineError::Serial { path: path.clone(), source })?;
                Ok(Self::Serial { path: path.clone(), baud, first: Some(first) })
            }
            LineEnd::Dial { host, port } => Ok(Self::Dial { host: host.clone(), port: *port }),
            LineEnd::Listen(address) => {
                let listener = listen(*address)
                    .map_err(|source| LineError::Listen { address: *address, source })?;
                Ok(Self::Listen { listener })
            }
        }
    }

    async fn open(&mut self) -> io::Result<Port> {
        match self {
            Self::Serial { path, baud, first } => match first.take() {
                Some(port) => Ok(port),
                None => Port::serial(path, *baud),
            },
            Self::Dial { host, port } => Port::dial(host, *port).await,
            Self::Listen { listener } => Port::tcp(listener.accept().await?.0),
        }
    }

    /// Whoever else connects is told so at once.
    async fn turn_others_away(&self) -> io::Error {
        loop {
            match self {
                Self::Listen { listener } => match listener.accept().await {
                    Ok(other) => drop(other),
                    Err(failure) => return failure,
                },
                Self::Serial { .. } | Self::Dial { .. } => std::future::pending().await,
            }
        }
    }

    /// What may help while nobody is there.
    const fn hint(&self) -> &'static str {
        match self {
            Self::Serial { .. } => "is the board plugged in? It is looked for again and again",
            Self::Dial { .. } => {
                "does anybody listen there, as QEMU does with `-serial tcp::PORT,server`? It is \
                 tried again and again"
            }
            Self::Listen { .. } => "whoever connects next is taken",
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A device that was killed is started again at the same port.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(port::TCP_SEND_BYTES)?;
    socket.bind(address)?;
    socket.listen(1)
}

/// Looks after the port.
struct Keeper {
    /// What the line is called.
    name: String,
    end: Opener,
    bridge: Rc<Bridge>,
    strays: Rc<Cell<Strays>>,
    news: Sender<News>,
    /// What was said last: it is not said again.
    said: Option<String>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut reader = Reader::new();
        let mut again = AGAIN_FIRST;
        if let Opener::Listen { listener } = &self.end {
            let place = listener.local_addr().map_or_else(|_| String::new(), |it| it.to_string());
            self.say(Level::Notice, format!("line waits for a peer at {place}"));
        }
        loop {
            match self.end.open().await {
                Ok(port) => {
                    let opened_at = Instant::now();
                    self.say(Level::Notice, format!("line {} is open", self.name));
                    self.bridge.outgoing.borrow_mut().set_open(true);
                    reader.forget();
                    let why = self.carry(&port, &mut reader).await;
                    self.bridge.outgoing.borrow_mut().set_open(false);
                    self.say_closed(&why);
                    if opened_at.elapsed() > AGAIN_MAX {
                        again = AGAIN_FIRST;
                    }
                }
                Err(why) => {
                    let text = format!("line {} does not open: {why}", self.name);
                    self.say(Level::Warning, format!("{text}; {}", self.end.hint()));
                }
            }
            tokio::time::sleep(again).await;
            again = (again * 2).min(AGAIN_MAX);
        }
    }

    /// Both directions, until one of them fails.
    async fn carry(&self, port: &Port, reader: &mut Reader) -> io::Error {
        tokio::select! {
            why = self.carry_in(port, reader) => why,
            why = self.carry_out(port) => why,
            why = self.end.turn_others_away() => why,
        }
    }

    async fn carry_in(&self, port: &Port, reader: &mut Reader) -> io::Error {
        let mut buffer = [0; READ_BYTES];
        loop {
            let mut bytes = match port.read(&mut buffer).await {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(why) => return why,
            };
            while let Some(packet) = reader.read(&mut bytes) {
                self.bridge.take(Instant::now(), &packet);
            }
            self.strays.set(reader.strays());
            // A flood over the line leaves the device its turn.
            tokio::task::yield_now().await;
        }
    }

    async fn carry_out(&self, port: &Port) -> io::Error {
        loop {
            let next = self.bridge.outgoing.borrow_mut().next(Instant::now());
            match next {
                Next::Write(bytes) => {
                    match tokio::time::timeout(STALLED, port.write_all(&bytes)).await {
                        Ok(Ok(())) => (),
                        Ok(Err(why)) => return why,
                        Err(_) => return io::ErrorKind::TimedOut.into(),
                    }
                }
                Next::At(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => (),
                        () = self.bridge.offered.notified() => (),
                    }
                }
                Next::Nothing => self.bridge.offered.notified().await,
            }
        }
    }

    fn say_closed(&mut self, why: &io::Error) {
        let LineCounters { sent, dropped, bridge, strays } =
            counters(&self.bridge, self.strays.get());
        let why = match why.kind() {
            io::ErrorKind::UnexpectedEof => "its other end has closed it".to_owned(),
            io::ErrorKind::TimedOut => {
                format!("its other end has taken nothing for {} s", STALLED.as_secs())
            }
            _ => why.to_string(),
        };
        let (received, strays) = (bridge.received, strays.total());
        let counted =
            format!("{sent} frames out, {received} in, {dropped} dropped, {strays} times noise");
        let (name, hint) = (&self.name, self.end.hint());
        self.say(Level::Warning, format!("line {name} is gone: {why} ({counted}); {hint}"));
    }

    fn say(&mut self, level: Level, text: String) {
        if self.said.as_ref() == Some(&text) {
            return;
        }
        self.said = Some(text.clone());
        // A device that says so much does not hear all of it.
        let _ = self.news.try_send(News { level, text });
    }
}

const NEWS_WAITING_MAX: usize = 16;
/// What is looked at in one turn, at most.
const READ_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
