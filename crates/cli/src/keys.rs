//! Keys on the maker's side: made, read, used to sign, in minisign's file format.
//!
//! A secret key is decrypted only to sign, and never printed. Passwords come from a terminal, from
//! an environment variable or from standard input, and from nowhere else. What a device trusts is
//! decided in `lockstep_proto::manifest`.

use std::io::{IsTerminal as _, stderr, stdin};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use lockstep_proto::manifest::{KeySet, KeySetError};
use lockstep_proto::signature::{KeyId, PublicKey, Signature};
use minisign::{KeyPair, SecretKeyBox};

use crate::error::CommandError;
use crate::files::{self, Existing, Readers};

/// Where the password of a secret key comes from
#[derive(Debug, Default, clap::Args)]
pub struct PasswordArgs {
    /// Read the key's password from standard input, one line for each key
    ///
    /// Without it the password is taken from the environment variable LOCKSTEP_KEY_PASSWORD, or
    /// asked for on the terminal.
    #[arg(long)]
    password_stdin: bool,
}

impl PasswordArgs {
    /// A password for a new key.
    pub fn new_password(&self) -> Result<String, CommandError> {
        let password = match self.given()? {
            Some(password) => password,
            None => {
                let first = ask("Password for the new key: ")?;
                if ask("The same again: ")? != first {
                    return Err(CommandError::failed("The two passwords are not the same"));
                }
                first
            }
        };
        if password.is_empty() {
            return Err(CommandError::failed("The password is empty")
                .hinted("For a key without a password say so: --no-password"));
        }
        Ok(password)
    }

    /// The password of an existing key.
    fn password_of(&self, path: &Path) -> Result<String, CommandError> {
        match self.given()? {
            Some(password) => Ok(password),
            None => ask(&format!("Password for `{}`: ", path.display())),
        }
    }

    fn given(&self) -> Result<Option<String>, CommandError> {
        if !self.password_stdin {
            return Ok(std::env::var(PASSWORD_VARIABLE).ok());
        }
        let mut line = String::new();
        let read = stdin().read_line(&mut line).map_err(|error| {
            CommandError::failed("Cannot read the password from standard input").because(&error)
        })?;
        if read == 0 {
            return Err(CommandError::failed("Standard input holds no more passwords")
                .hinted("It needs one line for each key that has a password."));
        }
        Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

fn ask(prompt: &str) -> Result<String, CommandError> {
    let no_terminal = || {
        CommandError::failed("The key needs a password, and there is no terminal to ask on")
            .hinted(format!("Set {PASSWORD_VARIABLE}, or use --password-stdin."))
    };
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(no_terminal());
    }
    rpassword::prompt_password(prompt).map_err(|error| no_terminal().because(&error))
}

/// Makes a key pair and writes its two files, neither of which may exist.
pub fn generate(
    secret: &Path,
    public: &Path,
    password: Option<String>,
) -> Result<KeyId, CommandError> {
    let failed =
        |error: &minisign::PError| CommandError::failed("Cannot make a key pair").because(error);
    let has_password = password.is_some();
    let pair = match has_password {
        true => KeyPair::generate_encrypted_keypair(password),
        false => KeyPair::generate_unencrypted_keypair(),
    };
    let KeyPair { pk, sk } = pair.map_err(|error| failed(&error))?;
    let public_text = pk.to_box().map_err(|error| failed(&error))?.into_string();
    let id = PublicKey::parse(public_text.as_bytes())
        .map_err(|error| CommandError::failed("Made a key that is none").because(&error))?
        .id();
    let comment = match has_password {
        true => format!("lockstep encrypted secret key {id}"),
        false => format!("lockstep secret key {id}, without a password"),
    };
    let secret_text = sk.to_box(Some(&comment)).map_err(|error| failed(&error))?.into_string();
    files::write(secret, &[secret_text.as_bytes()], Existing::Keep, Readers::Owner)?;
    files::write(public, &[public_text.as_bytes()], Existing::Keep, Readers::Anybody)?;
    Ok(id)
}

/// A secret key that can sign.
pub struct Signer {
    secret: minisign::SecretKey,
    public: PublicKey,
}

impl Signer {
    /// Reads a secret key file and decrypts it.
    pub fn open(path: &Path, password: &PasswordArgs) -> Result<Self, CommandError> {
        let name = path.display();
        let text = String::from_utf8(files::read(path, KEY_FILE_BYTES_MAX)?).unwrap_or_default();
        if PublicKey::parse(text.as_bytes()).is_ok() {
            return Err(CommandError::failed(format!("`{name}` is a public key, it cannot sign"))
                .hinted("The secret key is the file of the same name that ends in `.key`."));
        }
        let Some(bytes) = secret_bytes(&text) else {
            return Err(CommandError::failed(format!("`{name}` is no secret key"))
                .hinted("Make one with `lockstep keygen`, or with `minisign -G`."));
        };
        let failed = |error: &dyn std::error::Error| {
            CommandError::failed(format!("Cannot use the secret key `{name}`"))
                .because(error)
                .hinted(format!("Its password comes from {PASSWORD_VARIABLE} or --password-stdin."))
        };
        let opened = if is_encrypted(&bytes) {
            let password = password.password_of(path)?;
            SecretKeyBox::from_string(&text).and_then(|key| key.into_secret_key(Some(password)))
        } else {
            // Its checksum is not looked at: minisign writes zeros there. What it signs is.
            minisign::SecretKey::from_bytes(&bytes)
        };
        let secret = opened.map_err(|error| failed(&error))?;
        let public = minisign::PublicKey::from_secret_key(&secret)
            .map_err(|error| failed(&error))?
            .to_base64();
        let public =
            public.parse().map_err(|error: lockstep_proto::signature::KeyError| failed(&error))?;
        Ok(Self { secret, public })
    }

