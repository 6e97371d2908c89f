//! A socket that keeps what HTTP promises and picoserve leaves out: `100 Continue`, an answer that
//! a client sees although it is still sending, and a `Content-Length` that no sum overflows.
//!
//! Bytes pass through unchanged, except where a request's head lies about its length.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use picoserve::io::{BaseWrite, ErrorType, Read, Socket, Write};
use picoserve::mem::BorrowedCursor;
use picoserve::time::{Duration, Timer};
use picoserve::{Error, Timeouts};

/// What a handler tells its connection.
#[derive(Debug, Default)]
pub(super) struct Control {
    body: Cell<Body>,
    answered: Cell<bool>,
}

/// What becomes of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Body {
    /// It is read as it comes.
    #[default]
    Read,
    /// The client waits to be asked for it.
    Ask,
    /// It is not wanted: reads end at once, so that the answer goes out.
    Refuse,
}

impl Control {
    /// The client waits for `100 Continue`: said as soon as its body is read.
    pub(super) fn ask_for_body(&self) {
        self.body.set(Body::Ask);
    }

    /// No more of the body is wanted.
    pub(super) fn refuse_body(&self) {
        self.body.set(Body::Refuse);
    }

    /// From here the connection ends in a way that lets the client read the answer.
    pub(super) fn note_answer(&self) {
        self.answered.set(true);
    }
}

/// The socket.
pub(super) struct Connection<S> {
    socket: S,
    control: Rc<Control>,
}

impl<S> Connection<S> {
    pub(super) const fn new(socket: S, control: Rc<Control>) -> Self {
        Self { socket, control }
    }
}

impl<Runtime, S: Socket<Runtime>> Socket<Runtime> for Connection<S> {
    type Error = S::Error;
    type ReadHalf<'a>
        = ReadHalf<S::ReadHalf<'a>, S::WriteHalf<'a>>
    where
        Self: 'a;
    type WriteHalf<'a>
        = WriteHalf<S::WriteHalf<'a>>
    where
        Self: 'a;

    fn split(&mut self) -> (Self::ReadHalf<'_>, Self::WriteHalf<'_>) {
        let (reader, writer) = self.socket.split();
        let writer = Rc::new(RefCell::new(writer));
        let head = HeadGuard::default();
        let control = Rc::clone(&self.control);
        (ReadHalf { reader, writer: Rc::clone(&writer), head, control }, WriteHalf(writer))
    }

    async fn abort<T: Timer<Runtime>>(
        self,
        timeouts: &Timeouts,
        timer: &T,
    ) -> Result<(), Error<Self::Error>> {
        if self.control.answered.get() {
            return self.shutdown(timeouts, timer).await;
        }
        self.socket.abort(timeouts, timer).await
    }

    /// Closes our side and takes what still comes, for a while: a reset would take the answer from
    /// a client that has not read it yet.
    async fn shutdown<T: Timer<Runtime>>(
        self,
        timeouts: &Timeouts,
        timer: &T,
    ) -> Result<(), Error<Self::Error>> {
        let idle = Duration::from_millis(LINGER_IDLE_MS);
        let timeouts = Timeouts { read_request: idle, ..timeouts.clone() };
        let closed = self.socket.shutdown(&timeouts, timer);
        let limit = Duration::from_millis(LINGER_LIMIT_MS);
        timer.run_with_timeout(limit, closed).await.unwrap_or(Ok(()))
    }
}

/// What comes in.
pub(super) struct ReadHalf<R, W> {
    reader: R,
    writer: Rc<RefCell<W>>,
    head: HeadGuard,
    control: Rc<Control>,
}

impl<R: ErrorType, W> ErrorType for ReadHalf<R, W> {
    type Error = R::Error;
}

impl<R: Read, W: BaseWrite<Error = R::Error>> Read for ReadHalf<R, W> {
    #[expect(
        clippy::await_holding_refcell_ref,
        reason = "one task owns both halves, and nobody answers while a body is being read"
    )]
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        match self.control.body.get() {
            Body::Refuse => return Ok(0),
            Body::Ask => {
                self.control.body.set(Body::Read);
                let mut writer = self.writer.borrow_mut();
                writer.write_all(CONTINUE).await?;
                writer.flush().await?;
            }
            Body::Read => (),
        }
        let len = self.reader.read(buffer).await?;
        self.head.watch(buffer.get_mut(..len).unwrap_or_default());
        Ok(len)
    }
}

/// What goes out.
pub(super) struct WriteHalf<W>(Rc<RefCell<W>>);

impl<W: ErrorType> ErrorType for WriteHalf<W> {
    type Error = W::Error;
}

