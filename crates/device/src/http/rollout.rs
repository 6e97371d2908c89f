//! The calls that conduct: a bundle comes in, a rollout is aborted, the last one is reverted.
//!
//! A connection that is cut changes nothing: the device keeps what it has, and the upload goes on
//! where `rollout.upload.next_offset` says. Bytes are taken as fast as the group can take them;
//! until then the client waits, by TCP's own means.

use core::cell::Cell;

use alloc::string::String;
use lockstep_proto::id::RolloutId;
use lockstep_proto::time::Instant;
use lockstep_rollout::Phase;
use picoserve::io::Read;
use picoserve::request::RequestBodyConnection;
use picoserve::response::StatusCode;

use super::answer::{Answer, Problem};
use super::gate::Part;
use super::{Shell, views, within};
use crate::lead::ConductError;
use crate::node::Node;
use crate::setup::Application;
use crate::upload::{UploadError, UploadStep};

/// Whose bytes are taken: one upload's at a time. A later part of the same bundle takes the turn
/// from a connection that is silent, and perhaps dead.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Counts uploads; the last one has the turn while `is_taken`.
    number: Cell<u32>,
    is_taken: Cell<bool>,
}

impl Turn {
    /// From now on nobody else has it.
    pub(super) fn take(&self) -> u32 {
        let number = self.number.get().wrapping_add(1);
        self.number.set(number);
        self.is_taken.set(true);
        number
    }

    pub(super) fn is_taken(&self) -> bool {
        self.is_taken.get()
    }

    pub(super) fn is_of(&self, number: u32) -> bool {
        self.number.get() == number
    }

    pub(super) fn give_back(&self, number: u32) {
        if self.is_of(number) {
            self.is_taken.set(false);
        }
    }
}

/// `GET /api/rollout`.
pub(super) fn present<H: Shell>(shell: &H) -> Result<Answer, Problem> {
    shell.with(|now, node, _| {
        if node.members().is_empty() {
            return Err(not_the_lead(node));
        }
        Ok(Answer::json_text(views::rollout(node, Some(now))))
    })
}

/// `POST /api/rollout/abort`.
pub(crate) fn abort<H: Shell>(shell: &H) -> Result<Answer, Problem> {
    let answer = shell.with(|now, node, flash| {
        let result = node.abort(now, flash);
        result.map(Answer::accepted).map_err(|error| cannot_conduct(&error, node))
    });
    shell.wake();
    answer
}

/// `POST /api/rollout/revert`: answered when preflight has said whether there is a way back.
pub(crate) async fn revert<H: Shell>(shell: &H) -> Result<Answer, Problem> {
    let begun = shell.with(|now, node, flash| {
        let limit = preflight_end(now, node);
        let result = node.revert(now, flash).map(|id| (id, limit));
        result.map_err(|error| cannot_conduct(&error, node))
    });
    shell.wake();
    let (id, limit) = begun?;
    answer_to(shell, id, limit).await
}

/// When preflight is over in any case.
pub(super) fn preflight_end<A: Application>(now: Instant, node: &Node<A>) -> Instant {
    now + node.setup().policy.preflight_ms.saturating_add(PREFLIGHT_GRACE_MS)
}

/// What preflight says of a rollout that was begun just now.
pub(super) async fn answer_to<H: Shell>(
    shell: &H,
    id: RolloutId,
    limit: Instant,
) -> Result<Answer, Problem> {
    loop {
        let answer = shell.with(|now, node, _| match node.conducting() {
            Some(it) if it.record.id == id => {
                let waits = it.record.phase == Phase::Preflight && now < limit;
                (!waits).then(|| Ok(Answer::accepted(id)))
            }
            Some(_) | None => Some(Err(refused(node))),
        });
        match answer {
            Some(answer) => return answer,
            None => shell.sleep_ms(WAIT_MS).await,
        }
    }
}

fn refused<A: Application>(node: &Node<A>) -> Problem {
    let faults = node.refusals();
    match faults.first() {
        Some(fault) => Problem::refused(&fault.fault, faults),
        None => Problem::refused("the rollout was aborted before it began", faults),
    }
}

/// An upload that has the turn.
pub(crate) struct Upload<'a, H> {
    shell: &'a H,
    turn: &'a Turn,
    number: u32,
    /// Bytes of this request's body.
    length: u32,
    began_at: Instant,
}

/// How an upload's body went on.
pub(crate) enum Progress {
    /// All bytes at hand were taken.
    Taken,
    /// The bundle is complete.
    Complete(RolloutId),
}

impl<'a, H: Shell> Upload<'a, H> {
    /// Takes the turn, and tells the node what will come.
    pub(crate) fn begin(
        shell: &'a H,
        turn: &'a Turn,
        length: u32,
        part: Option<Part>,
        holds: bool,
    ) -> Result<Self, Problem> {
        let began_at = shell.with(|now, node, flash| {
            let begun = match part {
                Some(part) => node.upload_continue(now, part.offset, part.size_bytes, flash),
                None if turn.is_taken() => {
                    let open = node.conducting().filter(|it| it.can_abort);
                    return Err(another_upload().with_rollout(open.map(|it| it.record.id)));
                }
                None => node.upload_begin(length),
            };
            if begun.is_ok() && holds {
                node.hold_upload();
            }
            begun.map(|()| now).map_err(|error| cannot_take(&error, node))
        })?;
        Ok(Self { shell, turn, number: turn.take(), length, began_at })
    }

