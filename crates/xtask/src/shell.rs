//! Running other programs, and the one way in which a task can fail.
//!
//! Every command line is printed before it runs, so that a person can repeat it by hand; none of
//! them can wait for an answer, since standard input is closed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{fmt, fs, io};

/// Why a task did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The program could not be started.
    Start { program: String, source: io::Error },
    /// The program ran and said no.
    Ended { program: String, status: ExitStatus },
    /// What the program printed is not what it should print.
    Output { program: String, text: String },
    /// A file could not be read or written.
    File { path: PathBuf, source: io::Error },
    /// A file was read, and its content makes no sense.
    Content { path: PathBuf, text: String },
    /// A tool is not on this machine and was not installed.
    Missing { tool: &'static str, reason: String },
    /// So many places break a rule; each was printed.
    Findings { count: usize },
    /// So many suites failed; each was printed.
    Suites { count: usize },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { program, .. } => write!(f, "`{program}` could not be started"),
            Self::Ended { program, status } => write!(f, "`{program}` ended with {status}"),
            Self::Output { program, text } => write!(f, "`{program}` printed `{text}`"),
            Self::File { path, .. } => write!(f, "`{}` could not be used", path.display()),
            Self::Content { path, text } => write!(f, "`{}`: {text}", path.display()),
            Self::Missing { tool, reason } => write!(f, "`{tool}` is missing: {reason}"),
            Self::Findings { count } => write!(f, "{count} findings"),
            Self::Suites { count } => write!(f, "{count} suites failed"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { source, .. } | Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Prints the command line, runs it to its end, and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    println!("$ {}", line(command));
    let program = name(command);
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Ended { program, status }),
        Err(source) => Err(Failure::Start { program, source }),
    }
}

/// What the command prints on standard output; its errors are not shown.
pub(crate) fn read(command: &mut Command) -> Result<String, Failure> {
    let program = name(command);
    match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)
            .map_err(|error| Failure::Output { program, text: error.to_string() }),
        Ok(output) => Err(Failure::Ended { program, status: output.status }),
        Err(source) => Err(Failure::Start { program, source }),
    }
}

/// Where `program` stands on the `PATH`, if it does.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Writes a file, making its folder when need be.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: path.to_path_buf(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, content).map_err(failed)
}

/// The command as a person would type it; what it adds to the environment comes first.
fn line(command: &Command) -> String {
    let settings = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}={}", name.display(), quoted(value)))
    });
    let arguments = command.get_args().map(quoted);
    settings.chain([name(command)]).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn name(command: &Command) -> String {
    command.get_program().display().to_string()
}

fn quoted(word: &OsStr) -> String {
    let text = word.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("cargo");
        command.args(["doc", "-E", "not kind(test)"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(line(&command), "RUSTDOCFLAGS='-D warnings' cargo doc -E 'not kind(test)'");
    }

    #[test]
    fn a_command_that_fails_names_itself_and_its_exit() {
        let failure = run(&mut Command::new("false")).expect_err("`false` always fails");
        assert_eq!(failure.to_string(), "`false` ended with exit status: 1");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_fails() {
        let failure = run(&mut Command::new("no-such-program")).expect_err("there is none");
        assert!(matches!(failure, Failure::Start { .. }), "{failure}");
    }
}
