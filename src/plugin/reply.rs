//! An answer of the gateway itself.

use bytes::Bytes;

use crate::http::Headers;
use crate::plugin::Exchange;

/// An answer made by the gateway: an error in the form that the client accepts, or a body as given.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Headers,
    pub body: ReplyBody,
}

/// The body of a [`Reply`].
#[derive(Debug, PartialEq)]
pub enum ReplyBody {
    /// Kong's `error` kind: message and request id as JSON, plain text, XML or HTML, by the request's Accept.
    Message(String),
    /// Kong's default text for the status, in the same forms.
    Default,
    /// Kong's `exit` kind: sent as it is; the headers say its type.
    Bytes(Bytes),
    Empty,
    /// There is nothing to render: see [`Reply::in_place`].
    InPlace,
}

impl Reply {
    /// An error with message and request id, in the form that the client accepts.
    pub fn error(status: u16, message: impl Into<String>) -> Self {
        Self { status, headers: Headers::new(), body: ReplyBody::Message(message.into()) }
    }

    /// An error with Kong's text for the status.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Headers::new(), body: ReplyBody::Default }
    }

    /// No body at all.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Headers::new(), body: ReplyBody::Empty }
    }

    /// Ends the request with what the plugin has put into `Exchange::response`: an upstream's earlier answer, which is told to the
    /// client as one that was proxied.
    pub fn in_place(x: &Exchange) -> Self {
        Self { status: x.response.status, headers: Headers::new(), body: ReplyBody::InPlace }
    }

    /// A JSON body sent as given, without request id.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::bytes(status, "application/json; charset=utf-8", body.to_string())
    }

    /// A body sent as given.
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut headers = Headers::new();
        headers.append("Content-Type", content_type);
        Self { status, headers, body: ReplyBody::Bytes(body.into()) }
    }

    /// With a further header field.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.append(name, value);
        self
    }
}
