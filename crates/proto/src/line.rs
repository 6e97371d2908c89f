//! Frames on a serial line: where a device has a wire, and not a radio, between it and the others.
//!
//! ```text
//! packet   version 1 | source 6 | destination 6 | payload 0..=1470 | CRC-32 of all before it, LE
//! line     [00] COBS(packet) 00 COBS(packet) 00 …
//! ```
//!
//! Stuffing takes every zero out of a packet, so a zero is an end wherever a reader begins. What
//! stands between two ends and is no packet (boot messages, noise, half a packet) is dropped and
//! counted; it costs itself, and whatever it runs into without a zero between them. So whoever has
//! been silent begins with a zero.
//!
//! # Not here
//!
//! What the frames say, and who may say it: see [`crate::frame`]. A line promises no more than a
//! radio does.

use core::fmt;

use cobs::{CobsEncoder, DecodeResult, DecoderState};
use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

use crate::id::DeviceId;

/// What a packet's first byte says, as this code writes it.
pub const VERSION: u8 = 1;
/// The most that a packet carries, in bytes: as a frame of ESP-NOW version 2.
pub const PAYLOAD_BYTES_MAX: usize = 1470;
/// The longest packet before stuffing, in bytes.
pub const PACKET_BYTES_MAX: usize = HEAD_BYTES + PAYLOAD_BYTES_MAX + CRC_BYTES;
/// The most that a packet takes on the line, in bytes, with a zero at either end.
pub const LINE_BYTES_MAX: usize = 1 + cobs::max_encoding_length(PACKET_BYTES_MAX) + 1;

/// A frame, from whom and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Who says that it sent it. Nothing here proves it.
    pub source: DeviceId,
    /// One device or [`DeviceId::BROADCAST`].
    pub destination: DeviceId,
    /// The frame, at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: &'a [u8],
}

/// What was on the line right before a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Another packet of ours, whose end is this one's beginning.
    Packet,
    /// Silence, which may have been noise for others: a zero comes first.
    Silence,
}

/// Why a packet was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketError {
    /// The payload is longer than a packet carries.
    PayloadTooLong {
        /// Its length.
        found_bytes: usize,
    },
    /// It does not fit into the buffer; one of [`LINE_BYTES_MAX`] bytes holds any.
    BufferTooShort {
        /// The buffer's length.
        found_bytes: usize,
    },
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PayloadTooLong { found_bytes } => write!(
                f,
                "payload has {found_bytes} bytes; a packet carries at most {PAYLOAD_BYTES_MAX}"
            ),
            Self::BufferTooShort { found_bytes } => write!(
                f,
                "packet does not fit into {found_bytes} bytes; {LINE_BYTES_MAX} hold any packet"
            ),
        }
    }
}

impl core::error::Error for PacketError {}

impl<'a> Packet<'a> {
    /// Writes what goes on the line for this packet; returns its length in `buffer`.
    pub fn encode(&self, before: Before, buffer: &mut [u8]) -> Result<usize, PacketError> {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(PacketError::PayloadTooLong { found_bytes: self.payload.len() });
        }
        let too_short = PacketError::BufferTooShort { found_bytes: buffer.len() };
        let begin = match before {
            Before::Packet => 0,
            Before::Silence => {
                *buffer.first_mut().ok_or(too_short)? = END;
                1
            }
        };
        let into = buffer.get_mut(begin..).ok_or(too_short)?;
        let mut digest = CRC.digest();
        let mut stuffed = CobsEncoder::new(into);
        for part in [&[VERSION][..], &self.source.0, &self.destination.0, self.payload] {
            digest.update(part);
            stuffed.push(part).map_err(|_| too_short)?;
        }
        stuffed.push(&digest.finalize().to_le_bytes()).map_err(|_| too_short)?;
        let end = begin + stuffed.finalize();
        *buffer.get_mut(end).ok_or(too_short)? = END;
        Ok(end + 1)
    }

    /// What a packet's fields say, without its stuffing and its end; `None` if it is too short.
    fn fields(bytes: &'a [u8]) -> Option<(u8, Self)> {
        let (content, _) = bytes.split_last_chunk::<CRC_BYTES>()?;
        let (&version, rest) = content.split_first()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (destination, payload) = rest.split_first_chunk()?;
        let (source, destination) = (DeviceId(*source), DeviceId(*destination));
        Some((version, Self { source, destination, payload }))
    }

    fn decode(bytes: &'a [u8]) -> Result<Self, Stray> {
        let (version, packet) = Self::fields(bytes).ok_or(Stray::TooShort)?;
        let (content, crc) = bytes.split_last_chunk().ok_or(Stray::TooShort)?;
        if CRC.checksum(content) != u32::from_le_bytes(*crc) {
            return Err(Stray::Crc);
        }
        if version == VERSION { Ok(packet) } else { Err(Stray::Version) }
    }
}

