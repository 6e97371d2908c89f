//! What survives power loss: an append log in two halves, so that a cut at any moment leaves the
//! old or the new value of the entry being written, and every other entry as it was.
//!
//! A half is 8 KiB. Its header is 16 bytes: magic `LSR1`, format u16, reserved u16, sequence u32,
//! CRC-32 of those twelve. Entries follow, each in whole words: kind u8, version u8, length u16,
//! payload, padding (0xFF), CRC-32 of all that. The latest entry of a kind counts. When a half is
//! full, the latest entries are copied into the other one, whose header is written last: from then
//! on it is in force, since its sequence number is higher. The same happens before anything is
//! written behind a torn entry.
//!
//! A cut can leave bits that read differently each time. So before the first write of a boot the
//! half in force is made firm: its header and the checksum of its last entry are programmed once
//! more, the other half's magic is cleared, and an empty entry of kind 0 goes where the next one
//! would begin, so that a byte that only seems to be erased is all zeros then.
//!
//! The layout is frozen; kinds are only added. Entries of a kind or a version that this firmware
//! does not know are carried along unchanged. What the payloads mean is not known here.

use core::fmt;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::planted::{self, Bug};

use crate::flash::{self, CRC, FlashFault, Operation, Region, SECTOR_BYTES, bytes_u32};

/// The longest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4000;
/// Kinds are numbered below this.
pub const KINDS: u8 = 32;

/// What an entry is about. Numbers are in flash: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(u8);

impl Kind {
    /// How often this device has booted.
    pub const BOOT_NUMBER: Self = Self(1);
    /// This device's part in its last rollout.
    pub const MEMBER: Self = Self(2);
    /// The rollout that this device conducts.
    pub const ROLLOUT: Self = Self(3);
    /// Group key and members.
    pub const GROUP: Self = Self(4);
    /// Whose releases are taken.
    pub const TRUST: Self = Self(5);
    /// Releases below this epoch are refused.
    pub const EPOCH: Self = Self(6);
    /// The release that the group is on.
    pub const CURRENT: Self = Self(7);
    /// The password of the HTTP API.
    pub const PASSWORD: Self = Self(8);
    /// Past rollouts.
    pub const HISTORY: Self = Self(9);
    /// How much of which file is in the other slot.
    pub const PROGRESS: Self = Self(10);
    /// Everything else that a person has set.
    pub const SETTINGS: Self = Self(11);
    /// What is known of images that say nothing of themselves.
    pub const IMAGES: Self = Self(12);
    /// An upload that was cut off.
    pub const CUT: Self = Self(13);
    /// When the open rollout goes on.
    pub const SCHEDULE: Self = Self(14);
    /// The group's key that this device was adopted with.
    pub const KEY: Self = Self(15);
    /// Who this lead is to its server.
    pub const SERVER: Self = Self(16);
    /// What the last trial has shown of the bootloader.
    pub const BOOTLOADER: Self = Self(17);
    /// What became of the patches of the last rollout.
    pub const PATCHED: Self = Self(18);

    /// The kind with this number; `None` for 0, which says nothing, and from [`KINDS`] on.
    pub const fn new(number: u8) -> Option<Self> {
        if number != 0 && number < KINDS { Some(Self(number)) } else { None }
    }

    /// Kinds without which a device could not go on or go back. Others leave room for them.
    const fn is_vital(self) -> bool {
        matches!(
            self,
            Self::BOOT_NUMBER | Self::MEMBER | Self::TRUST | Self::EPOCH | Self::PROGRESS
        )
    }
}

/// The log, and where its latest entries stand.
#[derive(Debug, Clone)]
pub struct RecordLog {
    region: Region,
    active: Option<Half>,
    /// What a power cut before this boot left has been written once more.
    is_firm: bool,
}

