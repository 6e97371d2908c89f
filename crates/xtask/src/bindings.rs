//! Lockstep for C and C++: the static libraries, the examples on a host, and the packages.
//!
//! Everything goes to `target/bindings`: `lib/CHIP/liblockstep_c.a` for each chip, the examples in
//! `host/`, what the linker made of a small program in `link/`, and two packages that people put
//! into their projects, `esp-idf/lockstep` and `arduino/Lockstep`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::read::archive::ArchiveFile;
use object::{File, Object as _, ObjectSection as _, ObjectSymbol, SectionKind};

use crate::cores;
use crate::machine::{ChipCompiler, Machine, Tool};
use crate::shell::{self, Failure};
use crate::suites;

mod package;
mod xtensa;

/// What [`run`] needs for the chips that CI builds for.
pub(crate) const TOOLS: &[Tool] = &[Tool::ChipCompiler];
/// What [`suite`] needs beside.
pub(crate) const SUITE_TOOLS: &[Tool] =
    &[Tool::ChipCompiler, Tool::CppCompiler, Tool::RiscvGcc, Tool::Llvm];

/// A chip that there is a library for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chip {
    /// As ESP-IDF calls it (`IDF_TARGET`).
    name: &'static str,
    target: &'static str,
    /// As GCC calls its instructions.
    arch: &'static str,
}

const RISCV: &[Chip; 2] = &[
    Chip { name: "esp32c3", target: "riscv32imc-unknown-none-elf", arch: "rv32imc" },
    Chip { name: "esp32c6", target: "riscv32imac-unknown-none-elf", arch: "rv32imac" },
];

/// What a program and a library agree on.
const HEADER: &str = "lockstep.h";

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    chips: Vec<Chip>,
    /// The library for ESP32 and ESP32-S3, by Debian's LLVM: experimental.
    xtensa: bool,
}

impl Plan {
    /// Reads the options of `cargo xtask bindings`.
    pub(crate) fn parse(options: &[&str]) -> Result<Self, String> {
        let mut plan = Self { chips: Vec::new(), xtensa: false };
        for option in options.chunks(2) {
            match option {
                ["--chip", "esp32" | "esp32s3"] => plan.xtensa = true,
                ["--chip", name] => plan.chips.push(chip(name)?),
                ["--chip"] => return Err("`--chip` needs a value".into()),
                [other, ..] => return Err(format!("unexpected argument `{other}`")),
                [] => (),
            }
        }
        if options.is_empty() {
            plan.chips = RISCV.to_vec();
        }
        Ok(plan)
    }
}

fn chip(name: &str) -> Result<Chip, String> {
    RISCV.iter().find(|chip| chip.name == name).copied().ok_or_else(|| {
        format!("unknown chip `{name}`; there are esp32, esp32s3, esp32c3 and esp32c6")
    })
}

/// Builds the libraries for chips, and puts the packages together.
pub(crate) fn run(machine: &Machine, plan: &Plan) -> Result<(), Failure> {
    machine.provide(TOOLS);
    for chip in &plan.chips {
        chip_library(machine, *chip)?;
    }
    if plan.xtensa {
        xtensa::build(machine)?;
    }
    package::make(machine)
}

/// What CI looks at: the headers as C11 and C++17, the libraries for the RISC-V chips with nothing
/// left open, that for the Xtensa chips compiled, the packages, and the examples on a host, which
/// take part in rollouts.
pub(crate) fn suite(machine: &Machine) -> Result<(), Failure> {
    run(machine, &Plan { chips: RISCV.to_vec(), xtensa: true })?;
    for chip in RISCV {
        link(machine, *chip)?;
    }
    package::check(machine)?;
    let programs = examples(machine)?;
    let mut cargo = suites::e2e_tests(machine, "c::", suites::WAITING_PER_CORE);
    shell::run(cargo.env("LOCKSTEP_C_EXAMPLES", &programs))
}

/// `target/bindings`.
fn folder(machine: &Machine) -> PathBuf {
    machine.target.join("bindings")
}

fn library(machine: &Machine, chip: &str) -> PathBuf {
    folder(machine).join("lib").join(chip).join("liblockstep_c.a")
}

/// Puts a library where packages are made from, with the header that it was built with.
fn install(machine: &Machine, built: &Path, chip: &str) -> Result<PathBuf, Failure> {
    let library = library(machine, chip);
    copy(built, &library)?;
    copy(&c(machine).join("include").join(HEADER), &library.with_file_name(HEADER))?;
    Ok(library)
}

