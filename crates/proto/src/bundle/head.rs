//! The head of a bundle, gathered from its stream: what must be whole in memory to be verified.

use super::{BundleError, Entry, EntryName, Event, MANIFEST_NAME, signature_name};
use crate::manifest::{
    MANIFEST_SIZE_BYTES_MAX, SIGNATURES_MAX, Trust, VerifiedManifest, VerifyError, verify,
};

/// Manifest and signatures, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Head {
    bytes: heapless::Vec<u8, HEAD_BYTES_MAX>,
    /// Where each entry ends; the first is the manifest.
    ends: heapless::Vec<usize, { 1 + SIGNATURES_MAX }>,
    is_open: bool,
}

impl Head {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { bytes: heapless::Vec::new(), ends: heapless::Vec::new(), is_open: false }
    }

    /// Takes what belongs to the head; events of artifacts pass by.
    pub fn take(&mut self, event: &Event<'_>) -> Result<(), BundleError> {
        match event {
            Event::Begin(Entry::Manifest { .. } | Entry::Signature { .. }) => {
                self.is_open = true;
                let end = self.bytes.len();
                self.ends.push(end).map_err(|_| self.too_large())
            }
            Event::Bytes(bytes) if self.is_open => {
                self.bytes.extend_from_slice(bytes).map_err(|_| self.too_large())?;
                let end = self.bytes.len();
                if let Some(last) = self.ends.last_mut() {
                    *last = end;
                }
                Ok(())
            }
            Event::EntryEnd => {
                self.is_open = false;
                Ok(())
            }
            Event::Begin(Entry::Artifact { .. } | Entry::Patch { .. })
            | Event::Bytes(_)
            | Event::HeadEnd
            | Event::End => Ok(()),
        }
    }

    /// The bytes of `manifest.json`.
    pub fn manifest(&self) -> &[u8] {
        let end = self.ends.first().copied().unwrap_or(0);
        self.bytes.get(..end).unwrap_or_default()
    }

    /// The signature files.
    pub fn signatures(&self) -> impl Iterator<Item = &[u8]> {
        let pairs = self.ends.iter().zip(self.ends.iter().skip(1));
        pairs.filter_map(|(&start, &end)| self.bytes.get(start..end))
    }

    /// [`verify`] of what was gathered.
    pub fn verify(&self, trust: &Trust) -> Result<VerifiedManifest<'_>, VerifyError> {
        let signatures: heapless::Vec<&[u8], SIGNATURES_MAX> = self.signatures().collect();
        verify(self.manifest(), &signatures, trust)
    }

    fn too_large(&self) -> BundleError {
        let entries = self.ends.len();
        let name = match entries.checked_sub(2) {
            Some(signature) => signature_name(signature),
            None => EntryName::try_from(MANIFEST_NAME).unwrap_or_default(),
        };
        let found = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        BundleError::TooLarge { name, found, max: HEAD_BYTES_MAX }
    }
}

/// A manifest, and eight signatures with comments of a usual length.
pub const HEAD_BYTES_MAX: usize = MANIFEST_SIZE_BYTES_MAX + SIGNATURES_MAX * 512;
