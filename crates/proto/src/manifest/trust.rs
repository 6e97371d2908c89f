//! Whose releases a device takes: the keys it trusts, and how many of them must have signed.
//!
//! [`verify`] checks signatures over the manifest's bytes first and reads the manifest only then;
//! both in one step, so that nobody works with a manifest that was not verified. A device without
//! a key takes anybody's release, and the result says so.
//!
//! Not here: the epoch and the sequence, which need what the device runs; minisign's format
//! (`signature`).

use core::fmt;
use core::ops::Deref;

use sha2::Digest as _;

use super::{MANIFEST_SIZE_BYTES_MAX, Manifest, ManifestError, read};
use crate::id::Sha256;
use crate::signature::{KeyError, KeyId, PUBLIC_KEY_BYTES, PublicKey, Signature, SignatureError};

/// Checks the signatures over a manifest, then reads it.
///
/// Each of `signatures` is one minisign file. One key counts once, however often it signed; a
/// signature by a key that is not trusted does not count; a damaged one by a key that is refuses
/// the release. A device without keys does not look at signatures at all.
pub fn verify<'a>(
    manifest: &'a [u8],
    signatures: &[&[u8]],
    trust: &Trust,
) -> Result<VerifiedManifest<'a>, VerifyError> {
    if manifest.len() > MANIFEST_SIZE_BYTES_MAX {
        let size = manifest.len();
        return Err(VerifyError::Manifest(ManifestError::TooLarge { size }));
    }
    let signed = match &trust.keys {
        None => Signed::Unsigned(Unsigned::NoKeyInstalled),
        Some(keys) => match check_signatures(manifest, signatures, keys) {
            Ok(keys) => Signed::By { keys },
            Err(error) if trust.allow_unsigned && error.is_lack() => {
                Signed::Unsigned(Unsigned::AllowedByDevice)
            }
            Err(error) => return Err(error),
        },
    };
    VerifiedManifest::read(manifest, signed).map_err(VerifyError::Manifest)
}

/// How many of the keys have signed, if they are enough.
fn check_signatures(
    manifest: &[u8],
    signatures: &[&[u8]],
    keys: &KeySet,
) -> Result<u8, VerifyError> {
    if signatures.len() > SIGNATURES_MAX {
        return Err(VerifyError::TooManySignatures { found: signatures.len() });
    }
    let mut signers = heapless::Vec::<KeyId, KEYS_MAX>::new();
    let mut stranger = None;
    for text in signatures {
        let signature = Signature::parse(text).map_err(VerifyError::Signature)?;
        let id = signature.key_id();
        let mut candidates = keys.keys().iter().filter(|key| key.id() == id).peekable();
        if candidates.peek().is_none() {
            stranger = Some(id);
            continue;
        }
        for key in candidates {
            signature.verify(key, manifest).map_err(VerifyError::Signature)?;
        }
        if !signers.contains(&id) {
            // There are no more ids than keys, so it fits.
            let _ = signers.push(id);
        }
    }
    // At most KEYS_MAX.
    let found = u8::try_from(signers.len()).unwrap_or(u8::MAX);
    let needed = keys.threshold();
    match stranger {
        _ if found >= needed => Ok(found),
        Some(id) if found == 0 => {
            let trusted = keys.keys().iter().map(PublicKey::id).collect();
            Err(VerifyError::UnknownKey { id, trusted })
        }
        _ => Err(VerifyError::NotEnough { found, needed }),
    }
}

/// A manifest whose signatures are as the device demands; the only form in which one is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedManifest<'a> {
    manifest: Manifest<'a>,
    digest: Sha256,
    signed: Signed,
}

