//! What a board is told about its place: its networks, and whether it leads. It stands in the field
//! `board` of the application's configuration, so it is stored, backed up, put back by a revert and
//! refused like that.
//!
//! ```json
//! {"board": {"lead": true,
//!            "wifi": {"mode": "station", "ssid": "Home", "password": "…"},
//!            "country": "DE",
//!            "mqtt": {"host": "10.0.0.2", "port": 1883, "user": "pair", "password": "…",
//!                     "topic": "home"},
//!            "server": {"url": "http://fleet.example:8080", "token": "…"},
//!            "time": "pool.ntp.org"}}
//! ```
//!
//! Every part may be left out. Nothing here knows a radio: a board's shell carries it out.

use alloc::format;
use alloc::string::{String, ToString as _};

use serde::Deserialize;
use serde_json::Value;

use crate::mqtt::{Broker, Login, Prefix};
use crate::uplink::{Place, ServerAtStart};

/// The field of the configuration.
pub const FIELD: &str = "board";
/// Names of fields, at any depth, that are nobody else's business.
pub const SECRETS: &[&str] = &["password", "token", "wifi_password", "mqtt_password"];

/// What a board was told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether it leads its group; `None`: nobody has said, and its part decides.
    pub leads: Option<bool>,
    /// Its way into a network by radio.
    pub wifi: Wifi,
    /// Where it is, as two letters: which channels its radio may use. `None`: those that are
    /// allowed everywhere.
    pub country: Option<[u8; 2]>,
    /// Who is told what happens on it.
    pub broker: Option<Broker>,
    /// The fleet's server that it comes to, if it leads.
    pub server: Option<ServerAtStart>,
    /// Whom it asks for the time; `None`: nobody.
    pub time_server: Option<String>,
}

/// A board's way into a network by radio.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Wifi {
    /// Nobody has said.
    #[default]
    Unset,
    /// None: its radio serves its group alone.
    Off,
    /// It joins this network.
    Station {
        /// Its name.
        ssid: String,
        /// Its password; `None`: it is open.
        password: Option<String>,
    },
    /// It is an access point itself, for whoever has no network.
    Own {
        /// What lets people in.
        password: String,
    },
}

/// Without the password, which is in no log.
impl core::fmt::Debug for Wifi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unset => f.write_str("Unset"),
            Self::Off => f.write_str("Off"),
            Self::Station { ssid, .. } => f.debug_tuple("Station").field(ssid).finish(),
            Self::Own { .. } => f.write_str("Own"),
        }
    }
}

impl Settings {
    /// Reads them out of a whole configuration. What it does not have is as if nobody had said it;
    /// what makes no sense is refused with a line for people.
    pub fn read(config: &str) -> Result<Self, String> {
        let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Self::read_value(&config)
    }

