//! Releases on their way to the server: taken whole, or not at all.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use super::desk::{BOTH, Receiver, Transmitter, firmware};
use super::server::Fleet;

/// Writes images of both roles and makes an unsigned bundle of them.
fn bundle(fleet: &Fleet, version: &str) -> Vec<u8> {
    let mut line = format!("release create --version {version} --unsigned -o {version}.lockstep");
    for role in BOTH {
        let file = format!("{version}-{}.bin", role.name());
        fs::write(fleet.path(&file), firmware(role, version).make().bytes).unwrap();
        line += &format!(" --{} {file}", role.name());
    }
    fleet.operator(&line).succeeds();
    fs::read(fleet.path(&format!("{version}.lockstep"))).unwrap()
}

fn releases(fleet: &Fleet) -> Value {
    let token = fleet.json("token create looker --role viewer")["token"].take();
    let list: Value = fleet.ask(token.as_str().unwrap()).get("/api/releases").unwrap();
    list["releases"].clone()
}

fn files_in(fleet: &Fleet, folder: &str) -> usize {
    fs::read_dir(fleet.path(folder)).unwrap().count()
}

#[test]
fn an_upload_that_is_cut_leaves_nothing_and_the_next_one_is_taken() {
    let fleet = Fleet::new();
    let bytes = bundle(&fleet, "1.1.0");
    let token = fleet.json("token create ci")["token"].take();
    for sent in [0, 1, 600, bytes.len() / 2, bytes.len() - 1] {
        let mut stream = TcpStream::connect(fleet.address()).unwrap();
        let head = format!(
            "POST /api/releases HTTP/1.1\r\nHost: fleet\r\nAuthorization: Bearer {}\r\n\
             Content-Length: {}\r\n\r\n",
            token.as_str().unwrap(),
            bytes.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&bytes[..sent]).unwrap();
        drop(stream);
    }
    assert_eq!(releases(&fleet), json!([]));
    // The store's mark, and nothing else.
    assert_eq!(files_in(&fleet, "data/objects/bundles"), 1);
    assert_eq!(files_in(&fleet, "data/incoming"), 0);
    fleet.operator("publish 1.1.0.lockstep").succeeds().says("Published").says("not signed");
    assert_eq!(releases(&fleet)[0]["version"], "1.1.0");
}

#[test]
fn an_unsigned_bundle_is_refused_where_keys_are_demanded_and_a_signed_one_is_taken() {
    let fleet = Fleet::with("--key a.pub");
    bundle(&fleet, "1.1.0");
    fleet.operator("publish 1.1.0.lockstep").fails().says("not signed");
    assert_eq!(releases(&fleet), json!([]));
    let images = "--receiver 1.1.0-receiver.bin --transmitter 1.1.0-transmitter.bin";
    let line = format!("release create --version 1.1.0 --key a.key -o signed.lockstep {images}");
    fleet.operator(&line).succeeds();
    fleet.operator("publish signed.lockstep").succeeds().says("signed by one key");
}

#[test]
fn what_is_no_good_bundle_is_not_even_sent() {
    let fleet = Fleet::new();
    let mut bytes = bundle(&fleet, "1.1.0");
    bytes.truncate(bytes.len() / 2);
    fs::write(fleet.path("cut.lockstep"), &bytes).unwrap();
    assert_eq!(fleet.operator("publish cut.lockstep").code, Some(1));
    let said = fleet.operator("publish cut.lockstep");
    said.says("is not a good bundle");
    assert_eq!(releases(&fleet), json!([]));
}

/// The original plan's folder: one for each role, copies called latest beside the builds.
#[test]
fn a_folder_of_builds_is_published_once_for_each_set_that_is_whole() {
    let fleet = Fleet::new();
    let build = |role: super::desk::Role, version: &str| {
        let folder = fleet.path("build").join(role.name());
        fs::create_dir_all(&folder).unwrap();
        let bytes = firmware(role, version).make().bytes;
        let name = format!("{}_v{version}_20260203_143022.bin", role.name());
        fs::write(folder.join(name), &bytes).unwrap();
        fs::write(folder.join(format!("{}_latest.bin", role.name())), &bytes).unwrap();
    };
    let publish = "publish --watch build --once --key a.key";
    build(Receiver, "1.1.0");
    build(Transmitter, "1.1.0");
    fleet.operator(publish).succeeds().says("Published desk 1.1.0").says("signed by one key");
    fleet.operator(publish).succeeds().says("1.1.0 is published already");
    build(Receiver, "1.2.0");
    fleet.operator(publish).succeeds().says("1.1.0 is published already");
    build(Transmitter, "1.2.0");
    fleet.operator(publish).succeeds().says("Published desk 1.2.0");
    assert_eq!(releases(&fleet).as_array().unwrap().len(), 2);
}