impl<'a> VerifiedManifest<'a> {
    /// Reads a manifest that this device verified before, and stored: `digest` is what the device's
    /// own record says of it, and `signed` what it found then.
    ///
    /// Keys may have changed in between; that a rollout was begun under the old ones stays true.
    pub fn reopen(
        manifest: &'a [u8],
        digest: &Sha256,
        signed: Signed,
    ) -> Result<Self, VerifyError> {
        let found = Sha256(sha2::Sha256::digest(manifest).into());
        if found != *digest {
            return Err(VerifyError::OtherDigest { found, expected: *digest });
        }
        let manifest = read::manifest(manifest).map_err(VerifyError::Manifest)?;
        Ok(Self { manifest, digest: found, signed })
    }

    fn read(manifest: &'a [u8], signed: Signed) -> Result<Self, ManifestError> {
        let digest = Sha256(sha2::Sha256::digest(manifest).into());
        Ok(Self { manifest: read::manifest(manifest)?, digest, signed })
    }

    /// SHA-256 of the manifest's bytes: the identity of the release.
    pub const fn digest(&self) -> Sha256 {
        self.digest
    }

    /// Who vouches for it.
    pub const fn signed(&self) -> Signed {
        self.signed
    }

    /// What to trust after this release: the manifest's next keys, if it names any and was signed
    /// by enough of the present ones. An unsigned manifest changes no keys.
    pub fn next_trust(&self, present: &Trust) -> Option<Trust> {
        match (self.signed, &self.manifest.keys) {
            (Signed::By { .. }, Some(keys)) => {
                Some(Trust { keys: Some(keys.clone()), allow_unsigned: present.allow_unsigned })
            }
            _ => None,
        }
    }
}

impl<'a> Deref for VerifiedManifest<'a> {
    type Target = Manifest<'a>;

    fn deref(&self) -> &Manifest<'a> {
        &self.manifest
    }
}

/// Who vouches for a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// As many trusted keys as the device demands, or more.
    By {
        /// How many.
        keys: u8,
    },
    /// Nobody.
    Unsigned(Unsigned),
}

/// Why a device takes a manifest that nobody vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// It trusts anybody.
    NoKeyInstalled,
    /// It has keys, and was set to do without them.
    AllowedByDevice,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By { keys: 1 } => f.write_str("signed by 1 trusted key"),
            Self::By { keys } => write!(f, "signed by {keys} trusted keys"),
            Self::Unsigned(Unsigned::NoKeyInstalled) => {
                f.write_str("not verified: no key is installed, this device trusts anybody")
            }
            Self::Unsigned(Unsigned::AllowedByDevice) => {
                f.write_str("not signed: this device is set to allow that")
            }
        }
    }
}

/// What a device trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    keys: Option<KeySet>,
    allow_unsigned: bool,
}

impl Trust {
    /// No key is installed: any release is taken, and called unsigned.
    pub const fn anybody() -> Self {
        Self { keys: None, allow_unsigned: false }
    }

    /// Only what these keys signed.
    pub const fn signed_by(keys: KeySet) -> Self {
        Self { keys: Some(keys), allow_unsigned: false }
    }

    /// What the keys signed, and what nobody signed too. A signature that was tampered with is
    /// still refused.
    pub fn allowing_unsigned(self) -> Self {
        Self { allow_unsigned: true, ..self }
    }

    /// Back to demanding signatures.
    pub fn demanding_signatures(self) -> Self {
        Self { allow_unsigned: false, ..self }
    }

    /// The installed keys.
    pub const fn keys(&self) -> Option<&KeySet> {
        self.keys.as_ref()
    }

    /// Whether the device takes what nobody signed, because it has no key or was told to.
    pub const fn takes_unsigned(&self) -> bool {
        self.allow_unsigned || self.keys.is_none()
    }

    /// The form for the device's durable store: form 1, flags (bit 0: `allow_unsigned`),
    /// threshold, count, then [`PUBLIC_KEY_BYTES`] for each key.
    pub fn encode(&self) -> heapless::Vec<u8, TRUST_BYTES_MAX> {
        let (keys, threshold) =
            self.keys.as_ref().map_or((&[][..], 0), |keys| (keys.keys(), keys.threshold()));
        let count = u8::try_from(keys.len()).unwrap_or(u8::MAX);
        let head = [TRUST_FORM, u8::from(self.allow_unsigned), threshold, count];
        head.into_iter().chain(keys.iter().flat_map(PublicKey::to_bytes)).collect()
    }

