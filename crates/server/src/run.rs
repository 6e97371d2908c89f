//! From options to a server that serves.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use lockstep_proto::manifest::Trust;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use crate::http;
use crate::http::limits::Attempts;
use crate::lead::roster::Roster;
use crate::lead::writer::Writer;
use crate::metrics::Metrics;
use crate::mqtt::{self, Broker};
use crate::objects::{ObjectError, Objects};
use crate::server::{Server, follow_others, look_after_campaigns};
use crate::store::{Store, StoreError, new_secret};

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The folder of everything that is durable, unless it is elsewhere.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How others find it; `None`: at the address where it listens.
    pub public_url: Option<String>,
    /// The database; `None`: SQLite in the folder.
    pub database: Option<String>,
    /// The store of objects; `None`: a folder in the folder.
    pub objects: Option<String>,
    /// Whose releases are taken in.
    pub trust: Trust,
    /// How often a lead comes when nothing happens, in seconds.
    pub poll_s: u32,
    /// The broker that is told how the fleet is; `None`: nobody is.
    pub mqtt: Option<Broker>,
}

/// Why a server does not serve, or not any more.
#[derive(Debug)]
pub enum ServeError {
    /// A folder cannot be made.
    Folder {
        /// Which.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Its address cannot be listened at.
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the host says.
        source: io::Error,
    },
    /// The database cannot be used.
    Store(StoreError),
    /// The store of objects cannot be used.
    Objects(ObjectError),
    /// The host ended it.
    Host(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path, .. } => {
                write!(f, "could not make the folder `{}`", path.display())
            }
            Self::Listen { address, .. } => write!(f, "could not listen at `{address}`"),
            Self::Store(error) => error.fmt(f),
            Self::Objects(error) => error.fmt(f),
            Self::Host(_) => write!(f, "the host ended the server"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder { source, .. } | Self::Listen { source, .. } => Some(source),
            Self::Store(error) => error.source(),
            Self::Objects(error) => error.source(),
            Self::Host(error) => Some(error),
        }
    }
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ObjectError> for ServeError {
    fn from(error: ObjectError) -> Self {
        Self::Objects(error)
    }
}

/// A server that is ready to serve.
#[derive(Debug)]
pub struct Ready {
    /// What all requests share.
    pub server: Arc<Server>,
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    mqtt: Option<Broker>,
}

/// Opens everything, and listens; nobody is answered yet.
pub async fn open(options: &ServeOptions) -> Result<Ready, ServeError> {
    let folder = options.data.join("incoming");
    make_folder(&folder).await?;
    let objects = match &options.objects {
        Some(url) => Objects::at(url)?,
        None => {
            let folder = options.data.join("objects");
            make_folder(&folder).await?;
            Objects::in_folder(&folder)?
        }
    };
    let url = options.database.clone().unwrap_or_else(|| Store::url_in(&options.data));
    let store = Store::open(&url).await?;
    let setup_word = if store.is_new().await? { Some(new_secret()?) } else { None };
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|source| ServeError::Listen { address: options.listen, source })?;
    let address = listener.local_addr().map_err(ServeError::Host)?;
    let public_url = options.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    let server = Server {
        writer: Writer::start(store.clone()),
        store,
        objects,
        roster: Roster::default(),
        changes: broadcast::Sender::new(CHANGES_MAX),
        trust: options.trust.clone(),
        folder,
        setup_word,
        attempts: Attempts::default(),
        metrics: Metrics::default(),
        poll_s: options.poll_s,
        public_url: public_url.trim_end_matches('/').to_owned(),
    };
    Ok(Ready { server: Arc::new(server), address, listener, mqtt: options.mqtt.clone() })
}

async fn make_folder(path: &PathBuf) -> Result<(), ServeError> {
    let made = tokio::fs::create_dir_all(path).await;
    made.map_err(|source| ServeError::Folder { path: path.clone(), source })
}

impl Ready {
    /// Where the first admin is made, while there is none.
    pub fn setup_link(&self) -> Option<String> {
        let word = self.server.setup_word.as_ref()?;
        Some(format!("{}/setup?word={word}", self.server.public_url))
    }

    /// Serves until `stop` comes.
    pub async fn serve(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let campaigns = tokio::spawn(look_after_campaigns(Arc::clone(&self.server)));
        let others = tokio::spawn(follow_others(Arc::clone(&self.server)));
        let broker = self.mqtt.map(|broker| tokio::spawn(mqtt::tell(self.server.clone(), broker)));
        let served = http::serve(self.listener, self.server, stop).await;
        campaigns.abort();
        others.abort();
        if let Some(broker) = broker {
            broker.abort();
        }
        served.map_err(ServeError::Host)
    }
}

/// Changes that a page may be behind before it is told to look at everything again.
const CHANGES_MAX: usize = 1024;