/// What stood between two zeros and is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stray {
    Stuffing,
    TooShort,
    TooLong,
    Crc,
    Version,
}

/// What was not a packet, by its cause; each counts what stood between two zeros as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strays {
    /// Not stuffed as a packet is: text, noise, or cut.
    pub stuffing: u32,
    /// Shorter than a packet without payload.
    pub too_short: u32,
    /// Longer than [`PACKET_BYTES_MAX`].
    pub too_long: u32,
    /// The checksum is another one.
    pub crc: u32,
    /// Whole, and of another version.
    pub version: u32,
}

impl Strays {
    /// All of them.
    pub const fn total(&self) -> u32 {
        let Self { stuffing, too_short, too_long, crc, version } = *self;
        let damaged = stuffing.saturating_add(too_short).saturating_add(too_long);
        damaged.saturating_add(crc).saturating_add(version)
    }

    const fn count(&mut self, stray: Stray) {
        let counter = match stray {
            Stray::Stuffing => &mut self.stuffing,
            Stray::TooShort => &mut self.too_short,
            Stray::TooLong => &mut self.too_long,
            Stray::Crc => &mut self.crc,
            Stray::Version => &mut self.version,
        };
        *counter = counter.saturating_add(1);
    }
}

/// Finds the packets in what comes from a line. Holds one of them, in about 1.5 KiB.
#[derive(Debug)]
pub struct Reader {
    stuffing: DecoderState,
    packet: [u8; PACKET_BYTES_MAX],
    /// Bytes since the last end, those for which there was no room included.
    length: usize,
    strays: Strays,
}

impl Reader {
    /// Nothing has come.
    pub const fn new() -> Self {
        Self {
            stuffing: DecoderState::Idle,
            packet: [0; PACKET_BYTES_MAX],
            length: 0,
            strays: Strays { stuffing: 0, too_short: 0, too_long: 0, crc: 0, version: 0 },
        }
    }

    /// Takes a byte; returns the packet that it ends, if it ends one.
    pub fn push(&mut self, byte: u8) -> Option<Packet<'_>> {
        if self.ends_packet(byte) { self.packet() } else { None }
    }

    /// Takes bytes off the front of `bytes` up to the end of a packet, and returns it; `None` when
    /// all were taken.
    ///
    /// ```
    /// # use lockstep_proto::line::Reader;
    /// # let (mut reader, received) = (Reader::new(), [0u8; 4]);
    /// let mut rest = &received[..];
    /// while let Some(packet) = reader.read(&mut rest) {
    ///     println!("{} bytes from {}", packet.payload.len(), packet.source);
    /// }
    /// ```
    pub fn read(&mut self, bytes: &mut &[u8]) -> Option<Packet<'_>> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if self.ends_packet(byte) {
                return self.packet();
            }
        }
        None
    }

    /// Takes a byte; whether a good packet is held now. What is none was counted.
    fn ends_packet(&mut self, byte: u8) -> bool {
        let is_whole = match self.stuffing.feed(byte) {
            Ok(DecodeResult::NoData) => return false,
            Ok(DecodeResult::DataStart) => {
                self.length = 0;
                return false;
            }
            Ok(DecodeResult::DataContinue(byte)) => {
                // What is too long goes on to its end, which is where the next one begins.
                if let Some(place) = self.packet.get_mut(self.length) {
                    *place = byte;
                }
                self.length = self.length.saturating_add(1);
                return false;
            }
            Ok(DecodeResult::DataComplete) => true,
            Err(_) => false,
        };
        let judged = match self.packet.get(..self.length) {
            None => Err(Stray::TooLong),
            Some(_) if !is_whole => Err(Stray::Stuffing),
            Some(bytes) => Packet::decode(bytes),
        };
        match judged {
            Ok(_) => true,
            Err(stray) => {
                self.strays.count(stray);
                false
            }
        }
    }

    /// What is held, once it was judged to be good.
    fn packet(&self) -> Option<Packet<'_>> {
        Packet::fields(self.packet.get(..self.length)?).map(|(_, packet)| packet)
    }

    /// The line was another one before: half a packet from there is no part of what comes now.
    pub const fn forget(&mut self) {
        self.stuffing = DecoderState::Idle;
    }

    /// What was no packet so far.
    pub const fn strays(&self) -> Strays {
        self.strays
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

const HEAD_BYTES: usize = 1 + 6 + 6;
const CRC_BYTES: usize = 4;
/// What ends a packet.
const END: u8 = 0;
/// Without a table: 1 KiB of flash is dear to a chip, and a line is slow.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);
