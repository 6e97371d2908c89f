//! A device as a process: switched on, listened to, and killed.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Role;

/// A line of a console.
pub(crate) type Line = Value;

/// A device, on or off.
#[derive(Debug)]
pub(crate) struct Board {
    folder: PathBuf,
    role: Role,
    /// What its files are called.
    name: String,
    /// How it comes to its group's key, and which file has its password.
    given: [&'static str; 3],
    options: Vec<String>,
    process: Option<Process>,
    /// Known once it was on; it stays the same, as that of a real device does.
    address: Option<String>,
    console: Arc<Console>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    orders: ChildStdin,
}

/// What it has printed since it was made.
#[derive(Debug, Default)]
struct Console {
    lines: Mutex<Vec<Line>>,
    grown: Condvar,
}

/// A place on a console: what comes behind it is new.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(usize);

impl Mark {
    /// Before its first line.
    pub(crate) const START: Self = Self(0);
}

impl Board {
    pub(crate) fn new(folder: &Path, role: Role, options: Vec<String>) -> Self {
        let name = role.name().to_owned();
        Self::of(folder, role, name, ["--group", "pair.group", "password"], options)
    }

    /// In reach of the pair, without its key.
    pub(crate) fn without_key(folder: &Path, role: Role, options: Vec<String>) -> Self {
        let name = format!("new-{}", role.name());
        Self::of(folder, role, name, ["--air", "pair.group.air", "its-password"], options)
    }

    /// In reach of the pair, and nobody's yet: it waits to be set up.
    pub(crate) fn to_set_up(folder: &Path, role: Role) -> Self {
        let (name, options) = (format!("fresh-{}", role.name()), vec!["--first-start".to_owned()]);
        Self::of(folder, role, name, ["--air", "pair.group.air", ""], options)
    }

    /// Where its API will be.
    pub(crate) fn placed(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// One more of the group.
    pub(super) fn further(folder: &Path, role: Role, name: &str, options: Vec<String>) -> Self {
        Self::of(folder, role, name.to_owned(), ["--group", "pair.group", "password"], options)
    }

    /// Further options of `lockstep device`, from the next start on.
    pub(crate) fn give(&mut self, options: &str) {
        self.options.extend(options.split_whitespace().map(str::to_owned));
    }

    fn of(
        folder: &Path,
        role: Role,
        name: String,
        given: [&'static str; 3],
        options: Vec<String>,
    ) -> Self {
        let (process, address, console) = (None, None, Arc::default());
        let folder = folder.to_owned();
        Self { folder, role, name, given, options, process, address, console }
    }

    /// Power on.
    pub(crate) fn switch_on(&mut self) {
        assert!(self.process.is_none(), "the {} is on already", self.role.name());
        let (name, role) = (&self.name, self.role.name());
        let [option, group, password] = self.given;
        let mark = self.mark();
        let errors = File::options().append(true).create(true).open(self.errors()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .current_dir(&self.folder)
            .args(["device", option, group, "--role", role])
            .args(["--flash", &format!("{name}.flash")])
            .args(if password.is_empty() { vec![] } else { vec!["--password-file", password] })
            .args(["--http", self.address.as_deref().unwrap_or("127.0.0.1:0")])
            // If the test is killed, its end of the pipe closes, and the device goes with it.
            .args(["--json-log", "--control", "--until-input-ends"])
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let (orders, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let console = Arc::clone(&self.console);
        thread::spawn(move || console.listen(stdout));
        self.process = Some(Process { child, orders });
        let line = self.wait_line(mark, "power on", |line| line["kind"] == "power-on");
        self.address = line["address"].as_str().map(str::to_owned);
    }

    /// A power cut: `kill -9`, at once.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }

    /// An order on its standard input, such as `impair down`.
    pub(crate) fn order(&mut self, order: &str) {
        let process = self.process.as_mut().expect("the device is on");
        writeln!(process.orders, "{order}").unwrap();
    }

    /// Where its API is, whether or not it is on.
    pub(crate) fn address(&self) -> &str {
        self.address.as_deref().expect("the device was on")
    }

    /// The end of its console.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.console.lines.lock().unwrap().len())
    }

    /// Lines behind a mark.
    pub(crate) fn lines_since(&self, mark: Mark) -> Vec<Line> {
        self.console.lines.lock().unwrap()[mark.0..].to_vec()
    }

    /// Waits for a line behind the mark; comes back as soon as it was read.
    #[track_caller]
    pub(crate) fn wait_line(&self, mark: Mark, what: &str, is_it: impl Fn(&Line) -> bool) -> Line {
        let since = Instant::now();
        let mut lines = self.console.lines.lock().unwrap();
        let mut at = mark.0;
        loop {
            if let Some(line) = lines[at..].iter().find(|line| is_it(line)) {
                return line.clone();
            }
            at = lines.len();
            if since.elapsed() > LINE_MAX {
                drop(lines);
                panic!("{} did not print: {what}\n{}", self.role.name(), self.console());
            }
            lines = self.console.grown.wait_timeout(lines, LOOK_EVERY).unwrap().0;
        }
    }

    /// Waits until the rollout that this device conducts enters a phase.
    #[track_caller]
    pub(crate) fn wait_entered(&self, mark: Mark, phase: &str) {
        self.wait_line(mark, phase, |line| line["kind"] == "entered" && line["phase"] == phase);
    }

    /// The phase that it entered last.
    pub(crate) fn last_phase(&self) -> Option<String> {
        let lines = self.console.lines.lock().unwrap();
        let last = lines.iter().rfind(|line| line["kind"] == "entered")?;
        last["phase"].as_str().map(str::to_owned)
    }

    /// All that it has printed, for people.
    pub(crate) fn console(&self) -> String {
        let mut text = format!("--- {}\n", self.name);
        for line in self.console.lines.lock().unwrap().iter() {
            let part = |name: &str| line[name].as_u64().unwrap_or_default();
            let said = line["text"].as_str().unwrap_or_default();
            text += &format!("{} {:6} {said}\n", part("unix_ms") % 1_000_000, part("uptime_ms"));
        }
        text + &std::fs::read_to_string(self.errors()).unwrap_or_default()
    }

    /// Its process, while it is on.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    fn errors(&self) -> PathBuf {
        self.folder.join(format!("{}.errors", self.name))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Console {
    fn listen(&self, stdout: ChildStdout) {
        for text in BufReader::new(stdout).lines() {
            // A line that was cut off by the end of the power is none.
            let Ok(Ok(line)) = text.map(|text| serde_json::from_str(&text)) else { continue };
            self.lines.lock().unwrap().push(line);
            self.grown.notify_all();
        }
    }
}

const LINE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);
