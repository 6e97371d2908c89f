//! Files read and written whole, with errors that name them.
//!
//! A file that is written over is replaced as a whole, and only when the new one is complete; of a
//! new file that could not be completed nothing is left.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use crate::error::CommandError;

/// Reads a whole file of at most `limit_bytes`.
pub fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, CommandError> {
    let name = path.display();
    let failed = |error: &std::io::Error| {
        CommandError::failed(format!("Cannot read `{name}`")).because(error)
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(CommandError::failed(format!(
            "`{name}` is larger than {limit_bytes} bytes, the limit for what it is read as"
        ))
        .hinted("Is it the right file? See `lockstep inspect`."));
    }
    Ok(bytes)
}

/// Reads a file that holds a password: its first and only line.
pub fn read_password(path: &Path) -> Result<String, CommandError> {
    let text = String::from_utf8(read(path, PASSWORD_BYTES_MAX)?)
        .map_err(|_| CommandError::failed(format!("`{}` holds no password", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Far more than a password has.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// What to do about a file that is there already, where there is `--force`.
pub const OTHER_FILE: &str =
    "Name another file with -o, or write over an existing one with --force.";

/// Whether an existing file may be written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is left as it is, and that is an error.
    Keep,
    /// It is replaced.
    Replace,
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Whoever the system lets by default.
    Anybody,
    /// Nobody but its owner.
    Owner,
}

/// Writes a whole file in parts.
pub fn write(
    path: &Path,
    parts: &[&[u8]],
    existing: Existing,
    readers: Readers,
) -> Result<(), CommandError> {
    let name = path.display();
    let failed = |error: &std::io::Error| {
        CommandError::failed(format!("Cannot write `{name}`")).because(error)
    };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let target = match existing {
        Existing::Keep => path,
        Existing::Replace => Path::new(&partial),
    };
    let mut file = open(target, existing, readers).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => already_there(path),
        _ => failed(&error),
    })?;
    let mut written = parts.iter().try_for_each(|part| file.write_all(part));
    written = written.and_then(|()| file.sync_all());
    drop(file);
    if existing == Existing::Replace {
        written = written.and_then(|()| fs::rename(target, path));
    }
    written.map_err(|error| {
        // What is left of the attempt is of no use to anybody.
        let _ = fs::remove_file(target);
        failed(&error)
    })
}

fn open(path: &Path, existing: Existing, readers: Readers) -> Result<File, std::io::Error> {
    let mut options = OpenOptions::new();
    match existing {
        Existing::Keep => options.write(true).create_new(true),
        Existing::Replace => options.write(true).create(true).truncate(true),
    };
    #[cfg(unix)]
    if readers == Readers::Owner {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = readers;
    options.open(path)
}

fn already_there(path: &Path) -> CommandError {
    CommandError::failed(format!("`{}` is there already", path.display()))
}
