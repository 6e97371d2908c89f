//! Adoption: a device in reach that does not have the group's key is given it, by somebody who
//! knows that device's password. This side is the lead's; `candidate` is the device's.
//!
//! ```text
//!             Terms                  Taken, or heard with the key
//!   Asking ──────────► Keying ─────────────────────────────────► Adopted
//!     │ silent,           │ silent, refused
//!     │ refused           ▼
//!     └────────────────► Failed
//! ```
//!
//! One at a time. Nothing of it is durable here: a device that took the key speaks with it, and
//! so is a member like any other.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::frame::adopt::{
    AdoptFrame, AdoptMessage, ELEMENT_BYTES, NotAdopted, PROOF_BYTES,
};
use lockstep_proto::frame::version::VersionFrame;
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_rollout::MEMBERS_MAX;

use crate::heard::one_more;
use crate::journal::Level;
use crate::node::{Node, is_due};
use crate::password::stretch;
use crate::peers::Peer;
use crate::setup::Application;

pub(crate) mod candidate;
mod exchange;

use candidate::Offer;
pub use candidate::{ENTRY_KEY, KEY_BYTES, key_entry};
use exchange::{Exchange, Secret, Side};

/// The adoption that a lead is about, or was about last.
#[derive(Debug)]
pub(crate) struct Adoption {
    device: DeviceId,
    session: u64,
    began_at: Instant,
    said_at: Option<Instant>,
    stage: Stage,
}

enum Stage {
    Asking { password: String },
    Keying { message: AdoptMessage, secret: Secret },
    Adopted,
    Failed(AdoptFailure),
}

/// Passwords do not end up in logs.
impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Stage {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Asking { .. } => "asking",
            Self::Keying { .. } => "keying",
            Self::Adopted => "adopted",
            Self::Failed(_) => "failed",
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self, Self::Adopted | Self::Failed(_))
    }
}

/// Why an adoption came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptFailure {
    /// The device did not answer, or not in time.
    Silent,
    /// It said no.
    Refused(NotAdopted),
    /// Its answer makes no sense: another device speaks in its name, or it is broken.
    BadAnswer,
}

impl fmt::Display for AdoptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "it did not answer within {} s", LIMIT_MS / 1000),
            Self::Refused(why) => write!(f, "{why}"),
            Self::BadAnswer => write!(f, "its answer makes no sense"),
        }
    }
}

impl AdoptFailure {
    /// A short word for programs. Never changed.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::BadAnswer => "bad-answer",
            Self::Refused(NotAdopted::NoPassword) => "no-password",
            Self::Refused(NotAdopted::WrongPassword) => "wrong-password",
            Self::Refused(NotAdopted::TooManyTries) => "too-many-tries",
            Self::Refused(NotAdopted::InRollout) => "in-rollout",
            Self::Refused(NotAdopted::Leads) => "leads",
            Self::Refused(NotAdopted::Storage) => "storage",
            Self::Refused(NotAdopted::Other(_)) => "refused",
        }
    }

    /// What a person can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Silent => "is it on, in reach, and does its firmware know adoption?",
            Self::BadAnswer => "try again; if it happens again, give it the group's key by cable",
            Self::Refused(NotAdopted::NoPassword) => "set its password first",
            Self::Refused(NotAdopted::WrongPassword) => {
                "it is the password of that device, not of the lead"
            }
            Self::Refused(NotAdopted::TooManyTries) => "restart that device, then try again",
            Self::Refused(NotAdopted::InRollout) => "wait until it has settled",
            Self::Refused(NotAdopted::Leads) => "start it as a member first",
            Self::Refused(NotAdopted::Storage) => "restart it; its flash may be worn out",
            Self::Refused(NotAdopted::Other(_)) => "update the lead",
        }
    }
}

/// Why an adoption does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptError {
    /// This device conducts nothing.
    NotTheLead,
    /// It has the group's key already.
    AMember(DeviceId),
    /// Another one is being adopted.
    Busy(DeviceId),
    /// A rollout is open, and its members are fixed.
    InRollout(RolloutId),
    /// The group has as many members as it can have.
    Full {
        /// How many.
        limit: usize,
    },
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheLead => write!(f, "this device does not conduct the group's rollouts"),
            Self::AMember(id) => write!(f, "{id} belongs to the group already"),
            Self::Busy(id) => write!(f, "{id} is just being adopted"),
            Self::InRollout(rollout) => write!(f, "rollout `{rollout}` is still running"),
            Self::Full { limit } => {
                write!(f, "the group has {limit} devices, the most it can have")
            }
        }
    }
}

impl core::error::Error for AdoptError {}

/// Where an adoption stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdoptionView {
    /// Who is adopted.
    pub device: DeviceId,
    /// `asking`, `keying`, `adopted` or `failed`. Never changed.
    pub stage: &'static str,
    /// Why it failed.
    pub failure: Option<AdoptFailure>,
}

