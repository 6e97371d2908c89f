//! The device that is adopted: on what terms it takes a group's key, and how it comes to use it.
//!
//! ```text
//!          Ask             Key, right proof: store
//!   Idle ──────► Offered ─────────────────────────► Taken
//!     ▲             │ wrong proof
//!     └─────────────┘
//! ```

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::Agent;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::frame::adopt::{AdoptMessage, ELEMENT_BYTES, NotAdopted, PROOF_BYTES};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::MemberState;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Reader;
use sha2::{Digest, Sha256};

use super::exchange::{Exchange, Secret, Side};
use super::said;
use crate::journal::Level;
use crate::node::{Node, read_entry};
use crate::setup::Application;

/// How far the adoption of this device has come.
#[derive(Debug, Default)]
pub(crate) struct Candidate {
    state: State,
    /// Wrong passwords in this boot.
    wrong: u8,
    began_at: Option<Instant>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Offered {
        lead: DeviceId,
        session: u64,
        exchange: Exchange,
    },
    /// The key is stored; whoever did not hear that hears it again.
    Taken {
        lead: DeviceId,
        session: u64,
        proof: [u8; PROOF_BYTES],
    },
}

/// What a lead sends when it has proved to know the password.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) element: [u8; ELEMENT_BYTES],
    pub(super) sealed: [u8; 32],
    pub(super) proof: [u8; PROOF_BYTES],
}

impl<A: Application> Node<A> {
    /// Somebody wants to adopt this device.
    pub(super) fn answer_ask(&mut self, now: Instant, lead: DeviceId, session: u64) {
        let message = match self.terms(now, lead, session) {
            Ok(Some(terms)) => terms,
            // Asked too often: whoever means it asks again.
            Ok(None) => return,
            Err(why) => AdoptMessage::Refused(why),
        };
        self.send_adopt(lead, session, message);
    }

    fn terms(
        &mut self,
        now: Instant,
        lead: DeviceId,
        session: u64,
    ) -> Result<Option<AdoptMessage>, NotAdopted> {
        self.may_be_adopted()?;
        let password = self.password().ok_or(NotAdopted::NoPassword)?;
        let (salt, rounds, hash) = (*password.salt(), password.rounds(), *password.hash());
        if let State::Offered { lead: known, session: begun, exchange } = &self.candidate.state
            && (*known, *begun) == (lead, session)
        {
            let element = *exchange.element();
            return Ok(Some(AdoptMessage::Terms { salt, rounds, element }));
        }
        if self.candidate.began_at.is_some_and(|at| now.ms_since(at) < BEGIN_EVERY_MS) {
            return Ok(None);
        }
        let me = self.setup.id;
        let exchange = Exchange::begin(Side::Device, &hash, lead, me, || self.draw());
        let element = *exchange.element();
        self.candidate.began_at = Some(now);
        self.candidate.state = State::Offered { lead, session, exchange };
        Ok(Some(AdoptMessage::Terms { salt, rounds, element }))
    }

    /// Whether this device may change its group now.
    fn may_be_adopted(&self) -> Result<(), NotAdopted> {
        if self.lead.is_some() {
            return Err(NotAdopted::Leads);
        }
        if self.candidate.wrong >= WRONG_MAX {
            return Err(NotAdopted::TooManyTries);
        }
        let is_open = match self.agent.member().state {
            MemberState::Idle | MemberState::Kept | MemberState::Reverted => false,
            MemberState::Staging
            | MemberState::Staged
            | MemberState::Activating
            | MemberState::Confirming => true,
        };
        if is_open || self.agent.on_trial() { Err(NotAdopted::InRollout) } else { Ok(()) }
    }

    /// The group's key, for whoever knows the password of this device.
    pub(super) fn take_key<F: NorFlash>(
        &mut self,
        now: Instant,
        lead: DeviceId,
        session: u64,
        offer: &Offer,
        flash: &mut F,
    ) {
        if let State::Taken { lead: known, session: begun, proof } = &self.candidate.state
            && (*known, *begun) == (lead, session)
        {
            let taken = AdoptMessage::Taken { proof: *proof };
            return self.send_adopt(lead, session, taken);
        }
        let exchange = match core::mem::take(&mut self.candidate.state) {
            State::Offered { lead: known, session: begun, exchange }
                if (known, begun) == (lead, session) =>
            {
                exchange
            }
            // A key that nobody asked terms for here; what was begun with somebody else goes on.
            other => {
                self.candidate.state = other;
                return;
            }
        };
        let opened = self.open_offer(session, exchange, offer);
        let taken = opened.and_then(|(key, secret)| {
            self.store_key(now, lead, &key, flash)?;
            Ok(secret.proof(Side::Device, &said(session, &[])))
        });
        let message = match taken {
            Ok(proof) => {
                self.candidate.state = State::Taken { lead, session, proof };
                AdoptMessage::Taken { proof }
            }
            Err(why) => AdoptMessage::Refused(why),
        };
        self.send_adopt(lead, session, message);
    }

