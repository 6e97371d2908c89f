//! The device's password: stored as a salted, iterated hash, checked in constant time.
//!
//! Durable in one entry of the record: salt 16, rounds u32, hash 32. The hash is PBKDF2 with
//! HMAC-SHA-256 and one block (RFC 8018): a chip checks it in a fraction of a second, and whoever
//! reads the flash of a device by cable owns that device anyway.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use lockstep_proto::wire::{Reader, TooShort};
use sha2::Sha256;

/// Says what is wrong with a password that somebody chooses, with what would be right.
pub fn check(chosen: &str) -> Result<(), Unfit> {
    let chars = chosen.chars().count();
    let is_fit = (CHARS_MIN..=CHARS_MAX).contains(&chars)
        && !chosen.chars().any(char::is_control)
        && chosen.trim() == chosen;
    if is_fit { Ok(()) } else { Err(Unfit { chars }) }
}

/// A password that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit {
    /// How many characters it has.
    pub chars: usize,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "password has {} characters, allowed are {CHARS_MIN} to {CHARS_MAX}, with no space at \
             either end",
            self.chars
        )
    }
}

impl core::error::Error for Unfit {}

/// A password's durable form.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    salt: [u8; 16],
    rounds: u32,
    hash: [u8; 32],
}

/// Hashes do not end up in logs.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Password({} rounds)", self.rounds)
    }
}

impl Password {
    /// Bytes of the entry.
    pub const LEN_BYTES: usize = 52;

    /// Hashes `password` with 16 random bytes of salt.
    pub fn new(password: &str, salt: [u8; 16]) -> Self {
        Self { salt, rounds: ROUNDS, hash: stretch(password, &salt, ROUNDS) }
    }

    /// Whether this is the password; takes the same time for any that is not.
    pub fn is(&self, password: &str) -> bool {
        let offered = stretch(password, &self.salt, self.rounds);
        let differing = offered.iter().zip(&self.hash).fold(0, |bits, (a, b)| bits | (a ^ b));
        differing == 0
    }

    pub(crate) const fn salt(&self) -> &[u8; 16] {
        &self.salt
    }

    pub(crate) const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// What adoption proves to know.
    pub(crate) const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The entry.
    pub fn encode(&self) -> [u8; Self::LEN_BYTES] {
        let mut bytes = [0; Self::LEN_BYTES];
        let fields = self.salt.iter().copied();
        let fields = fields.chain(self.rounds.to_le_bytes()).chain(self.hash);
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        bytes
    }

    /// Reads the entry. Absurdly many rounds, which would block the device, read as damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, TooShort> {
        let mut reader = Reader::new(bytes);
        let password = Self { salt: reader.array()?, rounds: reader.u32()?, hash: reader.array()? };
        if password.rounds > ROUNDS_MAX {
            return Err(TooShort { wanted_bytes: 0, left_bytes: bytes.len() });
        }
        Ok(password)
    }
}

/// PBKDF2 with one block.
pub(crate) fn stretch(password: &str, salt: &[u8; 16], rounds: u32) -> [u8; 32] {
    // HMAC takes a key of any length, so this never is the empty fallback.
    let Ok(keyed) = <Hmac<Sha256> as KeyInit>::new_from_slice(password.as_bytes()) else {
        return [0; 32];
    };
    let mut mac = keyed.clone();
    mac.update(salt);
    mac.update(&1_u32.to_be_bytes());
    let mut block: [u8; 32] = mac.finalize().into_bytes().into();
    let mut hash = block;
    for _ in 1..rounds {
        let mut mac = keyed.clone();
        mac.update(&block);
        block = mac.finalize().into_bytes().into();
        hash.iter_mut().zip(block).for_each(|(byte, other)| *byte ^= other);
    }
    hash
}

const CHARS_MIN: usize = 8;
const CHARS_MAX: usize = 64;
const ROUNDS: u32 = 2_000;
/// More of them read as damage.
const ROUNDS_MAX: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_accepted_also_after_a_reboot() {
        let password = Password::new("correct horse", [7; 16]);
        let stored = Password::decode(&password.encode()).unwrap();
        assert!(stored.is("correct horse"));
        assert!(!stored.is("correct horsf") && !stored.is(""));
    }

    /// RFC 7914 section 11 has this vector for PBKDF2-HMAC-SHA-256 with one round.
    #[test]
    fn one_round_is_pbkdf2() {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(b"passwd").unwrap();
        mac.update(b"salt");
        mac.update(&1_u32.to_be_bytes());
        let block: [u8; 32] = mac.finalize().into_bytes().into();
        assert_eq!(block[..4], [0x55, 0xac, 0x04, 0x6e]);
    }
}
