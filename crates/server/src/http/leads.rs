//! What leads ask for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use lockstep_proto::id::{DeviceId, Sha256};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Lead, refuse_guesser};
use super::bytes::{self, Part};
use super::contract::{Address, Digest, Identity};
use super::given;
use super::problem::Problem;
use crate::lead::report::{CheckIn, Line, Report};
use crate::lead::roster::{Answer, AnswerJson as DesiredAnswer, Seat};
use crate::manifests::places;
use crate::metrics;
use crate::patches::composed::Composed;
use crate::patches::maker::with_bytes;
use crate::server::{Change, Server};
use crate::store::checkins::{Arrival, LINES_MAX};
use crate::store::groups::Enrolled;

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(enroll))
        .routes(routes!(check_in))
        .routes(routes!(desired))
        .routes(routes!(bundle))
}

/// A lead that comes with a token.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = LeadEnrolment)]
struct Enrolment {
    token: String,
    #[schema(value_type = Address)]
    id: String,
}

/// A lead that is let in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LeadWelcome)]
struct Welcome {
    #[schema(value_type = Identity)]
    group: String,
    /// It is told only now.
    #[schema(value_type = Digest)]
    credential: String,
}

/// Let a lead in
///
/// A token is for one group and is good once. The answer may be lost on its way: the same board
/// may come again with the same token, and gets a new credential, until it has used one.
#[utoipa::path(post, path = "/api/lead/enroll", tag = "leads", operation_id = "enrollLead",
    request_body = Enrolment,
    responses(
        (status = 200, description = "Let in.", body = Welcome),
        (status = 403, description = "`bad-token`: not known, or expired. `used-token`: another \
            board has used it, or this one is in already."),
        (status = 429, description = "`too-many-attempts`: wrong too often."),
    ))]
async fn enroll(
    State(server): State<Arc<Server>>,
    ConnectInfo(from): ConnectInfo<std::net::SocketAddr>,
    given::FromLead(body): given::FromLead,
) -> Result<Json<Welcome>, Problem> {
    refuse_guesser(&server, from.ip())?;
    let enrolment: Enrolment = given::json(&body)
        .map_err(|why| Problem::bad_request(why, "send the token, and the lead's address"))?;
    let lead = lead_of(&enrolment.id)?;
    let enrolled = server.store.enrol(&enrolment.token, &lead, Timestamp::now()).await?;
    let problem = |code, message, hint| Problem::new(StatusCode::FORBIDDEN, code, message, hint);
    match enrolled {
        Enrolled::Welcome { group, credential } => {
            server.attempts.right(from.ip());
            server.roster.forget_group(&group);
            server.changed(Change::Group(group.clone()));
            Ok(Json(Welcome { group, credential }))
        }
        Enrolled::Unknown => {
            server.attempts.wrong(from.ip(), Instant::now());
            let message = "enrolment token is not known, or has expired";
            Err(problem("bad-token", message, "make another one in the console, under Groups"))
        }
        Enrolled::Used => {
            let message = "enrolment token was used before";
            Err(problem("used-token", message, "each is for one lead: make another one"))
        }
    }
}

/// A lead's address, in one spelling.
fn lead_of(text: &str) -> Result<String, Problem> {
    let id = text.parse::<DeviceId>();
    let id = id.map_err(|error| Problem::bad_request(error, "send the lead's address as `id`"))?;
    Ok(id.to_string())
}

/// How a group is
///
/// Answered when it is durable, with what the group should run. The documents are the answers of
/// the device's own API, as it would give them now; fields that are not named here are kept.
#[utoipa::path(post, path = "/api/lead/check-in", tag = "leads", operation_id = "checkIn",
    security(("credential" = [])), request_body = CheckIn,
    responses(
        (status = 200, description = "What the group should run.", body = DesiredAnswer,
            headers(("ETag" = String, description = "Changes with the answer."))),
        (status = 403, description = "`other-lead`: the credential was given to another board."),
    ))]
async fn check_in(
    State(server): State<Arc<Server>>,
    Lead(seat): Lead,
    given::FromLead(body): given::FromLead,
) -> Result<Response, Problem> {
    let start = Instant::now();
    let answer = take_check_in(&server, &seat, &body).await;
    let came_to = if answer.is_ok() { metrics::CheckIn::Taken } else { metrics::CheckIn::Refused };
    let took_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    server.metrics.check_in(came_to, took_us);
    answer
}

async fn take_check_in(server: &Server, seat: &Seat, body: &[u8]) -> Result<Response, Problem> {
    let check_in: CheckIn = given::json(body).map_err(|error| {
        Problem::bad_request(
            format_args!("check-in cannot be read: {error}"),
            "is the device's firmware newer than this server?",
        )
    })?;
    check_identity(seat, &check_in)?;
    let documents = documents_of(&check_in);
    let report = Report::of(&check_in.documents).map_err(|bad| {
        Problem::bad_request(
            format_args!("`documents.{}` cannot be read: {}", bad.document, bad.cause),
            "it is the answer of the device's own API",
        )
    })?;
    let gist = report.gist(&check_in.documents.rollout);
    let lines = check_in.lines.into_iter().take(LINES_MAX).map(tame).collect();
    let arrival = Arrival {
        group: seat.group.clone(),
        at: Timestamp::now(),
        report,
        gist,
        documents,
        lines,
        offer: check_in.offer,
        orders: check_in.orders.into_iter().map(|it| (it.id, it.refused)).collect(),
    };
    let taken = server.writer.take(arrival).await?;
    if taken.is_news {
        server.changed(Change::Group(seat.group.clone()));
    }
    let mut desired = taken.desired;
    if let Some(campaign) = taken.campaign {
        server.changed(Change::Campaign(campaign.clone()));
        server.advance(&campaign, Timestamp::now()).await?;
        desired = server.store.desired(&seat.group).await?;
    }
    let answer = server.answer(&seat.group, &desired).await?;
    seat.tell(answer.clone());
    Ok(told(&answer))
}

