//! Finds a block of 128 bytes in a stream by its magic, however the stream is cut.

/// Length of the blocks looked for: descriptor and `FMTA` alike.
const BLOCK_BYTES: usize = 128;
/// So many bytes are compared at once.
const STRIDE_BYTES: usize = 32;

/// Looks for the first block that `decode` accepts.
#[derive(Debug, Clone)]
pub(super) struct Scan<T> {
    magic: &'static [u8],
    decode: fn(&[u8]) -> Option<T>,
    /// The latest bytes that may yet become a block; always begins like the magic.
    held: heapless::Vec<u8, BLOCK_BYTES>,
    found: Option<T>,
}

impl<T> Scan<T> {
    /// `magic` begins every block, and has two bytes or more.
    pub(super) const fn new(magic: &'static [u8], decode: fn(&[u8]) -> Option<T>) -> Self {
        Self { magic, decode, held: heapless::Vec::new(), found: None }
    }

    pub(super) const fn found(&self) -> Option<&T> {
        self.found.as_ref()
    }

    pub(super) fn into_found(self) -> Option<T> {
        self.found
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while self.found.is_none() && !bytes.is_empty() {
            if self.held.is_empty() {
                let Some(candidate) = self.candidate(bytes) else { return };
                bytes = candidate;
            }
            // Up to the end of the magic first: most candidates are none, and cost little.
            let goal =
                if self.held.len() < self.magic.len() { self.magic.len() } else { BLOCK_BYTES };
            let (taken, rest) = bytes.split_at(bytes.len().min(goal - self.held.len()));
            bytes = rest;
            // Never beyond its capacity, since `goal` is not.
            if self.held.extend_from_slice(taken).is_err() {
                self.held.clear();
            }
            self.judge();
        }
    }

    /// What is left of `bytes` from the first place on where a magic may begin. Most of an image is
    /// none, so it is passed over in strides that the compiler compares at once; two bytes of each
    /// place, since one in 256 begins alike by chance.
    fn candidate<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (first, second) = (self.magic.first()?, self.magic.get(1)?);
        let mut rest = bytes;
        loop {
            let (stride, behind) = rest.split_at(rest.len().min(STRIDE_BYTES));
            let nexts = rest.get(1..).unwrap_or_default();
            if let (Ok(stride), Some(nexts)) = (stride.try_into(), nexts.first_chunk()) {
                if has_pair(stride, nexts, *first, *second) {
                    break;
                }
                rest = behind;
            } else {
                break;
            }
        }
        let begins = |start: &usize| {
            rest.get(*start) == Some(first) && rest.get(start + 1).is_none_or(|next| next == second)
        };
        let start = (0..rest.len()).find(begins)?;
        rest.get(start..)
    }

    /// Keeps what may become a block and lets go of the rest.
    fn judge(&mut self) {
        if self.held.len() == BLOCK_BYTES {
            self.found = (self.decode)(&self.held);
            if self.found.is_some() {
                return;
            }
            self.drop_to_next(1);
        } else {
            self.drop_to_next(0);
        }
    }

    /// Lets go of everything before the first place, at or behind `from`, where a magic may begin.
    fn drop_to_next(&mut self, from: usize) {
        let may_begin = |start: &usize| {
            self.held.iter().skip(*start).zip(self.magic).all(|(held, magic)| held == magic)
        };
        let start = (from..self.held.len()).find(may_begin).unwrap_or(self.held.len());
        self.held.rotate_left(start);
        self.held.truncate(self.held.len() - start);
    }
}

/// Whether `first` is followed by `second` anywhere; `nexts` begins one byte behind `stride`.
fn has_pair(
    stride: &[u8; STRIDE_BYTES],
    nexts: &[u8; STRIDE_BYTES],
    first: u8,
    second: u8,
) -> bool {
    // No way out in between: that is what lets it be done for all at once.
    stride
        .iter()
        .zip(nexts)
        .fold(false, |found, (&byte, &next)| found | ((byte == first) & (next == second)))
}
