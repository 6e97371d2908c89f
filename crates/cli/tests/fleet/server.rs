//! The fixture: a server as a process, its admin, and pairs that are enrolled there.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lockstep_cli::fleet::{Authority, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::desk::{Desk, Image, Plan, Receiver, Said};

/// A server and its admin `ada`, who has signed in.
#[derive(Debug)]
pub(crate) struct Fleet {
    process: Option<Child>,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    /// Known once it was on; it stays.
    address: String,
    /// Where people find it.
    url: String,
    folder: Arc<TempDir>,
}

impl Fleet {
    /// A server that takes anybody's releases.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// A server with further options; `a.pub` is a key that is there.
    pub(crate) fn with(options: &str) -> Self {
        Self::in_folder(TempDir::new().unwrap(), options)
    }

    /// In a folder that was prepared.
    pub(crate) fn in_folder(folder: TempDir, options: &str) -> Self {
        Self::with_variables(folder, options, &[])
    }

    /// In another environment.
    pub(crate) fn with_variables(
        folder: TempDir,
        options: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let variables = variables.collect();
        let options = options.split_whitespace().map(str::to_owned).collect();
        let address = ANY_PORT.to_owned();
        let (url, folder) = (String::new(), Arc::new(folder));
        let mut fleet = Self { process: None, options, variables, address, url, folder };
        fs::write(fleet.path("password"), PASSWORD).unwrap();
        fleet.operator("keygen --no-password --out a").succeeds();
        let begun = fleet.switch_on();
        fleet.address = begun["listens"].as_str().unwrap().to_owned();
        // The same port when it is switched on again.
        for option in fleet.options.iter_mut().filter(|it| *it == ANY_PORT) {
            begun["listens_tls"].as_str().unwrap().clone_into(option);
        }
        fleet.url = begun["url"].as_str().unwrap().to_owned();
        let (url, link) = (&fleet.url, begun["setup"].as_str().unwrap());
        let trust = begun["ca_sha256"].as_str().map(|print| format!("--ca-sha256 {print}"));
        let trust = trust.unwrap_or_default();
        let login = format!("login {url} --name ada --password-file password --setup {link}");
        let login = format!("{login} {trust}");
        fleet.operator(&login).succeeds().says("as ada, admin");
        fleet
    }

    /// Another server of the same fleet, in the same folder, at another port; people still find it
    /// where they found this one.
    pub(crate) fn beside(&self) -> Self {
        self.beside_with(&self.options.join(" "))
    }

    /// The same, with other options.
    pub(crate) fn beside_with(&self, options: &str) -> Self {
        let options = format!("{options} --public-url {}", self.url);
        let options = options.split_whitespace().map(str::to_owned).collect();
        let (variables, folder) = (self.variables.clone(), Arc::clone(&self.folder));
        let (address, url) = (ANY_PORT.to_owned(), self.url.clone());
        let mut fleet = Self { process: None, options, variables, address, url, folder };
        let begun = fleet.switch_on();
        begun["listens"].as_str().unwrap().clone_into(&mut fleet.address);
        fleet
    }

    /// Starts it; what it says of itself.
    pub(crate) fn switch_on(&mut self) -> Value {
        assert!(self.process.is_none(), "the server is on already");
        let errors = File::options().append(true).create(true).open(self.path("errors")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .current_dir(self.folder.path())
            .args(["--json", "serve", "--data", "data", "--poll", "5"])
            .args(["--listen", &self.address])
            .args(&self.options)
            .envs(self.variables.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        self.process = Some(child);
        let mut text = Vec::new();
        loop {
            let mut byte = [0];
            let count = stdout.read(&mut byte).unwrap();
            assert_ne!(count, 0, "the server has ended: {}", self.errors());
            text.push(byte[0]);
            if let Ok(said) = serde_json::from_slice(&text) {
                return said;
            }
        }
    }

    /// `kill -9`, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where leads find it.
    pub(crate) fn lead_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the server has logged.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.path("errors")).unwrap_or_default()
    }

    /// Runs a command in the server's folder, as whoever has signed in there.
    pub(crate) fn operator(&self, line: &str) -> Said {
        say(self.folder.path(), line)
    }

