//! Type-checks the firmware for ESP32 and ESP32-S3 with a compiler that cannot build it.
//!
//! Only Espressif's rustc (`espup install`) knows the assembly of these processors. Without it
//! everything else can still be seen: with a `core` whose `asm!` is an endless loop, and crates
//! whose naked functions are plain ones, Debian's compiler checks every type, borrow, pin and
//! peripheral of the firmware for the very chip. Nothing that comes out of it could run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Board, Link, features};
use crate::machine::{ChipCompiler, Machine};
use crate::shell::{self, Failure};

/// Checks one board's firmware, both parts of it.
pub(super) fn check(machine: &Machine, board: Board, link: Link) -> Result<(), Failure> {
    let folder = machine.target.join("xtensa-check");
    let library = without_assembly(&folder)?;
    let crates = without_naked_functions(machine, &folder)?;
    let target = folder.join(format!("{}.json", board.target));
    shell::write(&target, TARGET.as_bytes())?;
    let mut cargo = ChipCompiler::Debian.cargo(board.target);
    cargo.current_dir(machine.root.join("firmware"));
    // Not by any documented name, but there is no other way to give it a `core`.
    cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    cargo.arg("--config").arg(paths(&crates));
    cargo.args(["-Zjson-target-spec", "check", "--release", "--locked", "--lib", "--bins"]);
    cargo.arg("--target").arg(target).args(["--features", &features(board, link)]);
    // What is missing from assembly makes warnings in crates of others.
    cargo.arg("--quiet");
    cargo.arg("--target-dir").arg(machine.chip_builds());
    shell::run(&mut cargo)
}

/// `paths = […]`: these stand in for crates of the same name and version.
fn paths(crates: &[PathBuf]) -> String {
    let quoted = crates.iter().map(|path| toml::Value::from(path.display().to_string()));
    format!("paths = {}", toml::Value::Array(quoted.collect()))
}

/// A copy of the standard library's sources in which assembly is an endless loop.
fn without_assembly(folder: &Path) -> Result<PathBuf, Failure> {
    let library = folder.join("library");
    if !library.is_dir() {
        let half = folder.join("library-half");
        fs::create_dir_all(folder)
            .map_err(|source| Failure::File { path: folder.to_owned(), source })?;
        shell::run(Command::new("cp").arg("-rLT").arg(SOURCES).arg(&half))?;
        let path = half.join("core/src/arch.rs");
        let text = read(&path)?;
        let patched = patched_macros(&text).ok_or_else(|| Failure::Content {
            path: path.clone(),
            text: "assembly is not where it was in Rust 1.96".into(),
        })?;
        shell::write(&path, patched.as_bytes())?;
        fs::rename(&half, &library).map_err(|source| Failure::File { path: half, source })?;
    }
    Ok(library)
}

/// The three macros, each with a body of ours; `None` if one of them is not there.
fn patched_macros(text: &str) -> Option<String> {
    [("asm", "loop {}"), ("naked_asm", "loop {}"), ("global_asm", "")].into_iter().try_fold(
        text.to_owned(),
        |text, (name, body)| {
            let begin = format!("#[rustc_builtin_macro]\npub macro {name}(");
            let (before, rest) = text.split_once(&begin)?;
            let (_, after) = rest.split_once("\n}\n")?;
            Some(format!("{before}pub macro {name}($($token:tt)*) {{ {body} }}\n{after}"))
        },
    )
}

