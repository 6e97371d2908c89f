//! Entry points of `lockstep-proto`: what a chip reads, checks and answers.

use core::hint::black_box;

use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::frame::block::BlockFrame;
use lockstep_proto::frame::control::{ControlFrame, GroupKey};
use lockstep_proto::frame::version::VersionFrame;
use lockstep_proto::image::{self, ImageReader};
use lockstep_proto::manifest::{self, Trust};
use lockstep_proto::otadata::{self, OtaEntry, OtaState};
use lockstep_proto::partition::PartitionTable;

/// Everything here, with bytes that the compiler knows nothing about.
pub fn run(bytes: &[u8]) {
    release(bytes);
    image(bytes);
    flash(bytes);
    frames(bytes);
}

#[inline(never)]
fn release(bytes: &[u8]) {
    let Ok(trust) = Trust::decode(bytes) else { return };
    let _ = black_box(manifest::verify(bytes, &[bytes], &trust));
}

#[inline(never)]
fn image(bytes: &[u8]) {
    let mut reader = ImageReader::new();
    let _ = black_box(reader.push(bytes));
    let _ = black_box(reader.finish());
    let read = |_: u32, out: &mut [u8]| {
        out.fill(black_box(0));
        black_box(Ok::<(), ()>(()))
    };
    let _ = black_box(image::read_image(black_box(0), read));
    let _ = black_box(image::quick_hash(black_box(0), read));
}

#[inline(never)]
fn flash(bytes: &[u8]) {
    let _ = black_box(PartitionTable::parse(bytes));
    let [a, b] = black_box([OtaEntry::decode(&[0; _]), None]);
    let next = otadata::active(a, b)
        .and_then(|(_, entry)| otadata::next_seq(Some(entry.seq), black_box(1), black_box(2)));
    let _ = black_box(next.map(|seq| OtaEntry::new(seq, OtaState::New).encode()));
}

#[inline(never)]
fn frames(bytes: &[u8]) {
    let key = GroupKey::new(black_box([0; 32]));
    let mut buffer = [0; FRAME_BYTES_MAX];
    if let Ok(frame) = black_box(ControlFrame::decode(&key, bytes)) {
        let _ = black_box(frame.encode(&key, &mut buffer));
    }
    if let Ok(block) = black_box(BlockFrame::decode(&key, bytes)) {
        let _ = black_box(block.encode(&key, &mut buffer));
    }
    if let Ok(frame) = black_box(VersionFrame::decode(bytes)) {
        let _ = black_box(frame.encode(&mut buffer));
    }
}
