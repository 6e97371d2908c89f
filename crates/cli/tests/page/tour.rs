//! The pictures of docs/first-update.md, taken anew by every run; with `UPDATE_SCREENSHOTS=1` they
//! replace those that are kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::desk::{BOTH, Desk, Receiver, firmware};
use crate::view::View;

#[test]
fn the_first_update_is_pictured() {
    let mut desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    view.emulate_scheme("light");
    view.browser.cdp("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
    let mut taken = Taken { view: &view, names: BTreeSet::new() };
    view.wait_text("updateLog", "booted");
    taken.picture("page", "who", 560);

    let [receiver, transmitter] = BOTH.map(|role| firmware(role, "1.1.0").size(1 << 20).make());
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    // As the text calls it.
    desk.write("desk-1.1.0.lockstep", &desk.read(&bundle));
    view.choose("bundleFile", "desk-1.1.0.lockstep");
    view.wait_enabled("updateBothBtn");
    taken.picture("chosen", "drop", 710);

    // Slow enough to be seen.
    desk.board_mut(Receiver).order("impair loss=30");
    view.press("updateBothBtn");
    view.wait_staged(20);
    taken.picture("staging", "hRoll", 420);

    desk.board_mut(Receiver).order("impair none");
    view.wait_text("verdict", "run 1.1.0");
    view.wait_text("receiverVersion", "1.1.0");
    view.wait_text("transmitterVersion", "1.1.0");
    view.wait_text("receiverStatus", "Online");
    taken.picture("kept", "who", 670);
    view.assert_clean();
    desk.assert_runs(&[receiver, transmitter]);
    assert_eq!(taken.names, named(), "docs/first-update.md shows other pictures");
}

/// Also where there is no browser.
#[test]
fn every_picture_of_the_first_update_is_there_and_small() {
    let named = named();
    assert!(named.len() >= 3, "{named:?}");
    for name in named {
        let file = images().join(&name);
        let size = fs::metadata(&file).unwrap_or_else(|error| panic!("{name}: {error}")).len();
        assert!(size < PICTURE_BYTES_MAX, "{name} has {size} bytes");
    }
}

/// Pictures of a walk through the page.
struct Taken<'a> {
    view: &'a View,
    names: BTreeSet<String>,
}

impl Taken<'_> {
    /// The page in a small window, from this element on, so many pixels high.
    fn picture(&mut self, name: &str, from: &str, height: u32) {
        let view = self.view;
        view.emulate_size(PICTURE_WIDTH, height);
        let script = "document.activeElement.blur();
            const e = document.getElementById(arguments[0]);
            scrollTo(0, (e.closest('section') || e.closest('header')).offsetTop - 16)";
        view.browser.run(script, vec![from.into()]);
        let file = view.browser.picture_of_window(&format!("first-{name}"));
        let kept = format!("first-{name}.png");
        if std::env::var_os("UPDATE_SCREENSHOTS").is_some_and(|value| value == "1") {
            fs::create_dir_all(images()).unwrap();
            fs::copy(file, images().join(&kept)).unwrap();
        }
        self.names.insert(kept);
    }
}

/// The pictures that the text shows.
fn named() -> BTreeSet<String> {
    let text = fs::read_to_string(docs().join("first-update.md")).unwrap();
    let parts = text.split("](images/").skip(1);
    parts.filter_map(|part| Some(part.split_once(')')?.0.to_owned())).collect()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn images() -> PathBuf {
    docs().join("images")
}

const PICTURE_WIDTH: u32 = 880;
/// Whoever clones the repository pays for them.
const PICTURE_BYTES_MAX: u64 = 80_000;
