//! The sums of an adoption: SPAKE2 over the stored form of the device's password, and what is made
//! of the secret that both come to. Any point that a stranger sends is answered with an error or
//! with a proof that does not fit.

use core::convert::Infallible;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use lockstep_proto::frame::adopt::{ELEMENT_BYTES, PROOF_BYTES};
use lockstep_proto::id::DeviceId;
use sha2::Sha256;
use spake2::rand_core::{TryCryptoRng, TryRng};
use spake2::{Ed25519Group, Identity, Password, Spake2};

/// One side of an exchange that has begun.
#[derive(Debug)]
pub(super) struct Exchange {
    spake: Spake2<Ed25519Group>,
    element: [u8; ELEMENT_BYTES],
}

/// What both have come to. Each use has a key of its own.
pub(super) struct Secret {
    pad: [u8; 32],
    lead: [u8; 32],
    device: [u8; 32],
}

/// Secrets do not end up in logs.
impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

/// Whose proof it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Lead,
    Device,
}

impl Exchange {
    /// Begins the side of `side`. `hash` is the password as the device keeps it, `draw` gives bits
    /// that nobody can guess.
    pub(super) fn begin(
        side: Side,
        hash: &[u8; 32],
        lead: DeviceId,
        device: DeviceId,
        draw: impl FnMut() -> u64,
    ) -> Self {
        let password = Password::new(hash);
        let (lead, device) = (Identity::new(&lead.0), Identity::new(&device.0));
        let bits = Bits(draw);
        let (spake, message) = match side {
            Side::Lead => Spake2::start_a_with_rng(&password, &lead, &device, bits),
            Side::Device => Spake2::start_b_with_rng(&password, &lead, &device, bits),
        };
        let element = core::array::from_fn(|index| message.get(index).copied().unwrap_or(0));
        Self { spake, element }
    }

    /// What the other side is to be sent.
    pub(super) const fn element(&self) -> &[u8; ELEMENT_BYTES] {
        &self.element
    }

    /// What both come to, if the other side knows the same password. `None`: that is no element.
    pub(super) fn finish(self, other: &[u8; ELEMENT_BYTES]) -> Option<Secret> {
        let shared = self.spake.finish(other).ok()?;
        let derived = Hkdf::<Sha256>::new(Some(SALT), &shared);
        let key = |what: &[u8]| {
            let mut key = [0; 32];
            // 32 bytes are what one round of HKDF gives: no length that it could refuse.
            derived.expand(what, &mut key).ok().map(|()| key)
        };
        Some(Secret { pad: key(b"group key")?, lead: key(b"lead")?, device: key(b"device")? })
    }
}

impl Secret {
    /// Encrypts 32 bytes, or decrypts them. Only ever used for one text, as the pad is drawn anew
    /// with each exchange.
    pub(super) fn seal(&self, text: &[u8; 32]) -> [u8; 32] {
        let mut sealed = *text;
        sealed.iter_mut().zip(self.pad).for_each(|(byte, pad)| *byte ^= pad);
        sealed
    }

    /// Proves over `bytes` that `side` has come to this secret.
    pub(super) fn proof(&self, side: Side, bytes: &[u8]) -> [u8; PROOF_BYTES] {
        let full = self.mac(side, bytes).finalize().into_bytes();
        core::array::from_fn(|index| full.get(index).copied().unwrap_or_default())
    }

    /// Takes the same time for every proof that is not right.
    pub(super) fn is_proof(&self, side: Side, bytes: &[u8], proof: &[u8; PROOF_BYTES]) -> bool {
        self.mac(side, bytes).verify_truncated_left(proof).is_ok()
    }

    fn mac(&self, side: Side, bytes: &[u8]) -> Hmac<Sha256> {
        let key = match side {
            Side::Lead => &self.lead,
            Side::Device => &self.device,
        };
        // HMAC pads a shorter key with zeros to one block of its hash, here 64 bytes.
        let mut block = [0; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte = *key);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(bytes);
        mac
    }
}

/// The node's own bits, as SPAKE2 wants them.
struct Bits<D>(D);

impl<D: FnMut() -> u64> TryRng for Bits<D> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let [a, b, c, d, ..] = (self.0)().to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok((self.0)())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.iter_mut().zip((self.0)().to_le_bytes()).for_each(|(byte, bits)| *byte = bits);
        }
        Ok(())
    }
}

impl<D: FnMut() -> u64> TryCryptoRng for Bits<D> {}

const SALT: &[u8] = b"lockstep adoption 1";

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
    const DEVICE: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);

    fn bits(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state
        }
    }

    fn both(lead_knows: [u8; 32], device_knows: [u8; 32]) -> (Secret, Secret) {
        let lead = Exchange::begin(Side::Lead, &lead_knows, LEAD, DEVICE, bits(1));
        let device = Exchange::begin(Side::Device, &device_knows, LEAD, DEVICE, bits(2));
        let (to_device, to_lead) = (*lead.element(), *device.element());
        (lead.finish(&to_lead).unwrap(), device.finish(&to_device).unwrap())
    }

    #[test]
    fn who_knows_the_password_opens_what_was_sealed_and_proves_it() {
        let (lead, device) = both([7; 32], [7; 32]);
        let sealed = lead.seal(&[0x5A; 32]);
        assert_ne!(sealed, [0x5A; 32]);
        assert_eq!(device.seal(&sealed), [0x5A; 32]);
        assert!(device.is_proof(Side::Lead, b"bytes", &lead.proof(Side::Lead, b"bytes")));
        assert!(!device.is_proof(Side::Lead, b"bytez", &lead.proof(Side::Lead, b"bytes")));
        // One side's proof said back to it proves nothing.
        assert!(!device.is_proof(Side::Device, b"bytes", &lead.proof(Side::Lead, b"bytes")));
    }

    #[test]
    fn with_another_password_nothing_opens() {
        let (lead, device) = both([7; 32], [8; 32]);
        assert_ne!(device.seal(&lead.seal(&[0x5A; 32])), [0x5A; 32]);
        assert!(!device.is_proof(Side::Lead, b"bytes", &lead.proof(Side::Lead, b"bytes")));
    }

    /// A side that is sent its own words back must not come to a secret with itself.
    #[test]
    fn an_element_of_the_same_side_is_none() {
        let lead = Exchange::begin(Side::Lead, &[7; 32], LEAD, DEVICE, bits(1));
        let own = *lead.element();
        assert!(lead.finish(&own).is_none());
    }

    /// About half of all bytes are a point of the curve.
    #[test]
    fn bytes_that_are_no_point_are_refused() {
        let finishes = |side: u8, low: u8| {
            let mut bytes = [0; ELEMENT_BYTES];
            (bytes[0], bytes[1]) = (side, low);
            let lead = Exchange::begin(Side::Lead, &[7; 32], LEAD, DEVICE, bits(1));
            lead.finish(&bytes).is_some()
        };
        assert_eq!((0..32).filter(|&low| finishes(0xFF, low)).count(), 0);
        let points = (0..32).filter(|&low| finishes(b'B', low)).count();
        assert!((8..=24).contains(&points), "{points}");
    }
}
