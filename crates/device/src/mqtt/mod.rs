//! A device's log and the events of its rollouts, sent to an MQTT broker: the same on a chip and on
//! a desk, over any connection that the shell makes.
//!
//! The broker is somebody else's machine, so nothing here is waited for: what is to be sent stays
//! in the journal's rings ([`LINES_MAX`](crate::journal::LINES_MAX) lines), the oldest falls out,
//! and a rollout goes on as if there were no broker. Each message is sent until the broker has
//! acknowledged it, so one may come twice; `boot` and `seq` tell.
//!
//! # Not here
//!
//! TLS, orders: whoever may write to the broker has no say over the device.

mod outbox;

use alloc::format;
use alloc::string::{String, ToString};
use core::cell::Cell;
use core::convert::Infallible;
use core::fmt;
use core::num::NonZero;

use embedded_io_async::{Read, Write};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use rust_mqtt::buffer::AllocBuffer;
use rust_mqtt::client::event::Event;
use rust_mqtt::client::options::{ConnectOptions, PublicationOptions, TopicReference, WillOptions};
use rust_mqtt::client::{Client, MqttError};
use rust_mqtt::config::KeepAlive;
use rust_mqtt::types::{MqttBinary, MqttString, ReasonCode, TopicName};

use crate::dial::Dial;
use crate::http::{Shell, within};
use crate::journal::Level;
use outbox::{Kept, Message, Outbox};

/// Which broker, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who the device is to it; `None`: it takes anybody.
    pub login: Option<Login>,
    /// Where the topics of all devices begin.
    pub prefix: Prefix,
}

/// A user of a broker. Its password is in no log: not even `Debug` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Broker {
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Below it are all topics of a device.
    fn topic(&self, id: DeviceId, rest: &str) -> String {
        format!("{}/{id}/{rest}", self.prefix.0)
    }
}

/// Where topics begin: one or more names with `/` between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Takes what a broker takes as the beginning of a topic.
    pub fn new(text: &str) -> Result<Self, BadPrefix> {
        let is_name = |name: &str| {
            !name.is_empty() && !name.contains(|c: char| matches!(c, '+' | '#') || c.is_control())
        };
        let is_good = text.len() <= PREFIX_BYTES_MAX && !text.starts_with('$');
        if is_good && text.split('/').all(is_name) { Ok(Self(text.into())) } else { Err(BadPrefix) }
    }
}

/// No topic can begin so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPrefix;

impl fmt::Display for BadPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "topic is not names with `/` between them, without `+`, `#` and a `$` in front, of at \
             most {PREFIX_BYTES_MAX} bytes"
        )
    }
}

impl core::error::Error for BadPrefix {}

/// Tells the broker what happens, until it is dropped. `is_connected` says whether anybody listens.
pub async fn run<H: Shell, D: Dial>(
    shell: &H,
    dialer: &D,
    broker: &Broker,
    is_connected: &Cell<bool>,
) -> Infallible {
    let mut outbox = Outbox::default();
    let mut pause_ms = PAUSE_MIN_MS;
    let mut last = None;
    loop {
        let began = now(shell);
        let session = Session { shell, broker, is_connected };
        let Err(trouble) = session.run(dialer, &mut outbox, &mut last).await;
        is_connected.set(false);
        if now(shell).ms_since(began) >= STEADY_MS {
            pause_ms = PAUSE_MIN_MS;
        }
        // Once for each kind of trouble: a broker that is down for a week is one line.
        if last.as_ref() != Some(&trouble) {
            say(shell, trouble.level(), trouble.text(broker));
            last = Some(trouble);
        }
        shell.sleep_ms(pause_ms).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MAX_MS);
    }
}

/// One connection to the broker.
struct Session<'a, H> {
    shell: &'a H,
    broker: &'a Broker,
    is_connected: &'a Cell<bool>,
}

/// One publication is on its way at a time: that keeps their order.
type Wire<'c, L> = Client<'static, 'c, L, AllocBuffer, 0, 1, 1, 0, 1, 0, 0>;

