//! Releases: in, listed, and out again, to leads as bundles and to old firmware as the original
//! plan has it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use jiff::Timestamp;
use lockstep_proto::id::Sha256;
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::{Operator, Viewer};
use super::bytes::{self, Part};
use super::given;
use super::problem::Problem;
use crate::manifests::places;
use crate::publish::{self, PublishError};
use crate::server::{Change, Server};
use crate::store::releases::{Release, Signer};

#[derive(Debug, Serialize)]
pub(super) struct ReleaseJson {
    id: String,
    system: String,
    version: String,
    version_number: u32,
    sequence: u32,
    epoch: u32,
    bundle_sha256: String,
    size_bytes: u64,
    signatures: u32,
    signers: Vec<SignerJson>,
    description: String,
    uploaded_at: Timestamp,
    uploaded_by: String,
    withdrawn_at: Option<Timestamp>,
}

/// Who made one signature of a release.
#[derive(Debug, Serialize)]
pub(super) struct SignerJson {
    key: String,
    verified: bool,
    comment: String,
}

impl From<Signer> for SignerJson {
    fn from(signer: Signer) -> Self {
        Self { key: signer.key, verified: signer.is_verified, comment: signer.comment }
    }
}

impl From<&Release> for ReleaseJson {
    fn from(release: &Release) -> Self {
        let it = release.clone();
        Self {
            id: it.id,
            system: it.system,
            version: it.version,
            version_number: it.number,
            sequence: it.sequence,
            epoch: it.epoch,
            bundle_sha256: it.bundle_sha256,
            size_bytes: it.bundle_bytes,
            signatures: it.signatures,
            signers: it.signers.into_iter().map(SignerJson::from).collect(),
            description: it.description,
            uploaded_at: it.uploaded_at,
            uploaded_by: it.uploaded_by,
            withdrawn_at: it.withdrawn_at,
        }
    }
}

/// `GET /api/releases`.
pub(super) async fn list(
    State(server): State<Arc<Server>>,
    _: Viewer,
) -> Result<Json<Value>, Problem> {
    let releases = server.store.releases().await?;
    let releases: Vec<_> = releases.iter().map(ReleaseJson::from).collect();
    Ok(Json(json!({ "releases": releases })))
}

/// `GET /api/releases/ID`, with its manifest.
pub(super) async fn show(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Path(id): given::Path<String>,
) -> Result<Json<Value>, Problem> {
    let release = server.store.release(&id).await?;
    let release = release.ok_or_else(|| Problem::not_found("release", &id))?;
    let manifest: Value = serde_json::from_str(&release.manifest).unwrap_or_default();
    Ok(Json(json!({ "release": ReleaseJson::from(&release), "manifest": manifest })))
}

/// `POST /api/releases`: the body is the bundle.
pub(super) async fn upload(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let id = take(&server, &caller.name, body).await?;
    let release = server.store.release(&id).await?;
    let release = release.ok_or_else(|| Problem::not_found("release", &id))?;
    Ok((StatusCode::CREATED, Json(json!({ "release": ReleaseJson::from(&release) }))))
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

/// `POST /api/releases/ID/withdraw`.
pub(super) async fn withdraw(
    State(server): State<Arc<Server>>,
    Operator(caller): Operator,
    given::Path(id): given::Path<String>,
) -> Result<Json<Value>, Problem> {
    withdraw_release(&server, &id, &caller.name).await?;
    Ok(Json(json!({ "withdrawn": id })))
}

/// Nobody is offered it any more.
pub(super) async fn withdraw_release(server: &Server, id: &str, who: &str) -> Result<(), Problem> {
    if !server.store.withdraw_release(id, who, Timestamp::now()).await? {
        return Err(Problem::not_found("release that is not withdrawn", id));
    }
    server.changed(Change::Releases);
    Ok(())
}

/// `GET /api/releases/ID/bundle`.
pub(super) async fn bundle(
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

/// `GET /manifest`: the newest release that was not withdrawn, for firmware that looks for itself.
/// Open to everybody, as in the original plan; what stands in it is no secret.
pub(super) async fn newest_manifest(
    State(server): State<Arc<Server>>,
) -> Result<Response<Body>, Problem> {
    let releases = server.store.releases().await?;
    let newest = releases
        .iter()
        .filter(|release| release.withdrawn_at.is_none())
        .max_by_key(|release| (release.number, release.uploaded_at));
    let Some(newest) = newest else { return Err(Problem::not_found("release", "newest")) };
    let text = with_addresses(newest, &server.public_url);
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ETAG, format!("\"{}\"", newest.bundle_sha256))
        .header(header::CACHE_CONTROL, "no-cache");
    Ok(response.body(Body::from(text)).expect("headers are plain"))
}

/// The manifest with addresses at which this server has the artifacts: in a bundle they are the
/// names of its own files.
fn with_addresses(release: &Release, public_url: &str) -> String {
    let Ok(mut manifest) = serde_json::from_str::<Value>(&release.manifest) else {
        return release.manifest.clone();
    };
    let devices = manifest.get_mut("devices").and_then(Value::as_object_mut);
    for (role, entry) in devices.into_iter().flatten() {
        let version = entry.get("version").and_then(Value::as_str).unwrap_or(&release.version);
        let address = format!("{public_url}/firmware/{role}/{version}");
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("firmware_url".into(), address.into());
        }
    }
    serde_json::to_string_pretty(&manifest).unwrap_or_default()
}

/// `GET /firmware/DEVICE/VERSION`, as in the original plan: one role's artifact.
pub(super) async fn firmware(
    State(server): State<Arc<Server>>,
    given::Path((role, version)): given::Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let missing = || Problem::not_found("firmware", &format!("{role}/{version}"));
    for release in server.store.releases().await? {
        if release.withdrawn_at.is_some() || version_of(&release, &role) != Some(version.clone()) {
            continue;
        }
        let Some(place) = places(&release).remove(&role) else { continue };
        let digest = Sha256::from_hex(&release.bundle_sha256).ok_or_else(missing)?;
        let part = Part { first: place.first, size_bytes: place.size_bytes };
        let tag = format!("{}-{role}", release.bundle_sha256);
        return bytes::answer(&server.objects, digest, part, &tag, &headers).await;
    }
    Err(missing())
}

/// The version of a role's firmware in a release.
fn version_of(release: &Release, role: &str) -> Option<String> {
    let manifest: Value = serde_json::from_str(&release.manifest).ok()?;
    Some(manifest.get("devices")?.get(role)?.get("version")?.as_str()?.to_owned())
}
