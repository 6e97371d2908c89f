//! ESP images, as a file in pieces and as they lie in a slot; the blocks inside them.
//!
//! The first byte chooses what the harness adds, since nobody guesses a SHA-256: nothing, the
//! checksum and hash behind the fuzzer's segments, or a whole image around the fuzzer's data. The
//! second says how many of the next bytes are lengths of pieces, the third where the slot ends.
//!
//! Promises: however a file is cut, it means the same; a slot holds the image that the file is;
//! the hash read at boot is the hash of the whole walk; what was built is read back field by
//! field; blocks are found wherever they stand; descriptor, application description and header
//! survive being written again.

use lockstep_proto::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use lockstep_proto::fmta::Fmta;
use lockstep_proto::image::{
    APP_DESCRIPTION_BYTES, AppDescription, HEADER_BYTES, ImageError, ImageFacts, ImageHeader,
    ImageReader, ImageSpec, Segment, build_image, quick_hash, read_image,
};
use lockstep_proto::text::FixedText;
use sha2::{Digest, Sha256};

use crate::{memory, stream};

/// First byte of an input: what follows is a file.
pub const FILE: u8 = 0;
/// First byte of an input: what follows is an image without checksum and hash.
pub const UNSEALED: u8 = 1;
/// First byte of an input: what follows is what an image is made from.
pub const PARTS: u8 = 2;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&[choice, count, shorter], rest)) = data.split_first_chunk() else { return };
    let (lengths, bytes) = rest.split_at(usize::from(count % 8).min(rest.len()));
    memory::within(MEMORY_BYTES_MAX, || {
        check_blocks(bytes);
        match choice % 3 {
            FILE => check(bytes, lengths, shorter),
            UNSEALED => check(&sealed(bytes), lengths, shorter),
            _ => check_built(bytes, lengths),
        }
    });
}

fn check(file: &[u8], lengths: &[u8], shorter: u8) {
    let whole = read(file, &[]);
    assert_eq!(whole, read(file, lengths), "cut into {lengths:?}");
    match &whole {
        Ok(facts) => check_facts(facts, file),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    check_slot(file, &whole, shorter);
}

fn read(file: &[u8], lengths: &[u8]) -> Result<ImageFacts, ImageError> {
    let mut reader = ImageReader::new();
    for piece in stream::pieces(file, lengths) {
        if let Err(error) = reader.push(piece) {
            assert_eq!(reader.push(b"more"), Err(error), "an error is final");
            assert_eq!(reader.finish(), Err(error));
            return Err(error);
        }
    }
    reader.finish()
}

fn check_facts(facts: &ImageFacts, file: &[u8]) {
    assert!(facts.size_bytes as usize <= file.len());
    assert_eq!(facts.file_sha256.0, <[u8; 32]>::from(Sha256::digest(file)));
    let header = facts.header.encode();
    assert_eq!(header[..HEADER_BYTES as usize - 1], file[..HEADER_BYTES as usize - 1]);
    if let Some(app) = facts.app {
        assert_eq!(AppDescription::decode(&app.encode()), Some(app));
    }
    // The reader looks for blocks in strides and in pieces, this in every place.
    let end = Data::of(file).expect("an image").image_end();
    let places = || (0..end).map(|at| &file[at..end]);
    assert_eq!(facts.fmta, places().find_map(Fmta::decode));
    assert_eq!(facts.descriptor, places().find_map(|bytes| Descriptor::decode(bytes).ok()));
}

/// The file at the start of a slot that is erased behind it, or too small for it.
fn check_slot(file: &[u8], whole: &Result<ImageFacts, ImageError>, shorter: u8) {
    let limit = (file.len() + SLACK_BYTES).saturating_sub(usize::from(shorter) * 64);
    let mut slot = file[..file.len().min(limit)].to_vec();
    slot.resize(limit, 0xFF);
    let limit_bytes = u32::try_from(limit).expect("a short file");
    let look = |offset: u32, buffer: &mut [u8]| -> Result<(), ()> {
        let bytes = slot.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.expect("never beyond the limit"));
        Ok(())
    };
    let found = read_image(limit_bytes, look).expect("flash in memory");
    let quick = quick_hash(limit_bytes, look).expect("flash in memory");
    if let Ok(found) = &found {
        assert!(found.size_bytes <= limit_bytes);
        assert_eq!(quick, Ok(found.image_hash));
    }
    if let (Ok(file), true) = (whole, limit >= file.len()) {
        let found = found.expect("what is an image in a file is one in a slot");
        assert_eq!((found.image_hash, found.header), (file.image_hash, file.header));
        assert_eq!((found.app, found.fmta), (file.app, file.fmta));
        assert_eq!(
            (found.descriptor, found.size_bytes),
            (file.descriptor.clone(), file.size_bytes)
        );
    }
}

