//! The API as a stranger finds it who knows its document and nothing else: schemathesis makes up
//! thousands of requests from it, right ones and wrong ones, and holds every answer against it.
//!
//! Runs where `LOCKSTEP_SCHEMATHESIS` names the program (`cargo xtask test --suite fleet`), on
//! SQLite, and on the PostgreSQL that `LOCKSTEP_TEST_DATABASE` names.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::desk::{BOTH, firmware};
use super::server::{Fleet, database};

#[test]
fn a_stranger_who_reads_the_document_is_answered_as_it_says() {
    let Some(program) = program() else { return };
    explore(&program, &Fleet::new());
}

/// Another database refuses other things: a NUL in a text, a number beyond its column.
#[test]
fn on_postgresql_a_stranger_is_answered_as_the_document_says() {
    let Some(program) = program() else { return };
    let Some(url) = database("contract") else { return };
    explore(&program, &Fleet::with(&format!("--database {url}")));
}

fn program() -> Option<String> {
    let program = std::env::var("LOCKSTEP_SCHEMATHESIS").ok();
    if program.is_none() {
        eprintln!("skipped: LOCKSTEP_SCHEMATHESIS names no program");
    }
    program
}

fn explore(program: &str, fleet: &Fleet) {
    let (group, credential) = lead(fleet);
    let bundles = fleet.path("bundles");
    fs::create_dir(&bundles).unwrap();
    for version in ["1.0.0", "1.1.0"] {
        release(fleet, version);
    }
    fleet.operator("publish bundles/1.0.0.lockstep").succeeds();
    let token = fleet.json("token create stranger --role admin")["token"].take();
    let server = fleet.ask(token.as_str().unwrap());
    let releases: Value = server.get("/api/releases").unwrap();
    let release = releases["releases"][0]["id"].as_str().unwrap();
    let tokens: Value = server.get("/api/tokens").unwrap();
    let own = &tokens["tokens"][0];
    assert_eq!(own["name"], "stranger");
    let kept = format!("{group},{release},{}", own["id"].as_str().unwrap());

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/contract");
    let output = Command::new(program)
        // What it keeps for its next run goes with the server.
        .current_dir(fleet.path(""))
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["run", "--checks", "all", "--no-color"])
        .arg(format!("{}/api/openapi.json", fleet.url()))
        .env("LOCKSTEP_CONTRACT_TOKEN", token.as_str().unwrap())
        .env("LOCKSTEP_CONTRACT_CREDENTIAL", credential)
        .env("LOCKSTEP_CONTRACT_KEPT", kept)
        .env("LOCKSTEP_CONTRACT_RELEASE", release)
        .env("LOCKSTEP_CONTRACT_BUNDLES", &bundles)
        .env("SCHEMATHESIS_HOOKS", folder.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}\n{}", fleet.errors());
    // The end of it, or nothing was asked.
    assert!(said.contains("Stateful"), "{said}");
}

/// A group whose lead is nothing but its credential: the group, and the credential.
fn lead(fleet: &Fleet) -> (String, String) {
    let body = json!({ "token": fleet.token("bench"), "id": "02:00:00:00:00:01" });
    let welcome: Value = fleet.ask("").post("/api/lead/enroll", &body).unwrap();
    let text = |name: &str| welcome[name].as_str().unwrap().to_owned();
    (text("group"), text("credential"))
}

fn release(fleet: &Fleet, version: &str) {
    let mut line =
        format!("release create --version {version} -o bundles/{version}.lockstep --key a.key");
    for role in BOTH {
        let file = format!("{version}-{}.bin", role.name());
        fs::write(fleet.path(&file), firmware(role, version).make().bytes).unwrap();
        line += &format!(" --{} {file}", role.name());
    }
    fleet.operator(&line).succeeds();
}
