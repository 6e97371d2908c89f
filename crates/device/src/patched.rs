//! How many members of a rollout have made their image from a patch, and who could not: durable,
//! since the lead restarts in the middle of every rollout, and the history is written behind that.
//!
//! Entry of the record, little endian: rollout id u64, then 12 bytes as in the history: members by
//! patch u8, members that refused one u8, the last refusal u16 with its two values u32.

use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::RolloutId;
use lockstep_proto::wire::{Full, Reader, TooShort, Writer};

use crate::node::{Node, read_entry};
use crate::setup::Application;

/// What became of the patches of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patched {
    /// Members that made their image from a patch.
    pub members: u8,
    /// Members to whom a patch was of no use that should have been.
    pub refused: u8,
    /// Why, the last of them.
    pub why: Option<Refusal>,
}

impl Patched {
    pub(crate) fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let (code, a, b) = self.why.map_or((0, 0, 0), Refusal::to_wire);
        writer.u8(self.members)?;
        writer.u8(self.refused)?;
        writer.u16(code)?;
        writer.u32(a)?;
        writer.u32(b)
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, TooShort> {
        let (members, refused) = (reader.u8()?, reader.u8()?);
        let (code, a, b) = (reader.u16()?, reader.u32()?, reader.u32()?);
        let why = Refusal::from_wire(code, a, b).unwrap_or(Refusal::Unlisted { number: code });
        Ok(Self { members, refused, why: (code != 0).then_some(why) })
    }
}

impl<A: Application> Node<A> {
    /// What became of the patches of this rollout so far.
    pub(crate) fn patched<F: NorFlash>(&self, rollout: RolloutId, flash: &mut F) -> Patched {
        let bytes = read_entry::<F, ENTRY_BYTES>(&self.agent, flash, Entry::PATCHED);
        let read = bytes.and_then(|bytes| {
            let mut reader = Reader::new(&bytes);
            let of = RolloutId(reader.u64().ok()?);
            (of == rollout).then(|| Patched::take(&mut reader).ok())?
        });
        read.unwrap_or_default()
    }

    /// A member of the open rollout has made its image from a patch; or not, and why.
    pub(crate) fn note_patched<F: NorFlash>(&mut self, result: Result<(), Refusal>, flash: &mut F) {
        let rollout = self.open_rollout_id();
        let mut patched = self.patched(rollout, flash);
        match result {
            Ok(()) => patched.members = patched.members.saturating_add(1),
            Err(why) => {
                patched.refused = patched.refused.saturating_add(1);
                patched.why = Some(why);
            }
        }
        let mut bytes = [0; ENTRY_BYTES];
        let mut writer = Writer::new(&mut bytes);
        // It is as long as these fields.
        let written = writer.u64(rollout.0).and_then(|()| patched.put(&mut writer));
        if written.is_ok() {
            // What is not stored is not told later; the rollout does not depend on it.
            let _ = self.write_entry(Entry::PATCHED, &Vec::from(bytes), flash);
        }
    }
}

/// Bytes of a [`Patched`].
pub(crate) const PATCHED_BYTES: usize = 12;
const ENTRY_BYTES: usize = 8 + PATCHED_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    /// Leads in the field have this in their flash.
    #[test]
    fn the_bytes_of_what_became_of_patches_are_frozen() {
        let patched = Patched {
            members: 3,
            refused: 1,
            why: Some(Refusal::PatchDiffers { found: 5, expected: 0x0102_0304 }),
        };
        let mut bytes = [0; PATCHED_BYTES];
        patched.put(&mut Writer::new(&mut bytes)).unwrap();
        assert_eq!(bytes, [3, 1, 26, 0, 5, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(Patched::take(&mut Reader::new(&bytes)), Ok(patched));
        assert_eq!(Patched::take(&mut Reader::new(&[0; 12])), Ok(Patched::default()));
        assert!(Patched::take(&mut Reader::new(&bytes[..11])).is_err());
    }
}
