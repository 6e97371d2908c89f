//! Version frames: who runs what, understood by every firmware for ever, never authenticated,
//! never gated.
//!
//! Fielded firmware sends several layouts under the same names; they are told apart by type and
//! length. All are little endian.
//!
//! | frame | type | bytes | layout |
//! |---|---|---|---|
//! | announce, plan | `0x10` | 47 | type, version u32, protocol u8, minimum u32, device type `[16]`, build date `[12]`, build time `[9]` |
//! | announce, code | `0x10` | 51 | the same, uptime in seconds u32 |
//! | announce, summary | `0x10`, `0x11` | 68 | C alignment: type, version u32 at 4, protocol u16 at 8, device type `[20]` at 10, then date, time, uptime |
//! | request | `0x11`, `0x12` | 5 | type, request id u32 |
//! | response, plan | `0x12` | 51 | request id u32 after the type of the plan's announce |
//! | response, code | `0x12` | 55 | the same with uptime |
//! | response, summary | `0x12`, `0x13` | 72 | request id u32 at 4, the rest four bytes later than in its announce |
//!
//! Ours are the 51- and 55-byte ones followed by an extension that fielded firmware skips, since it
//! only asks for a minimum length: `b"LS"`, extension version u8, protocol minimum u8, protocol
//! maximum u8, first eight bytes of the running image's hash. Later versions append to it.

use core::fmt;

use crate::compat::Announced;
use crate::version::ProtocolRange;
use crate::wire::{Full, Label, Reader, TooShort, Writer};

/// Type byte of an announce.
pub const ANNOUNCE: u8 = 0x10;
/// Type byte of a request.
pub const REQUEST: u8 = 0x11;
/// Type byte of a response.
pub const RESPONSE: u8 = 0x12;
/// Type byte of a response in the numbering of the summary document.
pub const SUMMARY_RESPONSE: u8 = 0x13;

/// Longest version frame of ours, in bytes.
pub const VERSION_FRAME_BYTES_MAX: usize = 55 + EXTENSION_BYTES;
const EXTENSION_BYTES: usize = 13;
const EXTENSION_MAGIC: [u8; 2] = *b"LS";
const EXTENSION_VERSION: u8 = 1;

/// What a device says of its firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announce {
    /// Version, minimum and protocol range.
    pub announced: Announced,
    /// `RECEIVER`, `TRANSMITTER`, or whatever the firmware calls itself.
    pub device_type: Label<20>,
    /// `__DATE__` of the build, or empty.
    pub build_date: Label<12>,
    /// `__TIME__` of the build, or empty.
    pub build_time: Label<9>,
    /// Seconds since boot; fielded firmware of the plan does not say.
    pub uptime_s: Option<u32>,
    /// First eight bytes of the running image's hash; only firmware of ours says.
    pub image: Option<[u8; 8]>,
}

/// A version frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionFrame {
    /// "This is what I run", at boot, every 10 s, and on change.
    Announce(Announce),
    /// "What do you run?"
    Request {
        /// Repeated by the response.
        request_id: u32,
    },
    /// The answer to a request.
    Response {
        /// The request's.
        request_id: u32,
        /// As in an announce.
        announce: Announce,
    },
}

/// Why bytes are not a version frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionFrameError {
    /// No fielded variant has this type and length.
    Shape {
        /// The type byte.
        kind: u8,
        /// The frame's length in bytes.
        len_bytes: usize,
    },
    /// The device type is not text.
    DeviceType,
}

impl fmt::Display for VersionFrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { kind, len_bytes } => {
                write!(f, "no version frame has type {kind:#04x} and {len_bytes} bytes")
            }
            Self::DeviceType => write!(f, "version frame has a `device_type` that is not text"),
        }
    }
}

impl core::error::Error for VersionFrameError {}

impl VersionFrame {
    /// Writes the frame as devices of ours send it and returns its length in bytes.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(buffer);
        match self {
            Self::Announce(announce) => {
                writer.u8(ANNOUNCE)?;
                announce.put(&mut writer)?;
            }
            Self::Request { request_id } => {
                writer.u8(REQUEST)?;
                writer.u32(*request_id)?;
            }
            Self::Response { request_id, announce } => {
                writer.u8(RESPONSE)?;
                writer.u32(*request_id)?;
                announce.put(&mut writer)?;
            }
        }
        Ok(writer.len_bytes())
    }

    /// Reads any fielded variant.
    pub fn decode(frame: &[u8]) -> Result<Self, VersionFrameError> {
        let kind = frame.first().copied().unwrap_or_default();
        let shape = VersionFrameError::Shape { kind, len_bytes: frame.len() };
        let mut reader = Reader::new(frame);
        let read = match (kind, frame.len()) {
            (ANNOUNCE, 47 | 51) => Announce::take(&mut reader).map(Self::Announce),
            (ANNOUNCE | REQUEST, 68) => Announce::take_summary(&mut reader).map(Self::Announce),
            (REQUEST | RESPONSE, 5) => take_request(&mut reader),
            (RESPONSE, 51 | 55) => take_response(&mut reader),
            (RESPONSE | SUMMARY_RESPONSE, 72) => take_summary_response(&mut reader),
            (ANNOUNCE, len) if has_extension(frame, len, 51) => {
                Announce::take(&mut reader).map(Self::Announce)
            }
            (RESPONSE, len) if has_extension(frame, len, 55) => take_response(&mut reader),
            _ => return Err(shape),
        };
        read.map_err(|error| match error {
            Malformed::Short => shape,
            Malformed::DeviceType => VersionFrameError::DeviceType,
        })
    }
}

