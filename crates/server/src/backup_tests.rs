//! Backups: there and back, and whatever is wrong with one.

use jiff::Timestamp;

use super::*;
use crate::objects::Objects;
use crate::store::new_id;
use crate::tls::authority::Authority;

/// A server's folder with one release.
async fn fleet(folder: &Path) -> PathBuf {
    let data = folder.join("fleet");
    fs::create_dir_all(data.join("objects")).unwrap();
    let store = Store::open(&Store::url_in(&data)).await.unwrap();
    let bundle = b"a bundle, as far as this is concerned".repeat(1000);
    let digest = Sha256(sha2::Sha256::digest(&bundle).into());
    let objects = Objects::in_folder(&data.join("objects")).unwrap();
    objects.claim(None).await.unwrap();
    objects.put(digest, &mut &bundle[..]).await.unwrap();
    let release = Release {
        id: new_id().unwrap(),
        system: "desk".into(),
        version: "1.1.0".into(),
        number: 10_100,
        sequence: 0,
        epoch: 0,
        bundle_sha256: digest.to_string(),
        bundle_bytes: bundle.len() as u64,
        manifest: "{}".into(),
        signatures: 0,
        signers: Vec::new(),
        places: "{}".into(),
        description: String::new(),
        uploaded_at: Timestamp::UNIX_EPOCH,
        uploaded_by: "ada".into(),
        withdrawn_at: None,
    };
    store.add_release(&release).await.unwrap();
    data
}

#[tokio::test]
async fn what_was_backed_up_of_a_running_server_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = fleet(folder.path()).await;
    let running = Store::open(&Store::url_in(&data)).await.unwrap();
    let file = folder.path().join("fleet.backup");
    let made = back_up(&data, &file).await.unwrap();
    assert_eq!((made.groups, made.releases), (0, 1));
    running.is_there().await.unwrap();
    let again = folder.path().join("again");
    assert_eq!(restore(&file, &again).await.unwrap(), made);
    let store = Store::open(&Store::url_in(&again)).await.unwrap();
    assert_eq!(store.releases().await.unwrap()[0].version, "1.1.0");
    let error = restore(&file, &again).await.unwrap_err();
    assert!(matches!(error, BackupError::Exists(_)), "{error:?}");
    let error = back_up(&data, &file).await.unwrap_err();
    assert!(matches!(error, BackupError::Exists(_)), "{error:?}");
}

/// People have trusted it by hand, on each of their machines.
#[tokio::test]
async fn the_servers_own_authority_comes_along_and_only_its_owner_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = fleet(folder.path()).await;
    let open = |data: &Path| Authority::open(&data.join("tls"), Timestamp::now()).unwrap();
    let fingerprint = open(&data).fingerprint();
    let (file, again) = (folder.path().join("fleet.backup"), folder.path().join("again"));
    back_up(&data, &file).await.unwrap();
    restore(&file, &again).await.unwrap();
    assert_eq!(open(&again).fingerprint(), fingerprint);
    #[cfg(unix)]
    for path in [file, again.join("tls/authority.pem")] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0);
    }
}

#[tokio::test]
async fn a_backup_that_was_cut_off_or_damaged_anywhere_leaves_nothing_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let data = fleet(folder.path()).await;
    let file = folder.path().join("fleet.backup");
    back_up(&data, &file).await.unwrap();
    let bytes = fs::read(&file).unwrap();
    let bundle_at = bytes.len() - 20_000;
    let broken = folder.path().join("broken.backup");
    for spoil in [0, 1, 2] {
        let mut bytes = bytes.clone();
        match spoil {
            0 => bytes.truncate(bundle_at),
            1 => bytes[bundle_at] ^= 1,
            _ => bytes.truncate(100),
        }
        fs::write(&broken, &bytes).unwrap();
        let again = folder.path().join("again");
        restore(&broken, &again).await.unwrap_err();
        assert!(!again.exists() && !folder.path().join("again.restoring").exists(), "{spoil}");
    }
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evil.backup");
    let mut tar = tar::Builder::new(File::create(&file).unwrap());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..11].copy_from_slice(b"../evil.txt");
    header.set_size(1);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    tar.finish().unwrap();
    let error = restore(&file, &folder.path().join("again")).await.unwrap_err();
    assert_eq!(error.to_string(), "`../evil.txt` has no place in a backup");
    assert!(!folder.path().join("evil.txt").exists());
}

#[tokio::test]
async fn a_folder_that_is_no_servers_is_not_backed_up_and_a_lost_bundle_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.backup");
    let error = back_up(folder.path(), &file).await.unwrap_err();
    assert!(matches!(error, BackupError::NoData(_)), "{error:?}");
    let data = fleet(folder.path()).await;
    fs::remove_dir_all(data.join("objects/bundles")).unwrap();
    let error = back_up(&data, &file).await.unwrap_err();
    assert!(error.to_string().contains("of release 1.1.0 is missing"), "{error}");
    assert!(!file.exists());
}
