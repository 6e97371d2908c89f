//! The second stage bootloader of ESP-IDF, rule by rule: which slot boots after a reset.
//!
//! It does to otadata what the real one does (`bootloader_utility.c`), in the same order, each
//! change as an erase and a write between which the power may go. It never looks at our record:
//! what it promises, it promises to any firmware.
//!
//! ```text
//!   reset ─► every PENDING_VERIFY becomes ABORTED      only with rollback
//!         ─► the usable entry with the larger number   none: factory, else ota_0
//!         ─► if NEW: PENDING_VERIFY                    only with rollback
//!         ─► the image, whole and for this chip        else the slots below, then those above
//!         ─► first start: entry A = VALID
//! ```
//!
//! # Not here
//!
//! Anti-rollback by eFuse, secure boot, flash encryption and starting without verification after
//! deep sleep: the boards of the desk have none of them.

use std::fmt;

use embedded_storage::nor_flash::{ErrorType, NorFlash};
use lockstep_proto::{
    id::ImageHash,
    image::{ChipId, ImageError, ImageFacts, read_image},
    otadata::{ENTRY_BYTES, OTADATA_BYTES, OtaEntry, OtaState, Sector, active, slot_of},
    partition::{
        PartitionEntry, PartitionError, PartitionTable, SUBTYPE_FACTORY, SUBTYPE_OTADATA,
        TABLE_BYTES, TABLE_OFFSET, TYPE_APP, TYPE_DATA,
    },
};

use crate::flash::SECTOR_SIZE_BYTES;

/// The bootloader as it was built and flashed once, over the serial line: an update of the
/// application does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootloader {
    /// The chip it runs on; an image for another one does not boot.
    pub chip: ChipId,
    /// `CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE`. Without it `NEW` stays `NEW`, and nothing is ever
    /// taken back.
    pub rollback: bool,
}

/// What ended the run before this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The power came back: a process that was killed is started again.
    PowerOn,
    /// The firmware asked for it.
    Software,
    /// The firmware crashed.
    Panic,
    /// The firmware hung.
    Watchdog,
    /// The supply voltage fell.
    BrownOut,
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PowerOn => "power on",
            Self::Software => "software",
            Self::Panic => "panic",
            Self::Watchdog => "watchdog",
            Self::BrownOut => "brown-out",
        })
    }
}

/// Where an application can stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootSlot {
    /// The factory image.
    Factory,
    /// `ota_0` to `ota_15`.
    Ota(u8),
    /// The test image: booted when nothing else can be.
    Test,
}

impl fmt::Display for BootSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Factory => f.write_str("factory"),
            Self::Ota(slot) => write!(f, "ota_{slot}"),
            Self::Test => f.write_str("test"),
        }
    }
}

/// What runs now.
#[derive(Debug, Clone)]
pub struct Booted {
    /// Where it stands.
    pub slot: BootSlot,
    /// The partition of that slot.
    pub partition: PartitionEntry,
    /// All partitions.
    pub table: PartitionTable,
    /// Both entries of otadata as they were before this boot; `None`: erased, torn or wrong.
    pub found: [Option<OtaEntry>; 2],
    /// The state of the entry that selected a slot, as the application finds it now. `None`: no
    /// entry was usable. It need not be about `slot`: see [`BootEvent::ImageRefused`].
    pub state: Option<OtaState>,
    /// What the image says about itself.
    pub image: ImageFacts,
    /// What happened, in order.
    pub events: Vec<BootEvent>,
}

/// Something the bootloader did or found, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootEvent {
    /// It began.
    Started {
        /// What ended the run before.
        reset: ResetReason,
    },
    /// An entry was on trial when the reset came.
    Aborted {
        /// Which entry.
        sector: Sector,
        /// Its sequence number.
        seq: u32,
    },
    /// An entry is in force.
    Selected {
        /// Which entry.
        sector: Sector,
        /// Its sequence number.
        seq: u32,
        /// What it selects.
        slot: u8,
        /// Its state before this boot.
        state: OtaState,
    },
    /// No entry is usable.
    NothingSelected {
        /// What is tried first instead.
        slot: BootSlot,
    },
    /// A new image gets its one boot.
    OnTrial {
        /// Which entry.
        sector: Sector,
        /// Its sequence number.
        seq: u32,
    },
    /// An image does not boot; the next slot is tried.
    ImageRefused {
        /// Where it stands.
        slot: BootSlot,
        /// What is wrong with it.
        why: ImageRefusal,
    },
    /// Otadata was empty and says now what boots.
    Initialised {
        /// The sequence number in entry A.
        seq: u32,
    },
    /// The application starts.
    Booting {
        /// From where.
        slot: BootSlot,
        /// Which image.
        hash: ImageHash,
    },
}

