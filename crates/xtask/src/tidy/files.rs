//! Rules about files that name files: golden files, links in documents, and modules that no other
//! file declares (their tests would never run, and nobody would notice).

use pulldown_cmark::{Event, Parser, Tag};

use super::tokens::RustFile;
use super::{Finding, Tree};

const GOLDEN: &str = "golden/";

pub(super) fn check(tree: &Tree, sources: &[RustFile], findings: &mut Vec<Finding>) {
    for source in sources {
        check_golden_files(tree, source, findings);
        check_declared(sources, source, findings);
    }
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        check_links(tree, path, text, findings);
    }
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
        if text.lines().any(|line| line.replace(' ', "") == "autotests=false") {
            let text = "`autotests = false` hides new files in `tests/`".into();
            findings.push(Finding::whole(path, "forgotten", text));
        }
    }
}

/// A test that names a golden file must not be able to pass because the file is gone.
fn check_golden_files(tree: &Tree, source: &RustFile, findings: &mut Vec<Finding>) {
    let Some(home) = crate_folder(&source.path) else { return };
    for (line, literal) in &source.strings {
        let text = literal.trim_matches('"');
        // With one of these in it, it is a pattern or prose; without an ending, a folder.
        let Some(start) = text.rfind(GOLDEN).filter(|_| !text.contains(['{', ' ', '\\'])) else {
            continue;
        };
        let Some(name) = text.get(start..).filter(|name| name.contains('.')) else { continue };
        // A path into the tests of another crate says which.
        let before = text.get(..start).and_then(|before| before.strip_suffix("/tests/"));
        let other = before.and_then(|before| before.rsplit('/').next());
        let other = other.filter(|name| !["", ".", ".."].contains(name));
        let home = other.map_or_else(|| home.to_owned(), |other| format!("crates/{other}"));
        if !tree.has(&format!("{home}/tests/{name}")) {
            let text = format!("`{name}` is not in `{home}/tests`");
            findings.push(Finding::at(&source.path, *line, "golden", text));
        }
    }
}

/// Every file but a crate's root must be some neighbour's module, by `mod` or by `#[path]`.
fn check_declared(sources: &[RustFile], source: &RustFile, findings: &mut Vec<Finding>) {
    let Some((folder, name)) = module_of(&source.path) else { return };
    let is_declared = sources.iter().any(|other| {
        let is_parent = other.path == format!("{folder}.rs")
            || other
                .path
                .strip_prefix(folder)
                .is_some_and(|rest| rest.strip_prefix('/').is_some_and(|file| !file.contains('/')));
        let is_named = other.modules.iter().any(|found| found == name)
            || other.strings.iter().any(|(_, path)| *path == format!("\"{name}.rs\""));
        is_parent && other.path != source.path && is_named
    });
    if !is_declared {
        let text = format!("no `mod {name};` in `{folder}`: it is never compiled");
        findings.push(Finding::whole(&source.path, "forgotten", text));
    }
}

/// The folder in which a file's parent stands, and the file's module name; `None` for files that
/// cargo finds by itself.
fn module_of(path: &str) -> Option<(&str, &str)> {
    let (folder, file) = path.rsplit_once('/')?;
    let name = file.strip_suffix(".rs")?;
    let (above, own) = folder.rsplit_once('/').unwrap_or(("", folder));
    let is_in_src = format!("{above}/").contains("/src/");
    let is_found_by_cargo = match own {
        "bin" => true,
        "tests" | "benches" | "examples" => !is_in_src,
        _ => false,
    };
    let is_root = is_found_by_cargo || matches!(name, "main" | "lib" | "build");
    match name {
        "mod" => Some((above, own)),
        _ if is_root => None,
        _ => Some((folder, name)),
    }
}

/// A link to a file must lead somewhere.
fn check_links(tree: &Tree, path: &str, text: &str, findings: &mut Vec<Finding>) {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (event, range) in Parser::new(text).into_offset_iter() {
        let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event else {
            continue;
        };
        let file = dest_url.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
            continue;
        }
        let is_there =
            resolve(folder, file).is_some_and(|found| found.is_empty() || tree.has(&found));
        if !is_there {
            let line = text.get(..range.start).unwrap_or_default().matches('\n').count() + 1;
            let text = format!("`{file}` leads nowhere");
            findings.push(Finding::at(path, line, "links", text));
        }
    }
}

/// The path from the workspace's folder; `None` when it leaves the workspace.
fn resolve(folder: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => (),
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// `crates/NAME`, when the file belongs to one.
fn crate_folder(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("crates/")?;
    path.get(.."crates/".len() + rest.find('/')?)
}
