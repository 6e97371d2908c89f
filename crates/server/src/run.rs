//! From options to a server that serves.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use lockstep_proto::id::Sha256;
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};

use crate::field::Foresight;
use crate::http::limits::Attempts;
use crate::http::listen::{self, Doors, Waits};
use crate::lead::roster::Roster;
use crate::lead::writer::Writer;
use crate::metrics::Metrics;
use crate::mqtt::{self, Broker};
use crate::objects::{ObjectError, Objects};
use crate::patches::maker::{Job, Maker, make_patches};
use crate::server::{Server, follow_others, look_after_campaigns};
use crate::store::{Store, StoreError, new_secret};
use crate::tls::{self, Tls, TlsError, TlsOptions};

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The folder of everything that is durable, unless it is elsewhere.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How it is reached by TLS; `None`: not at all.
    pub tls: Option<TlsOptions>,
    /// How people find it; `None`: at the address where it listens.
    pub public_url: Option<String>,
    /// Who is believed when it says for whom it asks, in `X-Forwarded-For`.
    pub proxies: Vec<IpAddr>,
    /// How leads find it, who speak plain HTTP; `None`: as people do, or where it listens.
    pub lead_url: Option<String>,
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
    /// Bootloaders for boards that are flashed from a browser, by their chips.
    pub bootloaders: BTreeMap<ChipId, Vec<u8>>,
}

impl ServeOptions {
    /// All in a folder, for this machine alone, at any free port.
    pub fn in_folder(data: PathBuf) -> Self {
        Self {
            data,
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            public_url: None,
            lead_url: None,
            proxies: Vec::new(),
            database: None,
            objects: None,
            trust: Trust::anybody(),
            poll_s: 300,
            mqtt: None,
            bootloaders: BTreeMap::new(),
        }
    }
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
    /// There is no certificate to show.
    Tls(TlsError),
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
            Self::Tls(error) => error.fmt(f),
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
            Self::Tls(error) => error.source(),
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

impl From<TlsError> for ServeError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

/// A server that is ready to serve.
#[derive(Debug)]
pub struct Ready {
    /// What all requests share.
    pub server: Arc<Server>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for TLS.
    pub tls_address: Option<SocketAddr>,
    /// Where connections come in.
    pub doors: Doors,
    mqtt: Option<Broker>,
    jobs: mpsc::Receiver<Job>,
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
    let first = store.releases().await?.first().map(|release| release.bundle_sha256.clone());
    objects.claim(first.as_deref().and_then(Sha256::from_hex)).await?;
    let setup_word = if store.is_new().await? { Some(new_secret()?) } else { None };
    let (plain, address) = listen(options.listen).await?;
    let (tls, tls_address) = match &options.tls {
        None => (None, None),
        Some(tls) => {
            let (listener, address) = listen(tls.listen).await?;
            let (folder, now) = (options.data.join("tls"), Timestamp::now());
            let tls = Tls::open(&tls.certificates, address.ip(), &folder, now)?;
            tls::warn_of(&tls, now);
            (Some((listener, Arc::new(tls))), Some(address))
        }
    };
    let shown = tls.as_ref().map(|(_, tls)| Arc::clone(tls));
    let (public_url, lead_url) = urls(options, address, tls_address.zip(shown.as_deref()));
    let bootloaders = options.bootloaders.clone().into_iter();
    let (maker, jobs) = Maker::new();
    let server = Server {
        writer: Writer::start(store.clone()),
        store,
        objects,
        roster: Roster::default(),
        changes: broadcast::Sender::new(CHANGES_MAX),
        foresight: Foresight::default(),
        trust: options.trust.clone(),
        folder,
        setup_word,
        attempts: Attempts::default(),
        maker,
        metrics: Metrics::default(),
        poll_s: options.poll_s,
        public_url,
        lead_url,
        bootloaders: bootloaders.map(|(chip, bytes)| (chip, bytes.into())).collect(),
        tls: shown,
    };
    let doors = Doors {
        plain,
        tls,
        places: listen::places(),
        waits: Waits::default(),
        proxies: options.proxies.clone(),
    };
    let (server, mqtt) = (Arc::new(server), options.mqtt.clone());
    Ok(Ready { server, address, tls_address, doors, mqtt, jobs })
}

async fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let listener = TcpListener::bind(at).await;
    let listener = listener.map_err(|source| ServeError::Listen { address: at, source })?;
    let address = listener.local_addr().map_err(ServeError::Host)?;
    Ok((listener, address))
}

/// Where people find the server, and where leads do, who speak plain HTTP.
fn urls(
    options: &ServeOptions,
    address: SocketAddr,
    tls: Option<(SocketAddr, &Tls)>,
) -> (String, String) {
    let trimmed = |url: &String| url.trim_end_matches('/').to_owned();
    let in_plain = || format!("http://{}", reached_at(address, None));
    let by_tls = |(at, tls): (SocketAddr, &Tls)| format!("https://{}", reached_at(at, tls.name()));
    let public = options.public_url.as_ref().map(trimmed);
    let public = public.unwrap_or_else(|| tls.map_or_else(in_plain, by_tls));
    let lead = options.lead_url.as_ref().map(trimmed);
    let lead = lead.unwrap_or_else(|| match public.starts_with("https:") {
        true => in_plain(),
        false => public.clone(),
    });
    (public, lead)
}

/// Host and port for links: everywhere at once is no place to go to.
fn reached_at(at: SocketAddr, name: Option<&str>) -> String {
    let name = name.map(str::to_owned);
    let of_host = || tls::host_names().into_iter().next().filter(|_| at.ip().is_unspecified());
    match name.or_else(of_host) {
        None => at.to_string(),
        Some(name) if name.contains(':') => format!("[{name}]:{}", at.port()),
        Some(name) => format!("{name}:{}", at.port()),
    }
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
        let patches = tokio::spawn(make_patches(Arc::clone(&self.server), self.jobs));
        let broker = self.mqtt.map(|broker| tokio::spawn(mqtt::tell(self.server.clone(), broker)));
        let tls = self.server.tls.clone().map(|tls| tokio::spawn(tls::keep_fresh(tls)));
        let served = listen::serve(self.doors, self.server, stop).await;
        campaigns.abort();
        others.abort();
        patches.abort();
        for task in broker.into_iter().chain(tls) {
            task.abort();
        }
        served.map_err(ServeError::Host)
    }
}

/// Changes that a page may be behind before it is told to look at everything again.
const CHANGES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_never_leads_to_everywhere_at_once() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(reached_at(at("192.168.1.5:80"), None), "192.168.1.5:80");
        assert_eq!(reached_at(at("0.0.0.0:80"), Some("fleet.local")), "fleet.local:80");
        assert_eq!(reached_at(at("[::1]:80"), Some("::1")), "[::1]:80");
        if let Some(name) = tls::host_names().first() {
            assert_eq!(reached_at(at("0.0.0.0:80"), None), format!("{name}:80"));
        }
    }
}
