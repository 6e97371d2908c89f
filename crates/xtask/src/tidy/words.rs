//! Rules about lines: their length, the file's opening, and words that mark unfinished work.

use super::Finding;

const COLUMNS_MAX: usize = 100;

/// Kinds of text whose words are checked; anything else is data.
const TEXTS: &[&str] = &[".rs", ".md", ".toml", ".sh", ".py", ".html", ".js", ".css", "/run"];

/// In two halves each, so that this file may stand in the tree that it checks.
const WORDS: &[&str] =
    &[concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK"), concat!("TO", "DO")];
const PHRASES: &[&str] = &[concat!("for", " now"), concat!("not yet", " implemented")];

/// Folders beside the workspace exist on few machines; only what asks for them by this variable,
/// and does without when it is not set, may name one.
const OUTSIDE: &str = concat!("../", "shared");
const OUTSIDE_VARIABLE: &str = "LOCKSTEP_FIRMWARE";

pub(super) fn check(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let is_rust = path.ends_with(".rs");
    if is_rust && !text.starts_with("//!") {
        let found = text.lines().next().unwrap_or_default();
        let text = format!("opens with `{found}`, not with `//!` and what the file is");
        findings.push(Finding::at(path, 1, "header", text));
    }
    if !TEXTS.iter().any(|ending| path.ends_with(ending)) {
        return;
    }
    let may_look_outside = text.contains(OUTSIDE_VARIABLE);
    for (index, line) in text.lines().enumerate() {
        let mut add = |rule, text| findings.push(Finding::at(path, index + 1, rule, text));
        let columns = line.chars().count();
        if is_rust && columns > COLUMNS_MAX && !is_unbreakable(path, line) {
            add("columns", format!("{columns} columns, limit {COLUMNS_MAX}"));
        }
        for word in WORDS.iter().filter(|word| has_word(line, word)) {
            add("words", format!("`{word}`: finish it, or say it in an issue"));
        }
        let lower = line.to_lowercase();
        for phrase in PHRASES.iter().filter(|phrase| has_word(&lower, phrase)) {
            add("words", format!("`{phrase}`: finish it, or say what it is instead"));
        }
        if line.contains(OUTSIDE) && !may_look_outside {
            add("words", format!("`{OUTSIDE}` without `{OUTSIDE_VARIABLE}`"));
        }
    }
}

/// An address or a row of a table, in a comment, cannot be broken over two lines; a test's expected
/// text is easier to compare in one.
fn is_unbreakable(path: &str, line: &str) -> bool {
    if path.contains("/tests/") && line.contains('"') {
        return true;
    }
    let Some(comment) = line.trim_start().strip_prefix("//") else { return false };
    let is_row = comment.trim_start_matches(['/', '!', ' ']).starts_with('|');
    is_row || comment.contains("http://") || comment.contains("https://")
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line.get(..start).and_then(|text| text.chars().next_back());
        let after = line.get(start + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_word_letter) && !after.is_some_and(is_word_letter)
    })
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}
