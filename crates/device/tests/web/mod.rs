//! A group of devices whose lead answers HTTP, in virtual time: sockets are in memory and the clock
//! moves when everybody waits, so a test takes no longer than its work and means the same each
//! time.

mod first_start;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use lockstep_device::Node;
use lockstep_device::channel::Channel;
use lockstep_device::http::{self, Api, FirstStart, HTTP_BUFFER_BYTES, Platform, Shell};
use lockstep_proto::time::Instant;
use lockstep_sim::flash::MemFlash;
use picoserve::Timeouts;
use picoserve::io::{BaseWrite, Error, ErrorKind, ErrorType, Read, Socket, Write};
use picoserve::mem::{BorrowedBuffer, BorrowedCursor};
use picoserve::time::Timer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::LocalSet;
use tokio::time::{Duration, sleep};

use crate::group::{FaultyApplication, TestGroup};

pub(crate) const PASSWORD: &str = "correct horse";

/// One device of a group, with its API.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) group: Rc<RefCell<TestGroup>>,
    board: usize,
    api: Rc<Api>,
    /// What it knows of its place while it is being set up.
    pub(crate) first_start: Rc<RefCell<Option<FirstStart>>>,
    /// Whether it was asked to start anew.
    pub(crate) restarts: Rc<Cell<bool>>,
}

impl Shell for Web {
    type App = FaultyApplication;
    type Flash = MemFlash;

    fn with<T>(
        &self,
        act: impl FnOnce(Instant, &mut Node<FaultyApplication>, &mut MemFlash) -> T,
    ) -> T {
        let group = &mut *self.group.borrow_mut();
        let now = group.boards[self.board].uptime(group.now);
        let board = &mut group.boards[self.board];
        act(now, board.node.as_mut().expect("the board is on"), &mut board.flash)
    }

    fn wake(&self) {}

    async fn sleep_ms(&self, ms: u64) {
        sleep(Duration::from_millis(ms)).await;
    }

    fn platform(&self) -> Platform {
        Platform {
            cpu_freq_mhz: 240,
            wifi_connected: true,
            mqtt_connected: false,
            channel: Channel::new(6),
        }
    }

    fn first_start(&self) -> Option<FirstStart> {
        self.first_start.borrow().clone()
    }

    fn restart_soon(&self) {
        self.restarts.set(true);
    }
}

impl Web {
    /// Runs `test` beside a group of these roles, of which this board answers.
    pub(crate) fn run(roles: &[&'static str], board: usize, test: impl AsyncFnOnce(Self)) {
        let mut group = TestGroup::of(roles);
        group.run_ms(3_000);
        let web = Self {
            group: Rc::new(RefCell::new(group)),
            board,
            api: Rc::default(),
            first_start: Rc::default(),
            restarts: Rc::default(),
        };
        web.with(|_, node, flash| assert!(node.set_password(PASSWORD, [1; 16], flash)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let group = Rc::clone(&web.group);
        let local = LocalSet::new();
        local.spawn_local(async move {
            loop {
                sleep(Duration::from_millis(10)).await;
                group.borrow_mut().step();
            }
        });
        local.block_on(&runtime, test(web));
    }

    /// A pair, of which the lead answers.
    pub(crate) fn run_pair(test: impl AsyncFnOnce(Self)) {
        Self::run(&["receiver", "transmitter"], 0, test);
    }

    /// A connection to the board.
    pub(crate) fn connect(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(1024);
        let web = self.clone();
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; HTTP_BUFFER_BYTES];
            http::serve(&web, &web.api, MemSocket(theirs), &mut buffer).await;
        });
        Client(ours)
    }

    /// Sends a request, and reads until the device closes: status line, headers, body.
    pub(crate) async fn send(&self, head: &str, body: &[u8]) -> Reply {
        let mut client = self.connect();
        let head_taken = client.write(format!("{head}\r\n\r\n").as_bytes()).await;
        let all_taken = client.write(body).await && head_taken;
        Reply { all_taken, ..client.read_reply().await }
    }

    /// Begins an upload of `size` bytes, and sends these of it.
    pub(crate) async fn begin_upload(&self, size: usize, bytes: &[u8]) -> Client {
        let mut client = self.connect();
        let head = format!(
            "POST /api/rollout HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {PASSWORD}\r\n\
             Content-Length: {size}\r\n\r\n"
        );
        client.write(head.as_bytes()).await;
        client.write(bytes).await;
        sleep(Duration::from_secs(1)).await;
        client
    }

