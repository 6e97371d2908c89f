//! The way to the other devices: frames to one of them, or to all.

mod wire;

pub(crate) use wire::Wire as Link;

use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::id::DeviceId;

/// A frame that has come.
pub(crate) struct Received {
    pub(crate) from: DeviceId,
    bytes: [u8; FRAME_BYTES_MAX],
    length: usize,
}

impl Received {
    /// `None` for what is longer than a frame may be.
    fn new(from: DeviceId, frame: &[u8]) -> Option<Self> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(Self { from, bytes, length: frame.len() })
    }

    pub(crate) fn frame(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The link takes no more at the moment.
pub(crate) struct Full;