/// Completes an image: padding, checksum, and the hash if the header says that there is one.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    let Some(Data { end, checksum, hash_appended }) = Data::of(bytes) else { return file };
    let behind = file.split_off(end);
    file.resize((end + 1).next_multiple_of(16) - 1, 0);
    file.push(checksum);
    if hash_appended {
        let hash = Sha256::digest(&file);
        file.extend(hash);
    }
    file.extend(behind);
    file
}

/// The segments of an image.
struct Data {
    end: usize,
    checksum: u8,
    hash_appended: bool,
}

impl Data {
    fn of(file: &[u8]) -> Option<Self> {
        let header = ImageHeader::parse(file).ok()?;
        let (mut end, mut checksum) = (HEADER_BYTES as usize, 0xEF);
        for _ in 0..header.segment_count {
            let length = file.get(end + 4..end + 8)?.first_chunk()?;
            let length = u32::from_le_bytes(*length) as usize;
            let data = file.get(end + 8..(end + 8).saturating_add(length))?;
            checksum = data.iter().fold(checksum, |sum, byte| sum ^ byte);
            end += 8 + length;
        }
        Some(Self { end, checksum, hash_appended: header.hash_appended })
    }

    /// Where the image ends; what follows is padding and signatures.
    fn image_end(&self) -> usize {
        (self.end + 1).next_multiple_of(16) + if self.hash_appended { 32 } else { 0 }
    }
}

/// The first three bytes say where the segments end; the descriptions come from the bytes too.
fn check_built(bytes: &[u8], lengths: &[u8]) {
    let Some((&[first, second, flags], data)) = bytes.split_first_chunk() else { return };
    let (one, rest) = data.split_at(usize::from(first).min(data.len()));
    let (two, three) = rest.split_at(usize::from(second).min(rest.len()));
    let text = FixedText::from_bytes(field(data));
    let app = AppDescription::named(text, FixedText::from_bytes(field(rest)));
    let descriptor = Descriptor::decode(data).ok();
    let segments = [one, two, three].map(|data| Segment { load_address: 0x3F40_0020, data });
    let Ok(header) = ImageHeader::parse(&[&[0xE9, 1][..], &field::<22>(data)].concat()) else {
        return;
    };
    let spec = ImageSpec {
        header,
        app: &app,
        descriptor: descriptor.as_ref(),
        segments: &segments[..1 + usize::from(flags % 3)],
    };
    let mut file = Vec::new();
    let built =
        build_image(&spec, &mut |bytes| file.extend_from_slice(bytes)).expect("short segments");
    assert_eq!(built.size_bytes as usize, file.len());
    assert_eq!(spec.size_bytes(), Ok(built.size_bytes));
    let facts = read(&file, lengths).expect("what we build we can read");
    assert_eq!((facts.image_hash, facts.size_bytes), (built.image_hash, built.size_bytes));
    assert_eq!(facts.app, Some(app));
    assert!(descriptor.is_none() || facts.descriptor == descriptor);
}

fn field<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|index| bytes.get(index).copied().unwrap_or_default())
}

fn check_blocks(bytes: &[u8]) {
    match Descriptor::decode(bytes) {
        Ok(descriptor) => {
            let written = descriptor.encode();
            assert_eq!(Descriptor::decode(&written), Ok(descriptor.clone()));
            assert_eq!(written[..8], bytes[..8]);
            assert_eq!(descriptor.announced().number, descriptor.version.number());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // The fuzzer does not guess the CRC either.
    if let Some(block) = bytes.first_chunk::<DESCRIPTOR_BYTES>() {
        let _ = Descriptor::decode(&with_crc(*block));
    }
    if let Some(app) = bytes.get(..APP_DESCRIPTION_BYTES).and_then(AppDescription::decode) {
        assert_eq!(AppDescription::decode(&app.encode()), Some(app));
        let _ = (app.version.to_string(), app.project.to_string());
    }
    if let Some(fmta) = Fmta::decode(bytes) {
        let _ = (fmta.version(), fmta.env_name.to_string());
    }
}

fn with_crc(mut block: [u8; DESCRIPTOR_BYTES]) -> [u8; DESCRIPTOR_BYTES] {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let (covered, place) = block.split_at_mut(DESCRIPTOR_BYTES - 4);
    place.copy_from_slice(&crc.checksum(covered).to_le_bytes());
    block
}

/// Room for a sector with signatures behind the longest file.
const SLACK_BYTES: usize = 8 * 1024;
const MEMORY_BYTES_MAX: usize = 512 * 1024;
