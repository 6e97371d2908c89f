//! A desk for one test: two devices as processes, their files in a folder of its own, and the
//! command.
//!
//! Whatever a test does, its processes end with it and its folder is gone. When a wait comes to its
//! end without what it waited for, the test fails with the consoles of both devices.

mod board;
mod broker;
mod firmware;
mod fleet;
mod http;
mod serial;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use board::{Board, Mark};
pub(crate) use broker::{BROKER_PASSWORD, Message, Mosquitto};
pub(crate) use firmware::{Forgery, Image, firmware};
pub(crate) use fleet::Fleet;
pub(crate) use http::{Answer, Http, Part};
pub(crate) use serial::Socket;
pub(crate) use wire::Wire;

/// What the two devices are for. The receiver leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Receiver,
    Transmitter,
}

pub(crate) use Role::{Receiver, Transmitter};

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Receiver => "receiver",
            Transmitter => "transmitter",
        }
    }
}

/// Both, the lead first.
pub(crate) const BOTH: [Role; 2] = [Receiver, Transmitter];

/// What a desk is set up with; [`Desk::new`] takes the usual things.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    receiver: Vec<String>,
    transmitter: Vec<String>,
    without_keys: bool,
    first: Option<[Image; 2]>,
}

impl Plan {
    /// Further options of `lockstep device` for one of them.
    pub(crate) fn with(mut self, role: Role, options: &str) -> Self {
        let all = match role {
            Receiver => &mut self.receiver,
            Transmitter => &mut self.transmitter,
        };
        all.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// No key on the devices: they trust anybody.
    pub(crate) const fn without_keys(mut self) -> Self {
        self.without_keys = true;
        self
    }

    /// What the devices run at first, in place of 1.0.0.
    pub(crate) fn first(mut self, receiver: Image, transmitter: Image) -> Self {
        self.first = Some([receiver, transmitter]);
        self
    }

    /// Switches both on, and waits until they hear each other.
    pub(crate) fn start(self) -> Desk {
        let desk = self.starts_unlinked();
        desk.wait_until_linked();
        desk
    }

    /// Switches both on; something has to come between them before they hear each other.
    pub(crate) fn starts_unlinked(self) -> Desk {
        let folder = TempDir::new().unwrap();
        let path = folder.path().to_owned();
        run_ok(&path, "device --new-group --group pair.group");
        run_ok(&path, "keygen --no-password --out a");
        fs::write(path.join("password"), PASSWORD).unwrap();
        let first = self.first.unwrap_or_else(|| BOTH.map(|role| firmware(role, "1.0.0").make()));
        let boards = BOTH.map(|role| {
            let image = &first[role as usize];
            let file = format!("first-{}.bin", role.name());
            fs::write(path.join(&file), &image.bytes).unwrap();
            let mut options = vec!["--firmware".to_owned(), file];
            let key = ["--key".to_owned(), "a.pub".to_owned()];
            let more = match role {
                Receiver => &self.receiver,
                Transmitter => &self.transmitter,
            };
            if !self.without_keys && !more.contains(&key[0]) {
                options.extend(key);
            }
            options.extend(more.iter().cloned());
            Board::new(&path, role, options)
        });
        let mut desk = Desk { boards, first, folder };
        for role in BOTH {
            desk.board_mut(role).switch_on();
        }
        desk
    }
}

/// Two devices and what belongs to them. The devices are declared first: they end before their
/// files.
#[derive(Debug)]
pub(crate) struct Desk {
    boards: [Board; 2],
    /// What they were made with.
    pub(crate) first: [Image; 2],
    folder: TempDir,
}

impl Desk {
    /// Two devices that run 1.0.0 and trust the key `a`.
    pub(crate) fn new() -> Self {
        Plan::default().start()
    }

    pub(crate) fn board(&self, role: Role) -> &Board {
        &self.boards[role as usize]
    }

