//! What `integrations/` does behind a build: real PlatformIO with a platform that compiles for this
//! machine, real CMake with what it needs of ESP-IDF, and the script alone.
//!
//! The images are made for a desk; everything else is as in a project. What was not tried:
//! Espressif's compilers, `idf.py`, Windows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lockstep_proto::manifest::{Trust, verify};
use serde_json::Value;
use tempfile::TempDir;

use super::desk::{BOTH, Receiver, Role, Said, Transmitter, command, firmware};

/// A folder with a project and a folder for releases, `ota`.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: TempDir::new().unwrap() };
        bench.image(Receiver, "1.0.0", 1);
        bench.image(Transmitter, "1.0.0", 1);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the next build of this role makes.
    fn image(&self, role: Role, version: &str, build: u64) {
        let bytes = firmware(role, version).build(build).make().bytes;
        fs::create_dir_all(self.path("project/images")).unwrap();
        fs::write(self.path(&format!("project/images/{}.bin", env_of(role))), bytes).unwrap();
    }

    fn lockstep(&self, line: &str) -> Said {
        Said::of(&command(self.folder.path(), line).output().unwrap())
    }

    /// The script without a build system.
    fn script(&self, role: Role, version: &str, options: &str) -> Command {
        let [major, minor, patch] = [0, 1, 2].map(|part| version.split('.').nth(part).unwrap());
        let mut script = Command::new("python3");
        script.current_dir(self.folder.path()).arg(integration("lockstep.py"));
        script.arg(format!("project/images/{}.bin", env_of(role))).args(["--output", "ota"]);
        script.arg("--define").arg(format!("{}_DEVICE", role.name().to_uppercase()));
        script.arg("--define").arg(format!("FW_VERSION_MAJOR={major};FW_VERSION_MINOR={minor}"));
        script.arg(format!("--define=-DFW_VERSION_PATCH={patch}"));
        script.args(options.split_whitespace());
        script
    }

    fn run(&self, role: Role, version: &str, options: &str) -> Said {
        Said::of(&self.script(role, version, options).output().unwrap())
    }

    /// A build of both roles.
    fn build(&self, version: &str, build: u64, options: &str) {
        for role in BOTH {
            self.image(role, version, build);
            self.run(role, version, options).succeeds();
        }
    }

    fn system(&self) -> Value {
        let text = fs::read(self.path("ota/system_manifest.json")).unwrap();
        verify(&text, &[], &Trust::anybody()).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Names in a role's folder.
    fn names(&self, role: Role) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path("ota").join(role.name())).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

const fn env_of(role: Role) -> &'static str {
    match role {
        Receiver => "lilygo-t-display-s3",
        Transmitter => "esp32-poe-iso",
    }
}

fn integration(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integrations").join(name)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A tool that `cargo xtask` names; without it a test says so and ends.
fn tool(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: {variable} is not set; `cargo xtask test --suite e2e` does");
    }
    path
}

/// PlatformIO takes its copy of SCons from its registry; here it is given PyPI's.
fn platformio(bench: &Bench, pio: &Path) -> Command {
    let package = bench.path("core/packages/tool-scons");
    if !package.exists() {
        fs::create_dir_all(&package).unwrap();
        let about = r#"{"type":"tool","name":"tool-scons","version":"4.41101.0","spec":
            {"owner":"platformio","id":null,"name":"tool-scons","requirements":null,"uri":null}}"#;
        fs::write(package.join(".piopm"), about).unwrap();
        fs::write(package.join("package.json"), r#"{"name":"tool-scons","version":"4.41101.0"}"#)
            .unwrap();
        let start = "import SCons.Script.Main\nSCons.Script.Main.main()\n";
        fs::write(package.join("scons.py"), start).unwrap();
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/builds/platformio");
        copy_folder(&files, bench.folder.path());
        fs::copy(integration("lockstep.py"), bench.path("project/lockstep.py")).unwrap();
    }
    let mut command = Command::new(pio);
    command.current_dir(bench.path("project")).arg("run").stdin(Stdio::null());
    command.env("PLATFORMIO_CORE_DIR", bench.path("core"));
    command.env("PLATFORMIO_SETTING_ENABLE_TELEMETRY", "no");
    command.env("PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL", "9999");
    command
}

