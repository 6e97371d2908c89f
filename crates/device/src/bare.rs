//! A bare image on its way in, as tools post it that know no bundles: one `.bin`, for one role.
//!
//! No manifest comes before it, so its hash is only known behind its last byte. It goes into the
//! lead's other slot first; then this device writes the manifest that nobody has signed, and begins
//! a rollout as for any release: preflight, all of the group, together or not at all. Whoever runs
//! the image's role is updated, the others are watched.
//!
//! ```text
//!   Coming ──last byte──► Whole ──install──► Installing ──preflight passed──► served, or staged
//!     │ no image            ▲                    │ preflight refused
//!     ▼                     └────────────────────┘
//!   error, the slot is given up
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::package::{PACKAGE_SIZE_BYTES_MAX, Package, digest};
use lockstep_proto::bundle::ResumePoint;
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::{ImageHash, RolloutId, Sha256};
use lockstep_proto::image::{ChipId, Guard, ImageFacts, ImageReader};
use lockstep_proto::manifest::{
    DeviceEntry, Effect, GenerationHashes, Manifest, SCHEMA_NEWEST, UpdateInstructions, verify,
    write_generations,
};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;
use lockstep_rollout::Phase;

use crate::cut::{Cut, ENTRY_CUT};
use crate::node::Node;
use crate::setup::Application;
use crate::upload::{HEAD_BYTES, UploadError};

/// A bare image that is whole in the lead's other slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BareImage {
    /// What it says of itself: role, board, version, protocols.
    pub descriptor: Descriptor,
    /// The role as frames name it.
    pub role: Role,
    /// Its identity.
    pub image: ImageHash,
    /// SHA-256 of the file.
    pub file: Sha256,
    /// Size of the file in bytes.
    pub size_bytes: u32,
    /// The chip it is for.
    pub chip: ChipId,
    /// What its chip's bootloader may demand of it.
    pub guard: Guard,
    /// The hashes of its generations, as its manifest has them.
    pub generations: String,
}

/// A bare image in this boot.
#[derive(Debug)]
pub(crate) struct Bare {
    size_bytes: u32,
    /// Bytes that are in flash, or on their way there.
    at: u32,
    /// The first bytes, until there are enough of them to be judged.
    head: Vec<u8>,
    state: State,
}

/// How far it has come.
#[derive(Debug)]
enum State {
    /// Its bytes are coming.
    Coming,
    /// All of it is in the other slot.
    Whole(BareImage),
    /// A rollout was begun with it.
    Installing(BareImage, RolloutId),
}

impl<A: Application> Node<A> {
    /// A bare image of `size_bytes` begins to arrive. One that came before is forgotten.
    pub fn bare_begin(&mut self, size_bytes: u32) -> Result<(), UploadError> {
        let takes_unsigned = self.agent.trust().takes_unsigned();
        let lead = self.lead.as_mut().ok_or(UploadError::NotTheLead)?;
        if let Some(rollout) = lead.rollout.as_ref().filter(|rollout| !rollout.is_over()) {
            return Err(UploadError::Busy(rollout.record().id));
        }
        if !takes_unsigned {
            return Err(UploadError::Untrusted(String::from(
                "a bare image carries no signature, and this device takes signed releases only",
            )));
        }
        lead.upload = None;
        lead.holds_upload = false;
        lead.bare = Some(Bare { size_bytes, at: 0, head: Vec::new(), state: State::Coming });
        Ok(())
    }

    /// The next bytes. Says how many of them were taken; none: the flash is busy, tick and push
    /// them again. From the first bytes on this device's way back is given up, but not before they
    /// have said for whom they are.
    pub fn bare_push<F: NorFlash>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<usize, UploadError> {
        let mut bare = self.take_bare()?;
        let taken = self.take_bare_bytes(now, &mut bare, bytes, flash);
        if let (Ok(_), Some(lead)) = (&taken, &mut self.lead) {
            lead.bare = Some(bare);
        }
        self.after(now, flash);
        taken
    }

    /// All bytes have come: what is it? `None`: the last of them are on their way into flash.
    pub fn bare_end<F: NorFlash>(
        &mut self,
        now: Instant,
        flash: &mut F,
    ) -> Result<Option<BareImage>, UploadError> {
        let mut bare = self.take_bare()?;
        if bare.at < bare.size_bytes {
            return Err(UploadError::BadImage(format!(
                "it ends after {} of {} bytes",
                bare.at, bare.size_bytes
            )));
        }
        let image = match self.agent.spool_is_landing() {
            true => None,
            false => {
                let facts = self.agent.bare_end(flash).map_err(not_an_image)?;
                let generations = self.bare_generations(flash)?;
                let image = BareImage { generations, ..image_of(&facts, bare.size_bytes)? };
                bare.state = State::Whole(image.clone());
                Some(image)
            }
        };
        if let Some(lead) = &mut self.lead {
            lead.bare = Some(bare);
        }
        self.after(now, flash);
        Ok(image)
    }

