//! Bodies of the gateway's own answers: message and request id in the form that the client accepts.

use bytes::Bytes;

use crate::http::{Request, Response};
use crate::plugin::{Reply, exchange::RequestId, reply::ReplyBody};

/// Forms of an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Plain,
    Html,
    Xml,
    Grpc,
}

/// What decides on the form when Accept does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Errors of the gateway's logic and of plugins are JSON.
    Json,
    /// Errors of the transport take the request's Content-Type, else the setting `error_default_type`.
    ContentTypeOr(Form),
}

/// Templates that replace the built-in bodies (`error_template_*`): each holds two `%s`, message and request id.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    pub html: Option<String>,
    pub json: Option<String>,
    pub xml: Option<String>,
    pub plain: Option<String>,
}

impl Form {
    /// The form of an error body for a request.
    pub fn of(request: Option<&Request>, fallback: Fallback) -> Self {
        let header = |name| request.and_then(|r| r.headers.get_str(name));
        if header("Content-Type").is_some_and(|t| t.starts_with("application/grpc")) {
            return Self::Grpc;
        }
        match (header("Accept"), fallback) {
            (Some(accept), _) => Self::accepted(accept).unwrap_or(Self::Json),
            (None, Fallback::Json) => Self::Json,
            (None, Fallback::ContentTypeOr(default)) => header("Content-Type").and_then(Self::accepted).unwrap_or(default),
        }
    }

