//! Talks to one device over its HTTP API: blocking, one connection for each request.
//!
//! Every answer is either what was asked for or a [`ClientError`] that says whether the device
//! refused, could not be reached, or is no device of ours. Retrying is the caller's business
//! (`follow`, and the upload in `commands::update`).

pub mod api;
mod transport;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, RustlsConnector};
use ureq::{Agent, SendBody};

use crate::error::CommandError;
use crate::files;

pub(crate) use transport::STALL_MAX as UPLOAD_MAX;
pub use transport::Watch;

/// Which device, and its password
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// The device: an address such as 192.168.1.20, receiver.local:8080 or http://192.168.1.20
    #[arg(long, value_name = "ADDRESS", env = "LOCKSTEP_DEVICE", help_heading = "Device")]
    device: String,

    /// A file with the device's password
    #[arg(long, value_name = "FILE", conflicts_with = "password", help_heading = "Device")]
    password_file: Option<PathBuf>,

    /// The device's password; others on this machine can see it, so better use the environment
    /// variable LOCKSTEP_PASSWORD
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "LOCKSTEP_PASSWORD",
        hide_env_values = true,
        help_heading = "Device"
    )]
    password: Option<String>,
}

impl DeviceArgs {
    /// What was read from another set of options.
    pub(crate) const fn new(
        device: String,
        password_file: Option<PathBuf>,
        password: Option<String>,
    ) -> Self {
        Self { device, password_file, password }
    }

    /// The client for this device.
    pub fn client(&self) -> Result<Client, CommandError> {
        let password = match &self.password_file {
            None => self.password.clone(),
            Some(path) => Some(files::read_password(path)?),
        };
        Client::new(&self.device, password)
    }
}

/// Talks to one device.
#[derive(Debug, Clone)]
pub struct Client {
    /// `host` or `host:port`.
    device: String,
    password: Option<String>,
}