    fn open_offer(
        &mut self,
        session: u64,
        exchange: Exchange,
        offer: &Offer,
    ) -> Result<(GroupKey, Secret), NotAdopted> {
        // Much may have happened since the terms were sent.
        self.may_be_adopted()?;
        let Offer { element, sealed, proof } = offer;
        let secret = exchange.finish(element);
        let secret =
            secret.filter(|secret| secret.is_proof(Side::Lead, &said(session, sealed), proof));
        let Some(secret) = secret else {
            self.candidate.wrong = self.candidate.wrong.saturating_add(1);
            return Err(NotAdopted::WrongPassword);
        };
        Ok((GroupKey::new(secret.seal(sealed)), secret))
    }

    /// Whether this device has the key of a group, and not just one of its own for this boot.
    pub const fn has_group(&self) -> bool {
        self.tuner.has_group()
    }

    /// A lead that was given no key begins a group with this one, of 32 random bytes, durably.
    /// `false`: it leads none, has one already, or its flash failed.
    pub fn found_group<F: NorFlash>(&mut self, now: Instant, key: GroupKey, flash: &mut F) -> bool {
        if self.lead.is_none() || self.has_group() || !self.write_key(&key, flash) {
            return false;
        }
        let text = alloc::format!("begins group {:08x}", key.group().0);
        self.journal.log(now, Level::Notice, text);
        self.key = key;
        self.tuner.begin_anew();
        true
    }

    fn write_key<F: NorFlash>(&mut self, key: &GroupKey, flash: &mut F) -> bool {
        self.write_entry(ENTRY_KEY, &key_entry(key, &self.given_key), flash)
    }

    /// Durable first; from then on this device speaks with the new key alone.
    fn store_key<F: NorFlash>(
        &mut self,
        now: Instant,
        lead: DeviceId,
        key: &GroupKey,
        flash: &mut F,
    ) -> Result<(), NotAdopted> {
        if !self.write_key(key, flash) {
            return Err(NotAdopted::Storage);
        }
        let text = alloc::format!("adopted by {lead} into group {:08x}", key.group().0);
        self.journal.log(now, Level::Notice, text);
        self.key = key.clone();
        self.candidate.wrong = 0;
        self.peers.forget_group();
        self.conductor = None;
        // The new lead learns at once that this device is there.
        self.timers.probed = None;
        self.tuner.begin_anew();
        Ok(())
    }
}

/// Which key a device was given at its start, so that another one given later is told from it.
pub(crate) fn mark_of(given: Option<&GroupKey>) -> [u8; 8] {
    let Some(given) = given else { return [0; 8] };
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] =
        Sha256::new().chain_update(b"given").chain_update(given.bytes()).finalize().into();
    [a, b, c, d, e, f, g, h]
}

/// The key of a device that was given none: of this boot only, and nobody else has it.
pub(crate) fn own_key(seed: u64, id: DeviceId) -> GroupKey {
    let digest = Sha256::new().chain_update(b"own").chain_update(seed.to_le_bytes());
    GroupKey::new(digest.chain_update(id.0).finalize().into())
}

/// The key that this device was adopted with, as long as it is started with the key of then: who
/// gives it another one at start has it in their hands, and means that.
pub(crate) fn adopted_key<F: NorFlash>(
    agent: &Agent,
    given: &[u8; 8],
    flash: &mut F,
) -> Option<GroupKey> {
    let entry = read_entry::<F, KEY_BYTES>(agent, flash, ENTRY_KEY)?;
    let mut reader = Reader::new(&entry);
    let key = GroupKey::new(reader.array().ok()?);
    let mark: [u8; 8] = reader.array().ok()?;
    (mark == *given).then_some(key)
}

/// What the entry [`ENTRY_KEY`] of a device says that is adopted with `key`; `given` is the mark of
/// the key that it is started with, all zeros for a board.
pub fn key_entry(key: &GroupKey, given: &[u8; 8]) -> [u8; KEY_BYTES] {
    let mut entry = [0; KEY_BYTES];
    let (stored, mark) = entry.split_at_mut(32);
    stored.copy_from_slice(key.bytes());
    mark.copy_from_slice(given);
    entry
}

/// The key that this device was adopted with: key 32, mark of the key given at start 8.
pub const ENTRY_KEY: Entry = Entry::KEY;
/// Length of that entry.
pub const KEY_BYTES: usize = 40;
/// Wrong passwords that a device hears out in one boot.
const WRONG_MAX: u8 = 10;
/// A device begins an exchange at most this often, in milliseconds: the sums take a chip a tenth of
/// a second.
const BEGIN_EVERY_MS: u64 = 500;
