//! What this machine cannot answer, asked of the hubs that it joined, in turn, with the credits of the accounts that it
//! earns for. Only where the host allows it (`own.networks`): prompts leave the machine here.
//!
//! The hub's answer goes through as it comes: status, events, usage, `retry-after`. Another hub is asked only while nothing
//! of an answer has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use idlewatt_networks::hub::is_near;
use idlewatt_networks::trust::client_config;
use idlewatt_protocol::invite::check_hub_url;
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::node_key::{NodeKey, key_for};
use idlewatt_protocol::{PublicKey, UnixMillis};
use idlewatt_store::NetworkRow;
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use super::{broken_event, is_too_long};
use crate::node::{Node, lock};

/// A hub that takes no connection within this time is passed over.
const CONNECT: Duration = Duration::from_secs(2);
/// A hub says within this time what it offers, or whose key this is.
const FACTS: Duration = Duration::from_secs(4);
/// A whole answer may be computed for this long without a byte; a stream has comments in between.
const SILENCE: Duration = Duration::from_secs(600);
/// Longest list of models that is read, bytes.
const MODELS_BYTES: usize = 4 * 1024 * 1024;
/// Longest refusal that is passed on, bytes.
const REFUSAL_BYTES: usize = 64 * 1024;

/// What of a hub's head the host's program gets, beside what begins with `x-idlewatt-` or `x-ratelimit-`.
const PASSED: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("x-request-id"),
];

/// Who answered, where it was not this machine: the network's id.
const ANSWERED_BY: HeaderName = HeaderName::from_static("x-idlewatt-answered-by");

/// Hubs as their consumer.
#[derive(Debug, Default)]
pub(crate) struct Hubs {
    /// Keys that their hubs know, by network, with the moment of joining that they are of.
    keys: Mutex<BTreeMap<String, (UnixMillis, String)>>,
    /// By the key that a hub must show where it is encrypted, and whether it is near: no proxy leads there then.
    clients: Mutex<BTreeMap<(Option<PublicKey>, bool), reqwest::Client>>,
}

/// Why a hub did not answer.
struct Refusal {
    hub: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Node {
    /// Asks one hub after the other; `None` where the host does not allow it, or no hub is joined.
    pub(super) async fn ask_hubs(
        self: &Arc<Self>,
        endpoint: Endpoint,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Option<Response> {
        if !self.config().settings().own_networks {
            return None;
        }
        let mut refusals: Vec<Refusal> = Vec::new();
        for row in self.networks.hubs() {
            match self.ask_hub(&row, endpoint, headers, body).await {
                Ok(response) => return Some(response),
                Err(refusal) => {
                    tracing::info!(network = %row.id, status = refusal.status.as_u16(), "a hub did not answer the host");
                    refusals.push(refusal);
                }
            }
        }
        refusals.into_iter().min_by_key(|it| it.rank()).map(Refusal::into_response)
    }

    /// Asks one hub, at the first of its addresses that answers.
    async fn ask_hub(
        &self,
        row: &NetworkRow,
        endpoint: Endpoint,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, Refusal> {
        let key = self.account_key(row).await?;
        let mut silent = Refusal::silent(row, "it has no address that may be used");
        for url in addresses(row) {
            let client =
                self.hubs.client(row.key, &url).map_err(|error| Refusal::silent(row, &error.to_string()))?;
            let mut request = client.post(at(&url, endpoint.path())).bearer_auth(&key);
            for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("x-idlewatt-")) {
                request = request.header(name, value);
            }
            let request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) => {
                    silent = Refusal::silent(row, &error.without_url().to_string());
                    continue;
                }
            };
            if answer.status() == StatusCode::UNAUTHORIZED {
                // Asked for anew next time; then the hub says why it is not given.
                lock(&self.hubs.keys).remove(&row.id);
            }
            if answer.status().is_success() {
                return Ok(passed_on(row, answer));
            }
            let refusal = Refusal::of(row, answer).await;
            // What is wrong with the request itself is wrong everywhere; another hub's model may have a longer context.
            let final_word = matches!(refusal.status.as_u16(), 400 | 413 | 422)
                && !is_too_long(refusal.status, &refusal.body);
            return if final_word { Ok(refusal.into_response()) } else { Err(refusal) };
        }
        Err(silent)
    }

    /// The node's key of its account at a hub, which knows it when this returns.
    async fn account_key(&self, row: &NetworkRow) -> Result<String, Refusal> {
        if let Some((joined, key)) = lock(&self.hubs.keys).get(&row.id)
            && *joined == row.joined
        {
            return Ok(key.clone());
        }
        let key = self.say_key(row, true).await?;
        lock(&self.hubs.keys).insert(row.id.clone(), (row.joined, key.clone()));
        Ok(key)
    }

