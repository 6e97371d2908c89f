//! Bundles: in a folder, or in the S3 store that `LOCKSTEP_TEST_OBJECTS` names.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::*;

struct Place {
    objects: Objects,
    _folder: tempfile::TempDir,
}

async fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let objects = match std::env::var("LOCKSTEP_TEST_OBJECTS") {
        Err(_) => Objects::in_folder(folder.path()).unwrap(),
        Ok(url) => {
            make_bucket(&url).await;
            Objects::at(&url).unwrap()
        }
    };
    objects.claim(None).await.unwrap();
    Place { objects, _folder: folder }
}

/// A disk that is not mounted is an empty folder in the same place.
#[tokio::test]
async fn an_empty_store_in_the_place_of_ours_is_not_taken_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::in_folder(folder.path()).unwrap();
    objects.claim(None).await.unwrap();
    let bytes = bundle();
    objects.put(digest(1), &mut &bytes[..]).await.unwrap();
    let (ours, elsewhere) = (folder.path().join("bundles"), folder.path().join("elsewhere"));
    std::fs::rename(&ours, &elsewhere).unwrap();
    for lost in [
        objects.is_there().await,
        objects.put(digest(2), &mut &bytes[..]).await,
        objects.claim(Some(digest(1))).await,
    ] {
        assert!(matches!(lost, Err(ObjectError::Lost)), "{lost:?}");
    }
    assert!(!ours.exists());
    std::fs::rename(&elsewhere, &ours).unwrap();
    objects.is_there().await.unwrap();
    // What comes from a backup has bundles and no mark.
    std::fs::remove_file(ours.join("lockstep.txt")).unwrap();
    objects.claim(Some(digest(1))).await.unwrap();
    objects.is_there().await.unwrap();
}

/// As `aws s3 mb` would; that it is there already is as good.
async fn make_bucket(url: &str) {
    use tokio::io::AsyncWriteExt as _;

    let endpoint = std::env::var("AWS_ENDPOINT").unwrap();
    let host = endpoint.strip_prefix("http://").unwrap();
    let bucket = url.strip_prefix("s3://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!(
        "PUT /{bucket} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
}

fn digest(byte: u8) -> Sha256 {
    Sha256([byte; 32])
}

fn digest_of(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// More than one part of an upload.
fn bundle() -> Vec<u8> {
    (0..PART_BYTES + 1000).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test]
async fn what_was_put_away_comes_back_whole_and_in_part() {
    let place = place().await;
    let bytes = bundle();
    let digest = digest_of(&bytes);
    for _ in 0..2 {
        place.objects.put(digest, &mut &bytes[..]).await.unwrap();
    }
    let all = place.objects.get(digest, 0..bytes.len() as u64).await.unwrap().unwrap();
    assert!(all == bytes);
    let range = PART_BYTES as u64 - 3..PART_BYTES as u64 + 3;
    let part = place.objects.get(digest, range).await.unwrap().unwrap();
    assert_eq!(part, bytes[PART_BYTES - 3..PART_BYTES + 3]);
    place.objects.is_there().await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_nothing_and_no_error() {
    let place = place().await;
    assert!(place.objects.get(digest(2), 0..10).await.unwrap().is_none());
}

/// Devices would find it as well, after they have fetched all of it.
#[tokio::test]
async fn what_is_not_as_it_was_put_away_is_not_handed_out_and_not_kept() {
    let place = place().await;
    let (bytes, spoiled) = (bundle(), bundle()[1..].to_vec());
    let digest = digest_of(&bytes);
    place.objects.put(digest, &mut &spoiled[..]).await.unwrap();
    let error = place.objects.get(digest, 0..10).await.unwrap_err();
    assert!(matches!(error, ObjectError::Damaged { .. }), "{error:?}");
    place.objects.put(digest, &mut &bytes[..]).await.unwrap();
    assert_eq!(place.objects.get(digest, 0..10).await.unwrap().unwrap(), bytes[..10]);
    // What is asked for was read from the tables: it is there, or the tables are of another bundle.
    let beyond = bytes.len() as u64 + 1;
    assert!(place.objects.get(digest, 0..beyond).await.is_err());
}

/// Gives a part, and then the disk under it is gone.
struct Breaks(usize);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(io::Error::other("gone")));
        }
        let count = buffer.remaining().min(self.0);
        buffer.put_slice(&vec![7; count]);
        self.0 -= count;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_was_cut_off_on_its_way_is_not_there() {
    let place = place().await;
    let error = place.objects.put(digest(3), &mut Breaks(PART_BYTES + 10)).await.unwrap_err();
    assert!(matches!(error, ObjectError::Read(_)), "{error:?}");
    assert!(place.objects.get(digest(3), 0..10).await.unwrap().is_none());
}
