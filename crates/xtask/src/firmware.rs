//! Builds the firmware for real chips, and makes images of it that a slot takes.
//!
//! `firmware/` is a workspace of its own: it builds for chips only. What comes out lies in
//! `target/firmware/images/BOARD-PART[-bench][-VERSION].bin`, and its ELF file beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{ChipCompiler, Machine, Tool};
use crate::shell::{self, Failure};
use crate::sizes::Sizes;
use crate::suites;

mod xtensa;

/// What [`run`] needs.
pub(crate) const TOOLS: &[Tool] = &[Tool::ChipCompiler, Tool::Esptool];
/// What [`suite`] needs beside.
pub(crate) const SUITE_TOOLS: &[Tool] =
    &[Tool::ChipCompiler, Tool::Esptool, Tool::Unicorn, Tool::Elftools];

/// A board that there is firmware for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Board {
    name: &'static str,
    /// As esptool calls it.
    chip: &'static str,
    /// As esptool's `image-info` prints it.
    chip_shown: &'static str,
    target: &'static str,
}

/// What reaches other devices: a build has one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// ESP-NOW; and people over Wi-Fi or Ethernet.
    Radio,
    /// A UART, and no radio.
    Bench,
}

impl Link {
    const fn feature(self) -> &'static str {
        match self {
            Self::Radio => "radio",
            Self::Bench => "bench",
        }
    }

    /// What the names of its files have more.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Radio => "",
            Self::Bench => "-bench",
        }
    }
}

impl Board {
    /// Whether only Espressif's rustc builds for it.
    fn needs_espup(self) -> bool {
        self.target.starts_with("xtensa")
    }
}

/// All of them; each has its file in `firmware/src/board/`.
const BOARDS: &[Board] = &[
    Board {
        name: "t-display-s3",
        chip: "esp32s3",
        chip_shown: "(ESP32-S3)",
        target: "xtensa-esp32s3-none-elf",
    },
    Board {
        name: "esp32-poe-iso",
        chip: "esp32",
        chip_shown: "(ESP32)",
        target: "xtensa-esp32-none-elf",
    },
    C3_KIT,
    C6_KIT,
];
const C3_KIT: Board = Board {
    name: "c3-devkit",
    chip: "esp32c3",
    chip_shown: "(ESP32-C3)",
    target: "riscv32imc-unknown-none-elf",
};
const C6_KIT: Board = Board {
    name: "c6-devkit",
    chip: "esp32c6",
    chip_shown: "(ESP32-C6)",
    target: "riscv32imac-unknown-none-elf",
};

/// What the firmware of an ordinary build, 1.0.0, is updated to.
const NEXT_VERSION: &str = "1.1.0";

/// Which part that is tried with; the other one builds, too.
const UPDATED: &str = "transmitter";

/// Of the partition table that `lockstep flash` writes.
const SLOT_BYTES: u64 = 0x1E_0000;

/// Options that take no value.
const SIZES: &str = "--sizes";
const BENCH: &str = "--bench";
const CHECK: &str = "--check";
const FLAGS: &[&str] = &[SIZES, BENCH, CHECK];

const PARTS: &[&str] = &["receiver", "transmitter"];

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    boards: Vec<Board>,
    parts: Vec<&'static str>,
    version: Option<String>,
    link: Link,
    /// Looks only whether everything fits together, also where nothing can be built.
    checks_only: bool,
    /// Says what is in it, by crate.
    shows_sizes: bool,
}

impl Plan {
    /// Reads the options of `cargo xtask firmware`.
    pub(crate) fn parse(options: &[&str]) -> Result<Self, String> {
        let (mut boards, mut parts, mut version) = (Vec::new(), Vec::new(), None);
        let [shows_sizes, is_bench, checks_only] =
            [SIZES, BENCH, CHECK].map(|flag| options.contains(&flag));
        let others: Vec<&str> = options.iter().copied().filter(|it| !FLAGS.contains(it)).collect();
        for option in others.chunks(2) {
            match option {
                ["--board", name] => boards.push(board(name)?),
                ["--part", name] => parts.push(part(name)?),
                ["--version", text] => version = Some((*text).to_owned()),
                [name @ ("--board" | "--part" | "--version")] => {
                    return Err(format!("`{name}` needs a value"));
                }
                [other, ..] => return Err(format!("unexpected argument `{other}`")),
                [] => (),
            }
        }
        if boards.is_empty() {
            boards = BOARDS.to_vec();
        }
        if parts.is_empty() {
            parts = PARTS.to_vec();
        }
        let link = if is_bench { Link::Bench } else { Link::Radio };
        Ok(Self { boards, parts, version, link, checks_only, shows_sizes })
    }
}

