//! `GET /api/events`: what changes, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use idlewatt_control::{Event, Request, Response};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Shared;

/// A comment this often shows a browser that the stream lives; only while one listens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    State(shared): State<Shared>,
    stop: CancellationToken,
) -> Sse<impl Stream<Item = Result<SentEvent, Infallible>>> {
    // Subscribed before the first status is made, so that nothing falls between the two.
    let changes = shared.resident.events();
    let first = match shared.resident.answer(Request::Status).await {
        Response::Status(status) => Some(Event::Status(status)),
        _ => None,
    };
    let later = stream::unfold(changes, |mut changes| async {
        let event = match changes.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => Event::Resync,
            Err(RecvError::Closed) => return None,
        };
        Some((event, changes))
    });
    let events = stream::iter(first)
        .chain(later)
        .take_until(stop.cancelled_owned())
        .filter_map(async |event| SentEvent::default().json_data(&event).ok().map(Ok));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
