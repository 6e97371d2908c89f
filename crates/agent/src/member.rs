//! A member's durable part in its last rollout: what it was asked, how far it has come.
//!
//! It is stored before otadata is touched, so that a late order finds out that it is late. It says
//! what was begun, never what is true now: that is observed at boot. Versions 1 and 2 are frozen;
//! later ones append, and what they appended is kept and written back.

use lockstep_proto::frame::order::{Source, Terms, Ticket};
use lockstep_proto::frame::report::MemberState;
use lockstep_proto::id::{Generation, ImageHash, Sha256};
use lockstep_proto::wire::{Full, Reader, TooShort, Writer};

/// The longest encoded record.
pub const MEMBER_BYTES_MAX: usize = BYTES_V2 + TAIL_BYTES_MAX;

/// What is stored of the last rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Rollout, generation, last accepted attempt.
    pub ticket: Ticket,
    /// How far it has come.
    pub state: MemberState,
    /// The image to be staged and activated; zeros: none.
    pub target: ImageHash,
    /// What ran when `target` was staged: the way back.
    pub previous: ImageHash,
    /// Size of the artifact file; 0 if the image was in the slot before.
    pub size_bytes: u32,
    /// SHA-256 of the manifest package.
    pub package: Sha256,
    /// Size of that package in bytes.
    pub package_size_bytes: u16,
    /// SHA-256 of the artifact file; zeros until the package is verified.
    pub file_sha256: Sha256,
    /// Epoch of the release that `target` belongs to.
    pub epoch: u32,
    /// Where the image comes from.
    pub source: Source,
    /// How long this device protects itself on its own.
    pub terms: Terms,
    /// How often `target` was seen booting on trial by our own count.
    pub trial_boots: u8,
    /// A revert was accepted while `target` ran or was about to: it is left whenever it runs.
    pub leaves_target: bool,
    /// The last generation of which the lead has said that everybody has kept it. Firmware of
    /// version 1 carries this on unread, through rollouts of its own.
    pub settled: Generation,
    pub(crate) version: u8,
    pub(crate) tail: heapless::Vec<u8, TAIL_BYTES_MAX>,
}

impl MemberRecord {
    /// Before any rollout.
    pub const fn idle() -> Self {
        Self {
            ticket: Ticket {
                rollout: lockstep_proto::id::RolloutId(0),
                generation: lockstep_proto::id::Generation { term: 0, counter: 0 },
                attempt: 0,
            },
            state: MemberState::Idle,
            target: NO_IMAGE,
            previous: NO_IMAGE,
            size_bytes: 0,
            package: Sha256([0; 32]),
            package_size_bytes: 0,
            file_sha256: Sha256([0; 32]),
            epoch: 0,
            source: Source::Blocks,
            terms: Terms { lease_ms: 0, trial_limit_ms: 0, rest_lease_ms: 0 },
            trial_boots: 0,
            leaves_target: false,
            settled: Generation { term: 0, counter: 0 },
            version: VERSION,
            tail: heapless::Vec::new(),
        }
    }

    /// The version of the entry: this firmware's, or a later one that was found.
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// Writes the payload of the entry and returns its length.
    pub fn encode(&self, buffer: &mut [u8; MEMBER_BYTES_MAX]) -> Result<usize, Full> {
        let mut writer = Writer::new(buffer);
        self.ticket.put(&mut writer)?;
        writer.u8(self.state.code())?;
        writer.put(&self.target.0)?;
        writer.put(&self.previous.0)?;
        writer.u32(self.size_bytes)?;
        writer.put(&self.package.0)?;
        writer.u16(self.package_size_bytes)?;
        writer.put(&self.file_sha256.0)?;
        writer.u32(self.epoch)?;
        writer.u8(match self.source {
            Source::Blocks => 0,
            Source::OtherSlot => 1,
        })?;
        self.terms.put(&mut writer)?;
        writer.u8(self.trial_boots)?;
        writer.u8(u8::from(self.leaves_target))?;
        writer.u16(self.settled.term)?;
        writer.u32(self.settled.counter)?;
        writer.put(&self.tail)?;
        Ok(writer.len_bytes())
    }

