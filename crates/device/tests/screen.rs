//! What a board's screen shows, as pictures: each is compared with the one in `golden/screen`,
//! which `UPDATE_EXPECT=1` writes anew.

mod group;

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;

use embedded_graphics::pixelcolor::{Rgb565, Rgb888};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use group::{FaultyApplication, TestGroup, images, pair_bundle, spec};
use lockstep_device::Node;
use lockstep_device::channel::Channel;
use lockstep_device::http::Platform;
use lockstep_device::screen::{HEIGHT, Picture, WIDTH};
use lockstep_proto::version::ProtocolRange;
use lockstep_rollout::Phase;

fn platform() -> Platform {
    Platform { cpu_freq_mhz: 160, channel: Channel::new(6), ..Platform::default() }
}

fn picture(group: &mut TestGroup) -> Picture {
    let now = group.boards[0].uptime(group.now);
    let node: &mut Node<FaultyApplication> = group.lead();
    Picture::of(node, now, &platform(), Some("http://192.168.1.50/ota"))
}

/// A screen in memory: three bytes for each pixel.
struct Screen(Vec<u8>);

impl Dimensions for Screen {
    fn bounding_box(&self) -> Rectangle {
        Rectangle::new(Point::zero(), Size::new(WIDTH, HEIGHT))
    }
}

impl DrawTarget for Screen {
    type Color = Rgb565;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb565>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        let bounds = self.bounding_box();
        for Pixel(at, color) in pixels.into_iter().filter(|Pixel(at, _)| bounds.contains(*at)) {
            let index = (at.y as usize * WIDTH as usize + at.x as usize) * 3;
            let color = Rgb888::from(color);
            self.0[index..index + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
        }
        Ok(())
    }
}

impl Screen {
    fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, WIDTH, HEIGHT);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&self.0).unwrap();
        writer.finish().unwrap();
        bytes
    }

    /// The pixels of a picture.
    fn read(bytes: &[u8]) -> Self {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        Self(pixels)
    }
}

/// Draws all of it, and compares.
fn check(picture: &Picture, name: &str) {
    let mut screen = Screen(vec![0; WIDTH as usize * HEIGHT as usize * 3]);
    for row in picture.changes(None) {
        picture.draw_row(row, &mut screen).unwrap();
    }
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/screen");
    let golden = golden.join(format!("{name}.png"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, screen.png()).unwrap();
    }
    let expected = Screen::read(&fs::read(&golden).unwrap());
    if screen.0 != expected.0 {
        let drawn = std::env::temp_dir().join(format!("lockstep-screen-{name}.png"));
        fs::write(&drawn, screen.png()).unwrap();
        panic!("{} differs from {}", drawn.display(), golden.display());
    }
}

#[test]
fn a_pair_that_works_shows_its_data_and_that_both_are_there() {
    let mut group = TestGroup::pair();
    group.run_ms(3_000);
    check(&picture(&mut group), "works");
}

#[test]
fn a_rollout_shows_how_far_it_is() {
    let mut group = TestGroup::pair();
    group.run_ms(3_000);
    let (receiver, transmitter) = images("1.1.0");
    group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert!(group.run_until(60_000, |group| group.phase() == Some(Phase::Staging)));
    group.run_ms(400);
    check(&picture(&mut group), "staging");
}

/// L1: a peer that speaks another protocol is seen at a glance, and what to do about it.
#[test]
fn a_peer_that_does_not_fit_is_a_warning_that_says_which_one_to_update() {
    let old = spec("transmitter", "1.0.0");
    let mut new = spec("receiver", "2.0.0");
    new.descriptor.protocol = ProtocolRange::new(2, 3).unwrap();
    let images = [("receiver", new.build().unwrap()), ("transmitter", old.build().unwrap())];
    let mut group = TestGroup::running(&images);
    group.run_ms(3_000);
    check(&picture(&mut group), "does-not-fit");
}

#[test]
fn a_new_board_shows_how_to_set_it_up() {
    let picture =
        Picture::first_start("lockstep-receiver-9abc", "hk3v9wq2zt", "http://192.168.4.1/setup");
    check(&picture, "first-start");
}

#[test]
fn only_rows_that_changed_are_drawn_again() {
    let mut group = TestGroup::pair();
    group.run_ms(3_000);
    let before = picture(&mut group);
    assert_eq!(before.changes(Some(&before)).count(), 0);
    let other = Picture::first_start("a", "b", "c");
    assert_eq!(other.changes(Some(&before)).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
}
