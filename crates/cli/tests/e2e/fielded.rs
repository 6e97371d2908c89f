//! Firmware of the original project, as far as others see it: what it answers over HTTP, what it
//! says on the air, how it takes an image, and its faults. What it takes it becomes: a desk device
//! that runs the very image.
//!
//! Its faults are those of the original code: no password; nothing is known of the image until all
//! of it is there; a body is taken for the image whatever it is; the path that its page has for
//! receivers does not exist, and what a receiver takes is for the transmitter; the restart
//! may come before the answer has left.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lockstep_cli::facts::read_image;
use lockstep_proto::id::DeviceId;
use lockstep_sim::radio::{Impairments, PAYLOAD_BYTES_MAX, Radio};
use serde_json::{Value, json};

use super::desk::{Board, Receiver, Role, Transmitter};

/// What a device of this kind does besides what all do.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// `MAJOR.MINOR.PATCH`.
    pub(crate) version: &'static str,
    /// A receiver with the plan's page: it says its version, and installs what it is given.
    pub(crate) installs: bool,
    /// Loses power when so many bytes of an image have come, for the first time.
    pub(crate) dies_at: Option<usize>,
    /// Answers before it restarts.
    pub(crate) answers: bool,
    /// How long it takes for 1 KiB.
    pub(crate) chunk_takes: Duration,
    /// What becomes of it when it has taken an image.
    pub(crate) becomes: Becomes,
}

/// What becomes of a device that has taken an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// A device of ours, with that image.
    Ours,
    /// The same, and it has got its group's key by cable before.
    OursWithKey,
    /// What it was.
    Old,
    /// Nothing that answers.
    Silent,
    /// A device of ours whose bootloader waits for somebody to confirm the image.
    OnTrial,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            version: "1.0.0",
            installs: false,
            dies_at: None,
            answers: true,
            chunk_takes: Duration::ZERO,
            becomes: Becomes::Ours,
        }
    }
}

/// A device.
pub(crate) struct Fielded {
    device: Arc<Device>,
    threads: Vec<JoinHandle<()>>,
}

struct Device {
    folder: PathBuf,
    role: Role,
    address: String,
    manner: Manner,
    /// On, with the old firmware.
    is_on: AtomicBool,
    /// `Update` is at work: a second one fails.
    updates: AtomicBool,
    has_died: AtomicBool,
    /// Images that were begun.
    posts: AtomicUsize,
    /// What a receiver took for the transmitter.
    passed_on: AtomicUsize,
    /// The image that it runs on trial.
    trial: Mutex<Option<String>>,
    /// What is in its file system.
    staged: Mutex<Vec<u8>>,
    restart: Mutex<Option<Restart>>,
    /// Frames that wait to be sent.
    outbox: Mutex<Vec<Vec<u8>>>,
    /// The numbers of the versions that others announced.
    heard: Mutex<Vec<u32>>,
    /// Held while its radio is on.
    air: Mutex<()>,
    board: Mutex<Option<Board>>,
}

enum Restart {
    /// As it was.
    PowerLoss,
    /// With what it was given.
    Image(Vec<u8>),
}

impl Fielded {
    /// On, at this address; port 0 is any.
    pub(crate) fn new(folder: &Path, role: Role, address: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let device = Arc::new(Device {
            folder: folder.to_owned(),
            role,
            address: listener.local_addr().unwrap().to_string(),
            manner,
            is_on: AtomicBool::new(true),
            updates: AtomicBool::new(false),
            has_died: AtomicBool::new(false),
            posts: AtomicUsize::new(0),
            passed_on: AtomicUsize::new(0),
            trial: Mutex::default(),
            staged: Mutex::default(),
            restart: Mutex::default(),
            outbox: Mutex::default(),
            heard: Mutex::default(),
            air: Mutex::default(),
            board: Mutex::default(),
        });
        let (listens, speaks) = (Arc::clone(&device), Arc::clone(&device));
        let threads = vec![
            thread::spawn(move || listens.listen(listener)),
            thread::spawn(move || speaks.speak()),
        ];
        Self { device, threads }
    }

    pub(crate) fn address(&self) -> &str {
        &self.device.address
    }

    /// How often an image was begun.
    pub(crate) fn posts(&self) -> usize {
        self.device.posts.load(Ordering::SeqCst)
    }

    /// How often a receiver took something for the transmitter.
    pub(crate) fn passed_on(&self) -> usize {
        self.device.passed_on.load(Ordering::SeqCst)
    }

    /// The numbers of versions that it has heard.
    pub(crate) fn heard(&self) -> Vec<u32> {
        self.device.heard.lock().unwrap().clone()
    }

    /// Whether it runs the old firmware.
    pub(crate) fn is_old(&self) -> bool {
        self.device.is_on.load(Ordering::SeqCst)
    }