impl<H: Shell> Session<'_, H> {
    /// From dialling until something goes wrong.
    async fn run<D: Dial>(
        &self,
        dialer: &D,
        outbox: &mut Outbox,
        last: &mut Option<Trouble>,
    ) -> Result<Infallible, Trouble> {
        let dial = dialer.dial(&self.broker.host, self.broker.port);
        let link = within(self.shell, ANSWER_LIMIT_MS, dial).await.ok_or(Trouble::Silent)?;
        let link = link.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let id = self.shell.with(|_, node, _| node.setup().id);
        let mut buffer = AllocBuffer;
        let mut wire = Wire::new(&mut buffer);
        self.connect(&mut wire, link, id).await?;
        self.publish(&mut wire, &self.broker.topic(id, AVAILABILITY), ONLINE, Kept::Retained)
            .await?;
        self.is_connected.set(true);
        *last = None;
        let topic = self.broker.topic(id, "");
        let address = self.broker.address();
        say(self.shell, Level::Info, format!("broker `{address}` takes the log, below `{topic}`"));
        outbox.begin();
        self.serve(&mut wire, outbox, id).await
    }

    async fn connect<L: Read + Write>(
        &self,
        wire: &mut Wire<'_, L>,
        link: L,
        id: DeviceId,
    ) -> Result<(), Trouble> {
        let availability = self.broker.topic(id, AVAILABILITY);
        let will = WillOptions::new(topic_name(&availability)?, text(OFFLINE)?.into());
        let mut options = ConnectOptions::new()
            .clean_start()
            .keep_alive(KeepAlive::Seconds(KEEP_ALIVE_S))
            .will(will.at_least_once().retain());
        if let Some(Login { user, password }) = &self.broker.login {
            let password = MqttBinary::from_slice(password.as_bytes());
            options =
                options.user_name(text(user)?).password(password.map_err(|_| Trouble::NotSpoken)?);
        }
        let DeviceId([a, b, c, d, e, f]) = id;
        let name = format!("lockstep{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}");
        let connect = wire.connect(link, &options, Some(text(&name)?));
        match within(self.shell, ANSWER_LIMIT_MS, connect).await {
            None => Err(Trouble::Silent),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(trouble(&error)),
        }
    }

    /// Sends what there is to send, and sees that the broker is still there.
    async fn serve<L: Read + Write>(
        &self,
        wire: &mut Wire<'_, L>,
        outbox: &mut Outbox,
        id: DeviceId,
    ) -> Result<Infallible, Trouble> {
        let mut idle_ms = 0;
        loop {
            let next = self.shell.with(|now, node, _| outbox.next(now, node, self.broker));
            if let Some(message) = next {
                idle_ms = 0;
                self.send(wire, outbox, id, message).await?;
                continue;
            }
            // Only a broker that gives up says anything unasked.
            if let Some(header) = within(self.shell, LOOK_EVERY_MS, wire.poll_header()).await {
                let header = header.map_err(|error| trouble(&error))?;
                let body = within(self.shell, ANSWER_LIMIT_MS, wire.poll_body(header)).await;
                body.ok_or(Trouble::Silent)?.map_err(|error| trouble(&error))?;
            }
            idle_ms += LOOK_EVERY_MS;
            if idle_ms >= PING_AFTER_MS {
                idle_ms = 0;
                let ping = async {
                    wire.ping().await.map_err(|error| trouble(&error))?;
                    answered(wire, |event| matches!(event, Event::Pingresp)).await
                };
                within(self.shell, ANSWER_LIMIT_MS, ping).await.ok_or(Trouble::Silent)??;
            }
        }
    }

    async fn send<L: Read + Write>(
        &self,
        wire: &mut Wire<'_, L>,
        outbox: &mut Outbox,
        id: DeviceId,
        message: Message,
    ) -> Result<(), Trouble> {
        let topic = self.broker.topic(id, &message.topic);
        match self.publish(wire, &topic, &message.payload, message.kept).await {
            Ok(()) => outbox.taken(message),
            Err(Trouble::TooLarge) => outbox.too_large(message),
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }

    /// Returns when the broker has it.
    async fn publish<L: Read + Write>(
        &self,
        wire: &mut Wire<'_, L>,
        topic: &str,
        payload: &str,
        kept: Kept,
    ) -> Result<(), Trouble> {
        let name = topic_name(topic)?;
        let mut options = PublicationOptions::new(TopicReference::Name(name)).at_least_once();
        if kept == Kept::Retained {
            options = options.retain();
        }
        let publish = async {
            wire.publish(&options, payload.into()).await.map_err(|error| trouble(&error))?;
            answered(wire, |event| matches!(event, Event::PublishAcknowledged(_))).await
        };
        match within(self.shell, ANSWER_LIMIT_MS, publish).await {
            None => Err(Trouble::Silent),
            Some(Err(Trouble::Refused(_))) => Err(Trouble::Forbidden(topic.to_string())),
            Some(result) => result,
        }
    }
}

/// Waits for the answer to what was just sent; nothing else is on its way.
async fn answered<L: Read + Write>(
    wire: &mut Wire<'_, L>,
    is_it: impl Fn(&Event<'_, 0, 1>) -> bool,
) -> Result<(), Trouble> {
    loop {
        match wire.poll().await {
            Ok(Event::PublishRejected(rejected)) => {
                return Err(Trouble::Refused(rejected.reason_code));
            }
            Ok(event) if is_it(&event) => return Ok(()),
            Ok(_) => (),
            Err(error) => return Err(trouble(&error)),
        }
    }
}

fn topic_name(topic: &str) -> Result<TopicName<'_>, Trouble> {
    TopicName::new(text(topic)?).ok_or(Trouble::NotSpoken)
}

fn text(text: &str) -> Result<MqttString<'_>, Trouble> {
    MqttString::from_str(text).map_err(|_| Trouble::NotSpoken)
}

fn now<H: Shell>(shell: &H) -> Instant {
    shell.with(|now, _, _| now)
}

