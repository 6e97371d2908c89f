//! Everything that is durable in a server's folder, in one file, and back. The server may run
//! meanwhile: the database is copied as it is at one moment, and a bundle that is there never
//! changes.
//!
//! The file is a tar: the database first, then the server's own certificate authority if it has
//! one, then the bundles. A backup that was cut off, or damaged,
//! is found when it is put back: nothing is in its place before all of it was read and looked at.
//!
//! # Not here
//!
//! PostgreSQL and S3, which have tools of their own for this.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use lockstep_proto::id::Sha256;
use sha2::Digest as _;

use crate::objects::place;
use crate::store::releases::Release;
use crate::store::{DATABASE_FILE, Store, StoreError};

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Groups in the database.
    pub groups: u64,
    /// Releases, each with its bundle.
    pub releases: usize,
    /// Size of the file in bytes.
    pub size_bytes: u64,
}

/// Why there is no backup, or why it was not put back.
#[derive(Debug)]
pub enum BackupError {
    /// There is no server's folder.
    NoData(PathBuf),
    /// There is something already where it should go.
    Exists(PathBuf),
    /// A file could not be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// The database cannot be copied, or read.
    Store(StoreError),
    /// It has something in it that no backup has.
    Strange(String),
    /// A bundle is missing, or not what it should be.
    Bundle {
        /// Of which release.
        version: String,
        /// Its identity.
        sha256: String,
    },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoData(path) => {
                write!(f, "`{}` is no server's folder: it has no `{DATABASE_FILE}`", path.display())
            }
            Self::Exists(path) => write!(f, "`{}` is there already", path.display()),
            Self::File { path, .. } => write!(f, "`{}` could not be used", path.display()),
            Self::Store(error) => error.fmt(f),
            Self::Strange(name) => write!(f, "`{name}` has no place in a backup"),
            Self::Bundle { version, sha256 } => {
                write!(f, "bundle `{sha256}` of release {version} is missing, or damaged")
            }
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Store(error) => error.source(),
            Self::NoData(_) | Self::Exists(_) | Self::Strange(_) | Self::Bundle { .. } => None,
        }
    }
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Writes everything in the folder `data` into the file `into`, which must not be there.
pub async fn back_up(data: &Path, into: &Path) -> Result<Summary, BackupError> {
    if !data.join(DATABASE_FILE).is_file() {
        return Err(BackupError::NoData(data.to_owned()));
    }
    if into.exists() {
        return Err(BackupError::Exists(into.to_owned()));
    }
    let folder = into.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let copy = tempfile::tempdir_in(folder).map_err(|source| file(folder, source))?;
    let database = copy.path().join(DATABASE_FILE);
    let store = Store::open(&Store::url_in(data)).await?;
    store.copy_to(&database).await?;
    store.close().await;
    // What the copy knows of is what must come along, whatever is uploaded meanwhile.
    let (groups, releases) = read_copy(copy.path()).await?;
    let part = with_ending(into, ".part");
    let written = write_tar(data, &database, &releases, &part);
    let size_bytes = written.inspect_err(|_| {
        // It may not have been made at all.
        let _ = fs::remove_file(&part);
    })?;
    fs::rename(&part, into).map_err(|source| file(into, source))?;
    Ok(Summary { groups, releases: releases.len(), size_bytes })
}

/// Puts a backup back into the folder `data`, which must not be there, or be empty.
pub async fn restore(from: &Path, data: &Path) -> Result<Summary, BackupError> {
    let is_empty = fs::read_dir(data).map_or(true, |mut entries| entries.next().is_none());
    if data.exists() && !is_empty {
        return Err(BackupError::Exists(data.to_owned()));
    }
    let beside = with_ending(data, ".restoring");
    if beside.exists() {
        return Err(BackupError::Exists(beside));
    }
    let restored = restore_into(from, &beside).await;
    let summary = match restored {
        Ok(summary) => summary,
        Err(error) => {
            let _ = fs::remove_dir_all(&beside);
            return Err(error);
        }
    };
    if data.exists() {
        fs::remove_dir(data).map_err(|source| file(data, source))?;
    }
    fs::rename(&beside, data).map_err(|source| file(data, source))?;
    Ok(summary)
}

