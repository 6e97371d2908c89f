//! The device's HTTP API: any heads and bodies, cut into any pieces, on a socket in memory.
//!
//! An input is a few connections to the lead of a pair, one after the other: length of the
//! request (two bytes), length of a piece, how long the client waits before it closes, the
//! request. Time goes on whenever the device waits, and the pair lives on with it.
//!
//! Promises: nothing panics, no connection is endless, memory stays bounded; what comes back is
//! HTTP with a status of the API and as many bytes as it says; JSON is JSON; and without the
//! password no rollout begins and no member is removed.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use lockstep_device::channel::Channel;
use lockstep_device::http::{self, Api, HTTP_BUFFER_BYTES, Platform, Shell};
use lockstep_device::sample::SampleApplication;
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Reader;
use lockstep_sim::flash::MemFlash;
use picoserve::Timeouts;
use picoserve::io::{BaseWrite, Error, ErrorKind, ErrorType, Read, Socket, Write};
use picoserve::mem::{BorrowedBuffer, BorrowedCursor};
use picoserve::time::Timer;

use crate::memory;
use crate::world::{LEAD, PASSWORD, TestNode, World, releases};

/// One input.
pub fn run(data: &[u8]) {
    let _ = releases();
    let _ = World::new(0);
    memory::within(MEMORY_BYTES_MAX, || {
        let desk = Desk { world: RefCell::new(World::new(STEPS_MAX)) };
        let api = Api::new();
        let mut script = Reader::new(data);
        for _ in 0..CONNECTIONS_MAX {
            let (Ok(length), Ok(piece), Ok(patience)) = (script.u16(), script.u8(), script.u8())
            else {
                break;
            };
            let length = usize::from(length).min(script.rest().len());
            let request = script.take(length).unwrap_or_default();
            let before = desk.standing();
            let reply = desk.connect(&api, request, piece, patience);
            check_reply(&reply);
            let is_basic = contains(&request.to_ascii_lowercase(), b"basic");
            if !is_basic && !contains(request, PASSWORD.as_bytes()) {
                assert_eq!(desk.standing(), before, "changed without the password");
            }
        }
        desk.world.borrow_mut().check();
    });
}

/// The pair, as its lead's API sees it.
struct Desk {
    world: RefCell<World>,
}

impl Desk {
    /// Sends a request and takes what comes back, until the device closes, or the client does.
    fn connect(&self, api: &Api, request: &[u8], piece: u8, patience: u8) -> Vec<u8> {
        let socket = Line {
            incoming: RefCell::new(request.to_vec()),
            piece: usize::from(piece).max(1) * 4,
            is_closed: Cell::new(false),
            outgoing: RefCell::new(Vec::new()),
        };
        let mut buffer = vec![0; HTTP_BUFFER_BYTES];
        {
            let mut served = pin!(http::serve::<(), _, _>(self, api, &socket, &mut buffer));
            let mut context = Context::from_waker(Waker::noop());
            for waited in 0..WAITS_MAX {
                if served.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                assert!(socket.outgoing.borrow().len() < REPLY_BYTES_MAX, "an endless reply");
                if waited >= u32::from(patience) {
                    socket.is_closed.set(true);
                }
                let mut world = self.world.borrow_mut();
                // A lead that reboots takes its connections with it.
                if !world.step() || world.boards[LEAD].node.is_none() {
                    break;
                }
            }
        }
        while self.world.borrow().boards[LEAD].node.is_none() {
            if !self.world.borrow_mut().step() {
                self.world.borrow_mut().check();
            }
        }
        socket.outgoing.into_inner()
    }

    /// Which rollout there is, and who is a member.
    fn standing(&self) -> Option<(Option<RolloutId>, Vec<DeviceId>)> {
        let world = self.world.borrow();
        let node = world.boards[LEAD].node.as_ref()?;
        let rollout = node.conducting().map(|conducting| conducting.record.id);
        Some((rollout, node.members().iter().map(|(id, _)| *id).collect()))
    }
}

impl Shell for Desk {
    type App = SampleApplication;
    type Flash = MemFlash;

    fn with<T>(&self, act: impl FnOnce(Instant, &mut TestNode, &mut MemFlash) -> T) -> T {
        let world = &mut *self.world.borrow_mut();
        world.boards[LEAD].with(world.now, act).expect("nobody is connected to a board that is off")
    }

    fn wake(&self) {}

