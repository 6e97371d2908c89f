//! Firmware in C++ as members of a desk group: the examples of `bindings/c`, as processes.
//!
//! What is updated is what runs: an image holds the very program, linked with the static library.
//! The board here does a bootloader's work, by the desk's rules of ESP-IDF: it chooses the slot,
//! takes the program out of it, and runs it until its reset. The lead is a desk device.
//!
//! `cargo xtask test --suite bindings` builds the programs, and says where they are.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lockstep_proto::descriptor::{DESCRIPTOR_BYTES, Descriptor, MAGIC};
use lockstep_proto::image::{AppDescription, ChipId, ImageHeader, ImageSpec, Segment, build_image};
use lockstep_proto::text::FixedText;
use lockstep_sim::bootloader::{Bootloader, ResetReason};
use lockstep_sim::flash::{CAPACITY_DEFAULT_BYTES, FileFlash, Timing};

use super::desk::{Desk, Image, Plan, Receiver, Transmitter, firmware};

/// Where a program stands in its image: behind the header, the first segment's header, and the two
/// descriptions. Its length comes first.
const PROGRAM_OFFSET: usize = 0x1A0;
/// With this a program ends that wants a reset.
const RESET_CODE: i32 = 42;

/// The image of a program, which says of itself what the program does.
fn image(programs: &Path, part: Part, version: &str) -> Vec<u8> {
    let program = fs::read(programs.join(format!("{}-{version}", part.program))).unwrap();
    // The library knows the magic, too; a descriptor has the right checksum.
    let mut found = program.windows(DESCRIPTOR_BYTES).filter(|bytes| bytes.starts_with(&MAGIC));
    let descriptor = found.find_map(|bytes| Descriptor::decode(bytes).ok()).unwrap();
    let version = descriptor.version.to_string();
    let app = AppDescription::named(
        FixedText::new("c-example").unwrap(),
        FixedText::new(&version).unwrap(),
    );
    let mut data = u32::try_from(program.len()).unwrap().to_le_bytes().to_vec();
    data.extend_from_slice(&program);
    let spec = ImageSpec {
        header: ImageHeader::for_chip(part.chip, 0x4008_0400),
        app: &app,
        descriptor: Some(&descriptor),
        segments: &[Segment { load_address: 0x3F40_0020, data: &data }],
    };
    let mut bytes = Vec::new();
    build_image(&spec, &mut |piece| bytes.extend_from_slice(piece)).unwrap();
    bytes
}

/// What a board is for, and what it runs then.
#[derive(Clone, Copy)]
struct Part {
    role: &'static str,
    program: &'static str,
    chip: ChipId,
    id: &'static str,
}

const TRANSMITTER: Part = Part {
    role: "transmitter",
    program: "transmitter",
    chip: ChipId::ESP32,
    id: "24:a1:60:00:02:02",
};

/// The receiver's example, beside the desk's receiver, which leads.
const DISPLAY: Part =
    Part { role: "display", program: "receiver", chip: ChipId::ESP32_S3, id: "24:a1:60:00:02:01" };

/// A board that runs what is in its flash, from reset to reset.
struct CBoard {
    id: &'static str,
    console: PathBuf,
    shared: Arc<Shared>,
    runs: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_off: AtomicBool,
    child: Mutex<Option<Child>>,
}

impl CBoard {
    fn switch_on(desk: &Desk, part: Part, first: &[u8]) -> Self {
        let (name, id) = (format!("c-{}", part.role), part.id);
        desk.write(&format!("{name}.bin"), first);
        desk.lockstep(&format!("image merge -o {name}.flash --app {name}.bin --key a.pub"))
            .succeeds();
        let shared = Arc::<Shared>::default();
        let place = Place {
            flash: desk.path(&format!("{name}.flash")),
            air: desk.path("pair.group.air"),
            console: desk.path(&format!("{name}.log")),
            program: desk.path(&name),
            chip: part.chip,
            id,
        };
        let (console, its) = (place.console.clone(), Arc::clone(&shared));
        let runs = Some(thread::spawn(move || place.run(&its)));
        Self { id, console, shared, runs }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.console).unwrap_or_default()
    }

    /// A power cut, after which it starts again.
    fn cut_power(&self) {
        let mut child = self.shared.child.lock().unwrap();
        child.as_mut().expect("the board is on").kill().unwrap();
    }

    #[track_caller]
    fn wait_says(&self, desk: &Desk, part: &str) {
        desk.wait(&format!("{} says `{part}`:\n{}", self.id, self.log()), || {
            self.log().contains(part).then_some(())
        });
    }

    /// How often it has said so.
    fn count(&self, part: &str) -> usize {
        self.log().matches(part).count()
    }
}

