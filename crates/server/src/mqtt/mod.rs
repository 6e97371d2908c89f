//! The fleet on an MQTT broker: how every group is, what happens in it, and three orders.
//!
//! ```text
//!  changes ─► what has changed ─► read from the tables ─► topics ─► broker
//!  broker  ─► install, abort, revert ─► the same functions as the HTTP API's
//! ```
//!
//! The broker is somebody else's machine: nothing here is waited for by anybody else. It watches
//! [`Server::changes`] and reads the tables, so a broker that is away costs a check-in nothing.
//! Whenever a connection begins, everything is told anew; lines of the log that the broker has not
//! taken are read from the tables then, as far as they are there.
//!
//! # Not here
//!
//! TLS; and who may order something: whoever may write to the broker's topics may.

mod facts;
mod lines;
mod orders;
mod session;
mod told;
mod topics;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rumqttc::{ConnectReturnCode, ConnectionError};
use tracing::{error, warn};

use crate::server::Server;
use crate::store::StoreError;
use lines::Lines;

/// Which broker, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who the server is to it; `None`: it takes anybody.
    pub login: Option<Login>,
    /// Where all topics begin, without a `/` at its end and without `+` and `#`.
    pub prefix: String,
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

/// Tells the broker how the fleet is, for as long as the server runs.
pub async fn tell(server: Arc<Server>, broker: Broker) {
    let mut lines = Lines::since(Timestamp::now());
    let (mut pause, mut last) = (PAUSE_MIN, None);
    loop {
        let began = Instant::now();
        let trouble = session::run(&server, &broker, &mut lines).await;
        if began.elapsed() >= STEADY {
            (pause, last) = (PAUSE_MIN, None);
        }
        // Once for each kind of trouble: a broker that is down for a week is one line.
        let kind = std::mem::discriminant(&trouble);
        if last != Some(kind) {
            trouble.log(&broker);
            last = Some(kind);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Why a connection ended, or did not begin.
#[derive(Debug)]
enum Trouble {
    /// The broker refuses user and password.
    Refused,
    /// It refuses for another reason.
    NotTaken(ConnectReturnCode),
    /// It is away, or went.
    Away(String),
    /// The database is.
    Store(StoreError),
}

impl From<ConnectionError> for Trouble {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
            ) => Self::Refused,
            ConnectionError::ConnectionRefused(code) => Self::NotTaken(code),
            error => Self::Away(error.to_string()),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    fn log(&self, broker: &Broker) {
        let address = format!("{}:{}", broker.host, broker.port);
        match self {
            Self::Refused => match &broker.login {
                Some(Login { user, .. }) => error!(
                    "broker `{address}` refuses user `{user}`: give the server a user and a \
                     password that the broker knows"
                ),
                None => error!(
                    "broker `{address}` takes nobody without a password: name a user and a \
                     password in the broker's URL"
                ),
            },
            Self::NotTaken(code) => error!("broker `{address}` does not take the server: {code:?}"),
            Self::Away(why) => {
                warn!("broker `{address}` cannot be reached: {why}; it is tried again");
            }
            Self::Store(trouble) => {
                let cause = std::error::Error::source(trouble).map(ToString::to_string);
                error!(%trouble, cause, "the broker `{address}` is told nothing meanwhile");
            }
        }
    }
}

/// A broker that is away is tried again after this, then after twice as long each time.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// But after no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A connection that held so long was a good one.
const STEADY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let login = Login { user: "desk".to_owned(), password: "tell-nobody".to_owned() };
        let (host, prefix) = ("broker.local".to_owned(), "lockstep".to_owned());
        let shown = format!("{:?}", Broker { host, port: 1883, login: Some(login), prefix });
        assert!(shown.contains("desk") && !shown.contains("tell-nobody"), "{shown}");
    }
}
