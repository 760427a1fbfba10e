//! The host's own OpenAI endpoint on this machine: `/v1/*` of the control port, with a key of its own.
//!
//! It asks this machine's model servers directly, shared or not. The host comes first: where all slots are taken, the
//! newest shared request is taken back; and while it runs, sharing is paused for own use. What this machine cannot answer,
//! the joined hubs are asked ([`hubs`]), if the host allows it.

mod hubs;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use idlewatt_core::meter::Task;
use idlewatt_core::work::{Head, Piece};
use idlewatt_protocol::limits::{BETWEEN_TOKENS_TIMEOUT, FIRST_TOKEN_TIMEOUT, MAX_REQUEST_BODY};
use idlewatt_protocol::message::{Deadlines, Endpoint, Outcome};
use idlewatt_protocol::{RequestId, sse};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answering::{End, Pieces, Question, Step};
use crate::clock;
use crate::door::bears;
use crate::metered::Metered;
use crate::node::Node;
use crate::services::Known;
use crate::slots::For;

pub(crate) use hubs::{Hubs, addresses, at};

/// The routes.
pub(crate) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route(
            "/v1/chat/completions",
            post(|node, headers, body| ask(node, headers, body, Endpoint::ChatCompletions)),
        )
        .route("/v1/completions", post(|node, headers, body| ask(node, headers, body, Endpoint::Completions)))
        .route("/v1/embeddings", post(|node, headers, body| ask(node, headers, body, Endpoint::Embeddings)))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&node), key))
        .with_state(node)
}

async fn key(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    if bears(request.headers(), &node.own_key) {
        return next.run(request).await;
    }
    error(
        StatusCode::UNAUTHORIZED,
        "invalid_request_error",
        "invalid_api_key",
        "This is your own endpoint; `idlewatt endpoint` shows its key.",
    )
}

async fn models(State(node): State<Arc<Node>>) -> Json<Value> {
    let mut names: Vec<String> =
        node.services.views(&node.slots).into_iter().filter(|it| it.reachable).map(|it| it.model).collect();
    names.sort();
    names.dedup();
    // Each name once: where this machine has the model, it is this machine that is asked first.
    let elsewhere = node.hub_models().await;
    let others = elsewhere.into_iter().filter(|it| !names.iter().any(|name| it["id"] == **name));
    let entry = |id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "this machine" });
    let mut data: Vec<Value> = names.iter().map(entry).collect();
    for other in others.collect::<Vec<_>>() {
        if !data.iter().any(|it| it["id"] == other["id"]) {
            data.push(other);
        }
    }
    Json(json!({ "object": "list", "data": data }))
}

