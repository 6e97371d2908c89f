//! Patches for the images of a bundle, as tests and worlds put them into it.

use lockstep_delta::encode::{self, Image};
use lockstep_proto::bundle::{BLOCK_BYTES, END, artifact_name, header, padding_bytes, patch_name};
use lockstep_proto::image::ImageReader;

/// What makes one image from another.
///
/// # Panics
///
/// If either is no image.
pub fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
    encode::smallest(&image(old), &image(new)).expect("images are of ordinary size")
}

/// An image, compressed.
///
/// # Panics
///
/// If it is no image.
pub fn full(new: &[u8]) -> Vec<u8> {
    encode::full(&image(new)).expect("images are of ordinary size")
}

fn image(bytes: &[u8]) -> Image<'_> {
    let mut reader = ImageReader::new();
    reader.push(bytes).expect("it is an image");
    Image { bytes, id: reader.finish().expect("it is an image").image_hash.0 }
}

/// The bundle with patches before the artifacts that they make: role, tag and bytes of each.
///
/// # Panics
///
/// If it is no bundle.
pub fn with_patches(bundle: &[u8], patches: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let (mut all, mut rest) = (Vec::new(), bundle);
    while !rest.starts_with(&END) {
        let (front, behind) = rest.split_at(BLOCK_BYTES);
        let name = front.split(|&byte| byte == 0).next().unwrap_or_default();
        for (role, tag, patch) in patches {
            if artifact_name(role).as_bytes() == name {
                let size_bytes = u32::try_from(patch.len()).expect("a short patch");
                all.extend(header(&patch_name(role, tag), size_bytes));
                all.extend(*patch);
                all.resize(all.len() + padding_bytes(size_bytes), 0);
            }
        }
        let size = front.iter().skip(SIZE_AT).take(SIZE_DIGITS);
        let size = size.fold(0, |size, digit| size * 8 + usize::from(digit & 7));
        let (contents, next) = behind.split_at(size.next_multiple_of(BLOCK_BYTES));
        all.extend(front);
        all.extend(contents);
        rest = next;
    }
    all.extend(rest);
    all
}

/// Where a tar header has the size of its entry, in octal digits.
const SIZE_AT: usize = 124;
const SIZE_DIGITS: usize = 11;
