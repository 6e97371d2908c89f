//! A certificate authority of the server's own, for names that no public one vouches for.
//!
//! People trust it once; the certificates that it issues come and go. It is one file, so that its
//! key and its certificate are never of two authorities.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::Digest as _;
use time::OffsetDateTime;

use super::TlsError;

/// Key and certificate, which only the server reads.
const SECRET_FILE: &str = "authority.pem";
/// The certificate alone, to be handed out.
const PUBLIC_FILE: &str = "ca.pem";

/// The authority.
pub struct Authority {
    path: PathBuf,
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Authority {
    /// The one in the folder; a new one, if there is none.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let secret = folder.join(SECRET_FILE);
        if !secret.try_exists().unwrap_or(true) {
            fs::create_dir_all(folder).map_err(|source| unwritable(folder, source))?;
            make(&secret, now)?;
        }
        let authority = Self::read(secret, now)?;
        let public = folder.join(PUBLIC_FILE);
        // Made anew each time: somebody may have removed it.
        fs::write(&public, &authority.pem).map_err(|source| unwritable(&public, source))?;
        Ok(Self { path: public, ..authority })
    }

    fn read(path: PathBuf, now: Timestamp) -> Result<Self, TlsError> {
        let text = fs::read_to_string(&path)
            .map_err(|source| TlsError::Read { path: path.clone(), source })?;
        let content = |why: String| TlsError::Content {
            path: path.clone(),
            wanted: "a private key and an authority's certificate",
            why,
        };
        let der = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| content(error.to_string()))?;
        let key = KeyPair::from_pem(&text).map_err(|error| content(error.to_string()))?;
        let at = end_of(&der).ok_or_else(|| content("it holds no X.509 certificate".into()))?;
        if at <= now {
            return Err(TlsError::Expired { path, at });
        }
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|error| content(error.to_string()))?;
        let start = text.find(CERTIFICATE).ok_or_else(|| content("no certificate".into()))?;
        let pem = text.get(start..).unwrap_or_default().to_owned();
        Ok(Self { path, pem, der, issuer })
    }

    /// Where people find the certificate.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The certificate, to be handed out.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What people compare before they trust it: the SHA-256 of the certificate, as browsers write
    /// it, such as `0A:1B:…`.
    pub fn fingerprint(&self) -> String {
        let digest = sha2::Sha256::digest(&self.der);
        let pairs: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }

    /// A certificate for a server with these names, its key, and when it ends.
    pub(super) fn issue(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Timestamp), TlsError> {
        for name in names {
            rustls::pki_types::ServerName::try_from(name.as_str())
                .map_err(|_| TlsError::Name { name: name.clone() })?;
        }
        let mut params = CertificateParams::new(names.to_vec()).map_err(TlsError::Make)?;
        let subject = names.first().map(String::as_str).unwrap_or_default();
        params.distinguished_name = named(subject);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let until = lasts(&mut params, now, ISSUED_DAYS)?;
        let key = KeyPair::generate().map_err(TlsError::Make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(TlsError::Make)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok((vec![certificate.der().clone(), self.der.clone()], key, until))
    }
}

/// When a certificate ends; `None` for what is none.
pub(super) fn end_of(der: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Makes an authority, in the place where none is. If another server was quicker, its own is kept.
fn make(path: &Path, now: Timestamp) -> Result<(), TlsError> {
    let key = KeyPair::generate().map_err(TlsError::Make)?;
    let mut params = CertificateParams::default();
    // Two of them are told apart in a browser's list by when they were made.
    params.distinguished_name = named(&format!("Lockstep authority of {}", now.strftime("%F %T")));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasts(&mut params, now, AUTHORITY_DAYS)?;
    let certificate = params.self_signed(&key).map_err(TlsError::Make)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || -> io::Result<()> {
        // Only its owner reads a temporary file.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(key.serialize_pem().as_bytes())?;
        file.write_all(certificate.pem().as_bytes())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.error),
        }
    };
    written().map_err(|source| unwritable(path, source))
}

fn unwritable(path: &Path, source: io::Error) -> TlsError {
    TlsError::Write { path: path.to_owned(), source }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Valid from a day ago, for those whose clocks are behind, and for so many days; until when.
fn lasts(params: &mut CertificateParams, now: Timestamp, days: i64) -> Result<Timestamp, TlsError> {
    let bad = |_| TlsError::Make(rcgen::Error::Time);
    let moment = |at: Timestamp| {
        OffsetDateTime::from_unix_timestamp(at.as_second())
            .map_err(|_| TlsError::Make(rcgen::Error::Time))
    };
    let until = now.checked_add(Span::new().hours(24 * days)).map_err(bad)?;
    params.not_before = moment(now.checked_sub(Span::new().hours(24)).map_err(bad)?)?;
    params.not_after = moment(until)?;
    Ok(until)
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// People trust an authority by hand, which they should not have to do often: ten years.
const AUTHORITY_DAYS: i64 = 3_650;
/// Phones refuse what lasts longer than 825 days, and public authorities issue for 397.
const ISSUED_DAYS: i64 = 397;