    /// Takes the body, all of it.
    pub(super) async fn run<R: Read>(
        self,
        body: &mut RequestBodyConnection<'_, R>,
    ) -> Result<Answer, Problem> {
        let reader = body.body().reader();
        // Not how long a request may take counts here, but how long it may be silent.
        let mut reader = reader.with_different_timeout_signal(core::future::pending());
        let mut buffer = alloc::vec![0; CHUNK_BYTES];
        let (mut complete, mut received) = (None, 0_usize);
        loop {
            let chunk = match next_chunk(self.shell, &mut reader, &mut buffer).await {
                Err(Gone::Silent) => return Err(idle()),
                Err(Gone::Cut) => return Err(cut()),
                Ok([]) => break,
                Ok(chunk) => chunk,
            };
            received = received.saturating_add(chunk.len());
            // Behind the end of a bundle are zeros, up to the end of a tape's record.
            if complete.is_none()
                && let Progress::Complete(id) = self.push(chunk).await?
            {
                complete = Some(id);
            }
        }
        match complete {
            Some(id) => Ok(Answer::accepted(id)),
            None if u32::try_from(received).is_ok_and(|received| received < self.length) => {
                Err(cut())
            }
            None => Err(self.end_of_bytes()),
        }
    }

    /// Gives the node one chunk, waiting until it has taken all of it.
    pub(crate) async fn push(&self, chunk: &[u8]) -> Result<Progress, Problem> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if !self.has_turn() {
                return Err(another_upload());
            }
            let step = self.shell.with(|now, node, flash| {
                if now.ms_since(self.began_at) >= UPLOAD_LIMIT_MS {
                    return Err(too_slow());
                }
                let step = node.upload_push(now, rest, flash);
                step.map_err(|error| cannot_take(&error, node))
            });
            self.shell.wake();
            match step? {
                UploadStep::Complete(id) => return Ok(Progress::Complete(id)),
                UploadStep::Taken(len) if len > 0 => rest = rest.get(len..).unwrap_or_default(),
                UploadStep::Taken(_) | UploadStep::Wait => self.shell.sleep_ms(WAIT_MS).await,
            }
        }
        Ok(Progress::Taken)
    }

    /// As [`Node::upload_skip`].
    pub(crate) fn skip(&self) -> Option<(u32, u32)> {
        self.has_turn().then(|| self.shell.with(|_, node, _| node.upload_skip())).flatten()
    }

    /// All bytes have come, and the bundle is not complete: a file that is too short will never be
    /// more, so its rollout ends.
    pub(crate) fn end_of_bytes(&self) -> Problem {
        let problem = self.shell.with(|now, node, flash| {
            let error = match self.has_turn() {
                true => node.upload_end(now, flash),
                false => UploadError::NotBegun,
            };
            cannot_take(&error, node)
        });
        self.shell.wake();
        problem
    }

    fn has_turn(&self) -> bool {
        self.turn.is_of(self.number)
    }
}

impl<H> Drop for Upload<'_, H> {
    fn drop(&mut self) {
        self.turn.give_back(self.number);
    }
}

pub(super) fn cannot_take<A: Application>(error: &UploadError, node: &Node<A>) -> Problem {
    let problem = |status, code, hint: &str| Problem::new(status, code, error, hint);
    match error {
        UploadError::NotTheLead => not_the_lead(node),
        UploadError::Busy(id) => busy(error, *id),
        UploadError::BadBundle(_) => problem(
            StatusCode::BAD_REQUEST,
            "bad-bundle",
            "make the bundle with `lockstep release create`",
        ),
        UploadError::Untrusted(_) => problem(
            StatusCode::FORBIDDEN,
            "untrusted",
            "sign the release with the keys that this device knows",
        ),
        UploadError::Refused(faults) => Problem::refused(error, faults),
        UploadError::Ended(id, _) => {
            let hint = "see `GET /api/history`, then upload the bundle again";
            problem(StatusCode::CONFLICT, "ended", hint).with_rollout(Some(*id))
        }
        UploadError::BadArtifact(..) => problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-artifact",
            "make the bundle anew, and check it with `lockstep release verify`",
        ),
        UploadError::BadImage(_) => problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-image",
            "send the application's `.bin` as it was built, or a bundle to `POST /api/rollout`",
        ),
        UploadError::NothingToInstall => problem(
            StatusCode::CONFLICT,
            "nothing-to-install",
            "upload an image with `POST /api/ota/upload` first; a restart forgets it",
        ),
        UploadError::WrongOffset { .. } => problem(
            StatusCode::CONFLICT,
            "wrong-offset",
            "go on at `rollout.upload.next_offset` of `GET /api/rollout`",
        ),
        UploadError::NothingToContinue => problem(
            StatusCode::CONFLICT,
            "nothing-to-continue",
            "upload the bundle from its first byte, without `Content-Range`",
        ),
        UploadError::NotBegun => {
            problem(StatusCode::CONFLICT, "not-begun", "upload the bundle from its first byte")
        }
        UploadError::Storage => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "storage",
            "restart the device; if it happens again, its flash is worn out",
        ),
    }
}

