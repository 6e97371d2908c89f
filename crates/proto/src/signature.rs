//! Keys and signatures in minisign's file format, so that `minisign -Vm manifest.json` verifies a
//! release without us, and we verify what it signed.
//!
//! A [`PublicKey`] in hand is a point on the curve and not a weak one; a signature that verifies
//! covers its trusted comment too. Nothing here allocates, and nothing signs: secret keys stay on
//! the host. Which keys are trusted, and how many must sign, is decided in `manifest::trust`.
//!
//! ```text
//! key        untrusted comment: …       any text, or this line is missing
//!            base64(Ed, key id 8, public key 32)
//! signature  untrusted comment: …
//!            base64(ED or Ed, key id 8, signature 64)
//!            trusted comment: …
//!            base64(signature 64 over the signature above and the trusted comment)
//! ```

use core::fmt;
use core::str::FromStr;

use base64ct::{Base64, Encoding};
use blake2::{Blake2b512, Digest};
use ed25519_dalek::VerifyingKey;

/// Which key, as a name: drawn at random with the key, and no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// As `minisign` prints it: a little endian number in sixteen hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key that releases may be signed with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey {
    id: KeyId,
    point: [u8; KEY_BYTES],
}

impl PublicKey {
    /// Reads a `.pub` file, or its base64 line alone.
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let mut lines = lines(text);
        let first = lines.next().filter(|line| !line.is_empty()).ok_or(KeyError::Empty)?;
        let encoded = if first.starts_with(UNTRUSTED_COMMENT.as_bytes()) {
            lines.next().ok_or(KeyError::Empty)?
        } else {
            first
        };
        let mut bytes = [0; KEY_BYTES_ENCODED];
        let decoded = Base64::decode(encoded, &mut bytes).unwrap_or(&[]);
        if decoded.len() != KEY_BYTES_ENCODED {
            return Err(KeyError::Malformed { length: encoded.len() });
        }
        let [a, b, rest @ ..] = bytes;
        if [a, b] != LEGACY {
            return Err(KeyError::UnknownAlgorithm { found: [a, b] });
        }
        Self::from_bytes(&rest)
    }

    /// Reads the form kept on a device: key id, then the point.
    pub fn from_bytes(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Result<Self, KeyError> {
        let (mut id, mut point) = ([0; 8], [0; KEY_BYTES]);
        let (id_bytes, point_bytes) = bytes.split_at(id.len());
        id.copy_from_slice(id_bytes);
        point.copy_from_slice(point_bytes);
        let id = KeyId(id);
        let key = VerifyingKey::from_bytes(&point).map_err(|_| KeyError::NotAPoint { id })?;
        if key.is_weak() {
            return Err(KeyError::Weak { id });
        }
        Ok(Self { id, point })
    }

    /// Key id, then the point: what [`PublicKey::from_bytes`] reads.
    pub fn to_bytes(&self) -> [u8; PUBLIC_KEY_BYTES] {
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        let (id, point) = bytes.split_at_mut(self.id.0.len());
        id.copy_from_slice(&self.id.0);
        point.copy_from_slice(&self.point);
        bytes
    }

    /// Its name.
    pub const fn id(&self) -> KeyId {
        self.id
    }
}

/// The base64 line of a `.pub` file, as `minisign -P` takes it.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; KEY_BYTES_ENCODED];
        let (algorithm, key) = bytes.split_at_mut(LEGACY.len());
        algorithm.copy_from_slice(&LEGACY);
        key.copy_from_slice(&self.to_bytes());
        let mut text = [0; KEY_BYTES_ENCODED.div_ceil(3) * 4];
        f.write_str(Base64::encode(&bytes, &mut text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text.as_bytes())
    }
}

/// One signature file, taken apart but not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature<'a> {
    algorithm: Algorithm,
    key_id: KeyId,
    signature: [u8; SIGNATURE_BYTES],
    trusted_comment: &'a str,
    global_signature: [u8; SIGNATURE_BYTES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    /// Signs BLAKE2b-512 of the message.
    Prehashed,
    /// Signs the message itself: what minisign did by default before 0.10.
    Legacy,
}

