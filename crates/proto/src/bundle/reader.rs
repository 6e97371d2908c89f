//! Reads a bundle from a stream, piece by piece, and never hands out a byte of an artifact before
//! the caller has shown a verified manifest.
//!
//! ```text
//!  push ──► Begin(Manifest)  Bytes…  EntryEnd
//!           Begin(Signature) Bytes…  EntryEnd      none, one or more
//!           HeadEnd                                verify now, then `expect`
//!           Begin(Patch)     Bytes…  EntryEnd      none or some before their artifact
//!           Begin(Artifact)  Bytes…  EntryEnd      each role of the manifest once
//!           End
//! ```
//!
//! Each call takes as much as leads to one event, so a caller that cannot go on simply does not
//! call; how the stream was cut into pieces makes no difference. After a cut the sender goes on at
//! [`ResumePoint::bundle_offset`]. A reader that has refused a bundle refuses the rest.
//!
//! Not here: whether an artifact's bytes are the right ones. Its hash is checked where it is
//! written, from the flash.

use super::header::{BLOCK_U32, Header};
use super::{
    ARTIFACT_SUFFIX, BLOCK_BYTES, BundleError, EntryName, MANIFEST_NAME, PATCH_SUFFIX,
    PATCH_TAG_BYTES_MAX, PATCHES_MAX, TRAILING_ZEROS_MAX, artifact_name, padding_bytes,
    signature_name,
};
use crate::manifest::{
    MANIFEST_SIZE_BYTES_MAX, ROLE_BYTES_MAX, ROLES_MAX, SIGNATURES_MAX, VerifiedManifest, is_role,
};
use crate::signature::SIGNATURE_FILE_BYTES_MAX;

/// Reads one bundle.
#[derive(Debug, Clone)]
pub struct BundleReader {
    state: State,
    /// The block that is being read.
    block: [u8; BLOCK_BYTES],
    /// Bytes of the bundle that have been taken.
    at: u32,
    /// Whether the manifest was there, and how many signatures.
    has_manifest: bool,
    signatures: usize,
    /// What the manifest says; empty until [`BundleReader::expect`].
    expected: heapless::Vec<Expected, ROLES_MAX>,
    /// Bit n: the n-th artifact of the manifest has been read.
    done: u8,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Reading a header, or the first block of the end.
    Header {
        filled: usize,
    },
    /// A header behind the head is there; nothing is verified yet.
    HeadEnd,
    /// Inside an entry; `artifact` is its index, none in the head.
    Body {
        artifact: Option<u8>,
        left: u32,
        padding: usize,
    },
    Padding {
        left: usize,
    },
    /// Reading the second block of the end.
    SecondZeros {
        filled: usize,
    },
    /// Behind the end.
    Ended {
        zeros: usize,
    },
    Stopped,
}

#[derive(Debug, Clone)]
struct Expected {
    role: heapless::String<ROLE_BYTES_MAX>,
    size_bytes: u32,
    /// So many patches have come before it.
    patches: u8,
}

impl BundleReader {
    /// At the beginning of a bundle.
    pub const fn new() -> Self {
        Self {
            state: State::Header { filled: 0 },
            block: [0; BLOCK_BYTES],
            at: 0,
            has_manifest: false,
            signatures: 0,
            expected: heapless::Vec::new(),
            done: 0,
        }
    }

    /// Inside an artifact, or a patch, of a release that was verified before; its size is
    /// `size_bytes`. The next byte that is pushed must be the one at
    /// [`ResumePoint::bundle_offset`].
    pub fn resume_at(
        manifest: &VerifiedManifest<'_>,
        point: ResumePoint,
        size_bytes: u32,
    ) -> Result<Self, BundleError> {
        let bad = || BundleError::BadResumePoint { point };
        let mut reader = Self { has_manifest: true, done: point.done, ..Self::new() };
        reader.expect(manifest);
        let entry = reader.expected.get(usize::from(point.index())).ok_or_else(bad)?;
        let fits = match point.is_patch() {
            true => size_bytes <= entry.size_bytes,
            false => size_bytes == entry.size_bytes,
        };
        let left = size_bytes.checked_sub(point.offset).filter(|_| fits).ok_or_else(bad)?;
        let is_aligned = point.artifact_at.is_multiple_of(BLOCK_U32);
        // Of eight bits, those that stand for an artifact of this release.
        let is_known = u16::from(point.done) >> reader.expected.len() == 0;
        if !is_aligned || !is_known || point.done & 1 << point.index() != 0 {
            return Err(bad());
        }
        reader.at = point.bundle_offset().ok_or_else(bad)?;
        let padding = padding_bytes(size_bytes);
        let artifact = (!point.is_patch()).then_some(point.index());
        reader.state = State::Body { artifact, left, padding };
        Ok(reader)
    }