    /// The same, and what it says for programs.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        let said = self.operator(&format!("--json {line}"));
        said.succeeds();
        serde_json::from_str(&said.text).unwrap()
    }

    /// What a browser gets, head and all.
    pub(crate) fn page(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n");
        let head = format!("{head}Connection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asks the server past the command, with this secret.
    pub(crate) fn ask(&self, secret: &str) -> Server {
        Server::new(&self.lead_url(), Some(secret.to_owned()), Authority::System).unwrap()
    }

    /// A command that goes on while the test does something else; `name` is that of its output.
    pub(crate) fn begin(&self, name: &str, line: &str) -> Background {
        let output = self.path(name);
        let file = File::create(&output).unwrap();
        let mut command = command(self.folder.path(), line);
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Background { child, output }
    }

    /// A token that lets a lead in.
    pub(crate) fn token(&self, group: &str) -> String {
        let enroll = self.json(&format!("group enroll {group} --labels site=desk"));
        enroll["token"].as_str().unwrap().to_owned()
    }

    /// A pair that is enrolled as `bench`, and that the server has heard of.
    pub(crate) fn pair(&self) -> Desk {
        self.pair_of(Plan::default())
    }

    /// The same, otherwise set up.
    pub(crate) fn pair_of(&self, plan: Plan) -> Desk {
        let (url, token) = (self.lead_url(), self.token("bench"));
        let desk = plan.with(Receiver, &format!("--server {url} --enroll {token}")).start();
        self.wait(&desk, "the server has heard what both run", || {
            let shown = self.operator("--json group show bench");
            let shown: Value = serde_json::from_str(&shown.text).ok()?;
            let devices = shown["group"]["devices"].as_array()?;
            let known = devices.iter().filter(|device| device["version"].is_string());
            (known.count() == 2).then_some(())
        });
        desk
    }

    /// The group `bench`, as the server knows it.
    pub(crate) fn group(&self) -> Value {
        let groups = self.json("group list")["groups"].take();
        groups[0].clone()
    }

    /// Publishes a release of healthy images; they.
    pub(crate) fn publish(&self, desk: &Desk, version: &str) -> [Image; 2] {
        let (images, bundle) = desk.good_release(version, "");
        self.publish_bundle(desk, &bundle);
        images
    }

    pub(crate) fn publish_bundle(&self, desk: &Desk, bundle: &str) {
        let path = desk.path(bundle);
        self.operator(&format!("publish {}", path.display())).succeeds().says("Published");
    }

    /// A campaign of this release for all groups; its identity.
    pub(crate) fn campaign(&self, arguments: &str) -> String {
        let made = self.json(&format!("campaign create {arguments}"));
        made["campaign"]["id"].as_str().unwrap().to_owned()
    }

    /// How the pair stands in a campaign, and the campaign's own state.
    pub(crate) fn standing(&self, campaign: &str) -> (String, String) {
        let shown = self.json(&format!("campaign show {campaign}"))["campaign"].take();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&shown["groups"][0]["standing"]), text(&shown["state"]))
    }

    /// Waits until the pair stands so.
    pub(crate) fn wait_standing(&self, desk: &Desk, campaign: &str, standing: &str) {
        self.wait(desk, &format!("the pair stands as {standing}"), || {
            (self.standing(campaign).0 == standing).then_some(())
        });
    }

    /// Asks again and again until there is something.
    #[track_caller]
    pub(crate) fn wait<T>(&self, desk: &Desk, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.wait_alone(what, || desk.consoles(), look)
    }

    /// The same without a desk; `story` is for people, when it was in vain.
    #[track_caller]
    pub(crate) fn wait_alone<T>(
        &self,
        what: &str,
        story: impl Fn() -> String,
        mut look: impl FnMut() -> Option<T>,
    ) -> T {
        let since = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if since.elapsed() > WAIT_MAX {
                panic!("waited in vain: {what}\n{}\n{}", story(), self.errors());
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// A lead that is nothing but its credential.
    pub(crate) fn lead_by_hand(&self, group: &str, id: &str) -> Server {
        let body = json!({ "token": self.token(group), "id": id });
        let welcome: Value = self.ask("").post("/api/lead/enroll", &body).unwrap();
        self.ask(welcome["credential"].as_str().unwrap())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A new database on the PostgreSQL that `LOCKSTEP_TEST_DATABASE` names; none where it does not.
pub(crate) fn database(name: &str) -> Option<String> {
    let Ok(server) = std::env::var("LOCKSTEP_TEST_DATABASE") else {
        eprintln!("skipped: LOCKSTEP_TEST_DATABASE names no PostgreSQL");
        return None;
    };
    let name = format!("{name}_{}", std::process::id());
    let mut psql = Command::new("psql");
    psql.args(["--quiet", &server, "-c", &format!("CREATE DATABASE {name}")]);
    assert!(psql.status().expect("psql, which comes with PostgreSQL").success());
    let (server, _) = server.rsplit_once('/').expect("a database");
    Some(format!("{server}/{name}"))
}

/// A command that goes on; it ends with the test.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    output: PathBuf,
}

impl Background {
    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        let code = self.child.wait().unwrap().code();
        Said { code, text: self.printed() }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(folder: &Path, line: &str) -> Said {
    let output = command(folder, line).output().unwrap();
    let is_json = line.starts_with("--json") && output.status.success();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !is_json {
        text += &String::from_utf8_lossy(&output.stderr);
    }
    Said { code: output.status.code(), text }
}

fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.current_dir(folder).args(line.split_whitespace()).stdin(Stdio::null());
    for name in ["LOCKSTEP_DEVICE", "LOCKSTEP_PASSWORD", "LOCKSTEP_KEY_PASSWORD"] {
        command.env_remove(name);
    }
    command.env_remove("LOCKSTEP_SERVER").env_remove("LOCKSTEP_TOKEN").env_remove("LOCKSTEP_CA");
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    command
}

/// The admin's password.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
const ANY_PORT: &str = "127.0.0.1:0";
const WAIT_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);
