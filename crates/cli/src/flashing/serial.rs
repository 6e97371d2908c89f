//! A board at a serial port, in its ROM's bootloader: what it is, what it has, and writing to it.
//!
//! The protocol is espflash's. It puts a small program of Espressif's (the stub) into the chip's
//! RAM first, which writes faster, reads flash back and compares it; nothing of that is in flash.

use std::borrow::Cow;
use std::io::ErrorKind as IoErrorKind;
use std::time::Duration;

use espflash::command::{Command, CommandType};
use espflash::connection::{Connection, ResetAfterOperation, ResetBeforeOperation};
use espflash::flasher::Flasher;
use espflash::image_format::Segment;
use espflash::target::ProgressCallbacks;
use indicatif::ProgressBar;
use lockstep_agent::layout::Layout;
use lockstep_proto::image::{self, ChipId};
use lockstep_proto::partition::{PartitionTable, TABLE_BYTES, TABLE_OFFSET};
use lockstep_sim::board;
use lockstep_sim::flash::MemFlash;
use md5::{Digest as _, Md5};
use serialport::{ErrorKind, SerialPortInfo, SerialPortType, UsbPortInfo};

use super::plan::{Found, store_bytes};
use super::{Plan, Region, table};
use crate::error::CommandError;
use crate::ui::{Ui, listed};

/// How a board gets into its ROM's bootloader, and out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// By the lines of its serial adapter, or by its USB port.
    Lines,
    /// A person does it.
    ByHand,
}

/// A board that answers.
#[derive(Debug)]
pub struct Board {
    /// Its port.
    pub port: String,
    /// Its chip.
    pub chip: ChipId,
    /// Its address, if it could be read.
    pub mac: Option<String>,
    flasher: Flasher,
}

/// The port that was named, or the only one that a board can be at.
pub fn choose_port(named: Option<&str>) -> Result<String, CommandError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let ports = serialport::available_ports().unwrap_or_default();
    let usb: Vec<&SerialPortInfo> = ports.iter().filter(|port| usb_of(port).is_some()).collect();
    match usb[..] {
        [only] => Ok(only.port_name.clone()),
        [] => Err(CommandError::failed("There is no USB serial port with a board")
            .hinted("Connect the board with a cable that carries data, or name its port: --port.")),
        _ => {
            let names = listed(usb.iter().map(|port| format!("`{}`", port.port_name)));
            let mut error = CommandError::failed(format!("There is more than one board: {names}"));
            for port in usb {
                error = error.detailed(described(port), None);
            }
            Err(error.hinted("Say which: --port PORT"))
        }
    }
}

fn usb_of(port: &SerialPortInfo) -> Option<&UsbPortInfo> {
    match &port.port_type {
        SerialPortType::UsbPort(usb) => Some(usb),
        _ => None,
    }
}

fn described(port: &SerialPortInfo) -> String {
    let usb = usb_of(port);
    let parts = usb.map(|usb| [usb.product.as_deref(), usb.serial_number.as_deref()]);
    let more = parts.into_iter().flatten().flatten().collect::<Vec<_>>().join(", ");
    crate::ui::tame(format!("{}  {more}", port.port_name).trim_end())
}

impl Board {
    /// Opens the port and waits for the chip's answer.
    pub fn connect(port: &str, baud: u32, reset: Reset) -> Result<Self, CommandError> {
        let opened = serialport::new(port, ROM_BAUD).timeout(ANSWER_MAX).open_native();
        let opened = opened.map_err(|error| not_opened(port, &error))?;
        let known = serialport::available_ports().unwrap_or_default();
        let usb = known.iter().find(|known| known.port_name == port).and_then(usb_of).cloned();
        let usb = usb.unwrap_or(UsbPortInfo {
            vid: 0,
            pid: 0,
            serial_number: None,
            manufacturer: None,
            product: None,
        });
        let (before, after) = match reset {
            Reset::Lines => (ResetBeforeOperation::DefaultReset, ResetAfterOperation::HardReset),
            Reset::ByHand => (ResetBeforeOperation::NoReset, ResetAfterOperation::NoReset),
        };
        let connection = Connection::new(opened, usb, after, before, ROM_BAUD);
        let baud = (baud != ROM_BAUD).then_some(baud);
        let flasher = Flasher::connect(connection, true, true, true, None, baud);
        let mut flasher = flasher.map_err(|error| no_answer(port, reset, &error))?;
        let target = flasher.chip();
        let mac = target.mac_address(flasher.connection()).ok();
        Ok(Self { port: port.to_owned(), chip: ChipId(target.id()), mac, flasher })
    }