    /// Says which artifacts must come: after [`Event::HeadEnd`], when the head has been verified.
    pub fn expect(&mut self, manifest: &VerifiedManifest<'_>) {
        self.expected = manifest
            .devices
            .iter()
            .filter_map(|entry| {
                let role = heapless::String::try_from(entry.role).ok()?;
                Some(Expected { role, size_bytes: entry.firmware_size, patches: 0 })
            })
            .collect();
    }

    /// Takes bytes up to the next event. `consumed` may be less than was given: push the rest
    /// again. Without an event, everything was taken and more is needed.
    pub fn push<'b>(&mut self, bytes: &'b [u8]) -> Result<Step<'b>, BundleError> {
        let mut consumed = 0;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            let (taken, next) = match self.advance(rest) {
                Ok(progress) => progress,
                Err(error) => {
                    self.state = State::Stopped;
                    return Err(error);
                }
            };
            consumed += taken;
            match next {
                Next::Again => (),
                Next::Starved => return Ok(Step { consumed, event: None }),
                Next::Event(event) => return Ok(Step { consumed, event: Some(event) }),
            }
        }
    }

    /// Whether the bundle was whole; to be asked when no more bytes come.
    pub fn finish(&self) -> Result<(), BundleError> {
        match self.state {
            State::Ended { .. } => Ok(()),
            State::Stopped => Err(BundleError::Stopped),
            _ => Err(BundleError::Truncated { at: self.at }),
        }
    }

    /// How many bytes of the bundle were taken.
    pub const fn consumed_bytes(&self) -> u32 {
        self.at
    }

    /// Leaves out what has not come yet of the entry that is being read, for a caller that needs
    /// none of it and can have its sender leave it out: so many bytes do not come.
    pub fn skip(&mut self) -> u32 {
        let State::Body { artifact, left, padding } = self.state else { return 0 };
        // Beyond that no bundle goes, and none is read.
        let Some(at) = self.at.checked_add(left) else { return 0 };
        self.at = at;
        self.state = State::Body { artifact, left: 0, padding };
        left
    }

    /// How much has not come yet of the entry that is being read.
    pub const fn left_bytes(&self) -> u32 {
        match self.state {
            State::Body { left, .. } => left,
            _ => 0,
        }
    }

    /// One step: how much of `rest` it took, and how to go on.
    fn advance<'b>(&mut self, rest: &'b [u8]) -> Result<(usize, Next<'b>), BundleError> {
        match self.state {
            State::Header { filled } => {
                let (taken, filled) = self.fill(filled, rest)?;
                self.state = State::Header { filled };
                let next = if filled < BLOCK_BYTES { Next::Starved } else { self.header()? };
                Ok((taken, next))
            }
            State::HeadEnd if self.expected.is_empty() => Err(BundleError::NotVerified),
            State::HeadEnd => Ok((0, self.header()?)),
            State::Body { artifact, left: 0, padding } => {
                self.done |= artifact.map_or(0, |index| 1 << index);
                self.state = State::Padding { left: padding };
                Ok((0, Next::Event(Event::EntryEnd)))
            }
            State::Body { artifact, left, padding } => {
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let Some((bytes, _)) = rest.split_at_checked(wanted).filter(|_| wanted > 0) else {
                    return Ok((0, Next::Starved));
                };
                let taken = self.take(wanted)?;
                self.state = State::Body { artifact, left: left - taken, padding };
                Ok((wanted, Next::Event(Event::Bytes(bytes))))
            }
            State::Padding { left: 0 } => {
                self.state = State::Header { filled: 0 };
                Ok((0, Next::Again))
            }
            State::Padding { left } => {
                let taken = self.take_zeros(rest, left)?;
                self.state = State::Padding { left: left - taken };
                Ok((taken, if taken == 0 { Next::Starved } else { Next::Again }))
            }
            State::SecondZeros { filled: BLOCK_BYTES } => {
                self.state = State::Ended { zeros: 0 };
                Ok((0, Next::Event(Event::End)))
            }
            State::SecondZeros { filled } => {
                let taken = self.take_zeros(rest, BLOCK_BYTES - filled)?;
                self.state = State::SecondZeros { filled: filled + taken };
                Ok((taken, if taken == 0 { Next::Starved } else { Next::Again }))
            }
            State::Ended { zeros } => {
                let taken = self.take_zeros(rest, rest.len())?;
                let zeros = zeros.saturating_add(taken);
                if zeros > TRAILING_ZEROS_MAX {
                    return Err(BundleError::TrailingZeros { max: TRAILING_ZEROS_MAX });
                }
                self.state = State::Ended { zeros };
                Ok((taken, Next::Starved))
            }
            State::Stopped => Err(BundleError::Stopped),
        }
    }

    /// A whole block is there: an entry begins, or the bundle ends.
    fn header<'b>(&mut self) -> Result<Next<'b>, BundleError> {
        let is_end = self.block == [0; BLOCK_BYTES];
        let at = self.at.saturating_sub(BLOCK_U32);
        if is_end && !self.has_manifest {
            return Err(BundleError::NotTar { at });
        }
        if is_end {
            return self.check_end().map(|()| {
                self.state = State::SecondZeros { filled: 0 };
                Next::Again
            });
        }
        let header = Header::parse(&self.block, at)?;
        if !self.has_manifest {
            return self.manifest(&header);
        }
        let is_head = self.done == 0 && self.expected.is_empty();
        if let Some(index) = signature_index(&header.name) {
            return if is_head { self.signature(index, &header) } else { misplaced(header.name) };
        }
        let role = header.name.strip_suffix(ARTIFACT_SUFFIX).filter(|role| is_role(role));
        let patched = patched_role(&header.name);
        match role.or(patched.map(|(role, _)| role)) {
            _ if header.name == MANIFEST_NAME => misplaced(header.name),
            None => Err(BundleError::UnknownName { name: header.name }),
            Some(_) if self.expected.is_empty() => {
                self.state = State::HeadEnd;
                Ok(Next::Event(Event::HeadEnd))
            }
            Some(role) if patched.is_some() => {
                let tag = patched.map_or("", |(_, tag)| tag);
                self.patch(role, tag, &header)
            }
            Some(role) => self.artifact(role, &header),
        }
    }

    fn manifest<'b>(&mut self, header: &Header) -> Result<Next<'b>, BundleError> {
        if header.name != MANIFEST_NAME {
            let expected = EntryName::try_from(MANIFEST_NAME).unwrap_or_default();
            return Err(BundleError::WrongOrder { name: header.name.clone(), expected });
        }
        self.has_manifest = true;
        let size_bytes = self.begin(header, MANIFEST_SIZE_BYTES_MAX)?;
        Ok(Next::Event(Event::Begin(Entry::Manifest { size_bytes })))
    }

    fn signature<'b>(&mut self, index: usize, header: &Header) -> Result<Next<'b>, BundleError> {
        if index != self.signatures {
            let expected = signature_name(self.signatures);
            return Err(BundleError::WrongOrder { name: header.name.clone(), expected });
        }
        self.signatures += 1;
        let size_bytes = self.begin(header, SIGNATURE_FILE_BYTES_MAX)?;
        Ok(Next::Event(Event::Begin(Entry::Signature { size_bytes })))
    }

    fn artifact<'b>(&mut self, role: &str, header: &Header) -> Result<Next<'b>, BundleError> {
        let name = || header.name.clone();
        let known = self.expected.iter().zip(0_u8..).find(|(entry, _)| entry.role == role);
        let Some((entry, index)) = known else {
            return Err(BundleError::UnknownRole { name: name() });
        };
        if self.done & 1 << index != 0 {
            return Err(BundleError::Twice { name: name() });
        }
        let (found, expected) = (header.size_bytes, entry.size_bytes);
        if found != u64::from(expected) {
            return Err(BundleError::Size { name: name(), found, expected });
        }
        let resume = ResumePoint { done: self.done, index, artifact_at: self.at, offset: 0 };
        let (role, padding) = (entry.role.clone(), padding_bytes(expected));
        self.state = State::Body { artifact: Some(index), left: expected, padding };
        Ok(Next::Event(Event::Begin(Entry::Artifact { role, size_bytes: expected, resume })))
    }

    /// A patch comes before the artifact that it makes, and is smaller, else it were of no use.
    fn patch<'b>(
        &mut self,
        role: &str,
        tag: &str,
        header: &Header,
    ) -> Result<Next<'b>, BundleError> {
        let name = || header.name.clone();
        let mut known = self.expected.iter_mut().zip(0_u8..);
        let Some((entry, index)) = known.find(|(entry, _)| entry.role == role) else {
            return Err(BundleError::UnknownRole { name: name() });
        };
        entry.patches = entry.patches.saturating_add(1);
        if self.done & 1 << index != 0 || entry.patches > PATCHES_MAX {
            return Err(BundleError::Patch { name: name(), max: PATCHES_MAX });
        }
        let (found, max) = (header.size_bytes, entry.size_bytes);
        let Some(size_bytes) = u32::try_from(found).ok().filter(|&it| it <= max) else {
            return Err(BundleError::TooLarge { name: name(), found, max: max as usize });
        };
        let index = index | PATCH_FLAG;
        let resume = ResumePoint { done: self.done, index, artifact_at: self.at, offset: 0 };
        let (role, padding) = (entry.role.clone(), padding_bytes(size_bytes));
        self.state = State::Body { artifact: None, left: size_bytes, padding };
        let tag = heapless::String::try_from(tag).unwrap_or_default();
        Ok(Next::Event(Event::Begin(Entry::Patch { role, tag, size_bytes, resume })))
    }

    /// Begins an entry of the head.
    fn begin(&mut self, header: &Header, max: usize) -> Result<u32, BundleError> {
        let found = header.size_bytes;
        let size_bytes = u32::try_from(found).ok().filter(|&size| size as usize <= max);
        let Some(left) = size_bytes else {
            return Err(BundleError::TooLarge { name: header.name.clone(), found, max });
        };
        self.state = State::Body { artifact: None, left, padding: padding_bytes(left) };
        Ok(left)
    }

    fn check_end(&self) -> Result<(), BundleError> {
        if self.expected.is_empty() {
            return Err(BundleError::NoArtifacts);
        }
        let missing =
            self.expected.iter().zip(0_u8..).find(|(_, index)| self.done & 1 << index == 0);
        missing.map_or(Ok(()), |(entry, _)| {
            Err(BundleError::ArtifactMissing { name: artifact_name(&entry.role) })
        })
    }

    /// Fills the block up from `rest`: how much was taken, and how full it is now.
    fn fill(&mut self, filled: usize, rest: &[u8]) -> Result<(usize, usize), BundleError> {
        let wanted = self.block.iter_mut().skip(filled).zip(rest);
        let taken = wanted.map(|(place, byte)| *place = *byte).count();
        self.take(taken)?;
        Ok((taken, filled + taken))
    }

    /// Takes at most `max` bytes, which must be zeros.
    fn take_zeros(&mut self, rest: &[u8], max: usize) -> Result<usize, BundleError> {
        let zeros = rest.iter().take(max).take_while(|&&byte| byte == 0).count();
        self.take(zeros)?;
        if zeros < max.min(rest.len()) {
            Err(BundleError::NotZero { at: self.at })
        } else {
            Ok(zeros)
        }
    }

    /// Counts bytes as taken.
    fn take(&mut self, bytes: usize) -> Result<u32, BundleError> {
        let bytes = u32::try_from(bytes).map_err(|_| BundleError::TooLong)?;
        self.at = self.at.checked_add(bytes).ok_or(BundleError::TooLong)?;
        Ok(bytes)
    }
}

