//! What an endpoint answers: a status, a body, and Kong's envelope for everything that went wrong.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::catalog::WriteError;

/// An answer of the Admin API. Failures are answers too: handlers return `Result<Answer, Answer>` so that `?` ends them.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Payload,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Payload {
    Empty,
    /// JSON text.
    Json(Bytes),
    /// Any other text with its media type.
    Text(&'static str, Bytes),
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Json(text) | Self::Text(_, text) => text.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a handler returns.
pub type Outcome = Result<Answer, Answer>;

impl Answer {
    fn new(status: u16, body: Payload) -> Self {
        Self { status, body, headers: Vec::new() }
    }

    /// An answer with a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, body.to_string())
    }

    /// An answer whose JSON text exists already.
    pub fn raw(status: u16, text: impl Into<Bytes>) -> Self {
        Self::new(status, Payload::Json(text.into()))
    }

    pub fn text(status: u16, media_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self::new(status, Payload::Text(media_type, text.into()))
    }

    pub fn ok(body: &Value) -> Self {
        Self::json(200, body)
    }

    /// 204, or another status without a body.
    pub fn empty(status: u16) -> Self {
        Self::new(status, Payload::Empty)
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// `{"message": text}`.
    pub fn message(status: u16, text: impl AsRef<str>) -> Self {
        Self::json(status, &json!({"message": text.as_ref()}))
    }

    pub fn not_found() -> Self {
        Self::message(404, "Not found")
    }

    pub fn method_not_allowed() -> Self {
        Self::message(405, "Method not allowed")
    }

    pub fn unexpected() -> Self {
        Self::message(500, "An unexpected error occurred")
    }

    /// A page as nginx, under Kong, answers before Kong sees the request.
    pub fn page(status: u16, title: &str) -> Self {
        let text = format!(
            "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} {title}</h1></center>\r\n</body>\r\n</html>\r\n"
        );
        Self::text(status, "text/html; charset=UTF-8", text)
    }
}

/// A refusal in Kong's envelope.
impl From<WriteError> for Answer {
    fn from(error: WriteError) -> Self {
        Self::json(error.status(), &error.body())
    }
}
