//! Packets on a serial line: their bytes as chips with this firmware read them, and what a reader
//! makes of everything else.
//!
//! A changed line in the golden file is a broken protocol. `UPDATE_GOLDEN=1 cargo test -p
//! lockstep-proto --test line` writes it anew.

use std::fmt::Write;

use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;
use lockstep_proto::id::DeviceId;
use lockstep_proto::line::{
    Before, LINE_BYTES_MAX, PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX, Packet, PacketError, Reader,
    Strays,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LEAD: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
const MEMBER: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);

/// A packet that owns its payload.
type Owned = (DeviceId, DeviceId, Vec<u8>);

fn owned(packet: Packet<'_>) -> Owned {
    (packet.source, packet.destination, packet.payload.to_vec())
}

fn packet((source, destination, payload): &Owned) -> Packet<'_> {
    Packet { source: *source, destination: *destination, payload }
}

fn line(before: Before, packet: &Packet<'_>) -> Vec<u8> {
    let mut buffer = [0xEE; LINE_BYTES_MAX];
    let length = packet.encode(before, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

/// What a reader finds in these pieces of a line.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Owned>, Strays) {
    let (mut reader, mut found) = (Reader::new(), Vec::new());
    for mut piece in pieces {
        while let Some(packet) = reader.read(&mut piece) {
            found.push(owned(packet));
        }
    }
    (found, reader.strays())
}

#[test]
fn the_bytes_of_packets_are_frozen() {
    let long: Vec<u8> = (1..=255).cycle().take(300).collect();
    let cases: [(&str, DeviceId, Before, &[u8]); 6] = [
        ("after silence", DeviceId::BROADCAST, Before::Silence, &[0x01, 0x02, 0x03]),
        ("after a packet", DeviceId::BROADCAST, Before::Packet, &[0x01, 0x02, 0x03]),
        ("without payload", LEAD, Before::Packet, &[]),
        ("of zeros", LEAD, Before::Packet, &[0; 9]),
        ("whose run is full", DeviceId([0x11; 6]), Before::Packet, &[0xAA; 260]),
        ("that is long", LEAD, Before::Packet, &long),
    ];
    let mut text = String::new();
    for (name, destination, before, payload) in cases {
        let packet = Packet { source: MEMBER, destination, payload };
        let bytes = line(before, &packet);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{hex} {name}").unwrap();
        assert_eq!(read([&bytes[..]]), (vec![owned(packet)], Strays::default()), "{name}");
    }
    golden("line-packets.txt", &text);
}

/// The bound that buffers are made by is reached, and never passed.
#[test]
fn the_longest_packet_fits_into_the_longest_line() {
    let payload = [0xFF; PAYLOAD_BYTES_MAX];
    let all_ones = DeviceId([0xFF; 6]);
    let packet = Packet { source: all_ones, destination: all_ones, payload: &payload };
    let mut buffer = [0; LINE_BYTES_MAX];
    let length = packet.encode(Before::Silence, &mut buffer).unwrap();
    assert!((LINE_BYTES_MAX - 1..=LINE_BYTES_MAX).contains(&length), "{length} bytes");
    let longer = [0; PAYLOAD_BYTES_MAX + 1];
    let error = Packet { payload: &longer, ..packet }.encode(Before::Packet, &mut buffer);
    assert_eq!(error, Err(PacketError::PayloadTooLong { found_bytes: PAYLOAD_BYTES_MAX + 1 }));
    const { assert!(PAYLOAD_BYTES_MAX >= LARGE_FRAME_BYTES_MAX) }
}

#[test]
fn a_buffer_that_is_too_short_is_refused_whatever_its_length() {
    let packet = Packet { source: LEAD, destination: MEMBER, payload: &[0, 1, 2, 0] };
    for before in [Before::Packet, Before::Silence] {
        let needed = line(before, &packet).len();
        for found_bytes in 0..needed {
            let error = packet.encode(before, &mut vec![0; found_bytes]);
            assert_eq!(error, Err(PacketError::BufferTooShort { found_bytes }));
        }
        assert_eq!(packet.encode(before, &mut vec![0; needed]), Ok(needed));
    }
}

/// Each cause is told apart, and the packet behind it is found.
#[test]
fn what_is_no_packet_is_counted_by_its_cause() {
    let good = Packet { source: LEAD, destination: MEMBER, payload: b"here" };
    let bytes = line(Before::Packet, &good);
    let stuffed = |content: &[u8]| [&cobs_of(content)[..], &[0]].concat();
    let mut later = vec![2];
    later.extend([1; 12]);
    later.extend(crc_of(&later));
    let mut wrong = line(Before::Packet, &good);
    let last = wrong.len() - 2;
    wrong[last] ^= 4;
    let none = Strays::default();
    let text = b"rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n\0";
    let cases: [(&str, Vec<u8>, Strays); 7] = [
        ("text", text.to_vec(), Strays { stuffing: 1, ..none }),
        (
            "a cut packet",
            [&bytes[..bytes.len() - 3], &[0]].concat(),
            Strays { stuffing: 1, ..none },
        ),
        ("a short one", stuffed(&[1; 16]), Strays { too_short: 1, ..none }),
        ("a long one", stuffed(&[7; PACKET_BYTES_MAX + 1]), Strays { too_long: 1, ..none }),
        ("a wrong sum", wrong, Strays { crc: 1, ..none }),
        ("a later version", stuffed(&later), Strays { version: 1, ..none }),
        ("ends alone", vec![0; 40], none),
    ];
    for (name, before, strays) in cases {
        let found = read([&before[..], &bytes[..]]);
        assert_eq!(found, (vec![owned(good)], strays), "{name}");
    }
}

/// Where a line broke off, what comes over the next one is not glued to it.
#[test]
fn half_a_packet_of_another_line_is_forgotten() {
    let good = Packet { source: LEAD, destination: MEMBER, payload: b"whole" };
    let bytes = line(Before::Packet, &good);
    let mut reader = Reader::new();
    assert_eq!(reader.read(&mut &bytes[..8]), None);
    reader.forget();
    assert_eq!(reader.read(&mut &bytes[..]), Some(good));
}

fn cobs_of(content: &[u8]) -> Vec<u8> {
    // By hand, not by the crate that is used: a zero becomes the distance to the next one.
    let mut out = Vec::new();
    let mut run: Vec<u8> = Vec::new();
    let flush = |out: &mut Vec<u8>, run: &mut Vec<u8>| {
        out.push(u8::try_from(run.len() + 1).unwrap());
        out.append(run);
    };
    for &byte in content {
        if byte != 0 {
            run.push(byte);
        }
        if byte == 0 || run.len() == 254 {
            flush(&mut out, &mut run);
        }
    }
    flush(&mut out, &mut run);
    out
}

/// As in zlib, bit by bit.
fn crc_of(bytes: &[u8]) -> [u8; 4] {
    let sum = bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg())
        })
    });
    (!sum).to_le_bytes()
}

