//! Talks to a fleet's server: blocking, one connection for each request, by TLS where its address
//! says so.
//!
//! An answer is what was asked for, or a [`FleetError`] that says whether the server refused, could
//! not be reached, or is no server of ours. Asking again is the caller's business.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::SendBody;
use ureq::http::Uri;
use ureq::http::uri;

use super::trust::Authority;
use crate::client::api::Refused;
use crate::client::{ANSWER_MAX, UPLOAD_MAX, Watch, agent, plain};
use crate::error::CommandError;

/// A server, and what lets this command in.
#[derive(Debug, Clone)]
pub struct Server {
    /// Without a slash at its end.
    url: String,
    token: Option<String>,
    authority: Authority,
}

/// An answer with one thing in it, whatever its name.
#[derive(Debug)]
pub struct Page<T> {
    /// The thing.
    pub shown: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Page<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named<T> {
            #[serde(alias = "campaign", alias = "release")]
            group: T,
        }
        Named::deserialize(deserializer).map(|named| Self { shown: named.group })
    }
}

/// The address of a server, in one spelling.
pub(super) fn url_of(text: &str) -> Result<String, CommandError> {
    let wrong = |why: &str| {
        CommandError::usage(format!("`{text}` is not the address of a server: {why}"))
            .hinted("Such as http://fleet.local:8080")
    };
    let url: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
    let Some(scheme @ ("http" | "https")) = url.scheme_str() else {
        return Err(wrong("expected `https://HOST[:PORT]`, or http"));
    };
    let host = url.authority().map(uri::Authority::as_str).filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| wrong("it names no host"))?;
    if host.contains('@') {
        return Err(wrong("a name or a password does not belong there"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(wrong("it goes on behind the port"));
    }
    Ok(format!("{scheme}://{}", host.to_lowercase()))
}

/// A path with a query.
pub(super) fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = query
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    match pairs.as_slice() {
        [] => path.to_owned(),
        pairs => format!("{path}?{}", pairs.join("&")),
    }
}

/// Text as it stands in a path or a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

impl Server {
    /// The server at this address, if this authority vouches for it.
    pub fn new(
        url: &str,
        token: Option<String>,
        authority: Authority,
    ) -> Result<Self, CommandError> {
        let url = url_of(url)?;
        if !url.starts_with("https:") && authority != Authority::System {
            return Err(CommandError::usage(format!("`{url}` is reached without TLS"))
                .hinted("There is no authority to trust: use https://, or leave it out."));
        }
        Ok(Self { url, token, authority })
    }

