//! Sending blocks: brings one object (a manifest package or an artifact) to every member that
//! wants it. Blocks are broadcast, so what one member asks for may serve another as well.
//!
//! A member says with [`Wants`] which blocks it can take now; the sender sends exactly those that
//! are missing among them, asks with the last one, and says the last one again when no answer
//! comes. It never runs ahead of a member's window, because beyond it the member erases flash.

use alloc::vec::Vec;

use lockstep_proto::frame::block::{BLOCK_BYTES, Session, Then};
use lockstep_proto::frame::report::Wants;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

/// One object on its way.
#[derive(Debug, Clone)]
pub struct Sender {
    session: Session,
    size_bytes: u32,
    targets: Vec<Target>,
    /// How long an answer may take before the question is asked again, in milliseconds.
    answer_ms: u64,
}

#[derive(Debug, Clone)]
struct Target {
    device: DeviceId,
    /// Every block before this one is in its flash.
    index: u16,
    /// Blocks that it lacks and can take now, as bits from `index` on.
    missing: u32,
    /// Those of them that are still to be sent.
    unsent: u32,
    asked_at: Option<Instant>,
}

/// A block to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Which block.
    pub index: u16,
    /// Where it begins in the object, in bytes.
    pub offset_bytes: u32,
    /// How long it is, 1 to 224 bytes.
    pub len_bytes: usize,
    /// Whether receivers are to answer.
    pub then: Then,
}

#[expect(clippy::cast_possible_truncation, reason = "224 fits")]
const BLOCK_LEN_BYTES: u32 = BLOCK_BYTES as u32;
/// Members served at once, at most.
pub const TARGETS_MAX: usize = crate::MEMBERS_MAX;

impl Sender {
    /// A sender for one object of `size_bytes`. Nobody wants it yet.
    pub const fn new(session: Session, size_bytes: u32, answer_ms: u64) -> Self {
        Self { session, size_bytes, targets: Vec::new(), answer_ms }
    }

    /// The object's session.
    pub const fn session(&self) -> Session {
        self.session
    }

    /// A member says what it can take now. Another session's are ignored. Returns whether it has
    /// come any further since it last spoke: a repeated question is no progress.
    pub fn note_wants(&mut self, device: DeviceId, wants: Wants) -> bool {
        if wants.session != self.session {
            return false;
        }
        let window = u32::from(wants.window).min(u32::BITS);
        let open = u32::MAX.checked_shr(u32::BITS - window).unwrap_or_default();
        let left = self.blocks().saturating_sub(u32::from(wants.index));
        let exists = u32::MAX.checked_shr(u32::BITS.saturating_sub(left)).unwrap_or_default();
        let missing = open & exists & !wants.have;
        let index = wants.index;
        let target = Target { device, index, missing, unsent: missing, asked_at: None };
        let has_room = self.targets.len() < TARGETS_MAX;
        match self.targets.iter_mut().find(|target| target.device == device) {
            Some(known) => {
                let advanced = (known.index, known.missing) != (index, missing);
                *known = target;
                advanced
            }
            None if has_room => {
                self.targets.push(target);
                true
            }
            // More than there can be members: an impostor with the key, or a bug. Not served.
            None => false,
        }
    }

    /// Forgets a member that has everything, or has gone.
    pub fn remove(&mut self, device: DeviceId) {
        self.targets.retain(|target| target.device != device);
    }

    /// The next block to send, if one is due.
    pub fn next_block(&mut self, now: Instant) -> Option<Due> {
        let answer_ms = self.answer_ms;
        // Whoever is furthest behind first; blocks it lacks are the ones most others may lack.
        let target = self
            .targets
            .iter_mut()
            .filter(|target| target.is_due(now, answer_ms))
            .min_by_key(|target| target.index)?;
        if target.unsent == 0 {
            // The answer, or the question, was lost: ask again with one block of the window.
            target.unsent = 1 << target.question()?;
        }
        let bit = u16::try_from(target.unsent.trailing_zeros()).ok()?;
        let index = target.index.checked_add(bit)?;
        let then = self.note_sent(now, index);
        self.due(index, then)
    }

    /// One broadcast serves everybody who can take this block. The last block of anybody's window
    /// asks all of them.
    fn note_sent(&mut self, now: Instant, index: u16) -> Then {
        let mut then = Then::Continue;
        for target in &mut self.targets {
            let Some(bit) = target.unsent_bit(index) else { continue };
            target.unsent &= !bit;
            if target.unsent == 0 {
                target.asked_at = Some(now);
                then = Then::Answer;
            }
        }
        then
    }

    /// When [`Sender::next_block`] has something at the latest; `None` if nobody wants anything.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let wake = |target: &Target| match (target.unsent, target.asked_at) {
            (0, Some(asked_at)) => asked_at + self.answer_ms,
            _ => now,
        };
        self.targets.iter().filter(|target| target.question().is_some()).map(wake).min()
    }

    fn blocks(&self) -> u32 {
        self.size_bytes.div_ceil(BLOCK_LEN_BYTES)
    }

    fn due(&self, index: u16, then: Then) -> Option<Due> {
        let offset_bytes = u32::from(index).checked_mul(BLOCK_LEN_BYTES)?;
        let left_bytes = self.size_bytes.checked_sub(offset_bytes).filter(|&left| left > 0)?;
        let len_bytes = usize::try_from(left_bytes).ok()?.min(BLOCK_BYTES);
        Some(Due { index, offset_bytes, len_bytes, then })
    }
}

impl Target {
    fn is_due(&self, now: Instant, answer_ms: u64) -> bool {
        let waited = self.asked_at.is_none_or(|at| now.ms_since(at) >= answer_ms);
        self.unsent != 0 || (waited && self.question().is_some())
    }

    /// The bit of this block, if it is still to be sent to this target.
    fn unsent_bit(&self, index: u16) -> Option<u32> {
        let bit = 1_u32.checked_shl(u32::from(index.checked_sub(self.index)?))?;
        (self.unsent & bit != 0).then_some(bit)
    }

    /// The last missing block of the window: repeating it asks without sending much.
    fn question(&self) -> Option<u32> {
        self.missing.checked_ilog2()
    }
}
