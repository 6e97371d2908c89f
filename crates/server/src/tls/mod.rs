//! TLS: certificates that were given, or those of a certificate authority of the server's own.
//!
//! Given files are read again when they change, so that whatever renews them needs no restart; a
//! certificate of our own is made anew before it ends.

pub mod authority;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::Digest as _;
use tracing::{error, info, warn};

use authority::Authority;

/// How a server is reached by TLS.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Where to listen for it.
    pub listen: SocketAddr,
    /// What it shows.
    pub certificates: Certificates,
}

/// Where certificates come from.
#[derive(Debug, Clone)]
pub enum Certificates {
    /// From PEM files.
    Given {
        /// The server's certificate first, then those that lead to an authority.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// From an authority of the server's own, in its folder.
    Own {
        /// Names and addresses of the server, beside those that the host knows itself by.
        names: Vec<String>,
    },
}

/// Why there is no TLS.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// A file cannot be written.
    Write {
        /// Which.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// A file holds something else than it should.
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What was found.
        why: String,
    },
    /// Certificate and key do not belong together, or are of a kind that cannot be used.
    Pair {
        /// The certificate's file.
        chain: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// It cannot stand in a certificate.
    Name {
        /// What was given.
        name: String,
    },
    /// A certificate could not be made.
    Make(rcgen::Error),
    /// It ended.
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "could not read `{}`", path.display()),
            Self::Write { path, .. } => write!(f, "could not write `{}`", path.display()),
            Self::Content { path, wanted, why } => {
                write!(f, "`{}` should hold {wanted}: {why}", path.display())
            }
            Self::Pair { chain, .. } => {
                write!(f, "the certificate `{}` and its key cannot be used", chain.display())
            }
            Self::Name { name } => write!(f, "`{name}` is neither a host's name nor an address"),
            Self::Make(_) => write!(f, "could not make a certificate"),
            Self::Expired { path, at } => {
                write!(f, "the certificate `{}` has expired at {at}", path.display())
            }
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Pair { source, .. } => Some(source),
            Self::Make(source) => Some(source),
            Self::Content { .. } | Self::Name { .. } | Self::Expired { .. } => None,
        }
    }
}

/// What a server shows to whoever comes by TLS.
#[derive(Debug)]
pub struct Tls {
    /// What new connections are let in by.
    pub config: RustlsConfig,
    source: Source,
    /// When the certificate ends, in seconds since 1970.
    expires_at_s: AtomicI64,
}

#[derive(Debug)]
enum Source {
    Given {
        chain: PathBuf,
        key: PathBuf,
        /// The files as they were last looked at, so that trouble with them is told once.
        seen: Mutex<[u8; 32]>,
    },
    Own {
        authority: Box<Authority>,
        names: Vec<String>,
    },
}

/// A certificate and the key to it, ready for connections.
struct Pair {
    config: ServerConfig,
    expires_at: Timestamp,
}

impl Tls {
    /// Reads certificates, or makes them; an authority of our own is kept in `folder`.
    pub fn open(
        certificates: &Certificates,
        listen: IpAddr,
        folder: &Path,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        let (source, pair) = match certificates {
            Certificates::Given { chain, key } => {
                let (seen, pair) = read_pair(chain, key)?;
                if pair.expires_at <= now {
                    return Err(TlsError::Expired { path: chain.clone(), at: pair.expires_at });
                }
                let (chain, key, seen) = (chain.clone(), key.clone(), Mutex::new(seen));
                (Source::Given { chain, key, seen }, pair)
            }
            Certificates::Own { names } => {
                let names = all_names(names, listen);
                let authority = Box::new(Authority::open(folder, now)?);
                let pair = issue(&authority, &names, now)?;
                (Source::Own { authority, names }, pair)
            }
        };
        Ok(Self {
            config: RustlsConfig::from_config(Arc::new(pair.config)),
            source,
            expires_at_s: AtomicI64::new(pair.expires_at.as_second()),
        })
    }

    /// The server's own authority, if there is one.
    pub fn authority(&self) -> Option<&Authority> {
        match &self.source {
            Source::Given { .. } => None,
            Source::Own { authority, .. } => Some(authority),
        }
    }

    /// The name by which people reach the server best, when it says so itself.
    pub fn name(&self) -> Option<&str> {
        match &self.source {
            Source::Given { .. } => None,
            Source::Own { names, .. } => names.first().map(String::as_str),
        }
    }

