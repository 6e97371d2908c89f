//! A bundle on its way in: verified first, then written, as fast as the group can take it.
//!
//! ```text
//!            head complete        preflight passed        last byte
//!   Head ───────────────► Preflight ─────────────► Body ───────────► complete
//!                             │ refused              │ artifact of another role: into the lead's
//!                             ▼                      │ other slot, then to its members, then on
//!                          error                     │ artifact of the lead's role: to others of
//!                                                    │ that role in the same way, then staged
//! ```
//!
//! The lead's other slot holds one artifact at a time, so the bytes behind an artifact are not
//! taken before its members have it: the sender waits. A cut upload goes on where
//! [`Lead::upload_state`] says, in the same boot at any byte, after a restart within the artifact
//! that was on its way.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::bundle::{BundleReader, Entry as TarEntry, Event, Head, ResumePoint};
use lockstep_proto::id::{DeviceId, RolloutId, Sha256};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;
use lockstep_rollout::{Input, Kind, Phase, Rollout, Verdict};

use crate::cut::NOTHING_MISSING;
use crate::intake::Begun;
use crate::lead::Lead;
use crate::node::Node;
use crate::setup::Application;

mod error;
mod patches;
mod ways;

pub use error::UploadError;
use error::bad_artifact;

/// What [`Node::upload_push`] did with the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadStep {
    /// So many of them were taken; push the rest again.
    Taken(usize),
    /// None was taken: preflight, or members that still fetch what came before, must go on first.
    Wait,
    /// The bundle is complete and staged on this device; the rollout goes on by itself.
    Complete(RolloutId),
}

/// An upload in this boot.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) reader: Box<BundleReader>,
    /// Bytes of the bundle taken so far.
    pub(crate) at: u32,
    pub(crate) size_bytes: u32,
    /// The rollout that it is for, once its head has begun one.
    pub(crate) rollout: RolloutId,
    pub(crate) state: State,
    /// Bytes of the artifact that the flash was too busy for.
    pub(crate) waiting: Vec<u8>,
}

/// How far an upload has come.
#[derive(Debug)]
pub(crate) enum State {
    /// Manifest and signatures are coming.
    Head(Box<Head>),
    /// The members are being asked.
    Preflight,
    /// Between two artifacts.
    Between,
    /// An artifact is coming.
    Artifact(Incoming),
    /// All bytes of an artifact have come; the last of them are on their way into flash.
    Landing(Incoming),
    /// An artifact is in this device's other slot; its members fetch it.
    Fetching { role: Role },
    /// A patch is; those members fetch it that can use it.
    Offering { role: Role },
    /// A patch is, and this device makes its own image from it.
    Patching,
    /// Behind the last byte.
    Complete,
}

/// An artifact on its way in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) role: Role,
    /// Of the file, or of the header of a patch.
    pub(crate) file: Sha256,
    pub(crate) size_bytes: u32,
    pub(crate) offset_bytes: u32,
    pub(crate) way: Way,
    /// Where it is in the bundle, and whether it is a patch.
    pub(crate) point: ResumePoint,
}

/// What becomes of an artifact's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into this device's other slot, for members.
    Spool,
    /// Into this device's other slot, to be booted.
    Own,
    /// Nobody needs them: their image runs, or is staged already.
    Skip,
    /// A patch, of which too little is there to know whom it is for.
    Unknown,
}

impl Upload {
    /// Too little of an artifact is there to be judged: more must come first.
    fn lacks_head(&self) -> bool {
        let State::Artifact(Incoming { way, offset_bytes: 0, size_bytes, point, .. }) = &self.state
        else {
            return false;
        };
        let head_bytes = match way {
            Way::Unknown => lockstep_delta::HEADER_BYTES,
            Way::Spool if !point.is_patch() => HEAD_BYTES,
            Way::Spool | Way::Own | Way::Skip => 0,
        };
        self.waiting.len() < head_bytes.min(usize::try_from(*size_bytes).unwrap_or(usize::MAX))
    }

    /// The flash is busy, and no more bytes are taken until it is not.
    fn is_held_up(&self) -> bool {
        !self.waiting.is_empty() && !self.lacks_head()
    }
}

