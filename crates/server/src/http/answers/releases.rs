//! What is answered about releases.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::check;
use crate::field;
use crate::http::contract::{Digest, Identity, Moment, Version};
use crate::store;

/// All releases.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Releases {
    /// Newest version first; at most 1000.
    pub(in crate::http) releases: Vec<Release>,
}

/// A release.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Release {
    #[schema(value_type = Identity)]
    id: String,
    /// The product; empty for one that names none.
    system: String,
    #[schema(value_type = Version)]
    version: String,
    /// MAJOR·10000 + MINOR·100 + PATCH.
    version_number: u32,
    /// Rises with every release of the product; 0 where nobody counts.
    sequence: u32,
    /// The anti-rollback counter.
    epoch: u32,
    #[schema(value_type = Digest)]
    bundle_sha256: String,
    /// Size of the bundle.
    size_bytes: u64,
    /// So many signatures are in the bundle.
    signatures: u32,
    /// Who made them; empty for one that came in before this was taken down.
    signers: Vec<Signer>,
    /// What is new, for people.
    description: String,
    #[schema(value_type = Moment)]
    uploaded_at: Timestamp,
    uploaded_by: String,
    /// Since when it is offered no more.
    #[schema(value_type = Option<Moment>)]
    withdrawn_at: Option<Timestamp>,
}

impl From<&store::releases::Release> for Release {
    fn from(release: &store::releases::Release) -> Self {
        let it = release.clone();
        Self {
            id: it.id,
            system: it.system,
            version: it.version,
            version_number: it.number,
            sequence: it.sequence,
            epoch: it.epoch,
            bundle_sha256: it.bundle_sha256,
            size_bytes: it.bundle_bytes,
            signatures: it.signatures,
            signers: it.signers.into_iter().map(Signer::from).collect(),
            description: it.description,
            uploaded_at: it.uploaded_at,
            uploaded_by: it.uploaded_by,
            withdrawn_at: it.withdrawn_at,
        }
    }
}

/// Who made one signature of a release.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Signer {
    /// The identity of the key, as minisign prints it.
    key: String,
    /// Whether the signature was verified with a key of this server.
    verified: bool,
    /// What the signer has said with it.
    comment: String,
}

impl From<store::releases::Signer> for Signer {
    fn from(signer: store::releases::Signer) -> Self {
        Self { key: signer.key, verified: signer.is_verified, comment: signer.comment }
    }
}

/// A release that was taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct NewRelease {
    pub(in crate::http) release: Release,
    pub(in crate::http) foreseen: Foreseen,
}

/// A bundle that was looked at, and not kept.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct CheckedRelease {
    /// The product; empty for one that names none.
    pub(in crate::http) system: String,
    #[schema(value_type = Version)]
    pub(in crate::http) version: String,
    /// So many signatures are in the bundle.
    pub(in crate::http) signatures: u32,
    pub(in crate::http) foreseen: Foreseen,
}

/// What would go wrong if all groups got a release that do not run it yet.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Foreseen {
    /// The worst first.
    findings: Vec<check::Finding>,
    /// So many groups were looked at.
    checked: usize,
    /// Whether there are more than are looked at: the first of them by name.
    more: bool,
}

impl From<field::Foreseen> for Foreseen {
    fn from(it: field::Foreseen) -> Self {
        Self { findings: it.findings, checked: it.checked, more: it.is_more }
    }
}

/// One release.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct OneRelease {
    pub(in crate::http) release: Release,
    /// What is in `manifest.json` of its bundle.
    #[schema(value_type = Object)]
    pub(in crate::http) manifest: Value,
}

/// The release that is offered no more.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Withdrawn {
    #[schema(value_type = Identity)]
    pub(in crate::http) withdrawn: String,
}
