//! ESP-IDF's otadata: which slot boots next, and what is known about it.
//!
//! Two entries of 32 bytes, each alone in a sector; the bootloader's rules on them as pure
//! functions, shared by the code that changes entries and by the model of the bootloader, so that
//! the two cannot disagree. Reading and writing flash is not done here. The rules are ESP-IDF's
//! (`bootloader_common.c`, `esp_ota_ops.c`), to the letter.

use crc::{Algorithm, Crc, NoTable};

/// Length of an entry.
pub const ENTRY_BYTES: usize = 32;

/// Length of the otadata partition: two flash sectors.
pub const OTADATA_BYTES: u32 = 0x2000;

/// One of the two places for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sector {
    /// At the start of the partition.
    A,
    /// One flash sector behind it.
    B,
}

impl Sector {
    /// Where the entry stands in the partition.
    pub const fn offset(self) -> u32 {
        match self {
            Self::A => 0,
            Self::B => 0x1000,
        }
    }

    /// The other place.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What the bootloader and the application know about an entry's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtaState {
    /// Selected, has not booted.
    New,
    /// Booting for the first and only time before it is confirmed.
    PendingVerify,
    /// Confirmed.
    Valid,
    /// Refused by the application.
    Invalid,
    /// Did not confirm in its one boot.
    Aborted,
    /// Nothing was written: no rollback in use when the entry was made.
    Undefined,
    /// A value that ESP-IDF does not define; boots like `Valid`.
    Other(u32),
}

impl OtaState {
    /// From the number in flash.
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::New,
            1 => Self::PendingVerify,
            2 => Self::Valid,
            3 => Self::Invalid,
            4 => Self::Aborted,
            u32::MAX => Self::Undefined,
            other => Self::Other(other),
        }
    }

    /// The number in flash.
    pub const fn number(self) -> u32 {
        match self {
            Self::New => 0,
            Self::PendingVerify => 1,
            Self::Valid => 2,
            Self::Invalid => 3,
            Self::Aborted => 4,
            Self::Undefined => u32::MAX,
            Self::Other(other) => other,
        }
    }
}

/// One entry whose sequence number and CRC are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OtaEntry {
    /// The larger one of the two wins; also tells the slot. Never `u32::MAX`.
    pub seq: u32,
    /// Not used by ESP-IDF, kept as found.
    pub label: [u8; 20],
    /// What is known about the image.
    pub state: OtaState,
}

impl OtaEntry {
    /// An entry as ESP-IDF writes it: the label is left erased.
    pub const fn new(seq: u32, state: OtaState) -> Self {
        Self { seq, label: [0xFF; 20], state }
    }

    /// The bytes for flash, with the right CRC.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.seq.to_le_bytes());
        bytes[4..24].copy_from_slice(&self.label);
        bytes[24..28].copy_from_slice(&self.state.number().to_le_bytes());
        bytes[28..].copy_from_slice(&crc(self.seq).to_le_bytes());
        bytes
    }

    /// `None` for what ESP-IDF takes for no entry at all: erased, torn, or with a wrong CRC.
    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let word = |offset: usize| {
            u32::from_le_bytes([
                bytes[offset],
                bytes[offset + 1],
                bytes[offset + 2],
                bytes[offset + 3],
            ])
        };
        let seq = word(0);
        if seq == u32::MAX || word(28) != crc(seq) {
            return None;
        }
        let mut label = [0; 20];
        label.copy_from_slice(&bytes[4..24]);
        Some(Self { seq, label, state: OtaState::from_number(word(24)) })
    }

    /// The same entry in another state, as the bootloader rewrites it.
    #[must_use]
    pub const fn with_state(self, state: OtaState) -> Self {
        Self { state, ..self }
    }
}

/// Whether the bootloader would boot what `entry` selects.
pub const fn usable(entry: &OtaEntry) -> bool {
    !matches!(entry.state, OtaState::Invalid | OtaState::Aborted)
}

