//! `lockstep audit`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::group::moment;
use crate::error::CommandError;
use crate::fleet::{Server, ServerArgs, encoded};
use crate::ui::{Ui, table, tame};

/// See who did what at a fleet's server, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    /// What was done about this alone: the identity of a group, a campaign, a release
    #[arg(long, value_name = "IDENTITY")]
    about: Option<String>,

    /// So many entries, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,

    /// Print all of them as CSV (RFC 4180)
    #[arg(long, conflicts_with = "limit")]
    csv: bool,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Audit {
    audit: Vec<Entry>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Entry {
    id: String,
    at: String,
    who: String,
    did: String,
    about: String,
    detail: String,
}

pub(super) fn audit(ui: &Ui, args: &AuditArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    let limit = if args.csv { ENTRIES_MAX } else { args.limit };
    let entries = read(&server, args.about.as_deref(), limit)?;
    if args.csv {
        return ui.raw(csv(&entries).as_bytes());
    }
    if entries.is_empty() {
        ui.line("Nothing was done")?;
    } else {
        let head = ["WHEN", "WHO", "DID", "ABOUT", "DETAIL"].map(String::from).to_vec();
        let row = |it: &Entry| {
            [moment(&it.at), &it.who, &it.did, &it.about, &it.detail].map(tame).to_vec()
        };
        let rows: Vec<_> = [head].into_iter().chain(entries.iter().map(row)).collect();
        ui.line(table(&rows))?;
    }
    ui.json(&json!({ "audit": entries }))
}

/// Page by page, until there are so many, or no more.
fn read(server: &Server, about: Option<&str>, limit: usize) -> Result<Vec<Entry>, CommandError> {
    let (mut all, mut seen): (Vec<Entry>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
    while all.len() < limit {
        let mut path = "/api/audit?".to_owned();
        if let Some(about) = about {
            path += &format!("about={}&", encoded(about));
        }
        if let Some(last) = all.last() {
            path += &format!("before={}", encoded(&last.id));
        }
        let Audit { audit } = server.get(&path)?;
        let before = all.len();
        // What a page repeats does not count: so this comes to an end whatever the server says.
        all.extend(audit.into_iter().filter(|entry| seen.insert(entry.id.clone())));
        if all.len() == before {
            break;
        }
    }
    all.truncate(limit);
    Ok(all)
}

fn csv(entries: &[Entry]) -> String {
    let mut text = String::from("at,who,did,about,detail\r\n");
    for Entry { at, who, did, about, detail, .. } in entries {
        let fields = [at, who, did, about, detail].map(|field| quoted(field));
        text += &(fields.join(",") + "\r\n");
    }
    text
}

/// In quotes where it must be; and what a spreadsheet would take for a formula is made text.
fn quoted(field: &str) -> String {
    let field = match field.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{field}"),
        false => field.to_owned(),
    };
    match field.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    }
}

/// Entries that are read at all.
const ENTRIES_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_one_field_and_no_formula() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "'=1+1");
    }
}
