//! Bundles: a directory by default, an S3 store by its URL. Each is named by the SHA-256 of its
//! bytes, so that what is there never changes.
//!
//! What leads fetch is in memory after the first has asked: a wave of them wants the same bundle,
//! each in many small ranges.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use lockstep_delta::{HEADER_BYTES, Header};
use lockstep_proto::id::Sha256;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Where bundles are.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Bundles that were asked for lately, whole.
    hot: Arc<Cache<Sha256, Bytes, ByLength>>,
}

/// A bundle counts as long as it is.
#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<Sha256, Bytes> for ByLength {
    fn weight(&self, _: &Sha256, bytes: &Bytes) -> u64 {
        bytes.len() as u64
    }
}

/// Why a bundle was not put away, or not got back.
#[derive(Debug)]
pub enum ObjectError {
    /// The address is none.
    Url {
        /// What was given.
        found: String,
    },
    /// The store answers, and is not the one that bundles were put into: a disk that is not mounted
    /// is an empty folder.
    Lost,
    /// What is there under a bundle's name is something else.
    Damaged {
        /// The bundle's identity.
        digest: Sha256,
    },
    /// The store is away, full, or refuses.
    Store(object_store::Error),
    /// What was to be put away could not be read.
    Read(std::io::Error),
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { found } => {
                write!(f, "`{found}` is no object store, expected s3://BUCKET or a folder")
            }
            Self::Lost => write!(f, "the store of bundles is not the one that they were put into"),
            Self::Damaged { digest } => {
                write!(f, "bundle {digest} is not in the store as it was put there")
            }
            Self::Store(_) => write!(f, "the store of bundles cannot be used"),
            Self::Read(_) => write!(f, "the bundle cannot be read"),
        }
    }
}

impl std::error::Error for ObjectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url { .. } | Self::Lost | Self::Damaged { .. } => None,
            Self::Store(error) => Some(error),
            Self::Read(error) => Some(error),
        }
    }
}

impl From<object_store::Error> for ObjectError {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl Objects {
    /// A folder of this machine, which must be there.
    pub fn in_folder(folder: &Path) -> Result<Self, ObjectError> {
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self::of(store))
    }

    fn of(store: impl ObjectStore) -> Self {
        // Of one shard: of several, none would have room for the largest bundle.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(HOT_BUNDLES)
            .weight_capacity(HOT_BYTES_MAX)
            .shards(1)
            .build()
            .expect("both capacities are given");
        let hot = Cache::with_options(
            options,
            ByLength,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Self { store: Arc::new(store), hot: Arc::new(hot) }
    }

    /// `s3://BUCKET`, with credentials and endpoint from the environment as AWS's own tools take
    /// them.
    pub fn at(url: &str) -> Result<Self, ObjectError> {
        let error = || ObjectError::Url { found: url.to_owned() };
        let bucket = url.strip_prefix("s3://").filter(|it| !it.is_empty()).ok_or_else(error)?;
        // Whoever was first has chosen; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
        Ok(Self::of(store))
    }

    /// Puts a bundle away, as it is read from `source` to its end; it is there wholly or not at
    /// all. One that is there already is the same.
    pub async fn put(
        &self,
        digest: Sha256,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), ObjectError> {
        // A folder that is gone would be made anew, in the wrong place.
        self.is_there().await?;
        let mut upload = self.store.put_multipart(&place(digest)).await?;
        loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            let read = source.take(PART_BYTES as u64).read_to_end(&mut part).await;
            let done = match read {
                Err(error) => Err(ObjectError::Read(error)),
                Ok(0) => break,
                Ok(_) => upload.put_part(part.into()).await.map_err(ObjectError::Store),
            };
            if let Err(error) = done {
                // What is left of it is garbage, whether this succeeds or not.
                let _ = upload.abort().await;
                return Err(error);
            }
        }
        upload.complete().await?;
        Ok(())
    }

    /// Marks an empty store as ours, and one that has the bundle which it should have.
    pub async fn claim(&self, bundle: Option<Sha256>) -> Result<(), ObjectError> {
        if self.has(&ObjectPath::from(MARK)).await? {
            return Ok(());
        }
        if let Some(bundle) = bundle
            && !self.has(&place(bundle)).await?
        {
            return Err(ObjectError::Lost);
        }
        self.store.put(&ObjectPath::from(MARK), MARK_TEXT.into()).await?;
        Ok(())
    }

    /// Whether the store answers, and is the one that was claimed.
    pub async fn is_there(&self) -> Result<(), ObjectError> {
        match self.has(&ObjectPath::from(MARK)).await? {
            true => Ok(()),
            false => Err(ObjectError::Lost),
        }
    }

