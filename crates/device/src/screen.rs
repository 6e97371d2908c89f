//! What a board with a screen shows: data, versions, how a rollout gets on, and which device needs
//! what when two do not understand each other.
//!
//! ```text
//!  ┌────────────────────────────────┐
//!  │ Receiver 1.2.0            ch 6 │  row 0
//!  │ Charge 79.5 %      Power -1.2 kW│
//!  │ Transmitter 1.1.0       linked │
//!  │                                │  up to three peers
//!  │                                │
//!  │ Staging 1.3.0             42 % │
//!  │ ▓▓▓▓▓▓▓▓▓▓░░░░░░░░░░░░░░░░░░░░ │
//!  │ Transmitter: update it first   │  a warning, or where the board is found
//!  └────────────────────────────────┘
//! ```
//!
//! Rows of text, so that a slow screen is asked only for what has changed, and a row at a time: the
//! radio waits no longer than one row takes.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_10X20;
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};
use lockstep_proto::compat::Incompatible;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_rollout::Phase;

use crate::http::Platform;
use crate::http::views::rollout::staged_bytes;
use crate::node::Node;
use crate::peers::Peer;
use crate::setup::Application;

/// Its width in pixels, lying.
pub const WIDTH: u32 = 320;
/// Its height in pixels, lying.
pub const HEIGHT: u32 = 170;

/// How a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Head,
    Plain,
    Good,
    Dim,
    Warning,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Row {
    Text {
        look: Look,
        left: String,
        right: String,
    },
    /// A bar, in percent.
    Bar(u8),
}

/// Everything on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture([Row; ROWS]);

impl Picture {
    /// What the device is like now. `found` says where people find it, if they do.
    pub fn of<A: Application>(
        node: &Node<A>,
        now: Instant,
        platform: &Platform,
        found: Option<&str>,
    ) -> Self {
        let mut rows = Vec::with_capacity(ROWS);
        rows.push(head(node, platform));
        rows.push(figures(node));
        let fresh_ms = node.setup().pace.link_fresh_ms;
        let peers = node.peers().all().iter().filter(|peer| peer.announced.is_some());
        rows.extend(peers.take(PEERS_SHOWN).map(|it| peer(it, now, fresh_ms)));
        rows.resize(2 + PEERS_SHOWN, Row::EMPTY);
        rows.extend(rollout(node));
        rows.push(notice(node, found));
        rows.resize(ROWS, Row::EMPTY);
        Self::of_rows(rows)
    }

    /// What a board shows that waits to be set up.
    pub fn first_start(network: &str, password: &str, address: &str) -> Self {
        let line = |left: &str, right: &str| Row::text(Look::Plain, left, right);
        let rows = [
            Row::text(Look::Head, "Set up this device", ""),
            Row::EMPTY,
            Row::text(Look::Dim, "1 Join this Wi-Fi network", ""),
            line(network, ""),
            line("Password", password),
            Row::text(Look::Dim, "2 Open in a browser", ""),
            line(address, ""),
            Row::EMPTY,
        ];
        Self(rows)
    }

    fn of_rows(rows: Vec<Row>) -> Self {
        let mut all = [const { Row::EMPTY }; ROWS];
        all.iter_mut().zip(rows).for_each(|(to, row)| *to = row);
        Self(all)
    }

    /// The rows that differ from those of another picture.
    pub fn changes<'a>(&'a self, before: Option<&'a Self>) -> impl Iterator<Item = usize> + 'a {
        (0..ROWS).filter(move |&row| before.is_none_or(|it| it.0.get(row) != self.0.get(row)))
    }

    /// Draws one row over whatever was there.
    pub fn draw_row<D: DrawTarget<Color = Rgb565>>(
        &self,
        row: usize,
        screen: &mut D,
    ) -> Result<(), D::Error> {
        let Some(content) = self.0.get(row) else { return Ok(()) };
        // There are a few rows.
        let top = i32::try_from(row * ROW_HEIGHT as usize).unwrap_or_default();
        let area = Rectangle::new(Point::new(0, top), Size::new(WIDTH, ROW_HEIGHT));
        match content {
            Row::Text { look, left, right } => {
                let (ink, paper) = look.colors();
                screen.fill_solid(&area, paper)?;
                let style = MonoTextStyle::new(&FONT_10X20, ink);
                let base = TextStyleBuilder::new().baseline(Baseline::Top);
                let place = Point::new(MARGIN, top + 1);
                Text::with_text_style(&plain(left), place, style, base.build()).draw(screen)?;
                let place = Point::new(WIDTH.cast_signed() - MARGIN, top + 1);
                let base = base.alignment(Alignment::Right).build();
                Text::with_text_style(&plain(right), place, style, base).draw(screen)?;
            }
            Row::Bar(percent) => {
                screen.fill_solid(&area, PAPER)?;
                let margin = MARGIN.cast_unsigned();
                let width = WIDTH - 2 * margin;
                let bar = |width| Rectangle::new(Point::new(MARGIN, top + 6), Size::new(width, 9));
                screen.fill_solid(&bar(width), TRACK)?;
                screen.fill_solid(&bar(width * u32::from(*percent).min(100) / 100), ACCENT)?;
            }
        }
        Ok(())
    }
}

impl Row {
    const EMPTY: Self = Self::Text { look: Look::Plain, left: String::new(), right: String::new() };

