//! Past rollouts with their outcome, newest first, durable in one entry of the record.
//!
//! Layout, little endian: number of outcomes u8, then 60 bytes each: rollout id 8, term 2,
//! counter 4, kind 1, verdict 1 (1 keep, 2 revert), cause 17 (as in the rollout's record), release
//! number 4, number before 4, seconds of disagreement plus one u16 (0 if unknown), what became of
//! patches 12, 5 bytes for later versions.

use alloc::collections::VecDeque;

use crate::patched::{PATCHED_BYTES, Patched};
use lockstep_proto::id::{Generation, RolloutId};
use lockstep_proto::wire::{Full, Reader, Writer};
use lockstep_rollout::{Cause, Kind, RecordError, RolloutRecord, Verdict};

/// How one rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The rollout.
    pub rollout: RolloutId,
    /// Its generation.
    pub generation: Generation,
    /// Why there was one.
    pub kind: Kind,
    /// How it ended.
    pub verdict: Verdict,
    /// Number of the release it led to.
    pub number: u32,
    /// Number of the release before; 0 if unknown.
    pub number_before: u32,
    /// From when the first of its members ran the new release until the last did, in seconds, to
    /// about one; `None` if that is not known.
    pub disagreed_s: Option<u16>,
    /// What became of its patches.
    pub patched: Patched,
}

/// The last outcomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    outcomes: VecDeque<Outcome>,
}

impl History {
    /// Newest first.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter()
    }

    /// Takes down how a rollout ended; again if it is known already. `None` if it has not ended.
    pub fn note(&mut self, record: &RolloutRecord, patched: Patched) -> Option<()> {
        let known = self.outcomes.iter().find(|known| known.rollout == record.id);
        let outcome = Outcome {
            rollout: record.id,
            generation: record.generation,
            kind: record.kind,
            verdict: record.phase.verdict()?,
            number: record.number,
            number_before: record.number_before,
            disagreed_s: known.and_then(|known| known.disagreed_s),
            patched,
        };
        self.outcomes.retain(|known| known.rollout != outcome.rollout);
        self.outcomes.push_front(outcome);
        self.outcomes.truncate(OUTCOMES_MAX);
        Some(())
    }

    /// Adds to an outcome how long its members ran different releases; whether there is such an
    /// outcome that does not have it yet.
    pub fn note_disagreement(&mut self, rollout: RolloutId, seconds: u16) -> bool {
        let mut unknown = self.outcomes.iter_mut().filter(|it| it.disagreed_s.is_none());
        let Some(outcome) = unknown.find(|it| it.rollout == rollout) else { return false };
        outcome.disagreed_s = Some(seconds);
        true
    }

    /// Writes the entry and returns its length in bytes.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(buffer);
        writer.u8(u8::try_from(self.outcomes.len()).unwrap_or(u8::MAX))?;
        for outcome in &self.outcomes {
            writer.u64(outcome.rollout.0)?;
            writer.u16(outcome.generation.term)?;
            writer.u32(outcome.generation.counter)?;
            writer.u8(outcome.kind.number())?;
            match outcome.verdict {
                Verdict::Keep => {
                    writer.u8(1)?;
                    writer.put(&[0; 17])?;
                }
                Verdict::Revert(cause) => {
                    writer.u8(2)?;
                    cause.put(&mut writer)?;
                }
            }
            writer.u32(outcome.number)?;
            writer.u32(outcome.number_before)?;
            writer.u16(outcome.disagreed_s.map_or(0, |seconds| seconds.saturating_add(1)))?;
            outcome.patched.put(&mut writer)?;
            writer.put(&[0; RESERVED_BYTES])?;
        }
        Ok(writer.len_bytes())
    }

    /// Reads the entry. Outcomes that a later version wrote and this one cannot read are left out.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut reader = Reader::new(bytes);
        let count = reader.u8().unwrap_or(0);
        let mut outcomes = VecDeque::new();
        for _ in 0..count {
            let Ok(bytes) = reader.array::<OUTCOME_BYTES>() else { break };
            if let Ok(outcome) = Outcome::decode(&bytes) {
                outcomes.push_back(outcome);
            }
        }
        outcomes.truncate(OUTCOMES_MAX);
        Self { outcomes }
    }
}

impl Outcome {
    fn decode(bytes: &[u8; OUTCOME_BYTES]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let rollout = RolloutId(reader.u64()?);
        let generation = Generation { term: reader.u16()?, counter: reader.u32()? };
        let found = reader.u8()?;
        let kind = Kind::from_number(found)
            .ok_or(RecordError::Field { field: "kind", found: found.into() })?;
        let verdict = match reader.u8()? {
            1 => {
                reader.take(17)?;
                Verdict::Keep
            }
            2 => Verdict::Revert(Cause::take(&mut reader)?),
            found => return Err(RecordError::Field { field: "verdict", found: found.into() }),
        };
        let (number, number_before) = (reader.u32()?, reader.u32()?);
        let disagreed_s = reader.u16()?.checked_sub(1);
        let patched = Patched::take(&mut reader)?;
        Ok(Self { rollout, generation, kind, verdict, number, number_before, disagreed_s, patched })
    }
}

/// Outcomes kept.
pub const OUTCOMES_MAX: usize = 16;
const RESERVED_BYTES: usize = 17 - PATCHED_BYTES;
const OUTCOME_BYTES: usize = 60;
/// Bytes of the entry at its longest.
pub const HISTORY_BYTES_MAX: usize = 1 + OUTCOMES_MAX * OUTCOME_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rollout: u64) -> Outcome {
        Outcome {
            rollout: RolloutId(rollout),
            generation: Generation { term: 1, counter: 7 },
            kind: Kind::Forward,
            verdict: Verdict::Revert(Cause::Aborted),
            number: 10_100,
            number_before: 10_000,
            disagreed_s: (rollout == 1).then_some(2),
            patched: Patched { members: u8::from(rollout == 2), ..Patched::default() },
        }
    }

    #[test]
    fn what_was_written_is_read_and_a_cut_entry_keeps_what_is_whole() {
        let history = History { outcomes: (1..=3).map(outcome).collect() };
        let mut buffer = [0; HISTORY_BYTES_MAX];
        let len = history.encode(&mut buffer).unwrap();
        assert_eq!(len, 1 + 3 * OUTCOME_BYTES);
        // Devices in the field have this in their flash: number of outcomes, then the first one.
        let frozen = [3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 2, 1];
        assert_eq!(buffer[..frozen.len()], frozen);
        assert_eq!(buffer[34..42], [0x74, 0x27, 0, 0, 0x10, 0x27, 0, 0], "both release numbers");
        assert_eq!(buffer[42..45], [3, 0, 0], "seconds of disagreement plus one, then no patches");
        assert_eq!(buffer[104..106], [1, 0], "of the second one: a member by patch");
        assert_eq!(History::decode(&buffer[..len]), history);
        assert_eq!(History::decode(&buffer[..len - 1]).outcomes.len(), 2);
    }
}