/// Whether a library that was built before has the structures of today's header: with others it
/// would read its caller's wrong.
fn is_of_these_headers(machine: &Machine, chip: &str) -> bool {
    let built_with = fs::read(library(machine, chip).with_file_name(HEADER)).ok();
    built_with.is_some() && built_with == fs::read(c(machine).join("include").join(HEADER)).ok()
}

/// The library for one chip, as small as it gets.
fn chip_library(machine: &Machine, chip: Chip) -> Result<(), Failure> {
    let Some(compiler) = machine.chip_compiler() else {
        return machine.require(Tool::ChipCompiler);
    };
    shell::run(&mut build(machine, compiler, chip))?;
    let built = machine.chip_builds().join(chip.target).join("release/liblockstep_c.a");
    let library = install(machine, &built, chip.name)?;
    let size_bytes = fs::metadata(&library).map(|file| file.len()).unwrap_or_default();
    println!("{}: {size_bytes} bytes, before a linker takes what it needs", library.display());
    no_128_bit_division(&library)
}

fn build(machine: &Machine, compiler: ChipCompiler, chip: Chip) -> Command {
    let mut cargo = compiler.cargo(chip.target);
    cargo.current_dir(&machine.root).env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("RUSTFLAGS", cores::FLAGS);
    small(&mut cargo);
    cargo.args(["rustc", "--release", "--package", "lockstep-c", "--lib", "--locked"]);
    cargo.args(["--no-default-features", "--crate-type", "staticlib", "--target", chip.target]);
    cargo.arg("--target-dir").arg(machine.chip_builds());
    cargo
}

/// As firmware is built.
fn small(cargo: &mut Command) {
    for (name, value) in
        [("OPT_LEVEL", "z"), ("LTO", "fat"), ("CODEGEN_UNITS", "1"), ("PANIC", "abort")]
    {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
}

/// Division of 128 bits comes out wrong on Xtensa, without a word. None of our code divides so, on
/// no chip; what would begin to is found here. (The compiler's own members of the archive define
/// these functions, and call each other.)
fn no_128_bit_division(library: &Path) -> Result<(), Failure> {
    let content = |text: String| Failure::Content { path: library.to_owned(), text };
    let bytes =
        fs::read(library).map_err(|source| Failure::File { path: library.to_owned(), source })?;
    let archive = ArchiveFile::parse(&*bytes).map_err(|error| content(error.to_string()))?;
    let mut ours = 0;
    for member in archive.members() {
        let member = member.map_err(|error| content(error.to_string()))?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        let data = member.data(&*bytes).map_err(|error| content(error.to_string()))?;
        if name.contains("compiler_builtins") {
            continue;
        }
        let object = File::parse(data).map_err(|error| content(format!("`{name}`: {error}")))?;
        ours += 1;
        let open = object.symbols().filter(ObjectSymbol::is_undefined);
        for symbol in open.filter_map(|symbol| symbol.name().ok()) {
            if DIVISIONS.contains(&symbol) {
                return Err(content(format!(
                    "`{name}` calls `{symbol}`: a division of 128 bits, which Xtensa gets wrong"
                )));
            }
        }
    }
    if ours == 0 { Err(content("no member of it is ours".into())) } else { Ok(()) }
}

/// A program in C that calls everything, compiled and linked for a chip: what it says in
/// `lockstep_panic` is all that the library asks for.
fn link(machine: &Machine, chip: Chip) -> Result<(), Failure> {
    let linked = folder(machine).join("link");
    create(&linked)?;
    let object = linked.join(format!("{}.o", chip.name));
    let program = linked.join(format!("{}.elf", chip.name));
    let mut compiler = Command::new(Tool::RiscvGcc.name());
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-Os", "-ffreestanding"]);
    compiler.args([format!("-march={}", chip.arch), "-mabi=ilp32".into(), "-I".into()]);
    compiler.arg(c(machine).join("include")).arg("-c").arg(c(machine).join("tests/link.c"));
    shell::run(compiler.arg("-o").arg(&object))?;
    let mut linker = Command::new("ld.lld-22");
    linker.args(["-m", "elf32lriscv", "--gc-sections", "-e", "main", "-o"]).arg(&program);
    shell::run(linker.arg(object).arg(library(machine, chip.name)))?;
    println!("{}: {}", chip.name, size(&program)?);
    Ok(())
}

/// What a linked program takes of a chip.
fn size(program: &Path) -> Result<String, Failure> {
    let bytes =
        fs::read(program).map_err(|source| Failure::File { path: program.to_owned(), source })?;
    let content = |text| Failure::Content { path: program.to_owned(), text };
    let elf = File::parse(&*bytes).map_err(|error| content(error.to_string()))?;
    let (mut flash_bytes, mut ram_bytes) = (0, 0);
    for section in elf.sections() {
        match section.kind() {
            SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                flash_bytes += section.size();
            }
            SectionKind::Data => {
                flash_bytes += section.size();
                ram_bytes += section.size();
            }
            SectionKind::UninitializedData => ram_bytes += section.size(),
            _ => (),
        }
    }
    Ok(format!("{flash_bytes} bytes of flash, {ram_bytes} bytes of static memory"))
}

