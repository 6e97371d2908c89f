//! Staging: the manifest package, then the image, into the other slot, and back out to be verified.
//!
//! Everything that can be known before the first sector is erased is checked before: signatures,
//! role, chip, board, size, epoch, and the head of the image itself. Then the slot's otadata entry
//! is erased, then the sectors, window by window. In the end the slot is read back and hashed as a
//! whole; only that makes it staged.

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::order::Source;
use lockstep_proto::frame::report::{MemberState, Refusal};
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::image::{ChipId, ImageError, ImageFacts, ImageReader};
use lockstep_proto::manifest::{GenerationHash, Manifest, VerifyError, verify};
use lockstep_proto::planted::{self, Bug};

use crate::agent::{Agent, first4};
use crate::effects::Trace;
use crate::flash::{FlashFault, Region};
use crate::member::MemberRecord;
use crate::package::{self, GenerationList, PACKAGE_SIZE_BYTES_MAX, Package};
use crate::progress::{Progress, Stored};
use crate::receiver::{Flushed, Object, PROGRESS_STEP_BYTES, Poisoned, Taken};
use crate::slot::{self, Pace};

impl Agent {
    /// Goes on where staging stands: what is missing is asked for, in this boot or a later one.
    pub(crate) fn continue_staging<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        if let Some(refusal) = self.staging_refusal {
            return Err(refusal);
        }
        let member = &self.member;
        let is_going = self.receiver.job().is_some_and(|job| match job.object {
            Object::Package => job.sha256 == member.package,
            Object::Artifact => job.sha256 == member.file_sha256,
            // Any but the present one was stopped when this rollout began.
            Object::Patch => true,
            // A lead that serves other roles gets its own image last, from its upload.
            Object::Spool | Object::PatchSpool => true,
        });
        if is_going || self.applying.is_some() {
            self.wants_due = Some(self.now);
            return Ok(());
        }
        if member.source == Source::OtherSlot {
            self.check_way_back(member.target, flash)?;
            return self.finish_staging(flash);
        }
        let (wanted, size_bytes) = (member.package, u32::from(member.package_size_bytes));
        let store = self.layout.package();
        match package::find(flash, store)? {
            Some((_, digest)) if digest == wanted => self.take_package(flash),
            _ => {
                let place = Region { offset: package::body(store), size_bytes };
                self.receiver.start(Object::Package, wanted, place, 0);
                self.wants_due = Some(self.now);
                Ok(())
            }
        }
    }

    /// Judges the head, brings a full window into flash as far as the pace allows.
    pub(crate) fn after_taking<F: NorFlash>(
        &mut self,
        taken: Taken,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let is_patch = self.receiver.job().is_some_and(|job| job.object == Object::Patch);
        if taken == Taken::Head && is_patch {
            if let Err(refusal) = self.judge_patch_head() {
                return self.give_up_patch(refusal, flash);
            }
            self.receiver.accept_head();
        } else if taken == Taken::Head {
            if let Err(refusal) = self.judge_head() {
                self.receiver.stop();
                self.staging_refusal = Some(refusal);
                return Err(refusal);
            }
            self.receiver.accept_head();
        }
        self.flush(flash)
    }

    /// Brings a full window into flash when time passes; a failure is reported.
    pub(crate) fn advance_staging<F: NorFlash>(&mut self, flash: &mut F) {
        if let Err(refusal) = self.end_offer(flash).and_then(|()| self.flush(flash)) {
            self.refuse_staging(refusal);
        }
    }

    fn flush<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        for _ in 0..FLASH_STEPS_MAX {
            if !self.uses_flash() || self.next_grant().is_some() {
                break;
            }
            let erases = self.receiver.is_erasing();
            self.flash_used_at = Some(self.now);
            let done = match self.applying.is_some() {
                true => self.apply_once(flash),
                false => self.flush_once(flash),
            };
            if let Err(refusal) = done {
                self.stop_transfer();
                return Err(refusal);
            }
            if erases || self.pace != Pace::Fast {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is something to be done to the flash.
    pub(crate) fn uses_flash(&self) -> bool {
        self.applying.is_some() || self.receiver.is_flushing()
    }

    /// Nothing is on its way any more.
    pub(crate) fn stop_transfer(&mut self) {
        self.receiver.stop();
        self.applying = None;
    }

    fn flush_once<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        if self.receiver.job().is_some_and(|job| !job.prepared) {
            self.give_up_slot(flash)?;
            self.receiver.mark_prepared();
            return Ok(());
        }
        if planted::has(Bug::ProgressBeforeBytes) {
            self.claim_progress(flash)?;
        }
        let flushed = self.receiver.flush_step(flash, self.pace)?;
        let Some(job) = self.receiver.job() else { return Ok(()) };
        let (object, sha256, done_bytes) = (job.object, job.sha256, job.in_order_bytes());
        let durable_bytes = job.durable_bytes;
        match flushed {
            Flushed::Nothing | Flushed::More => {}
            // Said at once: now blocks are taken.
            Flushed::Open => self.wants_due = Some(self.now),
            Flushed::Poisoned(poisoned) => self.note_poisoned(&poisoned)?,
            Flushed::Window => {
                let step_bytes = done_bytes - done_bytes % PROGRESS_STEP_BYTES;
                if object != Object::Package && step_bytes > durable_bytes {
                    let progress = self.progress(object, sha256, step_bytes);
                    self.store_progress(&progress, flash)?;
                    self.receiver.mark_durable(step_bytes);
                }
            }
            Flushed::File if object == Object::Package => self.finish_package(flash)?,
            Flushed::File => {
                self.store_progress(&self.progress(object, sha256, done_bytes), flash)?;
                match object {
                    Object::Artifact => self.finish_artifact(flash)?,
                    Object::Patch => self.finish_patch(flash)?,
                    Object::Package | Object::Spool | Object::PatchSpool => {}
                }
            }
        }
        Ok(())
    }

    /// What [`Bug::ProgressBeforeBytes`] does: the next step's worth is said to be there.
    fn claim_progress<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        let Some(job) = self.receiver.job() else { return Ok(()) };
        let done_bytes = job.in_order_bytes() + PROGRESS_STEP_BYTES;
        let ahead = done_bytes - done_bytes % PROGRESS_STEP_BYTES;
        let (object, sha256, size_bytes) = (job.object, job.sha256, job.size_bytes);
        if object != Object::Package && ahead < size_bytes {
            self.store_progress(&self.progress(object, sha256, ahead), flash)?;
        }
        Ok(())
    }

    /// From here on the other slot's image is gone: its entry, then what is known of it, and only
    /// then the first sector.
    fn give_up_slot<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        let Some(job) = self.receiver.job() else { return Ok(()) };
        let progress = self.progress(job.object, job.sha256, job.durable_bytes);
        self.boot.forget_other(flash)?;
        self.store_progress(&progress, flash)?;
        self.other = None;
        self.effects.trace(Trace::SlotGivenUp);
        Ok(())
    }

    fn finish_package<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        let store = self.layout.package();
        let (expected, size_bytes) =
            (self.member.package, u32::from(self.member.package_size_bytes));
        self.receiver.stop();
        let found = slot::sha256_of(flash, package::body(store), size_bytes)?;
        if found != expected {
            return Err(self.spoilt(found.0, expected.0));
        }
        package::write_header(flash, store, size_bytes, &expected)?;
        self.take_package(flash)
    }

    /// The package is in its store: is it to be believed, and does it name this image for this
    /// device? If so, the image comes next.
    pub(crate) fn take_package<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        match self.judge_package(flash) {
            Ok(Accepted { file_sha256, epoch, list }) => {
                let verified = MemberRecord { file_sha256, epoch, ..self.member.clone() };
                if verified != self.member {
                    self.store_member(verified, flash)?;
                    self.effects.trace(Trace::PackageAccepted);
                }
                self.begin_artifact(list, flash)
            }
            Err(refusal) => {
                if !matches!(refusal, Refusal::FlashFailed { .. }) {
                    self.staging_refusal = Some(refusal);
                }
                Err(refusal)
            }
        }
    }

    /// Holds the package in memory for as long as its signatures are checked; a function of its
    /// own, so that its 12 KiB are on the stack for no longer than that.
    #[inline(never)]
    fn judge_package<F: NorFlash>(&self, flash: &mut F) -> Result<Accepted, Refusal> {
        let mut buffer = [0; PACKAGE_SIZE_BYTES_MAX];
        let store = self.layout.package();
        let bytes = package::load(flash, store, &mut buffer)?.unwrap_or_default();
        let package = Package::parse(bytes).map_err(|_| Refusal::BadManifest)?;
        let manifest = verify(package.manifest, &package.signatures, &self.trust)
            .map_err(|error| self.refusal_of(&error))?;
        let (file_sha256, epoch) = self.judge_manifest(&manifest)?;
        let entry = manifest.entry(self.identity.role.as_str());
        let hashes = entry.and_then(|entry| entry.generations_sha256);
        let list = hashes.and_then(|hashes| GenerationList::of(&hashes, bytes, store));
        Ok(Accepted { file_sha256, epoch, list })
    }

    /// Everything the manifest says about this device's image, against this device and the order.
    fn judge_manifest(&self, manifest: &Manifest<'_>) -> Result<(Sha256, u32), Refusal> {
        let entry = manifest.entry(self.identity.role.as_str()).ok_or(Refusal::BadManifest)?;
        let artifact = entry.installable().map_err(|_| Refusal::BadManifest)?;
        let slot_bytes = self.other_slot().size_bytes;
        if artifact.image_sha256 != self.member.target {
            return Err(Refusal::BadManifest);
        }
        self.check_chip(artifact.chip)?;
        let board = self.identity.board.as_str();
        let differs = entry.board.is_some_and(|named| !named.is_empty() && named != board);
        if !board.is_empty() && differs {
            return Err(Refusal::WrongBoard);
        }
        if artifact.size_bytes > slot_bytes {
            return Err(Refusal::TooLarge { size_bytes: artifact.size_bytes, slot_bytes });
        }
        if artifact.size_bytes != self.member.size_bytes {
            return Err(Refusal::BadManifest);
        }
        self.check_epoch(manifest.epoch)?;
        Ok((artifact.sha256, manifest.epoch))
    }

    fn begin_artifact<F: NorFlash>(
        &mut self,
        list: Option<GenerationList>,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let (slot, size_bytes) = (self.other_slot(), self.member.size_bytes);
        let sha256 = self.member.file_sha256;
        if self.other == Some(self.member.target) && self.judge_slot(flash)?.is_ok() {
            // The same image is still there from an earlier rollout.
            return self.finish_staging(flash);
        }
        if self.apply_stored(flash)? {
            return Ok(());
        }
        let mut done_bytes = self.own_progress(sha256, flash)?.min(size_bytes);
        if done_bytes >= size_bytes {
            if self.judge_slot(flash)?.is_ok() {
                return self.finish_staging(flash);
            }
            // It was all there once, and was spoilt since.
            done_bytes = 0;
        }
        done_bytes -= done_bytes % PROGRESS_STEP_BYTES;
        if done_bytes > 0 {
            self.effects.trace(Trace::Resumed { done_bytes });
        }
        let place = Region { offset: slot.offset, size_bytes };
        self.receiver.start(Object::Artifact, sha256, place, done_bytes);
        if let Some(list) = list {
            self.receiver.judge_by(list);
        }
        self.wants_due = Some(self.now);
        Ok(())
    }

    /// How much of this device's own image is in the other slot. What a lead has spooled for others
    /// of its own role becomes its own here, durably: what lies there as another's is not booted.
    fn own_progress<F: NorFlash>(&mut self, sha256: Sha256, flash: &mut F) -> Result<u32, Refusal> {
        let Some(progress) = self.load_progress(flash)?.filter(|it| it.sha256 == sha256) else {
            return Ok(0);
        };
        match progress.object {
            Stored::Artifact => {}
            Stored::Spool => {
                self.store_progress(&Progress { object: Stored::Artifact, ..progress }, flash)?;
            }
            Stored::Patch | Stored::Applying | Stored::PatchSpool => return Ok(0),
        }
        Ok(progress.done_bytes)
    }

    /// A generation came out wrong, and is fetched again; but not for ever: the manifest may be
    /// what is wrong, or somebody sends forged blocks for as long as anybody listens. What was
    /// right so far is kept.
    fn note_poisoned(&mut self, poisoned: &Poisoned) -> Result<(), Refusal> {
        self.effects.trace(Trace::GenerationPoisoned { generation: poisoned.generation });
        if self.receiver.count_poisoned() <= POISONED_MAX {
            return Ok(());
        }
        let expected = poisoned.expected.map_or(0, GenerationHash::first4);
        let refusal = Refusal::SlotDiffers { found: poisoned.found.first4(), expected };
        self.count_restart(refusal);
        Err(refusal)
    }

    /// Chip, size, role, board and epoch, as far as the first blocks tell.
    fn judge_head(&self) -> Result<(), Refusal> {
        let mut reader = ImageReader::with_limit(self.other_slot().size_bytes);
        reader
            .push(self.receiver.head())
            .map_err(|error| refusal_of_image(&error, reader.taken_bytes()))?;
        let header = reader.header().ok_or(Refusal::NotAnImage { offset: reader.taken_bytes() })?;
        self.check_chip(header.chip)?;
        reader.descriptor().map_or(Ok(()), |descriptor| self.check_descriptor(descriptor))
    }

    /// All of it is in flash: is what stands there what the manifest names?
    fn finish_artifact<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        self.receiver.stop();
        let Err(refusal) = self.judge_slot(flash)? else { return self.finish_staging(flash) };
        let sha256 = self.member.file_sha256;
        self.store_progress(&Progress::none(Stored::Artifact, sha256), flash)?;
        self.count_restart(refusal);
        Err(refusal)
    }

    /// Reads the slot back; the outer error is the flash's.
    pub(crate) fn judge_slot<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<Result<(), Refusal>, FlashFault> {
        if planted::has(Bug::NoReadBack) {
            self.other = Some(self.member.target);
            return Ok(Ok(()));
        }
        let size_bytes = self.member.size_bytes;
        let judged = match slot::read_file(flash, self.other_slot(), size_bytes)? {
            Ok(facts) => self.judge_file(&facts),
            Err(error) => Err(refusal_of_image(&error, size_bytes)),
        };
        self.other = judged.is_ok().then_some(self.member.target);
        Ok(judged)
    }

    fn judge_file(&self, facts: &ImageFacts) -> Result<(), Refusal> {
        let member = &self.member;
        if facts.file_sha256 != member.file_sha256 {
            let (found, expected) = (facts.file_sha256.0, member.file_sha256.0);
            return Err(differs(found, expected));
        }
        if facts.image_hash != member.target {
            return Err(differs(facts.image_hash.0, member.target.0));
        }
        self.check_chip(facts.header.chip)?;
        facts.descriptor.as_ref().map_or(Ok(()), |descriptor| self.check_descriptor(descriptor))
    }

    pub(crate) fn finish_staging<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        self.stop_transfer();
        if planted::has(Bug::FlipInTransfer) {
            self.boot.activate(flash)?;
        }
        let staged = MemberRecord { state: MemberState::Staged, ..self.member.clone() };
        self.store_member(staged, flash)?;
        self.effects.trace(Trace::Staged);
        self.report_due = true;
        Ok(())
    }

    /// The other slot holds this image, made for this device: it may be returned to.
    pub(crate) fn check_way_back<F: NorFlash>(
        &mut self,
        image: ImageHash,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let facts = self.own_facts_of_other_slot(flash)?;
        self.other = facts.as_ref().map(|facts| facts.image_hash);
        if self.other != Some(image) {
            let found = self.other.as_ref().map_or(0, first4);
            return Err(Refusal::NoWayBack { found, expected: first4(&image) });
        }
        let epoch = facts.and_then(|facts| facts.descriptor).map(|descriptor| descriptor.epoch);
        epoch.map_or(Ok(()), |epoch| self.check_epoch(epoch))
    }

    /// The hash of the whole image in the other slot, unless it is another role's that only lies
    /// there.
    pub(crate) fn own_image_in_other_slot<F: NorFlash>(
        &self,
        flash: &mut F,
    ) -> Result<Option<ImageHash>, FlashFault> {
        Ok(self.own_facts_of_other_slot(flash)?.map(|facts| facts.image_hash))
    }

    fn own_facts_of_other_slot<F: NorFlash>(
        &self,
        flash: &mut F,
    ) -> Result<Option<ImageFacts>, FlashFault> {
        if self.load_progress(flash)?.is_some_and(|it| it.object != Stored::Artifact) {
            return Ok(None);
        }
        let facts = slot::read_slot(flash, self.other_slot())?.ok();
        Ok(facts.filter(|facts| {
            let role = facts.descriptor.as_ref().map(|descriptor| descriptor.role.as_str());
            facts.header.chip == self.identity.chip
                && role.is_none_or(|role| role == self.identity.role.as_str())
        }))
    }

    pub(crate) fn check_epoch(&self, offered: u32) -> Result<(), Refusal> {
        let floor = self.epoch_floor;
        if offered < floor && !planted::has(Bug::EpochIgnored) {
            Err(Refusal::EpochTooLow { offered, floor })
        } else {
            Ok(())
        }
    }

    fn check_chip(&self, chip: ChipId) -> Result<(), Refusal> {
        let (image, device) = (u32::from(chip.0), u32::from(self.identity.chip.0));
        if image == device { Ok(()) } else { Err(Refusal::WrongChip { image, device }) }
    }

    /// What the image says of itself must be what the manifest says, and fit this device.
    fn check_descriptor(&self, descriptor: &Descriptor) -> Result<(), Refusal> {
        if descriptor.role.as_str() != self.identity.role.as_str() {
            return Err(Refusal::WrongRole);
        }
        let board = self.identity.board.as_str();
        if !board.is_empty() && descriptor.board.as_str() != board {
            return Err(Refusal::WrongBoard);
        }
        if descriptor.epoch != self.member.epoch {
            self.check_epoch(descriptor.epoch)?;
            return Err(Refusal::BadManifest);
        }
        Ok(())
    }

    pub(crate) fn refusal_of(&self, error: &VerifyError) -> Refusal {
        let needed = self.trust.keys().map_or(0, |keys| u32::from(keys.threshold()));
        match error {
            VerifyError::Manifest(_) | VerifyError::OtherDigest { .. } => Refusal::BadManifest,
            VerifyError::NotEnough { found, needed } => {
                Refusal::Untrusted { good: u32::from(*found), needed: u32::from(*needed) }
            }
            VerifyError::Signature(_)
            | VerifyError::TooManySignatures { .. }
            | VerifyError::UnknownKey { .. } => Refusal::Untrusted { good: 0, needed },
        }
    }

    fn spoilt(&mut self, found: [u8; 32], expected: [u8; 32]) -> Refusal {
        let refusal = differs(found, expected);
        self.count_restart(refusal);
        refusal
    }

    /// A transfer that came out wrong may begin anew, but not for ever.
    fn count_restart(&mut self, refusal: Refusal) {
        self.staging_restarts = self.staging_restarts.saturating_add(1);
        if self.staging_restarts > STAGING_RESTARTS_MAX {
            self.staging_refusal = Some(refusal);
        }
    }
}