#[test]
fn a_build_of_platformio_is_a_release_that_lockstep_reads() {
    let Some(pio) = tool("LOCKSTEP_PLATFORMIO") else { return };
    let bench = Bench::new();
    let built = Said::of(&platformio(&bench, &pio).output().unwrap());
    built.succeeds().says("system_manifest.json is of 1.0.0");
    let names = bench.names(Receiver);
    assert!(names.contains("receiver_latest.bin") && names.contains("manifest.json"), "{names:?}");
    let system = bench.system();
    assert_eq!(system["system_version"], "1.0.0");
    assert_eq!(system["min_compatible_version"], "1.0.0");
    assert_eq!(system["description"], "Initial synchronized release");
    assert_eq!(system["update_instructions"]["order"][0], "receiver");
    let receiver = &system["devices"]["receiver"];
    assert_eq!(receiver["device_type"], "ESP32-S3");
    assert_eq!(receiver["hardware"], "LilyGo T-Display-S3");
    assert_eq!(receiver["version_number"], 10000);
    assert_eq!(receiver["firmware_size"], 64 * 1024);
    assert_eq!(system["devices"]["transmitter"]["hardware"], "ESP32-POE-ISO");
    let url = receiver["firmware_url"].as_str().unwrap();
    let name = url.strip_prefix("http://192.168.1.100/firmware/").unwrap();
    assert!(bench.path("ota").join(name).is_file(), "{name}");

    bench.lockstep("keygen --no-password --out a").succeeds();
    let made = bench.lockstep("release create --folder ota --key a.key -o a.lockstep");
    made.succeeds().says("transmitter 1.0.0 and receiver 1.0.0");
    bench.lockstep("release verify a.lockstep --key a.pub").succeeds();

    // One environment of the next version alone is no release yet.
    let text = fs::read_to_string(bench.path("project/platformio.ini")).unwrap();
    let next = text.replacen("-DFW_VERSION_PATCH=0", "-DFW_VERSION_PATCH=1", 1);
    let next = next.replacen("\\\"1.0.0\\\"", "\\\"1.0.1\\\"", 1);
    fs::write(bench.path("project/platformio.ini"), next).unwrap();
    bench.image(Receiver, "1.0.1", 2);
    let built = Said::of(&platformio(&bench, &pio).output().unwrap());
    built.succeeds().says("no release until all roles are of one version: receiver 1.0.1");
    assert_eq!(bench.system()["system_version"], "1.0.0");
    bench.lockstep("release create --folder ota --key a.key -o b.lockstep").succeeds();

    let bad = text.replacen("-D FW_VERSION_MINOR=0", "-D FW_VERSION_MINOR=100", 1);
    fs::write(bench.path("project/platformio.ini"), bad).unwrap();
    let failed = Said::of(&platformio(&bench, &pio).output().unwrap());
    assert_ne!(failed.code, Some(0), "{}", failed.text);
    failed.says("the minor version of 1.100.0 is 100, the limit is 99").says("Hint: ");
}

