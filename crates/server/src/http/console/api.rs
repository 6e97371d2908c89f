//! `/api/docs`: the API's document as a page, for who would rather read than fetch it. Made from
//! the document itself, open to everybody as that is.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use askama::Template;
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value};

use super::{Frame, Trouble, frame, page, shown};
use crate::access::Caller;
use crate::http::auth::known_caller;
use crate::http::contract::{self, NO_NUL};
use crate::server::Server;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/docs", get(show))
}

/// Whoever looks; nobody need sign in for this.
struct Anybody(Option<Caller>);

impl FromRequestParts<Arc<Server>> for Anybody {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Trouble> {
        Ok(Self(known_caller(parts, server).await?))
    }
}

#[derive(Template)]
#[template(path = "api.html")]
struct ApiPage {
    frame: Frame,
    url: String,
    view: &'static View,
}

async fn show(
    State(server): State<Arc<Server>>,
    Anybody(caller): Anybody,
) -> Result<Response, Trouble> {
    static VIEW: LazyLock<View> = LazyLock::new(|| View::of(&contract::document()));
    let frame = caller.map_or_else(Frame::default, |caller| frame(&caller, "api", ""));
    page(&ApiPage { frame, url: server.public_url.clone(), view: &VIEW })
}

/// What the page shows. Texts that end in `html` are escaped already.
#[derive(Debug)]
struct View {
    about_html: String,
    version: String,
    tags: Vec<Tag>,
    shapes: Vec<Shape>,
}

/// Operations about one thing.
#[derive(Debug)]
struct Tag {
    name: String,
    about_html: String,
    operations: Vec<Operation>,
}

#[derive(Debug)]
struct Operation {
    id: String,
    method: String,
    path: String,
    title: String,
    about_html: String,
    /// Who may ask, in a word.
    who: String,
    fields: Vec<Field>,
    /// The kind of the body and what it is, if one is sent.
    body: Option<(String, String)>,
    answers: Vec<Answer>,
    /// How to ask for it in a shell, behind the server's address.
    curl: Curl,
}

#[derive(Debug)]
struct Curl {
    before: String,
    after: String,
}

/// A parameter, or a field of a shape.
#[derive(Debug)]
struct Field {
    name: String,
    /// Where it stands: `path`, `query`, `header`; empty: in a shape.
    place: String,
    is_required: bool,
    kind_html: String,
    about_html: String,
}

#[derive(Debug)]
struct Answer {
    status: String,
    about_html: String,
    kind_html: String,
}

/// What is sent or answered.
#[derive(Debug)]
struct Shape {
    name: String,
    about_html: String,
    /// What it is if it has no fields.
    kind_html: String,
    fields: Vec<Field>,
}

impl View {
    fn of(document: &Value) -> Self {
        let tags = list(document.get("tags")).map(|tag| {
            let name = text(tag, "name");
            let operations = operations_of(document, &name);
            Tag { about_html: marked(&text(tag, "description")), name, operations }
        });
        let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
        let shapes = schemas.into_iter().flatten().map(|(name, schema)| Shape {
            name: name.clone(),
            about_html: marked(&text(schema, "description")),
            kind_html: kind(schema),
            fields: fields_of(document, schema),
        });
        Self {
            about_html: marked(document.pointer("/info/description").map_or("", str_of)),
            version: document.pointer("/info/version").map_or("", str_of).to_owned(),
            tags: tags.collect(),
            shapes: shapes.collect(),
        }
    }
}

fn operations_of(document: &Value, tag: &str) -> Vec<Operation> {
    let mut operations = Vec::new();
    let paths = document.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if list(operation.get("tags")).any(|it| it == tag) {
                operations.push(operation_of(document, path, method, operation));
            }
        }
    }
    operations
}