/// Builds the examples for this host, as C11 and C++17: three releases of each. Returns their
/// folder.
fn examples(machine: &Machine) -> Result<PathBuf, Failure> {
    let library = host_library(machine)?;
    let host = folder(machine).join("host");
    create(&host)?;
    for (example, chip) in [("receiver", 9), ("transmitter", 0)] {
        let port = host.join(format!("{example}-port.o"));
        let mut gcc = compiler("cc", &["-std=c11"], machine);
        gcc.arg(format!("-DLOCKSTEP_HOST_CHIP={chip}")).arg("-c");
        gcc.arg(c(machine).join("host/lockstep_port_host.c")).arg("-o").arg(&port);
        shell::run(&mut gcc)?;
        for (minor, broken) in [(0, false), (1, false), (2, true)] {
            let mut gxx = compiler("c++", &["-std=c++17", "-x", "c++"], machine);
            gxx.arg(format!("-DVERSION_MINOR={minor}"));
            // The receiver of the tests is a desk device, which leads; this one is beside it.
            gxx.arg("-DROLE=\"display\"");
            if broken {
                gxx.arg("-DBROKEN");
            }
            gxx.arg(c(machine).join(format!("examples/{example}/{example}.ino")));
            gxx.args(["-x", "none"]).arg(&port);
            gxx.arg(&library);
            gxx.args(["-Wl,--gc-sections", "-s", "-lpthread", "-ldl", "-lm", "-o"]);
            shell::run(gxx.arg(host.join(format!("{example}-1.{minor}.0"))))?;
        }
    }
    Ok(host)
}

/// As small as for a chip: a program must fit into a slot.
fn host_library(machine: &Machine) -> Result<PathBuf, Failure> {
    let target = folder(machine).join("build");
    let mut cargo = machine.cargo();
    small(&mut cargo);
    cargo.args(["rustc", "--release", "--package", "lockstep-c", "--lib"]);
    cargo.args(["--crate-type", "staticlib", "--target-dir"]).arg(&target);
    shell::run(&mut cargo)?;
    Ok(target.join("release/liblockstep_c.a"))
}

/// A compiler for this host that lets nothing pass.
fn compiler(name: &str, language: &[&str], machine: &Machine) -> Command {
    let mut command = Command::new(name);
    command.args(["-Wall", "-Wextra", "-Werror", "-O1", "-g", "-I"]);
    command.arg(c(machine).join("include")).arg("-I").arg(c(machine).join("host"));
    command.args(language);
    command
}

/// `bindings/c`.
fn c(machine: &Machine) -> PathBuf {
    machine.root.join("bindings/c")
}

fn create(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|source| Failure::File { path: folder.to_owned(), source })
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let bytes = fs::read(from).map_err(|source| Failure::File { path: from.to_owned(), source })?;
    shell::write(to, &bytes)
}

/// What divides numbers of 128 bits.
const DIVISIONS: &[&str] = &["__udivti3", "__divti3", "__umodti3", "__modti3"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_options_every_chip_is_built_that_needs_no_compiler_of_espressif() {
        assert_eq!(Plan::parse(&[]), Ok(Plan { chips: RISCV.to_vec(), xtensa: false }));
        let s3 = Plan::parse(&["--chip", "esp32s3"]);
        assert_eq!(s3, Ok(Plan { chips: Vec::new(), xtensa: true }));
    }

    #[test]
    fn a_chip_that_there_is_not_is_refused_with_those_that_there_are() {
        let refused = Plan::parse(&["--chip", "esp8266"]).unwrap_err();
        assert!(refused.ends_with("there are esp32, esp32s3, esp32c3 and esp32c6"), "{refused}");
        assert!(Plan::parse(&["--chip"]).is_err());
        assert!(Plan::parse(&["--ship", "esp32"]).is_err());
    }
}
