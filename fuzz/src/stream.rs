//! A stream cut into pieces as the fuzzer likes.

/// Cuts `bytes` into pieces of these lengths, over and over; a length of 0 counts as 256, and no
/// lengths at all leave it whole.
pub(crate) fn pieces<'a>(bytes: &'a [u8], lengths: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let wanted = lengths.next().map_or(rest.len(), |&length| match length {
            0 => 256,
            length => usize::from(length),
        });
        let (piece, behind) = rest.split_at(wanted.min(rest.len()));
        rest = behind;
        Some(piece)
    })
}