/// What of a body decides where it goes.
#[derive(Deserialize)]
struct Wanted {
    model: String,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    max_completion_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

async fn ask(State(node): State<Arc<Node>>, headers: HeaderMap, body: Bytes, endpoint: Endpoint) -> Response {
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(why) => {
            let message = format!("The body is not a request of this endpoint: {why}.");
            return error(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_body", &message);
        }
    };
    let candidates = node.services.answering_to(&wanted.model);
    // A slot that is free is better than one that is taken back.
    let free = candidates.iter().find(|it| node.slots.free(&it.id, it.model.slots) > 0);
    let here = match free.or(candidates.first()).cloned() {
        Some(known) => answer_here(&node, known, &wanted, body.clone(), endpoint).await,
        None => Err(not_here(&node, &wanted.model)),
    };
    match here {
        Ok(response) => response,
        Err(refusal) => node.ask_hubs(endpoint, &headers, &body).await.unwrap_or(refusal),
    }
}

/// Asks this machine.
///
/// # Errors
/// What the host is told, where nothing of an answer came and somebody else may be asked.
async fn answer_here(
    node: &Arc<Node>,
    known: Known,
    wanted: &Wanted,
    body: Bytes,
    endpoint: Endpoint,
) -> Result<Response, Response> {
    let (Some(server), Some(slot)) =
        (known.server.clone(), node.slots.take(&known.id, known.model.slots, For::Host))
    else {
        return Err(unavailable("The model server went away."));
    };
    if !node.woken(&known).await {
        return Err(unavailable("The model server rests, and may not be started now."));
    }
    node.cards.read_for_meter().await;
    let request = RequestId(rand::random());
    // Its joules are not to be taken for shared work's.
    let task = Task { service: known.id.clone(), place: known.place.clone(), own: true };
    let metered = Metered::begin(&node.cards, request, task, Instant::now());
    let max_tokens = wanted.max_completion_tokens.or(wanted.max_tokens).unwrap_or(u32::MAX);
    let question = Question {
        request,
        server,
        max_tokens: max_tokens.min(known.context()),
        ids: false,
        prefix: None,
        model: known.model,
        endpoint,
        body,
        deadlines: Deadlines {
            first_token_ms: clock::millis(FIRST_TOKEN_TIMEOUT),
            between_ms: clock::millis(BETWEEN_TOKENS_TIMEOUT),
        },
    };
    let pieces = Pieces::ask(question, slot, metered);
    respond(pieces, wanted.stream_options.as_ref().is_some_and(|it| it.include_usage)).await
}

async fn respond(mut pieces: Pieces, usage: bool) -> Result<Response, Response> {
    let head = match pieces.next().await {
        Some(Step::Head(head)) => head,
        Some(Step::End(End { message, .. })) => return Err(unavailable(&message.unwrap_or_default())),
        Some(Step::Piece(_)) | None => return Err(unavailable("The engine is stopping.")),
    };
    // Nothing of an answer has come before its first piece: a server may say only there that it has none.
    let first = match pieces.next().await {
        Some(Step::End(end)) if end.outcome != Outcome::Complete => {
            return Err(unavailable(&end.message.unwrap_or_default()));
        }
        Some(Step::Piece(piece)) => Some(piece),
        _ => None,
    };
    let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let elsewhere =
        status.is_server_error() || first.as_ref().is_some_and(|it| is_too_long(status, &it.bytes));
    let answering = Answering { pieces, first, head, usage };
    let body = stream::unfold(answering, |mut it| async move { Some((it.next().await?, it)) });
    let kind = if head.streaming { "text/event-stream" } else { "application/json" };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let response = (status, headers, Body::from_stream(body)).into_response();
    if elsewhere { Err(response) } else { Ok(response) }
}

/// An answer of this machine's on its way to the host's program.
struct Answering {
    pieces: Pieces,
    /// What came before anything went out.
    first: Option<Piece>,
    head: Head,
    /// Whether the program asked for usage.
    usage: bool,
}

impl Answering {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        loop {
            let step = match self.first.take() {
                Some(piece) => Step::Piece(piece),
                None => self.pieces.next().await?,
            };
            match step {
                Step::Piece(piece) => {
                    if self.usage || !is_usage_only(&piece.bytes) {
                        return Some(Ok(piece.bytes));
                    }
                }
                Step::End(end) if end.outcome != Outcome::Complete => return Some(broken(self.head, end)),
                Step::Head(_) | Step::End(_) => {}
            }
        }
    }
}

/// Whether a refusal says that prompt and answer do not fit the model's context: another machine's may be longer.
fn is_too_long(status: StatusCode, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Refused {
        error: Coded,
    }
    #[derive(Deserialize)]
    struct Coded {
        code: Option<String>,
    }
    let code = || serde_json::from_slice::<Refused>(body).ok()?.error.code;
    status.is_client_error() && code().as_deref() == Some("context_length_exceeded")
}

/// The node always asks for usage; a stream that was not asked for it does not carry the chunk.
fn is_usage_only(event: &[u8]) -> bool {
    event.windows(12).any(|it| it == b"\"choices\":[]")
}

/// A stream that breaks says so, and never ends as if it were whole.
fn broken(head: Head, end: End) -> Result<Bytes, std::io::Error> {
    let why = end.message.unwrap_or_else(|| "the answer was taken back".to_owned());
    if head.streaming {
        return Ok(broken_event(&why));
    }
    // A whole body cannot be mended: the connection breaks, and a client sees that.
    Err(std::io::Error::other(why))
}

/// The last event of a stream that broke.
fn broken_event(why: &str) -> Bytes {
    let error = json!({ "error": { "message": why, "type": "server_error", "param": null, "code": null } });
    sse::event(error.to_string().as_bytes())
}

fn not_here(node: &Node, model: &str) -> Response {
    let mut message = format!("No model server here offers {model:?} now.");
    if !node.config().settings().own_networks && !node.networks.hubs().is_empty() {
        message.push_str(
            " Only this machine was asked: `idlewatt config set own.networks true` lets your endpoint ask the networks you \
             joined. Your prompts leave this machine then.",
        );
    }
    error(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", &message)
}

fn unavailable(why: &str) -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "server_error", "server_unavailable", why)
}

fn error(status: StatusCode, kind: &str, code: &str, message: &str) -> Response {
    (status, Json(error_body(kind, code, message))).into_response()
}

fn error_body(kind: &str, code: &str, message: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}
