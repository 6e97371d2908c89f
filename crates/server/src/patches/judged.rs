//! A patch as it comes in a bundle. One that is of no use is no danger to any device; here whoever
//! made it is told.

use lockstep_delta::encode;
use lockstep_delta::{Format, HEADER_BYTES, Header, HeaderError};
use lockstep_proto::bundle::patch_name;
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::manifest::DeviceEntry;
use sha2::Digest as _;

use crate::bundle::Problem;

/// A patch of a bundle, as far as it was there.
#[derive(Debug)]
pub struct ReadPatch {
    /// The role in its name.
    pub role: String,
    /// The tag in its name.
    pub tag: String,
    /// What it says of itself.
    pub header: Result<Header, HeaderError>,
    /// How long it is.
    pub size_bytes: usize,
    body: Sha256,
    /// SHA-256 of what comes of it; only of what needs no base.
    made: Option<Result<Sha256, String>>,
}

impl ReadPatch {
    /// All of a patch is there.
    pub fn new(role: String, tag: String, bytes: &[u8]) -> Self {
        let header = Header::decode(bytes);
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let is_tried = header.as_ref().is_ok_and(|header| {
            header.format == Format::Full && header.new_bytes <= TRIED_BYTES_MAX
        });
        let made = is_tried.then(|| {
            let made = encode::apply(bytes, &[]).map_err(|fault| fault.to_string());
            made.map(|image| Sha256(sha2::Sha256::digest(image).into()))
        });
        let (size_bytes, body) = (bytes.len(), Sha256(sha2::Sha256::digest(body).into()));
        Self { role, tag, header, size_bytes, body, made }
    }

    /// The image that it is applied to; `None`: any, or nobody knows.
    pub fn base(&self) -> Option<ImageHash> {
        let header = self.header.as_ref().ok()?;
        (header.format != Format::Full).then_some(ImageHash(header.old))
    }

    /// What is wrong with it.
    pub fn problem(&self, entry: &DeviceEntry<'_>) -> Option<Problem> {
        let why = self.why(entry)?;
        let name = patch_name(&self.role, &self.tag);
        Some(Problem::hinted(format!("`{name}` {why}"), Some(HINT)))
    }

    fn why(&self, entry: &DeviceEntry<'_>) -> Option<String> {
        let header = match &self.header {
            Ok(header) => header,
            Err(error) => return Some(format!("is no patch: {error}")),
        };
        let (found, said) = (self.size_bytes, HEADER_BYTES as u64 + u64::from(header.body_bytes));
        if found as u64 != said {
            return Some(format!("has {found} bytes, its header says {said}"));
        }
        let said = Sha256(header.body_sha256);
        if self.body != said {
            return Some(format!("has the body {}, its header says {said}", self.body));
        }
        let (made, named) = (ImageHash(header.new), entry.image_sha256);
        if let Some(named) = named.filter(|named| *named != made) {
            return Some(format!("makes the image {made}, the manifest names {named}"));
        }
        let (made, named) = (header.new_bytes, entry.firmware_size);
        if made != named {
            return Some(format!("makes an image of {made} bytes, the manifest says {named}"));
        }
        match (&self.made, entry.sha256) {
            (Some(Err(fault)), _) => Some(format!("cannot be applied: {fault}")),
            (Some(Ok(made)), Some(named)) if *made != named => {
                Some(format!("makes a file {made}, the manifest names {named}"))
            }
            _ => None,
        }
    }
}

/// No image is larger; a patch of few bytes may say that it makes 4 GiB.
const TRIED_BYTES_MAX: u32 = 16 * 1024 * 1024;
const HINT: &str =
    "Make the bundle again: `lockstep release create --from` makes its patches anew.";

#[cfg(test)]
mod tests {
    use lockstep_delta::encode::Image;
    use lockstep_proto::manifest::{Trust, verify};

    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../../../proto/tests/golden/release/manifest.json");

    fn why(patch: &[u8], change: impl Fn(&mut DeviceEntry<'_>)) -> Option<String> {
        let manifest = verify(GOLDEN, &[], &Trust::anybody()).unwrap();
        let mut entry = manifest.devices.iter().next().unwrap().clone();
        (entry.image_sha256, entry.firmware_size) = (Some(ImageHash([2; 32])), 4_000);
        entry.sha256 = Some(Sha256(sha2::Sha256::digest(image()).into()));
        change(&mut entry);
        ReadPatch::new("receiver".into(), "full".into(), patch).why(&entry)
    }

    fn image() -> Vec<u8> {
        (0..4_000_u32).map(|at| (at / 7).to_le_bytes()[0]).collect()
    }

    fn full() -> Vec<u8> {
        encode::full(&Image { bytes: &image(), id: [2; 32] }).unwrap()
    }

    fn changed(change: impl Fn(&mut Header, &mut Vec<u8>)) -> Vec<u8> {
        let mut body = full();
        let mut header = Header::decode(&body).unwrap();
        body.drain(..HEADER_BYTES);
        change(&mut header, &mut body);
        [&header.encode()[..], &body].concat()
    }

    #[test]
    fn whatever_is_wrong_with_a_patch_is_said_with_both_values() {
        assert_eq!(why(&full(), |_| ()), None);
        let said = |patch: &[u8]| why(patch, |_| ()).unwrap();
        assert!(said(b"PK").starts_with("is no patch"), "{}", said(b"PK"));
        let cut = &full()[..200];
        assert!(said(cut).starts_with("has 200 bytes, its header says"), "{}", said(cut));
        let flipped = changed(|_, body| body[40] ^= 1);
        assert!(said(&flipped).starts_with("has the body "), "{}", said(&flipped));
        let broken = changed(|header, body| {
            body[40] ^= 1;
            header.body_sha256 = sha2::Sha256::digest(&*body).into();
        });
        assert!(
            said(&broken).contains("cannot be applied") || said(&broken).contains("makes a file")
        );
        let endless = changed(|header, _| {
            (header.new_bytes, header.stream_bytes) = (u32::MAX, u32::MAX);
            header.room_bytes = u32::MAX;
        });
        assert_eq!(said(&endless), "makes an image of 4294967295 bytes, the manifest says 4000");
        let other = why(&full(), |entry| entry.image_sha256 = Some(ImageHash([3; 32]))).unwrap();
        assert!(other.starts_with("makes the image 0202"), "{other}");
        let longer = why(&full(), |entry| entry.firmware_size = 4_001).unwrap();
        assert_eq!(longer, "makes an image of 4000 bytes, the manifest says 4001");
        let file = why(&full(), |entry| entry.sha256 = Some(Sha256([9; 32]))).unwrap();
        assert!(file.starts_with("makes a file ") && file.contains("names 0909"), "{file}");
    }
}
