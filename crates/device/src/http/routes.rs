//! Which call is meant, and what stands before it. Every request goes through here, in one order:
//! origin, path, method, password, lengths.

use alloc::rc::Rc;
use alloc::vec::Vec;

use lockstep_agent::CONFIG_BYTES_MAX;
use picoserve::ResponseSent;
use picoserve::io::Read;
use picoserve::request::{Path, Request, RequestBodyConnection, RequestParts};
use picoserve::response::{ResponseWriter, StatusCode};
use picoserve::routing::PathRouterService;

use super::answer::{Answer, Problem};
use super::connection::Control;
use super::{
    Api, Shell, bare, body, config, events, first_start, gate, group, page, password, rollout,
    schedule, server, views,
};
use crate::bare::BareImage;

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
    /// One bare image: bring it, install it, or both.
    BareUpload,
    BareInstall,
    BareUpdate,
    Abort,
    Revert,
    Schedule,
    Config,
    ConfigWithSecrets,
    SetConfig,
    SetPassword,
    /// The address as it stands in the path.
    Remove(&'p str),
    Adopt(&'p str),
    /// The fleet's server, and what it offers.
    Server,
    ServerInstall,
    /// The first start of a board.
    SetupPage,
    Setup,
    SetUp,
    /// Anything that is asked of a board that has only its set-up page.
    Elsewhere,
}

impl Call<'_> {
    /// Whether only somebody with the password may do it.
    const fn is_order(self) -> bool {
        match self {
            Self::Home
            | Self::Page
            | Self::Version
            | Self::Health
            | Self::FirmwareInfo
            | Self::Rollout
            | Self::Events
            | Self::History
            | Self::Logs
            | Self::Group
            | Self::Server
            | Self::SetupPage
            | Self::Setup
            | Self::Elsewhere
            | Self::Config => false,
            Self::Upload
            | Self::BareUpload
            | Self::BareInstall
            | Self::BareUpdate
            | Self::Abort
            | Self::Revert
            | Self::Schedule
            | Self::ConfigWithSecrets
            | Self::SetConfig
            | Self::SetPassword
            | Self::Remove(_)
            | Self::Adopt(_)
            | Self::SetUp
            | Self::ServerInstall => true,
        }
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
            Ok(Reply::Page(page)) => page.send(connection, writer).await,
            Err(problem) => Answer::from(problem).send(connection, writer).await,
        }
    }
}

/// What a request gets.
enum Reply<'a, H> {
    Answer(Answer),
    Stream(events::Stream<'a, H>),
    Page(page::Page),
}

impl<'a, H: Shell> Routes<'a, H> {
    async fn reply<R: Read>(
        &self,
        parts: &RequestParts<'_>,
        body: &mut RequestBodyConnection<'_, R>,
    ) -> Result<Reply<'a, H>, Problem> {
        gate::check_origin(parts)?;
        let call = self.call_of(parts)?;
        let is_open = call == Call::SetUp && first_start::is_open(self.shell);
        if call.is_order() && !is_open {
            gate::check_password(self.shell, &self.api.passwords, parts).await?;
        }
        let shell = self.shell;
        let answer = match call {
            Call::Home => Answer::elsewhere(PAGE, HOME),
            Call::Page => return Ok(Reply::Page(page::UPDATE)),
            Call::SetupPage => return Ok(Reply::Page(page::SETUP)),
            Call::Setup => first_start::present(shell)?,
            Call::SetUp => first_start::set(
                shell,
                &self.short(parts, body, first_start::BODY_BYTES_MAX).await?,
            )?,
            Call::Elsewhere => Answer::elsewhere(SETUP_PAGE, SETUP_HOME),
            Call::Version => views::version(shell),
            Call::Health => views::health(shell),
            Call::FirmwareInfo => views::firmware_info(shell),
            Call::Rollout => rollout::present(shell)?,
            Call::History => views::history(shell),
            Call::Logs => views::logs(shell),
            Call::Group => group::present(shell)?,
            Call::Remove(id) => group::remove(shell, id)?,
            Call::Adopt(id) => {
                group::adopt(shell, id, &self.short(parts, body, group::BODY_BYTES_MAX).await?)?
            }
            Call::Server => server::present(&self.api.uplink),
            Call::ServerInstall => server::install(&self.api.uplink)?,
            Call::Abort => rollout::abort(shell)?,
            Call::Revert => rollout::revert(shell).await?,
            Call::Upload => self.upload(parts, body).await?,
            Call::BareUpload => bare::answer(&self.bare(parts, body).await?),
            Call::BareInstall => bare::install(shell).await?,
            Call::BareUpdate => {
                self.bare(parts, body).await?;
                bare::install(shell).await?
            }
            Call::Schedule => {
                schedule::set(shell, &self.short(parts, body, schedule::BODY_BYTES_MAX).await?)?
            }
            Call::Config => config::present(shell, false),
            Call::ConfigWithSecrets => config::present(shell, true),
            Call::SetConfig => {
                config::set(shell, &self.short(parts, body, CONFIG_BYTES_MAX).await?)?
            }
            Call::SetPassword => {
                password::set(shell, &self.short(parts, body, password::BODY_BYTES_MAX).await?)?
            }
            Call::Events => {
                return events::Stream::begin(shell, self.api, parts).map(Reply::Stream);
            }
        };
        Ok(Reply::Answer(answer))
    }

    /// A board that is being set up has a page for that, and leads to it whatever a phone asks for
    /// to find out whether there is an internet.
    fn call_of<'p>(&self, parts: &RequestParts<'p>) -> Result<Call<'p>, Problem> {
        let is_reading = parts.method() == "GET";
        if self.shell.first_start().is_none() {
            return call_of(parts);
        }
        match (parts.path().encoded(), call_of(parts)) {
            ("/", _) if is_reading => Ok(Call::Elsewhere),
            (path, Err(_)) if is_reading && !path.starts_with("/api/") => Ok(Call::Elsewhere),
            (_, call) => call,
        }
    }

    async fn short<R: Read>(
        &self,
        parts: &RequestParts<'_>,
        body: &mut RequestBodyConnection<'_, R>,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, Problem> {
        body::read(self.shell, self.control, parts, body, limit_bytes).await
    }

    async fn upload<R: Read>(
        &self,
        parts: &RequestParts<'_>,
        body: &mut RequestBodyConnection<'_, R>,
    ) -> Result<Answer, Problem> {
        let length = gate::bundle_length(parts)?;
        let part = gate::bundle_part(parts, length)?;
        let asks = gate::asks_first(parts)?;
        let holds = asks_for(parts, HOLD);
        let upload = rollout::Upload::begin(self.shell, &self.api.upload, length, part, holds)?;
        if asks {
            self.control.ask_for_body();
        }
        upload.run(body).await
    }

    async fn bare<R: Read>(
        &self,
        parts: &RequestParts<'_>,
        body: &mut RequestBodyConnection<'_, R>,
    ) -> Result<BareImage, Problem> {
        bare::check_type(parts)?;
        let length = gate::bundle_length(parts)?;
        let asks = gate::asks_first(parts)?;
        let upload = bare::Upload::begin(self.shell, &self.api.upload, length)?;
        if asks {
            self.control.ask_for_body();
        }
        upload.run(body).await
    }
}