/// A credential is one board's: whoever comes with it and is another has copied it.
fn check_identity(seat: &Seat, check_in: &CheckIn) -> Result<(), Problem> {
    let found = lead_of(&check_in.id)?;
    if found == seat.lead {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "other-lead",
        format_args!("credential was given to {}, and `{found}` has come with it", seat.lead),
        "a new lead board is enrolled with a token of its group: Replace the lead, in the console",
    ))
}

/// As they are kept.
fn documents_of(check_in: &CheckIn) -> String {
    let it = &check_in.documents;
    let (version, group, health) = (it.version.get(), it.group.get(), it.health.get());
    let rollout = it.rollout.get();
    format!(r#"{{"version":{version},"group":{group},"health":{health},"rollout":{rollout}}}"#)
}

fn tame(line: Line) -> Line {
    let level = match line.level.as_str() {
        "debug" | "info" | "notice" | "warning" | "error" => line.level,
        _ => "info".to_owned(),
    };
    let text = line.text.chars().filter(|c| !c.is_control()).take(LINE_CHARS_MAX).collect();
    Line { seq: line.seq, level, text }
}

/// What a group should run
///
/// At once if it is not what the lead knows, else when it changes, or when the lead has waited for
/// as long as it wanted to.
#[utoipa::path(get, path = "/api/lead/desired", tag = "leads", operation_id = "getDesired",
    security(("credential" = [])),
    params(
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of the answer before."),
        ("Prefer" = Option<String>, Header, example = "wait=0",
            description = "`wait=SECONDS`: hold the answer back until there is another one, at \
                most 60."),
    ),
    responses(
        (status = 200, description = "What the group should run.", body = DesiredAnswer,
            headers(("ETag" = String, description = "Changes with the answer."))),
        (status = 304, description = "Nothing else than before."),
    ))]
async fn desired(
    State(server): State<Arc<Server>>,
    Lead(seat): Lead,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.metrics.poll();
    let mut desired = seat.desired();
    if desired.borrow().is_none() {
        let now = server.store.desired(&seat.group).await?;
        seat.tell(server.answer(&seat.group, &now).await?);
    }
    let known = headers.get(header::IF_NONE_MATCH);
    let is_news = |answer: &Option<Arc<Answer>>| {
        answer.as_ref().is_some_and(|it| known.is_none_or(|known| *known != it.tag))
    };
    let wait = wait_of(&headers);
    if wait.is_zero() {
        // Most polls: no clock has to be set for them.
        let answer = desired.borrow();
        return Ok(answer.as_deref().filter(|_| is_news(&answer)).map_or_else(nothing_new, told));
    }
    match tokio::time::timeout(wait, desired.wait_for(is_news)).await {
        Ok(Ok(answer)) => Ok(answer.as_deref().map_or_else(nothing_new, told)),
        // Nothing new; or the lead has another credential by now, and learns that next time.
        Ok(Err(_)) | Err(_) => Ok(nothing_new()),
    }
}

fn nothing_new() -> Response {
    StatusCode::NOT_MODIFIED.into_response()
}

/// `Prefer: wait=SECONDS` (RFC 7240).
fn wait_of(headers: &HeaderMap) -> Duration {
    let prefer = headers.get("prefer").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = prefer.split(',').find_map(|it| it.trim().strip_prefix("wait=")?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0).min(WAIT_S_MAX))
}

fn told(answer: &Answer) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ETAG, answer.tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, answer.text.clone()).into_response()
}

/// Which offer a bundle is for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OfOffer {
    /// The offer, whose bundle has patches for what the group's devices run; without it, the bundle
    /// is as it was uploaded.
    #[serde(default)]
    offer: Option<String>,
}

/// A bundle for a lead
///
/// Whole, or one range of it; as the offer's `bundle` names it.
#[utoipa::path(get, path = "/api/lead/bundles/{sha256}", tag = "leads",
    operation_id = "downloadBundle", security(("credential" = [])),
    params(("sha256" = Digest, Path), OfOffer), responses(bytes::Bytes))]
async fn bundle(
    State(server): State<Arc<Server>>,
    Lead(seat): Lead,
    given::Path(sha256): given::Path<String>,
    given::Query(of): given::Query<OfOffer>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    server.metrics.bundle();
    let missing = || Problem::not_found("bundle", &sha256);
    let digest = Sha256::from_hex(&sha256).ok_or_else(missing)?;
    let release = server.store.release_of_bundle(&sha256).await?.ok_or_else(missing)?;
    let Some(offer) = of.offer else {
        let whole = Part { first: 0, size_bytes: release.bundle_bytes };
        return bytes::answer(&server.objects, digest, whole, &sha256, &headers).await;
    };
    let extras = server.store.offered_patches(&offer).await?;
    let extras = extras.ok_or_else(|| Problem::not_found("offer", &offer))?;
    let Some(extras) = with_bytes(&server, extras).await? else {
        // It is offered anew, with what there is then.
        server.store.forget_patches(&offer).await?;
        server.refresh(&seat.group).await?;
        return Err(bytes::away(digest));
    };
    let whole = Composed::new(release.bundle_bytes, &places(&release), &extras);
    let tag = format!("{sha256}-{offer}");
    bytes::answer_composed(&server.objects, digest, &whole, &tag, &headers).await
}

/// A lead waits at most so long for news, in seconds: shorter than what routers on the way forget
/// a silent connection after.
const WAIT_S_MAX: u64 = 60;
/// Characters of a line of a log that are kept.
const LINE_CHARS_MAX: usize = 400;
