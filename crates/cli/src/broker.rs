//! The URL of an MQTT broker.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use lockstep_device::mqtt::{Broker, Login, PORT_DEFAULT, Prefix};
use percent_encoding::percent_decode_str;
use ureq::http::Uri;

use crate::error::CommandError;

/// As it was given, with its password. Looked at only where an error does not print it: what clap
/// refuses, it repeats.
#[derive(Clone)]
pub(crate) struct BrokerUrl(String);

impl FromStr for BrokerUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BrokerUrl").finish_non_exhaustive()
    }
}

impl BrokerUrl {
    /// What it says.
    pub(crate) fn broker(&self, prefix: &Prefix) -> Result<Broker, CommandError> {
        let bad = |why: &str| {
            CommandError::usage(format!("The URL of the broker {why}"))
                .hinted("Such as mqtt://broker.local, or mqtt://user:password@192.168.1.5:1883")
                .hinted("Within a password: %25 for a percent sign, %40 for an at, %2F for a slash")
        };
        let url: Uri = self.0.parse().map_err(|_| bad("is none"))?;
        match url.scheme_str() {
            Some("mqtt") => (),
            Some("mqtts") => return Err(bad("asks for TLS, which devices do not speak")),
            _ => return Err(bad("does not begin with `mqtt://`")),
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(bad("goes on behind the port; topics are named by --mqtt-topic"));
        }
        let authority = url.authority().ok_or_else(|| bad("names no host"))?;
        if authority.host().is_empty() {
            return Err(bad("names no host"));
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(String::from).map_err(|_| bad("holds a user or password that is no text"))
        };
        let (login, place) = match authority.as_str().rsplit_once('@') {
            None => (None, authority.as_str()),
            Some((login, place)) => (Some(login), place),
        };
        let login = match login {
            None => None,
            Some(login) => {
                let (user, password) =
                    login.split_once(':').ok_or_else(|| bad("has a user, but no password"))?;
                Some(Login { user: decoded(user)?, password: decoded(password)? })
            }
        };
        // A port that is none would be passed over.
        let port = match place.strip_prefix(authority.host()) {
            None | Some("") => PORT_DEFAULT,
            Some(port) => {
                let port = port.trim_start_matches(':').parse();
                port.map_err(|_| bad("has a port that is no number from 1 to 65535"))?
            }
        };
        // An address of IPv6 stands in brackets only within a URL.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Broker { host, port, login, prefix: prefix.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(url: &str) -> Result<Broker, String> {
        let url: BrokerUrl = url.parse().unwrap();
        let prefix = Prefix::new("lockstep").unwrap();
        url.broker(&prefix).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_broker_is_a_host_with_or_without_the_rest() {
        let full = broker("mqtt://desk:a%40b:c@broker.local:1884").unwrap();
        let login = Login { user: "desk".into(), password: "a@b:c".into() };
        assert_eq!((full.host.as_str(), full.port), ("broker.local", 1884));
        assert_eq!(full.login, Some(login));
        let short = broker("mqtt://[::1]/").unwrap();
        assert_eq!((short.host.as_str(), short.port, short.login), ("::1", 1883, None));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_the_url() {
        let cases = [
            ("mqtt://desk:secret@", "is none"),
            ("mqtts://desk:secret@host", "TLS"),
            ("host:1883", "mqtt://"),
            ("desk:secret@host", "mqtt://"),
            ("mqtt://desk:secret@host/topic", "--mqtt-topic"),
            ("mqtt://secret@host", "no password"),
            ("mqtt://desk:secret%FF@host", "no text"),
            ("mqtt://desk:secret@host:99999", "no number"),
        ];
        for (url, why) in cases {
            let message = broker(url).unwrap_err();
            assert!(message.contains(why), "{url}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
