//! What is ordered by another way than HTTP, done by the functions of the HTTP API; what is refused
//! is one text for people.

use super::campaigns::{self, Given};
use super::groups;
use super::problem::Problem;
use crate::server::Server;

/// Makes a campaign that brings one group to a release.
pub(crate) async fn install(
    server: &Server,
    group: &str,
    release: &str,
    who: &str,
) -> Result<(), String> {
    let (release, groups) = (release.to_owned(), vec![group.to_owned()]);
    let given = Given { release, groups, ..Given::default() };
    campaigns::begin(server, &given, who).await.map(drop).map_err(text)
}

/// Orders something of a group's lead: `abort` or `revert`.
pub(crate) async fn order(
    server: &Server,
    group: &str,
    what: &str,
    who: &str,
) -> Result<(), String> {
    groups::order(server, group, what, who).await.map(drop).map_err(text)
}

fn text(Problem { message, hint, .. }: Problem) -> String {
    format!("{message}; {hint}")
}
