//! Patches: made of the images that devices run, judged where they come in a bundle, and put into
//! the bundles that leads fetch.
//!
//! ```text
//! a group is offered a release ─► what do its devices run? ─► is there a patch?
//!                                                              │ no: [`maker`], offered when made
//!        lead ◄── [`composed`]: the release's bundle with them ◄┘ yes, or none is worth it
//! ```
//!
//! Nobody has to believe a patch: what a device makes of one is judged by the hash in the signed
//! manifest. So this server makes them of what it was given, and signs nothing.

pub mod composed;
pub mod judged;
pub mod maker;

use lockstep_delta::encode::{self, EncodeError, Image};
use lockstep_delta::{Format, Header};
use lockstep_proto::image::{ImageError, ImageFacts, ImageReader};
use serde::{Deserialize, Serialize};

/// A patch that is put into the bundle which a group is offered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extra {
    /// For which role.
    pub role: String,
    /// Hash of the image that it is applied to, in hexadecimal digits.
    pub old: String,
    /// Hash of the image that comes of it.
    pub new: String,
    /// How long it is.
    pub size_bytes: u32,
}

impl Extra {
    /// What tells it from others of its role in a bundle.
    pub fn tag(&self) -> &str {
        self.old.get(..TAG_DIGITS).unwrap_or(&self.old)
    }
}

/// What makes one image of another; `None`: it would save too little, since the new image is as
/// small under compression, which needs no other and serves everybody.
pub fn between(old: &Image<'_>, new: &Image<'_>) -> Result<Option<Vec<u8>>, EncodeError> {
    let patch = encode::smallest(old, new)?;
    let needs_old = Header::decode(&patch).is_ok_and(|header| header.format != Format::Full);
    if !needs_old {
        return Ok(None);
    }
    if patch.len() < new.bytes.len() / COMPRESSION_IS_TRIED_FROM {
        return Ok(Some(patch));
    }
    let whole = encode::full(new)?;
    Ok(Some(patch).filter(|it| is_worth_it(it.len(), whole.len())))
}

/// Firmware under compression is hardly ever smaller than this part of the image, and to find out
/// takes time.
const COMPRESSION_IS_TRIED_FROM: usize = 4;

/// A patch that saves less than an eighth costs more in trouble than it saves in time.
pub const fn is_worth_it(patch_bytes: usize, image_bytes: usize) -> bool {
    patch_bytes <= image_bytes / 8 * 7
}

/// What an artifact is.
pub fn facts_of(file: &[u8]) -> Result<ImageFacts, ImageError> {
    let mut reader = ImageReader::new();
    // An error stays in the reader and comes out at its end.
    let _ = reader.push(file);
    reader.finish()
}

/// An image as it lies in the slot of a device that runs it: without padding behind it, since what
/// a board has there is anybody's guess.
pub fn running<'a>(file: &'a [u8], facts: &ImageFacts) -> Image<'a> {
    let size_bytes = usize::try_from(facts.size_bytes).unwrap_or(usize::MAX);
    Image { bytes: file.get(..size_bytes).unwrap_or(file), id: facts.image_hash.0 }
}

/// Digits of the hash of the image that a patch is for, in its name.
pub const TAG_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// It would be found under no base, and made again for ever.
    #[test]
    fn what_is_smallest_without_the_old_image_is_no_patch_of_it() {
        let words = |seed: u32| {
            let word = move |at: u32| (at % 900).wrapping_mul(seed).to_le_bytes();
            (0..4_000).flat_map(word).collect::<Vec<u8>>()
        };
        let (old, new) = (words(0x9E37_79B9), words(0x85EB_CA6B));
        let image = |bytes, id| Image { bytes, id: [id; 32] };
        let whole = encode::smallest(&image(&old, 1), &image(&new, 2)).unwrap();
        assert_eq!(Header::decode(&whole).unwrap().format, Format::Full);
        assert!(is_worth_it(whole.len(), new.len()));
        assert!(between(&image(&old, 1), &image(&new, 2)).unwrap().is_none());
        let mut near = old.clone();
        near[5_000..5_010].fill(7);
        assert!(between(&image(&old, 1), &image(&near, 2)).unwrap().is_some());
    }

    /// It would be in the bundle for nothing: the image under compression is in it, too.
    #[test]
    fn what_is_hardly_smaller_than_the_image_under_compression_is_left_out() {
        let noise = |seed: u32, length: u32| {
            let byte = move |at: u32| {
                let mixed = (at ^ seed).wrapping_mul(0x9E37_79B9);
                (mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA6B).to_be_bytes()[0]
            };
            (0..length).map(byte).collect::<Vec<u8>>()
        };
        // They share one part in sixteen.
        let shared = noise(1, 1_000);
        let old = [shared.clone(), noise(0x5555_0000, 15_000)].concat();
        let new = [shared, noise(0x7777_0000, 15_000), vec![0; 16_000]].concat();
        let image = |bytes, id| Image { bytes, id: [id; 32] };
        let (old, new) = (image(&old, 1), image(&new, 2));
        let patch = encode::smallest(&old, &new).unwrap();
        assert_ne!(Header::decode(&patch).unwrap().format, Format::Full);
        assert!(is_worth_it(patch.len(), new.bytes.len()));
        assert!(between(&old, &new).unwrap().is_none());
    }
}
