//! What a lead serves to its members in blocks: the manifest package from its store, and the
//! artifact that lies in its other slot.

use alloc::vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::package::{PACKAGE_SIZE_BYTES_MAX, Package};
use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::frame::block::{BLOCK_BYTES, Block, Session};
use lockstep_proto::manifest::{VerifiedManifest, verify};
use lockstep_proto::time::Instant;
use lockstep_rollout::Phase;
use lockstep_rollout::transfer::Sender;

use crate::cut::ENTRY_CUT;
use crate::node::Node;
use crate::setup::Application;

impl<A: Application> Node<A> {
    /// Members fetch the package as soon as staging begins, and after every restart of the lead.
    pub(crate) fn serve_package<F: NorFlash>(&mut self, flash: &mut F) {
        let answer_ms = self.setup.pace.answer_ms;
        let Some(lead) = &self.lead else { return };
        let Some(rollout) = &lead.rollout else { return };
        let record = rollout.record();
        let staging = record.phase == Phase::Staging && record.package_size_bytes > 0;
        let (package, size) = (record.package, u32::from(record.package_size_bytes));
        let is_served = lead.package.is_some();
        if staging == is_served {
            return;
        }
        let sender = || Sender::new(Session::of(&package.0), size, answer_ms);
        let present = staging && self.with_package(flash, |_| ()).is_some();
        if let Some(lead) = &mut self.lead {
            lead.package = present.then(sender);
        }
    }

    /// The transfer is over: nothing is served, and a cut upload is not waited for any more.
    pub(crate) fn end_transfer<F: NorFlash>(&mut self, flash: &mut F) {
        let had_cut = self.lead.as_ref().is_some_and(|lead| lead.cut.is_some());
        if let Some(lead) = &mut self.lead {
            lead.artifact = None;
            lead.package = None;
            lead.cut = None;
        }
        if had_cut {
            self.write_entry(ENTRY_CUT, &[], flash);
        }
    }

    /// The next block that a member waits for, read from flash and framed.
    pub(crate) fn next_block<F: NorFlash>(
        &mut self,
        now: Instant,
        buffer: &mut [u8; FRAME_BYTES_MAX],
        flash: &mut F,
    ) -> Option<usize> {
        let lead = self.lead.as_mut()?;
        let mut payload = [0; BLOCK_BYTES];
        if let Some((due, session)) = lead
            .package
            .as_mut()
            .and_then(|sender| Some((sender.next_block(now)?, sender.session())))
        {
            let from = usize::try_from(due.offset_bytes).ok()?;
            let payload = payload.get_mut(..due.len_bytes)?;
            self.with_package(flash, |package| {
                let bytes = package.get(from..from.saturating_add(payload.len()))?;
                payload.copy_from_slice(bytes);
                Some(())
            })??;
            let block = Block { session, index: due.index, then: due.then, payload };
            return block.encode(&self.setup.group_key, buffer).ok();
        }
        let (_, sender) = lead.artifact.as_mut()?;
        let (due, session) = (sender.next_block(now)?, sender.session());
        let payload = payload.get_mut(..due.len_bytes)?;
        self.agent.spool_read(due.offset_bytes, payload, flash).ok()?;
        let block = Block { session, index: due.index, then: due.then, payload };
        block.encode(&self.setup.group_key, buffer).ok()
    }

    /// Looks at the stored package, which the agent has checked against its digest.
    pub(crate) fn with_package<F: NorFlash, T>(
        &mut self,
        flash: &mut F,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let mut buffer = vec![0; PACKAGE_SIZE_BYTES_MAX];
        self.agent.package(flash, &mut buffer).map(look)
    }

    /// Looks at the stored manifest. It was verified when it was stored, and is what the package's
    /// digest covers; who vouches for it is judged again by the keys of today.
    pub(crate) fn with_manifest<F: NorFlash, T>(
        &mut self,
        flash: &mut F,
        look: impl FnOnce(&VerifiedManifest<'_>) -> T,
    ) -> Option<T> {
        let trust = self.agent.trust().clone();
        self.with_package(flash, |bytes| {
            let package = Package::parse(bytes).ok()?;
            let manifest = verify(package.manifest, &package.signatures, &trust);
            manifest.ok().map(|manifest| look(&manifest))
        })?
    }
}