    /// Reads [`Trust::encode`]. Of a newer form it reads the part that is frozen, and passes over
    /// what was appended.
    pub fn decode(bytes: &[u8]) -> Result<Self, TrustError> {
        let [form, flags, threshold, count, keys @ ..] = bytes else {
            return Err(TrustError::Length { found: bytes.len(), expected: TRUST_HEAD_BYTES });
        };
        if *form < TRUST_FORM {
            return Err(TrustError::Form { found: *form });
        }
        let expected = usize::from(*count) * PUBLIC_KEY_BYTES;
        if keys.len() < expected || (*form == TRUST_FORM && keys.len() > expected) {
            let expected = expected + TRUST_HEAD_BYTES;
            return Err(TrustError::Length { found: bytes.len(), expected });
        }
        let allow_unsigned = flags & 1 == 1;
        if *count == 0 {
            return Ok(Self { keys: None, allow_unsigned });
        }
        let mut list = heapless::Vec::<PublicKey, KEYS_MAX>::new();
        let (keys, _) = keys.as_chunks::<PUBLIC_KEY_BYTES>();
        for key in keys.iter().take(usize::from(*count)) {
            let key = PublicKey::from_bytes(key).map_err(TrustError::Key)?;
            list.push(key).map_err(|_| {
                TrustError::KeySet(KeySetError::TooMany { found: usize::from(*count) })
            })?;
        }
        let keys = KeySet::new(&list, *threshold).map_err(TrustError::KeySet)?;
        Ok(Self { keys: Some(keys), allow_unsigned })
    }
}

/// Keys, and how many of them must sign: at least one key, each once, and a number that can be
/// reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    keys: heapless::Vec<PublicKey, KEYS_MAX>,
    threshold: u8,
}

impl KeySet {
    /// `threshold` of `keys` must sign.
    pub fn new(keys: &[PublicKey], threshold: u8) -> Result<Self, KeySetError> {
        let list = heapless::Vec::from_slice(keys)
            .map_err(|_| KeySetError::TooMany { found: keys.len() })?;
        if threshold == 0 || usize::from(threshold) > keys.len() {
            return Err(KeySetError::Threshold { threshold, keys: keys.len() });
        }
        // Ids are compared too: two keys of one id could not be told apart in a signature.
        let mut seen = keys.iter().enumerate();
        let twice = seen.find(|(index, key)| keys.iter().take(*index).any(|k| k.id() == key.id()));
        match twice {
            Some((_, key)) => Err(KeySetError::Twice { id: key.id() }),
            None => Ok(Self { keys: list, threshold }),
        }
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// How many of them must sign.
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }
}

/// Why keys are no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySetError {
    /// Nobody could reach the threshold, or nobody would have to.
    Threshold {
        /// How many must sign.
        threshold: u8,
        /// How many keys there are.
        keys: usize,
    },
    /// Two keys have one id.
    Twice {
        /// Which.
        id: KeyId,
    },
    /// More keys than a device holds.
    TooMany {
        /// How many there are.
        found: usize,
    },
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threshold { threshold, keys } => {
                write!(f, "`threshold` is {threshold}, expected 1 to {keys}, the number of keys")
            }
            Self::Twice { id } => write!(f, "key `{id}` stands there twice, expected once"),
            Self::TooMany { found } => {
                write!(f, "`keys` has {found} keys, the limit is {KEYS_MAX}")
            }
        }
    }
}

impl core::error::Error for KeySetError {}

