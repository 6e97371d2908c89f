//! What the server makes of releases that it has: patches for what the devices of a group run, in
//! the bundle that the group is offered.

use std::fs;

use super::desk::{BOTH, Desk, Image, Plan, Receiver, firmware};
use super::server::Fleet;

const MADE: &str = "is complete, the image is made from it";

/// Images that share most bytes with their other versions.
fn images(version: &str) -> [Image; 2] {
    BOTH.map(|role| firmware(role, version).size(256 * 1024).stock(7).make())
}

fn release(fleet: &Fleet, desk: &Desk, version: &str, options: &str) {
    let [receiver, transmitter] = images(version);
    let options = format!("--key a.key {options}");
    let bundle = desk.release_with(version, &[&transmitter, &receiver], &options);
    fleet.publish_bundle(desk, &bundle);
}

/// A pair on 1.0.0, and a server that has both releases.
fn scene(fleet: &Fleet) -> Desk {
    let [receiver, transmitter] = images("1.0.0");
    let desk = fleet.pair_of(Plan::default().first(receiver, transmitter));
    release(fleet, &desk, "1.0.0", "");
    release(fleet, &desk, "1.1.0", "");
    desk
}

/// The patches in the server's store of objects.
fn patches(fleet: &Fleet) -> Vec<std::path::PathBuf> {
    let folder = fleet.path("data/objects/patches");
    let files = |entry: fs::DirEntry| fs::read_dir(entry.path()).unwrap();
    let bases = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    bases.flat_map(files).map(|file| file.unwrap().path()).collect()
}

#[test]
fn a_group_is_offered_what_has_changed_since_what_it_runs() {
    let fleet = Fleet::new();
    let desk = scene(&fleet);
    let id = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &id, "kept");
    desk.assert_runs(&images("1.1.0"));
    let consoles = desk.consoles();
    assert_eq!(consoles.matches(MADE).count(), 2, "{consoles}");
    assert_eq!(consoles.matches("bytes of the bundle are of no use here").count(), 2, "{consoles}");
    assert!(!consoles.contains("in a while"), "{consoles}");
    assert_eq!(desk.history()[0]["patched"], 2, "{:?}", desk.history());
    assert_eq!(patches(&fleet).len(), 2);
    assert_eq!(fleet.errors().matches("a patch was made").count(), 2, "{}", fleet.errors());
}

/// The group goes to this release, and back again.
fn there_and_back(fleet: &Fleet, desk: &Desk, version: &str) {
    let id = fleet.campaign(version);
    fleet.wait_standing(desk, &id, "kept");
    desk.ask_lead("revert").succeeds();
    fleet.wait(desk, "it is back", || (fleet.group()["version"] == "1.0.0").then_some(()));
}

/// What was made once is there for whoever comes next, and after a restart.
#[test]
fn a_patch_is_made_once_and_again_only_if_it_is_damaged() {
    let mut fleet = Fleet::new();
    let desk = scene(&fleet);
    release(&fleet, &desk, "1.2.0", "");
    there_and_back(&fleet, &desk, "1.1.0");
    let of_first = patches(&fleet);
    // Or they would have the images in their slots.
    there_and_back(&fleet, &desk, "1.2.0");
    fleet.kill();
    let mut bytes = fs::read(&of_first[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&of_first[0], bytes).unwrap();
    fleet.switch_on();
    let id = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &id, "kept");
    desk.assert_runs(&images("1.1.0"));
    let consoles = desk.consoles();
    assert_eq!(consoles.matches(MADE).count(), 6, "{consoles}");
    assert_eq!(fleet.errors().matches("a patch was made").count(), 5, "{}", fleet.errors());
}

/// The bundle was chosen with them in it; it is chosen again, also while a lead that has just
/// started has not heard its member.
#[test]
fn patches_that_are_gone_before_the_lead_fetches_them_are_made_again() {
    let mut fleet = Fleet::new();
    let mut desk = scene(&fleet);
    desk.board_mut(Receiver).kill();
    let id = fleet.campaign("1.1.0");
    fleet.wait(&desk, "both are made", || (patches(&fleet).len() == 2).then_some(()));
    fleet.wait(&desk, "they are in the group's offer", || {
        let made = fleet.errors().matches("a patch was made").count();
        (made == 2).then_some(())
    });
    fleet.kill();
    fs::remove_dir_all(fleet.path("data/objects/patches")).unwrap();
    fleet.switch_on();
    desk.board_mut(Receiver).switch_on();
    fleet.wait_standing(&desk, &id, "kept");
    desk.assert_runs(&images("1.1.0"));
    assert_eq!(desk.consoles().matches(MADE).count(), 2, "{}", desk.consoles());
    assert_eq!(patches(&fleet).len(), 2, "{}\n{}", fleet.errors(), desk.consoles());
}

/// A bundle that brings its own needs none of the server.
#[test]
fn what_a_bundle_has_is_not_made_again() {
    let fleet = Fleet::new();
    let [receiver, transmitter] = images("1.0.0");
    let desk = fleet.pair_of(Plan::default().first(receiver, transmitter));
    release(&fleet, &desk, "1.0.0", "");
    release(&fleet, &desk, "1.1.0", "--from 1.0.0.lockstep");
    let id = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &id, "kept");
    assert_eq!(desk.consoles().matches(MADE).count(), 2, "{}", desk.consoles());
    assert!(patches(&fleet).is_empty(), "{:?}", patches(&fleet));
}

/// Said by the server before anybody is offered it, and by the command on the desk.
#[test]
fn a_bundle_with_a_patch_that_makes_another_image_is_refused() {
    let fleet = Fleet::new();
    let [receiver, transmitter] = images("1.0.0");
    let desk = fleet.pair_of(Plan::default().first(receiver, transmitter));
    release(&fleet, &desk, "1.0.0", "");
    let [receiver, transmitter] = images("1.1.0");
    let name =
        desk.release_with("1.1.0", &[&transmitter, &receiver], "--key a.key --from 1.0.0.lockstep");
    let mut bundle = desk.read(&name);
    let is_patch = |window: &[u8]| window == b"LSD1\x01\0\0\0" || window == b"LSD1\x02\0\0\0";
    let at = bundle.windows(8).position(is_patch).expect("a patch is in it");
    bundle[at + 400] ^= 1;
    desk.write("bad.lockstep", &bundle);
    let bad = desk.path("bad.lockstep");
    fleet
        .operator(&format!("publish {}", bad.display()))
        .fails()
        .says(".patch` has the body")
        .says("release create --from");
}