    /// The best form that a list of media ranges names.
    fn accepted(accept: &str) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let Some(form) = parts.next().and_then(Self::of_type) else { continue };
            let q = parts.find_map(|p| p.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            if best.is_none_or(|(b, _)| q > b) {
                best = Some((q, form));
            }
        }
        best.map(|(_, form)| form)
    }

    /// The form of a media type, or of a range of them.
    pub fn of_type(media: &str) -> Option<Self> {
        match media.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/plain" | "text/*" => Some(Self::Plain),
            "text/html" => Some(Self::Html),
            "application/xml" => Some(Self::Xml),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
            Self::Grpc => "application/grpc",
        }
    }

    fn body(self, message: &str, request_id: &str, templates: &Templates) -> String {
        let own = match self {
            Self::Json => &templates.json,
            Self::Plain => &templates.plain,
            Self::Html => &templates.html,
            Self::Xml => &templates.xml,
            Self::Grpc => &None,
        };
        let escaped = match self {
            Self::Json => json_text(message),
            Self::Html | Self::Xml => markup_text(message),
            Self::Plain | Self::Grpc => message.to_owned(),
        };
        if let Some(template) = own {
            return template.replacen("%s", &escaped, 1).replacen("%s", request_id, 1);
        }
        match self {
            Self::Json => format!("{{\n  \"message\":\"{escaped}\",\n  \"request_id\":\"{request_id}\"\n}}"),
            Self::Plain => format!("{escaped}\nrequest_id: {request_id}\n"),
            Self::Xml => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{escaped}</message>\n  <requestid>{request_id}</requestid>\n</error>\n"
            ),
            Self::Html => format!(
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  <body>\n    \
                 <h1>Error</h1>\n    <p>{escaped}.</p>\n    <p>request_id: {request_id}</p>\n  </body>\n</html>\n"
            ),
            Self::Grpc => String::new(),
        }
    }
}

/// Puts an answer of the gateway into `response`.
pub fn render(reply: Reply, form: Form, request_id: &RequestId, templates: &Templates, response: &mut Response) {
    let Reply { status, headers, body } = reply;
    response.status = status;
    response.reason = None;
    response.tunnel = None;
    response.headers.clear();
    for (name, value) in headers.iter() {
        response.headers.append(name, value);
    }
    let message = match body {
        ReplyBody::Bytes(bytes) => return put_body(response, bytes),
        ReplyBody::Empty | ReplyBody::InPlace => return put_body(response, Bytes::new()),
        ReplyBody::Message(message) => message,
        ReplyBody::Default => default_message(status),
    };
    response.headers.set("Content-Type", form.content_type());
    if form == Form::Grpc {
        response.status = 200;
        response.headers.append("grpc-status", itoa::Buffer::new().format(grpc_status(status)));
        response.headers.append("grpc-message", &message);
    }
    put_body(response, Bytes::from(form.body(&message, request_id.as_str(), templates)));
}

/// nginx's own page for a status, which Kong shows where nginx answers before it does.
pub fn nginx_page(status: u16) -> Bytes {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    Bytes::from(format!(
        "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n</body>\r\n</html>\r\n"
    ))
}

/// Puts nginx's own page for the status into `response`.
pub fn put_nginx_page(response: &mut Response) {
    response.headers.set("Content-Type", "text/html; charset=UTF-8");
    put_body(response, nginx_page(response.status));
}

fn put_body(response: &mut Response, body: Bytes) {
    response.headers.set("Content-Length", itoa::Buffer::new().format(body.len()));
    response.body = body.into();
}

/// Kong's text for a status.
pub fn default_message(status: u16) -> String {
    let text = match status {
        400 => "Bad request",
        401 => "Unauthorized",
        402 => "Payment required",
        403 => "Forbidden",
        404 => "Not found",
        405 => "Method not allowed",
        406 => "Not acceptable",
        407 => "Proxy authentication required",
        408 => "Request timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length required",
        412 => "Precondition failed",
        413 => "Payload too large",
        414 => "URI too long",
        415 => "Unsupported media type",
        416 => "Range not satisfiable",
        417 => "Expectation failed",
        418 => "I'm a teapot",
        421 => "Misdirected request",
        422 => "Unprocessable entity",
        423 => "Locked",
        424 => "Failed dependency",
        425 => "Too early",
        426 => "Upgrade required",
        428 => "Precondition required",
        429 => "Too many requests",
        431 => "Request header fields too large",
        451 => "Unavailable for legal reasons",
        497 => "The plain HTTP request was sent to HTTPS port",
        494 => "Request header or cookie too large",
        500 => "An unexpected error occurred",
        501 => "Not implemented",
        502 => "An invalid response was received from the upstream server",
        503 => "The upstream server is currently unavailable",
        504 => "The upstream server is timing out",
        505 => "HTTP version not supported",
        _ => return format!("The upstream server responded with {status}"),
    };
    text.to_owned()
}

fn grpc_status(status: u16) -> u16 {
    match status {
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        429 => 8,
        499 => 1,
        500 => 13,
        501 => 12,
        503 => 14,
        504 => 4,
        other if other < 500 => 3,
        _ => 13,
    }
}

fn json_text(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn markup_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{Fallback, Form, Templates, render};
    use crate::http::{Body, Request, Response};
    use crate::plugin::Reply;
    use crate::plugin::exchange::RequestId;

    fn form(accept: Option<&str>, content_type: Option<&str>, fallback: Fallback) -> Form {
        let mut request = Request::default();
        for (name, value) in [("Accept", accept), ("Content-Type", content_type)] {
            if let Some(value) = value {
                request.headers.append(name, value);
            }
        }
        Form::of(Some(&request), fallback)
    }

    #[test]
    fn forms() {
        let proxy = Fallback::ContentTypeOr(Form::Plain);
        assert_eq!(form(None, None, Fallback::Json), Form::Json);
        assert_eq!(form(None, None, proxy), Form::Plain);
        assert_eq!(form(None, Some("application/json"), proxy), Form::Json);
        assert_eq!(form(Some("text/html;q=0.5, application/xml"), None, proxy), Form::Xml);
        assert_eq!(form(Some("image/png"), None, Fallback::Json), Form::Json);
        assert_eq!(form(Some("text/*"), None, Fallback::Json), Form::Plain);
        assert_eq!(form(None, Some("application/grpc+proto"), Fallback::Json), Form::Grpc);
    }

    #[test]
    fn bodies() {
        let mut response = Response::default();
        let id = RequestId([b'a'; 32]);
        render(Reply::error(404, "no \"x\""), Form::Json, &id, &Templates::default(), &mut response);
        let Body::Bytes(body) = &response.body else { panic!("a body") };
        let id = "a".repeat(32);
        assert_eq!(body, &format!("{{\n  \"message\":\"no \\\"x\\\"\",\n  \"request_id\":\"{id}\"\n}}"));
        assert_eq!(response.headers.get_str("content-length"), Some(body.len().to_string().as_str()));
    }
}