    /// What a host would have written of its generations.
    fn bare_generations<F: NorFlash>(&self, flash: &mut F) -> Result<String, UploadError> {
        let mut hashes = Vec::new();
        for generation in 0..=u16::MAX {
            match self.agent.bare_generation(generation, flash).map_err(not_an_image)? {
                Some(hash) => hashes.push(hash),
                None => break,
            }
        }
        let mut text = String::new();
        // A text takes what is written into it.
        let _ = write_generations(hashes, &mut text);
        Ok(text)
    }

    /// Begins a rollout with the bare image that has come.
    pub fn bare_install<F: NorFlash>(
        &mut self,
        now: Instant,
        flash: &mut F,
    ) -> Result<RolloutId, UploadError> {
        let lead = self.lead.as_ref().ok_or(UploadError::NotTheLead)?;
        if let Some(rollout) = lead.rollout.as_ref().filter(|rollout| !rollout.is_over()) {
            return Err(UploadError::Busy(rollout.record().id));
        }
        let image = match lead.bare.as_ref().map(|bare| &bare.state) {
            Some(State::Whole(image) | State::Installing(image, _)) if self.agent.has_bare() => {
                image.clone()
            }
            _ => return Err(UploadError::NothingToInstall),
        };
        let text = manifest_of(&image).to_json().to_string();
        let mut package = vec![0; PACKAGE_SIZE_BYTES_MAX];
        let len = Package::write(text.as_bytes(), &[], &mut package)
            .map_err(|error| UploadError::BadImage(format!("{error}")))?;
        package.truncate(len);
        let trust = self.agent.trust().clone();
        // Its own manifest goes the way of everybody's.
        let manifest = verify(text.as_bytes(), &[], &trust)
            .map_err(|error| UploadError::Untrusted(format!("{error}")))?;
        let release = self.release_of_package(&manifest, digest(&package), len)?;
        self.agent.install_package(now, &package, flash).map_err(|why| self.refused(why))?;
        let id = self.begin_forward(now, release, flash)?;
        if let Some(bare) = self.lead.as_mut().and_then(|lead| lead.bare.as_mut()) {
            bare.state = State::Installing(image, id);
        }
        self.after(now, flash);
        Ok(id)
    }

    /// The part of a tick that concerns bare images: when preflight has passed, the image becomes
    /// an artifact like any other. It is remembered as a cut upload of which nothing is missing, so
    /// that a restarted lead goes on with it.
    pub(crate) fn serve_bare<F: NorFlash>(&mut self, flash: &mut F) {
        let Some(lead) = &self.lead else { return };
        let Some(Bare { state: State::Installing(image, id), .. }) = &lead.bare else { return };
        let record = lead.rollout.as_ref().map(lockstep_rollout::Rollout::record);
        let phase = record.filter(|record| record.id == *id).map(|record| record.phase);
        let image = image.clone();
        match phase {
            Some(Phase::Preflight) => {}
            Some(Phase::Staging) => self.adopt_bare(&image, flash),
            // Refused: it may be tried again, when what stands in its way is mended.
            _ => self.set_bare_state(State::Whole(image)),
        }
    }

    fn adopt_bare<F: NorFlash>(&mut self, image: &BareImage, flash: &mut F) {
        let adopted = self.agent.bare_adopt(image.file, flash);
        let cut = Cut {
            point: ResumePoint::from_bytes(&[0; lockstep_proto::bundle::RESUME_POINT_BYTES]),
            size_bytes: crate::cut::NOTHING_MISSING,
            role: image.role,
            file: image.file,
            artifact_bytes: image.size_bytes,
        };
        let stored = adopted.is_ok() && self.write_entry(ENTRY_CUT, &cut.encode(), flash);
        if let Some(lead) = &mut self.lead {
            lead.bare = None;
            lead.cut = stored.then_some(cut);
        }
    }

    fn set_bare_state(&mut self, state: State) {
        if let Some(bare) = self.lead.as_mut().and_then(|lead| lead.bare.as_mut()) {
            bare.state = state;
        }
    }

    fn take_bare(&mut self) -> Result<Bare, UploadError> {
        let lead = self.lead.as_mut().ok_or(UploadError::NotTheLead)?;
        let is_coming = lead.bare.as_ref().is_some_and(|bare| matches!(bare.state, State::Coming));
        if is_coming {
            lead.bare.take().ok_or(UploadError::NotBegun)
        } else {
            Err(UploadError::NotBegun)
        }
    }

