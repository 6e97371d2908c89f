//! Which slot boots next: the two otadata entries, read and changed in flash.
//!
//! One erase and one write per change, read back. At no moment, wherever the power goes, are both
//! entries unusable: activation touches only the entry that is not the running image's, and a
//! device whose running image has no entry gets one before anything else is changed. The rules of
//! the entries are in `lockstep_proto::otadata`; when to change them is decided by the agent.

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::otadata::{
    ENTRY_BYTES, OtaEntry, OtaState, Sector, active, next_seq, slot_of, usable,
};
use lockstep_proto::planted::{self, Bug};

use crate::flash::{self, FlashFault, Operation, Region, SECTOR_BYTES};

/// The entries as they stand in flash, seen from the running slot.
#[derive(Debug, Clone)]
pub struct BootState {
    otadata: Region,
    ota_count: u8,
    running_slot: u8,
    a: Option<OtaEntry>,
    b: Option<OtaEntry>,
    /// Erased in this boot and not written since: its next entry needs no second erase. What an
    /// earlier boot left blank may be an erase that was cut, and is erased again.
    erased: Option<Sector>,
}

impl BootState {
    /// Reads both entries. `running_slot` is 0 or 1.
    pub fn read<F: ReadNorFlash>(
        flash: &mut F,
        otadata: Region,
        ota_count: u8,
        running_slot: u8,
    ) -> Result<Self, FlashFault> {
        let mut state = Self { otadata, ota_count, running_slot, a: None, b: None, erased: None };
        state.reload(flash)?;
        Ok(state)
    }

    /// State of the running slot's entry, whether it is in force or not; `Undefined` without one.
    pub fn running_state(&self) -> OtaState {
        let any = || self.entries().map(|(_, entry)| entry).find(|entry| self.is_running(entry));
        self.running().map(|(_, entry)| entry).or_else(any).map_or(OtaState::Undefined, |e| e.state)
    }

    /// Whether the other slot boots next: activated, not booted yet.
    pub fn other_is_next(&self) -> bool {
        active(self.a, self.b).is_some_and(|(_, entry)| !self.is_running(&entry))
    }

