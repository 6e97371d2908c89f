//! Flash in memory, for tests: the power goes wherever the test wants it to.

use embedded_storage::nor_flash::{ErrorType, MultiwriteNorFlash, NorFlash, ReadNorFlash};

use super::{FlashError, SECTOR_SIZE_BYTES, Statistics, WORD_SIZE_BYTES, check_range, clear_bits};

/// A chip's flash in memory, with a power budget.
///
/// Writing costs one unit per byte; the bytes before the cut are written, those behind it are not.
/// Erasing a sector costs [`MemFlash::ERASE_COST`] units, and each cut inside leaves another shape
/// of torn sector. So a test that tries the budgets 0, 1, 2, … until its operation succeeds has
/// pulled the plug everywhere.
#[derive(Debug, Clone)]
pub struct MemFlash {
    /// The contents, free to be looked at and spoilt.
    pub bytes: Vec<u8>,
    /// Units of writing and erasing until the power goes; `None`: it stays.
    pub power_budget_bytes: Option<u64>,
    /// What this flash has been through.
    pub statistics: Statistics,
    power_lost: bool,
}

impl MemFlash {
    /// What the erase of one sector takes from the power budget. Cut after 0 units the sector is
    /// untouched, after 1 only its first half is erased, after 2 only its second half, after 3 it
    /// is all zero (chips clear a sector before they erase it), after 4 it is noise.
    pub const ERASE_COST: u64 = 5;

    /// An erased flash of `capacity_bytes`, rounded up to whole sectors.
    pub fn new(capacity_bytes: u32) -> Self {
        let capacity_bytes = capacity_bytes.next_multiple_of(SECTOR_SIZE_BYTES);
        Self {
            bytes: vec![0xFF; capacity_bytes as usize],
            power_budget_bytes: None,
            statistics: Statistics::new(capacity_bytes),
            power_lost: false,
        }
    }

    /// Whether the budget ran out.
    pub const fn power_lost(&self) -> bool {
        self.power_lost
    }

    /// Power is back, and stays.
    pub const fn power_on(&mut self) {
        self.power_lost = false;
        self.power_budget_bytes = None;
    }

    fn check_power(&self) -> Result<(), FlashError> {
        if self.power_lost { Err(FlashError::PowerLost) } else { Ok(()) }
    }

    /// Takes up to `units` from the budget and returns how many there were.
    fn draw_power(&mut self, units: u64) -> u64 {
        let Some(budget) = &mut self.power_budget_bytes else { return units };
        let drawn = units.min(*budget);
        *budget -= drawn;
        self.power_lost = drawn < units;
        drawn
    }

    fn erase_sector(&mut self, sector_offset: u32) -> Result<(), FlashError> {
        let units = self.draw_power(Self::ERASE_COST);
        let start = sector_offset as usize;
        if let Some(sector) = self.bytes.get_mut(start..start + SECTOR_SIZE_BYTES as usize) {
            let (head, tail) = sector.split_at_mut(SECTOR_SIZE_BYTES as usize / 2);
            match units {
                0 => (),
                1 => head.fill(0xFF),
                2 => tail.fill(0xFF),
                3 => sector.fill(0),
                4 => make_noise(sector),
                _ => sector.fill(0xFF),
            }
        }
        self.statistics.count_erase(sector_offset);
        self.check_power()
    }
}

impl ErrorType for MemFlash {
    type Error = FlashError;
}

impl ReadNorFlash for MemFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.check_power()?;
        let (start, end) = (u64::from(offset), u64::from(offset) + bytes.len() as u64);
        check_range("read", (start, end), 1, self.bytes.len() as u64)?;
        for (byte, stored) in bytes.iter_mut().zip(self.bytes.iter().skip(offset as usize)) {
            *byte = *stored;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for MemFlash {
    const WRITE_SIZE: usize = WORD_SIZE_BYTES as usize;
    const ERASE_SIZE: usize = SECTOR_SIZE_BYTES as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        self.check_power()?;
        let range = (u64::from(from), u64::from(to));
        check_range("erase", range, SECTOR_SIZE_BYTES, self.bytes.len() as u64)?;
        (from..to)
            .step_by(SECTOR_SIZE_BYTES as usize)
            .try_for_each(|sector_offset| self.erase_sector(sector_offset))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.check_power()?;
        let range = (u64::from(offset), u64::from(offset) + bytes.len() as u64);
        check_range("write", range, WORD_SIZE_BYTES, self.bytes.len() as u64)?;
        let written = self.draw_power(bytes.len() as u64);
        let written = usize::try_from(written).unwrap_or(usize::MAX);
        if let Some(stored) = self.bytes.get_mut(offset as usize..) {
            clear_bits(stored, bytes.get(..written).unwrap_or(bytes));
        }
        self.statistics.bytes_written += written as u64;
        self.check_power()
    }
}

impl MultiwriteNorFlash for MemFlash {}

/// An erase that was cut: some bits are set already. The same noise each time, so tests repeat.
fn make_noise(sector: &mut [u8]) {
    let mut state = 0x2545_F491_u32;
    for byte in sector {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte |= state.to_le_bytes()[1];
    }
}
