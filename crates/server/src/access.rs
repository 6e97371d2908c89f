//! Who may do what. Three roles, each with all that the one before may: a viewer looks, an
//! operator moves groups, an admin lets others in.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, PasswordHash};
use serde::Serialize;
use utoipa::ToSchema;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Uploads releases, makes campaigns, changes groups.
    Operator,
    /// Lets people, tokens and groups in and out.
    Admin,
}

impl Role {
    /// All, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or("expected `viewer`, `operator` or `admin`")
    }
}

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A person's name, or `token NAME`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How it came.
    pub by: By,
}

/// How somebody came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// With a browser's session; forms of it carry this against requests of other sites.
    Session {
        /// What forms carry.
        form_token: String,
    },
    /// With a token, which no browser sends by itself.
    Token {
        /// The token's identity.
        id: String,
    },
}

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeakPassword {
    /// Too short, or longer than anybody types.
    Length {
        /// So many characters.
        found: usize,
    },
}

impl fmt::Display for WeakPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found } => write!(
                f,
                "the password has {found} characters, expected {PASSWORD_CHARS_MIN} to \
                 {PASSWORD_CHARS_MAX}"
            ),
        }
    }
}

impl std::error::Error for WeakPassword {}

/// Looks whether a password may be one.
pub fn check_password(password: &str) -> Result<(), WeakPassword> {
    let found = password.chars().count();
    if (PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&found) {
        return Ok(());
    }
    Err(WeakPassword::Length { found })
}

/// What stands in the tables of a password: Argon2id with the crate's parameters, which are those
/// that OWASP recommends. Takes tens of milliseconds, so call it where that may block.
pub fn hash_password(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

/// Whether a password is the one that was hashed. As slow as [`hash_password`].
pub fn is_password(password: &str, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// What is compared with when there is no such person, so that this takes as long.
pub fn hash_of_nobody() -> &'static str {
    "$argon2id$v=19$m=19456,t=2,p=1$bG9ja3N0ZXBsb2Nrc3RlcA$\
     0000000000000000000000000000000000000000000"
}

/// Characters of a password, at least.
pub const PASSWORD_CHARS_MIN: usize = 10;
/// Characters of a password, at most.
pub const PASSWORD_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_another_is_not() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(is_password("correct horse", &hash));
        assert!(!is_password("correct house", &hash));
        assert!(!is_password("", hash_of_nobody()));
        assert!(PasswordHash::new(hash_of_nobody()).is_ok(), "else nobody is known by the time");
    }

    #[test]
    fn an_admin_may_what_an_operator_may() {
        assert!(Role::Admin > Role::Operator && Role::Operator > Role::Viewer);
        assert_eq!("operator".parse(), Ok(Role::Operator));
        assert!("root".parse::<Role>().is_err());
    }
}
