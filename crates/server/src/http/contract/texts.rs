//! Kinds of texts that the API speaks of: what each is, its form, and one of it. They stand for
//! strings in the document; what is taken is decided where it is read.

use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A kind of text: what it is, its form as a regular expression, the name of what the expression
/// cannot say, how long it may be, and one of it.
struct Text {
    about: &'static str,
    pattern: Option<&'static str>,
    format: Option<&'static str>,
    chars: Option<(usize, usize)>,
    example: &'static str,
}

impl Text {
    fn schema(self) -> RefOr<Schema> {
        let Self { about, pattern, format, chars, example } = self;
        let format = format.map(|it| utoipa::openapi::SchemaFormat::Custom(it.to_owned()));
        let object = ObjectBuilder::new().schema_type(Type::String).description(Some(about));
        let examples = Some(example).filter(|it| !it.is_empty());
        let object = object.pattern(pattern).format(format).examples(examples);
        let object = object.min_length(chars.map(|(min, _)| min));
        object.max_length(chars.map(|(_, max)| max)).into()
    }
}

/// Declares kinds of texts, which stand for strings in the document.
macro_rules! texts {
    ($($name:ident: $text:expr;)*) => {
        $(
            #[derive(Debug)]
            pub(crate) struct $name;

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    $text.schema()
                }
            }

            impl ToSchema for $name {}
        )*

        /// All of them, by their names: one that only a parameter has is described as well.
        pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
            vec![$((stringify!($name), $name::schema()),)*]
        }
    };
}

texts! {
    Identity: Text {
        about: "An identity that this server has drawn.",
        pattern: Some("^[0-9a-f]{20}$"),
        example: "1f02a96c4be0d7093351",
        ..PLAIN
    };
    Address: Text {
        about: "The address of a board, of itself alone.",
        pattern: Some("^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$"),
        example: "02:00:00:00:00:01",
        ..PLAIN
    };
    Digest: Text {
        about: "A SHA-256 in hexadecimal digits.",
        pattern: Some("^[0-9a-f]{64}$"),
        example: "bc6d9a4e7f1b8c02d3e4f5061728394a5b6c7d8e9f00112233445566778899aa",
        ..PLAIN
    };
    Moment: Text {
        about: "A moment, as RFC 3339 has it.",
        format: Some("date-time"),
        example: "2026-12-01T22:00:00Z",
        ..PLAIN
    };
    Version: Text {
        about: "A version, with the number MAJOR·10000 + MINOR·100 + PATCH.",
        pattern: Some("^(0|[1-9][0-9]{0,4})[.](0|[1-9][0-9]?)[.](0|[1-9][0-9]?)$"),
        example: "1.2.0",
        ..PLAIN
    };
    ReleaseName: Text {
        about: "A release's identity, or its version: the newest upload of it.",
        pattern: Some(RELEASE),
        format: Some("release"),
        example: "1.2.0",
        ..PLAIN
    };
    MaybeVersion: Text {
        about: "A version, or empty.",
        pattern: Some("^((0|[1-9][0-9]{0,4})[.](0|[1-9][0-9]?)[.](0|[1-9][0-9]?))?$"),
        example: "1.2.0",
        ..PLAIN
    };
    Labels: Text {
        about: "Labels, `key=value` each, at most 16; empty: none.",
        pattern: Some(LABELS),
        example: "site=berlin,stage=canary",
        ..PLAIN
    };
    Zone: Text {
        about: "A time zone; empty: UTC.",
        format: Some("time-zone"),
        example: "Europe/Berlin",
        ..PLAIN
    };
    Window: Text {
        about: "Hours in which a group may be touched, by its own clock; empty: any.",
        format: Some("hours"),
        example: "mon-fri 22:00-05:00",
        ..PLAIN
    };
    Waves: Text {
        about: "Shares in percent, 100 together, at most 20; `!` behind one: a person approves \
            it first. Empty: all at once.",
        format: Some("waves"),
        example: "10,40!,50",
        ..PLAIN
    };
    Title: Text {
        about: "What people call something: 1 to 80 characters, without a blank at either end.",
        pattern: Some(TITLE),
        chars: Some((1, 80)),
        example: "bench 1",
        ..PLAIN
    };
    MaybeTitle: Text {
        about: "What people call something, or empty.",
        pattern: Some(MAYBE_TITLE),
        chars: Some((0, 80)),
        example: "bench 1",
        ..PLAIN
    };
    Octets: Text { about: "Bytes as they are.", format: Some("binary"), ..PLAIN };
    Secret: Text {
        about: "A password.",
        pattern: Some(NO_NUL),
        chars: Some((10, 200)),
        example: "correct horse battery staple",
        ..PLAIN
    };
}

const PLAIN: Text = Text { about: "", pattern: None, format: None, chars: None, example: "" };

const RELEASE: &str = "^([0-9a-f]{20}|(0|[1-9][0-9]{0,4})[.](0|[1-9][0-9]?)[.](0|[1-9][0-9]?))$";
const LABELS: &str = "^([A-Za-z0-9._-]{1,40}=[A-Za-z0-9._-]{1,40}\
    (,[A-Za-z0-9._-]{1,40}=[A-Za-z0-9._-]{1,40}){0,15})?$";
const TITLE: &str = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]([^\\u0000-\\u001f\\u007f-\\u009f]*\
    [^\\s\\u0000-\\u001f\\u007f-\\u009f])?$";

const MAYBE_TITLE: &str = "^([^\\s\\u0000-\\u001f\\u007f-\\u009f]\
    ([^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f])?)?$";

/// Whatever it is, it has no NUL.
pub(crate) const NO_NUL: &str = "^[^\\u0000]*$";
