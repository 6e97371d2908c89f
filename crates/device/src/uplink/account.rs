//! Where the server is, and who this lead is to it. Durable in one entry of the record, together
//! with the last order that was begun: an order is carried out once at most, whatever happens to
//! the power in the middle of it.
//!
//! Layout, little endian: state u8 (1 a token that was not used, 2 a credential), port u16, then
//! five texts, each with its length u8: host, secret, group, order, and the mark of the token that
//! let the lead in.

use alloc::string::{String, ToString};
use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::record::Kind;
use lockstep_proto::wire::{Reader, TooShort, Writer};

use super::ServerAtStart;
use crate::node::{Node, read_entry};
use crate::setup::Application;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Who this lead is to a server. Secrets are in no log: not even `Debug` shows them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) place: Place,
    pub(crate) pass: Pass,
    /// The last order that was begun.
    pub(crate) order: String,
    /// By which a token is known that let the lead in, or is to.
    pub(crate) mark: String,
}

/// What lets the lead in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It was given this, and has not come in yet.
    Token(String),
    /// It is in.
    Credential { group: String, secret: String },
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The account that counts from this boot on; `None`: the device has no server.
pub(super) fn at_start<A: Application, F: NorFlash>(
    node: &mut Node<A>,
    flash: &mut F,
    given: Option<&ServerAtStart>,
) -> Option<Account> {
    node.lead.as_ref()?;
    let known = Account::read(node, flash);
    let Some(given) = given else { return known };
    let account = match (known, &given.token) {
        // A token that was used once is given again at each start, by whoever wrote the command.
        (Some(known), Some(token))
            if known.place == given.place && known.mark == mark_of(token) =>
        {
            known
        }
        (Some(known), None) if known.place == given.place => known,
        // A server can move; who this lead is to it stays.
        (Some(known), None) => Account { place: given.place.clone(), ..known },
        (_, Some(token)) => Account {
            place: given.place.clone(),
            pass: Pass::Token(token.clone()),
            order: String::new(),
            mark: mark_of(token),
        },
        (None, None) => return None,
    };
    account.write(node, flash).then_some(account)
}

impl Account {
    /// What the record says.
    pub(crate) fn read<A: Application, F: NorFlash>(node: &Node<A>, flash: &mut F) -> Option<Self> {
        let bytes = read_entry::<F, ENTRY_BYTES_MAX>(node.agent(), flash, ENTRY_SERVER)?;
        Self::decode(&bytes)
    }

    /// Makes it durable. `false` if the flash failed, or a text is too long.
    pub(crate) fn write<A: Application, F: NorFlash>(
        &self,
        node: &mut Node<A>,
        flash: &mut F,
    ) -> bool {
        let mut buffer = [0; ENTRY_BYTES_MAX];
        let Some(len) = self.encode(&mut buffer) else { return false };
        node.write_entry(ENTRY_SERVER, buffer.get(..len).unwrap_or_default(), flash)
    }

    fn encode(&self, buffer: &mut [u8]) -> Option<usize> {
        let (state, secret, group) = match &self.pass {
            Pass::Token(token) => (TOKEN, token.as_str(), ""),
            Pass::Credential { group, secret } => (CREDENTIAL, secret.as_str(), group.as_str()),
        };
        let mut writer = Writer::new(buffer);
        writer.u8(state).ok()?;
        writer.u16(self.place.port).ok()?;
        for text in
            [self.place.host.as_str(), secret, group, self.order.as_str(), self.mark.as_str()]
        {
            writer.u8(u8::try_from(text.len()).ok()?).ok()?;
            writer.put(text.as_bytes()).ok()?;
        }
        Some(writer.len_bytes())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let state = reader.u8().ok()?;
        let port = reader.u16().ok()?;
        let mut text = || -> Option<String> {
            let len = reader.u8().ok()?;
            let bytes: Result<&[u8], TooShort> = reader.take(len.into());
            Some(core::str::from_utf8(bytes.ok()?).ok()?.to_string())
        };
        let (host, secret, group) = (text()?, text()?, text()?);
        let (order, mark) = (text()?, text()?);
        let pass = match state {
            TOKEN => Pass::Token(secret),
            CREDENTIAL => Pass::Credential { group, secret },
            _ => return None,
        };
        Some(Self { place: Place { host, port }, pass, order, mark })
    }
}

/// What is kept of a token: enough to know it again, and too little to use it.
fn mark_of(token: &str) -> String {
    use sha2::Digest as _;

    let digest = sha2::Sha256::digest(token.as_bytes());
    digest.iter().take(8).map(|byte| alloc::format!("{byte:02x}")).collect()
}

const TOKEN: u8 = 1;
const CREDENTIAL: u8 = 2;
/// Of five texts of 255 bytes.
const ENTRY_BYTES_MAX: usize = 3 + 5 * 256;
/// The entry's kind in the record.
const ENTRY_SERVER: Kind = Kind::SERVER;

#[cfg(test)]
mod tests {
    use super::*;

    fn account(pass: Pass) -> Account {
        let place = Place { host: "fleet.local".into(), port: 8080 };
        Account { place, pass, order: "o1".into(), mark: mark_of("t") }
    }

    #[test]
    fn an_account_is_read_back_and_a_damaged_one_is_none() {
        let secret = Pass::Credential { group: "g".into(), secret: "s".repeat(64) };
        for pass in [Pass::Token("t".repeat(64)), secret] {
            let mut buffer = [0; ENTRY_BYTES_MAX];
            let account = account(pass);
            let len = account.encode(&mut buffer).unwrap();
            assert!(Account::decode(&buffer[..len]).as_ref() == Some(&account));
            for cut in 0..len {
                assert!(Account::decode(&buffer[..cut]).is_none(), "{cut}");
            }
            buffer[0] = 9;
            assert!(Account::decode(&buffer[..len]).is_none());
        }
        assert!(account(Pass::Token("t".repeat(256))).encode(&mut [0; 2000]).is_none());
    }

    #[test]
    fn a_secret_is_in_no_log() {
        let text = std::format!("{:?}", account(Pass::Token("hush".into())));
        assert!(text.contains("fleet.local") && !text.contains("hush"));
    }
}
