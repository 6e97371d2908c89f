//! A fleet server as a process, and an admin of it.

use std::fs::{self, File};
use std::io::BufReader;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, Http};

/// A server on this machine; it ends with the test.
#[derive(Debug)]
pub(crate) struct Fleet {
    process: Option<(Child, BufReader<ChildStdout>)>,
    options: Vec<String>,
    /// Where it listens; it stays the same.
    address: String,
    token: String,
    folder: TempDir,
}

impl Fleet {
    /// A server with nobody in it but an admin; `options` are further ones of `lockstep serve`.
    pub(crate) fn start(options: &str) -> Self {
        let options = options.split_whitespace().map(str::to_owned).collect();
        let (address, token) = ("127.0.0.1:0".to_owned(), String::new());
        let folder = TempDir::new().unwrap();
        let mut fleet = Self { process: None, options, address, token, folder };
        let said = fleet.switch_on();
        said["listens"].as_str().unwrap().clone_into(&mut fleet.address);
        let (_, word) = said["setup"].as_str().unwrap().split_once("word=").unwrap();
        let (name, password) = ("ada", "correct horse");
        fleet.post("/api/setup", &json!({ "word": word, "name": name, "password": password }));
        let login = fleet.post("/api/login", &json!({ "name": name, "password": password }));
        login.json["token"].as_str().unwrap().clone_into(&mut fleet.token);
        fleet
    }

    /// On again, with the files that it has; what it prints.
    pub(crate) fn switch_on(&mut self) -> Value {
        assert!(self.process.is_none(), "the server is on already");
        let errors = self.folder.path().join("errors");
        let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .current_dir(self.folder.path())
            .args(["serve", "--data", "data", "--poll", "5", "--json"])
            .args(["--listen", &self.address])
            .args(&self.options)
            .env_remove("LOCKSTEP_MQTT")
            .env_remove("LOCKSTEP_DATABASE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().append(true).create(true).open(errors).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let said = serde_json::Deserializer::from_reader(&mut stdout).into_iter().next();
        self.process = Some((child, stdout));
        said.and_then(Result::ok).unwrap_or_else(|| panic!("it says nothing\n{}", self.log()))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let Some((mut child, _)) = self.process.take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Options of a lead that comes to it for a new group of this name.
    pub(crate) fn enrolment(&self, name: &str) -> String {
        let made = self.post("/api/enrolments", &json!({ "name": name }));
        let token = made.json["token"].as_str().unwrap().to_owned();
        format!("--server http://{} --enroll {token}", self.address)
    }

    /// The identity of the group of this name, once it is in.
    pub(crate) fn group(&self, name: &str) -> Option<String> {
        let groups = self.admin().get("/api/groups")?.json["groups"].take();
        let group = groups.as_array()?.iter().find(|group| group["name"] == name)?;
        Some(group["id"].as_str()?.to_owned())
    }

    /// Its API, as an admin.
    pub(crate) fn admin(&self) -> Http {
        Http::new(&self.address, &self.token)
    }

    /// Posts something that is taken.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let answer = self.admin().post_json(path, body);
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.json);
        answer
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.process {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