    /// What the board has. With `is_erased` it counts as new.
    pub fn look(&mut self, is_erased: bool) -> Result<Found, CommandError> {
        self.check_open()?;
        let target = self.flasher.chip();
        let lost = |error: &espflash::Error, port: &str| stopped(port, "it was read", error);
        let size = self.flasher.flash_detect().map_err(|error| lost(&error, &self.port))?;
        let crystal = target.xtal_frequency(self.flasher.connection()).ok();
        let revision = target.revision(self.flasher.connection()).ok();
        let revision = revision.map_or(0, |(major, minor)| major * 100 + minor);
        let mut found = Found {
            flash_bytes: size.map(espflash::flasher::FlashSize::size),
            crystal,
            revision: u16::try_from(revision).unwrap_or(0),
            ..Found::default()
        };
        if is_erased {
            return Ok(found);
        }
        let bytes = self.read(TABLE_OFFSET, TABLE_BYTES)?;
        let table = PartitionTable::parse(&bytes).ok();
        let layout = table.as_ref().and_then(|table| table::check(table).ok());
        if let (Some(table), Some(layout)) = (table, layout) {
            self.look_at_record(&mut found, &table, &layout)?;
            found.table = Some(table);
        }
        let at = self.chip.bootloader_offset();
        found.bootloader = self.read(at, (TABLE_OFFSET - at) as usize)?;
        Ok(found)
    }

    /// A chip that decrypts its flash, or checks a signature before it boots, would be left dead.
    fn check_open(&mut self) -> Result<(), CommandError> {
        let Ok(info) = self.flasher.security_info() else { return Ok(()) };
        let is_encrypted = info.flash_crypt_cnt.count_ones() % 2 == 1;
        let what = match (info.flags & SECURE_BOOT, is_encrypted) {
            (0, false) => return Ok(()),
            (_, true) => "flash encryption",
            (_, false) => "secure boot",
        };
        Err(CommandError::failed(format!(
            "The board at {} has {what} enabled, and would not start what is written like this",
            self.port
        ))
        .hinted("Flash it with the tools that it was locked with: esptool and espsecure."))
    }

    fn look_at_record(
        &mut self,
        found: &mut Found,
        table: &PartitionTable,
        layout: &Layout,
    ) -> Result<(), CommandError> {
        let record = layout.record();
        let mut flash = MemFlash::new(table.end());
        let log = self.read(record.offset, record.size_bytes as usize)?;
        put(&mut flash, record.offset, &log);
        if !board::has_record(&mut flash, record).unwrap_or(false) {
            return Ok(());
        }
        let rest = (store_bytes(layout) - record.size_bytes) as usize;
        let mut store = log;
        store.extend(self.read(record.offset + record.size_bytes, rest)?);
        found.store = Some(store);
        let [_, other] = layout.slots;
        // A slot without an image has no configuration to be kept.
        let hash = image::quick_hash(other.size_bytes, |at, piece| {
            let bytes = self.read(other.offset + at, piece.len())?;
            piece.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            Ok::<(), CommandError>(())
        })?;
        found.other_image = hash.ok();
        Ok(())
    }

    /// Reads flash. A serial line may lose a byte, so it is tried again.
    fn read(&mut self, offset: u32, length: usize) -> Result<Vec<u8>, CommandError> {
        let length = u32::try_from(length).unwrap_or(0);
        let mut tries = 0;
        loop {
            tries += 1;
            match read_once(self.flasher.connection(), offset, length) {
                Ok(bytes) => return Ok(bytes),
                Err(_) if tries < READ_TRIES_MAX => (),
                Err(error) => return Err(stopped(&self.port, "its flash was read", &error)),
            }
        }
    }

    /// Erases all of the flash.
    pub fn erase(&mut self) -> Result<(), CommandError> {
        let erased = self.flasher.erase_flash();
        erased.map_err(|error| stopped(&self.port, "its flash was erased", &error))
    }

    /// Writes what differs, compares it with what is in flash then, and starts the board. Returns
    /// which regions were written.
    pub fn write(mut self, ui: &Ui, plan: &Plan) -> Result<Vec<bool>, CommandError> {
        let segments: Vec<Segment<'_>> = plan
            .regions
            .iter()
            .map(|region| Segment { addr: region.offset, data: Cow::Borrowed(&region.bytes) })
            .collect();
        let mut progress = Progress::new(ui, &plan.regions);
        let done = self.flasher.write_bins_to_flash(&segments, &mut progress);
        let Progress { written, at, .. } = progress;
        match done {
            Ok(()) => Ok(written),
            Err(error) => {
                let doing = match plan.regions.get(at) {
                    Some(region) => {
                        format!("its {} was written at {:#x}", region.what, region.offset)
                    }
                    None => "it was to start".to_owned(),
                };
                Err(stopped(&self.port, &doing, &error).hinted(
                    "The board may not start as it is. Give the same command again: it writes \
                     what is missing.",
                ))
            }
        }
    }

    /// Starts the board with what it has.
    pub fn restart(mut self) {
        // It is left as it was found; a board that does not start is seen to be in its bootloader.
        let target = self.flasher.chip();
        let _ = self.flasher.connection().reset_after(true, target);
    }
}