impl Lead {
    /// Whether the other slot is free for this device's own image. Before that it is the spool of
    /// what other devices fetch, and this device is not told to stage.
    pub(crate) fn may_stage_own(&self, role: &Role, me: DeviceId) -> bool {
        let forward = self.rollout.as_ref().is_some_and(|it| it.record().kind == Kind::Forward);
        let is_last = self
            .cut
            .is_some_and(|cut| cut.role == *role && (!cut.point.is_patch() || self.may_patch_own));
        !forward || (is_last && self.have_staged(role, me))
    }

    /// Next byte and size of an upload that is not complete; a size of 0: not known any more.
    pub(crate) fn upload_state(&self, rollout: &Rollout) -> Option<(u32, u32)> {
        if rollout.record().phase != Phase::Staging {
            return None;
        }
        match (&self.upload, &self.cut) {
            (Some(Upload { state: State::Complete, .. }), _) => None,
            (Some(upload), _) => Some((upload.at, upload.size_bytes)),
            (None, Some(cut)) if cut.size_bytes == NOTHING_MISSING => None,
            (None, Some(cut)) => Some((cut.point.bundle_offset()?, cut.size_bytes)),
            (None, None) => {
                let record = rollout.record();
                (record.kind == Kind::Forward && !record.catches_up).then_some((0, 0))
            }
        }
    }
}

impl<A: Application> Node<A> {
    /// A bundle of `size_bytes` begins to arrive. An upload whose rollout has not begun is
    /// forgotten: nothing of it was written.
    pub fn upload_begin(&mut self, size_bytes: u32) -> Result<(), UploadError> {
        let lead = self.lead.as_ref().ok_or(UploadError::NotTheLead)?;
        if let Some(rollout) = lead.rollout.as_ref().filter(|rollout| !rollout.is_over()) {
            return Err(UploadError::Busy(rollout.record().id));
        }
        self.begin(size_bytes);
        Ok(())
    }

    /// A cut upload goes on with byte `offset` of a bundle of `size_bytes`.
    pub fn upload_continue<F: NorFlash>(
        &mut self,
        now: Instant,
        offset: u32,
        size_bytes: u32,
        flash: &mut F,
    ) -> Result<(), UploadError> {
        let lead = self.lead.as_ref().ok_or(UploadError::NotTheLead)?;
        let staging = lead.rollout.as_ref().filter(|it| it.record().phase == Phase::Staging);
        let (expected, known_bytes) = staging
            .and_then(|rollout| lead.upload_state(rollout))
            .ok_or(UploadError::NothingToContinue)?;
        // 0: the restart came before the first artifact, and the head has to come again.
        if known_bytes != size_bytes && known_bytes != 0 {
            let why = format!("bundle has {size_bytes} bytes, the one begun has {known_bytes}");
            return Err(UploadError::BadBundle(why));
        }
        if offset != expected {
            return Err(UploadError::WrongOffset { found: offset, expected });
        }
        match (&lead.upload, lead.cut) {
            (Some(_), _) => Ok(()),
            (None, Some(cut)) => self.reopen(now, cut, flash),
            (None, None) => {
                self.begin(size_bytes);
                Ok(())
            }
        }
    }

    fn begin(&mut self, size_bytes: u32) {
        let state = State::Head(Box::default());
        let reader = Box::new(BundleReader::new());
        let (rollout, waiting) = (RolloutId::default(), Vec::new());
        if let Some(lead) = &mut self.lead {
            lead.upload = Some(Upload { reader, at: 0, size_bytes, rollout, state, waiting });
            // What it left in the other slot is about to be overwritten.
            lead.bare = None;
            lead.holds_upload = false;
        }
    }

    /// The next bytes of the bundle.
    pub fn upload_push<F: NorFlash>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<UploadStep, UploadError> {
        let step = self.push(now, bytes, flash);
        if let Err(error) = &step {
            self.give_up(now, error, flash);
        }
        self.after(now, flash);
        step
    }

