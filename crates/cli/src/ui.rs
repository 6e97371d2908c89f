//! What people see: results, warnings, errors, progress.
//!
//! Results go to standard output and nothing else does, so that it can be piped. Colours and
//! progress bars are for terminals only; with `--json` there are neither.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::error::CommandError;

/// Where a command writes.
#[derive(Debug)]
pub struct Ui {
    is_json: bool,
    bars: MultiProgress,
}

impl Ui {
    /// `is_json`: results are JSON.
    pub fn new(is_json: bool) -> Self {
        // Standard error, and hidden by itself when that is not a terminal.
        let target = match is_json {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        Self { is_json, bars: MultiProgress::with_draw_target(target) }
    }

    /// Whether results are JSON.
    pub const fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether somebody sees progress bars.
    pub fn shows_progress(&self) -> bool {
        !self.bars.is_hidden()
    }

    /// Prints a line of the result; nothing with `--json`.
    pub fn line(&self, text: impl Display) -> Result<(), CommandError> {
        if self.is_json {
            return Ok(());
        }
        self.write_out(&format!("{text}\n"))
    }

    /// Prints the result as JSON; nothing without `--json`.
    pub fn json(&self, value: &Value) -> Result<(), CommandError> {
        if !self.is_json {
            return Ok(());
        }
        self.write_out(&format!("{value:#}\n"))
    }

    /// Prints a result that has one form only, such as a script.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), CommandError> {
        io::stdout().lock().write_all(bytes)?;
        Ok(())
    }

    /// Says something that is neither the result nor an error; nothing with `--json`.
    pub fn note(&self, text: impl Display) {
        if !self.is_json {
            self.write_err(&format!("{text}\n"));
        }
    }

    /// Says that something is not as it should be, although the command goes on.
    pub fn warn(&self, text: impl Display) {
        if !self.is_json {
            self.write_err(&format!("{WARNING}Warning:{WARNING:#} {text}\n"));
        }
    }

    /// Prints an error with its causes and hints.
    pub fn report(&self, error: &CommandError) {
        if error.is_silent() {
            return;
        }
        if self.is_json {
            return self.write_err(&format!("{:#}\n", error.to_json()));
        }
        let mut text = format!("{ERROR}Error:{ERROR:#} {}\n", error.message());
        for cause in error.causes() {
            text += &format!("Caused by: {cause}\n");
        }
        for detail in error.details() {
            text += &format!("- {}\n", detail.text);
            if let Some(hint) = &detail.hint {
                text += &format!("  {HINT}Hint:{HINT:#} {hint}\n");
            }
        }
        for hint in error.hints() {
            text += &format!("{HINT}Hint:{HINT:#} {hint}\n");
        }
        self.write_err(&text);
    }

    /// A bar for `total_bytes` of work that takes time.
    pub fn bytes_bar(&self, label: impl Into<String>, total_bytes: u64) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(total_bytes));
        let style = ProgressStyle::with_template(BYTES_TEMPLATE);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(label.into());
        bar
    }

    /// A line that shows that something is going on.
    pub fn spinner(&self, text: impl Into<String>) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_message(text.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn write_out(&self, text: &str) -> Result<(), CommandError> {
        self.bars.suspend(|| anstream::stdout().lock().write_all(text.as_bytes()))?;
        Ok(())
    }

    fn write_err(&self, text: &str) {
        // Nobody is left to be told when this fails.
        let _ = self.bars.suspend(|| anstream::stderr().lock().write_all(text.as_bytes()));
    }
}

/// Rows in columns: each as wide as its widest cell, two blanks apart.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What a file or a device says, made safe for a terminal: control characters become `U+FFFD`.
pub fn tame(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{FFFD}' } else { letter }).collect()
}

/// Names in a sentence: `a`, `a and b`, `a, b and c`.
pub fn listed<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [many @ .., last] => format!("{} and {last}", many.join(", ")),
    }
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const BYTES_TEMPLATE: &str =
    "{prefix:24} [{bar:30}] {bytes:>10} of {total_bytes:10} {binary_bytes_per_sec:>12} {msg}";
