//! Flash in a file: what a desk device runs on, and what is left of it after `kill -9`.
//!
//! Every operation goes to the file at once, in the order in which it was asked for, page by page
//! and half sector by half sector; one process at a time has the file. Losing the host's own power
//! is not covered: the file is not synced to its disk.

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use embedded_storage::nor_flash::{ErrorType, MultiwriteNorFlash, NorFlash, ReadNorFlash};

use super::{
    BLOCK_SIZE_BYTES, CAPACITY_MAX_BYTES, FlashError, PAGE_SIZE_BYTES, SECTOR_SIZE_BYTES,
    Statistics, Timing, WORD_SIZE_BYTES, Wear, check_range, clear_bits,
};

/// A chip's flash in a file, held by one process at a time.
#[derive(Debug)]
pub struct FileFlash {
    file: File,
    capacity_bytes: u32,
    timing: Timing,
    /// Busy time that was not slept yet: a host cannot sleep for less than about a millisecond.
    owed: Duration,
    statistics: Statistics,
    wear: Option<Wear>,
}

impl FileFlash {
    /// Opens the flash in `path`, or makes one that is erased all over.
    ///
    /// A file that is too short and holds nothing but 0xFF is an interrupted making, and is
    /// completed. Any other size than `capacity_bytes` is refused.
    pub fn open(path: &Path, capacity_bytes: u32, timing: Timing) -> Result<Self, OpenError> {
        let whole_sectors = capacity_bytes.is_multiple_of(SECTOR_SIZE_BYTES);
        if !whole_sectors || !(SECTOR_SIZE_BYTES..=CAPACITY_MAX_BYTES).contains(&capacity_bytes) {
            return Err(OpenError::Capacity { found_bytes: capacity_bytes });
        }
        let io_error =
            |action| move |source| OpenError::Io { action, path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io_error("open"))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                let holder = lock_holder(&file);
                return Err(OpenError::Locked { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock")(source)),
        }
        let found_bytes = file.metadata().map_err(io_error("open"))?.len();
        let expected_bytes = u64::from(capacity_bytes);
        if found_bytes != expected_bytes {
            let blank = found_bytes < expected_bytes
                && is_erased(&file, found_bytes).map_err(io_error("open"))?;
            if !blank {
                let path = path.to_owned();
                return Err(OpenError::WrongSize { path, found_bytes, expected_bytes });
            }
            fill(&file, found_bytes, expected_bytes).map_err(io_error("fill"))?;
        }
        let statistics = Statistics::new(capacity_bytes);
        Ok(Self { file, capacity_bytes, timing, owed: Duration::ZERO, statistics, wear: None })
    }

    /// Changes how long things take from here on.
    pub const fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// Counts every erase in the file at `path` as well, in which earlier ones may stand.
    pub fn count_wear_in(&mut self, path: &Path) -> io::Result<()> {
        self.wear = Some(Wear::open(path, self.capacity_bytes)?);
        Ok(())
    }

    /// What this flash has been through since it was opened.
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Sets one sector to 0xFF, in two halves: whoever dies between them leaves a torn sector.
    fn erase_sector(&mut self, sector_offset: u32, busy: Duration) -> Result<(), FlashError> {
        const HALF: [u8; SECTOR_SIZE_BYTES as usize / 2] = [0xFF; SECTOR_SIZE_BYTES as usize / 2];
        for half_offset in [sector_offset, sector_offset + SECTOR_SIZE_BYTES / 2] {
            self.spend(busy / 2);
            let offset = u64::from(half_offset);
            self.file.write_all_at(&HALF, offset).map_err(|source| FlashError::Io {
                action: "erase",
                offset,
                source,
            })?;
        }
        self.statistics.count_erase(sector_offset);
        let counted = self.wear.as_mut().map_or(Ok(()), |wear| wear.count(sector_offset));
        let offset = u64::from(sector_offset);
        counted.map_err(|source| FlashError::Io { action: "count the erase of", offset, source })
    }

    fn write_page(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let io_error = |source| FlashError::Io { action: "write", offset: offset.into(), source };
        let mut page = [0; PAGE_SIZE_BYTES as usize];
        let Some(page) = page.get_mut(..bytes.len()) else {
            return Err(io_error(io::ErrorKind::InvalidInput.into()));
        };
        self.file.read_exact_at(page, offset.into()).map_err(io_error)?;
        clear_bits(page, bytes);
        self.file.write_all_at(page, offset.into()).map_err(io_error)?;
        self.statistics.bytes_written += bytes.len() as u64;
        if let Timing::Chip { page_write, .. } = self.timing {
            self.spend(page_write);
        }
        Ok(())
    }

    /// Is busy for `busy`, on the whole: what is too short to sleep for is slept later.
    fn spend(&mut self, busy: Duration) {
        const SLEEP_MIN: Duration = Duration::from_millis(1);
        self.statistics.busy += busy;
        self.owed += busy;
        if self.owed >= SLEEP_MIN {
            let asleep_since = Instant::now();
            std::thread::sleep(self.owed);
            self.owed = self.owed.saturating_sub(asleep_since.elapsed());
        }
    }
}

impl ErrorType for FileFlash {
    type Error = FlashError;
}

impl ReadNorFlash for FileFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        let offset = u64::from(offset);
        check_range("read", (offset, offset + bytes.len() as u64), 1, self.capacity_bytes.into())?;
        self.file.read_exact_at(bytes, offset).map_err(|source| FlashError::Io {
            action: "read",
            offset,
            source,
        })
    }

    fn capacity(&self) -> usize {
        self.capacity_bytes as usize
    }
}

