//! The API's own description, as an OpenAPI 3.1 document: `GET /api/openapi.json`.
//!
//! What an operation is stands at its handler, where it is routed by the same words; shapes are
//! described by the types that are read and written. Here is what they have in common: whom the
//! server lets in, texts of one kind, and answers that follow from how an operation is asked.

mod plain;
mod texts;

use std::sync::{Arc, LazyLock};

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Value;
use utoipa::PartialSchema as _;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, Header, Info, LicenseBuilder, ObjectBuilder, OpenApi,
    OpenApiBuilder, RefOr, Response, ResponseBuilder, SecurityRequirement, Type,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{COOKIE, FORM_TOKEN_HEADER};
use super::problem::ErrorAnswer;
use crate::server::Server;

pub(crate) use texts::*;

/// The document, as text.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        // Texts and numbers alone: that cannot fail.
        serde_json::to_string_pretty(&document()).unwrap_or_default()
    });
    &TEXT
}

/// The document.
pub fn document() -> Value {
    let mut document = super::api().into_openapi();
    let paths = &mut document.paths.paths;
    for (path, item) in paths.iter_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        let methods = ["get", "put", "post", "delete"];
        for (method, operation) in methods.into_iter().zip(operations) {
            if let Some(operation) = operation {
                complete(operation, path, method);
            }
        }
    }
    // Texts and numbers alone: that cannot fail.
    let mut document = serde_json::to_value(&document).unwrap_or_default();
    plain::finish(&mut document);
    document
}

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// This document
#[utoipa::path(get, path = "/api/openapi.json", tag = "watching", operation_id = "getOpenapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn openapi() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, text())
}

/// What stands in the document beside its operations.
pub(super) fn base() -> OpenApi {
    let mut info = Info::new("Lockstep server", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
    info.license =
        Some(LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some(LICENSE)).build());
    let tags = TAGS.map(|(name, about)| {
        utoipa::openapi::tag::TagBuilder::new().name(name).description(Some(about)).build()
    });
    OpenApiBuilder::new().info(info).components(Some(components())).tags(Some(tags)).build()
}

fn components() -> Components {
    let mut components = Components::new();
    let bearer = |about: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        SecurityScheme::Http(scheme.description(Some(about)).build())
    };
    let session = ApiKeyValue::with_description(COOKIE, "A session of the console.");
    let form = ApiKeyValue::with_description(
        FORM_TOKEN_HEADER,
        "Whatever a session changes carries its form token, which no other site's page knows.",
    );
    components.add_security_scheme("token", bearer(ABOUT_TOKEN));
    components.add_security_scheme("credential", bearer(ABOUT_CREDENTIAL));
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
    components.add_security_scheme("form", SecurityScheme::ApiKey(ApiKey::Header(form)));
    for (name, schema) in texts::all() {
        components.schemas.insert(name.to_owned(), schema);
    }
    components.schemas.insert("ErrorAnswer".to_owned(), ErrorAnswer::schema());
    for refusal in Refusal::ALL {
        components.responses.insert(refusal.name().to_owned(), refusal.response().into());
    }
    components
}

/// What an operation may answer beside what stands at its handler, and who else may ask.
fn complete(operation: &mut Operation, path: &str, method: &str) {
    let mut refusals = Vec::new();
    let security = operation.security.take().unwrap_or_default();
    let roles = roles_of(&security);
    if !security.is_empty() {
        refusals.extend([Refusal::Unauthorized, Refusal::TooManyAttempts]);
        refusals.push(Refusal::Away);
    }
    if !roles.is_empty() && (method != "get" || roles != ["viewer"]) {
        refusals.push(Refusal::Forbidden);
    }
    operation.security = Some(with_sessions(security, &roles, method));
    if let Some(RefOr::T(body)) = &operation.request_body {
        refusals.push(Refusal::TooLarge);
        if body.content.contains_key("application/json") {
            refusals.extend([Refusal::BadRequest, Refusal::WrongType]);
        }
    }
    for parameter in operation.parameters.iter().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        match parameter.parameter_in {
            ParameterIn::Path => refusals.push(Refusal::NotFound),
            ParameterIn::Query => refusals.push(Refusal::BadRequest),
            _ => (),
        }
    }
    // Those that answer from memory say so by having no other answer than one.
    if path != "/healthz" && path != "/api/openapi.json" {
        refusals.push(Refusal::Away);
    }
    let responses = &mut operation.responses.responses;
    for refusal in refusals {
        let reference = utoipa::openapi::Ref::from_response_name(refusal.name());
        responses.entry(refusal.status().to_owned()).or_insert(reference.into());
    }
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response {
            finish(response, status);
        }
    }
}

