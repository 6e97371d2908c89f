//! A bundle: one file with a release's manifest, signatures and artifacts.
//!
//! It is a plain tar (ustar), so that `tar tvf` lists it and `tar xf` followed by
//! `minisign -Vm manifest.json` verifies it without us. Its entries, in this order:
//!
//! ```text
//! manifest.json               first
//! manifest.json.minisig       the first signature, if there is one
//! manifest.json.2.minisig     the second, and so on
//! ROLE.TAG.patch              patches that make the artifact which follows, if there are any
//! ROLE.bin                    each artifact of the manifest once, in the order of staging
//! two blocks of zeros
//! ```
//!
//! A patch is named by nobody but itself: what comes of it must be the image that the manifest
//! names, so the manifest does not have to vouch for it, and a server can add one to a release that
//! others have signed. What a patch is, is `lockstep-delta`'s to say.
//!
//! The name of an artifact's entry is its role with `.bin`, whatever `firmware_url` says. The order
//! of staging (the lead's own last) is the choice of whoever makes the bundle: a reader takes any.
//!
//! A bundle is read as a stream ([`BundleReader`]), verified before the first byte of an artifact
//! is handed out, and read on in the middle after a cut. Nothing here allocates; the writer's half
//! is [`header`], [`padding_bytes`] and [`END`], so that every host writes the same bytes.

mod head;
mod header;
mod reader;

#[cfg(test)]
mod patch_tests;
#[cfg(test)]
mod tests;

use core::fmt::{self, Write as _};

use crate::manifest::{MANIFEST_SIZE_BYTES_MAX, SIGNATURES_MAX};
use crate::signature::SIGNATURE_FILE_BYTES_MAX;

pub use head::{HEAD_BYTES_MAX, Head};
pub use header::{BLOCK_BYTES, header};
pub use reader::{BundleReader, Entry, Event, RESUME_POINT_BYTES, ResumePoint, Step};

/// A name in a bundle, as it may be at most.
pub type EntryName = heapless::String<ENTRY_NAME_BYTES_MAX>;

/// The first entry of a bundle.
pub const MANIFEST_NAME: &str = "manifest.json";

/// The name of a signature's entry; `index` counts from 0. The first is named as `minisign -Vm`
/// looks for it.
pub fn signature_name(index: usize) -> EntryName {
    let mut name = EntryName::new();
    // The longest is `manifest.json.`, twenty digits and `.minisig`: it always fits.
    let _ = match index {
        0 => write!(name, "{MANIFEST_NAME}.minisig"),
        _ => write!(name, "{MANIFEST_NAME}.{}.minisig", index.saturating_add(1)),
    };
    name
}

/// The name of an artifact's entry, and of its `firmware_url` in a bundle. `role` is one that
/// [`crate::manifest::is_role`] accepts; of anything longer the name is cut.
pub fn artifact_name(role: &str) -> EntryName {
    let mut name = EntryName::new();
    let _ = write!(name, "{role}{ARTIFACT_SUFFIX}");
    name
}

/// The name of a patch's entry; `tag` tells those of one role apart, at most
/// [`PATCH_TAG_BYTES_MAX`] letters and digits.
pub fn patch_name(role: &str, tag: &str) -> EntryName {
    let mut name = EntryName::new();
    let _ = write!(name, "{role}.{tag}{PATCH_SUFFIX}");
    name
}

/// How many zeros follow the contents of an entry of `size_bytes`.
pub const fn padding_bytes(size_bytes: u32) -> usize {
    (BLOCK_BYTES - size_bytes as usize % BLOCK_BYTES) % BLOCK_BYTES
}

