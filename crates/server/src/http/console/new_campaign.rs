//! `/campaigns/new`: a release, groups, waves.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;

use super::shown::{self, counted};
use super::{Frame, Looking, Moving, Trouble, frame, page, refused, see_other};
use crate::field::Foreseen;
use crate::http::campaigns::{Given, begin};
use crate::http::groups::labels;
use crate::http::problem::Problem;
use crate::server::Server;
use crate::store::releases::Release;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/campaigns/new", get(show).post(make)).route("/console/count", get(count))
}

/// The fields as they were filled in.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Fields {
    name: String,
    release: String,
    labels: String,
    canary: String,
    waves: String,
    soak_min: String,
    patience_min: String,
    failures_max: String,
    /// As a browser's field has it, which knows no zone: in UTC without the script, in the zone of
    /// whoever looks with it.
    not_before: String,
    /// The same moment with its zone, from the script; empty without it.
    not_before_at: String,
    /// `yes`, or nothing.
    despite_findings: String,
}

impl Default for Fields {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            name: text(""),
            release: text(""),
            labels: text(""),
            canary: text(""),
            waves: text("10,90"),
            soak_min: text("60"),
            patience_min: text(""),
            failures_max: text("0"),
            not_before: text(""),
            not_before_at: text(""),
            despite_findings: text(""),
        }
    }
}

#[derive(Template)]
#[template(path = "new_campaign.html")]
struct NewCampaignPage<'a> {
    frame: Frame,
    releases: Vec<Release>,
    fields: &'a Fields,
    count: String,
    found: Option<Found>,
    problem: Option<&'a Problem>,
}

/// What is foreseen of what is chosen now.
struct Found {
    version: String,
    foreseen: Arc<Foreseen>,
}

impl Found {
    /// `None`: there is no release, or the labels cannot be read.
    async fn of(
        server: &Server,
        fields: &Fields,
        releases: &[Release],
    ) -> Result<Option<Self>, Trouble> {
        // A browser has the first one chosen where nobody chose.
        let chosen = releases.iter().find(|it| it.id == fields.release).or(releases.first());
        let (Some(release), Ok(labels)) = (chosen, labels(&fields.labels)) else {
            return Ok(None);
        };
        let foreseen = server.foresight.of(&server.store, release, &labels).await?;
        Ok(Some(Self { version: release.version.clone(), foreseen }))
    }
}

impl NewCampaignPage<'_> {
    /// Whether a person must say that it is meant although some groups would refuse it.
    fn needs_word(&self) -> bool {
        let was_refused = self.problem.is_some_and(|it| it.code == "would-be-refused");
        was_refused || self.found.as_ref().is_some_and(|it| it.foreseen.stops())
    }
}

async fn show(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Query(fields): Query<Fields>,
) -> Result<Response, Trouble> {
    page(&form(&server, frame(&caller, "campaigns", ""), &fields, None).await?)
}

async fn form<'a>(
    server: &Server,
    frame: Frame,
    fields: &'a Fields,
    problem: Option<&'a Problem>,
) -> Result<NewCampaignPage<'a>, Trouble> {
    let releases = server.store.releases().await?;
    let releases: Vec<_> = releases.into_iter().filter(|it| it.withdrawn_at.is_none()).collect();
    let count = chosen(server, &fields.labels).await?;
    let found = Found::of(server, fields, &releases).await?;
    Ok(NewCampaignPage { frame, releases, fields, count, found, problem })
}

async fn make(
    State(server): State<Arc<Server>>,
    Moving(caller): Moving,
    Form(fields): Form<Fields>,
) -> Result<Response, Trouble> {
    let made = match given(&fields) {
        Ok(given) => begin(&server, &given, &caller.name).await,
        Err(problem) => Err(problem),
    };
    match made {
        Ok(id) => Ok(see_other(&format!("/campaigns/{id}"))),
        Err(problem) => {
            let frame = frame(&caller, "campaigns", "");
            refused(&problem, &form(&server, frame, &fields, Some(&problem)).await?)
        }
    }
}

