//! A new board is flashed from a browser: what esp-web-tools asks for, and the parts of a flash
//! that are not in a release.
//!
//! All of it is open to everybody, to pages of other sites too, so nothing of a group's is in it:
//! no keys, no password. Who is adopted later has a record of its own.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use lockstep_proto::image::ChipId;
use lockstep_proto::otadata::OTADATA_BYTES;
use lockstep_proto::partition::{
    PartitionTable, SUBTYPE_OTADATA, TABLE_BYTES, TABLE_OFFSET, TYPE_DATA,
};
use md5::{Digest as _, Md5};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Build, Install, Ota, Part};
use super::bytes::Bytes;
use super::contract::Octets;
use super::given;
use super::problem::Problem;
use super::releases::{Artifact, artifact};
use crate::server::Server;

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(install))
        .routes(routes!(firmware))
        .routes(routes!(bootloader))
        .routes(routes!(table))
        .routes(routes!(otadata))
}

/// What a browser installs on a new board
///
/// A manifest for esp-web-tools: bootloader, partition table, the firmware, and nothing of a group.
/// Its part `ota` is what ESPHome's `http_request` asks for. Open to everybody.
#[utoipa::path(get, path = "/firmware/{device}/{version}/esp-web-tools.json", tag = "leads",
    operation_id = "getInstall",
    params(
        ("device" = String, Path, description = "Its role.", example = "receiver"),
        ("version" = String, Path, description = "Its version.", example = "1.0.0"),
    ),
    responses(
        (status = 200, description = "The manifest.", body = Install),
        (status = 409, description = "`no-install`: there is no bootloader for its chip here, or \
            it does not fit the usual partition table."),
    ))]
async fn install(
    State(server): State<Arc<Server>>,
    given::Path((role, version)): given::Path<(String, String)>,
) -> Result<impl IntoResponse, Problem> {
    let artifact = artifact(&server, &role, &version).await?;
    let (chip, _) = parts_for(&server, &artifact)?;
    let table = PartitionTable::desk_table();
    let slot = table.ota_slots().next().filter(|slot| fits(&artifact, slot.size_bytes));
    let Some(slot) = slot else {
        let text = format!("firmware {role} {version} does not fit a slot of the usual table");
        return Err(no_install(&text, "flash it by cable: `lockstep flash --table FILE`"));
    };
    let md5 = md5_of(&server, &artifact).await?;
    let part = |path: &str, offset: u32| Part { path: path.to_owned(), offset };
    let parts = vec![
        part("bootloader.bin", chip.bootloader_offset()),
        part("partition-table.bin", TABLE_OFFSET),
        part("otadata.bin", otadata_offset(&table)),
        part("firmware.bin", slot.offset),
    ];
    let (system, summary) = (&artifact.release.system, artifact.release.description.clone());
    let name = if system.is_empty() { role } else { format!("{system} {role}") };
    let ota = Ota { path: "firmware.bin".to_owned(), md5, summary };
    let build = Build { chip_family: chip.to_string(), parts, ota };
    let answer = Install { name, version, new_install_prompt_erase: true, builds: vec![build] };
    Ok((fresh_for_all(), Json(answer)))
}

/// The firmware, for a browser
///
/// The same as `/firmware/{device}/{version}`, beside the manifest that names it.
#[utoipa::path(get, path = "/firmware/{device}/{version}/firmware.bin", tag = "leads",
    operation_id = "getInstallFirmware",
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
    let mut answer = artifact.answer(&server, &role, &headers).await?;
    answer.headers_mut().extend(for_all());
    Ok(answer)
}

/// The bootloader, for a browser
///
/// The one that this server was started with for the chip of the firmware.
#[utoipa::path(get, path = "/firmware/{device}/{version}/bootloader.bin", tag = "leads",
    operation_id = "getInstallBootloader",
    params(
        ("device" = String, Path, description = "Its role.", example = "receiver"),
        ("version" = String, Path, description = "Its version.", example = "1.0.0"),
    ),
    responses(
        (status = 200, description = "An image.", body = Octets,
            content_type = "application/octet-stream"),
        (status = 409, description = "`no-install`: there is none for its chip here."),
    ))]