fn put(flash: &mut MemFlash, offset: u32, bytes: &[u8]) {
    let place = flash.bytes.get_mut(offset as usize..).unwrap_or_default();
    place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

/// One packet at a time: espflash clears what has come in before it answers.
fn read_once(
    connection: &mut Connection,
    offset: u32,
    size: u32,
) -> Result<Vec<u8>, espflash::Error> {
    let command =
        Command::ReadFlash { offset, size, block_size: READ_BLOCK_BYTES, max_in_flight: 1 };
    connection
        .with_timeout(CommandType::ReadFlash.timeout(), |connection| connection.command(command))?;
    let mut bytes = Vec::new();
    while bytes.len() < size as usize {
        let piece = packet_of(connection)?;
        if piece.is_empty() {
            return Err(espflash::Error::IncorrectResponse);
        }
        bytes.extend(piece);
        connection.write_raw(u32::try_from(bytes.len()).unwrap_or(u32::MAX))?;
    }
    let digest = packet_of(connection)?;
    if digest != Md5::digest(&bytes)[..] {
        return Err(espflash::Error::DigestMismatch(digest, Md5::digest(&bytes).to_vec()));
    }
    Ok(bytes)
}

fn packet_of(connection: &mut Connection) -> Result<Vec<u8>, espflash::Error> {
    match connection.read_flash_response()? {
        Some(response) => response.value.try_into(),
        None => Err(espflash::Error::IncorrectResponse),
    }
}

/// Shows how far it is, and remembers it.
struct Progress<'a> {
    ui: &'a Ui,
    regions: &'a [Region],
    bar: Option<ProgressBar>,
    chunks: u64,
    at: usize,
    written: Vec<bool>,
}

impl<'a> Progress<'a> {
    const fn new(ui: &'a Ui, regions: &'a [Region]) -> Self {
        Self { ui, regions, bar: None, chunks: 0, at: 0, written: Vec::new() }
    }
}

impl ProgressCallbacks for Progress<'_> {
    fn init(&mut self, _address: u32, total: usize) {
        let Some(region) = self.regions.get(self.at) else { return };
        self.chunks = total as u64;
        self.bar = Some(self.ui.bytes_bar(region.what, region.bytes.len() as u64));
    }

    fn update(&mut self, current: usize) {
        if let Some(bar) = &self.bar {
            let total = bar.length().unwrap_or_default();
            bar.set_position(total * current as u64 / self.chunks.max(1));
        }
    }

    fn verifying(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_message("comparing");
        }
    }

    fn finish(&mut self, skipped: bool) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(region) = self.regions.get(self.at) {
            let done = if skipped { "was there already" } else { "written and compared" };
            self.ui.note(format_args!("{:12} {done}", region.what));
        }
        self.written.push(!skipped);
        self.at += 1;
    }
}

fn not_opened(port: &str, error: &serialport::Error) -> CommandError {
    let failed = CommandError::failed(format!("Cannot open the port `{port}`")).because(error);
    failed.hinted(match error.kind() {
        ErrorKind::NoDevice if error.to_string().contains("busy") => {
            "Another program has it: a serial monitor, or ModemManager. Close that first."
        }
        ErrorKind::Io(IoErrorKind::PermissionDenied) => {
            "On Linux ports belong to the group `dialout`: `sudo usermod -aG dialout $USER`, then \
             log in again."
        }
        ErrorKind::Io(IoErrorKind::NotFound) | ErrorKind::NoDevice => {
            "Is the board connected, by a cable that carries data? Or leave --port out."
        }
        _ => "Is it a serial port, with a board at it?",
    })
}

fn no_answer(port: &str, reset: Reset, error: &espflash::Error) -> CommandError {
    let failed = CommandError::failed(format!("No chip answers at {port}")).because(error);
    failed.hinted(match reset {
        Reset::Lines => {
            "Hold its BOOT button, press and release RESET, let go of BOOT; then again, with \
             --no-reset."
        }
        Reset::ByHand => {
            "Hold its BOOT button and press RESET: only then its bootloader listens. And is it \
             this port?"
        }
    })
}

fn stopped(port: &str, doing: &str, error: &espflash::Error) -> CommandError {
    let what = match error {
        espflash::Error::RomError(_) => "reported an error",
        espflash::Error::VerifyFailed => "did not take what it was sent",
        _ => "stopped answering",
    };
    CommandError::failed(format!("The board at {port} {what} while {doing}")).because(error)
}

/// What every ROM begins with.
pub const ROM_BAUD: u32 = 115_200;
/// How long a chip may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Small, since each is waited for: a byte that is lost costs that much.
const READ_BLOCK_BYTES: u32 = 0x400;
const READ_TRIES_MAX: u32 = 3;
/// Bit of the security information.
const SECURE_BOOT: u32 = 1;
