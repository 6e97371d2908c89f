//! The manifest package: a manifest with its signatures, in the form in which it travels to members
//! and lies in their flash.
//!
//! `manifest length u16, manifest, number of signatures u8, then each: length u16, minisign text`.
//! Its SHA-256 names it, in orders and as the session of its blocks. In flash it stands behind a
//! header that is written last, so a package that was cut is plainly none. Whether to believe a
//! package is decided by `lockstep_proto::manifest::verify`.

use core::fmt;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::id::Sha256;
use lockstep_proto::manifest::{
    GENERATION_TEXT_BYTES_MAX, GenerationHash, GenerationHashes, SIGNATURES_MAX,
};
use lockstep_proto::wire::{Full, Reader, TooShort, Writer};
use sha2::Digest as _;

use crate::flash::{self, CRC, FlashFault, Region, SECTOR_BYTES, bytes_u32};
use crate::layout::PACKAGE_STORE_BYTES;
use crate::slot::sha256_of;

/// The largest package, in bytes.
pub const PACKAGE_SIZE_BYTES_MAX: usize = (PACKAGE_STORE_BYTES - HEADER_BYTES) as usize;

/// A manifest with its signatures, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package<'a> {
    /// The bytes of `manifest.json`.
    pub manifest: &'a [u8],
    /// One minisign file each.
    pub signatures: heapless::Vec<&'a [u8], SIGNATURES_MAX>,
}

impl<'a> Package<'a> {
    /// Takes a package apart; its parts are not looked into.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PackageError> {
        if bytes.len() > PACKAGE_SIZE_BYTES_MAX {
            return Err(PackageError::TooLarge { found_bytes: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let length = usize::from(reader.u16()?);
        let manifest = reader.take(length)?;
        let count = reader.u8()?;
        let mut signatures = heapless::Vec::new();
        for _ in 0..count {
            let length = usize::from(reader.u16()?);
            let signature = reader.take(length)?;
            signatures
                .push(signature)
                .map_err(|_| PackageError::TooManySignatures { found: usize::from(count) })?;
        }
        match reader.rest().len() {
            0 => Ok(Self { manifest, signatures }),
            found_bytes => Err(PackageError::Trailing { found_bytes }),
        }
    }

    /// Writes the package of a manifest and its signatures and returns its length.
    pub fn write(
        manifest: &[u8],
        signatures: &[&[u8]],
        buffer: &mut [u8],
    ) -> Result<usize, PackageError> {
        let found = signatures.len();
        let too_many = PackageError::TooManySignatures { found };
        let count = u8::try_from(found).map_err(|_| too_many)?;
        if found > SIGNATURES_MAX {
            return Err(too_many);
        }
        let limit = buffer.len().min(PACKAGE_SIZE_BYTES_MAX);
        let mut writer = Writer::new(buffer.get_mut(..limit).unwrap_or_default());
        put_part(&mut writer, manifest)?;
        writer.u8(count)?;
        signatures.iter().try_for_each(|signature| put_part(&mut writer, signature))?;
        Ok(writer.len_bytes())
    }
}

fn put_part(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), PackageError> {
    let too_large = PackageError::TooLarge { found_bytes: bytes.len() };
    writer.u16(u16::try_from(bytes.len()).map_err(|_| too_large)?)?;
    Ok(writer.put(bytes)?)
}

/// What names a package.
pub fn digest(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// Why bytes are not a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageError {
    /// They end too early.
    TooShort(TooShort),
    /// More than a device holds.
    TooLarge {
        /// Bytes of the package, or of the part that is too long.
        found_bytes: usize,
    },
    /// More signatures than a device looks at.
    TooManySignatures {
        /// How many there are.
        found: usize,
    },
    /// Something follows the last signature.
    Trailing {
        /// How many bytes.
        found_bytes: usize,
    },
    /// The buffer to write into is too small.
    Full(Full),
}

impl From<TooShort> for PackageError {
    fn from(cause: TooShort) -> Self {
        Self::TooShort(cause)
    }
}

impl From<Full> for PackageError {
    fn from(cause: Full) -> Self {
        Self::Full(cause)
    }
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(_) => write!(f, "`package` is cut short"),
            Self::TooLarge { found_bytes } => write!(
                f,
                "`package` has {found_bytes} bytes, the limit is {PACKAGE_SIZE_BYTES_MAX}"
            ),
            Self::TooManySignatures { found } => {
                write!(f, "`package` has {found} signatures, the limit is {SIGNATURES_MAX}")
            }
            Self::Trailing { found_bytes } => {
                write!(f, "`package` is followed by {found_bytes} bytes, expected none")
            }
            Self::Full(_) => write!(f, "`package` does not fit its buffer"),
        }
    }
}

impl core::error::Error for PackageError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::TooShort(cause) => Some(cause),
            Self::Full(cause) => Some(cause),
            Self::TooLarge { .. } | Self::TooManySignatures { .. } | Self::Trailing { .. } => None,
        }
    }
}

/// Where a package's bytes go in its store.
pub(crate) const fn body(store: Region) -> u32 {
    store.offset + HEADER_BYTES
}