fn operation_of(document: &Value, path: &str, method: &str, operation: &Value) -> Operation {
    let fields = list(operation.get("parameters")).map(|it| Field {
        name: text(it, "name"),
        place: text(it, "in"),
        is_required: it.get("required") == Some(&Value::Bool(true)),
        kind_html: it.get("schema").map(kind).unwrap_or_default(),
        about_html: marked(&text(it, "description")),
    });
    let responses = operation.get("responses").and_then(Value::as_object);
    let answers = responses.into_iter().flatten().map(|(status, response)| {
        let response = resolved(document, response);
        let content = content_of(response);
        Answer {
            status: status.clone(),
            about_html: marked(&text(response, "description")),
            kind_html: content.map(|(_, schema)| kind(schema)).unwrap_or_default(),
        }
    });
    let body = operation.get("requestBody").and_then(content_of);
    Operation {
        id: text(operation, "operationId"),
        method: method.to_uppercase(),
        path: path.to_owned(),
        title: text(operation, "summary"),
        about_html: marked(&text(operation, "description")),
        who: who(operation),
        fields: fields.collect(),
        body: body.map(|(kind_of, schema)| (kind_of.to_owned(), kind(schema))),
        answers: answers.collect(),
        curl: curl(document, path, method, operation),
    }
}

fn who(operation: &Value) -> String {
    let security: Vec<_> = list(operation.get("security")).collect();
    let role = security.iter().find_map(|it| it.pointer("/token/0").and_then(Value::as_str));
    match role {
        Some(role) => role.to_owned(),
        None if security.is_empty() => "everybody".to_owned(),
        None => "lead".to_owned(),
    }
}

/// Media type and schema of a body or an answer; its only one.
fn content_of(value: &Value) -> Option<(&str, &Value)> {
    let (kind, content) = value.get("content")?.as_object()?.iter().next()?;
    Some((kind, content.get("schema")?))
}

fn curl(document: &Value, path: &str, method: &str, operation: &Value) -> Curl {
    let mut before = "curl".to_owned();
    match who(operation).as_str() {
        "everybody" => (),
        "lead" => before += " -H \"Authorization: Bearer $CREDENTIAL\"",
        _ => before += " -H \"Authorization: Bearer $TOKEN\"",
    }
    let body = operation.get("requestBody").and_then(content_of);
    if method != "get" && (body.is_none() || method != "post") {
        let _ = write!(before, " -X {}", method.to_uppercase());
    }
    let mut after = path.to_owned();
    for parameter in list(operation.get("parameters")) {
        let place = format!("{{{}}}", text(parameter, "name"));
        let one = parameter.get("example").or_else(|| {
            let schema = parameter.get("schema").map(|it| resolved(document, it))?;
            schema.pointer("/examples/0").or_else(|| schema.get("minimum"))
        });
        let one = one.map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned));
        after = after.replace(&place, &one.unwrap_or_default());
    }
    match body {
        None => (),
        Some(("application/json", schema)) => {
            let one = example(document, schema, EXAMPLE_DEPTH_MAX);
            let _ = write!(after, " \\\n  --json '{one}'");
        }
        Some((kind, _)) => {
            let _ = write!(after, " \\\n  -H 'Content-Type: {kind}' --data-binary @FILE");
        }
    }
    Curl { before, after }
}

/// Something that the schema allows: what must be there, and nothing else.
fn example(document: &Value, schema: &Value, depth: usize) -> Value {
    let schema = resolved(document, schema);
    if let Some(one) = schema.pointer("/examples/0").or_else(|| schema.pointer("/enum/0")) {
        return one.clone();
    }
    if let Some(first) = schema.pointer("/oneOf/0") {
        return example(document, first, depth);
    }
    match kinds(schema).first().map(String::as_str) {
        Some("object") if depth > 0 => {
            let mut fields = Map::new();
            for name in list(schema.get("required")).filter_map(Value::as_str) {
                let of = schema.pointer(&format!("/properties/{name}")).unwrap_or(&Value::Null);
                fields.insert(name.to_owned(), example(document, of, depth - 1));
            }
            fields.into()
        }
        Some("object") => Map::new().into(),
        Some("array") => Vec::<Value>::new().into(),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(0.into()),
        Some("boolean") => false.into(),
        Some("null") => Value::Null,
        _ => "…".into(),
    }
}