#[expect(
    clippy::await_holding_refcell_ref,
    reason = "one task owns both halves, and nobody answers while a body is being read"
)]
impl<W: Write> BaseWrite for WriteHalf<W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.0.borrow_mut().write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.0.borrow_mut().flush().await
    }
}

#[expect(
    clippy::await_holding_refcell_ref,
    reason = "one task owns both halves, and nobody answers while a body is being read"
)]
impl<W: Write> Write for WriteHalf<W> {
    async fn write_with<F: FnOnce(BorrowedCursor<'_>) -> T, T>(
        &mut self,
        fill: F,
    ) -> Result<T, Self::Error> {
        self.0.borrow_mut().write_with(fill).await
    }
}

/// Watches a request's head pass by, and spoils a `Content-Length` of ten digits or more, which
/// could overflow the server's sums, as well as zero bytes, which the server would leave out and
/// so read other words than were watched.
#[derive(Debug, Default)]
struct HeadGuard {
    at: At,
    line_is_blank: bool,
}

/// Where in the head the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// In a name, of which so many bytes are those of `content-length`.
    Name { matched: usize },
    /// In its value, behind so many digits.
    Length { digits: usize },
    /// In the first line, or in a line of no interest.
    #[default]
    Elsewhere,
    /// Behind the head.
    Body,
}

impl HeadGuard {
    fn watch(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.at == At::Body {
                return;
            }
            if *byte == 0 {
                *byte = SPOILT;
            }
            self.at = self.next(byte);
        }
    }

    fn next(&mut self, byte: &mut u8) -> At {
        if *byte == b'\n' {
            let ends = self.line_is_blank;
            self.line_is_blank = true;
            return if ends { At::Body } else { At::Name { matched: 0 } };
        }
        self.line_is_blank &= byte.is_ascii_whitespace();
        match self.at {
            At::Name { matched } => match CONTENT_LENGTH.get(matched) {
                Some(wanted) if byte.eq_ignore_ascii_case(wanted) => {
                    At::Name { matched: matched + 1 }
                }
                Some(_) if matched == 0 && byte.is_ascii_whitespace() => self.at,
                None if byte.is_ascii_whitespace() => self.at,
                None if *byte == b':' => At::Length { digits: 0 },
                Some(_) | None => At::Elsewhere,
            },
            At::Length { digits } if byte.is_ascii_digit() => {
                if digits >= LENGTH_DIGITS_MAX {
                    *byte = SPOILT;
                }
                At::Length { digits: digits + 1 }
            }
            At::Length { .. } | At::Elsewhere | At::Body => self.at,
        }
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const CONTENT_LENGTH: &[u8] = b"content-length";
/// Nine digits and the length of a head fit 32 bits together.
pub(super) const LENGTH_DIGITS_MAX: usize = 9;
/// Stands in place of a byte that must not pass: no digit, and not part of any name.
pub(super) const SPOILT: u8 = b'?';
/// After an answer a client that sends nothing for so long is let go, in milliseconds.
const LINGER_IDLE_MS: u64 = 2_000;
/// After an answer a client that goes on sending is cut off, in milliseconds.
const LINGER_LIMIT_MS: u64 = 20_000;

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    /// Fed whole and byte by byte, which must come to the same.
    fn watched(head: &str) -> String {
        let mut whole = Vec::from(head);
        HeadGuard::default().watch(&mut whole);
        let mut guard = HeadGuard::default();
        let mut single = Vec::from(head);
        single.iter_mut().for_each(|byte| guard.watch(core::slice::from_mut(byte)));
        assert_eq!(whole, single);
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn a_length_that_would_overflow_a_sum_is_spoilt_however_it_is_written() {
        for (head, passed) in [
            ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n", "184467440??"),
            ("POST / HTTP/1.1\r\n CONTENT-length \t:1844674407370\r\n", "184467440??"),
            ("POST / HTTP/1.1\nA: b\ncontent-length:4294967295\n\n", "429496729?"),
        ] {
            let watched = watched(head);
            assert!(watched.contains(passed), "{watched}");
        }
        // A zero byte would be left out, and the name be another one.
        let watched = watched("POST / HTTP/1.1\r\nContent\0-Length: 1\r\n");
        assert!(watched.contains("Content?-Length"), "{watched}");
    }

    #[test]
    fn what_is_not_a_length_passes_unchanged() {
        for head in [
            "POST /1234567890123 HTTP/1.1\r\nAuthorization: Bearer 12345678901234\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n\0Content-Length: 1234567890123",
            "POST / HTTP/1.1\r\nContent-Lengths: 1234567890123\r\n\
             X: content-length: 12345678901\r\n",
        ] {
            assert_eq!(watched(head), head);
        }
    }
}