fn call_of<'p>(parts: &RequestParts<'p>) -> Result<Call<'p>, Problem> {
    let path = parts.path().encoded();
    let calls: &[(&str, Call<'_>)] = match path {
        "/" => &[("GET", Call::Home)],
        PAGE => &[("GET", Call::Page)],
        "/api/version" => &[("GET", Call::Version)],
        "/api/health" => &[("GET", Call::Health)],
        "/api/firmware_info" => &[("GET", Call::FirmwareInfo)],
        "/api/rollout" => &[("GET", Call::Rollout), ("POST", Call::Upload)],
        "/api/ota/upload" => &[("POST", Call::BareUpload)],
        "/api/ota/install" => &[("POST", Call::BareInstall)],
        "/ota_upload" => &[("POST", Call::BareUpdate)],
        "/api/rollout/events" => &[("GET", Call::Events)],
        "/api/rollout/abort" => &[("POST", Call::Abort)],
        "/api/rollout/revert" => &[("POST", Call::Revert)],
        "/api/rollout/schedule" => &[("POST", Call::Schedule)],
        "/api/group" => &[("GET", Call::Group)],
        _ if path.starts_with(REMOVE) => {
            &[("POST", Call::Remove(path.strip_prefix(REMOVE).unwrap_or_default()))]
        }
        _ if path.starts_with(ADOPT) => {
            &[("POST", Call::Adopt(path.strip_prefix(ADOPT).unwrap_or_default()))]
        }
        "/api/server" => &[("GET", Call::Server)],
        "/api/server/install" => &[("POST", Call::ServerInstall)],
        "/api/history" => &[("GET", Call::History)],
        "/api/config" if asks_for(parts, SECRETS) => {
            &[("GET", Call::ConfigWithSecrets), ("PUT", Call::SetConfig)]
        }
        "/api/config" => &[("GET", Call::Config), ("PUT", Call::SetConfig)],
        SETUP_PAGE => &[("GET", Call::SetupPage)],
        "/api/setup" => &[("GET", Call::Setup), ("POST", Call::SetUp)],
        "/api/password" => &[("PUT", Call::SetPassword)],
        "/api/logs" => &[("GET", Call::Logs)],
        _ => {
            let message = format_args!("there is no `{path}`");
            let hint = "`GET /api/version` is a good start";
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", message, hint));
        }
    };
    let method = parts.method();
    if let Some((_, call)) = calls.iter().find(|(known, _)| method == *known) {
        return Ok(*call);
    }
    let allowed = match calls {
        [("GET", _), ("PUT", _), ..] => "GET, PUT",
        [("GET", _), _, ..] => "GET, POST",
        [("POST", _), ..] => "POST",
        [("PUT", _), ..] => "PUT",
        _ => "GET",
    };
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        format_args!("`{path}` knows no method `{method}`, only {allowed}"),
        "reads are GET, orders are POST, what is replaced is PUT",
    );
    Err(problem.with_header("Allow", allowed))
}

/// Whether the query has this pair.
fn asks_for(parts: &RequestParts<'_>, pair: &str) -> bool {
    parts.query().is_some_and(|query| query.0.split('&').any(|it| it == pair))
}

/// In the query of a configuration: with what is nobody's business.
const SECRETS: &str = "secrets=true";
/// In the query of an upload: the rollout is to wait once all have staged.
const HOLD: &str = "hold=true";
const REMOVE: &str = "/api/group/remove/";
const ADOPT: &str = "/api/group/adopt/";
const PAGE: &str = "/ota";
const SETUP_PAGE: &str = "/setup";
const SETUP_HOME: &str = "A Lockstep device that is being set up. Its page for that is /setup.";
const HOME: &str = "A Lockstep device. Its page is /ota, its API begins at /api/version.";