/// What a verified package says of this device's image.
struct Accepted {
    file_sha256: Sha256,
    epoch: u32,
    list: Option<GenerationList>,
}

fn differs(found: [u8; 32], expected: [u8; 32]) -> Refusal {
    let (found, expected) = (first4(&ImageHash(found)), first4(&ImageHash(expected)));
    Refusal::SlotDiffers { found, expected }
}

pub(crate) fn refusal_of_image(error: &ImageError, offset: u32) -> Refusal {
    match error {
        ImageError::TooLarge { needed_bytes, limit_bytes } => Refusal::TooLarge {
            size_bytes: u32::try_from(*needed_bytes).unwrap_or(u32::MAX),
            slot_bytes: *limit_bytes,
        },
        _ => Refusal::NotAnImage { offset },
    }
}

/// Things done to the flash in one go, at most: a chip's radio holds ten frames, and a write takes
/// a fifth of the time of one. An erase takes longer than all of them, and is done alone.
const FLASH_STEPS_MAX: usize = 32;
/// How often one rollout's image may come out wrong and be fetched anew, in one boot.
pub const STAGING_RESTARTS_MAX: u8 = 3;
/// So many generations of one transfer may come out wrong and be fetched again, in one boot.
pub const POISONED_MAX: u16 = 16;
