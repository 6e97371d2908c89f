//! The page of one device in a browser, in the words of what a person does there.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::{Browser, tool};
use crate::desk::{Desk, PASSWORD, Receiver, Role};

/// The lead's page, open.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) browser: Browser,
    folder: PathBuf,
    address: String,
}

impl View {
    /// Opens the lead's page, and waits until it has heard of both devices; `None` where there is
    /// no browser.
    pub(crate) fn open(desk: &Desk) -> Option<Self> {
        let view = Self::open_at(desk, Receiver)?;
        view.wait_text("receiverStatus", "Online");
        view.wait_text("transmitterStatus", "Online");
        Some(view)
    }

    /// Opens the page of either device.
    pub(crate) fn open_at(desk: &Desk, role: Role) -> Option<Self> {
        Self::open_address(desk, desk.board(role).address())
    }

    /// Opens the page at this host and port.
    pub(crate) fn open_address(desk: &Desk, address: &str) -> Option<Self> {
        // As people type it: the device knows the way to the page.
        Self::open_with_files_of(desk.path(""), format!("http://{address}"))
    }

    /// Opens any page; files are chosen from this folder.
    pub(crate) fn open_with_files_of(folder: PathBuf, address: String) -> Option<Self> {
        let browser = Browser::start()?;
        browser.open(&address);
        Some(Self { browser, folder, address })
    }

    /// The page is closed and opened again: it knows nothing of before.
    pub(crate) fn reload(&self) {
        self.browser.open(&self.address);
    }

