//! Patches of a bundle: spooled like artifacts, for those who run what they are for.
//!
//! A patch that is of no use is no fault of its bundle: it is passed over, and what follows it
//! makes the same image.

use alloc::format;
use alloc::string::String;

use embedded_storage::nor_flash::NorFlash;
use lockstep_delta::{Format, HEADER_BYTES, Header};
use lockstep_proto::frame::control::Message;
use lockstep_proto::frame::order::Offer;
use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::{DeviceId, ImageHash, Sha256};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;
use lockstep_rollout::offers::{has_staged, may_use};
use lockstep_rollout::{Offers, Part};
use sha2::Digest as _;

use super::{Incoming, State, Upload, UploadError, Way, bad_artifact};
use crate::journal::Level;
use crate::node::Node;
use crate::setup::Application;

impl<A: Application> Node<A> {
    /// The header of a patch is there: whom is it for? It is kept in this device's other slot, or
    /// passed over.
    pub(super) fn judge_patch<F: NorFlash>(
        &mut self,
        now: Instant,
        incoming: &mut Incoming,
        front: &[u8],
        bundle_bytes: u32,
        flash: &mut F,
    ) -> Result<(), UploadError> {
        incoming.way = Way::Skip;
        let role = incoming.role;
        let front = front.get(..HEADER_BYTES).unwrap_or(front);
        let useful = Header::decode(front)
            .map_err(|error| format!("{error}"))
            .and_then(|header| self.use_of_patch(&role, &header, incoming.size_bytes));
        match useful {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(why) => {
                self.pass_over(now, role, &why, Refusal::PatchBroken { offset: 0 }, flash);
                return Ok(());
            }
        }
        // As with an artifact: the lead's own slot is for others first.
        self.way_of(&role)?;
        incoming.file = Sha256(sha2::Sha256::digest(front).into());
        if let Some(lead) = &mut self.lead {
            lead.stop_serving();
        }
        match self.agent.spool_patch_begin(incoming.file, incoming.size_bytes, flash) {
            Ok(_) => {}
            Err(why @ Refusal::FlashFailed { .. }) => return Err(bad_artifact(role, why)),
            Err(why) => {
                self.pass_over(now, role, &format!("{why}"), why, flash);
                return Ok(());
            }
        }
        incoming.way = Way::Spool;
        self.note_cut(incoming, bundle_bytes, flash)
    }

    /// A patch that is of no use to anybody: what follows it in the bundle is taken instead.
    fn pass_over<F: NorFlash>(
        &mut self,
        now: Instant,
        role: Role,
        text: &str,
        why: Refusal,
        flash: &mut F,
    ) {
        let text = format!("patch for `{role}` is passed over: {text}");
        self.journal.log(now, Level::Warning, text);
        self.note_patched(Err(why), flash);
    }

    /// Whether anybody can use the patch; an error says what is wrong with it.
    fn use_of_patch(&self, role: &Role, header: &Header, size_bytes: u32) -> Result<bool, String> {
        let Some(conducting) = self.conducting() else { return Ok(false) };
        let (record, views) = (conducting.record, conducting.views);
        let whole = u64::from(header.body_bytes) + HEADER_BYTES as u64;
        if whole != u64::from(size_bytes) {
            return Err(format!("it has {size_bytes} bytes, its header says {whole}"));
        }
        let mut useful = false;
        for (seat, view) in record.seats.iter().zip(views) {
            if seat.role != *role || seat.part != Part::Update {
                continue;
            }
            if seat.target.0 != header.new || seat.size_bytes != header.new_bytes {
                let (makes, named) = (ImageHash(header.new), seat.target);
                return Err(format!("it makes image {makes}, the manifest names {named}"));
            }
            useful |= !has_staged(record, seat, view) && may_use(base_of(header), view);
        }
        Ok(useful)
    }

    /// All of a patch is in the other slot: it is offered, or given up if it is not what its header
    /// says.
    pub(super) fn end_patch<F: NorFlash>(
        &mut self,
        now: Instant,
        incoming: &Incoming,
        flash: &mut F,
    ) -> State {
        let Incoming { role, file, size_bytes, .. } = *incoming;
        match self.serve_patch(role, file, size_bytes, flash) {
            Ok(()) => State::Offering { role },
            Err(why) => {
                self.pass_over(now, role, &format!("{why}"), why, flash);
                State::Between
            }
        }
    }