impl Drop for CBoard {
    fn drop(&mut self) {
        self.shared.is_off.store(true, Ordering::SeqCst);
        if let Some(child) = self.shared.child.lock().unwrap().as_mut() {
            // It may be between two boots.
            let _ = child.kill();
        }
        if let Some(runs) = self.runs.take() {
            let _ = runs.join();
        }
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.id, self.log());
        }
    }
}

/// What a board is, whatever it runs.
struct Place {
    flash: PathBuf,
    air: PathBuf,
    console: PathBuf,
    program: PathBuf,
    chip: ChipId,
    id: &'static str,
}

impl Place {
    fn run(&self, shared: &Shared) {
        let mut reset = ResetReason::PowerOn;
        while !shared.is_off.load(Ordering::SeqCst) {
            let slot = self.boot(reset);
            let status = self.run_program(slot, reset, shared);
            reset = match status.and_then(|status| status.code()) {
                Some(RESET_CODE) => ResetReason::Software,
                // Somebody has killed it.
                None => ResetReason::PowerOn,
                Some(code) => {
                    self.say(&format!("board: program ended with {code}"));
                    ResetReason::Panic
                }
            };
        }
    }

    /// By the bootloader's rules: which slot runs. Its program lies in a file then.
    fn boot(&self, reset: ResetReason) -> u8 {
        let mut flash = FileFlash::open(&self.flash, CAPACITY_DEFAULT_BYTES, Timing::None).unwrap();
        let bootloader = Bootloader { chip: self.chip, rollback: true };
        let booted = bootloader.boot(&mut flash, reset).unwrap();
        for event in &booted.events {
            self.say(&format!("bootloader: {event}"));
        }
        drop(flash);
        let bytes = fs::read(&self.flash).unwrap();
        let at = booted.partition.offset as usize + PROGRAM_OFFSET;
        let (length, program) = bytes[at..].split_first_chunk().unwrap();
        let length = u32::from_le_bytes(*length) as usize;
        // A file that was run just now may still be busy; its name is free.
        let _ = fs::remove_file(&self.program);
        fs::write(&self.program, &program[..length]).unwrap();
        fs::set_permissions(&self.program, fs::Permissions::from_mode(0o755)).unwrap();
        u8::from(booted.slot.to_string() == "ota_1")
    }

    fn run_program(&self, slot: u8, reset: ResetReason, shared: &Shared) -> Option<ExitStatus> {
        let reset = if reset == ResetReason::Software { "3" } else { "1" };
        let mut command = Command::new(&self.program);
        command.arg("--flash").arg(&self.flash).arg("--air").arg(&self.air);
        command.args(["--id", self.id, "--slot", &slot.to_string(), "--reset", reset]);
        command.stdin(Stdio::null()).stdout(self.console()).stderr(self.console());
        *shared.child.lock().unwrap() = Some(started(&mut command));
        loop {
            let status = shared.child.lock().unwrap().as_mut()?.try_wait().unwrap();
            if status.is_some() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn console(&self) -> File {
        OpenOptions::new().create(true).append(true).open(&self.console).unwrap()
    }

    fn say(&self, line: &str) {
        writeln!(self.console(), "{line}").unwrap();
    }
}

/// Another test's process may hold the file open for writing until it runs its own program: it was
/// started just when this one's was written.
fn started(command: &mut Command) -> Child {
    for _ in 0..STARTS_MAX {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(20));
            }
            other => return other.unwrap(),
        }
    }
    command.spawn().unwrap()
}

/// So often a program that is busy is started.
const STARTS_MAX: u32 = 100;

