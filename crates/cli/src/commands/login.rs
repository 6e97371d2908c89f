//! `lockstep login` and `lockstep logout`.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::CommandError;
use crate::files;
use crate::fleet::{Authority, Known, KnownServers, Server};
use crate::ui::{Ui, tame};

/// Sign in to a fleet's server, so that other commands need only its name
///
/// The password is asked for, and only a token is kept: in servers.json in the folder lockstep of
/// your settings, which nobody else can read. It lasts for a month.
///
/// The first admin of a new server, with the link that its first start has printed:
///   lockstep login http://fleet.local:8080 --name ada --setup 'http://fleet.local:8080/setup?word=…'
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct LoginArgs {
    /// The server, such as https://fleet.local:8443
    #[arg(value_name = "URL")]
    url: String,

    /// Your name there [default: it is asked for]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// A file with your password [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Make the first admin: the word of the setup link, or the link
    #[arg(long, value_name = "WORD|LINK")]
    setup: Option<String>,

    /// Keep this token, and ask for no password; others on this machine can see it, so it is
    /// better in a file: --token-file
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["name", "password_file", "setup"])]
    token: Option<String>,

    /// The same, in a file
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["name", "password_file", "setup", "token"])]
    token_file: Option<PathBuf>,

    /// The certificate of the server's own authority, in PEM form: tls/ca.pem in the server's
    /// folder. It is kept, and no other is believed
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_CA")]
    ca: Option<PathBuf>,

    /// The same, fetched from the server: the fingerprint that the server has printed
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "ca")]
    ca_sha256: Option<String>,
}

/// Sign out of a fleet's server, and forget it
///
/// The token that was kept is good no more. If the server does not answer it is forgotten here all
/// the same, and stays good until it expires, or until an admin takes it back with `lockstep token
/// revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The server [default: the only one that is known]
    #[arg(value_name = "URL")]
    url: Option<String>,
}

/// `GET /api/me`.
#[derive(Debug, Deserialize)]
struct Me {
    name: String,
    role: String,
}

pub(super) fn login(ui: &Ui, args: &LoginArgs) -> Result<(), CommandError> {
    let authority = match (&args.ca, &args.ca_sha256) {
        (Some(path), _) => Authority::read(path)?,
        (None, Some(fingerprint)) => {
            let url = Server::new(&args.url, None, Authority::System)?.url().to_owned();
            Authority::fetch(&url, fingerprint)?
        }
        (None, None) => Authority::System,
    };
    let stranger = Server::new(&args.url, None, authority.clone())?;
    let given = match &args.token_file {
        Some(path) => Some(files::read_password(path)?),
        None => args.token.clone(),
    };
    let (person, token) = match given {
        Some(token) => (None, token),
        None => sign_in(args, &stranger).map(|(name, token)| (Some(name), token))?,
    };
    let server = Server::new(&args.url, Some(token.clone()), authority.clone())?;
    let Me { name, role } = server.get("/api/me")?;
    // The server knows the token by a name of its own.
    let name = person.unwrap_or(name);
    let mut known = KnownServers::read()?;
    let url = server.url().to_owned();
    let ca = authority.pem().to_owned();
    known.add(Known { url: url.clone(), token, ca, name: name.clone(), role: role.clone() });
    let path = known.write()?.display().to_string();
    ui.line(format_args!("Signed in to {url} as {}, {}", tame(&name), tame(&role)))?;
    ui.note(format_args!("Its token is kept in {path}"));
    ui.json(&json!({ "server": url, "name": name, "role": role, "file": path }))
}

/// The name of whoever has this name and this password, and a token.
fn sign_in(args: &LoginArgs, server: &Server) -> Result<(String, String), CommandError> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => ask_name(server.url())?,
    };
    let password = match (&args.password_file, &args.setup) {
        (Some(path), _) => files::read_password(path)?,
        (None, None) => ask(&format!("Password of {name}: "))?,
        (None, Some(_)) => super::person::new_password(&name)?,
    };
    if let Some(setup) = &args.setup {
        let word = word_of(setup);
        let body = json!({ "word": word, "name": name, "password": password });
        server.post::<Value>("/api/setup", &body)?;
    }
    #[derive(Deserialize)]
    struct Welcome {
        token: String,
    }
    let token_name = format!("login of {name}");
    let body = json!({ "name": name, "password": password, "token_name": token_name });
    match server.post::<Welcome>("/api/login", &body) {
        Ok(welcome) => Ok((name, welcome.token)),
        Err(error) if error.code() == Some("unauthorized") => Err(CommandError::failed(format!(
            "Server `{}` refuses: name or password is wrong",
            server.url()
        ))
        .hinted("An admin of the server can make you anew: lockstep person add")),
        Err(error) => Err(error.into()),
    }
}

/// The word, or the one in the link.
fn word_of(setup: &str) -> &str {
    setup.rsplit_once("word=").map_or(setup, |(_, word)| word).trim()
}

fn ask_name(url: &str) -> Result<String, CommandError> {
    use std::io::{BufRead as _, IsTerminal as _, Write as _};

    let no_terminal = || {
        CommandError::usage("Whose sign-in it is was not said, and there is no terminal to ask on")
            .hinted("Give it with --name NAME.")
    };
    if !std::io::stdin().is_terminal() {
        return Err(no_terminal());
    }
    anstream::eprint!("Your name at {url}: ");
    std::io::stderr().flush()?;
    let mut name = String::new();
    std::io::stdin().lock().read_line(&mut name)?;
    Ok(name.trim().to_owned())
}

/// Asks for a password on the terminal.
pub(super) fn ask(prompt: &str) -> Result<String, CommandError> {
    rpassword::prompt_password(prompt).map_err(|error| {
        CommandError::failed("Cannot ask for the password")
            .because(&error)
            .hinted("Give it in a file: --password-file FILE")
    })
}

pub(super) fn logout(ui: &Ui, args: &LogoutArgs) -> Result<(), CommandError> {
    let mut known = KnownServers::read()?;
    let url = match &args.url {
        Some(url) => Server::new(url, None, Authority::System)?.url().to_owned(),
        None => known.only()?.url.clone(),
    };
    let Some(forgotten) = known.remove(&url) else {
        return Err(CommandError::failed(format!("Server `{url}` is not known"))
            .hinted("Nothing is kept of it: there is nothing to forget."));
    };
    known.write()?;
    let has_ended = has_ended(ui, &forgotten.server()?);
    ui.line(match has_ended {
        true => format!("Signed out of {url}"),
        false => format!("Forgot {url}"),
    })?;
    ui.json(&json!({ "forgot": url, "ended": has_ended }))
}

/// Whether the server lets the token in no more. That it is forgotten here does not wait for that.
fn has_ended(ui: &Ui, server: &Server) -> bool {
    match server.log_out() {
        Ok(()) => true,
        // It had ended before.
        Err(error) if error.code() == Some("unauthorized") => true,
        Err(error) => {
            ui.note(format_args!(
                "The token stays good there until it expires, or an admin takes it back: {error}"
            ));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_link_is_as_good_as_its_word() {
        assert_eq!(word_of("abc"), "abc");
        assert_eq!(word_of("http://fleet.local/setup?word=abc\n"), "abc");
    }
}
