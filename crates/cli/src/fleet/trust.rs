//! Whom a command believes that a server is the one whose name it bears.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lockstep_proto::id::Sha256;
use sha2::Digest as _;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::client::{ANSWER_MAX, agent};
use crate::error::CommandError;

/// Authorities whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Authority {
    /// Those that this machine trusts.
    #[default]
    System,
    /// This one alone: a certificate in PEM form.
    Given(String),
}

impl Authority {
    /// What stands in a file of settings: nothing, or a certificate.
    pub(super) fn known(pem: &str) -> Self {
        match pem {
            "" => Self::System,
            pem => Self::Given(pem.to_owned()),
        }
    }

    /// As it stands there.
    pub fn pem(&self) -> &str {
        match self {
            Self::System => "",
            Self::Given(pem) => pem,
        }
    }

    /// The one whose certificate is in this file.
    pub fn read(path: &Path) -> Result<Self, CommandError> {
        let text = fs::read_to_string(path).map_err(|error| {
            CommandError::failed(format!("Cannot read `{}`", path.display())).because(&error)
        })?;
        match certificates(&text).is_empty() {
            true => Err(CommandError::failed(format!("`{}` holds no certificate", path.display()))
                .hinted("A server's own authority is in the file tls/ca.pem of its folder.")),
            false => Ok(Self::Given(text)),
        }
    }

    /// Asks the server for its own authority, and believes it if its fingerprint is this one: that
    /// was read where nobody could have changed it. Nothing else is said to the server before.
    pub fn fetch(url: &str, fingerprint: &str) -> Result<Self, CommandError> {
        let wanted = fingerprint_of(fingerprint)?;
        let blind = Self::config(TlsConfig::builder().disable_verification(true));
        let agent = agent(&Arc::default(), ANSWER_MAX, &blind);
        let failed = |error: &dyn std::error::Error| {
            CommandError::failed(format!("Server `{url}` does not tell its authority"))
                .because(error)
                .hinted("Has it one of its own? Else leave out --ca-sha256.")
        };
        let mut answer = agent.get(format!("{url}/ca.pem")).call().map_err(|it| failed(&it))?;
        let body = answer.body_mut().with_config().limit(PEM_BYTES_MAX);
        let text = body.read_to_string().map_err(|it| failed(&it))?;
        let found = certificates(&text);
        let Some(first) = found.first() else {
            return Err(CommandError::failed(format!(
                "Server `{url}` has no authority of its own"
            ))
            .hinted("Leave out --ca-sha256, or give the authority with --ca FILE."));
        };
        let digest = Sha256(sha2::Sha256::digest(first).into());
        if digest != wanted {
            return Err(CommandError::failed(format!(
                "Server `{url}` shows an authority with the fingerprint {digest}, not {wanted}"
            ))
            .hinted("Somebody else may answer in its place. The server prints it at its start."));
        }
        Ok(Self::Given(text))
    }

    /// For connections.
    pub(super) fn tls(&self) -> TlsConfig {
        let roots = match self {
            Self::System => RootCerts::PlatformVerifier,
            Self::Given(pem) => {
                let certificates = parse_pem(pem.as_bytes()).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                RootCerts::Specific(Arc::new(certificates.collect()))
            }
        };
        Self::config(TlsConfig::builder().root_certs(roots))
    }

    fn config(builder: ureq::tls::TlsConfigBuilder) -> TlsConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        builder.unversioned_rustls_crypto_provider(provider).build()
    }
}

/// In DER form.
fn certificates(pem: &str) -> Vec<Vec<u8>> {
    let items = parse_pem(pem.as_bytes());
    let certificates = items.filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate.der().to_vec()),
        _ => None,
    });
    certificates.collect()
}

/// As browsers write it, with colons, or without.
fn fingerprint_of(text: &str) -> Result<Sha256, CommandError> {
    let digits = text.replace(':', "").to_lowercase();
    Sha256::from_hex(&digits).ok_or_else(|| {
        CommandError::usage(format!("`{text}` is no fingerprint"))
            .hinted("It has 64 digits, in pairs, as `lockstep serve` prints it at its start.")
    })
}

/// Far more than a certificate takes.
const PEM_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_may_be_written_as_browsers_do() {
        let plain = "0a".repeat(32);
        let colons = vec!["0A"; 32].join(":");
        assert_eq!(fingerprint_of(&colons).unwrap(), fingerprint_of(&plain).unwrap());
        assert!(fingerprint_of("0a:1b").is_err());
    }
}
