//! Staging from a patch: what the lead offers instead of the whole image.
//!
//! ```text
//!            offer              all of it, and its hash is right        the slot reads back right
//!  whole ──────────► receiving ────────────────────────────────► applying ──────────────► staged
//!    ▲                  │ not for this device, broken,              │ broken, no room,
//!    └──────────────────┴───── offered no more ─────────────────────┴──── another image
//! ```
//!
//! The patch goes to the end of the other slot, and the image that it makes grows towards it from
//! the slot's start; before a sector is erased, all of the patch that lies in it has been used. So
//! a patch needs no room of its own. What came of it is judged as if it had been fetched whole:
//! nobody has to believe a patch, and whatever is wrong with one costs time only.

use alloc::boxed::Box;

use embedded_storage::nor_flash::NorFlash;
use lockstep_delta::{DICTIONARY_BYTES, Format, HEADER_BYTES, Header};
use lockstep_proto::frame::order::{Offer, Order};
use lockstep_proto::frame::report::{MemberState, Refusal};
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::time::Instant;
use sha2::Digest as _;

use crate::agent::{Agent, first4};
use crate::applying::{Applying, Fault, Made};
use crate::effects::Trace;
use crate::flash::{self, FlashFault, Region, SECTOR_BYTES};
use crate::progress::{Progress, Stored};
use crate::receiver::{FILE_BYTES_MAX, Object, PROGRESS_STEP_BYTES};
use crate::slot;
use crate::staging::STAGING_RESTARTS_MAX;

/// What this boot knows of the patch that was offered last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered {
    offer: Offer,
    at: Instant,
    /// How often it was tried to apply it, in this boot and those before.
    tries: u8,
    /// How often it came, and was not what it must be.
    restarts: u8,
    /// Why it is not taken.
    refusal: Option<Refusal>,
}

impl Agent {
    /// The lead has a patch for this device's image: is it taken?
    pub(crate) fn on_offer<F: NorFlash>(
        &mut self,
        offer: &Offer,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        if self.member.target != offer.image {
            return Err(Refusal::NotStaged);
        }
        if self.member.state != MemberState::Staging || self.applying.is_some() {
            return Ok(());
        }
        let known = self.offered.filter(|known| known.offer == *offer);
        let known = match known {
            Some(known) => Offered { at: self.now, ..known },
            None => self.first_offer(offer, flash)?,
        };
        self.offered = Some(known);
        if let Some(refusal) = known.refusal {
            return Err(refusal);
        }
        let job = self.receiver.job().map(|job| (job.object, job.sha256, job.flashed_bytes()));
        match job {
            Some((Object::Patch, sha256, _)) if sha256 == offer.patch => Ok(()),
            Some((object @ (Object::Artifact | Object::Patch), _, flashed_bytes)) => {
                let flashed_bytes = if object == Object::Artifact { flashed_bytes } else { 0 };
                self.check_offer(offer, flashed_bytes)
                    .and_then(|()| self.take_offer(offer, flash))
                    .inspect_err(|&refusal| self.note_patch_refused(refusal))
            }
            // Only with the whole manifest is it known what the image must be; and a lead that
            // serves others looks at its own later.
            Some((Object::Package | Object::Spool | Object::PatchSpool, ..)) | None => Ok(()),
        }
    }

    fn first_offer<F: NorFlash>(
        &self,
        offer: &Offer,
        flash: &mut F,
    ) -> Result<Offered, FlashFault> {
        let progress = self.load_progress(flash)?.filter(|it| it.sha256 == offer.patch);
        let tries = progress.map_or(0, |progress| progress.tries);
        Ok(Offered { offer: *offer, at: self.now, tries, restarts: 0, refusal: None })
    }

    /// What the offer itself tells.
    fn check_offer(&self, offer: &Offer, flashed_bytes: u32) -> Result<(), Refusal> {
        self.check_base(offer.base)?;
        check_tries(self.patch_tries(&offer.patch))?;
        let missing_bytes = self.member.size_bytes.saturating_sub(flashed_bytes);
        if offer.size_bytes >= missing_bytes {
            let patch_bytes = offer.size_bytes;
            return Err(Refusal::PatchNotNeeded { patch_bytes, missing_bytes });
        }
        self.patch_place(offer.size_bytes).map(|_| ())
    }

