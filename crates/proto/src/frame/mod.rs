//! Frames: everything that goes over the radio, at most 250 bytes each (ESP-NOW version 1), but for
//! large blocks between devices that take them.
//!
//! The first byte is the type. Two lanes: the *control lane* (version frames and everything of
//! ours from `0x40` on) is decodable by every version for ever, the *data lane* belongs to the
//! application and is gated by compatibility.
//!
//! | type | frame | module |
//! |---|---|---|
//! | `0x01` | application data | [`data`] |
//! | `0x10`, `0x11`, `0x12` | version announce, request, response of fielded firmware | [`version`] |
//! | `0x40` | control: challenges, orders, answers, probes; authenticated | [`control`] |
//! | `0x50`, `0x51`, `0x52` | block, repair of blocks, question what is lacking; tagged | [`block`] |
//! | `0x60` | adoption: a device is given the group's key | [`adopt`] |

pub mod adopt;
pub mod block;
pub mod coding;
pub mod control;
pub mod data;
pub mod order;
mod refusal;
pub mod report;
pub mod version;

/// The longest frame but for large blocks, in bytes. Source: ESP-NOW version 1,
/// `ESP_NOW_MAX_DATA_LEN`.
pub const FRAME_BYTES_MAX: usize = 250;
/// The longest frame of all, in bytes: a large block's or its repair. ESP-NOW version 2 would take
/// 1,470 (`ESP_NOW_MAX_DATA_LEN_V2`); version 1 drops whatever is longer than
/// [`FRAME_BYTES_MAX`].
pub const LARGE_FRAME_BYTES_MAX: usize = coding::BLOCK_BYTES_MAX + block::OVERHEAD_BYTES_MAX;

/// Lane version of the frames from `0x40` on, as this code writes them.
pub const LANE_VERSION: u8 = 1;

/// Which kind of frame the first byte says this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// Application data: gated.
    Data,
    /// Version announce, request or response.
    Version,
    /// Authenticated control.
    Control,
    /// A block of an image or a manifest, or what belongs to its transfer.
    Block,
    /// Adoption of a device that does not have the group's key.
    Adopt,
    /// Another application frame or one of a later version: not ours to judge.
    Other(u8),
}

/// Reads the type byte; `None` for an empty frame.
pub fn frame_type(frame: &[u8]) -> Option<FrameType> {
    Some(match *frame.first()? {
        data::DATA => FrameType::Data,
        version::ANNOUNCE..=version::SUMMARY_RESPONSE => FrameType::Version,
        control::CONTROL => FrameType::Control,
        block::BLOCK..=block::ASK => FrameType::Block,
        adopt::ADOPT => FrameType::Adopt,
        other => FrameType::Other(other),
    })
}