    async fn sleep_ms(&self, ms: u64) {
        let until = self.world.borrow().now.saturating_add(ms);
        std::future::poll_fn(|_| match self.world.borrow().now >= until {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    fn platform(&self) -> Platform {
        Platform {
            cpu_freq_mhz: 240,
            wifi_connected: true,
            mqtt_connected: false,
            channel: Channel::new(6),
        }
    }
}

/// Whole replies are looked into; one that the client cut off is what it is.
fn check_reply(reply: &[u8]) {
    let reply = reply.strip_prefix(CONTINUE).unwrap_or(reply);
    let Some(end) = reply.windows(4).position(|window| window == b"\r\n\r\n") else { return };
    let (head, body) = (&reply[..end], &reply[end + 4..]);
    let head = std::str::from_utf8(head).expect("a head is text");
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status: u16 = status.and_then(|digits| digits.parse().ok()).expect("a status");
    assert!((200..600).contains(&status), "{head}");
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    let Some(length) = header("content-length") else { return };
    let length: usize = length.parse().expect("a length");
    assert!(body.len() <= length, "more than it says: {head}");
    let is_json = header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    if body.len() == length && is_json {
        let value: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        let code = &value["error"]["code"];
        assert_eq!(status >= 400, code.is_string(), "{value}");
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// A connection: bytes that come when asked for, and then nothing, or the end.
struct Line {
    incoming: RefCell<Vec<u8>>,
    piece: usize,
    is_closed: Cell<bool>,
    outgoing: RefCell<Vec<u8>>,
}

/// One half of a connection.
struct Half<'a>(&'a Line);

#[derive(Debug)]
struct LineError(Infallible);

impl fmt::Display for LineError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl std::error::Error for LineError {}

impl Error for LineError {
    fn kind(&self) -> ErrorKind {
        match self.0 {}
    }
}

impl ErrorType for Half<'_> {
    type Error = LineError;
}

impl Read for Half<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LineError> {
        std::future::poll_fn(|_| {
            let mut incoming = self.0.incoming.borrow_mut();
            let length = buffer.len().min(incoming.len()).min(self.0.piece);
            if length == 0 && !buffer.is_empty() && !self.0.is_closed.get() {
                return Poll::Pending;
            }
            buffer[..length].copy_from_slice(&incoming[..length]);
            incoming.drain(..length);
            Poll::Ready(Ok(length))
        })
        .await
    }
}

impl BaseWrite for Half<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, LineError> {
        self.0.outgoing.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), LineError> {
        Ok(())
    }
}

impl Write for Half<'_> {
    async fn write_with<F: FnOnce(BorrowedCursor<'_>) -> T, T>(
        &mut self,
        fill: F,
    ) -> Result<T, LineError> {
        let mut buffer = [0; 256];
        let mut buffer = BorrowedBuffer::new(&mut buffer);
        let output = fill(buffer.unfilled());
        self.0.outgoing.borrow_mut().extend_from_slice(buffer.filled());
        Ok(output)
    }
}

impl Socket<()> for &Line {
    type Error = LineError;
    type ReadHalf<'a>
        = Half<'a>
    where
        Self: 'a;
    type WriteHalf<'a>
        = Half<'a>
    where
        Self: 'a;

    fn split(&mut self) -> (Half<'_>, Half<'_>) {
        (Half(self), Half(self))
    }

    async fn abort<T: Timer<()>>(
        self,
        _: &Timeouts,
        _: &T,
    ) -> Result<(), picoserve::Error<LineError>> {
        Ok(())
    }

    async fn shutdown<T: Timer<()>>(
        self,
        _: &Timeouts,
        _: &T,
    ) -> Result<(), picoserve::Error<LineError>> {
        Ok(())
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Connections of one input.
const CONNECTIONS_MAX: usize = 4;
/// How often a connection waits; then the client is gone for good.
const WAITS_MAX: u32 = 600;
/// Steps of time of one input: a rollout and a half.
const STEPS_MAX: u32 = 1_500;
/// Longer than any answer, and than what a stream says in its time.
const REPLY_BYTES_MAX: usize = 256 * 1024;
const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    // A fuzzer that is never let in would find nothing behind the password.
    #[test]
    fn an_upload_with_the_password_is_taken() {
        let desk = Desk { world: RefCell::new(World::new(STEPS_MAX)) };
        let bundle = &releases().bundle;
        let head = format!(
            "POST /api/rollout HTTP/1.1\r\nAuthorization: Bearer {PASSWORD}\r\n\
             Content-Length: {}\r\n\r\n",
            bundle.len()
        );
        let request = [head.as_bytes(), bundle].concat();
        let reply = desk.connect(&Api::new(), &request, 64, 250);
        let reply = String::from_utf8(reply).expect("text");
        assert!(reply.starts_with("HTTP/1.1 202"), "{reply}");
    }

    #[test]
    fn nobody_is_let_in_without_the_password() {
        let desk = Desk { world: RefCell::new(World::new(STEPS_MAX)) };
        let request = b"POST /api/rollout/abort HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let reply = desk.connect(&Api::new(), request, 1, 9);
        assert!(reply.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&reply));
    }
}