    pub(crate) fn board_mut(&mut self, role: Role) -> &mut Board {
        &mut self.boards[role as usize]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Runs the command in the folder; `line` is split at white space.
    pub(crate) fn lockstep(&self, line: &str) -> Said {
        Said::of(&command(self.folder.path(), line).output().unwrap())
    }

    /// Runs a command that asks the lead.
    pub(crate) fn ask_lead(&self, line: &str) -> Said {
        let device = self.board(Receiver).address();
        self.lockstep(&format!("{line} --device {device} --password-file password"))
    }

    /// `lockstep update`, to its end.
    pub(crate) fn update(&self, arguments: &str) -> Said {
        self.ask_lead(&format!("update {arguments}"))
    }

    /// `lockstep update` that goes on while the test does something else.
    pub(crate) fn begin_update(&self, arguments: &str) -> Running {
        let device = self.board(Receiver).address();
        let line = format!("update {arguments} --device {device} --password-file password");
        let mut command = command(self.folder.path(), &line);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child: Some(child) }
    }

    /// Makes a release of images that are written to the folder, signed by key `a`.
    pub(crate) fn release(&self, version: &str, images: &[&Image]) -> String {
        self.release_with(version, images, "--key a.key")
    }

    /// Makes a release with these options in place of `--key a.key`; returns the bundle's name.
    pub(crate) fn release_with(&self, version: &str, images: &[&Image], options: &str) -> String {
        let name = format!("{version}.lockstep");
        let mut line =
            format!("release create --overwrite --version {version} -o {name} {options}");
        for image in images {
            let role = image.role.name();
            let file = format!("{version}-{role}.bin");
            self.write(&file, &image.bytes);
            line += &format!(" --{role} {file}");
        }
        run_ok(self.folder.path(), &line);
        name
    }

    /// A release of two healthy images, signed by key `a`, with further options.
    pub(crate) fn good_release(&self, version: &str, options: &str) -> ([Image; 2], String) {
        let images = BOTH.map(|role| firmware(role, version).make());
        let [receiver, transmitter] = &images;
        let options = format!("--key a.key {options}");
        let name = self.release_with(version, &[transmitter, receiver], &options);
        (images, name)
    }

    /// Hands bytes to the lead as they are, past everything that the command would check.
    pub(crate) fn post(&self, bundle: &[u8]) -> Answer {
        self.lead().post("/api/rollout", bundle)
    }

    /// The lead's API, with the password.
    pub(crate) fn lead(&self) -> Http {
        Http::new(self.board(Receiver).address(), PASSWORD)
    }

    /// A further transmitter in reach that has neither the group's key nor its password; off.
    pub(crate) fn new_board_without_key(&self, id: &str, password: &str) -> Board {
        self.write("its-password", password.as_bytes());
        let options = ["--id", id, "--key", "a.pub"].map(str::to_owned).to_vec();
        Board::without_key(self.folder.path(), Transmitter, options)
    }

    /// A further transmitter of the group, on this air; off.
    pub(crate) fn further_board(&self, name: &str, id: &str, air: &str) -> Board {
        let options = ["--id", id, "--air", air, "--key", "a.pub", "--firmware"];
        let file = format!("first-{}.bin", Transmitter.name());
        let options = options.into_iter().map(str::to_owned).chain([file]).collect();
        Board::further(self.folder.path(), Transmitter, name, options)
    }

    /// The API of a further board, with the password.
    pub(crate) fn http_at(&self, board: &Board) -> Http {
        Http::new(board.address(), PASSWORD)
    }

    /// The API of either, with the password.
    pub(crate) fn http(&self, role: Role) -> Http {
        Http::new(self.board(role).address(), PASSWORD)
    }

    /// The rollout as the lead shows it, if it answers and there is one.
    pub(crate) fn rollout(&self) -> Option<Value> {
        let rollout = self.lead().get("/api/rollout")?.json["rollout"].take();
        (!rollout.is_null()).then_some(rollout)
    }

    /// Past rollouts, the newest first.
    pub(crate) fn history(&self) -> Vec<Value> {
        self.wait("the history", || {
            self.lead().get("/api/history")?.json["history"].as_array().cloned()
        })
    }

    /// Waits until the rollout is in this phase.
    pub(crate) fn wait_phase(&self, phase: &str) -> Value {
        self.wait(&format!("phase {phase}"), || {
            self.rollout().filter(|rollout| rollout["phase"] == phase)
        })
    }

    /// Waits until a rollout has settled, and returns it.
    pub(crate) fn wait_settled(&self) -> Value {
        self.wait_phase("settled")
    }

    /// What matters of both devices: what they run, and how often they booted.
    pub(crate) fn seen(&self) -> [Seen; 2] {
        BOTH.map(|role| self.seen_of(role))
    }