/// What the suite says where it is; without it these tests have nothing to run.
fn programs() -> Option<PathBuf> {
    let found = std::env::var_os("LOCKSTEP_C_EXAMPLES").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: `cargo xtask test --suite bindings` builds what this test needs");
    }
    found
}

/// A desk device that leads, and two boards with the examples in C++, adopted.
fn group(programs: &Path) -> (Desk, CBoard, CBoard) {
    let mut desk = Plan::default().with(Transmitter, "--air other.air").starts_unlinked();
    // Its part is a board's with firmware in C++.
    desk.board_mut(Transmitter).kill();
    desk.write("c-password", b"correct horse");
    let [display, transmitter] = [DISPLAY, TRANSMITTER].map(|part| {
        let board = CBoard::switch_on(&desk, part, &image(programs, part, "1.0.0"));
        desk.wait(&format!("{} is in reach", part.role), || {
            let group = desk.lead().get("/api/group")?.json;
            group["in_reach"].to_string().contains(board.id).then_some(())
        });
        let id = board.id;
        desk.ask_lead(&format!("group adopt {id} --its-password-file c-password")).succeeds();
        board
    });
    (desk, display, transmitter)
}

fn release(desk: &Desk, programs: &Path, version: &str) -> String {
    desk.write("display.bin", &image(programs, DISPLAY, version));
    let transmitter = Image::of(Transmitter, image(programs, TRANSMITTER, version));
    let receiver = firmware(Receiver, version).make();
    let options = "--key a.key --artifact display=display.bin --lead receiver";
    desk.release_with(version, &[&transmitter, &receiver], options)
}

/// Adopted, staged over the air, at rest, on trial, confirmed; then a release whose transmitter is
/// never healthy, from which everybody goes back. Data goes through the gate before and after.
#[test]
fn devices_in_c_go_with_their_group_to_a_good_release_and_back_from_a_broken_one() {
    let Some(programs) = programs() else { return };
    let (desk, display, transmitter) = group(&programs);
    display.wait_says(&desk, "battery 50.00 %");
    let bundle = release(&desk, &programs, "1.1.0");
    desk.update(&bundle).succeeds().says("Kept: ").says("1.1.0");
    for board in [&display, &transmitter] {
        board.wait_says(&desk, "booted 1.1.0");
        board.wait_says(&desk, "confirmed");
        board.wait_says(&desk, "memory: ");
    }
    let before = desk.seen_of(Receiver);
    let bundle = release(&desk, &programs, "1.2.0");
    desk.update(&bundle).fails().says("was reverted");
    for board in [&display, &transmitter] {
        desk.wait(&format!("{} is back\n{}", board.id, board.log()), || {
            let log = board.log();
            let tried = log.find("booted 1.2.0")?;
            log.get(tried..)?.contains("booted 1.1.0").then_some(())
        });
    }
    desk.wait("so is the lead", || {
        (desk.lead().get("/api/version")?.json["image"] == before.image.as_str()).then_some(())
    });
    for board in [&display, &transmitter] {
        let log = board.log();
        for line in log.lines().filter(|line| line.starts_with("memory: ")) {
            println!("{}: {line}", board.id);
        }
    }
    // Each ended for a reset that it was told of, and never by itself.
    for board in [&display, &transmitter] {
        for sign in ["program ended", "panicked", "runtime error", "AddressSanitizer"] {
            assert!(!board.log().contains(sign), "{}", board.log());
        }
    }
}

/// On trial, before anybody knows whether it is healthy.
#[test]
fn a_device_in_c_that_loses_power_on_trial_goes_back_and_the_group_with_it() {
    let Some(programs) = programs() else { return };
    let (desk, display, transmitter) = group(&programs);
    let bundle = release(&desk, &programs, "1.1.0");
    let update = desk.begin_update(&bundle);
    transmitter.wait_says(&desk, "booted 1.1.0");
    transmitter.cut_power();
    update.end().fails().says("was reverted");
    for board in [&display, &transmitter] {
        desk.wait(&format!("{} is back\n{}", board.id, board.log()), || {
            (board.count("booted 1.0.0") >= 2).then_some(())
        });
    }
}
