//! Servers that `lockstep login` has signed in to, in a file that only its owner reads.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::client::Server;
use super::trust::Authority;
use crate::error::CommandError;
use crate::files::{self, Existing, Readers};

/// One server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Known {
    /// Its address.
    pub url: String,
    /// What lets this user in.
    pub token: String,
    /// The authority that vouches for it, in PEM form; empty: those that this machine trusts.
    #[serde(default)]
    pub ca: String,
    /// Who that is.
    #[serde(default)]
    pub name: String,
    /// What that may do.
    #[serde(default)]
    pub role: String,
}

impl Known {
    /// The server, with what lets this user in.
    pub fn server(self) -> Result<Server, CommandError> {
        let token = Some(self.token).filter(|token| !token.is_empty());
        Server::new(&self.url, token, Authority::known(&self.ca))
    }
}

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KnownServers {
    servers: Vec<Known>,
}

impl KnownServers {
    /// Reads the file; without one no server is known.
    pub fn read() -> Result<Self, CommandError> {
        let path = path()?;
        if !path.try_exists().unwrap_or(true) {
            return Ok(Self::default());
        }
        let bytes = files::read(&path, FILE_BYTES_MAX)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            CommandError::failed(format!("`{}` cannot be read", path.display()))
                .because(&error)
                .hinted("Remove it, and sign in again: lockstep login URL")
        })
    }

    /// Writes the file anew.
    pub fn write(&self) -> Result<PathBuf, CommandError> {
        let path = path()?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| {
                CommandError::failed(format!("Cannot make the folder `{}`", folder.display()))
                    .because(&error)
            })?;
        }
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        files::write(&path, &[text.as_bytes(), b"\n"], Existing::Replace, Readers::Owner)?;
        Ok(path)
    }

    /// The server at this address.
    pub fn of(&self, url: &str) -> Option<&Known> {
        self.servers.iter().find(|known| known.url == url)
    }

    /// The server, if there is one alone.
    pub fn only(&self) -> Result<&Known, CommandError> {
        match self.servers.as_slice() {
            [one] => Ok(one),
            [] => Err(CommandError::usage("No server is named, and none is known")
                .hinted("Sign in to one with `lockstep login URL`, or name it with --server URL.")),
            many => {
                let urls = many.iter().map(|known| format!("`{}`", known.url));
                let urls = crate::ui::listed(urls);
                Err(CommandError::usage(format!("Which server? {urls} are known"))
                    .hinted("Name one with --server URL, or in LOCKSTEP_SERVER."))
            }
        }
    }

    /// Takes a server in, in the place of what was known of it.
    pub fn add(&mut self, known: Known) {
        self.servers.retain(|it| it.url != known.url);
        self.servers.push(known);
    }

    /// Forgets a server; what was known of it.
    pub fn remove(&mut self, url: &str) -> Option<Known> {
        let place = self.servers.iter().position(|it| it.url == url)?;
        Some(self.servers.remove(place))
    }
}

/// Where users' settings are, by the customs of the system.
fn path() -> Result<PathBuf, CommandError> {
    let of = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let folder = of("XDG_CONFIG_HOME")
        .or_else(|| of("APPDATA"))
        .or_else(|| of("HOME").map(|home| home.join(".config")));
    folder.map(|folder| folder.join("lockstep").join("servers.json")).ok_or_else(|| {
        CommandError::failed("There is no place for what `lockstep login` knows")
            .hinted("Name a folder in XDG_CONFIG_HOME.")
    })
}

/// Far more than anybody's servers take.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn known(url: &str, token: &str) -> Known {
        Known { url: url.to_owned(), token: token.to_owned(), ..Known::default() }
    }

    #[test]
    fn a_server_needs_no_name_only_while_it_is_alone() {
        let mut servers = KnownServers::default();
        assert!(servers.only().is_err());
        servers.add(known("http://a", "1"));
        servers.add(known("http://a", "2"));
        assert_eq!(servers.only().unwrap().token, "2");
        servers.add(known("http://b", "3"));
        assert!(servers.only().is_err());
        assert!(servers.remove("http://a").is_some() && servers.remove("http://a").is_none());
        assert_eq!(servers.only().unwrap().url, "http://b");
    }
}
