//! Where a board's frames go: into the air, and out on its line if it has one.

use lockstep_device::channel::Channel;
use lockstep_proto::id::DeviceId;

use crate::line::{Line, News};
use crate::radio::Radio;

/// Both ways out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link<'a> {
    pub(super) radio: &'a Radio,
    pub(super) line: Option<&'a Line>,
}

/// A frame was not taken: hold it, and send it again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Link<'_> {
    /// Sends a frame on all ways that it has to take, or on none.
    pub(super) fn try_send(&self, destination: DeviceId, frame: &[u8]) -> Result<(), Full> {
        if self.line.is_some_and(|line| !line.has_room(destination)) {
            return Err(Full);
        }
        self.radio.try_send(destination, frame).map_err(|_| Full)?;
        if let Some(line) = self.line {
            line.send(destination, frame);
        }
        Ok(())
    }

    pub(super) fn tune(&self, channel: Channel) {
        self.radio.tune(channel);
        if let Some(line) = self.line {
            line.tune(channel);
        }
    }
}

/// The next change of the line; waits for ever without one.
pub(super) async fn news(line: &mut Option<Line>) -> News {
    match line {
        Some(line) => line.news().await,
        None => std::future::pending().await,
    }
}
