//! From the printed link to a pair on a new release: all of it in the browser.

use super::fleet::{ADMIN_PASSWORD, Fleet, path_of};
use crate::desk::{BOTH, Plan, Receiver, Transmitter, firmware};
use crate::view::View;

#[test]
fn a_person_brings_a_release_to_a_pair_from_the_first_link_on() {
    let fleet = Fleet::start();
    let folder = fleet.folder.path().to_owned();
    let Some(view) = View::open_with_files_of(folder, fleet.url.clone()) else { return };
    view.emulate_scheme("light");
    view.wait_text("main", "Nobody has been let in yet");
    view.browser.open(&fleet.setup);
    view.browser.type_into("name", "ada");
    view.browser.type_into("password", ADMIN_PASSWORD);
    view.browser.click("go");
    view.wait_text("main", "First steps");
    view.browser.picture("console-first-steps");

    // A token for a group, from the page to the lead.
    view.browser.open(&format!("{}/settings", fleet.url));
    view.browser.type_into("groupName", "bench 1");
    view.browser.type_into("groupLabels", "site=desk");
    view.browser.click("enrol");
    let secret = view.wait_text("secret", "");
    view.browser.open(&format!("{}/groups", fleet.url));
    view.wait_text("list", "No group yet");
    let enrol = format!("--server {} --enroll {secret}", fleet.url);
    let mut desk = Plan::default().with(Receiver, &enrol).start();
    // The open page hears of it.
    view.wait_text("list", "bench 1");
    view.wait_text("list", "1.0.0");

    // A bundle that is none is refused in words, and a good one comes in.
    view.browser.open(&format!("{}/releases", fleet.url));
    desk.write("none.lockstep", b"<html>not a bundle</html>");
    view.browser.type_into("bundle", &path_of(&desk.path(""), "none.lockstep"));
    view.wait_text("uploadSaid", "bundle");
    view.browser.picture("console-refused");
    let images = BOTH.map(|role| firmware(role, "1.1.0").size(1 << 20).make());
    let [receiver, transmitter] = &images;
    let bundle = desk.release("1.1.0", &[transmitter, receiver]);
    view.browser.type_into("bundle", &path_of(&desk.path(""), &bundle));
    view.wait_text("main", "What is in it");
    view.browser.picture("console-release");

    // A campaign of one wave; slow enough to be seen.
    desk.board_mut(Receiver).order("impair loss=60");
    view.browser.open(&format!("{}/campaigns/new", fleet.url));
    let fields = "document.getElementById('waves').value = '100';
        document.getElementById('soak_min').value = '0'";
    view.browser.run(fields, Vec::new());
    view.browser.click("begin");
    view.wait_text("list", "bench 1");
    view.wait_text("list", "began");
    view.browser.run("document.querySelector('#list a').click()", Vec::new());
    view.wait_text("rollout", "Rollout to 1.1.0");
    // What a person has typed and opened stays when the page is refreshed.
    view.browser.click("settings");
    view.browser.type_into("labels", ",floor=2");
    desk.board_mut(Receiver).order("impair none");
    view.wait_text("history", "keep");
    let typed = view.property("labels", "value");
    assert_eq!(typed, "site=desk,floor=2");
    assert_eq!(view.property("settings", "open"), true);
    desk.assert_runs(&images);
    view.browser.picture("console-group-kept");
    view.browser.open(&format!("{}/campaigns", fleet.url));
    view.wait_text("list", "done");
    assert_nothing_failed(&view);
    desk.board_mut(Transmitter).order("impair none");
}

/// No script failed, and nothing was against the policy.
fn assert_nothing_failed(view: &View) {
    for entry in view.browser.logged("browser") {
        let message = entry["message"].as_str().unwrap_or_default();
        // The bundle that was refused.
        let is_refusal = message.contains("422");
        assert!(entry["level"] != "SEVERE" || is_refusal, "{message}");
    }
}