impl NorFlash for FileFlash {
    const WRITE_SIZE: usize = WORD_SIZE_BYTES as usize;
    const ERASE_SIZE: usize = SECTOR_SIZE_BYTES as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        let range = (u64::from(from), u64::from(to));
        check_range("erase", range, SECTOR_SIZE_BYTES, self.capacity_bytes.into())?;
        let mut block_end = from;
        let mut offset = from;
        while offset < to {
            if offset.is_multiple_of(BLOCK_SIZE_BYTES) && to - offset >= BLOCK_SIZE_BYTES {
                block_end = offset + BLOCK_SIZE_BYTES;
            }
            let busy = match self.timing {
                Timing::None => Duration::ZERO,
                Timing::Chip { block_erase, .. } if offset < block_end => {
                    block_erase / (BLOCK_SIZE_BYTES / SECTOR_SIZE_BYTES)
                }
                Timing::Chip { sector_erase, .. } => sector_erase,
            };
            self.erase_sector(offset, busy)?;
            offset += SECTOR_SIZE_BYTES;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let range = (u64::from(offset), u64::from(offset) + bytes.len() as u64);
        check_range("write", range, WORD_SIZE_BYTES, self.capacity_bytes.into())?;
        let mut page_offset = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let to_page_end = PAGE_SIZE_BYTES - page_offset % PAGE_SIZE_BYTES;
            let (page, behind) = rest.split_at(rest.len().min(to_page_end as usize));
            self.write_page(page_offset, page)?;
            page_offset += to_page_end;
            rest = behind;
        }
        Ok(())
    }
}

impl MultiwriteNorFlash for FileFlash {}

/// Why a flash file could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another device runs on this file.
    Locked {
        /// The file.
        path: PathBuf,
        /// The process that holds it, where the host tells.
        holder: Option<u32>,
    },
    /// The file is the flash of another chip, or no flash at all.
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        found_bytes: u64,
        /// The size of the chip.
        expected_bytes: u64,
    },
    /// No chip has this size.
    Capacity {
        /// What was asked for.
        found_bytes: u32,
    },
    /// The host could not do it.
    Io {
        /// `open`, `lock` or `fill`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path, holder: Some(pid) } => {
                write!(f, "flash file `{}` is in use by process {pid}", path.display())
            }
            Self::Locked { path, holder: None } => {
                write!(f, "flash file `{}` is in use by another process", path.display())
            }
            Self::WrongSize { path, found_bytes, expected_bytes } => write!(
                f,
                "flash file `{}` has {found_bytes} bytes; this chip has {expected_bytes}",
                path.display()
            ),
            Self::Capacity { found_bytes } => write!(
                f,
                "flash of {found_bytes} bytes: must be a multiple of {SECTOR_SIZE_BYTES} \
                 from {SECTOR_SIZE_BYTES} to {CAPACITY_MAX_BYTES}"
            ),
            Self::Io { action, path, .. } => {
                write!(f, "could not {action} flash file `{}`", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Locked { .. } | Self::WrongSize { .. } | Self::Capacity { .. } => None,
        }
    }
}

/// Whether the first `length_bytes` of the file are all 0xFF.
fn is_erased(file: &File, length_bytes: u64) -> io::Result<bool> {
    let mut buffer = vec![0; SECTOR_SIZE_BYTES as usize];
    let mut offset = 0;
    while offset < length_bytes {
        let read = file.read_at(&mut buffer, offset)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        if bytes.iter().any(|&byte| byte != 0xFF) {
            return Ok(false);
        }
        offset += read as u64;
    }
    Ok(true)
}

/// Appends 0xFF from `from` to `to`. The file grows with what is filled, so an interrupted making
/// shows in its size.
fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let erased = vec![0xFF; BLOCK_SIZE_BYTES as usize];
    let mut offset = from;
    while offset < to {
        let length = (to - offset).min(erased.len() as u64);
        let length = usize::try_from(length).unwrap_or(erased.len());
        file.write_all_at(erased.get(..length).unwrap_or(&erased), offset)?;
        offset += length as u64;
    }
    Ok(())
}

/// Which process holds the lock on `file`: Linux tells in `/proc/locks`, by inode.
fn lock_holder(file: &File) -> Option<u32> {
    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let mut holders = locks.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, place) = (words.next()?, words.nth(2)?, words.next()?);
        (kind == "FLOCK" && place.ends_with(&inode)).then(|| pid.parse().ok())?
    });
    // Inodes are unique in one file system only: better no name than a wrong one.
    let holder = holders.next()?;
    holders.next().is_none().then_some(holder)
}