/// Copies of the crates with naked functions, in the versions that the firmware is locked to.
fn without_naked_functions(machine: &Machine, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut fetch = Command::new("cargo");
    shell::run(fetch.args(["fetch", "--locked"]).current_dir(machine.root.join("firmware")))?;
    let path = machine.root.join("firmware/Cargo.lock");
    let lock: toml::Table = read(&path)?
        .parse()
        .map_err(|error| Failure::Content { path: path.clone(), text: format!("{error}") })?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let version = |name: &str| {
        let named = |package: &&toml::Value| {
            package.get("name").and_then(toml::Value::as_str) == Some(name)
        };
        packages?.iter().find(named)?.get("version")?.as_str()
    };
    let mut copies = Vec::new();
    for name in WITH_NAKED_FUNCTIONS {
        let version = version(name).ok_or_else(|| Failure::Content {
            path: path.clone(),
            text: format!("no package `{name}`"),
        })?;
        let copy = folder.join("crates").join(format!("{name}-{version}"));
        if !copy.is_dir() {
            let half = copy.with_extension("half");
            shell::write(&half.join("made"), b"")?;
            shell::run(Command::new("cp").arg("-rT").arg(source_of(name, version)?).arg(&half))?;
            mend(&half.join("src"))?;
            fs::rename(&half, &copy).map_err(|source| Failure::File { path: half, source })?;
        }
        copies.push(copy);
    }
    Ok(copies)
}

/// Where cargo keeps the sources of a crate.
fn source_of(name: &str, version: &str) -> Result<PathBuf, Failure> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let user = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let registry = home.or(user).unwrap_or_default().join("registry/src");
    let entries = fs::read_dir(&registry)
        .map_err(|source| Failure::File { path: registry.clone(), source })?;
    let places = entries.flatten().map(|entry| entry.path().join(format!("{name}-{version}")));
    places.into_iter().find(|path| path.is_dir()).ok_or_else(|| Failure::Content {
        path: registry,
        text: format!("no sources of `{name}` {version}"),
    })
}

/// Makes plain functions of naked ones, in all files below.
fn mend(folder: &Path) -> Result<(), Failure> {
    let entries =
        fs::read_dir(folder).map_err(|source| Failure::File { path: folder.into(), source })?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            mend(&path)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = read(&path)?;
            if text.contains(NAKED) {
                shell::write(&path, text.replace(NAKED, "").as_bytes())?;
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|source| Failure::File { path: path.to_owned(), source })
}

/// Of Debian's package `rust-web-src`.
const SOURCES: &str = "/usr/lib/rustlib/src/rust/library";
const NAKED: &str = "#[unsafe(naked)]";
const WITH_NAKED_FUNCTIONS: &[&str] = &["esp-hal", "esp-rtos", "xtensa-lx-rt-proc-macros"];

/// As rustc describes these chips, but for the processor's name and the layout of data, which an
/// LLVM without Espressif's changes has otherwise.
const TARGET: &str = r#"{
  "arch": "xtensa",
  "cpu": "generic",
  "crt-objects-fallback": "false",
  "data-layout": "e-m:e-p:32:32-i8:8:32-i16:16:32-i64:64-n32",
  "emit-debug-gdb-scripts": false,
  "linker-flavor": "gnu-cc",
  "llvm-target": "xtensa-none-elf",
  "max-atomic-width": 32,
  "panic-strategy": "abort",
  "relocation-model": "static",
  "target-pointer-width": 32,
  "vendor": "espressif"
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assembly_becomes_an_endless_loop_and_the_rest_stays() {
        let builtin = |name| {
            format!("#[rustc_builtin_macro]\npub macro {name}(\"a\", $(b)*) {{\n    /* c */\n}}\n")
        };
        let text = ["asm", "naked_asm", "global_asm"].map(builtin).join("// between\n");
        let expected = "pub macro asm($($token:tt)*) { loop {} }\n// between\n\
            pub macro naked_asm($($token:tt)*) { loop {} }\n// between\n\
            pub macro global_asm($($token:tt)*) {  }\n";
        assert_eq!(patched_macros(&text).as_deref(), Some(expected));
        assert_eq!(patched_macros("pub macro asm() {}"), None);
    }

    #[test]
    fn paths_are_quoted() {
        assert_eq!(paths(&[PathBuf::from("/a b")]), r#"paths = ["/a b"]"#);
    }
}
