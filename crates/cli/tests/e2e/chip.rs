//! The firmware of a real chip, on an emulated ESP32-C3 that joins a desk group by its wire. What
//! boots it follows ESP-IDF's rules, written down apart from ours.
//!
//! `cargo xtask test --suite firmware` builds the firmware, and says where emulator and images are.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::desk::{Desk, Image, Plan, Receiver, Transmitter, firmware};

const MAC: &str = "24:a1:60:00:01:01";

/// A chip, its flash made by `lockstep image merge`, and its console in a file.
struct Chip {
    child: Child,
    console: PathBuf,
}

impl Chip {
    fn power_on(tools: &Tools, desk: &Desk, wire: u16, bootloader: &str) -> Self {
        let console = desk.path("chip.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&console).unwrap();
        let mut python = Command::new(&tools.python);
        python.arg("-u").arg(&tools.emulator).arg(desk.path("chip.flash"));
        python.arg("--elf").arg(tools.image("transmitter-bench.elf"));
        python.args(["--wire", &wire.to_string(), "--console", &free_port().to_string()]);
        python.args(["--mac", MAC]).args(bootloader.split_whitespace());
        let child = python.stdout(log).stderr(Stdio::inherit()).spawn().unwrap();
        Self { child, console }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.console).unwrap_or_default()
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the suite says where it is; without it these tests have nothing to run.
struct Tools {
    python: PathBuf,
    emulator: PathBuf,
    images: PathBuf,
}

impl Tools {
    fn find() -> Option<Self> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let found = (|| {
            let (python, emulator) = (path("LOCKSTEP_PYTHON")?, path("LOCKSTEP_EMULATOR")?);
            Some(Self { python, emulator, images: path("LOCKSTEP_FIRMWARE")? })
        })();
        if found.is_none() {
            eprintln!("skipped: `cargo xtask test --suite firmware` builds what this test needs");
        }
        found
    }

    fn image(&self, name: &str) -> PathBuf {
        self.images.join(format!("c3-devkit-{name}"))
    }
}

/// A desk device that leads, and a chip with firmware 1.0.0 behind this wire, adopted.
fn lead_and_chip(tools: &Tools, wire: u16, bootloader: &str) -> (Desk, Chip) {
    let mut desk = Plan::default()
        .with(Receiver, &format!("--link tcp:127.0.0.1:{wire}"))
        .with(Transmitter, "--air other.air")
        .starts_unlinked();
    // The chip has its part.
    desk.board_mut(Transmitter).kill();
    desk.write("chip-password", b"correct horse");
    let app = tools.image("transmitter-bench.bin");
    let merge = "image merge --password-file chip-password -o chip.flash --app";
    desk.lockstep(&format!("{merge} {}", app.display())).succeeds();
    let chip = Chip::power_on(tools, &desk, wire, bootloader);
    desk.wait("the chip is in reach", || {
        let group = desk.lead().get("/api/group")?.json;
        (group["in_reach"][0]["id"] == MAC.to_uppercase().as_str()
            || group["in_reach"][0]["id"] == MAC)
            .then_some(())
    });
    desk.ask_lead(&format!("group adopt {MAC} --its-password-file chip-password")).succeeds();
    (desk, chip)
}

fn release(tools: &Tools, desk: &Desk) -> String {
    let bytes = fs::read(tools.image("transmitter-bench-1.1.0.bin")).unwrap();
    let transmitter = Image::of(Transmitter, bytes);
    desk.release("1.1.0", &[&transmitter, &firmware(Receiver, "1.1.0").make()])
}

/// All the way: stage over the wire, activate, the bootloader's trial, confirm.
#[test]
fn a_chip_and_a_desk_device_go_to_a_release_together() {
    let Some(tools) = Tools::find() else { return };
    let (desk, chip) = lead_and_chip(&tools, free_port(), "");
    let bundle = release(&tools, &desk);
    desk.update(&bundle).succeeds().says("Kept: receiver and transmitter run 1.1.0");
    desk.wait("the chip has confirmed", || chip.log().contains("confirmed").then_some(()));
    let log = chip.log();
    for said in
        ["ota_1 is on trial: PENDING_VERIFY", "booted 1.1.0", "on trial, any reset goes back"]
    {
        assert!(log.contains(said), "{said}: {log}");
    }
}

/// Back again, over the same bootloader.
#[test]
fn a_chip_goes_back_when_the_group_does() {
    let Some(tools) = Tools::find() else { return };
    let (desk, chip) = lead_and_chip(&tools, free_port(), "");
    let bundle = release(&tools, &desk);
    desk.update(&bundle).succeeds();
    desk.ask_lead("revert").succeeds();
    desk.wait("the chip runs what it ran before", || {
        let log = chip.log();
        let last = log.rfind("booted 1.0.0")?;
        log.get(last..)?.contains("confirmed").then_some(())
    });
}

/// Before anybody knows whether it is healthy: the bootloader takes it back, and the group follows.
#[test]
fn a_chip_that_loses_power_on_trial_goes_back_and_the_group_with_it() {
    let Some(tools) = Tools::find() else { return };
    let wire = free_port();
    let (desk, chip) = lead_and_chip(&tools, wire, "");
    let before = desk.seen_of(Receiver);
    let bundle = release(&tools, &desk);
    let update = desk.begin_update(&bundle);
    desk.wait("the chip is on trial", || chip.log().contains("booted 1.1.0").then_some(()));
    drop(chip);
    let chip = Chip::power_on(&tools, &desk, wire, "");
    update.end().fails().says("was reverted");
    desk.wait("the chip runs what it ran before", || {
        let log = chip.log();
        let aborted = log.find("was on trial and was reset: ABORTED")?;
        log.get(aborted..)?.contains("booted 1.0.0").then_some(())
    });
    desk.wait("so does the lead", || {
        (desk.lead().get("/api/version")?.json["image"] == before.image.as_str()).then_some(())
    });
}

/// A bootloader without rollback leaves it to the firmware, which says so.
#[test]
fn a_chip_whose_bootloader_has_no_rollback_watches_its_trial_itself() {
    let Some(tools) = Tools::find() else { return };
    let (desk, chip) = lead_and_chip(&tools, free_port(), "--no-rollback");
    let bundle = release(&tools, &desk);
    desk.update(&bundle).succeeds();
    desk.wait("the chip has confirmed", || chip.log().contains("confirmed").then_some(()));
    assert!(!chip.log().contains("PENDING_VERIFY"), "{}", chip.log());
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
