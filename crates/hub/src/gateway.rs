//! The HTTP surface: OpenAI's endpoints, receipts, health, metrics, pages, and the node socket.

mod answering;
mod attempt;
mod begun;
mod ending;
pub(crate) mod energy;
mod error;
mod hedging;
mod models;
mod pin;
mod ratelimit;
mod receipts;
mod respond;
mod search;
mod seeking;
mod settling;
mod starting;
mod wanted;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use idlewatt_hub_core::openai::ApiError;

use crate::hub::Hub;
use crate::store::Consumer;
use crate::{metrics, node, openapi, pages};

pub(crate) use error::Refusal;

/// Every route, with the method and path under which `openapi.json` describes it.
pub(crate) fn routes() -> Vec<(&'static str, &'static str, MethodRouter<Arc<Hub>>)> {
    vec![
        ("get", "/", get(pages::status)),
        ("get", "/energy", get(pages::energy)),
        ("get", "/energy.csv", get(energy::csv)),
        ("get", "/energy.json", get(energy::json)),
        ("post", "/energy/reports", post(energy::take)),
        ("get", "/energy/reports/{id}", get(energy::one)),
        ("get", "/chat", get(pages::chat::page)),
        ("get", "/join", get(pages::chat::page)),
        ("post", "/join/key", post(pages::chat::redeem)),
        ("post", "/join/forget", post(pages::chat::forget)),
        ("get", "/admin", get(pages::admin::page)),
        ("post", "/admin/open", post(pages::admin::open)),
        ("post", "/admin/close", post(pages::admin::close)),
        ("post", "/admin/act", post(pages::admin::act)),
        ("post", "/admin/statements", post(pages::admin::statements)),
        ("get", "/healthz", get(healthz)),
        ("get", "/readyz", get(readyz)),
        ("get", "/metrics", get(exposition)),
        ("get", "/openapi.json", get(openapi::serve)),
        ("get", "/v1/models", get(models::list)),
        ("get", "/v1/models/{model}", get(models::one)),
        ("post", "/v1/chat/completions", post(respond::chat)),
        ("post", "/v1/completions", post(respond::completions)),
        ("post", "/v1/embeddings", post(respond::embeddings)),
        ("get", "/v1/receipts/{id}", get(receipts::one)),
        ("get", "/node/v1", get(node::upgrade)),
        ("post", "/node/v1/keys", post(node::take_key)),
    ]
}

/// The whole surface over one hub.
pub(crate) fn router(hub: Arc<Hub>) -> Router {
    let mut router = Router::new();
    for (_, path, route) in routes() {
        router = router.route(path, route.fallback(wrong_method));
    }
    for (path, kind, content) in pages::FILES {
        router = router.route(path, pages::file(kind, content).fallback(wrong_method));
    }
    router.fallback(no_such_path).with_state(hub)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(hub): State<Arc<Hub>>) -> Response {
    if hub.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "ready\n".into_response()
    }
}

async fn exposition(State(hub): State<Arc<Hub>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], metrics::exposition(&hub)).into_response()
}

async fn no_such_path(uri: Uri) -> Refusal {
    let meant = format!("/v1{}", uri.path());
    let words = if routes().iter().any(|(_, path, _)| *path == meant) {
        "The hub has no such path; it has the same below /v1. Set your client's base URL to the hub's address with /v1."
    } else {
        "The hub has no such path. GET /openapi.json lists what it has."
    };
    refusal(404, "not_found", words)
}

async fn wrong_method() -> Refusal {
    refusal(
        405,
        "method_not_allowed",
        "This path does not take this method. GET /openapi.json says which it takes.",
    )
}

pub(crate) fn refusal(status: u16, code: &'static str, message: &str) -> Refusal {
    Refusal(ApiError {
        status,
        kind: "invalid_request_error",
        code,
        param: None,
        message: message.into(),
        retry_after: None,
    })
}

/// Who asks.
fn authenticate(hub: &Hub, headers: &HeaderMap) -> Result<Consumer, ApiError> {
    bearer(headers).and_then(|key| hub.store.authenticate(key)).ok_or_else(ApiError::invalid_api_key)
}

/// The secret that a request comes with.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}