    /// It is fetched, unless all of it is there from an earlier boot.
    fn take_offer<F: NorFlash>(&mut self, offer: &Offer, flash: &mut F) -> Result<(), Refusal> {
        let stored = self.load_progress(flash)?.filter(|it| it.sha256 == offer.patch);
        self.receiver.stop();
        if stored.is_some() && self.apply_stored(flash)? {
            return Ok(());
        }
        let place = self.patch_place(offer.size_bytes)?;
        let done_bytes = match stored {
            Some(Progress { object: Stored::Patch, done_bytes, .. }) => {
                let done_bytes = done_bytes.min(offer.size_bytes);
                done_bytes - done_bytes % PROGRESS_STEP_BYTES
            }
            _ => 0,
        };
        if done_bytes > 0 {
            self.effects.trace(Trace::Resumed { done_bytes });
        }
        self.receiver.start(Object::Patch, offer.patch, place, done_bytes);
        self.wants_due = Some(self.now);
        Ok(())
    }

    /// Where a patch of this size lies: at the end of the other slot, from the start of a sector.
    pub(crate) fn patch_place(&self, size_bytes: u32) -> Result<Region, Refusal> {
        let slot = self.other_slot();
        let slot_bytes = slot.size_bytes.min(FILE_BYTES_MAX);
        if size_bytes <= HEADER_LENGTH || size_bytes > slot_bytes {
            let needed_bytes = size_bytes.max(HEADER_LENGTH);
            return Err(Refusal::PatchNoRoom { needed_bytes, slot_bytes });
        }
        let from_end = size_bytes.next_multiple_of(SECTOR_BYTES).min(slot.size_bytes);
        Ok(Region { offset: slot.offset + slot.size_bytes - from_end, size_bytes })
    }

    /// The first blocks of a patch are there: is it the one that was offered, for what runs here,
    /// and does it make what was ordered?
    pub(crate) fn judge_patch_head(&self) -> Result<(), Refusal> {
        let Some(job) = self.receiver.job() else { return Err(Refusal::NotStaged) };
        let size_bytes = job.size_bytes;
        let header = named_header(self.receiver.head(), &job.sha256)?;
        self.check_header(&header, size_bytes)
    }

    /// What a patch is applied to must be what runs.
    fn check_base(&self, base: Option<ImageHash>) -> Result<(), Refusal> {
        match base.filter(|base| *base != self.running) {
            Some(base) => {
                let (running, base) = (first4(&self.running), first4(&base));
                Err(Refusal::OtherBase { running, base })
            }
            None => Ok(()),
        }
    }

    fn check_header(&self, header: &Header, size_bytes: u32) -> Result<(), Refusal> {
        self.check_base((header.format != Format::Full).then_some(ImageHash(header.old)))?;
        let makes = ImageHash(header.new);
        if makes != self.member.target || header.new_bytes != self.member.size_bytes {
            let (found, expected) = (first4(&makes), first4(&self.member.target));
            return Err(Refusal::PatchDiffers { found, expected });
        }
        let whole = HEADER_LENGTH.checked_add(header.body_bytes);
        if whole != Some(size_bytes) {
            return Err(Refusal::PatchBroken { offset: size_bytes });
        }
        let slot_bytes = self.other_slot().size_bytes;
        // It begins with a sector, and sectors are erased whole.
        let needed_bytes = header.room_bytes.saturating_add(2 * SECTOR_BYTES);
        if needed_bytes > slot_bytes || header.old_bytes > self.running_slot().size_bytes {
            let needed_bytes = needed_bytes.max(header.old_bytes);
            return Err(Refusal::PatchNoRoom { needed_bytes, slot_bytes });
        }
        Ok(())
    }

