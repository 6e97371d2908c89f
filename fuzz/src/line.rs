//! A serial line: packets, and whatever is between them.
//!
//! The fuzzer cannot guess a checksum, so the first byte says whether what follows is a line as it
//! is, or noise and payloads that the harness makes packets of.
//!
//! Promises: however a line is cut, the same packets are found, and the same is counted; what was
//! found is written again and read as the same; of packets whose sender was silent before, all
//! arrive, in order, whatever noise is between them, and nothing else does.

use lockstep_proto::id::DeviceId;
use lockstep_proto::line::{
    Before, LINE_BYTES_MAX, PAYLOAD_BYTES_MAX, Packet, PacketError, Reader, Strays,
};

use crate::memory;
use crate::stream::pieces;

/// First byte of an input: lengths of pieces, their number before them, and a line follow.
pub const LINE: u8 = 0;
/// First byte of an input: noise and payloads follow, each with its length before it, a payload's
/// in steps of 6 bytes.
pub const PACKETS: u8 = 1;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    memory::within(MEMORY_BYTES_MAX, || match choice % 2 {
        LINE => check_line(bytes),
        _ => check_packets(bytes),
    });
}

type Owned = (DeviceId, DeviceId, Vec<u8>);

fn check_line(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let (lengths, line) = rest.split_at(usize::from(count % 8).min(rest.len()));
    let whole = read([line].into_iter());
    assert_eq!(read(pieces(line, lengths)), whole, "cut by {lengths:?}");
    for (source, destination, payload) in whole.0 {
        let packet = Packet { source, destination, payload: &payload };
        let written = write(Before::Packet, &packet);
        let again = read([&written[..]].into_iter());
        assert_eq!(again, (vec![(source, destination, payload)], Strays::default()));
    }
}

fn check_packets(bytes: &[u8]) {
    let (mut rest, mut line, mut sent) = (bytes, Vec::new(), Vec::new());
    while let Some(noise) = part(&mut rest, 1) {
        line.extend_from_slice(noise);
        // Noise that was put together from other inputs may be packets.
        sent.extend(read([noise, &[0]].into_iter()).0);
        let Some(payload) = part(&mut rest, 6) else { break };
        let id = |salt: u8| DeviceId([salt, 0, 1, u8::try_from(sent.len()).unwrap_or(0), 0, salt]);
        let packet = Packet { source: id(2), destination: id(0xFF), payload };
        line.extend(write(Before::Silence, &packet));
        sent.push((packet.source, packet.destination, payload.to_vec()));
    }
    // What ends the last noise, if nothing followed it.
    line.push(0);
    let (found, _) = read([&line[..]].into_iter());
    assert_eq!(found, sent);
}

/// The next bytes, as many as the first byte says times `step`, of those that are left.
fn part<'a>(rest: &mut &'a [u8], step: usize) -> Option<&'a [u8]> {
    let (&length, behind) = rest.split_first()?;
    let (part, behind) = behind.split_at((usize::from(length) * step).min(behind.len()));
    *rest = behind;
    Some(&part[..part.len().min(PAYLOAD_BYTES_MAX)])
}

/// Into a buffer that is just as long, and before into one that is a byte too short.
fn write(before: Before, packet: &Packet<'_>) -> Vec<u8> {
    let mut buffer = [0; LINE_BYTES_MAX];
    let length = packet.encode(before, &mut buffer).expect("a packet fits");
    let mut tight = vec![0; length - 1];
    let error = PacketError::BufferTooShort { found_bytes: length - 1 };
    assert_eq!(packet.encode(before, &mut tight), Err(error));
    tight.push(0);
    assert_eq!(packet.encode(before, &mut tight), Ok(length));
    assert_eq!(tight, buffer[..length]);
    tight
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Owned>, Strays) {
    let (mut reader, mut found) = (Reader::new(), Vec::new());
    for mut piece in pieces {
        while let Some(packet) = reader.read(&mut piece) {
            assert!(packet.payload.len() <= PAYLOAD_BYTES_MAX);
            found.push((packet.source, packet.destination, packet.payload.to_vec()));
        }
    }
    (found, reader.strays())
}

const MEMORY_BYTES_MAX: usize = 256 * 1024;
