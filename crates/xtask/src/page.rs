//! Makes the pages of a device small: `source.html` and `setup-source.html`, which people read,
//! become `ota.html` and `setup.html`, which a device carries in its flash and serves as they are.
//!
//! Only the layout, the names inside the script and the marks that HTML does not need go; words and
//! elements stay. The result is kept in the repository, so that building a device needs no tool of
//! the web, and it names the source it was made from, so that a test notices when it is old.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::machine::{Machine, Tool};
use crate::shell::{self, Failure};

/// Writes the pages anew.
pub(crate) fn make(machine: &Machine) -> Result<(), Failure> {
    machine.provide(&[Tool::Terser]);
    machine.require(Tool::Terser)?;
    let folder = machine.root.join(FOLDER);
    for (source, page) in PAGES {
        let text = read(&folder.join(source))?;
        let small = smaller(machine, &text)?;
        println!("{page}: {} bytes of source, {} bytes to serve", text.len(), small.len());
        shell::write(&folder.join(page), small.as_bytes())?;
    }
    Ok(())
}

fn smaller(machine: &Machine, source: &str) -> Result<String, Failure> {
    let content = |text: &str| Failure::Content { path: FOLDER.into(), text: text.into() };
    let cut = source.split_once("<script>\n").and_then(|(head, rest)| {
        let (script, foot) = rest.split_once("</script>")?;
        Some((head, script, foot))
    });
    let (head, script, foot) = cut.ok_or_else(|| content("a source has no script"))?;
    let file = machine.target.join("page/script.js");
    shell::write(&file, script.as_bytes())?;
    let mut terser = Command::new("node");
    terser.arg(machine.npm().join("terser/bin/terser")).arg(&file);
    let script = shell::read(terser.args(TERSER_OPTIONS))?;
    let made_from = digest(source);
    let head = without_ends(&with_bare_values(&with_short_names(&joined(head))));
    let foot = without_ends(&with_bare_values(&joined(foot)));
    Ok(format!("{head}<script>{}</script>{foot}\n<!-- {made_from} -->\n", script.trim_end()))
}

/// The lines without what indents them. Rules of the style sheet end where their lines do, and so
/// do most tags; elsewhere a line break is a blank, and stays.
fn joined(text: &str) -> String {
    let (mut out, mut is_style) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        is_style |= line == "<style>";
        is_style &= line != "</style>";
        out += line;
        let ends_block = line.ends_with('>') && !line.ends_with("</b>");
        out += if is_style || ends_block { "" } else { "\n" };
    }
    out
}

/// Custom properties are named for people; one letter is enough for a browser.
fn with_short_names(head: &str) -> String {
    let names = head.split("--").skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once([':', ')'])?;
        name.bytes().all(|letter| letter.is_ascii_lowercase()).then_some(name)
    });
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable_by_key(|name| (name.len(), *name));
    names.dedup();
    // The longest first, since one name may begin like another.
    let short = names.iter().rev().zip('a'..='z');
    short.fold(head.to_owned(), |text, (name, letter)| {
        text.replace(&format!("--{name}"), &format!("--{letter}"))
    })
}

/// Values of attributes that are one plain word need no quotation marks, if a blank or the end of
/// the element follows.
fn with_bare_values(html: &str) -> String {
    let mut parts = html.split("=\"");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('=');
        let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
        out += &match part.split_once('"') {
            Some((value, rest))
                if !value.is_empty()
                    && value.bytes().all(is_plain)
                    && rest.starts_with([' ', '\n', '>']) =>
            {
                format!("{value}{rest}")
            }
            _ => format!("\"{part}"),
        };
    }
    out
}

/// Some elements begin or end by themselves where others do: the tree stays the same.
fn without_ends(html: &str) -> String {
    let mut out = html.to_owned();
    for (end, followers) in ENDS {
        for follower in *followers {
            out = out.replace(&format!("{end}{follower}"), follower);
        }
    }
    out
}

/// The front of the source's SHA-256 in hexadecimal, which the page ends with.
fn digest(source: &str) -> String {
    Sha256::digest(source.as_bytes()).iter().take(DIGEST_BYTES).fold(
        String::new(),
        |mut text, byte| {
            let _never_fails = write!(text, "{byte:02x}");
            text
        },
    )
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|source| Failure::File { path: path.to_path_buf(), source })
}

const FOLDER: &str = "crates/device/src/http/page";
/// What people read, and what a device serves.
const PAGES: &[(&str, &str)] = &[("source.html", "ota.html"), ("setup-source.html", "setup.html")];
/// What may be left out, and before what.
const ENDS: &[(&str, &[&str])] = &[
    ("</p>", &["<p>", "<p ", "<div", "<form", "<h3", "<table", "</div>", "</form>", "</section>"]),
    ("</th>", &["<th>", "</tr>"]),
    ("</tr>", &["</thead>"]),
    ("<head>", &["<meta"]),
    ("</head><body>", &["<header>"]),
    ("</body></html>", &[""]),
];
/// Enough to notice a change.
const DIGEST_BYTES: usize = 8;
const TERSER_OPTIONS: &[&str] = &[
    "--toplevel",
    "--ecma",
    "2020",
    "--mangle",
    "--compress",
    "passes=3,unsafe_arrows,pure_getters",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_values_lose_their_marks() {
        let html = r#"<p id="a-1" class="b c" hidden><rect x="10"/><i title="">=</i>"#;
        let small = r#"<p id=a-1 class="b c" hidden><rect x="10"/><i title="">=</i>"#;
        assert_eq!(with_bare_values(html), small);
        assert_eq!(with_bare_values("no element"), "no element");
    }

    #[test]
    fn ends_are_left_out_only_where_the_tree_stays_the_same() {
        let html = "<div><p>a</p><p>b</p><progress></progress><p>c</p></div>";
        assert_eq!(without_ends(html), "<div><p>a<p>b</p><progress></progress><p>c</div>");
    }
}
