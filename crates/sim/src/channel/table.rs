//! Many transfers side by side, and a picture of them.

use std::fmt::Write as _;

use super::{Loss, Outcome, Rate, Rival, Setup, run, run_rival};

/// One number of members at one loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was run.
    pub setup: Setup,
    /// What our transfer took.
    pub ours: Outcome,
    /// The least time that its blocks can take, in seconds.
    pub bound_s: f64,
    /// What others take, in the order of [`Rival::ALL`], in seconds.
    pub rivals: Vec<Cell>,
}

/// What one of the others takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Which.
    pub rival: Rival,
    /// How long, in seconds.
    pub seconds: f64,
}

impl Row {
    /// Runs it, with the others or without.
    pub fn run(setup: Setup, with_rivals: bool) -> Self {
        let ours = run(&setup);
        let rivals = Rival::ALL.into_iter().filter(|_| with_rivals);
        let rivals =
            rivals.map(|rival| Cell { rival, seconds: run_rival(rival, &setup) }).collect();
        Self { setup, ours, bound_s: setup.bound_s(ours.shape), rivals }
    }

    /// How many times the bound our transfer took.
    pub fn ratio(&self) -> f64 {
        self.ours.transfer_s / self.bound_s
    }

    /// Bytes of the image that reach every member in a second.
    pub fn bytes_per_s(&self) -> f64 {
        f64::from(self.setup.size_bytes) / self.ours.transfer_s
    }
}

/// The numbers of members and the losses that a table has.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its rows: losses within numbers of members.
    pub rows: Vec<Row>,
}

impl Table {
    /// The rows of a table at one rate, to be run one after the other.
    pub fn setups(size_bytes: u32, rate: Rate, takes_large: bool, seed: u64) -> Vec<Setup> {
        let members = [1, 2, 10, 50];
        let losses = [0.0, 0.1, 0.2, 0.3];
        let setup = |members, share| Setup {
            members,
            size_bytes,
            rate,
            loss: Loss::Independent { share },
            takes_large,
            data_every_ms: 0,
            seed,
        };
        members.into_iter().flat_map(|it| losses.map(|share| setup(it, share))).collect()
    }
}

/// A picture of a table: time over loss, one panel for each number of members.
pub fn svg(table: &Table) -> String {
    let mut members: Vec<usize> = table.rows.iter().map(|row| row.setup.members).collect();
    members.sort_unstable();
    members.dedup();
    let width = PANEL_WIDTH * members.len() + 2 * MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"#fff\"/>\n<text x=\"{MARGIN}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">\
         Seconds until every member has the image, over the share of frames lost</text>\n"
    );
    for (at, count) in members.into_iter().enumerate() {
        let rows = table.rows.iter().filter(|row| row.setup.members == count);
        panel(&mut text, MARGIN + at * PANEL_WIDTH, count, &rows.collect::<Vec<_>>());
    }
    legend(&mut text);
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, left: usize, members: usize, rows: &[&Row]) {
    let left = to_f64(left);
    let most = rows.iter().map(|row| line_max(row)).fold(1.0, f64::max);
    let ceiling = nice(most);
    let (x0, y0, wide, high) = (left + 36.0, TOP, to_f64(PANEL_WIDTH) - 56.0, BOTTOM - TOP);
    let name = if members == 1 { "1 member".into() } else { format!("{members} members") };
    let mut put = |line: std::fmt::Arguments<'_>| {
        // A `String` takes everything.
        let _ = text.write_fmt(line);
    };
    put(format_args!("<text x=\"{x0}\" y=\"{}\" font-weight=\"bold\">{name}</text>\n", TOP - 10.0));
    for step in 0..=4 {
        let value = ceiling * f64::from(step) / 4.0;
        let y = y0 + high * (1.0 - f64::from(step) / 4.0);
        put(format_args!(
            "<path d=\"M{x0} {y}h{wide}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\" \
             text-anchor=\"end\" fill=\"#555\">{value:.0}</text>\n",
            x0 - 5.0,
            y + 4.0
        ));
    }
    let place = |share: f64, seconds: f64| {
        (x0 + wide * share / 0.3, y0 + high * (1.0 - (seconds / ceiling).min(1.0)))
    };
    let mut shares: Vec<f64> = rows.iter().map(|row| row.setup.loss.share()).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    for share in shares {
        let (x, _) = place(share, 0.0);
        put(format_args!(
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{:.0} %</text>\n",
            BOTTOM + 18.0,
            share * 100.0
        ));
    }
    for (number, (_, color, dash)) in LINES.iter().enumerate() {
        let points: Vec<String> = rows
            .iter()
            .filter_map(|row| Some((row.setup.loss.share(), line_of(row, number)?)))
            .map(|(share, seconds)| place(share, seconds))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dash}\"/>\n",
            points.join(" ")
        ));
    }
}

fn legend(text: &mut String) {
    for (number, (name, color, dash)) in LINES.iter().enumerate() {
        let x = to_f64(MARGIN) + 36.0 + 190.0 * to_f64(number);
        let y = BOTTOM + 48.0;
        let _ = writeln!(
            text,
            "<path d=\"M{x} {y}h26\" stroke=\"{color}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dash}\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            x + 32.0,
            y + 4.0
        );
    }
}

/// What each line of the picture shows; those that would dwarf the others are left to the table.
fn line_of(row: &Row, number: usize) -> Option<f64> {
    let rival = |wanted| row.rivals.iter().find(|it| it.rival == wanted).map(|it| it.seconds);
    match (number, row.setup.takes_large) {
        (0, false) => Some(row.bound_s),
        (1, false) | (2, true) => Some(row.ours.transfer_s),
        (3, false) => rival(Rival::Bitmap),
        (4, false) => rival(Rival::EspnowOta),
        _ => None,
    }
}

fn line_max(row: &Row) -> f64 {
    (0..LINES.len()).filter_map(|number| line_of(row, number)).fold(0.0, f64::max)
}

/// The next round number.
fn nice(most: f64) -> f64 {
    (most / 20.0).ceil() * 20.0
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
const fn to_f64(number: usize) -> f64 {
    number as f64
}

const LINES: [(&str, &str, &str); 5] = [
    ("least possible, v1", "#999", "4 3"),
    ("Lockstep, ESP-NOW v1", "#0a7", "none"),
    ("Lockstep, ESP-NOW v2", "#07c", "none"),
    ("broadcast and bitmaps", "#c60", "none"),
    ("espnow_ota (model)", "#c22", "none"),
];
const PANEL_WIDTH: usize = 260;
const MARGIN: usize = 12;
const HEIGHT: usize = 340;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 264.0;