/// The entry that is in force: the usable one with the larger sequence number, A if they are equal.
/// `None`: the factory image boots, or slot 0 where there is none.
pub fn active(a: Option<OtaEntry>, b: Option<OtaEntry>) -> Option<(Sector, OtaEntry)> {
    let a = a.filter(usable).map(|entry| (Sector::A, entry));
    let b = b.filter(usable).map(|entry| (Sector::B, entry));
    match (a, b) {
        (Some(in_a), Some(in_b)) => Some(if in_a.1.seq >= in_b.1.seq { in_a } else { in_b }),
        (one, other) => one.or(other),
    }
}

/// The slot that a sequence number selects among `ota_count` slots; `None` if there are none.
pub fn slot_of(seq: u32, ota_count: u8) -> Option<u8> {
    // Wraps for 0 like the bootloader's unsigned arithmetic.
    let slot = seq.wrapping_sub(1).checked_rem(u32::from(ota_count))?;
    u8::try_from(slot).ok()
}

/// The sequence number that selects `wanted_slot` and is not below `current`, that of the entry in
/// force (`None`: no entry is usable).
///
/// `None` if there is no such slot, or if the numbers are used up (after four thousand million
/// activations).
pub fn next_seq(current: Option<u32>, wanted_slot: u8, ota_count: u8) -> Option<u32> {
    if wanted_slot >= ota_count {
        return None;
    }
    let count = u32::from(ota_count);
    let first = u32::from(wanted_slot) + 1;
    let Some(current) = current else { return Some(first) };
    let rounds = current.saturating_sub(first).div_ceil(count);
    let seq = first.checked_add(rounds.checked_mul(count)?)?;
    (seq != u32::MAX).then_some(seq)
}

/// The CRC of an entry. It covers the sequence number only: the state is not protected.
pub const fn crc(seq: u32) -> u32 {
    CRC.checksum(&seq.to_le_bytes())
}