    /// When the certificate that is shown ends.
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::from_second(self.expires_at_s.load(Ordering::Relaxed)).unwrap_or(Timestamp::MAX)
    }

    /// Takes files up that have changed, and makes a certificate anew that ends soon. `false`:
    /// there was nothing to do.
    pub fn refresh(&self, now: Timestamp) -> Result<bool, TlsError> {
        let pair = match &self.source {
            Source::Own { authority, names } => {
                let left = self.expires_at().duration_since(now);
                if left.as_secs() > RENEW_BEFORE_S {
                    return Ok(false);
                }
                issue(authority, names, now)?
            }
            Source::Given { chain, key, seen } => {
                let found = digest(&read(chain)?, &read(key)?);
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                if *seen == found {
                    return Ok(false);
                }
                *seen = found;
                read_pair(chain, key)?.1
            }
        };
        self.expires_at_s.store(pair.expires_at.as_second(), Ordering::Relaxed);
        self.config.reload_from_config(Arc::new(pair.config));
        Ok(true)
    }
}

/// Looks after the certificate for as long as the server runs.
pub async fn keep_fresh(tls: Arc<Tls>) {
    let mut was_unreadable = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match tls.refresh(Timestamp::now()) {
            Ok(false) => (),
            Ok(true) => {
                was_unreadable = false;
                info!(expires_at = %tls.expires_at(), "another certificate is shown");
            }
            // A file that is missing stays so for more than one look: it is told once.
            Err(TlsError::Read { .. }) if was_unreadable => (),
            Err(trouble) => {
                was_unreadable = matches!(trouble, TlsError::Read { .. });
                let cause = std::error::Error::source(&trouble).map(ToString::to_string);
                error!(%trouble, cause, "the certificate that was shown is kept");
            }
        }
    }
}

/// Says at the start what will be noticed by others later.
pub fn warn_of(tls: &Tls, now: Timestamp) {
    let days = tls.expires_at().duration_since(now).as_hours() / 24;
    if tls.authority().is_none() && days < WARN_DAYS {
        warn!(expires_at = %tls.expires_at(), "the certificate ends in {days} days");
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn digest(chain: &[u8], key: &[u8]) -> [u8; 32] {
    let mut digest = sha2::Sha256::new();
    digest.update(chain.len().to_le_bytes());
    digest.update(chain);
    digest.update(key);
    digest.finalize().into()
}

fn read_pair(chain_path: &Path, key_path: &Path) -> Result<([u8; 32], Pair), TlsError> {
    let (chain, key) = (read(chain_path)?, read(key_path)?);
    let seen = digest(&chain, &key);
    let content = |path: &Path, wanted, why: String| {
        let path = path.to_owned();
        TlsError::Content { path, wanted, why }
    };
    let wanted = "certificates in PEM form";
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| content(chain_path, wanted, error.to_string()))?;
    let first = chain.first();
    let first = first.ok_or_else(|| content(chain_path, wanted, "there is none".into()))?;
    let expires_at = authority::end_of(first)
        .ok_or_else(|| content(chain_path, wanted, "the first is no X.509 certificate".into()))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| content(key_path, "a private key in PEM form", error.to_string()))?;
    let config = config_of(chain, key)
        .map_err(|source| TlsError::Pair { chain: chain_path.to_owned(), source })?;
    Ok((seen, Pair { config, expires_at }))
}

fn issue(authority: &Authority, names: &[String], now: Timestamp) -> Result<Pair, TlsError> {
    let (chain, key, expires_at) = authority.issue(names, now)?;
    let config = config_of(chain, key)
        .map_err(|source| TlsError::Pair { chain: authority.path().to_owned(), source })?;
    Ok(Pair { config, expires_at })
}

fn config_of(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // Over one connection of HTTP/2 a browser has all its pages and their events.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The names that were given, then those that the host knows itself by.
fn all_names(given: &[String], listen: IpAddr) -> Vec<String> {
    let mut names = given.to_vec();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    if !listen.is_loopback() {
        names.extend(host_names());
    }
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// What this host calls itself, as others find it: first the name that it tells its neighbours.
pub(crate) fn host_names() -> Vec<String> {
    let host = gethostname::gethostname().to_string_lossy().to_lowercase();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-.".contains(letter);
    match host.as_str() {
        "" | "localhost" => Vec::new(),
        host if !host.chars().all(is_plain) => Vec::new(),
        host if host.contains('.') => vec![host.to_owned()],
        host => vec![format!("{host}.local"), host.to_owned()],
    }
}

/// A certificate of our own is made anew when so little of it is left: 30 days.
const RENEW_BEFORE_S: i64 = 30 * 86_400;
/// A given one that ends sooner is warned of at the start.
const WARN_DAYS: i64 = 14;
/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