/// Why stored bytes are no [`Trust`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustError {
    /// Cut off, or too long.
    Length {
        /// Bytes that are there.
        found: usize,
        /// Bytes that belong there.
        expected: usize,
    },
    /// A form that was never written.
    Form {
        /// What stands there.
        found: u8,
    },
    /// A key is damaged.
    Key(KeyError),
    /// The keys are no set.
    KeySet(KeySetError),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found, expected } => {
                write!(f, "`trust` is {found} bytes, expected {expected}")
            }
            Self::Form { found } => {
                write!(f, "`trust` has form {found}, expected {TRUST_FORM} or newer")
            }
            Self::Key(_) => f.write_str("`trust` holds a damaged key"),
            Self::KeySet(_) => f.write_str("`trust` holds no key set"),
        }
    }
}

impl core::error::Error for TrustError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Key(error) => Some(error),
            Self::KeySet(error) => Some(error),
            Self::Length { .. } | Self::Form { .. } => None,
        }
    }
}

/// Why a release was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyError {
    /// A signature is damaged, or the manifest was changed after it was signed.
    Signature(SignatureError),
    /// More signatures than a device looks at.
    TooManySignatures {
        /// How many there are.
        found: usize,
    },
    /// Signed, but by nobody whom this device trusts.
    UnknownKey {
        /// The last such key.
        id: KeyId,
        /// Who is trusted.
        trusted: heapless::Vec<KeyId, KEYS_MAX>,
    },
    /// Too few of the trusted keys have signed; none, if it is not signed at all.
    NotEnough {
        /// How many have.
        found: u8,
        /// How many must.
        needed: u8,
    },
    /// The signatures are right, the manifest is not.
    Manifest(ManifestError),
    /// A stored manifest is not the one that the record speaks of.
    OtherDigest {
        /// Of the stored bytes.
        found: Sha256,
        /// Of the record.
        expected: Sha256,
    },
}

impl VerifyError {
    /// Whether nothing speaks against the release but that too few vouch for it.
    const fn is_lack(&self) -> bool {
        matches!(self, Self::UnknownKey { .. } | Self::NotEnough { .. })
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature(_) => f.write_str("a signature of the `manifest` was refused"),
            Self::TooManySignatures { found } => {
                write!(f, "`manifest` has {found} signatures, the limit is {SIGNATURES_MAX}")
            }
            Self::UnknownKey { id, trusted } => {
                write!(f, "`manifest` is signed by key `{id}`, trusted")?;
                let mut separator = if trusted.len() == 1 { " is" } else { " are" };
                for id in trusted {
                    write!(f, "{separator} `{id}`")?;
                    separator = ",";
                }
                Ok(())
            }
            Self::NotEnough { found: 0, needed } => {
                write!(f, "`manifest` is not signed, expected signatures by {needed} trusted keys")
            }
            Self::NotEnough { found, needed } => {
                write!(f, "`manifest` is signed by {found} trusted keys, expected {needed}")
            }
            Self::Manifest(_) => f.write_str("the `manifest` was refused"),
            Self::OtherDigest { found, expected } => {
                write!(f, "`manifest` has SHA-256 {found}, expected {expected}")
            }
        }
    }
}

impl core::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Signature(error) => Some(error),
            Self::Manifest(error) => Some(error),
            Self::TooManySignatures { .. }
            | Self::UnknownKey { .. }
            | Self::NotEnough { .. }
            | Self::OtherDigest { .. } => None,
        }
    }
}

/// Keys that a device trusts at a time.
pub const KEYS_MAX: usize = 8;
/// Signatures that are looked at; as many as keys, since one key needs one.
pub const SIGNATURES_MAX: usize = KEYS_MAX;
/// The longest [`Trust::encode`].
pub const TRUST_BYTES_MAX: usize = TRUST_HEAD_BYTES + KEYS_MAX * PUBLIC_KEY_BYTES;

const TRUST_FORM: u8 = 1;
const TRUST_HEAD_BYTES: usize = 4;
