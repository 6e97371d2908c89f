//! The fleet on a desk: the server in this process, every device a process of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockstep_device::mqtt::PREFIX_DEFAULT;
use lockstep_proto::manifest::Trust;
use lockstep_server::mqtt;
use lockstep_server::run::{self, ServeOptions};
use lockstep_sim::board::random_password;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::ROLES;
use super::super::releases::Release;
use super::broker::Broker;
use crate::client::Client;
use crate::client::api::Version;
use crate::commands::device::make_group;
use crate::error::CommandError;
use crate::files::{self, Existing, Readers};
use crate::fleet::{Authority, Server};
use crate::keys;

/// The server, the devices, and their folder.
pub(super) struct FleetDesk {
    folder: PathBuf,
    is_temporary: bool,
    password: String,
    server: Option<Server>,
    /// The server runs as long as this is there.
    runtime: Option<Runtime>,
    pairs: Vec<Pair>,
    /// Last, so that it ends after those that speak to it.
    broker: Option<Broker>,
}

/// A group of two.
struct Pair {
    name: String,
    folder: PathBuf,
    /// In the order of the roles.
    devices: Vec<Child>,
    addresses: Vec<String>,
}

/// What a pair runs, as its devices say.
pub(super) struct Runs {
    pub(super) name: String,
    /// In the order of the roles.
    pub(super) devices: Vec<Version>,
}

impl Runs {
    /// Whether all devices run the images of this release for good, by hash.
    pub(super) fn is_whole_on(&self, release: &Release) -> bool {
        let mut pairs = self.devices.iter().zip(ROLES);
        self.devices.len() == ROLES.len()
            && pairs.all(|(device, role)| {
                let image = release.images.iter().find(|(of, _)| *of == role);
                let is_for_good = !device.on_trial && device.ota_state == "valid";
                is_for_good && image.is_some_and(|(_, hash)| *hash == device.image)
            })
    }
}

