//! Releases: in, listed, and out again, to leads as bundles and to old firmware as the original
//! plan has it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use jiff::Timestamp;
use lockstep_proto::id::Sha256;
use serde_json::Value;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use super::answers::{CheckedRelease, NewRelease, OneRelease, Releases, Withdrawn};
use super::auth::{Operator, Viewer};
use super::bytes::{self, Bytes, Part};
use super::contract::{Identity, Octets};
use super::given;
use super::problem::Problem;
use crate::field::Foreseen;
use crate::manifests::{Place, places};
use crate::publish::{self, PublishError};
use crate::server::{Change, Server};
use crate::store::groups::Filter;
use crate::store::releases::Release;

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(list, upload).layer(super::bundle_limit()))
        .routes(routes!(check).layer(super::bundle_limit()))
        .routes(routes!(show))
        .routes(routes!(bundle))
        .routes(routes!(withdraw))
        .routes(routes!(newest_manifest))
        .routes(routes!(firmware))
}

/// All releases
#[utoipa::path(get, path = "/api/releases", tag = "releases", operation_id = "listReleases",
    security(("token" = ["viewer"])),
    responses((status = 200, description = "All.", body = Releases)))]
async fn list(State(server): State<Arc<Server>>, _: Viewer) -> Result<Json<Releases>, Problem> {
    let releases = server.store.releases().await?.iter().map(Into::into).collect();
    Ok(Json(Releases { releases }))
}

/// One release
///
/// With its manifest.
#[utoipa::path(get, path = "/api/releases/{id}", tag = "releases", operation_id = "showRelease",
    security(("token" = ["viewer"])), params(("id" = Identity, Path)),
    responses((status = 200, description = "It.", body = OneRelease)))]
async fn show(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Path(id): given::Path<String>,
) -> Result<Json<OneRelease>, Problem> {
    let release = server.store.release(&id).await?;
    let release = release.ok_or_else(|| Problem::not_found("release", &id))?;
    let manifest: Value = serde_json::from_str(&release.manifest).unwrap_or_default();
    Ok(Json(OneRelease { release: (&release).into(), manifest }))
}

/// Upload a release
///
/// The body is a bundle, at most 64 MiB. The same bundle again is the same release.
#[utoipa::path(post, path = "/api/releases", tag = "releases", operation_id = "uploadRelease",
    security(("token" = ["operator"])),
    request_body(content = Octets, content_type = "application/x-tar",
        description = "A tar, as `lockstep release create` makes it."),
    responses(
        (status = 201, description = "Taken in.", body = NewRelease),
        (status = 400, description = "`bad-request`: the upload was cut off."),
        (status = 422, description = "`bad-bundle`: names everything that is wrong with it."),
        (status = 507, description = "`no-room`: it could not be written to the server's disk."),
    ))]
async fn upload(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    body: Body,
) -> Result<(StatusCode, Json<NewRelease>), Problem> {
    let id = take(&server, &caller.name, body).await?;
    let release = server.store.release(&id).await?;
    let release = release.ok_or_else(|| Problem::not_found("release", &id))?;
    let foreseen = Foreseen::of(&server.store, &release, &Filter::default()).await?.into();
    Ok((StatusCode::CREATED, Json(NewRelease { release: (&release).into(), foreseen })))
}

/// Check a release before it is published
///
/// The body is a bundle; it is looked at as an upload is, held against all groups that its release
/// is for, and not kept.
#[utoipa::path(post, path = "/api/releases/check", tag = "releases", operation_id = "checkRelease",
    security(("token" = ["operator"])),
    request_body(content = Octets, content_type = "application/x-tar",
        description = "A tar, as `lockstep release create` makes it."),
    responses(
        (status = 200, description = "What would go wrong.", body = CheckedRelease),
        (status = 400, description = "`bad-request`: the upload was cut off."),
        (status = 422, description = "`bad-bundle`: names everything that is wrong with it."),
    ))]
