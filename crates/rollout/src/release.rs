//! What a rollout needs to know of a release: its artifacts by role, and in which order members
//! reboot. Made by the lead from a manifest that it has verified.

use alloc::vec::Vec;

use lockstep_proto::compat::Announced;
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::image::{ChipId, Guard};
use lockstep_proto::wire::{Board, Role};

/// One firmware image of a release, for one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The role it is for.
    pub role: Role,
    /// Identity of the image.
    pub image: ImageHash,
    /// SHA-256 of the file.
    pub file: Sha256,
    /// Size of the file in bytes.
    pub size_bytes: u32,
    /// The chip it is for.
    pub chip: ChipId,
    /// The board it is for; empty if the manifest does not say.
    pub board: Board,
    /// Version, minimum and protocol range it will announce.
    pub announced: Announced,
    /// Layout version of the configuration it expects; 0 if the manifest does not say.
    pub config_schema: u16,
    /// What a chip's bootloader may demand of the image, as far as the image can meet it.
    pub guard: Guard,
    /// Nothing was said of there being no way back from it.
    pub is_reversible: bool,
}

/// A release as a rollout sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Number of the system version.
    pub number: u32,
    /// Its epoch.
    pub epoch: u32,
    /// SHA-256 of the manifest package.
    pub package: Sha256,
    /// Size of the manifest package in bytes.
    pub package_size_bytes: u16,
    /// One per role that the release updates.
    pub artifacts: Vec<Artifact>,
    /// The order in which roles reboot; empty: all together.
    pub order: Vec<Role>,
    /// Pause between two roles of the order, in milliseconds.
    pub reboot_delay_ms: u32,
    /// Whoever keeps it trusts other keys than before. A member that it leaves out would not.
    pub brings_keys: bool,
    /// Within this a booted member must be healthy, in milliseconds; 0 if the manifest does not
    /// say, then the lead's policy does.
    pub trial_limit_ms: u32,
}

impl Release {
    /// The artifact for `role`, if the release updates it.
    pub fn artifact(&self, role: &Role) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.role == *role)
    }
}
