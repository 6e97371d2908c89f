//! What a server stands on goes away and comes back: its database, its bundles, room on its disk,
//! the time of day. Leads carry on, whoever asks is told why not, and nothing is lost.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::cable::Cable;
use super::server::{Fleet, PASSWORD, database};

/// A database by way of a cable.
fn postgres() -> Option<(Cable, String)> {
    let database = database("faults")?;
    let (before, after) = database.split_once('@').expect("somebody at a server");
    let (address, name) = after.split_once('/').expect("a database");
    let cable = Cable::to(address);
    let url = format!("{before}@{}/{name}", cable.address());
    Some((cable, url))
}

#[test]
fn a_database_that_is_away_delays_a_campaign_and_nothing_else() {
    let Some((cable, url)) = postgres() else { return };
    let fleet = Fleet::with(&format!("--database {url}"));
    let desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    cable.cut();
    fleet.operator("group list").fails().says("database of this server cannot be used");
    fleet.operator("campaign create 1.1.0").fails().says("Nothing was changed");
    let page = fleet.page("/", "");
    assert!(
        page.starts_with("HTTP/1.1 503") && page.contains("groups go on by themselves"),
        "{page}"
    );
    assert!(fleet.page("/healthz", "").starts_with("HTTP/1.1 200"));
    assert!(fleet.page("/readyz", "").starts_with("HTTP/1.1 503"));
    // The pair runs, and answers whoever asks it.
    desk.ask_lead("status").succeeds();
    cable.mend();
    fleet.wait(&desk, "the database is back", || {
        fleet.page("/readyz", "").starts_with("HTTP/1.1 200").then_some(())
    });
    let campaign = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &campaign, "began");
    // Once more, with a rollout under way: the lead conducts it to its end.
    cable.cut();
    desk.assert_runs(&images);
    cable.mend();
    fleet.wait_standing(&desk, &campaign, "kept");
    fleet.wait(&desk, "the log has both", || {
        let errors = fleet.errors();
        (errors.contains("campaigns wait") && errors.contains("is back")).then_some(())
    });
}

#[test]
fn bundles_that_are_away_are_fetched_when_they_are_back() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    fs::rename(fleet.path("data/objects"), fleet.path("data/elsewhere")).unwrap();
    assert!(fleet.page("/readyz", "").starts_with("HTTP/1.1 503"));
    let campaign = fleet.campaign("1.1.0");
    fleet.wait(&desk, "the lead has asked for the bundle in vain", || {
        fleet.errors().contains("bundles").then_some(())
    });
    assert_ne!(fleet.standing(&campaign).0, "failed");
    fs::rename(fleet.path("data/elsewhere"), fleet.path("data/objects")).unwrap();
    fleet.wait_standing(&desk, &campaign, "kept");
    desk.assert_runs(&images);
}

/// A folder on a disk that is too small; `None` where nobody may make one.
struct SmallDisk {
    folder: std::path::PathBuf,
}

impl SmallDisk {
    fn mount(folder: &std::path::Path, size: &str) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder);
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: this user may not mount a small disk");
            return None;
        }
        Some(Self { folder: folder.to_owned() })
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut block = vec![1_u8; 1 << 20];
        let mut file = fs::File::create(self.folder.join("filler")).unwrap();
        while !block.is_empty() {
            while std::io::Write::write_all(&mut file, &block).is_ok() {}
            block.truncate(block.len() / 2);
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.folder.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server has ended; whatever still looks at it keeps it a moment longer.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

#[test]
fn a_full_disk_refuses_what_it_has_no_room_for_and_everything_goes_on_when_there_is_some() {
    let folder = tempfile::TempDir::new().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("data"), "24m") else { return };
    let fleet = Fleet::in_folder(folder, "");
    let desk = fleet.pair();
    disk.fill();
    let (images, bundle) = desk.good_release("1.1.0", "");
    let publish = format!("publish {}", desk.path(&bundle).display());
    fleet.operator(&publish).fails().says("could not be written to the server's disk");
    assert_eq!(fs::read_dir(fleet.path("data/incoming")).unwrap().count(), 0);
    // What stands on it can be read.
    fleet.operator("group list").succeeds().says("bench");
    desk.ask_lead("status").succeeds();
    disk.make_room();
    fleet.operator(&publish).succeeds().says("Published");
    let campaign = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &campaign, "kept");
    desk.assert_runs(&images);
    drop(fleet);
}

/// The library that tells a program another time of day, where Debian has it.
fn faketime() -> Option<String> {
    let machines = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut found = machines.map(|machine| machine.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: libfaketime is not here (Debian: faketime)");
    }
    found.map(|path| path.display().to_string())
}

#[test]
fn a_clock_that_jumps_neither_loses_a_campaign_nor_gives_an_order_twice() {
    let Some(faketime) = faketime() else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let clock = folder.path().join("clock");
    let set = |offset: &str| fs::write(&clock, offset).unwrap();
    set("+0");
    let variables = [
        ("LD_PRELOAD", faketime.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let fleet = Fleet::with_variables(folder, "", &variables);
    let desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    set("-3d");
    let campaign = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &campaign, "began");
    set("+2d");
    fleet.wait_standing(&desk, &campaign, "kept");
    desk.assert_runs(&images);
    let done = || (fleet.standing(&campaign).1 == "done").then_some(());
    fleet.wait(&desk, "the campaign is done", done);
    let group = |at: &str| -> Value { fleet.json("group show bench")["group"][at].take() };
    // One order, after the clock went back again: carried out once, whenever that was.
    set("-1d");
    fleet.operator("group revert bench").succeeds();
    fleet.wait(&desk, "the group went back", || (group("version") == "1.0.0").then_some(()));
    set("+0");
    let before = group("seen_at");
    fleet.wait(&desk, "its lead comes again", || (group("seen_at") != before).then_some(()));
    assert_eq!(group("version"), "1.0.0");
    // A token lasts for a month, by the clock of the server.
    set("+40d");
    fleet.operator("group list").fails().says("token is not known, or has expired");
    set("+0");
    fleet.operator("group list").succeeds();
    assert!(!fleet.errors().contains(PASSWORD) && !fleet.errors().contains("panicked"));
}
