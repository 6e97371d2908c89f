//! Values on the command line that have a form of their own: how each is read.
//!
//! What is wrong with one is said in the words that clap puts behind `invalid value`.

use std::fmt;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::uplink::Place;
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::{ROLE_BYTES_MAX, is_role};
use lockstep_proto::version::ProtocolRange;
use ureq::http::Uri;

/// A role's name, which may become a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleName(String);

impl RoleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_role(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("expected 1 to {ROLE_BYTES_MAX} letters, digits, `-` or `_`"))
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where a fleet's server is, as devices are told: they speak plain HTTP, and trust signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Its name and port.
    pub place: Place,
}

impl FromStr for ServerUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Uri = text.parse().map_err(|_| "is no URL")?;
        match url.scheme_str() {
            Some("http") => (),
            Some("https") => return Err("devices speak plain HTTP: give them `http://HOST:PORT`"),
            _ => return Err("expected `http://HOST[:PORT]`"),
        }
        let host = url.host().filter(|host| !host.is_empty()).ok_or("names no host")?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err("goes on behind the port");
        }
        let port = url.port_u16().unwrap_or(80);
        Ok(Self { place: Place { host: host.to_owned(), port } })
    }
}

/// How a radio comes to its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// It is told.
    At(Channel),
    /// It finds its lead.
    Scan,
}

impl Tuning {
    /// Where the radio is when the power comes on.
    pub fn at_first(self) -> Channel {
        match self {
            Self::At(channel) => channel,
            Self::Scan => Channel::FIRST,
        }
    }

    /// Where it may go from there.
    pub fn plan(self) -> ChannelPlan {
        match self {
            Self::At(_) => ChannelPlan::Fixed,
            Self::Scan => ChannelPlan::ALL,
        }
    }
}

impl FromStr for Tuning {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "scan" {
            return Ok(Self::Scan);
        }
        let channel = text.parse().ok().and_then(Channel::new);
        channel.map(Self::At).ok_or("expected a channel from 1 to 14, or `scan`")
    }
}

/// `ROLE=VALUE`: something that is said of one role.
#[derive(Debug, Clone)]
pub struct ForRole<T> {
    /// The role.
    pub role: RoleName,
    /// What is said.
    pub value: T,
}

/// Reads `ROLE=VALUE`, the value by `read`.
fn for_role<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<ForRole<T>, String> {
    let (role, value) = text.split_once('=').ok_or("expected `ROLE=VALUE`")?;
    Ok(ForRole { role: role.parse()?, value: read(value)? })
}

/// Reads `ROLE=VALUE` where the value reads itself.
pub fn role_value<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<ForRole<T>, String> {
    for_role(text, |value| value.parse().map_err(|error: T::Err| error.to_string()))
}

/// Reads `ENV=ROLE`: which role the images of a build environment are for.
pub fn env_role(text: &str) -> Result<(String, RoleName), String> {
    let (env, role) = text.split_once('=').ok_or("expected `ENV=ROLE`")?;
    Ok((env.to_owned(), role.parse()?))
}

/// Reads `ROLE=A..B`.
pub fn role_protocol(text: &str) -> Result<ForRole<ProtocolRange>, String> {
    for_role(text, protocol)
}

/// Reads a range of protocols: `A..B`, both included, or `A` alone.
pub fn protocol(text: &str) -> Result<ProtocolRange, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| {
        text.strip_prefix('=').unwrap_or(text).parse::<u8>().map_err(|_| {
            format!("`{text}` is no protocol, expected `A..B` with numbers from 0 to 255")
        })
    };
    ProtocolRange::new(number(min)?, number(max)?).map_err(|error| error.to_string())
}

/// Reads a chip's name, in the spellings in use.
pub fn chip(text: &str) -> Result<ChipId, String> {
    ChipId::from_name(text).ok_or_else(|| {
        "expected a chip of Espressif's, such as `esp32`, `esp32s3` or `esp32c3`".to_owned()
    })
}

/// Reads a number of bytes: `1966080`, `0x1E0000`, `1920K`, `2M` (1024 each).
pub fn bytes(text: &str) -> Result<u32, String> {
    let error =
        || format!("`{text}` is no size, expected such as `1966080`, `0x1E0000` or `1920K`");
    let (digits, radix, factor) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16, 1),
        None => match text.strip_suffix(['K', 'k']) {
            Some(digits) => (digits, 10, 1024),
            None => match text.strip_suffix(['M', 'm']) {
                Some(digits) => (digits, 10, 1024 * 1024),
                None => (text, 10, 1),
            },
        },
    };
    let number = u32::from_str_radix(digits, radix).map_err(|_| error())?;
    number.checked_mul(factor).ok_or_else(error)
}

/// The shells that `completions` knows.
pub fn shell() -> impl clap::builder::TypedValueParser<Value = clap_complete::Shell> {
    PossibleValuesParser::new(["bash", "elvish", "fish", "powershell", "zsh"])
        .map(|name| name.parse().unwrap_or(clap_complete::Shell::Bash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_in_every_spelling() {
        assert_eq!(bytes("1966080"), Ok(0x1E_0000));
        assert_eq!(bytes("0x1E0000"), Ok(0x1E_0000));
        assert_eq!(bytes("1920K"), Ok(0x1E_0000));
        assert_eq!(bytes("2M"), Ok(2 << 20));
        for wrong in ["", "K", "4097M", "-1", "1 K", "0x"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_protocol_range_has_one_or_two_ends() {
        assert_eq!(protocol("1..3"), Ok(ProtocolRange::new(1, 3).unwrap()));
        assert_eq!(protocol("2"), Ok(ProtocolRange::single(2)));
        assert!(protocol("3..1").unwrap_err().contains("begins at 3, above its end 1"));
        assert!(protocol("1..256").is_err());
    }

    #[test]
    fn a_role_that_cannot_be_a_file_name_is_refused() {
        assert!("receiver".parse::<RoleName>().is_ok());
        for wrong in ["", "a/b", "a.b", "..", "seventeen-letters"] {
            assert!(wrong.parse::<RoleName>().is_err(), "{wrong}");
        }
        assert!(role_value::<u32>("receiver").is_err());
    }
}