/// What ends a bundle.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Why a bundle was refused. Offsets count bytes from the beginning of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleError {
    /// Not a tar: the usual cause is another kind of file.
    NotTar {
        /// Where a header belongs.
        at: u32,
    },
    /// A header's sum is not that of its bytes.
    Checksum {
        /// Where the header begins.
        at: u32,
        /// The sum that stands there.
        found: u32,
        /// The sum of its bytes.
        expected: u32,
    },
    /// A field of a header is not an octal number.
    NotANumber {
        /// Where the header begins.
        at: u32,
        /// Which field.
        field: &'static str,
    },
    /// A link, a folder or another thing that is no file.
    NotAFile {
        /// Its name.
        name: EntryName,
        /// Its type, as tar writes it.
        kind: u8,
    },
    /// A name that has no place in a bundle.
    UnknownName {
        /// The name, or its beginning.
        name: EntryName,
    },
    /// A known name in another place.
    WrongOrder {
        /// The name.
        name: EntryName,
        /// What belongs there.
        expected: EntryName,
    },
    /// A role that the manifest does not have.
    UnknownRole {
        /// The entry's name.
        name: EntryName,
    },
    /// A patch behind the artifact that it makes, or more of them than are of use.
    Patch {
        /// The entry's name.
        name: EntryName,
        /// How many may stand before an artifact.
        max: u8,
    },
    /// An artifact that was there already.
    Twice {
        /// The entry's name.
        name: EntryName,
    },
    /// An artifact of another size than the manifest says.
    Size {
        /// The entry's name.
        name: EntryName,
        /// Its size in bytes.
        found: u64,
        /// What the manifest says.
        expected: u32,
    },
    /// A manifest or signature beyond its limit.
    TooLarge {
        /// The entry's name.
        name: EntryName,
        /// Its size in bytes.
        found: u64,
        /// The limit.
        max: usize,
    },
    /// Artifacts are at hand, but nobody has verified the manifest.
    NotVerified,
    /// The bundle ends, and an artifact of the manifest was not in it.
    ArtifactMissing {
        /// The name of its entry.
        name: EntryName,
    },
    /// There is nothing behind the manifest.
    NoArtifacts,
    /// The bytes end before the bundle does.
    Truncated {
        /// Where they end.
        at: u32,
    },
    /// Something other than zeros where zeros belong: between entries, or behind the end.
    NotZero {
        /// Where.
        at: u32,
    },
    /// More zeros behind the end than any tar writes.
    TrailingZeros {
        /// How many are let pass.
        max: usize,
    },
    /// Longer than any bundle can be.
    TooLong,
    /// A point to go on from that is not one of this release.
    BadResumePoint {
        /// The point.
        point: ResumePoint,
    },
    /// The reader has refused this bundle before.
    Stopped,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTar { at } => {
                write!(f, "`bundle` has no tar header at byte {at}, expected `ustar` in it")
            }
            Self::Checksum { at, found, expected } => write!(
                f,
                "`bundle` header at byte {at} has the checksum {found}, its bytes sum to {expected}"
            ),
            Self::NotANumber { at, field } => {
                write!(f, "`{field}` of the header at byte {at} is no octal number within limits")
            }
            Self::NotAFile { name, kind } => write!(
                f,
                "`{name}` is of tar type `{}`, expected `0`, a plain file",
                kind.escape_ascii()
            ),
            Self::UnknownName { name } => write!(
                f,
                "`{name}` has no place in a bundle, expected a manifest, signatures and `ROLE.bin`"
            ),
            Self::WrongOrder { name, expected } => {
                write!(f, "`{name}` stands where `{expected}` belongs")
            }
            Self::UnknownRole { name } => {
                write!(f, "`{name}` is for a role that the manifest does not name")
            }
            Self::Patch { name, max } => write!(
                f,
                "`{name}` has no place here: at most {max} patches stand before an artifact"
            ),
            Self::Twice { name } => write!(f, "`{name}` is in the bundle twice, expected once"),
            Self::Size { name, found, expected } => {
                write!(f, "`{name}` is {found} bytes, the manifest says {expected}")
            }
            Self::TooLarge { name, found, max } => {
                write!(f, "`{name}` is {found} bytes, the limit is {max}")
            }
            Self::NotVerified => {
                f.write_str("`bundle` has reached its artifacts, the manifest is not verified yet")
            }
            Self::ArtifactMissing { name } => {
                write!(f, "`{name}` is missing from the bundle, the manifest names it")
            }
            Self::NoArtifacts => f.write_str("`bundle` has 0 artifacts, expected at least 1"),
            Self::Truncated { at } => {
                write!(f, "`bundle` ends at byte {at}, before its end was reached")
            }
            Self::NotZero { at } => {
                write!(f, "`bundle` has something at byte {at}, expected nothing but zeros")
            }
            Self::TrailingZeros { max } => {
                write!(f, "`bundle` has more than {max} zeros behind its end")
            }
            Self::TooLong => write!(f, "`bundle` is longer than the limit of {} bytes", u32::MAX),
            Self::BadResumePoint { point } => write!(
                f,
                "`resume point` names artifact {} at byte {} and {} of it, not so in the manifest",
                point.index(),
                point.artifact_at(),
                point.offset_bytes()
            ),
            Self::Stopped => f.write_str("`bundle` was refused before, expected a new reader"),
        }
    }
}

impl core::error::Error for BundleError {}

/// As long as the name field of a tar header, minus its end.
pub const ENTRY_NAME_BYTES_MAX: usize = 48;
/// What some tars fill their last record up to.
pub const TRAILING_ZEROS_MAX: usize = 20 * BLOCK_BYTES;

/// Patches of one role in a bundle.
pub const PATCHES_MAX: u8 = 8;
/// Bytes of a patch's tag.
pub const PATCH_TAG_BYTES_MAX: usize = 16;

const ARTIFACT_SUFFIX: &str = ".bin";
const PATCH_SUFFIX: &str = ".patch";
const _: () = assert!(HEAD_BYTES_MAX >= MANIFEST_SIZE_BYTES_MAX + SIGNATURE_FILE_BYTES_MAX);
const _: () = assert!(SIGNATURES_MAX < 10, "a signature's name has one digit");
