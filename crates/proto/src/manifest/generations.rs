//! Hashes of the generations of an artifact: what comes over the air is judged piece by piece, so
//! that a forged block costs one piece.
//!
//! In the manifest they are one base64 text, eight bytes for each generation in their order. The
//! text is kept as it stands; a device reads one hash of it at a time, from memory or from flash,
//! and holds no list. Eight bytes are enough beside the hash of the whole file, which decides: to
//! get a wrong generation past them costs 2^64 tries, and then the file is still refused.

use core::fmt;
use core::ops::Range;

use base64ct::{Base64, Encoding as _};
use sha2::Digest as _;

use crate::frame::coding::Shape;
use crate::id::Sha256;

/// The front of a generation's SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationHash(pub [u8; GENERATION_HASH_BYTES]);

impl GenerationHash {
    /// That of the bytes of a generation.
    pub fn of(bytes: &[u8]) -> Self {
        Self::front_of(&Sha256(sha2::Sha256::digest(bytes).into()))
    }

    /// That of a generation with this hash.
    pub const fn front_of(sha256: &Sha256) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = sha256.0;
        Self([a, b, c, d, e, f, g, h])
    }

    /// Its first four bytes, as refusals carry them.
    pub const fn first4(self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

/// The hashes of an artifact's generations, as they stand in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationHashes<'a> {
    text: &'a str,
    count: usize,
}

impl<'a> GenerationHashes<'a> {
    /// `None`: it is not base64, of whole hashes and with its padding.
    pub fn from_text(text: &'a str) -> Option<Self> {
        let mut bytes = 0;
        let mut groups = text.as_bytes().chunks(PIECE_BYTES).peekable();
        while let Some(piece) = groups.next() {
            let mut decoded = [0; PIECE_BYTES];
            let length = Base64::decode(piece, &mut decoded).ok()?.len();
            // Padding ends the text.
            let is_whole = length == PIECE_BYTES / 4 * 3;
            if groups.peek().is_some() && !is_whole {
                return None;
            }
            bytes += length;
        }
        let count = bytes / GENERATION_HASH_BYTES;
        (bytes % GENERATION_HASH_BYTES == 0).then_some(Self { text, count })
    }

    /// The text.
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// That of one generation; `None` if there is none.
    pub fn get(&self, generation: u16) -> Option<GenerationHash> {
        Self::read(generation, self.text.as_bytes().get(Self::place(generation))?)
    }

    /// Where the hash of a generation stands in the text, with what shares its first and its last
    /// letters: at most [`GENERATION_TEXT_BYTES_MAX`] bytes.
    pub const fn place(generation: u16) -> Range<usize> {
        let start = generation as usize * GENERATION_HASH_BYTES;
        start / 3 * 4..(start + GENERATION_HASH_BYTES).div_ceil(3) * 4
    }

    /// Reads the hash of a generation from the part of the text that [`Self::place`] names.
    pub fn read(generation: u16, part: &[u8]) -> Option<GenerationHash> {
        let mut bytes = [0; GENERATION_TEXT_BYTES_MAX];
        let decoded = Base64::decode(part, &mut bytes).ok()?;
        let skip = generation as usize * GENERATION_HASH_BYTES % 3;
        let hash = decoded.get(skip..skip + GENERATION_HASH_BYTES)?;
        Some(GenerationHash(hash.try_into().ok()?))
    }
}

impl fmt::Display for GenerationHashes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Writes hashes as the text of the manifest's field.
pub fn write_generations(
    hashes: impl IntoIterator<Item = GenerationHash>,
    into: &mut impl fmt::Write,
) -> fmt::Result {
    let mut hashes = hashes.into_iter().peekable();
    while hashes.peek().is_some() {
        // Three of them are whole letters.
        let mut bytes = heapless::Vec::<u8, { 3 * GENERATION_HASH_BYTES }>::new();
        for hash in hashes.by_ref().take(3) {
            bytes.extend_from_slice(&hash.0).map_err(|_| fmt::Error)?;
        }
        let mut text = [0; 4 * GENERATION_HASH_BYTES];
        into.write_str(Base64::encode(&bytes, &mut text).map_err(|_| fmt::Error)?)?;
    }
    Ok(())
}

