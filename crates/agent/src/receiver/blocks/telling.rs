//! What a member says of a file that comes in blocks.

use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::coding::{GENERATIONS_OPEN, Shape};
use lockstep_proto::frame::report::{Lacking, Readiness, Wants};

use super::{Blocks, Phase};
use crate::flash::PAGE_BYTES;
use crate::slot::Pace;

impl Blocks {
    /// Bytes that are in flash, or are about to be.
    pub(in crate::receiver) fn flashed_bytes(&self) -> u32 {
        if !matches!(self.phase, Phase::Open | Phase::Complete) {
            return self.in_order_bytes();
        }
        let blocks: u32 = self.have.iter().map(|have| have.count_ones()).sum();
        let bytes = self.in_order_bytes() + blocks * self.cut.shape.block_bytes();
        bytes.min(self.cut.size_bytes)
    }

    pub(in crate::receiver) fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    pub(in crate::receiver) fn wants(&self, session: Session, pace: Pace) -> Wants {
        let readiness = match self.phase {
            Phase::Head { .. } => Readiness::Head,
            Phase::Open if self.may_erase() => Readiness::Busy,
            Phase::Open => Readiness::Open,
            Phase::Judging | Phase::Erasing { .. } | Phase::Complete => Readiness::Busy,
        };
        let interval_ms = match pace {
            // A block lies in one page more than it fills, nearly always.
            Pace::Background { ms_between } => {
                let pages = self.cut.shape.block_bytes().div_ceil(PAGE_BYTES) + 1;
                u16::try_from(ms_between.saturating_mul(pages)).unwrap_or(u16::MAX)
            }
            Pace::Fast => 0,
        };
        let erased_bytes = match self.phase {
            Phase::Erasing { from, up_to, .. } => up_to - from,
            _ => 0,
        };
        let open = self.first..self.first.saturating_add(GENERATIONS_OPEN);
        let open = open.take_while(|&it| self.cut.blocks_of(it) > 0);
        Wants {
            session,
            readiness,
            shape: self.cut.shape,
            takes_large: self.takes_large,
            interval_ms,
            staged_bytes: self.flashed_bytes(),
            erased_bytes,
            first: self.first,
            lacking: match self.cut.shape {
                Shape::Small => Lacking::of(open.map(|generation| self.lacks(generation))),
                Shape::Large => Lacking::of_large(open.map(|generation| {
                    u32::try_from(self.wanted_of(generation)).unwrap_or(u32::MAX)
                })),
            },
        }
    }

    /// How many blocks of a generation are lacking, less the repair frames that are held.
    pub(in crate::receiver) fn lacks(&self, generation: u16) -> u8 {
        let missing = self.wanted_of(generation).count_ones();
        let held = u32::from(self.mender.held_of(generation));
        u8::try_from(missing.saturating_sub(held)).unwrap_or(u8::MAX)
    }

    /// Which blocks of a generation would be taken: none of one that has to be erased first.
    fn wanted_of(&self, generation: u16) -> u128 {
        if self.is_poisoned(generation) {
            return 0;
        }
        self.missing_of(generation).unwrap_or_default()
    }
}