async fn check(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    body: Body,
) -> Result<Json<CheckedRelease>, Problem> {
    let looked = publish::look_at(&server.trust, &caller.name, body.into_data_stream()).await;
    let release = looked.map_err(refused)?;
    let foreseen = Foreseen::of(&server.store, &release, &Filter::default()).await?.into();
    let (system, version) = (release.system, release.version);
    Ok(Json(CheckedRelease { system, version, signatures: release.signatures, foreseen }))
}

/// Takes a bundle in; the release's identity.
pub(super) async fn take(server: &Server, who: &str, body: Body) -> Result<String, Problem> {
    let (store, objects, trust) = (&server.store, &server.objects, &server.trust);
    let pieces = body.into_data_stream();
    let taken = publish::publish(store, objects, trust, &server.folder, who, pieces).await;
    let id = taken.map_err(refused)?;
    server.changed(Change::Releases);
    Ok(id)
}

fn refused(error: PublishError) -> Problem {
    match error {
        PublishError::TooLarge => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            error,
            "make a bundle with `lockstep release create`",
        ),
        PublishError::Cut(ref why) => Problem::bad_request(
            format_args!("{error}: {why}"),
            "upload it again: nothing was kept",
        ),
        PublishError::Bad(problems) => {
            let texts: Vec<_> = problems.iter().map(|problem| problem.text.as_str()).collect();
            let hint = problems.iter().find_map(|problem| problem.hint);
            let hint = hint.unwrap_or("see what is wrong with it: `lockstep release verify FILE`");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-bundle", texts.join("; "), hint)
        }
        PublishError::Disk(cause) => {
            tracing::error!(%cause, "a bundle could not be written");
            Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "no-room",
                "the bundle could not be written to the server's disk",
                "is it full? Nothing was kept",
            )
        }
        PublishError::Object(error) => error.into(),
        PublishError::Store(error) => error.into(),
    }
}

/// Withdraw a release
///
/// It is offered no more; who has it keeps it.
#[utoipa::path(post, path = "/api/releases/{id}/withdraw", tag = "releases",
    operation_id = "withdrawRelease", security(("token" = ["operator"])),
    params(("id" = Identity, Path)),
    responses((status = 200, description = "It is offered no more.", body = Withdrawn)))]
async fn withdraw(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<Json<Withdrawn>, Problem> {
    withdraw_release(&server, &id, &caller.name).await?;
    Ok(Json(Withdrawn { withdrawn: id }))
}

/// Nobody is offered it any more.
pub(super) async fn withdraw_release(server: &Server, id: &str, who: &str) -> Result<(), Problem> {
    if !server.store.withdraw_release(id, who, Timestamp::now()).await? {
        return Err(Problem::not_found("release that is not withdrawn", id));
    }
    server.changed(Change::Releases);
    Ok(())
}

/// The bundle of a release
///
/// Whole, or one range of it.
#[utoipa::path(get, path = "/api/releases/{id}/bundle", tag = "releases",
    operation_id = "downloadRelease", security(("token" = ["viewer"])),
    params(("id" = Identity, Path)), responses(Bytes))]
async fn bundle(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Path(id): given::Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let missing = || Problem::not_found("release", &id);
    let release = server.store.release(&id).await?.ok_or_else(missing)?;
    let digest = Sha256::from_hex(&release.bundle_sha256).ok_or_else(missing)?;
    let whole = Part { first: 0, size_bytes: release.bundle_bytes };
    bytes::answer(&server.objects, digest, whole, &release.bundle_sha256, &headers).await
}

/// The manifest of the newest release
///
/// For firmware that looks for itself. The newest that was not withdrawn; `firmware_url` of each
/// device is an address of this server. Open to everybody: what stands in it is no secret.
#[utoipa::path(get, path = "/manifest", tag = "leads", operation_id = "getManifest",
    responses(
        (status = 200, description = "`manifest.json` of its bundle.", body = Object),
        (status = 404, description = "`not-found`: there is no release yet."),
    ))]
