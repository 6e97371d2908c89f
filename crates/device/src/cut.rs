//! A cut upload: what survives a restart of the lead, and how it goes on.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::Agent;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::bundle::{BundleReader, RESUME_POINT_BYTES, ResumePoint};
use lockstep_proto::id::Sha256;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Reader, Role};
use lockstep_rollout::Phase;

use crate::node::{Node, read_entry};
use crate::setup::Application;
use crate::upload::{Incoming, State, Upload, UploadError, Way};

/// A cut upload, as the record remembers it over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) point: ResumePoint,
    pub(crate) size_bytes: u32,
    pub(crate) role: Role,
    pub(crate) file: Sha256,
    pub(crate) artifact_bytes: u32,
}

impl Cut {
    pub(crate) fn read<F: NorFlash>(agent: &Agent, flash: &mut F) -> Option<Self> {
        Self::decode(&read_entry::<F, CUT_BYTES>(agent, flash, ENTRY_CUT)?)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            point: ResumePoint::from_bytes(&reader.array().ok()?),
            size_bytes: reader.u32().ok()?,
            role: Role::from_bytes(reader.array().ok()?)?,
            file: Sha256(reader.array().ok()?),
            artifact_bytes: reader.u32().ok()?,
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CUT_BYTES);
        bytes.extend_from_slice(&self.point.to_bytes());
        bytes.extend_from_slice(&self.size_bytes.to_le_bytes());
        bytes.extend_from_slice(self.role.bytes());
        bytes.extend_from_slice(&self.file.0);
        bytes.extend_from_slice(&self.artifact_bytes.to_le_bytes());
        bytes
    }
}

impl<A: Application> Node<A> {
    /// After a restart of the lead its own agent, or its spool, knows how far the artifact came.
    pub(crate) fn reopen<F: NorFlash>(
        &mut self,
        now: Instant,
        cut: Cut,
        flash: &mut F,
    ) -> Result<(), UploadError> {
        let way = self.way_of_cut(&cut)?;
        let offset_bytes = cut.point.offset_bytes();
        let point = cut.point;
        let reader = self
            .with_manifest(flash, |manifest| {
                BundleReader::resume_at(manifest, point, cut.artifact_bytes)
            })
            .ok_or(UploadError::NothingToContinue)?
            .map_err(|error| UploadError::BadBundle(format!("{error}")))?;
        let incoming = Incoming {
            role: cut.role,
            file: cut.file,
            size_bytes: cut.artifact_bytes,
            offset_bytes,
            way,
            point: point.with_offset(0),
        };
        // All of it may be there already: then what comes next is decided as if it had just come.
        let state = match offset_bytes == cut.artifact_bytes {
            true => self.end_artifact(now, &incoming, flash)?,
            false => State::Artifact(incoming),
        };
        let rollout = self.open_rollout_id();
        if let Some(lead) = &mut self.lead {
            lead.upload = Some(Upload {
                reader: Box::new(reader),
                at: point.bundle_offset().unwrap_or_default(),
                size_bytes: cut.size_bytes,
                rollout,
                state,
                waiting: Vec::new(),
            });
        }
        Ok(())
    }

    /// The lead's own artifact was only begun when other roles had staged: what they say now comes
    /// later than the sender, and is not waited for. Others of its own role fetch it before the
    /// lead is told to stage it, and the record says whether it was.
    fn way_of_cut(&self, cut: &Cut) -> Result<Way, UploadError> {
        if cut.role != self.setup.role {
            return self.way_of(&cut.role);
        }
        let lead = self.lead.as_ref().ok_or(UploadError::NotTheLead)?;
        // A patch is looked at once more before this device takes it for its own.
        let others_have = !cut.point.is_patch() && lead.have_staged(&cut.role, self.setup.id);
        let is_own = self.is_staging_own() || others_have;
        Ok(if is_own { Way::Own } else { Way::Spool })
    }

    /// After a restart within staging: how far did the artifact come that was on its way?
    pub(crate) fn serve_spooled_after_restart<F: NorFlash>(&mut self, flash: &mut F) {
        let Some(lead) = &self.lead else { return };
        let staging =
            lead.rollout.as_ref().is_some_and(|rollout| rollout.record().phase == Phase::Staging);
        let Some(cut) = lead.cut.filter(|_| staging && lead.upload.is_none()) else { return };
        if cut.point.offset_bytes() != 0 {
            return;
        }
        let Ok(way) = self.way_of_cut(&cut) else { return };
        let (file, size_bytes, is_patch) = (cut.file, cut.artifact_bytes, cut.point.is_patch());
        let offset = match way {
            Way::Spool if is_patch => self.agent.spool_patch_begin(file, size_bytes, flash).ok(),
            Way::Spool => self.agent.spool_begin(file, size_bytes, flash).ok(),
            // What has become of it is its own business: the bundle goes on behind it.
            Way::Own if is_patch => Some(size_bytes),
            Way::Own => Some(self.agent.report().staged_bytes),
            Way::Skip | Way::Unknown => None,
        };
        let Some(offset) = offset.filter(|&offset| offset > 0) else { return };
        if is_patch {
            if let Some(lead) = &mut self.lead {
                lead.cut = Some(Cut { point: cut.point.with_offset(offset), ..cut });
            }
            if way == Way::Spool && offset == size_bytes {
                // What is wrong with it is said when the upload goes on.
                let _ = self.serve_patch(cut.role, file, size_bytes, flash);
            }
            return;
        }
        let is_whole = way == Way::Spool
            && offset == cut.artifact_bytes
            && self.agent.spool_verify(flash).is_ok();
        let members = self.others();
        let sender = self.sender_of(&cut.file, cut.artifact_bytes, members);
        if let Some(lead) = &mut self.lead {
            lead.cut = Some(Cut { point: cut.point.with_offset(offset), ..cut });
            if is_whole {
                lead.serve_artifact(cut.role, sender);
            }
        }
    }
}

/// The record's entry of a cut upload: resume point 10, bundle size u32, role 16, file SHA-256 32,
/// artifact size u32.
pub(crate) const ENTRY_CUT: Entry = Entry::CUT;
/// The size of an upload of which all is in flash already: a bare image that is being installed.
pub(crate) const NOTHING_MISSING: u32 = 0;
const CUT_BYTES: usize = RESUME_POINT_BYTES + 4 + 16 + 32 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Leads in the field have this in their flash.
    #[test]
    fn the_bytes_of_a_cut_upload_are_frozen() {
        let cut = Cut {
            point: ResumePoint::from_bytes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            size_bytes: 0x0102_0304,
            role: Role::new("receiver").unwrap(),
            file: Sha256([0xCD; 32]),
            artifact_bytes: 0x0506_0708,
        };
        let mut frozen = alloc::vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 4, 3, 2, 1];
        frozen.extend(b"receiver\0\0\0\0\0\0\0\0");
        frozen.extend([0xCD; 32]);
        frozen.extend([8, 7, 6, 5]);
        assert_eq!(cut.encode(), frozen);
        assert_eq!(Cut::decode(&frozen), Some(cut));
        assert_eq!(Cut::decode(&frozen[..60]), None);
    }
}