fn say<H: Shell>(shell: &H, level: Level, text: String) {
    shell.with(|now, node, _| node.log(now, level, text));
    shell.wake();
}

/// Why a connection ended, or never was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    Unreachable(String),
    Silent,
    Closed,
    Login,
    Refused(ReasonCode),
    Forbidden(String),
    TooLarge,
    NotSpoken,
}

fn trouble<const N: usize>(error: &MqttError<'_, N>) -> Trouble {
    match error {
        MqttError::Disconnect { reason, .. } => match reason {
            ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized => Trouble::Login,
            // What a broker says before it is restarted.
            ReasonCode::ServerShuttingDown => Trouble::Closed,
            other => Trouble::Refused(*other),
        },
        MqttError::Network(_) => Trouble::Closed,
        MqttError::ServerMaximumPacketSizeExceeded => Trouble::TooLarge,
        // The rest is a broker that breaks the protocol, or asks for more than we have.
        _ => Trouble::NotSpoken,
    }
}

impl Trouble {
    const fn level(&self) -> Level {
        match self {
            Self::Unreachable(_) | Self::Silent | Self::Closed => Level::Warning,
            Self::Login
            | Self::Refused(_)
            | Self::Forbidden(_)
            | Self::TooLarge
            | Self::NotSpoken => Level::Error,
        }
    }

    /// With a way out.
    fn text(&self, broker: &Broker) -> String {
        let address = broker.address();
        let user = match &broker.login {
            Some(login) => format!("user `{}`", login.user),
            None => String::from("a device without user"),
        };
        let again = "it is tried again, and the log waits";
        match self {
            Self::Unreachable(why) => {
                format!("broker `{address}` cannot be reached: {why}; {again}")
            }
            Self::Silent => {
                let seconds = ANSWER_LIMIT_MS / 1000;
                format!("broker `{address}` has not answered for {seconds} s; {again}")
            }
            Self::Closed => format!("broker `{address}` has closed the connection; {again}"),
            Self::Login => format!(
                "broker `{address}` refuses {user}: give the device a user and a password that \
                 the broker knows"
            ),
            Self::Refused(reason) => {
                format!("broker `{address}` refuses the device: {reason:?}; see the broker's log")
            }
            Self::Forbidden(topic) => format!(
                "broker `{address}` does not let {user} write to `{topic}`: allow it in the \
                 broker's access list"
            ),
            Self::TooLarge | Self::NotSpoken => {
                format!(
                    "broker `{address}` does not speak MQTT 5 as expected: is it the right port?"
                )
            }
        }
    }
}

/// Retained; the broker says the second when the device is gone without a word.
const AVAILABILITY: &str = "availability";
const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// Where topics begin unless somebody says otherwise.
pub const PREFIX_DEFAULT: &str = "lockstep";
/// Where a broker listens unless somebody says otherwise.
pub const PORT_DEFAULT: u16 = 1883;
/// The longest beginning of a topic.
const PREFIX_BYTES_MAX: usize = 128;
/// How long a broker may take for an answer, in milliseconds.
const ANSWER_LIMIT_MS: u64 = 10_000;
/// How often the device looks for something to send, in milliseconds.
const LOOK_EVERY_MS: u64 = 100;
/// After so long without a message the broker is asked whether it is there, in milliseconds.
const PING_AFTER_MS: u64 = 15_000;
/// The broker takes a device for gone that was silent for one and a half times as long.
const KEEP_ALIVE_S: NonZero<u16> = NonZero::new(30).unwrap();
/// Between the end of a connection and the next try, in milliseconds; doubled each time.
const PAUSE_MIN_MS: u64 = 500;
/// The longest such pause, in milliseconds.
const PAUSE_MAX_MS: u64 = 30_000;
/// A connection that held so long is a good one: pauses begin anew, in milliseconds.
const STEADY_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn broker() -> Broker {
        let login = Login { user: "desk".into(), password: "hunter2 hunter2".into() };
        let prefix = Prefix::new("home/battery").unwrap();
        Broker { host: "10.0.0.9".into(), port: 1883, login: Some(login), prefix }
    }

    #[test]
    fn a_prefix_is_what_a_topic_can_begin_with() {
        for good in ["lockstep", "home/battery", "ünder"] {
            assert!(Prefix::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "a/+", "#", "$SYS", "a\0b", &"a".repeat(129)] {
            assert_eq!(Prefix::new(bad), Err(BadPrefix), "{bad}");
        }
    }

    #[test]
    fn no_text_holds_the_password() {
        let broker = broker();
        let all = [
            Trouble::Unreachable("refused".into()),
            Trouble::Silent,
            Trouble::Closed,
            Trouble::Login,
            Trouble::Refused(ReasonCode::ServerBusy),
            Trouble::Forbidden("a/b".into()),
            Trouble::NotSpoken,
        ];
        for trouble in all {
            let text = trouble.text(&broker);
            assert!(text.starts_with("broker `10.0.0.9:1883` "), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(!format!("{broker:?}").contains("hunter2"));
    }
}
