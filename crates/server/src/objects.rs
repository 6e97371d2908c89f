//! Bundles: a directory by default, an S3 store by its URL. Each is named by the SHA-256 of its
//! bytes, so that what is there never changes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use lockstep_proto::id::Sha256;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Where bundles are.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
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
            Self::Store(_) => write!(f, "the store of bundles cannot be used"),
            Self::Read(_) => write!(f, "the bundle cannot be read"),
        }
    }
}

impl std::error::Error for ObjectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url { .. } | Self::Lost => None,
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
        Ok(Self { store: Arc::new(store) })
    }

    /// `s3://BUCKET`, with credentials and endpoint from the environment as AWS's own tools take
    /// them.
    pub fn at(url: &str) -> Result<Self, ObjectError> {
        let error = || ObjectError::Url { found: url.to_owned() };
        let bucket = url.strip_prefix("s3://").filter(|it| !it.is_empty()).ok_or_else(error)?;
        // Whoever was first has chosen; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
        Ok(Self { store: Arc::new(store) })
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

    /// These bytes of a bundle; `None`: it is not there.
    pub async fn get(
        &self,
        digest: Sha256,
        range: std::ops::Range<u64>,
    ) -> Result<Option<GetResult>, ObjectError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.store.get_opts(&place(digest), options).await {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Some stores are slow with a hundred thousand names in one place.
pub(crate) fn place(digest: Sha256) -> ObjectPath {
    let name = digest.to_string();
    let (front, _) = name.split_at(2);
    ObjectPath::from(format!("bundles/{front}/{name}.lockstep"))
}

/// Is in every store that bundles are put into.
const MARK: &str = "bundles/lockstep.txt";
const MARK_TEXT: &str = "Bundles of Lockstep's server, by the SHA-256 of their bytes.\n";
/// Bytes of one part of an upload: at least 5 MiB, which S3 asks for.
const PART_BYTES: usize = 8 * 1024 * 1024;

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
