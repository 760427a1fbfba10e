//! `POST /v1/chat/completions`, `/v1/completions`, `/v1/embeddings`: from an HTTP request to an HTTP answer.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use idlewatt_hub_core::openai::{ApiError, validate};
use idlewatt_protocol::limits::{CREDIT_TIMEOUT, MAX_REQUEST_BODY};
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::receipt::commitment;
use idlewatt_protocol::{Nonce, RequestId};
use tokio::time::{sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::answering::{Admitted, Answering};
use super::authenticate;
use super::error::{Refusal, event};
use super::ratelimit;
use super::wanted::wanted;
use crate::hub::{Hub, clock, lock, now};
use crate::store::{Consumer, NotAdmitted};

/// The head of a stream waits this long for the first token; later the head goes out alone and errors are chunks.
const HEAD_HOLD: Duration = Duration::from_secs(15);

/// Between comments on a silent stream, so that nothing on the way closes it.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// A body over the limit is read up to here, bytes.
const MAX_DISCARDED: usize = 16 * MAX_REQUEST_BODY;

/// The whole body must be here by then: 4 MiB at 35 KB/s. Who sends more slowly holds memory and a socket for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RECEIPT: HeaderName = HeaderName::from_static("x-idlewatt-receipt");
const NODE: HeaderName = HeaderName::from_static("x-idlewatt-node");
const ARTEFACT: HeaderName = HeaderName::from_static("x-idlewatt-artefact");
const CONTINUE: HeaderName = HeaderName::from_static("x-idlewatt-continue");
/// The other node that was asked because the first token was overdue.
const HEDGED: HeaderName = HeaderName::from_static("x-idlewatt-hedged");
const IGNORED: HeaderName = HeaderName::from_static("x-idlewatt-ignored");
/// Tells buffering proxies to pass events on as they come.
const NO_BUFFER: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) async fn chat(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    respond(hub, Endpoint::ChatCompletions, request).await
}

pub(super) async fn completions(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    respond(hub, Endpoint::Completions, request).await
}

pub(super) async fn embeddings(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    respond(hub, Endpoint::Embeddings, request).await
}

async fn respond(hub: Arc<Hub>, endpoint: Endpoint, request: Request) -> Response {
    let id = RequestId(rand::random());
    let (parts, body) = request.into_parts();
    let consumer = authenticate(&hub, &parts.headers);
    let answered = match &consumer {
        Ok(consumer) => answer(&hub, id, endpoint, &parts.headers, body, consumer).await,
        Err(error) => Err(error.clone()),
    };
    let mut response = answered.unwrap_or_else(|error| {
        hub.metrics.refused(error.status);
        tracing::debug!(request = %id, status = error.status, code = error.code, "refused");
        Refusal(error).into_response()
    });
    if let Ok(consumer) = &consumer {
        // As it stands once this request is counted.
        ratelimit::describe(consumer.allowance(), response.headers_mut());
    }
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(
    hub: &Arc<Hub>,
    id: RequestId,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Body,
    consumer: &Consumer,
) -> Result<Response, ApiError> {
    if hub.is_draining() {
        return Err(ApiError::unavailable("The hub is stopping. Try again shortly.", Duration::from_secs(5)));
    }
    hub.store.admit(consumer).map_err(|why| match why {
        NotAdmitted::Suspended => ApiError::account_suspended(),
        NotAdmitted::Over(over) => over.into(),
    })?;
    let answered = answer_to(hub, id, endpoint, headers, body, consumer.clone()).await;
    if let Err(error) = &answered
        && error.is_the_askers()
    {
        hub.store.wasted(consumer);
    }
    answered
}

async fn answer_to(
    hub: &Arc<Hub>,
    id: RequestId,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Body,
    consumer: Consumer,
) -> Result<Response, ApiError> {
    let body = timeout(BODY_TIMEOUT, read(body)).await.map_err(|_| too_slow())??;
    let mut asked = validate(endpoint, &body)?;
    let for_others = may_continue(headers)?;
    asked.continues &= for_others;
    let limits = consumer.limits();
    if !limits.admits(&asked.model) {
        return Err(ApiError::model_not_allowed(&asked.model, limits.models.as_deref().unwrap_or_default()));
    }
    let salt = Nonce(rand::random());
    let admitted = Admitted {
        id,
        wanted: wanted(headers, &asked, &consumer, &hub.fingerprint_key)?,
        may_hedge: for_others,
        request_commitment: commitment(&salt, &body),
        consumer,
        asked,
        salt,
        started: now(),
    };
    drop(body);
    let mut answering = Box::new(Answering::new(Arc::clone(hub), admitted));
    if !answering.asked().stream {
        return match answering.next().await {
            Some(Ok(body)) => Ok(whole(&answering, body)),
            Some(Err(error)) => Err(error),
            None => Err(ApiError::node_failed("The node sent no answer. Try again.")),
        };
    }
    match timeout(HEAD_HOLD, answering.next()).await {
        Ok(Some(Err(error))) => Err(error),
        Ok(Some(Ok(first))) => Ok(streamed(answering, Some(first))),
        Ok(None) => Err(ApiError::node_failed("The node sent no answer. Try again.")),
        Err(_) => Ok(streamed(answering, None)),
    }
}

/// Whether the consumer lets another node go on with an answer that broke off, or begin one that is overdue.
fn may_continue(headers: &HeaderMap) -> Result<bool, ApiError> {
    match headers.get(CONTINUE).map(HeaderValue::as_bytes) {
        None | Some(b"same-artefact") => Ok(true),
        Some(b"never") => Ok(false),
        Some(_) => Err(ApiError::invalid(CONTINUE.as_str(), "it must be never or same-artefact")),
    }
}

/// The whole body, when it is within the limit. What is over it is still read for a while and thrown away: a client that
/// sends on while the hub has closed sees a reset connection instead of the error.
async fn read(body: Body) -> Result<Bytes, ApiError> {
    let mut pieces = body.into_data_stream();
    let mut whole = BytesMut::new();
    let mut length = 0usize;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| cut_short())?;
        length = length.saturating_add(piece.len());
        if length > MAX_DISCARDED {
            break;
        }
        if length <= MAX_REQUEST_BODY {
            whole.extend_from_slice(&piece);
        }
    }
    if length > MAX_REQUEST_BODY { Err(ApiError::too_large()) } else { Ok(whole.freeze()) }
}