/// The half that is in force.
#[derive(Debug, Clone)]
struct Half {
    offset: u32,
    header: Header,
    /// Offset of the latest entry of each kind within the half; 0: none.
    latest: [u16; KINDS as usize],
    /// Where the next entry goes, within the half.
    end: u32,
    /// The last entry: where it begins within the half.
    last: Option<(u32, Head)>,
    /// Something that is no entry follows the last one.
    torn: bool,
}

impl RecordLog {
    /// Finds the half in force and its latest entries. An erased or strange region is an empty log;
    /// nothing is written.
    pub fn open<F: ReadNorFlash>(flash: &mut F, region: Region) -> Result<Self, FlashFault> {
        let (first, second) = (region.offset, region.offset.saturating_add(HALF_BYTES));
        let one = header_at(flash, first)?.map(|header| (first, header));
        let other = header_at(flash, second)?.map(|header| (second, header));
        let newest = match (one, other) {
            (Some(one), Some(other)) => {
                Some(if one.1.sequence() >= other.1.sequence() { one } else { other })
            }
            (one, other) => one.or(other),
        };
        let active = match newest {
            Some((offset, header)) => Some(scan(flash, offset, header)?),
            None => None,
        };
        Ok(Self { region, active, is_firm: false })
    }

    /// Copies the latest payload of `kind` into `payload` and returns its version and its whole
    /// length, which may exceed the buffer: what a later version appended is cut off then.
    pub fn read<F: ReadNorFlash>(
        &self,
        flash: &mut F,
        kind: Kind,
        payload: &mut [u8],
    ) -> Result<Option<(u8, usize)>, FlashFault> {
        let Some((offset, head)) = self.find(flash, kind)? else { return Ok(None) };
        let length = usize::from(head.length).min(payload.len());
        if let Some(payload) = payload.get_mut(..length) {
            flash::read(flash, offset + HEAD_BYTES, payload)?;
        }
        Ok(Some((head.version, usize::from(head.length))))
    }

