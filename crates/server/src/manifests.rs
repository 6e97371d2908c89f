//! What the server goes by of a release's manifest, read from the tables.

use std::collections::BTreeMap;

use lockstep_proto::compat::Announced;
use lockstep_proto::image::Guard;
use lockstep_proto::manifest::{Effect, Trust, verify};
use serde::{Deserialize, Serialize};

use crate::store::releases::Release;

/// A release, as its manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The product; empty for one that names none.
    pub system: String,
    /// The release's number.
    pub number: u32,
    /// The anti-rollback counter.
    pub epoch: u32,
    /// Whether it brings other keys.
    pub brings_keys: bool,
    /// What there is for each role.
    pub roles: BTreeMap<String, RoleFacts>,
}

/// What a release has for one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFacts {
    /// What its firmware announces.
    pub announced: Announced,
    /// The image's identity, in hexadecimal digits.
    pub image_sha256: String,
    /// The chip; empty if it is not said.
    pub chip: String,
    /// The board; empty if it is not said.
    pub board: String,
    /// Size of the artifact in bytes.
    pub size_bytes: u32,
    /// How the flash is read, and which flash it was made for; empty if it is not known.
    pub flash: String,
    /// What guards the image: its signature for secure boot, its secure version.
    pub guard: Guard,
    /// Whether whoever keeps the image could go back to the one before.
    pub is_reversible: bool,
}

/// Where an artifact is in a bundle, and what its header says of the flash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its first byte.
    pub first: u64,
    /// How long it is.
    pub size_bytes: u64,
    /// As [`RoleFacts::flash`].
    pub flash: String,
    /// What the bundle's own patches for it are applied to: hashes of images in hexadecimal
    /// digits, empty for one that needs no image.
    #[serde(default)]
    pub bases: Vec<String>,
}

/// Where each artifact of a release is.
pub fn places(release: &Release) -> BTreeMap<String, Place> {
    serde_json::from_str(&release.places).unwrap_or_default()
}

impl Facts {
    /// Reads the manifest of a release. Only what was read once gets into the tables, so `None` is
    /// a table that somebody else has written.
    pub fn of(release: &Release) -> Option<Self> {
        // Whose signatures it has was looked at when it came.
        let manifest = verify(release.manifest.as_bytes(), &[], &Trust::anybody()).ok()?;
        let mut places = places(release);
        let role = |entry: &lockstep_proto::manifest::DeviceEntry<'_>| {
            let artifact = entry.installable().ok();
            let facts = RoleFacts {
                announced: manifest.announced(entry.role)?,
                image_sha256: entry.image_sha256.map(|hash| hash.to_string()).unwrap_or_default(),
                chip: artifact.map(|artifact| artifact.chip.to_string()).unwrap_or_default(),
                board: entry.board.map(|board| board.to_string()).unwrap_or_default(),
                size_bytes: entry.firmware_size,
                flash: places.remove(entry.role).map(|place| place.flash).unwrap_or_default(),
                guard: entry.guard,
                is_reversible: entry.effect != Effect::NotReversible,
            };
            Some((entry.role.to_owned(), facts))
        };
        Some(Self {
            system: release.system.clone(),
            number: release.number,
            epoch: release.epoch,
            brings_keys: manifest.keys.is_some(),
            roles: manifest.devices.iter().filter_map(role).collect(),
        })
    }
}