fn has_extension(frame: &[u8], len_bytes: usize, at: usize) -> bool {
    len_bytes >= at + EXTENSION_BYTES
        && frame.get(at..at + EXTENSION_MAGIC.len()) == Some(&EXTENSION_MAGIC)
}

enum Malformed {
    Short,
    DeviceType,
}

impl From<TooShort> for Malformed {
    fn from(_: TooShort) -> Self {
        Self::Short
    }
}

fn take_request(reader: &mut Reader<'_>) -> Result<VersionFrame, Malformed> {
    reader.u8()?;
    Ok(VersionFrame::Request { request_id: reader.u32()? })
}

fn take_response(reader: &mut Reader<'_>) -> Result<VersionFrame, Malformed> {
    reader.u8()?;
    let request_id = reader.u32()?;
    Ok(VersionFrame::Response { request_id, announce: Announce::take_fields(reader)? })
}

fn take_summary_response(reader: &mut Reader<'_>) -> Result<VersionFrame, Malformed> {
    reader.u32()?;
    let request_id = reader.u32()?;
    Ok(VersionFrame::Response { request_id, announce: Announce::take_summary_fields(reader)? })
}

impl Announce {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let Announced { number, min_compatible, protocol } = self.announced;
        writer.u32(number)?;
        writer.u8(protocol.max())?;
        writer.u32(min_compatible)?;
        writer.put(self.device_type.bytes().first_chunk::<16>().unwrap_or(&[0; 16]))?;
        writer.put(self.build_date.bytes())?;
        writer.put(self.build_time.bytes())?;
        writer.u32(self.uptime_s.unwrap_or_default())?;
        writer.put(&EXTENSION_MAGIC)?;
        writer.u8(EXTENSION_VERSION)?;
        writer.u8(protocol.min())?;
        writer.u8(protocol.max())?;
        writer.put(&self.image.unwrap_or_default())
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.u8()?;
        Self::take_fields(reader)
    }

    /// The plan's fields, then uptime if there is more, then our extension if there is more.
    fn take_fields(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = reader.u32()?;
        let protocol = reader.u8()?;
        let min_compatible = reader.u32()?;
        let device_type = text(reader.array::<16>()?).ok_or(Malformed::DeviceType)?;
        let build_date = text(reader.array::<12>()?).unwrap_or(Label::EMPTY);
        let build_time = text(reader.array::<9>()?).unwrap_or(Label::EMPTY);
        let uptime_s = reader.u32().ok();
        let (protocol, image) = take_extension(reader, protocol);
        let announced = Announced { number, min_compatible, protocol };
        Ok(Self { announced, device_type, build_date, build_time, uptime_s, image })
    }

    fn take_summary(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.u32()?;
        Self::take_summary_fields(reader)
    }

    /// Only what the summary document names is believed: its two texts have no certain place, and
    /// it has no minimum, so that any peer is new enough for it.
    fn take_summary_fields(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = reader.u32()?;
        let protocol = u8::try_from(reader.u16()?).unwrap_or(u8::MAX);
        let device_type = text(reader.array::<20>()?).ok_or(Malformed::DeviceType)?;
        Ok(Self {
            announced: Announced {
                number,
                min_compatible: 0,
                protocol: ProtocolRange::single(protocol),
            },
            device_type,
            build_date: Label::EMPTY,
            build_time: Label::EMPTY,
            uptime_s: None,
            image: None,
        })
    }
}

/// A peer that announces no range, or an empty one, has the range of its one protocol.
fn take_extension(reader: &mut Reader<'_>, protocol: u8) -> (ProtocolRange, Option<[u8; 8]>) {
    let single = (ProtocolRange::single(protocol), None);
    if reader.array() != Ok(EXTENSION_MAGIC) || reader.u8().is_err() {
        return single;
    }
    match (reader.u8(), reader.u8(), reader.array()) {
        (Ok(min), Ok(max), Ok(image)) => match ProtocolRange::new(min, max) {
            Ok(range) => (range, Some(image)),
            Err(_) => single,
        },
        _ => single,
    }
}

/// C strings in fixed fields: what stands behind the first zero is left over and means nothing.
fn text<const N: usize, const M: usize>(field: [u8; N]) -> Option<Label<M>> {
    let len = field.iter().position(|&byte| byte == 0).unwrap_or(N);
    Label::new(core::str::from_utf8(field.get(..len)?).ok()?)
}
