//! From a bundle's head to a rollout: verify, look at what it brings, and begin.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::package::{PACKAGE_SIZE_BYTES_MAX, Package, digest};
use lockstep_proto::bundle::{BundleReader, Head};
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::{RolloutId, Sha256};
use lockstep_proto::image::ImageReader;
use lockstep_proto::manifest::{Effect, ManifestError, Trust, VerifiedManifest, VerifyError};
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::{Artifact, Fault, Hold, Input, Phase, PreflightFault, Release, Rollout};

use crate::identity::{ENTRY_IMAGES, IMAGES_BYTES_MAX, KnownImage};
use crate::node::Node;
use crate::serve::Vouched;
use crate::setup::Application;
use crate::upload::UploadError;

/// What a complete head led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// A rollout, in preflight.
    Anew,
    /// The rollout is open already: the head had to come again after a restart.
    Again,
}

impl<A: Application> Node<A> {
    /// Verify first: not a sector is touched before the manifest and all members are judged.
    pub(crate) fn begin_rollout<F: NorFlash>(
        &mut self,
        now: Instant,
        head: &Head,
        reader: &mut BundleReader,
        flash: &mut F,
    ) -> Result<Begun, UploadError> {
        let trust: Trust = self.agent.trust().clone();
        let manifest = head.verify(&trust).map_err(|error| match error {
            VerifyError::Manifest(cause) => UploadError::BadBundle(format!("manifest: {cause}")),
            untrusted => UploadError::Untrusted(format!("{untrusted}")),
        })?;
        self.vouched = Some(Vouched::new(&manifest, trust));
        let signatures: Vec<&[u8]> = head.signatures().collect();
        let mut package = vec![0; PACKAGE_SIZE_BYTES_MAX];
        let len = Package::write(head.manifest(), &signatures, &mut package)
            .map_err(|error| UploadError::BadBundle(format!("{error}")))?;
        package.truncate(len);
        let release = self.release_of_package(&manifest, digest(&package), len)?;
        reader.expect(&manifest);
        if let Some(open) = self.open_forward() {
            // The lead restarted within the head of this very bundle.
            return match open == release.package {
                true => Ok(Begun::Again),
                false => Err(UploadError::BadBundle(String::from(
                    "this is not the bundle whose rollout is open",
                ))),
            };
        }
        self.agent
            .install_package(now, &package, flash)
            .and_then(|()| self.agent.forget_transfer(flash))
            .map_err(|why| self.refused(why))?;
        self.begin_forward(now, release, flash)?;
        Ok(Begun::Anew)
    }

    /// What a rollout needs of a manifest whose package has this digest and length.
    pub(crate) fn release_of_package(
        &self,
        manifest: &VerifiedManifest<'_>,
        package: Sha256,
        package_bytes: usize,
    ) -> Result<Release, UploadError> {
        let trust = self.agent.trust();
        let release = release_of(manifest, self.setup.policy.trial_limit_ms)
            .map_err(|error| UploadError::BadBundle(format!("manifest: {error}")))?;
        Ok(Release {
            package,
            package_size_bytes: u16::try_from(package_bytes).unwrap_or(u16::MAX),
            brings_keys: manifest.next_trust(trust).is_some_and(|next| next != *trust),
            ..release
        })
    }

    /// Opens the rollout of a release whose package is installed, in preflight.
    pub(crate) fn begin_forward<F: NorFlash>(
        &mut self,
        now: Instant,
        release: Release,
        flash: &mut F,
    ) -> Result<RolloutId, UploadError> {
        self.learn_images(&release, flash);
        let id = RolloutId(self.draw());
        let Some(lead) = &self.lead else { return Err(UploadError::NotTheLead) };
        let members = self.members().to_vec();
        let last = lead.rollout.as_ref().map(|rollout| rollout.record().clone());
        let (me, policy) = (self.setup.id, self.setup.policy);
        let rollout = Rollout::forward(now, id, release, &members, me, last, policy);
        let holds = lead.holds_upload;
        self.open(now, rollout, flash);
        if holds {
            self.drive(now, Input::Hold(Hold::Held), flash);
        }
        Ok(id)
    }

    /// The package of the rollout that is being staged, if there is one.
    fn open_forward(&self) -> Option<Sha256> {
        let record = self.conducting()?.record;
        (record.phase == Phase::Staging).then_some(record.package)
    }