fn board(name: &str) -> Result<Board, String> {
    BOARDS.iter().find(|board| board.name == name).copied().ok_or_else(|| {
        let known: Vec<&str> = BOARDS.iter().map(|board| board.name).collect();
        format!("unknown board `{name}`; there are {}", known.join(", "))
    })
}

fn part(name: &str) -> Result<&'static str, String> {
    PARTS
        .iter()
        .find(|part| **part == name)
        .copied()
        .ok_or_else(|| format!("unknown part `{name}`; there are {}", PARTS.join(", ")))
}

/// Builds, and says where the images are.
pub(crate) fn run(machine: &Machine, plan: &Plan) -> Result<(), Failure> {
    machine.provide(TOOLS);
    machine.require(Tool::Esptool)?;
    let Some(compiler) = machine.chip_compiler() else {
        return machine.require(Tool::ChipCompiler);
    };
    for board in &plan.boards {
        if board.needs_espup() && !has_espup() {
            check_only(machine, compiler, *board, plan)?;
            continue;
        }
        shell::run(&mut build(machine, compiler, *board, plan))?;
        if !plan.checks_only {
            make_images(machine, *board, plan)?;
        }
    }
    Ok(())
}

/// What can be done for a board that nothing here builds for. Whoever named it wants an image.
fn check_only(
    machine: &Machine,
    compiler: ChipCompiler,
    board: Board,
    plan: &Plan,
) -> Result<(), Failure> {
    let name = board.name;
    let needs =
        format!("{name} needs Espressif's toolchain: `cargo install espup && espup install`");
    if plan.boards.len() < BOARDS.len() && !plan.checks_only {
        let text = format!("{needs}; `--check` looks whether everything fits together");
        return Err(Failure::Content { path: "firmware".into(), text });
    }
    if compiler == ChipCompiler::Debian {
        xtensa::check(machine, board, plan.link)?;
        println!("{name}: everything fits together. No image: {needs}");
    } else {
        println!("{name}: neither built nor checked: {needs}");
    }
    Ok(())
}

/// Whether Espressif's toolchain is there.
fn has_espup() -> bool {
    shell::read(Command::new("cargo").args(["+esp", "--version"])).is_ok()
}

fn make_images(machine: &Machine, board: Board, plan: &Plan) -> Result<(), Failure> {
    let images = images(machine);
    let version = plan.version.as_ref().map(|version| format!("-{version}")).unwrap_or_default();
    for part in &plan.parts {
        // Versions have dots, which are no endings.
        let name = format!("{}-{part}{}{version}", board.name, plan.link.suffix());
        let elf = images.join(format!("{name}.elf"));
        let built = machine.chip_builds().join(board.target).join("release");
        copy(&built.join(part), &elf)?;
        let image = images.join(format!("{name}.bin"));
        shell::run(&mut make_image(machine, board, &elf, &image))?;
        println!("{}", image.display());
        if plan.shows_sizes {
            show_sizes(&elf, &image)?;
        }
    }
    Ok(())
}

/// What the firmware is made of, and what else is in its image: heads, and the way to where the
/// processor maps code.
fn show_sizes(elf: &Path, image: &Path) -> Result<(), Failure> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| Failure::File { path: path.to_owned(), source })
    };
    let sizes = Sizes::of_elf(&read(elf)?)
        .map_err(|text| Failure::Content { path: elf.to_owned(), text })?;
    print!("{sizes}");
    println!("the image has {} bytes", read(image)?.len());
    Ok(())
}

/// What CI looks at: every board and part with a radio builds, or fits together where this machine
/// has no compiler for it; what is built is an image by the chip's own rules; and that of the bench
/// takes part in rollouts on an emulated chip.
pub(crate) fn suite(machine: &Machine) -> Result<(), Failure> {
    let bench = Plan {
        boards: vec![C3_KIT],
        parts: PARTS.to_vec(),
        version: None,
        link: Link::Bench,
        checks_only: false,
        shows_sizes: true,
    };
    let next = Some(NEXT_VERSION.into());
    let updated = Plan { parts: vec![UPDATED], version: next, shows_sizes: false, ..bench.clone() };
    run(machine, &updated)?;
    run(machine, &bench)?;
    are_images(machine, &bench)?;
    // An emulated chip never waits.
    let mut cargo = suites::e2e_tests(machine, "chip::", 1);
    cargo.env("LOCKSTEP_FIRMWARE", images(machine));
    cargo.env("LOCKSTEP_EMULATOR", machine.root.join("firmware/emulator/board.py"));
    cargo.env("LOCKSTEP_PYTHON", machine.venv().join("bin/python"));
    shell::run(&mut cargo)?;
    let radio = Plan { boards: BOARDS.to_vec(), link: Link::Radio, shows_sizes: false, ..bench };
    run(machine, &radio)?;
    let built = BOARDS.iter().copied().filter(|board| !board.needs_espup()).collect();
    are_images(machine, &Plan { boards: built, ..radio.clone() })?;
    // Behind the same board's other build, with which it shares most.
    let others = Plan { boards: vec![C6_KIT], link: Link::Bench, ..radio };
    run(machine, &others)?;
    are_images(machine, &others)
}