    /// Makes `payload` the latest entry of `kind`. When this returns, it is in flash and was read
    /// back; when it fails, or the power does, the entry before it is in force.
    ///
    /// An entry that is there already is not written again.
    pub fn write<F: NorFlash>(
        &mut self,
        flash: &mut F,
        kind: Kind,
        version: u8,
        payload: &[u8],
    ) -> Result<(), RecordError> {
        let too_large =
            RecordError::TooLarge { found_bytes: payload.len(), limit_bytes: PAYLOAD_BYTES_MAX };
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(too_large);
        }
        let length = u16::try_from(payload.len()).map_err(|_| too_large)?;
        let head = Head { kind, version, length };
        self.make_firm(flash).map_err(RecordError::Flash)?;
        if self.holds(flash, head, payload)? {
            return Ok(());
        }
        self.check_room(flash, head)?;
        match &mut self.active {
            Some(half) if !half.torn && half.end + head.entry_bytes() <= HALF_BYTES => {
                half.append(flash, head, payload).map_err(RecordError::Flash)
            }
            _ => self.compact(flash, head, payload).map_err(RecordError::Flash),
        }
    }

    /// What the last cut left may read differently next time: it is programmed once more, before
    /// anything is built upon it.
    fn make_firm<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), FlashFault> {
        if self.is_firm || planted::has(Bug::WeakBitsBelieved) {
            return Ok(());
        }
        if let Some(half) = &mut self.active {
            flash::write(flash, half.offset, &half.header.0)?;
            flash::verify(flash, half.offset, &half.header.0)?;
            // It might be read as the newer one some day, though it was not in this boot.
            let other = self.region.offset + (HALF_BYTES - (half.offset - self.region.offset));
            if flash::verify(flash, other, &CLEARED).is_err() {
                flash::write(flash, other, &CLEARED)?;
            }
            if let Some((at, head)) = half.last {
                let at = half.offset + at;
                let crc_at = at + head.entry_bytes() - CRC_BYTES;
                let crc = flash::crc_of(flash, at, crc_at)?.to_le_bytes();
                flash::write(flash, crc_at, &crc)?;
                flash::verify(flash, crc_at, &crc)?;
            }
            let has_room = half.end + NOTHING.entry_bytes() <= HALF_BYTES;
            // If it fails, something follows the last entry: the next one goes elsewhere.
            half.torn |= has_room && !half.torn && half.append(flash, NOTHING, &[]).is_err();
        }
        self.is_firm = true;
        Ok(())
    }

    fn find<F: ReadNorFlash>(
        &self,
        flash: &mut F,
        kind: Kind,
    ) -> Result<Option<(u32, Head)>, FlashFault> {
        let Some(half) = &self.active else { return Ok(None) };
        let at = half.latest.get(usize::from(kind.0)).copied().unwrap_or_default();
        if at == 0 {
            return Ok(None);
        }
        let offset = half.offset + u32::from(at);
        Ok(read_head(flash, offset)?.map(|head| (offset, head)))
    }

    fn holds<F: ReadNorFlash>(
        &self,
        flash: &mut F,
        head: Head,
        payload: &[u8],
    ) -> Result<bool, RecordError> {
        match self.find(flash, head.kind).map_err(RecordError::Flash)? {
            Some((offset, found)) if found == head => {
                match flash::verify(flash, offset + HEAD_BYTES, payload) {
                    Ok(()) => Ok(true),
                    Err(FlashFault { operation: Operation::Verify, .. }) => Ok(false),
                    Err(fault) => Err(RecordError::Flash(fault)),
                }
            }
            _ => Ok(false),
        }
    }

    /// Whether the latest entries with the new one fit into one half, and what is not vital leaves
    /// room for what is.
    fn check_room<F: ReadNorFlash>(&self, flash: &mut F, head: Head) -> Result<(), RecordError> {
        let (mut vital, mut other) =
            if head.kind.is_vital() { (head.entry_bytes(), 0) } else { (0, head.entry_bytes()) };
        for kind in (0..KINDS).map(Kind).filter(|&kind| kind != head.kind) {
            if let Some((_, found)) = self.find(flash, kind).map_err(RecordError::Flash)? {
                let sum = if kind.is_vital() { &mut vital } else { &mut other };
                *sum += found.entry_bytes();
            }
        }
        let reserved = if head.kind.is_vital() { vital } else { vital.max(VITAL_BYTES) };
        let (needed_bytes, limit_bytes) = (other + reserved, HALF_BYTES - HEADER_BYTES);
        if needed_bytes <= limit_bytes {
            Ok(())
        } else {
            Err(RecordError::Full { needed_bytes, limit_bytes })
        }
    }

    /// Moves to the other half with the latest entries, `head`'s replaced by the new one.
    fn compact<F: NorFlash>(
        &mut self,
        flash: &mut F,
        head: Head,
        payload: &[u8],
    ) -> Result<(), FlashFault> {
        let first = self.region.offset;
        let (target, header) = match &self.active {
            Some(half) if half.offset == first => (first + HALF_BYTES, half.header.next()),
            Some(half) => (first, half.header.next()),
            None => (first, Header::new(FORMAT, 1)),
        };
        // The sector with the header goes first: a half that is cut here is plainly none.
        for sector in (target..target + HALF_BYTES).step_by(SECTOR_BYTES as usize) {
            flash::erase(flash, sector, sector + SECTOR_BYTES)?;
        }
        let mut half = Half::empty(target, header);
        for kind in (1..KINDS).map(Kind).filter(|&kind| kind != head.kind) {
            if let Some((offset, found)) = self.find(flash, kind)? {
                half.copy(flash, found, offset)?;
            }
        }
        half.append(flash, head, payload)?;
        flash::write(flash, target, &header.0)?;
        flash::verify(flash, target, &header.0)?;
        self.active = Some(half);
        Ok(())
    }
}

