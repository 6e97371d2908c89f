//! Plain words for the codes that people may see of a fleet: those of a check, which are this
//! server's own, and those of devices, which are in `lockstep_proto::words`.

use lockstep_proto::words::{self, Words};

/// The words for a code; `None` for one that nobody here knows.
pub fn of(code: &str) -> Option<&'static Words> {
    FINDINGS.iter().find(|words| words.code == code).or_else(|| words::of(code))
}

/// What a check finds beside that which preflight finds as well, and how a lead says no before
/// preflight.
const FINDINGS: &[Words] = &[
    Words {
        code: "unsigned",
        what: "the devices have keys, and nobody has signed the release",
        hint: "sign it, and upload it again: `lockstep release create --key`",
    },
    Words {
        code: "epoch-raised",
        what: "once it is kept there is no way back to a release of an older epoch",
        hint: "try it on a canary first, and let it soak",
    },
    Words {
        code: "wrong-hardware",
        what: "an image is for other hardware",
        hint: "leave these groups out, or make a release with the image for their hardware",
    },
    Words {
        code: "role-stays",
        what: "a device is not in the release, and stays as it is",
        hint: "nothing to do if it is meant so",
    },
    Words {
        code: "downgrade",
        what: "a device runs something newer",
        hint: "nothing to do if it is meant so; else choose a newer release",
    },
    Words {
        code: "flash-changed",
        what: "the image reads the flash otherwise than the bootloader does",
        hint: "build it for the flash that the devices have, or change the bootloader by cable",
    },
    Words {
        code: "no-overlap",
        what: "devices in the field would not speak to devices on this release",
        hint: "keep the release between that speaks to both, if there is one",
    },
    Words {
        code: "label-taken",
        what: "another release of this version has another image",
        hint: "give the new build a new version",
    },
    Words {
        code: "unknown-image",
        what: "what a device runs came by no release of this server",
        hint: "preflight will look at it; try it on one such group first",
    },
    Words {
        code: "unknown-lead",
        what: "the lead has not said what it is",
        hint: "see whether it is on; preflight will look at it",
    },
    Words {
        code: "untrusted",
        what: "the signatures are not what the devices' keys demand",
        hint: "sign it with a key that the devices have, and upload it again",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_check_and_one_of_a_device_have_words() {
        assert!(of("no-overlap").is_some() && of("unreachable").is_some());
        assert!(of("something-new").is_none());
        let both = FINDINGS.iter().find(|it| words::of(it.code).is_some());
        assert_eq!(both, None, "one table for one code");
    }
}
