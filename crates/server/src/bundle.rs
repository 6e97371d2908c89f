//! A bundle: read once from front to back, and everything said that is wrong with it.
//!
//! What is found here would be found by a lead too; here it costs nobody a transfer. Not here:
//! writing bundles, and what a fleet would make of one.

use std::fmt;
use std::io::{self, Read};

use lockstep_proto::bundle::{BundleError, BundleReader, Entry, Event, Head, artifact_name};
use lockstep_proto::compat::{self, Incompatible, Rule};
use lockstep_proto::id::Sha256;
use lockstep_proto::image::{ImageError, ImageFacts, ImageReader};
use lockstep_proto::manifest::{
    DeviceEntry, GENERATION_BYTES, GenerationHash, Manifest, Trust, VerifiedManifest, VerifyError,
};
use lockstep_proto::version::ReleaseVersion;
use sha2::Digest as _;

use crate::patches::judged::ReadPatch;

/// A bundle that was read to its end, or to where it could not be read on.
#[derive(Debug)]
pub struct Bundle {
    head: Head,
    has_manifest: bool,
    artifacts: Vec<ReadArtifact>,
    patches: Vec<ReadPatch>,
    stopped: Option<BundleError>,
    size_bytes: u64,
    sha256: Sha256,
}

/// An artifact of a bundle, as far as it was there.
#[derive(Debug)]
pub struct ReadArtifact {
    /// The role in its name.
    pub role: String,
    /// Where its first byte is in the bundle.
    pub first: u64,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// The hashes of its generations.
    pub generations: Vec<GenerationHash>,
    /// What it is.
    pub image: Result<ImageFacts, ImageError>,
}

/// A bundle that comes piece by piece.
#[derive(Default)]
pub struct Reading {
    walk: Walk,
    hasher: sha2::Sha256,
    size_bytes: u64,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

impl Reading {
    /// The next piece.
    pub fn take(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.size_bytes += piece.len() as u64;
        self.walk.take(piece);
    }

    /// There is no more.
    pub fn end(self) -> Bundle {
        let Self { mut walk, hasher, size_bytes } = self;
        if walk.stopped.is_none() {
            walk.stopped = walk.reader.finish().err();
        }
        let Walk { head, has_manifest, artifacts, patches, stopped, .. } = walk;
        let sha256 = Sha256(hasher.finalize().into());
        Bundle { head, has_manifest, artifacts, patches, stopped, size_bytes, sha256 }
    }
}

impl Bundle {
    /// Reads a bundle; `progress` is told after each piece how many bytes it had.
    pub fn read(source: &mut dyn Read, progress: &dyn Fn(u64)) -> Result<Self, io::Error> {
        let mut reading = Reading::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let piece = buffer.get(..count).unwrap_or_default();
            progress(count as u64);
            reading.take(piece);
        }
        Ok(reading.end())
    }

    /// The manifest, if the bundle's signatures satisfy `trust`.
    pub fn verify(&self, trust: &Trust) -> Result<VerifiedManifest<'_>, VerifyError> {
        self.head.verify(trust)
    }

    /// Whether it has a manifest at all, readable or not.
    pub const fn has_manifest(&self) -> bool {
        self.has_manifest
    }

    /// The bytes of its manifest; none if there is none.
    pub fn manifest_bytes(&self) -> &[u8] {
        self.head.manifest()
    }

    /// The files with signatures.
    pub fn signatures(&self) -> Vec<&[u8]> {
        self.head.signatures().collect()
    }

    /// What artifacts there are, in their order in the bundle.
    pub fn artifacts(&self) -> &[ReadArtifact] {
        &self.artifacts
    }

    /// What patches there are, in their order in the bundle.
    pub fn patches(&self) -> &[ReadPatch] {
        &self.patches
    }

    /// How long the file is.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// SHA-256 of the file.
    pub const fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// What is wrong: first the signatures, then the bundle, then its artifacts.
    pub fn problems(&self, trust: &Trust) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.has_manifest
            && let Err(error) = self.verify(trust)
        {
            problems.push(Problem::hinted(with_causes(&error), verify_hint(&error)));
        }
        // That the reader waits for a manifest says no more than what is wrong with it.
        let stopped = self.stopped.as_ref().filter(|error| **error != BundleError::NotVerified);
        problems
            .extend(stopped.map(|error| Problem::hinted(with_causes(error), bundle_hint(error))));
        let Ok(manifest) = self.verify(&Trust::anybody()) else { return problems };
        for artifact in &self.artifacts {
            if let Some(entry) = manifest.entry(&artifact.role) {
                artifact_problems(&manifest, entry, artifact, &mut problems);
            }
        }
        for patch in &self.patches {
            problems.extend(manifest.entry(&patch.role).and_then(|entry| patch.problem(entry)));
        }
        problems.extend(incompatible(&manifest));
        problems
    }
}

