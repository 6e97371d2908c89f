//! `lockstep token …`: what lets programs in to a fleet's server.

use std::time::Duration;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::group::moment;
use crate::error::CommandError;
use crate::fleet::{ServerArgs, encoded};
use crate::ui::{Ui, table, tame};

/// See and make what lets programs in to a fleet's server, and take it back
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make a token, and print it: it is shown only this once
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// What to call it, such as the program that is to use it
    #[arg(value_name = "NAME")]
    name: String,

    /// What it may do: look, move groups, let others in
    #[arg(long, value_name = "ROLE", default_value = "operator",
        value_parser = ["viewer", "operator", "admin"])]
    role: String,

    /// How long it is good, such as 30d or 12h [default: until it is taken back]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,

    #[command(flatten)]
    server: ServerArgs,
}

/// List all tokens, not what they are
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Take a token back: whoever has it is not let in from then on
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Identity, or a name that no other token has
    #[arg(value_name = "TOKEN")]
    which: String,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    id: String,
    name: String,
    role: String,
    made_by: String,
    expires_at: Option<String>,
    used_at: Option<String>,
}

pub(super) fn token(ui: &Ui, command: &TokenCommand) -> Result<(), CommandError> {
    match command {
        TokenCommand::Create(args) => create(ui, args),
        TokenCommand::List(args) => list(ui, args),
        TokenCommand::Revoke(args) => revoke(ui, args),
    }
}

fn create(ui: &Ui, args: &CreateArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    let seconds = args.expires_in.map(|it| u32::try_from(it.as_secs()).unwrap_or(u32::MAX));
    let body = json!({ "name": args.name, "role": args.role, "expires_in_s": seconds });
    let made: Value = server.post("/api/tokens", &body)?;
    let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
    ui.line(text("token"))?;
    let until = match text("expires_at") {
        "" => "until it is taken back".to_owned(),
        at => format!("until {}", moment(at)),
    };
    ui.note(format_args!("Good {until}, as {}. It is not shown again.", args.role));
    ui.json(&made)
}

fn list(ui: &Ui, args: &ListArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    if ui.is_json() {
        return ui.json(&server.get::<Value>("/api/tokens")?);
    }
    let Tokens { tokens } = server.get("/api/tokens")?;
    if tokens.is_empty() {
        return ui.line("There is no token");
    }
    let head = ["NAME", "ROLE", "MADE BY", "USED", "EXPIRES", "IDENTITY"].map(String::from);
    let row = |it: &Token| {
        let used = it.used_at.as_deref().map_or("never", moment);
        let expires = it.expires_at.as_deref().map_or("never", moment);
        [&it.name, &it.role, &it.made_by, used, expires, &it.id].map(tame).to_vec()
    };
    let rows: Vec<_> = [head.to_vec()].into_iter().chain(tokens.iter().map(row)).collect();
    ui.line(table(&rows))
}

fn revoke(ui: &Ui, args: &RevokeArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    let Tokens { tokens } = server.get("/api/tokens")?;
    let wanted = &args.which;
    let of_name: Vec<_> =
        tokens.iter().filter(|it| it.id == *wanted || it.name == *wanted).collect();
    let hint = "See which there are: lockstep token list";
    let found = match of_name.as_slice() {
        [one] => one,
        [] => {
            return Err(CommandError::failed(format!("There is no token `{wanted}`")).hinted(hint));
        }
        many => {
            let found = many.len();
            return Err(CommandError::failed(format!("{found} tokens are called `{wanted}`"))
                .hinted("Name one by its identity, as `lockstep token list` shows it."));
        }
    };
    let revoked: Value = server.delete(&format!("/api/tokens/{}", encoded(&found.id)))?;
    ui.line(format_args!("Took {} back", tame(&found.name)))?;
    ui.json(&revoked)
}
