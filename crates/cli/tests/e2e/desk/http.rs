//! Plain HTTP over a socket, so that a test can send what no client would.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// One device's API.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    address: String,
    password: String,
}

/// A device's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// Its body; null if that is not JSON.
    pub(crate) json: Value,
}

impl Answer {
    /// The error's code, its message and its hint.
    pub(crate) fn error(&self) -> (&str, &str, &str) {
        let error = &self.json["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        (text("code"), text("message"), text("hint"))
    }

    /// It is refused with this status and this code, and the message says this.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str, says: &str) -> &Self {
        let (found, message, hint) = self.error();
        assert_eq!((self.status, found), (status, code), "{}", self.json);
        assert!(message.contains(says), "`{says}` is not in `{message}`");
        assert!(!hint.is_empty(), "no hint: {}", self.json);
        self
    }

    /// The codes of all refusals of a preflight.
    pub(crate) fn refusals(&self) -> Vec<&str> {
        let refusals = self.json["error"]["refusals"].as_array();
        refusals.into_iter().flatten().filter_map(|one| one["code"].as_str()).collect()
    }
}

/// The bytes of a bundle that one request carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// The whole bundle.
    pub(crate) bundle: &'a [u8],
    /// Where this request begins.
    pub(crate) from: usize,
    /// So many of its bytes really leave; the head promises all of them.
    pub(crate) sent: usize,
}

impl Http {
    pub(crate) fn new(address: &str, password: &str) -> Self {
        Self { address: address.to_owned(), password: password.to_owned() }
    }

    /// The same device, another password.
    pub(crate) fn with_password(&self, password: &str) -> Self {
        Self::new(&self.address, password)
    }

    /// `None`: it does not answer.
    pub(crate) fn get(&self, path: &str) -> Option<Answer> {
        let stream = self.send(&format!("GET {path}"), "", &[])?;
        read(stream).filter(|answer| answer.status != 0)
    }

    /// Posts a body, and reads the answer even if it comes before the body has left.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        let head = format!("Content-Length: {}\r\n", body.len());
        self.exchange(&format!("POST {path}"), &head, body)
    }

    /// Posts JSON.
    #[track_caller]
    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let length = body.len();
        let head = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        self.exchange(&format!("POST {path}"), &head, body.as_bytes())
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.exchange(&format!("DELETE {path}"), "", &[])
    }

    /// Goes on with a cut upload.
    #[track_caller]
    pub(crate) fn resume(&self, bundle: &[u8], from: usize) -> Answer {
        let (rest, total) = (&bundle[from..], bundle.len());
        let last = total - 1;
        let head = format!(
            "Content-Length: {}\r\nContent-Range: bytes {from}-{last}/{total}\r\n",
            rest.len()
        );
        self.exchange("POST /api/rollout", &head, rest)
    }

    /// Begins an upload and sends only a part of it; the connection stays open until it is dropped.
    pub(crate) fn begin_upload(&self, part: Part<'_>) -> TcpStream {
        let Part { bundle, from, sent } = part;
        let head = format!("Content-Length: {}\r\n", bundle.len() - from);
        let body = &bundle[from..from + sent];
        self.send("POST /api/rollout", &head, body).expect("the device listens")
    }

    #[track_caller]
    fn exchange(&self, line: &str, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.send(line, head, &[]).expect("the device listens");
        let (reader, body) = (stream.try_clone().unwrap(), body.to_vec());
        let writer = thread::spawn(move || {
            // The device may have heard enough.
            let _ = stream.write_all(&body);
        });
        let answer = read(reader).expect("the device answers");
        writer.join().unwrap();
        answer
    }

    fn send(&self, line: &str, head: &str, body: &[u8]) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        let Self { address, password } = self;
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {password}\r\n\
             Connection: close\r\n{head}\r\n"
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok()?;
        Some(stream)
    }
}

/// Reads to the end of the connection; `None` if nothing came.
fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A connection that ends without ceremony is an end as well.
    let _ = stream.read_to_end(&mut bytes);
    let _ = stream.shutdown(Shutdown::Both);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let json = serde_json::from_str(body).unwrap_or_default();
    Some(Answer { status, head: head.to_owned(), json })
}

const ANSWER_MAX: Duration = Duration::from_secs(60);
