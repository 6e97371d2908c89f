//! The API's document: it is what was reviewed, it names every route and nothing else, and whom it
//! says the server lets in is whom the server lets in.

mod world;

use std::fs;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use expect_test::expect_file;
use jiff::Timestamp;
use lockstep_server::access::Role;
use lockstep_server::http::contract;
use serde_json::Value;
use tower::ServiceExt as _;
use world::World;

impl World {
    async fn token(&self, role: Role) -> String {
        let now = Timestamp::now();
        self.server.store.make_token("test", role, None, "test", now).await.unwrap()
    }

    /// What an operation answers to whoever has this secret, and sends nothing that makes sense.
    async fn ask(&self, operation: &Operation, secret: &str) -> (StatusCode, Value) {
        let path = operation.path.replace("{id}", &"0".repeat(20)).replace("{wave}", "1");
        let path = path.replace(['{', '}'], "");
        // Each comes from another address, so that nobody has been wrong too often.
        let from = std::net::SocketAddr::from((rand_address(), 1));
        let request = Request::builder()
            .method(operation.method.to_uppercase().as_str())
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {secret}"))
            .header(header::CONTENT_TYPE, "application/json")
            .extension(axum::extract::ConnectInfo(from));
        let request = request.body(Body::from("{}")).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn rand_address() -> [u8; 4] {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0x0a00_0001);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}

/// An operation of the document.
#[derive(Debug)]
struct Operation {
    path: String,
    method: String,
    /// The least role that may ask.
    role: Option<Role>,
    /// A lead's credential is needed.
    is_leads: bool,
    value: Value,
}

fn document() -> Value {
    contract::document()
}

fn operations() -> Vec<Operation> {
    let document = document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, value) in item.as_object().unwrap() {
            let security = value["security"].as_array().unwrap();
            let role = security.iter().find_map(|it| it["token"][0].as_str());
            operations.push(Operation {
                path: path.clone(),
                method: method.clone(),
                role: role.map(|role| role.parse().unwrap()),
                is_leads: security.iter().any(|it| !it["credential"].is_null()),
                value: value.clone(),
            });
        }
    }
    operations
}

/// A change of the API is seen in review. `UPDATE_EXPECT=1` writes the file anew.
#[test]
fn the_document_is_the_one_that_was_reviewed() {
    let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    expect_file!["golden/openapi.json"].assert_eq(&text);
}

/// Routes and document are made by the same words, unless somebody routes past them.
#[test]
fn no_route_of_the_api_is_made_past_the_document() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // The console's pages are in a folder of their own.
        if path.extension().is_none_or(|it| it != "rs") {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).unwrap();
        for way in [".route(", ".route_service(", ".nest(", ".nest_service("] {
            assert!(!text.contains(way), "{} has `{way}`: use `routes!`", path.display());
        }
    }
    assert!(files > 10, "{files} files");
    let console = fs::read_dir(folder.join("console")).unwrap();
    for entry in console {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let is_view = path.ends_with("api.rs");
        assert!(is_view || !text.contains(".route(\"/api"), "{}", path.display());
    }
}

#[tokio::test]
async fn every_operation_of_the_document_is_routed() {
    let world = World::new().await;
    for operation in operations() {
        let (status, answer) = world.ask(&operation, "").await;
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{operation:?}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.contains("there is no page"), "{operation:?}: {message}");
    }
}

#[tokio::test]
async fn whoever_the_document_says_may_ask_and_nobody_else() {
    let world = World::new().await;
    let (mut guarded, mut open) = (0, 0);
    for operation in operations() {
        let (nobody, _) = world.ask(&operation, "").await;
        if operation.role.is_none() && !operation.is_leads {
            assert_ne!(nobody, StatusCode::UNAUTHORIZED, "{operation:?}");
            open += 1;
            continue;
        }
        assert_eq!(nobody, StatusCode::UNAUTHORIZED, "{operation:?}");
        guarded += 1;
        for role in Role::ALL {
            let token = world.token(role).await;
            let (status, answer) = world.ask(&operation, &token).await;
            let code = answer["error"]["code"].as_str().unwrap_or_default();
            let expected = match operation.role {
                None => "unauthorized",
                Some(least) if role < least => "forbidden",
                Some(_) => "",
            };
            let is_refused = ["unauthorized", "forbidden"].contains(&code);
            let found = if is_refused { code } else { "" };
            assert_eq!(found, expected, "{role}: {operation:?}: {status}");
        }
    }
    assert!(guarded > 30 && open > 5, "{guarded} guarded, {open} open");
}

#[tokio::test]
async fn the_page_shows_every_operation_to_everybody_and_runs_nothing_of_others() {
    let world = World::new().await;
    let request = Request::builder().uri("/api/docs").body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    let page = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    for Operation { value, path, .. } in operations() {
        let id = format!("id=\"{}\"", value["operationId"].as_str().unwrap());
        assert!(page.contains(&id) && page.contains(&path), "{id} {path}");
    }
    for (name, _) in document()["components"]["schemas"].as_object().unwrap() {
        assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
    }
    for other in ["src=\"http", "href=\"http", "style=\""] {
        assert!(!page.contains(other), "{other}");
    }
}

/// What stands behind every `$ref`.
#[test]
fn nothing_in_the_document_leads_nowhere() {
    fn walk(value: &Value, document: &Value, seen: &mut usize) {
        match value {
            Value::Array(items) => items.iter().for_each(|it| walk(it, document, seen)),
            Value::Object(fields) => {
                if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                    *seen += 1;
                    assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                }
                fields.values().for_each(|it| walk(it, document, seen));
            }
            _ => (),
        }
    }
    let (document, mut seen) = (document(), 0);
    walk(&document, &document, &mut seen);
    assert!(seen > 200, "{seen}");
}

/// A client that is made from the document has one word for each, and somebody has said what it is.
#[test]
fn every_operation_says_what_it_is_and_how_it_refuses() {
    let document = document();
    let mut ids = std::collections::BTreeSet::new();
    for operation in operations() {
        let Operation { value, method, path, .. } = &operation;
        let id = value["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        assert!(value["summary"].as_str().is_some_and(|it| it.len() > 5), "{method} {path}");
        assert_eq!(value["tags"].as_array().unwrap().len(), 1, "{method} {path}");
        for (status, response) in value["responses"].as_object().unwrap() {
            let response = match response["$ref"].as_str() {
                None => response,
                Some(it) => document.pointer(it.trim_start_matches('#')).unwrap(),
            };
            let about = response["description"].as_str().unwrap();
            assert!(!about.is_empty(), "{method} {path}: {status}");
            let is_refusal = status.as_str() >= "400" && status != "416";
            let form = &response["content"]["application/json"]["schema"]["$ref"];
            let is_common = form == "#/components/schemas/ErrorAnswer";
            assert_eq!(is_refusal, is_common, "{method} {path}: {status}");
        }
    }
}
