//! `lockstep flash` over a serial port. The chip is a ROM without one: esp32-mock-bootloader, made
//! by others, on a pseudo terminal, with its flash in a file. What that file holds afterwards is
//! compared with what `lockstep image merge` makes, and read by the tools of Espressif.
//!
//! `cargo xtask test --suite e2e` installs it and says where it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::desk::{Said, command};

/// A folder with firmware, a group and a chip's flash in it.
struct Bench {
    python: PathBuf,
    folder: TempDir,
}

/// A chip in its ROM's bootloader; dropped, it is unplugged.
struct Rom {
    child: Child,
    port: String,
}

impl Drop for Rom {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// `None`, and a word about it, where there is no such ROM.
    fn new() -> Option<Self> {
        let Some(python) = std::env::var_os("LOCKSTEP_PYTHON").map(PathBuf::from) else {
            eprintln!("skipped: `cargo xtask test --suite e2e` installs what this test needs");
            return None;
        };
        let bench = Self { python, folder: TempDir::new().unwrap() };
        fs::write(bench.path("flash"), vec![0xFF; FLASH_BYTES]).unwrap();
        bench.app("app.bin", "1.0.0", "256K");
        bench.run("device --new-group --group pair.group").succeeds();
        Some(bench)
    }

    fn app(&self, file: &str, version: &str, size: &str) {
        self.run(&format!(
            "image make --role transmitter --chip esp32c3 --board c3-devkit --version {version} \
             --size {size} -o {file}"
        ))
        .succeeds();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn run(&self, line: &str) -> Said {
        Said::of(&command(self.folder.path(), line).output().unwrap())
    }

    /// Plugs a chip in, with what is in its flash.
    fn plug_in(&self, chip: &str) -> Rom {
        let port = self.path("port");
        let _ = fs::remove_file(&port);
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/rom.py");
        let mut python = Command::new(&self.python);
        python.arg(program).arg(chip).arg(self.path("flash")).arg(&port);
        let child = python.stdout(Stdio::null()).spawn().unwrap();
        let mut rom = Rom { child, port: String::new() };
        rom.port = wait("the chip has a port", || fs::read_to_string(&port).ok());
        rom
    }

    fn flash(&self, rom: &Rom, options: &str) -> Said {
        self.run(&format!("flash --no-reset --port {} {options}", rom.port))
    }

    /// The file that `lockstep image merge` makes of the same.
    fn merged(&self, options: &str) -> Vec<u8> {
        self.run(&format!("image merge -o merged {options}")).succeeds();
        self.read("merged")
    }

    #[track_caller]
    fn assert_flash_is(&self, expected: &[u8]) {
        let found = self.read("flash");
        let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
        assert_eq!((found.len(), differs), (expected.len(), None), "the first that differs");
    }
}

#[test]
fn a_new_board_holds_what_image_merge_makes_and_is_made_once() {
    let Some(bench) = Bench::new() else { return };
    let rom = bench.plug_in("esp32c3");
    let options = "--app app.bin --group pair.group";
    bench
        .flash(&rom, options)
        .succeeds()
        .says("ESP32-C3")
        .says("has no rollback")
        .says("It has no password yet");
    let merged = bench.merged(options);
    bench.assert_flash_is(&merged);
    let again = bench.flash(&rom, &format!("{options} --json"));
    let answer: Value = serde_json::from_str(&again.succeeds().text).unwrap();
    let regions = answer["regions"].as_array().unwrap();
    assert!(regions.iter().all(|region| region["written"] == false), "{answer}");
    assert_eq!(answer["bootloader"]["rollback"], false);
    bench.assert_flash_is(&merged);
}

/// The group's key above all: without it the board would have to be adopted again.
#[test]
fn a_board_that_was_made_keeps_its_record_until_it_is_erased() {
    let Some(bench) = Bench::new() else { return };
    let rom = bench.plug_in("esp32c3");
    fs::write(bench.path("password"), "correct horse").unwrap();
    bench.flash(&rom, "--app app.bin --group pair.group --password-file password").succeeds();
    let before = bench.read("flash");
    bench.app("newer.bin", "1.1.0", "300K");
    bench
        .flash(&rom, "--app newer.bin --dry-run")
        .succeeds()
        .says("What stays: its bootloader, without rollback")
        .says("its record")
        .says("Nothing was written.");
    bench.assert_flash_is(&before);
    bench.flash(&rom, "--app newer.bin").succeeds();
    let after = bench.read("flash");
    assert!(after[APP..].starts_with(&bench.read("newer.bin")));
    assert!(after[RECORD..] == before[RECORD..]);
    // Another password takes the place of the first, and nothing else is lost.
    fs::write(bench.path("password"), "battery staple").unwrap();
    bench.flash(&rom, "--app newer.bin --password-file password").succeeds();
    let changed = bench.read("flash");
    assert!(changed[RECORD..] != before[RECORD..]);
    let log = RECORD..RECORD + 0x2000;
    assert!(holds(&changed[log], &group_key(&bench)));
    bench.flash(&rom, "--app newer.bin --erase").succeeds().says("All of its flash is erased");
    bench.assert_flash_is(&bench.merged("--app newer.bin"));
}

/// Unplugged while the firmware is on its way; the same command again makes it whole.
#[test]
fn a_board_that_is_unplugged_in_the_middle_is_made_whole_by_the_same_command() {
    let Some(bench) = Bench::new() else { return };
    bench.app("large.bin", "1.2.0", "1800K");
    let rom = bench.plug_in("esp32c3");
    let options = "--app large.bin --group pair.group";
    let line = format!("flash --no-reset --port {} {options}", rom.port);
    let mut command = command(bench.folder.path(), &line);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait("some of the firmware is in flash", || {
        let flash = bench.read("flash");
        flash[APP + 0x8000..APP + 0x9000].iter().any(|&byte| byte != 0xFF).then_some(())
    });
    drop(rom);
    let cut = Said::of(&child.wait_with_output().unwrap());
    cut.fails().says("stopped answering while its firmware was written at 0x10000");
    cut.says("Give the same command again");
    let merged = bench.merged(options);
    assert!(bench.read("flash") != merged, "it was unplugged too late");
    let rom = bench.plug_in("esp32c3");
    bench.flash(&rom, options).succeeds();
    bench.assert_flash_is(&merged);
}

#[test]
fn what_does_not_fit_the_board_is_refused_before_anything_is_written() {
    let Some(bench) = Bench::new() else { return };
    let blank = bench.read("flash");
    let rom = bench.plug_in("esp32");
    bench
        .flash(&rom, "--app app.bin")
        .fails()
        .says("`app.bin` is for ESP32-C3, the board at ")
        .says("has an ESP32");
    bench.assert_flash_is(&blank);
    let rom = bench.plug_in("esp32c3");
    let large = "# 8 MiB\notadata,data,ota,0xe000,0x2000,\napp0,app,ota_0,0x10000,0x300000,\n\
                 app1,app,ota_1,0x310000,0x300000,\nlockstep,data,undefined,0x610000,0x10000,\n";
    fs::write(bench.path("large.csv"), large).unwrap();
    bench
        .flash(&rom, "--app app.bin --table large.csv")
        .fails()
        .says("ends at 0x620000, the board's flash at 0x400000 (4 MiB)");
    bench.flash(&rom, "--app app.bin --require-rollback").fails().says("has no rollback");
    bench.assert_flash_is(&blank);
}

/// What the record holds goes along to its new place.
#[test]
fn a_board_that_gets_another_partition_table_keeps_its_record() {
    let Some(bench) = Bench::new() else { return };
    let rom = bench.plug_in("esp32c3");
    bench.flash(&rom, "--app app.bin --group pair.group").succeeds();
    let moved = "otadata,data,ota,0xe000,0x2000,\napp0,app,ota_0,0x10000,1M,\n\
                 app1,app,ota_1,0x110000,1M,\nlockstep,data,undefined,0x210000,64K,\n";
    fs::write(bench.path("moved.csv"), moved).unwrap();
    let before = bench.read("flash");
    bench.flash(&rom, "--app app.bin --table moved.csv").succeeds().says("as it was, at its new");
    let after = bench.read("flash");
    assert!(after[0x21_0000..0x22_0000] == before[RECORD..RECORD + 0x1_0000]);
    assert!(holds(&after[0x21_0000..0x21_4000], &group_key(&bench)));
    // And from then on it is found there.
    bench.flash(&rom, "--app app.bin --group pair.group").succeeds().says("0 of 2 regions written");
}

/// A board of which only the port is there: nothing is in its bootloader.
#[test]
fn a_board_that_does_not_answer_is_said_to_need_its_button() {
    let Some(bench) = Bench::new() else { return };
    let rom = bench.plug_in("esp32c3");
    // Who cannot reset a chip by the lines of a port is told what a person can do.
    bench
        .run(&format!("flash --app app.bin --port {}", rom.port))
        .fails()
        .says("No chip answers at")
        .says("Hold its BOOT button");
}

/// Of a firmware that was there before, whose data lies where the record will be.
#[test]
fn a_board_that_had_another_firmware_is_laid_out_anew_and_nothing_is_left_in_its_record() {
    let Some(bench) = Bench::new() else { return };
    let mut old = bench.read("flash");
    old[0xE000..0x1_0000].fill(0x55);
    old[RECORD..RECORD + 0x1_0000].fill(0xA5);
    fs::write(bench.path("flash"), &old).unwrap();
    let rom = bench.plug_in("esp32c3");
    bench.flash(&rom, "--app app.bin").succeeds();
    let mut expected = bench.merged("--app app.bin");
    // What no partition of ours needs stays as it was.
    for (expected, old) in expected[0x3D_0000..0x3E_0000].iter_mut().zip(&old[0x3D_0000..]) {
        *expected = *old;
    }
    bench.assert_flash_is(&expected);
}

/// Half of one is left of a flash that was cut off; one that takes the flash to be of 2 MiB, as
/// ESP-IDF's default is, would refuse our partition table.
#[test]
fn a_bootloader_that_could_not_start_the_board_does_not_stay() {
    let Some(bench) = Bench::new() else { return };
    let merged = bench.merged("--app app.bin");
    let mut small = merged[..TABLE].to_vec();
    let end = small.iter().rposition(|&byte| byte != 0xFF).unwrap() + 1 - 32;
    small[3] = 0x10 | (small[3] & 0x0F);
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&small[..end]);
    small[end..end + 32].copy_from_slice(&hash);
    for bootloader in [&merged[..0x2000], &small] {
        let mut flash = vec![0xFF; FLASH_BYTES];
        flash[..bootloader.len()].copy_from_slice(bootloader);
        fs::write(bench.path("flash"), flash).unwrap();
        let rom = bench.plug_in("esp32c3");
        bench.flash(&rom, "--app app.bin").succeeds().says("bootloader   written and compared");
        bench.assert_flash_is(&merged);
    }
}