    /// Tells a hub that the node's key holds, or no longer does; gives the key.
    async fn say_key(&self, row: &NetworkRow, holds: bool) -> Result<String, Refusal> {
        let Some(known) = self.identity.borrow().clone() else {
            return Err(Refusal::silent(row, "this node's key was not given by the keyring yet"));
        };
        let key = key_for(&known.key, &row.key, row.joined);
        let statement = NodeKey::of(&key, row.key, holds).sign(&known.key);
        let mut silent = Refusal::silent(row, "it has no address that may be used");
        for url in addresses(row) {
            let client =
                self.hubs.client(row.key, &url).map_err(|error| Refusal::silent(row, &error.to_string()))?;
            let request = client.post(at(&url, "/node/v1/keys")).json(&statement).timeout(FACTS);
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(key),
                Ok(answer) => return Err(Refusal::of(row, answer).await),
                Err(error) => silent = Refusal::silent(row, &error.without_url().to_string()),
            }
        }
        Err(silent)
    }

    /// The host leaves a hub: the key goes too. A hub that cannot be reached keeps it; nobody else has it.
    pub(crate) fn give_key_back(self: &Arc<Self>, row: NetworkRow) {
        lock(&self.hubs.keys).remove(&row.id);
        let node = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(refusal) = node.say_key(&row, false).await {
                tracing::debug!(network = %row.id, status = refusal.status.as_u16(), "a key was not revoked");
            }
        });
    }

    /// Models of joined hubs, as they list them, each owned by its hub. Hubs that do not answer have none.
    pub(super) async fn hub_models(&self) -> Vec<Value> {
        if !self.config().settings().own_networks {
            return Vec::new();
        }
        let rows = self.networks.hubs();
        let lists = rows.iter().map(|row| async move {
            timeout(FACTS, self.models_of(row)).await.ok().flatten().unwrap_or_default()
        });
        join_all(lists).await.into_iter().flatten().collect()
    }

    async fn models_of(&self, row: &NetworkRow) -> Option<Vec<Value>> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Value>,
        }
        let key = self.account_key(row).await.ok()?;
        for url in addresses(row) {
            let Ok(client) = self.hubs.client(row.key, &url) else { continue };
            let Ok(answer) = client.get(at(&url, "/v1/models")).bearer_auth(&key).send().await else {
                continue;
            };
            let body = bounded(answer, MODELS_BYTES).await;
            let mut list = serde_json::from_slice::<List>(&body).ok()?.data;
            for model in list.iter_mut().filter_map(Value::as_object_mut) {
                model.insert("owned_by".to_owned(), row.name.clone().into());
            }
            return Some(list);
        }
        None
    }
}

impl Hubs {
    /// A client for this address of the hub with this key.
    ///
    /// # Errors
    /// When no TLS configuration can be made.
    pub(crate) fn client(&self, hub: PublicKey, url: &Url) -> reqwest::Result<reqwest::Client> {
        let (key, is_near) = ((url.scheme() == "https").then_some(hub), is_near(url));
        let mut known = lock(&self.clients);
        if let Some(client) = known.get(&(key, is_near)) {
            return Ok(client.clone());
        }
        let mut client = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .tcp_nodelay(true);
        if let Some(Ok(tls)) = key.map(client_config) {
            client = client.tls_backend_preconfigured(tls);
        }
        let client = if is_near { client.no_proxy() } else { client }.build()?;
        known.insert((key, is_near), client.clone());
        Ok(client)
    }
}

impl Refusal {
    fn silent(row: &NetworkRow, why: &str) -> Self {
        let words = format!("{} cannot be reached: {why}.", row.name);
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::RETRY_AFTER, HeaderValue::from_static("5")),
        ]);
        let body = super::error_body("server_error", "hub_unreachable", &words).to_string().into();
        Self { hub: row.id.clone(), status: StatusCode::SERVICE_UNAVAILABLE, headers, body }
    }

    async fn of(row: &NetworkRow, answer: reqwest::Response) -> Self {
        let (status, headers) = (answer.status(), heads(answer.headers()));
        Self { hub: row.id.clone(), status, headers, body: bounded(answer, REFUSAL_BYTES).await }
    }

    /// Which refusal tells the host most: one that passes soonest, then one that wants credits, then one of many names.
    fn rank(&self) -> (u8, u64) {
        let after = self.headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
        let rank = match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => 0,
            StatusCode::PAYMENT_REQUIRED => 1,
            status if status.is_server_error() => 2,
            StatusCode::NOT_FOUND => 3,
            _ => 4,
        };
        (rank, after.unwrap_or(u64::MAX))
    }

    fn into_response(self) -> Response {
        with_head(&self.hub, self.status, self.headers, Body::from(self.body))
    }
}

fn passed_on(row: &NetworkRow, answer: reqwest::Response) -> Response {
    let (status, headers) = (answer.status(), heads(answer.headers()));
    let streaming =
        headers.get(header::CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    let pieces = stream::unfold(Some(answer.bytes_stream().boxed()), move |pieces| async move {
        let mut pieces = pieces?;
        match pieces.next().await? {
            Ok(bytes) => Some((Ok(bytes), Some(pieces))),
            // A stream that breaks says so, and never ends as if it were whole.
            Err(_) if streaming => Some((Ok(broken_event("the hub broke off")), None)),
            Err(error) => Some((Err(error.without_url()), None)),
        }
    });
    with_head(&row.id, status, headers, Body::from_stream(pieces))
}

fn with_head(hub: &str, status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(hub) = HeaderValue::try_from(hub) {
        response.headers_mut().insert(ANSWERED_BY, hub);
    }
    response
}

fn heads(all: &HeaderMap) -> HeaderMap {
    let passed = all.iter().filter(|(name, _)| {
        PASSED.contains(name)
            || ["x-idlewatt-", "x-ratelimit-"].iter().any(|it| name.as_str().starts_with(it))
    });
    passed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A hub's addresses that may be used, best first.
pub(crate) fn addresses(row: &NetworkRow) -> impl Iterator<Item = Url> {
    row.urls.iter().filter_map(|url| Url::parse(url).ok()).filter(|url| check_hub_url(url).is_ok())
}

pub(crate) fn at(hub: &Url, path: &str) -> String {
    format!("{}{path}", hub.as_str().trim_end_matches('/'))
}

/// A body as far as it is read.
async fn bounded(mut answer: reqwest::Response, most: usize) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout(FACTS, answer.chunk()).await
        && body.len() + chunk.len() <= most
    {
        body.extend_from_slice(&chunk);
    }
    body.into()
}
