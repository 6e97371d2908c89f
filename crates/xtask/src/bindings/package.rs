//! The two packages: a component of ESP-IDF, and a library for Arduino's IDE and PlatformIO.
//!
//! Both hold the same headers, the same port, and a library for each chip that one was built for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{c, copy, folder, library};
use crate::machine::Machine;
use crate::shell::{self, Failure};

const HEADERS: &[&str] = &["lockstep.h", "lockstep_descriptor.h", "lockstep_port.h"];
const PORT: &str = "lockstep_port_esp.c";
/// All chips that a library may have been built for, as ESP-IDF and Arduino call them.
const CHIPS: &[&str] = &["esp32", "esp32s3", "esp32c3", "esp32c6"];
const EXAMPLES: &[&str] = &["receiver", "transmitter"];

/// Puts both together anew.
pub(super) fn make(machine: &Machine) -> Result<(), Failure> {
    let (c, idf, arduino) = (c(machine), esp_idf(machine), arduino(machine));
    for package in [&idf, &arduino] {
        // What an earlier build had and this one has not must not stay.
        let _ = fs::remove_dir_all(package);
        for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
            copy(&machine.root.join(license), &package.join(license))?;
        }
        copy(&machine.root.join("docs/c.md"), &package.join("README.md"))?;
    }
    for name in ["CMakeLists.txt", "idf_component.yml"] {
        copy(&c.join("package/esp-idf").join(name), &idf.join(name))?;
    }
    for name in ["library.properties", "library.json", "extra_script.py"] {
        copy(&c.join("package/arduino").join(name), &arduino.join(name))?;
    }
    for name in HEADERS {
        copy(&c.join("include").join(name), &idf.join("include").join(name))?;
        copy(&c.join("include").join(name), &arduino.join("src").join(name))?;
    }
    let port = c.join("port/esp_idf").join(PORT);
    copy(&port, &idf.join("port").join(PORT))?;
    copy(&port, &arduino.join("src").join(PORT))?;
    for name in EXAMPLES {
        let sketch = format!("{name}/{name}.ino");
        let from = c.join("examples").join(&sketch);
        copy(&from, &arduino.join("examples").join(sketch))?;
    }
    for chip in CHIPS {
        let library = library(machine, chip);
        if library.is_file() && !super::is_of_these_headers(machine, chip) {
            println!(
                "{chip}: left out, its library is older: `cargo xtask bindings --chip {chip}`"
            );
        } else if library.is_file() {
            copy(&library, &idf.join("lib").join(chip).join("liblockstep_c.a"))?;
            copy(&library, &arduino.join("src").join(chip).join("liblockstep_c.a"))?;
        }
    }
    println!("{}\n{}", idf.display(), arduino.display());
    Ok(())
}

/// The port compiles against the names that ESP-IDF has, and PlatformIO's script finds the library
/// of its chip, and says so when there is none.
pub(super) fn check(machine: &Machine) -> Result<(), Failure> {
    let fake = c(machine).join("tests/fake_idf");
    let mut gcc = Command::new("cc");
    gcc.args(["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-DESP_PLATFORM"]);
    gcc.arg("-I").arg(c(machine).join("include")).arg("-I").arg(fake);
    shell::run(gcc.arg(arduino(machine).join("src").join(PORT)))?;
    let script = |chip: &str| {
        let mut python = Command::new("python3");
        python.arg(c(machine).join("tests/extra_script.py")).arg(arduino(machine)).arg(chip);
        shell::read(&mut python)
    };
    let folder = arduino(machine).join("src/esp32c3");
    let said = script("esp32c3")?;
    let expected = format!("{} lockstep_c", folder.display());
    if said.trim() != expected {
        let text = format!("said `{}`, expected `{expected}`", said.trim());
        return Err(Failure::Content { path: "extra_script.py".into(), text });
    }
    match script("esp32h2") {
        Err(Failure::Ended { .. }) => Ok(()),
        _ => Err(Failure::Content {
            path: "extra_script.py".into(),
            text: "is content with a chip that there is no library for".into(),
        }),
    }
}

fn esp_idf(machine: &Machine) -> PathBuf {
    folder(machine).join("esp-idf/lockstep")
}

fn arduino(machine: &Machine) -> PathBuf {
    folder(machine).join("arduino/Lockstep")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_packages_have_the_version_of_the_workspace() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
        let version = manifest["workspace"]["package"]["version"].as_str().unwrap().to_owned();
        for (path, line) in [
            ("esp-idf/idf_component.yml", format!("version: \"{version}\"")),
            ("arduino/library.properties", format!("version={version}")),
            ("arduino/library.json", format!("\"version\": \"{version}\"")),
        ] {
            let text = read(&format!("bindings/c/package/{path}"));
            assert!(text.contains(&line), "{path} does not say `{line}`");
        }
    }
}
