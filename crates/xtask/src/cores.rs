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
use std::path::Path;
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

/// What the cores may cost on a chip, radio and IP stack not counted: little more than they do
/// today, so that they only get smaller. Whoever makes them smaller lowers the limit.
const FLASH_BYTES_MAX: u64 = 236 * 1024;
const RAM_BYTES_MAX: u64 = 24 * 1024;
/// What the design wants of them in flash.
const FLASH_BYTES_WANTED: u64 = 48 * 1024;

/// Builds, measures, prints the table, and fails if the cores have outgrown their limits.
pub(crate) fn run(machine: &Machine) -> Result<(), Failure> {
    machine.provide(&[Tool::ChipCompiler]);
    let Some(compiler) = machine.chip_compiler() else {
        return machine.require(Tool::ChipCompiler);
    };
    let folder = machine.target.join("cores-size");
    prepare(machine, &folder)?;
    shell::run(&mut build(machine, compiler, &folder))?;
    let program = machine.chip_builds().join(CHIP_TARGET).join("release/cores-size");
    let elf =
        fs::read(&program).map_err(|source| Failure::File { path: program.clone(), source })?;
    let failed = |text| Failure::Content { path: program.clone(), text };
    let sizes = Sizes::of_elf(&elf).map_err(failed)?;
    print!("\n{CHIP_TARGET}, opt-level z, LTO:\n{sizes}");
    println!(
        "wanted are {FLASH_BYTES_WANTED} bytes of flash; it is a failure beyond {FLASH_BYTES_MAX}"
    );
    outgrown(sizes.flash_bytes(), sizes.ram_bytes()).map_or(Ok(()), |text| Err(failed(text)))
}

/// What is larger than it may be, if something is.
fn outgrown(flash_bytes: u64, ram_bytes: u64) -> Option<String> {
    [("flash", flash_bytes, FLASH_BYTES_MAX), ("static RAM", ram_bytes, RAM_BYTES_MAX)]
        .into_iter()
        .find(|(_, bytes, limit)| bytes > limit)
        .map(|(what, bytes, limit)| {
            format!("cores take {bytes} bytes of {what}, at most {limit}: see what has grown above")
        })
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

fn build(machine: &Machine, compiler: ChipCompiler, folder: &Path) -> Command {
    let mut cargo = compiler.cargo(CHIP_TARGET);
    cargo.current_dir(folder).env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", FLAGS);
    cargo.args(["build", "--release", "--target", CHIP_TARGET, "--target-dir"]);
    cargo.arg(machine.chip_builds());
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
    fn cores_that_have_outgrown_their_limits_are_a_failure() {
        assert_eq!(outgrown(FLASH_BYTES_MAX, RAM_BYTES_MAX), None);
        let flash = outgrown(FLASH_BYTES_MAX + 1, 0).expect("too large");
        assert!(flash.starts_with("cores take 241665 bytes of flash, at most 241664"), "{flash}");
        assert!(outgrown(0, RAM_BYTES_MAX + 1).expect("too large").contains("static RAM"));
    }

    #[test]
    fn only_debians_compiler_builds_core_itself() {
        let arguments = |compiler| -> Vec<String> {
            let machine = Machine { root: ".".into(), target: "target".into(), ci: false };
            let command = build(&machine, compiler, Path::new("/folder"));
            command.get_args().map(|word| word.display().to_string()).collect()
        };
        let flag = "-Zbuild-std=core,alloc".to_string();
        assert!(arguments(ChipCompiler::Debian).contains(&flag));
        assert!(!arguments(ChipCompiler::Installed).contains(&flag));
    }
}