    /// Makes the other slot boot next, on trial. Changes the entry that is not the running one's.
    pub fn activate<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), FlashFault> {
        let (sector, running) = self.ensure_running(flash)?;
        let seq = self.seq_of(Some(running.seq), self.other_slot())?;
        if planted::has(Bug::EraseBothEntries) {
            let start = self.otadata.offset;
            flash::erase(flash, start, start + 2 * SECTOR_BYTES)?;
        }
        self.write_entry(flash, sector.other(), OtaEntry::new(seq, OtaState::New))
    }

    /// Makes the running image permanent. Not atomic, and cannot be: a cut between erase and write
    /// leaves the other entry in force, and the device boots its old image.
    pub fn confirm<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), FlashFault> {
        let (sector, running) = self.ensure_running(flash)?;
        if running.state == OtaState::Valid {
            return Ok(());
        }
        self.write_entry(flash, sector, running.with_state(OtaState::Valid))
    }

    /// Makes the other slot's image boot next, for good.
    ///
    /// On a trial that the bootloader watches, the running entry is marked invalid: whatever is
    /// cut, the other entry wins. Else the other slot gets an entry that beats the running one.
    pub fn fall_back<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), FlashFault> {
        let settled = |entry: &OtaEntry| {
            // What was never confirmed would boot on trial, or not at all.
            !matches!(entry.state, OtaState::New | OtaState::PendingVerify) && usable(entry)
        };
        let way_back = self.entries().find(|(_, entry)| settled(entry) && self.is_other(entry));
        if way_back.is_some() && way_back == active(self.a, self.b) {
            return Ok(());
        }
        match self.running() {
            Some((sector, running))
                if way_back.is_some() && running.state == OtaState::PendingVerify =>
            {
                self.write_entry(flash, sector, running.with_state(OtaState::Invalid))
            }
            _ => {
                let (sector, running) = self.ensure_running(flash)?;
                let seq = self.seq_of(Some(running.seq), self.other_slot())?;
                self.write_entry(flash, sector.other(), OtaEntry::new(seq, OtaState::Valid))
            }
        }
    }

    /// Takes back an activation that has not booted.
    pub fn cancel_activation<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), FlashFault> {
        if self.other_is_next() { self.forget_other(flash) } else { Ok(()) }
    }

    /// Erases the other slot's entry, as ESP-IDF does before the slot's first sector is erased:
    /// from here on its image cannot boot. The running image has an entry afterwards.
    pub fn forget_other<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), FlashFault> {
        let (sector, _) = self.ensure_running(flash)?;
        let offset = self.offset_of(sector.other());
        let end = offset + flash::bytes_u32(ENTRY_BYTES);
        if !flash::is_blank(flash, offset, end)? {
            let erased = flash::erase(flash, offset, offset + SECTOR_BYTES);
            self.reload(flash)?;
            erased?;
            self.erased = Some(sector.other());
        }
        Ok(())
    }

    /// The entry that makes the running image boot. Where there is none (a chip fresh from the
    /// factory, a torn entry), one is written, into the place that nothing usable is lost in.
    fn ensure_running<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<(Sector, OtaEntry), FlashFault> {
        if let Some(found) = self.running() {
            return Ok(found);
        }
        let in_force = active(self.a, self.b);
        let sector = in_force.map_or(Sector::A, |(sector, _)| sector.other());
        let seq = self.seq_of(in_force.map(|(_, entry)| entry.seq), self.running_slot)?;
        let entry = OtaEntry::new(seq, OtaState::Valid);
        self.write_entry(flash, sector, entry)?;
        Ok((sector, entry))
    }

    /// The usable entry of the running slot; the one with the larger number, if there are two.
    fn running(&self) -> Option<(Sector, OtaEntry)> {
        let mine = |entry: Option<OtaEntry>| entry.filter(|entry| self.is_running(entry));
        active(mine(self.a), mine(self.b))
    }

    fn entries(&self) -> impl Iterator<Item = (Sector, OtaEntry)> {
        let a = self.a.map(|entry| (Sector::A, entry));
        a.into_iter().chain(self.b.map(|entry| (Sector::B, entry)))
    }

    fn is_running(&self, entry: &OtaEntry) -> bool {
        slot_of(entry.seq, self.ota_count) == Some(self.running_slot)
    }

    fn is_other(&self, entry: &OtaEntry) -> bool {
        slot_of(entry.seq, self.ota_count) == Some(self.other_slot())
    }

    const fn other_slot(&self) -> u8 {
        1 - self.running_slot % 2
    }

    const fn offset_of(&self, sector: Sector) -> u32 {
        self.otadata.offset + sector.offset()
    }

    fn seq_of(&self, current: Option<u32>, slot: u8) -> Result<u32, FlashFault> {
        let fault = FlashFault { operation: Operation::Number, offset: self.otadata.offset };
        next_seq(current, slot, self.ota_count).ok_or(fault)
    }

    fn write_entry<F: NorFlash>(
        &mut self,
        flash: &mut F,
        sector: Sector,
        entry: OtaEntry,
    ) -> Result<(), FlashFault> {
        let offset = self.offset_of(sector);
        let bytes = entry.encode();
        let is_erased = self.erased.take() == Some(sector);
        let erased = match is_erased {
            true => Ok(()),
            false => flash::erase(flash, offset, offset + SECTOR_BYTES),
        };
        let written = erased
            .and_then(|()| flash::write(flash, offset, &bytes))
            .and_then(|()| flash::verify(flash, offset, &bytes));
        // Whatever came of it: what is believed from here on is what stands there.
        self.reload(flash)?;
        written
    }

    fn reload<F: ReadNorFlash>(&mut self, flash: &mut F) -> Result<(), FlashFault> {
        let mut bytes = [0; ENTRY_BYTES];
        flash::read(flash, self.offset_of(Sector::A), &mut bytes)?;
        self.a = OtaEntry::decode(&bytes);
        flash::read(flash, self.offset_of(Sector::B), &mut bytes)?;
        self.b = OtaEntry::decode(&bytes);
        Ok(())
    }
}

#[cfg(test)]
#[path = "boot_state_tests.rs"]
mod tests;