#[test]
fn a_build_of_cmake_is_put_in_the_folder_by_a_target_of_its_own() {
    let Some(cmake) = tool("LOCKSTEP_CMAKE") else { return };
    let bench = Bench::new();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/builds/idf");
    copy_folder(&files, bench.folder.path());
    for name in ["lockstep.py", "lockstep.cmake"] {
        fs::copy(integration(name), bench.path(name)).unwrap();
    }
    let image = bench.path("project/images/lilygo-t-display-s3.bin");
    fs::copy(image, bench.path("image.bin")).unwrap();
    fs::create_dir(bench.path("include")).unwrap();
    // The plan's own header, with what guards it against flags.
    let header = "#pragma once\n#ifndef FW_VERSION_MAJOR\n#define FW_VERSION_MAJOR 1\n#endif\n\
        #define FW_VERSION_MINOR 0 // minor\n#define FW_VERSION_PATCH 0\n\
        #define FW_VERSION_STRING \"1.0.0\"\n#define MIN_COMPATIBLE_VERSION 900UL\n\
        #ifdef TRANSMITTER_DEVICE\n#define DEVICE_NAME \"ESP32-POE-ISO\"\n\
        #elif defined(RECEIVER_DEVICE)\n#define DEVICE_NAME \"LilyGo-T-Display-S3\"\n\
        #else\n#define DEVICE_NAME \"UNKNOWN\"\n#endif\n";
    fs::write(bench.path("include/firmware_version.h"), header).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&cmake);
        Said::of(&command.current_dir(bench.folder.path()).args(arguments).output().unwrap())
    };
    run(&["-B", "build", "-DPYTHON=python3", "-G", "Unix Makefiles"]).succeeds();
    run(&["--build", "build"]).succeeds();
    assert!(!bench.path("ota").exists(), "a build alone puts nothing there");
    let built = run(&["--build", "build", "--target", "lockstep-release"]);
    built.succeeds().says("receiver 1.0.0 copied to");
    let manifest = fs::read(bench.path("ota/receiver/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["hardware"], "LilyGo-T-Display-S3");
    assert_eq!(manifest["min_compatible"], "0.9.0");
    run(&["--build", "build", "--target", "lockstep-release"])
        .succeeds()
        .says("receiver 1.0.0 is unchanged");
}

#[test]
fn other_bytes_of_one_version_are_warned_of_and_make_a_release_all_the_same() {
    let bench = Bench::new();
    bench.build("1.0.0", 1, "");
    let first = bench.system();
    assert_eq!(first.get("rollback"), None);
    bench.image(Receiver, "1.0.0", 2);
    let said = bench.run(Receiver, "1.0.0", "");
    said.succeeds().says("warning: receiver 1.0.0 was built before with other bytes");
    let url = |system: &Value| system["devices"]["receiver"]["firmware_url"].clone();
    assert_ne!(url(&first), url(&bench.system()));
    bench.lockstep("release create --folder ota --unsigned -o a.lockstep").succeeds();
}

#[test]
fn copies_are_kept_up_to_a_number_and_those_that_a_manifest_names_beyond_it() {
    let bench = Bench::new();
    for (patch, build) in (0..5).zip(1..) {
        bench.build(&format!("1.0.{patch}"), build, "--keep 1");
    }
    let system = bench.system();
    assert_eq!(system["rollback"]["previous_version"], "1.0.3");
    for role in BOTH {
        let names = bench.names(role);
        assert_eq!(names.len(), 4, "{names:?}");
        let previous = system["rollback"][format!("{}_url", role.name())].as_str().unwrap();
        assert!(bench.path("ota").join(previous).is_file(), "{previous} of {names:?}");
    }
    // The rollback survives that the same version is built again.
    bench.build("1.0.4", 99, "--keep 1");
    assert_eq!(bench.system()["rollback"]["previous_version"], "1.0.3");
}

#[test]
fn builds_at_once_never_leave_half_a_file() {
    let bench = Bench::new();
    bench.build("1.0.0", 1, "");
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !ends.load(Ordering::Relaxed) {
                bench.system();
                reads += 1;
            }
            reads
        });
        for patch in 1..4 {
            for role in BOTH {
                bench.image(role, &format!("1.0.{patch}"), patch);
            }
            // The same build twice at once, too.
            let begun = BOTH.iter().chain(&BOTH).map(|&role| {
                let mut script = bench.script(role, &format!("1.0.{patch}"), "");
                script.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            });
            for mut child in begun.collect::<Vec<_>>() {
                assert!(child.wait().unwrap().success());
            }
            assert_eq!(bench.system()["system_version"], format!("1.0.{patch}"));
        }
        ends.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    let names = bench.names(Receiver);
    assert_eq!(names.len(), 4 + 2, "{names:?}");
    assert!(names.iter().all(|name| !name.contains("partial")), "{names:?}");
}

