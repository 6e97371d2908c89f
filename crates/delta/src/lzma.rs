//! LZMA as it travels: no header, no end marker, `lc`, `lp` and `pb` 0, a dictionary of 4 KiB.
//!
//! Bytes are pulled out one by one, and pulled in as they are needed, so a device needs room for
//! the dictionary and the model, and for nothing else. Behind the last byte the stream may be cut:
//! what an encoder flushes there is never read.
//!
//! Model and numbers are those of the LZMA specification (`lzma-specification.txt` of the LZMA SDK,
//! in the public domain).

/// How far back a match may reach.
pub const DICTIONARY_BYTES: usize = 4096;

/// Why there is no next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LzmaError<E> {
    /// There was no next compressed byte.
    Input(E),
    /// It is not what an encoder writes.
    Corrupt,
}

/// A stream, and where in it we are.
#[derive(Clone)]
pub(crate) struct Lzma {
    coder: RangeDecoder,
    /// What kind of symbols came last, 0 to 11.
    state: usize,
    /// The last distances, the latest first; 0 is the byte before.
    distances: [u32; 4],
    /// Bytes of a match that are still to be copied.
    match_left: u32,
    /// Bytes that came out so far.
    out_bytes: u32,
    dictionary: [u8; DICTIONARY_BYTES],
    /// Padded to a power of two, so that an index needs a mask and no check.
    model: [u16; MODEL_LEN],
}

impl Lzma {
    pub(crate) const fn new() -> Self {
        Self {
            coder: RangeDecoder { range: u32::MAX, code: 0, begun: false },
            state: 0,
            distances: [0; 4],
            match_left: 0,
            out_bytes: 0,
            dictionary: [0; DICTIONARY_BYTES],
            model: [HALF; MODEL_LEN],
        }
    }