    /// The same of a configuration that was read already.
    pub fn read_value(config: &Value) -> Result<Self, String> {
        let board = config.get(FIELD).filter(|board| !board.is_null());
        let Some(board) = board else { return Ok(Self::default()) };
        let board = Given::deserialize(board).map_err(|error| format!("`{FIELD}`: {error}"))?;
        Ok(Self {
            leads: board.lead,
            wifi: board.wifi.map_or(Ok(Wifi::Unset), wifi)?,
            country: board.country.as_deref().map(country).transpose()?,
            broker: board.mqtt.map(broker).transpose()?,
            server: board.server.map(server).transpose()?,
            time_server: board.time.map(|host| name("time", host)).transpose()?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    lead: Option<bool>,
    wifi: Option<GivenWifi>,
    country: Option<String>,
    mqtt: Option<GivenBroker>,
    server: Option<GivenServer>,
    time: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenWifi {
    mode: Mode,
    ssid: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Station,
    Own,
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenBroker {
    host: String,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    topic: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenServer {
    url: String,
    token: Option<String>,
}

fn wifi(given: GivenWifi) -> Result<Wifi, String> {
    let password = given.password.filter(|password| !password.is_empty());
    if let Some(password) = &password {
        check_wifi_password(password)?;
    }
    match (given.mode, given.ssid) {
        (Mode::Off, _) => Ok(Wifi::Off),
        (Mode::Own, _) => {
            let password = password.ok_or("an access point needs a `wifi.password`")?;
            Ok(Wifi::Own { password })
        }
        (Mode::Station, Some(ssid)) if (1..=SSID_BYTES_MAX).contains(&ssid.len()) => {
            Ok(Wifi::Station { ssid, password })
        }
        (Mode::Station, ssid) => Err(format!(
            "`wifi.ssid` has {} bytes, allowed are 1 to {SSID_BYTES_MAX}",
            ssid.map_or(0, |ssid| ssid.len())
        )),
    }
}

/// What WPA2 takes: 8 to 63 printable characters.
fn check_wifi_password(password: &str) -> Result<(), String> {
    let is_printable = password.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_printable && (WIFI_PASSWORD_BYTES_MIN..=WIFI_PASSWORD_BYTES_MAX).contains(&password.len())
    {
        return Ok(());
    }
    Err(format!(
        "`wifi.password` has {} characters, allowed are {WIFI_PASSWORD_BYTES_MIN} to \
         {WIFI_PASSWORD_BYTES_MAX} letters, digits and signs without accents",
        password.chars().count()
    ))
}

fn country(text: &str) -> Result<[u8; 2], String> {
    match *text.as_bytes() {
        [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok([a, b]),
        _ => Err(format!("`country` is `{text}`, allowed are two capital letters, as in `DE`")),
    }
}

fn broker(given: GivenBroker) -> Result<Broker, String> {
    let login = match (given.user, given.password) {
        (Some(user), password) => Some(Login { user, password: password.unwrap_or_default() }),
        (None, None) => None,
        (None, Some(_)) => return Err("`mqtt.password` comes without `mqtt.user`".into()),
    };
    let topic = given.topic.unwrap_or_else(|| TOPIC.into());
    Ok(Broker {
        host: name("mqtt.host", given.host)?,
        port: given.port.unwrap_or(MQTT_PORT),
        login,
        prefix: Prefix::new(&topic).map_err(|error| format!("`mqtt.topic`: {error}"))?,
    })
}

fn server(given: GivenServer) -> Result<ServerAtStart, String> {
    let url = given.url.as_str();
    let rest = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let (host, port) =
        rest.rsplit_once(':').map_or((rest, Ok(HTTP_PORT)), |(host, port)| (host, port.parse()));
    let port = port.map_err(|_| {
        format!("`server.url` is `{url}`, allowed is `http://HOST:PORT`: a lead speaks no TLS")
    })?;
    let host = name("server.url", host.into())?;
    Ok(ServerAtStart { place: Place { host, port }, token: given.token })
}

/// A host's name or address.
fn name(field: &str, host: String) -> Result<String, String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_letter) {
        return Ok(host);
    }
    Err(format!(
        "`{field}` is `{host}`, allowed are 1 to {HOST_BYTES_MAX} letters, digits, dots and dashes"
    ))
}

/// IEEE 802.11: the longest name of a network.
const SSID_BYTES_MAX: usize = 32;
/// WPA2's shortest passphrase, and its longest.
const WIFI_PASSWORD_BYTES_MIN: usize = 8;
const WIFI_PASSWORD_BYTES_MAX: usize = 63;
/// RFC 1035: the longest name of a host.
const HOST_BYTES_MAX: usize = 253;
const MQTT_PORT: u16 = 1883;
const HTTP_PORT: u16 = 80;
/// Where the topics of all devices begin, unless somebody has said.
const TOPIC: &str = "lockstep";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(board: &str) -> String {
        Settings::read(&format!("{{\"board\":{board}}}")).expect_err(board)
    }

    #[test]
    fn a_board_that_was_told_nothing_has_no_settings() {
        for config in ["{}", r#"{"send_every_ms":100}"#, r#"{"board":{}}"#, r#"{"board":null}"#] {
            assert_eq!(Settings::read(config), Ok(Settings::default()), "{config}");
        }
    }

    #[test]
    fn everything_that_the_page_says_is_read() {
        let settings = Settings::read(
            r#"{"send_every_ms":100,"board":{"lead":true,"country":"DE","time":"pool.ntp.org",
            "wifi":{"mode":"station","ssid":"Home","password":"long enough"},
            "mqtt":{"host":"10.0.0.2","user":"pair","password":"secret"},
            "server":{"url":"http://fleet.example:8080/","token":"t"}}}"#,
        );
        let password = Some("long enough".into());
        let login = Login { user: "pair".into(), password: "secret".into() };
        let place = Place { host: "fleet.example".into(), port: 8080 };
        let expected = Settings {
            leads: Some(true),
            wifi: Wifi::Station { ssid: "Home".into(), password },
            country: Some(*b"DE"),
            broker: Some(Broker {
                host: "10.0.0.2".into(),
                port: 1883,
                login: Some(login),
                prefix: Prefix::new("lockstep").unwrap(),
            }),
            server: Some(ServerAtStart { place, token: Some("t".into()) }),
            time_server: Some("pool.ntp.org".into()),
        };
        assert_eq!(settings, Ok(expected));
    }

    #[test]
    fn an_open_network_has_no_password_and_an_own_one_must_have_one() {
        let open = Settings::read(r#"{"board":{"wifi":{"mode":"station","ssid":"a"}}}"#);
        let expected = Wifi::Station { ssid: "a".into(), password: None };
        assert_eq!(open.map(|settings| settings.wifi), Ok(expected));
        assert_eq!(
            refused(r#"{"wifi":{"mode":"own"}}"#),
            "an access point needs a `wifi.password`"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name_with_what_is_allowed() {
        for (board, expected) in [
            (r#"{"wifi":{"mode":"station","ssid":""}}"#, "`wifi.ssid` has 0 bytes"),
            (r#"{"wifi":{"mode":"station"}}"#, "`wifi.ssid` has 0 bytes"),
            (r#"{"wifi":{"mode":"own","password":"short"}}"#, "`wifi.password` has 5 characters"),
            (r#"{"wifi":{"mode":"mesh"}}"#, "unknown variant `mesh`"),
            (r#"{"wfi":{}}"#, "unknown field `wfi`"),
            (r#"{"country":"de"}"#, "`country` is `de`"),
            (r#"{"mqtt":{"host":"a b"}}"#, "`mqtt.host` is `a b`"),
            (r#"{"mqtt":{"host":"a","topic":"a/#"}}"#, "`mqtt.topic`: topic is not names"),
            (r#"{"mqtt":{"host":"a","password":"b"}}"#, "without `mqtt.user`"),
            (r#"{"server":{"url":"https://a"}}"#, "a lead speaks no TLS"),
            (r#"{"server":{"url":"http://a:x"}}"#, "`server.url` is `http://a:x`"),
            (r#"{"time":""}"#, "`time` is ``"),
            ("7", "invalid type"),
        ] {
            let text = refused(board);
            assert!(text.contains(expected), "{board}: {text}");
        }
    }

    #[test]
    fn no_log_shows_a_wifi_password() {
        let wifi = Wifi::Station { ssid: "a".into(), password: Some("hidden".into()) };
        assert_eq!(format!("{wifi:?}"), r#"Station("a")"#);
        assert_eq!(format!("{:?}", Wifi::Own { password: "hidden".into() }), "Own");
    }
}