    /// All of the patch is in flash: has it come as it was sent? Then it is applied; else it comes
    /// again, but not for ever.
    pub(crate) fn finish_patch<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        let Some(job) = self.receiver.job() else { return Ok(()) };
        let (sha256, place) = (job.sha256, job.place());
        self.receiver.stop();
        // Said at once: nobody needs to ask this device any more.
        self.wants_due = Some(self.now);
        if self.apply_stored(flash)? {
            return Ok(());
        }
        let tries = self.patch_tries(&sha256);
        let none = Progress { tries, ..Progress::none(Stored::Patch, sha256) };
        self.store_progress(&none, flash)?;
        let restarts = self.offered.as_mut().map_or(u8::MAX, |offered| {
            offered.restarts = offered.restarts.saturating_add(1);
            offered.restarts
        });
        if restarts > STAGING_RESTARTS_MAX {
            return self.give_up_patch(Refusal::PatchBroken { offset: place.size_bytes }, flash);
        }
        self.receiver.start(Object::Patch, sha256, place, 0);
        Ok(())
    }

    /// If a whole patch for the image that is to be staged lies in the other slot, it is applied
    /// from now on: one that was fetched, one whose application a power cut has interrupted before
    /// it had overwritten any of it, or one that this lead kept for others.
    pub(crate) fn apply_stored<F: NorFlash>(&mut self, flash: &mut F) -> Result<bool, Refusal> {
        let Some(stored) = self.load_progress(flash)? else { return Ok(false) };
        if !matches!(stored.object, Stored::Patch | Stored::Applying | Stored::PatchSpool) {
            return Ok(false);
        }
        let Ok(place) = self.patch_place(stored.done_bytes) else { return Ok(false) };
        let mut head = [0; HEADER_BYTES];
        flash::read(flash, place.offset, &mut head)?;
        let Ok(header) = named_header(&head, &stored.sha256) else { return Ok(false) };
        if header.new != self.member.target.0 {
            return Ok(false);
        }
        let (tries, size_bytes) = (stored.tries, stored.done_bytes);
        let fits = self.check_header(&header, size_bytes);
        if let Err(why) = fits.and_then(|()| check_tries(tries)) {
            self.refuse_patch(why);
            return Ok(false);
        }
        if patch_hash(place, flash)? != stored.sha256 {
            return Ok(false);
        }
        let body = Region { offset: place.offset + HEADER_LENGTH, size_bytes: header.body_bytes };
        let progress = Progress { object: Stored::Applying, tries: tries + 1, ..stored };
        self.boot.forget_other(flash)?;
        self.store_progress(&progress, flash)?;
        self.other = None;
        if let Some(offered) = &mut self.offered {
            offered.tries = tries + 1;
        }
        self.effects.trace(Trace::PatchComplete { patch_bytes: size_bytes });
        let (old, new) = (self.running_slot(), self.other_slot());
        self.applying = Some(begin(stored.sha256, header, body, old, new));
        Ok(true)
    }

    /// One step of applying: an erase, or a page that is made and written.
    pub(crate) fn apply_once<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        let Some(applying) = &mut self.applying else { return Ok(()) };
        match applying.step(flash, self.pace) {
            Ok(Made::More) => Ok(()),
            Ok(Made::All) => self.finish_patched(flash),
            Err(Fault::Flash(fault)) => Err(fault.into()),
            Err(Fault::Patch(refusal)) => self.give_up_patch(refusal, flash),
        }
    }

    /// The image is made: is it the one that the manifest names?
    fn finish_patched<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        self.applying = None;
        let (sha256, done_bytes) = (self.member.file_sha256, self.member.size_bytes);
        let whole = Progress { done_bytes, ..Progress::none(Stored::Artifact, sha256) };
        self.store_progress(&whole, flash)?;
        let Err(refusal) = self.judge_slot(flash)? else { return self.finish_staging(flash) };
        self.store_progress(&Progress::none(Stored::Artifact, sha256), flash)?;
        let refusal = match refusal {
            Refusal::SlotDiffers { found, expected } => Refusal::PatchDiffers { found, expected },
            Refusal::NotAnImage { offset } => Refusal::PatchBroken { offset },
            other => other,
        };
        self.give_up_patch(refusal, flash)
    }

    /// The patch is of no use here: the lead is told why, and the whole image is waited for.
    pub(crate) fn give_up_patch<F: NorFlash>(
        &mut self,
        why: Refusal,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        self.stop_transfer();
        self.refuse_patch(why);
        self.forget_patch(flash)?;
        self.take_package(flash)
    }

    /// What is left of the patch is not applied once more.
    fn forget_patch<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        match self.load_progress(flash)? {
            Some(Progress { object: Stored::Artifact | Stored::Spool, .. }) | None => Ok(()),
            Some(_) => {
                let none = Progress::none(Stored::Artifact, self.member.file_sha256);
                Ok(self.store_progress(&none, flash)?)
            }
        }
    }

    /// The same, as an answer to the offer; a lead has offered itself nothing.
    fn refuse_patch(&mut self, why: Refusal) {
        self.note_patch_refused(why);
        let (image, patch) = (self.member.target, Sha256([0; 32]));
        let own = Offer { image, base: None, patch, size_bytes: 0 };
        let offer = self.offered.map_or(own, |offered| offered.offer);
        self.refuse(self.member.ticket.rollout, &Order::Offer(offer), why);
    }

    fn note_patch_refused(&mut self, why: Refusal) {
        if let Some(offered) = &mut self.offered {
            offered.refusal = Some(why);
        }
    }

    /// A patch that is not offered any more is not waited for: the lead may have lost it.
    pub(crate) fn end_offer<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), Refusal> {
        if self.offer_ends().is_none_or(|at| at > self.now) {
            return Ok(());
        }
        self.receiver.stop();
        self.offered = None;
        self.effects.trace(Trace::PatchLost);
        self.take_package(flash)
    }

    /// When the patch that comes is not waited for any more.
    pub(crate) fn offer_ends(&self) -> Option<Instant> {
        let job = self.receiver.job().filter(|job| job.object == Object::Patch)?;
        let offered = self.offered.filter(|it| it.offer.patch == job.sha256 && !job.is_complete());
        offered.map(|offered| offered.at + OFFER_LEASE_MS)
    }

    pub(crate) fn patch_tries(&self, patch: &Sha256) -> u8 {
        let offered = self.offered.filter(|offered| offered.offer.patch == *patch);
        offered.map_or(0, |offered| offered.tries)
    }

    /// How far staging from a patch has come, in bytes of the image: both parts of it count.
    pub(crate) fn patched_bytes(&self) -> Option<u32> {
        let (done, patch_bytes) = match (&self.applying, self.receiver.job()) {
            (Some(applying), _) => {
                (applying.patch_bytes() + applying.made_bytes(), applying.patch_bytes())
            }
            (None, Some(job)) if job.object == Object::Patch => {
                (job.flashed_bytes(), job.size_bytes)
            }
            _ => return None,
        };
        let size_bytes = u64::from(self.member.size_bytes);
        let all = (size_bytes + u64::from(patch_bytes)).max(1);
        u32::try_from(size_bytes * u64::from(done) / all).ok()
    }
}