    /// Reads what [`MemberRecord::encode`] wrote, or what a later version did.
    ///
    /// A state of a later version counts as `Reverted`: this firmware cannot carry it on, and must
    /// not obey late orders of that rollout.
    pub fn decode(version: u8, payload: &[u8]) -> Result<Self, TooShort> {
        let mut reader = Reader::new(payload);
        let mut record = Self {
            ticket: Ticket::take(&mut reader)?,
            state: MemberState::from_code(reader.u8()?).unwrap_or(MemberState::Reverted),
            target: ImageHash(reader.array()?),
            previous: ImageHash(reader.array()?),
            size_bytes: reader.u32()?,
            package: Sha256(reader.array()?),
            package_size_bytes: reader.u16()?,
            file_sha256: Sha256(reader.array()?),
            epoch: reader.u32()?,
            source: if reader.u8()? == 0 { Source::Blocks } else { Source::OtherSlot },
            terms: Terms::take(&mut reader)?,
            trial_boots: reader.u8()?,
            leaves_target: reader.u8()? & 1 == 1,
            settled: match version {
                ..=1 => Generation::default(),
                _ => Generation { term: reader.u16()?, counter: reader.u32()? },
            },
            version: version.max(VERSION),
            tail: heapless::Vec::new(),
        };
        // As much as fits: a later version that appends more loses the end of it here.
        record.tail.extend(reader.rest().iter().copied().take(TAIL_BYTES_MAX));
        Ok(record)
    }
}

/// Stands for "no image" in records and reports.
pub(crate) const NO_IMAGE: ImageHash = ImageHash([0; 32]);
/// Version of the entry as this firmware writes it.
const VERSION: u8 = 2;
/// Length of version 1.
const BYTES_V1: usize = Ticket::LEN_BYTES + 1 + 32 + 32 + 4 + 32 + 2 + 32 + 4 + 1 + 12 + 1 + 1;
/// Length of version 2.
const BYTES_V2: usize = BYTES_V1 + 2 + 4;
/// What later versions can append without losing it to this firmware.
const TAIL_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use lockstep_proto::id::RolloutId;

    use super::*;

    fn record() -> MemberRecord {
        MemberRecord {
            ticket: Ticket {
                rollout: RolloutId(0x0102_0304_0506_0708),
                generation: Generation { term: 3, counter: 70 },
                attempt: 2,
            },
            state: MemberState::Activating,
            target: ImageHash([0x11; 32]),
            previous: ImageHash([0x22; 32]),
            size_bytes: 0x1E_0000,
            package: Sha256([0x33; 32]),
            package_size_bytes: 900,
            file_sha256: Sha256([0x44; 32]),
            epoch: 5,
            source: Source::OtherSlot,
            terms: Terms { lease_ms: 1, trial_limit_ms: 2, rest_lease_ms: 3 },
            trial_boots: 1,
            leaves_target: true,
            settled: Generation { term: 3, counter: 69 },
            ..MemberRecord::idle()
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut buffer = [0; MEMBER_BYTES_MAX];
        let length = record().encode(&mut buffer).unwrap();
        assert_eq!(length, BYTES_V2);
        assert_eq!(MemberRecord::decode(2, &buffer[..length]), Ok(record()));
        for cut in 0..length {
            assert!(MemberRecord::decode(2, &buffer[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_record_of_version_1_has_settled_nothing() {
        let mut buffer = [0; MEMBER_BYTES_MAX];
        record().encode(&mut buffer).unwrap();
        let read = MemberRecord::decode(1, &buffer[..BYTES_V1]).unwrap();
        let expected = MemberRecord { settled: Generation::default(), ..record() };
        assert_eq!((read.version(), read), (VERSION, expected));
    }

    // A lead or member reboots into older firmware in the middle of a rollout, and goes on.
    #[test]
    fn what_a_later_version_appended_is_written_back() {
        let mut buffer = [0; MEMBER_BYTES_MAX];
        let length = record().encode(&mut buffer).unwrap();
        let mut longer = buffer[..length].to_vec();
        longer.extend([7; 20]);
        let read = MemberRecord::decode(9, &longer).unwrap();
        assert_eq!(read.ticket, record().ticket);
        let length = read.encode(&mut buffer).unwrap();
        assert_eq!((read.version(), &buffer[..length]), (9, &longer[..]));
    }

    #[test]
    fn of_what_a_later_version_appended_as_much_is_kept_as_fits_the_longest_record() {
        let mut buffer = [0; MEMBER_BYTES_MAX];
        let length = record().encode(&mut buffer).unwrap();
        let mut longer = buffer[..length].to_vec();
        longer.extend(0..100);
        let read = MemberRecord::decode(9, &longer).unwrap();
        let length = read.encode(&mut buffer).unwrap();
        assert_eq!((length, MEMBER_BYTES_MAX), (239, 239));
        assert_eq!(buffer[..], longer[..239]);
    }

    #[test]
    fn a_state_of_a_later_version_counts_as_reverted() {
        let mut buffer = [0; MEMBER_BYTES_MAX];
        let length = record().encode(&mut buffer).unwrap();
        buffer[Ticket::LEN_BYTES] = 200;
        let read = MemberRecord::decode(2, &buffer[..length]).unwrap();
        assert_eq!(read.state, MemberState::Reverted);
    }
}