/// Where in flash the hashes of an artifact's generations stand: inside of the stored package, as
/// text. They are read when they are needed, one at a time, so that a long list costs no memory.
/// Should that part of the flash be spoilt, or another package take its place, generations are
/// found wrong that are right, and a wrong image still is no image: in the end the whole file is
/// judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GenerationList {
    offset: u32,
}

impl GenerationList {
    /// The place of `hashes`, which were read from `package`, the bytes of the store's body.
    /// `None`: they stand elsewhere.
    pub(crate) fn of(hashes: &GenerationHashes<'_>, package: &[u8], store: Region) -> Option<Self> {
        let at = hashes.text().as_ptr().addr().checked_sub(package.as_ptr().addr())?;
        let is_inside = package.get(at..)?.starts_with(hashes.text().as_bytes());
        is_inside.then(|| Self { offset: body(store) + bytes_u32(at) })
    }

    /// What a generation must be. `None`: what stands there is no such hash.
    pub(crate) fn read<F: ReadNorFlash>(
        self,
        generation: u16,
        flash: &mut F,
    ) -> Result<Option<GenerationHash>, FlashFault> {
        let place = GenerationHashes::place(generation);
        let mut part = [0; GENERATION_TEXT_BYTES_MAX];
        let part = part.get_mut(..place.len()).unwrap_or_default();
        flash::read(flash, self.offset + bytes_u32(place.start), part)?;
        Ok(GenerationHashes::read(generation, part))
    }
}

/// Writes a package into its store: the one before it is gone from here on, the new one is there
/// when the header is.
pub(crate) fn store<F: NorFlash>(
    flash: &mut F,
    store: Region,
    bytes: &[u8],
) -> Result<(), FlashFault> {
    for sector in (store.offset..store.end()).step_by(SECTOR_BYTES as usize) {
        flash::erase(flash, sector, sector + SECTOR_BYTES)?;
    }
    flash::write(flash, body(store), bytes)?;
    flash::verify(flash, body(store), bytes)?;
    write_header(flash, store, bytes_u32(bytes.len()), &digest(bytes))
}

/// Makes the bytes that stand in the store's body a package.
pub(crate) fn write_header<F: NorFlash>(
    flash: &mut F,
    store: Region,
    size_bytes: u32,
    digest: &Sha256,
) -> Result<(), FlashFault> {
    let header = header(size_bytes, digest);
    flash::write(flash, store.offset, &header)?;
    flash::verify(flash, store.offset, &header)
}

/// The size of the package in the store, if there is one and its bytes are the ones that `digest`
/// names.
pub(crate) fn find<F: ReadNorFlash>(
    flash: &mut F,
    store: Region,
) -> Result<Option<(u32, Sha256)>, FlashFault> {
    let mut found = [0; HEADER_BYTES as usize];
    flash::read(flash, store.offset, &mut found)?;
    let [_, _, _, _, a, b, c, d, ..] = found;
    let size_bytes = u32::from_le_bytes([a, b, c, d]);
    if !found.starts_with(&MAGIC) || size_bytes > PACKAGE_STORE_BYTES - HEADER_BYTES {
        return Ok(None);
    }
    let digest = sha256_of(flash, body(store), size_bytes)?;
    Ok((found == header(size_bytes, &digest)).then_some((size_bytes, digest)))
}

/// Reads the package in the store into `buffer`, whole and checked. `None`: there is none, or the
/// buffer is too small for it.
pub(crate) fn load<'b, F: ReadNorFlash>(
    flash: &mut F,
    store: Region,
    buffer: &'b mut [u8],
) -> Result<Option<&'b [u8]>, FlashFault> {
    let Some((size_bytes, _)) = find(flash, store)? else { return Ok(None) };
    let Some(bytes) = buffer.get_mut(..size_bytes as usize) else { return Ok(None) };
    flash::read(flash, body(store), bytes)?;
    Ok(Some(bytes))
}

