//! What a radio link does to frames, to order: decided here by a seeded generator, done elsewhere.
//!
//! The same seed, link and number of frames give the same fates. Each fate takes the same number
//! of draws whatever is ordered, so more delay does not change which frames are lost.

use std::{fmt, str::FromStr};

use fastrand::Rng;
use lockstep_proto::id::DeviceId;

/// The longest delay that can be ordered.
pub const DELAY_MAX_MS: u32 = 60_000;

/// How bad the radio of one device is. The default is a perfect one.
///
/// Loss, duplication, delay and reordering happen to what this device sends, for each receiver on
/// its own, as in the air. As text: `loss=20,duplicate=5,delay=2-30,reorder=10,down,deaf,seed=7`,
/// any of them left out, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Impairments {
    /// Frames that arrive nowhere, 0 to 100.
    pub loss_percent: u8,
    /// Frames that arrive twice, 0 to 100.
    pub duplicate_percent: u8,
    /// Each frame is late by something between these two; a spread reorders frames as well.
    pub delay_ms: (u32, u32),
    /// Frames that are overtaken by the next one to the same receiver, 0 to 100.
    pub reorder_percent: u8,
    /// Nothing is sent and nothing is heard.
    pub down: bool,
    /// Nothing is heard, everything is sent.
    pub deaf: bool,
    /// Another seed, other frames lost.
    pub seed: u64,
}

impl Impairments {
    /// Whether frames may leave later than they are sent.
    pub(super) const fn hold_frames_back(&self) -> bool {
        self.delay_ms.1 > 0 || self.reorder_percent > 0
    }
}

impl fmt::Display for Impairments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("none");
        }
        let mut separator = "";
        let mut item = |shown: bool, text: fmt::Arguments<'_>| {
            if shown {
                write!(f, "{separator}{text}")?;
                separator = ",";
            }
            Ok(())
        };
        let (delay_min, delay_max) = self.delay_ms;
        item(self.loss_percent > 0, format_args!("loss={}", self.loss_percent))?;
        item(self.duplicate_percent > 0, format_args!("duplicate={}", self.duplicate_percent))?;
        item(delay_max > 0, format_args!("delay={delay_min}-{delay_max}"))?;
        item(self.reorder_percent > 0, format_args!("reorder={}", self.reorder_percent))?;
        item(self.down, format_args!("down"))?;
        item(self.deaf, format_args!("deaf"))?;
        item(self.seed > 0, format_args!("seed={}", self.seed))
    }
}

impl FromStr for Impairments {
    type Err = ParseImpairmentsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut impairments = Self::default();
        if text == "none" {
            return Ok(impairments);
        }
        for item in text.split(',') {
            let error = || ParseImpairmentsError { item: item.to_owned() };
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            let percent = || value.parse().ok().filter(|&percent: &u8| percent <= 100);
            match name {
                "loss" => impairments.loss_percent = percent().ok_or_else(error)?,
                "duplicate" => impairments.duplicate_percent = percent().ok_or_else(error)?,
                "delay" => impairments.delay_ms = parse_delay(value).ok_or_else(error)?,
                "reorder" => impairments.reorder_percent = percent().ok_or_else(error)?,
                "down" if item == name => impairments.down = true,
                "deaf" if item == name => impairments.deaf = true,
                "seed" => impairments.seed = value.parse().map_err(|_| error())?,
                _ => return Err(error()),
            }
        }
        Ok(impairments)
    }
}

/// `30` or `2-30`.
fn parse_delay(text: &str) -> Option<(u32, u32)> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let (min, max) = (min.parse().ok()?, max.parse().ok()?);
    (min <= max && max <= DELAY_MAX_MS).then_some((min, max))
}

/// A word in an order for impairments that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseImpairmentsError {
    /// The word.
    pub item: String,
}

impl fmt::Display for ParseImpairmentsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "radio order `{}` is none of loss=PERCENT, duplicate=PERCENT, delay=MS, \
             delay=MS-MS (at most {DELAY_MAX_MS}), reorder=PERCENT, down, deaf, seed=NUMBER, none",
            self.item
        )
    }
}

impl std::error::Error for ParseImpairmentsError {}

/// What happens to one frame on its way to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It does not arrive.
    Lost,
    /// It arrives, perhaps more than once.
    Arrives {
        /// This late.
        delay_ms: u32,
        /// Not before the next frame to the same receiver.
        overtaken: bool,
        /// A second time, this late.
        again_after_ms: Option<u32>,
    },
}

/// The way from one device to another: its own generator, so that frames to one receiver do not
/// change the fate of frames to another.
#[derive(Debug)]
pub(super) struct Link {
    generator: Rng,
}

impl Link {
    pub(super) fn new(seed: u64, from: DeviceId, to: DeviceId) -> Self {
        let number = |id: DeviceId| id.0.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        // Two different odd factors keep the two directions apart.
        let from = number(from).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let to = number(to).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        Self { generator: Rng::with_seed(seed ^ from ^ to.rotate_left(32)) }
    }

    pub(super) fn fate(&mut self, impairments: &Impairments) -> Fate {
        let (delay_min, delay_max) = impairments.delay_ms;
        let delay_range = delay_min..=delay_max.max(delay_min);
        let lost = self.happens(impairments.loss_percent);
        let duplicated = self.happens(impairments.duplicate_percent);
        let overtaken = self.happens(impairments.reorder_percent);
        let (delay_ms, again_ms) =
            (self.generator.u32(delay_range.clone()), self.generator.u32(delay_range));
        if lost {
            return Fate::Lost;
        }
        Fate::Arrives { delay_ms, overtaken, again_after_ms: duplicated.then_some(again_ms) }
    }

    fn happens(&mut self, percent: u8) -> bool {
        self.generator.u8(0..100) < percent
    }
}
