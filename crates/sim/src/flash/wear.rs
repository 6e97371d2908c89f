//! How often each sector was erased over the whole life of a flash: a file beside it, that goes on
//! counting over power cuts. A chip has no such counter; its sectors wear out all the same.
//!
//! Layout: one u32, little endian, for each sector.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::SECTOR_SIZE_BYTES;

/// Erases of each sector since the file was made.
#[derive(Debug)]
pub struct Wear {
    file: File,
    erases: Vec<u32>,
}

impl Wear {
    /// Goes on counting in the file at `path`, or begins with zeros.
    pub fn open(path: &Path, capacity_bytes: u32) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let sectors = (capacity_bytes / SECTOR_SIZE_BYTES) as usize;
        let mut bytes = vec![0; sectors * COUNT_BYTES];
        let known = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let known = known.min(bytes.len());
        if let Some(known) = bytes.get_mut(..known) {
            file.read_exact_at(known, 0)?;
        }
        Ok(Self { file, erases: counts(&bytes) })
    }

    /// What a file says without being counted on.
    pub fn read(path: &Path) -> io::Result<Vec<u32>> {
        std::fs::read(path).map(|bytes| counts(&bytes))
    }

    /// One more erase, durable as the flash itself is.
    pub(super) fn count(&mut self, sector_offset: u32) -> io::Result<()> {
        let sector = (sector_offset / SECTOR_SIZE_BYTES) as usize;
        let Some(erases) = self.erases.get_mut(sector) else { return Ok(()) };
        *erases = erases.saturating_add(1);
        self.file.write_all_at(&erases.to_le_bytes(), (sector * COUNT_BYTES) as u64)
    }
}

fn counts(bytes: &[u8]) -> Vec<u32> {
    let (counts, _cut) = bytes.as_chunks();
    counts.iter().map(|count| u32::from_le_bytes(*count)).collect()
}

const COUNT_BYTES: usize = size_of::<u32>();