/// Magic, length u32, the first 20 bytes of the digest, CRC-32 of all that.
fn header(size_bytes: u32, digest: &Sha256) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&size_bytes.to_le_bytes());
    header[8..28].copy_from_slice(&digest.0[..20]);
    let crc = CRC.checksum(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

const HEADER_BYTES: u32 = 32;
const MAGIC: [u8; 4] = *b"LSP1";

#[cfg(test)]
mod tests {
    use core::error::Error as _;
    use std::string::ToString;
    use std::vec;

    use lockstep_sim::flash::MemFlash;
    use proptest::prelude::*;

    use super::*;

    const STORE: Region = Region { offset: 0x1000, size_bytes: PACKAGE_STORE_BYTES };

    fn package() -> ([u8; 200], usize) {
        let mut buffer = [0; 200];
        let length = Package::write(b"{manifest}", &[b"first", b"second"], &mut buffer).unwrap();
        (buffer, length)
    }

    #[test]
    fn the_bytes_of_a_package_are_frozen() {
        let (buffer, length) = package();
        let expected = b"\x0a\0{manifest}\x02\x05\0first\x06\0second";
        assert_eq!(&buffer[..length], expected);
        let parsed = Package::parse(expected).unwrap();
        assert_eq!(parsed.manifest, b"{manifest}");
        assert_eq!(parsed.signatures[..], [&b"first"[..], b"second"]);
    }

    #[test]
    fn a_package_that_is_cut_or_continued_is_refused() {
        let (mut buffer, length) = package();
        for cut in 0..length {
            assert!(matches!(Package::parse(&buffer[..cut]), Err(PackageError::TooShort(_))));
        }
        buffer[length] = 1;
        let trailing = Err(PackageError::Trailing { found_bytes: 1 });
        assert_eq!(Package::parse(&buffer[..=length]), trailing);
    }

    #[test]
    fn a_package_that_does_not_fit_its_store_is_not_written() {
        let mut buffer = vec![0; 20_000];
        let manifest = vec![b' '; PACKAGE_SIZE_BYTES_MAX - 2];
        assert!(Package::write(&manifest, &[], &mut buffer).is_err());
        let length = Package::write(&manifest[1..], &[], &mut buffer).unwrap();
        assert_eq!(length, PACKAGE_SIZE_BYTES_MAX);
    }

    #[test]
    fn the_longest_package_fills_its_store_and_a_longer_one_is_none() {
        let mut buffer = vec![0; 20_000];
        let manifest = vec![b' '; 12_253];
        let length = Package::write(&manifest, &[], &mut buffer).unwrap();
        assert_eq!(Package::parse(&buffer[..length]).unwrap().manifest, manifest);
        let mut flash = MemFlash::new(STORE.end() + 0x1000);
        store(&mut flash, STORE, &buffer[..length]).unwrap();
        assert_eq!(body(STORE) + bytes_u32(length), STORE.end());
        let mut read = vec![0; length];
        assert_eq!(load(&mut flash, STORE, &mut read), Ok(Some(&buffer[..length])));

        let longer = &buffer[..=length];
        let too_large = PackageError::TooLarge { found_bytes: 12_257 };
        assert_eq!(Package::parse(longer), Err(too_large));
        store(&mut flash, STORE, longer).unwrap();
        assert_eq!(find(&mut flash, STORE), Ok(None));
    }

    #[test]
    fn a_package_has_no_more_signatures_than_a_device_looks_at() {
        let mut buffer = [0; 200];
        let signatures = [&b"one"[..]; SIGNATURES_MAX + 1];
        let (_, most) = signatures.split_first().unwrap();
        let length = Package::write(b"{}", most, &mut buffer).unwrap();
        assert_eq!(Package::parse(&buffer[..length]).unwrap().signatures[..], *most);
        let too_many = PackageError::TooManySignatures { found: SIGNATURES_MAX + 1 };
        assert_eq!(Package::write(b"{}", &signatures, &mut buffer), Err(too_many));
    }

    #[test]
    fn an_error_names_the_package_and_leaves_the_cause_to_its_source() {
        let short = Package::parse(b"\x0a\0{").unwrap_err();
        assert_eq!(short.to_string(), "`package` is cut short");
        assert_eq!(
            short.source().unwrap().to_string(),
            TooShort { wanted_bytes: 10, left_bytes: 1 }.to_string()
        );
        let full = Package::write(b"{}", &[], &mut [0; 3]).unwrap_err();
        assert_eq!(full.to_string(), "`package` does not fit its buffer");
        let cause = full.source().unwrap().to_string();
        assert_eq!(cause, Full { capacity_bytes: 3 }.to_string());
        let trailing = PackageError::Trailing { found_bytes: 1 };
        assert_eq!(trailing.to_string(), "`package` is followed by 1 bytes, expected none");
        assert!(trailing.source().is_none());
    }

    // The store's header is written last.
    #[test]
    fn a_cut_leaves_the_whole_old_package_or_none_or_the_whole_new_one() {
        let (buffer, length) = package();
        let mut start = MemFlash::new(0x5000);
        let old = b"an older package, whatever is in it";
        store(&mut start, STORE, old).unwrap();
        for budget in 0.. {
            let mut flash = start.clone();
            flash.power_budget_bytes = Some(budget);
            let result = store(&mut flash, STORE, &buffer[..length]);
            flash.power_on();
            let mut read = [0; 200];
            match load(&mut flash, STORE, &mut read).unwrap() {
                Some(bytes) if result.is_ok() => assert!(bytes == &buffer[..length]),
                Some(bytes) => assert!(bytes == old || bytes == &buffer[..length], "{budget}"),
                None => assert!(result.is_err(), "cut after {budget}"),
            }
            if result.is_ok() {
                return;
            }
        }
    }

    #[test]
    fn a_spoilt_package_is_none() {
        let (buffer, length) = package();
        let mut flash = MemFlash::new(0x5000);
        store(&mut flash, STORE, &buffer[..length]).unwrap();
        assert_eq!(find(&mut flash, STORE).unwrap().unwrap().1, digest(&buffer[..length]));
        flash.bytes[body(STORE) as usize + 3] ^= 1;
        assert_eq!(find(&mut flash, STORE).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Package::parse(&bytes);
        }
    }
}
