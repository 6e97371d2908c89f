//! What becomes of an artifact that begins to come.

use alloc::format;

use embedded_storage::nor_flash::NorFlash;
use lockstep_proto::bundle::ResumePoint;
use lockstep_proto::wire::Role;
use lockstep_rollout::Part;
use lockstep_rollout::offers::has_staged;

use super::{Incoming, UploadError, Way, bad_artifact};
use crate::cut::{Cut, ENTRY_CUT};
use crate::node::Node;
use crate::setup::Application;

impl<A: Application> Node<A> {
    pub(super) fn begin_artifact<F: NorFlash>(
        &mut self,
        role: &str,
        size_bytes: u32,
        resume: ResumePoint,
        bundle_bytes: u32,
        flash: &mut F,
    ) -> Result<Incoming, UploadError> {
        let role = role_of(role)?;
        let file = self
            .with_manifest(flash, |manifest| {
                manifest.entry(role.as_str()).and_then(|entry| entry.sha256)
            })
            .flatten()
            .ok_or(UploadError::Storage)?;
        let way = self.way_of(&role)?;
        // Bytes that are in flash already are taken again, and dropped.
        let point = resume;
        let incoming = Incoming { role, file, size_bytes, offset_bytes: 0, way, point };
        if way == Way::Spool {
            if let Some(lead) = &mut self.lead {
                lead.stop_serving();
            }
            self.agent
                .spool_begin(file, size_bytes, flash)
                .map_err(|why| bad_artifact(role, why))?;
        }
        if let (Way::Own, Some(lead)) = (way, &mut self.lead) {
            lead.stop_serving();
        }
        if way != Way::Skip {
            self.note_cut(&incoming, bundle_bytes, flash)?;
        }
        Ok(incoming)
    }

    /// Where the upload goes on after a restart.
    pub(super) fn note_cut<F: NorFlash>(
        &mut self,
        incoming: &Incoming,
        bundle_bytes: u32,
        flash: &mut F,
    ) -> Result<(), UploadError> {
        let cut = Cut {
            point: incoming.point,
            size_bytes: bundle_bytes,
            role: incoming.role,
            file: incoming.file,
            artifact_bytes: incoming.size_bytes,
        };
        if let Some(lead) = &mut self.lead {
            lead.cut = Some(cut);
        }
        match self.write_entry(ENTRY_CUT, &cut.encode(), flash) {
            true => Ok(()),
            false => Err(UploadError::Storage),
        }
    }

    pub(crate) fn way_of(&self, role: &Role) -> Result<Way, UploadError> {
        let Some(conducting) = self.conducting() else { return Err(UploadError::NotBegun) };
        let (record, views) = (conducting.record, conducting.views);
        let needed = record.seats.iter().zip(views).any(|(seat, view)| {
            let is_asked = seat.part == Part::Update && seat.role == *role;
            is_asked && !has_staged(record, seat, view)
        });
        if !needed {
            return Ok(Way::Skip);
        }
        if *role != self.setup.role {
            return Ok(Way::Spool);
        }
        // The lead's own image stays in the other slot, so it must be the last.
        let lead = self.lead.as_ref().ok_or(UploadError::NotTheLead)?;
        let (me, mut others) = (self.setup.id, conducting.record.seats.iter());
        match others.find(|seat| seat.role != *role && !lead.have_staged(&seat.role, me)) {
            None if lead.have_staged(role, me) => Ok(Way::Own),
            // Others of this role fetch it from there before it is taken for this device's own.
            None => Ok(Way::Spool),
            Some(seat) => Err(UploadError::BadBundle(format!(
                "artifact of the lead's role `{role}` comes before that of `{}`",
                seat.role
            ))),
        }
    }
}

pub(super) fn role_of(name: &str) -> Result<Role, UploadError> {
    Role::new(name).ok_or_else(|| UploadError::BadBundle(format!("role `{name}` is too long")))
}
