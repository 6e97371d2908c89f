//! Each rule is shown to fire on what breaks it, and to be silent on what does not.

use super::*;

/// Findings as `rule@line`, for a tree of the files given.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
    let name = |finding: Finding| format!("{}@{}", finding.rule, finding.line);
    check(&Tree { files }).into_iter().map(name).collect()
}

/// Findings in one file that belongs to no crate with rules of its own.
fn found_in(text: &str) -> Vec<String> {
    found(&[("crates/sim/src/main.rs", text)])
}

fn core(text: &str) -> Vec<String> {
    found(&[("crates/agent/src/lib.rs", text)])
}

fn manifest(folder: &str, text: &str) -> Vec<String> {
    found(&[(&format!("crates/{folder}/Cargo.toml"), text)])
}

#[test]
fn a_small_clean_file_has_no_findings() {
    assert_eq!(found_in("//! A file.\n\nfn main() {}\n"), [""; 0]);
}

#[test]
fn a_file_must_open_with_what_it_is() {
    assert_eq!(found_in("// A file.\nfn main() {}\n"), ["header@1"]);
    assert_eq!(found_in(""), ["header@1"]);
}

#[test]
fn columns_are_counted_in_letters_not_bytes() {
    let arrows = "→".repeat(97);
    assert_eq!(found_in(&format!("//! A file.\n// {arrows}\n")), [""; 0]);
    assert_eq!(found_in(&format!("//! A file.\n// {arrows}→\n")), ["columns@2"]);
}

#[test]
fn only_what_cannot_be_broken_may_be_wide_and_only_in_a_comment() {
    let address = format!("https://example.org/{}", "a".repeat(100));
    assert_eq!(found_in(&format!("//! A file.\n// {address}\n")), [""; 0]);
    assert_eq!(found_in(&format!("//! A file.\n//! | {} |\n", "a".repeat(100))), [""; 0]);
    assert_eq!(found_in(&format!("//! A file.\nconst A: &str = \"{address}\";\n")), ["columns@2"]);
}