    fn text(look: Look, left: &str, right: &str) -> Self {
        let right: String = right.chars().take(COLUMNS).collect();
        let room = COLUMNS - right.chars().count().min(COLUMNS);
        let room = if right.is_empty() { COLUMNS } else { room.saturating_sub(1) };
        Self::Text { look, left: left.chars().take(room).collect(), right }
    }
}

impl Look {
    /// Ink and paper.
    const fn colors(self) -> (Rgb565, Rgb565) {
        match self {
            Self::Head => (Rgb565::WHITE, ACCENT),
            Self::Plain => (Rgb565::WHITE, PAPER),
            Self::Good => (GOOD, PAPER),
            Self::Dim => (DIM, PAPER),
            Self::Warning => (Rgb565::BLACK, WARNING),
        }
    }
}

fn head<A: Application>(node: &Node<A>, platform: &Platform) -> Row {
    let version = ReleaseVersion::from_number(node.announced().number);
    let left = format!("{} {version}", capital(node.setup().role.as_str()));
    let trial = if node.agent().on_trial() { "on trial" } else { "" };
    let right = match (trial, platform.channel) {
        ("", Some(channel)) => format!("ch {channel}"),
        _ => trial.to_string(),
    };
    Row::text(Look::Head, &left, &right)
}

fn figures<A: Application>(node: &Node<A>) -> Row {
    let Some(figures) = node.application().figures().filter(|figures| figures.frames > 0) else {
        return Row::text(Look::Dim, "No data yet", "");
    };
    let charge = figures.soc_centipercent;
    let left = format!("Charge {}.{} %", charge / 100, charge / 10 % 10);
    Row::text(Look::Plain, &left, &format!("Power {} W", figures.power_w))
}

fn peer(peer: &Peer, now: Instant, fresh_ms: u64) -> Row {
    let name = peer.role.map_or_else(|| peer.device_type.to_string(), |it| it.to_string());
    let number = peer.announced.map(|announced| announced.number);
    let version = number.map(|it| ReleaseVersion::from_number(it).to_string()).unwrap_or_default();
    let left = format!("{} {version}", capital(&name));
    match &peer.gate {
        Some(Err(_)) => Row::text(Look::Warning, &left, "does not fit"),
        _ if peer.is_linked(now, fresh_ms) => Row::text(Look::Good, &left, "linked"),
        _ => Row::text(Look::Dim, &left, "silent"),
    }
}

/// The present rollout: what it does, and a bar. Nothing of one that is over.
fn rollout<A: Application>(node: &Node<A>) -> [Row; 2] {
    let is_over = |phase: Phase| matches!(phase, Phase::Settled(_));
    let conducting = node.conducting().filter(|it| !is_over(it.record.phase));
    let Some(conducting) = conducting else { return [Row::EMPTY, Row::EMPTY] };
    let record = conducting.record;
    let version = ReleaseVersion::from_number(record.number);
    let left = format!("{} {version}", capital(record.phase.as_str()));
    let (staged, size) = match conducting.upload {
        Some(upload) => upload,
        None => record.seats.iter().zip(conducting.views).fold((0, 0), |(staged, size), it| {
            let (seat, view) = it;
            let report = view.report.filter(|report| report.ticket.rollout == record.id);
            let here = report.map_or(0, |report| staged_bytes(seat, &report));
            (staged + here, size + seat.size_bytes)
        }),
    };
    let percent = u64::from(staged) * 100 / u64::from(size.max(1));
    let percent = u8::try_from(percent).unwrap_or(100);
    [Row::text(Look::Plain, &left, &format!("{percent} %")), Row::Bar(percent)]
}

/// The one thing that somebody should know.
fn notice<A: Application>(node: &Node<A>, found: Option<&str>) -> Row {
    let unfit = node.peers().all().iter().find_map(|peer| match &peer.gate {
        Some(Err(why)) => Some((peer, why)),
        _ => None,
    });
    match (unfit, found) {
        (Some((peer, why)), _) => {
            let theirs =
                peer.role.map_or_else(|| peer.device_type.to_string(), |it| it.to_string());
            let name = match why {
                Incompatible::TheyAreTooOld { .. } => theirs,
                Incompatible::WeAreTooOld { .. } => node.setup().role.to_string(),
                Incompatible::NoCommonProtocol { mine, theirs: peers } => {
                    let is_mine = mine.max() < peers.min();
                    if is_mine { node.setup().role.to_string() } else { theirs }
                }
            };
            Row::text(Look::Warning, &format!("{}: update it first", capital(&name)), "")
        }
        (None, Some(found)) => Row::text(Look::Dim, found, ""),
        (None, None) => Row::EMPTY,
    }
}

fn capital(name: &str) -> String {
    let name = name.to_lowercase();
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The font has ASCII's letters.
fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_ascii_graphic() || it == ' ' { it } else { '?' }).collect()
}

const ROWS: usize = 8;
const ROW_HEIGHT: u32 = 21;
const PEERS_SHOWN: usize = 3;
/// Letters of 10 pixels.
const COLUMNS: usize = 31;
const MARGIN: i32 = 5;
const PAPER: Rgb565 = Rgb565::new(1, 4, 3);
const ACCENT: Rgb565 = Rgb565::new(5, 21, 25);
const TRACK: Rgb565 = Rgb565::new(5, 12, 7);
const GOOD: Rgb565 = Rgb565::new(13, 54, 20);
const DIM: Rgb565 = Rgb565::new(20, 43, 23);
const WARNING: Rgb565 = Rgb565::new(31, 48, 10);
const _: () = assert!(ROWS * ROW_HEIGHT as usize <= HEIGHT as usize);