/// CRC-32 as in zlib, continued from 0xFFFFFFFF (`esp_rom_crc32_le(0xFFFFFFFF, …)`), which is the
/// same as starting the register at zero.
const ESP_OTADATA: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x04C1_1DB7,
    init: 0,
    refin: true,
    refout: true,
    xorout: 0xFFFF_FFFF,
    check: 0xD202_D277,
    residue: 0xDEBB_20E3,
};
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&ESP_OTADATA);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/otadata-entries.bin");

    // As `zlib.crc32(struct.pack('<I', seq), 0xFFFFFFFF)` computes them.
    #[test]
    fn the_crc_is_that_of_the_boot_rom() {
        let expected = [
            0x4743_989A,
            0x55F6_3774,
            0xED4A_5011,
            0x709D_68A8,
            0xC821_0FCD,
            0xDA94_A023,
            0x6228_C746,
        ];
        for (seq, expected) in (1..).zip(expected) {
            assert_eq!(crc(seq), expected, "seq {seq}");
        }
    }

    #[test]
    fn entries_in_flash_are_frozen() {
        let states = [
            OtaState::New,
            OtaState::PendingVerify,
            OtaState::Valid,
            OtaState::Invalid,
            OtaState::Aborted,
            OtaState::Undefined,
        ];
        for ((seq, state), bytes) in (1..).zip(states).zip(GOLDEN.as_chunks().0) {
            let entry = OtaEntry::new(seq, state);
            assert_eq!(entry.encode(), *bytes, "{state:?}");
            assert_eq!(OtaEntry::decode(bytes), Some(entry));
        }
        assert_eq!(GOLDEN.len(), states.len() * ENTRY_BYTES);
    }

    #[test]
    fn an_erased_or_torn_entry_is_none() {
        assert_eq!(OtaEntry::decode(&[0xFF; ENTRY_BYTES]), None);
        let mut torn = OtaEntry::new(5, OtaState::Valid).encode();
        torn[28..].fill(0xFF);
        assert_eq!(OtaEntry::decode(&torn), None);
        // No number is left for it, even where the CRC fits.
        assert_eq!(OtaEntry::decode(&OtaEntry::new(u32::MAX, OtaState::Valid).encode()), None);
    }

    // Why the record, not otadata, must say what a trial is: damage here goes unnoticed.
    #[test]
    fn the_crc_does_not_protect_the_state() {
        let mut bytes = OtaEntry::new(5, OtaState::Valid).encode();
        bytes[24] = 0;
        assert_eq!(OtaEntry::decode(&bytes).unwrap().state, OtaState::New);
    }

    #[test]
    fn the_larger_usable_number_is_in_force() {
        let entry = |seq, state| Some(OtaEntry::new(seq, state));
        let sector = |a, b| active(a, b).map(|(sector, entry)| (sector, entry.seq));
        let valid = OtaState::Valid;
        assert_eq!(sector(entry(1, valid), entry(2, OtaState::New)), Some((Sector::B, 2)));
        assert_eq!(sector(entry(3, valid), entry(2, valid)), Some((Sector::A, 3)));
        assert_eq!(sector(entry(1, valid), entry(2, OtaState::Aborted)), Some((Sector::A, 1)));
        assert_eq!(sector(entry(1, valid), entry(2, OtaState::Invalid)), Some((Sector::A, 1)));
        assert_eq!(sector(entry(2, valid), entry(2, valid)), Some((Sector::A, 2)));
        assert_eq!(sector(None, entry(2, OtaState::Undefined)), Some((Sector::B, 2)));
        assert_eq!(sector(entry(1, OtaState::Aborted), None), None);
        assert_eq!(sector(None, None), None);
    }

    #[test]
    fn a_number_selects_a_slot_as_in_the_bootloader() {
        assert_eq!(slot_of(1, 2), Some(0));
        assert_eq!(slot_of(2, 2), Some(1));
        assert_eq!(slot_of(6, 3), Some(2));
        assert_eq!(slot_of(0, 2), Some(1));
        assert_eq!(slot_of(1, 0), None);
    }

    #[test]
    fn the_next_number_is_the_smallest_that_fits() {
        assert_eq!(next_seq(None, 0, 2), Some(1));
        assert_eq!(next_seq(None, 1, 2), Some(2));
        assert_eq!(next_seq(Some(1), 1, 2), Some(2));
        assert_eq!(next_seq(Some(2), 1, 2), Some(2));
        assert_eq!(next_seq(Some(2), 0, 2), Some(3));
        assert_eq!(next_seq(Some(7), 0, 3), Some(7));
        assert_eq!(next_seq(Some(8), 0, 3), Some(10));
        assert_eq!(next_seq(Some(1), 2, 2), None);
        assert_eq!(next_seq(Some(0xFFFF_FFFE), 0, 2), None);
        assert_eq!(next_seq(Some(0xFFFF_FFFE), 1, 2), Some(0xFFFF_FFFE));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(seq in 0..u32::MAX, label: [u8; 20], state: u32) {
            let entry = OtaEntry { seq, label, state: OtaState::from_number(state) };
            prop_assert_eq!(entry.state.number(), state);
            prop_assert_eq!(OtaEntry::decode(&entry.encode()), Some(entry));
        }

        #[test]
        fn the_next_number_fits_is_not_below_and_is_the_smallest(
            current: u32, slot in 0..16_u8, count in 1..=16_u8,
        ) {
            let found = next_seq(Some(current), slot, count);
            let expected = (current.max(1)..u32::MAX)
                .take(usize::from(count))
                .find(|&seq| slot < count && slot_of(seq, count) == Some(slot));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_bytes_panic(bytes: [u8; 32]) {
            let _ = OtaEntry::decode(&bytes);
        }
    }
}