/// A chip of the older kind, whose bootloader does not begin at 0, and depends on the crystal:
/// this one's has 26 MHz, `image merge` takes the usual 40.
#[test]
fn an_esp32_gets_its_bootloader_where_its_rom_looks() {
    let Some(bench) = Bench::new() else { return };
    let rom = bench.plug_in("esp32");
    bench.run("image make --role transmitter --chip esp32 --version 1.0.0 -o esp32.bin").succeeds();
    bench.flash(&rom, "--app esp32.bin --baud 115200").succeeds();
    let (flash, merged) = (bench.read("flash"), bench.merged("--app esp32.bin"));
    assert_eq!((flash[0], flash[0x1000]), (0xFF, 0xE9));
    assert!(flash[..TABLE] != merged[..TABLE]);
    assert!(flash[TABLE..] == merged[TABLE..]);
}

fn group_key(bench: &Bench) -> Vec<u8> {
    let text = String::from_utf8(bench.read("pair.group")).unwrap();
    let hex = text.lines().nth(1).unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[track_caller]
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < WAIT_MAX, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

const FLASH_BYTES: usize = 4 << 20;
const TABLE: usize = 0x8000;
const APP: usize = 0x1_0000;
const RECORD: usize = 0x3E_0000;
const WAIT_MAX: Duration = Duration::from_secs(60);