    /// Somebody comes with a cable, and brings the image and the group's key.
    pub(crate) fn flash_by_cable(&mut self, image: &[u8]) {
        self.switch_off();
        *self.device.board.lock().unwrap() = None;
        // A new flash, as a cable makes it.
        drop(fs::remove_file(self.device.folder.join("new-receiver.flash")));
        self.device.become_ours(image, Becomes::OursWithKey);
    }

    fn switch_off(&mut self) {
        self.device.is_on.store(false, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Fielded {
    fn drop(&mut self) {
        self.switch_off();
        *self.device.board.lock().unwrap() = None;
    }
}

impl Device {
    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::SeqCst)
    }

    fn listen(self: &Arc<Self>, mut listener: TcpListener) {
        while self.is_on() {
            listener.set_nonblocking(true).unwrap();
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    let device = Arc::clone(self);
                    thread::spawn(move || device.serve(&stream));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
            let Some(restart) = self.restart.lock().unwrap().take() else { continue };
            drop(listener);
            thread::sleep(AWAY);
            match (restart, self.manner.becomes) {
                (Restart::PowerLoss, _) | (_, Becomes::Old) => (),
                (Restart::Image(image), Becomes::OnTrial) => {
                    let hash = read_image(&image).unwrap().image_hash.to_string();
                    *self.trial.lock().unwrap() = Some(hash);
                }
                (Restart::Image(image), becomes) => {
                    self.is_on.store(false, Ordering::SeqCst);
                    if becomes != Becomes::Silent {
                        self.become_ours(&image, becomes);
                    }
                    return;
                }
            }
            self.updates.store(false, Ordering::SeqCst);
            listener = bind(&self.address);
        }
    }

    fn become_ours(&self, image: &[u8], becomes: Becomes) {
        // The radio is one and the same.
        let _off = self.air.lock().unwrap();
        let file = format!("taken-{}.bin", self.role.name());
        fs::write(self.folder.join(&file), image).unwrap();
        let mut options = vec!["--firmware".to_owned(), file];
        let board = match becomes {
            Becomes::OursWithKey => Board::new(&self.folder, self.role, options),
            _ => {
                options.push("--member".to_owned());
                Board::without_key(&self.folder, self.role, options)
            }
        };
        let mut board = board.placed(&self.address);
        drop(bind(&self.address));
        board.switch_on();
        *self.board.lock().unwrap() = Some(board);
    }

    /// Announces itself in the 51 bytes of the original code for as long as it is on, and hears
    /// others.
    fn speak(&self) {
        let _on = self.air.lock().unwrap();
        let last = if self.role == Receiver { 1 } else { 2 };
        let air = self.folder.join("pair.group.air");
        let radio = Radio::join(&air, DeviceId([2, 0, 0, 0, 0, last]), Impairments::default());
        let radio = radio.unwrap();
        let mut frame = [0; PAYLOAD_BYTES_MAX];
        let mut spoken = Instant::now();
        while self.is_on() {
            if spoken.elapsed() > ANNOUNCE_EVERY {
                spoken = Instant::now();
                self.outbox.lock().unwrap().push(self.announce());
            }
            for frame in self.outbox.lock().unwrap().drain(..) {
                radio.try_send(DeviceId::BROADCAST, &frame).unwrap();
            }
            while let Some(received) = radio.try_recv(&mut frame) {
                // Old firmware asks for a minimum length, and reads what it knows.
                let heard = &frame[..received.length_bytes];
                if heard[0] == 0x10 && heard.len() >= 47 {
                    let number = u32::from_le_bytes(heard[1..5].try_into().unwrap());
                    self.heard.lock().unwrap().push(number);
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn number(&self) -> u32 {
        self.manner.version.split('.').fold(0, |sum, part| sum * 100 + part.parse::<u32>().unwrap())
    }

    fn announce(&self) -> Vec<u8> {
        let mut frame = vec![0x10];
        frame.extend(self.number().to_le_bytes());
        frame.push(1);
        frame.extend(10_000_u32.to_le_bytes());
        let mut text = |text: &str, size: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(size, 0);
            frame.extend(bytes);
        };
        text(&self.role.name().to_uppercase(), 16);
        text("Feb  3 2026", 12);
        text("14:30:22", 9);
        frame.extend(7_u32.to_le_bytes());
        assert_eq!(frame.len(), 51);
        frame
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().ok()?;
            }
            match line.as_str() {
                "" => break,
                _ if first.is_empty() => first = line,
                _ => (),
            }
        }
        let line = first.strip_suffix(" http/1.1")?;
        let installs = self.manner.installs;
        if let Some(image) = self.trial.lock().unwrap().clone() {
            let body = json!({
                "role": self.role.name(), "id": "02:00:00:00:00:02", "version": "1.1.0",
                "image": image, "on_trial": true,
            });
            return answer(stream, 200, &body);
        }
        match (self.role, line) {
            (Transmitter, "get /api/firmware_info") => answer(stream, 200, &self.info()),
            (Transmitter, "post /ota_upload") => {
                let image = self.take(stream, &mut reader, length)?;
                self.install(stream, image)
            }
            (Receiver, "get /api/version") if installs => answer(stream, 200, &self.version()),
            (Receiver, "post /api/ota/upload") if installs => {
                let image = self.take(stream, &mut reader, length)?;
                *self.staged.lock().unwrap() = image;
                self.updates.store(false, Ordering::SeqCst);
                answer(stream, 200, &json!({ "success": true, "size": length }))
            }
            (Receiver, "post /api/ota/install") if installs => {
                let image = self.staged.lock().unwrap().split_off(0);
                self.install(stream, image)
            }
            (Receiver, "post /api/ota_upload") => {
                self.passed_on.fetch_add(1, Ordering::SeqCst);
                let image = self.take(stream, &mut reader, length)?;
                let size = u32::try_from(image.len()).unwrap().to_le_bytes();
                self.outbox.lock().unwrap().push([&[7][..], &size].concat());
                self.updates.store(false, Ordering::SeqCst);
                answer(stream, 200, &json!({ "success": true }))
            }
            (Receiver, "get /ota") => answer(stream, 200, &json!("<html>")),
            (Receiver, "get /api/ota_upload") | (Transmitter, "get /ota_upload") => {
                wrong(stream, 405)
            }
            (Receiver, "get /api/ota/upload" | "get /api/ota/install") if installs => {
                wrong(stream, 405)
            }
            // Also `/api/ota_upload_receiver`, which its own page calls.
            _ => wrong(stream, 404),
        }
    }

    fn info(&self) -> Value {
        json!({
            "valid": true, "env": "olimex_esp32_poe2", "device": "TRANSMITTER",
            "version": self.manner.version, "build_date": "2026-02-03 14:30:22",
        })
    }

    fn version(&self) -> Value {
        json!({
            "device": "RECEIVER", "hardware": "LilyGo-T-Display-S3", "version": self.manner.version,
            "version_number": self.number(), "protocol_version": 1, "build_date": "Feb  3 2026",
            "build_time": "14:30:22", "min_compatible": 10000, "transmitter_connected": false,
            "uptime_seconds": 7, "free_heap": 150_000,
        })
    }

    /// Takes a body for an image, whatever it is.
    fn take(
        &self,
        stream: &TcpStream,
        reader: &mut BufReader<&TcpStream>,
        length: usize,
    ) -> Option<Vec<u8>> {
        self.posts.fetch_add(1, Ordering::SeqCst);
        if self.updates.swap(true, Ordering::SeqCst) {
            wrong(stream, 500)?;
            return None;
        }
        let mut image = Vec::new();
        while image.len() < length {
            let mut chunk = vec![0; 1024.min(length - image.len())];
            if reader.read_exact(&mut chunk).is_err() {
                self.updates.store(false, Ordering::SeqCst);
                return None;
            }
            image.extend(chunk);
            let dies = self.manner.dies_at.is_some_and(|at| image.len() >= at);
            if dies && !self.has_died.swap(true, Ordering::SeqCst) {
                *self.restart.lock().unwrap() = Some(Restart::PowerLoss);
                return None;
            }
            thread::sleep(self.manner.chunk_takes);
        }
        Some(image)
    }

    /// What `Update.end` finds out: whether it is whole, and nothing else.
    fn install(&self, stream: &TcpStream, image: Vec<u8>) -> Option<()> {
        if image.first() != Some(&0xE9) || read_image(&image).is_err() {
            self.updates.store(false, Ordering::SeqCst);
            return wrong(stream, 500);
        }
        if self.manner.answers {
            let text = "OTA update successful, rebooting";
            answer(stream, 200, &json!({ "success": true, "message": text }))?;
        }
        *self.restart.lock().unwrap() = Some(Restart::Image(image));
        Some(())
    }
}

fn answer(mut stream: &TcpStream, status: u16, body: &Value) -> Option<()> {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} Text\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).ok()
}

/// As Espressif's server says it, in plain text.
fn wrong(mut stream: &TcpStream, status: u16) -> Option<()> {
    let body = match status {
        404 => "Nothing matches the given URI",
        405 => "Specified method is invalid for this resource",
        _ => "Update begin failed",
    };
    let head = format!("HTTP/1.1 {status} Text\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).ok()
}

/// An address is free a moment after whoever had it is gone.
fn bind(address: &str) -> TcpListener {
    for _ in 0..400 {
        if let Ok(listener) = TcpListener::bind(address) {
            return listener;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("`{address}` is not free")
}

/// How long a restart takes.
const AWAY: Duration = Duration::from_millis(400);
/// Ten seconds in the original.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(200);