fn cut_short() -> ApiError {
    ApiError {
        status: 400,
        kind: "invalid_request_error",
        code: "body_cut_short",
        param: None,
        message: "The request's body broke off. Send it again.".into(),
        retry_after: None,
    }
}

fn too_slow() -> ApiError {
    ApiError {
        status: 408,
        kind: "invalid_request_error",
        code: "body_too_slow",
        param: None,
        message: "The request's body did not come within two minutes. Send it again, or send less.".into(),
        retry_after: None,
    }
}

fn whole(answering: &Answering, body: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, json)], body).into_response();
    describe(answering, response.headers_mut());
    response
}

fn streamed(answering: Box<Answering>, first: Option<Bytes>) -> Response {
    let mut headers = HeaderMap::new();
    describe(&answering, &mut headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(NO_BUFFER, HeaderValue::from_static("no"));
    let parked = Parked::default();
    let watch = AbortOnDropHandle::new(tokio::spawn(parked.clone().watch()));
    let events = stream::unfold((Some(answering), first, parked, watch), |state| async move {
        let (answering, first, parked, watch) = state;
        let Some(mut answering) = answering.or_else(|| parked.take()) else {
            return parked.give_up().map(|last| (Ok::<_, Infallible>(last), (None, None, parked, watch)));
        };
        let bytes = match first {
            Some(first) => first,
            None => match timeout(COMMENT_EVERY, answering.next()).await {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(error))) => event(&error),
                Ok(None) => return None,
                Err(_) => Bytes::from_static(b": still working\n\n"),
            },
        };
        parked.put(answering);
        Some((Ok(bytes), (None, None, parked, watch)))
    });
    (StatusCode::OK, headers, Body::from_stream(events)).into_response()
}

/// Where an answer is while its consumer takes what was sent. One that takes nothing for [`CREDIT_TIMEOUT`] is given up
/// like one that went away: it would hold a slot of the node for as long as it likes.
#[derive(Clone, Default)]
struct Parked(Arc<Mutex<Place>>);

#[derive(Default)]
enum Place {
    /// With the consumer's connection.
    #[default]
    Taken,
    Here(Box<Answering>, Instant),
    GivenUp,
}

impl Parked {
    fn put(&self, answering: Box<Answering>) {
        *lock(&self.0) = Place::Here(answering, clock());
    }

    fn take(&self) -> Option<Box<Answering>> {
        let mut place = lock(&self.0);
        match std::mem::take(&mut *place) {
            Place::Here(answering, _) => Some(answering),
            other => {
                *place = other;
                None
            }
        }
    }

    /// The last event of an answer that was given up; `None` once it was sent.
    fn give_up(&self) -> Option<Bytes> {
        match std::mem::take(&mut *lock(&self.0)) {
            Place::GivenUp => Some(event(&ApiError::node_failed(
                "Nothing of this answer was read for 30 s, so it was given up. Only what was sent is billed.",
            ))),
            _ => None,
        }
    }

    async fn watch(self) {
        let mut until = clock() + CREDIT_TIMEOUT;
        loop {
            sleep_until(until.into()).await;
            let mut place = lock(&self.0);
            until = match &*place {
                Place::Here(_, since) if *since + CREDIT_TIMEOUT <= clock() => {
                    let given_up = std::mem::replace(&mut *place, Place::GivenUp);
                    drop(place);
                    drop(given_up);
                    return;
                }
                Place::Here(_, since) => *since + CREDIT_TIMEOUT,
                Place::Taken | Place::GivenUp => clock() + CREDIT_TIMEOUT,
            };
        }
    }
}

fn describe(answering: &Answering, headers: &mut HeaderMap) {
    let mut set = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    set(RECEIPT, answering.id().to_string());
    if let Some(answered) = answering.answered() {
        set(NODE, answered.node.short());
        let artefact = &answered.offer.artefact;
        set(
            ARTEFACT,
            artefact.digest.map_or_else(|| artefact.name(), |digest| format!("{}@{digest}", artefact.name())),
        );
    }
    if let Some(other) = &answering.hedged {
        set(HEDGED, other.short());
    }
    if !answering.asked().ignored.is_empty() {
        set(IGNORED, answering.asked().ignored.join(", "));
    }
}