impl FleetDesk {
    /// A desk in `folder`, or in one of its own that goes with it. Nothing runs yet.
    pub(super) fn set_up(folder: Option<&Path>) -> Result<Self, CommandError> {
        let password = random_password()
            .map_err(|error| CommandError::failed("Cannot make a password").because(&error))?;
        let (folder, is_temporary) = super::super::desk::new_folder(folder)?;
        let path = folder.join(PASSWORD_FILE);
        files::write(&path, &[password.as_bytes()], Existing::Keep, Readers::Owner)?;
        let (broker, server, runtime, pairs) = (None, None, None, Vec::new());
        Ok(Self { folder, is_temporary, password, broker, server, runtime, pairs })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn temporary_folder(&self) -> Option<PathBuf> {
        self.is_temporary.then(|| self.folder.clone())
    }

    pub(super) const fn keep_folder(&mut self) {
        self.is_temporary = false;
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The server, as its admin.
    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().expect("it serves before it is asked")
    }

    /// Starts a broker, which the server and all devices tell how they are.
    pub(super) fn start_broker(&mut self) -> Result<(), CommandError> {
        self.broker = Some(Broker::start(&self.folder)?);
        Ok(())
    }

    pub(super) const fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// Starts the server, which takes releases of this key alone, and makes its admin.
    pub(super) fn serve(&mut self, key: &Path) -> Result<(), CommandError> {
        let failed = |error: &dyn std::error::Error| {
            CommandError::failed("The server cannot run").because(error)
        };
        let runtime = Runtime::new().map_err(|error| failed(&error))?;
        let options = ServeOptions {
            trust: Trust::signed_by(keys::read_key_set(&[key.to_owned()], None)?),
            poll_s: POLL_S,
            mqtt: self.broker.as_ref().map(|broker| mqtt::Broker {
                host: "127.0.0.1".to_owned(),
                port: broker.port,
                login: None,
                prefix: PREFIX_DEFAULT.to_owned(),
            }),
            ..ServeOptions::in_folder(self.folder.join("server"))
        };
        let ready = runtime.block_on(run::open(&options)).map_err(|error| failed(&error))?;
        let (url, word) = (ready.server.public_url.clone(), ready.server.setup_word.clone());
        // When it ends by itself, the next question to it says that it does not answer.
        runtime.spawn(ready.serve(std::future::pending()));
        self.runtime = Some(runtime);
        let stranger = Server::new(&url, None, Authority::System)?;
        let (name, password) = (ADMIN, &self.password);
        let setup = json!({ "word": word.unwrap_or_default(), "name": name, "password": password });
        stranger.post::<Value>("/api/setup", &setup)?;
        let login = json!({ "name": name, "password": password });
        let token: Token = stranger.post("/api/login", &login)?;
        self.server = Some(Server::new(&url, Some(token.token), Authority::System)?);
        Ok(())
    }

    /// Switches so many pairs on, each with a token of its own, and waits until the server has
    /// heard of all of them. The first is the canary.
    pub(super) fn let_in(&mut self, pairs: usize, options: &[String]) -> Result<(), CommandError> {
        for number in 1..=pairs {
            let pair = self.switch_on(number, options)?;
            self.pairs.push(pair);
        }
        let begun = Instant::now();
        loop {
            self.find_addresses();
            let mut missing = None;
            for pair in &self.pairs {
                if pair.addresses.len() < ROLES.len() || !self.is_known(pair)? {
                    missing = Some(pair);
                    break;
                }
            }
            let Some(missing) = missing else { return Ok(()) };
            if begun.elapsed() > START_MAX {
                let (name, seconds) = (&missing.name, START_MAX.as_secs());
                return Err(CommandError::failed(format!(
                    "{name} did not come to the server within {seconds} s"
                )));
            }
            self.check_alive()?;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether the server has heard what all devices of a pair run.
    fn is_known(&self, pair: &Pair) -> Result<bool, CommandError> {
        let groups = self.server().groups(&[("name", &pair.name)])?;
        let Some(group) = groups.first() else { return Ok(false) };
        let devices = self.server().group(&group.id)?.devices;
        Ok(devices.iter().filter(|it| it.version.is_some()).count() == ROLES.len())
    }

    fn switch_on(&self, number: usize, options: &[String]) -> Result<Pair, CommandError> {
        let name = format!("pair {number:02}");
        let folder = self.folder.join(format!("pair-{number:02}"));
        fs::create_dir(&folder).map_err(|error| {
            CommandError::failed(format!("Cannot make the folder `{}`", folder.display()))
                .because(&error)
        })?;
        make_group(&folder.join(GROUP_FILE))?;
        let labels = if number == 1 { "site=desk,stage=canary" } else { "site=desk" };
        let token: Token =
            self.server().post("/api/enrolments", &json!({ "name": name, "labels": labels }))?;
        let mut devices = Vec::new();
        for (index, role) in ROLES.into_iter().enumerate() {
            let mut command =
                self.device(&folder, role, &format!("{number:02x}:{:02x}", index + 1))?;
            command.args(options);
            if let Some(broker) = &self.broker {
                command.args(["--mqtt", &broker.url()]);
            }
            if index == 0 {
                let url = self.server().url();
                command.args(["--server", url]).env("LOCKSTEP_ENROLL", &token.token);
            }
            let child = command.spawn().map_err(|error| {
                CommandError::failed(format!("Cannot start the {role} of {name}")).because(&error)
            })?;
            devices.push(child);
        }
        Ok(Pair { name, folder, devices, addresses: Vec::new() })
    }

    fn device(&self, folder: &Path, role: &str, id: &str) -> Result<Command, CommandError> {
        let file = |ending: &str| folder.join(format!("{role}.{ending}"));
        let failed = |error: std::io::Error| {
            CommandError::failed(format!("Cannot start a {role}")).because(&error)
        };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .args(["device", "--role", role, "--until-input-ends"])
            .args(["--id", &format!("02:00:00:00:{id}")])
            .arg("--group")
            .arg(folder.join(GROUP_FILE))
            .arg("--flash")
            .arg(file("flash"))
            .arg("--password-file")
            .arg(self.folder.join(PASSWORD_FILE))
            .env_remove("LOCKSTEP_ENROLL")
            .env_remove("LOCKSTEP_MQTT")
            // Whatever becomes of this process: when its end of the pipe is closed, so is theirs.
            .stdin(Stdio::piped())
            .stdout(File::create(file("log")).map_err(failed)?)
            .stderr(File::create(file("errors")).map_err(failed)?);
        Ok(command)
    }

    /// A device writes where its API is when it has one.
    fn find_addresses(&mut self) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.addresses.len() < ROLES.len()) {
            let read =
                |role: &str| fs::read_to_string(pair.folder.join(format!("{role}.flash.http")));
            let addresses: Result<Vec<String>, _> = ROLES.into_iter().map(read).collect();
            let addresses = addresses.unwrap_or_default().into_iter();
            let addresses = addresses.map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
            pair.addresses = addresses.collect();
        }
    }

    /// Asks every device what it runs.
    pub(super) fn runs(&self) -> Result<Vec<Runs>, CommandError> {
        let mut runs = Vec::new();
        for pair in &self.pairs {
            let mut devices = Vec::new();
            for address in &pair.addresses {
                devices.push(Client::new(address, None)?.get::<Version>("/api/version")?);
            }
            runs.push(Runs { name: pair.name.clone(), devices });
        }
        Ok(runs)
    }

    /// A device that is gone will not answer any more.
    pub(super) fn check_alive(&mut self) -> Result<(), CommandError> {
        for pair in &mut self.pairs {
            for (device, role) in pair.devices.iter_mut().zip(ROLES) {
                let Ok(Some(status)) = device.try_wait() else { continue };
                let said = fs::read_to_string(pair.folder.join(format!("{role}.errors")));
                let name = &pair.name;
                let error = CommandError::failed(format!(
                    "The {role} of {name} has ended by itself ({status})"
                ));
                let said = said.unwrap_or_default();
                return Err(said.lines().fold(error, |error, line| error.detailed(line, None)));
            }
        }
        Ok(())
    }
}

/// Switches everything off, and clears the desk if it was a temporary one.
impl Drop for FleetDesk {
    fn drop(&mut self) {
        for device in self.pairs.iter_mut().flat_map(|pair| &mut pair.devices) {
            // It may have gone already, and nobody is left to be told.
            let _ = device.kill();
            let _ = device.wait();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(SHUTDOWN_MAX);
        }
        if self.is_temporary {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

#[derive(Debug, Deserialize)]
struct Token {
    token: String,
}

/// Who looks after the fleet.
pub(super) const ADMIN: &str = "admin";
/// The password of the admin, and of all devices.
const PASSWORD_FILE: &str = "password";
const GROUP_FILE: &str = "pair.group";
/// How often leads come when nothing happens, in seconds: as often as a server may say.
const POLL_S: u32 = 5;
/// From switching on to being heard of, at most, for all pairs together.
const START_MAX: Duration = Duration::from_secs(60);
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// How often things are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);
