//! What the lead's own device does beyond a member: it takes packages and artifacts straight from
//! an upload, and keeps other roles' artifacts in its other slot while it serves them.
//!
//! Its own image goes the same way as everybody's, through the same checks.

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::frame::report::{MemberState, Refusal};
use lockstep_proto::id::Sha256;
use lockstep_proto::image::ImageFacts;
use lockstep_proto::manifest::{GENERATION_BYTES, GenerationHash, verify};
use lockstep_proto::time::Instant;

use crate::agent::{Agent, Leaving, first4};
use crate::flash::{self, Region};
use crate::member::MemberRecord;
use crate::package::{self, Package};
use crate::patch::patch_hash;
use crate::progress::{Progress, Stored};
use crate::receiver::{FILE_BYTES_MAX, Object, Taken};
use crate::slot;
use crate::staging::refusal_of_image;

impl Agent {
    /// Verifies a manifest package and stores it, in place of the one before.
    pub fn install_package<F: NorFlash>(
        &mut self,
        now: Instant,
        package_bytes: &[u8],
        flash: &mut F,
    ) -> Result<(), Refusal> {
        self.advance(now);
        let package = Package::parse(package_bytes).map_err(|_| Refusal::BadManifest)?;
        let manifest = verify(package.manifest, &package.signatures, &self.trust)
            .map_err(|error| self.refusal_of(&error))?;
        self.check_epoch(manifest.epoch)?;
        let stored = package::find(flash, self.layout.package())?;
        if stored.is_some_and(|(_, digest)| digest == package::digest(package_bytes)) {
            return Ok(());
        }
        if self.receiver.job().is_some_and(|job| job.object == Object::Package) {
            self.receiver.stop();
        }
        package::store(flash, self.layout.package(), package_bytes)?;
        Ok(())
    }

