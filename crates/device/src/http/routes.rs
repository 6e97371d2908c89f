//! Which call is meant, and what stands before it. Every request goes through here, in one order:
//! origin, path, method, password, lengths.

use alloc::rc::Rc;

use picoserve::ResponseSent;
use picoserve::io::Read;
use picoserve::request::{Path, Request, RequestBodyConnection, RequestParts};
use picoserve::response::{ResponseWriter, StatusCode};
use picoserve::routing::PathRouterService;

use super::answer::{Answer, Problem};
use super::connection::Control;
use super::{Api, Shell, events, gate, group, page, rollout, views};

/// Serves the requests of one connection.
pub(super) struct Routes<'a, H> {
    pub(super) shell: &'a H,
    pub(super) api: &'a Api,
    pub(super) control: &'a Rc<Control>,
}

/// One call of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call<'p> {
    Home,
    Page,
    Version,
    Health,
    FirmwareInfo,
    Rollout,
    Events,
    History,
    Logs,
    Group,
    Upload,
    Abort,
    Revert,
    /// The address as it stands in the path.
    Remove(&'p str),
}

impl Call<'_> {
    /// Whether only somebody with the password may do it.
    const fn is_order(self) -> bool {
        matches!(self, Self::Upload | Self::Abort | Self::Revert | Self::Remove(_))
    }
}

impl<H: Shell> PathRouterService for Routes<'_, H> {
    async fn call_path_router_service<R: Read, W: ResponseWriter<Error = R::Error>>(
        &self,
        _state: &(),
        _parameters: (),
        _path: Path<'_>,
        request: Request<'_, R>,
        writer: W,
    ) -> Result<ResponseSent, W::Error> {
        let Request { parts, mut body_connection } = request;
        let reply = self.reply(&parts, &mut body_connection).await;
        if body_connection.content_length() > 0 {
            self.control.refuse_body();
        }
        self.control.note_answer();
        let connection = body_connection.finalize().await?;
        match reply {
            Ok(Reply::Answer(answer)) => answer.send(connection, writer).await,
            Ok(Reply::Stream(stream)) => stream.send(connection, writer).await,
            Ok(Reply::Page) => page::send(connection, writer).await,
            Err(problem) => Answer::from(problem).send(connection, writer).await,
        }
    }
}

/// What a request gets.
enum Reply<'a, H> {
    Answer(Answer),
    Stream(events::Stream<'a, H>),
    Page,
}

impl<'a, H: Shell> Routes<'a, H> {
    async fn reply<R: Read>(
        &self,
        parts: &RequestParts<'_>,
        body: &mut RequestBodyConnection<'_, R>,
    ) -> Result<Reply<'a, H>, Problem> {
        gate::check_origin(parts)?;
        let call = call_of(parts)?;
        if call.is_order() {
            gate::check_password(self.shell, &self.api.passwords, parts).await?;
        }
        let shell = self.shell;
        let answer = match call {
            Call::Home => Answer::elsewhere(PAGE, HOME),
            Call::Page => return Ok(Reply::Page),
            Call::Version => views::version(shell),
            Call::Health => views::health(shell),
            Call::FirmwareInfo => views::firmware_info(shell),
            Call::Rollout => rollout::present(shell)?,
            Call::History => views::history(shell),
            Call::Logs => views::logs(shell),
            Call::Group => group::present(shell)?,
            Call::Remove(id) => group::remove(shell, id)?,
            Call::Abort => rollout::abort(shell)?,
            Call::Revert => rollout::revert(shell).await?,
            Call::Upload => self.upload(parts, body).await?,
            Call::Events => {
                return events::Stream::begin(shell, self.api, parts).map(Reply::Stream);
            }
        };
        Ok(Reply::Answer(answer))
    }

    async fn upload<R: Read>(
        &self,
        parts: &RequestParts<'_>,
        body: &mut RequestBodyConnection<'_, R>,
    ) -> Result<Answer, Problem> {
        let length = gate::bundle_length(parts)?;
        let part = gate::bundle_part(parts, length)?;
        let asks = parts.headers().get("expect");
        if let Some(expectation) = &asks
            && *expectation != "100-continue"
        {
            return Err(Problem::new(
                StatusCode::EXPECTATION_FAILED,
                "bad-request",
                "`Expect` is something else than `100-continue`",
                "leave it out",
            ));
        }
        let upload = rollout::Upload::begin(self.shell, &self.api.upload, length, part)?;
        if asks.is_some() {
            self.control.ask_for_body();
        }
        upload.run(body).await
    }
}

fn call_of<'p>(parts: &RequestParts<'p>) -> Result<Call<'p>, Problem> {
    let path = parts.path().encoded();
    let (get, post) = match path {
        "/" => (Some(Call::Home), None),
        PAGE => (Some(Call::Page), None),
        "/api/version" => (Some(Call::Version), None),
        "/api/health" => (Some(Call::Health), None),
        "/api/firmware_info" => (Some(Call::FirmwareInfo), None),
        "/api/rollout" => (Some(Call::Rollout), Some(Call::Upload)),
        "/api/rollout/events" => (Some(Call::Events), None),
        "/api/rollout/abort" => (None, Some(Call::Abort)),
        "/api/rollout/revert" => (None, Some(Call::Revert)),
        "/api/group" => (Some(Call::Group), None),
        _ if path.starts_with(REMOVE) => {
            (None, Some(Call::Remove(path.strip_prefix(REMOVE).unwrap_or_default())))
        }
        "/api/history" => (Some(Call::History), None),
        "/api/logs" => (Some(Call::Logs), None),
        _ => {
            let message = format_args!("there is no `{path}`");
            let hint = "`GET /api/version` is a good start";
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", message, hint));
        }
    };
    let method = parts.method();
    let (call, allowed) = match (method, get, post) {
        (_, None, None) | (_, Some(_), None) => (get.filter(|_| method == "GET"), "GET"),
        (_, None, Some(_)) => (post.filter(|_| method == "POST"), "POST"),
        ("GET", Some(_), Some(_)) => (get, "GET, POST"),
        (_, Some(_), Some(_)) => (post.filter(|_| method == "POST"), "GET, POST"),
    };
    call.ok_or_else(|| {
        let message = format_args!("`{path}` knows no method `{method}`, only {allowed}");
        let problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            message,
            "reads are GET, orders are POST",
        );
        problem.with_header("Allow", allowed)
    })
}

const REMOVE: &str = "/api/group/remove/";
const PAGE: &str = "/ota";
const HOME: &str = "A Lockstep device. Its page is /ota, its API begins at /api/version.";