    /// Leaves out what is on its way and of no use to anybody, if that saves enough: for a sender
    /// that can. Returns how many bytes of the bundle do not come, and the one to go on with.
    pub fn upload_skip(&mut self) -> Option<(u32, u32)> {
        let upload = self.lead.as_mut()?.upload.as_mut()?;
        let State::Artifact(incoming) = &mut upload.state else { return None };
        if incoming.way != Way::Skip || upload.reader.left_bytes() < SKIP_BYTES_MIN {
            return None;
        }
        let skipped_bytes = upload.reader.skip();
        incoming.offset_bytes = incoming.offset_bytes.saturating_add(skipped_bytes);
        upload.at = upload.at.saturating_add(skipped_bytes);
        Some((skipped_bytes, upload.at))
    }

    /// All bytes have come, and the bundle is not complete: a file that is too short will never be
    /// more, so its rollout ends. Says what is missing.
    pub fn upload_end<F: NorFlash>(&mut self, now: Instant, flash: &mut F) -> UploadError {
        let upload = self.lead.as_mut().and_then(|lead| lead.upload.take());
        let error = match upload.map(|upload| upload.reader.finish()) {
            Some(Err(error)) => UploadError::BadBundle(format!("{error}")),
            Some(Ok(())) | None => UploadError::NotBegun,
        };
        self.give_up(now, &error, flash);
        self.after(now, flash);
        error
    }

    fn push<F: NorFlash>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<UploadStep, UploadError> {
        let Some(mut upload) = self.lead.as_mut().and_then(|lead| lead.upload.take()) else {
            return Err(self.why_there_is_no_upload());
        };
        let result = self.advance(now, &mut upload, bytes, flash);
        if let (Ok(_), Some(lead)) = (&result, &mut self.lead) {
            lead.upload = Some(upload);
        }
        result
    }

    /// The rollout may have ended, and its upload with it, while the sender still sends.
    fn why_there_is_no_upload(&self) -> UploadError {
        match self.conducting() {
            Some(conducting) => match conducting.record.phase.verdict() {
                Some(Verdict::Revert(cause)) => {
                    UploadError::Ended(conducting.record.id, format!("{cause}"))
                }
                Some(Verdict::Keep) | None => UploadError::NotBegun,
            },
            None => UploadError::NotBegun,
        }
    }

    fn advance<F: NorFlash>(
        &mut self,
        now: Instant,
        upload: &mut Upload,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<UploadStep, UploadError> {
        self.check_phase(upload)?;
        self.go_on_behind_patch(now, upload, flash);
        if let State::Landing(incoming) = upload.state {
            upload.state = self.end_artifact(now, &incoming, flash)?;
        }
        match &upload.state {
            State::Preflight
            | State::Landing(_)
            | State::Fetching { .. }
            | State::Offering { .. }
            | State::Patching => return Ok(UploadStep::Wait),
            State::Complete => return Ok(UploadStep::Complete(self.open_rollout_id())),
            State::Head(_) | State::Between | State::Artifact(_) => (),
        }
        self.take_waiting(now, upload, flash)?;
        if upload.is_held_up() {
            return Ok(UploadStep::Wait);
        }
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = bytes.get(taken..).unwrap_or_default();
            let step = upload
                .reader
                .push(rest)
                .map_err(|error| UploadError::BadBundle(format!("{error}")))?;
            taken += step.consumed;
            upload.at = upload.at.saturating_add(u32::try_from(step.consumed).unwrap_or(u32::MAX));
            let Some(event) = step.event else { continue };
            self.take_event(now, upload, &event, flash)?;
            let waits = !matches!(
                upload.state,
                State::Head(_) | State::Between | State::Artifact(_) | State::Complete
            );
            if waits || upload.is_held_up() {
                break;
            }
        }
        match &upload.state {
            State::Complete => Ok(UploadStep::Complete(self.open_rollout_id())),
            _ if taken == 0 && !bytes.is_empty() => Ok(UploadStep::Wait),
            _ => Ok(UploadStep::Taken(taken)),
        }
    }

