//! What is known of images without a descriptor: most firmware in the field has none, so a device
//! remembers what a manifest said of an image when it was staged.
//!
//! Durable in one entry of the record; layout, little endian: number of images u8, then 48 bytes
//! each: image hash 32, version number 4, minimum 4, protocol minimum and maximum 2, config schema
//! 2, 4 bytes for later versions.

use alloc::vec::Vec;

use lockstep_agent::record::Kind;
use lockstep_proto::compat::Announced;
use lockstep_proto::id::ImageHash;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::{Full, Reader, TooShort, Writer};

/// What a manifest said of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownImage {
    /// The image.
    pub image: ImageHash,
    /// Version, minimum, protocol range.
    pub announced: Announced,
    /// Layout version of its configuration.
    pub config_schema: u16,
}

/// The images of both slots, and the one that is coming.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownImages {
    images: Vec<KnownImage>,
}

impl KnownImages {
    /// What is known of `image`.
    pub fn get(&self, image: ImageHash) -> Option<&KnownImage> {
        self.images.iter().find(|known| known.image == image)
    }

    /// Remembers an image; the oldest goes when there are too many. `true` if something changed.
    pub fn learn(&mut self, image: KnownImage) -> bool {
        if self.images.contains(&image) {
            return false;
        }
        self.images.retain(|known| known.image != image.image);
        self.images.insert(0, image);
        self.images.truncate(IMAGES_MAX);
        true
    }

    /// Writes the entry and returns its length in bytes.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(buffer);
        writer.u8(u8::try_from(self.images.len()).unwrap_or(u8::MAX))?;
        for known in &self.images {
            writer.put(&known.image.0)?;
            writer.u32(known.announced.number)?;
            writer.u32(known.announced.min_compatible)?;
            writer.u8(known.announced.protocol.min())?;
            writer.u8(known.announced.protocol.max())?;
            writer.u16(known.config_schema)?;
            writer.u32(0)?;
        }
        Ok(writer.len_bytes())
    }

    /// Reads the entry; what is not whole is left out, and what is more than is remembered.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut reader = Reader::new(bytes);
        let count = reader.u8().unwrap_or(0);
        let images = (0..count).map_while(|_| take(&mut reader).ok().flatten());
        Self { images: images.take(IMAGES_MAX).collect() }
    }
}

fn take(reader: &mut Reader<'_>) -> Result<Option<KnownImage>, TooShort> {
    let image = ImageHash(reader.array()?);
    let (number, min_compatible) = (reader.u32()?, reader.u32()?);
    let (min, max) = (reader.u8()?, reader.u8()?);
    let config_schema = reader.u16()?;
    reader.u32()?;
    Ok(ProtocolRange::new(min, max).ok().map(|protocol| KnownImage {
        image,
        announced: Announced { number, min_compatible, protocol },
        config_schema,
    }))
}

/// Images remembered.
pub const IMAGES_MAX: usize = 4;
/// Bytes of the entry at its longest.
pub const IMAGES_BYTES_MAX: usize = 1 + IMAGES_MAX * 48;
/// The record's kind of this entry.
pub const ENTRY_IMAGES: Kind = Kind::IMAGES;

#[cfg(test)]
mod tests {
    use super::*;

    fn known(byte: u8) -> KnownImage {
        KnownImage {
            image: ImageHash([byte; 32]),
            announced: Announced {
                number: 10_203,
                min_compatible: 10_000,
                protocol: ProtocolRange::new(1, 2).unwrap(),
            },
            config_schema: 5,
        }
    }

    /// Devices in the field have this in their flash.
    #[test]
    fn the_bytes_of_known_images_are_frozen() {
        let mut images = KnownImages::default();
        assert!(images.learn(known(0xAB)) && !images.learn(known(0xAB)));
        let mut buffer = [0; IMAGES_BYTES_MAX];
        let len = images.encode(&mut buffer).unwrap();
        let mut frozen = alloc::vec![1];
        frozen.extend([0xAB; 32]);
        frozen.extend([0xDB, 0x27, 0, 0, 0x10, 0x27, 0, 0, 1, 2, 5, 0, 0, 0, 0, 0]);
        assert_eq!(buffer[..len], frozen);
        assert_eq!(KnownImages::decode(&frozen), images);
    }

    // Found by fuzzing: a later version may remember more, and this one could not write them back.
    #[test]
    fn an_entry_with_more_images_than_are_remembered_keeps_the_first() {
        let one = |byte| [&[byte; 32][..], &[0; 8], &[1, 2], &[0; 6]].concat();
        let entry = [&[5][..], &(1..=5).flat_map(one).collect::<Vec<u8>>()].concat();
        let images = KnownImages::decode(&entry);
        assert_eq!(images.encode(&mut [0; IMAGES_BYTES_MAX]), Ok(IMAGES_BYTES_MAX));
        let is_known = |byte| images.get(ImageHash([byte; 32])).is_some();
        assert!(is_known(1) && is_known(4) && !is_known(5));
    }

    #[test]
    fn the_oldest_image_makes_room_for_a_fifth() {
        let mut images = KnownImages::default();
        (0..5).for_each(|byte| assert!(images.learn(known(byte))));
        assert!(images.get(ImageHash([0; 32])).is_none());
        assert!((1..5).all(|byte| images.get(ImageHash([byte; 32])).is_some()));
    }
}
