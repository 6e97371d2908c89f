//! The rules of `STYLE.md` that a program can check, run over every file of the tree.
//!
//! A finding names the file, the line, the rule, and both what was found and what is allowed. No
//! rule has exceptions by file name: where one is too strict, the rule changes, here, for all.
//!
//! # Not here
//!
//! What the compiler and clippy check already: see `[workspace.lints]`.

mod crates;
mod files;
mod tokens;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{fmt, fs};

use crate::shell::{self, Failure};
use tokens::RustFile;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 when it is about the file as a whole.
    line: usize,
    rule: &'static str,
    text: String,
}

/// The files that the rules look at, by path from the workspace's folder. What is not text has the
/// text of an empty file: only its name counts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

/// Checks the tree under `root` and prints every finding.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let tree = Tree::read(root)?;
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, no findings", tree.files.len());
        Ok(())
    } else {
        Err(Failure::Findings { count: findings.len() })
    }
}

/// Everything in `tree` that breaks a rule, in the order of the files.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for (path, text) in &tree.files {
        words::check(path, text, &mut findings);
        if path.ends_with(".rs") {
            match RustFile::parse(path, text) {
                Ok(source) => sources.push(source),
                Err(text) => findings.push(Finding::whole(path, "syntax", text)),
            }
        }
    }
    for source in &sources {
        source.check(&mut findings);
    }
    crates::check(tree, &sources, &mut findings);
    files::check(tree, &sources, &mut findings);
    findings.sort();
    findings
}

impl Tree {
    /// What git tracks or would track: the tree without what is built and ignored.
    fn read(root: &Path) -> Result<Self, Failure> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let names = shell::read(git.current_dir(root))?;
        let mut files = BTreeMap::new();
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let path = root.join(name);
            match fs::read(&path) {
                Ok(bytes) => {
                    files.insert(name.into(), String::from_utf8(bytes).unwrap_or_default());
                }
                // Removed, and git has not been told yet.
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => (),
                Err(source) => return Err(Failure::File { path, source }),
            }
        }
        Ok(Self { files })
    }

    /// Whether there is such a file, or a folder with files in it.
    fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }
}

impl Finding {
    fn at(path: &str, line: usize, rule: &'static str, text: String) -> Self {
        Self { path: path.into(), line, rule, text }
    }

    fn whole(path: &str, rule: &'static str, text: String) -> Self {
        Self::at(path, 0, rule, text)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}: {}", self.path, self.rule, self.text),
            line => write!(f, "{}:{line}: {}: {}", self.path, self.rule, self.text),
        }
    }
}
