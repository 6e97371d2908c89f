//! What comes over the radio for everybody: blocks, what mends them, and the question what is
//! lacking. When a member speaks matters as much as what it says: many answer the same question.

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::block::{Ask, BlockFrame, Session};
use lockstep_proto::frame::report::{MemberState, Wants};
use lockstep_proto::id::{DeviceId, Sha256};
use lockstep_proto::time::Instant;

use crate::agent::Agent;
use crate::receiver::{Dropped, Job, Taken};

impl Agent {
    /// Whether frames of this session are looked at: what this device takes now, and what it may be
    /// asked about.
    pub fn takes_session(&self, session: Session) -> bool {
        let job = self.receiver.job().filter(|job| job.comes_in_blocks());
        let member = &self.member;
        let is_of = |object: &Sha256| Session::of(&object.0) == session;
        match member.state {
            MemberState::Staging => {
                job.is_some_and(|job| job.session() == session || is_of(&member.package))
            }
            MemberState::Staged => is_of(&member.file_sha256) || is_of(&member.package),
            _ => false,
        }
    }

    /// Takes a block, a repair frame or a question of a session that this device takes. What is
    /// answered is in [`Agent::take_wants`], perhaps later.
    pub fn handle_block<F: NorFlash>(
        &mut self,
        now: Instant,
        me: DeviceId,
        frame: &BlockFrame<'_>,
        flash: &mut F,
    ) -> Result<(), Dropped> {
        self.advance(now);
        if !self.takes_session(frame.session()) {
            return Err(Dropped::Unwanted);
        }
        self.session_heard = Some(self.now);
        let taken = match frame {
            BlockFrame::Block(block) => self.receiver.take_block(block),
            BlockFrame::Repair(repair) => {
                // The sender does not wait for an answer any more.
                self.answer_lacking_at = None;
                match self.receiver.take_repair(repair, flash) {
                    Ok(taken) => taken,
                    Err(fault) => {
                        self.refuse_staging(fault.into());
                        return Err(Dropped::Unwanted);
                    }
                }
            }
            BlockFrame::Ask(ask) => {
                self.note_asked(me, ask);
                return Ok(());
            }
        };
        if let Err(refusal) = self.after_taking(taken, flash) {
            self.refuse_staging(refusal);
        }
        match taken {
            Taken::Dropped(why) => Err(why),
            Taken::Stored | Taken::Head | Taken::Window => Ok(()),
        }
    }

    /// What to say of the object that comes in blocks, if it is due: a transfer began, the flash is
    /// done with what held it up, or it was asked and this is its turn.
    pub fn take_wants(&mut self, now: Instant) -> Option<Wants> {
        // What made it due may have been an erase that took longer than any wait: the wait begins
        // behind it.
        if self.wants_due.take_if(|since| *since < now).is_some() {
            self.unasked_at = Some(now + self.unasked_wait_ms);
            // It is about to speak, and waits for what comes of that first.
            self.session_heard = Some(now);
        }
        if self.receiver.is_erasing() {
            // It hears nothing now, and so does not know whose turn it is. It speaks when it is
            // done, or with the next repetition.
            (self.answer_at, self.answer_lacking_at, self.unasked_at) = (None, None, None);
            return None;
        }
        if self.answer_at.take_if(|at| *at + LATE_MS < now).is_some() {
            // It was deaf when it was its turn, and so were others, most likely: all of them would
            // speak now.
            self.unasked_at.get_or_insert(now + self.unasked_wait_ms);
        }
        let turns = [self.answer_at, self.answer_lacking_at, self.unasked_at];
        if !turns.into_iter().flatten().any(|at| at <= now) {
            return None;
        }
        (self.answer_at, self.answer_lacking_at, self.unasked_at) = (None, None, None);
        let wants = self.wants();
        self.receiver.note_said();
        wants
    }

    /// When [`Agent::take_wants`] has something.
    pub(crate) fn speaks_at(&self) -> Option<Instant> {
        let comes =
            self.receiver.job().is_some_and(Job::comes_in_blocks) || self.applying.is_some();
        let due = self.wants_due.map(|since| since + 1);
        let unasked = [self.unasked_at, due].into_iter().flatten().filter(|_| comes);
        let answers = [self.answer_at, self.answer_lacking_at].into_iter().flatten();
        unasked.chain(answers).min().filter(|_| self.wants().is_some())
    }

    /// Members answer one after the other, or those who lack something in the order of how much.
    fn note_asked(&mut self, me: DeviceId, ask: &Ask<'_>) {
        let slot_ms = u64::from(ask.slot_ms);
        let Some(generation) = ask.generation else {
            self.receiver.note_round_over();
            match ask.turn_of(me) {
                Some(turn) => {
                    let turn = u64::try_from(turn).unwrap_or(u64::MAX);
                    self.answer_at = Some(self.now + slot_ms.saturating_mul(turn));
                    self.unnamed = 0;
                }
                // Those who have not answered yet are asked once more; if this device is not among
                // them time and again, the lead does not know of it.
                None => {
                    self.receiver.note_said();
                    self.unnamed = self.unnamed.saturating_add(1);
                    if self.unnamed >= UNNAMED_MAX {
                        (self.wants_due, self.unnamed) = (Some(self.now), 0);
                    }
                }
            }
            return;
        };
        let lacking = self.receiver.job().map_or(0, |job| job.lacks(generation));
        if lacking > 0 {
            let turn = LACKING_TURNS.saturating_sub(u64::from(lacking));
            // Those who lack as much as each other do not speak at the same time, nor the same one
            // always first.
            let [.., low] = me.0;
            let mixed = low.wrapping_mul(5).wrapping_add(generation.to_le_bytes()[0]) >> 2;
            let turn = turn + u64::from(mixed % LACKING_SPREAD);
            self.answer_lacking_at = Some(self.now + slot_ms.saturating_mul(turn));
        }
    }
}

/// A turn that a device missed by more than this is over.
const LATE_MS: u64 = 10;
/// So many questions in a row that do not name a device are asked by a lead that forgot it.
const UNNAMED_MAX: u8 = 6;
/// Whoever lacks fewer blocks than this after repair frames waits a turn for each less.
const LACKING_TURNS: u64 = 3;
/// Turns over which those are spread that lack as much as each other.
const LACKING_SPREAD: u8 = 4;
