//! The manifest: what a release consists of, in the original plan's `system_manifest.json` with
//! fields of ours added.
//!
//! A [`VerifiedManifest`] is what everything else works with, and [`verify`] is the only way to
//! one: signatures first, then the text, in one step. A manifest that was read has passed every
//! check that its own bytes allow: versions agree with their numbers, roles are names that may
//! stand in a file name, the order names each role once. What it lacks for an installation (the
//! original plan knows no hashes) is said by [`DeviceEntry::installable`].
//!
//! Unknown fields are passed over, so that a newer manifest stays readable; a change that an old
//! reader must not pass over raises `schema`. Nothing here allocates: a manifest borrows its bytes.
//!
//! Not here: whether a set of versions may talk to each other (`compat`), and whether an image is
//! what its entry says (`image`, and the agent).

mod error;
mod generations;
mod json;
mod read;
mod text;
mod trust;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use core::fmt;

use crate::compat::Announced;
use crate::id::{ImageHash, Sha256};
use crate::image::{ChipId, Guard};
use crate::version::{ProtocolRange, ReleaseVersion};

pub use error::{Excerpt, Field, ManifestError};
pub use generations::{
    GENERATION_BYTES, GENERATION_HASH_BYTES, GENERATION_TEXT_BYTES_MAX, GenerationHash,
    GenerationHashes, generations_of, write_generations,
};
pub use json::SyntaxError;
pub use text::Text;
pub use trust::{
    KEYS_MAX, KeySet, KeySetError, SIGNATURES_MAX, Signed, TRUST_BYTES_MAX, Trust, TrustError,
    Unsigned, VerifiedManifest, VerifyError, verify,
};

/// A release, as its manifest describes it.
///
/// Only the host makes one by hand, to write it; a device gets it from [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest<'a> {
    /// Form of the manifest: 0 is the original plan's, [`SCHEMA_NEWEST`] ours.
    pub schema: u32,
    /// The product; a release of one product is not for the devices of another.
    pub system: Option<Text<'a>>,
    /// The version of the release.
    pub system_version: ReleaseVersion,
    /// Rises with every release of a product; 0 where nobody counts.
    pub sequence: u32,
    /// The anti-rollback counter; never a time.
    pub epoch: u32,
    /// When it was released, for people.
    pub release_date: Text<'a>,
    /// The oldest version that this release talks to, where a device's entry names none.
    pub min_compatible_version: ReleaseVersion,
    /// What is new, for people.
    pub description: Text<'a>,
    /// One entry for each role, in the manifest's order; at least one.
    pub devices: heapless::Vec<DeviceEntry<'a>, ROLES_MAX>,
    /// How the group gets there.
    pub update_instructions: UpdateInstructions<'a>,
    /// Where the release before this one is, for clients that fetch it themselves.
    pub rollback: Option<Rollback<'a>>,
    /// The keys to trust from this release on.
    pub keys: Option<KeySet>,
}

impl<'a> Manifest<'a> {
    /// The entry of a role.
    pub fn entry(&self, role: &str) -> Option<&DeviceEntry<'a>> {
        self.devices.iter().find(|entry| entry.role == role)
    }

    /// The roles, in the manifest's order.
    pub fn roles(&self) -> impl Iterator<Item = &'a str> {
        self.devices.iter().map(|entry| entry.role)
    }

    /// The roles in the order of activation; empty means all together.
    pub fn order(&self) -> &[&'a str] {
        &self.update_instructions.order
    }

    /// What the device of a role will announce when it runs this release.
    pub fn announced(&self, role: &str) -> Option<Announced> {
        let entry = self.entry(role)?;
        let minimum = entry.min_compatible.unwrap_or(self.min_compatible_version);
        Some(Announced {
            number: entry.version.number(),
            min_compatible: minimum.number(),
            protocol: entry.protocol(),
        })
    }

    /// The manifest as `manifest.json`, indented, its fields always in the same order.
    pub fn to_json(&self) -> impl fmt::Display {
        write::Json(self)
    }
}

/// What a release holds for one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEntry<'a> {
    /// The role; see [`is_role`].
    pub role: &'a str,
    /// The version of this role's firmware; its number is derived.
    pub version: ReleaseVersion,
    /// The chip in the original plan's spelling, `ESP32-S3`.
    pub device_type: Text<'a>,
    /// The board, for people.
    pub hardware: Text<'a>,
    /// Where the artifact can be fetched. In a bundle it is always
    /// [`crate::bundle::artifact_name`].
    pub firmware_url: Text<'a>,
    /// Size of the artifact in bytes, 1 to [`FIRMWARE_SIZE_BYTES_MAX`].
    pub firmware_size: u32,
    /// For old clients; never trusted, not even looked at.
    pub md5_checksum: Text<'a>,
    /// The application protocol it prefers.
    pub protocol_version: u8,
    /// All application protocols it speaks; `None`: only the one above.
    pub protocol_range: Option<ProtocolRange>,
    /// SHA-256 of the whole artifact.
    pub sha256: Option<Sha256>,
    /// The image's identity: the hash that build tools append.
    pub image_sha256: Option<ImageHash>,
    /// The hashes of its generations, as many as the artifact has; `None`: what comes over the air
    /// is judged as a whole only.
    pub generations_sha256: Option<GenerationHashes<'a>>,
    /// SHA-256 of the ELF file that the image was made from.
    pub elf_sha256: Option<Sha256>,
    /// The chip it is for.
    pub chip: Option<ChipId>,
    /// The board it is for, as the image's descriptor names it.
    pub board: Option<Text<'a>>,
    /// The oldest version it talks to; `None`: that of the release.
    pub min_compatible: Option<ReleaseVersion>,
    /// Version of the configuration that it reads and writes; 0 where nobody counts.
    pub config_schema: u32,
    /// What the update does beyond a reboot.
    pub effect: Effect,
    /// What a chip's bootloader may demand of the image, as far as the image can meet it.
    pub guard: Guard,
}

