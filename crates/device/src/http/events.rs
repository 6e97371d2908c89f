//! `GET /api/rollout/events`: the rollout as it goes on, as server-sent events.
//!
//! A stream begins with the present state (`event: rollout`), and goes on with what happens from
//! then on (`event: event`, with its number as id). Whoever comes back says `Last-Event-ID`, or
//! `?after=NUMBER`, and gets what it missed, as far as the ring still has it.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use picoserve::ResponseSent;
use picoserve::io::{Read, Write};
use picoserve::request::RequestParts;
use picoserve::response::custom::{CustomBody, CustomResponse};
use picoserve::response::{Connection, IntoResponse, ResponseWriter, StatusCode};

use super::answer::Problem;
use super::rollout::not_the_lead;
use super::{Api, STREAMS_MAX, Shell, views};

/// One stream, counted as long as it lives.
pub(super) struct Stream<'a, H> {
    shell: &'a H,
    place: Place<'a>,
    last_seq: u32,
}

struct Place<'a>(&'a Cell<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// What is new since the last look.
struct News {
    events: Vec<(u32, String)>,
    /// The rollout, if it has changed.
    rollout: Option<String>,
}

impl<'a, H: Shell> Stream<'a, H> {
    /// Takes a place, if one is free.
    pub(super) fn begin(
        shell: &'a H,
        api: &'a Api,
        parts: &RequestParts<'_>,
    ) -> Result<Self, Problem> {
        let newest = shell.with(|_, node, _| {
            if node.members().is_empty() {
                return Err(not_the_lead(node));
            }
            Ok(node.journal().events_after(0).last().map_or(0, |event| event.seq))
        })?;
        let streams = api.streams.get();
        if streams >= STREAMS_MAX {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-streams",
                format_args!("{streams} event streams are open, allowed are {STREAMS_MAX}"),
                "close another page of this device, or ask `GET /api/rollout` now and then",
            ));
        }
        api.streams.set(streams + 1);
        // A number that is still to come is one of a boot before this one.
        let last_seq = match wanted_seq(parts) {
            Some(seq) if seq <= newest => seq,
            Some(_) => 0,
            None => newest,
        };
        Ok(Self { shell, place: Place(&api.streams), last_seq })
    }

    /// Answers with the stream; ends when the client goes away.
    pub(super) async fn send<R: Read, W: ResponseWriter<Error = R::Error>>(
        self,
        connection: Connection<'_, R>,
        writer: W,
    ) -> Result<ResponseSent, W::Error> {
        CustomResponse::build(StatusCode::OK)
            .with_header("Content-Type", "text/event-stream")
            .with_header("Cache-Control", "no-store")
            .with_body(self)
            .write_to(connection, writer)
            .await
    }

    fn news(&self, known: &str) -> (News, Option<String>) {
        self.shell.with(|now, node, _| {
            let events = node.journal().events_after(self.last_seq);
            let events = events.map(|event| (event.seq, views::event(event))).collect();
            let state = views::rollout(node, None);
            let has_changed = state != known;
            let rollout = has_changed.then(|| views::rollout(node, Some(now)));
            (News { events, rollout }, has_changed.then_some(state))
        })
    }
}

impl<H: Shell> CustomBody for Stream<'_, H> {
    async fn write_response_body<W: Write>(mut self, mut writer: W) -> Result<(), W::Error> {
        let mut known = String::new();
        let mut silent_ms = 0;
        for _ in 0..LOOKS_MAX {
            let (news, state) = self.news(&known);
            let is_silent = news.events.is_empty() && news.rollout.is_none();
            known = state.unwrap_or(known);
            for (seq, data) in news.events {
                self.last_seq = seq;
                write!(writer, "id: {seq}\nevent: event\ndata: ").await?;
                writer.write_all(data.as_bytes()).await?;
                writer.write_all(b"\n\n").await?;
            }
            if let Some(data) = news.rollout {
                writer.write_all(b"event: rollout\ndata: ").await?;
                writer.write_all(data.as_bytes()).await?;
                writer.write_all(b"\n\n").await?;
            }
            silent_ms = if is_silent { silent_ms + LOOK_EVERY_MS } else { 0 };
            if silent_ms >= SILENT_MS {
                // Finds out whether anybody is still there.
                silent_ms = 0;
                writer.write_all(b": alive\n\n").await?;
            }
            writer.flush().await?;
            self.shell.sleep_ms(LOOK_EVERY_MS).await;
        }
        drop(self.place);
        Ok(())
    }
}

/// The number after which the client wants events.
fn wanted_seq(parts: &RequestParts<'_>) -> Option<u32> {
    let header = parts.headers().get("last-event-id");
    if let Some(seq) = header.and_then(|value| value.as_str().ok()?.parse().ok()) {
        return Some(seq);
    }
    parts.query()?.0.split('&').find_map(|pair| pair.strip_prefix("after=")?.parse().ok())
}

/// The device looks for news this often, in milliseconds: no stream gets more than five states a
/// second.
const LOOK_EVERY_MS: u64 = 200;
/// A stream says that it is alive after so long without news, in milliseconds.
const SILENT_MS: u64 = 5_000;
/// A stream ends after an hour; whoever still watches comes back.
const LOOKS_MAX: u32 = 18_000;
