//! What bsdiff says of two images, as a list.

use alloc::vec::Vec;

use super::EncodeError;
use crate::varint;

/// Bytes of the new image that follow those of the old one, and new ones behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) old_at: usize,
    pub(super) new_at: usize,
    /// Bytes that the old image has too, more or less.
    pub(super) len: usize,
    /// Bytes that it has not.
    pub(super) extra: usize,
}

/// Copies that make all of `new`.
pub(super) fn find(old: &[u8], new: &[u8]) -> Result<Vec<Copy>, EncodeError> {
    let mut controls = Vec::new();
    bsdiff::diff(old, new, &mut controls).map_err(EncodeError::Encoder)?;
    let (mut rest, mut copies) = (controls.as_slice(), Vec::new());
    let (mut old_at, mut new_at) = (0_i64, 0);
    while new_at < new.len() {
        // Three numbers, as many differences as the first says, as many bytes as the second says.
        let number = |index: usize| {
            rest.get(index * 8..).and_then(<[u8]>::first_chunk).and_then(|it| sign_and_size(*it))
        };
        let (Some(len), Some(extra), Some(step)) = (number(0), number(1), number(2)) else {
            return Err(EncodeError::not_bsdiff());
        };
        let size = |number: i64| usize::try_from(number).map_err(|_| EncodeError::not_bsdiff());
        let copy = Copy { old_at: size(old_at)?, new_at, len: size(len)?, extra: size(extra)? };
        rest = rest.get(24 + copy.len + copy.extra..).ok_or_else(EncodeError::not_bsdiff)?;
        copies.push(copy);
        new_at += copy.len + copy.extra;
        old_at += len + step;
    }
    Ok(copies)
}

/// A number as bsdiff writes it: its size, and its sign in the highest bit.
fn sign_and_size(bytes: [u8; 8]) -> Option<i64> {
    let number = u64::from_le_bytes(bytes);
    let size = i64::try_from(number & (u64::MAX >> 1)).ok()?;
    Some(if number >> 63 == 0 { size } else { -size })
}

/// Appends all copies as a patch has them. What stands for a copy's bytes, `differences` appends.
pub(super) fn put(
    stream: &mut Vec<u8>,
    copies: &[Copy],
    new: &[u8],
    mut differences: impl FnMut(&mut Vec<u8>, &Copy),
) {
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    for (index, copy) in copies.iter().enumerate() {
        let Copy { new_at, len, extra, .. } = *copy;
        varint::put(stream, length(len));
        differences(stream, copy);
        if new_at + len == new.len() {
            break;
        }
        varint::put(stream, length(extra));
        stream.extend(new.get(new_at + len..new_at + len + extra).unwrap_or_default());
        if let Some(next) = copies.get(index + 1) {
            let step = length(next.old_at).wrapping_sub(length(copy.old_at + len));
            varint::put(stream, varint::from_signed(step.cast_signed()));
        }
    }
}

/// What copies say, byte by byte.
pub(super) fn plain_stream(copies: &[Copy], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(new.len() + new.len() / 64);
    put(&mut stream, copies, new, |stream, &Copy { old_at, new_at, len, .. }| {
        let old = old.get(old_at..old_at + len).unwrap_or_default();
        let new = new.get(new_at..new_at + len).unwrap_or_default();
        stream.extend(new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
    });
    stream
}