    fn take_bare_bytes<F: NorFlash>(
        &mut self,
        now: Instant,
        bare: &mut Bare,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<usize, UploadError> {
        let size = usize::try_from(bare.size_bytes).unwrap_or(usize::MAX);
        if bare.at == 0 {
            let goal = HEAD_BYTES.min(size);
            let len = bytes.len().min(goal.saturating_sub(bare.head.len()));
            bare.head.extend_from_slice(bytes.get(..len).unwrap_or_default());
            if bare.head.len() == goal {
                self.judge_bare_head(&bare.head)?;
                self.agent.bare_begin(bare.size_bytes, flash).map_err(not_an_image)?;
                bare.at = self.push_bare(now, 0, &bare.head, flash)?;
            }
            return Ok(len);
        }
        // What the flash was too busy for of the head comes first.
        let at = usize::try_from(bare.at).unwrap_or(usize::MAX);
        if let Some(rest) = bare.head.get(at..).filter(|rest| !rest.is_empty()) {
            let rest = rest.to_vec();
            bare.at = self.push_bare(now, bare.at, &rest, flash)?;
            return Ok(0);
        }
        let before = bare.at;
        bare.at = self.push_bare(now, before, bytes, flash)?;
        Ok(usize::try_from(bare.at - before).unwrap_or(usize::MAX))
    }

    fn push_bare<F: NorFlash>(
        &mut self,
        now: Instant,
        at: u32,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<u32, UploadError> {
        let end = at.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let reached = self.agent.spool_push(now, at, bytes, flash).map_err(not_an_image)?;
        Ok(reached.clamp(at, end))
    }

    /// For whom is it? Asked before a sector is touched.
    fn judge_bare_head(&self, head: &[u8]) -> Result<(), UploadError> {
        let mut reader = ImageReader::new();
        reader.push(head).map_err(|error| UploadError::BadImage(format!("{error}")))?;
        let descriptor = reader.descriptor().ok_or_else(nameless)?;
        let role = descriptor.role.as_str();
        if !self.members().iter().any(|(_, known)| known.as_str() == role) {
            return Err(UploadError::BadImage(format!(
                "it is for role `{role}`, and no device of this group has that"
            )));
        }
        let chip =
            reader.header().map(|header| header.chip).filter(|_| role == self.setup.role.as_str());
        match chip.filter(|&chip| chip != self.setup.chip) {
            Some(chip) => Err(UploadError::BadImage(format!(
                "it is for chip `{chip}`, this device is a `{}`",
                self.setup.chip
            ))),
            None => Ok(()),
        }
    }
}

fn image_of(facts: &ImageFacts, size_bytes: u32) -> Result<BareImage, UploadError> {
    let descriptor = facts.descriptor.clone().ok_or_else(nameless)?;
    let role = Role::new(descriptor.role.as_str()).ok_or_else(nameless)?;
    Ok(BareImage {
        role,
        descriptor,
        image: facts.image_hash,
        file: facts.file_sha256,
        size_bytes,
        chip: facts.header.chip,
        guard: facts.guard(),
        generations: String::new(),
    })
}

/// What a host would have written for it.
pub(crate) fn manifest_of(image: &BareImage) -> Manifest<'_> {
    let descriptor = &image.descriptor;
    let chip = image.chip.name().unwrap_or_default();
    let entry = DeviceEntry {
        role: descriptor.role.as_str(),
        version: descriptor.version,
        device_type: chip.into(),
        hardware: "".into(),
        firmware_url: "".into(),
        firmware_size: image.size_bytes,
        md5_checksum: "".into(),
        protocol_version: descriptor.protocol.max(),
        protocol_range: Some(descriptor.protocol),
        sha256: Some(image.file),
        image_sha256: Some(image.image),
        generations_sha256: GenerationHashes::from_text(&image.generations),
        elf_sha256: None,
        chip: Some(image.chip),
        board: Some(descriptor.board.as_str().into()),
        min_compatible: Some(descriptor.min_compatible),
        config_schema: u32::from(descriptor.config_schema),
        effect: Effect::None,
        guard: image.guard,
    };
    Manifest {
        schema: SCHEMA_NEWEST,
        system: Some(descriptor.product.as_str().into()),
        system_version: descriptor.version,
        sequence: 0,
        epoch: descriptor.epoch,
        release_date: "".into(),
        min_compatible_version: descriptor.min_compatible,
        description: "".into(),
        devices: core::iter::once(entry).collect(),
        update_instructions: UpdateInstructions::default(),
        rollback: None,
        keys: None,
    }
}

fn nameless() -> UploadError {
    UploadError::BadImage(String::from("it does not say for which role it is"))
}

fn not_an_image(why: Refusal) -> UploadError {
    match why {
        Refusal::FlashFailed { .. } => UploadError::Storage,
        why => UploadError::BadImage(format!("{why}")),
    }
}