/// Something that is wrong with a file.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What, in a sentence without its full stop.
    pub text: String,
    /// The way out.
    pub hint: Option<&'static str>,
}

impl Problem {
    /// With the way out of it, if there is one to tell.
    pub fn hinted(text: impl Into<String>, hint: Option<&'static str>) -> Self {
        Self { text: text.into(), hint }
    }

    /// Without a way out.
    pub fn new(text: impl Into<String>) -> Self {
        Self::hinted(text, None)
    }
}

fn verify_hint(error: &VerifyError) -> Option<&'static str> {
    match error {
        VerifyError::NotEnough { found: 0, .. } => Some("Sign it: lockstep release create --key"),
        VerifyError::NotEnough { .. } => {
            Some("Sign it with more of these keys, or say how many are enough: --threshold")
        }
        VerifyError::UnknownKey { .. } => {
            Some("Is it from somebody else, or is there a newer public key of theirs?")
        }
        VerifyError::Signature(_) => {
            Some("It was changed after it was signed. Get it again from where it comes from.")
        }
        VerifyError::Manifest(_)
        | VerifyError::TooManySignatures { .. }
        | VerifyError::OtherDigest { .. } => None,
    }
}

fn bundle_hint(error: &BundleError) -> Option<&'static str> {
    match error {
        BundleError::Truncated { .. } => Some("The file was cut off. Copy or download it again."),
        BundleError::NotTar { .. } => {
            Some("What is it? See `lockstep inspect`. Images become a bundle by `release create`.")
        }
        _ => None,
    }
}

/// How one gets the right file, where that can be told from the error.
pub fn image_hint(error: &ImageError) -> Option<&'static str> {
    use lockstep_proto::image::Foreign;
    Some(match error {
        ImageError::NotAnImage { looks_like: Some(Foreign::Html), .. } => {
            "A download that failed often leaves a web page under that name. Download it again."
        }
        ImageError::NotAnImage { looks_like: Some(Foreign::Json), .. } => {
            "A server's error message was saved under the file's name, perhaps. Download it again."
        }
        ImageError::NotAnImage { looks_like: Some(Foreign::Elf), .. } => {
            "Make an image from it: `esptool elf2image FILE`, or `espflash save-image`."
        }
        ImageError::NotAnImage { looks_like: Some(Foreign::Gzip | Foreign::Zip), .. } => {
            "Unpack it first."
        }
        ImageError::NotAnImage { looks_like: Some(Foreign::Tar), .. } => {
            "A bundle is installed whole: `lockstep update FILE`."
        }
        ImageError::NotAnImage { looks_like: Some(Foreign::Erased), .. }
        | ImageError::Trailing { .. } => {
            "Give the application's image alone (often `firmware.bin`), not one of the whole flash."
        }
        ImageError::Signature { .. } => {
            "Sign the image that the build tool made: espsecure sign-data --version 2"
        }
        ImageError::TooShort { .. } => "The file was cut off. Copy or download it again.",
        ImageError::Checksum { .. } | ImageError::Hash { .. } => {
            "The file was damaged. Build, copy or download it again."
        }
        ImageError::NotAnImage { .. }
        | ImageError::TooLarge { .. }
        | ImageError::Segments { .. }
        | ImageError::SegmentLength { .. } => return None,
    })
}

/// Why the devices of a release would not talk to each other.
pub fn incompatible(manifest: &Manifest<'_>) -> Vec<Problem> {
    let roles: Vec<&str> = manifest.roles().collect();
    let mut problems = Vec::new();
    for (index, &mine) in roles.iter().enumerate() {
        for &theirs in roles.iter().skip(index + 1) {
            let both = (manifest.announced(mine), manifest.announced(theirs));
            if let (Some(my), Some(their)) = both
                && let Err(error) = compat::check(Rule::BothWays, &my, &their)
            {
                problems.push(Problem::new(conflict(mine, theirs, error)));
            }
        }
    }
    problems
}

