//! Who and what: identities of devices, images, releases and rollouts.
//!
//! A hash is an identity, a version is only a label: most firmware in the field carries the same
//! version text in several different images.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A device's base MAC address, as ESP-NOW names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub [u8; 6]);

impl DeviceId {
    /// Addresses every device in reach.
    pub const BROADCAST: Self = Self([0xFF; 6]);
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text is not the address of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceIdError {
    /// It is not six pairs of hexadecimal digits with colons between them.
    Form,
    /// The lowest bit of the first byte says "to many".
    Group,
}

impl fmt::Display for DeviceIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => write!(f, "expected six bytes such as 24:a1:60:00:00:01"),
            Self::Group => write!(f, "the lowest bit of the first byte says `to many`"),
        }
    }
}

impl core::error::Error for DeviceIdError {}

/// Six pairs of hexadecimal digits with colons between them, of one device.
impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        let mut id = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut id {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(DeviceIdError::Form)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(DeviceIdError::Form);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| DeviceIdError::Form)?;
        }
        let [first, ..] = id;
        match parts.next() {
            Some(_) => Err(DeviceIdError::Form),
            None if first & 1 == 1 => Err(DeviceIdError::Group),
            None => Ok(Self(id)),
        }
    }
}

/// Which group a frame belongs to; the first four bytes of SHA-256 of the group key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId(pub u32);

/// SHA-256 of an ESP image from its header to the end of its checksum block: exactly the 32 bytes
/// that build tools append to it. Identity of what runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageHash(pub [u8; 32]);

/// SHA-256 of a whole file: an artifact, or the bytes of `manifest.json`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

/// One rollout, drawn at random by whoever starts it. Zero means "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RolloutId(pub u64);

impl RolloutId {
    /// The low 32 bits: enough to tell rollouts apart where a frame has no room for all.
    pub const fn low(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Orders rollouts of one group: the term rises when a lead takes over, the counter with every
/// rollout. Compared term first. Zero and zero: no rollout yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation {
    /// Rises when another lead takes over the group.
    pub term: u16,
    /// Rises with every rollout.
    pub counter: u32,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.counter)
    }
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        /// Eight digits tell images apart in a log line; `Display` prints all 64.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl $name {
            /// Parses 64 hexadecimal digits; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let digits = text.as_bytes();
                let mut bytes = [0; 32];
                if digits.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
                }
                Some(Self(bytes))
            }
        }
    };
}

hex_text!(ImageHash);
hex_text!(Sha256);

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_hash_prints_and_parses_as_64_digits() {
        let hash = Sha256(core::array::from_fn(|index| u8::try_from(index).unwrap_or(0) * 7));
        assert_eq!(Sha256::from_hex(&hash.to_string()), Some(hash));
    }

    #[test]
    fn an_address_is_six_bytes_of_one_device() {
        let id = DeviceId([0x24, 0xA1, 0x60, 0, 0, 15]);
        assert_eq!(["24:a1:60:00:00:0F".parse(), id.to_string().parse()], [Ok(id); 2]);
        for wrong in
            ["", "24:a1:60:00:00", "24:a1:60:00:00:01:02", "2:a1:60:00:00:01", "+1:00:00:00:00:01"]
        {
            assert_eq!(wrong.parse::<DeviceId>(), Err(DeviceIdError::Form), "{wrong}");
        }
        assert_eq!("25:00:00:00:00:01".parse::<DeviceId>(), Err(DeviceIdError::Group));
    }

    #[test]
    fn a_sign_is_not_a_hexadecimal_digit() {
        assert_eq!(ImageHash::from_hex(&"+1".repeat(32)), None);
    }

    #[test]
    fn a_higher_term_beats_any_counter() {
        assert!(Generation { term: 1, counter: 9 } < Generation { term: 2, counter: 0 });
    }
}