impl<'a> Signature<'a> {
    /// Reads a `.minisig` file.
    pub fn parse(text: &'a [u8]) -> Result<Self, SignatureError> {
        if text.len() > SIGNATURE_FILE_BYTES_MAX {
            return Err(SignatureError::TooLarge { size: text.len() });
        }
        let mut lines = lines(text);
        let mut line = |missing| lines.next().ok_or(SignatureError::Missing { line: missing });
        let untrusted = line(Line::UntrustedComment)?;
        if !untrusted.starts_with(UNTRUSTED_COMMENT.as_bytes()) {
            return Err(SignatureError::Missing { line: Line::UntrustedComment });
        }
        let mut bytes = [0; 2 + 8 + SIGNATURE_BYTES];
        decode(line(Line::Signature)?, &mut bytes, Line::Signature)?;
        let comment = line(Line::TrustedComment)?;
        let mut global_signature = [0; SIGNATURE_BYTES];
        decode(line(Line::GlobalSignature)?, &mut global_signature, Line::GlobalSignature)?;
        if lines.next().is_some() {
            return Err(SignatureError::TrailingLine);
        }

        let comment = comment
            .strip_prefix(TRUSTED_COMMENT.as_bytes())
            .ok_or(SignatureError::Missing { line: Line::TrustedComment })?;
        if comment.len() > TRUSTED_COMMENT_BYTES_MAX {
            return Err(SignatureError::CommentTooLong { length: comment.len() });
        }
        let trusted_comment =
            core::str::from_utf8(comment).map_err(|_| SignatureError::CommentNotText)?;
        let [a, b, rest @ ..] = bytes;
        let algorithm = match [a, b] {
            PREHASHED => Algorithm::Prehashed,
            LEGACY => Algorithm::Legacy,
            found => return Err(SignatureError::UnknownAlgorithm { found }),
        };
        let (mut id, mut signature) = ([0; 8], [0; SIGNATURE_BYTES]);
        let (id_bytes, signature_bytes) = rest.split_at(id.len());
        id.copy_from_slice(id_bytes);
        signature.copy_from_slice(signature_bytes);
        Ok(Self { algorithm, key_id: KeyId(id), signature, trusted_comment, global_signature })
    }

    /// Which key it claims to be by.
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The comment, to be believed only after [`Signature::verify`].
    pub const fn trusted_comment(&self) -> &'a str {
        self.trusted_comment
    }

    /// Whether `key` signed `message`, and this trusted comment with it.
    pub fn verify(&self, key: &PublicKey, message: &[u8]) -> Result<(), SignatureError> {
        if self.key_id != key.id {
            return Err(SignatureError::OtherKey { found: self.key_id, expected: key.id });
        }
        let point = VerifyingKey::from_bytes(&key.point)
            .map_err(|_| SignatureError::DoesNotVerify { key: key.id })?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        match self.algorithm {
            Algorithm::Prehashed => {
                point.verify_strict(Blake2b512::digest(message).as_slice(), &signature)
            }
            Algorithm::Legacy => point.verify_strict(message, &signature),
        }
        .map_err(|_| SignatureError::DoesNotVerify { key: key.id })?;

        let comment = self.trusted_comment.as_bytes();
        let mut covered =
            heapless::Vec::<u8, { SIGNATURE_BYTES + TRUSTED_COMMENT_BYTES_MAX }>::new();
        let length = comment.len();
        covered
            .extend_from_slice(&self.signature)
            .and_then(|()| covered.extend_from_slice(comment))
            .map_err(|_| SignatureError::CommentTooLong { length })?;
        let global = ed25519_dalek::Signature::from_bytes(&self.global_signature);
        point
            .verify_strict(&covered, &global)
            .map_err(|_| SignatureError::CommentDoesNotVerify { key: key.id })
    }
}

/// Why something is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// There is no line with a key.
    Empty,
    /// The line is not base64 of a minisign key.
    Malformed {
        /// Bytes in the line.
        length: usize,
    },
    /// A key for something other than Ed25519.
    UnknownAlgorithm {
        /// The two bytes that name the algorithm.
        found: [u8; 2],
    },
    /// The key is no point on the curve: damaged.
    NotAPoint {
        /// The key's name.
        id: KeyId,
    },
    /// The key is of small order, so that one signature would fit many messages.
    Weak {
        /// The key's name.
        id: KeyId,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("`public key` is empty, expected minisign's key file"),
            Self::Malformed { length } => {
                let expected = KEY_BYTES_ENCODED.div_ceil(3) * 4;
                write!(
                    f,
                    "`public key` is {length} characters that are no minisign key, \
                     expected {expected} of base64"
                )
            }
            Self::UnknownAlgorithm { found } => {
                write!(f, "`public key` is of algorithm `{}`, expected `Ed`", found.escape_ascii())
            }
            Self::NotAPoint { id } => write!(f, "public key `{id}` is damaged: not on the curve"),
            Self::Weak { id } => write!(f, "public key `{id}` is weak: of small order"),
        }
    }
}