    /// The next byte, with compressed ones from `next`.
    pub(crate) fn next<E>(
        &mut self,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<u8, LzmaError<E>> {
        if !self.coder.begun {
            self.coder.begin(next)?;
        }
        if self.match_left == 0 {
            if self.bit(IS_MATCH + self.state, next)? == 0 {
                return self.literal(next);
            }
            self.begin_match(next)?;
        }
        self.match_left -= 1;
        let byte = self.back(self.distances[0]);
        Ok(self.put(byte))
    }

    fn literal<E>(&mut self, next: &mut impl FnMut() -> Result<u8, E>) -> Result<u8, LzmaError<E>> {
        let mut symbol = 1;
        if self.state >= STATES_AFTER_LITERAL {
            // The byte that a longer match would have brought is what it most likely is not.
            let mut expected = usize::from(self.back(self.distances[0]));
            while symbol < 0x100 {
                expected <<= 1;
                let expected_bit = expected >> 8 & 1;
                let bit = self.bit(LITERAL + (1 + expected_bit) * 0x100 + symbol, next)?;
                symbol = symbol << 1 | bit;
                if bit != expected_bit {
                    break;
                }
            }
        }
        while symbol < 0x100 {
            symbol = symbol << 1 | self.bit(LITERAL + symbol, next)?;
        }
        self.state = match self.state {
            0..4 => 0,
            4..10 => self.state - 3,
            _ => self.state - 6,
        };
        Ok(self.put(symbol.to_le_bytes()[0]))
    }

    /// Reads length and distance of a match, and checks that there is something to be copied.
    fn begin_match<E>(
        &mut self,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<(), LzmaError<E>> {
        let after_literal = self.state < STATES_AFTER_LITERAL;
        if self.bit(IS_REPEATED + self.state, next)? == 0 {
            let [latest, second, third, _] = self.distances;
            let length = self.length(MATCH_LENGTH, next)?;
            self.distances = [self.distance(length, next)?, latest, second, third];
            self.match_left = length + MATCH_BYTES_MIN;
            self.state = if after_literal { 7 } else { 10 };
        } else if self.is_short_repeat(next)? {
            self.match_left = 1;
            self.state = if after_literal { 9 } else { 11 };
        } else {
            self.match_left = self.length(REPEATED_LENGTH, next)? + MATCH_BYTES_MIN;
            self.state = if after_literal { 8 } else { 11 };
        }
        let [distance, ..] = self.distances;
        let reaches = distance < self.out_bytes && (distance as usize) < DICTIONARY_BYTES;
        if reaches { Ok(()) } else { Err(LzmaError::Corrupt) }
    }

    /// Makes one of the last distances the latest. `true`: it is one byte from the latest one.
    fn is_short_repeat<E>(
        &mut self,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<bool, LzmaError<E>> {
        if self.bit(IS_LATEST + self.state, next)? == 0 {
            return Ok(self.bit(IS_LATEST_LONG + self.state, next)? == 0);
        }
        let [latest, second, third, fourth] = self.distances;
        self.distances = if self.bit(IS_SECOND + self.state, next)? == 0 {
            [second, latest, third, fourth]
        } else if self.bit(IS_THIRD + self.state, next)? == 0 {
            [third, latest, second, fourth]
        } else {
            [fourth, latest, second, third]
        };
        Ok(false)
    }

    /// Bytes of a match beyond the least that one has.
    fn length<E>(
        &mut self,
        model: usize,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<u32, LzmaError<E>> {
        let (base, from, bits) = if self.bit(model, next)? == 0 {
            (0, model + 2, 3)
        } else if self.bit(model + 1, next)? == 0 {
            (8, model + 2 + 8, 3)
        } else {
            (16, model + 2 + 16, 8)
        };
        Ok(base + self.tree(from, bits, next)?)
    }

    fn distance<E>(
        &mut self,
        length: u32,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<u32, LzmaError<E>> {
        let class = length.min(3) as usize;
        let slot = self.tree(DISTANCE_SLOT + class * 64, 6, next)?;
        if slot < 4 {
            return Ok(slot);
        }
        let bits = slot / 2 - 1;
        let base = (2 | slot & 1) << bits;
        if slot < 14 {
            let from = DISTANCE_SPECIAL + (base - slot) as usize;
            return Ok(base + self.tree_reversed(from, bits, next)?);
        }
        let high = self.coder.direct(bits - ALIGN_BITS, next)? << ALIGN_BITS;
        Ok(base.wrapping_add(high).wrapping_add(self.tree_reversed(ALIGN, ALIGN_BITS, next)?))
    }

    fn tree<E>(
        &mut self,
        from: usize,
        bits: u32,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<u32, LzmaError<E>> {
        let mut symbol = 1;
        for _ in 0..bits {
            symbol = symbol << 1 | self.bit(from + symbol, next)?;
        }
        Ok(narrow(symbol) - (1 << bits))
    }

    fn tree_reversed<E>(
        &mut self,
        from: usize,
        bits: u32,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<u32, LzmaError<E>> {
        let (mut node, mut symbol) = (1, 0);
        for at in 0..bits {
            let bit = self.bit(from + node, next)?;
            node = node << 1 | bit;
            symbol |= narrow(bit) << at;
        }
        Ok(symbol)
    }

    fn bit<E>(
        &mut self,
        at: usize,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<usize, LzmaError<E>> {
        self.coder.bit(&mut self.model[at % MODEL_LEN], next)
    }

    /// The byte that came out so long ago; 0 is the last one.
    const fn back(&self, distance: u32) -> u8 {
        let at = self.out_bytes.wrapping_sub(distance).wrapping_sub(1) as usize;
        self.dictionary[at % DICTIONARY_BYTES]
    }

    const fn put(&mut self, byte: u8) -> u8 {
        self.dictionary[self.out_bytes as usize % DICTIONARY_BYTES] = byte;
        self.out_bytes = self.out_bytes.wrapping_add(1);
        byte
    }
}

/// Bits out of bytes, by how likely each is.
#[derive(Debug, Clone)]
struct RangeDecoder {
    range: u32,
    code: u32,
    begun: bool,
}

impl RangeDecoder {
    fn begin<E>(&mut self, next: &mut impl FnMut() -> Result<u8, E>) -> Result<(), LzmaError<E>> {
        // An encoder has a carry for it, which never happens.
        if next().map_err(LzmaError::Input)? != 0 {
            return Err(LzmaError::Corrupt);
        }
        for _ in 0..4 {
            self.code = self.code << 8 | u32::from(next().map_err(LzmaError::Input)?);
        }
        self.begun = true;
        Ok(())
    }

    fn bit<E>(
        &mut self,
        likely: &mut u16,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<usize, LzmaError<E>> {
        self.fill(next)?;
        let bound = (self.range >> PROBABILITY_BITS) * u32::from(*likely);
        if self.code < bound {
            self.range = bound;
            *likely += ((1 << PROBABILITY_BITS) - *likely) >> LEARN_SHIFT;
            Ok(0)
        } else {
            self.range -= bound;
            self.code -= bound;
            *likely -= *likely >> LEARN_SHIFT;
            Ok(1)
        }
    }

    /// Bits that are as likely as not.
    fn direct<E>(
        &mut self,
        bits: u32,
        next: &mut impl FnMut() -> Result<u8, E>,
    ) -> Result<u32, LzmaError<E>> {
        let mut value = 0;
        for _ in 0..bits {
            self.fill(next)?;
            self.range >>= 1;
            let is_one = self.code >= self.range;
            self.code -= if is_one { self.range } else { 0 };
            value = value << 1 | u32::from(is_one);
        }
        Ok(value)
    }

    fn fill<E>(&mut self, next: &mut impl FnMut() -> Result<u8, E>) -> Result<(), LzmaError<E>> {
        if self.range < RANGE_MIN {
            self.range <<= 8;
            self.code = self.code << 8 | u32::from(next().map_err(LzmaError::Input)?);
        }
        Ok(())
    }
}

/// Symbols of a tree have at most 8 bits.
#[expect(clippy::cast_possible_truncation, reason = "symbols are short")]
const fn narrow(symbol: usize) -> u32 {
    symbol as u32
}

/// States below follow a literal.
const STATES_AFTER_LITERAL: usize = 7;
const STATES: usize = 12;
const MATCH_BYTES_MIN: u32 = 2;
const ALIGN_BITS: u32 = 4;

const PROBABILITY_BITS: u32 = 11;
const HALF: u16 = 1 << (PROBABILITY_BITS - 1);
const LEARN_SHIFT: u16 = 5;
const RANGE_MIN: u32 = 1 << 24;

// Where each part of the model begins.
const IS_MATCH: usize = 0;
const IS_REPEATED: usize = IS_MATCH + STATES;
const IS_LATEST: usize = IS_REPEATED + STATES;
const IS_SECOND: usize = IS_LATEST + STATES;
const IS_THIRD: usize = IS_SECOND + STATES;
const IS_LATEST_LONG: usize = IS_THIRD + STATES;
const DISTANCE_SLOT: usize = IS_LATEST_LONG + STATES;
const DISTANCE_SPECIAL: usize = DISTANCE_SLOT + 4 * 64;
const ALIGN: usize = DISTANCE_SPECIAL + 115;
const MATCH_LENGTH: usize = ALIGN + 16;
const LENGTH_LEN: usize = 2 + 8 + 8 + 256;
const REPEATED_LENGTH: usize = MATCH_LENGTH + LENGTH_LEN;
const LITERAL: usize = REPEATED_LENGTH + LENGTH_LEN;
const MODEL_LEN: usize = 2048;
const _: () = assert!(LITERAL + 0x300 <= MODEL_LEN);