async fn newest_manifest(State(server): State<Arc<Server>>) -> Result<Response<Body>, Problem> {
    let releases = server.store.releases().await?;
    let newest = releases
        .iter()
        .filter(|release| release.withdrawn_at.is_none())
        .max_by_key(|release| (release.number, release.uploaded_at));
    let Some(newest) = newest else { return Err(Problem::not_found("release", "newest")) };
    let text = with_addresses(newest, &server.lead_url);
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ETAG, format!("\"{}\"", newest.bundle_sha256))
        .header(header::CACHE_CONTROL, "no-cache");
    Ok(response.body(Body::from(text)).expect("headers are plain"))
}

/// The manifest with addresses at which this server has the artifacts: in a bundle they are the
/// names of its own files.
fn with_addresses(release: &Release, lead_url: &str) -> String {
    let Ok(mut manifest) = serde_json::from_str::<Value>(&release.manifest) else {
        return release.manifest.clone();
    };
    let devices = manifest.get_mut("devices").and_then(Value::as_object_mut);
    for (role, entry) in devices.into_iter().flatten() {
        let version = entry.get("version").and_then(Value::as_str).unwrap_or(&release.version);
        let address = format!("{lead_url}/firmware/{role}/{version}");
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("firmware_url".into(), address.into());
        }
    }
    serde_json::to_string_pretty(&manifest).unwrap_or_default()
}

/// One role's image
///
/// For firmware that looks for itself. Whole, or one range of it. Open to everybody.
#[utoipa::path(get, path = "/firmware/{device}/{version}", tag = "leads",
    operation_id = "getFirmware",
    params(
        ("device" = String, Path, description = "Its role.", example = "receiver"),
        ("version" = String, Path, description = "Its version.", example = "1.0.0"),
    ),
    responses(Bytes))]
async fn firmware(
    State(server): State<Arc<Server>>,
    given::Path((role, version)): given::Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let artifact = artifact(&server, &role, &version).await?;
    artifact.answer(&server, &role, &headers).await
}

/// One role's firmware in a release.
pub(super) struct Artifact {
    /// The release.
    pub(super) release: Release,
    /// Where it is in the bundle.
    pub(super) place: Place,
    /// The chip that it is for; empty if that is not said.
    pub(super) chip: String,
    digest: Sha256,
}

impl Artifact {
    /// Its bytes, or what is asked for of them.
    pub(super) async fn answer(
        &self,
        server: &Server,
        role: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Problem> {
        let part = Part { first: self.place.first, size_bytes: self.place.size_bytes };
        let tag = format!("{}-{role}", self.release.bundle_sha256);
        bytes::answer(&server.objects, self.digest, part, &tag, headers).await
    }

    /// All of its bytes.
    pub(super) async fn bytes(&self, server: &Server) -> Result<axum::body::Bytes, Problem> {
        let Place { first, size_bytes, .. } = self.place;
        let found = server.objects.get(self.digest, first..first + size_bytes).await?;
        found.ok_or_else(|| bytes::away(self.digest))
    }
}

/// Finds the firmware of a role in a release that was not withdrawn.
pub(super) async fn artifact(
    server: &Server,
    role: &str,
    version: &str,
) -> Result<Artifact, Problem> {
    for release in server.store.releases().await? {
        if release.withdrawn_at.is_some() {
            continue;
        }
        let Some((found, chip)) = said_of(&release, role) else { continue };
        let digest = Sha256::from_hex(&release.bundle_sha256);
        let place = places(&release).remove(role);
        if let (true, Some(place), Some(digest)) = (found == version, place, digest) {
            return Ok(Artifact { release, place, chip, digest });
        }
    }
    Err(Problem::not_found("firmware", &format!("{role}/{version}")))
}

/// Version and chip of a role's firmware in a release.
fn said_of(release: &Release, role: &str) -> Option<(String, String)> {
    let manifest: Value = serde_json::from_str(&release.manifest).ok()?;
    let entry = manifest.get("devices")?.get(role)?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    Some((text("version")?, text("chip").or_else(|| text("device_type")).unwrap_or_default()))
}