/// How many generations an artifact of this size has.
pub const fn generations_of(size_bytes: u32) -> usize {
    size_bytes.div_ceil(GENERATION_BYTES) as usize
}

/// Bytes of every generation but the last, however an artifact is cut.
pub const GENERATION_BYTES: u32 = Shape::Small.generation_bytes();
/// Bytes of one hash in the list.
pub const GENERATION_HASH_BYTES: usize = 8;
/// What stands in the list for one hash begins and ends in the middle of four letters at most.
pub const GENERATION_TEXT_BYTES_MAX: usize = 16;
/// What such a text is, in the words of an error.
pub(super) const GENERATIONS_EXPECTED: &str = "base64 of 8 bytes for each generation";
/// Decoded at once: whole letters, and no long text lies on the stack.
const PIECE_BYTES: usize = 32;

const _: () = assert!(GENERATION_BYTES == Shape::Large.generation_bytes());
const _: () = assert!(GENERATION_HASH_BYTES == 8, "the text above says 8");

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn written(hashes: &[GenerationHash]) -> String {
        let mut text = String::new();
        write_generations(hashes.iter().copied(), &mut text).unwrap();
        text
    }

    /// Devices of any version must find in it what any command has written.
    #[test]
    fn the_text_of_a_list_is_frozen() {
        let file: Vec<u8> = (0..=250).cycle().take(GENERATION_BYTES as usize + 1000).collect();
        let hashes: Vec<_> =
            file.chunks(GENERATION_BYTES as usize).map(GenerationHash::of).collect();
        assert_eq!(hashes.len(), generations_of(GENERATION_BYTES + 1000));
        // As `hashlib` and `base64` of Python have it.
        assert_eq!(written(&hashes), "r+nE784PRtv1ADmZhnhDPQ==");
        assert_eq!(GenerationHash([1, 2, 3, 4, 5, 6, 7, 8]).first4(), 0x0403_0201);
    }

    #[test]
    fn a_text_that_is_not_whole_hashes_in_plain_base64_is_no_list() {
        let whole = written(&[GenerationHash([0xA5; 8]); 5]);
        assert_eq!(GenerationHashes::from_text(&whole).map(|list| list.count()), Some(5));
        assert_eq!(GenerationHashes::from_text("").map(|list| list.count()), Some(0));
        for length in (1..whole.len()).filter(|length| *length != 32) {
            assert_eq!(GenerationHashes::from_text(&whole[..length]), None, "{length}");
        }
        let one = written(&[GenerationHash([0xA5; 8])]);
        assert_eq!(one, "paWlpaWlpaU=");
        for wrong in ["paWlpaWlpaU", "paWlpaWlpaV=", "paWlpaWl paU=", "paWlpaWlpa-=", "ä"] {
            assert_eq!(GenerationHashes::from_text(wrong), None, "{wrong}");
        }
        // Padding in the middle: what stands behind it would be read as something else.
        let twice: String = [&one[..]; 24].concat();
        assert_eq!(GenerationHashes::from_text(&twice), None);
    }

    proptest! {
        #[test]
        fn every_hash_of_a_list_is_found_in_its_place(
            hashes in prop::collection::vec(any::<[u8; 8]>(), 0..80)
        ) {
            let hashes: Vec<_> = hashes.into_iter().map(GenerationHash).collect();
            let text = written(&hashes);
            prop_assert_eq!(text.len(), (hashes.len() * 8).div_ceil(3) * 4);
            let list = GenerationHashes::from_text(&text).unwrap();
            prop_assert_eq!(list.count(), hashes.len());
            for (index, hash) in (0..).zip(&hashes) {
                prop_assert_eq!(list.get(index), Some(*hash));
                let place = GenerationHashes::place(index);
                prop_assert!(place.len() <= GENERATION_TEXT_BYTES_MAX);
                let part = &text.as_bytes()[place];
                prop_assert_eq!(GenerationHashes::read(index, part), Some(*hash));
            }
            prop_assert_eq!(list.get(u16::try_from(hashes.len()).unwrap()), None);
        }
    }
}
