//! Builds the cores for a bare chip and says what each costs in flash.
//!
//! A program in `cores-size/` calls the cores through entry points, one file for each core; it is
//! linked as firmware is (optimized for size, with link-time optimization, unused functions gone),
//! and what is left in the ELF file is what a chip would carry.
//!
//! # Adding an entry point
//!
//! Write a function in `cores-size/CORE.rs` that takes bytes and calls what a chip calls, and name
//! it in that file's `run`. What no entry point reaches is compiled, but not counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{CHIP_TARGET, ChipCompiler, Machine, Tool};
use crate::shell::{self, Failure};
use crate::sizes::Sizes;

/// The program that is linked, from the workspace's folder.
pub(crate) const PROGRAM: &str = "crates/xtask/cores-size/main.rs";

/// The small versions of the ciphers, which is what a chip is built with. Lints are another
/// suite's business, and another compiler's.
pub(crate) const FLAGS: &str = "--cfg sha2_backend=\"soft\" --cfg sha2_backend_soft=\"compact\" \
    --cfg curve25519_dalek_bits=\"32\" --cfg curve25519_dalek_backend=\"serial\" \
    -C symbol-mangling-version=v0 --cap-lints warn";

/// Builds, measures, and prints the table.
pub(crate) fn run(machine: &Machine) -> Result<(), Failure> {
    machine.provide(&[Tool::ChipCompiler]);
    let Some(compiler) = machine.chip_compiler() else {
        return machine.require(Tool::ChipCompiler);
    };
    let folder = machine.target.join("cores-size");
    prepare(machine, &folder)?;
    shell::run(&mut build(compiler, &folder))?;
    let program = folder.join("target").join(CHIP_TARGET).join("release/cores-size");
    let elf =
        fs::read(&program).map_err(|source| Failure::File { path: program.clone(), source })?;
    let sizes = Sizes::of_elf(&elf)
        .map_err(|error| Failure::Content { path: program, text: error.to_string() })?;
    print!("\n{CHIP_TARGET}, opt-level z, LTO:\n{sizes}");
    Ok(())
}

/// Writes the manifest beside a copy of the workspace's lock file, so that the very versions are
/// measured that the tests ran with.
fn prepare(machine: &Machine, folder: &Path) -> Result<(), Failure> {
    shell::write(&folder.join("Cargo.toml"), manifest(&machine.root).as_bytes())?;
    let path = machine.root.join("Cargo.lock");
    let lock = fs::read(&path).map_err(|source| Failure::File { path, source })?;
    shell::write(&folder.join("Cargo.lock"), &lock)
}

/// Not a member of the workspace: it builds for a chip only, and would break every other build.
fn manifest(root: &Path) -> String {
    let path = |relative: &str| toml::Value::from(root.join(relative).display().to_string());
    let [proto, agent, rollout] =
        ["proto", "agent", "rollout"].map(|name| format!("crates/{name}"));
    format!(
        r#"[package]
name = "cores-size"
version = "0.0.0"
edition = "2024"
publish = false

[[bin]]
name = "cores-size"
path = {program}
test = false

[dependencies]
lockstep-proto.path = {proto}
lockstep-agent.path = {agent}
lockstep-rollout.path = {rollout}
# Whichever the lock file names, with its loop not unrolled.
blake2 = {{ version = "*", default-features = false, features = ["size_opt"] }}
embedded-storage = "0.3"

[profile.release]
opt-level = "z"
lto = "fat"
codegen-units = 1
panic = "abort"

[workspace]
"#,
        program = path(PROGRAM),
        proto = path(&proto),
        agent = path(&agent),
        rollout = path(&rollout),
    )
}

fn build(compiler: ChipCompiler, folder: &Path) -> Command {
    let mut cargo = compiler.cargo(CHIP_TARGET);
    let target_dir: PathBuf = folder.join("target");
    cargo.current_dir(folder).env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", FLAGS);
    cargo.args(["build", "--release", "--target", CHIP_TARGET, "--target-dir"]).arg(target_dir);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_valid_whatever_the_folder_is_called() {
        let text = manifest(Path::new(r#"/home/a "b"\c"#));
        let manifest: toml::Table = text.parse().expect("TOML");
        let program = manifest["bin"][0]["path"].as_str().expect("a path");
        assert_eq!(program, format!(r#"/home/a "b"\c/{PROGRAM}"#));
    }

    #[test]
    fn only_debians_compiler_builds_core_itself() {
        let arguments = |compiler| -> Vec<String> {
            let command = build(compiler, Path::new("/target"));
            command.get_args().map(|word| word.display().to_string()).collect()
        };
        let flag = "-Zbuild-std=core,alloc".to_string();
        assert!(arguments(ChipCompiler::Debian).contains(&flag));
        assert!(!arguments(ChipCompiler::Installed).contains(&flag));
    }
}