    pub(crate) fn open_rollout_id(&self) -> RolloutId {
        self.conducting().map(|conducting| conducting.record.id).unwrap_or_default()
    }

    /// Whatever the rollout has come to since the last bytes.
    fn check_phase(&self, upload: &mut Upload) -> Result<(), UploadError> {
        let Some(lead) = &self.lead else { return Err(UploadError::NotTheLead) };
        if matches!(upload.state, State::Head(_) | State::Complete) {
            return Ok(());
        }
        // One that did not begin has given its place back to the one before.
        let own = lead.rollout.as_ref().filter(|rollout| rollout.record().id == upload.rollout);
        let Some(rollout) = own else {
            return Err(UploadError::Refused(lead.refusals.clone()));
        };
        let record = rollout.record();
        match (record.phase, &upload.state) {
            (Phase::Preflight, _) => Ok(()),
            (Phase::Staging, State::Preflight) => {
                upload.state = State::Between;
                Ok(())
            }
            (Phase::Staging, State::Fetching { role }) => {
                if lead.have_staged(role, self.setup.id) {
                    upload.state = State::Between;
                }
                Ok(())
            }
            (Phase::Staging, _) => Ok(()),
            (phase, _) => match phase.verdict() {
                Some(Verdict::Revert(cause)) => {
                    Err(UploadError::Ended(record.id, format!("{cause}")))
                }
                // Everybody has staged: what still comes are zeros.
                Some(Verdict::Keep) | None => {
                    if matches!(upload.state, State::Fetching { .. } | State::Offering { .. }) {
                        upload.state = State::Between;
                    }
                    Ok(())
                }
            },
        }
    }

    fn take_event<F: NorFlash>(
        &mut self,
        now: Instant,
        upload: &mut Upload,
        event: &Event<'_>,
        flash: &mut F,
    ) -> Result<(), UploadError> {
        match (&mut upload.state, event) {
            (State::Head(head), Event::HeadEnd) => {
                let head = core::mem::take(head);
                upload.state = match self.begin_rollout(now, &head, &mut upload.reader, flash)? {
                    Begun::Anew => State::Preflight,
                    Begun::Again => State::Between,
                };
                upload.rollout = self.open_rollout_id();
            }
            (State::Head(head), event) => {
                head.take(event).map_err(|error| UploadError::BadBundle(format!("{error}")))?;
            }
            (_, Event::Begin(TarEntry::Artifact { role, size_bytes, resume })) => {
                let incoming =
                    self.begin_artifact(role, *size_bytes, *resume, upload.size_bytes, flash)?;
                upload.state = State::Artifact(incoming);
            }
            (_, Event::Begin(TarEntry::Patch { role, size_bytes, resume, .. })) => {
                let role = ways::role_of(role)?;
                let (file, way, point) = (Sha256([0; 32]), Way::Unknown, *resume);
                let size_bytes = *size_bytes;
                upload.state = State::Artifact(Incoming {
                    role,
                    file,
                    size_bytes,
                    offset_bytes: 0,
                    way,
                    point,
                });
            }
            (State::Artifact(_), Event::Bytes(bytes)) => {
                upload.waiting.extend_from_slice(bytes);
                self.take_waiting(now, upload, flash)?;
            }
            (State::Artifact(incoming), Event::EntryEnd) => {
                let incoming = *incoming;
                upload.state = self.end_artifact(now, &incoming, flash)?;
            }
            (_, Event::End) => {
                upload.state = State::Complete;
            }
            // The reader lets nothing else through, and what it lets through here means nothing.
            _ => (),
        }
        Ok(())
    }