impl core::error::Error for KeyError {}

/// Why a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    /// Larger than any signature file of ours.
    TooLarge {
        /// Bytes in the file.
        size: usize,
    },
    /// A line of the file is not there, or does not begin as it must.
    Missing {
        /// Which.
        line: Line,
    },
    /// A line is not base64 of what belongs there.
    Malformed {
        /// Which.
        line: Line,
        /// Characters in it.
        length: usize,
        /// Characters that belong there.
        expected: usize,
    },
    /// Neither of the two algorithms of minisign.
    UnknownAlgorithm {
        /// The two bytes that name the algorithm.
        found: [u8; 2],
    },
    /// The trusted comment is longer than we hold.
    CommentTooLong {
        /// Bytes in it.
        length: usize,
    },
    /// The trusted comment is not UTF-8.
    CommentNotText,
    /// Something follows the four lines.
    TrailingLine,
    /// By another key than the one asked about.
    OtherKey {
        /// The signature's.
        found: KeyId,
        /// The one asked about.
        expected: KeyId,
    },
    /// The message, or the signature, was changed.
    DoesNotVerify {
        /// By which key it claims to be.
        key: KeyId,
    },
    /// The message is right, but the trusted comment was changed.
    CommentDoesNotVerify {
        /// By which key it claims to be.
        key: KeyId,
    },
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size } => {
                write!(f, "`signature` is {size} bytes, the limit is {SIGNATURE_FILE_BYTES_MAX}")
            }
            Self::Missing { line } => write!(f, "`signature` has no {line}"),
            Self::Malformed { line, length, expected } => write!(
                f,
                "`signature` has {length} characters as {line}, expected {expected} of base64"
            ),
            Self::UnknownAlgorithm { found } => write!(
                f,
                "`signature` is of algorithm `{}`, expected `ED` or `Ed`",
                found.escape_ascii()
            ),
            Self::CommentTooLong { length } => write!(
                f,
                "`trusted comment` is {length} bytes, the limit is {TRUSTED_COMMENT_BYTES_MAX}"
            ),
            Self::CommentNotText => f.write_str("`trusted comment` is not UTF-8"),
            Self::TrailingLine => {
                f.write_str("`signature` has more lines than the four of minisign")
            }
            Self::OtherKey { found, expected } => {
                write!(f, "`signature` is by key `{found}`, expected key `{expected}`")
            }
            Self::DoesNotVerify { key } => {
                write!(f, "`signature` by key `{key}` does not fit the bytes it came with")
            }
            Self::CommentDoesNotVerify { key } => {
                write!(f, "`trusted comment` of the signature by key `{key}` was changed")
            }
        }
    }
}

impl core::error::Error for SignatureError {}

/// A line of a signature file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The first, which nothing protects.
    UntrustedComment,
    /// The second: algorithm, key id, signature of the message.
    Signature,
    /// The third.
    TrustedComment,
    /// The fourth: signature of the second and the third.
    GlobalSignature,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UntrustedComment => "line `untrusted comment: `",
            Self::Signature => "line with the signature",
            Self::TrustedComment => "line `trusted comment: `",
            Self::GlobalSignature => "line with the signature of the comment",
        })
    }
}

/// The lines as minisign reads them: a carriage return before the end belongs to the line break.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate()
        // Editors leave blank lines at the end; a blank first line is no comment of ours.
        .take_while(|(index, line)| *index < 4 || !line.is_empty())
        .map(|(_, line)| line)
}

fn decode(encoded: &[u8], bytes: &mut [u8], line: Line) -> Result<(), SignatureError> {
    let wanted = bytes.len();
    let decoded = Base64::decode(encoded, bytes).map_or(0, <[u8]>::len);
    if decoded == wanted {
        return Ok(());
    }
    let expected = wanted.div_ceil(3) * 4;
    Err(SignatureError::Malformed { line, length: encoded.len(), expected })
}

/// A key as a device keeps it: key id, then the point.
pub const PUBLIC_KEY_BYTES: usize = 8 + KEY_BYTES;
/// A signature file is about 300 bytes; the rest is for comments.
pub const SIGNATURE_FILE_BYTES_MAX: usize = 1024;
/// What `minisign` writes by itself is about 60 bytes: a time stamp and a file name.
pub const TRUSTED_COMMENT_BYTES_MAX: usize = 512;