    /// The same of one of them.
    pub(crate) fn seen_of(&self, role: Role) -> Seen {
        self.wait(&format!("{} answers", role.name()), || {
            let version = self.http(role).get("/api/version")?.json;
            Some(Seen {
                image: version["image"].as_str()?.to_owned(),
                boot_number: version["boot_number"].as_u64()?,
                is_on_trial: version["on_trial"].as_bool()?,
            })
        })
    }

    /// Waits until nothing is open and both run one of these pairs for good; returns which.
    pub(crate) fn wait_whole(&self, pairs: &[&[Image; 2]]) -> usize {
        self.wait("both run one release for good", || {
            if self.rollout().is_some_and(|rollout| rollout["phase"] != "settled") {
                return None;
            }
            let seen: Vec<(String, bool)> = BOTH
                .iter()
                .filter_map(|&role| {
                    let version = self.http(role).get("/api/version")?.json;
                    let is_for_good =
                        version["on_trial"] == false && version["ota_state"] == "valid";
                    Some((version["image"].as_str()?.to_owned(), is_for_good))
                })
                .collect();
            pairs.iter().position(|pair| {
                seen.len() == 2
                    && seen.iter().zip(*pair).all(|((image, is_for_good), expected)| {
                        *is_for_good && *image == expected.hash
                    })
            })
        })
    }

    /// Waits until both run these images for good.
    #[track_caller]
    pub(crate) fn assert_runs(&self, images: &[Image; 2]) {
        assert_eq!(self.wait_whole(&[images]), 0);
    }

    /// Nothing happened to anybody: nobody rebooted, and everybody runs what it ran.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, before: &[Seen; 2]) {
        self.wait("no rollout is open", || match self.rollout() {
            Some(rollout) => (rollout["phase"] == "settled").then_some(()),
            None => Some(()),
        });
        assert_eq!(self.seen(), *before, "somebody was touched");
    }

    pub(crate) fn wait_until_linked(&self) {
        self.wait("both hear each other", || {
            let linked = BOTH.iter().filter(|&&role| {
                let version = self.http(role).get("/api/version");
                version.is_some_and(|version| {
                    let peer = &version.json["peers"][0];
                    peer["linked"] == true && !peer["role"].is_null()
                })
            });
            (linked.count() == 2).then_some(())
        });
    }

    /// Asks again and again until there is something.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if since.elapsed() > WAIT_MAX {
                panic!("waited in vain: {what}\n{}", self.consoles());
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// What both devices have printed.
    pub(crate) fn consoles(&self) -> String {
        let rollout = self.rollout().map_or_else(|| "none".to_owned(), |it| it.to_string());
        let [receiver, transmitter] = &self.boards;
        format!("rollout: {rollout}\n{}\n{}", receiver.console(), transmitter.console())
    }
}

/// What matters of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) image: String,
    pub(crate) boot_number: u64,
    pub(crate) is_on_trial: bool,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    /// All that it printed.
    pub(crate) text: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        Self { code: output.status.code(), text: text.concat() }
    }

    /// It did what it was asked.
    #[track_caller]
    pub(crate) fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}", self.text);
        self
    }

    /// It failed, as a person would want it to: in words, with exit code 1 and a hint.
    #[track_caller]
    pub(crate) fn fails(&self) -> &Self {
        assert_eq!(self.code, Some(1), "{}", self.text);
        self.says("Hint: ")
    }

    #[track_caller]
    pub(crate) fn says(&self, part: &str) -> &Self {
        assert!(self.text.contains(part), "`{part}` is not in:\n{}", self.text);
        self
    }
}

/// A command that goes on; it ends with the test.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        Said::of(&self.child.take().unwrap().wait_with_output().unwrap())
    }

    /// `kill -9`.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.current_dir(folder).args(line.split_whitespace()).stdin(Stdio::null());
    for name in ["LOCKSTEP_DEVICE", "LOCKSTEP_PASSWORD", "LOCKSTEP_KEY_PASSWORD", "LOCKSTEP_MQTT"] {
        command.env_remove(name);
    }
    command
}

fn run_ok(folder: &Path, line: &str) {
    Said::of(&command(folder, line).output().unwrap()).succeeds();
}

/// The password of both devices.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// Longer than any limit of a rollout on a desk, on a machine that has other things to do.
const WAIT_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(30);