impl Default for BundleReader {
    fn default() -> Self {
        Self::new()
    }
}

/// Which signature an entry's name is for, counted from 0.
fn signature_index(name: &EntryName) -> Option<usize> {
    (0..SIGNATURES_MAX).find(|&index| signature_name(index) == *name)
}

/// The role that an entry is a patch for, and its tag, by its name.
fn patched_role(name: &EntryName) -> Option<(&str, &str)> {
    let (role, tag) = name.strip_suffix(PATCH_SUFFIX)?.split_once('.')?;
    let is_plain = |letter: u8| letter.is_ascii_alphanumeric();
    let is_tag = (1..=PATCH_TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(is_plain);
    (is_role(role) && is_tag).then_some((role, tag))
}

fn misplaced<'b>(name: EntryName) -> Result<Next<'b>, BundleError> {
    let expected = artifact_name("ROLE");
    Err(BundleError::WrongOrder { name, expected })
}

enum Next<'b> {
    Event(Event<'b>),
    /// The state changed; look again.
    Again,
    /// More bytes are needed.
    Starved,
}

/// What one call of [`BundleReader::push`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'b> {
    /// How many of the bytes it took.
    pub consumed: usize,
    /// What they led to; without one, all were taken.
    pub event: Option<Event<'b>>,
}