impl Client {
    /// A client for the device at `address`: a URL, or a host with or without a port.
    pub fn new(address: &str, password: Option<String>) -> Result<Self, CommandError> {
        if address.starts_with("https://") {
            return Err(CommandError::usage(format!("`{address}` is not the address of a device"))
                .hinted(
                    "Devices speak plain HTTP, and the signature protects a release. Use http://",
                ));
        }
        let device = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]%".contains(letter);
        if device.is_empty() || !device.chars().all(is_plain) {
            return Err(CommandError::usage(format!("`{address}` is not the address of a device"))
                .hinted("Such as 192.168.1.20, receiver.local:8080 or http://192.168.1.20"));
        }
        Ok(Self { device: device.to_owned(), password })
    }

    /// The device's address.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Asks for `path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let agent = agent(&Arc::default(), ANSWER_MAX, &TlsConfig::default());
        let request = agent.get(self.url(path));
        self.answer(request.call())
    }

    /// Asks for something that only somebody with the password may see.
    pub fn get_with_password<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let agent = agent(&Arc::default(), ANSWER_MAX, &TlsConfig::default());
        self.answer(self.with_password(agent.get(self.url(path))).call())
    }

    /// Gives an order with a body.
    pub fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let agent = agent(&Arc::default(), ANSWER_MAX, &TlsConfig::default());
        self.send_json(agent.post(self.url(path)), body)
    }

    /// Puts something in the place of what is there.
    pub fn put_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let agent = agent(&Arc::default(), ANSWER_MAX, &TlsConfig::default());
        self.send_json(agent.put(self.url(path)), body)
    }

    fn send_json<T: DeserializeOwned>(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let text = body.to_string();
        let request = request
            .header("Content-Type", "application/json")
            .header("Content-Length", text.len().to_string());
        self.answer(self.with_password(request).send(text.as_bytes()))
    }

    /// Gives an order that a rollout answers for.
    pub fn order(&self, path: &str) -> Result<api::Accepted, ClientError> {
        self.post(path)
    }

    /// Gives an order without a body.
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let agent = agent(&Arc::default(), ANSWER_MAX, &TlsConfig::default());
        let request = agent.post(self.url(path)).header("Content-Length", "0");
        self.answer(self.with_password(request).send_empty())
    }

    /// Hands over a bundle, or goes on with one from a byte on; `watch` sees how far it is.
    pub fn upload(
        &self,
        bundle: &[u8],
        goes_on_at: Option<u64>,
        holds: bool,
        watch: &Arc<Watch>,
    ) -> Result<api::Accepted, ClientError> {
        let from = goes_on_at.unwrap_or(0);
        let rest = usize::try_from(from).ok().and_then(|from| bundle.get(from..));
        let mut rest = rest.unwrap_or_default();
        let total_bytes = bundle.len();
        let agent = agent(watch, transport::STALL_MAX, &TlsConfig::default());
        let mut request = agent
            .post(self.url(if holds { "/api/rollout?hold=true" } else { "/api/rollout" }))
            .header("Content-Type", "application/x-tar")
            .header("Content-Length", rest.len().to_string());
        if goes_on_at.is_some() {
            let last = total_bytes.saturating_sub(1);
            let range = format!("bytes {from}-{last}/{total_bytes}");
            request = request.header("Content-Range", range);
        }
        self.answer(self.with_password(request).send(SendBody::from_reader(&mut rest)))
    }

    /// Posts an image to firmware that is not ours, which answers in any words: the status and what
    /// it says. The password stays here.
    pub fn post_image(
        &self,
        path: &str,
        image: &[u8],
        watch: &Arc<Watch>,
    ) -> Result<(u16, String), ClientError> {
        let agent = agent(watch, transport::STALL_MAX, &TlsConfig::default());
        let mut rest = image;
        let request = agent
            .post(self.url(path))
            .header("Content-Type", "application/octet-stream")
            .header("Content-Length", image.len().to_string());
        let answer = request.send(SendBody::from_reader(&mut rest));
        let answer = answer.map_err(|error| self.failed(error))?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        // A device that restarts may leave its answer half said; its status was whole.
        let _ = answer.into_body().into_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut body);
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.device)
    }

    fn with_password<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.password {
            Some(password) => request.header("Authorization", format!("Bearer {password}")),
            None => request,
        }
    }

    fn answer<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let device = || self.device.clone();
        let answer = answer.map_err(|error| self.failed(error))?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        let mut reader = answer.into_body().into_reader().take(ANSWER_BYTES_MAX);
        reader
            .read_to_end(&mut body)
            .map_err(|error| ClientError::Cut { device: device(), error: error.into() })?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body)
                .map_err(|_| ClientError::NotOurs { device: device(), status });
        }
        match serde_json::from_slice::<api::Refused>(&body) {
            Ok(refused) if !refused.error.code.is_empty() => Err(ClientError::Refused {
                device: device(),
                status,
                refused: Box::new(refused),
                had_password: self.password.is_some(),
            }),
            _ => Err(ClientError::NotOurs { device: device(), status }),
        }
    }

    fn failed(&self, error: ureq::Error) -> ClientError {
        let device = self.device.clone();
        let never_there = match &error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            ureq::Error::Io(error) => {
                use std::io::ErrorKind::{
                    AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable,
                    TimedOut,
                };
                matches!(
                    error.kind(),
                    AddrNotAvailable
                        | ConnectionRefused
                        | HostUnreachable
                        | NetworkUnreachable
                        | TimedOut
                )
            }
            _ => false,
        };
        match never_there {
            true => ClientError::Unreachable { device, error },
            false => ClientError::Cut { device, error },
        }
    }
}

