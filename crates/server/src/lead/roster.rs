//! The leads that came lately: whose credential is whose, and what it should run. All of it can be
//! read again from the tables; it is here so that a poll of a lead that has nothing new to hear
//! costs no more than a look into memory.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Bytes;
use axum::http::HeaderValue;
use jiff::Timestamp;
use serde::Serialize;
use sha2::Digest as _;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::patches::composed::size_with;
use crate::store::checkins::{Desired, Offer};
use crate::store::hex;

/// Everybody who came lately.
#[derive(Debug, Default)]
pub struct Roster {
    seats: RwLock<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    /// By the hash of the credential.
    seats: HashMap<String, Arc<Seat>>,
    /// The hash of the credential that a group's lead has.
    of_group: HashMap<String, String>,
}

/// A lead that came lately.
#[derive(Debug)]
pub struct Seat {
    /// Its group.
    pub group: String,
    /// The board that the credential was given to.
    pub lead: String,
    /// When the tables were asked for that.
    pub known_since: Timestamp,
    desired: watch::Sender<Option<Arc<Answer>>>,
}

/// What a lead is told, as it goes out: most polls are answered with the very same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `ETag`: changes with the text.
    pub tag: HeaderValue,
    /// JSON.
    pub text: Bytes,
}

/// What a group should run.
#[derive(Serialize, ToSchema)]
#[schema(as = Desired)]
pub(crate) struct AnswerJson<'a> {
    /// The lead comes again after so long, and sooner when something has changed.
    poll_s: u32,
    /// Null: nothing is offered.
    release: Option<ReleaseJson<'a>>,
    /// What a person has ordered.
    orders: Vec<OrderJson<'a>>,
}

/// A release that a group may go to.
#[derive(Serialize, ToSchema)]
#[schema(as = OfferedRelease)]
struct ReleaseJson<'a> {
    /// Which offer.
    offer: &'a str,
    version: &'a str,
    /// Its bundle's address on this server.
    bundle: String,
    /// Its bundle's identity.
    sha256: &'a str,
    size_bytes: u64,
    install: Install,
    /// What is new, for people.
    description: &'a str,
}

/// What a lead is to do.
#[derive(Serialize, ToSchema)]
#[schema(as = Order)]
struct OrderJson<'a> {
    id: &'a str,
    /// `abort` its open rollout, or `revert` its last one.
    what: &'a str,
}

/// When a lead begins: `now`, or when a person has said so at the device (`ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Install {
    /// As soon as it can.
    Now,
    /// When a person has said so at the device.
    Ask,
}

impl Answer {
    /// What follows from what a group should do.
    pub fn new(desired: &Desired, install: Install, poll_s: u32) -> Self {
        let release = desired.offer.as_ref().map(|offer| ReleaseJson {
            offer: &offer.id,
            version: &offer.version,
            bundle: address(offer),
            sha256: &offer.bundle_sha256,
            size_bytes: size_with(offer.bundle_bytes, offer.patches.as_deref().unwrap_or_default()),
            install,
            description: &offer.description,
        });
        let orders = desired.orders.iter().map(|(id, what)| OrderJson { id, what }).collect();
        let answer = AnswerJson { poll_s, release, orders };
        // Texts and numbers alone: that cannot fail.
        let text = serde_json::to_string(&answer).unwrap_or_default();
        let digest = sha2::Sha256::digest(text.as_bytes());
        let (start, _) = digest.split_at(8);
        let tag = HeaderValue::from_str(&format!("\"{}\"", hex(start)));
        // Quoted digits: that cannot fail either.
        let tag = tag.unwrap_or(HeaderValue::from_static("\"\""));
        Self { tag, text: text.into() }
    }
}

/// Where the bundle of an offer is: with patches it is the offer's own.
fn address(offer: &Offer) -> String {
    let sha256 = &offer.bundle_sha256;
    match offer.patches.as_deref() {
        None | Some([]) => format!("/api/lead/bundles/{sha256}"),
        Some(_) => format!("/api/lead/bundles/{sha256}?offer={}", offer.id),
    }
}

impl Roster {
    /// The lead of this credential, if the tables were asked for it lately.
    pub fn seat(&self, credential_hash: &str, now: Timestamp) -> Option<Arc<Seat>> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        let seat = seats.seats.get(credential_hash)?;
        (now.duration_since(seat.known_since).as_secs() < KNOWN_S).then(|| Arc::clone(seat))
    }

    /// The tables say that this credential is that lead's.
    pub fn sit(
        &self,
        credential_hash: String,
        group: String,
        lead: String,
        now: Timestamp,
    ) -> Arc<Seat> {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        let before = seats.seats.get(&credential_hash);
        let is_same = |seat: &&Arc<Seat>| seat.group == group && seat.lead == lead;
        // Whoever waits for news waits on.
        let desired = before.filter(is_same).map(|seat| seat.desired.clone());
        let desired = desired.unwrap_or_else(|| watch::Sender::new(None));
        let seat = Arc::new(Seat { group, lead, known_since: now, desired });
        seats.of_group.insert(seat.group.clone(), credential_hash.clone());
        seats.seats.insert(credential_hash, Arc::clone(&seat));
        seat
    }

    /// The tables no longer know this credential.
    pub fn forget(&self, credential_hash: &str) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(seat) = seats.seats.remove(credential_hash) {
            seats.of_group.remove(&seat.group);
        }
    }

    /// The group is gone, or its lead has another credential.
    pub fn forget_group(&self, group: &str) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(credential_hash) = seats.of_group.remove(group) {
            seats.seats.remove(&credential_hash);
        }
    }

    /// The groups whose leads came lately.
    pub fn groups(&self) -> Vec<String> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        seats.of_group.keys().cloned().collect()
    }

    /// The seat of a group's lead, if it came lately.
    pub fn of_group(&self, group: &str) -> Option<Arc<Seat>> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        seats.seats.get(seats.of_group.get(group)?).map(Arc::clone)
    }
}

impl Seat {
    /// What it should run has been read from the tables.
    pub fn tell(&self, answer: Answer) {
        self.desired.send_if_modified(|present| {
            let is_new = present.as_deref() != Some(&answer);
            if is_new {
                *present = Some(Arc::new(answer));
            }
            is_new
        });
    }

    /// What it should run, as far as is known here; changes are told.
    pub fn desired(&self) -> watch::Receiver<Option<Arc<Answer>>> {
        self.desired.subscribe()
    }
}

/// For so long a credential is not looked up again, in seconds: another server may have taken it
/// back.
const KNOWN_S: i64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// Firmware in the field reads it, and stays as it is.
    #[test]
    fn what_a_lead_is_told_is_what_leads_in_the_field_read() {
        let offer = Offer {
            id: "1f02c5".into(),
            version: "1.1.0".into(),
            bundle_sha256: "bc6d01".into(),
            bundle_bytes: 529_408,
            description: "spring".into(),
            patches: None,
        };
        let orders = vec![("96cc01".to_owned(), "revert".to_owned())];
        let told = Answer::new(&Desired { offer: Some(offer), orders }, Install::Ask, 300);
        let golden = include_str!("../../../proto/tests/golden/lead-desired.json");
        assert_eq!(told.text, golden.trim_end());
    }
}