impl<A: Application> Node<A> {
    /// Devices that were heard lately and do not speak with the group's key. A member that was
    /// flashed anew is one of them, once it has had the time to say something with the key.
    pub fn strangers(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        let lately_ms = ANNOUNCES_MISSED * self.setup.pace.announce_ms;
        self.peers.all().iter().filter(move |peer| {
            let is_member = self.members().iter().any(|(id, _)| *id == peer.id);
            let announces = peer.announced.is_some() && now.ms_since(peer.heard_at) < lately_ms;
            let had_time = !is_member || now.ms >= lately_ms;
            announces && had_time && !self.peers.speaks(peer)
        })
    }

    /// Somebody wants to know who is in reach: whoever hears this says who it is, and does not wait
    /// for its next announce.
    pub fn look_around(&mut self, now: Instant) {
        if is_due(&mut self.timers.looked_around, now, LOOK_EVERY_MS) {
            let [low, high, ..] = self.draw().to_le_bytes();
            let request_id = u16::from_le_bytes([low, high]).into();
            self.send_version(DeviceId::BROADCAST, &VersionFrame::Request { request_id });
        }
    }

    /// The adoption that this lead is about, or was about last in this boot.
    pub fn adoption(&self) -> Option<AdoptionView> {
        let adoption = self.lead.as_ref()?.adoption.as_ref()?;
        let failure = match adoption.stage {
            Stage::Failed(failure) => Some(failure),
            _ => None,
        };
        Some(AdoptionView { device: adoption.device, stage: adoption.stage.as_str(), failure })
    }

    /// Begins to give the group's key to a device in reach, whose password this is. How it goes on
    /// [`Node::adoption`] tells.
    pub fn adopt(
        &mut self,
        now: Instant,
        device: DeviceId,
        password: &str,
    ) -> Result<(), AdoptError> {
        let lead = self.lead.as_ref().ok_or(AdoptError::NotTheLead)?;
        let has_key = self.peers.get(device).is_some_and(|peer| self.peers.speaks(peer));
        if device == self.setup.id || has_key {
            return Err(AdoptError::AMember(device));
        }
        if let Some(adoption) = lead.adoption.as_ref().filter(|it| !it.stage.is_over()) {
            return Err(AdoptError::Busy(adoption.device));
        }
        if let Some(rollout) = lead.rollout.as_ref().filter(|rollout| !rollout.is_over()) {
            return Err(AdoptError::InRollout(rollout.record().id));
        }
        let is_known = lead.members.iter().any(|(id, _)| *id == device);
        if !is_known && lead.members.len() >= MEMBERS_MAX {
            return Err(AdoptError::Full { limit: MEMBERS_MAX });
        }
        let session = self.draw();
        let stage = Stage::Asking { password: password.to_string() };
        let adoption = Adoption { device, session, began_at: now, said_at: None, stage };
        if let Some(lead) = &mut self.lead {
            lead.adoption = Some(adoption);
        }
        self.step_adoption(now);
        Ok(())
    }

    /// Says again what was not answered, and gives up in the end.
    pub(crate) fn step_adoption(&mut self, now: Instant) {
        let Some(adoption) = self.lead.as_mut().and_then(|lead| lead.adoption.as_mut()) else {
            return;
        };
        if adoption.stage.is_over() {
            return;
        }
        let device = adoption.device;
        if now.ms_since(adoption.began_at) >= LIMIT_MS {
            return self.end_adoption(now, device, Err(AdoptFailure::Silent));
        }
        if adoption.said_at.is_some_and(|at| now.ms_since(at) < RESEND_MS) {
            return;
        }
        adoption.said_at = Some(now);
        let message = match &adoption.stage {
            Stage::Asking { .. } => AdoptMessage::Ask,
            Stage::Keying { message, .. } => message.clone(),
            Stage::Adopted | Stage::Failed(_) => return,
        };
        let session = adoption.session;
        self.send_adopt(device, session, message);
    }

    /// One adoption frame.
    pub(crate) fn handle_adopt<F: NorFlash>(&mut self, now: Instant, frame: &[u8], flash: &mut F) {
        let Ok(frame) = AdoptFrame::decode(frame) else {
            one_more(&mut self.heard.malformed);
            self.peers.rejected = self.peers.rejected.saturating_add(1);
            return;
        };
        let (from, session) = (frame.from, frame.session);
        if frame.to != self.setup.id || from == self.setup.id {
            return;
        }
        self.note_adoption();
        match frame.message {
            AdoptMessage::Ask => self.answer_ask(now, from, session),
            AdoptMessage::Key { element, sealed, proof } => {
                self.take_key(now, from, session, &Offer { element, sealed, proof }, flash);
            }
            AdoptMessage::Terms { salt, rounds, element } if self.is_adopting(from, session) => {
                self.answer_terms(now, from, &salt, rounds, &element);
            }
            AdoptMessage::Taken { proof } if self.is_adopting(from, session) => {
                self.note_taken(now, from, session, &proof);
            }
            AdoptMessage::Refused(why) if self.is_adopting(from, session) => {
                self.end_adoption(now, from, Err(AdoptFailure::Refused(why)));
            }
            // Answers to what nobody here has begun, or what is over.
            AdoptMessage::Terms { .. } | AdoptMessage::Taken { .. } | AdoptMessage::Refused(_) => {}
        }
    }