pub(super) fn cannot_conduct<A: Application>(error: &ConductError, node: &Node<A>) -> Problem {
    let problem = |code, hint: &str| Problem::new(StatusCode::CONFLICT, code, error, hint);
    match error {
        ConductError::NotTheLead => not_the_lead(node),
        ConductError::Busy(id) => busy(error, *id),
        ConductError::NothingToAbort => {
            problem("nothing-to-abort", "`GET /api/history` names past rollouts")
        }
        ConductError::VerdictIsFinal(id) => {
            let hint = "go back with `lockstep revert` once it has settled";
            problem("verdict-is-final", hint).with_rollout(Some(*id))
        }
        ConductError::NothingToSchedule => {
            problem("nothing-to-schedule", "begin one with `POST /api/rollout?hold=true`")
        }
        ConductError::TooLateToSchedule(id) => {
            let hint = "it can still be ended with `lockstep abort`";
            problem("too-late-to-schedule", hint).with_rollout(Some(*id))
        }
        ConductError::TooFarAhead { .. } => {
            let hint = "name an earlier moment, or let it wait until you say go";
            Problem::new(StatusCode::BAD_REQUEST, "bad-request", error, hint)
        }
        ConductError::NothingToRevert => {
            problem("nothing-to-revert", "update to the older release from its bundle instead")
        }
    }
}

/// Names the rollout in the way.
pub(super) fn busy(error: impl core::fmt::Display, rollout: RolloutId) -> Problem {
    let hint = "wait until it has settled, or end it with `lockstep abort`";
    Problem::new(StatusCode::CONFLICT, "busy", error, hint).with_rollout(Some(rollout))
}

/// Names the device to ask instead.
pub(super) fn not_the_lead<A: Application>(node: &Node<A>) -> Problem {
    let lead = node.conductor().map(|id| (id, node.peers().get(id).and_then(|peer| peer.role)));
    let hint = match lead {
        Some((id, Some(role))) => alloc::format!("ask `{role}` {id}"),
        Some((id, None)) => alloc::format!("ask {id}"),
        None => String::from("ask the device of the group that was set up as its lead"),
    };
    let message = "this device does not conduct the group's rollouts";
    Problem::new(StatusCode::NOT_FOUND, "not-the-lead", message, hint)
}

/// Why no more bytes of an upload come.
pub(super) enum Gone {
    /// None came for [`IDLE_LIMIT_MS`].
    Silent,
    /// The connection ended.
    Cut,
}

/// The next bytes of an upload; none at the end of its body.
pub(super) async fn next_chunk<'b, H: Shell, R: Read>(
    shell: &H,
    reader: &mut R,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Gone> {
    match within(shell, IDLE_LIMIT_MS, reader.read(buffer)).await {
        None => Err(Gone::Silent),
        Some(Err(_)) => Err(Gone::Cut),
        Some(Ok(len)) => Ok(buffer.get(..len).unwrap_or_default()),
    }
}

pub(super) fn another_upload() -> Problem {
    let message = "another connection is uploading";
    let hint = "wait until it is done; a silent one is given up after 10 seconds";
    Problem::new(StatusCode::CONFLICT, "busy", message, hint)
}

fn cut() -> Problem {
    let message = "the connection was cut before the bundle was complete";
    let hint = "go on at `rollout.upload.next_offset` of `GET /api/rollout`";
    Problem::new(StatusCode::BAD_REQUEST, "cut", message, hint)
}

fn idle() -> Problem {
    let message = format_args!("no byte of the bundle came for {IDLE_LIMIT_MS} ms");
    let hint = "go on at `rollout.upload.next_offset` of `GET /api/rollout`";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "timed-out", message, hint)
}

pub(super) fn too_slow() -> Problem {
    let message = format_args!("the upload took longer than {UPLOAD_LIMIT_MS} ms");
    let hint = "bring the devices closer together, then try again";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "timed-out", message, hint)
}

/// Bytes that go from the socket into the node at once.
pub(super) const CHUNK_BYTES: usize = 2_048;
/// A client that is silent for so long while its bytes are waited for is gone, in milliseconds.
const IDLE_LIMIT_MS: u64 = 10_000;
/// An upload ends after so long in any case, in milliseconds: as long as staging may take.
pub(super) const UPLOAD_LIMIT_MS: u64 = 3_600_000;
/// Until the node is asked again whether it can take more, in milliseconds.
pub(super) const WAIT_MS: u64 = 10;
/// Preflight ends by itself; this much later somebody else has to find out why it did not.
const PREFLIGHT_GRACE_MS: u64 = 1_000;
