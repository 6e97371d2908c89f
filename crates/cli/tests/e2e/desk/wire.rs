//! A wire between two lines, and what happens to wires: noise, boot messages, a cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A wire with a plug at either end, which a device connects to with `--link tcp:…`.
#[derive(Debug)]
pub(crate) struct Wire {
    ends: [SocketAddr; 2],
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_cut: AtomicBool,
    is_gone: AtomicBool,
    is_noisy: AtomicBool,
    /// How often something was put between.
    noises: AtomicUsize,
    /// Bytes that went through, in both directions.
    carried: AtomicUsize,
}

impl Shared {
    fn is_down(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst) || self.is_gone.load(Ordering::SeqCst)
    }
}

impl Wire {
    pub(crate) fn new() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ends = [0, 1].map(|end: usize| listeners[end].local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        thread::spawn(move || carry_until_gone(listeners, ends, &its));
        Self { ends, shared }
    }

    /// One with noise on it: every few thousand bytes something is put between.
    pub(crate) fn noisy() -> Self {
        let wire = Self::new();
        wire.shared.is_noisy.store(true, Ordering::SeqCst);
        wire
    }

    /// What the device at one end is given, with a speed.
    pub(crate) fn link(&self, end: usize, baud: u32) -> String {
        format!("--link tcp:{}@{baud}", self.ends[end])
    }

    /// Nobody is at the other end any more, and nobody can connect.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    pub(crate) fn noises(&self) -> usize {
        self.shared.noises.load(Ordering::SeqCst)
    }

    pub(crate) fn carried_bytes(&self) -> usize {
        self.shared.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_gone.store(true, Ordering::SeqCst);
    }
}

fn carry_until_gone(first: [TcpListener; 2], ends: [SocketAddr; 2], shared: &Arc<Shared>) {
    let mut listeners = Some(first);
    while !shared.is_gone.load(Ordering::SeqCst) {
        if shared.is_down() {
            listeners = None;
            thread::sleep(LOOK_EVERY);
            continue;
        }
        let both =
            listeners.take().unwrap_or_else(|| ends.map(|end| TcpListener::bind(end).unwrap()));
        if let (Some(a), Some(b)) = (accept(&both[0], shared), accept(&both[1], shared)) {
            let [to, fro] = [(&a, &b), (&b, &a)].map(|(from, to)| {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let shared = Arc::clone(shared);
                thread::spawn(move || pump(from, to, &shared))
            });
            for pump in [to, fro] {
                pump.join().unwrap();
            }
        }
        listeners = Some(both);
    }
}

fn accept(listener: &TcpListener, shared: &Shared) -> Option<TcpStream> {
    listener.set_nonblocking(true).unwrap();
    while !shared.is_down() {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            return Some(stream);
        }
        thread::sleep(LOOK_EVERY);
    }
    None
}

/// Carries bytes one way until either end closes or the wire is cut.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    from.set_read_timeout(Some(LOOK_EVERY)).unwrap();
    let (mut buffer, mut clean_bytes) = ([0; 512], 0);
    while !shared.is_down() {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        let mut bytes = buffer[..length].to_vec();
        clean_bytes += length;
        if shared.is_noisy.load(Ordering::SeqCst) && clean_bytes > CLEAN_BYTES {
            let noises = shared.noises.fetch_add(1, Ordering::SeqCst);
            let noise = NOISES[noises % NOISES.len()];
            // In the middle of whatever goes by.
            let at = length / 2;
            bytes.splice(at..at, noise.iter().copied());
            clean_bytes = 0;
        }
        shared.carried.fetch_add(length, Ordering::SeqCst);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    for stream in [&from, &to] {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// What a chip prints when it boots, what a line picks up, and what looks like the end of a packet.
const NOISES: [&[u8]; 4] = [
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n",
    &[0xFF, 0xFE, 0x00, 0x80, 0x01, 0x55, 0xAA, 0x00, 0x00],
    &[0],
    b"\x1b[0;32mI (29) boot: ESP-IDF v5.4 2nd stage bootloader\x1b[0m\r\n",
];
const CLEAN_BYTES: usize = 4000;
const LOOK_EVERY: Duration = Duration::from_millis(20);
