//! A fleet's server, as commands use it: which one is meant, what it knows by which name, and what
//! its answers are.
//!
//! A person names groups, campaigns, people and tokens by what they are called; the server's own
//! identities are taken as well. Where several things are called alike, nothing is chosen.

pub mod answers;
mod client;
mod known;
pub mod paint;
mod trust;

use std::path::PathBuf;

use crate::client::{Client, DeviceArgs};
use crate::error::CommandError;
use crate::files;

pub use client::{FleetError, Page, Server, encoded};
pub use known::{Known, KnownServers};
pub use trust::Authority;

use answers::{Campaign, Campaigns, Group, Groups};

/// Which server, and who asks
#[derive(Debug, Default, clap::Args)]
pub struct ServerArgs {
    /// The fleet's server, such as `https://fleet.local:8443` [default: the one that `lockstep login`
    /// has signed in to, if there is one alone]
    #[arg(long, value_name = "URL", env = "LOCKSTEP_SERVER", help_heading = "Server")]
    server: Option<String>,

    /// A file with a token of the server [default: what `lockstep login` was given]
    #[arg(long, value_name = "FILE", conflicts_with = "token", help_heading = "Server")]
    token_file: Option<PathBuf>,

    /// A token of the server; others on this machine can see it, so better use the environment
    /// variable LOCKSTEP_TOKEN
    #[arg(
        long,
        value_name = "TOKEN",
        env = "LOCKSTEP_TOKEN",
        hide_env_values = true,
        help_heading = "Server"
    )]
    token: Option<String>,

    /// The certificate of the authority that vouches for the server, in PEM form [default: what
    /// `lockstep login` was given, else the authorities that this machine trusts]
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_CA", help_heading = "Server")]
    ca: Option<PathBuf>,
}

impl ServerArgs {
    /// Whether a server was named.
    pub const fn is_given(&self) -> bool {
        self.server.is_some()
    }

    /// The server, with what lets this command in.
    pub fn open(&self) -> Result<Server, CommandError> {
        let known = KnownServers::read()?;
        let known = match &self.server {
            Some(url) => {
                let url = client::url_of(url)?;
                let known = known.of(&url).cloned();
                known.unwrap_or_else(|| Known { url, ..Known::default() })
            }
            None => known.only()?.clone(),
        };
        let given = match &self.token_file {
            Some(path) => Some(files::read_password(path)?),
            None => self.token.clone(),
        };
        let token = given.unwrap_or(known.token);
        let ca = match &self.ca {
            Some(path) => Authority::read(path)?.pem().to_owned(),
            None => known.ca,
        };
        Known { token, ca, ..known }.server()
    }
}

/// A device, or the server of a fleet
#[derive(Debug, clap::Args)]
pub struct PlaceArgs {
    /// Ask this device: an address such as 192.168.1.20, receiver.local:8080 or
    /// http://192.168.1.20
    #[arg(long, value_name = "ADDRESS", env = "LOCKSTEP_DEVICE", help_heading = "Device")]
    device: Option<String>,

    /// A file with the device's password
    #[arg(long, value_name = "FILE", conflicts_with = "password", help_heading = "Device")]
    password_file: Option<PathBuf>,

    /// The device's password; others on this machine can see it, so better use the environment
    /// variable LOCKSTEP_PASSWORD
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "LOCKSTEP_PASSWORD",
        hide_env_values = true,
        help_heading = "Device"
    )]
    password: Option<String>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Who is asked.
#[derive(Debug)]
pub enum Place {
    /// One device.
    Device(Client),
    /// The server of a fleet.
    Server(Server),
}

impl PlaceArgs {
    /// The device if one was named, else the server.
    pub fn open(self) -> Result<Place, CommandError> {
        let Self { device, password_file, password, server } = self;
        let Some(device) = device else { return server.open().map(Place::Server) };
        if server.is_given() {
            return Err(CommandError::usage("Both a device and a server are named")
                .hinted("Ask the one or the other: leave out --device or --server."));
        }
        DeviceArgs::new(device, password_file, password).client().map(Place::Device)
    }
}

impl Server {
    /// The group that is called this, or has this identity.
    pub fn group(&self, wanted: &str) -> Result<Group, CommandError> {
        match self.get::<Page<Group>>(&format!("/api/groups/{}", encoded(wanted))) {
            Ok(page) => return Ok(page.shown),
            Err(error) if error.code() == Some("not-found") => (),
            Err(error) => return Err(error.into()),
        }
        let named = self.groups(&[("name", wanted)])?;
        let found = named.into_iter().find(|group| group.name == wanted);
        let group = found.ok_or_else(|| {
            CommandError::failed(format!("There is no group `{wanted}` at {}", self.url()))
                .hinted("See which there are: lockstep group list")
        })?;
        Ok(self.get::<Page<Group>>(&format!("/api/groups/{}", group.id))?.shown)
    }

    /// All groups that pass this filter, page by page.
    pub fn groups(&self, filter: &[(&str, &str)]) -> Result<Vec<Group>, CommandError> {
        let mut all: Vec<Group> = Vec::new();
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let mut query = vec![("after", after.as_str())];
            query.extend(filter.iter().filter(|(_, value)| !value.is_empty()));
            let page: Groups = self.get(&client::with_query("/api/groups", &query))?;
            all.extend(page.groups);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(all)
    }

    /// The campaign that is called this, or has this identity; the newest of several.
    pub fn campaign(&self, wanted: &str) -> Result<Campaign, CommandError> {
        let path = format!("/api/campaigns/{}", encoded(wanted));
        match self.get::<Page<Campaign>>(&path) {
            Ok(page) => return Ok(page.shown),
            Err(error) if error.code() == Some("not-found") => (),
            Err(error) => return Err(error.into()),
        }
        let Campaigns { campaigns } = self.get("/api/campaigns")?;
        let found = campaigns.into_iter().find(|campaign| campaign.name == wanted);
        let campaign = found.ok_or_else(|| {
            CommandError::failed(format!("There is no campaign `{wanted}` at {}", self.url()))
                .hinted("See which there are: lockstep campaign list")
        })?;
        Ok(self.get::<Page<Campaign>>(&format!("/api/campaigns/{}", campaign.id))?.shown)
    }
}

/// Pages of a list that are asked for: of a hundred each, more than a server has groups.
const PAGES_MAX: usize = 10_000;