/// As seen from above, where there is no "this device".
fn conflict(mine: &str, theirs: &str, error: Incompatible) -> String {
    let version = ReleaseVersion::from_number;
    match error {
        Incompatible::TheyAreTooOld { theirs: found, my_minimum } => {
            let (found, minimum) = (version(found), version(my_minimum));
            format!("{theirs} is {found}, {mine} talks to {minimum} or newer")
        }
        Incompatible::WeAreTooOld { mine: found, their_minimum } => {
            let (found, minimum) = (version(found), version(their_minimum));
            format!("{mine} is {found}, {theirs} talks to {minimum} or newer")
        }
        Incompatible::NoCommonProtocol { mine: my, theirs: their } => {
            format!("{mine} speaks protocol {my}, {theirs} {their}: none that both speak")
        }
    }
}

/// What does not agree between an image and what a manifest says of it.
fn artifact_problems(
    manifest: &Manifest<'_>,
    entry: &DeviceEntry<'_>,
    artifact: &ReadArtifact,
    problems: &mut Vec<Problem>,
) {
    let name = artifact_name(&artifact.role);
    problems.extend(generation_problem(entry, artifact, &name));
    let mut differ = |what: &str, found: &dyn std::fmt::Display, said: &dyn std::fmt::Display| {
        let text = format!("`{name}` has the {what} {found}, the manifest says {said}");
        problems.push(Problem::new(text));
    };
    if let Some(said) = entry.sha256
        && said != artifact.sha256
    {
        differ("SHA-256", &artifact.sha256, &said);
    }
    let facts = match &artifact.image {
        Ok(facts) => facts,
        Err(error) => {
            let text = format!("`{name}`: {error}");
            return problems.push(Problem::hinted(text, image_hint(error)));
        }
    };
    if let Some(said) = entry.image_sha256
        && said != facts.image_hash
    {
        differ("image hash", &facts.image_hash, &said);
    }
    let (found, said) = (facts.guard(), entry.guard);
    if said.secure_version != found.secure_version {
        differ("secure version", &found.secure_version, &said.secure_version);
    }
    if said.is_signed != found.is_signed {
        let word = |is_signed| if is_signed { "signed" } else { "not signed" };
        differ("secure boot state", &word(found.is_signed), &word(said.is_signed));
    }
    match entry.installable() {
        Ok(said) if said.chip != facts.header.chip => {
            differ("chip", &facts.header.chip, &said.chip);
        }
        Ok(_) => (),
        Err(error) => {
            problems.push(Problem::new(format!("nothing can be installed from this: {error}")));
        }
    }
    if let Some(ours) = &facts.descriptor {
        descriptor_problems(manifest, entry, ours, &name, problems);
    }
}

/// A list that lies about an artifact that is right: of a wrong one its hash says enough.
fn generation_problem(
    entry: &DeviceEntry<'_>,
    artifact: &ReadArtifact,
    name: &str,
) -> Option<Problem> {
    let list = entry.generations_sha256.filter(|_| entry.sha256 == Some(artifact.sha256))?;
    let mut found = (0..).zip(&artifact.generations);
    let (generation, _) = found.find(|(at, found)| list.get(*at) != Some(**found))?;
    Some(Problem::new(format!("generation {generation} of `{name}` is not what the manifest says")))
}

fn descriptor_problems(
    manifest: &Manifest<'_>,
    entry: &DeviceEntry<'_>,
    ours: &lockstep_proto::descriptor::Descriptor,
    name: &str,
    problems: &mut Vec<Problem>,
) {
    let mut compare = |what: &str, found: String, said: Option<String>| {
        if let Some(said) = said
            && said != found
        {
            let text = format!("`{name}` has the {what} `{found}`, the manifest says `{said}`");
            problems.push(Problem::new(text));
        }
    };
    compare("role", ours.role.to_string(), Some(entry.role.to_owned()));
    compare("system", ours.product.to_string(), manifest.system.map(|text| text.to_string()));
    compare("board", ours.board.to_string(), entry.board.map(|text| text.to_string()));
    compare("version", ours.version.to_string(), Some(entry.version.to_string()));
    compare("protocol range", ours.protocol.to_string(), Some(entry.protocol().to_string()));
    let minimum = entry.min_compatible.unwrap_or(manifest.min_compatible_version);
    compare("oldest peer", ours.min_compatible.to_string(), Some(minimum.to_string()));
    compare("epoch", ours.epoch.to_string(), Some(manifest.epoch.to_string()));
}