    /// A device speaks with the group's key: whether it said that it took it does not matter then.
    pub(crate) fn note_adopted(&mut self, now: Instant, device: DeviceId) {
        let adoption = self.lead.as_ref().and_then(|lead| lead.adoption.as_ref());
        if adoption
            .is_some_and(|it| it.device == device && matches!(it.stage, Stage::Keying { .. }))
        {
            self.end_adoption(now, device, Ok(()));
        }
    }

    pub(super) fn send_adopt(&mut self, to: DeviceId, session: u64, message: AdoptMessage) {
        let frame = AdoptFrame { from: self.setup.id, to, session, message };
        let mut bytes = [0; FRAME_BYTES_MAX];
        if let Ok(len) = frame.encode(&mut bytes) {
            self.push_frame(to, bytes, len);
        }
    }

    fn is_adopting(&self, device: DeviceId, session: u64) -> bool {
        let adoption = self.lead.as_ref().and_then(|lead| lead.adoption.as_ref());
        adoption
            .is_some_and(|it| it.device == device && it.session == session && !it.stage.is_over())
    }

    fn answer_terms(
        &mut self,
        now: Instant,
        device: DeviceId,
        salt: &[u8; 16],
        rounds: u32,
        element: &[u8; ELEMENT_BYTES],
    ) {
        let adoption = self.lead.as_mut().and_then(|lead| lead.adoption.as_mut());
        let Some(Adoption { stage: Stage::Asking { password }, session, .. }) = adoption else {
            return;
        };
        let (password, session) = (core::mem::take(password), *session);
        // A stranger must not keep this device busy with absurdly many rounds.
        if !(1..=ROUNDS_MAX).contains(&rounds) {
            return self.end_adoption(now, device, Err(AdoptFailure::BadAnswer));
        }
        let hash = stretch(&password, salt, rounds);
        let me = self.setup.id;
        let exchange = Exchange::begin(Side::Lead, &hash, me, device, || self.draw());
        let own = *exchange.element();
        let Some(secret) = exchange.finish(element) else {
            return self.end_adoption(now, device, Err(AdoptFailure::BadAnswer));
        };
        let sealed = secret.seal(self.key.bytes());
        let proof = secret.proof(Side::Lead, &said(session, &sealed));
        let message = AdoptMessage::Key { element: own, sealed, proof };
        if let Some(adoption) = self.lead.as_mut().and_then(|lead| lead.adoption.as_mut()) {
            adoption.stage = Stage::Keying { message, secret };
            adoption.said_at = None;
        }
        self.step_adoption(now);
    }

    fn note_taken(
        &mut self,
        now: Instant,
        device: DeviceId,
        session: u64,
        proof: &[u8; PROOF_BYTES],
    ) {
        let adoption = self.lead.as_ref().and_then(|lead| lead.adoption.as_ref());
        let Some(Adoption { stage: Stage::Keying { secret, .. }, .. }) = adoption else { return };
        // A proof that does not fit may be anybody's: the device itself is still waited for.
        if secret.is_proof(Side::Device, &said(session, &[]), proof) {
            self.end_adoption(now, device, Ok(()));
        }
    }

    fn end_adoption(&mut self, now: Instant, device: DeviceId, end: Result<(), AdoptFailure>) {
        let (stage, level, text) = match end {
            Ok(()) => (Stage::Adopted, Level::Notice, format!("adopted {device}")),
            Err(why) => {
                let text = format!("{device} was not adopted: {why}");
                (Stage::Failed(why), Level::Warning, text)
            }
        };
        if let Some(adoption) = self.lead.as_mut().and_then(|lead| lead.adoption.as_mut()) {
            adoption.stage = stage;
        }
        self.journal.log(now, level, text);
    }
}

/// What a proof is over: the session, and what was sealed in it. The devices and all else that was
/// said are in the secret already.
fn said(session: u64, sealed: &[u8]) -> Vec<u8> {
    let mut bytes = session.to_le_bytes().to_vec();
    bytes.extend_from_slice(sealed);
    bytes
}

/// A stranger that says more rounds wants to keep this device busy: a chip does 10,000 in a second
/// or two.
const ROUNDS_MAX: u32 = 10_000;
/// A lead looks around at most this often, in milliseconds.
const LOOK_EVERY_MS: u64 = 2_000;
/// Who has missed so many announces is not in reach any more.
const ANNOUNCES_MISSED: u64 = 3;
/// An adoption takes no longer, in milliseconds.
const LIMIT_MS: u64 = 10_000;
/// What was not answered is said again after so many milliseconds: the sums take a chip a few
/// tenths of a second.
const RESEND_MS: u64 = 600;
