//! Who vouches for a simulated release. Signatures are those of minisign, made here because they
//! must come out the same in every run, which minisign's own do not.

use base64ct::{Base64, Encoding as _};
use blake2::{Blake2b512, Digest as _};
use ed25519_dalek::{Signer as _, SigningKey};
use lockstep_proto::manifest::{KeySet, Trust};
use lockstep_proto::signature::PublicKey;

/// Who vouches for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signing {
    /// Nobody.
    #[default]
    Nobody,
    /// The team whose key the devices have.
    Team,
    /// The team, as it seems: the signature is that of another manifest.
    Forger,
}

impl Signing {
    /// The signature of `manifest`, if there is one.
    pub(super) fn of(self, manifest: &str) -> Option<String> {
        let signed = match self {
            Self::Nobody => return None,
            Self::Team => manifest,
            Self::Forger => "{}",
        };
        let key = SigningKey::from_bytes(&TEAM_SECRET);
        let signature = key.sign(&Blake2b512::digest(signed.as_bytes())).to_bytes();
        let covered = [&signature[..], TRUSTED_COMMENT.as_bytes()].concat();
        let global = key.sign(&covered).to_bytes();
        let named = [&b"ED"[..], &TEAM_ID, &signature].concat();
        Some(format!(
            "untrusted comment: simulated team\n{}\ntrusted comment: {TRUSTED_COMMENT}\n{}\n",
            Base64::encode_string(&named),
            Base64::encode_string(&global)
        ))
    }
}

/// The team's key, for devices that demand its signature.
///
/// # Panics
///
/// Never: the key is one.
pub fn team_trust() -> Trust {
    let point = SigningKey::from_bytes(&TEAM_SECRET).verifying_key().to_bytes();
    let text = Base64::encode_string(&[&b"Ed"[..], &TEAM_ID, &point].concat());
    let key = PublicKey::parse(text.as_bytes()).expect("a key");
    Trust::signed_by(KeySet::new(&[key], 1).expect("one key of one"))
}

/// Signs nothing but simulated releases.
const TEAM_SECRET: [u8; 32] = [7; 32];
const TEAM_ID: [u8; 8] = *b"sim team";
const TRUSTED_COMMENT: &str = "simulated";