/// An answer that is described at its handler, and is a refusal, has the form of all.
fn finish(response: &mut Response, status: &str) {
    if status >= "400" && response.content.is_empty() && status != "416" {
        response.content.insert("application/json".to_owned(), error_content().into());
    }
}

fn roles_of(security: &[SecurityRequirement]) -> Vec<String> {
    // The only way to look into a requirement is to write it down.
    let roles = security.iter().filter_map(|it| {
        let value = serde_json::to_value(it).ok()?;
        let roles = value.get("token")?.as_array()?.clone();
        Some(roles.into_iter().filter_map(|role| role.as_str().map(str::to_owned)))
    });
    roles.flatten().collect()
}

/// Whoever may do something with a token may do it with a session as well.
fn with_sessions(
    mut security: Vec<SecurityRequirement>,
    roles: &[String],
    method: &str,
) -> Vec<SecurityRequirement> {
    if !roles.is_empty() {
        let session = SecurityRequirement::new("session", roles);
        security.push(match method {
            "get" => session,
            _ => session.add("form", [""; 0]),
        });
    }
    security
}

/// A refusal that many operations share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    TooLarge,
    WrongType,
    TooManyAttempts,
    Away,
}

impl Refusal {
    const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::TooLarge,
        Self::WrongType,
        Self::TooManyAttempts,
        Self::Away,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::TooLarge => "TooLarge",
            Self::WrongType => "WrongType",
            Self::TooManyAttempts => "TooManyAttempts",
            Self::Away => "Away",
        }
    }

    const fn status(self) -> &'static str {
        match self {
            Self::BadRequest => "400",
            Self::Unauthorized => "401",
            Self::Forbidden => "403",
            Self::NotFound => "404",
            Self::TooLarge => "413",
            Self::WrongType => "415",
            Self::TooManyAttempts => "429",
            Self::Away => "503",
        }
    }

    const fn about(self) -> &'static str {
        match self {
            Self::BadRequest => "`bad-request`: what was sent cannot be read; says what and why.",
            Self::Unauthorized => "`unauthorized`: nobody that is known, or not any more.",
            Self::Forbidden => {
                "`forbidden`: another role is needed. `cross-origin`: a session without its form \
                 token."
            }
            Self::NotFound => "`not-found`: there is no such thing.",
            Self::TooLarge => "`too-large`: the body is larger than any may be.",
            Self::WrongType => "`wrong-type`: the body is not of a kind that is read here.",
            Self::TooManyAttempts => {
                "`too-many-attempts`: this address was wrong too often, and waits."
            }
            Self::Away => {
                "`away`, `busy`: the database or the store of objects cannot be used now."
            }
        }
    }

    fn response(self) -> Response {
        let response = ResponseBuilder::new().description(self.about());
        let header = |kind: Type, about: &str| {
            let mut header = Header::new(ObjectBuilder::new().schema_type(kind));
            header.description = Some(about.to_owned());
            header
        };
        let response = match self {
            Self::Unauthorized => {
                response.header("WWW-Authenticate", header(Type::String, "`Bearer`"))
            }
            Self::TooManyAttempts => {
                response.header("Retry-After", header(Type::Integer, "After so many seconds."))
            }
            _ => response,
        };
        response.content("application/json", error_content()).build()
    }
}

fn error_content() -> utoipa::openapi::Content {
    let schema = utoipa::openapi::Ref::from_schema_name("ErrorAnswer");
    ContentBuilder::new().schema(Some(schema)).build()
}

const ABOUT: &str = "The HTTP API of `lockstep serve`: leads come to it for releases, people and \
    programs look after groups. docs/server-api.md tells it in words.\n\nRoles: a *viewer* looks, \
    an *operator* moves groups, an *admin* lets others in; each may what the one before may. \
    No text that is sent has a NUL in it.";
const LICENSE: &str = "MIT OR Apache-2.0";
const ABOUT_TOKEN: &str = "A token of a program: `POST /api/login`, or an admin makes one.";
const ABOUT_CREDENTIAL: &str = "What a lead has got when it enrolled. It is of one board.";
const TAGS: [(&str, &str); 6] = [
    ("leads", "What leads ask for, and firmware that looks for itself."),
    ("releases", "Releases, and their bundles."),
    ("groups", "Groups, and the tokens that let their leads in."),
    ("campaigns", "Many groups brought to one release, in waves."),
    ("people", "Who is let in, and what was done by whom."),
    ("watching", "Whether the server is well, and what it says of itself."),
];
