//! A broker for the demonstration: mosquitto, if it is installed, on loopback and without a
//! password, for as long as the demonstration runs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::CommandError;

/// The broker.
pub(super) struct Broker {
    process: Child,
    pub(super) port: u16,
}

impl Broker {
    /// Starts it; what it keeps and says goes to the folder.
    pub(super) fn start(folder: &Path) -> Result<Self, CommandError> {
        let program = program().ok_or_else(|| {
            CommandError::failed("There is no `mosquitto` here").hinted(
                "Install it (Debian: apt-get install mosquitto), or leave out --mqtt. A broker \
                 elsewhere is for `lockstep serve --mqtt` and `lockstep device --mqtt`.",
            )
        })?;
        let failed =
            |error: std::io::Error| CommandError::failed("Cannot start mosquitto").because(&error);
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|it| it.local_addr());
        let port = free.map_err(failed)?.port();
        let config = folder.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
        fs::write(&config, text).map_err(failed)?;
        let log = fs::File::create(folder.join("mosquitto.log")).map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut broker = Self { process: command.spawn().map_err(failed)?, port };
        let begun = Instant::now();
        while begun.elapsed() < START_MAX {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(broker);
            }
            if let Ok(Some(status)) = broker.process.try_wait() {
                return Err(CommandError::failed(format!("mosquitto has ended ({status})")));
            }
            sleep(LOOK_EVERY);
        }
        let seconds = START_MAX.as_secs();
        Err(CommandError::failed(format!("mosquitto does not answer within {seconds} s")))
    }

    /// What devices are given as `--mqtt`.
    pub(super) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian has it where only administrators look.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let folders = folders.chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file())
}

const START_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
