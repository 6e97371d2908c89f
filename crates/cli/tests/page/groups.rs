//! Groups of more than two.

use std::process::{Child, Command, Stdio};

use crate::desk::{Desk, PASSWORD, Receiver, Transmitter, firmware};
use crate::view::View;

#[test]
fn three_roles_are_updated_together_and_each_has_its_row() {
    let desk = Desk::new();
    let _display = Third::switch_on(&desk, "display");
    let Some(view) = View::open(&desk) else { return };
    view.wait_text("displayStatus", "Online");
    desk.lockstep("image make --role display --version 1.1.0 -o display.bin").succeeds();
    let images = [Receiver, Transmitter].map(|role| firmware(role, "1.1.0").make());
    let options = "--key a.key --artifact display=display.bin";
    let bundle = desk.release_with("1.1.0", &[&images[1], &images[0]], options);
    assert_eq!(view.text("updateBothBtn"), "Update all devices");
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    view.wait_text("verdict", "Kept: receiver, transmitter and display run 1.1.0");
    for role in ["display", "receiver", "transmitter"] {
        view.wait_text(&format!("{role}ProgressText"), "kept");
        view.wait_text(&format!("{role}Version"), "1.1.0");
    }
    view.browser.picture("three");
    view.emulate_width(360);
    view.browser.picture("three-360");
    desk.assert_runs(&images);
    view.assert_clean();
}

/// Two that do the same are two rows, and take the same file.
#[test]
fn two_devices_of_one_role_take_one_image() {
    let desk = Desk::new();
    let _second = Third::switch_on(&desk, "transmitter");
    let Some(view) = View::open(&desk) else { return };
    view.wait_text("transmitter-2Status", "Online");
    let (images, bundle) = desk.good_release("1.1.0", "");
    view.choose("bundleFile", &bundle);
    view.press("updateBothBtn");
    view.wait_text("verdict", "Kept: receiver and transmitter run 1.1.0");
    view.wait_text("transmitter-2ProgressText", "kept");
    view.wait_text("transmitter-2Version", "1.1.0");
    desk.assert_runs(&images);
    view.assert_clean();
}

/// A new board is taken in by whoever knows its password, and no other way.
#[test]
fn a_device_in_reach_is_adopted_with_its_own_password() {
    let desk = Desk::new();
    let _new = Third::switch_on_without_key(&desk, "transmitter");
    let Some(view) = View::open(&desk) else { return };
    let id = "02:00:00:00:00:03";
    let button = format!("{id}Adopt");
    view.wait_text(&button, "Adopt…");
    view.browser.picture("stranger");

    view.click(&button);
    view.give_password("not its password");
    view.give_password(PASSWORD);
    view.wait_text("adoptSaid", "the password is not its password");
    view.browser.picture("adopt-refused");

    view.click(&button);
    view.give_password(ITS_PASSWORD);
    view.wait_text("adoptSaid", "belongs to the group now");
    view.wait_text("transmitter-2Status", "Online");
    view.browser.picture("adopted");
    view.emulate_width(360);
    view.browser.picture("adopted-360");

    let (images, bundle) = desk.good_release("1.1.0", "");
    view.choose("bundleFile", &bundle);
    view.click("updateBothBtn");
    view.wait_text("transmitter-2ProgressText", "kept");
    view.wait_text("transmitter-2Version", "1.1.0");
    desk.assert_runs(&images);
    view.assert_clean();
}

const ITS_PASSWORD: &str = "its own four words";

/// A device besides the desk's two; it ends with the test.
#[derive(Debug)]
struct Third(Child);

impl Third {
    fn switch_on(desk: &Desk, role: &str) -> Self {
        Self::start(desk, role, ["--group", "pair.group"], PASSWORD)
    }

    /// In reach, and nothing more.
    fn switch_on_without_key(desk: &Desk, role: &str) -> Self {
        Self::start(desk, role, ["--air", "pair.group.air"], ITS_PASSWORD)
    }

    fn start(desk: &Desk, role: &str, group: [&str; 2], password: &str) -> Self {
        desk.write("third.password", password.as_bytes());
        let child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .current_dir(desk.path(""))
            .args(["device", group[0], group[1], "--role", role, "--key", "a.pub"])
            .args(["--flash", "third.flash", "--id", "02:00:00:00:00:03"])
            .args(["--password-file", "third.password", "--until-input-ends"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Third {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
