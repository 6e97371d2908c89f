//! Reading the slot that runs: for members of the same role that lack its image.

use embedded_storage::nor_flash::ReadNorFlash;
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::Sha256;

use crate::agent::Agent;
use crate::flash::{self, Region};
use crate::slot;

impl Agent {
    /// SHA-256 of the first `size_bytes` bytes of the slot that runs: of the file that was staged
    /// there, if it has that size.
    pub fn running_file<F: ReadNorFlash>(
        &self,
        size_bytes: u32,
        flash: &mut F,
    ) -> Result<Sha256, Refusal> {
        let slot = self.running_slot();
        if size_bytes > slot.size_bytes {
            return Err(Refusal::TooLarge { size_bytes, slot_bytes: slot.size_bytes });
        }
        Ok(slot::sha256_of(flash, slot.offset, size_bytes)?)
    }

    /// Reads a part of the slot that runs.
    pub fn running_read<F: ReadNorFlash>(
        &self,
        offset: u32,
        bytes: &mut [u8],
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let slot = self.running_slot();
        let end = u64::from(offset) + bytes.len() as u64;
        if end > u64::from(slot.size_bytes) {
            let size_bytes = u32::try_from(end).unwrap_or(u32::MAX);
            return Err(Refusal::TooLarge { size_bytes, slot_bytes: slot.size_bytes });
        }
        Ok(flash::read(flash, slot.offset + offset, bytes)?)
    }

    pub(crate) fn running_slot(&self) -> Region {
        let [first, second] = self.layout.slots;
        if self.running_slot == 0 { first } else { second }
    }
}
