//! The document in plain words of JSON Schema: what the types say of themselves, and what is so of
//! all of them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::texts::NO_NUL;

/// Says what no type can say of itself.
pub(super) fn finish(document: &mut Value) {
    plain(document);
    without_nul(document);
    told(document);
}

/// What the types say of themselves, in the words of JSON Schema: a number's range in place of a
/// format that nobody knows, and a parameter that may be left out, but is never null.
fn plain(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(fields) => {
            let format = fields.get("format").and_then(Value::as_str).unwrap_or_default();
            if let Some(bits) = format.strip_prefix("u-int").and_then(|it| it.parse::<u32>().ok()) {
                fields.remove("format");
                let maximum = u64::MAX.checked_shr(64 - bits.min(64));
                fields.entry("maximum").or_insert(maximum.into());
            }
            if fields.contains_key("in")
                && let Some(kind) = fields.get_mut("schema").and_then(|it| it.get_mut("type"))
                && let Some(first) = kind.get(0).cloned()
            {
                *kind = first;
            }
            fields.values_mut().for_each(plain);
        }
        _ => (),
    }
}

/// No text that is sent has a NUL in it, whatever else it may have; leads may send what they like.
fn without_nul(document: &mut Value) {
    let Some(schemas) = document.pointer_mut("/components/schemas") else { return };
    for name in SENT {
        let properties = schemas.get_mut(name).and_then(|it| it.get_mut("properties"));
        for of in
            properties.and_then(Value::as_object_mut).into_iter().flat_map(|it| it.values_mut())
        {
            if let Some(of) = of.as_object_mut()
                && of.get("type").is_some_and(|kind| kind == "string")
            {
                of.entry("pattern").or_insert(NO_NUL.into());
            }
        }
    }
}

/// An answer has all its fields, null or not; only what is sent may leave some out.
fn told(document: &mut Value) {
    let mut sent = BTreeSet::new();
    let paths = document.get("paths").and_then(Value::as_object);
    for item in paths.into_iter().flat_map(|it| it.values()) {
        for operation in item.as_object().into_iter().flat_map(|it| it.values()) {
            if let Some(body) = operation.get("requestBody") {
                reach(document, body, &mut sent);
            }
        }
    }
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    for (_, schema) in schemas.into_iter().flatten().filter(|(name, _)| !sent.contains(*name)) {
        require_all(schema);
    }
}

/// Every shape that a value speaks of, and those that they speak of.
fn reach(document: &Value, value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|it| reach(document, it, names)),
        Value::Object(fields) => {
            let to = fields.get("$ref").and_then(Value::as_str).unwrap_or_default();
            if let Some(name) = to.strip_prefix("#/components/schemas/")
                && names.insert(name.to_owned())
                && let Some(schema) = document.pointer(to.trim_start_matches('#'))
            {
                reach(document, schema, names);
            }
            fields.values().for_each(|it| reach(document, it, names));
        }
        _ => (),
    }
}

fn require_all(schema: &mut Value) {
    for part in schema.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
        require_all(part);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let names: Option<Vec<Value>> =
        properties.map(|it| it.keys().map(|name| name.as_str().into()).collect());
    if let (Some(schema), Some(names)) = (schema.as_object_mut(), names) {
        schema.insert("required".to_owned(), names.into());
    }
}

/// Shapes of bodies with texts in them that are of no kind of their own.
const SENT: [&str; 2] = ["Setup", "Login"];