impl DeviceEntry<'_> {
    /// What must be known before a byte of the artifact is written; the error names what the
    /// manifest does not say. The chip may come from `device_type`, as in the original plan.
    pub fn installable(&self) -> Result<Artifact, ManifestError> {
        let missing = |name| ManifestError::Missing { field: Field::of(self.role, name) };
        let chip_by_type = || ChipId::from_name(self.device_type.as_plain()?);
        Ok(Artifact {
            size_bytes: self.firmware_size,
            sha256: self.sha256.ok_or_else(|| missing("sha256"))?,
            image_sha256: self.image_sha256.ok_or_else(|| missing("image_sha256"))?,
            chip: self.chip.or_else(chip_by_type).ok_or_else(|| missing("chip"))?,
        })
    }

    /// All application protocols it speaks.
    pub fn protocol(&self) -> ProtocolRange {
        self.protocol_range.unwrap_or(ProtocolRange::single(self.protocol_version))
    }
}

/// What identifies the artifact of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Artifact {
    /// Size of the file in bytes.
    pub size_bytes: u32,
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// The image's identity once it runs.
    pub image_sha256: ImageHash,
    /// The chip it is for.
    pub chip: ChipId,
}

/// How a group gets to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateInstructions<'a> {
    /// The roles in the order of activation, each once; empty means all together.
    pub order: heapless::Vec<&'a str, ROLES_MAX>,
    /// Pause between two activations, 0 to [`SECONDS_MAX`].
    pub reboot_delay_seconds: u32,
    /// How long a device may take to become healthy, 1 to [`SECONDS_MAX`].
    pub health_check_timeout_seconds: u32,
}

/// What the original plan's example says where a manifest says nothing.
impl Default for UpdateInstructions<'_> {
    fn default() -> Self {
        let order = heapless::Vec::new();
        Self { order, reboot_delay_seconds: 0, health_check_timeout_seconds: 30 }
    }
}

/// The release before this one, for clients that fetch it themselves. A group of ours needs it not:
/// its way back is in its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback<'a> {
    /// Its version.
    pub previous_version: ReleaseVersion,
    /// Where its artifacts are: role, and the value of `ROLE_url`.
    pub urls: heapless::Vec<(&'a str, Text<'a>), ROLES_MAX>,
}

/// What an update does beyond a reboot, so that a person can be asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Peers will not hear each other for a while.
    LinkInterrupted,
    /// The configuration is rewritten; going back needs the snapshot.
    ConfigMigration,
    /// There is no way back.
    NotReversible,
}

impl Effect {
    /// As it stands in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LinkInterrupted => "link-interrupted",
            Self::ConfigMigration => "config-migration",
            Self::NotReversible => "not-reversible",
        }
    }

    /// Reads [`Effect::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::LinkInterrupted, Self::ConfigMigration, Self::NotReversible]
            .into_iter()
            .find(|effect| effect.name() == name)
    }
}

/// Whether a name may be a role: it becomes a file name in a bundle, so it has no dot and no slash.
pub fn is_role(name: &str) -> bool {
    let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_';
    name.len() <= ROLE_BYTES_MAX
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(is_plain)
}

/// As large as `manifest.json` may be; a device holds it in memory whole.
pub const MANIFEST_SIZE_BYTES_MAX: usize = 8192;
/// Roles in one release.
pub const ROLES_MAX: usize = 8;
/// Bytes of a role's name.
pub const ROLE_BYTES_MAX: usize = 16;
/// Bytes of a product's or a board's name.
pub const NAME_BYTES_MAX: usize = 32;
/// Bytes of a URL.
pub const URL_BYTES_MAX: usize = 512;
/// Bytes of `description`.
pub const DESCRIPTION_BYTES_MAX: usize = 2048;
/// No chip of ours addresses more flash for one slot.
pub const FIRMWARE_SIZE_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// A day: what a delay or a timeout of the manifest may last at most.
pub const SECONDS_MAX: u32 = 86_400;
/// The newest form of manifest that this reader knows.
pub const SCHEMA_NEWEST: u32 = 1;
/// What `secure_boot` says of an image that is signed for it.
const SECURE_BOOT: &str = "v2";
