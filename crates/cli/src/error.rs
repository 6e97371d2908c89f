//! What a command says when it did not do what it was asked.
//!
//! Every error names what is wrong; its causes stand below it, and where there is a way out there
//! is a hint. A text is a sentence without its full stop, a hint is a whole sentence.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use serde_json::{Value, json};

/// The operation failed, or was refused.
pub const EXIT_FAILED: u8 = 1;
/// The command line makes no sense.
pub const EXIT_USAGE: u8 = 2;
/// Something that must not happen did.
pub const EXIT_BUG: u8 = 255;

/// Why a command ends without success.
#[derive(Debug)]
pub struct CommandError {
    exit: u8,
    message: String,
    causes: Vec<String>,
    details: Vec<Detail>,
    hints: Vec<String>,
    /// Whoever reads our output has gone: nothing to say, and nobody to say it to.
    is_silent: bool,
}

/// One of several things that are wrong.
#[derive(Debug)]
pub struct Detail {
    /// What.
    pub text: String,
    /// The way out of it.
    pub hint: Option<String>,
}

impl CommandError {
    /// The operation failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: EXIT_FAILED,
            message: message.into(),
            causes: Vec::new(),
            details: Vec::new(),
            hints: Vec::new(),
            is_silent: false,
        }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: EXIT_USAGE, ..Self::failed(message) }
    }

    /// Ends with exit code 1 and says no more: the output has said it all.
    pub fn said() -> Self {
        Self { is_silent: true, ..Self::failed("") }
    }

    /// Adds `cause` and what caused it.
    #[must_use]
    pub fn because(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds a way out.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds one of several things that are wrong.
    #[must_use]
    pub fn detailed(mut self, text: impl Into<String>, hint: Option<String>) -> Self {
        self.details.push(Detail { text: text.into(), hint });
        self
    }

    /// What the process exits with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }

    pub(crate) const fn is_silent(&self) -> bool {
        self.is_silent
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn causes(&self) -> &[String] {
        &self.causes
    }

    pub(crate) fn details(&self) -> &[Detail] {
        &self.details
    }

    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// As programs read it.
    pub(crate) fn to_json(&self) -> Value {
        let details = self.details.iter();
        json!({ "error": {
            "message": self.message,
            "causes": self.causes,
            "details": details
                .map(|detail| json!({ "message": detail.text, "hint": detail.hint }))
                .collect::<Vec<_>>(),
            "hints": self.hints,
        }})
    }
}

/// Only for our own output; whoever reads or writes a file names it.
impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        let is_silent = error.kind() == io::ErrorKind::BrokenPipe;
        Self { is_silent, ..Self::failed("Cannot write the output").because(&error) }
    }
}
