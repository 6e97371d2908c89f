//! What a request is answered with: JSON, or one plain line. Errors have one shape for all calls:
//! a word for programs, a message, and a hint at what to do.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use lockstep_proto::id::RolloutId;
use lockstep_rollout::{Fault, PreflightFault};
use picoserve::ResponseSent;
use picoserve::io::Read;
use picoserve::response::{Connection, IntoResponse, Response, ResponseWriter, StatusCode};
use serde::{Serialize, Serializer};

/// One answer, complete.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    header: Option<(&'static str, &'static str)>,
    body: String,
}

/// A refusal on its way to becoming an answer.
#[derive(Debug)]
pub(crate) struct Problem(Box<Details>);

#[derive(Debug)]
struct Details {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: String,
    header: Option<(&'static str, &'static str)>,
    rollout: Option<RolloutId>,
    refusals: Option<Vec<RefusalView>>,
}

/// Prints as text what JSON has no form for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<T>(pub(super) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<Shown<RolloutId>>,
}

#[derive(Serialize)]
struct ErrorView<'a> {
    code: &'a str,
    message: &'a str,
    hint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusals: Option<&'a [RefusalView]>,
}

#[derive(Debug, Serialize)]
struct RefusalView {
    code: &'static str,
    member: Option<String>,
    role: Option<String>,
    message: String,
    hint: &'static str,
}

#[derive(Serialize)]
struct Accepted {
    rollout: Shown<RolloutId>,
}

impl Answer {
    /// `200` with a JSON value.
    pub(super) fn json(value: &impl Serialize) -> Self {
        Self::with_status(StatusCode::OK, value)
    }

    /// `200` with JSON that is text already.
    pub(super) const fn json_text(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: JSON, header: None, body }
    }

    /// `202`: the wish was granted, the rollout goes on by itself.
    pub(super) fn accepted(rollout: RolloutId) -> Self {
        Self::with_status(StatusCode::ACCEPTED, &Accepted { rollout: Shown(rollout) })
    }

    /// `302`: what was meant is there; with one line of text for those who do not follow.
    pub(super) fn elsewhere(place: &'static str, line: &str) -> Self {
        let (body, header) = (format!("{line}\n"), Some(("Location", place)));
        Self { status: StatusCode::FOUND, content_type: PLAIN, header, body }
    }

    /// Another status than `200`, with a JSON value.
    pub(super) fn with_status(status: StatusCode, value: &impl Serialize) -> Self {
        Self { status, content_type: JSON, header: None, body: json_text(value) }
    }

    /// Writes it.
    pub(super) async fn send<R: Read, W: ResponseWriter<Error = R::Error>>(
        self,
        connection: Connection<'_, R>,
        writer: W,
    ) -> Result<ResponseSent, W::Error> {
        Response::new(self.status, self.body)
            .with_content_type(self.content_type)
            .with_header("Cache-Control", "no-store")
            .with_headers(self.header)
            .write_to(connection, writer)
            .await
    }
}

impl Problem {
    /// Something that this request cannot have.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Display,
        hint: impl Display,
    ) -> Self {
        let (message, hint) = (message.to_string(), hint.to_string());
        let (header, rollout, refusals) = (None, None, None);
        Self(Box::new(Details { status, code, message, hint, header, rollout, refusals }))
    }

    /// With a header that the status demands.
    pub(super) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// Names the rollout that stands in the way.
    pub(super) fn with_rollout(mut self, rollout: Option<RolloutId>) -> Self {
        self.0.rollout = rollout;
        self
    }

    /// The word for programs.
    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    /// What was found, for people.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The codes of what preflight refused.
    pub(crate) fn refusal_codes(&self) -> Vec<&'static str> {
        self.0.refusals.iter().flatten().map(|refusal| refusal.code).collect()
    }

    /// What preflight found, every fault of it.
    pub(super) fn refused(message: impl Display, faults: &[PreflightFault]) -> Self {
        let hint = faults.first().map_or("begin again when it is wanted", |it| it.fault.hint());
        let refusals = faults.iter().map(RefusalView::new).collect();
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", message, hint);
        problem.0.refusals = Some(refusals);
        problem
    }
}

impl From<Problem> for Answer {
    fn from(Problem(problem): Problem) -> Self {
        let error = ErrorView {
            code: problem.code,
            message: &problem.message,
            hint: &problem.hint,
            refusals: problem.refusals.as_deref(),
        };
        let body = json_text(&ErrorBody { error, rollout: problem.rollout.map(Shown) });
        Self { status: problem.status, content_type: JSON, header: problem.header, body }
    }
}

impl RefusalView {
    fn new(fault: &PreflightFault) -> Self {
        Self {
            code: fault.fault.code(),
            member: fault.member.map(|member| member.to_string()),
            role: role_of(&fault.fault),
            message: fault.fault.to_string(),
            hint: fault.fault.hint(),
        }
    }
}

fn role_of(fault: &Fault) -> Option<String> {
    match fault {
        Fault::Unreachable { role, .. }
        | Fault::NoDeviceForRole { role }
        | Fault::WrongChip { role, .. }
        | Fault::WrongBoard { role, .. }
        | Fault::TooLarge { role, .. }
        | Fault::TooLargeToSpool { role, .. }
        | Fault::EpochTooLow { role, .. }
        | Fault::NoRollback { role }
        | Fault::OnTrial { role }
        | Fault::LowHeap { role, .. }
        | Fault::BadLink { role, .. }
        | Fault::Mixed { role, .. }
        | Fault::SameVersionOtherImage { role, .. }
        | Fault::NoWayBack { role, .. }
        | Fault::Incompatible { role, .. }
        | Fault::UnknownPast { role, .. }
        | Fault::KeysLeftOut { role }
        | Fault::SecureVersionTooLow { role, .. }
        | Fault::SecureVersionRises { role, .. }
        | Fault::NotSigned { role } => Some(role.to_string()),
        Fault::TooManyMembers { .. } | Fault::NothingToDo => None,
    }
}

/// The value as JSON. Nothing of this API can fail to be written: its keys are strings, and its
/// numbers finite.
pub(crate) fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| String::from("null"))
}

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";