/// What a bundle's bytes lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'b> {
    /// An entry begins.
    Begin(Entry),
    /// Some of its contents; any number of these, never empty.
    Bytes(&'b [u8]),
    /// The entry's contents are complete.
    EntryEnd,
    /// The head is complete: verify it and call [`BundleReader::expect`] before pushing on.
    HeadEnd,
    /// The bundle is complete. What may still follow are zeros.
    End,
}

/// What begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The manifest.
    Manifest {
        /// Its size, at most [`MANIFEST_SIZE_BYTES_MAX`].
        size_bytes: u32,
    },
    /// A signature of the manifest.
    Signature {
        /// Its size, at most [`SIGNATURE_FILE_BYTES_MAX`].
        size_bytes: u32,
    },
    /// A patch that makes the artifact of a role, which follows.
    Patch {
        /// For which role.
        role: heapless::String<ROLE_BYTES_MAX>,
        /// What tells it from the others of this role; means nothing.
        tag: heapless::String<PATCH_TAG_BYTES_MAX>,
        /// Its size, at most that of the artifact.
        size_bytes: u32,
        /// Where it begins, to be stored for a resume.
        resume: ResumePoint,
    },
    /// An artifact, of the size that the manifest says.
    Artifact {
        /// For which role.
        role: heapless::String<ROLE_BYTES_MAX>,
        /// Its size.
        size_bytes: u32,
        /// Where it begins, to be stored for a resume.
        resume: ResumePoint,
    },
}

