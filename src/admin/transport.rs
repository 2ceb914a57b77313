//! From a request to an answer: the body and its limit, the endpoint and its methods, the header fields of all answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::{Method, Version, header};
use actix_web::rt::time::timeout;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};

use crate::actors::replication::Wish;
use crate::admin::access_log::{self, AccessLog, Entry};
use crate::admin::answer::{Answer, Outcome, Payload};
use crate::admin::body::Body;
use crate::admin::call::{Call, Writing};
use crate::admin::consistency;
use crate::admin::context::{Context, KONG_VERSION, TROOP_VERSION};
use crate::admin::query::Query;
use crate::admin::table::{Endpoint, Params, Table};

/// Greatest time between two pieces of a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A listener's endpoints and the node behind them.
pub struct Surface {
    pub context: Arc<Context>,
    pub table: Arc<Table>,
    pub log: Option<AccessLog>,
}

/// Answers one request.
pub async fn serve(request: HttpRequest, payload: web::Payload, surface: web::Data<Surface>) -> HttpResponse {
    let start = Instant::now();
    let found = surface.table.find(request.path());
    let path = match &found {
        Some((endpoint, params)) => access_log::shown(&endpoint.pattern, params, request.path()),
        None => request.path().to_owned(),
    };
    let (answer, allow) = match found {
        Some((endpoint, _)) if request.method() == Method::OPTIONS => (Answer::empty(204), Some(endpoint.allow())),
        found => (answer(&request, payload, &surface, found).await.unwrap_or_else(|refusal| refusal), None),
    };
    let took = start.elapsed().as_millis();
    if let Some(log) = &surface.log {
        let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
        log.add(&Entry {
            client: &request.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default(),
            method: request.method().as_str(),
            path: &path,
            version: match request.version() {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            status: answer.status,
            bytes: answer.body.len() as u64,
            agent: text(header::USER_AGENT).unwrap_or("-"),
        });
    }
    tracing::debug!(method = %request.method(), path, status = answer.status, ms = took, "admin request");
    respond(&request, &surface.context, answer, allow, took)
}

async fn answer(request: &HttpRequest, payload: web::Payload, surface: &Surface, found: Option<(&Endpoint, Params)>) -> Outcome {
    let Some((endpoint, params)) = found else { return Err(Answer::not_found()) };
    let Some(handler) = endpoint.handler(request.method()) else { return Err(Answer::method_not_allowed()) };
    let query = Query::parse(request.query_string()).map_err(|e| Answer::message(400, e.to_string()))?;
    let bytes = read(request, payload, surface.context.options.max_body).await?;
    let body = if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        let media_types: Vec<&str> = request.headers().get_all(header::CONTENT_TYPE).filter_map(|v| v.to_str().ok()).collect();
        Body::decode(&media_types, &bytes, endpoint.accepts)?
    } else {
        Body::Absent
    };
    let cluster = surface.context.cluster.as_deref();
    let wish = match cluster {
        Some(cluster) => consistency::before(cluster, request).await?,
        None => Wish::default(),
    };
    let writing = Arc::new(Writing { wish, ..Writing::default() });
    let call = Call {
        context: surface.context.clone(),
        catalog: surface.context.catalog.load_full(),
        method: request.method().clone(),
        path: request.path().to_owned(),
        params,
        query,
        body,
        writing: Arc::clone(&writing),
    };
    // A defect in one endpoint costs one answer and not the connection.
    let outcome = AssertUnwindSafe(handler(call)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(method = %request.method(), path = request.path(), "a handler of the admin api panicked");
        Err(Answer::unexpected())
    });
    match writing.receipt.lock().take() {
        Some(receipt) => outcome.map(|answer| consistency::after(answer, &receipt)),
        None => outcome,
    }
}

/// The whole body, if it is not too large.
async fn read(request: &HttpRequest, mut payload: web::Payload, limit: usize) -> Result<Bytes, Answer> {
    let too_large = || Answer::page(413, "Request Entity Too Large");
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limit as u64) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = timeout(BODY_TIMEOUT, payload.next()).await.map_err(|_| Answer::page(408, "Request Time-out"))? {
        let chunk = chunk.map_err(|_| Answer::page(400, "Bad Request"))?;
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn respond(request: &HttpRequest, context: &Context, answer: Answer, allow: Option<String>, took: u128) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(answer.status).unwrap_or_default();
    let mut response = HttpResponse::build(status);
    let options = &context.options;
    if options.server_header {
        response.insert_header((header::SERVER, format!("kong/{KONG_VERSION}")));
    }
    response.insert_header(("X-Troop-Version", TROOP_VERSION));
    if options.latency_header {
        response.insert_header(("X-Kong-Admin-Latency", took.to_string()));
    }
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
    let origin = text(header::ORIGIN).unwrap_or("*");
    let origin = match options.gui_origins.first() {
        Some(first) if !options.gui_origins.iter().any(|o| o == origin) => first,
        _ => origin,
    };
    response.insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin));
    response.insert_header((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"));
    if let Some(allow) = allow {
        let asked = text(header::ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or("Content-Type");
        response.insert_header((header::ALLOW, allow.clone()));
        response.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, allow));
        response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, asked));
    }
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    match answer.body {
        Payload::Empty => response.finish(),
        Payload::Json(text) => response.insert_header((header::CONTENT_TYPE, "application/json; charset=utf-8")).body(text),
        Payload::Text(media_type, text) => response.insert_header((header::CONTENT_TYPE, media_type)).body(text),
    }
}
