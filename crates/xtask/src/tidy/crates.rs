//! Rules about crates: who may know whom, and who may know the standard library.
//!
//! The picture in `ARCHITECTURE.md` says the same; this table is what keeps it true.

use super::tokens::RustFile;
use super::{Finding, Tree};

/// What one crate may use.
struct Place {
    /// Its folder under `crates/`.
    folder: &'static str,
    /// Packages of ours that it may depend on.
    knows: &'static [&'static str],
    /// Whether it may use the standard library.
    std: Std,
}

#[derive(PartialEq, Eq)]
enum Std {
    /// Must say `#![no_std]`, whatever its features.
    Never,
    /// The same, but for one file, which a feature for hosts brings in.
    OnlyIn(&'static str),
    May,
}

const PLACES: &[Place] = &[
    Place { folder: "proto", knows: &[], std: Std::Never },
    Place { folder: "delta", knows: &[], std: Std::OnlyIn("encode.rs") },
    Place { folder: "agent", knows: &["lockstep-proto", "lockstep-delta"], std: Std::Never },
    Place { folder: "rollout", knows: &["lockstep-proto"], std: Std::Never },
    Place {
        folder: "device",
        knows: &["lockstep-proto", "lockstep-agent", "lockstep-rollout", "lockstep-delta"],
        std: Std::Never,
    },
    Place {
        folder: "sim",
        knows: &[
            "lockstep-proto",
            "lockstep-agent",
            "lockstep-rollout",
            "lockstep-delta",
            "lockstep-device",
        ],
        std: Std::May,
    },
    Place { folder: "server", knows: &["lockstep-proto", "lockstep-delta"], std: Std::May },
    Place {
        folder: "cli",
        knows: &[
            "lockstep-proto",
            "lockstep-agent",
            "lockstep-rollout",
            "lockstep-delta",
            "lockstep-device",
            "lockstep-sim",
            "lockstep-server",
        ],
        std: Std::May,
    },
    // Not below `crates/`: it is for whoever has no Rust.
    Place {
        folder: "c",
        knows: &["lockstep-proto", "lockstep-agent", "lockstep-rollout", "lockstep-device"],
        std: Std::May,
    },
    Place { folder: "xtask", knows: &[], std: Std::May },
];

/// What would let a core log, draw a number, read a clock or start something.
const NOT_IN_CORES: &[&str] =
    &["log", "tracing", "defmt", "rand", "getrandom", "chrono", "tokio", "embassy-time"];
const CORES: &[&str] = &["proto", "agent", "rollout"];

pub(super) fn check(tree: &Tree, sources: &[RustFile], findings: &mut Vec<Finding>) {
    for (path, text) in &tree.files {
        if let ["crates" | "bindings", folder, "Cargo.toml"] =
            path.split('/').collect::<Vec<_>>()[..]
        {
            check_manifest(path, folder, text, findings);
        }
    }
    for source in sources {
        if let ["crates", folder, "src", file @ ..] =
            &source.path.split('/').collect::<Vec<_>>()[..]
            && let Some(place) = place_of(folder)
            && place.std != Std::May
        {
            check_no_std(source, file, &place.std, findings);
        }
    }
}

fn check_manifest(path: &str, folder: &str, text: &str, findings: &mut Vec<Finding>) {
    let Some(place) = place_of(folder) else {
        let text = format!("`{folder}` has no place in the table of crates");
        findings.push(Finding::whole(path, "crates", text));
        return;
    };
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => {
            findings.push(Finding::whole(path, "syntax", format!("not TOML: {}", error.message())));
            return;
        }
    };
    for name in dependencies(&manifest) {
        let is_ours = name.starts_with("lockstep-") || name == "lockstep" || name == "xtask";
        if is_ours && !place.knows.contains(&name) {
            let text = format!("`{folder}` must not know `{name}`, only {:?}", place.knows);
            findings.push(Finding::whole(path, "crates", text));
        }
        if CORES.contains(&folder) && NOT_IN_CORES.contains(&name) {
            let text = format!("`{name}` is not for a core: it takes input and returns effects");
            findings.push(Finding::whole(path, "crates", text));
        }
    }
}

/// Names of what the crate itself is built from; what its tests use is free.
fn dependencies(manifest: &toml::Table) -> Vec<&str> {
    let sections = ["dependencies", "build-dependencies"];
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let sections = tables.into_iter().flat_map(|table| {
        sections.into_iter().filter_map(|section| table.get(section)?.as_table())
    });
    sections
        .flat_map(|section| section.iter().map(|(key, value)| package_name(key, value)))
        .collect()
}

/// A dependency may go by another name here.
fn package_name<'a>(key: &'a str, value: &'a toml::Value) -> &'a str {
    value.get("package").and_then(toml::Value::as_str).unwrap_or(key)
}

fn check_no_std(source: &RustFile, file: &[&str], std: &Std, findings: &mut Vec<Finding>) {
    if file == ["lib.rs"] && !source.is_no_std {
        let text = "`#![no_std]` is missing".into();
        findings.push(Finding::whole(&source.path, "no_std", text));
    }
    if matches!(std, Std::OnlyIn(host) if file == [*host]) {
        return;
    }
    for &line in &source.std_uses {
        let text = "`std` outside tests; take it as an argument, or use `core`".into();
        findings.push(Finding::at(&source.path, line, "no_std", text));
    }
}

fn place_of(folder: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.folder == folder)
}