/// Another build is in the middle of its work, and this one comes.
#[test]
fn a_build_waits_for_its_turn() {
    let bench = Bench::new();
    bench.build("1.0.0", 1, "");
    let lock = fs::File::options().write(true).open(bench.path("ota/.lockstep.lock")).unwrap();
    lock.lock().unwrap();
    let path = bench.path("ota/receiver/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    bench.image(Receiver, "1.0.1", 2);
    let mut script = bench.script(Receiver, "1.0.1", "");
    let begun = script.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It would be done long since, if it did not wait; else this is a wait for nothing.
    thread::sleep(Duration::from_millis(1500));
    manifest["builds"][0]["built"] = "while it waited".into();
    fs::write(&path, manifest.to_string()).unwrap();
    lock.unlock().unwrap();
    Said::of(&begun.wait_with_output().unwrap()).succeeds();
    let manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(manifest["version"], "1.0.1");
    assert_eq!(manifest["builds"][1]["built"], "while it waited", "{manifest}");
}

#[test]
fn what_is_wrong_with_a_build_is_said_with_a_way_out() {
    let bench = Bench::new();
    for (version, options, says) in [
        ("1.0.100", "", "the patch version of 1.0.100 is 100, the limit is 99"),
        ("1.0.0", "--define TRANSMITTER_DEVICE", "both RECEIVER_DEVICE and TRANSMITTER_DEVICE"),
        ("1.0.0", "--role display", "the role is `display`, custom_lockstep_roles names"),
        ("1.0.0", "--keep 0", "custom_lockstep_keep is 0"),
        ("1.0.0", "--order receiver", "custom_lockstep_order names receiver"),
        ("1.x.0", "", "FW_VERSION_MINOR is `x`"),
        ("1.0.0", "--min-compatible 1.0", "the oldest compatible version is `1.0`"),
        ("1.0.0", "--header gone.h", "there is no header"),
        ("1.0.0", "--publish-required maybe", "custom_lockstep_publish_required is `maybe`"),
    ] {
        bench.run(Receiver, version, options).fails().says(says);
    }
    fs::write(bench.path("project/images/lilygo-t-display-s3.bin"), "<html>").unwrap();
    bench.run(Receiver, "1.0.0", "").fails().says("is no firmware image");
    assert!(!bench.path("ota/system_manifest.json").exists());
}

/// The same images, and another order: what the builder corrected must reach the devices.
#[test]
fn what_is_said_of_a_release_is_written_again_when_it_changes() {
    let bench = Bench::new();
    bench.build("1.0.0", 1, "");
    bench.run(Receiver, "1.0.0", "--order together").succeeds();
    assert_eq!(bench.system()["update_instructions"]["order"], serde_json::json!([]));
}

#[test]
fn a_folder_that_was_changed_behind_its_manifest_makes_no_release() {
    let bench = Bench::new();
    bench.build("1.0.0", 1, "");
    let create = "release create --folder ota --unsigned -o a.lockstep";
    bench.lockstep(&format!("{create} --version 1.0.1")).fails().says("--version says 1.0.1");
    bench
        .lockstep(&format!("{create} --receiver x.bin --version 1.0.0"))
        .says("Both a folder and firmware images are given");
    let path = bench.path("ota/system_manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        bench.lockstep(create)
    };
    change("\"ESP32-S3\"", "\"ESP32-C3\"").fails().says("is for the chip");
    change("\"protocol_version\": 1", "\"protocol_version\": 7")
        .fails()
        .says("speaks the protocols");
    fs::write(&path, &text).unwrap();
    let system = bench.system();
    let url = system["devices"]["transmitter"]["firmware_url"].as_str().unwrap();
    fs::write(bench.path("ota").join(url), firmware(Transmitter, "1.0.0").build(5).make().bytes)
        .unwrap();
    bench.lockstep(create).fails().says("has the SHA-256 that `system_manifest.json` names");
}

#[test]
fn a_release_that_cannot_be_published_fails_the_build_only_if_that_is_asked_for() {
    let bench = Bench::new();
    bench.lockstep("keygen --no-password --out a").succeeds();
    bench.run(Transmitter, "1.0.0", "").succeeds();
    let options = format!(
        "--publish http://127.0.0.1:1 --key a.key --command {}",
        env!("CARGO_BIN_EXE_lockstep")
    );
    bench.run(Receiver, "1.0.0", &options).succeeds().says("warning: not published");
    for yes in ["yes", "ON", "true"] {
        let required = format!("{options} --publish-required {yes}");
        assert_eq!(bench.run(Receiver, "1.0.0", &required).code, Some(1), "{yes}");
    }
    let locked = format!("{options} --key-password-file gone");
    bench.run(Receiver, "1.0.0", &locked).succeeds().says("the key's password cannot be read");
    let unsigned = "--publish http://127.0.0.1:1 --command nowhere";
    bench.run(Receiver, "1.0.0", unsigned).succeeds().says("no key is named");
    let gone = format!("{unsigned} --key a.key");
    bench.run(Receiver, "1.0.0", &gone).succeeds().says("there is no `nowhere`");
}