fn fields_of(document: &Value, schema: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    for part in list(schema.get("allOf")) {
        fields.extend(fields_of(document, resolved(document, part)));
    }
    let required: Vec<_> = list(schema.get("required")).filter_map(Value::as_str).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    fields.extend(properties.into_iter().flatten().map(|(name, of)| {
        let about = text(of, "description");
        // What a kind of text is need not be said of each field again.
        let about = match about.is_empty() {
            true => {
                let first = of.pointer("/oneOf/0").unwrap_or(of);
                let said = text(first, "description");
                if said.is_empty() { text(resolved(document, first), "description") } else { said }
            }
            false => about,
        };
        Field {
            name: name.clone(),
            place: String::new(),
            is_required: required.contains(&name.as_str()),
            kind_html: kind(of),
            about_html: marked(&about),
        }
    }));
    fields
}

/// What a schema allows, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = escaped(name.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(any) = schema.get("oneOf").and_then(Value::as_array) {
        return any.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words = words.iter().map(|it| format!("<code>{}</code>", escaped(str_of(it))));
        return words.collect::<Vec<_>>().join(", ");
    }
    let mut kinds = kinds(schema);
    if let Some(first) = kinds.first_mut() {
        let of = |name: &str| schema.get(name).map(ToString::to_string);
        match first.as_str() {
            "array" => {
                let items = schema.get("items").map(kind).unwrap_or_default();
                *first = format!("list of {items}");
            }
            "integer" => match (of("minimum"), of("maximum")) {
                (Some(least), Some(most)) => *first = format!("number, {least} to {most}"),
                (Some(least), None) => *first = format!("number, {least} or more"),
                _ => *first = "number".to_owned(),
            },
            "string" => *first = string_kind(schema),
            _ => (),
        }
    }
    kinds.join(" or ")
}

fn string_kind(schema: &Value) -> String {
    let mut words = vec!["text".to_owned()];
    let of = |name: &str| schema.get(name).map(ToString::to_string);
    match (of("minLength"), of("maxLength")) {
        (Some(least), Some(most)) => words.push(format!("{least} to {most} characters")),
        (None, Some(most)) => words.push(format!("at most {most} characters")),
        _ => (),
    }
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        words.push(format!("format <code>{}</code>", escaped(format)));
    }
    // That no text has a NUL is said once for all.
    let pattern = schema.get("pattern").and_then(Value::as_str).filter(|it| *it != NO_NUL);
    if let Some(pattern) = pattern {
        words.push(format!("<code>{}</code>", escaped(pattern)));
    }
    if let Some(one) = schema.pointer("/examples/0").and_then(Value::as_str) {
        words.push(format!("such as <code>{}</code>", escaped(one)));
    }
    words.join(", ")
}

fn kinds(schema: &Value) -> Vec<String> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => all.iter().map(|it| str_of(it).to_owned()).collect(),
        _ => Vec::new(),
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(to) = value.get("$ref").and_then(Value::as_str) else { return value };
    document.pointer(to.trim_start_matches('#')).unwrap_or(value)
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).map_or("", str_of).to_owned()
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The document's texts are ours; what is between backticks is code, and between stars a word of
/// the domain.
fn marked(text: &str) -> String {
    let mut html = String::new();
    for (number, part) in text.split('`').enumerate() {
        let part = escaped(part).replace("\n\n", "<br>");
        if number % 2 == 1 {
            let _ = write!(html, "<code>{part}</code>");
            continue;
        }
        for (number, part) in part.split('*').enumerate() {
            let _ = match number % 2 {
                0 => write!(html, "{part}"),
                _ => write!(html, "<em>{part}</em>"),
            };
        }
    }
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Objects in objects that an example has.
const EXAMPLE_DEPTH_MAX: usize = 3;
