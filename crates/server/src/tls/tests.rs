//! Certificates that are made, given, changed and spoiled.

use std::fs;

use jiff::Span;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

const NOW: &str = "2026-11-27T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn in_days(days: i64) -> Timestamp {
    now().checked_add(Span::new().hours(24 * days)).unwrap()
}

fn own(folder: &Path, now: Timestamp) -> Tls {
    let names = Certificates::Own { names: vec!["fleet.local".into()] };
    Tls::open(&names, [127, 0, 0, 1].into(), folder, now).unwrap()
}

/// A certificate and its key in files, as an operator has them.
fn given(folder: &Path, days: i64) -> Certificates {
    let (chain, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["fleet.example.org".into()]).unwrap();
    let until = in_days(days).as_second();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(until).unwrap();
    fs::write(&chain, params.self_signed(&pair).unwrap().pem()).unwrap();
    fs::write(&key, pair.serialize_pem()).unwrap();
    Certificates::Given { chain, key }
}

fn open(certificates: &Certificates, folder: &Path) -> Result<Tls, TlsError> {
    Tls::open(certificates, [127, 0, 0, 1].into(), folder, now())
}

#[test]
fn an_authority_is_made_once_and_only_its_owner_reads_the_key() {
    let folder = TempDir::new().unwrap();
    let first = own(folder.path(), now());
    let again = own(folder.path(), in_days(100));
    let fingerprint = first.authority().unwrap().fingerprint();
    assert_eq!(again.authority().unwrap().fingerprint(), fingerprint);
    assert_eq!(fingerprint.len(), 95, "{fingerprint}");
    let handed_out = fs::read_to_string(folder.path().join("ca.pem")).unwrap();
    assert!(!handed_out.contains("PRIVATE KEY"), "{handed_out}");
    assert_eq!(first.name(), Some("fleet.local"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let secret = fs::metadata(folder.path().join("authority.pem")).unwrap();
        assert_eq!(secret.permissions().mode() & 0o077, 0);
    }
}

#[test]
fn two_servers_that_start_at_once_in_one_folder_have_one_authority() {
    let folder = TempDir::new().unwrap();
    let prints: Vec<_> = std::thread::scope(|scope| {
        let open = || own(folder.path(), now()).authority().unwrap().fingerprint();
        let started: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        started.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(prints.windows(2).all(|two| two[0] == two[1]), "{prints:?}");
}

#[test]
fn an_own_certificate_is_made_anew_a_month_before_it_ends() {
    let folder = TempDir::new().unwrap();
    let tls = own(folder.path(), now());
    assert_eq!(tls.expires_at(), in_days(397));
    assert!(!tls.refresh(in_days(366)).unwrap());
    assert!(tls.refresh(in_days(368)).unwrap());
    assert_eq!(tls.expires_at(), in_days(368 + 397));
}

#[test]
fn an_authority_that_has_expired_is_not_used_and_not_replaced_in_silence() {
    let folder = TempDir::new().unwrap();
    own(folder.path(), now());
    let error = Authority::open(folder.path(), in_days(3_651)).unwrap_err();
    assert!(matches!(error, TlsError::Expired { .. }), "{error}");
    fs::write(folder.path().join("authority.pem"), "cut").unwrap();
    let error = Authority::open(folder.path(), now()).unwrap_err();
    assert!(matches!(error, TlsError::Content { .. }), "{error}");
}

#[test]
fn a_name_that_no_host_has_is_refused() {
    let folder = TempDir::new().unwrap();
    for name in ["fleet local", "", "https://fleet.local"] {
        let error = open(&Certificates::Own { names: vec![name.into()] }, folder.path());
        assert!(matches!(error, Err(TlsError::Name { .. })), "{name}: {error:?}");
    }
}

#[test]
fn a_given_certificate_must_be_one_last_and_fit_its_key() {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let good = given(folder.path(), 90);
    let error = open(&given(other.path(), -1), folder.path()).unwrap_err();
    assert!(error.to_string().contains("has expired at 2026-11-26"), "{error}");
    let (chain, key) = (folder.path().join("cert.pem"), other.path().join("key.pem"));
    let mixed = Certificates::Given { chain, key };
    let error = open(&mixed, folder.path()).unwrap_err();
    assert!(matches!(error, TlsError::Pair { .. }), "{error}");
    let swapped = match good {
        Certificates::Given { chain, key } => Certificates::Given { chain: key, key: chain },
        Certificates::Own { .. } => unreachable!(),
    };
    let error = open(&swapped, folder.path()).unwrap_err();
    assert!(error.to_string().contains("key.pem` should hold certificates"), "{error}");
}

#[test]
fn files_that_change_are_taken_up_when_they_fit_and_the_old_ones_stay_until_then() {
    let folder = TempDir::new().unwrap();
    let tls = open(&given(folder.path(), 90), folder.path()).unwrap();
    assert!(!tls.refresh(now()).unwrap());
    // Whatever renews them may write the one before the other.
    let old_key = fs::read(folder.path().join("key.pem")).unwrap();
    given(folder.path(), 180);
    let new_key = fs::read(folder.path().join("key.pem")).unwrap();
    fs::write(folder.path().join("key.pem"), old_key).unwrap();
    assert!(matches!(tls.refresh(now()), Err(TlsError::Pair { .. })));
    assert_eq!(tls.expires_at(), in_days(90));
    assert!(!tls.refresh(now()).unwrap(), "the same trouble is told once");
    fs::write(folder.path().join("key.pem"), new_key).unwrap();
    assert!(tls.refresh(now()).unwrap());
    assert_eq!(tls.expires_at(), in_days(180));
    fs::remove_file(folder.path().join("cert.pem")).unwrap();
    assert!(matches!(tls.refresh(now()), Err(TlsError::Read { .. })));
    assert_eq!(tls.expires_at(), in_days(180));
}