    /// A request without a body.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: desk"), b"").await
    }

    /// An order with the password.
    pub(crate) async fn post(&self, path: &str, body: &[u8]) -> Reply {
        self.post_with(path, "X-Nothing: 0", body).await
    }

    /// Something put in the place of what is there, with the password.
    pub(crate) async fn put(&self, path: &str, body: &[u8]) -> Reply {
        let len = body.len();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {PASSWORD}\r\n\
             Content-Length: {len}"
        );
        self.send(&head, body).await
    }

    /// An order with the password and another header.
    pub(crate) async fn post_with(&self, path: &str, header: &str, body: &[u8]) -> Reply {
        let len = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {PASSWORD}\r\n{header}\r\n\
             Content-Length: {len}"
        );
        self.send(&head, body).await
    }
}

/// The other end of a connection.
pub(crate) struct Client(DuplexStream);

impl Client {
    /// Sends. Whether the device has taken all of it: over TCP, bytes that nobody takes turn the
    /// device's answer into a reset.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    pub(crate) async fn read_reply(mut self) -> Reply {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await.unwrap();
        Reply::new(&bytes)
    }

    /// Reads until `text` has come.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            let mut byte = [0];
            let len = self.0.read(&mut byte).await.unwrap();
            assert_eq!(len, 1, "`{text}` never came, but: {read}");
            read.push(char::from(byte[0]));
        }
        read
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// Whether the device took everything that was sent.
    pub(crate) all_taken: bool,
}

impl Reply {
    fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned(), all_taken: true }
    }

    /// Status and body, as snapshots show them: one member per line, and long hexadecimal numbers,
    /// which change with every image, only by their length.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{}\n", self.status);
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        for run in self.body.as_bytes().chunk_by(|a, b| is_digit(a) == is_digit(b)) {
            match run.len() {
                8 | 16 | 64 if run.iter().all(is_digit) => {
                    text.push_str(&format!("({} digits)", run.len()));
                }
                _ => text.push_str(str::from_utf8(run).unwrap()),
            }
        }
        text.replace(",\"", ",\n\"").replace(",{", ",\n{")
    }
}

/// A socket in memory.
struct MemSocket(DuplexStream);

struct Half<T>(T);

#[derive(Debug)]
struct MemError(io::Error);

impl std::fmt::Display for MemError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for MemError {}

impl Error for MemError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl<T> ErrorType for Half<T> {
    type Error = MemError;
}

impl Read for Half<tokio::io::ReadHalf<&mut DuplexStream>> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, MemError> {
        self.0.read(buffer).await.map_err(MemError)
    }
}

impl BaseWrite for Half<tokio::io::WriteHalf<&mut DuplexStream>> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, MemError> {
        self.0.write(bytes).await.map_err(MemError)
    }

    async fn flush(&mut self) -> Result<(), MemError> {
        self.0.flush().await.map_err(MemError)
    }
}

impl Write for Half<tokio::io::WriteHalf<&mut DuplexStream>> {
    async fn write_with<F: FnOnce(BorrowedCursor<'_>) -> T, T>(
        &mut self,
        fill: F,
    ) -> Result<T, MemError> {
        let mut buffer = [0; 256];
        let mut buffer = BorrowedBuffer::new(&mut buffer);
        let output = fill(buffer.unfilled());
        self.0.write_all(buffer.filled()).await.map_err(MemError)?;
        Ok(output)
    }
}

impl Socket<()> for MemSocket {
    type Error = MemError;
    type ReadHalf<'a> = Half<tokio::io::ReadHalf<&'a mut DuplexStream>>;
    type WriteHalf<'a> = Half<tokio::io::WriteHalf<&'a mut DuplexStream>>;

    fn split(&mut self) -> (Self::ReadHalf<'_>, Self::WriteHalf<'_>) {
        let (reader, writer) = tokio::io::split(&mut self.0);
        (Half(reader), Half(writer))
    }

    async fn abort<T: Timer<()>>(
        self,
        _timeouts: &Timeouts,
        _timer: &T,
    ) -> Result<(), picoserve::Error<MemError>> {
        Ok(())
    }

    async fn shutdown<T: Timer<()>>(
        mut self,
        timeouts: &Timeouts,
        timer: &T,
    ) -> Result<(), picoserve::Error<MemError>> {
        let _closed = self.0.shutdown().await;
        let mut buffer = [0; 256];
        let drain = async { while self.0.read(&mut buffer).await.is_ok_and(|len| len > 0) {} };
        let _silent = timer.run_with_timeout(timeouts.read_request, drain).await;
        Ok(())
    }
}
