//! A browser without a window, driven by chromedriver; it ends with the test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// So often is a click tried that went beside its element.
const CLICKS_MAX: usize = 5;

/// One browser with one window.
#[derive(Debug)]
pub(crate) struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    session: String,
    driver: Child,
    driver_address: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, if there is one on this machine.
    pub(crate) fn start() -> Option<Self> {
        let (chromium, driver) = (tool("LOCKSTEP_CHROMIUM", "chromium")?, driver()?);
        let profile = TempDir::new().unwrap();
        let (driver, port) = start_driver(&driver);
        let driver_address = format!("http://127.0.0.1:{port}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let wanted = capabilities(&chromium, profile.path());
        let connect = async {
            let Value::Object(wanted) = wanted else { unreachable!("an object was written") };
            let mut builder = ClientBuilder::new(HttpConnector::new());
            let client = builder.capabilities(wanted).connect(&driver_address).await.unwrap();
            let session = client.session_id().await.unwrap().unwrap();
            (client, session)
        };
        let (client, session) = runtime.block_on(connect);
        let client = Some(client);
        Some(Self { runtime, client, session, driver, driver_address, _profile: profile })
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("it is taken only at the end")
    }

    pub(crate) fn open(&self, address: &str) {
        self.runtime.block_on(self.client().goto(address)).unwrap();
    }

    /// What a function with this body returns.
    pub(crate) fn run(&self, body: &str, arguments: Vec<Value>) -> Value {
        self.runtime.block_on(self.client().execute(body, arguments)).unwrap()
    }

    /// The same, of a function that calls its last argument when it is done.
    pub(crate) fn run_slowly(&self, body: &str, arguments: Vec<Value>) -> Value {
        self.runtime.block_on(self.client().execute_async(body, arguments)).unwrap()
    }

    /// Clicks as a person does, who sees when a click went beside: a page that grows above a button
    /// just then moves it away from under the mouse.
    pub(crate) fn click(&self, id: &str) {
        for _ in 0..CLICKS_MAX {
            let heed = "window.clickHit = false;
                document.getElementById(arguments[0])?.addEventListener('click',
                    () => { window.clickHit = true; }, { capture: true, once: true })";
            self.run(heed, vec![id.into()]);
            self.runtime.block_on(async {
                let element = self.client().find(Locator::Id(id)).await.unwrap();
                element.click().await.unwrap_or_else(|error| panic!("`{id}`: {error}"));
            });
            // A page that went elsewhere at the click knows nothing of it any more.
            if self.run("return window.clickHit ?? true", Vec::new()) == true {
                return;
            }
            eprintln!("a click beside `{id}`");
        }
        panic!("`{id}` was not hit in {CLICKS_MAX} clicks");
    }

    /// Types into a field, or names the file for a field of files.
    pub(crate) fn type_into(&self, id: &str, text: &str) {
        self.runtime.block_on(async {
            let element = self.client().find(Locator::Id(id)).await.unwrap();
            element.send_keys(text).await.unwrap_or_else(|error| panic!("`{id}`: {error}"));
        });
    }

    /// Presses keys, as on a keyboard: whatever has the focus gets them.
    pub(crate) fn press_keys(&self, keys: &str) {
        let pressed = keys.chars().fold(KeyActions::new("keyboard".to_owned()), |keys, value| {
            keys.then(KeyAction::Down { value }).then(KeyAction::Up { value })
        });
        self.runtime.block_on(self.client().perform_actions(pressed)).unwrap();
    }

    /// Something that only this browser knows how to do.
    pub(crate) fn cdp(&self, command: &str, parameters: &Value) -> Value {
        self.ask("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What was logged since the last look: `browser` is the console, `performance` the network.
    pub(crate) fn logged(&self, kind: &str) -> Vec<Value> {
        self.ask("se/log", &json!({ "type": kind })).as_array().cloned().unwrap_or_default()
    }

    /// The whole page as it looks, for people.
    pub(crate) fn picture(&self, name: &str) {
        // What a dialogue covers ends with the window.
        let has_dialogue = self.run("return !!document.querySelector('dialog[open]')", Vec::new());
        let whole = json!({ "format": "png", "captureBeyondViewport": has_dialogue == false });
        self.capture(name, &whole);
    }

    /// What the window shows of it; returns where the picture is.
    pub(crate) fn picture_of_window(&self, name: &str) -> PathBuf {
        self.capture(name, &json!({ "format": "png" }))
    }

    fn capture(&self, name: &str, wanted: &Value) -> PathBuf {
        let answer = self.cdp("Page.captureScreenshot", wanted);
        let picture = Base64::decode_vec(answer["data"].as_str().unwrap()).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("page-screenshots");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.png"));
        fs::write(&file, picture).unwrap();
        file
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        let address = format!("{}/session/{}/{path}", self.driver_address, self.session);
        let body = body.to_string();
        let mut answer = ureq::post(&address)
            .config()
            .timeout_global(Some(ANSWER_MAX))
            .build()
            .content_type("application/json")
            .send(body.as_bytes())
            .unwrap();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        serde_json::from_str::<Value>(&text.unwrap()).unwrap()["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // The browser may be gone already.
            let close = async { tokio::time::timeout(ANSWER_MAX, client.close()).await };
            let _ = self.runtime.block_on(close);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn capabilities(chromium: &Path, profile: &Path) -> Value {
    let profile = format!("--user-data-dir={}", profile.display());
    let flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--window-size=1100,900",
        &profile,
    ];
    json!({
        "goog:chromeOptions": { "binary": chromium, "args": flags },
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        "timeouts": { "script": 60_000 },
    })
}

/// A driver and its port. It takes one that is free for one family of addresses, and ends when that
/// is not free for the other, which the next one may find better.
fn start_driver(program: &Path) -> (Child, u16) {
    let mut said = String::new();
    for _ in 0..STARTS_MAX {
        let mut driver = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        match port_of(&mut driver) {
            Ok(port) => return (driver, port),
            Err(lines) => said += &lines,
        }
        let _ = driver.wait();
    }
    panic!("chromedriver does not say its port:\n{said}");
}

/// The port that it chose, as it says at its start; else what it says.
fn port_of(driver: &mut Child) -> Result<u16, String> {
    let mut said = String::new();
    for line in BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let port = line.split_once("successfully on port ").map(|(_, port)| port);
        if let Some(Ok(port)) = port.map(|port| port.trim_end_matches('.').parse()) {
            return Ok(port);
        }
        said += &format!("{line}\n");
    }
    Err(said)
}

fn driver() -> Option<PathBuf> {
    tool("LOCKSTEP_CHROMEDRIVER", "chromedriver")
}

/// Where a tool is: what the environment says, else on the `PATH`.
pub(crate) fn tool(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let folders = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|it| it.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no `{name}`; `cargo xtask test --suite page` installs it");
    }
    found
}

const STARTS_MAX: u32 = 5;
const ANSWER_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
