//! The connection to a device, for a client that must hear the answer before it has said all.
//!
//! A device refuses a bundle as soon as it knows, in the middle of the upload, and may close the
//! connection then. An ordinary client sends on, fails with "broken pipe", and never reads why.
//! This one looks for an answer before each write; once there is one, or the device does not listen
//! any more, what is left of the body goes nowhere and the answer is read.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

/// What another thread sees of an exchange, and may do to it.
#[derive(Debug, Default)]
pub struct Watch {
    sent_bytes: AtomicU64,
    is_abandoned: AtomicBool,
}

impl Watch {
    /// Bytes of head and body that have left.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Ends the exchange with an error, at its next write at the latest.
    pub fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

/// Connects to devices.
#[derive(Debug)]
pub(super) struct DeviceConnector {
    pub(super) watch: Arc<Watch>,
}

impl Connector for DeviceConnector {
    type Out = DeviceTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<DeviceTransport>, Error> {
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in &details.addrs {
            match TcpStream::connect_timeout(address, CONNECT_MAX) {
                Ok(stream) => return self.transport(stream, details).map(Some),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }
}

impl DeviceConnector {
    fn transport(
        &self,
        stream: TcpStream,
        details: &ConnectionDetails<'_>,
    ) -> Result<DeviceTransport, Error> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(LOOK_EVERY))?;
        let (input, output) =
            (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(DeviceTransport {
            stream,
            buffers: LazyBuffers::new(input, output),
            is_answered: false,
            watch: Arc::clone(&self.watch),
            hears_early: !details.needs_tls(),
        })
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct DeviceTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// There is an answer, or nobody listens: nothing more is sent.
    is_answered: bool,
    watch: Arc<Watch>,
    /// What comes early is an answer; under TLS it may be anything.
    hears_early: bool,
}

impl Transport for DeviceTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        if self.is_answered {
            return Ok(());
        }
        let output = self.buffers.output();
        let mut left = output.get(..amount).unwrap_or(output);
        let mut moved = Instant::now();
        while !left.is_empty() && !self.is_answered {
            if self.watch.is_abandoned() {
                return Err(io::Error::from(ErrorKind::ConnectionAborted).into());
            }
            if self.hears_early && has_answer(&self.stream)? {
                self.is_answered = true;
                break;
            }
            match self.stream.write(left) {
                Ok(0) => self.is_answered = true,
                Ok(count) => {
                    left = left.get(count..).unwrap_or_default();
                    self.watch.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
                    moved = Instant::now();
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => (),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        if moved.elapsed() > STALL_MAX {
                            return Err(Error::Timeout(Timeout::SendBody));
                        }
                    }
                    ErrorKind::BrokenPipe
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted => self.is_answered = true,
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|after| *after))?;
        loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(count) => {
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => (),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        return Err(Error::Timeout(timeout.reason));
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // No connection is used twice.
        false
    }
}

/// Whether the device has said something, or has closed its side.
fn has_answer(stream: &TcpStream) -> Result<bool, io::Error> {
    stream.set_nonblocking(true)?;
    let found = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    match found {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        // An error is for the reader to tell.
        Ok(_) | Err(_) => Ok(true),
    }
}

/// How long a device may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often a write that is held up looks for an answer.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a device may take nothing of a body. While a member is staged over the radio the lead
/// takes nothing, and whether it lives is asked over another connection.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(15 * 60);