    async fn has(&self, place: &ObjectPath) -> Result<bool, ObjectError> {
        match self.store.head(place).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts away what makes one image of another; nothing, if no patch is worth it.
    pub async fn put_patch(
        &self,
        old: Sha256,
        new: Sha256,
        patch: Bytes,
    ) -> Result<(), ObjectError> {
        self.is_there().await?;
        self.store.put(&patch_place(old, new), patch.into()).await?;
        Ok(())
    }

    /// What makes one image of another; `None`: nobody has made it, or it is damaged. Empty: no
    /// patch is worth it.
    pub async fn patch(&self, old: Sha256, new: Sha256) -> Result<Option<Bytes>, ObjectError> {
        let name = sha2::Sha256::new().chain_update(old.0).chain_update(new.0).finalize();
        let read = self.read_patch(old, new);
        match self.hot.get_or_insert_async(&Sha256(name.into()), read).await {
            Ok(patch) => Ok(Some(patch)),
            Err(Unread::Missing) => Ok(None),
            Err(Unread::Trouble(error)) => Err(error),
        }
    }

    async fn read_patch(&self, old: Sha256, new: Sha256) -> Result<Bytes, Unread> {
        let found = match self.store.get(&patch_place(old, new)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Err(Unread::Missing),
            Err(error) => return Err(Unread::Trouble(error.into())),
        };
        let bytes = found.bytes().await.map_err(|error| Unread::Trouble(error.into()))?;
        let is_it = || {
            let header = Header::decode(&bytes).ok()?;
            let body = bytes.get(HEADER_BYTES..)?;
            let is_whole = header.body_sha256[..] == sha2::Sha256::digest(body)[..];
            Some(is_whole && header.old == old.0 && header.new == new.0)
        };
        match bytes.is_empty() || is_it().unwrap_or(false) {
            true => Ok(bytes),
            // It is made again.
            false => Err(Unread::Missing),
        }
    }

    /// These bytes of a bundle; `None`: it is not there.
    pub async fn get(
        &self,
        digest: Sha256,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, ObjectError> {
        // Whoever asks while it is being read waits for the same.
        let whole = match self.hot.get_or_insert_async(&digest, self.read(digest)).await {
            Ok(whole) => whole,
            Err(Unread::Missing) => return Ok(None),
            Err(Unread::Trouble(error)) => return Err(error),
        };
        let end = |at: u64| usize::try_from(at).ok().filter(|&at| at <= whole.len());
        match (end(range.start), end(range.end)) {
            (Some(first), Some(end)) if first <= end => Ok(Some(whole.slice(first..end))),
            _ => Err(ObjectError::Damaged { digest }),
        }
    }

    /// All of a bundle, as it was put away.
    async fn read(&self, digest: Sha256) -> Result<Bytes, Unread> {
        let found = match self.store.get(&place(digest)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Err(Unread::Missing),
            Err(error) => return Err(Unread::Trouble(error.into())),
        };
        let bytes = found.bytes().await.map_err(|error| Unread::Trouble(error.into()))?;
        let hashed = bytes.clone();
        let hash = tokio::task::spawn_blocking(move || sha2::Sha256::digest(&hashed));
        match hash.await {
            Ok(hash) if Sha256(hash.into()) == digest => Ok(bytes),
            _ => Err(Unread::Trouble(ObjectError::Damaged { digest })),
        }
    }
}

/// Why a bundle is not in memory.
enum Unread {
    Missing,
    Trouble(ObjectError),
}

/// Some stores are slow with a hundred thousand names in one place.
pub(crate) fn place(digest: Sha256) -> ObjectPath {
    let name = digest.to_string();
    let (front, _) = name.split_at(2);
    ObjectPath::from(format!("bundles/{front}/{name}.lockstep"))
}

/// A patch is found by both images.
fn patch_place(old: Sha256, new: Sha256) -> ObjectPath {
    ObjectPath::from(format!("patches/{old}/{new}.patch"))
}

/// Is in every store that bundles are put into.
const MARK: &str = "bundles/lockstep.txt";
const MARK_TEXT: &str = "Bundles of Lockstep's server, by the SHA-256 of their bytes.\n";
/// Bundles in memory, together at most: four of the largest.
const HOT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How many that will be, about.
const HOT_BUNDLES: usize = 64;
/// Bytes of one part of an upload: at least 5 MiB, which S3 asks for.
const PART_BYTES: usize = 8 * 1024 * 1024;

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