/// One exchange, one agent: nothing is kept between two requests to a device with few sockets.
pub(crate) fn agent(watch: &Arc<Watch>, answer_max: Duration, tls: &TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.clone())
        .timeout_recv_response(Some(answer_max))
        .timeout_recv_body(Some(ANSWER_MAX))
        .build();
    let connector = transport::DeviceConnector { watch: Arc::clone(watch) };
    let connector = connector.chain(RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Why a device did not do what it was asked.
#[derive(Debug)]
pub enum ClientError {
    /// There was no connection.
    Unreachable {
        /// Its address.
        device: String,
        /// Why.
        error: ureq::Error,
    },
    /// The connection ended in the middle.
    Cut {
        /// Its address.
        device: String,
        /// Why.
        error: ureq::Error,
    },
    /// What answered speaks no language of ours.
    NotOurs {
        /// Its address.
        device: String,
        /// The status of its answer.
        status: u16,
    },
    /// The device says no.
    Refused {
        /// Its address.
        device: String,
        /// The status of its answer.
        status: u16,
        /// The rest of its answer.
        refused: Box<api::Refused>,
        /// Whether it was given a password.
        had_password: bool,
    },
}

impl ClientError {
    /// Whether the same request may succeed a little later.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Cut { .. })
    }

    /// The word of a refusal for programs.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { refused, .. } => Some(&refused.error.code),
            Self::Unreachable { .. } | Self::Cut { .. } | Self::NotOurs { .. } => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { device, .. } => write!(f, "device `{device}` does not answer"),
            Self::Cut { device, .. } => write!(f, "the connection to device `{device}` was cut"),
            Self::NotOurs { device, status } => {
                write!(f, "`{device}` answers with {status} and in no form of ours")
            }
            Self::Refused { device, refused, .. } => {
                write!(f, "device `{device}` refuses: {}", refused.error.message)
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { error, .. } | Self::Cut { error, .. } => Some(error),
            Self::NotOurs { .. } | Self::Refused { .. } => None,
        }
    }
}

/// For people: every reason, and each with its way out.
impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { device, error } => {
                Self::failed(format!("Device `{device}` does not answer"))
                    .because(plain(error))
                    .hinted("Is it on, in this network, and is that its address?")
            }
            ClientError::Cut { device, error } => {
                Self::failed(format!("The connection to device `{device}` was cut"))
                    .because(plain(error))
                    .hinted("See what became of it: lockstep status")
            }
            ClientError::NotOurs { device, status } => {
                Self::failed(format!("`{device}` is no device of ours: it answers with {status}"))
                    .hinted("Is that its address and its port?")
            }
            ClientError::Refused { device, status, refused, had_password } => {
                refusal(device, *status, refused, *had_password)
            }
        }
    }
}

/// The system's own words where there are such.
pub(crate) fn plain(error: &ureq::Error) -> &(dyn std::error::Error + 'static) {
    match error {
        ureq::Error::Io(error) => error,
        other => other,
    }
}

fn refusal(device: &str, status: u16, refused: &api::Refused, had_password: bool) -> CommandError {
    let api::Refusal { message, hint, refusals, .. } = &refused.error;
    if status == UNAUTHORIZED {
        let said = match had_password {
            true => "does not take this password",
            false => "needs a password",
        };
        return CommandError::failed(format!("Device `{device}` {said}"))
            .hinted("Give it with LOCKSTEP_PASSWORD or --password-file.");
    }
    let mut error = match refusals.as_slice() {
        [] => CommandError::failed(format!("Device `{device}` refuses: {message}")),
        [_, ..] => CommandError::failed(format!("Device `{device}` refuses the release")),
    };
    for single in refusals {
        let who = match (&single.role, &single.member) {
            (Some(role), Some(member)) => format!("{role} {member}: "),
            (Some(who), None) | (None, Some(who)) => format!("{who}: "),
            (None, None) => String::new(),
        };
        error = error.detailed(format!("{who}{}", single.message), single.hint.clone());
    }
    match hint {
        // The first refusal's hint stands beside it already.
        Some(hint) if refusals.iter().all(|one| one.hint.as_ref() != Some(hint)) => {
            error.hinted(hint.clone())
        }
        _ => error,
    }
}

const UNAUTHORIZED: u16 = 401;
/// How long a device, or a server, may take for an ordinary answer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// More than any answer of a device.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
