//! Makes patches when a group is offered a release and there are none yet: one after the other,
//! beside everything else. Meanwhile the offer waits. Whatever goes wrong with one, the group is
//! offered the release without it.
//!
//! What was made is in the store of objects, by the hashes of both images, for whoever comes next
//! and for other servers. What came of it is in memory: most groups run what others run.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use lockstep_delta::encode::{EncodeError, Image};
use lockstep_proto::id::Sha256;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{info, warn};

use super::{Extra, between, facts_of, running};
use crate::manifests::{Facts, Place, places};
use crate::objects::ObjectError;
use crate::server::Server;
use crate::store::StoreError;
use crate::store::groups::Device;
use crate::store::releases::Release;

/// What a device runs, and what it is to run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// What the device is for.
    pub role: String,
    /// The beginning of the hash of the image that it runs, or all of it, as it says it.
    pub runs: String,
    /// The bundle that it is to be updated with.
    pub bundle: String,
}

/// What there is for a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// It is being made, and these groups wait for it.
    Making(BTreeSet<String>),
    /// A patch.
    Made(Extra),
    /// Nothing that would save anything.
    Nothing,
}

/// Two images in bundles, between which there is no patch yet.
#[derive(Debug)]
pub struct Job {
    pair: Pair,
    old: Source,
    new: Source,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    bundle: Sha256,
    place: Place,
    /// Its hash.
    image: Sha256,
    version: String,
}

/// What is known of patches, and what is to be made.
#[derive(Debug)]
pub struct Maker {
    known: Mutex<HashMap<Pair, Known>>,
    jobs: mpsc::Sender<Job>,
}

/// What follows for a group that is offered a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// These go into its bundle; it may be none.
    Patches(Vec<Extra>),
    /// Some are being made. The group is looked at again when they are.
    Waits,
}

impl Maker {
    /// One that knows nothing, and where its jobs come out.
    pub fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(JOBS_MAX);
        (Self { known: Mutex::default(), jobs }, receiver)
    }

    fn look(&self, pair: &Pair, group: &str) -> Option<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get_mut(pair)?;
        if let Known::Making(groups) = found {
            groups.insert(group.to_owned());
        }
        Some(found.clone())
    }

    /// Takes down what there is for a pair; the groups that have waited for it.
    fn note(&self, pair: &Pair, what: Known) -> BTreeSet<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PAIRS_MAX {
            // It can all be found again.
            known.retain(|_, known| matches!(known, Known::Making(_)));
        }
        match known.insert(pair.clone(), what) {
            Some(Known::Making(groups)) => groups,
            Some(Known::Made(_) | Known::Nothing) | None => BTreeSet::new(),
        }
    }

    /// A patch that was there is not any more: whoever comes next looks again.
    pub fn forget(&self, extra: &Extra) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| !matches!(known, Known::Made(made) if made == extra));
    }
}

/// What goes into the bundle of `release` for a group with these devices.
pub async fn choose(
    server: &Server,
    group: &str,
    devices: &[Device],
    release: &Release,
) -> Result<Chosen, StoreError> {
    let pair = |device: &Device| Pair {
        role: device.role.clone(),
        runs: device.image.clone(),
        bundle: release.bundle_sha256.clone(),
    };
    let pairs: BTreeSet<Pair> =
        devices.iter().filter(|device| device.says_its_image()).map(pair).collect();
    let (mut patches, mut waits) = (Vec::new(), false);
    for pair in pairs {
        let known = match server.maker.look(&pair, group) {
            Some(known) => known,
            None => look_further(server, &pair, group, release).await?,
        };
        match known {
            Known::Making(_) => waits = true,
            Known::Made(extra) => patches.push(extra),
            Known::Nothing => (),
        }
    }
    Ok(if waits { Chosen::Waits } else { Chosen::Patches(patches) })
}

/// What nobody has asked for since this server began: is it in the store of objects?
async fn look_further(
    server: &Server,
    pair: &Pair,
    group: &str,
    release: &Release,
) -> Result<Known, StoreError> {
    let Some(job) = job_of(&server.store.releases().await?, pair, release) else {
        server.maker.note(pair, Known::Nothing);
        return Ok(Known::Nothing);
    };
    let known = match server.objects.patch(job.old.image, job.new.image).await {
        Ok(Some(patch)) => job.known(&patch),
        Ok(None) => {
            // Before it is on its way, or it could be done before anybody waits for it.
            let making = Known::Making(BTreeSet::from([group.to_owned()]));
            server.maker.note(pair, making.clone());
            match server.maker.jobs.try_send(job) {
                Ok(()) => return Ok(making),
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => Known::Nothing,
            }
        }
        Err(error) => {
            warn!(%error, "patches cannot be looked up, and the release is offered without");
            return Ok(Known::Nothing);
        }
    };
    server.maker.note(pair, known.clone());
    Ok(known)
}

/// Where the two images of a pair are; `None` if one of them is in no release here, both are the
/// same, or the bundle has a patch for them already.
fn job_of(releases: &[Release], pair: &Pair, release: &Release) -> Option<Job> {
    let new = source(release, &pair.role)?;
    let is_there = |base: &String| !base.is_empty() && base.starts_with(&pair.runs);
    if new.image.to_string().starts_with(&pair.runs) || new.place.bases.iter().any(is_there) {
        return None;
    }
    let is_it = |source: &Source| source.image.to_string().starts_with(&pair.runs);
    let old = releases.iter().filter_map(|it| source(it, &pair.role)).find(is_it)?;
    Some(Job { pair: pair.clone(), old, new })
}

