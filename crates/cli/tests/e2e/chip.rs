//! The firmware of a real chip, on an emulated ESP32-C3 that joins a desk group by its wire. What
//! boots it follows ESP-IDF's rules, written down apart from ours.
//!
//! `cargo xtask test --suite firmware` builds the firmware, and says where emulator and images are.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use lockstep_sim::firmware::Fault;
use sha2::{Digest as _, Sha256};

use super::desk::{Desk, Image, Plan, Receiver, Said, Transmitter, firmware};

const MAC: &str = "24:a1:60:00:01:01";
/// Where `ota_1` begins.
const OTHER_SLOT: usize = 0x1F_0000;

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

/// A desk device that leads, and a chip with firmware 1.0.0 behind this wire, adopted. What its
/// other slot holds, if something, it need not be sent.
fn lead_and_chip(tools: &Tools, wire: u16, bootloader: &str, other: &[u8]) -> (Desk, Chip) {
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
    let mut flash = desk.read("chip.flash");
    flash[OTHER_SLOT..][..other.len()].copy_from_slice(other);
    desk.write("chip.flash", &flash);
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

/// What the chip is to be updated to.
fn next_image(tools: &Tools, fault: Fault) -> Image {
    let bytes = fs::read(tools.image("transmitter-bench-1.1.0.bin")).unwrap();
    Image::of(Transmitter, with_fault(bytes, fault))
}

fn release(desk: &Desk, transmitter: &Image) -> String {
    desk.release("1.1.0", &[transmitter, &firmware(Receiver, "1.1.0").make()])
}

/// The same image with this fault ordered in its behaviour block, and hashed anew.
fn with_fault(mut bytes: Vec<u8>, fault: Fault) -> Vec<u8> {
    const HASH_BYTES: usize = 32;
    let nothing = Fault::None.encode();
    let block = bytes.windows(nothing.len()).position(|window| window == nothing);
    let block = block.expect("the image was built for the bench");
    let hash_at = bytes.len() - HASH_BYTES;
    for (at, byte) in (block..).zip(fault.encode()) {
        // The checksum is the exclusive or of all bytes, and the last one before the hash.
        bytes[hash_at - 1] ^= bytes[at] ^ byte;
        bytes[at] = byte;
    }
    let hash = Sha256::digest(&bytes[..hash_at]);
    bytes[hash_at..].copy_from_slice(&hash);
    bytes
}

/// Updates a group to a release whose firmware for the chip has this fault: all go back.
fn goes_back(fault: Fault, bootloader: &str) -> Option<(Said, String)> {
    let tools = Tools::find()?;
    let image = next_image(&tools, fault);
    let (desk, chip) = lead_and_chip(&tools, free_port(), bootloader, &image.bytes);
    let before = desk.seen_of(Receiver);
    let bundle = release(&desk, &image);
    let said = desk.update(&bundle);
    said.fails().says("was reverted");
    desk.wait("the chip runs what it ran before", || {
        let log = chip.log();
        let tried = log.find("lockstep transmitter 1.1.0")?;
        log.get(tried..)?.contains("booted 1.0.0").then_some(())
    });
    desk.wait("so does the lead", || {
        (desk.lead().get("/api/version")?.json["image"] == before.image.as_str()).then_some(())
    });
    let newest = desk.history().first().cloned()?;
    assert_eq!(newest["verdict"], "revert", "{newest}");
    Some((said, chip.log()))
}

/// Nothing of ours has run when it dies: this is the bootloader's to mend.
#[test]
fn a_chip_whose_new_firmware_panics_at_once_is_taken_back_by_the_bootloader() {
    let Some((said, log)) = goes_back(Fault::CrashAtBoot, "") else { return };
    said.says("24:a1:60:00:01:01 fell back");
    assert!(log.contains("was on trial and was reset: ABORTED"), "{log}");
    assert!(!log.contains("booted 1.1.0"), "{log}");
}

#[test]
fn a_chip_whose_new_firmware_panics_on_trial_is_taken_back_by_the_bootloader() {
    let Some((_, log)) = goes_back(Fault::CrashAfterMs(2_500), "") else { return };
    assert!(log.contains("booted 1.1.0"), "{log}");
    assert!(log.contains("after 2500 ms, as its image orders"), "{log}");
    assert!(log.contains("was on trial and was reset: ABORTED"), "{log}");
}

#[test]
fn a_chip_whose_new_firmware_stands_still_is_reset_by_the_watchdog() {
    let Some((_, log)) = goes_back(Fault::Hang, "") else { return };
    assert!(log.contains("reset, reason 16"), "{log}");
    assert!(log.contains("was on trial and was reset: ABORTED"), "{log}");
}

/// It runs and runs, and nobody can reach it any more: its trial ends by itself.
#[test]
fn a_chip_whose_new_firmware_hears_nothing_goes_back_by_itself() {
    let Some((_, log)) = goes_back(Fault::DeafRadio, "") else { return };
    assert!(log.contains("restarts"), "{log}");
}

/// The firmware has counted the boot before it died, and counts the next one.
#[test]
fn a_chip_without_rollback_goes_back_by_itself_when_its_new_firmware_panics() {
    let panics = Fault::CrashAfterMs(2_500);
    let Some((_, log)) = goes_back(panics, "--no-rollback") else { return };
    assert!(log.contains("after 2500 ms, as its image orders"), "{log}");
}

#[test]
fn a_chip_without_rollback_goes_back_by_itself_when_its_new_firmware_stands_still() {
    let Some((_, log)) = goes_back(Fault::Hang, "--no-rollback") else { return };
    assert!(log.contains("reset, reason 16"), "{log}");
}

/// All the way: stage over the wire, under compression, activate, the bootloader's trial, confirm.
#[test]
fn a_chip_and_a_desk_device_go_to_a_release_together() {
    let Some(tools) = Tools::find() else { return };
    let (desk, chip) = lead_and_chip(&tools, free_port(), "", &[]);
    let bundle = release(&desk, &next_image(&tools, Fault::None));
    desk.update(&bundle).succeeds().says("Kept: receiver and transmitter run 1.1.0");
    desk.wait("the chip has confirmed", || chip.log().contains("confirmed").then_some(()));
    let log = chip.log();
    for said in [
        "is complete, the image is made from it",
        "ota_1 is on trial: PENDING_VERIFY",
        "booted 1.1.0",
        "on trial, any reset goes back",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

/// What has changed is all that comes over the wire; the chip makes its image from it in its slot.
#[test]
fn a_chip_makes_its_image_from_a_patch() {
    let Some(tools) = Tools::find() else { return };
    let (desk, chip) = lead_and_chip(&tools, free_port(), "", &[]);
    let first = Image::of(Transmitter, fs::read(tools.image("transmitter-bench.bin")).unwrap());
    desk.release("1.0.0", &[&first, &firmware(Receiver, "1.0.0").make()]);
    let images = [&next_image(&tools, Fault::None), &firmware(Receiver, "1.1.0").make()];
    let bundle = desk.release_with("1.1.0", &images, "--key a.key --from 1.0.0.lockstep");
    desk.update(&bundle).succeeds().says("Kept: receiver and transmitter run 1.1.0");
    desk.wait("the chip has confirmed", || chip.log().contains("confirmed").then_some(()));
    let log = chip.log();
    let made = log.lines().find(|line| line.contains("is complete, the image is made from it"));
    let patch_bytes = made.and_then(|line| {
        let (front, _) = line.split_once(" bytes is complete")?;
        front.rsplit(' ').next()?.parse::<usize>().ok()
    });
    assert!(patch_bytes.is_some_and(|bytes| bytes < first.bytes.len() / 20), "{log}");
    assert!(!log.contains("takes the whole image"), "{log}");
}

/// Back again, over the same bootloader. Before its first trial the firmware cannot know what that
/// does; afterwards it does, for good.
#[test]
fn a_chip_goes_back_when_the_group_does_and_has_seen_what_its_bootloader_does() {
    let Some(tools) = Tools::find() else { return };
    let wire = free_port();
    let image = next_image(&tools, Fault::None);
    let (desk, chip) = lead_and_chip(&tools, wire, "", &image.bytes);
    let update = desk.begin_update(&release(&desk, &image));
    desk.wait("the chip says what would take it back", || taken_back_by(&desk, "agent"));
    update.end().succeeds();
    drop(chip);
    let chip = Chip::power_on(&tools, &desk, wire, "");
    desk.wait("the chip is back, and hears the lead", || {
        let log = chip.log();
        // On trial it was the first time.
        let (at, _) = log.match_indices("lockstep transmitter 1.1.0").nth(1)?;
        log.get(at..)?.contains("RECEIVER").then_some(())
    });
    desk.ask_lead("revert --detach").succeeds();
    desk.wait("the chip says what takes it back", || taken_back_by(&desk, "bootloader"));
    desk.wait("the chip runs what it ran before", || {
        let log = chip.log();
        let last = log.rfind("booted 1.0.0")?;
        log.get(last..)?.contains("confirmed").then_some(())
    });
}

/// Whether the chip has said so in the preflight of the present rollout; the lead forgets it when
/// it reboots.
fn taken_back_by(desk: &Desk, who: &str) -> Option<()> {
    let rollout = desk.rollout()?;
    let chip = rollout["members"].as_array()?.iter().find(|it| it["role"] == "transmitter")?;
    (chip["rollback"] == who).then_some(())
}

/// Before anybody knows whether it is healthy: the bootloader takes it back, and the group follows.
#[test]
fn a_chip_that_loses_power_on_trial_goes_back_and_the_group_with_it() {
    let Some(tools) = Tools::find() else { return };
    let wire = free_port();
    let image = next_image(&tools, Fault::None);
    let (desk, chip) = lead_and_chip(&tools, wire, "", &image.bytes);
    let before = desk.seen_of(Receiver);
    let bundle = release(&desk, &image);
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
    let image = next_image(&tools, Fault::None);
    let (desk, chip) = lead_and_chip(&tools, free_port(), "--no-rollback", &image.bytes);
    let bundle = release(&desk, &image);
    desk.update(&bundle).succeeds();
    desk.wait("the chip has confirmed", || chip.log().contains("confirmed").then_some(()));
    assert!(!chip.log().contains("PENDING_VERIFY"), "{}", chip.log());
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