/// As PlatformIO and CMake call it, with a token from the environment.
#[test]
fn what_the_script_of_integrations_publishes_is_a_release() {
    let fleet = Fleet::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../integrations/lockstep.py");
    let token = fleet.json("token create ci")["token"].take();
    let build = |role: super::desk::Role, version: &str| {
        fs::write(fleet.path("firmware.bin"), firmware(role, version).make().bytes).unwrap();
        let mut python = Command::new("python3");
        python.current_dir(fleet.path("")).env("LOCKSTEP_TOKEN", token.as_str().unwrap());
        python.env("XDG_CONFIG_HOME", fleet.path("nobody"));
        python.args([script, "firmware.bin", "--output", "ota", "--role", role.name()]);
        python.args(["--version", version, "--publish", &fleet.lead_url(), "--key", "a.key"]);
        let output = python.args(["--command", env!("CARGO_BIN_EXE_lockstep")]).output().unwrap();
        super::desk::Said::of(&output)
    };
    build(Receiver, "1.1.0").succeeds().says("no release until all roles are of one version");
    build(Transmitter, "1.1.0").succeeds().says("Published desk 1.1.0").says("signed by one key");
    build(Transmitter, "1.1.0").succeeds().says("1.1.0 is published already");
    assert_eq!(releases(&fleet).as_array().unwrap().len(), 1);
}

/// The pair takes what is signed alone, and the server anything.
#[test]
fn what_groups_would_refuse_is_said_before_it_is_published() {
    let fleet = Fleet::new();
    let _desk = fleet.pair();
    bundle(&fleet, "1.1.0");
    let said = fleet.operator("publish --check 1.1.0.lockstep");
    said.fails().says("Checked 1.1.0.lockstep: desk 1.1.0, not signed").says("1 group looked at");
    said.says("stops  bench: takes signed releases alone").says("(unsigned)");
    assert_eq!(releases(&fleet), json!([]));
    assert_eq!(files_in(&fleet, "data/incoming"), 0);
    // It may be for others: publishing it is no mistake by itself.
    fleet.operator("publish 1.1.0.lockstep").succeeds().says("stops  bench: takes signed");
    let images = "--receiver 1.1.0-receiver.bin --transmitter 1.1.0-transmitter.bin";
    let line = format!("release create --version 1.1.0 --key a.key -o good.lockstep {images}");
    fleet.operator(&line).succeeds();
    let checked = fleet.json("publish --check good.lockstep")["checked"][0].take();
    assert_eq!(checked["foreseen"]["checked"], 1, "{checked}");
    let weights = checked["foreseen"]["findings"].as_array().unwrap().iter();
    assert!(weights.map(|it| &it["weight"]).all(|weight| weight == "warns"), "{checked}");
}

#[test]
fn a_folder_is_followed_and_what_cannot_be_published_does_not_end_that() {
    let fleet = Fleet::new();
    let build = |role: super::desk::Role, version: &str, bytes: &[u8]| {
        let folder = fleet.path("build").join(role.name());
        fs::create_dir_all(&folder).unwrap();
        let name = format!("{}_v{version}_20260203_143022.bin", role.name());
        fs::write(folder.join(name), bytes).unwrap();
    };
    let good = |role, version: &str| firmware(role, version).make().bytes;
    fs::create_dir(fleet.path("build")).unwrap();
    let watched = fleet.begin("watched", "publish --watch build --key a.key");
    let wait = |what: &str| {
        for _ in 0..600 {
            if watched.printed().contains(what) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("waited in vain for `{what}`:\n{}", watched.printed());
    };
    for role in [Receiver, Transmitter] {
        build(role, "1.1.0", &good(role, "1.1.0"));
    }
    wait("Published desk 1.1.0");
    build(Receiver, "1.2.0", b"no image at all");
    build(Transmitter, "1.2.0", &good(Transmitter, "1.2.0"));
    wait("Error: ");
    for role in [Receiver, Transmitter] {
        build(role, "1.3.0", &good(role, "1.3.0"));
    }
    wait("Published desk 1.3.0");
    assert_eq!(releases(&fleet).as_array().unwrap().len(), 2);
}