impl Half {
    const fn empty(offset: u32, header: Header) -> Self {
        let latest = [0; KINDS as usize];
        Self { offset, header, latest, end: HEADER_BYTES, last: None, torn: false }
    }

    fn append<F: NorFlash>(
        &mut self,
        flash: &mut F,
        head: Head,
        payload: &[u8],
    ) -> Result<(), FlashFault> {
        let offset = self.offset + self.end;
        // Until all of it is there, whatever is written next must go elsewhere.
        self.torn = true;
        let (head_bytes, words) = (head.encode(), payload.len() - payload.len() % 4);
        let (words, rest) = payload.split_at(words);
        let mut last = [0xFF; 4];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let last = if rest.is_empty() { &last[..0] } else { &last[..] };
        let mut digest = CRC.digest();
        [&head_bytes[..], words, last].iter().for_each(|part| digest.update(part));
        let crc = digest.finalize().to_le_bytes();
        let mut at = offset;
        for part in [&head_bytes[..], words, last, &crc] {
            flash::write(flash, at, part)?;
            flash::verify(flash, at, part)?;
            at += bytes_u32(part.len());
        }
        self.finish(head);
        Ok(())
    }

    /// Copies an entry as it stands, checksum included.
    fn copy<F: NorFlash>(
        &mut self,
        flash: &mut F,
        head: Head,
        from: u32,
    ) -> Result<(), FlashFault> {
        let to = self.offset + self.end;
        let mut done = 0;
        while done < head.entry_bytes() {
            let mut piece = [0; 64];
            let length = (head.entry_bytes() - done).min(64);
            let piece = &mut piece[..length as usize];
            flash::read(flash, from + done, piece)?;
            flash::write(flash, to + done, piece)?;
            flash::verify(flash, to + done, piece)?;
            done += length;
        }
        self.finish(head);
        Ok(())
    }

    fn finish(&mut self, head: Head) {
        if let Some(latest) = self.latest.get_mut(usize::from(head.kind.0)) {
            // An offset within 8 KiB.
            *latest = u16::try_from(self.end).unwrap_or_default();
        }
        self.last = Some((self.end, head));
        self.end += head.entry_bytes();
        self.torn = false;
    }
}

/// The first words of a half, as they stand there.
#[derive(Debug, Clone, Copy)]
struct Header([u8; HEADER_BYTES as usize]);

impl Header {
    fn new(format: u16, sequence: u32) -> Self {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&format.to_le_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_le_bytes());
        let crc = CRC.checksum(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        Self(bytes)
    }

    /// Of the half after this one.
    fn next(self) -> Self {
        let [_, _, _, _, low, high, ..] = self.0;
        Self::new(u16::from_le_bytes([low, high]), self.sequence().wrapping_add(1))
    }

    const fn sequence(&self) -> u32 {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }

    /// A later format only adds meaning to what is reserved, so it is read as well.
    fn decode(bytes: [u8; HEADER_BYTES as usize]) -> Option<Self> {
        let [a, b, c, d, .., e, f, g, h] = bytes;
        let is_whole = u32::from_le_bytes([e, f, g, h]) == CRC.checksum(&bytes[..12]);
        (is_whole && [a, b, c, d] == MAGIC).then_some(Self(bytes))
    }
}

/// The first word of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    kind: Kind,
    version: u8,
    length: u16,
}

impl Head {
    fn encode(self) -> [u8; HEAD_BYTES as usize] {
        let [low, high] = self.length.to_le_bytes();
        [self.kind.0, self.version, low, high]
    }

    /// Its length with payload, padding and checksum.
    fn entry_bytes(self) -> u32 {
        HEAD_BYTES + u32::from(self.length).next_multiple_of(4) + CRC_BYTES
    }
}

fn header_at<F: ReadNorFlash>(flash: &mut F, offset: u32) -> Result<Option<Header>, FlashFault> {
    let mut bytes = [0; HEADER_BYTES as usize];
    flash::read(flash, offset, &mut bytes)?;
    Ok(Header::decode(bytes))
}

