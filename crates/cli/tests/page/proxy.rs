//! Stands between a browser and a device: answers some calls in its place, as older firmware or one
//! in trouble would, and cuts uploads. All else goes through as it is.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// It ends with the test.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: String,
    /// By the path, without its query; a path with `*` behind it stands for all below it that have
    /// no answer of their own.
    instead: Mutex<BTreeMap<&'static str, (u16, String)>>,
    /// Bytes of bundles that still go through; `None`: all.
    upload_bytes_left: Mutex<Option<usize>>,
    is_over: AtomicBool,
}

impl Proxy {
    pub(crate) fn before(device: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            device: device.to_owned(),
            instead: Mutex::default(),
            upload_bytes_left: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ours.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let ours = Arc::clone(&ours);
                // Either side may go whenever it likes.
                thread::spawn(move || drop(ours.serve(stream)));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on this is answered in the device's place.
    pub(crate) fn answer(&self, path: &'static str, status: u16, body: &Value) {
        self.shared.instead.lock().unwrap().insert(path, (status, body.to_string()));
    }

    /// What firmware answers that does not know the path.
    pub(crate) fn knows_not(&self, path: &'static str) {
        let error = json!({ "code": "not-found", "message": "there is no such path",
            "hint": "`GET /api/version` is a good start" });
        self.answer(path, 404, &json!({ "error": error }));
    }

    /// Uploads are cut after so many bytes, all of them together.
    pub(crate) fn cut_uploads_after(&self, bytes: usize) {
        *self.shared.upload_bytes_left.lock().unwrap() = Some(bytes);
    }

    /// The device answers for itself again, and nothing is cut.
    pub(crate) fn mend(&self) {
        self.shared.instead.lock().unwrap().clear();
        *self.shared.upload_bytes_left.lock().unwrap() = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes it up, so that it sees that.
        drop(TcpStream::connect(&self.address));
    }
}

impl Shared {
    fn serve(&self, mut browser: TcpStream) -> io::Result<()> {
        let request = read_head(&mut browser)?;
        let text = String::from_utf8_lossy(&request);
        let mut words = text.split([' ', '?']);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((status, body)) = self.instead_of(path) {
            let length = body.len();
            write!(
                browser,
                "HTTP/1.1 {status} Instead\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )?;
            browser.shutdown(Shutdown::Write)?;
            // A connection that is closed with bytes unread takes the answer with it.
            return io::copy(&mut browser, &mut io::sink()).map(drop);
        }
        let mut device = TcpStream::connect(&self.device)?;
        device.write_all(&request)?;
        let is_upload = method == "POST" && path == "/api/rollout";
        thread::scope(|scope| {
            scope.spawn(|| {
                if is_upload {
                    self.pass_upload(&browser, &device);
                } else {
                    pass(&browser, &device);
                }
            });
            pass(&device, &browser);
        });
        Ok(())
    }

    fn instead_of(&self, path: &str) -> Option<(u16, String)> {
        let instead = self.instead.lock().unwrap();
        let below = |known: &str| known.strip_suffix('*').is_some_and(|it| path.starts_with(it));
        let found = instead.get(path);
        found.or_else(|| Some(instead.iter().find(|(known, _)| below(known))?.1)).cloned()
    }

    /// Passes what may go through; then both sides see their connection end.
    fn pass_upload(&self, mut browser: &TcpStream, mut device: &TcpStream) {
        let mut buffer = [0; CHUNK_BYTES];
        while let Ok(count @ 1..) = browser.read(&mut buffer) {
            let mut left = self.upload_bytes_left.lock().unwrap();
            let passed = left.map_or(count, |left| left.min(count));
            *left = left.map(|left| left - passed);
            drop(left);
            if device.write_all(&buffer[..passed]).is_err() || passed < count {
                break;
            }
        }
        for side in [browser, device] {
            // Gone already is as good.
            let _ = side.shutdown(Shutdown::Both);
        }
    }
}

/// Passes bytes one way until that end is over, and says so to the other.
fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Everything up to the empty line and what came with it.
fn read_head(browser: &mut TcpStream) -> io::Result<Vec<u8>> {
    browser.set_read_timeout(Some(SILENCE_MAX))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        browser.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(head)
}

/// Browsers open connections that they never use.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const CHUNK_BYTES: usize = 4096;