impl fmt::Display for BootEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { reset } => write!(f, "reset by {reset}"),
            Self::Aborted { sector, seq } => write!(
                f,
                "otadata entry {sector:?} (sequence {seq}) was on trial at the reset: ABORTED"
            ),
            Self::Selected { sector, seq, slot, state } => {
                write!(f, "otadata entry {sector:?} (sequence {seq}, {state:?}) selects ota_{slot}")
            }
            Self::NothingSelected { slot } => {
                write!(f, "otadata selects nothing, trying {slot} first")
            }
            Self::OnTrial { sector, seq } => write!(
                f,
                "otadata entry {sector:?} (sequence {seq}) gets its one boot: PENDING_VERIFY"
            ),
            Self::ImageRefused { slot, why } => write!(f, "{slot} is not bootable: {why}"),
            Self::Initialised { seq } => {
                write!(f, "otadata was empty: entry A (sequence {seq}) is VALID")
            }
            Self::Booting { slot, hash } => write!(f, "booting image {hash:?} from {slot}"),
        }
    }
}

/// Why an image does not boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRefusal {
    /// It is not whole.
    Damaged(ImageError),
    /// It is for another chip.
    Chip {
        /// The image's.
        found: ChipId,
        /// This board's.
        expected: ChipId,
    },
}

impl fmt::Display for ImageRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(error) => error.fmt(f),
            Self::Chip { found, expected } => {
                write!(f, "image is for `{found}`, this board has `{expected}`")
            }
        }
    }
}

/// Nothing runs. A real board resets and tries again, for ever, unless power was what it lacked.
#[derive(Debug)]
pub struct BootFailure<E> {
    /// Why.
    pub cause: BootFailureCause<E>,
    /// What happened before, in order.
    pub events: Vec<BootEvent>,
}

/// Why nothing runs.
#[derive(Debug, PartialEq, Eq)]
pub enum BootFailureCause<E> {
    /// There is no partition table that holds together.
    Table(PartitionError),
    /// The partition for otadata is too small for two entries.
    Otadata {
        /// How large it is.
        found_bytes: u32,
    },
    /// No slot has an image that boots; the events say what is wrong with each.
    NoBootableImage,
    /// The flash did not do what it was asked for.
    Flash(E),
}

impl<E> From<E> for BootFailureCause<E> {
    fn from(error: E) -> Self {
        Self::Flash(error)
    }
}

impl<E> fmt::Display for BootFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            BootFailureCause::Table(_) => write!(f, "no partition table at {TABLE_OFFSET:#x}"),
            BootFailureCause::Otadata { found_bytes } => {
                write!(f, "partition `otadata` has {found_bytes} bytes; it needs {OTADATA_BYTES}")
            }
            BootFailureCause::NoBootableImage => {
                f.write_str("no partition holds a bootable image")?;
                let mut separator = ": ";
                for event in &self.events {
                    if let BootEvent::ImageRefused { .. } = event {
                        write!(f, "{separator}{event}")?;
                        separator = "; ";
                    }
                }
                Ok(())
            }
            BootFailureCause::Flash(_) => f.write_str("the bootloader could not use the flash"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for BootFailure<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            BootFailureCause::Table(error) => Some(error),
            BootFailureCause::Flash(error) => Some(error),
            BootFailureCause::Otadata { .. } | BootFailureCause::NoBootableImage => None,
        }
    }
}

impl Bootloader {
    /// One boot: changes otadata as the rules say and finds the image that runs.
    pub fn boot<F: NorFlash>(
        &self,
        flash: &mut F,
        reset: ResetReason,
    ) -> Result<Booted, BootFailure<F::Error>> {
        self.boot_by(flash, reset, &mut |flash, partition| self.load(flash, partition))
    }

    /// The same, where the caller says what an image is: a world that knows the bytes of a slot by
    /// heart need not hash them at every boot.
    pub(crate) fn boot_by<F: NorFlash>(
        &self,
        flash: &mut F,
        reset: ResetReason,
        load: &mut Load<'_, F>,
    ) -> Result<Booted, BootFailure<F::Error>> {
        let mut events = vec![BootEvent::Started { reset }];
        self.boot_logged(flash, load, &mut events)
            .map(|booted| Booted { events: events.clone(), ..booted })
            .map_err(|cause| BootFailure { cause, events })
    }

