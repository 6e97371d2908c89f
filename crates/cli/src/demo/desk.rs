//! The desk: two device processes, started, listened to, and switched off.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::client::api::Version;
use crate::error::CommandError;

use super::timeline::ConsoleLine;

/// A place for a device.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    /// What the device is for.
    pub(crate) role: &'static str,
    /// Further arguments of `lockstep device`.
    pub(crate) arguments: Vec<String>,
}

/// All devices, in one folder.
#[derive(Debug)]
pub(crate) struct Desk {
    folder: PathBuf,
    is_temporary: bool,
    password: String,
    devices: Vec<Device>,
    lines: Arc<Mutex<Vec<ConsoleLine>>>,
}

/// A running device.
#[derive(Debug)]
pub(crate) struct Device {
    role: &'static str,
    child: Child,
    address: String,
    errors: PathBuf,
}

impl Device {
    pub(crate) const fn role(&self) -> &'static str {
        self.role
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Desk {
    /// A desk in `folder`, or in one of its own that goes with it. Nothing runs yet.
    pub(crate) fn set_up(folder: Option<&Path>, password: String) -> Result<Self, CommandError> {
        let (folder, is_temporary) = new_folder(folder)?;
        let (devices, lines) = (Vec::new(), Arc::default());
        Ok(Self { folder, is_temporary, password, devices, lines })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that nobody wants when the demo ends.
    pub(crate) fn temporary_folder(&self) -> Option<PathBuf> {
        self.is_temporary.then(|| self.folder.clone())
    }

    /// The folder stays when the demo ends.
    pub(crate) const fn keep_folder(&mut self) {
        self.is_temporary = false;
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// A client for the device with this role.
    pub(crate) fn client(&self, role: &str) -> Result<Client, CommandError> {
        match self.devices.iter().find(|device| device.role == role) {
            Some(device) => Client::new(&device.address, Some(self.password.clone())),
            None => Err(CommandError::failed(format!("No device is the {role}"))),
        }
    }

    /// How many lines the consoles have printed so far.
    pub(crate) fn lines_printed(&self) -> usize {
        self.lines().len()
    }

    /// What the consoles have printed since there were so many lines.
    pub(crate) fn lines_since(&self, count: usize) -> Vec<ConsoleLine> {
        self.lines().get(count..).unwrap_or_default().to_vec()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<ConsoleLine>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches the devices on, and waits until they hear each other.
    pub(crate) fn start(&mut self, seats: &[Seat]) -> Result<(), CommandError> {
        for seat in seats {
            let device = self.switch_on(seat)?;
            self.devices.push(device);
        }
        let since = Instant::now();
        while !self.addresses_known()? {
            self.wait(since, "did not start")?;
        }
        while !self.hear_each_other() {
            self.wait(since, "do not hear each other")?;
        }
        Ok(())
    }

    fn switch_on(&self, seat: &Seat) -> Result<Device, CommandError> {
        let role = seat.role;
        let failed = |error: &std::io::Error| {
            CommandError::failed(format!("Cannot start the {role}")).because(error)
        };
        let (console, errors) = (self.file(role, "log"), self.file(role, "errors"));
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .arg("device")
            .args(["--role", role, "--json-log", "--until-input-ends"])
            .arg("--group")
            .arg(self.folder.join(GROUP_FILE))
            .arg("--flash")
            .arg(self.file(role, "flash"))
            .arg("--password-file")
            .arg(self.folder.join(PASSWORD_FILE))
            .args(&seat.arguments)
            // Whatever becomes of this process: when its end of the pipe is closed, so is theirs.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).map_err(|error| failed(&error))?)
            .spawn()
            .map_err(|error| failed(&error))?;
        let log = File::create(&console).map_err(|error| failed(&error))?;
        if let Some(stdout) = child.stdout.take() {
            let lines = Arc::clone(&self.lines);
            thread::spawn(move || listen(stdout, log, &lines));
        }
        Ok(Device { role, child, address: String::new(), errors })
    }

    fn file(&self, role: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{role}.{ending}"))
    }

    fn addresses_known(&mut self) -> Result<bool, CommandError> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for device in &mut self.devices {
            let mut said = lines.iter().filter(|line| line.role == device.role);
            if let Some(address) = said.find_map(|line| line.address.clone()) {
                device.address = address;
            }
        }
        Ok(self.devices.iter().all(|device| !device.address.is_empty()))
    }

    fn hear_each_other(&self) -> bool {
        let others = self.devices.len().saturating_sub(1);
        self.devices.iter().all(|device| {
            let version = self.client(device.role).map(|it| it.get::<Version>("/api/version"));
            let Ok(Ok(version)) = version else { return false };
            let heard = |peer: &&crate::client::api::Peer| peer.linked && peer.role.is_some();
            version.peers.iter().filter(heard).count() >= others
        })
    }

    fn wait(&mut self, since: Instant, what: &str) -> Result<(), CommandError> {
        self.check_alive()?;
        if since.elapsed() > START_MAX {
            let seconds = START_MAX.as_secs();
            return Err(CommandError::failed(format!("The devices {what} within {seconds} s")));
        }
        thread::sleep(LOOK_EVERY);
        Ok(())
    }

    /// A device that is gone will not answer any more.
    pub(crate) fn check_alive(&mut self) -> Result<(), CommandError> {
        let mut gone = None;
        for device in &mut self.devices {
            if let Ok(Some(status)) = device.child.try_wait() {
                gone = Some((device.role, status, device.errors.clone()));
            }
        }
        let Some((role, status, errors)) = gone else { return Ok(()) };
        let said = fs::read_to_string(errors).unwrap_or_default();
        let error = CommandError::failed(format!("The {role} has ended by itself ({status})"));
        Err(said.lines().fold(error, |error, line| error.detailed(line, None)))
    }
}

/// The folder of a demo, which must be new or empty; and whether it is a temporary one.
pub(super) fn new_folder(folder: Option<&Path>) -> Result<(PathBuf, bool), CommandError> {
    let is_temporary = folder.is_none();
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => std::env::temp_dir().join(format!("lockstep-demo-{}", std::process::id())),
    };
    let name = folder.display();
    let failed = |error: &std::io::Error| {
        CommandError::failed(format!("Cannot use the folder `{name}`")).because(error)
    };
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    if fs::read_dir(&folder).map_err(|error| failed(&error))?.next().is_some() {
        return Err(CommandError::failed(format!("The folder `{name}` is not empty"))
            .hinted("The demo begins with new devices. Name a new folder: --dir DIR"));
    }
    // Children have the same working directory, but names are easier to use when whole.
    let folder = fs::canonicalize(&folder).map_err(|error| failed(&error))?;
    Ok((folder, is_temporary))
}

/// Switches everything off, and clears the desk if it was a temporary one.
impl Drop for Desk {
    fn drop(&mut self) {
        for device in &mut self.devices {
            // It may have gone already, and nobody is left to be told.
            let _ = device.child.kill();
            let _ = device.child.wait();
        }
        if self.is_temporary {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Reads a console to its end, and keeps a copy.
fn listen(stdout: ChildStdout, mut log: File, lines: &Mutex<Vec<ConsoleLine>>) {
    for text in BufReader::new(stdout).lines() {
        let Ok(text) = text else { return };
        // The copy is for people who look for a fault; without it the demo is as good.
        let _ = writeln!(log, "{text}");
        let Ok(line) = serde_json::from_str::<ConsoleLine>(&text) else { continue };
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < LINES_MAX {
            lines.push(line);
        }
    }
}

/// The group's secret.
pub(crate) const GROUP_FILE: &str = "pair.group";
/// The password of both devices.
pub(crate) const PASSWORD_FILE: &str = "password";
/// From switching on to hearing each other, at most.
const START_MAX: Duration = Duration::from_secs(20);
/// How often the devices are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines of consoles that are kept: a demo that is left alone for days goes on.
const LINES_MAX: usize = 100_000;
