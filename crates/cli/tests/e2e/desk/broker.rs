//! A mosquitto for one test, and somebody who listens to it.
//!
//! It keeps what waits for the listener over a restart, so that a test can say what comes behind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A broker on this machine; it ends with the test.
#[derive(Debug)]
pub(crate) struct Mosquitto {
    process: Option<Child>,
    listener: Child,
    heard: Arc<Mutex<Vec<Message>>>,
    port: u16,
    folder: TempDir,
}

/// What the listener was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
}

impl Message {
    /// The payload's fields; null if it is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_default()
    }
}

impl Mosquitto {
    /// A broker that knows one user, `desk`; none where mosquitto is not installed.
    pub(crate) fn start() -> Option<Self> {
        for name in ["mosquitto", "mosquitto_passwd", "mosquitto_sub", "mosquitto_pub"] {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
                println!("skipped: there is no `{name}`");
                return None;
            }
        }
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = folder.path();
        let mut passwords = Command::new("mosquitto_passwd");
        passwords.args(["-b", "-c"]).arg(path.join("users")).args(["desk", BROKER_PASSWORD]);
        assert!(passwords.status().unwrap().success());
        let name = path.display();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {name}/users\n\
             persistence true\npersistence_location {name}/\nuser root\n"
        );
        fs::write(path.join("config"), config).unwrap();
        let process = Some(serve(path, port));
        let mut listener = listen(port);
        let heard = Arc::default();
        let lines = BufReader::new(listener.stdout.take().unwrap()).lines();
        let into: Arc<Mutex<Vec<Message>>> = Arc::clone(&heard);
        thread::spawn(move || {
            for line in lines {
                let Ok(line) = line else { return };
                let (topic, payload) = line.split_once(' ').unwrap_or((&line, ""));
                let message = Message { topic: topic.to_owned(), payload: payload.to_owned() };
                into.lock().unwrap().push(message);
            }
        });
        Some(Self { process, listener, heard, port, folder })
    }

    /// What a device is given as `--mqtt`.
    pub(crate) fn url(&self, password: &str) -> String {
        format!("mqtt://desk:{password}@127.0.0.1:{}", self.port)
    }

    /// Ends the broker as its service would be; whoever listens is served after a `restart`.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let kill = Command::new("kill").arg(process.id().to_string()).status();
        assert!(kill.unwrap().success());
        process.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "the broker is on already");
        self.process = Some(serve(self.folder.path(), self.port));
    }

    /// Nothing of what it has kept is there when it is on again.
    pub(crate) fn forget(&self) {
        assert!(self.process.is_none(), "the broker is on");
        fs::remove_file(self.folder.path().join("mosquitto.db")).unwrap();
    }

    /// Somebody else says something, once.
    pub(crate) fn publish(&self, topic: &str, payload: &str) {
        publish(self.port, topic, payload, &[]);
    }

    /// Somebody else says something, and the broker keeps it.
    pub(crate) fn keep(&self, topic: &str, payload: &str) {
        publish(self.port, topic, payload, &["-r"]);
    }

    /// What the listener has heard so far, each message once: a broker may give one twice.
    pub(crate) fn heard(&self, topic_ends: &str) -> Vec<Message> {
        let mut messages = self.heard.lock().unwrap().clone();
        messages.retain(|message| message.topic.ends_with(topic_ends));
        messages.dedup();
        messages
    }

    /// Everything it has heard, for people.
    pub(crate) fn story(&self) -> String {
        let heard = self.heard.lock().unwrap();
        let lines = heard.iter().map(|message| format!("{} {}", message.topic, message.payload));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What somebody who comes now is given of one topic.
    pub(crate) fn retained(&self, topic: &str) -> String {
        let mut once = subscriber(self.port, topic);
        let output = once.args(["-C", "1", "-W", "30", "--retained-only"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        for child in self.process.iter_mut().chain([&mut self.listener]) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns when it listens: `mosquitto_sub` does not come again if it does not at first.
fn serve(folder: &Path, port: u16) -> Child {
    let log = fs::File::options().append(true).create(true).open(folder.join("log")).unwrap();
    let mut mosquitto = Command::new("mosquitto");
    mosquitto.arg("-c").arg(folder.join("config")).stdin(Stdio::null());
    mosquitto.stdout(log.try_clone().unwrap()).stderr(log);
    let process = mosquitto.spawn().unwrap();
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(since.elapsed() < START_MAX, "mosquitto does not listen:\n{log}");
        thread::sleep(LOOK_EVERY);
    }
    process
}

/// The same listener before and after a restart: the broker keeps messages for it.
fn listen(port: u16) -> Child {
    let mut listener = subscriber(port, "lockstep/#");
    listener.args(["-t", "homeassistant/#"]);
    listener.args(["-v", "-c", "-i", "listener"]).stdin(Stdio::null());
    listener.stdout(Stdio::piped()).spawn().unwrap()
}

fn publish(port: u16, topic: &str, payload: &str, options: &[&str]) {
    let mut command = client("mosquitto_pub", port);
    command.args(["-t", topic, "-m", payload]).args(options);
    assert!(command.status().unwrap().success());
}

fn subscriber(port: u16, topic: &str) -> Command {
    let mut command = client("mosquitto_sub", port);
    command.args(["-t", topic]);
    command
}

fn client(name: &str, port: u16) -> Command {
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1"]);
    command.args(["-u", "desk", "-P", BROKER_PASSWORD]);
    command
}

/// Of the user `desk`.
pub(crate) const BROKER_PASSWORD: &str = "tell-nobody";
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
