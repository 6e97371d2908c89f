//! A server as a process, and leads that have no devices: they say what real ones would, so that a
//! page has something to show of a fleet.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::view::View;

/// `lockstep serve`, for one test; it ends with it.
#[derive(Debug)]
pub(crate) struct Fleet {
    server: Child,
    /// Where it is, with scheme and without a path.
    pub(crate) url: String,
    /// What it printed for the first admin.
    pub(crate) setup: String,
    pub(crate) folder: TempDir,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let mut server = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--poll", "5", "--data"])
            .arg(folder.path().join("fleet"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = serde_json::Deserializer::from_reader(server.stdout.take().unwrap());
        let said: Value = said.into_iter().next().unwrap().unwrap();
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        Self { server, url: text("url"), setup: text("setup"), folder }
    }

    /// With an admin `ada`; a token of it.
    pub(crate) fn start_with_admin() -> (Self, String) {
        let fleet = Self::start();
        let (_, word) = fleet.setup.split_once("word=").unwrap();
        let setup = json!({ "word": word, "name": "ada", "password": ADMIN_PASSWORD });
        fleet.post("/api/setup", "", &setup);
        let login = json!({ "name": "ada", "password": ADMIN_PASSWORD });
        let token = fleet.post("/api/login", "", &login)["token"].as_str().unwrap().to_owned();
        (fleet, token)
    }

    /// Opens the console, and signs in as the admin.
    pub(crate) fn open_as_admin(&self) -> Option<View> {
        let address = format!("{}/login", self.url);
        let view = View::open_with_files_of(self.folder.path().to_owned(), address)?;
        view.browser.type_into("name", "ada");
        view.browser.type_into("password", ADMIN_PASSWORD);
        view.browser.click("go");
        view.wait_text("main", "Overview");
        Some(view)
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> Value {
        let request = ureq::get(format!("{}{path}", self.url));
        let mut answer = request.header("authorization", format!("Bearer {token}")).call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    pub(crate) fn post(&self, path: &str, token: &str, body: &Value) -> Value {
        self.send(path, token, body.to_string().as_bytes())
    }

    /// A body as it is; the answer must be JSON, and no error.
    pub(crate) fn send(&self, path: &str, token: &str, body: &[u8]) -> Value {
        let mut answer = ureq::post(format!("{}{path}", self.url))
            .config()
            .timeout_global(Some(ANSWER_MAX))
            .http_status_as_error(false)
            .build()
            .header("authorization", format!("Bearer {token}"))
            .content_type("application/json")
            .send(body)
            .unwrap();
        let (status, text) = (answer.status(), answer.body_mut().read_to_string().unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A token for a new group.
    pub(crate) fn enrolment(&self, token: &str, name: &str, labels: &str) -> String {
        let body = json!({ "name": name, "labels": labels });
        let made = self.post("/api/enrolments", token, &body);
        made["token"].as_str().unwrap().to_owned()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A lead that is only words.
#[derive(Debug)]
pub(crate) struct Words<'a> {
    fleet: &'a Fleet,
    id: String,
    /// Its group.
    pub(crate) group: String,
    credential: String,
}

impl<'a> Words<'a> {
    /// Lets it in.
    pub(crate) fn enrol(
        fleet: &'a Fleet,
        token: &str,
        number: u8,
        name: &str,
        labels: &str,
    ) -> Self {
        let id = format!("02:00:00:00:{number:02x}:01");
        let secret = fleet.enrolment(token, name, labels);
        let welcome = fleet.post("/api/lead/enroll", "", &json!({ "token": secret, "id": id }));
        let text = |name: &str| welcome[name].as_str().unwrap().to_owned();
        Self { fleet, id, group: text("group"), credential: text("credential") }
    }

    /// Checks in with documents of a pair on this release, changed by `edit`; what it is offered.
    pub(crate) fn report(&self, version: &str, edit: impl FnOnce(&mut Value)) -> Value {
        let mut body = check_in(&self.id, version);
        edit(&mut body);
        self.fleet.post("/api/lead/check-in", &self.credential, &body)
    }
}

/// What a lead of a healthy pair says.
fn check_in(id: &str, version: &str) -> Value {
    let member = id.replace(":01", ":02");
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    let number = parts.iter().fold(0, |number, part| number * 100 + part);
    let image = "a4afd3dcdf93298832eda7fc1789481c83d75748818e921d4064a4e7d79144ac";
    json!({
        "id": id,
        "documents": {
            "version": {
                "id": id, "role": "receiver", "product": "desk", "version_number": number,
                "image": image, "hardware": "LilyGo T-Display-S3", "chip": "ESP32-S3",
                "board": "t-display-s3", "protocol_range": [1, 2], "trusts_anybody": false,
                "slot": 0, "slot_bytes": 1_966_080, "ota_state": "valid", "keys": 1,
                "rollback": "bootloader", "build_date": "Jan  1 2026", "build_time": "12:00:00",
                "uptime_seconds": 93_600, "boot_number": 12, "reset_reason": "power-on",
                "min_compatible": 900, "free_heap": 150_000,
                "peers": [{
                    "id": member, "role": "transmitter", "version_number": number,
                    "image": "10cc574e60e520ad", "compatible": true, "why": null,
                    "linked": true, "protocol_range": [1, 1], "min_compatible": 900,
                }],
            },
            "group": { "members": [
                { "id": id, "role": "receiver", "lead": true, "linked": true, "heard_ms_ago": 0 },
                { "id": member, "role": "transmitter", "lead": false, "linked": true,
                  "heard_ms_ago": 142 },
            ] },
            "health": {
                "status": "healthy", "errors": [], "channel": 6, "free_heap": 150_000,
                "checks": [
                    { "name": "application", "required": true, "ok": true,
                      "detail": "sample application works" },
                    { "name": "link", "required": true, "ok": true,
                      "detail": "1 of 1 peers answer, 0 % of frames are lost" },
                ],
                "frames": { "data": { "gated": 19 } },
            },
            "rollout": { "rollout": null },
            "history": { "history": [] },
        },
        "lines": [{ "level": "notice", "text": format!("booted {version}, image a4afd3dc") }],
    })
}

/// The files of a desk are elsewhere than those of the server.
pub(crate) fn path_of(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

pub(crate) const ADMIN_PASSWORD: &str = "correct horse";
const ANSWER_MAX: Duration = Duration::from_secs(30);