async fn bootloader(
    State(server): State<Arc<Server>>,
    given::Path((role, version)): given::Path<(String, String)>,
) -> Result<impl IntoResponse, Problem> {
    let artifact = artifact(&server, &role, &version).await?;
    let (_, bootloader) = parts_for(&server, &artifact)?;
    Ok(octets(bootloader.to_vec()))
}

/// The partition table, for a browser
///
/// The usual one: two slots and a record, on 4 MiB.
#[utoipa::path(get, path = "/firmware/{device}/{version}/partition-table.bin", tag = "leads",
    operation_id = "getInstallTable",
    params(
        ("device" = String, Path, description = "Its role.", example = "receiver"),
        ("version" = String, Path, description = "Its version.", example = "1.0.0"),
    ),
    responses((status = 200, description = "As it stands in flash.", body = Octets,
        content_type = "application/octet-stream")))]
async fn table(
    State(server): State<Arc<Server>>,
    given::Path((role, version)): given::Path<(String, String)>,
) -> Result<impl IntoResponse, Problem> {
    artifact(&server, &role, &version).await?;
    let mut bytes = [0; TABLE_BYTES];
    PartitionTable::desk_table().write(&mut bytes);
    Ok(octets(bytes.to_vec()))
}

/// What makes the first slot boot, for a browser
///
/// Erased: a slot that was selected before is not any more.
#[utoipa::path(get, path = "/firmware/{device}/{version}/otadata.bin", tag = "leads",
    operation_id = "getInstallOtadata",
    params(
        ("device" = String, Path, description = "Its role.", example = "receiver"),
        ("version" = String, Path, description = "Its version.", example = "1.0.0"),
    ),
    responses((status = 200, description = "As it stands in flash.", body = Octets,
        content_type = "application/octet-stream")))]
async fn otadata(
    State(server): State<Arc<Server>>,
    given::Path((role, version)): given::Path<(String, String)>,
) -> Result<impl IntoResponse, Problem> {
    artifact(&server, &role, &version).await?;
    Ok(octets(vec![0xFF; OTADATA_BYTES as usize]))
}

/// The chip of a firmware, and a bootloader for it.
fn parts_for<'a>(
    server: &'a Server,
    artifact: &Artifact,
) -> Result<(ChipId, &'a axum::body::Bytes), Problem> {
    let chip = ChipId::from_name(&artifact.chip);
    let found = chip.and_then(|chip| Some((chip, server.bootloaders.get(&chip)?)));
    found.ok_or_else(|| {
        let name = if artifact.chip.is_empty() { "an unnamed chip" } else { &artifact.chip };
        let text = format!("there is no bootloader for {name} on this server");
        no_install(&text, "start it with one: `lockstep serve --bootloader CHIP=FILE`")
    })
}

fn no_install(text: &str, hint: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "no-install", text, hint)
}

fn fits(artifact: &Artifact, slot_bytes: u32) -> bool {
    artifact.place.size_bytes <= u64::from(slot_bytes)
}

/// For old tools, who compare nothing better.
async fn md5_of(server: &Server, artifact: &Artifact) -> Result<String, Problem> {
    let bytes = artifact.bytes(server).await?;
    // Some milliseconds for each MiB: too long for whoever else waits.
    let digest = tokio::task::spawn_blocking(move || Md5::digest(&bytes)).await;
    let digest = digest.map(u128_of).unwrap_or_default();
    Ok(format!("{digest:032x}"))
}

fn u128_of(digest: impl Into<[u8; 16]>) -> u128 {
    u128::from_be_bytes(digest.into())
}

fn otadata_offset(table: &PartitionTable) -> u32 {
    table.find(TYPE_DATA, SUBTYPE_OTADATA).map_or(0, |entry| entry.offset)
}

fn octets(bytes: Vec<u8>) -> impl IntoResponse {
    let kind = HeaderValue::from_static("application/octet-stream");
    (fresh_for_all(), [(header::CONTENT_TYPE, kind)], bytes)
}

/// The installing page may be another site's; there is nothing here that it must not see.
fn for_all() -> HeaderMap {
    let all = HeaderValue::from_static("*");
    HeaderMap::from_iter([(header::ACCESS_CONTROL_ALLOW_ORIGIN, all)])
}

fn fresh_for_all() -> HeaderMap {
    let mut headers = for_all();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers
}