    /// Brings what waits into flash, as far as the flash takes it now.
    fn take_waiting<F: NorFlash>(
        &mut self,
        now: Instant,
        upload: &mut Upload,
        flash: &mut F,
    ) -> Result<(), UploadError> {
        if upload.waiting.is_empty() || upload.lacks_head() {
            return Ok(());
        }
        let State::Artifact(incoming) = &mut upload.state else { return Ok(()) };
        if incoming.way == Way::Unknown {
            self.judge_patch(now, incoming, &upload.waiting, upload.size_bytes, flash)?;
        }
        let is_patch = incoming.point.is_patch();
        if incoming.way == Way::Spool && incoming.offset_bytes == 0 && !is_patch {
            self.judge_head(incoming.role, &upload.waiting, flash)?;
        }
        let offset = incoming.offset_bytes;
        let len = u32::try_from(upload.waiting.len()).unwrap_or(u32::MAX);
        let all = offset.saturating_add(len);
        let pushed = match incoming.way {
            Way::Spool => self.agent.spool_push(now, offset, &upload.waiting, flash),
            Way::Own if !self.is_staging_own() => Ok(offset),
            Way::Own => self.agent.push_local(now, offset, &upload.waiting, flash),
            Way::Skip | Way::Unknown => Ok(all),
        };
        let reached = pushed.map_err(|why| bad_artifact(incoming.role, why))?;
        // Behind the given bytes only if the last of them completed the artifact.
        let reached = reached.clamp(offset, all);
        upload.waiting.drain(..(reached - offset) as usize);
        incoming.offset_bytes = reached;
        if incoming.way == Way::Own {
            let report = self.agent.report();
            let me = self.setup.id;
            self.note_report(now, me, report, flash);
        } else {
            self.drive(now, Input::Progress, flash);
        }
        Ok(())
    }

    /// Whether this device has taken up the order to stage its own image.
    pub(crate) fn is_staging_own(&self) -> bool {
        self.agent.member().ticket.rollout == self.open_rollout_id()
    }

    /// Nobody else fetches what is spooled once this device is told to stage: what lies there is
    /// its own image, or is overwritten by it.
    pub(crate) fn end_spool(&mut self) {
        if let Some(lead) = &mut self.lead {
            lead.stop_serving();
        }
        self.agent.spool_end();
    }

    pub(crate) fn end_artifact<F: NorFlash>(
        &mut self,
        now: Instant,
        incoming: &Incoming,
        flash: &mut F,
    ) -> Result<State, UploadError> {
        let Incoming { role, file, size_bytes, way, point, .. } = *incoming;
        if point.is_patch() && way == Way::Own {
            // After a restart: is what is left of it applied, or of no use any more?
            self.agent.go_on_staging(now, flash);
            return Ok(State::Patching);
        }
        if way != Way::Spool {
            return Ok(State::Between);
        }
        if self.agent.spool_is_landing() {
            return Ok(State::Landing(*incoming));
        }
        if point.is_patch() {
            return Ok(self.end_patch(now, incoming, flash));
        }
        self.agent.spool_verify(flash).map_err(|why| bad_artifact(role, why))?;
        let members = self.others();
        let sender = self.sender_of(&file, size_bytes, members);
        if let Some(lead) = &mut self.lead {
            lead.serve_artifact(role, sender);
        }
        Ok(State::Fetching { role })
    }

    /// The part of a tick that concerns uploads: a rollout that is over ends its upload.
    pub(crate) fn end_upload(&mut self) {
        let Some(lead) = &mut self.lead else { return };
        let past_staging = lead.rollout.as_ref().is_some_and(|rollout| {
            !matches!(rollout.record().phase, Phase::Preflight | Phase::Staging)
        });
        let complete = matches!(&lead.upload, Some(Upload { state: State::Complete, .. }));
        if past_staging && complete {
            lead.upload = None;
        }
    }

    /// A bad upload ends the rollout that it was for.
    fn give_up<F: NorFlash>(&mut self, now: Instant, error: &UploadError, flash: &mut F) {
        let is_bad = matches!(
            error,
            UploadError::BadBundle(_) | UploadError::BadArtifact(..) | UploadError::Storage
        );
        if let Some(lead) = &mut self.lead {
            lead.upload = None;
        }
        let open = self.conducting().is_some_and(|it| it.can_abort);
        if is_bad && open {
            self.drive(now, Input::BadUpload, flash);
        }
    }
}

/// Less is not worth a connection of its own.
const SKIP_BYTES_MIN: u32 = 32 * 1024;
/// An image's header, app description and our descriptor.
pub(crate) const HEAD_BYTES: usize = 0x1A0;