fn source(release: &Release, role: &str) -> Option<Source> {
    let facts = Facts::of(release)?;
    let image = Sha256::from_hex(&facts.roles.get(role)?.image_sha256)?;
    let bundle = Sha256::from_hex(&release.bundle_sha256)?;
    let place = places(release).remove(role)?;
    Some(Source { bundle, place, image, version: release.version.clone() })
}

impl Job {
    /// What a patch that is in the store of objects comes to. An empty one says that none is worth
    /// it.
    fn known(&self, patch: &Bytes) -> Known {
        match u32::try_from(patch.len()) {
            Ok(0) | Err(_) => Known::Nothing,
            Ok(size_bytes) => Known::Made(Extra {
                role: self.pair.role.clone(),
                old: self.old.image.to_string(),
                new: self.new.image.to_string(),
                size_bytes,
            }),
        }
    }
}

/// Makes what is asked for, for as long as the server runs.
pub async fn make_patches(server: Arc<Server>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        let known = make(&server, &job).await;
        for group in server.maker.note(&job.pair, known) {
            // Whoever is not told now is told at its next check-in.
            if let Err(error) = server.refresh(&group).await {
                warn!(%error, "a lead was not told of its release");
            }
        }
    }
}

async fn make(server: &Server, job: &Job) -> Known {
    let made = tokio::time::timeout(MAKING_MAX, patch(server, job)).await;
    let (role, from, to) = (&job.pair.role, &job.old.version, &job.new.version);
    match made {
        Ok(Ok(patch)) => {
            let known = job.known(&patch);
            match known {
                Known::Made(_) => info!(role, from, to, bytes = patch.len(), "a patch was made"),
                _ => info!(role, from, to, "no patch was made: it would save too little"),
            }
            known
        }
        Ok(Err(error)) => {
            warn!(role, from, to, %error, "no patch was made");
            Known::Nothing
        }
        Err(_) => {
            warn!(role, from, to, "no patch was made: it took longer than {MAKING_MAX:?}");
            Known::Nothing
        }
    }
}

/// Why there is no patch.
#[derive(Debug)]
enum MakeError {
    Object(ObjectError),
    Away(Sha256),
    NotTheImage,
    Encode(EncodeError),
    Panicked,
}

impl std::fmt::Display for MakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Object(error) => error.fmt(f),
            Self::Away(bundle) => write!(f, "bundle {bundle} is not in the store of objects"),
            Self::NotTheImage => write!(f, "a bundle has another image than its manifest says"),
            Self::Encode(error) => error.fmt(f),
            Self::Panicked => write!(f, "the encoder has failed"),
        }
    }
}

/// Makes the patch and puts it away; an empty one if it is not worth it.
async fn patch(server: &Server, job: &Job) -> Result<Bytes, MakeError> {
    let (old, new) = (file(server, &job.old).await?, file(server, &job.new).await?);
    let (old_image, new_image) = (job.old.image, job.new.image);
    let made = tokio::task::spawn_blocking(move || {
        let facts = facts_of(&old).ok().filter(|facts| facts.image_hash.0 == old_image.0);
        let facts = facts.ok_or(MakeError::NotTheImage)?;
        let new = Image { bytes: &new, id: new_image.0 };
        between(&running(&old, &facts), &new).map_err(MakeError::Encode)
    });
    let made = made.await.map_err(|_| MakeError::Panicked)??.unwrap_or_default();
    let made = Bytes::from(made);
    let put = server.objects.put_patch(old_image, new_image, made.clone()).await;
    put.map_err(MakeError::Object)?;
    Ok(made)
}

async fn file(server: &Server, source: &Source) -> Result<Bytes, MakeError> {
    let Place { first, size_bytes, .. } = source.place;
    let found = server.objects.get(source.bundle, first..first + size_bytes).await;
    found.map_err(MakeError::Object)?.ok_or(MakeError::Away(source.bundle))
}

/// The patches of an offer with their bytes; `None`: one of them is not there any more.
pub async fn with_bytes(
    server: &Server,
    extras: Vec<Extra>,
) -> Result<Option<Vec<(Extra, Bytes)>>, ObjectError> {
    let mut all = Vec::new();
    for extra in extras {
        let both = (Sha256::from_hex(&extra.old), Sha256::from_hex(&extra.new));
        let (Some(old), Some(new)) = both else { return Ok(None) };
        match server.objects.patch(old, new).await? {
            Some(bytes) if bytes.len() as u64 == u64::from(extra.size_bytes) => {
                all.push((extra, bytes));
            }
            Some(_) | None => {
                server.maker.forget(&extra);
                return Ok(None);
            }
        }
    }
    Ok(Some(all))
}

/// Pairs that are known at a time.
const PAIRS_MAX: usize = 4096;
/// Patches that wait to be made; for what would be more, releases are offered without.
const JOBS_MAX: usize = 256;
/// So long a patch may take.
const MAKING_MAX: Duration = Duration::from_secs(120);
