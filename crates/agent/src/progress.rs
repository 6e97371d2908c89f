//! What the other slot is being filled with, and how far that has come for sure.

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::id::Sha256;
use lockstep_proto::wire::{Reader, Writer};

use crate::agent::{Agent, RECORD_VERSION};
use crate::flash::FlashFault;
use crate::receiver::Object;
use crate::record::{Kind, RecordError};

/// What the other slot holds, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// This device's own image, from the slot's start.
    Artifact,
    /// Another role's artifact, from the slot's start; or what a later version put there.
    Spool,
    /// A patch for this device, at the slot's end.
    Patch,
    /// The same, all of it; it is being applied, and what it makes may have begun to overwrite it.
    Applying,
    /// A patch for others, at the slot's end.
    PatchSpool,
}

impl Stored {
    const ALL: [Self; 5] =
        [Self::Artifact, Self::Spool, Self::Patch, Self::Applying, Self::PatchSpool];

    /// The number in the record. Append, never renumber.
    const fn code(self) -> u8 {
        match self {
            Self::Artifact => 1,
            Self::Spool => 2,
            Self::Patch => 3,
            Self::Applying => 4,
            Self::PatchSpool => 5,
        }
    }

    /// What a later version put there is not this device's image either.
    fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|it| it.code() == code).unwrap_or(Self::Spool)
    }

    pub(crate) const fn of(object: Object) -> Self {
        match object {
            // A package has a store of its own, and no progress.
            Object::Package | Object::Artifact => Self::Artifact,
            Object::Spool => Self::Spool,
            Object::Patch => Self::Patch,
            Object::PatchSpool => Self::PatchSpool,
        }
    }
}

/// The entry of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) object: Stored,
    /// Of the artifact's file, or of the patch's header.
    pub(crate) sha256: Sha256,
    /// Bytes that are in flash without a gap; of a patch that is applied, all of them.
    pub(crate) done_bytes: u32,
    /// How often it was tried to apply this patch.
    pub(crate) tries: u8,
}

impl Progress {
    pub(crate) const fn none(object: Stored, sha256: Sha256) -> Self {
        Self { object, sha256, done_bytes: 0, tries: 0 }
    }

    /// Object u8, slot u8, SHA-256, bytes u32, tries u8.
    fn encode(&self, slot: u8) -> [u8; PROGRESS_BYTES] {
        let mut payload = [0; PROGRESS_BYTES];
        let mut writer = Writer::new(&mut payload);
        // It is as long as these fields.
        let _ = writer
            .u8(self.object.code())
            .and_then(|()| writer.u8(slot))
            .and_then(|()| writer.put(&self.sha256.0))
            .and_then(|()| writer.u32(self.done_bytes))
            .and_then(|()| writer.u8(self.tries));
        payload
    }

    /// Earlier firmware wrote no tries.
    fn decode(payload: &[u8], slot: u8) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let object = Stored::from_code(reader.u8().ok()?);
        if reader.u8().ok()? != slot {
            return None;
        }
        let sha256 = Sha256(reader.array().ok()?);
        let done_bytes = reader.u32().ok()?;
        Some(Self { object, sha256, done_bytes, tries: reader.u8().unwrap_or(0) })
    }
}

impl Agent {
    /// The progress of an object that comes. A patch keeps the count of its tries.
    pub(crate) fn progress(&self, object: Object, sha256: Sha256, done_bytes: u32) -> Progress {
        let tries = match object {
            Object::Patch => self.patch_tries(&sha256),
            _ => 0,
        };
        Progress { object: Stored::of(object), sha256, done_bytes, tries }
    }

    pub(crate) fn store_progress<F: NorFlash>(
        &mut self,
        progress: &Progress,
        flash: &mut F,
    ) -> Result<(), RecordError> {
        let payload = progress.encode(1 - self.running_slot);
        self.record.write(flash, Kind::PROGRESS, RECORD_VERSION, &payload)
    }

    /// What the other slot is being filled with; `None` if what is stored speaks of the slot that
    /// runs now.
    pub(crate) fn load_progress<F: NorFlash>(
        &self,
        flash: &mut F,
    ) -> Result<Option<Progress>, FlashFault> {
        let mut payload = [0; PROGRESS_BYTES];
        let read = self.record.read(flash, Kind::PROGRESS, &mut payload)?;
        Ok(read.and_then(|(_, length)| {
            let payload = payload.get(..length).unwrap_or(&payload);
            Progress::decode(payload, 1 - self.running_slot)
        }))
    }
}

const PROGRESS_BYTES: usize = 1 + 1 + 32 + 4 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices in the field have this in their flash.
    #[test]
    fn the_bytes_of_the_progress_are_frozen() {
        let progress = Progress {
            object: Stored::Applying,
            sha256: Sha256([0xAB; 32]),
            done_bytes: 0x0102_0304,
            tries: 2,
        };
        let mut frozen = std::vec![4, 1];
        frozen.extend([0xAB; 32]);
        frozen.extend([4, 3, 2, 1, 2]);
        assert_eq!(progress.encode(1), frozen[..]);
        assert_eq!(Progress::decode(&frozen, 1), Some(progress));
        assert_eq!(Progress::decode(&frozen, 0), None);
        let earlier = Progress { tries: 0, ..progress };
        assert_eq!(Progress::decode(&frozen[..38], 1), Some(earlier));
        assert_eq!(Progress::decode(&frozen[..37], 1), None);
    }

    #[test]
    fn every_number_means_one_thing_and_that_of_a_later_version_another_ones_file() {
        let codes = Stored::ALL.map(Stored::code);
        assert_eq!(codes, [1, 2, 3, 4, 5]);
        assert_eq!(codes.map(Stored::from_code), Stored::ALL);
        assert_eq!(Stored::from_code(9), Stored::Spool);
    }
}