/// By the chip's own tool; and each fits into a slot of the usual partition table.
fn are_images(machine: &Machine, plan: &Plan) -> Result<(), Failure> {
    for board in &plan.boards {
        for part in &plan.parts {
            let name = format!("{}-{part}{}.bin", board.name, plan.link.suffix());
            let image = images(machine).join(name);
            let info = shell::read(esptool(machine).arg("image-info").arg(&image))?;
            let content = |text: String| Failure::Content { path: image.clone(), text };
            for expected in [board.chip_shown, "Checksum: 0x", "(valid)"] {
                if !info.contains(expected) {
                    return Err(content(format!("no `{expected}`")));
                }
            }
            let file = fs::metadata(&image);
            let size_bytes = file.map_err(|error| content(error.to_string()))?.len();
            if size_bytes > SLOT_BYTES {
                let text = format!("{size_bytes} bytes do not fit a slot of {SLOT_BYTES}");
                return Err(content(text));
            }
        }
    }
    Ok(())
}

fn images(machine: &Machine) -> PathBuf {
    machine.target.join("firmware/images")
}

fn build(machine: &Machine, compiler: ChipCompiler, board: Board, plan: &Plan) -> Command {
    let mut cargo = if board.needs_espup() {
        let mut cargo = Command::new("cargo");
        cargo.args(["+esp", "-Zbuild-std=core,alloc"]);
        cargo
    } else {
        compiler.cargo(board.target)
    };
    cargo.current_dir(machine.root.join("firmware"));
    let act = if plan.checks_only { "check" } else { "build" };
    cargo.args([act, "--release", "--locked", "--target", board.target]);
    for part in &plan.parts {
        cargo.args(["--bin", part]);
    }
    cargo.args(["--features", &features(board, plan.link)]);
    cargo.arg("--target-dir").arg(machine.chip_builds());
    if let Some(version) = &plan.version {
        cargo.env("LOCKSTEP_VERSION", version);
    }
    cargo
}

fn features(board: Board, link: Link) -> String {
    format!("{},{}", board.name, link.feature())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let bytes = fs::read(from).map_err(|source| Failure::File { path: from.to_owned(), source })?;
    shell::write(to, &bytes)
}

fn make_image(machine: &Machine, board: Board, elf: &Path, image: &Path) -> Command {
    let mut command = esptool(machine);
    command.args(["--chip", board.chip, "elf2image", "--flash-size", "4MB", "-o"]);
    command.arg(image).arg(elf);
    command
}

fn esptool(machine: &Machine) -> Command {
    Command::new(machine.path_of(Tool::Esptool).unwrap_or_else(|| PathBuf::from("esptool")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_options_every_board_is_built() {
        let plan = Plan::parse(&[]).unwrap();
        assert_eq!((plan.boards.as_slice(), plan.parts.as_slice()), (BOARDS, PARTS));
        assert_eq!(Plan::parse(&["--part", "receiver"]).unwrap().parts, ["receiver"]);
    }

    #[test]
    fn a_build_has_a_radio_unless_it_is_for_the_bench() {
        let plan = Plan::parse(&["--bench", "--board", "t-display-s3"]).unwrap();
        assert_eq!(
            (plan.link, features(plan.boards[0], plan.link).as_str()),
            (Link::Bench, "t-display-s3,bench")
        );
        assert_eq!(Plan::parse(&[]).unwrap().link, Link::Radio);
        assert!(Plan::parse(&["--check"]).unwrap().checks_only);
    }

    #[test]
    fn sizes_are_shown_where_they_are_asked_for() {
        let plan = Plan::parse(&["--board", "c3-devkit", "--sizes"]).unwrap();
        assert!(plan.shows_sizes && plan.boards.len() == 1);
        assert!(!Plan::parse(&[]).unwrap().shows_sizes);
    }

    #[test]
    fn a_board_that_there_is_not_is_refused_with_those_that_there_are() {
        let refused = Plan::parse(&["--board", "uno"]).unwrap_err();
        assert_eq!(
            refused,
            "unknown board `uno`; there are t-display-s3, esp32-poe-iso, c3-devkit, c6-devkit"
        );
        assert!(Plan::parse(&["--part", "sender"]).is_err());
        assert!(Plan::parse(&["--board"]).is_err());
        assert!(Plan::parse(&["--bored", "c3-devkit"]).is_err());
    }
}