/// A place inside an artifact from which a bundle can be read on: durable on a lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// Bit n: the n-th artifact of the manifest was complete before this one began.
    done: u8,
    /// The artifact's place, and [`PATCH_FLAG`] if it is a patch for that one.
    index: u8,
    artifact_at: u32,
    offset: u32,
}

impl ResumePoint {
    /// The same artifact, with its first `offset_bytes` already stored.
    pub const fn with_offset(self, offset_bytes: u32) -> Self {
        Self { offset: offset_bytes, ..self }
    }

    /// Which artifact: its place among the manifest's devices, from 0.
    pub const fn index(&self) -> u8 {
        self.index & !PATCH_FLAG
    }

    /// Whether it is in a patch for that artifact.
    pub const fn is_patch(&self) -> bool {
        self.index & PATCH_FLAG != 0
    }

    /// Where in the bundle the artifact begins.
    pub const fn artifact_at(&self) -> u32 {
        self.artifact_at
    }

    /// How much of the artifact is stored.
    pub const fn offset_bytes(&self) -> u32 {
        self.offset
    }

    /// The byte of the bundle to go on with; `None` if the point is damaged.
    pub const fn bundle_offset(&self) -> Option<u32> {
        self.artifact_at.checked_add(self.offset)
    }

    /// The form for a lead's record, little endian: done, index, begin of the artifact, offset.
    pub const fn to_bytes(&self) -> [u8; RESUME_POINT_BYTES] {
        let [a, b, c, d] = self.artifact_at.to_le_bytes();
        let [e, f, g, h] = self.offset.to_le_bytes();
        [self.done, self.index, a, b, c, d, e, f, g, h]
    }

    /// Reads [`ResumePoint::to_bytes`]; whether it fits a release is seen by
    /// [`BundleReader::resume_at`].
    pub const fn from_bytes(bytes: &[u8; RESUME_POINT_BYTES]) -> Self {
        let [done, index, a, b, c, d, e, f, g, h] = *bytes;
        let (artifact_at, offset) =
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        Self { done, index, artifact_at, offset }
    }
}

/// No manifest has so many roles.
const PATCH_FLAG: u8 = 0x80;
/// Length of [`ResumePoint::to_bytes`].
pub const RESUME_POINT_BYTES: usize = 10;
