//! Whether two firmwares may exchange application data.
//!
//! One function, asked by the gate of a running device and by the preflight of a rollout alike, so
//! that a rollout never ends in a set of versions that the gate would keep apart. Control frames
//! are not its business: they pass always.

use core::fmt;

use crate::version::{ProtocolRange, ReleaseVersion};

/// What a device says about its firmware's compatibility.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Its version, as a number.
    pub number: u32,
    /// The oldest version number it still talks to.
    pub min_compatible: u32,
    /// The application protocols that it speaks.
    pub protocol: ProtocolRange,
}

/// Which rule holds in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// Each is new enough for the other, and the protocol ranges overlap.
    #[default]
    BothWays,
    /// The original plan's: the other is new enough for me. For groups that still contain such
    /// firmware, whose announced protocol and minimum cannot be relied on.
    OneSided,
}

/// Whether the firmware that announces `yours` may exchange data with the one that is `mine`.
///
/// What the peer lacks is named first, since that is what its owner can mend.
pub fn check(rule: Rule, mine: &Announced, yours: &Announced) -> Result<(), Incompatible> {
    if yours.number < mine.min_compatible {
        return Err(Incompatible::TheyAreTooOld {
            theirs: yours.number,
            my_minimum: mine.min_compatible,
        });
    }
    if rule == Rule::OneSided {
        return Ok(());
    }
    if mine.number < yours.min_compatible {
        return Err(Incompatible::WeAreTooOld {
            mine: mine.number,
            their_minimum: yours.min_compatible,
        });
    }
    if !mine.protocol.overlaps(yours.protocol) {
        return Err(Incompatible::NoCommonProtocol { mine: mine.protocol, theirs: yours.protocol });
    }
    Ok(())
}

/// Why two firmwares must not exchange data, seen from this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incompatible {
    /// The peer is older than this device accepts.
    TheyAreTooOld {
        /// The peer's version number.
        theirs: u32,
        /// The oldest that this device talks to.
        my_minimum: u32,
    },
    /// This device is older than the peer accepts.
    WeAreTooOld {
        /// This device's version number.
        mine: u32,
        /// The oldest that the peer talks to.
        their_minimum: u32,
    },
    /// No protocol is spoken by both.
    NoCommonProtocol {
        /// What this device speaks.
        mine: ProtocolRange,
        /// What the peer speaks.
        theirs: ProtocolRange,
    },
}

/// Says which device needs what; "this device" is the one that speaks.
impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TheyAreTooOld { theirs, my_minimum } => {
                let (theirs, minimum) = (version(theirs), version(my_minimum));
                write!(f, "the peer runs {theirs}, this device needs it at {minimum} or newer")
            }
            Self::WeAreTooOld { mine, their_minimum } => {
                let (mine, minimum) = (version(mine), version(their_minimum));
                write!(f, "this device runs {mine}, the peer needs it at {minimum} or newer")
            }
            Self::NoCommonProtocol { mine, theirs } => {
                let older = if mine.max() < theirs.min() { "this device" } else { "the peer" };
                write!(
                    f,
                    "this device speaks protocol {mine}, the peer {theirs}; update {older} first"
                )
            }
        }
    }
}

impl core::error::Error for Incompatible {}

fn version(number: u32) -> ReleaseVersion {
    ReleaseVersion::from_number(number)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn announced(number: u32, min_compatible: u32, protocol: (u8, u8)) -> Announced {
        let protocol = ProtocolRange::new(protocol.0, protocol.1).unwrap();
        Announced { number, min_compatible, protocol }
    }

    // The hole in the original plan: the new device accepts the old one, the old one cannot know
    // that the new one has left it behind.
    #[test]
    fn the_one_sided_rule_accepts_a_peer_that_would_not_accept_us() {
        let old = announced(10_000, 10_000, (1, 1));
        let new = announced(20_000, 20_000, (1, 1));
        assert_eq!(check(Rule::OneSided, &old, &new), Ok(()));
        assert_eq!(
            check(Rule::BothWays, &old, &new),
            Err(Incompatible::WeAreTooOld { mine: 10_000, their_minimum: 20_000 })
        );
    }

    #[test]
    fn exactly_the_minimum_is_new_enough() {
        let mine = announced(20_000, 10_200, (1, 1));
        assert_eq!(check(Rule::BothWays, &mine, &announced(10_200, 20_000, (1, 1))), Ok(()));
        assert_eq!(
            check(Rule::OneSided, &mine, &announced(10_199, 0, (1, 1))),
            Err(Incompatible::TheyAreTooOld { theirs: 10_199, my_minimum: 10_200 })
        );
    }

    // L1: a mismatch is shown with what to do about it.
    #[test]
    fn l1_every_refusal_says_which_device_needs_what() {
        let old = announced(10_000, 0, (1, 2));
        let new = announced(20_100, 20_000, (3, 4));
        let text = |mine, yours| check(Rule::BothWays, mine, yours).unwrap_err().to_string();
        assert_eq!(text(&new, &old), "the peer runs 1.0.0, this device needs it at 2.0.0 or newer");
        assert_eq!(text(&old, &new), "this device runs 1.0.0, the peer needs it at 2.0.0 or newer");
        let new = announced(20_100, 0, (3, 4));
        assert_eq!(
            text(&old, &new),
            "this device speaks protocol 1 to 2, the peer 3 to 4; update this device first"
        );
        assert_eq!(
            text(&new, &old),
            "this device speaks protocol 3 to 4, the peer 1 to 2; update the peer first"
        );
    }

    fn any_announced() -> impl Strategy<Value = Announced> {
        // Few values, so that equal, older and newer are all met often.
        (0..4_u32, 0..4_u32, 0..4_u8, 0..4_u8)
            .prop_map(|(number, min, a, b)| announced(number, min, (a.min(b), a.max(b))))
    }

    proptest! {
        #[test]
        fn both_ways_means_that_both_sides_agree(a in any_announced(), b in any_announced()) {
            prop_assert_eq!(
                check(Rule::BothWays, &a, &b).is_ok(),
                check(Rule::BothWays, &b, &a).is_ok()
            );
        }

        #[test]
        fn both_ways_is_never_laxer_than_one_sided(a in any_announced(), b in any_announced()) {
            if check(Rule::BothWays, &a, &b).is_ok() {
                prop_assert_eq!(check(Rule::OneSided, &a, &b), Ok(()));
            }
        }
    }
}
