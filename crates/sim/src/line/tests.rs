//! What a bridge passes on and what it does not: a line on an air with real radios, and a test at
//! the other end of its port.
//!
//! That nothing came is never waited for: something that has to come after it is.

use std::path::PathBuf;
use std::process;

use lockstep_proto::line::{Before, LINE_BYTES_MAX, Packet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::radio::{Impairments, PAYLOAD_BYTES_MAX, Radio};

const HOST: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
const DESK: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);
const ALL: DeviceId = DeviceId::BROADCAST;

const fn guest(number: u8) -> DeviceId {
    DeviceId([2, 0, 0, 0, 1, number])
}

/// From whom, for whom, what.
type Said = (DeviceId, DeviceId, Vec<u8>);

/// A device with a line, another one on its air, and where its line ends.
struct Bench {
    folder: PathBuf,
    host: Radio,
    desk: Radio,
    line: Line,
    address: SocketAddr,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lockstep-line-{}-{name}", process::id()));
        let host = Radio::join(&folder, HOST, Impairments::default()).unwrap();
        let desk = Radio::join(&folder, DESK, Impairments::default()).unwrap();
        let place = "tcp-listen:127.0.0.1:0".parse().unwrap();
        let mut line = Line::open(&place, &folder, HOST, Channel::FIRST).unwrap();
        let waits = line.news().await.text;
        let address = waits.rsplit(' ').next().unwrap().parse().unwrap();
        Self { folder, host, desk, line, address }
    }

    async fn plug_in(&mut self) -> Far {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let news = self.line.news().await;
        assert!(news.text.ends_with("is open"), "{}", news.text);
        Far { stream, reader: Reader::new() }
    }

    /// A guest that is known to everybody, and has heard so.
    async fn guest(&self, far: &mut Far, id: DeviceId) {
        far.say(id, ALL, b"here").await;
        assert_eq!(heard(&self.desk).await, (id, ALL, b"here".to_vec()));
        assert_eq!(heard(&self.host).await, (id, ALL, b"here".to_vec()));
        // Who is on the air is looked up every half second.
        loop {
            self.desk.try_send(id, b"welcome").unwrap();
            tokio::select! {
                said = far.hears() => {
                    assert_eq!(said, (DESK, id, b"welcome".to_vec()));
                    return;
                }
                () = tokio::time::sleep(Duration::from_millis(100)) => (),
            }
        }
    }

    /// All that the far end has heard once it hears this, for this guest.
    async fn heard_before(&self, far: &mut Far, id: DeviceId, last: &[u8]) -> Vec<Said> {
        self.desk.try_send(id, last).unwrap();
        let mut all = Vec::new();
        loop {
            let said = far.hears().await;
            if said == (DESK, id, last.to_vec()) {
                all.retain(|(_, _, payload)| payload != b"welcome");
                return all;
            }
            all.push(said);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The other end of a line.
struct Far {
    stream: TcpStream,
    reader: Reader,
}

impl Far {
    async fn say(&mut self, source: DeviceId, destination: DeviceId, payload: &[u8]) {
        let mut bytes = [0; LINE_BYTES_MAX];
        let packet = Packet { source, destination, payload };
        let length = packet.encode(Before::Silence, &mut bytes).unwrap();
        self.stream.write_all(&bytes[..length]).await.unwrap();
    }

    /// Byte by byte, so that nothing is lost when nobody waits any more.
    async fn hears(&mut self) -> Said {
        loop {
            let byte = self.stream.read_u8().await.unwrap();
            if let Some(packet) = self.reader.push(byte) {
                return (packet.source, packet.destination, packet.payload.to_vec());
            }
        }
    }
}

async fn heard(radio: &Radio) -> Said {
    let mut payload = [0; PAYLOAD_BYTES_MAX];
    let received = radio.recv(&mut payload).await.unwrap();
    (received.source, received.destination, payload[..received.length_bytes].to_vec())
}

fn on_a_desk(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    let limited = async {
        tokio::time::timeout(TEST_MAX, test).await.expect("something did not come");
    };
    runtime.block_on(tasks.run_until(limited));
}

#[test]
fn a_device_behind_the_line_is_on_the_air() {
    on_a_desk(async {
        let mut bench = Bench::new("guest").await;
        let mut far = bench.plug_in().await;
        bench.guest(&mut far, guest(1)).await;
        // The device that has the line speaks over it without a detour, and not to others.
        bench.line.send(ALL, b"to all");
        bench.line.send(DESK, b"to the desk");
        bench.line.send(guest(1), b"to you");
        let said = bench.heard_before(&mut far, guest(1), b"last").await;
        let expected = [(HOST, ALL, b"to all".to_vec()), (HOST, guest(1), b"to you".to_vec())];
        assert_eq!(said, expected);
        far.say(guest(1), DESK, b"for one").await;
        far.say(guest(1), ALL, b"for all").await;
        assert_eq!(heard(&bench.host).await, (guest(1), ALL, b"for all".to_vec()));
    });
}

/// Before anybody has spoken over the line somebody has to begin.
#[test]
fn the_device_is_heard_over_the_line_before_it_has_a_guest() {
    on_a_desk(async {
        let mut bench = Bench::new("begins").await;
        let mut far = bench.plug_in().await;
        bench.line.send(ALL, b"anybody?");
        assert_eq!(far.hears().await, (HOST, ALL, b"anybody?".to_vec()));
    });
}

#[test]
fn a_broadcast_goes_out_once_and_what_guests_say_does_not() {
    on_a_desk(async {
        let mut bench = Bench::new("once").await;
        let mut far = bench.plug_in().await;
        bench.guest(&mut far, guest(1)).await;
        bench.guest(&mut far, guest(2)).await;
        bench.desk.try_send(ALL, b"to all").unwrap();
        far.say(guest(1), guest(2), b"neighbour").await;
        far.say(guest(2), ALL, b"all neighbours").await;
        assert_eq!(heard(&bench.host).await.2, b"to all");
        assert_eq!(heard(&bench.host).await.2, b"all neighbours");
        // Both guests' radios have heard what came before.
        let mut said = bench.heard_before(&mut far, guest(1), b"last for 1").await;
        said.extend(bench.heard_before(&mut far, guest(2), b"last for 2").await);
        assert_eq!(said, [(DESK, ALL, b"to all".to_vec())]);
    });
}

/// A board in the place of another is learned, as far as there are places.
#[test]
fn a_line_has_so_many_guests_and_no_more() {
    on_a_desk(async {
        let mut bench = Bench::new("many").await;
        let mut far = bench.plug_in().await;
        let places = u8::try_from(GUESTS_MAX).unwrap();
        for number in 0..=places {
            far.say(guest(number), ALL, &[number]).await;
        }
        far.say(guest(0), ALL, b"last").await;
        for number in 0..places {
            assert_eq!(heard(&bench.desk).await, (guest(number), ALL, vec![number]));
        }
        assert_eq!(heard(&bench.desk).await, (guest(0), ALL, b"last".to_vec()));
        let BridgeCounters { received, echoed, no_place } = bench.line.counters().bridge;
        assert_eq!((received, echoed, no_place), (u64::from(places) + 2, 0, 1));
    });
}

/// A guest that has gone leaves its place to the next one.
#[test]
fn a_silent_guest_makes_room() {
    on_a_desk(async {
        let bench = Bench::new("silent").await;
        let packet = |number| Packet { source: guest(number), destination: ALL, payload: b"here" };
        let began = Instant::now();
        let places = u8::try_from(GUESTS_MAX).unwrap();
        (0..places).for_each(|number| bench.line.bridge.take(began, &packet(number)));
        let later = began + GUEST_SILENT;
        bench.line.bridge.take(later - Duration::from_millis(1), &packet(0));
        bench.line.bridge.take(later - Duration::from_millis(1), &packet(places));
        assert_eq!(bench.line.counters().bridge.no_place, 1);
        bench.line.bridge.take(later, &packet(places));
        assert_eq!(bench.line.counters().bridge.no_place, 1);
        assert!(bench.line.bridge.reaches(guest(0)) && !bench.line.bridge.reaches(guest(1)));
    });
}

/// A line that echoes, or a ring of lines, would give a device's address away.
#[test]
fn who_is_on_the_air_is_not_behind_the_line() {
    on_a_desk(async {
        let mut bench = Bench::new("echo").await;
        let mut far = bench.plug_in().await;
        bench.guest(&mut far, guest(1)).await;
        far.say(HOST, ALL, b"echo of the host").await;
        far.say(DESK, ALL, b"echo of the desk").await;
        far.say(DeviceId([3, 0, 0, 0, 0, 1]), ALL, b"of nobody").await;
        far.say(guest(1), ALL, b"last").await;
        assert_eq!(heard(&bench.host).await, (guest(1), ALL, b"last".to_vec()));
        assert_eq!(bench.line.counters().bridge.echoed, 3);
        bench.host.try_send(DESK, b"still there").unwrap();
        assert_eq!(heard(&bench.desk).await.2, b"last");
        assert_eq!(heard(&bench.desk).await.2, b"still there");
    });
}

#[test]
fn guests_are_on_the_channel_of_their_host() {
    on_a_desk(async {
        let mut bench = Bench::new("channel").await;
        let mut far = bench.plug_in().await;
        bench.guest(&mut far, guest(1)).await;
        let there = Channel::new(6).unwrap();
        bench.line.tune(there);
        bench.desk.tune(there);
        far.say(guest(1), ALL, b"known").await;
        far.say(guest(2), ALL, b"new").await;
        assert_eq!(heard(&bench.desk).await, (guest(1), ALL, b"known".to_vec()));
        assert_eq!(heard(&bench.desk).await, (guest(2), ALL, b"new".to_vec()));
    });
}

#[test]
fn a_line_that_breaks_off_goes_on_with_whoever_comes_next() {
    on_a_desk(async {
        let mut bench = Bench::new("again").await;
        let mut far = bench.plug_in().await;
        bench.guest(&mut far, guest(1)).await;
        // In the middle of a packet.
        far.stream.write_all(&[0, 9, 1, 2]).await.unwrap();
        drop(far);
        let news = bench.line.news().await;
        assert_eq!(news.level, Level::Warning);
        assert!(news.text.contains("is gone: its other end has closed it"), "{}", news.text);
        // Nobody waits for it.
        assert!((0..100).all(|_| bench.line.has_room(ALL)));
        let mut far = bench.plug_in().await;
        bench.guest(&mut far, guest(2)).await;
    });
}

#[test]
fn a_second_peer_is_turned_away_while_the_first_is_there() {
    on_a_desk(async {
        let mut bench = Bench::new("second").await;
        let mut far = bench.plug_in().await;
        let mut second = TcpStream::connect(bench.address).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
        bench.guest(&mut far, guest(1)).await;
    });
}

#[test]
fn a_serial_port_that_is_not_there_is_an_error_at_once() {
    let place = "serial:/dev/no-such-port".parse().unwrap();
    let error = Line::open(&place, Path::new("."), HOST, Channel::FIRST).unwrap_err();
    assert!(error.to_string().contains("`/dev/no-such-port`"), "{error}");
}

/// Whatever has to come comes long before.
const TEST_MAX: Duration = Duration::from_secs(60);