fn golden(name: &str, actual: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{path} differs; frozen bytes:\n{expected}\nnow:\n{actual}");
}

fn any_packet() -> impl Strategy<Value = Owned> {
    // Zeros and full runs are what stuffing is about.
    let byte = prop_oneof![Just(0), Just(0xFF), any::<u8>()];
    let payload = prop_oneof![
        8 => vec(byte, 0..300),
        1 => vec(1..=255u8, 230..270),
        1 => vec(any::<u8>(), 1_400..=PAYLOAD_BYTES_MAX),
    ];
    (any::<[u8; 6]>(), any::<[u8; 6]>(), payload).prop_map(|(source, destination, payload)| {
        (DeviceId(source), DeviceId(destination), payload)
    })
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => vec(any::<u8>(), 0..200),
        1 => "[ -~\r\n]{0,300}".prop_map(String::into_bytes),
        1 => vec(1..=255u8, 1_400..1_700),
    ]
}

/// Cuts a line into pieces of these lengths, over and over.
fn pieces<'a>(mut line: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle() {
        if line.is_empty() {
            break;
        }
        let (piece, rest) = line.split_at(length.min(line.len()));
        pieces.push(piece);
        line = rest;
    }
    pieces
}

proptest! {
    /// Whatever stands between packets and however the line is cut: a sender that was silent
    /// begins with a zero, and then every packet arrives, in order, and nothing else does.
    #[test]
    fn noise_between_packets_hides_none_of_them(
        packets in vec((noise(), any_packet()), 1..6),
        lengths in vec(1usize..400, 1..5),
    ) {
        let mut bytes = Vec::new();
        let mut was_quiet = false;
        for (noise, owned) in &packets {
            bytes.extend_from_slice(noise);
            let before = match was_quiet && noise.is_empty() {
                true => Before::Packet,
                false => Before::Silence,
            };
            bytes.extend(line(before, &packet(owned)));
            was_quiet = true;
        }
        let sent: Vec<Owned> = packets.into_iter().map(|(_, owned)| owned).collect();
        let (whole, strays) = read([&bytes[..]]);
        prop_assert_eq!(&whole, &sent);
        let (cut, same) = read(pieces(&bytes, &lengths));
        prop_assert_eq!((&cut, same), (&sent, strays));
        let mut reader = Reader::new();
        let single: Vec<Owned> =
            bytes.iter().filter_map(|&byte| reader.push(byte).map(owned)).collect();
        prop_assert_eq!((&single, reader.strays()), (&sent, strays));
    }

    /// Damage costs the packet that it hits and the one that is glued to it, and makes no other.
    #[test]
    fn a_flipped_bit_never_makes_another_packet(
        packets in vec(any_packet(), 3),
        at in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        let lines: Vec<_> =
            packets.iter().map(|owned| line(Before::Packet, &packet(owned))).collect();
        let mut bytes = lines.concat();
        let at = at.index(lines[0].len());
        bytes[at] ^= 1 << bit;
        let (found, strays) = read([&bytes[..]]);
        prop_assert!(found == packets[1..] || found == packets[2..], "{} of 3", found.len());
        prop_assert!(strays.total() > 0);
    }

    #[test]
    fn no_bytes_make_a_reader_panic_or_a_packet_that_is_too_long(
        bytes in vec(prop_oneof![3 => any::<u8>(), 1 => Just(0)], 0..4_000),
    ) {
        let mut reader = Reader::new();
        for &byte in &bytes {
            if let Some(packet) = reader.push(byte) {
                prop_assert!(packet.payload.len() <= PAYLOAD_BYTES_MAX);
            }
        }
    }
}