    fn agent(&self, watch: &Arc<Watch>, answer_max: Duration) -> ureq::Agent {
        agent(watch, answer_max, &self.authority.tls())
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for `path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, FleetError> {
        let agent = self.agent(&Arc::default(), ANSWER_MAX);
        self.answer(self.let_in(agent.get(self.at(path))).call())
    }

    /// Sends something.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, FleetError> {
        let agent = self.agent(&Arc::default(), ANSWER_MAX);
        self.send(agent.post(self.at(path)), body)
    }

    /// Gives an order that needs no more words.
    pub fn order<T: DeserializeOwned>(&self, path: &str) -> Result<T, FleetError> {
        let agent = self.agent(&Arc::default(), ANSWER_MAX);
        self.answer(self.let_in(agent.post(self.at(path))).send_empty())
    }

    /// Ends the token that lets this command in.
    pub fn log_out(&self) -> Result<(), FleetError> {
        let agent = self.agent(&Arc::default(), ANSWER_MAX);
        let request = self.let_in(agent.post(self.at("/api/logout")));
        self.read(request.send_empty()).map(drop)
    }

    /// Puts something in the place of what is there.
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, FleetError> {
        let agent = self.agent(&Arc::default(), ANSWER_MAX);
        self.send(agent.put(self.at(path)), body)
    }

    /// Removes something.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, FleetError> {
        let agent = self.agent(&Arc::default(), ANSWER_MAX);
        self.answer(self.let_in(agent.delete(self.at(path))).call())
    }

    /// Uploads a bundle; `watch` sees how far it is.
    pub fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        mut bundle: &[u8],
        watch: &Arc<Watch>,
    ) -> Result<T, FleetError> {
        let agent = self.agent(watch, UPLOAD_MAX);
        let request = self
            .let_in(agent.post(self.at(path)))
            // Whoever is not let in hears so before it has sent megabytes.
            .header("Expect", "100-continue")
            .header("Content-Type", "application/x-tar")
            .header("Content-Length", bundle.len().to_string());
        self.answer(request.send(SendBody::from_reader(&mut bundle)))
    }

    fn send<T: DeserializeOwned>(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        body: &Value,
    ) -> Result<T, FleetError> {
        let request = self.let_in(request).header("Content-Type", "application/json");
        self.answer(request.send(body.to_string().as_bytes()))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn let_in<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn answer<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, FleetError> {
        let (status, body) = self.read(answer)?;
        serde_json::from_slice(&body)
            .map_err(|_| FleetError::NotOurs { url: self.url.clone(), status })
    }

    /// Status and body of an answer that is no refusal.
    fn read(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(u16, Vec<u8>), FleetError> {
        let away = |error| FleetError::Away { url: self.url.clone(), error };
        let answer = answer.map_err(away)?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        let mut reader = answer.into_body().into_reader().take(ANSWER_BYTES_MAX);
        reader.read_to_end(&mut body).map_err(|error| away(error.into()))?;
        let not_ours = || FleetError::NotOurs { url: self.url.clone(), status };
        if (200..300).contains(&status) {
            return Ok((status, body));
        }
        match serde_json::from_slice::<Refused>(&body) {
            Ok(refused) if !refused.error.code.is_empty() => {
                let (url, refused) = (self.url.clone(), Box::new(refused));
                Err(FleetError::Refused { url, status, refused, had_token: self.token.is_some() })
            }
            _ => Err(not_ours()),
        }
    }
}

/// Why a server did not do what it was asked.
#[derive(Debug)]
pub enum FleetError {
    /// There was no connection, or it ended in the middle.
    Away {
        /// Its address.
        url: String,
        /// Why.
        error: ureq::Error,
    },
    /// What answered speaks no language of ours.
    NotOurs {
        /// Its address.
        url: String,
        /// The status of its answer.
        status: u16,
    },
    /// The server says no.
    Refused {
        /// Its address.
        url: String,
        /// The status of its answer.
        status: u16,
        /// The rest of its answer.
        refused: Box<Refused>,
        /// Whether it was given a token.
        had_token: bool,
    },
}

impl FleetError {
    /// Whether the same request may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::NotOurs { .. } => false,
            Self::Refused { status, .. } => *status == UNAVAILABLE,
        }
    }

    /// The word of a refusal for programs.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { refused, .. } => Some(&refused.error.code),
            Self::Away { .. } | Self::NotOurs { .. } => None,
        }
    }
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away { url, .. } => write!(f, "server `{url}` does not answer"),
            Self::NotOurs { url, status } => {
                write!(f, "`{url}` answers with {status} and in no form of ours")
            }
            Self::Refused { url, refused, .. } => {
                write!(f, "server `{url}` refuses: {}", refused.error.message)
            }
        }
    }
}

impl std::error::Error for FleetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Away { error, .. } => Some(error),
            Self::NotOurs { .. } | Self::Refused { .. } => None,
        }
    }
}

/// For people: the server's own words and its own hint.
impl From<FleetError> for CommandError {
    fn from(error: FleetError) -> Self {
        match &error {
            FleetError::Away { url, error } => match disbelief(error) {
                Some(why) => {
                    Self::failed(format!("Server `{url}` is not believed to be the one it says"))
                        .because(why)
                        .hinted(
                            "If it has an authority of its own, trust that once: lockstep login \
                             URL --ca FILE, or --ca-sha256 FINGERPRINT. The server prints both.",
                        )
                }
                None => Self::failed(format!("Server `{url}` does not answer"))
                    .because(plain(error))
                    .hinted("Does it run there, and is it in reach? Groups go on without it."),
            },
            FleetError::NotOurs { url, status } => {
                Self::failed(format!("`{url}` is no server of ours: it answers with {status}"))
                    .hinted("Is that its address and its port?")
            }
            FleetError::Refused { url, status: UNAUTHORIZED, refused, had_token } => {
                let message = match had_token {
                    true => format!("Server `{url}` refuses: {}", refused.error.message),
                    false => format!("Server `{url}` does not know who asks"),
                };
                Self::failed(message).hinted(format!("Sign in: lockstep login {url}"))
            }
            FleetError::Refused { url, refused, .. } => {
                let failed =
                    Self::failed(format!("Server `{url}` refuses: {}", refused.error.message));
                match &refused.error.hint {
                    Some(hint) => failed.hinted(sentence(hint)),
                    None => failed,
                }
            }
        }
    }
}

/// What is wrong with a server's certificate, if that is why there is no connection.
fn disbelief(error: &ureq::Error) -> Option<&rustls::Error> {
    let why = match error {
        ureq::Error::Rustls(why) => Some(why),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    };
    why.filter(|why| matches!(why, rustls::Error::InvalidCertificate(_)))
}

/// A server's hints are no whole sentences.
fn sentence(hint: &str) -> String {
    let mut letters = hint.chars();
    let first: String = letters.next().map(|it| it.to_uppercase().collect()).unwrap_or_default();
    let text = format!("{first}{}", letters.as_str());
    if text.ends_with(['.', '?', '!', '`', '/']) { text } else { text + "." }
}

const UNAUTHORIZED: u16 = 401;
const UNAVAILABLE: u16 = 503;
/// More than any answer of a server: a campaign with all its groups.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// All but what means nothing in a path or in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_one_spelling() {
        for text in ["http://Fleet.local:8080/", "http://fleet.local:8080"] {
            assert_eq!(url_of(text).unwrap(), "http://fleet.local:8080");
        }
        assert_eq!(url_of("https://Fleet.local:8443/").unwrap(), "https://fleet.local:8443");
        for wrong in
            ["fleet.local", "ftp://a", "http://", "http://a/b", "http://u:p@a", "http://a?b"]
        {
            assert!(url_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_with_blanks_and_slashes_stays_one_part_of_a_path() {
        assert_eq!(encoded("bench 1/2?"), "bench%201%2F2%3F");
        let query = [("labels", "site=berlin"), ("name", "")];
        assert_eq!(with_query("/api/groups", &query), "/api/groups?labels=site%3Dberlin");
    }

    #[test]
    fn a_hint_is_made_a_sentence_once() {
        assert_eq!(sentence("try again"), "Try again.");
        assert_eq!(sentence("see them: `lockstep group list`"), "See them: `lockstep group list`");
    }
}
