//! A serial port as a socket that boards are plugged into: a pseudo terminal under a name that
//! stays, as `/dev/ttyUSB0` does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::ioctl_fionbio;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

/// Where boards are plugged in.
#[derive(Debug)]
pub(crate) struct Socket {
    folder: TempDir,
    plugged: Option<Plugged>,
}

#[derive(Debug)]
struct Plugged {
    is_out: Arc<AtomicBool>,
    carrier: JoinHandle<()>,
}

impl Socket {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), plugged: None }
    }

    fn name(&self) -> PathBuf {
        self.folder.path().join("tty")
    }

    /// What the device with the port is given.
    pub(crate) fn link(&self, baud: u32) -> String {
        format!("--link serial:{}@{baud}", self.name().display())
    }

    /// Makes the port; returns what the board is given that is at its other end.
    pub(crate) fn plug_in(&mut self) -> String {
        assert!(self.plugged.is_none(), "a board is plugged in");
        let terminal =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        ioctl_fionbio(&terminal, true).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let port = ptsname(&terminal, Vec::new()).unwrap();
        symlink(port.to_str().unwrap(), self.name()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let board = format!("--link tcp:{}@115200", listener.local_addr().unwrap());
        let is_out = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&is_out);
        let carrier = thread::spawn(move || carry(&File::from(terminal), &listener, &its));
        self.plugged = Some(Plugged { is_out, carrier });
        board
    }

    pub(crate) fn unplug(&mut self) {
        let Some(plugged) = self.plugged.take() else { return };
        plugged.is_out.store(true, Ordering::SeqCst);
        plugged.carrier.join().unwrap();
        std::fs::remove_file(self.name()).unwrap();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.unplug();
    }
}

fn carry(terminal: &File, listener: &TcpListener, is_out: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    let mut board: Option<TcpStream> = None;
    while !is_out.load(Ordering::SeqCst) {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).unwrap();
            board = Some(stream);
        }
        let carried = board
            .as_ref()
            .is_some_and(|board| pass(terminal, board, is_out) | pass(board, terminal, is_out));
        if !carried {
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Whether there was something to pass on. While nobody has opened the port there is not.
fn pass(mut from: impl Read, mut to: impl Write, is_out: &AtomicBool) -> bool {
    let mut buffer = [0; 256];
    let Ok(length @ 1..) = from.read(&mut buffer) else { return false };
    let mut rest = &buffer[..length];
    while !rest.is_empty() && !is_out.load(Ordering::SeqCst) {
        match to.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOOK_EVERY),
            // It has gone, and whoever looks next finds out.
            Err(_) => return true,
        }
    }
    true
}

const LOOK_EVERY: Duration = Duration::from_millis(2);
