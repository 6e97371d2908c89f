//! The library for ESP32 and ESP32-S3 without Espressif's compiler: experimental.
//!
//! Debian's LLVM knows Xtensa, and our code has no assembly in it; three faults of that LLVM are
//! mended on the way (`bindings/c/xtensa/mend.py`). It shows that the library compiles for these
//! chips. Whoever ships one builds it with espup's compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{c, copy, create, folder, install, library, no_128_bit_division};
use crate::cores;
use crate::machine::{ChipCompiler, Machine, Tool};
use crate::shell::{self, Failure};

const CHIPS: &[&str] = &["esp32", "esp32s3"];
const LLVM: &str = "/usr/lib/llvm-22/bin";
/// As it is called in folders.
const TARGET: &str = "target";

/// Builds it, the same for both chips.
pub(super) fn build(machine: &Machine) -> Result<(), Failure> {
    machine.provide(&[Tool::Llvm]);
    machine.require(Tool::Llvm)?;
    let description = c(machine).join("xtensa/target.json");
    let built = machine.chip_builds();
    shell::run(&mut cargo(machine, &description, &built))?;
    let release = built.join(TARGET).join("release");
    let work = folder(machine).join("xtensa");
    let _ = fs::remove_dir_all(&work);
    create(&work)?;
    shell::run(llvm("llvm-ar").current_dir(&work).arg("x").arg(release.join("liblockstep_c.a")))?;
    copy(&newest(&work, "lockstep_c-", ".rcgu.o")?, &work.join("lockstep_c.bc"))?;
    let compiler_builtins = newest(&release.join("deps"), "compiler_builtins-", ".bc")?;
    mend_divisions(machine, &work, &compiler_builtins)?;
    let features = features(&description)?;
    for chip in CHIPS {
        let _ = fs::remove_file(library(machine, chip));
    }
    let archive = work.join("liblockstep_c.a");
    for name in ["lockstep_c", "compiler_builtins"] {
        assemble(machine, &work, name, &features)?;
        let object = work.join(format!("{name}.o"));
        shell::run(llvm("llvm-ar").arg("rcs").arg(&archive).arg(object))?;
    }
    no_128_bit_division(&archive)?;
    for chip in CHIPS {
        install(machine, &archive, chip)?;
        println!("{}: experimental", library(machine, chip).display());
    }
    Ok(())
}

fn cargo(machine: &Machine, description: &Path, built: &Path) -> Command {
    let mut cargo = ChipCompiler::Debian.cargo("xtensa");
    // Before the command, as the other one of its kind: those behind it would replace that.
    cargo.arg("-Zjson-target-spec");
    cargo.current_dir(&machine.root).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let flags = format!("{} -Clinker-plugin-lto --emit=llvm-bc", cores::FLAGS);
    cargo.env("RUSTFLAGS", flags);
    super::small(&mut cargo);
    cargo.args(["rustc", "--release", "--package", "lockstep-c", "--lib", "--locked"]);
    cargo.args(["--no-default-features", "--crate-type", "staticlib"]);
    cargo.arg("--target").arg(description).arg("--target-dir").arg(built);
    cargo
}

fn mend_divisions(machine: &Machine, work: &Path, bitcode: &Path) -> Result<(), Failure> {
    let (text, mended) = (work.join("builtins.ll"), work.join("builtins-mended.ll"));
    shell::run(llvm("llvm-dis").arg(bitcode).arg("-o").arg(&text))?;
    shell::run(mend(machine, "divisions").arg(text).arg(&mended))?;
    shell::run(llvm("llvm-as").arg(mended).arg("-o").arg(work.join("compiler_builtins.bc")))
}

fn assemble(machine: &Machine, work: &Path, name: &str, features: &str) -> Result<(), Failure> {
    let file = |ending: &str| work.join(format!("{name}{ending}"));
    let mut compile = mend(machine, "compile");
    shell::run(compile.arg(file(".bc")).arg(file(".raw.s")).arg(features))?;
    shell::run(mend(machine, "literals").arg(file(".raw.s")).arg(file(".s")))?;
    let mut assembler = llvm("llvm-mc");
    assembler.args(["-triple=xtensa-none-elf", "-filetype=obj"]);
    assembler.arg(format!("-mattr={features}"));
    shell::run(assembler.arg(file(".s")).arg("-o").arg(file(".o")))
}

fn llvm(name: &str) -> Command {
    Command::new(Path::new(LLVM).join(name))
}

fn mend(machine: &Machine, step: &str) -> Command {
    let mut python = Command::new("python3");
    python.arg(c(machine).join("xtensa/mend.py")).arg(step);
    python
}

/// Which instructions the chips have, as their description says.
fn features(description: &Path) -> Result<String, Failure> {
    let content = |text: &str| Failure::Content { path: description.to_owned(), text: text.into() };
    let text = fs::read_to_string(description)
        .map_err(|source| Failure::File { path: description.to_owned(), source })?;
    let line = text.lines().find(|line| line.contains("\"features\""));
    let value = line.and_then(|line| line.split('"').nth(3));
    value.map(str::to_owned).ok_or_else(|| content("no `features`"))
}

/// The newest file that is called so.
fn newest(folder: &Path, begin: &str, end: &str) -> Result<PathBuf, Failure> {
    let files =
        fs::read_dir(folder).map_err(|source| Failure::File { path: folder.to_owned(), source })?;
    let named = files.flatten().filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(begin) && name.ends_with(end)
    });
    let newest = named.max_by_key(|file| file.metadata().and_then(|it| it.modified()).ok());
    newest.map(|file| file.path()).ok_or_else(|| Failure::Content {
        path: folder.to_owned(),
        text: format!("no file `{begin}…{end}`"),
    })
}