/// An error and everything that caused it, in one line.
pub fn with_causes(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// The state of reading.
#[derive(Default)]
struct Walk {
    /// Bytes that the reader has taken.
    at: u64,
    reader: BundleReader,
    head: Head,
    has_manifest: bool,
    artifacts: Vec<ReadArtifact>,
    current: Option<Current>,
    patches: Vec<ReadPatch>,
    patch: Option<CurrentPatch>,
    stopped: Option<BundleError>,
}

/// The patch that is being read.
struct CurrentPatch {
    role: String,
    tag: String,
    /// The reader takes none that is larger than the image which it makes.
    bytes: Vec<u8>,
}

/// The artifact that is being read.
struct Current {
    role: String,
    first: u64,
    size_bytes: u64,
    image: ImageReader,
    hasher: sha2::Sha256,
    /// What has come of the generation that is not whole yet.
    generation: Vec<u8>,
    generations: Vec<GenerationHash>,
}

impl Current {
    fn new(role: String, first: u64) -> Self {
        let (image, hasher) = (ImageReader::new(), sha2::Sha256::new());
        let (generation, generations) = (Vec::new(), Vec::new());
        Self { role, first, size_bytes: 0, image, hasher, generation, generations }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        // An error stays in the reader and comes out at its end.
        let _ = self.image.push(bytes);
        while !bytes.is_empty() {
            let room = GENERATION_BYTES as usize - self.generation.len();
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.generation.extend_from_slice(piece);
            if piece.len() == room {
                self.end_generation();
            }
            bytes = rest;
        }
    }

    fn end_generation(&mut self) {
        self.generations.push(GenerationHash::of(&self.generation));
        self.generation.clear();
    }

    fn end(mut self) -> ReadArtifact {
        if !self.generation.is_empty() {
            self.end_generation();
        }
        let Self { role, first, size_bytes, image, hasher, generations, .. } = self;
        let (sha256, image) = (Sha256(hasher.finalize().into()), image.finish());
        ReadArtifact { role, first, size_bytes, sha256, generations, image }
    }
}

impl Walk {
    fn take(&mut self, mut piece: &[u8]) {
        while self.stopped.is_none() {
            match self.reader.push(piece) {
                Ok(step) => {
                    self.at += step.consumed as u64;
                    piece = piece.get(step.consumed..).unwrap_or_default();
                    let Some(event) = step.event else { return };
                    if let Err(error) = self.on(&event) {
                        self.stopped = Some(error);
                    }
                }
                Err(error) => self.stopped = Some(error),
            }
        }
    }

    fn on(&mut self, event: &Event<'_>) -> Result<(), BundleError> {
        self.head.take(event)?;
        match event {
            Event::Begin(Entry::Manifest { .. }) => self.has_manifest = true,
            Event::HeadEnd => {
                // Who vouches for it is asked later; here it only says what must come. What cannot
                // be read leaves nothing expected, and the reader stops by itself.
                if let Ok(manifest) = self.head.verify(&Trust::anybody()) {
                    self.reader.expect(&manifest);
                }
            }
            Event::Begin(Entry::Artifact { role, .. }) => {
                self.current = Some(Current::new(role.to_string(), self.at));
            }
            Event::Bytes(bytes) => {
                if let Some(current) = &mut self.current {
                    current.take(bytes);
                }
                if let Some(patch) = &mut self.patch {
                    patch.bytes.extend_from_slice(bytes);
                }
            }
            Event::EntryEnd => {
                self.artifacts.extend(self.current.take().map(Current::end));
                let patch = self.patch.take();
                self.patches.extend(patch.map(|it| ReadPatch::new(it.role, it.tag, &it.bytes)));
            }
            Event::Begin(Entry::Patch { role, tag, .. }) => {
                let (role, tag) = (role.to_string(), tag.to_string());
                self.patch = Some(CurrentPatch { role, tag, bytes: Vec::new() });
            }
            Event::Begin(Entry::Signature { .. }) | Event::End => (),
        }
        Ok(())
    }
}

const CHUNK_BYTES: usize = 64 * 1024;
