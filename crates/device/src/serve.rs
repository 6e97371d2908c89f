//! What a lead serves to its members in blocks: the manifest package from its store, and the
//! artifact that lies in its other slot.

use alloc::vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::package::{PACKAGE_SIZE_BYTES_MAX, Package};
use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;
use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::coding::BLOCK_BYTES_MAX;
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::id::Sha256;
use lockstep_proto::manifest::{Signed, Trust, VerifiedManifest, verify};
use lockstep_proto::time::Instant;
use lockstep_rollout::Phase;
use lockstep_rollout::transfer::{Sender, Timing};

use crate::cut::ENTRY_CUT;
use crate::node::Node;
use crate::setup::Application;

impl<A: Application> Node<A> {
    /// Members fetch the package as soon as staging begins, and after every restart of the lead.
    pub(crate) fn serve_package<F: NorFlash>(&mut self, flash: &mut F) {
        let Some(lead) = &self.lead else { return };
        let Some(rollout) = &lead.rollout else { return };
        let record = rollout.record();
        let staging = record.phase == Phase::Staging && record.package_size_bytes > 0;
        let (package, size) = (record.package, u32::from(record.package_size_bytes));
        let is_served = lead.package.is_some();
        if staging == is_served {
            return;
        }
        let present = staging && self.with_package(flash, |_| ()).is_some();
        let members = self.others();
        let sender = present.then(|| self.sender_of(&package, size, members));
        if let Some(lead) = &mut self.lead {
            lead.package = sender;
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

    /// A sender for one object that nobody has asked for yet.
    pub(crate) fn sender_of(&mut self, file: &Sha256, size_bytes: u32, members: usize) -> Sender {
        let pace = self.setup.pace;
        let timing =
            Timing { slot_ms: ANSWER_SLOT_MS, answer_ms: pace.answer_ms, mend_ms: pace.mend_ms };
        let [low, high, ..] = self.draw().to_le_bytes();
        Sender::new(Session::of(&file.0), size_bytes, timing, u16::from_le_bytes([low, high]))
            .with_large(self.setup.takes_large, members)
    }

    /// How many devices beside this one the open rollout is about.
    pub(crate) fn others(&self) -> usize {
        let seats = self.lead.as_ref().and_then(|lead| lead.rollout.as_ref());
        seats.map_or(0, |rollout| rollout.record().seats.len().saturating_sub(1))
    }

    /// The next frame that members wait for: a block or some of them read from flash, or a
    /// question.
    pub(crate) fn next_block<F: NorFlash>(
        &mut self,
        now: Instant,
        buffer: &mut [u8; LARGE_FRAME_BYTES_MAX],
        flash: &mut F,
    ) -> Option<usize> {
        if let Some(len) = self.next_running_block(now, buffer, flash) {
            return Some(len);
        }
        let lead = self.lead.as_mut()?;
        let package = lead.package.as_mut().and_then(|sender| {
            next_frame_of(sender, now, &self.key, buffer, |offset, into| {
                self.agent.package_part(offset, into, flash)
            })
        });
        if package.is_some() {
            return package;
        }
        let (_, sender) = lead.artifact.as_mut()?;
        next_frame_of(sender, now, &self.key, buffer, |offset, into| {
            self.agent.spool_read(offset, into, flash).ok()
        })
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
        let (known, mut vouched) = (self.vouched.take(), None);
        let looked = self.with_package(flash, |bytes| {
            let package = Package::parse(bytes).ok()?;
            let manifest = known
                .and_then(|known| known.reopen(package.manifest, &trust))
                .or_else(|| verify(package.manifest, &package.signatures, &trust).ok())?;
            vouched = Some(Vouched::new(&manifest, trust));
            Some(look(&manifest))
        });
        self.vouched = vouched;
        looked?
    }
}

/// The next frame that a sender has due, with what `read` finds in flash at an offset; returns its
/// length in `buffer`.
pub(crate) fn next_frame_of(
    sender: &mut Sender,
    now: Instant,
    key: &GroupKey,
    buffer: &mut [u8; LARGE_FRAME_BYTES_MAX],
    read: impl FnMut(u32, &mut [u8]) -> Option<()>,
) -> Option<usize> {
    let due = sender.next_frame(now)?;
    let mut payload = [0; BLOCK_BYTES_MAX];
    let frame = due.frame(sender.session(), sender.cut(), &mut payload, read);
    frame?.encode(key, buffer).ok()
}

/// A manifest that this boot has verified, and by which keys: signatures cost a chip a tenth of a
/// second each, and the same manifest is looked at several times in a rollout.
#[derive(Debug)]
pub(crate) struct Vouched {
    manifest: Sha256,
    trust: Trust,
    signed: Signed,
}

impl Vouched {
    pub(crate) fn new(manifest: &VerifiedManifest<'_>, trust: Trust) -> Self {
        Self { manifest: manifest.digest(), trust, signed: manifest.signed() }
    }

    /// `None`: it is another manifest, or today's keys are others.
    fn reopen<'a>(&self, manifest: &'a [u8], trust: &Trust) -> Option<VerifiedManifest<'a>> {
        let is_known = self.trust == *trust;
        VerifiedManifest::reopen(manifest, &self.manifest, self.signed).ok().filter(|_| is_known)
    }
}

/// Between the turns of two members that answer: a frame of the least rate, with all that a chip
/// does about it, takes less.
const ANSWER_SLOT_MS: u8 = 3;

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use lockstep_proto::descriptor::Descriptor;
    use lockstep_proto::id::ImageHash;
    use lockstep_proto::image::{ChipId, Guard};
    use lockstep_proto::text::Name;
    use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
    use lockstep_proto::wire::Role;

    use super::*;
    use crate::bare::{BareImage, manifest_of};

    fn image() -> BareImage {
        let version = ReleaseVersion::new(1, 0, 0).expect("in range");
        let descriptor = Descriptor {
            product: Name::new("companion").expect("short"),
            role: Name::new("receiver").expect("short"),
            board: Name::new("desk-board").expect("short"),
            version,
            min_compatible: version,
            protocol: ProtocolRange::single(1),
            epoch: 0,
            config_schema: 1,
        };
        let (image, file) = (ImageHash([1; 32]), Sha256([2; 32]));
        let (role, chip) = (Role::new("receiver").expect("short"), ChipId::ESP32);
        let generations = "paWlpaWlpaU=".into();
        BareImage {
            descriptor,
            role,
            image,
            file,
            size_bytes: 10_000,
            chip,
            guard: Guard::default(),
            generations,
        }
    }

    #[test]
    fn a_manifest_is_judged_anew_when_it_or_the_keys_are_others() {
        let written = manifest_of(&image()).to_json().to_string();
        let manifest = written.as_bytes();
        let trust = Trust::anybody();
        let verified = verify(manifest, &[], &trust).expect("anybody is trusted");
        let vouched = Vouched::new(&verified, trust.clone());
        assert_eq!(vouched.reopen(manifest, &trust), Some(verified));
        assert_eq!(vouched.reopen(manifest, &trust.clone().allowing_unsigned()), None);
        let mut other = manifest.to_vec();
        other.push(b'\n');
        assert_eq!(vouched.reopen(&other, &trust), None);
    }
}