fn given(fields: &Fields) -> Result<Given, Problem> {
    let failures_max = number("failures", &fields.failures_max)?;
    let not_before = match (fields.not_before.as_str(), fields.not_before_at.as_str()) {
        ("", _) => None,
        (text, "") => Some(moment(text)?),
        (_, text) => Some(zoned(text)?),
    };
    Ok(Given {
        name: fields.name.clone(),
        release: fields.release.clone(),
        labels: fields.labels.clone(),
        groups: Vec::new(),
        canary: fields.canary.clone(),
        waves: fields.waves.clone(),
        soak_s: number("soak", &fields.soak_min)?.saturating_mul(60),
        patience_s: number("patience", &fields.patience_min)?.saturating_mul(60),
        failures_max,
        not_before,
        despite_findings: !fields.despite_findings.is_empty(),
    })
}

/// A field of digits; empty: 0.
fn number(field: &str, text: &str) -> Result<u32, Problem> {
    match text.trim() {
        "" => Ok(0),
        digits => digits.parse().map_err(|_| {
            let found = crate::fleet::excerpt(digits);
            Problem::bad_request(
                format_args!("{field} is `{found}`, expected a number"),
                "0 or more, without a unit",
            )
        }),
    }
}

fn moment(text: &str) -> Result<Timestamp, Problem> {
    let read = text.parse::<DateTime>().and_then(|at| TimeZone::UTC.to_timestamp(at));
    read.map_err(|error| Problem::bad_request(error, "such as `2026-05-01T22:00`"))
}

fn zoned(text: &str) -> Result<Timestamp, Problem> {
    text.parse().map_err(|error| Problem::bad_request(error, "such as `2026-05-01T22:00:00Z`"))
}

#[derive(Debug, Deserialize)]
struct Chosen {
    #[serde(default)]
    labels: String,
}

/// `GET /console/count?labels=…`: how many groups that chooses, in words.
async fn count(
    State(server): State<Arc<Server>>,
    _: Looking,
    Query(Chosen { labels }): Query<Chosen>,
) -> Result<String, Trouble> {
    chosen(&server, &labels).await
}

async fn chosen(server: &Server, text: &str) -> Result<String, Trouble> {
    let labels = match labels(text) {
        Ok(labels) => labels,
        Err(problem) => return Ok(problem.message),
    };
    let is_all = labels.iter().next().is_none();
    let count = server.store.count_groups(&labels).await?;
    Ok(match is_all {
        true => format!("all groups: {count}"),
        false => counted(count, "group"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_the_form_is_in_utc() {
        assert_eq!(moment("2026-05-01T22:00").unwrap().to_string(), "2026-05-01T22:00:00Z");
        assert!(moment("tomorrow").is_err());
    }

    #[test]
    fn the_script_says_the_moment_with_its_zone_and_an_empty_field_is_none_at_all() {
        let not_before = |local: &str, zoned: &str| {
            let (not_before, not_before_at) = (local.to_owned(), zoned.to_owned());
            let moment = given(&Fields { not_before, not_before_at, ..Fields::default() });
            moment.unwrap().not_before.map(|it| it.to_string())
        };
        let at = Some("2026-05-01T20:00:00Z".to_owned());
        assert_eq!(not_before("2026-05-01T22:00", "2026-05-01T20:00:00.000Z"), at);
        assert_eq!(not_before("2026-05-01T20:00", ""), at);
        assert_eq!(not_before("", "2026-05-01T20:00:00.000Z"), None);
    }

    #[test]
    fn an_empty_number_is_none_and_a_word_is_refused() {
        assert_eq!(number("soak", "").unwrap(), 0);
        let problem = number("soak", "an hour").unwrap_err();
        assert_eq!(problem.message, "soak is `an hour`, expected a number");
    }
}