    fn boot_logged<F: NorFlash>(
        &self,
        flash: &mut F,
        load: &mut Load<'_, F>,
        events: &mut Vec<BootEvent>,
    ) -> Result<Booted, BootFailureCause<F::Error>> {
        let mut bytes = [0; TABLE_BYTES];
        flash.read(TABLE_OFFSET, &mut bytes)?;
        let table = PartitionTable::parse(&bytes).map_err(BootFailureCause::Table)?;
        let mut otadata = Otadata::read(flash, &table)?;
        let found = otadata.as_ref().map_or([None; 2], Otadata::decoded);
        let start = match &mut otadata {
            None => Start { slot: BootSlot::Factory, state: None, initial: false },
            Some(otadata) => self.select(flash, &table, otadata, events)?,
        };
        for slot in candidates(&table, start.slot) {
            let Some(partition) = partition_of(&table, slot) else { continue };
            let image = match load(flash, &partition)? {
                Ok(image) => image,
                Err(why) => {
                    events.push(BootEvent::ImageRefused { slot, why });
                    continue;
                }
            };
            let mut state = start.state;
            if let (true, BootSlot::Ota(index), Some(otadata)) = (start.initial, slot, &mut otadata)
            {
                let entry = OtaEntry::new(u32::from(index) + 1, OtaState::Valid);
                otadata.write(flash, Sector::A, entry.encode())?;
                events.push(BootEvent::Initialised { seq: entry.seq });
                state = Some(entry.state);
            }
            events.push(BootEvent::Booting { slot, hash: image.image_hash });
            return Ok(Booted { slot, partition, table, found, state, image, events: Vec::new() });
        }
        Err(BootFailureCause::NoBootableImage)
    }

    /// Decides where to start looking for an image, and keeps the books of trials.
    fn select<F: NorFlash>(
        &self,
        flash: &mut F,
        table: &PartitionTable,
        otadata: &mut Otadata,
        events: &mut Vec<BootEvent>,
    ) -> Result<Start, F::Error> {
        if self.rollback {
            for sector in [Sector::A, Sector::B] {
                // The CRC is not looked at here; it does not cover the state anyway.
                if otadata.state(sector) == OtaState::PendingVerify {
                    otadata.rewrite(flash, sector, OtaState::Aborted)?;
                    events.push(BootEvent::Aborted { sector, seq: otadata.seq(sector) });
                }
            }
        }
        let ota_count = u8::try_from(table.ota_slots().count()).unwrap_or(u8::MAX);
        let has_factory = partition_of(table, BootSlot::Factory).is_some();
        let [a, b] = otadata.decoded();
        let in_force = active(a, b)
            .and_then(|(sector, entry)| Some((sector, entry, slot_of(entry.seq, ota_count)?)));
        let Some((sector, entry, slot)) = in_force else {
            // With an entry that is not plainly unusable, only its CRC is wrong, and all
            // partitions are tried from the factory image on; the outcome is the same for two
            // slots, except that otadata is left alone.
            let unusable = otadata.is_unusable(Sector::A) && otadata.is_unusable(Sector::B);
            let from_ota_0 = unusable && !has_factory;
            let slot = if from_ota_0 { BootSlot::Ota(0) } else { BootSlot::Factory };
            events.push(BootEvent::NothingSelected { slot });
            let initial = from_ota_0 && a.is_none() && b.is_none();
            return Ok(Start { slot, state: None, initial });
        };
        let OtaEntry { seq, state, .. } = entry;
        events.push(BootEvent::Selected { sector, seq, slot, state });
        if self.rollback && state == OtaState::New {
            otadata.rewrite(flash, sector, OtaState::PendingVerify)?;
            events.push(BootEvent::OnTrial { sector, seq });
        }
        let state = Some(otadata.state(sector));
        Ok(Start { slot: BootSlot::Ota(slot), state, initial: false })
    }

    /// Reads and checks the whole image in a partition.
    pub(crate) fn load<F: NorFlash>(
        &self,
        flash: &mut F,
        partition: &PartitionEntry,
    ) -> Result<Result<ImageFacts, ImageRefusal>, F::Error> {
        let facts = read_image(partition.size_bytes, |offset, bytes| {
            flash.read(partition.offset + offset, bytes)
        })?;
        Ok(match facts {
            Err(error) => Err(ImageRefusal::Damaged(error)),
            Ok(facts) if facts.header.chip != self.chip => {
                Err(ImageRefusal::Chip { found: facts.header.chip, expected: self.chip })
            }
            Ok(facts) => Ok(facts),
        })
    }
}

/// Reads and checks the whole image in a partition.
pub(crate) type Load<'a, F> = dyn FnMut(
        &mut F,
        &PartitionEntry,
    ) -> Result<Result<ImageFacts, ImageRefusal>, <F as ErrorType>::Error>
    + 'a;

/// Where to start looking for an image.
struct Start {
    slot: BootSlot,
    /// Of the entry that selects it, as it is now.
    state: Option<OtaState>,
    /// Neither entry has ever been written, so what boots is to be noted.
    initial: bool,
}

