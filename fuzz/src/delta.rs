//! Patches: any bytes as one, any stream under the compression that nobody guesses, and any two
//! images.
//!
//! The first byte chooses: a whole patch; what its body decompresses to, as one of either format;
//! or two images. The second byte says how long the old image is, in 16 bytes, the third into which
//! pieces the new one is pulled. What a body decompresses to has two bytes before it that say how
//! long the new image is to become.
//!
//! Promises: nothing outside the old image and the body is read, nothing beyond the new image is
//! made, and no more is taken out of a body than its header says; however it is pulled, the same
//! comes out or the same error; an image is as long as its header says; what an encoder made is
//! applied to the new image.

use std::cell::Cell;
use std::convert::Infallible;

use lockstep_delta::encode::{self, Image};
use lockstep_delta::{Apply, ApplyError, Format, HEADER_BYTES, Header, ID_BYTES, Input};

use crate::memory;

/// First byte of an input: a patch, as it would come.
pub const PATCH: u8 = 0;
/// First byte of an input: what the body of a plain patch decompresses to.
pub const PLAIN: u8 = 1;
/// First byte of an input: the same of one that knows of addresses.
pub const AWARE: u8 = 2;
/// First byte of an input: two images.
pub const IMAGES: u8 = 3;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&[choice, old, pieces], rest)) = data.split_first_chunk() else { return };
    let (old, rest) = rest.split_at((usize::from(old) * 16).min(rest.len()));
    memory::within(MEMORY_BYTES_MAX, || match choice % 4 {
        PATCH => check(rest, old, pieces),
        PLAIN => check(&patch_of(Format::Plain, rest, old), old, pieces),
        AWARE => check(&patch_of(Format::AddressAware, rest, old), old, pieces),
        _ => check_images(old, rest, pieces),
    });
}

/// A patch whose body decompresses to these bytes, and says so.
fn patch_of(format: Format, input: &[u8], old: &[u8]) -> Vec<u8> {
    let Some((&length, stream)) = input.split_first_chunk() else { return Vec::new() };
    let image = Image { bytes: stream, id: [0; ID_BYTES] };
    let Ok(compressed) = encode::full(&image) else { return Vec::new() };
    let body = compressed.get(HEADER_BYTES..).unwrap_or_default();
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let header = Header {
        format,
        old_bytes: size(old.len()),
        new_bytes: u16::from_le_bytes(length).into(),
        stream_bytes: size(stream.len()),
        body_bytes: size(body.len()),
        room_bytes: u32::MAX,
        old: [1; ID_BYTES],
        new: [2; ID_BYTES],
        body_sha256: [0; ID_BYTES],
    };
    [&header.encode()[..], body].concat()
}

fn check_images(old: &[u8], new: &[u8], pieces: u8) {
    let image = |bytes| Image { bytes, id: [3; ID_BYTES] };
    for patch in [
        encode::plain(&image(old), &image(new)),
        encode::smallest(&image(old), &image(new)),
        encode::full(&image(new)),
    ] {
        let patch = patch.expect("images of this size have patches");
        let header = Header::decode(&patch).expect("it was encoded");
        let old = if header.format == Format::Full { &[][..] } else { old };
        assert_eq!(apply(&header, &patch, old, pieces), Ok(new.to_vec()));
    }
}

fn check(patch: &[u8], old: &[u8], pieces: u8) {
    let header = match Header::decode(patch) {
        Ok(header) => header,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(header.encode()[..], patch[..HEADER_BYTES], "what decodes encodes");
    let is_whole = patch.len() - HEADER_BYTES >= header.body_bytes as usize;
    if !is_whole || header.old_bytes as usize != old.len() || header.new_bytes > NEW_BYTES_MAX {
        return;
    }
    let made = apply(&header, patch, old, pieces);
    assert_eq!(made, apply(&header, patch, old, 0), "pulled in other pieces");
    if let Err(error) = made {
        assert!(!error.to_string().is_empty());
    }
}

/// Pulls the whole image, in pieces.
fn apply(
    header: &Header,
    patch: &[u8],
    old: &[u8],
    pieces: u8,
) -> Result<Vec<u8>, ApplyError<Infallible>> {
    let reads = Cell::new(0);
    let mut input = Watched { header, body: &patch[HEADER_BYTES..], old, reads: &reads };
    let mut apply = Apply::new(*header);
    let (mut new, mut out) = (Vec::new(), [0; 257]);
    loop {
        let length = usize::from(pieces).wrapping_mul(7 + new.len() % 5) % out.len() + 1;
        let made = apply.pull(&mut input, &mut out[..length])?;
        assert_eq!(apply.made_bytes() as usize, new.len() + made);
        assert!(apply.taken_bytes() <= header.body_bytes);
        new.extend(&out[..made]);
        assert!(new.len() <= header.new_bytes as usize);
        if made == 0 {
            assert_eq!(new.len(), header.new_bytes as usize);
            return Ok(new);
        }
    }
}

/// Reads only where there is something, and only so often.
struct Watched<'a> {
    header: &'a Header,
    body: &'a [u8],
    old: &'a [u8],
    reads: &'a Cell<u64>,
}

impl Watched<'_> {
    /// Each byte that comes out costs a few reads at most.
    fn count(&self) {
        self.reads.set(self.reads.get() + 1);
        let bytes = u64::from(self.header.stream_bytes) + u64::from(self.header.body_bytes);
        assert!(self.reads.get() <= 4 * bytes + 64, "{} reads", self.reads.get());
    }
}

impl Input for Watched<'_> {
    type Error = Infallible;

    fn body(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Infallible> {
        self.count();
        let (from, to) = (offset as usize, offset as usize + into.len());
        assert!(to <= self.header.body_bytes as usize, "{from}..{to} of the body");
        into.copy_from_slice(&self.body[from..to]);
        Ok(())
    }

    fn old(&mut self, offset: u32, into: &mut [u8]) -> Result<(), Infallible> {
        self.count();
        let (from, to) = (offset as usize, offset as usize + into.len());
        assert!(to <= self.header.old_bytes as usize, "{from}..{to} of the old image");
        into.copy_from_slice(&self.old[from..to]);
        Ok(())
    }
}

/// A header may say 4 GiB; that is not waited for.
const NEW_BYTES_MAX: u32 = 64 * 1024;
/// Suffix arrays and an encoder of LZMA with a small dictionary.
const MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
