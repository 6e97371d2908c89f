//! `POST /api/ota/upload`, `POST /api/ota/install` and both in one, `POST /ota_upload`: one bare
//! `.bin`, for tools that know no bundles. It becomes a rollout of the group like any other.
//!
//! A cut connection forgets what came: there is no manifest yet by which a later part could be
//! recognized.

use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::time::Instant;
use picoserve::io::Read;
use picoserve::request::{RequestBodyConnection, RequestParts};
use picoserve::response::StatusCode;
use serde::Serialize;

use super::Shell;
use super::answer::{Answer, Problem, Shown};
use super::rollout::{self, CHUNK_BYTES, Turn, UPLOAD_LIMIT_MS, WAIT_MS};
use crate::bare::BareImage;

#[derive(Serialize)]
struct ImageView<'a> {
    role: &'a str,
    version: Shown<lockstep_proto::version::ReleaseVersion>,
    board: &'a str,
    chip: &'a str,
    size_bytes: u32,
    sha256: Shown<Sha256>,
    image_sha256: Shown<ImageHash>,
}

/// What was uploaded; nothing of it runs yet.
pub(super) fn answer(image: &BareImage) -> Answer {
    Answer::json(&ImageView {
        role: image.role.as_str(),
        version: Shown(image.descriptor.version),
        board: image.descriptor.board.as_str(),
        chip: image.chip.name().unwrap_or_default(),
        size_bytes: image.size_bytes,
        sha256: Shown(image.file),
        image_sha256: Shown(image.image),
    })
}

/// Begins the rollout, and answers when preflight has.
pub(super) async fn install<H: Shell>(shell: &H) -> Result<Answer, Problem> {
    let begun = shell.with(|now, node, flash| {
        let begun = node.bare_install(now, flash);
        let begun = begun.map_err(|error| rollout::cannot_take(&error, node))?;
        Ok((begun, rollout::preflight_end(now, node)))
    });
    shell.wake();
    let (id, limit) = begun?;
    rollout::answer_to(shell, id, limit).await
}

/// Forms hide the file between boundaries; what is posted here is the file itself.
pub(super) fn check_type(parts: &RequestParts<'_>) -> Result<(), Problem> {
    let found = parts.headers().get("content-type").and_then(|value| value.as_str().ok());
    match found.filter(|found| found.trim_start().starts_with("multipart/")) {
        None => Ok(()),
        Some(found) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "wrong-type",
            format_args!("body is `{found}`, expected the image itself"),
            "send the file as the body, such as `curl --data-binary @firmware.bin`",
        )),
    }
}

/// An upload of a bare image that has the turn.
pub(super) struct Upload<'a, H> {
    shell: &'a H,
    turn: &'a Turn,
    number: u32,
    length: u32,
    began_at: Instant,
}

impl<'a, H: Shell> Upload<'a, H> {
    /// Takes the turn, and tells the node what will come.
    pub(super) fn begin(shell: &'a H, turn: &'a Turn, length: u32) -> Result<Self, Problem> {
        if turn.is_taken() {
            return Err(rollout::another_upload());
        }
        let began_at = shell.with(|now, node, _| {
            let begun = node.bare_begin(length);
            begun.map(|()| now).map_err(|error| rollout::cannot_take(&error, node))
        })?;
        Ok(Self { shell, turn, number: turn.take(), length, began_at })
    }

    /// Takes the body, all of it.
    pub(super) async fn run<R: Read>(
        self,
        body: &mut RequestBodyConnection<'_, R>,
    ) -> Result<BareImage, Problem> {
        let reader = body.body().reader();
        // Not how long a request may take counts here, but how long it may be silent.
        let mut reader = reader.with_different_timeout_signal(core::future::pending());
        let mut buffer = alloc::vec![0; CHUNK_BYTES];
        loop {
            match rollout::next_chunk(self.shell, &mut reader, &mut buffer).await {
                Err(_) => return Err(self.cut()),
                Ok([]) => break,
                Ok(chunk) => self.push(chunk).await?,
            }
        }
        loop {
            let ended = self.shell.with(|now, node, flash| {
                self.check_time(now)?;
                let ended = node.bare_end(now, flash);
                ended.map_err(|error| rollout::cannot_take(&error, node))
            });
            self.shell.wake();
            match ended? {
                Some(image) => return Ok(image),
                None => self.shell.sleep_ms(WAIT_MS).await,
            }
        }
    }

    /// Gives the node one chunk, waiting until it has taken all of it.
    async fn push(&self, chunk: &[u8]) -> Result<(), Problem> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let taken = self.shell.with(|now, node, flash| {
                self.check_time(now)?;
                let taken = node.bare_push(now, rest, flash);
                taken.map_err(|error| rollout::cannot_take(&error, node))
            });
            self.shell.wake();
            match taken? {
                0 => self.shell.sleep_ms(WAIT_MS).await,
                taken => rest = rest.get(taken..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// A bundle may have taken its turn, or it takes too long.
    fn check_time(&self, now: Instant) -> Result<(), Problem> {
        match now.ms_since(self.began_at) >= UPLOAD_LIMIT_MS {
            _ if !self.turn.is_of(self.number) => Err(rollout::another_upload()),
            true => Err(rollout::too_slow()),
            false => Ok(()),
        }
    }

    fn cut(&self) -> Problem {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "cut",
            format_args!("the connection was cut before all {} bytes had come", self.length),
            "upload the image again; nothing was begun",
        )
    }
}

impl<H> Drop for Upload<'_, H> {
    fn drop(&mut self) {
        self.turn.give_back(self.number);
    }
}