async fn restore_into(from: &Path, folder: &Path) -> Result<Summary, BackupError> {
    let opened = File::open(from).map_err(|source| file(from, source))?;
    let size_bytes = opened.metadata().map(|it| it.len()).unwrap_or(0);
    fs::create_dir_all(folder).map_err(|source| file(folder, source))?;
    let mut tar = tar::Archive::new(BufReader::new(opened));
    let entries = tar.entries().map_err(|source| file(from, source))?;
    for entry in entries {
        let mut entry = entry.map_err(|source| file(from, source))?;
        let name = entry.path().map(|it| it.display().to_string()).unwrap_or_default();
        let is_ours = name == DATABASE_FILE || name == AUTHORITY_FILE || is_bundle(&name);
        if !is_ours || entry.header().entry_type() != tar::EntryType::Regular {
            return Err(BackupError::Strange(crate::fleet::excerpt(&name)));
        }
        let path = folder.join(&name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|source| file(parent, source))?;
        let mut into = create(&path).map_err(|source| file(&path, source))?;
        io::copy(&mut entry, &mut into).map_err(|source| file(&path, source))?;
        into.sync_all().map_err(|source| file(&path, source))?;
    }
    if !folder.join(DATABASE_FILE).is_file() {
        return Err(BackupError::NoData(from.to_owned()));
    }
    let (groups, releases) = read_copy(folder).await?;
    for release in &releases {
        check_bundle(folder, release)?;
    }
    Ok(Summary { groups, releases: releases.len(), size_bytes })
}

/// `objects/bundles/XX/DIGITS.lockstep`, and nothing that leads elsewhere.
fn is_bundle(name: &str) -> bool {
    let digits = name.rsplit('/').next().and_then(|name| name.strip_suffix(".lockstep"));
    let digest = digits.and_then(Sha256::from_hex);
    digest.is_some_and(|digest| name == format!("objects/{}", place(digest)))
}

/// How many groups there are, and all releases.
async fn read_copy(folder: &Path) -> Result<(u64, Vec<Release>), BackupError> {
    let store = Store::open(&Store::url_in(folder)).await?;
    let groups = store.census().await?.iter().map(|count| count.groups).sum();
    let releases = store.all_releases().await?;
    store.close().await;
    Ok((groups, releases))
}

fn write_tar(
    data: &Path,
    database: &Path,
    releases: &[Release],
    into: &Path,
) -> Result<u64, BackupError> {
    let made = create(into).map_err(|source| file(into, source))?;
    let mut tar = tar::Builder::new(BufWriter::new(made));
    tar.append_path_with_name(database, DATABASE_FILE).map_err(|source| file(into, source))?;
    let authority = data.join(AUTHORITY_FILE);
    if authority.is_file() {
        let added = tar.append_path_with_name(authority, AUTHORITY_FILE);
        added.map_err(|source| file(into, source))?;
    }
    for release in releases {
        check_bundle(data, release)?;
        let name = name_of(release);
        let added = tar.append_path_with_name(data.join(&name), &name);
        added.map_err(|source| file(into, source))?;
    }
    let finish = || {
        let mut file = tar.into_inner()?;
        file.flush()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    finish().map_err(|source| file(into, source))
}

fn name_of(release: &Release) -> String {
    let digest = Sha256::from_hex(&release.bundle_sha256).unwrap_or(Sha256([0; 32]));
    format!("objects/{}", place(digest))
}

/// Whether a release's bundle is there, and is what it was.
fn check_bundle(folder: &Path, release: &Release) -> Result<(), BackupError> {
    let bad = || BackupError::Bundle {
        version: release.version.clone(),
        sha256: release.bundle_sha256.clone(),
    };
    let mut bundle = File::open(folder.join(name_of(release))).map_err(|_| bad())?;
    let (mut digest, mut buffer) = (sha2::Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let count = bundle.read(&mut buffer).map_err(|_| bad())?;
        if count == 0 {
            break;
        }
        digest.update(buffer.get(..count).unwrap_or_default());
    }
    let found = Sha256(digest.finalize().into());
    if found.to_string() == release.bundle_sha256 { Ok(()) } else { Err(bad()) }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A new file, which only its owner reads: there are secrets among these.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn file(path: &Path, source: io::Error) -> BackupError {
    BackupError::File { path: path.to_owned(), source }
}

/// Where the server's own certificate authority is, in its folder.
const AUTHORITY_FILE: &str = "tls/authority.pem";
const CHUNK_BYTES: usize = 64 * 1024;

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