/// Both entries, byte for byte: the bootloader rewrites even what it does not understand.
struct Otadata {
    offset: u32,
    entries: [[u8; ENTRY_BYTES]; 2],
}

impl Otadata {
    /// `None`: the table has no partition for it.
    fn read<F: NorFlash>(
        flash: &mut F,
        table: &PartitionTable,
    ) -> Result<Option<Self>, BootFailureCause<F::Error>> {
        let Some(partition) = table.find(TYPE_DATA, SUBTYPE_OTADATA) else { return Ok(None) };
        if partition.size_bytes < OTADATA_BYTES {
            return Err(BootFailureCause::Otadata { found_bytes: partition.size_bytes });
        }
        let mut otadata = Self { offset: partition.offset, entries: [[0xFF; ENTRY_BYTES]; 2] };
        for sector in [Sector::A, Sector::B] {
            flash.read(otadata.offset + sector.offset(), otadata.entry_mut(sector))?;
        }
        Ok(Some(otadata))
    }

    fn decoded(&self) -> [Option<OtaEntry>; 2] {
        let [a, b] = &self.entries;
        [OtaEntry::decode(a), OtaEntry::decode(b)]
    }

    /// The sequence number, right or wrong.
    fn seq(&self, sector: Sector) -> u32 {
        let [a, b, c, d, ..] = *self.entry(sector);
        u32::from_le_bytes([a, b, c, d])
    }

    /// The state, right or wrong.
    fn state(&self, sector: Sector) -> OtaState {
        let [.., a, b, c, d, _, _, _, _] = *self.entry(sector);
        OtaState::from_number(u32::from_le_bytes([a, b, c, d]))
    }

    /// Erased, or taken back. A wrong CRC does not count here, in ESP-IDF either.
    fn is_unusable(&self, sector: Sector) -> bool {
        let refused = matches!(self.state(sector), OtaState::Invalid | OtaState::Aborted);
        refused || self.seq(sector) == u32::MAX
    }

    /// Changes the state of an entry and nothing else in it.
    fn rewrite<F: NorFlash>(
        &mut self,
        flash: &mut F,
        sector: Sector,
        state: OtaState,
    ) -> Result<(), F::Error> {
        let mut entry = *self.entry(sector);
        let [.., a, b, c, d, _, _, _, _] = &mut entry;
        [*a, *b, *c, *d] = state.number().to_le_bytes();
        self.write(flash, sector, entry)
    }

    /// Erases, then writes: whoever loses power in between has lost the entry.
    fn write<F: NorFlash>(
        &mut self,
        flash: &mut F,
        sector: Sector,
        entry: [u8; ENTRY_BYTES],
    ) -> Result<(), F::Error> {
        let start = self.offset + sector.offset();
        flash.erase(start, start + SECTOR_SIZE_BYTES)?;
        flash.write(start, &entry)?;
        *self.entry_mut(sector) = entry;
        Ok(())
    }

    const fn entry(&self, sector: Sector) -> &[u8; ENTRY_BYTES] {
        let [a, b] = &self.entries;
        match sector {
            Sector::A => a,
            Sector::B => b,
        }
    }

    const fn entry_mut(&mut self, sector: Sector) -> &mut [u8; ENTRY_BYTES] {
        let [a, b] = &mut self.entries;
        match sector {
            Sector::A => a,
            Sector::B => b,
        }
    }
}

/// All places to look for an image, in order: from `start` down to the factory image, then the
/// slots above `start`, then the test image.
fn candidates(table: &PartitionTable, start: BootSlot) -> Vec<BootSlot> {
    let ota_count = u8::try_from(table.ota_slots().count()).unwrap_or(u8::MAX);
    let above = match start {
        BootSlot::Ota(slot) => slot.saturating_add(1),
        BootSlot::Factory | BootSlot::Test => 0,
    };
    let down = (0..above).rev().map(BootSlot::Ota).chain([BootSlot::Factory]);
    let up = (above..ota_count).map(BootSlot::Ota).chain([BootSlot::Test]);
    down.chain(up).collect()
}

fn partition_of(table: &PartitionTable, slot: BootSlot) -> Option<PartitionEntry> {
    match slot {
        BootSlot::Factory => table.find(TYPE_APP, SUBTYPE_FACTORY).copied(),
        BootSlot::Ota(slot) => table.ota_slots().nth(slot.into()).copied(),
        BootSlot::Test => table.find(TYPE_APP, SUBTYPE_TEST).copied(),
    }
}

/// Not among the words of `lockstep_proto`: nothing of ours ever looks at it.
const SUBTYPE_TEST: u8 = 0x20;

#[cfg(test)]
mod tests;
