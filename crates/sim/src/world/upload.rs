//! Whoever hands a bundle to the lead: sends it in chunks, waits when told, goes on after a restart
//! of the lead where the lead says, or vanishes in the middle.

use std::rc::Rc;

use lockstep_device::{Node, UploadError, UploadStep};
use lockstep_proto::time::Instant;

use super::application::WorldApplication;
use super::flash::ChipFlash;
use super::images::Bundle;

/// How an upload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Bytes handed over at once.
    pub chunk_bytes: usize,
    /// How often, in milliseconds.
    pub every_ms: u64,
    /// Before this byte the sender falls silent.
    pub silent_at: Option<u32>,
    /// How long it is silent; `None`: for ever.
    pub silent_ms: Option<u64>,
    /// A bit of this byte is flipped.
    pub spoilt_at: Option<u32>,
    /// The file ends before this byte, and the sender says so.
    pub ends_at: Option<u32>,
    /// How long it tries to begin while the lead is off or busy.
    pub patience_ms: u64,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            chunk_bytes: 16 * 1024,
            every_ms: 2,
            silent_at: None,
            silent_ms: None,
            spoilt_at: None,
            ends_at: None,
            patience_ms: 20_000,
        }
    }
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq)]
pub enum Uploaded {
    /// Every byte is where it belongs.
    Complete,
    /// It was refused, or ended; says why.
    Failed(UploadError),
    /// The sender fell silent for ever, or gave up.
    Vanished,
}

/// An upload on its way.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) bundle: Rc<Bundle>,
    manner: Manner,
    at: u32,
    has_begun: bool,
    gives_up_at: u64,
    /// When it does the next thing.
    pub(crate) next_at: u64,
    /// How often it went on after the lead had restarted.
    pub(crate) resumed: u32,
}

impl Upload {
    pub(crate) fn new(now: u64, bundle: Rc<Bundle>, manner: Manner) -> Self {
        let gives_up_at = now + manner.patience_ms;
        Self { bundle, manner, at: 0, has_begun: false, gives_up_at, next_at: now, resumed: 0 }
    }

    /// The lead is off: the sender tries again.
    pub(crate) fn wait(&mut self, now: u64) -> Option<Uploaded> {
        self.next_at = now + RETRY_MS;
        (!self.has_begun && now >= self.gives_up_at).then_some(Uploaded::Vanished)
    }

    /// Does the next thing. `Some`: it is over.
    pub(crate) fn step(
        &mut self,
        now: u64,
        uptime: Instant,
        node: &mut Node<WorldApplication>,
        flash: &mut ChipFlash,
    ) -> Option<Uploaded> {
        self.next_at = now + self.manner.every_ms;
        if !self.has_begun {
            return self.begin(now, node);
        }
        if self.manner.silent_at.is_some_and(|silent_at| self.at >= silent_at) {
            self.manner.silent_at = None;
            let Some(silent_ms) = self.manner.silent_ms else { return Some(Uploaded::Vanished) };
            self.next_at = now + silent_ms;
            return None;
        }
        if self.manner.ends_at.is_some_and(|ends_at| self.at >= ends_at) {
            return Some(Uploaded::Failed(node.upload_end(uptime, flash)));
        }
        match self.push(uptime, node, flash) {
            Ok(UploadStep::Taken(taken)) => {
                self.at += u32::try_from(taken).expect("a chunk");
                None
            }
            Ok(UploadStep::Wait) => {
                self.next_at = now + WAIT_MS;
                None
            }
            Ok(UploadStep::Complete(_)) => Some(Uploaded::Complete),
            Err(UploadError::NotBegun) => self.go_on(now, node, flash),
            Err(error) => Some(Uploaded::Failed(error)),
        }
    }

    fn begin(&mut self, now: u64, node: &mut Node<WorldApplication>) -> Option<Uploaded> {
        match node.upload_begin(self.bundle.size_bytes()) {
            Ok(()) => {
                self.has_begun = true;
                None
            }
            Err(UploadError::Busy(_)) if now < self.gives_up_at => {
                self.next_at = now + RETRY_MS;
                None
            }
            Err(error) => Some(Uploaded::Failed(error)),
        }
    }

    fn push(
        &self,
        uptime: Instant,
        node: &mut Node<WorldApplication>,
        flash: &mut ChipFlash,
    ) -> Result<UploadStep, UploadError> {
        let ends_at = self.manner.ends_at.unwrap_or(u32::MAX);
        let length = self.manner.chunk_bytes.min((ends_at - self.at) as usize);
        let piece = self.bundle.piece(self.at, length);
        let spoilt = self.manner.spoilt_at.and_then(|spoilt_at| spoilt_at.checked_sub(self.at));
        match spoilt.map(|offset| offset as usize) {
            Some(offset) if offset < piece.len() => {
                let mut piece = piece.to_vec();
                piece[offset] ^= 0x10;
                node.upload_push(uptime, &piece, flash)
            }
            _ => node.upload_push(uptime, piece, flash),
        }
    }

    /// After a restart of the lead the sender asks where to go on.
    fn go_on(
        &mut self,
        now: u64,
        node: &mut Node<WorldApplication>,
        flash: &mut ChipFlash,
    ) -> Option<Uploaded> {
        let Some((offset, _)) = node.conducting().and_then(|conducting| conducting.upload) else {
            return Some(Uploaded::Failed(UploadError::NothingToContinue));
        };
        match node.upload_continue(Instant::from_ms(now), offset, self.bundle.size_bytes(), flash) {
            Ok(()) => {
                self.at = offset;
                self.resumed += 1;
                None
            }
            // The lead's own agent may have gone on in between.
            Err(UploadError::WrongOffset { .. }) => {
                self.next_at = now + WAIT_MS;
                None
            }
            Err(error) => Some(Uploaded::Failed(error)),
        }
    }
}

/// A sender that was told to wait tries again after this.
const WAIT_MS: u64 = 20;
/// A sender whom nobody lets begin tries again after this.
const RETRY_MS: u64 = 200;