fn read_head<F: ReadNorFlash>(flash: &mut F, offset: u32) -> Result<Option<Head>, FlashFault> {
    let mut bytes = [0; HEAD_BYTES as usize];
    flash::read(flash, offset, &mut bytes)?;
    let [kind, version, low, high] = bytes;
    let length = u16::from_le_bytes([low, high]);
    Ok((bytes != [0xFF; 4]).then_some(Head { kind: Kind(kind), version, length }))
}

/// Walks the entries of a half, up to the first that is not whole.
fn scan<F: ReadNorFlash>(flash: &mut F, offset: u32, header: Header) -> Result<Half, FlashFault> {
    let mut half = Half::empty(offset, header);
    while half.end + HEAD_BYTES + CRC_BYTES <= HALF_BYTES {
        let Some(head) = read_head(flash, offset + half.end)? else { break };
        let fits = half.end + head.entry_bytes() <= HALF_BYTES;
        if !fits || !is_whole(flash, offset + half.end, head)? {
            break;
        }
        half.finish(head);
    }
    // Bytes behind the last whole entry are the remains of a write that the power cut short.
    half.torn = !flash::is_blank(flash, offset + half.end, offset + HALF_BYTES)?;
    Ok(half)
}

fn is_whole<F: ReadNorFlash>(flash: &mut F, offset: u32, head: Head) -> Result<bool, FlashFault> {
    let crc_at = offset + head.entry_bytes() - CRC_BYTES;
    let mut crc = [0; CRC_BYTES as usize];
    flash::read(flash, crc_at, &mut crc)?;
    Ok(u32::from_le_bytes(crc) == flash::crc_of(flash, offset, crc_at)?)
}

/// Why an entry was not written. The one before it is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// The flash failed.
    Flash(FlashFault),
    /// The payload is longer than an entry can be.
    TooLarge {
        /// Its length.
        found_bytes: usize,
        /// The longest.
        limit_bytes: usize,
    },
    /// The latest entries of all kinds would not fit into a half any more.
    Full {
        /// What they would need.
        needed_bytes: u32,
        /// What there is.
        limit_bytes: u32,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(_) => write!(f, "could not write the `record`"),
            Self::TooLarge { found_bytes, limit_bytes } => {
                write!(f, "`record` entry has {found_bytes} bytes, the limit is {limit_bytes}")
            }
            Self::Full { needed_bytes, limit_bytes } => {
                write!(f, "`record` would need {needed_bytes} bytes, it has {limit_bytes}")
            }
        }
    }
}

impl core::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Flash(fault) => Some(fault),
            Self::TooLarge { .. } | Self::Full { .. } => None,
        }
    }
}

impl From<FlashFault> for RecordError {
    fn from(fault: FlashFault) -> Self {
        Self::Flash(fault)
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        let offset = match error {
            RecordError::Flash(fault) => return fault.into(),
            RecordError::TooLarge { limit_bytes, .. } => bytes_u32(limit_bytes),
            RecordError::Full { limit_bytes, .. } => limit_bytes,
        };
        Self::FlashFailed { operation: Operation::Write.number(), offset }
    }
}

/// Half of the log: two sectors.
const HALF_BYTES: u32 = 0x2000;
const HEADER_BYTES: u32 = 16;
const HEAD_BYTES: u32 = 4;
const CRC_BYTES: u32 = 4;
const MAGIC: [u8; 4] = *b"LSR1";
/// In its place: no bit of it can ever make this half the one in force, until it is erased.
const CLEARED: [u8; 4] = [0; 4];
const FORMAT: u16 = 1;
/// An entry that says nothing. Older firmware carries it along like any other.
const NOTHING: Head = Head { kind: Kind(0), version: 0, length: 0 };
/// Room that the vital kinds can count on: boot number, member, trust with eight keys, epoch,
/// progress, each as long as it gets.
const VITAL_BYTES: u32 = 1024;

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