/// The name of the patch in this place, if its body is the one that its header names; else the hash
/// of its body.
pub(crate) fn patch_hash<F: NorFlash>(place: Region, flash: &mut F) -> Result<Sha256, FlashFault> {
    let mut head = [0; HEADER_BYTES];
    flash::read(flash, place.offset, &mut head)?;
    let body = place.size_bytes.saturating_sub(HEADER_LENGTH);
    let body = slot::sha256_of(flash, place.offset + HEADER_LENGTH, body)?;
    let said = Header::decode(&head).ok().map(|header| Sha256(header.body_sha256));
    let name = Sha256(sha2::Sha256::digest(head).into());
    Ok(if said == Some(body) { name } else { body })
}

fn check_tries(tries: u8) -> Result<(), Refusal> {
    match tries < PATCH_TRIES_MAX {
        true => Ok(()),
        false => Err(Refusal::PatchSpent { tries: tries.into() }),
    }
}

/// What is boxed is on the stack first: 12 KiB that no other way through the agent should have on
/// its stack, least of all the one that every tick takes.
#[inline(never)]
fn begin(patch: Sha256, header: Header, body: Region, old: Region, new: Region) -> Box<Applying> {
    Box::new(Applying::new(patch, header, body, old, new))
}

/// The header that these bytes begin with, if it is the one of this name.
fn named_header(bytes: &[u8], name: &Sha256) -> Result<Header, Refusal> {
    let front = bytes.get(..HEADER_BYTES).unwrap_or_default();
    let header = Header::decode(front).map_err(|_| Refusal::PatchBroken { offset: 0 })?;
    let found: [u8; 32] = sha2::Sha256::digest(front).into();
    if found != name.0 {
        let (found, expected) = (first4(&ImageHash(found)), first4(&ImageHash(name.0)));
        return Err(Refusal::PatchDiffers { found, expected });
    }
    Ok(header)
}

/// So often it is tried to apply a patch: a chip that dies of one takes the whole image then.
pub const PATCH_TRIES_MAX: u8 = 3;
/// Without being offered again a patch is waited for so long, in milliseconds.
pub const OFFER_LEASE_MS: u64 = 30_000;

/// [`HEADER_BYTES`] as sizes in flash are counted.
const HEADER_LENGTH: u32 = 124;

const _: () = assert!(HEADER_LENGTH as usize == HEADER_BYTES);
const _: () = assert!(DICTIONARY_BYTES == 4096, "the memory that a member needs is known");