    /// A file comes anew, from its first byte: what an earlier upload left of one is not built
    /// upon, since that one may have been bad. An image that is whole is found again by its hash.
    pub fn forget_transfer<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        self.receiver.stop();
        match self.load_progress(flash)? {
            Some(progress) if progress.done_bytes > 0 => {
                Ok(self.store_progress(&Progress { done_bytes: 0, ..progress }, flash)?)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes bytes of this device's own image, in order, straight from an upload; `Stage` comes
    /// before. Ends a spool: what lies in the other slot is overwritten.
    ///
    /// Returns how many bytes of the file have been taken in this boot or are in flash: go on from
    /// there. Fewer than given: the flash is busy, tick and try again. When all have been taken,
    /// the report says whether they are staged; with a slow pace, some ticks later.
    pub fn push_local<F: NorFlash>(
        &mut self,
        now: Instant,
        offset: u32,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<u32, Refusal> {
        self.advance(now);
        let spools = self.receiver.job().is_some_and(|job| job.object.is_spool());
        if spools && self.member.state == MemberState::Staging {
            // Everybody else is served: now its own image goes over what was spooled.
            self.receiver.stop();
            if let Err(refusal) = self.continue_staging(flash) {
                self.refuse_staging(refusal);
                return Err(refusal);
            }
        }
        let pushed = self.push(Object::Artifact, offset, bytes, flash);
        if let Err(refusal) = pushed {
            self.refuse_staging(refusal);
        }
        pushed
    }

    /// Begins to keep another role's artifact in the other slot, or goes on with it after a reboot.
    /// Returns how many of its bytes are there. This device's way back is given up with the first
    /// window that is written.
    pub fn spool_begin<F: NorFlash>(
        &mut self,
        file_sha256: Sha256,
        size_bytes: u32,
        flash: &mut F,
    ) -> Result<u32, Refusal> {
        let slot = self.other_slot();
        let slot_bytes = slot.size_bytes.min(FILE_BYTES_MAX);
        if size_bytes == 0 || size_bytes > slot_bytes {
            return Err(Refusal::TooLarge { size_bytes, slot_bytes });
        }
        let place = Region { offset: slot.offset, size_bytes };
        self.begin_spool(Object::Spool, file_sha256, place, flash)
    }

    /// The same with a patch of any role, which is kept where it can be applied, should it turn out
    /// to be for this device. It is known by the hash of its header.
    pub fn spool_patch_begin<F: NorFlash>(
        &mut self,
        patch: Sha256,
        size_bytes: u32,
        flash: &mut F,
    ) -> Result<u32, Refusal> {
        let place = self.patch_place(size_bytes)?;
        self.begin_spool(Object::PatchSpool, patch, place, flash)
    }

    fn begin_spool<F: NorFlash>(
        &mut self,
        object: Object,
        sha256: Sha256,
        place: Region,
        flash: &mut F,
    ) -> Result<u32, Refusal> {
        self.spool_used_at = Some(self.now);
        if self.on_trial() || self.leaving.is_some() || self.boot.other_is_next() {
            return Err(Refusal::OnTrial);
        }
        if let Some(job) = self.receiver.job()
            && (job.object, job.sha256) == (object, sha256)
        {
            return Ok(job.accepted_bytes());
        }
        let tried = matches!(
            self.member.state,
            MemberState::Staged | MemberState::Activating | MemberState::Confirming
        );
        if tried {
            // What was staged is about to be overwritten, and the record must not claim it.
            let staging = MemberRecord { state: MemberState::Staging, ..self.member.clone() };
            self.store_member(staging, flash)?;
            self.release();
        }
        let done_bytes = match self.load_progress(flash)? {
            Some(progress)
                if (progress.object, progress.sha256) == (Stored::of(object), sha256) =>
            {
                progress.done_bytes.min(place.size_bytes)
            }
            _ => 0,
        };
        self.applying = None;
        self.receiver.start(object, sha256, place, done_bytes);
        Ok(done_bytes)
    }

    /// Takes bytes of the artifact that is being spooled; returns as [`Agent::push_local`] does.
    pub fn spool_push<F: NorFlash>(
        &mut self,
        now: Instant,
        offset: u32,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<u32, Refusal> {
        self.advance(now);
        self.spool_used_at = Some(self.now);
        let object = self.receiver.job().map(|job| job.object).filter(|it| it.is_spool());
        self.push(object.unwrap_or(Object::Spool), offset, bytes, flash)
    }

    /// Reads a part of the spooled artifact, as far as it is in flash.
    pub fn spool_read<F: ReadNorFlash>(
        &self,
        offset: u32,
        bytes: &mut [u8],
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let job = self.receiver.job().filter(|job| job.object.is_spool());
        let job = job.ok_or(Refusal::NotStaged)?;
        let end = u64::from(offset) + bytes.len() as u64;
        if end > u64::from(job.flashed_bytes()) {
            return Err(Refusal::NotStaged);
        }
        Ok(flash::read(flash, job.place().offset + offset, bytes)?)
    }

    /// Whether bytes of the artifact are still on their way into flash: with a slow pace, for some
    /// ticks after the last of them was taken.
    pub fn spool_is_landing(&self) -> bool {
        self.receiver.job().is_some_and(|job| job.object.is_spool() && !job.is_complete())
    }

    /// Whether this device makes its image from a patch.
    pub const fn is_patching(&self) -> bool {
        self.applying.is_some()
    }

    /// Looks once more at what is there to be staged, as the lead's order does.
    pub fn go_on_staging<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        self.advance(now);
        if self.member.state != MemberState::Staging {
            return;
        }
        if let Err(refusal) = self.continue_staging(flash) {
            self.refuse_staging(refusal);
        }
    }

    /// Nobody needs the spooled artifact any more.
    pub fn spool_end(&mut self) {
        if self.receiver.job().is_some_and(|job| job.object.is_spool()) {
            self.receiver.stop();
        }
    }

    /// Reads the spooled artifact back and compares its SHA-256. If it is not what was announced,
    /// it has to come again from its start.
    pub fn spool_verify<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        let job = self.receiver.job().filter(|job| job.object.is_spool() && job.is_complete());
        let job = job.ok_or(Refusal::NotStaged)?;
        let (object, sha256, place) = (Stored::of(job.object), job.sha256, job.place());
        let found = match object {
            Stored::PatchSpool => patch_hash(place, flash)?,
            _ => slot::sha256_of(flash, place.offset, place.size_bytes)?,
        };
        if found == sha256 {
            return Ok(());
        }
        self.receiver.stop();
        self.store_progress(&Progress::none(object, sha256), flash)?;
        let hash = |sha256: Sha256| first4(&lockstep_proto::id::ImageHash(sha256.0));
        Err(Refusal::SlotDiffers { found: hash(found), expected: hash(sha256) })
    }

    /// Begins to take a bare image into the other slot, whose hash nobody knows before its last
    /// byte. Its bytes come by [`Agent::spool_push`].
    pub fn bare_begin<F: NorFlash>(
        &mut self,
        size_bytes: u32,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        self.forget_transfer(flash)?;
        self.spool_begin(UNKNOWN, size_bytes, flash).map(|_| ())
    }

    /// All of a bare image is in flash: what is it? Without an answer the slot is given up.
    pub fn bare_end<F: NorFlash>(&mut self, flash: &mut F) -> Result<ImageFacts, Refusal> {
        let size_bytes = self.bare_bytes().ok_or(Refusal::NotStaged)?;
        match slot::read_file(flash, self.other_slot(), size_bytes)? {
            Ok(facts) => Ok(facts),
            Err(error) => {
                self.forget_transfer(flash)?;
                Err(refusal_of_image(&error, size_bytes))
            }
        }
    }

    /// The hash of one generation of the bare image, as a manifest names it. `None`: there is no
    /// such generation.
    pub fn bare_generation<F: NorFlash>(
        &self,
        generation: u16,
        flash: &mut F,
    ) -> Result<Option<GenerationHash>, Refusal> {
        let size_bytes = self.bare_bytes().ok_or(Refusal::NotStaged)?;
        let offset = u32::from(generation).saturating_mul(GENERATION_BYTES);
        let left_bytes = size_bytes.saturating_sub(offset).min(GENERATION_BYTES);
        if left_bytes == 0 {
            return Ok(None);
        }
        let sha256 = slot::sha256_of(flash, self.other_slot().offset + offset, left_bytes)?;
        Ok(Some(GenerationHash::front_of(&sha256)))
    }

    /// Whether a bare image is whole in the other slot, and nothing has taken its place since.
    pub fn has_bare(&self) -> bool {
        self.bare_bytes().is_some()
    }

    /// The size of the bare image that is whole in the other slot.
    fn bare_bytes(&self) -> Option<u32> {
        let job = self.receiver.job().filter(|job| job.is_complete())?;
        ((job.object, job.sha256) == (Object::Spool, UNKNOWN)).then_some(job.size_bytes)
    }

    /// From here on the bare image has a name, as if it had come in a bundle: it is an artifact
    /// that is spooled for members. If it is this device's own, it only has to be read back once
    /// this device is told to stage.
    pub fn bare_adopt<F: NorFlash>(
        &mut self,
        file_sha256: Sha256,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let done_bytes = self.bare_bytes().ok_or(Refusal::NotStaged)?;
        self.receiver.stop();
        let spooled = Progress { done_bytes, ..Progress::none(Stored::Spool, file_sha256) };
        Ok(self.store_progress(&spooled, flash)?)
    }

    fn push<F: NorFlash>(
        &mut self,
        object: Object,
        offset: u32,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<u32, Refusal> {
        let mut bytes = bytes;
        let mut at = offset;
        loop {
            let Some(job) = self.receiver.job().filter(|job| job.object == object) else {
                return self.pushed_before(object);
            };
            let accepted = job.accepted_bytes();
            if accepted != at || bytes.is_empty() {
                return Ok(accepted);
            }
            let taken = self.receiver.take_bytes(at, bytes);
            if matches!(taken, Taken::Dropped(_)) {
                // The flash is busy with the window before.
                return Ok(accepted);
            }
            let taken_bytes = self.receiver.job().map_or(0, |job| job.accepted_bytes() - at);
            at += taken_bytes;
            bytes = bytes.get(taken_bytes as usize..).unwrap_or_default();
            self.after_taking(taken, flash)?;
        }
    }

    /// Without a transfer: all of the image has come, or none of it is wanted.
    fn pushed_before(&self, object: Object) -> Result<u32, Refusal> {
        let staged = object == Object::Artifact && self.member.state == MemberState::Staged;
        let leaves = matches!(self.leaving, Some(Leaving::Back { .. }));
        match self.staging_refusal {
            _ if staged && !leaves => Ok(self.member.size_bytes),
            Some(refusal) => Err(refusal),
            None => Err(Refusal::NotStaged),
        }
    }
}

/// Stands for the hash of a file that is still coming; no file has it.
const UNKNOWN: Sha256 = Sha256([0; 32]);