    /// This device's own refusal of a manifest, as preflight would have put it.
    pub(crate) fn refused(&self, why: Refusal) -> UploadError {
        let role = self.setup.role;
        match why {
            Refusal::EpochTooLow { offered, floor } => {
                let fault = Fault::EpochTooLow { role, offered, floor };
                let member = Some(self.setup.id);
                UploadError::Refused(vec![PreflightFault { member, fault }])
            }
            Refusal::FlashFailed { .. } => UploadError::Storage,
            why => UploadError::BadBundle(format!("{why}")),
        }
    }

    /// What the first bytes tell of another role's artifact is looked at before this device gives
    /// up its other slot for it. Its members look again.
    pub(crate) fn judge_head<F: NorFlash>(
        &mut self,
        role: Role,
        head: &[u8],
        flash: &mut F,
    ) -> Result<(), UploadError> {
        let bad = |why: String| UploadError::BadArtifact(role, why);
        let mut reader = ImageReader::new();
        reader.push(head).map_err(|error| bad(format!("{error}")))?;
        let named = |manifest: &VerifiedManifest<'_>| {
            manifest.entry(role.as_str()).and_then(|entry| entry.installable().ok())
        };
        let named = self.with_manifest(flash, named).flatten().ok_or(UploadError::Storage)?;
        let (found, expected) = (reader.header().map(|header| header.chip), named.chip);
        if let Some(found) = found.filter(|&found| found != expected) {
            return Err(bad(format!(
                "image is for chip `{found}`, the manifest says `{expected}`"
            )));
        }
        match reader.descriptor().map(|descriptor| descriptor.role.as_str()) {
            Some(found) if found != role.as_str() => {
                Err(bad(format!("image is for role `{found}`")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What the manifest says of this role's image is remembered for when it runs.
    pub(crate) fn learn_images<F: NorFlash>(&mut self, release: &Release, flash: &mut F) {
        let Some(artifact) = release.artifact(&self.setup.role) else { return };
        let known = KnownImage {
            image: artifact.image,
            announced: artifact.announced,
            config_schema: artifact.config_schema,
        };
        self.learn_image(known, flash);
    }

    pub(crate) fn learn_image<F: NorFlash>(&mut self, known: KnownImage, flash: &mut F) {
        if !self.images.learn(known) {
            return;
        }
        let mut buffer = [0; IMAGES_BYTES_MAX];
        if let Ok(len) = self.images.encode(&mut buffer) {
            self.write_entry(ENTRY_IMAGES, buffer.get(..len).unwrap_or_default(), flash);
        }
    }
}

/// What a rollout needs of a manifest. The package's digest and size, and whether it brings keys
/// that are new here, are the caller's to fill in.
pub(crate) fn release_of(
    manifest: &VerifiedManifest<'_>,
    trial_limit_default_ms: u32,
) -> Result<Release, ManifestError> {
    let mut artifacts = Vec::new();
    for entry in &manifest.devices {
        let installable = entry.installable()?;
        let board = entry.board.and_then(|board| board.as_plain()).and_then(Board::new);
        let role = Role::new(entry.role).unwrap_or(Role::EMPTY);
        let Some(announced) = manifest.announced(entry.role) else { continue };
        artifacts.push(Artifact {
            role,
            image: installable.image_sha256,
            file: installable.sha256,
            size_bytes: installable.size_bytes,
            chip: installable.chip,
            board: board.unwrap_or(Board::EMPTY),
            announced,
            config_schema: u16::try_from(entry.config_schema).unwrap_or(u16::MAX),
            guard: entry.guard,
            is_reversible: entry.effect != Effect::NotReversible,
        });
    }
    let instructions = &manifest.update_instructions;
    let timeout_ms = instructions.health_check_timeout_seconds.saturating_mul(1000);
    Ok(Release {
        number: ReleaseVersion::number(manifest.system_version),
        epoch: manifest.epoch,
        package: Sha256([0; 32]),
        package_size_bytes: 0,
        artifacts,
        brings_keys: false,
        order: manifest.order().iter().filter_map(|role| Role::new(role)).collect(),
        reboot_delay_ms: instructions.reboot_delay_seconds.saturating_mul(1000),
        trial_limit_ms: if timeout_ms == 0 { trial_limit_default_ms } else { timeout_ms },
    })
}
