//! `lockstep person …`: who may sign in to a fleet's server.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::login::ask;
use crate::error::CommandError;
use crate::files;
use crate::fleet::{ServerArgs, encoded};
use crate::ui::{Ui, table, tame};

/// See who may sign in to a fleet's server, and let people in and out
#[derive(Debug, Subcommand)]
pub(crate) enum PersonCommand {
    List(ListArgs),
    Add(AddArgs),
    Remove(RemoveArgs),
}

/// List the people of a server
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Let somebody in
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The name to sign in with
    #[arg(value_name = "NAME")]
    name: String,

    /// What it may do: look, move groups, let others in
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"])]
    role: String,

    /// A file with the password, of 10 characters at least [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Let somebody out: sessions end, and tokens are to be taken back with `lockstep token revoke`
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Name or identity
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct People {
    people: Vec<Person>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Person {
    id: String,
    name: String,
    role: String,
    made_at: String,
}

pub(super) fn person(ui: &Ui, command: &PersonCommand) -> Result<(), CommandError> {
    match command {
        PersonCommand::List(args) => list(ui, args),
        PersonCommand::Add(args) => add(ui, args),
        PersonCommand::Remove(args) => remove(ui, args),
    }
}

fn list(ui: &Ui, args: &ListArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    if ui.is_json() {
        return ui.json(&server.get::<Value>("/api/people")?);
    }
    let People { people } = server.get("/api/people")?;
    let head = ["NAME", "ROLE", "SINCE", "IDENTITY"].map(String::from).to_vec();
    let row = |it: &Person| {
        [&it.name, &it.role, super::group::moment(&it.made_at), &it.id].map(tame).to_vec()
    };
    let rows: Vec<_> = [head].into_iter().chain(people.iter().map(row)).collect();
    ui.line(table(&rows))
}

fn add(ui: &Ui, args: &AddArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    let AddArgs { name, role, .. } = args;
    let password = match &args.password_file {
        Some(path) => files::read_password(path)?,
        None => new_password(name)?,
    };
    let body = json!({ "name": name, "role": role, "password": password });
    let added: Value = server.post("/api/people", &body)?;
    ui.line(format_args!("{name} may sign in at {}, as {role}", server.url()))?;
    ui.json(&added)
}

fn remove(ui: &Ui, args: &RemoveArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    let People { people } = server.get("/api/people")?;
    let name = &args.name;
    let found = people.iter().find(|it| it.name == *name || it.id == *name);
    let found = found.ok_or_else(|| {
        CommandError::failed(format!("Nobody is called `{name}` at {}", server.url()))
            .hinted("See who there is: lockstep person list")
    })?;
    let removed: Value = server.delete(&format!("/api/people/{}", encoded(&found.id)))?;
    ui.line(format_args!("{} may not sign in any more", tame(&found.name)))?;
    ui.json(&removed)
}

/// A new password, asked for twice.
pub(super) fn new_password(name: &str) -> Result<String, CommandError> {
    let first = ask(&format!("New password for {name}: "))?;
    match ask("The same again: ")? == first {
        true => Ok(first),
        false => Err(CommandError::failed("The two passwords are not the same")
            .hinted("Give the command again.")),
    }
}
