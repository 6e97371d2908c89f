//! Devices that hear each other over a line: two airs and a wire between them, with what happens to
//! wires. The lead is on one air, the transmitter on another.

use std::net::TcpListener;

use super::desk::{
    Board, Desk, Image, Mark, Plan, Receiver, Role, Socket, Transmitter, Wire, firmware,
};

/// The transmitter is behind the wire, and on no air of the lead's.
fn plan(lead: &str, transmitter: &str) -> Plan {
    Plan::default()
        .with(Receiver, lead)
        .with(Transmitter, &format!("--air other.air {transmitter}"))
}

/// A desk whose two airs this wire joins.
fn desk_on(wire: &Wire, baud: u32) -> Desk {
    plan(&wire.link(0, baud), &wire.link(1, baud)).start()
}

/// At the speed of a boot loader's console, and with its messages in between.
#[test]
fn a_rollout_goes_over_a_noisy_line() {
    let wire = Wire::noisy();
    let desk = desk_on(&wire, 115_200);
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds().says("Kept: receiver and transmitter run 1.1.0");
    desk.assert_runs(&images);
    // It went over the wire, and the wire was bad.
    assert!(wire.carried_bytes() > images[1].bytes.len());
    assert!(wire.noises() > 10, "{} times", wire.noises());
}

/// A line that breaks off in the middle of staging costs that moment, no more; each device says so
/// once, and that it is back.
#[test]
fn a_line_that_is_cut_in_staging_goes_on() {
    let wire = Wire::noisy();
    let desk = desk_on(&wire, 460_800);
    let transmitter = firmware(Transmitter, "1.1.0").size(512 << 10).make();
    let receiver = firmware(Receiver, "1.1.0").make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    let update = desk.begin_update(&bundle);
    desk.wait("bytes are in flash", || {
        let staged = desk.rollout()?["members"][1]["staged_bytes"].as_u64()?;
        (0 < staged && staged < 512 << 10).then_some(())
    });
    let mark = desk.board(Transmitter).mark();
    wire.cut();
    wait_said(&desk, Transmitter, mark, "is gone: ");
    wait_said(&desk, Transmitter, mark, "does not open: ");
    desk.wait("the lead misses it", || {
        let version = desk.lead().get("/api/version")?.json;
        (version["peers"][0]["linked"] == false).then_some(())
    });
    let phase = desk.wait("the lead answers", || desk.rollout())["phase"].clone();
    assert_eq!(phase, "staging", "the line was cut too late");
    wire.mend();
    wait_said(&desk, Transmitter, mark, "is open");
    update.end().succeeds();
    desk.assert_runs(&[receiver, transmitter]);
    let lines = desk.board(Transmitter).lines_since(mark);
    let said = |part: &str| lines.iter().filter(|line| is_said(line, part)).count();
    assert_eq!((said("is gone: "), said("does not open: ")), (1, 1));
}

/// The lead sends what it sends once for all: into the air, and out on the line, which is as fast
/// as its other end here.
#[test]
fn a_member_behind_the_line_and_one_on_the_air_are_in_one_rollout() {
    let port = free_port();
    let lead = format!("--link tcp-listen:127.0.0.1:{port}");
    let desk = plan(&lead, &format!("--link tcp:127.0.0.1:{port}")).start();
    let mut third = desk.further_board("third", "02:00:00:00:00:03", "pair.group.air");
    third.switch_on();
    desk.wait("the group has three devices", || {
        let peers = desk.lead().get("/api/version")?.json["peers"].as_array()?.clone();
        let linked = |peer: &serde_json::Value| peer["linked"] == true && !peer["role"].is_null();
        (peers.len() == 2 && peers.iter().all(linked)).then_some(())
    });
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    let settled = desk.wait_settled();
    assert_eq!(settled["members"].as_array().map(Vec::len), Some(3), "{settled}");
    wait_runs(&desk, &third, &images[1]);
}

/// The device with the line need not be the lead.
#[test]
fn a_lead_on_the_air_reaches_a_member_behind_another_ones_line() {
    let wire = Wire::new();
    let desk = plan("", &wire.link(1, 921_600)).starts_unlinked();
    let mut bridge = desk.further_board("bridge", "02:00:00:00:00:03", "pair.group.air");
    bridge.give(&wire.link(0, 921_600));
    bridge.switch_on();
    desk.wait_until_linked();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
}

/// A board at a serial port is unplugged after a rollout. Another one in its place is learned, and
/// has its part in the next rollout over the same port.
#[test]
fn a_second_board_at_the_serial_port_comes_in_the_place_of_the_first() {
    let mut socket = Socket::new();
    let first = socket.plug_in();
    let mut desk = plan(&socket.link(115_200), &first).start();
    let (images, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    let mark = desk.board(Receiver).mark();
    socket.unplug();
    desk.board_mut(Transmitter).kill();
    wait_said(&desk, Receiver, mark, "is gone: ");
    wait_said(&desk, Receiver, mark, "does not open: ");
    desk.wait("the lead lets go of the first", || {
        (desk.ask_lead("group remove 02:00:00:00:00:02").code == Some(0)).then_some(())
    });
    let mut second = desk.further_board("second", "02:00:00:00:00:03", "second.air");
    let link = socket.plug_in();
    second.give(&link);
    second.switch_on();
    wait_said(&desk, Receiver, mark, "is open");
    desk.board(Receiver).wait_line(mark, "the second belongs to the group", |line| {
        line["text"].as_str().is_some_and(|text| text.contains("00:03 belongs to the group"))
    });
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.update(&bundle).succeeds();
    assert_eq!(desk.seen_of(Receiver).image, images[0].hash);
    wait_runs(&desk, &second, &images[1]);
}

/// What is wrong with a line is said before anything begins, with what would be right.
#[test]
fn a_line_that_cannot_be_is_refused_at_the_start() {
    let desk = Desk::new();
    let device = |link: &str| {
        let rest = "device --role transmitter --flash x.flash --air x.air --link";
        desk.lockstep(&format!("{rest} {link}"))
    };
    for (link, says) in [
        ("usb:0", "expected `serial:PORT`, `tcp:HOST:PORT` or `tcp-listen:ADDRESS:PORT`"),
        ("serial:/dev/ttyUSB0@fast", "`@fast` is no speed"),
        ("tcp:5555", "expected a host and its port"),
        ("tcp-listen:localhost:5555", "expected an address of this machine"),
    ] {
        let said = device(link);
        assert_eq!(said.code, Some(2), "{link}");
        said.says(link).says(says);
    }
    device("serial:/dev/no-such-port").fails().says("`/dev/no-such-port`").says("serial port");
    device("serial:x.air").fails().says("`x.air`");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    device(&format!("tcp-listen:{address}")).fails().says(&address.to_string());
}

/// Waits until a further board runs this image for good.
fn wait_runs(desk: &Desk, board: &Board, image: &Image) {
    desk.wait("the further board runs it for good", || {
        let version = desk.http_at(board).get("/api/version")?.json;
        (version["image"] == image.hash.as_str() && version["ota_state"] == "valid").then_some(())
    });
}

fn wait_said(desk: &Desk, role: Role, mark: Mark, part: &str) {
    desk.board(role).wait_line(mark, part, |line| is_said(line, part));
}

fn is_said(line: &serde_json::Value, part: &str) -> bool {
    let text = line["text"].as_str().unwrap_or_default();
    text.starts_with("line ") && text.contains(part)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