const KEY_BYTES: usize = 32;
const KEY_BYTES_ENCODED: usize = 2 + PUBLIC_KEY_BYTES;
const SIGNATURE_BYTES: usize = 64;
const PREHASHED: [u8; 2] = *b"ED";
const LEGACY: [u8; 2] = *b"Ed";
const UNTRUSTED_COMMENT: &str = "untrusted comment: ";
const TRUSTED_COMMENT: &str = "trusted comment: ";

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;
    use std::{format, fs, process};

    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &[u8] = include_bytes!("../tests/golden/release/manifest.json");
    /// Made by `minisign`, prehashed, by key 1.
    const PREHASHED_FILE: &[u8] = include_bytes!("../tests/golden/release/manifest.json.minisig");
    /// Made by `minisign -l`, not prehashed, by key 2.
    const LEGACY_FILE: &[u8] = include_bytes!("../tests/golden/release/manifest.json.2.minisig");
    const KEY_1: &[u8] = include_bytes!("../tests/golden/release/test-key-1.pub");
    const KEY_2: &[u8] = include_bytes!("../tests/golden/release/test-key-2.pub");

    fn keys() -> [PublicKey; 2] {
        [KEY_1, KEY_2].map(|text| PublicKey::parse(text).unwrap())
    }

    #[test]
    fn a_key_is_named_as_minisign_names_it() {
        for (key, text) in keys().into_iter().zip([KEY_1, KEY_2]) {
            let text = str::from_utf8(text).unwrap();
            let (comment, line) = text.trim_end().split_once('\n').unwrap();
            assert_eq!(comment, format!("untrusted comment: minisign public key {}", key.id()));
            assert_eq!(key.to_string(), line);
            assert_eq!(line.parse(), Ok(key));
            assert_eq!(PublicKey::from_bytes(&key.to_bytes()), Ok(key));
        }
    }

    #[test]
    fn what_minisign_signed_verifies_prehashed_or_not() {
        let [one, two] = keys();
        let signature = Signature::parse(PREHASHED_FILE).unwrap();
        assert_eq!(signature.verify(&one, MESSAGE), Ok(()));
        assert_eq!(signature.trusted_comment(), "golden release, key 1");
        let signature = Signature::parse(LEGACY_FILE).unwrap();
        assert_eq!(signature.verify(&two, MESSAGE), Ok(()));
        assert_eq!(signature.trusted_comment(), "golden release, key 2, not prehashed");
    }

    // Git on Windows changes line ends; minisign does not mind.
    #[test]
    fn line_ends_of_windows_are_taken() {
        let crlf = |text: &[u8]| str::from_utf8(text).unwrap().replace('\n', "\r\n");
        let (signature, key) = (crlf(PREHASHED_FILE), crlf(KEY_1));
        let key = PublicKey::parse(key.as_bytes()).unwrap();
        let signature = Signature::parse(signature.as_bytes()).unwrap();
        assert_eq!(signature.verify(&key, MESSAGE), Ok(()));
    }

    #[test]
    fn every_line_of_a_signature_counts() {
        let text = str::from_utf8(PREHASHED_FILE).unwrap();
        let [key, other] = keys();
        let verify = |text: &str, key| Signature::parse(text.as_bytes())?.verify(key, MESSAGE);
        let id = key.id();
        let comment = text.replace("golden release", "another text");
        assert_eq!(verify(&comment, &key), Err(SignatureError::CommentDoesNotVerify { key: id }));
        let (found, expected) = (id, other.id());
        assert_eq!(verify(text, &other), Err(SignatureError::OtherKey { found, expected }));
        // Of another message, though by the right key.
        let error = Signature::parse(PREHASHED_FILE).unwrap().verify(&key, b"other").unwrap_err();
        assert_eq!(error, SignatureError::DoesNotVerify { key: id });
        // The unprotected line may say anything.
        assert_eq!(verify(&text.replace("of a test", "of nothing"), &key), Ok(()));

        let lines: Vec<_> = text.lines().collect();
        for missing in 0..lines.len() {
            let mut lines = lines.clone();
            lines.remove(missing);
            let error = verify(&lines.join("\n"), &key).unwrap_err();
            let is_shape =
                matches!(error, SignatureError::Missing { .. } | SignatureError::Malformed { .. });
            assert!(is_shape, "{error}");
        }
        assert_eq!(verify(&format!("{text}more"), &key), Err(SignatureError::TrailingLine));
        assert_eq!(verify(&format!("{text}\n\n"), &key), Ok(()));
    }

    #[test]
    fn limits_are_named_with_both_values() {
        let text = str::from_utf8(PREHASHED_FILE).unwrap();
        let refusal = |text: &str| Signature::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(refusal(&" ".repeat(1025)), "`signature` is 1025 bytes, the limit is 1024");
        assert_eq!(
            refusal(&text.replace("golden", &"x".repeat(600))),
            "`trusted comment` is 615 bytes, the limit is 512"
        );
        assert_eq!(
            refusal(&text.replace("RUT", "RXT")),
            "`signature` is of algorithm `Et`, expected `ED` or `Ed`"
        );
        assert_eq!(refusal(""), "`signature` has no line `untrusted comment: `");
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let refusal = |text: &[u8]| PublicKey::parse(text).unwrap_err();
        assert_eq!(refusal(b""), KeyError::Empty);
        assert_eq!(refusal(b"untrusted comment: x\n"), KeyError::Empty);
        assert_eq!(refusal(b"RWT"), KeyError::Malformed { length: 3 });
        let mut bytes = keys()[0].to_bytes();
        let id = keys()[0].id();
        bytes[8..].fill(0);
        bytes[8] = 2; // has no x on the curve
        assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::NotAPoint { id }));
        bytes[8] = 1; // the neutral element: signs anything
        assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::Weak { id }));
    }

    #[test]
    fn what_the_host_signs_verifies_here() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let key = PublicKey::parse(pair.pk.to_box().unwrap().to_string().as_bytes()).unwrap();
        let signed =
            minisign::sign(Some(&pair.pk), &pair.sk, MESSAGE, Some("release 1.2.0"), None).unwrap();
        let text = signed.to_string();
        let signature = Signature::parse(text.as_bytes()).unwrap();
        assert_eq!(signature.verify(&key, MESSAGE), Ok(()));
        assert_eq!(signature.trusted_comment(), "release 1.2.0");
    }

    // Both directions, with the tool itself: what it signs today, and what it says to ours.
    #[test]
    fn minisign_agrees_in_both_directions() {
        let folder = std::env::temp_dir().join(format!("lockstep-minisign-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let run = |arguments: &str| {
            let arguments = arguments.split(' ');
            process::Command::new("minisign").args(arguments).current_dir(&folder).output()
        };
        let made = run("-G -W -p key.pub -s key");
        if !made.as_ref().is_ok_and(|output| output.status.success()) {
            std::println!("skipped: no `minisign` here: {made:?}");
            return;
        }
        let key = PublicKey::parse(&fs::read(folder.join("key.pub")).unwrap()).unwrap();
        for how in ["", " -l"] {
            fs::write(folder.join("manifest.json"), MESSAGE).unwrap();
            assert!(run(&format!("-Sm manifest.json -s key{how}")).unwrap().status.success());
            let file = fs::read(folder.join("manifest.json.minisig")).unwrap();
            assert_eq!(Signature::parse(&file).unwrap().verify(&key, MESSAGE), Ok(()), "{how}");
            // Our spelling of the key is one that it takes.
            assert!(run(&format!("-Vm manifest.json -P {key}")).unwrap().status.success());
            fs::write(folder.join("manifest.json"), "changed").unwrap();
            assert!(!run(&format!("-Vm manifest.json -P {key}")).unwrap().status.success());
            let signature = Signature::parse(&file).unwrap();
            assert!(signature.verify(&key, b"changed").is_err());
        }
        fs::remove_dir_all(folder).unwrap();
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = PublicKey::parse(&bytes);
            let _ = Signature::parse(&bytes);
        }

        #[test]
        fn no_damage_verifies(at in 0..PREHASHED_FILE.len(), change in 1_u8..) {
            let mut damaged = PREHASHED_FILE.to_vec();
            damaged[at] ^= change;
            let verified = Signature::parse(&damaged)
                .and_then(|signature| signature.verify(&keys()[0], MESSAGE));
            // The first line is protected by nothing, only its beginning is fixed.
            let line = UNTRUSTED_COMMENT.len().."untrusted comment: signature of a test".len();
            let is_comment = line.contains(&at);
            prop_assert!(verified.is_err() || is_comment, "byte {}", at);
        }
    }
}
