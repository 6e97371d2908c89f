//! Plain words for the codes that devices tell programs: what has happened, and what a person can
//! do about it. Whoever shows a code to people (a device's answers, the server's console) takes the
//! words from here, so that they are the same everywhere.
//!
//! Codes are never changed; words may be. A hint begins with a small letter and has no full stop,
//! as those of errors do.

/// A code, and what it means to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// The short word for programs.
    pub code: &'static str,
    /// What has happened.
    pub what: &'static str,
    /// What a person can do about it.
    pub hint: &'static str,
}

/// The words for a code; `None` for one that is not known here.
pub fn of(code: &str) -> Option<&'static Words> {
    FAULTS.iter().chain(CAUSES).copied().find(|words| words.code == code)
}

const fn words(code: &'static str, what: &'static str, hint: &'static str) -> Words {
    Words { code, what, hint }
}

macro_rules! table {
    (
        $(#[$about:meta])*
        $table:ident:
        $($name:ident = $code:literal, $what:literal, $hint:literal;)*
    ) => {
        $(
            #[doc = $what]
            pub const $name: Words = words($code, $what, $hint);
        )*
        $(#[$about])*
        pub const $table: &[&Words] = &[$(&$name),*];
    };
}

table! {
    /// What preflight finds before anybody is touched.
    FAULTS:
    UNREACHABLE = "unreachable", "a device does not answer",
        "switch the device on; one that is gone for good: `lockstep group remove`";
    NO_DEVICE_FOR_ROLE = "no-device-for-role", "the group has no device of a role in the release",
        "add a device of that role, or leave the role out";
    WRONG_CHIP = "wrong-chip", "an image is for another chip",
        "take the image that was built for this device";
    WRONG_BOARD = "wrong-board", "an image is for another board",
        "take the image that was built for this device";
    TOO_LARGE = "too-large", "an image does not fit the slot",
        "make the image smaller, or the slots larger by cable";
    TOO_LARGE_TO_SPOOL = "too-large-to-spool", "an image does not fit the lead's slot",
        "every artifact passes through the lead's other slot";
    EPOCH_TOO_LOW = "epoch-too-low", "the release is older than the devices still take",
        "take a release of the present epoch or a later one";
    NO_ROLLBACK = "no-rollback", "a device cannot go back by itself",
        "flash a bootloader with app rollback by cable";
    ON_TRIAL = "on-trial", "a device is still on trial", "wait until the trial has ended";
    LOW_HEAP = "low-heap", "a device has too little free heap",
        "restart the device, then try again";
    BAD_LINK = "bad-link", "a link loses too many frames",
        "bring the devices closer, then try again";
    MIXED_GROUP = "mixed-group", "the devices are not on one release",
        "finish with the release that the others run, or undo with `lockstep revert`";
    SAME_VERSION_OTHER_IMAGE = "same-version-other-image",
        "the running image has this version and other bytes", "give the new build a new version";
    NO_WAY_BACK = "no-way-back", "a device does not hold what it ran before",
        "update to the older release from its bundle instead";
    INCOMPATIBLE = "incompatible", "two roles would not talk to each other afterwards",
        "update both together, or by way of a release between";
    TOO_MANY_MEMBERS = "too-many-members", "the group has too many devices",
        "divide the devices into several groups";
    UNKNOWN_PAST = "unknown-past", "the lead does not know how the last rollout ended",
        "a release for all roles makes the group whole: the newer one finishes, the older one \
         undoes";
    KEYS_LEFT_OUT = "keys-left-out", "a device would not learn the release's new keys",
        "bring new keys with a release that changes every device";
    SECURE_VERSION_TOO_LOW = "secure-version-too-low",
        "an image is older than what its chip still boots",
        "build it with the secure version of the running image, or a higher one";
    SECURE_VERSION_RISES = "secure-version-rises",
        "once kept, the chip never boots an older image again",
        "if that is meant, make the release with `--not-reversible`";
    NOT_SIGNED = "not-signed", "an image is not signed for secure boot, the running one is",
        "sign it with `espsecure sign-data` before the release is made of it";
    NOTHING_TO_DO = "nothing-to-do", "every device runs the release already",
        "every device runs this release already";
}

table! {
    /// Why a rollout that had begun came to nothing.
    CAUSES:
    ABORTED = "aborted", "aborted on request", "begin again when it is wanted";
    STAGING_DEADLINE = "staging-deadline", "staging made no progress in time",
        "bring the devices closer together, then upload again";
    NOT_NOW = "not-now", "an application did not come to rest",
        "stop what it controls, then try again";
    NOT_HEALTHY = "not-healthy", "a device did not get healthy in time",
        "the log of that device says which check failed";
    FELL_BACK = "fell-back", "a device fell back to its old image",
        "the new firmware crashed, or power failed on trial";
    REFUSED = "refused", "a device refused an order", "make the bundle anew, then upload it again";
    TOO_MANY_RESTARTS = "too-many-restarts", "the lead restarted too often",
        "look at its power supply, then try again";
    BAD_UPLOAD = "bad-upload", "the upload is not what its manifest says",
        "make the bundle anew, then upload it again";
    MANIFEST_LOST = "manifest-lost", "the lead lost the manifest",
        "make the bundle anew, then upload it again";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_there_once_and_its_words_go_into_a_sentence() {
        let all: std::vec::Vec<_> = FAULTS.iter().chain(CAUSES).collect();
        let codes: BTreeSet<_> = all.iter().map(|it| it.code).collect();
        assert_eq!(codes.len(), all.len());
        for Words { code, what, hint } in all {
            for text in [what, hint] {
                assert!(text.starts_with(|it: char| it.is_ascii_lowercase()), "{code}: {text}");
                assert!(!text.ends_with(['.', '!', '?']), "{code}: {text}");
            }
        }
    }

    #[test]
    fn a_code_of_a_later_version_has_no_words() {
        assert_eq!(of("not-healthy"), Some(&NOT_HEALTHY));
        assert_eq!(of("something-new"), None);
    }
}