    pub(crate) fn text(&self, id: &str) -> String {
        let script = "const e = document.getElementById(arguments[0]); return e && e.innerText";
        self.browser.run(script, vec![id.into()]).as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn property(&self, id: &str, name: &str) -> Value {
        let script = "return document.getElementById(arguments[0])[arguments[1]]";
        self.browser.run(script, vec![id.into(), name.into()])
    }

    /// Waits until an element says this; returns all that it says.
    #[track_caller]
    pub(crate) fn wait_text(&self, id: &str, part: &str) -> String {
        self.wait(&format!("`{id}` says `{part}`"), || {
            let text = self.text(id);
            text.contains(part).then_some(text)
        })
    }

    #[track_caller]
    pub(crate) fn wait_enabled(&self, id: &str) {
        self.wait(&format!("`{id}` is enabled"), || {
            (self.property(id, "disabled") == false).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if since.elapsed() > WAIT_MAX {
                self.browser.picture("failed");
                let all = self.browser.run("return document.body.innerText", Vec::new());
                let said = self.browser.logged("browser");
                let page = all.as_str().unwrap_or_default();
                panic!("waited in vain: {what}\n{page}\n{said:#?}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Chooses a file of the desk's folder.
    pub(crate) fn choose(&self, field: &str, file: &str) {
        self.browser.type_into(field, self.folder.join(file).to_str().unwrap());
        let info = format!("{field}Info");
        self.wait("the file was read", || {
            let text = self.text(&info);
            (!text.is_empty() && !text.contains("Reading")).then_some(())
        });
    }

    /// Opens configuration and password. The log above them grows while somebody clicks, so a click
    /// may miss them.
    pub(crate) fn open_settings(&self) {
        self.wait("the settings are there", || {
            if self.property("more", "open") == false {
                self.browser.click("more");
            }
            (self.property("cfg", "hidden") == false).then_some(())
        });
    }

    /// What the page offers to save goes to the desk's folder.
    pub(crate) fn save_downloads(&self) {
        let folder = json!({ "behavior": "allow", "downloadPath": self.folder });
        self.browser.cdp("Browser.setDownloadBehavior", &folder);
    }

    /// Presses a button that needs the password.
    #[track_caller]
    pub(crate) fn press(&self, button: &str) {
        self.click(button);
        self.give_password(PASSWORD);
    }

    /// Clicks a button once it can be clicked.
    #[track_caller]
    pub(crate) fn click(&self, button: &str) {
        self.wait_enabled(button);
        self.browser.click(button);
    }

    /// Waits until more than so many percent of the transmitter's image are staged.
    #[track_caller]
    pub(crate) fn wait_staged(&self, percent: u32) {
        self.wait("some of it is staged", || {
            let text = self.text("transmitterProgressText");
            let staged: u32 = text.split(" %").next()?.rsplit(' ').next()?.parse().ok()?;
            (staged > percent).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn give_password(&self, password: &str) {
        self.wait_dialog("pass");
        self.browser.type_into("password", password);
        self.browser.click("passOk");
    }

    /// The element that has the focus.
    pub(crate) fn focused(&self) -> String {
        let script = "return document.activeElement.id";
        self.browser.run(script, Vec::new()).as_str().unwrap_or_default().to_owned()
    }

    /// Goes from element to element with the keyboard until it is there.
    #[track_caller]
    pub(crate) fn tab_to(&self, id: &str) {
        let mut passed = Vec::new();
        while self.focused() != id {
            assert!(passed.len() < TABS_MAX, "`{id}` is not reached: {passed:?}");
            self.browser.press_keys("\u{e004}");
            passed.push(self.focused());
        }
    }

    #[track_caller]
    pub(crate) fn wait_dialog(&self, id: &str) {
        self.wait(&format!("the dialog `{id}`"), || {
            (self.property(id, "open") == true).then_some(())
        });
    }

    /// Updates both from a bundle, to the end.
    #[track_caller]
    pub(crate) fn update(&self, bundle: &str) {
        self.choose("bundleFile", bundle);
        self.press("updateBothBtn");
        self.wait_text("verdict", "✓ Kept");
        self.wait_text("verdict", "run ");
    }

    pub(crate) fn emulate_width(&self, width: u32) {
        self.emulate_size(width, 900);
    }

    pub(crate) fn emulate_size(&self, width: u32, height: u32) {
        let mobile = width < 600;
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.browser.cdp("Emulation.setDeviceMetricsOverride", &size);
    }

    pub(crate) fn emulate_scheme(&self, scheme: &str) {
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            // What moves is neither read nor photographed well.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.browser.cdp("Emulation.setEmulatedMedia", &features);
    }

    /// What axe-core finds; `None` where it is not installed.
    pub(crate) fn violations(&self) -> Option<Vec<String>> {
        let axe = std::fs::read_to_string(axe()?).unwrap();
        let script = format!(
            "{axe};const done = arguments[arguments.length - 1];
            axe.run(document, {{ resultTypes: ['violations'] }}).then(found => done(
                found.violations.map(v => v.id + ': ' + v.help + '\\n' + v.nodes
                    .map(n => n.html + '\\n' + n.failureSummary).join('\\n'))));"
        );
        let found = self.browser.run_slowly(&script, Vec::new());
        let found = found.as_array().cloned().unwrap_or_default();
        Some(found.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect())
    }

    /// No script failed, nothing was against the policy, and nobody else was asked for anything.
    /// That a device does not answer, or refuses, is no fault of the page.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        for entry in self.browser.logged("browser") {
            let message = entry["message"].as_str().unwrap_or_default();
            let is_network = message.contains("Failed to load resource");
            assert!(entry["level"] != "SEVERE" || is_network, "{message}");
        }
        for address in self.asked() {
            let is_ours = address.starts_with(&self.address)
                || address.starts_with("data:")
                // The browser's own first page, which may load for a while.
                || address.starts_with("chrome:")
                || address.starts_with("blob:");
            assert!(is_ours, "the page asked for {address}");
        }
    }

    /// All addresses that were asked for since the last look.
    pub(crate) fn asked(&self) -> Vec<String> {
        let entries = self.browser.logged("performance");
        let addresses = entries.iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            let address = message["params"]["request"]["url"].as_str()?;
            is_request.then(|| address.to_owned())
        });
        addresses.collect()
    }
}

fn axe() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("LOCKSTEP_AXE") {
        return Some(path.into());
    }
    let npm = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("npm");
    let ours = npm.join("node_modules/axe-core/axe.min.js");
    if ours.is_file() { Some(ours) } else { tool("LOCKSTEP_AXE", "axe.min.js") }
}

/// Longer than any limit of a rollout on a desk, on a machine that has other things to do.
const WAIT_MAX: Duration = Duration::from_secs(90);
/// More elements than a page of ours lets one stop at.
const TABS_MAX: usize = 40;
const LOOK_EVERY: Duration = Duration::from_millis(60);
