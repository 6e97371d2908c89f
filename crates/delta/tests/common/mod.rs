//! A device's side of a patch: where its bytes come from, and the slot that it is applied in.

use std::convert::Infallible;

use lockstep_delta::{Apply, HEADER_BYTES, Header, Input};

/// Whose size the header says, and which no patch may go beyond.
pub(crate) struct Watched<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) old: &'a [u8],
}

impl Input for Watched<'_> {
    type Error = Infallible;

    fn body(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Infallible> {
        into.copy_from_slice(&self.body[offset as usize..][..into.len()]);
        Ok(())
    }

    fn old(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Infallible> {
        into.copy_from_slice(&self.old[offset as usize..][..into.len()]);
        Ok(())
    }
}

/// The slot's end is the patch, its start becomes the image, a page at a time: in as much room as
/// the patch says that it needs.
#[track_caller]
pub(crate) fn assert_fits_its_room(old: &[u8], new: &[u8], patch: &[u8]) {
    let header = Header::decode(patch).unwrap();
    let room = header.room_bytes as usize;
    assert!(room >= new.len() && room <= new.len() + patch.len());
    let mut slot = vec![0xFF; room];
    let body_at = room - header.body_bytes as usize;
    slot[body_at..].copy_from_slice(&patch[HEADER_BYTES..]);
    let mut apply = Apply::new(header);
    let mut piece = [0; 256];
    loop {
        let at = apply.made_bytes() as usize;
        let body = slot[body_at..].to_vec();
        let made = apply.pull(&mut Watched { body: &body, old }, &mut piece).unwrap();
        if made == 0 {
            break;
        }
        let unread_at = body_at + apply.taken_bytes() as usize;
        assert!(at + made <= unread_at, "{at} + {made} reaches into {unread_at}");
        slot[at..at + made].copy_from_slice(&piece[..made]);
    }
    assert_eq!(slot[..new.len()], new[..]);
}