    /// The key that verifies what this one signs.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs, in minisign's prehashed form; `trusted_comment` is signed with it.
    pub fn sign(&self, message: &[u8], trusted_comment: &str) -> Result<String, CommandError> {
        let failed = |error: &dyn std::error::Error| {
            CommandError::failed(format!("Cannot sign with key {}", self.public.id()))
                .because(error)
        };
        let untrusted = format!("signature from lockstep, key {}", self.public.id());
        let text =
            minisign::sign(None, &self.secret, message, Some(trusted_comment), Some(&untrusted))
                .map_err(|error| failed(&error))?
                .to_string();
        // By the code that devices have; a damaged key shows here.
        let signature = Signature::parse(text.as_bytes()).map_err(|error| failed(&error))?;
        signature.verify(&self.public, message).map_err(|error| failed(&error))?;
        Ok(text)
    }
}

/// Nothing of the secret.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.public.id())
    }
}

/// Whether a file's text is that of a secret key, and if so whether it needs a password.
pub fn needs_password(text: &str) -> Option<bool> {
    secret_bytes(text).map(|bytes| is_encrypted(&bytes))
}

/// What a secret key file holds; `None`: it is no such file.
fn secret_bytes(text: &str) -> Option<[u8; SECRET_KEY_BYTES]> {
    let mut bytes = [0; SECRET_KEY_BYTES];
    let decoded = Base64::decode(text.lines().nth(1)?.trim(), &mut bytes).ok()?;
    // Two bytes each for the signature's, the derivation's and the checksum's algorithm.
    let is_known = decoded.starts_with(ENCRYPTED) || decoded.starts_with(PLAIN);
    (decoded.len() == SECRET_KEY_BYTES && is_known).then_some(bytes)
}

fn is_encrypted(bytes: &[u8; SECRET_KEY_BYTES]) -> bool {
    bytes.starts_with(ENCRYPTED)
}

/// Reads a public key file.
pub fn read_public(path: &Path) -> Result<PublicKey, CommandError> {
    let bytes = files::read(path, KEY_FILE_BYTES_MAX)?;
    PublicKey::parse(&bytes).map_err(|error| {
        let name = path.display();
        let is_secret =
            std::str::from_utf8(&bytes).is_ok_and(|text| needs_password(text).is_some());
        match is_secret {
            true => CommandError::failed(format!("`{name}` is a secret key"))
                .hinted("Give the public key: the file of the same name that ends in `.pub`."),
            false => CommandError::failed(format!("`{name}` is no public key")).because(&error),
        }
    })
}

/// Reads public key files into a set; `threshold` of them must sign, by default all.
pub fn read_key_set(paths: &[PathBuf], threshold: Option<u8>) -> Result<KeySet, CommandError> {
    let keys = paths.iter().map(|path| read_public(path)).collect::<Result<Vec<_>, _>>()?;
    // More keys than fit in a byte are refused as too many.
    let threshold = threshold.unwrap_or_else(|| u8::try_from(keys.len()).unwrap_or(u8::MAX));
    KeySet::new(&keys, threshold).map_err(|error| {
        let text = match error {
            KeySetError::Twice { .. } => "One key is given twice",
            KeySetError::Threshold { .. } | KeySetError::TooMany { .. } => "These keys are no set",
        };
        CommandError::failed(text).because(&error)
    })
}

/// The password of every key that this command opens.
pub const PASSWORD_VARIABLE: &str = "LOCKSTEP_KEY_PASSWORD";
/// Larger than any key file.
pub const KEY_FILE_BYTES_MAX: u64 = 4096;
/// How the bytes of a secret key begin that needs a password, and of one that needs none.
const ENCRYPTED: &[u8] = b"EdScB2";
const PLAIN: &[u8] = b"Ed\0\0B2";
/// Three algorithms, salt, two limits, key id, secret key, checksum.
const SECRET_KEY_BYTES: usize = 6 + 32 + 8 + 8 + 8 + 64 + 32;