/// What a program must answer is compared in one line.
#[test]
fn a_tests_expected_text_may_be_wide() {
    let line = format!("//! A file.\nconst A: &str = \"{}\";\n", "a".repeat(100));
    let mut findings = Vec::new();
    super::words::check("crates/x/tests/a.rs", &line, &mut findings);
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn words_that_mark_unfinished_work_are_refused() {
    for word in [concat!("FIX", "ME"), concat!("XX", "X"), concat!("For", " now"), "a/../shared/b"]
    {
        let text = format!("//! A file.\n\n// {word}: later\n");
        assert_eq!(found_in(&text), ["words@3"], "{word}");
    }
}

#[test]
fn a_word_inside_another_is_not_that_word() {
    assert_eq!(found_in(concat!("//! A file.\n// 0xXX", "X_, for", " nowhere\n")), [""; 0]);
}

#[test]
fn unfinished_macros_are_refused_wherever_they_stand() {
    for name in ["todo", "unimplemented", "dbg"] {
        let text = format!("//! A file.\nfn main() {{\n    call!({name}!(1));\n}}\n");
        assert_eq!(found_in(&text), ["words@3"], "{name}");
        let text =
            format!("//! A file.\n// {name}!() in a comment\nconst A: &str = \"{name}!()\";\n");
        assert_eq!(found_in(&text), [""; 0], "{name}");
    }
}

#[test]
fn a_test_may_look_outside_when_a_variable_says_where() {
    let text =
        format!("//! A file.\nfn f() {{ env(\"LOCKSTEP_FIRMWARE\", \"{}\") }}\n", "../shared");
    assert_eq!(found_in(&text), [""; 0]);
}

/// A function of so many lines, closing brace included.
fn function(lines: usize) -> String {
    format!("fn long() {{\n{}}}\n", "    call();\n".repeat(lines - 2))
}

#[test]
fn a_function_has_at_most_70_lines() {
    assert_eq!(found_in(&format!("//! A file.\n{}", function(70))), [""; 0]);
    assert_eq!(found_in(&format!("//! A file.\n{}", function(71))), ["function length@2"]);
}

#[test]
fn a_function_inside_a_macro_or_a_test_counts_as_well() {
    let text = format!("//! A file.\nproptest! {{\n{}}}\n", function(71));
    assert_eq!(found_in(&text), ["function length@3"]);
    let text = format!("//! A file.\n#[cfg(test)]\nmod tests {{\n{}}}\n", function(71));
    assert_eq!(found_in(&text), ["function length@4"]);
}

#[test]
fn comments_and_attributes_above_a_function_do_not_count() {
    let text = format!("//! A file.\n/// About it.\n#[inline]\n{}", function(70));
    assert_eq!(found_in(&text), [""; 0]);
}

#[test]
fn a_file_has_at_most_600_lines_without_the_tests_at_its_end() {
    let code = format!("//! A file.\n{}", "const A: u8 = 1;\n".repeat(599));
    let tests = "#[cfg(test)]\nmod tests {\n    const B: u8 = 1;\n}\n";
    assert_eq!(found_in(&code), [""; 0]);
    assert_eq!(found_in(&format!("{code}{tests}")), [""; 0]);
    assert_eq!(found_in(&format!("{code}const A: u8 = 1;\n{tests}")), ["file length@0"]);
    assert_eq!(found_in(&format!("//! A file.\n{tests}{code}")), ["file length@0"]);
}

#[test]
fn a_file_of_tests_may_be_longer() {
    let text = format!("//! A file.\n{}", "const A: u8 = 1;\n".repeat(700));
    assert_eq!(found(&[("crates/sim/tests/crash.rs", &text)]), [""; 0]);
}

#[test]
fn what_is_not_rust_is_said_and_not_passed_over() {
    assert_eq!(found_in("//! A file.\nfn main() {\n"), ["syntax@0"]);
}

#[test]
fn a_core_without_no_std_is_refused() {
    assert_eq!(core("//! A core.\n"), ["no_std@0"]);
    assert_eq!(core("//! A core.\n#![cfg_attr(not(test), no_std)]\n"), ["no_std@0"]);
    assert_eq!(core("//! A core.\n#![no_std]\n"), [""; 0]);
}

#[test]
fn a_core_may_use_std_in_tests_only() {
    let head = "//! A core.\n#![no_std]\n";
    assert_eq!(core(&format!("{head}use std::time::Instant;\n")), ["no_std@3"]);
    assert_eq!(core(&format!("{head}fn f() {{ std::process::exit(1) }}\n")), ["no_std@3"]);
    assert_eq!(core(&format!("{head}extern crate std;\n")), ["no_std@3"]);
    let tests = "#[cfg(test)]\nextern crate std;\n#[cfg(test)]\nmod tests { use std::vec; }\n";
    assert_eq!(core(&format!("{head}{tests}")), [""; 0]);
    assert_eq!(core(&format!("{head}{tests}use std::vec;\n")), ["no_std@7"]);
}

#[test]
fn code_for_all_but_tests_is_not_test_code() {
    let text = "//! A core.\n#![no_std]\n#[cfg(not(test))]\nuse std::vec;\n";
    assert_eq!(core(text), ["no_std@4"]);
}

#[test]
fn the_encoder_of_patches_is_for_hosts_and_the_decoder_is_not() {
    let text = "//! It.\nextern crate std;\nuse std::io;\n";
    let library = ("crates/delta/src/lib.rs", "//! It.\n#![no_std]\npub mod encode;\nmod apply;\n");
    let core = ("crates/delta/src/apply.rs", "//! It.\n");
    assert_eq!(found(&[library, ("crates/delta/src/encode.rs", text), core]), [""; 0]);
    let host = ("crates/delta/src/encode.rs", "//! It.\n");
    let found = found(&[library, host, ("crates/delta/src/apply.rs", text)]);
    assert_eq!(found, ["no_std@2", "no_std@3"]);
}

#[test]
fn the_command_may_use_std() {
    assert_eq!(found(&[("crates/cli/src/main.rs", "//! It.\nuse std::fs;\n")]), [""; 0]);
}

#[test]
fn a_crate_knows_only_those_below_it() {
    let proto = "[dependencies]\nlockstep-proto.workspace = true\n";
    assert_eq!(manifest("agent", proto), [""; 0]);
    assert_eq!(manifest("rollout", "[dependencies]\nlockstep-agent = \"1\"\n"), ["crates@0"]);
    assert_eq!(manifest("agent", "[dependencies]\nlockstep-rollout = \"1\"\n"), ["crates@0"]);
    assert_eq!(manifest("device", "[dependencies]\nlockstep-sim = \"1\"\n"), ["crates@0"]);
    assert_eq!(manifest("proto", "[build-dependencies]\nlockstep-agent = \"1\"\n"), ["crates@0"]);
}

#[test]
fn another_name_or_a_condition_hides_no_dependency() {
    let renamed = "[dependencies]\nfriend = { package = \"lockstep-sim\", path = \"../sim\" }\n";
    assert_eq!(manifest("device", renamed), ["crates@0"]);
    let conditional = "[target.'cfg(unix)'.dependencies]\nlockstep-sim.workspace = true\n";
    assert_eq!(manifest("device", conditional), ["crates@0"]);
}

#[test]
fn a_core_depends_on_nothing_that_logs_or_draws_or_waits() {
    for name in NOT_IN_CORES_SAMPLE {
        assert_eq!(manifest("rollout", &format!("[dependencies]\n{name} = \"1\"\n")), ["crates@0"]);
        assert_eq!(manifest("cli", &format!("[dependencies]\n{name} = \"1\"\n")), [""; 0]);
    }
}

const NOT_IN_CORES_SAMPLE: [&str; 4] = ["log", "tracing", "rand", "tokio"];

#[test]
fn tests_of_a_core_may_use_what_they_like() {
    assert_eq!(manifest("proto", "[dev-dependencies]\nrand = \"1\"\n"), [""; 0]);
}

#[test]
fn a_new_crate_needs_a_place() {
    assert_eq!(manifest("utils", "[package]\nname = \"utils\"\n"), ["crates@0"]);
}

#[test]
fn a_golden_file_named_by_a_test_must_be_there() {
    let test = "//! Tests.\nconst A: &[u8] = include_bytes!(\"golden/announce.bin\");\n";
    let path = "crates/proto/tests/frames.rs";
    let golden = |folder| format!("crates/{folder}/tests/golden/announce.bin");
    assert_eq!(found(&[(path, test)]), ["golden@2"]);
    assert_eq!(found(&[(path, test), (&golden("proto"), "")]), [""; 0]);
    assert_eq!(found(&[(path, test), (&golden("agent"), "")]), ["golden@2"]);
    let test = "//! T.\nconst A: &str = include_str!(\"../../agent/tests/golden/announce.bin\");\n";
    assert_eq!(found(&[(path, test), (&golden("proto"), "")]), ["golden@2"]);
    assert_eq!(found(&[(path, test), (&golden("agent"), "")]), [""; 0]);
}

#[test]
fn a_module_that_nobody_declares_is_found() {
    let lib = ("crates/sim/src/lib.rs", "//! It.\nmod world;\n");
    let world = ("crates/sim/src/world.rs", "//! It.\n#[cfg(test)]\nmod tests;\n");
    let tests = ("crates/sim/src/world/tests.rs", "//! Tests.\n");
    assert_eq!(found(&[lib, world, tests]), [""; 0]);
    assert_eq!(found(&[lib, tests]), ["forgotten@0"]);
    assert_eq!(found(&[lib, world, ("crates/sim/src/radio.rs", "//! It.\n")]), ["forgotten@0"]);
    assert_eq!(found(&[("crates/sim/src/lib.rs", "//! It.\n"), world]), ["forgotten@0"]);
}

#[test]
fn a_folder_of_shared_test_code_must_be_declared_too() {
    let common = ("crates/sim/tests/board/mod.rs", "//! It.\n");
    assert_eq!(found(&[("crates/sim/tests/a.rs", "//! It.\nmod board;\n"), common]), [""; 0]);
    assert_eq!(found(&[("crates/sim/tests/a.rs", "//! It.\n"), common]), ["forgotten@0"]);
}

#[test]
fn tests_may_stand_in_a_file_beside_what_they_test() {
    let parent = "//! It.\n#![no_std]\n#[cfg(test)]\n#[path = \"boot_tests.rs\"]\nmod tests;\n";
    let tests = ("crates/agent/src/boot_tests.rs", "//! Tests.\nuse std::vec;\n");
    assert_eq!(found(&[("crates/agent/src/lib.rs", parent), tests]), [""; 0]);
    let without = "//! It.\n#![no_std]\n";
    assert_eq!(found(&[("crates/agent/src/lib.rs", without), tests]), ["forgotten@0"]);
}

#[test]
fn what_cargo_finds_by_itself_needs_no_declaration() {
    for path in ["src/bin/tool.rs", "tests/crash.rs", "benches/speed.rs", "build.rs"] {
        assert_eq!(found(&[(&format!("crates/sim/{path}"), "//! It.\n")]), [""; 0], "{path}");
    }
    assert_eq!(found(&[("crates/sim/src/flash/tests/cut.rs", "//! It.\n")]), ["forgotten@0"]);
}

#[test]
fn tests_must_not_be_listed_by_hand() {
    assert_eq!(manifest("sim", "[package]\nautotests = false\n"), ["forgotten@0"]);
}

#[test]
fn a_link_must_lead_to_a_file_or_a_folder() {
    let text = "# It\n\n[a](docs/a.md#part), [b](crates), [c](#it), [d](https://example.org)\n";
    let file = ("docs/a.md", "[up](../README.md)\n");
    assert_eq!(found(&[("README.md", text), file, ("crates/x/y.txt", "")]), [""; 0]);
    assert_eq!(found(&[("README.md", text), ("crates/x/y.txt", "")]), ["links@3"]);
    assert_eq!(found(&[("README.md", "[out](../other.md)\n")]), ["links@1"]);
    assert_eq!(found(&[("README.md", "`[code](nowhere.md)`\n")]), [""; 0]);
}
