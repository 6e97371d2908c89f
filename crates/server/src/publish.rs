//! A bundle comes in: it is written to a file while it is read and judged, and becomes a release
//! when nothing is wrong with it. Cut off at any byte, it leaves nothing behind.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use lockstep_proto::manifest::{KeySet, Manifest, Trust, VerifyError};
use lockstep_proto::signature::{PublicKey, Signature};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use crate::bundle::{Bundle, Problem, ReadArtifact, Reading};
use crate::manifests::Place;
use crate::objects::{ObjectError, Objects};
use crate::patches::judged::ReadPatch;
use crate::store::releases::{Release, Signer};
use crate::store::{Store, StoreError, new_id};

/// Why a bundle did not become a release.
#[derive(Debug)]
pub enum PublishError {
    /// It is larger than any.
    TooLarge,
    /// The connection ended before it did.
    Cut(String),
    /// It is not what it should be; at least one reason.
    Bad(Vec<Problem>),
    /// It could not be written down: the disk is full, or away.
    Disk(io::Error),
    /// It could not be put away.
    Object(ObjectError),
    /// It could not be taken down.
    Store(StoreError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => {
                write!(f, "the bundle is larger than {BUNDLE_BYTES_MAX} bytes, which none may be")
            }
            Self::Cut(_) => write!(f, "the upload was cut off"),
            Self::Bad(problems) => {
                let first = problems.first().map(|it| it.text.as_str()).unwrap_or_default();
                write!(f, "{first}")
            }
            Self::Disk(_) => write!(f, "the bundle could not be written to the server's disk"),
            Self::Object(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooLarge | Self::Cut(_) | Self::Bad(_) => None,
            Self::Disk(error) => Some(error),
            Self::Object(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

/// Takes a bundle in, as it comes; `folder` is for what is on its way. Returns the release's
/// identity.
pub async fn publish<E: fmt::Display>(
    store: &Store,
    objects: &Objects,
    trust: &Trust,
    folder: &Path,
    who: &str,
    pieces: impl Stream<Item = Result<axum::body::Bytes, E>>,
) -> Result<String, PublishError> {
    let file = tempfile::tempfile_in(folder).map_err(PublishError::Disk)?;
    let mut file = File::from_std(file);
    let bundle = receive(pieces, Some(&mut file)).await?;
    let release = judge(&bundle, trust, who)?;
    file.rewind().await.map_err(PublishError::Disk)?;
    // First the bytes, then the word that they are there.
    objects.put(bundle.sha256(), &mut file).await.map_err(PublishError::Object)?;
    store.add_release(&release).await.map_err(PublishError::Store)
}

/// What a release would be of a bundle, which is read to its end and not kept.
pub async fn look_at<E: fmt::Display>(
    trust: &Trust,
    who: &str,
    pieces: impl Stream<Item = Result<axum::body::Bytes, E>>,
) -> Result<Release, PublishError> {
    judge(&receive(pieces, None).await?, trust, who)
}

/// Reads a bundle to its end, and keeps it in a file if there is one.
async fn receive<E: fmt::Display>(
    pieces: impl Stream<Item = Result<axum::body::Bytes, E>>,
    mut file: Option<&mut File>,
) -> Result<Bundle, PublishError> {
    let mut pieces = std::pin::pin!(pieces);
    let (mut reading, mut size_bytes) = (Reading::default(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| PublishError::Cut(error.to_string()))?;
        size_bytes += piece.len() as u64;
        if size_bytes > BUNDLE_BYTES_MAX {
            return Err(PublishError::TooLarge);
        }
        reading.take(&piece);
        if let Some(file) = &mut file {
            file.write_all(&piece).await.map_err(PublishError::Disk)?;
        }
    }
    if let Some(file) = file {
        file.flush().await.map_err(PublishError::Disk)?;
    }
    Ok(reading.end())
}

/// What a release would be of it, if nothing is wrong with it.
fn judge(bundle: &Bundle, trust: &Trust, who: &str) -> Result<Release, PublishError> {
    let problems = bundle.problems(trust);
    if !problems.is_empty() {
        return Err(PublishError::Bad(problems));
    }
    let refused = |error: VerifyError| {
        PublishError::Bad(vec![Problem::new(crate::bundle::with_causes(&error))])
    };
    let verified = bundle.verify(trust).map_err(refused)?;
    let manifest: &Manifest<'_> = &verified;
    let places: BTreeMap<&str, Place> =
        bundle.artifacts().iter().map(|it| (it.role.as_str(), place_of(it, bundle))).collect();
    let signatures = bundle.signatures();
    Ok(Release {
        id: new_id().map_err(PublishError::Store)?,
        system: manifest.system.map(|text| text.to_string()).unwrap_or_default(),
        version: manifest.system_version.to_string(),
        number: manifest.system_version.number(),
        sequence: manifest.sequence,
        epoch: manifest.epoch,
        bundle_sha256: bundle.sha256().to_string(),
        bundle_bytes: bundle.size_bytes(),
        manifest: String::from_utf8_lossy(bundle.manifest_bytes()).into_owned(),
        signatures: u32::try_from(signatures.len()).unwrap_or(u32::MAX),
        signers: signatures.iter().filter_map(|it| signer(it, bundle, trust)).collect(),
        places: serde_json::to_string(&places).unwrap_or_default(),
        description: manifest.description.to_string(),
        uploaded_at: Timestamp::now(),
        uploaded_by: who.to_owned(),
        withdrawn_at: None,
    })
}

/// Who made a signature. One by a key that this server does not have is what it says of itself.
fn signer(file: &[u8], bundle: &Bundle, trust: &Trust) -> Option<Signer> {
    let signature = Signature::parse(file).ok()?;
    let keys = trust.keys().map(KeySet::keys).unwrap_or_default();
    let is_by = |key: &&PublicKey| signature.verify(key, bundle.manifest_bytes()).is_ok();
    Some(Signer {
        key: signature.key_id().to_string(),
        is_verified: keys.iter().any(|key| is_by(&key)),
        comment: signature.trusted_comment().to_owned(),
    })
}

fn place_of(artifact: &ReadArtifact, bundle: &Bundle) -> Place {
    let flash = artifact.image.as_ref().map(|image| {
        let size = image.header.flash.size_bytes().map(|bytes| format!(", {} MiB", bytes >> 20));
        format!("{}{}", image.header.spi_mode, size.unwrap_or_default())
    });
    let (first, size_bytes) = (artifact.first, artifact.size_bytes);
    let patches = bundle.patches().iter().filter(|patch| patch.role == artifact.role);
    let base = |patch: &ReadPatch| patch.base().map(|base| base.to_string()).unwrap_or_default();
    Place {
        first,
        size_bytes,
        flash: flash.unwrap_or_default(),
        bases: patches.map(base).collect(),
    }
}

/// The largest bundle: as large as a device takes one.
pub const BUNDLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/tests/golden/");

    fn golden(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(GOLDEN).join(name)).unwrap()
    }

    #[test]
    fn who_signed_a_bundle_is_read_and_verified_with_the_keys_that_are_there() {
        let bytes = golden("release.lockstep");
        let bundle = Bundle::read(&mut bytes.as_slice(), &|_| ()).unwrap();
        let key = |name| PublicKey::parse(&golden(name)).unwrap();
        let (first, second) = (key("release/test-key-1.pub"), key("release/test-key-2.pub"));
        let signers = |trust: &Trust| -> Vec<_> {
            let signatures = bundle.signatures();
            let signers = signatures.iter().filter_map(|it| signer(it, &bundle, trust));
            signers.map(|it| (it.key, it.is_verified)).collect()
        };
        let (first_id, second_id) = (first.id().to_string(), second.id().to_string());
        let unknown = vec![(first_id.clone(), false), (second_id.clone(), false)];
        assert_eq!(signers(&Trust::anybody()), unknown);
        let trust = Trust::signed_by(KeySet::new(&[second], 1).unwrap());
        assert_eq!(signers(&trust), [(first_id, false), (second_id, true)]);
        assert!(signer(b"no signature", &bundle, &trust).is_none());
    }
}
