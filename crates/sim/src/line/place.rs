//! Where a device's line goes, as the command line says it: `serial:/dev/ttyUSB0@115200`,
//! `tcp:HOST:PORT`, `tcp-listen:ADDRESS:PORT`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The other end of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineEnd {
    /// A serial port of this machine.
    Serial(PathBuf),
    /// Somebody who listens: an emulator's serial port, for example.
    Dial {
        /// A name or an address, without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Whoever connects here, one at a time.
    Listen(SocketAddr),
}

/// A line: where it goes, and how fast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePlace {
    /// The other end.
    pub end: LineEnd,
    /// Bits in a second, ten for each byte; `None`: as fast as the other end takes them.
    pub baud: Option<u32>,
}

/// Why a text names no line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseLinePlaceError {
    /// It begins with no kind of line.
    Kind,
    /// Nothing stands where the serial port should.
    NoPort,
    /// Not a host and a port.
    Host,
    /// Not an address and a port.
    Address,
    /// Not a speed.
    Baud {
        /// What stands there.
        found: String,
    },
}

impl fmt::Display for ParseLinePlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str(
                "expected `serial:PORT`, `tcp:HOST:PORT` or `tcp-listen:ADDRESS:PORT`, and `@BAUD` \
                 behind it if need be",
            ),
            Self::NoPort => f.write_str("names no port, expected such as `serial:/dev/ttyUSB0`"),
            Self::Host => f.write_str("expected a host and its port, such as `tcp:localhost:5555`"),
            Self::Address => f.write_str(
                "expected an address of this machine and a port, such as \
                 `tcp-listen:127.0.0.1:5555`",
            ),
            Self::Baud { found } => write!(
                f,
                "`@{found}` is no speed, expected bits in a second from {BAUD_MIN} to {BAUD_MAX}, \
                 such as `@{SERIAL_BAUD}`"
            ),
        }
    }
}

impl std::error::Error for ParseLinePlaceError {}

impl FromStr for LinePlace {
    type Err = ParseLinePlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').ok_or(ParseLinePlaceError::Kind)?;
        let (place, baud) = match rest.rsplit_once('@') {
            Some((place, baud)) => (place, Some(parse_baud(baud)?)),
            None => (rest, None),
        };
        match kind {
            "serial" if place.is_empty() => Err(ParseLinePlaceError::NoPort),
            "serial" => {
                let end = LineEnd::Serial(PathBuf::from(place));
                Ok(Self { end, baud: Some(baud.unwrap_or(SERIAL_BAUD)) })
            }
            "tcp" => Ok(Self { end: parse_host(place)?, baud }),
            "tcp-listen" => {
                let address = place.parse().map_err(|_| ParseLinePlaceError::Address)?;
                Ok(Self { end: LineEnd::Listen(address), baud })
            }
            _ => Err(ParseLinePlaceError::Kind),
        }
    }
}

fn parse_baud(text: &str) -> Result<u32, ParseLinePlaceError> {
    let baud = text.parse().ok().filter(|baud| (BAUD_MIN..=BAUD_MAX).contains(baud));
    baud.ok_or_else(|| ParseLinePlaceError::Baud { found: text.to_owned() })
}

fn parse_host(text: &str) -> Result<LineEnd, ParseLinePlaceError> {
    let (host, port) = text.rsplit_once(':').ok_or(ParseLinePlaceError::Host)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let port = port.parse().ok().filter(|&port: &u16| port > 0);
    match port {
        Some(port) if !host.is_empty() && (bare.is_some() || !host.contains(':')) => {
            Ok(LineEnd::Dial { host: host.to_owned(), port })
        }
        _ => Err(ParseLinePlaceError::Host),
    }
}

/// Without its speed.
impl fmt::Display for LineEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(path) => write!(f, "serial:{}", path.display()),
            Self::Dial { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Dial { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Listen(address) => write!(f, "tcp-listen:{address}"),
        }
    }
}

/// The speed of a serial port that is given none: what boot loaders of chips print at.
pub const SERIAL_BAUD: u32 = 115_200;
/// A frame of a large block takes nine seconds.
const BAUD_MIN: u32 = 1_200;
/// Beyond what adapters do.
const BAUD_MAX: u32 = 12_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(host: &str, port: u16) -> LineEnd {
        LineEnd::Dial { host: host.to_owned(), port }
    }

    #[test]
    fn a_line_has_a_kind_an_end_and_perhaps_a_speed() {
        let serial = |path: &str| LineEnd::Serial(path.into());
        let listen = LineEnd::Listen("127.0.0.1:5555".parse().unwrap());
        for (text, end, baud) in [
            ("serial:/dev/ttyUSB0", serial("/dev/ttyUSB0"), Some(115_200)),
            ("serial:/dev/by-id/usb@1@921600", serial("/dev/by-id/usb@1"), Some(921_600)),
            ("serial:COM3", serial("COM3"), Some(115_200)),
            ("tcp:localhost:5555", dial("localhost", 5555), None),
            ("tcp:[::1]:5555@9600", dial("::1", 5555), Some(9_600)),
            ("tcp-listen:127.0.0.1:5555", listen.clone(), None),
            ("tcp-listen:127.0.0.1:5555@115200", listen, Some(115_200)),
        ] {
            let place: LinePlace = text.parse().unwrap();
            assert_eq!((&place.end, place.baud), (&end, baud), "{text}");
            assert!(text.starts_with(&place.end.to_string()), "{text}");
        }
    }

    #[test]
    fn what_names_no_line_is_refused_with_what_would() {
        use ParseLinePlaceError::{Address, Baud, Host, Kind, NoPort};

        let baud = |found: &str| Baud { found: found.to_owned() };
        for (text, error) in [
            ("", Kind),
            ("/dev/ttyUSB0", Kind),
            ("usb:1", Kind),
            ("serial:", NoPort),
            ("serial:@9600", NoPort),
            ("serial:/dev/ttyUSB0@fast", baud("fast")),
            ("serial:/dev/ttyUSB0@50", baud("50")),
            ("tcp:5555", Host),
            ("tcp:::1:5555", Host),
            ("tcp:host:0", Host),
            ("tcp-listen:localhost:5555", Address),
            ("tcp-listen:127.0.0.1", Address),
        ] {
            assert_eq!(text.parse::<LinePlace>(), Err(error), "{text}");
        }
    }
}