    /// Verifies the spooled patch, and offers it from now on.
    pub(crate) fn serve_patch<F: NorFlash>(
        &mut self,
        role: Role,
        patch: Sha256,
        size_bytes: u32,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let mut front = [0; HEADER_BYTES];
        self.agent.spool_verify(flash)?;
        self.agent.spool_read(0, &mut front, flash)?;
        let header = Header::decode(&front).map_err(|_| Refusal::PatchBroken { offset: 0 })?;
        let (image, base) = (ImageHash(header.new), base_of(&header));
        let offer = Offer { image, base, patch, size_bytes };
        let (me, members) = (self.setup.id, self.others());
        let sender = self.sender_of(&patch, size_bytes, members);
        let Some(conducting) = self.conducting() else { return Err(Refusal::NotStaged) };
        let offers = Offers::new(offer, &role, me, conducting.record, conducting.views);
        if let Some(lead) = &mut self.lead {
            lead.serve_artifact(role, sender);
            lead.offers = Some(offers);
        }
        Ok(())
    }

    /// The part of a tick that concerns patches: they are offered again and again.
    pub(crate) fn offer_patch(&mut self, now: Instant) {
        let Some(lead) = &mut self.lead else { return };
        let (Some(rollout), Some(offers)) = (&lead.rollout, &mut lead.offers) else { return };
        for outgoing in offers.due(now, rollout.record(), rollout.views()) {
            let message = Message::Order(outgoing.ticket, outgoing.order);
            self.send_control(outgoing.to, message);
        }
    }

    /// A member that does not take the patch has said why.
    pub(crate) fn note_declined<F: NorFlash>(
        &mut self,
        now: Instant,
        from: DeviceId,
        why: Refusal,
        flash: &mut F,
    ) {
        let text = format!("{from} takes the whole image instead of the patch: {why}");
        let level = match why {
            // As it should be.
            Refusal::OtherBase { .. } | Refusal::PatchNotNeeded { .. } => Level::Info,
            _ => {
                self.note_patched(Err(why), flash);
                Level::Warning
            }
        };
        self.journal.log(now, level, text);
    }

    /// Once nobody waits for the patch any more it is this device's turn, if it is for its role;
    /// then comes what follows in the bundle.
    pub(super) fn go_on_behind_patch<F: NorFlash>(
        &mut self,
        now: Instant,
        upload: &mut Upload,
        flash: &mut F,
    ) {
        let Some(conducting) = self.conducting() else { return };
        match upload.state {
            State::Offering { role } => {
                let lead = self.lead.as_ref();
                let offers = lead.and_then(|lead| lead.offers.as_ref());
                let is_done =
                    offers.is_none_or(|offers| offers.is_done(conducting.record, conducting.views));
                if !is_done {
                    return;
                }
                let base = offers.and_then(|offers| offers.offer().base);
                let is_mine = role == self.setup.role
                    && base.is_none_or(|base| base == self.agent.running())
                    && lead.is_some_and(|lead| lead.have_staged(&role, self.setup.id));
                upload.state = match is_mine {
                    true => self.patch_own(now, flash),
                    false => State::Between,
                };
            }
            State::Patching => {
                let waits = !self.is_staging_own() || self.agent.is_patching();
                if !waits {
                    if let Some(lead) = &mut self.lead {
                        lead.may_patch_own = false;
                    }
                    self.note_patched_own(now, flash);
                    upload.state = State::Between;
                }
            }
            _ => {}
        }
    }

    /// What has become of this device's own patch.
    fn note_patched_own<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        let report = self.agent.report();
        if report.observed.staged {
            return self.note_patched(Ok(()), flash);
        }
        let why = report.refused.filter(|refused| refused.order == Offer::KIND).map(|it| it.why);
        let me = self.setup.id;
        self.note_declined(now, me, why.unwrap_or(Refusal::PatchBroken { offset: 0 }), flash);
    }

    /// This device makes its own image from the patch in its other slot: at once, if it was told to
    /// stage before; else as soon as it is.
    fn patch_own<F: NorFlash>(&mut self, now: Instant, flash: &mut F) -> State {
        if let Some(lead) = &mut self.lead {
            lead.stop_serving();
            lead.may_patch_own = true;
        }
        if self.is_staging_own() {
            self.agent.spool_end();
            self.agent.go_on_staging(now, flash);
        }
        State::Patching
    }
}

/// What a patch is for; `None`: whatever runs.
fn base_of(header: &Header) -> Option<ImageHash> {
    (header.format != Format::Full).then_some(ImageHash(header.old))
}
